"""What runs in a Ray actor: one worker of a pool."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from harness.common.metrics import Evaluation
from harness.config.recipe import Spec
from harness.config.trials import Trial
from harness.execution import shipping
from harness.execution.pack_size import lanes, worker_memory_budget
from harness.execution.pool import LeftError, PackProgress, PutOffError
from harness.execution.preflight import Preflight, look
from harness.execution.train_pack import Result, WorkerSetup, train_pack
from harness.models.keep_weights import Keeping, sending
from harness.models.saved import Files
from harness.training.imports import import_everything

Shipped = Mapping[Spec, tuple[str, Any]]  # the hash of what was shipped, and Ray's handle of it


@dataclass(frozen=True)
class WorkerInfo:
    """Where a worker sits, and the bytes that its lanes may fill there."""

    node: str  # Ray's id of it
    pid: int
    room: int


class RayWorker:
    """What runs in a Ray actor: trains one pack at a time and answers how far it is."""

    def __init__(self, setup: WorkerSetup, workers_per_gpu: int) -> None:
        """Begin to import what training needs, beside whatever the driver does."""
        self.setup, self.workers_per_gpu = setup, workers_per_gpu
        self.heard = PackProgress()
        self.leaving: tuple[str, ...] = ()
        self.puts_off = False
        self.folders: dict[Spec, Path] = {}
        # They take seconds, which pass while the driver waits for the other workers and one of them looks at the model.
        self.imports = threading.Thread(target=import_everything)
        self.imports.start()

    def ready(self) -> WorkerInfo:
        """Where it sits, once it is up."""
        import ray

        if self.setup.device != "cpu":  # that asks torch for the memory
            self.imports.join()
        room = worker_memory_budget(self.setup.device, self.workers_per_gpu)
        return WorkerInfo(ray.get_runtime_context().get_node_id(), os.getpid(), room)

    def leave(self, trials: tuple[str, ...], put_off: bool = False) -> None:
        """Leave the pack of these trials at its next step; `put_off`: it is trained later."""
        self.puts_off = put_off
        self.leaving = trials  # by name: it may arrive when the next pack trains

    def progress(self) -> PackProgress:
        """How far its pack is."""
        return self.heard

    def hear(self, heard: PackProgress) -> None:
        """Take in how far its pack is."""
        self.heard = heard

    def lanes(self, trial: Trial, usual: int, most: int, epochs: float, shipped: Shipped) -> int:
        """How many lanes of such a trial train fastest here (`pack_size.lanes`)."""
        self.imports.join()
        return lanes(self._moved([trial], shipped)[0], self.setup, usual, most, epochs)

    def preflight(self, trial: Trial, shipped: Shipped) -> Preflight:
        """What loading a trial's model and data shows (`preflight.look`)."""
        self.imports.join()
        return look(self._moved([trial], shipped)[0], trusts_remote_code=self.setup.trusts_remote_code)

    def train(
        self, sweep: str, profile: str, trials: Sequence[Trial], shipped: Shipped
    ) -> tuple[list[Result], dict[str, Files]]:
        """The pack's results, and the weights to keep that this node can't write where the driver would find them.

        Raises LeftError where `leave` asked for it.
        """
        self.imports.join()
        self.hear(PackProgress())
        own = tuple(trial.id for trial in trials)

        def progress(step: int, steps: int) -> None:
            self.hear(replace(self.heard, share=step / steps))
            if self.leaving == own and step < steps:
                raise PutOffError if self.puts_off else LeftError

        def signals(values: np.ndarray) -> None:
            self.hear(replace(self.heard, signals=values))

        def evaluated(evaluation: Evaluation) -> None:
            self.hear(replace(self.heard, evaluations=(*self.heard.evaluations, evaluation)))

        def train(keeping: Keeping | None) -> list[Result]:
            setup = replace(self.setup, keeping=keeping)
            return train_pack(sweep, profile, self._moved(trials, shipped), setup, progress, signals, evaluated)

        results, sent = sending(self.setup.keeping, train)
        planned = [
            (record.model_copy(update={"trial": planned}), curves)
            for (record, curves), planned in zip(results, trials, strict=True)
        ]
        return planned, sent

    def _moved(self, trials: Sequence[Trial], shipped: Shipped) -> list[Trial]:
        """The trials with the paths that their files have here."""
        import ray

        for spec, (digest, held) in shipped.items():
            if spec not in self.folders:
                self.folders[spec] = shipping.unpacked(digest, partial(ray.get, held))
        return [shipping.moved(trial, self.folders) for trial in trials]
