"""Why do runs fail?"""

from __future__ import annotations

from collections.abc import Callable

from harness.analysis.analyze import Analysis
from harness.analysis.diagnosis import VANISHED
from harness.common.text import count_noun
from harness.report.formatting import Row, integer, percent
from harness.report.section import FigureSpec, Section
from harness.report.table import Column, TableSpec, number

_LACKING = "was not recorded (a sweep records unless it says `record: off`; results are the same to the bit)"
_KINDS = {
    "not_optimised": "without having fitted the training data (loss in the last epoch above half of the labels' "
    "entropy: optimisation failed)",
    "not_generalised": "with the training data fitted, and no better than the majority on the dev set "
    "(generalisation failed)",
    "diverged": "diverged",
    "not_told": "without it being known which, for the entropy of the labels is not",
}


def sentences(analysis: Analysis) -> list[str]:
    """What became of the failed runs: not optimised, not generalised, diverged; and whether gradients vanished."""
    diagnosis = analysis.diagnosis
    kinds = diagnosis.kinds.drop(columns="cell").sum()
    failed = int(kinds[list(_KINDS)].sum())
    if not diagnosis.finished:
        return []
    if not failed:
        chance = f"; {count_noun(int(kinds['at_chance']), 'run')} ended at chance" if kinds["at_chance"] else ""
        return [f"No run failed, so there is nothing to explain{chance}."]
    parts = [f"{int(kinds[name])} {words}" for name, words in _KINDS.items() if kinds[name]]
    return [
        f"{failed} of {count_noun(diagnosis.finished, 'finished run')} failed: {'; '.join(parts)}.",
        *_vanishing(analysis),
    ]


def _vanishing(analysis: Analysis) -> list[str]:
    """Whether the gradients of the failed runs vanished, when and in which layers."""
    diagnosis = analysis.diagnosis
    kinds = diagnosis.kinds.drop(columns="cell").sum()
    recorded, vanished = int(kinds["failed_recorded"]), int(kinds["vanished"])
    if not recorded:
        return [f"How the failed runs trained {_LACKING}."]
    if diagnosis.norms is None:
        return [f"{_never_finite(diagnosis.never_finite)}."]
    if not (analysis.runs["verdict"] == "ok").any():
        return ["No run learned, so that there is nothing to hold the failed runs' gradients against."]
    measure = (
        f"the gradient norm of at least half of the {len(diagnosis.norms.layers)} layers fell below "
        f"{percent(VANISHED)} of the median of runs that learn, and stayed there to the end"
    )
    without = f" {_never_finite(diagnosis.never_finite)}." if diagnosis.never_finite else ""
    if not vanished:
        return [f"Vanishing gradients: in none of {count_noun(recorded, 'recorded failed run')} ({measure}).{without}"]
    return [
        f"Vanishing gradients: in {vanished} of {count_noun(recorded, 'recorded failed run')} {measure}; "
        f"{_when_vanished(analysis)}.{without}"
    ]


def _when_vanished(analysis: Analysis) -> str:
    fates = analysis.diagnosis.fates
    gone = fates[fates["vanished"].notna() & ~fates["kind"].isin(["ok", "at chance"])]
    at, layers = gone["vanished"].astype(float), gone["vanished_layers"].median()
    median = f"by update {at.median():.0f}"
    when = median if len(at) == 1 else f"{median} in the median ({at.min():.0f} to {at.max():.0f})"
    return f"{when}, in {layers:.0f} layers in the median"


def _never_finite(runs: int) -> str:
    return f"{count_noun(runs, 'recorded run')} had no finite gradient from 1 % of training on"


# --------------------------------------------------------------------------------------------------------------- tables


def _count(name: str) -> Callable[[Row], str]:
    return lambda row: integer(row[name]) if row[name] else "–"


def _columns(analysis: Analysis) -> list[Column]:
    return [
        ("finished", number("finished", integer)),
        ("learned", number("ok", integer)),
        ("at chance", _count("at_chance")),
        ("failed: not optimised", _count("not_optimised")),
        ("failed: not generalised", _count("not_generalised")),
        ("diverged", _count("diverged")),
        ("failed: not told", _count("not_told")),
        ("gradients vanished", _vanished),
    ]


def _vanished(row: Row) -> str:
    return f"{row['vanished']} of {row['failed_recorded']}" if row["failed_recorded"] else "–"


SECTION = Section(
    anchor="why",
    heading="Why runs fail",
    question="Did failed runs not fit the training data, or fit it and not generalise?",
    sentences=sentences,
    figure=FigureSpec(
        "diagnosis.loss_vs_score",
        "One mark a run. Right of the dotted line the training data were not fitted: optimisation failed. A failed run "
        "left of it fitted them and does not generalise. Runs that learned and lie at different heights left of it "
        "differ in how they generalise.",
    ),
    tables=(TableSpec("kinds", "What became of the runs", _columns),),
    glossary=(
        (
            "not optimised, not generalised",
            "Of failed runs: with a training loss in the last epoch above half of the labels' entropy the training "
            "data were not fitted; below it they were, and the run is no better than the majority on the dev set.",
        ),
    ),
)
