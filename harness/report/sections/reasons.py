"""Why do runs fail?"""

from __future__ import annotations

from collections.abc import Callable

from harness.analysis.analyze import Analysis
from harness.analysis.diagnosis import VANISHED
from harness.analysis.verdicts import level_to_beat, of_scripts, untrained_loss_name
from harness.common.text import count_noun
from harness.report.claims import Sentence, Summary, Words
from harness.report.formatting import Row, integer, percent
from harness.report.section import FigureSpec, Section
from harness.report.table import Column, TableSpec, number

_LACKING = "was not recorded (a sweep records unless it says `record: off`; results are bit-identical either way)"
_NOT_OURS = "is not recorded of other training code"
_KINDS = {
    "not_optimised": "did not fit the training data (loss in the last epoch above half of the {floor}: "
    "optimisation failed)",
    "not_generalised": "fitted the training data but was no better than the {level} on the dev set "
    "(generalisation failed)",
    "diverged": "diverged",
    "not_told": "for an unknown reason, as the {floor} is unknown",
}


def sentences(analysis: Analysis) -> list[str]:
    """What became of the failed runs: not optimised, not generalised, diverged; and whether gradients vanished."""
    diagnosis, words = analysis.diagnosis, Words("kinds")
    kinds = diagnosis.kinds.drop(columns="cell").sum()
    failed = int(kinds[list(_KINDS)].sum())
    if not diagnosis.finished:
        return []
    if not failed:
        near, chance = int(kinds["near_chance"]), ""
        if near:
            runs = words.summary("sum", near, "near_chance", form=lambda n: count_noun(n, "run"))
            chance = f"; {runs} {'is' if near == 1 else 'are'} near chance"
        return [words.sentence(f"No run failed, so there is nothing to explain{chance}.")]
    level, floor = level_to_beat(analysis.study).removesuffix(" class"), untrained_loss_name(analysis.study)
    parts = [
        f"{words.summary('sum', int(kinds[name]), name)} {meaning.format(level=level, floor=floor)}"
        for name, meaning in _KINDS.items()
        if kinds[name]
    ]
    lost = words.count(failed, "status == 'finished' and outcome == 'failed'", table="runs")
    of = words.summary("sum", diagnosis.finished, "finished", form=lambda n: count_noun(n, "finished run"))
    return [words.sentence(f"{lost} of {of} failed: {'; '.join(parts)}."), *_vanishing(analysis)]


def _vanishing(analysis: Analysis) -> list[Sentence]:
    """Whether the gradients of the failed runs vanished, when and in which layers."""
    diagnosis, words = analysis.diagnosis, Words("kinds")
    kinds = diagnosis.kinds.drop(columns="cell").sum()
    recorded, vanished = int(kinds["failed_recorded"]), int(kinds["vanished"])
    if not recorded:
        lacking = _NOT_OURS if of_scripts(analysis.study) else _LACKING
        return [Sentence(f"How the failed runs trained {lacking}.")]
    if diagnosis.norms is None:
        return [Sentence(f"{_never_finite(diagnosis.never_finite)}.")]
    if not (analysis.runs["verdict"] == "ok").any():
        return [Sentence("No run learned, so there is no reference for the failed runs' gradients.")]
    measure = (
        f"the gradient norm of at least half of the {len(diagnosis.norms.layers)} layers fell below "
        f"{percent(VANISHED)} of the median of runs that learn and stayed there to the end"
    )
    without = f" {_never_finite(diagnosis.never_finite)}." if diagnosis.never_finite else ""
    runs = words.summary("sum", recorded, "failed_recorded", form=lambda n: count_noun(n, "recorded failed run"))
    if not vanished:
        return [words.sentence(f"Vanishing gradients: in none of {runs} ({measure}).{without}")]
    gone = words.summary("sum", vanished, "vanished")
    return [
        words.sentence(
            f"Vanishing gradients: in {gone} of {runs} {measure}; {_when_vanished(analysis, words)}.{without}"
        )
    ]


def _when_vanished(analysis: Analysis, words: Words) -> str:
    fates = analysis.diagnosis.fates
    gone = fates[fates["vanished"].notna() & ~fates["kind"].isin(["ok", "near chance"])]
    which = "vanished == vanished and kind not in ('ok', 'near chance')"

    def update(kind: Summary, value: float) -> str:
        return words.summary(kind, value, "vanished", which, "{:.0f}".format, "fates")

    at = gone["vanished"].astype(float)
    when = f"by update {update('median', at.median())}"
    if len(at) > 1:
        when += f" in the median ({update('min', at.min())} to {update('max', at.max())})"
    layers = words.summary(
        "median", gone["vanished_layers"].median(), "vanished_layers", which, "{:.0f}".format, "fates"
    )
    return f"{when}, in {layers} layers in the median"


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
            "Of failed runs: a training loss in the last epoch above half of that of what knows no more than how "
            "frequent the answers are (the label entropy; of a regression the label variance, of answers in a context "
            "the entropy of a guessed place) means that the training data were not fitted; below it they were, but the "
            "run is no better on the dev set than what it must beat.",
        ),
    ),
)
