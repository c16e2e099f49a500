"""The coverage table: families are found, written, read back, and the committed one has all of them."""

import math

import pytest

from benchmarks.coverage.__main__ import OUT, read, simulate, write
from benchmarks.coverage.registry import Row, family, names
from benchmarks.coverage.tables import text_of


def test_a_table_comes_back_as_written(tmp_path):
    rows = [Row("cells", "mean", "t", "normal", 5, 0.951, 0.1), Row("cells", "mean", "other", "normal", 5, 0.9)]
    write(tmp_path / "coverage.csv", rows)
    again = read(tmp_path / "coverage.csv")
    assert again[0] == rows[0]
    assert math.isnan(again[1].width)
    assert "| mean | **t** | .951 |" in text_of(rows)


@pytest.mark.parametrize("name", names())
def test_every_family_can_be_simulated(name):
    _, rows, _ = simulate(name, 4)
    assert rows
    assert {row.family for row in rows} == {name}
    assert len({(row.quantity, row.method, row.measure, row.scenario, row.n) for row in rows}) == len(rows)
    assert family(name).TITLE in text_of(rows)


def test_the_committed_table_has_every_family():
    rows = read(OUT / "coverage.csv")
    assert {row.family for row in rows} == set(names())
    assert (OUT / "coverage.md").read_text() == text_of(rows)
