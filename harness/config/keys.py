"""Every key of a sweep file with its type, its default and what it means."""

from __future__ import annotations

from typing import NamedTuple, get_args

from pydantic import BaseModel

from harness.common.text import show
from harness.config.axes import FILTERS
from harness.config.recipe import BaselineName, ModelSpec, Recipe, TaskSpec
from harness.config.sweep_file import SWEEP_KEYS
from harness.config.yaml_reader import field_rule


class Key(NamedTuple):
    """A key of a sweep file, as `harness keys` lists it; `default` is empty where a value must be given."""

    name: str
    takes: str
    default: str


_OF_A_SWEEP = {
    "title": ("words", "the file's name"),
    "stand_in": ("words that say what it stands in for", "null"),
    "min_gpu_gib": ("a number of 0 or more: the GPU that a profile needs", "none"),
    "recipes": ("{name: {key: value, …}, …}: an axis of bundles", "none"),
    "seeds": ("1..25, or [1, 2, 3]", ""),
    "init_seed": ("seeds of the head, or one to hold it", "the seed"),
    "order_seed": ("seeds of the data's order, or one to hold it", "the seed"),
    "dropout_seed": ("seeds of dropout, or one to hold it", "the seed"),
    "baselines": (f"a list of {', '.join(get_args(BaselineName))}", "none"),
    "record": ("on or off: what `harness diagnose` reads", "on"),
    "include": ("a list of {axis: value or list}: these cells alone", "all"),
    "exclude": ("a list of {axis: value or list}: cells to leave out", "none"),
    "search": ("what `harness search` looks through, as in sweeps/search_rte.yaml", "none"),
    "profiles": ("{name: {key: value, …}, …}: variants of the file for machines; not with --set", "none"),
}


def all_keys() -> tuple[Key, ...]:
    """All keys of a sweep file in its order; those of a task and a model by their path, as `--set` takes them."""
    found = []
    for name in Recipe.model_fields:
        found.append(_key(Recipe, name, name))
        inner: dict[str, type[BaseModel]] = {"task": TaskSpec, "model": ModelSpec}
        if name in inner:
            found += [_key(inner[name], part, f"{name}.{part}") for part in inner[name].model_fields]
    return (*found, *(Key(name, *_OF_A_SWEEP[name]) for name in (*SWEEP_KEYS, *FILTERS, "search", "profiles")))


def _key(model: type[BaseModel], field: str, name: str) -> Key:
    given = model.model_fields[field]
    default = "" if given.is_required() else "null" if given.default is None else show(given.default)
    return Key(name, field_rule(model, field)[1], default)
