"""Files outside their own folders that several runs of a script wrote: what one run leaves there another may read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from harness.common.text import count_noun
from harness.records.record import Record, started_seconds


def collisions(records: Iterable[Record]) -> tuple[str, ...]:
    """A sentence where one file was written by two runs or more, none of which spans both times.

    A run knows which files changed while it ran, not who changed them: so a file counts only where it changed in a run,
    and again in one that began later, and no single run could have made both changes.
    """
    seen: dict[str, list[tuple[float, float, float]]] = defaultdict(list)  # file -> (began, ended, changed)
    for record in records:
        began = started_seconds(record)
        if record.script is not None and record.measured is not None and began is not None:
            for name, changed in record.script.outside:
                seen[name].append((began, began + record.measured.wall_seconds + 1, changed))
    shared = [name for name, runs in seen.items() if _by_several(runs)]
    if not shared:
        return ()
    named = ", ".join(shared[:3]) + (f" and {count_noun(len(shared) - 3, 'other')}" if len(shared) > 3 else "")
    return (
        f"Warning: several runs wrote the same {'file' if len(shared) == 1 else 'files'} outside their own folders "
        f"({named}): if a run reads there what another left, results mix. Put {{out}} into its path.",
    )


def _by_several(runs: list[tuple[float, float, float]]) -> bool:
    """Whether two of the changes can't be one run's."""
    runs = sorted(runs, key=lambda run: run[2])
    (_, _, first), (began, _, last) = runs[0], runs[-1]
    return first < began and not any(start <= first and end >= last for start, end, _ in runs)
