"""Draws what analysis returns, every run a mark where there is room for it; keeps no state between calls."""

from __future__ import annotations

import functools
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator, ScalarFormatter

from harness.study import SOURCE, Cell, Study
from harness.sweep import Range, Scalar, Search, show

if TYPE_CHECKING:
    from harness.analysis import Analysis

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
TALLEST = 8.4  # inches of panels: with title and legend they stay on a page
MOST_CELLS = 48  # more rows or boxes than a page has room for
MOST_ROWS = 6  # of panels
MOST_LINES = 600  # curves, in one figure
MOST_TERMS = 14
MOST_VALUES = len(HUES)  # as many colours as can be told apart
MOST_TRACES = 300  # runs whose gradients are drawn, of each outcome
MANY = 3000  # marks, and
MANY_POINTS = 40_000  # points of lines: beyond them they are embedded as an image, which keeps the files small
SLOT = 0.8  # share of an x position that its boxes fill, at most
NARROWEST = 0.27  # inches of a box: room for `n=25`
FEWEST_FOR_A_BOX = 5
SMALL = 6.5  # points, the smallest font
FAMILY = "DejaVu Sans"
STYLE: Any = {  # matplotlib types its keys one by one, differently in each version
    "font.family": FAMILY,
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
    "svg.fonttype": "path",
    "pdf.fonttype": 42,  # TrueType: publishers refuse the Type 3 fonts that matplotlib writes by itself
    "ps.fonttype": 42,
}

P = ParamSpec("P")
R = TypeVar("R")


def _styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Draw under our style, whatever the caller's matplotlib is set to."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(STYLE)
            return draw(*args, **kwargs)

    return drawn


@_styled
def save(figure: Figure, folder: Path, name: str) -> tuple[Path, Path, Path]:
    """Write a figure as `<name>.png` (200 dpi), `.svg` and `.pdf`, without dates, and return the three paths."""
    png, svg, pdf = (folder / f"{name}.{ending}" for ending in ("png", "svg", "pdf"))
    figure.draw_without_rendering()
    figure.set_layout_engine(None)  # laid out once; the three files show the same
    figure.savefig(png, dpi=DPI, metadata={"Software": None})
    figure.savefig(svg, dpi=150, metadata={"Date": None, "Creator": None})
    figure.savefig(pdf, dpi=DPI, metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return png, svg, pdf


def draw(found: Analysis) -> Iterator[tuple[str, Figure]]:
    """All figures of a report, as (file name without ending, figure), those left out that have nothing to show."""
    spreads = (spread, failure_rates, curves, noise_floor, best_of_n, seed_budget, importance, performance_profile)
    reasons = (loss_vs_score, gradient_norms, step_size_factor, early_warning, loss_surface)
    for make in (*spreads, *reasons):
        figure = make(found)
        if figure is not None:
            yield make.__name__, figure


# --------------------------------------------------------------------------------------------------------------- text


@functools.cache
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont(FAMILY)).get_charmap())


@functools.lru_cache(maxsize=4096)
def _inches(text: str, size: float) -> float:
    """How wide a clean text is at a font size in points."""
    font = get_font(findfont(FAMILY))
    font.set_size(size, DPI)
    font.set_text(text)
    return float(font.get_width_height()[0]) / 64 / DPI


def _clean(text: str) -> str:
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


def _cut(text: str, size: float, inches: float) -> str:
    """A text that fits, without its middle where it is too long: names often differ at their ends."""
    text = _clean(text)
    if _inches(text, size) <= inches:
        return text
    low, high = 0, min(len(text), int(inches * 72))  # few glyphs are narrower than a point
    while low < high:
        kept = (low + high + 1) // 2
        fits = _inches(_without_middle(text, kept), size) <= inches
        low, high = (kept, high) if fits else (low, kept - 1)
    return _without_middle(text, low)


def _without_middle(text: str, kept: int) -> str:
    return f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"


def _cut_parts(parts: Sequence[str], between: str, size: float, inches: float) -> str:
    """Texts side by side; where they don't fit, those that are too long for their share are cut."""
    whole = _clean(between.join(parts))
    if _inches(whole, size) > inches:
        share = inches / len(parts) - _inches(between, size) - 0.02
        whole = _clean(between.join(_cut(part, size, max(share, 0.12)) for part in parts))
    return _cut(whole, size, inches)


def _literal(text: str) -> str:
    """A text that matplotlib draws as it is: no mathematics, and a legend leaves out what starts with `_`."""
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def _fit(text: str, size: float, inches: float) -> str:
    return _literal(_cut(text, size, inches))


def _wrap(text: str, size: float, inches: float) -> list[str]:
    """The lines of a text of which each fits."""
    lines = [""]
    for word in _clean(text).split():
        longer = f"{lines[-1]} {word}".strip()
        if _inches(longer, size) <= inches or not lines[-1]:
            lines[-1] = _cut(longer, size, inches)
        else:
            lines.append(_cut(word, size, inches))
    return lines


def _words(axis: str) -> str:
    return axis.replace("_", " ")


def _named(axis: str | None, value: Scalar) -> str:
    """`epochs 3`; of two studies side by side the name alone."""
    if axis is None:
        return ""
    return show(value) if axis == SOURCE else f"{_words(axis)} {show(value)}"


def _count(number: int) -> str:
    """A count in a few characters."""
    for unit, letter in ((1_000_000, "M"), (1_000, "k")):
        if number >= 10 * unit:
            return f"{number / unit:.3g}{letter}"
    return str(number)


# -------------------------------------------------------------------------------------------------------------- frame


def _figure(study: Study, what: str, body: float, handles: Sequence[Artist] = ()) -> Figure:
    """An empty figure: room for `body` inches, its legend, and a title: the study, what is shown, the stand-in."""
    inches = WIDTH - 0.15
    title = f"{_cut(study.title, 9, 1.8 * inches)}: "
    parts = [title + what] if _inches(title + what, 9) <= inches else [title, what]
    lines = [line for part in parts for line in _wrap(part, 9, inches)]
    if study.stand_in:
        lines += _wrap(_cut(study.stand_in, 9, 1.8 * inches), 9, inches)
    texts = [_literal(_cut(str(handle.get_label()), 7.5, inches - 0.6)) for handle in handles]
    columns = _columns(texts, inches)
    height = body + 0.15 * len(lines) + 0.16 * -(-len(handles) // columns)
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle("\n".join(map(_literal, lines)), fontsize=9)
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
        widths = [max(_inches(text, 7.5) for text in texts[at : at + rows]) for at in range(0, len(texts), rows)]
        if sum(widths) + 0.5 * columns <= inches:
            return columns
    return 1


def _part(drawn: Sequence[int], of: Sequence[int], things: str = "cells") -> str:
    """What a title adds where not all that there is could be drawn: `, first 48 of 10,000 cells`."""
    if len(drawn) == len(of):
        return ""
    first = "first " if list(drawn) == list(of[: len(drawn)]) else ""
    return f", {first}{len(drawn)} of {len(of):,} {things}"


def _hue(index: int) -> str:
    return HUES[index % len(HUES)]


def _key(label: str, colour: str, line: Dashes | None = None, marker: str = "", **how: Any) -> Line2D:
    style: Any = {"color": colour, "marker": marker, "ms": 4.5, "lw": 1.2} | how
    return Line2D([], [], ls="none" if line is None else line, label=label, **style)


def _metric(study: Study) -> str:
    """What the score is: `final dev accuracy` of a sweep; of somebody else's runs what they called it."""
    names = sorted({str(name) for name in study.runs["metric"].dropna()})
    name = names[0] if len(names) == 1 else "score"
    if study.sweeps and not study.imports:
        name = f"dev {_words(name)}"
    return _cut(name, 8.5, 1.4)


def _final(study: Study, inches: float = 1.9) -> str:
    """The score's axis label; where lower is better it says so, if there is room."""
    name = f"final {_metric(study)}" if study.sweeps and not study.imports else _metric(study)
    longer = f"{name} (lower is better)"
    return _literal(longer if not study.higher_is_better and _inches(longer, 8.5) <= inches else name)


def _scores(table: pd.DataFrame, column: str = "final_score") -> pd.Series:
    return pd.to_numeric(table[column]).astype(float).replace([np.inf, -np.inf], np.nan)


def _finished(table: pd.DataFrame) -> pd.Series:
    return table["status"] == "finished"


def _by_cell(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    """A table of analysis without its columns of axes, whose names may be any."""
    names = [f"{axis} (axis)" if f"{axis} (axis)" in table.columns else axis for axis in study.axes]
    return table.drop(columns=names)


def _wide(study: Study, scores: pd.Series) -> bool:
    """Whether scores, as perplexities can, differ so much that only logarithms show all of them."""
    return bool(not study.higher_is_better and len(scores) and scores.min() > 0 and scores.max() / scores.min() >= 50)


def _number_axis(axis: Axis, log: bool = False) -> None:
    """Plain numbers at the ticks, neither as powers nor beside an offset."""
    if log:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_formatter(ScalarFormatter(useOffset=False))


def _across(ax: Axes) -> None:
    """A panel of horizontal bars or rows: its grid stands upright."""
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", visible=True)
    ax.tick_params(axis="y", length=0)


# ------------------------------------------------------------------------------------------------------------- layout


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


def _layout(cells: Sequence[Cell]) -> Layout:
    values = {name: _values(cells, name) for name, _ in cells[0].axes}
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


def _values(cells: Sequence[Cell], axis: str | None) -> list[Scalar]:
    """The values of an axis in the order of the cells; [None] for no axis, so that there is one place to draw at."""
    return [None] if axis is None else list(dict.fromkeys(dict(cell.axes)[axis] for cell in cells))


@dataclass(frozen=True)
class _Place:
    """Where a cell is drawn: its panel, its value's position along x and in the panel, and the number of its colour."""

    panel: int
    x: int
    hue: int


@dataclass(frozen=True)
class _Plan:
    """Panels and what stands in them; `places` says of each cell that is drawn, by its index, where."""

    layout: Layout
    hues: tuple[Scalar, ...]
    titles: tuple[str, ...]
    xs: tuple[tuple[Scalar, ...], ...]  # of each panel
    places: Mapping[int, _Place]

    def members(self, panel: int) -> list[int]:
        return [index for index, place in self.places.items() if place.panel == panel]

    def keys(self) -> list[Line2D]:
        """The colours' legend."""
        return [_key(_named(self.layout.hue, hue), _hue(i), marker=_marker(i)) for i, hue in enumerate(self.hues)]


def _marker(hue: int) -> str:
    return MARKERS[hue % len(MARKERS)]


def _plan(study: Study, along: int, most: int) -> _Plan:
    """Put the first cells into panels that have room for `along` values of x each, at most `most` panels."""
    cells = study.cells[:MOST_CELLS]
    how = _layout(cells)
    xs, hues = _values(cells, how.x), _values(cells, how.hue)
    facets = [", ".join(_named(axis, dict(cell.axes)[axis]) for axis in how.facets) for cell in cells]
    parts = -(-len(xs) // along)
    along = -(-len(xs) // parts)  # parts of equal length
    keys: dict[tuple[str, int], int] = {}
    places = {}
    for index, (cell, facet) in enumerate(zip(cells, facets, strict=True)):
        axes = dict(cell.axes)
        x = xs.index(axes[how.x]) if how.x else 0
        panel = keys.setdefault((facet, x // along), len(keys))
        places[index] = _Place(panel, x % along, hues.index(axes[how.hue]) if how.hue else 0)
    kept = list(keys)[:most]
    return _Plan(
        layout=how,
        hues=tuple(hues),
        titles=tuple(f"{name or 'all'}, part {part + 1} of {parts}" if parts > 1 else name for name, part in kept),
        xs=tuple(tuple(xs[part * along : (part + 1) * along]) for _, part in kept),
        places={index: place for index, place in places.items() if place.panel < most},
    )


def _panels(figure: Figure, titles: Sequence[str], columns: int, share: bool = True) -> list[Axes]:
    """One panel a facet; those of the last row that nobody needs are taken out."""
    rows = -(-len(titles) // columns)
    flat = list(figure.subplots(rows, columns, sharey=share, squeeze=False).flat)
    for unused in flat[len(titles) :]:
        unused.remove()
    for ax, title in zip(flat, titles, strict=False):
        ax.set_title(_fit(title, 8.5, (WIDTH - 0.7) / columns - 0.25 * (columns > 1)))
    return flat[: len(titles)]


def _height(rows: int, least: float, most: float) -> float:
    """Inches for one of so many rows of panels."""
    return min(max(TALLEST / rows, least), most)


def _jitter(n: int, width: float) -> np.ndarray:
    """n offsets [n] within ±width/2 that fill evenly and never change (van der Corput's sequence to base 2)."""
    if n == 1:
        return np.zeros(1)
    bits = (np.arange(1, n + 1)[:, None] >> np.arange(20)) & 1
    found: np.ndarray = ((bits / 2.0 ** np.arange(1, 21)).sum(axis=1) - 0.5) * width
    return found


def _ticks(ax: Axes, axis: str | None, values: Sequence[Scalar], inches: float) -> None:
    texts = [_cut(show(value), 8, 1.1) for value in values] if axis else ["all runs"]
    crowded = max(_inches(text, 8) for text in texts) + 0.08 > inches / len(texts)
    how: Any = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
    ax.set_xticks(range(len(texts)), [_literal(text) for text in texts], **how)
    ax.set_xlim(-0.5, len(texts) - 0.5)
    if axis:
        ax.set_xlabel(_fit(_words(axis), 8.5, inches))


# ------------------------------------------------------------------------------------------------------------- spread


@dataclass(frozen=True)
class _Mark:
    """How runs of one verdict are drawn."""

    name: str
    marker: str
    face: str
    edge: str
    size: float


# White edges keep marks apart where they lie close; a run at chance is hollow, which survives grey printing.
_MARKS = {
    "failed": _Mark("failed run", "X", FAILED, "white", 26),
    "diverged": _Mark("diverged run (failed, no score)", "v", FAILED, "white", 34),
    "at chance": _Mark("at chance (not failed, not trained)", "s", "white", CHANCE, 13),
}


@_styled
def spread(found: Analysis) -> Figure | None:
    """Box plots of the final score, one box a cell and one mark a run, with mean, median and the majority's score.

    Laid out by `layout`. Below five scores there is no box, only marks and a bar at the median; a run that diverged has
    no score and stands at the edge where scores are worst. The mean has its 95 % interval. Over each box stand the
    number of scored runs and, after a cross, of failed.
    """
    study = found.study
    table = found.runs[(found.runs["verdict"] != "") & (found.runs["cell"] < MOST_CELLS)]
    if table.empty:
        return None
    plan, columns = _spread_plan(study)
    table = table[table["cell"].isin(plan.places)]
    scores, verdicts = _scores(table), table["verdict"].replace("unjudged", "ok")
    rows = -(-len(plan.titles) // columns)
    handles = _spread_keys(plan, [verdict for verdict in _MARKS if (verdicts == verdict).any()])
    if table["majority_score"].notna().any():
        handles.append(_key("majority class", INK, MAJORITY, lw=0.9))
    what = "final dev score of every run" if study.sweeps and not study.imports else "score of every run"
    what += _part(list(plan.places), range(len(study.cells)))
    figure = _figure(study, what, 0.45 + rows * _height(rows, 1.4, 2.1), handles)
    panels = _panels(figure, plan.titles, columns)
    means = _by_cell(study, found.level).set_index("cell")[["mean", "mean_low", "mean_high"]]
    groups = {int(index): here for index, here in table.groupby("cell", sort=False)}
    low, high, log = _limits(study, pd.concat([scores, _scores(table, "majority_score")]).dropna())
    worst = low if study.higher_is_better else high
    for number, (ax, xs) in enumerate(zip(panels, plan.xs, strict=True)):
        bar = min(SLOT / len(plan.hues), 0.2 * len(xs))  # a lone box needs no wide one
        inches = WIDTH / columns - 0.7
        slot = inches / len(xs) * bar
        members = [index for index in plan.members(number) if index in groups]
        _boxes(ax, pd.DataFrame({"cell": table["cell"], "score": scores}), members, plan, len(xs), bar)
        for index in members:
            here = groups[index].index
            place = plan.places[index]
            centre = place.x + (place.hue - (len(plan.hues) - 1) / 2) * bar
            _runs(ax, scores[here].fillna(worst), verdicts[here], centre, bar, place.hue, len(table) > MANY)
            _level(ax, scores[here].dropna(), means.loc[index], centre, bar)
            failed = int(verdicts[here].isin(["failed", "diverged"]).sum())
            _say_counts(ax, centre, slot, int(scores[here].notna().sum()), failed)
        _majority(ax, table, members, plan)
        _ticks(ax, plan.layout.x, xs, inches)
        if log:
            ax.set_yscale("log")
        ax.set_ylim(*_beyond(low, high, log, study.higher_is_better, (verdicts == "diverged").any()))
        _number_axis(ax.yaxis, log)
        if number % columns == 0:
            ax.set_ylabel(_final(study, 1.5))
        if number + columns < len(panels):  # the panel below says it
            ax.set_xlabel("")
    return figure


def _spread_plan(study: Study) -> tuple[_Plan, int]:
    """The panels of the spread, and how many stand side by side: three would be too small in a paper's column."""
    first = _plan(study, MOST_CELLS, MOST_CELLS)
    slots, facets = max(map(len, first.xs)) * len(first.hues), len(first.titles)
    columns = 2 if facets not in (1, 3) and slots * NARROWEST <= WIDTH / 2 - 0.6 else 1
    along = max(1, int((WIDTH / columns - 0.6) / NARROWEST) // len(first.hues))
    return _plan(study, along, MOST_ROWS * columns), columns


def _limits(study: Study, known: pd.Series) -> tuple[float, float, bool]:
    """The lowest and the highest of the scores there are, and whether they need logarithms."""
    if known.empty:
        return 0.0, 1.0, False
    return float(known.min()), float(known.max()), _wide(study, known)


def _beyond(low: float, high: float, log: bool, higher: bool, diverged: bool) -> tuple[float, float]:
    """Limits of y with room for the counts above and for runs that diverged beyond the worst score."""
    lowest, highest = (float(np.log(low)), float(np.log(high))) if log else (low, high)
    margin = (highest - lowest) * 0.12 or abs(highest) * 0.05 or 0.01
    bottom = lowest - margin * (1.0 if diverged and higher else 0.6)
    top = highest + margin * (2.6 if diverged and not higher else 2.2)
    return (float(np.exp(bottom)), float(np.exp(top))) if log else (bottom, top)


def _boxes(ax: Axes, data: pd.DataFrame, members: Sequence[int], plan: _Plan, xs: int, bar: float) -> None:
    """Boxes of the cells with enough scores; whiskers reach the farthest run within 1.5 interquartile ranges."""
    data = data[data["cell"].isin(members)].dropna()
    data = data[data.groupby("cell")["score"].transform("size") >= FEWEST_FOR_A_BOX]
    if data.empty:
        return
    data = data.assign(
        x=[plan.places[index].x for index in data["cell"]], hue=[plan.places[index].hue for index in data["cell"]]
    )
    with warnings.catch_warnings():
        # seaborn 0.13 still passes `vert`, which matplotlib 3.11 calls deprecated.
        warnings.filterwarnings("ignore", message="vert: bool", category=mpl.MatplotlibDeprecationWarning)
        sns.boxplot(
            data=data,
            x="x",
            y="score",
            hue="hue",
            order=range(xs),
            hue_order=range(len(plan.hues)),
            palette=[_hue(hue) for hue in range(len(plan.hues))],
            width=bar * len(plan.hues),
            gap=0.12,
            saturation=1,
            fliersize=0,
            linewidth=0.8,
            boxprops={"alpha": 0.3},
            medianprops={"color": INK, "linewidth": 1.4},
            legend=False,
            ax=ax,
        )
    ax.set(xlabel="", ylabel="")


def _runs(ax: Axes, heights: pd.Series, verdicts: pd.Series, centre: float, width: float, hue: int, many: bool) -> None:
    """Every run of one cell as a mark."""
    places = centre + _jitter(len(heights), width * 0.7)
    # Failed runs share a score, the majority's: spread evenly they stay countable.
    untrained = np.flatnonzero((verdicts != "ok").to_numpy())
    if len(untrained) > 1:
        places[untrained] = centre + np.linspace(-0.4, 0.4, len(untrained)) * width
    ok = (verdicts == "ok").to_numpy()
    looks: list[tuple[np.ndarray, Any]] = [
        (ok, {"s": 11, "marker": _marker(hue), "color": _hue(hue), "edgecolors": "white", "linewidths": 0.4})
    ]
    for verdict, mark in _MARKS.items():
        line = 0.5 if mark.face != "white" else 1.0
        look = {"s": mark.size, "marker": mark.marker, "facecolors": mark.face, "edgecolors": mark.edge}
        looks.append(((verdicts == verdict).to_numpy(), look | {"linewidths": line, "clip_on": False}))
    for level, (chosen, look) in enumerate(looks):
        if many:  # edges would hide what lies below
            look |= {"s": look["s"] * 0.15, "linewidths": 0}
            look |= {"facecolors": CHANCE} if look.get("edgecolors") == CHANCE else {}
        if chosen.any():
            ax.scatter(places[chosen], heights[chosen], zorder=3 + (level > 0), rasterized=many, **look)


def _level(ax: Axes, scores: pd.Series, mean: pd.Series, centre: float, width: float) -> None:
    """The mean of one cell as a diamond with its interval and, where there is no box, its median as a bar."""
    if len(scores) < 2:
        return
    if np.isfinite(mean["mean_low"]) and np.isfinite(mean["mean_high"]):
        ax.vlines(centre, mean["mean_low"], mean["mean_high"], color=INK, linewidth=1.1, zorder=4.5)
    look: Any = {"s": 24, "marker": "D", "facecolors": "none", "edgecolors": INK, "linewidths": 0.9}
    ax.scatter([centre], [mean["mean"]], zorder=5, **look)
    if len(scores) < FEWEST_FOR_A_BOX:
        ax.hlines(scores.median(), centre - width * 0.4, centre + width * 0.4, color=INK, linewidth=1.4, zorder=2.5)


def _say_counts(ax: Axes, centre: float, slot: float, n: int, failed: int) -> None:
    counted = f"n={_count(n)}"
    counted = counted if _inches(counted, SMALL) <= slot * 1.15 else _count(n)
    for line, text, shade in ((0, counted, FAINT), (1, f"✕{_count(failed)}" if failed else "", FAILED)):
        where: Any = (centre, 1.0), (0, -7.5 * line), ("data", "axes fraction"), "offset points"
        ax.annotate(text, *where, ha="center", va="top", fontsize=SMALL, color=shade)


def _majority(ax: Axes, table: pd.DataFrame, members: Sequence[int], plan: _Plan) -> None:
    """The majority's score as a dashed line, in steps where the cells of a panel differ in it."""
    known = table[table["cell"].isin(members)].dropna(subset=["majority_score"])
    look: Any = {"color": INK, "linewidth": 0.9, "linestyle": MAJORITY, "zorder": 1.5}
    if known["majority_score"].nunique() == 1:
        ax.axhline(known["majority_score"].iloc[0], **look)
        return
    for index, score in known.groupby("cell")["majority_score"].first().items():
        x = plan.places[int(index)].x
        ax.hlines(score, x - 0.5, x + 0.5, **look)


def _spread_keys(plan: _Plan, verdicts: Sequence[str]) -> list[Line2D]:
    handles = plan.keys() if plan.layout.hue else [_key("run", HUES[0], marker=MARKERS[0])]
    handles += [_mark_key(verdict) for verdict in verdicts]
    if {"failed", "diverged"} & set(verdicts):
        handles.append(_key("number of failed runs", FAILED, marker="$✕n$", ms=10, mew=0))
    handles.append(_key("mean, 95 % interval", INK, marker="D", mfc="none", mec=INK))
    handles.append(_key("median", INK, LINES[0], lw=1.4))
    return handles


def _mark_key(verdict: str) -> Line2D:
    mark = _MARKS[verdict]
    edge = mark.face if mark.face != "white" else mark.edge
    return _key(mark.name, edge, marker=mark.marker, ms=5, mfc=mark.face, mec=edge, mew=0.8)


# ---------------------------------------------------------------------------------------------------- one row a cell


def _row_labels(ax: Axes, study: Study, members: Sequence[int], notes: Sequence[str], heading: str) -> None:
    """Left of the rows their cells, under the names of the axes; right of them a note each, under its heading."""
    rows = np.arange(len(members))
    wide = 2.0
    labels = []
    for index in members:
        parts = [show(value) for _, value in study.cells[index].axes] or ["the only recipe"]
        labels.append(_literal(_cut_parts(parts, " · ", 8, wide)))
    ax.set_yticks(rows, labels)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    _across(ax)
    names = _cut_parts([_words(axis) for axis in study.axes], " · ", 7.5, wide)
    how: Any = {"fontsize": 7.5, "color": FAINT}
    ax.annotate(_literal(names), (0, 1), (-6, 3), "axes fraction", "offset points", ha="right", **how)
    right = ax.secondary_yaxis("right")
    right.set_yticks(rows, list(notes))
    right.tick_params(length=0)
    right.spines["right"].set_visible(False)
    ax.annotate(heading, (1, 1), (6, 3), "axes fraction", "offset points", **how)


def _row_height(rows: int) -> float:
    return 0.7 + rows * (0.2 if rows <= 24 else 0.165)


@_styled
def failure_rates(found: Analysis) -> Figure | None:
    """Each cell's share of failed runs with its 95 % Wilson interval, k/n in figures, and what is missing beside it.

    One row a cell in the study's order, so that any axes fit; runs at chance are named beside the count and not in it.
    """
    study = found.study
    cells = _by_cell(study, found.cells)
    if not (cells["judged"] > 0).any():
        return None
    cells = cells.head(MOST_CELLS)
    plan = _plan(study, MOST_CELLS, MOST_CELLS)
    handles = [
        Patch(color=_hue(i), label=_named(plan.layout.hue, hue)) for i, hue in enumerate(plan.hues) if plan.layout.hue
    ]
    what = "share of failed runs" + _part(list(cells["cell"]), range(len(study.cells)))
    figure = _figure(study, what, _row_height(len(cells)), handles)
    ax = figure.subplots()
    notes = []
    for row, cell in enumerate(cells.to_dict("records")):
        n, done = int(cell["judged"]), int(cell["finished"])
        k = int(cell["failed"]) if n else 0
        if n:
            share, colour = k / n, _hue(plan.places[int(cell["cell"])].hue)
            # The bounds enclose the share up to rounding: 0 of n has a lower bound of 0.
            spans = [[max(share - cell["failed_low"], 0.0)], [max(cell["failed_high"] - share, 0.0)]]
            ax.errorbar(share, row, xerr=spans, fmt="none", ecolor=colour, elinewidth=1.6, capsize=2.5)
            marker, fill, edge = ("X", FAILED, "white") if k else ("o", "white", colour)
            ax.scatter([share], [row], s=40 if k else 22, marker=marker, color=fill, edgecolors=edge, zorder=3)
        gone = [f"{cell[name]} {name}" for name in ("crashed", "missing") if cell[name]]
        gone += [f"{done - n} not judged"] if done > n else []
        chance = f", {cell['at_chance']} at chance" if cell["at_chance"] else ""
        notes.append(f"{k}/{n}{chance}" + (f" (+{', '.join(gone)})" if gone else ""))
    partly = (cells["judged"] < cells["finished"]).any()
    _row_labels(ax, study, list(cells["cell"]), notes, "failed/judged" if partly else "failed/finished")
    ax.set_xlim(-0.03, 1.03)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    ax.set_xlabel(f"failed share of {'judged' if partly else 'finished'} runs, 95 % Wilson interval")
    return figure


@_styled
def noise_floor(found: Analysis) -> Figure | None:
    """Each cell's spread over seeds beside the error that a dev set of this size gives any single accuracy.

    One row a cell. What an infinite dev set would leave of the spread is shown with its interval where the runs'
    answers are kept; rows that are known from counts alone have hollow dots and say so.
    """
    study = found.study
    floor = _by_cell(study, found.noise_floor)
    floor = floor[floor["known_from"] != ""]
    if floor.empty:
        return None
    everything = list(floor["cell"])
    floor = floor.head(MOST_CELLS)
    answered = (floor["known_from"] == "answers").any()
    counted = (floor["known_from"] == "counts").any()
    bar: Any = {"facecolor": "#DCDCDC", "edgecolor": "#8A8A8A", "hatch": "////", "linewidth": 0.5}
    handles: list[Artist] = [Patch(label="error of one accuracy (binomial)", **bar)]
    handles.append(_key("observed over seeds", HUES[0], marker="o"))
    if counted and answered:
        handles[-1].set_label("observed over seeds (answers kept)")
    if counted:
        look: Any = {"marker": "o", "mfc": "white", "mec": HUES[0]}
        handles.append(_key("observed over seeds (counts only)", HUES[0], **look))
        if not answered:
            del handles[1]
    if answered:
        handles.append(_key("left by an infinite dev set, 95 % interval", INK, LINES[0], "D", mfc="white", mec=INK))
    what = "spread over seeds against the noise of the dev set"
    what += _part(list(floor["cell"]), everything)
    figure = _figure(study, what, 0.1 + _row_height(len(floor)) + 0.03 * min(len(floor), 12), handles)
    ax = figure.subplots()
    notes = []
    for row, cell in enumerate(floor.to_dict("records")):
        ax.barh(row, 100 * cell["binomial"], height=0.72, zorder=1, **bar)
        kept = cell["known_from"] == "answers"
        if np.isfinite(cell["observed"]):
            face = HUES[0] if kept else "white"
            ax.scatter(
                [100 * cell["observed"]], [row - 0.17 * kept], s=20, c=face, edgecolors=HUES[0], lw=1.0, zorder=4
            )
        if kept and np.isfinite(cell["training"]):
            value, low, high = (100 * cell[f"training{end}"] for end in ("", "_low", "_high"))
            if np.isfinite(low) and np.isfinite(high):
                ax.hlines(row + 0.17, low, high, color=INK, linewidth=1.1, zorder=3)
            ax.scatter([value], [row + 0.17], s=16, marker="D", c="white", edgecolors=INK, lw=0.9, zorder=4)
        notes.append(f"n={_count(cell['runs'])}, {_count(cell['examples'])}{'' if kept else ' (counts)'}")
    _row_labels(ax, study, list(floor["cell"]), notes, "runs, dev examples")
    ax.set_xlim(left=-0.02 * ax.get_xlim()[1])
    ax.xaxis.set_major_locator(MaxNLocator(7))
    _number_axis(ax.xaxis)
    ax.set_xlabel("standard deviation of the accuracy, percentage points")
    return figure


# ------------------------------------------------------------------------------------------------------------- curves


@dataclass(frozen=True)
class _Line:
    """One run's curves, thinned: (steps, values) of dev score and of training loss."""

    row: int  # of panels
    colour: int
    verdict: str
    score: tuple[np.ndarray, np.ndarray]
    loss: tuple[np.ndarray, np.ndarray]


@_styled
def curves(found: Analysis) -> Figure | None:
    """Dev score and training loss against the step, a line a run: left and right, one row for each setting but lr.

    Where runs lack curves the row's title says how many have them. The loss is a running mean over a fiftieth of the
    run's steps. Failed runs are dark red and dashed and end in a cross; runs at chance are dotted and end in a square.
    """
    study = found.study
    coloured = _colour_axis(study)
    settings = [
        ", ".join(_named(axis, value) for axis, value in cell.axes if axis != coloured) or "all runs"
        for cell in study.cells
    ]
    every = list(dict.fromkeys(settings))
    rows = {name: place for place, name in enumerate(every[: MOST_ROWS + 2])}
    members = [index for index, name in enumerate(settings) if name in rows]
    colours = _values([study.cells[index] for index in members], coloured)
    table = found.runs[found.runs["cell"].isin(members)]
    done = table[table["verdict"] != ""]
    place = [rows[settings[index]] for index in done["cell"]]
    shade = [colours.index(dict(study.cells[index].axes)[coloured]) if coloured else 0 for index in done["cell"]]
    first = done.groupby("cell").cumcount() < max(1, MOST_LINES // len(members))
    chosen = done.assign(panel=place, shade=shade)[first].head(MOST_LINES)
    lines = [
        _Line(panel, colour, verdict, (arrays.eval_step, arrays.dev_score), _smooth(arrays.train_loss))
        for row, panel, colour, verdict in zip(
            chosen.index, chosen["panel"], chosen["shade"], chosen["verdict"].replace("unjudged", "ok"), strict=True
        )
        if (arrays := study.curves(int(row))) is not None
    ]
    if not lines:
        return None
    whole = len(chosen) == len(done)
    what = "curves of every run" if whole else "curves, the first runs of each cell"
    what += _part(range(len(rows)), range(len(every)), "settings")
    figure = _figure(
        study, what, 0.4 + len(rows) * _height(len(rows), 1.1, 1.55), _curve_keys(coloured, colours, lines, done)
    )
    grid = figure.subplots(len(rows), 2, sharey="col", squeeze=False)
    many = sum(len(line.score[0]) + len(line.loss[0]) for line in lines) > MANY_POINTS
    lines.sort(key=lambda line: line.verdict != "ok")  # failed runs on top
    for (left, right), (name, row) in zip(grid, rows.items(), strict=True):
        here = [line for line in lines if line.row == row]
        _lines(left, [(*line.score, line) for line in here], many)
        _lines(right, [(*line.loss, line) for line in here], many)
        n = place.count(row)
        lacking = "" if n == len(here) else f", {len(here)} {'with curves' if whole else 'drawn'}"
        left.set_title(f"{_fit(name, 8.5, WIDTH - 2.2)}  (n = {n:,}{lacking})", loc="left")
        cells = table[table["cell"].isin([index for index in members if settings[index] == name])]
        for ax, columns in ((left, ["majority_score"]), (right, ["label_entropy", "label_variance"])):
            for level in pd.unique(cells[columns].to_numpy(dtype=float).ravel()):
                if np.isnan(level):
                    continue
                ax.axhline(level, color=INK, linewidth=0.9, linestyle=MAJORITY, zorder=1.5)
            ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            ax.set_xlim(left=0)
            _number_axis(ax.yaxis)
        left.set_ylabel(_literal(_metric(study)))
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
    axis: str | None, colours: Sequence[Scalar], lines: Sequence[_Line], done: pd.DataFrame
) -> list[Line2D]:
    shown = colours if len(colours) <= MOST_VALUES else []
    handles = [_key(_named(axis, value) or "run", _hue(i), LINES[0], _marker(i)) for i, value in enumerate(shown)]
    verdicts = {line.verdict for line in lines}
    for verdict in ("failed", "at chance"):
        if verdict in verdicts or (verdict == "failed" and "diverged" in verdicts):
            handle = _mark_key(verdict)
            handle.set(linestyle=_DASHED[verdict], color=_MARKS[verdict].edge if verdict == "at chance" else FAILED)
            handles.append(handle)
    regression = done["label_variance"].notna().any()
    words = "always the mean, variance of labels" if regression else "majority class, entropy of labels"
    handles.append(_key(words, INK, MAJORITY, lw=0.9))
    return handles


_DASHED: dict[str, Dashes] = {"failed": (0, (3, 1.5)), "diverged": (0, (3, 1.5)), "at chance": (0, (1, 1))}


def _lines(ax: Axes, drawn: Sequence[tuple[np.ndarray, np.ndarray, _Line]], many: bool) -> None:
    """The runs' lines up to their last finite values, marked there; those that look alike are one artist each."""
    alike: dict[tuple[str, int], list[np.ndarray]] = {}
    for x, y, run in drawn:
        keep = np.isfinite(y)
        if keep.any():
            verdict = "failed" if run.verdict == "diverged" else run.verdict
            alike.setdefault((run.verdict, run.colour if verdict not in _MARKS else 0), []).append(
                np.column_stack([x[keep], y[keep]])
            )
    for (verdict, hue), runs in alike.items():
        mark = _MARKS.get("failed" if verdict == "diverged" else verdict)
        colour = _hue(hue) if mark is None else CHANCE if verdict == "at chance" else FAILED
        style: Any = {"colors": [colour], "linestyles": [_DASHED.get(verdict, LINES[0])], "alpha": 0.75}
        width = 0.7 if mark is None else 0.9
        ax.add_collection(LineCollection(runs, linewidths=width, zorder=2, rasterized=many, **style))
        size, marker, face = (7.0, _marker(hue), colour) if mark is None else (mark.size * 0.6, mark.marker, mark.face)
        x, y = np.stack([run[-1] for run in runs]).T
        ax.scatter(x, y, s=size, marker=marker, c=face, edgecolors=colour, lw=0.6)
    ax.autoscale_view()


def _smooth(loss: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The running mean of a loss [S] over S/50 steps at most at 200 places: (steps, means)."""
    window = max(1, len(loss) // 50)
    means = np.convolve(loss.astype(np.float64), np.full(window, 1 / window), mode="valid")
    steps = np.arange(len(means)) + (window + 1) / 2
    stride = max(1, len(means) // 200)
    return steps[::stride], means[::stride]


# ------------------------------------------------------------------------------------------------------- best of n


@_styled
def best_of_n(found: Analysis) -> Figure | None:
    """The best score to expect of n seeds, one line a cell with its bootstrap band; n = 1, the diamond, is the mean.

    Panels and colours are those of the spread, and the values along x there are kinds of line here; more than eight
    lines a panel become panels of their own.
    """
    study = found.study
    table = _by_cell(study, found.best_of_n)
    table = table[table["cell"] < MOST_CELLS]
    if table.empty:
        return None
    plan = _plan(study, MOST_CELLS, MOST_CELLS)
    xs = plan.xs[0]  # of every panel
    apart = len(xs) * len(plan.hues) > MOST_VALUES
    keys = {
        index: (plan.titles[place.panel], _named(plan.layout.x, xs[place.x]) if apart else "")
        for index, place in plan.places.items()
    }
    with_lines = set(table["cell"])
    panels = list(dict.fromkeys(key for index, key in keys.items() if index in with_lines))
    columns = 3 if len(panels) > 4 else min(len(panels), 2)
    panels = panels[: 5 * columns]
    drawn = [index for index, key in keys.items() if key in panels]
    if not panels:
        return None
    rows = -(-len(panels) // columns)
    what = "best score to expect of n seeds, 95 % band" + _part(drawn, range(len(study.cells)))
    figure = _figure(study, what, 0.4 + rows * _height(rows, 1.35, 2.4), _best_keys(plan, [] if apart else xs))
    titles = [", ".join(part for part in key if part) for key in panels]
    grid = dict(zip(panels, _panels(figure, titles, columns, share=not apart), strict=True))
    groups = {int(index): here.sort_values("n") for index, here in table.groupby("cell", sort=False)}
    for index in drawn:
        if index in groups:
            place = plan.places[index]
            kind = 0 if apart else place.x
            _best(grid[keys[index]], groups[index], place.hue if plan.layout.hue else kind, kind)
    most = int(table.loc[table["cell"].isin(drawn), "n"].max())
    for number, ax in enumerate(grid.values()):
        if most > 60:
            ax.set_xscale("log")
            _number_axis(ax.xaxis, log=True)
        else:
            step = next(step for step in (1, 2, 5, 10) if most <= 10 * step or step == 10)
            ax.set_xticks([1, *(n for n in range(step, most + 1, step) if n > 1)])
            ax.set_xlim(0.5, most + 0.5)
        shown = drawn if not apart else [index for index in drawn if keys[index] == panels[number]]
        log = _wide(study, table.loc[table["cell"].isin(shown), "low"].dropna())
        if log:
            ax.set_yscale("log")
        _number_axis(ax.yaxis, log)
        if number + columns >= len(panels):
            ax.set_xlabel("n, seeds tried")
    expected = f"expected best {_metric(study)}"
    figure.supylabel(_fit(expected, 8.5, 2.4), fontsize=8.5)
    return figure


def _best_keys(plan: _Plan, xs: Sequence[Scalar]) -> list[Line2D]:
    handles = []
    if plan.layout.hue:
        handles += [_key(_named(plan.layout.hue, hue), _hue(i), LINES[0], lw=2.5) for i, hue in enumerate(plan.hues)]
    if plan.layout.x and len(xs) > 1:
        colours = [INK if plan.layout.hue else _hue(i) for i in range(len(xs))]
        named = [_named(plan.layout.x, x) for x in xs]
        handles += [_key(named[i], colours[i], LINES[i], MARKERS[i], ms=3.5) for i in range(len(xs))]
    handles.append(_key("mean of single runs", INK, marker="D", mfc="none", mec=INK))
    return handles


def _best(ax: Axes, here: pd.DataFrame, hue: int, kind: int) -> None:
    """One cell's line; of very many seeds some hundred places show its shape."""
    if len(here) > 200:
        here = here.iloc[np.unique(np.geomspace(1, len(here), 200).round().astype(int)) - 1]
    n, colour = here["n"].to_numpy(dtype=float), _hue(hue)
    ax.fill_between(n, here["low"].to_numpy(), here["high"].to_numpy(), color=colour, alpha=0.13, linewidth=0)
    every = max(1, len(n) // 6)
    look: Any = {
        "marker": MARKERS[kind],
        "ms": 3.5,
        "mfc": "white" if hue % 2 else colour,
        "markevery": (min(every, len(n) - 1), every),
    }
    ax.plot(n, here["expected"].to_numpy(), color=colour, ls=LINES[kind], lw=1.2, zorder=3, **look)
    ax.scatter(n[:1], here["expected"].iloc[:1], s=22, marker="D", c="white", edgecolors=colour, lw=1.0, zorder=4)


# ----------------------------------------------------------------------------------------------------- seed budget


@_styled
def seed_budget(found: Analysis) -> Figure | None:
    """How wide the 95 % intervals of the mean and of the failure rate are at other numbers of seeds, a line a cell.

    Marks stand at the seeds there are. Up to eight cells have a line of their own in the legend; of more, colours tell
    the values of the spread's colours. Both scales are logarithmic: half the width takes four times the seeds.
    """
    study = found.study
    budget = _by_cell(study, found.budget)
    budget = budget[budget["cell"] < MOST_CELLS]
    sides = ("mean_half_width", "rate_half_width")
    if not (budget[list(sides)] > 0).any(axis=None):
        return None
    few = len(study.cells) <= MOST_VALUES
    plan = _plan(study, MOST_CELLS, MOST_CELLS)
    kinds = {index: index if few else place.hue for index, place in plan.places.items()}
    if few:
        names = [" · ".join(show(value) for _, value in cell.axes) or "the only recipe" for cell in study.cells]
    else:
        names = [_named(plan.layout.hue, hue) or "cell" for hue in plan.hues]
    handles = [
        _key(_cut(name, 7.5, 2.2), _hue(i), LINES[i], MARKERS[i], ms=4 if few else 4.5) for i, name in enumerate(names)
    ]
    handles.append(_key("mark: seeds there are now", FAINT, marker="o", mfc="none", ms=4))
    what = "half the width of 95 % intervals against seeds" + _part(list(plan.places), range(len(study.cells)))
    figure = _figure(study, what, 2.7, handles)
    left, right = figure.subplots(1, 2)
    points = _accuracies(found)
    mean = "accuracy,\npercentage points" if points else f"\n{_literal(_metric(study))}"
    units = ((100.0 if points else 1.0, f"± of the mean {mean}"), (100.0, "± of the failure rate,\npercentage points"))
    for ax, side, (unit, label) in zip((left, right), sides, units, strict=True):
        known = budget[budget[side] > 0]
        for index, here in known.groupby("cell", sort=False):
            here, kind = here.sort_values("n"), kinds[int(index)]
            ax.plot(here["n"], unit * here[side], color=_hue(kind), ls=LINES[kind], lw=1.0, alpha=0.9)
            now = here[here["now"]]
            look: Any = {
                "s": 20,
                "marker": _marker(kind),
                "color": _hue(kind),
                "edgecolors": "white",
                "linewidths": 0.4,
            }
            ax.scatter(now["n"], unit * now[side], zorder=3, **look)
        if known.empty:
            _say_instead(ax, _budget_lacks(found, side))
            continue
        ax.set_xscale("log")
        ax.set_yscale("log")
        _doubling(ax.xaxis, known["n"])
        _doubling(ax.yaxis, unit * known[side])
        ax.set_xlabel("seeds a cell")
        ax.set_ylabel(label)
        flat = int((budget[side] == 0).groupby(budget["cell"]).any().sum())
        if flat:  # logarithms have no place for them
            note = f"not shown: {flat} {'cell' if flat == 1 else 'cells'} with equal scores"
            ax.annotate(note, (0.02, 0.02), xycoords="axes fraction", fontsize=SMALL, color=FAINT)
    return figure


def _accuracies(found: Analysis) -> bool:
    """Whether the scores are shares of right answers, whose differences are percentage points."""
    return bool(set(found.study.runs["metric"].dropna()) == {"accuracy"} and _scores(found.runs).abs().max() <= 1)


def _doubling(axis: Axis, values: pd.Series) -> None:
    """Ticks at 1, 2 and 5 times powers of ten, as plain numbers; at least two of them within the values."""
    low, high = float(values.min()), float(values.max())
    powers = range(int(np.floor(np.log10(low))) - 1, int(np.ceil(np.log10(high))) + 1)
    steps = (1, 2, 5) if high / low < 1000 else (1,)
    axis.set_major_locator(FixedLocator([step * 10.0**power for power in powers for step in steps]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def _budget_lacks(found: Analysis, side: str) -> str:
    if side == "rate_half_width":
        return "whether runs failed\nis not known"
    counts = found.runs[found.runs["verdict"] != ""].groupby("cell")["final_score"].count()
    return "the scores of a cell\ndo not differ" if (counts > 1).any() else "needs two scores\nin a cell"


def _say_instead(ax: Axes, words: str) -> None:
    """A panel that has nothing to show says why."""
    ax.set(xticks=[], yticks=[])
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    ax.annotate(words, (0.5, 0.5), xycoords="axes fraction", ha="center", va="center", fontsize=8, color=FAINT)


# ------------------------------------------------------------------------------------------------------ importance


@_styled
def importance(found: Analysis) -> Figure | None:
    """What drives the score and the failing: shares of settings, with a second look by a random forest, and p.

    Left the terms' share in the variance of the score, the residual hatched, open diamonds for functional ANOVA; right
    each setting's share in telling which runs fail. A half that can not be told says why.
    """
    study = found.study
    score, failing = found.drivers_of_score, found.drivers_of_failing
    terms = score[(score["term"] != "residual")]
    no_score, no_failing = _score_lacks(found, terms), _failing_lacks(found)
    if no_score and no_failing:
        return None
    leading = terms.sort_values("eta_squared", ascending=False, kind="stable").index[: MOST_TERMS - 1]
    shown = pd.concat([terms[terms.index.isin(leading)], score[score["term"] == "residual"]])
    failing_shown = failing.head(MOST_TERMS)
    handles: list[Artist] = []
    if not no_score:
        handles.append(_key("share by functional ANOVA (single settings)", INK, marker="D", mfc="white", mec=INK))
    n_left = int((_finished(found.runs) & found.runs["final_score"].notna()).sum())
    n_right = int((_finished(found.runs) & found.runs["outcome"].notna()).sum())
    rows = max(0 if no_score else len(shown), 0 if no_failing else len(failing_shown), 3)
    what = "what drives the score and the failing"
    what += _part(range(len(leading)), range(len(terms)), "terms") if not no_score else ""
    figure = _figure(study, what, 0.75 + 0.21 * rows, handles)
    left, right = figure.subplots(1, 2, width_ratios=[1.15, 1])
    left.set_title(f"variance of the score (n = {n_left:,})")
    right.set_title(f"which runs fail (n = {n_right:,})")
    if no_score:
        _say_instead(left, no_score)
    else:
        _bars(left, list(shown["term"]), shown["eta_squared"], shown["fanova"], shown["note"], rows, wide=1.7)
        left.patches[-1].set(hatch="////", facecolor="#DCDCDC", edgecolor="#8A8A8A")
        left.set_xlabel("share of the sum of squares (η²)")
    if no_failing:
        _say_instead(right, no_failing)
    else:
        second = pd.Series(np.nan, index=failing_shown.index)
        _bars(
            right, list(failing_shown["factor"]), failing_shown["share"], second, failing_shown["note"], rows, wide=1.1
        )
        p_values = right.secondary_yaxis("right")
        p_values.set_yticks(range(len(failing_shown)), [_p(p) for p in failing_shown["p"]], fontsize=7)
        p_values.tick_params(length=0)
        p_values.spines["right"].set_visible(False)
        right.set_xlabel("share of χ²")
    return figure


def _p(p: float) -> str:
    if not np.isfinite(p):
        return ""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def _bars(
    ax: Axes, names: Sequence[str], shares: pd.Series, second: pd.Series, notes: pd.Series, rows: int, wide: float
) -> None:
    """Horizontal bars with their share in words and a second look as a diamond; a dash, and why, where not known."""
    known = shares.to_numpy(dtype=float)
    places = np.arange(len(names))
    ax.barh(places, np.nan_to_num(known), height=0.66, color=HUES[0])
    for place, share, other, note in zip(places, known, second, notes, strict=True):
        text = f"{100 * share:.0f} %" if np.isfinite(share) else "–"
        if not np.isfinite(share) and isinstance(note, str) and note:
            text = f"– ({_cut(note, 7, 1.3)})"
        if np.isfinite(other):
            ax.scatter([other], [place], s=20, marker="D", c="white", edgecolors=INK, linewidths=0.9, zorder=4)
        end = max((value for value in (share, other) if np.isfinite(value)), default=0.0)
        ax.annotate(_literal(text), (end, place), (6, 0), "data", "offset points", va="center", fontsize=7)
    ax.set_yticks(places, [_literal(_cut_parts(_words(str(name)).split(" × "), " × ", 8, wide)) for name in names])
    ax.set_ylim(rows - 0.4, -0.6)
    ax.set_xlim(0, 1.27)  # room for a number behind the longest bar
    ax.set_xticks([0, 0.5, 1], ["0", "50", "100 %"])
    _across(ax)


def _score_lacks(found: Analysis, terms: pd.DataFrame) -> str:
    """Why the shares in the score's variance are not known, or nothing."""
    if terms["eta_squared"].notna().any():
        return ""
    if terms.empty:
        return "one recipe only"
    scores = _scores(found.runs[found.runs["verdict"] != ""]).dropna()
    if scores.nunique() < 2:
        return "no run has a score" if scores.empty else "all scores are equal"
    return _unanimous(terms["note"]) or "not known"


def _failing_lacks(found: Analysis) -> str:
    """Why the shares in failing are not known, or nothing."""
    table = found.drivers_of_failing
    if table["share"].notna().any():
        return ""
    done = found.runs[_finished(found.runs)]
    if len(done) and done["outcome"].isna().all():
        return "whether runs failed\nis not known"
    if table.empty:
        return "one recipe only"
    return _unanimous(table["note"]) or "no setting tells\nwhich runs fail"


def _unanimous(notes: pd.Series) -> str:
    said = {str(note) for note in notes if isinstance(note, str) and note}
    return _fit(said.pop(), 8, 2.0) if len(said) == 1 else ""


# ---------------------------------------------------------------------------------------------- performance profile


@_styled
def performance_profile(found: Analysis) -> Figure | None:
    """The share of runs better than τ, one line for each value of the main axis with its 95 % band.

    Below the lines every run is a tick at its score; a dashed line is the majority's score where there is one only.
    """
    study = found.study
    if found.profile.empty:
        return None
    lines = _profiles(found.profile)
    axis = _profiled(study, list(lines))
    values = list(lines)[:MOST_VALUES]
    done = found.runs[found.runs["verdict"] != ""]
    scores = _scores(done).dropna()
    of = [dict(study.cells[index].axes)[axis] if axis else None for index in done.loc[scores.index, "cell"]]
    own = {value: scores[[one == value for one in of]].to_numpy() for value in values}
    handles = [
        _key(f"{_cut(_named(axis, value) or 'all runs', 7.5, 2.2)} (n = {len(own[value]):,})", _hue(i), LINES[i])
        for i, value in enumerate(values)
    ]
    majority = done["majority_score"].dropna().unique()
    if len(majority) == 1:
        handles.append(_key("majority class", INK, MAJORITY, lw=0.9))
    what = "share of runs better than τ, 95 % band"
    what += _part(range(len(values)), range(len(lines)), f"values of {_words(axis or '')}")
    figure = _figure(study, what, 2.5 + 0.06 * len(values), handles)
    ax = figure.subplots()
    many = sum(map(len, own.values())) > MANY
    for i, value in enumerate(values):
        here = lines[value]
        look: Any = {"color": _hue(i)}
        ax.fill_between(
            here["threshold"].to_numpy(), here["low"].to_numpy(), here["high"].to_numpy(), alpha=0.16, lw=0, **look
        )
        ax.plot(here["threshold"], here["share"], ls=LINES[i], lw=1.4, **look)
        low = np.full(len(own[value]), -0.06 * (i + 1))
        ax.plot(own[value], low, "|", ms=4.5, mew=0.7, rasterized=many, **look)
    if len(majority) == 1:
        ax.axvline(majority[0], color=INK, linewidth=0.9, linestyle=MAJORITY, zorder=1.5)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    _number_axis(ax.xaxis)
    ax.set_ylim(-0.06 * len(values) - 0.05, 1.03)
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    ax.set_xlabel(f"{_final(study, 3.5)}, τ")
    ax.set_ylabel("share of runs better than τ")
    return figure


def _profiles(table: pd.DataFrame) -> dict[Scalar, pd.DataFrame]:
    """The rows of each value, in their order; None is a value too."""
    places: dict[Scalar, list[int]] = {}
    for place, value in enumerate(table["value"]):
        places.setdefault(value, []).append(place)
    return {value: table.iloc[rows] for value, rows in places.items()}


def _profiled(study: Study, values: Sequence[Scalar]) -> str | None:
    """The axis that a profile's values are of."""
    order = [axis for axis in (SOURCE, "bias_correction", "recipe", "method") if axis in study.axes]
    order += sorted(study.axes, key=lambda axis: len(study.values(axis)) != 2)
    several = [axis for axis in order if len(study.values(axis)) > 1]
    return next((axis for axis in several if set(values) <= set(study.values(axis))), None)


# -------------------------------------------------------------------------------------------------------- a diagnosis


@_styled
def loss_vs_score(found: Analysis) -> Figure | None:
    """Final score against final training loss, a mark a run (Figure 8 of Mosbach et al. 2021).

    The losses are over the labels' entropy where that is known: at 1 nothing was learned. Runs that diverged have
    neither and are counted in the title.
    """
    study, fates = found.study, found.diagnosis.fates
    if fates.empty:
        return None
    table = found.runs.loc[fates.index].assign(loss=fates["loss"])
    relative = bool(table["loss"].notna().any())
    table["loss"] = table["loss"] if relative else pd.to_numeric(table["final_train_loss"])
    table["score"] = _scores(table)
    shown = table.dropna(subset=["loss", "score"])
    if shown.empty:
        return None
    axis = layout(study).hue or layout(study).x
    values = study.values(axis)[:MOST_VALUES] if axis else [None]
    verdicts = [verdict for verdict in ("failed", "at chance") if (shown["verdict"] == verdict).any()]
    handles = [_key(_named(axis, value) or "run", _hue(i), marker=MARKERS[i]) for i, value in enumerate(values)]
    handles += [_mark_key(verdict) for verdict in verdicts]
    handles.append(_key("majority class", INK, MAJORITY, lw=0.9))
    handles += [_key("half of the labels' entropy", FAINT, LINES[2], lw=0.9)] if relative else []
    left_out = len(table) - len(shown)
    what = "final score against training loss" + (f", {left_out} diverged left out" if left_out else "")
    figure = _figure(study, what, 2.9, handles)
    ax = figure.subplots()
    many = len(shown) > MANY
    for i, value in enumerate(values):
        cells = [index for index, cell in enumerate(study.cells) if not axis or dict(cell.axes)[axis] == value]
        here = shown[shown["cell"].isin(cells) & ~shown["verdict"].isin(_MARKS)]
        look: Any = {"marker": _marker(i), "color": _hue(i), "edgecolors": "white", "linewidths": 0.4}
        ax.scatter(here["loss"], here["score"], s=18, alpha=0.85, rasterized=many, **look)
    for verdict in verdicts:
        here, mark = shown[shown["verdict"] == verdict], _MARKS[verdict]
        look = {"marker": mark.marker, "c": mark.face, "edgecolors": mark.edge, "linewidths": 0.6}
        ax.scatter(here["loss"], here["score"], s=mark.size, rasterized=many, zorder=3, **look)
    for level in table["majority_score"].dropna().unique():
        ax.axhline(level, color=INK, linewidth=0.9, linestyle=MAJORITY, zorder=1.5)
    if relative:
        ax.axvline(0.5, color=FAINT, lw=0.9, ls=LINES[2], zorder=1.5)
    ax.set_xlim(left=0)
    _number_axis(ax.yaxis)
    ax.set_xlabel("training loss in the last epoch" + (" / entropy of the labels" if relative else ""))
    ax.set_ylabel(_final(study, 2.5))
    return figure


def _parts_shown(layers: Sequence[str], parts: Sequence[str]) -> dict[str, str]:
    """The parts of a network that have a panel, with their titles: six of them, from the input up."""
    deep = list(dict.fromkeys([layers[0], layers[len(layers) // 2], layers[-1]])) if layers else []
    titles = {"embeddings": "embeddings"} | {name: f"layer {name} of {layers[-1]}" for name in deep}
    titles |= {"pooler": "pooler", "head": "head"}
    return {name: title for name, title in titles.items() if name in parts or name in deep}


@_styled
def gradient_norms(found: Analysis) -> Figure | None:
    """Gradient norms of parts of the network against the step, lost runs against others (Figure 4, ibid.).

    Every run is a thin line, the medians of both kinds are bold, bands hold the middle half of the runs.
    """
    study, norms = found.study, found.diagnosis.norms
    if norms is None or not found.diagnosis.compared:
        return None
    chosen = np.isin(norms.rows, found.diagnosis.compared)
    lost = norms.lost
    titles = _parts_shown(norms.layers, norms.parts)
    both = (("others", HUES[0], LINES[0], chosen & ~lost), ("failed or at chance", FAILED, LINES[1], chosen & lost))
    kinds = [kind for kind in both if kind[3].any()]
    handles: list[Artist] = [
        _key(f"{name} (n = {which.sum():,}): median", colour, line, lw=1.6) for name, colour, line, which in kinds
    ]
    handles.append(Patch(facecolor="#999999", alpha=0.35, label="middle half of the runs"))
    of = ", cells with both outcomes" if len(study.cells) > 1 and found.diagnosis.both else ""
    rows = -(-len(titles) // 3)
    figure = _figure(study, f"gradient norms before clipping{of}", 0.4 + rows * 1.55, handles)
    panels = _panels(figure, list(titles.values()), 3)
    lengths = set(norms.steps[chosen].tolist())
    one = len(lengths) == 1
    x = np.arange(1, norms.norms.shape[1] + 1) / norms.norms.shape[1] * (lengths.pop() if one else 100)
    for ax, part in zip(panels, titles, strict=True):
        values = 10.0 ** norms.layer(part)
        for _, colour, line, which in kinds:
            thin = [np.column_stack([x, run]) for run in values[which][:MOST_TRACES]]
            style: Any = {"colors": [colour], "linewidths": 0.35, "alpha": 0.3, "zorder": 2}
            ax.add_collection(LineCollection(thin, rasterized=len(thin) * len(x) > MANY_POINTS // 8, **style))
            known = ~np.isnan(values[which]).all(axis=0)
            low, middle, high = np.nanpercentile(values[which][:, known], [25, 50, 75], axis=0)
            ax.fill_between(x[known], low, high, color=colour, alpha=0.22, lw=0, zorder=2.5)
            ax.plot(x[known], middle, color=colour, ls=line, lw=1.6, zorder=3)
        ax.set_yscale("log")
        ax.autoscale_view()
        ax.yaxis.set_minor_locator(NullLocator())
        ax.set_xlim(0, x[-1])
    for number, ax in enumerate(panels):
        if number + 3 >= len(panels):
            ax.set_xlabel("update" if one else "training done, %")
        if number % 3 == 0:
            ax.set_ylabel("gradient norm")
    return figure


@_styled
def step_size_factor(found: Analysis) -> Figure | None:
    """By how much a missing bias correction enlarges each update (Figure 6, ibid.), and the sizes that come of it.

    Left the factor (1 − β1^t) / √(1 − β2^t) for the β in use; right the effective size of each update in learning
    rates, schedule included, one line for each kind of recipe.
    """
    study, sizes = found.study, found.diagnosis.sizes
    recipes = [cell.recipe for sweep in study.sweeps for cell in sweep.cells]
    if not any(not recipes[cell].bias_correction for cell in sizes):
        return None
    factors: dict[tuple[float, float], np.ndarray] = {}
    lines: dict[tuple[float, ...], tuple[str, np.ndarray]] = {}
    for cell, size in sizes.items():
        recipe = recipes[cell]
        if not recipe.bias_correction:
            steps = np.arange(1, len(size) + 1)
            factor = (1 - recipe.beta1**steps) / np.sqrt(1 - recipe.beta2**steps)
            known = factors.get((recipe.beta1, recipe.beta2), factor)
            factors[recipe.beta1, recipe.beta2] = known if len(known) > len(factor) else factor
        words = f"correction {show(recipe.bias_correction)}, {len(size):,} updates, warm-up {recipe.warmup_ratio:.0%}"
        lines.setdefault(tuple(size.round(9).tolist()), (words, size))
    drawn = list(lines.values())[:MOST_VALUES]
    handles = [_key(words, _hue(i), LINES[i]) for i, (words, _) in enumerate(drawn)]
    figure = _figure(study, "size of an update without bias correction", 2.3, handles)
    left, right = figure.subplots(1, 2)
    for (beta1, beta2), factor in factors.items():
        x = np.arange(1, len(factor) + 1)
        top = int(np.argmax(factor))
        left.plot(x, factor, color=INK, lw=1.3)
        said = f"{factor[top]:.2f} × at update {top + 1}\n(β {beta1:g}, {beta2:g})"
        left.annotate(said, (x[top], factor[top]), (0, 3), textcoords="offset points", fontsize=SMALL, ha="center")
    left.axhline(1, color=FAINT, lw=0.8, ls=MAJORITY)
    left.set_xscale("log")
    left.set_ylim(0, 1.25 * max(float(factor.max()) for factor in factors.values()))
    left.set(xlabel="update", ylabel="size without / with correction")
    for i, (_, size) in enumerate(drawn):
        right.plot(np.arange(1, len(size) + 1), size, color=_hue(i), ls=LINES[i], lw=1.3)
    right.set_ylim(bottom=0)
    right.set_xlim(left=0)
    right.set(xlabel="update", ylabel="effective size / learning rate")
    for axis in (left.xaxis, left.yaxis, right.yaxis):
        _number_axis(axis, log=axis is left.xaxis)
    return figure


@_styled
def early_warning(found: Analysis) -> Figure | None:
    """How early simple signals tell lost runs: left the area under the ROC curve, right what a rule of each catches.

    Both by leave-one-cell-out; right a line is bold where the rule gave at most 1 % false alarms on the left-out cells.
    """
    study, table = found.study, found.diagnosis.early_warning
    if table.empty or table["auc"].isna().all():
        return None
    names = list(dict.fromkeys(table["signal"]))
    handles: list[Artist] = [_key(name, _hue(i), LINES[i]) for i, name in enumerate(names)]
    handles.append(_key("at most 1 % false alarms", FAINT, LINES[0], marker="o", ms=3))
    figure = _figure(study, "how early a lost run can be told", 2.4, handles)
    left, right = figure.subplots(1, 2)
    for i, name in enumerate(names):
        here = table[table["signal"] == name]
        x = 100 * here["share"].to_numpy()
        look: Any = {"color": _hue(i), "ls": LINES[i]}
        left.plot(x, here["auc"], lw=1.2, **look)
        left.fill_between(x, here["auc_low"].to_numpy(), here["auc_high"].to_numpy(), color=_hue(i), alpha=0.1, lw=0)
        caught = (here["caught"] / here["lost"].max()).to_numpy()
        right.plot(x, 100 * caught, lw=0.8, alpha=0.6, **look)
        good = (here["false"] <= 0.01 * here["others"].max()).to_numpy()
        right.plot(x[good], 100 * caught[good], "o", ms=2.6, color=_hue(i), mew=0)
    rule = found.diagnosis.rule
    if rule is not None:
        right.axvline(100 * rule.rule.share, color=INK, lw=0.9, ls=MAJORITY)
    left.axhline(0.5, color=INK, lw=0.9, ls=MAJORITY)
    left.set_ylim(0, 1.02)
    right.set_ylim(-2, 102)
    left.set(xlabel="training done, %", ylabel="area under the ROC curve")
    right.set(xlabel="training done, %", ylabel="lost runs told by a rule, %")
    for ax in (left, right):
        ax.set_xlim(0, 100)
    return figure


@_styled
def loss_surface(found: Analysis) -> Figure | None:
    """Training loss and gradient norm over the plane through the pretrained weights and two runs' (Figure 7, ibid.)."""
    study, surface = found.study, found.study.surface
    if surface is None:
        return None
    verdicts = found.runs.set_index("trial")["verdict"].reindex(surface.trials.tolist()).fillna("ok").tolist()
    cell = found.runs.loc[found.runs["trial"] == str(surface.trials[0]), "cell"]
    handles: list[Artist] = [_key("pretrained", INK, marker="s", mfc="white", mec=INK)]
    for place, verdict in enumerate(verdicts):
        name = f"seed {found.runs.set_index('trial')['seed'].reindex([str(surface.trials[place])]).iloc[0]:.0f}"
        colour = FAILED if verdict in _MARKS else HUES[0]
        handles.append(_key(f"{name}: {verdict}", colour, marker="X" if verdict in _MARKS else "o", mec="white", ms=6))
    where = f", {study.cells[int(cell.iloc[0])].label}" if len(cell) and len(study.cells) > 1 else ""
    figure = _figure(study, f"loss surface of {int(surface.examples)} training examples{where}", 2.7, handles)
    for ax, values, name in zip(
        figure.subplots(1, 2, sharey=True),
        (surface.loss, surface.gradient_norm),
        ("training loss", "gradient norm"),
        strict=True,
    ):
        logs = np.log10(np.where(values > 0, values, np.nan))
        levels = np.linspace(np.nanmin(logs), np.nanmax(logs), 15)
        filled = ax.contourf(surface.x, surface.y, logs, levels=levels, cmap="cividis")
        ax.contour(surface.x, surface.y, logs, levels=levels, colors="white", linewidths=0.25, linestyles="solid")
        bar = figure.colorbar(filled, ax=ax, location="bottom", shrink=0.9, aspect=30, pad=0.02)
        ticks = np.linspace(levels[0], levels[-1], 4)
        bar.set_ticks(ticks.tolist(), labels=[f"{10**tick:.2g}" for tick in ticks])
        for place, (x, y) in enumerate(surface.places):
            handle: Any = handles[place]
            ax.plot(
                x, y, marker=handle.get_marker(), ms=6, mfc=handle.get_markerfacecolor(), mec="white", mew=0.7, ls=""
            )
        ax.set_title(name)
        ax.set_aspect("equal")
        ax.grid(visible=False)
        ax.set_xlabel("distance between weights")
    return figure


# --------------------------------------------------------------------------------------------------------- a search


def draw_search(
    study: Study, ranked: pd.DataFrame, scores: Sequence[np.ndarray], search: Search, shares: pd.DataFrame
) -> Iterator[tuple[str, Figure]]:
    """The figures of a search, as `draw`; `ranked` and `shares` as `ranking` gives them, `scores` by cell."""
    known = ranked[ranked["value"].notna()]
    if len(known):
        yield "history", search_history(study, ranked, scores)
        yield "slices", search_slices(study, known, search)
        yield "parallel", search_parallel(study, known, search)
        yield "front", search_front(study, known)
    if shares[["value", "failed"]].notna().any().any():
        yield "search_importance", search_importance(study, shares)


_FAILING_RECIPE = "a run of it failed"


def _recipe_keys() -> list[Line2D]:
    return [
        _key("recipe, no seen run failed", HUES[0], marker="o"),
        _key(_FAILING_RECIPE, FAILED, marker="X", mec="white"),
    ]


def _recipes(ax: Axes, x: np.ndarray, known: pd.DataFrame, column: str = "value") -> None:
    """Recipes as marks, those with a failed run as crosses."""
    y, failing = known[column].to_numpy(dtype=float), (known["failed"] > 0).to_numpy()
    ax.scatter(x[~failing], y[~failing], s=18, color=HUES[0], edgecolors="white", linewidths=0.4, zorder=3)
    ax.scatter(x[failing], y[failing], s=30, marker="X", color=FAILED, edgecolors="white", linewidths=0.5, zorder=3)


@_styled
def search_history(study: Study, ranked: pd.DataFrame, scores: Sequence[np.ndarray]) -> Figure:
    """Each recipe and its seeds in the order of the search, the highest so far, and what fresh seeds said."""
    ordered = ranked.sort_values("asked")
    known = ordered[ordered["value"].notna()]
    handles: list[Artist] = [
        *_recipe_keys(),
        _key("single seed", FAINT, marker="."),
        _key("highest so far", INK, LINES[0]),
    ]
    confirmed = ordered[ordered["fresh"].notna()]
    if len(confirmed):
        handles.append(_key("the same recipe on fresh seeds, 95 %", HUES[1], marker="D", mfc="none"))
    figure = _figure(study, "the recipes in the order of the search", 2.6, handles)
    ax = figure.subplots()
    for asked, cell in zip(ordered["asked"], ordered["cell"], strict=True):
        ax.scatter(
            np.full(len(scores[cell]), asked), scores[cell], s=7, marker=".", color=FAINT, linewidths=0, zorder=2
        )
    _recipes(ax, known["asked"].to_numpy(dtype=float), known)
    ax.step(known["asked"], known["value"].cummax(), where="post", color=INK, linewidth=1.0, zorder=1.5)
    places = confirmed["asked"].to_numpy(dtype=float) + 0.25
    ax.vlines(places, confirmed["fresh_low"], confirmed["fresh_high"], color=HUES[1], linewidth=1.1, zorder=4)
    ax.scatter(places, confirmed["fresh"], s=26, marker="D", facecolors="none", edgecolors=HUES[1], zorder=5)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="recipe, as asked", ylabel=_final(study))
    return figure


def _along(known: pd.DataFrame, one: Range) -> tuple[np.ndarray, list[Scalar]]:
    """Where recipes stand on a field: numbers as they are; of choices their places, and what is written there."""
    if not one.choices:
        return known[one.field].to_numpy(dtype=float), []
    values = list(dict.fromkeys([*one.choices, *known[one.field]]))
    return np.array([values.index(value) for value in known[one.field]], dtype=float), values


@_styled
def search_slices(study: Study, known: pd.DataFrame, search: Search) -> Figure:
    """The objective of every recipe against each searched field by itself."""
    rows = -(-len(search.space) // 2)
    figure = _figure(
        study, "the objective along each searched field", 0.3 + rows * _height(rows, 1.2, 1.8), _recipe_keys()
    )
    for ax, one in zip(_panels(figure, [_words(one.field) for one in search.space], 2), search.space, strict=True):
        x, choices = _along(known, one)
        _recipes(ax, x + (_jitter(len(x), 0.3) if choices else 0.0), known)
        if choices:
            ax.set_xticks(range(len(choices)), [_fit(show(value), 8, 0.9) for value in choices])
            ax.set_xlim(-0.5, len(choices) - 0.5)
        elif one.log:
            ax.set_xscale("log")
        else:
            ax.xaxis.set_major_locator(MaxNLocator(5, integer=isinstance(one.low, int)))
    figure.supylabel("objective", fontsize=8.5)
    return figure


@_styled
def search_parallel(study: Study, known: pd.DataFrame, search: Search) -> Figure:
    """Every recipe as a line over the searched fields and its objective; the best quarter is drawn strong."""
    best = max(1, len(known) // 4)
    handles: list[Artist] = [
        _key(f"best {best}", HUES[0], LINES[0], lw=1.6),
        _key("others", "#B8B8B8", LINES[0]),
        _key(_FAILING_RECIPE, FAILED, LINES[1]),
    ]
    figure = _figure(study, "recipes across the space", 2.8, handles)
    ax = figure.subplots()
    heights, ends = [], []
    for one in search.space:
        x, choices = _along(known, one)
        x = np.log(x) if one.log and not choices else x
        low, high = float(x.min()), float(x.max())
        heights.append((x - low) / ((high - low) or 1.0))
        shown = known[one.field].to_numpy(dtype=object)
        ends.append((show(shown[int(x.argmin())]), show(shown[int(x.argmax())])))
    values = known["value"].to_numpy(dtype=float)
    heights.append((values - values.min()) / (np.ptp(values) or 1.0))
    ends.append((f"{values.min():.3f}", f"{values.max():.3f}"))
    lines = np.stack(heights, axis=1)  # [recipes, fields + 1]
    strong = np.arange(len(known)) < best  # ranked best first
    failing = (known["failed"] > 0).to_numpy()
    for index in reversed(range(len(known))):
        colour = HUES[0] if strong[index] else FAILED if failing[index] else "#B8B8B8"
        dashes = LINES[1] if failing[index] else LINES[0]
        width, level = (1.6, 3) if strong[index] else (0.8, 2)
        ax.plot(range(lines.shape[1]), lines[index], color=colour, ls=dashes, lw=width, zorder=level)
    names = [*(_words(one.field) for one in search.space), "objective"]
    room = (WIDTH - 0.4) / len(names)
    ax.set_xticks(range(len(names)), [_fit(name, 8, room) for name in names])
    ax.set_yticks([])
    for place, (low_text, high_text) in enumerate(ends):
        for height, text, align in ((0, low_text, "top"), (1, high_text, "bottom")):
            where: Any = (place, height), (0, 3 if height else -3), "data", "offset points"
            ax.annotate(_fit(text, SMALL, room), *where, ha="center", va=align, fontsize=SMALL, color=FAINT)
    ax.set_ylim(-0.14, 1.14)
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", visible=True)
    return figure


@_styled
def search_front(study: Study, known: pd.DataFrame) -> Figure:
    """The objective against the share of failed runs, and the recipes that no other beats in both."""
    front = known[known["front"]].assign(rate=known["failed"] / known["finished"]).sort_values("rate")
    handles: list[Artist] = [*_recipe_keys(), _key("not beaten in both", INK, LINES[0], marker="o", mfc="none")]
    figure = _figure(study, "score against failing", 2.5, handles)
    ax = figure.subplots()
    rates = (known["failed"] / known["finished"]).to_numpy(dtype=float)
    _recipes(ax, 100 * rates, known)
    ax.plot(100 * front["rate"], front["value"], color=INK, lw=0.9, marker="o", ms=7, mfc="none", zorder=2)
    ax.set(xlabel="failed runs (%)", ylabel="objective")
    ax.set_xlim(-4, max(10.0, 100 * float(rates.max())) + 4)
    return figure


@_styled
def search_importance(study: Study, shares: pd.DataFrame) -> Figure:
    """How much each searched field moves the objective and the failing by itself, by functional ANOVA."""
    rows = max(3, len(shares))
    figure = _figure(study, "what moves the objective and the failing", 0.7 + 0.21 * rows)
    nothing, notes = pd.Series(np.nan, index=shares.index), pd.Series("not known", index=shares.index)
    for ax, column, title in zip(figure.subplots(1, 2), ("value", "failed"), ("objective", "failed runs"), strict=True):
        ax.set_title(title)
        _bars(ax, list(shares["field"]), shares[column], nothing, notes, rows, wide=1.3)
        ax.set_xlabel("share of the variance (fANOVA)")
    return figure


# ---------------------------------------------------------------------------------------------- learning-rate finder


@_styled
def lr_range(
    title: str,
    stand_in: str | None,
    lines: Sequence[tuple[int, np.ndarray, np.ndarray, np.ndarray]],
    suggested: Mapping[str, tuple[float, float, float]],
    tested: Sequence[tuple[float, int, int]],
) -> Figure:
    """Range tests, one line a seed (seed, rates, smoothed, raw losses), with the suggestions and their spread.

    `suggested` has mean, lowest and highest over the seeds by rule; `tested` (rate, failed, finished) of the sweep.
    """
    names = {"steepest": "steepest descent", "tenth": "a tenth of the minimum"}
    handles: list[Artist] = [
        _key("smoothed loss of a seed", HUES[0], LINES[0]),
        _key("single steps", "#C8C8C8", marker="."),
    ]
    for place, rule in enumerate(suggested):
        handles.append(_key(f"{names[rule]}, range over seeds", HUES[1 + place], LINES[1 + place]))
    if tested:
        handles.append(_key("failed of finished runs at a tested rate", FAILED, marker="X", mec="white"))
    study = Study(title, title, (Cell(()),), pd.DataFrame(), stand_in=stand_in)
    figure = _figure(study, "learning-rate range test", 2.6, handles)
    ax = figure.subplots()
    for _, rates, smooth, raw in lines:
        ax.scatter(rates, raw, s=4, marker=".", color="#C8C8C8", linewidths=0, zorder=1, rasterized=len(raw) > MANY)
        ax.plot(rates, smooth, color=HUES[0], lw=1.0, alpha=0.8, zorder=3)
    for place, (middle, low, high) in enumerate(suggested.values()):
        ax.axvspan(low, high, color=HUES[1 + place], alpha=0.15, lw=0, zorder=0)
        ax.axvline(middle, color=HUES[1 + place], ls=LINES[1 + place], lw=1.2, zorder=2)
    shown = np.concatenate([smooth for _, _, smooth, _ in lines] or [np.zeros(0)])
    if len(shown):
        starts = [float(smooth[0]) for _, _, smooth, _ in lines if len(smooth)]
        low_end, high_end = float(shown.min()), min(float(shown.max()), 1.3 * max(starts))
        margin = (high_end - low_end) * 0.15 or 0.05
        ax.set_ylim(low_end - margin, high_end + margin)
    for rate, failed, finished in tested:
        look: Any = {"color": FAILED if failed else INK, "marker": "X" if failed else "o", "s": 22, "clip_on": False}
        ax.scatter(
            [rate], [0.03], transform=ax.get_xaxis_transform(), zorder=5, edgecolors="white", linewidths=0.5, **look
        )
        where: Any = (rate, 0.03), (0, 6), ("data", "axes fraction"), "offset points"
        ax.annotate(f"{failed}/{finished}", *where, ha="center", fontsize=SMALL, color=FAILED if failed else FAINT)
    ax.set_xscale("log")
    ax.set(xlabel="learning rate", ylabel="training loss")
    return figure


# -------------------------------------------------------------------------------------------------------- pretraining


@_styled
def pretraining(title: str, losses: np.ndarray, held_out: Sequence[tuple[int, float]]) -> Figure:
    """The training loss [S] of a pretraining run by step, smoothed, and the loss on held-out texts (step, nats)."""
    handles: list[Artist] = [_key("training batches, running mean", HUES[0], LINES[0])]
    if held_out:
        handles.append(_key("held-out texts", HUES[1], LINES[1], marker="o"))
    study = Study(title, title, (Cell(()),), pd.DataFrame())
    figure = _figure(study, "pretraining", 2.4, handles)
    ax = figure.subplots()
    ax.plot(*_smooth(losses), color=HUES[0], lw=1.0, zorder=2)
    if held_out:
        ax.plot(*np.array(held_out).T, color=HUES[1], ls=LINES[1], lw=1.2, marker="o", ms=3, zorder=3)
    ax.set(xlabel="step", ylabel="loss (nats)")
    ax.set_xlim(left=0)
    return figure
