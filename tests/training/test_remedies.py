"""Remedies: each is what a plain torch loop with the field's own tools gives, and keeps the laws of the engine."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from cut_runs import HERE, CutError, cut, same
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.func import functional_call
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.overrides import TorchFunctionMode
from training_runs import advance, begin, remedy
from transformers.optimization import Adafactor

from harness.common.errors import HarnessError
from harness.config.recipe import ModelSpec, Recipe, TaskFiles, TaskSpec
from harness.config.schedules import factor
from harness.config.trials import Trial
from harness.data import tasks
from harness.models import pretrained as models
from harness.training import loop, replayer
from harness.training.batches import Batch
from harness.training.callbacks import report_progress
from harness.training.checkpoints import Checkpoints
from harness.training.forward import word_embedding
from harness.training.loop import update
from harness.training.numerics import stream
from harness.training.outcome import LaneResult, lane_results
from harness.training.parts import slots
from harness.training.prepare import load_task
from harness.training.remedies.dropout import Dropout, Masks, NoDropout
from harness.training.remedies.mixout import Mixout
from harness.training.remedies.mixup import Mixup
from harness.training.remedies.neftune import Neftune
from harness.training.run import TrainingRun

Make = Callable[..., Trial]
Fields = dict[str, object]
# What lanes of one pack may differ in.
LANES: list[Fields] = [
    {}, {"schedule": "cosine"}, {"layerwise_lr_decay": 0.8}, {"reinit_layers": 1}, {"mixout": 0.5},
    {"pretrained_decay": 0.1, "layerwise_lr_decay": 0.9}, {"freeze_steps": 3}, {"unfreeze_every": 2},
    {"max_grad_value": 1e-3}, {"clip_per_tensor": True}, {"averaging": "ema", "ema_decay": 0.9},
    {"averaging": "last", "average_last": 2}, {"early_stopping_patience": 1, "lr": 2e-2},
    {"keep_best": True, "early_stopping_on": "score", "lr": 1e-2},
    {"mixout": 0.9, "reinit_layers": 2, "pretrained_decay": 1.0, "freeze_steps": 1}, {"lr": 1e30, "mixout": 0.1},
    {"lr": 1e30, "early_stopping_patience": 1, "keep_best": True},
]  # fmt: skip
# What the trials of a pack have in common.
PACKS: list[Fields] = [
    {"padding": "batch"}, {"eval_every": 0.25}, {"gradient_accumulation": 2}, {"max_steps": 9}, {"optimizer": "sgd"},
    {"optimizer": "lamb"}, {"optimizer": "adafactor"}, {"mixup": 0.4},
    {"mixup": 1.0, "padding": "batch", "gradient_accumulation": 2, "label_smoothing": 0.1},
    {"neftune_alpha": 5.0}, {"r_drop": 1.0},
    {"neftune_alpha": 5.0, "r_drop": 1.0, "mixup": 0.4, "padding": "batch", "gradient_accumulation": 2},
    {"oversample": True}, {"class_weights": True, "eval_steps": 3}, {"class_weights": "balanced", "eval_steps": 3},
]  # fmt: skip


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory, data: TaskSpec) -> TaskSpec:
    """The small task with two thirds of its `yes` left out, so that classes are not equal."""
    assert data.files is not None
    head, *rows = Path(data.files.train).read_text().splitlines()
    left = [row for place, row in enumerate(rows) if row.endswith("no") or place % 6 == 1]
    train_file = tmp_path_factory.mktemp("uneven") / "train.tsv"
    train_file.write_text("\n".join([head, *left]) + "\n")
    return TaskSpec(name="uneven", files=TaskFiles(train=str(train_file), validation=data.files.validation))


# --------------------------------------------------------------------------------------- against their definitions


def below(name: str) -> int:
    """Layers below the head of a parameter of the BERT of two layers."""
    return 3 if "embeddings" in name else 2 if "layer.0" in name else 1 if "layer.1" in name else 0


def rate(r: Recipe, step: int, total: int) -> float:
    """As transformers' schedules give it."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=r.lr)
    more = {"power": r.schedule_power, "lr_end": r.schedule_end} if r.schedule == "polynomial" else {}
    name = "constant_with_warmup" if r.schedule == "constant" else r.schedule
    schedule = transformers.get_scheduler(
        name, optimizer, int(r.warmup_ratio * total), total, scheduler_specific_kwargs=more
    )
    return r.lr * float(schedule.lr_lambdas[0](step))


def start(one: Trial) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """The network of a trial as it begins, and its pretrained values."""
    r = one.recipe
    network = models.network(r.model, 2)
    module = copy.deepcopy(network.module).eval().requires_grad_(True)
    values = network.initialised(stream("init", one.seeds.init_seed))
    generator = stream("reinit", one.seeds.init_seed)
    for name, value in values.items():
        fresh = r.reinit_layers and ("pooler" in name or 0 < below(name) <= r.reinit_layers)
        if fresh and value.dim() > 1:
            values[name] = torch.empty(value.shape).normal_(0, 0.02, generator=generator)
        elif fresh:
            values[name] = torch.full_like(value, float("LayerNorm.weight" in name))
    module.load_state_dict(module.state_dict() | values)
    return module, network.pretrained


def mixed(
    r: Recipe, module: torch.nn.Module, pretrained: dict[str, torch.Tensor], generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """The parameters with mixout by its formula, a mask for the columns of each linear layer outside the head."""
    p = round(r.mixout * 65536) / 65536
    linear = {f"{n}.weight": m.in_features for n, m in module.named_modules() if isinstance(m, torch.nn.Linear)}
    bits = torch.empty((sum(linear.values()) + 3) // 4, dtype=torch.int64).random_(-(2**63), None, generator=generator)
    draws = (bits.view(torch.int16)[: sum(linear.values())].double() + 32768) / 65536
    found, at = {}, 0
    for name, value in module.named_parameters():
        found[name] = value
        if name in linear:
            mask = (draws[at : at + linear[name]] >= p).float()  # of the outgoing weights of an input neuron
            at += linear[name]
            if "classifier" not in name and not (r.reinit_layers and "embeddings" not in name):
                mixture = mask * value + (1 - mask) * pretrained[name]
                found[name] = (mixture - p * pretrained[name]) / (1 - p)
    return found


def plain(one: Trial) -> tuple[list[float], list[float], np.ndarray]:
    """A loop as people write it with torch's and transformers' own tools; losses, norms, final logits."""
    r = one.recipe
    task = load_task(r.task, r.model, r.max_length)
    module, pretrained = start(one)
    names = dict(module.named_parameters())
    data = {name: torch.from_numpy(getattr(task.train, name)) for name in ("input_ids", "lengths", "labels")}
    first = {name: torch.zeros_like(value) for name, value in names.items()}
    second, counts = copy.deepcopy(first), dict.fromkeys(names, 0)
    sgd = torch.optim.SGD(
        [{"params": [value], "weight_decay": r.weight_decay * decays(name)} for name, value in names.items()],
        momentum=r.momentum,
    )
    factored = Adafactor(
        [{"params": [v], "weight_decay": r.weight_decay * decays(name)} for name, v in names.items()],
        lr=r.lr, scale_parameter=False, relative_step=False, warmup_init=False,
    )  # fmt: skip
    order, mixing = stream("order", one.seeds.order_seed), stream("mixout", one.seeds.dropout_seed)
    pairing, noising = (stream(purpose, one.seeds.dropout_seed) for purpose in ("mixup", "neftune"))
    an_epoch = math.ceil(len(data["labels"]) / r.batch_size)
    total = r.max_steps or an_epoch * r.epochs
    counted = torch.bincount(data["labels"])
    weight = len(data["labels"]) / (2 * counted) if r.class_weights else None
    ema = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(r.ema_decay))
    last = AveragedModel(module)
    losses: list[float] = []
    norms: list[float] = []
    while len(losses) < total:
        for rows in torch.randperm(len(data["labels"]), generator=order).split(r.batch_size)[: total - len(losses)]:
            step = len(losses)
            for name, value in names.items():
                opens = below(name) * (r.unfreeze_every or 0) + r.freeze_steps * (below(name) > 0)
                value.requires_grad_(step >= opens)
            parameters = mixed(r, module, pretrained, mixing) if r.mixout else names
            mask = (torch.arange(data["input_ids"].shape[1]) < data["lengths"][rows, None]).long()
            inputs = {"input_ids": data["input_ids"][rows], "attention_mask": mask}
            others, share = rows, 1.0
            if r.mixup:
                words = module.get_input_embeddings()  # type: ignore[operator]
                others = rows[torch.randperm(len(rows), generator=pairing)]
                both = torch.tensor([r.mixup, r.mixup], dtype=torch.float64)
                share = torch._sample_dirichlet(both, generator=pairing)[0].item()
                embedded = share * words(inputs.pop("input_ids")) + (1 - share) * words(data["input_ids"][others])
                longer = torch.maximum(data["lengths"][rows], data["lengths"][others])
                inputs = {
                    "inputs_embeds": embedded,
                    "attention_mask": (torch.arange(data["input_ids"].shape[1]) < longer[:, None]).long(),
                }
            if r.neftune_alpha:
                words = module.get_input_embeddings()  # type: ignore[operator]
                embedded = inputs["inputs_embeds"] if r.mixup else words(inputs.pop("input_ids"))
                noise = torch.empty(embedded.shape).uniform_(-1, 1, generator=noising)
                for own, length in zip(noise, inputs["attention_mask"].sum(dim=1).tolist(), strict=True):
                    own[:length] *= r.neftune_alpha / math.sqrt(length * embedded.shape[-1])
                    own[length:] = 0
                inputs["inputs_embeds"] = embedded + noise
            logits = functional_call(module, parameters, kwargs=inputs).logits
            # `on` divides by the batch's size, `balanced` is F.cross_entropy's own mean.
            whole = r.class_weights == "balanced"
            smoothing = {
                "label_smoothing": r.label_smoothing,
                "weight": weight,
                "reduction": "mean" if whole else "sum",
            }
            first_loss, other_loss = (F.cross_entropy(logits, data["labels"][i], **smoothing) for i in (rows, others))  # type: ignore[arg-type]
            loss = (share * first_loss + (1 - share) * other_loss) / (1 if whole else len(rows))
            module.zero_grad()
            loss.backward()
            trained = {name: value for name, value in names.items() if value.grad is not None}
            losses.append(loss.item())
            norms.append(torch.nn.utils.get_total_norm([value.grad for value in trained.values()]).item())
            if r.max_grad_value:
                torch.nn.utils.clip_grad_value_(trained.values(), r.max_grad_value)
            for group in [[v] for v in trained.values()] if r.clip_per_tensor else [list(trained.values())]:
                torch.nn.utils.clip_grad_norm_(group, r.max_grad_norm or math.inf)
            lr = rate(r, step, total)
            for group in sgd.param_groups:
                group["lr"] = lr
            if r.optimizer == "sgd":
                sgd.step()
            if r.optimizer == "adafactor":
                for name, group in zip(names, factored.param_groups, strict=True):
                    group["lr"] = lr * r.layerwise_lr_decay ** below(name)
                factored.step()
            for name, value in trained.items():
                counts[name] += 1
                with torch.no_grad():
                    if r.optimizer in ("adamw", "lamb"):
                        step_of(r, name, value, first[name], second[name], counts[name], lr)
                    own = lr * r.layerwise_lr_decay ** below(name) * decays(name)
                    fresh = "classifier" in name or (r.reinit_layers and below(name) <= r.reinit_layers)
                    if not fresh:
                        value.sub_(own * r.pretrained_decay * (value - pretrained[name]))
            ema.update_parameters(module)
            if len(losses) % an_epoch == 0 and len(losses) > an_epoch * (r.epochs - r.average_last):
                last.update_parameters(module)
    final = {"none": module, "ema": ema.module, "last": last.module}[r.averaging]
    dev = task.validation
    mask = (torch.arange(dev.input_ids.shape[1]) < torch.from_numpy(dev.lengths)[:, None]).long()
    with torch.no_grad():
        logits = final(input_ids=torch.from_numpy(dev.input_ids), attention_mask=mask).logits
    return losses, norms, logits.numpy()


def decays(name: str) -> bool:
    return not (name.endswith("bias") or "LayerNorm.weight" in name)


def step_of(r: Recipe, name: str, value: torch.Tensor, m: torch.Tensor, v: torch.Tensor, t: int, lr: float) -> None:
    """The paper's AdamW of one parameter, or LAMB's algorithm 2."""
    assert value.grad is not None
    m.mul_(r.beta1).add_(value.grad, alpha=1 - r.beta1)
    v.mul_(r.beta2).addcmul_(value.grad, value.grad, value=1 - r.beta2)
    c1, c2 = (1 - r.beta1**t, 1 - r.beta2**t) if r.bias_correction else (1.0, 1.0)
    lr *= r.layerwise_lr_decay ** below(name)
    if r.optimizer == "lamb":
        u = (m / c1) / ((v / c2).sqrt() + r.eps) + r.weight_decay * decays(name) * value
        norms = value.norm(), u.norm()
        value.sub_(lr * (norms[0] / norms[1] if all(norms) else 1.0) * u)
        return
    value.addcdiv_(m, v.sqrt().add_(r.eps), value=-lr * math.sqrt(c2) / c1)
    value.sub_(lr * r.weight_decay * decays(name) * value)


@pytest.mark.parametrize(
    "fields",
    [
        {"schedule": "polynomial", "schedule_power": 2.0, "schedule_end": 1e-4},
        {"layerwise_lr_decay": 0.7, "bias_correction": False},
        {"reinit_layers": 1}, {"reinit_layers": 2, "pretrained_decay": 5.0, "mixout": 0.4},
        {"mixout": 0.9, "weight_decay": 0.0},
        {"pretrained_decay": 5.0, "layerwise_lr_decay": 0.9},
        {"label_smoothing": 0.1, "class_weights": True}, {"class_weights": True},
        {"class_weights": "balanced"}, {"class_weights": "balanced", "padding": "batch"},
        {"label_smoothing": 0.1, "class_weights": "balanced", "gradient_accumulation": 4},
        {"mixup": 0.4, "class_weights": "balanced", "label_smoothing": 0.1, "padding": "batch", "lr": 2e-2},
        {"freeze_steps": 5, "warmup_ratio": 0.0}, {"unfreeze_every": 3, "optimizer": "sgd"},
        {"max_grad_value": 1e-2}, {"max_grad_value": 1e-2, "max_grad_norm": None},
        {"max_grad_norm": 0.01, "clip_per_tensor": True},
        {"max_steps": 5, "schedule": "cosine"},
        {"averaging": "ema", "ema_decay": 0.9}, {"averaging": "last", "average_last": 2},
        {"optimizer": "sgd", "lr": 0.1},
        {"optimizer": "lamb", "lr": 1e-2}, {"optimizer": "lamb", "bias_correction": False, "unfreeze_every": 2},
        {"mixup": 0.4, "lr": 2e-2},
        {"mixup": 2.0, "lr": 2e-2, "padding": "batch", "label_smoothing": 0.1, "class_weights": True},
        {"neftune_alpha": 5.0}, {"neftune_alpha": 2.0, "mixup": 0.4, "lr": 1e-2},
        {"optimizer": "adafactor"}, {"optimizer": "adafactor", "layerwise_lr_decay": 0.7, "unfreeze_every": 2},
    ],
    ids=lambda fields: " ".join(f"{name}={value}" for name, value in fields.items()),
)  # fmt: skip
def test_a_remedy_is_its_definition(trial: Make, uneven: TaskSpec, fields: Fields) -> None:
    """All steps, to float32's rounding, whose differences grow with the steps; and bit-equal alone and in a pack."""
    common = {"task": uneven, "dropout": 0.0, "epochs": 2, "lr": 3e-3, "weight_decay": 0.1}
    one = trial(4, **(common | fields))
    other = trial(5, **(common | {name: value for name, value in fields.items() if name in shared}))
    result = loop.train([other, one])[1]

    def close(losses: list[float], norms: list[float], logits: np.ndarray) -> bool:
        same_steps = np.allclose(found.train_loss, losses, rtol=5e-5) and np.allclose(found.grad_norm, norms, rtol=5e-4)
        return same_steps and np.allclose(found.logits, logits, atol=5e-4)

    found = result.curves
    assert close(*plain(one))
    untouched = {name: value for name, value in fields.items() if name in kept}
    assert not close(*without(trial(4, **(common | untouched))))
    assert same(loop.train([one]), [result])


without = cache(plain)
# By the trials of a pack.
shared = {
    "label_smoothing",
    "class_weights",
    "gradient_accumulation",
    "max_steps",
    "optimizer",
    "mixup",
    "neftune_alpha",
    "padding",
}
kept = {"lr", "weight_decay", "warmup_ratio", "max_grad_norm", "max_steps", "padding"}  # no remedies of this module


def test_mixup_draws_its_shares_from_a_beta_distribution(trial: Make) -> None:
    """Of mean 1/2 and variance 1 / (4 (2α + 1)); a batch is mixed with all of itself, λ once a batch and lane."""
    run = begin([trial(seed, mixup=alpha) for seed, alpha in ((1, 0.2), (2, 1.0), (2, 4.0))])
    mixup = remedy(run, Mixup)
    rows = torch.arange(30).view(3, 10)
    others, shares_drawn = [], []
    for _ in range(4000):
        others.append(mixup.change_batch(Batch(rows, [0, 1, 2], 0), run.training).also_read["mixup"])
        shares_drawn.append(mixup.shares)
    assert all(torch.equal(one.sort(dim=1).values, rows) for one in others)
    first = torch.stack([one[0] for one in others])
    assert (first == rows[0]).float().mean().item() == pytest.approx(0.1, abs=0.006)  # 4 standard errors
    shares = torch.stack(shares_drawn)
    assert shares.mean(dim=0).tolist() == pytest.approx([0.5] * 3, abs=4 * math.sqrt(0.18 / 4000))
    assert shares.var(dim=0).tolist() == pytest.approx([1 / (4 * (2 * a + 1)) for a in (0.2, 1.0, 4.0)], rel=0.06)


def test_lanes_of_other_mixtures_are_bit_equal_alone_and_in_a_pack(trial: Make) -> None:
    lanes: list[Fields] = [{"mixup": 0.2}, {"mixup": 4.0, "mixout": 0.5}, {"mixup": 1.0, "dropout": 0.0, "lr": 1e30}]
    for common in ({}, {"padding": "batch"}, {"method": "lora"}, {"method": "prompt", "virtual_tokens": 3}):
        kept = [lane for lane in lanes if "mixout" not in lane or "method" not in common]
        trials = [trial(place, **lane, **common) for place, lane in enumerate(kept)]
        wanted = loop.train(trials)
        for place in range(len(trials)):
            assert same(loop.train(trials[place : place + 1]), wanted[place : place + 1])
    (without,) = loop.train([trial(0, method="prompt", virtual_tokens=3)])
    assert not np.array_equal(without.curves.train_loss, wanted[0].curves.train_loss)


@pytest.mark.parametrize("kind", ["roberta", "albert", "electra", "distilbert", "deberta", "deberta-v2"])
def test_mixup_reads_what_every_family_reads(trial: Make, build: Callable[..., Path], kind: str) -> None:
    """An example mixed with itself is itself."""
    model = ModelSpec(name=f"m-{kind}", folder=str(build(kind)))
    rows = torch.arange(8)[None]
    found = []
    for others in (None, rows, rows.flip(1)):
        run = begin([trial(1, model=model, dropout=0.0, mixup=0.0 if others is None else 0.4)])
        with torch.no_grad():
            run.lanes.weights.mul_(8)  # a fresh model hardly looks at the words
        batch = Batch(rows, [0], 0)
        if others is not None:
            remedy(run, Mixup).shares = torch.tensor([0.25])
            batch = replace(batch, also_read={"mixup": others})
        found.append(loss_of(run, batch))
    assert found[1] == pytest.approx(found[0], rel=1e-5)
    assert found[2] != pytest.approx(found[0], rel=1e-5)


def loss_of(run: TrainingRun, batch: Batch) -> float:
    """The loss of the only lane's batch, summed, where nothing is drawn for it."""
    arguments = run.lanes.trained_arguments(run.lanes.weights)
    return run.loss_and_gradient.at_one_width(arguments, batch, 1, add=False).item()


def test_noise_is_uniform_up_to_its_bound_and_spares_padding(trial: Make) -> None:
    """±α/√(l·D): variance a third of its square, and so a norm of about α/√3 for a text of any length."""
    run = begin([trial(seed, neftune_alpha=alpha) for seed, alpha in ((1, 5.0), (1, 10.0), (2, 5.0))])
    recipes, noise = run.pack.recipes, remedy(run, Neftune)
    noise.size = 64
    lengths = torch.tensor([[4, 25, 100]] * 3)
    drawn = noise.draw([0, 1, 2], lengths, 100)
    assert drawn.shape == (3, 3, 100, 64)
    for own, recipe in zip(drawn, recipes, strict=True):
        for of_text, length in zip(own, (4, 25, 100), strict=True):
            count, bound = length * 64, recipe.neftune_alpha / math.sqrt(length * 64)
            real = of_text[:length].double()
            assert 0.98 * bound < real.abs().max().item() <= bound * (1 + 1e-6)
            assert real.mean().item() == pytest.approx(0, abs=4 * bound / math.sqrt(3 * count))
            assert real.var().item() == pytest.approx(bound**2 / 3, rel=4 * math.sqrt(0.8 / count))
            assert real.norm().item() == pytest.approx(recipe.neftune_alpha / math.sqrt(3), rel=0.15)
            assert not of_text[length:].any()
    assert torch.equal(2 * drawn[0], drawn[1])  # the same stream, twice as loud
    assert not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(noise.draw([0], lengths[:1], 100)[0], drawn[0])  # the next step draws anew


@pytest.mark.parametrize(
    "kind", ["roberta", "albert", "electra", "distilbert", "deberta", "deberta-v2", "gpt2", "prompt"]
)
def test_noise_moves_the_words_that_every_family_reads(
    trial: Make, build: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A noise that is another word less the own one is the other word."""
    sizes: Fields = {"n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2} if kind == "gpt2" else {}
    sizes |= {"initializer_range": 0.3}  # a fresh model hardly looks at the words
    model = ModelSpec(name=f"n-{kind}", folder=str(build("bert" if kind == "prompt" else kind, **sizes)))
    method = {"method": "prompt", "virtual_tokens": 3} if kind == "prompt" else {}
    plain_run, run = (begin([trial(1, model=model, dropout=0.0, neftune_alpha=a, **method)]) for a in (0.0, 1.0))
    embedding = word_embedding(run.lanes.module)
    name = next(name for name, value in run.lanes.module.named_parameters() if value is embedding.weight)
    weights = run.lanes.views[name][0] if name in run.lanes.views else embedding.weight
    batch = Batch(torch.arange(8)[None], [0], 0)
    words = run.training.inputs(batch.rows, run.training.width)["input_ids"]
    other = words.clone()
    other[..., run.lanes.network.virtual + 1] = 11
    noise = (weights[other] - weights[words]).detach()
    monkeypatch.setattr(Neftune, "step_inputs", lambda self, reading: {"noise": noise})
    found = [loss_of(plain_run, batch), loss_of(run, batch)]
    plain_run.training.input_ids[:, 1] = 11
    found.append(loss_of(plain_run, batch))
    assert found[1] == pytest.approx(found[2], rel=1e-5)
    assert found[1] != pytest.approx(found[0], rel=1e-5)


class OnePass(TorchFunctionMode):
    """The first or the second of two passes through a batch: its half of what was drawn for each place of dropout."""

    def __init__(self, pool: torch.Tensor, which: int) -> None:
        super().__init__()
        self.pool, self.which, self.used = pool, which, 0

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not F.dropout:
            return func(*args, **(kwargs or {}))
        count = 2 * args[0].numel()
        both = self.pool[self.used : self.used + count].view(2, *args[0].shape)
        self.used += count
        return args[0] * both[self.which]


@pytest.mark.parametrize("kind", ["classes", "soft", "numbers", "words"])
@pytest.mark.parametrize("layout", [{}, {"padding": "batch", "gradient_accumulation": 2}], ids=str)
def test_r_drop_is_its_definition(
    trial: Make,
    uneven: TaskSpec,
    numbers: TaskSpec,
    tagged: TaskSpec,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    layout: Fields,
) -> None:
    """Two passes by torch alone: ½ (CE₁ + CE₂) + α · ½ (KL(p‖q) + KL(q‖p)), a batch's mean, as in the method's code."""
    task = {"numbers": numbers, "words": tagged}.get(kind, uneven)
    soft: Fields = {"label_smoothing": 0.1, "class_weights": True} if kind == "soft" else {}
    one = trial(4, task=task, dropout=0.3, r_drop=0.7, max_grad_norm=None, lr=1e-2, **layout, **soft)
    run = begin([trial(5, **one.recipe.model_dump() | {"r_drop": 5.0}), one])
    with torch.no_grad():
        run.lanes.weights.mul_(4)  # a fresh model's answers hardly differ
    stepping, gradients = run.optimizer.step, []

    def seeing(gradient: torch.Tensor) -> torch.Tensor:
        gradients.append(gradient[1].clone())
        return stepping(gradient)

    monkeypatch.setattr(run.optimizer, "step", seeing)
    split, module = run.pack.task.train, copy.deepcopy(run.lanes.network.module).requires_grad_(True)
    masks = Masks([0.3], [one.seeds.dropout_seed], torch.device("cpu"))
    rows_of_all = torch.randperm(len(split.labels), generator=stream("order", one.seeds.order_seed))
    labels, lengths = torch.from_numpy(split.labels), torch.from_numpy(split.lengths)
    weight = len(labels) / (2 * torch.bincount(labels)) if kind == "soft" else None
    for step, rows in enumerate(rows_of_all.split(8)[:3]):
        module.load_state_dict({name: view[1].detach().clone() for name, view in run.lanes.views.items()})
        parts = [(part, split.input_ids.shape[1]) for part in rows.split(8 // one.recipe.gradient_accumulation)]
        if one.recipe.padding == "batch":
            ordered = [part[torch.argsort(lengths[part], stable=True)] for part, _ in parts]
            halves = [half for part in ordered for half in part.split(math.ceil(len(part) / 2))]
            longest = split.input_ids.shape[1]
            parts = [(half, min(longest, math.ceil(int(lengths[half].max()) / 4) * 4)) for half in halves]
        loss, apart, count = torch.zeros(()), torch.zeros(()), 0
        for part, width in parts:
            mask = (torch.arange(width) < lengths[part, None]).long()
            given = {"input_ids": torch.from_numpy(split.input_ids[part][:, :width]), "attention_mask": mask}
            with torch.no_grad(), NoDropout() as counted:
                module(**given)
            (pool,) = masks.draw([0], [(2 * size, rate) for size, rate in counted.sites], 0, 0, whole=False)
            logits = []
            for which in (0, 1):
                with OnePass(pool, which):
                    logits.append(module(**given).logits)
            own = labels[part]
            if kind == "words":
                own = own[:, :width]
                logits, own = [one[own != -100] for one in logits], own[own != -100]
            count += len(own)
            if kind == "numbers":
                first, second = (one[:, 0] for one in logits)
                loss = loss + ((first - own) ** 2 + (second - own) ** 2).sum() / 2
                apart = apart + ((first - second) ** 2).sum()
                continue
            smoothing = one.recipe.label_smoothing
            for answers, others in (logits, logits[::-1]):
                loss = loss + F.cross_entropy(answers, own, weight, reduction="sum", label_smoothing=smoothing) / 2
                divergence = F.kl_div(F.log_softmax(answers, -1), F.softmax(others, -1), reduction="sum")
                apart = apart + divergence / 2
        parameters = list(module.parameters())
        whole, alone = (
            torch.cat([one.flatten() for one in torch.autograd.grad(of / count, parameters, retain_graph=True)])
            for of in (loss + 0.7 * apart, loss)
        )
        update(run, step)
        assert run.log.losses[step][1].item() == pytest.approx((loss / count).item(), rel=1e-5)  # without the term
        scale = whole.norm().item()
        torch.testing.assert_close(gradients[step], whole, rtol=0, atol=1e-5 * scale)
        assert (whole - alone).norm().item() > 0.01 * scale


@pytest.mark.parametrize(
    "common",
    [{}, {"padding": "batch"}, {"method": "lora"}, {"method": "prompt", "virtual_tokens": 3}, {"words": True}],
    ids=str,
)
def test_lanes_of_other_noise_and_r_drop_are_bit_equal_alone_and_in_a_pack(
    trial: Make, tagged: TaskSpec, common: Fields
) -> None:
    common = {"task": tagged} if "words" in common else common
    lanes: list[Fields] = [
        {"neftune_alpha": 1.0, "r_drop": 0.5}, {"neftune_alpha": 20.0, "r_drop": 5.0, "dropout": 0.4},
        {"neftune_alpha": 5.0, "r_drop": 1.0, "lr": 1e30},
    ]  # fmt: skip
    trials = [trial(place, **(common | lane)) for place, lane in enumerate(lanes)]
    wanted = loop.train(trials)
    assert same(loop.train(trials), wanted)
    assert same(loop.train(trials[::-1]), wanted[::-1])
    for place in range(len(trials)):
        assert same(loop.train(trials[place : place + 1]), wanted[place : place + 1])
    assert len({trial(**fields).recipe.shape for fields in ({}, {"neftune_alpha": 1.0}, {"r_drop": 1.0})}) == 3
    for name in ("neftune_alpha", "r_drop"):
        (changed,) = loop.train([trial(0, **(common | lanes[0] | {name: 2.0}))])
        assert changed.measured.weights_sha256 != wanted[0].measured.weights_sha256


def test_noise_and_second_passes_are_for_training_alone(trial: Make) -> None:
    plain_run, run = (begin([trial(1, **fields)]) for fields in ({}, {"neftune_alpha": 9.0, "r_drop": 1.0}))
    before = remedy(run, Neftune).streams[0].get_state()
    answers = [one.evaluator(one.lanes.weights, one.validation, 0)[0] for one in (plain_run, run, run)]
    np.testing.assert_array_equal(answers[1], answers[0])
    np.testing.assert_array_equal(answers[2], answers[0])
    assert torch.equal(remedy(run, Neftune).streams[0].get_state(), before)


@pytest.mark.parametrize("padding", ["dataset", "batch"])
def test_gradient_accumulation_is_the_large_batch(trial: Make, padding: str) -> None:
    """But for the order in which the gradients are summed.

    A sum of n float32 terms in another order differs by at most n · 2⁻²⁴ of the sum of their sizes: 60 examples of
    some 10 tokens give 600 · 6e-8 = 4e-5 for a step's gradient, and the loss of the next few follows it.
    """
    whole, parts = (
        loop.train([trial(3, dropout=0.0, padding=padding, gradient_accumulation=n, epochs=1)])[0].curves
        for n in (1, 4)
    )
    np.testing.assert_allclose(parts.grad_norm, whole.grad_norm, rtol=4e-5 * 8)
    np.testing.assert_allclose(parts.train_loss, whole.train_loss, rtol=4e-5)
    assert not np.array_equal(parts.grad_norm, whole.grad_norm)


def test_schedules_are_those_of_transformers(trial: Make) -> None:
    for fields in (
        {"schedule": "constant"}, {"schedule": "cosine"}, {"schedule": "inverse_sqrt"}, {"schedule": "linear"},
        {"schedule": "polynomial", "schedule_power": 3.0, "schedule_end": 1e-5},
    ):  # fmt: skip
        for warmup in (0.0, 0.1, 1.0):
            r = trial(1, warmup_ratio=warmup, **fields).recipe
            ours, theirs = ([f(r, step) for step in range(50)] for f in (at, lambda r, step: rate(r, step, 50)))
            assert ours == pytest.approx(theirs, rel=1e-12, abs=1e-18), (fields, warmup)


def at(r: Recipe, step: int) -> float:
    return r.lr * factor(step, 50, r)


def test_an_oversampled_epoch_has_equal_classes(trial: Make, uneven: TaskSpec) -> None:
    run = begin([trial(1, task=uneven, oversample=True)])
    counts = np.bincount(run.pack.task.train.labels).tolist()
    assert counts == [30, 10]
    assert run.pack.epoch_steps == math.ceil(60 / 8) == tasks.epoch_steps(run.pack.task.train.labels, run.pack.recipe)
    orders = []
    for epoch in range(2):
        update(run, epoch * run.pack.epoch_steps)
        orders.append(run.batches.order[0].tolist())
        assert np.bincount(run.pack.task.train.labels[orders[-1]]).tolist() == [30, 30]
        assert set(orders[-1]) == set(range(40))  # nothing is left out
    assert sorted(orders[0]) != sorted(orders[1])


@pytest.mark.parametrize("kind", ["roberta", "albert", "electra", "distilbert", "deberta", "deberta-v2"])
def test_every_family_has_its_layers_in_their_places(trial: Make, build: Callable[..., Path], kind: str) -> None:
    network = models.network(ModelSpec(name=f"r-{kind}", folder=str(build(kind))), 2)
    found = slots(list(network.pretrained), network.head)
    layers = 1 if kind == "albert" else 2  # whose layers share their weights
    assert sorted({*found.values()} - {1}) == [0, *range(2, layers + 3)]
    for name, slot in found.items():
        assert (slot == 0) == (name in network.head), name
        assert (slot == layers + 2) == ("embed" in name), name
        if slot == 2 and layers == 2:
            assert ".1." in name
    assert {name for name, slot in found.items() if slot == 1} <= {
        "albert.pooler.weight", "albert.pooler.bias", "deberta.encoder.LayerNorm.weight",
        "deberta.encoder.LayerNorm.bias",
    }  # fmt: skip


# ------------------------------------------------------------------------------------- evaluation, stopping, keeping


def test_evaluations_a_fraction_of_an_epoch(trial: Make, uneven: TaskSpec) -> None:
    """Of an epoch's 8 updates (5 for the smaller task), int(8 · 0.3) = 2, and each epoch's end."""
    found = loop.train([trial(1, eval_every=0.3)])[0].curves.eval_step
    assert found.tolist() == [2, 4, 6, 8, 10, 12, 14, 16]
    found = loop.train([trial(1, task=uneven, eval_every=0.5)])[0].curves.eval_step
    assert found.tolist() == [2, 4, 5, 7, 9, 10]
    cut_short = loop.train([trial(1, max_steps=11)])[0]
    assert cut_short.curves.eval_step.tolist() == [8, 11]
    assert cut_short.measured.steps == len(cut_short.curves.train_loss) == 11


@pytest.mark.parametrize("on", ["loss", "score"])
def test_a_lane_stops_by_itself_where_its_dev_curve_says(trial: Make, on: str) -> None:
    """The evaluations of the same run without stopping tell when it stops and which is the best."""
    common = {"eval_every": 0.25, "epochs": 6, "lr": 2e-2}
    lanes = [{}, {"early_stopping_patience": 3, "early_stopping_on": on}]
    lanes.append(lanes[1] | {"keep_best": True})
    whole, stopped, best = loop.train([trial(2, **common, **lane) for lane in lanes])
    values = whole.curves.dev_score if on == "score" else -whole.curves.dev_loss
    top, since, end = -math.inf, 0, -1
    for value in values:
        end += 1
        top, since = (value, 0) if value > top else (top, since + 1)
        if since == 3:
            break
    step = int(whole.curves.eval_step[end])
    assert since == 3
    assert step < whole.measured.steps
    for found in (stopped, best):
        assert (found.measured.stopped_step, found.measured.steps) == (step, step)
        for name in ("train_loss", "grad_norm", "lr"):
            np.testing.assert_array_equal(getattr(found.curves, name), getattr(whole.curves, name)[:step])
        np.testing.assert_array_equal(found.curves.dev_loss, whole.curves.dev_loss[: end + 1])
    kept = int(np.argmax(values[: end + 1]))
    assert best.measured.kept_step == whole.curves.eval_step[kept]
    assert best.measured.final_score == whole.curves.dev_score[kept]
    assert stopped.measured.final_score == whole.curves.dev_score[end]
    assert stopped.measured.kept_step is whole.measured.stopped_step is None
    # The weights are those of a run that ends there: the same schedule, cut.
    run = begin([trial(2, **common)])
    hashes = {}
    for number in range(step):
        advance(run, number)
        hashes[number + 1] = (
            lane_results(run, 0.0)[0].measured.weights_sha256 if number + 1 in (step, kept_step(best)) else ""
        )
    assert stopped.measured.weights_sha256 == hashes[step]
    assert best.measured.weights_sha256 == hashes[kept_step(best)]


def kept_step(result: LaneResult) -> int:
    assert result.measured.kept_step is not None
    return result.measured.kept_step


def test_a_pack_whose_lanes_all_stopped_ends(trial: Make) -> None:
    seen: list[int] = []
    trials = [trial(seed, lr=1e-9, early_stopping_patience=1, epochs=9, early_stopping_on="score") for seed in (1, 2)]
    results = loop.train(trials, callbacks=[report_progress(lambda step, steps: seen.append(step))])
    assert [result.measured.stopped_step for result in results] == [16, 16]
    assert seen[-1] == 16


# ------------------------------------------------------------------------------------------------ the engine's laws


def test_lanes_with_remedies_are_bit_equal_alone_and_in_any_pack(trial: Make) -> None:
    trials = [trial(place % 3, epochs=2, **fields) for place, fields in enumerate(LANES)]
    alone = cache(lambda place: loop.train([trials[place]])[0])

    @settings(max_examples=7, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.integers(0, len(trials) - 1), min_size=2, max_size=8))
    def check(lanes: list[int]) -> None:
        together = loop.train([trials[lane] for lane in lanes])
        assert same(together, [alone(lane) for lane in lanes])

    check()
    assert same(loop.train(trials[::-1]), [alone(lane) for lane in range(len(trials))][::-1])


@pytest.mark.parametrize("fields", PACKS, ids=str)
def test_packs_keep_the_laws(
    trial: Make, uneven: TaskSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: Fields
) -> None:
    """Alone and together, cut and gone on, recorded and not: the same bits."""
    lanes = [LANES[place] for place in (0, 2, 4, 7, 10, 11, 12, 13, 14, 16)]
    trials = [trial(place % 3, task=uneven, epochs=2, **(fields | lane)) for place, lane in enumerate(lanes)]
    wanted = loop.train(trials)
    assert same(loop.train(trials[2:5]), wanted[2:5])
    assert same(loop.train(trials[-1:]), wanted[-1:])
    for at in (1, 4, 6, 8):
        with pytest.raises(CutError):
            loop.train(trials, callbacks=[cut(at)], checkpoint=Checkpoints(tmp_path, 0).of(trials, HERE))
    assert same(loop.train(trials, checkpoint=Checkpoints(tmp_path, math.inf).of(trials, HERE)), wanted)
    monkeypatch.setattr(replayer, "RECORDING_PAYS", 0)
    assert same(loop.train(trials), wanted)


def test_the_head_and_the_other_streams_are_those_of_the_same_seed_without(trial: Make) -> None:
    run = begin([trial(1), trial(1, reinit_layers=1, mixout=0.5)])
    for name, view in run.lanes.views.items():
        fresh = ("layer.1" in name or "pooler" in name) and view[0].dim() > 1  # a fresh model's biases are 0 anyhow
        assert torch.equal(view[0], view[1]) != fresh, name
    update(run, 0)
    assert torch.equal(run.batches.order[0], run.batches.order[1])
    assert torch.equal(*(one.get_state() for one in remedy(run, Dropout).streams))


def test_mixout_keeps_the_mean_and_its_rate(trial: Make) -> None:
    run = begin([trial(1, mixout=0.3)])
    with torch.no_grad():
        run.lanes.weights.add_(1.0)  # away from the pretrained values
        mixout, shares = remedy(run, Mixout), []
        for _ in range(50):
            mixout.weights_for_step(run.lanes.weights)
            shares.append(float((mixout.factors[0] == 0).float().mean()))
    parts = run.lanes.parts
    linear = sum(
        size for size, columns, slot in zip(parts.sizes, parts.columns, parts.slots, strict=True)
        if columns and slot
    )  # fmt: skip
    # 480 columns a draw, 50 draws: 4 standard errors of a share of 0.3, columns of unequal length counted in.
    assert np.mean(shares) * run.lanes.weights.shape[1] / linear == pytest.approx(0.3, abs=0.02)


# ---------------------------------------------------------------------------------------------------------- refusals


def test_what_does_not_fit_model_or_data_is_refused(trial: Make, build: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="reinit_layers is within the model's depth: got 3 of 2 layers"):
        loop.train([trial(reinit_layers=3)])
    with pytest.raises(
        HarnessError, match="max_steps ends training within its epochs: got max_steps 17; allowed: 1 to 16"
    ):
        loop.train([trial(max_steps=17)])
    with pytest.raises(HarnessError, match=r"mixup goes with an encoder, .*: got tiny-gpt2, which answers at"):
        loop.train([trial(mixup=0.2, model=ModelSpec(name="tiny-gpt2", folder=str(build("gpt2"))))])
    for name in ("train", "validation"):
        (tmp_path / f"{name}.tsv").write_text("text\tlabel\n" + "".join(f"a b\t{n}.5\n" for n in range(20)))
    files = TaskFiles(train=str(tmp_path / "train.tsv"), validation=str(tmp_path / "validation.tsv"))
    numbers = TaskSpec(name="numbers", files=files, metric="pearson")
    for fields in ({"label_smoothing": 0.1}, {"class_weights": True}, {"oversample": True}, {"mixup": 0.2}):
        with pytest.raises(HarnessError, match=f"{next(iter(fields))} is for classes: got numbers, a regression"):
            loop.train([trial(task=numbers, **fields)])
