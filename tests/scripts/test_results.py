"""The score of a script, from the files and the output that it may leave."""

import json
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.common.errors import HarnessError
from harness.config.score_sources import read_predictions, read_source
from harness.config.script import Script
from harness.scripts.results import NoScoreError, read_results

ACC = {"file": "r.json", "key": "acc"}


def read(folder, source, name=None, content=None, **more):
    if name is not None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_results(Script(score=read_source("score", source), **more), folder, time.time() - 1)


@pytest.mark.parametrize(
    ("name", "content", "source", "score"),
    [
        ("r.json", '{"acc": 0.75}', {"file": "r.json", "key": "acc"}, 0.75),
        ("r.json", '{"a": {"b": [1, 0.5]}}', {"file": "r.json", "key": "a.b.1"}, 0.5),
        ("r.json", '{"a": [{"b": 1}, {"b": 2}]}', {"file": "r.json", "key": "a.-1.b"}, 2),
        ("r.json", '{"eval/acc.top1": 0.5}', {"file": "r.json", "key": "eval/acc.top1"}, 0.5),
        ("r.json", '{"acc": "0.5"}', {"file": "r.json", "key": "acc"}, 0.5),
        ("r.json", '{"acc": NaN}', {"file": "r.json", "key": "acc"}, None),
        ("r.json", '{"acc": 1e999}', {"file": "r.json", "key": "acc"}, None),
        ("r.csv", "step,acc\n1,0.9\n2,0.7\n", {"file": "r.csv", "key": "acc"}, 0.7),
        ("r.csv", "step,acc\n1,0.9\n2,0.7\n", {"file": "r.csv", "key": "acc", "row": "best"}, 0.9),
        ("r.csv", "\ufeffstep,acc\n1,\n2,0.7\n3,\n", {"file": "r.csv", "key": "acc"}, 0.7),
        ("r.tsv", "step\tacc\n1\t0.9\n", {"file": "r.tsv", "key": "acc"}, 0.9),
        ("r.jsonl", '{"acc": 0.1}\n\n{"acc": 0.2}\n{"loss": 3}\n', {"file": "r.jsonl", "key": "acc"}, 0.2),
        (
            "trainer_state.json",
            json.dumps({"log_history": [{"step": 1, "loss": 1.0}, {"step": 2, "eval_accuracy": 0.6}]}),
            {"file": "trainer_state.json", "key": "eval_accuracy"},
            0.6,
        ),
        (
            "checkpoint-20/trainer_state.json",
            json.dumps({"log_history": [{"step": 2, "eval_accuracy": 0.6}]}),
            {"file": "trainer_state.json", "key": "eval_accuracy"},
            0.6,
        ),
        ("r.jsonl", '{"eval": {"acc": 0.1}}\n', {"file": "r.jsonl", "key": "eval.acc"}, 0.1),
        ("r.csv", "step,acc\nfirst,0.9\nnan,0.7\n", {"file": "r.csv", "key": "acc"}, 0.7),
        ("r.json", '{"acc": -Infinity}', {"file": "r.json", "key": "acc"}, None),
        ("r.csv", "acc\n-inf\n", {"file": "r.csv", "key": "acc"}, None),
        ("r.csv", "acc\nnan\n0.5\nNaN\n", {"file": "r.csv", "key": "acc", "row": "best"}, 0.5),
        (
            "all_results.json",
            '{"epoch": 3.0, "eval_accuracy": 0.8}',
            {"file": "all_results.json", "key": "eval_accuracy"},
            0.8,
        ),
        (
            "lightning_logs/version_0/metrics.csv",
            "epoch,step,train_loss,val_acc\n0,49,0.7,\n0,49,,0.6\n1,99,0.5,\n1,99,,0.8\n",
            {"file": "lightning_logs/version_0/metrics.csv", "key": "val_acc"},
            0.8,
        ),
        ("stdout.txt", "acc: 0.1\nacc: 0.2\nbye\n", {"stdout": r"acc: ([0-9.]+)"}, 0.2),
        ("stdout.txt", "acc: 0.3\nacc: nan\n", {"stdout": r"acc: (\S+)"}, None),
    ],
)
def test_scores(tmp_path, name, content, source, score):
    assert read(tmp_path, source, name, content).score == score


@pytest.mark.parametrize(
    ("name", "content", "source", "message"),
    [
        (None, None, {"file": "r.json", "key": "acc"}, "there is no r.json; the run's folder has: nothing"),
        ("other.txt", "", {"file": "r.json", "key": "acc"}, "the run's folder has: other.txt"),
        ("r.json", "", {"file": "r.json", "key": "acc"}, "r.json is empty"),
        ("r.json", "{", {"file": "r.json", "key": "acc"}, "r.json is not JSON"),
        ("r.json", '{"f1": 1}', {"file": "r.json", "key": "acc"}, "there is no acc in r.json; the keys there are: f1"),
        ("r.json", '{"acc": true}', {"file": "r.json", "key": "acc"}, "acc in r.json is true, no number"),
        ("r.json", '{"acc": null}', {"file": "r.json", "key": "acc"}, "acc in r.json is null, no number"),
        ("r.json", '{"acc": "90 %"}', {"file": "r.json", "key": "acc"}, "write a number without %"),
        ("r.json", '{"acc": "high"}', {"file": "r.json", "key": "acc"}, "is 'high', no number"),
        ("r.json", '{"acc": [1]}', {"file": "r.json", "key": "acc"}, "is no number but a list"),
        (
            "r.json",
            '{"acc": "a\\n\\u001b[0m b"}',
            {"file": "r.json", "key": "acc"},
            "acc in r.json is 'a \ufffd[0m b', no number",
        ),
        ("r.json", "[0.5]", {"file": "r.json", "key": "acc"}, "there is a list of 1"),
        ("r.csv", "", {"file": "r.csv", "key": "acc"}, "r.csv is empty"),
        ("r.csv", "acc\n90 %\n", {"file": "r.csv", "key": "acc"}, "write a number without %"),
        ("r.csv", "a,b\n1,2\n", {"file": "r.csv", "key": "acc"}, "its columns are: a, b"),
        ("trainer_state.json", "[]", {"file": "trainer_state.json", "key": "acc"}, "is not a Trainer's state"),
        ("stdout.txt", "nothing", {"stdout": "acc: (.+)"}, "it has no value"),
        ("tb/x", "", {"file": "tb", "key": "acc"}, "the scalars there are: none"),
    ],
)
def test_no_score_says_what_there_is(tmp_path, name, content, source, message):
    with pytest.raises(NoScoreError) as caught:
        read(tmp_path, source, name, content)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_of_an_older_run_is_not_this_runs(tmp_path):
    (tmp_path / "r.json").write_text('{"acc": 1}')
    script = Script(score=read_source("score", {"file": "r.json", "key": "acc"}))
    with pytest.raises(NoScoreError, match="older than the run"):
        read_results(script, tmp_path, time.time() + 60)


def test_tensorboards_scalars(tmp_path):
    writer_of = pytest.importorskip("tensorboardX").SummaryWriter
    with writer_of(str(tmp_path / "logs")) as writer:
        for step, value in enumerate((0.1, 0.9, 0.5)):
            writer.add_scalar("val/acc", value, step)
    source = {"file": "logs", "key": "val/acc"}
    assert read(tmp_path, source).score == pytest.approx(0.5)
    assert read(tmp_path, source | {"row": "best"}).score == pytest.approx(0.9)


def test_curves_further_metrics_and_answers(tmp_path):
    (tmp_path / "log.csv").write_text("step,loss,val_acc\n10,1.5,\n20,0.5,0.6\n30,0.25,0.7\n")
    (tmp_path / "preds.csv").write_text("id,label,prediction\n1,yes,yes\n2,no,yes\n3,no,no\n")
    log = {"file": "log.csv"}
    result = read(
        tmp_path,
        log | {"key": "val_acc"},
        also=(("loss", read_source("also.loss", log | {"key": "loss"})), ("no", read_source("x", log | {"key": "no"}))),
        curves=(
            ("loss", read_source("x", log | {"key": "loss"})),
            ("score", read_source("x", log | {"key": "val_acc"})),
        ),
        predictions=read_predictions({"file": "preds.csv"}),
    )
    assert result.score == 0.7
    assert result.further == {"loss": 0.25}
    assert result.notes == ("no was not read: there is no no in log.csv; its columns are: step, loss, val_acc",)
    assert [list(part) for part in result.loss_curve] == [[10, 20, 30], [1.5, 0.5, 0.25]]
    assert [list(part) for part in result.score_curve] == [[20, 30], [0.6, 0.7]]
    assert result.answers.classes == ("no", "yes")
    assert (result.answers.labels == result.answers.answers).tolist() == [True, False, True]


LABELS, ANSWERS = ["no", "yes", "no"], ["no", "no", "no"]
ROWS = [{"label": label, "prediction": answer} for label, answer in zip(LABELS, ANSWERS, strict=True)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.csv", "label,prediction\nno,no\nyes,no\nno,no\n"),
        ("p.tsv", "label\tprediction\nno\tno\nyes\tno\nno\tno\n"),
        ("p.jsonl", "\n".join(map(json.dumps, ROWS))),
        ("p.json", json.dumps(ROWS)),
        ("p.json", json.dumps({"label": LABELS, "prediction": ANSWERS})),
        ("p.npz", None),
    ],
)
def test_answers_in_every_form(tmp_path, name, content):
    if content is None:
        np.savez(tmp_path / name, label=LABELS, prediction=ANSWERS)
        content = (tmp_path / name).read_bytes()
    (tmp_path / "r.json").write_text('{"acc": 0.5}')
    result = read(tmp_path, ACC, name, content, predictions=read_predictions({"file": name}))
    assert result.notes == ()
    assert result.answers.classes == ("no", "yes")
    assert result.answers.labels.tolist() == [0, 1, 0]
    assert result.answers.answers.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("name", "content", "note"),
    [
        ("p.npz", b"PK", "p.npz is no npz of arrays"),
        ("p.json", '{"label": [1, 2], "prediction": [1]}', "p.json has 2 of label but 1 of prediction"),
        ("p.json", '{"label": [1, null], "prediction": [1, 1]}', "no column label with a value in every row"),
        ("p.csv", "gold,prediction\n1,1\n", "its columns are: gold, prediction"),
        ("p.csv", "", "p.csv is empty"),
    ],
)
def test_answers_that_cannot_be_read_are_a_note_and_no_crash(tmp_path, name, content, note):
    (tmp_path / "r.json").write_text('{"acc": 0.5}')
    result = read(tmp_path, ACC, name, content, predictions=read_predictions({"file": name}))
    assert (result.score, result.answers, len(result.notes)) == (0.5, None, 1)
    assert note in result.notes[0]


def test_whole_numbers_are_one_class_however_they_are_written(tmp_path):
    (tmp_path / "r.json").write_text('{"acc": 0.5}')
    rows = '{"label": 1, "prediction": 1.0}\n{"label": 0, "prediction": "1"}'
    result = read(tmp_path, ACC, "p.jsonl", rows, predictions=read_predictions({"file": "p.jsonl"}))
    assert result.answers.classes == ("0", "1")


def test_a_row_of_a_file_that_has_one_value_is_refused():
    with pytest.raises(HarnessError, match=r"score\.row is of a file with rows, and r\.json has one value"):
        read_source("score", ACC | {"row": "best"})


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["p.csv", "p.json", "p.jsonl", "p.npz"]))
def test_any_bytes_are_answers_or_a_note(tmp_path_factory, content, name):
    folder = tmp_path_factory.mktemp("run")
    (folder / "r.json").write_text('{"acc": 0.5}')
    result = read(folder, ACC, name, content, predictions=read_predictions({"file": name, "label": "a", "answer": "b"}))
    assert (result.answers is None) == bool(result.notes)
    assert "\n" not in "".join(result.notes)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["r.json", "r.csv", "r.jsonl", "trainer_state.json", "stdout.txt"]))
def test_any_bytes_are_a_score_or_one_line(tmp_path_factory, content, name):
    folder = tmp_path_factory.mktemp("run")
    source = {"stdout": "(.+)"} if name == "stdout.txt" else {"file": name, "key": "a"}
    told = ""
    try:
        score = read(folder, source, name, content).score
    except NoScoreError as error:
        score, told = None, str(error)
    assert "\n" not in told
    assert score is None or math.isfinite(score)
