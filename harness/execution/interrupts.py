"""What ends a sweep before its work is done: signals and the time limit."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from harness.common.text import count_noun
from harness.training.checkpoints import StopTraining


class Terminated(KeyboardInterrupt):
    """SIGTERM was received: what was trained is kept, the rest is missing."""


class TimeUp(StopTraining):
    """The time limit is over; no Exception, which would be kept as a trial's error."""


class Stop:
    """What Ctrl-C and SIGTERM asked for; Python calls `_hear` between two steps of the main thread."""

    def __init__(self, notice: float) -> None:
        """Take the seconds that packs have to come back in."""
        self.notice = notice
        self.interrupts = 0
        self.deadline: float | None = None
        self._holding = False

    @property
    def asked(self) -> bool:
        """Whether no new pack is to start."""
        return self.interrupts > 0 or self.deadline is not None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the two signals, where this is the main thread and nobody told the process to ignore them."""
        before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    before[number] = signal.signal(number, self._hear)
        try:
            yield
        finally:
            for heard, handler in before.items():
                signal.signal(heard, handler)

    def _hear(self, number: int, frame: object) -> None:
        if number == signal.SIGTERM:
            self.deadline = self.deadline or time.monotonic() + self.notice
            return
        self.interrupts += 1
        if not self._holding:
            self._leave_if_told()

    def _leave_if_told(self) -> None:
        if self.interrupts > 1 or (self.interrupts and self.deadline is not None):
            raise KeyboardInterrupt

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let the records of a pack be written together: a second Ctrl-C waits for them."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        self._leave_if_told()

    def check(self) -> None:
        """Leave where the notice of a SIGTERM is over; raises Terminated."""
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise Terminated

    def end(self) -> None:
        """Leave after the last pack where a signal asked for it; raises Terminated or KeyboardInterrupt."""
        if self.deadline is not None:
            raise Terminated
        if self.interrupts:
            raise KeyboardInterrupt

    def words(self, lanes: int) -> str:
        """What the person at the terminal is told, once for each of the two."""
        trials = f"the {count_noun(lanes, 'trial')} that {'is' if lanes == 1 else 'are'} training"
        if self.deadline is not None:
            return f"SIGTERM: {trials} may end within {self.notice:g} s"
        return f"stopping after {trials}; Ctrl-C again leaves now"
