"""Figures of looking for a recipe: those of a search, and of a learning-rate range test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from harness.common.text import Scalar, show
from harness.config.search_space import Range, Search
from harness.records.study import Study, StudyCell
from harness.report.figures.layout import (
    jitter,
    panel_height,
    titled_panels,
)
from harness.report.figures.lettering import (
    fit,
    pt,
    spaced,
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
    MANY,
    SMALL,
    empty_figure,
    legend_key,
    outer_label,
    pair,
    panel,
    score_label,
    share_bars,
)

_FAILING_RECIPE = "a run of it failed"


# ------------------------------------------------------------------------------------------------------------- a search


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


def _recipe_keys() -> list[Line2D]:
    return [
        legend_key("recipe, no seen run failed", HUES[0], marker="o"),
        legend_key(_FAILING_RECIPE, FAILED, marker="X", mec="white"),
    ]


def _recipes(ax: Axes, x: np.ndarray, known: pd.DataFrame, column: str = "value") -> None:
    """Recipes as marks, those with a failed run as crosses."""
    y, failing = known[column].to_numpy(dtype=float), (known["failed"] > 0).to_numpy()
    ax.scatter(x[~failing], y[~failing], s=18, color=HUES[0], edgecolors="white", linewidths=0.4, zorder=3)
    ax.scatter(x[failing], y[failing], s=30, marker="X", color=FAILED, edgecolors="white", linewidths=0.5, zorder=3)


@styled
def search_history(study: Study, ranked: pd.DataFrame, scores: Sequence[np.ndarray]) -> Figure:
    """Each recipe and its seeds in the order of the search, the best so far, and what fresh seeds said."""
    ordered = ranked.sort_values("asked")
    known = ordered[ordered["value"].notna()]
    handles: list[Artist] = [
        *_recipe_keys(),
        legend_key("single seed", FAINT, marker="."),
        legend_key("best so far", INK, LINES[0]),
    ]
    confirmed = ordered[ordered["fresh"].notna()]
    if len(confirmed):
        handles.append(legend_key("the same recipe on fresh seeds, 95 %", HUES[1], marker="D", mfc="none"))
    figure = empty_figure(study, "the recipes in the order of the search", 2.6, handles)
    ax = panel(figure)
    for asked, cell in zip(ordered["asked"], ordered["cell"], strict=True):
        ax.scatter(
            np.full(len(scores[cell]), asked), scores[cell], s=7, marker=".", color=FAINT, linewidths=0, zorder=2
        )
    _recipes(ax, known["asked"].to_numpy(dtype=float), known)
    best = known["value"].cummax() if study.higher_is_better else known["value"].cummin()
    ax.step(known["asked"], best, where="post", color=INK, linewidth=1.0, zorder=1.5)
    places = confirmed["asked"].to_numpy(dtype=float) + 0.25
    ax.vlines(places, confirmed["fresh_low"], confirmed["fresh_high"], color=HUES[1], linewidth=1.1, zorder=4)
    ax.scatter(places, confirmed["fresh"], s=26, marker="D", facecolors="none", edgecolors=HUES[1], zorder=5)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="recipe, in the order tried", ylabel=score_label(study))
    return figure


def _along(known: pd.DataFrame, one: Range) -> tuple[np.ndarray, list[Scalar]]:
    """Where recipes stand on a field: numbers as they are; of choices their places, and what is written there."""
    if not one.choices:
        return known[one.field].to_numpy(dtype=float), []
    values = list(dict.fromkeys([*one.choices, *known[one.field]]))
    return np.array([values.index(value) for value in known[one.field]], dtype=float), values


@styled
def search_slices(study: Study, known: pd.DataFrame, search: Search) -> Figure:
    """The objective of every recipe against each searched field by itself."""
    rows = -(-len(search.space) // 2)
    figure = empty_figure(
        study, "the objective along each searched field", 0.3 + rows * panel_height(rows, 1.2, 1.8), _recipe_keys()
    )
    grid = titled_panels(figure, [spaced(one.field) for one in search.space], 2)
    for ax, one in zip(grid, search.space, strict=True):
        x, choices = _along(known, one)
        _recipes(ax, x + (jitter(len(x), 0.3) if choices else 0.0), known)
        if choices:
            ax.set_xticks(range(len(choices)), [fit(show(value), 8, 0.9) for value in choices])
            ax.set_xlim(-0.5, len(choices) - 0.5)
        elif one.log:
            ax.set_xscale("log")
        else:
            ax.xaxis.set_major_locator(MaxNLocator(5, integer=isinstance(one.low, int)))
    outer_label(figure, grid, "objective")
    return figure


@styled
def search_parallel(study: Study, known: pd.DataFrame, search: Search) -> Figure:
    """Every recipe as a line over the searched fields and its objective; the best quarter is drawn strong."""
    best = max(1, len(known) // 4)
    handles: list[Artist] = [
        legend_key(f"best {best}", HUES[0], LINES[0], lw=1.6),
        legend_key("others", "#B8B8B8", LINES[0]),
        legend_key(_FAILING_RECIPE, FAILED, LINES[1]),
    ]
    figure = empty_figure(study, "recipes across the space", 2.8, handles)
    ax = panel(figure)
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
    names = [*(spaced(one.field) for one in search.space), "objective"]
    room = (current().width - 0.4) / len(names)
    ax.set_xticks(range(len(names)), [fit(name, 8, room) for name in names])
    ax.set_yticks([])
    for place, (low_text, high_text) in enumerate(ends):
        for height, text, align in ((0, low_text, "top"), (1, high_text, "bottom")):
            where: Any = (place, height), (0, 3 if height else -3), "data", "offset points"
            ax.annotate(fit(text, SMALL, room), *where, ha="center", va=align, fontsize=pt(SMALL), color=FAINT)
    ax.set_ylim(-0.14, 1.14)
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", visible=True)
    return figure


@styled
def search_front(study: Study, known: pd.DataFrame) -> Figure:
    """The objective against the share of failed runs, and the recipes that no other beats in both."""
    front = known[known["front"]].assign(rate=known["failed"] / known["finished"]).sort_values("rate")
    handles: list[Artist] = [*_recipe_keys(), legend_key("not beaten in both", INK, LINES[0], marker="o", mfc="none")]
    figure = empty_figure(study, "score vs. failure rate", 2.5, handles)
    ax = panel(figure)
    rates = (known["failed"] / known["finished"]).to_numpy(dtype=float)
    _recipes(ax, 100 * rates, known)
    ax.plot(100 * front["rate"], front["value"], color=INK, lw=0.9, marker="o", ms=7, mfc="none", zorder=2)
    ax.set(xlabel="failed runs (%)", ylabel="objective")
    ax.set_xlim(-4, max(10.0, 100 * float(rates.max())) + 4)
    return figure


@styled
def search_importance(study: Study, shares: pd.DataFrame) -> Figure:
    """How much each searched field moves the objective and the failing by itself, by functional ANOVA."""
    rows = max(3, len(shares))
    figure = empty_figure(study, "importance for the objective and the failure rate", 0.7 + 0.21 * rows)
    nothing, notes = pd.Series(np.nan, index=shares.index), pd.Series("not known", index=shares.index)
    for ax, column, title in zip(pair(figure), ("value", "failed"), ("objective", "failed runs"), strict=True):
        ax.set_title(title)
        share_bars(ax, list(shares["field"]), shares[column], nothing, notes, rows, wide=1.3)
        ax.set_xlabel("share of the variance (fANOVA)")
    return figure


# ------------------------------------------------------------------------------------------------- learning-rate finder


@styled
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
        legend_key("smoothed loss of a seed", HUES[0], LINES[0]),
        legend_key("single steps", "#C8C8C8", marker="."),
    ]
    for place, rule in enumerate(suggested):
        handles.append(legend_key(f"{names[rule]}, range over seeds", HUES[1 + place], LINES[1 + place]))
    if tested:
        handles.append(legend_key("failed of finished runs at a tested rate", FAILED, marker="X", mec="white"))
    study = Study(title, title, (StudyCell(()),), pd.DataFrame(), stand_in=stand_in)
    figure = empty_figure(study, "learning-rate range test", 2.6, handles)
    ax = panel(figure)
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
        ax.annotate(f"{failed}/{finished}", *where, ha="center", fontsize=pt(SMALL), color=FAILED if failed else FAINT)
    ax.set_xscale("log")
    ax.set(xlabel="learning rate", ylabel="training loss")
    return figure
