"""Which trials are missing, which train together and where; one path trains a pack, for sweeps and reruns alike.

Ray starts long-lived workers and nothing more: the queue, the retries and the records are here, and at the end the
plan is compared with the records.
"""

from __future__ import annotations

import gc
import heapq
import json
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import harness
from harness import hub, machine, tasks
from harness.records import Curves, Environment, Measured, Record, Store, write
from harness.sweep import HarnessError, Recipe, Sweep, Trial, expand, orphaning_change

Result = tuple[Record, Curves | None]
# A pack whose worker dies is tried once more as it is, then in halves, then its last lane is recorded as crashed.
DEATHS_BEFORE_SPLIT = 2
# Parts of a worker's share of the work that a pack is tried with, and how far the longest shape goes ahead.
PARTS, HEAD_START = (0.5, 0.75, 1, 1.5, 2, 3, 4, 6), 0.5
STEP_OVERHEAD = 0.7  # lanes that the fixed part of a step is worth, on one core (`make bench`)
# What a worker's process takes beside its lanes (torch, transformers, Ray): about a gigabyte was measured.
_WORKER_BYTES = 3 * 2**29
# How torch and CUDA's libraries say that a pack was too large for the memory.
_NO_MEMORY = re.compile(r"out of memory|OutOfMemoryError|can't allocate memory|STATUS_ALLOC_FAILED")
# The longest time between two looks at a worker that counts as time without a step: a driver that was itself stopped
# (Ctrl-Z, a frozen container) must not take its workers for hanging.
_LONGEST_LOOK = 10.0
# How often `running.json` is written, which `harness status` reads.
HEARTBEAT, _HEARTBEAT_SECONDS = "running.json", 5.0


# ------------------------------------------------------------------------------------------------- packs of trials


@dataclass(frozen=True)
class Job:
    """A pack to train, and how often its worker died with it."""

    trials: tuple[Trial, ...]
    deaths: int = 0

    @property
    def lane_epochs(self) -> int:
        """Epochs to train over all lanes, the measure of work left."""
        return sum(trial.recipe.epochs for trial in self.trials)


def pack(trials: Sequence[Trial], size: Callable[[Recipe], int], workers: int) -> list[Job]:
    """Cut trials into packs of one shape, seed by seed over the cells, so that half a sweep already has all cells.

    Large packs are cheap and small ones fill the workers evenly: of a few ways to cut, the one that ends first in a
    simulation (`makespan`). Shapes take turns, the longer ahead of the shorter, which fill the gaps at the end.
    """
    groups: dict[object, list[Trial]] = defaultdict(list)
    ranks: dict[int, int] = defaultdict(int)  # cell -> how many of its trials came before
    rank = {}
    for trial in trials:
        rank[trial.id] = ranks[trial.cell]
        ranks[trial.cell] += 1
        groups[trial.recipe.shape].append(trial)
    for group in groups.values():
        group.sort(key=lambda trial: (rank[trial.id], trial.cell))
    most = [(group, size(group[0].recipe)) for group in groups.values()]
    share = sum(trial.recipe.epochs for trial in trials) / workers  # epochs of all lanes that a worker has to train
    cuts = [_cut(most, share / parts) for parts in (PARTS if workers > 1 else (0.001,))]
    return min(cuts, key=lambda jobs: makespan(jobs, workers))


def _cut(groups: Sequence[tuple[list[Trial], int]], most_work: float) -> list[Job]:
    """Packs of at most their shape's lanes and of at most so much work (epochs of all lanes), in their order."""
    longest = max((group[0].recipe.epochs for group, _ in groups), default=1)
    jobs = []
    for group, size in groups:
        epochs = group[0].recipe.epochs
        lanes = int(max(1, min(size, most_work // epochs)))
        for start in range(0, len(group), lanes):
            turn = start / len(group) * (1 - HEAD_START * epochs / longest)
            jobs.append((turn, Job(tuple(group[start : start + lanes]))))
    return [job for _, job in sorted(jobs, key=lambda item: (item[0], -item[1].lane_epochs))]


def makespan(jobs: Sequence[Job], workers: int) -> float:
    """When the last worker is done, each taking the next pack as soon as it is free, in epochs of one lane."""
    free = [0.0] * workers
    for job in jobs:
        heapq.heappush(free, heapq.heappop(free) + job.trials[0].recipe.epochs * (len(job.trials) + STEP_OVERHEAD))
    return max(free)


def after_failure(job: Job, died: bool) -> list[Job]:
    """What to try after a pack failed; an empty list when its only trial is to be recorded as crashed.

    An error is deterministic, so it is never tried again as it was: halves find the lane that causes it, and a pack
    that was too large for the memory fits. A dead worker may have been bad luck: once more, then halves.
    """
    if died and job.deaths + 1 < DEATHS_BEFORE_SPLIT:
        return [replace(job, deaths=job.deaths + 1)]
    if len(job.trials) == 1:
        return []
    middle = len(job.trials) // 2
    return [Job(job.trials[:middle]), Job(job.trials[middle:])]


def fitting(job: Job, lanes: int) -> list[Job]:
    """A pack, in parts of no more lanes than fit."""
    return [replace(job, trials=job.trials[start : start + lanes]) for start in range(0, len(job.trials), lanes)]


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
        (_record(sweep, profile, trial, started, environment, result.measured, None), result.curves)
        for trial, result in zip(trials, results, strict=True)
    ]


def _free_memory() -> None:
    """Give back what the pack before left in CUDA's cache: after one that was too large, the next needs it whole."""
    torch = sys.modules["torch"]
    gc.collect()  # an error's traceback holds the tensors of its frames
    torch.cuda.empty_cache()


def _record(
    sweep: str,
    profile: str,
    trial: Trial,
    started: str,
    environment: Environment | None,
    measured: Measured | None,
    error: str | None,
) -> Record:
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


# ------------------------------------------------------------------------------------------------------ a sweep


@dataclass
class Progress:
    """How far a sweep is, for the terminal."""

    planned: int
    finished: int
    crashed: int
    failed: int
    workers: int = 0
    lanes: int = 0  # training now
    seconds_left: float | None = None
    messages: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Ended:
    """What a sweep ended with: counts over the plan, from the records."""

    planned: int
    finished: int
    crashed: int
    missing: int
    failed: int
    trained_now: int


@dataclass(frozen=True)
class Options:
    """How to run; none of it changes a result except `threads` in the last bits, which the record keeps."""

    in_process: bool = False
    address: str | None = None
    workers: int | None = None
    threads: int = 1
    pack: int | None = None
    retry_crashed: bool = False
    notice: float = 25.0  # seconds that packs have to come back in after SIGTERM
    hang_minutes: float = 30.0  # without a step, and a worker is killed; not in process


def run(sweep: Sweep, store: Store, options: Options, show: Callable[[Progress], None]) -> Ended:
    """Train what is missing and record it; `show` is called as things move.

    Raises HarnessError, before any training, for data or models that can't be used, for an edit that would orphan
    trained trials and for a folder that another sweep holds; and where a record can't be written. Trials that crash
    are recorded and the sweep goes on. Ctrl-C raises KeyboardInterrupt after the packs that are training, a second one
    at once; SIGTERM raises Terminated after those that come back within the notice.
    """
    with store.locked():
        records = store.tidy(sweep)  # nobody else writes while the folder is held
        for path in (store.folder / HEARTBEAT, *store.folder.glob(".*.tmp")):  # of a driver that was killed
            path.unlink(missing_ok=True)
        _refuse_orphans(sweep, store, records)
        _check_inputs(sweep, records)
        missing = [trial for trial in expand(sweep) if _wanted(records.get(trial.id), options)]
        if missing:
            _Training(sweep, store, records, missing, options, show).run()
        else:
            store.save_plan(sweep)
    return ended(sweep, store, len(missing))


def ended(sweep: Sweep, store: Store, trained_now: int = 0) -> Ended:
    """Count the plan's trials by what their records say."""
    return _counted((record for _, record in store.each(expand(sweep))), trained_now)


def count(trials: Sequence[Trial], records: Mapping[str, Record], trained_now: int = 0) -> Ended:
    """Count some of the plan's trials, those of a cell say, by what their records (`Store.records`) say."""
    return _counted((records.get(trial.id) for trial in trials), trained_now)


def _counted(records: Iterable[Record | None], trained_now: int) -> Ended:
    states: Counter[str] = Counter()
    failed = 0
    for record in records:
        states[record.status if record else "missing"] += 1
        failed += bool(record and record.measured and record.measured.outcome == "failed")
    counts = (states["finished"], states["crashed"], states["missing"])
    return Ended(states.total(), *counts, failed, trained_now)


def _wanted(record: Record | None, options: Options) -> bool:
    return record is None or (record.status == "crashed" and options.retry_crashed)


def _refuse_orphans(sweep: Sweep, store: Store, records: Mapping[str, Record]) -> None:
    old = store.load_plan()
    if old is None or old == sweep:
        return
    trained = [trial for trial in expand(old) if trial.id in records or store.load(trial.id) is not None]
    change = orphaning_change(old, sweep, trained)
    if change is not None:
        raise HarnessError(
            "an edited sweep keeps its trained trials",
            got=f"a sweep without {change}, which trained trials in {store.folder} have",
            allowed="adding values and seeds",
            fix="put it back, or name another folder with --results",
        )


def _check_inputs(sweep: Sweep, records: Mapping[str, Record]) -> None:
    """Load the data and look for the models before anything is trained; refuse to mix data under one name."""
    known: dict[str, tuple[str, str]] = {}  # task -> (hash, a trial that has it)
    for trial in expand(sweep):
        record = records.get(trial.id)
        if record and record.measured:
            known.setdefault(trial.recipe.task.name, (record.measured.data_sha256, trial.id))
    for task in dict.fromkeys(cell.recipe.task for cell in sweep.cells):
        raw = tasks.load(task)
        largest = max(cell.recipe.batch_size for cell in sweep.cells if cell.recipe.task == task)
        tasks.check_batch(largest, len(raw.train.labels))
        if task.name in known and known[task.name][0] != raw.sha256:
            raise HarnessError(
                "the data of a started sweep stay the same",
                got=f"other examples than {known[task.name][1]} had",
                allowed="the same texts and labels in the same order",
                fix="restore them, or name another folder with --results",
            )
    for model in dict.fromkeys(cell.recipe.model for cell in sweep.cells):
        hub.check_model(model)


@contextmanager
def _pool(sweep: Sweep, options: Options, most: int, tick: Callable[[], None]) -> Iterator[Pool]:
    if options.in_process:
        device = "cuda" if machine.here().gpus else "cpu"
        yield InProcess(sweep, Place(device, options.threads), tick)
        return
    pool = RayPool(sweep, options.address, options.workers, options.threads, most, options.hang_minutes)
    try:
        yield pool
    finally:
        pool.close()


class Terminated(KeyboardInterrupt):
    """SIGTERM was received: what was trained is kept, the rest is missing."""


class _Stop:
    """What Ctrl-C and SIGTERM asked for; Python calls `_hear` between two steps of the main thread."""

    def __init__(self, notice: float) -> None:
        self.notice = notice
        self.interrupts = 0
        self.deadline: float | None = None
        self._holding = False

    @property
    def asked(self) -> bool:
        """Whether no new pack is to start."""
        return self.interrupts > 0 or self.deadline is not None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the two signals, where this is the main thread and nobody told the process to ignore them."""
        before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    before[number] = signal.signal(number, self._hear)
        try:
            yield
        finally:
            for heard, handler in before.items():
                signal.signal(heard, handler)

    def _hear(self, number: int, frame: object) -> None:
        if number == signal.SIGTERM:
            self.deadline = self.deadline or time.monotonic() + self.notice
            return
        self.interrupts += 1
        if not self._holding:
            self._leave_if_told()

    def _leave_if_told(self) -> None:
        if self.interrupts > 1 or (self.interrupts and self.deadline is not None):
            raise KeyboardInterrupt

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let the records of a pack be written together: a second Ctrl-C waits for them."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        self._leave_if_told()

    def check(self) -> None:
        """Leave where the notice of a SIGTERM is over; raises Terminated."""
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise Terminated

    def end(self) -> None:
        """Leave after the last pack where a signal asked for it; raises Terminated or KeyboardInterrupt."""
        if self.deadline is not None:
            raise Terminated
        if self.interrupts:
            raise KeyboardInterrupt

    def words(self, lanes: int) -> str:
        """What the person at the terminal is told, once for each of the two."""
        trials = f"the {lanes} trial{'' if lanes == 1 else 's'} that {'is' if lanes == 1 else 'are'} training"
        if self.deadline is not None:
            return f"SIGTERM: {trials} may end within {self.notice:g} s"
        return f"stopping after {trials}; Ctrl-C again leaves now"


class _Training:
    """A sweep in training: the queue, the workers' packs, and what becomes of them."""

    def __init__(
        self,
        sweep: Sweep,
        store: Store,
        records: Mapping[str, Record],
        missing: Sequence[Trial],
        options: Options,
        show: Callable[[Progress], None],
    ) -> None:
        before = count(expand(sweep), records)
        self.sweep, self.store, self.missing, self.options, self.show = sweep, store, missing, options, show
        self.retried = {trial.id for trial in missing if trial.id in records}
        self.progress = Progress(before.planned, before.finished, before.crashed - len(self.retried), before.failed)
        self.total, self.behind = sum(trial.recipe.epochs for trial in missing), 0.0  # epochs over all lanes
        self.started, self.ticked, self.beaten = time.monotonic(), 0.0, -_HEARTBEAT_SECONDS
        self.started_utc = _now()
        self.models: dict[str, str] = _model_hashes(sweep, records)
        self.queue: list[Job] = []
        self.fits: dict[object, int] = {}  # shape -> lanes that the memory holds, where it once didn't
        self.stop = _Stop(options.notice)
        self.said: set[bool] = set()

    def run(self) -> None:
        """Train all; raises KeyboardInterrupt or Terminated where a signal ends it early."""
        # Enough workers for one trial each; the packs are then cut to the workers there are.
        with _pool(self.sweep, self.options, len(self.missing), self.tick) as self.pool, self.stop.listening():
            with _written(self.store.folder / "plan.json"):
                self.store.save_plan(self.sweep)  # before any training, and not for workers that can't be had
            self.progress.workers = self.pool.workers
            device, asked = self.pool.place.device, self.options.pack
            self.queue = pack(self.missing, lambda recipe: machine.pack_size(recipe, device, asked), self.pool.workers)
            self.show(self.progress)
            try:
                self._train()
            finally:
                with suppress(OSError):
                    (self.store.folder / HEARTBEAT).unlink(missing_ok=True)
            self.progress.seconds_left = 0.0
            self.show(self.progress)

    def _train(self) -> None:
        running = 0
        while running or (self.queue and not self.stop.asked):
            while self.queue and running < self.pool.workers and not self.stop.asked:
                job = self.queue.pop(0)
                job, *rest = fitting(job, self.fits.get(job.trials[0].recipe.shape, len(job.trials)))
                self.queue[:0] = rest
                self.pool.start(job)
                self.progress.lanes += len(job.trials)
                running += 1
            self.tick()
            for done in self.pool.wait(1.0):
                running -= 1
                self.progress.lanes -= len(done.job.trials)
                with self.stop.held():
                    self._take(done)
        self.stop.end()

    def _take(self, done: Done) -> None:
        """Record a pack that came back, or put into the queue what is to be tried again."""
        if done.error is None:
            self.behind += done.job.lane_epochs
            for record, curves in done.results:
                _same_model(record, self.models)
                _save(self.store, record, curves, self.retried)
                self.progress.finished += 1
                self.progress.failed += bool(record.measured and record.measured.outcome == "failed")
            return
        if done.died and self.stop.asked:
            return  # it may be the same signal that ended the worker: its trials are missing, not crashed
        lanes, shape = len(done.job.trials), done.job.trials[0].recipe.shape
        if done.out_of_memory:
            self.fits[shape] = min(self.fits.get(shape, lanes), max(1, lanes // 2))
        again = after_failure(done.job, done.died)
        self.queue[:0] = again
        if again and done.died:
            trials = f"{lanes} trial{'' if lanes == 1 else 's'}"
            self.progress.messages.append(f"{trials} to train again: {done.error.splitlines()[0]}")
        if not again:
            self.behind += done.job.lane_epochs
            trial = done.job.trials[0]
            record = _record(self.sweep.name, self.sweep.profile, trial, _now(), None, None, done.error)
            _save(self.store, record, None, self.retried)
            self.progress.crashed += 1
            self.progress.messages.append(f"{trial.id} crashed: {last_line(done.error)}")

    def tick(self) -> None:
        """Say how far it is, at most every second; in process, after every step."""
        self.stop.check()
        terminated, now = self.stop.deadline is not None, False
        if self.stop.asked and terminated not in self.said:
            self.said.add(terminated)
            self.progress.messages.append(self.stop.words(self.progress.lanes))
            now = True
        if not now and time.monotonic() - self.ticked < 1:
            return
        running = self.pool.running()
        done = self.behind + sum(one.share * one.job.lane_epochs for one in running)
        if done > 0:
            self.progress.seconds_left = (time.monotonic() - self.started) / done * max(0.0, self.total - done)
        self.ticked = time.monotonic()
        if time.monotonic() - self.beaten >= _HEARTBEAT_SECONDS:
            self.beaten = time.monotonic()
            self._beat(running)
        self.show(self.progress)

    def _beat(self, running: Sequence[Running]) -> None:
        """Write for `harness status` what trains now; a disk without room for it stops no sweep."""
        state = {
            "schema_version": 1,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started_utc": self.started_utc,
            "updated_utc": _now(),
            "device": self.pool.place.device,
            "workers": self.pool.workers,
            "seconds_left": self.progress.seconds_left,
            "packs": [
                {
                    "trials": [trial.id for trial in one.job.trials],
                    "share": one.share,
                    "seconds": one.seconds,
                    "deaths": one.job.deaths,
                }
                for one in running
            ],
        }
        with suppress(OSError):
            write(self.store.folder / HEARTBEAT, (json.dumps(state, indent=1, allow_nan=False) + "\n").encode())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """Name the file that can't be written: the error of a full disk names none."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        raise HarnessError(
            "the results can be written",
            got=f"{error.filename or path} ({error.strerror})",
            allowed="a folder of your own with room in it",
            fix="make room: what was trained before is kept, and the same command goes on",
        ) from error


def last_line(error: str) -> str:
    """The line of a traceback that says what happened."""
    lines = [line for line in error.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no text"


def _save(store: Store, record: Record, curves: Curves | None, retried: set[str]) -> None:
    with _written(store.path(record.id)):
        if record.id in retried:
            store.set_aside(record.id)
        record = record.model_copy(update={"attempts": store.attempts(record.id) + 1})
        store.save(record, curves)


def _model_hashes(sweep: Sweep, records: Mapping[str, Record]) -> dict[str, str]:
    found = {}
    for trial in expand(sweep):
        record = records.get(trial.id)
        if record and record.measured:
            found[trial.recipe.model.name] = record.measured.model_sha256
    return found


def _same_model(record: Record, known: dict[str, str]) -> None:
    assert record.measured is not None
    name, digest = record.trial.recipe.model.name, record.measured.model_sha256
    if known.setdefault(name, digest) != digest:
        raise HarnessError(
            "the weights of a started sweep stay the same",
            got=f"other weights under the name '{name}'",
            allowed="the checkpoint the finished trials began with",
            fix="restore it, or name another folder with --results",
        )
