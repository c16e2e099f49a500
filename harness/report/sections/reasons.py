"""Why do runs fail?"""

from __future__ import annotations

from collections.abc import Callable

from harness.analysis.analyze import Analysis
from harness.analysis.diagnosis import VANISHED
from harness.common.text import count_noun
from harness.report.formatting import Row, integer, percent
from harness.report.section import FigureSpec, Section
from harness.report.table import Column, TableSpec, number

_LACKING = "was not recorded (a sweep records unless it says `record: off`; results are bit-identical either way)"
_KINDS = {
    "not_optimised": "did not fit the training data (loss in the last epoch above half of the label entropy: "
    "optimisation failed)",
    "not_generalised": "fitted the training data but was no better than the majority on the dev set "
    "(generalisation failed)",
    "diverged": "diverged",
    "not_told": "for an unknown reason, as the label entropy is unknown",
}


def sentences(analysis: Analysis) -> list[str]:
    """What became of the failed runs: not optimised, not generalised, diverged; and whether gradients vanished."""
    diagnosis = analysis.diagnosis
    kinds = diagnosis.kinds.drop(columns="cell").sum()
    failed = int(kinds[list(_KINDS)].sum())
    if not diagnosis.finished:
        return []
    if not failed:
        near = int(kinds["near_chance"])
        chance = f"; {count_noun(near, 'run')} {'is' if near == 1 else 'are'} near chance" if near else ""
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
        return ["No run learned, so there is no reference for the failed runs' gradients."]
    measure = (
        f"the gradient norm of at least half of the {len(diagnosis.norms.layers)} layers fell below "
        f"{percent(VANISHED)} of the median of runs that learn and stayed there to the end"
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
    gone = fates[fates["vanished"].notna() & ~fates["kind"].isin(["ok", "near chance"])]
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
        ("near chance", _count("near_chance")),
        ("failed: not optimised", _count("not_optimised")),
        ("failed: not generalised", _count("not_generalised")),
        ("diverged", _count("diverged")),
        ("failed: reason unknown", _count("not_told")),
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
        "One mark per run. Right of the dotted line the training data were not fitted: optimisation failed. A failed "
        "run left of it fitted them but does not generalise. Successful runs at different heights left of it "
        "generalise differently well.",
    ),
    tables=(TableSpec("kinds", "Outcomes of the runs", _columns),),
    glossary=(
        (
            "not optimised, not generalised",
            "Of failed runs: a training loss in the last epoch above half of the label entropy means that the training "
            "data were not fitted; below it they were, but the run is no better than the majority on the dev set.",
        ),
    ),
)
