"""Contenders as fresh processes: one after the other, several at once, or begun together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[2]
HARNESS = [sys.executable, "-c", "from harness.cli.app import main; main()"]
_LIMIT = 3600.0  # seconds after which a contender is killed


class NotMeasured(Exception):  # noqa: N818 - no error of ours: a contender that can't run here
    """Why a contender could not be measured."""


def environment(device: str, threads: int = 1) -> dict[str, str]:
    """What a contender's process sees: a GPU or none, its threads, no network."""
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {
        **os.environ,
        **hidden,
        "PYTHONPATH": paths,
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def module(name: str, work: Path, *words: str, **options: object) -> list[str]:
    """The command of a module of this package; True is a bare option, a list its values, None no option."""
    command = [sys.executable, "-m", f"benchmarks.speed.{name}", *words, "--work", str(work)]
    for key, value in options.items():
        if value is None or value is False:
            continue
        values = [] if value is True else value if isinstance(value, list) else [value]
        command += [f"--{key.replace('_', '-')}", *map(str, values)]
    return command


def run(command: Sequence[str], seen: dict[str, str], show: bool = False) -> tuple[float, str]:
    """Seconds from start to exit of a fresh process, and its standard output; raises NotMeasured where it fails."""
    started = time.perf_counter()
    with subprocess.Popen(
        command, env=seen, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=None if show else subprocess.PIPE
    ) as process:
        try:
            said, complaint = process.communicate(timeout=_LIMIT)
        except BaseException:
            process.kill()
            raise
    seconds = time.perf_counter() - started
    if process.returncode:
        raise NotMeasured(_last(complaint or said) or f"exit {process.returncode}")
    return seconds, said


def answer(said: str) -> dict[str, Any]:
    """What a contender printed last."""
    found: dict[str, Any] = json.loads(said.strip().splitlines()[-1])
    return found


def pool(commands: Sequence[Sequence[str]], at_once: int, seen: dict[str, str]) -> tuple[float, list[dict[str, Any]]]:
    """Run all, so many at once, as a shell loop with `xargs -P`; seconds until the last exit, and the answers."""
    started = time.perf_counter()
    with ThreadPoolExecutor(at_once) as threads:
        found = list(threads.map(lambda command: answer(run(command, seen)[1]), commands))
    return time.perf_counter() - started, found


def together(commands: Sequence[Sequence[str]], seen: dict[str, str]) -> tuple[float, float, list[dict[str, Any]]]:
    """Start all, let them train from the same moment; seconds until all had loaded, and from there to the last's end.

    Beside them the answers; raises NotMeasured where one fails.
    """
    began = time.perf_counter()
    with ExitStack() as stack:
        running = []
        for command in commands:
            complaint = stack.enter_context(tempfile.TemporaryFile("w+"))
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": complaint}
            process = stack.enter_context(subprocess.Popen(command, env=seen, cwd=ROOT, text=True, **pipes))
            timer = threading.Timer(_LIMIT, process.kill)
            stack.callback(process.kill)
            stack.callback(timer.cancel)
            timer.start()
            running.append((process, complaint))
        for process, complaint in running:
            assert process.stdout is not None
            if not any(line.strip() == "ready" for line in process.stdout):
                raise NotMeasured(_why(process, complaint))
        loaded = time.perf_counter() - began
        for process, _ in running:
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # it ended by itself: what it said is read below
                process.stdin.write("\n")
                process.stdin.flush()
        said = [process.communicate()[0] for process, _ in running]
        for process, complaint in running:
            if process.returncode:
                raise NotMeasured(_why(process, complaint))
        answers = [answer(one) for one in said]
    return loaded, max(one["seconds"] for one in answers), answers


def _why(process: subprocess.Popen[str], complaint: IO[str]) -> str:
    process.wait()
    complaint.seek(0)
    return _last(complaint.read()) or f"exit {process.returncode}"


def _last(text: str | None) -> str:
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""


def started(command: Sequence[str], seen: dict[str, str], happened: Callable[[], bool]) -> float:
    """Seconds from the start of a process until something happened, looked for a hundred times a second."""
    began = time.perf_counter()
    with subprocess.Popen(command, env=seen, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            while not happened():
                if process.poll() is not None and not happened():
                    raise NotMeasured(f"it ended with exit {process.returncode} before")
                if time.perf_counter() - began > _LIMIT:
                    raise NotMeasured(f"nothing for {_LIMIT:g} s")
                time.sleep(0.01)
            seconds = time.perf_counter() - began
            process.wait(_LIMIT)
        finally:
            process.kill()
    return seconds
