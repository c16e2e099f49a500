"""Times as records tell them, on clocks of two machines."""

from __future__ import annotations

from datetime import datetime, timedelta

CLOCKS_APART = timedelta(days=1)


def utc(text: str) -> datetime | None:
    """The time that an ISO 8601 text tells with its zone; None where it tells none."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo is not None else None
