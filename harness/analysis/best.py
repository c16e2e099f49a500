"""Which cells may be the best: on the mean score, and on failing."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from harness.analysis import looks
from harness.analysis.cells import by_cell, cell_scores, failure_counts, with_axes
from harness.analysis.outcomes import crossed_cells, outcomes, seed_parts
from harness.analysis.verdicts import failed_runs, finished_runs, judged_runs
from harness.records.study import Study, numbers
from harness.stats import best_set as sets
from harness.stats import clusters, proportions


def best_set(study: Study) -> pd.DataFrame:
    """The cells that are not told apart from the best one, on either measure (95 %, `stats.best_set`).

    Columns: `cell`, one per axis; `mean` of the `scored` runs and of those that diverged, which score as the worst of
    the cell does, or as the majority class where that is worse; `p_mean` (adjusted: that another cell's mean is
    better), `maybe_best_mean`; `failed` of `judged`, `p_rate` (adjusted: that another cell's failure rate is lower),
    `maybe_lowest_rate`. NaN, and False, where a cell has no score or no judged run. `recommended`: of those that may be
    best on both (on the mean, where no run is judged) the ones whose failure rate has the lowest upper bound: a choice,
    not a finding, and none where all may be best. `run_seconds`: the median training time of a finished run, its share
    of a pack that was trained together (NaN where not known). Where seed parts are crossed, means have their cluster
    error, and failures count as many runs as are independent; where seeds are added by rule, `p_rate` holds at every
    look (`looks.rates_below`) and `p_mean` at a single one. No rows for a single cell.
    """
    columns = ["cell", "mean", "scored", "p_mean", "maybe_best_mean", "failed", "judged", "p_rate", "maybe_lowest_rate"]
    columns += ["recommended", "run_seconds"]
    if len(study.cells) < 2:
        return with_axes(study, pd.DataFrame(columns=columns))
    scores, sign = _scores(study), 1 if study.higher_is_better else -1
    failed, judged = np.array(failure_counts(study), dtype=int).T
    crossed = crossed_cells(study)
    errors, worth = _crossed(study, crossed, failed, judged) if crossed else ({}, (failed, judged))
    p_mean = sets.by_mean([sign * group for group in scores], errors)
    p_rate = looks.rates_below(study) if looks.looked_at(study) else sets.by_rate(*worth)
    table = pd.DataFrame(
        {
            "cell": range(len(study.cells)),
            "mean": [group.mean() if len(group) else np.nan for group in scores],
            "scored": [len(group) for group in cell_scores(study)],
            "p_mean": p_mean,
            "maybe_best_mean": p_mean >= sets.LEVEL,
            "failed": failed,
            "judged": judged,
            "p_rate": p_rate,
            "maybe_lowest_rate": p_rate >= sets.LEVEL,
            "recommended": _recommended(p_mean, p_rate, failed, judged),
            "run_seconds": _run_seconds(study),
        }
    )
    table["recommended"] &= not may_be_best(table)[table["scored"] > 0].all()
    return with_axes(study, table)


def may_be_best(table: pd.DataFrame) -> pd.Series:
    """Whether each row of `best_set` may be best on both measures; on the mean alone where no run is judged."""
    return table["maybe_best_mean"] & (table["maybe_lowest_rate"] | (table["judged"].sum() == 0))


def _run_seconds(study: Study) -> list[float]:
    """How long a finished run of each cell was trained, in seconds: the median."""
    times = by_cell(study.runs[finished_runs(study.runs)], "lane_seconds", len(study.cells))
    return [float(np.median(seconds)) if len(seconds) else np.nan for seconds in times]


def _scores(study: Study) -> list[np.ndarray]:
    """Scores of each cell [n], those of diverged runs included, or a recipe would gain by losing its worst runs."""
    worst, groups = np.fmin if study.higher_is_better else np.fmax, []
    for cell in outcomes(study):
        known = cell.scores[cell.scored]
        lost = np.full(cell.diverged if len(known) else 0, worst(worst.reduce(known), cell.chance) if len(known) else 0)
        groups.append(np.sort(np.concatenate([known, lost])))
    return groups


def _crossed(
    study: Study, crossed: frozenset[int], failed: np.ndarray, judged: np.ndarray
) -> tuple[dict[int, tuple[float, float]], tuple[np.ndarray, np.ndarray]]:
    """Of cells whose seed parts are crossed: the error of the mean and its degrees of freedom; and of all cells failed
    and judged runs, those of the crossed ones as many as are independent (rounded down, as whole runs)."""
    errors: dict[int, tuple[float, float]] = {}
    failed, judged = failed.copy(), judged.copy()
    for index in crossed:
        runs = study.runs[finished_runs(study.runs) & (study.runs["cell"] == index)]
        scored, known = runs[runs["final_score"].notna()], runs[judged_runs(runs)]
        scores = numbers(scored, "final_score").to_numpy()
        if len(scores) > 1:
            error = clusters.error_of_sum(seed_parts(scored), (scores - scores.mean()) / len(scores))
            errors[index] = (error.variance, error.freedom)
        if len(known):
            fails = failed_runs(known).to_numpy()
            runs_worth = max(1, math.floor(clusters.effective_runs(seed_parts(known), fails)))
            failed[index], judged[index] = round(float(fails.mean()) * runs_worth), runs_worth
    return errors, (failed, judged)


def _recommended(p_mean: np.ndarray, p_rate: np.ndarray, failed: np.ndarray, judged: np.ndarray) -> np.ndarray:
    """Which cells may be best on both measures and whose failure rate is bounded lowest (Wilson) of these [cells].

    Of cells with as many runs it is those that failed least; 0 of 4 is not preferred to 1 of 20.
    """
    chosen = p_mean >= sets.LEVEL
    if not judged.any():
        return chosen
    chosen &= p_rate >= sets.LEVEL
    if chosen.any():
        upper = np.array([proportions.wilson(int(k), int(n))[1] for k, n in zip(failed, judged, strict=True)])
        chosen &= upper == upper[chosen].min()
    return chosen
