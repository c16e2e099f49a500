"""Files of questions about contexts, whose answers are parts of these: SQuAD's JSON, or one question a row."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from harness.common.errors import HarnessError
from harness.common.metrics import Metric
from harness.common.text import is_unicode
from harness.config.recipe import TaskSpec
from harness.data import holdout, structured_files
from harness.data.embedded import questions
from harness.data.examples import Raw, Rows, Span, sha256_of
from harness.data.glue import EMBEDDED
from harness.data.text_columns import no_rows, refuse, short
from harness.data.text_files import decoded, find

SUFFIXES = (".json", ".jsonl", ".parquet")
_ANSWERS = '{"text": ["…"], "answer_start": [0]}'
_FORM = f'{{"question": "…", "context": "…", "answers": {_ANSWERS}}}'


@dataclass(frozen=True)
class Question:
    """A question about a context: where it stands in its file, and the answers that are right, if there are any.

    `spans` is None in a file to predict on that has none; `name` is what SQuAD calls `id`.
    """

    number: int
    question: str
    context: str
    spans: tuple[Span, ...] | None
    name: str | None = None


def load(spec: TaskSpec) -> Raw:
    """The splits of a task's files; raises HarnessError for an answer that does not stand in its context."""
    if spec.files is None and spec.name == EMBEDDED:
        shipped = {f"embedded {split}": questions.examples(split) for split in ("train", "validation")}
        tables = [(source, "row", _questions(enumerate(rows, 1), source, spec)) for source, rows in shipped.items()]
        return _raw_of(spec, tables)
    if spec.files is None or spec.name == EMBEDDED:
        raise HarnessError(
            "task.kind: span requires task.files with questions, contexts and answers",
            got=f"task.name: {spec.name}",
            fix="Set task.files and a name of your own, or task.kind: texts",
        )
    tables = [(str(path), unit_of(path), examples(path, spec)) for path in find(spec, spec.files).values()]
    if spec.validation is not None:
        source, unit, rows = tables[0]
        keys = [(row.context,) for row in rows]  # all questions about a context stay together
        parts = holdout.parted(rows, keys, None, spec.validation, spec.validation_seed)
        tables[:1] = [(source, unit, part) for part in parts]
    return _raw_of(spec, tables)


def _raw_of(spec: TaskSpec, tables: Sequence[tuple[str, str, Sequence[Question]]]) -> Raw:
    metric: Metric = spec.metric or "squad_f1"
    splits = [rows_of(*table) for table in tables]
    if not splits[0].labels.any():
        raise HarnessError(
            f"{splits[0].source}: no question of the training data has an answer",
            fix=f"Check task.label, the key of the answers (now {spec.label or 'answers'}), or add such questions",
        )
    return Raw(
        spec.name, metric, (), splits[0], splits[1], sha256_of(splits), *splits[2:], kind="span", stride=spec.stride
    )  # fmt: skip


def rows_of(source: str, unit: str, rows: Sequence[Question]) -> Rows:
    """Questions as a split."""
    spans = tuple(row.spans or () for row in rows)
    return Rows(
        texts=tuple(row.question for row in rows),
        pairs=tuple(row.context for row in rows),
        labels=np.array([bool(own) for own in spans], dtype=np.int64),
        source=source,
        unit=unit,
        numbers=[row.number for row in rows],
        spans=spans,
    )


# ------------------------------------------------------------------------------------------------------------ a file


def unit_of(path: Path) -> str:
    """What a file's questions are counted in: lines, rows, or questions of SQuAD's JSON."""
    return {".jsonl": "line", ".parquet": "row"}.get(path.suffix.lower(), "question")


def examples(path: Path, spec: TaskSpec, *, answers: bool = True) -> list[Question]:
    """The questions of a file; without `answers` they may lack them, to be predicted on.

    Raises HarnessError for a row that is no question, and for an answer that does not stand where it says.
    """
    suffix, source = path.suffix.lower(), str(path)
    if suffix not in SUFFIXES:
        raise HarnessError(
            f"cannot read {source}: unknown file type '{suffix}' for questions and contexts",
            allowed=", ".join(SUFFIXES),
            fix="Write SQuAD's .json, or one JSON object per line, as .jsonl",
        )
    if suffix == ".parquet":
        rows: Iterable[tuple[int, object]] = enumerate(structured_files.of_parquet(path), 1)
    else:
        text = decoded(path, in_lines=suffix != ".json", encoding=spec.encoding)
        rows = _of_json(text, source, spec) if suffix == ".json" else structured_files.of_json_lines(text)
    made = _questions(rows, source, spec, answers=answers, unit=unit_of(path))
    if not made:
        raise no_rows(source)
    return made


def _of_json(text: str, source: str, spec: TaskSpec) -> Iterable[tuple[int, object]]:
    """The questions of SQuAD's JSON, or of a list of rows, alone or as `data`; lines of JSON are read too."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        lines = structured_files.of_json_lines(text)
        if lines and isinstance(lines[0][1], dict):
            return lines
        raise HarnessError(
            f"{source}: not JSON: {getattr(error, 'msg', error)}", allowed=f"SQuAD's JSON, or lines of {_FORM}"
        ) from None
    if isinstance(value, dict):
        value = value.get("data", [value])
    if not isinstance(value, list):
        raise HarnessError(f"{source}: no list of articles or questions", allowed=f"SQuAD's JSON, or lines of {_FORM}")
    return enumerate(_flattened(value, spec), 1)


def _flattened(articles: Sequence[object], spec: TaskSpec) -> Iterator[object]:
    """The questions of articles in their order, each with its context; what is no article stays as it is."""
    context_key = str(spec.text_pair or "context")
    for article in articles:
        paragraphs = article.get("paragraphs") if isinstance(article, dict) else None
        if not isinstance(paragraphs, list):
            yield article
            continue
        for paragraph in paragraphs:
            asked = paragraph.get("qas") if isinstance(paragraph, dict) else None
            if not isinstance(asked, list):
                yield paragraph
                continue
            for question in asked:
                yield {context_key: paragraph.get("context"), **question} if isinstance(question, dict) else question


def _questions(
    rows: Iterable[tuple[int, object]], source: str, spec: TaskSpec, *, answers: bool = True, unit: str = "row"
) -> list[Question]:
    return [_Reader(source, unit, number, spec, answers).question(value) for number, value in rows]


@dataclass(frozen=True)
class _Reader:
    """Reads one row, and says where it stands in what it refuses."""

    source: str
    unit: str
    number: int
    spec: TaskSpec
    answers: bool

    def question(self, row: object) -> Question:
        if not isinstance(row, dict):
            self._refuse(f"not an object: {short(row)}", allowed=_FORM)
        question = self._text(row, str(self.spec.text or "question"))
        context = self._text(row, str(self.spec.text_pair or "context"))
        key, impossible = str(self.spec.label or "answers"), row.get("is_impossible") is True
        spans = None
        if key in row or impossible:
            spans = tuple(self._span(text, start, context) for text, start in self._answers(row.get(key)))
            if impossible and spans:
                self._refuse("is_impossible is true, and there are answers", fix="Correct that row")
        elif self.answers:
            self._refuse(
                f"no key {short(key)}", got=short(", ".join(map(str, row))) or "no key at all", allowed=_FORM,
                fix=f'Give a question without an answer "{key}": []',
            )  # fmt: skip
        name = row.get("id")
        return Question(self.number, question, context, spans, None if name is None else str(name))

    def _text(self, row: Mapping[str, object], key: str) -> str:
        value = row.get(key)
        if not isinstance(value, str) or not is_unicode(value) or not value.strip():
            self._refuse(f"no text in {short(key)}", allowed=_FORM)
        return value

    def _answers(self, value: object) -> list[tuple[object, object]]:
        """Texts and starts of the answers: lists of both, or a list of answers; nothing where there is none."""
        if value is None:
            return []
        if isinstance(value, list) and all(isinstance(answer, dict) for answer in value):
            return [(answer.get("text"), answer.get("answer_start")) for answer in value]
        if isinstance(value, dict):
            texts, starts = value.get("text"), value.get("answer_start")
            if isinstance(texts, str):
                return [(texts, starts)]
            if isinstance(texts, list) and isinstance(starts, list) and len(texts) == len(starts):
                return list(zip(texts, starts, strict=True))
        self._refuse("answers without their places in the context", got=short(value), allowed=_ANSWERS)

    def _span(self, text: object, start: object, context: str) -> Span:
        if not isinstance(text, str) or not is_unicode(text) or not text.strip():
            self._refuse(
                "an answer without a text", got=repr(short(text)), fix='Give a question without one "answers": []'
            )
        if not isinstance(start, int) or isinstance(start, bool):
            self._refuse("answer_start must be a number of characters", got=short(start))
        there = context[max(0, start) : max(0, start) + len(text)]
        if start < 0 or there != text:
            at = context.find(text)
            self._refuse(
                f"the answer '{short(text)}' does not stand at answer_start {start} of the context",
                got=f"'{short(there)}'" if there else None,
                fix="Correct or remove that row" if at < 0 else f"It stands at {at}; characters are counted, not bytes",
            )
        return Span(text, start)

    def _refuse(
        self, problem: str, *, got: str | None = None, allowed: str | None = None, fix: str | None = None
    ) -> NoReturn:
        refuse(problem, self.source, self.number, got=got, allowed=allowed, fix=fix, unit=self.unit)
