"""Workers over Ray: long-lived actors that follow the devices of this machine or of a cluster.

Ray starts the workers and nothing more: what is tried again, and what is recorded, is `driver`'s.
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from harness.common.errors import HarnessError
from harness.common.text import count_noun
from harness.config.trials import Sweep, Trial
from harness.execution.packing import Job
from harness.execution.pool import Done, LeftError, PackProgress, PutOffError, Running
from harness.execution.preflight import Preflight
from harness.execution.ray_cluster import (
    Shipping,
    answers,
    connect,
    disconnect,
    places,
    refuse_before_start,
    refuse_too_many,
    target_worker_count,
)
from harness.execution.ray_worker import RayWorker, WorkerInfo
from harness.execution.script_worker import HANG_GRACE, Needs, ScriptWorker
from harness.execution.start_up import StartUp
from harness.execution.train_pack import Result, worker_setup
from harness.models.keep_weights import Keeping
from harness.models.saved import Files, UnkeptError
from harness.scripts.runner import TEMPORARY, RunFolders, ScriptError
from harness.training.checkpoints import Checkpoints

# The longest time between two looks at a worker that counts as time without a step: a driver that was itself stopped
# (Ctrl-Z, a frozen container) must not take its workers for hanging.
_LONGEST_LOOK = 10.0
# Seconds: how often the cluster's devices are counted; until a worker without a free device is given up, and one with;
# what the first worker waits for the others; what a dead worker's node may take to leave after it; until the person is
# told that no worker is left.
_CENSUS_SECONDS, _PLACED_SECONDS, _STARTED_SECONDS = 3.0, 25.0, 120.0
_OTHERS_SECONDS, _LEAVING_SECONDS, _ALONE_SECONDS = 10.0, 5.0, 10.0
_MEASURED_SECONDS = 600.0  # the pack size, at most
# Under one pack; then it counts as the pack's fault.
_MOST_DEPARTURES = 20


def received(job: Job, brought: tuple[list[Result], Mapping[str, Files]], keeping: Keeping | None) -> Done:
    """A pack that a worker brought to its end, with the weights that it sent written."""
    results, sent = brought
    try:
        if keeping is not None:
            keeping.receive(sent)
    except UnkeptError as error:
        return Done(job, [], error=f"UnkeptError: {error}")
    return Done(job, results)


@dataclass(frozen=True)
class _Seated:
    """A Ray worker that is ready."""

    actor: Any
    seat: WorkerInfo


@dataclass
class _Flight:
    """A pack that a Ray worker trains: how far it is as last heard, and for how long no other share was heard."""

    worker: _Seated
    job: Job
    started: float
    heard: PackProgress = field(default_factory=PackProgress)
    still: float = 0.0  # seconds


@dataclass(frozen=True)
class _LostWorker:
    """A pack whose worker is gone, until it is known whether its node went with it."""

    flight: _Flight
    why: str
    since: float


class RayPool:
    """Long-lived Ray actors, one a core or `workers_per_gpu` a GPU; each trains one pack at a time.

    They follow the cluster: a node that joins gets workers, and the packs of one that leaves are trained by others.
    """

    def __init__(
        self,
        sweep: Sweep,
        address: str | None,
        workers: int | None,
        threads: int,
        most: int,
        hang_minutes: float,
        checkpoints: Checkpoints | None,
        workers_per_gpu: int = 1,
        keeping: Keeping | None = None,
        compiled: bool = False,
        runs: RunFolders = TEMPORARY,
        start: StartUp | None = None,
    ) -> None:
        """Start (or join, by `address`) Ray and as many workers as there are devices, at most `most`.

        A worker that does no step for `hang_minutes` is killed, loading included; a script's run that writes nothing
        for so long is ended. Raises HarnessError when the cluster can't be reached, has nothing to train on, or has no
        room for a worker.
        """
        recipe = sweep.cells[0].script
        self.needs = None if recipe is None else Needs.of(recipe.script.resources)
        self.start_up = start or StartUp()
        if address is None and self.needs is None:
            refuse_before_start(workers, threads)
        ray = connect(address, runs if recipe is not None else None, self.start_up)
        self.ray, self.sweep, self.hang_minutes = ray, sweep, hang_minutes
        self.address, self.asked, self.threads, self.workers_per_gpu = address, workers, threads, workers_per_gpu
        self.node = ray.get_runtime_context().get_node_id()
        # One kind of device a sweep: that of the cluster at its start.
        gpu = self._has("GPU") >= 1 if self.needs is None else self.needs.gpus > 0
        setup = worker_setup(sweep, "cuda" if gpu else "cpu", threads, checkpoints, keeping, compiled)
        self.setup = replace(setup, runs=runs, silence=60 * hang_minutes)
        self.kind = "GPU" if gpu else "CPU"
        needs = self.needs or Needs(0 if gpu else threads, 1 / workers_per_gpu if gpu else 0, 0)
        self.need: float = needs.gpus if gpu else needs.cpus
        # One thread trains, the other answers `progress`. A worker that dies is replaced here, with its pack.
        self.actor = ray.remote(RayWorker if self.needs is None else ScriptWorker).options(
            num_cpus=needs.cpus,
            num_gpus=needs.gpus,
            max_concurrency=2,
            max_restarts=0,
            max_task_retries=0,
            **({"memory": needs.memory} if needs.memory else {}),
        )
        self.coming: dict[Any, Any] = {}  # future of ready() -> actor
        self.idle: list[_Seated] = []
        self.flights: dict[Any, _Flight] = {}  # future -> what trains
        self.fallen: list[_LostWorker] = []
        self.to_requeue: list[Job] = []  # their node left: the next idle worker takes them
        self.departures: Counter[tuple[Trial, ...]] = Counter()  # how many nodes left under a pack
        self.given_up: list[Done] = []
        self.news: list[str] = []
        self.refused = ""  # why the last worker that could not start didn't
        self.shipping = Shipping(address)
        self.room = 0
        self.looked = time.monotonic()
        self.counted, self.pause = -math.inf, _CENSUS_SECONDS
        self.alone: float | None = None  # since when there is no worker
        self.told = False
        try:
            if address is None and self.needs is not None:
                self.needs.refuse_too_many(workers, self._places(self._alive()), ray.cluster_resources())
            elif address is None:  # a cluster may grow
                refuse_too_many(workers, self._places(self._alive()), self._has(self.kind), self.kind, threads)
            with self.start_up.waiting_for("the first worker to start"):
                self._open(most)
        except BaseException:
            self.close()
            raise

    # ------------------------------------------------------------------------------------------------ the cluster

    def _has(self, kind: str) -> float:
        return float(self.ray.cluster_resources().get(kind, 0))

    def _places(self, nodes: Mapping[str, Mapping[str, Any]]) -> int:
        if self.needs is not None:
            return self.needs.places(nodes.values())
        return places(nodes.values(), self.kind, self.threads, self.workers_per_gpu)

    def _alive(self) -> dict[str, Mapping[str, Any]]:
        return {node["NodeID"]: node for node in self.ray.nodes() if node["Alive"]}

    def _open(self, most: int) -> None:
        """Wait for the first worker, and a little for the others; raises HarnessError where none comes."""
        began = time.monotonic()
        # A local Ray is this sweep's alone, and says so only after a while.
        free = self._has(self.kind) if self.address is None else self.ray.available_resources().get(self.kind, 0.0)
        limit = _PLACED_SECONDS if free < self.need else _STARTED_SECONDS
        while True:
            self.start_up.check()
            self.follow(max(1, most))
            passed, expected = time.monotonic() - began, min(len(self.coming) + len(self.idle), int(free // self.need))
            if self.idle and (len(self.idle) >= expected or passed > _OTHERS_SECONDS):
                return
            late = passed > (limit if self.coming else _PLACED_SECONDS)
            if not self.idle and (late or (self.refused and not self.coming)):
                none = f"none started within {passed:.0f} s; of {self._has(self.kind):g} {self.kind} {free:g} are free"
                raise HarnessError(
                    f"the cluster has no room for a worker: {self.refused or none}",
                    fix=f"A worker needs {self.need:g} {self.kind} of one node that no other job holds: see `ray "
                    "status`, free some, add a node, or lower --threads",
                )
            if self.coming:
                self.ray.wait(list(self.coming), num_returns=1, timeout=0.5)
            else:
                time.sleep(0.5)

    def follow(self, most: int) -> list[str]:
        """Seat workers that came up and start some for devices that joined, at most `most` in all; gives the news.

        With no `most` none is started any more. Raises HarnessError where no worker was left for `hang_minutes`.
        """
        self._seat()
        now = time.monotonic()
        if most and now - self.counted >= self.pause:
            self.counted = now
            alive = self._alive()
            self.idle = [worker for worker in self.idle if worker.seat.node in alive]
            there = min(most, self._target(self._places(alive)))
            missing = there - len(self.coming) - self.workers
            for _ in range(missing):
                actor = self.actor.remote(self.setup, self.workers_per_gpu)
                self.coming[actor.ready.remote()] = actor
        while self.to_requeue and self.idle:
            self._launch(self.to_requeue.pop(0))
        if not most:
            self.given_up += [Done(job, [], error="its node left the cluster", died=True) for job in self.to_requeue]
            self.to_requeue.clear()
        self._mind_being_alone(now)
        news, self.news = self.news, []
        return news

    def _target(self, devices: int) -> int:
        """How many workers there are to be; a script's own memory is what `resources` say."""
        if self.needs is not None:
            return min(devices, self.asked or devices)
        return target_worker_count(devices, self.asked, self.kind, self.address)

    def _seat(self) -> None:
        ready, _ = (
            self.ray.wait(list(self.coming), num_returns=len(self.coming), timeout=0) if self.coming else ([], [])
        )
        for future in ready:
            actor = self.coming.pop(future)
            try:
                seat = self.ray.get(future)
            except self.ray.exceptions.RayError as error:
                self.ray.kill(actor)
                text = [line for line in str(error).splitlines() if line.strip()]
                self.refused = f"a worker that did not start: {text[-1].strip() if text else type(error).__name__}"
                self.pause = min(60.0, 2 * self.pause)
                continue
            self.refused, self.pause = "", _CENSUS_SECONDS
            self.idle.append(_Seated(actor, seat))
            self.room = min(self.room or seat.room, seat.room)

    def _mind_being_alone(self, now: float) -> None:
        if self.workers or self.alone is None:
            self.alone = None if self.workers else now
            self.told = False
            return
        if now - self.alone > _ALONE_SECONDS and not self.told:
            self.told = True
            why = f" ({self.refused})" if self.refused else ""
            self.news.append(f"no worker is left{why}: waiting up to {_minutes(self.hang_minutes)} for one")
        if now - self.alone > self.hang_minutes * 60:
            raise HarnessError(
                f"no worker is left: {self.refused or f'none for {_minutes(self.hang_minutes)}'}",
                fix=f"Add a node with {self.need:g} {self.kind} by `ray start --address=…` and re-run the same "
                "command to resume",
            )

    # -------------------------------------------------------------------------------------------------- the packs

    @property
    def workers(self) -> int:
        """Workers that are ready or train."""
        return len(self.idle) + len(self.flights)

    @property
    def free(self) -> int:
        """How many packs can be started now."""
        return len(self.idle)

    def start(self, job: Job) -> None:
        """Give a pack to an idle worker."""
        self._launch(job)

    def lanes(self, trial: Trial, usual: int, most: int, epochs: float) -> int:
        """Found out by one of the idle workers; what fails there will fail in its pack, and is said then."""
        shipped = self.shipping.of([trial])
        reference = self.idle[0].actor.lanes.remote(trial, usual, most, epochs, shipped)
        end = time.monotonic() + _MEASURED_SECONDS
        while not self.ray.wait([reference], timeout=0.5)[0]:
            if not self.flights:  # else packs train, whose state is kept first
                self.start_up.check()
            if time.monotonic() > end:
                return usual
        try:
            return int(self.ray.get(reference))
        except self.ray.exceptions.RayError:
            return usual

    def preflight(self, trial: Trial) -> Preflight:
        """Set up by one of the idle workers; a worker that dies of it will die of the pack, and that is told then."""
        reference = self.idle[0].actor.preflight.remote(trial, self.shipping.of([trial]))
        self.start_up.until(
            lambda: bool(self.ray.wait([reference], timeout=0.5)[0]),
            60 * self.hang_minutes,
            lambda: HarnessError(
                f"the model and the data did not load within {_minutes(self.hang_minutes)}",
                fix="Check their sizes, or give them longer with --hang-minutes",
            ),
        )
        try:
            preflight: Preflight = self.ray.get(reference)
        except self.ray.exceptions.RayError:
            return Preflight()
        return preflight

    def _launch(self, job: Job) -> None:
        worker = self.idle.pop()
        shipped = self.shipping.of(job.trials)
        repeat = () if self.needs is None else (job.repeat,)
        future = worker.actor.train.remote(self.sweep.name, self.sweep.profile, job.trials, shipped, *repeat)
        self.flights[future] = _Flight(worker, job, time.monotonic())

    def leave(self, job: Job, put_off: bool = False) -> None:
        """Tell the worker that trains it."""
        for flight in self.flights.values():
            if flight.job is job:
                flight.worker.actor.leave.remote(tuple(trial.id for trial in job.trials), put_off)

    def wait(self, seconds: float) -> list[Done]:
        """The packs that came back within that time, with those whose worker had to be killed."""
        done, self.given_up = self.given_up, []
        if not (watched := [*self.flights, *self.coming]):
            time.sleep(seconds)
        ready, _ = self.ray.wait(watched, num_returns=1, timeout=seconds) if watched else ([], [])
        for future in ready:
            flight = self.flights.pop(future, None)
            if flight is None:  # a worker came up
                continue
            try:
                done.append(received(flight.job, self.ray.get(future), self.setup.keeping))
                self.idle.append(flight.worker)
            except self.ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, ScriptError):
                    done.append(Done(flight.job, [], error=str(error.cause), ending=error.cause.ending))
                elif isinstance(error.cause, LeftError):
                    done.append(Done(flight.job, [], left=True, put_off=isinstance(error.cause, PutOffError)))
                else:
                    done.append(Done(flight.job, [], error=f"{error.cause.__class__.__name__}: {error}"))
                self.idle.append(flight.worker)
            except self.ray.exceptions.RayError as error:  # the worker is gone
                self._end(flight)
                self.fallen.append(_LostWorker(flight, f"the worker died: {error}", time.monotonic()))
        done += self._judged()
        self._look()
        for future, flight in list(self.flights.items()):
            if flight.still >= self.hang_minutes * 60 + (0 if self.needs is None else HANG_GRACE):
                del self.flights[future]
                self._end(flight)
                why = f"the worker was killed: no step for {_minutes(self.hang_minutes)}"
                done.append(Done(flight.job, [], error=why, died=True))
        return done

    def _look(self) -> None:
        """Ask the workers how far they are; one that doesn't answer at once counts as it last did."""
        now = time.monotonic()
        passed, self.looked = min(now - self.looked, _LONGEST_LOOK), now
        requests = {flight.worker.actor.progress.remote(): flight for flight in self.flights.values()}
        ready, _ = self.ray.wait(list(requests), num_returns=len(requests), timeout=0.5) if requests else ([], [])
        for flight in requests.values():
            flight.still += min(passed, now - flight.started)
        for answer in ready:
            flight = requests[answer]
            with suppress(self.ray.exceptions.RayError):  # a worker that is gone is `wait`'s
                heard = self.ray.get(answer)
                if (heard.share, heard.written) != (flight.heard.share, flight.heard.written):
                    flight.heard, flight.still = heard, 0.0

    def _end(self, flight: _Flight) -> None:
        """Make sure that a worker is gone, and let another take its device at once."""
        self.ray.kill(flight.worker.actor)
        # A stopped process doesn't hear Ray, and would keep its core or GPU from the new worker.
        if flight.worker.seat.node == self.node:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(flight.worker.seat.pid, signal.SIGKILL)
        self.counted = -math.inf

    def _judged(self) -> list[Done]:
        """The packs that may be to blame for their worker's death; those whose node left go to other workers."""
        undecided, done = [], []
        for fallen in self.fallen:
            flight = fallen.flight
            job = flight.job
            if self._left(flight.worker.seat.node):
                self.departures[job.trials] += 1
                if self.departures[job.trials] <= _MOST_DEPARTURES:
                    self.to_requeue.append(job)
                    self.news.append(
                        f"{count_noun(len(job.trials), 'trial')} to train again: their node left the cluster"
                    )
                    continue
            elif self.address is not None and time.monotonic() - fallen.since < _LEAVING_SECONDS:
                undecided.append(fallen)
                continue
            done.append(Done(job, [], error=fallen.why, died=True))
        self.fallen = undecided
        return done

    def _left(self, node: str) -> bool:
        """Whether a node is no longer of the cluster; Ray itself takes half a minute to notice that one died."""
        if self.address is None:  # never this machine; and a Ray that is ended with all its processes answers no more
            return False
        resources = self._alive().get(node)
        if resources is None:
            return True
        return (
            node != self.node and answers(resources["NodeManagerAddress"], resources["NodeManagerPort"], 1) is not None
        )

    def running(self) -> list[Running]:
        """The packs in training and how far they were when last asked."""
        now = time.monotonic()
        flights = [*self.flights.values(), *(fallen.flight for fallen in self.fallen)]
        running = [Running(flight.job, flight.heard, now - flight.started) for flight in flights]
        return running + [Running(job, PackProgress(), 0.0) for job in self.to_requeue]

    def close(self) -> None:
        """Leave Ray; a local one stops, without waiting for what its workers are at."""
        if self.address is None:
            for worker in [*self.idle, *(flight.worker for flight in self.flights.values())]:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(worker.seat.pid, signal.SIGKILL)
        disconnect(self.ray)


def _minutes(number: float) -> str:
    return f"{number:g} minute{'' if number == 1 else 's'}"
