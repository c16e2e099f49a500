"""What a finite dev set makes of scores: its share in the variance over seeds, and the bias of picking the best."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy import special

from benchmarks.coverage.registry import Row, covered, mean_width
from benchmarks.coverage.scenarios import generator
from harness.analysis.outcomes import Outcomes
from harness.stats import anova, dev_noise, means

TITLE = "The dev set, and shares of variance"
NOTE = """
*Dev set*: 277 examples, some harder than others; runs differ in ability so that their accuracies on an endless dev set
have an sd of 0, 1 or 3 points (a tenth of the repetitions). Share in the variance: four such cells with n runs each.
*Difference of accuracies*: of two cells on the same examples (1 point apart), of which the second does not fail.
*Selection bias*: what is said to be too high, over what is, on average. *ω²*: the larger of two settings (3 × 2 values
and n runs in each cell), of normal scores, or of scores of which up to 10 or 30 % are of failed runs.
"""
EXAMPLES, CELLS = 277, 4
ABILITIES = {0: 0.0, 1: 0.105, 3: 0.32}  # sd of the accuracy in points -> sd of the ability, in logits
SIZES = (5, 8, 25)
_POINTS, _WEIGHTS = np.polynomial.hermite_e.hermegauss(40)
_HARDNESS = 1.5  # sd of the examples' difficulty; a run's own answers scatter by 1 about it


def rows(repetitions: int) -> Iterator[Row]:
    """The dev set's share, the selection bias, ω²."""
    few = max(repetitions // 10, 2)
    for points, spread in ABILITIES.items():
        for n in SIZES:
            yield from _share(points, spread, n, few)
            yield from _selection(points, spread, n, few)
    for failing in (0.0, 0.1, 0.3):
        for n in SIZES:
            yield from _differences(failing, n, few)
    for name, rates in (("normal", (0.0, 0.0, 0.0)), ("up to 10 % failing", (0.0, 0.05, 0.1)),
                        ("up to 30 % failing", (0.0, 0.1, 0.3))):  # fmt: skip
        for n in SIZES:
            yield _omega(name, np.array(rates), n, few)


def _accuracy(ability: np.ndarray) -> np.ndarray:
    """On an endless dev set, of abilities [...]."""
    scatter = np.sqrt(_HARDNESS**2 + 1) * _POINTS
    return np.asarray((special.expit(1.5 + ability[..., None] + scatter) * _WEIGHTS).sum(axis=-1) / _WEIGHTS.sum())


def _answers(rng: np.random.Generator, ability: np.ndarray) -> np.ndarray:
    """Which answers are right [R, N], on a new dev set."""
    hardness = _HARDNESS * rng.normal(size=EXAMPLES)
    logits = 1.5 + ability[:, None] + hardness + rng.normal(size=(len(ability), EXAMPLES))
    return np.asarray(rng.random(logits.shape) < special.expit(logits))


def _share(points: int, spread: float, n: int, repetitions: int) -> Iterator[Row]:
    rng = generator("share", points, n)
    ability = spread * rng.normal(size=2_000)
    total = np.mean([_answers(rng, ability).mean(axis=1).var() for _ in range(20)])
    truth = float(1 - _accuracy(ability).var() / total)
    ends = []
    for _ in range(repetitions):
        floors = [dev_noise.floor(_answers(rng, spread * rng.normal(size=n)), rng, 2) for _ in range(CELLS)]
        observed = np.array([floor.observed for floor in floors])
        training = np.array([floor.training_variance for floor in floors])
        ends.append(dev_noise.pooled_share(observed, training, np.full(CELLS, n))[1:])
    low, high = np.array(ends).T
    yield Row(
        "", "dev set's share in the variance", "Satterthwaite", f"accuracies {points} points apart", n,
        covered(low, high, truth), mean_width(low, high),
    )  # fmt: skip


def _selection(points: int, spread: float, n: int, repetitions: int) -> Iterator[Row]:
    rng, told, true = generator("selection", points, n), [], []
    for _ in range(repetitions):
        ability = spread * rng.normal(size=n)
        correct = _answers(rng, ability)
        accuracy = correct.mean(axis=1)
        best = int(rng.choice(np.flatnonzero(accuracy == accuracy.max())))
        told.append(dev_noise.optimism(correct, rng, 50))
        true.append(accuracy[best] - float(_accuracy(ability[best : best + 1])[0]))
    yield Row(
        "", "selection bias", "on tenths of the dev set", f"accuracies {points} points apart", n,
        float(np.mean(told) / np.mean(true)), measure="told over true",
    )  # fmt: skip


def _differences(failing: float, n: int, repetitions: int) -> Iterator[Row]:
    """Two cells on the same examples, of which the second does not fail; failed runs answer one class."""
    rng, spread = generator("differences", round(100 * failing), n), ABILITIES[1]
    good = float(_accuracy(spread * rng.normal(size=20_000)).mean())
    truth, ends, resampled = failing * (good - 0.5), [], []
    for _ in range(repetitions):
        correct = _answers(rng, spread * rng.normal(size=2 * n))
        failed = np.arange(2 * n) < rng.binomial(n, failing)
        correct[failed] = np.arange(EXAMPLES) % 2 == 0
        means_of = (
            Outcomes(correct[side].mean(axis=1), failed[side], judged=True, chance=0.5, levels=None).mean()
            for side in (slice(0, n), slice(n, None))
        )
        first, second = correct[:n], correct[n:]
        estimate = dev_noise.difference(second, first, means.minus(*means_of))
        ends.append((estimate.low, estimate.high))
        resampled.append(dev_noise.resampled_difference(second, first, rng, 200))
    name = f"{100 * failing:.0f} % of one cell failing"
    for method, bounds in (("seeds and examples put together", ends), ("multi-bootstrap", resampled)):
        low, high = np.array(bounds).T
        known = ~np.isnan(low)
        yield Row(
            "", "difference of accuracies", method, name, n, covered(low[known], high[known], truth),
            mean_width(low, high), reported=method != "multi-bootstrap",
        )  # fmt: skip


def _omega(name: str, rates: np.ndarray, n: int, repetitions: int) -> Row:
    """Settings a (3 values) and b (2): a moves the level and the rate of failing, b the level by less."""
    level = 0.8 + np.array([-0.015, 0.0, 0.015])[:, None] + np.array([-0.004, 0.004])
    rate = np.repeat(rates[:, None], 2, axis=1)
    mean = (1 - rate) * level + rate * 0.5
    within = float(np.mean((1 - rate) * 0.02**2 + rate * 0.005**2 + rate * (1 - rate) * (level - 0.5) ** 2))
    truth = float(mean.mean(axis=1).var() / (mean.var() + within))
    rng, places = generator("omega", name, n), np.repeat(np.arange(6), n)
    factors, ends = pd.DataFrame({"a": places // 2, "b": places % 2}), []
    for _ in range(repetitions):
        failed = rng.random(len(places)) < rate.ravel()[places]
        good = rng.normal(level.ravel()[places], 0.02)
        table = anova.anova(factors, np.where(failed, rng.normal(0.5, 0.005, len(places)), good))
        ends.append(anova.share_bounds(table, len(places))[list(table["term"]).index("a")])
    low, high = np.array(ends).T
    return Row(
        "", "ω² of a setting", "noncentral F", name, n, covered(low, high, truth), mean_width(low, high), reported=False
    )
