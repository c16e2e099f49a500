"""Mixout: weights mixed with their pretrained values anew in every update."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.config.recipe import Recipe
from harness.training.lanes import Lanes
from harness.training.pack import TrainingPack
from harness.training.parts import Parts
from harness.training.remedies.remedy import Remedy
from harness.training.transfer import copied


class Mixout(Remedy):
    """Weights mixed with their pretrained values anew in every update (Lee et al. 2020, arXiv:1909.11299).

    All outgoing weights of an input neuron of a linear layer are replaced together with probability p, as in the
    paper and its code, and rescaled: (x̂ − p·w0) / (1 − p). The head and what was re-initialised have no pretrained
    values and are left as they are. A decision takes 16 random bits, so p is rounded to 1/65536.
    """

    name = "mixout"
    order = 90
    is_random = True

    def __init__(self, pack: TrainingPack) -> None:
        """One stream a lane, on the device; lanes whose rate is 0 draw nothing."""
        super().__init__(pack)
        self.streams = pack.streams("mixout", device=pack.device)
        self.lanes = pack.lanes_where(self.used_by)
        self.factors: dict[int, Tensor] = {}  # lane -> d mixed / d weights of this update, [P]
        self.mixed: Tensor  # [L, P]
        self.parts: Parts

    @staticmethod
    def used_by(recipe: Recipe) -> bool:
        """Whether p is above 0."""
        return recipe.mixout > 0

    def start(self, lanes: Lanes) -> None:
        """Number the decisions of an update."""
        self.parts, self.first_pretrained = lanes.parts, lanes.first_pretrained
        self.mixed = copied(lanes.weights)
        self.drawn = sum(lanes.parts.columns)
        self._decision = _decisions(lanes.parts)

    @torch.no_grad()
    def weights_for_step(self, weights: Tensor) -> Tensor:
        """The mixed weights, [L, P]."""
        self.mixed.copy_(weights)
        pretrained = self.parts.pretrained
        for lane in self.lanes:
            cut = round(self.pack.recipes[lane].mixout * 65536)
            bits = torch.empty((self.drawn + 3) // 4, dtype=torch.int64, device=weights.device)
            bits.random_(-(2**63), None, generator=self.streams[lane])
            scale = torch.ge(bits.view(torch.int16)[: self.drawn], cut - 32768).float().mul_(65536 / (65536 - cut))
            left = (self._decision < 0) | (self.parts.slot < self.first_pretrained[lane])
            factor = scale[self._decision.clamp(min=0)].masked_fill_(left, 1.0)
            # Kept: w0 + (w − w0)/(1−p) = (w − p·w0)/(1−p). Replaced: w0.
            moved = pretrained + factor * (weights[lane] - pretrained)
            self.mixed[lane].copy_(torch.where(left, weights[lane], moved))
            self.factors[lane] = factor
        return self.mixed

    def change_gradient(self, gradient: Tensor) -> None:
        """Turn the gradient by the mixed weights into that by the weights themselves."""
        for lane in self.lanes:
            gradient[lane].mul_(self.factors.pop(lane))


def _decisions(parts: Parts) -> Tensor:
    """Which decision each number of the weights follows, [P]; -1 for what is no weight of a linear layer."""
    rows, drawn = [], 0
    for size, columns in zip(parts.sizes, parts.columns, strict=True):
        row = torch.arange(drawn, drawn + columns, dtype=torch.int32) if columns else torch.tensor([-1])
        rows.append(row.to(torch.int32).repeat(size // len(row)))
        drawn += columns
    return torch.cat(rows).to(parts.device)
