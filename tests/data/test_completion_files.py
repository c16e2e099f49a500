"""Prompts and answers from files to token ids."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from language_models import completion_task, rows, write_decoder, write_rows
from made_files import spec

from harness.common.errors import HarnessError
from harness.config.recipe import TaskSpec
from harness.data import tasks
from harness.data.completions import Encoded, encode, shortened
from harness.data.tokenization import tokenise
from harness.models import pretrained

PROMPT, ANSWER = "a b good ", "a red"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> object:
    return pretrained.tokenizer(write_decoder(tmp_path_factory.mktemp("gpt2"), "gpt2"))


def chat(prompt: str, answer: str) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]}


def one(tmp_path: Path, row: object, **fields: object) -> TaskSpec:
    return completion_task(tmp_path / "one", [row], [row], **fields)


def test_each_form_gives_its_prompt_and_answer(tmp_path: Path) -> None:
    """Of three forms and of columns with other names; a conversation may stand in prompt and completion too."""
    user, assistant = chat(PROMPT, ANSWER)["messages"]  # type: ignore[misc]
    messages = json.dumps([{"role": "user", "content": PROMPT}])
    for number, (row, fields, expected) in enumerate((
        ({"prompt": PROMPT, "completion": ANSWER}, {}, (PROMPT, ANSWER, False)),
        ({"question": PROMPT, "answer": ANSWER}, {"text": "question", "label": "answer"}, (PROMPT, ANSWER, False)),
        ({"text": "a b red"}, {}, ("", "a b red", False)),
        (chat(PROMPT, ANSWER), {}, (messages, ANSWER, True)),
        ({"prompt": [user], "completion": [assistant]}, {}, (messages, ANSWER, True)),
    )):  # fmt: skip
        raw = tasks.load(one(tmp_path / str(number), row, **fields))
        assert (raw.train.texts[0], raw.train.pairs[0], raw.train.chat) == expected  # type: ignore[index]
        assert (raw.metric, raw.kind, raw.train.numbers) == ("loss", "completion", [1])


def test_a_hash_is_of_prompts_answers_and_choices(tmp_path: Path) -> None:
    row = {"prompt": PROMPT, "completion": "red", "choices": ["red", "blue"]}
    variants = [row, row | {"completion": "blue"}, row | {"choices": ["blue", "red"]}, row | {"prompt": "a good "}]
    hashes = [
        tasks.load(one(tmp_path / str(number), variant, metric="accuracy")).sha256
        for number, variant in enumerate(variants)
    ]
    assert len(set(hashes)) == 4


@pytest.mark.parametrize(
    ("row", "fields", "problem"),
    [
        ({"prompt": PROMPT}, {}, r"line 1: no key completion \(got prompt\).*Name other keys with task.text"),
        ({"question": PROMPT, "answer": "red"}, {}, r"line 1: no key prompt \(got question, answer\)"),
        ({"prompt": PROMPT, "completion": None}, {}, "line 1: no text in completion"),
        ({"prompt": PROMPT, "completion": 3}, {}, r"line 1: completion must be a text \(got 3\)"),
        ({"prompt": "a \ud800", "completion": "red"}, {}, "line 1: prompt has a NUL or half a surrogate pair"),
        ({"prompt": PROMPT, "completion": " "}, {}, "line 1: no text in completion"),
        ([1], {}, r"line 1: not an object: \[1\]"),
        (chat(PROMPT, ""), {}, "line 1: an empty answer"),
        ({"messages": [{"role": "user", "content": "a"}]}, {}, "messages do not end with the assistant's answer"),
        ({"messages": ["a"]}, {}, "line 1: not a message"),
        ({"prompt": PROMPT, "completion": "red", "choices": ["red"]}, {}, "choices must be a list of two texts"),
        ({"prompt": PROMPT, "completion": "red", "choices": ["red", "red"]}, {}, "two choices are the same"),
        ({"prompt": PROMPT, "completion": "old", "choices": ["red", "blue"]}, {}, "'old' is none of the choices"),
        ({"prompt": PROMPT, "completion": "red"}, {"metric": "accuracy"}, "no choices, which metric accuracy compares"),
    ],
)
def test_a_wrong_row_is_refused_by_its_line(tmp_path: Path, row: object, fields: dict, problem: str) -> None:
    with pytest.raises(HarnessError, match=problem):
        tasks.load(one(tmp_path, row, **fields))


def test_files_are_needed_and_rows_keep_one_form(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"task\.kind: completion requires task\.files"):
        tasks.load(spec("rte", kind="completion"))
    with pytest.raises(HarnessError, match="line 2: a conversation among rows without one"):
        tasks.load(completion_task(tmp_path / "mixed", [rows(1, 1)[0], chat("a", "b")], rows(2, 1)))
    table = tmp_path / "a.tsv"
    table.write_text("prompt\tcompletion\n")
    with pytest.raises(HarnessError, match=r"unknown file type '.tsv' for prompts and completions"):
        tasks.load(
            spec(
                "own",
                files={"train": str(table), "validation": str(write_rows(tmp_path / "b.jsonl", [1]))},
                kind="completion",
            )
        )


def test_a_share_of_the_training_file_becomes_the_dev_split(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "train.jsonl", rows(20, 3))
    raw = tasks.load(spec("own", files={"train": str(path)}, kind="completion", validation=0.25))
    assert (len(raw.train.texts), len(raw.validation.texts)) == (15, 5)
    assert not set(zip(raw.train.texts, raw.train.pairs or (), strict=True)) & set(
        zip(raw.validation.texts, raw.validation.pairs or (), strict=True)
    )


def test_labels_are_the_next_tokens_of_the_answer_and_its_end(tmp_path: Path, tokenizer: object) -> None:
    task = tokenise(tasks.load(one(tmp_path, {"prompt": PROMPT, "completion": ANSWER})), tokenizer, 32)  # type: ignore[arg-type]
    a, b, good, red, end = (tokenizer.convert_tokens_to_ids(word) for word in ("a", "b", "good", "red", "[SEP]"))  # type: ignore[attr-defined]
    assert task.train.input_ids.tolist() == [[a, b, good, a, red, end]]
    assert task.train.labels.tolist() == [[-100, -100, a, red, end, -100]]
    assert task.train.targets.tolist() == [3]
    whole = tokenise(
        tasks.load(one(tmp_path / "all", {"prompt": PROMPT, "completion": ANSWER}, loss_on="all")), tokenizer, 32
    )  # type: ignore[arg-type]
    assert whole.train.labels.tolist() == [[b, good, a, red, end, -100]]
    assert whole.validation.labels.tolist() == task.validation.labels.tolist()  # scores are of answers alone
    text = tokenise(tasks.load(one(tmp_path / "text", {"text": "a b red"})), tokenizer, 32)  # type: ignore[arg-type]
    assert text.train.labels.tolist() == [[b, red, end, -100]]  # nothing stands before the first token


def test_a_conversation_is_spelt_by_the_chat_template(tmp_path: Path, tokenizer: object) -> None:
    task = tokenise(tasks.load(one(tmp_path, chat("a b", "red"))), tokenizer, 32)  # type: ignore[arg-type]
    spelt = tokenizer.decode(task.train.input_ids[0])  # type: ignore[attr-defined]
    assert spelt == "[CLS] a b [SEP] [CLS] red [SEP]"
    assert tokenizer.decode([label for label in task.train.labels[0] if label >= 0]) == "red [SEP]"  # type: ignore[attr-defined]
    bare = type("Bare", (), {"chat_template": None, "pad_token_id": 0})()
    with pytest.raises(HarnessError, match="messages require a tokenizer with a chat template"):
        encode(['[{"role": "user", "content": "a"}]'], ["b"], True, bare)


def test_a_long_prompt_loses_its_beginning_and_an_answer_nothing(tmp_path: Path, tokenizer: object) -> None:
    long = {"prompt": "a b c d e f g h good ", "completion": ANSWER}
    task = tokenise(tasks.load(one(tmp_path, long)), tokenizer, 6)  # type: ignore[arg-type]
    assert tokenizer.decode(task.train.input_ids[0]) == "g h good a red [SEP]"  # type: ignore[attr-defined]
    assert (task.train.cut_prompts, task.validation.cut_prompts) == (1, 1)
    with pytest.raises(
        HarnessError, match=r"line 1: the answer alone is longer than max_length 3 .*Raise max_length to 4"
    ):
        tokenise(tasks.load(one(tmp_path / "two", long)), tokenizer, 3)  # type: ignore[arg-type]


def test_what_stands_before_a_text_is_never_cut() -> None:
    example = Encoded((9, 1, 2, 3, 4, 5, 6), begin=5)
    assert shortened(example, 7, 1) is example
    assert shortened(example, 5, 1) == Encoded((9, 3, 4, 5, 6), begin=3, cut=2)
    assert shortened(example, 4, 1) == Encoded((9, 4, 5, 6), begin=2, cut=3)
    assert shortened(example, 3, 1) is None


def test_with_choices_an_example_is_a_row_for_each(tmp_path: Path, tokenizer: object) -> None:
    content = [
        {"prompt": "a ", "completion": "blue", "choices": ["red", "blue"]},
        {"prompt": "b ", "completion": "red", "choices": ["blue", "red"]},
    ]
    raw = tasks.load(completion_task(tmp_path / "choices", content, content, metric="accuracy"))
    task = tokenise(raw, tokenizer, 32)  # type: ignore[arg-type]
    assert raw.label_names == ("red", "blue")  # all rows have the same, in the order of the first
    assert (len(task.train.labels), len(task.validation.labels), task.validation.examples) == (2, 4, 2)
    assert [tokenizer.decode(ids[1:2]) for ids in task.validation.input_ids] == ["red", "blue", "red", "blue"]  # type: ignore[attr-defined]
    np.testing.assert_array_equal(task.validation.targets, [1, 0])
    content[1]["choices"] = ["old", "red"]
    assert tasks.load(completion_task(tmp_path / "own", content, content, metric="accuracy")).label_names == ()
    content[1]["choices"] = ["old", "red", "new"]
    with pytest.raises(HarnessError, match="line 2: 3 choices, and the first row has 2"):
        tasks.load(completion_task(tmp_path / "uneven", content, content, metric="accuracy"))
