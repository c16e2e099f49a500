"""The studies of a results folder as a browser asks for them: how they stand, their runs, their curves.

Every record is read once, and again when its file changes; a look at a study costs a `stat` a trial.
"""

from __future__ import annotations

import math
import os
import shlex
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from harness.analysis.status import Status, Watch
from harness.common.errors import HarnessError
from harness.common.text import is_unicode, last_line, without_controls
from harness.config.trials import Sweep, Trial, expand
from harness.execution.lookup import rerun_words
from harness.records.heartbeat import Written, holder
from harness.records.imported import is_imported, of_import
from harness.records.reading import Unreadable
from harness.records.record import Record
from harness.records.store import Store
from harness.records.study import Study

MOST_POINTS = 400  # of a curve
_FRESH_SECONDS = 1.0  # a look at a study is handed out again for so long
_PATIENCE_SECONDS = 2.0  # that the list of studies waits for the records of one


@dataclass(frozen=True)
class Run:
    """A run of a study, as tables of runs show it; None: not known.

    `verdict` is `ok`, `failed`, `crashed`, `missing` or, of a finished run that can't be judged, `finished`.
    """

    study: str
    trial: str
    settings: str
    seed: str
    verdict: str
    reason: str | None
    metric: str | None
    score: float | None
    best: float | None
    loss: float | None
    seconds: float | None
    command: str | None

    @property
    def words(self) -> str:
        """What a filter looks at."""
        return " ".join((self.study, self.trial, self.settings, self.verdict, self.reason or "")).casefold()


class _Facts(NamedTuple):
    """What tables show of a record."""

    verdict: str
    reason: str | None
    metric: str | None = None
    score: float | None = None
    best: float | None = None
    loss: float | None = None
    seconds: float | None = None


class _Remembering(Store):
    """A store that keeps what tables show of each record that is read."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.facts: dict[str, _Facts] = {}

    def read(self, trial_id: str, planned: Trial | None = None) -> Record | Unreadable | None:
        record = super().read(trial_id, planned)
        if isinstance(record, Record):
            self.facts[trial_id] = _facts_of(record)
        else:
            self.facts.pop(trial_id, None)
        return record

    def version(self) -> tuple[int, ...]:
        """What changes when a record is written, moved or removed, or the plan grows; coarser than any file's own."""
        stats = [os.stat(path) for path in (self.trials, self.folder / "plan.json") if path.exists()]
        return tuple(number for each in stats for number in (each.st_ino, each.st_mtime_ns))


def _facts_of(record: Record) -> _Facts:
    measured = record.measured
    if measured is None:
        return _Facts(record.status, last_line(record.error or ""))
    return _Facts(
        measured.outcome or record.status,
        measured.reason,
        measured.metric,
        measured.final_score,
        measured.best_score,
        measured.final_train_loss,
        measured.lane_seconds,
    )


class LiveStudy:
    """A sweep's folder, looked at again and again."""

    def __init__(self, folder: Path, sweep: Sweep) -> None:
        """Begin to read its records, which takes seconds for ten thousand."""
        self.folder, self.name, self._planned = folder, folder.name, sweep
        self._store = _Remembering(folder)
        self._watch = Watch(sweep, self._store)
        self._command = rerun_words(None, str(folder), sweep, folder.parent)
        self._lock = threading.Lock()
        self._looked = -math.inf
        self._version: tuple[int, ...] = ()
        self._status: Status | None = None
        self._runs: tuple[Run, ...] | None = None
        self._is_read = threading.Event()
        threading.Thread(target=self._first_look, daemon=True).start()

    def _first_look(self) -> None:
        try:
            self.status()
        finally:
            self._is_read.set()

    def status(self) -> Status:
        """How the sweep stands, at most a second old; where nothing trains, files are looked at when one changed."""
        with self._lock:
            if self._status is None or time.monotonic() - self._looked > _FRESH_SECONDS:
                version = self._store.version()
                idle = self._status is not None and self._status.state != "running" and holder(self.folder) is None
                if not idle or version != self._version:
                    self._status, self._runs = self._watch.look(), None
                self._looked, self._version = time.monotonic(), version
            assert self._status is not None
            return self._status

    def runs(self) -> tuple[Run, ...]:
        """A row a planned run."""
        sweep = self.status().sweep
        if self._runs is None:
            self._runs = tuple(self._rows(sweep))
        return self._runs

    def summary(self) -> dict[str, object]:
        """What the list of studies shows; `reading` is the state of one whose records are still being read."""
        if not self._is_read.wait(_PATIENCE_SECONDS):
            unknown = dict.fromkeys(("finished", "failed", "crashed", "missing", "training", "at_risk"), 0)
            return {
                "name": self.name, "title": self._planned.title, "stand_in": self._planned.stand_in, "state": "reading",
                **unknown, "planned": len(expand(self._planned)), "cells": len(self._planned.cells),
                "seconds_left": None, "page": _page(self.folder),
            }  # fmt: skip
        now = self.status()
        left = now.heartbeat.seconds_left if now.heartbeat and now.state == "running" else None
        at_risk = sum(lane is True for pack in now.packs for lane in pack.lost)
        return {
            "name": self.name, "title": now.sweep.title, "stand_in": now.sweep.stand_in, "state": _state(now),
            **vars(now.total), "cells": len(now.sweep.cells), "seconds_left": left, "at_risk": at_risk,
            "page": _page(self.folder),
        }  # fmt: skip

    def detail(self) -> dict[str, object]:
        """What a study's own view shows: the status, and what its packs have told of themselves."""
        now = self.status()
        alive = now.heartbeat if now.state == "running" else None
        signals = {
            trial: _losses(lane)
            for pack in (alive.packs if alive else ())
            for trial, lane in zip(pack.trials, pack.signals, strict=False)
        }
        commands = {
            "rerun": self._command,
            "report": shlex.join(["harness", "report", str(self.folder)]),
            "verify": shlex.join(["harness", "verify", str(self.folder)]),
        }
        labels = [cell.label for cell in now.sweep.cells]
        more = {"state": _state(now), "labels": labels, "live_losses": signals, "commands": commands}
        return self.summary() | now.as_json() | more

    def curves(self, trial: str) -> dict[str, object] | None:
        """The training loss and dev score of a finished run; None where they are not kept."""
        if trial not in self._watch.trials:
            return None
        arrays = self._store.curves(trial)
        if arrays is None:
            return None
        steps = np.arange(1, len(arrays.train_loss) + 1)
        return {
            "trial": trial,
            "train_loss": _points(steps, arrays.train_loss),
            "dev_score": _points(arrays.eval_step, arrays.dev_score),
        }

    def _rows(self, sweep: Sweep) -> Iterator[Run]:
        labels = [cell.label for cell in sweep.cells]
        for trial in expand(sweep):
            facts = self._store.facts.get(trial.id) if trial.id in self._watch.known else None
            drivers = (trial.seeds.init_seed, trial.seeds.order_seed, trial.seeds.dropout_seed)
            crossed = set(drivers) != {trial.seeds.seed}
            yield Run(
                self.name,
                trial.id,
                labels[trial.cell],
                "init {}, order {}, dropout {}".format(*drivers) if crossed else str(trial.seeds.seed),
                *(facts or _Facts("missing", None)),
                command=f"{self._command} --trial {trial.id}",
            )


class ImportedStudy:
    """Somebody else's runs, which don't change."""

    def __init__(self, folder: Path) -> None:
        """Read them; raises HarnessError where that can't be done."""
        self.folder, self.name = folder, folder.name
        self._study: Study = of_import(folder)
        self._runs = tuple(self._rows())

    def runs(self) -> tuple[Run, ...]:
        """A row a run."""
        return self._runs

    def summary(self) -> dict[str, object]:
        """What the list of studies shows."""
        verdicts = [run.verdict for run in self._runs]
        return {
            "name": self.name, "title": self._study.title, "stand_in": None, "state": "imported",
            "planned": len(verdicts), "finished": sum(word not in ("missing", "crashed") for word in verdicts),
            "failed": verdicts.count("failed"), "crashed": verdicts.count("crashed"),
            "missing": verdicts.count("missing"), "training": 0, "cells": len(self._study.cells),
            "seconds_left": None, "at_risk": 0, "page": _page(self.folder),
        }  # fmt: skip

    def detail(self) -> dict[str, object]:
        """What a study's own view shows."""
        failed = [run.trial for run in self._runs if run.verdict == "failed"]
        report = shlex.join(["harness", "report", str(self.folder)])
        return self.summary() | {"packs": [], "failed_trials": failed, "crashed_trials": [], "live_losses": {},
                                 "commands": {"report": report}}  # fmt: skip

    def curves(self, trial: str) -> dict[str, object] | None:
        """The curves that came with a run; None where none did."""
        rows = [row for row, run in enumerate(self._runs) if run.trial == trial]
        arrays = self._study.curves(rows[0]) if rows else None
        if arrays is None:
            return None
        steps = np.arange(1, len(arrays.train_loss) + 1)
        losses, scores = _points(steps, arrays.train_loss), _points(arrays.eval_step, arrays.dev_score)
        return {"trial": trial, "train_loss": losses, "dev_score": scores}

    def _rows(self) -> Iterator[Run]:
        labels = [cell.label for cell in self._study.cells]
        for row in self._study.runs.to_dict("records"):
            numbers = {name: _number(row[name]) for name in ("final_score", "best_score", "final_train_loss")}
            finished = row["status"] == "finished"
            yield Run(
                study=self.name,
                trial=str(row["trial"]),
                settings=labels[int(row["cell"])],
                seed=str(row["seed"]).removesuffix(".0"),
                verdict=str(row["outcome"] or "finished") if finished else str(row["status"]),
                reason=row["reason"] if isinstance(row["reason"], str) else None,
                metric=row["metric"] if isinstance(row["metric"], str) else None,
                score=numbers["final_score"],
                best=numbers["best_score"],
                loss=numbers["final_train_loss"],
                seconds=_number(row["lane_seconds"]),
                command=None,
            )


AnyStudy = LiveStudy | ImportedStudy


class Library:
    """All studies of a results folder."""

    def __init__(self, results: Path) -> None:
        """Nothing is read yet."""
        self.results = results
        self._studies: dict[str, AnyStudy] = {}
        self._unreadable: dict[str, str] = {}
        self._lock = threading.Lock()

    def studies(self) -> tuple[AnyStudy, ...]:
        """The studies that there are now, in the order of their names."""
        with self._lock:
            names = {folder.name: folder for folder in self._folders()}
            self._studies = {name: study for name, study in self._studies.items() if name in names}
            self._unreadable = {}
            for name, folder in names.items():
                if not is_unicode(name):
                    self._unreadable[without_controls(name)] = "its name is no UTF-8: rename it"
                elif name not in self._studies:
                    try:
                        self._studies[name] = _opened(folder)
                    except HarnessError as error:
                        self._unreadable[name] = str(error)
            return tuple(self._studies[name] for name in sorted(self._studies))

    def unreadable(self) -> dict[str, str]:
        """The folders that can't be read, and why."""
        return dict(self._unreadable)

    def find(self, name: str) -> AnyStudy | None:
        """The study of a name; None where there is none."""
        return next((study for study in self.studies() if study.name == name), None)

    def _folders(self) -> list[Path]:
        if not self.results.is_dir():
            return []
        return [
            folder
            for folder in self.results.iterdir()
            if folder.is_dir() and ((folder / "plan.json").is_file() or is_imported(folder))
        ]

    def runs(self, query: str, verdict: str, study: str, order: str) -> list[Run]:
        """The runs of all studies that match: every word of a query, a verdict and a study (each empty: all).

        `order` is `score`, `loss` or `seconds`, with a `-` before it the largest first; empty: as planned. What is not
        known comes last.
        """
        words = query.casefold().split()
        rows: Iterable[Run] = (run for each in self.studies() if study in ("", each.name) for run in each.runs())
        chosen = [
            run
            for run in rows
            if verdict in ("", run.verdict) and (not words or all(word in run.words for word in words))
        ]
        name, sign = order.removeprefix("-"), -1 if order.startswith("-") else 1
        if name in ("score", "loss", "seconds"):
            values = {id(run): getattr(run, name) for run in chosen}
            chosen.sort(key=lambda run: (values[id(run)] is None, sign * (values[id(run)] or 0.0)))
        return chosen


def as_json(run: Run) -> dict[str, object]:
    """A run as the browser gets it."""
    return asdict(run)


def _opened(folder: Path) -> AnyStudy:
    if is_imported(folder):
        return ImportedStudy(folder)
    sweep = Store(folder).load_plan()
    if sweep is None:
        raise HarnessError(f"{folder} has no plan.json")
    return LiveStudy(folder, sweep)


def _state(now: Status) -> str:
    """As the status has it, but that a sweep whose runs have all finished did not merely stop."""
    return "complete" if now.state == "stopped" and now.total.finished == now.total.planned else now.state


def _page(folder: Path) -> bool:
    return (folder / "report" / "index.html").is_file()


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float | np.number) and math.isfinite(value) else None


def _points(steps: np.ndarray, values: np.ndarray) -> list[list[float | None]]:
    """Pairs of step and value, at most `MOST_POINTS`: means of neighbours; None for what is not finite."""
    size = max(1, math.ceil(len(values) / MOST_POINTS))
    points: list[list[float | None]] = []
    for first in range(0, len(values), size):
        mean = float(np.mean(values[first : first + size], dtype=np.float64))
        points.append([float(steps[min(first + size, len(values)) - 1]), mean if math.isfinite(mean) else None])
    return points


def _losses(lane: Sequence[Sequence[Written]]) -> list[float | None]:
    """The training loss at each fortieth of a run so far, the first of its signals."""
    return [row[0] if row and isinstance(row[0], float) else None for row in lane]
