"""Which groups may be the best: against scipy's tests one by one, and how often the best group is kept."""

import numpy as np
import pytest
from scipy import stats

from harness.stats import best_set, stratified

RNG = np.random.default_rng(11)
GROUPS = [RNG.normal(mean, sd, n) for mean, sd, n in ((0.7, 0.02, 5), (0.72, 0.05, 8), (0.65, 0.01, 4), (0.71, 0.1, 3))]


def test_a_mean_is_compared_with_every_other_by_welchs_test():
    expected = [
        min(
            1.0,
            3
            * min(
                stats.ttest_ind(other, own, equal_var=False).pvalue if other.mean() > own.mean() else 1.0
                for other in others
            ),
        )
        for own, others in ((g, [o for o in GROUPS if o is not g]) for g in GROUPS)
    ]
    assert best_set.by_mean(GROUPS) == pytest.approx(expected, abs=1e-12)


def chi2_with_one_less(k1: int, n1: int, k2: int, n2: int) -> float:
    """Pearson's test of two rates with N - 1 for N."""
    table = np.array([[k1, n1 - k1], [k2, n2 - k2]])
    n, total = n1 + n2, k1 + k2
    exact = min(
        stats.fisher_exact([[k, n1 - k], [total - k, n2 - total + k]]).pvalue
        for k in range(max(0, total - n2), min(total, n1) + 1)
    )
    approximate = stats.chi2.sf(stats.chi2_contingency(table, correction=False).statistic * (n - 1) / n, 1)
    return float(max(approximate, exact))


def test_a_rate_is_compared_with_every_other_by_the_score_test():
    failed, n = np.array([0, 4, 3, 1]), np.array([8, 8, 5, 6])
    expected = [
        min(1.0, 3 * min(
            chi2_with_one_less(failed[i], n[i], failed[j], n[j]) if failed[j] / n[j] < failed[i] / n[i] else 1.0
            for j in range(4) if j != i
        ))
        for i in range(4)
    ]  # fmt: skip
    assert best_set.by_rate(failed, n) == pytest.approx(expected, rel=1e-8)


def test_of_two_groups_one_is_alone_where_the_test_of_the_pair_rejects():
    for k1, k2 in ((0, 3), (0, 2), (1, 5)):
        p = float(stratified.score_p(*(np.array([float(x)]) for x in (k1, 5, k2, 5))))
        assert best_set.by_rate(np.array([k1, k2]), np.array([5, 5])) == pytest.approx([1.0, p])


def test_what_is_not_known_excludes_nothing():
    assert np.isnan(best_set.by_mean([np.zeros(0), np.ones(3)])[0])
    assert best_set.by_mean([np.array([0.1]), np.array([0.9, 0.91, 0.92])])[0] == 1
    assert np.isnan(best_set.by_rate(np.array([0, 1]), np.array([0, 2]))[0])


@pytest.mark.parametrize("failing", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("n", [5, 8])
def test_the_best_group_is_kept_in_nineteen_of_twenty_studies(n, failing):
    """Five groups, the first the best by a little; runs of each fail with some probability."""
    rng, kept, studies = np.random.default_rng(3), 0, 400
    for _ in range(studies):
        scores = rng.normal(0.7, 0.02, (5, n)) + np.array([0.01, 0, 0, 0, 0])[:, None]
        scores = np.where(rng.random((5, n)) < failing, 0.5, scores)
        kept += best_set.by_mean(list(scores))[0] >= best_set.LEVEL
    assert kept / studies >= 0.95 - 0.022  # two standard errors


def test_an_error_that_is_given_takes_the_place_of_the_groups_own():
    own = {index: (group.var(ddof=1) / len(group), len(group) - 1.0) for index, group in enumerate(GROUPS)}
    assert best_set.by_mean(GROUPS, own) == pytest.approx(best_set.by_mean(GROUPS))
    unsure = best_set.by_mean(GROUPS, {2: (1.0, 1.0)})
    assert unsure[2] > best_set.by_mean(GROUPS)[2]
