"""What a task's kind is to training: the loss of a batch, and what an evaluation keeps of its logits."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from harness.data.tokenized import Task, TokenizedSplit


class Kind:
    """Texts that have a label each, a class or a number; what other kinds do otherwise, they override.

    A kind is made for a task. Nothing that it computes mixes lanes.
    """

    per_token: ClassVar[bool] = False  # whether labels are [N, T], one a token
    by_token: ClassVar[bool] = False  # whether logits are [b, T, C], of each token
    reads_labels: ClassVar[bool] = False  # whether `reduce` is given the labels
    generates: bool = False  # whether an evaluation needs greedy answers, as a third column
    has_vectors: ClassVar[bool] = True  # whether its head reads one vector a text
    sequences: int | None = None  # how many an example has, C, where it has several: [b, C, T]

    def __init__(self, task: Task) -> None:
        """Read how many outputs the task has."""
        self.task = task

    @property
    def constants(self) -> tuple[object, ...]:
        """Settings of the task that its functions hold, beside what their inputs say: recordings depend on them."""
        return ()

    @property
    def outputs(self) -> int | None:
        """How many of the network's outputs are read; None: all."""
        return self.task.num_labels

    # ---- a step

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of logits [b, C] against labels [b], summed over the examples, [], under vmap."""
        if self.task.label_names is None:
            return F.mse_loss(logits[:, 0], labels, reduction="sum")
        return F.cross_entropy(logits, labels, reduction="sum")

    def divisor(self, labels: Tensor) -> Tensor | None:
        """What the sum over a lane's batch is divided by, [L], from its labels [L, B, …]; None: its examples."""
        return None

    # ---- an evaluation

    def reduce(self, logits: Tensor, labels: Tensor | None) -> Tensor:
        """What is kept of a lane's logits of a batch, under vmap."""
        return logits

    def arrange(self, rows: np.ndarray, split: TokenizedSplit) -> np.ndarray:
        """What all rows of a split gave, [L, R, …], as the answers of its examples, [L, N, C]."""
        return rows

    def threshold(self, logits: np.ndarray) -> float | None:
        """The probability above which a label is given, by answers [N, C] on the dev split; None: there is none."""
        return None

    def decided(self, logits: np.ndarray, threshold: float | None) -> np.ndarray:
        """Answers [N, C] of which the largest is what is answered at a threshold."""
        return logits

    def dev_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of the answers [N, C] of a split against its targets [N], []."""
        if self.task.label_names is None:
            return F.mse_loss(logits[:, 0], labels)
        return F.cross_entropy(logits, labels)
