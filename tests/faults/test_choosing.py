"""What several people and commands do with one results folder at once, parts of a sweep, and trials tried again."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Bench, unhurried

from harness.config.trials import expand
from harness.records.store import HEARTBEAT, Store

IN_PROCESS, RAY = ("--in-process", "--pack", 2), ("--workers", 2, "--pack", 2)
WAYS = pytest.mark.parametrize("how", [IN_PROCESS, RAY], ids=["in_process", "ray"])


def harness(*words: object, code: int = 0) -> str:
    """What a command of a process of its own prints."""
    command = [sys.executable, "-c", "from harness.cli.app import main; main()", *map(str, words)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=unhurried(120))
    assert ran.returncode == code, ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr
    return ran.stdout


def test_two_sweeps_at_once_and_looks_in_between(bench: Bench) -> None:
    """Exactly one of the two trains."""
    both = [bench.start("--in-process", "--pack", 2) for _ in range(2)]
    bench.until(lambda: any(child.poll() is not None for child in both), both[0])  # the one that is refused
    bench.until(bench.kept, both[0] if both[1].poll() is not None else both[1])
    assert json.loads(harness("status", bench.store.folder, "--json"))["state"] == "running"
    said = [child.communicate(timeout=unhurried(120))[0] for child in both]
    codes = [child.returncode for child in both]
    assert sorted(codes) == [0, 2], said
    refused = said[codes.index(2)].splitlines()[-1]
    assert f"in use by process {both[codes.index(0)].pid} on " in refused
    assert f"{len(bench.undisturbed)} trained now" in said[codes.index(0)]
    bench.ends_as_undisturbed()


def test_reports_while_a_sweep_runs(bench: Bench) -> None:
    child = bench.start("--in-process", "--pack", 1)
    bench.until(bench.kept, child)
    finished = []
    while child.poll() is None and len(finished) < 3:
        cells = json.loads(harness("report", bench.store.folder, "--json"))["cells"]
        assert [cell["planned"] for cell in cells] == [20, 20]
        assert all(cell["finished"] + cell["missing"] == 20 for cell in cells)
        finished.append(sum(cell["finished"] for cell in cells))
        assert (bench.store.folder / "report" / "index.html").is_file()
    said = child.communicate(timeout=unhurried(120))[0]
    assert child.returncode == 0, said
    assert finished == sorted(finished)
    assert 0 < finished[0] < len(bench.undisturbed)
    bench.ends_as_undisturbed()


# Run by every Python that has its folder on its path: training fails while a file lies beside it.
FAILING = """
import importlib.util
import sys
from pathlib import Path


class Finder:
    def find_spec(self, name, path=None, target=None):
        if name != "harness.training.loop":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def with_failing_train(module):
            execute(module)
            train = module.train

            def failing(*given, **named):
                if Path(__file__).with_name("failing").exists():
                    raise RuntimeError("no such kernel")
                return train(*given, **named)

            module.train = failing

        spec.loader.exec_module = with_failing_train
        return spec


sys.meta_path.insert(0, Finder())
"""


@WAYS
def test_crashed_trials_are_tried_again_when_asked_for(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: tuple[object, ...]
) -> None:
    """Training fails in every worker, after all that is looked at beforehand."""
    sweep = bench.sweep
    (tmp_path / "sitecustomize.py").write_text(FAILING)
    (tmp_path / "failing").touch()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    for attempt in (1, 2):
        again = () if attempt == 1 else ("--retry-crashed",)
        child = bench.start(*how, "--only", "seed=1", *again)
        said = child.communicate(timeout=unhurried(120))[0]
        assert child.returncode == 1, said
        assert "0 of 40 trials finished (2 trained now)" in said
        crashed = json.loads(harness("status", bench.store.folder, "--json"))["crashed_trials"]
        assert [one["attempts"] for one in crashed] == [attempt] * 2
        assert all("no such kernel" in one["error"] for one in crashed)
    assert "(attempt 2): " in harness("status", bench.store.folder)
    (tmp_path / "failing").unlink()
    child = bench.start(*how, "--only", "seed=1")
    said = child.communicate(timeout=unhurried(120))[0]
    assert child.returncode == 1, said  # not tried again by itself
    assert "none trained now" in said
    child = bench.start(*how, "--only", "seed=1", "--retry-crashed")
    said = child.communicate(timeout=unhurried(120))[0]
    assert child.returncode == 0, said
    for trial in expand(sweep):
        record = bench.store.load(trial.id)
        assert (record.attempts if record else 0) == (3 if trial.seeds.seed == 1 else 0)
        aside = [bench.store.path(f"{trial.id}.attempt{number}").exists() for number in (1, 2, 3)]
        assert aside == [trial.seeds.seed == 1] * 2 + [False]
    harness("verify", bench.store.folder)
    for path in bench.store.trials.glob("*.attempt*.json"):
        path.unlink()
    bench.ends_as_undisturbed()


@WAYS
def test_a_time_limit_ends_what_would_go_on_for_hours(bench: Bench, how: tuple[object, ...]) -> None:
    started = time.monotonic()
    child = bench.start(*how, "--set", "epochs=50000", "--time-limit", "30s")
    said = child.communicate(timeout=unhurried(90))[0]
    assert 28 < time.monotonic() - started < unhurried(70)  # with the imports
    assert child.returncode == 1, said
    store = Store(bench.store.folder)
    training = f"{4 if how == RAY else 2} of them in training: their state is kept"
    assert f"the time limit leaves 40 trials missing, {training}" in said
    assert len(list((store.folder / "checkpoints").iterdir())) == (2 if how == RAY else 1)
    assert not list(store.trials.glob("*"))
    assert not (store.folder / HEARTBEAT).exists()
    bench.nothing_left()


def test_parts_of_a_sweep_add_up_to_it(bench: Bench) -> None:
    for number in (1, 2):
        child = bench.start(*RAY, "--max-trials", 5)
        said = child.communicate(timeout=unhurried(120))[0]
        assert child.returncode == 0, said
        assert f"{5 * number} of 40 trials finished (5 trained now)" in said
        assert bench.kept() == 5 * number
    bench.ends_as_undisturbed()
