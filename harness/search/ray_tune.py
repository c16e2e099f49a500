"""Ray Tune as the backend of a search: a pack is a Tune trial, and Tune's ASHA scheduler stops recipes.

What is trained, recorded and told the study stays `driver`'s and `search`'s: this is one more pool of workers.
"""

from __future__ import annotations

import logging
import os
import queue
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

import ray
from ray import tune
from ray._private import auto_init_hook
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler
from ray.tune.search import Searcher

from harness.common.errors import HarnessError
from harness.config.search_space import Pruner, Search
from harness.config.trials import Sweep, Trial
from harness.execution import ray_cluster, ray_workers
from harness.execution.pack_size import worker_memory_budget
from harness.execution.packing import Job
from harness.execution.pool import Done, LeftError, PackProgress, PutOffError, Running
from harness.execution.preflight import Preflight, look
from harness.execution.ray_worker import RayWorker
from harness.execution.train_pack import WorkerSetup, worker_setup
from harness.models.keep_weights import Keeping
from harness.search import pruning
from harness.training.checkpoints import Checkpoints

_CLOSED_SECONDS = 10.0  # that Tune has to end in, once nothing trains
_HEARD_SECONDS = 1.0  # between two words of a trial
_VALUE, _STEP = "objective", "training_percent"  # what Tune is told


class _Box:
    """An actor between driver and trials: packs to train, how far they are, what came of them, by their number."""

    def __init__(self) -> None:
        self.packs: dict[int, object] = {}
        self.heard: dict[int, PackProgress] = {}
        self.ended: dict[int, object] = {}
        self.leaving: dict[int, bool] = {}  # and whether it is put off

    def put(self, number: int, pack: object) -> None:
        self.packs[number] = pack

    def pack(self, number: int) -> object:
        return self.packs.pop(number)

    def hear(self, number: int, heard: PackProgress) -> bool | None:
        self.heard[number] = heard
        return self.leaving.get(number)

    def leave(self, number: int, put_off: bool) -> None:
        self.leaving[number] = put_off

    def end(self, number: int, outcome: object) -> None:
        self.ended[number] = outcome

    def taken(self, number: int) -> tuple[PackProgress, object]:
        return self.heard.pop(number, PackProgress()), self.ended.pop(number, None)

    def all_heard(self) -> dict[int, PackProgress]:
        return self.heard


class _TuneWorker(RayWorker):
    """The worker inside a Tune trial: the box hears of it, and Tune of the evaluations that it may be stopped at."""

    def __init__(
        self, setup: WorkerSetup, number: int, trials: tuple[Trial, ...], search: Search, whole: bool, box: Any
    ):
        super().__init__(setup, 1)
        self.number, self.trials, self.search, self.whole, self.box = number, trials, search, whole, box
        self.spoken = 0.0

    def hear(self, heard: PackProgress) -> None:
        fresh, self.heard = len(heard.evaluations) > len(self.heard.evaluations), heard
        if not fresh and time.monotonic() - self.spoken < _HEARD_SECONDS:
            return
        self.spoken = time.monotonic()
        put_off = ray.get(self.box.hear.remote(self.number, heard))
        if put_off is not None:
            self.leave(tuple(trial.id for trial in self.trials), put_off)
        pruner = self.search.pruner
        if fresh and self.whole and pruner and pruning.asked(heard.evaluations, pruner, self.trials[0].recipe):
            latest = heard.evaluations[-1]
            value = pruning.value(latest, self.search)
            tune.report({_VALUE: value, _STEP: pruning.step(latest.share, pruner)})  # SystemExit where it is stopped


def _train(config: dict[str, int], sweep: Sweep, setup: WorkerSetup, box: Any) -> None:
    """A Tune trial: train the pack of a number by the one path, and leave its records in the box."""
    number = config["pack"]
    trials, shipped = ray.get(box.pack.remote(number))
    assert sweep.search is not None
    # Of a part of a recipe Tune is told nothing.
    worker = _TuneWorker(setup, number, trials, sweep.search, len(trials) == len(sweep.seeds), box)
    try:
        outcome: object = worker.train(sweep.name, sweep.profile, trials, shipped)
    except LeftError as left:
        outcome = left
    except Exception as error:  # whatever a trial raises is kept in its record
        outcome = f"{type(error).__name__}: {error}"
    ray.get(box.end.remote(number, outcome))


class _Asking(Searcher):  # type: ignore[misc]
    """Whom Tune asks for trials: the driver's queue, which is filled by the search's own ask and tell."""

    def __init__(
        self, mode: str, packs: queue.SimpleQueue[int | None], ended: queue.SimpleQueue[tuple[int, bool]]
    ) -> None:
        super().__init__(metric=_VALUE, mode=mode)
        self.packs, self.ended = packs, ended
        self.numbers: dict[str, int] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> _Asking:
        return self  # the queues are the driver's

    def __reduce__(self) -> tuple[Any, ...]:
        return Searcher, (
            _VALUE,
            self.mode,
        )  # Tune keeps a copy to go on from, which nobody does: the journal is for that

    def suggest(self, trial_id: str) -> Any:
        try:
            number = self.packs.get_nowait()
        except queue.Empty:
            return None
        if number is None:
            return Searcher.FINISHED
        self.numbers[trial_id] = number
        return {"pack": number}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self.ended.put((self.numbers.pop(trial_id), error))

    def save(self, checkpoint_path: str) -> None:
        """Nothing, as above."""


class _Halving(ASHAScheduler):  # type: ignore[misc]
    """ASHA that sees the first recipes to their end, as the search's pruner does."""

    def __init__(self, mode: str, pruner: Pruner) -> None:
        self.least, self.whole = pruner.n_startup_trials, 0
        super().__init__(_STEP, _VALUE, mode, 101, pruner.n_warmup_steps, pruner.reduction_factor)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        action: str = super().on_trial_result(tune_controller, trial, result)
        return action if self.whole >= self.least else self.CONTINUE

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        self.whole += 1
        super().on_trial_complete(tune_controller, trial, result)


class _Silent(TrialProgressCallback):  # type: ignore[misc]
    """Tune's lines for each trial, unsaid."""

    def _print(self, msg: str) -> None:
        """Not at all."""


class TunePool:
    """Packs as the trials of one Tune run, which goes on in a thread of its own until the pool is closed."""

    def __init__(
        self, sweep: Sweep, address: str | None, workers: int | None, threads: int, checkpoints: Checkpoints | None,
        workers_per_gpu: int, keeping: Keeping | None, compiled: bool = False,
    ) -> None:  # fmt: skip
        """Start Ray, or join it by its address, and Tune's run.

        Raises HarnessError when the cluster can't be reached, and for more workers than this machine has devices.
        """
        # No files of its own for each trial, the printing that can be silenced, and a sweep's paths as they are.
        os.environ |= {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0"}
        os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        if address is None:
            ray_cluster.refuse_before_start(workers, threads)
        ray_cluster.connect(address)
        # Tune's thread may outlive the pool by a moment, and would start or join another Ray.
        auto_init_hook.enable_auto_connect = False
        gpus = ray.cluster_resources().get("GPU", 0) >= 1
        kind, need = ("GPU", 1 / workers_per_gpu) if gpus else ("CPU", threads)
        nodes = [node for node in ray.nodes() if node["Alive"]]
        devices = ray_cluster.places(nodes, kind, threads, workers_per_gpu)
        if address is None:
            try:
                ray_cluster.refuse_too_many(workers, devices, ray.cluster_resources().get(kind, 0), kind, threads)
            except HarnessError:
                ray_cluster.disconnect(ray)
                raise
        self.sweep, self.shipping = sweep, ray_cluster.Shipping(address)
        self.workers = ray_cluster.target_worker_count(devices, workers, kind, address)
        self.setup = worker_setup(sweep, "cuda" if gpus else "cpu", threads, checkpoints, keeping, compiled)
        self.packs: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self.ended: queue.SimpleQueue[tuple[int, bool]] = queue.SimpleQueue()
        self.flights: dict[int, tuple[Job, float]] = {}  # number -> pack and when it was given
        self.heard: dict[int, PackProgress] = {}
        self.given, self.broken = 0, ""
        self.box = ray.remote(_Box).options(num_cpus=0).remote()
        reference = ray.remote(worker_memory_budget).options(num_cpus=0, num_gpus=need if gpus else 0)
        self.room = int(ray.get(reference.remote(self.setup.device, workers_per_gpu)))
        resources = {"cpu": 0, "gpu": need} if gpus else {"cpu": need}
        self.thread = threading.Thread(target=self._run, args=(resources,), daemon=True)
        self.thread.start()

    def _run(self, resources: dict[str, float]) -> None:
        assert self.sweep.search is not None
        pruner, mode = self.sweep.search.pruner, "min" if self.sweep.search.lower_is_better else "max"
        halving = pruner and _Halving(mode, pruner)
        trainable = tune.with_parameters(_train, sweep=self.sweep, setup=self.setup, box=self.box)
        try:
            with tempfile.TemporaryDirectory(prefix="harness-tune-", ignore_cleanup_errors=True) as folder:
                asking = _Asking(mode, self.packs, self.ended)
                tune.Tuner(
                    tune.with_resources(trainable, resources),
                    tune_config=tune.TuneConfig(
                        search_alg=asking, scheduler=halving or FIFOScheduler(), num_samples=-1, reuse_actors=True
                    ),
                    run_config=tune.RunConfig(storage_path=folder, verbose=0, callbacks=[_Silent()]),
                ).fit()
        except BaseException as error:  # a thread's own; `start` says it
            self._end_by(error)

    def _end_by(self, error: BaseException) -> None:
        self.broken = self.broken or f"{type(error).__name__}: {error}".splitlines()[0]

    @property
    def free(self) -> int:
        """How many packs can be started now."""
        return self.workers - len(self.flights)

    def lanes(self, trial: Trial, usual: int, most: int, epochs: float) -> int:
        """As is usual: a search's packs are its recipes."""
        return usual

    def preflight(self, trial: Trial) -> Preflight:
        """Set up by a process of its own, where nothing has to be sent to another node; Tune has the workers."""
        if self.shipping.address is not None:
            return Preflight()
        reference = ray.remote(look).options(num_cpus=0).remote(trial, trusts_remote_code=self.setup.trusts_remote_code)
        try:
            preflight: Preflight = ray.get(reference)
        except ray.exceptions.RayError:
            return Preflight()
        return preflight

    def follow(self, most: int) -> list[str]:
        """No news: Tune follows the cluster."""
        return []

    def start(self, job: Job) -> None:
        """Let Tune have a pack; raises HarnessError where its run has ended by itself."""
        if self.broken:
            raise HarnessError(
                f"Ray Tune has stopped: {self.broken}",
                fix="Re-run the same command to resume; without --tune the harness's own queue runs the recipes",
            )
        self.given += 1
        self.flights[self.given] = job, time.monotonic()
        try:
            ray.get(self.box.put.remote(self.given, (job.trials, self.shipping.of(job.trials))))
        except ray.exceptions.RayError as error:
            self._end_by(error)
        self.packs.put(self.given)

    def leave(self, job: Job, put_off: bool = False) -> None:
        """Told through the box."""
        for number, (other, _) in self.flights.items():
            if other is job:
                self.box.leave.remote(number, put_off)

    def wait(self, seconds: float) -> list[Done]:
        """The packs that have ended within that time; all of them, as by a worker's death, where Tune itself has."""
        done: list[Done] = []
        try:
            with suppress(queue.Empty):
                done.append(self._done(*self.ended.get(timeout=seconds)))
                while True:
                    done.append(self._done(*self.ended.get_nowait()))
            self.heard = ray.get(self.box.all_heard.remote())
        except ray.exceptions.RayError as error:  # the box is gone, with Ray as a rule
            self._end_by(error)
        if self.broken:
            why = f"the worker died: {self.broken}"
            done += [Done(job, [], error=why, died=True) for job, _ in self.flights.values()]
            self.flights.clear()
        return done

    def _done(self, number: int, died: bool) -> Done:
        heard, outcome = ray.get(self.box.taken.remote(number))
        job, began = self.flights.pop(number)
        if isinstance(outcome, tuple):
            return ray_workers.received(job, outcome, self.setup.keeping)
        if died or isinstance(outcome, str):
            error = "the worker died: Ray Tune ended its trial with an error" if died else str(outcome)
            return Done(job, [], error=error, died=died)
        if isinstance(outcome, LeftError):
            return Done(job, [], left=True, put_off=isinstance(outcome, PutOffError))
        heard = replace(heard, share=heard.evaluations[-1].share)  # ASHA stopped it there
        return Done(job, [], left=True, stopped=Running(job, heard, time.monotonic() - began))

    def running(self) -> list[Running]:
        """The packs in training and how far they were when last asked."""
        now, none = time.monotonic(), PackProgress()
        return [
            Running(job, self.heard.get(number, none), now - since) for number, (job, since) in self.flights.items()
        ]

    def close(self) -> None:
        """Have Tune end where nothing trains, and leave Ray; a local one stops."""
        self.packs.put(None)
        if not self.flights:
            self.thread.join(_CLOSED_SECONDS)
        ray_cluster.disconnect(ray)
