"""Files of multiple choice: a text, what may follow it (a list, or a column for each), and which of them is right."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.common.errors import HarnessError
from harness.common.metrics import Metric
from harness.common.text import count_noun, is_unicode
from harness.config.recipe import TaskSpec
from harness.data import holdout, hub_data, text_files
from harness.data.embedded import choices as embedded_choices
from harness.data.examples import Raw, Rows, sha256_of
from harness.data.glue import EMBEDDED, GLUE, Glue
from harness.data.text_columns import WantedColumns, no_rows, refuse, short, unit_of

SUFFIXES = text_files.SUFFIXES
# Names of columns that are known where the task names none, the first that is there: SWAG's, HellaSwag's, RACE's, ….
_TEXTS = ("text", "context", "premise", "sent1", "ctx", "article", "question")
_STARTS = ("text_pair", "sent2", "question")
LISTS = ("choices", "endings", "options")
STEMS = ("ending", "choice", "option", "answer", "sol")
_LABELS = ("label", "answer", "answerKey")
# COPA's columns, whose question says which way a choice follows.
_COPA = ("premise", "question", "choice1", "choice2")
_JOINED = {"cause": "because", "effect": "so"}
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MOST_CHOICES = len(_LETTERS)


@dataclass(frozen=True)
class Example:
    """A row: its number in the file, the text, what may follow it, and how the file spells which of them is right."""

    number: int
    text: str
    choices: tuple[str, ...]
    label: str | None  # None in a file to predict on that has none

    def position(self, names: Sequence[str]) -> int | None:
        """Which choice is right, by its name or as a text; None where the label is neither."""
        if self.label in names:
            return names.index(self.label)
        return _index_of(self.choices, self.label)


def load(spec: TaskSpec) -> Raw:
    """The splits of a task's files; raises HarnessError for a row without choices or with a label that is none."""
    if spec.name == EMBEDDED and spec.files is None:
        shipped = {f"embedded {split}": embedded_choices.examples(split) for split in ("train", "validation")}
        return raw_of(spec, [(source, list(_examples(enumerate(rows, 1), source, spec)))
                             for source, rows in shipped.items()])  # fmt: skip
    if spec.files is None and (glue := GLUE.get(spec.name)) is not None and glue.kind == spec.kind:
        return raw_of(spec, list(_fetched(spec, glue)))
    if spec.files is None or spec.name == EMBEDDED:
        raise HarnessError(
            "task.kind: choice requires task.files with texts and choices",
            got=f"task.name: {spec.name}",
            fix="Set task.files and a name of your own, or task.kind: texts",
        )
    tables = [(str(path), examples(path, spec)) for path in text_files.find(spec, spec.files).values()]
    if spec.validation is not None:
        source, rows = tables[0]
        keys = [(row.text, *row.choices) for row in rows]
        parts = holdout.parted(rows, keys, None, spec.validation, spec.validation_seed)
        tables[:1] = [(source, part) for part in parts]
    return raw_of(spec, tables)


def _fetched(spec: TaskSpec, glue: Glue) -> Iterator[tuple[str, list[Example]]]:
    """The splits of a task from the hub or its cache."""
    for name, split in hub_data.fetch(spec.name, glue).items():
        source = f"{glue.repository} {spec.name} {name}"
        columns = {column: split[column][:] for column in split.column_names if column != "idx"}
        rows = zip(*columns.values(), strict=True)  # a label is a number there
        objects = ({name: str(value) for name, value in zip(columns, row, strict=True)} for row in rows)
        yield source, list(_examples(enumerate(objects, 1), source, spec))


def examples(path: Path, spec: TaskSpec, wants: WantedColumns | None = None) -> list[Example]:
    """The rows of a file; a file to predict on has the columns that it `wants`, and may lack labels.

    All rows have as many choices as the first. Raises HarnessError for a row that is none.
    """
    return list(_examples(text_files.keyed_rows(path, spec), str(path), spec, wants))


def raw_of(spec: TaskSpec, tables: Sequence[tuple[str, Sequence[Example]]]) -> Raw:
    """The task of examples of each split in order, each with its source; raises HarnessError for labels that are none.

    Its label names are the choices' positions as the files spell them: from 0, from 1 or as letters; of labels that are
    texts from 0.
    """
    count = len(tables[0][1][0].choices)
    for source, rows in tables:
        if len(rows[0].choices) != count:
            _refuse_count(rows[0], count, f"{tables[0][0]} has", source)
    names = _names(tables, count)
    splits = [_rows(source, rows, names) for source, rows in tables]
    metric: Metric = spec.metric or "accuracy"
    return Raw(spec.name, metric, names, splits[0], splits[1], sha256_of(splits), *splits[2:], kind="choice")


def _rows(source: str, rows: Sequence[Example], names: Sequence[str]) -> Rows:
    return Rows(
        texts=tuple(row.text for row in rows),
        pairs=None,
        labels=np.array([row.position(names) for row in rows], dtype=np.int64),
        source=source,
        unit=unit_of(source),
        numbers=[row.number for row in rows],
        choices=tuple(row.choices for row in rows),
    )


# ------------------------------------------------------------------------------------------------------------- a row


def _examples(
    objects: Iterator[tuple[int, Mapping[str, object]]],
    source: str,
    spec: TaskSpec,
    wants: WantedColumns | None = None,
) -> Iterator[Example]:
    layout: _Layout | None = None
    count = 0
    for number, row in objects:
        layout = layout or _Layout.choose(tuple(row), spec, source, wants)
        example = layout.example(row, number, source)
        count = count or len(example.choices)
        if len(example.choices) != count:
            _refuse_count(example, count, "the first row has", source)
        yield example
    if layout is None:
        raise no_rows(source)


def _refuse_count(example: Example, count: int, where: str, source: str) -> None:
    refuse(
        f"{count_noun(len(example.choices), 'choice')}, and {where} {count}", source, example.number,
        fix="Give every row as many choices",
    )  # fmt: skip


@dataclass(frozen=True)
class _Layout:
    """Which columns are in use."""

    text: str
    start: str | None  # what stands before each choice
    choices: str | tuple[str, ...]  # of a list, or of each
    label: str | None
    copa: bool

    @classmethod
    def choose(cls, names: Sequence[str], spec: TaskSpec, source: str, wants: WantedColumns | None) -> _Layout:
        """Find the columns among the names there are; to predict on, as a file `wants` them."""

        def find(role: str, wanted: str | int | None, known: Sequence[str], required: bool) -> str | None:
            candidates = [str(wanted)] if wanted is not None else [name for name in known if name in names]
            if candidates and candidates[0] in names:
                return candidates[0]
            if not required and (wanted is None or role == "label"):  # a file to predict on may have no labels
                return None
            column = candidates[0] if candidates else " or ".join(known)
            purpose = f"task.{role}" if wants is None else wants.purpose(role)
            raise HarnessError(
                f"{source} has no column {column} for {purpose}",
                allowed=", ".join(map(short, names)) or "none",
                fix=f"Set task.{role}" if wants is None else wants.option(role),
            )

        copa = set(_COPA) <= set(names) and spec.text is None and spec.text_pair is None and spec.choices is None
        choices = _COPA[2:] if copa else _choice_columns(names, spec, source)
        left = [name for name in names if name not in choices] if isinstance(choices, tuple) else names
        text = find("text", spec.text, [name for name in _TEXTS if name in left], required=True)
        assert text is not None
        starts = ["question"] if copa else [name for name in _STARTS if name in left and name != text]
        start = find("text_pair", spec.text_pair, starts, required=False)
        taken = (text, start, choices)
        labels = [name for name in _LABELS if name in left and name not in taken] or [_LABELS[0]]
        return cls(text, start, choices, find("label", spec.label, labels, required=wants is None or wants.label), copa)

    def example(self, row: Mapping[str, object], number: int, source: str) -> Example:
        """A row as an example; raises HarnessError for what lacks in it."""
        text = _text(row.get(self.text), f"text in column {self.text}", number, source)
        start = "" if self.start is None else _text(row.get(self.start), f"text in column {self.start}", number, source)
        if self.copa:
            if start not in _JOINED:
                refuse(f"the question is '{short(start)}'", source, number, allowed=" or ".join(_JOINED))
            text, start = f"{text} {_JOINED[start]}", ""
        choices = self._choices(row, number, source)
        if len(set(choices)) < len(choices):
            refuse("two choices are the same", source, number, got=_shown(choices), fix="Correct or remove that row")
        if start:
            choices = tuple(f"{start} {choice}" for choice in choices)
        return Example(number, text, choices, self._label(row, choices, start, number, source))

    def _choices(self, row: Mapping[str, object], number: int, source: str) -> tuple[str, ...]:
        if isinstance(self.choices, tuple):
            return tuple(_text(row.get(name), f"choice in column {name}", number, source) for name in self.choices)
        value = row.get(self.choices)
        if isinstance(value, str) and value.startswith("["):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                value = None
        if isinstance(value, dict):  # {"text": [...], "label": [...]}, as ARC and CommonsenseQA have it
            value = value.get("text")
        if not isinstance(value, list) or not 2 <= len(value) <= MOST_CHOICES:
            problem = f"{self.choices} must be a list of 2 to {MOST_CHOICES} texts"
            fix = "Correct or remove that row"
            if isinstance(value, str):  # a column of one choice
                fix += f", or name a column for each choice: task.choices=[{self.choices}, …]"
            got = short(value) if not isinstance(value, list) else count_noun(len(value), "choice")
            refuse(problem, source, number, got=got, fix=fix)
        return tuple(_text(choice, f"text in {self.choices}", number, source) for choice in value)

    def _label(
        self, row: Mapping[str, object], choices: Sequence[str], start: str, number: int, source: str
    ) -> str | None:
        if self.label is None:
            return None
        value = row.get(self.label)
        if isinstance(value, bool):
            value = str(value).lower()
        label = _text(value, f"label in column {self.label}", number, source).strip()
        follows = f"{start} {label}" if start else label
        return follows if follows in choices else label


def _choice_columns(names: Sequence[str], spec: TaskSpec, source: str) -> str | tuple[str, ...]:
    """The column of a list of choices, or those of each in their order."""
    wanted = (spec.choices,) if isinstance(spec.choices, str) else spec.choices
    for name in wanted or ():
        if name not in names:
            raise HarnessError(
                f"{source} has no column {short(name)} for task.choices",
                allowed=", ".join(map(short, names)) or "none",
                fix="Set task.choices",
            )
    if spec.choices is not None:
        return spec.choices
    if listed := [name for name in LISTS if name in names]:
        return listed[0]
    for stem in STEMS:
        numbered = {int(match[1]): name for name in names if (match := re.fullmatch(rf"{stem}_?([0-9]{{1,2}})", name))}
        in_order = tuple(numbered[number] for number in sorted(numbered))
        if len(in_order) > 1 and sorted(numbered) == list(range(min(numbered), min(numbered) + len(numbered))):
            return in_order
    raise HarnessError(
        f"{source} has no column of choices",
        got=", ".join(map(short, names)) or "none",
        allowed="choices, a list; or ending0, ending1, …; or choice1, choice2, …",
        fix="Set task.choices to a column of lists, or to the columns of the choices",
    )


def _text(value: object, what: str, number: int, source: str) -> str:
    if not isinstance(value, str) or not value.strip() or "\0" in value or not is_unicode(value):
        refuse(f"no {what}", source, number, fix="Correct or remove that row")
    return value


def _shown(choices: Sequence[str]) -> str:
    return short(", ".join(f"'{choice}'" for choice in choices))


# ------------------------------------------------------------------------------------------------------------ labels


def _names(tables: Sequence[tuple[str, Sequence[Example]]], count: int) -> tuple[str, ...]:
    """How the files spell the choices' positions: from 0, from 1, or as letters; of labels that are texts from 0.

    Raises HarnessError for a label that is none of them, and where two readings are possible.
    """
    rows = [(source, row) for source, of_source in tables for row in of_source]
    from_0 = tuple(map(str, range(count)))
    spellings = (from_0, tuple(map(str, range(1, count + 1))), tuple(_LETTERS[:count]))
    readings = [(names, [_index_of(names, row.label) for _, row in rows]) for names in spellings]
    readings.append((from_0, [_index_of(row.choices, row.label) for _, row in rows]))
    complete = [(names, positions) for names, positions in readings if None not in positions]
    if not complete:
        names, positions = max(readings, key=lambda reading: sum(position is not None for position in reading[1]))
        source, row = rows[positions.index(None)]
        refuse(
            f"the label '{short(row.label)}' is no choice", source, row.number,
            allowed=f"{', '.join(names)}, or the text of a choice",
            fix="Correct that row, or set task.label",
        )  # fmt: skip
    if any(positions != complete[0][1] for _, positions in complete):
        spelt = " or ".join(dict.fromkeys(f"{', '.join(names)}" for names, _ in complete))
        raise HarnessError(
            f"{tables[0][0]}: the labels can be read in two ways",
            got=", ".join(sorted({short(row.label) for _, row in rows})[:10]),
            allowed=f"{spelt}, or the texts of the choices",
            fix="Write the labels as letters (A, B, …), or all of them from 0",
        )
    return complete[0][0]


def _index_of(names: Sequence[str], label: str | None) -> int | None:
    return names.index(label) if label in names else None
