"""What ends a sweep before its work is done: signals and the time limit."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, NoReturn

from harness.common import watchdog
from harness.common.text import count_noun
from harness.training.checkpoints import StopTraining

_LOADING_SECONDS = 4.0  # beyond the time limit that a model may still load in


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
        self._phase: Literal["starting", "loading", "training", "ending"] = "starting"
        self._terminated = False  # by a signal that left at once
        self._time_up = False  # while a model loaded
        self._polled = False  # before and after packs train a signal raises nothing either: `check_start` does
        self._deaf = False  # a signal raises nothing while packs train: `check` does, after a step
        self._before: dict[int, Any] = {}  # the handlers of the signals that are taken

    @property
    def asked(self) -> bool:
        """Whether no new pack is to start."""
        return self.interrupts > 0 or self.deadline is not None

    @contextmanager
    def training(self, in_process: bool = False) -> Iterator[None]:
        """While packs train a signal lets them end; before and after it leaves at once.

        A second Ctrl-C raises nothing either, in what may be C++ code of torch's or Ray's: `check` does after the step
        or the look at the workers, and the watchdog ends one that takes too long. Without a watchdog it raises where
        this process trains, as in a notebook.
        """
        self.check_start()
        self._phase = "training"
        self._deaf = not in_process or watchdog.current().watches
        try:
            with watchdog.current().training(self.notice):
                yield
        finally:
            self._phase, self._deaf = "ending", False

    @contextmanager
    def loading(self, in_process: bool, limit: float | None = None, leaves: str = "") -> Iterator[None]:
        """While this process loads a model a signal raises nothing, where the command line's watchdog ends it.

        An exception in the midst of torch's C++ code may abort the process, as was seen, with a message of C++'s.

        Args:
            in_process: Whether this process loads it.
            limit: Seconds until the time limit; None: there is none.
            leaves: What that leaves missing, for the last line.
        """
        deaf = in_process and watchdog.current().watches
        self._phase = "loading" if deaf else self._phase
        with ExitStack() as stack:
            if deaf and limit is not None:
                stack.enter_context(watchdog.current().limited(limit + _LOADING_SECONDS, leaves))
            try:
                yield
            finally:
                self._phase = "starting"
        if self._terminated or self.interrupts:  # it loaded before the watchdog came
            self._leave_at_once()
        if self._time_up:
            raise TimeUp

    @contextmanager
    def listening(self, limit: float | None = None, polled: bool = False) -> Iterator[None]:
        """Take the two signals, where this is the main thread and nobody told the process to ignore them.

        Args:
            limit: Seconds after which TimeUp is raised if nothing trains by then; None: never.
            polled: Whether what waits before packs train looks at `check_start`; a signal then raises nothing. Ray's C
                code makes a plain Ctrl-C or a SystemError of what a handler raises in it.
        """
        self._polled = polled
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._hear)
        alarm = limit is not None and threading.current_thread() is threading.main_thread()
        alarmed = signal.signal(signal.SIGALRM, self._alarm) if alarm else None
        if limit is not None and alarm:
            signal.setitimer(signal.ITIMER_REAL, max(limit, 0.001))
        try:
            yield
            self.check_start()  # what came while the workers were ended
        except KeyboardInterrupt:
            if self._terminated:  # Ray's C code makes a plain Ctrl-C of whatever a handler raises in it
                raise Terminated from None
            raise
        finally:
            if alarm:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, alarmed)
            for heard, handler in self._before.items():
                signal.signal(heard, handler)

    def take_back(self) -> None:
        """Take the signals again: Ray's C code, where it starts, puts itself before whoever had them."""
        for number in self._before:
            signal.signal(number, self._hear)

    def _hear(self, number: int, frame: object) -> None:
        if self._phase == "loading" or (self._polled and self._phase != "training"):
            self._terminated = self._terminated or number == signal.SIGTERM
            self.interrupts += number == signal.SIGINT
            return
        if self._phase != "training":
            watchdog.current().taken_up()
            self._terminated = self._terminated or number == signal.SIGTERM
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
        if number == signal.SIGTERM:
            self.deadline = self.deadline or time.monotonic() + self.notice
            return
        self.interrupts += 1
        if not self._holding and not self._deaf:
            self._leave_if_told()

    def _alarm(self, number: int, frame: object) -> None:
        self._time_up = self._phase == "loading"
        if self._phase == "starting":
            raise TimeUp

    def check_start(self) -> None:
        """Leave where a signal raised nothing before or after packs train; between two looks at the workers."""
        if self._polled and self._phase != "training" and (self._terminated or self.interrupts):
            self._leave_at_once()

    def _leave_at_once(self) -> NoReturn:
        watchdog.current().taken_up()
        raise Terminated if self._terminated else KeyboardInterrupt

    def _leave_if_told(self) -> None:
        if self.interrupts > 1 or (self.interrupts and self.deadline is not None):
            watchdog.current().taken_up()
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
        """Leave where the notice of a SIGTERM is over, or a second Ctrl-C raised nothing; between two steps."""
        if self._deaf and not self._holding:
            self._leave_if_told()
        if self.deadline is not None and time.monotonic() > self.deadline:
            watchdog.current().taken_up()
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
