"""The chapters of the report and their sections, in the order of the page.

A new section is a file in `sections/` and a word in a chapter here.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.analysis.analyze import Analysis
from harness.report.section import Section
from harness.report.sections import (
    baselines,
    best,
    best_of_n,
    calibration,
    curves,
    dev_set,
    early_warning,
    failures,
    gradients,
    importance,
    level,
    loss_surface,
    paper,
    reasons,
    same_seed,
    scores,
    seed_budget,
    seed_parts,
    spread,
    update_sizes,
)
from harness.report.table import TableSpec, TextTable


@dataclass(frozen=True)
class Chapter:
    """A question that readers come with: the section that answers it, and folded ones that say more."""

    anchor: str
    heading: str
    first: Section | None  # shown open; None: the chapter is an appendix
    folded: tuple[Section, ...]


CHAPTERS: tuple[Chapter, ...] = (
    Chapter(
        "how-often",
        "How often do runs fail?",
        failures.SECTION,
        (best.SECTION,),
    ),
    Chapter(
        "how-far",
        "How far do scores spread?",
        spread.SECTION,
        (
            level.SECTION,
            scores.SECTION,
            curves.SECTION,
        ),
    ),
    Chapter(
        "what-drives",
        "What drives it?",
        importance.SECTION,
        (seed_parts.SECTION,),
    ),
    Chapter(
        "why-fail",
        "Why do runs fail?",
        reasons.SECTION,
        (
            gradients.SECTION,
            update_sizes.SECTION,
            loss_surface.SECTION,
            early_warning.SECTION,
        ),
    ),
    Chapter(
        "how-sure",
        "How sure is this, and how many seeds more?",
        seed_budget.SECTION,
        (
            same_seed.SECTION,
            dev_set.SECTION,
            best_of_n.SECTION,
        ),
    ),
    Chapter(
        "more",
        "Appendix",
        None,
        (
            calibration.SECTION,
            baselines.SECTION,
            paper.SECTION,
        ),
    ),
)


SECTIONS: tuple[Section, ...] = tuple(
    section for chapter in CHAPTERS for section in (chapter.first, *chapter.folded) if section is not None
)


TABLES: tuple[TableSpec, ...] = tuple(table for section in SECTIONS for table in section.tables)


def text_tables(analysis: Analysis) -> dict[str, TextTable]:
    """Every table that has something to show, by its name."""
    tables = {spec.name: spec.text(analysis) for spec in TABLES}
    return {name: table for name, table in tables.items() if table is not None}
