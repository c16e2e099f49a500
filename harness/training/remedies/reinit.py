"""Re-initialisation: the top layers begin afresh."""

from __future__ import annotations

from typing import Any

import torch

from harness.config.recipe import Recipe
from harness.config.recipe_rules import check_reinit
from harness.models import normalisation, pretrained
from harness.training.lanes import Lanes
from harness.training.numerics import stream
from harness.training.remedies.remedy import Remedy


class Reinit(Remedy):
    """Draws the top `reinit_layers` layers and the pooler of a lane afresh, as the model's own initialisation does.

    Weights N(0, std), biases 0, normalisations' scales 1 (0 where the model adds 1 to them), in the module's order
    (Zhang et al. 2021, arXiv:2006.05987).
    """

    name = "reinit"
    order = 30

    @staticmethod
    def used_by(recipe: Recipe) -> bool:
        """Whether layers begin afresh."""
        return recipe.reinit_layers > 0

    @torch.no_grad()
    def start(self, lanes: Lanes) -> None:
        """Draw the layers; refuse more than the model has."""
        for lane, (recipe, seed) in enumerate(zip(self.pack.recipes, self.pack.seeds("init_seed"), strict=True)):
            if self.used_by(recipe):
                check_reinit(recipe, lanes.parts.count - 3)
                lanes.first_pretrained[lane] = 2 + recipe.reinit_layers
                # A stream of its own, so that the head is that of the same seed without it.
                self._draw(lanes, lane, stream(self.name, seed))

    def _draw(self, lanes: Lanes, lane: int, generator: torch.Generator) -> None:
        config: Any = lanes.module.config
        std = getattr(config, "initializer_range", pretrained.HEAD_STD)
        scales = normalisation.scales(lanes.module)
        for (name, view), slot in zip(lanes.views.items(), lanes.parts.slots, strict=True):
            if 1 <= slot < lanes.first_pretrained[lane]:
                if view[lane].dim() > 1 and name not in scales:
                    view[lane].copy_(torch.empty(view[lane].shape).normal_(0.0, std, generator=generator))
                else:
                    view[lane].fill_(scales.get(name, 0.0))
