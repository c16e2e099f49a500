"""Robust summaries and their bootstrap intervals; arrays in, numbers out."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special, stats

from harness.stats.estimate import NAN, NORMAL_95, ROUNDING, TAIL, UNKNOWN, Estimate

Statistic = Literal["mean", "median", "iqm"]


FEWEST = 8  # scores, from which on the interval of an interquartile mean covers 90 % and more


CHUNK = 2**17  # resampled statistics at once: 1 MiB of them, which a core's cache holds


DRAWS = 2**22  # resampled scores at once: 32 MiB


MANY = 1000  # scores and more, of which the values may be so few that resampling counts them


RESAMPLES = 2_000


def rng(what: str) -> np.random.Generator:
    """The same numbers for the same table, whatever else is computed: a report made twice is the same report."""
    return np.random.default_rng(zlib.crc32(what.encode()))


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


def plain(scores: np.ndarray, statistic: Statistic) -> np.ndarray:
    """A statistic of each row of scores [C, n], n > 0."""
    if statistic == "mean":
        return np.asarray(scores.mean(axis=1))
    if statistic == "median":
        return np.asarray(np.median(scores, axis=1))
    return iqm(scores, axis=1)


def _cut(n: int, statistic: Statistic) -> int:
    """How many of n ordered scores a statistic leaves out at either end."""
    return {"median": (n - 1) // 2, "iqm": n // 4}.get(statistic, 0)


@dataclass(frozen=True)
class Resampling:
    """Which order statistics a resample takes, and how often: `times` [n, R]; `size` scores count in its statistic."""

    times: np.ndarray
    size: int

    @classmethod
    def of(cls, ranks: np.ndarray, statistic: Statistic) -> Resampling:
        """Of R resamples, each given by its ascending ranks [R, n] among n scores.

        A resample of the sorted scores is sorted where its ranks are, so that its median and its interquartile mean are
        means over some of its columns.
        """
        rows, n = ranks.shape
        cut = _cut(n, statistic)
        kept = ranks[:, cut : n - cut]
        flat = (kept + n * np.arange(rows)[:, None]).ravel()
        times = np.bincount(flat, minlength=rows * n).reshape(rows, n).T.astype(float)
        return cls(np.ascontiguousarray(times), kept.shape[1])

    @classmethod
    def drawn(cls, n: int, resamples: int, statistic: Statistic, seed: Sequence[int]) -> Iterator[Resampling]:
        """Of resamples drawn with replacement, in parts of at most DRAWS scores."""
        rng, step = np.random.default_rng(seed), max(1, DRAWS // n)
        for done in range(0, resamples, step):
            ranks = rng.integers(0, n, size=(min(step, resamples - done), n))
            yield cls.of(np.sort(ranks, axis=1), statistic)

    def __call__(self, ordered: np.ndarray) -> np.ndarray:
        """The statistics [C, R] of the resamples of scores [C, n], each row ascending."""
        # Term by term and not as a product of matrices, whose last bit depends on how many rows there are.
        total = np.zeros((len(ordered), self.times.shape[1]))
        for scores, times in zip(ordered.T, self.times, strict=True):
            total += scores[:, None] * times
        return total / self.size


def jackknife(ordered: np.ndarray, statistic: Statistic) -> np.ndarray:
    """A statistic of scores [C, n], rows ascending, without each of them: [C, n]."""
    n = ordered.shape[1] - 1
    cut = _cut(n, statistic)
    left_out = np.clip(np.arange(n + 1), cut, n - cut)  # a score beyond the kept ones moves these by a place

    kept = ordered[:, cut : n + 1 - cut].sum(axis=1, keepdims=True)
    return np.asarray((kept - np.take(ordered, left_out, axis=1)) / (n - 2 * cut))  # rows stay rows in memory


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


def bca(
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

    `iqm` as in `iqm`. The intervals are BCa, and hold the value. What a cell gets depends on its scores alone, not on
    their order and not on the other cells: cells of n scores share their resamples, drawn for n from one number taken
    from `rng`. The value is NaN for no score; the bounds are NaN for fewer than two and where all scores are equal. The
    report asks for interquartile means from `FEWEST` scores on, where they hold the truth in 92 % and more, failing
    runs or not; for means and medians, which BCa covers less well, see `means` and `ranks`. Time grows with
    cells × resamples × n, memory does not.

    Source: Efron (1987), as in scipy.stats.bootstrap, which goes cell by cell.
    """
    cells = [np.asarray(cell, dtype=float).ravel() for cell in scores]
    value, low, high = (np.full(len(cells), NAN) for _ in range(3))
    entropy = int(rng.integers(2**63))
    sizes = np.array([len(cell) for cell in cells], dtype=int)
    for n in np.unique(sizes[sizes > 0]).tolist():
        members = np.flatnonzero(sizes == n)
        ordered = np.sort(np.stack([cells[cell] for cell in members]), axis=1)  # [C, n]
        value[members] = plain(ordered, statistic)
        if n < 2:
            continue
        varied = ordered[:, 0] < ordered[:, -1]
        members, ordered = members[varied], ordered[varied]
        parts = list(Resampling.drawn(n, resamples, statistic, (entropy, n))) if n * resamples <= DRAWS else None
        step = max(1, CHUNK // resamples)
        for start in range(0, len(members), step):
            here, some = members[start : start + step], ordered[start : start + step]
            size = np.abs(some).max(axis=1)
            again = parts or Resampling.drawn(n, resamples, statistic, (entropy, n))
            resampled = np.concatenate([part(some) for part in again], axis=1)
            low[here], high[here] = bca(value[here], resampled, [jackknife(some, statistic)], size)
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


def repeated_values(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
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
    statistic: Statistic,
    rng: np.random.Generator,
    resamples: int,
) -> np.ndarray:
    """The statistics [R] of stratified resamples of scores, given as `_few` does; of the law of `_stratified_draws`."""
    times = np.zeros((resamples, len(values)), dtype=np.int64)
    for part in np.split(places, np.cumsum(sizes)[:-1]):
        step = max(1, DRAWS // len(part))
        for start in range(0, resamples, step):
            some = times[start : start + step]
            drawn = part[rng.integers(0, len(part), size=(len(some), len(part)))]
            drawn += len(values) * np.arange(len(some))[:, None]
            some += np.bincount(drawn.ravel(), minlength=some.size).reshape(some.shape)
    cut = _cut(len(places), statistic)
    reached = np.clip(times.cumsum(axis=1), cut, len(places) - cut)  # the statistics are means of ordered scores
    return np.asarray(np.diff(reached, axis=1, prepend=cut) @ values / (len(places) - 2 * cut))


def pooled(
    strata: Sequence[np.ndarray], statistic: Statistic, rng: np.random.Generator, resamples: int = RESAMPLES
) -> Estimate:
    """A statistic of the scores of all strata together, with a stratified bootstrap percentile interval.

    Every stratum (a cell, a task) is resampled within itself, so the interval says how far the seeds move the number,
    not how far other strata would. NaN without a score; NaN bounds where no stratum has two different scores. The
    interval holds the value, and is widened by sqrt(N / (N - strata)) about it, for a resample varies by that much less
    than a sample (Hesterberg 2015, The American Statistician 69, 371-386, section 4.2), but no further than the scores
    reach. Source: Efron and Tibshirani (1993); Agarwal et al. (2021), as in rliable.
    """
    parts = [part for part in (np.asarray(stratum, dtype=float).ravel() for stratum in strata) if len(part) > 0]
    if not parts:
        return UNKNOWN
    scores = np.concatenate(parts)
    value = float(plain(scores[None], statistic)[0])
    if all(np.ptp(part) == 0 for part in parts):
        return Estimate(value, NAN, NAN)
    sizes = [len(part) for part in parts]
    few = repeated_values(scores)
    if few is not None:
        draws = [_tallied(*few, sizes, statistic, rng, resamples)]
    else:
        draws = [plain(chunk, statistic) for chunk in _stratified_draws(scores, sizes, rng, resamples)]
    low, high = np.quantile(np.concatenate(draws), [TAIL, 1 - TAIL])
    wider = math.sqrt(len(scores) / max(len(scores) - len(sizes), 1))
    below, above = wider * max(value - float(low), 0), wider * max(float(high) - value, 0)
    return Estimate(value, max(value - below, float(scores.min())), min(value + above, float(scores.max())))
