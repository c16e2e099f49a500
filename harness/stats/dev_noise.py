"""What a finite dev set lets one tell, from the dev logits of several runs of one cell; pure arrays in, numbers out.

Accuracies are fractions and what is not known is NaN. Runs with non-finite logits are left out by the caller.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special, stats

from harness.stats import example_scores
from harness.stats.estimate import NAN, Estimate
from harness.stats.example_scores import MOST_PAIRS

_TAILS = (0.025, 0.975)  # of every interval: 95 %
_BLOCK = 2**20  # weights drawn at a time, so that many examples and resamples do not fill the memory


@dataclass(frozen=True)
class Floor:
    """How much of a cell's spread its finite dev set makes; accuracies as fractions, variances as their squares.

    NaN where not known: all spreads over runs with one run, all over examples with one example.
    """

    runs: int
    examples: int
    mean: float  # accuracy over all runs and examples
    binomial: float  # sd of one accuracy, sqrt(p (1 - p) / N) at the mean accuracy
    example_bootstrap: float  # standard error of one run's accuracy by resampling examples, mean over runs
    observed: float  # sd of the accuracies over runs, n - 1
    training: float  # sd over runs that an infinite dev set would leave; 0 where the estimated variance is negative
    training_variance: float  # its unbiased estimate, negative where the runs differ less than the dev set explains
    training_low: float  # 95 % interval of `training`
    training_high: float
    dev_share: float  # 1 - training_variance / observed², clipped to [0, 1]; NaN where `observed` is 0
    mean_error: float  # standard error of `mean` over seeds and examples (multi-bootstrap)
    mean_low: float  # its 95 % percentile interval
    mean_high: float
    seed_error: float  # the same with the seeds alone resampled
    example_error: float  # and with the examples alone


@dataclass(frozen=True)
class Agreement:
    """How far the runs of a cell give the same answers; NaN where not known (one run)."""

    runs: int
    examples: int
    fleiss_kappa: float  # 1 - disagreement / expected_disagreement; NaN where all runs always answer one same class
    disagreement: float  # share of examples on which two runs differ, mean over pairs of runs
    consistency: float  # share on which they agree, 1 - disagreement (Bui, Savova & Wang 2025, arXiv 2503.07329)
    expected_disagreement: float  # of two answers drawn by chance from all answers
    jensen_shannon: float  # between softmax outputs, in nats (0 to ln 2), mean over pairs of runs and examples
    accuracy_if_voted: float  # of the class that most runs answer; a tie is decided by lot, as its expected value


@dataclass(frozen=True)
class AnswerCounts:
    """What accuracies alone tell of the noise, without the answers that made them; fractions, NaN where not known.

    Runs share their examples, so `observed` may well be below `binomial`. Without per-example answers the spread can't
    be split into the dev set's and training's part: the estimate that `floor` would give (`Floor.training`) lies
    anywhere between `training_least` and `observed`.
    """

    runs: int
    examples: int
    mean: float
    binomial: float  # sd of one accuracy, sqrt(p (1 - p) / N) at the mean accuracy
    observed: float  # sd of the accuracies over runs, n - 1; also the most that `Floor.training` can be
    training_least: float  # the least that it can be: were every example equally hard


# ------------------------------------------------------------------------------------------------------- the answers


def answers(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Which answers are right, as booleans [R, N], of logits [R, N, C] and labels [N] from 0 to C-1.

    Between equal logits the first class is the answer, as in `metrics.score`. Raises ValueError for other shapes,
    labels or logits that are not finite.
    """
    _check_logits(logits)
    _check_labels(labels, logits)
    return np.asarray(logits.argmax(axis=2) == labels)


def _check_logits(logits: np.ndarray) -> None:
    if logits.ndim != 3 or logits.shape[0] < 1 or logits.shape[1] < 1 or logits.shape[2] < 2:
        raise ValueError(f"logits are [R, N, C], R and N at least 1 and C at least 2; got {logits.shape}")
    if not np.isfinite(logits).all():
        raise ValueError("logits are finite; got NaN or infinite ones: leave runs that diverged out")


def _check_labels(labels: np.ndarray, logits: np.ndarray) -> None:
    if labels.shape != logits.shape[1:2]:
        raise ValueError(f"labels are [N], one an example; got {labels.shape} for logits {logits.shape}")
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= logits.shape[2]:
        raise ValueError(
            f"labels are whole numbers from 0 to C-1; got {labels.dtype} {labels.min()} to {labels.max()}"
            f" for {logits.shape[2]} logits"
        )


def _check_correct(correct: np.ndarray) -> None:
    if correct.ndim != 2 or 0 in correct.shape or correct.dtype != np.bool_:
        raise ValueError(
            f"right answers are booleans [R, N], R and N at least 1; got {correct.dtype} {correct.shape}"
            " (`answers` makes them from logits)"
        )


def _check_resamples(resamples: int) -> None:
    if resamples < 1:
        raise ValueError(f"resamples is 1 or more; got {resamples}")


# --------------------------------------------------------------------------------------------------------- the floor


def floor(correct: np.ndarray, rng: np.random.Generator, resamples: int = 1000) -> Floor:
    """What the finite dev set does to the spread and the mean of a cell's accuracies, from answers [R, N] (bool).

    `training_variance` is the unbiased estimate of the variance over runs of the accuracy on the whole distribution
    (Jordan 2023, arXiv 2304.01910): the mean covariance over runs of two different examples, which is the seed
    component (MS_seed - MS_residual) / N of a random-effects ANOVA seeds × examples.

    Its interval is the wider, on each side, of the F-based one, (MS_seed / F - MS_residual) / N (normal accuracies;
    Searle, Casella & McCulloch 1992, Variance Components), and of the percentile one by resampling seeds and examples.
    In simulations at a nominal 95 % the first alone covered 72 % of cells in which one run in ten failed, the second
    alone 83 % of cells of five normal runs; together 89 % and 96 %, and nearly all cells of runs that do not fail (a
    third too wide there). No method sees the failures that did not happen among the runs at hand.

    The errors of the mean are those of the multi-bootstrap (Sellam et al. 2022, The MultiBERTs, arXiv 2106.16163),
    which draws seeds and examples independently with replacement; they are its exact limit for infinitely many
    resamples, so they hold no luck: mean_error² = seed_error² + example_error² + the part of single answers. That part
    counts three times (Owen 2007, The pigeonhole bootstrap), which makes the error too large where little else varies;
    the seeds' comes out (R-1)/R as large, so that the interval covered 90 % with five runs. Only the two percentile
    intervals use `rng` and `resamples`. Raises ValueError for other arrays and less than one resample.
    """
    _check_correct(correct)
    _check_resamples(resamples)
    runs, examples = correct.shape
    right = correct.sum(axis=1)  # [R]
    runs_right = correct.sum(axis=0)  # [N]
    mean = int(right.sum()) / (runs * examples)
    total, within = _variances(right, runs_right)
    variance = _training_variance(total, within, examples)
    residual = (within - total) * examples / (examples - 1) if examples > 1 else NAN  # MS_residual
    seed_variance, example_variance = _bootstrap_variances(right, runs_right)
    error = NAN
    if runs > 1 and examples > 1:
        # Single answers' part: the sum of squared two-way residuals over (R N)².
        single = residual * (runs - 1) * (examples - 1) / (runs * examples) ** 2
        error = math.sqrt(seed_variance + example_variance + single)
    variances, means = _resampled(correct, rng, resamples)
    low, high = _training_interval(total * examples, residual, runs, examples, variances)
    shares = right / examples
    return Floor(
        runs=runs,
        examples=examples,
        mean=mean,
        binomial=math.sqrt(mean * (1 - mean) / examples),
        example_bootstrap=float(np.sqrt(shares * (1 - shares) / examples).mean()) if examples > 1 else NAN,
        observed=math.sqrt(total),
        training=_root(variance),
        training_variance=variance,
        training_low=low,
        training_high=high,
        dev_share=min(max(1 - variance / total, 0.0), 1.0) if total > 0 and examples > 1 else NAN,
        mean_error=error,
        mean_low=float(np.quantile(means, _TAILS[0])) if runs > 1 and examples > 1 else NAN,
        mean_high=float(np.quantile(means, _TAILS[1])) if runs > 1 and examples > 1 else NAN,
        seed_error=math.sqrt(seed_variance),
        example_error=math.sqrt(example_variance),
    )


def _root(variance: float) -> float:
    """The standard deviation of an estimated variance, 0 where that is negative and NaN where it is not known."""
    return variance if math.isnan(variance) else math.sqrt(max(variance, 0.0))


def _variances(right: np.ndarray, runs_right: np.ndarray) -> tuple[float, float]:
    """Over runs, n - 1: the variance of the accuracies, and the mean over examples of that of single answers.

    Right answers per run [R] and per example [N] are whole numbers, and so is all that is subtracted here.
    """
    runs, examples = len(right), len(runs_right)
    if runs == 1:
        return NAN, NAN
    spread = runs * sum(int(k) ** 2 for k in right) - int(right.sum()) ** 2
    single = sum(int(k) * (runs - int(k)) for k in runs_right)
    pairs = runs * (runs - 1)
    return spread / (pairs * examples**2), single / (pairs * examples)


def _training_variance(total: float, within: float, examples: int) -> float:
    """Jordan's estimate from the variance of accuracies and the mean variance of single answers."""
    return (examples * total - within) / (examples - 1) if examples > 1 else NAN


def _bootstrap_variances(right: np.ndarray, runs_right: np.ndarray) -> tuple[float, float]:
    """The bootstrap variance of the mean accuracy by resampling runs alone, and examples alone."""
    runs, examples = len(right), len(runs_right)
    by_seed = float(np.var(right / examples)) / runs if runs > 1 else NAN
    by_example = float(np.var(runs_right / runs)) / examples if examples > 1 else NAN
    return by_seed, by_example


def _drawn(rng: np.random.Generator, size: int, resamples: int) -> np.ndarray:
    """How often each of `size` things is drawn in a bootstrap resample, as floats [B, size]."""
    picks = rng.integers(0, size, (resamples, size)) + size * np.arange(resamples)[:, None]
    return np.bincount(picks.ravel(), minlength=resamples * size).reshape(resamples, size).astype(float)


def _blocks(resamples: int, examples: int) -> Iterator[int]:
    """The resamples in parts whose weights over the examples fit into the memory."""
    step = max(1, _BLOCK // examples)
    for start in range(0, resamples, step):
        yield min(step, resamples - start)


def _resampled(correct: np.ndarray, rng: np.random.Generator, resamples: int) -> tuple[np.ndarray, np.ndarray]:
    """Training variances [≤ B] and mean accuracies [B] under resampling of seeds and examples together.

    An example drawn twice is still one example: pairs of its copies are left out, else its own variance would count as
    covariance of two. Resamples of one example alone tell no covariance and are dropped. The factor R/(R-1) takes back
    what drawing seeds with replacement loses.
    """
    runs, examples = correct.shape
    answers = correct.astype(float)
    variances, means = [], []
    if runs == 1 or examples == 1:
        return np.empty(0), np.empty(0)
    for count in _blocks(resamples, examples):
        seeds = _drawn(rng, runs, count)  # [b, R]
        weights = _drawn(rng, examples, count)  # [b, N]
        right = weights @ answers.T  # [b, R]
        mean = (seeds * right).sum(axis=1) / runs
        total = ((seeds * right**2).sum(axis=1) - runs * mean**2) / (runs - 1)
        share = seeds @ answers / runs  # [b, N]
        squares = weights**2
        within = (squares * share * (1 - share)).sum(axis=1) * runs / (runs - 1)
        pairs = examples**2 - squares.sum(axis=1)
        kept = pairs > 0
        variances.append((total - within)[kept] / pairs[kept] * runs / (runs - 1))
        means.append(mean / examples)
    return np.concatenate(variances), np.concatenate(means)


def _training_interval(
    seed: float, residual: float, runs: int, examples: int, resampled: np.ndarray
) -> tuple[float, float]:
    """The 95 % interval of the training sd from the mean squares and the resampled variances; see `floor`."""
    if runs == 1 or examples == 1:
        return NAN, NAN
    ratios = stats.f.ppf(_TAILS[::-1], runs - 1, (runs - 1) * (examples - 1))
    low, high = ((seed / ratio - residual) / examples for ratio in ratios)
    if len(resampled):
        ends = np.quantile(resampled, _TAILS)
        low, high = min(low, float(ends[0])), max(high, float(ends[1]))
    return _root(low), _root(high)


def pooled_share(observed: np.ndarray, training_variance: np.ndarray, runs: np.ndarray) -> tuple[float, float, float]:
    """The dev set's share in the variance over runs of several cells together, weighted by variance, with its interval.

    It is the sum of the cells' dev-set parts, `observed`² - `training_variance`, over that of their variances. A median
    of the cells' shares would count cells that hardly vary, whose shares are noise, as much as those that do.

    The interval is that of the variances' sum, by Satterthwaite's χ² (normal accuracies); the dev-set parts have
    (R-1)(N-1) degrees of freedom each and count as known. Within [0, 1]; NaN where no cell varies.
    Source: Satterthwaite (1946), Biometrics Bulletin 2, 110–114.

    Args:
        observed: The sd of the accuracies of each cell [C], n - 1.
        training_variance: As `Floor.training_variance` [C], which may be negative.
        runs: Runs of each cell [C], 2 or more.
    """
    variances = np.asarray(observed, dtype=float) ** 2
    total = float(variances.sum())
    if total == 0:
        return NAN, NAN, NAN
    share = (total - float(np.sum(training_variance))) / total
    freedom = total**2 / float((variances**2 / (np.asarray(runs) - 1)).sum())
    ends = share * stats.chi2.ppf(_TAILS, freedom) / freedom
    value, low, high = np.clip([share, *ends], 0.0, 1.0)
    return float(value), float(low), float(high)


# ------------------------------------------------------------------------------------------------- two cells compared


def difference(a: np.ndarray, b: np.ndarray, over_seeds: Estimate) -> Estimate:
    """The difference of two cells' mean accuracies, a - b, over seeds and dev examples, from answers [R1, N], [R2, N].

    The interval over seeds, `over_seeds`, is widened by the error of the choice of the N examples, which both cells
    share: the standard error of the mean over examples of the difference in the share of right runs. The two are put
    together as `means.mixture` does. So it never tells apart what the means over seeds do not, and where runs fail it
    covers what resampling seeds and examples together (the multi-bootstrap, Sellam et al. 2022, arXiv 2106.16163)
    does not: `results/bench/coverage.md`. NaN bounds where those over seeds are not known or with one example. Raises
    ValueError for other arrays and different numbers of examples.
    """
    for correct in (a, b):
        _check_correct(correct)
    return example_scores.with_examples(int(a.sum()) / a.size - int(b.sum()) / b.size, a, b, over_seeds)


def resampled_difference(
    a: np.ndarray, b: np.ndarray, rng: np.random.Generator, resamples: int = 1000
) -> tuple[float, float]:
    """The percentile interval of the multi-bootstrap of a - b, seeds and examples drawn anew together.

    Only to be compared with `difference`: where one of the cells fails now and then it covers too little.
    """
    examples, drawn = a.shape[1], []
    for count in _blocks(resamples, examples):
        weights = _drawn(rng, examples, count)  # [b, N]
        means = (
            (_drawn(rng, len(correct), count) * (weights @ correct.T.astype(float))).sum(axis=1) / correct.size
            for correct in (a, b)
        )
        drawn.append(next(means) - next(means))
    low, high = np.quantile(np.concatenate(drawn), _TAILS)
    return float(low), float(high)


def example_interval(correct: np.ndarray, rng: np.random.Generator, resamples: int = 1000) -> tuple[float, float]:
    """The 95 % interval of the mean accuracy of answers [R, N] over the choice of the N examples, the runs held.

    Percentile bootstrap of the examples (Efron 1979); NaN with one example.
    """
    _check_correct(correct)
    _check_resamples(resamples)
    examples = correct.shape[1]
    if examples == 1:
        return NAN, NAN
    share = correct.mean(axis=0)  # [N]
    drawn = [_drawn(rng, examples, count) @ share / examples for count in _blocks(resamples, examples)]
    low, high = np.quantile(np.concatenate(drawn), _TAILS)
    return float(low), float(high)


def optimism(
    correct: np.ndarray, rng: np.random.Generator, splits: int = 1000, labels: np.ndarray | None = None
) -> float:
    """What picking the best of R runs on a dev set reports too high, as a fraction; see `example_scores.optimism`.

    `correct` [R, N] says which answers are right. NaN for one run, or fewer than two examples.
    """
    _check_correct(correct)
    return example_scores.optimism(correct, rng, splits, labels)


# --------------------------------------------------------------------------------------------------------- agreement


def agreement(logits: np.ndarray, labels: np.ndarray) -> Agreement:
    """How far runs agree in their answers and their outputs, from logits [R, N, C] and labels [N].

    Fleiss' kappa with runs as raters (Fleiss 1971, Psychological Bulletin 76, 378-382); Jensen-Shannon divergence of
    softmax outputs (Lin 1991). The labels matter to the vote alone. Raises ValueError as `answers` does.
    """
    _check_logits(logits)
    _check_labels(labels, logits)
    runs, examples, _ = logits.shape
    votes = _votes(logits)  # [N, C]
    top = votes == votes.max(axis=1, keepdims=True)
    voted = float((top[np.arange(examples), labels] / top.sum(axis=1)).mean())
    if runs == 1:
        return Agreement(runs, examples, NAN, NAN, NAN, NAN, NAN, voted)
    chance = votes.sum(axis=0) / votes.sum()  # [C]
    differ = float(_churn(votes).mean())
    single = np.count_nonzero(chance) == 1
    expected = 0.0 if single else float(1 - np.sum(chance**2))
    kappa = NAN if single else 1 - differ / expected
    return Agreement(runs, examples, kappa, differ, 1 - differ, expected, _jensen_shannon(logits), voted)


def _votes(logits: np.ndarray) -> np.ndarray:
    """How many runs answer each class, [N, C]."""
    _, examples, classes = logits.shape
    places = logits.argmax(axis=2) + classes * np.arange(examples)  # [R, N]
    return np.bincount(places.ravel(), minlength=examples * classes).reshape(examples, classes)


def _churn(votes: np.ndarray) -> np.ndarray:
    """The share of pairs of different runs that answer differently, [N], of two runs or more."""
    runs = int(votes[0].sum())
    return np.asarray(1 - (votes * (votes - 1)).sum(axis=1) / (runs * (runs - 1)))


def _jensen_shannon(logits: np.ndarray) -> float:
    """In nats, mean over examples and pairs of runs: H((p + q) / 2) - (H(p) + H(q)) / 2, one run at a time.

    Of more than MOST_PAIRS pairs not every one is looked at (`example_scores.distances_between`).
    """
    runs, examples, _ = logits.shape
    outputs = special.softmax(logits.astype(float), axis=2)  # [R, N, C]
    entropies = special.entr(outputs).sum(axis=2)  # [R, N]
    total = 0.0
    if runs * (runs - 1) // 2 > MOST_PAIRS:
        distances = example_scores.distances_between(runs, MOST_PAIRS)
        for distance in distances:
            middle = (outputs + np.roll(outputs, distance, axis=0)) / 2
            total += float(special.entr(middle).sum() - entropies.sum())
        return float(max(total / (examples * runs * len(distances)), 0.0))
    for run in range(runs - 1):
        middle = (outputs[run] + outputs[run + 1 :]) / 2  # [R - run - 1, N, C]
        apart = special.entr(middle).sum(axis=2) - (entropies[run] + entropies[run + 1 :]) / 2
        total += float(apart.sum())
    return float(max(total / (examples * runs * (runs - 1) / 2), 0.0))  # rounding may leave -1e-17


def flips(logits: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """The dev examples by how much runs disagree on them, from logits [R, N, C] and labels [N]; most churn first.

    Columns: `example` (its index), `label`, `right` of `runs` (how many runs answer it rightly), `churn` (probability
    that two different runs drawn by lot answer it differently; NaN with one run). Equal churn stands in the order of
    the examples. Raises ValueError as `answers` does.
    """
    right = answers(logits, labels).sum(axis=0)
    runs, examples, _ = logits.shape
    churn = _churn(_votes(logits)) if runs > 1 else np.full(examples, NAN)
    order = np.argsort(-churn, kind="stable")
    columns = {"example": np.arange(examples), "label": labels, "right": right, "runs": np.full(examples, runs)}
    return pd.DataFrame({name: column[order] for name, column in (columns | {"churn": churn}).items()})


# ------------------------------------------------------------------------------------------ scores without the answers


def binomial_floor(score: float, examples: int) -> float:
    """The sd that a finite dev set gives one accuracy (a fraction), sqrt(p (1 - p) / N), where only N is known.

    Raises ValueError for an accuracy outside 0 to 1 or less than one example.
    """
    if not 0 <= score <= 1 or examples < 1:
        raise ValueError(f"an accuracy is 0 to 1, on 1 example or more; got {score} on {examples}")
    return math.sqrt(score * (1 - score) / examples)


def counts_only(scores: np.ndarray, examples: int) -> AnswerCounts:
    """What the accuracies [R] of runs on the same `examples` tell by themselves; see `Counts` for what they can't.

    `training_least` puts the most that single answers can vary, p (1 - p) R/(R-1), into the estimate of `floor`.
    Raises ValueError for no scores, scores outside 0 to 1, or less than one example.
    """
    if scores.ndim != 1 or not len(scores) or not ((scores >= 0) & (scores <= 1)).all() or examples < 1:
        raise ValueError(f"accuracies are [R], 0 to 1, on 1 example or more; got {scores!r} on {examples}")
    runs, mean = len(scores), min(float(scores.mean(dtype=float)), 1.0)
    variance = float(np.var(scores, ddof=1, dtype=float)) if runs > 1 else NAN
    single = mean * (1 - mean) * runs / (runs - 1) if runs > 1 else NAN
    least = _root(_training_variance(variance, single, examples))
    return AnswerCounts(runs, examples, mean, binomial_floor(mean, examples), math.sqrt(variance), least)
