"""A part of the work in a forked process beside this one, on a second core; in this one where forking is not safe."""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

from harness.common import watchdog

T = TypeVar("T")
_PR_SET_PDEATHSIG = 1  # of Linux's prctl(2)
# Libraries whose threads hold locks or a device, which a forked process would find in the middle of something.
_UNSAFE = ("torch", "ray", "grpc", "tensorflow", "jax")


def cores() -> int:
    """How many processes can work at once; 1 where this one can't be forked safely."""
    threads = [thread for thread in threading.enumerate() if thread.name != watchdog.THREAD]
    unsafe = len(threads) > 1 or any(name in sys.modules for name in _UNSAFE)
    if sys.platform != "linux" or unsafe:  # forked, the graphics libraries of a Mac abort
        return 1
    return len(os.sched_getaffinity(0))


class Beside(Generic[T]):
    """A function that is computed while this process goes on; it must change nothing that this process reads."""

    def __init__(self, function: Callable[[], T]) -> None:
        """Begin at once in a forked process; where there is one core, or forking isn't safe, when `result` asks."""
        self._function = function
        self._child: int | None = None
        if cores() > 1:
            self._begin()

    def _begin(self) -> None:
        reading, writing = os.pipe()
        here = os.getpid()
        with warnings.catch_warnings():
            # Of newer Pythons, where another thread runs: those of BLAS and Arrow are made for a fork.
            warnings.simplefilter("ignore", DeprecationWarning)
            try:
                child = os.fork()
            except OSError:  # no memory or no more processes
                os.close(reading)
                os.close(writing)
                return
        if child:
            os.close(writing)
            self._child, self._answer = child, os.fdopen(reading, "rb")
            return
        status = 1
        try:
            os.close(reading)
            _end_with(here)
            _become_quiet()
            content = pickle.dumps(self._function(), protocol=pickle.HIGHEST_PROTOCOL)
            with os.fdopen(writing, "wb") as stream:
                stream.write(content)
            status = 0
        except BaseException:
            pass
        finally:
            os._exit(status)

    def result(self) -> T:
        """What the function gives; raises what it raises."""
        if self._child is None:
            return self._function()
        content = self._answer.read()
        if self._wait() != 0:
            return self._function()
        result: T = pickle.loads(content)
        return result

    def stop(self) -> None:
        """End the other process, if it still lives."""
        if self._child is not None:
            os.kill(self._child, signal.SIGKILL)
            self._wait()

    def _wait(self) -> int:
        assert self._child is not None
        _, status = os.waitpid(self._child, 0)
        self._child = None
        self._answer.close()
        return os.waitstatus_to_exitcode(status)


def _end_with(parent: int) -> None:
    """Have this process end with the one that forked it, however that ends: at a SIGTERM, say."""
    with suppress(OSError, AttributeError):  # another system than Linux, where it may outlive its parent
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:  # it ended before
        os._exit(1)


def _become_quiet() -> None:
    """Leave signals and the terminal to the process that was forked."""
    signal.set_wakeup_fd(-1)  # its watchdog would hear a signal once more
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
