"""Two groups of scores compared: their spread and their mean; arrays in, numbers out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from scipy import optimize, special, stats

from harness.stats import means
from harness.stats.bootstrap import DRAWS, repeated_values
from harness.stats.estimate import NAN, NORMAL_95, ROUNDING, TAIL, UNKNOWN, Estimate

EXACT = 10_000  # a permutation test with no more permutations than this goes through them all

PERMUTATIONS = 4_999
COUNTED = 3_000  # scores of which numpy draws a permutation faster one by one than value by value


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
            way: Literal["count", "marginals"] = "count" if len(values) < COUNTED else "marginals"
            times = rng.multivariate_hypergeometric(np.bincount(places), picked, size=PERMUTATIONS, method=way)
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
    """How much more y scatters than x: the ratio of their standard deviations, its two-sided p, and three others."""

    ratio: Estimate
    p: float
    levene: float
    brown_forsythe: float
    permutation: float


def compare_spread(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> SpreadTest:
    """Compare the spread of scores x [N1] with that of y [N2].

    - `ratio` and `p`: sd of y over sd of x, as `means.deviation_ratio`.
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
        return SpreadTest(UNKNOWN, NAN, NAN, NAN, NAN)
    distances = [np.abs(scores - np.median(scores)) * math.sqrt(len(scores) / (len(scores) - 1)) for scores in (x, y)]
    floor = ROUNDING * (distances[0].sum() + distances[1].sum())

    def imbalance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        means = np.stack([first / len(x), second / len(y)])
        means[means <= floor] = 0.0
        with np.errstate(divide="ignore"):
            return np.asarray(means.max(axis=0) / means.min(axis=0))

    ratio, p = means.deviation_ratio(x, y)
    return SpreadTest(
        ratio=ratio,
        p=p,
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


@dataclass(frozen=True)
class LevelTest:
    """How much higher y scores than x: differences with intervals (in the unit of the scores, and Hedges' g), two p."""

    difference: Estimate
    welch: float
    permutation: float
    effect: Estimate


@dataclass(frozen=True)
class RankTest:
    """How often a run of y is better than one of x, P(y > x) + P(y = x) / 2, and Mann and Whitney's two-sided p."""

    improvement: Estimate
    mann_whitney: float


def compare_level(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> LevelTest:
    """Compare the level of scores x [N1] with that of y [N2]; all is NaN where a side has no score.

    - `difference` and `welch`: mean y - mean x, Welch (1947). The interval and p are NaN below two scores on a side and
      where neither side varies.
    - `permutation`: of the absolute difference of the means (Fisher 1935); 1 where all scores are equal.
    - `effect`: Hedges (1981), exact correction; interval by the normal approximation of Hedges and Olkin (1985, p. 86).
      NaN where neither side varies, and below two scores on a side: of one score nobody knows its side's spread.
    """
    x, y = np.asarray(x, dtype=float).ravel(), np.asarray(y, dtype=float).ravel()
    if min(len(x), len(y)) < 1:
        return LevelTest(UNKNOWN, NAN, NAN, UNKNOWN)
    n1, n2 = len(x), len(y)
    difference, welch = difference_of_means(x, y)
    both = np.concatenate([x, y])
    return LevelTest(
        difference=difference,
        welch=welch,
        permutation=_permutation_p(
            x - both.mean(), y - both.mean(), lambda first, second: np.abs(first / n1 - second / n2), rng
        ),
        effect=_effect(difference.value, _variance(x), _variance(y), n1, n2),
    )


def difference_of_means(x: np.ndarray, y: np.ndarray) -> tuple[Estimate, float]:
    """Mean y - mean x of scores [N1] and [N2], one at least each, with Welch's interval and two-sided p (1947).

    Interval and p are NaN below two scores on a side and where neither side varies.
    """
    n1, n2 = len(x), len(y)
    value = float(y.mean() - x.mean()) if np.ptp(np.concatenate([x, y])) > 0 else 0.0
    error, freedom = welch_errors(np.array([_variance(x)]), np.array([_variance(y)]), n1, n2)
    if not error[0] > 0:
        return Estimate(value, NAN, NAN), NAN
    half = float(special.stdtrit(freedom[0], 1 - TAIL) * error[0])
    p = float(2 * special.stdtr(freedom[0], -abs(value) / error[0]))
    return Estimate(value, value - half, value + half), p


def _variance(scores: np.ndarray) -> float:
    """The variance of a sample; NaN of one score."""
    return NAN if len(scores) < 2 else float(scores.var(ddof=1)) if np.ptp(scores) > 0 else 0.0


def compare_ranks(x: np.ndarray, y: np.ndarray) -> RankTest:
    """Compare the order of scores x [N1] with that of y [N2]: a run that diverged scores -inf, worse than all others.

    - `mann_whitney`: Mann and Whitney (1947) by scipy: exact for a small side without ties, else normal with ties
      corrected for.
    - `improvement`: interval by inverting the score test, Newcombe (2006), Statistics in Medicine 25, 559–573, method
      5: stays in [0, 1] and has a width at 0 and 1 as well. It takes no account of ties, which makes it wider.

    NaN where a side has no run.
    """
    if min(len(x), len(y)) < 1:
        return RankTest(UNKNOWN, NAN)
    n1, n2 = len(x), len(y)
    places = stats.rankdata(np.concatenate([x, y]))  # what is infinite has a rank too
    test = stats.mannwhitneyu(places[n1:], places[:n1], method="auto" if n1 * n2 <= EXACT else "asymptotic")
    return RankTest(_improvement(float(test.statistic) / (n1 * n2), n1, n2), float(test.pvalue))


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
    if min(n1, n2) < 2:
        return UNKNOWN
    freedom = n1 + n2 - 2
    squares = (n1 - 1) * variance1 + (n2 - 1) * variance2
    if squares == 0:
        return UNKNOWN
    correction = math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom - 1) / 2)) / math.sqrt(freedom / 2)
    value = correction * difference / math.sqrt(squares / freedom)
    half = NORMAL_95 * math.sqrt((n1 + n2) / (n1 * n2) + value**2 / (2 * (n1 + n2)))
    return Estimate(value, value - half, value + half)
