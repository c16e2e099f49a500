"""`seed_ranks`: whether the same seeds do badly in every recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from harness.report.figures.layout import row_labels, rows_height
from harness.report.figures.lettering import pt
from harness.report.figures.sheet import styled
from harness.report.figures.style import (
    FAILED,
    HUES,
    SMALL,
    empty_figure,
    finite_scores,
    is_finished,
    mark_key,
    panel,
    part_shown,
)

if TYPE_CHECKING:
    from harness.analysis.analyze import Analysis

FEWEST_SEEDS, FEWEST_CELLS = 6, 3
MOST_SEEDS, MOST_SHOWN = 40, 30
NOT_KNOWN = "#E3E3E3"


@styled
def seed_ranks(analysis: Analysis) -> Figure | None:
    """The rank of each seed's score among the seeds of a recipe, a row a recipe; seeds sorted by their mean rank.

    Dark is good. Were a seed good or bad by itself, its column would have one shade; by chance shades are mixed. A run
    that diverged has the lowest rank. At least six seeds and three recipes that share them are needed.
    """
    study = analysis.study
    table = analysis.runs[(analysis.runs["verdict"] != "") & is_finished(analysis.runs)]
    sign = 1 if study.higher_is_better else -1
    score = (sign * finite_scores(table)).fillna(-np.inf)
    wide = pd.DataFrame({"cell": table["cell"], "seed": table["seed"], "score": score}).dropna(subset=["seed"])
    if wide.duplicated(["cell", "seed"]).any():  # crossed seeds have no single number
        return None
    grid = wide.pivot(index="cell", columns="seed", values="score").dropna(axis="columns", thresh=FEWEST_CELLS)
    grid = grid.dropna(axis="index", thresh=FEWEST_SEEDS)
    if grid.shape[0] < FEWEST_CELLS or grid.shape[1] < FEWEST_SEEDS or (grid.nunique(axis="columns") < 2).all():
        return None
    ranks = grid.rank(axis="columns")
    ranks = (ranks - 1).div(ranks.count(axis="columns") - 1, axis="index")
    order = ranks.mean(axis="index").sort_values(kind="stable").index
    shown, seeds = ranks.loc[ranks.index[:MOST_SHOWN], order], list(order)
    if len(seeds) > MOST_SEEDS:  # both ends, where the seeds are that may be bad or good
        seeds = [*seeds[: MOST_SEEDS // 2], *seeds[-MOST_SEEDS // 2 :]]
        shown = shown[seeds]
    failed = table[table["verdict"].isin(["failed", "diverged"])]
    handles = [mark_key("failed")] if len(failed) else []
    what = "rank of each seed in every cell, seeds from the worst to the best"
    what += part_shown(list(shown.index), list(ranks.index)) + part_shown(seeds, list(order), "seeds")
    figure = empty_figure(study, what, 0.55 + rows_height(len(shown)), handles, rows=True)
    ax = panel(figure)
    shades = LinearSegmentedColormap.from_list("rank", ["#E8F0F6", HUES[0]]).with_extremes(bad=NOT_KNOWN)
    values = np.ma.masked_invalid(shown.to_numpy(dtype=float))
    edges = np.arange(len(seeds) + 1), np.arange(len(shown) + 1) - 0.5
    mesh = ax.pcolormesh(*edges, values, cmap=shades, vmin=0, vmax=1, ec="white", lw=0.4)
    column, row = {seed: place for place, seed in enumerate(seeds)}, {cell: at for at, cell in enumerate(shown.index)}
    crosses = [
        (column[seed] + 0.5, row[cell])
        for cell, seed in zip(failed["cell"], failed["seed"], strict=True)
        if seed in column and cell in row
    ]
    if crosses:
        look: Any = {"marker": "X", "s": 16, "c": FAILED, "edgecolors": "white", "linewidths": 0.4}
        ax.scatter(*np.array(crosses).T, zorder=3, **look)
    row_labels(ax, study, [int(cell) for cell in shown.index], [""] * len(shown), "")
    ax.set_xticks(np.arange(len(seeds)) + 0.5, [f"{seed:g}" for seed in seeds], fontsize=pt(SMALL))
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.set_xlabel("seed, from the worst to the best on average")
    bar = figure.colorbar(mesh, ax=ax, location="right", shrink=0.8, aspect=18, pad=0.02)
    bar.set_ticks([0, 1], labels=["worst", "best"])
    bar.outline.set_visible(False)
    return figure
