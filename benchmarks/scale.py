"""What the harness itself costs with very many trials: `plan`, resume, `report`, `verify`, and each trial over Ray.

`make bench-scale`, or `python -m benchmarks.scale [--sizes 1000 10000] [--large] [--overhead 10000]`. The records are
made up so that `verify` finds nothing; every number is of a fresh process, with its peak memory. The bars: `plan`,
resume and `report` 10 s each on 10,000 records, 90 s and 2 GiB on 100,000 (`--large`); `verify` 8 s of CPU and 600 MiB
on 10,000; start-up of `plan` 1 s; 5 ms a trial in packs, 20 ms alone. A number over its bar is marked MISSED; `growth`
is seconds against those of the size before, by how many times more records there are: 1 is linear.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

if TYPE_CHECKING:
    from harness.config.recipe import TaskSpec
    from harness.config.trials import Sweep

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # made_runs

STEPS, CELLS = 20, 20
MOST_MIB, MOST_VERIFY_MIB = 2048, 600  # of memory, of one process
SWEEP = """title: A sweep of many trials
stand_in: made up
task: {{name: made, files: data, allow_unknown: true}}
model: embedded
lr: [1e-5, 2e-5, 5e-5, 1e-4, 2e-4]
bias_correction: [off, on]
epochs: [1, 2]
seeds: 1..{seeds}
profiles:
  embedded: {{}}
"""


def folder_of(home: Path) -> Path:
    """Where the records of the made-up sweep lie, under the working directory of the measured commands."""
    return home / "results" / "scale@embedded"


def make(home: Path, trials: int) -> None:
    """Write data, a sweep of so many trials and, without waiting for the disk, all its records as training leaves them.

    A thirtieth of them failed. The last trial is left out: a resume has to find it.
    """
    from made_runs import Run
    from whole_records import MAJORITY, save_whole

    from harness.common import files
    from harness.config.trials import expand
    from harness.data import tasks
    from harness.records.store import Store

    _write_data(home)
    sweep = _load(home, trials // CELLS)
    store = Store(folder_of(home))
    store.save_plan(sweep)
    data = tasks.load(sweep.cells[0].recipe.task).sha256
    with mock.patch.object(files, "flush"), mock.patch.object(os, "fsync"):
        for place, trial in enumerate(expand(sweep)[:-1]):
            correct = MAJORITY if place % 30 == 7 else MAJORITY + 1 + (place * 7 + trial.cell) % 180
            save_whole(store, sweep, trial, Run(correct), data_sha256=data)


def _write_data(home: Path) -> None:
    """Training and dev set of the sizes that the made-up records have."""
    from whole_records import EXAMPLES, MAJORITY, TRAINING

    (home / "data").mkdir(parents=True, exist_ok=True)
    for split, rows, first in (("train", TRAINING, TRAINING // 2), ("dev", EXAMPLES, MAJORITY)):
        lines = [f"{split} {row}\t{int(row >= first)}" for row in range(rows)]
        (home / "data" / f"{split}.tsv").write_text("\n".join(["text\tlabel", *lines, ""]))


def _load(home: Path, seeds: int) -> Sweep:
    """The made-up sweep, whose file is written here, beside one of a trial a cell."""
    from harness.config.sweep_file import load

    path = home / "sweeps" / "scale.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = SWEEP.replace("files: data", f"files: {(home / 'data').resolve()}")
    path.write_text(text.format(seeds=seeds))
    path.with_name("tiny.yaml").write_text(text.format(seeds=1))
    return load(path, "embedded")


def nothing(sweep: str, profile: str, trials: Sequence, *_more: object) -> list:
    """Stands for `train_pack.train_pack`: results of the right kind that took no time."""
    from made_runs import ENVIRONMENT

    from harness.execution import train_pack

    found, curves = _nothing(trials[0].recipe.task)
    now = "2025-01-01T00:00:00+00:00"
    return [(train_pack.make_record(sweep, profile, trial, now, ENVIRONMENT, found, None), curves) for trial in trials]


@lru_cache(maxsize=1)
def _nothing(task: TaskSpec) -> tuple:
    from made_runs import Run, curves_of, measured
    from whole_records import EXAMPLES, MAJORITY

    from harness.data import tasks

    found = measured(Run(MAJORITY + 5), STEPS, MAJORITY, EXAMPLES, "accuracy")
    return found.model_copy(update={"data_sha256": tasks.load(task).sha256}), curves_of(found)


def resume(home: Path) -> None:
    """What `harness sweep` does where one trial is missing: all but training it, without its report."""
    from harness.config.sweep_file import load
    from harness.config.trials import expand
    from harness.execution import driver, in_process
    from harness.records.store import Store

    sweep = load(home / "sweeps" / "scale.yaml", "embedded")
    store = Store(folder_of(home))
    with mock.patch.object(in_process, "train_pack", nothing):
        ended = driver.run(sweep, store, driver.Options(in_process=True), lambda progress: None)
    assert (ended.trained_now, ended.crashed, ended.missing) == (1, 0, 0), ended
    last = store.path(expand(sweep)[-1].id)
    last.unlink()
    last.with_suffix(".npz").unlink()


def overhead(home: Path, trials: int, lanes: int, most: int | None) -> None:
    """Print seconds a trial from the first pack handed to Ray to the last record on the disk, training nothing.

    The workers are the harness's own actors; only what they call to train is another.
    """
    from harness.execution import driver, ray_workers
    from harness.records.store import Store

    _write_data(home)
    sweep = _load(home, trials // CELLS)
    here = str(Path(__file__).parents[1])

    class Idle(ray_workers.RayWorker):
        """A worker whose training takes no time."""

        def __init__(self, *given: object, **named: object) -> None:
            sys.path.insert(0, here)
            from benchmarks import scale
            from harness.execution import ray_worker as module

            module.train_pack = scale.nothing  # in the worker's own process
            super().__init__(*given, **named)  # type: ignore[arg-type]

    times: list[float] = []
    shown: list[int] = []

    def show(progress: driver.Progress) -> None:
        times.append(time.perf_counter())
        shown.append(progress.finished)

    started = time.perf_counter()
    with mock.patch.object(ray_workers, "RayWorker", Idle):
        ended = driver.run(sweep, Store(folder_of(home)), driver.Options(workers=most, pack=lanes), show)
    whole = time.perf_counter() - started
    assert ended.finished == ended.planned, ended
    print(f"{(times[-1] - times[0]) / ended.planned * 1e3:.3f} {whole / ended.planned * 1e3:.3f} {whole:.1f}")


# -------------------------------------------------------------------------------------------------------- measuring


def measure(words: Sequence[str], home: Path) -> tuple[float, float, float, str]:
    """Wall seconds, processor seconds, peak memory in MiB and output of a command in a fresh process."""
    started = time.perf_counter()
    with subprocess.Popen(words, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        said = process.stdout.read()
        complaint = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)}: {process.returncode}\n{said}\n{complaint}")
    return time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, said


def missed(name: str, records: int, seconds: float, busy: float, peak: float) -> bool:
    """Whether a command was over its bar: `verify` by its CPU, the others by the clock of an idle machine."""
    if name == "verify" and records <= 10_000:
        return busy > 8 or peak > MOST_VERIFY_MIB
    return seconds > (1.0 if name == "start-up" else 10.0 if records <= 10_000 else 90.0) or peak > MOST_MIB


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[1000, 10_000], help="records, a multiple of 20")
    parser.add_argument("--large", action="store_true", help="100,000 records too")
    parser.add_argument("--overhead", type=int, default=10_000, help="trials over Ray; 0 leaves that out")
    parser.add_argument("--workers", type=int, help="over Ray; default: one a core")
    parser.add_argument("--only", nargs="*", help="some of the commands: start-up, plan, resume, report, verify")
    parser.add_argument("--make", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--resume", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--lanes", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.make:
        return make(given.home, given.make)
    if given.resume:
        return resume(given.home)
    if given.lanes:
        return overhead(given.home, given.overhead, given.lanes, given.workers)

    program = str(Path(sys.executable).with_name("harness"))
    again = [sys.executable, str(Path(__file__).resolve()), "--home", "."]
    commands = {
        "start-up": [program, "plan", "tiny"],
        "plan": [program, "plan", "scale"],
        "resume": [*again, "--resume"],
        "report": [program, "report", "scale"],
        "verify": [program, "verify", "scale"],
    }
    print(f"{'':10}{'records':>10}{'seconds':>10}{'of CPU':>10}{'MiB':>8}{'ms a record':>14}{'growth':>8}")
    before: dict[str, tuple[float, int]] = {}
    for size in [*given.sizes, *([100_000] if given.large else [])]:
        home = Path(tempfile.mkdtemp(prefix="bench-scale-"))
        try:
            measure([*again, "--make", str(size)], home)
            for name, words in commands.items():
                if given.only and name not in given.only:
                    continue
                seconds, busy, peak, _ = measure(words, home)
                each, growth = seconds / size * 1e3, ""
                if name in before and name != "start-up":
                    growth = f"{seconds / before[name][0] / (size / before[name][1]):.2f}"
                before[name] = seconds, size
                over = "  MISSED" if missed(name, size, seconds, busy, peak) else ""
                numbers = f"{seconds:10.2f}{busy:10.2f}{peak:8.0f}{each:14.3f}{growth:>8}"
                print(f"{name:10}{size:10,}{numbers}{over}", flush=True)
        finally:
            shutil.rmtree(home)
    for lanes in (8, 1) if given.overhead else ():
        home = Path(tempfile.mkdtemp(prefix="bench-scale-"))
        try:
            words = [*again, "--lanes", str(lanes), "--overhead", str(given.overhead)]
            _, _, peak, said = measure([*words, "--workers", str(given.workers)] if given.workers else words, home)
            each, with_start, whole = said.split()
            what = "alone" if lanes == 1 else f"packs of {lanes}"
            over = "  MISSED" if float(each) > (20 if lanes == 1 else 5) else ""
            print(f"over Ray, {what}: {given.overhead:,} trials, {each} ms a trial ({with_start} with Ray's start), "
                  f"{whole} s, {peak:.0f} MiB{over}", flush=True)  # fmt: skip
        finally:
            shutil.rmtree(home)


if __name__ == "__main__":
    main()
