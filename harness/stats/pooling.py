"""Failure rates of many cells estimated together, so that few runs of one borrow from the others; arrays in and out."""

from __future__ import annotations

import math

import numpy as np
from scipy import special

from harness.stats.estimate import NAN, TAIL, Estimate

FEWEST_CELLS = 3  # below which nothing is told of how rates differ between cells
_MEANS = (np.arange(24) + 0.5) / 24  # of the rates over cells
_SIZES = np.geomspace(0.5, 200, 20)  # how many runs' worth the others tell of one cell
_RATES = (np.arange(400) + 0.5) / 400


def pooled_rates(failed: np.ndarray, runs: np.ndarray) -> list[Estimate]:
    """The failure rates of cells from `failed` [C] of `runs` [C], shrunk towards each other, with 95 % intervals.

    Rates are beta distributed over cells with a mean and a size that are not known: flat over the mean, flat over the
    logarithm of the size from 0.5 to 200 runs, and averaged over both on a grid, so that the intervals hold what is not
    known of them. Cells that fail alike are drawn together; those that do not are left alone. It takes all cells as
    alike before their runs: what is known of their settings is not used. The interval of a cell in which none failed
    begins at 0, and ends at 1 where all did: without that it would never hold a rate of 0. NaN for a cell without runs,
    and for all where fewer than `FEWEST_CELLS` have any.

    Source: Gelman et al. (2013), Bayesian Data Analysis, 5.3 (rat tumours).
    """
    k, n = np.asarray(failed, dtype=float), np.asarray(runs, dtype=float)
    if (n > 0).sum() < FEWEST_CELLS:
        return [Estimate(NAN, NAN, NAN)] * len(n)
    mean, size = (grid.ravel() for grid in np.meshgrid(_MEANS, _SIZES))
    a, b = mean * size, (1 - mean) * size  # [G]
    kinds, cell_kind, counts = np.unique(
        np.stack([k[n > 0], n[n > 0]], axis=1), axis=0, return_inverse=True, return_counts=True
    )
    log_weight = np.zeros(len(a))
    for (fails, total), count in zip(kinds, counts, strict=True):
        log_weight += count * (special.betaln(fails + a, total - fails + b) - special.betaln(a, b))
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    used = weight > 1e-6
    a, b, weight = a[used], b[used], weight[used] / weight[used].sum()
    estimates = _posteriors(kinds[:, :1] + a, kinds[:, 1:] - kinds[:, :1] + b, weight)
    for row, (fails, total) in enumerate(kinds):  # what never happened may be impossible, as in Wilson's interval
        low, high = (0.0 if not fails else estimates[row].low), (1.0 if fails == total else estimates[row].high)
        estimates[row] = Estimate(estimates[row].value, low, high)
    result = [Estimate(NAN, NAN, NAN)] * len(n)
    for index, kind in zip(np.flatnonzero(n > 0), cell_kind.ravel(), strict=True):
        result[index] = estimates[kind]
    return result


def _posteriors(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> list[Estimate]:
    """Means and central 95 % of mixtures of beta distributions [K, G], to the grid of rates."""
    means = (a / (a + b)) @ weight
    low, high = (_quantiles(a, b, weight, share) for share in (TAIL, 1 - TAIL))
    return [Estimate(*map(float, ends)) for ends in zip(means, low, high, strict=True)]


def _quantiles(a: np.ndarray, b: np.ndarray, weight: np.ndarray, share: float) -> np.ndarray:
    """Where the mixtures [K, G] reach a share: linear between two neighbours of `_RATES`, which halving finds."""

    def below(position: np.ndarray) -> np.ndarray:
        return np.asarray(special.betainc(a, b, _RATES[position][:, None]) @ weight)

    first, last = np.zeros(len(a), dtype=int), np.full(len(a), len(_RATES) - 1)
    for _ in range(math.ceil(math.log2(len(_RATES)))):
        middle = (first + last) // 2
        under = below(middle) <= share
        first, last = np.where(under, middle, first), np.where(under, last, middle)
    last = np.maximum(last, np.minimum(first + 1, len(_RATES) - 1))
    start, end = below(first), below(last)
    step = np.clip((share - start) / np.where(end > start, end - start, 1.0), 0.0, 1.0)
    return np.asarray(_RATES[first] + step * (_RATES[last] - _RATES[first]))
