"""Means, deviations, ranks, clusters, modes and pooled rates against libraries, published numbers and brute force."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.stats import clusters, means, modes, pooling, proportions, ranks, stratified
from harness.stats.estimate import Estimate

SCORES = st.lists(st.integers(0, 40).map(lambda k: 0.4 + k / 80), max_size=12).map(np.array)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def ends(estimate: Estimate) -> tuple[float, float]:
    return estimate.low, estimate.high


# ------------------------------------------------------------------------------------------------ means and deviations


def test_students_interval_is_scipys():
    scores = rng(1).normal(size=7)
    expected = stats.ttest_1samp(scores, 0).confidence_interval()
    assert ends(means.student(scores)) == pytest.approx((expected.low, expected.high))
    assert np.isnan([*ends(means.student(scores[:1])), *ends(means.student(np.ones(4)))]).all()
    assert math.isnan(means.student(np.array([])).value)


def test_a_mixture_is_its_parts_at_the_ends():
    good, rate = Estimate(0.8, 0.78, 0.83), Estimate(0.0, 0.0, 0.3)
    mean = means.mixture(good, rate, 0.5)
    assert mean.value == 0.8
    assert mean.high == pytest.approx(0.83)  # no failure can raise it
    assert mean.low == pytest.approx(0.8 - math.hypot(0.02, 0.3 * 0.3))
    certain = means.mixture(Estimate(0.8, 0.8, 0.8), Estimate(0.25, 0.1, 0.5), 0.4)
    assert (certain.value, certain.low, certain.high) == pytest.approx((0.7, 0.6, 0.76))
    worse = means.mixture(Estimate(0.2, 0.2, 0.2), Estimate(0.25, 0.1, 0.5), 0.6)  # a loss: failed runs score higher
    assert (worse.value, worse.low, worse.high) == pytest.approx((0.3, 0.24, 0.4))


def test_means_put_together():
    one, other = Estimate(1.0, 0.7, 1.4), Estimate(3.0, 2.6, 3.3)
    gap = means.minus(one, other)
    assert (gap.value, gap.low, gap.high) == pytest.approx((2.0, 2 - math.hypot(0.4, 0.4), 2 + math.hypot(0.3, 0.3)))
    both = means.weighted([one, other], [0.25, 0.75])
    assert (both.value, both.low) == pytest.approx((2.5, 2.5 - math.hypot(0.25 * 0.3, 0.75 * 0.4)))
    unsure = Estimate(5.0, math.nan, math.nan)
    assert means.weighted([unsure], [1.0]).value == 5.0
    assert math.isnan(means.weighted([unsure], [1.0]).low)


def test_the_intervals_of_a_deviation_follow_bonett():
    scores = np.array([15.83, 16.01, 16.24, 16.42, 15.33, 15.44, 16.88, 16.31])
    n, z = len(scores), stats.norm.ppf(0.975)
    middle = stats.trim_mean(scores, 1 / (2 * math.sqrt(n - 4)))
    kurtosis = n * ((scores - middle) ** 4).sum() / ((scores - scores.mean()) ** 2).sum() ** 2
    c = n / (n - z)
    error = c * math.sqrt((kurtosis - (n - 3) / n) / (n - 1))
    expected = np.sqrt(np.exp(np.log(c * scores.var(ddof=1)) + np.array([-z, z]) * error))
    assert ends(means.deviation(scores)) == pytest.approx(tuple(expected))
    # The ratio of a sample's sd to its own is 1, with p = 1.
    ratio, p = means.deviation_ratio(scores, scores)
    assert (ratio.value, p) == pytest.approx((1, 1))
    double, p = means.deviation_ratio(scores, 5 + 2 * scores)
    assert (double.value, double.low, double.high) == pytest.approx((2, 2 * ratio.low, 2 * ratio.high))
    assert (p < 0.05) == (double.low > 1)


@given(SCORES, SCORES)
def test_laws_of_deviations(x, y):
    for scores in (x, y):
        sd = means.deviation(scores)
        assert math.isnan(sd.low) == (len(scores) < means.FEWEST_FOR_SD or np.ptp(scores) == 0)
        assert math.isnan(sd.low) or sd.low <= sd.high
    (there, p), (back, q) = means.deviation_ratio(x, y), means.deviation_ratio(y, x)
    if not math.isnan(there.low):
        assert p == pytest.approx(q)
        assert (there.low, there.high) == pytest.approx((1 / back.high, 1 / back.low))
        assert there.low <= there.value <= there.high


# --------------------------------------------------------------------------------------------------------------- ranks


@pytest.mark.parametrize(("n", "share", "expected"), [(6, 0.5, (1, 6)), (20, 0.5, (6, 15)), (50, 0.5, (18, 33))])
def test_the_ranks_of_a_median_are_those_of_the_tables(n, share, expected):
    # Conover (1999), Practical Nonparametric Statistics: the sign test's limits at 95 %.
    assert ranks.quantile_ranks(n, share) == expected
    low, high = expected
    inside = stats.binom.cdf(high - 1, n, share) - stats.binom.cdf(low - 1, n, share)
    narrower = stats.binom.cdf(high - 2, n, share) - stats.binom.cdf(low, n, share)
    assert inside >= 0.95 > narrower


def test_quantiles_of_few_and_of_diverged_runs():
    scores = np.array([-math.inf, 0.5, 0.6, 0.7, 0.8])
    median = ranks.quantile(scores, 0.5)
    assert (median.value, *ends(median)) == (0.6, -math.inf, 0.8)
    assert math.isnan(ranks.quantile(scores[1:], 0.5).low)
    tenth = ranks.quantile(np.linspace(0, 1, 8), 0.1)
    assert tenth.value == pytest.approx(np.quantile(np.linspace(0, 1, 8), 0.1))
    assert ends(tenth) == (-math.inf, pytest.approx(3 / 7))
    assert ranks.quantile(np.array([-math.inf, -math.inf, 0.5]), 0.25).value == -math.inf


def test_the_worst_tenth():
    assert ranks.worst_mean(np.arange(8.0)) == 0.0
    assert ranks.worst_mean(np.arange(25.0)) == pytest.approx((0 + 1 + 0.5 * 2) / 2.5)
    assert ranks.worst_mean(np.array([-math.inf, 0.5])) == -math.inf
    assert math.isnan(ranks.worst_mean(np.array([])))


def test_a_profile_of_one_cell_is_wilsons():
    scores, levels = np.array([0.5, 0.5, 0.7, 0.8, -math.inf]), np.array([0.9, 0.5, 0.6, 0.0])
    share, low, high = ranks.performance_profile([scores], levels, [None])
    assert share.tolist() == pytest.approx([np.mean(scores > level) for level in levels])
    bounds = [proportions.wilson(int((scores > level).sum()), 5) for level in levels]
    np.testing.assert_allclose(np.stack([low, high], axis=1), bounds, atol=1e-12)
    twice = ranks.performance_profile([scores, scores], levels, [None, None])
    np.testing.assert_allclose(twice[0] - twice[1], (share - low) / math.sqrt(2))
    assert np.isnan(ranks.performance_profile([], levels, [])).all()


# ------------------------------------------------------------------------------------------------------------ clusters


def grid(*sizes: int) -> pd.DataFrame:
    cells = list(itertools.product(*(range(size) for size in sizes)))
    return pd.DataFrame(cells, columns=["init", "order", "dropout"][: len(sizes)])


def test_one_part_alone_is_the_variance_of_cluster_means():
    levels, y = grid(5, 4), rng(1).normal(size=20)
    error = clusters.error_of_sum(levels[["init"]], (y - y.mean()) / 20)
    of_means = pd.Series(y).groupby(levels["init"]).mean()
    assert error.variance == pytest.approx(max(of_means.var(ddof=1) / 5, y.var(ddof=1) / 20))
    assert error.freedom == 4


def test_two_parts_add_and_their_pairs_are_taken_off():
    levels, y = grid(6, 5), rng(2).normal(size=30) + 3 * rng(3).normal(size=6)[grid(6, 5)["init"]]
    y = y + 2 * rng(4).normal(size=5)[levels["order"]]
    of_means = [pd.Series(y).groupby(levels[name]).mean().var(ddof=1) / levels[name].nunique() for name in levels]
    expected = sum(of_means) - y.var(ddof=1) / 30  # each run is a pair of its own
    assert clusters.error_of_sum(levels, (y - y.mean()) / 30).variance == pytest.approx(expected)


def test_failures_by_data_order_are_a_few_runs_worth():
    # Of 4 × 4 × 4 runs 10, 0, 9 and 4 of 16 fail, by their data order.
    levels = grid(4, 4, 4)
    failed = np.zeros(64, dtype=bool)
    for order, count in enumerate((10, 0, 9, 4)):
        failed[np.flatnonzero(levels["order"] == order)[:count]] = True
    rate = clusters.rate(levels, failed)
    assert rate.value == 23 / 64
    assert rate.low < 0.12
    assert rate.high > 0.65
    assert clusters.effective_runs(levels, failed) < 10
    assert clusters.effective_runs(levels, np.zeros(64, dtype=bool)) == 4
    low, high = proportions.wilson(23, 64)
    assert (low, high) == pytest.approx((0.25, 0.48), abs=0.01)


def test_a_difference_within_shared_seeds_is_paired():
    part, effect = rng(1).normal(size=12), rng(2).normal(0.1, 0.05, size=12)
    levels = pd.DataFrame({"seed": [*range(12), *range(12)]})
    y, second = np.concatenate([part, part + effect]), np.arange(24) >= 12
    estimate, p = clusters.difference(levels, y, second)
    paired = stats.ttest_rel(y[12:], y[:12])
    # The cluster variance is at least that of independent runs of one arm alone; pairing shows in the parts.
    assert estimate.value == pytest.approx(effect.mean())
    assert estimate.low < effect.mean() < estimate.high
    assert p >= paired.pvalue
    assert math.isnan(clusters.difference(levels, y, np.zeros(24, dtype=bool))[1])


def test_seeds_that_fail_everywhere_count_once():
    cell, seed = np.repeat(np.arange(5), 8), np.tile(np.arange(8), 5)
    everywhere = clusters.rate_over_cells(cell, seed, seed < 3)
    low, high = proportions.wilson(3, 8)
    assert everywhere.value == 3 / 8
    assert ends(everywhere) == pytest.approx((low, high), abs=0.02)  # eight runs' worth, but for 8 / 7
    eight, seeds = np.repeat(np.arange(8), 8), np.tile(np.arange(8), 8)
    alike_nowhere = (seeds + eight) % 8 < 3  # each seed fails in three cells
    assert ends(clusters.rate_over_cells(eight, seeds, alike_nowhere)) == pytest.approx(proportions.wilson(24, 64))
    none = clusters.rate_over_cells(cell, seed, np.zeros(40, dtype=bool))
    assert ends(none) == pytest.approx(proportions.wilson(0, 40))


# ----------------------------------------------------------------------------------------------------- modes, pooling


@pytest.mark.parametrize(("n", "middle", "high"), [(10, 0.0978, 0.1396), (20, 0.0733, 0.1051), (50, 0.0489, 0.0703)])
def test_dips_of_uniform_scores_are_the_published_ones(n, middle, high):
    # Hartigan & Hartigan (1985), table 1, in the larger simulation of Maechler's diptest: 50 % and 95 % points.
    dips = modes._dips_of_uniform(n)
    assert np.quantile(dips, 0.5) == pytest.approx(middle, rel=0.03)
    assert np.quantile(dips, 0.95) == pytest.approx(high, rel=0.04)


def test_dips_by_hand():
    assert modes.dip(np.arange(10.0)) == 0.05  # no sample lies nearer to one mode
    assert modes.dip(np.array([0.0, 0, 1, 1])) == 0.25  # two atoms
    assert modes.dip(np.array([0.5] * 9)) == pytest.approx(1 / 18)
    scores = np.concatenate([np.full(12, 0.5), rng().normal(0.69, 0.03, 38)])
    assert modes.dip_p(scores) < 0.01
    assert modes.dip_p(rng(3).normal(size=40)) > 0.1
    assert modes.dip(3 - 2 * scores) == pytest.approx(modes.dip(scores))
    assert math.isnan(modes.dip_p(scores[:7]))
    groups = modes.two_groups(scores)
    assert (groups.lower, groups.upper, groups.lower_median) == (12, 38, 0.5)
    assert groups.upper_median == pytest.approx(np.median(scores[12:]))


def test_pooled_rates_against_integration():
    failed, runs = np.array([0, 1, 6, 0]), np.array([8, 8, 8, 0])
    found = pooling.pooled_rates(failed, runs)
    draw = rng(1)  # of the same prior, weighted by the likelihood
    mean, size = draw.random(400_000), np.exp(draw.uniform(np.log(0.5), np.log(200), 400_000))
    a, b = mean * size, (1 - mean) * size
    weight = np.ones(len(a))
    for k, n in zip(failed[:3], runs[:3], strict=True):
        weight *= stats.betabinom.pmf(k, n, a, b)
    for index in range(3):
        expected = np.average((failed[index] + a) / (runs[index] + size), weights=weight)
        assert found[index].value == pytest.approx(expected, abs=0.01)
        assert found[index].low < found[index].value < found[index].high
    assert math.isnan(found[3].value)
    assert 0 < found[0].value < 0.2  # drawn towards the others
    assert found[2].value < 6 / 8
    assert math.isnan(pooling.pooled_rates(failed[:2], runs[:2])[0].value)


def crossed_arms(strata: int = 1) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Two arms in each stratum, all trained with the same 4 × 4 × 4 seed parts."""
    levels = pd.concat([grid(4, 4, 4)] * (2 * strata), ignore_index=True)
    return levels, np.repeat([False, True] * strata, 64), np.repeat(np.arange(strata), 128)


def test_crossed_arms_differ_by_what_strata_say_and_are_less_sure():
    levels, second, stratum = crossed_arms(2)
    bad_order = (levels["order"] < 2).to_numpy()
    failed = bad_order & np.where(second, levels["init"] < 1, levels["init"] < 3).astype(bool)
    failed |= (stratum == 1) & bad_order
    estimate, p = clusters.contrast(levels, failed, second, stratum)
    counts = [int((failed & (second == arm) & (stratum == s)).sum()) for s in (0, 1) for arm in (False, True)]
    independent = stratified.contrast([(counts[0], 64, counts[1], 64), (counts[2], 64, counts[3], 64)])
    assert estimate.value == pytest.approx(independent.risk_difference.value)
    assert estimate.high - estimate.low > independent.risk_difference.high - independent.risk_difference.low
    assert (p < 0.05) == (estimate.low > 0 or estimate.high < 0)


def test_crossed_arms_of_which_one_fails_whole_are_as_many_runs_as_parts_have_values():
    levels, second, stratum = crossed_arms()
    estimate, p = clusters.contrast(levels, second, second, stratum)
    as_four = stratified.contrast([(0, 4, 4, 4)])
    assert estimate == as_four.risk_difference
    assert p == as_four.p
    assert math.isnan(clusters.contrast(levels, second, np.ones(128, dtype=bool), stratum)[1])
    none = np.zeros(0, dtype=bool)  # of runs that nobody judged
    assert math.isnan(clusters.contrast(levels[:0], none, none, stratum[:0])[1])


def test_crossed_arms_that_do_not_differ_are_told_apart_in_a_twentieth_of_studies():
    levels, second, stratum = crossed_arms()
    draw, rejected, studies = rng(8), 0, 60
    for _ in range(studies):
        hidden = 0.9 * draw.normal(size=(2, 4))[np.where(second, 1, 0), levels["order"]] + 0.43 * draw.normal(size=128)
        rejected += clusters.contrast(levels, hidden < -0.36, second, stratum)[1] < 0.05
    assert rejected <= 6
