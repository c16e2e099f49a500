"""Reading a sweep file: YAML, profile and `--set`, checked key by key."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import Field

from harness.common.errors import HarnessError, describe_os_error, describe_value
from harness.common.text import Scalar, show
from harness.config import script_file
from harness.config.axes import FILTERS, read_cells, read_seeds, refuse_many
from harness.config.field_types import unknown_key
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
from harness.config.script_file import is_script
from harness.config.search_file import read_search, refuse_rule
from harness.config.seed_rule import axis_sizes, read_rule
from harness.config.trials import Cell, Sweep, expand
from harness.config.yaml_reader import PROSE, parse_yaml, refuse_typographic, require_mapping


class Profile(Frozen):
    """What a sweep file says of one of its profiles: what a machine needs to run it by default."""

    name: str = Field(description="The profile's name in the file.")
    min_gpu_gib: float = Field(description="GPU memory, GiB, that a machine needs to run it by default; 0: none.")
    model: ModelSpec = Field(description="Its model.")
    task: TaskSpec = Field(description="Its task (of the first cell).")


SWEEP_KEYS = (
    "title",
    "stand_in",
    "min_gpu_gib",
    "recipes",
    "seeds",
    *SEED_FIELDS[1:],
    "baselines",
    "record",
    "reference",
)


_KEYS = (*SWEEP_KEYS, *FILTERS, "search", *Recipe.model_fields)
OF_SCRIPTS = (
    "search",
    "title",
    "stand_in",
    "seeds",
    "reference",
    *FILTERS,
)  # the sweep's own keys where it runs a script

_MOST_BYTES = 2**22  # of a sweep file, which takes a second a megabyte to parse or more


def read(path: Path) -> dict[str, Any]:
    """The file's content with its keys checked; raises HarnessError when it is no sweep."""
    content = require_mapping(parse_yaml(_text_of(path), str(path)), f"the sweep file {path}")
    of_script = is_script(content)
    for key in content:
        _check_key(key, path.name, of_script, "profiles")
    for name, profile in _profiles(content).items():
        for key in require_mapping(profile, f"profile '{name}'"):
            _check_key(key, f"profile '{name}'", of_script)
    return content


def _text_of(path: Path) -> str:
    """What a sweep file says; raises HarnessError for one that can't be read, or that would take minutes."""
    try:
        with path.open("rb") as stream:
            content = stream.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise HarnessError(
                f"the sweep file {path} is too large", allowed=f"at most {_MOST_BYTES >> 20} MiB",
                fix="Check that it is the right file",
            )  # fmt: skip
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except OSError as error:
        raise HarnessError(
            f"cannot read the sweep file {path}: {describe_os_error(error)}", fix="Check the path"
        ) from None
    except UnicodeDecodeError:
        raise HarnessError(f"cannot read the sweep file {path}: it is not UTF-8 text", fix="Save it as UTF-8") from None


def _check_key(key: str, where: str, of_script: bool, *others: str) -> None:
    if of_script:
        script_file.check_key(key, (*OF_SCRIPTS, *others), where)
    elif key not in (*_KEYS, *others):
        raise unknown_key(key, (*_KEYS, *others, *script_file.STARTERS), where)


def _profiles(content: Mapping[str, Any]) -> dict[str, Any]:
    profiles = require_mapping(content.get("profiles", {"default": {}}), "'profiles'")
    if not profiles:
        raise HarnessError("profiles is empty", fix="Add a profile, as name: {…}, or remove the key")
    for name in profiles:
        if not re.fullmatch(r"[^\W_][\w.-]*", name):
            raise HarnessError(
                "a profile names a folder: its name must consist of letters, digits, _ . and -",
                got=f"'{name}'",
                fix="Rename it",
            )
    return profiles


def script_profiles(path: Path) -> tuple[str, ...]:
    """The names of the profiles of a script's sweep file; none of one that the engine trains."""
    content = read(path)
    return tuple(_profiles(content)) if is_script(content) else ()


def profiles(path: Path) -> tuple[Profile, ...]:
    """The profiles of a sweep file, largest first as written; what `driver` needs to choose one for a machine."""
    content = read(path)
    found = []
    for name in _profiles(content) if not is_script(content) else ():
        sweep = load(path, name)
        gib = _merged(content, name).get("min_gpu_gib", 0)
        if isinstance(gib, bool) or not isinstance(gib, int | float) or not 0 <= gib < float("inf"):
            raise HarnessError("min_gpu_gib must be a number >= 0", got=describe_value(gib))
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
        raise HarnessError(f"--set {assignment} is not of the form KEY=VALUE (for example: --set lr=2e-5)")
    value = parse_yaml(text, f"the value of --set {key}")
    if key not in PROSE:
        refuse_typographic(yaml.compose(text, yaml.SafeLoader))
    head, _, rest = key.partition(".")
    of_script = is_script(content)
    _check_key(head, "--set", of_script)
    if "." not in key:
        content[head] = value
        return
    current = content.get(head)
    own_keys: tuple[str, ...] = ("search", "seeds") if isinstance(content.get("seeds"), dict) else ("search",)
    if of_script:
        own_keys = tuple(name for name, value in content.items() if isinstance(value, dict))
    if head not in (*BY_NAME, *own_keys) or (of_script and head not in own_keys):
        raise HarnessError(
            f"--set cannot reach into '{head}', which has no keys of its own",
            got=f"'{key}'",
            allowed=", ".join(f"{name}.KEY" for name in (*BY_NAME, *own_keys)),
        )
    if isinstance(current, list):
        raise HarnessError(f"--set cannot reach into {head}, which is an axis of several values", fix="Edit the file")
    as_mapping = current if head in own_keys else BY_NAME[head](current)
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
            "a sweep's file name must be printable and not begin with a dot",
            got=repr(path.name),
            fix="Rename it",
        )
    known = list(_profiles(content))
    if profile is not None and profile not in known:
        raise HarnessError(f"{path.name} has no profile '{profile}'", allowed=", ".join(known))
    chosen = profile or known[0]
    merged = _merged(content, chosen)
    for assignment in overrides:
        _set(merged, assignment)
    rule, search = None, None
    if is_script(merged) and "search" in merged:
        refuse_rule(merged)
        seeds = read_seeds({"seeds": merged.get("seeds")} if "seeds" in merged else {})
        search, cells = script_file.read_script_search(merged, OF_SCRIPTS, path.parent, seeds)
    elif is_script(merged):
        cells = script_file.read_script_cells(merged, OF_SCRIPTS, path.parent)
        if isinstance(merged.get("seeds"), dict):
            rule = read_rule(merged["seeds"], "seeds", axis_sizes([cell.axes for cell in cells]))
        seeds = read_seeds({"seeds": merged.get("seeds")} if "seeds" in merged else {}, rule)
    elif "search" in merged:
        refuse_rule(merged)
        seeds = read_seeds(merged)
        search, cells = read_search(merged, seeds)
    else:
        cells = read_cells(merged)
        if isinstance(merged.get("seeds"), dict):
            rule = read_rule(merged["seeds"], "seeds", axis_sizes([cell.axes for cell in cells]))
        seeds = read_seeds(merged, rule)
    refuse_many("trials", [len(cells), len(seeds)])
    sweep = Sweep(
        name=path.stem,
        profile=chosen,
        title=_text(merged, "title") or path.stem,
        stand_in=_text(merged, "stand_in"),
        source=_text_of(path) + "".join(f"# --set {assignment}\n" for assignment in overrides),
        cells=cells,
        seeds=seeds,
        baselines=_baselines(merged.get("baselines", [])),
        record=_switch(merged, "record", default=True),
        reference=_reference(merged.get("reference", {}), cells),
        search=search,
        rule=rule,
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
            raise HarnessError(f"--set {assignment} is not a setting of the task", allowed="task.KEY=VALUE")
        _set(content, assignment)
    return build_recipe(content, "the command line").task


def _text(content: Mapping[str, Any], key: str) -> str | None:
    value = content.get(key)
    if value is not None and not isinstance(value, str):
        raise HarnessError(f"{key} must be text", got=describe_value(value), fix="Put it in quotes")
    return value


def _switch(content: Mapping[str, Any], key: str, *, default: bool) -> bool:
    value = content.get(key, default)
    if not isinstance(value, bool):
        raise HarnessError(f"{key} must be on or off", got=describe_value(value))
    return value


def _baselines(value: object) -> tuple[BaselineName, ...]:
    """The names of what the sweep's cells are compared with, each once."""
    names = value if isinstance(value, list) else [value]
    for index, name in enumerate(names):
        if name not in get_args(BaselineName):
            raise HarnessError(
                f"baselines must be a list of {', '.join(get_args(BaselineName))}", got=describe_value(name)
            )
        if name in names[:index]:
            raise HarnessError(f"baselines lists {name} twice", fix="Remove one")
    return tuple(names)


def _reference(value: object, cells: Sequence[Cell]) -> tuple[tuple[str, Scalar], ...]:
    """The values that others are compared with, by axis, each one that the axis has."""
    chosen = []
    for axis, wanted in require_mapping(value, "'reference'").items():
        values = {show(dict(cell.axes)[axis]): dict(cell.axes)[axis] for cell in cells if axis in dict(cell.axes)}
        if not values:
            axes = ", ".join(name for name, _ in cells[0].axes)
            raise HarnessError("reference names no axis of the sweep", got=f"'{axis}'", allowed=axes or None)
        if show(wanted) not in values:
            raise HarnessError(
                f"reference.{axis} must be a value of the axis", got=describe_value(wanted), allowed=", ".join(values)
            )
        chosen.append((axis, values[show(wanted)]))
    return tuple(chosen)
