"""Which runs failed, by definition, by setting and in comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pandas as pd

from harness.analysis import looks
from harness.analysis.cells import NAN, count_by_cell, failure_counts, object_columns, spread_out, with_axes
from harness.analysis.comparisons import by_others, compared_axes, compared_values, pairs, phrase
from harness.analysis.outcomes import crossed_cells, failure_rate, seed_parts
from harness.analysis.verdicts import (
    LEVEL,
    above_majority_p,
    failed_runs,
    finished_runs,
    flat_losses,
    judged_runs,
    untrained_loss,
)
from harness.common.memo import once_per_object
from harness.records.study import Axes, Study, numbers
from harness.stats import clusters, proportions, stratified
from harness.stats.estimate import Estimate


def definitions(study: Study, threshold: float | None = None) -> pd.DataFrame:
    """How many runs of each cell fail under each definition, `<definition>_failed` of `<definition>_of` known.

    `majority`: at or below the majority (the definition of this project); `binomial`: right answers not above the
    majority at 5 % (one-sided, as `near_chance`); `entropy`: training loss of the last epoch at 0.95 of the labels'
    entropy or more, of a regression of their variance; `threshold`: final score worse than `threshold`. A run that
    diverged failed under all of them.
    """
    done = study.runs[finished_runs(study.runs)]
    diverged = done["final_score"].isna()
    scores, p_value = numbers(done, "final_score"), above_majority_p(done)
    loss, entropy = numbers(done, "final_train_loss"), untrained_loss(done)
    known = {
        "majority": judged_runs(done),
        "binomial": p_value.notna() | (diverged & done[["majority_correct", "label_variance"]].notna().any(axis=1)),
        "entropy": entropy.notna() & (loss.notna() | diverged),
    }
    fails = {
        "majority": failed_runs(done),
        "binomial": (p_value > LEVEL) | diverged,
        "entropy": flat_losses(done) | diverged,
    }
    if threshold is not None:
        known["threshold"] = scores.notna() | diverged
        fails["threshold"] = (scores < threshold if study.higher_is_better else scores > threshold) | diverged
    size = len(study.cells)
    columns: dict[str, object] = {"cell": range(size)}
    for name, of in known.items():
        columns |= {
            f"{name}_failed": count_by_cell(done, fails[name] & of, size),
            f"{name}_of": count_by_cell(done, of, size),
        }
    return with_axes(study, pd.DataFrame(columns))


def arms(study: Study) -> pd.DataFrame:
    """Failures pooled for each value of each axis, the main one first (`compared_axes`).

    Columns: `axis`, `value`, `phrase` (how a sentence names it), `planned`, `finished`, `judged`, `failed`,
    `failed_low`, `failed_high` (95 %, `outcomes.failure_rate`), `mean` (of the final scores), `loss`, `loss_min`,
    `loss_max` (last
    epoch's training loss, nats), and `balanced_counts`: whether the judged runs of all values of the axis are spread
    over the other settings in the same shares, without which their pooled rates mix effects.
    """
    rows = []
    counts = failure_counts(study)
    for axis in compared_axes(study):
        shares: list[dict[Axes, Fraction]] = []
        of_axis: list[dict[str, object]] = []
        for value in study.values(axis):
            members = by_others(study, axis, value)
            pooled = study.runs[study.runs["cell"].isin(members.values())]
            done = pooled[finished_runs(pooled)]
            loss = numbers(done, "final_train_loss")
            failed, judged = (sum(counts[index][part] for index in members.values()) for part in (0, 1))
            shares.append(
                {others: Fraction(counts[index][1], judged) for others, index in members.items() if counts[index][1]}
            )
            rate = failure_rate(pooled)
            of_axis.append(
                {"axis": axis, "value": value, "phrase": phrase(axis, value), "planned": len(pooled)}
                | {"finished": len(done), "judged": judged, "failed": failed}
                | {"failed_low": rate.low, "failed_high": rate.high}
                | {"mean": numbers(done, "final_score").mean()}
                | {"loss": loss.mean(), "loss_min": loss.min(), "loss_max": loss.max()}
            )
        known = [share for share in shares if share]
        rows += [row | {"balanced_counts": all(share == known[0] for share in known)} for row in of_axis]
    columns = ["axis", "value", "phrase", "planned", "finished", "judged", "failed", "failed_low", "failed_high"]
    columns += ["mean", "loss", "loss_min", "loss_max", "balanced_counts"]
    return object_columns(pd.DataFrame(rows, columns=columns), rows, "value")


def contrasts(study: Study) -> pd.DataFrame:
    """Failing by axis, stratified by all other settings: each value against the reference, or all pairs of values.

    Columns: `axis`, `value`, `reference`; counts in the shared settings `failed`, `judged`, `reference_failed`,
    `reference_judged`; `difference` of rates (value minus reference) and `odds_ratio`, each with `_low`, `_high`;
    `strata` and `informative` ones; `p` (`stratified.contrast`, which `difference` has its interval of), `p_adjusted`
    (Holm, over the comparisons of the axis); `p_least` (the smallest p that so many runs could give).
    """
    counts, crossed = failure_counts(study), crossed_cells(study)
    rows: list[dict[str, object]] = []
    for axis in compared_axes(study):
        by_value = {value: by_others(study, axis, value) for value in study.values(axis)}
        compared = compared_values(study, axis)
        cells = [
            [(by_value[first][other], by_value[value][other]) for other in by_value[first] if other in by_value[value]]
            for first, value in compared
        ]
        strata = [[(*counts[a], *counts[b]) for a, b in of_both if counts[a][1] and counts[b][1]] for of_both in cells]
        of_axis: list[dict[str, object]] = []
        for (first, value), own, test in zip(compared, strata, _compared(study, cells, strata, crossed), strict=True):
            k1, n1, k2, n2 = (int(total) for total in np.array(own, dtype=int).reshape(-1, 4).sum(axis=0))
            row: dict[str, object] = {"axis": axis, "value": value, "reference": first, "failed": k2, "judged": n2}
            row |= {"reference_failed": k1, "reference_judged": n1}
            row |= spread_out("difference", test.risk_difference) | spread_out("odds_ratio", test.odds_ratio)
            of_axis.append(
                row
                | {"strata": test.strata, "informative": test.informative, "p": test.p}
                | {"p_least": stratified.least_p(own)}
            )
        adjusted = proportions.holm([float(str(row["p"])) for row in of_axis])
        rows += [row | {"p_adjusted": p} for row, p in zip(of_axis, adjusted.tolist(), strict=True)]
    columns = ["axis", "value", "reference", "failed", "judged", "reference_failed", "reference_judged", "difference"]
    columns += ["difference_low", "difference_high", "odds_ratio", "odds_ratio_low", "odds_ratio_high", "strata"]
    columns += ["informative", "p", "p_adjusted", "p_least"]
    return object_columns(pd.DataFrame(rows, columns=columns), rows, "value", "reference")


def _compared(
    study: Study,
    cells: Sequence[Sequence[tuple[int, int]]],
    strata: Sequence[stratified.Strata],
    crossed: frozenset[int],
) -> list[stratified.Stratified]:
    """Comparisons of failure rates, each of pairs of cells (reference, other) with a stratum each, as seeds allow.

    Where seed parts are crossed, difference and p are of as many runs as are independent (`clusters.contrast`), and the
    odds ratio has no interval.
    """
    tests = stratified.contrasts(strata)
    if not crossed:
        return tests
    return [
        test if crossed.isdisjoint(index for pair in own for index in pair) else _of_clusters(study, own, test)
        for own, test in zip(cells, tests, strict=True)
    ]


def _of_clusters(study: Study, cells: Sequence[tuple[int, int]], test: stratified.Stratified) -> stratified.Stratified:
    """A comparison in which runs that share a part of their seed are one cluster."""
    stratum = {index: number for number, pair in enumerate(cells) for index in pair}
    runs = study.runs[judged_runs(study.runs) & study.runs["cell"].isin(list(stratum))]
    second = runs["cell"].isin([index for _, index in cells]).to_numpy()
    codes = runs["cell"].map(stratum).to_numpy(dtype=int)
    difference, p = clusters.contrast(seed_parts(runs), failed_runs(runs).to_numpy(), second, codes)
    odds = Estimate(test.odds_ratio.value, NAN, NAN)
    return replace(test, risk_difference=difference, odds_ratio=odds, p=p)


def pair_failures(study: Study) -> pd.DataFrame:
    """Failing in cells that differ on the main axis alone: `reference` and `cell` (indices), counts, tests.

    Columns: `reference`, `cell`, `reference_failed`, `reference_judged`, `failed`, `judged`; `difference` of the rates
    (cell minus reference) with the interval of the test of `p` (`stratified.contrast` of one stratum), `odds_ratio`
    (conditional, exact interval), `fisher` (exact, two-sided: a second look), `p_adjusted` (Holm, over the pairs).
    Where seed parts are crossed, difference and p count as many runs as are independent, the others are not known.
    """
    counts, crossed = failure_counts(study), crossed_cells(study)
    rows, compared = [], pairs(study)
    fours = [(*counts[a], *counts[b]) for a, b in compared]
    tests = _compared(study, [[pair] for pair in compared], [[four] for four in fours], crossed)
    for (a, b), four, test in zip(compared, fours, tests, strict=True):
        independent = crossed.isdisjoint((a, b))
        odds = proportions.odds_ratio(*four)
        rows.append(
            {"reference": a, "cell": b, "reference_failed": four[0], "reference_judged": four[1]}
            | {"failed": four[2], "judged": four[3]}
            | spread_out("difference", test.risk_difference)
            | {"p": test.p}
            | spread_out("odds_ratio", odds if independent else Estimate(odds.value, NAN, NAN))
            | {"fisher": proportions.fisher(*four) if independent else NAN}
        )
    table = pd.DataFrame(rows)
    if len(table):
        table["p_adjusted"] = proportions.holm(table["p"].to_numpy(dtype=float))
    return table


@once_per_object
def all_runs(study: Study) -> pd.DataFrame:
    """All runs together, in one row: `planned`, `finished`, `crashed`, `missing`, `judged`, `failed` with its interval.

    `unreadable` stands beside them where a record can't be used.
    The interval is `outcomes.failure_rate`'s: what seeds do alike counts once; where seeds are added by rule, one that
    holds at every look.
    """
    runs, rate = study.runs, failure_rate(study.runs)
    row: dict[str, object] = {"planned": len(runs), "finished": int(finished_runs(runs).sum())}
    states = ("crashed", "missing", *(("unreadable",) if study.unreadable else ()))
    row |= {status: int((runs["status"] == status).sum()) for status in states}
    row |= {"judged": int(judged_runs(runs).sum()), "failed": int(failed_runs(runs).sum())}
    return looks.of_all_runs(study, pd.DataFrame([row | {"failed_low": rate.low, "failed_high": rate.high}]))


def never_failed(study: Study) -> pd.DataFrame:
    """Cells in which no run failed: how high their failure rate may be all the same (95 %, one-sided).

    Columns: `cell`, one per axis, `judged`, `exact`, `rule_of_three`; where seed parts are crossed, of as many runs as
    are independent.
    """
    rows: list[dict[str, object]] = []
    crossed = crossed_cells(study)
    for index, (failed, judged) in enumerate(failure_counts(study)):
        if judged and not failed:
            n = judged
            if index in crossed:
                runs = study.runs[judged_runs(study.runs) & (study.runs["cell"] == index)]
                n = int(clusters.effective_runs(seed_parts(runs), np.zeros(len(runs), dtype=bool)))
            exact, rule = proportions.never_failed(n)
            rows.append({"cell": index, "judged": judged, "exact": exact, "rule_of_three": rule})
    return with_axes(study, pd.DataFrame(rows, columns=["cell", "judged", "exact", "rule_of_three"]))
