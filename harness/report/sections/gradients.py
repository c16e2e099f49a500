"""Where, and when, do the gradients of failing runs differ?"""

from __future__ import annotations

from collections.abc import Callable

from harness.analysis.analyze import Analysis
from harness.common.text import count_noun
from harness.report.formatting import Row, decimals, percent
from harness.report.section import FigureSpec, Section
from harness.report.table import Column, TableSpec, number


def sentences(analysis: Analysis) -> list[str]:
    """Where and when the gradients of runs that failed or are near chance differ most from the others'."""
    table = analysis.diagnosis.gradients
    if table.empty:
        return []
    top = table.loc[table["orders"].abs().idxmax()]
    below = "below" if top["orders"] > 0 else "above"
    where = ", in the cells with both outcomes" if analysis.diagnosis.both else ", in cells with different recipes"
    where = where if len(analysis.study.cells) > 1 else ""
    first, last = table["part"].iloc[0], table["part"].iloc[-1]
    return [
        f"Gradients differ most in “{top['part']}”: at {percent(top['at'])} of training the median gradient of "
        f"{count_noun(int(top['lost']), 'run')} that failed or ended near chance is {abs(top['orders']):.1f} orders of "
        f"magnitude {below} that of {count_noun(int(top['others']), 'other')}{where} ({top['lost_norm']:.2g} vs. "
        f"{top['others_norm']:.2g}). At the end the difference is {decimals(table['end_orders'].iloc[0], 1)} in "
        f"“{first}” and "
        f"{decimals(table['end_orders'].iloc[-1], 1)} in “{last}”.",
    ]


def _digits(name: str) -> Callable[[Row], str]:
    return lambda row: f"{row[name]:.2g}"


def _columns(analysis: Analysis) -> list[Column]:
    return [
        ("largest difference at", number("at", percent)),
        ("failed or near chance", _digits("lost_norm")),
        ("others", _digits("others_norm")),
        ("orders of magnitude", number("orders", lambda value: decimals(value, 1))),
        ("at the end", number("end_orders", lambda value: decimals(value, 1))),
    ]


SECTION = Section(
    anchor="gradients",
    heading="Gradients by layer",
    question="Where, and when, do the gradients of failing runs differ?",
    sentences=sentences,
    figure=FigureSpec(
        "diagnosis.gradient_norms",
        "One thin line per run, on a logarithmic scale; bold the medians, bands the middle half of the runs. Where the "
        "lines of failed runs drop below the others' in the lower layers, little of the error signal reaches them.",
    ),
    tables=(
        TableSpec(
            "gradients",
            "Median gradient norms of runs that failed or are near chance and of others, where they differ most, by "
            "part of "
            "the network",
            _columns,
            lambda analysis: [("part", lambda row: row["part"])],
            folded=True,
        ),
    ),
    glossary=(
        (
            "gradients vanished",
            "From some update to the end the gradient norm of at least half of the layers was below a tenth of the "
            "median of runs that learn, at the same share of training: of the same cell where it has three, else of "
            "all.",
        ),
    ),
)
