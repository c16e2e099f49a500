"""Means and standard deviations of a cell's runs, some of which may fail; arrays in, numbers out.

A run fails or not, and those that do not fail have a level and a spread: three quantities, each with its own interval.
The mean of all runs is made of the rate of failing and of the two levels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import special, stats

from harness.stats.estimate import NAN, NORMAL_95, TAIL, UNKNOWN, Estimate

FEWEST_FOR_SD = 4  # scores, below which no interval of a standard deviation is told


def student(scores: np.ndarray) -> Estimate:
    """The mean of scores [n] with Student's interval, in their unit; NaN bounds below two scores and for equal ones."""
    if not len(scores):
        return UNKNOWN
    value = float(scores.mean())
    if len(scores) < 2 or np.ptp(scores) == 0:
        return Estimate(value, NAN, NAN)
    half = float(special.stdtrit(len(scores) - 1, 1 - TAIL)) * float(scores.std(ddof=1)) / math.sqrt(len(scores))
    return Estimate(value, value - half, value + half)


def mixture(good: Estimate, rate: Estimate, bad: float) -> Estimate:
    """The mean of all runs, (1 - rate) · good + rate · bad, from the mean of those that did not fail and the rate.

    `bad` is the mean score of the failed runs, or what a failed run would score where none did. Its own error is left
    out: failed runs score alike. Where no run failed the interval still reaches as far as the rate's does. NaN bounds
    where an end of `good` or of `rate` is not known.

    Source: the method of variance estimates recovery, Zou & Donner (2008), Statistics in Medicine 27, 1693-1702.
    """
    share, gap = rate.value, good.value - bad
    value = (1 - share) * good.value + share * bad if share < 1 else bad
    below, above = (1 - share) * (good.value - good.low), (1 - share) * (good.high - good.value)
    fewer, more = (rate.value - rate.low) * abs(gap), (rate.high - rate.value) * abs(gap)
    down, up = (more, fewer) if gap > 0 else (fewer, more)
    return Estimate(value, value - math.hypot(below, down), value + math.hypot(above, up))


def minus(first: Estimate, second: Estimate) -> Estimate:
    """The difference second - first of independent estimates (Zou & Donner 2008, as `mixture`)."""
    value = second.value - first.value
    low = value - math.hypot(second.value - second.low, first.high - first.value)
    return Estimate(value, low, value + math.hypot(second.high - second.value, first.value - first.low))


def weighted(estimates: list[Estimate], weights: list[float]) -> Estimate:
    """The weighted mean of independent estimates, weights adding up to 1 (Zou & Donner 2008, as `mixture`).

    One whose bounds are not known counts as certain; NaN bounds where that is all of them.
    """
    value = math.fsum(w * one.value for w, one in zip(weights, estimates, strict=True))
    known = [(w, one) for w, one in zip(weights, estimates, strict=True) if not math.isnan(one.low)]
    if not known:
        return Estimate(value, NAN, NAN)
    below = math.hypot(*(w * (one.value - one.low) for w, one in known))
    return Estimate(value, value - below, value + math.hypot(*(w * (one.high - one.value) for w, one in known)))


def stratified(strata: Sequence[np.ndarray], weights: Sequence[float]) -> Estimate:
    """The weighted mean of the means of strata [n] of scores, with Student's interval (Satterthwaite 1946).

    NaN bounds where a stratum has one score, or no stratum has two different ones.
    """
    value = math.fsum(w * float(part.mean()) for w, part in zip(weights, strata, strict=True))
    if any(len(part) < 2 for part in strata) or all(np.ptp(part) == 0 for part in strata):
        return Estimate(value, NAN, NAN)
    parts = np.array([w**2 * part.var(ddof=1) / len(part) for w, part in zip(weights, strata, strict=True)])
    freedom = parts.sum() ** 2 / (parts**2 / (np.array([len(part) for part in strata]) - 1)).sum()
    half = float(special.stdtrit(freedom, 1 - TAIL)) * math.sqrt(float(parts.sum()))
    return Estimate(value, value - half, value + half)


def pooled(estimates: list[Estimate], strata: Sequence[np.ndarray], weights: list[float]) -> Estimate:
    """The mean over cells: as far as the cells' `estimates` put together reach, and as `stratified`, whichever is more.

    The one alone covers .89 where cells have few runs of which some fail, the other .93; both together .95 and more.
    """
    together, student = weighted(estimates, weights), stratified(strata, weights)
    if math.isnan(student.low):
        return together
    if math.isnan(together.low):
        return student
    return Estimate(together.value, min(together.low, student.low), max(together.high, student.high))


# ---------------------------------------------------------------------------------------------------------- deviations


def _log_variance(scores: np.ndarray) -> tuple[float, float]:
    """Centre and half width of Bonett's interval of the logarithm of a variance, for scores whose sd is 1."""
    n = len(scores)
    middle = float(stats.trim_mean(scores, 1 / (2 * math.sqrt(n - 4)))) if n > 5 else float(np.median(scores))
    kurtosis = n * float(((scores - middle) ** 4).sum()) / (n - 1) ** 2
    small = n / (n - NORMAL_95)
    return math.log(small), NORMAL_95 * small * math.sqrt((kurtosis - (n - 3) / n) / (n - 1))


def _sd(scores: np.ndarray) -> float:
    return float(scores.std(ddof=1)) if np.ptp(scores) > 0 else 0.0


def deviation(scores: np.ndarray) -> Estimate:
    """The standard deviation (n - 1) of scores [n] with Bonett's interval, in their unit.

    It does not need normal scores. NaN bounds below `FEWEST_FOR_SD` scores and for equal ones.
    Source: Bonett (2006), Computational Statistics & Data Analysis 50, 775-782.
    """
    if len(scores) < 2:
        return UNKNOWN
    sd = _sd(scores)
    if len(scores) < FEWEST_FOR_SD or sd == 0:
        return Estimate(sd, NAN, NAN)
    centre, half = _log_variance(scores / sd)
    return Estimate(sd, sd * math.exp((centre - half) / 2), sd * math.exp((centre + half) / 2))


def deviation_ratio(x: np.ndarray, y: np.ndarray) -> tuple[Estimate, float]:
    """The sd of y [N2] over that of x [N1] with its interval, and the two-sided p of the same method.

    The two intervals that `deviation` gives are put together on the scale of logarithms. The method of Bonett (2006b)
    for ratios, which pools the kurtosis, covers less: .87 for eight skewed scores a side, where this one covers .96.

    0 where only y has a spread of none, inf where only x has, NaN where neither has any or a side has one score; bounds
    and p are NaN then, and below `FEWEST_FOR_SD` scores on a side.
    """
    if min(len(x), len(y)) < 2:
        return UNKNOWN, NAN
    sds = [_sd(side) for side in (x, y)]
    if 0.0 in sds:
        return Estimate(NAN if sds[0] == sds[1] else 0.0 if sds[1] == 0 else math.inf, NAN, NAN), NAN
    ratio = sds[1] / sds[0]
    if min(len(x), len(y)) < FEWEST_FOR_SD:
        return Estimate(ratio, NAN, NAN), NAN
    (centre1, half1), (centre2, half2) = (_log_variance(side / sd) for side, sd in zip((x, y), sds, strict=True))
    centre, half = 2 * math.log(ratio) + centre2 - centre1, math.hypot(half1, half2)
    low, high = (min(ratio, math.exp((centre - half) / 2)), max(ratio, math.exp((centre + half) / 2)))
    return Estimate(ratio, low, high), float(2 * special.ndtr(-abs(centre) / half * NORMAL_95))
