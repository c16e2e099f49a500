"""A results folder: records and arrays, written once, read back as one table."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import pwd
import socket
import time
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
from pydantic import TypeAdapter, ValidationError

from harness.common import npz
from harness.common.errors import HarnessError, describe_os_error
from harness.common.files import write, write_json
from harness.config.recipe import SEED_FIELDS
from harness.config.trials import Sweep, Trial, expand
from harness.records.record import (
    OPTIONAL,
    RECORDED,
    SCHEMA_VERSION,
    Baseline,
    Curves,
    Environment,
    LogitsCheck,
    Measured,
    Record,
    Recording,
    Surface,
)

HEARTBEAT = "running.json"  # a living sweep writes it every few seconds, for `harness status`


# For so long a sweep tries to take a folder: `harness status` shares the lock for an instant to see whether it is held.
_LOCK_SECONDS = 1.0


# What zipfile and numpy raise for an archive that is not there, was cut short or changed.
_DAMAGED: tuple[type[Exception], ...] = (EOFError, KeyError, ValueError, NotImplementedError, RuntimeError, SyntaxError)


_DAMAGED += (OSError, tokenize.TokenError, zipfile.BadZipFile, zlib.error)


_BASELINES = TypeAdapter(tuple[Baseline, ...])


@lru_cache(maxsize=1024)
def _header(start: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in Fortran's order, and type of an array from how its `.npy` file starts."""
    stream = io.BytesIO(start)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("arrays are kept in version 1.0 of the format")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    return shape, fortran, dtype


def _array(content: bytes) -> np.ndarray:
    """The array of a `.npy` file, as `np.load` reads it, which parses the header anew for each: an eighth of a report.

    Raises ValueError for what is none, objects (pickles) among it.
    """
    start = 10 + int.from_bytes(content[8:10], "little")
    shape, fortran, dtype = _header(content[:start])
    return np.frombuffer(content, dtype, offset=start).reshape(shape, order="F" if fortran else "C").copy()


_Arrays = type[Curves] | type[Recording] | type[Surface]


def _read(path: str, *wanted: tuple[_Arrays, str]) -> list[dict[str, Any] | None]:
    """The arrays of each kind in an `.npz` file, opened once; None for a kind that is not there whole."""
    try:
        with open(path, "rb") as stream:
            archive = npz.opened(stream.read())
        return [_of_kind(archive, kind, prefix) for kind, prefix in wanted]
    except _DAMAGED:
        return [None] * len(wanted)


def _of_kind(archive: npz.Archive | zipfile.ZipFile, kind: _Arrays, prefix: str) -> dict[str, Any] | None:
    names = [field.name for field in fields(kind) if field.name != "recording"]
    there = {name.removesuffix(".npy") for name in archive.namelist()}
    wanted = [name for name in names if kind is not Curves or name in there or name not in OPTIONAL]
    try:
        return {name: _array(archive.read(f"{prefix}{name}.npy")) for name in wanted}
    except _DAMAGED:
        return None


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
            plan = json.loads(path.read_text(encoding="utf-8"))
            ids, sweep = plan["trials"], Sweep.model_validate_json(json.dumps(plan["sweep"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            reason = describe_os_error(error) if isinstance(error, OSError) else "not the plan of a sweep"
            raise HarnessError(
                f"cannot read {path}: {reason}", fix="Remove it; the next `harness sweep` writes it again"
            ) from None
        if [trial.id for trial in expand(sweep)] != ids:
            raise HarnessError(
                f"{path} was written by another version of the harness: its trials have other ids",
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
        write(path, (record.model_dump_json(indent=1) + "\n").encode())

    def load(self, trial_id: str) -> Record | None:
        """The record of a trial; None where there is none or it can't be read (`unreadable` names the latter)."""
        try:
            with open(f"{self.trials}/{trial_id}.json", "rb") as stream:  # a hundred thousand times: without a Path
                record = Record.model_validate_json(stream.read())
        except (OSError, ValidationError):
            return None
        return record if record.id == trial_id else None

    def each(self, trials: Iterable[Trial]) -> Iterator[tuple[Trial, Record | None]]:
        """Trials with their records, each read when its turn comes; None as `load` says."""
        for trial in trials:
            yield trial, self.load(trial.id)

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

    def unreadable(self, sweep: Sweep, among: Iterable[str] | None = None) -> tuple[Path, ...]:
        """Record files of planned trials that are cut short, empty or of another schema: they count as missing.

        `among` are the ids to look at, where it is known already that the others can be read.
        """
        ids = (trial.id for trial in expand(sweep)) if among is None else among
        return tuple(
            self.path(trial_id) for trial_id in ids if self.path(trial_id).exists() and self.load(trial_id) is None
        )

    def tidy(self, sweep: Sweep) -> dict[str, Record]:
        """Rename what can't be read to `<id>.unreadable`, remove what killed writers left; the records there are."""
        records = self.records(sweep)
        for path in self.unreadable(sweep, [trial.id for trial in expand(sweep) if trial.id not in records]):
            path.rename(path.with_suffix(".unreadable"))
        for path in self.trials.glob(".*.tmp"):
            path.unlink(missing_ok=True)
        return records

    def arrays_sha256(self, trial_id: str) -> str | None:
        """The hash of a trial's arrays as they lie there now, None where there are none."""
        try:
            return hashlib.sha256(self.path(trial_id).with_suffix(".npz").read_bytes()).hexdigest()
        except OSError:
            return None

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

    def curves(self, trial_id: str) -> Curves | None:
        """The arrays of a trial but for its recording, None where they are not kept."""
        (curves,) = _read(f"{self.trials}/{trial_id}.npz", (Curves, ""))
        return None if curves is None else Curves(**curves)

    def arrays(self, trial_id: str) -> Curves | None:
        """The arrays of a trial with its recording, where there is one; None where the former are not kept."""
        curves, recorded = _read(f"{self.trials}/{trial_id}.npz", (Curves, ""), (Recording, RECORDED))
        if curves is None:
            return None
        return Curves(**curves, recording=None if recorded is None else Recording(**recorded))

    def save_surface(self, surface: Surface) -> None:
        """Keep a loss surface, in place of the one before."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **vars(surface))
        self.folder.mkdir(parents=True, exist_ok=True)
        write(self.folder / "surface.npz", buffer.getvalue())

    def surface(self) -> Surface | None:
        """The loss surface that was computed last, None where none was."""
        (surface,) = _read(f"{self.folder}/surface.npz", (Surface, ""))
        return None if surface is None else Surface(**surface)

    def save_baselines(self, baselines: tuple[Baseline, ...]) -> None:
        """Keep what the cells are compared with, in place of what was kept before."""
        write(self.folder / "baselines.json", _BASELINES.dump_json(baselines) + b"\n")

    def baselines(self) -> tuple[Baseline, ...]:
        """What the cells are compared with; none where none was trained, or the file can't be read."""
        try:
            return _BASELINES.validate_json((self.folder / "baselines.json").read_bytes())
        except (OSError, ValidationError):
            return ()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one sweep; a kill ends the hold.

        Raises HarnessError while another sweep lives, with who began it and when, and where files can't be locked.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("a+") as stream:
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


def holder_words(pid: int, host: str) -> str:
    """How the line in a folder's lock begins; the user and the time follow."""
    return f"process {pid} on {host} of "


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's made-up number
        return f"user {os.getuid()}"


def _in_a_table(value: object) -> object:
    return value.largest_difference if isinstance(value, LogitsCheck) else value


def frame(sweep: Sweep, store: Store, trials: Sequence[Trial] | None = None) -> pd.DataFrame:
    """The plan LEFT JOIN the records: exactly one row a planned trial, in the plan's order; or of some of its trials.

    Columns: `trial` (id), `cell` (index), one per axis, `seed`, `init_seed`, `order_seed`, `dropout_seed`, `status`,
    `attempts`, `error`, every field of `Measured` (of `logits_check` the largest difference) and of `Environment`; not
    known is None or NaN.
    """
    names = ["trial", "cell", *sweep.axes, *SEED_FIELDS, "status", "attempts", "error"]
    measures, places = list(Measured.model_fields), list(Environment.model_fields)
    rows: list[tuple[object, ...]] = []
    axes = [tuple(value for _, value in cell.axes) for cell in sweep.cells]
    no_measures, no_place = (None,) * len(measures), (None,) * len(places)
    for trial, record in store.each(expand(sweep) if trials is None else trials):
        of_seeds = (getattr(trial.seeds, name) for name in SEED_FIELDS)
        state = (record.status, record.attempts, record.error) if record else ("missing", 0, None)
        measured, environment = (record.measured, record.environment) if record else (None, None)
        measures_of = (_in_a_table(getattr(measured, name)) for name in measures) if measured else no_measures
        environment_of = (getattr(environment, name) for name in places) if environment else no_place
        rows.append((trial.id, trial.cell, *axes[trial.cell], *of_seeds, *state, *measures_of, *environment_of))
    table = pd.DataFrame(rows, columns=[*names, *measures, *places])
    texts = {"outcome", "reason", "metric", "error", "weights_sha256", "data_sha256", "model_sha256"}
    texts |= {"augmentation_sha256", "tokens_sha256", "tokenizer_sha256", "step_mode", "step_mode_reason"}
    for name in Measured.model_fields:
        if name not in texts:
            table[name] = pd.to_numeric(table[name])
    return table
