"""The shape of a model from its config alone: layers, parameters, what a method trains."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.common import hub
from harness.config.recipe import ModelSpec, Recipe

TOKEN_BYTES = 4.5  # of text, English or Japanese, in a tokenizer's vocabulary of some ten thousands


# (layers, hidden, intermediate, vocabulary, positions): the paper's models, for a plan made without them at hand.
_SHAPES = {
    "bert-large-uncased": (24, 1024, 4096, 30522, 512),
    "bert-base-uncased": (12, 768, 3072, 30522, 512),
    "roberta-large": (24, 1024, 4096, 50265, 514),
}


_GPT2 = {"n_layer": "num_hidden_layers", "n_embd": "hidden_size", "n_positions": "max_position_embeddings"}


@lru_cache(maxsize=64)
def _config(spec: ModelSpec) -> dict[str, Any]:
    """What the model's own folder says of it; nothing where that can't be read."""
    try:
        found = json.loads((Path(hub.location(spec)) / "config.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@lru_cache(maxsize=64)
def model_shape(spec: ModelSpec) -> tuple[int, int, int, int, int] | None:
    """(layers, hidden, inner, vocabulary, positions) of a model's config; None where it doesn't say."""
    found = dict(_config(spec))
    try:
        if found.get("model_type") == "gpt2":  # has names of its own
            found |= {name: found[short] for short, name in _GPT2.items()}
            found["intermediate_size"] = found.get("n_inner") or 4 * found["n_embd"]
        keys = "num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size", "max_position_embeddings"
        layers, hidden, inner, words, positions = (int(found[key]) for key in keys)
    except (ValueError, KeyError, TypeError):
        return _SHAPES.get(spec.name.rpartition("/")[2])
    return layers, hidden, inner, words, positions


def family(spec: ModelSpec) -> str | None:
    """What kind of network it is, as `deberta-v2`; None where that isn't known here."""
    return _config(spec).get("model_type")


def layers(spec: ModelSpec) -> int | None:
    """How many layers the encoder has; None where that isn't known here."""
    shape = model_shape(spec)
    return shape[0] if shape else None


def parameter_count(spec: ModelSpec) -> int | None:
    """About how many parameters the encoder has, from its shape; None where that isn't known here."""
    shape = model_shape(spec)
    if shape is None:
        return None
    layers, hidden, inner, words, positions = shape
    return layers * layer_weights(hidden, inner) + (words + positions + hidden) * hidden


def layer_weights(hidden: int, inner: int) -> int:
    """How many weights a transformer layer has."""
    return 4 * hidden * hidden + 2 * hidden * inner + 13 * hidden


def trained_count(recipe: Recipe) -> int | None:
    """About how many parameters a lane trains, the head apart, from the model's shape and the method."""
    shape, everything = model_shape(recipe.model), parameter_count(recipe.model)
    if shape is None or everything is None:
        return None
    layers, hidden, inner, _, _ = shape
    layer = layer_weights(hidden, inner)
    targets = 2 if recipe.lora_targets is None else recipe.lora_targets.count(",") + 1
    match recipe.method:
        case "full":
            return everything
        case "head":
            return 0
        case "top_layers":
            return min(layers, recipe.top_layers or layers) * layer
        case "lora":  # a map of hidden × hidden values; one of the feed-forward's is up to 2.5 times that
            return layers * targets * recipe.lora_rank * 2 * hidden
        case "prefix":
            return layers * 2 * recipe.virtual_tokens * hidden
        case "prompt":
            return recipe.virtual_tokens * hidden
        case "ia3":
            return layers * (2 * hidden + inner)
        case "adapter":
            return layers * 2 * ((2 * recipe.adapter_size + 3) * hidden + recipe.adapter_size)
        case "bitfit":
            return layers * (8 * hidden + inner)
