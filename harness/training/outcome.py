"""From a finished run to the result of each lane: scores, outcome, curves, weights."""

from __future__ import annotations

import hashlib
import math
import resource
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from harness.common import metrics, scorers
from harness.common.metrics import Majority, Metric, Score
from harness.data import spans
from harness.data.tokenized import TokenizedSplit
from harness.models import token_hash
from harness.records.plausible import MOST_NAMES
from harness.records.record import Curves, Measured, Reason
from harness.training.evaluate import dev_loss
from harness.training.run import TrainingRun
from harness.training.transfer import copied

# One-sided 5 % point of the normal distribution: "was above the majority" must be more than luck.
_Z95 = 1.645


@dataclass(frozen=True)
class LaneResult:
    """What one trial gave, and the trained parameters that its result is of, in the network's order."""

    measured: Measured
    curves: Curves
    weights: np.ndarray  # [P] float32


def lane_results(run: TrainingRun, wall_seconds: float) -> list[LaneResult]:
    """The result of each lane, in the pack's order; the test split is evaluated here.

    Args:
        run: after its last update.
        wall_seconds: what the pack took so far.
    """
    of_pack = {
        "wall_seconds": wall_seconds,
        "lane_seconds": wall_seconds / len(run.lanes),
        "peak_memory_bytes": _peak_memory_bytes(run.pack.device),
    }
    losses, norms = (torch.stack(rows).cpu().numpy() for rows in (run.log.losses, run.log.norms))  # [S, L]
    final = run.lanes.weights
    for remedy in run.remedies:
        final = remedy.weights_for_evaluation(final, run.updates)
    final = copied(final)  # [L, P]
    for lane, (_, weights) in run.selection.chosen.items():
        final[lane] = weights
    test_logits = None if run.test is None else run.evaluator(final, run.test, run.updates)[0]  # [L, M, C]
    final_weights = final.cpu().numpy()
    results = []
    for lane in range(len(run.lanes)):
        steps = run.selection.stopped.get(lane, run.pack.total_steps)
        curves, scores = _curves(run, lane, losses[:steps, lane], norms[:steps, lane])
        chosen = run.selection.chosen.get(lane)
        at = len(scores) - 1 if chosen is None else curves.eval_step.tolist().index(chosen[0])
        digest = hashlib.sha256(final_weights[lane].tobytes()).hexdigest()
        logits, kind = run.log.evaluations[at].logits[lane], run.pack.kind
        threshold = kind.threshold(logits)
        given = of_pack | {"weights_sha256": digest, "label_threshold": threshold}
        measured = _measured(run, lane, curves, scores, at, given)
        curves = replace(curves, logits=kind.decided(logits, threshold))
        if test_logits is not None:
            measured, curves = _with_test(run, measured, curves, kind.decided(test_logits[lane], threshold))
        if run.telemetry is not None:
            curves = replace(curves, recording=run.telemetry.of(lane, steps, len(scores)))
        results.append(LaneResult(measured, curves, final_weights[lane]))
    return results


def _peak_memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _curves(run: TrainingRun, lane: int, losses: np.ndarray, norms: np.ndarray) -> tuple[Curves, list[Score]]:
    """A lane's curves over its updates, with the logits of its last evaluation; and the score of each evaluation."""
    task = run.pack.task
    labels, sentences = task.validation.targets, task.validation.sentences
    evaluations = [evaluation for evaluation in run.log.evaluations if evaluation.update <= len(losses)]
    logits = [evaluation.logits[lane] for evaluation in evaluations]  # E × [N, C]
    scores = [run.score(answers) for answers in logits]
    curves = Curves(
        train_loss=losses,
        lr=np.array([rates[lane] for rates in run.log.rates[: len(losses)]]),
        grad_norm=norms,
        eval_step=np.array([evaluation.update for evaluation in evaluations]),
        dev_loss=np.array([dev_loss(run.pack, answers) for answers in logits], dtype=np.float32),
        dev_score=np.array([math.nan if score.value is None else score.value for score in scores]),
        logits=logits[-1],
        labels=labels,
    )
    return (curves if sentences is None else replace(curves, sentences=sentences)), scores


def _measured(
    run: TrainingRun, lane: int, curves: Curves, scores: list[Score], at: int, given: dict[str, Any]
) -> Measured:
    """What is measured of a lane whose result is of evaluation `at`; weights' hash, times and memory are given."""
    task, network, final = run.pack.task, run.lanes.network, scores[at]
    best = metrics.best_evaluation(task.metric, curves.dev_score)
    bad = np.flatnonzero(~(np.isfinite(curves.train_loss) & np.isfinite(curves.grad_norm)))
    last_epoch = curves.train_loss[-run.pack.epoch_steps :]
    for remedy in run.remedies:
        given = given | remedy.measured(lane, run.selection)
    return Measured(
        outcome="failed" if final.at_or_below_majority else "ok",
        reason=failure_reason(scores[: at + 1], run.majority, task.validation.examples, task.metric)
        if final.at_or_below_majority
        else None,
        metric=task.metric,
        final_score=final.value,
        best_score=None if best is None else float(curves.dev_score[best]),
        best_step=None if best is None else int(curves.eval_step[best]),
        majority_score=run.majority.value,
        correct=final.correct,
        majority_correct=run.majority.correct,
        dev_examples=task.validation.examples,
        train_examples=len(task.train.labels),
        steps=len(curves.train_loss),
        final_train_loss=_finite(float(np.mean(last_epoch, dtype=np.float64))),
        final_dev_loss=_finite(float(curves.dev_loss[at])),
        **_label_spread(run),
        untouched_score=None if run.untouched is None else run.untouched.score,
        untouched_loss=None if run.untouched is None else run.untouched.loss,
        diverged_step=int(bad[0]) + 1 if bad.size else None,
        data_sha256=task.sha256,
        model_sha256=network.sha256,
        config_sha256=network.config_sha256,
        logits_check=network.logits_check,
        tokens_sha256=token_hash.tokens_sha256(task),
        tokenizer_sha256=task.tokenizer_sha256,
        label_names=_names(task.label_names),
        metric_sha256=None if (scorer := scorers.find(task.metric)) is None else scorer.sha256,
        parameters=network.all_parameters,
        trained_parameters=network.parameters,
        unknown_share=task.unknown_share,
        stopped_step=run.selection.stopped.get(lane),
        step_mode=run.replayer.step_mode,
        step_mode_reason=run.replayer.reason,
        **given,
    )


def _names(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The names of a task's classes, where they are few enough to be read."""
    return names if names and len(names) <= MOST_NAMES else None


def answer_entropy(split: TokenizedSplit) -> float:
    """The loss a token, in nats, of what knows how frequent each of a split's answers is, and no more."""
    assert split.answer_tokens is not None
    lengths, counts = split.lengths.tolist(), split.answer_tokens.astype(int).tolist()
    rows = zip(split.input_ids, lengths, counts, strict=True)
    answers = [tuple(ids[length - count : length].tolist()) for ids, length, count in rows]
    places = {answer: place for place, answer in enumerate(dict.fromkeys(answers))}
    entropy = metrics.label_entropy(np.array([places[answer] for answer in answers]))
    return entropy / float(split.answer_tokens.mean())


def place_entropy(split: TokenizedSplit) -> float:
    """The loss, in nats, of what knows how many of a split's windows have an answer, and no place before another.

    It tells `none` as often as that is right, and else every token of the context alike, as start and as end.
    """
    read = dict(zip(spans.LABELS, split.labels.T, strict=True))
    answered = read["start"] != read["none"]
    context = (read["behind"] - read["first"])[answered]
    return metrics.label_entropy(answered.astype(np.int64)) + float(np.log(context).sum()) / len(answered)


def _label_spread(run: TrainingRun) -> dict[str, float | None]:
    """The loss of always answering what the training labels are on average; none of answers that are not chosen."""
    task, regression = run.pack.task, run.pack.is_regression
    if run.untouched is not None:
        known = bool(task.label_names) and run.pack.recipe.task.loss_on == "completion"
        return {"label_entropy": answer_entropy(task.train) if known else None}
    if task.kind == "span":
        return {"label_entropy": place_entropy(task.train)}
    width = task.num_labels if task.kind == "labels" else 1
    return {
        "label_entropy": None if regression else metrics.label_entropy(task.train.targets, width),
        "label_variance": float(task.train.labels.var(dtype=np.float64)) if regression else None,
    }


def _with_test(run: TrainingRun, measured: Measured, curves: Curves, logits: np.ndarray) -> tuple[Measured, Curves]:
    """With what the lane's weights are worth on the test split, by their logits [M, C] on it."""
    test = run.pack.task.test
    assert test is not None
    score = metrics.score(run.pack.task.metric, logits, test.targets, test.sentences).value
    measured = measured.model_copy(update={"test_score": score, "test_examples": test.examples})
    curves = replace(curves, test_logits=logits, test_labels=test.targets)
    return measured, curves if test.sentences is None else replace(curves, test_sentences=test.sentences)


def failure_reason(
    scores: list[Score], majority: Majority, examples: int, metric: Metric = "accuracy"
) -> Reason | None:
    """Why a failed run failed, where it can be told from its evaluations, the last being its result.

    Args:
        scores: of one evaluation or more, in their order.
        majority: what the majority classifier scores.
        examples: of the dev set.
        metric: what the scores are.
    """
    if scores[-1].value is None:
        return "diverged"
    told = majority.correct is not None or metric in metrics.LANGUAGE
    if told and any(above_chance(score, majority, examples) for score in scores):
        return "collapsed"
    return "constant" if scores[-1].constant else None


def above_chance(score: Score, majority: Majority, examples: int) -> bool:
    """Whether a score is above the majority's: by more than chance leaves (95 %) where right answers count."""
    if majority.correct is None or score.correct is None:
        return score.value is not None and not score.at_or_below_majority
    right = majority.correct
    return score.correct > right + _Z95 * math.sqrt(right * (examples - right) / examples)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
