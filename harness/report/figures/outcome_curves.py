"""`outcome_curves`: how failed runs and others train, as bands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from harness.report.figures.curves import smooth
from harness.report.figures.lettering import literal
from harness.report.figures.sheet import styled
from harness.report.figures.style import (
    FAILED,
    HUES,
    INK,
    LINES,
    MAJORITY,
    empty_figure,
    legend_key,
    metric_name,
    pair,
    part_shown,
    plain_numbers,
)

if TYPE_CHECKING:
    from harness.analysis.analyze import Analysis

FEWEST = 30  # runs, below which each is seen in the figure of curves, and
FEWEST_OF_KIND = 3
MOST_READ = 600
_PLACES = np.linspace(0, 1, 101)


@styled
def outcome_curves(analysis: Analysis) -> Figure | None:
    """Dev score and training loss over the share of training done: the median of failed runs and of others, with bands.

    The bands hold 80 % of the runs of a kind. Runs near chance count with the failed. There is no figure below thirty
    runs, or three of a kind.
    """
    study = analysis.study
    done = analysis.runs[~analysis.runs["verdict"].isin(["", "unjudged"])]
    lost = done["verdict"] != "ok"
    if len(done) < FEWEST or min(int(lost.sum()), int((~lost).sum())) < FEWEST_OF_KIND:
        return None
    every = max(1, -(-len(done) // MOST_READ))
    read: dict[bool, list[tuple[np.ndarray, np.ndarray]]] = {False: [], True: []}
    for row, is_lost in list(zip(done.index, lost, strict=True))[::every]:
        arrays = study.curves(int(row))
        if arrays is not None:
            curves = (_even(arrays.eval_step, arrays.dev_score), _even(*smooth(arrays.train_loss)))
            read[bool(is_lost)].append(curves)
    if min(map(len, read.values())) < FEWEST_OF_KIND:
        return None
    kinds = (("others", HUES[0], LINES[0], read[False]), ("failed or near chance", FAILED, LINES[1], read[True]))
    handles: list[Artist] = [
        legend_key(f"{name} (n = {len(runs):,}): median", hue, line, lw=1.6) for name, hue, line, runs in kinds
    ]
    handles.append(Patch(facecolor="#999999", alpha=0.35, label="80 % of the runs"))
    what = "how runs train, by their outcome" + part_shown(range(0, len(done), every), range(len(done)), "runs")
    figure = empty_figure(study, what, 2.3, handles, beside=2, least=1.9)
    left, right = pair(figure, 1.9)
    for side, (ax, label) in enumerate(((left, literal(metric_name(study))), (right, "training loss"))):
        for _, hue, line, runs in kinds:
            _band(ax, [run[side] for run in runs], hue, line)
        ax.set(xlabel="training done, %", ylabel=label, xlim=(0, 100))
        plain_numbers(ax.yaxis)
    levels = done["majority_score"].dropna().unique()
    if len(levels) == 1:
        left.axhline(levels[0], color=INK, linewidth=0.9, linestyle=MAJORITY, zorder=1.5)
    return figure


def _even(steps: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A curve at even shares of its length, NaN beyond its finite values."""
    keep = np.isfinite(values)
    if keep.sum() < 2:
        return np.full(len(_PLACES), np.nan)
    end = float(steps[-1])
    even: np.ndarray = np.interp(_PLACES, steps[keep] / end, values[keep], left=np.nan, right=np.nan)
    return even


def _band(ax: Axes, runs: Sequence[np.ndarray], hue: str, line: tuple[float, tuple[float, ...]]) -> None:
    table = np.stack(runs)
    known = np.isfinite(table).sum(axis=0) >= max(FEWEST_OF_KIND, 0.75 * len(runs))
    if known.any():
        low, middle, high = np.nanpercentile(table[:, known], [10, 50, 90], axis=0)
        ax.fill_between(100 * _PLACES[known], low, high, color=hue, alpha=0.2, lw=0)
        ax.plot(100 * _PLACES[known], middle, color=hue, ls=line, lw=1.6)
