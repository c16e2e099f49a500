"""Files of questions: SQuAD's JSON, rows, and what is refused in a line; windows of long contexts."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.common.errors import HarnessError
from harness.config.recipe import ModelSpec, TaskFiles, TaskSpec
from harness.config.recipe_rules import build_recipe
from harness.data import span_files, spans, tasks
from harness.data.embedded import questions
from harness.data.embedded.language import ADJECTIVES, NOUNS
from harness.data.examples import Raw, Span
from harness.data.span_files import Question
from harness.models import pretrained

CONTEXT = "a b good c d bad e f red g h"
ROWS: list[dict[str, Any]] = [
    {"id": "q1", "question": "a", "context": CONTEXT, "answers": {"text": ["good c"], "answer_start": [4]}},
    {"id": "q2", "question": "b", "context": CONTEXT, "answers": {"text": [], "answer_start": []}},
    {
        "id": "q3",
        "question": "c d",
        "context": "é 𝒜 good",
        "answers": {"text": ["good", "𝒜 good"], "answer_start": [4, 2]},
    },
]


def task_of(folder: Path, content: str, name: str = "train.jsonl", **fields: Any) -> TaskSpec:
    folder.mkdir(exist_ok=True, parents=True)
    (folder / name).write_text(content)
    (folder / "dev.jsonl").write_text(lines(ROWS))
    files = TaskFiles(train=str(folder / name), validation=str(folder / "dev.jsonl"))
    return TaskSpec(name="asked", kind="span", files=files, allow_unknown=True, **fields)


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def squad(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows as SQuAD 2 spells them."""
    paragraphs = []
    for row in rows:
        told = zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True)
        answers = [{"text": text, "answer_start": start} for text, start in told]
        asked = {"question": row["question"], "id": row["id"], "answers": answers, "is_impossible": not answers}
        paragraphs.append({"context": row["context"], "qas": [asked]})
    return {"version": "v2.0", "data": [{"title": "x", "paragraphs": paragraphs}]}


def test_every_form_gives_the_same_task(tmp_path: Path) -> None:
    raw = tasks.load(task_of(tmp_path, lines(ROWS)))
    assert raw.train.spans == ((Span("good c", 4),), (), (Span("good", 4), Span("𝒜 good", 2)))
    assert raw.train.labels.tolist() == [1, 0, 1]
    assert (raw.metric, raw.kind) == ("squad_f1", "span")
    listed = [
        row | {"answers": [dict(zip(("text", "answer_start"), pair, strict=True)) for pair in
                           zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True)]}
        for row in ROWS
    ]  # fmt: skip
    forms = {
        "train.json": json.dumps(squad(ROWS)), "rows.json": json.dumps(ROWS), "data.json": json.dumps({"data": ROWS}),
        "lines.json": lines(ROWS), "list.jsonl": lines(listed),
    }  # fmt: skip
    for name, content in forms.items():
        assert tasks.load(task_of(tmp_path, content, name)).sha256 == raw.sha256, name
    other = json.dumps(ROWS).replace("[4, 2]", "[4, 2]").replace('"q1"', '"q9"')
    assert tasks.load(task_of(tmp_path, other, "ids.json")).sha256 == raw.sha256
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / "train.parquet")
    spec = task_of(tmp_path, lines(ROWS))
    files = TaskFiles(train=str(tmp_path / "train.parquet"), validation=str(tmp_path / "dev.jsonl"))
    assert tasks.load(spec.model_copy(update={"files": files})).sha256 == raw.sha256
    renamed = [{"q": row["question"], "text": row["context"], "spans": row["answers"]} for row in ROWS]
    files = TaskFiles(train=str(tmp_path / "renamed.jsonl"), validation=str(tmp_path / "renamed2.jsonl"))
    for name in ("renamed.jsonl", "renamed2.jsonl"):
        (tmp_path / name).write_text(lines(renamed))
    columns = {"text": "q", "text_pair": "text", "label": "spans", "files": files}
    assert tasks.load(spec.model_copy(update=columns)).sha256 == raw.sha256


def test_other_answers_are_other_data(tmp_path: Path) -> None:
    first = tasks.load(task_of(tmp_path, lines(ROWS)))
    moved = [ROWS[0] | {"answers": {"text": ["good"], "answer_start": [4]}}, *ROWS[1:]]
    assert tasks.load(task_of(tmp_path, lines(moved))).sha256 != first.sha256


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"answers": {"text": ["good"], "answer_start": [5]}},
            r"line 2: the answer 'good' does not stand at .* 5 .*at 4; c",
        ),
        ({"answers": {"text": ["Good"], "answer_start": [4]}}, r"does not stand at answer_start 4 .*got 'good'"),
        ({"answers": {"text": ["a"], "answer_start": [-1]}}, "does not stand at answer_start -1"),
        ({"answers": {"text": ["a"], "answer_start": [400]}}, "does not stand at answer_start 400"),
        ({"answers": {"text": [" "], "answer_start": [1]}}, "an answer without a text"),
        ({"answers": {"text": ["good"], "answer_start": ["4"]}}, "answer_start must be a number of characters"),
        ({"answers": {"text": ["good"], "answer_start": []}}, "answers without their places in the context"),
        ({"answers": ["good"]}, "answers without their places in the context"),
        ({"context": " "}, "no text in context"),
        ({"question": ""}, "no text in question"),
        ({"context": None}, "no text in context"),
        ({"is_impossible": True}, "is_impossible is true, and there are answers"),
    ],
)
def test_what_is_no_question_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(HarnessError, match=message):
        tasks.load(task_of(tmp_path, lines([ROWS[1], ROWS[0] | change])))


def test_what_is_no_file_of_questions_is_refused(tmp_path: Path) -> None:
    without = {key: value for key, value in ROWS[0].items() if key != "answers"}
    for content, name, message in (
        (lines([without]), "a.jsonl", 'no key answers.*"answers": \\[\\]'),
        ("[1, 2]", "b.json", "question 1: not an object: 1"),
        ("{", "c.json", "not JSON"),
        ('{"data": 3}', "d.json", "no list of articles or questions"),
        ("[]", "e.json", "has no rows"),
        (lines([ROWS[1]]), "f.jsonl", "no question of the training data has an answer"),
        ("x", "g.csv", "unknown file type '.csv' for questions"),
        (json.dumps(squad(ROWS)).replace('"good c"', '"good d"'), "h.json", "question 1: the answer 'good d' does"),
    ):  # fmt: skip
        with pytest.raises(HarnessError, match=message):
            tasks.load(task_of(tmp_path, content, name))
    with pytest.raises(HarnessError, match=r"requires task\.files with questions, contexts and answers"):
        tasks.load(TaskSpec(name="rte", kind="span"))


def test_a_share_of_the_training_file_keeps_contexts_together(tmp_path: Path) -> None:
    rows = [ROWS[0] | {"question": word, "context": f"{CONTEXT} {n % 5}"} for n, word in enumerate("abcdefghij")]
    spec = task_of(tmp_path, lines(rows), validation=0.4)
    assert spec.files is not None
    raw = tasks.load(spec.model_copy(update={"files": TaskFiles(train=spec.files.train)}))
    assert len(raw.train.texts) + len(raw.validation.texts) == 10
    assert not set(raw.train.pairs or ()) & set(raw.validation.pairs or ())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task": {"name": "t", "kind": "span", "metric": "accuracy"}}, "accuracy cannot be used with task.kind: span"),
        ({"task": {"name": "t", "metric": "squad_f1"}}, "metric squad_f1 requires task.kind: span"),
        ({"task": {"name": "t", "stride": 3}}, "task.stride requires task.kind: span"),
        ({"task": {"name": "t", "kind": "span", "stride": 20}}, "task.stride must be below max_length 20"),
        ({"task": {"name": "t", "kind": "span", "header": True}}, "task.header cannot be used with task.kind: span"),
        ({"mixup": 0.4}, "mixup cannot be used with task.kind: span: it requires classes"),
        ({"r_drop": 1.0}, "r_drop cannot be used with task.kind: span"),
        ({"label_smoothing": 0.1}, "label_smoothing cannot be used"),
        ({"augment": "swap"}, "augment cannot be used with task.kind: span: it changes texts"),
        ({"padding_side": "left"}, "padding_side: left requires task.kind: completion"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    given = {"task": {"name": "t", "kind": "span"}, "model": "m", "lr": 1e-3, "epochs": 1, "max_length": 20}
    with pytest.raises(HarnessError, match=message):
        build_recipe(given | fields, "the sweep")


# -------------------------------------------------------------------------------------------------------------- windows


@pytest.fixture(scope="module")
def tokenizer(bert: ModelSpec) -> Any:
    return pretrained.tokenizer(bert)


def _raw(tmp_path: Path, rows: list[dict[str, Any]], **fields: Any) -> Raw:
    return tasks.load(task_of(tmp_path, lines(rows), **fields))


@pytest.mark.parametrize(("max_length", "stride"), [(10, 3), (9, 0), (14, 1), (32, None)])
def test_windows_are_those_of_transformers(tmp_path: Path, tokenizer: Any, max_length: int, stride: int | None) -> None:
    """And the labels those of its example of question answering."""
    raw = _raw(tmp_path, ROWS, stride=stride)
    made = spans.windows(raw.train, tokenizer, max_length, stride)
    theirs = tokenizer(
        list(raw.train.texts), list(raw.train.pairs or ()), truncation="only_second", max_length=max_length,
        stride=max_length // 3 if stride is None else stride, return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )  # fmt: skip
    assert [list(window.ids) for window in made] == theirs["input_ids"]
    assert [list(window.types) for window in made] == theirs.get("token_type_ids", [[]] * len(made))
    assert [window.question for window in made] == theirs["overflow_to_sample_mapping"]
    for number, window in enumerate(made):
        of = theirs.sequence_ids(number)
        assert window.offsets[window.first : window.behind].tolist() == [
            list(pair) for pair, sequence in zip(theirs["offset_mapping"][number], of, strict=True) if sequence == 1
        ]
        assert (window.none, of[window.first - 1 : window.first + 1]) == (0, [None, 1])


def test_labels_say_where_the_answer_stands(tmp_path: Path, tokenizer: Any) -> None:
    raw = _raw(tmp_path, ROWS, stride=3)
    task = spans.tokenise(raw, tokenizer, 10)
    read = dict(zip(spans.LABELS, task.train.labels.T, strict=True))
    for number, (start, end) in enumerate(zip(read["start"], read["end"], strict=True)):
        words = tokenizer.convert_ids_to_tokens(task.train.input_ids[number, start : end + 1])
        assert words in (["good", "c"], ["good"], ["[CLS]"])
    assert read["start"][0] > 0  # the first window has it, the last has not
    assert task.abstains
    assert task.train.windows is None
    assert task.validation.windows is not None
    assert task.validation.examples == 3
    assert task.validation.windows.expected == (("good c",), (), ("good", "𝒜 good"))
    assert len(task.validation.labels) == len(task.validation.windows.question) > 3


def test_an_answer_within_a_token_is_that_token(tokenizer: Any, tmp_path: Path) -> None:
    row = ROWS[0] | {"answers": {"text": ["oo"], "answer_start": [5]}}
    task = spans.tokenise(_raw(tmp_path, [row], stride=3), tokenizer, 32)
    start, end = task.train.labels[0, :2]
    assert tokenizer.convert_ids_to_tokens(task.train.input_ids[0, start : end + 1]) == ["good"]


def test_tokens_of_one_character_belong_to_an_answer_together() -> None:
    """As those of a character that a byte-level tokenizer spells by several."""
    offsets = np.array([[0, 0], [0, 1], [1, 2], [1, 2], [1, 2], [2, 3]], dtype=np.int32)
    window = spans.Window(0, (9,) * 6, (), offsets, 0, 1, 6)
    assert window.places(Span("猫", 1)) == (2, 4)
    assert window.places(Span("a猫b", 0)) == (1, 5)


def test_answers_are_where_bytes_and_lower_case_are_tokens() -> None:
    """Of a byte-level tokenizer, and of one that normalises: the tokens of any part of a context hold that part."""
    import tokenizers
    from tokenizers import models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    contexts = ["the café 猫が好き is naïve", "日本語 と English 🐕 mixed", "Zoë's résumé, 50% off!"]
    special, draw = ["<pad>", "<s>", "</s>", "<unk>"], random.Random(3)
    for kind in ("bytes", "lower"):
        inner = tokenizers.Tokenizer(models.BPE() if kind == "bytes" else models.WordPiece(unk_token="<unk>"))
        if kind == "bytes":
            inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            alphabet = pre_tokenizers.ByteLevel.alphabet()
            trainer: Any = trainers.BpeTrainer(vocab_size=280, special_tokens=special, initial_alphabet=alphabet)
        else:
            inner.normalizer, inner.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
            trainer = trainers.WordPieceTrainer(vocab_size=90, special_tokens=special)
        inner.train_from_iterator(contexts, trainer)
        inner.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 1), trim_offsets=True)
        names = dict(zip(("pad_token", "cls_token", "sep_token", "unk_token"), special, strict=True))
        made = PreTrainedTokenizerFast(tokenizer_object=inner, **names)
        for _ in range(60):
            context = " ".join(draw.choices(contexts, k=draw.randint(1, 4)))
            start = draw.randrange(len(context) - 1)
            answer = Span(context[start : start + draw.randint(1, 8)], start)
            if not answer.text.strip():
                continue
            rows = span_files.rows_of("s", "row", [Question(1, "é", context, (answer,))])
            for length, stride in ((512, 10), (40, 20)):
                holding = 0
                for window in spans.windows(rows, made, length, stride):
                    if (places := window.places(answer)) is not None:
                        first, last = places
                        assert answer.text.strip() in context[window.offsets[first, 0] : window.offsets[last, 1]]
                        holding += 1
                assert holding > 0


def test_blanks_around_an_answer_are_no_part_of_it() -> None:
    offsets = np.array([[0, 0], [0, 1], [2, 5], [6, 7], [0, 0]], dtype=np.int32)  # "a cat b"
    window = spans.Window(0, (9,) * 5, (), offsets, 0, 1, 4)
    for span in (Span("cat", 2), Span(" cat", 1), Span("cat ", 2), Span(" cat ", 1), Span("at", 3)):
        assert window.places(span) == (2, 2)
    assert window.places(Span("t b", 4)) == (2, 3)
    assert window.places(Span("a", 0)) == (1, 1)


def test_what_fits_in_no_window_is_refused(tmp_path: Path, tokenizer: Any) -> None:
    whole = ROWS[0] | {"answers": {"text": [CONTEXT[4:20]], "answer_start": [4]}}
    with pytest.raises(HarnessError, match=r"line 1 and 1 other: the answer stands whole in no window of max_length 9"):
        spans.tokenise(_raw(tmp_path, [whole, whole, ROWS[0]], stride=3), tokenizer, 9)
    with pytest.raises(HarnessError, match="the answer stands whole in no window"):
        spans.check(_raw(tmp_path, [whole], stride=3), tokenizer, 9)
    long = ROWS[0] | {"question": "a b c d e"}
    with pytest.raises(HarnessError, match=r"line 2: the question takes 8 of max_length 10 tokens; .* 3\..*12 or"):
        spans.tokenise(_raw(tmp_path, [ROWS[2], long], stride=3), tokenizer, 10)
    short = long | {"context": "good", "answers": {"text": ["good"], "answer_start": [0]}}
    assert spans.tokenise(_raw(tmp_path, [short], stride=3), tokenizer, 10).train.lengths.tolist() == [9]  # it fits


def test_a_slow_tokenizer_is_refused(tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(tokenizer), "is_fast", False)
    with pytest.raises(HarnessError, match=r"it is a slow one.*fast tokenizer"):
        spans.tokenise(_raw(tmp_path, ROWS), tokenizer, 20)


# --------------------------------------------------------------------------------------------------- the embedded set


def test_the_embedded_questions_are_what_they_say() -> None:
    contexts: dict[str, set[str]] = {}
    for split, count in (("train", 800), ("validation", 300)):
        made: list[dict[str, Any]] = list(questions.examples(split))  # type: ignore[arg-type]
        assert len(made) == count
        for row in made:
            question, context, answers = row["question"], row["context"], row["answers"]
            contexts.setdefault(split, set()).add(context)
            nouns = [word for word in context.split() if word in NOUNS]
            right = [noun for noun in nouns if questions.kind_of(noun) == question]
            assert len(right) == len(answers["text"]) <= 1
            if right:
                (text,), (start,) = answers["text"], answers["answer_start"]
                assert context[start:].startswith(text)
                assert text.split()[-1] == right[0]
                adjective = context[:start].split()[-1]
                assert adjective not in ADJECTIVES  # it is in the answer where there is one
            assert len(context.split()) + 1 + 3 <= questions.LONGEST
        assert sum(not row["answers"]["text"] for row in made) == -(-count // 6)
    assert not contexts["train"] & contexts["validation"]
    raw, shipped = tasks.load(TaskSpec(name="embedded", kind="span")), pretrained.tokenizer(ModelSpec(name="embedded"))
    made = spans.windows(raw.train, shipped, 16, 5)
    assert list(dict.fromkeys(window.question for window in made)) == list(range(800))
    assert len(made) > 900
