"""The harness's engine in a process of its own: whole trials, a step by lanes, memory of lanes, what recording adds.

`python -m benchmarks.speed.lanes trials|steps|peak|recording --work DIR`; the last line of standard output is JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain, count
from pathlib import Path

import torch

from harness.config.trials import Trial
from harness.execution import lanes_memory
from harness.training.callbacks import report_progress
from harness.training.loop import train

from . import work
from .loop import Loop, synchronise
from .peaks import Peaks
from .work import SIZES

_WARM = 3  # steps before the clock runs: the first ones plan, record and fill caches
# On a CPU a longer product ends the search: one without instructions for bfloat16 would take minutes.
_LONG = 1.0  # seconds
# Sides of the square matrices whose product is timed for the device's rate.
_SIDES = {"cpu": (512, 1024, 2048), "cuda": (2048, 4096, 8192, 16384)}


class _EnoughError(Exception):
    """A pack has done the steps that were to be timed."""


def pack_seconds(pack: Sequence[Trial], device: str, threads: int, steps: int, *, record: bool = True) -> float:
    """Seconds of a step of a pack, by `train` itself, which is left after so many."""
    marks = []

    def progress(step: int, _: int) -> None:
        if step in (_WARM, _WARM + steps):
            synchronise(device)
            marks.append(time.perf_counter())
        if step == _WARM + steps:
            raise _EnoughError

    with suppress(_EnoughError):
        train(pack, device=device, threads=threads, callbacks=[report_progress(progress)], record=record)
    if len(marks) < 2:
        raise ValueError(f"a trial has fewer than {_WARM + steps} steps")
    return (marks[1] - marks[0]) / steps


def plain_seconds(updates: Iterator[object], device: str, steps: int) -> float:
    """Seconds of an update of the plain loop."""
    synchronise(device)
    started = time.perf_counter()
    for _ in range(steps):
        next(updates)
    synchronise(device)
    return (time.perf_counter() - started) / steps


def product_rate(device: str, precision: str) -> float:
    """The best rate of a product of square matrices in this precision, floating-point operations a second."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    best = 0.0
    for side in _SIDES[device]:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        synchronise(device)
        started = time.perf_counter()
        one @ other
        synchronise(device)
        if device == "cpu" and (seconds := time.perf_counter() - started) > _LONG:
            best = max(best, 2 * side**3 / seconds)
            break
        for _ in range(3):
            synchronise(device)
            started = time.perf_counter()
            repeats = 10 if device == "cuda" else 1
            for _ in range(repeats):
                one @ other
            synchronise(device)
            best = max(best, 2 * side**3 * repeats / (time.perf_counter() - started))
    torch.set_float32_matmul_precision("highest")
    return best


def steps(folder: Path, device: str, threads: int, steps: int, repetitions: int) -> dict[str, object]:
    """Seconds of a lane-step of the plain module and of packs, in turns; the rate of products; what failed and why."""
    torch.set_num_threads(threads)
    pack = work.trials(folder, max(SIZES))
    width = json.loads((folder / "plain.json").read_text())["width"]
    loop = Loop(folder, device)
    updates = chain.from_iterable(loop.steps(seed) for seed in count(1))
    found: dict[str, list[float]] = {"plain": [], **{str(size): [] for size in SIZES}}
    failed: dict[str, str] = {}
    rate = 0.0
    plain_seconds(updates, device, _WARM)
    for turn in range(repetitions):
        rate = max(rate, product_rate(device, pack[0].recipe.precision))
        # The loop's own switch of precision, which `train` puts back to what it found.
        torch.set_float32_matmul_precision("high" if pack[0].recipe.precision == "tf32" else "highest")
        found["plain"].append(plain_seconds(updates, device, steps))
        for size in SIZES:
            if str(size) in failed:
                continue
            try:
                found[str(size)].append(pack_seconds(pack[:size], device, threads, steps) / size)
            except RuntimeError as error:
                _unless_too_large(error)
                failed[str(size)], found[str(size)] = "out of memory", []
            _release(device)
        print(f"    repetition {turn + 1} of {repetitions}", file=sys.stderr, flush=True)
    return {"seconds": found, "failed": failed, "rate": rate, "flops": work.lane_step(pack[0].recipe, width)}


def recording(folder: Path, device: str, threads: int, steps: int, repetitions: int) -> dict[str, object]:
    """Seconds of a step of packs with what a diagnosis reads recorded, and without, in turns."""
    sizes = (1, 8)
    pack = work.trials(folder, max(sizes))
    found: dict[str, dict[str, list[float]]] = {kind: {str(size): [] for size in sizes} for kind in ("with", "without")}
    for turn in range(repetitions):
        for size in sizes:
            for kind in found:
                seconds = pack_seconds(pack[:size], device, threads, steps, record=kind == "with")
                found[kind][str(size)].append(seconds)
        print(f"    repetition {turn + 1} of {repetitions}", file=sys.stderr, flush=True)
    return {"seconds": found}


def trials(folder: Path, device: str, threads: int, number: int) -> dict[str, object]:
    """Train so many trials in packs as large as the harness makes them, smaller where the memory proves too small."""
    left = work.trials(folder, number)
    most = lanes_memory.pack_size(left[0].recipe, device, None)
    scores, packs = [], []
    started = time.perf_counter()
    while left:
        pack = left[:most]
        try:
            results = train(pack, device=device, threads=threads)
        except RuntimeError as error:
            _unless_too_large(error)
            if most == 1:
                raise
            most = len(pack) // 2
            results = []
        if results:
            scores += [one.measured.final_score for one in results]
            packs.append(len(pack))
            left = left[len(pack) :]
        else:
            _release(device)
    return {"seconds": time.perf_counter() - started, "scores": scores, "packs": packs}


def peak(folder: Path, device: str, threads: int, lanes: int) -> dict[str, object]:
    """The most bytes that training a pack ever held, the process's on a CPU, the allocated ones on a GPU; and the
    seconds of a lane-step.
    """
    marks = []

    def progress(step: int, steps: int) -> None:
        if step in (_WARM, steps):
            synchronise(device)
            marks.append((step, time.perf_counter(), time.process_time()))

    with Peaks() as peaks:
        (first, *_) = train(
            work.trials(folder, lanes), device=device, threads=threads, callbacks=[report_progress(progress)]
        )
    (start, began, worked), (end, ended, last) = marks[0], marks[-1]
    lane_steps = max(1, end - start) * lanes
    seconds = (ended - began) / lane_steps
    if device == "cuda":
        return {"bytes": first.measured.peak_memory_bytes, "seconds": seconds}
    return {**peaks.bytes, "seconds": seconds, "cpu_seconds": (last - worked) / lane_steps}


def _unless_too_large(error: RuntimeError) -> None:
    if not re.search(r"out of memory|can't allocate memory|ALLOC_FAILED", str(error)):
        raise error


def _release(device: str) -> None:
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def main() -> None:
    """Do one of them and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("trials", "steps", "peak", "recording"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--number", type=int, default=16, help="trials, lanes, or steps a repetition")
    parser.add_argument("--repetitions", type=int, default=5)
    given = parser.parse_args()
    place = (given.work, given.device, given.threads, given.number)
    if given.what in ("steps", "recording"):
        found = (steps if given.what == "steps" else recording)(*place, given.repetitions)
    else:
        found = trials(*place) if given.what == "trials" else peak(*place)
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
