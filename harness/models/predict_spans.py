"""A kept model that answers questions by parts of their contexts: each question of a file, in the order of the file."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np
import torch

from harness.common import squad
from harness.common.errors import HarnessError
from harness.data import span_files, spans
from harness.data.span_files import Question
from harness.models import outputs, saved
from harness.models.predict import FORMATS, Prediction, PredictionOptions, Served, written
from harness.models.predict_output import digits

_CHUNK = 1024  # questions that are read as windows and answered together
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class GivenAnswer:
    """The answer to a question, empty where it has none, and its probability within its window."""

    text: str
    score: float


class SpanModel(Served):
    """A kept model for question answering, ready to be asked."""

    def answers(self, questions: Sequence[Question], batch_size: int, source: str = "the file") -> list[GivenAnswer]:
        """The best answer to each question of all windows of its context, as the model was scored."""
        task = self.recipe.task
        made = spans.windows(
            span_files.rows_of(source, "question", questions), self.tokenizer, self.max_length, task.stride
        )
        logits = self._answers([list(own.ids) for own in made], [list(own.types) for own in made], batch_size)
        rows = []
        for window, of_window in zip(made, logits, strict=True):
            labels = torch.tensor([window.labels(())])
            of_tokens = torch.from_numpy(of_window[None, : len(window.ids)])
            rows.append(outputs.best_in_windows(of_tokens, labels, task.max_answer_length)[0].numpy())
        chosen = outputs.chosen(
            np.stack(rows),
            np.array([window.question for window in made]),
            spans.padded_offsets(made, self.max_length),
            abstains=self.card.abstains,
        )
        texts = outputs.texts(chosen, [question.context for question in questions])
        return [
            GivenAnswer((text or "").strip(), float(digits(probability)))
            for text, probability in zip(texts, chosen[:, 1], strict=True)
        ]


def run(options: PredictionOptions, progress: Progress | None = None) -> Prediction:
    """Answer every question of a file and write the answers; scored against the file's own where `label` names them.

    Raises:
        HarnessError: Files can't be read or written, or several models are named.
    """
    if len(options.folders) > 1:
        raise HarnessError("answers of several models cannot be averaged", fix="Name one saved model")
    if options.probabilities:
        raise HarnessError("--probabilities requires a task with classes", fix="Leave --probabilities out")
    if options.out is not None and options.out.suffix.lower() not in FORMATS:
        raise HarnessError(
            f"cannot write {options.out}: unknown file type '{options.out.suffix}'", allowed=", ".join(FORMATS)
        )
    columns = {"text": options.text, "text_pair": options.text_pair, "label": options.label}
    task = saved.read_card(options.folders[0]).trial.recipe.task
    spec = task.model_copy(update={name: value for name, value in columns.items() if value is not None})
    rows = span_files.examples(options.file, spec, answers=options.label is not None)
    torch.set_num_threads(options.threads)
    model, answers, seconds = SpanModel(options.folders[0], options.device), list[GivenAnswer](), 0.0
    for start in range(0, len(rows), _CHUNK):
        chunk, began = rows[start : start + _CHUNK], time.perf_counter()
        answers += model.answers(chunk, options.batch_size, str(options.file))
        seconds += time.perf_counter() - began
        if progress is not None:
            progress(len(answers), len(rows))
    with written(options.out) as file:
        _write(file, "" if options.out is None else options.out.suffix.lower(), rows, answers)
    scores = _scores(rows, answers) if options.label is not None else None
    return Prediction(
        rows=len(rows), seconds=seconds, metric="squad_exact", score=scores[0] if scores else None, members=(),
        disagreeing=None, unscored=None, token_f1=scores[1] if scores else None,
    )  # fmt: skip


def _scores(rows: Sequence[Question], answers: Sequence[GivenAnswer]) -> tuple[float, float]:
    """SQuAD's exact match and F1 of the answers, means over the questions."""
    pairs = zip(rows, answers, strict=True)
    each = [squad.best(answer.text, [span.text for span in row.spans or ()]) for row, answer in pairs]
    exact, f1 = np.mean(each, axis=0).tolist()
    return exact, f1


def _write(file: IO[str], suffix: str, rows: Sequence[Question], answers: Sequence[GivenAnswer]) -> None:
    """Write `id` where the file has it, `answer` and `score`."""
    named = any(row.name is not None for row in rows)
    table: Iterable[tuple[str, str, float]] = (
        (row.name or "", answer.text, answer.score) for row, answer in zip(rows, answers, strict=True)
    )
    names = ["id", "answer", "score"][not named :]
    if suffix == ".jsonl":
        for values in table:
            file.write(json.dumps(dict(zip(names, values[not named :], strict=True)), ensure_ascii=False) + "\n")
    elif suffix == ".csv":
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([names, *(values[not named :] for values in table)])
    else:
        file.write("\t".join(names) + "\n")
        for values in table:
            cells = (" ".join(str(value).split()) for value in values[not named :])
            file.write("\t".join(cells) + "\n")
