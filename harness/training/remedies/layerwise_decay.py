"""Layer-wise decay of the learning rate: lower layers train more slowly."""

from __future__ import annotations

from harness.config.recipe import Recipe
from harness.training.remedies.remedy import Remedy


class LayerwiseDecay(Remedy):
    """The rate of a layer is that of the head times `layerwise_lr_decay` for each layer between (Zhang et al. 2021)."""

    name = "layerwise_decay"
    order = 120

    @staticmethod
    def used_by(recipe: Recipe) -> bool:
        """Whether rates differ by layer."""
        return recipe.layerwise_lr_decay != 1

    def scale_rate(self, lane: int, depth: int) -> float:
        """The factor on the learning rate of the layer so far below the head."""
        return self.pack.recipes[lane].layerwise_lr_decay ** depth
