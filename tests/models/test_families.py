"""Every family is trained as transformers would train it, or refused in one line before any training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import families
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from harness.common.errors import HarnessError
from harness.config.recipe import Method, ModelSpec
from harness.config.trials import Cell, Sweep, Trial
from harness.execution import driver
from harness.models import logits_check, masks, pretrained
from harness.models.logits_check import ModelRefusedError
from harness.records.store import Store
from harness.training import loop
from harness.training.numerics import stream
from harness.training.prepare import load_network, load_task

Make = Callable[..., Trial]
STEPS = 6


def plain_losses(trial: Trial, rates: np.ndarray) -> list[float]:
    """Each step's loss of transformers' own module, trained by torch alone from the same start in the same order."""
    from transformers import AutoModelForSequenceClassification

    recipe, folder = trial.recipe, trial.recipe.model.folder
    task = load_task(recipe.task, recipe.model, recipe.max_length)
    start = load_network(recipe, task).initialised(stream("init", trial.seeds.init_seed))
    with torch.random.fork_rng(devices=[]):
        model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2, dtype=torch.float32)
    model.load_state_dict(model.state_dict() | start)
    model.eval()  # nothing is dropped
    ids, lengths = torch.from_numpy(task.train.input_ids), torch.from_numpy(task.train.lengths)
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    labels = torch.from_numpy(task.train.labels)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    order = stream("order", trial.seeds.order_seed)
    batches: list[torch.Tensor] = []
    while len(batches) < STEPS:
        batches += torch.split(torch.randperm(len(labels), generator=order), recipe.batch_size)
    losses = []
    for step, (rows, rate) in enumerate(zip(batches, rates, strict=False), 1):
        # The harness adds eps to the second moment's root before its correction, as BERT's code does.
        optimizer.param_groups[0].update(lr=float(rate), eps=recipe.eps / (1 - 0.999**step) ** 0.5)
        loss = F.cross_entropy(model(input_ids=ids[rows], attention_mask=mask[rows]).logits, labels[rows])
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.max_grad_norm)
        optimizer.step()
    return losses


@pytest.mark.parametrize(
    ("kind", "changes"),
    [*((kind, {}) for kind in families.TRAINED), ("modernbert", {"classifier_pooling": "mean"})],
)
def test_a_family_is_trained_as_transformers_would(
    kind: str, changes: dict[str, str], trial: Make, tmp_path: Path
) -> None:
    """To rounding, which half a dozen updates with bias correction let grow tenfold at most."""
    model = ModelSpec(name=kind, folder=str(families.write(tmp_path, kind, **changes)))
    fields = {"model": model, "dropout": 0.0, "weight_decay": 0.0, "bias_correction": True, "max_steps": STEPS}
    one = trial(3, **fields, eval_steps=STEPS)
    found = loop.train([one], record=False)[0]
    losses = found.curves.train_loss
    np.testing.assert_allclose(losses, plain_losses(one, found.curves.lr), rtol=1e-4, atol=1e-5)
    assert np.ptp(losses) > 1e-3
    check = found.measured.logits_check
    assert check is not None
    assert check.largest_difference is not None
    assert check.largest_difference < 1e-5


@pytest.mark.parametrize("kind", ["albert", "deberta", "deberta-v2", "bert", "modernbert"])
def test_lanes_of_their_own_widths_know_no_pack(kind: str, trial: Make, tmp_path: Path) -> None:
    """Under `padding: batch`, where ALBERT's layers and DeBERTa's relative positions are used more than once a step."""
    model = ModelSpec(name=kind, folder=str(families.write(tmp_path, kind)))
    fields = {"model": model, "padding": "batch", "max_steps": 5, "batch_size": 4}
    pack = [trial(seed, lr=lr, **fields) for seed, lr in ((1, 1e-2), (2, 3e-3), (3, 1e-3))]
    together = loop.train([*pack, pack[0]])
    assert together[3].measured.weights_sha256 == together[0].measured.weights_sha256
    for lane, one in enumerate(pack):
        (alone,) = loop.train([one])
        assert alone.measured.weights_sha256 == together[lane].measured.weights_sha256
        np.testing.assert_array_equal(alone.curves.logits, together[lane].curves.logits)
        np.testing.assert_array_equal(alone.curves.train_loss, together[lane].curves.train_loss)


@pytest.mark.parametrize("kind", families.REFUSED)
def test_what_transformers_would_train_otherwise_is_refused_in_a_line(kind: str, tmp_path: Path) -> None:
    spec = ModelSpec(name=kind, folder=str(families.write(tmp_path, kind)))
    with pytest.raises(
        ModelRefusedError, match=f"the type '{kind}' cannot be trained: .*{families.REFUSED[kind]}"
    ) as caught:
        pretrained.network(spec, 2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("kind", "wrong"), [("modernbert", "row"), ("qwen2", "causal"), ("mistral", "causal")])
def test_local_attention_made_global_is_refused(
    kind: str, wrong: masks.Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The case that the check is for: a ready mask handed through to local layers."""
    spec = ModelSpec(name=kind, folder=str(families.write(tmp_path, kind)))
    monkeypatch.setattr(masks, "kind_of", lambda config: wrong)
    with pytest.raises(ModelRefusedError, match=r"its logits differ .* by up to \d\.\de[-+]0\d of the largest"):
        pretrained.network(spec, 2)


def test_the_long_text_goes_beyond_the_window_and_not_beyond_the_positions(tmp_path: Path) -> None:
    for window, positions, longest in ((40, 64, 48), (80, 64, 64), (4096, 64, 24)):
        folder = tmp_path / f"{window}-{positions}"
        changes = {"sliding_window": window, "max_position_embeddings": positions}
        network = pretrained.network(ModelSpec(name="m", folder=str(families.write(folder, "mistral", **changes))), 2)
        assert network.logits_check is not None
        assert network.logits_check.texts == (9, 5, longest)
        assert network.module.config.sliding_window == window  # type: ignore[union-attr]


@pytest.mark.parametrize("method", ["lora", "ia3", "top_layers", "prefix", "prompt", "adapter"])
@pytest.mark.parametrize("tokens", [False, True])
def test_the_check_goes_with_every_method_and_head(method: str, tokens: bool, build: Callable[..., Path]) -> None:
    spec = ModelSpec(name="m", folder=str(build("bert")))
    fields = {"top_layers": 1} if method == "top_layers" else {"adapter_size": 4} if method == "adapter" else {}
    if method == "lora":
        fields = {"lora_rank": 2}
    if method in ("prefix", "prompt"):
        fields = {"virtual_tokens": 3}
    network = pretrained.network(spec, 2, Method(name=method, **fields), kind="tokens" if tokens else "texts")  # type: ignore[arg-type]
    assert network.logits_check is not None
    assert network.logits_check.largest_difference is not None
    assert network.logits_check.largest_difference < 1e-5


def test_a_method_that_changes_the_network_at_its_start_is_refused(
    build: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logits_check.methods, "given", lambda view: {k: v + 0.01 for k, v in view.items()})
    with pytest.raises(ModelRefusedError, match="its logits differ"):
        pretrained.network(ModelSpec(name="m", folder=str(build("bert"))), 2)


def test_the_check_draws_from_no_stream_and_leaves_the_network_as_it_was(build: Callable[..., Path]) -> None:
    before = torch.get_rng_state()
    network = pretrained.network(ModelSpec(name="m", folder=str(build("bert"))), 2)
    assert torch.equal(torch.get_rng_state(), before)
    assert network.module.training
    assert not any(value.requires_grad for value in network.module.parameters())
    for name, value in network.module.named_parameters():
        assert torch.equal(value, network.pretrained[name])


def test_weights_that_are_nan_are_no_difference(build: Callable[..., Path], tmp_path: Path) -> None:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(build("bert"))
    with torch.no_grad():
        model.encoder.layer[0].output.dense.bias[0] = float("nan")
    model.save_pretrained(tmp_path)
    check = pretrained.network(ModelSpec(name="nan", folder=str(tmp_path)), 2).logits_check
    assert check is not None
    assert check.largest_difference is None


def test_a_sweep_of_a_refused_model_ends_before_any_training(trial: Make, tmp_path: Path) -> None:
    model = ModelSpec(name="fnet", folder=str(families.write(tmp_path / "fnet", "fnet")))
    one = trial(model=model)
    sweep = Sweep(
        name="fnet", profile="default", title="F", cells=(Cell(axes=(), recipe=one.recipe),), seeds=(one.seeds,)
    )
    store = Store(tmp_path / "results")
    with pytest.raises(
        HarnessError,
        match=r"the type 'fnet' cannot be trained: .* the padding behind it.*own-model.md lists the families",
    ) as caught:
        driver.run(sweep, store, driver.Options(in_process=True), lambda progress: None)
    assert "\n" not in str(caught.value)
    assert not list(store.trials.glob("*.json"))


def test_the_docs_list_the_families_that_are_tested() -> None:
    text = " ".join((Path(__file__).parents[2] / "docs" / "how-to" / "own-model.md").read_text().split())
    for kind in (*families.TRAINED, *families.REFUSED):
        assert f"`{kind}`" in text
