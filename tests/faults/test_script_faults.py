"""What happens to sweeps of a script on real machines: nothing is lost, doubled or mislabelled, and no process left."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import Bench, unhurried
from driving import content, descends
from test_two_nodes import Cluster, Driver, cluster, until

from harness.config.sweep_file import load
from harness.config.trials import expand
from harness.execution import driver
from harness.execution.driver import Options
from harness.records.store import Store

__all__ = ["cluster"]

TRAIN = """\
setsid sleep 321 &
sleep 322 &
sleep 0.4
echo $1 >> "$2/ran"
echo "{\\"acc\\": 0.$1$(wc -l < "$2/ran")}" > "$2/r.json"
"""
SWEEP = """\
title: A script
command: sh train.sh {seed} {out}
cwd: CWD
seeds: 11..34
score: {file: r.json, key: acc}
failed_below: 0.2
"""


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A sweep of a script; its score is its seed, then how often a run wrote into its folder, which is to be once."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.sh").write_text(TRAIN)
    file = tmp_path / "mine.yaml"
    file.write_text(SWEEP.replace("CWD", str(tmp_path / "code")))
    sweep = load(file)
    scores = {trial.id: ("None", f"0.{trial.seeds.seed}1", "None") for trial in expand(sweep)}
    made = Bench(file, sweep, Store(tmp_path / "results" / sweep.folder_name), scores)
    yield made
    for child in made.children:
        if child.poll() is None:
            child.kill()
            child.wait()
        if child.stdout is not None:
            child.stdout.close()


def kept(bench: Bench) -> dict[str, tuple[str, ...]]:
    return {name: tuple(map(str, values)) for name, values in content(bench.store).items()}


def ends(bench: Bench) -> None:
    """Run what is missing: all records are then there, each of its own run."""
    ended = driver.run(bench.sweep, bench.store, Options(workers=2), lambda progress: None)
    assert (ended.finished, ended.missing, ended.crashed) == (len(bench.undisturbed), 0, 0)
    assert kept(bench) == bench.undisturbed
    assert not list(bench.store.folder.rglob("*.tmp"))


def workers() -> list[int]:
    listed = subprocess.run(["pgrep", "-f", "^ray::ScriptWorker"], capture_output=True, text=True, check=False)
    return [process for process in map(int, listed.stdout.split()) if descends(process, os.getpid())]


def test_the_driver_killed_at_six_moments(scripted: Bench) -> None:
    draw = random.Random(1)
    for number in range(6):
        child = scripted.start(*(("--workers", 2) if number % 4 else ("--in-process",)))
        before = scripted.kept()
        if number % 2:
            scripted.until(lambda before=before: scripted.kept() > before, child)  # type: ignore[misc]
            time.sleep(draw.uniform(0, 0.5))
        else:
            time.sleep(draw.uniform(0, 6))
        assert child.poll() is None, child.communicate()[0]
        child.kill()
        child.communicate()
        scripted.nothing_left()
    assert kept(scripted).items() <= scripted.undisturbed.items()
    ends(scripted)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_processes(scripted: Bench, number: int) -> None:
    """As a cluster sends it, or a terminal: to the driver, to Ray and to its workers; scripts are not in that group."""
    child = scripted.start("--workers", 2, "--notice", 3)
    scripted.until(lambda: scripted.kept() > 1, child)
    os.killpg(child.pid, number)
    text, _ = child.communicate(timeout=unhurried(90))
    assert child.returncode == (143 if number == signal.SIGTERM else 130), text
    scripted.nothing_left()
    assert not [record for record in scripted.store.records(scripted.sweep).values() if record.error]
    assert 1 < len(kept(scripted)) < len(scripted.undisturbed)
    ends(scripted)


def test_workers_killed_again_and_again(scripted: Bench) -> None:
    killed: list[int] = []
    messages: list[str] = []

    def kill(progress: driver.Progress) -> None:
        messages.extend(progress.messages)
        progress.messages.clear()
        alive = [one for one in workers() if one not in killed]
        if progress.lanes and alive and len(killed) < 3 and progress.finished > 4 * len(killed):
            killed.append(alive[0])
            os.kill(alive[0], signal.SIGKILL)

    ended = driver.run(scripted.sweep, scripted.store, Options(workers=2), kill)
    assert len(killed) == 3
    assert ended.finished == len(scripted.undisturbed)
    assert len([message for message in messages if "to train again: the worker died: " in message]) == 3, messages
    ends(scripted)
    listed = subprocess.run(["pgrep", "-f", "^sleep 32[12]$"], capture_output=True, text=True, check=False)
    left = [one for one in map(int, listed.stdout.split()) if str(scripted.store.folder) in environment(one)]
    assert left == []


def environment(process: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{process}/environ").read_text(errors="replace")
    return ""


def test_a_full_disk(scripted: Bench) -> None:
    """A run that can't write its score is crashed or ends the sweep in one line, and is run when there is room."""
    folder = scripted.store.folder
    folder.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(mounted.stderr)
    try:
        child = scripted.start("--in-process")
        text, _ = child.communicate(timeout=unhurried(120))
        assert child.returncode in (1, 2), text
        assert "Traceback" not in text
        assert kept_of_finished(scripted).items() <= scripted.undisturbed.items()
        subprocess.run(["mount", "-o", "remount,size=50m", str(folder)], check=True)
        ended = driver.run(
            scripted.sweep, scripted.store, Options(in_process=True, retry_crashed=True), lambda progress: None
        )
        assert ended.finished == len(scripted.undisturbed)
        assert kept_of_finished(scripted) == scripted.undisturbed
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def kept_of_finished(bench: Bench) -> dict[str, tuple[str, ...]]:
    records = bench.store.records(bench.sweep)
    return {
        name: ("None", str(record.measured.final_score), "None") for name, record in records.items() if record.measured
    }


def test_a_script_reaches_a_node_that_sees_nothing_and_that_node_may_be_lost(
    scripted: Bench, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.store.folder.mkdir(parents=True)
    cluster.hidden[1:] = [scripted.file.parent / "code", scripted.store.folder]
    cluster.head()
    cluster.second()
    cluster.joined(2)
    run = Driver(scripted, cluster)
    until(lambda: len(run.nodes()) == 2, run)
    cluster.kill("second")
    run.ends(180)
    assert run.said("ended") == [[len(scripted.undisturbed), 0, 0]]
    assert kept(scripted) == scripted.undisturbed
