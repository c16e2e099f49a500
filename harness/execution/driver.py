"""A sweep: which trials are missing, the queue, the retries, the records; and how it is stopped and gone on with.

At the end the plan is compared with the records: no count of Ray's or of this module's is trusted.
"""

from __future__ import annotations

import json
import math
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from harness.common import tested_versions
from harness.common.errors import HarnessError, describe_os_error
from harness.common.files import write_json
from harness.common.text import count_noun, last_line, show
from harness.config.recipe import Recipe
from harness.config.trials import Sweep, Trial, expand, where
from harness.execution import duration, gate, lanes_memory, machine, step_compilation
from harness.execution.in_process import InProcess
from harness.execution.interrupts import Stop, TimeUp
from harness.execution.pace import TimeLeft
from harness.execution.packing import Job, after_failure, fitting, pack
from harness.execution.pool import Done, Pool, Running
from harness.execution.preflight import distinct
from harness.execution.ray_workers import RayPool
from harness.execution.train_pack import make_record, worker_setup
from harness.models import keep_weights, token_hash
from harness.models.keep_weights import Keeping, Shelf
from harness.models.saved import KeptAs, UnkeptError, Which
from harness.records import heartbeat
from harness.records.record import Curves, Record
from harness.records.store import HEARTBEAT, Store
from harness.training.checkpoints import Checkpoints

# How often `running.json` is written, which `harness status` reads.
_HEARTBEAT_SECONDS = 5.0


# Packs in training are put off so much before the time limit, or a twentieth of it; and may take so much longer.
_PUT_OFF_SECONDS, _PUT_OFF_SHARE = 20.0, 0.05


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
    estimating: bool = False  # the time left is not known yet, and will be
    messages: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class SweepOutcome:
    """What a sweep ended with: counts over the plan, from the records."""

    planned: int
    finished: int
    crashed: int
    missing: int
    failed: int
    trained_now: int
    left: int  # of the trials that were asked for: crashed or missing


@dataclass(frozen=True)
class Options:
    """How to run; `threads` and `compiled` change the last bits of a result, the rest nothing; records keep both."""

    in_process: bool = False
    address: str | None = None
    workers: int | None = None
    threads: int = 1
    pack: int | None = None
    retry_crashed: bool = False
    notice: float = 20.0  # seconds that packs have to come back in after SIGTERM
    hang_minutes: float = 30.0  # without a step, and a worker is killed; not in process
    # Between two of a pack; None: those that lie there are used, and one is written where the time limit ends a pack.
    checkpoint_minutes: float | None = None
    only: tuple[str, ...] = ()  # `key=value` texts, as `trials.where` takes them
    max_trials: int | None = None
    time_limit: float | None = None  # seconds from the call of `run`
    workers_per_gpu: int = 1
    tune: bool = False  # of a search: Ray Tune hands out the packs and may stop them
    make_pool: Callable[[Sweep, Options, Checkpoints | None, Keeping | None], Pool] | None = None  # not Ray's own
    keep: Which = "none"  # of which finished trials the weights are kept
    compiled: bool | None = None  # whether steps are compiled; None: as the sweep was begun


class RecipeSource(Protocol):
    """Where a sweep's cells come from while it runs: a search."""

    @property
    def left(self) -> int:
        """Recipes that may still be asked for."""

    def grown(self) -> Sweep | None:
        """The sweep with a recipe more to train, whenever a worker has nothing else to do; None at the end."""

    @property
    def notes(self) -> Sequence[str]:
        """What the person is told before the first pack is trained."""

    @property
    def stopped(self) -> Collection[str]:
        """Trials that were given up in mid-training, and are not to be trained."""

    def hopeless(self, running: Running) -> bool:
        """Whether a pack is to be given up, by what it is heard to do."""

    def stop(self, running: Running) -> str:
        """Take note of a pack that was given up, as it was last heard of; what the person is told."""


def run(
    sweep: Sweep, store: Store, options: Options, show: Callable[[Progress], None], source: RecipeSource | None = None
) -> SweepOutcome:
    """Train what is missing and record it; `show` is called as things move.

    Raises HarnessError, before any training, for data or models that can't be used, for an edit that would orphan
    trained trials and for a folder that another sweep holds; and where a record can't be written. Trials that crash
    are recorded and the sweep goes on. Ctrl-C raises KeyboardInterrupt after the packs that are training, a second one
    at once; SIGTERM raises Terminated after those that come back within the notice. At the time limit the state of what
    trains is kept for a later run, and no pack is started before that would go beyond it at the pace of the finished
    ones of its shape.
    With a `source` the plan grows by the cells that it gives, and `sweep` stands for all of them before the first.
    """
    began = time.monotonic()
    matching = _matching(sweep, options.only)
    with store.locked():
        if source is not None:
            gate.check_inputs(sweep, {}, {0})
            sweep = source.grown() or store.load_plan() or sweep
            stopped = source.stopped
            matching = tuple(trial for trial in expand(sweep) if trial.id not in stopped)
        records = store.tidy(sweep)  # nobody else writes while the folder is held
        options = replace(options, compiled=step_compilation.chosen(records.values(), options.compiled))
        _refuse_unlocked(store)
        for path in (store.folder / HEARTBEAT, *store.folder.glob(".*.tmp")):  # of a driver that was killed
            path.unlink(missing_ok=True)
        gate.refuse_orphans(sweep, store, records)
        gate.check_inputs(sweep, records, {trial.cell for trial in matching})
        wanted = [trial for trial in matching if _wanted(records.get(trial.id), options)]
        chosen = _first(sweep, wanted, options.max_trials)
        asked = {trial.id for trial in matching} - {trial.id for trial in wanted} | {trial.id for trial in chosen}
        minutes = math.inf if options.checkpoint_minutes is None else options.checkpoint_minutes
        checkpoints = Checkpoints(store.folder.resolve() / "checkpoints", minutes)
        unfinished = checkpoints.unfinished([one for one in expand(sweep) if _wanted(records.get(one.id), options)])
        keep_weights.clear(store)
        trained = 0
        with _shelf(sweep, store, records, options.keep) as shelf:
            if chosen:
                training = _Training(
                    sweep, store, records, chosen, options, began, checkpoints, unfinished, shelf, show, source
                )
                training.run()
                trained, sweep = training.trained, training.sweep
                asked |= {trial.id for trial in training.missing}
                asked -= set(source.stopped if source else ())
            else:
                store.save_plan(sweep)
        checkpoints.close()
    return ended(sweep, store, trained, asked)


def ended(sweep: Sweep, store: Store, trained_now: int = 0, asked: Collection[str] | None = None) -> SweepOutcome:
    """Count the plan's trials by what their records say; all of them were asked for where no ids are given."""
    return _counted(store.each(expand(sweep)), trained_now, asked)


def count(trials: Sequence[Trial], records: Mapping[str, Record]) -> SweepOutcome:
    """Count some of the plan's trials, those of a cell say, by what their records (`Store.records`) say."""
    return _counted(((trial, records.get(trial.id)) for trial in trials), 0, None)


def _counted(
    found: Iterable[tuple[Trial, Record | None]], trained_now: int, asked: Collection[str] | None
) -> SweepOutcome:
    states: Counter[str] = Counter()
    failed = left = 0
    for trial, record in found:
        states[record.status if record else "missing"] += 1
        failed += bool(record and record.measured and record.measured.outcome == "failed")
        left += (record is None or record.status != "finished") and (asked is None or trial.id in asked)
    counts = (states["finished"], states["crashed"], states["missing"])
    return SweepOutcome(states.total(), *counts, failed, trained_now, left)


def _matching(sweep: Sweep, only: Sequence[str]) -> tuple[Trial, ...]:
    matching = where(sweep, only, option="--only")
    if not matching:
        axes = [
            f"{name} {', '.join(dict.fromkeys(show(dict(cell.axes)[name]) for cell in sweep.cells))}"
            for name in sweep.axes
        ]
        seeds = [seeds.seed for seeds in sweep.seeds]
        raise HarnessError(
            f"--only {' '.join(only)} matches no trial of the plan",
            allowed="; ".join([*axes, f"seed {min(seeds)} to {max(seeds)}"]),
            fix="`harness plan` shows the cells",
        )
    return matching


def _wanted(record: Record | None, options: Options) -> bool:
    return record is None or (record.status == "crashed" and options.retry_crashed)


def _first(sweep: Sweep, wanted: list[Trial], most: int | None) -> list[Trial]:
    """At most so many, in the plan's order: seed by seed over the cells, so that a part of a sweep has all cells."""
    place = {seeds: number for number, seeds in enumerate(sweep.seeds)}
    first = sorted(wanted, key=lambda trial: (place[trial.seeds], trial.cell))[:most]
    return sorted(first, key=lambda trial: (trial.cell, place[trial.seeds]))


def _refuse_unlocked(store: Store) -> None:
    """Refuse a folder in which a sweep of another machine lives; not every network's disk shares its locks.

    Raises HarnessError where its sign of life changes while this waits; the clocks of the two need not agree.
    """
    path = store.folder / HEARTBEAT
    try:
        first = path.read_bytes()
        host = json.loads(first)["host"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return
    until = time.monotonic() + 2.5 * _HEARTBEAT_SECONDS
    while host != socket.gethostname() and time.monotonic() < until:
        time.sleep(0.1)
        try:
            if path.read_bytes() == first:
                continue
        except FileNotFoundError:  # it ended
            return
        raise HarnessError(
            f"{store.folder} is in use by a sweep on {host}",
            fix="Wait for it, stop it, or name another --results folder",
        )


@contextmanager
def keeping_one(sweep: Sweep, store: Store) -> Iterator[Shelf]:
    """Hold the folder, to keep the weights of a trial that is trained again; raises HarnessError as `run` does."""
    with store.locked(), _weights_written(), _shelf(sweep, store, {}, "rerun") as shelf:
        assert shelf is not None
        yield shelf


@contextmanager
def _shelf(sweep: Sweep, store: Store, records: Mapping[str, Record], keep: Which | KeptAs) -> Iterator[Shelf | None]:
    if keep == "none":
        yield None
        return
    with _written(store.folder / "models"):
        shelf = Shelf(store, sweep, records, keep)
    try:
        yield shelf
    finally:
        shelf.close()


@contextmanager
def _pool(
    sweep: Sweep,
    options: Options,
    most: int,
    checkpoints: Checkpoints | None,
    kept: Keeping | None,
    tick: Callable[[], None],
) -> Iterator[Pool]:
    if options.in_process:
        device = "cuda" if machine.detect_hardware().gpus else "cpu"
        setup = worker_setup(sweep, device, options.threads, checkpoints, kept, bool(options.compiled))
        yield InProcess(sweep, setup, tick)
        return
    pool: Pool
    if options.make_pool is not None:
        pool = options.make_pool(sweep, options, checkpoints, kept)
    else:
        pool = RayPool(
            sweep, options.address, options.workers, options.threads, most, options.hang_minutes, checkpoints,
            options.workers_per_gpu, kept, bool(options.compiled),
        )  # fmt: skip
    try:
        yield pool
    finally:
        pool.close()


class _Training:
    """A sweep in training: the queue, the workers' packs, and what becomes of them."""

    def __init__(
        self,
        sweep: Sweep,
        store: Store,
        records: Mapping[str, Record],
        missing: Sequence[Trial],
        options: Options,
        began: float,
        checkpoints: Checkpoints,
        unfinished: Sequence[tuple[Trial, ...]],
        shelf: Shelf | None,
        show: Callable[[Progress], None],
        source: RecipeSource | None = None,
    ) -> None:
        self.source, self.shelf = source, shelf
        before = count(expand(sweep), records)
        self.sweep, self.store, self.missing, self.options, self.show = sweep, store, missing, options, show
        self.retried = {trial.id for trial in missing if trial.id in records}
        self.progress = Progress(before.planned, before.finished, before.crashed - len(self.retried), before.failed)
        self.progress.estimating = source is None
        self.evaluated = 0  # evaluations heard of the packs in training, when they were last looked at
        self.time_left = TimeLeft(duration.guessed_seconds, duration.example_counts)
        self.ticked, self.beaten = 0.0, -_HEARTBEAT_SECONDS
        self.started_utc = _now()
        self.checkpoints = checkpoints
        chosen = {trial.id for trial in missing}
        self.unfinished = [trials for trials in unfinished if chosen.issuperset(trial.id for trial in trials)]
        self.inputs = _input_hashes(records)
        self.tokens = token_hash.known(records.values())
        self.queue: list[Job] = []
        self.room = 0  # bytes a pack may fill, when the queue was made
        self.fits: dict[object, int] = {}  # shape -> lanes that the memory holds, where it once didn't
        self.stop = Stop(options.notice)
        self.said: set[bool] = set()
        self.versions = {
            tested_versions.warning(tested_versions.installed())
        }  # what was said of them, the driver's by its command
        self.fallbacks: set[str] = set()  # why steps were not compiled, as the person was told
        self.trained = self.stopped = 0
        self.until = None if options.time_limit is None else began + options.time_limit
        self.put_off: list[Job] | None = None  # that the time limit cut; None before
        self.begun: dict[Job, float] = {}
        self.given_up: dict[Job, Running] = {}  # as they were when they were told to stop
        self.paces: dict[object, tuple[float, float]] = {}  # shape -> (seconds, work) of the packs that came back

    def run(self) -> None:
        """Train all; raises KeyboardInterrupt or Terminated where a signal ends it early."""
        # Enough workers for one trial each; the packs are then cut to the workers there are.
        keeps = self.options.checkpoint_minutes is not None or self.until is not None
        checkpoints = self.checkpoints if keeps or self.unfinished else None
        most = self._most()
        kept = None if self.shelf is None else self.shelf.keeping
        pool = _pool(self.sweep, self.options, most, checkpoints, kept, self.tick)
        with pool as self.pool, self.stop.listening():
            for trial in distinct(self.missing):
                looked_at = self.pool.preflight(trial)
                looked_at.check()
                self.progress.messages += [note for note in looked_at.notes if note not in self.progress.messages]
            with _written(self.store.folder / "plan.json"):
                self.store.save_plan(self.sweep)  # before any training, and not for workers that can't be had
                if keeps:
                    self.checkpoints.folder.mkdir(exist_ok=True)
            self.progress.workers, self.room = self.pool.workers, self.pool.room
            begun = {trial.id for trials in self.unfinished for trial in trials}
            fresh = [trial for trial in self.missing if trial.id not in begun]
            self.queue = [Job(trials) for trials in self.unfinished]
            if self.source is None:
                self.queue += pack(fresh, lambda recipe: self._size(recipe, fresh), self.pool.workers)
            else:
                self._join(fresh)
                self.progress.messages += self.source.notes
            self.show(self.progress)
            try:
                self._train()
            except TimeUp:
                pass
            finally:
                with suppress(OSError):
                    (self.store.folder / HEARTBEAT).unlink(missing_ok=True)
            self._tell_left()
            self.progress.lanes, self.progress.seconds_left = 0, 0.0
            self.show(self.progress)

    def _train(self) -> None:
        running = 0
        while running or self._next() is not None:
            self.progress.messages += self.pool.follow(0 if self.stop.asked else self._most())
            while self.pool.free and (place := self._next()) is not None:
                whole = self.queue.pop(place)
                job, *rest = fitting(whole, self._lanes(whole))
                if rest:
                    self.checkpoints.remove(whole.trials)
                self.queue[place:place] = rest
                self.begun[job] = time.monotonic()
                self.time_left.start(job, self.begun[job])
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

    def _tell_left(self) -> None:
        """Say what the time limit leaves missing, if anything, and what becomes of the packs that it cut."""
        cut = [*(self.put_off or ()), *self.begun]  # the latter did not come back in time
        left = sum(len(job.trials) for job in [*cut, *self.queue])
        if not left:
            return
        said = f"the time limit leaves {count_noun(left, 'trial')} missing"
        if cut:
            # Not kept is what a full disk could not take, or a node that does not see the folder.
            training = sum(len(job.trials) for job in cut)
            kept = sum(len(job.trials) for job in cut if self.checkpoints.kept(job.trials))
            state = "their state is" if kept == training else f"the state of {kept} is" if kept else "no state could be"
            said += f", {training} of them in training: {state} kept"
        self.progress.messages.append(f"{said}; re-run the same command to train them")

    def _most(self) -> int:
        """How many packs there may still be at most."""
        return len(self.missing) - self.trained - self.stopped + (self.source.left if self.source else 0)

    def _join(self, trials: Sequence[Trial]) -> None:
        """Put the trials of each cell into the queue as one pack, or as many as its lanes need."""
        for cell in dict.fromkeys(trial.cell for trial in trials):
            job = Job(tuple(trial for trial in trials if trial.cell == cell))
            usual = lanes_memory.pack_size(job.trials[0].recipe, self.pool.place.device, self.options.pack, self.room)
            self.queue += fitting(job, usual)

    def _ask(self) -> None:
        """Let the source's next recipe join plan and queue, where no pack waits."""
        out_of_time = self.until is not None and time.monotonic() > self.until
        grown = None if self.source is None or self.queue or out_of_time else self.source.grown()
        if grown is None:
            return
        known = len(self.sweep.cells)
        fresh = [trial for trial in expand(grown) if trial.cell >= known]
        self.sweep = grown
        with _written(self.store.folder / "plan.json"):
            self.store.save_plan(grown)
        self.missing = [*self.missing, *fresh]
        self.progress.planned += len(fresh)
        self._join(fresh)

    def _size(self, recipe: Recipe, trials: Sequence[Trial]) -> int:
        """How many lanes of a shape train together: as asked for, or as is usual, or as a measurement says."""
        device = self.pool.place.device
        usual = lanes_memory.pack_size(recipe, device, self.options.pack, self.room)
        alike = [trial for trial in trials if trial.recipe.shape == recipe.shape]
        most = min(lanes_memory.most_lanes(recipe, device, self.room), len(alike) // self.pool.workers)
        if self.options.pack is not None or most < 2:
            return usual
        epochs = sum(trial.recipe.epochs for trial in alike) / self.pool.workers
        return self.pool.lanes(alike[0], usual, most, epochs)

    def _lanes(self, job: Job) -> int:
        """How many of a pack's lanes fit, after what was found out and with the workers that joined."""
        lanes = self.fits.get(job.trials[0].recipe.shape, len(job.trials))
        if self.pool.room >= self.room:
            return lanes
        device, asked = self.pool.place.device, self.options.pack
        return min(lanes, lanes_memory.pack_size(job.trials[0].recipe, device, asked, self.pool.room))

    def _next(self) -> int | None:
        """Where in the queue the next pack stands: the first that is expected to end in time; None where none is."""
        if self.stop.asked or self.put_off is not None:
            return None
        self._ask()
        for place, job in enumerate(self.queue):
            seconds, work = self.paces.get(job.trials[0].recipe.shape, (0.0, 1.0))
            if self.until is None or time.monotonic() + seconds / work * job.work < self.until:
                return place
        return None

    def _take(self, done: Done) -> None:
        """Record a pack that came back, or put into the queue what is to be tried again."""
        job, lanes, shape = done.job, len(done.job.trials), done.job.trials[0].recipe.shape
        seconds = time.monotonic() - self.begun.pop(job)
        self.time_left.end(job, time.monotonic(), trained=not done.left and done.error is None)
        if done.put_off:
            assert self.put_off is not None
            self.put_off.append(job)
            return
        if done.left:
            assert self.source is not None
            self.stopped += lanes
            self.checkpoints.remove(job.trials)
            self.progress.messages.append(self.source.stop(done.stopped or self.given_up[job]))
            return
        if done.error is None:
            before = self.paces.get(shape, (0.0, 0.0))
            self.paces[shape] = (before[0] + seconds, before[1] + job.work)
            for record, _ in done.results:
                _same_inputs(record, self.inputs)
                token_hash.check_record(record, self.tokens)
            if self.shelf is not None:
                with _weights_written():
                    self.shelf.publish([record for record, _ in done.results])
            for record, curves in done.results:
                _save(self.store, record, curves, self.retried)
                self.trained += 1
                self.progress.finished += 1
                self.progress.failed += bool(record.measured and record.measured.outcome == "failed")
                self._tell_versions(record)
                self._tell_fallback(record)
            if self.shelf is not None:
                self.shelf.settle()
            self.checkpoints.remove(job.trials)
            return
        if done.unkept is not None:
            raise _no_room(done.unkept)
        if done.refused is not None:
            raise done.refused
        if done.died and self.stop.asked:
            return  # it may be the same signal that ended the worker: its trials are missing, not crashed
        if done.out_of_memory:
            self.fits[shape] = min(self.fits.get(shape, lanes), max(1, lanes // 2))
        again = after_failure(job, done.died)
        self.queue[:0] = again
        if [one.trials for one in again] != [job.trials]:
            self.checkpoints.remove(job.trials)
        if again and done.died:
            self.progress.messages.append(f"{count_noun(lanes, 'trial')} to train again: {done.error.splitlines()[0]}")
        if not again:
            trial = job.trials[0]
            crashed = make_record(self.sweep.name, self.sweep.profile, trial, _now(), None, None, done.error)
            _save(self.store, crashed, None, self.retried)
            self.trained += 1
            self.progress.crashed += 1
            self.progress.messages.append(f"{trial.id} crashed: {last_line(done.error)}")

    def _tell_fallback(self, record: Record) -> None:
        """Say once of each reason why trials that were to have compiled steps have none."""
        reason = step_compilation.fallback(record)
        if reason is not None and reason not in self.fallbacks:
            self.fallbacks.add(reason)
            self.progress.messages.append(f"{record.id} {reason}")

    def _tell_versions(self, record: Record) -> None:
        """Say once of each worker's versions where they are not tested; a cluster's may be others than the driver's."""
        assert record.environment is not None
        said = tested_versions.warning(record.environment.model_dump(include=set(tested_versions.TESTED)))
        if said is not None and said not in self.versions:
            self.versions.add(said)
            self.progress.messages.append(f"A worker: {said}")

    def tick(self) -> None:
        """Say how far it is, at most every second or after an evaluation; in process called after every step."""
        self.stop.check()
        if self.until is not None:
            self._mind_the_limit(self.until)
        terminated, now = self.stop.deadline is not None, False
        if self.stop.asked and terminated not in self.said:
            self.said.add(terminated)
            self.progress.messages.append(self.stop.words(self.progress.lanes))
            now = True
        running = self.pool.running()
        evaluated = sum(len(one.heard.evaluations) for one in running)
        # A pruner looks at every evaluation: in process, when it looks does not depend on the clock.
        if not now and evaluated == self.evaluated and time.monotonic() - self.ticked < 1:
            return
        self.evaluated, self.progress.workers = evaluated, self.pool.workers
        for one in running:
            self._give_up(one)
        self.ticked = time.monotonic()
        for one in running:
            self.time_left.hear(one.job, one.share, self.ticked)
        if self.source is None:  # what a search will ask for isn't known
            packs = [(one.job, one.share) for one in running]
            self.progress.seconds_left = self.time_left.seconds(packs, self.queue, self.pool.workers)
            self.progress.estimating = self.progress.seconds_left is None
        if time.monotonic() - self.beaten >= _HEARTBEAT_SECONDS:
            self.beaten = time.monotonic()
            self._beat(running)
        self.show(self.progress)

    def _mind_the_limit(self, until: float) -> None:
        """Shortly before the time limit have all packs put off; raises _TimeUp where some take too long for that."""
        now, limit = time.monotonic(), self.options.time_limit or 0.0
        if now > until + _PUT_OFF_SECONDS:
            raise TimeUp
        if now > until - min(_PUT_OFF_SECONDS, _PUT_OFF_SHARE * limit):
            self.put_off = self.put_off or []
            for one in self.pool.running():
                self.pool.leave(one.job, put_off=True)

    def _give_up(self, one: Running) -> None:
        """Have a pack left where the source of the recipes takes it for hopeless."""
        if self.source is not None and one.job not in self.given_up and self.source.hopeless(one):
            self.given_up[one.job] = one
        if one.job in self.given_up:
            self.pool.leave(one.job)

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
                    "signals": [] if one.heard.signals is None else heartbeat.written(one.heard.signals),
                }
                for one in running
            ],
        }
        with suppress(OSError):
            write_json(self.store.folder / HEARTBEAT, state)


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
        raise _no_room(f"{error.filename or path}: {describe_os_error(error)}") from error


@contextmanager
def _weights_written() -> Iterator[None]:
    try:
        yield
    except UnkeptError as error:
        raise _no_room(str(error)) from error


def _no_room(problem: str) -> HarnessError:
    return HarnessError(
        f"cannot write the results: {problem}",
        fix="Make room and re-run the same command to resume: what was trained before is kept",
    )


def _save(store: Store, record: Record, curves: Curves | None, retried: set[str]) -> None:
    with _written(store.path(record.id)):
        if record.id in retried:
            store.set_aside(record.id)
        record = record.model_copy(update={"attempts": store.attempts(record.id) + 1})
        store.save(record, curves)


def _inputs_of(record: Record) -> dict[tuple[str, str], str]:
    """(kind, name) -> hash of what a finished trial was made of."""
    recipe, measured = record.trial.recipe, record.measured
    if measured is None:
        return {}
    return {("examples", recipe.task.name): measured.data_sha256, ("weights", recipe.model.name): measured.model_sha256}


def _input_hashes(records: Mapping[str, Record]) -> dict[tuple[str, str], str]:
    found: dict[tuple[str, str], str] = {}
    for record in records.values():
        found = _inputs_of(record) | found  # the first trial's, as its data are those that a resumed sweep must have
    return found


def _same_inputs(record: Record, known: dict[tuple[str, str], str]) -> None:
    """Refuse what a worker on another machine has under the same name, when its first pack comes back."""
    for (kind, name), digest in _inputs_of(record).items():
        if known.setdefault((kind, name), digest) != digest:
            raise HarnessError(
                f"the {kind} '{name}' are not those that the finished trials began with",
                fix="Restore them, on every machine, or name another folder with --results",
            )
