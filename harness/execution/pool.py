"""What every pool of workers offers, and what it reports."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from harness.common.errors import HarnessError
from harness.common.metrics import Evaluation
from harness.config.trials import Trial
from harness.execution.packing import Job
from harness.execution.preflight import Preflight
from harness.execution.train_pack import NO_MEMORY, REFUSED, Result, WorkerSetup
from harness.training.checkpoints import StopTraining

_UNKEPT = re.compile(r"^(?:[\w.]+\.)?(?:UnkeptError|RunFolderError): (.+)$", re.MULTILINE)


# ------------------------------------------------------------------------------------------------------ the workers


@dataclass(frozen=True)
class Done:
    """A pack that came back: its results, or why it failed."""

    job: Job
    results: list[Result]
    error: str | None = None
    died: bool = False
    left: bool = False  # as `Pool.leave` asked
    put_off: bool = False  # so left that it goes on another time
    ending: str | None = None  # how a script's run crashed
    stopped: Running | None = None  # as it was last heard of, where the pool itself stopped it

    @property
    def out_of_memory(self) -> bool:
        """Whether the pack was too large for its device's memory."""
        return self.error is not None and NO_MEMORY.search(self.error) is not None

    @property
    def unkept(self) -> str | None:
        """The folder of weights or of a run that could not be written, and why; None where that was not the error."""
        match = None if self.error is None else _UNKEPT.search(self.error)
        return match and match[1]

    @property
    def refused(self) -> HarnessError | None:
        """Why the pack's model can't be trained here or anywhere; None where that was not the error."""
        match = None if self.error is None else REFUSED.search(self.error)
        return match and HarnessError(match[1])


@dataclass(frozen=True)
class PackProgress:
    """How far a worker is: the share of its pack's steps that are done, and what it says of the lanes."""

    share: float = 0.0
    signals: np.ndarray | None = (
        None  # [L, t, K]: `early_signals`'s, at the shares reached; None where nothing is recorded
    )
    evaluations: tuple[Evaluation, ...] = ()  # those of this training, where the place tells them
    written: int = 0  # bytes of output of a script
    output: str = ""  # its last line
    score: float | None = None  # its latest score, where it says one before its end


@dataclass(frozen=True)
class Running:
    """A pack in training: how far it is, and the seconds since it was started."""

    job: Job
    heard: PackProgress
    seconds: float

    @property
    def share(self) -> float:
        """Of its steps, those that are done."""
        return self.heard.share


class LeftError(Exception):
    """A pack is left in mid-training, as `Pool.leave` asked."""


class PutOffError(LeftError, StopTraining):
    """A pack is left in mid-training and its state is kept, as `Pool.leave` asked."""


class Pool(Protocol):
    """Workers that train packs."""

    setup: WorkerSetup

    @property
    def workers(self) -> int:
        """Workers that are ready or train."""

    @property
    def free(self) -> int:
        """How many packs can be started now."""

    @property
    def room(self) -> int:
        """Bytes that the lanes of a pack may fill, whichever worker takes it."""

    def lanes(self, trial: Trial, usual: int, most: int, epochs: float) -> int:
        """How many lanes of a shape train fastest, as `lanes` of this module."""

    def preflight(self, trial: Trial) -> Preflight:
        """What setting a trial's data and model up gives, by one of the workers."""

    def follow(self, most: int) -> list[str]:
        """Make the workers those that there are devices for, at most so many, and give the news of them."""

    def start(self, job: Job) -> None:
        """Give a pack to an idle worker."""

    def leave(self, job: Job, put_off: bool = False) -> None:
        """Have a pack left after the step that it is at, unless that is its last; it comes back without results.

        With `put_off` its state is kept first, where its setup has checkpoints.
        """

    def wait(self, seconds: float) -> list[Done]:
        """The packs that came back within that time."""

    def running(self) -> list[Running]:
        """The packs in training and how far they are."""

    def close(self) -> None:
        """Stop the workers at once."""
