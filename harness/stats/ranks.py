"""What the order of scores tells, so that a run without a score can count as the worst; arrays in, numbers out.

Scores are ascending and higher ones better: where lower is better the caller turns the sign. A run that diverged
scores -inf.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy import special

from harness.stats.estimate import NAN, TAIL, UNKNOWN, Estimate
from harness.stats.proportions import score_interval, wilson_bounds

FEWEST_FOR_MEDIAN = 5  # scores, between whose ends the median lies with a probability of 94 %


@lru_cache(maxsize=4096)
def quantile_ranks(n: int, share: float) -> tuple[int, int]:
    """Which of n order statistics, from 1 on, bound a quantile with 2.5 % beyond each; 0 and n + 1 where none does."""
    below = special.bdtr(np.arange(n + 1), n, share)  # P(at most k scores lie below the quantile)
    low = int(np.searchsorted(below, TAIL, side="right"))  # P(X_(low) > q) = P(fewer than low below) <= 2.5 %
    high = int(np.searchsorted(below, 1 - TAIL, side="left")) + 1
    return low, high if high <= n else n + 1


def quantile(ordered: np.ndarray, share: float, effective: float | None = None) -> Estimate:
    """A quantile of ascending scores [n], linear between them as numpy's, with a distribution-free interval.

    An end that so few scores do not bound is infinite; the median of five scores is bounded by all of them (94 %), of
    fewer it has no interval. NaN for no score. Of runs that share parts of their seeds, as sure as `effective`
    independent ones, the ends stand at Wilson's bounds of the share among so many (Woodruff 1952).

    Source: order statistics by the binomial distribution, David & Nagaraja (2003), Order Statistics, 7.1.
    """
    n = len(ordered)
    if not n:
        return UNKNOWN
    value = _between(ordered, share * (n - 1))
    if share == 0.5 and n < FEWEST_FOR_MEDIAN:
        return Estimate(value, NAN, NAN)
    if effective is not None:
        bounds = score_interval(share, effective)
        low, high = math.floor(bounds[0] * n), math.ceil(bounds[1] * n) + 1
    else:
        low, high = (1, n) if share == 0.5 and n == FEWEST_FOR_MEDIAN else quantile_ranks(n, share)
    return Estimate(
        value, float(ordered[low - 1]) if low > 0 else -math.inf, float(ordered[high - 1]) if high <= n else math.inf
    )


def _between(ordered: np.ndarray, place: float) -> float:
    left, right = float(ordered[math.floor(place)]), float(ordered[math.ceil(place)])
    return left if left == right or math.isinf(left) else left + (place - math.floor(place)) * (right - left)


def worst_mean(ordered: np.ndarray, share: float = 0.1) -> float:
    """The mean of the worst share of ascending scores [n], at least of the worst one: conditional value at risk.

    -inf if a run that diverged is among them; NaN for no score. A score that lies in the share in part counts in part
    (Rockafellar & Uryasev 2000).
    """
    n = len(ordered)
    if not n:
        return NAN
    weights = np.clip(max(share * n, 1.0) - np.arange(n), 0.0, 1.0)
    counted = weights > 0
    return float((ordered[counted] * weights[counted]).sum() / weights.sum())


def performance_profile(
    strata: list[np.ndarray], thresholds: np.ndarray, effective: list[np.ndarray | None]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The share of runs with a score above each threshold [T], with a pointwise 95 % band: share, low, high, [T] each.

    Every stratum (a cell) has Wilson's interval, of `effective` [T] runs where its runs are not independent; together
    they make the band, weighted by their runs (Zou & Donner 2008, as in `means`). NaN without a run.
    Source of the profile: Dolan & Moré (2002); Agarwal et al. (2021).
    """
    used = [(np.sort(scores), own) for scores, own in zip(strata, effective, strict=True) if len(scores)]
    if not used:
        return np.full(len(thresholds), NAN), np.full(len(thresholds), NAN), np.full(len(thresholds), NAN)
    total = sum(len(scores) for scores, _ in used)
    share, below, above = (np.zeros(len(thresholds)) for _ in range(3))
    for scores, own in used:
        weight = len(scores) / total
        p = 1 - np.searchsorted(scores, thresholds, side="right") / len(scores)
        low, high = wilson_bounds(p, np.full(len(p), float(len(scores))) if own is None else own)
        share += weight * p
        below += (weight * (p - low)) ** 2
        above += (weight * (high - p)) ** 2
    return share, share - np.sqrt(below), share + np.sqrt(above)
