"""Which axis of a study goes where in a figure: along x, as colour, as panels, or a row for each cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from harness.common.text import Scalar
from harness.records.study import SOURCE, Study, StudyCell
from harness.report.figures.lettering import (
    cut_parts,
    fit,
    literal,
    pt,
    setting,
    spaced,
    value_texts,
)
from harness.report.figures.sheet import (
    current,
)
from harness.report.figures.style import (
    FAINT,
    MOST_VALUES,
    colour_of,
    legend_key,
    marker_of,
    panels,
    upright_grid,
)

if TYPE_CHECKING:
    from harness.analysis.analyze import Analysis

TALLEST = 8.4  # inches of panels: with title and legend they stay on a page
MOST_CELLS = 48  # more rows or boxes than a page has room for
MOST_ROWS = 6  # of panels


@dataclass(frozen=True)
class Layout:
    """Which axis of the study goes where: along x, as colour, and one facet for each combination of the others."""

    x: str | None
    hue: str | None
    facets: tuple[str, ...]


def layout(study: Study) -> Layout:
    """Lay axes out as the paper's Figure 9: lr (or the recipe) along x, bias correction as colour, epochs as facets.

    Two studies side by side are two colours, then corrections, then methods are. An axis of more values than there are
    colours goes along x; one of a single value is named by the facet.
    """
    return _layout(study.cells)


def _layout(cells: Sequence[StudyCell]) -> Layout:
    values = {name: axis_values(cells, name) for name, _ in cells[0].axes}
    several = [axis for axis in values if len(values[axis]) > 1] or list(values)[:1]

    def first(axes: Sequence[str], *order: str) -> str | None:
        """The one that comes first in `order`; `*` stands for the axes that are not named there."""
        rank = {name: place for place, name in enumerate(order)}
        return min(axes, key=lambda axis: rank.get(axis, rank["*"]), default=None)

    many = [axis for axis in several if len(values[axis]) > MOST_VALUES]
    named = [axis for axis in several if axis in ("recipe", "lr")]
    x = first(named or many or several, "recipe", "lr", "*", "method", "epochs", "bias_correction", SOURCE)
    left = [axis for axis in several if axis != x]
    colours = [axis for axis in left if len(values[axis]) <= MOST_VALUES]
    hue = first(colours, SOURCE, "bias_correction", "method", "*", "epochs")
    facets = [axis for axis in left if axis != hue] + [axis for axis in values if axis not in several]
    return Layout(x, hue, tuple(sorted(facets, key=lambda axis: axis != "epochs")))


def axis_values(cells: Sequence[StudyCell], axis: str | None) -> list[Scalar]:
    """The values of an axis in the order of the cells; [None] for no axis, so that there is one place to draw at."""
    return [None] if axis is None else list(dict.fromkeys(dict(cell.axes)[axis] for cell in cells))


@dataclass(frozen=True)
class AxisPlace:
    """Where a cell is drawn: its panel, its value's position along x and in the panel, and the number of its colour."""

    panel: int
    x: int
    hue: int


@dataclass(frozen=True)
class Plan:
    """Panels and what stands in them; `places` says of each cell that is drawn, by its index, where."""

    layout: Layout
    hues: tuple[Scalar, ...]
    titles: tuple[str, ...]
    xs: tuple[tuple[Scalar, ...], ...]  # of each panel
    places: Mapping[int, AxisPlace]

    def members(self, panel: int) -> list[int]:
        """The cells of a panel."""
        return [index for index, place in self.places.items() if place.panel == panel]

    def keys(self) -> list[Line2D]:
        """The colours' legend."""
        return [
            legend_key(setting(self.layout.hue, hue), colour_of(i), marker=marker_of(i))
            for i, hue in enumerate(self.hues)
        ]


@dataclass(frozen=True)
class Selection:
    """The cells that figures show, by their numbers, and which these are where there are more."""

    cells: tuple[int, ...]
    why: str = ""


def selected(analysis: Analysis) -> Selection:
    """All cells; of more than a page has room for, those of the panels where most runs failed.

    Panels stay whole, so that their cells can be compared. Where no run failed, or one panel is too many, the first
    cells are shown.
    """
    cells = analysis.study.cells
    first = Selection(tuple(range(min(len(cells), MOST_CELLS))))
    if len(cells) <= MOST_CELLS:
        return first
    failed = analysis.cells["failed"].fillna(0).astype(int).tolist()
    if not any(failed):
        return first
    facets = _layout(cells).facets
    panels: dict[tuple[Scalar, ...], list[int]] = {}
    for index, cell in enumerate(cells):
        panels.setdefault(tuple(dict(cell.axes)[axis] for axis in facets), []).append(index)
    chosen: list[int] = []
    for members in sorted(panels.values(), key=lambda members: -sum(failed[index] for index in members)):
        if len(chosen) + len(members) > MOST_CELLS:
            break
        chosen += members
    return Selection(tuple(sorted(chosen)), "where most runs failed") if chosen else first


def plan_of(study: Study, along: int, most: int, shown: Sequence[int]) -> Plan:
    """Put cells into panels that have room for `along` values of x each, at most `most` panels."""
    cells = [study.cells[index] for index in shown]
    how = _layout(cells)
    xs, hues = axis_values(cells, how.x), axis_values(cells, how.hue)
    facets = [", ".join(setting(axis, dict(cell.axes)[axis]) for axis in how.facets) for cell in cells]
    parts = -(-len(xs) // along)
    along = -(-len(xs) // parts)  # parts of equal length
    keys: dict[tuple[str, int], int] = {}
    places = {}
    for index, cell, facet in zip(shown, cells, facets, strict=True):
        axes = dict(cell.axes)
        x = xs.index(axes[how.x]) if how.x else 0
        panel = keys.setdefault((facet, x // along), len(keys))
        places[index] = AxisPlace(panel, x % along, hues.index(axes[how.hue]) if how.hue else 0)
    kept = list(keys)[:most]
    return Plan(
        layout=how,
        hues=tuple(hues),
        titles=tuple(f"{name or 'all'}, part {part + 1} of {parts}" if parts > 1 else name for name, part in kept),
        xs=tuple(tuple(xs[part * along : (part + 1) * along]) for _, part in kept),
        places={index: place for index, place in places.items() if place.panel < most},
    )


# --------------------------------------------------------------------------------------------------------------- panels


def titled_panels(figure: Figure, titles: Sequence[str], columns: int, share: bool = True) -> list[Axes]:
    """One panel a facet; those of the last row that nobody needs are taken out."""
    rows = -(-len(titles) // columns)
    flat = [ax for row in panels(figure, rows, columns, len(titles), sharey=share) for ax in row]
    for ax, title in zip(flat, titles, strict=False):
        ax.set_title(fit(title, 8.5, (current().width - 0.7) / columns - 0.25 * (columns > 1)))
    return flat


def columns_for(most: int, least: float) -> int:
    """How many panels stand side by side, each with so many inches at least in usual fonts."""
    return max(1, min(most, int(current().width / current().scale / least)))


def panel_height(rows: int, least: float, most: float) -> float:
    """Inches for one of so many rows of panels."""
    return min(max(TALLEST / rows, least), most)


def jitter(n: int, width: float) -> np.ndarray:
    """n offsets [n] within ±width/2 that fill evenly and never change (van der Corput's sequence to base 2)."""
    if n == 1:
        return np.zeros(1)
    bits = (np.arange(1, n + 1)[:, None] >> np.arange(20)) & 1
    offsets: np.ndarray = ((bits / 2.0 ** np.arange(1, 21)).sum(axis=1) - 0.5) * width
    return offsets


# ------------------------------------------------------------------------------------------------------- one row a cell


def row_labels(ax: Axes, study: Study, members: Sequence[int], notes: Sequence[str], heading: str) -> None:
    """Left of the rows their cells, under the names of the axes; right of them a note each, under its heading."""
    rows = np.arange(len(members))
    wide = min(2.0, 0.36 * current().width)
    labels = []
    values = {axis: study.values(axis) for axis in study.axes}
    texts = {axis: dict(zip(found, value_texts(found), strict=True)) for axis, found in values.items()}
    for index in members:
        parts = [texts[axis][value] for axis, value in study.cells[index].axes] or ["the only recipe"]
        labels.append(literal(cut_parts(parts, " · ", 8, wide)))
    ax.set_yticks(rows, labels)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    upright_grid(ax)
    names = cut_parts([spaced(axis) for axis in study.axes], " · ", 7.5, wide)
    how: Any = {"fontsize": pt(7.5), "color": FAINT}
    ax.annotate(literal(names), (0, 1), (-6, 3), "axes fraction", "offset points", ha="right", **how)
    right = ax.secondary_yaxis("right")
    right.set_yticks(rows, list(notes))
    right.tick_params(length=0)
    right.spines["right"].set_visible(False)
    ax.annotate(heading, (1, 1), (6, 3), "axes fraction", "offset points", **how)


def rows_height(rows: int) -> float:
    """Inches for so many rows of one cell each."""
    return 0.7 + rows * (0.2 if rows <= 24 else 0.165)
