"""Pretrained weight decay: weights are pulled to where they began, not to 0."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from harness.config.recipe import Recipe
from harness.training.lanes import Lanes
from harness.training.remedies.remedy import Remedy


class PretrainedDecay(Remedy):
    """w ← w − rate · λ · (w − w0) where weight decay applies and the start was pretrained.

    Decoupled from the gradient, after the update, as this AdamW's weight decay (prior weight decay: Wiese et al. 2017;
    L2-SP: Li et al. 2018).
    """

    name = "pretrained_decay"
    order = 140

    @staticmethod
    def used_by(recipe: Recipe) -> bool:
        """Whether λ is above 0."""
        return recipe.pretrained_decay > 0

    def start(self, lanes: Lanes) -> None:
        """Know what is pulled."""
        self.lanes = lanes
        self.decayed = lanes.decayed()  # [P]

    def pull(
        self, weights: Tensor, rates: list[float], scales: list[list[float]] | None, stretches: Iterable[slice]
    ) -> None:
        """Pull the lanes that use it."""
        parts, stretches = self.lanes.parts, list(stretches)
        for lane, recipe in enumerate(self.pack.recipes):
            if not self.used_by(recipe):
                continue
            rate, first = rates[lane] * recipe.pretrained_decay, self.lanes.first_pretrained[lane]
            by_slot = [
                rate * (scales[lane][slot] if scales else 1.0) if slot >= first else 0.0 for slot in range(parts.count)
            ]
            own = weights[lane]
            for columns in stretches:
                share = parts.spread([by_slot], columns, weights.dtype)[0].mul_(self.decayed[columns])
                own[columns].addcmul_(own[columns] - parts.pretrained[columns], share, value=-1)
