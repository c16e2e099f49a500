"""Intervals of one cell's runs, and of two cells' differences; all runs are independent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from benchmarks.coverage.registry import Row, covered, mean_width
from benchmarks.coverage.scenarios import CHANCE, GOOD, SCENARIOS, SIZES, SPREAD, Scenario, generator
from harness.analysis.outcomes import Outcomes
from harness.stats import bootstrap, means, proportions, ranks, two_samples
from harness.stats.estimate import Estimate

TITLE = "One cell, and two cells compared"
NOTE = """
Failed runs score chance (0.5), the others 0.8 with an sd of 0.02: normal, or skewed towards bad scores (skewness -1.4).
Both cells of a comparison are alike, but for the last rows: there the second cell does not fail. Of intervals that need
a few successful runs, coverage is among the studies that have them; an interval with an open end covers what lies that
way.
"""


def rows(repetitions: int) -> Iterator[Row]:
    """Every method in every scenario."""
    for scenario in SCENARIOS:
        for n in SIZES:
            scores, failed = scenario.draw(generator(scenario.name, n), repetitions, n)
            cells = _outcomes(scores, failed)
            others = _outcomes(*scenario.draw(generator(scenario.name, n, 2), repetitions, n))
            sound = _outcomes(*SCENARIOS[0].draw(generator(scenario.name, n, 3), repetitions, n))
            yield from _rates(scenario, n, failed)
            yield from _one_cell(scenario, n, cells)
            yield from _bca(scenario, n, scores)
            yield from _two_cells(scenario, n, cells, others)
            yield from _unlike_cells(scenario, n, cells, sound)


def _outcomes(scores: np.ndarray, failed: np.ndarray) -> list[Outcomes]:
    return [Outcomes(*runs, judged=True, chance=CHANCE, levels=None) for runs in zip(scores, failed, strict=True)]


def _row(
    quantity: str,
    method: str,
    scenario: Scenario,
    n: int,
    estimates: Sequence[Estimate],
    truth: float,
    reported: bool = True,
) -> Row:
    ends = np.array([(estimate.low, estimate.high) for estimate in estimates])
    known = ends[~np.isnan(ends).any(axis=1)]
    value = covered(known[:, 0], known[:, 1], truth) if len(known) else float("nan")
    return Row("", quantity, method, scenario.name, n, value, mean_width(*known.T), reported=reported)


def _rates(scenario: Scenario, n: int, failed: np.ndarray) -> Iterator[Row]:
    for method, interval in (("Wilson", proportions.wilson), ("Clopper-Pearson", proportions.clopper_pearson)):
        table = [Estimate(k / n, *interval(k, n)) for k in range(n + 1)]
        rates = [table[k] for k in failed.sum(axis=1)]
        yield _row("failure rate", method, scenario, n, rates, scenario.rate, method == "Wilson")


def _one_cell(scenario: Scenario, n: int, cells: Sequence[Outcomes]) -> Iterator[Row]:
    ranked = [cell.ranked(True) for cell in cells]
    methods: tuple[tuple[str, str, Callable[[Outcomes], Estimate], float, bool], ...] = (
        ("mean", "rate and means put together", Outcomes.mean, scenario.mean, True),
        ("mean", "Student, all runs", lambda cell: means.student(cell.scores), scenario.mean, False),
        ("mean of successful runs", "Student", Outcomes.mean_of_good, GOOD, True),
        ("sd of successful runs", "Bonett", Outcomes.deviation_of_good, SPREAD, True),
        ("sd", "Bonett, all runs", lambda cell: means.deviation(cell.scores), scenario.sd, False),
    )
    for quantity, method, estimate, truth, reported in methods:
        yield _row(quantity, method, scenario, n, [estimate(cell) for cell in cells], truth, reported)
    for quantity, share in (("median", 0.5), ("10 % quantile", 0.1)):
        estimates = [ranks.quantile(ordered, share) for ordered in ranked]
        yield _row(quantity, "order statistics", scenario, n, estimates, scenario.quantile(share))


def _bca(scenario: Scenario, n: int, scores: np.ndarray) -> Iterator[Row]:
    truths = {"interquartile mean": ("iqm", scenario.iqm), "mean": ("mean", scenario.mean)}
    truths["median"] = ("median", scenario.quantile(0.5))
    for quantity, (statistic, truth) in truths.items():
        bounds = np.array(bootstrap.bootstrap(list(scores), statistic, generator("bca")))  # type: ignore[arg-type]
        reported = statistic == "iqm" and n >= bootstrap.FEWEST
        method = "BCa bootstrap" + (f", from n = {bootstrap.FEWEST} on" if reported else "")
        yield _row(quantity, method, scenario, n, [Estimate(*row) for row in bounds.T], truth, reported)


def _two_cells(scenario: Scenario, n: int, cells: Sequence[Outcomes], others: Sequence[Outcomes]) -> Iterator[Row]:
    both = list(zip(cells, others, strict=True))
    differences = [means.minus(a.mean(), b.mean()) for a, b in both]
    yield _row("difference of means", "rates and means put together", scenario, n, differences, 0.0)
    yield _row("difference, successful runs", "Welch", scenario, n, [_welch(a.good, b.good) for a, b in both], 0.0)
    ratios = [means.deviation_ratio(a.good, b.good)[0] for a, b in both]
    yield _row("ratio of sds, successful runs", "Bonett's put together", scenario, n, ratios, 1.0)
    better = [two_samples.compare_ranks(a.scores, b.scores).improvement for a, b in both]
    yield _row("P(better)", "Newcombe", scenario, n, better, 0.5)


def _unlike_cells(scenario: Scenario, n: int, cells: Sequence[Outcomes], sound: Sequence[Outcomes]) -> Iterator[Row]:
    both = list(zip(cells, sound, strict=True))
    truth = GOOD - scenario.mean
    differences = [means.minus(a.mean(), b.mean()) for a, b in both]
    yield _row("difference of means, one cell fails", "rates and means put together", scenario, n, differences, truth)
    welch = [_welch(a.scores, b.scores) for a, b in both]
    yield _row("difference of means, one cell fails", "Welch, all runs", scenario, n, welch, truth, False)


def _welch(x: np.ndarray, y: np.ndarray) -> Estimate:
    nothing = Estimate(float("nan"), float("nan"), float("nan"))
    return two_samples.difference_of_means(x, y)[0] if len(x) and len(y) else nothing
