"""One process of a script: started in a group of its own, watched, and never left behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness.scripts import reaper

_LOOK_SECONDS = 0.25
STDOUT, STDERR = "stdout.txt", "stderr.txt"  # in the run's folder


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    exit_code: int  # negative: of a signal
    seconds: float
    peak_memory_bytes: int  # of the largest of its processes that were waited for
    why: str | None  # why it was ended by us; None: it ended itself


def run(
    command: Sequence[str],
    folder: Path,
    env: Mapping[str, str],
    cwd: str | None,
    timeout: float | None,
    silence: float | None,
    tick: Callable[[], None],
) -> Ended:
    """Run a command to its end; whatever ends this function ends all its processes.

    Args:
        command: The words of the command.
        folder: Where its output goes, as `stdout.txt` and `stderr.txt`.
        env: Variables beside those of this process.
        cwd: Where it runs; None: here.
        timeout: Seconds after which it is ended.
        silence: Seconds without a byte of output after which it is ended.
        tick: Called several times a second; what it raises ends the run.

    Raises:
        OSError: The command can't be started.
    """
    mark = str(folder)
    variables = {**os.environ, "PYTHONUNBUFFERED": "1", **env, reaper.MARK: mark}
    began = time.monotonic()
    reaper.watch(mark)  # before it runs: a kill may come between
    try:
        with (folder / STDOUT).open("wb") as out, (folder / STDERR).open("wb") as err:
            process = subprocess.Popen(
                command, cwd=cwd, env=variables, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                start_new_session=True,
            )  # fmt: skip
        reaper.watch(mark, process.pid)
        ended = False
        try:
            why = _watched(process, folder, began, timeout, silence, tick)
            ended = why is None
        finally:
            if not ended:
                reaper.end(process.pid, mark)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)  # what it left running
            reaper.end_marked(mark)
    finally:
        reaper.forget(mark)
    return Ended(process.returncode, time.monotonic() - began, 1024 * usage.ru_maxrss, why)


def _watched(
    process: subprocess.Popen[bytes],
    folder: Path,
    began: float,
    timeout: float | None,
    silence: float | None,
    tick: Callable[[], None],
) -> str | None:
    """Wait for its end; why it must be ended, where it must."""
    poller, pidfd = select.poll(), os.pidfd_open(process.pid)
    poller.register(pidfd, select.POLLIN)
    size, heard = -1, began
    try:
        while not poller.poll(1000 * _LOOK_SECONDS):
            tick()
            now = time.monotonic()
            written = _bytes_written(folder)
            if written != size:
                size, heard = written, now
            if timeout is not None and now - began > timeout:
                return f"it ran longer than the timeout of {timeout:g} s"
            if silence is not None and now - heard > silence:
                return f"it wrote nothing for {silence / 60:g} minutes"
    finally:
        os.close(pidfd)
    return None


def _bytes_written(folder: Path) -> int:
    return sum((folder / name).stat().st_size for name in (STDOUT, STDERR))


def tail(path: Path, lines: int = 20, most: int = 20_000) -> str:
    """The last lines of a file of output, as text; a progress bar's carriage returns begin new lines."""
    try:
        with path.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - most))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return ""
    kept = [line.rstrip() for line in text.replace("\r", "\n").split("\n") if line.strip()]
    return "\n".join(kept[-lines:])
