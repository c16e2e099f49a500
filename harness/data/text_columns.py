"""Which columns of a data file are meant, and its rows as texts and labels; a wrong row is refused by its number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from harness.common.errors import HarnessError
from harness.common.text import is_unicode
from harness.config.recipe import TaskSpec
from harness.data.glue import OWN, Glue


@dataclass(frozen=True)
class TextTable:
    """A split as found: the columns in use, and each row's number in its source, for messages."""

    source: str
    unit: str  # what the numbers count: lines of a file, rows of a data set
    numbers: Sequence[int]
    texts: Sequence[str]
    pairs: Sequence[str] | None
    labels: Sequence[str]
    groups: Sequence[int] | None = None  # which question each row is of, where a question has several


MOST_LABEL = 200  # characters: a longer one is a text, or a number that no float holds


class Missing:
    """What stands where a JSON object lacks a key."""


MISSING = Missing()


@dataclass(frozen=True)
class WantedColumns:
    """Which columns a file must have beside the text, one to predict on or one of a sweep."""

    pairs: bool
    label: bool
    predicts: bool = True

    def purpose(self, role: str) -> str:
        """What the column of a role is called where it is not found."""
        return f"the {role.replace('_', ' ')}" if self.predicts else f"task.{role}"

    def option(self, role: str) -> str:
        """What to do where the column of a role is not found."""
        return f"Name it with --{role.replace('_', '-')}" if self.predicts else f"Set task.{role}"


@dataclass(frozen=True)
class Columns:
    """Which columns are in use, counted from 0."""

    text: int
    pair: int | None
    label: int | None  # None in data to predict on alone

    @property
    def used(self) -> tuple[int, ...]:
        """The columns in use, the label last."""
        return tuple(column for column in (self.text, self.pair, self.label) if column is not None)

    @classmethod
    def choose(
        cls,
        names: Sequence[str],
        spec: TaskSpec,
        glue: Glue,
        source: str,
        by_index: bool,
        wants: WantedColumns | None = None,
    ) -> Columns:
        """Find the columns among the names of a header, of JSON keys or of a data set; to predict on, as it `wants`."""

        def find(role: str, wanted: str | int | None, defaults: Sequence[str], required: bool) -> int | None:
            if isinstance(wanted, int) and by_index and 0 <= wanted < len(names):
                return wanted
            candidates = [wanted] if wanted is not None else [name for name in defaults if name in names]
            if wanted is None and not candidates and not required:
                return None
            places = [position for position, name in enumerate(names) if candidates and name == candidates[0]]
            if len(places) == 1:
                return places[0]
            twice = len(places) > 1
            if wanted is None and not twice:
                problem = f"no column {' or '.join(defaults)}"
            else:
                problem = f"{'two columns' if twice else 'no column'} {candidates[0]}"
            allowed = ", ".join(map(short, names)) or "none"
            raise HarnessError(
                f"{source} has {problem} for {f'task.{role}' if wants is None else wants.purpose(role)}",
                allowed=f"{allowed}, or an index from 0 to {len(names) - 1}" if by_index else allowed,
                fix="Rename one" if twice else wants.option(role) if wants else f"Set task.{role}",
            )

        text = find("text", spec.text, glue.text, required=True)
        assert text is not None
        if wants is None:
            pair = find("text_pair", spec.text_pair, glue.pair, required=glue is not OWN and bool(glue.pair))
            label = find("label", spec.label, glue.label, required=True)
        else:
            pair = find("text_pair", spec.text_pair, glue.pair, required=True) if wants.pairs else None
            there = spec.label is None or wants.label or spec.label in names
            label = find("label", spec.label, glue.label, required=wants.label) if there else None
        if len({text, pair, label} - {None}) < 1 + (pair is not None) + (label is not None):
            raise HarnessError(
                f"{source}: task.text, task.text_pair and task.label must be different columns",
                got=f"columns {text}, {'none' if pair is None else pair} and {label}",
            )
        return cls(text, pair, label)


def layout(
    first: Sequence[str], spec: TaskSpec, glue: Glue, source: str, wants: WantedColumns | None = None
) -> tuple[Columns, list[str], bool]:
    """The columns in use, their names, and whether the first row is the header."""
    first = [name.strip() for name in first]
    width = len(first)
    header = spec.header is not False
    if spec.header is None and glue.headerless and width == 4 and not set(glue.text) & set(first):
        header = False
        text, label = glue.headerless
        spec = spec.model_copy(
            update={
                "text": text if spec.text is None else spec.text,
                "label": label if spec.label is None else spec.label,
            }
        )
    if header:
        return Columns.choose(first, spec, glue, source, True, wants), list(first), True
    pair = glue is not OWN and bool(glue.pair) if wants is None else wants.pairs
    needs = {"text": True, "text_pair": pair, "label": wants is None or wants.label}
    for role, wanted in (("text", spec.text), ("text_pair", spec.text_pair), ("label", spec.label)):
        if isinstance(wanted, str) or (wanted is None and needs[role]):
            raise HarnessError(
                f"{source}: task.{role} must be an index from 0 to {width - 1}, since the file has no header",
                got="nothing" if wanted is None else wanted,
                fix=f"Set task.{role} to an index, or task.header=true",
            )
    names = [str(index) for index in range(width)]
    return Columns.choose(names, spec, glue, source, True, wants), names, False


def table_of(
    source: str,
    unit: str,
    rows: Iterable[tuple[int, Sequence[object]]],
    columns: Columns,
    names: Sequence[str],
    blank: bool = False,
) -> TextTable:
    """The columns in use of a file's rows.

    Args:
        source: The file, for errors.
        unit: What the rows' numbers count: lines or rows.
        rows: Each row with its number.
        columns: Which columns are in use.
        names: The names of all columns, for errors.
        blank: Whether texts may be blank.

    Raises:
        HarnessError: A row lacks something; it names the first that does.
    """
    numbers: list[int] = []
    picked: list[list[str]] = [[] for _ in columns.used]
    for number, row in rows:
        for values, column in zip(picked, columns.used, strict=True):
            value = row[column]
            filled = isinstance(value, str) and (bool(value.strip()) or (blank and column != columns.label))
            if column == columns.label and isinstance(value, str) and len(value) > MOST_LABEL:
                refuse_length("label", value, source, number, unit)
            if filled and isinstance(value, str) and "\0" not in value and is_unicode(value):
                values.append(value.strip() if column == columns.label else value)
            elif isinstance(value, bool) and column == columns.label:
                values.append(str(value).lower())
            else:
                refuse_value(value, column == columns.label, names[column], source, number, unit)
        numbers.append(number)
    if not numbers:
        raise no_rows(source)
    texts, *pairs, labels = picked
    return TextTable(source, unit, numbers, texts, pairs[0] if pairs else None, labels)


def refuse_length(what: str, value: str, source: str, number: int, unit: str = "line") -> NoReturn:
    """Raise the HarnessError of a label or tag that is too long to be one."""
    refuse(
        f"the {what} '{short(value)}' is too long", source, number, unit=unit, got=f"{len(value):,} characters",
        allowed=f"at most {MOST_LABEL}", fix="Set task.label to the column of the labels, or correct that row",
    )  # fmt: skip


def refuse_value(value: object, label: bool, column: str, source: str, number: int, unit: str) -> NoReturn:
    """Raise the HarnessError of a value that is no text, or no label; `number` and `unit` say in which row it is."""
    what, fix = "label" if label else "text", "Correct or remove that row"
    if value is MISSING:
        problem = f"no key {short(column)}"
    elif value is None or (isinstance(value, str) and not value.strip()):
        problem = f"no {what} in column {short(column)}"
    elif isinstance(value, str):
        problem = f"the {what} in column {short(column)} has a NUL or half a surrogate pair in it"
    else:
        takes = "a word or number" if label else "text"
        problem = f"the {what} in column {short(column)} must be {takes} (got a {type(value).__name__})"
        if label and isinstance(value, list):
            fix = "Set task.kind to labels where a text has any number of them, else correct or remove that row"
    refuse(problem, source, number, fix=fix, unit=unit)


# ------------------------------------------------------------------------------------------------------------- refusals


def refuse(
    problem: str,
    source: object,
    line: int,
    *,
    got: str | None = None,
    allowed: str | None = None,
    fix: str | None = None,
    unit: str | None = None,
) -> NoReturn:
    """Raise the HarnessError of a problem in a line of a file, or in what `unit` (as `unit_of`) says."""
    raise HarnessError(f"{source}, {unit or unit_of(source)} {line}: {problem}", got=got, allowed=allowed, fix=fix)


def unit_of(source: object) -> str:
    """What the rows of a file are counted in: lines, or where it may be read as a whole, rows."""
    return "row" if str(source).lower().endswith((".json", ".parquet")) else "line"


def short(value: object) -> str:
    """A value as an error shows it, cut where it is long."""
    text = str(value)
    return text if len(text) <= 60 else text[:59] + "…"


def no_rows(source: str) -> HarnessError:
    """The error of a file without rows."""
    return HarnessError(f"{source} has no rows", fix="Check that it is the right file")
