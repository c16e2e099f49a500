"""A sweep that trains for some ten seconds, its undisturbed records, and the command line in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from driving import content

from harness.config.recipe import ModelSpec, TaskSpec
from harness.config.sweep_file import load
from harness.config.trials import Sweep, expand
from harness.execution import driver
from harness.records.store import Store

SEEDS, EPOCHS = 20, 20


def unhurried(seconds: float) -> float:
    """What takes so many seconds at most on an idle machine, on this one now: a deadline tells a hang, no busy machine.

    Not for what the user is promised, such as that a second Ctrl-C leaves now.
    """
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


@dataclass
class Bench:
    """A sweep's file, where its results go, and what they should be."""

    file: Path
    sweep: Sweep
    store: Store
    undisturbed: dict[str, tuple[str, ...]]
    children: list[subprocess.Popen[str]] = field(default_factory=list)

    def command(self, *words: object) -> list[str]:
        """`harness sweep` on this sweep."""
        code = "from harness.cli.app import main; main()"
        results = ["--results", str(self.store.folder.parent)]
        return [sys.executable, "-c", code, "sweep", str(self.file), *results, *map(str, words)]

    def start(self, *words: object) -> subprocess.Popen[str]:
        """Start it in a session of its own, as a terminal or a cluster does; its marked children can be found."""
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "HARNESS_FAULTS": str(self.store.folder)}
        environment["PYTHONFAULTHANDLER"] = "1"  # for `autopsy`
        child = subprocess.Popen(
            self.command(*words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=environment, start_new_session=True,
        )  # fmt: skip
        self.children.append(child)
        return child

    def kept(self) -> int:
        """How many records there are."""
        return len(list(self.store.trials.glob("*.json")))

    def until(self, what: Callable[[], object], child: subprocess.Popen[str], seconds: float = 90) -> None:
        """Wait for something to come true while the sweep runs."""
        end = time.monotonic() + unhurried(seconds)
        while not what() and child.poll() is None:
            assert time.monotonic() < end, "it never came true"
            time.sleep(0.005)

    def autopsy(self, child: subprocess.Popen[str]) -> str:
        """What a sweep that should have ended was at: its processes, its stacks and what it said."""
        states = []
        for number in self.leftovers():
            with suppress(OSError):
                folder = Path(f"/proc/{number}")
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                command = (folder / "cmdline").read_text().replace("\0", " ")[:120]
                outputs = [os.readlink(folder / "fd" / one) for one in "12"]
                states.append(f"{number} {fields[0]} parent {fields[1]} ticks {fields[11:13]} {outputs} {command}")
        code = child.poll()
        if code is None:
            child.send_signal(signal.SIGABRT)  # faulthandler writes all stacks
            with suppress(subprocess.TimeoutExpired):
                child.wait(5)
        for number in self.leftovers():
            with suppress(OSError):
                os.kill(number, signal.SIGKILL)
        text = child.communicate()[0]
        processes = "\n".join(states)
        return f"exit code {code}, load {os.getloadavg()}\n{processes}\n{text}"

    def leftovers(self) -> list[int]:
        """The processes that its children left behind."""
        mark = f"HARNESS_FAULTS={self.store.folder}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                marked = mark in (folder / "environ").read_bytes().split(b"\0")
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if marked and state != "Z":
                found.append(int(folder.name))
        return found

    def nothing_left(self) -> None:
        """No process of its children outlives them for long."""
        end = time.monotonic() + unhurried(120)  # Ray's agents look for their dead head for a minute
        while left := self.leftovers():
            assert time.monotonic() < end, [Path(f"/proc/{one}/cmdline").read_bytes() for one in left]
            time.sleep(0.2)

    def ends_as_undisturbed(self) -> None:
        """Train what is missing; all records are then those of an undisturbed run, bit for bit."""
        ended = driver.run(self.sweep, self.store, driver.Options(in_process=True), lambda progress: None)
        assert (ended.finished, ended.missing, ended.crashed) == (len(expand(self.sweep)), 0, 0)
        assert content(self.store) == self.undisturbed
        assert not list(self.store.folder.rglob("*.tmp"))


@pytest.fixture(scope="session")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, data: TaskSpec, bert: ModelSpec
) -> tuple[Path, Sweep, dict[str, tuple[str, ...]]]:
    """The sweep's file, the sweep, and its records when nothing disturbs it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    file = folder / "slow.yaml"
    spec = {"task": data.model_dump(exclude_none=True), "model": bert.model_dump(exclude_none=True)}
    spec |= {"lr": [1e-3, 1e-2], "epochs": EPOCHS, "batch_size": 8, "seeds": f"1..{SEEDS}"}
    file.write_text(json.dumps(spec))
    sweep = load(file)
    store = Store(folder / sweep.folder_name)
    driver.run(sweep, store, driver.Options(in_process=True, pack=8), lambda progress: None)
    return file, sweep, content(store)


@pytest.fixture
def bench(
    tmp_path: Path, cpu_only: None, undisturbed: tuple[Path, Sweep, dict[str, tuple[str, ...]]]
) -> Iterator[Bench]:
    """The sweep with an empty results folder."""
    file, sweep, records = undisturbed
    made = Bench(file, sweep, Store(tmp_path / sweep.folder_name), records)
    yield made
    for child in made.children:
        if child.poll() is None:
            child.kill()
            child.wait()
        if child.stdout is not None:
            child.stdout.close()
