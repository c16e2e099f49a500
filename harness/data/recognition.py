"""Which kind of task a data file looks like that has not the columns of texts and labels: by its first row alone."""

from __future__ import annotations

import csv
import itertools
import json
import re
from collections.abc import Mapping
from pathlib import Path

from harness.common.errors import HarnessError
from harness.data import choice_files, structured_files, text_files

_HEAD = 2**20  # characters of a text file that are read
_WORDS, _TAGS = ("words", "tokens"), ("tags", "ner_tags", "labels")


def hint(path: Path, *, alone: bool = False) -> HarnessError | None:
    """What is wrong with reading a file as texts and labels, and what to set; None where that can't be told.

    `alone`: it is the only file, so that a dev split has to be made of it.
    """
    row = _first_row(path)
    for kind, what, more, fits in (
        ("span", "questions about contexts", "", _is_span(row)),
        ("completion", "prompts and completions", "", _is_completion(row)),
        ("choice", "multiple choice", "", _is_choice(row)),
        ("tokens", "words with a tag each", "", _is_tokens(row)),
        ("labels", "texts with any number of labels", _label_key(row), bool(_label_key(row))),
    ):
        if fits:
            label = f" and task.label={more}" if more else ""
            return HarnessError(
                f"{path} looks like {what}, and task.kind is texts",
                got=", ".join(map(str, row))[:160],
                fix=f"Set task.kind={kind}{label}{' and task.validation=0.1' if alone else ''}",
            )
    return None


def _first_row(path: Path) -> Mapping[str, object]:
    """The first row's columns and their values; of SQuAD's JSON what the file holds; nothing where it can't be read."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            return next(structured_files.of_parquet(path), {})
        with path.open(encoding="utf-8") as file:
            if suffix in (".json", ".jsonl"):
                value = json.load(file) if suffix == ".json" else json.loads(file.readline())
                if isinstance(value, dict) and isinstance(value.get("data"), list) and value["data"]:
                    value = value["data"]
                value = value[0] if isinstance(value, list) and value else value
                return value if isinstance(value, dict) else {}
            text = file.read(_HEAD)
    except (OSError, ValueError, RecursionError, HarnessError):
        return {}
    delimiter = text_files.delimiter_of(suffix, text.partition("\n")[0])
    try:
        rows = list(itertools.islice(csv.reader(text.splitlines(), delimiter=delimiter), 2))
    except csv.Error:
        return {}
    return dict(zip(rows[0], rows[1], strict=False)) if len(rows) == 2 else {}


def _is_span(row: Mapping[str, object]) -> bool:
    return isinstance(row.get("paragraphs"), list) or {"question", "context", "answers"} <= set(row)


def _is_completion(row: Mapping[str, object]) -> bool:
    return isinstance(row.get("messages"), list) or {"prompt", "completion"} <= set(row)


def _is_choice(row: Mapping[str, object]) -> bool:
    if any(isinstance(row.get(name), list | dict) for name in choice_files.LISTS):
        return True
    stems = "|".join(choice_files.STEMS)
    return len([name for name in row if re.fullmatch(rf"({stems})_?\d{{1,2}}", str(name))]) > 1


def _is_tokens(row: Mapping[str, object]) -> bool:
    words, tags = (next((row[name] for name in names if name in row), None) for names in (_WORDS, _TAGS))
    return isinstance(words, list) and isinstance(tags, list) and len(words) == len(tags)


def _label_key(row: Mapping[str, object]) -> str:
    """The column of a list of labels beside a text; empty where there is none. `label` itself the reader tells of."""
    if not isinstance(row.get("text"), str):
        return ""
    for name in ("labels", "tags", "topics", "categories"):
        value = row.get(name)
        if isinstance(value, list) and all(isinstance(label, str) for label in value):
            return name
    return ""
