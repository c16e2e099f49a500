"""AdamW with its bias-correction switch, schedule and clipping, each with one value a lane."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from harness.sweep import Recipe

# A norm is taken over blocks, then over the blocks' norms, so that float32 keeps its digits over millions of values.
_NORM_BLOCK = 512
# Values (over all lanes) that a processor's cache holds beside their gradient and moments.
_CACHED = 2**15


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
        self.range_test: Callable[[int], float] | None = None  # the rate of every lane, instead of recipe and schedule
        self._decays = any(recipe.weight_decay > 0 for recipe in recipes)
        self._beta1, self._beta2 = self._lanes([r.beta1 for r in recipes]), self._lanes([r.beta2 for r in recipes])
        self._rest1 = self._lanes([1 - r.beta1 for r in recipes])
        self._rest2 = self._lanes([1 - r.beta2 for r in recipes])
        self._eps = self._lanes([r.eps for r in recipes])
        # On a CPU the dozen operations of an update run over one stretch of the weights after the other, which stays
        # in the cache; stretches end at a vector's end, so that they change no bit.
        on_cpu = weights.device.type == "cpu"
        self._chunk = max(1024, _CACHED // len(weights) // 1024 * 1024) if on_cpu else weights.shape[1]

    def _lanes(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=self.weights.dtype, device=self.weights.device)[:, None]  # [L, 1]

    def rates(self) -> list[float]:
        """The learning rate of the coming update, per lane."""
        if self.range_test is not None:
            return [self.range_test(self.done)] * len(self.recipes)
        return [r.lr * warmup_linear(self.done, self.total_steps, r.warmup_ratio) for r in self.recipes]

    def step(self, gradient: Tensor) -> Tensor:
        """One update by `gradient` [L, P] (clipped in place); returns its global norm before clipping, [L]."""
        # A norm a lane, not one reduction over [L, P]: how torch splits a reduction depends on its shape.
        norms = torch.stack([_norm(lane) for lane in gradient])
        rates, count = self.rates(), self.done + 1
        sizes = [
            rate * math.sqrt(1 - r.beta2**count) / (1 - r.beta1**count) if r.bias_correction else rate
            for rate, r in zip(rates, self.recipes, strict=True)
        ]
        # As clip_grad_norm_: min(1, limit / (norm + 1e-6)); a NaN norm stays NaN and spoils this lane alone.
        limits = self._lanes([recipe.max_grad_norm or math.inf for recipe in self.recipes])
        clip = (limits / (norms[:, None] + 1e-6)).clamp(max=1.0)
        step = self._lanes(sizes)
        decay = self._lanes([rate * r.weight_decay for rate, r in zip(rates, self.recipes, strict=True)])
        width = self._chunk
        for start in range(0, self.weights.shape[1], width):
            here = slice(start, start + width)
            w, g, m, v = (x[:, here] for x in (self.weights, gradient, self.first, self.second))  # [L, width]
            g.mul_(clip)
            m.mul_(self._beta1).addcmul_(g, self._rest1)
            v.mul_(self._beta2).addcmul_(g.mul_(g), self._rest2)  # the gradient is spent
            denominator = torch.sqrt(v, out=g).add_(self._eps)
            w.addcmul_(torch.div(m, denominator, out=denominator), step, value=-1)
            if self._decays:
                w.addcmul_(w * self.decayed[here], decay, value=-1)
        self.done = count
        return norms


def _norm(values: Tensor) -> Tensor:
    """The Euclidean norm of a vector [P], block by block."""
    whole = len(values) // _NORM_BLOCK * _NORM_BLOCK
    blocks = torch.linalg.vector_norm(values[:whole].view(-1, _NORM_BLOCK), dim=1)
    rest = torch.linalg.vector_norm(values[whole:])
    return torch.cat([blocks, rest[None]]).square().sum().sqrt()  # `sum` adds pairwise
