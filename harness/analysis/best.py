"""Which cells may be the best: on the mean score, and on failing."""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.analysis.cells import cell_scores, failure_counts, with_axes
from harness.records.study import Study
from harness.stats import best_set as sets


def best_set(study: Study) -> pd.DataFrame:
    """The cells that are not told apart from the best one, on either measure (95 %, `stats.best_set`).

    Columns: `cell`, one per axis; `mean` of the `scored` runs, `p_mean` (adjusted: that another cell's mean is better),
    `maybe_best_mean`; `failed` of `judged`, `p_rate` (adjusted: that another cell's failure rate is lower),
    `maybe_lowest_rate`. NaN, and False, where a cell has no score or no judged run. `recommended`: of those that may be
    best on both (on the mean, where no run is judged) the ones with the lowest observed failure rate: a choice, not a
    finding. No rows for a single cell.
    """
    columns = ["cell", "mean", "scored", "p_mean", "maybe_best_mean", "failed", "judged", "p_rate", "maybe_lowest_rate"]
    columns += ["recommended"]
    if len(study.cells) < 2:
        return with_axes(study, pd.DataFrame(columns=columns))
    scores, sign = cell_scores(study), 1 if study.higher_is_better else -1
    failed, judged = np.array(failure_counts(study), dtype=int).T
    p_mean, p_rate = sets.by_mean([sign * group for group in scores]), sets.by_rate(failed, judged)
    table = pd.DataFrame(
        {
            "cell": range(len(study.cells)),
            "mean": [group.mean() if len(group) else np.nan for group in scores],
            "scored": [len(group) for group in scores],
            "p_mean": p_mean,
            "maybe_best_mean": p_mean >= sets.LEVEL,
            "failed": failed,
            "judged": judged,
            "p_rate": p_rate,
            "maybe_lowest_rate": p_rate >= sets.LEVEL,
            "recommended": _recommended(p_mean, p_rate, failed, judged),
        }
    )
    return with_axes(study, table)


def _recommended(p_mean: np.ndarray, p_rate: np.ndarray, failed: np.ndarray, judged: np.ndarray) -> np.ndarray:
    """Which cells may be best on both measures and failed least of these, as a mask [cells]."""
    chosen = p_mean >= sets.LEVEL
    if not judged.any():
        return chosen
    chosen &= p_rate >= sets.LEVEL
    if chosen.any():
        rates = failed / np.maximum(judged, 1)
        chosen &= rates == rates[chosen].min()
    return chosen
