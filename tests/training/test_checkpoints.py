"""Checkpoints: a run cut anywhere goes on to the same bits, and nothing but its own pack goes on from one."""

import errno
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from cut_runs import HERE, CutError, cut, same
from driving import content, quiet, same_arrays
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from training_runs import begin

from harness.common.errors import HarnessError
from harness.config.trials import Sweep, Trial, expand
from harness.execution import clock, driver, train_pack
from harness.execution.driver import Options
from harness.execution.rerun import rerun
from harness.execution.train_pack import WorkerSetup
from harness.records.record import Environment
from harness.records.store import Store
from harness.training import checkpoints, loop
from harness.training.checkpoints import Checkpoint, Checkpoints
from harness.training.loop import update
from harness.training.outcome import LaneResult
from harness.training.run import TrainingRun

Make = Callable[..., Trial]
STEPS = 16  # two epochs of eight updates
pytestmark = pytest.mark.usefixtures("cpu_only")


@pytest.fixture
def updates(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps that are trained, as they are."""
    found: list[int] = []
    real = loop.update

    def counted(run: TrainingRun, step: int) -> None:
        found.append(step)
        real(run, step)

    monkeypatch.setattr(loop, "update", counted)
    return found


# ------------------------------------------------------------------------------------------------- the same bits


def test_a_run_cut_at_any_updates_goes_on_to_the_same_bits(trial: Make, tmp_path: Path, updates: list[int]) -> None:
    """Lanes of every kind, one of which diverges; the last of an epoch, of the run, before and after evaluations."""
    changes: list[dict[str, object]] = [
        {}, {"dropout": 0.0}, {"dropout": 0.5, "lr": 1e-2}, {"bias_correction": False, "weight_decay": 0.1},
        {"max_grad_norm": None, "warmup_ratio": 0.5}, {"lr": 1e30}, {"lr": 5e-3, "dropout": 0.0, "beta2": 0.9},
    ]  # fmt: skip

    @cache
    def whole(lanes: tuple[int, ...], padding: str, every: int | None) -> tuple[list[Trial], list[LaneResult]]:
        trials = [trial(lane, padding=padding, eval_steps=every, **changes[lane]) for lane in lanes]
        return trials, loop.train(trials)

    lanes = st.lists(st.integers(0, len(changes) - 1), min_size=1, max_size=4, unique=True)
    cuts = st.lists(st.integers(1, STEPS), min_size=1, max_size=3, unique=True)

    @settings(max_examples=12, suppress_health_check=list(HealthCheck))
    @given(lanes, st.sampled_from(["dataset", "batch"]), st.sampled_from([None, 3]), cuts)
    def check(lanes: list[int], padding: str, every: int | None, cuts: list[int]) -> None:
        trials, wanted = whole(tuple(lanes), padding, every)
        updates.clear()
        for at in sorted(cuts):
            with pytest.raises(CutError):
                loop.train(trials, callbacks=[cut(at)], checkpoint=Checkpoints(tmp_path, 0).of(trials, HERE))
        found = loop.train(trials, checkpoint=Checkpoints(tmp_path, math.inf).of(trials, HERE))
        assert same(found, wanted)
        assert updates == list(range(STEPS))  # each once
        Checkpoints(tmp_path, 0).remove(trials)

    check()


@pytest.mark.parametrize("padding", ["dataset", "batch"])
def test_a_run_cut_after_each_update_gives_the_same_bits(trial: Make, tmp_path: Path, padding: str) -> None:
    trials = [trial(1, padding=padding, eval_steps=3), trial(2, padding=padding, eval_steps=3, dropout=0.5)]
    wanted = loop.train(trials)
    for at in range(1, STEPS + 1):
        with pytest.raises(CutError):
            loop.train(trials, callbacks=[cut(at)], checkpoint=Checkpoints(tmp_path, 0).of(trials, HERE))
    assert same(loop.train(trials, checkpoint=Checkpoints(tmp_path, 0).of(trials, HERE)), wanted)


def test_all_the_time_trained_is_counted_once(trial: Make, tmp_path: Path) -> None:
    trials = [trial(1)]
    own = Checkpoints(tmp_path, math.inf).of(trials, HERE)
    run = begin(trials)
    assert own.read(run.made_of_sha256()) is None
    update(run, 0)
    own.write(run.state(), 1000.0)
    started = time.monotonic()
    found = loop.train(trials, checkpoint=own)[0].measured
    assert 1000 < found.wall_seconds < 1000 + time.monotonic() - started
    assert found.lane_seconds == found.wall_seconds


def test_a_state_is_written_when_its_minutes_are_over(
    trial: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that moves a minute an update, and two while a state is written."""
    now, written = 0.0, []

    def minute(run: TrainingRun) -> None:
        nonlocal now
        now += 60

    def write(state: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
        nonlocal now
        now += 120
        written.append(len(state["losses"]))
        save_file(state, path, metadata)

    monkeypatch.setattr("harness.training.checkpoints.time.monotonic", lambda: now)
    monkeypatch.setattr("safetensors.torch.save_file", write)
    loop.train([trial(1)], callbacks=[minute], checkpoint=Checkpoints(tmp_path, 5).of([trial(1)], HERE))
    assert written == [6, 11, 16]
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]


# --------------------------------------------------------------------------------------------- whose it is, or not


@pytest.fixture
def kept(trial: Make, tmp_path: Path) -> tuple[list[Trial], Path]:
    """A pack and its checkpoint after five updates."""
    trials = [trial(1, lr=5e-3), trial(2)]
    with pytest.raises(CutError):
        loop.train(trials, callbacks=[cut(5)], checkpoint=Checkpoints(tmp_path, 0).of(trials, HERE))
    (path,) = tmp_path.iterdir()
    return trials, path


def test_nothing_but_the_same_pack_in_the_same_surroundings_goes_on(
    kept: tuple[list[Trial], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    trials, path = kept
    whole, made_of = path.read_bytes(), begin(trials).made_of_sha256()

    def read(trials: list[Trial], environment: Environment = HERE, made_of: str = made_of) -> bool:
        ids = tuple(one.id for one in trials)
        return Checkpoint(path, 0, ids, environment, passing=False).read(made_of) is not None

    assert read(trials)
    assert path.read_bytes() == whole
    others = [
        {"device": "cuda"}, {"device_name": "another"}, {"threads": 2}, {"torch": "2.0"}, {"transformers": "5.0"},
        {"python": "3.0"}, {"commit": "0123"}, {"pack_size": 3}, {"kernels": "AVX2"},
    ]  # fmt: skip
    refused: list[Callable[[], bool]] = [
        lambda: read(trials[::-1]), lambda: read(trials[:1]), lambda: read(trials, made_of="0"),
        *(lambda other=other: read(trials, HERE.model_copy(update=other)) for other in others),
    ]  # fmt: skip
    for refuses in refused:
        path.write_bytes(whole)
        assert not refuses()
        assert not path.exists()
    path.write_bytes(whole)
    monkeypatch.setattr(checkpoints, "_code", lambda: "edited")
    assert not read(trials)


def test_what_a_run_is_made_of_is_told_by_tokens_and_settings(trial: Make) -> None:
    run = begin([trial(1)])
    own = run.made_of_sha256()
    assert own == begin([trial(2)]).made_of_sha256()
    assert own != begin([trial(1)], record=False).made_of_sha256()  # lacks its arrays
    run.pack.task.train.input_ids[0, 1] += 1  # as another vocabulary would
    assert run.made_of_sha256() != own
    run.pack.task.train.input_ids[0, 1] -= 1
    run.lanes.module.config.layer_norm_eps *= 2
    assert run.made_of_sha256() != own
    run.lanes.module.config.layer_norm_eps /= 2
    assert run.made_of_sha256() == own


def test_a_file_that_is_damaged_or_foreign_is_ignored_and_removed(
    kept: tuple[list[Trial], Path], updates: list[int]
) -> None:
    trials, path = kept
    whole = path.read_bytes()
    draw = np.random.default_rng(1)

    def flipped(place: int) -> bytes:
        return whole[:place] + bytes([whole[place] ^ (1 << int(draw.integers(8)))]) + whole[place + 1 :]

    start = 8 + int.from_bytes(whole[:8], "little")
    damaged = [b"", b"\0" * len(whole), whole + b"\0", b"\x80\x04N."]
    damaged += [whole[:place] for place in (7, 8, 100, start, start + 1, len(whole) - 1)]
    # In the file's head, digits of the seconds among it, and in the values.
    damaged += [flipped(int(place)) for place in (*draw.integers(0, start, 80), *draw.integers(start, len(whole), 80))]
    own = Checkpoints(path.parent, math.inf).of(trials, HERE)
    made_of = begin(trials).made_of_sha256()
    for bad in damaged:
        path.write_bytes(bad)
        assert own.read(made_of) is None
        assert not path.exists()
    save_file({"weights": torch.zeros(3)}, path)  # a file of somebody else
    assert own.read(made_of) is None
    save_file(load_file_of(whole, path), path, {"harness": "{}"})
    assert own.read(made_of) is None
    path.write_bytes(whole[: len(whole) // 2])
    assert same(loop.train(trials, checkpoint=own), loop.train(trials))
    assert updates == [*range(STEPS), *range(STEPS)]  # both from the start
    path.write_bytes(whole)
    assert own.read(made_of) is not None


def load_file_of(whole: bytes, path: Path) -> dict[str, torch.Tensor]:
    path.write_bytes(whole)
    return {name: value.clone() for name, value in load_file(path).items()}


@pytest.mark.parametrize("where", ["save_file", "fsync"])
def test_a_full_disk_stops_no_training_and_spoils_no_checkpoint(
    kept: tuple[list[Trial], Path], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    trials, path = kept
    whole, tried = path.read_bytes(), []

    def full(*given: object) -> None:
        tried.append(given)
        if where == "fsync":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        Path(str(given[1])).write_bytes(whole[:100])
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(*(("safetensors.torch.save_file", full) if where == "save_file" else (os, "fsync", full)))
    found = loop.train(trials, checkpoint=Checkpoints(path.parent, 0).of(trials, HERE))
    assert len(tried) == STEPS - 5
    assert same(found, loop.train(trials))
    assert list(path.parent.iterdir()) == [path]
    assert path.read_bytes() == whole


# -------------------------------------------------------------------------------------------------------- a sweep


def stop_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """End the process that trains after so many updates from now."""
    real, left = loop.update, iter(range(steps))

    def limited(run: TrainingRun, step: int) -> None:
        if next(left, None) is None:
            raise CutError
        real(run, step)

    monkeypatch.setattr(loop, "update", limited)


def broken(sweep: Sweep, store: Store, pack: int, steps: int) -> None:
    """Train a sweep in packs of that size, of eight updates each, and stop after so many."""
    with pytest.MonkeyPatch.context() as patch:
        stop_after(steps, patch)
        with pytest.raises(CutError):
            driver.run(sweep, store, Options(in_process=True, pack=pack, checkpoint_minutes=0), quiet)


@pytest.mark.parametrize("minutes", [0, None])
def test_a_sweep_goes_on_with_its_packs_as_they_were(
    tiny_sweep: Sweep, tmp_path: Path, updates: list[int], monkeypatch: pytest.MonkeyPatch, minutes: float | None
) -> None:
    """Also without the option, which says how often to write."""
    whole, store = Store(tmp_path / "whole"), Store(tmp_path / "broken")
    driver.run(tiny_sweep, whole, Options(in_process=True), quiet)
    assert not (whole.folder / "checkpoints").exists()
    broken(tiny_sweep, store, pack=4, steps=5)
    (path,) = (store.folder / "checkpoints").iterdir()
    (path.parent / f".{path.name}.1.tmp").write_bytes(b"cut short")
    (path.parent / "notes.txt").write_text("nobody's")
    updates.clear()
    written: list[object] = []
    monkeypatch.setattr("safetensors.torch.save_file", lambda *given: written.append(save_file(*given)))
    said: list[set[Path]] = []
    options = Options(in_process=True, pack=1, checkpoint_minutes=minutes)
    ended = driver.run(tiny_sweep, store, options, lambda p: said.append(set(path.parent.iterdir())))
    assert (ended.finished, ended.trained_now) == (6, 6)
    assert updates == [*range(5, 8), *range(8), *range(8)]  # the pack of four, then the two others alone
    notes = path.parent / "notes.txt"  # somebody's, which is left alone
    assert {path, notes} in said  # once training begins
    assert len(written) == (0 if minutes is None else 3 + 8 + 8)
    assert content(store) == content(whole)
    assert [*path.parent.iterdir()] == [notes]


class ByUpdates:
    """A clock that each update moves on by a second."""

    def __init__(self, updates: list[int]) -> None:
        self.updates = updates

    def monotonic(self) -> float:
        return float(len(self.updates))


def test_the_time_limit_keeps_the_state_of_what_trains_for_a_later_run(
    tiny_sweep: Sweep, tmp_path: Path, updates: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --checkpoint-minutes; a pack at its last update ends instead."""
    whole, store = Store(tmp_path / "whole"), Store(tmp_path / "limited")
    driver.run(tiny_sweep, whole, Options(in_process=True), quiet)
    limited = Options(in_process=True, pack=3, time_limit=5)
    said: list[str] = []

    def show(progress: driver.Progress) -> None:
        said.extend(progress.messages)
        progress.messages.clear()

    updates.clear()
    monkeypatch.setattr(clock, "now", ByUpdates(updates).monotonic)
    ended = driver.run(tiny_sweep, store, limited, show)
    assert (ended.finished, ended.crashed, updates) == (0, 0, list(range(5)))
    assert said == [
        "the time limit leaves 6 trials missing, 3 of them in training: their state is kept; "
        "re-run the same command to train them"
    ]
    assert len(list((store.folder / "checkpoints").iterdir())) == 1
    updates.clear()
    ended = driver.run(tiny_sweep, store, replace(limited, time_limit=8), show)
    assert (ended.finished, updates) == (3, [*range(5, 8), *range(5)])
    updates.clear()
    monkeypatch.undo()
    assert driver.run(tiny_sweep, store, Options(in_process=True), quiet).trained_now == 3
    assert content(store) == content(whole)
    assert not (store.folder / "checkpoints").exists()


def test_a_state_that_cannot_be_kept_is_said_at_the_time_limit(
    tiny_sweep: Sweep, tmp_path: Path, updates: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("safetensors.torch.save_file", full)
    monkeypatch.setattr(clock, "now", ByUpdates(updates).monotonic)
    said: list[str] = []
    limited = Options(in_process=True, pack=3, time_limit=5)
    driver.run(tiny_sweep, Store(tmp_path / "full"), limited, lambda progress: said.extend(progress.messages))
    assert "3 of them in training: no state could be kept" in said[-1]


def test_checkpoints_that_no_missing_pack_could_use_are_removed(
    tiny_sweep: Sweep, tmp_path: Path, updates: list[int]
) -> None:
    store = Store(tmp_path / "tiny")
    broken(tiny_sweep, store, pack=4, steps=7)
    (path,) = (store.folder / "checkpoints").iterdir()
    left = path.read_bytes()
    driver.run(tiny_sweep, store, Options(in_process=True), quiet)
    before = content(store)
    gone = expand(tiny_sweep)[0].id  # one of the four
    path.parent.mkdir()
    path.write_bytes(left)
    store.path(gone).unlink()
    updates.clear()
    assert driver.run(tiny_sweep, store, Options(in_process=True), quiet).trained_now == 1
    assert updates == list(range(8))
    assert content(store) == before
    assert not path.parent.exists()
    path.parent.mkdir()
    path.write_bytes(left)
    assert driver.run(tiny_sweep, store, Options(in_process=True), quiet).trained_now == 0
    assert not path.parent.exists()


def test_packs_that_share_a_trial_do_not_both_go_on(tiny_sweep: Sweep, tmp_path: Path) -> None:
    trials, folder = expand(tiny_sweep), tmp_path / "checkpoints"
    folder.mkdir()
    packs = [trials[0:2], trials[1:4], trials[4:6]]
    for seconds, pack in zip((5.0, 9.0, 1.0), packs, strict=True):
        own = Checkpoints(folder, 0).of(pack, HERE)
        own.read("made of")
        own.write({"weights": torch.zeros(2)}, seconds)
    assert len(list(folder.iterdir())) == 3
    assert Checkpoints(folder, 0).unfinished(trials) == [tuple(packs[1]), tuple(packs[2])]
    assert len(list(folder.iterdir())) == 2
    shutil.copy(next(folder.iterdir()), folder / "renamed.safetensors")
    assert Checkpoints(folder, 0).unfinished(trials[:5]) == [tuple(packs[1])]
    assert len(list(folder.iterdir())) == 1


def test_what_is_not_asked_for_keeps_its_checkpoint(tiny_sweep: Sweep, tmp_path: Path, updates: list[int]) -> None:
    """A pack with lanes of both rates waits while `--only` trains another seed, and then goes on."""
    store = Store(tmp_path / "tiny")
    broken(tiny_sweep, store, pack=4, steps=3)
    updates.clear()
    ended = driver.run(tiny_sweep, store, Options(in_process=True, only=("seed=3",), pack=2), quiet)
    assert (ended.trained_now, updates) == (2, list(range(8)))
    assert len(list((store.folder / "checkpoints").iterdir())) == 1
    updates.clear()
    driver.run(tiny_sweep, store, Options(in_process=True), quiet)
    assert updates == list(range(3, 8))
    assert not (store.folder / "checkpoints").exists()


def test_a_pack_that_is_halved_begins_anew(
    tiny_sweep: Sweep, tmp_path: Path, updates: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too large for the memory in its third update; its checkpoint goes, and none is left at the end."""
    real = loop.update
    small, whole, seen = Store(tmp_path / "small"), Store(tmp_path / "whole"), []

    def filling(run: TrainingRun, step: int) -> None:
        if len(run.pack.recipes) > 3 and step == 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        real(run, step)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "update", filling)
        options = Options(in_process=True, pack=6, checkpoint_minutes=0)
        ended = driver.run(
            tiny_sweep, small, options, lambda p: seen.append(len(list(small.folder.glob("checkpoints/*"))))
        )
    assert ended.finished == 6
    assert updates == [0, 1, *range(8), *range(8)]
    assert max(seen) <= 1
    assert not (small.folder / "checkpoints").exists()
    driver.run(tiny_sweep, whole, Options(in_process=True), quiet)
    assert content(small) == content(whole)


def test_a_link_in_place_of_the_folder_is_refused_and_nothing_behind_it_is_touched(
    trial: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    others = tmp_path / "others"
    others.mkdir()
    (others / f"{'a' * 32}.safetensors").write_text("somebody's")
    (tmp_path / "checkpoints").symlink_to(others)
    with pytest.raises(HarnessError, match=r"is a link to .*others"):
        Checkpoints(tmp_path / "checkpoints", 0).unfinished([trial(1)])
    own = Checkpoints(tmp_path / "checkpoints", 0).of([trial(1)], HERE)
    assert own.path is not None
    assert own.path.parent.parent == tmp_path
    assert own.passing
    assert len(list(others.iterdir())) == 1


@pytest.mark.parametrize("how", ["link", "writable"])
def test_temporary_files_that_somebody_else_can_write_hold_no_checkpoint(
    trial: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / f"harness-checkpoints-{os.getuid()}"
    if how == "link":
        (tmp_path / "others").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "others")
    else:
        folder.mkdir()
        folder.chmod(0o777)
    own = Checkpoints(Path("/nowhere/results/checkpoints"), 0).of([trial(1)], HERE)
    assert own.read("made of") is None
    own.write({"weights": torch.zeros(2)}, 1.0)
    own.returned()
    assert not own.due
    assert not list(folder.iterdir())


def test_a_node_that_does_not_see_the_folder_keeps_its_own(
    trial: Make, tmp_path: Path, updates: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    place = WorkerSetup("cpu", 1, checkpoints=Checkpoints(Path("/nowhere/results/checkpoints"), 0))
    trials, seen = [trial(1), trial(2)], []

    def progress(step: int, steps: int) -> None:
        seen.append([path for path in tmp_path.glob("harness-checkpoints-*/*") if path.is_file()])
        if step == 5:
            shutil.copytree(seen[-1][0].parent, tmp_path / "kept")  # as it is when the worker is killed here

    wanted = [curves for _, curves in train_pack.train_pack("s", "p", trials, place, progress)]
    assert [len(files) for files in seen] == [1] * STEPS
    (path,) = seen[0]
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert not path.exists()
    shutil.copy(tmp_path / "kept" / path.name, path)
    updates.clear()
    found = [curves for _, curves in train_pack.train_pack("s", "p", trials, place, None)]
    assert updates == list(range(5, STEPS))
    for a, b in zip(found, wanted, strict=True):
        assert a is not None
        assert b is not None
        assert same_arrays(a.arrays, b.arrays)
    assert not path.exists()


def test_a_rerun_knows_no_checkpoints(tiny_sweep: Sweep, tmp_path: Path, updates: list[int]) -> None:
    store, one = Store(tmp_path / "tiny"), expand(tiny_sweep)[0]
    broken(tiny_sweep, store, pack=1, steps=5)
    (path,) = (store.folder / "checkpoints").iterdir()
    left = path.read_bytes()
    driver.run(tiny_sweep, store, Options(in_process=True), quiet)
    path.parent.mkdir()
    path.write_bytes(left)
    updates.clear()
    assert rerun(tiny_sweep, store, one, 1e-3).verdict == "identical"
    assert updates == list(range(8))
    assert path.read_bytes() == left


@pytest.fixture(autouse=True)
def no_leftovers(tmp_path: Path) -> Iterator[None]:
    """No half-written file outlives a test."""
    yield
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("put", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_not_waited_for_and_is_removed(tmp_path: Path, put: Callable[[Path], object]) -> None:
    path = tmp_path / f"{'0' * 32}.safetensors"
    put(path)
    assert Checkpoints(tmp_path, 1).unfinished([]) == []
    assert not os.path.lexists(path)
