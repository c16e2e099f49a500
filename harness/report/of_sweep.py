"""The report of a sweep from its results folder, as one call that another process can be asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.config.trials import Sweep
from harness.records import study
from harness.records.store import Store
from harness.report import headline, page
from harness.report.sections import best


@dataclass(frozen=True)
class Answer:
    """The page that was written, and what it says first."""

    page: Path
    verdict: str
    recommendation: str  # empty where there is none


def write(sweep: Sweep, folder: Path, rerun: str) -> Answer:
    """Write the report of the records in a results folder into its `report/`.

    Args:
        sweep: the plan.
        folder: the results folder.
        rerun: the words of a `harness rerun` of the sweep, as `study.of_sweep` takes them.

    Returns:
        The page and its first sentences.
    """
    made = page.write(study.of_sweep(sweep, Store(folder), rerun), folder / "report")
    verdict, recommended = headline.verdict(made.analysis), best.recommendation(made.analysis)
    return Answer(made.page, f"{verdict}.", str(recommended[0]) if recommended else "")
