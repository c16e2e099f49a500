"""What the page says of its intervals is what the committed table of simulations says."""

import pytest

from benchmarks.coverage.__main__ import OUT, read
from benchmarks.coverage.registry import Row
from harness.report import coverage
from harness.report.glossary import glossary

FAILING = ("10 % failing", "30 % failing")


def lowest(rows: list[Row]) -> tuple[float, float]:
    """The lowest coverage without and with failing runs."""
    known = [row for row in rows if row.value == row.value]
    sides = ([row.value for row in known if (row.scenario in FAILING) is failing] for failing in (False, True))
    return tuple(min(side) for side in sides)  # type: ignore[return-value]


def cells() -> list[Row]:
    return [row for row in read(OUT / "coverage.csv") if row.family == "cells"]


@pytest.mark.parametrize("quantity", coverage.HELD)
def test_the_words_are_the_tables(quantity):
    rows = [row for row in cells() if row.quantity == quantity and row.reported]
    assert coverage.HELD[quantity] == pytest.approx(lowest(rows), abs=1e-4)
    assert any(coverage.held(quantity) in meaning for _, meaning in glossary())


def test_what_is_not_used_is_unfit():
    rows = [row for row in cells() if row.method == "Student, all runs"]
    assert coverage.UNFIT["mean"] == pytest.approx(lowest(rows), abs=1e-4)
    assert (
        coverage.unfit("mean")
        == "it held the truth in as little as 91 % where no run fails and 59 % where 10 or 30 % do."
    )


def test_every_reported_interval_holds_in_nine_of_ten():
    short = [
        row for row in read(OUT / "coverage.csv") if row.reported and row.measure == "coverage" and row.value < 0.9
    ]
    assert short == []
