"""How a sweep stands: what is printed, the JSON contract, and every state a driver can leave behind."""

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import ENVIRONMENT, HEAD, Run, curves_of, measured, recording_of, save, store_of, sweep_of
from rich.console import Console
from typer.testing import CliRunner

from harness.analysis import status
from harness.cli import status_views
from harness.cli import sweep_commands as cli
from harness.cli.app import app
from harness.config.trials import expand
from harness.execution import gate, machine
from harness.execution.machine import Machine
from harness.records import early_signals, heartbeat
from harness.records.store import Store

GOLDEN = Path(__file__).parents[1] / "golden"
TEXT = (
    "title: A [bold] title\nstand_in: the embedded stand-in\n"
    + HEAD
    + "lr: [1e-5, 2e-5]\nbias_correction: [off, on]\nepochs: 3\nseeds: 1..3\n"
)
ODD = "Traceback (most recent call last):\n  File '/me/x.py'\nRuntimeError: [/red] [bold]no\x1b[2J /home/me/[x].txt\n"
RUNS = {0: [Run(300), Run(200), Run(310)], 1: [Run(crashed=ODD), Run(320)], 2: [Run(310), Run(diverged=True)]}
NOW = datetime(2025, 1, 1, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty folder with sweeps/, on a machine of two cores that is busy with one and a half."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "detect_hardware", lambda: Machine(2, 2**34, ()))
    monkeypatch.setattr(status, "use", lambda host: ("CPU load: 1.5 on 2 cores",))
    return tmp_path


def run(*words: object, code: int = 0):
    result = CliRunner().invoke(app, ["status", *(str(word) for word in words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def shown(*words: object) -> dict:
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(run(*words, "--json").stdout, parse_constant=refuse)


def golden(name: str, text: str) -> None:
    if os.environ.get("GOLDEN") == "write":
        (GOLDEN / name).write_text(text)
    assert text == (GOLDEN / name).read_text()


def beat(store: Store, packs=(), **changes: object) -> dict[str, object]:
    """Write a driver's sign of life, seven seconds old."""
    then = (datetime.now(UTC) - timedelta(seconds=7)).isoformat(timespec="seconds")
    said: dict[str, object] = {
        "schema_version": 1, "pid": os.getpid(), "host": socket.gethostname(), "started_utc": then, "updated_utc": then,
        "device": "cpu", "workers": 2, "seconds_left": 240.0, "packs": packs,
    }  # fmt: skip
    store.folder.mkdir(parents=True, exist_ok=True)
    (store.folder / "running.json").write_text(json.dumps(said | changes))
    return said | changes


@pytest.fixture
def made(here):
    """A sweep of twelve trials that is half done, and its folder."""
    sweep = sweep_of(here / "sweeps", TEXT)
    return sweep, store_of(here / "results", sweep, RUNS)


def packs_of(sweep, *shares: float) -> list[dict[str, object]]:
    """Two packs: the missing and the retried of cells 1 and 2, and those of cell 3."""
    ids = {(trial.cell, trial.seeds.seed): trial.id for trial in expand(sweep)}
    trials = [[ids[1, 1], ids[1, 3], ids[2, 3]], [ids[3, seed] for seed in (1, 2, 3)]]
    return [
        {"trials": found, "share": share, "seconds": 20.0, "deaths": number}
        for number, (found, share) in enumerate(zip(trials, shares, strict=True))
    ]


def steady(text: str) -> str:
    """A text without what differs from run to run."""
    text = text.replace(f"process {os.getpid()} on {socket.gethostname()}", "process 1 on here")
    return re.sub(r" of \S+ since [-+:T\d]+", "", text)


# ------------------------------------------------------------------------------------------------------ what is shown


def test_the_text_of_a_running_sweep(made, monkeypatch):
    sweep, store = made
    beat(store, packs_of(sweep, 0.25, 0.5))
    monkeypatch.setattr(status_views, "_state", lambda now: f"{now.state}: {now.holder}")  # the age is tested below
    with store.locked():
        golden("status_running.txt", steady(run("made").stdout))


def test_the_text_afterwards_and_before(made, here):
    golden("status_stopped.txt", run("made").stdout)
    assert run("results/made@default").stdout == run("made", "--profile", "default").stdout
    sweep_of(here / "sweeps", TEXT.replace("1..3", "1..2"), "fresh")
    golden("status_never.txt", run("fresh").stdout)
    assert not (here / "results" / "fresh@default").exists()


def test_the_states_and_the_last_sign_of_life(made):
    sweep, store = made
    assert "Not running.\n" in run("made").stdout
    with store.locked():
        assert "Running (process" in run("made").stdout
        assert "no progress reported yet" in run("made").stdout
        beat(store, packs_of(sweep, 0.25, 0.5))
        assert any(f"last sign of life {age} s ago" in run("made").stdout for age in (7, 8, 9))
        beat(store, packs_of(sweep, 0.25, 0.5), pid=1)  # an earlier driver's, which was killed
        assert "no progress reported yet" in run("made").stdout
        assert shown("made")["packs"] == []
    beat(store, packs_of(sweep, 0.25, 0.5))
    said = run("made").stdout
    assert "left without saying so (killed?); last sign of life" in said
    assert "training now" not in said
    assert status.Watch(sweep, store).look(NOW - timedelta(days=9999)).silent_seconds == 0  # another machine's clock


def test_json_keeps_its_contract(made):
    sweep, store = made
    idle = shown("made")
    assert set(idle) >= {
        "sweep", "profile", "folder", "state", "finished", "failed", "crashed", "missing", "planned", "seconds_left",
        "updated_utc", "unreadable", "device", "workers", "cells", "packs", "crashed_trials",
    }  # fmt: skip
    assert (idle["state"], idle["folder"]) == ("stopped", "results/made@default")
    counts = ("planned", "finished", "failed", "crashed", "missing", "unreadable")
    assert [idle[name] for name in counts] == [12, 6, 2, 1, 5, 0]
    assert (idle["seconds_left"], idle["updated_utc"], idle["device"], idle["packs"]) == (None, None, None, [])
    assert idle["cells"][1] == {
        "axes": {"lr": 1e-5, "bias_correction": True},
        "planned": 3, "finished": 1, "failed": 0, "crashed": 1, "missing": 1, "unreadable": 0, "training": 0,
    }  # fmt: skip
    ids = {(trial.cell, trial.seeds.seed): trial.id for trial in expand(sweep)}
    (crash,) = idle["crashed_trials"]
    assert crash == {"trial": ids[1, 1], "error": ODD.splitlines()[-1], "attempts": 1}

    said = beat(store, packs_of(sweep, 0.25, 0.5))
    with store.locked():
        busy = shown("made")
    assert (busy["state"], busy["device"], busy["workers"], busy["seconds_left"]) == ("running", "cpu", 2, 240.0)
    assert busy["updated_utc"] == said["updated_utc"]
    assert (busy["use"], idle["use"]) == (["CPU load: 1.5 on 2 cores"], [])
    assert busy["holder"].startswith(f"process {os.getpid()} on {socket.gethostname()} of ")
    assert [cell["training"] for cell in busy["cells"]] == [0, 2, 1, 3]
    assert busy["packs"][0] == {
        "trials": [ids[1, 1], ids[1, 3], ids[2, 3]], "lost": [None, None, None],
        "share": 0.25, "seconds": 20.0, "deaths": 0, "steps": 189, "steps_done": 47, "steps_per_second": 47 / 20,
    }  # fmt: skip  # 1000 examples in batches of 16, three epochs
    assert shown("made")["state"] == "lost"
    assert "--json and --watch cannot be used together" in run("made", "--json", "--watch", code=2).stderr


def test_a_pack_that_ended_since_trains_no_more(made):
    sweep, store = made
    beat(store, packs_of(sweep, 0.25, 0.99))
    with store.locked():
        for trial in expand(sweep):
            if trial.cell == 3:
                save(store, sweep, trial, Run(333))
        busy = shown("made")
    assert [cell["training"] for cell in busy["cells"]] == [0, 2, 1, 0]
    assert len(busy["packs"]) == 1


def test_trials_of_another_plan_and_data_of_unknown_size(here, data):
    text = f"title: Mine\ntask: {json.dumps(data.model_dump(exclude_none=True))}\nmodel: embedded\n"
    sweep = sweep_of(here / "sweeps", text + "lr: 1e-5\nepochs: 2\nseeds: 1..2\n")
    store = store_of(here / "results", sweep, {})
    first, second = (trial.id for trial in expand(sweep))
    one = {"share": 0.5, "seconds": 0.0, "deaths": 0}
    beat(store, [one | {"trials": ["elsewhere"]}, one | {"trials": [first, first, "elsewhere"]}, one | {"trials": []}])
    with store.locked():
        (pack,) = shown("made")["packs"]
        assert (pack["trials"], pack["steps"], pack["steps_per_second"]) == ([first], None, None)
        assert " 50 %" in run("made").stdout
        save(store, sweep, expand(sweep)[1], Run(300))
        (pack,) = shown("made")["packs"]
        assert (pack["steps"], pack["steps_done"]) == (126, 63)  # the record says how many examples there are
    assert second not in pack["trials"]


def test_many_crashes_and_cells_are_cut_short(here):
    sweep = sweep_of(here / "sweeps", "title: T\n" + HEAD + "lr: [1e-5, 2e-5]\nepochs: 3\nseeds: 1..8\n")
    long = "E: " + "x" * 500 + "\n"
    store_of(here / "results", sweep, {0: [Run(crashed=long)] * 8, 1: [Run(crashed="\n")] * 8})
    said = run("made").stdout
    assert "  … and 6 more\n" in said
    assert max(map(len, said.splitlines())) < 300
    assert "no text" in said
    assert len(shown("made")["crashed_trials"]) == 16
    assert "harness sweep made --profile default --retry-crashed" in said


def test_what_to_type_names_what_was_set_and_where(here):
    path = here / "sweeps" / "made.yaml"
    sweep_of(here / "sweeps", TEXT)
    from harness.config.sweep_file import load

    sweep = load(path, None, ["seeds=1..1", "lr=[1e-5,3e-5]"])
    store = store_of(here / "some where", sweep, {0: [Run(300)]})
    said = run("made", "--results", "some where").stdout
    assert (
        "harness sweep made --profile default --set seeds=1..1 --set 'lr=[1e-5,3e-5]' --results 'some where'\n" in said
    )
    path.unlink()
    assert "Train what is missing: the command that began it\n" in run(store.folder).stdout


# ------------------------------------------------------------------------------------------------------ who looks lost

WARNED = "title: Rates\nstand_in: the embedded stand-in\n" + HEAD + "lr: [1e-5, 2e-5, 3e-5]\nepochs: 5\nseeds: 1..5\n"
FINE, GONE = Run(300, gradients=(1.0, 1.0)), Run(200, loss=0.69, gradients=(1e-4, 1e-4))


def warned(here, runs, sweep=None) -> tuple[Store, dict[str, object]]:
    """A sweep in training: of the last cell a lane as runs that learn, one as those that fail, one that has not begun
    and one that diverged; a heartbeat with their signals.
    """
    sweep = sweep or sweep_of(here / "sweeps", WARNED)
    store = store_of(here / "results", sweep, runs)
    trials = expand(sweep)
    good, bad = (
        early_signals.signals(curves.train_loss, 100, curves.eval_step, recording_of(curves, run))
        for run in (FINE, GONE)
        for curves in [curves_of(measured(run, 100, 200, 400, "accuracy"))]
    )
    lanes = [heartbeat.written(one[None, :20])[0] for one in (good, bad)]
    lanes += [[], [["inf", "inf", None, None, None]] * 20]
    ids = [trial.id for trial in trials if trial.cell == 2][1:]
    pack = {"trials": ids, "share": 0.5, "seconds": 20.0, "deaths": 0, "signals": lanes}
    beat(store, [pack])
    return store, pack


def test_lanes_that_look_lost_are_marked(here, monkeypatch):
    store, pack = warned(here, {0: [FINE, GONE, GONE, FINE], 1: [FINE, GONE, FINE, GONE], 2: [GONE]})
    monkeypatch.setattr(status_views, "_state", lambda now: f"{now.state}: {now.holder}")
    with store.locked():
        golden("status_warned.txt", steady(run("made").stdout))
        found = shown("made")
        assert found["packs"][0]["lost"] == [False, True, None, True]
        assert found["early_warning"].startswith("2 of 4 training lanes are at risk; 1 can't be told yet. At risk: ")
        # A trial of another plan among them moves no verdict to another trial.
        trials, lanes = pack["trials"], pack["signals"]
        beat(store, [pack | {"trials": ["elsewhere", *trials[:2]], "signals": [lanes[1], *lanes[:2]]}])
        assert shown("made")["packs"][0]["lost"] == [False, True]
        # The driver of an earlier version, which says nothing of its lanes.
        beat(store, [{name: pack[name] for name in ("trials", "share", "seconds", "deaths")}])
        found = shown("made")
        assert (found["packs"][0]["lost"], found["early_warning"]) == ([None] * 4, None)
        assert "at risk" not in run("made").stdout


def test_marked_lanes_are_not_among_the_cells_that_are_cut_short(here):
    sweep = sweep_of(here / "sweeps", WARNED.replace("[1e-5, 2e-5, 3e-5]", "[1e-5, 2e-5, 3e-5, 4e-5, 5e-5, 6e-5]"))
    store, pack = warned(here, {0: [FINE, GONE, GONE, FINE], 1: [FINE, GONE, FINE, GONE]}, sweep)
    ids = [trial.id for trial in expand(sweep) if trial.seeds.seed == 5]
    good, bad, *_ = pack["signals"]
    beat(store, [pack | {"trials": ids, "signals": [good] * 5 + [bad]}])
    with store.locked():
        (line,) = (line for line in run("made").stdout.splitlines() if line.startswith("   1  50 %"))
    assert line.rstrip().endswith("lr 6e-5: seed 5 (at risk)")


def test_why_no_lane_is_marked_is_one_line(here):
    store, _ = warned(here, {0: [FINE, GONE]})
    with store.locked():
        found = shown("made")
        said = run("made").stdout
    assert found["packs"][0]["lost"] == [None] * 4
    assert found["early_warning"] == (
        "Which of 4 training lanes are at risk can't be told yet: it takes finished, recorded runs of two other "
        "recipes that failed or ended near chance and of two that did not, and there are 1 and 1."
    )
    assert found["early_warning"] in said.splitlines()


# --------------------------------------------------------------------------------------------------- damaged and dead


@given(content=st.binary(max_size=200))
def test_any_bytes_are_no_sign_of_life(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("beat")
    (folder / "running.json").write_bytes(content)
    assert heartbeat.heartbeat(folder) is None


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = ("schema_version", "pid", "host", "started_utc", "updated_utc", "device", "workers", "seconds_left", "packs")


INNER = ("trials", "share", "seconds", "deaths", "signals", "")


@given(name=st.sampled_from(FIELDS), value=VALUES, inner=st.sampled_from(INNER))
def test_a_damaged_sign_of_life_never_stops_the_look(tmp_path_factory, name, value, inner):
    folder = tmp_path_factory.mktemp("damaged")
    sweep = sweep_of(folder / "sweeps", TEXT)
    store = Store(folder / "made@default")
    (first, second) = packs_of(sweep, 0.25, 0.5)
    beat(store, **({"packs": [first, second | {inner: value}]} if inner else {"packs": [first], name: value}))
    with store.locked():
        found = status.Watch(sweep, store).look()
        json.dumps(found.as_json(), allow_nan=False)
        status_views.print_standing(Console(file=io.StringIO()), status_views.standing_parts(found, None))
    assert found.total.missing == 12


@pytest.mark.parametrize("content", [b"", b"{}", b"null", b"[" * 100_000, b'{"schema_version": 2}', None])
def test_what_is_no_sign_of_life(made, content):
    path = made[1].folder / "running.json"
    path.mkdir() if content is None else path.write_bytes(content)
    assert shown("made")["state"] == "stopped"
    assert "Not running." in run("made").stdout


def test_the_lock_of_another_process_and_its_death(made):
    sweep, store = made
    code = (
        "import sys, time; from pathlib import Path; from harness.records.store import Store\n"
        "with Store(Path(sys.argv[1])).locked():\n    print('held', flush=True); time.sleep(600)\n"
    )
    held = subprocess.Popen([sys.executable, "-c", code, str(store.folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert held.stdout is not None
        assert held.stdout.readline() == "held\n"
        beat(store, packs_of(sweep, 0.25, 0.5), pid=held.pid)
        assert heartbeat.holder(store.folder).startswith(f"process {held.pid} on {socket.gethostname()} of ")
        assert shown("made")["state"] == "running"
        assert len(shown("made")["packs"]) == 2
        held.send_signal(signal.SIGKILL)
        held.wait(60)
        found = shown("made")
        assert (found["state"], found["packs"], found["seconds_left"]) == ("lost", [], None)
        assert f"process {held.pid} on {socket.gethostname()} left without saying so" in run("made").stdout
        with store.locked():  # the look holds nothing
            pass
    finally:
        held.kill()
        held.wait(60)
        held.stdout.close()


def test_another_machines_sweep_is_told_from_one_of_here(made):
    sweep, store = made
    lock = store.folder / ".lock"
    beat(store, packs_of(sweep, 0.25, 0.5), host="elsewhere")
    said = run("made").stdout
    assert re.search(r"last sign of life \d+ s ago, of process \d+ on elsewhere: it was killed, or it runs where", said)
    with store.locked():
        lock.write_text(f"process {os.getpid()} on elsewhere of anna since 2025-01-01T00:00:00+00:00\n")
        said = run("made").stdout
        assert "Running (process" in said
        assert "of anna since 2025-01-01T00:00:00+00:00); last sign of life" in said
        assert ".lock" not in said
        beat(store, packs_of(sweep, 0.25, 0.5), host="elsewhere", updated_utc="2025-01-01T00:00:00Z")
        assert "If that machine is down for good, remove results/made@default/.lock.\n" in run("made").stdout
        beat(store, packs_of(sweep, 0.25, 0.5), host="elsewhere", pid=12)  # process 1 is not process 12
        lock.write_text("process 1 on elsewhere of anna since 2025-01-01T00:00:00+00:00\n")
        assert shown("made")["packs"] == []


def test_a_clock_that_jumps_loses_no_living_sweep(made):
    sweep, store = made
    for days in (-1, 1):
        then = (datetime.now(UTC) + timedelta(days=days)).isoformat(timespec="seconds")
        beat(store, packs_of(sweep, 0.25, 0.5), updated_utc=then, started_utc=then)
        with store.locked():
            found = status.Watch(sweep, store).look()
            assert found.state == "running"
            assert found.silent_seconds is not None
            assert found.silent_seconds >= 0


def test_looking_in_a_loop_refuses_no_sweep(made):
    """A look shares the lock for an instant; a sweep that starts in that instant tries again."""
    store = made[1]
    code = (
        "import sys; from pathlib import Path; from harness.analysis.status import holder\n"
        "folder = Path(sys.argv[1]); print('looking', flush=True)\nwhile True: holder(folder)\n"
    )
    with store.locked():
        pass
    words = [sys.executable, "-c", code, str(store.folder)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as looking:
        try:
            assert looking.stdout is not None
            assert looking.stdout.readline() == "looking\n"
            for _ in range(300):
                with store.locked():
                    pass
        finally:
            looking.kill()


def test_looking_changes_nothing(made):
    folder = made[1].folder
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    run("made")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert heartbeat.holder(folder / "absent") is None


def test_what_is_no_results_folder_is_one_line(here):
    sweep_of(here / "sweeps", TEXT)
    (here / "folder").mkdir()
    (here / "file").write_text("")
    for words in (
        ("folder",),
        (".",),
        ("absent",),
        ("absent.yaml",),
        ("made", "--profile", "large"),
        ("",),
        ("made", "--results", "file"),
    ):
        said = run(*words, code=2)
        assert said.stderr.startswith("harness: ")
        assert said.stderr.count("\n") == 1
    folder = here / "results" / "made@default"
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text("{}")
    assert "plan.json" in run("made", code=2).stderr


# ------------------------------------------------------------------------------------------------------------- watch


class Clock:
    """Time that passes only in `sleep`, and what happens after so many sleeps."""

    def __init__(self, monkeypatch, then) -> None:
        self.now, self.sleeps, self.then = 0.0, 0, then
        monkeypatch.setattr(cli.time, "sleep", self.sleep)
        monkeypatch.setattr(cli.time, "monotonic", lambda: self.now)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.sleeps += 1
        self.then(self.sleeps)


@pytest.mark.parametrize("terminal", [False, True])
def test_watching_ends_with_the_sweep(made, monkeypatch, terminal):
    sweep, store = made
    lock = store.locked()
    lock.__enter__()
    beat(store, packs_of(sweep, 0.25, 0.5))

    def then(sleeps):
        if sleeps == 5:
            save(store, sweep, expand(sweep)[5], Run(300))
        if sleeps == 20:
            (store.folder / "running.json").unlink()
            lock.__exit__(None, None, None)

    clock = Clock(monkeypatch, then)
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm")
    said = run("made", "--watch").stdout
    assert clock.sleeps == 20
    assert "7 of 12 trials finished" in said
    assert "Not running." in said
    if not terminal:
        assert said.count("trials finished") == 3  # at once, after half a minute, and at the end
        assert "\x1b" not in said


def test_ctrl_c_ends_a_watch_with_130(made, monkeypatch):
    def then(sleeps):
        raise KeyboardInterrupt

    Clock(monkeypatch, then)
    with made[1].locked():
        assert "Running" in run("made", "--watch", code=130).stdout


def test_records_are_read_once_and_retried_ones_again(made, monkeypatch):
    sweep, store = made
    watch, reads, load = status.Watch(sweep, store), [], store.read
    monkeypatch.setattr(store, "read", lambda one: reads.append(one) or load(one))
    assert watch.look().total.crashed == 1
    assert len(reads) == 7
    retried = watch.look().crashed[0][0]
    assert len(reads) == 7
    store.set_aside(retried)
    assert watch.look().total.missing == 6
    assert watch.look().crashed == ()
    save(store, sweep, watch.trials[retried], Run(crashed="E: again\n"))
    store.path(retried).write_text(store.path(retried).read_text().replace('"attempts": 1', '"attempts": 2'))
    assert watch.look().crashed == ((retried, "E: again", 2),)
    assert f"  {retried} (attempt 2): E: again\n" in run("made").stdout
    store.path(retried).unlink()
    save(store, sweep, watch.trials[retried], Run(300))
    assert (watch.look().total.finished, watch.look().total.crashed) == (7, 0)
    assert len(reads) == 9
    store.path(retried).write_bytes(b"")
    now = watch.look()
    assert (now.total.missing, now.total.unreadable) == (5, 1)
    assert [trial for trial, _ in now.unreadable] == [retried]
    assert "1 unreadable." in run("made", code=1).stdout


# -------------------------------------------------------------------------------------------------------- the machine


def test_the_use_of_gpus_is_told_where_it_is_known(monkeypatch, here):
    monkeypatch.undo()
    host = socket.gethostname()
    assert status.use("another") == ()
    tool = here / "nvidia-smi"
    monkeypatch.setenv("PATH", f"{here}:{os.environ['PATH']}")

    def says(script: str) -> tuple[str, ...]:
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)
        return status.use(host)

    both = says("echo '0, H100, 87, 2048, 81920'; echo '1, [odd], [N/A], [N/A], [N/A]'")
    assert both == ("GPU 0 (H100): 87 %, 2.0 of 80 GiB", "GPU 1 ([odd]): [N/A] %")
    for script in ("exit 9", "echo nonsense", "echo '0, a'; exit 1", "printf '\\377'"):
        assert says(script)[0].startswith("CPU load: ")
    asked, late = subprocess.run, []

    def run(*words, **how):
        try:
            return asked(*words, **how)
        except subprocess.TimeoutExpired as error:
            late.append(error.timeout)
            raise

    monkeypatch.setattr(status.subprocess, "run", run)
    assert says("exec sleep 30")[0].startswith("CPU load: ")
    assert late == [2]


def test_status_imports_nothing_heavy(made):
    code = (
        "import sys\nfrom harness.cli.app import app\napp(['status', 'made'], standalone_mode=False)\n"
        "print([name for name in ('torch', 'ray', 'transformers', 'scipy', 'datasets', 'matplotlib') "
        "if name in sys.modules])\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout.splitlines()[-1]) == (0, "[]"), ran.stderr


def test_a_second_look_reads_only_what_is_new(here, monkeypatch):
    sweep = sweep_of(here / "sweeps", "title: T\n" + HEAD + "lr: 1e-5\nepochs: 3\nseeds: 1..40\n")
    trials = expand(sweep)
    store = store_of(here / "results", sweep, {0: [Run(300)]})
    text = store.path(trials[0].id).read_text()
    assert ENVIRONMENT.device_name in text

    def content_of(trial):
        return re.sub(r'seed": 1\b', f'seed": {trial.seeds.seed}', text.replace(trials[0].id, trial.id))

    *others, last = trials[1:]
    for trial in others:
        store.path(trial.id).write_text(content_of(trial))
    watch, read, load_record = status.Watch(sweep, store), [], store.read
    monkeypatch.setattr(store, "read", lambda one: read.append(one) or load_record(one))
    assert watch.look().total.finished == 39
    assert len(read) == len(set(read)) == 39
    assert watch.look().total.finished == 39
    store.path(last.id).write_text(content_of(last))
    assert watch.look().total.finished == 40
    assert read[39:] == [last.id]


# ------------------------------------------------------------------------------------------------ seeds added by rule


def test_seeds_that_are_not_due_are_not_missing_and_what_comes_next_is_said(here, monkeypatch):
    rule = "{first: 3, at_most: 12, step: 3, until: bias_correction settled}"
    sweep = sweep_of(here / "sweeps", TEXT.replace("1..3", rule))
    fails, learns = Run(200), Run(350)
    fates = {0: fails, 1: learns, 2: learns, 3: learns}
    store = store_of(here / "results", sweep, {cell: [run] * (3 - (cell == 3)) for cell, run in fates.items()})
    now = shown("made")
    assert (now["planned"], now["finished"], now["missing"]) == (12, 11, 1)
    assert (now["seeds"]["looks"], now["seeds"]["waiting"], now["seeds"]["at_most_trials"]) == (0, 1, 48)
    assert "12, at most" not in run("made").stdout
    assert "The first look comes when 1 more run has ended." in run("made").stdout
    (lacking,) = [trial for trial in expand(sweep) if store.load(trial.id) is None]
    watch = status.Watch(sweep, store)
    assert watch.look().total.missing == 1
    save(store, sweep, lacking, fates[lacking.cell])
    grown = watch.look()  # as the driver will find it, though it has not written the plan yet
    assert (grown.total.planned, grown.total.missing, grown.cells[0].planned) == (24, 12, 6)
    said = run("made").stdout
    assert "12 of 24 trials finished, 3 of them failed, 12 missing." in said
    assert "Seeds are added by rule (bias_correction settled; 3 seeds at first, 3 more at a time, at most 12)" in said
    assert "After 1 look 24 runs are planned, because bias correction on vs. off is not settled: −50 points" in said
    while (ended := watch.look()).total.missing:
        for trial in watch.trials.values():
            if store.load(trial.id) is None:
                save(store, sweep, trial, fates[trial.cell])
    assert ended.seeds is not None
    assert (ended.seeds.waiting, ended.seeds.looks) == (0, 2)
    enough = "Enough is known after 2 looks and 24 runs: bias correction on fails less often than off: −50 points"
    assert enough in run("made").stdout
    monkeypatch.setattr(gate, "check_planned", lambda sweep, records: None)  # the data are made up
    planned = CliRunner().invoke(app, ["plan", "made"])
    assert "4 cells × 6 seeds = 24 trials: 24 finished, 0 crashed, 0 missing." in planned.stdout
    assert enough in planned.stdout
    told = json.loads(CliRunner().invoke(app, ["plan", "made", "--json"]).stdout)
    assert told["seeds"] == shown("made")["seeds"]
    assert (told["seeds"]["stopped"], told["seeds"]["reached"]) == (True, True)
