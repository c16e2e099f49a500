"""Masks drop at their rate; `dropout: model` leaves each place at the rate that the model's configuration gives it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from training_runs import advance, begin, remedy

from harness.common import errors
from harness.config import recipe_rules, sweep_file
from harness.config.keys import all_keys
from harness.config.recipe import ModelSpec, Recipe, TaskSpec
from harness.config.trials import Trial
from harness.training import loop
from harness.training.loop import update
from harness.training.numerics import stream
from harness.training.prepare import load_network
from harness.training.remedies import dropout
from harness.training.remedies.dropout import Masks

RATES = {"hidden_dropout_prob": 0.25, "attention_probs_dropout_prob": 0.125, "classifier_dropout": 0.5}


@pytest.fixture(scope="module")
def uneven(build: Callable[..., Path]) -> ModelSpec:
    """A BERT with three rates; 0.25, 0.125 and 0.5 are whole numbers of 1/65536."""
    return ModelSpec(name="uneven", folder=str(build("bert", **RATES)))


def test_equal_rates_are_the_same_dropout(trial: Callable[..., Trial]) -> None:
    """BERT's own are 0.1 everywhere, as the paper's: bit for bit, and beside lanes with another rate."""
    trials = [trial(1, dropout="model"), trial(1, dropout=0.1), trial(1, dropout=0.3), trial(1, dropout=0.0)]
    own, same, other, none = (one.measured.weights_sha256 for one in loop.train(trials))
    assert own == same
    assert len({own, other, none}) == 3
    for one, digest in zip(trials, (own, same, other, none), strict=True):
        assert loop.train([one])[0].measured.weights_sha256 == digest


def test_counted_masks_are_the_same_numbers_against_each_place_s_rate(
    trial: Callable[..., Trial], uneven: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where no streams are kept: equal rates are the same dropout, and others each their share."""
    monkeypatch.setattr(dropout, "from_counter", lambda device: True)
    own, same, other = loop.train([trial(1, dropout="model"), trial(1, dropout=0.1), trial(1, dropout=0.3)])
    assert own.measured.weights_sha256 == same.measured.weights_sha256 != other.measured.weights_sha256
    masks = Masks(["model", 0.25], [1, 1], torch.device("cpu"))
    sites = [(4000, 0.25), (4000, 0.125), (4000, 0.5)]
    drawn = masks.draw([0, 1], sites, 3, 0, whole=True)
    assert torch.equal(drawn[0, :4000], drawn[1, :4000])
    for part, (_, rate) in zip(drawn[0].split(4000), sites, strict=True):
        assert part.unique().tolist() == pytest.approx([0.0, 1 / (1 - rate)])
        assert (part == 0).float().mean().item() == pytest.approx(rate, abs=4 * (rate * (1 - rate) / 4000) ** 0.5)
    assert torch.equal(masks.draw([1], sites, 3, 0, whole=False)[0], drawn[1])


@pytest.mark.parametrize("padding", ["dataset", "batch"])
def test_each_place_has_its_own_rate(
    padding: str, trial: Callable[..., Trial], uneven: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the first step applies, by transformers' own calls: after an evaluation too, where a model asks for none."""
    run = begin([trial(1, model=uneven, dropout="model", padding=padding)], record=False, replay=False)
    drops = remedy(run, dropout.Dropout)
    for step in range(run.pack.epoch_steps + 1):  # the last one after an evaluation
        drops.sites.clear()
        advance(run, step)
    (sites, *_) = drops.sites.values()
    rates = [rate for _, rate in sites]
    # Embeddings; of each layer attention, its output and the feed-forward's; the classifier.
    assert rates == [0.25, 0.125, 0.25, 0.25, 0.125, 0.25, 0.25, 0.5]
    masks = drops.masks.draw([0], [(4000, rate) for rate in rates], 0, 0, whole=True)[0]  # [draws]
    for part, rate in zip(masks.split(4000), rates, strict=True):
        assert part.unique().tolist() == pytest.approx([0.0, 1 / (1 - rate)])
        assert (part == 0).float().mean().item() == pytest.approx(rate, abs=4 * (rate * (1 - rate) / 4000) ** 0.5)


def test_a_lane_with_its_own_rates_is_transformers(
    trial: Callable[..., Trial], uneven: ModelSpec, data: TaskSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first loss is that of the model in training with the lane's masks put in at each place's rate."""
    one = trial(3, model=uneven, dropout="model")
    run = begin([one], record=False)
    update(run, 0)
    order = torch.randperm(len(run.training), generator=stream("order", 3))[:8]
    bits = iter(stream("dropout", 3) for _ in range(1))
    (sites, *_) = remedy(run, dropout.Dropout).sites.values()
    draws = sum(count for count, _ in sites)
    drawn = torch.empty((draws + 3) // 4, dtype=torch.int64).random_(-(2**63), None, generator=next(bits))
    left = [drawn.view(torch.int16)[:draws]]

    def dropped(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        assert training
        own, left[0] = left[0][: x.numel()], left[0][x.numel() :]
        return x * (own >= round(p * 65536) - 32768).view(x.shape) / (1 - p)

    network = load_network(one.recipe, run.pack.task)
    module = network.module.train()
    inputs = network.inputs(run.training.input_ids[order], run.training.lengths[order], None)
    with monkeypatch.context() as patched, torch.no_grad():
        patched.setattr(F, "dropout", dropped)
        parameters = network.initialised(stream("init", 3))
        logits = torch.func.functional_call(module, parameters, kwargs=inputs).logits
    loss = F.cross_entropy(logits, run.training.labels[order])
    assert loss.item() == pytest.approx(run.log.losses[0].item(), rel=1e-6)
    assert not len(left[0])


def test_the_words_and_the_ids(tmp_path: Path, trial: Callable[..., Trial]) -> None:
    assert trial(dropout=0.1).id == trial().id
    assert trial(dropout=0).id == trial(dropout=0.0).id
    assert trial(dropout="model").id not in (trial().id, trial(dropout=0.0).id)
    keys = {key.name: key for key in all_keys()}
    assert keys["dropout"].takes == "a number >= 0 and < 1, or model"
    assert keys["class_weights"].takes == "on, off or balanced"
    path = tmp_path / "own.yaml"
    lines = "task: embedded\nmodel: embedded\nlr: 1e-4\nepochs: 1\nseeds: 1..2\n"
    path.write_text(lines + "dropout: [0.0, 0.1, model]\nclass_weights: [off, on, balanced]\n")
    cells = sweep_file.load(path).cells
    assert [cell.recipe.dropout for cell in cells[::3]] == [0.0, 0.1, "model"]
    assert [cell.recipe.class_weights for cell in cells[:3]] == [False, True, "balanced"]
    assert cells[-1].label == "dropout model, class weights balanced"
    for wrong, allowed in (
        ("dropout: 1.0", "or model"),
        ("dropout: mine", "or model"),
        ("class_weights: 2", "balanced"),
    ):
        path.write_text(lines + wrong + "\n")
        with pytest.raises(errors.HarnessError, match=allowed):
            sweep_file.load(path)


def test_a_search_goes_over_numbers_or_chooses(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    lines = "task: embedded\nmodel: embedded\nlr: 1e-4\nepochs: 1\nseeds: 1..2\nsearch:\n  space:\n    dropout: "
    path.write_text(lines + "{low: 0.0, high: 0.3}\n")
    assert sweep_file.load(path).search is not None
    path.write_text(lines + "[0.1, model]\n")
    search = sweep_file.load(path).search
    assert search is not None
    assert search.space[0].choices == (0.1, "model")


def test_the_agreement_of_two_passes_goes_with_a_models_own_rates(trial: Callable[..., Trial]) -> None:
    fields = trial().recipe.model_dump(exclude_defaults=True) | {"dropout": "model", "r_drop": 1.0}
    assert recipe_rules.build_recipe(fields, "the sweep") == Recipe(**fields)


def test_masks_drop_at_their_rate_and_keep_the_mean() -> None:
    masks = Masks([0.1, 0.0, 0.5], [1, 1, 2], torch.device("cpu"))
    kept = masks.draw([0, 1, 2], [(600_000, 0.1), (400_000, 0.1)], 0, 0, whole=False)
    shares = (kept > 0).float().mean(dim=1).tolist()
    assert shares == pytest.approx([0.9, 1.0, 0.5], abs=0.002)  # 4 standard errors of the last
    assert kept.mean(dim=1).tolist() == pytest.approx([1.0, 1.0, 1.0], abs=0.005)
    assert [one.unique().tolist() for one in kept] == [[0.0, masks.scales[0]], [1.0], [0.0, masks.scales[2]]]
    assert masks.scales[0].item() == pytest.approx(1 / 0.9, rel=1e-4)
    neighbours = np.corrcoef(kept[0, :-1].numpy(), kept[0, 1:].numpy())[0, 1]
    assert abs(neighbours) < 0.005
    assert not torch.equal(
        masks.draw([2], [(1000, 0.1)], 1, 0, whole=False), kept[2:, :1000]
    )  # the next step draws anew


def test_dropout_stands_wherever_the_model_has_it(trial: Callable[..., Trial]) -> None:
    """In training the pool of a lane is used up exactly: embeddings, 2 layers × (attention, 2 hidden), classifier."""
    run = begin([trial(1)])
    update(run, 0)
    batch, width, hidden, heads = 8, run.training.input_ids.shape[1], 16, 2
    layer = heads * width * width + 2 * width * hidden
    ((at, sites),) = remedy(run, dropout.Dropout).sites.items()
    assert at == (batch, width)
    assert sum(count for count, _ in sites) == batch * (width * hidden + 2 * layer + hidden)
