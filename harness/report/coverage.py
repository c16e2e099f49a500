"""What simulations say of the report's intervals, in the words of the page.

The numbers are those of `results/bench/coverage.csv`, which `make coverage` makes; a test holds that they agree.
"""

from __future__ import annotations

import math

# Of nominal 95 % intervals in all scenarios (normal, skewed, 10 % and 30 % failing; 5, 8 and 25 runs a cell): the
# lowest simulated coverage with no run failing, and with failing runs.
HELD: dict[str, tuple[float, float]] = {
    "failure rate": (1.0, 0.907),
    "mean": (0.97, 0.94),
    "mean of successful runs": (0.92, 0.92),
    "sd of successful runs": (0.90, 0.90),
    "median": (0.93, 0.93),
    "interquartile mean": (0.92, 0.92),
    "P(better)": (0.95, 0.95),
}
# The same of methods that the report does not use, to say why.
UNFIT: dict[str, tuple[float, float]] = {"mean": (0.92, 0.59)}


def held(quantity: str) -> str:
    """In which share of simulated studies the interval of a quantity held the truth."""
    return f"In simulations it held the truth in at least {_percent(HELD[quantity])}."


def unfit(quantity: str) -> str:
    """The same of the usual method."""
    return f"it held the truth in as little as {_percent(UNFIT[quantity])}."


def _percent(lowest: tuple[float, float]) -> str:
    sound, failing = (f"{math.floor(100 * share + 1e-9)} %" for share in lowest)
    return sound if sound == failing else f"{sound} where no run fails and {failing} where 10 or 30 % do"
