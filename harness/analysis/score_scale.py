"""The scale of a study's scores: where intervals of them end, and whether a script's threshold is on it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from harness.common import metrics as metric_names
from harness.common.memo import once_per_object
from harness.common.text import count_noun, show
from harness.records.study import Study, numbers

_PERCENT = 100.0


@once_per_object
def ends_of_scale(study: Study) -> tuple[float, float]:
    """The lowest and the highest possible score; infinite where not known, or where scores lie beyond them.

    Shares may be percentages.
    """
    metrics = {str(name) for name in study.runs["metric"].dropna().unique()}
    scores = numbers(study.runs, "final_score").dropna()
    if len(metrics) != 1 or scores.empty:
        return -math.inf, math.inf
    low, high = metric_names.scale(metrics.pop())
    for times in (1.0, _PERCENT):
        if low * times <= scores.min() and scores.max() <= high * times:
            return low * times, high * times
    return -math.inf, math.inf


def cut_to_scale(
    study: Study, table: pd.DataFrame, scores: Sequence[str] = (), differences: Sequence[str] = ()
) -> pd.DataFrame:
    """The table with intervals that end where the scale of the scores does, which costs them no coverage.

    Args:
        table: Has a column for each estimate's value, and `_low` and `_high` of it.
        scores: The columns of scores; `differences`: of their differences, which lie within the length of the scale.
    """
    low, high = ends_of_scale(study)
    for columns, ends in ((scores, (low, high)), (differences, (low - high, high - low))):
        for name in (f"{column}_{end}" for column in columns for end in ("low", "high")):
            values = table[name].to_numpy(dtype=float) if name in table else np.zeros(0)
            if ((values < ends[0]) | (values > ends[1])).any():
                table[name] = np.clip(values, *ends)
    return table


def other_scales(study: Study) -> tuple[str, ...]:
    """A sentence where scores look like percentages and the threshold like a fraction, or the other way round.

    Then no run can fail, or every one must. Losses and other scores that are better lower have no such scale.
    """
    if not study.higher_is_better:
        return ()
    scripts = {cell.script.script for sweep in study.sweeps for cell in sweep.cells if cell.script is not None}
    levels = {("majority" if script.majority is not None else "failed_below", script.threshold) for script in scripts}
    scores = numbers(study.runs[study.runs["status"] == "finished"], "final_score").dropna()
    if len(levels) != 1 or scores.empty:
        return ()
    (key, level), low, high = levels.pop(), float(scores.min()), float(scores.max())
    if level is None or level <= 0:
        return ()
    between = f"{show(round(low, 4))}" + (f" to {show(round(high, 4))}" if high > low else "")
    if level < 1 < low and high <= _PERCENT:
        return (
            f"Warning: the scores ({between}) look like percentages, but {key} is {show(level)}: no run can fail. "
            f"Write {key}: {show(round(_PERCENT * level, 6))} and train again in another --results folder, or have the "
            "script write fractions.",
        )
    if 1 < level <= _PERCENT and low >= 0 and high <= 1:
        return (
            f"Warning: {key} is {show(level)} and looks like a percentage, but the scores ({between}) are fractions: "
            f"every run counts as failed. Write {key}: {show(round(level / _PERCENT, 6))} and train again in another "
            "--results folder.",
        )
    return ()


def mixed_scales(study: Study) -> tuple[str, ...]:
    """A sentence where the scores of some cells look like fractions and those of others like percentages."""
    if not study.higher_is_better:
        return ()
    runs = study.runs[study.runs["status"] == "finished"]
    ends = numbers(runs, "final_score").groupby(runs["cell"]).agg(["min", "max"]).dropna()
    fractions = ends[(ends["min"] >= 0) & (ends["max"] <= 1)]
    percentages = ends[(ends["min"] > 1) & (ends["max"] <= _PERCENT)]
    if fractions.empty or percentages.empty or len(fractions) + len(percentages) < len(ends):
        return ()
    low, high = (study.cells[int(of.index[0])].label for of in (fractions, percentages))
    a, b = (show(round(float(of["max"].iloc[0]), 4)) for of in (fractions, percentages))
    return (
        f"Warning: scores look like fractions in some settings ({low}: up to {a}) and like percentages in others "
        f"({high}: up to {b}). Then no comparison of scores on this page means anything. Have all runs write the same.",
    )


def edited_thresholds(study: Study) -> tuple[str, ...]:
    """A sentence where a sweep file was given another threshold than its runs were judged by."""
    if len(study.sweeps) != 1 or not study.sweeps[0].is_script:
        return ()
    runs = study.runs[study.runs["status"] == "finished"]
    others: list[float] = []
    now: float | None = None
    for index, cell in enumerate(study.sweeps[0].cells):
        assert cell.script is not None
        level = cell.script.script.threshold
        levels = numbers(runs[runs["cell"] == index], "majority_score")
        differ = levels[levels.notna()] if level is None else levels[levels.isna() | (levels != level)]
        if len(differ):
            others, now = others + differ.tolist(), level
    if not others:
        return ()
    then = next((show(value) for value in others if not math.isnan(value)), "none")
    beside = "" if now is None else f", or count by {show(now)} in a column beside: --threshold {show(now)}"
    verb = "was" if len(others) == 1 else "were"
    return (
        f"Warning: the sweep file's threshold was edited: {count_noun(len(others), 'run')} {verb} judged by {then}, "
        f"it now says {'none' if now is None else show(now)}. What is recorded as failed stays. "
        f"Train again in another --results folder{beside}.",
    )
