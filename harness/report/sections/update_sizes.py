"""How large are the updates, with and without bias correction?"""

from __future__ import annotations

from harness.analysis.analyze import Analysis
from harness.common.text import show
from harness.report.claims import Sentence, Words, row_at
from harness.report.formatting import integer, percent
from harness.report.section import FigureSpec, Section
from harness.report.table import Column, TableSpec, number


def sentences(analysis: Analysis) -> list[Sentence]:
    """How large the largest effective update is, with and without bias correction."""
    table, words, key = analysis.diagnosis.step_sizes, Words("step_sizes"), ["cell"]
    without, having = table[~table["correction"].astype(bool)], table[table["correction"].astype(bool)]
    if without.empty:
        return []
    top = row_at(without, without["largest"].idxmax())
    text = (
        f"without bias correction the largest effective update is {words.value(top, key, 'largest', _times)} times the "
        f"nominal learning rate, at update {words.value(top, key, 'at', str)} of "
        f"{words.value(top, key, 'updates', str)}"
    )
    if len(having):
        text += (
            f"; with it, {words.summary('max', float(having['largest'].max()), 'largest', 'correction', _times)} times"
        )
    return [words.sentence(f"{text}.")]


def _times(value: float) -> str:
    return f"{value:.2f}"


def _columns(analysis: Analysis) -> list[Column]:
    return [
        ("updates", number("updates", integer)),
        ("largest, × learning rate", number("largest", _times)),
        ("at update", number("at", integer)),
        ("largest, absolute", number("largest_rate", lambda value: show(float(f"{value:.3g}")))),
        ("clipped updates", number("clipped", percent)),
    ]


SECTION = Section(
    anchor="updates",
    heading="Update magnitudes",
    question="How large are the updates, with and without bias correction?",
    sentences=sentences,
    figure=FigureSpec(
        "diagnosis.step_size_factor",
        "Left how much larger Adam's update is without bias correction; right the effective update "
        "under the schedule, in learning rates: a line above 1 is an update larger than the nominal learning rate.",
    ),
    tables=(
        TableSpec(
            "step_sizes",
            "Largest effective update under the schedule, with or without bias correction",
            _columns,
            folded=True,
        ),
    ),
)
