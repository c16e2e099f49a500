"""Augmentation: each operation by hand, its frequencies, what it depends on, and training with it."""

import importlib.util
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from cut_runs import HERE, CutError, cut, same
from driving import same_arrays
from training_runs import begin, remedy

from harness.common.errors import HarnessError
from harness.config.recipe import Recipe, TaskFiles, TaskSpec, WordList
from harness.config.trials import Cell, Sweep, Trial, expand
from harness.data import augmentation, examples, tasks
from harness.data.augmentation import Synonyms, changed
from harness.execution import driver, duration, rerun
from harness.execution.packing import STEP_OVERHEAD, Job
from harness.execution.verification import verify
from harness.records.store import Store
from harness.training import loop, replayer
from harness.training.batches import Batch
from harness.training.checkpoints import Checkpoints
from harness.training.loop import update
from harness.training.remedies.text_augmentation import TextAugmentation

Make = Callable[..., Trial]
KNOWN = Synonyms({"good": ("fine", "not bad"), "red": ("crimson",), "He": ("she",)}, "")


class Script(random.Random):
    """Draws what it is told to."""

    def __init__(self, *draws: float) -> None:
        super().__init__(0)
        self.draws: Iterator[float] = iter(draws)

    def random(self) -> float:
        return next(self.draws)


def recipe(augment: str, rate: float = 0.1, **fields: object) -> Recipe:
    words = {"synonyms": {"name": "words", "file": "words.tsv"}} if augment in ("synonyms", "insert") else {}
    given = {"task": "embedded", "model": "embedded", "lr": 1e-3, "epochs": 1, "augment": augment, **words, **fields}
    return Recipe(**(given | {"augment_rate": rate}))  # type: ignore[arg-type]


@pytest.fixture
def words(tmp_path: Path) -> WordList:
    """Synonyms of the small task's words that are of one token each."""
    path = tmp_path / "words.tsv"
    path.write_text("a\tred\tblue\nb\told\nc\tnew\tsmall\n")
    return WordList(name="words", file=str(path))


# ---------------------------------------------------------------------------------------------------- by hand


@pytest.mark.parametrize(
    ("augment", "rate", "text", "draws", "wanted"),
    [
        # Places 0 and 1 (the second of nine others), then 9 and 4.
        ("swap", 0.2, "a b c d e f g h i j", (0.0, 0.0, 0.95, 0.5), "b a c d j f g h i e"),
        ("swap", 0.1, "a b", (0.5, 0.0), "b a"),  # 0.2 of a word is one
        ("swap", 1.0, "alone", (), "alone"),
        ("delete", 0.4, "a b c d", (0.5, 0.39, 0.4, 0.0), "a c"),
        ("delete", 0.4, "a b c", (0.1, 0.1, 0.1, 0.7), "c"),  # one of them stays
        ("delete", 1.0, "a", (0.9, 0.0), "a"),
        # The second of the known ones, its first synonym; then the first of those left.
        ("synonyms", 0.5, "a good red c", (0.5, 0.0, 0.0, 0.9), "a not bad crimson c"),
        ("synonyms", 0.1, "Good, (red)", (0.9, 0.0), "Good, (crimson)"),
        ("synonyms", 0.1, "Good, x", (0.0, 0.0), "fine, x"),
        ("synonyms", 1.0, "a b c", (), "a b c"),
        # A synonym of the first known word before all, then one of the second behind all.
        ("insert", 0.5, "a good red, c", (0.0, 0.0, 0.0, 0.6, 0.99, 0.0), "fine a good red, c crimson"),
        ("insert", 0.5, "a b", (), "a b"),
        ("delete", 0.5, "", (), ""),
        ("swap", 0.5, "", (), ""),
    ],
)
def test_an_operation_by_hand(augment: str, rate: float, text: str, draws: tuple[float, ...], wanted: str) -> None:
    draw = Script(*draws)
    assert " ".join(changed(text.split(), recipe(augment, rate), KNOWN, draw)) == wanted
    assert next(draw.draws, None) is None  # no more and no less was drawn


def test_shares_are_those_of_the_rate() -> None:
    draw, text = random.Random(4), [f"w{number}" for number in range(20)]
    left = [len(changed(text, recipe("delete", 0.3), None, draw)) for _ in range(1000)]
    assert np.mean(left) / 20 == pytest.approx(0.7, abs=4 * math.sqrt(0.21 / 20_000))
    swapped = [changed(text, recipe("swap", 0.1), None, draw) for _ in range(200)]
    assert all(sorted(one) == sorted(text) for one in swapped)
    moved = Counter(sum(one != other for one, other in zip(text, found, strict=True)) for found in swapped)
    assert set(moved) <= {0, 3, 4}  # two swaps: four places, three, or there and back
    known = Synonyms(dict.fromkeys(text, ("x", "y")), "")
    replaced = [changed(text, recipe("synonyms", 0.25), known, draw) for _ in range(500)]
    assert {sum(word in "xy" for word in one) for one in replaced} == {5}
    places = Counter(place for one in replaced for place, word in enumerate(one) if word in "xy")
    assert min(places.values()) > 75  # 125 each on average
    assert max(places.values()) < 175
    assert 1100 < sum(one.count("x") for one in replaced) < 1400  # of 2,500
    longer = [changed(text, recipe("insert", 0.25), known, draw) for _ in range(200)]
    assert {len(one) for one in longer} == {25}
    assert all([word for word in one if word not in "xy"] == text for one in longer)
    assert {place for one in longer for place, word in enumerate(one) if word in "xy"} == set(range(25))


# ------------------------------------------------------------------------------------------------ copies of a split


def test_copies_follow_the_order_seed_and_nothing_else() -> None:
    raw = tasks.load(TaskSpec(name="embedded"))
    found, digest = augmentation.copies(raw, recipe("swap", augment_copies=2), 7)
    assert digest is None
    assert found.pairs is not None
    assert len(found.texts) == len(found.pairs) == 2000
    assert found.labels.tolist() == raw.train.labels.tolist() * 2
    for texts, wanted in ((found.texts, raw.train.texts), (found.pairs, raw.train.pairs or ())):
        assert [sorted(text.split()) for text in texts] == [sorted(text.split()) for text in wanted] * 2
    assert found.texts[:1000] != found.texts[1000:]
    again = augmentation.copies(raw, recipe("swap", augment_copies=2, lr=1.0, dropout=0.5, epochs=9), 7)[0]
    assert again.texts == found.texts
    assert augmentation.copies(raw, recipe("swap", augment_copies=2), 8)[0].texts != found.texts
    # Fixed for good: a record names its seed, not its texts.
    assert found.texts[:3] == (
        "often miner shouts all", "not all squats trout large quickly", "painter no strolls",
    )  # fmt: skip


def test_japanese_texts_are_changed_by_their_words(tmp_path: Path) -> None:
    for name in ("train", "validation"):
        rows = "".join(f"東京の売上は BERT により{number}円増加した。\t{number % 2}\n" for number in range(10, 30))
        (tmp_path / f"{name}.tsv").write_text(f"text\tlabel\n{rows}")
    (tmp_path / "words.tsv").write_text("増加\t上昇\n")
    raw = tasks.load(TaskSpec(name="ja", files=TaskFiles(train=str(tmp_path), validation=str(tmp_path))))
    swapped = augmentation.copies(raw, recipe("swap"), 1)[0].texts
    assert swapped != raw.train.texts
    assert [sorted(text) for text in swapped] == [sorted(text) for text in raw.train.texts]
    assert all("東京" in text and "BERT" in text for text in swapped)
    given = recipe("synonyms", synonyms={"name": "ja", "file": str(tmp_path / "words.tsv")})
    assert augmentation.check(given, raw) == augmentation.copies(raw, given, 1)[1]
    assert augmentation.copies(raw, given, 1)[0].texts == tuple(t.replace("増加", "上昇") for t in raw.train.texts)


def test_a_list_of_words_is_hashed_by_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "one.tsv").write_bytes(b"good\tfine\tnice\nold\taged\n")
    (tmp_path / "other.tsv").write_bytes("\ufeffgood \t fine\tnice\r\nold\taged\r\n\r\n".encode())
    (tmp_path / "third.tsv").write_bytes(b"good\tfine\nold\taged\n")
    one, other, third = (
        augmentation.read(WordList(name="w", file=str(tmp_path / f"{name}.tsv"))) for name in ("one", "other", "third")
    )
    assert one.of == other.of == {"good": ("fine", "nice"), "old": ("aged",)}
    assert one.sha256 == other.sha256 != third.sha256


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, r"cannot read the synonyms .*words.tsv: no such file or folder"),
        (b"\xff\xfe", r"words.tsv: it is not UTF-8 text"),
        (b"", r"words.tsv has no synonyms"),
        (b"good\n", r"words.tsv, line 1: no synonym of 'good'"),
        (b"good\tfine\n\nbad\tpoor\n", r"line 2: an empty field"),
        (b"good\tfine\t\n", r"line 1: an empty field"),
        (b"good\tfine\nold\taged\ngood\tnice\n", r"line 3: duplicate word 'good'"),
    ],
)
def test_what_is_no_list_of_words_is_refused(tmp_path: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / "words.tsv").write_bytes(content)
    with pytest.raises(HarnessError, match=said):
        augmentation.read(WordList(name="words", file=str(tmp_path / "words.tsv")))


def test_what_the_data_or_the_machine_lack_is_refused(
    data: TaskSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tasks.load(data)
    (tmp_path / "words.tsv").write_text("unheard\tunseen\n")
    given = recipe("insert", synonyms={"name": "odd", "file": str(tmp_path / "words.tsv")})
    with pytest.raises(
        HarnessError, match=r"none of the 1 words of the synonyms odd occurs in the training texts of good"
    ):
        augmentation.check(given, raw)
    given = recipe("backtranslate", translator={"name": "t", "folder": str(tmp_path)})
    with pytest.raises(HarnessError, match=r"has no config.json. .* --set translator.folder=DIR"):
        augmentation.check(given, raw)
    assert augmentation.check(recipe("none"), raw) is None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert augmentation.check(recipe("swap"), raw) is None
    japanese = examples.Rows(("これは",), None, np.array([0]), "", "", [1])
    raw = examples.Raw("ja", "accuracy", ("0", "1"), japanese, japanese, "")
    with pytest.raises(HarnessError, match=r"the Japanese task ja requires MeCab.*pip install .*\[japan"):
        augmentation.check(recipe("swap"), raw)


# ----------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("augment", ["swap", "delete", "synonyms"])
@pytest.mark.parametrize("padding", ["dataset", "batch"])
def test_training_is_that_on_the_texts_written_out(
    trial: Make, words: WordList, tmp_path: Path, augment: str, padding: str
) -> None:
    """A file of the examples and their copies, trained without augmentation, gives the same bits."""
    fields = {"augment": augment, "augment_rate": 0.4, "augment_copies": 2, "padding": padding}
    fields |= {"synonyms": words} if augment == "synonyms" else {}
    one = trial(4, epochs=1, **fields)
    raw = tasks.load(one.recipe.task)
    copies, digest = augmentation.copies(raw, one.recipe, 4)
    names = raw.label_names or ()
    with (tmp_path / "train.tsv").open("w") as stream:
        stream.write("text\tlabel\n")
        for rows in (raw.train, copies):
            stream.writelines(f"{t}\t{names[label]}\n" for t, label in zip(rows.texts, rows.labels, strict=True))
    assert one.recipe.task.files is not None
    files = TaskFiles(train=str(tmp_path / "train.tsv"), validation=one.recipe.task.files.validation)
    written = trial(4, task=TaskSpec(name="written", files=files), padding=padding, epochs=1)
    found = loop.train([trial(5, epochs=1, **fields), one])[1]
    wanted = loop.train([written])[0]
    assert found.measured.weights_sha256 == wanted.measured.weights_sha256
    assert same_arrays(found.curves.arrays, wanted.curves.arrays)
    assert (found.measured.steps, found.measured.train_examples) == (math.ceil(180 / 8), 60)
    assert found.measured.augmentation_sha256 == digest
    assert (digest is None) == (augment != "synonyms")


def test_lanes_with_copies_keep_the_laws(
    trial: Make, words: WordList, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone and together, cut and gone on, recorded and not: the same bits, whatever the others' texts are."""
    lanes: list[dict[str, object]] = [
        {"augment": "swap"}, {"augment": "delete", "augment_rate": 1.0}, {"augment": "insert", "synonyms": words},
        {"augment": "swap", "lr": 1e-2}, {"augment": "synonyms", "synonyms": words, "augment_rate": 0.5, "mixout": 0.5},
    ]  # fmt: skip
    for common in ({}, {"padding": "batch"}, {"oversample": True, "gradient_accumulation": 2}):
        trials = [trial(place % 2, epochs=1, **lane, **common) for place, lane in enumerate(lanes)]
        wanted = loop.train(trials)
        assert len({one.measured.weights_sha256 for one in wanted}) == len(lanes)
        for place in range(len(lanes)):
            assert same(loop.train(trials[place : place + 1]), wanted[place : place + 1])
        assert same(loop.train(trials[::-1]), wanted[::-1])
        for at in (1, 9):
            with pytest.raises(CutError):
                loop.train(trials, callbacks=[cut(at)], checkpoint=Checkpoints(tmp_path, 0).of(trials, HERE))
        assert same(loop.train(trials, checkpoint=Checkpoints(tmp_path, math.inf).of(trials, HERE)), wanted)
    monkeypatch.setattr(replayer, "RECORDING_PAYS", 0)
    assert same(loop.train(trials), wanted)


def test_lanes_that_draw_the_same_texts_share_them(trial: Make) -> None:
    trials = [trial(seed, augment="swap", lr=lr) for seed in (1, 2) for lr in (1e-3, 1e-2)]
    run = begin(trials)
    assert len(run.training) == 60 * 3  # the examples, and a copy of them for each seed
    update(run, 0)
    rows = remedy(run, TextAugmentation).change_batch(Batch(run.batches.order, run.lanes.all, 0), run.training).rows
    assert torch.equal(rows[0], rows[1])
    assert rows[0].sort().values.tolist() == list(range(120))
    assert rows[2].sort().values.tolist() == [*range(60), *range(120, 180)]


def test_a_copy_is_cut_at_the_longest_example(trial: Make, words: WordList) -> None:
    run = begin([trial(1, augment="insert", augment_rate=1.0, synonyms=words)])
    width = run.pack.task.train.input_ids.shape[1]
    assert run.split.input_ids.shape == (120, width)
    assert run.split.lengths.max() == width
    assert (run.split.lengths[60:] >= run.split.lengths[:60]).all()
    assert (run.split.lengths[60:] == width).sum() > (run.split.lengths[:60] == width).sum()


# ------------------------------------------------------------------------------------------------------ around it


@pytest.mark.usefixtures("cpu_only")
def test_a_sweep_keeps_to_its_words(trial: Make, tiny_sweep: Sweep, words: WordList, tmp_path: Path) -> None:
    """Its records tell them apart, whoever looks: the sweep itself, a rerun, verify."""
    planned = trial(epochs=1, augment="synonyms", synonyms=words)
    sweep = tiny_sweep.model_copy(update={"cells": (Cell(axes=(), recipe=planned.recipe),)})
    store, here = Store(tmp_path / "tiny"), driver.Options(in_process=True)
    driver.run(sweep.model_copy(update={"seeds": sweep.seeds[:2]}), store, here, lambda progress: None)
    record = store.load(expand(sweep)[0].id)
    assert record is not None
    assert record.measured is not None
    assert record.measured.augmentation_sha256 == augmentation.read(words).sha256
    assert record.measured.data_sha256 == tasks.load(planned.recipe.task).sha256  # that of the examples themselves
    assert rerun.rerun(sweep, store, expand(sweep)[0], 0.0).verdict == "identical"
    found = duration.estimate(sweep, store.records(sweep), 1)
    assert (found.basis, found.seconds) == ("from the finished trials", pytest.approx(record.measured.lane_seconds))
    assert not verify.check(sweep.model_copy(update={"seeds": sweep.seeds[:2]}), store).problems
    Path(words.file).write_text("a\tnew\n")
    again = rerun.rerun(sweep, store, expand(sweep)[0], 0.0)
    digests = record.measured.augmentation_sha256[:12], augmentation.read(words).sha256[:12]
    assert again.reasons == ("words or translators of the augmentation: {} then, {} now".format(*digests),)
    with pytest.raises(
        HarnessError, match="the synonyms 'words' are not those that the finished trials were trained with"
    ):
        driver.run(sweep, store, here, lambda progress: None)
    edited = record.measured.model_copy(update={"augmentation_sha256": "d" * 64})
    store.path(record.id).write_text(record.model_copy(update={"measured": edited}).model_dump_json())
    (problem,) = verify.check(sweep, store).problems
    assert (problem.rule, problem.trial) == (
        "augmentation_sha256",
        expand(sweep)[1].id,
    )  # of two, the plan's first is usual
    other = planned.recipe.model_copy(update={"synonyms": words.model_copy(update={"name": "other"})})
    renamed = sweep.model_copy(update={"cells": (*sweep.cells, Cell(axes=(), recipe=other))})
    assert (
        driver.run(renamed, store, driver.Options(in_process=True, only=("synonyms=other",)), lambda _: None).left == 0
    )


def test_work_is_counted_with_the_copies(trial: Make, data: TaskSpec) -> None:
    without, triple = (trial(epochs=3, **fields) for fields in ({}, {"augment": "delete", "augment_copies": 2}))
    assert (without.recipe.passes, triple.recipe.passes) == (3, 9)
    assert Job((triple,)).work == 3 * Job((without,)).work
    assert Job((triple, triple)).work == 9 * (2 + STEP_OVERHEAD)
    labels = tasks.load(data).train.labels
    assert (tasks.epoch_steps(labels, without.recipe), tasks.epoch_steps(labels, triple.recipe)) == (8, 23)
    with pytest.raises(HarnessError, match="max_steps must be at most 69, the steps of 3 epochs"):
        tasks.check_recipe(triple.recipe.model_copy(update={"max_steps": 70}), labels, "accuracy")
    with pytest.raises(HarnessError, match="max_steps must be at most 8, the steps of 1 epoch"):
        tasks.check_recipe(without.recipe.model_copy(update={"epochs": 1, "max_steps": 9}), labels, "accuracy")
    assert without.recipe.shape != triple.recipe.shape
