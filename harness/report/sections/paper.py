"""Do the numbers agree with the published ones?"""

from __future__ import annotations

from harness.analysis.analyze import Analysis
from harness.common.text import count_noun
from harness.report.claims import Sentence, Words
from harness.report.formatting import Row, unknown
from harness.report.section import Section
from harness.report.table import Column, TableSpec


def sentences(analysis: Analysis) -> list[Sentence]:
    """How many of the published results that a cell repeats agree with it."""
    table, words = analysis.against_the_paper, Words("against_the_paper")
    if not len(table):
        return []
    compared = int((table["verdict"] != "not comparable").sum())
    rows = words.count(len(table), "True", lambda n: count_noun(n, "published result"))
    if not compared:
        return [words.sentence(f"Of {rows} not one can be compared with these runs; the table says why.")]
    agree = words.count(int((table["verdict"] == "agrees").sum()), "verdict == 'agrees'")
    of = words.count(compared, "verdict != 'not comparable'")
    verb = "agrees" if agree == "1" else "agree"
    return [
        words.sentence(
            f"Of {rows}, {of} can be compared with a cell here; {agree} of these {verb} in mean and standard deviation "
            "(95 %, each on its own)."
        )
    ]


def _published(row: Row) -> str:
    mean, sd, highest = (f"{100 * row[f'published_{name}']:.1f}" for name in ("mean", "sd", "max"))
    return f"{mean} ± {sd}, max {highest}"


def _own(row: Row) -> str:
    if unknown(row["cell"]):
        return "–"
    mean, low, high = (100 * row[name] for name in ("mean", "mean_low", "mean_high"))
    bounds = f" [{low:.1f}, {high:.1f}]" if row["sd"] > 0 else ""  # equal scores know nothing of their error
    return f"{mean:.1f}{bounds} ± {100 * row['sd']:.1f}"


def _version(row: Row) -> str:
    return str(row["version"]) + (" (not checked against the paper)" if row["status"] == "unchecked" else "")


def _labels(analysis: Analysis) -> list[Column]:
    def cell(row: Row) -> str:
        return "–" if unknown(row["cell"]) else analysis.study.cells[int(row["cell"])].label

    return [
        ("published recipe", lambda row: f"{row['recipe']}, {row['task'].upper()}"),
        ("version", _version),
        ("published mean ± sd", _published),
        ("own cell", cell),
        ("mean [95 %] ± sd", _own),
        ("verdict", lambda row: row["verdict"]),
        ("reason", lambda row: row["why"]),
    ]


SECTION = Section(
    anchor="paper",
    heading="Published results",
    question="Do the numbers agree with the published ones?",
    sentences=sentences,
    tables=(
        TableSpec("against_the_paper", "Results of Mosbach et al. (2021), in per cent, 25 runs each", labels=_labels),
    ),
)
