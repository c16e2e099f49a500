"""A results folder: records and arrays, written once, read back as one table."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import pwd
import re
import socket
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import numpy as np
from pydantic import TypeAdapter, ValidationError

from harness.common.errors import HarnessError, describe_os_error
from harness.common.files import open_lock, read_regular, write, write_json
from harness.common.npz import ArraysError, read_arrays
from harness.common.text import count_noun
from harness.config.trials import Sweep, Trial, expand
from harness.records import reruns, study_log
from harness.records.array_shapes import expected_arrays, odd_surface
from harness.records.reading import MOST_ARRAY_BYTES, MOST_PLAN_BYTES, Unreadable, read_record, read_trial_arrays
from harness.records.record import SCHEMA_VERSION, Baseline, Curves, Environment, Record, Surface

HEARTBEAT = "running.json"  # a living sweep writes it every few seconds, for `harness status`


# For so long a sweep tries to take a folder: `harness status` shares the lock for an instant to see whether it is held.
_LOCK_SECONDS = 1.0


_BASELINES = TypeAdapter(tuple[Baseline, ...])


@dataclass(frozen=True)
class TidiedRecords:
    """What a sweep begins with: the records by trial, and those that were renamed as they can't be used."""

    records: dict[str, Record]
    renamed: tuple[Unreadable, ...]

    @property
    def message(self) -> str | None:
        """How many were renamed, which, why, and what it does, in a line; None where none was."""
        if not self.renamed:
            return None
        first, more, one = self.renamed[0], len(self.renamed) - 1, len(self.renamed) == 1
        count, verb = count_noun(len(self.renamed), "record"), "was" if one else "were"
        return (
            f"{count} can't be used and {verb} renamed from .json to .unreadable: {first.trial} "
            f"({first.reason.rstrip('.')}){f' and {more} more' if more else ''}; "
            f"{'its trial counts' if one else 'their trials count'} as missing and may be trained again"
        )


ATTEMPT = re.compile(r"(.+)\.attempt[1-9][0-9]*")  # a record that was set aside, without its ending; of which trial


class Store:
    """The results folder of a sweep and profile: `plan.json`, `trials/<id>.json` with `<id>.npz`, `baselines.json`."""

    def __init__(self, folder: Path) -> None:
        """Name the folder; nothing is made before something is written."""
        self.folder = folder
        self.trials = folder / "trials"

    # -------------------------------------------------------------------------------------------------- the plan

    def save_plan(self, sweep: Sweep) -> None:
        """Keep what was planned before any training; refuse an edit that would orphan trained trials is `driver`'s."""
        self.trials.mkdir(parents=True, exist_ok=True)
        plan = {"schema_version": SCHEMA_VERSION, "trials": [trial.id for trial in expand(sweep)]}
        plan["sweep"] = sweep.model_dump(mode="json")
        write_json(self.folder / "plan.json", plan)

    def load_plan(self) -> Sweep | None:
        """The sweep as it was planned, None where nothing was; raises HarnessError for a plan that can't be read."""
        path = self.folder / "plan.json"
        try:
            plan = json.loads(read_regular(path, MOST_PLAN_BYTES))
            ids, sweep = plan["trials"], Sweep.model_validate_json(json.dumps(plan["sweep"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            denied = isinstance(error, PermissionError)
            fix = "Let this user read it" if denied else "Remove it; the next `harness sweep` writes it again"
            reason = describe_os_error(error) if isinstance(error, OSError) else "not the plan of a sweep"
            raise HarnessError(f"cannot read {path}: {reason}", fix=fix) from None
        if [trial.id for trial in expand(sweep)] != ids:
            raise HarnessError(
                f"{path} was written by another version of the harness, or edited: its trials have other ids",
                fix="Use that version, or another --results folder",
            )
        return sweep

    # ------------------------------------------------------------------------------------------------ the records

    def path(self, trial_id: str) -> Path:
        """Where the record of a trial stands."""
        return self.trials / f"{trial_id}.json"

    def save(self, record: Record, curves: Curves | None) -> None:
        """Write a record once, its arrays first; raises FileExistsError rather than overwrite one."""
        path = self.path(record.id)
        if path.exists():
            raise FileExistsError(path)
        if curves is not None:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **curves.arrays)
            content = buffer.getvalue()
            record = record.model_copy(update={"arrays_sha256": hashlib.sha256(content).hexdigest()})
            write(path.with_suffix(".npz"), content)
        write(path, as_text(record))

    def read(self, trial_id: str, planned: Trial | None = None) -> Record | Unreadable | None:
        """The record of a trial; None where there is none, and an `Unreadable` where it can't be used.

        `planned` is the trial of that id, where it is at hand: it spares computing the id of the record's.
        """
        return read_record(f"{self.trials}/{trial_id}.json", trial_id, planned)  # a hundred thousand times: no Path

    def load(self, trial_id: str) -> Record | None:
        """The record of a trial; None where there is none or it can't be used (`unreadable` names the latter)."""
        record = self.read(trial_id)
        return None if isinstance(record, Unreadable) else record

    def read_each(self, trials: Iterable[Trial]) -> Iterator[tuple[Trial, Record | Unreadable | None]]:
        """Trials with their records, each read when its turn comes, as `read` gives them."""
        for trial in trials:
            yield trial, self.read(trial.id, trial)

    def each(self, trials: Iterable[Trial]) -> Iterator[tuple[Trial, Record | None]]:
        """As `read_each`, with None for what can't be used."""
        for trial, record in self.read_each(trials):
            yield trial, None if isinstance(record, Unreadable) else record

    def records(self, sweep: Sweep) -> dict[str, Record]:
        """The records of the plan's trials by id, each read once, as they lie there now; a dict to hand on.

        Records share what they have in common with the plan and with each other, which halves their memory.
        """
        records: dict[str, Record] = {}
        environments: dict[Environment | None, Environment | None] = {}
        for trial, record in self.each(expand(sweep)):
            if record is not None:
                environment = environments.setdefault(record.environment, record.environment)
                planned = trial if record.trial == trial else record.trial
                records[trial.id] = record.model_copy(update={"environment": environment, "trial": planned})
        return records

    def unreadable(self, sweep: Sweep, among: Iterable[str] | None = None) -> tuple[Unreadable, ...]:
        """Records of planned trials that are there and can't be used.

        `among` are the ids to look at, where it is known already that the others can be read.
        """
        ids = (trial.id for trial in expand(sweep)) if among is None else among
        read = (self.read(trial_id) for trial_id in ids)
        return tuple(record for record in read if isinstance(record, Unreadable))

    def tidy(self, sweep: Sweep) -> TidiedRecords:
        """Rename what can't be read to `<id>.unreadable`, and remove what killed writers left."""
        records = self.records(sweep)
        damaged = self.unreadable(sweep, [trial.id for trial in expand(sweep) if trial.id not in records])
        for file in damaged:
            path = self.path(file.trial)
            number, aside = 1, path.with_suffix(".unreadable")
            while os.path.lexists(aside):  # of a time before, which may be a folder
                number += 1
                aside = path.with_suffix(f".unreadable{number}")
            path.rename(aside)
        for temporary in self.trials.glob(".*.tmp"):
            if not temporary.is_dir():
                temporary.unlink(missing_ok=True)
        return TidiedRecords(records, damaged)

    def arrays_sha256(self, trial_id: str) -> str | None:
        """The hash of a trial's arrays as they lie there now, None where there are none."""
        try:
            return hashlib.sha256(read_regular(f"{self.trials}/{trial_id}.npz", MOST_ARRAY_BYTES)).hexdigest()
        except OSError:
            return None

    def unplanned(self, planned: Collection[str]) -> list[str]:
        """The ids of records that lie here though no trial of these ids is theirs; records set aside are none."""
        try:
            files = [file.removesuffix(".json") for file in os.listdir(self.trials) if file.endswith(".json")]
        except OSError:
            return []
        return sorted(name for name in files if name not in planned and name[:1] != "." and not ATTEMPT.fullmatch(name))

    def set_aside(self, trial_id: str) -> None:
        """Keep a trial's record under `<id>.attempt<k>.json`, so that the trial can be trained again."""
        self.path(trial_id).rename(self._attempt(trial_id, self.attempts(trial_id) + 1))

    def attempts(self, trial_id: str) -> int:
        """How many records of the trial were set aside; their numbers have no gaps, so that none is listed."""
        number = 0
        while self._attempt(trial_id, number + 1).exists():
            number += 1
        return number

    def _attempt(self, trial_id: str, number: int) -> Path:
        return self.trials / f"{trial_id}.attempt{number}.json"

    def read_arrays(
        self, record: Record, *, recording: bool = True, any_hash: bool = False
    ) -> Curves | Unreadable | None:
        """The arrays of a record's trial, held against the record; None where none are kept.

        `recording` and `any_hash` are those of `reading.read_trial_arrays`.
        """
        expected = expected_arrays(record)
        if expected is None:
            return None
        path = f"{self.trials}/{record.id}.npz"
        return read_trial_arrays(path, record.id, expected, recording=recording, any_hash=any_hash)

    def curves(self, trial_id: str) -> Curves | None:
        """The arrays of a trial but for its recording, None where they are not kept or can't be used."""
        return self._arrays(trial_id, recording=False)

    def arrays(self, trial_id: str) -> Curves | None:
        """The arrays of a trial with its recording, where there is one; None as `curves` says."""
        return self._arrays(trial_id, recording=True)

    def _arrays(self, trial_id: str, *, recording: bool) -> Curves | None:
        record = self.load(trial_id)
        curves = None if record is None else self.read_arrays(record, recording=recording)
        return None if isinstance(curves, Unreadable) else curves

    def save_surface(self, surface: Surface) -> None:
        """Keep a loss surface, in place of the one before."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **vars(surface))
        self.folder.mkdir(parents=True, exist_ok=True)
        write(self.folder / "surface.npz", buffer.getvalue())

    def surface(self) -> Surface | None:
        """The loss surface that was computed last, None where none was."""
        try:
            return self._surface()
        except (OSError, ArraysError, TypeError):  # there is none, or it is damaged: it can be computed again
            return None

    def _surface(self) -> Surface:
        surface = Surface(**read_arrays(read_regular(self.folder / "surface.npz", MOST_ARRAY_BYTES)))
        if (problem := odd_surface(surface)) is not None:
            raise ArraysError(problem)
        return surface

    def save_baselines(self, baselines: tuple[Baseline, ...]) -> None:
        """Keep what the cells are compared with, in place of what was kept before."""
        write(self.folder / "baselines.json", _BASELINES.dump_json(baselines) + b"\n")

    def baselines(self) -> tuple[Baseline, ...]:
        """What the cells are compared with; none where none was trained, or the file can't be read."""
        try:
            return self._baselines()
        except (OSError, ValidationError):
            return ()

    def _baselines(self) -> tuple[Baseline, ...]:
        return _BASELINES.validate_json(read_regular(self.folder / "baselines.json", MOST_PLAN_BYTES))

    def damaged_files(self) -> Iterator[str]:
        """The names of what lies beside the records and can't be read, which a report leaves out."""
        if reruns.damaged(self.folder):
            yield reruns.NAME
        if study_log.damage(self.folder) is not None:
            yield study_log.NAME
        for name, read in (("baselines.json", self._baselines), ("surface.npz", self._surface)):
            try:
                read()
            except FileNotFoundError:
                continue
            except (OSError, ValidationError, ArraysError, TypeError):
                yield name

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one sweep; a kill ends the hold.

        Raises HarnessError while another sweep lives, with who began it and when, and where files can't be locked.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with open_lock(self.folder / ".lock") as stream:
            self._take(stream)
            stream.truncate(0)
            since = datetime.now(UTC).isoformat(timespec="seconds")
            stream.write(f"{holder_words(os.getpid(), socket.gethostname())}{_user()} since {since}\n")
            stream.flush()
            yield

    def _take(self, stream: IO[str]) -> None:
        until = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() < until:
                    time.sleep(0.02)
                    continue
            except OSError as error:
                raise HarnessError(
                    f"cannot lock files in {self.folder}, so two sweeps could train the same: "
                    f"{describe_os_error(error)}",
                    allowed="a local disk, or a network's that supports flock",
                    fix="Name another --results folder",
                ) from None
            stream.seek(0)
            holder = stream.read(1000).strip() or "another process"
            remote = f" on {socket.gethostname()} of " not in holder
            raise HarnessError(
                f"{self.folder} is in use by {holder}{self._last_sign()}",
                fix="Wait for it, stop it, or name another --results folder"
                + (f"; if that machine is down for good, remove {self.folder / '.lock'}" if remote else ""),
            )

    def _last_sign(self) -> str:
        """When the sweep that holds the folder last said that it lives; the clocks of two machines may differ."""
        try:
            age = time.time() - (self.folder / HEARTBEAT).stat().st_mtime
        except OSError:
            return ""
        return f", whose last sign of life is {max(0.0, age):.0f} s old"


def as_text(record: Record) -> bytes:
    """A record as its file holds it."""
    return (record.model_dump_json(indent=1) + "\n").encode()


def holder_words(pid: int, host: str) -> str:
    """How the line in a folder's lock begins; the user and the time follow."""
    return f"process {pid} on {host} of "


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's made-up number
        return f"user {os.getuid()}"
