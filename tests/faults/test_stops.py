"""A sweep that is told to stop ends within seconds, whatever it is at, and leaves no process behind.

`STOPS=20` tries each case so many times.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import EPOCHS, SEEDS, Bench, unhurried

from harness.config.recipe import ModelSpec, TaskSpec
from harness.config.sweep_file import load
from harness.records.store import Store

TRIES = range(int(os.environ.get("STOPS", "1")))
IN_PROCESS, RAY = ("--in-process", "--pack", 2), ("--workers", 2, "--pack", 2)
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
# Seconds that a stop takes at most on a busy machine; what was seen before was half a minute to eleven minutes.
SOON = 20


@pytest.fixture
def quick(tmp_path: Path, cpu_only: None, data: TaskSpec, bert: ModelSpec) -> Iterator[Bench]:
    """A sweep of the small model."""
    yield from bench_of(tmp_path, data, bert)


@pytest.fixture
def absurd(tmp_path: Path, cpu_only: None, data: TaskSpec, bert: ModelSpec) -> Iterator[Bench]:
    """A sweep of a model that takes minutes to load: two hundred thousand layers, most of which no file has."""
    assert bert.folder is not None
    folder = tmp_path / "absurd"
    shutil.copytree(bert.folder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 200_000}))
    yield from bench_of(tmp_path, data, ModelSpec(name="absurd", folder=str(folder)))


def bench_of(folder: Path, data: TaskSpec, model: ModelSpec) -> Iterator[Bench]:
    """A sweep of this model, whose processes are ended with the test."""
    file = folder / "stops.yaml"
    spec = {"task": data.model_dump(exclude_none=True), "model": model.model_dump(exclude_none=True)}
    spec |= {"lr": [1e-3, 1e-2], "epochs": EPOCHS, "batch_size": 8, "seeds": f"1..{SEEDS}"}
    file.write_text(json.dumps(spec))
    sweep = load(file)
    made = Bench(file, sweep, Store(folder / "results" / sweep.folder_name), {})
    yield made
    for child in made.children:
        child.kill()
        child.communicate()


def started(bench: Bench, child: subprocess.Popen[str]) -> None:
    """Wait until it holds the results folder, after which it loads data, starts Ray and loads the model."""
    bench.until((bench.store.folder / ".lock").exists, child)


def ends(bench: Bench, child: subprocess.Popen[str], code: int, sent: float) -> str:
    """It ends by itself soon, with this code and without a traceback, and so do its children; what it said."""
    try:
        said = child.communicate(timeout=SOON)[0]
    except subprocess.TimeoutExpired:
        pytest.fail(f"alive after {SOON} s: {bench.autopsy(child)}")
    print(f"ended after {time.monotonic() - sent:.1f} s\n{said}")
    assert child.returncode in (code, -signal.SIGTERM if code == 143 else code), said  # -15: no handler was there yet
    assert "Traceback" not in said
    bench.nothing_left()
    return said


@pytest.mark.parametrize("attempt", TRIES)
@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
def test_while_ray_starts(quick: Bench, number: signal.Signals, attempt: int) -> None:
    child = quick.start(*RAY)
    started(quick, child)
    time.sleep(random.Random(attempt).uniform(0, 6))
    child.send_signal(number)
    ends(quick, child, CODES[number], time.monotonic())


@pytest.mark.parametrize("attempt", TRIES)
@pytest.mark.parametrize("how", [IN_PROCESS, RAY], ids=["in_process", "ray"])
@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
def test_while_a_model_of_absurd_size_loads(
    absurd: Bench, number: signal.Signals, how: tuple[object, ...], attempt: int
) -> None:
    child = absurd.start(*how)
    started(absurd, child)
    time.sleep(random.Random(attempt).uniform(5, 25))
    child.send_signal(number)
    ends(absurd, child, CODES[number], time.monotonic())


@pytest.mark.parametrize("attempt", TRIES)
@pytest.mark.parametrize("how", [IN_PROCESS, RAY], ids=["in_process", "ray"])
def test_the_time_limit_while_a_model_of_absurd_size_loads(
    absurd: Bench, how: tuple[object, ...], attempt: int
) -> None:
    child = absurd.start(*how, "--time-limit", "12s")
    time.sleep(12)
    said = child.communicate(timeout=unhurried(60))[0]
    assert child.returncode == 1, said
    assert "the time limit leaves 40 trials missing" in said
    absurd.nothing_left()


@pytest.mark.parametrize("attempt", TRIES)
@pytest.mark.parametrize("how", [IN_PROCESS, RAY], ids=["in_process", "ray"])
def test_two_ctrl_c_a_quarter_of_a_second_apart(quick: Bench, how: tuple[object, ...], attempt: int) -> None:
    child = quick.start(*how)
    quick.until(quick.kept, child, 400)  # on a busy machine; what is timed comes after it
    time.sleep(random.Random(attempt).uniform(0, 2))
    for _ in range(2):
        os.killpg(child.pid, signal.SIGINT)
        pressed = time.monotonic()
        time.sleep(0.25)
    assert "stopped" in ends(quick, child, 130, pressed).lower()


@pytest.mark.parametrize("attempt", TRIES)
def test_without_a_loopback_interface_ray_is_not_waited_for(quick: Bench, attempt: int) -> None:
    if os.geteuid() or not shutil.which("unshare"):
        pytest.skip("only root can take the network away")
    command = ["unshare", "--net", *quick.command(*RAY)]
    child = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    (line,) = child.stderr.splitlines()
    assert child.returncode == 2
    assert line.startswith("harness: Ray cannot start: processes of this machine cannot connect to each other")
    assert line.endswith("or train without Ray: --in-process.")
