"""An estimate with its 95 % interval, and what is shared by all statistics."""

from __future__ import annotations

from dataclasses import dataclass

from scipy import special

NAN = float("nan")


TAIL = 0.025  # what a 95 % interval leaves out on each side


NORMAL_95 = float(special.ndtri(1 - TAIL))


ROUNDING = 1e-12  # numbers whose difference is this share of their size differ by rounding alone


@dataclass(frozen=True)
class Estimate:
    """A number with the two ends of its 95 % interval; NaN where not known."""

    value: float
    low: float
    high: float


UNKNOWN = Estimate(NAN, NAN, NAN)
