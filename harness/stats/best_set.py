"""Which of several groups may be the best: those that the data do not tell apart from it.

A set holds the best group with a probability of 95 % or more, whichever that is. It is made by Gupta's rule: a group
stays unless some other is shown to be better at 5 %, shared out over the others (Bonferroni), so that the best one is
dropped by mistake in no more than 5 % of studies. Source: Gupta (1965), Technometrics 7, 225–245; Hsu (1996), Multiple
Comparisons, chapter 4, for its relation to comparisons with the best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from harness.stats import stratified
from harness.stats.estimate import NAN

LEVEL = 0.05
MOST_RIVALS = 200  # groups that each is compared with, the best first: comparing with fewer only widens the set


def by_mean(groups: Sequence[np.ndarray], errors: Mapping[int, tuple[float, float]] | None = None) -> np.ndarray:
    """How sure it is that some other group has a larger mean, as adjusted p-values [groups].

    Welch's t, two-sided as in comparisons of two groups, so that no page calls a group the best that a test of the pair
    does not tell apart; groups may differ in spread. A group of a single score, or without spread beside
    another without, can't be excluded: 1. NaN for a group without a score.

    Args:
        groups: Of each its scores [n].
        errors: Of groups whose scores are not independent the variance of the mean and its degrees of freedom, by
            their index.
    """
    n = np.array([len(group) for group in groups], dtype=float)
    means = np.array([group.mean() if len(group) else NAN for group in groups])
    variances = np.array([group.var(ddof=1) / len(group) if len(group) > 1 else NAN for group in groups])
    freedoms = n - 1
    for index, (variance, freedom) in (errors or {}).items():
        variances[index], freedoms[index] = variance, freedom
    rivals = np.flatnonzero(n > 1)
    rivals = rivals[np.argsort(-means[rivals], kind="stable")][:MOST_RIVALS]
    smallest = np.where(n > 0, 1.0, NAN)
    for rival in rivals:
        variance = variances + variances[rival]
        with np.errstate(divide="ignore", invalid="ignore"):
            t = (means[rival] - means) / np.sqrt(variance)
            freedom = variance**2 / (variances**2 / freedoms + variances[rival] ** 2 / freedoms[rival])
        p = np.where((n > 1) & (variance > 0), np.minimum(1.0, 2 * stats.t.sf(t, freedom)), 1.0)
        smallest = np.minimum(smallest, p)
    adjusted: np.ndarray = np.minimum(1.0, smallest * max(int((n > 0).sum()) - 1, 1))
    return adjusted


def by_rate(failed: np.ndarray, n: np.ndarray) -> np.ndarray:
    """How sure it is that some other group has a lower rate, as adjusted p-values [groups]; NaN for n = 0.

    The score test of `stratified.score_p`, two-sided as in comparisons of two groups, from counts [groups].
    """
    known = n > 0
    counts, position = np.unique(np.stack([failed, n], axis=1), axis=0, return_inverse=True)
    k, of = counts[counts[:, 1] > 0].T
    order = np.lexsort((-of, k / of))[:MOST_RIVALS]
    own_k, own_n = counts[:, 0, None], counts[:, 1, None]
    lower = k[order] / of[order] < own_k / np.maximum(own_n, 1)  # [counts, rivals]
    sizes = np.broadcast_arrays(k[order], of[order], own_k, np.maximum(own_n, 1))
    p = np.where(lower, stratified.score_p(*(size[..., None].astype(float) for size in sizes)), 1.0)
    smallest = p.min(axis=1, initial=1.0)[position.reshape(-1)]
    return np.where(known, np.minimum(1.0, smallest * max(int(known.sum()) - 1, 1)), NAN)
