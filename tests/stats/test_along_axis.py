"""Rates along an axis: the exact test against R and brute force, the shapes by their names."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness.stats import along_axis

GROUPS = st.lists(st.integers(1, 5).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), min_size=3, max_size=4)


@given(GROUPS)
@settings(max_examples=60, deadline=None)
def test_the_exact_test_is_the_count_of_all_tables(groups: list[tuple[int, int]]) -> None:
    k, n = zip(*groups, strict=True)
    tables = [
        table for table in itertools.product(*(range(size + 1) for size in n)) if sum(table) == sum(k)
    ]  # fmt: skip
    ways = {table: math.prod(math.comb(size, count) for size, count in zip(n, table, strict=True)) for table in tables}
    expected = sum(number for number in ways.values() if number <= ways[k]) / sum(ways.values())
    assert along_axis.same_rate(k, n) == (pytest.approx(expected), True)


@given(GROUPS)
@settings(max_examples=30, deadline=None)
def test_of_two_groups_it_is_pearsons_test_with_one_run_less(groups: list[tuple[int, int]]) -> None:
    (k1, n1), (k2, n2) = groups[:2]
    expected = 1.0
    if 0 < k1 + k2 < n1 + n2:
        pearson = stats.chi2_contingency([[k1, n1 - k1], [k2, n2 - k2]], correction=False).statistic
        expected = max(
            stats.chi2.sf(pearson * (n1 + n2 - 1) / (n1 + n2), 1),
            min(
                stats.fisher_exact([[k, n1 - k], [k1 + k2 - k, n2 - k1 - k2 + k]]).pvalue
                for k in range(max(0, k1 + k2 - n2), min(k1 + k2, n1) + 1)
            ),
        )
    assert along_axis.same_rate((k1, k2), (n1, n2)).p == pytest.approx(expected)


def test_a_published_table() -> None:
    # Groups of 5, 5 and 5 with 5, 5 and 1: three tables are as unlikely, 3 * 5 / C(15, 11).
    assert along_axis.same_rate((5, 5, 1), (5, 5, 5)).p == pytest.approx(15 / math.comb(15, 11))


def test_many_runs_are_tested_by_chi_squared() -> None:
    p, exact = along_axis.same_rate((50, 60, 70), (100, 100, 100))
    assert not exact
    assert p == pytest.approx(stats.chi2_contingency([[50, 60, 70], [50, 40, 30]], correction=False).pvalue)


def test_what_is_not_known_or_does_not_differ() -> None:
    assert math.isnan(along_axis.same_rate((3,), (5,)).p)
    assert math.isnan(along_axis.same_rate((3, 0), (5, 0)).p)
    assert along_axis.same_rate((0, 0), (5, 5)).p == along_axis.same_rate((5, 5), (5, 5)).p == 1


@pytest.mark.parametrize(
    ("failed", "expected"),
    [
        ((5, 5, 1), "falling"),
        ((1, 5, 5), "rising"),
        ((5, 4, 5, 0), "falling"),
        ((0, 5, 0), "peak"),
        ((0, 0, 5, 5, 0, 0), "peak"),
        ((5, 0, 5), "valley"),
        ((5, 5, 5), "flat"),
        ((0, 0, 0), "flat"),
        ((1, 0, 2), "flat"),
    ],
)
def test_a_shape_has_its_name(failed: tuple[int, ...], expected: str) -> None:
    assert along_axis.shape(failed, (5,) * len(failed)) == expected


def test_a_turned_axis_has_the_turned_shape() -> None:
    turned = {"falling": "rising", "rising": "falling"}
    rng = np.random.default_rng(1)
    for failed in rng.integers(0, 9, (40, 4)).tolist():
        shape = along_axis.shape(failed, (8,) * 4)
        assert along_axis.shape(failed[::-1], (8,) * 4) == turned.get(shape, shape)


def test_no_difference_is_mistaken_for_one_in_at_most_one_study_of_twenty() -> None:
    rng = np.random.default_rng(2)
    studies = rng.binomial(6, 0.5, (800, 3)).tolist()
    assert sum(along_axis.shape(failed, (6,) * 3) != "flat" for failed in studies) / 800 < 0.05 + 2 * 0.0077
