"""The curves of imported runs: where a tool keeps the history of the score and of the training loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from harness.records.curve_files import Points, RunCurves
from harness.records.importing.merging import Runs
from harness.records.importing.options import ImportOptions
from harness.records.importing.rows import ImportedRows
from harness.records.importing.table import Series


def curves_of(options: ImportOptions, rows: ImportedRows, runs: Runs, scale: float) -> dict[int, RunCurves]:
    """The curves of the runs that have some, by their place among `runs`; scores are multiplied by `scale`."""
    tables, places = rows.table_of_row, rows.row_in_table
    curves: dict[int, RunCurves] = {}
    for run, row in enumerate(runs.row.tolist()):
        if runs.status[run] != "finished":
            continue
        history = rows.tables[tables[row]].history
        score = loss = None
        if history is not None:
            score = history(places[row], options.metric)
            loss = None if options.loss is None else history(places[row], options.loss)
        if score is not None or loss is not None:
            curves[run] = RunCurves(_points(score, scale), _points(loss))
    if options.aggregate is not None:
        curves |= _of_rows(rows, runs, tables, curves)
    return curves


def _points(series: Series | None, scale: float = 1.0) -> Points | None:
    if series is None or not len(series.steps):
        return None
    return np.asarray(series.steps, dtype=float), np.asarray(series.values, dtype=float) * scale


def _of_rows(
    rows: ImportedRows, runs: Runs, tables: Sequence[int], known: Mapping[int, RunCurves]
) -> dict[int, RunCurves]:
    """Curves of runs that are several rows each, of a table with a column of steps that rise in every run."""
    curves: dict[int, RunCurves] = {}
    columns: dict[str, list[object]] = {}
    for run, members in enumerate(runs.members):
        column = rows.tables[tables[members[0]]].step_column
        if len(members) < 2 or column is None or run in known or runs.status[run] != "finished":
            continue
        if column not in columns:
            columns[column] = rows.values(column)
        steps = [_number(columns[column][row]) for row in members]
        if any(math.isnan(step) for step in steps) or any(after <= before for before, after in pairwise(steps)):
            continue
        scores, losses = (
            None if name not in runs.of_rows else [float(runs.of_rows[name][row]) for row in members]
            for name in ("score", "loss")
        )
        curves[run] = RunCurves(_without_gaps(steps, scores), _without_gaps(steps, losses))
    return curves


def _without_gaps(steps: Sequence[float], values: Sequence[float] | None) -> Points | None:
    if values is None:
        return None
    logged = ~np.isnan(values)
    return (np.asarray(steps)[logged], np.asarray(values)[logged]) if logged.any() else None


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan
