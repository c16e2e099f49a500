"""What all parts found: a page for people, JSON to go on from, and a few lines for a terminal."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.speed.results import Results, Row, Table, machine_name, markdown, number

from .kit import write_at_once
from .part import PARTS

_LINES = 9_500  # letters of what is printed


@dataclass(frozen=True)
class Found:
    """All tables, and what became of each part."""

    machine: str
    tables: tuple[Table, ...]
    ends: Mapping[str, str]

    @property
    def barred(self) -> list[Row]:
        """The rows that have a bar."""
        return [row for table in self.tables for row in table.rows if row.bar is not None]


def write(out: Path, parts: Path, ends: Mapping[str, str], device: str) -> Found:
    """Write summary.json, summary.md and parts.json from the parts' own files; also what those found."""
    tables = []
    for name, (_, _, title) in PARTS.items():
        path = parts / f"{name}.json"
        if path.exists():
            tables.append(Table.model_validate_json(path.read_bytes()))
        elif name in ends:
            row = Row(what=title, unit="", values=(), note=ends[name])
            tables.append(Table(name=name, title=title, made="", rows=(row,)))
    found = Found(machine_name(_cards() if device == "cuda" else []), tuple(tables), dict(ends))
    write_at_once(out / "parts.json", Results(machine=found.machine, tables=found.tables).model_dump_json(indent=1))
    write_at_once(out / "summary.json", json.dumps(_summary(found), indent=1))
    write_at_once(out / "summary.md", _page(found))
    return found


def _summary(found: Found) -> dict[str, object]:
    rows = [
        {"what": row.what, "median": row.median, "unit": row.unit, "bar": str(row.bar), "verdict": row.verdict,
         "note": row.note}
        for row in found.barred
    ]  # fmt: skip
    return {"machine": found.machine, "parts": dict(found.ends), "bars": rows}


def _page(found: Found) -> str:
    lines = [f"# What was measured on {found.machine}", "", "| what | found | bar | | |", "|---|--:|--:|---|---|"]
    for row in found.barred:
        value = "–" if row.median is None else number(row.median)
        cells = (row.what, value, f"{row.bar} {row.unit}".strip(), row.verdict, row.note)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    ends = [f"`{name}`: {end}" for name, end in found.ends.items()]
    return "\n".join([*lines, "", "; ".join(ends) + ".", "", "\n\n".join(map(markdown, found.tables)), ""])


def compact(found: Found) -> str:
    """All rows in a line each, bars first, cut to what a terminal's log keeps."""
    lines = [found.machine, "parts: " + ", ".join(f"{name} {end}" for name, end in found.ends.items())]
    lines += ["", "BARS", *(_line(row) for row in found.barred)]
    for table in found.tables:
        lines += ["", table.title, *(f"  ({note})" for note in table.notes)]
        lines += [_line(row) for row in table.rows if row.bar is None]
    text = "\n".join(lines)
    return text if len(text) <= _LINES else text[:_LINES] + "\n… the rest is in summary.md"


def _line(row: Row) -> str:
    value = "–" if row.median is None else f"{number(row.median)} {row.unit}".strip()
    bar = "" if row.bar is None else f" [{row.bar}: {row.verdict}]"
    return f"  {row.what}: {value}{bar}{f' ({row.note})' if row.note else ''}"


def _cards() -> list[str]:
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        asked = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in asked.stdout.splitlines()] if asked.returncode == 0 else []
