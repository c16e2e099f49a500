"""`parallel`: every run as a line over the axes of a study to its score, for studies of many axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from harness.common.text import show
from harness.records.study import Study
from harness.report.figures.layout import jitter
from harness.report.figures.lettering import fit, pt, spaced
from harness.report.figures.sheet import current, styled
from harness.report.figures.style import (
    FAILED,
    FAINT,
    HUES,
    LINES,
    SMALL,
    empty_figure,
    finite_scores,
    legend_key,
    metric_name,
    panel,
    part_shown,
)

if TYPE_CHECKING:
    from harness.analysis.analyze import Analysis

FEWEST = 4  # axes of several values
MOST_AXES = 8
MOST_LINES = 1500
GREY = "#B8B8B8"


@styled
def parallel(analysis: Analysis) -> Figure | None:
    """Every scored run as a line over the axes of a study to its final score: failed, in the best quarter, or between.

    Runs of one value lie side by side there. Fewer than four axes of several values are better seen in the other
    figures, and have none of this.
    """
    study = analysis.study
    axes = [axis for axis in study.axes if len(study.values(axis)) > 1]
    table = analysis.runs[analysis.runs["verdict"] != ""]
    table = table.assign(score=finite_scores(table)).dropna(subset=["score"])
    if len(axes) < FEWEST or len(table) < 2:
        return None
    shown, what = axes[:MOST_AXES], "runs over the axes to their score"
    what += part_shown(range(len(shown)), range(len(axes)), "axes")
    if len(table) > MOST_LINES:
        table = table.iloc[np.linspace(0, len(table) - 1, MOST_LINES).astype(int)]
        what += f", {MOST_LINES} runs"
    scores = table["score"].to_numpy(dtype=float) * (1 if study.higher_is_better else -1)
    failed = table["verdict"].isin(["failed", "diverged"]).to_numpy()
    best = (scores >= np.quantile(scores, 0.75)) & ~failed
    heights = [_places(study, axis, table["cell"].to_numpy(dtype=int)) for axis in shown]
    heights.append((scores - scores.min()) / (np.ptp(scores) or 1.0))
    lines = np.stack(heights, axis=1)
    kinds = (
        ("others", GREY, LINES[0], ~failed & ~best),
        ("best quarter", HUES[0], LINES[0], best),
        ("failed", FAILED, LINES[1], failed),
    )
    present = [kind for kind in kinds if kind[3].any()]
    handles = [legend_key(f"{name} (n = {which.sum():,})", hue, line) for name, hue, line, which in present]
    figure = empty_figure(study, what, 2.8, handles)
    ax = panel(figure)
    for level, (_, hue, line, which) in enumerate(kinds):
        runs = [np.column_stack([np.arange(lines.shape[1]), run]) for run in lines[which]]
        look: Any = {"colors": [hue], "linestyles": [line], "linewidths": 0.7, "alpha": 0.6 if level else 0.4}
        ax.add_collection(LineCollection(runs, zorder=2 + level, rasterized=len(runs) > 300, **look))
    room = (current().width - 0.4) / lines.shape[1]
    for place, axis in enumerate(shown):
        values = study.values(axis)
        for number in range(len(values)) if len(values) <= 12 else (0, len(values) - 1):
            at, text = number / (len(values) - 1), fit(show(values[number]), SMALL, 0.8 * room)
            ax.text(place, at, text, fontsize=pt(SMALL), ha="center", va="center", bbox=_BOX, zorder=9)
    for at, score in ((0.0, scores.min()), (1.0, scores.max())):
        text = f"{abs(score) if not study.higher_is_better else score:.3g}"
        ax.text(lines.shape[1] - 1, at, text, fontsize=pt(SMALL), ha="center", va="center", bbox=_BOX, zorder=9)
    names = [*(spaced(axis) for axis in shown), metric_name(study)]
    ax.set_xticks(range(len(names)), [fit(name, 8, room) for name in names])
    ax.set_xlim(-0.4, len(names) - 0.6)
    ax.set_ylim(-0.08, 1.08)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x", visible=True, color=FAINT, lw=0.5)
    ax.grid(axis="y", visible=False)
    return figure


_BOX: Any = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}


def _places(study: Study, axis: str, cells: np.ndarray) -> np.ndarray:
    """Heights of runs on an axis, by the order of its values; those of one value are spread a little."""
    values = study.values(axis)
    steps = len(values) - 1
    at = np.array([values.index(dict(study.cells[cell].axes)[axis]) for cell in cells]) / steps
    result: np.ndarray = at + jitter(len(at), 0.5 / max(steps, 4))
    return result
