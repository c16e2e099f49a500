"""Draws what analysis returns: spread, failure rates and curves, every run a mark; keeps no state between calls."""

from __future__ import annotations

import functools
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from harness import analysis
from harness.records import Curves
from harness.sweep import Scalar, Sweep, show

# Okabe & Ito's colour-blind safe palette without its vermilion, black and yellow: dark red is kept for failed runs.
HUES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#8C6D31", "#7F7F7F", "#5E3C99")
FAILED, CHANCE, INK = "#A50F15", "#3A3A3A", "#222222"
WIDTH = 5.6  # inches: fonts of 8 points stay legible when a paper sets the figure to a column of 3.4 inches
SLOT = 0.8  # share of an x position that its boxes fill, at most
FEWEST_FOR_A_BOX = 5
STYLE: Any = {  # matplotlib types its keys one by one, differently in each version
    "font.family": "DejaVu Sans",
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
    "savefig.facecolor": "white",
    "svg.hashsalt": "stability",  # the same figure gives the same bytes
    "svg.fonttype": "path",
}

P = ParamSpec("P")


def _styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw under our style, whatever the caller's matplotlib is set to."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(STYLE)
            return draw(*args, **kwargs)

    return drawn


def save(figure: Figure, folder: Path, name: str) -> tuple[Path, Path]:
    """Write a figure as `<name>.png` (200 dpi) and `<name>.svg`, without dates, and return the two paths."""
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    with mpl.rc_context(STYLE):
        # Agg's canvas can't be larger than 2^16 pixels; a sweep of very many cells loses sharpness, not cells.
        dpi = min(200.0, 60_000 / max(figure.get_size_inches()))
        figure.savefig(png, dpi=dpi, metadata={"Software": None})
        figure.savefig(svg, metadata={"Date": None, "Creator": None})
    return png, svg


def _figure(sweep: Sweep, what: str, height: float, width: float = WIDTH) -> Figure:
    """An empty figure whose title says what it shows, of which sweep, and the stand-in if it is one."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    lines = textwrap.wrap(f"{sweep.title}: {what}", int(width * 14))
    if sweep.stand_in:
        lines += textwrap.wrap(sweep.stand_in, int(width * 14))
    figure.suptitle("\n".join(lines), fontsize=9)
    return figure


# ------------------------------------------------------------------------------------------------------------- layout


@dataclass(frozen=True)
class Layout:
    """Which axis of the sweep goes where: along x, as colour, and one facet for each combination of the others."""

    x: str | None
    hue: str | None
    facets: tuple[str, ...]


def layout(sweep: Sweep) -> Layout:
    """Lay axes out as the paper's Figure 9: lr (or the recipe) along x, bias correction as colour, epochs as facets."""
    left = list(sweep.axes)
    preferred: list[str] = ["recipe", "lr"]
    x = next((axis for axis in preferred if axis in left), None)
    if x is None and left:
        x = next((axis for axis in left if axis not in ("bias_correction", "epochs")), left[0])
    left = [axis for axis in left if axis != x]
    hue = "bias_correction" if "bias_correction" in left else next((axis for axis in left if axis != "epochs"), None)
    if hue is None and left:
        hue = left[0]
    left = [axis for axis in left if axis != hue]
    return Layout(x, hue, tuple(sorted(left, key=lambda axis: axis != "epochs")))


def _values(sweep: Sweep, axis: str | None) -> list[Scalar]:
    """The values of an axis in the plan's order; [None] for no axis, so that there is one place to draw at."""
    return [None] if axis is None else list(dict.fromkeys(dict(cell.axes)[axis] for cell in sweep.cells))


def _named(axis: str | None, value: Scalar) -> str:
    return "" if axis is None else f"{axis.replace('_', ' ')} {show(value)}"


@dataclass(frozen=True)
class _Place:
    """Where a cell is drawn: its facet, its position along x, and the number of its colour."""

    facet: str
    x: int
    hue: int


def _places(sweep: Sweep, plan: Layout) -> tuple[_Place, ...]:
    xs, hues = _values(sweep, plan.x), _values(sweep, plan.hue)
    places = []
    for cell in sweep.cells:
        axes = dict(cell.axes)
        facet = ", ".join(_named(axis, axes[axis]) for axis in plan.facets)
        x = xs.index(axes[plan.x]) if plan.x else 0
        places.append(_Place(facet, x, hues.index(axes[plan.hue]) if plan.hue else 0))
    return tuple(places)


def _grid(figure: Figure, facets: Sequence[str], columns: int) -> dict[str, Axes]:
    """One panel a facet, sharing y; panels of the last row that nobody needs are taken out."""
    rows = -(-len(facets) // columns)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    flat = list(grid.flat)
    for unused in flat[len(facets) :]:
        unused.remove()
    for ax, facet in zip(flat, facets, strict=False):
        ax.set_title(facet)
    return dict(zip(facets, flat, strict=False))


def _jitter(n: int, width: float) -> np.ndarray:
    """n offsets [n] within ±width/2 that fill evenly and never change (van der Corput's sequence to base 2)."""
    if n == 1:
        return np.zeros(1)
    sequence = [sum(((i >> bit) & 1) / 2 ** (bit + 1) for bit in range(16)) for i in range(1, n + 1)]
    return (np.array(sequence) - 0.5) * width


def _ticks(ax: Axes, axis: str | None, values: Sequence[Scalar], inches: float) -> None:
    texts = [show(value) for value in values] if axis else ["all runs"]
    crowded = sum(len(text) + 2 for text in texts) * 0.075 > inches
    ax.set_xticks(range(len(values)), texts, rotation=30 if crowded else 0, ha="right" if crowded else "center")
    ax.set_xlim(-0.5, len(values) - 0.5)
    if axis:
        ax.set_xlabel(axis.replace("_", " "))


def _metric(table: pd.DataFrame) -> str:
    names = sorted({str(name).replace("_", " ") for name in table["metric"].dropna()})
    return names[0] if len(names) == 1 else "score"


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


def _verdicts(table: pd.DataFrame) -> pd.Series:
    """`ok`, `failed`, `diverged` (failed, without a score) or `at chance` for each finished run; empty for others."""
    finished = table["status"] == "finished"
    verdict = pd.Series("", index=table.index, dtype=object)
    verdict[finished] = "ok"
    verdict[analysis.at_chance(table)] = "at chance"
    verdict[finished & (table["outcome"] == "failed")] = "failed"
    verdict[finished & table["final_score"].isna()] = "diverged"
    return verdict


@_styled
def spread(sweep: Sweep, table: pd.DataFrame) -> Figure:
    """Box plots of the final score, one box a cell and one mark a run, with mean, median and the majority's score.

    Laid out by `layout`. Below five scores there is no box, only marks and a bar at the median; a run that diverged has
    no score and stands at the bottom edge. Over each box stand the number of scored runs and, after a cross, of failed.
    """
    plan = layout(sweep)
    places = _places(sweep, plan)
    facets = list(dict.fromkeys(place.facet for place in places))
    xs, hues = _values(sweep, plan.x), _values(sweep, plan.hue)
    columns = {1: 1, 3: 1}.get(len(facets), 2)  # three side by side would be too small in a paper's column
    width = min(max(WIDTH, columns * (0.7 + 0.3 * len(xs) * len(hues))), 14.0)
    figure = _figure(sweep, "final dev score of every run", 1.4 + 2.1 * -(-len(facets) // columns), width)
    panels = _grid(figure, facets, columns)
    verdicts = _verdicts(table)
    bar = min(SLOT / len(hues), 0.2 * len(xs))  # a lone box needs no wide one
    scores = pd.to_numeric(table["final_score"]).astype(float)
    known = pd.concat([scores, pd.to_numeric(table["majority_score"]).astype(float)]).dropna()
    low, high = (known.min(), known.max()) if len(known) else (0.0, 1.0)
    margin = max((high - low) * 0.12, 0.01)
    bottom = low - margin * (1.6 if (verdicts == "diverged").any() else 1.0)
    for facet, ax in panels.items():
        members = [index for index, place in enumerate(places) if place.facet == facet]
        _boxes(ax, table[table["cell"].isin(members)], places, len(xs), len(hues), bar)
        for index in members:
            centre = places[index].x + (places[index].hue - (len(hues) - 1) / 2) * bar
            here = table.index[(table["cell"] == index) & (verdicts != "")]
            _runs(ax, scores[here], verdicts[here], centre, bar, HUES[places[index].hue % len(HUES)], bottom)
            n, failed = int(scores[here].notna().sum()), int(verdicts[here].isin(["failed", "diverged"]).sum())
            for line, text, shade in ((0, f"n={n}", "#555555"), (1, f"✕{failed}" if failed else "", FAILED)):
                where = (centre, 1.0), (0, -7.5 * line), ("data", "axes fraction"), "offset points"
                ax.annotate(text, *where, ha="center", va="top", fontsize=6.5, color=shade)
        _majority(ax, table, members, places)
        _ticks(ax, plan.x, xs, width / columns - 0.7)
        ax.set_ylim(bottom - margin * 0.5, high + margin * 2.2)
    for place, facet in enumerate(facets):
        if place % columns == 0:
            panels[facet].set_ylabel(f"final dev {_metric(table)}")
        if place + columns < len(facets):  # the panel below says it
            panels[facet].set_xlabel("")
    _spread_legend(figure, plan, hues, [verdict for verdict in _MARKS if (verdicts == verdict).any()])
    return figure


def _boxes(ax: Axes, here: pd.DataFrame, places: Sequence[_Place], xs: int, hues: int, bar: float) -> None:
    """Boxes of the cells with enough scores; whiskers reach the farthest run within 1.5 interquartile ranges."""
    data = pd.DataFrame({"cell": here["cell"], "score": pd.to_numeric(here["final_score"]).astype(float)}).dropna()
    data = data[data.groupby("cell")["score"].transform("size") >= FEWEST_FOR_A_BOX]
    if data.empty:
        return
    data["x"] = [places[index].x for index in data["cell"]]
    data["hue"] = [places[index].hue for index in data["cell"]]
    with warnings.catch_warnings():
        # seaborn 0.13 still passes `vert`, which matplotlib 3.11 calls deprecated.
        warnings.filterwarnings("ignore", message="vert: bool", category=mpl.MatplotlibDeprecationWarning)
        sns.boxplot(
            data=data,
            x="x",
            y="score",
            hue="hue",
            order=range(xs),
            hue_order=range(hues),
            palette=[HUES[hue % len(HUES)] for hue in range(hues)],
            width=bar * hues,
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


def _runs(
    ax: Axes, scores: pd.Series, verdicts: pd.Series, centre: float, width: float, colour: str, bottom: float
) -> None:
    """Every run of one cell as a mark, its mean as a diamond and, where there is no box, its median as a bar."""
    heights = scores.fillna(bottom).to_numpy()
    places = centre + _jitter(len(heights), width * 0.7) if len(heights) else heights
    # Failed runs share a score, the majority's: spread evenly they stay countable.
    untrained = np.flatnonzero((verdicts != "ok").to_numpy())
    if len(untrained) > 1:
        places[untrained] = centre + np.linspace(-0.4, 0.4, len(untrained)) * width
    ok = (verdicts == "ok").to_numpy()
    ax.scatter(places[ok], heights[ok], s=11, color=colour, edgecolors="white", linewidths=0.4, zorder=3)
    for verdict, mark in _MARKS.items():
        chosen = (verdicts == verdict).to_numpy()
        ax.scatter(
            places[chosen],
            heights[chosen],
            s=mark.size,
            marker=mark.marker,
            facecolors=mark.face,
            edgecolors=mark.edge,
            linewidths=0.5 if mark.face != "white" else 1.0,
            zorder=4,
            clip_on=False,
        )
    known = scores.dropna()
    if len(known) > 1:
        ax.scatter(
            [centre], [known.mean()], s=24, marker="D", facecolors="none", edgecolors=INK, linewidths=0.9, zorder=5
        )
    if 1 < len(known) < FEWEST_FOR_A_BOX:
        ax.hlines(known.median(), centre - width * 0.4, centre + width * 0.4, color=INK, linewidth=1.4, zorder=2.5)


def _majority(ax: Axes, table: pd.DataFrame, members: Sequence[int], places: Sequence[_Place]) -> None:
    """The majority's score as a dashed line, in steps where the cells of a panel differ in it."""
    known = table[table["cell"].isin(members)].dropna(subset=["majority_score"])
    if known["majority_score"].nunique() == 1:
        ax.axhline(known["majority_score"].iloc[0], color=INK, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1.5)
        return
    for index, score in known.groupby("cell")["majority_score"].first().items():
        x = places[index].x
        ax.hlines(score, x - 0.5, x + 0.5, color=INK, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1.5)


def _spread_legend(figure: Figure, plan: Layout, hues: Sequence[Scalar], verdicts: Sequence[str]) -> None:
    handles: list[Line2D | Patch] = []
    if plan.hue is not None:
        for index, value in enumerate(hues):
            colour = HUES[index % len(HUES)]
            handles.append(Line2D([], [], ls="", marker="o", ms=4.5, color=colour, label=_named(plan.hue, value)))
    else:
        handles.append(Line2D([], [], ls="", marker="o", ms=4.5, color=HUES[0], label="run"))
    handles += [_mark_handle(verdict) for verdict in verdicts]
    if {"failed", "diverged"} & set(verdicts):
        handles.append(Line2D([], [], ls="", marker="$✕n$", ms=10, mew=0, color=FAILED, label="number of failed runs"))
    handles.append(Line2D([], [], ls="", marker="D", ms=4.5, mfc="none", mec=INK, label="mean"))
    handles.append(Line2D([], [], color=INK, lw=1.4, label="median"))
    handles.append(Line2D([], [], color=INK, lw=0.9, ls=(0, (4, 2)), label="majority class"))
    _legend(figure, handles)


def _mark_handle(verdict: str) -> Line2D:
    mark = _MARKS[verdict]
    edge = mark.face if mark.face != "white" else mark.edge
    return Line2D([], [], ls="", marker=mark.marker, ms=5, mfc=mark.face, mec=edge, mew=0.8, label=mark.name)


def _legend(figure: Figure, handles: Sequence[Line2D | Patch]) -> None:
    columns = 3 if figure.get_figwidth() <= WIDTH else 4
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, handletextpad=0.5)


# ------------------------------------------------------------------------------------------------------ failure rates


@_styled
def failure_rates(sweep: Sweep, by_cell: pd.DataFrame) -> Figure:
    """Each cell's share of failed runs with its 95 % Wilson interval, k/n in figures, and what is missing beside it.

    `by_cell` is the table of `analysis.cells`. One row a cell in the plan's order, so that any axes fit; runs at chance
    are named beside the count and not in it.
    """
    plan = layout(sweep)
    places = _places(sweep, plan)
    figure = _figure(sweep, "share of failed runs", 1.35 + 0.2 * len(by_cell))
    ax = figure.subplots()
    rows = np.arange(len(by_cell))
    notes = []
    for row, cell in enumerate(by_cell.to_dict("records")):
        n, k = int(cell["finished"]), int(cell["failed"])
        if n:
            share, colour = k / n, HUES[places[row].hue % len(HUES)]
            # The bounds enclose the share up to rounding: 0 of n has a lower bound of 0.
            spans = [[max(share - cell["failed_low"], 0.0)], [max(cell["failed_high"] - share, 0.0)]]
            ax.errorbar(share, row, xerr=spans, fmt="none", ecolor=colour, elinewidth=1.6, capsize=2.5)
            marker, fill, edge = ("X", FAILED, "white") if k else ("o", "white", colour)
            ax.scatter([share], [row], s=40 if k else 22, marker=marker, color=fill, edgecolors=edge, zorder=3)
        gone = [f"{cell[name]} {name}" for name in ("crashed", "missing") if cell[name]]
        chance = f", {cell['at_chance']} at chance" if cell["at_chance"] else ""
        notes.append(f"{k}/{n}{chance}" + (f" (+{', '.join(gone)})" if gone else ""))
    shown = [" · ".join(show(value) for _, value in cell.axes) or "the only recipe" for cell in sweep.cells]
    ax.set_yticks(rows, shown)
    ax.set_ylim(len(by_cell) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", visible=True)
    ax.set_xlim(-0.03, 1.03)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    ax.set_xlabel("failed share of finished runs, 95 % Wilson interval")
    heading = " · ".join(axis.replace("_", " ") for axis in sweep.axes)
    ax.annotate(heading, (0, 1), (-6, 3), "axes fraction", "offset points", ha="right", fontsize=7.5, color="#555555")
    right = ax.secondary_yaxis("right")
    right.set_yticks(rows, notes)
    right.tick_params(length=0)
    right.spines["right"].set_visible(False)
    ax.annotate("failed/finished", (1, 1), (6, 3), "axes fraction", "offset points", fontsize=7.5, color="#555555")
    if plan.hue is not None:
        hues = _values(sweep, plan.hue)
        _legend(figure, [Patch(color=HUES[i % len(HUES)], label=_named(plan.hue, v)) for i, v in enumerate(hues)])
    return figure


# ------------------------------------------------------------------------------------------------------------- curves


@_styled
def curves(sweep: Sweep, table: pd.DataFrame, arrays: Mapping[str, Curves]) -> Figure:
    """Dev score and training loss against the step, a line a run: left and right, one row for each setting but lr.

    `arrays` maps a trial's id to its curves; runs without are not drawn, and the row's title says how many of the
    finished are. The loss is a running mean over a fiftieth of the run's steps. Failed runs are dark red and dashed and
    end in a cross; runs at chance are dotted and end in a square.
    """
    colour_axis = "lr" if "lr" in sweep.axes else None
    groups = [
        ", ".join(_named(axis, value) for axis, value in cell.axes if axis != colour_axis) or "all runs"
        for cell in sweep.cells
    ]
    colours = _values(sweep, colour_axis)
    rows = list(dict.fromkeys(groups))
    figure = _figure(sweep, "curves of every run", 1.3 + 1.55 * len(rows))
    grid = figure.subplots(len(rows), 2, sharey="col", squeeze=False)
    verdicts = _verdicts(table)
    for (left, right), group in zip(grid, rows, strict=True):
        members = [index for index, name in enumerate(groups) if name == group]
        here = table[table["cell"].isin(members)]
        drawn = 0
        for index in sorted(here.index, key=lambda at: verdicts[at] != "ok"):  # failed runs on top
            found = arrays.get(here.loc[index, "trial"])
            if found is None:
                continue
            drawn += 1
            value = dict(sweep.cells[here.loc[index, "cell"]].axes).get("lr") if colour_axis else None
            look = _look(verdicts[index], HUES[colours.index(value) % len(HUES)])
            _line(left, found.eval_step, found.dev_score, look)
            _line(right, *_smooth(found.train_loss), look)
        finished = int((here["status"] == "finished").sum())
        left.set_title(f"{group}  (n = {finished}{'' if drawn == finished else f', {drawn} with curves'})", loc="left")
        for ax, column in ((left, "majority_score"), (right, "label_entropy")):
            for level in here[column].dropna().unique():
                ax.axhline(level, color=INK, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1.5)
        left.set_ylabel(f"dev {_metric(table)}")
        right.set_ylabel("training loss")
    for ax in grid[-1]:
        ax.set_xlabel("step")
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=HUES[index % len(HUES)], label=_named(colour_axis, value) or "run")
        for index, value in enumerate(colours)
    ]
    for verdict, style in (("failed", (0, (3, 1.5))), ("at chance", (0, (1, 1)))):
        if (verdicts == verdict).any() or (verdict == "failed" and (verdicts == "diverged").any()):
            handle = _mark_handle(verdict)
            handle.set(linestyle=style, color=_MARKS[verdict].edge if verdict == "at chance" else FAILED)
            handles.append(handle)
    handles.append(Line2D([], [], color=INK, lw=0.9, ls=(0, (4, 2)), label="majority class, entropy of labels"))
    _legend(figure, handles)
    return figure


@dataclass(frozen=True)
class _Look:
    colour: str
    style: str | tuple[float, tuple[float, ...]]
    width: float
    end: _Mark | None


def _look(verdict: str, colour: str) -> _Look:
    if verdict == "at chance":
        return _Look(CHANCE, (0, (1, 1)), 1.0, _MARKS["at chance"])
    if verdict in ("failed", "diverged"):
        return _Look(FAILED, (0, (3, 1.5)), 0.9, _MARKS["failed"])
    return _Look(colour, "-", 0.7, None)


def _line(ax: Axes, x: np.ndarray, y: np.ndarray, look: _Look) -> None:
    """One run's line up to its last finite value, marked there when the run did not train."""
    keep = np.isfinite(y)
    if not keep.any():
        return
    x, y = x[keep], y[keep]
    ax.plot(x, y, color=look.colour, linestyle=look.style, linewidth=look.width, alpha=0.75)
    if look.end is not None:
        size = look.end.size * 0.6
        ax.scatter(x[-1:], y[-1:], s=size, marker=look.end.marker, c=look.end.face, edgecolors=look.colour, lw=0.6)


def _smooth(loss: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The running mean of a loss [S] over S/50 steps at most at 200 places: (steps, means)."""
    window = max(1, len(loss) // 50)
    means = np.convolve(loss.astype(np.float64), np.full(window, 1 / window), mode="valid")
    steps = np.arange(len(means)) + (window + 1) / 2
    stride = max(1, len(means) // 200)
    return steps[::stride], means[::stride]


def draw(
    sweep: Sweep, table: pd.DataFrame, by_cell: pd.DataFrame, arrays: Mapping[str, Curves]
) -> Iterator[tuple[str, Figure]]:
    """All figures of a report, as (file name without ending, figure), one after the other."""
    yield "spread", spread(sweep, table)
    yield "failure_rates", failure_rates(sweep, by_cell)
    yield "curves", curves(sweep, table, arrays)
