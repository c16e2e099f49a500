"""The conditions of --where: which rows are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.common.errors import HarnessError
from harness.records.importing.columns import require
from harness.records.importing.table import SourceTable
from harness.records.importing.text import parse_number, quoted, split_names, text_of

_TRUTH = {"true", "false"}


@dataclass(frozen=True)
class Condition:
    """A column has one of the texts (or a number equal to one), or, negated, none of them."""

    column: str
    negated: bool
    texts: frozenset[str]

    def holds(self, values: Sequence[object]) -> np.ndarray:
        """Where it holds [rows]."""
        numbers = {number for text in self.texts if (number := parse_number(text)) is not None}
        known: dict[tuple[type, object], bool] = {}
        held = np.empty(len(values), dtype=bool)
        for index, value in enumerate(values):
            key = (type(value), value)
            if key not in known:
                known[key] = _matches(value, self.texts, numbers) != self.negated
            held[index] = known[key]
        return held


def conditions(given: Sequence[str], tables: Sequence[SourceTable]) -> list[Condition]:
    """The conditions of `COLUMN=VALUE,…` and `COLUMN!=VALUE,…`; raises HarnessError for others.

    Several `=` of one column allow the values of all; several `!=` forbid them all.
    """
    values_of: dict[tuple[str, bool], set[str]] = {}
    for text in given:
        readings = [
            reading for position, sign in enumerate(text) if sign == "=" for reading in _readings(text, position)
        ]
        if not readings:
            raise HarnessError(
                f"--where {quoted(text)} is not of the form COLUMN=VALUE or COLUMN!=VALUE (for example: "
                "split=test,dev or split!=train)"
            )
        fitting = [reading for reading in readings if all(reading[0] in table.columns for table in tables)]
        column, negated, values = (fitting or readings)[0]
        require(column, "--where", tables)
        values_of.setdefault((column, negated), set()).update({values, *split_names(values)})
    return [Condition(column, negated, frozenset(texts)) for (column, negated), texts in values_of.items()]


def _readings(text: str, position: int) -> list[tuple[str, bool, str]]:
    """Column, whether negated, and values of a condition whose sign is the `=` at a place."""
    column, values = text[:position], text[position + 1 :]
    plain = (column, False, values)
    return [(column[:-1], True, values), plain] if column.endswith("!") and len(column) > 1 else [plain]


def _matches(value: object, texts: frozenset[str], numbers: set[float]) -> bool:
    text = text_of(value)
    if text in texts or parse_number(text) in numbers:
        return True
    folded = text.strip().casefold()
    return folded in _TRUTH and any(folded == allowed.casefold() for allowed in texts)
