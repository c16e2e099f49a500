"""What the harness costs beside a script: 200 commands of 10 ms, in process, against starting them in a loop.

`python -m benchmarks.script_overhead [--trials 200] [--repetitions 3]`: the two in turns, seconds a trial of each and
the difference of the medians; the bar is 50 ms. The sweep ends with all records written; its page is not part of it.
"""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from harness.config.sweep_file import load
from harness.execution import driver
from harness.execution.driver import Options
from harness.records.store import Store

COMMAND = "sh -c 'sleep 0.01; echo acc=0.6' train {seed}"
BAR_MS = 50
SWEEP = """title: Two hundred short commands
command: {command}
seeds: 1..{trials}
score: {{stdout: "acc=([0-9.]+)"}}
"""


def loop(trials: int) -> float:
    """Seconds that a loop takes which starts the commands and does nothing else."""
    began = time.perf_counter()
    for seed in range(1, trials + 1):
        words = shlex.split(COMMAND.format(seed=seed))
        subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def sweep(trials: int) -> float:
    """Seconds that a sweep of them takes, from its file to its last record."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "short.yaml"
        file.write_text(SWEEP.format(command=COMMAND, trials=trials))
        began = time.perf_counter()
        loaded = load(file)
        ended = driver.run(loaded, Store(Path(folder) / "results"), Options(in_process=True), lambda progress: None)
        seconds = time.perf_counter() - began
    if ended.finished != trials:
        raise SystemExit(f"{ended.finished} of {trials} finished")
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--repetitions", type=int, default=3)
    given = parser.parse_args()
    sweep(2)  # imports
    loops, sweeps = [], []
    for _ in range(given.repetitions):
        loops.append(1000 * loop(given.trials) / given.trials)
        sweeps.append(1000 * sweep(given.trials) / given.trials)
    cost = statistics.median(sweeps) - statistics.median(loops)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {given.trials} trials, ms a trial:")
    for name, values in (("loop", loops), ("sweep", sweeps)):
        print(f"{name}: {statistics.median(values):.1f} ({', '.join(f'{value:.1f}' for value in values)})")
    print(f"the harness costs {cost:.1f} ms a trial (bar {BAR_MS}: {'held' if cost < BAR_MS else 'MISSED'})")


if __name__ == "__main__":
    main()
