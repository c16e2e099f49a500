"""Which settings drive the score, and which drive failing."""

from __future__ import annotations

import pandas as pd

from harness.analysis.cells import NAN
from harness.analysis.comparisons import compared_axes, reference
from harness.analysis.verdicts import failed_runs, finished_runs, judged_runs
from harness.common.memo import once_per_object
from harness.records.study import Study, numbers
from harness.stats import anova, failure_model, forest


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    """By cell, so that the first value of a factor is that of the first cell, in whatever order the rows are."""
    return table.sort_values("cell", kind="stable")


def _factors(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    several = compared_axes(study)
    return table[several].reset_index(drop=True)


def drivers_of_score(study: Study) -> pd.DataFrame:
    """Each axis's and each pair's share in the variance of the final score (factorial ANOVA, type II sums of squares).

    Columns: `term`, `df`, `sum_of_squares`, `eta_squared`, `omega_squared` with `_low`, `_high`, `F`, `p`, and `fanova`
    (a second look by a random forest; of single axes only).
    """
    scored = _in_order(study.runs[finished_runs(study.runs) & study.runs["final_score"].notna()])
    factors, y = _factors(study, scored), numbers(scored, "final_score").to_numpy()
    table = anova.anova(factors, y, order=3)
    table = table if len(table) > 1 else table[:0]  # nothing but a residual
    second = forest.fanova(factors, y) if len(table) else pd.Series(dtype=float)
    bounds = anova.share_bounds(table, len(y))
    table["omega_squared_low"], table["omega_squared_high"] = bounds.T
    table["fanova"] = [second.get(term, NAN) for term in table["term"]]
    return table


@once_per_object
def _model_of_failing(study: Study) -> failure_model.Logit:
    table = _in_order(study.runs[judged_runs(study.runs)])
    return failure_model.fit(_factors(study, table), failed_runs(table).to_numpy())


def drivers_of_failing(study: Study) -> pd.DataFrame:
    """Each axis's share in failing: penalised logistic regression, likelihood-ratio tests (Firth's bias reduction)."""
    return failure_model.likelihood_ratios(_model_of_failing(study))


def effects_on_failing(study: Study) -> pd.DataFrame:
    """Averaged marginal effects of each axis's values on the failure rate, compared with its reference's.

    Columns as of `failure_model.effects`.
    """
    first = {axis: reference(study, axis) for axis in compared_axes(study)}
    return failure_model.effects_of(_model_of_failing(study), first)


def largest_effects(contrasts: pd.DataFrame) -> pd.DataFrame:
    """Of each axis the comparison of failure rates that differs most, all else equal; the largest first.

    Rows and columns of `failures.contrasts`, those whose difference is known.
    """
    known = contrasts.dropna(subset=["difference"]).reset_index(drop=True)
    size = known["difference"].abs()
    largest = known.loc[size.groupby(known["axis"], sort=False).idxmax()] if len(known) else known
    return largest.sort_values("difference", key=lambda column: -column.abs(), kind="stable", ignore_index=True)
