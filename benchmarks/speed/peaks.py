"""The most memory that a process held: all of it, and what it shares with no other."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType

_SECONDS = 0.01  # between two looks


class Peaks:
    """Looks at this process while it is entered.

    `bytes` then says the most that it ever held (`bytes`; the kernel counts), and the most of its own (`own`, by looks
    a hundred times a second): without the libraries and model files that processes map together.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self.bytes: dict[str, int] = {}
        self._own = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Peaks:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        # Not getrusage's: that begins with what the parent held when it started this process.
        self.bytes = {"bytes": _read("VmHWM"), "own": self._own}

    def _look(self) -> None:
        while not self._over.wait(_SECONDS):
            self._own = max(self._own, _read("RssAnon"))


def _read(name: str) -> int:
    """A line of what Linux says of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
