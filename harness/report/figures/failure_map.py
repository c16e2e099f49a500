"""`failure_map`: the failure rate over two axes, as learning rates by epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from harness.common.text import Scalar
from harness.records.study import SOURCE, Study
from harness.report.figures.layout import titled_panels
from harness.report.figures.lettering import cut, fit, literal, pt, setting, spaced, value_texts
from harness.report.figures.sheet import current, styled
from harness.report.figures.style import FAILED, INK, empty_figure, part_shown

if TYPE_CHECKING:
    from harness.analysis.analyze import Analysis

FEWEST = 3  # values of each axis
MOST = 12  # of each, and
MOST_PANELS = 4
NOT_KNOWN = "#E3E3E3"
_LATER = ("seed set", SOURCE)


@styled
def failure_map(analysis: Analysis) -> Figure | None:
    """The share of failed runs over two axes of three or more values each; failed of judged runs stand in each field.

    Of several such axes lr goes along x and the longest other one up; up to four combinations of the others have panels
    of their own, of more the runs are pooled. A grey field has no judged run.
    """
    study = analysis.study
    table = analysis.runs[analysis.runs["outcome"].notna()]
    chosen = _axes(study)
    if chosen is None or table.empty or not (table["outcome"] == "failed").any():
        return None
    across, up = chosen
    xs, ys = _sorted(study.values(across)), _sorted(study.values(up))
    rest = [axis for axis in study.axes if axis not in chosen and len(study.values(axis)) > 1]
    titles = [", ".join(setting(axis, dict(cell.axes)[axis]) for axis in rest) for cell in study.cells]
    panels = list(dict.fromkeys(titles))
    if len(panels) > MOST_PANELS:
        panels, titles = ["all runs pooled"], ["all runs pooled"] * len(study.cells)
    columns = 1 if len(panels) == 1 else 2
    what = f"failed of judged runs by {spaced(across)} and {spaced(up)}"
    what += part_shown(xs[:MOST], xs, f"values of {spaced(across)}")
    xs, ys = xs[:MOST], ys[:MOST]
    rows = -(-len(panels) // columns)
    figure = empty_figure(study, what, rows * (0.75 + 0.24 * len(ys)), rows=True)
    shades = LinearSegmentedColormap.from_list("failed", ["#FFFFFF", "#F3B6A8", FAILED]).with_extremes(bad=NOT_KNOWN)
    for number, (ax, title) in enumerate(zip(titled_panels(figure, list(panels), columns), panels, strict=True)):
        cells = [index for index, name in enumerate(titles) if name == title]
        failed, judged = _counts(study, table[table["cell"].isin(cells)], (across, xs), (up, ys))
        with np.errstate(invalid="ignore", divide="ignore"):
            rates = np.ma.masked_invalid(failed / judged)
        ax.pcolormesh(np.arange(len(xs) + 1), np.arange(len(ys) + 1), rates, cmap=shades, vmin=0, vmax=1, ec="white")
        for (y, x), n in np.ndenumerate(judged):
            if n:
                shade = "white" if failed[y, x] / n > 0.6 else INK
                words = f"{failed[y, x]:.0f}/{n:.0f}"
                ax.text(x + 0.5, y + 0.5, words, ha="center", va="center", fontsize=pt(6.5), color=shade)
        _ticks(ax, (across, xs), (up, ys), columns)
        if number % columns:
            ax.set_ylabel("")
    return figure


def _axes(study: Study) -> tuple[str, str] | None:
    long = [axis for axis in study.axes if len(study.values(axis)) >= FEWEST]
    if len(long) < 2:
        return None
    across = "lr" if "lr" in long else max(long, key=lambda axis: (axis not in _LATER, len(study.values(axis))))
    up = max((axis for axis in long if axis != across), key=lambda axis: (axis not in _LATER, len(study.values(axis))))
    return across, up


def _sorted(values: Sequence[Scalar]) -> list[Scalar]:
    """Numbers from the least up; anything else as it comes."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return [*sorted(numbers)] if len(numbers) == len(values) else list(values)


def _counts(
    study: Study, table: pd.DataFrame, across: tuple[str, Sequence[Scalar]], up: tuple[str, Sequence[Scalar]]
) -> tuple[np.ndarray, np.ndarray]:
    """Failed and judged runs [values up, values across]."""
    failed, judged = np.zeros((len(up[1]), len(across[1]))), np.zeros((len(up[1]), len(across[1])))
    for cell, here in table.groupby("cell"):
        axes = dict(study.cells[int(cell)].axes)
        if axes[across[0]] in across[1] and axes[up[0]] in up[1]:
            at = up[1].index(axes[up[0]]), across[1].index(axes[across[0]])
            failed[at] += int((here["outcome"] == "failed").sum())
            judged[at] += len(here)
    return failed, judged


def _ticks(ax: Any, across: tuple[str, Sequence[Scalar]], up: tuple[str, Sequence[Scalar]], columns: int) -> None:
    room = (current().width / columns - 0.8) / len(across[1])
    names = [literal(cut(text, 8, max(room, 0.3))) for text in value_texts(across[1])]
    turned: Any = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if room < 0.4 else {}
    ax.set_xticks(np.arange(len(names)) + 0.5, names, **turned)
    ax.set_yticks(np.arange(len(up[1])) + 0.5, [literal(cut(text, 8, 0.9)) for text in value_texts(up[1])])
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.set_xlabel(fit(spaced(across[0]), 8.5, 2))
    ax.set_ylabel(fit(spaced(up[0]), 8.5, 2))
