"""Intervals of runs that share parts of their seeds, and so are not independent: crossed designs, arrays in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import special

from harness.stats.anova import build_factor, patterns
from harness.stats.estimate import NAN, NORMAL_95, ROUNDING, TAIL, UNKNOWN, Estimate
from harness.stats.proportions import score_interval
from harness.stats.stratified import score_differences, score_p


@dataclass(frozen=True)
class Error:
    """The variance of an estimate, and the degrees of freedom that this variance itself is known with."""

    variance: float
    freedom: float

    @property
    def half_width(self) -> float:
        """Half of Student's 95 % interval, in the unit of the estimate."""
        return float(special.stdtrit(self.freedom, 1 - TAIL)) * math.sqrt(self.variance)


def error_of_sum(levels: pd.DataFrame, parts: np.ndarray) -> Error:
    """The error of an estimate that is a sum of the runs' parts [N], where runs with a value in common vary together.

    `levels` (N runs; a column for each part of the seed) names the values that each run was trained with; runs share
    nothing if they have no value in common. For a mean the parts are (y - mean y) / N.

    Source: the multi-way cluster-robust variance of Cameron, Gelbach & Miller (2011), each term times G / (G - 1) for
    its G clusters, with min G - 1 degrees of freedom; at least the largest of the terms of one part alone, and of
    independent runs, so that it is never negative.
    """
    factors = [build_factor(str(name), levels.iloc[:, i]) for i, name in enumerate(levels.columns)]
    total, single, sizes = 0.0, [], []
    for size in range(1, len(factors) + 1):
        for chosen in combinations(factors, size):
            codes = patterns([factor.codes for factor in chosen], len(parts))[1]
            sums = np.bincount(codes, weights=parts)
            count = len(sums)
            term = float((sums**2).sum()) * (count / (count - 1) if count > 1 else 1.0)
            total += (-1) ** (size + 1) * term
            if size == 1:
                single.append(term)
                sizes.append(count)
    independent = float((parts**2).sum()) * len(parts) / max(len(parts) - 1, 1)
    variance = max(total, *single, independent)
    return Error(variance, float(max(min(sizes) - 1, 1)))


def mean(levels: pd.DataFrame, y: np.ndarray) -> Estimate:
    """The mean of y [N] with Student's interval, in its unit; NaN bounds for fewer than two runs or equal values."""
    if not len(y):
        return UNKNOWN
    value = float(y.mean())
    if np.ptp(y) == 0:
        return Estimate(value, NAN, NAN)
    half = error_of_sum(levels, (y - value) / len(y)).half_width
    return Estimate(value, value - half, value + half)


def effective_runs(levels: pd.DataFrame, happened: np.ndarray) -> float:
    """How many independent runs would tell the share of what happened [N] (bool) as surely as these; at most N.

    Where all or none happened it is the smallest number of values of a part: as if runs with one in common were one.
    Source: Korn & Graubard (1998), Survey Methodology 24, 193-201: with Student's quantile in the place of the normal.
    """
    n, share = len(happened), float(np.mean(happened))
    if share in (0.0, 1.0):
        return float(min(levels.iloc[:, i].nunique() for i in range(levels.shape[1])))
    error = error_of_sum(levels, (happened - share) / n)
    wider = NORMAL_95 / float(special.stdtrit(error.freedom, 1 - TAIL))
    return min(float(n), share * (1 - share) / error.variance * wider**2)


def rate(levels: pd.DataFrame, failed: np.ndarray) -> Estimate:
    """The share of failed runs [N] (bool) with Wilson's interval of as many runs as are independent."""
    if not len(failed):
        return UNKNOWN
    share = float(np.mean(failed))
    return Estimate(share, *score_interval(share, effective_runs(levels, failed)))


def contrast(
    levels: pd.DataFrame, failed: np.ndarray, second: np.ndarray, stratum: np.ndarray
) -> tuple[Estimate, float]:
    """The difference of two arms' failure rates within strata, with its interval and the two-sided p of one method.

    The rates are weighted over strata as Mantel and Haenszel do. Each arm is taken as so many independent runs as its
    own cluster error says, over all strata; of these it is the score test of `stratified` and the interval that is this
    test turned round. What runs of both arms share (a part of the seed) cancels in the difference, so the interval is
    on the safe side. In simulations it covers 95 % and more (`results/bench/coverage.md`).

    Args:
        levels: The parts of the seeds, a row a run; `failed`: whether it failed [N]; `second`: whether it is of the
            second arm [N]; `stratum`: codes [N]. A stratum with one arm is left out; NaN where none has both.
    """
    _, codes = np.unique(stratum, return_inverse=True)
    strata = len(np.unique(codes))
    sizes = np.stack([np.bincount(codes[side], minlength=strata) for side in (~second, second)]).astype(float)
    both = np.asarray((sizes > 0).all(axis=0))
    if not both.any():
        return UNKNOWN, NAN
    weight = np.where(both, sizes[0] * sizes[1] / np.maximum(sizes.sum(axis=0), 1), 0.0)
    weight /= weight.sum()
    arms = []
    for side, size in zip((~second, second), sizes, strict=True):
        chosen = side & both[codes]
        of, y = codes[chosen], failed[chosen].astype(float)
        rates = np.bincount(of, weights=y, minlength=len(weight)) / np.maximum(size, 1)
        share = float(weight @ rates)
        runs = _runs_of_share(levels[chosen], weight[of] * (y - rates[of]) / size[of], share)
        arms += [share * runs, runs]
    k1, n1, k2, n2 = (np.array([count]) for count in arms)
    value, low, high = (float(end) for end in score_differences(k1, n1, k2, n2))
    return Estimate(value, low, high), float(score_p(k1, n1, k2, n2))


def _runs_of_share(levels: pd.DataFrame, parts: np.ndarray, share: float) -> float:
    """How many independent runs would tell a share as surely as these do, which make it up of their parts [N].

    Where none or all failed, or as many in each stratum as to leave no error, it is the smallest number of values of a
    part. At least one run and at most N.
    """
    fewest = float(min(levels.iloc[:, i].nunique() for i in range(levels.shape[1])))
    error = error_of_sum(levels, parts)
    if share <= ROUNDING or share >= 1 - ROUNDING or error.variance <= ROUNDING**2:
        return fewest
    wider = NORMAL_95 / float(special.stdtrit(error.freedom, 1 - TAIL))
    return max(1.0, min(float(len(parts)), share * (1 - share) / error.variance * wider**2))


def rate_over_cells(cell: np.ndarray, seed: np.ndarray, failed: np.ndarray) -> Estimate:
    """The share of failed runs [N] (bool) of several cells (codes [N]) that were trained with the same seeds [N].

    Wilson's interval of as many runs as are independent: what seeds fail more of within all their cells counts once
    (cluster variance by seed, about each cell's own rate). Where a seed fails no more in one cell because it did in
    another these are all runs: the spread between cells is left in. At most N runs, and the normal quantile: simulated,
    it holds the truth in 90 % and more up to half of what decides on failing being the seed's.
    """
    n, share = len(failed), float(np.mean(failed))
    _, cells, sizes = np.unique(cell, return_inverse=True, return_counts=True)
    _, seeds = np.unique(seed, return_inverse=True)
    rates = np.bincount(cells, weights=failed) / sizes
    count = int(seeds.max()) + 1
    sums = np.bincount(seeds, weights=(failed - rates[cells]) / n)
    variance = float((sums**2).sum()) * count / max(count - 1, 1)
    independent = share * (1 - share) / n
    runs = n if variance <= independent else n * independent / variance
    return Estimate(share, *score_interval(share, runs))


def difference(levels: pd.DataFrame, y: np.ndarray, second: np.ndarray) -> tuple[Estimate, float]:
    """Mean y of the runs in the second arm [N] (bool) minus that of the others, with its interval and two-sided p.

    Runs of both arms that share a part of the seed vary together, which makes the difference surer: that is pairing.
    Interval and p are Student's; NaN where an arm has no run, or nothing varies.
    """
    if second.all() or not second.any():
        return UNKNOWN, NAN
    means = [float(y[side].mean()) for side in (~second, second)]
    value = means[1] - means[0]
    parts = np.where(second, (y - means[1]) / second.sum(), -(y - means[0]) / (~second).sum())
    error = error_of_sum(levels, parts)
    if error.variance == 0:
        return Estimate(value, NAN, NAN), NAN
    p = float(2 * special.stdtr(error.freedom, -abs(value) / math.sqrt(error.variance)))
    return Estimate(value, value - error.half_width, value + error.half_width), p
