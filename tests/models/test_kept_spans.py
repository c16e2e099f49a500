"""A sweep of questions about contexts: recorded, kept, rerun, verified, reported, described, and asked again."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shown_snippets import shown
from span_tasks import rows, span_task
from typer.testing import CliRunner

from harness.cli.app import app
from harness.common.errors import HarnessError
from harness.config.recipe import ModelSpec, TaskSpec
from harness.config.sweep_file import load
from harness.config.trials import Sweep, expand
from harness.data import summary
from harness.data.span_files import Question
from harness.execution import driver
from harness.execution.driver import Options
from harness.execution.rerun import rerun
from harness.execution.verification import verify
from harness.models import predict, predict_spans, pretrained, saved
from harness.models.predict import PredictionOptions
from harness.records.store import Store
from harness.records.study import of_sweep
from harness.report import page
from harness.training.prepare import load_task


@dataclass
class Trained:
    """A sweep of two rates × two methods, one seed, which was trained."""

    sweep: Sweep
    store: Store
    task: TaskSpec
    model: ModelSpec
    path: Path

    def folder(self, place: int) -> Path:
        return saved.place(self.store, expand(self.sweep)[place].id)


@pytest.fixture(scope="module")
def trained(bert: ModelSpec, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("spans")
    task = span_task(folder / "data")
    given, model = json.dumps(task.model_dump(exclude_none=True)), json.dumps(bert.model_dump())
    path = folder / "asked.yaml"
    path.write_text(
        f"task: {given}\nmodel: {model}\nlr: [2e-2, 1e-9]\nmethod: [full, lora]\nepochs: 8\nbatch_size: 8\n"
        "max_length: 10\nseeds: 1..1\n"
    )
    sweep = load(path)
    store = Store(folder / "results" / sweep.folder_name)
    outcome = driver.run(sweep, store, Options(in_process=True, keep="all"), lambda progress: None)
    assert outcome.finished == 4
    return Trained(sweep, store, task, bert, path)


def test_records_hold_answers_that_verify_and_rerun(trained: Trained) -> None:
    sweep, store = trained.sweep, trained.store
    first, *_, last = expand(sweep)
    measured = store.load(first.id).measured  # type: ignore[union-attr]
    assert measured is not None
    assert (measured.metric, measured.outcome) == ("squad_f1", "ok")
    assert store.load(last.id).measured.outcome == "failed"  # type: ignore[union-attr]
    assert rerun(sweep, store, first, 0.0).verdict == "identical"
    assert not verify.check(sweep, store).problems


@pytest.mark.parametrize("column", [0, 1, 2, 3])
def test_verify_finds_an_answer_that_was_changed(trained: Trained, tmp_path: Path, column: int) -> None:
    """Of a loss, an F1, and what is no share; an exact match is no part of an F1, but of its range."""
    from harness.execution.verification.recipe import check_within
    from harness.execution.verification.scores import check_measured
    from harness.records.array_shapes import check_arrays, expected_arrays

    record = trained.store.load(expand(trained.sweep)[0].id)
    curves = trained.store.curves(expand(trained.sweep)[0].id)
    assert record is not None
    assert record.measured is not None
    assert curves is not None
    curves.logits.setflags(write=True)
    curves.logits[:, column] += 1.5
    recipe, expected = record.trial.recipe, expected_arrays(record)
    assert expected is not None
    found = [*check_measured(record.measured, curves, recipe), *check_within(record.measured, curves, recipe)]
    assert [*found, *check_arrays(curves, expected)]


def test_the_report_says_what_failed_means(trained: Trained, empty_pictures: None) -> None:
    made = page.write(of_sweep(trained.sweep, trained.store), trained.store.folder / "report")
    text = (trained.store.folder / "report" / "report.md").read_text()
    assert "at or below that of always answering the commonest answer or none" in text
    assert "SQuAD F1" in text
    assert "SQuAD exact match" in text
    assert made


@pytest.mark.parametrize("place", [0, 1])
def test_a_kept_model_answers_as_it_was_scored(trained: Trained, tmp_path: Path, place: int) -> None:
    """Whole and as an adapter: the dev questions are answered as the record has it, in lines and as a table."""
    trial = expand(trained.sweep)[place]
    curves = trained.store.curves(trial.id)
    assert curves is not None
    windows = load_task(trained.task, trained.model, 10).validation.windows
    assert windows is not None
    assert trained.task.files is not None
    file, out = Path(str(trained.task.files.validation)), tmp_path / "out.jsonl"
    options = PredictionOptions((trained.folder(place),), file, out, label="answers", batch_size=7)
    made = predict_spans.run(options)
    given = [json.loads(line) for line in out.read_text().splitlines()]
    expected = [
        context[int(start) : int(end)]
        for context, (start, end) in zip(windows.contexts, curves.logits[:, 4:], strict=True)
    ]
    assert [row["answer"] for row in given] == expected
    np.testing.assert_allclose([row["score"] for row in given], curves.logits[:, 3], rtol=1e-4)
    assert made.score == pytest.approx(curves.logits[:, 1].mean())
    assert made.token_f1 == pytest.approx(curves.logits[:, 2].mean())
    predict_spans.run(PredictionOptions((trained.folder(place),), file, tmp_path / "out.csv"))
    assert (tmp_path / "out.csv").read_text().splitlines()[0] == "answer,score"


def test_the_page_s_code_answers_as_predict_does(trained: Trained) -> None:
    questions = [
        Question(number, row["question"], row["context"], None) for number, row in enumerate(rows(12, 9, longest=5))
    ]
    told = predict_spans.SpanModel(trained.folder(0)).answers(questions, 4)
    answered = [(own, answer.text) for own, answer in zip(questions, told, strict=True) if answer.text][:3]
    assert answered
    for question, text in answered:
        pair = f"{question.question!r}, {question.context!r}"
        changes = {"old0": '"Who rests?", "No large lily rests."', "new0": pair, "old1": "tril(29)", "new1": "tril(2)"}
        assert shown("question-answering.md", trained.folder(0), **changes) == text


def test_ids_and_missing_answers_of_a_file_to_ask(trained: Trained, tmp_path: Path) -> None:
    file = tmp_path / "asked.json"
    paragraphs = [{"context": row["context"], "qas": [{"id": f"q{number}", "question": row["question"]}]}
                  for number, row in enumerate(rows(3, 9))]  # fmt: skip
    file.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    result = CliRunner().invoke(
        app, ["predict", str(trained.store.folder), str(file), "--trial", expand(trained.sweep)[0].id]
    )
    assert result.exit_code == 0, result.output
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert lines[0] == ["id", "answer", "score"]
    assert [line[0] for line in lines[1:]] == ["q0", "q1", "q2"]
    assert all(0 < float(line[2]) <= 1 for line in lines[1:])
    with pytest.raises(HarnessError, match=r"question 1: no key answers"):
        predict_spans.run(PredictionOptions((trained.folder(0),), file, label="answers"))
    with pytest.raises(HarnessError, match="answers of several models cannot be averaged"):
        predict_spans.run(PredictionOptions((trained.folder(0), trained.folder(2)), file))
    with pytest.raises(HarnessError, match="--probabilities requires a task with classes"):
        predict_spans.run(PredictionOptions((trained.folder(0),), file, probabilities=True))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_a_whole_model_and_an_adapter_load_where_they_should(trained: Trained) -> None:
    import peft
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    question, context = "good", "a b red c d"
    folder = trained.folder(0)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    module = AutoModelForQuestionAnswering.from_pretrained(folder).eval()
    given = tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True)
    offsets = given.pop("offset_mapping")[0]
    with torch.no_grad():
        output = module(**given)
    start, end = int(output.start_logits.argmax()), int(output.end_logits.argmax())
    assert context[offsets[start][0] : offsets[end][1]] == "red"
    assert module.config.num_labels == 2
    adapter = trained.folder(1)
    base = AutoModelForQuestionAnswering.from_pretrained(trained.model.folder)
    loaded = peft.PeftModel.from_pretrained(base, adapter).eval()
    assert loaded.peft_config["default"].task_type == "QUESTION_ANS"
    (ours,) = predict_spans.SpanModel(adapter).answers([Question(1, question, context, None)], 1)
    with torch.no_grad():
        output = loaded(input_ids=given["input_ids"])
    first, second = (logits[0].softmax(0).tolist() for logits in (output.start_logits, output.end_logits))
    places = range(3, len(first) - 1)
    chances = {(a, b): first[a] * second[b] for a in places for b in places if 0 <= b - a < 3}
    a, b = max(chances, key=lambda pair: chances[pair])
    assert ours.text == context[offsets[a][0] : offsets[b][1]]
    assert ours.score == pytest.approx(chances[a, b], rel=1e-4)


def test_the_data_are_described(trained: Trained) -> None:
    described = summary.describe(trained.task, pretrained.tokenizer(trained.model), 10)
    task = load_task(trained.task, trained.model, 10)
    assert described.majority == pytest.approx(float(task.validation.targets.mean()))
    answered = sum(bool(row["answers"]["text"]) for row in rows(48, 1))
    assert described.train.labels == {"with an answer": answered, "no answer": 48 - answered}
    assert described.train.cut == sum(len(row["context"].split()) + 4 > 10 for row in rows(48, 1))
    text = CliRunner().invoke(app, ["data", str(trained.path)]).output
    for words in (
        "answers in a context, questions with contexts, SQuAD F1",
        "read in windows at 10 tokens",
        "no answer",
    ):
        assert words in text


def test_contexts_of_training_in_dev_and_constant_answers_are_told(trained: Trained, tmp_path: Path) -> None:
    files = trained.task.files
    assert files is not None
    shutil.copy(files.train, tmp_path / "dev.jsonl")
    dev: list[dict[str, Any]] = rows(5, 4, answered=0)
    (tmp_path / "none.jsonl").write_text("".join(json.dumps(row) + "\n" for row in dev))
    for name, message in (
        ("dev.jsonl", "48 of 48 dev questions are about a context of the training split"),
        ("none.jsonl", "always giving no answer is right for all dev questions"),
    ):
        other = trained.task.model_copy(update={"files": files.model_copy(update={"validation": str(tmp_path / name)})})
        assert any(message in note for note in summary.describe(other, None, 10).notes), name


def test_a_model_of_classes_is_no_model_of_spans(trained: Trained) -> None:
    served = predict.Served(trained.folder(0))
    assert (served.outputs, served.by_token, served.card.abstains) == (2, True, True)
