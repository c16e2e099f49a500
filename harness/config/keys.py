"""Every key of a sweep file: what it takes, its default and what it means, from the fields of the models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, get_args

from pydantic import BaseModel

from harness.common.text import show
from harness.config.axes import FILTERS
from harness.config.field_types import field_type
from harness.config.recipe import BaselineName, ModelSpec, Recipe, TaskFiles, TaskSpec, WordList
from harness.config.score_sources import EXAMPLE
from harness.config.script import Resources
from harness.config.search_space import Pruner, Range, Search
from harness.config.seed_rule import SeedRule
from harness.config.sweep_file import SWEEP_KEYS


class Key(NamedTuple):
    """A key of a sweep file, as `harness keys` lists it.

    Attributes:
        name: Its path, as `--set` takes it: `lr`, `task.metric`.
        takes: The values that it takes: "a number > 0".
        default: Its default; empty where a value must be given.
        description: One line that says what it means.
    """

    name: str
    takes: str
    default: str
    description: str


_OF_A_SWEEP = {
    "title": ("text", "the file's name", "Title of the report."),
    "stand_in": ("text", "null", "What the sweep stands in for, shown beside every result."),
    "min_gpu_gib": ("a number >= 0", "none", "GPU memory, GiB, that a machine needs to run this profile by default."),
    "recipes": ("{name: {key: value, …}, …}", "none", "An axis of named bundles of settings."),
    "seeds": (
        "1..25, [1, 2, 3], or {first: 5, at_most: 50, until: …}", "",
        "The seeds that every cell is trained with; or the rule by which they are added.",
    ),
    "init_seed": ("a seed or a list", "the seed", "Seed of the head's weights; one holds it, a list crosses it."),
    "order_seed": ("a seed or a list", "the seed", "Seed of the examples' order; one holds it, a list crosses it."),
    "dropout_seed": ("a seed or a list", "the seed", "Seed of dropout; one holds it, a list crosses it."),
    "baselines": (
        f"a list of {', '.join(get_args(BaselineName))}", "none", "Classical baselines to compare the cells with.",
    ),
    "record": ("on or off", "on", "Record what `harness diagnose` reads; changes no result."),
    "reference": (
        "{axis: value, …}", "the first value", "Of an axis the value that the report compares the others with.",
    ),
    "include": ("a list of {axis: value or list}", "all", "Train these cells only."),
    "exclude": ("a list of {axis: value or list}", "none", "Leave these cells out."),
    "search": ("{space: …, …}", "none", "Search for a recipe instead of listing cells (`harness search`)."),
    "profiles": ("{name: {key: value, …}, …}", "none", "Variants for other machines; the first is the default."),
}  # fmt: skip


_SOURCE = "{file: …, key: …, row: last or best} or {stdout: a regular expression}"
# The keys of a sweep that runs somebody's own script, in the file's order; every other key but those above is an axis.
_OF_A_SCRIPT = {
    "command": ("text", "none", "Run this for each trial: {placeholders} for axes, {seed}, {out}, {here}, {python}."),
    "function": ("module:function", "none", "Instead of a command, call this with the axes, seed, out and report."),
    "shell": ("on or off", "off", "Run the command by `sh -c`."),
    "env": ("{NAME: text, …}", "none", "Environment variables, beside the present ones."),
    "cwd": ("a folder", "where harness is called", "The folder that the command runs in."),
    "inputs": ("a list of files", "none", "Files that decide the result: other content is another trial."),
    "timeout": ("a time, as 2h, 90m or 30s", "none", "End a run that takes longer."),
    "retries": ("a whole number from 0 to 100", "1", "How often a crashed run is tried again."),
    "repeats": ("a whole number from 1 to 100", "1", "How often the first seed of each cell is run."),
    "resources": ("{gpus: …, cpus: …, memory_gib: …}", "one core", "What one run takes of a machine."),
    "score": (_SOURCE, "", f"Where the final score is, as {EXAMPLE.removeprefix('score: ')}."),
    "better": ("higher or lower", "higher", "Which scores are better."),
    "also": ("{name: as score, …}", "none", "Further numbers to keep."),
    "curves": ("{loss: as score, score: as score}", "none", "Training loss and dev score over the steps."),
    "predictions": ("{file: …, label: …, answer: …}", "none", "The labels and answers on the dev set, for its noise."),
    "model_out": ("a path in {out}", "none", "The file or folder that --keep saves."),
    "keep_out": ("on or off", "on", "Whether {out} stays after a finished run."),
    "majority": ("a number", "none", "A run that is not better than this has failed."),
    "failed_below": ("a number", "none", "A run that is worse than this has failed."),
    "metric": ("text", "the score's key", "What the score is called."),
}


# Keys that hold keys of their own, in a sweep file.
_INNER: dict[str, type[BaseModel]] = {
    "task": TaskSpec, "task.files": TaskFiles, "model": ModelSpec, "synonyms": WordList, "translator": ModelSpec,
    "back_translator": ModelSpec, "search": Search, "search.pruner": Pruner, "resources": Resources,
}  # fmt: skip


# Fields of a search whose keys have another form than the fields.
_OF_A_SEARCH = {
    "space": ("{field: {low: …, high: …}, field: [a, b], …}", "", Search.model_fields["space"].description or ""),
    "pruner": ("a name, or {name: …, …}", "null", Search.model_fields["pruner"].description or ""),
    "confirm": ("{best: 3, seeds: 101..108}", "none", "Train the `best` recipes again on fresh seeds."),
}


def all_keys() -> tuple[Key, ...]:
    """All keys of a sweep file in its order, each followed by the keys inside it."""
    keys: list[Key] = []
    for name in Recipe.model_fields:
        keys += [_key(Recipe, name, name), *_keys_in(name)]
    for name in (*SWEEP_KEYS, *FILTERS, "search", "profiles"):
        keys += [Key(name, *_OF_A_SWEEP[name]), *_keys_in(name)]
    for name, told in _OF_A_SCRIPT.items():
        keys += [Key(name, *told), *_keys_in(name)]
    return tuple(keys)


def _keys_in(outer: str) -> Iterator[Key]:
    """The keys that a key holds, and theirs."""
    for field in _INNER[outer].model_fields if outer in _INNER else ():
        name = f"{outer}.{field}"
        if outer == "search" and field in ("best", "confirm_rule"):  # which stand inside `confirm`
            continue
        if outer == "search" and field in _OF_A_SEARCH:
            yield Key(name, *_OF_A_SEARCH[field])
        else:
            yield _key(_INNER[outer], field, name)
        yield from _keys_in(name)
    if outer == "seeds":
        for name, (field, takes, default) in _OF_A_RULE.items():
            yield Key(f"seeds.{name}", takes, default, SeedRule.model_fields[field].description or "")
    if outer == "search":
        for field in ("low", "high", "log", "step", "choices", "when"):
            yield Key(f"search.space.FIELD.{field}", *_OF_A_RANGE[field], Range.model_fields[field].description or "")


# Key of a rule that adds seeds -> its field, what it takes, its default.
_OF_A_RULE = {
    "from": ("start", "a whole number >= 0", "1"),
    "first": ("first", "a whole number >= 1", ""),
    "at_most": ("at_most", "a whole number > first", ""),
    "step": ("step", "a whole number >= 1", "first"),
    "until": ("until", "a goal, or a list of goals", "none"),
    "budget": ("budget_hours", "a time, as 3 GPU hours", "none"),
}


_OF_A_RANGE = {
    "low": ("a number", ""),
    "high": ("a number", ""),
    "log": ("on or off", "off"),
    "step": ("a number > 0", "null"),
    "choices": ("a list", "none"),
    "when": ("{field: value or list}", "none"),
}


def _key(model: type[BaseModel], field: str, name: str) -> Key:
    info = model.model_fields[field]
    default = "" if info.is_required() else "null" if info.default is None else show(info.default)
    return Key(name, field_type(model, field).takes, default, info.description or "")
