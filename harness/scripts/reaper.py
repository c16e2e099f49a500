"""No process outlives the harness: a small one beside it ends the groups that a kill of it leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

MARK = "HARNESS_RUN"  # an environment variable by which a run's processes are found that left their group

# Reads `+group` and `-group` lines; at the end of its input, which a kill of its parent is too, it ends the rest.
_WATCH = """
import os, signal, sys, time
groups = set()
for line in sys.stdin:
    group = int(line[1:])
    (groups.add if line[0] == "+" else groups.discard)(group)
for number in (signal.SIGTERM, signal.SIGKILL):
    for group in groups:
        try:
            os.killpg(group, number)
        except OSError:
            pass
    if groups and number == signal.SIGTERM:
        time.sleep(2)
"""
_lock = threading.Lock()
_watcher: subprocess.Popen[str] | None = None


def watch(group: int) -> None:
    """Have a process group ended if this process dies before `forget`."""
    _tell(f"+{group}\n")


def forget(group: int) -> None:
    """The group has ended."""
    _tell(f"-{group}\n")


def _tell(line: str) -> None:
    global _watcher
    with _lock:
        if _watcher is None or _watcher.poll() is not None:
            _watcher = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _WATCH], stdin=subprocess.PIPE, text=True, start_new_session=True
            )
        assert _watcher.stdin is not None
        with suppress(OSError):
            _watcher.stdin.write(line)
            _watcher.stdin.flush()


def end(group: int, mark: str, grace: float = 5.0) -> None:
    """End a group: it is asked to, and after `grace` seconds killed; then whoever of it left the group."""
    with suppress(OSError):
        os.killpg(group, signal.SIGTERM)
        until = time.monotonic() + grace
        while time.monotonic() < until and _lives(group):
            time.sleep(0.02)
    with suppress(OSError):
        os.killpg(group, signal.SIGKILL)
    for pid in marked(mark):
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def _lives(group: int) -> bool:
    """Whether any process of a group runs; one that ended and is not waited for yet does not."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            state, _, of = path.read_text().rpartition(")")[2].split()[:3]
            if int(of) == group and state != "Z":
                return True
    return False


def marked(mark: str) -> list[int]:
    """The processes that carry the mark of a run."""
    wanted, pids = f"{MARK}={mark}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError, ValueError):
            if wanted in path.read_bytes().split(b"\0"):
                pids.append(int(path.parent.name))
    return pids
