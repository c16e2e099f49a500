"""Whether a sweep's steps are compiled: as the sweep was begun, since compilation changes the last bits of results."""

from __future__ import annotations

from collections.abc import Iterable

from harness.common.errors import HarnessError
from harness.common.text import count_noun
from harness.records.record import Record


def is_compiled(record: Record) -> bool:
    """Whether the trial's steps were compiled."""
    return record.measured is not None and record.measured.step_mode in ("compiled", "compiled cuda graph")


def was_asked_for(record: Record) -> bool:
    """Whether the trial's steps were to be compiled; where that failed they were not."""
    return record.environment is not None and record.environment.compiler is not None


def chosen(records: Iterable[Record], wanted: bool | None) -> bool:
    """Whether the steps of the trials to come are to be compiled, given the sweep's records.

    Args:
        records: those there are; crashed ones decide nothing.
        asked: what the command says; None: as the sweep was begun, and a new one without.

    Raises:
        HarnessError: the sweep was begun the other way. Its cells would differ in more than their recipes.
    """
    finished = [record for record in records if record.measured is not None]
    with_it = sum(map(was_asked_for, finished))
    without = len(finished) - with_it
    if wanted is None:
        return with_it > without
    if other := without if wanted else with_it:
        raise HarnessError(
            f"{'--compile' if wanted else '--no-compile'} cannot be mixed: {count_noun(other, 'trial')} of this "
            f"sweep were trained {'without' if wanted else 'with'} compiled steps, and the last bits differ",
            fix=f"Leave out {'--compile' if wanted else '--no-compile'}, or name another folder with --results",
        )
    return wanted


def fallback(record: Record) -> str | None:
    """What to say of a trial whose steps were to be compiled and were not; None where they were, or were not to be."""
    if not was_asked_for(record) or is_compiled(record) or record.measured is None:
        return None
    return f"trained without compiled steps: {record.measured.step_mode_reason or 'the reason was not recorded'}"


def mixed(records: Iterable[Record]) -> str | None:
    """What to note of finished records of which some were trained with compiled steps and some without; else None."""
    finished = [record for record in records if record.measured is not None]
    with_it = sum(map(is_compiled, finished))
    if with_it in (0, len(finished)):
        return None
    return f"{with_it} of {count_noun(len(finished), 'trial')} trained with compiled steps: their last bits differ"
