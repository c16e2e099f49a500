"""Shared by the tests of the report's sentences: studies of one recipe and of two, and all that is said of one."""

from pathlib import Path
from typing import Any

from made_runs import HEAD, study_of

from harness.analysis.analyze import Analysis, analyse
from harness.report import opening
from harness.report.contents import SECTIONS

ONE = HEAD + "lr: 1e-5\nepochs: 3\nseeds: 1..{}\n"
ARMS = HEAD + "lr: 1e-5\nbias_correction: [off, on]\nepochs: 3\nseeds: 1..{}\n"


def found_of(folder: Path, text: str, runs: Any, threshold: float | None = None, **how: Any) -> Analysis:
    """The tables of a made study."""
    return analyse(study_of(folder, text, runs, **how), threshold)


def everything(found: Analysis) -> list[str]:
    """All that is said anywhere on a page."""
    said = [sentence for section in SECTIONS for sentence in section.sentences(found)]
    return [*opening.answer(found), *said, opening.multiplicity(found)]
