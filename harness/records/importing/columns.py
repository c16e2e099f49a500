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
                "a column's name is text", got=quoted(column), allowed="what UTF-8 can hold", fix="rename it"
            )
        close = [name for name in table.known if column and name.endswith(f".{column}")]
        close = close or difflib.get_close_matches(column, table.known, 3, 0.6)
        raise HarnessError(
            f"{option} names a column of every file", got=f"{quoted(column)}, not in {table.label}",
            allowed=listed(table.known), fix=f"did you mean {listed(close)}?" if close else "name one of these",
        )  # fmt: skip


def wanted(options: ImportOptions) -> set[str]:
    """All names of columns that the options may stand for."""
    names = {options.metric, *options.cell, *(name for text in options.cell for name in split_names(text))}
    for condition in options.where:
        places = [place for place, sign in enumerate(condition) if sign == "="]
        names |= {condition[:place] for place in places} | {condition[:place].removesuffix("!") for place in places}
    others = ("seed", "majority", "examples", "test", "best", "loss", "state")
    return names | {value for name in others if (value := getattr(options, name))}


def with_seeds_of_paths(tables: Sequence[SourceTable], pattern: str) -> list[SourceTable]:
    """The tables with the seed that `pattern` finds where each run lies, and a column for each of its named groups."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise HarnessError(
            "--seed-from is a regular expression", got=f"{quoted(pattern)} ({error})", allowed="as 'seed(\\d+)'",
            fix="correct it, in quotes",
        ) from None  # fmt: skip
    named = expression.groupindex
    group = (
        "seed" if "seed" in named else next((n for n in range(1, expression.groups + 1) if n not in named.values()), 0)
    )
    if not group:
        raise HarnessError(
            "--seed-from has the seed in parentheses", got=quoted(pattern), allowed="as 'seed(\\d+)'",
            fix="put parentheses around the seed",
        )  # fmt: skip
    return [_with_seeds(table, expression, group) for table in tables]


def _with_seeds(table: SourceTable, expression: re.Pattern[str], group: str | int) -> SourceTable:
    paths = table.paths or table.places
    matches = [expression.search(path) for path in paths]
    for path, match in zip(paths, matches, strict=True):
        if match is None or match[group] is None:
            raise HarnessError(
                "--seed-from finds a seed in every run's place", got=f"{quoted(path, 100)} in {table.label}",
                allowed=f"what {quoted(expression.pattern)} fits", fix="change it, or name the folder of such runs",
            )  # fmt: skip
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
            raise HarnessError(
                "--cell names a column once", got=quoted(name), allowed="different columns", fix="drop one"
            )
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
                "a column has one part to play",
                got=f"--cell {quoted(column)}, which is the seed or the score"
                + (" or the state" if column == options.state else ""),
                allowed="a setting that tells cells apart", fix="leave it out of --cell",
            )  # fmt: skip
    _check_directions(options, tables)


def _check_directions(options: ImportOptions, tables: Sequence[SourceTable]) -> None:
    for table in tables:
        against = table.minimised if options.higher_is_better else table.maximised
        if options.metric in against:
            way, other = ("minimizes", "--lower-is-better") if options.higher_is_better else ("maximizes", "")
            raise HarnessError(
                "a score is better in the direction that its tool says",
                got=f"{printable(options.metric)}, which {table.tool} {way} in {table.label}",
                allowed=other or "--higher-is-better, as is the default",
                fix="change the direction, or name another --metric",
            )  # fmt: skip
