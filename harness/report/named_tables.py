"""One table of a report by its name: with chosen columns, as LaTeX, Markdown or CSV."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from harness.analysis.analyze import Analysis
from harness.common.errors import HarnessError
from harness.common.text import show
from harness.report import files, formatting
from harness.report.contents import TABLES
from harness.report.named_figures import unknown
from harness.report.table import TableSpec, TextTable

PAGE = 95  # characters of 10 points in the 6.5 inches of a page
_ENDINGS = {".tex": "latex", ".md": "markdown", ".csv": "csv"}


def table_named(name: str) -> TableSpec:
    """The table of that name; raises HarnessError where there is none."""
    known = {spec.name: spec for spec in TABLES}
    if name not in known:
        raise unknown("table", name, list(known))
    return known[name]


def listing() -> str:
    """All tables, a line each, for people who don't know the names."""
    wide = max(len(spec.name) for spec in TABLES)
    return "\n".join(f"{spec.name:{wide}}  {spec.caption}" for spec in TABLES)


def format_of(path: Path | None) -> str:
    """The format that a file's ending says; LaTeX otherwise."""
    return _ENDINGS.get(path.suffix.lower(), "latex") if path else "latex"


def text_of(
    analysis: Analysis, spec: TableSpec, columns: Sequence[str] | None, form: str, caption: str | None = None
) -> str:
    """A table as text.

    Args:
        analysis: of the study.
        spec: the table.
        columns: its numbers by their headings, or by their names in the CSV file; the words left of them always stand.
        form: latex, markdown or csv.
        caption: instead of the report's.

    Raises:
        HarnessError: the study has nothing to show in it, or it has no such column.
    """
    table = spec.text(analysis)
    if table is None:
        raise HarnessError(f"{analysis.study.name} has nothing for the table {spec.name} to show")
    if form == "csv":
        return files.csv(_frame(analysis, spec, columns), "%.10g")
    if columns is not None:
        table = _chosen(analysis, spec, table, columns)
    if caption is not None:
        table = replace(table, caption=caption)
    return files.markdown(table) if form == "markdown" else files.latex_float(table)


def usual_columns(spec: TableSpec, form: str, caption: str | None) -> tuple[Sequence[str] | None, str | None]:
    """The columns of a table where none are asked for, and its caption: what fits a page, but all in a CSV file."""
    if spec.for_paper is None or form == "csv":
        return None, caption
    return spec.for_paper[0], caption or spec.for_paper[1]


def too_wide(analysis: Analysis, spec: TableSpec, columns: Sequence[str] | None) -> str:
    """What to say of a LaTeX table that is wider than a page; empty for one that fits."""
    table = spec.text(analysis)
    if table is None:
        return ""
    shown = table if columns is None else _chosen(analysis, spec, table, columns)
    lengths = [max(map(len, texts)) + 2 for texts in zip(shown.header, *shown.rows, strict=True)]
    if sum(lengths) <= PAGE:
        return ""
    words = len(spec.labels(analysis))
    headings = ", ".join(re.sub(r"\s*\[.*?\]", "", heading) for heading in table.header[words:])
    return (
        f"This table of {len(lengths)} columns is wider than a page (some {sum(lengths)} characters; {PAGE} fit). "
        f"Choose with --columns, of: {headings}"
    )


def _key(heading: str) -> str:
    """A heading as it is asked for: `95 % interval` and `95%_interval` are one."""
    return re.sub(r"[\W_]+", "", re.sub(r"\[.*?\]", "", heading).lower())


def _chosen(analysis: Analysis, spec: TableSpec, table: TextTable, columns: Sequence[str]) -> TextTable:
    """The words of a table and the columns that were asked for, in their order."""
    words = len(spec.labels(analysis))
    data = spec.frame(analysis)
    frame = data if spec.rows is None else spec.rows(data)
    headings = {_key(name): place for place, name in enumerate(table.header) if place >= words}
    names = {_key(str(name)): str(name) for name in frame.columns if name != "cell"}
    header, texts, numeric = list(table.header[:words]), [list(row[:words]) for row in table.rows], [False] * words
    for column in columns:
        if _key(column) in headings:
            place = headings[_key(column)]
            header.append(table.header[place])
            added = [row[place] for row in table.rows]
        elif _key(column) in names and len(frame) == len(table.rows):
            header.append(column.replace("_", " "))
            added = [_written(value) for value in frame[names[_key(column)]]]
        else:
            known = [name for place, name in enumerate(table.header) if place >= words]
            raise unknown("column", column, [*known, *(name for name in names.values() if name not in known)])
        numeric.append(True)
        for row, text in zip(texts, added, strict=True):
            row.append(text)
    return replace(table, header=tuple(header), rows=tuple(map(tuple, texts)), numeric=tuple(numeric))


def _written(value: Any) -> str:
    if formatting.unknown(value):
        return "–"
    if isinstance(value, bool | str):
        return show(value)
    return formatting.integer(value) if float(value).is_integer() else formatting.score(float(value))


def _frame(analysis: Analysis, spec: TableSpec, columns: Sequence[str] | None) -> pd.DataFrame:
    """The numbers of a table as its CSV file has them, and of the columns those that were asked for."""
    data = spec.frame(analysis)
    if columns is None:
        return data
    names = {_key(str(name)): str(name) for name in data.columns}
    missing = [column for column in columns if _key(column) not in names]
    if missing:
        raise unknown("column", missing[0], list(map(str, data.columns)))
    words = [name for name in data.columns if name in (*analysis.study.axes, "axis", "value", "signal", "term")]
    return data[list(dict.fromkeys([*words, *(names[_key(column)] for column in columns)]))]
