"""One source of runs as a table: what every reader of a tool's files hands on."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from harness.common.errors import HarnessError
from harness.common.text import Scalar
from harness.records.importing.text import printable, storable

READABLE = (
    "a table as .csv, .tsv, .json, .jsonl, .ndjson or .parquet in UTF-8; an SQLite store of MLflow or Optuna, a "
    "journal of Optuna; a folder of MLflow, transformers' Trainer, Lightning, Ray Tune, TensorBoard or Weights & "
    "Biases; an MLflow server"
)


class UnfitError(Exception):
    """Why a table can't be read, in a few words."""


def unreadable(path: Path | str, why: str, allowed: str | None = None, fix: str | None = None) -> NoReturn:
    """Raise the HarnessError that says why a source of runs can't be read."""
    raise HarnessError(
        f"cannot read {printable(str(path)) or 'an empty name'}: {printable(why)}", allowed=allowed or READABLE, fix=fix
    ) from None


@dataclass(frozen=True)
class Series:
    """A quantity over training: the values [P] that were logged at steps [P], in the order of the steps."""

    steps: Sequence[float]
    values: Sequence[float]

    @property
    def last(self) -> float | None:
        """The value of the last step."""
        return self.values[-1] if self.values else None

    def best(self, higher_is_better: bool) -> float | None:
        """The best of the finite values."""
        finite = [value for value in self.values if math.isfinite(value)]
        return (max if higher_is_better else min)(finite) if finite else None


History = Callable[[int, str], Series | None]  # (row, column) -> its curve


@dataclass(frozen=True)
class SourceTable:
    """One source: the names of all its columns, and the values of those that are wanted or may hold states.

    `state_column` is where the tool itself keeps the states of runs; elsewhere `candidates` names the columns that may
    hold states. `paths` is where each run lies, which --seed-from reads. `blank` rows are in no column. `minimised`
    and `maximised` name the columns of which the tool says so.
    """

    label: str  # its name in errors and in the ids of runs
    known: tuple[str, ...]
    columns: dict[str, list[Any]]
    places: list[str]  # where each row stands: `runs.csv:12`
    sha256: str
    tool: str | None = None
    state_column: str | None = None
    candidates: tuple[str, ...] = ()
    step_column: str | None = None
    paths: list[str] | None = None
    blank: int = 0
    notes: tuple[str, ...] = ()
    minimised: frozenset[str] = frozenset()
    maximised: frozenset[str] = frozenset()
    history: History | None = field(default=None, compare=False)


def plain(value: object) -> Scalar:
    """A value as text, number, on/off or None: dates, lists and the like as text."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def flatten(value: Mapping[str, Any], prefix: str = "", separator: str = ".") -> dict[str, Scalar]:
    """Nested settings by their path: `{"config": {"lr": 1}}` is `config.lr`; lists stay one text."""
    flat: dict[str, Scalar] = {}
    stack = [(prefix, value)]
    while stack:
        start, mapping = stack.pop(0)
        for key, inner in mapping.items():
            name = f"{start}{key}"
            if isinstance(inner, Mapping) and inner:
                stack.append((f"{name}{separator}", inner))
            else:
                flat[name] = plain(inner) if not isinstance(inner, Mapping) else None
    return flat


class Digest:
    """A hash of all files that are read, whatever their folder is called."""

    def __init__(self, root: Path) -> None:
        """Of the files under a folder."""
        self.root, self._hash = root, hashlib.sha256()

    def read(self, path: Path) -> bytes:
        """The bytes of a file, which go into the hash."""
        content = path.read_bytes()
        name = storable(path.relative_to(self.root).as_posix()) if path != self.root else ""
        self._hash.update(f"{name}\0{len(content)}\0".encode() + content)
        return content

    def text(self, path: Path) -> str:
        """The text of a file in UTF-8."""
        try:
            return self.read(path).decode("utf-8")
        except UnicodeDecodeError:
            unreadable(path, "it is not UTF-8 text")

    @property
    def sha256(self) -> str:
        """The hash so far."""
        return self._hash.hexdigest()


# ----------------------------------------------------------------------------------------------- runs that tools log

Key = tuple[str, str]  # kind (config, metrics, tags …), name


@dataclass(frozen=True)
class LoggedRun:
    """One run of a tool that logs settings and scores; `about` is what the tool itself knows of the run."""

    place: str
    path: str  # a folder or name, which --seed-from reads
    about: Mapping[str, Scalar]
    values: Mapping[Key, Scalar] = field(default_factory=dict)
    history: Mapping[str, Series] = field(default_factory=dict)  # metric -> its curve


def table_of(
    label: str,
    tool: str,
    runs: Sequence[LoggedRun],
    sha256: str,
    *,
    higher_is_better: bool,
    metrics: str = "metrics",
    state_column: str | None = None,
    known: Iterable[Key] | None = None,
    notes: Sequence[str] = (),
    minimised: Iterable[str] = (),
    maximised: Iterable[str] = (),
) -> SourceTable:
    """Runs as a table: a column by its name, or as `kind.name`, which alone is right where two kinds have the name.

    A metric that has a curve but no value is the value of its last step; `<metric>:best` is the best of the curve.

    Args:
        label: The source's name in errors and in the ids of runs.
        tool: The tool that logged the runs.
        runs: The runs, a row each.
        sha256: The hash of all that was read.
        higher_is_better: What is best in the columns `<metric>:best`.
        metrics: The kind whose values have curves.
        state_column: Where the tool keeps the states of runs; None: it keeps none.
        known: All columns of the source, where only some were read.
        notes: Sentences for the person who imports.
        minimised: Columns of which the tool says that lower is better.
        maximised: Columns of which it says that higher is better.
    """
    logged = dict.fromkeys(key for run in runs for key in (*run.values, *((metrics, name) for name in run.history)))
    sources = dict.fromkeys([*(known or ()), *logged])
    about = dict.fromkeys(name for run in runs for name in run.about)
    times = Counter(name for _, name in sources)
    columns: dict[str, list[Any]] = {}
    curves: dict[str, str] = {}  # column -> metric
    for kind, name in logged:
        values = [_value(run, (kind, name), metrics) for run in runs]
        names = [f"{kind}.{name}", name] if times[name] == 1 else [f"{kind}.{name}"]
        columns |= dict.fromkeys(names, values)
        if kind == metrics and any(name in run.history for run in runs):
            best = [run.history[name].best(higher_is_better) if name in run.history else None for run in runs]
            columns |= {f"{title}:best": best for title in names}
            curves |= {title: name for column in names for title in (column, f"{column}:best")}
    own = {name: [run.about.get(name) for run in runs] for name in about}
    columns = own | columns
    if state_column is not None:
        columns[state_column] = own[state_column]  # no setting of that name hides it
    shown = [name if times[name] == 1 else f"{kind}.{name}" for kind, name in sources]
    shown += [name for name in about if name not in shown]

    def history(row: int, column: str) -> Series | None:
        return runs[row].history.get(curves[column]) if column in curves else None

    return SourceTable(
        label=label,
        known=tuple(shown),
        columns=columns,
        places=[storable(printable(f"{label}:{run.place}")) for run in runs],
        sha256=sha256,
        tool=tool,
        state_column=state_column,
        candidates=tuple(name for name in columns if ":best" not in name) if state_column is None else (),
        paths=[run.path for run in runs],
        notes=tuple(notes),
        minimised=frozenset(minimised),
        maximised=frozenset(maximised),
        history=history,
    )


def _value(run: LoggedRun, key: Key, metrics: str) -> Scalar:
    if key in run.values:
        return run.values[key]
    series = run.history.get(key[1]) if key[0] == metrics else None
    return None if series is None else series.last


def uneven_ends(label: str, runs: Sequence[LoggedRun]) -> list[str]:
    """A sentence where runs of a tool that keeps no states end at different steps: some may have been cut."""
    ends = {max((series.steps[-1] for series in run.history.values() if series.steps), default=0) for run in runs}
    if len(ends) < 2:
        return []
    low, high = f"{min(ends):g}", f"{max(ends):g}"
    return [
        f"{label} keeps no states, and its runs end between step {low} and step {high}: "
        "one that was cut counts as finished; leave it out with --where last_step!=…."
    ]


def last_step(history: Mapping[str, Series]) -> float | None:
    """The last step at which a run logged anything."""
    ends = [series.steps[-1] for series in history.values() if series.steps]
    return max(ends) if ends else None
