"""What a file to predict on holds: texts that are answered one by one, or sentences whose words are."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from harness.common.text import count_noun
from harness.config.recipe import TaskSpec
from harness.data import choice_files, text_files, token_files
from harness.data.choice_files import Example
from harness.data.examples import NO_LABEL, Rows
from harness.data.text_columns import WantedColumns, refuse
from harness.data.text_files import Line
from harness.data.token_files import TaggedSentence

Row = Line | TaggedSentence | Example


def chunks(path: Path, spec: TaskSpec, size: int, *, pairs: bool, label: bool) -> Iterator[list[Row]]:
    """The rows of a file in their order, so many at once; `label` says that they must have labels or tags.

    Texts are read as they are asked for, sentences whole. Raises HarnessError as `text_files.stream` and `token_files`.
    """
    rows: Iterator[Row]
    if spec.kind == "tokens":
        rows = iter(token_files.sentences(path, spec, label))
    elif spec.kind == "choice":
        rows = iter(choice_files.examples(path, spec, WantedColumns(pairs, label)))
    else:
        rows = text_files.stream(path, spec, pairs, label=label)
    while chunk := list(itertools.islice(rows, size)):
        yield chunk


def with_named_choices(rows: list[Row], names: Sequence[str], source: str) -> list[Row]:
    """Rows of multiple choice whose labels are called as in training, also where the file has the choices' texts.

    Raises HarnessError for another number of choices than there was in training.
    """
    named: list[Row] = []
    for row in rows:
        if isinstance(row, Example):
            if len(row.choices) != len(names):
                problem = f"{count_noun(len(row.choices), 'choice')}, and the model was trained on {len(names)}"
                refuse(problem, source, row.number, fix="Give every row as many choices")
            position = row.position(names)
            row = row if position is None else replace(row, label=names[position])
        named.append(row)
    return named


def answers(rows: Sequence[Row]) -> int:
    """How many answers rows are given: one a text, one a word."""
    return sum(len(row.words) if isinstance(row, TaggedSentence) else 1 for row in rows)


def labels(rows: Sequence[Row]) -> list[str | None]:
    """The label of each answer; None where the file has none."""
    texts: list[str | None] = []
    for row in rows:
        if isinstance(row, TaggedSentence):
            texts += row.tags or [None] * len(row.words)
        else:
            texts.append(row.label)
    return texts


def sizes(rows: Sequence[Row]) -> np.ndarray | None:
    """The words of each sentence [S]; None of texts."""
    words = [len(row.words) for row in rows if isinstance(row, TaggedSentence)]
    return np.array(words) if words else None


def as_examples(sentences: Sequence[TaggedSentence], source: str) -> Rows:
    """Sentences as training has them, each word with a label (0), so that it can be told which token answers for it."""
    labels = np.full((len(sentences), max(len(sentence.words) for sentence in sentences)), NO_LABEL, dtype=np.int64)
    for row, sentence in zip(labels, sentences, strict=True):
        row[: len(sentence.words)] = 0
    return Rows(
        texts=tuple(" ".join(sentence.words) for sentence in sentences),
        pairs=None,
        labels=labels,
        source=source,
        unit="line",
        numbers=[sentence.number for sentence in sentences],
        words=tuple(sentence.words for sentence in sentences),
    )
