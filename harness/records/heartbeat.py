"""The file by which a running sweep tells how it stands."""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from harness.common.files import opened_regular, read_regular
from harness.records.early_signals import SHARES, SIGNALS, Floats
from harness.records.store import HEARTBEAT

# A number of a run that trains, as strict JSON has it: null where it is not known.
Written = float | Literal["inf"] | None


def written(found: Floats) -> list[list[list[Written]]]:
    """The signals of lanes so far [L, t, K] for JSON, which knows neither NaN nor infinity."""
    return [[[_written(value) for value in row] for row in lane] for lane in found.tolist()]


def _written(value: float) -> Written:
    return None if np.isnan(value) else "inf" if value == np.inf else value


def read(lane: Sequence[Sequence[Written]]) -> Floats:
    """The signals [T, K] of a lane as `written`; all NaN where they are not of this shape."""
    table = np.full((len(SHARES), len(SIGNALS)), np.nan)
    if len(lane) <= len(SHARES) and all(len(row) == len(SIGNALS) for row in lane):
        for column, row in enumerate(lane):
            table[column] = [np.nan if value is None else float(value) for value in row]
    return table


# ------------------------------------------------------------------------------------------- what the driver says


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)


class RunningPack(_Read):
    """Trials that train together, as the driver last wrote of them."""

    trials: tuple[str, ...]
    share: float = Field(ge=0, le=1)
    seconds: float = Field(ge=0, description="since the pack was started")
    deaths: int = Field(ge=0, description="how often a worker died with it")
    # Not said by the first versions, nor where nothing is recorded.
    output: str = Field(default="", description="the last line that a script's run wrote")
    score: float | None = Field(default=None, description="the latest score that a script's run said")
    signals: tuple[tuple[tuple[Written, ...], ...], ...] = Field(
        default=(), description="of `early_signals`, by trial, share that was reached, and signal"
    )


class Heartbeat(_Read):
    """`running.json` of a results folder: written every few seconds while a sweep lives, removed when it ends."""

    schema_version: Literal[1]
    pid: int
    host: str
    started_utc: AwareDatetime
    updated_utc: AwareDatetime
    device: str
    workers: int = Field(ge=0)
    seconds_left: float | None = Field(ge=0)
    packs: tuple[RunningPack, ...]


def content(folder: Path) -> bytes:
    """What `running.json` of a results folder holds; raises as `read_regular`."""
    return read_regular(folder / HEARTBEAT, 2**26)


def heartbeat(folder: Path) -> Heartbeat | None:
    """The driver's last sign of life; None where there is none or it can't be read."""
    try:
        return Heartbeat.model_validate_json(content(folder))
    except (OSError, ValueError, RecursionError):
        return None


def holder(folder: Path) -> str | None:
    """Who holds a results folder, None where nobody does; raises OSError for a lock that may not be read.

    The lock is shared for an instant and never waited for, so that a sweep about to start is hardly ever refused.
    """
    try:
        stream = opened_regular(folder / ".lock")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ELOOP, errno.ENXIO):  # a FIFO, say, which no sweep locks
            return None
        raise
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return stream.read(1000).decode(errors="replace").strip() or "another process"
        fcntl.flock(stream, fcntl.LOCK_UN)
        return None
