"""What runs a script's trials in a Ray actor, and what such an actor takes of its node; imports no torch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.common.errors import HarnessError
from harness.config.script import Resources
from harness.config.trials import Trial
from harness.execution.packing import Job
from harness.execution.pool import LeftError, PackProgress, PutOffError
from harness.execution.ray_worker import Shipped, WorkerInfo
from harness.execution.train_pack import Result, WorkerSetup, train_pack
from harness.models.keep_weights import Keeping, sending
from harness.models.saved import Files
from harness.scripts import runner

_ROOM = 2**62  # bytes: a script's run is a pack of one, whatever it takes
HANG_GRACE = 60.0  # seconds more than a worker itself gives a silent run, before the worker counts as hanging


def of_job(setup: WorkerSetup, job: Job) -> WorkerSetup:
    """The setup of a job: a repeated run has a folder of its own."""
    if not job.repeat:
        return setup
    return replace(setup, runs=replace(setup.runs, suffix=f".repeat{job.repeat}"), keeping=None)


def script_progress(job: Job, setup: WorkerSetup) -> PackProgress:
    """How far a script's run is, as far as its output says it."""
    written, output, score = runner.heard(job.trials[0], of_job(setup, job).runs)
    return PackProgress(written=written, output=output, score=score)


class ScriptWorker:
    """What runs in a Ray actor: one run at a time; it says what the run last wrote."""

    def __init__(self, setup: WorkerSetup, workers_per_gpu: int) -> None:
        """Run scripts as `setup` says."""
        self.setup = setup
        self.job: Job | None = None
        self.leaving: tuple[str, ...] = ()
        self.puts_off = False

    def ready(self) -> WorkerInfo:
        """Where it sits."""
        import ray

        return WorkerInfo(ray.get_runtime_context().get_node_id(), os.getpid(), _ROOM)

    def leave(self, trials: tuple[str, ...], put_off: bool = False) -> None:
        """End the run of this trial; `put_off`: it is run later."""
        self.puts_off = put_off
        self.leaving = trials  # by name: it may arrive when the next one runs

    def progress(self) -> PackProgress:
        """What its run last wrote."""
        job = self.job
        return PackProgress() if job is None else script_progress(job, self.setup)

    def train(
        self, sweep: str, profile: str, trials: Sequence[Trial], shipped: Shipped, repeat: int = 0
    ) -> tuple[list[Result], dict[str, Files]]:
        """The run's result; raises LeftError where `leave` asked for it, ScriptError where it crashed."""
        own = tuple(trial.id for trial in trials)

        def tick(step: int, steps: int) -> None:
            if self.leaving == own:
                raise PutOffError if self.puts_off else LeftError

        self.job = job = Job(tuple(trials), repeat=repeat)

        def train(keeping: Keeping | None) -> list[Result]:
            return train_pack(sweep, profile, trials, of_job(replace(self.setup, keeping=keeping), job), tick)

        try:
            return sending(self.setup.keeping, train)
        finally:
            self.job = None


@dataclass(frozen=True)
class Needs:
    """What a worker takes of its node."""

    cpus: float
    gpus: float
    memory: int  # bytes; 0: not reserved

    @classmethod
    def of(cls, resources: Resources) -> Needs:
        """Those of a script's run."""
        return cls(resources.cpus, resources.gpus, int(resources.memory_gib * 2**30))

    @property
    def words(self) -> str:
        """`1 GPU, 4 CPUs, 16 GiB of memory`."""
        parts = [f"{self.gpus:g} GPU{'' if self.gpus <= 1 else 's'}"] if self.gpus else []
        parts += [f"{self.cpus:g} CPU{'' if self.cpus == 1 else 's'}"]
        return ", ".join(parts + ([f"{self.memory / 2**30:g} GiB of memory"] if self.memory else []))

    def places(self, nodes: Iterable[Mapping[str, Any]]) -> int:
        """For how many workers these nodes have room; a worker with less than a GPU shares one, none is spread."""
        return sum(self._on(node["Resources"]) for node in nodes)

    def _on(self, has: Mapping[str, float]) -> int:
        counts = [int(has.get("CPU", 0) // self.cpus)]
        if self.gpus >= 1:
            counts.append(int(has.get("GPU", 0) // self.gpus))
        elif self.gpus:
            counts.append(int(has.get("GPU", 0)) * int(1 / self.gpus + 1e-9))
        if self.memory:
            counts.append(int(has.get("memory", 0) // self.memory))
        return min(counts)

    def refuse_too_many(self, workers: int | None, places: int, has: Mapping[str, float]) -> None:
        """Raise HarnessError where this machine has no place for a run, or for fewer than `workers`."""
        if places >= (workers or 1):
            return
        there = f"{has.get('GPU', 0):g} GPUs, {has.get('CPU', 0):g} CPUs, {has.get('memory', 0) / 2**30:.1f} GiB"
        many = f"{workers} runs at once, each with" if places else "a run with"
        raise HarnessError(
            f"this machine has no room for {many} {self.words}",
            got=f"{there}" + (f": room for {places}" if places else ""),
            fix="Lower --workers" if places else "Lower resources:, or join a cluster with --address",
        )
