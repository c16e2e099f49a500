"""The clock by which a sweep paces itself, which no change of the time of day moves; and the time of day."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def now() -> float:
    """Seconds of a clock whose beginning means nothing."""
    return time.monotonic()


def utc() -> str:
    """The time of day, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
