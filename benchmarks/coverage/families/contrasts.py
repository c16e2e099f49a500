"""Failure rates compared within strata, and the recipes that may be best."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.coverage.registry import Row, covered, mean_width
from benchmarks.coverage.scenarios import generator
from harness.stats import best_set, stratified
from harness.stats.estimate import NORMAL_95

TITLE = "Recipes compared"
NOTE = """
Differences of failure rates over settings, with equal or unequal numbers of runs in them (n is the number of all runs).
Best sets of ten recipes with n runs each: how often the set holds the best one, and as width the recipes' share in it;
failed runs score 0.5, the others 0.8 or as said with an sd of 0.02.
"""

# Rates of the reference and of the other arm, and their runs, in each of the strata.
_STRATA: dict[str, tuple[list[float], list[float], list[int], list[int]]] = {
    "equal rates, unequal counts": ([0.1, 0.6], [0.1, 0.6], [20, 4], [4, 20]),
    "equal rates, very unequal strata": ([0.02, 0.98], [0.02, 0.98], [20, 4], [4, 20]),
    "rates 30 % apart, unequal counts": ([0.1, 0.5], [0.4, 0.8], [20, 4], [4, 20]),
    "effect in one stratum alone": ([0.0, 0.5], [0.5, 0.5], [8, 8], [8, 8]),
    "one stratum, 10 against 40 %": ([0.1], [0.4], [8], [8]),
    "one stratum, equal rates": ([0.3], [0.3], [5], [5]),
    "twelve small strata": ([0.1] * 12, [0.3] * 12, [2] * 12, [3] * 12),
}
# Means of the successful runs of the first recipe, which none is better than, and of the nine others; share that fails.
_BEST: dict[str, tuple[float, float, float]] = {
    "ten alike": (0.8, 0.8, 0.0),
    "ten alike, 10 % fail": (0.8, 0.8, 0.1),
    "ten alike, 30 % fail": (0.8, 0.8, 0.3),
    "one better by an sd": (0.82, 0.8, 0.0),
}
_REPETITIONS = 500  # of best sets, which are made one by one


def rows(repetitions: int) -> Iterator[Row]:
    """Both methods of a stratified difference, then best sets."""
    for name, (first, second, n1, n2) in _STRATA.items():
        yield from _differences(name, repetitions, *(np.array(part, dtype=float) for part in (first, second, n1, n2)))
    for name, (best, others, failing) in _BEST.items():
        for n in (5, 8, 25):
            yield _best_sets(name, min(repetitions, _REPETITIONS), n, best, others, failing)


def _differences(
    name: str, repetitions: int, first: np.ndarray, second: np.ndarray, n1: np.ndarray, n2: np.ndarray
) -> Iterator[Row]:
    rng, shape = generator("contrasts", name), (repetitions, len(first))
    k1, k2 = (rng.binomial(n.astype(int), rates, shape).astype(float) for n, rates in ((n1, first), (n2, second)))
    n1, n2 = np.broadcast_to(n1, shape), np.broadcast_to(n2, shape)
    weight = (n1 * n2 / (n1 + n2))[0]
    truth = float((weight * (second - first)).sum() / weight.sum())
    for method, ends in (("score", stratified.score_differences), ("Sato", _sato)):
        _, low, high = ends(k1, n1, k2, n2)
        n = int((n1 + n2)[0].sum())
        yield Row(
            "", "difference of rates", method, name, n, covered(low, high, truth), mean_width(low, high),
            reported=method == "score",
        )  # fmt: skip


def _sato(k1: np.ndarray, n1: np.ndarray, k2: np.ndarray, n2: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mantel and Haenszel's risk differences with the intervals of Sato (1989), from counts [R, S]."""
    n = n1 + n2
    weight = (n1 * n2 / n).sum(axis=1)
    value = ((k2 * n1 - k1 * n2) / n).sum(axis=1) / weight
    slope = ((n2**2 * k1 - n1**2 * k2 + n1 * n2 * (n1 - n2) / 2) / n**2).sum(axis=1)
    level = ((k2 * (n1 - k1) + k1 * (n2 - k2)) / (2 * n)).sum(axis=1)
    half = NORMAL_95 * np.sqrt(np.maximum(value * slope + level, 0.0)) / weight
    return value, value - half, value + half


def _best_sets(name: str, repetitions: int, n: int, best: float, others: float, failing: float) -> Row:
    rng, held, sizes = generator("best set", name, n), 0, 0.0
    means = np.array([best, *[others] * 9])
    for _ in range(repetitions):
        scores = rng.normal(means[:, None], 0.02, (10, n))
        scores[rng.random((10, n)) < failing] = 0.5
        members = best_set.by_mean(list(scores)) >= best_set.LEVEL
        held += bool(members[0])
        sizes += float(members.mean())
    return Row("", "best mean", "best set", name, n, held / repetitions, sizes / repetitions)
