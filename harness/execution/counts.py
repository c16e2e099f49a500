"""What became of the planned trials, by their records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.config.trials import Sweep, Trial, expand
from harness.records.reading import Unreadable
from harness.records.record import Record
from harness.records.store import Store


@dataclass(frozen=True)
class SweepOutcome:
    """What a sweep ended with: counts over the plan, from the records."""

    planned: int
    finished: int
    crashed: int
    missing: int
    failed: int
    trained_now: int
    left: int  # of the trials that were asked for: crashed, missing or unreadable
    unreadable: int = 0  # records that can't be used; a sweep trains their trials again


def ended(sweep: Sweep, store: Store, trained_now: int = 0, asked: Collection[str] | None = None) -> SweepOutcome:
    """Count the plan's trials by what their records say; all of them were asked for where no ids are given."""
    return _counted(store.read_each(expand(sweep)), trained_now, asked)


def count(
    trials: Sequence[Trial], records: Mapping[str, Record], unreadable: Mapping[str, Unreadable] | None = None
) -> SweepOutcome:
    """Count some of the plan's trials, those of a cell say, by what their records say.

    Args:
        trials: Trials of the plan.
        records: Those that can be used, by id, as `Store.records` gives them.
        unreadable: Those that can't, by id; where not given they count as missing.
    """
    others = unreadable or {}
    return _counted(((trial, records.get(trial.id) or others.get(trial.id)) for trial in trials), 0, None)


def _counted(
    read: Iterable[tuple[Trial, Record | Unreadable | None]], trained_now: int, asked: Collection[str] | None
) -> SweepOutcome:
    states: Counter[str] = Counter()
    failed = left = 0
    for trial, record in read:
        if isinstance(record, Unreadable):
            states["unreadable"] += 1
            left += asked is None or trial.id in asked
            continue
        states[record.status if record else "missing"] += 1
        failed += bool(record and record.measured and record.measured.outcome == "failed")
        left += (record is None or record.status != "finished") and (asked is None or trial.id in asked)
    counts = (states["finished"], states["crashed"], states["missing"])
    return SweepOutcome(states.total(), *counts, failed, trained_now, left, states["unreadable"])
