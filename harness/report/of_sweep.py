"""The report of a sweep from its results folder, as one call that another process can be asked for."""

from __future__ import annotations

from pathlib import Path

from harness.config.trials import Sweep
from harness.records import study
from harness.records.store import Store
from harness.report import page


def write(sweep: Sweep, folder: Path, rerun: str) -> Path:
    """Write the report of the records in a results folder into its `report/`.

    Args:
        sweep: the plan.
        folder: the results folder.
        rerun: the words of a `harness rerun` of the sweep, as `study.of_sweep` takes them.

    Returns:
        The page.
    """
    return page.write(study.of_sweep(sweep, Store(folder), rerun), folder / "report").page
