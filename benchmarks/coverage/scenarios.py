"""The worlds that runs are drawn from, with what is true in them."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.stats.bootstrap import iqm

SIZES = (5, 8, 25)  # runs a cell
CHANCE, GOOD, SPREAD = 0.5, 0.8, 0.02  # scores of failed runs; level and sd of the others
MANY = 2_000_000  # runs that stand for all of a world


def generator(*words: object) -> np.random.Generator:
    """The same numbers for the same words."""
    return np.random.default_rng(zlib.crc32(" ".join(map(str, words)).encode()))


@dataclass(frozen=True)
class Scenario:
    """Independent runs: a share of them fails, at the level of chance; the scores of the others are drawn by `good`."""

    name: str
    rate: float
    good: Callable[[np.random.Generator, tuple[int, int]], np.ndarray]

    def draw(self, rng: np.random.Generator, repetitions: int, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores [R, n] and whether each run failed [R, n]."""
        failed = rng.random((repetitions, n)) < self.rate
        chance = rng.normal(CHANCE, 0.005, (repetitions, n))
        return np.where(failed, chance, self.good(rng, (repetitions, n))), failed

    @cached_property
    def _everything(self) -> tuple[np.ndarray, np.ndarray]:
        scores, failed = self.draw(generator(self.name, "all"), 1, MANY)
        return np.sort(scores[0]), np.sort(scores[0][~failed[0]])

    @property
    def mean(self) -> float:
        """Of all runs."""
        return self.rate * CHANCE + (1 - self.rate) * GOOD

    @property
    def sd(self) -> float:
        """Of all runs."""
        return float(np.sqrt((1 - self.rate) * SPREAD**2 + self.rate * 0.005**2 + self._between))

    @property
    def _between(self) -> float:
        return self.rate * (1 - self.rate) * (GOOD - CHANCE) ** 2

    def quantile(self, share: float) -> float:
        """Of all runs."""
        return float(np.quantile(self._everything[0], share))

    @property
    def iqm(self) -> float:
        """The interquartile mean of all runs."""
        return float(iqm(self._everything[0]))


def _normal(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    return rng.normal(GOOD, SPREAD, size)


def _skewed(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A tail towards bad scores: a gamma distribution of shape 2 turned round, whose skewness is -1.4."""
    return np.asarray(GOOD - SPREAD * (rng.gamma(2.0, size=size) - 2) / np.sqrt(2))


SCENARIOS = (
    Scenario("normal", 0.0, _normal),
    Scenario("skewed", 0.0, _skewed),
    Scenario("10 % failing", 0.1, _normal),
    Scenario("30 % failing", 0.3, _normal),
)
