"""AdamW with its bias-correction switch, schedule and clipping, each with one value a lane."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from harness.sweep import Recipe


def warmup_linear(step: int, total_steps: int, warmup_ratio: float) -> float:
    """The factor on the learning rate of update `step` (from 0): up over int(ratio · total) steps, then down to 0.

    The first update has factor 0 where there is a warm-up, as in the paper's code (transformers'
    get_linear_schedule_with_warmup under LambdaLR).
    """
    warmup = int(warmup_ratio * total_steps)
    if step < warmup:
        return step / warmup
    return max(0.0, (total_steps - step) / max(1, total_steps - warmup))


class LaneAdamW:
    """The AdamW of the paper's code over flat weights [L, P], every hyperparameter a vector [L].

    `transformers.AdamW` (until 4.x; Mosbach et al. 2021 used it): ε is added to the uncorrected √v, the decay comes
    after the update and is multiplied by the uncorrected rate, and bias correction multiplies the step size by
    √(1−β2^t)/(1−β1^t). Nothing here mixes lanes.
    """

    def __init__(self, weights: Tensor, decayed: Tensor, recipes: Sequence[Recipe], total_steps: int) -> None:
        """Take `weights` [L, P], changed in place, and `decayed` [P], 1 where weight decay applies and 0 elsewhere."""
        self.weights, self.decayed, self.recipes, self.total_steps = weights, decayed, recipes, total_steps
        self.first = torch.zeros_like(weights)  # m
        self.second = torch.zeros_like(weights)  # v
        self.done = 0
        self._decays = any(recipe.weight_decay > 0 for recipe in recipes)

    def _lanes(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=self.weights.dtype, device=self.weights.device)[:, None]  # [L, 1]

    def rates(self) -> list[float]:
        """The learning rate of the coming update, per lane."""
        return [r.lr * warmup_linear(self.done, self.total_steps, r.warmup_ratio) for r in self.recipes]

    def step(self, gradient: Tensor) -> Tensor:
        """One update by `gradient` [L, P] (clipped in place); returns its global norm before clipping, [L]."""
        # A norm a lane, not one reduction over [L, P]: how torch splits a reduction depends on its shape.
        # `sum` adds in a cascade, where `vector_norm` loses digits over millions of parameters.
        norms = torch.stack([lane.square().sum().sqrt() for lane in gradient])
        if any(recipe.max_grad_norm is not None for recipe in self.recipes):
            limits = self._lanes([recipe.max_grad_norm or math.inf for recipe in self.recipes])
            # As clip_grad_norm_: min(1, limit / (norm + 1e-6)); a NaN norm stays NaN and spoils this lane alone.
            gradient.mul_((limits / (norms[:, None] + 1e-6)).clamp(max=1.0))
        rates, count = self.rates(), self.done + 1
        sizes = [
            rate * math.sqrt(1 - r.beta2**count) / (1 - r.beta1**count) if r.bias_correction else rate
            for rate, r in zip(rates, self.recipes, strict=True)
        ]
        beta1, beta2 = self._lanes([r.beta1 for r in self.recipes]), self._lanes([r.beta2 for r in self.recipes])
        rest1 = self._lanes([1 - r.beta1 for r in self.recipes])
        rest2 = self._lanes([1 - r.beta2 for r in self.recipes])
        eps = self._lanes([r.eps for r in self.recipes])
        self.first.mul_(beta1).addcmul_(gradient, rest1)
        self.second.mul_(beta2).addcmul_(gradient.mul_(gradient), rest2)  # the gradient is spent
        denominator = torch.sqrt(self.second, out=gradient).add_(eps)
        self.weights.addcmul_(torch.div(self.first, denominator, out=denominator), self._lanes(sizes), value=-1)
        if self._decays:
            decay = self._lanes([rate * r.weight_decay for rate, r in zip(rates, self.recipes, strict=True)])
            self.weights.addcmul_(self.weights * self.decayed, decay, value=-1)
        self.done = count
        return norms
