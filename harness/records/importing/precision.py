"""How exactly a file's numbers are written, which is how exactly a score is compared with the majority."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

FLOAT32 = 2.0**-23  # relative: neighbouring float32 numbers lie no further apart
UNROUNDED = 17  # decimals of a number that was not rounded
_COARSEST = 0.01  # of the scale: 0.5 and 0.6 are no sign that scores were rounded to one decimal


def decimals(value: object) -> int:
    """How many decimals a number is written with, trailing zeros of a text included; 17 where it was not rounded."""
    if isinstance(value, float) and not math.isfinite(value):
        return UNROUNDED
    text = value.strip().lower() if isinstance(value, str) else repr(value)
    mantissa, _, exponent = text.lower().partition("e")
    digits = mantissa.partition(".")[2]
    if not isinstance(value, str):
        digits = digits.rstrip("0")
    try:
        return max(0, min(UNROUNDED, len(digits) - int(exponent or 0)))
    except ValueError:
        return UNROUNDED


def half_units(
    values: Iterable[object], scores: np.ndarray, table_of_row: Sequence[int], more: int, percent: bool
) -> np.ndarray:
    """Half the last decimal of each row's table [rows]; 0 where its scores were not rounded, or to a tenth or so.

    `values` are the scores as written and `scores` as numbers (NaN: none), `more` the decimals that a conversion
    added, `percent` whether they are percentages still.
    """
    finest: dict[int, int] = {}
    for value, table, score in zip(values, table_of_row, scores, strict=True):
        if math.isfinite(score) and finest.get(table, 0) < UNROUNDED:
            finest[table] = max(finest.get(table, 0), decimals(value) + more)
    units = {table: 10.0**-places for table, places in finest.items()}
    coarsest = _COARSEST * (100 if percent else 1) * (1 + FLOAT32)
    halves = {table: unit / 2 if unit <= coarsest else 0.0 for table, unit in units.items()}
    return np.array([halves.get(table, 0.0) for table in table_of_row])


def slack(majority: np.ndarray, half: np.ndarray) -> np.ndarray:
    """How far above the majority a score counts as at it [R]: by float32's precision, or half the last decimal."""
    fine: np.ndarray = np.maximum(FLOAT32 * np.abs(majority), half * (1 + 1e-9))
    return fine
