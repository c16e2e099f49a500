"""Colours, fonts, texts that fit, an empty figure with title and legend, and its files: what all figures share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator, ScalarFormatter

from harness.common import metrics
from harness.common.errors import HarnessError
from harness.common.files import naming
from harness.records.study import Study
from harness.report.figures import pdf_fonts
from harness.report.figures.lettering import (
    clean,
    cut,
    cut_parts,
    literal,
    pt,
    spaced,
    text_width,
    wrap,
)
from harness.report.figures.sheet import (
    DPI,
    SIZE,
    WIDTH,
    ReportFigure,
    current,
    styled,
)

# Okabe & Ito's colour-blind safe palette without its vermilion, black and yellow: dark red is kept for failed runs.
HUES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#8C6D31", "#7F7F7F", "#5E3C99")
# Grey printing takes the colours away; the cross, the square, the diamond and the triangle downwards mean something.
MARKERS = ("o", "^", "P", "<", "*", "p", "h", ">")
Dashes = tuple[float, tuple[float, ...]]
LINES: tuple[Dashes, ...] = (
    (0, ()),
    (0, (5, 1.5)),
    (0, (1.2, 1.2)),
    (0, (5, 1.5, 1.2, 1.5)),
    (0, (2.5, 1)),
    (0, (9, 2)),
    (0, (5, 1.5, 1.2, 1.5, 1.2, 1.5)),
    (0, (1.2, 3)),
)
MAJORITY: Dashes = (0, (4, 2))
FAILED, CHANCE, INK, FAINT = "#A50F15", "#3A3A3A", "#222222", "#555555"
MOST_VALUES = len(HUES)  # as many colours as can be told apart
MARKS_FILE = "{}.marks.json"  # of a figure: where each run is, which the page reads and removes
MANY = 3000  # marks, and
MANY_POINTS = 40_000  # points of lines: beyond them they are embedded as an image, which keeps the files small
SMALL = 6.5  # points, the smallest font


@styled
def save(figure: Figure, folder: Path, name: str) -> tuple[Path, Path, Path]:
    """Write a figure as `<name>.png` (200 dpi), `.svg` and `.pdf`, without dates, and return the three paths."""
    png, svg, pdf = (folder / f"{name}.{ending}" for ending in ("png", "svg", "pdf"))
    _lay_out(figure)
    for path in (png, svg, pdf):
        _write(figure, path)
    if isinstance(figure, ReportFigure) and figure.run_marks:
        (folder / MARKS_FILE.format(name)).write_text(json.dumps(_places(figure)), encoding="utf-8")
    return png, svg, pdf


@styled
def save_narrow(figure: Figure, folder: Path, name: str) -> None:
    """Write a figure for phones, which the page reads and removes: its SVG and where its runs are."""
    _lay_out(figure)
    _write(figure, folder / f"{name}.svg")
    if isinstance(figure, ReportFigure):
        (folder / MARKS_FILE.format(name)).write_text(json.dumps(_places(figure)), encoding="utf-8")


def _places(figure: ReportFigure) -> list[tuple[int, int, int]]:
    """Where the runs of a figure are: (row, x from the left, y from the top) in ten-thousandths of the figure."""
    width, height = figure.get_size_inches() * figure.dpi
    found = []
    for ax, rows, marks in figure.run_marks:
        places = ax.transData.transform(marks) / (width, height) * 10_000
        found += [(row, round(float(x)), round(float(10_000 - y))) for row, (x, y) in zip(rows, places, strict=True)]
    return found


@styled
def save_as(figure: Figure, path: Path) -> None:
    """Write a figure as one file, of the kind that its ending says: png, svg or pdf."""
    _lay_out(figure)
    with naming(path):
        _write(figure, path)


def _lay_out(figure: Figure) -> None:
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
    figure.set_layout_engine(None)  # laid out once; all files show the same


def _write(figure: Figure, path: Path) -> None:
    if path.suffix == ".png":
        figure.savefig(path, dpi=DPI, metadata={"Software": None}, pil_kwargs={"compress_level": 3})  # as small as 6
    elif path.suffix == ".svg":
        figure.savefig(path, dpi=150, metadata={"Date": None, "Creator": None})
    else:
        with pdf_fonts.shared():
            figure.savefig(path, dpi=DPI, metadata={"CreationDate": None, "Creator": None, "Producer": None})


# ---------------------------------------------------------------------------------------------------------------- frame


def empty_figure(
    study: Study,
    what: str,
    body: float,
    handles: Sequence[Artist] = (),
    *,
    rows: bool = False,
    beside: int = 1,
    least: float = 0.0,
) -> Figure:
    """An empty figure: room for its panels, its legend, and a line of what is shown and of the stand-in.

    Where the caller gave axes it is the figure that they lie in, and the legend stands beside the last of them.

    Args:
        study: what is drawn.
        what: what is shown, of which the line above says.
        body: inches for the panels in a figure of the usual width.
        handles: the entries of the legend.
        rows: the panels are rows of text, which need their height in narrow figures too.
        beside: panels that `beside` sets side by side, where each has `least` inches.
        least: see there.
    """
    sheet = current()
    if sheet.axes:
        return _given_figure(handles)
    inches = sheet.width - 0.15
    lines = _title_lines(study, what, inches) if sheet.title else []
    handles = handles if sheet.legend else ()
    texts = [literal(cut(str(handle.get_label()), 7.5, inches - 0.6)) for handle in handles]
    columns = _columns(texts, inches)
    if stacked(beside, least):
        body *= 1.75
    body *= 1.0 if rows else min(1.0, sheet.width / WIDTH / sheet.scale) ** 0.5
    height = (body + 0.15 * len(lines) + 0.16 * -(-len(handles) // columns)) * sheet.scale
    figure = ReportFigure(figsize=(sheet.width, height), dpi=DPI, layout="constrained")
    figure.sheet, figure.what = sheet, clean(what)
    FigureCanvasAgg(figure)
    if lines:
        figure.suptitle("\n".join(map(literal, lines)), fontsize=pt(8.5), color=FAINT)
    if handles:
        how: Any = {"loc": "outside lower center", "ncols": columns, "frameon": False, "handletextpad": 0.5}
        figure.legend(list(handles), texts, **how)
    return figure


def _title_lines(study: Study, what: str, inches: float) -> list[str]:
    both = clean(f"{what} ({study.stand_in})" if study.stand_in else what)
    parts = [both] if text_width(both, SIZE) <= inches else [what, study.stand_in or ""]
    return [line for part in parts for line in wrap(cut(part, SIZE, 1.8 * inches), SIZE, inches) if line]


def _given_figure(handles: Sequence[Artist]) -> Figure:
    """The figure of the caller's axes, which get our look and, beside the last, the legend."""
    axes = current().axes
    for ax in axes:
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", color="#E4E4E4", linewidth=0.6)
        ax.tick_params(labelsize=pt(8))
    if handles and current().legend:
        texts = [literal(cut(str(handle.get_label()), 7.5, current().width - 0.6)) for handle in handles]
        beside: Any = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "frameon": False}
        axes[-1].legend(list(handles), texts, fontsize=pt(7.5), **beside)
    figure = axes[0].get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure


def stacked(beside: int, least: float) -> bool:
    """Whether so many panels stand one above the other, for want of `least` inches each in usual fonts."""
    return beside > 1 and current().width / beside / current().scale < least


def panels(figure: Figure, rows: int = 1, columns: int = 1, count: int | None = None, **how: Any) -> list[list[Axes]]:
    """The panels of a figure by rows: the caller's, or new ones, of which the last row may have fewer.

    Raises:
        HarnessError: the caller's axes are not as many as the panels.
    """
    count = rows * columns if count is None else count
    given = list(current().axes)
    if given and len(given) != count:
        raise HarnessError(
            f"this figure has {count} panel{'s' if count > 1 else ''} of these runs",
            got=f"{len(given)} axes",
            fix=f"Give it the axes of plt.subplots({rows}, {columns})",
        )
    flat = given or list(figure.subplots(rows, columns, squeeze=False, **how).flat)
    for unused in flat[count:]:
        unused.remove()
    flat = flat[:count]
    return [flat[at : at + columns] for at in range(0, count, columns)]


def panel(figure: Figure) -> Axes:
    """The one panel of a figure."""
    return panels(figure)[0][0]


def pair(figure: Figure, least: float = 2.0, **how: Any) -> tuple[Axes, Axes]:
    """Two panels side by side, or one above the other where each has less than `least` inches."""
    shape = (2, 1) if stacked(2, least) else (1, 2)
    if shape == (2, 1):
        how = {name: value for name, value in how.items() if name not in ("width_ratios", "sharey")}
    first, second = (ax for row in panels(figure, *shape, **how) for ax in row)
    return first, second


def outer_label(figure: Figure, axes: Sequence[Axes], text: str) -> None:
    """A label of y for all panels."""
    if current().axes:
        axes[0].set_ylabel(text)
    else:
        figure.supylabel(text, fontsize=pt(8.5))


def _columns(texts: Sequence[str], inches: float) -> int:
    """How many columns a legend has room for; matplotlib fills them one after the other."""
    for columns in range(min(4, len(texts)), 1, -1):
        rows = -(-len(texts) // columns)
        if -(-len(texts) // rows) != columns:
            continue
        widths = [max(text_width(text, 7.5) for text in texts[at : at + rows]) for at in range(0, len(texts), rows)]
        if sum(widths) + 0.5 * columns * current().scale <= inches:
            return columns
    return 1


def part_shown(drawn: Sequence[object], of: Sequence[object], things: str = "cells", why: str = "") -> str:
    """What a title adds where not all that there is could be drawn: `, first 48 of 10,000 cells`.

    `why` says which they are, where they are not the first.
    """
    if len(drawn) == len(of):
        return ""
    if why:
        return f", {len(drawn)} of {len(of):,} {things}, {why}"
    first = "first " if list(drawn) == list(of[: len(drawn)]) else ""
    return f", {first}{len(drawn)} of {len(of):,} {things}"


def colour_of(index: int) -> str:
    """The colour of the value of that number on the axis that is told by colours."""
    return HUES[index % len(HUES)]


def marker_of(hue: int) -> str:
    """The marker of the value of that number, which tells in grey what the colour does."""
    return MARKERS[hue % len(MARKERS)]


def legend_key(label: str, colour: str, line: Dashes | None = None, marker: str = "", **how: Any) -> Line2D:
    """An entry of a legend: a line, a marker or both."""
    style: Any = {"color": colour, "marker": marker, "ms": 4.5, "lw": 1.2} | how
    return Line2D([], [], ls="none" if line is None else line, label=label, **style)


@dataclass(frozen=True)
class Mark:
    """How runs of one verdict are drawn."""

    name: str
    marker: str
    face: str
    edge: str
    size: float


# White edges keep marks apart where they lie close; a run near chance is hollow, which survives grey printing.
MARKS = {
    "failed": Mark("failed run", "X", FAILED, "white", 26),
    "diverged": Mark("diverged run (failed, no score)", "v", FAILED, "white", 34),
    "near chance": Mark("near chance (not counted as failed)", "s", "white", CHANCE, 13),
}


def mark_key(verdict: str) -> Line2D:
    """The entry of a legend for runs of a verdict."""
    mark = MARKS[verdict]
    edge = mark.face if mark.face != "white" else mark.edge
    return legend_key(mark.name, edge, marker=mark.marker, ms=5, mfc=mark.face, mec=edge, mew=0.8)


def plain_numbers(axis: Axis, log: bool = False) -> None:
    """Plain numbers at the ticks, neither as powers nor beside an offset."""
    if log:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_formatter(ScalarFormatter(useOffset=False))


def upright_grid(ax: Axes) -> None:
    """A panel of horizontal bars or rows: its grid stands upright."""
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", visible=True)
    ax.tick_params(axis="y", length=0)


def share_bars(
    ax: Axes,
    names: Sequence[str],
    shares: pd.Series,
    second: pd.Series,
    notes: pd.Series,
    rows: int,
    wide: float,
    bounds: Sequence[tuple[float, float]] = (),
) -> None:
    """Horizontal bars with their share in words and a second look as a diamond; a dash, and why, where not known.

    `bounds` are intervals of the shares, which are drawn over the bars; the words stand right of them.
    """
    known = shares.to_numpy(dtype=float)
    places = np.arange(len(names))
    ax.barh(places, np.nan_to_num(known), height=0.66, color=HUES[0])
    for place, share, other, note in zip(places, known, second, notes, strict=True):
        text = f"{100 * share:.0f} %" if np.isfinite(share) else "–"
        if not np.isfinite(share) and isinstance(note, str) and note:
            text = f"– ({cut(note, 7, 1.3)})"
        if np.isfinite(other):
            ax.scatter([other], [place], s=20, marker="D", c="white", edgecolors=INK, linewidths=0.9, zorder=4)
        interval = bounds[int(place)] if len(bounds) else (np.nan, np.nan)
        if np.isfinite(interval).all():
            ax.plot(interval, [place] * 2, color=INK, lw=0.9, zorder=3)
        end = max((value for value in (share, interval[1]) if np.isfinite(value)), default=0.0)
        if np.isfinite(other) and end - 0.03 < other < end + 0.3:  # the diamond would lie on the words
            end = max(end, other)
        how: Any = {"va": "center", "fontsize": pt(7), "color": HUES[0]}  # as the bar, whose share they are
        ax.annotate(literal(text), (end, place), (6, 0), "data", "offset points", **how)
    wide = min(wide, 0.36 * current().width)
    ax.set_yticks(places, [literal(cut_parts(spaced(str(name)).split(" × "), " × ", 8, wide)) for name in names])
    ax.set_ylim(rows - 0.4, -0.6)
    ax.set_xlim(0, 1.27)  # room for a number behind the longest bar
    ax.set_xticks([0, 0.5, 1], ["0", "50", "100 %"])
    upright_grid(ax)


# -------------------------------------------------------------------------------------------------------- what is drawn


def metric_name(study: Study) -> str:
    """What the score is, as sentences call it: `dev accuracy` of a sweep; of somebody else's runs without `dev`."""
    names = sorted({metrics.words(str(name)) for name in study.runs["metric"].dropna()})
    name = names[0] if len(names) == 1 else "score"
    if study.sweeps and not study.imports:
        name = f"dev {name}"
    return cut(name, 8.5, 1.4)


def score_name(study: Study) -> str:
    """What the score of a run is: `final dev accuracy`; of somebody else's runs `accuracy`."""
    return f"final {metric_name(study)}" if study.sweeps and not study.imports else metric_name(study)


def score_label(study: Study, inches: float = 1.9) -> str:
    """The score's axis label; where lower is better it says so, if there is room."""
    name = score_name(study)
    longer = f"{name} (lower is better)"
    return literal(longer if not study.higher_is_better and text_width(longer, 8.5) <= inches else name)


def finite_scores(table: pd.DataFrame, column: str = "final_score") -> pd.Series:
    """The scores of a table as numbers, NaN where there is none or it is infinite."""
    return pd.to_numeric(table[column]).astype(float).replace([np.inf, -np.inf], np.nan)


def is_finished(table: pd.DataFrame) -> pd.Series:
    """Which runs of a table are finished."""
    return table["status"] == "finished"


def without_axes(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    """A table of analysis without its columns of axes, whose names may be any."""
    names = [f"{axis} (axis)" if f"{axis} (axis)" in table.columns else axis for axis in study.axes]
    return table.drop(columns=names)


def needs_logarithms(study: Study, scores: pd.Series) -> bool:
    """Whether scores, as perplexities can, differ so much that only logarithms show all of them."""
    return bool(not study.higher_is_better and len(scores) and scores.min() > 0 and scores.max() / scores.min() >= 50)
