"""Whether a script's scores are on the scale of its threshold: percentages beside a fraction decide nothing."""

from __future__ import annotations

from harness.common.text import show
from harness.records.study import Study, numbers

_PERCENT = 100.0


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
            f"Write {key}: {show(round(_PERCENT * level, 6))}, or have the script write fractions.",
        )
    if 1 < level <= _PERCENT and low >= 0 and high <= 1:
        return (
            f"Warning: {key} is {show(level)} and looks like a percentage, but the scores ({between}) are fractions: "
            f"every run counts as failed. Write {key}: {show(round(level / _PERCENT, 6))}.",
        )
    return ()
