"""Intervals of one cell's runs, which are independent of each other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.coverage.registry import Row, covered, mean_width
from benchmarks.coverage.scenarios import SCENARIOS, SIZES, Scenario, generator
from harness.stats import bootstrap, proportions

TITLE = "One cell"
NOTE = """
Failed runs score chance (0.5), the others 0.8 with an sd of 0.02: normal, or skewed towards bad scores (skewness -1.4).
"""


def rows(repetitions: int) -> Iterator[Row]:
    """Every method in every scenario."""
    for scenario in SCENARIOS:
        for n in SIZES:
            scores, failed = scenario.draw(generator(scenario.name, n), repetitions, n)
            yield from _rates(scenario, n, failed)
            yield from _bca(scenario, n, scores)


def _row(quantity: str, method: str, scenario: Scenario, n: int, ends: tuple[np.ndarray, np.ndarray], truth: float,
         reported: bool = True) -> Row:  # fmt: skip
    return Row("", quantity, method, scenario.name, n, covered(*ends, truth), mean_width(*ends), reported=reported)


def _rates(scenario: Scenario, n: int, failed: np.ndarray) -> Iterator[Row]:
    for method, interval in (("Wilson", proportions.wilson), ("Clopper-Pearson", proportions.clopper_pearson)):
        table = np.array([interval(k, n) for k in range(n + 1)])[failed.sum(axis=1)]
        yield _row("failure rate", method, scenario, n, (table[:, 0], table[:, 1]), scenario.rate, method == "Wilson")


def _bca(scenario: Scenario, n: int, scores: np.ndarray) -> Iterator[Row]:
    truths = {"mean": scenario.mean, "median": scenario.quantile(0.5), "iqm": scenario.iqm, "sd": scenario.sd}
    for statistic, truth in truths.items():
        _, low, high = bootstrap.bootstrap(list(scores), statistic, generator("bca"))  # type: ignore[arg-type]
        yield _row(statistic, "BCa bootstrap", scenario, n, (low, high), truth)
