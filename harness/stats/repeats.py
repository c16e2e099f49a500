"""How far results of one seed scatter: the standard deviation within groups of repeated runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from harness.stats.estimate import NAN, Estimate


def within_sd(groups: Sequence[Sequence[float]]) -> tuple[Estimate, int]:
    """The pooled standard deviation within groups, with its 95 % interval, and its degrees of freedom.

    The interval is that of a normal distribution's standard deviation, √(ν s² / χ²_ν) at the quantiles 97.5 % and
    2.5 % (Montgomery, Design and Analysis of Experiments, section 2.6). Groups of one say nothing; without any other
    nothing is known.
    """
    from scipy.stats import chi2

    squares = degrees = 0.0
    for group in groups:
        values = np.asarray(group, dtype=np.float64)
        if len(values) > 1:
            squares += float(((values - values.mean()) ** 2).sum())
            degrees += len(values) - 1
    if not degrees:
        return Estimate(NAN, NAN, NAN), 0
    low, high = (math.sqrt(squares / float(chi2.ppf(quantile, degrees))) for quantile in (0.975, 0.025))
    return Estimate(math.sqrt(squares / degrees), low, high), int(degrees)
