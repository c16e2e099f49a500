"""Seeds that a pilot advises: whether they are enough, and whether a number is given where nothing differs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from scipy import special, stats

from benchmarks.coverage.registry import Row
from benchmarks.coverage.scenarios import generator
from harness.stats import seed_budget
from harness.stats.seed_budget import LEVEL, SeedsNeeded

TITLE = "Seed budgets from pilots"
NOTE = """
Pilots of n runs a cell. *Told*: the share of pilots from which a number is given; where nothing differs there is none
to give. Of those, *power*: what the advised seeds reach on average (80 % are asked for), and
those at the upper end of the range. *Range*: the share of all
pilots whose range from the 10th to the 90th percentile holds the true number (nominal 80 %; "cannot tell" holds none).
"""
SIZES = (8, 25)
RATES = ((0.0, 0.3), (0.1, 0.5), (0.1, 0.3), (0.0, 0.0), (0.1, 0.1), (0.3, 0.3))
DISTANCES = (1.0, 0.5, 0.0)  # of two means, in standard deviations

Power = Callable[[int], float]


def rows(repetitions: int) -> Iterator[Row]:
    """Failure rates, then means."""
    for rates in RATES:
        scenario = f"{100 * rates[0]:.0f} against {100 * rates[1]:.0f} %"
        for n in SIZES:
            rng = generator("budget", scenario, n)
            pilots = np.stack([rng.binomial(n, rate, repetitions) for rate in rates], axis=1).tolist()
            power, truth = _fisher(*rates)
            advice = [seed_budget.needed_for_failure(a, n, b, n) for a, b in pilots]
            yield from _rows("failure rates", "assurance", scenario, n, advice, power, truth)
            if n == SIZES[0]:
                memory = {
                    pair: seed_budget.seeds_for_failure(pair[0], n, pair[1], n) for pair in set(map(tuple, pilots))
                }
                plain = [SeedsNeeded(None, memory[a, b], memory[a, b]) for a, b in pilots]
                yield from _rows("failure rates", "at the rates seen", scenario, n, plain, power, math.nan)
    for distance in DISTANCES:
        scenario = f"means {distance:g} sd apart"
        for n in SIZES:
            rng = generator("budget", scenario, n)
            drawn = rng.normal(size=(repetitions, 2, n)) + np.array([[0.0], [distance]])
            advice = [seed_budget.needed_for_mean(x, y, rng) for x, y in drawn]
            power, truth = _student(distance)
            yield from _rows("means", "assurance", scenario, n, advice, power, truth)


def _rows(
    quantity: str, method: str, scenario: str, n: int, advice: list[SeedsNeeded], power: Power, truth: float
) -> Iterator[Row]:
    told = [seeds.assured for seeds in advice if seeds.assured is not None and seeds.high is not None]
    reported = method == "assurance"

    def row(measure: str, value: float) -> Row:
        return Row("", quantity, method, scenario, n, value, measure=measure, reported=reported)

    yield row("told", len(told) / len(advice))
    if truth != math.inf and told:
        yield row("power", float(np.mean([power(seeds) for seeds in told])))
        ends = [seeds.high for seeds in advice if seeds.assured is not None and seeds.high is not None]
        yield row("power at the upper end", float(np.mean([power(seeds) for seeds in ends])))
    if not math.isnan(truth):
        held = [(seeds.low or math.inf) <= truth <= (seeds.high or math.inf) for seeds in advice]
        yield row("range", float(np.mean(held)))


def _fisher(first: float, second: float) -> tuple[Power, float]:
    """The power of Fisher's test at so many seeds, and how many the true rates need."""
    p1, p2 = np.array([first]), np.array([second])
    memory: dict[int, float] = {}

    def power(n: int) -> float:
        if n not in memory:
            both = seed_budget.fisher_power(p1, p2, n, LEVEL) + seed_budget.fisher_power(p2, p1, n, LEVEL)
            memory[n] = float(both[0, 0])
        return memory[n]

    return power, _first(power) if first != second else math.inf


def _student(distance: float) -> tuple[Power, float]:
    """The same of the t test, for normal scores of one standard deviation."""

    def power(n: int) -> float:
        freedom, noncentrality = 2 * n - 2, distance * math.sqrt(n / 2)
        return float(stats.nct.sf(special.stdtrit(freedom, 1 - LEVEL / 2), freedom, noncentrality))

    return power, _first(power) if distance else math.inf


def _first(power: Power) -> float:
    return next(n for n in range(2, 1000) if power(n) >= seed_budget.POWER)
