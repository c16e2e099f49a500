"""No process outlives the harness: a small one beside it ends what a kill of it leaves behind.

A run's processes are known by their group and by a mark in their environment, the run's folder: a process that left
the group still carries it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

from harness.common.watchdog import RUN_MARK

MARK = RUN_MARK  # the environment variable that holds the folder of the run

# Reads lines `+group mark`, `-0 mark`; at the end of its input, which a kill of its parent is too, it ends the rest. It
# is no child of the parent, as Ray ends a worker's children with it, and in no group or session of anybody else.
_WATCH = """
import os, signal, sys, time
if os.fork():
    os._exit(0)
os.setsid()
groups = {}
for line in sys.stdin:
    group, _, mark = line[1:].rstrip("\\n").partition(" ")
    if line[0] == "+":
        groups[mark] = int(group)
    else:
        groups.pop(mark, None)
def alive():
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as stream:
                state, _, group = stream.read().rpartition(")")[2].split()[:3]
            with open(f"/proc/{name}/environ", "rb") as stream:
                environment = stream.read().split(b"\\0")
        except (OSError, ValueError):
            continue
        if state != "Z" and (int(group) in known or any(mark in environment for mark in marks)):
            yield int(name)
known = set(groups.values()) - {0}
marks = [b"HARNESS_RUN=" + os.fsencode(mark) for mark in groups]
until = time.monotonic() + 2
number = signal.SIGTERM
told = set()
while groups and (pids := list(alive())) and time.monotonic() < until + 5:
    if time.monotonic() > until:
        number = signal.SIGKILL
    for pid in pids:
        if number == signal.SIGKILL or pid not in told:
            told.add(pid)
            try:
                os.kill(pid, number)
            except OSError:
                pass
    time.sleep(0.05)
"""
_lock = threading.Lock()
_watched: dict[str, int] = {}  # mark -> group, 0 before it is known
_pipe: int | None = None  # to the watching process


def watch(mark: str, group: int = 0) -> None:
    """Have what carries the mark, and the group, ended if this process dies before `forget`."""
    _watched[mark] = group
    _tell(f"+{group} {mark}\n")


def forget(mark: str) -> None:
    """The run has ended."""
    _watched.pop(mark, None)
    _tell(f"-0 {mark}\n")


def _tell(line: str) -> None:
    global _pipe
    with _lock:
        if _pipe is not None:
            with suppress(OSError):
                os.write(_pipe, os.fsencode(line))
                return
            os.close(_pipe)  # somebody ended it
        reading, _pipe = os.pipe()
        command = [sys.executable, "-I", "-S", "-c", _WATCH]
        quiet = subprocess.DEVNULL
        subprocess.run(command, stdin=reading, stdout=quiet, stderr=quiet, check=True, start_new_session=True)
        os.close(reading)
        for mark, group in _watched.items():
            os.write(_pipe, os.fsencode(f"+{group} {mark}\n"))


def end(group: int, mark: str, grace: float = 5.0) -> None:
    """End a group: it is asked to, and after `grace` seconds killed; then whoever of it left the group."""
    with suppress(OSError):
        os.killpg(group, signal.SIGTERM)
        until = time.monotonic() + grace
        while time.monotonic() < until and _lives(group):
            time.sleep(0.02)
    with suppress(OSError):
        os.killpg(group, signal.SIGKILL)
    end_marked(mark)


def end_marked(mark: str) -> None:
    """Kill whatever carries the mark of a run, until nothing does or a second has passed."""
    until = time.monotonic() + 1
    while (pids := marked(mark)) and time.monotonic() < until:
        for pid in pids:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _lives(group: int) -> bool:
    """Whether any process of a group runs; one that ended and is not waited for yet does not."""
    for pid in _processes():
        state, _, of = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[:3] or (b"Z", b"", b"")
        if of == str(group).encode() and state != b"Z":
            return True
    return False


def marked(mark: str) -> list[int]:
    """The processes that carry the mark of a run and have not ended: the environment of one that did is empty."""
    wanted = os.fsencode(f"{MARK}={mark}")
    return [int(pid) for pid in _processes() if wanted in _read(f"/proc/{pid}/environ").split(b"\0")]


def _processes() -> Iterator[str]:
    return filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc") else [])


def _read(path: str) -> bytes:
    """A file of a process; empty where that is gone or another user's."""
    try:
        with open(path, "rb", buffering=0) as stream:
            return stream.read()
    except OSError:
        return b""
