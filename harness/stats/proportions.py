"""Rates and their comparison: intervals, exact tests, stratified differences and odds; numbers in, numbers out.

Every interval is a 95 % interval. What is not known (no score, one score, no variation) is NaN, never an error and
never a warning. Scores are finite. What is random takes its generator as the argument `rng`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special, stats

from harness.stats.estimate import NAN, NORMAL_95, ROUNDING, TAIL, UNKNOWN, Estimate

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


@dataclass(frozen=True)
class Stratified:
    """Two arms compared within strata: common risk difference and odds ratio (2 against 1), and one test of both.

    `strata` counts those used, with trials on both sides; `informative` those of them in which some but not all failed.
    """

    risk_difference: Estimate
    odds_ratio: Estimate
    p: float
    strata: int
    informative: int


def mantel_haenszel(strata: Sequence[tuple[int, int, int, int]]) -> Stratified:
    """Compare two arms within strata (k1, n1, k2, n2), so that what differs between strata does not count.

    A stratum with no trial on a side is left out; one where none or all failed stays in the risk difference, and tells
    the odds ratio and the test nothing. Without a stratum all is NaN.

    - Risk difference: Mantel and Haenszel's weights, the variance of Sato (1989), which holds for many small strata and
      for few large ones; cut to [-1, 1]. Where that variance is 0 (0/48 against 0/48), the interval reaches as far to
      each side as Newcombe's of the pooled counts does.
    - Odds ratio: Mantel and Haenszel (1959), interval by Robins, Breslow and Greenland (1986). Where it is 0 or inf the
      other end is the exact conditional one, with 2.5 % beyond it. NaN without an informative stratum.
    - p: Cochran–Mantel–Haenszel, without continuity correction; 1 without an informative stratum.
    """
    used = [stratum for stratum in strata if stratum[1] > 0 and stratum[3] > 0]
    if not used:
        return Stratified(UNKNOWN, UNKNOWN, NAN, 0, 0)
    k1, n1, k2, n2 = np.array(used, dtype=float).T  # [S] each
    n, failed = n1 + n2, k1 + k2
    informative = int(((failed > 0) & (failed < n)).sum())
    variance = n1 * n2 * failed * (n - failed) / (n**2 * (n - 1))  # of k2, given the margins
    p = 1.0
    if informative > 0:
        chi2 = (k2 - n2 * failed / n).sum() ** 2 / variance.sum()
        p = float(special.chdtrc(1, chi2))
    return Stratified(_common_difference(k1, n1, k2, n2), _common_odds(k1, n1, k2, n2), p, len(used), informative)


def _common_difference(k1: np.ndarray, n1: np.ndarray, k2: np.ndarray, n2: np.ndarray) -> Estimate:
    """Mantel and Haenszel's risk difference with Sato's interval, from counts [S]."""
    n, weight = n1 + n2, (n1 * n2 / (n1 + n2)).sum()
    value = float(((k2 * n1 - k1 * n2) / n).sum() / weight)
    slope = ((n2**2 * k1 - n1**2 * k2 + n1 * n2 * (n1 - n2) / 2) / n**2).sum()
    level = ((k2 * (n1 - k1) + k1 * (n2 - k2)) / (2 * n)).sum()
    variance = (value * slope + level) / weight**2
    if variance > ROUNDING:
        half = NORMAL_95 * math.sqrt(variance)
        return Estimate(value, max(-1.0, value - half), min(1.0, value + half))
    pooled = newcombe(int(k1.sum()), int(n1.sum()), int(k2.sum()), int(n2.sum()))
    return Estimate(
        value,
        max(-1.0, value - (pooled.value - pooled.low)),
        min(1.0, value + (pooled.high - pooled.value)),
    )


def _common_odds(k1: np.ndarray, n1: np.ndarray, k2: np.ndarray, n2: np.ndarray) -> Estimate:
    """Mantel and Haenszel's odds ratio with Robins, Breslow and Greenland's interval, from counts [S]."""
    n = n1 + n2
    same, other = (k2 + n1 - k1) / n, (k1 + n2 - k2) / n
    up, down = k2 * (n1 - k1) / n, k1 * (n2 - k2) / n
    total_up, total_down = float(up.sum()), float(down.sum())
    if total_up == 0 and total_down == 0:
        return UNKNOWN
    if total_up == 0:
        return Estimate(0.0, 0.0, _largest_odds(k1, n1, k2, n2))
    if total_down == 0:
        return Estimate(math.inf, 1 / _largest_odds(k2, n2, k1, n1), math.inf)
    variance = (
        (same * up).sum() / (2 * total_up**2)
        + (same * down + other * up).sum() / (2 * total_up * total_down)
        + (other * down).sum() / (2 * total_down**2)
    )
    value, factor = total_up / total_down, math.exp(NORMAL_95 * math.sqrt(variance))
    return Estimate(value, value / factor, value * factor)


def _largest_odds(k1: np.ndarray, n1: np.ndarray, k2: np.ndarray, n2: np.ndarray) -> float:
    """The common odds ratio at which, given all margins, k2 is as small as it can be in all strata with 2.5 %."""
    failed = k1 + k2
    margins, counts = np.unique(np.stack([n1, n2, failed]).astype(int), axis=1, return_counts=True)
    terms = []
    for m1, m2, total in margins.T.tolist():
        support = np.arange(max(0, total - m1), min(total, m2) + 1)
        log_ways = log_choose(np.array(m2), support) + log_choose(np.array(m1), total - support)
        terms.append((log_ways - log_ways[0], support - support[0]))

    def excess(log_odds: float) -> float:
        logs = [float(np.logaddexp.reduce(ways + steps * log_odds)) for ways, steps in terms]
        return float(counts @ np.array(logs)) + math.log(TAIL)

    low, high = -1.0, 1.0
    while excess(low) > 0:
        low *= 2
    while excess(high) < 0:
        high *= 2
    return math.exp(optimize.brentq(excess, low, high, xtol=1e-12))


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
