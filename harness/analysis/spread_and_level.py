"""How far scores spread and how high they are, cell by cell and in comparison."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from harness.analysis.cells import NAN, object_columns, spread_out, with_axes
from harness.analysis.comparisons import MOST_VALUES, compared_axes, holm, main_axis, pairs
from harness.analysis.outcomes import Outcomes, outcomes
from harness.analysis.score_scale import cut_to_scale
from harness.records.study import Study
from harness.stats import bootstrap, clusters, means, modes, proportions, ranks, two_samples
from harness.stats.bootstrap import rng
from harness.stats.estimate import UNKNOWN, Estimate

THRESHOLDS = 101  # points of a performance profile
MOST_DIPS = 50  # cells whose scores are tested for two groups


def spread(study: Study) -> pd.DataFrame:
    """How far each cell's final scores spread, and what that spread is made of.

    Columns: `cell`, one per axis, `scored`, `failed` (with a score); `sd` of all scores, `iqr`, `mad`; the shares of
    the sum of squares `between` the failed and the successful, `within_ok`, `within_failed`, which add up to 1 (NaN
    where scores do not spread or failing is not known); `ok_sd` of the runs that did not fail, with `ok_sd_low`,
    `ok_sd_high` (Bonett; none where seed parts are crossed), `failed_sd`; `dip_p` (Hartigan's dip test of one mode, of
    the first `MOST_DIPS` cells and from 8 independent runs on), `dip_p_holm` of it over the cells, and
    how the scores fall into two groups: `lower_runs` with median `lower`, `upper_runs` with median `upper`.
    """
    rows = []
    for index, cell in enumerate(outcomes(study)):
        scores = cell.scores[cell.scored]
        bad, total = cell.scores[cell.scored & cell.failed], _squares(scores)
        split = cell.judged and total > 0
        within = {
            "ok": _squares(cell.good) / total if split else NAN,
            "failed": _squares(bad) / total if split else NAN,
        }
        row: dict[str, object] = {"cell": index, "scored": len(scores)}
        row |= {"failed": len(bad) if cell.judged or not len(scores) else None}
        row |= {"sd": scores.std(ddof=1) if len(scores) > 1 else NAN}
        row |= {"iqr": float(bootstrap.iqr(scores)), "mad": float(bootstrap.mad(scores))}
        row |= {"between": max(1 - within["ok"] - within["failed"], 0.0) if split else NAN}
        row |= {f"within_{name}": share for name, share in within.items()}
        row |= spread_out("ok_sd", cell.deviation_of_good() if cell.judged else UNKNOWN)
        row |= {"failed_sd": bad.std(ddof=1) if len(bad) > 1 else NAN}
        rows.append(row | _groups(scores, index < MOST_DIPS and cell.levels is None))
    spreads = pd.DataFrame(rows)
    adjusted = proportions.holm(spreads["dip_p"].to_numpy(dtype=float))
    spreads.insert(spreads.columns.get_loc("dip_p") + 1, "dip_p_holm", adjusted)
    for name in ("failed", "lower_runs", "upper_runs"):
        spreads[name] = pd.array(spreads[name].tolist(), dtype="Int64")
    return with_axes(study, spreads)


def _groups(scores: np.ndarray, tested: bool) -> dict[str, object]:
    """The columns of `spread` that tell two groups of scores."""
    columns = dict.fromkeys(("dip_p", "lower", "upper"), NAN) | dict.fromkeys(("lower_runs", "upper_runs"))
    if not tested or len(scores) < modes.FEWEST or np.ptp(scores) == 0:
        return columns
    groups = modes.two_groups(scores)
    columns |= {"dip_p": modes.dip_p(scores), "lower_runs": groups.lower, "lower": groups.lower_median}
    return columns | {"upper_runs": groups.upper, "upper": groups.upper_median}


def _squares(scores: np.ndarray) -> float:
    """The sum of squares about the mean; 0 for equal scores, which rounding would hide."""
    return float(((scores - scores.mean()) ** 2).sum()) if len(scores) and scores[0] != scores[-1] else 0.0


def level(study: Study) -> pd.DataFrame:
    """How high each cell's final scores are.

    Columns: `cell`, one per axis, `scored`, `diverged`; `mean` of the scores, whose interval holds for failures that
    may still come (`Outcomes.mean`); `ok`, how many did not fail, and their mean `ok_mean` (Student); and over all runs
    by rank, where one that diverged is the worst: `median` and `q10`, the quantile below which the worst tenth lies
    (order statistics; an end that so few runs do not bound is infinite), `iqm` (BCa, from `bootstrap.FEWEST` runs on),
    and `worst_tenth`, the mean of the worst tenth (conditional value at risk). Estimates have `_low` and `_high`, which
    end where the metric's scale does.
    """
    cells, sign = outcomes(study), 1 if study.higher_is_better else -1
    ranked = [cell.ranked(study.higher_is_better) for cell in cells]
    iqm = _interquartile_means(cells, ranked)
    rows = []
    for index, (cell, ordered) in enumerate(zip(cells, ranked, strict=True)):
        row: dict[str, object] = {"cell": index, "scored": int(cell.scored.sum()), "diverged": cell.diverged}
        row |= spread_out("mean", cell.mean()) | {"ok": len(cell.good)}
        row |= spread_out("ok_mean", cell.mean_of_good() if cell.judged else UNKNOWN)
        row |= spread_out("median", _quantile(cell, ordered, 0.5, sign))
        row |= spread_out("iqm", _turned(iqm[index], sign))
        row |= spread_out("q10", _quantile(cell, ordered, 0.1, sign))
        rows.append(row | {"worst_tenth": sign * ranks.worst_mean(ordered)})
    return with_axes(study, cut_to_scale(study, pd.DataFrame(rows), ("mean", "ok_mean")))


def _turned(estimate: Estimate, sign: int) -> Estimate:
    """An estimate of scores that were turned round, as one of the scores."""
    return estimate if sign > 0 else Estimate(-estimate.value, -estimate.high, -estimate.low)


def _quantile(cell: Outcomes, ordered: np.ndarray, share: float, sign: int) -> Estimate:
    """A quantile of all runs of a cell, given in ascending order, as one of their scores."""
    quantile = ranks.quantile(ordered, share)
    if cell.levels is not None:
        worse = ~(sign * cell.scores > quantile.value)  # a run that diverged, NaN, is
        quantile = ranks.quantile(ordered, share, cell.effective(worse))
    return _turned(quantile, sign)


def _interquartile_means(cells: Sequence[Outcomes], ranked: Sequence[np.ndarray]) -> list[Estimate]:
    """Of all runs of each cell; an interval where there are enough runs, all with a score and independent."""
    value, low, high = bootstrap.bootstrap(
        [ordered if np.isfinite(ordered).all() else ordered[:0] for ordered in ranked], "iqm", rng("iqm")
    )
    estimates = []
    for index, (cell, ordered) in enumerate(zip(cells, ranked, strict=True)):
        sure = len(ordered) >= bootstrap.FEWEST and cell.levels is None
        bounds = (float(low[index]), float(high[index])) if sure else (NAN, NAN)
        middle = float(value[index]) if np.isfinite(ordered).all() else float(bootstrap.iqm(ordered))
        estimates.append(Estimate(middle, *bounds))
    return estimates


def pooled_level(study: Study) -> pd.DataFrame:
    """The same for each value of each axis over all its cells, which are taken as they are: their choice is no chance.

    An axis of more than `MOST_VALUES` values is left out.

    Columns: `axis`, `value`, `scored`; `mean` of the scored runs (`means.pooled`; no interval where seed parts are
    crossed), and of all runs, those that diverged as the worst, `median` and `iqm` (bootstrap within the cells, from
    `bootstrap.FEWEST` runs in each on; no interval where a run diverged), with `_low`, `_high`.
    """
    cells, sign = outcomes(study), 1 if study.higher_is_better else -1
    means_of = [cell.mean() for cell in cells]
    rows: list[dict[str, object]] = []
    for axis in (axis for axis in compared_axes(study) if len(study.values(axis)) <= MOST_VALUES):
        for value in study.values(axis):
            own = [index for index, cell in enumerate(study.cells) if dict(cell.axes)[axis] == value]
            members = [index for index in own if cells[index].scored.any()]
            strata = [cells[index].scores[cells[index].scored] for index in members]
            total = sum(map(len, strata))
            row: dict[str, object] = {"axis": axis, "value": value, "scored": total}
            weights = [len(scores) / total for scores in strata]
            independent = all(cells[index].levels is None for index in members)
            mean = means.pooled([means_of[index] for index in members], strata, weights)
            row |= spread_out("mean", mean if independent else Estimate(mean.value, NAN, NAN))
            enough = independent and all(len(scores) >= bootstrap.FEWEST for scores in strata)
            diverged = any(cells[index].diverged for index in own)
            for name in ("median", "iqm"):
                if diverged:
                    ranked = np.sort(np.concatenate([cells[index].ranked(study.higher_is_better) for index in own]))
                    middle = ranks.quantile(ranked, 0.5).value if name == "median" else float(bootstrap.iqm(ranked))
                    pooled = Estimate(sign * middle, NAN, NAN)
                else:
                    pooled = bootstrap.pooled(strata, name, rng(f"{axis} {name}"))
                row |= spread_out(name, pooled if enough else Estimate(pooled.value, NAN, NAN))
            rows.append(row)
    columns = ["axis", "value", "scored"] + [
        f"{a}{b}" for a in ("mean", "median", "iqm") for b in ("", "_low", "_high")
    ]
    table = cut_to_scale(study, pd.DataFrame(rows, columns=columns), ("mean",))
    return object_columns(table, rows, "value")


def pair_spreads(study: Study) -> pd.DataFrame:
    """Spread of the runs that did not fail, in cells that differ on the main axis alone.

    Columns: `reference`, `cell`, `reference_ok_sd`, `ok_sd`, `ratio` (of these, cell over reference) with `_low`,
    `_high` and `p` of the same method (Bonett), `p_holm` of it over the pairs; p of `levene`, `brown_forsythe` and a
    `permutation` test. Where seed parts are crossed only the sds and their ratio are known.
    """
    cells, rows = outcomes(study), []
    for a, b in pairs(study):
        x, y = cells[a].good, cells[b].good
        test = two_samples.compare_spread(x, y, rng(f"spread {a} {b}"))
        sds = [values.std(ddof=1) if len(values) > 1 else NAN for values in (x, y)]
        row: dict[str, object] = {"reference": a, "cell": b, "reference_ok_sd": sds[0], "ok_sd": sds[1]}
        row |= spread_out("ratio", test.ratio)
        tests = {name: getattr(test, name) for name in ("p", "levene", "brown_forsythe", "permutation")}
        if cells[a].levels is not None or cells[b].levels is not None:
            row |= {"ratio_low": NAN, "ratio_high": NAN}
            tests = dict.fromkeys(tests, NAN)
        rows.append(row | tests)
    return holm(pd.DataFrame(rows), "p")


def pair_levels(study: Study) -> pd.DataFrame:
    """Level in cells that differ on the main axis alone.

    Columns: `reference`, `cell`; `reference_mean`, `mean` of the scored runs and their `difference` (cell minus
    reference), whose interval holds for failures that may still come; the same of the runs that did not fail,
    `reference_ok_mean`, `ok_mean`, `ok_difference` with Welch's interval and `ok_p`, `p_holm` of it over the pairs,
    `ok_permutation` (p), `ok_effect` (Hedges' g); and over all runs by rank, one that diverged as the worst,
    `improvement` (probability that a run of the cell is better than one of the reference; ties count half) and
    `mann_whitney` (p). Each estimate has `_low`, `_high`. Where seed parts are crossed `ok_difference` and `ok_p` count
    runs with a part in common as one cluster, and what supposes independent runs is not known.
    """
    cells, rows = outcomes(study), []
    ranked = [cell.ranked(study.higher_is_better) for cell in cells]
    for a, b in pairs(study):
        both = cells[a], cells[b]
        row: dict[str, object] = {"reference": a, "cell": b}
        estimates = [cell.mean() for cell in both]
        row |= {"reference_mean": estimates[0].value, "mean": estimates[1].value}
        row |= spread_out("difference", means.minus(*estimates))
        row |= _good_runs_compared(*both, f"level {a} {b}")
        order = two_samples.compare_ranks(ranked[a], ranked[b])
        independent = both[0].levels is None and both[1].levels is None
        better = order.improvement if independent else Estimate(order.improvement.value, NAN, NAN)
        row |= spread_out("improvement", better) | {"mann_whitney": order.mann_whitney if independent else NAN}
        rows.append(row)
    return holm(cut_to_scale(study, pd.DataFrame(rows), (), ("difference", "ok_difference")), "ok_p")


def _good_runs_compared(first: Outcomes, second: Outcomes, name: str) -> dict[str, object]:
    """The columns of `pair_levels` that are of the runs that did not fail."""
    x, y = first.good, second.good
    test = two_samples.compare_level(x, y, rng(name))
    row: dict[str, object] = {"reference_ok_mean": x.mean() if len(x) else NAN, "ok_mean": y.mean() if len(y) else NAN}
    if first.levels is None or second.levels is None:
        row |= spread_out("ok_difference", test.difference) | {"ok_p": test.welch}
        return row | {"ok_permutation": test.permutation} | spread_out("ok_effect", test.effect)
    levels = pd.concat([cell.levels_of_good() for cell in (first, second)])
    arm = np.arange(len(levels)) >= len(x)
    estimate, p = clusters.difference(levels, np.concatenate([x, y]), arm)
    row |= spread_out("ok_difference", estimate) | {"ok_p": p, "ok_permutation": NAN}
    return row | spread_out("ok_effect", Estimate(test.effect.value, NAN, NAN))


def profile(study: Study) -> pd.DataFrame:
    """The share of runs whose final score is better than τ, for each value of the main axis, with a 95 % band.

    Columns: `value` (of the main axis; None without axes), `threshold`, `share`, `low`, `high`. A run that diverged is
    better than no τ.
    """
    axis, cells = main_axis(study), outcomes(study)
    known = np.concatenate([*(cell.scores[cell.scored] for cell in cells), np.zeros(0)])
    if not len(known):
        return pd.DataFrame(columns=["value", "threshold", "share", "low", "high"])
    margin = (known.max() - known.min()) * 0.02 or 0.01
    thresholds = np.linspace(known.min() - margin, known.max() + margin, THRESHOLDS)
    signed = thresholds if study.higher_is_better else -thresholds
    tables, values = [], []
    for value in study.values(axis) if axis else [None]:
        members = [
            cells[index]
            for index, cell in enumerate(study.cells)
            if (axis is None or dict(cell.axes)[axis] == value) and len(cells[index].scores)
        ]
        if not members:
            continue
        strata = [cell.ranked(study.higher_is_better) for cell in members]
        effective = [_effective(cell, signed, study.higher_is_better) for cell in members]
        share, low, high = ranks.performance_profile(strata, signed, effective)
        tables.append(pd.DataFrame({"threshold": thresholds, "share": share, "low": low, "high": high}))
        values += [value] * len(thresholds)
    table = pd.concat(tables, ignore_index=True)
    table.insert(0, "value", pd.Series(values, dtype=object))
    return table


def _effective(cell: Outcomes, thresholds: np.ndarray, higher_is_better: bool) -> np.ndarray | None:
    """How many independent runs a cell's are worth at each threshold [T]; None where they are independent."""
    if cell.levels is None:
        return None
    signed = cell.scores if higher_is_better else -cell.scores
    return np.array([cell.effective(signed > threshold) for threshold in thresholds], dtype=float)
