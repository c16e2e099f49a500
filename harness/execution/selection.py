"""Which of the planned trials a command trains: `--only`, `--max-trials` and `--retry-crashed`."""

from __future__ import annotations

from collections.abc import Sequence

from harness.common.errors import HarnessError
from harness.common.text import show
from harness.config.trials import Sweep, Trial, where
from harness.execution.options import Options
from harness.records.record import Record


def matching(sweep: Sweep, only: Sequence[str]) -> tuple[Trial, ...]:
    """The planned trials that `--only` names, all without it; raises HarnessError where there are none."""
    trials = where(sweep, only, option="--only")
    if not trials:
        axes = [
            f"{name} {', '.join(dict.fromkeys(show(dict(cell.axes)[name]) for cell in sweep.cells))}"
            for name in sweep.axes
        ]
        seeds = [seeds.seed for seeds in sweep.due_seeds]
        raise HarnessError(
            f"--only {' '.join(only)} matches no trial of the plan",
            allowed="; ".join([*axes, f"seed {min(seeds)} to {max(seeds)}"]),
            fix="`harness plan` shows the cells",
        )
    return trials


def to_train(record: Record | None, options: Options) -> bool:
    """Whether a trial with this record (None: without one) is to be trained."""
    return record is None or (record.status == "crashed" and options.retry_crashed)


def first(sweep: Sweep, wanted: Sequence[Trial], most: int | None) -> list[Trial]:
    """At most so many, in the plan's order: seed by seed over the cells, so that a part of a sweep has all cells."""
    position = {seeds: number for number, seeds in enumerate(sweep.seeds)}
    chosen = sorted(wanted, key=lambda trial: (position[trial.seeds], trial.cell))[:most]
    return sorted(chosen, key=lambda trial: (trial.cell, position[trial.seeds]))
