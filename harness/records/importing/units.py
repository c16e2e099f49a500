"""Percentages and fractions: one unit for scores and majority, or one clear line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from harness.common.errors import HarnessError
from harness.records.importing.text import quoted

UNITS = ("percent", "fraction", "other")
Unit = Literal["percent", "fraction", "mixed", "other", "any"]
_LEAST_PERCENT = 10.0  # a column of percentages has a score of 10 or more


@dataclass(frozen=True)
class Scaled:
    """Scores and majority in one unit, and sentences on what was converted; `percent` where scores stay so."""

    numbers: dict[str, np.ndarray]  # [rows]
    majority: float | np.ndarray | None
    percent: bool
    decimals: int  # by which the scores have more digits now: 2 after percentages became fractions
    notes: tuple[str, ...] = ()


def unit_of(values: np.ndarray) -> Unit:
    """What numbers look like: `fraction` up to 1, `percent` above 1 and up to 100, `mixed` where some are each.

    Zeros are either; columns without a number of 10 or more, or with one above 100, are `other`.
    """
    sizes = np.abs(values[np.isfinite(values)])
    sizes = sizes[sizes > 0]
    if not len(sizes):
        return "any"
    least, most = sizes.min(), sizes.max()
    if most <= 1:
        return "fraction"
    if most > 100 or most < _LEAST_PERCENT:
        return "other"
    return "mixed" if least <= 1 else "percent"


def to_one_unit(
    numbers: Mapping[str, np.ndarray],
    columns: Mapping[str, str],
    majority: float | np.ndarray | None,
    unit: str | None,
    places: Sequence[str],
    *,
    higher_is_better: bool,
) -> Scaled:
    """Bring `score`, `test`, `best` and the majority to one unit; losses and lower-is-better scores stay as they are.

    Args:
        numbers: The values [rows] of each of them.
        columns: The column that each was read from.
        majority: The majority's score, typed once or of each row [rows].
        unit: What `--unit` says: percent, fraction or other; None: told by the values.
        places: Where each row stands, for errors.
        higher_is_better: Whether the scores are such that have a unit.

    Raises:
        HarnessError: It is not sure which unit is meant.
    """
    scores = {name: values for name, values in numbers.items() if name in ("score", "test", "best")}
    if unit == "other" or not higher_is_better:
        return Scaled(dict(numbers), majority, False, 0)
    units: dict[str, Unit] = {}
    for name, values in scores.items():
        unit_of_column = unit_of(values)
        if unit_of_column == "mixed" and unit is None:
            _refuse_mixed(columns[name], values, places)
        units[name] = unit_of_column
        _hold_declared(unit, columns[name], values, places)
    told = {name: stated for name, stated in units.items() if stated in ("percent", "fraction")}
    if unit is None and len(set(told.values())) > 1:
        names = " and ".join(f"{quoted(columns[name])} in {_word(stated)}" for name, stated in told.items())
        raise HarnessError(
            f"scores in different units: {names}",
            fix="Leave one out, convert it, or set --unit percent, fraction or other",
        )
    level = np.atleast_1d(np.asarray(np.nan if majority is None else majority, dtype=float))
    sizes = np.abs(level[np.isfinite(level)])
    of_majority = sizes.max() if len(sizes) else 0.0
    if len(sizes) and unit_of(level) == "mixed":
        _refuse_mixed("the majority", level, places)
    percent = unit == "percent" or (unit is None and units["score"] == "percent")
    if percent and (unit == "percent" or 0 < of_majority <= 1):
        return _as_fractions(numbers, scores, majority, of_majority, told=unit is None)
    if of_majority > 1 and (unit == "fraction" or units["score"] == "fraction"):
        if not _LEAST_PERCENT <= of_majority <= 100:
            raise HarnessError(
                f"scores and majority in different units: a majority of {of_majority:g}, but scores up to "
                f"{np.nanmax(np.abs(scores['score'])):g}",
                fix="Give the majority in the unit of the scores, or set --unit other",
            )
        note = f"The scores are fractions and the majority, {of_majority:g}, is in percent: it is read as a fraction."
        return Scaled(dict(numbers), None if majority is None else _hundredth(majority), False, 0, (note,))
    return Scaled(dict(numbers), majority, percent, 0)


def _as_fractions(
    numbers: Mapping[str, np.ndarray],
    scores: Mapping[str, np.ndarray],
    majority: float | np.ndarray | None,
    of_majority: float,
    *,
    told: bool,
) -> Scaled:
    low, high = np.nanmin(scores["score"]), np.nanmax(scores["score"])
    divided = dict(numbers) | {name: _hundredth(values) for name, values in scores.items()}
    note = f"The scores are in percent ({low:g} to {high:g})"
    note += f" and the majority, {of_majority:g}, is a fraction" if told else ""
    level = _hundredth(majority) if majority is not None and of_majority > 1 else majority
    return Scaled(divided, level, False, 2, (f"{note}: all are read as fractions.",))


def _hundredth(value: Any) -> Any:
    """A percentage as a fraction, without the digits that division adds: 0.71 / 100 is 0.0070999999999999995."""
    return np.round(value / 100, 15)


def _word(unit: str) -> str:
    return "percent" if unit == "percent" else "fractions"


def _hold_declared(unit: str | None, column: str, values: np.ndarray, places: Sequence[str]) -> None:
    limit = {"percent": 100.0, "fraction": 1.0}.get(unit or "", np.inf)
    outside = np.flatnonzero(np.isfinite(values) & (np.abs(values) > limit))
    if len(outside):
        raise HarnessError(
            f"with --unit {unit} scores must be at most {limit:g}",
            got=f"{values[outside[0]]:g} in {quoted(column)}, {places[outside[0]]}",
            fix="Set another --unit",
        )


def _refuse_mixed(column: str, values: np.ndarray, places: Sequence[str]) -> None:
    sizes = np.where(np.isfinite(values) & (values != 0), np.abs(values), np.nan)
    small, large = int(np.nanargmin(sizes)), int(np.nanargmax(sizes))
    there = [f" in {places[row]}" if len(values) == len(places) else "" for row in (small, large)]
    raise HarnessError(
        f"percent and fractions seem to be mixed in {quoted(column)}: {values[small]:g}{there[0]} beside "
        f"{values[large]:g}{there[1]}",
        fix="Convert them, or set --unit percent, fraction or other if all of them are that",
    )
