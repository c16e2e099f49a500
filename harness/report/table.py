"""A table of the report: declared once, by its name, its caption and its columns, and set as text for people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.analysis.analyze import Analysis
from harness.common.text import Scalar, name_cell, show
from harness.records.study import Study
from harness.report.formatting import Row, interval, score, unknown, versus

MOST_ROWS = 200  # of a table on the page; its file has them all


@dataclass(frozen=True)
class TextTable:
    """A table as text: its header and rows; `numeric` says which columns are numbers, to be set right."""

    name: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]

    @property
    def left_out(self) -> int:
        """How many rows the page does not show."""
        return max(len(self.rows) - MOST_ROWS, 0)

    @property
    def shown(self) -> tuple[tuple[str, ...], ...]:
        """The rows on the page."""
        return self.rows[:MOST_ROWS]


Column = tuple[str, Callable[[Row], str]]
Columns = Callable[[Analysis], Sequence[Column]]


# -------------------------------------------------------------------------------------------------------- its columns


def number(name: str, form: Callable[[Any], str] = score) -> Callable[[Row], str]:
    """What a column of the analysis says, as text."""
    return lambda row: form(row[name])


def with_interval(name: str, form: Callable[[float | None], str] = score) -> Callable[[Row], str]:
    """An estimate and its interval: `0.81 [0.79, 0.83]`."""
    return lambda row: interval(row, name, form)


def with_bounds(name: str, form: Callable[[float | None], str] = score) -> Callable[[Row], str]:
    """The same where the columns of the bounds are called `low` and `high`."""
    return lambda row: interval({"x": row[name], "x_low": row["low"], "x_high": row["high"]}, "x", form)


def with_sd(name: str) -> Callable[[Row], str]:
    """A mean and its standard deviation: `0.81 ± 0.02`."""
    return lambda row: score(row[name]) + ("" if unknown(row[f"{name}_sd"]) else f" ± {score(row[f'{name}_sd'])}")


def k_of_n(k: str, n: str) -> Callable[[Row], str]:
    """`3/8` from two columns of counts; `–` where there is nothing to count."""
    return lambda row: "–" if unknown(row[k]) or unknown(row[n]) or not row[n] else f"{int(row[k])}/{int(row[n])}"


def labels_of_axes(analysis: Analysis) -> list[Column]:
    """The cell of a row, a column for each axis."""
    study = analysis.study

    def of(axis: str) -> Callable[[Row], str]:
        return lambda row: show(dict(study.cells[row["cell"]].axes)[axis])

    return [(axis.replace("_", " "), of(axis)) for axis in study.axes] or [("recipe", lambda row: "the only one")]


def labels_of_arms(analysis: Analysis) -> list[Column]:
    """The axis and the value of a row that pools the other axes."""
    return [("axis", lambda row: row["axis"].replace("_", " ")), ("value", lambda row: show(row["value"]))]


def labels_of_pairs(analysis: Analysis) -> list[Column]:
    """Where a pair of cells stands, and what of it is compared: `bias correction on vs. off`."""
    study = analysis.study

    def compared(row: Row) -> str:
        return versus(*_differing(study, row))

    def shared(row: Row) -> str:
        name = _differing(study, row)[0]
        axes = [pair for pair in study.cells[row["cell"]].axes if pair[0] != name]
        return name_cell(axes) if axes else "–"

    return [("setting", shared), ("comparison", compared)]


def _differing(study: Study, row: Row) -> tuple[str, Scalar, Scalar]:
    """The axis in which the cells of a pair differ, and its two values."""
    a, b = (study.cells[row[name]].axes for name in ("reference", "cell"))
    return next((name, value, other) for (name, other), (_, value) in zip(a, b, strict=True) if value != other)


def one_row_per_cell(table: pd.DataFrame) -> pd.DataFrame:
    """The cells of a table that has several rows for each of them."""
    return pd.DataFrame({"cell": list(dict.fromkeys(table["cell"]))})


# ------------------------------------------------------------------------------------------------------ a whole table


def _no_columns(analysis: Analysis) -> list[Column]:
    return []


@dataclass(frozen=True)
class TableSpec:
    """A table of the report: all that is said about it anywhere.

    `name` is that of its files and, as a rule, of the table of the analysis that it shows. A table that the analysis
    does not make says how in `data`, one that shows other rows than its file in `rows`.
    """

    name: str
    caption: str
    columns: Columns = _no_columns  # numbers; one that knows nothing in any row is left out
    labels: Columns = labels_of_axes  # words, left of the numbers
    folded: bool = False  # behind its caption, to be opened
    data: Callable[[Analysis], pd.DataFrame] | None = None
    rows: Callable[[pd.DataFrame], pd.DataFrame] | None = None
    for_paper: tuple[tuple[str, ...], str] | None = None  # the columns that fit a page, and a caption of these

    def frame(self, analysis: Analysis) -> pd.DataFrame:
        """What its CSV file and the JSON summary hold."""
        return self.data(analysis) if self.data is not None else analysis.tables[self.name]

    def text(self, analysis: Analysis) -> TextTable | None:
        """The table as text; None where it has no rows, or none of its numbers is known anywhere."""
        data = self.frame(analysis)
        if not len(data):
            return None
        rows = (data if self.rows is None else self.rows(data)).to_dict("records")
        labels, columns = self.labels(analysis), self.columns(analysis)
        texts = [(name, [form(row) for row in rows], False) for name, form in labels]
        numbers = [(name, [form(row) for row in rows], True) for name, form in columns]
        known = [column for column in numbers if any(text != "–" for text in column[1])]
        if columns and not known:
            return None
        names, values, numeric = zip(*texts, *known, strict=True)
        header = tuple(name.replace("95 %", "95\u00a0%") for name in names)  # they break nowhere else
        return TextTable(self.name, self.caption, header, tuple(zip(*values, strict=True)), numeric)
