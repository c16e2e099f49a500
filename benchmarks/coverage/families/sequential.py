"""Rates and contrasts that are looked at after every run: the chance that no look misses the truth."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from benchmarks.coverage.registry import Row
from benchmarks.coverage.scenarios import generator
from harness.stats.estimate import Estimate
from harness.stats.proportions import newcombe, wilson
from harness.stats.sequential import contrast_of_looks, rate_sequence

TITLE = "Intervals at every look"
NOTE = """
Looking after every run, up to n runs (of a contrast: pairs); coverage is the chance that no look misses the truth. For
rates it is computed exactly. The relative width is that of the interval at n, in that of Wilson's or Newcombe's for a
fixed n: its mean over studies. A contrast's interval is what those of all looks so far have in common.
"""
HORIZON = 50
RATES = (0.02, 0.1, 0.3, 0.5)
ARMS = ((0.1, 0.1), (0.3, 0.3), (0.1, 0.5), (0.0, 0.3))
LOOKS = (10, 25, 50)


def rows(repetitions: int) -> Iterator[Row]:
    """Rates by dynamic programming over counts, contrasts by simulation."""
    for rate in RATES:
        yield from _rate_rows(rate)
    for first, second in ARMS:
        yield from _contrast_rows(first, second, repetitions)


def _rate_rows(rate: float) -> Iterator[Row]:
    """Of the chances of (failed, n), those remain in which no look has missed."""
    scenario = f"{100 * rate:.0f} % fail"
    sequences = {n: [rate_sequence(k, n, HORIZON) for k in range(n + 1)] for n in range(1, HORIZON + 1)}
    fixed = {n: [Estimate(math.nan, *wilson(k, n)) for k in range(n + 1)] for n in range(1, HORIZON + 1)}
    everything = np.array([1.0])
    for n in range(1, HORIZON + 1):
        everything = np.append(everything * (1 - rate), 0) + np.append(0, everything * rate)
        if n in LOOKS:
            for name, intervals in (("confidence sequence", sequences), ("Wilson", fixed)):
                value = _never_missed(rate, {size: intervals[size] for size in range(1, n + 1)})
                width = float(everything @ [interval.high - interval.low for interval in intervals[n]])
                yield Row("", "failure rate", name, scenario, n, value, width, reported=name != "Wilson")
            ratios = [_width(a) / _width(b) for a, b in zip(sequences[n], fixed[n], strict=True)]
            yield Row(
                "", "failure rate", "confidence sequence", scenario, n, float(everything @ ratios),
                measure="relative width",
            )  # fmt: skip


def _never_missed(rate: float, intervals: dict[int, list[Estimate]]) -> float:
    chance = np.array([1.0])
    for of_size in intervals.values():
        chance = np.append(chance * (1 - rate), 0) + np.append(0, chance * rate)
        chance *= [interval.low <= rate <= interval.high for interval in of_size]
    return float(chance.sum())


def _contrast_rows(first: float, second: float, repetitions: int) -> Iterator[Row]:
    scenario, truth = f"{100 * first:.0f} against {100 * second:.0f} %", second - first
    rng = generator("sequential", scenario)
    failed = [rng.random((repetitions, HORIZON)) < rate for rate in (first, second)]
    gained, lost = (np.cumsum(a & ~b, axis=1) for a, b in (failed[::-1], failed))
    counts = [np.cumsum(side, axis=1) for side in failed]
    paths: list[list[tuple[int, int, int]]] = [[] for _ in range(repetitions)]
    covered, false_alarm = np.ones((2, repetitions), dtype=bool), np.zeros(repetitions, dtype=bool)
    for n in range(1, HORIZON + 1):
        up, down, first_failed, second_failed = (side[:, n - 1].tolist() for side in (gained, lost, *counts))
        for path, a, b in zip(paths, up, down, strict=True):
            path.append((a, b, n))
        looks = [contrast_of_looks(path, HORIZON) for path in paths]
        fixed = [newcombe(a, n, b, n) for a, b in zip(first_failed, second_failed, strict=True)]
        sequence = [look.difference for look in looks]
        for method, intervals in enumerate((sequence, fixed)):
            covered[method] &= [interval.low <= truth <= interval.high for interval in intervals]
        false_alarm |= [look.p <= 0.05 for look in looks]
        if n not in LOOKS:
            continue
        for name, held, intervals in zip(("confidence sequence", "Newcombe"), covered, (sequence, fixed), strict=True):
            width = float(np.mean([_width(interval) for interval in intervals]))
            yield Row("", "contrast", name, scenario, n, float(held.mean()), width, reported=name != "Newcombe")
        ratio = float(np.mean([_width(a) / _width(b) for a, b in zip(sequence, fixed, strict=True)]))
        yield Row("", "contrast", "confidence sequence", scenario, n, ratio, measure="relative width")
        yield Row(
            "", "contrast", "anytime p", scenario, n, float(false_alarm.mean()), measure="found by then (p ≤ .05)"
        )


def _width(interval: Estimate) -> float:
    return interval.high - interval.low
