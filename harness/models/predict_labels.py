"""Kept models that give any number of labels asked: each row of a file gets those whose probability is high enough."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import torch

from harness.common import metrics
from harness.common.errors import HarnessError
from harness.common.text import without_controls
from harness.data import label_files, text_files
from harness.data.text_files import Line
from harness.models import saved
from harness.models.predict import FORMATS, Prediction, PredictionOptions, Served, written
from harness.models.predict_output import PROBABILITY, digits

Progress = Callable[[int, int], None]
_CHUNK = 4096  # rows that are sorted by length and answered together


def run(options: PredictionOptions, progress: Progress | None = None) -> Prediction:
    """Answer every row of a file and write the names of its labels; scored where `label` names the file's own.

    A label is given where its probability is above the model's threshold: 0.5, or what its task says. Several models
    answer by the means of their probabilities and of their thresholds.

    Raises:
        HarnessError: Files can't be read or written, or the models are of different tasks.
    """
    cards = [saved.read_card(folder) for folder in options.folders]
    names = cards[0].label_names or ()
    if any((card.label_names, card.pairs, card.trial.recipe.task) != (names, cards[0].pairs, cards[0].trial.recipe.task)
           for card in cards):  # fmt: skip
        raise HarnessError(
            "models of different tasks or labels cannot predict together", fix="Name the saved models of one cell"
        )
    if options.out is not None and options.out.suffix.lower() not in FORMATS:
        raise HarnessError(
            f"cannot write {options.out}: unknown file type '{options.out.suffix}'", allowed=", ".join(FORMATS)
        )
    columns = {"text": options.text, "text_pair": options.text_pair, "label": options.label}
    given = {name: int(value) if value.isdigit() else value for name, value in columns.items() if value is not None}
    spec = cards[0].trial.recipe.task.model_copy(update=given)
    rows = list(text_files.stream(options.file, spec, cards[0].pairs, label=options.label is not None))
    torch.set_num_threads(options.threads)
    began, each, cuts = time.perf_counter(), [], []
    for number, folder in enumerate(options.folders):
        model = Served(folder, options.device)
        each.append(_logits(model, rows, options, number, progress))
        cuts.append(_cut(model.card))
    seconds = time.perf_counter() - began
    logits = np.stack(each)  # [K, N, C]
    # As in training, in float32.
    decided = logits > np.array([metrics.logit(cut) for cut in cuts], dtype=np.float32)[:, None, None]  # [K, N, C]
    mean = (1 / (1 + np.exp(-logits.astype(np.float64)))).mean(axis=0)  # [N, C]
    chosen = decided[0] if len(each) == 1 else mean > np.mean(cuts)
    agreement = (decided == chosen).all(axis=2).mean(axis=0) if len(each) > 1 else None  # [N]
    with written(options.out) as file:
        _write(file, options.out, names, mean if options.probabilities else None, chosen, mean, agreement)
    metric = cards[0].metric
    scores, unscored = _scores(metric, rows, names, str(options.file), [*decided, chosen], options.label is not None)
    return Prediction(
        rows=len(rows), seconds=seconds, metric=metric, score=scores[-1] if scores else None,
        members=tuple(scores[:-1]) if len(each) > 1 else (),
        disagreeing=float((decided != decided[0]).any(axis=(0, 2)).mean()) if len(each) > 1 else None,
        unscored=unscored,
    )  # fmt: skip


def _cut(card: saved.Card) -> float:
    """The probability above which a model gives a label."""
    return 0.5 if card.label_threshold is None else card.label_threshold


def _logits(
    model: Served, rows: Sequence[Line], options: PredictionOptions, number: int, progress: Progress | None
) -> np.ndarray:
    """The logit of each label of each row, [N, C] float32; `number` counts the models before."""
    parts = []
    for start in range(0, len(rows), _CHUNK):
        parts.append(model.logits(rows[start : start + _CHUNK], options.batch_size, str(options.file)))
        if progress is not None:
            done = number * len(rows) + min(start + _CHUNK, len(rows))
            progress(done, len(options.folders) * len(rows))
    return np.concatenate(parts)


def _scores(
    metric: metrics.Metric, rows: Sequence[Line], names: Sequence[str], source: str, decided: Sequence[np.ndarray],
    asked: bool,
) -> tuple[list[float], str | None]:  # fmt: skip
    """What decisions [N, C] are worth against the file's labels; why there is no score though it has some."""
    if rows[0].label is None or not (asked or all(row.label is not None for row in rows)):
        return [], None
    index = {name: number for number, name in enumerate(names)}
    labels = np.zeros((len(rows), len(names)), dtype=np.int64)
    for row, values in zip(rows, labels, strict=True):
        for name in label_files.labels_of(row, source):
            if name not in index:
                return [], f"the file's label '{name}' is none of {', '.join(names)}"
            values[index[name]] = 1
    return [float(metrics.f1_of_labels(metric, answers.astype(np.int64), labels)) for answers in decided], None


def _write(
    file: IO[str], out: Path | None, names: Sequence[str], probabilities: np.ndarray | None, chosen: np.ndarray,
    mean: np.ndarray, agreement: np.ndarray | None,
) -> None:  # fmt: skip
    """A row each: the names of its labels with | between them, in JSON lines a list; then what else is asked."""
    suffix = "" if out is None else out.suffix.lower()
    header = ["labels", *(["agreement"] if agreement is not None else [])]
    header += [f"{PROBABILITY}{name}" for name in names] if probabilities is not None else []
    table = csv.writer(file, lineterminator="\n").writerow if suffix == ".csv" else _plain(file)
    if suffix != ".jsonl":
        table([without_controls(name) for name in header])
    for number, row in enumerate(chosen):
        labels = [name for name, is_given in zip(names, row, strict=True) if is_given]
        if suffix == ".jsonl":
            line: dict[str, object] = {"labels": labels}
            line |= {} if agreement is None else {"agreement": float(agreement[number])}
            if probabilities is not None:
                line["probabilities"] = {
                    name: float(digits(share)) for name, share in zip(names, mean[number], strict=True)
                }
            file.write(without_controls(json.dumps(line, ensure_ascii=False)) + "\n")
            continue
        cells = [label_files.BETWEEN.join(labels) or "[]"]  # as a task's files have it
        cells += [] if agreement is None else [repr(float(agreement[number]))]
        cells += [] if probabilities is None else [digits(share) for share in mean[number]]
        table([without_controls(cell) for cell in cells])


def _plain(file: IO[str]) -> Callable[[Sequence[str]], object]:
    return lambda cells: file.write("\t".join(cells) + "\n")
