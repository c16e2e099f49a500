"""Freezing and gradual unfreezing: the head trains first."""

from __future__ import annotations

from harness.config.recipe import Recipe
from harness.training.remedies.remedy import Remedy


class Freezing(Remedy):
    """All but the head is frozen for `freeze_steps` updates, or opened layer by layer, one every `unfreeze_every`.

    Gradual unfreezing: Howard & Ruder (2018), arXiv:1801.06146. A frozen layer has no part in the gradient's norm and
    its moments stay 0; bias correction counts from its first update.
    """

    name = "freezing"
    order = 130

    @staticmethod
    def used_by(recipe: Recipe) -> bool:
        """Whether a layer is frozen at first."""
        return bool(recipe.freeze_steps or recipe.unfreeze_every)

    def first_update(self, lane: int, depth: int) -> int:
        """The update, counted from 0, with which the layer so far below the head begins to train."""
        recipe = self.pack.recipes[lane]
        if recipe.unfreeze_every:
            return depth * recipe.unfreeze_every
        return recipe.freeze_steps if depth else 0
