"""The cells of a study as a table, and how all other tables group its runs by cell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from harness.analysis import looks
from harness.analysis.outcomes import any_apart, crossed_levels, failure_rate, outcomes
from harness.analysis.verdicts import failed_runs, finished_runs, judged_runs, runs
from harness.common.memo import once_per_object
from harness.records.study import Study, numbers
from harness.stats import pooling, ranks
from harness.stats.estimate import Estimate
from harness.stats.proportions import clopper_pearson, wilson

NAN = float("nan")
ENDS = ("low", "high")


def by_cell(table: pd.DataFrame, column: str, cells: int) -> list[np.ndarray]:
    """The known values of a column in each cell [n], sorted, so that the order of the rows decides nothing.

    One pass over the table, for an import may have ten thousand cells.
    """
    values, cell_of = numbers(table, column).to_numpy(), table["cell"].to_numpy(dtype=int)
    known = ~np.isnan(values)
    values, cell_of = values[known], cell_of[known]
    order = np.lexsort((values, cell_of))
    return np.split(values[order], np.searchsorted(cell_of[order], np.arange(1, cells)))


@once_per_object
def cell_scores(study: Study) -> list[np.ndarray]:
    """Final scores of each cell's finished runs that have one [n], sorted."""
    return by_cell(study.runs[finished_runs(study.runs)], "final_score", len(study.cells))


def count_by_cell(table: pd.DataFrame, chosen: pd.Series, cells: int) -> np.ndarray:
    """How many of the chosen rows each cell has [cells]."""
    return np.bincount(table["cell"].to_numpy(dtype=int)[chosen.to_numpy(dtype=bool)], minlength=cells)


def _means(groups: list[np.ndarray]) -> list[float]:
    return [float(values.mean()) if len(values) else NAN for values in groups]


def cell_groups(table: pd.DataFrame, cells: int) -> list[pd.DataFrame]:
    """The rows of each cell."""
    groups = {int(index): group for index, group in table.groupby("cell", sort=False)}
    return [groups.get(index, table[:0]) for index in range(cells)]


def with_axes(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    """A table with one column per axis after `cell`, as objects: `none` stays None, and 1.0 beside it 1.0."""
    indices = list(table["cell"])
    for position, axis in enumerate(study.axes, start=1):
        name = f"{axis} (axis)" if axis in table.columns else axis  # an import may have an axis called `mean`
        table.insert(
            position, name, pd.Series([dict(study.cells[index].axes)[axis] for index in indices], dtype=object)
        )
    return table


def spread_out(prefix: str, estimate: Estimate) -> dict[str, float]:
    """An estimate as three columns: value, low and high end of its interval."""
    return {prefix: estimate.value, f"{prefix}_low": estimate.low, f"{prefix}_high": estimate.high}


def object_columns(table: pd.DataFrame, rows: Sequence[dict[str, object]], *names: str) -> pd.DataFrame:
    """The table with columns of Python objects, as they stand in `rows`."""
    for name in names:  # pandas would turn 1.0 beside None into NaN
        table[name] = pd.Series([row[name] for row in rows], dtype=object)
    return table


@once_per_object
def failure_counts(study: Study) -> list[tuple[int, int]]:
    """(failed, judged) of each cell."""
    size = len(study.cells)
    failed, judged = (count_by_cell(study.runs, chosen(study.runs), size) for chosen in (failed_runs, judged_runs))
    return [(int(k), int(n)) for k, n in zip(failed, judged, strict=True)]


def _rate_bounds(table: pd.DataFrame, failed: np.ndarray, judged: np.ndarray) -> dict[str, list[float]]:
    """The 95 % bounds of each cell's failure rate, by their columns."""
    counts = [(int(k), int(n)) for k, n in zip(failed, judged, strict=True)]
    if any_apart(table):
        rates = [failure_rate(of_cell) for of_cell in cell_groups(table, len(counts))]
        groups = [crossed_levels(of_cell) for of_cell in cell_groups(table, len(counts))]
        bounds = [(rate.low, rate.high) for rate in rates]
        exact = [
            clopper_pearson(k, n) if levels is None else (NAN, NAN)
            for (k, n), levels in zip(counts, groups, strict=True)
        ]
    else:
        bounds, exact = ([interval(k, n) for k, n in counts] for interval in (wilson, clopper_pearson))
    named = {"failed": bounds, "exact": exact}
    return {f"{name}_{end}": [ends[i] for ends in of] for name, of in named.items() for i, end in enumerate(ENDS)}


def _pooled_rates(table: pd.DataFrame, failed: np.ndarray, judged: np.ndarray) -> dict[str, list[float]]:
    """Each cell's failure rate shrunk towards those of the others; NaN where seed parts are crossed."""
    rates = pooling.pooled_rates(failed, judged * (not any_apart(table)))
    names = {"shrunk": "value", "shrunk_low": "low", "shrunk_high": "high"}
    return {column: [getattr(rate, end) for rate in rates] for column, end in names.items()}


def _medians(study: Study) -> list[float]:
    """Of all finished runs of each cell, those that diverged as the worst."""
    sign = 1 if study.higher_is_better else -1
    ranked = [cell.ranked(study.higher_is_better) for cell in outcomes(study)]
    return [sign * ranks.quantile(ordered, 0.5).value for ordered in ranked]


def cells(study: Study) -> pd.DataFrame:
    """One row a cell, in the study's order: counts, failure rate and the spread of the scores.

    Columns: `cell` (index), one per axis; `planned`, `finished`, `crashed`, `missing`, and `unreadable` where a record
    can't be used; `judged` (finished, and whether
    it failed is known); `scored` (finished with a score: a run that diverged has none); `failed` of `judged` (NA where
    runs are finished and none is judged) with 95 % bounds `failed_low`, `failed_high` (`outcomes.failure_rate`) and
    `exact_low`, `exact_high` (Clopper-Pearson, of independent runs), and `shrunk` with `_low`, `_high`, the rate that
    borrows from the other cells (`pooling.pooled_rates`); `constant`, `diverged`, `collapsed` (reasons of
    the failed); `near_chance`; `mean`, `sd` (n - 1), `min`, `max` of the final score over the scored; `median` over all
    finished, of which those that diverged are the worst; `best_mean` of the best score; `loss` (mean
    of the last epoch's training loss, nats); `majority`; and where there is a test split, `tested` (runs with a score
    on it), `test_mean` and `test_sd`. NaN where not known.
    """
    table, size = runs(study), len(study.cells)
    done = table[finished_runs(table)]
    scores = cell_scores(study)
    judged, failed = count_by_cell(done, judged_runs(done), size), count_by_cell(done, failed_runs(done), size)
    finished = count_by_cell(table, finished_runs(table), size)
    columns: dict[str, object] = {"cell": range(size), "planned": count_by_cell(table, table["cell"].notna(), size)}
    columns["finished"] = finished
    states = ("crashed", "missing", *(("unreadable",) if study.unreadable else ()))
    columns |= {status: count_by_cell(table, table["status"] == status, size) for status in states}
    columns |= {"judged": judged, "scored": [len(values) for values in scores]}
    known = [
        int(k) if n or not all_finished else None for k, n, all_finished in zip(failed, judged, finished, strict=True)
    ]
    columns["failed"] = pd.array(known, dtype="Int64")
    columns |= _rate_bounds(table, failed, judged) | _pooled_rates(table, failed, judged)
    columns |= {
        reason: count_by_cell(done, done["reason"] == reason, size) for reason in ("constant", "diverged", "collapsed")
    }
    columns |= {"near_chance": count_by_cell(done, done["verdict"] == "near chance", size), "mean": _means(scores)}
    columns["sd"] = [values.std(ddof=1) if len(values) > 1 else NAN for values in scores]
    columns["min"] = [values[0] if len(values) else NAN for values in scores]
    columns["median"] = _medians(study)
    columns["max"] = [values[-1] if len(values) else NAN for values in scores]
    means = {"best_mean": "best_score", "loss": "final_train_loss", "majority": "majority_score"}
    columns |= {name: _means(by_cell(done, column, size)) for name, column in means.items()}
    tests = by_cell(done, "test_score", size)
    if any(map(len, tests)):
        columns |= {"tested": [len(values) for values in tests], "test_mean": _means(tests)}
        columns["test_sd"] = [values.std(ddof=1) if len(values) > 1 else NAN for values in tests]
    return with_axes(study, looks.of_cells(study, pd.DataFrame(columns)))
