"""Runs whose parts of the seed are crossed, and runs of different cells that share their seeds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy import special

from benchmarks.coverage.registry import Row, covered, mean_width
from benchmarks.coverage.scenarios import generator
from harness.stats import best_set, clusters, means, proportions
from harness.stats.estimate import Estimate

TITLE = "Crossed and shared seeds"
NOTE = """
*Crossed*: every combination of 5 × 5 or 4 × 4 × 4 parts is trained once; a part makes 0, 40 or 80 % of the variance of
a hidden score, and the worst 10 or 36 % of runs fail. A tenth of the repetitions.

*Arms*: two arms in two settings with the same crossed parts, whose effect is each arm's own. *Five alike*: how often
the set of recipes that may be best holds a given one of five that are equally good (30 % fail).

*Shared*: six cells, whose rates of failing rise from 0.05 to 0.6, with the same 8 seeds; the seed makes 0, 10 or 30 %
of the hidden score's variance in all of them. A difference of two such arms is surer than its interval, for what seeds
share cancels in it: so differences of cells that share integer seeds are not paired.
"""
SHARES = (0.0, 0.4, 0.8)
RATES = (0.1, 0.36)
ARMS = ((0.1, 0.1), (0.36, 0.36), (0.1, 0.5))


def rows(repetitions: int) -> Iterator[Row]:
    """Crossed designs, then shared seeds."""
    for sizes, share, rate in itertools.product(((5, 5), (4, 4, 4)), SHARES, RATES):
        yield from _crossed(sizes, share, rate, max(repetitions // 10, 2))
    for sizes, share, rates in itertools.product(((5, 5), (4, 4, 4)), SHARES, ARMS):
        yield from _contrast(sizes, share, rates, max(repetitions // 10, 2))
    for sizes, share in itertools.product(((5, 5), (4, 4, 4)), SHARES):
        yield from _best(sizes, share, max(repetitions // 10, 2))
    for share in (0.0, 0.1, 0.3):
        yield from _shared(share, repetitions)


def _crossed(sizes: tuple[int, ...], share: float, rate: float, repetitions: int) -> Iterator[Row]:
    levels = pd.DataFrame(
        list(itertools.product(*map(range, sizes))), columns=["init", "order", "dropout"][: len(sizes)]
    )
    rng, n = generator("crossed", sizes, share, rate), len(levels)
    hidden = math.sqrt(share) * rng.normal(size=(repetitions, sizes[1]))[:, levels["order"]]
    hidden += math.sqrt(1 - share) * rng.normal(size=(repetitions, n))
    failed = hidden < special.ndtri(rate)
    scenario = f"{' × '.join(map(str, sizes))}, one part {100 * share:.0f} %, {100 * rate:.0f} % failing"
    yield _row("failure rate", "clusters", scenario, n, [clusters.rate(levels, run) for run in failed], rate)
    wilson = [Estimate(0.0, *proportions.wilson(int(run.sum()), n)) for run in failed]
    yield _row("failure rate", "Wilson, as if independent", scenario, n, wilson, rate, False)
    yield _row("mean", "clusters", scenario, n, [clusters.mean(levels, run) for run in hidden], 0.0)
    yield _row("mean", "Student, as if independent", scenario, n, [means.student(run) for run in hidden], 0.0, False)


def _grid(sizes: tuple[int, ...]) -> pd.DataFrame:
    names = ["init", "order", "dropout"][: len(sizes)]
    return pd.DataFrame(list(itertools.product(*map(range, sizes))), columns=names)


def _hidden(rng: np.random.Generator, levels: pd.DataFrame, share: float, cells: int) -> np.ndarray:
    """Hidden scores [cells, N] of cells with the same seed parts; the data order's effect is each cell's own."""
    part = rng.normal(size=(cells, levels["order"].nunique()))[:, levels["order"]]
    return np.asarray(math.sqrt(share) * part + math.sqrt(1 - share) * rng.normal(size=(cells, len(levels))))


def _contrast(sizes: tuple[int, ...], share: float, rates: tuple[float, float], repetitions: int) -> Iterator[Row]:
    """Two arms in two settings; a part does otherwise in each arm, which is the hardest case."""
    levels, rng = _grid(sizes), generator("crossed arms", sizes, share, rates)
    n, every = len(levels), pd.concat([levels] * 4, ignore_index=True)
    second, stratum = np.tile(np.repeat([False, True], n), 2), np.repeat([0, 1], 2 * n)
    estimates = []
    for _ in range(repetitions):
        arms = [_hidden(rng, pd.concat([levels] * 2, ignore_index=True), share, 1)[0] < special.ndtri(rate)
                for rate in rates]  # fmt: skip
        failed = np.concatenate([arms[0][:n], arms[1][:n], arms[0][n:], arms[1][n:]])
        estimates.append(clusters.contrast(every, failed, second, stratum)[0])
    scenario = f"{' × '.join(map(str, sizes))}, one part {100 * share:.0f} %, two arms "
    scenario += f"{100 * rates[0]:.0f} and {100 * rates[1]:.0f} %"
    yield _row("difference of crossed arms", "clusters", scenario, n, estimates, rates[1] - rates[0])


def _best(sizes: tuple[int, ...], share: float, repetitions: int) -> Iterator[Row]:
    """Five recipes that are alike, with the same crossed seeds: how often the set holds the first."""
    levels, rng = _grid(sizes), generator("crossed best", sizes, share)
    n, held = len(levels), {"mean": 0, "failure rate": 0}
    for _ in range(repetitions):
        scores = _hidden(rng, levels, share, 5)
        errors = [clusters.error_of_sum(levels, (run - run.mean()) / n) for run in scores]
        p = best_set.by_mean(list(scores), {i: (error.variance, error.freedom) for i, error in enumerate(errors)})
        held["mean"] += p[0] >= best_set.LEVEL
        failed = scores < special.ndtri(0.3)
        worth = np.array([max(1, math.floor(clusters.effective_runs(levels, run))) for run in failed])
        held["failure rate"] += best_set.by_rate(np.round(failed.mean(axis=1) * worth), worth)[0] >= best_set.LEVEL
    scenario = f"{' × '.join(map(str, sizes))}, one part {100 * share:.0f} %, five alike"
    for of, count in held.items():
        yield Row("", f"best {of}", "best set, clusters", scenario, n, count / repetitions)


def _shared(share: float, repetitions: int) -> Iterator[Row]:
    rates, seeds = np.linspace(0.05, 0.6, 6), 8
    rng, n = generator("shared", share), len(rates) * seeds
    scenario = f"six cells share 8 seeds, seed {100 * share:.0f} %"
    seed = math.sqrt(share) * rng.normal(size=(repetitions, 1, seeds))
    arms = [
        (seed + math.sqrt(1 - share) * rng.normal(size=(repetitions, len(rates), seeds)))
        < special.ndtri(rates)[:, None]
        for _ in range(2)
    ]
    counts = [arm.sum(axis=(1, 2)).tolist() for arm in arms]
    pooled = [Estimate(0.0, *proportions.wilson(k, n)) for k in counts[0]]
    cell, code = np.repeat(np.arange(len(rates)), seeds), np.tile(np.arange(seeds), len(rates))
    counted = [clusters.rate_over_cells(cell, code, run.ravel()) for run in arms[0]]
    yield _row("failure rate over cells", "clusters by seed", scenario, n, counted, float(rates.mean()))
    yield _row("failure rate over cells", "Wilson", scenario, n, pooled, float(rates.mean()), False)
    apart = [proportions.newcombe(k1, n, k2, n) for k1, k2 in zip(*counts, strict=True)]
    yield _row("difference of two arms", "Newcombe", scenario, n, apart, 0.0)


def _row(
    quantity: str, method: str, scenario: str, n: int, estimates: list[Estimate], truth: float, reported: bool = True
) -> Row:
    ends = np.array([(estimate.low, estimate.high) for estimate in estimates]).T
    return Row("", quantity, method, scenario, n, covered(*ends, truth), mean_width(*ends), reported=reported)
