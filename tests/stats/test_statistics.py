"""The statistics against other libraries, published numbers, enumeration and simulations of a known truth."""

import dataclasses
import itertools
import math
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.meta_analysis import effectsize_smd
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.nonparametric import rank_compare_2indep
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from harness.stats import bootstrap, proportions, seed_budget, two_samples
from harness.stats.estimate import Estimate

STATISTICS = {
    "mean": lambda a, axis=-1: np.mean(a, axis=axis),
    "median": lambda a, axis=-1: np.median(a, axis=axis),
    "iqm": lambda a, axis=-1: stats.trim_mean(a, 0.25, axis=axis),
}
# Scores as runs have them, of few values, so that ties are common; and any number.
LIKE_RUNS = st.lists(st.integers(0, 8).map(lambda k: 0.5 + k / 16), max_size=9).map(np.array)
SCORES = st.lists(st.floats(-1e3, 1e3, allow_subnormal=False), max_size=9).map(np.array) | LIKE_RUNS
COUNTS = st.integers(0, 12).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def ends(estimate: Estimate) -> tuple[float, float, float]:
    return dataclasses.astuple(estimate)


def unknown(*numbers: float) -> bool:
    return all(math.isnan(number) for number in numbers)


def holds(estimate: Estimate) -> bool:
    """Whether the interval holds the value, as far as both are known; bounds are never known without a value."""
    value, low, high = ends(estimate)
    slack = 1e-9 * max(1.0, abs(value)) if math.isfinite(value) else 0.0
    return unknown(low, high) or low - slack <= value <= high + slack


def two_humps(draw: np.random.Generator, size: int | tuple[int, int], failing: float = 0.2) -> np.ndarray:
    """Scores of runs of which some failed."""
    return np.where(draw.random(size) < failing, draw.normal(0.5, 0.02, size), draw.normal(0.9, 0.01, size))


# --------------------------------------------------------------------------------------------------------------- rates


@pytest.mark.parametrize(("k", "n"), [(0, 8), (3, 8), (8, 8), (19, 30), (1, 1), (7, 4000)])
def test_wilson_and_clopper_pearson_are_statsmodels(k, n):
    assert proportions.wilson(k, n) == pytest.approx(proportion_confint(k, n, method="wilson"), abs=1e-12)
    assert proportions.clopper_pearson(k, n) == pytest.approx(proportion_confint(k, n, method="beta"), abs=1e-12)
    exact = stats.binomtest(k, n).proportion_ci(method="exact")
    assert proportions.clopper_pearson(k, n) == pytest.approx((exact.low, exact.high), abs=1e-8)


def test_the_ends_are_exact():
    for interval in (proportions.wilson, proportions.clopper_pearson):
        for n in (1, 7, 300):
            assert interval(0, n)[0] == 0.0
            assert interval(n, n)[1] == 1.0
        assert unknown(*interval(0, 0))


def test_published_rates():
    # Newcombe (1998), Statistics in Medicine 17, 857–872, table I: 81 of 263.
    assert proportions.wilson(81, 263) == (pytest.approx(0.2553, abs=5e-5), pytest.approx(0.3662, abs=5e-5))
    assert proportions.clopper_pearson(81, 263) == (pytest.approx(0.2527, abs=5e-5), pytest.approx(0.3676, abs=5e-5))


def test_published_difference():
    # Newcombe (1998), Statistics in Medicine 17, 873–890, table II: 56/70 against 48/80, 10/10 against 0/10.
    assert ends(proportions.newcombe(48, 80, 56, 70)) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    assert ends(proportions.newcombe(0, 10, 10, 10)) == pytest.approx((1.0, 0.6075, 1.0), abs=5e-5)


@pytest.mark.parametrize("counts", [(48, 80, 56, 70), (0, 8, 0, 9), (8, 8, 0, 3), (3, 7, 1, 90), (5, 5, 5, 5)])
def test_newcombe_is_statsmodels(counts):
    k1, n1, k2, n2 = counts
    expected = confint_proportions_2indep(k2, n2, k1, n1, method="newcomb", compare="diff")
    found = proportions.newcombe(*counts)
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-12)
    assert found.value == pytest.approx(k2 / n2 - k1 / n1)
    assert found.low < found.high


def test_published_odds_ratio():
    # R's ?fisher.test, the tea tasting lady: 3 of 4 against 1 of 4, 6.408309, p = 0.4857.
    found = proportions.odds_ratio(1, 4, 3, 4)
    assert found.value == pytest.approx(6.408309, rel=1e-5)
    assert proportions.fisher(1, 4, 3, 4) == pytest.approx(0.4857, abs=5e-5)
    # 2.5 % beyond either end; R's root finder stops early there.
    for odds, tail in ((found.low, (3, 4)), (found.high, (0, 1, 2, 3))):
        ways = [math.comb(4, k) ** 2 * odds**k for k in range(5)]
        assert sum(ways[k] for k in tail) / sum(ways) == pytest.approx(0.025, rel=1e-6)


def test_odds_ratios_without_an_end():
    zero, endless = proportions.odds_ratio(3, 9, 0, 9), proportions.odds_ratio(0, 9, 3, 9)
    assert (zero.value, zero.low) == (0.0, 0.0)
    assert (endless.value, endless.high) == (math.inf, math.inf)
    assert endless.low == pytest.approx(1 / zero.high, rel=1e-6)
    for counts in ((0, 5, 0, 6), (5, 5, 6, 6), (0, 0, 1, 2), (1, 2, 0, 0)):
        assert unknown(*ends(proportions.odds_ratio(*counts)))


def by_hand_fisher(k1: int, n1: int, k2: int, n2: int) -> float:
    ways = [math.comb(n1, k) * math.comb(n2, k1 + k2 - k) if k <= k1 + k2 else 0 for k in range(n1 + 1)]
    return sum(way for way in ways if way <= ways[k1]) / sum(ways)


@pytest.mark.parametrize("counts", [(1, 10, 7, 10), (0, 6, 5, 9), (3, 7, 3, 8), (0, 4, 0, 5)])
def test_fisher_by_counting(counts):
    assert proportions.fisher(*counts) == pytest.approx(by_hand_fisher(*counts))


@given(COUNTS, COUNTS)
def test_laws_of_two_rates(first, second):
    k, n = first
    (low, high), (wide_low, wide_high) = proportions.wilson(k, n), proportions.clopper_pearson(k, n)
    if n > 0:
        assert 0 <= low <= k / n <= high <= 1
        assert 0 <= wide_low <= k / n <= wide_high <= 1
        assert proportions.wilson(n - k, n) == pytest.approx((1 - high, 1 - low))
        assert proportions.clopper_pearson(n - k, n) == pytest.approx((1 - wide_high, 1 - wide_low))
    there, back = proportions.newcombe(*first, *second), proportions.newcombe(*second, *first)
    assert ends(there) == pytest.approx((-back.value, -back.high, -back.low), nan_ok=True)
    assert holds(there)
    assert holds(proportions.odds_ratio(*first, *second))
    p = proportions.fisher(*first, *second)
    assert p == pytest.approx(proportions.fisher(*second, *first), nan_ok=True)
    assert unknown(p) == (first[1] == 0 or second[1] == 0)


@settings(max_examples=25)  # statsmodels takes its time
@given(st.lists(st.floats(0, 1) | st.just(math.nan), max_size=8))
def test_holm_is_statsmodels(given_p):
    found, known = proportions.holm(given_p), ~np.isnan(given_p)
    assert np.isnan(found[~known]).all()
    if known.any():
        expected = multipletests(np.array(given_p)[known], method="holm")[1]
        np.testing.assert_allclose(found[known], expected)


def test_never_failed():
    exact, rule = proportions.never_failed(48)
    assert (1 - exact) ** 48 == pytest.approx(0.05)
    assert rule == 3 / 48
    assert proportions.never_failed(1) == (pytest.approx(0.95), 1.0)
    assert unknown(*proportions.never_failed(0))


# ------------------------------------------------------------------------------------------- spread and level of cells


def by_hand_iqm(scores):
    ordered, cut = sorted(scores), len(scores) // 4
    return sum(ordered[cut : len(ordered) - cut]) / (len(ordered) - 2 * cut)


@pytest.mark.parametrize("n", range(1, 14))
def test_simple_statistics(n):
    scores = rng(n).normal(size=(3, n))
    np.testing.assert_allclose(bootstrap.iqm(scores), [by_hand_iqm(row) for row in scores])
    np.testing.assert_allclose(bootstrap.iqm(scores.T, axis=0), bootstrap.iqm(scores))
    assert float(bootstrap.iqm(scores[0])) == pytest.approx(by_hand_iqm(scores[0]))
    if n == 1:
        assert np.isnan(bootstrap.iqr(scores)).all()
        assert np.isnan(bootstrap.mad(scores)).all()
    else:
        np.testing.assert_allclose(bootstrap.iqr(scores), stats.iqr(scores, axis=1))
        np.testing.assert_allclose(bootstrap.mad(scores[0]), np.median(np.abs(scores[0] - np.median(scores[0]))))
    assert unknown(*(float(function(np.array([]))) for function in (bootstrap.iqm, bootstrap.iqr, bootstrap.mad)))


def bootstrap_one(scores, statistic, seed=0, resamples=2000):
    (value,), (low,), (high,) = bootstrap.bootstrap([np.array(scores)], statistic, rng(seed), resamples)
    return Estimate(float(value), float(low), float(high))


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize(
    "scores",
    [rng(1).beta(20, 3, 10), two_humps(rng(2), 11), rng(0).integers(230, 260, 12) / 277],
    ids=["skewed", "failing", "counts"],
)
def test_bca_is_scipys_for_the_same_resamples(statistic, scores):
    # The distribution is made here once more, from the indices, and handed to scipy.
    entropy = int(rng(7).integers(2**63))
    drawn = np.random.default_rng((entropy, len(scores))).integers(0, len(scores), size=(2000, len(scores)))
    scores = np.sort(scores)
    value, resampled = STATISTICS[statistic](scores), STATISTICS[statistic](scores[drawn])
    resampled[np.isclose(resampled, value, rtol=1e-12, atol=0)] = value  # scipy does not see ties that rounding hides
    expected = stats.bootstrap(
        (scores,), STATISTICS[statistic], n_resamples=0, method="BCa",
        bootstrap_result=SimpleNamespace(bootstrap_distribution=resampled),
    ).confidence_interval  # fmt: skip
    found = bootstrap_one(scores, statistic, seed=7)
    assert ends(found) == pytest.approx((value, expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_bca_is_near_scipys_own(statistic):
    scores = rng(5).gamma(3, size=20)
    expected = stats.bootstrap((scores,), STATISTICS[statistic], n_resamples=20_000, rng=rng(1)).confidence_interval
    found = bootstrap_one(scores, statistic, resamples=20_000)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.03 * (found.high - found.low))


@pytest.mark.parametrize("statistic", STATISTICS)
def test_bca_covers_the_truth(statistic):
    draw = rng(9)
    _, low, high = bootstrap.bootstrap(list(draw.normal(size=(1000, 30))), statistic, draw, 1000)
    covered = np.mean((low <= 0) & (high >= 0))
    assert 0.89 <= covered <= 0.98


@settings(max_examples=40)
@given(st.lists(SCORES, max_size=6), st.sampled_from(sorted(STATISTICS)), st.randoms(use_true_random=False))
def test_a_cell_does_not_see_the_others(cells, statistic, shuffle):
    together = np.array(bootstrap.bootstrap(cells, statistic, rng(), 60))
    assert together.shape == (3, len(cells))
    order = list(range(len(cells)))
    shuffle.shuffle(order)
    moved = np.array(bootstrap.bootstrap([cells[i] for i in order], statistic, rng(), 60))
    np.testing.assert_array_equal(moved, together[:, order])  # to the last bit
    for index, scores in enumerate(cells):
        value, low, high = together[:, index]
        alone = ends(bootstrap_one(shuffle.sample(list(scores), len(scores)), statistic, resamples=60))
        np.testing.assert_array_equal(alone, together[:, index])
        assert unknown(value) == (len(scores) < 1)
        assert unknown(low, high) == (len(scores) < 2 or np.ptp(scores) == 0)
        assert holds(Estimate(value, low, high))


def test_many_cells_are_as_one():
    cells = list(two_humps(rng(1), (300, 10)))  # more than a chunk of them
    together = np.array(bootstrap.bootstrap(cells, "mean", rng(), 2000))
    for index in (0, 130, 299):
        np.testing.assert_array_equal(together[:, index], ends(bootstrap_one(cells[index], "mean")))


def test_few_resamples_hold_the_value_too():
    found = [bootstrap_one([0.1, 0.5, 0.6, 0.9], "mean", seed, resamples=1) for seed in range(20)]
    assert all(holds(estimate) for estimate in found)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_shift_and_scale(statistic):
    scores = rng(3).gamma(2, size=9)
    base, moved = bootstrap_one(scores, statistic), bootstrap_one(2 + 3 * scores, statistic)
    assert ends(moved) == pytest.approx([2 + 3 * number for number in ends(base)])


def test_pooled_is_the_stratified_bootstrap():
    strata = [rng(1).normal(0, 1, 8), rng(2).normal(5, 0.1, 12), np.array([3.0])]
    scores = np.concatenate(strata)
    for statistic in ("mean", "median", "iqm"):
        found = bootstrap.pooled(strata, statistic, rng(), 4000)
        draw = rng(11)
        drawn = np.concatenate([stratum[draw.integers(0, len(stratum), (4000, len(stratum)))] for stratum in strata], 1)
        expected = np.quantile(STATISTICS[statistic](drawn), [0.025, 0.975])
        assert found.value == pytest.approx(STATISTICS[statistic](scores))
        assert (found.low, found.high) == pytest.approx(expected, abs=0.1 * (found.high - found.low))
    # Between the strata lies a distance of 5, which the interval does not count.
    mean = bootstrap.pooled(strata, "mean", rng())
    error = math.sqrt(8 * strata[0].var() + 12 * strata[1].var()) / 21
    assert mean.high - mean.low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_many_scores_of_few_values_are_resampled_by_counting(monkeypatch):
    strata = [np.round(rng().normal(0.7, 0.1, 1500), 2), np.round(rng().normal(0.6, 0.05, 1001), 2)]
    x, y = strata[0][:1100], strata[0][100:] + 0.01

    def found():
        bounds = [ends(bootstrap.pooled(strata, name, rng(), 4000)) for name in ("mean", "median", "iqm")]
        return bounds, two_samples._permutation_p(x, y, lambda a, b: np.abs(a / len(x) - b / len(y)), rng())

    assert bootstrap.repeated_values(np.concatenate(strata)) is not None
    counted, p = found()
    monkeypatch.setattr(bootstrap, "MANY", 10**9)
    drawn, other = found()
    assert np.abs(np.subtract(counted, drawn)).max() < 4e-4  # a tenth of the interval
    assert p == pytest.approx(other, abs=0.03)


def test_pooled_of_little():
    assert unknown(*ends(bootstrap.pooled([], "mean", rng())))
    assert unknown(*ends(bootstrap.pooled([np.array([])], "iqm", rng())))
    for strata in ([np.array([1.0])], [np.array([1.0, 1.0]), np.array([2.0])]):
        found = bootstrap.pooled(strata, "median", rng())
        assert found.value == np.median(np.concatenate(strata))
        assert unknown(found.low, found.high)


def test_a_pooled_median_stays_within_the_scores():
    strata = [np.array([0.5] * 4 + [0.8] * 4) + 0.01 * place for place in range(6)]
    together = np.concatenate(strata)
    for statistic in ("median", "iqm"):
        found = bootstrap.pooled(strata, statistic, rng())
        assert together.min() <= found.low < found.value < found.high <= together.max()
    few = bootstrap.pooled([np.array([0.0, 1.0])] * 3, "median", rng())
    assert (few.low, few.high) == (0, 1)


def test_chunks_change_nothing(monkeypatch):
    strata = [two_humps(rng(1), 7), two_humps(rng(2), 5)]
    x, y = strata[0], np.concatenate(strata)

    def everything():
        return [
            *np.concatenate(bootstrap.bootstrap([y, x, -y], "iqm", rng(), 100)),
            *ends(bootstrap.pooled(strata, "iqm", rng(), 100)),
            two_samples.compare_level(x, y, rng()).permutation,
        ]

    before = everything()
    monkeypatch.setattr(bootstrap, "DRAWS", 30)
    monkeypatch.setattr(bootstrap, "CHUNK", 100)
    np.testing.assert_allclose(everything(), before, rtol=1e-12)


# --------------------------------------------------------------------------------------------------- two cells compared


@pytest.mark.parametrize("sizes", [(10, 12), (5, 30), (3, 3)])
def test_tests_of_spread_are_scipys(sizes):
    x, y = rng(1).normal(0, 1, sizes[0]), rng(2).normal(1, 2, sizes[1])
    found = two_samples.compare_spread(x, y, rng())
    assert found.levene == pytest.approx(stats.levene(x, y, center="mean").pvalue)
    assert found.brown_forsythe == pytest.approx(stats.levene(x, y, center="median").pvalue)
    assert found.ratio.value == pytest.approx(y.std(ddof=1) / x.std(ddof=1))


def by_enumeration(x, y, statistic):
    """The share of all relabellings at least as extreme as what was seen."""
    both, seen, found = np.concatenate([x, y]), statistic(x, y), []
    for picked in itertools.combinations(range(len(both)), len(x)):
        rest = np.delete(np.arange(len(both)), picked)
        found.append(statistic(both[list(picked)], both[rest]) >= seen - 1e-9)
    return np.mean(found)


@pytest.mark.parametrize("sizes", [(4, 5), (6, 3), (2, 7), (1, 6)])
def test_permutations_by_enumeration(sizes):
    x, y = rng(3).integers(0, 9, sizes[0]) / 8.0, rng(4).integers(0, 9, sizes[1]) / 5.0
    expected = by_enumeration(x, y, lambda a, b: abs(a.mean() - b.mean()))
    assert two_samples.compare_level(x, y, rng()).permutation == pytest.approx(expected)
    if sizes[0] > 1:
        distances = [np.abs(s - np.median(s)) * math.sqrt(len(s) / (len(s) - 1)) for s in (x, y)]
        with np.errstate(divide="ignore"):
            expected = by_enumeration(*distances, lambda a, b: abs(np.log(a.mean() / b.mean())))
        assert two_samples.compare_spread(x, y, rng()).permutation == pytest.approx(expected)


def test_permutations_are_scipys():
    x, y = rng(1).normal(0, 1, 5), rng(2).normal(0.8, 1, 6)

    def between(a, b, axis):
        return np.abs(a.mean(axis=axis) - b.mean(axis=axis))

    exact = stats.permutation_test((x, y), between, alternative="greater", n_resamples=math.inf, vectorized=True)
    assert two_samples.compare_level(x, y, rng()).permutation == pytest.approx(exact.pvalue)
    x, y = rng(1).normal(0, 1, 12), rng(2).normal(0.8, 1, 15)
    drawn = stats.permutation_test((x, y), between, alternative="greater", n_resamples=9999, vectorized=True, rng=rng())
    found = two_samples.compare_level(x, y, rng()).permutation
    assert found == pytest.approx(drawn.pvalue, abs=0.02)
    assert found * 5000 == pytest.approx(round(found * 5000))  # (b + 1) / (m + 1)
    assert two_samples.compare_level(x, y + 100, rng()).permutation == 1 / 5000


@pytest.mark.parametrize("draw_scores", [lambda g, n: g.normal(size=n), two_humps], ids=["normal", "failing"])
def test_the_permutation_test_of_spread_keeps_its_level(draw_scores, monkeypatch):
    monkeypatch.setattr(two_samples, "PERMUTATIONS", 199)
    draw, runs = rng(6), 600
    found = [two_samples.compare_spread(draw_scores(draw, 10), draw_scores(draw, 15), draw) for _ in range(runs)]
    assert 0.02 <= np.mean([test.permutation <= 0.05 for test in found]) <= 0.075
    assert np.mean([test.brown_forsythe <= 0.05 for test in found]) <= 0.07


def test_the_permutation_test_of_spread_has_power():
    draw = rng(6)
    found = [two_samples.compare_spread(draw.normal(size=20), draw.normal(0, 3, 20), draw) for _ in range(30)]
    assert np.mean([test.permutation <= 0.05 for test in found]) > 0.8


def test_spread_of_the_degenerate():
    flat, varied = np.full(4, 0.1), np.array([0.1, 0.4, 0.2, 0.9])
    compare = two_samples.compare_spread
    for x, y, value in ((flat, varied, math.inf), (varied, flat, 0.0), (flat, flat, math.nan)):
        ratio = compare(x, y, rng()).ratio
        assert ratio.value == pytest.approx(value, nan_ok=True)
        assert unknown(ratio.low, ratio.high)
    assert unknown(compare(flat, flat, rng()).permutation, compare(flat, flat, rng()).levene)
    two = compare(np.array([0.1, 0.2]), np.array([0.3, 0.7]), rng())  # distances cannot vary within two
    assert unknown(two.levene, two.brown_forsythe, two.ratio.low)
    assert two.ratio.value == pytest.approx(4)
    assert two.permutation == pytest.approx(2 / 6)
    lone = compare(np.array([0.1]), varied, rng())
    assert unknown(*ends(lone.ratio), lone.levene, lone.brown_forsythe, lone.permutation)
    assert holds(compare(np.array([0.0, 0, 0, 0, 1]), varied, rng()).ratio)
    both = compare(np.array([0.0, 0, 0, 0, 1]), np.array([0.0, 0, 0, 2]), rng()).ratio
    assert both.low < both.value < both.high
    # A sum of distances that is 0 but for rounding is no spread: only a group of zeros is as extreme as the flat one.
    flat, x = np.full(4, 0.5), np.array([2.3, 2.8, 0.7, 0.6, 2.3])
    distances = [np.zeros(4), np.abs(x - 2.3) * math.sqrt(5 / 4)]
    zeros = sum(not np.concatenate(distances)[list(pick)].any() for pick in itertools.combinations(range(9), 4))
    zeros += sum(not np.concatenate(distances)[list(pick)].any() for pick in itertools.combinations(range(9), 5))
    assert compare(flat, x, rng()).permutation == pytest.approx(zeros / math.comb(9, 4))


@pytest.mark.parametrize("sizes", [(10, 12), (4, 30), (2, 2)])
def test_tests_of_level_are_libraries(sizes):
    x, y = rng(1).normal(0, 1, sizes[0]), rng(2).normal(1, 2, sizes[1])
    found = two_samples.compare_level(x, y, rng())
    welch = stats.ttest_ind(y, x, equal_var=False)
    assert found.welch == pytest.approx(welch.pvalue)
    means = CompareMeans(DescrStatsW(y), DescrStatsW(x))
    expected = (y.mean() - x.mean(), *means.tconfint_diff(usevar="unequal"))
    assert ends(found.difference) == pytest.approx(expected)
    order = two_samples.compare_ranks(x, y)
    assert order.mann_whitney == pytest.approx(stats.mannwhitneyu(x, y).pvalue)
    assert order.improvement.value == pytest.approx(np.mean(y[:, None] > x))
    assert found.effect.value == pytest.approx(
        effectsize_smd(y.mean(), y.std(ddof=1), len(y), x.mean(), x.std(ddof=1), len(x))[0],
        rel=0.02 if sum(sizes) > 4 else 0.04,  # statsmodels takes the approximate correction
    )


def test_published_effects():
    # Normand (1999), stays after stroke, the first two studies; metafor's test of escalc(measure = "SMD").
    studies = [((75, 64, 156), (55, 47, 155), -0.3552, 0.0131), ((29, 4, 32), (27, 7, 31), -0.3479, 0.0645)]
    for (m1, sd1, n1), (m2, sd2, n2), value, variance in studies:
        parts = []
        for mean, sd, n in ((m1, sd1, n1), (m2, sd2, n2)):
            scores = rng(n).normal(size=n)
            parts.append(mean + sd * (scores - scores.mean()) / scores.std(ddof=1))
        effect = two_samples.compare_level(*parts, rng()).effect
        assert effect.value == pytest.approx(value, abs=5e-5)
        assert ((effect.high - effect.low) / 2 / stats.norm.ppf(0.975)) ** 2 == pytest.approx(variance, abs=5e-5)


def test_the_improvements_interval_is_newcombes():
    x, y = np.array([3.0, 4, 5, 1, 2, 2]), np.array([4.0, 6, 3, 7, 5, 9, 8, 2])
    found = two_samples.compare_ranks(x, y).improvement
    assert found.value == pytest.approx(rank_compare_2indep(y, x).prob1)
    # Method 5 as a polynomial in t: (U - t)² = z² t (1 - t) (1 + h (1 - t) / (2 - t) + h t / (1 + t)) / (m n).
    t, m, n, z2 = np.polynomial.Polynomial([0, 1]), 6, 8, stats.chi2.ppf(0.95, 1)
    h = (m + n) / 2 - 1
    left = (found.value - t) ** 2 * (2 - t) * (1 + t) * (m * n)
    right = z2 * t * (1 - t) * ((2 - t) * (1 + t) + h * (1 - t) * (1 + t) + h * t * (2 - t))
    roots = [root.real for root in (left - right).roots() if abs(root.imag) < 1e-9 and 0 <= root.real <= 1]
    assert sorted(roots) == pytest.approx([found.low, found.high])
    certain = two_samples.compare_ranks(np.arange(5), np.arange(5) + 10.0).improvement
    assert certain.value == certain.high == 1.0
    assert 0.5 < certain.low < 0.95


def test_the_improvement_covers_the_truth():
    draw, hits = rng(2), 0
    truth = stats.norm.cdf(1 / math.sqrt(2))
    for _ in range(400):
        x, y = draw.normal(0, 1, 10), draw.normal(1, 1, 12)
        found = two_samples._improvement(float(np.mean(y[:, None] > x)), 10, 12)
        hits += found.low <= truth <= found.high
    assert 0.92 <= hits / 400 <= 0.985


def test_level_of_the_degenerate():
    flat = np.full(4, 0.1)
    same = two_samples.compare_level(flat, flat, rng())
    assert (same.difference.value, same.permutation) == (0.0, 1.0)
    order = two_samples.compare_ranks(flat, flat)
    assert (order.improvement.value, order.mann_whitney) == (0.5, 1.0)
    assert unknown(same.welch, same.difference.low, *ends(same.effect))
    apart = two_samples.compare_level(flat, flat + 0.3, rng())
    assert apart.difference.value == pytest.approx(0.3)
    assert unknown(apart.welch, apart.difference.low, *ends(apart.effect))
    assert apart.permutation == pytest.approx(2 / 70)
    lone = two_samples.compare_level(np.array([0.5]), np.array([0.1, 0.2, 0.4]), rng())
    assert unknown(lone.welch, lone.difference.low)
    assert unknown(*ends(lone.effect))  # of one score nobody knows its side's spread
    nothing = two_samples.compare_level(np.array([]), flat, rng())
    assert unknown(*ends(nothing.difference), nothing.permutation)
    order = two_samples.compare_ranks(np.array([]), flat)
    assert unknown(order.mann_whitney, *ends(order.improvement))


def test_a_run_that_diverged_is_the_worst():
    x, y = np.array([-math.inf, 0.5, 0.6]), np.array([0.4, 0.55, -math.inf, 0.7])
    order = two_samples.compare_ranks(x, y)
    assert order.improvement.value == pytest.approx(np.mean([(b > a) + (a == b) / 2 for a in x for b in y]))
    worse = two_samples.compare_ranks(x[1:], y)
    assert worse.improvement.value < order.improvement.value


@settings(max_examples=60)
@given(SCORES, SCORES)
def test_swapping_two_cells(x, y):
    there, back = two_samples.compare_level(x, y, rng()), two_samples.compare_level(y, x, rng())
    for name in ("difference", "effect"):
        value, low, high = ends(getattr(there, name))
        assert (-value, -high, -low) == pytest.approx(ends(getattr(back, name)), nan_ok=True, rel=1e-6, abs=1e-9)
        assert holds(getattr(there, name))
    order, reverse = two_samples.compare_ranks(x, y), two_samples.compare_ranks(y, x)
    value, low, high = ends(order.improvement)
    assert (1 - value, 1 - high, 1 - low) == pytest.approx(ends(reverse.improvement), nan_ok=True, abs=1e-9)
    assert holds(order.improvement)
    assert there.welch == pytest.approx(back.welch, nan_ok=True, rel=1e-6)
    assert order.mann_whitney == pytest.approx(reverse.mann_whitney, nan_ok=True)
    assert there.permutation == pytest.approx(back.permutation, nan_ok=True, abs=0.03)
    spread, other = two_samples.compare_spread(x, y, rng()), two_samples.compare_spread(y, x, rng())
    inverse = math.inf if other.ratio.value == 0 else 1 / other.ratio.value
    assert spread.ratio.value == pytest.approx(inverse, nan_ok=True)
    assert holds(spread.ratio)
    assert spread.brown_forsythe == pytest.approx(other.brown_forsythe, nan_ok=True, rel=1e-6)
    assert spread.p == pytest.approx(other.p, nan_ok=True, rel=1e-6)
    for p in (spread.p, spread.levene, spread.brown_forsythe, spread.permutation, there.welch, there.permutation):
        assert unknown(p) or 0 <= p <= 1


@settings(max_examples=40)
@given(LIKE_RUNS, LIKE_RUNS, st.floats(0.1, 100))
def test_the_unit_changes_no_test(x, y, unit):
    for compare in (two_samples.compare_level, two_samples.compare_spread):
        base, moved = compare(x, y, rng()), compare(unit * x + 1, unit * y + 1, rng())
        for name in ("permutation", "welch", "brown_forsythe"):
            if hasattr(base, name):
                assert getattr(moved, name) == pytest.approx(getattr(base, name), nan_ok=True, rel=1e-6, abs=1e-12)


# ----------------------------------------------------------------------------------------------------------- best of n


@pytest.mark.parametrize("better", [True, False])
def test_expected_best_by_enumeration(better):
    scores = np.array([0.9, 0.5, 0.52, 0.9, 0.87])
    (unbiased, expected), best = seed_budget.expected_best(scores, better), max if better else min
    assert len(unbiased) == len(expected) == 5
    for n in range(1, 6):
        replaced = [best(draw) for draw in itertools.product(scores, repeat=n)]
        kept = [best(draw) for draw in itertools.combinations(scores, n)]
        assert expected[n - 1] == pytest.approx(np.mean(replaced))
        assert unbiased[n - 1] == pytest.approx(np.mean(kept))


def test_the_unbiased_best_is_unbiased():
    draw = rng(4)
    unbiased, expected = np.mean([seed_budget.expected_best(draw.random(6), True) for _ in range(3000)], axis=0)
    n = np.arange(1, 7)
    np.testing.assert_allclose(unbiased, n / (n + 1), atol=0.01)  # of the largest of n uniform numbers
    assert expected[-1] < 6 / 7 - 0.02


@given(SCORES, st.booleans())
def test_laws_of_the_best(scores, better):
    unbiased, expected = seed_budget.expected_best(scores, better)
    assert len(unbiased) == len(expected) == len(scores)
    if len(scores) == 0:
        return
    sign, slack = (1 if better else -1), 1e-9 * (1 + np.abs(scores).max())
    assert (np.diff(sign * expected) >= -slack).all()
    assert (np.diff(sign * unbiased) >= -slack).all()
    assert expected[0] == pytest.approx(scores.mean(), abs=slack)
    assert unbiased[0] == pytest.approx(scores.mean(), abs=slack)
    assert unbiased[-1] == pytest.approx(scores.max() if better else scores.min(), abs=slack)
    np.testing.assert_array_equal(unbiased, -seed_budget.expected_best(-scores, not better)[0])


# -------------------------------------------------------------------------------------------------------- seed budgets


def test_half_widths():
    scores = rng(1).normal(size=12)
    interval = stats.ttest_1samp(scores, 0).confidence_interval(0.95)
    seen, low, high = seed_budget.mean_half_width(scores.std(ddof=1), 12, 12)
    assert seen == pytest.approx((interval.high - interval.low) / 2)
    # A pilot's sd is low in one of ten: then the truth is as far above it as `high` says.
    drawn = rng(2).normal(size=(20_000, 12)).std(axis=1, ddof=1)
    assert np.mean(drawn * high / seen < 1) == pytest.approx(0.1, abs=0.01)
    assert np.mean(drawn * low / seen > 1) == pytest.approx(0.1, abs=0.01)
    seen, low, high = seed_budget.rate_half_width(np.array([6, 0]), np.array([20, 8]), np.array([20, 30]))
    wilson = np.array([proportion_confint(k, n, method="wilson") for k, n in ((6, 20), (0, 30))])
    assert seen == pytest.approx((wilson[:, 1] - wilson[:, 0]) / 2)
    possible = stats.beta(0.5, 8.5).rvs(4000, random_state=0)
    widths = [np.diff(proportion_confint(30 * p, 30, method="wilson"))[0] / 2 for p in possible]
    assert high[1] == pytest.approx(np.quantile(widths, 0.9), abs=0.01)
    assert (low <= seen).all()
    assert unknown(*map(float, (
        *seed_budget.mean_half_width(1.0, 8, 1), *seed_budget.mean_half_width(math.nan, 8, 5),
        *seed_budget.mean_half_width(1.0, 1, 5), *seed_budget.rate_half_width(0, 0, 5),
        *seed_budget.rate_half_width(3, 8, 0),
    )))  # fmt: skip


@pytest.mark.parametrize(("n", "level"), [(1, 0.05), (4, 0.05), (9, 0.05), (14, 0.05), (14, 0.3), (23, 0.01)])
def test_the_region_in_which_fisher_rejects(n, level):
    edge = seed_budget._fisher_edge(n, level)
    for a in range(n + 1):
        rejected = [b for b in range(a) if stats.fisher_exact([[a, n - a], [b, n - b]]).pvalue <= level]
        assert rejected == list(range(edge[a]))


@pytest.mark.parametrize("n", [200, 1000])
def test_the_region_of_many_seeds(n):
    edge = seed_budget._fisher_edge(n, 0.05)
    for a in (6, n // 7, n // 2, n - 9):
        if edge[a] > 0:
            assert proportions.fisher(int(edge[a]) - 1, n, a, n) <= 0.05
        assert proportions.fisher(int(edge[a]), n, a, n) > 0.05


def by_hand_power(p1: float, p2: float, n: int) -> float:
    first, second = (stats.binom.pmf(range(n + 1), n, p) for p in (p1, p2))
    return sum(
        first[a] * second[b] for a in range(n + 1) for b in range(n + 1) if by_hand_fisher(a, n, b, n) <= 0.05 + 1e-12
    )


@pytest.mark.parametrize("counts", [(1, 10, 9, 10), (0, 8, 5, 8), (3, 10, 10, 10), (0, 5, 5, 5)])
def test_seeds_for_failure_by_enumeration(counts):
    k1, n1, k2, n2 = counts
    found = seed_budget.seeds_for_failure(*counts)
    powers = [by_hand_power(k1 / n1, k2 / n2, n) for n in range(1, found + 11)]
    enough = [power >= 0.8 for power in powers]
    p1, p2 = np.array([k1 / n1]), np.array([k2 / n2])
    both = seed_budget.fisher_power(p1, p2, found, 0.05) + seed_budget.fisher_power(p2, p1, found, 0.05)
    assert both == pytest.approx(powers[found - 1])
    assert all(enough[found - 1 :])
    assert not enough[found - 2]


def test_seeds_for_failure_of_a_textbook():
    # Casagrande, Pike and Smith (1978): exact sizes lie near their approximation, here for 0.1 against 0.3.
    p1, p2, z = 0.1, 0.3, stats.norm.ppf([0.975, 0.8])
    mean = (p1 + p2) / 2
    plain = (z[0] * math.sqrt(2 * mean * (1 - mean)) + z[1] * math.sqrt(p1 * (1 - p1) + p2 * (1 - p2))) ** 2
    plain /= (p1 - p2) ** 2
    approximate = plain / 4 * (1 + math.sqrt(1 + 4 / (plain * abs(p1 - p2)))) ** 2
    assert seed_budget.seeds_for_failure(10, 100, 30, 100) == pytest.approx(approximate, rel=0.05)


def test_a_power_like_a_saw(monkeypatch):
    def half(p1, p2, n, level):  # in one of the two directions
        return np.array([[0.45 if n >= 30 and n not in (33, 41) else 0.35]])

    monkeypatch.setattr(seed_budget, "fisher_power", half)
    assert seed_budget.seeds_for_failure(1, 10, 3, 10) == 42
    assert seed_budget.seeds_for_failure(1, 10, 3, 10, limit=40) == 34


def test_seeds_for_failure_of_the_degenerate():
    seeds = seed_budget.seeds_for_failure
    assert seeds(3, 10, 6, 20) is seeds(0, 0, 1, 2) is seeds(0, 8, 0, 9) is None
    assert seeds(10, 100, 12, 100) is None  # beyond the limit
    needed = seeds(5, 48, 15, 48)
    assert needed is not None
    assert seeds(5, 48, 15, 48, limit=needed) == needed
    assert seeds(5, 48, 15, 48, limit=needed - 1) is None
    assert seeds(15, 48, 5, 48) == needed
    assert seeds(33, 48, 43, 48) == needed  # of success instead of failure
    assert seeds(5, 48, 15, 48, power=0.9) > needed
    assert seeds(5, 48, 15, 48, level=0.1) < needed


def test_the_seeds_needed_of_a_large_pilot_are_those_of_its_rates():
    exact = seed_budget.seeds_for_failure(0, 10, 30, 100)
    assert exact == 21
    needed = seed_budget.needed_for_failure(0, 10_000, 3000, 10_000)
    assert needed.low <= exact <= needed.high <= needed.low + 2
    assert abs(needed.assured - exact) <= 1


@pytest.mark.parametrize("counts", [(0, 8, 3, 8), (2, 10, 8, 10)])
def test_assurance_is_the_power_of_drawn_rates(counts):
    k1, n1, k2, n2 = counts
    needed = seed_budget.needed_for_failure(*counts)
    draw = rng(3)
    p1, p2 = draw.beta(k1 + 0.5, n1 - k1 + 0.5, 20_000), draw.beta(k2 + 0.5, n2 - k2 + 0.5, 20_000)
    n = needed.assured
    first, second = draw.binomial(n, p1), draw.binomial(n, p2)
    rejects = {(a, b): b > a and by_hand_fisher(a, n, b, n) <= 0.05 for a, b in set(zip(first, second, strict=True))}
    assert np.mean([rejects[pair] for pair in zip(first, second, strict=True)]) == pytest.approx(0.8, abs=0.02)
    # In a tenth of them the power is 80 % at `low` already, in nine tenths at `high`, and not a seed before.
    for seeds, share in ((needed.low, 0.1), (needed.high, 0.9)):
        one_less, enough = (
            np.mean(seed_budget.fisher_power(p2[:400], p1[:400], n, 0.05).diagonal() >= 0.8) for n in (seeds - 1, seeds)
        )
        assert one_less - 0.04 <= share <= enough + 0.04


def test_a_pilot_without_a_difference_cannot_tell():
    for counts in ((0, 8, 0, 8), (3, 8, 6, 16), (0, 0, 1, 8)):
        assert seed_budget.needed_for_failure(*counts) == seed_budget.UNTOLD
    assert seed_budget.needed_for_failure(0, 8, 2, 8).high is None
    assert seed_budget.needed_for_failure(2, 8, 0, 8) == seed_budget.needed_for_failure(0, 8, 2, 8)
    assert seed_budget.needed_for_failure(0, 8, 8, 8).high <= 8


def test_the_seeds_needed_for_a_mean_have_the_power_if_the_pilot_is_large():
    draw = rng(5)
    x, y = draw.normal(0, 1, 4000), draw.normal(1, 1.5, 4000)
    needed = seed_budget.needed_for_mean(x, y, rng())
    drawn = [draw.normal(mean, sd, (20_000, needed.assured)) for mean, sd in ((0, 1), (1, 1.5))]
    power = np.mean(stats.ttest_ind(*drawn, axis=1, equal_var=False).pvalue <= 0.05)
    assert power == pytest.approx(0.8, abs=0.03)
    assert needed.low <= needed.assured <= needed.high <= 1.2 * needed.low


def test_a_pilot_that_is_worth_less_leaves_more_open():
    draw = rng(4)
    x, y = draw.normal(0, 1, 20), draw.normal(3, 1, 20)
    independent, crossed = seed_budget.needed_for_mean(x, y, rng()), seed_budget.needed_for_mean(x, y, rng(), (4, 5))
    assert crossed.low <= independent.low <= independent.high < (crossed.high or 10_000)
    plain, shared = seed_budget.needed_for_failure(2, 20, 14, 20), seed_budget.needed_for_failure(0.5, 5, 3.5, 5)
    assert plain.high < (shared.high or 10_000)
    assert seed_budget.needed_for_mean(x, y, rng(), (1, 9)) == seed_budget.UNTOLD


def test_the_seeds_needed_for_a_mean_of_the_degenerate():
    seeds, flat, varied = seed_budget.needed_for_mean, np.full(5, 0.9), np.array([0.5, 0.9, 0.6])
    for x, y in ((flat, flat), (varied, varied), (flat[:1], varied), (np.array([]), varied), (flat, flat - 0.1)):
        assert seeds(x, y, rng()) == seed_budget.UNTOLD
    assert seeds(flat, np.array([0.1, 0.11, 0.1]), rng()).high <= 3
    needed = seeds(flat, varied, rng())
    assert seeds(100 * flat + 7, 100 * varied + 7, rng()) == needed
    assert seeds(varied, flat, rng()).low in range(needed.low - 2, needed.low + 3)


@settings(max_examples=40)
@given(SCORES, SCORES)
def test_the_seeds_needed_for_a_mean_never_fail(x, y):
    needed = seed_budget.needed_for_mean(x, y, rng())
    assert needed.low is None or needed.low >= 2
    assert needed.high is None or needed.low <= needed.high <= seed_budget.LIMIT


def test_the_import_is_light():
    heavy = ("statsmodels", "pandas", "torch")
    code = f"import sys, harness.stats.proportions; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_of_very_many_scores_n_stops_at_the_most_that_anybody_picks_of():
    scores = rng().random(3000)
    unbiased, expected = seed_budget.expected_best(scores, True, most=50)
    assert len(unbiased) == len(expected) == 50
    assert len(seed_budget.expected_best(scores[:40], True, most=50)[0]) == 40
    assert (unbiased[9], expected[9]) == pytest.approx((10 / 11, 10 / 11), abs=0.01)  # of uniform scores
