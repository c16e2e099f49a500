"""The statistics of a study: rates, spread, level, best of n and seed budgets; arrays in, numbers or dataclasses out.

Every interval is a 95 % interval. What is not known (no score, one score, no variation) is NaN, never an error and
never a warning. Scores are finite. What is random takes its generator as the argument `rng`.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Literal

import numpy as np
from scipy import optimize, special, stats

Pooled = Literal["mean", "median", "iqm"]
Statistic = Literal["mean", "median", "iqm", "sd"]

NAN = float("nan")
TAIL = 0.025  # what a 95 % interval leaves out on each side
NORMAL_95 = float(special.ndtri(1 - TAIL))
ROUNDING = 1e-12  # numbers whose difference is this share of their size differ by rounding alone
CHUNK = 2**17  # resampled statistics at once: 1 MiB of them, which a core's cache holds
DRAWS = 2**22  # resampled scores at once: 32 MiB
MANY = 1000  # scores and more, of which the values may be so few that resampling counts them
EXACT = 10_000  # a permutation test with no more permutations than this goes through them all
PERMUTATIONS = 4_999
RESAMPLES = 2_000


@dataclass(frozen=True)
class Estimate:
    """A number with the two ends of its 95 % interval; NaN where not known."""

    value: float
    low: float
    high: float


UNKNOWN = Estimate(NAN, NAN, NAN)


def rng(what: str) -> np.random.Generator:
    """The same numbers for the same table, whatever else is computed: a report made twice is the same report."""
    return np.random.default_rng(zlib.crc32(what.encode()))


# ------------------------------------------------------------------------------------------------------------- rates


def _score_interval(p: float, n: float) -> tuple[float, float]:
    """Wilson's interval of a rate p seen in n; its ends are exact at p = 0 and p = 1."""
    z2 = NORMAL_95**2
    centre, half = p + z2 / (2 * n), NORMAL_95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    low, high = (centre - half) / (1 + z2 / n), (centre + half) / (1 + z2 / n)
    return (0.0 if p == 0 else low), (1.0 if p == 1 else high)


def wilson(k: int, n: int) -> tuple[float, float]:
    """Wilson's score interval for a rate of k in n, as fractions.

    NaN for n = 0; exactly 0 below k = 0 and exactly 1 above k = n. Source: Wilson (1927), as in Newcombe (1998),
    Statistics in Medicine 17, 857–872, method 3.
    """
    return _score_interval(k / n, n) if n > 0 else (NAN, NAN)


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
        log_ways = _log_choose(np.array(m2), support) + _log_choose(np.array(m1), total - support)
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


# ------------------------------------------------------------------------------------------- spread and level of cells


def iqm(scores: np.ndarray, axis: int = -1) -> np.ndarray:
    """The interquartile mean along an axis: the mean of what is left without the lowest and the highest quarter.

    floor(n / 4) scores go on either side, so for n not divisible by four a little more than half stays, and up to n = 3
    it is the mean. NaN for n = 0. A 0-d array for scores [N]. Source: scipy.stats.trim_mean(0.25), which is what
    rliable uses (Agarwal et al. 2021).
    """
    given = np.asarray(scores, dtype=float)
    if given.shape[axis] == 0:
        return np.full(np.delete(given.shape, axis), NAN)
    return np.asarray(stats.trim_mean(given, 0.25, axis=axis))


def iqr(scores: np.ndarray, axis: int = -1) -> np.ndarray:
    """The interquartile range along an axis, in the unit of the scores; linear between order statistics, as numpy's.

    NaN for fewer than two scores: one score has no spread. A 0-d array for scores [N].
    """
    given = np.asarray(scores, dtype=float)
    if given.shape[axis] < 2:
        return np.full(np.delete(given.shape, axis), NAN)
    low, high = np.quantile(given, [0.25, 0.75], axis=axis)
    return np.asarray(high - low)


def mad(scores: np.ndarray, axis: int = -1) -> np.ndarray:
    """The median absolute deviation from the median along an axis, unscaled, in the unit of the scores.

    NaN for fewer than two scores: one score has no spread. A 0-d array for scores [N]. Source: Hampel (1974).
    """
    given = np.asarray(scores, dtype=float)
    if given.shape[axis] < 2:
        return np.full(np.delete(given.shape, axis), NAN)
    return np.asarray(stats.median_abs_deviation(given, axis=axis))


def _plain(scores: np.ndarray, statistic: Statistic) -> np.ndarray:
    """A statistic of each row of scores [C, n], n > 0; the standard deviation is that of a sample (n - 1)."""
    if statistic == "mean":
        return np.asarray(scores.mean(axis=1))
    if statistic == "median":
        return np.asarray(np.median(scores, axis=1))
    if statistic == "iqm":
        return iqm(scores, axis=1)
    if scores.shape[1] < 2:
        return np.full(len(scores), NAN)
    return np.asarray(np.where(np.ptp(scores, axis=1) == 0, 0.0, scores.std(axis=1, ddof=1)))


def _cut(n: int, statistic: Statistic) -> int:
    """How many of n ordered scores a statistic leaves out at either end."""
    return {"median": (n - 1) // 2, "iqm": n // 4}.get(statistic, 0)


@dataclass(frozen=True)
class _Resampling:
    """Which order statistics a resample takes, and how often: `times` [n, R]; `size` scores count in its statistic."""

    times: np.ndarray
    size: int
    statistic: Statistic

    @classmethod
    def of(cls, ranks: np.ndarray, statistic: Statistic) -> _Resampling:
        """Of R resamples, each given by its ascending ranks [R, n] among n scores.

        A resample of the sorted scores is sorted where its ranks are, so that its median and its interquartile mean are
        means over some of its columns: all statistics here are linear in the scores, or in them and their squares.
        """
        rows, n = ranks.shape
        cut = _cut(n, statistic)
        kept = ranks[:, cut : n - cut]
        flat = (kept + n * np.arange(rows)[:, None]).ravel()
        times = np.bincount(flat, minlength=rows * n).reshape(rows, n).T.astype(float)
        return cls(np.ascontiguousarray(times), kept.shape[1], statistic)

    @classmethod
    def drawn(cls, n: int, resamples: int, statistic: Statistic, seed: Sequence[int]) -> Iterator[_Resampling]:
        """Of resamples drawn with replacement, in parts of at most DRAWS scores."""
        rng, step = np.random.default_rng(seed), max(1, DRAWS // n)
        for done in range(0, resamples, step):
            ranks = rng.integers(0, n, size=(min(step, resamples - done), n))
            yield cls.of(np.sort(ranks, axis=1), statistic)

    def __call__(self, ordered: np.ndarray) -> np.ndarray:
        """The statistics [C, R] of the resamples of scores [C, n], each row ascending."""
        if self.statistic != "sd":
            return self._mean(ordered)
        centred = ordered - ordered.mean(axis=1, keepdims=True)
        return _deviation(self._mean(centred), self._mean(centred**2), self.size)

    def _mean(self, ordered: np.ndarray) -> np.ndarray:
        # Term by term and not as a product of matrices, whose last bit depends on how many rows there are.
        total = np.zeros((len(ordered), self.times.shape[1]))
        for scores, times in zip(ordered.T, self.times, strict=True):
            total += scores[:, None] * times
        return total / self.size


def _deviation(mean: np.ndarray, square: np.ndarray, n: int) -> np.ndarray:
    """The standard deviations of samples of n from their means and mean squares."""
    variance = square - mean**2
    variance[variance <= ROUNDING * square] = 0.0  # the same score again and again
    return np.asarray(np.sqrt(variance * (n / (n - 1))))


def _jackknife(ordered: np.ndarray, statistic: Statistic) -> np.ndarray:
    """A statistic of scores [C, n], rows ascending, without each of them: [C, n]."""
    n = ordered.shape[1] - 1
    cut = _cut(n, statistic)
    left_out = np.clip(np.arange(n + 1), cut, n - cut)  # a score beyond the kept ones moves these by a place

    def mean(scores: np.ndarray) -> np.ndarray:
        kept = scores[:, cut : n + 1 - cut].sum(axis=1, keepdims=True)
        return np.asarray((kept - np.take(scores, left_out, axis=1)) / (n - 2 * cut))  # rows stay rows in memory

    if statistic != "sd":
        return mean(ordered)
    centred = ordered - ordered.mean(axis=1, keepdims=True)
    return _deviation(mean(centred), mean(centred**2), n)


def _acceleration(jackknives: Sequence[np.ndarray], size: np.ndarray) -> np.ndarray:
    """BCa's acceleration [C] from the leave-one-out statistics [C, n] of each sample; 0 where they do not vary.

    Source: Efron and Tibshirani (1993), 14.15; for several samples scipy.stats.bootstrap.
    """
    cubes, squares = np.zeros(len(size)), np.zeros(len(size))
    for values in jackknives:
        n = values.shape[1]
        pull = (n - 1) / n * (values.mean(axis=1, keepdims=True) - values)
        pull[np.abs(pull) <= ROUNDING * size[:, None]] = 0.0
        cubes += (pull**3).sum(axis=1)
        squares += (pull**2).sum(axis=1)
    known = squares > 0
    result = np.zeros(len(size))
    result[known] = cubes[known] / (6 * squares[known] ** 1.5)
    return result


def _bca(
    value: np.ndarray, resampled: np.ndarray, jackknives: Sequence[np.ndarray], size: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """BCa bounds [C] for values [C] with resampled statistics [C, R]; `size` [C] is the scale of rounding errors.

    The share of resamples below the value counts ties half and stays off 0 and 1. The bounds hold the value.
    """
    count = resampled.shape[1]
    gap = resampled - value[:, None]
    ties = np.abs(gap) <= ROUNDING * size[:, None]
    below = ((gap < 0) & ~ties).sum(axis=1) + ties.sum(axis=1) / 2
    shift = special.ndtri(np.clip(below, 0.5, count - 0.5) / count)
    acceleration = _acceleration(jackknives, size)
    ordered = np.sort(resampled, axis=1)
    bounds = []
    for z in (-NORMAL_95, NORMAL_95):
        level = special.ndtr(shift + (shift + z) / (1 - acceleration * (shift + z)))
        bounds.append(_quantile(ordered, level))
    return np.minimum(bounds[0], value), np.maximum(bounds[1], value)


def _quantile(ordered: np.ndarray, level: np.ndarray) -> np.ndarray:
    """The quantile of each row of ordered numbers [C, R] at its own level [C], linear between them."""
    place = np.clip(level, 0, 1) * (ordered.shape[1] - 1)
    left = np.floor(place).astype(int)
    right = np.minimum(left + 1, ordered.shape[1] - 1)
    rows = np.arange(len(ordered))
    low, high = ordered[rows, left], ordered[rows, right]
    share = place - left
    with np.errstate(invalid="ignore"):  # inf - inf, where the bound is inf
        return np.asarray(np.where((low == high) | (share == 0), low, low + share * (high - low)))


def bootstrap(
    scores: Sequence[np.ndarray], statistic: Statistic, rng: np.random.Generator, resamples: int = RESAMPLES
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A statistic of each cell's scores with its bootstrap interval: value, low, high, [C] each, in their unit.

    `sd` is that of a sample (n - 1), `iqm` as in `iqm`. The intervals are BCa, and hold the value. What a cell gets
    depends on its scores alone, not on their order and not on the other cells: cells of n scores share their resamples,
    drawn for n from one number taken from `rng`. The value is NaN for no score, an sd's for one; the bounds are NaN for
    fewer than two scores (an sd's: three) and where all scores are equal. Few scores make the intervals too short:
    of normal scores those of a mean cover 82 % at n = 5, 88 % at 10 and 92 % at 20, those of an sd 64, 82 and 89 %, and
    an sd's of skewed scores less. Time grows with cells × resamples × n, memory does not.

    Source: Efron (1987), as in scipy.stats.bootstrap, which goes cell by cell.
    """
    cells = [np.asarray(cell, dtype=float).ravel() for cell in scores]
    value, low, high = (np.full(len(cells), NAN) for _ in range(3))
    entropy = int(rng.integers(2**63))
    sizes = np.array([len(cell) for cell in cells], dtype=int)
    for n in np.unique(sizes[sizes > 0]).tolist():
        members = np.flatnonzero(sizes == n)
        ordered = np.sort(np.stack([cells[cell] for cell in members]), axis=1)  # [C, n]
        value[members] = _plain(ordered, statistic)
        if n < (3 if statistic == "sd" else 2):
            continue
        varied = ordered[:, 0] < ordered[:, -1]
        members, ordered = members[varied], ordered[varied]
        parts = list(_Resampling.drawn(n, resamples, statistic, (entropy, n))) if n * resamples <= DRAWS else None
        step = max(1, CHUNK // resamples)
        for start in range(0, len(members), step):
            here, some = members[start : start + step], ordered[start : start + step]
            size = np.abs(some).max(axis=1) if statistic != "sd" else np.ptp(some, axis=1)
            again = parts or _Resampling.drawn(n, resamples, statistic, (entropy, n))
            resampled = np.concatenate([part(some) for part in again], axis=1)
            low[here], high[here] = _bca(value[here], resampled, [_jackknife(some, statistic)], size)
    return value, low, high


def _stratified_draws(
    scores: np.ndarray, sizes: Sequence[int], rng: np.random.Generator, resamples: int
) -> Iterator[np.ndarray]:
    """Resample all scores [N] within their strata, which follow each other: chunks [R, N] of `resamples` in all."""
    bound = np.repeat(sizes, sizes)
    start = np.repeat(np.cumsum(sizes) - sizes, sizes)
    step = max(1, DRAWS // len(scores))
    for done in range(0, resamples, step):
        rows = min(step, resamples - done)
        yield scores[start + rng.integers(0, bound, size=(rows, len(scores)))]


def _few(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The ascending values [U] and each score's place among them [N], where so few that counting them pays; or None.

    Thousands of accuracies on a dev set of some hundred examples: resampling draws how often each value comes.
    """
    if len(scores) < MANY:
        return None
    values, places = np.unique(scores, return_inverse=True)
    return (values, places) if len(values) <= len(scores) / 8 and len(values) <= MANY else None


def _tallied(
    values: np.ndarray,
    places: np.ndarray,
    sizes: Sequence[int],
    statistic: Pooled,
    rng: np.random.Generator,
    resamples: int,
) -> np.ndarray:
    """The statistics [R] of stratified resamples of scores, given as `_few` does; of the law of `_stratified_draws`."""
    times = np.zeros((resamples, len(values)), dtype=np.int64)
    for part in np.split(places, np.cumsum(sizes)[:-1]):
        times += rng.multinomial(len(part), np.bincount(part, minlength=len(values)) / len(part), size=resamples)
    cut = _cut(len(places), statistic)
    reached = np.clip(times.cumsum(axis=1), cut, len(places) - cut)  # the statistics are means of ordered scores
    return np.asarray(np.diff(reached, axis=1, prepend=cut) @ values / (len(places) - 2 * cut))


def pooled(
    strata: Sequence[np.ndarray], statistic: Pooled, rng: np.random.Generator, resamples: int = RESAMPLES
) -> Estimate:
    """A statistic of the scores of all strata together, with a stratified bootstrap percentile interval.

    Every stratum (a cell, a task) is resampled within itself, so the interval says how far the seeds move the number,
    not how far other strata would. NaN without a score; NaN bounds where no stratum has two different scores. The
    interval holds the value. Source: Efron and Tibshirani (1993); Agarwal et al. (2021), as in rliable.
    """
    parts = [part for part in (np.asarray(stratum, dtype=float).ravel() for stratum in strata) if len(part) > 0]
    if not parts:
        return UNKNOWN
    scores = np.concatenate(parts)
    value = float(_plain(scores[None], statistic)[0])
    if all(np.ptp(part) == 0 for part in parts):
        return Estimate(value, NAN, NAN)
    sizes = [len(part) for part in parts]
    few = _few(scores)
    if few is not None:
        draws = [_tallied(*few, sizes, statistic, rng, resamples)]
    else:
        draws = [_plain(chunk, statistic) for chunk in _stratified_draws(scores, sizes, rng, resamples)]
    low, high = np.quantile(np.concatenate(draws), [TAIL, 1 - TAIL])
    return Estimate(value, min(value, float(low)), max(value, float(high)))


def performance_profile(
    strata: Sequence[np.ndarray], thresholds: np.ndarray, rng: np.random.Generator, resamples: int = RESAMPLES
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The share of runs with a score above each threshold [T], with a pointwise band: share, low, high, [T] each.

    The band is a stratified bootstrap's percentiles; it holds the share, and has no width where in no stratum some runs
    are above the threshold and some not. All is NaN without a score; the band is NaN where no stratum has two different
    scores. Source: Dolan and Moré (2002); Agarwal et al. (2021), as in rliable.
    """
    levels = np.asarray(thresholds, dtype=float)
    share, low, high = (np.full(levels.shape, NAN) for _ in range(3))
    parts = [part for part in (np.asarray(stratum, dtype=float).ravel() for stratum in strata) if len(part) > 0]
    if not parts or len(levels) == 0:
        return share, low, high
    order = np.argsort(levels, kind="stable")
    bins = len(levels) + 1
    passed = np.searchsorted(levels[order], np.concatenate(parts), side="left")  # [N] thresholds below each score

    def above(chunk: np.ndarray) -> np.ndarray:
        """The shares [R, T] above the ascending thresholds, of scores given by the thresholds [R, N] they passed."""
        rows, count = chunk.shape
        flat = (chunk + bins * np.arange(rows)[:, None]).ravel()
        counts = np.bincount(flat, minlength=rows * bins).reshape(rows, bins)
        return np.asarray(counts[:, :0:-1].cumsum(axis=1)[:, ::-1] / count)

    share[order] = above(passed[None])[0]
    if any(np.ptp(part) > 0 for part in parts):
        draws = [above(chunk) for chunk in _stratified_draws(passed, [len(part) for part in parts], rng, resamples)]
        low[order], high[order] = np.quantile(np.concatenate(draws), [TAIL, 1 - TAIL], axis=0)
        low, high = np.minimum(low, share), np.maximum(high, share)
    return share, low, high


# --------------------------------------------------------------------------------------------------- two cells compared


def _permutation_p(
    x: np.ndarray, y: np.ndarray, statistic: Callable[[np.ndarray, np.ndarray], np.ndarray], rng: np.random.Generator
) -> float:
    """How often permuted labels give a statistic as large as the observed: p in (0, 1], of scores [N1] and [N2].

    `statistic` gets the sums of two groups, of len(x) and len(y), and is large either way they differ. All permutations
    are gone through where there are at most EXACT; else PERMUTATIONS are drawn, and the observed one counts among them,
    which keeps the level (Phipson and Smyth 2010).
    """
    values, n1, n2 = np.concatenate([x, y]), len(x), len(y)
    picked = min(n1, n2)
    count = math.comb(n1 + n2, picked)
    if count <= EXACT:
        members = np.fromiter((i for pick in combinations(range(n1 + n2), picked) for i in pick), dtype=int)
        sums = values[members.reshape(count, picked)].sum(axis=1)
    else:
        few = _few(values)
        step = max(1, DRAWS // len(values))
        chunks = (min(step, PERMUTATIONS - done) for done in range(0, PERMUTATIONS, step))
        if few is not None:
            levels, places = few
            times = rng.multivariate_hypergeometric(np.bincount(places), picked, size=PERMUTATIONS)
            sums = np.asarray(times @ levels)
        else:
            sums = np.concatenate(
                [rng.permuted(np.tile(values, (rows, 1)), axis=1)[:, :picked].sum(axis=1) for rows in chunks]
            )
    first = sums if picked == n1 else values.sum() - sums
    observed = float(statistic(x.sum(keepdims=True), y.sum(keepdims=True))[0])
    found = statistic(first, values.sum() - first)
    hits = int((found >= observed * (1 - 1e-9) - ROUNDING * np.abs(values).max()).sum())
    return hits / count if count <= EXACT else (hits + 1) / (PERMUTATIONS + 1)


@dataclass(frozen=True)
class SpreadTest:
    """How much more y scatters than x: the ratio of their standard deviations, and three two-sided p-values."""

    ratio: Estimate
    levene: float
    brown_forsythe: float
    permutation: float


def compare_spread(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> SpreadTest:
    """Compare the spread of scores x [N1] with that of y [N2].

    - `ratio`: sd of y over sd of x, with a BCa interval of its logarithm (Efron 1987; 2,000 resamples of each). 0 where
      only y has none, inf where only x has none, NaN where neither has any or a side has one score; NaN bounds in all
      these cases, and below three scores on a side.
    - `levene`: Levene (1960), about the means: rejects far too often for skewed scores (15 % at a level of 5 %) and for
      two-humped ones, some runs failed (30 % and more). `brown_forsythe`: Brown and Forsythe (1974), about the medians,
      holds its level. NaN below two scores on a side, and where the distances do not vary within the groups (two scores
      each).
    - `permutation`: labels permuted on the distances from each group's median, times sqrt(n / (n - 1)), which undoes
      that a small group lies closer to its own centre (Keyes and Levy 1997); the statistic is the larger of the two
      mean distances over the smaller. Needs no normal scores and weighs an outlier less than variances do. Not exact,
      since the centres are estimated: simulated with normal, skewed, heavy-tailed and two-humped scores, the level is
      at most 7 % from ten scores a side on, less than 5 % for two small sides, and up to 10 % for 5 against 20. NaN
      below two scores on a side, and where all distances are 0.
    """
    x, y = np.asarray(x, dtype=float).ravel(), np.asarray(y, dtype=float).ravel()
    if min(len(x), len(y)) < 2:
        return SpreadTest(UNKNOWN, NAN, NAN, NAN)
    distances = [np.abs(scores - np.median(scores)) * math.sqrt(len(scores) / (len(scores) - 1)) for scores in (x, y)]
    floor = ROUNDING * (distances[0].sum() + distances[1].sum())

    def imbalance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        means = np.stack([first / len(x), second / len(y)])
        means[means <= floor] = 0.0
        with np.errstate(divide="ignore"):
            return np.asarray(means.max(axis=0) / means.min(axis=0))

    return SpreadTest(
        ratio=_spread_ratio(x, y, rng),
        levene=_levene(x, y, "mean"),
        brown_forsythe=_levene(x, y, "median"),
        permutation=_permutation_p(distances[0], distances[1], imbalance, rng) if floor > 0 else NAN,
    )


def _levene(x: np.ndarray, y: np.ndarray, center: Literal["mean", "median"]) -> float:
    centre = np.mean if center == "mean" else np.median
    distances = [np.abs(scores - centre(scores)) for scores in (x, y)]
    size = max(distance.max() for distance in distances)
    if max(np.ptp(distance) for distance in distances) <= 1e-9 * size:
        return NAN
    return float(stats.levene(x, y, center=center).pvalue)


def _spread_ratio(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> Estimate:
    entropy = int(rng.integers(2**63))
    (sd_x,), (sd_y,) = _plain(x[None], "sd").tolist(), _plain(y[None], "sd").tolist()
    if sd_x == 0 or sd_y == 0:
        return Estimate(NAN if sd_x == sd_y else 0.0 if sd_y == 0 else math.inf, NAN, NAN)
    if min(len(x), len(y)) < 3:
        return Estimate(sd_y / sd_x, NAN, NAN)
    logs, left_out = [], []
    with np.errstate(divide="ignore", invalid="ignore"):  # a resample can be of one score only
        for side, (scores, sd) in enumerate(((x, sd_x), (y, sd_y))):
            ordered, n = np.sort(scores)[None], len(scores)
            parts = [part(ordered) for part in _Resampling.drawn(n, RESAMPLES, "sd", (entropy, side))]
            logs.append(np.log(np.concatenate(parts, axis=1) / sd))
            left_out.append((2 * side - 1) * np.log(_jackknife(ordered, "sd") / sd))
        resampled = logs[1] - logs[0]
    resampled = resampled[:, ~np.isnan(resampled[0])]  # neither side varied
    if not all(np.isfinite(values).all() for values in left_out):
        left_out = []  # all of a side's spread is one score's: no acceleration can be told
    low, high = _bca(np.zeros(1), resampled, left_out, np.ones(1))
    ratio = sd_y / sd_x
    return Estimate(ratio, ratio * math.exp(low[0]), ratio * math.exp(high[0]))


@dataclass(frozen=True)
class LevelTest:
    """How much higher y scores than x: differences with intervals, and three two-sided p-values.

    `difference` is in the unit of the scores; `improvement` is P(y > x) + P(y = x) / 2; `effect` is Hedges' g.
    """

    difference: Estimate
    welch: float
    mann_whitney: float
    improvement: Estimate
    permutation: float
    effect: Estimate


def compare_level(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> LevelTest:
    """Compare the level of scores x [N1] with that of y [N2]; all is NaN where a side has no score.

    - `difference` and `welch`: mean y - mean x, Welch (1947). The interval and p are NaN below two scores on a side and
      where neither side varies.
    - `mann_whitney`: Mann and Whitney (1947) by scipy: exact for a small side without ties, else normal with ties
      corrected for.
    - `improvement`: interval by inverting the score test, Newcombe (2006), Statistics in Medicine 25, 559–573, method
      5: stays in [0, 1] and has a width at 0 and 1 as well. It takes no account of ties, which makes it wider.
    - `permutation`: of the absolute difference of the means (Fisher 1935); 1 where all scores are equal.
    - `effect`: Hedges (1981), exact correction; interval by the normal approximation of Hedges and Olkin (1985, p. 86).
      NaN where neither side varies, and below four scores in all.
    """
    x, y = np.asarray(x, dtype=float).ravel(), np.asarray(y, dtype=float).ravel()
    if min(len(x), len(y)) < 1:
        return LevelTest(UNKNOWN, NAN, NAN, UNKNOWN, NAN, UNKNOWN)
    n1, n2 = len(x), len(y)
    value = float(y.mean() - x.mean()) if np.ptp(np.concatenate([x, y])) > 0 else 0.0
    difference, welch = Estimate(value, NAN, NAN), NAN
    variance1, variance2 = (np.square(_plain(scores[None], "sd")[0]) for scores in (x, y))
    error, freedom = _welch(np.array([variance1]), np.array([variance2]), n1, n2)
    if error[0] > 0:
        half = float(special.stdtrit(freedom[0], 1 - TAIL) * error[0])
        difference = Estimate(value, value - half, value + half)
        welch = float(2 * special.stdtr(freedom[0], -abs(value) / error[0]))
    rank_test = stats.mannwhitneyu(y, x, method="auto" if n1 * n2 <= EXACT else "asymptotic")
    both = np.concatenate([x, y])
    return LevelTest(
        difference=difference,
        welch=welch,
        mann_whitney=float(rank_test.pvalue),
        improvement=_improvement(float(rank_test.statistic) / (n1 * n2), n1, n2),
        permutation=_permutation_p(
            x - both.mean(), y - both.mean(), lambda first, second: np.abs(first / n1 - second / n2), rng
        ),
        effect=_effect(value, float(variance1), float(variance2), n1, n2),
    )


def _welch(variance1: np.ndarray, variance2: np.ndarray, n1: int, n2: int) -> tuple[np.ndarray, np.ndarray]:
    """Standard errors and degrees of freedom [R] for two means (Welch 1947, Satterthwaite 1946); NaN freedom at 0."""
    share1, share2 = variance1 / n1, variance2 / n2
    with np.errstate(divide="ignore", invalid="ignore"):
        part = share1 / (share1 + share2)  # the freedom of the ratio, so that tiny variances do not underflow
        freedom = 1 / (part**2 / (n1 - 1) + (1 - part) ** 2 / (n2 - 1)) if min(n1, n2) > 1 else np.full(len(part), NAN)
    return np.sqrt(share1 + share2), freedom


def _improvement(value: float, n1: int, n2: int) -> Estimate:
    extra = (n1 + n2) / 2 - 1

    def excess(theta: float) -> float:
        spread = 1 + extra * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return float((value - theta) ** 2 - NORMAL_95**2 * theta * (1 - theta) * spread / (n1 * n2))

    near = 1e-9  # at 0 and 1 the estimate is itself a root
    low = optimize.brentq(excess, 0.0, value * (1 - near)) if value > 0 else 0.0
    high = optimize.brentq(excess, value + (1 - value) * near, 1.0) if value < 1 else 1.0
    return Estimate(value, float(low), float(high))


def _effect(difference: float, variance1: float, variance2: float, n1: int, n2: int) -> Estimate:
    freedom = n1 + n2 - 2
    if freedom < 2:
        return UNKNOWN
    squares = sum((n - 1) * variance for n, variance in ((n1, variance1), (n2, variance2)) if n > 1)
    if squares == 0:
        return UNKNOWN
    correction = math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom - 1) / 2)) / math.sqrt(freedom / 2)
    value = correction * difference / math.sqrt(squares / freedom)
    half = NORMAL_95 * math.sqrt((n1 + n2) / (n1 * n2) + value**2 / (2 * (n1 + n2)))
    return Estimate(value, value - half, value + half)


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
        ways = _log_choose(place - 1, n[:, None] - 1) - _log_choose(np.array(total), n[:, None])
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


def _log_choose(n: np.ndarray, k: np.ndarray) -> np.ndarray:
    """The logarithm of n over k; -inf for k > n."""
    rest = np.maximum(n - k, 0)
    result = special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(rest + 1)
    return np.where(k > n, -np.inf, result)


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
    low, high = _score_interval(p, n)
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
    error, freedom = _welch(variance[0], variance[1], n, n)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * special.stdtr(freedom, -distance / error)
    rejected = np.where(error > 0, p <= level, distance > ROUNDING)
    return float(rejected.mean())
