"""Colours, fonts, texts that fit, an empty figure with title and legend, and its files: what all figures share."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator, ScalarFormatter

from harness.common.text import Scalar, show
from harness.records.study import SOURCE, Study

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
DPI = 200
WIDTH = 5.6  # inches: fonts of 8 points stay legible when a paper sets the figure to a column of 3.4 inches
MOST_VALUES = len(HUES)  # as many colours as can be told apart
MANY = 3000  # marks, and
MANY_POINTS = 40_000  # points of lines: beyond them they are embedded as an image, which keeps the files small
SMALL = 6.5  # points, the smallest font
FAMILY = "DejaVu Sans"
STYLE: Any = {  # matplotlib types its keys one by one, differently in each version
    "font.family": [FAMILY, "sans-serif"],  # an SVG names both
    "font.size": 8.5,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 7.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.5,
    "savefig.facecolor": "white",
    "svg.hashsalt": "stability",  # the same figure gives the same bytes
    "svg.fonttype": "none",  # text stays text, to be edited
    "pdf.fonttype": 42,  # TrueType: publishers refuse the Type 3 fonts that matplotlib writes by itself
    "ps.fonttype": 42,
}

P = ParamSpec("P")
R = TypeVar("R")


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Draw under our style, whatever the caller's matplotlib is set to."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(STYLE)
            return draw(*args, **kwargs)

    return drawn


@styled
def save(figure: Figure, folder: Path, name: str) -> tuple[Path, Path, Path]:
    """Write a figure as `<name>.png` (200 dpi), `.svg` and `.pdf`, without dates, and return the three paths."""
    png, svg, pdf = (folder / f"{name}.{ending}" for ending in ("png", "svg", "pdf"))
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
    figure.set_layout_engine(None)  # laid out once; the three files show the same
    figure.savefig(png, dpi=DPI, metadata={"Software": None})
    figure.savefig(svg, dpi=150, metadata={"Date": None, "Creator": None})
    with _letters_alone():
        figure.savefig(pdf, dpi=DPI, metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return png, svg, pdf


@contextmanager
def _letters_alone() -> Iterator[None]:
    """Fonts are cut down to the letters of a PDF without the tables that place letters.

    A PDF's letters have their places already, and cutting these tables took two thirds of the time to save one.
    """
    from fontTools.subset import Options  # matplotlib's own choice, which has no setting for it

    usual = getattr(Options, "_drop_tables_default", [])
    Options._drop_tables_default = [*usual, "GSUB", "GPOS", "GDEF"]
    try:
        yield
    finally:
        Options._drop_tables_default = usual


# ----------------------------------------------------------------------------------------------------------------- text


@functools.cache
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont(FAMILY)).get_charmap())


@functools.lru_cache(maxsize=4096)
def text_width(text: str, size: float) -> float:
    """How wide a clean text is at a font size in points."""
    font = get_font(findfont(FAMILY))
    font.set_size(size, DPI)
    font.set_text(text)
    return float(font.get_width_height()[0]) / 64 / DPI


def clean(text: str) -> str:
    """One line of characters that the font has; □ stands for the others."""
    kept = []
    for char in unicodedata.normalize("NFC", text):
        kind = unicodedata.category(char)
        if char.isspace() or kind == "Cc":
            kept.append(" ")
        elif ord(char) in _glyphs() and kind != "Cf":
            kept.append(char)
        elif kind not in ("Cf", "Mn"):  # marks and joiners, which have no width of their own
            kept.append("□")
    return " ".join("".join(kept).split())


def cut(text: str, size: float, inches: float) -> str:
    """A text that fits, without its middle where it is too long: names often differ at their ends."""
    text = clean(text)
    if text_width(text, size) <= inches:
        return text
    low, high = 0, min(len(text), int(inches * 72))  # few glyphs are narrower than a point
    while low < high:
        kept = (low + high + 1) // 2
        fits = text_width(_without_middle(text, kept), size) <= inches
        low, high = (kept, high) if fits else (low, kept - 1)
    return _without_middle(text, low)


def _without_middle(text: str, kept: int) -> str:
    return f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"


def cut_parts(parts: Sequence[str], between: str, size: float, inches: float) -> str:
    """Texts side by side; where they don't fit, those that are too long for their share are cut."""
    whole = clean(between.join(parts))
    if text_width(whole, size) > inches:
        share = inches / len(parts) - text_width(between, size) - 0.02
        whole = clean(between.join(cut(part, size, max(share, 0.12)) for part in parts))
    return cut(whole, size, inches)


def literal(text: str) -> str:
    """A text that matplotlib draws as it is: no mathematics, and a legend leaves out what starts with `_`."""
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def fit(text: str, size: float, inches: float) -> str:
    """A text of any length and any characters as it is drawn within so many inches."""
    return literal(cut(text, size, inches))


def _wrap(text: str, size: float, inches: float) -> list[str]:
    """The lines of a text of which each fits."""
    lines = [""]
    for word in clean(text).split():
        longer = f"{lines[-1]} {word}".strip()
        if text_width(longer, size) <= inches or not lines[-1]:
            lines[-1] = cut(longer, size, inches)
        else:
            lines.append(cut(word, size, inches))
    return lines


def spaced(axis: str) -> str:
    """A field's name as people read it: `weight decay`."""
    return axis.replace("_", " ")


def setting(axis: str | None, value: Scalar) -> str:
    """`epochs 3`; of two studies side by side the name alone."""
    if axis is None:
        return ""
    return show(value) if axis == SOURCE else f"{spaced(axis)} {show(value)}"


def short_count(number: int) -> str:
    """A count in a few characters."""
    for unit, letter in ((1_000_000, "M"), (1_000, "k")):
        if number >= 10 * unit:
            return f"{number / unit:.3g}{letter}"
    return str(number)


# ---------------------------------------------------------------------------------------------------------------- frame


def empty_figure(study: Study, what: str, body: float, handles: Sequence[Artist] = ()) -> Figure:
    """An empty figure: room for `body` inches, its legend, and a line of what is shown and of the stand-in."""
    inches = WIDTH - 0.15
    both = f"{what} ({study.stand_in})" if study.stand_in else what
    parts = [both] if text_width(both, 8.5) <= inches else [what, study.stand_in or ""]
    lines = [line for part in parts for line in _wrap(cut(part, 8.5, 1.8 * inches), 8.5, inches) if line]
    texts = [literal(cut(str(handle.get_label()), 7.5, inches - 0.6)) for handle in handles]
    columns = _columns(texts, inches)
    height = body + 0.15 * len(lines) + 0.16 * -(-len(handles) // columns)
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle("\n".join(map(literal, lines)), fontsize=8.5, color=FAINT)
    if handles:
        how: Any = {"loc": "outside lower center", "ncols": columns, "frameon": False, "handletextpad": 0.5}
        figure.legend(list(handles), texts, **how)
    return figure


def _columns(texts: Sequence[str], inches: float) -> int:
    """How many columns a legend has room for; matplotlib fills them one after the other."""
    for columns in range(min(4, len(texts)), 1, -1):
        rows = -(-len(texts) // columns)
        if -(-len(texts) // rows) != columns:
            continue
        widths = [max(text_width(text, 7.5) for text in texts[at : at + rows]) for at in range(0, len(texts), rows)]
        if sum(widths) + 0.5 * columns <= inches:
            return columns
    return 1


def part_shown(drawn: Sequence[int], of: Sequence[int], things: str = "cells") -> str:
    """What a title adds where not all that there is could be drawn: `, first 48 of 10,000 cells`."""
    if len(drawn) == len(of):
        return ""
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
    ax: Axes, names: Sequence[str], shares: pd.Series, second: pd.Series, notes: pd.Series, rows: int, wide: float
) -> None:
    """Horizontal bars with their share in words and a second look as a diamond; a dash, and why, where not known."""
    known = shares.to_numpy(dtype=float)
    places = np.arange(len(names))
    ax.barh(places, np.nan_to_num(known), height=0.66, color=HUES[0])
    for place, share, other, note in zip(places, known, second, notes, strict=True):
        text = f"{100 * share:.0f} %" if np.isfinite(share) else "–"
        if not np.isfinite(share) and isinstance(note, str) and note:
            text = f"– ({cut(note, 7, 1.3)})"
        if np.isfinite(other):
            ax.scatter([other], [place], s=20, marker="D", c="white", edgecolors=INK, linewidths=0.9, zorder=4)
        end = max((value for value in (share, other) if np.isfinite(value)), default=0.0)
        ax.annotate(literal(text), (end, place), (6, 0), "data", "offset points", va="center", fontsize=7)
    ax.set_yticks(places, [literal(cut_parts(spaced(str(name)).split(" × "), " × ", 8, wide)) for name in names])
    ax.set_ylim(rows - 0.4, -0.6)
    ax.set_xlim(0, 1.27)  # room for a number behind the longest bar
    ax.set_xticks([0, 0.5, 1], ["0", "50", "100 %"])
    upright_grid(ax)


# -------------------------------------------------------------------------------------------------------- what is drawn


def metric_name(study: Study) -> str:
    """What the score is: `final dev accuracy` of a sweep; of somebody else's runs what they called it."""
    names = sorted({str(name) for name in study.runs["metric"].dropna()})
    name = names[0] if len(names) == 1 else "score"
    if study.sweeps and not study.imports:
        name = f"dev {spaced(name)}"
    return cut(name, 8.5, 1.4)


def score_label(study: Study, inches: float = 1.9) -> str:
    """The score's axis label; where lower is better it says so, if there is room."""
    name = f"final {metric_name(study)}" if study.sweeps and not study.imports else metric_name(study)
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
