"""Learning rates by step, evaluations by epoch, gradient accumulation, the layers that parameters belong to."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from training_runs import rate

from harness.config.recipe import ModelSpec, Recipe, TaskSpec
from harness.config.schedules import factor
from harness.config.trials import Trial
from harness.models import pretrained as models
from harness.training import loop
from harness.training.parts import slots

Make = Callable[..., Trial]
Fields = dict[str, object]


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


def test_evaluations_a_fraction_of_an_epoch(trial: Make, uneven: TaskSpec) -> None:
    """Of an epoch's 8 updates (5 for the smaller task), int(8 · 0.3) = 2, and each epoch's end."""
    found = loop.train([trial(1, eval_every=0.3)])[0].curves.eval_step
    assert found.tolist() == [2, 4, 6, 8, 10, 12, 14, 16]
    found = loop.train([trial(1, task=uneven, eval_every=0.5)])[0].curves.eval_step
    assert found.tolist() == [2, 4, 5, 7, 9, 10]
    cut_short = loop.train([trial(1, max_steps=11)])[0]
    assert cut_short.curves.eval_step.tolist() == [8, 11]
    assert cut_short.measured.steps == len(cut_short.curves.train_loss) == 11


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
