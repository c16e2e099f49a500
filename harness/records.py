"""What is kept: one record a trial, written once; read back, the plan LEFT JOIN the records is one table."""

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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from harness import npz
from harness.sweep import SEED_FIELDS, BaselineName, HarnessError, Sweep, Trial, expand

SCHEMA_VERSION = 1
RECORDED = "recorded_"  # how the names of a recording's arrays begin in the file
HEARTBEAT = "running.json"  # a living sweep writes it every few seconds, for `harness status`
# For so long a sweep tries to take a folder: `harness status` shares the lock for an instant to see whether it is held.
_LOCK_SECONDS = 1.0
# What zipfile and numpy raise for an archive that is not there, was cut short or changed.
_DAMAGED: tuple[type[Exception], ...] = (EOFError, KeyError, ValueError, NotImplementedError, RuntimeError, SyntaxError)
_DAMAGED += (OSError, tokenize.TokenError, zipfile.BadZipFile, zlib.error)
Status = Literal["finished", "crashed", "missing"]
Outcome = Literal["ok", "failed"]
Reason = Literal["constant", "diverged", "collapsed"]


class Environment(BaseModel):
    """Where a trial was trained: all that can change a result's last bits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str
    device_name: str
    threads: int
    pack_size: int
    harness: str
    commit: str | None
    python: str
    torch: str
    transformers: str
    # Not in the first records: None there means not known.
    dirty_diff_sha256: str | None = Field(default=None, description="of the package's uncommitted changes; None: none")
    driver: str | None = Field(default=None, description="NVIDIA's; None on a CPU")
    cuda: str | None = Field(default=None, description="that torch was built with; None: for CPUs alone")
    deterministic: bool | None = Field(default=None, description="whether torch had to choose deterministic algorithms")
    matmul_precision: str | None = Field(default=None, description="torch's, of float32: highest, or high for tf32")
    kernels: str | None = Field(default=None, description="the CPU's instructions that torch's kernels use, as AVX512")


StepMode = Literal["operations", "recording", "compiled", "cuda graph", "compiled cuda graph"]


class LogitsCheck(BaseModel):
    """How far the logits of a network in a lane are from those of transformers' own call, before any training."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    largest_difference: float | None = Field(description="over the largest logit; None where none is finite")
    texts: tuple[int, ...] = Field(description="tokens of each text that both were asked for")


class Measured(BaseModel):
    """What training a trial gave; scores are fractions, `None` where not known (a run that diverged has no score)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    outcome: Outcome
    reason: Reason | None
    metric: str
    final_score: float | None
    best_score: float | None
    best_step: int | None
    majority_score: float
    correct: int | None = Field(description="right answers on the dev set at the end; None for a regression")
    majority_correct: int | None
    dev_examples: int
    train_examples: int
    steps: int
    final_train_loss: float | None = Field(description="mean over the steps of the last epoch, nats")
    final_dev_loss: float | None
    label_entropy: float | None = Field(description="entropy of the training labels, nats; None for a regression")
    diverged_step: int | None
    weights_sha256: str = Field(description="over the trained parameters")
    data_sha256: str
    model_sha256: str
    parameters: int = Field(description="trained or not, with the parts that the method put in")
    wall_seconds: float = Field(description="of the pack, start to end")
    lane_seconds: float = Field(description="wall_seconds / lanes of the pack")
    peak_memory_bytes: int
    # Not in the first records: None there means neither.
    stopped_step: int | None = Field(default=None, description="after which it stopped early; `steps` counts to there")
    kept_step: int | None = Field(default=None, description="whose weights are the result, the best; None: the last")
    # Not in the first records, whose parameters were all trained: None there.
    trained_parameters: int | None = None
    augmentation_sha256: str | None = Field(
        default=None, description="of the words or translators that changed the training texts; None where none did"
    )
    # Not in the first records, and None where there is no test split.
    test_score: float | None = Field(default=None, description="of the same weights, on examples that chose nothing")
    test_examples: int | None = None
    # Not in the first records: None there.
    label_variance: float | None = Field(
        default=None, description="of a regression's training labels: the loss of always answering their mean"
    )
    unknown_share: float | None = Field(
        default=None, description="of the tokens of the split with most; None also where the tokenizer knows all"
    )
    # Not in the first records: None there.
    step_mode: StepMode | None = Field(
        default=None,
        description="how a step reached the device: operation by operation, recorded, compiled, as a CUDA graph",
    )
    step_mode_reason: str | None = Field(
        default=None, description="why a step ran as it did where a CUDA graph was tried; None: it worked, or none was"
    )
    logits_check: LogitsCheck | None = Field(default=None, description="made when the worker set the network up")
    # Not in the first records: None there means not recorded.
    tokens_sha256: str | None = Field(
        default=None, description="of the token ids, lengths and types of train, dev and test, as the model reads them"
    )
    tokenizer_sha256: str | None = Field(default=None, description="of the tokenizer's files")


class Record(BaseModel):
    """All that is known of one trial, enough to understand and repeat it without any other file but its arrays."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schema_version: Literal[1] = 1
    id: str
    sweep: str
    profile: str
    trial: Trial
    status: Literal["finished", "crashed"]
    attempts: int = Field(ge=1)
    started_utc: str
    environment: Environment | None
    measured: Measured | None
    arrays_sha256: str | None
    error: str | None


class Baseline(BaseModel):
    """A simple classifier beside a sweep's cells: what it was trained with, and what it answered on the dev set.

    One run a seed, or one alone, without seeds, where no seed changes it. `answers` [R][N] are classes, none for a
    regression; `scores` [R] are fractions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: BaselineName
    settings: str
    task: str
    metric: str
    data_sha256: str
    versions: dict[str, str]
    seeds: tuple[int, ...]
    scores: tuple[float, ...]
    failed: tuple[bool, ...] = Field(description="at or below the majority, each run")
    labels: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]


_BASELINES = TypeAdapter(tuple[Baseline, ...])


@dataclass(frozen=True)
class Recording:
    """How a trial trained, for its diagnosis; R recorded updates, G parts of the network, E evaluations, C classes."""

    layers: np.ndarray  # [G] names: embeddings, 1 attention, 1 feed-forward, …, pooler, head
    update: np.ndarray  # [R] int64, counted from 1
    layer_norm: np.ndarray  # [R, G] float32, gradient norm before clipping
    update_norm: np.ndarray  # [R] float32, of the change of all trained weights
    weight_norm: np.ndarray  # [R] float32, of all trained weights before it
    predicted: np.ndarray  # [E, C] int32, dev examples by predicted class; 0 where the logits were not finite
    cls_rank: np.ndarray  # [E] float32, effective rank of the vectors that the head reads; NaN where not known
    cls_cosine: np.ndarray  # [E] float32, their mean cosine


@dataclass(frozen=True)
class Curves:
    """The arrays of a finished trial; S steps, E evaluations, N dev examples, C classes (1 for a regression)."""

    # [S] float32, nats, of each step's batch before its update; of R-Drop's two passes the mean, without its term
    train_loss: np.ndarray
    lr: np.ndarray  # [S] float64, the schedule's rate in force
    grad_norm: np.ndarray  # [S] float32, global, before clipping
    eval_step: np.ndarray  # [E] int64, updates done
    dev_loss: np.ndarray  # [E] float32
    dev_score: np.ndarray  # [E] float64, NaN where the logits were not finite
    logits: np.ndarray  # [N, C] float32, on the dev set after the last update
    labels: np.ndarray  # [N] int64 class or float32 value, of the dev set
    # Empty, and not kept, where there is no test split of M examples.
    test_logits: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))  # [M, C] float32
    test_labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # [M], as `labels`
    # Of token tasks, where N and M count words: how many of them each sentence has.
    sentences: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    test_sentences: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    recording: Recording | None = None  # kept in the same file, read by itself

    @property
    def arrays(self) -> dict[str, Any]:
        """Everything by the names in the file, where those of the recording begin with `recorded_`."""
        recorded = {} if self.recording is None else vars(self.recording)
        own = {name: value for name, value in vars(self).items() if name != "recording"}
        own = {name: value for name, value in own.items() if name not in OPTIONAL or value.size}
        return own | {f"{RECORDED}{name}": value for name, value in recorded.items()}


OPTIONAL = {one.name for one in fields(Curves) if one.default_factory is not MISSING}  # arrays of `Curves`


@dataclass(frozen=True)
class Surface:
    """Loss over the plane through a pretrained model and two trials of it; W × H points, in distances between weights.

    The pretrained weights lie at (0, 0), the first trial's at (x, 0), the second's where `places` says.
    """

    trials: np.ndarray  # [2] ids
    x: np.ndarray  # [W] float64
    y: np.ndarray  # [H] float64
    loss: np.ndarray  # [H, W] float32, training loss
    gradient_norm: np.ndarray  # [H, W] float64
    places: np.ndarray  # [3, 2] float64: pretrained, first, second
    examples: np.ndarray  # [] of the training data that the loss is over


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


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, and have it on the disk before returning."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
    flush(path.parent)


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Write strict JSON for programs and people, as `write` does; raises ValueError for NaN."""
    write(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def flush(path: Path) -> None:
    """Have a file, or a folder's list of files, on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


class Store:
    """The results folder of a sweep and profile: `plan.json`, `trials/<id>.json` with `<id>.npz`, `baselines.json`."""

    def __init__(self, folder: Path) -> None:
        """Name the folder; nothing is made before something is written."""
        self.folder = folder
        self.trials = folder / "trials"

    # -------------------------------------------------------------------------------------------------- the plan

    def save_plan(self, sweep: Sweep) -> None:
        """Keep what was planned before any training; refuse an edit that would orphan trained trials is `execute`'s."""
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
            raise HarnessError(
                "a results folder's plan can be read",
                got=f"{path} ({getattr(error, 'strerror', None) or 'no plan of a sweep'})",
                allowed="the plan.json that the sweep wrote",
                fix="remove it; the next `harness sweep` writes it again",
            ) from None
        if [trial.id for trial in expand(sweep)] != ids:
            raise HarnessError(
                "the ids of a plan are those of this version of the harness",
                got=str(path),
                allowed="results of the same version",
                fix="use another --results folder or the version that wrote it",
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
        found: dict[str, Record] = {}
        environments: dict[Environment | None, Environment | None] = {}
        for trial, record in self.each(expand(sweep)):
            if record is not None:
                place = environments.setdefault(record.environment, record.environment)
                planned = trial if record.trial == trial else record.trial
                found[trial.id] = record.model_copy(update={"environment": place, "trial": planned})
        return found

    def unreadable(self, sweep: Sweep, among: Iterable[str] | None = None) -> tuple[Path, ...]:
        """Record files of planned trials that are cut short, empty or of another schema: they count as missing.

        `among` are the ids to look at, where it is known already that the others can be read.
        """
        ids = (trial.id for trial in expand(sweep)) if among is None else among
        return tuple(self.path(one) for one in ids if self.path(one).exists() and self.load(one) is None)

    def tidy(self, sweep: Sweep) -> dict[str, Record]:
        """Rename what can't be read to `<id>.unreadable`, remove what killed writers left; the records there are."""
        found = self.records(sweep)
        for path in self.unreadable(sweep, [trial.id for trial in expand(sweep) if trial.id not in found]):
            path.rename(path.with_suffix(".unreadable"))
        for path in self.trials.glob(".*.tmp"):
            path.unlink(missing_ok=True)
        return found

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
        (found,) = _read(f"{self.trials}/{trial_id}.npz", (Curves, ""))
        return None if found is None else Curves(**found)

    def arrays(self, trial_id: str) -> Curves | None:
        """The arrays of a trial with its recording, where there is one; None where the former are not kept."""
        found, recorded = _read(f"{self.trials}/{trial_id}.npz", (Curves, ""), (Recording, RECORDED))
        if found is None:
            return None
        return Curves(**found, recording=None if recorded is None else Recording(**recorded))

    def save_surface(self, surface: Surface) -> None:
        """Keep a loss surface, in place of the one before."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **vars(surface))
        self.folder.mkdir(parents=True, exist_ok=True)
        write(self.folder / "surface.npz", buffer.getvalue())

    def surface(self) -> Surface | None:
        """The loss surface that was computed last, None where none was."""
        (found,) = _read(f"{self.folder}/surface.npz", (Surface, ""))
        return None if found is None else Surface(**found)

    def save_baselines(self, found: tuple[Baseline, ...]) -> None:
        """Keep what the cells are compared with, in place of what was kept before."""
        write(self.folder / "baselines.json", _BASELINES.dump_json(found) + b"\n")

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
                    "a results folder is where files can be locked, so that two sweeps don't train the same",
                    got=f"{self.folder} ({error.strerror})",
                    allowed="a local disk, or a network's that supports flock",
                    fix="name another --results folder",
                ) from None
            stream.seek(0)
            said = stream.read(1000).strip() or "another process"
            remote = f" on {socket.gethostname()} of " not in said
            raise HarnessError(
                "one sweep at a time writes to a results folder",
                got=f"{self.folder}, in use by {said}{self._last_sign()}",
                allowed="a folder that no living sweep holds",
                fix="wait for it, stop it, or name another --results folder"
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
        found = (_in_a_table(getattr(measured, name)) for name in measures) if measured else no_measures
        place = (getattr(environment, name) for name in places) if environment else no_place
        rows.append((trial.id, trial.cell, *axes[trial.cell], *of_seeds, *state, *found, *place))
    table = pd.DataFrame(rows, columns=[*names, *measures, *places])
    texts = {"outcome", "reason", "metric", "error", "weights_sha256", "data_sha256", "model_sha256"}
    texts |= {"augmentation_sha256", "tokens_sha256", "tokenizer_sha256", "step_mode", "step_mode_reason"}
    for name in Measured.model_fields:
        if name not in texts:
            table[name] = pd.to_numeric(table[name])
    return table
