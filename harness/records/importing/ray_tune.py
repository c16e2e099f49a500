"""Ray Tune's folders of trials: `params.json`, `result.json` or `progress.csv`; above them the experiment's state."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.common.text import Scalar, count_noun
from harness.records.importing.table import Digest, Key, LoggedRun, Series, SourceTable, flatten, table_of, unreadable

_TIMES = {"timestamp", "date", "pid", "hostname", "node_ip", "checkpoint_dir_name", "done", "config", "trial_id"}


def is_run(names: set[str]) -> bool:
    """Whether a folder with such files is a trial's."""
    return "params.json" in names and bool({"result.json", "progress.csv", "error.txt"} & names)


def load(folders: Sequence[Path], root: Path, label: str, higher_is_better: bool) -> SourceTable:
    """The trials of the folders, and those that an experiment's state names beside them though they have none.

    A trial's state is what the experiment says; where its file is missing: ERROR by an error.txt, TERMINATED where
    the last result says done, else RUNNING. A score is that of the last result.
    """
    digest, runs = Digest(root), []
    states: dict[Path, dict[str, _Trial]] = {parent: _states(parent, digest) for parent in {f.parent for f in folders}}
    for folder in sorted(folders):
        runs.append(_logged(folder, states[folder.parent].pop(folder.name, None), root, digest))
    for parent, rest in sorted(states.items()):
        for name, trial in sorted(rest.items()):
            path = (parent / name).relative_to(root).as_posix()
            values: dict[Key, Scalar] = {("config", key): value for key, value in flatten(trial.config).items()}
            runs.append(LoggedRun(path, path, {"folder": path, "trial_id": trial.id, "status": trial.status}, values))
    ends = {run.about.get("training_iteration") for run in runs if run.about["status"] == "TERMINATED"}
    ends -= {None}
    notes = []
    if len(ends) > 1:
        some = [value for value in ends if isinstance(value, int | float)]
        notes.append(
            f"{label}: trials that TERMINATED did so after {min(some):g} to {max(some):g} iterations: those that a "
            "scheduler stopped early count as finished; leave them out with --where training_iteration=…."
        )
    unknown = sum(not run.history and run.about["status"] == "TERMINATED" for run in runs)
    if unknown:
        notes.append(f"{label}: {count_noun(unknown, 'trial')} TERMINATED without a result.")
    return table_of(
        label, "Ray Tune", runs, digest.sha256, higher_is_better=higher_is_better, metrics="results",
        state_column="status", notes=notes,
    )  # fmt: skip


class _Trial:
    """What an experiment's state says of a trial."""

    def __init__(self, state: Mapping[str, Any]) -> None:
        self.id = str(state.get("trial_id", ""))
        self.status = str(state.get("status", ""))
        config = state.get("config")
        self.config: Mapping[str, Any] = config if isinstance(config, dict) else {}


def _states(experiment: Path, digest: Digest) -> dict[str, _Trial]:
    """Folder name -> what the newest state of an experiment says of the trial; empty where there is none."""
    files = sorted(experiment.glob("experiment_state-*.json"))
    if not files:
        return {}
    trials: dict[str, _Trial] = {}
    try:
        for entry in json.loads(digest.text(files[-1]))["trial_data"]:
            state = json.loads(entry[0])
            name = state.get("relative_logdir") or f"trial {state.get('trial_id', '')}, without a folder"
            trials[str(name)] = _Trial(state)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        unreadable(files[-1], "not as Ray Tune writes it", allowed="an experiment's state of Ray 2")
    return trials


def _logged(folder: Path, trial: _Trial | None, root: Path, digest: Digest) -> LoggedRun:
    try:
        params = json.loads(digest.text(folder / "params.json"))
        rows = _rows(folder, digest)
    except (ValueError, RecursionError, csv.Error):
        unreadable(folder, "its results are not JSON", allowed="as Ray Tune writes them")
    curves: dict[str, tuple[list[float], list[float]]] = {}
    last: dict[str, Scalar] = {}
    for row_number, row in enumerate(rows, start=1):
        flat = flatten({key: value for key, value in row.items() if key not in _TIMES}, separator="/")
        step = _number(row.get("training_iteration"))
        for name, value in flat.items():
            last[name] = value
            if (number := _number(value)) is not None:
                steps, values = curves.setdefault(name, ([], []))
                steps.append(row_number if step is None else step)
                values.append(number)
    done = bool(rows) and str(rows[-1].get("done")).casefold() == "true"
    seen = "ERROR" if (folder / "error.txt").is_file() else "TERMINATED" if done else "RUNNING"
    path = folder.relative_to(root).as_posix() if folder != root else folder.name
    about: dict[str, Scalar] = {
        "folder": path,
        "trial_id": trial.id if trial else (str(rows[-1].get("trial_id", "")) if rows else ""),
        "status": trial.status if trial else seen,
        "training_iteration": last.get("training_iteration"),
    }
    held: dict[Key, Scalar] = {("config", name): value for name, value in flatten(params).items()}
    held |= {("results", name): value for name, value in last.items() if name not in about}
    history = {name: Series(steps, values) for name, (steps, values) in curves.items() if name not in about}
    return LoggedRun(path, path, about, held, history)


def _rows(folder: Path, digest: Digest) -> list[dict[str, Any]]:
    """The results of a trial, one an iteration; a last line that was cut is left."""
    results, progress = folder / "result.json", folder / "progress.csv"
    if results.is_file() and results.stat().st_size:
        lines = [line for line in digest.text(results).splitlines() if line.strip()]
        rows = [json.loads(line) for line in lines[:-1]]
        with suppress(ValueError, IndexError):
            rows.append(json.loads(lines[-1]))
        return [row for row in rows if isinstance(row, dict)]
    if progress.is_file():
        return list(csv.DictReader(io.StringIO(digest.text(progress), newline=""), strict=True))
    return []


def _number(value: object) -> float | None:
    if isinstance(value, bool) or value is None or value == "":
        return None
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
