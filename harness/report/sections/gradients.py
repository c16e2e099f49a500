"""Where, and when, do the gradients of failing runs differ?"""

from __future__ import annotations

from collections.abc import Callable

from harness.analysis.analyze import Analysis
from harness.common.text import count_noun
from harness.report.claims import Sentence, Words, row_at
from harness.report.formatting import Row, decimals, percent
from harness.report.section import FigureSpec, Section
from harness.report.table import Column, TableSpec, number

_NONE = 0.05  # orders of magnitude, below which a difference would be written as 0.0


def sentences(analysis: Analysis) -> list[Sentence]:
    """Where and when the gradients of runs that failed or are near chance differ most from the others'."""
    table, words, key = analysis.diagnosis.gradients, Words("gradients"), ["part"]
    if table.empty:
        return []
    top = row_at(table, table["orders"].abs().idxmax())
    where = "in the cells with both outcomes" if analysis.diagnosis.both else "in cells with different recipes"
    where = f" {where}" if len(analysis.study.cells) > 1 else ""
    lost = words.value(top, key, "lost", lambda n: count_noun(int(n), "run"))
    others = words.value(top, key, "others", lambda n: count_noun(int(n), "other"))
    norms = [words.value(top, key, name, "{:.2g}".format) for name in ("lost_norm", "others_norm")]
    text = (
        f"the largest of many differences in gradient norm, none of them tested, is in “{top['part']}” at "
        f"{words.value(top, key, 'at', percent)} of training{where}: a median of {norms[0]} in {lost} that failed or "
        f"ended near chance and of {norms[1]} in {others}{_factor(words, top)}."
    )
    ends = [row_at(table, table.index[position]) for position in (0, -1)]
    parts = " and ".join(f"{_at_end(words, row)} in “{row['part']}”" for row in ends[: len(table)])
    return [words.sentence(f"{text} At the end the failed runs' median is {parts}.")]


def _factor(words: Words, row: Row) -> str:
    apart = words.size(row, ["part"], "orders", "{:.1f} orders of magnitude".format)
    return f", {apart} {'lower' if row['orders'] > 0 else 'higher'} in the former"


def _at_end(words: Words, row: Row) -> str:
    """`1.2 orders of magnitude below the others'`."""
    if abs(row["end_orders"]) < _NONE:
        return "as high as the others'"
    apart = words.size(row, ["part"], "end_orders", "{:.1f} orders of magnitude".format)
    return f"{apart} {'below' if row['end_orders'] > 0 else 'above'} the others'"


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
