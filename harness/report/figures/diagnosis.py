"""Figures of why runs fail: losses, gradients, sizes of updates, early warning, the loss surface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

from harness.analysis.verdicts import level_to_beat, untrained_loss_name
from harness.common.text import show
from harness.report.figures.layout import (
    columns_for,
    layout,
    titled_panels,
)
from harness.report.figures.lettering import (
    cut,
    literal,
    pt,
    setting,
)
from harness.report.figures.sheet import (
    current,
    styled,
)
from harness.report.figures.style import (
    FAILED,
    FAINT,
    HUES,
    INK,
    LINES,
    MAJORITY,
    MANY,
    MANY_POINTS,
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
    pair,
    panel,
    plain_numbers,
    score_label,
)

if TYPE_CHECKING:
    from harness.analysis.analyze import Analysis

TOO_MANY = "#E3E3E3"  # where a rule gives false alarms
MOST_TRACES = 300  # runs whose gradients are drawn, of each outcome,
MOST_PLACES = 100  # at about so many places each


@styled
def loss_vs_score(analysis: Analysis) -> Figure | None:
    """Final score against final training loss, a mark a run (Figure 8 of Mosbach et al. 2021).

    The losses are over the labels' entropy where that is known: at 1 nothing was learned. Runs that diverged have
    neither and are counted in the title.
    """
    study, fates = analysis.study, analysis.diagnosis.fates
    if fates.empty:
        return None
    table = analysis.runs.loc[fates.index].assign(loss=fates["loss"])
    relative = bool(table["loss"].notna().any())
    table["loss"] = table["loss"] if relative else pd.to_numeric(table["final_train_loss"])
    table["score"] = finite_scores(table)
    shown = table.dropna(subset=["loss", "score"])
    if shown.empty:
        return None
    axis = layout(study).hue or layout(study).x
    values = study.values(axis)[:MOST_VALUES] if axis else [None]
    floor = untrained_loss_name(study)
    verdicts = [verdict for verdict in ("failed", "near chance") if (shown["verdict"] == verdict).any()]
    handles = [
        legend_key(setting(axis, value) or "run", colour_of(i), marker=MARKERS[i]) for i, value in enumerate(values)
    ]
    handles += [mark_key(verdict) for verdict in verdicts]
    if verdicts:
        handles.append(legend_key("runs on one spot, spread out", FAILED, marker="$×n$", ms=9, mew=0))
    handles.append(legend_key(level_to_beat(study), INK, MAJORITY, lw=0.9))
    handles += [legend_key(f"half of the {floor}", FAINT, LINES[2], lw=0.9)] if relative else []
    left_out = len(table) - len(shown)
    what = "final score against training loss" + (f", {left_out} diverged left out" if left_out else "")
    figure = empty_figure(study, what, 2.9, handles)
    ax = panel(figure)
    many = len(shown) > MANY
    ranges = (float(shown["loss"].max()), float(np.ptp(shown["score"])) or 0.05)
    for i, value in enumerate(values):
        cells = [index for index, cell in enumerate(study.cells) if not axis or dict(cell.axes)[axis] == value]
        here = shown[shown["cell"].isin(cells) & ~shown["verdict"].isin(MARKS)]
        look: Any = {"marker": marker_of(i), "color": colour_of(i), "edgecolors": "white", "linewidths": 0.4}
        ax.scatter(here["loss"], here["score"], s=18, alpha=0.85, rasterized=many, **look)
    for verdict in verdicts:
        here, mark = shown[shown["verdict"] == verdict], MARKS[verdict]
        look = {"marker": mark.marker, "c": mark.face, "edgecolors": mark.edge, "linewidths": 0.6}
        x, y, piles = spread_out(here["loss"].to_numpy(dtype=float), here["score"].to_numpy(dtype=float), *ranges)
        ax.scatter(x, y, s=mark.size, rasterized=many, zorder=3, **look)
        for at_x, at_y, count in piles:
            where: Any = (at_x, at_y), (0, 9), "data", "offset points"
            ax.annotate(
                f"× {count}",
                *where,
                ha="center",
                fontsize=pt(SMALL),
                color=mark.edge if mark.face == "white" else FAILED,
            )
    for level in table["majority_score"].dropna().unique():
        ax.axhline(level, color=INK, linewidth=0.9, linestyle=MAJORITY, zorder=1.5)
    if relative:
        ax.axvline(0.5, color=FAINT, lw=0.9, ls=LINES[2], zorder=1.5)
    ax.set_xlim(left=0)
    if not np.ptp(shown["score"]):  # a heap of equal scores is not to look like a range of them
        ax.set_ylim(shown["score"].iloc[0] - 0.05, shown["score"].iloc[0] + 0.05)
    plain_numbers(ax.yaxis)
    ax.set_xlabel("training loss in the last epoch" + (f" / {floor}" if relative else ""))
    ax.set_ylabel(score_label(study, 2.5))
    return figure


def spread_out(
    x: np.ndarray, y: np.ndarray, width: float, height: float
) -> tuple[np.ndarray, np.ndarray, list[tuple[float, float, int]]]:
    """Marks that lie on one spot as a round heap about it, and the spots with three or more: (x, y, count).

    Failed runs answer alike, so that dozens of them would look like one. A spot is 2 % of the width and of the height.
    """
    x, y = x.copy(), y.copy()
    spots: dict[tuple[int, int], list[int]] = {}
    for index, at in enumerate(zip((x / (0.02 * width)).round(), (y / (0.02 * height)).round(), strict=True)):
        spots.setdefault((int(at[0]), int(at[1])), []).append(index)
    piles = []
    for members in (members for members in spots.values() if len(members) > 1):
        order = np.arange(len(members))
        radius = min(0.013, 0.06 / np.sqrt(len(members))) * np.sqrt(order)
        angle = order * 2.399963  # the golden angle, as seeds lie in a sunflower
        centre = (float(x[members].mean()), float(y[members].mean()))
        x[members] = centre[0] + width * radius * np.cos(angle)
        y[members] = centre[1] + 1.6 * height * radius * np.sin(angle)
        if len(members) > 2:
            piles.append((centre[0], float(y[members].max()), len(members)))
    return x, y, piles


def _parts_shown(layers: Sequence[str], parts: Sequence[str]) -> dict[str, str]:
    """The parts of a network that have a panel, with their titles: six of them, from the input up."""
    deep = list(dict.fromkeys([layers[0], layers[len(layers) // 2], layers[-1]])) if layers else []
    titles = {"embeddings": "embeddings"} | {name: f"layer {name} of {layers[-1]}" for name in deep}
    titles |= {"pooler": "pooler", "output": "output layer", "head": "head"}
    return {name: title for name, title in titles.items() if name in parts or name in deep}


@styled
def gradient_norms(analysis: Analysis) -> Figure | None:
    """Gradient norms of parts of the network against the step, lost runs against others (Figure 4, ibid.).

    Every run is a thin line, the medians of both kinds are bold, bands hold the middle half of the runs.
    """
    study, norms = analysis.study, analysis.diagnosis.norms
    if norms is None or not analysis.diagnosis.compared:
        return None
    chosen = np.isin(norms.rows, analysis.diagnosis.compared)
    lost = norms.lost
    titles = _parts_shown(norms.layers, norms.parts)
    both = (("others", HUES[0], LINES[0], chosen & ~lost), ("failed or near chance", FAILED, LINES[1], chosen & lost))
    kinds = [kind for kind in both if kind[3].any()]
    handles: list[Artist] = [
        legend_key(f"{name} (n = {which.sum():,}): median", colour, line, lw=1.6) for name, colour, line, which in kinds
    ]
    handles.append(Patch(facecolor="#999999", alpha=0.35, label="middle half of the runs"))
    of = ", cells with both outcomes" if len(study.cells) > 1 and analysis.diagnosis.both else ""
    of += f", {without} without finite ones left out" if (without := analysis.diagnosis.never_finite) else ""
    columns = columns_for(3, 1.7)
    rows = -(-len(titles) // columns)
    figure = empty_figure(study, f"gradient norms before clipping{of}", 0.4 + rows * 1.55, handles)
    grid = titled_panels(figure, list(titles.values()), columns)
    lengths = set(norms.steps[chosen].tolist())
    one = len(lengths) == 1
    x = np.arange(1, norms.norms.shape[1] + 1) / norms.norms.shape[1] * (lengths.pop() if one else 100)
    for ax, part in zip(grid, titles, strict=True):
        values = 10.0 ** norms.layer(part)
        for _, colour, line, which in kinds:
            every = -(-len(x) // MOST_PLACES)  # of thin lines, whose medians are drawn whole
            thin = [np.column_stack([x, run])[::every] for run in values[which][:MOST_TRACES]]
            style: Any = {"colors": [colour], "linewidths": 0.35, "alpha": 0.3, "zorder": 2}
            ax.add_collection(LineCollection(thin, rasterized=len(thin) * len(x) > MANY_POINTS // 8, **style))
            known = ~np.isnan(values[which]).all(axis=0)
            if not known.any():  # a part whose gradients are all zero
                continue
            low, middle, high = np.nanpercentile(values[which][:, known], [25, 50, 75], axis=0)
            ax.fill_between(x[known], low, high, color=colour, alpha=0.22, lw=0, zorder=2.5)
            ax.plot(x[known], middle, color=colour, ls=line, lw=1.6, zorder=3)
        ax.set_yscale("log")
        ax.autoscale_view()
        ax.yaxis.set_minor_locator(NullLocator())
        ax.set_xlim(0, x[-1])
    for number, ax in enumerate(grid):
        if number + columns >= len(grid):
            ax.set_xlabel("update" if one else "training done, %")
        if number % columns == 0:
            ax.set_ylabel("gradient norm")
    return figure


@styled
def step_size_factor(analysis: Analysis) -> Figure | None:
    """By how much a missing bias correction enlarges each update (Figure 6, ibid.), and the sizes that come of it.

    Left the factor (1 − β1^t) / √(1 − β2^t) for the β in use; right the effective size of each update in learning
    rates, schedule included, one line for each kind of recipe.
    """
    study, sizes = analysis.study, analysis.diagnosis.sizes
    recipes = [cell.recipe for sweep in study.sweeps for cell in sweep.cells if cell.script is None]
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
    handles = [legend_key(words, colour_of(i), LINES[i]) for i, (words, _) in enumerate(drawn)]
    figure = empty_figure(study, "update magnitude without bias correction", 2.3, handles, beside=2, least=2.0)
    left, right = pair(figure)
    for (beta1, beta2), factor in factors.items():
        x = np.arange(1, len(factor) + 1)
        top = int(np.argmax(factor))
        left.plot(x, factor, color=INK, lw=1.3)
        said = f"{factor[top]:.2f} × at update {top + 1}\n(β {beta1:g}, {beta2:g})"
        left.annotate(said, (x[top], factor[top]), (0, 3), textcoords="offset points", fontsize=pt(SMALL), ha="center")
    left.axhline(1, color=FAINT, lw=0.8, ls=MAJORITY)
    left.set_xscale("log")
    left.set_ylim(0, 1.25 * max(float(factor.max()) for factor in factors.values()))
    left.set(xlabel="update", ylabel="size without / with correction")
    for i, (_, size) in enumerate(drawn):
        right.plot(np.arange(1, len(size) + 1), size, color=colour_of(i), ls=LINES[i], lw=1.3)
    right.set_ylim(bottom=0)
    right.set_xlim(left=0)
    right.set(xlabel="update", ylabel="effective size / learning rate")
    for axis in (left.xaxis, left.yaxis, right.yaxis):
        plain_numbers(axis, log=axis is left.xaxis)
    return figure


@styled
def early_warning(analysis: Analysis) -> Figure | None:
    """How early simple signals tell lost runs: left the area under the ROC curve, right what a rule of each catches.

    Both by leave-one-cell-out. Right a row a signal: the darker, the more a rule at that share of training catches, and
    grey where it gives more than 1 % false alarms on the left-out cells.
    """
    study, table = analysis.study, analysis.diagnosis.early_warning
    if table.empty or table["auc"].isna().all():
        return None
    names = list(dict.fromkeys(table["signal"]))
    handles: list[Artist] = [legend_key(name, colour_of(i), LINES[i]) for i, name in enumerate(names)]
    handles.append(Patch(facecolor=TOO_MANY, label="no rule, or more than 1 % false alarms"))
    if analysis.diagnosis.rule is not None:
        handles.append(legend_key("first rule that meets the target", INK, MAJORITY, lw=0.9))
    what = "early warning of failed and near-chance runs"
    figure = empty_figure(study, what, 2.4, handles, beside=2, least=2.0)
    left, right = pair(figure)
    for i, name in enumerate(names):
        here = table[table["signal"] == name]
        x = 100 * here["share"].to_numpy()
        left.plot(x, here["auc"], lw=1.2, color=colour_of(i), ls=LINES[i])
        low, high = here["auc_low"].to_numpy(), here["auc_high"].to_numpy()
        left.fill_between(x, low, high, color=colour_of(i), alpha=0.1, lw=0)
    left.axhline(0.5, color=INK, lw=0.9, ls=MAJORITY)
    left.set(xlabel="training done, %", ylabel="area under the ROC curve", ylim=(0, 1.02), xlim=(0, 100))
    _caught(figure, right, table, names)
    if (rule := analysis.diagnosis.rule) is not None:
        right.axvline(100 * rule.rule.share, color=INK, lw=0.9, ls=MAJORITY)
    return figure


def _caught(figure: Figure, ax: Axes, table: pd.DataFrame, names: Sequence[str]) -> None:
    """What share of lost runs a rule on each signal catches without false alarms, by share of training."""
    shares = np.unique(table["share"])
    caught = np.full((len(names), len(shares)), np.nan)
    for row in table.itertuples():
        if row.false <= 0.01 * row.others and np.isfinite(row.caught):
            caught[names.index(row.signal), np.searchsorted(shares, row.share)] = 100 * row.caught / row.lost
    edges = 100 * np.concatenate([[0.0], shares])
    shades = LinearSegmentedColormap.from_list("caught", ["#FFFFFF", HUES[0]]).with_extremes(bad=TOO_MANY)
    mesh = ax.pcolormesh(
        edges,
        np.arange(len(names) + 1) - 0.5,
        np.ma.masked_invalid(caught),
        cmap=shades,
        vmin=0,
        vmax=100,
        rasterized=True,
    )
    ax.set_yticks(range(len(names)), [literal(cut(name, 8, 0.3 * current().width)) for name in names])
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(visible=False)
    ax.tick_params(axis="y", length=0)
    ax.set(xlabel="training done, %", xlim=(0, 100))
    bar = figure.colorbar(mesh, ax=ax, location="right", shrink=0.9, aspect=18, pad=0.02)
    bar.set_label("caught by a rule, %")
    bar.outline.set_visible(False)


def _log_scale(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Decimal logarithms of numbers, NaN where there is none, and the levels that they are drawn at."""
    known = np.isfinite(values) & (values > 0)
    logs = np.log10(np.where(known, values, np.nan), dtype=np.float64)
    low, high = (float(logs[known].min()), float(logs[known].max())) if known.any() else (0.0, 0.0)
    if high - low < 1e-6:  # all the same, or nothing known
        low, high = low - 0.5, high + 0.5
    return logs, np.linspace(low, high, 15)


@styled
def loss_surface(analysis: Analysis) -> Figure | None:
    """Training loss and gradient norm over the plane through the pretrained weights and two runs' (Figure 7, ibid.)."""
    study, surface = analysis.study, analysis.study.surface
    if surface is None or not set(surface.trials.tolist()) <= set(analysis.runs["trial"]):
        return None
    scales = [_log_scale(values) for values in (surface.loss, surface.gradient_norm)]
    verdicts = analysis.runs.set_index("trial")["verdict"].reindex(surface.trials.tolist()).fillna("ok").tolist()
    cell = analysis.runs.loc[analysis.runs["trial"] == str(surface.trials[0]), "cell"]
    handles: list[Artist] = [legend_key("pretrained", INK, marker="s", mfc="white", mec=INK)]
    for place, verdict in enumerate(verdicts):
        name = f"seed {analysis.runs.set_index('trial')['seed'].reindex([str(surface.trials[place])]).iloc[0]:.0f}"
        colour = FAILED if verdict in MARKS else HUES[0]
        handles.append(
            legend_key(f"{name}: {verdict}", colour, marker="X" if verdict in MARKS else "o", mec="white", ms=6)
        )
    where = f", {study.cells[int(cell.iloc[0])].label}" if len(cell) and len(study.cells) > 1 else ""
    figure = empty_figure(
        study, f"loss surface of {int(surface.examples)} training examples{where}", 2.7, handles, beside=2, least=2.0
    )
    for ax, (logs, levels), name in zip(
        pair(figure, sharey=True), scales, ("training loss", "gradient norm"), strict=True
    ):
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
