"""The one path to train a pack and make its records, for sweeps, reruns and tests; and this process as a worker."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import harness
from harness import hub, machine
from harness.checkpoints import Checkpoints, StateKept
from harness.keeping import Keeping
from harness.metrics import Evaluation
from harness.packing import Job
from harness.preflight import Preflight, look
from harness.records import Curves, Environment, Measured, Record, write
from harness.sweep import HarnessError, Sweep, Trial

Result = tuple[Record, Curves | None]
# How torch and CUDA's libraries say that a pack was too large for the memory.
_NO_MEMORY = re.compile(r"out of memory|OutOfMemoryError|can't allocate memory|STATUS_ALLOC_FAILED")
_UNKEPT = re.compile(r"^(?:harness\.keeping\.)?UnkeptError: (.+)$", re.MULTILINE)
_REFUSED = re.compile(
    r"^(?:harness\.logits_check\.)?ModelRefusedError: "
    r"(?P<rule>.+?): got (?P<got>.+?); allowed: (?P<allowed>.+?); (?P<fix>.+)$",
    re.MULTILINE,
)

# Seconds of training from which on the fastest pack size is measured, and what a doubling must win to go on.
_MEASURING_PAYS, _FASTER = 300.0, 0.97


# ------------------------------------------------------------------------------------- one path to train a pack


@dataclass(frozen=True)
class Code:
    """Which state of the harness trains; both None outside a git checkout."""

    commit: str | None  # `-dirty` with changes in the package
    dirty_diff_sha256: str | None  # of those changes


@lru_cache(maxsize=1)  # what was imported stays, whatever is edited meanwhile
def code() -> Code:
    """The state of this checkout: the commit, and a hash of `git diff HEAD` and of untracked files of the package."""
    home = Path(__file__).parent

    def git(*words: str) -> bytes | None:
        try:
            asked = subprocess.run(["git", "-C", str(home), *words], capture_output=True, check=False)
        except OSError:
            return None
        return asked.stdout if asked.returncode == 0 else None

    head = git("rev-parse", "--short=12", "HEAD")
    if head is None:
        return Code(None, None)
    digest = hashlib.sha256(changed := git("diff", "HEAD", "--binary", "--no-ext-diff", "--no-color", "--", ".") or b"")
    untracked = git("ls-files", "--others", "--exclude-standard", "-z", "--", ".") or b""
    for name in filter(None, untracked.split(b"\0")):
        with suppress(OSError):
            digest.update(name + b"\0" + (home / os.fsdecode(name)).read_bytes())
    commit = head.decode().strip()
    return Code(f"{commit}-dirty", digest.hexdigest()) if changed or untracked else Code(commit, None)


@dataclass(frozen=True)
class Place:
    """Where and by which code a pack is trained; made by the driver, whose checkout and trust a worker takes over."""

    device: str
    threads: int
    code: Code = field(default_factory=code)
    trusts_remote_code: bool = field(default_factory=hub.trusts_remote_code)
    record: bool = True  # what the diagnosis reads
    checkpoints: Checkpoints | None = None  # None: a pack begins anew and keeps nothing before its end
    tells_scores: bool = False  # whether it says how its lanes stand at each evaluation, for a pruner
    keeping: Keeping | None = None  # None: weights are gone when a pack ends


def place_of(
    sweep: Sweep, device: str, threads: int, checkpoints: Checkpoints | None, keeping: Keeping | None
) -> Place:
    """Where the packs of a sweep are trained."""
    pruned = sweep.search is not None and sweep.search.pruner is not None
    return Place(
        device, threads, record=sweep.record, checkpoints=checkpoints, tells_scores=pruned, keeping=keeping
    )  # fmt: skip


def train_pack(
    sweep: str,
    profile: str,
    trials: Sequence[Trial],
    place: Place,
    progress: Callable[[int, int], None] | None,
    signals: Callable[[np.ndarray], None] | None = None,
    evaluated: Callable[[Evaluation], None] | None = None,
) -> list[Result]:
    """Train a pack here and now and make its records; the only path, for workers, in-process runs and reruns.

    `progress`, `signals` and `evaluated` are called as `train.train` says. Raises `keeping.UnkeptError` where weights
    that are to be kept can't be written.
    """
    from harness import train

    hub.trust_remote_code(place.trusts_remote_code)
    if place.device.startswith("cuda"):
        _free_memory()
    started = datetime.now(UTC).isoformat(timespec="seconds")
    environment = _environment(place, len(trials), trials[0].recipe.precision)
    checkpoint = None if place.checkpoints is None else place.checkpoints.of(trials, environment)
    try:
        results = train.train(
            trials,
            device=place.device,
            threads=place.threads,
            progress=progress,
            checkpoint=checkpoint,
            record=place.record,
            signals=signals,
            evaluated=evaluated if place.tells_scores else None,
        )
    finally:
        if checkpoint is not None:
            checkpoint.returned()
    if place.keeping is not None:
        recipe = trials[0].recipe
        task = train.prepared(recipe.task, recipe.model, recipe.max_length)
        ends = [(trial.cell, found.measured.final_score) for trial, found in zip(trials, results, strict=True)]
        for lane in place.keeping.chosen(ends):
            found = results[lane]
            place.keeping.stage(sweep, profile, trials[lane], found.measured, task, found.weights)
    return [
        (make_record(sweep, profile, trial, started, environment, result.measured, None), result.curves)
        for trial, result in zip(trials, results, strict=True)
    ]


def _environment(place: Place, lanes: int, precision: str) -> Environment:
    import torch

    from harness import train

    deterministic, matmul_precision = train.numerics(place.device, place.threads, precision)
    return Environment(
        device=place.device,
        device_name=_device_name(place.device),
        threads=place.threads,
        pack_size=lanes,
        harness=harness.__version__,
        commit=place.code.commit,
        dirty_diff_sha256=place.code.dirty_diff_sha256,
        driver=_driver() if place.device.startswith("cuda") else None,
        cuda=torch.version.cuda,
        deterministic=deterministic,
        matmul_precision=matmul_precision,
        kernels=torch.backends.cpu.get_cpu_capability(),
        **train.versions(),
    )


def room_here(device: str, sharing: int = 1) -> int:
    """Bytes that the lanes of one of `sharing` workers may fill: on a GPU, of what is free there now."""
    if not device.startswith("cuda"):
        return machine.room(device)
    import torch

    free, total = torch.cuda.mem_get_info(device)
    return int(0.8 * min(free, total / sharing))


def lanes(trial: Trial, place: Place, usual: int, most: int, epochs: float) -> int:
    """How many lanes of the trial's shape train fastest here, up to `most`: a power of two, found out once.

    Where a worker has less than some minutes of it to train (`epochs` of one lane), that doesn't pay: `usual` is.
    What was found is kept in the user's cache.
    """
    from harness import train

    hub.trust_remote_code(place.trusts_remote_code)
    recipe = trial.recipe
    task = train.prepared(recipe.task, recipe.model, recipe.max_length)
    rows = recipe.batch_size * recipe.forward_passes
    padding = (recipe.padding, recipe.pad_to_multiple_of)
    step = (rows, recipe.gradient_accumulation, *padding, recipe.precision, recipe.optimizer)
    shape = (*step, task.train.input_ids.shape[1], recipe.trains)
    config: Any = train.network(recipe, task).module.config
    device = (_device_name(place.device), place.threads, harness.__version__, train.versions())
    key = json.dumps([device, shape, config.to_json_string()])
    path = _cache() / f"lanes-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        return min(most, int(json.loads(path.read_text())["lanes"]))
    best, steps = train.lane_step(trial, 1, place.device, place.threads)
    if best * steps * epochs < _MEASURING_PAYS:
        return usual
    found, times = 1, {1: best}
    while 2 * found <= most:
        try:
            times[2 * found], _ = train.lane_step(trial, 2 * found, place.device, place.threads)
        except RuntimeError as error:
            if not _NO_MEMORY.search(f"{type(error).__name__}: {error}"):
                raise
            break
        if times[2 * found] > _FASTER * best:
            break
        found *= 2
        best = times[found]
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, json.dumps({"lanes": found, "seconds_a_lane_step": times, "measured": json.loads(key)}).encode())
    return found


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stability-harness"


def _free_memory() -> None:
    """Give back what the pack before left in CUDA's cache: after one that was too large, the next needs it whole."""
    torch = sys.modules["torch"]
    gc.collect()  # an error's traceback holds the tensors of its frames
    torch.cuda.empty_cache()


def make_record(
    sweep: str,
    profile: str,
    trial: Trial,
    started: str,
    environment: Environment | None,
    measured: Measured | None,
    error: str | None,
) -> Record:
    """A trial's record, before it is known how often it was tried: crashed where nothing was measured."""
    return Record(
        id=trial.id,
        sweep=sweep,
        profile=profile,
        trial=trial,
        status="finished" if measured else "crashed",
        attempts=1,
        started_utc=started,
        environment=environment,
        measured=measured,
        arrays_sha256=None,
        # A path in a traceback may hold bytes that are no text; a record is UTF-8.
        error=error and error.encode("utf-8", "backslashreplace").decode(),
    )


def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        import torch

        return str(torch.cuda.get_device_name(device))
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


@lru_cache(maxsize=1)
def _driver() -> str | None:
    """The version of NVIDIA's driver; None where it can't be asked."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        asked = subprocess.run(query, capture_output=True, text=True, errors="replace", timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = asked.stdout.split() if asked.returncode == 0 else []
    return lines[0] if lines else None


# ------------------------------------------------------------------------------------------------------ the workers


@dataclass(frozen=True)
class Done:
    """A pack that came back: its results, or why it failed."""

    job: Job
    results: list[Result]
    error: str | None = None
    died: bool = False
    left: bool = False  # as `Pool.leave` asked
    put_off: bool = False  # so left that it goes on another time
    stopped: Running | None = None  # as it was last heard of, where the pool itself stopped it

    @property
    def out_of_memory(self) -> bool:
        """Whether the pack was too large for its device's memory."""
        return self.error is not None and _NO_MEMORY.search(self.error) is not None

    @property
    def unkept(self) -> str | None:
        """The folder of weights that could not be written, and why; None where that was not the error."""
        found = None if self.error is None else _UNKEPT.search(self.error)
        return found and found[1]

    @property
    def refused(self) -> HarnessError | None:
        """Why the pack's model can't be trained here or anywhere; None where that was not the error."""
        found = None if self.error is None else _REFUSED.search(self.error)
        return found and HarnessError(**found.groupdict())


@dataclass(frozen=True)
class Heard:
    """How far a worker is: the share of its pack's steps that are done, and what it says of the lanes."""

    share: float = 0.0
    signals: np.ndarray | None = None  # [L, t, K]: `early`'s, at the shares reached; None where nothing is recorded
    evaluations: tuple[Evaluation, ...] = ()  # those of this training, where the place tells them


@dataclass(frozen=True)
class Running:
    """A pack in training: how far it is, and the seconds since it was started."""

    job: Job
    heard: Heard
    seconds: float

    @property
    def share(self) -> float:
        """Of its steps, those that are done."""
        return self.heard.share


class LeftError(Exception):
    """A pack is left in mid-training, as `Pool.leave` asked."""


class PutOffError(LeftError, StateKept):
    """A pack is left in mid-training and its state is kept, as `Pool.leave` asked."""


class Pool(Protocol):
    """Workers that train packs."""

    place: Place

    @property
    def workers(self) -> int:
        """Workers that are ready or train."""

    @property
    def free(self) -> int:
        """How many packs can be started now."""

    @property
    def room(self) -> int:
        """Bytes that the lanes of a pack may fill, whichever worker takes it."""

    def lanes(self, trial: Trial, usual: int, most: int, epochs: float) -> int:
        """How many lanes of a shape train fastest, as `lanes` of this module."""

    def preflight(self, trial: Trial) -> Preflight:
        """What setting a trial's data and model up gives, by one of the workers."""

    def follow(self, most: int) -> list[str]:
        """Make the workers those that there are devices for, at most so many, and give the news of them."""

    def start(self, job: Job) -> None:
        """Give a pack to an idle worker."""

    def leave(self, job: Job, put_off: bool = False) -> None:
        """Have a pack left after the step that it is at, unless that is its last; it comes back without results.

        With `put_off` its state is kept first, where the place keeps checkpoints.
        """

    def wait(self, seconds: float) -> list[Done]:
        """The packs that came back within that time."""

    def running(self) -> list[Running]:
        """The packs in training and how far they are."""

    def close(self) -> None:
        """Stop the workers at once."""


class InProcess:
    """One worker, this process. Nothing can stop a step here, so a pack that hangs is not noticed."""

    workers = 1

    def __init__(self, sweep: Sweep, place: Place, tick: Callable[[], None]) -> None:
        """Train packs of `sweep` here; `tick` is called after every step."""
        self.sweep, self.place, self.tick = sweep, place, tick
        self.job: Job | None = None
        self.leaving: tuple[Job, bool] | None = None  # and whether it is put off
        self.heard, self.started = Heard(), 0.0

    @property
    def free(self) -> int:
        """One pack at a time."""
        return 0 if self.job else 1

    @property
    def room(self) -> int:
        """What there is on this machine."""
        return room_here(self.place.device)

    def lanes(self, trial: Trial, usual: int, most: int, epochs: float) -> int:
        """Found out here."""
        return lanes(trial, self.place, usual, most, epochs)

    def preflight(self, trial: Trial) -> Preflight:
        """Set up here."""
        return look(trial, trusts_remote_code=self.place.trusts_remote_code)

    def follow(self, most: int) -> list[str]:
        """No news: this process is the worker."""
        return []

    def start(self, job: Job) -> None:
        """Keep the pack for `wait`, which trains it."""
        self.job, self.heard, self.started = job, Heard(), time.monotonic()

    def leave(self, job: Job, put_off: bool = False) -> None:
        """Asked for in a `tick`; the step that it follows is the last."""
        self.leaving = (job, put_off)

    def wait(self, seconds: float) -> list[Done]:
        """Train the pack to its end, whatever the time."""
        if self.job is None:
            return []

        def progress(step: int, steps: int) -> None:
            self.heard = replace(self.heard, share=step / steps)
            self.tick()
            if self.leaving is not None and self.leaving[0] is job and step < steps:
                raise PutOffError if self.leaving[1] else LeftError

        def signals(found: np.ndarray) -> None:
            self.heard = replace(self.heard, signals=found)

        def evaluated(found: Evaluation) -> None:
            self.heard = replace(self.heard, evaluations=(*self.heard.evaluations, found))

        job, names = self.job, (self.sweep.name, self.sweep.profile)
        try:
            results = train_pack(*names, job.trials, self.place, progress, signals, evaluated)
            done = Done(job, results)
        except LeftError as left:
            done = Done(job, [], left=True, put_off=isinstance(left, PutOffError))
        except Exception:  # whatever a trial raises is kept in its record
            done = Done(job, [], error=traceback.format_exc())
        self.job = None
        return [done]

    def running(self) -> list[Running]:
        """The pack in training and how far it is."""
        return [Running(self.job, self.heard, time.monotonic() - self.started)] if self.job else []

    def close(self) -> None:
        """Nothing to stop."""
