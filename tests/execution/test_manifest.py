"""A seal holds every byte of a folder but what can be made again, and one printed hash holds the seal."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from made_runs import Run
from typer.testing import CliRunner
from whole_records import TEXT, edit, whole_store

from harness.cli.app import app
from harness.common.errors import HarnessError
from harness.config.trials import Sweep, expand
from harness.execution.verification import manifest
from harness.records.store import Store

RUNS = [Run(300), Run(310)]


@pytest.fixture
def folder(tmp_path: Path) -> tuple[Sweep, Store]:
    """Two finished trials of one cell."""
    return whole_store(tmp_path, RUNS, TEXT.replace("[1e-5, 2e-5]", "1e-5").replace("1..4", "1..2"))


def command(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(map(str, words)))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def sealed(store: Store, printed: str | None) -> tuple[set[str], set[str]]:
    """Files of which (problems, notes) are found."""
    problems, notes = manifest.check(store, printed)
    return {one.file for one in problems}, {one.file for one in notes}


def test_a_folder_that_was_not_touched_is_as_it_was_sealed(folder: tuple[Sweep, Store], tmp_path: Path) -> None:
    sweep, store = folder
    first = manifest.seal(store, sweep.folder_name).manifest
    assert set(first.files) == {
        "plan.json", *(f"trials/{trial.id}.{ending}" for trial in expand(sweep) for ending in ("json", "npz")),
    }  # fmt: skip
    assert manifest.seal(store, sweep.folder_name).manifest.sha256 == first.sha256  # whenever it is sealed
    copied = Store(tmp_path / "elsewhere")
    shutil.copytree(store.folder, copied.folder)
    for beside in ("report/index.html", "runs/x/out.txt", "reruns.json", "running.json", ".lock", "trials/.x.tmp"):
        path = copied.folder / beside
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("made again")
    for printed in (None, first.sha256, first.sha256[:16], first.sha256.upper()):
        assert sealed(copied, printed) == (set(), set())
    assert sealed(Store(tmp_path / "none"), None) == (set(), set())
    assert sealed(Store(tmp_path / "none"), first.sha256) == ({manifest.NAME}, set())


def test_whatever_is_touched_is_named(folder: tuple[Sweep, Store], tmp_path: Path) -> None:
    sweep, store = folder
    printed = manifest.seal(store, sweep.folder_name).manifest.sha256
    one, other = (f"trials/{trial.id}" for trial in expand(sweep))
    harms: dict[str, tuple[Callable[[Path], object], set[str]]] = {
        "a digit": (lambda f: edit(Store(f), Path(one).name, attempts=2), {f"{one}.json"}),
        "a byte of arrays": (lambda f: _append(f / f"{one}.npz"), {f"{one}.npz"}),
        "a record gone": (lambda f: (f / f"{one}.json").unlink(), {f"{one}.json"}),
        "a trial gone": (
            lambda f: [(f / f"{one}.{end}").unlink() for end in ("json", "npz")], {f"{one}.json", f"{one}.npz"},
        ),
        "a trial more": (lambda f: (f / "trials" / "more.json").write_text("{}"), {"trials/more.json"}),
        "swapped": (lambda f: _swap(f / f"{one}.npz", f / f"{other}.npz"), {f"{one}.npz", f"{other}.npz"}),
        "the plan": (lambda f: _append(f / "plan.json"), {"plan.json"}),
        "a FIFO": (lambda f: ((f / "plan.json").unlink(), os.mkfifo(f / "plan.json")), {"plan.json"}),
        "the seal": (lambda f: _edited(f / manifest.NAME), {manifest.NAME}),
        "a new seal": (lambda f: _resealed(f, one, sweep), {manifest.NAME}),
        "no seal": (lambda f: (f / manifest.NAME).unlink(), {manifest.NAME}),
        "a cut seal": (lambda f: (f / manifest.NAME).write_text("{"), {manifest.NAME}),
    }  # fmt: skip
    for number, (kind, (harm, files)) in enumerate(harms.items()):
        copied = Store(tmp_path / str(number))
        shutil.copytree(store.folder, copied.folder)
        harm(copied.folder)
        assert sealed(copied, printed) == (files, set()), kind
        problems, notes = sealed(copied, None)  # without the printed hash a new seal is as good as the first
        assert problems | notes == (set() if kind in ("the seal", "a new seal", "no seal") else files), kind


def _append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


def _swap(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def _edited(path: Path) -> None:
    content = json.loads(path.read_text())
    content["sweep"] = "theirs"
    path.write_text(json.dumps(content))


def _resealed(folder: Path, one: str, sweep: Sweep) -> None:
    edit(Store(folder), Path(one).name, attempts=2)
    manifest.seal(Store(folder), sweep.folder_name)


def test_what_cannot_be_sealed_is_refused(folder: tuple[Sweep, Store], tmp_path: Path) -> None:
    sweep, store = folder
    with pytest.raises(HarnessError, match=r"no plan\.json"):
        manifest.seal(Store(tmp_path / "none"), "x")
    (store.folder / "models").mkdir()
    (store.folder / "models" / "link").symlink_to(tmp_path)
    with pytest.raises(HarnessError, match="models/link is not a regular file"):
        manifest.seal(store, sweep.folder_name)
    for text in ("abc", "x" * 64, "a" * 65, ""):
        with pytest.raises(HarnessError, match="16 to 64 hexadecimal digits"):
            manifest.read_printed(text)


def test_a_name_that_no_manifest_can_hold_is_refused(folder: tuple[Sweep, Store], tmp_path: Path) -> None:
    """Sealed with another name in its place the folder would contradict its own manifest."""
    sweep, store = folder
    copied = Store(tmp_path / "copied")
    shutil.copytree(store.folder, copied.folder)
    (copied.trials / os.fsdecode(b"\xff.json")).write_bytes(b"")
    with pytest.raises(HarnessError, match="is no UTF-8"):
        manifest.seal(copied, sweep.folder_name)


def test_the_commands_seal_and_hold_a_folder_to_the_hash(folder: tuple[Sweep, Store]) -> None:
    sweep, store = folder
    text = command("seal", store.folder)
    digest = text.split("SHA-256: ")[1].split()[0]
    assert f"verify {store.folder} --manifest {digest}" in " ".join(text.split())
    assert command("verify", store.folder, "--manifest", digest).split()[-1] == "0"
    assert json.loads(command("seal", store.folder, "--json"))["sha256"] == digest
    (store.folder / "baselines.json").write_text("[]")
    found = json.loads(command("verify", store.folder, "--json"))
    assert [(one["file"], one["rule"]) for one in found["notes"]] == [("baselines.json", "sealed")]
    found = json.loads(command("verify", store.folder, "--manifest", digest, "--json", code=1))
    assert [(one["file"], one["rule"]) for one in found["problems"]] == [("baselines.json", "sealed")]
    edit(store, expand(sweep)[0].id, measured__final_score=0.8)
    assert "Sealed with 2 problems" in command("seal", store.folder, code=1)
