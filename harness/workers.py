"""Who trains packs: one path to train a pack, called in this process or by long-lived Ray actors.

Ray starts the workers and nothing more: what is tried again, and what is recorded, is `execute`'s.
"""

from __future__ import annotations

import gc
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import harness
from harness import machine
from harness.packing import Job
from harness.records import Curves, Environment, Measured, Record
from harness.sweep import HarnessError, Sweep, Trial

Result = tuple[Record, Curves | None]
# What a worker's process takes beside its lanes (torch, transformers, Ray): about a gigabyte was measured.
_WORKER_BYTES = 3 * 2**29
# How torch and CUDA's libraries say that a pack was too large for the memory.
_NO_MEMORY = re.compile(r"out of memory|OutOfMemoryError|can't allocate memory|STATUS_ALLOC_FAILED")
# The longest time between two looks at a worker that counts as time without a step: a driver that was itself stopped
# (Ctrl-Z, a frozen container) must not take its workers for hanging.
_LONGEST_LOOK = 10.0


# ------------------------------------------------------------------------------------- one path to train a pack


@dataclass(frozen=True)
class Place:
    """Where a pack is trained."""

    device: str
    threads: int


def train_pack(
    sweep: str, profile: str, trials: Sequence[Trial], place: Place, progress: Callable[[int, int], None] | None
) -> list[Result]:
    """Train a pack here and now and make its records; the only path, for workers, in-process runs and reruns."""
    from harness import train

    if place.device.startswith("cuda"):
        _free_memory()
    started = datetime.now(UTC).isoformat(timespec="seconds")
    results = train.train(trials, device=place.device, threads=place.threads, progress=progress)
    environment = Environment(
        device=place.device,
        device_name=_device_name(place.device),
        threads=place.threads,
        pack_size=len(trials),
        harness=harness.__version__,
        commit=commit(),
        **train.versions(),
    )
    return [
        (make_record(sweep, profile, trial, started, environment, result.measured, None), result.curves)
        for trial, result in zip(trials, results, strict=True)
    ]


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
def commit() -> str | None:
    """The harness's own git commit, `-dirty` with changes in the package; None outside a checkout."""
    home = Path(__file__).parent

    def git(*words: str) -> str | None:
        try:
            asked = subprocess.run(["git", "-C", str(home), *words], capture_output=True, text=True, check=False)
        except OSError:
            return None
        return asked.stdout.strip() if asked.returncode == 0 else None

    head = git("rev-parse", "--short=12", "HEAD")
    return f"{head}-dirty" if head and git("status", "--porcelain", "--", str(home)) else head


# ------------------------------------------------------------------------------------------------------ the workers


@dataclass(frozen=True)
class Done:
    """A pack that came back: its results, or why it failed."""

    job: Job
    results: list[Result]
    error: str | None = None
    died: bool = False

    @property
    def out_of_memory(self) -> bool:
        """Whether the pack was too large for its device's memory."""
        return self.error is not None and _NO_MEMORY.search(self.error) is not None


@dataclass(frozen=True)
class Running:
    """A pack in training: the share of its steps that are done, and the seconds since it was started."""

    job: Job
    share: float
    seconds: float


class Pool(Protocol):
    """Workers that train packs."""

    place: Place
    workers: int

    def start(self, job: Job) -> None:
        """Give a pack to an idle worker."""

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
        self.share, self.started = 0.0, 0.0

    def start(self, job: Job) -> None:
        """Keep the pack for `wait`, which trains it."""
        self.job, self.share, self.started = job, 0.0, time.monotonic()

    def wait(self, seconds: float) -> list[Done]:
        """Train the pack to its end, whatever the time."""
        assert self.job is not None

        def progress(step: int, steps: int) -> None:
            self.share = step / steps
            self.tick()

        job = self.job
        try:
            results = train_pack(self.sweep.name, self.sweep.profile, job.trials, self.place, progress)
            done = Done(job, results)
        except Exception:  # whatever a trial raises is kept in its record
            done = Done(job, [], error=traceback.format_exc())
        self.job = None
        return [done]

    def running(self) -> list[Running]:
        """The pack in training and how far it is."""
        return [Running(self.job, self.share, time.monotonic() - self.started)] if self.job else []

    def close(self) -> None:
        """Nothing to stop."""


class _Worker:
    """What runs in a Ray actor: trains one pack at a time and answers how far it is."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.share = 0.0

    def ready(self) -> bool:
        return True

    def progress(self) -> tuple[float, int, str]:
        return self.share, os.getpid(), socket.gethostname()

    def train(self, sweep: str, profile: str, trials: Sequence[Trial]) -> list[Result]:
        self.share = 0.0

        def progress(step: int, steps: int) -> None:
            self.share = step / steps

        return train_pack(sweep, profile, trials, self.place, progress)


def _refuse_silent(address: str | None) -> None:
    """Raise within seconds where nothing listens at host:port; Ray alone tries for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise HarnessError(
            "the Ray cluster can be reached",
            got=f"{address}: {error}",
            allowed="auto or host:port of a running cluster",
            fix="start it with `ray start --head`",
        ) from None


@dataclass
class _Flight:
    """A pack that a Ray worker trains: its steps as last heard, and for how long no other number was heard."""

    worker: Any
    job: Job
    started: float
    share: float = 0.0
    still: float = 0.0  # seconds
    process: tuple[int, str] | None = None  # (pid, host)


class RayPool:
    """Long-lived Ray actors, one a GPU or one a core; each trains one pack at a time."""

    def __init__(
        self, sweep: Sweep, address: str | None, workers: int | None, threads: int, most: int, hang_minutes: float
    ) -> None:
        """Start (or join, by `address`) Ray and as many workers as there are devices, at most `most`.

        A worker that does no step for `hang_minutes` is killed, loading included.
        Raises HarnessError when the cluster can't be reached or has nothing to train on.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        self.ray, self.sweep, self.hang_minutes = ray, sweep, hang_minutes
        _refuse_silent(address)
        options: dict[str, Any] = {"log_to_driver": False, "configure_logging": True, "logging_level": "ERROR"}
        if address is None:
            options |= {"num_cpus": machine.here().cores, "include_dashboard": False}
        try:
            ray.init(address=address or "local", **options)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise HarnessError(
                "the Ray cluster can be reached",
                got=f"{address}: {str(error).splitlines()[0]}",
                allowed="auto or host:port of a running cluster",
                fix="start it with `ray start --head`",
            ) from None
        has = ray.cluster_resources()
        gpus, cpus = int(has.get("GPU", 0)), int(has.get("CPU", 0))
        devices = gpus or cpus // threads
        if devices < 1 or (workers is not None and workers > devices):
            kind = "GPUs" if gpus else f"cores at {threads} threads a worker"
            self.close()
            raise HarnessError(
                "each worker has a device of its own",
                got=f"{workers or 1} workers for {gpus or cpus} {kind}",
                allowed=f"1 to {devices}",
                fix="lower --workers or --threads",
            )
        self.place = Place("cuda" if gpus else "cpu", threads)
        fits = machine.here().memory // _WORKER_BYTES if address is None and not gpus else devices
        self.workers = min(workers or max(1, min(devices, fits)), max(1, most))
        # One thread trains, the other answers `progress`. A worker that dies is replaced here, with its pack.
        self.actor = ray.remote(_Worker).options(
            num_cpus=0 if gpus else threads,
            num_gpus=1 if gpus else 0,
            max_concurrency=2,
            max_restarts=0,
            max_task_retries=0,
        )
        self.idle = [self.actor.remote(self.place) for _ in range(self.workers)]
        self.flights: dict[Any, _Flight] = {}  # future -> what trains
        self.looked = time.monotonic()

    def start(self, job: Job) -> None:
        """Give a pack to an idle worker."""
        worker = self.idle.pop()
        future = worker.train.remote(self.sweep.name, self.sweep.profile, job.trials)
        self.flights[future] = _Flight(worker, job, time.monotonic())

    def wait(self, seconds: float) -> list[Done]:
        """The packs that came back within that time, with those whose worker had to be killed."""
        ready, _ = self.ray.wait(list(self.flights), num_returns=1, timeout=seconds)
        found = []
        for future in ready:
            flight = self.flights.pop(future)
            try:
                found.append(Done(flight.job, self.ray.get(future)))
                self.idle.append(flight.worker)
            except self.ray.exceptions.RayTaskError as error:
                text = f"{error.cause.__class__.__name__}: {error}"
                found.append(Done(flight.job, [], error=text))
                self.idle.append(flight.worker)
            except self.ray.exceptions.RayError as error:  # the worker is gone
                found.append(self._lost(flight, f"the worker died: {error}"))
        self._look()
        for future, flight in list(self.flights.items()):
            if flight.still >= self.hang_minutes * 60:
                del self.flights[future]
                minutes = f"{self.hang_minutes:g} minute{'' if self.hang_minutes == 1 else 's'}"
                found.append(self._lost(flight, f"the worker was killed: no step for {minutes}"))
        return found

    def _look(self) -> None:
        """Ask the workers how far they are; one that doesn't answer at once counts as it last did."""
        now = time.monotonic()
        passed, self.looked = min(now - self.looked, _LONGEST_LOOK), now
        asked = {flight.worker.progress.remote(): flight for flight in self.flights.values()}
        ready, _ = self.ray.wait(list(asked), num_returns=len(asked), timeout=0.5) if asked else ([], [])
        for flight in asked.values():
            flight.still += min(passed, now - flight.started)
        for answer in ready:
            flight = asked[answer]
            with suppress(self.ray.exceptions.RayError):  # a worker that is gone is `wait`'s
                share, *process = self.ray.get(answer)
                flight.process = (process[0], process[1])
                if share != flight.share:
                    flight.share, flight.still = share, 0.0

    def _lost(self, flight: _Flight, why: str) -> Done:
        """Put a new worker in the place of one that died or hangs."""
        self.ray.kill(flight.worker)
        # A stopped process doesn't hear Ray, and would keep its core or GPU from the new worker.
        if flight.process is not None and flight.process[1] == socket.gethostname():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(flight.process[0], signal.SIGKILL)
        self.idle.append(self.actor.remote(self.place))
        return Done(flight.job, [], error=why, died=True)

    def running(self) -> list[Running]:
        """The packs in training and how far they were when last asked."""
        now = time.monotonic()
        return [Running(flight.job, flight.share, now - flight.started) for flight in self.flights.values()]

    def close(self) -> None:
        """Leave Ray; a local one stops."""
        self.ray.shutdown()
