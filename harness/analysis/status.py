"""How a sweep stands, seen from outside it: the plan, the records and the driver's last sign of life.

Whether a sweep lives is asked of the folder's lock, which ends with its process, and of nothing it has written.
"""

from __future__ import annotations

import math
import os
import shutil
import socket
import subprocess
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from harness.common.errors import HarnessError, describe_os_error
from harness.common.text import Scalar, last_line
from harness.config.recipe import TaskSpec
from harness.config.trials import Sweep, Trial, expand
from harness.data import tasks
from harness.records.heartbeat import Heartbeat, RunningPack, Written, heartbeat, holder
from harness.records.heartbeat import read as read_signals
from harness.records.reading import Unreadable
from harness.records.store import Store, holder_words

if TYPE_CHECKING:
    from harness.analysis.live_warning import Lessons
    from harness.analysis.stopping import Standing


State = Literal["running", "stopped", "lost"]


# --------------------------------------------------------------------------------------------------- how it stands


@dataclass(frozen=True)
class Counts:
    """What became of planned trials; `training` ones are missing or crashed until their record is written.

    `unreadable` ones have a record that can't be used.
    """

    planned: int
    finished: int
    failed: int
    crashed: int
    missing: int
    training: int
    unreadable: int = 0


@dataclass(frozen=True)
class Pack:
    """A pack in training; `steps` of its lanes, which go in step, where the size of the training set is known."""

    trials: tuple[Trial, ...]
    share: float
    seconds: float
    deaths: int
    steps: int | None
    lost: tuple[bool | None, ...]  # by trial: whether it is at risk; None: that can't be told (yet)
    output: str = ""  # the last line that a script's run wrote
    score: float | None = None  # the latest score that it said

    @property
    def steps_done(self) -> int | None:
        """Steps done by every lane."""
        return None if self.steps is None else round(self.share * self.steps)

    @property
    def steps_per_second(self) -> float | None:
        """The pace since the pack was started."""
        return None if self.steps_done is None or self.seconds <= 0 else self.steps_done / self.seconds


@dataclass(frozen=True)
class Status:
    """How a sweep stands. `lost`: nobody holds the folder, and the sweep that did never said that it ended."""

    sweep: Sweep
    folder: Path
    state: State
    holder: str | None
    heartbeat: Heartbeat | None
    silent_seconds: float | None  # since the last sign of life
    total: Counts
    cells: tuple[Counts, ...]
    packs: tuple[Pack, ...]
    crashed: tuple[tuple[str, str, int], ...]  # (trial, the last line of its error, attempts)
    failed: tuple[str, ...]  # trials
    warning: str | None  # how many lanes are at risk, or why that can't be told; None where none says how it trains
    seeds: Standing | None = None  # how far seeds have come that are added by rule
    unreadable: tuple[tuple[str, str], ...] = ()  # (trial, why its record can't be used)

    @property
    def elsewhere(self) -> bool:
        """Whether the last sign of life came from another machine."""
        return self.heartbeat is not None and self.heartbeat.host != socket.gethostname()

    def as_json(self) -> dict[str, object]:
        """The contract of `harness status --json`."""
        alive = self.heartbeat
        axes: list[dict[str, Scalar]] = [dict(cell.axes) for cell in self.sweep.cells]
        return {
            "sweep": self.sweep.name,
            "profile": self.sweep.profile,
            "folder": str(self.folder),
            "state": self.state,
            **vars(self.total),
            "seconds_left": alive.seconds_left if alive and self.state == "running" else None,
            "updated_utc": alive.updated_utc.isoformat() if alive else None,
            "device": alive.device if alive else None,
            "workers": alive.workers if alive else None,
            "holder": self.holder,
            "use": list(use(alive.host)) if alive and self.state == "running" else [],
            "cells": [{"axes": at, **vars(counts)} for at, counts in zip(axes, self.cells, strict=True)],
            "early_warning": self.warning,
            **({} if self.seeds is None else {"seeds": self.seeds.as_json()}),
            "packs": [
                {
                    "trials": [trial.id for trial in pack.trials],
                    "lost": list(pack.lost),
                    "share": pack.share,
                    "seconds": pack.seconds,
                    "deaths": pack.deaths,
                    "steps": pack.steps,
                    "steps_done": pack.steps_done,
                    "steps_per_second": pack.steps_per_second,
                    **({"output": pack.output, "score": pack.score} if self.sweep.is_script else {}),
                }
                for pack in self.packs
            ],
            "crashed_trials": [
                {"trial": trial, "error": error, "attempts": attempts} for trial, error, attempts in self.crashed
            ],
            "failed_trials": list(self.failed),
            "unreadable_trials": [{"trial": trial, "problem": problem} for trial, problem in self.unreadable],
        }


@dataclass(frozen=True)
class _Known:
    """What is remembered of a record, which is written once: ten thousand are not read again every two seconds."""

    version: tuple[int, int, int]  # inode, size, time of change
    status: str | None  # None: can't be used
    failed: bool = False
    error: str | None = None
    attempts: int = 0
    train_examples: int | None = None
    seconds: float | None = None  # of training, its share of its pack's


class Watch:
    """Looks at one results folder, again and again."""

    def __init__(self, sweep: Sweep, store: Store) -> None:
        """Look at `store` for the trials of `sweep`; nothing is read yet."""
        self.store = store
        self._plan_version: tuple[int, int] | None = None
        self._follow(sweep)
        self.known: dict[str, _Known] = {}
        self.examples: dict[TaskSpec, int | None] = {}
        self.lessons: Lessons | None = None

    def _follow(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self.trials = {trial.id: trial for trial in expand(sweep)}

    def _refresh_plan(self) -> None:
        """Follow a plan that grows: that of a search, and one whose seeds are added by rule."""
        if self.sweep.rule is None and self.sweep.search is None:
            return
        with suppress(OSError, HarnessError):
            found = os.stat(self.store.folder / "plan.json")
            version = (found.st_ino, found.st_mtime_ns)
            if version != self._plan_version:
                self._follow(self.store.load_plan() or self.sweep)
                self._plan_version = version

    def look(self, now: datetime | None = None) -> Status:
        """How the sweep stands now; `now` decides nothing but the age of the last sign of life."""
        self._refresh_plan()
        # The lock before the files: a driver removes its sign of life before it lets go of the lock.
        held = holder(self.store.folder)
        alive = heartbeat(self.store.folder)
        if held is None and alive is not None:
            held = holder(self.store.folder)  # a sweep that began in between
        if held is not None and alive is not None and not held.startswith(holder_words(alive.pid, alive.host)):
            alive = None  # of an earlier sweep, which was killed
        state: State = "running" if held else "lost" if alive else "stopped"
        for trial_id in self.trials:
            self._refresh(trial_id)
        seeds = self._seeds()
        packs, warning = self._packs(alive) if alive and state == "running" else ((), None)
        training = {trial.id for pack in packs for trial in pack.trials if not self._is(trial.id, "finished")}
        ids: dict[int, list[str]] = defaultdict(list)
        for trial in self.trials.values():
            ids[trial.cell].append(trial.id)
        crashed = [trial_id for trial_id in self.trials if self._is(trial_id, "crashed")]
        age = ((now or datetime.now(UTC)) - alive.updated_utc).total_seconds() if alive else None
        return Status(
            sweep=self.sweep,
            folder=self.store.folder,
            state=state,
            holder=held,
            heartbeat=alive,
            silent_seconds=None if age is None else max(0.0, age),  # clocks of two machines may differ
            total=self._count(list(self.trials), training),
            cells=tuple(self._count(ids[cell], training) for cell in range(len(self.sweep.cells))),
            packs=packs,
            crashed=tuple((one, last_line(self.known[one].error or ""), self.known[one].attempts) for one in crashed),
            failed=tuple(one for one in self.trials if one in self.known and self.known[one].failed),
            warning=warning,
            seeds=seeds,
            unreadable=tuple((one, self.known[one].error or "") for one in self.trials if self._is(one, None)),
        )

    def _seeds(self) -> Standing | None:
        """How far seeds have come that are added by rule; the plan is as the driver will find it."""
        if self.sweep.rule is None:
            return None
        from harness.analysis.stopping import RunResult, advance  # scipy

        def result(trial: str) -> RunResult | None:
            if trial not in self.known:
                self._refresh(trial)
            known = self.known.get(trial)
            if known is None or known.status is None:
                return None
            return RunResult(known.failed if known.status == "finished" else None, known.seconds)

        standing = advance(self.sweep, result)
        if standing.sweep.due != self.sweep.due:
            self._follow(standing.sweep)
        return standing

    def _refresh(self, trial_id: str) -> None:
        try:
            found = os.lstat(f"{self.store.trials}/{trial_id}.json")
        except FileNotFoundError:
            self.known.pop(trial_id, None)
            return
        except OSError as error:  # the folder can't be searched, or is none: nothing is known of any trial
            self.known[trial_id] = _Known((0, 0, 0), None, error=f"it can't be read: {describe_os_error(error)}")
            return
        version = (found.st_ino, found.st_size, found.st_mtime_ns)
        if trial_id in self.known and self.known[trial_id].version == version:
            return
        record = self.store.read(trial_id)
        if record is None:
            self.known.pop(trial_id, None)
            return
        if isinstance(record, Unreadable):
            self.known[trial_id] = _Known(version, None, error=record.reason)
            return
        measured = record.measured
        failed = measured is not None and measured.outcome == "failed"
        examples = measured.train_examples if measured else None
        seconds = measured.lane_seconds if measured else None
        self.known[trial_id] = _Known(version, record.status, failed, record.error, record.attempts, examples, seconds)

    def _is(self, trial_id: str, status: str | None) -> bool:
        return trial_id in self.known and self.known[trial_id].status == status

    def _count(self, ids: list[str], training: set[str]) -> Counts:
        states = [self.known[one].status if one in self.known else None for one in ids]
        failed = sum(one in self.known and self.known[one].failed for one in ids)
        finished, crashed = states.count("finished"), states.count("crashed")
        unreadable = sum(one in self.known and self.known[one].status is None for one in ids)
        missing = len(ids) - finished - crashed - unreadable
        return Counts(len(ids), finished, failed, crashed, missing, len(training.intersection(ids)), unreadable)

    def _packs(self, alive: Heartbeat) -> tuple[tuple[Pack, ...], str | None]:
        """The packs of planned trials that have not all ended since the driver wrote of them, and who is at risk."""
        found: list[tuple[RunningPack, tuple[Trial, ...]]] = []
        for pack in alive.packs:
            trials = tuple(self.trials[one] for one in dict.fromkeys(pack.trials) if one in self.trials)
            if any(not self._is(trial.id, "finished") for trial in trials):
                found.append((pack, trials))
        signals = {
            trial: lane for pack, _ in found for trial, lane in zip(pack.trials, pack.signals, strict=False) if lane
        }
        training = [trial for _, trials in found for trial in trials]
        lost: dict[str, bool | None] = {trial.id: None for trial in training}
        warning = self._look_lost(training, signals, lost) if signals else None
        packs = (
            Pack(
                trials,
                pack.share,
                pack.seconds,
                pack.deaths,
                self._steps(trials[0]),
                tuple(lost[t.id] for t in trials),
                pack.output,
                pack.score,
            )
            for pack, trials in found
        )
        return tuple(packs), warning

    def _look_lost(
        self,
        training: Sequence[Trial],
        signals: Mapping[str, tuple[tuple[Written, ...], ...]],
        lost: dict[str, bool | None],
    ) -> str:
        """Say in `lost` which of the training trials are at risk, and in words how many; rules are learned here."""
        from harness.analysis import live_warning  # scipy, which a look at a sweep that doesn't train does without

        self.lessons = self.lessons or live_warning.Lessons(self.store)
        self.lessons.learn(self.sweep, [trial for trial in self.trials.values() if self._is(trial.id, "finished")])
        rules = [self.lessons.rule(trial.cell) for trial in training]
        for trial, rule in zip(training, rules, strict=True):
            here = read_signals(signals.get(trial.id, ()))
            (lost[trial.id],) = live_warning.look_lost(rule, here[None])
        return live_warning.words(rules, [lost[trial.id] for trial in training])

    def _steps(self, trial: Trial) -> int | None:
        """Steps that a trial takes; its files, where it has some of its own, are not read for that."""
        if trial.script is not None:
            return None
        recipe = trial.recipe
        if self.examples.get(recipe.task) is None:
            self.examples[recipe.task] = self._examples(recipe.task)
        examples = self.examples[recipe.task]
        if recipe.max_steps is not None or not examples or recipe.oversample:
            return recipe.max_steps
        return math.ceil(examples * (1 + recipe.copies) / recipe.batch_size) * recipe.epochs

    def _examples(self, task: TaskSpec) -> int | None:
        for trial_id, known in self.known.items():
            if known.train_examples is not None and self.trials[trial_id].recipe.task == task:
                return known.train_examples
        if task.files is not None:
            return None
        try:
            sizes = tasks.sizes(task)
        except HarnessError:
            return None
        return sizes[0] if sizes else None


# ------------------------------------------------------------------------------------------------ the machine's use


def use(host: str) -> tuple[str, ...]:
    """How busy this machine's GPUs are, or its cores where it has none, a text each; none where `host` is another."""
    if host != socket.gethostname():
        return ()
    found = []
    for line in _nvidia_smi():
        index, name, busy, used, memory = line
        kept = (
            f", {int(used) / 1024:.1f} of {int(memory) / 1024:.0f} GiB"
            if used.isdecimal() and memory.isdecimal()
            else ""
        )
        found.append(f"GPU {index} ({name}): {busy} %{kept}")
    if found:
        return tuple(found)
    try:
        return (f"CPU load: {os.getloadavg()[0]:.1f} on {os.cpu_count() or 1} cores",)
    except OSError:
        return ()


def _nvidia_smi() -> list[tuple[str, ...]]:
    """(index, name, use in per cent, MiB in use, MiB) of each GPU; none where that isn't known in two seconds."""
    if not shutil.which("nvidia-smi"):
        return []
    query = "--query-gpu=index,name,utilization.gpu,memory.used,memory.total"
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=2, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = [tuple(line.split(", ")) for line in asked.stdout.splitlines()] if asked.returncode == 0 else []
    return [line for line in lines if len(line) == 5]
