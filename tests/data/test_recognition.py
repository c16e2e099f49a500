"""Files of another kind than texts say which, and what to set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli.app import app
from harness.common.errors import HarnessError
from harness.config.recipe import TaskFiles, TaskSpec
from harness.data import choice_files, recognition, tasks

ANSWERS = {"text": ["b"], "answer_start": [2]}
SQUAD = {"data": [{"title": "T", "paragraphs": [{"context": "a b", "qas": [{"question": "q", "answers": []}]}]}]}
CONTENT = {
    "span": ("a.json", json.dumps(SQUAD)),
    "span ": ("a.jsonl", json.dumps({"id": "1", "question": "q", "context": "a b", "answers": ANSWERS})),
    "completion": ("a.jsonl", json.dumps({"prompt": "a", "completion": "b"})),
    "completion ": ("a.json", json.dumps([{"messages": [{"role": "user", "content": "a"}]}])),
    "choice": ("a.csv", "sent1,sent2,ending0,ending1,ending2,ending3,label\na,b,c,d,e,f,0"),
    "choice ": ("a.jsonl", json.dumps({"article": "a", "question": "q", "options": ["c", "d"], "answer": "A"})),
    "tokens": ("a.jsonl", json.dumps({"tokens": ["a", "b"], "ner_tags": ["O", "B-X"]})),
    "labels and task.label=labels": ("a.jsonl", json.dumps({"text": "a", "labels": ["x"]})),
}


@pytest.mark.parametrize("kind", CONTENT)
def test_a_file_of_another_kind_says_which(tmp_path: Path, kind: str) -> None:
    name, text = CONTENT[kind]
    for stem in ("train", "dev"):
        (tmp_path / name.replace("a.", f"{stem}.")).write_text(text + "\n")
    files = TaskFiles(train=str(tmp_path), validation=str(tmp_path))
    with pytest.raises(
        HarnessError, match=rf"looks like .*and task\.kind is texts.*Set task\.kind={kind.strip()}\."
    ) as error:
        tasks.load(TaskSpec(name="own", files=files))
    assert "train" in str(error.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.csv", "text,label\na,x\n"), ("a.jsonl", "not json"), ("a.tsv", ""), ("a.json", "[]"), ("a.csv", "one\n")],
)
def test_texts_and_what_is_nothing_are_left_to_the_reader(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert recognition.hint(tmp_path / name) is None


def test_the_command_says_what_to_set_of_a_single_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "squad.json").write_text(json.dumps(SQUAD))
    result = CliRunner().invoke(app, ["data", "squad.json"])
    assert result.exit_code == 2
    assert "looks like questions about contexts" in result.stderr
    assert "Set task.kind=span and task.validation=0.1." in result.stderr


def test_columns_that_are_named_are_not_guessed_at(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"prompt": "a", "completion": "b"}) + "\n")
    files = TaskFiles(train=str(tmp_path / "a.jsonl"))
    with pytest.raises(HarnessError, match=r"no column nothing for task\.label"):
        tasks.load(TaskSpec(name="own", files=files, validation=0.5, text="prompt", label="nothing"))


def test_rows_of_a_json_array_are_counted_as_rows(tmp_path: Path) -> None:
    rows = [{"text": "a", "choices": ["b", "c"], "label": 0}, {"text": "a", "choices": [f"{k}" for k in range(30)]}]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    with pytest.raises(
        HarnessError, match=r"a\.json, row 2: choices must be a list of 2 to 26 texts \(got 30 choices\)"
    ):
        choice_files.examples(tmp_path / "a.json", TaskSpec(name="own", kind="choice"))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(HarnessError, match=r"a\.jsonl, line 2: choices must"):
        choice_files.examples(tmp_path / "a.jsonl", TaskSpec(name="own", kind="choice"))
