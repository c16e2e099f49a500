"""SuperGLUE's tasks whose rows are no text, pair and label by themselves: WiC's marked words, MultiRC's answers.

Wang et al. 2019 (arXiv:1905.00537). WiC's pair has the word before each sentence, `place: The sentence.`, and MultiRC's
the paragraph, and a question with one of its answers: as `tasks/superglue/dataset.py` of P-tuning v2 has them for BERT
(Liu et al. 2022, github.com/THUDM/P-tuning-v2), which also joins COPA's premise by `because` and `so`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NoReturn

from harness.config.recipe import TaskSpec
from harness.data.text_columns import refuse

Row = Mapping[str, object]
Reshape = Callable[[Row, str, int], Iterator[Row]]  # a row, its file and its line -> rows of text, pair and label
_NUMBER = "number of the question"  # in its passage: the same may be asked twice
GROUPED = ("multirc",)  # many rows have one text: they go to a split together


def reshaping(spec: TaskSpec) -> Reshape | None:
    """What makes a task's rows text, pair and label; None where they are, or the task names columns of its own."""
    if spec.text is not None or spec.text_pair is not None:
        return None
    return {"wic": _wic, "multirc": _multirc}.get(spec.name)


def groups(spec: TaskSpec, rows: Sequence[Row]) -> list[int] | None:
    """Which question each of some reshaped rows is of, counted from 0; None where no question has several rows.

    Answers of one question stand behind each other.
    """
    if spec.name not in GROUPED:
        return None
    of_rows, last, count = [], None, -1
    for row in rows:
        key = (row.get("paragraph"), row.get("question"), row.get(_NUMBER))
        count += key != last
        last = key
        of_rows.append(count)
    return of_rows


def _wic(row: Row, source: str, number: int) -> Iterator[Row]:
    """`{"word": …, "sentence1": …, "sentence2": …, "label": true}`."""
    word, *sentences = (_text(row, key, source, number) for key in ("word", "sentence1", "sentence2"))
    yield {**row, **{f"sentence{place}": f"{word}: {sentence}" for place, sentence in enumerate(sentences, 1)}}


def _multirc(row: Row, source: str, number: int) -> Iterator[Row]:
    """A passage with its questions and their answers, as in the official files; or one answer, as on the hub."""
    if "passage" not in row:
        question, answer = (_text(row, key, source, number) for key in ("question", "answer"))
        yield {**row, "question_answer": f"{question} {answer}"}
        return
    passage = _object(row["passage"], "passage", source, number)
    paragraph = _text(passage, "text", source, number)
    for place, asked in enumerate(_objects(passage, "questions", source, number)):
        question = _text(asked, "question", source, number)
        for given in _objects(asked, "answers", source, number):
            joined = f"{question} {_text(given, 'text', source, number)}"
            own = {"paragraph": paragraph, "question": question, "question_answer": joined, _NUMBER: place}
            yield own | ({"label": given["label"]} if "label" in given else {})


def _text(row: Row, key: str, source: str, number: int) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        _refuse(key, "a text", source, number)
    return value


def _object(value: object, key: str, source: str, number: int) -> Row:
    if not isinstance(value, dict):
        _refuse(key, "an object", source, number)
    return value


def _objects(row: Row, key: str, source: str, number: int) -> list[Row]:
    values = row.get(key)
    if not isinstance(values, list) or not values:
        _refuse(key, "a list of objects", source, number)
    return [_object(value, key, source, number) for value in values]


def _refuse(key: str, what: str, source: str, number: int) -> NoReturn:
    refuse(f"{key} is not {what}", source, number, fix="Correct that row, or name your own columns with task.text")
