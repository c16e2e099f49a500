"""What the runs say, as tables: one function a table, from a study and nothing else; `analyse` gathers them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from harness import calibration as calibrating
from harness import importance, metrics, noise, published, statistics
from harness.beside import Beside
from harness.diagnosis import Diagnosis, diagnose
from harness.records import Baseline
from harness.statistics import Estimate, rng
from harness.study import SOURCE, Cell, Study, numbers
from harness.sweep import Scalar, show

LEVEL = 0.05  # one-sided, for "not above the majority"
NEAR_ENTROPY = 0.95  # a training loss of this share of the labels' entropy has learned next to nothing
MOST_PAIRS = 300  # cells are compared one by one up to so many pairs; with more, a table of them tells nobody anything
MOST_VALUES = 50  # of an axis, up to which each one's level is told by itself
MOST_RESAMPLED = 200  # cells whose dev answers are resampled: of ten thousand it would take half an hour
BUDGETS = (5, 10, 15, 25, 50, 100, 200)  # seeds a cell, at which the seed budget is told
THRESHOLDS = 101  # points of a performance profile
NAN = float("nan")


def _finished(table: pd.DataFrame) -> pd.Series:
    return table["status"] == "finished"


def _judged(table: pd.DataFrame) -> pd.Series:
    """Finished runs whose outcome is known: all of a sweep's, those of an import that came with a majority."""
    return _finished(table) & table["outcome"].notna()


def _failed(table: pd.DataFrame) -> pd.Series:
    return _finished(table) & (table["outcome"] == "failed")


def at_chance(table: pd.DataFrame) -> pd.Series:
    """Which finished runs are above the majority by count, yet not told from it: not trained, though not failed.

    True where the right answers are not above the majority's share at 5 % (one-sided exact binomial test; of a
    regression: the correlation not above 0, t-test) and the mean training loss of the last epoch is at least 0.95 of
    the labels' entropy (of a regression: of their variance). False for failed runs, and where either is not known. Of
    a token task the loss alone tells: the words of a sentence are no independent examples, and a fresh head finds some
    entity by luck.
    """
    untold = (_above_p(table) > LEVEL) | (table["metric"] == metrics.ENTITIES)
    return _finished(table) & (table["outcome"] == "ok") & untold & _flat(table)


def _above_p(table: pd.DataFrame) -> pd.Series:
    """The p value of so many right answers or more, were the run no better than the majority; NaN where not known."""
    right, examples = numbers(table, "correct"), numbers(table, "dev_examples")
    share = numbers(table, "majority_correct") / examples
    by_count = pd.Series(stats.binom.sf(right - 1, examples, share), index=table.index)
    r, free = numbers(table, "final_score").where(table["label_variance"].notna()), examples - 2
    with np.errstate(divide="ignore"):  # a correlation of 1
        return by_count.fillna(pd.Series(stats.t.sf(r * np.sqrt(free / (1 - r**2)), free), index=table.index))


def untrained_loss(table: pd.DataFrame) -> pd.Series:
    """The training loss of what knows the labels' frequencies and no more: their entropy, or their variance."""
    return numbers(table, "label_entropy").fillna(numbers(table, "label_variance"))


def _flat(table: pd.DataFrame) -> pd.Series:
    return numbers(table, "final_train_loss") >= NEAR_ENTROPY * untrained_loss(table)


def runs(study: Study) -> pd.DataFrame:
    """`study.runs` with the column `verdict` added."""
    table = study.runs.copy()
    table["verdict"] = verdicts(table)
    return table


def verdicts(table: pd.DataFrame) -> pd.Series:
    """The verdict on each run of a table with the columns of `Study.runs`.

    `ok`, `failed`, `diverged` (failed, without a score), `at chance`, `unjudged` (finished, but whether it failed is
    not known) or, for a run that is not finished, an empty text.
    """
    verdict = pd.Series("", index=table.index, dtype=object)
    done = _finished(table)
    verdict[done] = "unjudged"
    verdict[done & (table["outcome"] == "ok")] = "ok"
    verdict[at_chance(table)] = "at chance"
    verdict[_failed(table)] = "failed"
    verdict[done & table["final_score"].isna()] = "diverged"
    return verdict


# ------------------------------------------------------------------------------------------------------------- groups


def _by_cell(table: pd.DataFrame, column: str, cells: int) -> list[np.ndarray]:
    """The known values of a column in each cell [n], sorted, so that the order of the rows decides nothing.

    One pass over the table, for an import may have ten thousand cells.
    """
    values, places = numbers(table, column).to_numpy(), table["cell"].to_numpy(dtype=int)
    known = ~np.isnan(values)
    values, places = values[known], places[known]
    order = np.lexsort((values, places))
    return np.split(values[order], np.searchsorted(places[order], np.arange(1, cells)))


def _scores(study: Study) -> list[np.ndarray]:
    """Final scores of each cell's finished runs that have one [n], sorted."""
    return _by_cell(study.runs[_finished(study.runs)], "final_score", len(study.cells))


def _count(table: pd.DataFrame, chosen: pd.Series, cells: int) -> np.ndarray:
    """How many of the chosen rows each cell has [cells]."""
    return np.bincount(table["cell"].to_numpy(dtype=int)[chosen.to_numpy(dtype=bool)], minlength=cells)


def _means(found: list[np.ndarray]) -> list[float]:
    return [float(values.mean()) if len(values) else NAN for values in found]


def _groups(table: pd.DataFrame, cells: int) -> list[pd.DataFrame]:
    """The rows of each cell."""
    found = {int(index): group for index, group in table.groupby("cell", sort=False)}
    return [found.get(index, table[:0]) for index in range(cells)]


def _with_axes(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    """A table with one column per axis after `cell`, as objects: `none` stays None, and 1.0 beside it 1.0."""
    places = list(table["cell"])
    for place, axis in enumerate(study.axes, start=1):
        name = f"{axis} (axis)" if axis in table.columns else axis  # an import may have an axis called `mean`
        table.insert(place, name, pd.Series([dict(study.cells[index].axes)[axis] for index in places], dtype=object))
    return table


def _spread_out(prefix: str, estimate: Estimate) -> dict[str, float]:
    return {prefix: estimate.value, f"{prefix}_low": estimate.low, f"{prefix}_high": estimate.high}


# ------------------------------------------------------------------------------------------------------ failure rates


def cells(study: Study) -> pd.DataFrame:
    """One row a cell, in the study's order: counts, failure rate and the spread of the scores.

    Columns: `cell` (index), one per axis; `planned`, `finished`, `crashed`, `missing`; `judged` (finished, and whether
    it failed is known); `scored` (finished with a score: a run that diverged has none); `failed` of `judged` (NA where
    runs are finished and none is judged) with 95 % bounds `failed_low`, `failed_high` (Wilson) and `exact_low`,
    `exact_high` (Clopper-Pearson); `constant`, `diverged`, `collapsed` (reasons of the failed); `at_chance`; `mean`,
    `sd` (n - 1), `min`, `median`, `max` of the final score over the scored; `best_mean` of the best score; `loss` (mean
    of the last epoch's training loss, nats); `majority`; and where there is a test split, `tested` (runs with a score
    on it), `test_mean` and `test_sd`. NaN where not known.
    """
    table, size = runs(study), len(study.cells)
    done = table[_finished(table)]
    scores = _scores(study)
    judged, failed = _count(done, _judged(done), size), _count(done, _failed(done), size)
    finished = _count(table, _finished(table), size)
    found: dict[str, object] = {"cell": range(size), "planned": _count(table, table["cell"].notna(), size)}
    found["finished"] = finished
    found |= {status: _count(table, table["status"] == status, size) for status in ("crashed", "missing")}
    found |= {"judged": judged, "scored": [len(values) for values in scores]}
    known = [
        int(k) if n or not all_finished else None for k, n, all_finished in zip(failed, judged, finished, strict=True)
    ]
    found["failed"] = pd.array(known, dtype="Int64")
    for name, interval in (("failed", statistics.wilson), ("exact", statistics.clopper_pearson)):
        bounds = [interval(int(k), int(n)) for k, n in zip(failed, judged, strict=True)]
        found |= {f"{name}_low": [low for low, _ in bounds], f"{name}_high": [high for _, high in bounds]}
    found |= {reason: _count(done, done["reason"] == reason, size) for reason in ("constant", "diverged", "collapsed")}
    found |= {"at_chance": _count(done, done["verdict"] == "at chance", size), "mean": _means(scores)}
    found["sd"] = [values.std(ddof=1) if len(values) > 1 else NAN for values in scores]
    found["min"] = [values[0] if len(values) else NAN for values in scores]
    found["median"] = [np.median(values) if len(values) else NAN for values in scores]
    found["max"] = [values[-1] if len(values) else NAN for values in scores]
    columns = {"best_mean": "best_score", "loss": "final_train_loss", "majority": "majority_score"}
    found |= {name: _means(_by_cell(done, column, size)) for name, column in columns.items()}
    tests = _by_cell(done, "test_score", size)
    if any(map(len, tests)):
        found |= {"tested": [len(values) for values in tests], "test_mean": _means(tests)}
        found["test_sd"] = [values.std(ddof=1) if len(values) > 1 else NAN for values in tests]
    return _with_axes(study, pd.DataFrame(found))


def definitions(study: Study, threshold: float | None = None) -> pd.DataFrame:
    """How many runs of each cell fail under each definition, `<definition>_failed` of `<definition>_of` known.

    `majority`: at or below the majority (the definition of this project); `binomial`: right answers not above the
    majority at 5 % (one-sided, as `at_chance`); `entropy`: training loss of the last epoch at 0.95 of the labels'
    entropy or more, of a regression of their variance; `threshold`: final score worse than `threshold`. A run that
    diverged failed under all of them.
    """
    done = study.runs[_finished(study.runs)]
    diverged = done["final_score"].isna()
    scores, p_value = numbers(done, "final_score"), _above_p(done)
    loss, entropy = numbers(done, "final_train_loss"), untrained_loss(done)
    known = {
        "majority": _judged(done),
        "binomial": p_value.notna() | (diverged & done[["majority_correct", "label_variance"]].notna().any(axis=1)),
        "entropy": entropy.notna() & (loss.notna() | diverged),
    }
    fails = {"majority": _failed(done), "binomial": (p_value > LEVEL) | diverged, "entropy": _flat(done) | diverged}
    if threshold is not None:
        known["threshold"] = scores.notna() | diverged
        fails["threshold"] = (scores < threshold if study.higher_is_better else scores > threshold) | diverged
    size = len(study.cells)
    found: dict[str, object] = {"cell": range(size)}
    for name, of in known.items():
        found |= {f"{name}_failed": _count(done, fails[name] & of, size), f"{name}_of": _count(done, of, size)}
    return _with_axes(study, pd.DataFrame(found))


def _phrase(axis: str, value: Scalar) -> str:
    """`without bias correction`, `of the recipe usual`, `with epochs 3`."""
    if axis == "bias_correction":
        return "with bias correction" if value else "without bias correction"
    if axis == SOURCE:
        return f"of {show(value)}"
    return f"of the recipe {show(value)}" if axis == "recipe" else f"with {axis.replace('_', ' ')} {show(value)}"


def axes_by_weight(study: Study) -> list[str]:
    """The axes with more than one value: two studies side by side first, then correction, recipe, method, others."""
    first = (SOURCE, "bias_correction", "recipe", "method")
    several = [axis for axis in study.axes if len(study.values(axis)) > 1]
    return sorted(several, key=lambda axis: first.index(axis) if axis in first else len(first))


def main_axis(study: Study) -> str | None:
    """The axis that the opening sentence, the pairs of cells and the profile compare; None without axes."""
    ordered = axes_by_weight(study)
    if not ordered:
        return None
    known = [axis for axis in ordered if axis in (SOURCE, "bias_correction", "recipe", "method")]
    two = [axis for axis in ordered if len(study.values(axis)) == 2]
    return (known or two or ordered)[0]


def arms(study: Study) -> pd.DataFrame:
    """Failures pooled for each value of each axis, `axes_by_weight`.

    Columns: `axis`, `value`, `phrase` (how a sentence names it), `planned`, `finished`, `judged`, `failed`,
    `failed_low`, `failed_high` (Wilson, 95 %), `mean` (of the final scores), `loss`, `loss_min`, `loss_max` (last
    epoch's training loss, nats), and `balanced`: whether all values of the axis were planned over the same other
    settings.
    """
    rows = []
    for axis in axes_by_weight(study):
        settings: list[set[tuple[tuple[str, Scalar], ...]]] = []
        found: list[dict[str, object]] = []
        for value in study.values(axis):
            members = [index for index, cell in enumerate(study.cells) if dict(cell.axes)[axis] == value]
            settings.append({_others(study.cells[index], axis) for index in members})
            here = study.runs[study.runs["cell"].isin(members)]
            done = here[_finished(here)]
            loss = numbers(done, "final_train_loss")
            failed, judged = int(_failed(done).sum()), int(_judged(done).sum())
            low, high = statistics.wilson(failed, judged)
            found.append(
                {"axis": axis, "value": value, "phrase": _phrase(axis, value), "planned": len(here)}
                | {"finished": len(done), "judged": judged, "failed": failed, "failed_low": low, "failed_high": high}
                | {"mean": numbers(done, "final_score").mean()}
                | {"loss": loss.mean(), "loss_min": loss.min(), "loss_max": loss.max()}
            )
        rows += [row | {"balanced": all(other == settings[0] for other in settings)} for row in found]
    columns = ["axis", "value", "phrase", "planned", "finished", "judged", "failed", "failed_low", "failed_high"]
    columns += ["mean", "loss", "loss_min", "loss_max", "balanced"]
    return _objects(pd.DataFrame(rows, columns=columns), rows, "value")


def _objects(table: pd.DataFrame, rows: Sequence[dict[str, object]], *names: str) -> pd.DataFrame:
    for name in names:  # pandas would turn 1.0 beside None into NaN
        table[name] = pd.Series([row[name] for row in rows], dtype=object)
    return table


def _others(cell: Cell, axis: str) -> tuple[tuple[str, Scalar], ...]:
    return tuple(pair for pair in cell.axes if pair[0] != axis)


def contrasts(study: Study) -> pd.DataFrame:
    """Failing by axis: each value against the first one, stratified by all other settings.

    Columns: `axis`, `value`, `reference`; pooled counts `failed`, `judged`, `reference_failed`, `reference_judged`;
    `difference` of rates (value minus reference, Mantel-Haenszel) and `odds_ratio`, each with `_low`, `_high`;
    `strata` and `informative` ones; `p` (Cochran-Mantel-Haenszel), `p_holm` (over this table's rows), `fisher` (exact,
    of the pooled counts, which leaves the strata aside).
    """
    counts = _counts(study)
    rows: list[dict[str, object]] = []
    for axis in axes_by_weight(study):
        values = study.values(axis)
        by_value = {value: _by_others(study, axis, value) for value in values}
        for value in values[1:]:
            shared = [other for other in by_value[values[0]] if other in by_value[value]]
            strata = [(*counts[by_value[values[0]][o]], *counts[by_value[value][o]]) for o in shared]
            test = statistics.mantel_haenszel(strata)
            k1, n1, k2, n2 = (int(total) for total in np.array(strata, dtype=int).reshape(-1, 4).sum(axis=0))
            row: dict[str, object] = {"axis": axis, "value": value, "reference": values[0], "failed": k2, "judged": n2}
            row |= {"reference_failed": k1, "reference_judged": n1}
            row |= _spread_out("difference", test.risk_difference) | _spread_out("odds_ratio", test.odds_ratio)
            row |= {"strata": test.strata, "informative": test.informative, "p": test.p}
            rows.append(row | {"fisher": statistics.fisher(k1, n1, k2, n2)})
    columns = ["axis", "value", "reference", "failed", "judged", "reference_failed", "reference_judged", "difference"]
    columns += ["difference_low", "difference_high", "odds_ratio", "odds_ratio_low", "odds_ratio_high", "strata"]
    columns += ["informative", "p", "fisher"]
    table = _objects(pd.DataFrame(rows, columns=columns), rows, "value", "reference")
    table["p_holm"] = statistics.holm(table["p"].to_numpy(dtype=float))
    return table


def _by_others(study: Study, axis: str, value: Scalar) -> dict[tuple[tuple[str, Scalar], ...], int]:
    return {_others(cell, axis): index for index, cell in enumerate(study.cells) if dict(cell.axes)[axis] == value}


def _counts(study: Study) -> list[tuple[int, int]]:
    """(failed, judged) of each cell."""
    size = len(study.cells)
    failed, judged = (_count(study.runs, chosen(study.runs), size) for chosen in (_failed, _judged))
    return [(int(k), int(n)) for k, n in zip(failed, judged, strict=True)]


def pairs(study: Study) -> list[tuple[int, int]]:
    """Cells that differ on the main axis alone, each beside that of the axis's first value, as (reference, cell).

    Empty where there are more than `MOST_PAIRS`: then the axes as a whole are compared and not every cell.
    """
    axis = main_axis(study)
    if axis is None:
        return []
    values = study.values(axis)
    reference = _by_others(study, axis, values[0])
    found = [
        (reference[_others(cell, axis)], index)
        for index, cell in enumerate(study.cells)
        if dict(cell.axes)[axis] != values[0] and _others(cell, axis) in reference
    ]
    return found if len(found) <= MOST_PAIRS else []


def pair_failures(study: Study) -> pd.DataFrame:
    """Failing in cells that differ on the main axis alone: `reference` and `cell` (indices), counts, tests.

    Columns: `reference`, `cell`, `reference_failed`, `reference_judged`, `failed`, `judged`; `difference` of the rates
    (cell minus reference, Newcombe's interval), `odds_ratio` (conditional, exact interval), `fisher` (two-sided),
    `p_holm` over the pairs.
    """
    counts = _counts(study)
    rows = []
    for a, b in pairs(study):
        four = (*counts[a], *counts[b])
        rows.append(
            {"reference": a, "cell": b, "reference_failed": four[0], "reference_judged": four[1]}
            | {"failed": four[2], "judged": four[3]}
            | _spread_out("difference", statistics.newcombe(*four))
            | _spread_out("odds_ratio", statistics.odds_ratio(*four))
            | {"fisher": statistics.fisher(*four)}
        )
    return _holm(pd.DataFrame(rows), "fisher")


def _holm(table: pd.DataFrame, column: str) -> pd.DataFrame:
    if len(table):
        table["p_holm"] = statistics.holm(table[column].to_numpy(dtype=float))
    return table


# ------------------------------------------------------------------------------------------------------ spread, level


def spread(study: Study) -> pd.DataFrame:
    """How far each cell's final scores spread, and what that spread is made of.

    Columns: `cell`, one per axis, `scored`, `failed` (with a score); `sd` with `sd_low`, `sd_high` (bootstrap, BCa),
    `iqr`, `mad`; the shares of the sum of squares `between` the failed and the successful, `within_ok`,
    `within_failed`, which add up to 1 (NaN where scores do not spread or failing is not known); `ok_sd`, `failed_sd`.
    """
    table, size = study.runs[_finished(study.runs) & study.runs["final_score"].notna()], len(study.cells)
    failed, judged = _failed(table), _count(table, _judged(table), size)
    scores = _scores(study)
    parts = {
        "ok": _by_cell(table[~failed], "final_score", size),
        "failed": _by_cell(table[failed], "final_score", size),
    }
    sd, low, high = statistics.bootstrap(scores, "sd", rng("sd"))
    rows = []
    for index, here in enumerate(scores):
        known = judged[index] == len(here)
        total = _squares(here)
        within = {name: _squares(part[index]) / total if known and total else NAN for name, part in parts.items()}
        row: dict[str, object] = {"cell": index, "scored": len(here)}
        row |= {"failed": len(parts["failed"][index]) if known else None}
        row |= {"sd": sd[index], "sd_low": low[index], "sd_high": high[index]}
        row |= {"iqr": float(statistics.iqr(here)), "mad": float(statistics.mad(here))}
        row |= {"between": max(1 - within["ok"] - within["failed"], 0.0) if known and total else NAN}
        row |= {f"within_{name}": share for name, share in within.items()}
        for name, part in parts.items():
            row[f"{name}_sd"] = part[index].std(ddof=1) if known and len(part[index]) > 1 else NAN
        rows.append(row)
    found = pd.DataFrame(rows)
    found["failed"] = pd.array(found["failed"].tolist(), dtype="Int64")
    return _with_axes(study, found)


def _squares(scores: np.ndarray) -> float:
    """The sum of squares about the mean; 0 for equal scores, which rounding would hide."""
    return float(((scores - scores.mean()) ** 2).sum()) if len(scores) and scores[0] != scores[-1] else 0.0


def level(study: Study) -> pd.DataFrame:
    """Mean, median and interquartile mean of each cell's final scores, each with a bootstrap interval (BCa, 95 %).

    Columns: `cell`, one per axis, `scored`, and for each of `mean`, `median`, `iqm` the value, `_low` and `_high`.
    """
    scores = _scores(study)
    table = pd.DataFrame({"cell": range(len(scores)), "scored": [len(found) for found in scores]})
    for name in ("mean", "median", "iqm"):
        table[name], table[f"{name}_low"], table[f"{name}_high"] = statistics.bootstrap(scores, name, rng(name))
    return _with_axes(study, table)


def pooled_level(study: Study) -> pd.DataFrame:
    """The same for each value of each axis over all its cells, by bootstrap within the cells (stratified).

    An axis of more than `MOST_VALUES` values is left out.

    Columns: `axis`, `value`, `scored`, and `mean`, `median`, `iqm` with `_low`, `_high`.
    """
    scores = _scores(study)
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
                estimate = statistics.pooled(strata, name, rng(f"{axis} {name}")) if strata else Estimate(NAN, NAN, NAN)
                row |= _spread_out(name, estimate)
            rows.append(row)
    columns = ["axis", "value", "scored"] + [
        f"{a}{b}" for a in ("mean", "median", "iqm") for b in ("", "_low", "_high")
    ]
    return _objects(pd.DataFrame(rows, columns=columns), rows, "value")


def pair_spreads(study: Study) -> pd.DataFrame:
    """Spread in cells that differ on the main axis alone.

    Columns: `reference`, `cell`, `reference_sd`, `sd`, `ratio` (of the sd's, cell over reference) with `_low`, `_high`;
    p of `levene`, `brown_forsythe` and a `permutation` test; `p_holm` of Brown-Forsythe's over the pairs.
    """
    scores = _scores(study)
    rows = []
    for a, b in pairs(study):
        test = statistics.compare_spread(scores[a], scores[b], rng(f"spread {a} {b}"))
        sds = [found.std(ddof=1) if len(found) > 1 else NAN for found in (scores[a], scores[b])]
        rows.append(
            {"reference": a, "cell": b, "reference_sd": sds[0], "sd": sds[1]}
            | _spread_out("ratio", test.ratio)
            | {"levene": test.levene, "brown_forsythe": test.brown_forsythe, "permutation": test.permutation}
        )
    return _holm(pd.DataFrame(rows), "brown_forsythe")


def pair_levels(study: Study) -> pd.DataFrame:
    """Level in cells that differ on the main axis alone.

    Columns: `reference`, `cell`, `reference_mean`, `mean`, `difference` (cell minus reference, Welch's interval),
    `welch`, `mann_whitney`, `permutation` (p values), `improvement` (probability that a run of the cell is better than
    one of the reference; ties count half), `effect` (Hedges' g), each estimate with `_low`, `_high`; `p_holm` of
    Welch's over the pairs.
    """
    scores = _scores(study)
    rows = []
    for a, b in pairs(study):
        sign = 1 if study.higher_is_better else -1
        test = statistics.compare_level(scores[a], scores[b], rng(f"level {a} {b}"))
        better = test.improvement
        if sign < 0:
            better = Estimate(1 - better.value, 1 - better.high, 1 - better.low)
        means = [found.mean() if len(found) else NAN for found in (scores[a], scores[b])]
        rows.append(
            {"reference": a, "cell": b, "reference_mean": means[0], "mean": means[1]}
            | _spread_out("difference", test.difference)
            | {"welch": test.welch, "mann_whitney": test.mann_whitney, "permutation": test.permutation}
            | _spread_out("improvement", better)
            | _spread_out("effect", test.effect)
        )
    return _holm(pd.DataFrame(rows), "welch")


def profile(study: Study) -> pd.DataFrame:
    """The share of runs whose final score is better than τ, for each value of the main axis, with a 95 % band.

    Columns: `value` (of the main axis; None without axes), `threshold`, `share`, `low`, `high`; bootstrap within cells.
    """
    axis = main_axis(study)
    groups = _scores(study)
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
        share, low, high = statistics.performance_profile(strata, sign * thresholds, rng("profile"))
        tables.append(pd.DataFrame({"threshold": thresholds, "share": share, "low": low, "high": high}))
        values += [value] * len(thresholds)
    table = pd.concat(tables, ignore_index=True)
    table.insert(0, "value", pd.Series(values, dtype=object))
    return table


# ---------------------------------------------------------------------------------------- the noise of the dev set


@dataclass(frozen=True)
class Answers:
    """What the scored runs of one cell answered on the dev set: logits [R, N, C], labels [N], rows of the table [R]."""

    logits: np.ndarray
    labels: np.ndarray
    rows: tuple[int, ...]

    @property
    def correct(self) -> np.ndarray:
        """Which answers are right [R, N]."""
        found: np.ndarray = self.logits.argmax(axis=2) == self.labels
        return found


def answers(study: Study) -> list[Answers | None]:
    """The answers of each cell's scored runs; None where no run kept them, for a regression or a token task.

    Words of one sentence are no examples to draw by themselves, and it is entities that are scored.
    """
    if not study.sweeps:
        return [None] * len(study.cells)
    table = study.runs[_finished(study.runs) & study.runs["final_score"].notna()]
    found: list[Answers | None] = []
    for here in _groups(table, len(study.cells)):
        rows = sorted(int(row) for row in here.index)  # resampling draws by place: their order is not to matter
        kept = [(row, arrays) for row in rows if (arrays := study.curves(row)) is not None]
        kept = [(row, one) for row, one in kept if one.labels.dtype.kind == "i" and not one.sentences.size]
        if not kept:
            found.append(None)
            continue
        labels = kept[0][1].labels
        same = [(row, arrays) for row, arrays in kept if np.array_equal(arrays.labels, labels)]
        logits = np.stack([arrays.logits for _, arrays in same])
        found.append(Answers(logits, labels, tuple(row for row, _ in same)))
    return found


def noise_floor(study: Study, kept: Sequence[Answers | None]) -> pd.DataFrame:
    """How much of each cell's spread over seeds the finite dev set makes, and how far its runs agree.

    Columns: `cell`, one per axis, `runs`, `examples`, `known_from` (`answers`: the dev logits that the records keep;
    `counts`: only the number of examples is known; empty: neither, or the metric is no accuracy), `accuracy` (mean),
    `binomial`, `example_bootstrap` (error of one accuracy), `observed` (sd over seeds), `training` with `_low`, `_high`
    (sd over seeds that an infinite dev set would leave; from counts alone only its bounds), `dev_share` (of the
    observed variance), `mean_error`, `seed_error`, `example_error` (of the cell's mean), `mean_low`, `mean_high`;
    `fleiss_kappa`, `disagreement`, `jensen_shannon`, `voted` (accuracy of the majority vote of the runs).
    """
    of_floor = ["binomial", "example_bootstrap", "observed", "training", "training_low", "training_high", "dev_share"]
    of_floor += ["mean_error", "seed_error", "example_error", "mean_low", "mean_high"]
    of_agreement = ["fleiss_kappa", "disagreement", "jensen_shannon"]
    rows: list[dict[str, object]] = []
    counted = study.runs[_finished(study.runs) & study.runs["correct"].notna()]
    sizes = _by_cell(counted, "dev_examples", len(study.cells))
    for index, (scores, examples, found) in enumerate(zip(_scores(study), sizes, kept, strict=True)):
        row: dict[str, object] = {"cell": index, "runs": 0, "examples": None, "known_from": ""}
        if found is not None:
            floor = noise.floor(found.correct, rng("floor"))
            agree = noise.agreement(found.logits, found.labels)
            row |= {"runs": floor.runs, "examples": floor.examples, "known_from": "answers", "accuracy": floor.mean}
            row |= {name: getattr(floor, name) for name in of_floor}
            row |= {name: getattr(agree, name) for name in of_agreement}
            row |= {"voted": agree.accuracy_if_voted}
        elif len(examples) and examples[0] == examples[-1]:
            row |= {"runs": len(scores), "examples": int(examples[0]), "known_from": "counts"}
            row |= {"accuracy": scores.mean(), "observed": scores.std(ddof=1) if len(scores) > 1 else NAN}
            told = noise.counts_only(scores, int(examples[0]))
            row |= {"binomial": told.binomial, "training_low": told.training_least, "training_high": told.observed}
        rows.append(row)
    names = ["accuracy", *of_floor, *of_agreement, "voted"]
    table = pd.DataFrame(rows, columns=["cell", "runs", "examples", "known_from", *names])
    table["examples"] = pd.array(table["examples"].tolist(), dtype="Int64")
    table[names] = table[names].astype(float)
    return _with_axes(study, table)


def pair_noise(study: Study, kept: Sequence[Answers | None]) -> pd.DataFrame:
    """Accuracies of cells that differ on the main axis alone, seeds and dev examples drawn anew together.

    Columns: `reference`, `cell`, `seeds` (`the same` where every seed was trained in both and is drawn for both at
    once, else `each its own`), `difference` (cell minus reference, of the runs whose answers are kept) with `_low`,
    `_high` (multi-bootstrap). Pairs whose answers are not kept, or are of different examples, are left out.
    """
    rows: list[dict[str, object]] = []
    for a, b in pairs(study):
        first, second = kept[a], kept[b]
        if first is None or second is None or not np.array_equal(first.labels, second.labels):
            continue
        parts = ["seed", "init_seed", "order_seed", "dropout_seed"]
        seeds = [study.runs.loc[list(cell.rows), parts].sort_values(parts) for cell in (first, second)]
        same = np.array_equal(seeds[0].to_numpy(), seeds[1].to_numpy())
        one, other = (
            cell.correct[[cell.rows.index(row) for row in order.index]]
            for cell, order in zip((first, second), seeds, strict=True)
        )
        found = Estimate(*noise.difference(other, one, rng(f"noise {a} {b}"), paired_seeds=same))
        row: dict[str, object] = {"reference": a, "cell": b, "seeds": "the same" if same else "each its own"}
        rows.append(row | _spread_out("difference", found))
    return pd.DataFrame(rows, columns=["reference", "cell", "seeds", "difference", "difference_low", "difference_high"])


def calibration(study: Study, kept: Sequence[Answers | None]) -> pd.DataFrame:
    """How far the confidence of each run can be believed, from the dev logits that its record keeps.

    Columns: `cell`, one per axis, `trial`, `seed`, `accuracy`, `confidence` (mean probability of the answered class),
    `ece` (expected calibration error, 15 bins), `brier` (0 to 2).
    """
    rows: list[tuple[object, ...]] = []
    columns = ["cell", "trial", "seed", "accuracy", "confidence", "ece", "brier"]
    trials, seeds = study.runs["trial"].to_dict(), study.runs["seed"].to_dict()  # by label, as `rows` are
    for index, found in ((index, found) for index, found in enumerate(kept) if found is not None):
        chances = calibrating.probabilities(found.logits)
        each = (
            (chances.argmax(axis=2) == found.labels).mean(axis=1),
            chances.max(axis=2).mean(axis=1),
            calibrating.expected_errors(chances, found.labels),
            calibrating.briers(chances, found.labels),
        )
        for row, *numbers_of_run in zip(found.rows, *(values.tolist() for values in each), strict=True):
            rows.append((index, trials[row], seeds[row], *numbers_of_run))
    return _with_axes(study, pd.DataFrame(rows, columns=columns))


def scores(study: Study, kept: Sequence[Answers | None]) -> pd.DataFrame:
    """What the dev logits that the records keep are worth by every metric that fits them: mean and sd over the runs.

    Columns: `cell`, one per axis, `runs`, and for each of `accuracy`, `f1` (of class 1; with two classes alone),
    `f1_macro`, `f1_micro`, `matthews_correlation`, `ece`, for a regression `pearson` and `spearman`, for a token task
    `accuracy` (of words), `f1_entity`, `entity_precision`, `entity_recall`, its mean and `_sd`; a column that no cell
    knows is left out.
    """
    rows: list[dict[str, object]] = []
    others = {*metrics.REGRESSION, metrics.ENTITIES}
    table = study.runs[_finished(study.runs) & study.runs["final_score"].notna()] if study.sweeps else study.runs[:0]
    for index, (found, here) in enumerate(zip(kept, _groups(table, len(study.cells)), strict=True)):
        each: list[dict[str, float]] = []
        if found is not None:
            chances = calibrating.probabilities(found.logits)
            errors = calibrating.expected_errors(chances, found.labels).tolist()
            each = [
                {**metrics.every_score(logits, found.labels), "ece": error}
                for logits, error in zip(found.logits, errors, strict=True)
            ]
        elif set(here["metric"]) <= others:
            arrays = [one for row in here.index if (one := study.curves(int(row))) is not None and one.labels.size]
            each = [
                metrics.every_score(one.logits, one.labels, one.sentences if one.sentences.size else None)
                for one in arrays
            ]
        if each:
            by_run = pd.DataFrame(each)
            both = {"": by_run.mean(), "_sd": by_run.std(ddof=1)}
            means = {f"{name}{end}": value[name] for name in by_run for end, value in both.items()}
            rows.append({"cell": index, "runs": len(each)} | means)
    known = (*metrics.CLASSIFICATION, "ece", *metrics.REGRESSION, metrics.ENTITIES, "entity_precision", "entity_recall")
    names = [f"{name}{end}" for name in known for end in ("", "_sd")]
    found_names = [name for name in names if any(name in row for row in rows)]
    return _with_axes(study, pd.DataFrame(rows, columns=["cell", "runs", *found_names]))


def confusion(study: Study, kept: Sequence[Answers | None]) -> pd.DataFrame:
    """Which classes the runs of each cell tell apart, summed over its runs; one row a class.

    Columns: `cell`, one per axis, `label` (its index), `runs`, `examples` (of that class, times runs), `answered` (how
    often it was), `precision`, `recall` (of the sums; NaN for a class that is never answered, or never there), each
    with `_sd` over the runs, and `as_0`, `as_1`, …: how often examples of the class were answered so, with `_sd`
    of the count in a single run.
    """
    rows: list[dict[str, object]] = []
    for index, found in enumerate(kept):
        if found is None:
            continue
        runs, _, classes = found.logits.shape
        places = found.labels * classes + found.logits.argmax(axis=2) + classes**2 * np.arange(runs)[:, None]
        tables = np.bincount(places.ravel(), minlength=runs * classes**2).reshape(runs, classes, classes)
        total = tables.sum(axis=0)  # [C, C], rows are labels, columns answers
        for label in range(classes):
            row: dict[str, object] = {"cell": index, "label": label, "runs": runs, "examples": int(total[label].sum())}
            row |= {"answered": int(total[:, label].sum())}
            for name, axis in (("precision", 1), ("recall", 2)):
                of = tables.sum(axis=axis)[:, label]
                each = tables[of > 0, label, label] / of[of > 0]
                row[name] = total[label, label] / of.sum() if of.sum() else NAN
                row[f"{name}_sd"] = each.std(ddof=1) if len(each) > 1 else NAN
            row |= {f"as_{answer}": int(total[label, answer]) for answer in range(classes)}
            apart = tables[:, label].std(axis=0, ddof=1) if runs > 1 else np.full(classes, NAN)
            rows.append(row | {f"as_{answer}_sd": value for answer, value in enumerate(apart.tolist())})
    columns = ["cell", "label", "runs", "examples", "answered", "precision", "precision_sd", "recall", "recall_sd"]
    table = pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns)
    for name in table.columns:
        if name.startswith("as_") and not name.endswith("_sd"):
            table[name] = table[name].astype("Int64")
    return _with_axes(study, table)


def baselines(study: Study, kept: Sequence[Answers | None]) -> pd.DataFrame:
    """The cells beside the simple classifiers that the study asks for, trained on the same data.

    Columns: `task`, `what` (the cell's name, or the baseline's), `cell` (NA for a baseline), `settings` (a baseline's),
    `runs` (a baseline that no seed changes has one), `failed` of `judged`, `mean`, `mean_low`, `mean_high` (BCa over
    the runs), `sd` (0 where no seed changes anything), `accuracy` with `dev_low`, `dev_high` (bootstrap of the dev
    examples, runs held), `against` (the baseline of the highest mean, in a cell's row) and `difference` (accuracy of
    the cell minus that baseline's) with `_low`, `_high` (multi-bootstrap over seeds and the same examples); NaN where
    not known, as for a regression. Empty without baselines of the cells' data.
    """
    rows: list[dict[str, object]] = []
    done = study.runs[_finished(study.runs)]
    hashes = [set(here["data_sha256"].dropna()) for here in _groups(done, len(study.cells))]
    scores, counts = _scores(study), _counts(study)
    for task, metric, data in dict.fromkeys((one.task, one.metric, one.data_sha256) for one in study.baselines):
        here = [one for one in study.baselines if (one.task, one.metric, one.data_sha256) == (task, metric, data)]
        same_metric = set(done["metric"].dropna()) <= {metric}
        cells = [index for index, found in enumerate(hashes) if found == {data} and same_metric]
        best = max(here, key=lambda one: float(np.mean(one.scores)))
        for index in cells:
            found, (failed, judged) = kept[index], counts[index]
            row: dict[str, object] = {
                "task": task,
                "what": study.cells[index].label,
                "cell": index,
                "settings": "",
                "against": "",
            }
            row |= {"failed": failed, "judged": judged} | _of_runs(scores[index])
            if found is not None:
                row |= _on_the_dev_set(found.correct) | {"against": best.name}
                right = _right(best)
                if right.shape[1] == found.correct.shape[1]:
                    # What no seed changes is the same with every seed: as many equal runs, of which any draw is one.
                    other = right if best.seeds else np.repeat(right, len(found.correct), axis=0)
                    found_difference = noise.difference(found.correct, other, rng("baselines"), paired_seeds=False)
                    row |= _spread_out("difference", Estimate(*found_difference))
            rows.append(row)
        for one in here if cells else ():
            row = {"task": task, "what": one.name, "cell": None, "settings": one.settings, "against": ""}
            row |= {"failed": sum(one.failed), "judged": len(one.failed)} | _of_runs(np.array(one.scores))
            row |= {} if one.seeds else {"sd": 0.0}
            rows.append(row | (_on_the_dev_set(_right(one)) if one.answers else {}))
    columns = ["task", "what", "cell", "settings", "runs", "failed", "judged", "mean", "mean_low", "mean_high", "sd"]
    columns += ["accuracy", "dev_low", "dev_high", "against", "difference", "difference_low", "difference_high"]
    table = pd.DataFrame(rows, columns=columns)
    table["cell"] = pd.array(table["cell"].tolist(), dtype="Int64")
    return table


def _right(one: Baseline) -> np.ndarray:
    """Which answers of a baseline are right [R, N]; none for a regression."""
    right: np.ndarray = np.array(one.answers, dtype=int).reshape(len(one.answers), -1) == np.array(one.labels)
    return right


def _of_runs(scores: np.ndarray) -> dict[str, object]:
    value, low, high = (float(bound[0]) for bound in statistics.bootstrap([scores], "mean", rng("mean")))
    sd = scores.std(ddof=1) if len(scores) > 1 else NAN
    return {"runs": len(scores), "mean": value, "mean_low": low, "mean_high": high, "sd": sd}


def _on_the_dev_set(correct: np.ndarray) -> dict[str, object]:
    low, high = noise.example_interval(correct, rng("examples"))
    return {"accuracy": correct.mean(), "dev_low": low, "dev_high": high}


def flips(study: Study, kept: Sequence[Answers | None], most: int = 20) -> pd.DataFrame:
    """The dev examples whose answer depends most on the seed, by the mean churn within cells.

    Columns: `example` (its place in the dev set), `label`, `right`, `runs` (over these cells), `churn` (probability
    that two runs of one cell disagree on it, mean over the cells with two runs or more). Over the cells in which no run
    failed, where there are such: a failed run answers one class, which tells nothing of an example. Empty where answers
    are not kept or the cells have different dev sets.
    """
    counts = _counts(study)
    several = [(answer, counts[index][0]) for index, answer in enumerate(kept) if answer and len(answer.rows) > 1]
    found = [answer for answer, failed in several if not failed] or [answer for answer, _ in several]
    if not found or any(not np.array_equal(answer.labels, found[0].labels) for answer in found):
        return pd.DataFrame(columns=["example", "label", "right", "runs", "churn"])
    each = [noise.flips(answer.logits, answer.labels).sort_values("example") for answer in found]
    table = pd.DataFrame(
        {
            "example": each[0]["example"].to_numpy(),
            "label": each[0]["label"].to_numpy(),
            "right": sum(part["right"].to_numpy() for part in each),
            "runs": sum(part["runs"].to_numpy() for part in each),
            "churn": sum(part["churn"].to_numpy() for part in each) / len(each),
        }
    )
    order = table.sort_values(["churn", "example"], ascending=[False, True], kind="stable")
    return order[order["churn"] > 0].head(most).reset_index(drop=True)


# ------------------------------------------------------------------------------------------- best of n, seed budget


def best_of_n(study: Study) -> pd.DataFrame:
    """The best final score to expect of n seeds, for n = 1…N (200 at most) of each cell, with a bootstrap interval.

    Columns: `cell`, one per axis, `n`, `expected` (Dodge et al. 2019), `low`, `high`, `unbiased` (Tang et al. 2020).
    A cell with a run that diverged is told over the runs with a score.
    """
    tables = []
    for index, scores in enumerate(_scores(study)):
        if len(scores):
            found = statistics.expected_best(scores, study.higher_is_better, rng("best"))
            columns = {name: getattr(found, name) for name in ("n", "expected", "low", "high", "unbiased")}
            tables.append(pd.DataFrame({"cell": index, **columns}))
    names = ["cell", "n", "expected", "low", "high", "unbiased"]
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=names)
    return _with_axes(study, table)


def selection(study: Study, kept: Sequence[Answers | None]) -> pd.DataFrame:
    """What picking the best of a cell's seeds by its dev score reports too high.

    Columns: `cell`, one per axis, `n`, `mean`, `best` (dev score of the best seed), `too_high` with its bounds, and
    `known_from`: `test` (dev score of the picked seed minus its test score, less the mean gap of the two),
    `halves` (the best seed on a random half of the dev set: its accuracy there minus that on the other half, mean over
    splits, so for a dev set of half the size), or empty where neither is known.
    """
    sign = 1 if study.higher_is_better else -1
    done = study.runs[_finished(study.runs) & study.runs["final_score"].notna()]
    tested = _groups(done[done["test_score"].notna()], len(study.cells)) if done["test_score"].notna().any() else None
    rows: list[dict[str, object]] = []
    for index, (scores, found) in enumerate(zip(_scores(study), kept, strict=True)):
        row: dict[str, object] = {"cell": index, "n": len(scores), "known_from": ""}
        row |= {"mean": scores.mean(), "best": sign * (sign * scores).max()} if len(scores) else {}
        if tested is not None and len(tested[index]) == len(scores) > 1:
            dev, test = numbers(tested[index], "final_score"), numbers(tested[index], "test_score")
            gap = (dev - test)[dev == row["best"]].mean() - (dev - test).mean()  # of several best: their mean
            row |= {"too_high": sign * gap, "known_from": "test"}
        elif found is not None and len(found.rows) > 1:
            estimate = Estimate(*noise.optimism(found.correct, rng("halves")))
            row |= _spread_out("too_high", estimate) | {"known_from": "halves"}
        rows.append(row)
    columns = ["cell", "n", "mean", "best", "too_high", "too_high_low", "too_high_high", "known_from"]
    return _with_axes(study, pd.DataFrame(rows, columns=columns))


def budget(study: Study) -> pd.DataFrame:
    """How sure the mean and the failure rate of each cell are now and would be at other numbers of seeds.

    Columns: `cell`, one per axis, `n`, `now` (whether so many are there), `mean_half_width` (95 %, t, at the observed
    sd), `rate_half_width` (half of Wilson's interval at the observed rate).
    """
    planned = _count(study.runs, study.runs["cell"].notna(), len(study.cells))
    rows = []
    for index, (scores, (failed, judged)) in enumerate(zip(_scores(study), _counts(study), strict=True)):
        # Scores that are all equal say nothing of how far others would lie.
        sd = (scores.std(ddof=1) if len(scores) > 1 else NAN) or NAN
        for n in sorted({*BUDGETS, int(planned[index])}):
            rate = statistics.rate_half_width(failed / judged, n) if judged else NAN
            rows.append(
                {"cell": index, "n": n, "now": n == planned[index]}
                | {"mean_half_width": statistics.mean_half_width(sd, n), "rate_half_width": rate}
            )
    return _with_axes(study, pd.DataFrame(rows))


def never_failed(study: Study) -> pd.DataFrame:
    """Cells in which no run failed: how high their failure rate may be all the same (95 %, one-sided).

    Columns: `cell`, one per axis, `judged`, `exact`, `rule_of_three`.
    """
    rows: list[dict[str, object]] = []
    for index, (failed, judged) in enumerate(_counts(study)):
        if judged and not failed:
            exact, rule = statistics.never_failed(judged)
            rows.append({"cell": index, "judged": judged, "exact": exact, "rule_of_three": rule})
    return _with_axes(study, pd.DataFrame(rows, columns=["cell", "judged", "exact", "rule_of_three"]))


def needed(study: Study) -> pd.DataFrame:
    """Seeds a cell that tell two cells apart with a power of 80 % at 5 %, would their runs fall out as observed.

    Columns: `reference`, `cell`, `now` (the smaller number of scored runs), `for_mean` (Welch's test, simulated from
    the observed scores), `for_failure` (Fisher's exact test at the observed rates); NA where a thousand do not.
    """
    scores = _scores(study)
    counts = _counts(study)
    rows: list[dict[str, object]] = []
    for a, b in pairs(study):
        mean = statistics.seeds_for_mean(scores[a], scores[b], rng(f"needed {a} {b}"))
        failure = statistics.seeds_for_failure(*counts[a], *counts[b]) if counts[a][1] and counts[b][1] else None
        row: dict[str, object] = {"reference": a, "cell": b, "now": min(len(scores[a]), len(scores[b]))}
        rows.append(row | {"for_mean": mean, "for_failure": failure})
    table = pd.DataFrame(rows, columns=["reference", "cell", "now", "for_mean", "for_failure"])
    for name in ("for_mean", "for_failure"):
        table[name] = pd.array(table[name].tolist(), dtype="Int64")
    return table


# ----------------------------------------------------------------------------------------------------- what drives it


def seed_factors(study: Study) -> pd.DataFrame:
    """Where a cell's seed parts are crossed: the share of each, and of their interactions, in score and in failing.

    Columns: `cell`, one per axis, `of` (`score`, `failing`), `runs`, `term`, `variance`, `share`, `low`, `high` (of the
    share, 95 %), `reason` (why nothing is known, else empty). No rows where one integer drives all parts.
    """
    tables = []
    parts = study.runs[["init_seed", "order_seed", "dropout_seed"]]
    together = parts.eq(parts["init_seed"], axis=0).all(axis=1) | parts.isna().all(axis=1)
    groups = [] if together.all() else _groups(study.runs, len(study.cells))
    for index, here in enumerate(groups):
        levels = importance.crossed(here[["init_seed", "order_seed", "dropout_seed"]])
        if levels is None:
            continue
        judged = _judged(here)
        for of, y in (("score", numbers(here, "final_score")), ("failing", _failed(here).astype(float))):
            found = importance.variance_components(levels, y.where(judged).to_numpy(), rng("components"))
            table = found.table.rename(columns={"share_low": "low", "share_high": "high"})
            if found.reason:
                table = pd.DataFrame([{"term": ""}])
            table.insert(0, "cell", index)
            table.insert(1, "of", of)
            table.insert(2, "runs", int(y.where(judged).notna().sum()))
            table["reason"] = found.reason
            tables.append(table)
    columns = ["cell", "of", "runs", "term", "variance", "share", "low", "high", "reason"]
    joined = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)
    return _with_axes(study, joined.reindex(columns=columns))


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    """By cell, so that the first value of a factor is that of the first cell, in whatever order the rows are."""
    return table.sort_values("cell", kind="stable")


def _factors(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    several = axes_by_weight(study)
    return table[several].reset_index(drop=True)


def drivers_of_score(study: Study) -> pd.DataFrame:
    """Each axis's and each pair's share in the variance of the final score (factorial ANOVA, type II sums of squares).

    Columns: `term`, `df`, `sum_of_squares`, `eta_squared`, `omega_squared`, `F`, `p`, and `fanova` (a second look by a
    random forest; of single axes only).
    """
    table = _in_order(study.runs[_finished(study.runs) & study.runs["final_score"].notna()])
    factors, y = _factors(study, table), numbers(table, "final_score").to_numpy()
    found = importance.anova(factors, y, order=3)
    found = found if len(found) > 1 else found[:0]  # nothing but a residual
    second = importance.fanova(factors, y) if len(found) else pd.Series(dtype=float)
    found["fanova"] = [second.get(term, NAN) for term in found["term"]]
    return found


def drivers_of_failing(study: Study) -> pd.DataFrame:
    """Each axis's share in failing: penalised logistic regression, likelihood-ratio tests (`importance`)."""
    table = _in_order(study.runs[_judged(study.runs)])
    return importance.penalised_logit(_factors(study, table), _failed(table).to_numpy())


def effects_on_failing(study: Study) -> pd.DataFrame:
    """Averaged marginal effects of each axis's values on the failure rate (`importance.effects`)."""
    table = _in_order(study.runs[_judged(study.runs)])
    return importance.effects(_factors(study, table), _failed(table).to_numpy())


# -------------------------------------------------------------------------------------------------- all of it at once


def against_the_paper(study: Study) -> pd.DataFrame:
    """The published numbers that speak of this study's task, each beside the cell that repeats it (`published`)."""
    own = []
    for sweep in study.sweeps if len(study.sweeps) == 1 and not study.imports else ():
        groups = _groups(study.runs, len(study.cells))
        for index, (cell, here) in enumerate(zip(sweep.cells, groups, strict=True)):
            done = here[_finished(here)]
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


@dataclass(frozen=True)
class Analysis:
    """Every table of a study; each field is what the function of its name returns."""

    study: Study
    threshold: float | None
    runs: pd.DataFrame
    cells: pd.DataFrame
    definitions: pd.DataFrame
    arms: pd.DataFrame
    contrasts: pd.DataFrame
    pair_failures: pd.DataFrame
    spread: pd.DataFrame
    pair_spreads: pd.DataFrame
    level: pd.DataFrame
    pooled_level: pd.DataFrame
    pair_levels: pd.DataFrame
    profile: pd.DataFrame
    noise_floor: pd.DataFrame
    pair_noise: pd.DataFrame
    flips: pd.DataFrame
    scores: pd.DataFrame
    calibration: pd.DataFrame
    confusion: pd.DataFrame
    best_of_n: pd.DataFrame
    selection: pd.DataFrame
    budget: pd.DataFrame
    never_failed: pd.DataFrame
    needed: pd.DataFrame
    seed_factors: pd.DataFrame
    drivers_of_score: pd.DataFrame
    drivers_of_failing: pd.DataFrame
    effects_on_failing: pd.DataFrame
    baselines: pd.DataFrame
    against_the_paper: pd.DataFrame
    diagnosis: Diagnosis

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Name and table, in the order of the page."""
        own = {name: value for name, value in vars(self).items() if isinstance(value, pd.DataFrame)}
        return own | self.diagnosis.tables

    @property
    def comparisons(self) -> int:
        """How many hypotheses of failing, spread and level were tested: what Holm's adjustments guard, and drivers."""
        tested = (self.contrasts["p"], *(table["p_holm"] for table in self._pairs if len(table)))
        return int(sum(column.notna().sum() for column in tested))

    @property
    def _pairs(self) -> tuple[pd.DataFrame, ...]:
        return self.pair_failures, self.pair_spreads, self.pair_levels


def analyse(study: Study, threshold: float | None = None) -> Analysis:
    """Make every table of a study; a score worse than `threshold` fails in `definitions`, beside our own."""
    others = Beside(lambda: _of_scores(study, threshold))
    try:
        read = study.read_once()  # by the answers, the scores and the diagnosis
        kept = answers(read)
        resampled = [found if index < MOST_RESAMPLED else None for index, found in enumerate(kept)]
        judged = runs(study)
        own: dict[str, Any] = {
            "noise_floor": noise_floor(study, resampled),
            "pair_noise": pair_noise(study, resampled),
            "flips": flips(study, kept),
            "scores": scores(read, kept),
            "calibration": calibration(study, kept),
            "confusion": confusion(study, kept),
            "selection": selection(study, resampled),
            "baselines": baselines(study, kept),
            "diagnosis": diagnose(read, judged),
        }
        return Analysis(study=study, threshold=threshold, runs=judged, **own, **others.result())
    finally:
        others.stop()


def _of_scores(study: Study, threshold: float | None) -> dict[str, pd.DataFrame]:
    """The tables that need no arrays, by their names in `Analysis`."""
    return {
        "cells": cells(study),
        "definitions": definitions(study, threshold),
        "arms": arms(study),
        "contrasts": contrasts(study),
        "pair_failures": pair_failures(study),
        "spread": spread(study),
        "pair_spreads": pair_spreads(study),
        "level": level(study),
        "pooled_level": pooled_level(study),
        "pair_levels": pair_levels(study),
        "profile": profile(study),
        "best_of_n": best_of_n(study),
        "budget": budget(study),
        "never_failed": never_failed(study),
        "needed": needed(study),
        "seed_factors": seed_factors(study),
        "drivers_of_score": drivers_of_score(study),
        "drivers_of_failing": drivers_of_failing(study),
        "effects_on_failing": effects_on_failing(study),
        "against_the_paper": against_the_paper(study),
    }
