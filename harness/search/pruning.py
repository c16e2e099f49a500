"""Which recipes of a search are stopped in mid-training: how its runs' curves look to Optuna's pruners, and when.

A step is one per cent of a recipe's training, so that recipes of different lengths are compared at equal shares.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from harness.analysis.search_ranking import objective_words, value_of
from harness.common.metrics import Evaluation
from harness.common.text import show
from harness.config.recipe import Recipe
from harness.config.search_space import Pruner, Search
from harness.data import tasks

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

_MOST = 256  # recipes of a space that are looked at for whether they can be stopped
# What decides when a recipe is evaluated, beside its data.
_LENGTHS = ("epochs", "batch_size", "max_steps", "eval_steps", "eval_every", "oversample", "augment", "augment_copies")


def optuna_pruner(pruner: Pruner | None) -> BasePruner:
    """Optuna's pruner; when it is asked is `asked`'s, so its own warm-up is over at once."""
    from optuna import pruners

    if pruner is None:
        return pruners.NopPruner()
    if pruner.name == "percentile":
        return pruners.PercentilePruner(pruner.percentile, n_startup_trials=0)
    if pruner.name == "successive_halving":
        return pruners.SuccessiveHalvingPruner(pruner.n_warmup_steps, pruner.reduction_factor)
    if pruner.name == "hyperband":
        return pruners.HyperbandPruner(pruner.n_warmup_steps, 100, pruner.reduction_factor)
    median = pruners.MedianPruner(n_startup_trials=0)
    if pruner.name == "patient":
        return pruners.PatientPruner(median, -(-pruner.patience // pruner.interval_steps))
    return median


def value(evaluation: Evaluation, search: Search) -> float:
    """The search's objective over the lanes as they stand."""
    return float(value_of(evaluation.scores[None], search)[0])


def step(share: float, pruner: Pruner) -> int:
    """The look that is nearest to a share of the training, in steps; the first is at `interval_steps`."""
    looks = round(100 * share / pruner.interval_steps)
    return max(1, looks) * pruner.interval_steps


def curve(evaluations: Sequence[Evaluation], pruner: Pruner, search: Search) -> dict[int, float]:
    """The objective of a search at each look so far, by step; between two evaluations it is that of the one before."""
    values_at: dict[int, float] = {}
    latest, until = 0.0, 0
    for evaluation in evaluations:
        position = step(evaluation.share, pruner)
        if values_at:
            values_at |= dict.fromkeys(range(until + pruner.interval_steps, position, pruner.interval_steps), latest)
        values_at.setdefault(position, value(evaluation, search))
        latest, until = value(evaluation, search), position
    return values_at


def asked(evaluations: Sequence[Evaluation], pruner: Pruner, recipe: Recipe) -> bool:
    """Whether the pruner is asked after the latest evaluation: not of a recipe that may have a late riser in it."""
    latest = evaluations[-1]
    looked_at = len(evaluations) > 1 and step(evaluations[-2].share, pruner) == step(latest.share, pruner)
    if latest.last or looked_at or not _warm(latest.share, pruner, recipe):
        return False
    return flat(evaluations) == 0 or _past(latest.share, pruner.n_majority_steps)


def flat(evaluations: Sequence[Evaluation]) -> float:
    """The share of the lanes that have not risen above the majority classifier at any of these evaluations."""
    return 1 - float(np.mean(np.any([evaluation.risen for evaluation in evaluations], axis=0)))


def _warm(share: float, pruner: Pruner, recipe: Recipe) -> bool:
    return _past(share, max(pruner.n_warmup_steps, 100 * recipe.warmup_ratio))


def _past(share: float, steps: float) -> bool:
    return 100 * share >= steps - 1e-9  # 100 * 0.29 lies below 29


def words(pruner: Pruner, evaluation: Evaluation, search: Search, who: str | None = None) -> str:
    """What stopped a recipe: `median pruner: mean 0.531 at 60 % of training`; `who` it was, unless the pruner."""
    who, at = who or f"{pruner.name.replace('_', ' ')} pruner", 100 * evaluation.share
    return f"{who}: {objective_words(search)} {value(evaluation, search):.3f} at {at:.0f} % of training"


def unseen(search: Search, recipe: Recipe) -> str | None:
    """Which recipes of a space have no evaluation at which a pruner could stop them, in words; None where all have.

    `recipe` is one of the space, for what is not searched.
    """
    assert search.pruner is not None
    searched = {
        dimension.field: dimension.choices or (dimension.low, dimension.high)
        for dimension in search.space
        if dimension.field in _LENGTHS
    }
    every = itertools.product(*searched.values())
    given = [dict(zip(searched, values, strict=True)) for values in itertools.islice(every, _MOST)]
    labels = tasks.load(recipe.task).train.labels
    blind = [lengths for lengths in given if not _seen(recipe.model_copy(update=lengths), labels, search.pruner)]
    if not blind:
        return None
    which = "recipes of this search have no"
    if len(blind) < len(given):
        example = ", ".join(f"{name} {show(at)}" for name, at in blind[0].items())
        which = f"recipes as {example} have no"
    return (
        f"{which} evaluation from {search.pruner.n_warmup_steps} % of the training on and before its end, so the "
        "pruner doesn't stop them; eval_every: 0.25 (of an epoch) shows it more"
    )


def _seen(recipe: Recipe, labels: np.ndarray, pruner: Pruner) -> bool:
    """Whether there is an evaluation at which the pruner may be asked."""
    epoch = tasks.epoch_steps(labels, recipe)
    steps = recipe.max_steps or epoch * recipe.epochs
    each = (done for done in range(1, steps) if _warm(done / steps, pruner, recipe))
    return any(tasks.due(recipe, done, epoch, steps) for done in each)
