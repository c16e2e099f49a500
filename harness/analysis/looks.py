"""Failure rates and differences that hold at every look, for cells whose seeds are added by rule.

Their tables have these in place of intervals for a fixed number of runs, which would be wrong after many looks; what
has no such interval is not known there (NaN).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from harness.analysis.stopping import Cell, Comparison, RunResult, compare_values, counts_by_seed
from harness.records.study import Study
from harness.stats import proportions
from harness.stats.sequential import contrast_of_looks, contrast_sequence, p_of_more, rate_sequence

NAN = float("nan")
MOST_RIVALS = 20  # cells that each is compared with for the lowest failure rate


def horizons(study: Study) -> list[int | None]:
    """Of each cell the most seeds that a rule planned for it; None where its seeds are fixed."""
    if not study.sweeps or sum(len(sweep.cells) for sweep in study.sweeps) != len(study.cells):
        return [None] * len(study.cells)
    most_seeds: list[int | None] = []
    for sweep in study.sweeps:
        most = None if sweep.rule is None else sweep.growth.horizon if sweep.growth else sweep.rule.at_most
        most_seeds += [most] * len(sweep.cells)
    return most_seeds


def looked_at(study: Study) -> bool:
    """Whether seeds were added to any cell by rule."""
    return any(sweep.rule is not None for sweep in study.sweeps)


def of_cells(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    """The table of cells with such `failed_low` and `failed_high`; `exact_low` and `exact_high` are not known."""
    if not looked_at(study):
        return table
    for row, horizon in enumerate(horizons(study)):
        if horizon is None or pd.isna(table.loc[row, "failed"]):
            continue
        rate = rate_sequence(int(table.loc[row, "failed"]), int(table.loc[row, "judged"]), horizon)
        table.loc[row, ["failed_low", "failed_high", "exact_low", "exact_high"]] = [rate.low, rate.high, NAN, NAN]
    return table


def of_all_runs(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    """The table of all runs together with such an interval."""
    horizon = sum(seeds or 0 for seeds in horizons(study))
    if looked_at(study) and horizon and int(table.loc[0, "judged"]):
        rate = rate_sequence(int(table.loc[0, "failed"]), int(table.loc[0, "judged"]), horizon)
        table.loc[0, ["failed_low", "failed_high"]] = [rate.low, rate.high]
    return table


def of_tables(study: Study, tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The tables of failing with such rates and differences; all others as they are."""
    changed = dict(tables)
    if not looked_at(study):
        return changed
    cells, most = cells_of(study), horizons(study)
    changed["arms"] = _arms(study, tables["arms"], most)
    changed["contrasts"] = _contrasts(study, tables["contrasts"], cells, most)
    changed["pair_failures"] = _pairs(study, tables["pair_failures"], cells, most)
    never = tables["never_failed"].copy()
    for row, (cell, judged) in enumerate(zip(never["cell"], never["judged"], strict=True)):
        horizon = most[cell]
        if horizon is not None:
            never.loc[never.index[row], ["exact", "rule_of_three"]] = [rate_sequence(0, judged, horizon).high, NAN]
    changed["never_failed"] = never
    return changed


def cells_of(study: Study) -> list[Cell]:
    """The cells with the results of their runs, by seed."""
    results: list[list[RunResult]] = [[] for _ in study.cells]
    runs = study.runs
    for cell, status, outcome, seconds in zip(
        runs["cell"], runs["status"], runs["outcome"], runs["lane_seconds"], strict=True
    ):
        fate = None if status != "finished" or pd.isna(outcome) else outcome == "failed"
        results[int(cell)].append(RunResult(fate, None if seconds != seconds else float(seconds)))
    return [Cell(cell.axes, tuple(of)) for cell, of in zip(study.cells, results, strict=True)]


def rates_below(study: Study) -> np.ndarray:
    """How sure it is, at every look, that some other cell has a lower failure rate, as adjusted p-values [cells].

    By pairs of runs of the same seed; adjusted for the number of other cells (Bonferroni). Each cell is compared with
    the `MOST_RIVALS` that failed least: comparing with fewer only leaves more cells that may be the best. NaN without a
    judged run.
    """
    cells, most = cells_of(study), max(seeds or 0 for seeds in horizons(study))
    known = [index for index, cell in enumerate(cells) if cell.judged]
    rivals = sorted(known, key=lambda index: (np.mean(cells[index].judged), -len(cells[index].judged)))[:MOST_RIVALS]
    adjusted = np.full(len(cells), NAN)
    for index in known:
        ps = [
            min(p_of_more(*look, most) for look in dict.fromkeys(_looks(cells[rival], cells[index])))
            for rival in rivals
            if rival != index
        ]
        adjusted[index] = min(1.0, min(ps, default=1.0) * max(len(known) - 1, 1))
    return adjusted


def _looks(one: Cell, other: Cell) -> list[tuple[int, int, int]]:
    """Pairs of runs of two cells, up to each seed, as `counts_by_seed`."""
    return counts_by_seed([(one.results, other.results)])


def _arms(study: Study, table: pd.DataFrame, most: Sequence[int | None]) -> pd.DataFrame:
    table = table.copy()
    for row in table.index:
        axis, value = table.loc[row, "axis"], table.loc[row, "value"]
        of = [index for index, cell in enumerate(study.cells) if repr(dict(cell.axes)[axis]) == repr(value)]
        horizon = sum(most[index] or 0 for index in of)
        if horizon and table.loc[row, "judged"]:
            rate = rate_sequence(int(table.loc[row, "failed"]), int(table.loc[row, "judged"]), horizon)
            table.loc[row, ["failed_low", "failed_high"]] = [rate.low, rate.high]
    return table


def _contrasts(study: Study, table: pd.DataFrame, cells: Sequence[Cell], most: Sequence[int | None]) -> pd.DataFrame:
    table, horizon = table.copy(), max(seeds or 0 for seeds in most)
    for row in table.index:
        axis, values = str(table.loc[row, "axis"]), (table.loc[row, "value"], table.loc[row, "reference"])
        comparison = compare_values(axis, values, horizon, cells)
        _put(table, row, comparison)
        pairs, horizon_of_all = comparison.pairs, horizon * max(1, len(comparison.cells) // 2)
        table.loc[row, "p_least"] = contrast_sequence(pairs, 0, pairs, horizon_of_all).p
    return _adjusted(table)


def _pairs(study: Study, table: pd.DataFrame, cells: Sequence[Cell], most: Sequence[int | None]) -> pd.DataFrame:
    table = table.copy()
    for row in table.index:
        one, other = int(table.loc[row, "reference"]), int(table.loc[row, "cell"])
        horizon = max(most[one] or 0, most[other] or 0)
        if not horizon:
            continue
        contrast = contrast_of_looks(_looks(cells[one], cells[other]), horizon)
        _set(table, row, (contrast.difference.value, contrast.difference.low, contrast.difference.high, contrast.p))
    return _adjusted(table)


def _put(table: pd.DataFrame, row: object, comparison: Comparison) -> None:
    difference = comparison.contrast.difference
    _set(table, row, (difference.value, difference.low, difference.high, comparison.contrast.p))


def _set(table: pd.DataFrame, row: object, values: tuple[float, float, float, float]) -> None:
    """Write a difference with its interval and p; the tests and intervals for a fixed number of runs are taken away."""
    names = ["difference", "difference_low", "difference_high"]
    table.loc[row, names] = list(values[:3])
    table.loc[row, [name for name in ("p", "fisher") if name in table][:1]] = values[3]
    fixed = [name for name in ("odds_ratio_low", "odds_ratio_high", "fisher") if name in table]
    fixed = fixed if "p" in table else [name for name in fixed if name != "fisher"]
    table.loc[row, fixed] = NAN


def _adjusted(table: pd.DataFrame) -> pd.DataFrame:
    """Holm's adjustment anew, over the comparisons of each axis where it was so, else over all."""
    if not len(table):
        return table
    p = "p" if "p" in table else "fisher"
    for name in ("p_holm", "p_adjusted"):
        if name not in table:
            continue
        by_axis = name == "p_adjusted" and "axis" in table
        for rows in table.groupby("axis", sort=False).groups.values() if by_axis else [table.index]:
            table.loc[rows, name] = proportions.holm(table.loc[rows, p].to_numpy(dtype=float))
    return table
