"""The time before the first pack: what is waited for is said, and a stop or the time limit ends it at once."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from harness.common import watchdog
from harness.common.errors import HarnessError
from harness.execution.follow import duration

# Seconds after which a line says what is waited for, and then again each time that it took so much longer.
_FIRST_LINE, _AGAIN = 10.0, 3.0
_LOOK_SECONDS = 0.2

Result = TypeVar("Result")


class StartUp:
    """Waits for what must be there before anything trains."""

    def __init__(
        self, tell: Callable[[str], None] = lambda line: None, check: Callable[[], None] = lambda: None
    ) -> None:
        """Say what is waited for by `tell`, and call `check` while waiting, which raises where it is to end."""
        self._tell, self.check = tell, check

    @contextmanager
    def waiting_for(self, what: str, hint: str = "") -> Iterator[None]:
        """Say what is waited for, such as `the model and the data to load`, where it takes long."""
        ended = threading.Event()

        def remind() -> None:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})  # the main thread's to hear
            began, pause = time.monotonic(), _FIRST_LINE
            while not ended.wait(pause):
                passed = time.monotonic() - began
                self._tell(f"waiting for {what} ({duration(passed)} so far{hint})")
                pause = passed * (_AGAIN - 1)

        thread = threading.Thread(target=remind, name="start-up", daemon=True)
        thread.start()
        try:
            with watchdog.current().doing(f"the wait for {what}"):
                yield
        finally:
            ended.set()
            thread.join(1)

    def until(
        self,
        done: Callable[[], bool],
        seconds: float,
        late: Callable[[], HarnessError],
        pause: float = _LOOK_SECONDS,
    ) -> None:
        """Wait until something is done, and `check` after each `pause`, in seconds.

        Raises `late()` where it is not done within so many seconds, and as `check`.
        """
        end = time.monotonic() + seconds
        while not done():
            self.check()
            if time.monotonic() > end:
                raise late()
            time.sleep(pause)


class HeldThread(threading.Thread):
    """Calls a function and stays until it is let go.

    Ray binds its processes to the life of the thread that starts them (Linux's parent death signal), so that thread
    must outlast them; and the main thread must not be it, or Ray would take its signals and keep it in C code.
    """

    def __init__(self, function: Callable[[], object]) -> None:
        """Call the function once started."""
        super().__init__(name="ray-start", daemon=True)
        self._function = function
        self.error: BaseException | None = None
        self._returned, self._released = threading.Event(), threading.Event()

    def run(self) -> None:
        """Call it, and stay."""
        try:
            self._function()
        except BaseException as error:  # it is raised where it is waited for
            self.error = error
        self._returned.set()
        self._released.wait()

    def returned(self) -> bool:
        """Whether the function returned or raised."""
        return self._returned.is_set()

    def release(self) -> None:
        """Let it end, and what its function started with it."""
        self._released.set()
