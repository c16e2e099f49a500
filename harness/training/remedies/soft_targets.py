"""Label smoothing and class weights: targets for each class instead of labels."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.config.recipe import Recipe
from harness.training.batches import Batch, DeviceSplit
from harness.training.pack import TrainingPack
from harness.training.remedies.remedy import Loss, Remedy


class SoftTargets(Remedy):
    """Targets [l, b, C] instead of labels [l, b]: smoothed, and weighted by class.

    Summed over a batch, `balanced` weights give F.cross_entropy with `weight` and `label_smoothing`; the older `on`
    divides by the batch's size instead, so that its loss is larger or smaller with the classes that a batch happens to
    have.
    """

    name = "soft_targets"
    order = 60

    def __init__(self, pack: TrainingPack) -> None:
        """The training set's labels [N] give the weights n / (C · n_c), inverse to a class's frequency."""
        super().__init__(pack)
        labels, self.classes = pack.task.train.labels, pack.task.num_labels
        counts = np.bincount(labels, minlength=self.classes)
        inverse = [len(labels) / (self.classes * count) if count else 1.0 for count in counts.tolist()]
        weights = [inverse if recipe.class_weights else [1.0] * self.classes for recipe in pack.recipes]
        self.weights = torch.tensor(weights, device=pack.device)[:, None]  # [L, 1, C]
        balanced = [recipe.class_weights == "balanced" for recipe in pack.recipes]
        self.balanced = torch.tensor(balanced, device=pack.device) if any(balanced) else None  # [L]
        self.shares = torch.ones(len(pack.recipes), 1, 1, device=pack.device)  # [L, 1, 1]
        self.smoothing = pack.vector(lambda recipe: recipe.label_smoothing)[:, None, None]  # [L, 1, 1]

    @staticmethod
    def used_by(recipe: Recipe) -> bool:
        """Whether labels are smoothed or classes weighted."""
        return recipe.soft_targets

    def change_batch(self, batch: Batch, data: DeviceSplit) -> Batch:
        """Take in the labels of a whole batch, whose weights `balanced` divides by: a part of it doesn't know.

        The sum over the batch is divided by B elsewhere, so targets are multiplied by B over the sum of the weights;
        by exactly 1 in lanes without.
        """
        if self.balanced is not None:
            labels = data.labels_of(batch.rows)  # [L, B]
            total = self.weights[:, 0].gather(1, labels).sum(dim=1)  # [L]
            shares = torch.where(self.balanced, labels.shape[1] / total, torch.ones_like(total))
            self.shares = shares[:, None, None]
        return batch

    def change_labels(self, labels: Tensor, lanes: list[int]) -> Tensor:
        """The targets of some lanes' labels [l, b], a part of the batch."""
        smoothing, hard = self.smoothing[lanes], F.one_hot(labels, self.classes).float()
        return (hard * (1 - smoothing) + smoothing / self.classes) * self.weights[lanes] * self.shares[lanes]

    def loss_function(self, loss: Loss) -> Loss:
        """The cross-entropy against targets."""
        return soft_cross_entropy


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """The cross-entropy of logits [b, C] against targets [b, C], summed."""
    return -(targets * F.log_softmax(logits, dim=-1)).sum()
