"""The plane through three weights, and the loss over it against a plain network's."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from kept_runs import sweep_of, trained
from language_models import completion_task, plain_batch, rows, trial_of, write_decoder
from torch.func import functional_call

from harness.common.errors import HarnessError
from harness.config.trials import Sweep, Trial
from harness.execution import loss_surface
from harness.models import pretrained, saved
from harness.records.store import Store
from harness.training import probes
from harness.training.prepare import load_network, load_task

Make = Callable[..., Trial]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grid of three by three."""
    monkeypatch.setattr(loss_surface, "POINTS", 3)


@pytest.fixture(scope="module")
def kept(trial: Make, tmp_path_factory: pytest.TempPathFactory) -> tuple[Sweep, Store, list[Trial]]:
    trials = [trial(1, lr=1e-2, epochs=1), trial(2, lr=1e-2, epochs=1)]
    sweep = sweep_of(*trials, trial(1, lr=1e-3, epochs=1))
    return sweep, trained(sweep, tmp_path_factory.mktemp("kept") / "kept"), trials


def test_the_plane_holds_the_three_points_at_their_distances() -> None:
    stream = np.random.default_rng(0)
    start, first, second = (stream.normal(size=50).astype(np.float32) for _ in range(3))
    places, grid, (along, across) = loss_surface.plane(start, first, second)
    for place, weights in zip(places, (start, first, second), strict=True):
        np.testing.assert_allclose(start + place[0] * along + place[1] * across, weights, atol=1e-6)
    apart = [np.linalg.norm(first - start), np.linalg.norm(second - start), np.linalg.norm(second - first)]
    found = [np.linalg.norm(places[a] - places[b]) for a, b in ((1, 0), (2, 0), (2, 1))]
    np.testing.assert_allclose(found, apart, rtol=1e-6)
    assert (grid[:, 0] < places.min(axis=0)).all()
    assert (grid[:, -1] > places.max(axis=0)).all()


def test_three_points_on_a_line_have_no_plane() -> None:
    start = np.zeros(4, np.float32)
    with pytest.raises(HarnessError, match="lie on one line with the pretrained ones"):
        loss_surface.plane(start, np.ones(4, np.float32), 2 * np.ones(4, np.float32))


@pytest.mark.parametrize("padding", ["dataset", "batch"])
def test_losses_and_gradients_are_a_plain_networks(trial: Make, padding: str) -> None:
    one = trial(3, padding=padding, dropout=0.3, mixout=0.2, neftune_alpha=9.0, r_drop=5.0)
    start = probes.starting_weights(one)
    points = [start, start * 1.1]
    losses, norms = probes.losses_at(one, points, 20, lanes=2, device="cpu", threads=1)
    network = pretrained.network(one.recipe.model, 2)
    network.module.eval()
    split = load_task(one.recipe.task, one.recipe.model, one.recipe.max_length).train
    ids, lengths = torch.from_numpy(split.input_ids[:20]), torch.from_numpy(split.lengths[:20])
    given = network.inputs(ids, lengths, None)
    for point, loss, norm in zip(points, losses, norms, strict=True):
        flat = torch.from_numpy(point).requires_grad_()
        parameters, at = {}, 0
        for name, value in network.pretrained.items():
            parameters[name] = flat[at : at + value.numel()].view(value.shape)
            at += value.numel()
        logits = functional_call(network.module, parameters, kwargs=given).logits
        expected = F.cross_entropy(logits, torch.from_numpy(split.labels[:20]))
        expected.backward()
        assert loss == pytest.approx(expected.item(), rel=1e-5)
        assert flat.grad is not None
        assert norm == pytest.approx(flat.grad.double().norm().item(), rel=1e-4)


def _merged(trial: Trial, point: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """transformers' own loss over the first 20 training answers with LoRA's product added to its weights by hand."""
    from transformers import AutoModelForCausalLM

    network = load_network(trial.recipe, load_task(trial.recipe.task, trial.recipe.model, trial.recipe.max_length))
    flat, factors, at = torch.from_numpy(point).requires_grad_(), {}, 0
    for name, value in network.pretrained.items():
        factors[name] = flat[at : at + value.numel()].view(value.shape)
        at += value.numel()
    model = AutoModelForCausalLM.from_pretrained(trial.recipe.model.folder).eval()
    weights = dict(model.named_parameters())
    for name in [name for name in factors if "lora_A" in name]:
        base = name.replace("lora_A.default.", "")
        product = factors[name.replace("lora_A", "lora_B")] @ factors[name]  # [outputs, inputs]; GPT-2 has the reverse
        weights[base] = weights[base] + trial.recipe.lora_alpha / trial.recipe.lora_rank * product.T
    given = plain_batch(trial, list(range(20)))
    return functional_call(model, weights, kwargs=given).loss, flat


def test_losses_of_a_lora_on_a_decoder_are_those_of_the_merged_model(tmp_path: Path) -> None:
    """A mean over the tokens of the answers; the directions are those of LoRA's parameters."""
    task = completion_task(tmp_path / "answers", rows(24, 1), rows(8, 2))
    one = trial_of(task, write_decoder(tmp_path / "gpt2", "gpt2"), method="lora", lora_rank=2, dropout=0.3)
    start = probes.starting_weights(one)
    points = [start, (start * 1.5 + 0.05).astype(np.float32)]
    losses, norms = probes.losses_at(one, points, 20, lanes=2, device="cpu", threads=1)
    for point, loss, norm in zip(points, losses, norms, strict=True):
        expected, flat = _merged(one, point)
        expected.backward()  # type: ignore[no-untyped-call]
        assert loss == pytest.approx(expected.item(), rel=1e-5)
        assert flat.grad is not None
        assert norm == pytest.approx(flat.grad.double().norm().item(), rel=1e-4)
    assert losses[0] != losses[1]


@pytest.mark.usefixtures("small", "cpu_only")
def test_a_surface_of_a_lora_goes_through_the_untouched_model(tmp_path: Path) -> None:
    task = completion_task(tmp_path / "answers", rows(24, 1), rows(8, 2))
    model = write_decoder(tmp_path / "gpt2", "gpt2")
    one, other = (trial_of(task, model, seed, method="lora", lora_rank=2, epochs=1) for seed in (1, 2))
    sweep = sweep_of(one, other)
    store = trained(sweep, tmp_path / "kept")
    found = loss_surface.compute(sweep, store, (one.id, other.id))
    start, ends = probes.starting_weights(one), [saved.weights(store, trial.id) for trial in (one, other)]
    flat = [np.concatenate([value.ravel() for value in end.values()]) for end in ends]
    assert all(len(weights) == len(start) == 2 * 2 * (16 + 48) for weights in flat)  # two layers of A and B by rank 2
    np.testing.assert_allclose(found.places[1], [np.linalg.norm(flat[0].astype(np.float64) - start), 0])
    assert np.isfinite(found.loss).all()


@pytest.mark.usefixtures("small", "cpu_only")
def test_the_surface_is_that_of_the_kept_weights(
    kept: tuple[Sweep, Store, list[Trial]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, store, (one, other) = kept
    steps: list[tuple[int, int]] = []
    built: list[int] = []
    real = probes.set_up
    monkeypatch.setattr(
        probes, "set_up", lambda trials, *rest, **how: built.append(len(trials)) or real(trials, *rest, **how)
    )
    monkeypatch.setattr(loss_surface.lanes_memory, "pack_size", lambda *_: 4)
    found = loss_surface.compute(sweep, store, (one.id, other.id), progress=lambda done, of: steps.append((done, of)))
    assert steps == [(4, 9), (8, 9), (9, 9)]
    assert built == [1, 4]  # for the start, and for all points
    assert found.loss.shape == found.gradient_norm.shape == (3, 3)
    again = store.surface()
    assert again is not None
    assert all(np.array_equal(getattr(again, name), value) for name, value in vars(found).items())
    start = probes.starting_weights(one)
    ends = [np.concatenate([v.ravel() for v in saved.weights(store, t.id).values()]) for t in (one, other)]
    places, grid, (along, across) = loss_surface.plane(start, *ends)
    np.testing.assert_allclose(found.places, places)
    point = (start + grid[0][2] * along + grid[1][1] * across).astype(np.float32)
    losses, norms = probes.losses_at(one, [point], loss_surface.EXAMPLES, lanes=1, device="cpu", threads=1)
    assert found.loss[1, 2] == losses[0]
    assert found.gradient_norm[1, 2] == norms[0]


@pytest.mark.usefixtures("small", "cpu_only")
def test_trials_that_make_no_surface_are_refused(kept: tuple[Sweep, Store, list[Trial]], tmp_path: Path) -> None:
    sweep, store, (one, other) = kept
    elsewhere = Trial(recipe=sweep.cells[1].recipe, seeds=one.seeds, cell=1)
    for ids, said in (
        ((one.id, elsewhere.id), "a loss surface needs two different trials of one cell"),
        ((one.id, one.id), "a loss surface needs two different trials of one cell"),
        ((one.id, "seed9"), "the sweep has no trial seed9"),
    ):
        with pytest.raises(HarnessError, match=said):
            loss_surface.compute(sweep, store, ids)
    with pytest.raises(HarnessError, match="are not saved in"):
        loss_surface.compute(sweep, Store(tmp_path), (one.id, other.id))


@pytest.mark.usefixtures("small", "cpu_only")
@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("data_sha256", "was trained with other data than there are now"),
        ("tokens_sha256", "was trained with another tokenizer than"),
        ("model_sha256", "was trained with other pretrained weights than there are now"),
    ],
)
def test_a_surface_over_other_inputs_than_the_trials_had_is_refused(
    kept: tuple[Sweep, Store, list[Trial]], monkeypatch: pytest.MonkeyPatch, field: str, words: str
) -> None:
    sweep, store, (one, other) = kept
    record = store.load(other.id)
    assert record is not None
    assert record.measured is not None
    changed = record.model_copy(update={"measured": record.measured.model_copy(update={field: "0" * 64})})
    whole = store.load
    monkeypatch.setattr(store, "load", lambda name: changed if name == other.id else whole(name))
    with pytest.raises(HarnessError, match=words):
        loss_surface.compute(sweep, store, (one.id, other.id))
