"""What simulations say of the report's intervals, in the words of the page.

The numbers are those of `results/bench/coverage.csv`, which `make coverage` makes; a test holds that they agree.
"""

from __future__ import annotations

import math

# Of nominal 95 % intervals at 5, 8 and 25 runs a cell: the lowest simulated coverage where no run fails (normal and
# skewed scores), and where 10 or 30 % do.
HELD: dict[str, tuple[float, float]] = {
    "failure rate": (1.0, 0.9075),
    "mean": (0.9715, 0.9459),
    "mean of successful runs": (0.9165, 0.9465),
    "sd of successful runs": (0.903, 0.9395),
    "median": (0.933, 0.941),
    "interquartile mean": (0.9275, 0.924),
    "P(better)": (0.9365, 0.9445),
}
# The same of Student's interval of all runs, which the report does not use for a mean.
UNFIT: dict[str, tuple[float, float]] = {"mean": (0.9165, 0.597)}


def held(quantity: str) -> str:
    """In which share of simulated studies the interval of a quantity held the truth."""
    return f"In simulations it held the truth in at least {_percent(HELD[quantity])}."


def unfit(quantity: str) -> str:
    """The same of the usual method."""
    return f"it held the truth in as little as {_percent(UNFIT[quantity])}."


def _percent(lowest: tuple[float, float]) -> str:
    sound, failing = (f"{math.floor(100 * share + 1e-9)} %" for share in lowest)
    return sound if sound == failing else f"{sound} where no run fails and {failing} where 10 or 30 % do"
