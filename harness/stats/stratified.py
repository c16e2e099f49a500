"""Two rates compared within strata, so that what differs between strata does not count.

One method gives both the test and the interval: the stratified score test of Miettinen and Nurminen with Mantel and
Haenszel's weights. At a difference of 0 it is the Cochran-Mantel-Haenszel test, but never surer than an exact test
could be of so few runs (`least_exact_p`): of 2 runs against 20, one failure among the 2 is no difference, whatever χ²
says. An interval leaves 0 out where, and only where, that test rejects at 5 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from harness.stats.estimate import NAN, NORMAL_95, ROUNDING, TAIL, UNKNOWN, Estimate
from harness.stats.proportions import log_choose

Strata = Sequence[tuple[int, int, int, int]]  # (k1, n1, k2, n2): failed and all of arm 1, the same of arm 2

_SLACK = 1e-9
_HALVINGS = 42  # of a range of 2 at most, to less than rounding shows


@dataclass(frozen=True)
class Stratified:
    """Two arms compared within strata: common risk difference and odds ratio (2 minus or over 1), and one test.

    `strata` counts those used, with trials on both sides; `informative` those of them in which some but not all failed.
    """

    risk_difference: Estimate
    odds_ratio: Estimate
    p: float
    strata: int
    informative: int


def contrast(strata: Strata) -> Stratified:
    """Compare two arms within strata (k1, n1, k2, n2).

    A stratum with no trial on a side is left out; one where none or all failed stays in the risk difference, and tells
    the odds ratio and the test nothing. Without a stratum all is NaN.

    - Risk difference and p: `score_differences` and `score_p`.
    - Odds ratio: Mantel and Haenszel (1959), interval by Robins, Breslow and Greenland (1986). Where it is 0 or inf the
      other end is the exact conditional one, with 2.5 % beyond it. NaN without an informative stratum.
    """
    return contrasts([strata])[0]


def contrasts(many: Sequence[Strata]) -> list[Stratified]:
    """`contrast` of each; those with as many strata are worked out together."""
    used = [[stratum for stratum in strata if stratum[1] > 0 and stratum[3] > 0] for strata in many]
    results = [Stratified(UNKNOWN, UNKNOWN, NAN, 0, 0)] * len(used)
    for size in {len(strata) for strata in used} - {0}:
        alike = [index for index, strata in enumerate(used) if len(strata) == size]
        k1, n1, k2, n2 = np.moveaxis(np.array([used[index] for index in alike], dtype=float), -1, 0).copy()  # [B, S]
        ends, p = score_differences(k1, n1, k2, n2), score_p(k1, n1, k2, n2)
        informative = ((k1 + k2 > 0) & (k1 + k2 < n1 + n2)).sum(axis=-1)
        for row, index in enumerate(alike):
            results[index] = Stratified(
                risk_difference=Estimate(*(float(end[row]) for end in ends)),
                odds_ratio=_common_odds(k1[row], n1[row], k2[row], n2[row]),
                p=float(p[row]),
                strata=size,
                informative=int(informative[row]),
            )
    return results


def score_differences(
    k1: np.ndarray, n1: np.ndarray, k2: np.ndarray, n2: np.ndarray, z: float = NORMAL_95
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Risk differences (2 minus 1) over strata with Mantel and Haenszel's weights, and their score intervals [...].

    An interval holds the differences about the observed one that the score test does not reject: at each, the rates of
    a stratum are the most likely ones with that difference. It stays within [-1, 1], and its width is never 0. In
    simulations with few and unequal counts it covers 93 % or more (`results/bench/coverage.md`).
    Source: Miettinen and Nurminen (1985), Statistics in Medicine 4, 213–226, with the weights n1 n2 / (n1 + n2).

    Args:
        k1: Failed of arm 1, [..., S] over strata, as the other counts; `n1`: of how many, at least 1; so for arm 2.
        z: Of the interval, 1.96 for 95 %.
    """
    weight = n1 * n2 / (n1 + n2)
    value = (weight * (k2 / n2 - k1 / n1)).sum(axis=-1) / weight.sum(axis=-1)
    sign = np.array([-1.0, 1.0]).reshape(2, *[1] * value.ndim)
    level = float(2 * special.ndtr(-z))
    ends = _ends(np.broadcast_to(value, (2, *value.shape)), np.broadcast_to(sign, (2, *value.shape)), k1, n1, k2, n2, z)
    # With sparse strata the differences that are not rejected may have a gap, so that halving may end beyond it: 0 is
    # within where the test of no difference says so, and only there.
    zero = _holds(np.zeros_like(value), k1, n1, k2, n2, z) | (least_exact_p(k1, n1, k2, n2) >= level)
    beyond = sign * ends > 0
    lost, gained = zero & ~beyond & (ends != 0), ~zero & beyond & (sign * value < 0)
    if lost.any() or gained.any():
        inside, outside = np.where(lost, 0.0, value), np.where(gained, 0.0, sign)
        ends = np.where(lost | gained, _ends(inside, outside, k1, n1, k2, n2, z), ends)
    return value, ends[0], ends[1]


def _ends(
    inside: np.ndarray, outside: np.ndarray, k1: np.ndarray, n1: np.ndarray, k2: np.ndarray, n2: np.ndarray, z: float
) -> np.ndarray:
    """Where the score test begins to reject, between differences inside and outside [2, ...]."""
    inside = np.where(_holds(outside, k1, n1, k2, n2, z), outside, inside)
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        holds = _holds(middle, k1, n1, k2, n2, z)
        inside, outside = np.where(holds, middle, inside), np.where(holds, outside, middle)
    return inside


def score_p(k1: np.ndarray, n1: np.ndarray, k2: np.ndarray, n2: np.ndarray) -> np.ndarray:
    """The two-sided p of no difference in any stratum, from counts [..., S]; 1 where none or all failed everywhere.

    This is Cochran, Mantel and Haenszel's test without continuity correction; of one stratum the χ² test with N - 1
    for N (Campbell 2007, Statistics in Medicine 26, 3661–3675). It is at least `least_exact_p`, below which χ² of few
    runs has no ground.
    """
    distance, variance = _score(np.zeros(np.shape(k1)[:-1]), k1, n1, k2, n2)
    known = variance > ROUNDING
    approximate = np.where(known, special.chdtrc(1, distance**2 / np.where(known, variance, 1.0)), 1.0)
    return np.asarray(np.maximum(approximate, least_exact_p(k1, n1, k2, n2)))


def least_exact_p(k1: np.ndarray, n1: np.ndarray, k2: np.ndarray, n2: np.ndarray) -> np.ndarray:
    """The smallest p that the exact conditional test could give, were as many runs failed in each stratum; counts
    [..., S].

    Given all margins, the failures of arm 2 are a sum of hypergeometric numbers, whose distribution has one mode: its
    least likely value is the smallest or the largest possible one. Of one stratum it is the least p of Fisher's test.
    Source: Tarone (1990), Biometrics 46, 515–522, who leaves out tests that this shows to be unable to reject.
    """
    total, n = k1 + k2, n1 + n2
    ways = log_choose(n, total)

    def log_chance(second: np.ndarray) -> np.ndarray:
        first = np.clip(total - second, 0.0, n1)
        return np.asarray((log_choose(n1, first) + log_choose(n2, second) - ways).sum(axis=-1))

    fewest, most = log_chance(np.maximum(total - n1, 0.0)), log_chance(np.minimum(total, n2))
    both = np.abs(fewest - most) <= _SLACK * np.maximum(1.0, np.abs(most))
    least = np.exp(np.minimum(fewest, most)) * np.where(both, 2.0, 1.0)
    return np.asarray(
        np.minimum(1.0, least * (1 + _SLACK))
    )  # 1 in 20 is not below 5 %, whatever the logarithms' last bits say


def least_p(strata: Strata) -> float:
    """The smallest p that `contrast` could give for as many runs: all fail in one arm and none in the other.

    Where it is 0.05 or more, no outcome of so few runs would have shown a difference. NaN without a stratum.
    """
    sizes = np.array([(n1, n2) for _, n1, _, n2 in strata if n1 > 0 and n2 > 0], dtype=float)
    if not len(sizes):
        return NAN
    n1, n2 = sizes.T
    return float(score_p(np.zeros_like(n1), n1, n2, n2))


def _holds(
    difference: np.ndarray, k1: np.ndarray, n1: np.ndarray, k2: np.ndarray, n2: np.ndarray, z: float
) -> np.ndarray:
    """Whether the score test leaves a common difference [...] standing."""
    distance, variance = _score(difference, k1, n1, k2, n2)
    return np.asarray(distance**2 <= z**2 * variance + ROUNDING)


def _score(
    difference: np.ndarray, k1: np.ndarray, n1: np.ndarray, k2: np.ndarray, n2: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The weighted distance [...] of the observed differences from a common one, and its variance were that true."""
    common = difference[..., None]
    n = n1 + n2
    first = _likeliest(common, k1, n1, k2, n2)
    second = np.clip(first + common, 0.0, 1.0)
    weight = n1 * n2 / n
    variance = (first * (1 - first) / n1 + second * (1 - second) / n2) * n / (n - 1)
    distance = (weight * (k2 / n2 - k1 / n1 - common)).sum(axis=-1)
    return distance, (weight**2 * variance).sum(axis=-1)


def _likeliest(difference: np.ndarray, k1: np.ndarray, n1: np.ndarray, k2: np.ndarray, n2: np.ndarray) -> np.ndarray:
    """The most likely rates of arm 1 [..., S] where those of arm 2 are larger by `difference`.

    The root of the cubic of Miettinen and Nurminen (1985), appendix I, in its closed form.
    """
    n, failed = n1 + n2, k1 + k2
    square = ((2 * n1 + n2) * difference - n - failed) / (3 * n)  # coefficients over 3 n, 3 n and n
    linear = (failed + difference * (n1 * difference - n - 2 * k1)) / (3 * n)
    constant = k1 * difference * (1 - difference) / n
    half = square**3 - 1.5 * square * linear + constant / 2
    radius = np.sqrt(np.maximum(square**2 - linear, 0.0)) * np.where(half > 0, 1.0, -1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = np.where(radius == 0, 0.0, half / radius**3)
    angle = (np.pi + np.arccos(np.clip(cosine, -1.0, 1.0))) / 3
    root = 2 * radius * np.cos(angle) - square
    rates: np.ndarray = np.clip(root, np.maximum(0.0, -difference), np.minimum(1.0, 1 - difference))
    return rates


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
