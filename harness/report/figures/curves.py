"""Figures of losses and scores over the steps: `curves` of a study's runs, and of a `pretraining`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from harness.analysis.verdicts import level_to_beat, untrained_loss_name
from harness.common.text import Scalar
from harness.records.study import Study, StudyCell
from harness.report.figures.layout import (
    MOST_ROWS,
    axis_values,
    layout,
    panel_height,
)
from harness.report.figures.lettering import (
    fit,
    literal,
    setting,
)
from harness.report.figures.sheet import (
    current,
    styled,
)
from harness.report.figures.style import (
    CHANCE,
    FAILED,
    HUES,
    INK,
    LINES,
    MAJORITY,
    MANY_POINTS,
    MARKS,
    MOST_VALUES,
    Dashes,
    colour_of,
    empty_figure,
    legend_key,
    mark_key,
    marker_of,
    metric_name,
    panel,
    panels,
    part_shown,
    plain_numbers,
)

if TYPE_CHECKING:
    from harness.analysis.analyze import Analysis

MOST_LINES = 600  # curves, in one figure


@dataclass(frozen=True)
class _Line:
    """One run's curves, thinned: (steps, values) of dev score and of training loss."""

    row: int  # of panels
    colour: int
    verdict: str
    score: tuple[np.ndarray, np.ndarray]
    loss: tuple[np.ndarray, np.ndarray]


@styled
def curves(analysis: Analysis) -> Figure | None:
    """Dev score and training loss against the step, a line a run: left and right, one row for each setting but lr.

    Where runs lack curves the row's title says how many have them. The loss is a running mean over a fiftieth of the
    run's steps. Failed runs are dark red and dashed and end in a cross; runs near chance are dotted, with a square.
    """
    study = analysis.study
    coloured = _colour_axis(study)
    settings = [
        ", ".join(setting(axis, value) for axis, value in cell.axes if axis != coloured) or "all runs"
        for cell in study.cells
    ]
    every = list(dict.fromkeys(settings))
    rows = {name: place for place, name in enumerate(every[: MOST_ROWS + 2])}
    members = [index for index, name in enumerate(settings) if name in rows]
    colours = axis_values([study.cells[index] for index in members], coloured)
    table = analysis.runs[analysis.runs["cell"].isin(members)]
    done = table[table["verdict"] != ""]
    place = [rows[settings[index]] for index in done["cell"]]
    shade = [colours.index(dict(study.cells[index].axes)[coloured]) if coloured else 0 for index in done["cell"]]
    first = done.groupby("cell").cumcount() < max(1, MOST_LINES // len(members))
    chosen = done.assign(panel=place, shade=shade)[first].head(MOST_LINES)
    lines = [
        _Line(panel, colour, verdict, (arrays.eval_step, arrays.dev_score), smooth(arrays.train_loss))
        for row, panel, colour, verdict in zip(
            chosen.index, chosen["panel"], chosen["shade"], chosen["verdict"].replace("unjudged", "ok"), strict=True
        )
        if (arrays := study.curves(int(row))) is not None
    ]
    if not lines:
        return None
    whole = len(chosen) == len(done)
    what = "curves of every run" if whole else "curves, the first runs of each cell"
    what += part_shown(range(len(rows)), range(len(every)), "settings")
    figure = empty_figure(
        study,
        what,
        0.4 + len(rows) * panel_height(len(rows), 1.1, 1.55),
        _curve_keys(study, coloured, colours, lines, done),
    )
    grid = panels(figure, len(rows), 2, sharey="col")
    many = sum(len(line.score[0]) + len(line.loss[0]) for line in lines) > MANY_POINTS
    lines.sort(key=lambda line: line.verdict != "ok")  # failed runs on top
    for (left, right), (name, row) in zip(grid, rows.items(), strict=True):
        here = [line for line in lines if line.row == row]
        _lines(left, [(*line.score, line) for line in here], many)
        _lines(right, [(*line.loss, line) for line in here], many)
        n = place.count(row)
        lacking = "" if n == len(here) else f", {len(here)} {'with curves' if whole else 'drawn'}"
        left.set_title(f"{fit(name, 8.5, current().width - 2.2)}  (n = {n:,}{lacking})", loc="left")
        cells = table[table["cell"].isin([index for index in members if settings[index] == name])]
        for ax, columns in ((left, ["majority_score"]), (right, ["label_entropy", "label_variance"])):
            for level in pd.unique(cells[columns].to_numpy(dtype=float).ravel()):
                if np.isnan(level):
                    continue
                ax.axhline(level, color=INK, linewidth=0.9, linestyle=MAJORITY, zorder=1.5)
            ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            ax.set_xlim(left=0)
            plain_numbers(ax.yaxis)
        left.set_ylabel(literal(metric_name(study)))
        right.set_ylabel("training loss")
    for ax in grid[-1]:
        ax.set_xlabel("step")
    return figure


def _colour_axis(study: Study) -> str | None:
    """The axis that colours the curves: the learning rate, or what saves rows where there are too many."""
    if "lr" in study.axes:
        return "lr"
    return layout(study).hue if len(study.cells) > MOST_ROWS else None


def _curve_keys(
    study: Study, axis: str | None, colours: Sequence[Scalar], lines: Sequence[_Line], done: pd.DataFrame
) -> list[Line2D]:
    shown = colours if len(colours) <= MOST_VALUES else []
    handles = [
        legend_key(setting(axis, value) or "run", colour_of(i), LINES[0], marker_of(i)) for i, value in enumerate(shown)
    ]
    verdicts = {line.verdict for line in lines}
    for verdict in ("failed", "near chance"):
        if verdict in verdicts or (verdict == "failed" and "diverged" in verdicts):
            handle = mark_key(verdict)
            handle.set(linestyle=_DASHED[verdict], color=MARKS[verdict].edge if verdict == "near chance" else FAILED)
            handles.append(handle)
    level, floor = level_to_beat(study), untrained_loss_name(study)
    known = done[["label_entropy", "label_variance"]].notna().any(axis=None)
    words = f"{level}, {floor}" if known else level
    handles.append(legend_key(words, INK, MAJORITY, lw=0.9))
    return handles


_DASHED: dict[str, Dashes] = {"failed": (0, (3, 1.5)), "diverged": (0, (3, 1.5)), "near chance": (0, (1, 1))}


def _lines(ax: Axes, drawn: Sequence[tuple[np.ndarray, np.ndarray, _Line]], many: bool) -> None:
    """The runs' lines up to their last finite values, marked there; those that look alike are one artist each."""
    alike: dict[tuple[str, int], list[np.ndarray]] = {}
    for x, y, run in drawn:
        keep = np.isfinite(y)
        if keep.any():
            verdict = "failed" if run.verdict == "diverged" else run.verdict
            alike.setdefault((run.verdict, run.colour if verdict not in MARKS else 0), []).append(
                np.column_stack([x[keep], y[keep]])
            )
    for (verdict, hue), runs in alike.items():
        mark = MARKS.get("failed" if verdict == "diverged" else verdict)
        colour = colour_of(hue) if mark is None else CHANCE if verdict == "near chance" else FAILED
        style: Any = {"colors": [colour], "linestyles": [_DASHED.get(verdict, LINES[0])], "alpha": 0.75}
        width = 0.7 if mark is None else 0.9
        ax.add_collection(LineCollection(runs, linewidths=width, zorder=2, rasterized=many, **style))
        size, marker, face = (
            (7.0, marker_of(hue), colour) if mark is None else (mark.size * 0.6, mark.marker, mark.face)
        )
        x, y = np.stack([run[-1] for run in runs]).T
        ax.scatter(x, y, s=size, marker=marker, c=face, edgecolors=colour, lw=0.6)
    ax.autoscale_view()


def smooth(loss: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The running mean of a loss [S] over S/50 steps at some 100 places: (steps, means)."""
    if not len(loss):  # of an imported run whose tool kept none
        return np.zeros(0), np.zeros(0)
    window = max(1, len(loss) // 50)
    means = np.convolve(loss.astype(np.float64), np.full(window, 1 / window), mode="valid")
    steps = np.arange(len(means)) + (window + 1) / 2
    stride = max(1, len(means) // 100)
    return steps[::stride], means[::stride]


# ---------------------------------------------------------------------------------------------------------- pretraining


@styled
def pretraining(title: str, losses: np.ndarray, held_out: Sequence[tuple[int, float]]) -> Figure:
    """The training loss [S] of a pretraining run by step, smoothed, and the loss on held-out texts (step, nats)."""
    handles: list[Artist] = [legend_key("training batches, running mean", HUES[0], LINES[0])]
    if held_out:
        handles.append(legend_key("held-out texts", HUES[1], LINES[1], marker="o"))
    study = Study(title, title, (StudyCell(()),), pd.DataFrame())
    figure = empty_figure(study, "pretraining", 2.4, handles)
    ax = panel(figure)
    ax.plot(*smooth(losses), color=HUES[0], lw=1.0, zorder=2)
    if held_out:
        ax.plot(*np.array(held_out).T, color=HUES[1], ls=LINES[1], lw=1.2, marker="o", ms=3, zorder=3)
    ax.set(xlabel="step", ylabel="loss (nats)")
    ax.set_xlim(left=0)
    return figure
