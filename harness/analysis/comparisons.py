"""What is compared with what: the axes of a study by weight, and the pairs of its cells."""

from __future__ import annotations

import pandas as pd

from harness.common.text import Scalar, show
from harness.records.study import SOURCE, Study, StudyCell
from harness.stats import proportions

MOST_PAIRS = 300  # cells are compared one by one up to so many pairs; with more, a table of them tells nobody anything
MOST_VALUES = 50  # of an axis, up to which each one's level is told by itself


def phrase(axis: str, value: Scalar) -> str:
    """`without bias correction`, `of the recipe usual`, `with epochs 3`."""
    if axis == "bias_correction":
        return "with bias correction" if value else "without bias correction"
    if axis == SOURCE:
        return f"of {show(value)}"
    return f"of the recipe {show(value)}" if axis == "recipe" else f"with {axis.replace('_', ' ')} {show(value)}"


def axes_by_weight(study: Study) -> list[str]:
    """The axes with more than one value: two studies side by side first, then correction, recipe, method, others."""
    first = (SOURCE, "bias_correction", "recipe", "method")
    several = [axis for axis in study.axes if len(study.values(axis)) > 1]
    return sorted(several, key=lambda axis: first.index(axis) if axis in first else len(first))


def main_axis(study: Study) -> str | None:
    """The axis that the opening sentence, the pairs of cells and the profile compare; None without axes."""
    ordered = axes_by_weight(study)
    if not ordered:
        return None
    known = [axis for axis in ordered if axis in (SOURCE, "bias_correction", "recipe", "method")]
    two = [axis for axis in ordered if len(study.values(axis)) == 2]
    return (known or two or ordered)[0]


def other_axes(cell: StudyCell, axis: str) -> tuple[tuple[str, Scalar], ...]:
    """A cell's values on all axes but one."""
    return tuple(pair for pair in cell.axes if pair[0] != axis)


def by_others(study: Study, axis: str, value: Scalar) -> dict[tuple[tuple[str, Scalar], ...], int]:
    """The cells with a value on an axis, by their values on all others."""
    return {other_axes(cell, axis): index for index, cell in enumerate(study.cells) if dict(cell.axes)[axis] == value}


def pairs(study: Study) -> list[tuple[int, int]]:
    """Cells that differ on the main axis alone, each beside that of the axis's first value, as (reference, cell).

    Empty where there are more than `MOST_PAIRS`: then the axes as a whole are compared and not every cell.
    """
    axis = main_axis(study)
    if axis is None:
        return []
    values = study.values(axis)
    reference = by_others(study, axis, values[0])
    pairs_of_cells = [
        (reference[other_axes(cell, axis)], index)
        for index, cell in enumerate(study.cells)
        if dict(cell.axes)[axis] != values[0] and other_axes(cell, axis) in reference
    ]
    return pairs_of_cells if len(pairs_of_cells) <= MOST_PAIRS else []


def holm(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """The table with Holm-adjusted p-values of a column, as `p_holm`."""
    if len(table):
        table["p_holm"] = proportions.holm(table[column].to_numpy(dtype=float))
    return table
