"""What `harness diagnose` prints: why runs fail, how early it could be told, and the next experiment."""

from __future__ import annotations

from harness.analysis.analyze import Analysis
from harness.report.files import json_rows
from harness.report.next_experiment import next_sweep
from harness.report.sections import early_warning, gradients, reasons, seed_parts, update_sizes

_OF_RULE = ("caught", "lost", "false", "others")


def sentences(analysis: Analysis) -> list[str]:
    """All that is said of why runs fail."""
    parts = (
        reasons.sentences, gradients.sentences, update_sizes.sentences, early_warning.sentences, seed_parts.same_seeds,
    )  # fmt: skip
    return [sentence for part in parts for sentence in part(analysis)]


def summary(analysis: Analysis, page: str) -> dict[str, object]:
    """What `harness diagnose --json` prints, of a study of one sweep."""
    study, kept, proposed = analysis.study, analysis.diagnosis.rule, next_sweep(analysis)
    return {
        "sweep": study.sweeps[0].name,
        "profile": study.profile,
        "words": sentences(analysis),
        "rule": None if kept is None else vars(kept.rule) | {name: getattr(kept, name) for name in _OF_RULE},
        "next_sweep": None if proposed is None else proposed[1],
        "tables": {name: json_rows(table) for name, table in analysis.diagnosis.tables.items()},
        "report": page,
    }
