"""How far a sweep is: for the terminal, and as the sign of life that `harness status` reads."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from harness.common.files import write_json
from harness.execution import clock
from harness.execution.pool import Running
from harness.records import heartbeat
from harness.records.store import HEARTBEAT, Store

# How often `running.json` is written, which `harness status` reads.
HEARTBEAT_SECONDS = 5.0


@dataclass
class Progress:
    """How far a sweep is, for the terminal."""

    planned: int
    finished: int
    crashed: int
    failed: int
    workers: int = 0
    lanes: int = 0  # training now
    seconds_left: float | None = None
    phase: str = ""  # what happens before anything trains: `starting Ray …`; empty while packs train
    estimating: bool = False  # the time left is not known yet, and will be
    messages: list[str] = field(default_factory=list)


class SignOfLife:
    """The file in a results folder that says what trains now."""

    def __init__(self, store: Store) -> None:
        """Write into the folder of `store`, once `due`."""
        self.path = store.folder / HEARTBEAT
        self.started_utc = clock.utc()
        self._written = -float("inf")

    def due(self, now: float) -> bool:
        """Whether so many seconds of `clock` are long enough after the last one."""
        return now - self._written >= HEARTBEAT_SECONDS

    def write(self, now: float, device: str, progress: Progress, running: Sequence[Running]) -> None:
        """Say what trains now; a disk without room for it stops no sweep."""
        self._written = now
        state = {
            "schema_version": 1,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started_utc": self.started_utc,
            "updated_utc": clock.utc(),
            "device": device,
            "workers": progress.workers,
            "seconds_left": progress.seconds_left,
            "packs": [
                {
                    "trials": [trial.id for trial in one.job.trials],
                    "share": one.share,
                    "seconds": one.seconds,
                    "deaths": one.job.deaths,
                    "output": one.heard.output[-200:],
                    "score": one.heard.score,
                    "signals": [] if one.heard.signals is None else heartbeat.written(one.heard.signals),
                }
                for one in running
            ],
        }
        with suppress(OSError):
            write_json(self.path, state)

    def remove(self) -> None:
        """Take it away: the sweep ended by itself."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
