"""The runs of a study as the page lists them, and as `runs.csv` holds them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from harness.analysis.analyze import Analysis
from harness.common.text import count_noun, show
from harness.records.study import Study
from harness.report.files import csv, json_value
from harness.report.formatting import integer, score

MOST_RUNS = 2000  # on the page; the file has them all
_ABSOLUTE_PATH = re.compile(r"(?<![\w.:/])/(?:[^\s/'\":,;()]+/)+")
_COUNTS = (
    "correct", "majority_correct", "best_step", "diverged_step", "steps", "dev_examples", "train_examples",
    "test_examples", "parameters", "trained_parameters", "peak_memory_bytes", "threads", "pack_size",
)  # fmt: skip


@dataclass(frozen=True)
class RunRow:
    """One run of the page's table: its texts, the word to filter by, and the command that trains it again."""

    cells: tuple[str, ...]
    verdict: str
    command: str | None


def runs_csv(analysis: Analysis) -> str:
    """One row a planned run, without file-system paths; an error is its last line."""
    fates = analysis.diagnosis.fates[["kind", "vanished"]].rename(columns={"vanished": "gradients_vanished_by"})
    runs = analysis.runs.join(fates)
    shown = runs.assign(error=[error_line(error) if isinstance(error, str) else None for error in runs["error"]])
    whole = {name: pd.to_numeric(shown[name]).astype("Int64") for name in _COUNTS}  # a missing one makes no 3.0 of 3
    return csv(shown.assign(**whole).dropna(axis="columns", how="all"))


def without_folders(text: str) -> str:
    """A text without the folders of the machine it was written on."""
    return _ABSOLUTE_PATH.sub("…/", text)


def error_line(error: str) -> str:
    """The line of an error that says what happened, without the folders of the machine it happened on."""
    lines = [line.strip() for line in error.splitlines() if line.strip()] or ["no message"]
    line = lines[-1] if lines[0].startswith("Traceback") else lines[0]
    return without_folders(line)[:300]


def seed_name(run: Mapping[str, object], crossed: bool) -> str:
    """The seed of a run of the table; its three parts where they are crossed."""
    seed, *parts = (json_value(run[name]) for name in ("seed", "init_seed", "order_seed", "dropout_seed"))
    seed, *parts = (int(value) if isinstance(value, float) else value for value in (seed, *parts))
    return "init {}, order {}, dropout {}".format(*parts) if crossed else str(seed)


def seeds_crossed(runs: pd.DataFrame) -> bool:
    """Whether one integer does not drive all three parts of every run."""
    return any((runs[name].notna() & (runs[name] != runs["seed"])).any() for name in runs.filter(regex="_seed$"))


def _cell_and_seed(study: Study, run: Mapping[str, object], crossed: bool) -> tuple[str, ...]:
    return (*(show(value) for _, value in study.cells[int(str(run["cell"]))].axes), seed_name(run, crossed))


def header(study: Study) -> tuple[str, ...]:
    """The columns of the page's table of runs."""
    axes = (axis.replace("_", " ") for axis in study.axes)
    return (*axes, "seed", "verdict", "final score", "best score", "training loss")


def all_runs(analysis: Analysis) -> tuple[RunRow, ...]:
    """The runs that the page lists; of very many those that went wrong before the others."""
    runs = analysis.runs
    if len(runs) > MOST_RUNS:
        runs = runs.sort_values("verdict", key=lambda words: words.isin(["ok", "unjudged"]), kind="stable")
    return _rows(analysis, runs)


def failed_heading(count: int) -> str:
    """What the table of failed and near-chance runs is called."""
    which = "it" if count == 1 else "each"
    return f"{count_noun(count, 'failed or near-chance run')}, with the command that reruns {which}"


def failed_runs(analysis: Analysis) -> tuple[RunRow, ...]:
    """The finished runs that failed or were hardly trained."""
    runs = analysis.runs
    return _rows(
        analysis, runs[(runs["status"] == "finished") & runs["verdict"].isin(["failed", "diverged", "near chance"])]
    )


def _rows(analysis: Analysis, runs: pd.DataFrame) -> tuple[RunRow, ...]:
    crossed, rows = seeds_crossed(analysis.study.runs), []
    for run in runs.head(MOST_RUNS).to_dict("records"):
        status, verdict = str(run["status"]), str(run["verdict"])
        word = status if status != "finished" else "failed" if verdict == "diverged" else verdict
        reason = f": {run['reason']}" if isinstance(run["reason"], str) and status == "finished" else ""
        numbers = (score(run[name]) for name in ("final_score", "best_score", "final_train_loss"))
        cells = (*_cell_and_seed(analysis.study, run, crossed), word + reason, *numbers)
        rows.append(RunRow(cells, word, _command(run)))
    return tuple(rows)


def crashed_runs(analysis: Analysis) -> tuple[RunRow, ...]:
    """The runs that crashed, with their error."""
    study, runs = analysis.study, analysis.runs
    crossed, rows = seeds_crossed(study.runs), []
    for run in runs[runs["status"] == "crashed"].head(MOST_RUNS).to_dict("records"):
        error = error_line(run["error"]) if isinstance(run["error"], str) else "no message"
        attempts = integer(run["attempts"]) if run["attempts"] else "–"
        rows.append(RunRow((*_cell_and_seed(study, run, crossed), attempts, error), "crashed", _command(run)))
    return tuple(rows)


def _command(run: Mapping[str, object]) -> str | None:
    return run["command"] if isinstance(run["command"], str) else None
