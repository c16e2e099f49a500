"""The columns that an import is told of, found in its tables."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from harness.common.errors import HarnessError
from harness.records import study
from harness.records.importing.options import ImportOptions
from harness.records.importing.states import NONE
from harness.records.importing.table import SourceTable
from harness.records.importing.text import listed, parse_number, printable, quoted, split_names, storable

SEED_OF_PATH = "the seed of --seed-from"  # the column that --seed-from makes


def require(column: str, option: str, tables: Sequence[SourceTable]) -> None:
    """Raise HarnessError unless every table has a column, under a name that can be kept."""
    for table in tables:
        if column and column in table.columns:
            if storable(column) == column:
                continue
            raise HarnessError(
                f"the column's name {quoted(column)} holds text that UTF-8 cannot encode", fix="Rename it"
            )
        close = [name for name in table.known if column and name.endswith(f".{column}")]
        close = close or difflib.get_close_matches(column, table.known, 3, 0.6)
        raise HarnessError(
            f"{table.label} has no column {quoted(column)} for {option}"
            + (f" (did you mean {listed(close)}?)" if close else ""),
            allowed=listed(table.known),
        )


def wanted(options: ImportOptions) -> set[str]:
    """All names of columns that the options may stand for."""
    names = {options.metric, *options.cell, *(name for text in options.cell for name in split_names(text))}
    for condition in options.where:
        places = [position for position, sign in enumerate(condition) if sign == "="]
        names |= {condition[:position] for position in places} | {
            condition[:position].removesuffix("!") for position in places
        }
    others = ("seed", "majority", "examples", "test", "best", "loss", "state")
    return names | {value for name in others if (value := getattr(options, name))}


def with_seeds_of_paths(tables: Sequence[SourceTable], pattern: str) -> list[SourceTable]:
    """The tables with the seed that `pattern` finds where each run lies, and a column for each of its named groups."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise HarnessError(
            f"--seed-from {quoted(pattern)} is not a regular expression: {error} (for example: 'seed(\\d+)')"
        ) from None
    named = expression.groupindex
    group = (
        "seed" if "seed" in named else next((n for n in range(1, expression.groups + 1) if n not in named.values()), 0)
    )
    if not group:
        raise HarnessError(
            f"--seed-from {quoted(pattern)} has no parentheses around the seed (for example: 'seed(\\d+)')"
        )
    return [_with_seeds(table, expression, group) for table in tables]


def _with_seeds(table: SourceTable, expression: re.Pattern[str], group: str | int) -> SourceTable:
    paths = table.paths or table.places
    matches = [expression.search(path) for path in paths]
    for path, match in zip(paths, matches, strict=True):
        if match is None or match[group] is None:
            raise HarnessError(
                f"--seed-from {quoted(expression.pattern)} finds no seed in {quoted(path, 100)} of {table.label}",
                fix="Change it, or name the folder of the runs that have one",
            )
    columns = {SEED_OF_PATH: [match[group] for match in matches if match]}
    for name in expression.groupindex:
        if name != "seed":
            columns[name] = [match[name] for match in matches if match]
    return replace(table, columns=table.columns | columns, known=(*table.known, *columns))


def cell_columns(given: Sequence[str], tables: Sequence[SourceTable]) -> tuple[str, ...]:
    """The columns that tell cells apart, from the texts of --cell."""
    names: list[str] = []
    for text in given:
        whole = all(text in table.columns for table in tables)
        names += [text] if whole and text else split_names(text) or [text]
    for name in names:
        require(name, "--cell", tables)
    for name, times in Counter(names).items():
        if times > 1:
            raise HarnessError(f"--cell names {quoted(name)} twice", fix="Remove one")
    return tuple(names)


def axis_names(columns: Sequence[str]) -> tuple[dict[str, str], str | None]:
    """The names of the axes, other than those that the table of runs has of its own, and a word on those renamed."""
    taken = {*study.columns(), study.SOURCE, "verdict"}
    names: dict[str, str] = {}
    for column in columns:
        name = column
        while name in taken or (name != column and name in columns):
            name = f"setting {name}"
        names[column] = name
    renamed = [f"{column} ({name})" for column, name in names.items() if column != name]
    note = f"Columns with a name that the report needs for itself are axes of another: {', '.join(renamed)}."
    return names, note if renamed else None


def number_or_column(text: str | None, tables: Sequence[SourceTable], option: str) -> float | str | None:
    """A number, or the name of a column."""
    if text is None:
        return None
    number = parse_number(text)
    if number is not None:
        return number
    require(text, option, tables)
    return text


def check_roles(options: ImportOptions, cell: Sequence[str], tables: Sequence[SourceTable]) -> None:
    """Raise HarnessError for columns that aren't there, or that are to play two parts."""
    named = [("--seed", options.seed), ("--metric", options.metric)]
    named += [(f"--{name}", getattr(options, name)) for name in ("test", "best", "loss")]
    for option, column in named:
        if column is not None:
            require(column, option, tables)
    if options.state is not None and options.state != NONE:
        require(options.state, "--state", tables)
    for column in cell:
        if column in (options.seed, options.metric, options.state):
            raise HarnessError(
                f"--cell cannot name {quoted(column)}, which is the seed or the score"
                + (" or the state" if column == options.state else ""),
                fix="Leave it out of --cell",
            )
    _check_directions(options, tables)


def _check_directions(options: ImportOptions, tables: Sequence[SourceTable]) -> None:
    for table in tables:
        against = table.minimised if options.higher_is_better else table.maximised
        if options.metric in against:
            way, other = ("minimizes", "--lower-is-better") if options.higher_is_better else ("maximizes", "")
            raise HarnessError(
                f"{table.tool} {way} {printable(options.metric)} in {table.label}, but "
                f"{'--higher-is-better' if options.higher_is_better else '--lower-is-better'} is set",
                fix=f"Set {other}, or name another --metric"
                if other
                else "Leave --lower-is-better out, or name another --metric",
            )
