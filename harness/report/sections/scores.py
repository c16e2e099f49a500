"""What are the answers worth by other metrics?"""

from __future__ import annotations

from harness.analysis.analyze import Analysis
from harness.report.formatting import integer
from harness.report.section import Section
from harness.report.table import Column, TableSpec, number, with_sd

_NAMES = {
    "accuracy": "accuracy", "f1": "F1 of class 1", "f1_macro": "macro F1", "f1_micro": "micro F1",
    "matthews_correlation": "Matthews", "ece": "ECE", "pearson": "Pearson", "spearman": "Spearman",
    "f1_entity": "entity F1", "entity_precision": "precision", "entity_recall": "recall",
}  # fmt: skip


def sentences(analysis: Analysis) -> list[str]:
    """What is not told of a token task, and why."""
    if "f1_entity" not in set(analysis.runs["metric"].dropna()):
        return []
    return [
        "The score is the F1 of entities, right in start, end and type; a run failed that found none rightly, as "
        "always answering O does. What needs one answer an example is not shown for token tasks: the noise of the dev "
        "set, agreement, flips, confusion, calibration, differences to baselines."
    ]


def _columns(analysis: Analysis) -> list[Column]:
    table = analysis.scores
    names = _NAMES | ({"accuracy": "accuracy of words"} if "f1_entity" in table else {})
    return [
        ("runs", number("runs", integer)),
        *((f"{text} ± sd", with_sd(name)) for name, text in names.items() if name in table),
    ]


SECTION = Section(
    anchor="scores",
    heading="Other scores",
    question="What are the final answers worth by other metrics?",
    sentences=sentences,
    tables=(
        TableSpec(
            "scores",
            "The final answers on the dev set by other scores: means over the runs of a cell, sd over the runs",
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
