"""The shape of a model from its config alone: layers, parameters, what a method trains."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.common import hub
from harness.config.methods import ModelShape
from harness.config.recipe import METHODS, ModelSpec, Recipe

TOKEN_BYTES = 4.5  # of text, English or Japanese, in a tokenizer's vocabulary of some ten thousands


# The paper's models, for a plan made without them at hand.
_SHAPES = {
    "bert-large-uncased": ModelShape(24, 1024, 4096, 30522, 512),
    "bert-base-uncased": ModelShape(12, 768, 3072, 30522, 512),
    "roberta-large": ModelShape(24, 1024, 4096, 50265, 514),
}


_GPT2 = {"n_layer": "num_hidden_layers", "n_embd": "hidden_size", "n_positions": "max_position_embeddings"}


@lru_cache(maxsize=64)
def _config(spec: ModelSpec) -> dict[str, Any]:
    """What the model's own folder says of it; nothing where that can't be read."""
    try:
        config = json.loads((Path(hub.location(spec)) / "config.json").read_text())
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


@lru_cache(maxsize=64)
def model_shape(spec: ModelSpec) -> ModelShape | None:
    """The sizes in a model's config; None where it doesn't say."""
    config = dict(_config(spec))
    try:
        if config.get("model_type") == "gpt2":  # has names of its own
            config |= {name: config[short] for short, name in _GPT2.items()}
            config["intermediate_size"] = config.get("n_inner") or 4 * config["n_embd"]
        keys = "num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size", "max_position_embeddings"
        return ModelShape(*(int(config[key]) for key in keys))
    except (ValueError, KeyError, TypeError):
        return _SHAPES.get(spec.name.rpartition("/")[2])


def known_type(spec: ModelSpec) -> tuple[str, int] | None:
    """What transformers calls a model that goes by a name known here, and its layers; None of any other."""
    name = spec.name.rpartition("/")[2]
    if spec.folder is not None or name not in _SHAPES:
        return None
    return name.partition("-")[0], _SHAPES[name].layers


def family(spec: ModelSpec) -> str | None:
    """What kind of network it is, as `deberta-v2`; None where that isn't known here."""
    return _config(spec).get("model_type")


def layers(spec: ModelSpec) -> int | None:
    """How many layers the encoder has; None where that isn't known here."""
    shape = model_shape(spec)
    return shape.layers if shape else None


def parameter_count(spec: ModelSpec) -> int | None:
    """About how many parameters the encoder has, from its shape; None where that isn't known here."""
    shape = model_shape(spec)
    return None if shape is None else shape.weights


def trained_count(recipe: Recipe) -> int | None:
    """About how many parameters a lane trains, the head apart, from the model's shape and the method."""
    shape = model_shape(recipe.model)
    return None if shape is None else METHODS[recipe.method].trained_weights(recipe, shape)
