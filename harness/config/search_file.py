"""The `search:` part of a sweep file."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from harness.common.errors import HarnessError, describe_value
from harness.common.text import Scalar, same_value, show
from harness.config.axes import FILTERS, read_axis, read_seeds
from harness.config.field_types import field_type, missing_key, unknown_key, wrong_value
from harness.config.recipe import BY_NAME, MOST, Recipe, Seeds
from harness.config.recipe_rules import build_recipe
from harness.config.search_space import OF_PRUNERS, Pruner, Range, Search
from harness.config.seed_rule import read_rule
from harness.config.trials import Cell
from harness.config.yaml_reader import require_mapping

# ---------------------------------------------------------------------------------------------------------- searching

_RANGE_KEYS = ("low", "high", "log", "step", "choices", "when")


def read_search(content: Mapping[str, Any], seeds: tuple[Seeds, ...]) -> tuple[Search, tuple[Cell, ...]]:
    """What is searched, and a cell at the largest values of the space, for what a machine must be able to train."""
    given = given_of(content, seeds)
    for key, value in content.items():
        if key in ("recipes", *FILTERS) or (key in Recipe.model_fields and isinstance(value, list)):
            raise HarnessError(
                f"{key} cannot be used beside search, which chooses the cells itself",
                got=describe_value(value),
                fix=f"Move {key} into search.space" if key in Recipe.model_fields else f"Remove {key}",
            )
    space = _space(given.get("space"), content)
    search = settings_of(given, space, seeds)
    fixed = {key: value for key, value in content.items() if key in Recipe.model_fields}
    ends = [
        {dimension.field: (dimension.values or (dimension.low, dimension.high))[end] for dimension in space}
        for end in (0, -1)
    ]
    for end in ends:
        build_recipe(fixed | end, "search.space")
    for dimension in space:
        for value in dimension.choices:
            build_recipe(fixed | ends[1] | {dimension.field: value}, "search.space")
    recipe = build_recipe(fixed | largest_of(space), "search.space")
    axes = tuple((dimension.field, getattr(recipe, dimension.field)) for dimension in space)
    search = search.model_copy(update={"lower_is_better": not recipe.task.higher_is_better})
    return search, (Cell(axes=axes, recipe=recipe),)


def given_of(content: Mapping[str, Any], seeds: tuple[Seeds, ...]) -> dict[str, Any]:
    """The `search:` part of a file as it is written, with its keys checked; raises HarnessError for a single seed."""
    given = require_mapping(content["search"], "'search'")
    allowed = tuple(name for name in Search.model_fields if name not in ("best", "confirm_rule", "lower_is_better"))
    for key in given:
        if key not in allowed:
            raise unknown_key(key, allowed, "search")
    if len(seeds) < 2:
        raise HarnessError(
            "a search needs two seeds or more: with one it would pick a lucky seed",
            got=f"{len(seeds)} seed",
            fix="Write seeds: 1..4",
        )
    return given


def largest_of(space: Sequence[Range]) -> dict[str, Scalar]:
    """The largest value of each field of a space."""
    return {dimension.field: max(dimension.values or (dimension.high,), key=_size) for dimension in space}


def settings_of(given: Mapping[str, Any], space: tuple[Range, ...], seeds: tuple[Seeds, ...]) -> Search:
    """The `search:` part of a file with its space; raises HarnessError where it can't be searched so."""
    settings = {key: value for key, value in given.items() if key not in ("space", "confirm", "pruner")}
    settings["pruner"] = _pruner(given.get("pruner"))
    confirm = _confirmed(given.get("confirm"), seeds)
    try:
        search = Search.model_validate({"space": space, **settings, **confirm})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        raise wrong_value(
            Search, name, first["input"], f"search.{'confirm.best' if name == 'best' else name}"
        ) from None
    _refuse_sampler(search)
    if search.pruner is not None and search.failing == "objective":
        raise HarnessError(
            "search.pruner cannot be used with failing: objective: it compares recipes by one objective",
            fix="Remove the pruner, or set failing: constraint or ignore",
        )
    return search


def refuse_rule(content: Mapping[str, Any]) -> None:
    """Raise HarnessError where the seeds of a search itself are added by rule: recipes are compared by equal seeds."""
    if isinstance(content.get("seeds"), dict):
        raise HarnessError(
            "seeds must be a list beside search, which compares recipes over the same seeds (for example: seeds: 1..4)",
            got=describe_value(content["seeds"]),
            fix="Move the rule to search.confirm.seeds",
        )


def _size(value: Scalar) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _space(given: object, content: Mapping[str, Any]) -> tuple[Range, ...]:
    fields = tuple(name for name in Recipe.model_fields if name not in BY_NAME)
    space: list[Range] = []
    for field, value in require_mapping(given, "search.space").items():
        if field not in fields:
            raise unknown_key(field, fields, "search.space")
        dimension = read_range(field, value, space, field_type(Recipe, field).kind, _choices_of_recipe(field))
        if field in content and not dimension.when:
            raise HarnessError(
                f"{field} stands both in search.space and beside search",
                fix="Remove one of them (a value beside search is for a range with `when`)",
            )
        if dimension.when:
            if field not in content and Recipe.model_fields[field].is_required():
                raise HarnessError(
                    f"{field} has no value for where its `when` does not hold", fix=f"Add {field}: … beside search"
                )
            dimension = dimension.model_copy(
                update={"otherwise": content.get(field, Recipe.model_fields[field].default)}
            )
        space.append(dimension)
    if not space:
        raise HarnessError(
            "search.space is empty (for example: search: {space: {lr: {low: 1e-5, high: 1e-3, log: on}}})"
        )
    return tuple(space)


_ReadChoices = Callable[[list[Any]], tuple[Scalar, ...]]


def _choices_of_recipe(field: str) -> _ReadChoices:
    return lambda values: tuple(name for name, _ in read_axis(field, values))


def read_range(field: str, value: object, before: Sequence[Range], kind: str, read_choices: _ReadChoices) -> Range:
    """One field of a space.

    Args:
        field: Its name.
        value: As the file has it.
        before: The fields before it, which `when` may name.
        kind: What it takes: `number`, `integer`, or another kind, of which there are choices alone.
        read_choices: Reads a list of choices.

    Raises:
        HarnessError: It is no range.
    """
    where = f"search.space.{field}"
    given: dict[str, Any] = {"choices": value} if isinstance(value, list) else require_mapping(value, where)
    for key in given:
        if key not in _RANGE_KEYS:
            raise unknown_key(key, _RANGE_KEYS, where)
    when = tuple(
        _condition(where, *pair, before) for pair in require_mapping(given.get("when", {}), f"{where}.when").items()
    )
    if "choices" in given:
        return Range(field=field, choices=_choices(where, given, read_choices), when=when)
    if kind not in ("number", "integer"):
        raise HarnessError(
            f"{where} must be a list of choices, since {field} is not a number",
            got=describe_value(value),
            fix="Write it as [a, b]",
        )
    numbers = _numbers(where, given, whole=kind == "integer")
    log, low, high = given.get("log", False), numbers["low"], numbers["high"]
    _check_bounds(where, numbers, log, whole=kind == "integer")
    dimension = Range(field=field, low=low, high=high, log=log, step=numbers.get("step"), when=when)
    _refuse_single(where, (low,) if low == high else dimension.values)
    return dimension


def _choices(where: str, given: Mapping[str, Any], read_choices: _ReadChoices) -> tuple[Scalar, ...]:
    if len(given) > 1 + ("when" in given):
        raise HarnessError(f"{where} cannot have both a range and choices", fix="Keep low and high, or choices")
    if not isinstance(given["choices"], list):
        raise HarnessError(f"{where}.choices must be a list", got=describe_value(given["choices"]))
    choices = read_choices(given["choices"])
    _refuse_single(where, choices)
    return choices


def _numbers(where: str, given: Mapping[str, Any], *, whole: bool) -> dict[str, Any]:
    """The numbers of a range: low, high and, where there is one, step."""
    numbers: dict[str, Any] = {}
    for key in ("low", "high", "step"):
        number: Any = given.get(key)
        if number is None and key == "step":
            continue
        good = isinstance(number, int if whole else int | float) and not isinstance(number, bool)
        if not good or not math.isfinite(number) or (key == "step" and number <= 0):
            kinds = "a whole number" if whole else "a number"
            raise HarnessError(
                f"{where}.{key} must be {kinds}{' > 0' if key == 'step' else ''}",
                got=describe_value(number),
                fix="A range is {low: …, high: …}, with log: on or step: … if wanted",
            )
        numbers[key] = number if whole else float(number)
    return numbers


def _check_bounds(where: str, numbers: Mapping[str, Any], log: object, *, whole: bool) -> None:
    """Refuse numbers that make no range."""
    low, high = numbers["low"], numbers["high"]
    if not isinstance(log, bool):
        raise HarnessError(f"{where}.log must be on or off", got=describe_value(log))
    if low > high:
        raise HarnessError(
            f"{where}.low must be below high", got=f"low: {show(low)}, high: {show(high)}", fix="Swap them"
        )
    if log and low <= 0:
        raise HarnessError(f"{where}.low must be > 0 with log: on", got=show(low), fix="Raise low, or set log: off")
    if log and "step" in numbers:
        raise HarnessError(f"{where} cannot have both step and log: on", fix="Remove step, or list choices")
    if high > low and not whole and "step" in numbers and (high - low) / numbers["step"] > MOST:
        raise HarnessError(
            f"{where} can have at most {MOST} steps", got=f"step: {show(numbers['step'])}", fix="Write a larger step"
        )


def _refuse_single(where: str, values: tuple[Scalar, ...] | None) -> None:
    if values is not None and len(values) < 2:
        raise HarnessError(
            f"{where} has a single value, {describe_value(values[0])}, and nothing to search",
            fix="Widen it, or set the field beside search",
        )


def _condition(where: str, field: str, value: object, before: Sequence[Range]) -> tuple[str, tuple[Scalar, ...]]:
    wanted = tuple(value) if isinstance(value, list) else (value,)
    known = {dimension.field: dimension.choices for dimension in before if dimension.choices}
    if field not in known or not all(
        any(same_value(wanted_choice, choice) for choice in known[field]) for wanted_choice in wanted
    ):
        raise HarnessError(
            f"{where}.when must name choices that stand before it in search.space",
            got=f"{field}: {describe_value(value)}",
            allowed="; ".join(f"{name}: {', '.join(map(show, values))}" for name, values in known.items()) or None,
            fix=None if known else "Move the choices above it",
        )
    return field, wanted


def _confirmed(given: object, seeds: Sequence[Seeds]) -> dict[str, Any]:
    if given is None:
        return {"best": 0}
    fields = require_mapping(given, "search.confirm")
    for key in fields:
        if key not in ("best", "seeds"):
            raise unknown_key(key, ("best", "seeds"), "search.confirm")
    if "seeds" not in fields:
        raise missing_key("search.confirm.seeds", "seeds: 101..108")
    rule = None
    if isinstance(fields["seeds"], dict):
        rule = read_rule(fields["seeds"], "search.confirm.seeds", {})
    fresh = read_seeds({"seeds": fields["seeds"]}, rule)
    used = {seed.seed for seed in seeds} & {seed.seed for seed in fresh}
    if used:
        raise HarnessError(
            "search.confirm.seeds must be seeds that the search has not used, such as 101..108",
            got=f"seeds {', '.join(map(str, sorted(used)))}, which it has",
            fix=None if rule is None else "Add from: 101",
        )
    if len(fresh) < 2:
        raise HarnessError("search.confirm.seeds must be two seeds or more, such as 101..108", got=f"{len(fresh)} seed")
    return {"best": fields.get("best", 3), "confirm": fresh, "confirm_rule": rule}


def _pruner(given: object) -> Pruner | None:
    """A pruner by its name, or by its name and settings."""
    if given is None:
        return None
    fields = {"name": given} if isinstance(given, str) else require_mapping(given, "search.pruner")
    for key in fields:
        own = OF_PRUNERS.get(key)
        if key not in Pruner.model_fields or (own is not None and fields.get("name") not in own):
            name = fields.get("name")
            known = tuple(setting for setting in Pruner.model_fields if name in OF_PRUNERS.get(setting, (name,)))
            raise unknown_key(key, known, "search.pruner")
    try:
        return Pruner.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = str(first["loc"][0])
        if first["type"] == "missing":
            raise missing_key(f"search.pruner.{field}", f"{field}: median") from None
        raise wrong_value(Pruner, field, first["input"], f"search.pruner.{field}") from None


def _refuse_sampler(search: Search) -> None:
    """Refuse a space that the sampler has no answer for."""
    for dimension in search.space:
        where = f"search.space.{dimension.field}"
        if search.sampler == "grid" and dimension.values is None:
            raise HarnessError(
                f"the sampler grid cannot use {where}, which is continuous",
                fix="Give it a step, list its values, or choose another sampler",
            )
        if search.sampler in ("grid", "qmc", "cmaes") and dimension.when:
            raise HarnessError(
                f"the sampler {search.sampler} cannot use {where}.when",
                fix="Choose tpe, random or nsga2, or remove when",
            )
        if search.sampler == "cmaes" and dimension.choices:
            raise HarnessError(
                f"the sampler cmaes cannot use {where}, a list: it takes ranges of numbers only",
                fix="Choose tpe, or set the field beside search",
            )
    if search.sampler == "cmaes" and search.failing == "objective":
        raise HarnessError(
            "the sampler cmaes cannot be used with failing: objective, which adds a second objective",
            fix="Choose nsga2 or tpe, or set failing: constraint or ignore",
        )
