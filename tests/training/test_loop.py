"""The engine: a lane's result does not depend on its pack, and equals what a plain loop over the same model gives."""

import copy
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from cut_runs import same_lane as same
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from training_runs import begin

from harness.common.errors import HarnessError
from harness.config.recipe import ModelSpec, TaskFiles, TaskSpec
from harness.config.trials import Trial
from harness.models import pretrained
from harness.training import loop
from harness.training.forward import Forward, IndexedEmbedding
from harness.training.loop import update
from harness.training.numerics import stream
from harness.training.prepare import load_task
from harness.training.remedies.dropout import Masks

Make = Callable[..., Trial]


def pool(trial: Make, padding: str) -> list[Trial]:
    """Trials that differ in everything that lanes may differ in; the last diverges."""
    changes: list[dict[str, object]] = [
        {}, {"bias_correction": False}, {"dropout": 0.0}, {"dropout": 0.5, "lr": 1e-2}, {"max_grad_norm": None},
        {"weight_decay": 0.1, "warmup_ratio": 0.5}, {"beta2": 0.98, "eps": 1e-3, "init_seed": 9}, {"lr": 1e30},
    ]  # fmt: skip
    return [trial(seed % 3, epochs=1, padding=padding, **change) for seed, change in enumerate(changes)]


@pytest.mark.parametrize(("padding", "threads"), [("dataset", 1), ("batch", 1), ("dataset", 2)])
def test_a_lane_is_bit_equal_alone_and_in_any_place_of_any_pack(trial: Make, padding: str, threads: int) -> None:
    """With several threads: in any place of any pack of that size, as a rerun fills it up."""
    trials = pool(trial, padding)
    filled = cache(lambda index, lanes: loop.train([trials[index]] * lanes, threads=threads)[0])

    @settings(max_examples=5, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.integers(0, len(trials) - 1), min_size=2, max_size=8))
    def check(lanes: list[int]) -> None:
        together = loop.train([trials[lane] for lane in lanes], threads=threads)
        size = 1 if threads == 1 else len(lanes)
        assert all(same(result, filled(lane, size)) for lane, result in zip(lanes, together, strict=True))

    check()


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_embedded_model_is_bit_equal_alone_and_in_a_pack(trial: Make, precision: str) -> None:
    """At the width and depth that the shipped sweeps train, for three updates and an evaluation."""
    task, model = TaskSpec(name="embedded"), ModelSpec(name="embedded")
    fields = {"task": task, "model": model, "epochs": 1, "max_steps": 3, "max_length": 16, "precision": precision}
    trials = [trial(seed, **fields) for seed in (1, 2, 3)]
    together = loop.train(trials)
    assert same(together[2], loop.train(trials[2:])[0])
    assert not same(together[0], together[1])


@pytest.mark.parametrize("kind", ["roberta", "albert", "electra", "distilbert", "deberta", "deberta-v2"])
def test_lanes_of_every_family_keep_to_themselves(trial: Make, build: Callable[..., Path], kind: str) -> None:
    """With dropout on, wherever the family has it."""
    model = ModelSpec(name=f"tiny-{kind}", folder=str(build(kind)))
    trials = [trial(seed, model=model, epochs=1, dropout=0.3) for seed in (1, 2, 3)]
    together = loop.train(trials)
    assert same(together[1], loop.train(trials[1:2])[0])
    other = trials[1].model_copy(update={"seeds": trials[1].seeds.model_copy(update={"dropout_seed": 9})})
    assert not same(together[1], loop.train([other])[0])


@pytest.mark.parametrize("kind", ["bert", "albert", "deberta-v2", "gpt2"])
def test_a_lane_of_one_text_at_a_time_keeps_to_itself(trial: Make, build: Callable[..., Path], kind: str) -> None:
    """Heads of one lane's one text can be read where they lie, and products of one row hang on where a matrix lies."""
    sizes = {"hidden_size": 96, "num_attention_heads": 4, "intermediate_size": 99}
    model = ModelSpec(name=f"wider-{kind}", folder=str(build(kind, **sizes)))
    for fields in ({"batch_size": 1}, {"batch_size": 2, "padding": "batch"}):
        pack = [trial(seed, model=model, epochs=1, max_steps=4, eval_batch_size=1, **fields) for seed in (1, 2, 3)]
        together = loop.train(pack)
        assert same(together[1], loop.train(pack[1:2])[0]), fields


def plain(given: Trial) -> tuple[list[float], list[float], np.ndarray]:
    """A loop as people write it, apart from the engine: losses, gradient norms and final logits, without dropout."""
    r = given.recipe
    task = load_task(r.task, r.model, r.max_length)
    network = pretrained.network(r.model, max(2, task.num_labels))  # a regression's second output is not read
    module = copy.deepcopy(network.module).eval().requires_grad_(True)
    head = network.initialised(stream("init", given.seeds.init_seed))
    module.load_state_dict(module.state_dict() | head)
    data = {name: torch.from_numpy(getattr(task.train, name)) for name in ("input_ids", "lengths", "labels")}
    first = {name: torch.zeros_like(value) for name, value in module.named_parameters()}
    second = copy.deepcopy(first)
    order = stream("order", given.seeds.order_seed)
    total = math.ceil(len(data["labels"]) / r.batch_size) * r.epochs
    losses, norms = [], []

    def forward(ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        logits: torch.Tensor = module(input_ids=ids, attention_mask=mask).logits
        return logits

    for _ in range(r.epochs):
        for rows in torch.randperm(len(data["labels"]), generator=order).split(r.batch_size):
            step = len(losses)
            logits, labels = forward(data["input_ids"][rows], data["lengths"][rows]), data["labels"][rows]
            loss = F.cross_entropy(logits, labels) if task.label_names else F.mse_loss(logits[:, 0], labels)
            module.zero_grad()
            loss.backward()
            losses.append(loss.item())
            norms.append(torch.nn.utils.clip_grad_norm_(module.parameters(), r.max_grad_norm or math.inf).item())
            warmup = int(r.warmup_ratio * total)
            lr = r.lr * (step / warmup if step < warmup else (total - step) / (total - warmup))
            size = lr * (math.sqrt(1 - r.beta2 ** (step + 1)) / (1 - r.beta1 ** (step + 1)) if r.bias_correction else 1)
            with torch.no_grad():
                for name, value in module.named_parameters():
                    gradient = value.grad
                    assert gradient is not None
                    first[name].mul_(r.beta1).add_(gradient, alpha=1 - r.beta1)
                    second[name].mul_(r.beta2).addcmul_(gradient, gradient, value=1 - r.beta2)
                    value.addcdiv_(first[name], second[name].sqrt().add_(r.eps), value=-size)
                    if not any(kept in name for kept in ("bias", "LayerNorm.weight")):
                        value.add_(value, alpha=-lr * r.weight_decay)
    with torch.no_grad():
        dev = forward(torch.from_numpy(task.validation.input_ids), torch.from_numpy(task.validation.lengths))
    return losses, norms, dev.numpy()[:, : task.num_labels]


@pytest.mark.parametrize("padding", ["dataset", "batch"])
@pytest.mark.parametrize("correction", [False, True])
def test_a_run_equals_a_plain_loop(trial: Make, correction: bool, padding: str) -> None:
    """All 16 steps, to float32's rounding, whose differences grow with the steps."""
    one = trial(4, bias_correction=correction, dropout=0.0, padding=padding, weight_decay=0.1)
    result = loop.train([trial(5, dropout=0.0, padding=padding), one])[1]
    losses, norms, logits = plain(one)
    np.testing.assert_allclose(result.curves.train_loss, losses, rtol=2e-5)
    np.testing.assert_allclose(result.curves.grad_norm, norms, rtol=2e-4)
    np.testing.assert_allclose(result.curves.logits, logits, atol=2e-4)


@pytest.mark.parametrize("padding", ["dataset", "batch"])
def test_padding_to_a_multiple_changes_bits_alone(trial: Make, tagged: TaskSpec, padding: str) -> None:
    for changes in ({}, {"task": tagged}):
        bare = [trial(seed, dropout=0.0, padding=padding, **changes) for seed in (1, 2)]
        wide = [
            one.model_copy(update={"recipe": one.recipe.model_copy(update={"pad_to_multiple_of": 8})}) for one in bare
        ]
        assert bare[0].recipe.shape != wide[0].recipe.shape
        run = begin(wide)
        assert run.training.input_ids.shape[1] == 16
        assert {run.training.width_of(torch.tensor([row])) for row in range(20)} <= {8, 16}
        for one, other in zip(loop.train(bare), loop.train(wide), strict=True):
            np.testing.assert_allclose(one.curves.train_loss, other.curves.train_loss, rtol=1e-4)
            np.testing.assert_allclose(one.curves.logits, other.curves.logits, atol=1e-4)
        assert same(loop.train(wide)[1], loop.train(wide[1:])[0])


def test_padding_to_a_multiple_ends_where_the_model_does(trial: Make) -> None:
    """The tiny model reads 32 tokens."""
    run = begin([trial(1, pad_to_multiple_of=50)])
    assert run.training.input_ids.shape[1] == run.lanes.network.positions == 32


def test_training_learns_what_can_be_learnt(trial: Make) -> None:
    result = loop.train([trial(1, lr=5e-3, epochs=12)])[0]
    assert result.measured.outcome == "ok"
    assert result.measured.final_score is not None
    assert result.measured.final_score > 0.9
    assert result.measured.reason is None


def test_each_seed_drives_its_own_part(trial: Make) -> None:
    """Head, order and dropout follow their seeds and nothing else."""
    cases = [trial(1), trial(1, init_seed=2), trial(1, order_seed=2), trial(1, dropout_seed=2)]
    run = begin(cases)
    start = run.lanes.weights.clone()
    assert [torch.equal(start[0], lane) for lane in start] == [True, False, True, True]
    update(run, 0)
    assert [torch.equal(run.batches.order[0], lane) for lane in run.batches.order] == [True, True, False, True]
    streams = [Masks([0.5], [t.seeds.dropout_seed], torch.device("cpu")) for t in cases]
    masks = [one.draw([0], [(100, 0.1)], 0, 0, whole=False) for one in streams]
    assert [torch.equal(masks[0], mask) for mask in masks] == [True, True, True, False]
    results = loop.train(cases)
    assert len({result.measured.weights_sha256 for result in results}) == 4


def test_every_epoch_shows_every_example_once_in_another_order(trial: Make) -> None:
    run = begin([trial(3)])
    seen = []
    for step in range(run.pack.total_steps):
        update(run, step)
        if step % run.pack.epoch_steps == 0:
            seen.append(run.batches.order[0].tolist())
    assert [sorted(order) for order in seen] == [list(range(60))] * 2
    assert seen[0] != seen[1]


def test_bf16_is_another_result_near_by(trial: Make) -> None:
    exact, rough = (loop.train([trial(1, epochs=1, precision=p)])[0] for p in ("float32", "bf16"))
    assert not np.array_equal(exact.curves.train_loss, rough.curves.train_loss)
    np.testing.assert_allclose(exact.curves.train_loss, rough.curves.train_loss, atol=0.02)
    pair = loop.train([trial(2, epochs=1, precision="bf16"), trial(1, epochs=1, precision="bf16")])
    assert same(pair[1], rough)


@pytest.mark.parametrize(
    "kind", ["bert", "roberta", "albert", "electra", "distilbert", "deberta-v2", "gpt2", "llama", "qwen2"]
)
def test_bf16_is_autocasts_in_every_linear_layer(trial: Make, build: Callable[..., Path], kind: str) -> None:
    """What a linear layer gives has the type that `torch.autocast` gives it, and the logits are near.

    Without DeBERTa's first version: in bf16 transformers' own code can't mask its attention.
    """
    changes = {"num_key_value_heads": 1} if kind in ("llama", "qwen2") else {}
    model = ModelSpec(name=f"tiny-{kind}", folder=str(build(kind, **changes)))
    run = begin([trial(1, model=model, precision="bf16")], record=False)
    types: dict[str, torch.dtype] = {}
    linear = (torch.nn.Linear, transformers.pytorch_utils.Conv1D)
    hooks = [
        part.register_forward_hook(lambda _part, _given, found, name=name: types.update({name: found.dtype}))
        for name, part in run.lanes.module.named_modules()
        if isinstance(part, linear)
    ]
    ours = run.evaluator(run.lanes.weights, run.validation, 0)[0][0]
    found = dict(types)
    types.clear()
    rows, width = torch.arange(len(run.validation)), run.validation.input_ids.shape[1]
    lane = {name: view[0] for name, view in run.lanes.views.items()}
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        given = run.validation.inputs(rows, width)
        theirs = torch.func.functional_call(run.lanes.module, lane, args=(), kwargs=given).logits.float().numpy()
    for hook in hooks:
        hook.remove()
    assert found == types
    assert set(types.values()) == {torch.bfloat16}
    np.testing.assert_allclose(ours, theirs[:, : ours.shape[1]], atol=0.01)


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> TaskSpec:
    """A regression on forty texts: how often `good` stands in them, and a half."""
    folder = tmp_path_factory.mktemp("numbers")
    for name in ("train", "validation"):
        lines = [f"{'good ' * (number % 4)}a\t{number % 4}.5" for number in range(40)]
        (folder / f"{name}.tsv").write_text("text\tlabel\n" + "\n".join(lines) + "\n")
    files = TaskFiles(train=str(folder / "train.tsv"), validation=str(folder / "validation.tsv"))
    return TaskSpec(name="numbers", files=files, metric="pearson")


@pytest.mark.parametrize("accumulation", [1, 4])
def test_a_regression_equals_a_plain_loop(trial: Make, numbers: TaskSpec, accumulation: int) -> None:
    """Mean squared errors of the labels as they are, over the whole batch, however it is accumulated."""
    one = trial(4, task=numbers, dropout=0.0, gradient_accumulation=accumulation)
    result = loop.train([one])[0]
    losses, norms, logits = plain(one)
    np.testing.assert_allclose(result.curves.train_loss, losses, rtol=2e-5)
    np.testing.assert_allclose(result.curves.grad_norm, norms, rtol=2e-4)
    np.testing.assert_allclose(result.curves.logits, logits, atol=2e-4)


def test_a_regression_trains(trial: Make, numbers: TaskSpec) -> None:
    task = numbers
    trials = [trial(seed, task=task, lr=5e-3, epochs=6) for seed in (1, 2)]
    results = loop.train(trials)
    assert same(results[1], loop.train(trials[1:])[0])
    assert results[0].measured.final_score is not None
    assert results[0].measured.final_score > 0.5
    assert (results[0].measured.majority_score, results[0].measured.correct) == (0.0, None)
    assert results[0].measured.label_variance == pytest.approx(np.var([0.5, 1.5, 2.5, 3.5]))


@pytest.mark.parametrize("padding", ["dataset", "batch"])
def test_lanes_of_a_token_task_keep_to_themselves(trial: Make, tagged: TaskSpec, padding: str) -> None:
    """Each lane's loss is a mean over its own number of words; alone, in a pack and again they are bit for bit."""
    trials = [
        trial(seed, task=tagged, padding=padding, epochs=1, dropout=0.3, keep_best=seed == 2) for seed in (1, 2, 3)
    ]
    together = loop.train(trials)
    assert same(together[1], loop.train(trials[1:2])[0])
    assert same(together[2], loop.train([trials[2], trials[0]])[0])
    assert not same(together[0], together[1])


@pytest.mark.parametrize("kind", ["roberta", "albert", "electra", "distilbert", "deberta", "deberta-v2", "gpt2"])
def test_token_heads_of_every_family(trial: Make, tagged: TaskSpec, build: Callable[..., Path], kind: str) -> None:
    sizes = {"n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2} if kind == "gpt2" else {}
    model = ModelSpec(name=f"tiny-{kind}", folder=str(build(kind, **sizes)))
    trials = [trial(seed, task=tagged, model=model, epochs=1, dropout=0.3) for seed in (1, 2)]
    together = loop.train(trials)
    assert same(together[1], loop.train(trials[1:])[0])
    assert together[0].curves.logits.shape[1] == 5


@pytest.mark.parametrize("method", ["lora", "prompt", "bitfit"])
def test_methods_train_token_heads(trial: Make, tagged: TaskSpec, method: str) -> None:
    """A prompt's virtual positions stand before the words, and have no answers."""
    trials = [trial(seed, task=tagged, epochs=2, lr=1e-2, method=method, virtual_tokens=3 if method == "prompt" else 20)
              for seed in (1, 2)]  # fmt: skip
    together = loop.train(trials)
    assert same(together[1], loop.train(trials[1:])[0])
    assert np.isfinite(together[0].curves.train_loss).all()


@pytest.mark.parametrize("changes", [{}, {"gradient_accumulation": 4}, {"padding": "batch"}])
def test_a_token_task_equals_transformers_own_loss(
    trial: Make, tagged: TaskSpec, bert: ModelSpec, changes: dict[str, object]
) -> None:
    """Steps of the model as transformers has it: the mean over the labelled tokens of each batch."""
    one = trial(4, task=tagged, dropout=0.0, epochs=1, lr=1e-9, **changes)
    run = begin([one])
    module = transformers.AutoModelForTokenClassification.from_pretrained(str(bert.folder), num_labels=5).eval()
    module.load_state_dict({name: view[0].detach().clone() for name, view in run.lanes.views.items()})
    split = run.pack.task.train
    for step in range(run.pack.total_steps):
        update(run, step)
        rows = run.batches.order[0, step * 8 : step * 8 + 8].numpy()
        mask = torch.arange(split.input_ids.shape[1]) < torch.from_numpy(split.lengths[rows])[:, None]
        given = {"input_ids": torch.from_numpy(split.input_ids[rows]), "attention_mask": mask.long()}
        loss = module(**given, labels=torch.from_numpy(split.labels[rows])).loss
        assert run.log.losses[step][0].item() == pytest.approx(loss.item(), rel=1e-5)
        module.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(module.parameters(), math.inf).item()
        assert run.log.norms[step][0].item() == pytest.approx(norm, rel=1e-4)


def test_what_token_tasks_cannot_have(trial: Make, tagged: TaskSpec) -> None:
    with pytest.raises(HarnessError, match="augment cannot be used with a token task"):
        loop.train([trial(task=tagged, augment="swap")])
    for name, value in (("label_smoothing", 0.1), ("class_weights", True), ("oversample", True), ("mixup", 0.2)):
        with pytest.raises(HarnessError, match=f"{name} requires a task with classes .got colours, a token task"):
            loop.train([trial(task=tagged, **{name: value})])
    with pytest.raises(HarnessError, match=r"\.conll, line \d+: only 4 of"):
        loop.train([trial(task=tagged, max_length=6)])


def test_what_cannot_be_trained_is_refused(trial: Make) -> None:
    with pytest.raises(HarnessError, match="batch_size must be at most the number of training examples, 60"):
        loop.train([trial(batch_size=61)])
    with pytest.raises(ValueError, match="share their shape"):
        loop.train([trial(epochs=1), trial(epochs=2)])
    long = trial(max_length=128).recipe.task
    assert long.files is not None
    with open(long.files.train) as stream:
        text = stream.read()
    folder = long.files.train.removesuffix("train.tsv")
    with open(f"{folder}long.tsv", "w") as stream:
        stream.write(text + "a " * 60 + "\tyes\n")
    task = TaskSpec(name="long", files=TaskFiles(train=f"{folder}long.tsv", validation=long.files.validation))
    with pytest.raises(HarnessError, match=r"reads at most 32 tokens, the texts have 62. Lower max_length to 32"):
        loop.train([trial(task=task)])


def test_threads_and_global_generators_are_left_as_they_were(trial: Make) -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    loop.train([trial(epochs=1)], threads=2 if threads == 1 else 1)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_words_looked_up_by_indexing_train_the_same(trial: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = [trial(1), trial(2)]
    as_it_is = begin(pack)
    update(as_it_is, 0)
    monkeypatch.setattr(Forward, "looked_up", lambda self, words: IndexedEmbedding())
    indexed = begin(pack, replay=False)
    update(indexed, 0)
    torch.testing.assert_close(indexed.lanes.gradient, as_it_is.lanes.gradient)
    assert indexed.lanes.gradient.abs().sum() > 0
