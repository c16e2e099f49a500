"""Which code trains, and what a record says of where it was trained."""

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from harness.common import hub
from harness.config.trials import Trial
from harness.execution import pack_size, train_pack
from harness.execution.train_pack import Code, WorkerSetup
from harness.training import probes


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Callable[..., str]]:
    """A package in a git checkout of its own, and git in it."""
    package = tmp_path / "harness"
    package.mkdir()
    (package / "execution").mkdir()
    monkeypatch.setattr(train_pack, "__file__", str(package / "execution" / "train_pack.py"))
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)

    def git(*words: str) -> str:
        who = ("-c", "user.name=me", "-c", "user.email=me@example.org")
        command = ["git", "-C", str(tmp_path), *who, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    return package, git


def test_the_commit_and_its_uncommitted_changes(checkout: tuple[Path, Callable[..., str]]) -> None:
    package, git = checkout
    now = train_pack.code.__wrapped__
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
    place = WorkerSetup("cpu", 1, Code("0123abc-dirty", "d" * 64), trusts_remote_code=True)
    monkeypatch.setattr(hub, "_trusted", False)
    ((record, _),) = train_pack.train_pack("s", "p", [trial(epochs=1)], place, None)
    environment = record.environment
    assert environment is not None
    assert hub.trusts_remote_code()
    assert WorkerSetup("cpu", 1).trusts_remote_code
    assert (environment.commit, environment.dirty_diff_sha256) == ("0123abc-dirty", "d" * 64)
    assert (environment.driver, environment.cuda) == (None, torch.version.cuda)
    assert (environment.deterministic, environment.matmul_precision) == (False, "highest")
    assert environment.kernels == torch.backends.cpu.get_cpu_capability()
    ((record, _),) = train_pack.train_pack("s", "p", [trial(epochs=1, precision="tf32")], place, None)
    assert record.environment is not None
    assert record.environment.matmul_precision == "high"
    assert torch.get_float32_matmul_precision() == "highest"


def test_the_driver_is_asked_once_and_may_be_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path))
    ask = train_pack._driver.__wrapped__
    found = []
    for script in ("echo 570.86.10; echo 570.86.10", "echo failed; exit 9", "true"):
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)
        found.append(ask())
    tool.unlink()
    assert (*found, ask()) == ("570.86.10", None, None, None)


# ---------------------------------------------------------------------------------------------------- the pack size


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[int, float]:
    """Seconds a lane-step takes by lanes, which a test fills; more lanes than it fills are too many for the memory."""
    times: dict[int, float] = {}

    def step(trial: Trial, lanes: int, device: str, threads: int) -> tuple[float, int]:
        if lanes not in times:
            raise RuntimeError("CUDA error: out of memory")
        return times[lanes], 100

    monkeypatch.setattr(probes, "seconds_per_lane_step", step)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return times


@pytest.mark.parametrize(
    ("times", "most", "fastest"),
    [
        ({1: 4.0, 2: 3.0, 4: 2.0, 8: 1.99, 16: 1.0}, 32, 4),  # a doubling must win more than 3 %
        ({1: 4.0, 2: 3.0, 4: 2.0, 8: 1.0}, 5, 4),
        ({1: 4.0, 2: 3.0}, 32, 2),  # no memory for 4
        ({1: 4.0, 2: 4.5}, 32, 1),
    ],
)
def test_the_fastest_pack_is_measured(
    trial: Callable[..., Trial], measured: dict[int, float], times: dict[int, float], most: int, fastest: int
) -> None:
    measured |= times
    assert pack_size.lanes(trial(), WorkerSetup("cpu", 1), 3, most, 10) == fastest


def test_what_was_measured_is_kept_apart_by_shape_and_device(
    trial: Callable[..., Trial], measured: dict[int, float], tmp_path: Path
) -> None:
    place = WorkerSetup("cpu", 1)
    measured |= {1: 4.0, 2: 3.0, 4: 2.0}
    assert pack_size.lanes(trial(), place, 3, 4, 10) == 4
    measured |= {2: 5.0}
    assert pack_size.lanes(trial(seed=2, lr=1e-5, epochs=9), place, 3, 4, 10) == 4  # as kept
    assert pack_size.lanes(trial(), place, 3, 2, 10) == 2  # and never more than fit
    shapes = [trial(batch_size=4), trial(padding="batch"), trial(method="lora"), trial(optimizer="sgd")]
    for other, where in (*((shape, place) for shape in shapes), (trial(), WorkerSetup("cpu", 2))):
        assert pack_size.lanes(other, where, 3, 4, 10) == 1
    (kept, *_) = sorted((tmp_path / "stability-harness").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    kept.write_text('{"lanes":')
    assert pack_size.lanes(trial(), place, 3, 4, 10) == 1  # measured anew


def test_little_work_is_not_measured(
    trial: Callable[..., Trial], measured: dict[int, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured |= {1: 0.01}  # of 100 steps an epoch
    assert pack_size.lanes(trial(), WorkerSetup("cpu", 1), 3, 8, 200) == 3
    assert not list(tmp_path.iterdir())
    measured |= {2: 0.005}
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # where nothing can be kept
    assert pack_size.lanes(trial(), WorkerSetup("cpu", 1), 3, 8, 400) == 2


def test_a_measured_step_is_a_real_one(trial: Callable[..., Trial]) -> None:
    seconds, steps = probes.seconds_per_lane_step(trial(), 2, "cpu", 1)
    assert 0 < seconds < 60
    assert steps == 8
