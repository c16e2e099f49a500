"""What happens to sweeps on real machines; after each of it the records are an undisturbed run's, bit for bit."""

import itertools
import json
import math
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import EPOCHS, Bench, unhurried
from driving import content, ray_workers
from safetensors import safe_open

from harness.config.trials import expand
from harness.execution import driver
from harness.execution import ray_workers as cluster
from harness.execution.driver import Options
from harness.execution.pool import Running
from harness.records.store import HEARTBEAT, Store
from harness.training import loop
from harness.training.checkpoints import Checkpoints
from harness.training.run import TrainingRun

IN_PROCESS, RAY = ("--in-process", "--pack", 2), ("--workers", 2, "--pack", 2)


# ---------------------------------------------------------------------------------------------------------- killed


def test_the_driver_killed_at_twenty_moments(bench: Bench) -> None:
    """Half of the moments by the clock, from the import on; half while packs train and records are written."""
    draw = random.Random(1)
    for number in range(20):
        child = bench.start("--workers", 2, "--pack", 1)
        before = bench.kept()
        if number % 2:
            bench.until(lambda before=before: bench.kept() > before, child)  # type: ignore[misc]
            time.sleep(draw.uniform(0, 0.3))
        else:
            time.sleep(draw.uniform(0, 9))
        assert child.poll() is None, child.communicate()[0]
        child.kill()
        child.communicate()
    bench.nothing_left()
    kept = content(bench.store)
    assert 10 <= len(kept) < len(bench.undisturbed)
    assert kept.items() <= bench.undisturbed.items()
    bench.ends_as_undisturbed()


def test_workers_killed_again_and_again(bench: Bench) -> None:
    killed: list[int] = []
    messages: list[str] = []

    def kill(progress: driver.Progress) -> None:
        messages.extend(progress.messages)
        progress.messages.clear()
        alive = [one for one in ray_workers() if one not in killed]
        if progress.lanes and alive and len(killed) < 3 and progress.finished > 4 * len(killed):
            killed.append(alive[0])
            os.kill(alive[0], signal.SIGKILL)

    ended = driver.run(bench.sweep, bench.store, Options(workers=2, pack=2), kill)
    assert len(killed) == 3
    assert ended.finished == len(bench.undisturbed)
    again = [message for message in messages if "to train again: the worker died: " in message]
    assert len(again) == 3, messages
    bench.ends_as_undisturbed()


def test_a_worker_that_hangs_is_killed_and_its_pack_trained_again(bench: Bench) -> None:
    """A stopped process answers nothing and never ends, as one does that waits for a disk or a collective."""
    stopped: list[int] = []
    messages: list[str] = []

    def stop(progress: driver.Progress) -> None:
        messages.extend(progress.messages)
        progress.messages.clear()
        if progress.lanes and progress.finished and not stopped:
            stopped.extend(ray_workers()[:1])
            os.kill(stopped[0], signal.SIGSTOP)

    ended = driver.run(bench.sweep, bench.store, Options(workers=1, pack=4, hang_minutes=0.4), stop)
    assert ended.finished == len(bench.undisturbed)
    assert any(m.endswith("to train again: the worker was killed: no step for 0.4 minutes") for m in messages), messages
    assert not Path(f"/proc/{stopped[0]}").exists()
    bench.ends_as_undisturbed()


def updates(run: Callable[[], object]) -> int:
    """How many updates this process trains meanwhile."""
    real, count = loop.update, itertools.count()

    def counted(run: TrainingRun, step: int) -> None:
        next(count)
        real(run, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "update", counted)
        run()
    return next(count)


@pytest.mark.parametrize("how", [("--in-process", "--pack", 8), ("--workers", 2, "--pack", 8)], ids=["alone", "ray"])
def test_the_driver_killed_goes_on_from_its_checkpoints(bench: Bench, how: tuple[object, ...]) -> None:
    """Killed four times in mid-pack; then the packs that were training go on, cut otherwise as the rest may be."""
    steps = EPOCHS * 8  # of each pack
    for _ in range(4):
        child = bench.start(*how, "--checkpoint-minutes", 0.002)
        had = {path.name: path.stat().st_mtime_ns for path in bench.store.folder.glob("checkpoints/*.safetensors")}

        def written(had: dict[str, int] = had) -> bool:
            now = bench.store.folder.glob("checkpoints/*.safetensors")
            with suppress(FileNotFoundError):
                return any(path.stat().st_mtime_ns != had.get(path.name) for path in now)
            return False

        bench.until(written, child)
        assert child.poll() is None, child.communicate()[0]
        child.kill()
        child.communicate()
    bench.nothing_left()
    packs = Checkpoints(bench.store.folder / "checkpoints", math.inf).unfinished(
        [trial for trial in expand(bench.sweep) if not bench.store.path(trial.id).exists()]
    )
    assert packs
    done = 0
    for path in bench.store.folder.glob("checkpoints/*.safetensors"):
        with safe_open(path, framework="np") as file:
            done += len(file.get_tensor("losses"))
    rest = len(expand(bench.sweep)) - bench.kept() - sum(map(len, packs))
    options = Options(in_process=True, pack=100)
    trained = updates(lambda: driver.run(bench.sweep, bench.store, options, lambda progress: None))
    assert 0 < done < steps * len(packs)
    assert trained == steps * len(packs) - done + steps * (rest > 0)
    assert not (bench.store.folder / "checkpoints").exists()
    bench.ends_as_undisturbed()


def test_a_worker_killed_goes_on_from_its_checkpoint(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[int] = []
    shares: list[float] = []
    kept: list[float] = []
    real = cluster.RayPool.running

    def running(pool: cluster.RayPool) -> list[Running]:
        found = real(pool)
        shares.extend(one.share for one in found if one.job.deaths and one.share)
        return found

    def kill(progress: driver.Progress) -> None:
        for path in [] if killed else bench.store.folder.glob("checkpoints/*.safetensors"):
            with safe_open(path, framework="np") as file:
                kept.append(len(file.get_tensor("losses")) / (EPOCHS * 8))
            killed.extend(ray_workers())
            os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr(cluster.RayPool, "running", running)
    options = Options(workers=1, pack=40, checkpoint_minutes=0.002)
    assert driver.run(bench.sweep, bench.store, options, kill).finished == len(bench.undisturbed)
    assert shares
    assert shares[0] > kept[0] > 0
    assert not (bench.store.folder / "checkpoints").exists()
    bench.ends_as_undisturbed()


# ------------------------------------------------------------------------------------------------------- signalled


@pytest.mark.parametrize("how", [IN_PROCESS, RAY], ids=["in_process", "ray"])
def test_ctrl_c_once(bench: Bench, how: tuple[object, ...]) -> None:
    """A terminal sends it to the whole family."""
    child = bench.start(*how)
    bench.until(bench.kept, child)
    time.sleep(0.3)  # in process, a signal between two packs finds nothing to wait for
    os.killpg(child.pid, signal.SIGINT)
    said = child.communicate(timeout=unhurried(60))[0]
    assert child.returncode == 130, said
    assert "Ctrl-C again leaves now" in said
    assert "Traceback" not in said
    assert 3 <= bench.kept() <= 8
    assert not (bench.store.folder / HEARTBEAT).exists()
    bench.ends_as_undisturbed()


@pytest.mark.parametrize("how", [IN_PROCESS, RAY], ids=["in_process", "ray"])
def test_ctrl_c_twice(bench: Bench, how: tuple[object, ...]) -> None:
    child = bench.start(*how)
    bench.until(bench.kept, child)
    os.killpg(child.pid, signal.SIGINT)
    time.sleep(0.05)
    os.killpg(child.pid, signal.SIGINT)
    pressed = time.monotonic()
    said = child.communicate(timeout=unhurried(60))[0]
    assert time.monotonic() - pressed < 15
    assert child.returncode == 130, said
    assert "Traceback" not in said
    if "harness: stopped; finished trials are kept" not in said:  # the watchdog's: Ray's C++ held the main thread
        assert f"Stopped: {bench.kept()} of {len(bench.undisturbed)} trials are kept" in said
        assert not (bench.store.folder / HEARTBEAT).exists()
    bench.ends_as_undisturbed()


@pytest.mark.parametrize(
    ("how", "notice", "family"),
    [(IN_PROCESS, 20, True), (IN_PROCESS, 0, True), (RAY, 20, False), (RAY, 0, False), (RAY, 20, True)],
    ids=["in_process", "in_process_now", "ray", "ray_now", "ray_family"],
)
def test_sigterm(bench: Bench, how: tuple[object, ...], notice: int, family: bool) -> None:
    """To the driver alone, or to all its processes as some clusters send it."""
    child = bench.start(*how, "--notice", notice)
    bench.until(bench.kept, child)
    before = bench.kept()
    for process in bench.leftovers() if family else [child.pid]:
        os.kill(process, signal.SIGTERM)
    sent = time.monotonic()
    said = child.communicate(timeout=unhurried(60))[0]
    assert time.monotonic() - sent < 30
    assert child.returncode == 143, said
    assert "Traceback" not in said
    if notice and not (family and how == RAY):
        assert bench.kept() > before
    assert not (bench.store.folder / HEARTBEAT).exists()
    bench.nothing_left()
    bench.ends_as_undisturbed()


# --------------------------------------------------------------------------------------------------------- damaged


def test_records_cut_short_emptied_and_of_another_schema(bench: Bench) -> None:
    driver.run(bench.sweep, bench.store, Options(in_process=True, pack=8), lambda progress: None)
    paths = [bench.store.path(trial.id) for trial in expand(bench.sweep)]
    whole = paths[0].read_bytes()
    paths[0].write_bytes(whole[: len(whole) // 2])
    paths[1].write_bytes(b"")
    paths[2].write_text(json.dumps(json.loads(paths[2].read_text()) | {"schema_version": 99}))
    paths[3].write_bytes(paths[4].read_bytes())
    paths[5].write_bytes(b"\xff\xfe" + bytes(100))
    paths[6].unlink()
    bench.ends_as_undisturbed()
    assert len(list(bench.store.trials.glob("*.unreadable"))) == 5


# ------------------------------------------------------------------------------------------------------------ disks


@pytest.fixture
def disk(bench: Bench) -> Iterator[Path]:
    """A disk of 128 KiB under the results folder."""
    folder = bench.store.folder.parent / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"this user may not mount: {mounted.stderr.strip()}")
    bench.store = Store(folder / bench.sweep.folder_name)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


def one_line(bench: Bench, words: str) -> None:
    """The command ends with exit 2 and one line that names a file of the results folder."""
    child = bench.start("--in-process", "--pack", 2)
    said = child.communicate(timeout=unhurried(60))[0]
    assert child.returncode == 2, said
    (line,) = [line for line in said.splitlines() if line.startswith("harness: ")]
    assert said.endswith(line + "\n")
    assert str(bench.store.folder) in line
    assert words in line


def test_a_full_disk(bench: Bench, disk: Path) -> None:
    one_line(bench, "no space left on device")
    kept = content(bench.store)
    assert 2 <= len(kept) < len(bench.undisturbed)
    assert kept.items() <= bench.undisturbed.items()
    assert not list(bench.store.folder.rglob("*.tmp"))
    one_line(bench, "no space left on device")
    remount(disk, "size=8m")
    bench.ends_as_undisturbed()


def test_a_disk_that_becomes_read_only(bench: Bench, disk: Path) -> None:
    remount(disk, "size=8m")
    child = bench.start("--in-process", "--pack", 2)
    bench.until(bench.kept, child)
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=unhurried(60))
    kept = content(bench.store)
    remount(disk, "ro")
    one_line(bench, "read-only file system")
    assert content(bench.store) == kept
    remount(disk, "rw")
    bench.ends_as_undisturbed()
