"""Weights & Biases' folders of runs, offline ones among them: the log `run-<id>.wandb` in each.

The log has the framing of LevelDB's (blocks of 32 KiB, records cut at their ends) after a header of 7 bytes, and its
records are those of `wandb/proto/wandb_internal.proto`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.common.text import Scalar, count_noun
from harness.records.importing.protobuf import DamagedError, content, fields, signed, text
from harness.records.importing.table import Digest, Key, LoggedRun, Series, SourceTable, flatten, plain, table_of

_BLOCK, _HEADER = 32768, 7
_MAGIC = b":W&B"
_HISTORY, _SUMMARY, _CONFIG, _RUN, _EXIT = 2, 3, 5, 17, 18  # fields of a Record


def load(folders: Sequence[Path], root: Path, label: str, higher_is_better: bool) -> SourceTable:
    """The runs whose logs lie in the folders; a run whose log has no end never finished."""
    digest, runs, cut, silent = Digest(root), [], 0, 0
    for folder in folders:
        for path in sorted(folder.glob("*.wandb")):
            run, whole = _run(path, digest.read(path), root)
            if run.about["id"]:
                runs.append(run)
                cut += not whole
            else:
                silent += 1
    notes = (
        [f"{label}: {count_noun(cut, 'log')} cut in the middle of a record; what stands before it is read."]
        if cut
        else []
    )
    notes += [f"{label}: {count_noun(silent, 'log')} without a run, so without a seed, left out."] if silent else []
    return table_of(
        label, "Weights & Biases", runs, digest.sha256, higher_is_better=higher_is_better, metrics="summary",
        state_column="state", notes=notes,
    )  # fmt: skip


def _records(log: bytes) -> Iterator[bytes]:
    """The records of a log; raises DamagedError where it is cut or none."""
    if log[:4] != _MAGIC:
        raise DamagedError
    position, parts = _HEADER, []
    while position < len(log):
        left = _BLOCK - position % _BLOCK
        if left < _HEADER:
            position += left
            continue
        if position + _HEADER > len(log):
            raise DamagedError
        _, size, kind = struct.unpack("<IHB", log[position : position + _HEADER])
        position += _HEADER
        if position + size > len(log) or kind > 4:
            raise DamagedError
        if kind == 0 and size == 0:  # padding
            position += min(left - _HEADER, len(log) - position)
            continue
        parts.append(log[position : position + size])
        position += size
        if kind in (1, 4):  # whole, or its last part
            yield b"".join(parts)
            parts = []
    if parts:
        raise DamagedError


def _items(message: bytes) -> dict[str, Any]:
    """`update` (field 1) and `remove` (field 2) items of a config, history or summary: name -> value."""
    items: dict[str, Any] = {}
    for number, value in fields(message):
        if number != 1 or not isinstance(value, bytes):
            continue
        names: list[str] = []
        held = ""
        for inner, part in fields(value):
            if inner in (1, 2):
                names.append(text(part))
            elif inner == 16:
                held = text(part)
        names = [name for name in names if name]
        if names:
            try:
                items[".".join(names)] = json.loads(held) if held else None
            except ValueError:
                items[".".join(names)] = held
    return items


class _WandbLog:
    """What the records of a run's log add up to."""

    def __init__(self) -> None:
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.curves: dict[str, tuple[list[float], list[float]]] = {}
        self.id = self.name = self.project = ""
        self.exit: int | None = None
        self.step = -1

    def take(self, record: bytes) -> None:
        """Add a record."""
        for number, value in fields(record):
            if number == _HISTORY:
                self._take_history(content(value))
            elif number == _SUMMARY:
                self.summary |= _items(content(value))
            elif number == _CONFIG:
                self.config |= _items(content(value))
            elif number == _RUN:
                self._take_run(content(value))
            elif number == _EXIT:
                codes = [signed(code) for inner, code in fields(content(value)) if inner == 1]
                self.exit = codes[0] if codes else 0

    def _take_run(self, message: bytes) -> None:
        for number, value in fields(message):
            if number == 4:
                self.config |= _items(content(value))
            elif number == 5:
                self.summary |= _items(content(value))
            elif number in (1, 3, 8):
                setattr(self, {1: "id", 3: "project", 8: "name"}[number], text(value))

    def _take_history(self, message: bytes) -> None:
        row = flatten(_items(message))
        for number, value in fields(message):
            if number == 2:
                row["_step"] = next(
                    (signed(signed_step) for inner, signed_step in fields(content(value)) if inner == 1), 0
                )
        step = row.get("_step")
        self.step = int(step) if isinstance(step, int | float) else self.step + 1
        for name, held in row.items():
            logged = _number(held)
            if logged is not None and not name.startswith("_"):
                steps, values = self.curves.setdefault(name, ([], []))
                steps.append(self.step)
                values.append(logged)


def _number(value: object) -> float | None:
    """A logged number; NaN and the infinite ones are texts in the log."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value)
    special = {"NaN": "nan", "Infinity": "inf", "-Infinity": "-inf"}
    return float(special[value]) if isinstance(value, str) and value in special else None


def _run(path: Path, log: bytes, root: Path) -> tuple[LoggedRun, bool]:
    read, whole = _WandbLog(), True
    try:
        for record in _records(log):
            read.take(record)
    except DamagedError:
        whole = False
    state = "unfinished" if read.exit is None else "finished" if read.exit == 0 else "failed"
    about: dict[str, Scalar] = {"id": read.id, "name": read.name, "project": read.project, "state": state}
    settings = flatten({name: value for name, value in read.config.items() if name != "_wandb"})
    values: dict[Key, Scalar] = {("config", name): value for name, value in settings.items()}
    values |= {
        ("summary", name): plain(value)
        for name, value in flatten(read.summary).items()
        if not name.startswith("_") and name != "wandb"
    }
    history = {name: Series(steps, numbers) for name, (steps, numbers) in read.curves.items()}
    folder = path.parent.relative_to(root).as_posix() if path.parent != root else path.parent.name
    return LoggedRun(folder, read.name or folder, about, values, history), whole
