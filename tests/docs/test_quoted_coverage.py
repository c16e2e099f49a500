"""The numbers that the explanation of statistics quotes are those of the committed simulations."""

import math
from pathlib import Path

from benchmarks.coverage.__main__ import OUT, read
from harness.stats import seed_budget

TEXT = " ".join((Path(__file__).parents[2] / "docs" / "explanation" / "statistics.md").read_text().split())
ROWS = read(OUT / "coverage.csv")


def value(family: str, method: str, scenario: str, n: int, measure: str = "coverage") -> float:
    chosen = [row for row in ROWS if (row.family, row.method, row.scenario, row.n, row.measure)
              == (family, method, scenario, n, measure)]  # fmt: skip
    assert len(chosen) == 1
    return chosen[0].value


def test_seed_budgets():
    def of(method: str, rates: str, measure: str) -> float:
        return value("seed_budget", method, rates, 8, measure)

    different, same, seen = "0 against 30 %", "30 against 30 %", "at the rates seen"
    assert (
        f"where {seed_budget.seeds_for_failure(0, 10, 3, 10)} seeds are needed, "
        f"{100 * of('assurance', different, 'told'):.0f} % of pilots of 8 give a number, which reaches a power of "
        f"{of('assurance', different, 'power'):.2f}; seeds counted at the rates that were seen reach "
        f"{of(seen, different, 'power'):.2f}. Where both rates are 30 %, {100 * of('assurance', same, 'told'):.0f} % "
        f"of pilots give a number; at the rates seen {100 * of(seen, same, 'told'):.0f} % would."
    ).replace(" 0.", " .") in TEXT


def test_looks():
    missed = 1 - value("sequential", "Wilson", "30 % fail", 50)
    assert f"misses a failure rate of 30 % at some look in {100 * missed:.0f} % of studies" in TEXT
    own = [row for row in ROWS if row.family == "sequential" and row.method == "confidence sequence"]
    lowest = min(row.value for row in own if row.measure == "coverage")
    floor = f"{math.floor(100 * lowest) / 100:.2f}".removeprefix("0")
    assert f"The coverage is at least {floor}, computed exactly" in TEXT
    widths = [row for row in own if row.measure == "relative width"]
    assert max(row.value for row in widths if row.quantity == "failure rate") <= 1.5
    few = {f"{row.value:.1f}" for row in widths if row.quantity == "contrast" and row.n == 10}
    more = [row.value for row in widths if row.quantity == "contrast" and row.n in (25, 50)]
    assert few == {"1.5"}
    assert (
        "a contrast's is 1.5 times as wide as Newcombe's at 10 pairs on average and "
        f"{min(more):.1f} to {max(more):.1f} times at 25 and 50"
    ) in TEXT
