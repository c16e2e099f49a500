"""How many seeds are needed, and what the best of n is worth."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special, stats

from harness.stats.bootstrap import DRAWS
from harness.stats.estimate import NAN, ROUNDING, TAIL
from harness.stats.proportions import log_choose, score_interval
from harness.stats.two_samples import welch_errors

# --------------------------------------------------------------------------------------------------------- best of n


@dataclass(frozen=True)
class BestOfN:
    """The expected best score of n runs, for `n` = 1, 2, 3, …: arrays of that length, in the unit of the scores.

    `expected` with `low` and `high` is the estimate with replacement; `unbiased` is the one without.
    """

    n: np.ndarray
    expected: np.ndarray
    low: np.ndarray
    high: np.ndarray
    unbiased: np.ndarray


def expected_best(
    scores: np.ndarray, higher_is_better: bool, rng: np.random.Generator, resamples: int = 1000, most: int = 200
) -> BestOfN:
    """The expected best of n scores, for n = 1 … N, of scores [N]: the highest, or the lowest where lower is better.

    `expected` takes n draws with replacement from the scores (Dodge et al. 2019, exact, not simulated), which is too
    modest for large n. Its interval is a bootstrap's percentiles and holds it; for n near N it cannot reach beyond the
    best score seen. `unbiased` takes n without replacement (Tang et al. 2020), and is the best score seen at n = N.
    Of more than `most` scores n stops there: nobody picks the best of more. Empty without a score; NaN bounds for one
    score and where all are equal. Time grows with resamples × N × n.
    """
    sign = 1.0 if higher_is_better else -1.0
    ordered = np.sort(sign * np.asarray(scores, dtype=float).ravel())  # [N]
    total = len(ordered)
    place, n = np.arange(1, total + 1), np.arange(1, min(total, most) + 1)  # place of a score, from the lowest
    low, high = np.full(len(n), NAN), np.full(len(n), NAN)
    if not total:
        return BestOfN(n, low, low, high, high)
    with np.errstate(divide="ignore"):  # the logarithm of 0 ways
        weights = (place / total) ** n[:, None] - ((place - 1) / total) ** n[:, None]  # [n, N]
        ways = log_choose(place - 1, n[:, None] - 1) - log_choose(np.array(total), n[:, None])
    expected, unbiased = weights @ ordered, np.exp(ways) @ ordered
    if ordered[0] < ordered[-1]:
        found = np.empty((resamples, len(n)))
        step = max(1, DRAWS // total)
        for start in range(0, resamples, step):
            size = min(step, resamples - start)
            drawn = ordered[np.sort(rng.integers(0, total, size=(size, total)), axis=1)]  # [R, N]
            found[start : start + size] = drawn @ weights.T
        low, high = np.quantile(found, [TAIL, 1 - TAIL], axis=0)
    low, high = np.minimum(low, expected), np.maximum(high, expected)
    if not higher_is_better:
        expected, low, high, unbiased = -expected, -high, -low, -unbiased
    return BestOfN(n, expected, low, high, unbiased)


# ------------------------------------------------------------------------------------------------------- seed budgets


def mean_half_width(sd: float, n: int) -> float:
    """Half the width of Student's interval for a mean of n scores with this standard deviation, in its unit.

    NaN for n < 2 and for a NaN sd. Source: Student (1908).
    """
    return float(special.stdtrit(n - 1, 1 - TAIL)) * sd / math.sqrt(n) if n >= 2 else NAN


def rate_half_width(p: float, n: int) -> float:
    """Half the width of Wilson's interval for a rate p seen in n trials; p · n need not be whole.

    NaN for n < 1 and for a NaN p. Source: Wilson (1927).
    """
    if n < 1 or math.isnan(p):
        return NAN
    low, high = score_interval(p, n)
    return (high - low) / 2


@lru_cache(maxsize=2048)
def _fisher_edge(n: int, level: float) -> np.ndarray:
    """For a failures of n in one cell, how many b = 0, 1, … below a in another of n make Fisher's test reject: [n + 1].

    With two cells of one size the hypergeometric distribution is symmetric, so that the two-sided p is twice the tail.
    A test that rejects at (a, b), b < a, rejects at (a + 1, b) too (Barnard 1947), so the corner points decide.
    """
    failed = np.arange(n + 1)[:, None]  # in both cells; the other half of the sums mirrors this one
    spread = 10 * math.sqrt(n / 8) + 2  # ten standard deviations at most: what lies beyond is below rounding
    low = np.maximum(0, np.floor(failed / 2 - spread)).astype(int)
    b = low + np.arange(math.ceil(spread) + 2)  # [n + 1, W]
    table = special.gammaln(np.arange(2 * n + 1) + 1)  # log factorials
    fits = 2 * b < failed
    inside = np.where(fits, b, 0)
    log_p = 2 * table[n] - table[2 * n] + table[failed] + table[2 * n - failed]
    log_p = log_p - table[inside] - table[n - inside] - table[failed - inside] - table[n - failed + inside]
    tail = np.cumsum(np.where(fits, np.exp(log_p), 0.0), axis=1)
    rejects = fits & (2 * tail <= level)
    some = rejects.any(axis=1)
    corner = (low[:, 0] + rejects.sum(axis=1) - 1)[some]  # the largest b that rejects
    total = failed[some, 0]
    edge = np.zeros(n + 1, dtype=int)
    np.maximum.at(edge, total - corner, corner + 1)
    np.maximum.at(edge, n - corner, n - total + corner + 1)
    edge = np.maximum.accumulate(edge)
    edge.setflags(write=False)
    return edge


def _fisher_power(p1: float, p2: float, n: int, level: float) -> float:
    """The chance that Fisher's exact test rejects, for n trials with each of two failure rates."""
    edge, failed = _fisher_edge(n, level), np.arange(n + 1)
    below = stats.binom.cdf(edge - 1, n, p2)
    above = stats.binom.sf(n - edge[::-1], n, p2)
    return float(stats.binom.pmf(failed, n, p1) @ (below + above))


def _first(enough: Callable[[int], bool], low: int, high: int) -> int:
    """Halve to an n in (low, high] that is enough while n - 1 is not; `low` is not enough, `high` is."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def seeds_for_failure(
    k1: int, n1: int, k2: int, n2: int, power: float = 0.8, level: float = 0.05, limit: int = 1000
) -> int | None:
    """How many seeds a cell needs for Fisher's exact test to tell these two failure rates apart with this power.

    The rates are taken as seen, k1/n1 and k2/n2; the power is exact, summed over all outcomes. It goes up with n like a
    saw: what comes back is the smallest n from which on it stays up, the next tenth of n (at least ten) having been
    looked at; one seed less is not enough. None where the rates are equal or not known, and beyond `limit`.

    Source: Fisher (1935); exact power as in Casagrande, Pike and Smith (1978).
    """
    if n1 <= 0 or n2 <= 0 or k1 * n2 == k2 * n1:
        return None
    p1, p2 = k1 / n1, k2 / n2

    def enough(n: int) -> bool:
        return _fisher_power(p1, p2, n, level) >= power

    if limit < 1 or not enough(limit):
        return None
    high = 2
    while high < limit and not enough(high):
        high *= 2
    found = _first(enough, high // 2 if high > 2 else 0, min(high, limit))
    ahead = found + 1
    while ahead <= min(limit, found + max(10, found // 10)):
        if not enough(ahead):
            found = ahead + 1
        ahead += 1
    return found


def seeds_for_mean(
    x: np.ndarray,
    y: np.ndarray,
    rng: np.random.Generator,
    power: float = 0.8,
    level: float = 0.05,
    limit: int = 1000,
    simulations: int = 2000,
) -> int | None:
    """How many seeds a cell needs for Welch's test to tell the means of scores x [N1] and y [N2] apart with this power.

    Simulated: runs are drawn from the scores seen, with replacement, one more a cell at a time, and the n found by
    halving is the first at which the share of rejections reaches `power`, to the noise of the simulation (0.9 % at a
    power of 0.8 and 2,000 simulations). Draws in which neither side varies reject where the means differ. Few scores
    show too little spread, so that n is rather too small. None where a side has fewer than two scores or the means are
    equal, and beyond `limit`. Source: Efron and Tibshirani (1993, ch. 25); the test is Welch's (1947).
    """
    x, y = np.asarray(x, dtype=float).ravel(), np.asarray(y, dtype=float).ravel()
    if min(len(x), len(y)) < 2:
        return None
    middle = (x.mean() + y.mean()) / 2
    size = max(np.abs(x - middle).max(), np.abs(y - middle).max())
    if abs(y.mean() - x.mean()) <= ROUNDING * max(np.abs(x).max(), np.abs(y).max()):
        return None
    means = [float((scores.mean() - middle) / size) for scores in (x, y)]
    scores = [(side - middle) / size - mean for side, mean in zip((x, y), means, strict=True)]
    sums = np.zeros((2, 2, simulations))  # of the two sides, of the draws and their squares
    low, high = 0, 2
    while low < limit:
        high = min(high, limit)
        drawn = np.stack([side[rng.integers(0, len(side), size=(high - low, simulations))] for side in scores])
        running = sums[:, :, None] + np.stack([drawn, drawn**2], axis=1).cumsum(axis=2)  # [2, 2, n, simulations]

        def enough(n: int, running: np.ndarray = running, before: int = low) -> bool:
            return n >= 2 and _welch_rejects(running[:, :, n - before - 1], means, n, level) >= power

        if enough(high):
            return _first(enough, low, high)
        sums, low, high = running[:, :, -1], high, 2 * high
    return None


def _welch_rejects(sums: np.ndarray, means: Sequence[float], n: int, level: float) -> float:
    """The share of simulations in which Welch's test of n against n rejects; `sums` [2, 2, R] of scores and squares."""
    shift, square = sums[:, 0] / n, sums[:, 1] / n
    variance = square - shift**2
    variance[variance <= ROUNDING] = 0.0
    variance *= n / (n - 1)
    distance = np.abs(shift[1] - shift[0] + means[1] - means[0])
    error, freedom = welch_errors(variance[0], variance[1], n, n)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * special.stdtr(freedom, -distance / error)
    rejected = np.where(error > 0, p <= level, distance > ROUNDING)
    return float(rejected.mean())
