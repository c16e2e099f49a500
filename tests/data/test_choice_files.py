"""Files of multiple choice: which columns are meant, what a label is, what is refused, what stays of long texts."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from choice_tasks import choice_task, rows

from harness.common.errors import HarnessError
from harness.config.recipe import ModelSpec, TaskFiles, TaskSpec
from harness.data import choice_files, choices, summary, tasks
from harness.data.embedded.language import Sentence, entails
from harness.models import pretrained

GOOD = [{"text": "a", "choices": ["red", "blue"], "label": number} for number in (0, 1, 1)]


def task_of(path: Path, train: list[dict[str, object]], **more: object) -> TaskSpec:
    return choice_task(path / "mine", train, GOOD, **more)


def test_layouts_are_the_same_task(tmp_path: Path) -> None:
    """A list, SWAG's columns in CSV, letters, numbers from 1 and the texts themselves give the same data."""
    own = rows(12, 1)
    raw = tasks.load(choice_task(tmp_path / "list", own, own[:5]))
    assert raw.label_names == ("0", "1", "2")
    assert raw.train.choices is not None
    assert raw.train.labels.tolist() == [row["label"] for row in own]

    def spelt(spell: Callable[[dict[str, object]], object]) -> list[dict[str, object]]:
        return [row | {"label": spell(row)} for row in own]

    others = {
        "one": (spelt(lambda row: int(row["label"]) + 1), ("1", "2", "3")),  # type: ignore[call-overload]
        "letters": (spelt(lambda row: "ABC"[row["label"]]), ("A", "B", "C")),  # type: ignore[index]
        "texts": (spelt(lambda row: row["choices"][row["label"]]), ("0", "1", "2")),  # type: ignore[index]
        "parts": (
            [row | {"choices": {"text": row["choices"], "label": ["A", "B", "C"]}} for row in own],
            raw.label_names,
        ),
    }
    for name, (changed, names) in others.items():
        other = tasks.load(choice_task(tmp_path / name, changed, changed[:5]))
        assert (other.sha256, other.label_names) == (raw.sha256, names), name
    for split, part in (("train", own), ("dev", own[:5])):
        with (tmp_path / f"{split}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["ctx", "ending0", "ending1", "ending2", "label"])
            table.writerows([[row["text"], *row["choices"], row["label"]] for row in part])  # type: ignore[misc]
    files = TaskFiles(train=str(tmp_path), validation=str(tmp_path))
    assert tasks.load(TaskSpec(name="swag", kind="choice", files=files)).sha256 == raw.sha256


def test_what_stands_before_each_choice_is_joined_and_copa_is_known(tmp_path: Path) -> None:
    swag = [{"sent1": "a b.", "sent2": "Then", "ending0": "c.", "ending1": "d.", "label": n} for n in (0, 1)]
    raw = tasks.load(choice_task(tmp_path / "swag", swag, swag))
    assert raw.train.choices == (("Then c.", "Then d."),) * 2
    copa = [
        {"premise": "It rained.", "question": question, "choice1": "x", "choice2": "y", "label": n, "idx": n}
        for n, question in enumerate(("cause", "effect"))
    ]
    raw = tasks.load(choice_task(tmp_path / "copa", copa, copa))
    assert raw.train.texts == ("It rained. because", "It rained. so")
    assert raw.train.choices == (("x", "y"),) * 2


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "a", "choices": ["x"], "label": 0}, "line 4: choices must be a list of 2 to 26 texts"),
        ({"text": "a", "choices": ["x", "y", "z"], "label": 0}, "line 4: 3 choices, and the first row has 2"),
        ({"text": "a", "choices": ["x", " "], "label": 0}, "line 4: no text in choices"),
        ({"text": "a", "choices": ["x", None], "label": 0}, "line 4: no text in choices"),
        ({"text": "a", "choices": ["x", "x"], "label": 0}, "line 4: two choices are the same"),
        ({"text": "a", "choices": ["x", "y"], "label": 2}, "line 4: the label '2' is no choice"),
        ({"text": "a", "choices": ["x", "y"], "label": -1}, "line 4: the label '-1' is no choice"),
        ({"text": "a", "choices": ["x", "y"], "label": "z"}, "line 4: the label 'z' is no choice"),
        ({"text": "a", "choices": ["x", "y"], "label": True}, "line 4: the label 'true' is no choice"),
        ({"text": "a", "choices": ["x", "y"]}, "line 4: no label in column label"),
        ({"text": " ", "choices": ["x", "y"], "label": 0}, "line 4: no text in column text"),
        ({"text": "a", "label": 0}, "line 4: choices must be a list"),
    ],
)
def test_rows_that_are_none_are_refused(tmp_path: Path, row: dict[str, object], message: str) -> None:
    with pytest.raises(HarnessError, match=message):
        tasks.load(task_of(tmp_path, [*GOOD, row]))


def test_splits_with_other_numbers_of_choices_and_two_readings_of_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"validation.jsonl, line 1: 2 choices, and .*train.jsonl has 3"):
        tasks.load(task_of(tmp_path, rows(4, 1)))
    only_1 = [{"text": "a", "choices": ["x", "y"], "label": 1}] * 2
    with pytest.raises(HarnessError, match="the labels can be read in two ways"):
        tasks.load(choice_task(tmp_path / "places", only_1, only_1))
    numbers = [{"text": "a", "choices": ["1", "0"], "label": label} for label in (0, 1)]
    with pytest.raises(HarnessError, match="the labels can be read in two ways"):
        tasks.load(choice_task(tmp_path / "numbers", numbers, numbers))
    with pytest.raises(HarnessError, match="no column of choices"):
        tasks.load(task_of(tmp_path, [{"text": "a", "label": 0, "ending0": "x"}]))
    with pytest.raises(HarnessError, match=r"no column end1 for task\.choices"):
        tasks.load(task_of(tmp_path, GOOD, choices=("end1", "end2")))


def test_a_text_loses_its_end_and_a_choice_nothing(tmp_path: Path, bert: ModelSpec) -> None:
    tokenizer = pretrained.tokenizer(bert)
    own = [{"text": "a b c d e f", "choices": ["red", "blue g h"], "label": n} for n in (0, 1)]
    raw = tasks.load(choice_task(tmp_path / "long", own, own))
    ids, _ = choices.encode_rows(raw.train, tokenizer, 9)
    decoded = [tokenizer.decode(row) for row in ids[:2]]
    assert decoded == ["[CLS] a b c d e [SEP] red [SEP]", "[CLS] a b c [SEP] blue g h [SEP]"]
    with pytest.raises(HarnessError, match=r"line 1: a choice has 3 tokens, and max_length 6 leaves 2.*\n?.*to 7"):
        choices.encode_rows(raw.train, tokenizer, 6)
    with pytest.raises(HarnessError, match="a choice has 1 token, and max_length 4 leaves 0 for it"):
        choices.encode_rows(dataclasses.replace(raw.train, choices=(("red", "h"),) * 2), tokenizer, 4)
    assert choices.encode_rows(raw.train, tokenizer, 7)[0][1][1] == tokenizer("a")["input_ids"][1]


def test_the_embedded_conclusions_have_one_that_follows() -> None:
    raw = tasks.load(TaskSpec(name="embedded", kind="choice"))
    seen: dict[str, set[str]] = {}
    for split, part in (("train", raw.train), ("validation", raw.validation)):
        assert part.choices is not None
        seen[split] = {f"{text}|{choice}" for text, own in zip(part.texts, part.choices, strict=True) for choice in own}
        for text, own, label in list(zip(part.texts, part.choices, part.labels.tolist(), strict=True))[:200]:
            follows = [entails(Sentence.parse(text), Sentence.parse(choice)) for choice in own]
            assert follows == [place == label for place in range(4)]
    assert not seen["train"] & seen["validation"]
    assert np.bincount(raw.train.labels).min() > 220


def test_data_are_described(tmp_path: Path, bert: ModelSpec) -> None:
    own = [*rows(12, 1), *rows(2, 1)]
    task = choice_task(tmp_path / "mine", own, rows(5, 2))
    described = summary.describe(task, pretrained.tokenizer(bert), 8)
    assert (described.kind, described.classes, described.train.repeats) == ("choice", 3, 2)
    assert described.train.labels is not None
    assert sum(described.train.labels.values()) == 14
    lengths = [
        max(len(pretrained.tokenizer(bert)(str(row["text"]), choice)["input_ids"]) for choice in row["choices"])  # type: ignore[attr-defined]
        for row in own
    ]
    assert described.train.tokens is not None
    assert described.train.tokens.longest == max(lengths)
    assert described.train.cut == sum(length > 8 for length in lengths)


def test_one_column_of_a_choice_each_says_to_name_them_all(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,ending0,ending1,label\na,b,c,0\n")
    with pytest.raises(HarnessError, match=r"or name a column for each choice: task\.choices=\[ending0, …\]"):
        choice_files.examples(tmp_path / "a.csv", TaskSpec(name="own", kind="choice", choices="ending0"))
