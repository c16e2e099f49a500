"""TensorBoard's event files: a folder is a run, its scalars are curves, its hyperparameters (if any) settings.

The files have the framing of TFRecord, and their records are those of `tensorboard/compat/proto/event.proto` and, for
the hyperparameters, `tensorboard/plugins/hparams/plugin_data.proto`.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.common.text import Scalar, count_noun
from harness.records.importing.protobuf import DamagedError, content, double, fields, signed, single, text
from harness.records.importing.table import (
    Digest,
    Key,
    LoggedRun,
    Series,
    SourceTable,
    last_step,
    table_of,
    uneven_ends,
)

PATTERN = "events.out.tfevents.*"
_PARTS = {"train", "training", "validation", "valid", "val", "eval", "evaluation", "test", "dev"}
_TIMED = re.compile(r"\d{9,11}(?:\.\d+)?")  # torch's add_hparams makes such a folder in the run's
_STATUS = {1: "SUCCESS", 2: "FAILURE", 3: "RUNNING"}


@dataclass
class Events:
    """What the event files of a run hold."""

    settings: dict[str, Scalar] = field(default_factory=dict)
    points: dict[str, dict[int, float]] = field(default_factory=dict)  # tag -> step -> value
    status: str | None = None
    cut: int = 0  # files that end in the middle of a record

    @property
    def history(self) -> dict[str, Series]:
        """The curves by tag."""
        return {tag: Series(sorted(held), [held[step] for step in sorted(held)]) for tag, held in self.points.items()}


def read_events(folder: Path, digest: Digest, prefix: str = "", into: Events | None = None) -> Events:
    """All event files of one folder, oldest first; of a step that is logged twice the later value counts."""
    events = Events() if into is None else into
    for path in sorted(folder.glob(PATTERN)):
        try:
            for record in _records(digest.read(path)):
                _take(events, record, prefix)
        except DamagedError:
            events.cut += 1
    return events


def load(folders: Sequence[Path], root: Path, label: str, higher_is_better: bool) -> SourceTable:
    """The runs of the folders; what lies in a run's own `train`, `validation` … is part of it, by that name."""
    digest, runs, cut = Digest(root), [], 0
    for folder, parts in _grouped(folders).items():
        events = Events()
        for part in parts:
            inner = "" if part == folder or _TIMED.fullmatch(part.name) else f"{part.name}/"
            read_events(part, digest, inner, events)
        cut += events.cut
        path = folder.relative_to(root).as_posix() if folder != root else folder.name
        values: dict[Key, Scalar] = {("hparams", name): value for name, value in events.settings.items()}
        about: dict[str, Scalar] = {"folder": path, "last_step": last_step(events.history)}
        about |= {} if events.status is None else {"session": events.status}
        runs.append(LoggedRun(path, path, about, values, events.history))
    notes = [f"{label}: {count_noun(cut, 'event file')} cut in the middle of a record; what stands before it is read."]
    return table_of(
        label, "TensorBoard", runs, digest.sha256, higher_is_better=higher_is_better, metrics="scalars",
        notes=[*(notes if cut else []), *uneven_ends(label, runs)],
    )  # fmt: skip


def _grouped(folders: Sequence[Path]) -> dict[Path, list[Path]]:
    """Run -> the folders of its event files: parts of a run, and torch's timed folders, belong to the one above."""
    run_folders = set(folders)
    groups: dict[Path, list[Path]] = {}
    for folder in sorted(folders):
        belongs = folder.name.casefold() in _PARTS or (_TIMED.fullmatch(folder.name) and folder.parent in run_folders)
        groups.setdefault(folder.parent if belongs else folder, []).append(folder)
    return groups


def _records(file: bytes) -> Iterator[bytes]:
    """The records of a TFRecord file: length, checksum, bytes, checksum."""
    position = 0
    while position < len(file):
        if position + 12 > len(file):
            raise DamagedError
        (size,) = struct.unpack("<Q", file[position : position + 8])
        position += 12
        if position + size + 4 > len(file):
            raise DamagedError
        yield file[position : position + size]
        position += size + 4


def _take(events: Events, record: bytes, prefix: str) -> None:
    step, summaries = 0, []
    for number, value in fields(record):
        if number == 2:
            step = signed(value)
        elif number == 5:
            summaries.append(content(value))
    for summary in summaries:
        for number, value in fields(summary):
            if number == 1:
                _take_value(events, content(value), step, prefix)


def _take_value(events: Events, message: bytes, step: int, prefix: str) -> None:
    tag, number, metadata = "", None, b""
    for field_number, value in fields(message):
        if field_number == 1:
            tag = text(value)
        elif field_number == 2:
            number = single(value)
        elif field_number == 8:
            number = _scalar(content(value))
        elif field_number == 9:
            metadata = content(value)
    plugin, data = _plugin(metadata)
    if plugin == "hparams":
        _take_hparams(events, data)
    elif number is not None and plugin in ("", "scalars"):
        events.points.setdefault(f"{prefix}{tag}", {})[step] = number


def _plugin(metadata: bytes) -> tuple[str, bytes]:
    for number, value in fields(metadata):
        if number == 1:
            parts = dict(fields(content(value)))
            return text(parts.get(1, b"")), content(parts.get(2, b""))
    return "", b""


def _scalar(tensor: bytes) -> float | None:
    """The one number of a tensor of float32 (1) or float64 (2); None for other tensors."""
    parts = dict(fields(tensor))
    kind = parts.get(1)
    read, size = (single, 4) if kind == 1 else (double, 8)
    held = parts.get(4) or parts.get(5 if kind == 1 else 6)
    return read(held) if kind in (1, 2) and isinstance(held, bytes) and len(held) == size else None


def _take_hparams(events: Events, data: bytes) -> None:
    for number, value in fields(data):
        if number == 3:
            for inner, entry in fields(content(value)):
                if inner == 1:
                    parts = dict(fields(content(entry)))
                    events.settings[text(parts.get(1, b""))] = _setting(content(parts.get(2, b"")))
        elif number == 4:
            for inner, status in fields(content(value)):
                if inner == 1 and isinstance(status, int):
                    events.status = _STATUS.get(status, "UNKNOWN")


def _setting(value: bytes) -> Scalar:
    for number, held in fields(value):
        if number == 2:
            setting = double(held)
            return int(setting) if math.isfinite(setting) and setting.is_integer() and abs(setting) < 2**53 else setting
        if number == 3:
            return text(held)
        if number == 4:
            return bool(held)
    return None
