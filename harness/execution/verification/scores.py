"""Whether what a record says was measured follows from its arrays: scores, outcome, curves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import get_args

import numpy as np

from harness.common import hub, metrics, scorers
from harness.common.errors import HarnessError
from harness.common.metrics import BuiltIn, Metric
from harness.config.recipe import Recipe
from harness.records.reading import Problem
from harness.records.record import Curves, Measured

_METRICS: tuple[str, ...] = (*get_args(BuiltIn), *get_args(scorers.ScikitLearn))


def check_measured(measured: Measured, curves: Curves | None, recipe: Recipe) -> Iterator[Problem]:
    """Whether scores, outcome and losses are what the arrays give; without arrays, whether they fit each other."""
    metric, own = measured.metric, ":" in measured.metric
    if not own and metric not in _METRICS:
        yield "score", f"metric {metric!r} is none of {', '.join(_METRICS)}"
        return
    if own and curves is not None:
        if (problem := _read_own(measured, recipe)) is not None:
            yield problem
            return
        if not hub.trusts_remote_code():  # its code may be a stranger's
            yield from _check_curves(measured, curves, recipe)
            return
    if curves is None:
        yield from _check_counts(metric, measured)
        yield from _check_outcome(measured, _below(metric, measured), None)
        return
    try:
        level = _untouched_level(measured)
        score = metrics.score(metric, curves.logits, curves.labels, curves.sentences, level)
        labels = (curves.labels.dtype.str, curves.labels.tobytes())
        classes = curves.logits.shape[1]
        if metric in metrics.MANY_LABELS:  # two logits decide on each label of a text
            classes = len(curves.labels) // max(1, len(curves.sentences))
        sizes = curves.sentences.tobytes() if metric == metrics.QUESTIONS else b""
        majority = level or _majority(metric, classes, *labels, sizes)
        on_test = (curves.test_logits, curves.test_labels, curves.test_sentences)
        test = metrics.score(metric, *on_test).value if curves.test_labels.size else None
    except ValueError as error:
        yield "shapes", str(error)
        return
    for name, recorded, given in (
        ("correct", measured.correct, score.correct),
        ("final_score", measured.final_score, score.value),
        ("majority_correct", measured.majority_correct, majority.correct),
        ("majority_score", measured.majority_score, majority.value),
        ("test_score", measured.test_score, test),
    ):
        if not _same(recorded, given):
            yield "score", f"{name} is {_said(recorded)}, logits and labels give {_said(given)}"
    if metric in metrics.MANY_LABELS:
        yield from _check_threshold(measured, curves)
    if recipe.task.kind == "completion":
        constant = None if metric in metrics.LANGUAGE else _majority(metric, classes, *labels, sizes)
        yield from _check_untouched(measured, constant)
    yield from (("score", words) for words in _odd_answers(metric, curves.logits, curves.labels))
    yield from _check_outcome(measured, score.at_or_below_majority, score.constant)
    yield from _check_curves(measured, curves, recipe)


def _check_threshold(measured: Measured, curves: Curves) -> Iterator[Problem]:
    """Whether the answers are decided at the threshold that the record says, and those on the test split too."""
    given = 0.0 if measured.label_threshold is None else np.float32(metrics.logit(measured.label_threshold))
    for split, logits in (("dev", curves.logits), ("test", curves.test_logits)):
        if logits.size and (logits[:, 0] != given).any():
            told = _said(measured.label_threshold)
            yield "score", f"label_threshold is {told}, and answers on the {split} split are decided at another"


def _check_untouched(measured: Measured, constant: metrics.Majority | None) -> Iterator[Problem]:
    """Whether a language model had to beat its untouched self, or the best constant choice where that is better."""
    untouched, loss = measured.untouched_score, measured.untouched_loss
    if untouched is None or loss is None:
        yield "score", "a language model's, without what the untouched one scores"
        return
    levels = [untouched, *([] if constant is None else [constant.value])]
    if not any(_same(measured.majority_score, level) for level in levels) or (
        constant is not None and (measured.majority_score or 0.0) < untouched
    ):
        yield "score", f"majority_score is {_said(measured.majority_score)}, the untouched model's is {untouched!r}"
    of_loss = {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}.get(measured.metric)
    if of_loss is not None and not math.isclose(of_loss, untouched, rel_tol=1e-4):
        yield "score", f"untouched_score is {untouched!r}, untouched_loss gives {of_loss!r}"


def _odd_answers(metric: Metric, logits: np.ndarray, labels: np.ndarray) -> Iterator[str]:
    """What no answer in a context or in words has among its numbers, which are in `logits`; rounding is none."""
    if not np.isfinite(logits).all():
        return
    if metric in metrics.SPANS:
        loss, exact, f1 = logits[:, :3].T
        if (loss < -1e-3).any():
            yield f"an answer has a loss of {loss.min():g}"
        if not np.isin(exact, (0, 1)).all() or (exact > f1 + 1e-6).any():
            yield "an answer matches exactly in part, or with another F1 than 1"
    elif metric in metrics.LANGUAGE:
        if (logits[:, 0] > 1e-3).any():
            yield f"an answer has a log-likelihood of {logits[:, 0].max():g}"
        likeliest = logits[:, 1]
        if (likeliest < 0).any() or (likeliest > labels).any() or (likeliest % 1).any():
            yield "of an answer more tokens, or fewer, were the likeliest than it has"


def _untouched_level(measured: Measured) -> metrics.Majority | None:
    """What the record says that a language model had to beat, which no array gives; None of other runs."""
    if measured.untouched_score is None or measured.majority_score is None:
        return None
    return metrics.Majority(measured.majority_score, measured.majority_correct)


def _read_own(measured: Measured, recipe: Recipe) -> Problem | None:
    """Read the function of a record's own metric where its code is trusted; what is wrong with it."""
    file, metric = recipe.task.metric_file, measured.metric
    if measured.metric_sha256 is None or file is None or recipe.task.metric != metric:
        return "score", f"metric {metric!r} without the hash of its file, or not the recipe's"
    if hub.trusts_remote_code():
        try:
            if scorers.read(metric, file).sha256 != measured.metric_sha256:
                return "score", f"the metric's file {file} is not the one that the run was scored with"
        except HarnessError as error:
            return "score", str(error)
    return None


@lru_cache(maxsize=64)  # all trials of a task share the labels
def _majority(metric: Metric, classes: int, dtype: str, labels: bytes, sizes: bytes) -> metrics.Majority:
    sentences = np.frombuffer(sizes, np.int64) if sizes else None
    return metrics.majority(metric, np.frombuffer(labels, dtype), classes, sentences)


def _check_counts(metric: Metric, measured: Measured) -> Iterator[Problem]:
    """Counts against scores, where the arrays are not kept."""
    examples = measured.dev_examples or 0
    counts: list[tuple[str, int | None, float | None]] = []
    if measured.final_score is not None:
        counts.append(("correct", measured.correct, measured.final_score))
    counts.append(("majority_correct", measured.majority_correct, measured.majority_score))
    for name, count, score in counts:
        if ":" not in metric and (count is None) == metrics.counts(metric):
            yield "score", f"{name} is {_said(count)} for {metric}"
        elif count is not None and not 0 <= count <= examples:
            yield "score", f"{name} is {count} of {examples} dev examples"
        elif (
            count is not None
            and score is not None
            and metric == "accuracy"
            and not _same(score, count / max(1, examples))
        ):
            yield "score", f"accuracy {_said(score)}, {name} {count} of {examples}"
    if measured.final_score is None and measured.correct is not None:
        yield "score", f"no score, and {measured.correct} right answers"


def _below(metric: Metric, measured: Measured) -> bool:
    """At or below the majority classifier, by counts for accuracy; no score is below any."""
    if measured.final_score is None:
        return True
    if metric == "accuracy" and measured.correct is not None and measured.majority_correct is not None:
        return measured.correct <= measured.majority_correct
    if measured.majority_score is None:
        return False
    if not metrics.higher_is_better(metric):
        return measured.final_score >= measured.majority_score
    return measured.final_score <= measured.majority_score


def _check_outcome(measured: Measured, below: bool, constant: bool | None) -> Iterator[Problem]:
    """Outcome and reason against what the final answers are worth; `constant` None where they are not kept."""
    told = measured.outcome if measured.reason is None else f"{measured.outcome} ({measured.reason})"
    if (measured.outcome == "failed") != below:
        where = "at or below" if below else "above"
        counts = f"{_said(measured.correct)} right answers, the majority has {_said(measured.majority_correct)}"
        yield "outcome", f"{told}, and the final score is {where} the majority classifier's: {counts}"
    elif measured.outcome == "ok":
        if measured.reason is not None:
            yield "outcome", f"{told}, and only a failed run has a reason"
    elif (measured.reason == "diverged") != (measured.final_score is None):
        yield "outcome", f"{told}, and the final score is {_said(measured.final_score)}"
    elif constant is not None and measured.reason != "diverged":
        if measured.reason == "constant" and not constant:
            yield "outcome", f"{told}, and the logits answer more than one class"
        if measured.reason is None and constant:
            yield "outcome", f"{told} without a reason, and the logits answer one class alone"


def _check_curves(measured: Measured, curves: Curves, recipe: Recipe) -> Iterator[Problem]:
    """What the record sums up of the curves, computed again."""
    scores, steps = curves.dev_score, curves.eval_step
    at = len(steps) - 1
    if measured.kept_step is not None:
        if measured.kept_step not in steps.tolist():
            yield "curves", f"kept_step is {measured.kept_step}, which is no evaluation"
            return
        at = steps.tolist().index(measured.kept_step)
    best = metrics.best_evaluation(measured.metric, scores)
    bad = np.flatnonzero(~(np.isfinite(curves.train_loss) & np.isfinite(curves.grad_norm)))
    given: dict[str, float | None] = {
        "final_score": _finite(scores[at]),
        "best_score": None if best is None else _finite(scores[best]),
        "best_step": None if best is None else int(steps[best]),
        "final_dev_loss": _finite(curves.dev_loss[at]),
        "diverged_step": int(bad[0]) + 1 if bad.size else None,
    }
    whole = measured.stopped_step is None and recipe.max_steps is None  # else an epoch's length is not known here
    if measured.steps and measured.steps % recipe.epochs == 0 and whole:
        last = curves.train_loss[-(measured.steps // recipe.epochs) :]
        given["final_train_loss"] = _finite(np.add.reduce(last, dtype=np.float64) / len(last))  # np.mean, slowly
    for name, value in given.items():
        recorded = getattr(measured, name)
        if not _same(recorded, value):
            yield "curves", f"{name} is {_said(recorded)}, the curves give {_said(value)}"


# ------------------------------------------------------------------------------------------------------------ values


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _same(first: float | None, second: float | None) -> bool:
    """Equal, counts exactly; scores were computed by the same code, maybe on another machine or in another version."""
    if first is None or second is None:
        return first is second
    return first == second or (isinstance(first, float) and math.isclose(first, second, rel_tol=1e-9, abs_tol=1e-12))


def _said(value: float | None) -> str:
    return "none" if value is None else repr(value)
