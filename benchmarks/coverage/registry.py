"""What a row of the coverage table is, and where its families are."""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from benchmarks.coverage import families

REPETITIONS = 2_000  # a coverage of .95 has a standard error of .005 then


@dataclass(frozen=True)
class Row:
    """One number of the table: a method's coverage, or another measure of it, in one scenario at one n.

    `reported` says whether the report uses the method; the others are there to be compared with.
    """

    family: str
    quantity: str
    method: str
    scenario: str
    n: int
    value: float
    width: float = math.nan  # mean width of the intervals
    measure: str = "coverage"
    reported: bool = True


class Family(Protocol):
    """A module of `families/`."""

    TITLE: str
    NOTE: str

    def rows(self, repetitions: int) -> Iterable[Row]:
        """Simulate; each scenario with its own generator, so that a row does not depend on the others."""


def names() -> list[str]:
    """The families, in the order of their files' names."""
    return sorted(module.name for module in pkgutil.iter_modules(families.__path__))


def family(name: str) -> Family:
    """The module of a family."""
    return importlib.import_module(f"{families.__name__}.{name}")  # type: ignore[return-value]


def covered(low: np.ndarray, high: np.ndarray, truth: float) -> float:
    """The share of intervals [R] that hold the truth; one that is not known (NaN) does not."""
    slack = 1e-12 * max(1.0, abs(truth))
    return float(np.mean((low <= truth + slack) & (truth - slack <= high)))


def mean_width(low: np.ndarray, high: np.ndarray) -> float:
    """The mean width of the intervals that are known; infinite where one of them has no end."""
    widths = high - low
    return float(widths[~np.isnan(widths)].mean()) if not np.isnan(widths).all() else math.nan
