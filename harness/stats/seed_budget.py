"""How many seeds are needed, and what the best of n is worth."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special

from harness.stats.estimate import NAN, NORMAL_95, ROUNDING, TAIL
from harness.stats.proportions import log_choose

# --------------------------------------------------------------------------------------------------------- best of n


def expected_best(scores: np.ndarray, higher_is_better: bool, most: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """The expected best of n scores, for n = 1 … N, of scores [N]: the highest, or the lowest where lower is better.

    Two estimates, in the unit of the scores. The first takes n of the scores without replacement (Tang et al. 2020): it
    is unbiased, and the best score seen at n = N. The second takes n draws with replacement (Dodge et al. 2019), which
    is too modest for large n. Neither has an interval: a bootstrap's holds the truth in half of all cases at n = N, for
    it cannot reach beyond the best score seen. Of more than `most` scores n stops there: nobody picks the best of more.
    """
    sign = 1.0 if higher_is_better else -1.0
    ordered = np.sort(sign * np.asarray(scores, dtype=float).ravel())  # [N]
    total = len(ordered)
    place, n = np.arange(1, total + 1), np.arange(1, min(total, most) + 1)  # place of a score, from the lowest
    if not total:
        return np.empty(0), np.empty(0)
    with np.errstate(divide="ignore"):  # the logarithm of 0 ways
        weights = (place / total) ** n[:, None] - ((place - 1) / total) ** n[:, None]  # [n, N]
        ways = log_choose(place - 1, n[:, None] - 1) - log_choose(np.array(total), n[:, None])
    return sign * (np.exp(ways) @ ordered), sign * (weights @ ordered)


# ------------------------------------------------------------------------------------------------------- seed budgets


POWER, LEVEL, LIMIT = 0.8, 0.05, 1000  # of the tests that seeds are counted for; the most seeds that are looked at
OPTIMISTIC, PESSIMISTIC = 0.1, 0.9  # shares of what a pilot leaves possible, between which a range is told
RATES = (np.arange(16) + 0.5) / 16  # quantiles that stand for a rate's distribution
POSSIBLE = 1000  # pairs of cells drawn for means

Range = tuple[np.ndarray, np.ndarray, np.ndarray]  # a value, and its optimistic and pessimistic ends


@dataclass(frozen=True)
class SeedsNeeded:
    """How many seeds a cell a test needs for a power of 80 %, as far as a pilot can tell; None is more than `LIMIT`.

    `low` and `high` are the 10th and 90th percentile over the differences that the pilot leaves possible; `assured` is
    where the power, averaged over them, reaches 80 %. A difference that points the other way than the pilot's, or is
    none, needs endlessly many. Without `high` the pilot cannot tell.
    """

    low: int | None
    assured: int | None
    high: int | None


UNTOLD = SeedsNeeded(None, None, None)


def mean_half_width(sd: np.ndarray, scored: np.ndarray, n: np.ndarray) -> Range:
    """Half the width of Student's interval for a mean of n scores: at this standard deviation, and at possible ones.

    Args:
        sd: the standard deviation seen, in the unit of the scores.
        scored: the number of scores that it was seen in; the possible ones are what its chi-squared distribution
            leaves, of normal scores.
        n: the number of scores that the width is asked for. All three are broadcast.

    NaN for n < 2, for scored < 2 and for a NaN sd. Source: Student (1908).
    """
    sd, scored, n = np.broadcast_arrays(np.asarray(sd, dtype=float), np.asarray(scored), np.asarray(n))
    known = (n >= 2) & (scored >= 2)
    freedom = np.where(known, scored - 1, 1)
    one = np.where(known, special.stdtrit(np.where(known, n - 1, 1), 1 - TAIL) / np.sqrt(np.maximum(n, 1)) * sd, NAN)
    low, high = (one * np.sqrt(freedom / special.chdtri(freedom, share)) for share in (OPTIMISTIC, PESSIMISTIC))
    return one, low, high


def rate_half_width(failed: np.ndarray, judged: np.ndarray, n: np.ndarray) -> Range:
    """Half the width of Wilson's interval for a rate of n runs: at the rate seen in a pilot, and at possible ones.

    Args:
        failed: failed runs of the pilot.
        judged: all of its runs.
        n: runs that the width is asked for; the share of them that fails need not be whole. All three are broadcast.

    The possible rates have Jeffreys' posterior. NaN for n < 1 and for judged < 1. Source: Wilson (1927).
    """
    counts = np.stack(np.broadcast_arrays(failed, judged, n), axis=-1).astype(float)
    # Of ten thousand cells most have the counts of another.
    distinct, back = np.unique(counts.reshape(-1, 3), axis=0, return_inverse=True)
    failed, judged, n = distinct.T
    known = (n >= 1) & (judged >= 1)
    size = np.where(known, n, 1)

    def half(rate: np.ndarray) -> np.ndarray:
        root = np.sqrt(rate * (1 - rate) / size + NORMAL_95**2 / (4 * size**2))
        return np.where(known, NORMAL_95 * root / (1 + NORMAL_95**2 / size), NAN)

    possible = _possible_rates(failed[..., None], judged[..., None])  # [..., 16]
    widths = half(np.moveaxis(possible, -1, 0))
    low, high = np.quantile(widths, [OPTIMISTIC, PESSIMISTIC], axis=0)
    seen = half(np.where(judged > 0, failed / np.maximum(judged, 1), 0.0))
    seen, low, high = (
        width[back].reshape(counts.shape[:-1]) for width in (seen, np.minimum(low, seen), np.maximum(high, seen))
    )
    return seen, low, high


def _possible_rates(failed: np.ndarray, judged: np.ndarray) -> np.ndarray:
    """Quantiles of Jeffreys' posterior of a rate; counts are broadcast against `RATES`."""
    return np.asarray(special.betaincinv(failed + 0.5, judged - failed + 0.5, RATES))


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


def fisher_power(p1: np.ndarray, p2: np.ndarray, n: int, level: float) -> np.ndarray:
    """The chance that Fisher's test of n against n runs finds fewer failures in 2, for rates p1 [R1] and p2 [R2]."""
    failed = np.arange(n + 1)
    ways = log_choose(np.array(n), failed)
    first, second = (
        np.exp(ways + special.xlogy(failed, p[:, None]) + special.xlog1py(n - failed, -p[:, None])) for p in (p1, p2)
    )
    below = np.concatenate([np.zeros((len(p2), 1)), second.cumsum(axis=1)], axis=1)  # fewer than 0 … n + 1 failed
    return np.asarray(first @ below[:, _fisher_edge(n, level)].T)  # [R1, R2]


def _first(enough: Callable[[int], bool], low: int, high: int) -> int:
    """Halve to an n in (low, high] that is enough while n - 1 is not; `low` is not enough, `high` is."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _smallest(enough: Callable[[int], bool], limit: int) -> int | None:
    """An n up to `limit` that is enough, while n - 1 is not; None where `limit` is not."""
    if limit < 1 or not enough(limit):
        return None
    high = 2
    while high < limit and not enough(high):
        high *= 2
    return _first(enough, high // 2 if high > 2 else 0, min(high, limit))


def seeds_for_failure(
    k1: float, n1: float, k2: float, n2: float, power: float = POWER, level: float = LEVEL, limit: int = LIMIT
) -> int | None:
    """How many seeds a cell needs for Fisher's exact test to tell the rates k1/n1 and k2/n2 apart with this power.

    They are taken as true; the power is exact, summed over all outcomes. It goes up with n like a saw: what comes back
    is the smallest n from which on it stays up, the next tenth of n (at least ten) having been looked at; one seed less
    is not enough. None where the rates are equal or not known, and beyond `limit`.

    Source: Fisher (1935); exact power as in Casagrande, Pike and Smith (1978).
    """
    if n1 <= 0 or n2 <= 0 or k1 * n2 == k2 * n1:
        return None
    p1, p2 = np.array([k1 / n1]), np.array([k2 / n2])

    def enough(n: int) -> bool:
        return float(fisher_power(p1, p2, n, level)[0, 0] + fisher_power(p2, p1, n, level)[0, 0]) >= power

    found = _smallest(enough, limit)
    if found is None:
        return None
    ahead = found + 1
    while ahead <= min(limit, found + max(10, found // 10)):
        if not enough(ahead):
            found = ahead + 1
        ahead += 1
    return found


@lru_cache(maxsize=4096)
def seeds_to_halve(failed: int, judged: int) -> tuple[int | None, int | None]:
    """How many seeds a cell tell a failure rate from half of it: at the 90 and 10 % quantile of Jeffreys' posterior.

    The first is the fewer, for the higher a rate, the larger its half; None beyond `LIMIT`. As `seeds_for_failure`.
    """
    rates = special.betaincinv(failed + 0.5, judged - failed + 0.5, np.array([PESSIMISTIC, OPTIMISTIC]))
    few, many = (seeds_for_failure(rate, 1, rate / 2, 1) for rate in rates.tolist())
    return few, many


@lru_cache(maxsize=4096)
def needed_for_failure(k1: float, n1: int, k2: float, n2: int) -> SeedsNeeded:
    """How many seeds a cell needs to tell two failure rates apart, from a pilot with k1 of n1 and k2 of n2 failed.

    The rates may be all that Jeffreys' posterior leaves possible; what counts is that Fisher's exact test finds the
    difference in the direction seen. All None where none was seen. Power averaged over a posterior is called assurance:
    O'Hagan, Stevens and Campbell (2005), Pharmaceutical Statistics 4, 187–201.
    """
    if n1 <= 0 or n2 <= 0 or math.isclose(k1 * n2, k2 * n1):
        return UNTOLD
    if k1 * n2 < k2 * n1:
        return needed_for_failure(k2, n2, k1, n1)
    p1, p2 = (_possible_rates(np.array(k), np.array(n)) for k, n in ((k1, n1), (k2, n2)))
    powers: dict[int, np.ndarray] = {}

    def power(n: int) -> np.ndarray:
        if n not in powers:
            powers[n] = fisher_power(p1, p2, n, LEVEL)
        return powers[n]

    def share(n: int) -> float:
        return float((power(n) >= POWER).mean())

    return SeedsNeeded(
        _smallest(lambda n: share(n) >= OPTIMISTIC, LIMIT),
        _smallest(lambda n: float(power(n).mean()) >= POWER, LIMIT),
        _smallest(lambda n: share(n) >= PESSIMISTIC, LIMIT),
    )


def needed_for_mean(
    x: np.ndarray, y: np.ndarray, rng: np.random.Generator, worth: tuple[int, int] | None = None
) -> SeedsNeeded:
    """How many seeds a cell needs to tell two mean scores apart, from a pilot with the scores x [N1] and y [N2].

    Means and standard deviations are drawn from what normal scores leave possible (Jeffreys' prior), as surely as so
    many independent scores tell them as x and y are `worth` (where seeds are crossed, fewer than they are); what counts
    is that Welch's test finds the difference in the direction seen. All None where a side has fewer than two scores,
    none of them varies or the means are equal. The power is a normal one with the correction of Schouten (1999),
    Statistics in Medicine 18, 87–91; assurance as in `needed_for_failure`.
    """
    x, y = np.asarray(x, dtype=float).ravel(), np.asarray(y, dtype=float).ravel()
    sizes = worth or (len(x), len(y))
    if min(len(x), len(y), *sizes) < 2 or max(np.ptp(x), np.ptp(y)) <= ROUNDING * np.abs([*x, *y]).max():
        return UNTOLD
    difference, variances = y.mean() - x.mean(), []
    if abs(difference) <= ROUNDING * np.abs([*x, *y]).max():
        return UNTOLD
    possible = np.full(POSSIBLE, abs(difference))
    for side, size in zip((x, y), sizes, strict=True):
        variance = side.var(ddof=1) * (size - 1) / rng.chisquare(size - 1, POSSIBLE)
        possible += np.sqrt(variance / size) * rng.standard_normal(POSSIBLE)
        variances.append(variance)
    first, second = variances
    both = first + second
    corrections = NORMAL_95**2 * (first**2 + second**2) / (2 * both**2)
    distance = NORMAL_95 + float(special.ndtri(POWER))
    with np.errstate(divide="ignore"):
        seeds = np.where(possible > 0, distance**2 * both / possible**2 + corrections, np.inf)

    def power(n: int) -> float:
        errors = np.sqrt(both / np.maximum(n - corrections, ROUNDING))
        return float(special.ndtr(possible / errors - NORMAL_95).mean())

    low, high = (float(np.quantile(seeds, share, method="higher")) for share in (OPTIMISTIC, PESSIMISTIC))
    return SeedsNeeded(
        max(2, math.ceil(low)) if low <= LIMIT else None,
        _smallest(lambda n: n >= 2 and power(n) >= POWER, LIMIT),
        max(2, math.ceil(high)) if high <= LIMIT else None,
    )
