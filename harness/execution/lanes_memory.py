"""How much memory a lane takes, and how many fit."""

from __future__ import annotations

from harness.config.recipe import METHODS, Recipe
from harness.execution.machine import detect_hardware
from harness.execution.model_shape import model_shape, parameter_count, trained_count

_CHOICES = 4  # of an example, as SWAG and RACE have them; how many there are is known when the data are read


def lane_bytes(recipe: Recipe, parameters: int | None) -> int | None:
    """Memory a lane takes: what backward keeps, and of each of so many trained parameters weight, gradient, two moments
    and a spare, in float32.
    """
    shape = model_shape(recipe.model)
    if shape is None or parameters is None:
        return None
    layers, hidden, inner, words, _ = shape
    method = METHODS[recipe.method]
    if method.top_only:
        layers = min(layers, recipe.top_layers or 1)
    width = recipe.max_length + recipe.peft_config.virtual_positions
    tokens = recipe.batch_size * recipe.forward_passes * width
    if recipe.task.kind == "choice":
        tokens *= _CHOICES
    heads = max(1, hidden // 64)
    keys = width + (recipe.virtual_tokens if method.virtual_tokens == "keys" else 0)
    # Kept for backward in a layer: about 16 values of the hidden width and 3 of the inner a token, and 3 maps of
    # attention a head.
    of_layer = tokens * (16 * hidden + 3 * inner + 3 * heads * keys)
    # With checkpointing what enters each layer, and all of the one that is computed again.
    activations = of_layer + layers * tokens * hidden if recipe.activation_checkpointing else layers * of_layer
    if recipe.task.kind == "completion":
        # A language model's logits, their logarithms and the gradient; an evaluation keeps two of them, of more rows.
        activations += max(3 * tokens, 2 * recipe.eval_batch_size * width) * words
    # Mixed weights and their factors; an average and its copy to evaluate; the best so far.
    copies = 2 * (recipe.mixout > 0) + 2 * (recipe.averaging != "none") + recipe.selects_checkpoint
    in_float32 = 4 * ((5 + copies) * parameters + activations)
    # Half of what is kept takes two bytes then, and the weights stand there once more in two.
    return in_float32 - activations + 2 * parameters if recipe.precision == "bf16" else in_float32


def memory_budget(device: str) -> int:
    """Bytes that one worker's lanes may fill on this machine: a core's share of half the memory, or most of a GPU."""
    if device == "cpu":
        return detect_hardware().memory // (2 * detect_hardware().cores)
    smallest = min((memory for _, memory in detect_hardware().gpus), default=16 * 2**30)
    return int(0.8 * smallest)


def pack_size(recipe: Recipe, device: str, wanted: int | None, memory: int | None = None) -> int:
    """How many lanes train together: what was asked for, else what fits and pays on that kind of device.

    `memory` is what the lanes may fill, in bytes: this machine's `room` where none is given.
    """
    if wanted is not None:
        return wanted
    parameters = parameter_count(recipe.model)
    if parameters is None:
        return 1
    # On a CPU small matrices gain from packs; from a few million parameters on a core is busy with one lane.
    usual = 16 if device != "cpu" else 8 if parameters < 5_000_000 else 1
    return min(usual, most_lanes(recipe, device, memory))


_MOST_LANES = 32  # from 16 on a lane-step hardly gets faster, and a pack that is lost costs more


def most_lanes(recipe: Recipe, device: str, memory: int | None = None) -> int:
    """How many lanes fit beside what they share, as `pack_size`; 1 where the model's shape isn't known."""
    everything = parameter_count(recipe.model)
    lane = lane_bytes(recipe, trained_count(recipe))
    if lane is None or everything is None:
        return 1
    frozen = 0 if recipe.method == "full" else 4 * everything  # once, whatever the lanes
    left = (memory_budget(device) if memory is None else memory) - frozen
    return max(1, min(_MOST_LANES, left // lane))
