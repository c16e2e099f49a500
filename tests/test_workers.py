"""Which code trains, and what a record says of where it was trained."""

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from harness import hub, workers
from harness.sweep import Trial
from harness.workers import Code, Place


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Callable[..., str]]:
    """A package in a git checkout of its own, and git in it."""
    package = tmp_path / "harness"
    package.mkdir()
    monkeypatch.setattr(workers, "__file__", str(package / "workers.py"))
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)

    def git(*words: str) -> str:
        who = ("-c", "user.name=me", "-c", "user.email=me@example.org")
        command = ["git", "-C", str(tmp_path), *who, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    return package, git


def test_the_commit_and_its_uncommitted_changes(checkout: tuple[Path, Callable[..., str]]) -> None:
    package, git = checkout
    now = workers.code.__wrapped__
    assert now() == Code(None, None)  # no checkout
    git("init", "-q")
    assert now() == Code(None, None)  # no commit
    (package / "a.py").write_text("a = 1\n")
    (package.parent / ".gitignore").write_text("*.pyc\n")
    git("add", ".")
    git("commit", "-qm", "one")
    commit = git("rev-parse", "--short=12", "HEAD").strip()
    (package.parent / "notes.txt").write_text("not the package's")
    (package / "a.pyc").write_bytes(b"ignored")
    assert now() == Code(commit, None)
    (package / "a.py").write_text("a = 2\n")
    changed = now()
    diff = subprocess.run(
        ["git", "-C", str(package), "diff", "HEAD", "--", "."], check=True, capture_output=True
    ).stdout
    assert changed == Code(f"{commit}-dirty", hashlib.sha256(diff).hexdigest())
    git("add", ".")  # staged or not is the same
    assert now() == changed
    (package / "b\u00e9.py").write_text("b = 1\n")
    untracked = now()
    assert untracked != changed
    (package / "b\u00e9.py").write_text("b = 2\n")
    assert len({untracked, changed, now()}) == 3


def test_a_place_takes_over_what_the_driver_knows(trial: Callable[..., Trial], monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker of a cluster has no checkout and read no command line."""
    place = Place("cpu", 1, Code("0123abc-dirty", "d" * 64), trusts_remote_code=True)
    monkeypatch.setattr(hub, "_trusted", False)
    ((record, _),) = workers.train_pack("s", "p", [trial(epochs=1)], place, None)
    environment = record.environment
    assert environment is not None
    assert hub.trusts_remote_code()
    assert Place("cpu", 1).trusts_remote_code
    assert (environment.commit, environment.dirty_diff_sha256) == ("0123abc-dirty", "d" * 64)
    assert (environment.driver, environment.cuda) == (None, torch.version.cuda)
    assert (environment.deterministic, environment.matmul_precision) == (False, "highest")
    assert environment.kernels == torch.backends.cpu.get_cpu_capability()
    ((record, _),) = workers.train_pack("s", "p", [trial(epochs=1, precision="tf32")], place, None)
    assert record.environment is not None
    assert record.environment.matmul_precision == "high"
    assert torch.get_float32_matmul_precision() == "highest"


def test_the_driver_is_asked_once_and_may_be_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path))
    ask = workers._driver.__wrapped__
    found = []
    for script in ("echo 570.86.10; echo 570.86.10", "echo failed; exit 9", "true"):
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)
        found.append(ask())
    tool.unlink()
    assert (*found, ask()) == ("570.86.10", None, None, None)
