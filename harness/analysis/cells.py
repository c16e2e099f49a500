"""Runs and cells as tables, and what all other tables of an analysis start from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from harness.common import metrics
from harness.common.text import Scalar, show
from harness.records.study import SOURCE, Study, StudyCell, numbers
from harness.stats import proportions
from harness.stats.estimate import Estimate

LEVEL = 0.05  # one-sided, for "not above the majority"


NEAR_ENTROPY = 0.95  # a training loss of this share of the labels' entropy has learned next to nothing


MOST_PAIRS = 300  # cells are compared one by one up to so many pairs; with more, a table of them tells nobody anything


MOST_VALUES = 50  # of an axis, up to which each one's level is told by itself


NAN = float("nan")


def finished_runs(table: pd.DataFrame) -> pd.Series:
    """Runs that came to their end, as a mask [runs]."""
    return table["status"] == "finished"


def judged_runs(table: pd.DataFrame) -> pd.Series:
    """Finished runs whose outcome is known: all of a sweep's, those of an import that came with a majority."""
    return finished_runs(table) & table["outcome"].notna()


def failed_runs(table: pd.DataFrame) -> pd.Series:
    """Finished runs that failed, as a mask [runs]."""
    return finished_runs(table) & (table["outcome"] == "failed")


def at_chance(table: pd.DataFrame) -> pd.Series:
    """Which finished runs are above the majority by count, yet not told from it: not trained, though not failed.

    True where the right answers are not above the majority's share at 5 % (one-sided exact binomial test; of a
    regression: the correlation not above 0, t-test) and the mean training loss of the last epoch is at least 0.95 of
    the labels' entropy (of a regression: of their variance). False for failed runs, and where either is not known. Of
    a token task the loss alone tells: the words of a sentence are no independent examples, and a fresh head finds some
    entity by luck.
    """
    untold = (above_majority_p(table) > LEVEL) | (table["metric"] == metrics.ENTITIES)
    return finished_runs(table) & (table["outcome"] == "ok") & untold & flat_losses(table)


def above_majority_p(table: pd.DataFrame) -> pd.Series:
    """The p value of so many right answers or more, were the run no better than the majority; NaN where not known."""
    right, examples = numbers(table, "correct"), numbers(table, "dev_examples")
    share = numbers(table, "majority_correct") / examples
    by_count = pd.Series(stats.binom.sf(right - 1, examples, share), index=table.index)
    r, free = numbers(table, "final_score").where(table["label_variance"].notna()), examples - 2
    with np.errstate(divide="ignore"):  # a correlation of 1
        return by_count.fillna(pd.Series(stats.t.sf(r * np.sqrt(free / (1 - r**2)), free), index=table.index))


def untrained_loss(table: pd.DataFrame) -> pd.Series:
    """The training loss of what knows the labels' frequencies and no more: their entropy, or their variance."""
    return numbers(table, "label_entropy").fillna(numbers(table, "label_variance"))


def flat_losses(table: pd.DataFrame) -> pd.Series:
    """Runs whose training loss stayed near that of an untrained classifier, as a mask [runs]."""
    return numbers(table, "final_train_loss") >= NEAR_ENTROPY * untrained_loss(table)


def runs(study: Study) -> pd.DataFrame:
    """`study.runs` with the column `verdict` added."""
    table = study.runs.copy()
    table["verdict"] = verdicts(table)
    return table


def verdicts(table: pd.DataFrame) -> pd.Series:
    """The verdict on each run of a table with the columns of `Study.runs`.

    `ok`, `failed`, `diverged` (failed, without a score), `at chance`, `unjudged` (finished, but whether it failed is
    not known) or, for a run that is not finished, an empty text.
    """
    verdict = pd.Series("", index=table.index, dtype=object)
    done = finished_runs(table)
    verdict[done] = "unjudged"
    verdict[done & (table["outcome"] == "ok")] = "ok"
    verdict[at_chance(table)] = "at chance"
    verdict[failed_runs(table)] = "failed"
    verdict[done & table["final_score"].isna()] = "diverged"
    return verdict


# ------------------------------------------------------------------------------------------------------------- groups


def by_cell(table: pd.DataFrame, column: str, cells: int) -> list[np.ndarray]:
    """The known values of a column in each cell [n], sorted, so that the order of the rows decides nothing.

    One pass over the table, for an import may have ten thousand cells.
    """
    values, places = numbers(table, column).to_numpy(), table["cell"].to_numpy(dtype=int)
    known = ~np.isnan(values)
    values, places = values[known], places[known]
    order = np.lexsort((values, places))
    return np.split(values[order], np.searchsorted(places[order], np.arange(1, cells)))


def cell_scores(study: Study) -> list[np.ndarray]:
    """Final scores of each cell's finished runs that have one [n], sorted."""
    return by_cell(study.runs[finished_runs(study.runs)], "final_score", len(study.cells))


def count_by_cell(table: pd.DataFrame, chosen: pd.Series, cells: int) -> np.ndarray:
    """How many of the chosen rows each cell has [cells]."""
    return np.bincount(table["cell"].to_numpy(dtype=int)[chosen.to_numpy(dtype=bool)], minlength=cells)


def _means(found: list[np.ndarray]) -> list[float]:
    return [float(values.mean()) if len(values) else NAN for values in found]


def cell_groups(table: pd.DataFrame, cells: int) -> list[pd.DataFrame]:
    """The rows of each cell."""
    found = {int(index): group for index, group in table.groupby("cell", sort=False)}
    return [found.get(index, table[:0]) for index in range(cells)]


def with_axes(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    """A table with one column per axis after `cell`, as objects: `none` stays None, and 1.0 beside it 1.0."""
    places = list(table["cell"])
    for place, axis in enumerate(study.axes, start=1):
        name = f"{axis} (axis)" if axis in table.columns else axis  # an import may have an axis called `mean`
        table.insert(place, name, pd.Series([dict(study.cells[index].axes)[axis] for index in places], dtype=object))
    return table


def spread_out(prefix: str, estimate: Estimate) -> dict[str, float]:
    """An estimate as three columns: value, low and high end of its interval."""
    return {prefix: estimate.value, f"{prefix}_low": estimate.low, f"{prefix}_high": estimate.high}


# ------------------------------------------------------------------------------------------------------ failure rates


def cells(study: Study) -> pd.DataFrame:
    """One row a cell, in the study's order: counts, failure rate and the spread of the scores.

    Columns: `cell` (index), one per axis; `planned`, `finished`, `crashed`, `missing`; `judged` (finished, and whether
    it failed is known); `scored` (finished with a score: a run that diverged has none); `failed` of `judged` (NA where
    runs are finished and none is judged) with 95 % bounds `failed_low`, `failed_high` (Wilson) and `exact_low`,
    `exact_high` (Clopper-Pearson); `constant`, `diverged`, `collapsed` (reasons of the failed); `at_chance`; `mean`,
    `sd` (n - 1), `min`, `median`, `max` of the final score over the scored; `best_mean` of the best score; `loss` (mean
    of the last epoch's training loss, nats); `majority`; and where there is a test split, `tested` (runs with a score
    on it), `test_mean` and `test_sd`. NaN where not known.
    """
    table, size = runs(study), len(study.cells)
    done = table[finished_runs(table)]
    scores = cell_scores(study)
    judged, failed = count_by_cell(done, judged_runs(done), size), count_by_cell(done, failed_runs(done), size)
    finished = count_by_cell(table, finished_runs(table), size)
    found: dict[str, object] = {"cell": range(size), "planned": count_by_cell(table, table["cell"].notna(), size)}
    found["finished"] = finished
    found |= {status: count_by_cell(table, table["status"] == status, size) for status in ("crashed", "missing")}
    found |= {"judged": judged, "scored": [len(values) for values in scores]}
    known = [
        int(k) if n or not all_finished else None for k, n, all_finished in zip(failed, judged, finished, strict=True)
    ]
    found["failed"] = pd.array(known, dtype="Int64")
    for name, interval in (("failed", proportions.wilson), ("exact", proportions.clopper_pearson)):
        bounds = [interval(int(k), int(n)) for k, n in zip(failed, judged, strict=True)]
        found |= {f"{name}_low": [low for low, _ in bounds], f"{name}_high": [high for _, high in bounds]}
    found |= {
        reason: count_by_cell(done, done["reason"] == reason, size) for reason in ("constant", "diverged", "collapsed")
    }
    found |= {"at_chance": count_by_cell(done, done["verdict"] == "at chance", size), "mean": _means(scores)}
    found["sd"] = [values.std(ddof=1) if len(values) > 1 else NAN for values in scores]
    found["min"] = [values[0] if len(values) else NAN for values in scores]
    found["median"] = [np.median(values) if len(values) else NAN for values in scores]
    found["max"] = [values[-1] if len(values) else NAN for values in scores]
    columns = {"best_mean": "best_score", "loss": "final_train_loss", "majority": "majority_score"}
    found |= {name: _means(by_cell(done, column, size)) for name, column in columns.items()}
    tests = by_cell(done, "test_score", size)
    if any(map(len, tests)):
        found |= {"tested": [len(values) for values in tests], "test_mean": _means(tests)}
        found["test_sd"] = [values.std(ddof=1) if len(values) > 1 else NAN for values in tests]
    return with_axes(study, pd.DataFrame(found))


def phrase(axis: str, value: Scalar) -> str:
    """`without bias correction`, `of the recipe usual`, `with epochs 3`."""
    if axis == "bias_correction":
        return "with bias correction" if value else "without bias correction"
    if axis == SOURCE:
        return f"of {show(value)}"
    return f"of the recipe {show(value)}" if axis == "recipe" else f"with {axis.replace('_', ' ')} {show(value)}"


def axes_by_weight(study: Study) -> list[str]:
    """The axes with more than one value: two studies side by side first, then correction, recipe, method, others."""
    first = (SOURCE, "bias_correction", "recipe", "method")
    several = [axis for axis in study.axes if len(study.values(axis)) > 1]
    return sorted(several, key=lambda axis: first.index(axis) if axis in first else len(first))


def main_axis(study: Study) -> str | None:
    """The axis that the opening sentence, the pairs of cells and the profile compare; None without axes."""
    ordered = axes_by_weight(study)
    if not ordered:
        return None
    known = [axis for axis in ordered if axis in (SOURCE, "bias_correction", "recipe", "method")]
    two = [axis for axis in ordered if len(study.values(axis)) == 2]
    return (known or two or ordered)[0]


def object_columns(table: pd.DataFrame, rows: Sequence[dict[str, object]], *names: str) -> pd.DataFrame:
    """The table with columns of Python objects, as they stand in `rows`."""
    for name in names:  # pandas would turn 1.0 beside None into NaN
        table[name] = pd.Series([row[name] for row in rows], dtype=object)
    return table


def other_axes(cell: StudyCell, axis: str) -> tuple[tuple[str, Scalar], ...]:
    """A cell's values on all axes but one."""
    return tuple(pair for pair in cell.axes if pair[0] != axis)


def by_others(study: Study, axis: str, value: Scalar) -> dict[tuple[tuple[str, Scalar], ...], int]:
    """The cells with a value on an axis, by their values on all others."""
    return {other_axes(cell, axis): index for index, cell in enumerate(study.cells) if dict(cell.axes)[axis] == value}


def failure_counts(study: Study) -> list[tuple[int, int]]:
    """(failed, judged) of each cell."""
    size = len(study.cells)
    failed, judged = (count_by_cell(study.runs, chosen(study.runs), size) for chosen in (failed_runs, judged_runs))
    return [(int(k), int(n)) for k, n in zip(failed, judged, strict=True)]


def pairs(study: Study) -> list[tuple[int, int]]:
    """Cells that differ on the main axis alone, each beside that of the axis's first value, as (reference, cell).

    Empty where there are more than `MOST_PAIRS`: then the axes as a whole are compared and not every cell.
    """
    axis = main_axis(study)
    if axis is None:
        return []
    values = study.values(axis)
    reference = by_others(study, axis, values[0])
    found = [
        (reference[other_axes(cell, axis)], index)
        for index, cell in enumerate(study.cells)
        if dict(cell.axes)[axis] != values[0] and other_axes(cell, axis) in reference
    ]
    return found if len(found) <= MOST_PAIRS else []


def holm(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """The table with Holm-adjusted p-values of a column, as `p_holm`."""
    if len(table):
        table["p_holm"] = proportions.holm(table[column].to_numpy(dtype=float))
    return table
