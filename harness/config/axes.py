"""The axes of a sweep file become cells; the seeds, a list."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from harness.common.errors import HarnessError, describe_value
from harness.common.text import Scalar, same_value, show
from harness.config.recipe import BY_NAME, MAX_SEED, MOST, SEED_FIELDS, Recipe, Seeds
from harness.config.recipe_rules import build_recipe
from harness.config.trials import Cell
from harness.config.yaml_reader import require_mapping, unknown_key

FILTERS = ("include", "exclude")


def read_cells(content: Mapping[str, Any]) -> tuple[Cell, ...]:
    """The product of the axes in the file's order (the last one varies fastest), filtered by include and exclude."""
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
        place = tuple(zip(axes, (shown for shown, _ in combination), strict=True))
        cells.append(Cell(axes=place, recipe=build_recipe(fields, "the sweep")))
    shown = {name: [value for value, _ in values] for name, values in axes.items()}
    for key in FILTERS:
        if key in content:
            entries = _filters(key, content[key], shown)
            keep = key == "include"
            cells = [cell for cell in cells if any(_matches(cell, entry) for entry in entries) == keep]
    if not cells:
        raise HarnessError(
            "a sweep has cells", got="none left after include and exclude", allowed="one or more", fix="loosen them"
        )
    return tuple(cells)


def refuse_many(what: str, sizes: Sequence[int]) -> None:
    """Raise HarnessError where a product of sizes is more than a sweep may have."""
    if math.prod(sizes) > MOST:
        raise HarnessError(
            f"a sweep has at most {MOST} {what}",
            got=" × ".join(map(str, sizes)),
            allowed=f"a product of up to {MOST}",
            fix="shorten an axis or the seeds",
        )


def read_axis(key: str, values: list[Any]) -> list[tuple[Scalar, dict[str, Any]]]:
    """The values of one axis: what each is shown as, and the fields that it sets."""
    if not values:
        raise HarnessError(f"the axis {key} has values", got="an empty list", allowed="one or more", fix="add some")
    shown: list[Scalar] = []
    for value in values:
        if isinstance(value, list):
            raise HarnessError(
                f"the axis {key} is a flat list", got=describe_value(value), allowed="single values", fix="flatten it"
            )
        named: Any = BY_NAME[key](value) if key in BY_NAME else value
        name: Any = named.get("name") if isinstance(named, dict) else named
        # Two spellings of a number are one value: 1e-5 and 0.00001, 1 and 1.0.
        if name is not None and any(same_value(name, other) for other in shown):
            raise HarnessError(
                f"a value stands once on the axis {key}",
                got=f"{show(name)} twice",
                allowed="different values",
                # A folder is called by its last part, and checkpoints of several runs often share it.
                fix="remove one, or name them: {name: …, folder: …}" if key == "model" else "remove one",
            )
        shown.append(float(name) if isinstance(name, int) and key == "lr" and not isinstance(name, bool) else name)
    return [(name, {key: value}) for name, value in zip(shown, values, strict=True)]


def _bundles(value: object, content: Mapping[str, Any]) -> list[tuple[Scalar, dict[str, Any]]]:
    """Named recipes: `recipes: {usual: {bias_correction: off, epochs: 3}, …}` is one axis called `recipe`."""
    bundles = require_mapping(value, "'recipes'")
    if not bundles:
        raise HarnessError("recipes has entries", got="none", allowed="name: {field: value}", fix="add some")
    for name, fields in bundles.items():
        for field, setting in require_mapping(fields, f"recipe '{name}'").items():
            if field not in Recipe.model_fields:
                raise unknown_key(field, tuple(Recipe.model_fields), f"recipe '{name}'")
            if isinstance(setting, list) or isinstance(content.get(field), list):
                raise HarnessError(
                    f"a named recipe sets single values ({name}.{field})",
                    got="an axis",
                    allowed="one value",
                    fix="move the axis out, or the field out of the recipe",
                )
    return [(name, dict(fields)) for name, fields in bundles.items()]


def _filters(key: str, value: object, axes: Mapping[str, list[Scalar]]) -> list[dict[str, list[Any]]]:
    if not isinstance(value, list) or not value:
        raise HarnessError(
            f"{key} is a list of mappings", got=describe_value(value), allowed="- {axis: value, …}", fix="write it so"
        )
    entries = []
    for entry in value:
        wanted: dict[str, list[Any]] = {}
        for axis, values in require_mapping(entry, f"an entry of {key}").items():
            if axis not in axes:
                raise HarnessError(
                    f"{key} names axes of the sweep",
                    got=f"'{axis}'" + (", which has a single value" if axis in Recipe.model_fields else ""),
                    allowed=", ".join(axes) or "none, since the sweep has no axis",
                    fix="use one of these" if axes else f"drop {key}",
                )
            wanted[axis] = values if isinstance(values, list) else [values]
            for one in wanted[axis]:
                if not any(same_value(one, value) for value in axes[axis]):
                    raise HarnessError(
                        f"{key} names values of the axis {axis}",
                        got=describe_value(one),
                        allowed=", ".join(map(show, axes[axis])),
                        fix="use one of these",
                    )
        entries.append(wanted)
    return entries


def _matches(cell: Cell, entry: Mapping[str, list[Any]]) -> bool:
    place = dict(cell.axes)
    return all(any(same_value(place[axis], value) for value in values) for axis, values in entry.items())


def read_seeds(content: Mapping[str, Any]) -> tuple[Seeds, ...]:
    """`seeds` drives all three parts; init_seed, order_seed and dropout_seed hold one (int) or cross it (list)."""
    if "seeds" not in content:
        raise HarnessError("a sweep has seeds", got="none", allowed="as 1..25 or [1, 2, 3]", fix="add seeds: 1..5")
    main = _integers("seeds", content["seeds"])
    parts = {name: _integers(name, content[name]) for name in SEED_FIELDS[1:] if content.get(name) is not None}
    refuse_many("trials in a cell", [len(main), *map(len, parts.values())])
    found = []
    for seed, *others in itertools.product(main, *parts.values()):
        given = dict(zip(parts, others, strict=True))
        found.append(Seeds(seed=seed, **{name: given.get(name, seed) for name in SEED_FIELDS[1:]}))
    if len(parts) == 3 and len(main) > 1:
        raise HarnessError(
            "seeds drives what is not held or crossed",
            got="all three parts set and several seeds",
            allowed="one seed, or one part left out",
            fix="write seeds: 1 or drop a part",
        )
    return tuple(found)


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
                f"{name} {'are' if name == 'seeds' else 'is made of'} whole numbers from 0 to 2^63 − 1",
                got=describe_value(item),
                allowed="as 7, 1..25 or [1, 2, 5..9]",
                fix=f"correct {name}",
            )
        if low > high:
            raise HarnessError(
                "a range of seeds goes upwards", got=f"{low}..{high}", allowed=f"{high}..{low}", fix="swap its ends"
            )
        if len(found) + high - low >= MOST:
            raise HarnessError(
                f"{name} has at most {MOST} values",
                got=describe_value(item),
                allowed="a shorter range",
                fix="shorten it",
            )
        found.extend(range(low, high + 1))
    if not found:
        raise HarnessError(f"{name} has values", got="an empty list", allowed="one or more", fix="add some")
    seen: set[int] = set()
    for seed in found:
        if seed in seen:
            raise HarnessError(
                f"a seed stands once in {name}", got=f"{seed} twice", allowed="different seeds", fix="remove one"
            )
        seen.add(seed)
    return found
