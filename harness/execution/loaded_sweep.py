"""A sweep as notebooks, scripts and commands hold it: read from its file, under one profile."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness.common import notebook
from harness.common.errors import HarnessError
from harness.common.text import count_noun, show
from harness.config.trials import Cell, Sweep, Trial, expand
from harness.execution import lookup, machine

Settings = Mapping[str, object] | Iterable[str]


@dataclass(frozen=True)
class LoadedSweep:
    """A sweep file under one profile, with the settings that were changed; `load_sweep` makes it.

    Attributes:
        sweep: everything that the file says.
        reason: why this profile was taken.
        source: the name or path that it was loaded by.
    """

    sweep: Sweep
    reason: str
    source: str

    @property
    def name(self) -> str:
        """The name of the sweep."""
        return self.sweep.name

    @property
    def profile(self) -> str:
        """The name of the profile."""
        return self.sweep.profile

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The recipes that are compared, each with its place on the axes (`.axes`) and all its settings (`.recipe`)."""
        return self.sweep.cells

    @cached_property
    def trials(self) -> tuple[Trial, ...]:
        """All planned runs, cell by cell and in each by seed; each has `.id`, `.recipe` and `.seeds`.

        Where seeds are added by rule, those that every cell begins with.
        """
        return expand(self.sweep)

    def __repr__(self) -> str:
        """The name, the profile and the size."""
        return f"<sweep {self.name}@{self.profile}: {self.sweep.size} = {count_noun(len(self.trials), 'trial')}>"

    def _repr_html_(self) -> str:
        due = zip(self.cells, self.sweep.due, strict=True)
        rows = [[*(show(value) for _, value in cell.axes), str(seeds)] for cell, seeds in due]
        words = f"Profile {self.profile}: {self.reason}. {self.sweep.size}."
        words += f" Seeds are added by rule ({self.sweep.rule.words})." if self.sweep.rule else ""
        return notebook.page(self.sweep.title, [words], [*self.sweep.axes, "trials"], rows)


def load_sweep(name_or_path: str | Path, *, set: Settings = (), profile: str | None = None) -> LoadedSweep:
    """Load a sweep file; nothing is trained.

    Args:
        name_or_path: a name in `sweeps/`, a shipped sweep, or the path of a YAML file.
        set: settings to change, as `{"seeds": "1..5", "task.files": "data/rte"}` or `["seeds=1..5"]`; values are read
            as in the file.
        profile: the variant of the file to take; None: the largest that this machine can run.

    Returns:
        The sweep, with `.trials` and `.cells`.

    Raises:
        HarnessError: there is no such sweep, or its file does not hold together.
    """
    sweep, reason = machine.resolve(lookup.sweep_file(str(name_or_path)), profile, settings(set))
    return LoadedSweep(sweep, reason, str(name_or_path))


def settings(changes: Settings) -> list[str]:
    """Settings as `key=value` texts, as `--set` takes them.

    Args:
        changes: a mapping of keys to values, or such texts.
    """
    if not isinstance(changes, Mapping):
        return list(changes)
    return [f"{key}={value if isinstance(value, str | Path) else json.dumps(value)}" for key, value in changes.items()]


def refuse_search(loaded: LoadedSweep) -> None:
    """Raise HarnessError for a file with `search:`, which `harness search` runs."""
    if loaded.sweep.search is not None:
        raise HarnessError(
            f"{loaded.source} is a search, not a sweep", fix=f"Use `harness search {shlex.quote(loaded.source)}`"
        )
