"""Whether the arrays of a trial are of the shapes and kinds that its record calls for; and those of a loss surface."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from harness.common import metrics, squad
from harness.records.record import RECORDED, Curves, Record, Recording, Surface

# The kinds of numpy's dtypes that a curve may have; [S] over steps, [E] over evaluations.
_BY_STEP = {"train_loss": "f", "lr": "f", "grad_norm": "f"}
_BY_EVALUATION = {"eval_step": "iu", "dev_loss": "f", "dev_score": "f"}
LARGEST = 1e150  # a number beyond it is a slip or an attack: its square is no double any more
_IN_TEXTS = (metrics.ENTITIES, *metrics.MANY_LABELS)  # several answers a text, whose numbers `sentences` says
_BOUNDED = (*_IN_TEXTS, *metrics.SPANS, *metrics.CLASSIFICATION, *metrics.REGRESSION, "exact_match")


class ExpectedArrays(NamedTuple):
    """What a record says of its arrays; kept of ten thousand records until the arrays are read."""

    sha256: str | None
    metric: str
    steps: int | None
    dev_examples: int | None
    test_examples: int
    of_script: bool
    scored: bool  # it has a final score, so that its answers are numbers

    @property
    def rows(self) -> dict[str, int]:
        """How long the first dimension of the arrays has to be whose length the record knows."""
        if self.of_script:
            return {}
        rows = {} if self.steps is None else dict.fromkeys(_BY_STEP, self.steps)
        if self.metric not in _IN_TEXTS and self.dev_examples is not None:
            rows |= dict.fromkeys(("logits", "labels"), self.dev_examples)
        return rows


def expected_arrays(record: Record) -> ExpectedArrays | None:
    """What a record says of its arrays; None of a trial that left none."""
    measured = record.measured
    if measured is None or (record.script is not None and record.arrays_sha256 is None):
        return None
    examples = (measured.dev_examples, measured.test_examples or 0)
    return ExpectedArrays(
        record.arrays_sha256,
        measured.metric,
        measured.steps,
        *examples,
        record.trial.script is not None,
        measured.final_score is not None,
    )


def check_arrays(curves: Curves, expected: ExpectedArrays) -> Iterator[str]:
    """What is wrong with the shapes, kinds and ranges of a trial's arrays, a sentence each."""
    if expected.of_script:
        yield from _check_of_script(curves, expected)
        return
    evaluations = curves.eval_step.size
    fine = True
    for kinds, length, unit in ((_BY_STEP, expected.steps, "steps"), (_BY_EVALUATION, evaluations, "evaluations")):
        for name, kind in kinds.items():
            array = getattr(curves, name)
            if array.shape != (length,) or array.dtype.kind not in kind:
                fine = False
                yield f"{name} is {array.dtype} {array.shape} for {length} {unit}"
    yield from _check_answers(curves, expected)
    if fine and evaluations:
        steps = curves.eval_step.astype(np.int64)
        if steps[0] < 0 or steps[-1] != expected.steps or (steps[1:] <= steps[:-1]).any():
            yield f"eval_step does not rise to the last step, {expected.steps}: {steps[:3].tolist()} … {steps[-1]}"
        yield from _check_ranges(curves, expected.metric)
    if curves.recording is not None:
        known = expected.metric in _IN_TEXTS and curves.sentences.dtype.kind == "i"
        answers = int(curves.sentences.sum()) if known else expected.dev_examples
        yield from _check_recording(curves.recording, expected, evaluations, answers)


def odd_surface(surface: Surface) -> str | None:
    """What makes a loss surface one that can't be drawn; None where nothing does. Losses far off may be no numbers."""
    grid = (surface.y.size, surface.x.size)
    shapes: dict[str, tuple[tuple[int, ...], str]] = {
        "trials": ((2,), "U"), "x": ((grid[1],), "f"), "y": ((grid[0],), "f"), "loss": (grid, "f"),
        "gradient_norm": (grid, "f"), "places": ((3, 2), "f"), "examples": ((), "iu"),
    }  # fmt: skip
    for name, (shape, kind) in shapes.items():
        array = getattr(surface, name)
        if array.shape != shape or array.dtype.kind not in kind:
            return f"{name} is {array.dtype} {array.shape} instead of {shape}"
    axes = (surface.x, surface.y)
    if min(grid) < 2 or not all(np.isfinite(axis).all() and (np.diff(axis) > 0).all() for axis in axes):
        return "x or y does not rise over two points or more"
    return None if np.isfinite(surface.places).all() else "places are not all finite"


def _check_answers(curves: Curves, expected: ExpectedArrays) -> Iterator[str]:
    """Logits and labels of the dev and of the test split."""
    dev, test = (curves.logits, curves.labels), (curves.test_logits, curves.test_labels)
    splits = [
        ("", "dev", dev, curves.sentences, expected.dev_examples),
        ("test_", "test", test, curves.test_sentences, expected.test_examples),
    ]
    for before, split, (logits, labels), sentences, examples in splits:
        if expected.metric in _IN_TEXTS:
            if sentences.shape != (examples,) or sentences.dtype.kind != "i" or (sentences < 0).any():
                yield f"{before}sentences are {sentences.dtype} {sentences.shape} for {examples} {split} examples"
                continue
            examples, split = int(sentences.sum()), f"{split} answers of"
        shaped = logits.ndim == 2 and len(logits) == examples and logits.dtype.kind == "f"
        if not shaped:
            yield f"{before}logits are {logits.dtype} {logits.shape} for {examples} {split} examples"
        if labels.shape != (examples,) or labels.dtype.kind not in "iuf":
            yield f"{before}labels are {labels.dtype} {labels.shape} for {examples} {split} examples"
        elif shaped and examples:
            yield from _check_labels(before, logits, labels, expected.metric)
            if not before and expected.scored and not np.isfinite(logits).all():
                yield "logits are not all finite, and the record has a score of them"


def _check_labels(before: str, logits: np.ndarray, labels: np.ndarray, metric: str) -> Iterator[str]:
    """Whether each label is one of the classes that the logits are of, or a number where there is one logit.

    Of a language model's answers the labels count tokens.
    """
    classes = logits.shape[1]
    if metric in metrics.LANGUAGE:  # a log-likelihood and a count of tokens for each answer, whose length is its label
        if classes != (3 if metric == "token_f1" else 2) or labels.dtype.kind != "f" or not (labels >= 1).all():
            yield f"{before}logits are {logits.shape} and {before}labels {labels.dtype} for answers in words"
    elif metric in metrics.SPANS:  # what answers score, and what the best constant one does
        shares = [labels, *logits[:, 1:4].T] if classes == len(squad.COLUMNS) else []
        if not shares or labels.dtype.kind != "f" or any((values < 0).any() or (values > 1).any() for values in shares):
            yield f"{before}logits are {logits.shape} and {before}labels {labels.dtype} for answers in a context"
    elif metric in metrics.REGRESSION:
        if classes != 1 or not np.isfinite(labels).all():
            yield f"{before}logits are {logits.shape} and {before}labels {labels.dtype} for a regression"
    elif labels.dtype.kind == "f" or classes < 2 or labels.min() < 0 or labels.max() >= classes:
        low, high = labels.min(), labels.max()
        yield f"{before}labels are {labels.dtype} from {low} to {high} for logits of {classes} classes"


def _check_ranges(curves: Curves, metric: str) -> Iterator[str]:
    """Whether doubles are numbers that a run can give; NaN stands for a score that is not known."""
    rates, scores = curves.lr, curves.dev_score
    if rates.size and not (rates.min() >= 0 and rates.max() <= LARGEST):  # nor NaN
        yield f"lr has rates from {rates.min()} to {rates.max()}"
    limit = 1.0 if metric in _BOUNDED else LARGEST
    if (np.abs(scores) > limit).any():
        yield f"dev_score goes from {np.nanmin(scores)} to {np.nanmax(scores)}, for {metric}"


def _check_of_script(curves: Curves, expected: ExpectedArrays) -> Iterator[str]:
    """The curves and answers that a script left: of any length, but each with as many values as steps."""
    shapes = {
        "train_loss": (curves.train_loss.shape[:1], "f"), "lr": ((0,), "f"), "grad_norm": ((0,), "f"),
        "eval_step": (curves.eval_step.shape[:1], "iu"), "dev_loss": (curves.eval_step.shape[:1], "f"),
        "dev_score": (curves.eval_step.shape[:1], "f"),
    }  # fmt: skip
    for name, (shape, kind) in shapes.items():
        array = getattr(curves, name)
        if array.shape != shape or array.dtype.kind not in kind:
            yield f"{name} is {array.dtype} {array.shape} instead of {shape}"
            return
    examples = 0 if expected.dev_examples is None else expected.dev_examples
    logits, labels = curves.logits, curves.labels
    if logits.ndim != 2 or len(logits) != examples or logits.dtype.kind != "f" or labels.shape != (examples,):
        yield f"logits are {logits.dtype} {logits.shape} and labels {labels.shape} for {examples} answers"
    elif examples and (labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= logits.shape[1]):
        yield f"labels are {labels.dtype} from {labels.min()} to {labels.max()} for {logits.shape[1]} classes"
    if (np.abs(curves.dev_score[np.isfinite(curves.dev_score)]) > LARGEST).any():
        yield f"dev_score goes beyond {LARGEST:g}"


def _check_recording(
    recording: Recording, expected: ExpectedArrays, evaluations: int, answers: int | None
) -> Iterator[str]:
    """Whether the arrays of a recording belong together, and to the run's updates, evaluations and dev answers."""
    updates, layers = recording.update.size, recording.layers.size
    shapes: dict[str, tuple[tuple[int, ...], str]] = {
        "layers": ((layers,), "U"),
        "update": ((updates,), "iu"),
        "layer_norm": ((updates, layers), "f"),
        "update_norm": ((updates,), "f"),
        "weight_norm": ((updates,), "f"),
        "predicted": ((evaluations, *recording.predicted.shape[1:2]), "iu"),
        "cls_rank": ((evaluations,), "f"),
        "cls_cosine": ((evaluations,), "f"),
    }
    fine = True
    for name, (shape, kind) in shapes.items():
        array = getattr(recording, name)
        if array.shape != shape or array.dtype.kind not in kind:
            fine = False
            yield f"{RECORDED}{name} is {array.dtype} {array.shape} instead of {shape}"
    if not fine:
        return
    if not layers or len(set(recording.layers.tolist())) != layers or not all(recording.layers.tolist()):
        yield f"{RECORDED}layers names {layers} parts, not each once"
    at = recording.update.astype(np.int64)
    if not updates or at[0] < 1 or at[-1] > (expected.steps or 0) or (at[1:] <= at[:-1]).any():
        yield f"{RECORDED}update does not rise within the {expected.steps} steps"
    counts = recording.predicted.astype(np.int64)
    if counts.ndim != 2 or (counts < 0).any() or not set(counts.sum(axis=1).tolist()) <= {0, answers}:
        unit = "answers of dev examples" if expected.metric in _IN_TEXTS else "dev examples"
        yield f"{RECORDED}predicted does not count the {answers} {unit}"
