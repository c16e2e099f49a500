"""`distributions`: where cells have many runs, the shape of their scores and every run below it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.report.figures.layout import jitter, plan_of, row_labels, selected
from harness.report.figures.lettering import short_count
from harness.report.figures.sheet import styled
from harness.report.figures.style import (
    INK,
    MANY,
    MARKS,
    colour_of,
    empty_figure,
    finite_scores,
    is_finished,
    mark_key,
    panel,
    part_shown,
    plain_numbers,
    score_label,
)

if TYPE_CHECKING:
    from harness.analysis.analyze import Analysis

FEWEST = 20  # scores of a cell, from which on a density says more than marks
MOST_SHOWN = 16  # rows


@styled
def distributions(analysis: Analysis) -> Figure | None:
    """Half-violins of the final score, one row a cell, over strips of all runs; failed runs are crosses.

    The density is a Gaussian kernel's with Silverman's width, ends where the scores do, and is as high in every row. A
    cell of fewer than twenty scores has its strip alone; where no cell has twenty there is no figure.
    """
    study = analysis.study
    table = analysis.runs[(analysis.runs["verdict"] != "") & is_finished(analysis.runs)]
    table = table.assign(score=finite_scores(table)).dropna(subset=["score"])
    counts = table.groupby("cell")["score"].count()
    if not len(counts) or counts.max() < FEWEST or table["score"].nunique() < 2:
        return None
    shown = selected(analysis)
    cells = [index for index in shown.cells if counts.get(index, 0) > 0][:MOST_SHOWN]
    plan = plan_of(study, len(shown.cells), len(shown.cells), shown.cells)
    verdicts = [name for name in ("failed", "near chance") if (table["verdict"] == name).any()]
    what = "the final scores of every run and their density" + part_shown(cells, range(len(study.cells)), why=shown.why)
    figure = empty_figure(study, what, 0.6 + 0.42 * len(cells), [mark_key(name) for name in verdicts], rows=True)
    ax = panel(figure)
    many, notes = len(table) > MANY, []
    for row, index in enumerate(cells):
        here = table[table["cell"] == index]
        scores, hue = here["score"].to_numpy(dtype=float), plan.places[index].hue if index in plan.places else 0
        if len(scores) >= FEWEST and np.ptp(scores) > 0:
            x, height = density(scores)
            ax.fill_between(x, row - 0.05 - 0.5 * height, row - 0.05, color=colour_of(hue), alpha=0.45, lw=0)
        places = row + 0.16 + jitter(len(scores), 0.2)
        for verdict in ("ok", *verdicts):
            chosen = (here["verdict"].replace({"unjudged": "ok", "diverged": "failed"}) == verdict).to_numpy()
            mark = MARKS.get(verdict)
            look: Any = {"s": 6, "c": colour_of(hue), "lw": 0}
            if mark is not None:
                look = {"s": 0.4 * mark.size, "marker": mark.marker, "c": mark.face, "edgecolors": mark.edge, "lw": 0.4}
            ax.scatter(scores[chosen], places[chosen], zorder=3, rasterized=many, **look)
        ax.plot([np.median(scores)] * 2, [row - 0.05, row + 0.3], color=INK, lw=1.2, zorder=4)
        failed = int(here["verdict"].isin(["failed", "diverged"]).sum())
        notes.append(f"n={short_count(len(scores))}" + (f", ✕{short_count(failed)}" if failed else ""))
    row_labels(ax, study, cells, notes, "scores")
    ax.xaxis.set_major_locator(MaxNLocator(6))
    plain_numbers(ax.xaxis)
    ax.set_xlabel(score_label(study, 3.5))
    return figure


def density(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places between the lowest and the highest score, and the density there with a highest value of 1.

    A Gaussian kernel of Silverman's width (1986, eq. 3.31), from the smaller of sd and interquartile range / 1.34.
    """
    spread = min(float(scores.std(ddof=1)), float(np.subtract(*np.percentile(scores, [75, 25]))) / 1.34)
    width = 0.9 * (spread or float(scores.std(ddof=1))) * len(scores) ** -0.2
    x = np.linspace(scores.min(), scores.max(), 120)
    if len(scores) > 2000:
        scores = np.quantile(scores, np.linspace(0, 1, 2000))
    height = np.exp(-0.5 * ((x[:, None] - scores) / width) ** 2).sum(axis=1)
    return x, height / height.max()
