"""How good are the final answers by other metrics?"""

from __future__ import annotations

from harness.analysis.analyze import Analysis
from harness.common.metrics import HEADINGS
from harness.report.formatting import integer
from harness.report.section import Section
from harness.report.table import Column, TableSpec, number, with_sd


def sentences(analysis: Analysis) -> list[str]:
    """What is not told of a token task, and why."""
    if "f1_entity" not in set(analysis.runs["metric"].dropna()):
        return []
    return [
        "The score is entity F1, where start, end and type must all be right; a run failed if it found no entity "
        "correctly, as always answering O does. Analyses that need one answer per example are not shown for token "
        "tasks: dev-set sampling noise, agreement, flips, confusion, calibration, differences from baselines."
    ]


def _columns(analysis: Analysis) -> list[Column]:
    table = analysis.scores
    names = HEADINGS | ({"accuracy": "accuracy of words"} if "f1_entity" in table else {})
    return [
        ("runs", number("runs", integer)),
        *((f"{text} ± sd", with_sd(name)) for name, text in names.items() if name in table),
    ]


SECTION = Section(
    anchor="scores",
    heading="Other metrics",
    question="How good are the final answers by other metrics?",
    sentences=sentences,
    tables=(
        TableSpec(
            "scores",
            "Final answers on the dev set by other metrics: mean ± sd over the runs of a cell",
            _columns,
        ),
    ),
    glossary=(
        (
            "entity F1",
            "Of token tasks: 2 right / (there + answered) over entities, of which one is right with its start, end and "
            "type (IOB2, strictly: an entity begins with its B). The majority answers O everywhere, whose F1 is 0.",
        ),
        (
            "macro F1, micro F1, Matthews",
            "Macro: the mean of the classes' F1. Micro: of the pooled counts, which with one label an example is the "
            "accuracy. Matthews: the correlation of labels and answers (Gorodkin 2004 for more than two classes).",
        ),
    ),
)
