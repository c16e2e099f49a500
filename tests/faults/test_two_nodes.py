"""Sweeps over a Ray cluster of two nodes, whose second sees nothing of the driver's files and leaves or joins."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import Bench, unhurried
from driving import content

import harness
from harness.models import saved

DRIVER = """
import json, sys
from pathlib import Path
from harness.common.errors import HarnessError
from harness.config.sweep_file import load
from harness.execution import driver, ray_workers
from harness.records.store import Store

def say(*words):
    print(json.dumps(words), flush=True)

def wait(pool, seconds):
    before = list(pool.flights.values())
    found = real(pool, seconds)
    for done in found:
        for flight in before:
            if flight.job is done.job and done.results:
                say("trained", flight.worker.seat.node)
    return found

def show(progress):
    for message in progress.messages:
        say("told", message)
    progress.messages.clear()

real, ray_workers.RayPool.wait = ray_workers.RayPool.wait, wait
file, folder, options = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
try:
    ended = driver.run(load(file), Store(folder), driver.Options(**options), show)
    say("ended", ended.finished, ended.crashed, ended.missing)
except HarnessError as error:
    say("refused", str(error))
"""


@dataclass
class Cluster:
    """A Ray cluster on this machine: nodes with one CPU each, on loopback addresses of their own."""

    folder: Path
    port: int
    hidden: list[Path]
    nodes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Where the driver finds it."""
        return f"127.0.0.2:{self.port}"

    def start(self, name: str, *words: str, hide: bool = False) -> None:
        """Start a node; a hidden one sees empty folders where the harness, the data and the model lie."""
        command = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--disable-usage-stats", *words]
        command += ["--temp-dir", str(self.folder / name), "--object-store-memory", str(80 * 2**20)]
        if hide:
            mounts = "".join(f"mount -t tmpfs -o size=1m tmpfs '{one}' && " for one in self.hidden)
            command = ["unshare", "-m", "sh", "-c", f'{mounts}exec "$@"', "sh", *command]
        (self.folder / f"{name}.tmp").mkdir(exist_ok=True)
        environment = os.environ | {"HARNESS_NODE": name + self.folder.name, "TMPDIR": str(self.folder / f"{name}.tmp")}
        with (self.folder / f"{name}.log").open("wb") as log:
            self.nodes[name] = subprocess.Popen(
                command, cwd="/", env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def head(self, cpus: int = 1) -> None:
        """Start the node that the driver is on, and wait for it."""
        options = ["--port", str(self.port), "--node-ip-address", "127.0.0.2", "--include-dashboard", "false"]
        self.start("head", "--head", *options, "--num-cpus", str(cpus))
        self.joined(1)

    def second(self) -> None:
        """Start a node that sees nothing, on another address of the loopback."""
        self.start("second", "--address", self.address, "--node-ip-address", "127.0.0.3", "--num-cpus", "1", hide=True)

    def joined(self, count: int) -> None:
        """Wait until so many nodes are up."""
        end = time.monotonic() + unhurried(60)
        while sum(b"Ray runtime started" in path.read_bytes() for path in self.folder.glob("*.log")) < count:
            assert time.monotonic() < end, [path.read_text() for path in self.folder.glob("*.log")]
            time.sleep(0.1)

    def processes(self, name: str) -> dict[int, str]:
        """A node's processes and their commands."""
        mark, found = f"HARNESS_NODE={name}{self.folder.name}".encode(), {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (folder / "cmdline").read_text(errors="replace").replace("\0", " ")
            except OSError:
                continue
        return found

    def kill(self, name: str, only: str = "") -> None:
        """SIGKILL a node's processes, or those whose command names this."""
        for process, command in self.processes(name).items():
            if only in command:
                os.kill(process, signal.SIGKILL)


@pytest.fixture
def cluster(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make mount namespaces")
    with socket.create_server(("127.0.0.2", 0)) as server:
        port = server.getsockname()[1]
    recipe = bench.sweep.cells[0].recipe
    assert recipe.task.files is not None
    assert recipe.model.folder is not None
    hidden = [Path(harness.__file__).parent, Path(recipe.task.files.train).parent, Path(recipe.model.folder)]
    bench.store.folder.mkdir(parents=True, exist_ok=True)
    hidden.append(bench.store.folder)
    # Ray takes 127.0.0.1 for no address of a cluster's, and listens everywhere: the token keeps others out.
    monkeypatch.delenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:  # the paths of its sockets may not be long
        made = Cluster(Path(folder), port, hidden)
        yield made
        for child in bench.children:
            child.kill()
            child.wait()
        for name in made.nodes:
            made.kill(name)
            made.nodes[name].wait()


class Driver:
    """A sweep over the cluster in a process of its own, and what it said so far."""

    def __init__(self, bench: Bench, cluster: Cluster, **options: object) -> None:
        """Start it."""
        given = {"address": cluster.address, "pack": 1} | options
        words = [sys.executable, "-c", DRIVER, str(bench.file), str(bench.store.folder), json.dumps(given)]
        self.path = cluster.folder / "driver.out"
        with self.path.open("wb") as out:
            self.child = subprocess.Popen(words, stdout=out, stderr=subprocess.STDOUT)
        bench.children.append(self.child)  # type: ignore[arg-type]

    def said(self, what: str) -> list[list[object]]:
        """What it said of a kind, without the kind."""
        lines = [line for line in self.path.read_text().splitlines() if line.startswith("[")]
        found = [json.loads(line) for line in lines if line.endswith("]")]
        return [words for kind, *words in found if kind == what]

    def nodes(self) -> set[object]:
        """The nodes that trained a pack."""
        return {node for (node,) in self.said("trained")}

    def ends(self, seconds: float) -> None:
        """Wait for its end."""
        assert self.child.wait(seconds) == 0, self.path.read_text()


def complete(bench: Bench, driver: Driver) -> None:
    assert driver.said("ended") == [[len(bench.undisturbed), 0, 0]], driver.path.read_text()
    assert content(bench.store) == bench.undisturbed
    recipe = bench.sweep.cells[0].recipe
    for path in bench.store.trials.glob("*.json"):
        record = bench.store.load(path.stem)
        assert record is not None
        assert (record.trial.recipe.task, record.trial.recipe.model) == (recipe.task, recipe.model)


def until(what: Callable[[], object], driver: Driver, seconds: float = 60) -> None:
    end = time.monotonic() + unhurried(seconds)
    while not what():
        assert driver.child.poll() is None, driver.path.read_text()
        assert time.monotonic() < end, driver.path.read_text()
        time.sleep(0.05)


def test_a_node_that_sees_nothing_of_the_drivers_files_trains_the_same_and_may_die(
    bench: Bench, cluster: Cluster
) -> None:
    cluster.head()
    cluster.second()
    cluster.joined(2)
    driver = Driver(bench, cluster, keep="all")
    until(lambda: len(driver.nodes()) == 2, driver)
    assert len(list(cluster.folder.glob("second.tmp/harness-files-*/[0-9a-f]*"))) == 2  # the data and the model
    cluster.kill("second", "raylet/raylet")
    driver.ends(180)
    assert len(driver.said("trained")) == len(bench.undisturbed)
    told = [line for (line,) in driver.said("told") if not str(line).startswith("waiting for ")]  # on a busy machine
    assert told == ["1 trial to train again: their node left the cluster"]
    complete(bench, driver)
    assert set(saved.kept(bench.store)) == set(bench.undisturbed)  # the second node's came back with its results
    for trial in bench.undisturbed:
        saved.weights(bench.store, trial)  # checks them against the record


def test_a_node_that_joins_while_a_sweep_runs_is_used_and_may_be_all_that_is_left(
    bench: Bench, cluster: Cluster
) -> None:
    """The head has no CPUs, as that of many a cluster; the one node dies and comes again."""
    cluster.head(cpus=0)
    cluster.second()
    driver = Driver(bench, cluster)
    until(lambda: len(driver.said("trained")) > 3, driver)
    cluster.kill("second")
    cluster.nodes["second"].wait()
    until(lambda: ["no worker is left: waiting up to 30 minutes for one"] in driver.said("told"), driver)
    cluster.second()
    driver.ends(180)
    assert len(driver.nodes()) == 2
    complete(bench, driver)


def test_a_cluster_without_room_is_said_within_thirty_seconds(bench: Bench, cluster: Cluster) -> None:
    cluster.head()
    code = "import ray, time; ray.init(%r); ray.remote(num_cpus=1)(lambda: time.sleep(99)).remote(); time.sleep(99)"
    other = subprocess.Popen([sys.executable, "-c", code % cluster.address], stderr=subprocess.DEVNULL)
    bench.children.append(other)  # type: ignore[arg-type]
    time.sleep(6)
    started = time.monotonic()
    driver = Driver(bench, cluster)
    driver.ends(180)
    assert time.monotonic() - started < unhurried(60)  # with the imports and Ray's own start
    ((line,),) = driver.said("refused")
    assert "of 1 CPU 0 are free" in str(line)
    assert "\n" not in str(line)
