"""Shared by the tests of training: a pack before its first update, its steps, its remedies."""

from collections.abc import Sequence
from typing import TypeVar

import torch
import transformers

from harness.config.recipe import Recipe
from harness.config.trials import Trial
from harness.training.batches import Batch
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


def loss_of(run: TrainingRun, batch: Batch) -> float:
    """The loss of the only lane's batch, summed, where nothing is drawn for it."""
    arguments = run.lanes.trained_arguments(run.lanes.weights)
    return run.loss_and_gradient.at_one_width(arguments, batch, 1, add=False).item()


def rate(r: Recipe, step: int, total: int) -> float:
    """The learning rate of a step, as transformers' schedules give it."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=r.lr)
    more = {"power": r.schedule_power, "lr_end": r.schedule_end} if r.schedule == "polynomial" else {}
    name = "constant_with_warmup" if r.schedule == "constant" else r.schedule
    schedule = transformers.get_scheduler(
        name, optimizer, int(r.warmup_ratio * total), total, scheduler_specific_kwargs=more
    )
    return r.lr * float(schedule.lr_lambdas[0](step))
