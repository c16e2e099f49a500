"""A tokenizer that does not fit is said before anything is trained: none, one of another language, one too large."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import write_tokenizer
from typer.testing import CliRunner

from harness.cli.app import app
from harness.common.errors import HarnessError
from harness.config.recipe import ModelSpec, TaskFiles, TaskSpec
from harness.config.trials import Sweep, Trial
from harness.data import summary, vocabulary
from harness.execution import driver
from harness.models import pretrained
from harness.records.store import Store
from harness.training import fitting
from harness.training.prepare import load_task

FILES = ("tokenizer.json", "tokenizer_config.json")


@pytest.fixture
def texts(tmp_path: Path) -> Callable[[list[str]], TaskSpec]:
    """A task of these texts with labels by turns, on which it is trained and scored."""

    def make(lines: list[str]) -> TaskSpec:
        folder = tmp_path / "data"
        folder.mkdir()
        rows = "".join(f"{line}\t{('no', 'yes')[number % 2]}\n" for number, line in enumerate(lines))
        for name in ("train", "dev"):
            (folder / f"{name}.tsv").write_text("text\tlabel\n" + rows)
        return TaskSpec(name="own", files=TaskFiles(train=str(folder), validation=str(folder)))

    return make


@pytest.mark.parametrize("kind", ["bert", "roberta", "modernbert", "gpt2", "llama", "mpnet"])
@pytest.mark.parametrize("left", [(), ("tokenizer_config.json",)])
def test_a_folder_without_a_vocabulary_is_refused(
    kind: str, left: tuple[str, ...], build: Callable[..., Path], tmp_path: Path
) -> None:
    """transformers makes a tokenizer of special tokens for some, and fails in a way of its own for others."""
    folder = tmp_path / "bare"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    for name in left:
        shutil.copy(build("bert") / name, folder / name)
        config = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({key: config[key] for key in config if key != "tokenizer_class"}))
    with pytest.raises(HarnessError, match=r"bare has no tokenizer"):
        pretrained.tokenizer(ModelSpec(name="bare", folder=str(folder)))


def test_another_kind_of_tokenizer_than_the_file_says_is_refused(tmp_path: Path) -> None:
    """Of whole words transformers makes Qwen2's BPE without merges: of every text two special tokens were left."""
    from transformers import AutoTokenizer

    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    write_tokenizer(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)("good old")["input_ids"] != [2, 13, 17, 3]  # transformers' own
    with pytest.raises(
        HarnessError, match=r"would misread .*tokenizer\.json, a WordLevel tokenizer: Qwen2Tokenizer loads it as BPE"
    ):
        pretrained.tokenizer(ModelSpec(name="words", folder=str(tmp_path)))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))  # another kind takes what is written
    assert pretrained.tokenizer(ModelSpec(name="words", folder=str(tmp_path)))("good old")["input_ids"] == [
        2,
        13,
        17,
        3,
    ]


def test_letters_need_no_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "canine"}))
    letters = pretrained.tokenizer(ModelSpec(name="canine", folder=str(tmp_path)))
    assert letters("ab")["input_ids"][1:-1] == [97, 98]
    assert vocabulary.unknown_share([letters("ab")["input_ids"]], 2, letters) is None


class Known:
    unk_token_id, cls_token_id, sep_token_id = 1, 2, 3


def test_the_share_is_of_what_stands_for_the_texts() -> None:
    assert vocabulary.unknown_share([[2, 1, 3], [2, 5, 6, 1, 3]], 2, Known()) == 2 / 4
    assert vocabulary.unknown_share([[2, 1, 3, 1, 1, 3]], 3, Known()) == 1.0
    assert vocabulary.unknown_share([[2, 3]], 2, Known()) is None

    class Shared(Known):
        eos_token_id = 1

    assert vocabulary.unknown_share([[5, 1]], 0, Shared()) is None  # GPT-2's is the end of a text


def test_a_text_that_gives_no_token_is_unknown() -> None:
    """Of an empty one nothing can be known; a pair is without tokens where both of its texts are."""
    assert vocabulary.unknown_share([[2, 3], [2, 3]], 2, Known(), ["w", "x y"]) == 1.0
    assert vocabulary.unknown_share([[2, 3], [2, 5, 1, 3]], 2, Known(), ["w", "x y"]) == 2 / 3
    assert vocabulary.unknown_share([[2, 3], [2, 5, 6, 3]], 2, Known(), [" ", "x y"]) == 0.0
    assert vocabulary.unknown_share([[2, 3, 3], [2, 3, 5, 3]], 3, Known(), ["", "x"], ["v", "y"]) == 1 / 2

    class Bytes(Known):
        unk_token_id = None

    assert vocabulary.unknown_share([[2, 3], [2, 5, 3]], 2, Bytes(), ["w", "x"]) == 1 / 2
    assert vocabulary.unknown_share([[2, 5, 3]], 2, Bytes(), ["x"]) is None


def test_texts_without_a_token_are_refused(
    texts: Callable[[list[str]], TaskSpec], build: Callable[..., Path], tmp_path: Path
) -> None:
    """A tokenizer of letters, without one for what is unknown, drops the rest."""
    folder = tmp_path / "drops"
    shutil.copytree(build("qwen2", num_key_value_heads=2), folder)
    for name in FILES:
        file = folder / name
        file.write_text(file.read_text().replace('"unk_token": "[UNK]"', '"unk_token": null'))
    spec = ModelSpec(name="drops", folder=str(folder))
    task = texts(["xyz", "zyx", "yyz", "a xyz"])
    with pytest.raises(HarnessError, match=r"75 % of the tokens are unknown \(\[UNK\]\) to the tokenizer of drops"):
        load_task(task, spec, 128)
    assert summary.describe(task, pretrained.tokenizer(spec), 128).train.unknown == 0.75


def test_most_tokens_unknown_is_refused_unless_the_task_says_so(
    texts: Callable[[list[str]], TaskSpec], bert: ModelSpec, trial: Callable[..., Trial], tmp_path: Path
) -> None:
    """a to h are words of the tokenizer, x to z are not; a split of its own may be the one that is unknown."""
    task = texts(["a x y", "b y z", "c z x", "d x a"])
    share = 2 / 3 * 3 / 4 + 1 / 3 * 1 / 4
    with pytest.raises(HarnessError) as caught:
        load_task(task, bert, 128)
    assert f"{100 * share:.3g} % of the tokens are unknown ([UNK]) to the tokenizer of tiny-bert" in str(caught.value)
    assert "--set task.allow_unknown=on" in str(caught.value)
    allowed = task.model_copy(update={"allow_unknown": True})
    assert load_task(allowed, bert, 128).unknown_share == pytest.approx(share)
    assert trial(task=task).id == trial(task=allowed).id
    sweep = of(trial(task=task, batch_size=2, epochs=1))
    store = Store(tmp_path / "results")
    with pytest.raises(HarnessError, match="of the tokens are unknown"):
        driver.run(sweep, store, driver.Options(in_process=True), lambda progress: None)
    assert not list(tmp_path.glob("results/trials/*"))


def of(trial: Trial) -> Sweep:
    from harness.config.trials import Cell

    cells = (Cell(axes=(), recipe=trial.recipe),)
    return Sweep(name="own", profile="default", title="Own", cells=cells, seeds=(trial.seeds,))


def test_some_are_told_and_kept_in_the_record_and_on_the_page(
    texts: Callable[[list[str]], TaskSpec], trial: Callable[..., Trial], tmp_path: Path
) -> None:
    from harness.records.study import of_sweep
    from harness.report import page as report

    task = texts(["a b c x", "b c d e", "c d e f", "d a b c"])
    sweep, store, said = of(trial(task=task, batch_size=2, epochs=1)), Store(tmp_path / "results"), []
    driver.run(sweep, store, driver.Options(in_process=True), lambda progress: said.extend(progress.messages))
    warning = "6.25 % of the tokens are unknown to the tokenizer of tiny-bert ([UNK])"
    assert any(warning in line for line in said)
    (record,) = store.records(sweep).values()
    assert record.measured is not None
    assert record.measured.unknown_share == 1 / 16
    page = report.write(of_sweep(sweep, store, ""), tmp_path / "report").page.read_text()
    assert warning.replace("[", "&#91;") in page or warning in page
    assert "6.25 %" in page


def test_data_says_the_share(texts: Callable[[list[str]], TaskSpec], bert: ModelSpec, tmp_path: Path) -> None:
    task = texts(["a b c x", "b c d e"])
    found = summary.describe(task, pretrained.tokenizer(bert), 128)
    assert found.train.unknown == found.dev.unknown == 1 / 8
    words = ["data", str(tmp_path / "data"), "--model", str(bert.folder)]
    shown = CliRunner().invoke(app, words).stdout
    assert "unknown tokens" in shown
    assert "Warning: 12.5 % of the tokens are unknown to the tokenizer." in shown


def test_a_token_without_an_embedding_is_refused(build: Callable[..., Path], data: TaskSpec, tmp_path: Path) -> None:
    """The tokenizer has 20 tokens, the model 12: training ended in an IndexError."""
    spec = ModelSpec(name="small", folder=str(build("bert", vocab_size=12)))
    task = load_task(data, spec, 128)
    with pytest.raises(HarnessError) as caught:
        fitting.check(pretrained.network(spec, 2), task, spec.name)
    largest = int(task.train.input_ids.max())
    assert f"small has no embedding for token id {largest}: it has 12 embeddings, its tokenizer 20 tokens" in str(
        caught.value
    )


def test_shares_in_words() -> None:
    assert [vocabulary.percent(share) for share in (0, 1e-6, 0.0625, 0.5, 1)] == [
        "none", "under 0.01 %", "6.25 %", "50 %", "100 %",
    ]  # fmt: skip
