"""Can the confidence of the answers be trusted, and which classes are recognised?"""

from __future__ import annotations

import pandas as pd

from harness.analysis.analyze import Analysis
from harness.analysis.verdicts import of_positions
from harness.common.text import count_noun
from harness.report.claims import Sentence, Words
from harness.report.formatting import integer, score
from harness.report.section import Section
from harness.report.table import Column, TableSpec, labels_of_axes, number, with_sd
from harness.report.wording import class_names

_MOST_CLASSES = 10  # whose answers have a column each on the page


def sentences(analysis: Analysis) -> list[Sentence]:
    """How far confidence and accuracy lie apart, and which classes are never answered."""
    table, labels, words = analysis.calibration, [cell.label for cell in analysis.study.cells], Words("calibration")
    if not len(table):
        return []
    cells = table.groupby("cell", sort=False)[["ece", "accuracy", "confidence"]].mean()
    low, high = cells["ece"].idxmin(), cells["ece"].idxmax()

    def mean(column: str, cell: int) -> str:
        return words.summary("mean", float(cells[column][cell]), column, f"cell == {cell}", score)

    several = score(cells["ece"][low]) != score(cells["ece"][high])
    where = f"from {mean('ece', low)} ({labels[low]}) to " if several else ""
    at = f" ({labels[high]})" if several else " in every cell" if len(cells) > 1 else ""
    place = f"at {labels[high]} " if len(cells) > 1 and not several else ""
    text = (
        f"the expected calibration error (mean over runs) is {where}{mean('ece', high)}{at}, where {place}the mean "
        f"confidence is {mean('confidence', high)} and the accuracy {mean('accuracy', high)}."
    )
    return [words.sentence(text), *_never_predicted(analysis)]


def _never_predicted(analysis: Analysis) -> list[Sentence]:
    never = analysis.confusion[(analysis.confusion["answered"] == 0) & (analysis.confusion["examples"] > 0)]
    if not len(never):
        return []
    words = Words("confusion")
    cells = words.summary(
        "distinct", never["cell"].nunique(), "cell", "answered == 0 and examples > 0", lambda n: count_noun(n, "cell")
    )
    if of_positions(analysis.study):
        return [words.sentence(f"in {cells} no run ever chooses some position at which the dev set has right answers.")]
    return [words.sentence(f"in {cells} no run ever predicts some class that the dev set contains.")]


# --------------------------------------------------------------------------------------------------------------- tables


def _by_cell(table: pd.DataFrame) -> pd.DataFrame:
    """One row a cell; the file has every run."""
    grouped = table.groupby("cell", sort=False)
    values = grouped[["accuracy", "confidence", "ece", "brier"]]
    return values.mean().join(values.std().add_suffix("_sd")).join(grouped["ece"].agg(["size", "max"])).reset_index()


def _of_calibration(analysis: Analysis) -> list[Column]:
    return [
        ("runs", number("size", integer)),
        ("accuracy", number("accuracy")),
        ("mean confidence", number("confidence")),
        ("ECE ± sd", with_sd("ece")),
        ("highest ECE", number("max")),
        ("Brier score ± sd", with_sd("brier")),
    ]


def _answers(analysis: Analysis) -> list[str]:
    """The columns that count the answers, a class each."""
    names = map(str, analysis.confusion.columns)
    return [name for name in names if name.startswith("as_") and not name.endswith("_sd")]


def _labels_of_classes(analysis: Analysis) -> list[Column]:
    names = class_names(analysis, len(_answers(analysis)))
    heading = "right choice" if of_positions(analysis.study) else "class"
    return [*labels_of_axes(analysis), (heading, lambda row: names[int(row["label"])])]


def _of_confusion(analysis: Analysis) -> list[Column]:
    answers, verb = _answers(analysis), "chosen" if of_positions(analysis.study) else "predicted"
    names = class_names(analysis, len(answers))
    return [
        ("runs", number("runs", integer)),
        *(
            (f"{verb} {name}", number(column, integer))
            for name, column in (zip(names, answers, strict=True) if len(answers) <= _MOST_CLASSES else ())
        ),
        ("precision ± sd", with_sd("precision")),
        ("recall ± sd", with_sd("recall")),
    ]


SECTION = Section(
    anchor="classes",
    heading="Classes and calibration",
    question="Can the confidence of the answers be trusted, and which classes or choices are recognised?",
    sentences=sentences,
    tables=(
        TableSpec(
            "calibration",
            "Calibration on the dev set: mean ± sd over the runs of a cell",
            _of_calibration,
            rows=_by_cell,
        ),
        TableSpec(
            "confusion",
            "What the examples of each class, or right choice, were predicted as, summed over the runs of a cell; ± sd "
            "over the runs",
            _of_confusion,
            _labels_of_classes,
            folded=True,
        ),
    ),
    glossary=(
        (
            "ECE, Brier score",
            "Expected calibration error: how far the confidence in an answer lies from the share of right answers at "
            "that confidence, in 15 bins of equal width (Guo et al. 2017); on few examples it lies above 0 by chance "
            "alone. Brier score: squared errors of the probabilities, summed over the classes (0 to 2).",
        ),
    ),
)
