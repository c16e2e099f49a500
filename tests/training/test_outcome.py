"""What is kept of a run: curves, scores, why it failed, the test split."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cut_runs import same_lane as same
from training_runs import advance, begin

from harness.common import metrics
from harness.config.recipe import TaskSpec
from harness.config.trials import Trial
from harness.data import tasks
from harness.training import loop
from harness.training.outcome import failure_reason, lane_results

Make = Callable[..., Trial]


def test_what_is_kept_of_a_run(trial: Make) -> None:
    result = loop.train([trial(1, eval_steps=3, lr=5e-3)])[0]
    curves, measured = result.curves, result.measured
    assert curves.eval_step.tolist() == [3, 6, 8, 9, 12, 15, 16]  # every third step and each epoch's end, of 8 steps
    assert curves.train_loss.shape == curves.grad_norm.shape == curves.lr.shape == (16,)
    assert curves.lr[0] == 0.0
    assert curves.lr.max() == 5e-3
    final = metrics.score("accuracy", curves.logits, curves.labels)
    assert measured.final_score == curves.dev_score[-1] == final.value
    assert measured.best_score == curves.dev_score.max()
    assert measured.best_step == curves.eval_step[curves.dev_score.argmax()]
    assert measured.final_train_loss == pytest.approx(curves.train_loss[8:].mean(), rel=1e-6)
    dev_loss = F.cross_entropy(torch.from_numpy(curves.logits), torch.from_numpy(curves.labels)).item()
    assert measured.final_dev_loss == curves.dev_loss[-1] == pytest.approx(dev_loss)
    assert (measured.dev_examples, measured.train_examples, measured.majority_correct) == (30, 60, 15)
    assert measured.label_entropy == pytest.approx(math.log(2))


def test_outcomes_of_runs_that_fail(trial: Make) -> None:
    diverged, constant = loop.train([trial(1, lr=1e30), trial(1, lr=1e-9)])
    assert (diverged.measured.outcome, diverged.measured.reason) == ("failed", "diverged")
    assert diverged.measured.final_score is None
    assert diverged.measured.final_train_loss is None
    assert diverged.measured.diverged_step is not None
    assert (constant.measured.outcome, constant.measured.reason) == ("failed", "constant")
    assert constant.measured.final_score == 0.5


def test_a_run_that_was_well_above_the_majority_and_ended_below_collapsed(trial: Make) -> None:
    run = begin([trial()])  # 30 dev examples, 15 the majority: luck ends at 19.5
    below = metrics.Score(0.5, 15, True, True)

    def reason(*before: int) -> str | None:
        scores = [*(metrics.Score(right / 30, right, False, False) for right in before), below]
        return failure_reason(scores, run.majority, len(run.validation))

    assert reason(20, 16) == "collapsed"
    assert reason(19, 16) == "constant"
    assert failure_reason([replace(below, constant=False)], run.majority, len(run.validation)) is None


def test_a_regression_that_answers_one_number_failed(trial: Make, numbers: TaskSpec) -> None:
    """A model that is the same everywhere has no correlation: 0, not NaN, and a reason."""
    run = begin([trial(1, task=numbers)])
    with torch.no_grad():
        run.lanes.weights.zero_()
    for step in range(run.pack.total_steps):
        run.optimizer.range_test = lambda step: 0.0
        advance(run, step)
    (result,) = lane_results(run, 1.0)
    assert np.ptp(result.curves.logits) == 0
    assert (result.measured.final_score, result.measured.outcome, result.measured.reason) == (0.0, "failed", "constant")
    assert np.isfinite(result.curves.dev_score).all()


def test_what_is_kept_of_a_token_task(trial: Make, tagged: TaskSpec) -> None:
    found, failed = loop.train([trial(1, task=tagged, lr=1e-2, epochs=12), trial(1, task=tagged, lr=1e-9, epochs=12)])
    curves, measured = found.curves, found.measured
    dev = tasks.load(tagged).validation
    assert dev.words is not None
    assert curves.sentences.tolist() == [len(words) for words in dev.words]
    assert curves.labels.tolist() == dev.labels[dev.labels >= 0].tolist()
    assert curves.logits.shape == (curves.sentences.sum(), 5)
    assert measured.final_score == metrics.score("f1_entity", curves.logits, curves.labels, curves.sentences).value
    assert measured.final_score is not None
    assert measured.final_score > 0.9
    assert (measured.dev_examples, measured.train_examples, measured.test_examples) == (20, 40, 10)
    assert (measured.correct, measured.majority_correct, measured.majority_score) == (None, None, 0.0)
    on_test = metrics.score("f1_entity", curves.test_logits, curves.test_labels, curves.test_sentences).value
    assert measured.test_score == on_test
    loss = F.cross_entropy(torch.from_numpy(curves.logits), torch.from_numpy(curves.labels))
    assert measured.final_dev_loss == pytest.approx(loss.item())
    assert failed.measured.final_score is not None
    assert failed.measured.final_score < 0.5


def with_test(data: TaskSpec, folder: Path) -> TaskSpec:
    assert data.files is not None
    return data.model_copy(update={"files": data.files.model_copy(update={"test": str(folder)})})


def test_a_test_split_is_scored_with_the_weights_of_the_result(trial: Make, data: TaskSpec, tmp_path: Path) -> None:
    """The dev set once more as test set: equal logits, whether the last weights are kept, the best or averages."""
    assert data.files is not None
    (tmp_path / "test.tsv").write_bytes(Path(data.files.validation).read_bytes())
    changes: list[dict[str, object]] = [
        {}, {"keep_best": True, "early_stopping_on": "score"}, {"averaging": "ema", "ema_decay": 0.5},
        {"early_stopping_patience": 1}, {"lr": 1e30},
    ]  # fmt: skip
    trials = [trial(3, task=with_test(data, tmp_path), **{"lr": 2e-2, "epochs": 4} | change) for change in changes]
    found = loop.train(trials)
    for result in found:
        assert np.array_equal(result.curves.test_logits, result.curves.logits, equal_nan=True)
        assert result.curves.test_labels.tolist() == result.curves.labels.tolist()
        assert result.measured.test_score == result.measured.final_score
        assert result.measured.test_examples == 30
    assert found[1].measured.kept_step != found[1].measured.steps  # else the case would prove nothing
    assert found[4].measured.test_score is None


@pytest.mark.parametrize("padding", ["dataset", "batch"])
def test_a_test_split_changes_nothing_of_a_run(trial: Make, data: TaskSpec, tmp_path: Path, padding: str) -> None:
    longest = "a b c d e f g h a b c d e f good"  # longer than every other text
    (tmp_path / "test.tsv").write_text(f"text\tlabel\n{longest}\tyes\ngood a\tyes\nbad b c\tno\n")
    without, with_it = (
        [trial(seed, task=task, padding=padding, epochs=1) for seed in (1, 2, 3)]
        for task in (data, with_test(data, tmp_path))
    )
    plain, found = loop.train(without), loop.train(with_it)
    for one, other in zip(plain, found, strict=True):
        assert same(one, replace(other, curves=replace(other.curves, test_logits=one.curves.test_logits,
                                                       test_labels=one.curves.test_labels)))  # fmt: skip
        assert (one.measured.test_score, one.measured.test_examples) == (None, None)
        assert one.measured.data_sha256 != other.measured.data_sha256
        assert other.curves.test_logits.shape == (3, 2)
    assert same(found[1], loop.train(with_it[1:2])[0])
    assert same(found[2], loop.train(with_it[1:])[1])
