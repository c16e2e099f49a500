"""Shared by the tests: no network, one thread, and small models and data that tests build."""

import gc
import os
import signal

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported
# Read when torch and numpy are imported. The tests' sums are small: on two threads they mostly wait for each other, and
# tests that run side by side would take each other's cores; where a test has two, they sleep while they wait.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import csv
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from durations import Durations, Measurement
from hypothesis import settings

from harness.common import tested_versions
from harness.config.recipe import ModelSpec, Recipe, Seeds, TaskFiles, TaskSpec
from harness.config.trials import Cell, Sweep, Trial
from harness.execution import machine

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from harness.analysis.analyze import Analysis

# The same examples every time, and no limit on how long one takes: a busy machine is no failure.
settings.register_profile("always the same", deadline=None, derandomize=True)
settings.load_profile("always the same")
# Until the tests are collected: what they import stays, and to look through it again and again takes seconds.
gc.disable()
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background jobs ignore Ctrl-C


def pytest_configure(config: pytest.Config) -> None:
    """Register what knows how long the tests take."""
    several = bool(config.getoption("numprocesses", None)) or hasattr(config, "workerinput")
    config.pluginmanager.register(Durations(longest_first=several))
    if os.environ.get("DURATIONS") == "write":
        config.pluginmanager.register(Measurement())


def pytest_collection_finish() -> None:
    """Collect garbage again, but for what the imports made."""
    gc.freeze()
    gc.enable()


SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, *"abcdefgh", "good", "bad", "red", "blue", "old", "new", "small"]


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_disks() -> Iterator[None]:
    """What tests write need not outlive a power cut; those of writing look at `os.fsync` themselves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> TaskSpec:
    """Sixty training and thirty dev texts of two to nine words; the label says whether `good` stands in them."""
    folder, draw = tmp_path_factory.mktemp("data"), random.Random(5)
    for name, count in (("train", 60), ("validation", 30)):
        with (folder / f"{name}.tsv").open("w") as stream:
            rows = csv.writer(stream, delimiter="\t", lineterminator="\n")
            rows.writerow(["text", "label"])
            for number in range(count):
                words = [*draw.choices(WORDS[5:13], k=draw.randint(1, 8)), ("bad", "good")[number % 2]]
                rows.writerow([" ".join(draw.sample(words, len(words))), ("no", "yes")[number % 2]])
    files = TaskFiles(train=str(folder / "train.tsv"), validation=str(folder / "validation.tsv"))
    return TaskSpec(name="good", files=files)


@pytest.fixture(scope="session")
def uneven(tmp_path_factory: pytest.TempPathFactory, data: TaskSpec) -> TaskSpec:
    """The small task with two thirds of its `yes` left out, so that classes are not equal."""
    assert data.files is not None
    head, *rows = Path(data.files.train).read_text().splitlines()
    left = [row for place, row in enumerate(rows) if row.endswith("no") or place % 6 == 1]
    train_file = tmp_path_factory.mktemp("uneven") / "train.tsv"
    train_file.write_text("\n".join([head, *left]) + "\n")
    return TaskSpec(name="uneven", files=TaskFiles(train=str(train_file), validation=data.files.validation))


@pytest.fixture(scope="session")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> TaskSpec:
    """Sentences whose words are tagged, 40 of training, 20 of dev and 10 of test: `red` and `blue` begin a colour,
    which `good` goes on with; `old` is a time.
    """
    folder, draw = tmp_path_factory.mktemp("tagged"), random.Random(7)
    for name, count in (("train", 40), ("dev", 20), ("test", 10)):
        with (folder / f"{name}.conll").open("w") as stream:
            for _ in range(count):
                before = "O"
                for word in draw.choices(["a", "b", "bad", "red", "blue", "good", "old"], k=draw.randint(2, 9)):
                    inside = word == "good" and before[1:] == "-COLOUR"
                    before = "B-COLOUR" if word in ("red", "blue") else "I-COLOUR" if inside else "O"
                    before = "B-TIME" if word == "old" else before
                    stream.write(f"{word}\t{before}\n")
                stream.write("\n")
    files = TaskFiles(train=str(folder), validation=str(folder), test=str(folder))
    return TaskSpec(name="colours", kind="tokens", files=files)


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> TaskSpec:
    """Pairs of words with three labels."""
    folder, words = tmp_path_factory.mktemp("pairs"), "abcdefgh"
    for split, count in (("train", 48), ("dev", 24)):
        rows = [
            f"{words[n % 8]} {words[n % 5]}\t{words[n % 3]}\t{('zero', 'one', 'two')[n % 8 % 3]}" for n in range(count)
        ]
        (folder / f"{split}.tsv").write_text("\n".join(["text\ttext_pair\tlabel", *rows]) + "\n")
    return TaskSpec(name="pairs", files=TaskFiles(train=str(folder), validation=str(folder)))


@pytest.fixture(scope="session")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> TaskSpec:
    """Texts with a number each."""
    folder = tmp_path_factory.mktemp("numbers")
    for split, count in (("train", 40), ("dev", 20)):
        rows = [f"{'abcdefgh'[n % 8]} {'good' if n % 2 else 'bad'}\t{n % 2 + n % 8 / 8}" for n in range(count)]
        (folder / f"{split}.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n")
    return TaskSpec(name="numbers", files=TaskFiles(train=str(folder), validation=str(folder)), metric="pearson")


def write_tokenizer(folder: Path, kind: str = "bert") -> None:
    """Write a tokenizer of whole words into a model's folder; Qwen2's, as transformers reads no other, of letters."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = {word: number for number, word in enumerate(WORDS)}
    letters = models.BPE(words, [], unk_token="[UNK]")
    inner = Tokenizer(letters if kind == "qwen2" else models.WordLevel(words, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **names).save_pretrained(folder)


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write a small random model of a kind (`bert`, `roberta`, …) with a tokenizer, and give its folder."""
    import torch
    import transformers

    def write(kind: str = "bert", **changes: object) -> Path:
        folder = tmp_path_factory.mktemp(kind)
        write_tokenizer(folder, kind)
        sizes: dict[str, object] = {
            "vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 32, "max_position_embeddings": 32, "pad_token_id": 0,
        }  # fmt: skip
        if kind == "distilbert":
            sizes = {"vocab_size": len(WORDS), "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32,
                     "max_position_embeddings": 32, "pad_token_id": 0}  # fmt: skip
        if kind == "deberta-v2":
            sizes |= {"relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"]}
        if kind in ("albert", "electra"):
            sizes |= {"embedding_size": 8}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            config = transformers.AutoConfig.for_model(kind, **(sizes | changes))
            transformers.AutoModel.from_config(config).save_pretrained(folder)
        return folder

    return write


@pytest.fixture(scope="session")
def bert(build: Callable[..., Path]) -> ModelSpec:
    """A BERT of two layers by 16."""
    return ModelSpec(name="tiny-bert", folder=str(build("bert")))


@pytest.fixture(scope="session")
def trial(data: TaskSpec, bert: ModelSpec) -> Callable[..., Trial]:
    """Make a trial on the small task and model: `trial(seed, lr=1e-3, epochs=2, …)`."""

    def make(seed: int = 1, **fields: object) -> Trial:
        seeds = {name: fields.pop(name, seed) for name in ("init_seed", "order_seed", "dropout_seed")}
        given = {"task": data, "model": bert, "lr": 1e-3, "epochs": 2, "batch_size": 8} | fields
        return Trial(recipe=Recipe(**given), seeds=Seeds(seed=seed, **seeds), cell=0)  # type: ignore[arg-type]

    return make


@pytest.fixture
def tiny_sweep(trial: Callable[..., Trial]) -> Sweep:
    """Two rates × three seeds of the small task, one epoch."""
    cells = tuple(Cell(axes=(("lr", lr),), recipe=trial(lr=lr, epochs=1).recipe) for lr in (1e-3, 1e-2))
    return Sweep(
        name="tiny", profile="default", title="Tiny", cells=cells, seeds=tuple(trial(s).seeds for s in (1, 2, 3))
    )


@pytest.fixture
def cpu_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cores and no GPU, whatever the machine has."""
    monkeypatch.setattr(machine, "detect_hardware", lambda: machine.Machine(2, 2**34, ()))


@pytest.fixture(scope="session")
def mosbach(tmp_path_factory: pytest.TempPathFactory) -> "Analysis":
    """The tables of a small study of lr × bias correction × epochs, with runs of every fate."""
    from made_runs import MOSBACH, MOSBACH_RUNS, study_of

    from harness.analysis.analyze import analyse

    return analyse(study_of(tmp_path_factory.mktemp("study"), MOSBACH, MOSBACH_RUNS))


@pytest.fixture(scope="session")
def drawings(mosbach: "Analysis", tmp_path_factory: pytest.TempPathFactory) -> "dict[str, Figure]":
    """Every figure there is: of `mosbach`, and of a recorded study what only such a one has."""
    from drawn_figures import RECORDED, drawn, recorded

    return drawn(mosbach) | drawn(recorded(tmp_path_factory.mktemp("recorded")), RECORDED)


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports without figures, which take most of the time and have their own tests."""
    monkeypatch.setattr("harness.report.figures.all_figures.MAKERS", ())


@pytest.fixture
def empty_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every figure is made and laid out, and an empty picture written: to write it takes most of a report's time."""

    def save(figure: "Figure", folder: Path, name: str) -> None:
        figure.draw_without_rendering()
        for ending in ("png", "svg", "pdf"):
            (folder / f"{name}.{ending}").write_bytes(b"")

    monkeypatch.setattr("harness.report.figures.style.save", save)


@pytest.fixture(scope="module", autouse=True)
def fresh_memory() -> None:
    """Nothing that another file's tests loaded, looked up or recorded is still in the package's caches."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "harness":
            for value in list(vars(module).values()):
                if forget := getattr(value, "cache_clear", None):
                    forget()


@pytest.fixture(autouse=True)
def any_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is said of untested versions, whatever `make newest` runs the tests with or made-up runs had."""
    monkeypatch.setattr(tested_versions, "untested", lambda versions: {})
