"""The command line ends when it is told to, also while its main thread is in C code and hears no signal.

Python runs a signal's handler between two steps of the main thread; a model of absurd sizes that loads, or Ray that
starts, makes none for minutes. The C handler writes the signal's number to a pipe at once: a thread reads it there and
ends the process if the main thread has not done so by itself within some seconds.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

THREAD = "watchdog"  # the name of its thread, which holds nothing that a forked process uses
RUN_MARK = "HARNESS_RUN"  # the environment variable of a script's run, whose processes end otherwise
# Seconds that the main thread has: before it takes a signal up; then to end Ray and to say what is kept.
_DEAF, _ENDING = 4.0, 12.0
_LOOK_SECONDS = 0.25


class Watchdog:
    """Ends this process some seconds after a stop that its main thread does not follow."""

    def __init__(self) -> None:
        """Watch nothing yet."""
        self._lock = threading.Lock()
        self._heard: list[tuple[int, float]] = []  # signals and when they came, of `time.monotonic`
        self._notice: float | None = None  # seconds that packs have after SIGTERM; None: nothing trains
        self._since = 0.0  # when that began or ended
        self._taken_up = False  # a handler ran in the main thread
        self._limit: float | None = None
        self._leaves = ""  # what the time limit leaves, for the last line
        self._doing = ""
        self._code: int | None = None  # that the command has ended with
        self.watches = False  # whether it is installed

    # --------------------------------------------------------------------------- what the main thread tells it

    def install(self) -> None:
        """Watch this process, from its main thread; Ctrl-C raises KeyboardInterrupt there, as it would."""
        global _current
        reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else a job in the background ignores it
            signal.signal(signal.SIGINT, self._interrupt)
        threading.Thread(target=self._watch, args=(reading,), name=THREAD, daemon=True).start()
        self.watches = True
        _current = self

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.taken_up()
        raise KeyboardInterrupt

    def end_with(self, code: object) -> None:
        """The command has ended with an exit code: what Python and its libraries tidy up must not take long."""
        with self._lock:
            self._code, self._limit = (
                (code if isinstance(code, int) else int(code is not None)),
                time.monotonic() + _ENDING,
            )

    def end_stopped(self, code: int) -> None:
        """The command was stopped and has said so: end now: a half imported Ray would complain later."""
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        _end(code)

    def taken_up(self) -> None:
        """The main thread heard a signal and follows it."""
        self._taken_up = True

    @contextmanager
    def training(self, notice: float) -> Iterator[None]:
        """Ctrl-C lets packs end, and SIGTERM so many seconds; outside of this both end the command at once."""
        with self._lock:
            self._notice, self._since = notice, time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._notice, self._since = None, time.monotonic()

    @contextmanager
    def limited(self, seconds: float | None, leaves: str = "") -> Iterator[None]:
        """The time limit, so many seconds from now, with what may be needed to keep what was trained.

        Within another one it stands in its place. `leaves` says what becomes of the work.
        """
        before = self._limit, self._leaves
        with self._lock:
            self._limit = None if seconds is None else time.monotonic() + seconds
            self._leaves = leaves
        try:
            yield
        finally:
            with self._lock:
                self._limit, self._leaves = before

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """What the main thread waits for, for the last line."""
        self._doing = what
        yield
        self._doing = ""

    # ------------------------------------------------------------------------------------------------- the thread

    def _watch(self, reading: int) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})  # the main thread's to hear
        while True:
            ready, _, _ = select.select([reading], [], [], _LOOK_SECONDS)
            now = time.monotonic()
            with self._lock:
                if ready:
                    with suppress(BlockingIOError):
                        self._heard += [(number, now) for number in os.read(reading, 100) if number in _CODES]
                due = self.due()
                over = self._limit is not None and now > self._limit
            if over or (due is not None and now > due):
                self._leave(over=over)

    def due(self) -> float | None:
        """When the process must have ended, on the clock of `time.monotonic`; None: nobody asked for it."""
        if not self._heard:
            return None
        patience = _ENDING if self._taken_up else _DEAF
        interrupts = [when for number, when in self._heard if number == signal.SIGINT]
        terminated = next((when for number, when in self._heard if number == signal.SIGTERM), None)
        if self._notice is None:
            return max(self._heard[0][1], self._since) + patience
        if len(interrupts) > 1 or (interrupts and terminated is not None):
            return max(interrupts[1:2] or [interrupts[0], terminated or 0.0]) + patience
        return None if terminated is None else terminated + self._notice + patience

    def _leave(self, *, over: bool) -> None:
        if self._code is not None:
            _end(self._code)
        terminated = any(number == signal.SIGTERM for number, _ in self._heard)
        code = 143 if terminated else 130 if self._heard else 1
        why, during = "stopped", f" during {self._doing}" if self._doing else ""
        if over and not self._heard:
            why = f"{self._leaves}: it ended" if self._leaves else "the time limit is over"
        line = f"harness: {why}{during}; finished trials are kept: re-run the same command to resume.\n"
        if sys.stdout.isatty():
            line = f"\x1b[?25h\n{line}"  # a live line hides the cursor
        with suppress(OSError):
            os.write(2, line.encode())
        _end(code)


def _end(code: int) -> None:
    """End this process and its children now; nothing in it says any more what it thinks of that."""
    silent = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(silent, number)
    end_children()
    os._exit(code)


_CODES = {int(signal.SIGINT), int(signal.SIGTERM)}
_current = Watchdog()  # which watches nothing, as in a notebook and in tests


def current() -> Watchdog:
    """The one that watches this process, or one that does nothing."""
    return _current


def end_children(only: set[int] | None = None) -> None:
    """Kill what this process started and what that started: Ray, say; scripts' runs are their reaper's to end.

    Args:
        only: Of the children the ones that are killed, with theirs; None: all.
    """
    children = children_of(os.getpid())
    for child in children if only is None else children & only:
        with suppress(OSError):
            if f"{RUN_MARK}=".encode() in Path(f"/proc/{child}/environ").read_bytes():
                continue
        _kill_family(child)


def _kill_family(pid: int) -> None:
    """Kill a process at once, so that it starts no others, and then those that it had started.

    It is not stopped before it is asked for these: a thread in C++ that waits for it, and lets no Python run meanwhile,
    would wait for ever.
    """
    children = children_of(pid)
    with suppress(OSError):
        os.kill(pid, signal.SIGKILL)
    for child in children:
        _kill_family(child)


def children_of(pid: int) -> set[int]:
    """The processes that a process started, in any of its threads."""
    children: set[int] = set()
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            children.update(map(int, (task / "children").read_text().split()))
    return children
