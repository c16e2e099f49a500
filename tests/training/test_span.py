"""Answers in a context: transformers' own loss, the best of all spans by brute force, lanes, scores, what failed."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cut_runs import same_lane
from span_tasks import span_task
from torch.func import vmap
from training_runs import begin, loss_of

from harness.common import squad
from harness.common.errors import HarnessError
from harness.config.recipe import ModelSpec, TaskSpec
from harness.config.trials import Trial
from harness.data import spans
from harness.models import outputs, pretrained
from harness.training import loop, replayer
from harness.training.prepare import load_task

Make = Callable[..., Trial]
LENGTH = 10  # tokens: a question with six of its context


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> TaskSpec:
    return span_task(tmp_path_factory.mktemp("colours"))


def _module(model: ModelSpec, run: Any) -> Any:
    """transformers' network for question answering with the weights of the only lane."""
    from transformers import AutoModelForQuestionAnswering

    with torch.random.fork_rng(devices=[]):
        module = AutoModelForQuestionAnswering.from_pretrained(
            model.folder, dtype=torch.float32, attn_implementation="eager"
        ).eval()
    views = {name: view[0].detach() for name, view in run.lanes.arguments(run.lanes.weights).items()}
    module.load_state_dict(views, strict=False)
    return module


@pytest.mark.parametrize("padding", ["dataset", "batch"])
def test_a_step_s_loss_is_transformers_own(trial: Make, colours: TaskSpec, bert: ModelSpec, padding: str) -> None:
    """Of each window without its padding, which is no place that an answer is told from; and by hand."""
    run = begin([trial(1, task=colours, dropout=0.0, batch_size=8, max_length=LENGTH, padding=padding)])
    batch = run.batches.draw(0)
    ours = loss_of(run, batch) / 8 if padding == "dataset" else run.loss_and_gradient(run.lanes.weights, batch).item()
    module, task = _module(bert, run), load_task(colours, bert, LENGTH)
    theirs, by_hand = [], []
    for row in batch.rows[0].tolist():
        length, (start, end, *_) = int(task.train.lengths[row]), task.train.labels[row].tolist()
        ids = torch.from_numpy(task.train.input_ids[row : row + 1, :length])
        told = {"start_positions": torch.tensor([start]), "end_positions": torch.tensor([end])}
        output = module(input_ids=ids, **told)
        theirs.append(output.loss.item())
        for logits, place in ((output.start_logits, start), (output.end_logits, end)):
            values = np.exp(logits[0].detach().double().numpy())
            by_hand.append(-math.log(values[place] / values.sum()))
    assert ours == pytest.approx(np.mean(theirs), rel=1e-5)
    assert ours == pytest.approx(np.mean(by_hand), rel=1e-5)


def test_padding_is_transformers_ignored_position(bert: ModelSpec) -> None:
    """A batch's loss is theirs of the batch too, once the logits of padding are what can't be chosen."""
    draw = torch.Generator().manual_seed(1)
    logits = torch.randn(5, 7, 2, generator=draw)
    lengths = torch.tensor([7, 5, 6, 4, 7])
    start = torch.tensor([0, 2, 5, 3, 1])
    labels = torch.stack([start, (start + 1).clamp(max=lengths - 1), lengths, *torch.zeros(3, 5).long()], dim=1)
    hidden = torch.arange(7) >= lengths[:, None]
    from transformers.loss.loss_utils import ForQuestionAnsweringLoss

    begin, end = (logits[..., place].masked_fill(hidden, -1e30) for place in (0, 1))
    theirs = ForQuestionAnsweringLoss(begin, end, labels[:, 0], labels[:, 1])
    assert outputs.span_losses(logits, labels).mean().item() == pytest.approx(theirs.item(), rel=1e-6)


def test_the_best_answer_is_that_of_brute_force() -> None:
    draw = torch.Generator().manual_seed(2)
    logits = torch.randn(3, 6, 11, 2, generator=draw)  # three lanes of six windows
    first, behind = torch.tensor([3, 3, 4, 2, 3, 5]), torch.tensor([10, 4, 9, 11, 6, 10])
    zeros = torch.zeros(6).long()
    labels = torch.stack([zeros, zeros, (behind + 1).clamp(max=11), zeros, first, behind], dim=1)
    for longest in (1, 3, 20):
        kept = vmap(lambda lane, longest=longest: outputs.best_in_windows(lane, labels, longest))(logits)
        for lane in range(3):
            for row in range(6):
                start, end = logits[lane, row].double().T.numpy()
                places = range(int(first[row]), int(behind[row]))
                sums = {(a, b): start[a] + end[b] for a in places for b in places if 0 <= b - a < longest}
                best = max(sums, key=lambda pair: sums[pair])
                _, value, none, begin, last, norm = kept[lane, row].tolist()
                assert (begin, last) == best
                assert value == pytest.approx(sums[best], rel=1e-5)
                assert none == pytest.approx(start[0] + end[0], rel=1e-5)
                real = int(labels[row, 2])
                shares = [np.exp(values[:real]).sum() for values in (start, end)]
                assert norm == pytest.approx(math.log(shares[0] * shares[1]), rel=1e-5)


def test_the_best_window_answers_a_question() -> None:
    rows = np.array([[1, 2.0, 0.5, 3, 4, 3], [2, 5.0, 1.0, 4, 4, 6], [3, 1.0, 4.0, 3, 3, 5], [1, np.nan, 0, 3, 3, 1]])
    offsets = np.arange(4 * 6 * 2).reshape(4, 6, 2)
    question = np.array([0, 0, 1, 2])
    made = outputs.chosen(rows.astype(np.float32), question, offsets, abstains=True)
    assert made[0].tolist() == pytest.approx([3 * 3 / 4, math.exp(-1), offsets[1, 4, 0], offsets[1, 4, 1]])
    assert made[1].tolist() == pytest.approx([3 * 3 / 4, math.exp(-1), 0, 0])  # none is likelier
    assert np.isnan(made[2]).all()
    made = outputs.chosen(rows.astype(np.float32), question, offsets, abstains=False)
    assert made[1, 2:].tolist() == offsets[2, 3].tolist()
    least = np.array([[0, 2.0, 3.0, 3, 4, 3], [0, 1.0, 1.5, 4, 4, 6]], np.float32)
    made = outputs.chosen(least, np.array([0, 0]), offsets[:2], abstains=True)
    assert made[0, 3] > 0  # one window says none at 3, but the other at 1.5 alone


@pytest.mark.parametrize("fields", [{}, {"padding": "batch"}, {"method": "lora"}, {"method": "prompt"}])
def test_a_lane_is_bit_equal_alone_and_in_a_pack(trial: Make, colours: TaskSpec, fields: dict[str, Any]) -> None:
    given = {"task": colours, "lr": 1e-2, "epochs": 1, "max_length": LENGTH} | fields
    pack = [trial(seed, **given) for seed in (1, 2, 3)]
    (alone,) = loop.train(pack[1:2])
    assert same_lane(alone, loop.train(pack)[1])
    assert alone.curves.logits.shape == (30, 6)


def test_a_run_is_scored_by_the_text_of_its_answers(trial: Make, colours: TaskSpec, bert: ModelSpec) -> None:
    """By transformers' own logits of every window, and every span of each; it learns, and is better than no answer."""
    run_trial = trial(1, task=colours, lr=2e-2, epochs=8, max_length=LENGTH)
    run = begin([run_trial])
    (result,) = loop.train([run_trial])
    measured, curves = result.measured, result.curves
    task = load_task(colours, bert, LENGTH)
    assert (measured.dev_examples, measured.train_examples) == (30, len(task.train.labels))
    assert len(task.train.labels) > 48  # windows
    assert (measured.metric, measured.outcome, measured.correct) == ("squad_f1", "ok", None)
    assert measured.majority_score is not None
    assert measured.final_score == pytest.approx(float(curves.logits[:, 2].mean()))
    assert measured.final_score > measured.majority_score + 0.2  # type: ignore[operator]
    assert measured.final_dev_loss == pytest.approx(float(curves.logits[:, 0].mean()), rel=1e-5)
    assert curves.test_logits.shape == (10, 6)
    assert curves.recording is not None
    labels = dict(zip(spans.LABELS, task.train.labels.T, strict=True))
    answered = labels["start"] > 0
    share = answered.mean()
    chances = np.where(answered, share / (labels["behind"] - labels["first"]), 1 - share)
    assert measured.label_entropy == pytest.approx(-np.log(chances).mean())
    assert measured.final_train_loss < measured.label_entropy / 2  # type: ignore[operator]
    run.lanes.weights.copy_(torch.from_numpy(result.weights)[None])
    module, windows = _module(bert, run), task.validation.windows
    assert windows is not None
    best: dict[int, tuple[float, str]] = {}
    none: dict[int, float] = {}
    for row, question in enumerate(windows.question.tolist()):
        length, label = (
            int(task.validation.lengths[row]),
            dict(zip(spans.LABELS, task.validation.labels[row], strict=True)),
        )
        with torch.no_grad():
            output = module(input_ids=torch.from_numpy(task.validation.input_ids[row : row + 1, :length]))
        start, end = output.start_logits[0].tolist(), output.end_logits[0].tolist()
        none[question] = min(none.get(question, math.inf), start[0] + end[0])
        for a in range(label["first"], label["behind"]):
            for b in range(a, min(a + 3, label["behind"])):
                text = windows.contexts[question][windows.offsets[row, a, 0] : windows.offsets[row, b, 1]]
                best[question] = max(best.get(question, (-math.inf, "")), (start[a] + end[b], text))
    answers = [text if score >= none[question] else "" for question, (score, text) in sorted(best.items())]
    given = np.array([squad.best(text, own) for text, own in zip(answers, windows.expected, strict=True)])
    np.testing.assert_allclose(curves.logits[:, 1:3], given, rtol=1e-6)
    told = outputs.texts(curves.logits[:, [0, 3, 4, 5]], windows.contexts)
    assert told == answers


@pytest.mark.parametrize("metric", ["squad_f1", "squad_exact"])
def test_a_run_that_always_answers_nothing_failed(trial: Make, tmp_path: Path, metric: str) -> None:
    mostly_none = span_task(tmp_path, "none", answered=0.3, metric=metric)
    (result,) = loop.train([trial(1, task=mostly_none, lr=1e-9, epochs=1, max_length=LENGTH)])
    measured = result.measured
    windows = load_task(mostly_none, trial().recipe.model, LENGTH).validation.windows
    assert windows is not None
    none = float(np.mean([not own for own in windows.expected]))
    assert measured.majority_score == pytest.approx(none)
    (broken,) = loop.train([trial(1, task=mostly_none, lr=2e-2, epochs=3, max_length=LENGTH)])
    for run in (measured, broken.measured):
        below = run.final_score <= run.majority_score  # type: ignore[operator]
        assert (run.outcome == "failed") == below
    assert (broken.measured.majority_correct is None) == (metric == "squad_f1")


def test_a_run_that_diverged_has_no_score(trial: Make, colours: TaskSpec) -> None:
    (result,) = loop.train([trial(1, task=colours, lr=1e30, epochs=1, max_length=LENGTH, max_grad_norm=None)])
    assert (result.measured.outcome, result.measured.reason) == ("failed", "diverged")
    assert result.measured.final_score is None


def test_the_head_is_always_drawn_afresh(build: Callable[..., Path]) -> None:
    """Also that of a checkpoint that answered questions before, whose shape is the same."""
    from transformers import AutoModelForQuestionAnswering

    for kind in ("bert", "distilbert", "gpt2"):
        folder = build(kind)
        with torch.random.fork_rng(devices=[]):
            AutoModelForQuestionAnswering.from_pretrained(folder).save_pretrained(folder)
        network = pretrained.network(ModelSpec(name=kind, folder=str(folder)), 2, kind="span")
        assert network.head == ("qa_outputs.weight", "qa_outputs.bias")


@pytest.mark.parametrize("name", ["class_weights", "oversample", "mixup"])
def test_what_needs_classes_is_refused(trial: Make, colours: TaskSpec, name: str) -> None:
    from harness.config.recipe_rules import check_recipe

    with pytest.raises(HarnessError, match=f"{name} cannot be used with task.kind: span"):
        check_recipe(trial(1, task=colours, **{name: True if name != "mixup" else 0.2}).recipe)


def test_what_is_recorded_is_of_its_own_longest_answer(
    trial: Make, colours: TaskSpec, build: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tasks that differ in it alone share the network, and no recording of it."""
    model = ModelSpec(name="bert", folder=str(build("bert", num_hidden_layers=1)))
    monkeypatch.setattr(replayer, "RECORDING_PAYS", 1)
    counts = []
    for longest in (1, 6):
        task = colours.model_copy(update={"max_answer_length": longest})
        loop.train([trial(1, task=task, model=model, max_length=LENGTH)])
        counts.append(len(pretrained.network(model, 2, kind="span").recordings))
    assert counts[1] == 2 * counts[0] > 0
