"""Two groups of scores compared: their spread and their mean; arrays in, numbers out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from scipy import optimize, special, stats

from harness.stats.bootstrap import DRAWS, RESAMPLES, Resampling, bca, jackknife, plain, repeated_values
from harness.stats.estimate import NAN, NORMAL_95, ROUNDING, TAIL, UNKNOWN, Estimate

EXACT = 10_000  # a permutation test with no more permutations than this goes through them all


PERMUTATIONS = 4_999


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
        few = repeated_values(values)
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
    (sd_x,), (sd_y,) = plain(x[None], "sd").tolist(), plain(y[None], "sd").tolist()
    if sd_x == 0 or sd_y == 0:
        return Estimate(NAN if sd_x == sd_y else 0.0 if sd_y == 0 else math.inf, NAN, NAN)
    if min(len(x), len(y)) < 3:
        return Estimate(sd_y / sd_x, NAN, NAN)
    logs, left_out = [], []
    with np.errstate(divide="ignore", invalid="ignore"):  # a resample can be of one score only
        for side, (scores, sd) in enumerate(((x, sd_x), (y, sd_y))):
            ordered, n = np.sort(scores)[None], len(scores)
            parts = [part(ordered) for part in Resampling.drawn(n, RESAMPLES, "sd", (entropy, side))]
            logs.append(np.log(np.concatenate(parts, axis=1) / sd))
            left_out.append((2 * side - 1) * np.log(jackknife(ordered, "sd") / sd))
        resampled = logs[1] - logs[0]
    resampled = resampled[:, ~np.isnan(resampled[0])]  # neither side varied
    if not all(np.isfinite(values).all() for values in left_out):
        left_out = []  # all of a side's spread is one score's: no acceleration can be told
    low, high = bca(np.zeros(1), resampled, left_out, np.ones(1))
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
    variance1, variance2 = (np.square(plain(scores[None], "sd")[0]) for scores in (x, y))
    error, freedom = welch_errors(np.array([variance1]), np.array([variance2]), n1, n2)
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


def welch_errors(variance1: np.ndarray, variance2: np.ndarray, n1: int, n2: int) -> tuple[np.ndarray, np.ndarray]:
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
