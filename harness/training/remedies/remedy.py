"""What a remedy is: one method against instability, and the moments of training at which it can act."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from harness.config.recipe import Recipe
from harness.data.tokenized import TokenizedSplit
from harness.training.batches import Batch, DeviceSplit
from harness.training.forward import Forward
from harness.training.lanes import Lanes, Views
from harness.training.pack import TrainingPack
from harness.training.selection import DevLogits, Selection

# Logits [b, C] (of a token task [b, T, C]) and labels, or targets, of a batch -> its loss, summed over the examples.
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Reading:
    """One forward pass before it is made: some lanes' examples at one width."""

    batch: Batch  # rows [l, b]
    width: int  # tokens of each text, T
    all_lanes: bool  # whether every pass of the run is of all lanes at one width
    # [l, b], or of C sequences [l, b, C]: real tokens of the longest text that each is read with; on the CPU.
    lengths: Tensor
    inputs: dict[str, Tensor]  # of the network
    arguments: Views  # weights and settings of the lanes
    forward: Forward
    data: DeviceSplit
    labels_of: Callable[[Tensor], Tensor]  # rows [l, b] -> labels or targets


class Remedy:
    """One method against instability; lane i of every tensor belongs to trial i, and a remedy never mixes lanes.

    It overrides the hooks that it needs, and is made where a recipe of the pack uses it. Hooks are called in the order
    of `order`. Every draw comes from one of `streams`, keyed by a seed of the lane's trial, which a checkpoint saves
    together with `state()`.
    """

    name: ClassVar[str]  # also of its random streams, its inputs of a step and its part of a checkpoint
    order: ClassVar[int]
    is_random: ClassVar[bool] = False  # left out where a loss without chance is wanted
    passes: ClassVar[int] = 1  # how often a step reads its batch

    def __init__(self, pack: TrainingPack) -> None:
        """Read the lanes' recipes; `start` follows when there are weights."""
        self.pack = pack
        self.streams: list[torch.Generator] = []  # one a lane

    def overrides(self, hook: str) -> bool:
        """Whether it does anything at a hook."""
        return getattr(type(self), hook) is not getattr(Remedy, hook)

    @staticmethod
    def used_by(recipe: Recipe) -> bool:
        """Whether a recipe uses it."""
        raise NotImplementedError

    # ---- before training

    def change_split(self, split: TokenizedSplit) -> TokenizedSplit:
        """The training split that batches are taken from, its N examples first."""
        return split

    def change_epoch(self, rows: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """The rows [M] that a lane's next epoch reads, before they are shuffled; `labels` are those of all rows."""
        return rows

    def start(self, lanes: Lanes) -> None:
        """Change the weights that training starts from, and make what depends on them.

        Raises:
            HarnessError: the remedy does not go with the network.
        """

    def scale_rate(self, lane: int, depth: int) -> float:
        """The factor on the learning rate of the layer so far below the head."""
        return 1.0

    def first_update(self, lane: int, depth: int) -> int:
        """The update, counted from 0, with which the layer so far below the head begins to train."""
        return 0

    # ---- a step

    def change_batch(self, batch: Batch, data: DeviceSplit) -> Batch:
        """The rows [L, B] of the data that an update reads; called once an update."""
        return batch

    def weights_for_step(self, weights: Tensor) -> Tensor:
        """The weights [L, P] that the forward pass reads; at the same address at every update."""
        return weights

    def change_pass(self, batch: Batch) -> Batch:
        """The rows [l, b] that a forward pass reads, of a part of the batch; `passes` says how often each example."""
        return batch

    def change_labels(self, labels: Tensor, lanes: list[int]) -> Tensor:
        """Labels [l, b] of some lanes, or what stands for them: targets [l, b, C]."""
        return labels

    def step_inputs(self, reading: Reading) -> dict[str, Tensor]:
        """Further inputs of a forward pass and its loss, [l, …] each."""
        return {}

    def forward_context(self, module: nn.Module, given: Mapping[str, Tensor]) -> AbstractContextManager[object]:
        """What is put around a forward pass, under vmap: `given` are one lane's `step_inputs`."""
        return nullcontext()

    def loss_function(self, loss: Loss) -> Loss:
        """The loss of logits against labels, or what `change_labels` made of them."""
        return loss

    def change_loss(
        self, loss: Tensor, logits: Tensor, labels: Tensor, given: Mapping[str, Tensor], of: Loss
    ) -> Tensor:
        """The loss of a forward pass, [], under vmap; `of` is the loss of logits against labels."""
        return loss

    def change_gradient(self, gradient: Tensor) -> None:
        """Turn the gradient by the weights of the forward pass into that by the lanes' own, [L, P], in place."""

    # ---- after a step

    def after_update(self, weights: Tensor, update: int) -> None:
        """Take in the weights [L, P] after an update, counted from 1."""

    def pull(
        self, weights: Tensor, rates: list[float], scales: list[list[float]] | None, stretches: Iterable[slice]
    ) -> None:
        """Move the weights [L, P] beside the optimizer's update, as a part of it.

        Args:
            weights: changed in place.
            rates: the learning rate of each lane.
            scales: by lane and slot, the factor on it, 0 where a layer is frozen; None where all are 1.
            stretches: columns that lie in a processor's cache together.
        """

    def weights_for_evaluation(self, weights: Tensor, update: int) -> Tensor:
        """The weights [L, P] that are evaluated after an update and that results are of."""
        return weights

    def after_evaluation(self, evaluation: DevLogits, weights: Tensor, selection: Selection) -> None:
        """Take in an evaluation and the weights [L, P] that it is of; stop lanes, or choose what results are of."""

    # ---- what others ask of it

    def fixed_memory(self) -> set[int]:
        """Where inputs of steps lie at every call, as `data_ptr`: a captured step reads them there."""
        return set()

    def measured(self, lane: int, selection: Selection) -> dict[str, Any]:
        """Fields of a lane's `Measured` that it decides."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint saves of it beside its streams; not a copy."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Resume from a `state`."""
