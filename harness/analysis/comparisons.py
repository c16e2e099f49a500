"""What is compared with what: the axes of a study, the reference of each, and the pairs of its cells."""

from __future__ import annotations

from itertools import combinations

import pandas as pd

from harness.common.text import Scalar, show
from harness.config.recipe_rules import OF_A_CHOICE
from harness.records.study import SOURCE, Axes, Study, StudyCell
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


def compared_axes(study: Study) -> list[str]:
    """The axes with more than one value, the main one first, the others in the order of the study.

    The main axis is the one that was asked for, of two studies side by side what tells them apart, and otherwise the
    one that the sweep varies first.
    """
    several = [axis for axis in study.axes if len(study.values(axis)) > 1]
    main = study.compared.main
    return sorted(several, key=lambda axis: axis != main)


def main_axis(study: Study) -> str | None:
    """The axis that the opening, the pairs of cells and the profile compare; None without axes."""
    axes = compared_axes(study)
    return axes[0] if axes else None


def reference(study: Study, axis: str) -> Scalar:
    """The value that the others of an axis are compared with: the chosen one, or the first that the sweep lists.

    Of imported runs, whose order means nothing, it is the smallest value: off, the least number, the first by name. Of
    two studies side by side it is the one named first.
    """
    for name, value in study.compared.references:
        if name == axis:
            return value
    values = study.values(axis)
    if len(study.sweeps) == 1 and axis != SOURCE and _goes_without(study, axis) and len(values) > 1:
        values = [value for value in values if value is not None]  # cells without it differ in more than this axis
    return values[0] if study.sweeps or axis == SOURCE else min(values, key=_natural_order)


def _goes_without(study: Study, axis: str) -> bool:
    """Whether None on an axis is the place of cells whose method, optimizer or other choice does not read it."""
    sweep = study.sweeps[0]
    return not sweep.is_script and any(
        dict(cell.axes).get(axis, axis) is None and axis in OF_A_CHOICE and not OF_A_CHOICE[axis](cell.recipe)
        for cell in sweep.cells
    )


def _natural_order(value: Scalar) -> tuple[int, float, str]:
    return (0, float(value), "") if isinstance(value, bool | int | float) else (value is not None, 0.0, show(value))


def compared_values(study: Study, axis: str) -> list[tuple[Scalar, Scalar]]:
    """What is compared on an axis, as (reference, value): each with the reference, or every pair where asked for."""
    first = reference(study, axis)
    values = [first, *(value for value in study.values(axis) if value != first)]
    if study.compared.all_pairs and len(values) <= MOST_VALUES:
        return list(combinations(values, 2))
    return [(first, value) for value in values[1:]]


def other_axes(cell: StudyCell, axis: str) -> Axes:
    """A cell's values on all axes but one."""
    return tuple(pair for pair in cell.axes if pair[0] != axis)


def by_others(study: Study, axis: str, value: Scalar) -> dict[Axes, int]:
    """The cells with a value on an axis, by their values on all others."""
    return {other_axes(cell, axis): index for index, cell in enumerate(study.cells) if dict(cell.axes)[axis] == value}


def pairs(study: Study) -> list[tuple[int, int]]:
    """Cells that differ on the main axis alone, as (reference, cell); `compared_values` says which.

    Empty where there are more than `MOST_PAIRS`: then the axes as a whole are compared and not every cell.
    """
    axis = main_axis(study)
    if axis is None:
        return []
    cells = {value: by_others(study, axis, value) for value in study.values(axis)}
    pairs_of_cells = [
        (cells[first][others], index)
        for first, value in compared_values(study, axis)
        for others, index in cells[value].items()
        if others in cells[first]
    ]
    return sorted(pairs_of_cells, key=lambda pair: pair[::-1]) if len(pairs_of_cells) <= MOST_PAIRS else []


def holm(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """The table with Holm-adjusted p-values of a column, as `p_holm`."""
    if len(table):
        table["p_holm"] = proportions.holm(table[column].to_numpy(dtype=float))
    return table
