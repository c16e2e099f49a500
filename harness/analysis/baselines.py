"""The cells of a study beside simple classifiers on the same data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from harness.analysis.cells import NAN, cell_groups, cell_scores, failure_counts, spread_out
from harness.analysis.dev_answers import DevAnswers, accuracy_over_seeds
from harness.analysis.outcomes import crossed_cells
from harness.analysis.score_scale import cut_to_scale
from harness.analysis.verdicts import finished_runs
from harness.records.record import Baseline
from harness.records.study import Study
from harness.stats import dev_noise, means
from harness.stats.bootstrap import rng
from harness.stats.estimate import Estimate


def baselines(study: Study, answered: Sequence[DevAnswers | None]) -> pd.DataFrame:
    """The cells beside the simple classifiers that the study asks for, trained on the same data.

    Columns: `task`, `what` (the cell's name, or the baseline's), `cell` (NA for a baseline), `settings` (a baseline's),
    `runs` (a baseline that no seed changes has one), `failed` of `judged`, `mean`, `mean_low`, `mean_high` (Student's),
    `sd` (0 where no seed changes anything), `accuracy` with `dev_low`, `dev_high` (bootstrap of the dev
    examples, runs held), `against` (the baseline of the highest mean, in a cell's row) and `difference` (accuracy of
    the cell minus that baseline's) with `_low`, `_high` (`stats.dev_noise.difference`: over seeds and the same
    examples); NaN where not known, as for a regression. Empty without baselines of the cells' data.
    """
    rows: list[dict[str, object]] = []
    finished = study.runs[finished_runs(study.runs)]
    hashes = [set(of_cell["data_sha256"].dropna()) for of_cell in cell_groups(finished, len(study.cells))]
    for task, metric, data in dict.fromkeys(map(_data_of, study.baselines)):
        of_data = [baseline for baseline in study.baselines if _data_of(baseline) == (task, metric, data)]
        same_metric = set(finished["metric"].dropna()) <= {metric}
        cells = [index for index, of_cell in enumerate(hashes) if of_cell == {data} and same_metric]
        if not cells:
            continue
        best = max(of_data, key=lambda baseline: float(np.mean(baseline.scores)))
        rows += _cell_rows(study, cells, answered, best)
        rows += [_baseline_row(baseline) for baseline in of_data]
    columns = ["task", "what", "cell", "settings", "runs", "failed", "judged", "mean", "mean_low", "mean_high", "sd"]
    columns += ["accuracy", "dev_low", "dev_high", "against", "difference", "difference_low", "difference_high"]
    table = pd.DataFrame(rows, columns=columns)
    table["cell"] = pd.array(table["cell"].tolist(), dtype="Int64")
    return cut_to_scale(study, table, ("mean",), ("difference",))


def _data_of(baseline: Baseline) -> tuple[str, str, str]:
    return baseline.task, baseline.metric, baseline.data_sha256


def _cell_rows(
    study: Study, cells: Sequence[int], answered: Sequence[DevAnswers | None], best: Baseline
) -> list[dict[str, object]]:
    """A row for each cell, with its difference to the best baseline where answers of both are known."""
    scores, counts, crossed = cell_scores(study), failure_counts(study), crossed_cells(study)
    rows = []
    for index in cells:
        answers, (failed, judged) = answered[index], counts[index]
        row: dict[str, object] = {"task": best.task, "what": study.cells[index].label, "cell": index}
        row |= {"settings": "", "against": "", "failed": failed, "judged": judged} | _of_runs(scores[index])
        if answers is not None:
            row |= _on_the_dev_set(answers.correct) | {"against": best.name}
            right = _right(best)
            if right.shape[1] == answers.correct.shape[1]:
                seeds = means.minus(_over_seeds(best, right), accuracy_over_seeds(study, answers))
                row |= spread_out("difference", dev_noise.difference(answers.correct, right, seeds))
        if index in crossed:  # runs that are not independent: the intervals above would be too short
            row |= dict.fromkeys(("mean_low", "mean_high", "difference_low", "difference_high"), NAN)
        rows.append(row)
    return rows


def _over_seeds(baseline: Baseline, right: np.ndarray) -> Estimate:
    """The mean accuracy of a baseline's answers [R, N]; certain where no seed changes it."""
    each = right.mean(axis=1)
    mean = means.student(each)
    certain = not baseline.seeds or (len(each) > 1 and np.ptp(each) == 0)
    return Estimate(mean.value, mean.value, mean.value) if certain else mean


def _baseline_row(baseline: Baseline) -> dict[str, object]:
    row: dict[str, object] = {"task": baseline.task, "what": baseline.name, "cell": None, "against": ""}
    row |= {"settings": baseline.settings, "failed": sum(baseline.failed), "judged": len(baseline.failed)}
    row |= _of_runs(np.array(baseline.scores))
    row |= {} if baseline.seeds else {"sd": 0.0}
    return row | (_on_the_dev_set(_right(baseline)) if baseline.answers else {})


def _right(baseline: Baseline) -> np.ndarray:
    """Which answers of a baseline are right [R, N]; none for a regression."""
    answers = np.array(baseline.answers, dtype=int).reshape(len(baseline.answers), len(baseline.labels))
    right: np.ndarray = answers == np.array(baseline.labels, dtype=int)
    return right


def _of_runs(scores: np.ndarray) -> dict[str, object]:
    sd = scores.std(ddof=1) if len(scores) > 1 else NAN
    return {"runs": len(scores)} | spread_out("mean", means.student(scores)) | {"sd": sd}


def _on_the_dev_set(correct: np.ndarray) -> dict[str, object]:
    low, high = dev_noise.example_interval(correct, rng("examples"))
    return {"accuracy": correct.mean(), "dev_low": low, "dev_high": high}
