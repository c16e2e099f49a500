"""The reader refuses what is damaged, absurd, hostile or another trial's, says why, and loses nothing else by it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_runs import HEAD, Run, store_of, sweep_of
from whole_records import edit, rewrite

from harness.config.trials import Sweep, expand
from harness.execution import driver
from harness.records import array_shapes
from harness.records.reading import Unreadable
from harness.records.record import Curves
from harness.records.store import Store
from harness.records.study import of_sweep

TEXT = HEAD + "lr: 1e-5\nepochs: 3\nseeds: 1..4\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sweep, Store]:
    """Four finished trials, the last two with a recording."""
    folder = tmp_path_factory.mktemp("made")
    sweep = sweep_of(folder, TEXT)
    runs = [Run(300), Run(310), Run(320, gradients=(1.0, 1.0)), Run(330, gradients=(1.0, 1.0))]
    return sweep, store_of(folder, sweep, {0: list(runs)})


@pytest.fixture
def copied(made: tuple[Sweep, Store], tmp_path: Path) -> tuple[Sweep, Store, str]:
    """The same, to damage, and the id of the first trial."""
    sweep, store = made
    shutil.copytree(store.folder, tmp_path / store.folder.name)
    return sweep, Store(tmp_path / store.folder.name), expand(sweep)[0].id


def _replace(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def _link(path: Path) -> None:
    other = path.with_name("elsewhere")
    path.rename(other)
    path.symlink_to(other)


def _sparse(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.truncate(2**36)


RECORDS: dict[str, tuple[Callable[[Store, str], object], str]] = {
    "a FIFO": (lambda s, n: _replace(s.path(n), os.mkfifo), "a FIFO, not a regular file"),
    "a folder": (lambda s, n: _replace(s.path(n), Path.mkdir), "a folder, not a regular file"),
    "a link": (lambda s, n: _link(s.path(n)), "a symbolic link"),
    "64 GiB": (lambda s, n: _sparse(s.path(n)), "68,719,476,736 bytes"),
    "deep JSON": (lambda s, n: s.path(n).write_text("[" * 100_000), "Invalid JSON"),
    "an escape": (lambda s, n: edit(s, n, id="x\x1b]0;title\x07"), r"the record in it 'x\x1b]0;title\x07'"),
    "10**12 steps": (lambda s, n: edit(s, n, measured__steps=10**12), "steps is 1000000000000"),
    "no steps": (lambda s, n: edit(s, n, measured__steps=0), "steps is 0"),
    "a score of 1e300": (lambda s, n: edit(s, n, measured__final_score=1e300), "final_score is 1e+300"),
    "a negative accuracy": (lambda s, n: edit(s, n, measured__best_score=-0.1), "best_score is -0.1, which is no"),
    "a loss of 1e308": (lambda s, n: edit(s, n, measured__final_dev_loss=1e308), "final_dev_loss is 1e+308"),
    "more right than asked": (lambda s, n: edit(s, n, measured__correct=401), "correct is 401 of 400"),
    "negative time": (lambda s, n: edit(s, n, measured__wall_seconds=-1), "wall_seconds is -1"),
    "an age": (lambda s, n: edit(s, n, measured__lane_seconds=1e12), "lane_seconds is 1000000000000.0"),
    "an empty pack": (lambda s, n: edit(s, n, environment__pack_size=0), "pack_size is 0"),
    "a count of 10**30": (lambda s, n: edit(s, n, measured__parameters=10**30), "parameters"),
    "another trial": (lambda s, n: edit(s, n, trial__recipe__lr=3e-5), "its trial's fields give lr3e-5"),
    "no result": (lambda s, n: edit(s, n, measured=None), "finished, without a result"),
}  # fmt: skip


@pytest.mark.parametrize("damage", RECORDS)
def test_a_record_that_cannot_be_used_counts_as_unreadable(copied: tuple[Sweep, Store, str], damage: str) -> None:
    sweep, store, name = copied
    harm, words = RECORDS[damage]
    harm(store, name)
    unreadable = store.read(name)
    assert isinstance(unreadable, Unreadable)
    assert words in unreadable.reason
    assert unreadable.reason.isprintable()
    assert len(unreadable.reason) < 300
    assert store.load(name) is None
    assert store.curves(name) is None
    study = of_sweep(sweep, store)
    assert study.runs["status"].tolist() == ["unreadable", "finished", "finished", "finished"]
    assert study.runs["final_score"].tolist()[1:] == [310 / 400, 320 / 400, 330 / 400]
    assert [file.file for file in study.set_aside.files] == [f"trials/{name}.json"]
    ended = driver.ended(sweep, store)
    assert (ended.finished, ended.crashed, ended.missing, ended.unreadable) == (3, 0, 0, 1)


def _swap(store: Store, name: str, other: str) -> None:
    one, two = (store.path(trial).with_suffix(".npz") for trial in (name, other))
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)


def _cut(store: Store, name: str, array: str, rows: int) -> None:
    with np.load(store.path(name).with_suffix(".npz")) as kept:
        rewrite(store, name, **{array: kept[array][:rows]})


def _bomb(store: Store, name: str) -> None:
    rewrite(store, name, test_logits=np.zeros((2**21, 8), np.float32))


ARRAYS: dict[str, tuple[Callable[[Store, str], object], str]] = {
    "a FIFO": (lambda s, n: _replace(s.path(n).with_suffix(".npz"), os.mkfifo), "a FIFO"),
    "a link": (lambda s, n: _link(s.path(n).with_suffix(".npz")), "a symbolic link"),
    "64 GiB": (lambda s, n: _sparse(s.path(n).with_suffix(".npz")), "68,719,476,736 bytes"),
    "a bit": (lambda s, n: s.path(n).with_suffix(".npz").write_bytes(b"PK"), "hash "),
    "a bomb": (_bomb, "more than the 100 or the"),
    "logits of 7 rows": (lambda s, n: _cut(s, n, "logits", 7), "logits is float32 (7, 2) for 400 rows"),
    "labels of 3 rows": (lambda s, n: _cut(s, n, "labels", 3), "labels is int64 (3,) for 400 rows"),
    "a short curve": (lambda s, n: _cut(s, n, "train_loss", 10), "train_loss is float32 (10,) for 60 rows"),
    "a score of 1e300": (lambda s, n: rewrite(s, n, dev_score=np.full(7, 1e300)), "dev_score goes from 1e+300"),
    "an infinite rate": (lambda s, n: rewrite(s, n, lr=np.full(60, np.inf)), "lr has rates"),
    "labels of 9 classes": (lambda s, n: rewrite(s, n, labels=np.full(400, 9)), "labels are int64 from 9 to 9"),
    "texts": (lambda s, n: rewrite(s, n, dev_loss=np.array(["x"] * 7)), "dev_loss is <U1"),
    "without logits": (lambda s, n: rewrite(s, n, logits=None), "lacking logits"),
    "a stranger": (lambda s, n: rewrite(s, n, more=np.zeros(3)), "unknown more"),
    "steps back": (lambda s, n: rewrite(s, n, eval_step=np.arange(7)[::-1].copy()), "eval_step does not rise"),
}  # fmt: skip


@pytest.mark.parametrize("damage", ARRAYS)
def test_arrays_that_are_not_the_records_are_left_out(copied: tuple[Sweep, Store, str], damage: str) -> None:
    sweep, store, name = copied
    harm, words = ARRAYS[damage]
    harm(store, name)
    record = store.load(name)
    assert record is not None
    unreadable = store.read_arrays(record)
    assert isinstance(unreadable, Unreadable)
    assert words in unreadable.reason
    study = of_sweep(sweep, store)
    assert study.runs["status"].tolist() == ["finished"] * 4
    assert study.set_aside.files == ()
    read = [study.curves(row) for row in range(4)]
    assert [curves is None for curves in read] == [True, False, False, False]
    assert [file.file for file in study.set_aside.files] == [f"trials/{name}.npz"]
    study.curves(0)
    assert len(study.set_aside.files) == 1


def test_a_recording_that_was_shortened_is_left_out(copied: tuple[Sweep, Store, str]) -> None:
    sweep, store, _ = copied
    name = expand(sweep)[2].id
    assert isinstance(store.arrays(name), Curves)
    _cut(store, name, "recorded_update", 5)
    assert store.arrays(name) is None
    assert store.curves(name) is not None  # without the recording the arrays are whole


def test_swapped_arrays_are_noticed(copied: tuple[Sweep, Store, str]) -> None:
    sweep, store, name = copied
    other = expand(sweep)[1].id
    _swap(store, name, other)
    study = of_sweep(sweep, store)
    assert [study.curves(row) is None for row in range(4)] == [True, True, False, False]
    assert [file.trial for file in study.set_aside.files] == [name, other]
    assert all("hash" in file.reason for file in study.set_aside.files)


def test_a_damaged_surface_and_baselines_count_as_none(copied: tuple[Sweep, Store, str]) -> None:
    _, store, _ = copied
    for content in (b"", b"PK", b"[1]"):
        (store.folder / "surface.npz").write_bytes(content)
        (store.folder / "baselines.json").write_bytes(content)
        assert store.surface() is None
        assert store.baselines() == ()
    np.savez(store.folder / "surface.npz", x=np.zeros(3))
    assert store.surface() is None


def test_what_a_language_model_answered_is_of_its_own_shape() -> None:
    """A log-likelihood and a count of tokens for each answer, whose length is its label: no classes."""
    labels = np.array([3, 5], dtype=np.float32)
    logits = np.array([[-4.0, 2], [-9.0, 5]], dtype=np.float32)
    wrong = (logits, labels - 4), (logits, labels.astype(np.int64)), (logits[:, :1], labels)
    for arrays, problems in (((logits, labels), 0), *((pair, 1) for pair in wrong)):
        found = list(array_shapes._check_labels("", *arrays, "loss"))
        assert len(found) == problems, found


def test_a_recipe_that_stands_twice_does_not_pass_for_the_next_records(copied: tuple[Sweep, Store, str]) -> None:
    """The text of a recipe is read once for all trials of a cell: not by a record in which another one counts."""
    sweep, store, name = copied
    text = store.path(name).read_text()
    begin = text.index('  "recipe": {')
    end = text.index('  "seeds": {')
    twice = (
        text[:end]
        + text[begin:end].replace('"lr": 0.00001', '"lr": 0.5').replace('"lr": 1e-5', '"lr": 0.5')
        + text[end:]
    )
    assert twice.count('"lr": 0.5') == 1
    after = text.index('  "cell"')  # the second recipe behind the seeds, so that the first stands as it always does
    behind = twice[:end] + text[end:after] + twice[end : end + len(twice) - len(text)] + text[after:]
    for damaged in (twice, behind):
        store.path(name).write_text(damaged)
        read = [store.read(trial.id, trial) for trial in expand(sweep)]
        assert [type(record).__name__ for record in read] == ["Unreadable", *["Record"] * 3]
        assert [record.trial.recipe.lr for record in read[1:]] == [1e-5] * 3  # type: ignore[union-attr]


def test_a_value_of_another_kind_is_another_recipe(copied: tuple[Sweep, Store, str]) -> None:
    """1 is not on: what is equal in Python need not be the same text."""
    sweep, store, _ = copied
    first, second = expand(sweep)[:2]
    assert isinstance(store.read(first.id, first), type(store.load(first.id)))
    text = store.path(second.id).read_text()
    store.path(second.id).write_text(text.replace('"epochs": 3', '"epochs": true'))
    assert isinstance(store.read(second.id, second), Unreadable)
