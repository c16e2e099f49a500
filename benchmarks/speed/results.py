"""What the bench found: rows with their bars, as Markdown for people and JSON to go on from."""

from __future__ import annotations

import os
import platform
import re
import statistics
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Bar(_Frozen):
    """What a median is held against; None is no limit on that side."""

    least: float | None = None
    most: float | None = None

    def __str__(self) -> str:
        if self.least is not None and self.most is not None:
            return f"{self.least:g} to {self.most:g}"
        return f"≥ {self.least:g}" if self.least is not None else f"≤ {self.most:g}"


class Row(_Frozen):
    """One quantity: a value a repetition, none where it could not be measured, and then `note` says why."""

    what: str
    unit: str
    values: tuple[float, ...]
    bar: Bar | None = None
    note: str = ""

    @property
    def median(self) -> float | None:
        """The middle of the repetitions."""
        return statistics.median(self.values) if self.values else None

    @property
    def verdict(self) -> str:
        """`held`, `missed` or `not measured`; nothing where there is no bar."""
        if self.median is None:
            return "not measured"
        if self.bar is None:
            return ""
        low = self.bar.least is None or self.median >= self.bar.least
        return "held" if low and (self.bar.most is None or self.median <= self.bar.most) else "missed"


class Table(_Frozen):
    """Rows measured together; `made` says when and with which versions."""

    name: str
    title: str
    made: str
    notes: tuple[str, ...] = ()
    rows: tuple[Row, ...]


class Results(_Frozen):
    """All tables of a machine."""

    machine: str
    tables: tuple[Table, ...]

    def updated(self, tables: Sequence[Table]) -> Results:
        """These tables, with those in the place of their namesakes."""
        new = {table.name: table for table in tables}
        kept = tuple(new.pop(table.name, table) for table in self.tables)
        return self.model_copy(update={"tables": (*kept, *new.values())})

    def markdown(self) -> str:
        """All tables for people."""
        parts = [f"# Speed on {self.machine}", "A median and the range of its repetitions; ratios are taken in pairs."]
        return "\n\n".join([*parts, *map(markdown, self.tables)]) + "\n"


def markdown(table: Table) -> str:
    """One table: what, median and range, bar, verdict, note."""
    lines = [f"## {table.title}", "", f"`{table.name}`, {table.made}", ""]
    for note in table.notes:
        lines += [note, ""]
    lines += ["| what | median | range | n | bar | | |", "|---|--:|--:|--:|--:|---|---|"]
    for row in table.rows:
        middle, unit = row.median, f" {row.unit}" if row.unit else ""
        found = "–" if middle is None else f"{number(middle)}{unit}"
        span = f"{number(min(row.values))} to {number(max(row.values))}" if len(row.values) > 1 else ""
        bar = "" if row.bar is None else f"{row.bar}{unit}"
        cells = (row.what, found, span, str(len(row.values) or ""), bar, row.verdict, row.note)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def number(value: float) -> str:
    """Three or four digits that count."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}" if abs(value) < 10 else f"{value:.1f}"


def paired(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, ...]:
    """How many times ours is theirs, repetition by repetition."""
    return tuple(one / other for one, other in zip(ours, theirs, strict=True))


def processor() -> str:
    """The processor's model."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def machine_name(gpus: Sequence[str]) -> str:
    """The model of GPU, where there is one, of the processor, and its cores that this process may use."""
    return ", ".join([*gpus[:1], f"{processor()}, {len(os.sched_getaffinity(0))} cores"])


def slug(machine: str) -> str:
    """A file's name for a machine."""
    return re.sub(r"[^a-z0-9]+", "-", machine.lower()).strip("-")


def merged(folder: Path, machine: str, tables: Sequence[Table]) -> Results:
    """The new tables with the others that were measured on such a machine before."""
    path = folder / f"{slug(machine)}.json"
    before = Results.model_validate_json(path.read_bytes()) if path.exists() else Results(machine=machine, tables=())
    return before.updated(tables)


def save(folder: Path, results: Results) -> Path:
    """Write both files; returns the Markdown's path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{slug(results.machine)}.md"
    path.with_suffix(".json").write_text(results.model_dump_json(indent=1) + "\n")
    path.write_text(results.markdown())
    return path
