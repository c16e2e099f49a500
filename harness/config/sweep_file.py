"""Reading a sweep file: YAML, profile and `--set`, checked key by key."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml

from harness.common.errors import HarnessError, describe_value
from harness.config.axes import FILTERS, read_cells, read_seeds, refuse_many
from harness.config.recipe import (
    BY_NAME,
    SEED_FIELDS,
    BaselineName,
    Frozen,
    ModelSpec,
    Recipe,
    TaskFiles,
    TaskSpec,
    task_files,
)
from harness.config.recipe_rules import build_recipe
from harness.config.search_file import read_search
from harness.config.trials import Sweep, expand
from harness.config.yaml_reader import PROSE, parse_yaml, refuse_typographic, require_mapping, unknown_key


class Profile(Frozen):
    """What a sweep file says of one of its profiles: what a machine needs to run it by default."""

    name: str
    min_gpu_gib: float
    model: ModelSpec
    task: TaskSpec


SWEEP_KEYS = ("title", "stand_in", "min_gpu_gib", "recipes", "seeds", *SEED_FIELDS[1:], "baselines", "record")


_KEYS = (*SWEEP_KEYS, *FILTERS, "search", *Recipe.model_fields)


def read(path: Path) -> dict[str, Any]:
    """The file's content with its keys checked; raises HarnessError when it is no sweep."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise HarnessError(
            "a sweep file can be read", got=f"{path} ({error.strerror})", allowed="a YAML file", fix="check the path"
        ) from None
    except UnicodeDecodeError:
        raise HarnessError(
            "a sweep file is UTF-8 text", got=f"{path} in another encoding", allowed="UTF-8", fix="save it as UTF-8"
        ) from None
    content = require_mapping(parse_yaml(text, str(path)), f"the sweep file {path}")
    for key in content:
        if key not in (*_KEYS, "profiles"):
            raise unknown_key(key, (*_KEYS, "profiles"), path.name)
    for name, profile in _profiles(content).items():
        for key in require_mapping(profile, f"profile '{name}'"):
            if key not in _KEYS:
                raise unknown_key(key, _KEYS, f"profile '{name}'")
    return content


def _profiles(content: Mapping[str, Any]) -> dict[str, Any]:
    profiles = require_mapping(content.get("profiles", {"default": {}}), "'profiles'")
    if not profiles:
        raise HarnessError("profiles has entries", got="none", allowed="name: {…}", fix="add one or drop the key")
    for name in profiles:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            raise HarnessError(
                "a profile's name can name a folder", got=f"'{name}'", allowed="letters, digits, _ . -", fix="rename it"
            )
    return profiles


def profiles(path: Path) -> tuple[Profile, ...]:
    """The profiles of a sweep file, largest first as written; what `driver` needs to choose one for a machine."""
    content = read(path)
    found = []
    for name in _profiles(content):
        sweep = load(path, name)
        gib = _merged(content, name).get("min_gpu_gib", 0)
        if isinstance(gib, bool) or not isinstance(gib, int | float) or not 0 <= gib < float("inf"):
            raise HarnessError(
                "min_gpu_gib is a size in GiB",
                got=describe_value(gib),
                allowed="a number of 0 or more",
                fix="correct it",
            )
        recipe = sweep.cells[0].recipe
        found.append(Profile(name=name, min_gpu_gib=float(gib), model=recipe.model, task=recipe.task))
    return tuple(found)


def _merged(content: Mapping[str, Any], profile: str) -> dict[str, Any]:
    merged = {key: value for key, value in content.items() if key != "profiles"}
    merged.update(_profiles(content)[profile])
    return merged


def _set(content: dict[str, Any], assignment: str) -> None:
    """Apply one `key=value` of the command line; a dot reaches into `task` and `model`."""
    key, equals, text = assignment.partition("=")
    if not equals or not key:
        raise HarnessError("--set takes key=value", got=f"'{assignment}'", allowed="as lr=2e-5", fix="add the =")
    value = parse_yaml(text, f"the value of --set {key}")
    if key not in PROSE:
        refuse_typographic(yaml.compose(text, yaml.SafeLoader))
    head, _, rest = key.partition(".")
    if head not in _KEYS:
        raise unknown_key(head, _KEYS, "--set")
    if "." not in key:
        content[head] = value
        return
    if head not in (*BY_NAME, "search"):
        raise HarnessError(
            "a dot in --set reaches into a field with keys of its own",
            got=f"'{key}'",
            allowed=", ".join(f"{name}.KEY" for name in (*BY_NAME, "search")),
            fix="name the whole field, or edit the file",
        )
    current = content.get(head)
    if isinstance(current, list):
        raise HarnessError(
            f"--set {head}.… changes one {head}",
            got="an axis of several",
            allowed=f"a single {head}",
            fix="edit the file",
        )
    as_mapping = current if head == "search" else BY_NAME[head](current)
    inner: dict[str, Any] = dict(require_mapping({} if as_mapping is None else as_mapping, f"{head} in the sweep"))
    *parents, last = rest.split(".")
    target = inner
    for parent in parents:
        nested = task_files(target.get(parent)) if parent == "files" else target.get(parent)
        target[parent] = dict(nested) if isinstance(nested, dict) else {}
        target = target[parent]
    target[last] = value
    content[head] = inner


def load(path: Path, profile: str | None = None, overrides: Sequence[str] = ()) -> Sweep:
    """The sweep of a file under one profile; without a name, the first.

    `overrides` are the command line's `key=value` texts, applied after the profile.
    Raises HarnessError for anything that is not a sweep; reads no data and no model.
    """
    content = read(path)
    if path.stem.startswith(".") or not path.stem.isprintable():
        raise HarnessError(
            "a sweep's file name can name a folder",
            got=repr(path.name),
            allowed="printable letters, the first no dot",
            fix="rename it",
        )
    known = list(_profiles(content))
    if profile is not None and profile not in known:
        raise HarnessError(
            f"--profile names a profile of {path.name}",
            got=f"'{profile}'",
            allowed=", ".join(known),
            fix="name one of these",
        )
    chosen = profile or known[0]
    merged = _merged(content, chosen)
    for assignment in overrides:
        _set(merged, assignment)
    seeds, search = read_seeds(merged), None
    if "search" in merged:
        search, cells = read_search(merged, seeds)
    else:
        cells = read_cells(merged)
    refuse_many("trials", [len(cells), len(seeds)])
    sweep = Sweep(
        name=path.stem,
        profile=chosen,
        title=_text(merged, "title") or path.stem,
        stand_in=_text(merged, "stand_in"),
        source=path.read_text(encoding="utf-8-sig") + "".join(f"# --set {assignment}\n" for assignment in overrides),
        cells=cells,
        seeds=seeds,
        baselines=_baselines(merged.get("baselines", [])),
        record=_switch(merged, "record", default=True),
        search=search,
    )
    expand(sweep)
    return sweep


def task_of(name: str, files: TaskFiles | None, settings: Sequence[str]) -> TaskSpec:
    """A task that the command line names; `settings` are its `task.key=value` texts. Raises HarnessError as `load`."""
    content: dict[str, Any] = {"task": {"name": name}, "model": "embedded", "lr": 1.0, "epochs": 1}
    if files is not None:
        content["task"]["files"] = files.model_dump()
    for assignment in settings:
        if not assignment.startswith("task."):
            raise HarnessError(
                "--set says how the data are read", got=f"'{assignment}'", allowed="task.KEY=VALUE",
                fix="leave out what is no setting of the task",
            )  # fmt: skip
        _set(content, assignment)
    return build_recipe(content, "the command line").task


def _text(content: Mapping[str, Any], key: str) -> str | None:
    value = content.get(key)
    if value is not None and not isinstance(value, str):
        raise HarnessError(f"{key} is text", got=describe_value(value), allowed="words", fix="put it in quotes")
    return value


def _switch(content: Mapping[str, Any], key: str, *, default: bool) -> bool:
    value = content.get(key, default)
    if not isinstance(value, bool):
        raise HarnessError(
            f"{key} is a switch", got=describe_value(value), allowed="on or off", fix="write one of the two"
        )
    return value


def _baselines(value: object) -> tuple[BaselineName, ...]:
    """The names of what the sweep's cells are compared with, each once."""
    names = value if isinstance(value, list) else [value]
    for place, name in enumerate(names):
        if name not in get_args(BaselineName) or name in names[:place]:
            raise HarnessError(
                "baselines is a list of names, each once",
                got=describe_value(name) + (" a second time" if name in names[:place] else ""),
                allowed=", ".join(get_args(BaselineName)),
                fix="write it as baselines: [majority, tfidf_logistic]",
            )
    return tuple(names)
