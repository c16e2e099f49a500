"""Rates and their comparison in pairs: intervals, exact tests, adjusted p-values; numbers in, numbers out.

Every interval is a 95 % interval. What is not known (no score, one score, no variation) is NaN, never an error and
never a warning. Scores are finite. What is random takes its generator as the argument `rng`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import special, stats

from harness.stats.estimate import NAN, NORMAL_95, TAIL, UNKNOWN, Estimate

# ------------------------------------------------------------------------------------------------------------- rates


def score_interval(p: float, n: float) -> tuple[float, float]:
    """Wilson's interval of a rate p seen in n; its ends are exact at p = 0 and p = 1."""
    z2 = NORMAL_95**2
    centre, half = p + z2 / (2 * n), NORMAL_95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    low, high = (centre - half) / (1 + z2 / n), (centre + half) / (1 + z2 / n)
    return (0.0 if p == 0 else low), (1.0 if p == 1 else high)


def wilson_bounds(p: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's intervals of many rates [R], each seen in n [R], as `score_interval`."""
    z2 = NORMAL_95**2
    centre, half = p + z2 / (2 * n), NORMAL_95 * np.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    low, high = (centre - half) / (1 + z2 / n), (centre + half) / (1 + z2 / n)
    return np.where(p == 0, 0.0, low), np.where(p == 1, 1.0, high)


def wilson(k: int, n: int) -> tuple[float, float]:
    """Wilson's score interval for a rate of k in n, as fractions.

    NaN for n = 0; exactly 0 below k = 0 and exactly 1 above k = n. Source: Wilson (1927), as in Newcombe (1998),
    Statistics in Medicine 17, 857–872, method 3.
    """
    return score_interval(k / n, n) if n > 0 else (NAN, NAN)


def clopper_pearson(k: int, n: int) -> tuple[float, float]:
    """Clopper and Pearson's exact interval for a rate of k in n, as fractions: never covers less than 95 %.

    NaN for n = 0; exactly 0 below k = 0 and exactly 1 above k = n. Source: Clopper and Pearson (1934), by quantiles of
    the beta distribution.
    """
    if n <= 0:
        return NAN, NAN
    low = float(special.betaincinv(k, n - k + 1, TAIL)) if k > 0 else 0.0
    high = float(special.betaincinv(k + 1, n - k, 1 - TAIL)) if k < n else 1.0
    return low, high


def newcombe(k1: int, n1: int, k2: int, n2: int) -> Estimate:
    """The risk difference k2/n2 - k1/n1 with Newcombe's hybrid score interval.

    NaN where a side has no trial. Its width is never 0. Source: Newcombe (1998), Statistics in Medicine 17, 873–890,
    method 10.
    """
    if n1 <= 0 or n2 <= 0:
        return UNKNOWN
    p1, p2 = k1 / n1, k2 / n2
    (low1, high1), (low2, high2) = wilson(k1, n1), wilson(k2, n2)
    value = p2 - p1
    return Estimate(value, value - math.hypot(p2 - low2, high1 - p1), value + math.hypot(high2 - p2, p1 - low1))


def odds_ratio(k1: int, n1: int, k2: int, n2: int) -> Estimate:
    """The odds of failing in 2 over those in 1: the conditional maximum likelihood estimate with its exact interval.

    0 and inf are answers, and ends of the interval. NaN where a side has no trial, and where none or all failed on both
    sides. Source: Cornfield (1956), by scipy.stats.contingency.odds_ratio (what R's fisher.test gives).
    """
    if n1 <= 0 or n2 <= 0 or k1 + k2 in (0, n1 + n2):
        return UNKNOWN
    result = stats.contingency.odds_ratio([[k2, n2 - k2], [k1, n1 - k1]], kind="conditional")
    interval = result.confidence_interval(confidence_level=1 - 2 * TAIL)
    return Estimate(float(result.statistic), float(interval.low), float(interval.high))


def fisher(k1: int, n1: int, k2: int, n2: int) -> float:
    """Fisher's exact test that two rates are the same: the two-sided p.

    NaN where a side has no trial; 1 where none or all failed. Source: Fisher (1935), by scipy.stats.fisher_exact.
    """
    if n1 <= 0 or n2 <= 0:
        return NAN
    return float(stats.fisher_exact([[k2, n2 - k2], [k1, n1 - k1]]).pvalue)


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """Adjust p-values [N] for their number by Holm's step-down rule; the same order comes back.

    NaN stays NaN and is not counted in the family. Source: Holm (1979).
    """
    given = np.asarray(p, dtype=float)
    result = np.full(given.shape, NAN)
    known = np.flatnonzero(~np.isnan(given))
    order = known[np.argsort(given[known], kind="stable")]
    steps = given[order] * np.arange(len(order), 0, -1)
    result[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return result


def never_failed(n: int) -> tuple[float, float]:
    """What failure rate n trials without a failure leave open: the exact one-sided 95 % bound, and the rule of three.

    The exact bound is 1 - 0.05^(1/n); the rule is 3/n, at most 1. NaN for n = 0. Source: Hanley and Lippman-Hand
    (1983).
    """
    return (-math.expm1(math.log(0.05) / n), min(1.0, 3 / n)) if n > 0 else (NAN, NAN)


def log_choose(n: np.ndarray, k: np.ndarray) -> np.ndarray:
    """The logarithm of n over k; -inf for k > n."""
    rest = np.maximum(n - k, 0)
    result = special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(rest + 1)
    return np.where(k > n, -np.inf, result)
