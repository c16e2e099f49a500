"""Cells put together: means over settings, shrunk failure rates, and the dip test's false alarms."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.coverage.registry import Row, covered, mean_width
from benchmarks.coverage.scenarios import CHANCE, GOOD, SCENARIOS, SIZES, SPREAD, generator
from harness.analysis.outcomes import Outcomes
from harness.stats import bootstrap, means, modes, pooling

TITLE = "Cells put together, and two groups of runs"
NOTE = """
*Pooled over six cells* with n runs each, whose successful runs have means from 0.78 to 0.83; of the rates of failing,
0.6 times to 1.4 times the one said (a tenth of the repetitions). *Shrunk*: twelve cells, coverage over all of them (a
tenth of the repetitions). *Dip test*: how often it says two groups at p < .05, where there is one (skewed or not) or
where 30 % of runs fail.
"""
LEVELS = np.linspace(GOOD - 0.02, GOOD + 0.03, 6)
TIMES = np.linspace(0.6, 1.4, 6)
SHRUNK = {
    "rates all 10 %": np.full(12, 0.1),
    "rates 0 and 50 %": np.repeat([0.0, 0.5], 6),
    "rates 0 to 55 %": np.linspace(0, 0.55, 12),
}
_MANY = 400_000


def rows(repetitions: int) -> Iterator[Row]:
    """Means over settings, shrunk rates, dips."""
    few = max(repetitions // 10, 2)
    for rate in (0.0, 0.1, 0.3):
        for n in SIZES:
            yield from _levels(rate, n, few)
    for scenario, rates in SHRUNK.items():
        for n in SIZES:
            yield _shrunk(scenario, rates, n, few)
    for world in SCENARIOS:
        if world.rate in (0.0, 0.3):
            for n in (8, 25):
                scores, _ = world.draw(generator("dip", world.name, n), repetitions, n)
                found = float(np.mean([modes.dip_p(run) < 0.05 for run in scores]))
                yield Row("", "two groups", "dip test", world.name, n, found, measure="told")


def _levels(rate: float, n: int, repetitions: int) -> Iterator[Row]:
    scenario = f"six cells, {100 * rate:.0f} % failing"
    rates, rng = rate * TIMES, generator("levels", rate, n)
    everything = np.concatenate(
        [_scores(rng, of, level, 1, _MANY)[0][0] for of, level in zip(rates, LEVELS, strict=True)]
    )
    truths = {
        "mean": float(np.mean((1 - rates) * LEVELS + rates * CHANCE)),
        "median": float(np.median(everything)),
        "iqm": float(bootstrap.iqm(np.sort(everything))),
    }
    drawn = [_scores(rng, of, level, repetitions, n) for of, level in zip(rates, LEVELS, strict=True)]
    ends: dict[str, list[tuple[float, float]]] = {name: [] for name in truths}
    for study in range(repetitions):
        cells = [Outcomes(np.sort(scores[study]), failed[study][np.argsort(scores[study])], True, CHANCE, None)
                 for scores, failed in drawn]  # fmt: skip
        estimates = {
            "mean": means.pooled([cell.mean() for cell in cells], [cell.scores for cell in cells], [1 / 6] * 6)
        }
        if n >= bootstrap.FEWEST:
            parts = [cell.scores for cell in cells]
            estimates["median"] = bootstrap.pooled(parts, "median", generator("median", study))
            estimates["iqm"] = bootstrap.pooled(parts, "iqm", generator("iqm", study))
        for name, estimate in estimates.items():
            ends[name].append((estimate.low, estimate.high))
    names = {"mean": "cells' and Student's", "median": "stratified bootstrap", "iqm": "stratified bootstrap"}
    for name, truth in truths.items():
        if ends[name]:
            low, high = np.array(ends[name]).T
            quantity = f"{'interquartile mean' if name == 'iqm' else name} over cells"
            yield Row("", quantity, names[name], scenario, n, covered(low, high, truth), mean_width(low, high))


def _scores(
    rng: np.random.Generator, rate: float, level: float, repetitions: int, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """Scores [R, n] and whether each run failed [R, n]."""
    failed = rng.random((repetitions, n)) < rate
    return np.where(failed, rng.normal(CHANCE, 0.005, failed.shape), rng.normal(level, SPREAD, failed.shape)), failed


def _shrunk(scenario: str, rates: np.ndarray, n: int, repetitions: int) -> Row:
    failed = generator("shrunk", scenario, n).binomial(n, rates, (repetitions, len(rates)))
    ends = np.array([
        [(rate.low, rate.high) for rate in pooling.pooled_rates(study, np.full(len(rates), n))] for study in failed
    ])  # fmt: skip
    held = (ends[..., 0] <= rates + 1e-12) & (rates - 1e-12 <= ends[..., 1])
    return Row(
        "", "failure rate of one of the cells", "shrunk", scenario, n, float(held.mean()),
        mean_width(ends[..., 0].ravel(), ends[..., 1].ravel()),
    )  # fmt: skip
