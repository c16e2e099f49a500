"""SIGTERM, held back while something may put a handler of its own before the harness's.

Ray's C++ does so while it starts, and keeps Python from running for seconds then: a SIGTERM that came in that time
printed three lines of C++'s and aborted. Blocked, it waits until the harness's handler is back.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_HELD = {signal.SIGTERM}
_holding = False


@contextmanager
def held(take_back: Callable[[], None]) -> Iterator[None]:
    """Hold SIGTERM back from this thread and those that it starts; it comes after `take_back`, called at the end.

    Processes that are started meanwhile get it.
    """
    global _holding
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    _holding = True
    try:
        yield
    finally:
        _holding = False
        try:
            take_back()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def waits() -> bool:
    """Whether a SIGTERM is held back."""
    return bool(signal.sigpending() & _HELD)


def _in_child() -> None:
    if _holding:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)


os.register_at_fork(after_in_child=_in_child)
