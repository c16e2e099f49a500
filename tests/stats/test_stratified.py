"""Two rates within strata: the test is Cochran, Mantel and Haenszel's, and the interval is that test turned round."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import StratifiedTable
from statsmodels.stats.proportion import score_test_proportions_2indep

from harness.stats import proportions, stratified
from harness.stats.estimate import Estimate

COUNTS = st.integers(0, 12).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
STRATA = st.lists(st.tuples(COUNTS, COUNTS).map(lambda two: (*two[0], *two[1])), max_size=5)
Z = stats.norm.ppf(0.975)


def ends(estimate: Estimate) -> tuple[float, float, float]:
    return dataclasses.astuple(estimate)


def unknown(*numbers: float) -> bool:
    return all(math.isnan(number) for number in numbers)


def holds(estimate: Estimate) -> bool:
    value, low, high = ends(estimate)
    return unknown(low, high) or low - 1e-9 * max(1.0, low) <= value <= high + 1e-9


def by_search(strata, difference: float) -> float:
    """The score of a common difference, with the likeliest rates of each stratum found by searching."""
    distance = variance = 0.0
    for k1, n1, k2, n2 in strata:

        def unlikely(p, k1=k1, n1=n1, k2=k2, n2=n2):
            rates = ((p, k1, n1), (p + difference, k2, n2))
            return -sum(k * np.log(max(r, 1e-300)) + (n - k) * np.log(max(1 - r, 1e-300)) for r, k, n in rates)

        bounds = max(0.0, -difference), min(1.0, 1 - difference)
        p = optimize.minimize_scalar(unlikely, bounds=bounds, method="bounded", options={"xatol": 1e-11}).x
        q, n, weight = p + difference, n1 + n2, n1 * n2 / (n1 + n2)
        distance += weight * (k2 / n2 - k1 / n1 - difference)
        variance += weight**2 * (p * (1 - p) / n1 + q * (1 - q) / n2) * n / (n - 1)
    return distance / math.sqrt(variance)


def test_published_score_intervals():
    # Newcombe (1998), Statistics in Medicine 17, 873-890, table II, method 6 (Miettinen and Nurminen), cases a and b.
    for strata, expected in (((48, 80, 56, 70), (0.0528, 0.3382)), ((3, 10, 9, 10), (0.1700, 0.8406))):
        found = stratified.contrast([strata]).risk_difference
        assert (found.low, found.high) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(
    "strata", [[(3, 8, 0, 8)], [(1, 5, 4, 5), (0, 3, 1, 3), (2, 3, 3, 3)], [(0, 4, 1, 20), (12, 20, 4, 4)]]
)
def test_the_ends_are_where_the_test_rejects(strata):
    found = stratified.contrast(strata).risk_difference
    assert by_search(strata, found.low) == pytest.approx(Z, rel=1e-4)
    assert by_search(strata, found.high) == pytest.approx(-Z, rel=1e-4)


@pytest.mark.parametrize("counts", [(6, 8, 1, 8), (5, 20, 13, 15), (10, 30, 12, 25)])
def test_one_stratum_is_statsmodels_score_test(counts):
    k1, n1, k2, n2 = counts
    expected = score_test_proportions_2indep(
        k2, n2, k1, n1, value=0, compare="diff", correction=True, return_results=False
    )
    assert stratified.contrast([counts]).p == pytest.approx(expected[1])


def least_exact(strata) -> float:
    """The smallest p that the exact conditional test can give with these margins, by going through all outcomes."""
    chances = {0: 1.0}  # of each number of failures in arm 2
    for k1, n1, k2, n2 in strata:
        total, ways = k1 + k2, math.comb(n1 + n2, k1 + k2)
        sums: dict[int, float] = {}
        for before, chance in chances.items():
            for value in range(max(0, total - n1), min(total, n2) + 1):
                added = chance * math.comb(n2, value) * math.comb(n1, total - value) / ways
                sums[before + value] = sums.get(before + value, 0.0) + added
        chances = sums
    return sum(chance for chance in chances.values() if chance <= min(chances.values()) * (1 + 1e-7))


@given(STRATA.filter(lambda strata: any(n1 and n2 for _, n1, _, n2 in strata)))
@settings(max_examples=50, deadline=None)
def test_no_p_is_below_what_an_exact_test_of_these_margins_can_give(strata):
    used = [stratum for stratum in strata if stratum[1] and stratum[3]]
    found = stratified.least_exact_p(*np.array(used, dtype=float).T)
    assert found == pytest.approx(min(1.0, least_exact(used)), rel=1e-6)
    assert stratified.contrast(strata).p >= found


def test_one_failure_of_two_runs_is_no_difference():
    # χ² finds p = 0.0017 where 1 of 2 runs failed beside none of 20; by chance that one is among the 2 in 1 of 11.
    found = stratified.contrast([(0, 20, 1, 2)])
    assert found.p == pytest.approx(1 / 11)
    assert found.risk_difference.low == 0
    assert stratified.least_p([(0, 3, 0, 3)]) == pytest.approx(0.1)
    assert stratified.least_p([(0, 4, 0, 4)]) == pytest.approx(2 / 70)


def test_never_failed_in_any_stratum():
    found = stratified.contrast([(0, 3, 0, 3)] * 16)
    assert found.risk_difference.value == 0
    assert found.risk_difference.high == pytest.approx(-found.risk_difference.low)
    assert 0.05 < found.risk_difference.high < 0.15
    assert unknown(*ends(found.odds_ratio))
    assert (found.p, found.strata, found.informative) == (1.0, 16, 0)


def test_unbalanced_strata_that_do_not_differ():
    # The pooled counts, 9/12 against 3/12, differ by a half; the strata do not differ.
    found = stratified.contrast([(0, 3, 0, 9), (9, 9, 3, 3)])
    assert found.risk_difference.value == 0
    assert found.risk_difference.low < -0.1 < 0.1 < found.risk_difference.high
    assert found.p == 1


@pytest.mark.parametrize(
    ("rates", "difference", "n1", "n2"),
    [
        ([0.1, 0.6], 0.0, [20, 4], [4, 20]),  # where Sato's interval covers .88
        ([0.05, 0.9], 0.0, [16, 3], [3, 16]),
        ([0.05, 0.1, 0.2, 0.4], 0.1, [10] * 4, [10] * 4),
        ([0.02] * 16, 0.0, [3] * 16, [3] * 16),
    ],
)
def test_the_common_difference_covers_the_truth(rates, difference, n1, n2):
    draw, shape = np.random.default_rng(1), (2000, len(rates))
    first, second = draw.binomial(n1, rates, shape), draw.binomial(n2, np.array(rates) + difference, shape)
    n1, n2 = (np.broadcast_to(np.array(n, dtype=float), shape) for n in (n1, n2))
    _, low, high = stratified.score_differences(first, n1, second, n2)
    assert np.mean((low <= difference + 1e-9) & (difference - 1e-9 <= high)) >= 0.935


@given(STRATA)
def test_the_interval_leaves_out_0_where_the_test_rejects(strata):
    found = stratified.contrast(strata)
    _, low, high = ends(found.risk_difference)
    if abs(found.p - 0.05) > 1e-6 and not unknown(found.p):
        assert (low > 0 or high < 0) == (found.p < 0.05)


# Admissions to Berkeley, six departments (R's UCBAdmissions): admitted and all men, admitted and all women.
BERKELEY = [
    (512, 825, 89, 108),
    (353, 560, 17, 25),
    (120, 325, 202, 593),
    (138, 417, 131, 375),
    (53, 191, 94, 393),
    (22, 373, 24, 341),
]
# Rothman, Greenland and Lash (2008), table 15-1: deaths under placebo and tolbutamide, below and from 55 years on.
TOLBUTAMIDE = [(5, 120, 8, 106), (16, 85, 22, 98)]


def table_of(strata):
    return StratifiedTable([np.array([[k2, n2 - k2], [k1, n1 - k1]], dtype=float) for k1, n1, k2, n2 in strata])


def test_published_strata():
    berkeley = stratified.contrast(BERKELEY)
    # R's mantelhaen.test(UCBAdmissions, correct = FALSE): X² = 1.5246, p = 0.2169; men over women 0.9046968.
    assert berkeley.p == pytest.approx(stats.chi2.sf(1.5246, 1), abs=1e-5)
    assert 1 / berkeley.odds_ratio.value == pytest.approx(0.9046968, abs=1e-6)
    assert (1 / berkeley.odds_ratio.high, 1 / berkeley.odds_ratio.low) == pytest.approx(
        (0.7719074, 1.0603298), abs=1e-6
    )
    assert (berkeley.strata, berkeley.informative) == (6, 6)
    # metafor's test of its rma.mh on these data.
    found = stratified.contrast(TOLBUTAMIDE)
    assert found.risk_difference.value == pytest.approx(0.0349, abs=5e-5)
    assert math.log(found.odds_ratio.value) == pytest.approx(0.3387, abs=5e-5)
    assert found.p == pytest.approx(0.2750, abs=5e-5)


@pytest.mark.parametrize("strata", [BERKELEY, TOLBUTAMIDE, [(1, 5, 4, 5), (0, 3, 1, 3), (2, 3, 3, 3)]])
def test_strata_are_statsmodels(strata):
    found, table = stratified.contrast(strata), table_of(strata)
    assert found.odds_ratio.value == pytest.approx(table.oddsratio_pooled)
    assert (found.odds_ratio.low, found.odds_ratio.high) == pytest.approx(table.oddsratio_pooled_confint())
    assert found.p == pytest.approx(table.test_null_odds(correction=False).pvalue)
    weights = np.array([n1 * n2 / (n1 + n2) for _, n1, _, n2 in strata])
    differences = np.array([k2 / n2 - k1 / n1 for k1, n1, k2, n2 in strata])
    assert found.risk_difference.value == pytest.approx(np.average(differences, weights=weights))


def test_which_strata_count():
    known = [(1, 5, 4, 5), (2, 6, 3, 5)]
    assert stratified.contrast([*known, (0, 0, 3, 4), (1, 2, 0, 0)]) == stratified.contrast(known)
    found = stratified.contrast([*known, (0, 50, 0, 50)])
    assert (found.strata, found.informative) == (3, 2)
    assert (found.odds_ratio, found.p) == tuple(
        pytest.approx(number) if isinstance(number, float) else number
        for number in (stratified.contrast(known).odds_ratio, stratified.contrast(known).p)
    )
    assert abs(found.risk_difference.value) < abs(stratified.contrast(known).risk_difference.value)
    nothing = stratified.contrast([(0, 0, 0, 0)])
    assert unknown(*ends(nothing.risk_difference), *ends(nothing.odds_ratio), nothing.p)
    assert (nothing.strata, nothing.informative) == (0, 0)


def test_odds_of_zero_have_the_exact_end():
    for counts in ((3, 9, 0, 9), (5, 5, 2, 7)):
        one = stratified.contrast([counts, (0, 4, 0, 4)]).odds_ratio
        assert ends(one) == pytest.approx(ends(proportions.odds_ratio(*counts)), rel=1e-6)
    # Two strata of 1/1 against 0/1: P(none in 2 | one a stratum) = (1 / (1 + odds))², which is 0.025 at the end.
    found = stratified.contrast([(1, 1, 0, 1)] * 2).odds_ratio
    assert ends(found) == pytest.approx((0.0, 0.0, 1 / math.sqrt(0.025) - 1))
    found = stratified.contrast([(0, 1, 1, 1)] * 2).odds_ratio
    assert ends(found) == pytest.approx((math.inf, 1 / (1 / math.sqrt(0.025) - 1), math.inf))


@given(st.lists(st.tuples(COUNTS, COUNTS).map(lambda two: (*two[0], *two[1])), max_size=5))
def test_swapping_the_arms_of_strata(strata):
    there = stratified.contrast(strata)
    back = stratified.contrast([(k2, n2, k1, n1) for k1, n1, k2, n2 in strata])
    value, low, high = ends(there.risk_difference)
    assert (-value, -high, -low) == pytest.approx(ends(back.risk_difference), nan_ok=True, abs=1e-9)
    value, low, high = ends(there.odds_ratio)
    inverse = [math.inf if number == 0 else 1 / number for number in (value, high, low)]
    assert inverse == pytest.approx(ends(back.odds_ratio), nan_ok=True, rel=1e-6)
    assert there.p == pytest.approx(back.p, nan_ok=True)
    assert holds(there.risk_difference)
    assert holds(there.odds_ratio)
    # Succeeding instead of failing turns both.
    other = stratified.contrast([(n1 - k1, n1, n2 - k2, n2) for k1, n1, k2, n2 in strata])
    value, low, high = ends(there.risk_difference)
    assert (-value, -high, -low) == pytest.approx(ends(other.risk_difference), nan_ok=True, abs=1e-9)
    assert other.p == pytest.approx(there.p, nan_ok=True)


def test_an_interval_leaves_out_0_where_the_test_rejects_whatever_the_strata():
    """In sparse strata the differences that are not rejected may have a gap about 0."""
    rng = np.random.default_rng(0)
    for _ in range(400):
        n1, n2 = rng.integers(1, 7, (2, rng.integers(1, 5)))
        rates = rng.random(2) * rng.random()
        counts = zip(rng.binomial(n1, rates[0]), n1, rng.binomial(n2, rates[1]), n2, strict=True)
        test = stratified.contrast([tuple(int(count) for count in stratum) for stratum in counts])
        difference = test.risk_difference
        assert difference.low - 1e-12 <= difference.value <= difference.high + 1e-12
        assert (test.p < 0.05) == (difference.low > 0 or difference.high < 0)
