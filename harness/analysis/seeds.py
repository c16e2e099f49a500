"""What seeds tell: the best of n, the budget that is needed, the parts of the seed."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from harness.analysis.cells import NAN, cell_groups, cell_scores, count_by_cell, failure_counts, spread_out, with_axes
from harness.analysis.comparisons import pairs
from harness.analysis.dev_answers import DevAnswers
from harness.analysis.verdicts import failed_runs, finished_runs, judged_runs
from harness.records.study import Study, numbers
from harness.stats import dev_noise, seed_budget, variance_components
from harness.stats.bootstrap import rng
from harness.stats.estimate import Estimate

BUDGETS = (5, 10, 15, 25, 50, 100, 200)  # seeds a cell, at which the seed budget is told


def best_of_n(study: Study) -> pd.DataFrame:
    """The best final score to expect of n seeds, for n = 1…N (200 at most) of each cell, with a bootstrap interval.

    Columns: `cell`, one per axis, `n`, `expected` (Dodge et al. 2019), `low`, `high`, `unbiased` (Tang et al. 2020).
    A cell with a run that diverged is told over the runs with a score.
    """
    tables = []
    for index, scores in enumerate(cell_scores(study)):
        if len(scores):
            best = seed_budget.expected_best(scores, study.higher_is_better, rng("best"))
            columns = {name: getattr(best, name) for name in ("n", "expected", "low", "high", "unbiased")}
            tables.append(pd.DataFrame({"cell": index, **columns}))
    names = ["cell", "n", "expected", "low", "high", "unbiased"]
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=names)
    return with_axes(study, table)


def selection(study: Study, answered: Sequence[DevAnswers | None]) -> pd.DataFrame:
    """What picking the best of a cell's seeds by its dev score reports too high.

    Columns: `cell`, one per axis, `n`, `mean`, `best` (dev score of the best seed), `too_high` with its bounds, and
    `known_from`: `test` (dev score of the picked seed minus its test score, less the mean gap of the two),
    `halves` (the best seed on a random half of the dev set: its accuracy there minus that on the other half, mean over
    splits, so for a dev set of half the size), or empty where neither is known.
    """
    sign = 1 if study.higher_is_better else -1
    done = study.runs[finished_runs(study.runs) & study.runs["final_score"].notna()]
    tested = (
        cell_groups(done[done["test_score"].notna()], len(study.cells)) if done["test_score"].notna().any() else None
    )
    rows: list[dict[str, object]] = []
    for index, (scores, answers) in enumerate(zip(cell_scores(study), answered, strict=True)):
        row: dict[str, object] = {"cell": index, "n": len(scores), "known_from": ""}
        row |= {"mean": scores.mean(), "best": sign * (sign * scores).max()} if len(scores) else {}
        if tested is not None and len(tested[index]) == len(scores) > 1:
            dev, test = numbers(tested[index], "final_score"), numbers(tested[index], "test_score")
            gap = (dev - test)[dev == row["best"]].mean() - (dev - test).mean()  # of several best: their mean
            row |= {"too_high": sign * gap, "known_from": "test"}
        elif answers is not None and len(answers.rows) > 1:
            estimate = Estimate(*dev_noise.optimism(answers.correct, rng("halves")))
            row |= spread_out("too_high", estimate) | {"known_from": "halves"}
        rows.append(row)
    columns = ["cell", "n", "mean", "best", "too_high", "too_high_low", "too_high_high", "known_from"]
    return with_axes(study, pd.DataFrame(rows, columns=columns))


def budget(study: Study) -> pd.DataFrame:
    """How sure the mean and the failure rate of each cell are now and would be at other numbers of seeds.

    Columns: `cell`, one per axis, `n`, `now` (whether so many are there), `mean_half_width` (95 %, t, at the observed
    sd), `rate_half_width` (half of Wilson's interval at the observed rate).
    """
    planned = count_by_cell(study.runs, study.runs["cell"].notna(), len(study.cells))
    rows = []
    for index, (scores, (failed, judged)) in enumerate(zip(cell_scores(study), failure_counts(study), strict=True)):
        # Scores that are all equal say nothing of how far others would lie.
        sd = (scores.std(ddof=1) if len(scores) > 1 else NAN) or NAN
        for n in sorted({*BUDGETS, int(planned[index])}):
            rate = seed_budget.rate_half_width(failed / judged, n) if judged else NAN
            rows.append(
                {"cell": index, "n": n, "now": n == planned[index]}
                | {"mean_half_width": seed_budget.mean_half_width(sd, n), "rate_half_width": rate}
            )
    return with_axes(study, pd.DataFrame(rows))


def needed(study: Study) -> pd.DataFrame:
    """Seeds a cell that tell two cells apart with a power of 80 % at 5 %, would their runs fall out as observed.

    Columns: `reference`, `cell`, `now` (the smaller number of scored runs), `for_mean` (Welch's test, simulated from
    the observed scores), `for_failure` (Fisher's exact test at the observed rates); NA where a thousand do not.
    """
    scores = cell_scores(study)
    counts = failure_counts(study)
    rows: list[dict[str, object]] = []
    for a, b in pairs(study):
        mean = seed_budget.seeds_for_mean(scores[a], scores[b], rng(f"needed {a} {b}"))
        failure = seed_budget.seeds_for_failure(*counts[a], *counts[b]) if counts[a][1] and counts[b][1] else None
        row: dict[str, object] = {"reference": a, "cell": b, "now": min(len(scores[a]), len(scores[b]))}
        rows.append(row | {"for_mean": mean, "for_failure": failure})
    table = pd.DataFrame(rows, columns=["reference", "cell", "now", "for_mean", "for_failure"])
    for name in ("for_mean", "for_failure"):
        table[name] = pd.array(table[name].tolist(), dtype="Int64")
    return table


def seed_factors(study: Study) -> pd.DataFrame:
    """Where a cell's seed parts are crossed: the share of each, and of their interactions, in score and in failing.

    Columns: `cell`, one per axis, `of` (`score`, `failing`), `runs`, `term`, `variance`, `share`, `low`, `high` (of the
    share, 95 %), `reason` (why nothing is known, else empty). No rows where one integer drives all parts.
    """
    tables = []
    parts = study.runs[["init_seed", "order_seed", "dropout_seed"]]
    together = parts.eq(parts["init_seed"], axis=0).all(axis=1) | parts.isna().all(axis=1)
    groups = [] if together.all() else cell_groups(study.runs, len(study.cells))
    for index, of_cell in enumerate(groups):
        levels = variance_components.crossed(of_cell[["init_seed", "order_seed", "dropout_seed"]])
        if levels is None:
            continue
        judged = judged_runs(of_cell)
        for of, y in (("score", numbers(of_cell, "final_score")), ("failing", failed_runs(of_cell).astype(float))):
            components = variance_components.variance_components(levels, y.where(judged).to_numpy(), rng("components"))
            table = components.table.rename(columns={"share_low": "low", "share_high": "high"})
            if components.reason:
                table = pd.DataFrame([{"term": ""}])
            table.insert(0, "cell", index)
            table.insert(1, "of", of)
            table.insert(2, "runs", int(y.where(judged).notna().sum()))
            table["reason"] = components.reason
            tables.append(table)
    columns = ["cell", "of", "runs", "term", "variance", "share", "low", "high", "reason"]
    joined = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)
    return with_axes(study, joined.reindex(columns=columns))
