"""The sentences that open the report: how often runs fail, where, and what settings, seeds and the dev set say."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pandas as pd

from harness.analysis.analyze import Analysis
from harness.analysis.outcomes import failure_rate
from harness.common.text import show
from harness.report.formatting import rate_of, score
from harness.report.sections import baselines, dev_set, importance, seed_budget, seed_parts
from harness.report.wording import capitalized, main_arms, p_clause, run_count, second_arm, spaced
from harness.stats import proportions


def answer(analysis: Analysis) -> list[str]:
    """The sentences that open the report.

    Pooled rates are over the judged runs of all other settings; what is missing or crashed is said in the first.
    """
    texts = [how_often(analysis), where(analysis), *helped(analysis), importance.in_short(analysis)]
    texts += seed_parts.largest_parts(analysis)[:1]
    texts += baselines.sentences(analysis)[:1] if len(analysis.baselines) else []
    texts += [dev_set.in_short(analysis), seed_budget.few_seeds(analysis)]
    return [capitalized(text) for text in texts if text]


def multiplicity(analysis: Analysis) -> str:
    """How many comparisons were made and what was adjusted."""
    n = analysis.comparisons
    if not n:
        return "No hypothesis was tested."
    return (
        f"{n} {'hypothesis was' if n == 1 else 'hypotheses were'} tested (failure rates by axis and by pair of "
        "cells, spread and mean by pair); “p, Holm” is adjusted within its table. Runs of different cells share their "
        "seeds, which the tests of differences leave aside: what seeds do alike in both cancels."
    )


# ----------------------------------------------------------------------------------------------------------- how often


def incomplete(runs: pd.DataFrame) -> str:
    """`12 of the 72 planned runs are missing and 2 crashed`; empty for a complete study."""
    missing, crashed = (int((runs["status"] == status).sum()) for status in ("missing", "crashed"))
    if not missing and not crashed:
        return ""
    planned = f" of the {run_count(len(runs), 'planned ')}"
    if not missing:
        return f"{crashed}{planned} crashed"
    text = f"{missing}{planned} {'is' if missing == 1 else 'are'} missing"
    return f"{text} and {crashed} crashed" if crashed else text


def how_often(analysis: Analysis) -> str:
    """How many runs failed; of an axis with two values how many of each, and how sure the difference is."""
    cells = analysis.cells
    finished, judged = int(cells["finished"].sum()), int(cells["judged"].sum())
    failed = int(cells["failed"].fillna(0).sum())
    gaps = incomplete(analysis.runs)
    tail = f"; {gaps}." if gaps else "."
    if 0 < judged < finished:
        tail = f"; for {run_count(finished - judged, 'more finished ')} it is not known whether they failed{tail}"
    if finished == 0:
        return f"no run has finished yet: {gaps}."
    if judged == 0:
        return (
            f"it is not known whether any of {run_count(finished, 'finished ')} failed: no majority-class score was "
            f"given{tail}"
        )
    pair = main_arms(analysis)
    if failed == 0:
        return _none_failed(pair, judged) + tail
    if len(pair) == 2 and (pair["judged"] > 0).all():
        return _of_two_arms(analysis, pair) + tail
    only = pair[pair["judged"] > 0]
    lacking = "".join(f"; no run {row['phrase']} has finished" for _, row in pair[pair["judged"] == 0].iterrows())
    which = f"{run_count(judged)} {only.iloc[0]['phrase']}" if len(pair) == 2 else run_count(judged, "finished ")
    overall = failure_rate(analysis.runs)
    row = {"failed": failed, "judged": judged, "failed_low": overall.low, "failed_high": overall.high}
    return f"{failed} of {which} failed ({rate_of(row)}){lacking}{tail}"


def _none_failed(pair: pd.DataFrame, judged: int) -> str:
    upper = 100 * proportions.wilson(0, judged)[1]
    split = [f"{row['judged']} {row['phrase']}" for _, row in pair.iterrows()]
    which = f" ({' and '.join(split)})" if split else ""
    return (
        f"0 of {run_count(judged, 'finished ')}{which} failed, which is compatible with a failure rate of up to "
        f"{upper:.0f} % (95 % CI)"
    )


def _of_two_arms(analysis: Analysis, pair: pd.DataFrame) -> str:
    first, second = (row for _, row in pair.iterrows())
    rates = [rate_of(arm) for arm in (first, second)]
    p = proportions.fisher(first["failed"], first["judged"], second["failed"], second["judged"])
    caveat = "" if first["balanced"] else _in_common(analysis, str(first["axis"]))
    return (
        f"{first['failed']} of {run_count(first['judged'])} {first['phrase']} failed ({rates[0]}), "
        f"compared with {second['failed']} of {second['judged']} {second_arm(second)} "
        f"({rates[1]}; Fisher's exact {p_clause(p)}{caveat})"
    )


def _in_common(analysis: Analysis, axis: str) -> str:
    """What of an unbalanced comparison can be compared all else equal."""
    row = analysis.contrasts[analysis.contrasts["axis"] == axis].iloc[0]
    if not row["strata"]:
        return ", but the other settings differ too and none is shared"
    settings = "the one shared setting" if row["strata"] == 1 else f"the {row['strata']} shared settings"
    return (
        f", but the other settings differ too; in {settings} {row['reference_failed']} of {row['reference_judged']} "
        f"compared with {row['failed']} of {row['judged']}"
    )


# --------------------------------------------------------------------------------------------------------------- where


def where(analysis: Analysis) -> str:
    """Where runs fail most, where scores spread most, and which cell is best."""
    cells = analysis.cells
    finished, judged, scored = (int(cells[name].sum()) for name in ("finished", "judged", "scored"))
    failed = int(cells["failed"].fillna(0).sum())
    if finished == 0:
        return "failure rates appear here once runs have finished."
    clauses = []
    if judged and failed == judged == finished:
        clauses.append("no run did better than the majority class, so a small spread here means failure, not stability")
    elif failed and len(cells) > 1:
        clauses.append(_worst(analysis))
    if scored == 0:
        clauses.append("no run has a score because all of them diverged")
    elif cells["scored"].max() == 1:
        clauses.append("one seed per cell cannot show the spread over seeds")
    elif not failed and len(cells) > 1:
        widest = cells["sd"].idxmax()
        clauses.append(
            f"the spread is widest at {analysis.study.cells[widest].label} (sd {score(cells['sd'][widest])})"
        )
    if scored and (failed < judged or judged < finished):
        clauses.append(_best(analysis))
    chance = int(cells["near_chance"].sum())
    if chance:
        clauses.append(
            f"{'one more run is' if chance == 1 else f'{chance} more runs are'} near chance, but not counted as failed"
        )
    return "; ".join(clauses) + "."


def _worst(analysis: Analysis) -> str:
    """Where the failure rate is highest: the cell, or what the cells have in common."""
    cells, named = analysis.cells, analysis.study.cells
    rates = cells["failed"].astype(float) / cells["judged"].where(cells["judged"] > 0)
    worst = list(rates.index[rates == rates.max()])
    k, n = int(cells.loc[worst, "failed"].sum()), int(cells.loc[worst, "judged"].sum())
    if len(worst) == 1:
        return f"the failure rate is highest at {named[worst[0]].label} ({k} of {n})"
    shared = [pair for pair in named[worst[0]].axes if all(pair in named[index].axes for index in worst)]
    common = ", all with " + ", ".join(f"{spaced(name)} {show(value)}" for name, value in shared) if shared else ""
    return f"the failure rate is highest in {len(worst)} of {len(cells)} cells{common} ({k} of {n})"


def _best(analysis: Analysis) -> str:
    """Which cell has the best mean, or that the dev set does not tell; and whether more epochs raise the mean."""
    cells, higher = analysis.cells, analysis.study.higher_is_better
    best = cells["mean"].idxmax() if higher else cells["mean"].idxmin()
    row = cells.loc[best]
    spread = f"sd {score(row['sd'])}, " if row["scored"] > 1 else ""
    level = f"{score(row['mean'])} ({spread}n = {int(row['scored'])})"
    noise = dev_set.sampling(analysis)
    if cells["mean"].notna().sum() < 2:
        return f"the mean score is {level}" + (f", from {score(row['min'])} to {score(row['max'])}" if spread else "")
    if noise is not None and not noise.tells:
        losses = dev_set.losses(analysis)
        return (
            f"{noise.examples} dev examples cannot distinguish the cell means "
            f"({noise.lowest:.3f} to {noise.highest:.3f})" + (f", {losses}" if losses else "")
        )
    return f"the best mean score is {level}, at {analysis.study.cells[best].label}" + _epochs(analysis)


def _epochs(analysis: Analysis) -> str:
    """In how many settings the most epochs have a better mean than the fewest."""
    study = analysis.study
    if "epochs" not in study.axes or not study.sweeps:
        return ""
    values = sorted(value for value in study.values("epochs") if isinstance(value, int))
    if len(values) < 2:
        return ""
    few, many = values[0], values[-1]
    means = {cell.axes: analysis.cells["mean"][index] for index, cell in enumerate(study.cells)}
    gains = []
    for axes, mean in means.items():
        if dict(axes)["epochs"] == few:
            longer = tuple((name, many if name == "epochs" else value) for name, value in axes)
            gains.append(means.get(longer, math.nan) - mean)
    gains = [gain for gain in gains if not math.isnan(gain)]
    if not gains:
        return ""
    return (
        f"; {many} epochs give a higher mean than {few} in {sum(gain > 0 for gain in gains)} of {len(gains)} settings"
    )


# --------------------------------------------------------------------------------------------------------- what helped


def helped(analysis: Analysis) -> list[str]:
    """Of named recipes or methods, three or more: which fail less than the first, which more; and so for the score."""
    axis = next((name for name in ("recipe", "method") if name in analysis.study.axes), None)
    if axis is None or len(analysis.study.values(axis)) < 3:
        return []
    return [*_fewer_failures(analysis, axis), *_better_means(analysis, axis)]


def _fewer_failures(analysis: Analysis, axis: str) -> list[str]:
    rows = analysis.contrasts[analysis.contrasts["axis"] == axis]
    if not rows["p"].notna().any():
        return []
    k, n = (int(rows[f"reference_{name}"].max()) for name in ("failed", "judged"))
    clear = rows["p_holm"] < 0.05
    parts = [
        f"{kind} fail with {_listed(rows[clear & side], lambda row: f'{row.failed} of {row.judged}')}"
        for kind, side in (("fewer runs", rows["difference"] < 0), ("more runs", rows["difference"] > 0))
        if (clear & side).any()
    ]
    reference = f"{axis} “{show(analysis.study.values(axis)[0])}” ({k} of {n} failed)"
    return [_compared(reference, parts, len(rows) - int(clear.sum()), "failure rate")]


def _better_means(analysis: Analysis, axis: str) -> list[str]:
    study, pairs = analysis.study, analysis.pair_levels
    if len(study.axes) > 1 or not len(pairs):
        return []
    pairs = pairs[pairs["reference"] == 0]
    pairs = pairs.assign(value=[dict(study.cells[index].axes)[axis] for index in pairs["cell"]])
    if not len(pairs):
        return []
    clear = pairs["p_holm"] < 0.05
    better = pairs["ok_difference"] > 0 if study.higher_is_better else pairs["ok_difference"] < 0
    parts = [
        f"the mean of successful runs is {kind} with {_listed(pairs[clear & side], lambda row: score(row.ok_mean))}"
        for kind, side in (("better", better), ("worse", ~better))
        if (clear & side).any()
    ]
    reference = f"{axis} “{show(study.values(axis)[0])}” (mean {score(float(pairs['reference_ok_mean'].iloc[0]))})"
    return [_compared(reference, parts, len(pairs) - int(clear.sum()), "mean")]


def _listed(rows: pd.DataFrame, number: Callable[[Any], str]) -> str:
    return ", ".join(f"{show(row.value)} ({number(row)})" for row in rows.itertuples())


def _compared(reference: str, parts: list[str], rest: int, of: str) -> str:
    """What differs from a reference, and of how many others that is not shown."""
    if rest:
        if parts:
            others = "the other" if rest == 1 else f"the other {rest}"
        else:
            others = "both" if rest == 2 else f"all {rest}"
        parts = [*parts, f"no significant difference in {of} for {others}"]
    return f"compared with the {reference}: {'; '.join(parts)} (Holm-adjusted p < 0.05)."
