"""Cells and planned seeds: the grid that the rows are put into."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness.common.errors import HarnessError
from harness.common.text import Scalar, name_cell
from harness.records.importing.rows import ImportedRows
from harness.records.importing.text import quoted
from harness.records.study import Axes

MOST_PLANNED = 1_000_000  # cells × seeds of --seeds; more is a slip of the pen


def _ranks(values: Sequence[Scalar]) -> dict[Scalar, int]:
    """The place of each value on its axis: numbers by size, off before on, texts as they first appear; none last."""
    distinct = [value for value in dict.fromkeys(values) if value is not None]

    def size(value: Any) -> float | int:
        return float(value) if value in ("inf", "-inf") else value

    if all(value in ("inf", "-inf") or not isinstance(value, str) for value in distinct):
        distinct.sort(key=size)
    return {value: rank for rank, value in enumerate([*distinct, *([None] if None in values else [])])}


def cells_of(rows: ImportedRows, columns: Sequence[str], names: Sequence[str]) -> tuple[np.ndarray, tuple[Axes, ...]]:
    """The cell of each row [rows] and the axes of each cell; cells are the combinations that occur, in order."""
    codes = np.zeros(len(rows.places), dtype=np.int64)
    levels: list[list[Scalar]] = []
    parts: list[np.ndarray] = []
    for column in columns:
        values = rows.settings(column)
        ranks = _ranks(values)
        parts.append(np.fromiter((ranks[value] for value in values), np.int64, len(values)))
        levels.append(list(ranks))
        codes = np.unique(codes * len(ranks) + parts[-1], return_inverse=True)[1].astype(np.int64)
    first = np.unique(codes, return_index=True)[1]
    axes = tuple(
        tuple((name, level[part[row]]) for name, level, part in zip(names, levels, parts, strict=True)) for row in first
    )
    return codes, axes


def planned_seeds(text: str | None) -> list[str]:
    """The seeds of `1..20` or `1,2,5..9`, as texts; none where there is no plan."""
    if text is None:
        return []
    seeds: list[str] = []
    for part in text.split(","):
        start, dots, end = (piece.strip() for piece in part.partition(".."))
        whole = all(re.fullmatch(r"-?[0-9]{1,18}", piece) for piece in (start, end))
        if (dots and (not whole or int(start) > int(end))) or not start:
            raise HarnessError("--seeds must be seeds and ranges, such as 1..20 or 1,2,5..9", got=quoted(text))
        last = int(end) if dots else 0
        if len(seeds) + (last - int(start) if dots else 0) >= MOST_PLANNED:
            refuse_plan(text)
        seeds += [str(seed) for seed in range(int(start), last + 1)] if dots else [start]
    if len(set(seeds)) < len(seeds):
        raise HarnessError(f"--seeds {quoted(text)} names a seed twice", fix="Remove one")
    return seeds


def refuse_plan(text: str) -> None:
    """Raise the HarnessError of a plan that is too large."""
    raise HarnessError(
        f"--seeds {quoted(text)} plans more than {MOST_PLANNED} runs (cells × seeds)", fix="Narrow --seeds"
    )


def one_per_cell(given: float | np.ndarray, option: str, cell: np.ndarray, axes: Sequence[Axes]) -> np.ndarray:
    """A number that belongs to the cell [cells], typed once or of each row [rows]; NaN where no row has one."""
    if not isinstance(given, np.ndarray):
        return np.full(len(axes), float(given))
    values = pd.Series(given).groupby(cell)
    low, high = values.min(), values.max()
    differing = np.flatnonzero((low != high) & low.notna())
    if len(differing):
        first_cell = differing[0]
        raise HarnessError(
            f"{option} must be the same in all rows of a cell",
            got=f"{low.iloc[first_cell]:g} and {high.iloc[first_cell]:g} in {quoted(name_cell(axes[first_cell]), 100)}",
            fix="Add the column that it depends on to --cell",
        )
    return np.asarray(low)  # every cell has a row
