"""How far scores spread and how high they are, cell by cell and in comparison."""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.analysis.cells import NAN, by_cell, cell_scores, count_by_cell, object_columns, spread_out, with_axes
from harness.analysis.comparisons import MOST_VALUES, axes_by_weight, holm, main_axis, pairs
from harness.analysis.verdicts import failed_runs, finished_runs, judged_runs
from harness.records.study import Study
from harness.stats import bootstrap, two_samples
from harness.stats.bootstrap import rng
from harness.stats.estimate import Estimate

THRESHOLDS = 101  # points of a performance profile


def spread(study: Study) -> pd.DataFrame:
    """How far each cell's final scores spread, and what that spread is made of.

    Columns: `cell`, one per axis, `scored`, `failed` (with a score); `sd` with `sd_low`, `sd_high` (bootstrap, BCa),
    `iqr`, `mad`; the shares of the sum of squares `between` the failed and the successful, `within_ok`,
    `within_failed`, which add up to 1 (NaN where scores do not spread or failing is not known); `ok_sd`, `failed_sd`.
    """
    table, size = study.runs[finished_runs(study.runs) & study.runs["final_score"].notna()], len(study.cells)
    failed, judged = failed_runs(table), count_by_cell(table, judged_runs(table), size)
    scores = cell_scores(study)
    parts = {
        "ok": by_cell(table[~failed], "final_score", size),
        "failed": by_cell(table[failed], "final_score", size),
    }
    sd, low, high = bootstrap.bootstrap(scores, "sd", rng("sd"))
    rows = []
    for index, of_cell in enumerate(scores):
        known = judged[index] == len(of_cell)
        total = _squares(of_cell)
        within = {name: _squares(part[index]) / total if known and total else NAN for name, part in parts.items()}
        row: dict[str, object] = {"cell": index, "scored": len(of_cell)}
        row |= {"failed": len(parts["failed"][index]) if known else None}
        row |= {"sd": sd[index], "sd_low": low[index], "sd_high": high[index]}
        row |= {"iqr": float(bootstrap.iqr(of_cell)), "mad": float(bootstrap.mad(of_cell))}
        row |= {"between": max(1 - within["ok"] - within["failed"], 0.0) if known and total else NAN}
        row |= {f"within_{name}": share for name, share in within.items()}
        for name, part in parts.items():
            row[f"{name}_sd"] = part[index].std(ddof=1) if known and len(part[index]) > 1 else NAN
        rows.append(row)
    spreads = pd.DataFrame(rows)
    spreads["failed"] = pd.array(spreads["failed"].tolist(), dtype="Int64")
    return with_axes(study, spreads)


def _squares(scores: np.ndarray) -> float:
    """The sum of squares about the mean; 0 for equal scores, which rounding would hide."""
    return float(((scores - scores.mean()) ** 2).sum()) if len(scores) and scores[0] != scores[-1] else 0.0


def level(study: Study) -> pd.DataFrame:
    """Mean, median and interquartile mean of each cell's final scores, each with a bootstrap interval (BCa, 95 %).

    Columns: `cell`, one per axis, `scored`, and for each of `mean`, `median`, `iqm` the value, `_low` and `_high`.
    """
    scores = cell_scores(study)
    table = pd.DataFrame({"cell": range(len(scores)), "scored": [len(values) for values in scores]})
    for name in ("mean", "median", "iqm"):
        table[name], table[f"{name}_low"], table[f"{name}_high"] = bootstrap.bootstrap(scores, name, rng(name))
    return with_axes(study, table)


def pooled_level(study: Study) -> pd.DataFrame:
    """The same for each value of each axis over all its cells, by bootstrap within the cells (stratified).

    An axis of more than `MOST_VALUES` values is left out.

    Columns: `axis`, `value`, `scored`, and `mean`, `median`, `iqm` with `_low`, `_high`.
    """
    scores = cell_scores(study)
    rows: list[dict[str, object]] = []
    for axis in (axis for axis in axes_by_weight(study) if len(study.values(axis)) <= MOST_VALUES):
        for value in study.values(axis):
            strata = [
                scores[index]
                for index, cell in enumerate(study.cells)
                if dict(cell.axes)[axis] == value and len(scores[index])
            ]
            row: dict[str, object] = {"axis": axis, "value": value, "scored": sum(map(len, strata))}
            for name in ("mean", "median", "iqm"):
                estimate = bootstrap.pooled(strata, name, rng(f"{axis} {name}")) if strata else Estimate(NAN, NAN, NAN)
                row |= spread_out(name, estimate)
            rows.append(row)
    columns = ["axis", "value", "scored"] + [
        f"{a}{b}" for a in ("mean", "median", "iqm") for b in ("", "_low", "_high")
    ]
    return object_columns(pd.DataFrame(rows, columns=columns), rows, "value")


def pair_spreads(study: Study) -> pd.DataFrame:
    """Spread in cells that differ on the main axis alone.

    Columns: `reference`, `cell`, `reference_sd`, `sd`, `ratio` (of the sd's, cell over reference) with `_low`, `_high`;
    p of `levene`, `brown_forsythe` and a `permutation` test; `p_holm` of Brown-Forsythe's over the pairs.
    """
    scores = cell_scores(study)
    rows = []
    for a, b in pairs(study):
        test = two_samples.compare_spread(scores[a], scores[b], rng(f"spread {a} {b}"))
        sds = [values.std(ddof=1) if len(values) > 1 else NAN for values in (scores[a], scores[b])]
        rows.append(
            {"reference": a, "cell": b, "reference_sd": sds[0], "sd": sds[1]}
            | spread_out("ratio", test.ratio)
            | {"levene": test.levene, "brown_forsythe": test.brown_forsythe, "permutation": test.permutation}
        )
    return holm(pd.DataFrame(rows), "brown_forsythe")


def pair_levels(study: Study) -> pd.DataFrame:
    """Level in cells that differ on the main axis alone.

    Columns: `reference`, `cell`, `reference_mean`, `mean`, `difference` (cell minus reference, Welch's interval),
    `welch`, `mann_whitney`, `permutation` (p values), `improvement` (probability that a run of the cell is better than
    one of the reference; ties count half), `effect` (Hedges' g), each estimate with `_low`, `_high`; `p_holm` of
    Welch's over the pairs.
    """
    scores = cell_scores(study)
    rows = []
    for a, b in pairs(study):
        sign = 1 if study.higher_is_better else -1
        test = two_samples.compare_level(scores[a], scores[b], rng(f"level {a} {b}"))
        better = test.improvement
        if sign < 0:
            better = Estimate(1 - better.value, 1 - better.high, 1 - better.low)
        means = [values.mean() if len(values) else NAN for values in (scores[a], scores[b])]
        rows.append(
            {"reference": a, "cell": b, "reference_mean": means[0], "mean": means[1]}
            | spread_out("difference", test.difference)
            | {"welch": test.welch, "mann_whitney": test.mann_whitney, "permutation": test.permutation}
            | spread_out("improvement", better)
            | spread_out("effect", test.effect)
        )
    return holm(pd.DataFrame(rows), "welch")


def profile(study: Study) -> pd.DataFrame:
    """The share of runs whose final score is better than τ, for each value of the main axis, with a 95 % band.

    Columns: `value` (of the main axis; None without axes), `threshold`, `share`, `low`, `high`; bootstrap within cells.
    """
    axis = main_axis(study)
    groups = cell_scores(study)
    known = np.concatenate([*groups, np.zeros(0)])
    if not len(known):
        return pd.DataFrame(columns=["value", "threshold", "share", "low", "high"])
    margin = (known.max() - known.min()) * 0.02 or 0.01
    thresholds = np.linspace(known.min() - margin, known.max() + margin, THRESHOLDS)
    sign = 1 if study.higher_is_better else -1
    tables, values = [], []
    for value in study.values(axis) if axis else [None]:
        strata = [
            sign * groups[index]
            for index, cell in enumerate(study.cells)
            if (axis is None or dict(cell.axes)[axis] == value) and len(groups[index])
        ]
        if not strata:
            continue
        share, low, high = bootstrap.performance_profile(strata, sign * thresholds, rng("profile"))
        tables.append(pd.DataFrame({"threshold": thresholds, "share": share, "low": low, "high": high}))
        values += [value] * len(thresholds)
    table = pd.concat(tables, ignore_index=True)
    table.insert(0, "value", pd.Series(values, dtype=object))
    return table
