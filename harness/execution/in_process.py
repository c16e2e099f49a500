"""This process as the only worker."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from harness.common.metrics import Evaluation
from harness.config.trials import Sweep, Trial
from harness.execution.pack_size import lanes, worker_memory_budget
from harness.execution.packing import Job
from harness.execution.pool import Done, LeftError, PackProgress, PutOffError, Running
from harness.execution.preflight import Preflight, look
from harness.execution.script_worker import of_job, script_progress
from harness.execution.train_pack import WorkerSetup, train_pack
from harness.scripts.runner import ScriptError


class InProcess:
    """One worker, this process. Nothing can stop a step here, so a pack that hangs is not noticed."""

    workers = 1

    def __init__(self, sweep: Sweep, setup: WorkerSetup, tick: Callable[[], None]) -> None:
        """Train packs of `sweep` here; `tick` is called after every step."""
        self.sweep, self.setup, self.tick = sweep, setup, tick
        self.job: Job | None = None
        self.leaving: tuple[Job, bool] | None = None  # and whether it is put off
        self.heard, self.started = PackProgress(), 0.0

    @property
    def free(self) -> int:
        """One pack at a time."""
        return 0 if self.job else 1

    @property
    def room(self) -> int:
        """What there is on this machine."""
        return worker_memory_budget(self.setup.device)

    def lanes(self, trial: Trial, usual: int, most: int, epochs: float) -> int:
        """Found out here."""
        return lanes(trial, self.setup, usual, most, epochs)

    def preflight(self, trial: Trial) -> Preflight:
        """Set up here."""
        return look(trial, trusts_remote_code=self.setup.trusts_remote_code)

    def follow(self, most: int) -> list[str]:
        """No news: this process is the worker."""
        return []

    def start(self, job: Job) -> None:
        """Keep the pack for `wait`, which trains it."""
        self.job, self.heard, self.started = job, PackProgress(), time.monotonic()

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

        def signals(values: np.ndarray) -> None:
            self.heard = replace(self.heard, signals=values)

        def evaluated(evaluation: Evaluation) -> None:
            self.heard = replace(self.heard, evaluations=(*self.heard.evaluations, evaluation))

        job, names = self.job, (self.sweep.name, self.sweep.profile)
        try:
            results = train_pack(*names, job.trials, of_job(self.setup, job), progress, signals, evaluated)
            done = Done(job, results)
        except LeftError as left:
            done = Done(job, [], left=True, put_off=isinstance(left, PutOffError))
        except ScriptError as error:
            done = Done(job, [], error=str(error), ending=error.ending)
        except Exception:  # whatever a trial raises is kept in its record
            done = Done(job, [], error=traceback.format_exc())
        self.job = None
        return [done]

    def running(self) -> list[Running]:
        """The pack in training and how far it is."""
        if self.job is None:
            return []
        if self.job.trials[0].script is not None:
            self.heard = script_progress(self.job, self.setup)
        return [Running(self.job, self.heard, time.monotonic() - self.started)]

    def close(self) -> None:
        """Nothing to stop."""
