"""The rows of all tables, and what their columns hold: numbers, settings, seeds."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.common.errors import HarnessError
from harness.common.text import Scalar
from harness.records.importing.table import SourceTable
from harness.records.importing.text import parse_number, quoted, storable, text_of

_PADDED = re.compile(r"[+-]?0[0-9]")  # 007 is a name
_EMPTY = {"", "na", "n/a", "<na>", "null", "none"}  # how programs write that there is no score
_NAN = {"nan", "+nan", "-nan"}
_INFINITE = {"inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"}
_TRUTH = {"true": True, "false": False}


@dataclass(frozen=True)
class ImportedRows:
    """The rows of all tables, in their order, or those of them that are chosen."""

    tables: Sequence[SourceTable]
    chosen: np.ndarray | None = None
    places: list[str] = field(init=False)

    def __post_init__(self) -> None:
        """Say where each row stands."""
        object.__setattr__(
            self, "places", self._picked([source_place for table in self.tables for source_place in table.places])
        )

    def _picked(self, values: list[Any]) -> list[Any]:
        return values if self.chosen is None else [values[index] for index in self.chosen]

    def values(self, column: str) -> list[Any]:
        """A column as the files have it; None in those of a table without it."""
        return self._picked(
            [
                value
                for table in self.tables
                for value in (table.columns[column] if column in table.columns else [None] * len(table.places))
            ]
        )

    @property
    def table_of_row(self) -> list[int]:
        """Which table each row is of."""
        return self._picked([index for index, table in enumerate(self.tables) for _ in table.places])

    @property
    def row_in_table(self) -> list[int]:
        """Where in its table each row stands."""
        return self._picked([row for table in self.tables for row in range(len(table.places))])

    def keep(self, mask: np.ndarray) -> ImportedRows:
        """The rows of a mask [rows]."""
        if mask.all():
            return self
        before = np.arange(len(mask)) if self.chosen is None else self.chosen
        return ImportedRows(self.tables, before[mask])

    def numbers(self, column: str, option: str) -> np.ndarray:
        """A column as floats [rows], NaN where it is empty, NaN or infinite; raises HarnessError for text."""
        numbers = np.empty(len(self.places))
        for index, value in enumerate(self.values(column)):
            if type(value) is float:
                numbers[index] = value
                continue
            try:
                if isinstance(value, bool) or (isinstance(value, str) and "_" in value):
                    raise ValueError
                numbers[index] = math.nan if is_empty(value) else float(value)
            except OverflowError:
                numbers[index] = math.inf
            except ValueError:
                raise HarnessError(
                    f"{option} {quoted(column)} must hold numbers, such as 0.53 or 1e-5",
                    got=f"{quoted(value)} in {self.places[index]}",
                    fix="Correct it, or leave the row out with --where",
                ) from None
        numbers[~np.isfinite(numbers)] = math.nan
        return numbers

    def empty(self, column: str) -> np.ndarray:
        """Where a column holds nothing [rows]: neither a number nor NaN."""
        return np.array([is_empty(value) for value in self.values(column)], dtype=bool)

    def settings(self, column: str) -> list[Scalar]:
        """A column as settings: all of them numbers, all on/off, or all texts, and None where there is none.

        A text that reads as a number is one if the whole column does, so that no format of file makes a difference.
        """
        values = self.values(column)
        keys = [(type(value), value) for value in values]
        kinds = {key: _kind(key[1]) for key in dict.fromkeys(keys)}
        present = {kind for kind, _ in kinds.values() if kind != "none"}
        texts: dict[tuple[type, Any], Scalar] = {}
        if present <= {"integer", "number", "infinite"}:
            floats = "number" in present
            for key, (_, value) in kinds.items():
                texts[key] = _as_float(value) if floats and isinstance(value, int) else value
        elif present == {"truth"}:
            texts = {key: value for key, (_, value) in kinds.items()}
        else:
            texts = {key: None if kind == "none" else text_of(key[1]) for key, (kind, _) in kinds.items()}
        for key, value in texts.items():
            if isinstance(value, str) and storable(value) != value:
                raise HarnessError(
                    f"{quoted(column)} holds text that UTF-8 cannot encode",
                    got=f"{quoted(value)} in {self.places[keys.index(key)]}",
                )
        return [texts[key] for key in keys]

    def seeds(self, column: str, planned: Sequence[str]) -> tuple[list[Any], list[Any]]:
        """The seeds of the rows and those planned: all integers, all numbers, or all texts."""
        values = [*self.values(column), *planned]
        seeds: list[Any] = []
        for index, value in enumerate(values):
            kind, seed = _kind(value, padded=True)
            bad = kind in ("none", "truth", "infinite") or (kind == "text" and not text_of(value).isprintable())
            if bad or (isinstance(seed, str) and storable(seed) != seed):
                raise HarnessError(
                    "a seed must be a number or one line of text",
                    got=f"{quoted(value)} in {self.places[index] if index < len(self.places) else '--seeds'}",
                    fix="Name the column of the seeds with --seed, or leave the row out with --where",
                )
            seeds.append(int(seed) if isinstance(seed, float) and seed.is_integer() else seed)
        types = {type(seed) for seed in seeds}
        if str in types:
            seeds = [text_of(value) for value in values]
        return seeds[: len(self.places)], seeds[len(self.places) :]


def is_empty(value: object) -> bool:
    """Whether a value is how programs write that there is none; NaN is not."""
    return value is None or (isinstance(value, str) and value.strip().casefold() in _EMPTY)


def _as_float(value: int) -> float | int:
    """An integer beside other numbers; one that a float can't hold stays itself."""
    try:
        return float(value) if float(value) == value else value
    except OverflowError:
        return value


def _kind(value: Any, padded: bool = False) -> tuple[str, Scalar]:
    """What a setting or seed is: none, truth, integer, number, infinite or text; `padded` reads 007 as 7."""
    if isinstance(value, bool):
        return "truth", value
    if isinstance(value, int):
        return "integer", value
    if isinstance(value, float):
        if math.isfinite(value):
            return "number", value + 0.0  # no -0.0
        return ("none", None) if math.isnan(value) else ("infinite", "inf" if value > 0 else "-inf")
    if value is None:
        return "none", None
    text = value.strip()
    low = text.casefold()
    if low in ("", *_NAN):
        return "none", None
    if low in _TRUTH:
        return "truth", _TRUTH[low]
    if low in _INFINITE:
        return "infinite", "-inf" if low.startswith("-") else "inf"
    number = parse_number(text)
    if number is None or (_PADDED.match(text) and not padded):
        return "text", value
    return ("integer", int(text)) if text.lstrip("+-").isdigit() else ("number", number + 0.0)
