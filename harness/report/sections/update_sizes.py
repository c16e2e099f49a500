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
        f"Without bias correction the largest effective update is {top['largest']:.2f} times what the learning rate "
        f"says, at update {top['at']} of {top['updates']}"
    )
    return [text + (f"; with it, {having['largest'].max():.2f} times." if len(having) else ".")]


def _columns(analysis: Analysis) -> list[Column]:
    return [
        ("updates", number("updates", integer)),
        ("largest, in learning rates", number("largest", lambda value: f"{value:.2f}")),
        ("at update", number("at", integer)),
        ("largest", number("largest_rate", lambda value: show(float(f"{value:.3g}")))),
        ("clipped updates", number("clipped", percent)),
    ]


SECTION = Section(
    anchor="updates",
    heading="Size of the updates",
    question="How large are the updates, with and without bias correction?",
    sentences=sentences,
    figure=FigureSpec(
        "diagnosis.step_size_factor",
        "Left how much larger Adam's update is without bias correction; right what the schedule makes of it, in "
        "learning rates: a line above 1 is an update larger than the learning rate says.",
    ),
    tables=(
        TableSpec(
            "step_sizes",
            "The largest effective update by the schedule and bias correction",
            _columns,
            folded=True,
        ),
    ),
)
