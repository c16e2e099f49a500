"""The trials that train together, before there are any weights: recipes, seeds, device, task and number of updates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from harness.config.recipe import Recipe
from harness.config.trials import Trial
from harness.data import tasks
from harness.data.tokenized import Task
from harness.training.kinds.kind import Kind
from harness.training.kinds.registry import kind_of
from harness.training.numerics import stream

SeedName = Literal["init_seed", "order_seed", "dropout_seed"]


@dataclass(frozen=True, eq=False)
class TrainingPack:
    """Trials of one shape, each a lane: lane i of every tensor belongs to trial i."""

    trials: tuple[Trial, ...]
    device: torch.device
    task: Task

    @property
    def recipe(self) -> Recipe:
        """A recipe to read what all lanes have in common from (`Recipe.shape`)."""
        return self.trials[0].recipe

    @cached_property
    def recipes(self) -> tuple[Recipe, ...]:
        """The recipe of each lane."""
        return tuple(trial.recipe for trial in self.trials)

    @cached_property
    def kind(self) -> Kind:
        """What the kind of the task decides."""
        return kind_of(self.recipe.task, self.task)

    @property
    def is_regression(self) -> bool:
        """Whether labels are numbers."""
        return self.task.label_names is None

    @cached_property
    def epoch_steps(self) -> int:
        """Updates of an epoch."""
        return tasks.epoch_steps(self.task.train.labels, self.recipe)

    @property
    def total_steps(self) -> int:
        """Updates of the whole training."""
        return self.recipe.max_steps or self.epoch_steps * self.recipe.epochs

    @property
    def epoch_ends(self) -> list[int]:
        """The updates after which an epoch or the training ends."""
        return [*range(self.epoch_steps, self.total_steps, self.epoch_steps), self.total_steps]

    def evaluates_after(self, updates: int) -> bool:
        """Whether an evaluation follows so many updates."""
        return tasks.due(self.recipe, updates, self.epoch_steps, self.total_steps)

    def seeds(self, name: SeedName) -> list[int]:
        """One of the seeds of each lane."""
        return [getattr(trial.seeds, name) for trial in self.trials]

    def streams(
        self, purpose: str, seed: SeedName = "dropout_seed", device: str | torch.device = "cpu"
    ) -> list[torch.Generator]:
        """One random stream a lane, keyed by a purpose and a seed of its trial: never by its place in the pack."""
        return [stream(purpose, number, device) for number in self.seeds(seed)]

    def vector(self, value: Callable[[Recipe], float]) -> Tensor:
        """One value a lane, [L], on the device."""
        return torch.tensor([value(recipe) for recipe in self.recipes], device=self.device)

    def lanes_where(self, condition: Callable[[Recipe], bool]) -> list[int]:
        """The lanes whose recipe meets a condition."""
        return [lane for lane, recipe in enumerate(self.recipes) if condition(recipe)]


def pack_of(trials: Sequence[Trial], device: torch.device, task: Task) -> TrainingPack:
    """The pack of some trials.

    Raises:
        ValueError: the trials differ in their recipes' shape.
    """
    if len({trial.recipe.shape for trial in trials}) != 1:
        raise ValueError("the trials of a pack share their shape")
    return TrainingPack(tuple(trials), device, task)
