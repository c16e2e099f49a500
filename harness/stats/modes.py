"""Whether scores fall into two groups: the dip test, and the two groups; arrays in, numbers out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from harness.stats.estimate import NAN

SIMULATED = 1_000  # uniform samples that a dip is compared with
LARGEST = 50  # runs, above which sqrt(n) · dip hardly depends on n
FEWEST = 8  # runs, below which two groups can't be told from one


def dip(scores: np.ndarray) -> float:
    """How far scores [n] are from the nearest distribution with one mode: 1/(2n) at least, 1/4 at most.

    The distance is the largest between distribution functions; twice it is what this counts in runs. A function that is
    convex up to the mode and concave after it lies above the greatest convex minorant G of the lower corners of the
    scores' steps and below the least concave majorant L of the upper ones. The interval that holds the mode shrinks to
    where G and L are farthest apart, and what F lies from them outside it is the dip so far.

    Source: Hartigan & Hartigan (1985), Annals of Statistics 13, 70-84, section 3.
    """
    values, counts = np.unique(np.asarray(scores, dtype=float), return_counts=True)
    upper = np.cumsum(counts).astype(float)
    lower = upper - counts
    low, high, twice = 0, len(values) - 1, 1.0
    while low < high:
        x = values[low : high + 1]
        convex, concave = _touching(x, lower[low : high + 1]), _touching(x, -upper[low : high + 1])
        minorant = np.interp(x, x[convex], lower[low : high + 1][convex])
        majorant = np.interp(x, x[concave], upper[low : high + 1][concave])
        touched = np.union1d(convex, concave)
        apart = (majorant - minorant)[touched]
        widest = int(touched[np.argmax(apart)])
        if apart.max() <= twice:
            break
        left, right = int(convex[convex <= widest].max()), int(concave[concave >= widest].min())
        below = (upper[low : low + left] - minorant[:left]).max(initial=0.0)
        above = (majorant[right + 1 :] - lower[low + right + 1 : high + 1]).max(initial=0.0)
        twice = max(twice, float(below), float(above))
        if (left, right) == (0, high - low):
            break
        low, high = low + left, low + right
    return twice / (2 * len(scores))


def _touching(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where points with ascending x [N] touch their greatest convex minorant, as indices."""
    hull: list[int] = []
    for i in range(len(x)):
        while len(hull) > 1:
            a, b = hull[-2], hull[-1]
            if (y[b] - y[a]) * (x[i] - x[a]) < (y[i] - y[a]) * (x[b] - x[a]):
                break
            hull.pop()
        hull.append(i)
    return np.array(hull)


@lru_cache(maxsize=256)
def _dips_of_uniform(n: int) -> np.ndarray:
    rng = np.random.default_rng(n)
    return np.sort([dip(rng.random(n)) for _ in range(SIMULATED)])


def dip_p(scores: np.ndarray) -> float:
    """The p value of one mode: how often uniform scores, the worst case, have so large a dip; NaN below `FEWEST`."""
    n = len(scores)
    if n < FEWEST:
        return NAN
    reference, scale = _dips_of_uniform(min(n, LARGEST)), math.sqrt(n / min(n, LARGEST))
    larger = SIMULATED - int(np.searchsorted(reference, dip(scores) * scale - 1e-12))
    return (larger + 1) / (SIMULATED + 1)


@dataclass(frozen=True)
class Groups:
    """Two groups of scores: how many are in each, and their medians."""

    lower: int
    lower_median: float
    upper: int
    upper_median: float


def two_groups(scores: np.ndarray) -> Groups:
    """The split of at least two differing scores into two groups with the least squares within them (Fisher 1958)."""
    ordered = np.sort(np.asarray(scores, dtype=float))
    n, sums = np.arange(1, len(ordered)), np.cumsum(ordered)
    between = (sums[:-1] / n - (sums[-1] - sums[:-1]) / (len(ordered) - n)) ** 2 * n * (len(ordered) - n)
    between[np.diff(ordered) == 0] = -1.0  # equal scores stay together
    cut = int(np.argmax(between)) + 1
    low, high = ordered[:cut], ordered[cut:]
    return Groups(len(low), float(np.median(low)), len(high), float(np.median(high)))
