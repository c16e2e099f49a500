"""Optuna's storages: an SQLite file or a journal, read by Optuna itself from a copy, so that nothing is written."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.common.errors import HarnessError
from harness.common.text import Scalar
from harness.records.importing.table import Key, LoggedRun, Series, SourceTable, plain, table_of, unreadable
from harness.records.importing.text import printable

TABLES = {"studies", "trials", "trial_params"}
_JOURNAL_KEYS = {"op_code", "worker_id"}


def is_journal(path: Path) -> bool:
    """Whether a file's first line is an entry of Optuna's journal."""
    try:
        with path.open("rb") as stream:
            first = json.loads(stream.readline(100_000))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(first, dict) and first.keys() >= _JOURNAL_KEYS


def load(path: Path, label: str, higher_is_better: bool, *, journal: bool) -> SourceTable:
    """The trials of all studies of a storage.

    Columns are `number`, `study`, `state`, `value` (`values_0`, … or the names of several objectives), the params
    and user attributes by name, and `datetime_start`; the curve of a value are the trial's intermediate values.
    """
    runs: list[LoggedRun] = []
    directions: dict[str, set[str]] = {"MINIMIZE": set(), "MAXIMIZE": set()}
    try:
        with _studies(path, journal) as studies:
            for study in studies:
                names = _objectives(study)
                for name, direction in zip(names, study.directions, strict=True):
                    directions.setdefault(direction.name, set()).add(name)
                runs += [_logged(study, trial, names) for trial in study.get_trials(deepcopy=False)]
    except HarnessError:
        raise
    except Exception as error:  # of Optuna, SQLAlchemy and the journal's reader: all mean a damaged or foreign storage
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        unreadable(
            path, f"Optuna can't read it: {printable(reason)[:200]}", allowed="a storage of the installed Optuna",
            fix="Correct it, or in Python: study.trials_dataframe().to_csv('runs.csv')",
        )  # fmt: skip
    if not runs:
        unreadable(path, "no rows", allowed="a storage with trials")
    both = directions["MINIMIZE"] & directions["MAXIMIZE"]
    return table_of(
        label, "Optuna", runs, hashlib.sha256(path.read_bytes()).hexdigest(), higher_is_better=higher_is_better,
        metrics="values", state_column="state", minimised=directions["MINIMIZE"] - both,
        maximised=directions["MAXIMIZE"] - both,
    )  # fmt: skip


@contextmanager
def _studies(path: Path, journal: bool) -> Iterator[list[Any]]:
    import optuna
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "storage")
        shutil.copyfile(path, copy)
        for ending in ("-wal", "-shm"):  # what an SQLite that is in use has not yet put into its file
            if (beside := path.with_name(path.name + ending)).is_file():
                shutil.copyfile(beside, Path(folder, f"storage{ending}"))
        storage: Any = JournalStorage(JournalFileBackend(str(copy))) if journal else RDBStorage(f"sqlite:///{copy}")
        try:
            names = optuna.get_all_study_names(storage)
            yield [optuna.load_study(study_name=name, storage=storage) for name in names]
        finally:
            if not journal:
                storage.remove_session()
                storage.engine.dispose()
            logger.setLevel(level)


def _objectives(study: Any) -> list[str]:
    if study.metric_names:
        return list(study.metric_names)
    several = len(study.directions) > 1
    return [f"values_{number}" for number in range(len(study.directions))] if several else ["value"]


def _logged(study: Any, trial: Any, names: list[str]) -> LoggedRun:
    values: dict[Key, Scalar] = {("params", name): plain(value) for name, value in trial.params.items()}
    values |= {("user_attrs", name): plain(value) for name, value in trial.user_attrs.items()}
    values |= {("values", name): value for name, value in zip(names, trial.values or [None] * len(names), strict=True)}
    steps = sorted(trial.intermediate_values)
    curve = Series(steps, [float(trial.intermediate_values[step]) for step in steps])
    about: dict[str, Scalar] = {
        "number": trial.number,
        "study": study.study_name,
        "state": trial.state.name,
        "datetime_start": None if trial.datetime_start is None else str(trial.datetime_start),
    }
    history = {names[0]: curve} if steps and len(names) == 1 else {}
    return LoggedRun(f"{study.study_name}/{trial.number}", f"{study.study_name}/{trial.number}", about, values, history)
