"""The `search:` part of a sweep file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from harness.common.errors import HarnessError, describe_value
from harness.common.text import Scalar, same_value, show
from harness.config.axes import FILTERS, read_axis, read_seeds
from harness.config.recipe import BY_NAME, MOST, Recipe, Seeds
from harness.config.recipe_rules import build_recipe
from harness.config.search_space import OF_PRUNERS, Pruner, Range, Search
from harness.config.trials import Cell
from harness.config.yaml_reader import field_rule, require_mapping, unknown_key

# ---------------------------------------------------------------------------------------------------------- searching

_RANGE_KEYS = ("low", "high", "log", "step", "choices", "when")


def read_search(content: Mapping[str, Any], seeds: tuple[Seeds, ...]) -> tuple[Search, tuple[Cell, ...]]:
    """What is searched, and a cell at the largest values of the space, for what a machine must be able to train."""
    given = require_mapping(content["search"], "'search'")
    allowed = tuple(name for name in Search.model_fields if name != "best")
    for key in given:
        if key not in allowed:
            raise unknown_key(key, allowed, "search")
    for key, value in content.items():
        if key in ("recipes", *FILTERS) or (key in Recipe.model_fields and isinstance(value, list)):
            raise HarnessError(
                "a search has no cells beside those that it finds",
                got=f"{key}: {describe_value(value)}",
                allowed="single values, and ranges and choices in search.space",
                fix=f"move {key} into search.space" if key in Recipe.model_fields else f"remove {key}",
            )
    if len(seeds) < 2:
        raise HarnessError(
            "a search trains every recipe over two seeds or more, or it finds a lucky seed",
            got=f"{len(seeds)} seed",
            allowed="2 or more",
            fix="write seeds: 1..4",
        )
    space = _space(given.get("space"), content)
    settings = {key: value for key, value in given.items() if key not in ("space", "confirm", "pruner")}
    settings["pruner"] = _pruner(given.get("pruner"))
    confirm = _confirmed(given.get("confirm"), seeds)
    try:
        search = Search.model_validate({"space": space, **settings, **confirm})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        kind, words = field_rule(Search, name)
        raise HarnessError(
            f"search.{name} is {kind}", got=describe_value(first["input"]), allowed=words, fix="correct it"
        ) from None
    _refuse_sampler(search)
    if search.pruner is not None and search.failing == "objective":
        raise HarnessError(
            "a pruner compares recipes by one objective", got="pruner with failing: objective",
            allowed="failing: constraint or ignore", fix="drop one of the two",
        )  # fmt: skip
    fixed = {key: value for key, value in content.items() if key in Recipe.model_fields}
    ends = [{one.field: (one.values or (one.low, one.high))[place] for one in space} for place in (0, -1)]
    for end in ends:
        build_recipe(fixed | end, "the space")
    for one in space:
        for value in one.choices:
            build_recipe(fixed | ends[1] | {one.field: value}, "the space")
    largest = {one.field: max(one.values or (one.high,), key=_size) for one in space}
    recipe = build_recipe(fixed | largest, "the space")
    place = tuple((one.field, getattr(recipe, one.field)) for one in space)
    return search, (Cell(axes=place, recipe=recipe),)


def _size(value: Scalar) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _space(given: object, content: Mapping[str, Any]) -> tuple[Range, ...]:
    fields = tuple(name for name in Recipe.model_fields if name not in BY_NAME)
    space: list[Range] = []
    for field, value in require_mapping(given, "search.space").items():
        if field not in fields:
            raise unknown_key(field, fields, "search.space")
        one = _range(field, value, space)
        if field in content and not one.when:
            raise HarnessError(
                f"{field} stands in the space or beside it",
                got="both",
                allowed="one of the two (a value beside it is for a range with `when`)",
                fix="remove one",
            )
        if one.when:
            if field not in content and Recipe.model_fields[field].is_required():
                raise HarnessError(
                    f"{field} has a value where its condition does not hold", got="none beside search",
                    allowed=f"{field}: … beside search", fix="add it",
                )  # fmt: skip
            one = one.model_copy(update={"otherwise": content.get(field, Recipe.model_fields[field].default)})
        space.append(one)
    if not space:
        raise HarnessError(
            "a search has a space", got="none", allowed="search: {space: {lr: {low: 1e-5, high: 1e-3, log: on}}}",
            fix="add ranges or choices",
        )  # fmt: skip
    return tuple(space)


def _range(field: str, value: object, before: Sequence[Range]) -> Range:
    where = f"search.space.{field}"
    given: dict[str, Any] = {"choices": value} if isinstance(value, list) else require_mapping(value, where)
    for key in given:
        if key not in _RANGE_KEYS:
            raise unknown_key(key, _RANGE_KEYS, where)
    kind, _ = field_rule(Recipe, field)
    when = tuple(
        _condition(where, *pair, before) for pair in require_mapping(given.get("when", {}), f"{where}.when").items()
    )
    if "choices" in given:
        if len(given) > 1 + ("when" in given):
            raise HarnessError(
                f"{where} is a range or choices", got="both", allowed="low and high, or choices", fix="drop one"
            )
        if not isinstance(given["choices"], list):
            raise HarnessError(
                f"{where}.choices is a list", got=describe_value(given["choices"]), allowed="[a, b]", fix="write it so"
            )
        choices = tuple(name for name, _ in read_axis(field, given["choices"]))
        _refuse_single(where, choices)
        return Range(field=field, choices=choices, when=when)
    if kind not in ("a number", "a whole number"):
        raise HarnessError(
            f"{where} is chosen from a list",
            got=describe_value(value),
            allowed="[a, b]: it is no number",
            fix="list its values",
        )
    whole = kind == "a whole number"
    numbers: dict[str, Any] = {}
    for key in ("low", "high", "step"):
        number: Any = given.get(key)
        if number is None and key == "step":
            continue
        good = isinstance(number, int if whole else int | float) and not isinstance(number, bool)
        if not good or not math.isfinite(number) or (key == "step" and number <= 0):
            kinds = "a whole number" if whole else "a number"
            raise HarnessError(
                f"{where}.{key} is {kinds}{' above 0' if key == 'step' else ''}",
                got=describe_value(number),
                allowed="{low: …, high: …}, with log: on or step: … if wanted, or a list of choices",
                fix=f"correct {key}",
            )
        numbers[key] = number if whole else float(number)
    log = given.get("log", False)
    low, high = numbers["low"], numbers["high"]
    if not isinstance(log, bool):
        raise HarnessError(f"{where}.log is a switch", got=describe_value(log), allowed="on or off", fix="correct it")
    if low > high:
        raise HarnessError(
            f"{where} goes upwards", got=f"{show(low)} to {show(high)}", allowed="low below high", fix="swap its ends"
        )
    if log and low <= 0:
        raise HarnessError(
            f"{where} has a logarithm", got=f"low: {show(low)} with log: on", allowed="low above 0",
            fix="raise low, or log: off",
        )  # fmt: skip
    if log and "step" in numbers:
        raise HarnessError(
            f"{where} is in steps or in the logarithm",
            got="both",
            allowed="one of them",
            fix="drop step, or list choices",
        )
    if high > low and not whole and "step" in numbers and (high - low) / numbers["step"] > MOST:
        raise HarnessError(
            f"{where} has at most {MOST} steps", got=show(numbers["step"]), allowed="a larger step", fix="enlarge it"
        )
    found = Range(field=field, low=low, high=high, log=log, step=numbers.get("step"), when=when)
    _refuse_single(where, (low,) if low == high else found.values)
    return found


def _refuse_single(where: str, values: tuple[Scalar, ...] | None) -> None:
    if values is not None and len(values) < 2:
        raise HarnessError(
            f"{where} has something to search",
            got=f"a single point, {describe_value(values[0])}",
            allowed="two values or more",
            fix="widen it, or set the field beside search",
        )


def _condition(where: str, field: str, value: object, before: Sequence[Range]) -> tuple[str, tuple[Scalar, ...]]:
    wanted = tuple(value) if isinstance(value, list) else (value,)
    known = {one.field: one.choices for one in before if one.choices}
    if field not in known or not all(any(same_value(one, choice) for choice in known[field]) for one in wanted):
        raise HarnessError(
            f"{where}.when names choices that stand before it in the space",
            got=f"{field}: {describe_value(value)}",
            allowed="; ".join(f"{name}: {', '.join(map(show, values))}" for name, values in known.items())
            or "none here",
            fix="correct it, or move it up",
        )
    return field, wanted


def _confirmed(given: object, seeds: Sequence[Seeds]) -> dict[str, Any]:
    if given is None:
        return {"best": 0}
    fields = require_mapping(given, "search.confirm")
    for key in fields:
        if key not in ("best", "seeds"):
            raise unknown_key(key, ("best", "seeds"), "search.confirm")
    fresh = read_seeds({"seeds": fields.get("seeds")} if "seeds" in fields else {})
    used = {seed.seed for seed in seeds} & {seed.seed for seed in fresh}
    if used or len(fresh) < 2:
        raise HarnessError(
            "a recipe is confirmed on seeds that the search did not see, two or more",
            got=f"seeds {', '.join(map(str, sorted(used)))} in both" if used else f"{len(fresh)} seed",
            allowed="fresh seeds, as 101..108",
            fix="change search.confirm.seeds",
        )
    return {"best": fields.get("best", 3), "confirm": fresh}


def _pruner(given: object) -> Pruner | None:
    """A pruner by its name, or by its name and settings."""
    if given is None:
        return None
    fields = {"name": given} if isinstance(given, str) else require_mapping(given, "search.pruner")
    for key in fields:
        own = OF_PRUNERS.get(key)
        if key not in Pruner.model_fields or (own is not None and fields.get("name") not in own):
            name = fields.get("name")
            known = tuple(one for one in Pruner.model_fields if name in OF_PRUNERS.get(one, (name,)))
            raise unknown_key(key, known, "search.pruner")
    try:
        return Pruner.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = str(first["loc"][0])
        kind, words = field_rule(Pruner, field)
        got = "nothing" if first["type"] == "missing" else describe_value(first["input"])
        raise HarnessError(f"search.pruner.{field} is {kind}", got=got, allowed=words, fix="correct it") from None


def _refuse_sampler(search: Search) -> None:
    """Refuse a space that the sampler has no answer for."""
    for one in search.space:
        where = f"search.space.{one.field}"
        if search.sampler == "grid" and one.values is None:
            raise HarnessError(
                "a grid has steps", got=f"{where}, which is continuous", allowed="a step, or a list",
                fix="list its values, or take another sampler",
            )  # fmt: skip
        if search.sampler in ("grid", "qmc", "cmaes") and one.when:
            raise HarnessError(
                f"the sampler {search.sampler} takes no conditions", got=f"{where}.when",
                allowed="tpe, random or nsga2 with it", fix="take one of these, or drop when",
            )  # fmt: skip
        if search.sampler == "cmaes" and one.choices:
            raise HarnessError(
                "the sampler cmaes takes numbers alone", got=f"{where}, a list", allowed="ranges of numbers",
                fix="take tpe, or fix the field",
            )  # fmt: skip
    if search.sampler == "cmaes" and search.failing == "objective":
        raise HarnessError(
            "the sampler cmaes has one objective", got="failing: objective", allowed="constraint or ignore",
            fix="take nsga2 or tpe",
        )  # fmt: skip
