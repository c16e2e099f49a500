"""Which trials are missing, which train together and where; one path trains a pack, for sweeps and reruns alike.

Ray starts long-lived workers and nothing more: the queue, the retries and the records are here, and at the end the
plan is compared with the records.
"""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import harness
from harness import hub, machine, tasks
from harness.records import Curves, Environment, Measured, Record, Store
from harness.sweep import HarnessError, Recipe, Sweep, Trial, expand, orphaning_change

Result = tuple[Record, Curves | None]
# A pack whose worker dies is tried once more as it is, then in halves, then its last lane is recorded as crashed.
DEATHS_BEFORE_SPLIT = 2
# What a worker's process takes beside its lanes (torch, transformers, Ray): about a gigabyte was measured.
_WORKER_BYTES = 3 * 2**29


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

    A pack is no larger than what leaves every worker one.
    """
    groups: dict[object, list[Trial]] = defaultdict(list)
    ranks: dict[int, int] = defaultdict(int)  # cell -> how many of its trials came before
    rank = {}
    for trial in trials:
        rank[trial.id] = ranks[trial.cell]
        ranks[trial.cell] += 1
        groups[trial.recipe.shape].append(trial)
    jobs = []
    for group in groups.values():
        group.sort(key=lambda trial: (rank[trial.id], trial.cell))
        lanes = max(1, min(size(group[0].recipe), -(-len(group) // workers)))
        for start in range(0, len(group), lanes):
            jobs.append((start / len(group), Job(tuple(group[start : start + lanes]))))
    # Shapes take turns, the longer first.
    return [job for _, job in sorted(jobs, key=lambda item: (item[0], -item[1].lane_epochs))]


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


class Pool(Protocol):
    """Workers that train packs."""

    place: Place
    workers: int

    def start(self, job: Job) -> None:
        """Give a pack to an idle worker."""

    def wait(self, seconds: float) -> list[Done]:
        """The packs that came back within that time."""

    def lane_epochs_done(self) -> float:
        """How far the running packs are, in epochs over all their lanes."""

    def close(self) -> None:
        """Stop the workers at once."""


class InProcess:
    """One worker, this process."""

    workers = 1

    def __init__(self, sweep: Sweep, place: Place, tick: Callable[[], None]) -> None:
        """Train packs of `sweep` here; `tick` is called after every step."""
        self.sweep, self.place, self.tick = sweep, place, tick
        self.job: Job | None = None
        self.share = 0.0

    def start(self, job: Job) -> None:
        """Keep the pack for `wait`, which trains it."""
        self.job = job

    def wait(self, seconds: float) -> list[Done]:
        """Train the pack to its end, whatever the time."""
        assert self.job is not None

        def progress(step: int, steps: int) -> None:
            self.share = step / steps
            self.tick()

        job, self.share = self.job, 0.0
        try:
            results = train_pack(self.sweep.name, self.sweep.profile, job.trials, self.place, progress)
            done = Done(job, results)
        except Exception:  # whatever a trial raises is kept in its record
            done = Done(job, [], error=traceback.format_exc())
        self.job = None
        return [done]

    def lane_epochs_done(self) -> float:
        """How far the running pack is."""
        return self.share * self.job.lane_epochs if self.job else 0.0

    def close(self) -> None:
        """Nothing to stop."""


class _Worker:
    """What runs in a Ray actor: trains one pack at a time and answers how far it is."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.share = 0.0

    def ready(self) -> bool:
        return True

    def progress(self) -> float:
        return self.share

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


class RayPool:
    """Long-lived Ray actors, one a GPU or one a core; each trains one pack at a time."""

    def __init__(self, sweep: Sweep, address: str | None, workers: int | None, threads: int, most: int) -> None:
        """Start (or join, by `address`) Ray and as many workers as there are devices, at most `most`.

        Raises HarnessError when the cluster can't be reached or has nothing to train on.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        self.ray, self.sweep = ray, sweep
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
        self.running: dict[Any, tuple[Any, Job]] = {}  # future -> (actor, job)
        self.shares: dict[Any, float] = {}

    def start(self, job: Job) -> None:
        """Give a pack to an idle worker."""
        worker = self.idle.pop()
        future = worker.train.remote(self.sweep.name, self.sweep.profile, job.trials)
        self.running[future] = (worker, job)

    def wait(self, seconds: float) -> list[Done]:
        """The packs that came back within that time."""
        ready, _ = self.ray.wait(list(self.running), num_returns=1, timeout=seconds)
        found = []
        for future in ready:
            worker, job = self.running.pop(future)
            try:
                found.append(Done(job, self.ray.get(future)))
            except self.ray.exceptions.RayTaskError as error:
                found.append(Done(job, [], error=str(error.cause.__class__.__name__) + ": " + str(error)))
            except self.ray.exceptions.RayError as error:  # the worker is gone
                self.ray.kill(worker)
                worker = self.actor.remote(self.place)
                found.append(Done(job, [], error=f"the worker died: {error}", died=True))
            self.idle.append(worker)
        return found

    def lane_epochs_done(self) -> float:
        """How far the running packs are; a worker that doesn't answer at once counts as it last did."""
        asked = {worker.progress.remote(): (worker, job) for worker, job in self.running.values()}
        ready, _ = self.ray.wait(list(asked), num_returns=len(asked), timeout=0.5) if asked else ([], [])
        for answer in ready:
            try:
                self.shares[asked[answer][0]] = self.ray.get(answer)
            except self.ray.exceptions.RayError:
                self.shares[asked[answer][0]] = 0.0
        return sum(self.shares.get(worker, 0.0) * job.lane_epochs for worker, job in self.running.values())

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


def run(sweep: Sweep, store: Store, options: Options, show: Callable[[Progress], None]) -> Ended:
    """Train what is missing and record it; `show` is called as things move.

    Raises HarnessError, before any training, for data or models that can't be used, for an edit that would orphan
    trained trials and for a folder that another sweep holds. Trials that crash are recorded and the sweep goes on.
    """
    with store.locked():
        store.tidy(sweep)
        _refuse_orphans(sweep, store)
        _check_inputs(sweep, store)
        missing = [trial for trial in expand(sweep) if _wanted(store, trial, options)]
        if missing:
            _train_all(sweep, store, missing, options, show)
        else:
            store.save_plan(sweep)
    return ended(sweep, store, len(missing))


def ended(sweep: Sweep, store: Store, trained_now: int = 0) -> Ended:
    """Count the plan's trials by what their records say."""
    return count(expand(sweep), store, trained_now)


def count(trials: Sequence[Trial], store: Store, trained_now: int = 0) -> Ended:
    """Count some of the plan's trials, those of a cell say, by what their records say."""
    records = [store.load(trial.id) for trial in trials]
    states = [record.status if record else "missing" for record in records]
    failed = sum(bool(record and record.measured and record.measured.outcome == "failed") for record in records)
    counts = (states.count("finished"), states.count("crashed"), states.count("missing"))
    return Ended(len(states), *counts, failed, trained_now)


def _wanted(store: Store, trial: Trial, options: Options) -> bool:
    record = store.load(trial.id)
    return record is None or (record.status == "crashed" and options.retry_crashed)


def _refuse_orphans(sweep: Sweep, store: Store) -> None:
    old = store.load_plan()
    if old is None:
        return
    trained = [trial for trial in expand(old) if store.load(trial.id) is not None]
    change = orphaning_change(old, sweep, trained)
    if change is not None:
        raise HarnessError(
            "an edited sweep keeps its trained trials",
            got=f"a sweep without {change}, which trained trials in {store.folder} have",
            allowed="adding values and seeds",
            fix="put it back, or name another folder with --results",
        )


def _check_inputs(sweep: Sweep, store: Store) -> None:
    """Load the data and look for the models before anything is trained; refuse to mix data under one name."""
    known: dict[str, tuple[str, str]] = {}  # task -> (hash, a trial that has it)
    for trial in expand(sweep):
        record = store.load(trial.id)
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
    pool = RayPool(sweep, options.address, options.workers, options.threads, most)
    try:
        yield pool
    finally:
        pool.close()


def _train_all(
    sweep: Sweep, store: Store, missing: Sequence[Trial], options: Options, show: Callable[[Progress], None]
) -> None:
    before = ended(sweep, store)
    retried = {trial.id for trial in missing if store.load(trial.id) is not None}
    progress = Progress(before.planned, before.finished, before.crashed - len(retried), before.failed)
    total, behind = sum(trial.recipe.epochs for trial in missing), 0.0
    started, ticked = time.monotonic(), 0.0
    models: dict[str, str] = _model_hashes(sweep, store)

    def tick() -> None:
        nonlocal ticked
        if time.monotonic() - ticked < 1:
            return
        now = behind + pool.lane_epochs_done()
        if now > 0:
            progress.seconds_left = (time.monotonic() - started) / now * (total - now)
        ticked = time.monotonic()
        show(progress)

    # Enough workers for one trial each; the packs are then cut to the workers there are.
    with _pool(sweep, options, len(missing), tick) as pool:
        store.save_plan(sweep)  # before any training, and not for workers that can't be had
        progress.workers = pool.workers
        queue = pack(missing, lambda recipe: machine.pack_size(recipe, pool.place.device, options.pack), pool.workers)
        show(progress)
        running = 0
        while queue or running:
            while queue and running < pool.workers:
                pool.start(queue[0])
                progress.lanes += len(queue.pop(0).trials)
                running += 1
            for done in pool.wait(1.0):
                running -= 1
                progress.lanes -= len(done.job.trials)
                if done.error is None:
                    behind += done.job.lane_epochs
                    for record, curves in done.results:
                        _same_model(record, models)
                        _save(store, record, curves, retried)
                        progress.finished += 1
                        progress.failed += bool(record.measured and record.measured.outcome == "failed")
                    continue
                again = after_failure(done.job, done.died)
                queue[:0] = again
                if not again:
                    behind += done.job.lane_epochs
                    trial = done.job.trials[0]
                    now = datetime.now(UTC).isoformat(timespec="seconds")
                    record = _record(sweep.name, sweep.profile, trial, now, None, None, done.error)
                    _save(store, record, None, retried)
                    progress.crashed += 1
                    progress.messages.append(f"{trial.id} crashed: {last_line(done.error)}")
            tick()
        progress.seconds_left = 0.0
        show(progress)


def last_line(error: str) -> str:
    """The line of a traceback that says what happened."""
    lines = [line for line in error.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no text"


def _save(store: Store, record: Record, curves: Curves | None, retried: set[str]) -> None:
    if record.id in retried:
        store.set_aside(record.id)
    record = record.model_copy(update={"attempts": store.attempts(record.id) + 1})
    store.save(record, curves)


def _model_hashes(sweep: Sweep, store: Store) -> dict[str, str]:
    found = {}
    for trial in expand(sweep):
        record = store.load(trial.id)
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
