"""The axes of a sweep file become cells; the seeds, a list."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from harness.common.errors import HarnessError, describe_value
from harness.common.text import Scalar, same_value, show
from harness.config.field_types import unknown_key
from harness.config.recipe import BY_NAME, MAX_SEED, MOST, SEED_FIELDS, Recipe, Seeds
from harness.config.recipe_rules import OF_A_CHOICE, check_recipe, choice_of, read_recipe
from harness.config.seed_rule import SeedRule
from harness.config.trials import Cell
from harness.config.yaml_reader import require_mapping

FILTERS = ("include", "exclude")


def read_cells(content: Mapping[str, Any]) -> tuple[Cell, ...]:
    """The product of the axes in the file's order (the last one varies fastest), filtered by include and exclude.

    A setting that a cell's method, optimizer or other choice does not read, and another cell's does, does not count in
    it: its recipe has the default, its place on an axis of that name is None, and cells that become equal are one.
    """
    fixed: dict[str, Any] = {}
    axes: dict[str, list[tuple[Scalar, dict[str, Any]]]] = {}  # axis -> (shown value, fields it sets)
    for key, value in content.items():
        if key == "recipes":
            axes["recipe"] = _bundles(value, content)
        elif key in Recipe.model_fields:
            if isinstance(value, list):
                axes[key] = read_axis(key, value)
            else:
                fixed[key] = value
    refuse_many("cells", [len(values) for values in axes.values()])
    cells = []
    for combination in itertools.product(*axes.values()):
        fields = dict(fixed)
        for _, sets in combination:
            fields.update(sets)
        axes_of_cell = tuple(zip(axes, (shown for shown, _ in combination), strict=True))
        cells.append(Cell(axes=axes_of_cell, recipe=read_recipe(fields, "the sweep")))
    shown = {name: [value for value, _ in values] for name, values in axes.items()}
    left = filtered(cells, {key: content[key] for key in FILTERS if key in content}, shown)
    bundles = {name: set(sets) for name, sets in axes.get("recipe", [])}
    counted = _without_unused(left, [name for name in shown if len(shown[name]) > 1], bundles)
    for cell in counted:
        check_recipe(cell.recipe)
    return counted


def _without_unused(
    cells: Sequence[Cell], varied: Sequence[str], bundles: Mapping[Scalar, set[str]]
) -> tuple[Cell, ...]:
    """The cells without the settings that they do not read but others do; of equal cells the first.

    What a named recipe itself sets stays, and is refused.
    """
    is_read: dict[str, list[bool]] = {}
    for name, reads in OF_A_CHOICE.items():
        default = Recipe.model_fields[name].default
        if any(getattr(cell.recipe, name) != default for cell in cells):
            is_read[name] = [reads(cell.recipe) for cell in cells]
    mixed = [name for name, read in is_read.items() if any(read) and not all(read)]
    if not mixed:
        return tuple(cells)
    counted: dict[Cell, None] = {}
    for index, cell in enumerate(cells):
        own = bundles.get(dict(cell.axes).get("recipe"), ())
        unused = [name for name in mixed if not is_read[name][index] and name not in own]
        defaults = {name: Recipe.model_fields[name].default for name in unused}
        axes = tuple((name, None if name in unused and name in varied else value) for name, value in cell.axes)
        counted[Cell(axes=axes, recipe=cell.recipe.model_copy(update=defaults))] = None
    return tuple(counted)


def unused_settings(cells: Sequence[Cell]) -> tuple[str, ...]:
    """Sentences on the settings that count in some of the cells alone: which, what reads them, and in how many not.

    Of named recipes there are none: each says itself what it sets.
    """
    sentences: list[str] = []
    if "recipe" in dict(cells[0].axes):
        return ()
    for name, reads in OF_A_CHOICE.items():
        readers = [cell for cell in cells if reads(cell.recipe)]
        default = Recipe.model_fields[name].default
        if 0 < len(readers) < len(cells) and any(getattr(cell.recipe, name) != default for cell in readers):
            rest = len(cells) - len(readers)
            verb = "goes" if rest == 1 else "go"
            sentences.append(f"{name} counts only with {choice_of(name)}: {rest} of {len(cells)} cells {verb} without.")
    return tuple(sentences)


def filtered(
    cells: Sequence[Cell], filters: Mapping[str, object], axes: Mapping[str, list[Scalar]]
) -> tuple[Cell, ...]:
    """The cells that include and exclude leave; raises HarnessError where they leave none."""
    for key, value in filters.items():
        entries = _filters(key, value, axes)
        keep = key == "include"
        cells = [cell for cell in cells if any(_matches(cell, entry) for entry in entries) == keep]
    if not cells:
        raise HarnessError("include and exclude leave no cells", fix="Loosen them")
    return tuple(cells)


def refuse_many(what: str, sizes: Sequence[int]) -> None:
    """Raise HarnessError where a product of sizes is more than a sweep may have."""
    if math.prod(sizes) > MOST:
        raise HarnessError(
            f"a sweep can have at most {MOST} {what}",
            got=f"{' × '.join(map(str, sizes))} = {math.prod(sizes)}",
            fix="Shorten an axis or the seeds",
        )


def read_axis(key: str, values: list[Any]) -> list[tuple[Scalar, dict[str, Any]]]:
    """The values of one axis: what each is shown as, and the fields that it sets."""
    if not values:
        raise HarnessError(f"{key} has an empty list of values", fix="Add a value")
    shown: list[Scalar] = []
    for value in values:
        if isinstance(value, list):
            raise HarnessError(f"{key} must be a flat list of values", got=f"the list {describe_value(value)} in it")
        named: Any = BY_NAME[key](value) if key in BY_NAME else value
        name: Any = named.get("name") if isinstance(named, dict) else named
        # Two spellings of a number are one value: 1e-5 and 0.00001, 1 and 1.0.
        if name is not None and any(same_value(name, other) for other in shown):
            raise HarnessError(
                f"{key} lists the value {show(name)} twice",
                # A folder is called by its last part, and checkpoints of several runs often share it.
                fix="Remove one, or name them: {name: …, folder: …}" if key == "model" else "Remove one",
            )
        shown.append(float(name) if isinstance(name, int) and key == "lr" and not isinstance(name, bool) else name)
    return [(name, {key: value}) for name, value in zip(shown, values, strict=True)]


def _bundles(value: object, content: Mapping[str, Any]) -> list[tuple[Scalar, dict[str, Any]]]:
    """Named recipes: `recipes: {usual: {bias_correction: off, epochs: 3}, …}` is one axis called `recipe`."""
    bundles = require_mapping(value, "'recipes'")
    if not bundles:
        raise HarnessError("recipes is empty", fix="Add an entry, as name: {field: value}")
    for name, fields in bundles.items():
        for field, setting in require_mapping(fields, f"recipe '{name}'").items():
            if field not in Recipe.model_fields:
                raise unknown_key(field, tuple(Recipe.model_fields), f"recipe '{name}'")
            if isinstance(setting, list) or isinstance(content.get(field), list):
                raise HarnessError(
                    f"recipe '{name}': {field} cannot be an axis and part of a named recipe",
                    fix="Give it a single value, or take it out of the recipe",
                )
    return [(name, dict(fields)) for name, fields in bundles.items()]


def _filters(key: str, value: object, axes: Mapping[str, list[Scalar]]) -> list[dict[str, list[Any]]]:
    if not isinstance(value, list) or not value:
        raise HarnessError(f"{key} must be a list of mappings, as - {{axis: value, …}}", got=describe_value(value))
    entries = []
    for entry in value:
        wanted: dict[str, list[Any]] = {}
        for axis, values in require_mapping(entry, f"an entry of {key}").items():
            if axis not in axes:
                raise HarnessError(
                    f"{key} names '{axis}', which is not an axis of the sweep"
                    + (": it has a single value" if axis in Recipe.model_fields else ""),
                    allowed=", ".join(axes) if axes else None,
                    fix=None if axes else f"Remove {key}: the sweep has no axes",
                )
            wanted[axis] = values if isinstance(values, list) else [values]
            for wanted_value in wanted[axis]:
                if not any(same_value(wanted_value, value) for value in axes[axis]):
                    raise HarnessError(
                        f"{key}: {axis} has no value {describe_value(wanted_value)}",
                        allowed=", ".join(map(show, axes[axis])),
                    )
        entries.append(wanted)
    return entries


def _matches(cell: Cell, entry: Mapping[str, list[Any]]) -> bool:
    value_of = dict(cell.axes)
    return all(any(same_value(value_of[axis], value) for value in values) for axis, values in entry.items())


def read_seeds(content: Mapping[str, Any], rule: SeedRule | None = None) -> tuple[Seeds, ...]:
    """`seeds` drives all three parts; init_seed, order_seed and dropout_seed hold one (int) or cross it (list).

    With a rule, all that it may come to.
    """
    if "seeds" not in content:
        raise HarnessError("missing required key 'seeds' (for example: seeds: 1..5)")
    _refuse_count(content["seeds"])
    main = _integers("seeds", content["seeds"]) if rule is None else _of_rule(rule, content)
    parts = {name: _integers(name, content[name]) for name in SEED_FIELDS[1:] if content.get(name) is not None}
    refuse_many("trials in a cell", [len(main), *map(len, parts.values())])
    found = []
    for seed, *others in itertools.product(main, *parts.values()):
        given = dict(zip(parts, others, strict=True))
        found.append(Seeds(seed=seed, **{name: given.get(name, seed) for name in SEED_FIELDS[1:]}))
    if len(parts) == 3 and len(main) > 1:
        raise HarnessError(
            "seeds must be a single seed where init_seed, order_seed and dropout_seed are all set",
            got=f"{len(main)} seeds",
            fix="Write seeds: 1, or leave one of the three out",
        )
    return tuple(found)


def _refuse_count(seeds: object) -> None:
    """Raise HarnessError for `seeds: 5`, which reads as five seeds and as the seed 5."""
    if isinstance(seeds, int) and not isinstance(seeds, bool) and 2 <= seeds <= MAX_SEED:
        raise HarnessError(
            f"seeds: {seeds} could mean {seeds} seeds or the seed {seeds}",
            fix=f"Write 1..{seeds} for {seeds} seeds, or [{seeds}] for that one",
        )


def _of_rule(rule: SeedRule, content: Mapping[str, Any]) -> list[int]:
    """The seeds of a rule; raises HarnessError for crossed ones, whose runs are not independent of each other."""
    for name in SEED_FIELDS[1:]:
        if isinstance(content.get(name), list):
            raise HarnessError(
                f"{name} cannot be a list where seeds are added by rule: crossed runs are not independent",
                got=describe_value(content[name]),
                fix=f"Leave {name} out, or list the seeds, as seeds: 1..{rule.first}",
            )
    return list(range(rule.start, rule.start + rule.at_most))


def _integers(name: str, value: object) -> list[int]:
    found: list[int] = []
    for item in value if isinstance(value, list) else [value]:
        ends = re.fullmatch(r"(\d{1,19})\s*\.\.\s*(\d{1,19})", item) if isinstance(item, str) else None
        low, high = -1, -1
        if ends:
            low, high = int(ends[1]), int(ends[2])
        elif isinstance(item, int) and not isinstance(item, bool):
            low = high = item
        if not 0 <= low <= MAX_SEED or not 0 <= high <= MAX_SEED:
            raise HarnessError(
                f"{name} must be whole numbers between 0 and 2^63 − 1, such as 7, 1..25 or [1, 2, 5..9]",
                got=describe_value(item),
            )
        if low > high:
            raise HarnessError(f"{name} has a range that runs backwards: {low}..{high}", fix=f"Write {high}..{low}")
        if len(found) + high - low >= MOST:
            raise HarnessError(f"{name} can have at most {MOST} values", got=describe_value(item))
        found.extend(range(low, high + 1))
    if not found:
        raise HarnessError(f"{name} has an empty list of values", fix="Add a value")
    seen: set[int] = set()
    for seed in found:
        if seed in seen:
            raise HarnessError(f"{name} lists {seed} twice", fix="Remove one")
        seen.add(seed)
    return found
