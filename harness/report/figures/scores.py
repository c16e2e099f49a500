"""Figures of what the runs scored and which of them failed: `spread`, `failure_rates`, `performance_profile`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from harness.analysis import looks
from harness.analysis.comparisons import main_axis
from harness.analysis.verdicts import level_to_beat
from harness.common.text import Scalar
from harness.records.study import Study
from harness.report.figures.layout import (
    MOST_ROWS,
    Plan,
    jitter,
    panel_height,
    plan_of,
    row_labels,
    rows_height,
    selected,
    titled_panels,
)
from harness.report.figures.lettering import (
    cut,
    fit,
    literal,
    pt,
    setting,
    short_count,
    spaced,
    text_width,
    value_texts,
)
from harness.report.figures.sheet import (
    ReportFigure,
    current,
    styled,
)
from harness.report.figures.style import (
    CHANCE,
    FAILED,
    FAINT,
    HUES,
    INK,
    LINES,
    MAJORITY,
    MANY,
    MARKERS,
    MARKS,
    MOST_VALUES,
    SMALL,
    colour_of,
    empty_figure,
    finite_scores,
    legend_key,
    mark_key,
    marker_of,
    needs_logarithms,
    panel,
    part_shown,
    plain_numbers,
    score_label,
    score_name,
    without_axes,
)

if TYPE_CHECKING:
    from harness.analysis.analyze import Analysis

SLOT = 0.8  # share of an x position that its boxes fill, at most
NARROWEST = 0.27  # inches of a box: room for `n=25`
FEWEST_FOR_A_BOX = 5


# --------------------------------------------------------------------------------------------------------------- spread


@styled
def spread(analysis: Analysis) -> Figure | None:
    """Box plots of the final score, one box a cell and one mark a run, with mean, median and the majority's score.

    Laid out by `layout`. Below five scores there is no box, only marks and a bar at the median; a run that diverged has
    no score and stands at the edge where scores are worst. The mean has its 95 % interval. Over each box stand the
    number of scored runs and, after a cross, of failed.
    """
    study = analysis.study
    shown = selected(analysis)
    table = analysis.runs[(analysis.runs["verdict"] != "") & analysis.runs["cell"].isin(shown.cells)]
    if table.empty:
        return None
    plan, columns = _spread_plan(study, shown.cells)
    table = table[table["cell"].isin(plan.places)]
    scores, verdicts = finite_scores(table), table["verdict"].replace("unjudged", "ok")
    rows = -(-len(plan.titles) // columns)
    handles = _spread_keys(plan, [verdict for verdict in MARKS if (verdicts == verdict).any()])
    if table["majority_score"].notna().any():
        handles.append(legend_key(level_to_beat(study), INK, MAJORITY, lw=0.9))
    what = f"{score_name(study)} of every run"
    what += part_shown(list(plan.places), range(len(study.cells)), why=shown.why)
    figure = empty_figure(study, what, 0.45 + rows * panel_height(rows, 1.4, 2.1), handles)
    grid = titled_panels(figure, plan.titles, columns)
    means = without_axes(study, analysis.level).set_index("cell")[["mean", "mean_low", "mean_high"]]
    groups = {int(index): here for index, here in table.groupby("cell", sort=False)}
    low, high, log = _limits(study, pd.concat([scores, finite_scores(table, "majority_score")]).dropna())
    if not log:
        low, high = _with_intervals(low, high, means.loc[list(groups), ["mean_low", "mean_high"]].to_numpy(dtype=float))
    edges = _beyond(low, high, log, study.higher_is_better, (verdicts == "diverged").any())
    worst = low if study.higher_is_better else high
    for number, (ax, xs) in enumerate(zip(grid, plan.xs, strict=True)):
        bar = min(SLOT / len(plan.hues), 0.2 * len(xs))  # a lone box needs no wide one
        inches = current().width / columns - 0.7
        slot = inches / len(xs) * bar
        members = [index for index in plan.members(number) if index in groups]
        _boxes(ax, pd.DataFrame({"cell": table["cell"], "score": scores}), members, plan, bar)
        for index in members:
            here = groups[index].index
            place = plan.places[index]
            centre = place.x + (place.hue - (len(plan.hues) - 1) / 2) * bar
            heights = scores[here].fillna(worst)
            across = _run_marks(ax, heights, verdicts[here], centre, bar, place.hue, len(table) > MANY)
            if isinstance(figure, ReportFigure):
                figure.run_marks.append((ax, [int(row) for row in here], np.column_stack([across, heights])))
            _level(ax, scores[here].dropna(), means.loc[index], centre, bar, edges)
            failed = int(verdicts[here].isin(["failed", "diverged"]).sum())
            _say_counts(ax, centre, slot, int(scores[here].notna().sum()), failed)
        _majority(ax, table, members, plan)
        _ticks(ax, plan.layout.x, xs, inches)
        if log:
            ax.set_yscale("log")
        ax.set_ylim(*edges)
        plain_numbers(ax.yaxis, log)
        if low >= -1 and high <= 1 < edges[1]:  # of a share the room for counts is no part of the scale
            ax.set_yticks([tick for tick in ax.get_yticks() if edges[0] <= tick <= 1])
        if number % columns == 0:
            ax.set_ylabel(score_label(study, 1.5))
        if number + columns < len(grid):  # the panel below says it
            ax.set_xlabel("")
    return figure


def _spread_plan(study: Study, shown: Sequence[int]) -> tuple[Plan, int]:
    """The panels of the spread, and how many stand side by side: three would be too small in a paper's column."""
    first = plan_of(study, len(shown), len(shown), shown)
    slots, facets = max(map(len, first.xs)) * len(first.hues), len(first.titles)
    narrowest = NARROWEST * current().scale
    columns = 2 if facets not in (1, 3) and slots * narrowest <= current().width / 2 - 0.6 else 1
    along = max(1, int((current().width / columns - 0.6) / narrowest) // len(first.hues))
    return plan_of(study, along, MOST_ROWS * columns, shown), columns


def _limits(study: Study, known: pd.Series) -> tuple[float, float, bool]:
    """The lowest and the highest of the scores there are, and whether they need logarithms."""
    if known.empty:
        return 0.0, 1.0, False
    return float(known.min()), float(known.max()), needs_logarithms(study, known)


def _with_intervals(low: float, high: float, ends: np.ndarray) -> tuple[float, float]:
    """The limits with room for the means' intervals [N, 2], at most half as far again as the scores reach."""
    known, room = ends[np.isfinite(ends)], 0.5 * (high - low)
    if not len(known):
        return low, high
    return max(min(low, float(known.min())), low - room), min(max(high, float(known.max())), high + room)


def _beyond(low: float, high: float, log: bool, higher: bool, diverged: bool) -> tuple[float, float]:
    """Limits of y with room for the counts above and for runs that diverged beyond the worst score."""
    lowest, highest = (float(np.log(low)), float(np.log(high))) if log else (low, high)
    margin = (highest - lowest) * 0.12 or abs(highest) * 0.05 or 0.01
    bottom = lowest - margin * (1.0 if diverged and higher else 0.6)
    top = highest + margin * (2.6 if diverged and not higher else 2.2)
    return (float(np.exp(bottom)), float(np.exp(top))) if log else (bottom, top)


def _ticks(ax: Axes, axis: str | None, values: Sequence[Scalar], inches: float) -> None:
    texts = [cut(text, 8, 1.1) for text in value_texts(values)] if axis else ["all runs"]
    crowded = max(text_width(text, 8) for text in texts) + 0.08 > inches / len(texts)
    how: Any = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
    ax.set_xticks(range(len(texts)), [literal(text) for text in texts], **how)
    ax.set_xlim(-0.5, len(texts) - 0.5)
    if axis:
        ax.set_xlabel(fit(spaced(axis), 8.5, inches))


def _boxes(ax: Axes, data: pd.DataFrame, members: Sequence[int], plan: Plan, bar: float) -> None:
    """Boxes of the cells with enough scores; whiskers reach the farthest run within 1.5 interquartile ranges."""
    data = data[data["cell"].isin(members)].dropna()
    data = data[data.groupby("cell")["score"].transform("size") >= FEWEST_FOR_A_BOX]
    if data.empty:
        return
    places = [plan.places[index] for index in data["cell"]]
    data = data.assign(x=[place.x for place in places], hue=[place.hue for place in places])
    thin = {"color": FAINT, "linewidth": 0.8}
    with warnings.catch_warnings():
        # seaborn 0.13 still passes `vert`, which matplotlib 3.11 calls deprecated.
        warnings.filterwarnings("ignore", message="vert: bool", category=mpl.MatplotlibDeprecationWarning)
        sns.boxplot(
            data=data,
            x="x",
            y="score",
            hue="hue",
            native_scale=True,
            dodge=True,  # its "auto" sets the boxes of a lone arm on the tick, over both
            hue_order=range(len(plan.hues)),
            palette=[to_rgba(colour_of(hue), 0.3) for hue in range(len(plan.hues))],
            width=bar * len(plan.hues),
            gap=0.12,
            saturation=1,
            showfliers=False,
            boxprops={"edgecolor": FAINT, "linewidth": 0.8},
            medianprops={"color": INK, "linewidth": 1.4},
            whiskerprops=thin,
            capprops=thin,
            legend=False,
            ax=ax,
        )
    ax.set(xlabel="", ylabel="")


def _run_marks(
    ax: Axes, heights: pd.Series, verdicts: pd.Series, centre: float, width: float, hue: int, many: bool
) -> np.ndarray:
    """Every run of one cell as a mark; where they are along x."""
    places = centre + jitter(len(heights), width * 0.7)
    # Failed runs share a score, the majority's: spread evenly they stay countable.
    untrained = np.flatnonzero((verdicts != "ok").to_numpy())
    if len(untrained) > 1:
        places[untrained] = centre + np.linspace(-0.4, 0.4, len(untrained)) * width
    ok = (verdicts == "ok").to_numpy()
    looks: list[tuple[np.ndarray, Any]] = [
        (ok, {"s": 11, "marker": marker_of(hue), "color": colour_of(hue), "edgecolors": "white", "linewidths": 0.4})
    ]
    for verdict, mark in MARKS.items():
        line = 0.5 if mark.face != "white" else 1.0
        look = {"s": mark.size, "marker": mark.marker, "facecolors": mark.face, "edgecolors": mark.edge}
        looks.append(((verdicts == verdict).to_numpy(), look | {"linewidths": line, "clip_on": False}))
    for level, (chosen, look) in enumerate(looks):
        if many:  # edges would hide what lies below
            look |= {"s": look["s"] * 0.15, "linewidths": 0}
            look |= {"facecolors": CHANCE} if look.get("edgecolors") == CHANCE else {}
        if chosen.any():
            ax.scatter(places[chosen], heights[chosen], zorder=3 + (level > 0), rasterized=many, **look)
    return places


def _level(
    ax: Axes, scores: pd.Series, mean: pd.Series, centre: float, width: float, edges: tuple[float, float]
) -> None:
    """The mean of one cell as a diamond with its interval and, where there is no box, its median as a bar.

    An interval that goes on beyond the edges of the panel ends there in an arrow.
    """
    if len(scores) < 2:
        return
    if np.isfinite(mean["mean_low"]) and np.isfinite(mean["mean_high"]):
        ax.vlines(centre, mean["mean_low"], mean["mean_high"], color=INK, linewidth=1.1, zorder=4.5)
        for edge, marker, beyond in zip(
            edges, "v^", (mean["mean_low"] < edges[0], mean["mean_high"] > edges[1]), strict=True
        ):
            if beyond:
                ax.plot([centre], [edge], marker, ms=4, color=INK, clip_on=False, zorder=4.5)
    look: Any = {"s": 24, "marker": "D", "facecolors": "none", "edgecolors": INK, "linewidths": 0.9}
    ax.scatter([centre], [mean["mean"]], zorder=5, **look)
    if len(scores) < FEWEST_FOR_A_BOX:
        ax.hlines(scores.median(), centre - width * 0.4, centre + width * 0.4, color=INK, linewidth=1.4, zorder=2.5)


def _say_counts(ax: Axes, centre: float, slot: float, n: int, failed: int) -> None:
    counted = f"n={short_count(n)}"
    counted = counted if text_width(counted, SMALL) <= slot * 1.15 else short_count(n)
    for line, text, shade in ((0, counted, FAINT), (1, f"✕{short_count(failed)}" if failed else "", FAILED)):
        where: Any = (centre, 1.0), (0, -7.5 * line), ("data", "axes fraction"), "offset points"
        ax.annotate(text, *where, ha="center", va="top", fontsize=pt(SMALL), color=shade)


def _majority(ax: Axes, table: pd.DataFrame, members: Sequence[int], plan: Plan) -> None:
    """The majority's score as a dashed line, in steps where the cells of a panel differ in it."""
    known = table[table["cell"].isin(members)].dropna(subset=["majority_score"])
    look: Any = {"color": INK, "linewidth": 0.9, "linestyle": MAJORITY, "zorder": 1.5}
    if known["majority_score"].nunique() == 1:
        ax.axhline(known["majority_score"].iloc[0], **look)
        return
    for index, score in known.groupby("cell")["majority_score"].first().items():
        x = plan.places[int(index)].x
        ax.hlines(score, x - 0.5, x + 0.5, **look)


def _spread_keys(plan: Plan, verdicts: Sequence[str]) -> list[Line2D]:
    handles = plan.keys() if plan.layout.hue else [legend_key("run", HUES[0], marker=MARKERS[0])]
    handles += [mark_key(verdict) for verdict in verdicts]
    if {"failed", "diverged"} & set(verdicts):
        handles.append(legend_key("number of failed runs", FAILED, marker="$✕n$", ms=10, mew=0))
    handles.append(legend_key("mean, 95 % interval", INK, marker="D", mfc="none", mec=INK))
    handles.append(legend_key("median", INK, LINES[0], lw=1.4))
    return handles


# -------------------------------------------------------------------------------------------------------- failure rates


@styled
def failure_rates(analysis: Analysis) -> Figure | None:
    """Each cell's share of failed runs with its 95 % Wilson interval, k/n in figures, and what is missing beside it.

    One row a cell in the study's order, so that any axes fit; runs near chance are named beside the count.
    """
    study = analysis.study
    cells = without_axes(study, analysis.cells)
    if not (cells["judged"] > 0).any():
        return None
    shown = selected(analysis)
    cells = cells[cells["cell"].isin(shown.cells)]
    plan = plan_of(study, len(shown.cells), len(shown.cells), shown.cells)
    handles = [
        Patch(color=colour_of(i), label=setting(plan.layout.hue, hue))
        for i, hue in enumerate(plan.hues)
        if plan.layout.hue
    ]
    what = "share of failed runs" + part_shown(list(cells["cell"]), range(len(study.cells)), why=shown.why)
    figure = empty_figure(study, what, rows_height(len(cells)), handles, rows=True)
    ax = panel(figure)
    notes = []
    for row, cell in enumerate(cells.to_dict("records")):
        n, done = int(cell["judged"]), int(cell["finished"])
        k = int(cell["failed"]) if n else 0
        if n:
            share, colour = k / n, colour_of(plan.places[int(cell["cell"])].hue)
            # The bounds enclose the share up to rounding: 0 of n has a lower bound of 0.
            spans = [[max(share - cell["failed_low"], 0.0)], [max(cell["failed_high"] - share, 0.0)]]
            ax.errorbar(share, row, xerr=spans, fmt="none", ecolor=colour, elinewidth=1.6, capsize=2.5)
            marker, fill, edge = ("X", FAILED, "white") if k else ("o", "white", colour)
            ax.scatter([share], [row], s=40 if k else 22, marker=marker, color=fill, edgecolors=edge, zorder=3)
        gone = [f"{cell[name]} {name}" for name in ("crashed", "missing", "unreadable") if cell.get(name)]
        gone += [f"{done - n} not judged"] if done > n else []
        chance = f", {cell['near_chance']} near chance" if cell["near_chance"] else ""
        notes.append(f"{k}/{n}{chance}" + (f" (+{', '.join(gone)})" if gone else ""))
    partly = (cells["judged"] < cells["finished"]).any()
    row_labels(ax, study, list(cells["cell"]), notes, "failed/judged" if partly else "failed/finished")
    ax.set_xlim(-0.03, 1.03)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    method = "confidence sequence" if looks.looked_at(study) else "Wilson interval"
    ax.set_xlabel(f"failed share of {'judged' if partly else 'finished'} runs, 95 % {method}")
    return figure


# -------------------------------------------------------------------------------------------------- performance profile


@styled
def performance_profile(analysis: Analysis) -> Figure | None:
    """The share of runs better than τ, one line for each value of the main axis with its 95 % band.

    Below the lines every run is a tick at its score; a dashed line is the majority's score where there is one only.
    """
    study = analysis.study
    if analysis.profile.empty:
        return None
    lines = _profiles(analysis.profile)
    axis = main_axis(study)
    values = list(lines)[:MOST_VALUES]
    done = analysis.runs[analysis.runs["verdict"] != ""]
    scores = finite_scores(done).dropna()
    of = [dict(study.cells[index].axes)[axis] if axis else None for index in done.loc[scores.index, "cell"]]
    own = {value: scores[[one == value for one in of]].to_numpy() for value in values}
    handles = [
        legend_key(
            f"{cut(setting(axis, value) or 'all runs', 7.5, 2.2)} (n = {len(own[value]):,})", colour_of(i), LINES[i]
        )
        for i, value in enumerate(values)
    ]
    majority = done["majority_score"].dropna().unique()
    if len(majority) == 1:
        handles.append(legend_key(level_to_beat(study), INK, MAJORITY, lw=0.9))
    what = "share of runs better than τ, 95 % band"
    what += part_shown(range(len(values)), range(len(lines)), f"values of {spaced(axis or '')}")
    figure = empty_figure(study, what, 2.5 + 0.06 * len(values), handles)
    ax = panel(figure)
    many = sum(map(len, own.values())) > MANY
    for i, value in enumerate(values):
        here = lines[value]
        look: Any = {"color": colour_of(i)}
        ax.fill_between(
            here["threshold"].to_numpy(), here["low"].to_numpy(), here["high"].to_numpy(), alpha=0.16, lw=0, **look
        )
        ax.plot(here["threshold"], here["share"], ls=LINES[i], lw=1.4, **look)
        low = np.full(len(own[value]), -0.06 * (i + 1))
        ax.plot(own[value], low, "|", ms=4.5, mew=0.7, rasterized=many, **look)
    if len(majority) == 1:
        ax.axvline(majority[0], color=INK, linewidth=0.9, linestyle=MAJORITY, zorder=1.5)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    plain_numbers(ax.xaxis)
    ax.set_ylim(-0.06 * len(values) - 0.05, 1.03)
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    ax.set_xlabel(f"{score_label(study, 3.5)}, τ")
    ax.set_ylabel("share of runs better than τ")
    return figure


def _profiles(table: pd.DataFrame) -> dict[Scalar, pd.DataFrame]:
    """The rows of each value, in their order; None is a value too."""
    places: dict[Scalar, list[int]] = {}
    for place, value in enumerate(table["value"]):
        places.setdefault(value, []).append(place)
    return {value: table.iloc[rows] for value, rows in places.items()}
