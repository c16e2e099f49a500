"""What seeds tell: the best of n, the budget that is needed, the parts of the seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.analysis.cells import NAN, cell_groups, cell_scores, failure_counts, with_axes
from harness.analysis.comparisons import pairs
from harness.analysis.dev_answers import DevAnswers
from harness.analysis.outcomes import any_apart, crossed_levels, outcomes
from harness.analysis.verdicts import failed_runs, finished_runs, judged_runs
from harness.records.study import Study, numbers
from harness.stats import clusters, dev_noise, seed_budget, variance_components
from harness.stats.bootstrap import rng

BUDGETS = (5, 10, 15, 25, 50, 100, 200)  # seeds a cell, at which the seed budget is told


def best_of_n(study: Study) -> pd.DataFrame:
    """The best final score to expect of n seeds, for n = 1…N (200 at most) of each cell.

    Columns: `cell`, one per axis, `n`, `unbiased` (Tang et al. 2020), `expected` (Dodge et al. 2019). A run that
    diverged scores as the worst of the cell does, or as the majority class where that is worse.
    """
    tables, worst = [], np.fmin if study.higher_is_better else np.fmax
    for index, cell in enumerate(outcomes(study)):
        scores = cell.scores[cell.scored]
        if len(scores):
            lowest = worst(worst.reduce(scores), cell.chance)
            every = np.concatenate([scores, np.full(cell.diverged, lowest)])
            unbiased, expected = seed_budget.expected_best(every, study.higher_is_better)
            n = np.arange(1, len(unbiased) + 1)
            tables.append(pd.DataFrame({"cell": index, "n": n, "unbiased": unbiased, "expected": expected}))
    names = ["cell", "n", "unbiased", "expected"]
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=names)
    return with_axes(study, table)


def selection(study: Study, answered: Sequence[DevAnswers | None]) -> pd.DataFrame:
    """What picking the best of a cell's seeds by its dev score reports too high.

    Columns: `cell`, one per axis, `n`, `mean`, `best` (dev score of the best seed), `too_high`, and
    `known_from`: `test` (dev score of the picked seed minus its test score, less the mean gap of the two),
    `dev` (the best seed on a random nine tenths of each class of the dev set: its accuracy there minus that on the
    last tenth, mean over splits, brought to a dev set of full size), or empty where neither is known.
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
            optimism = dev_noise.optimism(answers.correct, rng("optimism"), labels=answers.labels)
            row |= {"too_high": optimism, "known_from": "dev"}
        rows.append(row)
    columns = ["cell", "n", "mean", "best", "too_high", "known_from"]
    return with_axes(study, pd.DataFrame(rows, columns=columns))


@dataclass(frozen=True)
class _Pilot:
    """What a cell's runs tell of further ones: their scores, and how many independent runs they are worth.

    Runs that share a part of their seed are worth fewer than they are; `failed` of `judged` has their rate of failing.
    """

    scores: np.ndarray
    scored: int
    failed: float
    judged: int


def _pilots(study: Study) -> list[_Pilot]:
    pilots = []
    for cell, (failed, judged) in zip(outcomes(study), failure_counts(study), strict=True):
        scores = cell.scores[cell.scored]
        scored, worth = len(scores), float(judged)
        if cell.levels is not None and scored > 1 and np.ptp(scores):
            error = clusters.error_of_sum(cell.levels[cell.scored], (scores - scores.mean()) / scored)
            scored = max(1, min(scored, round(float(scores.var(ddof=1)) / error.variance)))
        if judged and cell.judged and (effective := cell.effective(cell.failed)) is not None:
            worth = max(1.0, round(effective))
        pilots.append(_Pilot(scores, scored, failed * worth / max(judged, 1), int(worth)))
    return pilots


def budget(study: Study) -> pd.DataFrame:
    """How sure the mean and the failure rate of each cell are now and would be at other numbers of seeds.

    Columns: `cell`, one per axis, `n`; `mean_now`, `rate_now` (whether so many are scored, and judged; where seeds are
    crossed, as many independent ones as the runs are worth); `mean_half_width` (95 %, t, at the observed sd),
    `rate_half_width` (half of Wilson's interval at the observed rate), each with `_low` and `_high`, 10th and 90th
    percentile over what the runs leave possible.
    """
    pilots = _pilots(study)
    scored, failed, judged = (np.array([getattr(pilot, name) for pilot in pilots])
                              for name in ("scored", "failed", "judged"))  # fmt: skip
    # Scores that are all equal say nothing of how far others would lie.
    sd = np.array([(pilot.scores.std(ddof=1) if len(pilot.scores) > 1 else NAN) or NAN for pilot in pilots])
    sizes = [sorted({*BUDGETS, *now}) for now in zip(scored.tolist(), judged.tolist(), strict=True)]
    cell = np.repeat(np.arange(len(pilots)), [len(of_cell) for of_cell in sizes])
    n = np.array([size for of_cell in sizes for size in of_cell])
    columns = {"cell": cell, "n": n, "mean_now": n == scored[cell], "rate_now": n == judged[cell]}
    for name, widths in (
        ("mean_half_width", seed_budget.mean_half_width(sd[cell], scored[cell], n)),
        ("rate_half_width", seed_budget.rate_half_width(failed[cell], judged[cell], n)),
    ):
        columns |= dict(zip((name, f"{name}_low", f"{name}_high"), widths, strict=True))
    table = pd.DataFrame(columns)
    return with_axes(study, table[table["n"] > 0].reset_index(drop=True))


def needed(study: Study) -> pd.DataFrame:
    """Seeds a cell that distinguish two cells with a power of 80 % at 5 %, as far as their runs tell.

    Columns: `reference`, `cell`; for the means (`mean_…`: Welch's test) and the failure rates (`failure_…`: Fisher's):
    `_now` (runs a cell: of the smaller, scored or judged; where seeds are crossed, as many independent ones as they are
    worth), `_assured` (the power is 80 % on average over the
    differences that the runs leave possible), `_low` and `_high` (10th and 90th percentile over them). NA is more than
    a thousand; where `_high` is NA, the runs cannot tell.
    """
    pilots = _pilots(study)
    rows: list[dict[str, object]] = []
    for a, b in pairs(study):
        first, second = pilots[a], pilots[b]
        row: dict[str, object] = {"reference": a, "cell": b}
        row |= {"mean_now": min(first.scored, second.scored), "failure_now": min(first.judged, second.judged)}
        draw, worth = rng(f"needed {a} {b}"), (first.scored, second.scored)
        for name, seeds in (
            ("mean", seed_budget.needed_for_mean(first.scores, second.scores, draw, worth)),
            ("failure", seed_budget.needed_for_failure(first.failed, first.judged, second.failed, second.judged)),
        ):
            row |= {f"{name}_low": seeds.low, f"{name}_assured": seeds.assured, f"{name}_high": seeds.high}
        rows.append(row)
    ends = [f"{name}_{end}" for name in ("mean", "failure") for end in ("now", "assured", "low", "high")]
    table = pd.DataFrame(rows, columns=["reference", "cell", *ends])
    for name in ends:
        table[name] = pd.array(table[name].tolist(), dtype="Int64")
    return table


def seed_factors(study: Study) -> pd.DataFrame:
    """Where a cell's seed parts are crossed: the share of each, and of their interactions, in score and in failing.

    Columns: `cell`, one per axis, `of` (`score`, `failing`), `runs`, `term`, `variance`, `share`, `low`, `high` (of the
    share, 95 %), `reason` (why nothing is known, else empty). No rows where one integer drives all parts.
    """
    tables = []
    groups = cell_groups(study.runs, len(study.cells)) if any_apart(study.runs) else []
    for index, of_cell in enumerate(groups):
        levels = crossed_levels(of_cell)
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
