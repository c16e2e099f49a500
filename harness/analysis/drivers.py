"""What drives scores and failing, and the paper's numbers beside them."""

from __future__ import annotations

import pandas as pd

from harness.analysis import published
from harness.analysis.cells import NAN, axes_by_weight, cell_groups, failed_runs, finished_runs, judged_runs
from harness.analysis.seeds import in_order
from harness.records.study import Study, numbers
from harness.stats import anova, failure_model, forest


def _factors(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    several = axes_by_weight(study)
    return table[several].reset_index(drop=True)


def drivers_of_score(study: Study) -> pd.DataFrame:
    """Each axis's and each pair's share in the variance of the final score (factorial ANOVA, type II sums of squares).

    Columns: `term`, `df`, `sum_of_squares`, `eta_squared`, `omega_squared`, `F`, `p`, and `fanova` (a second look by a
    random forest; of single axes only).
    """
    table = in_order(study.runs[finished_runs(study.runs) & study.runs["final_score"].notna()])
    factors, y = _factors(study, table), numbers(table, "final_score").to_numpy()
    found = anova.anova(factors, y, order=3)
    found = found if len(found) > 1 else found[:0]  # nothing but a residual
    second = forest.fanova(factors, y) if len(found) else pd.Series(dtype=float)
    found["fanova"] = [second.get(term, NAN) for term in found["term"]]
    return found


def drivers_of_failing(study: Study) -> pd.DataFrame:
    """Each axis's share in failing: penalised logistic regression, likelihood-ratio tests (`importance`)."""
    table = in_order(study.runs[judged_runs(study.runs)])
    return failure_model.penalised_logit(_factors(study, table), failed_runs(table).to_numpy())


def effects_on_failing(study: Study) -> pd.DataFrame:
    """Averaged marginal effects of each axis's values on the failure rate (`failure_model.effects`)."""
    table = in_order(study.runs[judged_runs(study.runs)])
    return failure_model.effects(_factors(study, table), failed_runs(table).to_numpy())


# -------------------------------------------------------------------------------------------------- all of it at once


def against_the_paper(study: Study) -> pd.DataFrame:
    """The published numbers that speak of this study's task, each beside the cell that repeats it (`published`)."""
    own = []
    for sweep in study.sweeps if len(study.sweeps) == 1 and not study.imports else ():
        groups = cell_groups(study.runs, len(study.cells))
        for index, (cell, here) in enumerate(zip(sweep.cells, groups, strict=True)):
            done = here[finished_runs(here)]
            fields = cell.recipe.model_dump(exclude={"task", "model"}, exclude_defaults=True)
            final, best = (numbers(done, name).to_numpy() for name in ("final_score", "best_score"))
            metrics = set(done["metric"].dropna())
            role = dict(cell.axes).get("recipe")
            own.append(
                published.Own(
                    index, cell.recipe.task.name, cell.recipe.model.name, fields, final, best,
                    metric=metrics.pop() if len(metrics) == 1 else None, role=role if isinstance(role, str) else None,
                )
            )  # fmt: skip
    return published.compare_study(own, study.stand_in)
