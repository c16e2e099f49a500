"""Failure rates along an ordered axis: whether they differ at all, and the shape of how they do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import optimize, special, stats

from harness.stats import stratified
from harness.stats.estimate import NAN

LEVEL = 0.05
Shape = Literal["flat", "falling", "rising", "peak", "valley"]
_MOST_TABLES = 200_000  # that the exact test counts through; beyond, the χ² test
# What a peak or valley must explain beyond the best monotone shape: half of χ²'s 95 % point, 1 degree of freedom.
_TURN = float(stats.chi2.isf(LEVEL, 1)) / 2


class Homogeneity(NamedTuple):
    """A test that several rates are one."""

    p: float
    exact: bool


def same_rate(k: Sequence[int], n: Sequence[int]) -> Homogeneity:
    """Test that the rates of k [V] in n [V] are all the same.

    Of two groups it is the score test that compares any two rates here (`stratified.score_p`). Of more, the exact test
    sums the probabilities, given the margins, of all tables that are no likelier than this one; where
    these are too many to count it is Pearson's χ² test. NaN with fewer than two groups of any runs, 1 where none or all
    failed. Source: Freeman and Halton (1951), Biometrika 38, 141–149.
    """
    groups = [(failed, runs) for failed, runs in zip(k, n, strict=True) if runs]
    if len(groups) < 2:
        return Homogeneity(NAN, True)
    failed, runs = (np.array(column) for column in zip(*groups, strict=True))
    total = int(failed.sum())
    if total in (0, int(runs.sum())):
        return Homogeneity(1.0, True)
    if len(groups) == 2:
        k1, k2, n1, n2 = (np.array([float(count)]) for count in (*failed, *runs))
        return Homogeneity(float(stratified.score_p(k1, n1, k2, n2)), False)
    if math.prod(int(size) + 1 for size in runs) > _MOST_TABLES:
        return Homogeneity(float(stats.chi2_contingency([failed, runs - failed], correction=False).pvalue), False)
    counts, logs = np.zeros(1, dtype=int), np.zeros(1)  # of the groups so far: failures, log of the number of ways
    for size in runs:
        more = np.arange(size + 1)
        counts = (counts[:, None] + more).ravel()
        logs = (logs[:, None] + _log_choose(int(size), more)).ravel()
        counts, logs = counts[counts <= total], logs[counts <= total]
    logs = logs[counts == total]
    own = sum(float(_log_choose(int(size), np.array(count))) for size, count in zip(runs, failed, strict=True))
    weights = np.exp(logs - logs.max())
    return Homogeneity(min(1.0, float(weights[logs <= own + 1e-7].sum() / weights.sum())), True)


def shape(k: Sequence[int], n: Sequence[int]) -> Shape:
    """The shape of the rates of k [V] in n [V], each n at least 1, along their axis.

    `flat` where `same_rate` does not tell them apart at 5 %. Else the likelier of `falling` and `rising` (isotonic
    fits), unless rates that turn once, at a `peak` or a `valley`, explain the runs better at 5 % (likelihood ratio).
    Source: Barlow et al. (1972), Statistical Inference under Order Restrictions, for the fits.
    """
    if not same_rate(k, n).p < LEVEL:
        return "flat"
    failed, runs = np.array(k), np.array(n)
    monotone: dict[Shape, float] = {
        "falling": _likelihood(failed, runs, rising=False),
        "rising": _likelihood(failed, runs, rising=True),
    }
    turning: dict[Shape, float] = {
        "peak": _turned(failed, runs, rising_first=True),
        "valley": _turned(failed, runs, rising_first=False),
    }
    turn = max(turning, key=lambda name: turning[name])
    straight = max(monotone, key=lambda name: monotone[name])
    return turn if turning[turn] > monotone[straight] + _TURN else straight


def _likelihood(k: np.ndarray, n: np.ndarray, *, rising: bool) -> float:
    """The largest log-likelihood of rates that only rise, or only fall."""
    rates = optimize.isotonic_regression(k / n, weights=n, increasing=rising).x.clip(0, 1)
    return float((special.xlogy(k, rates) + special.xlog1py(n - k, -rates)).sum())


def _turned(k: np.ndarray, n: np.ndarray, *, rising_first: bool) -> float:
    """The largest log-likelihood of rates that turn once."""
    return max(
        _likelihood(k[:at], n[:at], rising=rising_first) + _likelihood(k[at:], n[at:], rising=not rising_first)
        for at in range(1, len(n))
    )


def _log_choose(n: int, k: np.ndarray) -> np.ndarray:
    result: np.ndarray = special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
    return result
