"""What data are like: figures against hand counts, the screen that is printed, and what real data are known for."""

import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from harness.cli.app import app
from harness.config.recipe import TaskFiles, TaskSpec
from harness.data import summary, tasks
from harness.data.summary import Bin, DatasetExample, Leaks, Repeated

GOLDEN = Path(__file__).parents[1] / "golden"
SHARED = Path(__file__).parents[3] / "shared" / "data"
TRAIN = (
    "text\tlabel\nA [bold] x\t0\n \t1\nsame\t0\nsame\t1\nagain  here\t1\nagain  here\t1\none two three four five\t0\n"
)
DEV = "text\tlabel\nsame\t0\n A [bold] x\t0\nA [bold] x\t1\nagain  here\t1\nnew\t1\n"


@pytest.fixture
def odd(tmp_path) -> TaskSpec:
    """Seven and five texts with duplicates, leaks, an empty one, and labels that disagree."""
    for name, text in (("train", TRAIN), ("dev", DEV)):
        (tmp_path / f"{name}.tsv").write_text(text)
    return TaskSpec(name="odd", files=TaskFiles(train=str(tmp_path), validation=str(tmp_path)))


class Letters:
    """A tokeniser that makes a token of each letter that is no blank, and two special ones."""

    pad_token_id = 0

    def __call__(self, text, text_pair=None, **options):
        assert options["truncation"] is False
        return {"input_ids": [[1, *(ord(letter) for letter in one if letter != " "), 2] for one in text]}

    def num_special_tokens_to_add(self, pair=False):
        return 2


def test_by_hand(odd):
    found = summary.describe(odd, None, 8)
    train, dev = found.train, found.dev
    assert (found.name, found.metric, found.pairs, found.classes, found.majority) == ("odd", "accuracy", False, 2, 0.6)
    assert (train.examples, train.labels, dev.examples, dev.labels) == (7, {"0": 3, "1": 4}, 5, {"0": 2, "1": 3})
    assert (train.words.median, train.words.longest, dev.words.longest) == (2, 5, 3)
    assert (train.characters.median, train.characters.longest) == (10, 23)
    assert (train.tokens, train.cut) == (None, None)
    assert (train.repeats, train.disagreeing, train.empty) == (2, 1, (3,))
    assert train.repeated == (
        Repeated((4, 5), (), ("0", "1"), "same"),  # what disagrees stands first
        Repeated((6, 7), (), ("1",), "again here"),
    )
    assert (dev.repeats, dev.repeated, dev.empty) == (0, (), ())
    # Exact: a text with a blank before it is another one. Of two equal training texts one with the label is enough.
    assert (found.leaks, found.leaks_disagreeing) == (3, 1)
    assert found.leaked == (
        Repeated((2,), (4,), ("0", "1"), "A [bold] x"),
        Repeated((4, 5), (2,), ("0", "1"), "same"),
        Repeated((6, 7), (5,), ("1",), "again here"),
    )
    assert train.longest[0] == DatasetExample(8, "0", 5, "one two three four five")
    assert [one.number for one in dev.longest] == [3, 4, 5, 2, 6]
    assert found.unit == "words"
    assert found.histogram == (Bin(0, 0, 1, 0), Bin(1, 1, 2, 2), Bin(2, 2, 2, 1), Bin(3, 3, 1, 2), Bin(4, None, 1, 0))


def test_in_tokens(odd):
    found = summary.describe(odd, Letters(), 8)
    assert (found.unit, found.max_length) == ("tokens", 8)
    assert (found.train.tokens.median, found.train.tokens.longest) == (10, 21)
    assert (found.train.cut, found.dev.cut) == (4, 3)  # A[bold]x, again here, five words: 8, 9 and 19 letters
    assert sum(one.train for one in found.histogram) == 7
    assert sum(one.dev for one in found.histogram) == 5
    assert found.train.longest[0].length == 21


def test_pairs_and_regressions(tmp_path):
    for name, rows in (("train", "a\tb c\t0.5\na b\tc\t2\n"), ("dev", "a b\tc\t1\n")):
        (tmp_path / f"{name}.tsv").write_text("text\ttext_pair\tlabel\n" + rows)
    spec = TaskSpec(name="x", metric="pearson", files=TaskFiles(train=str(tmp_path), validation=str(tmp_path)))
    found = summary.describe(spec, None, 128)
    assert (found.pairs, found.classes, found.majority) == (True, None, 0)
    assert (found.train.repeats, found.leaks, found.leaks_disagreeing) == (0, 1, 1)  # where the pair is cut matters
    assert (found.train.labels, found.train.label_range) == (None, (0.5, 1.25, 2.0))
    assert found.leaked[0].labels == ("2", "1")


def test_a_test_split(odd, tmp_path):
    """Two of its four texts are trained on, one of them with a label that it has nowhere there, and one is in dev."""
    (tmp_path / "test.tsv").write_text("text\tlabel\none two three four five\t1\nnew\t1\nsame\t1\nold\t0\n")
    before = summary.describe(odd, None, 8)
    files = odd.files.model_copy(update={"test": str(tmp_path)})
    found = summary.describe(odd.model_copy(update={"files": files}), None, 8)
    assert (before.test, before.test_leaks_of_train, before.test_leaks_of_dev) == (None, None, None)
    assert (found.train, found.dev, found.leaked) == (before.train, before.dev, before.leaked)
    assert (found.test.examples, found.test.labels, found.test.repeats) == (4, {"0": 1, "1": 3}, 0)
    assert found.test_leaks_of_train == Leaks(
        2,
        1,
        (
            Repeated((8,), (), ("0", "1"), "one two three four five", (2,)),
            Repeated((4, 5), (), ("0", "1"), "same", (4,)),
        ),
    )
    assert found.test_leaks_of_dev == Leaks(
        2, 1, (Repeated((), (2,), ("0", "1"), "same", (4,)), Repeated((), (6,), ("1",), "new", (3,)))
    )
    assert [(one.train, one.dev, one.test) for one in found.histogram] == [
        (1, 0, 0), (2, 2, 3), (2, 1, 0), (1, 2, 0), (0, 0, 0), (1, 0, 1)
    ]  # fmt: skip


def test_words_and_tags(tmp_path):
    (tmp_path / "train.conll").write_text("a\tB-X\nb\tI-X\nc\tO\n\na\tO\n\na\tB-X\n")
    (tmp_path / "dev.conll").write_text("a\tO\nb\tO\nc\tO\n\nd\tO\nd\tB-X\n")
    spec = TaskSpec(name="x", kind="tokens", files=TaskFiles(train=str(tmp_path), validation=str(tmp_path)))
    found = summary.describe(spec, None, 128)
    assert (found.kind, found.metric, found.classes, found.majority) == ("tokens", "f1_entity", 3, 0)
    assert found.train.labels == {"O": 2, "B-X": 2, "I-X": 1}  # of words
    assert (found.train.examples, found.train.repeats, found.train.disagreeing) == (3, 1, 1)
    assert found.train.repeated[0].labels == ("O", "B-X")
    assert (found.leaks, found.leaks_disagreeing) == (1, 1)
    assert found.leaked[0].labels == ("B-X I-X O", "O O O")
    longest = found.train.longest[0]
    assert (longest.number, longest.label, longest.length) == (1, "entities: 1", 3)


@pytest.mark.parametrize("longest", [1, 3, 12, 13, 99, 100, 101, 999, 1000, 54321])
def test_the_bars_are_few_and_hold_all(longest):
    lengths = np.arange(longest + 1)
    bars = summary._histogram(lengths, lengths[-1:])
    assert len(bars) <= 14
    assert sum(one.train for one in bars) == longest + 1
    assert sum(one.dev for one in bars) == 1
    assert all(before.high + 1 == after.low for before, after in itertools.pairwise(bars))


def test_blank_texts_are_still_refused_by_training(odd):
    with pytest.raises(ValueError, match=r"train.tsv, line 3: no text"):
        tasks.load(odd)


# ------------------------------------------------------------------------------------------------------ the command


def shown(*words: object, code: int = 0):
    result = CliRunner().invoke(app, ["data", *map(str, words)])
    assert result.exit_code == code, result.output
    return result


def test_the_screen(odd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "".join(
        f"{line.rstrip()}\n" for line in shown("train.tsv", "dev.tsv", "--set", "task.name=odd").stdout.splitlines()
    )
    if os.environ.get("GOLDEN") == "write":
        (GOLDEN / "data.txt").write_text(text)
    assert text == (GOLDEN / "data.txt").read_text()
    assert max(map(len, text.splitlines())) <= 120


def test_the_screen_of_a_test_split(odd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("test.tsv").write_text("text\tlabel\nsame\t1\nold\t0\nold\t0\n")
    splits = [f"task.files.{name}=." for name in ("train", "validation", "test")]
    lines = shown(".", *(word for one in splits for word in ("--set", one)), "--set", "task.name=odd").stdout
    assert max(map(len, lines.splitlines())) <= 120
    for part in (
        "\ntest   test.tsv\n",
        "\ntest: 1 example of 3 with texts that stood before.\n  test line 3, 4 (label 0): old\n",
        "\nLeaks: 1 of 3 test examples (33.3 %) stands in the training split too, 0 with another label.\n"
        "  train line 4, 5 = test line 2 (labels 0, 1): same\n",
        "\nLeaks: 1 of 3 test examples (33.3 %) stands in the dev split too, 1 with another label.\n"
        "  dev line 2 = test line 2 (labels 0, 1): same\n",
        "  test line 2 (1, 1 word): same\n",
    ):
        assert part in lines
    (size,) = [line.split() for line in lines.splitlines() if line.startswith("examples")]
    assert size == ["examples", "7", "5", "3"]


def test_labels_are_held_against_the_best_set_of_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("train", "dev"):
        Path(f"{name}.jsonl").write_text('{"text": "a", "label": ["x", "y"]}\n{"text": "b", "label": ["x"]}\n')
    said = shown("train.jsonl", "dev.jsonl", "--set", "task.kind=labels").stdout
    assert "\nAlways giving the best set of labels scores 0.8571.\n" in said  # x and y of both: 2 · 3 / (4 + 3)


def test_as_json_and_in_a_models_tokens(odd, bert, tmp_path):
    said = json.loads(shown(tmp_path, "--model", bert.folder, "--max-length", 4, "--json").stdout)
    (found,) = said["tasks"]
    assert said["notes"] == []
    assert (found["leaks"], found["max_length"], found["unit"]) == (3, 4, "tokens")
    assert found["train"]["tokens"]["longest"] == 7  # five words and two special tokens
    assert (found["train"]["cut"], found["dev"]["cut"]) == (2, 2)
    assert found["train"]["empty"] == [3]


def test_the_data_of_a_sweep(odd, bert, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = json.dumps(odd.model_dump(exclude_none=True))
    rest = "lr: 1e-3\nepochs: [1, 2]\nmax_length: 5\nseeds: [1]\n"
    Path("mine.yaml").write_text(f"task: {task}\nmodel: {json.dumps(bert.model_dump())}\n{rest}")
    (found,) = json.loads(shown("mine.yaml", "--json").stdout)["tasks"]
    assert (found["name"], found["max_length"], found["unit"]) == ("odd", 5, "tokens")
    Path("mine.yaml").write_text(f"task: {task}\nmodel: nobody/nothing\n{rest}")
    said = json.loads(shown("mine.yaml", "--json").stdout)
    assert said["tasks"][0]["unit"] == "words"
    assert said["notes"][0].startswith("Tokens are not counted: cannot find the model 'nobody/nothing'")
    files = shown("mine.yaml", "train.tsv", "dev.tsv").stdout
    assert "Tokens are not counted" in files


def test_what_is_no_data_is_one_line(odd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words, part in (
        (("nothing",), "unknown data 'nothing'. Allowed: cola, sst2"),
        (("train.tsv", "dev.tsv", "dev.tsv"), "unknown data 'train.tsv dev.tsv dev.tsv'"),
        (("train.tsv",), "training and validation data cannot be the same file"),
        ((".", "--set", "lr=3"), "--set lr=3 is not a setting of the task"),
        ((".", "--set", "task.text=review"), "no column review"),
        ((".", "--model", "./nowhere"), "nowhere"),
    ):
        said = shown(*words, code=2)
        assert said.stderr.count("\n") == 1
        assert part in said.stderr


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not here")
def test_what_is_known_of_real_data():
    rte = summary.describe(TaskSpec(name="rte", files=str(SHARED / "rte")), None, 128)
    assert (rte.train.labels, rte.dev.labels) == (
        {"entailment": 1249, "not_entailment": 1241},
        {"entailment": 146, "not_entailment": 131},
    )
    assert (rte.train.repeats, rte.dev.repeats, rte.leaks) == (2, 0, 0)
    assert (rte.train.words.longest, rte.dev.words.longest) == (244, 173)
    sst2 = summary.describe(TaskSpec(name="sst2", files=str(SHARED / "sst2_small")), None, 128)
    assert (sst2.train.repeats, sst2.leaks) == (3, 0)
    assert (sst2.train.words.median, sst2.dev.words.median) == (7, 19)
    folder = str(SHARED / "ja_chabsa_2class")
    chabsa = summary.describe(TaskSpec(name="ja", files=folder, header=False, text=0, label=1), None, 128)
    assert (chabsa.unit, chabsa.train.characters.median, chabsa.train.characters.longest) == ("characters", 72, 401)
    assert (chabsa.train.repeats, chabsa.dev.repeats, chabsa.leaks) == (5, 1, 0)


def test_completions_are_described_by_prompts_and_answers(tmp_path):
    """A prompt with another answer disagrees, and prompts that would be cut are counted."""
    from language_models import completion_task, write_decoder

    from harness.models import pretrained

    rows = [{"prompt": "a b good ", "completion": answer} for answer in ("red", "blue")]
    rows.append({"prompt": "a b c d e f ", "completion": "red"})
    spec = completion_task(tmp_path / "own", rows, rows[:1])
    tokenizer = pretrained.tokenizer(write_decoder(tmp_path / "gpt2", "gpt2"))
    described = summary.describe(spec, tokenizer, 6)
    assert (described.kind, described.majority, described.train.repeats, described.train.disagreeing) == (
        "completion", None, 1, 1,
    )  # fmt: skip
    assert (described.train.cut, described.train.tokens.longest, described.leaks) == (1, 8, 1)
    assert summary.describe(spec, None, 6).train.tokens is None
