"""Shared by the tests of training: a pack before its first update, its steps, its remedies."""

from collections.abc import Sequence
from typing import TypeVar

import torch

from harness.config.trials import Trial
from harness.training.loop import evaluate, update
from harness.training.remedies.remedy import Remedy
from harness.training.run import TrainingRun, set_up

Kind = TypeVar("Kind", bound=Remedy)


def begin(trials: Sequence[Trial], device: str = "cpu", *, record: bool = True, replay: bool = True) -> TrainingRun:
    return set_up(trials, torch.device(device), record=record, replay=replay)


def advance(run: TrainingRun, step: int) -> None:
    """An update, and the evaluation that follows it where one is due."""
    update(run, step)
    if run.pack.evaluates_after(step + 1):
        evaluate(run)


def remedy(run: TrainingRun, kind: type[Kind]) -> Kind:
    return next(one for one in run.remedies if isinstance(one, kind))
