"""The pool of Ray workers over a cluster that changes, on a stand-in for Ray with nodes and GPUs made up."""

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.common.errors import HarnessError
from harness.config.trials import Sweep, Trial
from harness.execution import ray_workers
from harness.execution.packing import Job
from harness.execution.pool import LeftError, PackProgress, PutOffError
from harness.execution.ray_worker import RayWorker, WorkerInfo
from harness.execution.ray_workers import RayPool
from harness.execution.train_pack import WorkerSetup
from harness.records import early_signals
from harness.training.checkpoints import Checkpoints

GIB = 2**30


class RayError(Exception):
    pass


class FakeRay:
    """Nodes by name with their GPUs and the bytes free on each; an actor starts on the first with a share left."""

    def __init__(self, **gpus: int) -> None:
        self.gpus, self.free = dict(gpus), dict.fromkeys(gpus, 80 * GIB)
        self.taken, self.results, self.options = 0.0, {}, {}  # type: ignore[var-annotated]
        self.started: list[str] = []
        self.exceptions = SimpleNamespace(RayError=RayError, RayTaskError=type("RayTaskError", (RayError,), {}))
        self.broken = ""
        self.left: list[tuple[tuple[str, ...], bool]] = []
        self.heard = PackProgress(0.5)

    def init(self, **options: object) -> None:
        pass

    def shutdown(self) -> None:
        pass

    def kill(self, actor: object) -> None:
        pass

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: "driver")

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {"NodeID": name, "Alive": True, "Resources": {"GPU": count}, "NodeManagerAddress": "", "NodeManagerPort": 0}
            for name, count in self.gpus.items()
        ]

    def cluster_resources(self) -> dict[str, float]:
        return {"GPU": sum(self.gpus.values())}

    def available_resources(self) -> dict[str, float]:
        return {"GPU": sum(self.gpus.values()) - self.taken}

    def remote(self, kind: object) -> Any:
        def options(**given: Any) -> Any:
            self.options = given
            return SimpleNamespace(remote=self.actor)

        return SimpleNamespace(options=options)

    def actor(self, *words: object) -> Any:
        places = [name for name, count in self.gpus.items() for _ in range(round(count / self.options["num_gpus"]))]
        for name in self.started:
            if name in places:
                places.remove(name)
        node = [*places, *self.gpus][0]
        self.started.append(node)
        seat: object = RayError(self.broken) if self.broken else WorkerInfo(node, 1, self.free[node])
        return SimpleNamespace(
            ready=SimpleNamespace(remote=lambda: self.later(seat)),
            progress=SimpleNamespace(remote=lambda: self.later(self.heard)),
            train=SimpleNamespace(remote=lambda *words: self.later(None)),
            leave=SimpleNamespace(remote=lambda trials, put_off: self.left.append((trials, put_off))),
        )

    def later(self, value: object) -> object:
        future = object()
        self.results[future] = value
        return future

    def wait(self, futures: list[object], num_returns: int, timeout: float) -> tuple[list[object], list[object]]:
        ready = [future for future in futures if self.results[future] is not None]
        return ready, [future for future in futures if future not in ready]

    def put(self, value: object) -> object:
        return self.later(value)

    def get(self, future: object) -> object:
        if isinstance(found := self.results[future], Exception):
            raise found
        return found


@pytest.fixture
def pool(tiny_sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RayPool]:
    monkeypatch.setattr(ray_workers, "_PLACED_SECONDS", 0.2)
    monkeypatch.setattr(ray_workers, "_CENSUS_SECONDS", 0.0)
    monkeypatch.setattr(ray_workers, "answers", lambda host, port, seconds: None)

    def make(
        ray: FakeRay, most: int = 99, asked: int | None = None, per_gpu: int = 1, hang_minutes: float = 0.001
    ) -> RayPool:
        monkeypatch.setitem(sys.modules, "ray", ray)
        return RayPool(tiny_sweep, "auto", asked, 1, most, hang_minutes, None, per_gpu)

    return make


def test_workers_share_gpus_and_the_pack_fits_the_smallest(pool: Callable[..., RayPool]) -> None:
    ray = FakeRay(a=2, b=1)
    ray.free["b"] = 16 * GIB
    made = pool(ray, per_gpu=3)
    assert (made.setup.device, made.workers, made.room) == ("cuda", 9, 16 * GIB)
    assert ray.options["num_gpus"] == pytest.approx(1 / 3)
    assert pool(FakeRay(a=2, b=1), most=2).workers == 2
    assert pool(FakeRay(a=2, b=1), asked=1).workers == 1


def test_a_node_that_joins_is_used_up_to_what_was_asked_for_and_is_left(pool: Callable[..., RayPool]) -> None:
    ray = FakeRay(a=1)
    made = pool(ray, asked=3)
    assert made.workers == 1
    ray.gpus["b"], ray.free["b"] = 8, 8 * GIB
    made.follow(99)
    made.follow(99)
    assert (made.workers, made.room) == (3, 8 * GIB)
    ray.gpus["c"], ray.free["c"] = 8, 80 * GIB
    made.follow(99)
    made.follow(99)
    assert made.workers == 3
    assert pool(ray, most=5).workers == 5


def test_packs_of_a_node_that_leaves_are_trained_by_others_and_not_for_ever(
    pool: Callable[..., RayPool], tiny_sweep: Sweep, trial: Callable[..., Trial]
) -> None:
    ray = FakeRay(a=1)
    made, job = pool(ray), Job((trial(),))
    made.start(job)
    for number in range(21):
        ((future, flight),) = made.flights.items()
        assert flight.job is job
        left = flight.worker.seat.node
        ray.results[future] = RayError("the actor died")
        del ray.gpus[left]
        ray.gpus[f"n{number}"], ray.free[f"n{number}"] = 1, GIB
        found = made.wait(0)
        if number < 20:
            assert found == []
            assert len(made.running()) == 1
            told = made.follow(99) + made.follow(99)
            assert told == ["1 trial to train again: their node left the cluster"]
    ((job, died),) = [(done.job, done.died) for done in found]
    assert died
    assert job.deaths == 0


def test_what_a_worker_says_of_its_lanes_is_handed_on(
    pool: Callable[..., RayPool], trial: Callable[..., Trial]
) -> None:
    ray = FakeRay(a=1)
    made = pool(ray)
    made.start(Job((trial(),)))
    ray.heard = PackProgress(0.25, np.ones((1, 10, 5)))
    made.wait(0)
    (running,) = made.running()
    assert running.share == 0.25
    assert running.heard is ray.heard


def test_a_ray_worker_says_the_signals_of_its_lanes(trial: Callable[..., Trial]) -> None:
    worker = RayWorker(WorkerSetup("cpu", 1), 1)
    trials = [trial(1), trial(2)]
    results, _ = worker.train("s", "p", trials, {})
    heard = worker.progress()
    assert heard.share == 1
    assert heard.signals is not None
    for (_, curves), lane in zip(results, heard.signals, strict=True):
        assert curves is not None
        wanted = early_signals.signals(curves.train_loss, 16, curves.eval_step, curves.recording)
        np.testing.assert_array_equal(lane, wanted)


def test_a_pack_is_left_at_its_next_step_and_comes_back_as_left(
    pool: Callable[..., RayPool], trial: Callable[..., Trial]
) -> None:
    ray = FakeRay(a=2)
    made, job = pool(ray), Job((trial(1), trial(2)))
    made.start(Job((trial(3),)))
    made.start(job)
    made.leave(job)
    assert ray.left == [(tuple(one.id for one in job.trials), False)]
    (future,) = (future for future, flight in made.flights.items() if flight.job is job)
    error = ray.exceptions.RayTaskError("left")
    error.cause = LeftError()  # type: ignore[attr-defined]
    ray.results[future] = error
    (done,) = made.wait(0)
    assert (done.job, done.left, done.error, done.results, made.free) == (job, True, None, [], 1)


def test_a_ray_worker_leaves_the_pack_that_it_is_told_to_and_no_other(trial: Callable[..., Trial]) -> None:
    worker = RayWorker(WorkerSetup("cpu", 1), 1)
    trials = [trial(1), trial(2)]
    worker.leave((trials[0].id,))  # meant for a pack that has ended
    assert len(worker.train("s", "p", trials, {})[0]) == 2
    worker.leave(tuple(one.id for one in trials))
    with pytest.raises(LeftError):
        worker.train("s", "p", trials, {})
    assert worker.progress().share == 1 / 16


def test_a_ray_worker_keeps_the_state_of_a_pack_that_is_put_off(trial: Callable[..., Trial], tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, math.inf)
    worker = RayWorker(WorkerSetup("cpu", 1, checkpoints=kept), 1)
    trials = [trial(1), trial(2)]
    for put_off in (False, True):
        assert not kept.kept(trials)
        worker.leave(tuple(one.id for one in trials), put_off)
        with pytest.raises(PutOffError if put_off else LeftError):
            worker.train("s", "p", trials, {})
    assert kept.kept(trials)


def test_a_worker_that_dies_alone_is_its_packs_fault_once_its_node_had_time_to_leave(
    pool: Callable[..., RayPool], trial: Callable[..., Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_workers, "_LEAVING_SECONDS", 0.1)
    ray = FakeRay(a=1)
    made = pool(ray)
    made.start(Job((trial(),)))
    ray.results[next(iter(made.flights))] = RayError("the actor died\nand more")
    assert made.wait(0) == []
    time.sleep(0.1)
    (done,) = made.wait(0)
    assert done.died
    assert done.error == "the worker died: the actor died\nand more"


def test_packs_without_a_node_are_given_back_when_the_sweep_stops(
    pool: Callable[..., RayPool], trial: Callable[..., Trial]
) -> None:
    ray = FakeRay(a=1)
    made = pool(ray)
    made.start(Job((trial(),)))
    ray.results[next(iter(made.flights))] = RayError("the actor died")
    ray.gpus.clear()
    assert made.wait(0) == []
    made.follow(0)
    assert [done.died for done in made.wait(0)] == [True]
    assert made.running() == []


def test_no_worker_is_said_and_then_an_error(pool: Callable[..., RayPool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_workers, "_ALONE_SECONDS", 0.0)
    ray = FakeRay(a=1)
    made = pool(ray)
    ray.gpus.clear()
    assert made.follow(9) == []
    assert made.follow(9) == ["no worker is left: waiting up to 0.001 minutes for one"]
    time.sleep(0.07)
    with pytest.raises(HarnessError, match=r"none for 0\.001 minutes\. .*re-run the same command to resume"):
        made.follow(9)


def test_what_the_cluster_lacks_is_said_at_the_start(
    pool: Callable[..., RayPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = FakeRay(a=2)
    ray.broken = "stack\nCUDA driver is too old\n"
    with pytest.raises(HarnessError, match="a worker that did not start: CUDA driver is too old"):
        pool(ray)
    monkeypatch.setattr(ray_workers, "_PLACED_SECONDS", 0.02)
    with pytest.raises(HarnessError, match=r"none started within \d s; of 0 CPU 0 are free"):
        pool(FakeRay(), hang_minutes=1)
    taken = FakeRay(a=2)
    taken.taken = 2.0
    monkeypatch.setattr(taken, "wait", lambda futures, num_returns, timeout: ([], futures))
    with pytest.raises(HarnessError, match=r"none started within \d s; of 2 GPU 0 are free"):
        pool(taken, hang_minutes=1)
