"""What a finite dev set does to scores that are means over its examples, each a number from 0 to 1, as an answer's F1.

What `dev_noise.floor` tells of right and wrong answers, for any values; and how far runs agree on parts of a text.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from harness.stats.estimate import NAN, NORMAL_95, Estimate

_TAILS = (0.025, 0.975)  # of every interval: 95 %
_BLOCK = 2**20  # weights drawn at a time
_ROUNDING = 1e-9  # of sums of scores: runs that differ by less are equally good
MOST_PAIRS = 5_000  # of runs that are compared one by one: all pairs of 100 runs


@dataclass(frozen=True)
class ScoreNoise:
    """How much of a cell's spread its finite dev set makes; in the scores' unit, variances in its square.

    NaN where not known: all spreads over runs with one run, all over examples with one example.
    """

    runs: int
    examples: int
    mean: float  # over all runs and examples
    error: float  # standard error of one run's score by its examples, mean over runs
    observed: float  # sd of the scores over runs, n - 1
    training: float  # sd over runs that an infinite dev set would leave; 0 where the estimated variance is negative
    training_variance: float  # its unbiased estimate
    training_low: float  # 95 % interval of `training`
    training_high: float
    dev_share: float  # 1 - training_variance / observed², clipped to [0, 1]; NaN where `observed` is 0
    seed_error: float  # standard error of `mean` by the seeds alone
    example_error: float  # and by the examples alone
    mean_error: float  # by both


def noise(values: np.ndarray, rng: np.random.Generator, resamples: int = 1000) -> ScoreNoise:
    """The noise of a dev set in the scores of a cell's runs, from what each example scored.

    `training_variance` is the mean covariance over runs of two different examples: (MS_seed - MS_residual) / N of a
    random-effects ANOVA seeds × examples (Searle, Casella & McCulloch 1992). Its interval is the wider, on each side,
    of the F-based one and of the percentile one by resampling seeds and examples together, as in `dev_noise.floor`.

    Args:
        values: of R runs on the same N examples, [R, N].
        rng: Draws the resamples.
        resamples: How many.

    Raises:
        ValueError: The values are not finite or no [R, N].
    """
    if values.ndim != 2 or 0 in values.shape or not np.isfinite(values).all():
        raise ValueError(f"values are finite and [R, N], R and N at least 1; got {values.shape}")
    values = values.astype(float)
    runs, examples = values.shape
    scores, by_example = values.mean(axis=1), values.mean(axis=0)
    several = runs > 1 and examples > 1
    total = float(scores.var(ddof=1)) if runs > 1 else NAN
    within = float(values.var(axis=0, ddof=1).mean()) if runs > 1 else NAN
    variance = (examples * total - within) / (examples - 1) if examples > 1 else NAN
    residual = (within - total) * examples / (examples - 1) if examples > 1 else NAN  # MS_residual
    low, high = NAN, NAN
    if several:
        ratios = stats.f.ppf(_TAILS[::-1], runs - 1, (runs - 1) * (examples - 1))
        low, high = ((examples * total / ratio - residual) / examples for ratio in ratios)
        drawn = _resampled(values, rng, resamples)
        if len(drawn):
            ends = np.quantile(drawn, _TAILS)
            low, high = min(low, float(ends[0])), max(high, float(ends[1]))
    by_seed = float(scores.var()) / runs if runs > 1 else NAN
    of_examples = float(by_example.var()) / examples if examples > 1 else NAN
    single = residual * (runs - 1) * (examples - 1) / (runs * examples) ** 2 if several else NAN
    return ScoreNoise(
        runs=runs,
        examples=examples,
        mean=float(scores.mean()),
        error=float((values.std(axis=1, ddof=1) / math.sqrt(examples)).mean()) if examples > 1 else NAN,
        observed=math.sqrt(total),
        training=_root(variance),
        training_variance=variance,
        training_low=_root(low),
        training_high=_root(high),
        dev_share=min(max(1 - variance / total, 0.0), 1.0) if several and total > 0 else NAN,
        seed_error=math.sqrt(by_seed),
        example_error=math.sqrt(of_examples),
        mean_error=math.sqrt(by_seed + of_examples + max(single, 0.0)) if several else NAN,
    )


def _root(variance: float) -> float:
    return variance if math.isnan(variance) else math.sqrt(max(variance, 0.0))


def _resampled(values: np.ndarray, rng: np.random.Generator, resamples: int) -> np.ndarray:
    """Training variances [≤ B] under resampling of seeds and examples together.

    Pairs of an example's copies are left out, and R/(R-1) takes back what drawing seeds with replacement loses.
    """
    runs, examples = values.shape
    squares, variances = values**2, []
    step = max(1, _BLOCK // examples)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        seeds = rng.multinomial(runs, np.full(runs, 1 / runs), count).astype(float)  # [b, R]
        weights = rng.multinomial(examples, np.full(examples, 1 / examples), count).astype(float)  # [b, N]
        sums = weights @ values.T  # [b, R]
        mean = (seeds * sums).sum(axis=1) / runs
        total = ((seeds * sums**2).sum(axis=1) - runs * mean**2) / (runs - 1)
        single = np.maximum(seeds @ squares / runs - (seeds @ values / runs) ** 2, 0)  # [b, N]
        within = (weights**2 * single).sum(axis=1) * runs / (runs - 1)
        pairs = examples**2 - (weights**2).sum(axis=1)
        variances.append((total - within)[pairs > 0] / pairs[pairs > 0] * runs / (runs - 1))
    return np.concatenate(variances)


def difference(a: np.ndarray, b: np.ndarray, over_seeds: Estimate) -> Estimate:
    """The difference of two cells' mean scores, a - b, over seeds and examples, from values [R1, N] and [R2, N].

    As `dev_noise.difference`: the interval over seeds is widened by the standard error of the mean over the examples,
    which both share. NaN bounds with one example; raises ValueError for different numbers of examples.
    """
    return with_examples(float(a.mean() - b.mean()), a, b, over_seeds)


def with_examples(value: float, a: np.ndarray, b: np.ndarray, over_seeds: Estimate) -> Estimate:
    """A difference of means, `value`, whose interval over seeds is widened by the error of the N examples.

    `a` [R1, N] and `b` [R2, N] are what they are means of; otherwise as `difference`.
    """
    examples = a.shape[1]
    if examples != b.shape[1]:
        raise ValueError(f"both cells answered the same examples; got {examples} and {b.shape[1]}")
    if examples == 1:
        return Estimate(value, NAN, NAN)
    half = NORMAL_95 * float((a.mean(axis=0) - b.mean(axis=0)).std(ddof=1)) / math.sqrt(examples)
    below, above = over_seeds.value - over_seeds.low, over_seeds.high - over_seeds.value
    return Estimate(value, value - math.hypot(below, half), value + math.hypot(above, half))


def optimism(
    values: np.ndarray, rng: np.random.Generator, splits: int = 1000, labels: np.ndarray | None = None
) -> float:
    """What picking the best of R runs by their scores on N examples reports too high; the mean over random splits.

    In each split the run that is best on nine tenths of the examples (a tie is decided by lot) is scored on the last
    tenth: its score on those that picked it minus that on the others. (Cross-validated selection bias, Varma & Simon
    2006.) With `labels` [N] a tenth of each class is left out (Kohavi 1995): otherwise a run that always gives one
    class is picked where that class lacks among the others, and loses there what no dev set of these classes would make
    it lose. Nine tenths of the examples pick worse than all of them: the sd of single scores by chance is larger by
    sqrt(10/9), and the mean is brought back by that. Halves, as many do it, give 1.3 to 1.7 times the truth.

    Args:
        values: What each example scored, [R, N].
        rng: Draws the splits.
        splits: How many.
        labels: The examples' classes [N], where they have some.

    Returns:
        A difference of mean scores; NaN for one run, or fewer than two examples.
    """
    runs, examples = values.shape
    if runs < 2 or examples < 2:
        return NAN
    differences = np.empty(splits)
    by_example = np.ascontiguousarray(values.T, dtype=np.float64)  # [N, R]
    total = by_example.sum(axis=0)
    share = max(1, examples // 10)
    for split in range(splits):
        order = rng.permutation(examples)
        left = order[:share] if labels is None else _tenth_of_each(order, labels, rng)
        others = len(left)
        left_out = by_example[left].sum(axis=0)
        picking = total - left_out
        best = rng.choice(np.flatnonzero(picking >= picking.max() - _ROUNDING))
        differences[split] = picking[best] / (examples - others) - left_out[best] / others
    return float(differences.mean()) * math.sqrt((examples - share) / examples)


def _tenth_of_each(order: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every tenth example of a random order [N] that is sorted by label; of fewer than ten examples one."""
    by_label = order[np.argsort(labels[order], kind="stable")]
    return by_label[rng.integers(min(10, len(order))) :: 10]


def distances_between(runs: int, most: int) -> np.ndarray:
    """How far apart in a list the runs are that are paired: 1, 2, …, R - 1, so that every pair is looked at twice.

    Of more than `most` pairs, which would take longest of all, not every one is looked at: each run is then paired with
    those at a few distances from it, spread evenly over all there are, so that all runs count alike (a balanced
    incomplete U-statistic: Blom 1976, Biometrika 63, 573-580).
    """
    if runs * (runs - 1) // 2 <= most:
        return np.arange(1, runs)
    return np.unique(np.linspace(1, (runs - 1) // 2, max(4, most // runs)).astype(int))


@dataclass(frozen=True)
class PlaceAgreement:
    """How far the runs of a cell answer by the same part of a text, means over pairs of runs and examples."""

    same: float  # the share of equal answers: consistency (Bui, Savova & Wang 2025, arXiv 2503.07329)
    overlap: float  # the F1 of one answer's characters against the other's; of none and none 1


def place_agreement(places: np.ndarray) -> PlaceAgreement:
    """How far runs agree, from where their answers start and end, [R, N, 2]; both are equal where there is none.

    Of more than MOST_PAIRS pairs of runs not all are laid over each other (`distances_between`). Raises ValueError for
    fewer than two runs.
    """
    runs = len(places)
    if places.ndim != 3 or runs < 2:
        raise ValueError(f"places are [R, N, 2], R at least 2; got {places.shape}")
    start, end = places[..., 0].astype(float), places[..., 1].astype(float)
    empty = end <= start
    start, end = np.where(empty, 0.0, start), np.where(empty, 0.0, end)
    distances = distances_between(runs, MOST_PAIRS)
    same, overlap = 0.0, 0.0
    for distance in distances:
        other_start, other_end = np.roll(start, distance, axis=0), np.roll(end, distance, axis=0)
        alike = (start == other_start) & (end == other_end)
        shared = np.clip(np.minimum(end, other_end) - np.maximum(start, other_start), 0, None)
        sizes = (end - start) + (other_end - other_start)
        f1 = np.where(sizes > 0, 2 * shared / np.where(sizes > 0, sizes, 1), 1.0)
        same, overlap = same + float(alike.mean()), overlap + float(f1.mean())
    return PlaceAgreement(same / len(distances), overlap / len(distances))
