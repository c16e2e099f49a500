"""What predicting writes: a row an answer, as TSV, CSV or JSON lines; numbers with the digits that float32 has."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from harness.common.text import without_controls
from harness.data.token_files import TaggedSentence
from harness.models.predict_rows import Row

PROBABILITY = "probability_"  # how the column of a class begins, before its label's name


@dataclass(frozen=True)
class PredictedAnswers:
    """The answers to some rows, N of them: labels and the share of each class, or numbers of a regression.

    `mean` [N, C] is that of all models, C 1 for a regression. `spread` [N] is the share of models that give that
    label, of a regression their standard deviation; None for one model alone.
    """

    rows: Sequence[Row]
    mean: np.ndarray
    spread: np.ndarray | None
    label_names: tuple[str, ...] | None


@dataclass
class Writer:
    """Writes answers to a file, in the format of its ending (`out`; None: TSV).

    Texts have a row each: `label`, `confidence` (the probability of that label) and, of several models, `agreement`; a
    regression `number` and `sd`. Words have `sentence` (from 1) and `word` before them; as JSON lines a sentence is an
    object of lists, `words` and `tags` as a task's files have them. With `probabilities` each class has a column
    `probability_<label>`, in JSON lines an object `probabilities` by label (of words a list of them).
    """

    file: IO[str]
    out: Path | None
    probabilities: bool = False
    sentences: int = 0
    table: Callable[[Sequence[str]], object] | None = field(default=None, init=False)

    def write(self, answers: PredictedAnswers) -> None:
        """Write answers behind those before."""
        suffix = ".tsv" if self.out is None else self.out.suffix.lower()
        if suffix == ".jsonl":
            for line in self._objects(answers):
                self.file.write(without_controls(json.dumps(line, ensure_ascii=False)) + "\n")
            return
        if self.table is None:
            self.table = csv.writer(self.file, lineterminator="\n").writerow if suffix == ".csv" else self._plain
            self.table([without_controls(name) for name in self._header(answers)])
        places = list(self._places(answers))
        for number in range(len(answers.mean)):
            cells = [*(places[number] if places else ()), *self._cells(answers, number)]
            self.table([without_controls(cell) for cell in cells])

    def _plain(self, cells: Sequence[str]) -> None:
        self.file.write("\t".join(cells) + "\n")

    def _header(self, answers: PredictedAnswers) -> list[str]:
        words = ["sentence", "word"] if answers.rows and isinstance(answers.rows[0], TaggedSentence) else []
        if answers.label_names is None:
            return ["number", "sd"] if answers.spread is not None else ["number"]
        own = ["label", "confidence"] if answers.spread is None else ["label", "confidence", "agreement"]
        classes = [f"{PROBABILITY}{name}" for name in answers.label_names] if self.probabilities else []
        return [*words, *own, *classes]

    def _places(self, answers: PredictedAnswers) -> list[tuple[str, str]]:
        """Sentence and word of each answer; nothing of texts."""
        places = []
        for row in answers.rows:
            if isinstance(row, TaggedSentence):
                self.sentences += 1
                places += [(str(self.sentences), " ".join(word.split())) for word in row.words]
        return places

    def _cells(self, answers: PredictedAnswers, number: int) -> list[str]:
        spread = [] if answers.spread is None else [repr(float(answers.spread[number]))]
        if answers.label_names is None:
            return [digits(answers.mean[number, 0]), *spread]
        k = int(answers.mean[number].argmax())
        classes = [digits(share) for share in answers.mean[number]] if self.probabilities else []
        return [answers.label_names[k], digits(answers.mean[number, k]), *spread, *classes]

    def _objects(self, answers: PredictedAnswers) -> list[dict[str, object]]:
        flat = [self._object(answers, number) for number in range(len(answers.mean))]
        if not any(isinstance(row, TaggedSentence) for row in answers.rows):
            return flat
        objects: list[dict[str, object]] = []
        start = 0
        for row in answers.rows:
            assert isinstance(row, TaggedSentence)
            words = flat[start : start + len(row.words)]
            start += len(row.words)
            line: dict[str, object] = {"words": list(row.words)}
            line |= {"tags" if name == "label" else name: [word[name] for word in words] for name in words[0]}
            objects.append(line)
        return objects

    def _object(self, answers: PredictedAnswers, number: int) -> dict[str, object]:
        row = answers.mean[number]
        spread = None if answers.spread is None else float(answers.spread[number])
        if answers.label_names is None:
            answer: dict[str, object] = {"number": float(digits(row[0]))}
            return answer if spread is None else answer | {"sd": spread}
        k = int(row.argmax())
        answer = {"label": answers.label_names[k], "confidence": float(digits(row[k]))}
        answer |= {} if spread is None else {"agreement": spread}
        if self.probabilities:
            shares = [float(digits(share)) for share in row]
            answer["probabilities"] = dict(zip(answers.label_names, shares, strict=True))
        return answer


def digits(value: float) -> str:
    """A number as the shortest text that reads back as the same float32."""
    return str(np.float32(value))
