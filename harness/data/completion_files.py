"""Files for a causal language model, one JSON object a row: a prompt and its completion, a conversation, or a text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from harness.common.errors import HarnessError
from harness.common.metrics import LANGUAGE, Metric
from harness.common.text import is_unicode
from harness.config.recipe import TaskSpec
from harness.data import holdout, structured_files
from harness.data.embedded import answers
from harness.data.examples import SPLITS, Raw, Rows, sha256_of
from harness.data.glue import EMBEDDED
from harness.data.text_columns import no_rows, refuse, short, unit_of
from harness.data.text_files import decoded, find

SUFFIXES = (".jsonl", ".json", ".parquet")
_FORMS = '{"prompt": "…", "completion": "…"}, {"messages": [{"role": "user", "content": "…"}, …]} or {"text": "…"}'


@dataclass(frozen=True)
class Example:
    """What a row holds: a prompt, or a conversation before its answer as JSON; the answer; what that is compared with.

    `answer` is None in a file to predict on that has none.
    """

    number: int
    prompt: str
    answer: str | None
    choices: tuple[str, ...] | None
    chat: bool


def load(spec: TaskSpec) -> Raw:
    """The splits of a task's files; raises HarnessError for a row without a prompt or an answer."""
    if spec.files is None and spec.name == EMBEDDED:
        splits = {f"embedded {split}": answers.examples(split) for split in ("train", "validation")}
        return raw_of(spec, [(source, _shipped(rows, source, spec)) for source, rows in splits.items()])
    if spec.files is None or spec.name == EMBEDDED:
        raise HarnessError(
            "task.kind: completion requires task.files with prompts and completions",
            got=f"task.name: {spec.name}",
            fix="Set task.files and a name of your own, or task.kind: texts",
        )
    tables = [(str(path), examples(path, spec)) for path in find(spec, spec.files).values()]
    if spec.validation is not None:
        source, rows = tables[0]
        keys = [(row.prompt, row.answer or "") for row in rows]
        parts = holdout.parted(rows, keys, None, spec.validation, spec.validation_seed)
        tables[:1] = [(source, part) for part in parts]
    return raw_of(spec, tables)


def _shipped(rows: Iterable[object], source: str, spec: TaskSpec) -> list[Example]:
    return [_example(row, number, source, spec, answers=True) for number, row in enumerate(rows, 1)]


def raw_of(spec: TaskSpec, tables: Sequence[tuple[str, Sequence[Example]]]) -> Raw:
    """The task of examples of each split in order, each with its source.

    Raises HarnessError where the metric is accuracy and an example that is scored has no choices.
    """
    metric: Metric = spec.metric or "loss"
    compares = metric not in LANGUAGE
    names = _same_choices([row for _, rows in tables for row in rows]) if compares else ()
    splits = [
        _rows(source, rows, names, scored=split != "train" and compares)
        for (source, rows), split in zip(tables, SPLITS, strict=False)
    ]
    if compares and len({len(rows.choices[0]) for rows in splits[1:] if rows.choices}) > 1:
        raise HarnessError(f"{splits[2].source} has another number of choices than {splits[1].source}")
    return Raw(
        spec.name, metric, names, splits[0], splits[1], sha256_of(splits), *splits[2:], kind="completion",
        loss_on=spec.loss_on,
    )  # fmt: skip


def _same_choices(rows: Iterable[Example]) -> tuple[str, ...]:
    """The choices in the order of the first row that has any, where all rows have the same; else nothing."""
    given = [row.choices for row in rows if row.choices is not None]
    return given[0] if len({frozenset(choices) for choices in given}) == 1 else ()


def _rows(source: str, rows: Sequence[Example], names: tuple[str, ...], *, scored: bool) -> Rows:
    choices = [(names or row.choices) if row.choices is not None else None for row in rows]
    labels = np.zeros(len(rows), dtype=np.int64)
    for place, (row, own) in enumerate(zip(rows, choices, strict=True) if scored else ()):
        if own is None:
            refuse("no choices, which metric accuracy compares", source, row.number, allowed='"choices": ["…", "…"]')
        if len(own) != len(choices[0] or ()):
            problem = f"{len(own)} choices, and the first row has {len(choices[0] or ())}"
            refuse(problem, source, row.number, fix="Give every row as many")
        labels[place] = own.index(row.answer or "")
    return Rows(
        texts=tuple(row.prompt for row in rows),
        pairs=tuple(row.answer or "" for row in rows),
        labels=labels,
        source=source,
        unit=unit_of(source),
        numbers=[row.number for row in rows],
        choices=tuple(own or () for own in choices) if scored else None,
        chat=bool(rows) and rows[0].chat,
        answers=True,
    )


def examples(path: Path, spec: TaskSpec, *, answers: bool = True, predicts: bool = False) -> list[Example]:
    """The rows of a file, all of one form; without `answers` they may lack them, to be predicted on.

    A text alone is learned whole, and where it is predicted on it is what the model goes on from.
    Raises HarnessError for a row of no form or of another than the first.
    """
    suffix, source = path.suffix.lower(), str(path)
    if suffix not in SUFFIXES:
        raise HarnessError(
            f"cannot read {source}: unknown file type '{suffix}' for prompts and completions",
            allowed=", ".join(SUFFIXES),
            fix="Write one JSON object per line, as .jsonl",
        )
    rows: list[Example] = []
    for number, value in _objects(path, suffix, spec):
        rows.append(_example(value, number, source, spec, answers, predicts))
        if rows[-1].chat != rows[0].chat:
            refuse("a conversation among rows without one", source, number, fix="Give all rows one form")
    if not rows:
        raise no_rows(source)
    return rows


def _objects(path: Path, suffix: str, spec: TaskSpec) -> Iterable[tuple[int, object]]:
    if suffix == ".parquet":
        return enumerate(structured_files.of_parquet(path), 1)
    text = decoded(path, encoding=spec.encoding)
    whole = structured_files.of_json(text, str(path)) if suffix == ".json" else None
    if whole is not None:
        return enumerate(whole, 1)
    return structured_files.of_json_lines(text)


def _example(value: object, number: int, source: str, spec: TaskSpec, answers: bool, predicts: bool = False) -> Example:
    prompt_key, answer_key = str(spec.text or "prompt"), str(spec.label or "completion")
    if not isinstance(value, dict):
        refuse(f"not an object: {short(value)}", source, number, allowed=_FORMS)
    prompt, answer = value.get(prompt_key), value.get(answer_key)
    if isinstance(messages := value.get("messages"), list):
        prompt, answer = _conversation(messages, number, source, answers)
    elif isinstance(prompt, list):  # messages too, with the answer's beside them
        prompt, answer = _conversation([*prompt, *(answer or ())], number, source, answers)
    elif prompt is None and answer is None and value.get("text") is not None:
        text = _text(value["text"], "text", source, number)
        return Example(number, "", text, None, chat=False) if answers else Example(number, text, None, None, chat=False)
    else:
        for key in (prompt_key, *((answer_key,) if answers else ())):
            if key not in value:
                _refuse_keys(key, value, source, number, predicts)
        prompt = _text(prompt, prompt_key, source, number, blank=True)
        answer = None if answer is None and not answers else _text(answer, answer_key, source, number)
    chat = isinstance(messages, list) or isinstance(value.get(prompt_key), list)
    return Example(number, prompt, answer, _choices(value.get("choices"), answer, number, source), chat)


def _text(value: object, key: str, source: str, number: int, blank: bool = False) -> str:
    if value is None or (isinstance(value, str) and not (blank or value.strip())):
        refuse(f"no text in {key}", source, number, fix="Correct or remove that row")
    if not isinstance(value, str):
        refuse(f"{key} must be a text", source, number, got=short(value), fix="Put it in quotes")
    if not is_unicode(value):
        refuse(f"{key} has a NUL or half a surrogate pair in it", source, number, fix="Correct or remove that row")
    return value


def _refuse_keys(key: str, value: dict[str, object], source: str, number: int, predicts: bool) -> NoReturn:
    """Raise the HarnessError of a row that lacks a key, with those that it has."""
    refuse(
        f"no key {key}", source, number, got=short(", ".join(map(str, value))) or "no key at all", allowed=_FORMS,
        fix=f"Name other keys with {'--text and --label' if predicts else 'task.text and task.label'}",
    )  # fmt: skip


def _conversation(messages: Sequence[object], number: int, source: str, answers: bool) -> tuple[str, str | None]:
    """The messages before the answer, as JSON, and the answer: the last one's, of the role assistant."""
    checked: list[dict[str, str]] = []
    for message in messages:
        role, content = (message.get(key) if isinstance(message, dict) else None for key in ("role", "content"))
        if not isinstance(role, str) or not isinstance(content, str) or not is_unicode(content):
            refuse(f"not a message: {short(message)}", source, number, allowed='{"role": "user", "content": "…"}')
        checked.append({"role": role, "content": content})
    answer = checked.pop()["content"] if checked and checked[-1]["role"] == "assistant" else None
    if not checked or (answer is None and answers):
        refuse("messages do not end with the assistant's answer", source, number, fix="Correct that row")
    if answer is not None and not answer.strip():
        refuse("an empty answer", source, number, fix="Correct that row")
    return json.dumps(checked, ensure_ascii=False), answer


def _choices(value: object, answer: str | None, number: int, source: str) -> tuple[str, ...] | None:
    if value is None:
        return None
    texts = value if isinstance(value, list) else []
    if len(texts) < 2 or not all(isinstance(text, str) and text.strip() and is_unicode(text) for text in texts):
        refuse("choices must be a list of two texts or more", source, number, got=short(value))
    if len(set(texts)) < len(texts):
        refuse("two choices are the same", source, number, got=short(value))
    if answer is not None and answer not in texts:
        refuse(f"the completion '{short(answer)}' is none of the choices", source, number, allowed=short(value))
    return tuple(texts)
