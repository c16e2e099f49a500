"""The sections of the report, in the order of the page: a new one is a file in `sections/` and a line here."""

from __future__ import annotations

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
    scores,
    seed_budget,
    seed_parts,
    spread,
    update_sizes,
)
from harness.report.table import TableSpec, TextTable

SECTIONS: tuple[Section, ...] = (
    spread.SECTION,
    failures.SECTION,
    best.SECTION,
    curves.SECTION,
    level.SECTION,
    dev_set.SECTION,
    scores.SECTION,
    calibration.SECTION,
    best_of_n.SECTION,
    seed_budget.SECTION,
    importance.SECTION,
    seed_parts.SECTION,
    reasons.SECTION,
    gradients.SECTION,
    loss_surface.SECTION,
    update_sizes.SECTION,
    early_warning.SECTION,
    baselines.SECTION,
    paper.SECTION,
)


TABLES: tuple[TableSpec, ...] = tuple(table for section in SECTIONS for table in section.tables)


def text_tables(analysis: Analysis) -> dict[str, TextTable]:
    """Every table that has something to show, by its name."""
    tables = {spec.name: spec.text(analysis) for spec in TABLES}
    return {name: table for name, table in tables.items() if table is not None}
