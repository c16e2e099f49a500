"""Oversampling: every class is read as often as the largest."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.config.recipe import Recipe
from harness.training.remedies.remedy import Remedy


class Oversampling(Remedy):
    """The rarer classes of an epoch are filled up by drawing again from their own examples."""

    name = "oversampling"
    order = 20  # after augmentation, whose copies are filled up too
    is_random = True

    @staticmethod
    def used_by(recipe: Recipe) -> bool:
        """Whether classes are made equal."""
        return recipe.oversample

    def change_epoch(self, rows: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """All rows, class by class, then the draws of each class."""
        of_rows = labels[rows]
        classes = [rows[of_rows == label] for label in torch.unique(of_rows)]
        most = max(map(len, classes))
        more = [own[torch.randint(len(own), (most - len(own),), generator=generator)] for own in classes]
        return torch.cat([*classes, *more])
