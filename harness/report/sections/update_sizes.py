"""How large are the updates, with and without bias correction?"""

from __future__ import annotations

from harness.analysis.analyze import Analysis
from harness.common.text import show
from harness.report.formatting import integer, percent
from harness.report.section import FigureSpec, Section
from harness.report.table import Column, TableSpec, number


def sentences(analysis: Analysis) -> list[str]:
    """How large the largest effective update is, with and without bias correction."""
    table = analysis.diagnosis.step_sizes
    without, having = table[~table["correction"].astype(bool)], table[table["correction"].astype(bool)]
    if without.empty:
        return []
    top = without.loc[without["largest"].idxmax()]
    text = (
        f"Without bias correction the largest effective update is {top['largest']:.2f} times the nominal "
        f"learning rate, at update {top['at']} of {top['updates']}"
    )
    return [text + (f"; with it, {having['largest'].max():.2f} times." if len(having) else ".")]


def _columns(analysis: Analysis) -> list[Column]:
    return [
        ("updates", number("updates", integer)),
        ("largest, × learning rate", number("largest", lambda value: f"{value:.2f}")),
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
