"""Figures of what the spread is made of: `noise_floor`, `best_of_n`, `seed_budget`, `importance`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from harness.analysis.drivers import largest_effects
from harness.analysis.example_scores import score_name
from harness.common.text import Scalar, count_noun, show
from harness.report.figures.layout import (
    Plan,
    columns_for,
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
    text_width,
)
from harness.report.figures.sheet import (
    current,
    styled,
)
from harness.report.figures.style import (
    FAINT,
    HUES,
    INK,
    LINES,
    MARKERS,
    MOST_VALUES,
    SMALL,
    colour_of,
    empty_figure,
    finite_scores,
    is_finished,
    legend_key,
    marker_of,
    metric_name,
    needs_logarithms,
    outer_label,
    pair,
    panel,
    part_shown,
    plain_numbers,
    share_bars,
    stacked,
    without_axes,
)

if TYPE_CHECKING:
    from harness.analysis.analyze import Analysis

MOST_TERMS = 14
MOST_BANDS = 4  # of the seed budget, which lie on each other
MOST_NAMED = 5  # lines with a name at their end
GREY = "#B8B8B8"


# ---------------------------------------------------------------------------------------------------------- noise floor


@styled
def noise_floor(analysis: Analysis) -> Figure | None:
    """Each cell's spread over seeds beside the error that a dev set of this size gives any single accuracy.

    One row a cell. What an infinite dev set would leave of the spread is shown with its interval where the runs'
    answers are kept; rows that are known from counts alone have hollow dots and say so.
    """
    study = analysis.study
    floor = without_axes(study, analysis.noise_floor)
    floor = floor[floor["known_from"] != ""]
    if floor.empty:
        return None
    everything = list(floor["cell"])
    shown = selected(analysis)
    floor = floor[floor["cell"].isin(shown.cells)]
    answered = (floor["known_from"] == "answers").any()
    counted = (floor["known_from"] == "counts").any()
    bar: Any = {"facecolor": "#DCDCDC", "edgecolor": "#8A8A8A", "hatch": "////", "linewidth": 0.5}
    name = score_name(analysis.runs)
    error_of_one = "error of one accuracy (binomial)" if name == "accuracy" else f"error of one {name} by its examples"
    handles: list[Artist] = [Patch(label=error_of_one, **bar)]
    handles.append(legend_key("observed over seeds", HUES[0], marker="o"))
    if counted and answered:
        handles[-1].set_label("observed over seeds (answers kept)")
    if counted:
        look: Any = {"marker": "o", "mfc": "white", "mec": HUES[0]}
        handles.append(legend_key("observed over seeds (counts only)", HUES[0], **look))
        if not answered:
            del handles[1]
    if answered:
        handles.append(
            legend_key("left by an infinite dev set, 95 % interval", INK, LINES[0], "D", mfc="white", mec=INK)
        )
    what = "spread over seeds against the noise of the dev set"
    what += part_shown(list(floor["cell"]), everything, why=shown.why)
    figure = empty_figure(study, what, 0.1 + rows_height(len(floor)) + 0.03 * min(len(floor), 12), handles, rows=True)
    ax = panel(figure)
    notes = []
    for row, cell in enumerate(floor.to_dict("records")):
        error = cell["binomial"] if np.isfinite(cell["binomial"]) else cell["example_bootstrap"]
        ax.barh(row, 100 * error, height=0.72, zorder=1, **bar)
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
        notes.append(f"n={short_count(cell['runs'])}, {short_count(cell['examples'])}{'' if kept else ' (counts)'}")
    row_labels(ax, study, list(floor["cell"]), notes, "runs, dev examples")
    ax.set_xlim(left=-0.02 * ax.get_xlim()[1])
    ax.xaxis.set_major_locator(MaxNLocator(7))
    plain_numbers(ax.xaxis)
    ax.set_xlabel(f"standard deviation of the {name}, percentage points")
    return figure


# ------------------------------------------------------------------------------------------------------------ best of n


@styled
def best_of_n(analysis: Analysis) -> Figure | None:
    """The best score to expect of n seeds, one line a cell; n = 1, the diamond, is the mean.

    Panels and colours are those of the spread, and the values along x there are kinds of line here; more than eight
    lines a panel become panels of their own.
    """
    study = analysis.study
    table = without_axes(study, analysis.best_of_n)
    shown = selected(analysis)
    table = table[table["cell"].isin(shown.cells)]
    if table.empty:
        return None
    plan = plan_of(study, len(shown.cells), len(shown.cells), shown.cells)
    xs = plan.xs[0]  # of every panel
    apart = len(xs) * len(plan.hues) > MOST_VALUES
    keys = {
        index: (plan.titles[place.panel], setting(plan.layout.x, xs[place.x]) if apart else "")
        for index, place in plan.places.items()
    }
    with_lines = set(table["cell"])
    panels = list(dict.fromkeys(key for index, key in keys.items() if index in with_lines))
    columns = columns_for(3 if len(panels) > 4 else min(len(panels), 2), 1.6)
    panels = panels[: 5 * columns]
    drawn = [index for index, key in keys.items() if key in panels]
    if not panels:
        return None
    rows = -(-len(panels) // columns)
    what = "best score to expect of n seeds" + part_shown(drawn, range(len(study.cells)), why=shown.why)
    figure = empty_figure(
        study, what, 0.4 + rows * panel_height(rows, 1.35, 2.4), _best_keys(plan, [] if apart else xs)
    )
    titles = [", ".join(part for part in key if part) for key in panels]
    grid = dict(zip(panels, titled_panels(figure, titles, columns, share=not apart), strict=True))
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
            plain_numbers(ax.xaxis, log=True)
        else:
            step = next(step for step in (1, 2, 5, 10) if most <= 10 * step or step == 10)
            ax.set_xticks([1, *(n for n in range(step, most + 1, step) if n > 1)])
            ax.set_xlim(0.5, most + 0.5)
        members = drawn if not apart else [index for index in drawn if keys[index] == panels[number]]
        log = needs_logarithms(study, table.loc[table["cell"].isin(members), "unbiased"].dropna())
        if log:
            ax.set_yscale("log")
        _not_too_close(ax)
        plain_numbers(ax.yaxis, log)
        if number + columns >= len(panels):
            ax.set_xlabel("n, seeds tried")
    expected = f"expected best {metric_name(study)}"
    outer_label(figure, list(grid.values()), fit(expected, 8.5, 2.4))
    return figure


def _not_too_close(ax: Axes) -> None:
    """Scores that differ by rounding alone are one height, and not thirteen decimals at the ticks."""
    low, high = ax.get_ylim()
    middle = (low + high) / 2
    if high - low < 1e-6 * max(abs(middle), 1e-9):
        ax.set_ylim(middle - 0.05 * max(abs(middle), 0.1), middle + 0.05 * max(abs(middle), 0.1))


def _best_keys(plan: Plan, xs: Sequence[Scalar]) -> list[Line2D]:
    handles = []
    if plan.layout.hue:
        handles += [
            legend_key(setting(plan.layout.hue, hue), colour_of(i), LINES[0], lw=2.5) for i, hue in enumerate(plan.hues)
        ]
    if plan.layout.x and len(xs) > 1:
        colours = [INK if plan.layout.hue else colour_of(i) for i in range(len(xs))]
        named = [setting(plan.layout.x, x) for x in xs]
        handles += [legend_key(named[i], colours[i], LINES[i], MARKERS[i], ms=3.5) for i in range(len(xs))]
    handles.append(legend_key("mean of single runs", INK, marker="D", mfc="none", mec=INK))
    return handles


def _best(ax: Axes, here: pd.DataFrame, hue: int, kind: int) -> None:
    """One cell's line; of very many seeds some hundred places show its shape."""
    if len(here) > 200:
        here = here.iloc[np.unique(np.geomspace(1, len(here), 200).round().astype(int)) - 1]
    n, colour = here["n"].to_numpy(dtype=float), colour_of(hue)
    every = max(1, len(n) // 6)
    look: Any = {
        "marker": MARKERS[kind],
        "ms": 3.5,
        "mfc": "white" if hue % 2 else colour,
        "markevery": (min(every, len(n) - 1), every),
    }
    ax.plot(n, here["unbiased"].to_numpy(), color=colour, ls=LINES[kind], lw=1.2, zorder=3, **look)
    ax.scatter(n[:1], here["unbiased"].iloc[:1], s=22, marker="D", c="white", edgecolors=colour, lw=1.0, zorder=4)


# ---------------------------------------------------------------------------------------------------------- seed budget


@styled
def seed_budget(analysis: Analysis) -> Figure | None:
    """How wide the 95 % intervals of the mean and of the failure rate are at other numbers of seeds, a line a cell.

    Marks stand at the runs there are; bands of few cells show what these leave possible. Lines that lie on each other
    are one; of more than five, those between the widest and the narrowest are named in equal steps and the others grey.
    Both scales are logarithmic: half the width takes four times the seeds.
    """
    study = analysis.study
    budget = without_axes(study, analysis.budget)
    shown = selected(analysis)
    budget = budget[budget["cell"].isin(shown.cells)]
    sides = ("mean_half_width", "rate_half_width")
    if not (budget[list(sides)] > 0).any(axis=None):
        return None
    names = {
        index: " · ".join(show(value) for _, value in study.cells[index].axes) or "the only recipe"
        for index in shown.cells
    }
    handles = [legend_key("mark: present number of runs", FAINT, marker="o", ms=4)]
    what = "half the width of 95 % intervals against seeds" + part_shown(
        list(names), range(len(study.cells)), why=shown.why
    )
    figure = empty_figure(study, what, 2.7, handles, beside=2, least=2.0)
    points = _accuracies(analysis)
    mean = "accuracy,\npercentage points" if points else f"\n{literal(metric_name(study))}"
    units = ((100.0 if points else 1.0, f"± of the mean {mean}"), (100.0, "± of the failure rate,\npercentage points"))
    for ax, side, (unit, label) in zip(pair(figure), sides, units, strict=True):
        known = budget[budget[side] > 0]
        if known.empty:
            _say_instead(ax, _budget_lacks(analysis, side))
            continue
        known = known.assign(**{f"{side}{end}": unit * known[f"{side}{end}"] for end in ("", "_low", "_high")})
        ax.set_xscale("log")
        ax.set_yscale("log")
        _budget_lines(ax, known, side, names)
        _doubling(ax.yaxis, known[side])
        ax.set_xlabel("seeds per cell")
        ax.set_ylabel(label)
        flat = int((budget[side] == 0).groupby(budget["cell"]).any().sum())
        if flat:  # logarithms have no place for them
            note = f"not shown: {count_noun(flat, 'cell')} with equal scores"
            ax.annotate(note, (0.02, 0.02), xycoords="axes fraction", fontsize=pt(SMALL), color=FAINT)
    return figure


def _budget_lines(ax: Axes, known: pd.DataFrame, side: str, names: Mapping[int, str]) -> None:
    """The lines of one panel, those that are named with their names at their right ends."""
    alike: dict[tuple[int, ...], list[int]] = {}
    lines = {int(cell): here.sort_values("n") for cell, here in known.groupby("cell", sort=False)}
    for cell, here in lines.items():  # within 2 %
        key = tuple((50 * np.log(here[side].to_numpy(dtype=float))).round().astype(int).tolist())
        alike.setdefault(key, []).append(cell)
    groups = sorted(alike.values(), key=lambda cells: -float(lines[cells[0]][side].iloc[-1]))
    named = np.unique(np.linspace(0, len(groups) - 1, min(MOST_NAMED, len(groups))).round().astype(int)).tolist()
    ends, labels = [], []
    for rank, cells in enumerate(groups):
        here, kind = lines[cells[0]], named.index(rank) if rank in named else None
        colour, width = (GREY, 0.6) if kind is None else (colour_of(kind), 1.2)
        ax.plot(here["n"], here[side], color=colour, ls=LINES[kind or 0], lw=width, zorder=2 if kind is None else 3)
        if len(lines) <= MOST_BANDS:
            ax.fill_between(here["n"], here[f"{side}_low"], here[f"{side}_high"], color=colour, alpha=0.12, lw=0)
        now = pd.concat([lines[cell] for cell in cells])
        now = now[now[side.replace("half_width", "now")]]
        look: Any = {"s": 20 if kind is not None else 9, "marker": marker_of(kind or 0), "color": colour}
        ax.scatter(now["n"], now[side], zorder=3 + (kind is not None), edgecolors="white", linewidths=0.4, **look)
        if kind is not None:
            more = f" +{len(cells) - 1} alike" if len(cells) > 1 else ""
            ends.append((float(here["n"].iloc[-1]), float(here[side].iloc[-1]), colour))
            labels.append(cut(names[cells[0]], SMALL, 1.0 - text_width(more, SMALL)) + more)
    _name_lines(ax, known, side, ends, labels)


def _name_lines(
    ax: Axes, known: pd.DataFrame, side: str, ends: Sequence[tuple[float, float, str]], labels: Sequence[str]
) -> None:
    """Names right of the ends of lines, from the highest down, none on another."""
    first, last = float(known["n"].min()), float(known["n"].max())
    room = max(text_width(label, SMALL) for label in labels) + 0.15
    wide = max(current().width / (1 if stacked(2, 2.0) else 2) - 0.75, room + 0.4)
    span = np.log(last / first) if last > first else 1.0
    ax.set_xlim(first * np.exp(-0.05 * span), last * np.exp(span * room / (wide - room)))
    _doubling(ax.xaxis, known["n"], last, wide - room)
    low, high = np.log(float(known[side].min())), np.log(float(known[side].max()))
    gap = max(high - low, 0.1) * 0.075
    height = np.inf
    for (x, y, colour), label in zip(ends, labels, strict=True):
        height = min(np.log(y), height - gap)
        look: Any = {"arrowstyle": "-", "color": colour, "lw": 0.5, "shrinkA": 0, "shrinkB": 1}
        ax.annotate(
            literal(label), (x, y), (x * np.exp(0.06 * span), np.exp(height)), "data", "data", look,
            va="center", fontsize=pt(SMALL), color=INK,
        )  # fmt: skip
    ax.set_ylim(np.exp(min(low, height) - gap), np.exp(high + gap))


def _accuracies(analysis: Analysis) -> bool:
    """Whether the scores are shares of right answers, whose differences are percentage points."""
    return bool(
        set(analysis.study.runs["metric"].dropna()) == {"accuracy"} and finite_scores(analysis.runs).abs().max() <= 1
    )


def _doubling(axis: Axis, values: pd.Series, last: float = np.inf, inches: float = np.inf) -> None:
    """Ticks at 1, 2 and 5 times powers of ten up to the last, as plain numbers, as many as so many inches hold."""
    low, high = float(values.min()), float(values.max())
    powers = range(int(np.floor(np.log10(low))) - 1, int(np.ceil(np.log10(high))) + 1)
    steps = (1, 2, 5) if high / low < 1000 else (1,)
    ticks = [tick for power in powers for step in steps if (tick := step * 10.0**power) <= last * 1.001]
    apart = np.log(high / low) * 0.3 / inches if high > low else 0.0
    shown: list[float] = []
    for tick in reversed(ticks):
        if not shown or np.log(shown[-1] / tick) >= apart:
            shown.append(tick)
    axis.set_major_locator(FixedLocator(shown[::-1]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def _budget_lacks(analysis: Analysis, side: str) -> str:
    if side == "rate_half_width":
        return "whether runs failed\nis not known"
    counts = analysis.runs[analysis.runs["verdict"] != ""].groupby("cell")["final_score"].count()
    return "the scores of a cell\ndo not differ" if (counts > 1).any() else "needs two scores\nin a cell"


def _say_instead(ax: Axes, words: str) -> None:
    """A panel that has nothing to show says why."""
    ax.set(xticks=[], yticks=[])
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    ax.annotate(words, (0.5, 0.5), xycoords="axes fraction", ha="center", va="center", fontsize=pt(8), color=FAINT)


# ----------------------------------------------------------------------------------------------------------- importance


@styled
def importance(analysis: Analysis) -> Figure | None:
    """What drives the score and the failing: shares of settings, with a second look by a random forest, and p.

    Left the terms' share in the variance of the score, the residual hatched, open diamonds for functional ANOVA; right
    the largest difference that each setting makes to the failure rate, with its interval. A half that can not be told
    says why.
    """
    study = analysis.study
    score = analysis.drivers_of_score
    terms = score[(score["term"] != "residual")]
    no_score, no_failing = _score_lacks(analysis, terms), _failing_lacks(analysis)
    if no_score and no_failing:
        return None
    leading = terms.sort_values("eta_squared", ascending=False, kind="stable").index[: MOST_TERMS - 1]
    shown = pd.concat([terms[terms.index.isin(leading)], score[score["term"] == "residual"]])
    failing_shown = largest_effects(analysis.contrasts).head(MOST_TERMS)
    handles: list[Artist] = []
    if not no_score:
        handles.append(legend_key("share by functional ANOVA (single settings)", INK, marker="D", mfc="white", mec=INK))
    n_left = int((is_finished(analysis.runs) & analysis.runs["final_score"].notna()).sum())
    n_right = int((is_finished(analysis.runs) & analysis.runs["outcome"].notna()).sum())
    rows = max(0 if no_score else len(shown), 0 if no_failing else len(failing_shown), 3)
    what = "what drives the score and the failing"
    what += part_shown(range(len(leading)), range(len(terms)), "terms") if not no_score else ""
    figure = empty_figure(study, what, 0.75 + 0.21 * rows, handles, rows=True, beside=2, least=2.4)
    left, right = pair(figure, 2.4, width_ratios=[1.15, 1])
    left.set_title(f"variance of the score (n = {n_left:,})")
    right.set_title(f"which runs fail (n = {n_right:,})")
    if no_score:
        _say_instead(left, no_score)
    else:
        share_bars(left, list(shown["term"]), shown["eta_squared"], shown["fanova"], shown["note"], rows, wide=1.7)
        left.patches[-1].set(hatch="////", facecolor="#DCDCDC", edgecolor="#8A8A8A")
        left.set_xlabel("share of the sum of squares (η²)")
    if no_failing:
        _say_instead(right, no_failing)
    else:
        second = pd.Series(np.nan, index=failing_shown.index)
        sizes, axes = failing_shown["difference"].abs(), list(failing_shown["axis"])
        bounds = [
            (min(abs(low), abs(high)) if low * high > 0 else 0.0, max(-low, high))
            for low, high in zip(failing_shown["difference_low"], failing_shown["difference_high"], strict=True)
        ]
        notes = pd.Series([""] * len(axes), dtype=object)
        share_bars(right, axes, sizes, second, notes, rows, wide=1.1, bounds=bounds)
        p_values = right.secondary_yaxis("right")
        p_values.set_yticks(range(len(failing_shown)), [_p(p) for p in failing_shown["p_adjusted"]], fontsize=pt(7))
        p_values.tick_params(length=0)
        p_values.spines["right"].set_visible(False)
        right.set_xlabel("largest difference in failure rate")
    return figure


def _p(p: float) -> str:
    if not np.isfinite(p):
        return ""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def _score_lacks(analysis: Analysis, terms: pd.DataFrame) -> str:
    """Why the shares in the score's variance are not known, or nothing."""
    if terms["eta_squared"].notna().any():
        return ""
    if terms.empty:
        return "one recipe only"
    scores = finite_scores(analysis.runs[analysis.runs["verdict"] != ""]).dropna()
    if scores.nunique() < 2:
        return "no run has a score" if scores.empty else "all scores are equal"
    return _unanimous(terms["note"]) or "not known"


def _failing_lacks(analysis: Analysis) -> str:
    """Why the shares in failing are not known, or nothing."""
    table = analysis.drivers_of_failing
    if table["share"].notna().any():
        return ""
    done = analysis.runs[is_finished(analysis.runs)]
    if len(done) and done["outcome"].isna().all():
        return "whether runs failed\nis not known"
    if table.empty:
        return "one recipe only"
    return _unanimous(table["note"]) or "no setting tells\nwhich runs fail"


def _unanimous(notes: pd.Series) -> str:
    said = {str(note) for note in notes if isinstance(note, str) and note}
    return fit(said.pop(), 8, 2.0) if len(said) == 1 else ""
