"""A stranger's folder whose files block, claim absurd sizes or lie elsewhere costs a bounded time, and only itself."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from driving import quiet
from made_runs import Run
from typer.testing import CliRunner
from whole_records import rewrite, whole_store

from harness.cli.app import app
from harness.config.trials import Sweep, expand
from harness.execution import driver
from harness.records.store import Store
from harness.records.study import of_sweep
from harness.serve.studies import Library

SECONDS = 20  # none of these takes a second on an idle machine


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two cells of four trials, all in order."""
    runs = [Run(300), Run(310), Run(200), Run(320), Run(320), Run(325), Run(330), None]
    return whole_store(tmp_path_factory.mktemp("hostile"), list(runs))[1]


@pytest.fixture
def store(whole: Store, tmp_path: Path) -> Iterator[Store]:
    """A copy to plant things in; what hangs fails."""

    def late(number: int, frame: object) -> None:
        raise AssertionError(f"it takes more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    folder = tmp_path / "results" / whole.folder.name
    shutil.copytree(whole.folder, folder)
    yield Store(folder)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def _plan(store: Store, change: Callable[[dict], object]) -> Sweep:
    """Change the plan, whose ids then follow from it."""
    path = store.folder / "plan.json"
    content = json.loads(path.read_text())
    change(content["sweep"])
    sweep = Sweep.model_validate_json(json.dumps(content["sweep"]))
    content["trials"] = [trial.id for trial in expand(sweep)]
    path.write_text(json.dumps(content))
    return sweep


def _very_long_training(store: Store) -> None:
    """A plan of 10^9 epochs, and records that go with it and with 10^10 examples: 10^18 updates are due."""
    before = expand(store.load_plan() or pytest.fail("no plan"))
    sweep = _plan(store, lambda plan: [cell["recipe"].update(epochs=10**9) for cell in plan["cells"]])
    for old, trial in zip(before, expand(sweep), strict=True):
        if store.path(old.id).exists():
            content = json.loads(store.path(old.id).read_text())
            content |= {"id": trial.id, "trial": json.loads(trial.model_dump_json())}
            content["measured"]["train_examples"] = 10**10
            store.path(trial.id).write_text(json.dumps(content))
            store.path(old.id).with_suffix(".npz").rename(store.path(trial.id).with_suffix(".npz"))
            store.path(old.id).unlink()


def _lock(store: Store) -> None:
    (store.folder / ".lock").unlink(missing_ok=True)
    os.mkfifo(store.folder / ".lock")


def _fifo(name: str) -> Callable[[Store], object]:
    def make(store: Store) -> None:
        path = store.folder / name
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(path)

    return make


def _deep(store: Store) -> None:
    folder = os.open(store.folder, os.O_RDONLY)
    for _ in range(1010):
        os.mkdir("d", dir_fd=folder)
        inner = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)


def _many_classes(store: Store) -> None:
    """Sixteen thousand classes, whose confusion table would take gigabytes."""
    name = expand(store.load_plan() or pytest.fail("no plan"))[0].id
    rewrite(store, name, logits=np.zeros((400, 16_000), np.float32))


def _manifest(store: Store) -> None:
    files = {f"{number}.json": "1" * 64 for number in range(100_000)} | {"../../../dev/zero": "2" * 64, "\0": "3" * 64}
    content = {"schema_version": 1, "sweep": "x", "plan_sha256": "1" * 64, "files": files}
    (store.folder / "MANIFEST.json").write_text(json.dumps(content))


HARMS: dict[str, Callable[[Store], object]] = {
    "10^18 updates": _very_long_training,
    "a lock that blocks": _lock,
    "16,000 classes": _many_classes,
    "100,000 sealed files": _manifest,
    **{f"{name} blocks": _fifo(name) for name in (
        "running.json", "reruns.json", "baselines.json", "surface.npz", "MANIFEST.json", "study.log",
        "report/tables/runs.csv", "models/x/harness.json",
    )},
}  # fmt: skip


@pytest.mark.parametrize("kind", HARMS)
def test_what_blocks_or_claims_very_much_is_neither_waited_for_nor_believed(store: Store, kind: str) -> None:
    HARMS[kind](store)
    for command in ("verify", "status"):
        ended = CliRunner().invoke(app, [command, str(store.folder), "--json"])
        assert ended.exception is None or isinstance(ended.exception, SystemExit)
        assert ended.exit_code in (0, 1)
        assert ended.stdout
    sweep = store.load_plan()
    assert sweep is not None
    assert len(of_sweep(sweep, store).runs) == 8  # what a report, a figure and a table are made of
    (study,) = Library(store.folder.parent).studies()
    assert study.summary()["planned"] == 8


def test_a_sweep_waits_for_no_sign_of_life_that_blocks(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    _fifo("running.json")(store)
    (store.folder / ".x.tmp").mkdir()
    monkeypatch.setattr("harness.execution.gate.check_inputs", lambda *given: None)  # the runs are made up
    sweep = store.load_plan()
    assert sweep is not None
    ended = driver.run(sweep, store, driver.Options(in_process=True, only=("seed=1",)), quiet)
    assert (ended.finished, ended.trained_now) == (7, 0)
    assert not (store.folder / "running.json").exists()


def test_imported_runs_that_block_are_refused(store: Store) -> None:
    _fifo("runs.csv")(store)
    (store.folder / "imported.json").write_text("{}")
    library = Library(store.folder.parent)
    assert library.studies() == ()
    assert list(library.unreadable()) == [store.folder.name]


def test_folders_in_folders_without_end_are_no_reason_to_crash(store: Store) -> None:
    _deep(store)
    try:
        ended = CliRunner().invoke(app, ["seal", str(store.folder)])
        assert ended.exception is None or isinstance(ended.exception, SystemExit)
    finally:
        subprocess.run(["rm", "-rf", str(store.folder / "d")], check=True)  # Python's recurses


PLANS: dict[str, Callable[[dict], object]] = {
    "cells of other axes": lambda plan: plan["cells"][0].update(axes=[]),
    "an axis twice": lambda plan: [cell.update(axes=[["lr", 1], ["lr", 2]]) for cell in plan["cells"]],
    "a reference of no axis": lambda plan: plan.update(reference=[["luck", 1]]),
    "a reference of no value": lambda plan: plan.update(reference=[["lr", "x"]]),
    "a long title": lambda plan: plan.update(title="\x1b]0;x\x07" * 100_000),
    "a column's name": lambda plan: [cell.update(axes=[["status", 1]]) for cell in plan["cells"]],
    "a folder's name": lambda plan: plan.update(name="../../x"),
    "the same cell twice": lambda plan: plan["cells"].append(plan["cells"][0]),
}


@pytest.mark.parametrize("kind", PLANS)
def test_a_plan_that_no_sweep_file_gives_is_refused_in_a_line(store: Store, kind: str) -> None:
    path = store.folder / "plan.json"
    content = json.loads(path.read_text())
    PLANS[kind](content["sweep"])
    path.write_text(json.dumps(content))
    ended = CliRunner().invoke(app, ["table", "cells", str(store.folder)])
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.count("\n") == 1
    assert "\x1b" not in ended.stderr
    ended = CliRunner().invoke(app, ["verify", str(store.folder)])
    assert ended.exception is None or isinstance(ended.exception, SystemExit)
