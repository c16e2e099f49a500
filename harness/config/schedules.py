"""The size of each step by a recipe, of all that is known before training: schedule and bias correction."""

from __future__ import annotations

import math

from harness.config.recipe import Recipe


def warmup_linear(step: int, total_steps: int, warmup_ratio: float) -> float:
    """The factor on the learning rate of update `step` (from 0): up over int(ratio · total) steps, then down to 0.

    The first update has factor 0 where there is a warm-up, as in the paper's code (transformers'
    get_linear_schedule_with_warmup under LambdaLR).
    """
    warmup = int(warmup_ratio * total_steps)
    if step < warmup:
        return step / warmup
    return max(0.0, (total_steps - step) / max(1, total_steps - warmup))


def factor(step: int, total_steps: int, recipe: Recipe) -> float:
    """The factor on the learning rate of update `step` (from 0) by the recipe's schedule.

    After the warm-up, as transformers' schedules of these names; `polynomial` goes from lr to `schedule_end`, and
    `inverse_sqrt` has the warm-up as its timescale, 10,000 updates where there is none.
    """
    if recipe.schedule == "linear":
        return warmup_linear(step, total_steps, recipe.warmup_ratio)
    warmup = int(recipe.warmup_ratio * total_steps)
    if step < warmup:
        return step / warmup
    left = 1 - min(1.0, (step - warmup) / max(1, total_steps - warmup))
    if recipe.schedule == "cosine":
        return 0.5 * (1 - math.cos(math.pi * left))
    if recipe.schedule == "polynomial":
        end = recipe.schedule_end / recipe.lr
        return float((1 - end) * left**recipe.schedule_power + end)
    if recipe.schedule == "inverse_sqrt":
        scale = warmup or 10_000
        return 1 / math.sqrt((step - warmup + scale) / scale)
    return 1.0


def correction(count: int, recipe: Recipe) -> float:
    """What bias correction multiplies the size of the update number `count` (from 1) by; 1 without it."""
    return math.sqrt(1 - recipe.beta2**count) / (1 - recipe.beta1**count) if recipe.bias_correction else 1.0
