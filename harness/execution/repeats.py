"""`repeats:` of a script's sweep: the first seed of each cell is run so many times, which tells chance from seeds."""

from __future__ import annotations

from typing import Literal

from harness.common.errors import describe_os_error
from harness.config.trials import Sweep, Trial, expand
from harness.execution.rerun import RerunComparison
from harness.records import reruns
from harness.records.reruns import Rerun
from harness.records.store import Store


def due(sweep: Sweep, store: Store) -> list[tuple[Trial, int]]:
    """The runs that are not made yet, each with its number, from 2; of trials that finished."""
    recipe = sweep.cells[0].script
    if recipe is None or recipe.script.repeats < 2:
        return []
    made = {(rerun.trial, rerun.number) for rerun in reruns.load(store.folder)}
    first: dict[int, Trial] = {}
    for trial in expand(sweep):
        first.setdefault(trial.cell, trial)
    wanted = [(trial, number) for trial in first.values() for number in range(2, recipe.script.repeats + 1)]
    missing = [(trial, number) for trial, number in wanted if (trial.id, number) not in made]
    finished = {trial.id for trial in first.values() if (record := store.load(trial.id)) and record.measured}
    return [(trial, number) for trial, number in missing if trial.id in finished]


def keep(
    store: Store, comparison: RerunComparison, kind: Literal["rerun", "verify", "repeat"], number: int = 0
) -> str | None:
    """Leave an entry of a trial that was trained again; why it can't be written, where it can't."""
    before, now = comparison.record.measured, comparison.again.measured
    entry = Rerun(
        trial=comparison.trial,
        kind=kind,
        number=number,
        when_utc=comparison.again.started_utc,
        verdict=comparison.verdict,
        max_difference=comparison.max_difference,
        first_differing_step=comparison.first_differing_step,
        recorded_score=None if before is None else before.final_score,
        score=None if now is None else now.final_score,
        reasons=comparison.reasons,
    )
    try:
        reruns.add(store.folder, entry)
    except OSError as error:
        return f"The verdict was not kept for the report: {store.folder / reruns.NAME}: {describe_os_error(error)}."
    return None
