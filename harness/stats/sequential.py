"""Intervals that hold at every look: runs may be added until the answer is there, and the interval is still 95 %."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import optimize

from harness.stats.estimate import NAN, TAIL, UNKNOWN, Estimate

FIRST_LOOK = 12  # runs, from which on intervals are meant to be short; they hold before, too
STEP = 2.5  # a bet for each size of sample, this factor apart
MOST_STAKED = 0.95  # a bet never loses all, so that one surprising run does not end it
RUNS, PAIRS = 1.0, 0.4  # variance, as a share of the largest: a run fails or not; of a pair, the two often agree


@dataclass(frozen=True)
class SequentialContrast:
    """A difference of two failure rates whose interval and p hold at every look.

    `p` tests that the rates are the same; it is at most 0.05 where the interval leaves 0 out, and only there. With a
    probability of 95 %, it never falls that low at any look while they are the same.
    """

    difference: Estimate
    p: float


def rate_sequence(failed: int, n: int, horizon: int) -> Estimate:
    """The failure rate of n runs with an interval that holds however often one looked and whenever one stopped.

    Args:
        failed: how many of them failed.
        n: runs so far; NaN is the answer for none.
        horizon: the most runs there may be. It is chosen before the first look and shapes the interval, which is
            shortest for tens of runs up to there; it is valid for more, too.

    Bets on runs by Waudby-Smith and Ramdas (2024, Journal of the Royal Statistical Society B 86, 1–27): a rate is left
    out when betting against it has won forty times the stake, which has a chance of 1 in 40 on either side by Ville's
    inequality. The bets are fixed in advance and their winnings averaged, so that only the counts matter, not the order
    of the runs. A bet that a rate m is too low is the likelihood ratio of m + sqrt(2 log(40) m (1 - m) / s), which is
    the best against m for samples of size s (Wald 1945); there is one for each of some sizes up to the horizon.
    """
    if n <= 0:
        return UNKNOWN
    low, high = _interval((n - failed, failed), horizon, RUNS)
    return Estimate(failed / n, low, high)


@lru_cache(maxsize=65536)
def contrast_sequence(gained: int, lost: int, pairs: int, horizon: int) -> SequentialContrast:
    """The difference of two arms' failure rates, from pairs of runs, with an interval that holds at every look.

    Args:
        gained: pairs in which only the run of the second arm failed.
        lost: pairs in which only the run of the first failed.
        pairs: all pairs, of all strata; NaN is the answer for none. A pair is formed without looking at outcomes: of
            the same other settings and the same seed. What the two runs share (the seed) does no harm.
        horizon: the most pairs there may be, chosen before the first look.

    The difference is second minus first, averaged over the pairs; where it varies between strata, it is that mean, if
    looks come when all strata have the same number of pairs. Within a pair it is -1, 0 or 1, and betting on the mean of
    bounded numbers needs to know the rate of neither arm. Source: as for `rate_sequence`.
    """
    if pairs <= 0:
        return SequentialContrast(UNKNOWN, NAN)
    low, high = _interval((lost, pairs - gained - lost, gained), horizon, PAIRS)
    p = 2 * min(p_of_more(gained, lost, pairs, horizon), p_of_more(lost, gained, pairs, horizon))
    return SequentialContrast(Estimate((gained - lost) / pairs, 2 * low - 1, 2 * high - 1), min(1.0, p))


def contrast_of_looks(looks: Sequence[tuple[int, int, int]], horizon: int) -> SequentialContrast:
    """What all looks so far say together: the difference with the part that the intervals of all of them share.

    Args:
        looks: (gained, lost, pairs) up to each look, in an order that no outcome decides: after the first seed, after
            the second. A look without a pair is left out; NaN without any other.
        horizon: as for `contrast_sequence`.

    All intervals hold the difference together with a probability of 95 %, so what they share does too, and it is
    shorter: an early look may have ruled out what a later one has room for. The p is the smallest of any look. Where
    the looks contradict each other, so that the present difference lies outside, the last look stands alone.
    """
    known = [look for look in looks if look[2] > 0]
    if not known:
        return SequentialContrast(UNKNOWN, NAN)
    each = [contrast_sequence(*look, horizon) for look in dict.fromkeys(known)]
    last = contrast_sequence(*known[-1], horizon)
    low, high = max(one.difference.low for one in each), min(one.difference.high for one in each)
    if not low <= last.difference.value <= high:
        return last
    return SequentialContrast(Estimate(last.difference.value, low, high), min(one.p for one in each))


def p_of_more(gained: int, lost: int, pairs: int, horizon: int) -> float:
    """The one-sided p, valid at every look, that the second arm fails no more than the first; as `contrast_sequence`.

    1 for no pairs.
    """
    if pairs <= 0:
        return 1.0
    won = _log_wealth((lost, pairs - gained - lost, gained), 0.5, _shifts(horizon, PAIRS))
    return min(1.0, math.exp(-won))


@lru_cache(maxsize=65536)
def _interval(counts: tuple[int, ...], horizon: int, variance: float) -> tuple[float, float]:
    """The means of numbers in [0, 1] that no bet rules out; `counts` are of evenly spaced values from 0 to 1."""
    bets = _shifts(horizon, variance)
    return _lower(counts, bets), 1 - _lower(counts[::-1], bets)


def _lower(counts: tuple[int, ...], shifts: np.ndarray) -> float:
    """The lowest mean against which bets that it is too low have not won 1 / TAIL; winnings fall as it rises."""
    if not any(counts[1:]):
        return 0.0
    observed = np.arange(len(counts)) @ counts / (len(counts) - 1) / sum(counts)

    def excess(mean: float) -> float:
        return _log_wealth(counts, mean, shifts) + math.log(TAIL)

    return float(optimize.brentq(excess, 1e-12, min(observed, 1 - 1e-12), xtol=1e-10))


def _log_wealth(counts: tuple[int, ...], mean: float, shifts: np.ndarray) -> float:
    """The logarithm of what bets that the mean is above `mean` have made of a stake of 1, averaged over the bets.

    A bet multiplies what it has by 1 + staked · (value / mean - 1), whose expectation is 1 where `mean` is the mean.
    """
    values = np.arange(len(counts)) / (len(counts) - 1)
    staked = np.minimum(shifts * math.sqrt(mean / (1 - mean)), MOST_STAKED)
    won = np.log1p(staked[:, None] * (values / mean - 1)) @ counts
    return float(np.logaddexp.reduce(won)) - math.log(len(won))


@lru_cache(maxsize=64)
def _shifts(horizon: int, variance: float) -> np.ndarray:
    """By how many standard deviations the alternatives that are bet on lie off, one for each size of sample [J].

    `variance` is that of the numbers, as a share of the largest that numbers in [0, 1] of that mean can have.
    """
    first = min(FIRST_LOOK, horizon)
    sizes = variance * np.geomspace(first, horizon, 1 + math.ceil(math.log(horizon / first) / math.log(STEP)))
    return np.asarray(np.sqrt(-2 * math.log(TAIL) / sizes))
