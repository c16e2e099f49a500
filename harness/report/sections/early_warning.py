"""How early can a failure be detected?"""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.analysis.analyze import Analysis
from harness.analysis.diagnosis import LOST
from harness.analysis.early_warning import CAUGHT, FALSE_ALARMS, Kept
from harness.common.text import count_noun
from harness.report.formatting import integer, percent, points, rate, unknown
from harness.report.section import FigureSpec, Section
from harness.report.table import Column, TableSpec, k_of_n, number, with_interval

_WELL = 0.9  # of pairs in the right order
_WITHIN_CELLS = 0.7  # of them, from which on a signal tells runs of one recipe apart


def sentences(analysis: Analysis) -> list[str]:
    """The first rule that detects runs that end failed or near chance, what it would have saved and changed."""
    diagnosis = analysis.diagnosis
    if diagnosis.early_warning.empty:
        return [] if not diagnosis.recorded else [_why_not(analysis)]
    rule, measured = diagnosis.rule, diagnosis.early_warning
    aim = (
        f"{percent(CAUGHT)} of the runs that fail or end near chance with at most {percent(FALSE_ALARMS)} false alarms"
    )
    if rule is None:
        none = f"No rule on one signal detects at least {aim}, on cells it was not fitted to, before the end."
        return [none, *_within_recipes(measured)]
    return [_rule(rule, aim, measured), _stopping(analysis), *_within_recipes(measured)]


def _rule(kept: Kept, aim: str, measured: pd.DataFrame) -> str:
    direction = "above" if kept.rule.sign > 0 else "below"
    same = (measured["share"] == kept.rule.share) & (measured["signal"] == kept.rule.signal)
    return (
        f"The first rule that detects at least {aim}, on cells it was not fitted to: {kept.rule.signal} {direction} "
        f"{kept.rule.threshold:.3g} at {percent(kept.rule.share, 1)} of a run. It caught "
        f"{_share(kept.caught, kept.lost)} of those runs, with {_share(kept.false, kept.others)} false alarms; "
        f"as the first of many rules tried on these runs, it will do a little worse on others. "
        f"{_within_cells(measured[same]['within'].iloc[0])}"
    )


def _within_cells(share: float) -> str:
    if unknown(share):
        return "How well it separates runs within a cell is unknown, as no cell has both outcomes."
    end = "." if share >= _WITHIN_CELLS else ": it separates recipes more than runs of one recipe."
    return f"The signal orders {percent(share)} of pairs of runs within a cell correctly{end}"


def _stopping(analysis: Analysis) -> str:
    """What stopping by the rule would have saved, and changed."""
    table = analysis.diagnosis.stopping
    runs = analysis.runs[(analysis.runs["status"] == "finished")]
    seconds = pd.to_numeric(runs["lane_seconds"]).astype(float)
    of_cell = seconds.groupby(runs["cell"]).sum()
    saved = float((table["saved"] * table["cell"].map(of_cell)).sum() / seconds.sum()) if seconds.sum() else np.nan
    changed = table[table["failed_after"] != table["failed"]]
    changes = f"the number of failed runs would change in {count_noun(len(changed), 'cell')}" if len(changed) else ""
    shift = (table["mean_after"] - table["mean"]).dropna()
    effect = (
        f"the mean score of the remaining runs would be at most {points(float(shift.max()))} above that of all runs"
        if len(shift) and shift.max() > 0
        else ""
    )
    consequences = "; ".join(part for part in (changes, effect) if part) or "no cell's numbers would change"
    stopped, wrongly = int(table["stopped"].sum()), int(table["wrongly"].sum())
    return (
        f"Stopping by this rule would have ended {count_noun(stopped, 'run')} ({wrongly} wrongly) and saved "
        f"{percent(saved)} of the training time; {consequences}. A study's own runs are never stopped by it."
    )


def _share(k: int, n: int) -> str:
    """`19 of 48 (40 % [27, 54])`."""
    return f"{k} of {n} ({rate(k, n)})"


def _within_recipes(measured: pd.DataFrame) -> list[str]:
    """From when on a signal tells runs of one recipe apart, to the end."""
    since: dict[str, float] = {}
    for name, of_signal in measured.groupby("signal", sort=False):
        poor = np.flatnonzero(~(of_signal["within"] >= _WELL).to_numpy())
        position = int(poor[-1]) + 1 if len(poor) else 0
        if position < len(of_signal) - 1:
            since[str(name)] = float(of_signal["share"].iloc[position])
    if not since:
        return []
    first = min(since, key=lambda name: since[name])
    return [
        f"Among runs of one recipe the earliest signal is the {first}: from {percent(since[first], 1)} of training "
        f"on it orders at least {percent(_WELL)} of pairs correctly."
    ]


def _why_not(analysis: Analysis) -> str:
    lost = analysis.runs["verdict"].isin(LOST)
    if not lost.any():
        return "All runs learned, so there is nothing to warn of."
    if not (analysis.runs["verdict"] == "ok").any():
        return "No run learned, so there is nothing to compare."
    return "Early warning is evaluated on held-out cells and needs at least two cells."


# --------------------------------------------------------------------------------------------------------------- tables


def _of_signals(analysis: Analysis) -> list[Column]:
    return [
        ("training done", number("share", lambda value: percent(value, 1))),
        ("AUC [95 %]", with_interval("auc")),
        ("AUC within cells", number("within")),
        ("caught", k_of_n("caught", "lost")),
        ("false alarms", k_of_n("false", "others")),
    ]


def _of_stopping(analysis: Analysis) -> list[Column]:
    return [
        ("runs", number("runs", integer)),
        ("stopped", number("stopped", integer)),
        ("wrongly", number("wrongly", integer)),
        ("failed", number("failed", integer)),
        ("failed or stopped", number("failed_after", integer)),
        ("mean", number("mean")),
        ("mean of the rest", number("mean_after")),
        ("time saved", number("saved", percent)),
    ]


SECTION = Section(
    anchor="early",
    heading="Early warning",
    question="How early can a failure be detected, and what would stopping the run change?",
    sentences=sentences,
    figure=FigureSpec(
        "diagnosis.early_warning",
        "Left how well a signal separates runs that fail or end near chance from others: 1 perfectly, 0.5 not at all; "
        "bands are 95 % intervals over cells. Right what a rule on it catches; dots where it gave at most 1 % false "
        "alarms. All on held-out cells; the dashed line is the first rule that meets the target.",
    ),
    tables=(
        TableSpec("stopping", "Effect of stopping runs by the rule", _of_stopping),
        TableSpec(
            "early_warning",
            "How well each signal detects runs that fail or end near chance, by share of training (leave-one-cell-out)",
            _of_signals,
            lambda analysis: [("signal", lambda row: row["signal"])],
            folded=True,
        ),
    ),
    glossary=(
        (
            "AUC",
            "Area under the ROC curve: of the pairs of a run that failed or ended near chance and another run, the "
            "share "
            "that a signal orders correctly. The direction is learned from cells that neither of the two belongs to.",
        ),
    ),
)
