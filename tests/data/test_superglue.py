"""SuperGLUE's tasks by name, from the official files' rows and a stand-in for the hub."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.common import hub, metrics
from harness.common.errors import HarnessError
from harness.config.recipe import ModelSpec, TaskFiles, TaskSpec
from harness.config.trials import Trial
from harness.data import summary, tasks, text_files
from harness.execution.verification import scores as verify_scores
from harness.training.loop import train

WIC = [
    {"word": "place", "sentence1": "Do you want to come over to my place later?", "label": False, "version": 1.1,
     "sentence2": "A political system with no place for the less prominent groups.", "idx": 0, "start1": 31},
    {"word": "hold", "sentence1": "The general ordered the colonel to hold his position.", "label": True, "idx": 1,
     "sentence2": "Hold the taxi.", "start1": 35, "end1": 39},
]  # fmt: skip
MULTIRC = [
    {"idx": 0, "version": 1.1, "passage": {"text": "P one.", "questions": [
        {"question": "Who?", "idx": 0, "answers": [{"text": "Ann", "idx": 0, "label": 1},
                                                   {"text": "Bob", "idx": 1, "label": 0}]},
        {"question": "When?", "idx": 1, "answers": [{"text": "Now", "idx": 2, "label": 0}]}]}},
    {"idx": 1, "version": 1.1, "passage": {"text": "P two.", "questions": [
        {"question": "Why?", "idx": 2, "answers": [{"text": "So", "idx": 3, "label": 1},
                                                   {"text": "No", "idx": 4, "label": 0}]}]}},
]  # fmt: skip
COPA = [
    {"premise": "My body cast a shadow over the grass.", "choice1": "The sun was rising.", "question": "cause",
     "choice2": "The grass was cut.", "label": 0, "idx": 0},
    {"premise": "The man hung up.", "choice1": "He dialled.", "choice2": "The call ended.", "question": "effect",
     "label": 1, "idx": 1},
]  # fmt: skip


def task(folder: Path, name: str, content: list[Any], **more: Any) -> TaskSpec:
    for split in ("train", "val"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
    files = TaskFiles(train=str(folder), validation=str(folder))
    return TaskSpec.model_validate({"name": name, "files": files, **more})


def test_wic_has_the_word_before_each_sentence(tmp_path: Path) -> None:
    raw = tasks.load(task(tmp_path, "wic", WIC))
    assert raw.train.texts[1] == "hold: The general ordered the colonel to hold his position."
    assert raw.train.pairs is not None
    assert raw.train.pairs[1] == "hold: Hold the taxi."
    assert (raw.train.labels.tolist(), raw.metric, raw.kind) == ([0, 1], "accuracy", "texts")
    own = tasks.load(task(tmp_path, "wic", WIC, text="sentence1", text_pair="sentence2"))
    assert own.train.texts[0] == WIC[0]["sentence1"]  # columns that are named are read as they are
    del WIC[1]["word"]
    with pytest.raises(HarnessError, match=r"train\.jsonl, line 2: word is not a text"):
        tasks.load(task(tmp_path, "wic", WIC))
    WIC[1]["word"] = "hold"


def test_multirc_has_a_row_an_answer_and_its_paragraphs_stay_together(tmp_path: Path) -> None:
    spec = task(tmp_path, "multirc", MULTIRC)
    raw = tasks.load(spec)
    assert raw.train.texts == ("P one.", "P one.", "P one.", "P two.", "P two.")
    assert raw.train.pairs == ("Who? Ann", "Who? Bob", "When? Now", "Why? So", "Why? No")
    assert (raw.train.labels.tolist(), raw.metric) == ([1, 0, 0, 1, 0], "f1")
    assert list(raw.train.numbers) == [1, 1, 1, 2, 2]
    assert raw.validation.groups is not None
    assert raw.validation.groups.tolist() == [2, 1, 2]
    assert [line.pair for line in text_files.stream(tmp_path / "val.jsonl", spec, pairs=True)] == list(raw.train.pairs)
    flat = [
        {"paragraph": text, "question": pair.split("? ")[0] + "?", "answer": pair.split("? ")[1], "label": int(label)}
        for text, pair, label in zip(raw.train.texts, raw.train.pairs, raw.train.labels, strict=True)
    ]
    assert tasks.load(task(tmp_path, "multirc", flat)).sha256 == raw.sha256
    (tmp_path / "val.jsonl").unlink()
    files = TaskFiles(train=str(tmp_path / "train.jsonl"))
    parted = tasks.load(TaskSpec(name="multirc", files=files, validation=0.5))
    assert not set(parted.train.texts) & set(parted.validation.texts)
    assert parted.validation.groups is not None
    assert parted.validation.groups.sum() == len(parted.validation.texts)
    broken = [{"passage": {"text": "P", "questions": []}}]
    with pytest.raises(HarnessError, match="line 1: questions is not a list of objects"):
        tasks.load(task(tmp_path, "multirc", broken))


def test_copa_is_multiple_choice_by_its_name(tmp_path: Path) -> None:
    spec = task(tmp_path, "copa", COPA)
    assert spec.kind == "choice"
    raw = tasks.load(spec)
    assert raw.train.texts == ("My body cast a shadow over the grass. because", "The man hung up. so")
    assert raw.train.labels.tolist() == [0, 1]
    assert summary.describe(spec, None, 64).kind == "choice"
    assert TaskSpec(name="copa").kind == "choice"
    with pytest.raises(HarnessError, match=r"the task copa is one of task\.kind: choice"):
        tasks.load(TaskSpec(name="copa", kind="texts"))
    assert TaskSpec(name="copa", text="premise", files=TaskFiles(train="a", validation="b")).kind == "texts"


@pytest.mark.parametrize("name", ["wic", "multirc", "copa"])
def test_from_the_hub_as_from_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    import datasets

    content: list[Any] = {"wic": WIC, "copa": COPA}.get(name, [])
    of_files = tasks.load(task(tmp_path, name, content or MULTIRC))
    if name == "multirc":
        assert of_files.train.pairs is not None
        content = [
            {
                "paragraph": text,
                "question": pair.split("? ")[0] + "?",
                "answer": pair.split("? ")[1],
                "label": int(label),
            }
            for text, pair, label in zip(of_files.train.texts, of_files.train.pairs, of_files.train.labels, strict=True)
        ]
    classes = datasets.ClassLabel(names=["choice1", "choice2"] if name == "copa" else ["False", "True"])
    columns = {key: [int(row[key]) if key == "label" else row[key] for row in content] for key in content[0]
               if isinstance(content[0][key], str) or key == "label"}  # fmt: skip
    features = datasets.Features({key: classes if key == "label" else datasets.Value("string") for key in columns})
    made = datasets.Dataset.from_dict(columns, features=features)
    monkeypatch.setattr(hub, "prepare", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: datasets.DatasetDict({"train": made, "validation": made}))
    assert tasks.on_the_hub(TaskSpec(name=name))
    raw = tasks.load(TaskSpec(name=name))
    assert raw.sha256 == of_files.sha256
    assert np.array_equal(raw.train.groups, of_files.train.groups)  # type: ignore[arg-type]
    assert tasks.sizes(TaskSpec(name=name)) == {"wic": (5428, 638), "multirc": (27243, 4848), "copa": (400, 100)}[name]


def test_a_question_is_right_when_all_its_answers_are() -> None:
    """By hand: of three questions with 2, 1 and 2 answers the second and third are right."""
    labels, sizes = np.array([1, 0, 0, 1, 0]), np.array([2, 1, 2])
    answers = np.array([1, 1, 0, 1, 0])
    assert metrics.question_match(np.eye(2)[answers], labels, sizes) == pytest.approx(2 / 3)
    assert metrics.question_match(np.eye(2)[labels], labels, sizes) == 1


def test_runs_on_multirc_keep_which_question_an_answer_is_of(
    tmp_path: Path, bert: ModelSpec, trial: Callable[..., Trial]
) -> None:
    spec = task(tmp_path, "multirc", MULTIRC, allow_unknown=True)
    (result,) = train([trial(1, task=spec, batch_size=2, epochs=1)])
    assert result.curves.sentences.tolist() == [2, 1, 2]
    assert result.curves.logits.shape == (5, 2)
    assert (result.measured.metric, result.measured.dev_examples) == ("f1", 5)
    assert not list(verify_scores.check_measured(result.measured, result.curves, trial(1, task=spec).recipe))


def test_multirc_s_measures_are_the_official_ones(tmp_path: Path) -> None:
    """EM and F1a as SuperGLUE's metric computes them: all answers of a question right; F1 of class 1 over all answers.

    By hand: two passages have a first question each, and one asks the same question twice.
    """
    twice = json.loads(json.dumps(MULTIRC))
    twice[0]["passage"]["questions"][1]["question"] = "Who?"
    raw = tasks.load(task(tmp_path, "multirc", twice, metric="question_match"))
    sizes, labels = raw.validation.groups, raw.validation.labels
    assert sizes is not None
    assert (sizes.tolist(), labels.tolist()) == ([2, 1, 2], [1, 0, 0, 1, 0])
    answers = np.array([1, 0, 1, 1, 0])  # the second question is wrong
    score = metrics.score("question_match", np.eye(2)[answers], labels, sizes)
    assert score.value == pytest.approx(2 / 3)
    assert metrics.score("f1", np.eye(2)[answers], labels).value == pytest.approx(2 * 2 / (3 + 2))
    # Always no: the second question alone; always yes: none.
    assert metrics.majority("question_match", labels, 2, sizes).value == pytest.approx(1 / 3)
    none = metrics.score("question_match", np.eye(2)[np.zeros(5, int)], labels, sizes)
    assert (none.value, none.at_or_below_majority, none.constant) == (pytest.approx(1 / 3), True, True)
    assert not score.at_or_below_majority


def test_runs_are_scored_by_questions_that_are_all_right(
    tmp_path: Path, bert: ModelSpec, trial: Callable[..., Trial]
) -> None:
    spec = task(tmp_path, "multirc", MULTIRC, allow_unknown=True, metric="question_match")
    planned = trial(1, task=spec, batch_size=2, epochs=1, label_smoothing=0.1)
    (result,) = train([planned])
    assert result.measured.majority_score == pytest.approx(1 / 3)
    right = metrics.question_match(result.curves.logits, result.curves.labels, np.array([2, 1, 2]))
    assert result.measured.final_score == right
    assert not list(verify_scores.check_measured(result.measured, result.curves, planned.recipe))
    changed = result.measured.model_copy(update={"majority_score": 0.5})
    assert list(verify_scores.check_measured(changed, result.curves, planned.recipe))
    with pytest.raises(HarnessError, match="metric question_match requires questions that have several answers"):
        tasks.load(task(tmp_path, "wic", WIC, metric="question_match"))
