"""What the parts share: what they are given, and the journal that keeps each figure as soon as it is there."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.speed.results import Bar, Row, Table

ROOT = Path(__file__).resolve().parents[2]


class OutOfTime(Exception):  # noqa: N818 - no error: the part's share of the budget is spent
    """The time of a part is over; what it has measured is in its journal."""


@dataclass(frozen=True)
class Request:
    """What a part is to do: on which device and shape, with which weights and data, and until when (monotonic)."""

    device: str  # "cuda" or "cpu"
    tiny: bool  # small shapes in place of the real ones, to try the kit without a GPU
    home: Path  # models and data that are made on the spot
    out: Path  # the part's own JSON
    until: float
    data: Path  # folders `rte` and `sst2_small` with train.tsv and dev.tsv
    minilm: Path | None = None
    mpnet: Path | None = None
    mpnet_lr: float | None = None

    @property
    def left(self) -> float:
        """Seconds until the part's time is over."""
        return self.until - time.monotonic()

    @property
    def threads(self) -> int:
        """CPU threads of a part."""
        return 1 if self.tiny else max(1, min(8, len(os.sched_getaffinity(0)) // 2))

    def check_time(self, needed: float = 0.0) -> None:
        """Raise OutOfTime where less than so many seconds are left."""
        if self.left < needed:
            raise OutOfTime


@dataclass
class Journal:
    """The rows and notes of a part, written to its file, whole, after each."""

    name: str
    title: str
    path: Path
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(
        self, what: str, unit: str, values: Sequence[float], *, least: float | None = None, most: float | None = None,
        note: str = "",
    ) -> None:  # fmt: skip
        """Keep a row; with no values it is `not measured`, and the note says why."""
        bar = None if least is None and most is None else Bar(least=least, most=most)
        self.rows.append(Row(what=what, unit=unit, values=tuple(map(float, values)), bar=bar, note=note[:300]))
        self.save()

    def say(self, note: str) -> None:
        """Keep a sentence about all rows."""
        self.notes.append(note)
        self.save()

    def table(self) -> Table:
        """What there is so far."""
        made = f"{datetime.now(UTC):%Y-%m-%d}, {versions()}"
        return Table(name=self.name, title=self.title, made=made, notes=tuple(self.notes), rows=tuple(self.rows))

    def save(self) -> None:
        """Write the file at once: whoever reads it meets the old or the new content."""
        write_at_once(self.path, self.table().model_dump_json(indent=1))


Part = Callable[[Request, Journal], None]


def write_at_once(path: Path, text: str) -> None:
    """Replace a file whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text(text)
    draft.replace(path)


def versions() -> str:
    """Of what computes."""
    import torch
    import transformers

    return f"torch {torch.__version__}, transformers {transformers.__version__}"


def wait_for(path: Path, request: Request) -> Path:
    """A folder that another process makes; raises OutOfTime where it does not come."""
    while not path.exists():
        request.check_time(1.0)
        time.sleep(0.1)
    return path
