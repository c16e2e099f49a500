"""Packing, retries, records and reruns; the in-process path everywhere, Ray where it is Ray that is tested."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, tzinfo
from pathlib import Path

import numpy as np
import pytest
import torch
from driving import content, descends, quiet, ray_workers

from harness.common.errors import HarnessError
from harness.config.recipe import ModelSpec
from harness.config.trials import Cell, Sweep, Trial, expand
from harness.execution import clock, driver, in_process, interrupts, packing, progress, train_pack
from harness.execution.driver import Options
from harness.execution.packing import Job
from harness.execution.pool import Done
from harness.records import early_signals, heartbeat
from harness.records import store as store_module
from harness.records.store import HEARTBEAT, Store

HERE = Options(in_process=True)
pytestmark = pytest.mark.usefixtures("cpu_only")


# -------------------------------------------------------------------------------------------------------- a sweep


def test_a_sweep_is_trained_once_recorded_and_gone_on_with(tiny_sweep: Sweep, tmp_path: Path) -> None:
    store = Store(tmp_path / "tiny")
    first = driver.run(tiny_sweep, store, HERE, quiet)
    assert (first.planned, first.finished, first.crashed, first.missing, first.trained_now) == (6, 6, 0, 0, 6)
    before = content(store)
    assert driver.run(tiny_sweep, store, HERE, quiet).trained_now == 0
    gone = expand(tiny_sweep)[3].id
    store.path(gone).unlink()
    store.path(expand(tiny_sweep)[4].id).write_text('{"schema_version": 1, "id"')  # cut short
    assert driver.run(tiny_sweep, store, HERE, quiet).trained_now == 2
    assert content(store) == before
    assert len(list(store.trials.glob("*.unreadable"))) == 1


def test_a_pack_of_one_and_packs_of_many_give_the_same_records(tiny_sweep: Sweep, tmp_path: Path) -> None:
    one, many = Store(tmp_path / "one"), Store(tmp_path / "many")
    driver.run(tiny_sweep, one, replace(HERE, pack=1), quiet)
    driver.run(tiny_sweep, many, replace(HERE, pack=6), quiet)
    assert content(one) == content(many)


def test_a_trial_that_raises_is_crashed_and_the_others_finish(
    tiny_sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = train_pack.train_pack
    bad = expand(tiny_sweep)[2].id

    def fails(sweep: str, profile: str, trials: list[Trial], *rest: object) -> list[train_pack.Result]:
        if any(t.id == bad for t in trials):
            raise RuntimeError("CUDA out of memory")
        return real(sweep, profile, trials, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(in_process, "train_pack", fails)
    store = Store(tmp_path / "tiny")
    shown: list[str] = []
    ended = driver.run(tiny_sweep, store, replace(HERE, pack=6), lambda p: shown.extend(p.messages))
    assert (ended.finished, ended.crashed, ended.missing) == (5, 1, 0)
    record = store.load(bad)
    assert record is not None
    assert record.status == "crashed"
    assert record.measured is None
    assert record.error is not None
    assert "CUDA out of memory" in record.error
    assert f"{bad} crashed: RuntimeError: CUDA out of memory" in shown
    # It stays crashed until a person asks, and the old record is kept beside the new one.
    monkeypatch.setattr(in_process, "train_pack", real)
    assert driver.run(tiny_sweep, store, HERE, quiet).crashed == 1
    ended = driver.run(tiny_sweep, store, replace(HERE, retry_crashed=True), quiet)
    assert (ended.finished, ended.crashed, ended.trained_now) == (6, 0, 1)
    record = store.load(bad)
    assert record is not None
    assert record.attempts == 2
    assert store.path(f"{bad}.attempt1").exists()


def test_what_is_wrong_is_said_before_anything_is_trained(
    tiny_sweep: Sweep, tmp_path: Path, trial: Callable[..., Trial]
) -> None:
    def one(**fields: object) -> Sweep:
        cell = Cell(axes=(), recipe=trial(**fields).recipe)
        return tiny_sweep.model_copy(update={"cells": (cell,)})

    store = Store(tmp_path / "tiny")
    with pytest.raises(HarnessError, match=r"at most the number of training examples, 60 \(got 61\)"):
        driver.run(one(batch_size=61), store, HERE, quiet)
    gone = one().cells[0].recipe.model.model_copy(update={"folder": "/no/such"})
    with pytest.raises(HarnessError, match=r"it has no config\.json"):
        driver.run(one(model=gone), store, HERE, quiet)
    assert not list(store.folder.glob("trials/*"))
    driver.run(tiny_sweep, store, HERE, quiet)
    edited = tiny_sweep.model_copy(update={"cells": tiny_sweep.cells[:1]})
    with pytest.raises(HarnessError, match=r"the edited sweep has no lr 0\.01, which trained trials"):
        driver.run(edited, store, HERE, quiet)
    smaller = tuple(
        cell.model_copy(update={"recipe": cell.recipe.model_copy(update={"batch_size": 4})})
        for cell in tiny_sweep.cells
    )
    with pytest.raises(HarnessError, match="the edited sweep has no batch_size 8"):
        driver.run(tiny_sweep.model_copy(update={"cells": smaller}), store, HERE, quiet)


def test_other_data_under_the_same_name_are_refused(
    tiny_sweep: Sweep, tmp_path: Path, trial: Callable[..., Trial]
) -> None:
    store = Store(tmp_path / "tiny")
    driver.run(tiny_sweep.model_copy(update={"seeds": tiny_sweep.seeds[:1]}), store, HERE, quiet)
    task = tiny_sweep.cells[0].recipe.task
    assert task.files is not None
    swapped = task.files.model_copy(update={"train": task.files.validation, "validation": task.files.train})
    other = task.model_copy(update={"files": swapped})
    cells = tuple(
        cell.model_copy(update={"recipe": cell.recipe.model_copy(update={"task": other})}) for cell in tiny_sweep.cells
    )
    with pytest.raises(HarnessError, match="are not those that"):
        driver.run(tiny_sweep.model_copy(update={"cells": cells}), store, HERE, quiet)


def test_a_model_that_can_not_compute_in_bf16_is_refused_before_training(
    tiny_sweep: Sweep, tmp_path: Path, trial: Callable[..., Trial], build: Callable[..., Path]
) -> None:
    model = ModelSpec(name="tiny-deberta", folder=str(build("deberta")))
    sweeps = []
    for precision in ("float32", "bf16"):
        recipe = trial(model=model, precision=precision, epochs=1).recipe
        sweeps.append(tiny_sweep.model_copy(update={"cells": (Cell(axes=(), recipe=recipe),)}))
    with pytest.raises(
        HarnessError, match=r"tiny-deberta \(DeBERTa's first version\) cannot be trained with precision: bf16"
    ):
        driver.run(sweeps[1], Store(tmp_path / "bf16"), HERE, quiet)
    assert driver.run(sweeps[0], Store(tmp_path / "float32"), HERE, quiet).finished == 3


def test_a_sweep_killed_anywhere_goes_on_to_the_same_records(tiny_sweep: Sweep, tmp_path: Path) -> None:
    """SIGKILL at several moments of one sweep; what is then trained to the end equals an undisturbed run."""
    whole, broken = Store(tmp_path / "whole"), Store(tmp_path / "broken")
    driver.run(tiny_sweep, whole, replace(HERE, pack=1), quiet)
    (tmp_path / "sweep.json").write_text(tiny_sweep.model_dump_json())
    code = """
import os, signal, sys, time
from pathlib import Path
from harness.config.trials import Sweep
from harness.execution import driver
from harness.records.store import Store
from harness.training.imports import import_everything

import_everything()
sweep, store = Sweep.model_validate_json(Path(sys.argv[1]).read_text()), Store(Path(sys.argv[2]))
for records in (1, 3, 4):
    child = os.fork()
    if not child:
        driver.run(sweep, store, driver.Options(in_process=True, pack=1), lambda progress: None)
        os._exit(0)
    while len(list(store.trials.glob("*.json"))) < records:
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
"""
    words = [sys.executable, "-c", code, str(tmp_path / "sweep.json"), str(broken.folder)]
    subprocess.run(words, check=True, timeout=200)
    assert 4 <= len(content(broken)) <= 6
    driver.run(tiny_sweep, broken, HERE, quiet)
    assert content(broken) == content(whole)


# ------------------------------------------------------------------------------------------------- a part of a sweep


def seeds_of(sweep: Sweep, store: Store) -> list[list[int]]:
    """The seeds that are recorded, cell by cell."""
    kept = {path.stem for path in store.trials.glob("*.json")}
    cells = range(len(sweep.cells))
    return [[one.seeds.seed for one in expand(sweep) if one.cell == cell and one.id in kept] for cell in cells]


def test_what_is_named_is_trained_and_the_rest_stays_missing(tiny_sweep: Sweep, tmp_path: Path) -> None:
    whole, store = Store(tmp_path / "whole"), Store(tmp_path / "part")
    driver.run(tiny_sweep, whole, HERE, quiet)
    ended = driver.run(tiny_sweep, store, replace(HERE, only=("lr=1e-2", "order_seed=2")), quiet)
    assert (ended.planned, ended.finished, ended.missing, ended.left, ended.trained_now) == (6, 1, 5, 0, 1)
    assert seeds_of(tiny_sweep, store) == [[], [2]]
    ended = driver.run(tiny_sweep, store, replace(HERE, only=("lr=1e-2",)), quiet)
    assert (ended.missing, ended.left, ended.trained_now) == (3, 0, 2)
    ended = driver.run(tiny_sweep, store, replace(HERE, only=("lr=1e-2",)), quiet)
    assert (ended.missing, ended.left, ended.trained_now) == (3, 0, 0)
    assert content(store).items() < content(whole).items()
    for only, words in (
        (("lr=3",), r"--only lr=3 matches no trial of the plan.* lr 1e-3, 0\.01; seed 1 to 3. `harness"),
        (("seed=1", "seed=2"), "--only names seed twice"),
        (("lr",), "--only lr is not of the form KEY=VALUE"),
        (("rate=3",), "unknown key 'rate' in --only"),
        (("lr=[",), "the value of --only lr, line 1: not valid YAML"),
    ):
        with pytest.raises(HarnessError, match=words):
            driver.run(tiny_sweep, Store(tmp_path / "none"), replace(HERE, only=only), quiet)
    assert not (tmp_path / "none").exists()
    driver.run(tiny_sweep, store, HERE, quiet)
    assert content(store) == content(whole)


def test_at_most_so_many_are_trained_seed_by_seed_over_the_cells(tiny_sweep: Sweep, tmp_path: Path) -> None:
    whole, store = Store(tmp_path / "whole"), Store(tmp_path / "part")
    driver.run(tiny_sweep, whole, HERE, quiet)
    found = []
    for _ in range(3):
        ended = driver.run(tiny_sweep, store, replace(HERE, max_trials=2, pack=8), quiet)
        found.append((ended.missing, ended.left, ended.trained_now, seeds_of(tiny_sweep, store)))
    assert found == [(4, 0, 2, [[1], [1]]), (2, 0, 2, [[1, 2], [1, 2]]), (0, 0, 2, [[1, 2, 3], [1, 2, 3]])]
    assert content(store) == content(whole)
    store.path(expand(tiny_sweep)[0].id).unlink()  # the first cell lacks a seed, and both lack the third
    for trial in expand(tiny_sweep)[2::3]:
        store.path(trial.id).unlink()
    driver.run(tiny_sweep, store, replace(HERE, max_trials=2, only=("seed=3",)), quiet)
    assert seeds_of(tiny_sweep, store) == [[2, 3], [1, 2, 3]]


class Hours:
    """Packs that take ten hours of a clock that only they move, and know no step but the last."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.calls, self.real = 0.0, 0, train_pack.train_pack
        monkeypatch.setattr(clock, "now", self.monotonic)
        monkeypatch.setattr(in_process, "train_pack", self)

    def monotonic(self) -> float:
        return self.now

    def __call__(
        self,
        sweep: str,
        profile: str,
        trials: list[Trial],
        place: train_pack.WorkerSetup,
        progress: Callable[[int, int], None],
        *rest: object,
    ) -> list[train_pack.Result]:
        self.calls += 1
        results = self.real(sweep, profile, trials, place, None)
        self.now += 36_000
        progress(1, 1)
        return results


@pytest.mark.parametrize(
    ("hours", "finished", "calls", "said"),
    [
        (5, 0, 1, "6 trials missing, 2 of them in training: no state could be kept"),
        (15, 2, 1, "4 trials missing"),  # the second pack would end after 20
        (25, 4, 2, "2 trials missing"),
        (31, 6, 3, None),
    ],
)
def test_no_pack_goes_beyond_the_time_limit(
    tiny_sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    hours: float, finished: int, calls: int, said: str | None,
) -> None:  # fmt: skip
    clock, store, shown = Hours(monkeypatch), Store(tmp_path / "tiny"), []

    def show(progress: driver.Progress) -> None:
        shown.extend(progress.messages)
        progress.messages.clear()

    ended = driver.run(tiny_sweep, store, replace(HERE, pack=2, time_limit=hours * 3600), show)
    assert (ended.finished, ended.left, ended.trained_now) == (finished, 6 - finished, finished)
    wanted = [f"the time limit leaves {said}; re-run the same command to train them"] if said else []
    assert (clock.calls, shown) == (calls, wanted)
    assert not (store.folder / HEARTBEAT).exists()
    monkeypatch.undo()
    assert driver.run(tiny_sweep, store, HERE, quiet).trained_now == 6 - finished


# ------------------------------------------------------------------------------------------------ what goes wrong


def test_an_error_is_found_once_and_never_trained_again(
    tiny_sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Halves find the trial that raises; no pack is tried a second time, in this sweep or the next."""
    real, tried, bad = train_pack.train_pack, [], expand(tiny_sweep)[4].id

    def wrong(sweep: str, profile: str, trials: list[Trial], *rest: object) -> list[train_pack.Result]:
        tried.append(tuple(one.id for one in trials))
        if bad in tried[-1]:
            raise ValueError("label in row 17 is wrong")
        return real(sweep, profile, trials, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(in_process, "train_pack", wrong)
    store = Store(tmp_path / "tiny")
    assert driver.run(tiny_sweep, store, replace(HERE, pack=6), quiet).left == 1
    assert len(tried) == len(set(tried))
    assert tried.count((bad,)) == 1
    before = len(tried)
    ended = driver.run(tiny_sweep, store, replace(HERE, pack=6), quiet)
    assert (ended.crashed, ended.left, ended.trained_now, len(tried)) == (1, 1, 0, before)
    for attempt in (2, 3):
        ended = driver.run(tiny_sweep, store, replace(HERE, retry_crashed=True), quiet)
        record = store.load(bad)
        assert record is not None
        assert (ended.crashed, ended.trained_now, record.attempts, len(tried)) == (1, 1, attempt, before + attempt - 1)
    only = driver.run(tiny_sweep, store, replace(HERE, only=("lr=1e-3",)), quiet)
    assert (only.crashed, only.left) == (1, 0)  # it crashed in the other cell


def test_a_clock_that_jumps_changes_no_result(
    tiny_sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steady, jumping = Store(tmp_path / "steady"), Store(tmp_path / "jumping")
    driver.run(tiny_sweep, steady, HERE, quiet)
    calls = 0

    class Jumps(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Jumps":
            nonlocal calls
            calls += 1
            return cls.fromtimestamp(1e9 + 86_400 * (-1) ** calls, tz)

    for module in (clock, train_pack, store_module):
        monkeypatch.setattr(module, "datetime", Jumps)
    monkeypatch.setattr(time, "time", lambda: Jumps.now(UTC).timestamp())
    monkeypatch.setattr(progress, "HEARTBEAT_SECONDS", 0.0)
    left = []
    ended = driver.run(tiny_sweep, jumping, replace(HERE, pack=2), lambda p: left.append(p.seconds_left or 0.0))
    assert calls > 4
    assert (ended.finished, min(left) >= 0, max(left) < 600) == (6, True, True)
    assert content(jumping) == content(steady)
    for trial in expand(tiny_sweep):
        one, other = jumping.load(trial.id), steady.load(trial.id)
        assert one is not None
        assert other is not None
        assert one.measured is not None
        assert one.measured.lane_seconds >= 0
        # A later pack may be the one from which on recording a step pays.
        timed = {"wall_seconds": 0.0, "lane_seconds": 0.0, "peak_memory_bytes": 0, "step_mode": None}
        places = [found.environment and found.environment.model_copy(update={"pack_size": 0}) for found in (one, other)]
        assert places[0] == places[1]
        same = [
            found.model_copy(update={
                "started_utc": "", "environment": None, "measured": found.measured.model_copy(update=timed)
            })
            for found in (one, other)
            if found.measured is not None
        ]  # fmt: skip
        assert same[0] == same[1]


def test_a_sweep_of_another_machine_is_seen_where_its_lock_is_not(
    tiny_sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its sign of life, which changes; one that stays as it is, is of a machine that went down."""
    monkeypatch.setattr(progress, "HEARTBEAT_SECONDS", 0.2)
    store = Store(tmp_path / "tiny")
    store.folder.mkdir()
    beat = store.folder / HEARTBEAT
    beat.write_text('{"host": "elsewhere", "updated_utc": "2025-01-01T00:00:00Z"}')
    alive = threading.Timer(
        0.15, lambda: beat.write_text('{"host": "elsewhere", "updated_utc": "2025-01-01T00:00:05Z"}')
    )
    alive.start()
    with pytest.raises(HarnessError, match="is in use by a sweep on elsewhere"):
        driver.run(tiny_sweep, store, HERE, quiet)
    alive.join()
    assert beat.exists()
    assert driver.run(tiny_sweep, store, HERE, quiet).finished == 6
    assert not beat.exists()


def test_a_pack_too_large_for_the_memory_is_found_out_once(
    tiny_sweep: Sweep, tmp_path: Path, trial: Callable[..., Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tried = train_pack.train_pack, []

    def small(sweep: str, profile: str, trials: list[Trial], *rest: object) -> list[train_pack.Result]:
        tried.append(len(trials))
        if len(trials) > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return real(sweep, profile, trials, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(in_process, "train_pack", small)
    monkeypatch.setattr(packing, "CLOSE", float("inf"))  # packs as large as asked for
    many = tiny_sweep.model_copy(update={"seeds": tuple(trial(seed).seeds for seed in range(20))})
    ended = driver.run(many, Store(tmp_path / "tiny"), replace(HERE, pack=16), quiet)
    assert (ended.finished, ended.crashed) == (40, 0)
    assert [lanes for lanes in tried if lanes > 3] == [16, 8, 4]
    assert Done(Job(()), [], error="RuntimeError: CUDA error: out of memory\nCompile with …").out_of_memory
    assert not Done(Job(()), [], error="ValueError: out of range").out_of_memory


def test_ctrl_c_lets_the_running_pack_end_and_a_second_leaves_now(tiny_sweep: Sweep, tmp_path: Path) -> None:
    whole, store = Store(tmp_path / "whole"), Store(tmp_path / "broken")
    driver.run(tiny_sweep, whole, HERE, quiet)
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    said: list[str] = []

    def press(times: int, number: int = signal.SIGINT) -> Callable[[driver.Progress], None]:
        def show(progress: driver.Progress) -> None:
            nonlocal times
            said.extend(progress.messages)
            while progress.lanes and times:
                times -= 1
                os.kill(os.getpid(), number)

        return show

    with pytest.raises(KeyboardInterrupt):
        driver.run(tiny_sweep, store, replace(HERE, pack=2), press(2))
    assert not list(store.trials.glob("*.json"))
    with pytest.raises(interrupts.Terminated):
        driver.run(tiny_sweep, store, replace(HERE, pack=2, notice=0), press(1, signal.SIGTERM))
    assert not list(store.trials.glob("*.json"))
    with pytest.raises(KeyboardInterrupt) as stopped:
        driver.run(tiny_sweep, store, replace(HERE, pack=2), press(1))
    assert stopped.type is KeyboardInterrupt
    assert "stopping after the 2 trials that are training; Ctrl-C again leaves now" in said
    assert len(list(store.trials.glob("*.json"))) == 2
    with pytest.raises(interrupts.Terminated):
        driver.run(tiny_sweep, store, replace(HERE, pack=2), press(1, signal.SIGTERM))
    assert len(list(store.trials.glob("*.json"))) == 4
    assert handlers == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    assert not (store.folder / HEARTBEAT).exists()
    driver.run(tiny_sweep, store, HERE, quiet)
    assert content(store) == content(whole)


def test_what_trains_now_can_be_read_from_outside(
    tiny_sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "HEARTBEAT_SECONDS", 0.0)
    store, seen = Store(tmp_path / "tiny"), []

    def look(progress: driver.Progress) -> None:
        with suppress(FileNotFoundError):
            seen.append(json.loads((store.folder / HEARTBEAT).read_text()))

    driver.run(tiny_sweep, store, replace(HERE, pack=2), look)
    assert not (store.folder / HEARTBEAT).exists()
    state = seen[0]
    assert (state["schema_version"], state["pid"], state["device"], state["workers"]) == (1, os.getpid(), "cpu", 1)
    assert set(state) == {
        "schema_version", "pid", "host", "started_utc", "updated_utc", "device", "workers", "seconds_left", "packs"
    }  # fmt: skip
    (pack,) = state["packs"]
    assert set(pack) == {"trials", "share", "seconds", "deaths", "signals", "output", "score"}
    assert set(pack["trials"]) <= {one.id for one in expand(tiny_sweep)}
    assert len(pack["trials"]) == 2


def test_what_is_said_of_a_lane_is_what_its_record_gives(
    tiny_sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter(range(10**6))
    monkeypatch.setattr(clock, "now", lambda: float(next(ticks)))
    store, told = Store(tmp_path / "tiny"), {}

    def look(progress: driver.Progress) -> None:
        with suppress(FileNotFoundError):
            for pack in json.loads((store.folder / HEARTBEAT).read_text())["packs"]:
                told.update(zip(pack["trials"], pack["signals"], strict=False))

    driver.run(tiny_sweep, store, HERE, look)
    assert told.keys() == {one.id for one in expand(tiny_sweep)}
    for trial, lane in told.items():
        curves = store.arrays(trial)
        assert curves is not None
        wanted = early_signals.signals(curves.train_loss, 8, curves.eval_step, curves.recording)
        assert len(lane) >= 30  # of 40 shares: at the sixth of eight updates or later
        np.testing.assert_array_equal(heartbeat.read(lane)[: len(lane)], wanted[: len(lane)])


def test_a_heartbeat_that_cannot_be_written_stops_nothing(
    tiny_sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, value: Mapping[str, object]) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(progress, "write_json", full)
    assert driver.run(tiny_sweep, Store(tmp_path / "tiny"), HERE, quiet).finished == 6


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(
    tiny_sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, store = Store(tmp_path / "whole"), Store(tmp_path / "broken")
    driver.run(tiny_sweep, whole, HERE, quiet)
    real = os.fsync

    def full(number: int) -> None:
        if len(list(store.trials.glob("*.json"))) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(number)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(HarnessError, match=r"trials/.*\.json: no space left on device") as error:
            driver.run(tiny_sweep, store, replace(HERE, pack=2), quiet)
        assert "\n" not in str(error.value)
    kept = content(store)
    assert len(kept) == 3
    assert not list(store.trials.glob(".*"))
    driver.run(tiny_sweep, store, HERE, quiet)
    assert content(store) == content(whole)


# ------------------------------------------------------------------------------------------------------------- Ray


def test_ray_trains_the_same_and_outlives_a_killed_worker(tiny_sweep: Sweep, tmp_path: Path) -> None:
    alone, rayed = Store(tmp_path / "alone"), Store(tmp_path / "rayed")
    driver.run(tiny_sweep, alone, HERE, quiet)
    killed: list[int] = []
    heard: set[str] = set()

    def kill_one(progress: driver.Progress) -> None:
        """The first time that workers train, kill one of them."""
        if progress.lanes and not killed:
            heard.update(listening())
            killed.extend(ray_workers()[:1])
            for process in killed:
                os.kill(process, signal.SIGKILL)

    ended = driver.run(tiny_sweep, rayed, Options(workers=1, pack=3), kill_one)
    assert killed
    assert (ended.finished, ended.crashed, ended.missing) == (6, 0, 0)
    assert content(rayed) == content(alone)
    assert heard <= {"0100007F", "0000000000000000FFFF00000100007F"}  # 127.0.0.1, as IPv4 and within IPv6
    assert heard


def listening() -> set[str]:
    """The addresses, as the kernel writes them, at which processes of this one's family take connections."""
    sockets = {}
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A":
                sockets[f"socket:[{words[9]}]"] = words[1].partition(":")[0]
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            links = [os.readlink(link) for link in (folder / "fd").iterdir()]
            if descends(int(folder.name), os.getpid()):
                found.update(sockets[link] for link in links if link in sockets)
    return found


def test_workers_that_the_machine_lacks_are_refused(tiny_sweep: Sweep, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="cannot run 9 workers on 2 cores at 1 thread a worker: at most 2"):
        driver.run(tiny_sweep, Store(tmp_path / "x"), Options(workers=9), quiet)


def test_the_pack_is_as_asked_for_or_as_measured(
    tiny_sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int, float]] = []

    def lanes(pool: in_process.InProcess, trial: Trial, usual: int, most: int, epochs: float) -> int:
        asked.append((usual, most, epochs))
        return 2

    monkeypatch.setattr(in_process.InProcess, "lanes", lanes)
    driver.run(tiny_sweep, Store(tmp_path / "measured"), HERE, quiet)
    driver.run(tiny_sweep, Store(tmp_path / "asked"), replace(HERE, pack=5), quiet)
    assert asked == [(8, 6, 6.0)]  # six trials of one epoch
    found = [Store(tmp_path / name).records(tiny_sweep).values() for name in ("measured", "asked")]
    sizes = [{record.environment.pack_size for record in records if record.environment} for records in found]
    assert sizes == [{2}, {5, 1}]
