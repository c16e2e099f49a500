"""Which recipe of a search is best, by its seeds and by the runs that failed; and how much of that was luck."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.common import metrics
from harness.config.search_space import Search
from harness.config.trials import Sweep, expand
from harness.records.record import Record
from harness.records.store import Store
from harness.stats import bootstrap, forest, means, proportions, ranks
from harness.stats.estimate import UNKNOWN, Estimate
from harness.stats.sequential import rate_sequence

QUARTILE = 0.25  # of the objective `lower_quantile`
WORDS = {
    "mean": "mean",
    "iqm": "interquartile mean",
    "lower_quantile": "lower quartile",
    "mean_minus_sd": "mean minus one sd",
}
WORDS_OF_LOWER = WORDS | {"lower_quantile": "upper quartile", "mean_minus_sd": "mean plus one sd"}


UNSEEN = "stopped, not seen to the end"  # what is said of recipes that a pruner stops


@dataclass(frozen=True)
class RankedRecipe:
    """What the seeds of one recipe say; scores are fractions."""

    scores: np.ndarray  # [n] of the finished runs; one that diverged counts with the majority's score
    failed: int
    finished: int
    crashed: int
    planned: int
    fails: tuple[bool, ...] = ()  # of each score whether its run failed; empty: none of them
    metric: str = ""

    @property
    def complete(self) -> bool:
        """Whether every planned run has a record."""
        return self.finished + self.crashed == self.planned

    def value(self, search: Search) -> float | None:
        """What the search looks at; None below two scores, which tell no recipe from a seed."""
        return None if len(self.scores) < 2 else float(value_of(self.scores[None], search)[0])


@dataclass(frozen=True)
class StoppedRecipe:
    """A recipe that was given up in mid-training, by a pruner or since all its runs looked lost: nobody saw its end."""

    recipe: str
    rule: str
    share: float  # of its training that was done
    seconds: float  # that it took
    runs: int
    by_pruner: bool = False
    flat: float = 1.0  # the share of its runs that had not learned by then

    @property
    def saved(self) -> float:
        """Seconds that the rest would have taken at the pace until then."""
        return self.seconds / self.share * (1 - self.share)


def judged(records: Sequence[Record | None]) -> RankedRecipe:
    """Judge a recipe by the records of its planned trials, None for what is missing."""
    measured = [record.measured for record in records if record is not None and record.measured is not None]
    # Who gets NaN would answer as the majority classifier does; without it, diverging would not lower a mean.
    scores = [one.majority_score if one.final_score is None else one.final_score for one in measured]
    fails = tuple(one.outcome == "failed" for one, score in zip(measured, scores, strict=True) if score is not None)
    scores = [score for score in scores if score is not None]  # a script that diverged may have no majority
    failed = sum(one.outcome == "failed" for one in measured)
    crashed = sum(record is not None and record.measured is None for record in records)
    metric = measured[0].metric if measured else ""
    return RankedRecipe(np.array(scores, dtype=float), failed, len(measured), crashed, len(records), fails, metric)


def objective_words(search: Search) -> str:
    """What the search looks at, in words."""
    return (WORDS_OF_LOWER if search.lower_is_better else WORDS)[search.objective]


def value_of(scores: np.ndarray, search: Search) -> np.ndarray:
    """The objective of each row of scores [R, n], n > 1, in their own direction: [R].

    Where lower is better, the bad side is the high one: an upper quartile, a mean plus one sd.
    """
    sign = -1 if search.lower_is_better else 1
    return sign * objective_of(sign * scores, search.objective)


def objective_of(scores: np.ndarray, objective: str) -> np.ndarray:
    """The objective of each row of scores [R, n], n > 1: [R]. The sd has n - 1, the quartile is numpy's linear one."""
    if objective == "iqm":
        return bootstrap.iqm(scores, axis=1)
    if objective == "lower_quantile":
        return np.asarray(np.quantile(scores, QUARTILE, axis=1))
    mean = np.asarray(scores.mean(axis=1))
    return mean - scores.std(axis=1, ddof=1) if objective == "mean_minus_sd" else mean


def _interval(recipe: RankedRecipe, search: Search) -> tuple[float, float]:
    """A 95 % interval of the objective, by the methods that the report uses; NaN where there is none.

    Of a mean Student's, or, where runs failed, that of the failure rate and the mean of the others put together, up to
    the ends of the metric's scale; of the interquartile mean BCa, from `bootstrap.FEWEST` runs on; of a quartile order
    statistics, whose end may be infinite. A mean minus one sd has none.
    """
    scores = recipe.scores
    if len(scores) < 2 or np.ptp(scores) == 0:
        return math.nan, math.nan
    if search.objective == "mean":
        estimate = _mean(recipe)
        lowest, highest = metrics.scale(recipe.metric)
        if scores.min() < lowest or scores.max() > highest:
            return estimate.low, estimate.high
        return max(estimate.low, lowest), min(estimate.high, highest)
    if search.objective == "iqm" and len(scores) >= bootstrap.FEWEST:
        rng = np.random.default_rng(int.from_bytes(hashlib.sha256(b"confirm").digest()[:8], "big"))
        _, low, high = bootstrap.bootstrap([scores], "iqm", rng)
        return float(low[0]), float(high[0])
    if search.objective == "lower_quantile":
        sign = -1 if search.lower_is_better else 1
        quartile = ranks.quantile(np.sort(sign * scores), QUARTILE)
        return (quartile.low, quartile.high) if sign > 0 else (-quartile.high, -quartile.low)
    return math.nan, math.nan


def _mean(recipe: RankedRecipe) -> Estimate:
    """The mean of all scores of a recipe."""
    fails = np.array(recipe.fails or (False,) * len(recipe.scores), dtype=bool)
    good, bad = recipe.scores[~fails], recipe.scores[fails]
    if not len(bad) or not len(good):
        return means.student(recipe.scores)
    rate = Estimate(float(fails.mean()), *proportions.wilson(len(bad), len(fails)))
    return means.mixture(means.student(good), rate, float(bad.mean()))


def confirm_store(sweep: Sweep, store: Store) -> Store:
    """Where the best recipes of a search are tried on fresh seeds: a sweep of its own beside it."""
    return Store(store.folder.parent / f"{sweep.name}-confirm@{sweep.profile}")


def confirmed_before(sweep: Sweep, store: Store) -> tuple[Sweep, Store] | None:
    """The confirmation of a search as it lies there, None where there is none."""
    beside = confirm_store(sweep, store)
    kept = beside.load_plan()
    return None if kept is None else (kept, beside)


def by_cell(sweep: Sweep, store: Store) -> list[RankedRecipe]:
    """The recipes of a sweep as their records say, in the order of the cells."""
    found: list[list[Record | None]] = [[] for _ in sweep.cells]
    for trial, record in store.each(expand(sweep)):
        found[trial.cell].append(record)
    return [judged(records) for records in found]


def _front(values: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Which recipes no other one beats in the objective without failing more, or in failing without scoring less."""
    better = (values[None] >= values[:, None]) & (rates[None] <= rates[:, None])
    strictly = (values[None] > values[:, None]) | (rates[None] < rates[:, None])
    known = np.isfinite(values)
    return np.asarray(known & ~(better & strictly & known[None]).any(axis=1))


def table(sweep: Sweep, store: Store, confirmed: tuple[Sweep, Store] | None = None) -> pd.DataFrame:
    """One row a recipe, best first: how it stood in the search, and on fresh seeds where it was confirmed.

    Columns: `rank` (from 1, 0 for a recipe without a value), `asked` (its place in the order of the search, from 1),
    `cell`, one per searched field, `finished`, `planned`, `failed`, `crashed`, `mean`, `sd` (n - 1), `value` (the
    objective), `front` (on the Pareto front of value against failed), and of the fresh seeds `fresh`, `fresh_low`,
    `fresh_high` (95 %, `_interval`), `fresh_failed`, `fresh_finished`, `too_high` (by how much the search looked better
    than fresh seeds: value - fresh, or fresh - value where lower is better); `rate` of failing and `fresh_rate`, each
    with `_low` and `_high` (95 %; where fresh seeds were added by rule, at every look). NaN: not known.
    Where failing is a constraint or an objective, recipes of which no seen run failed come before the others.
    """
    search = sweep.search
    assert search is not None
    found, horizon = by_cell(sweep, store), search.confirm_rule.at_most if search.confirm_rule else None
    values = np.array([math.nan if (value := one.value(search)) is None else value for one in found])
    rates = np.array([one.failed / one.finished if one.finished else math.nan for one in found])
    sign = -1 if search.lower_is_better else 1
    front = _front(sign * values, np.zeros(len(rates)) if search.failing == "ignore" else rates)
    fresh: Mapping[str, RankedRecipe] = {}
    if confirmed is not None:
        fresh = {cell.key: one for cell, one in zip(confirmed[0].cells, by_cell(*confirmed), strict=True)}
    rows = []
    for index, (cell, one) in enumerate(zip(sweep.cells, found, strict=True)):
        scores = one.scores
        row: dict[str, object] = {"rank": 0, "asked": index + 1, "cell": index, **dict(cell.axes)}
        row |= {"finished": one.finished, "planned": one.planned, "failed": one.failed, "crashed": one.crashed}
        row |= {"mean": scores.mean() if len(scores) else math.nan}
        row |= {"sd": scores.std(ddof=1) if len(scores) > 1 else math.nan, "value": values[index]}
        again = fresh.get(cell.key)
        value = again.value(search) if again else None
        low, high = _interval(again, search) if again else (math.nan, math.nan)
        row |= {"front": bool(front[index]), "fresh": math.nan if value is None else value}
        row |= {"fresh_low": low, "fresh_high": high, "fresh_failed": again.failed if again else math.nan}
        row |= {"fresh_finished": again.finished if again else math.nan}
        row |= _spread("rate", _rate(one)) | _spread("fresh_rate", _rate(again, horizon) if again else UNKNOWN)
        row |= {"too_high": math.nan if value is None else sign * (values[index] - value)}
        rows.append(row)
    order = best_first(found, search)
    for rank, index in enumerate(order, 1):
        rows[index]["rank"] = rank
    left = [index for index in range(len(rows)) if index not in set(order)]
    return pd.DataFrame([rows[index] for index in (*order, *left)], columns=list(rows[0]))


def _rate(recipe: RankedRecipe, horizon: int | None = None) -> Estimate:
    """The share of finished runs that failed, with Wilson's interval; with a horizon, one that holds at every look."""
    failed, n = recipe.failed, recipe.finished
    if not n:
        return UNKNOWN
    if horizon is not None:
        return rate_sequence(failed, n, horizon)
    return Estimate(failed / n, *proportions.wilson(failed, n))


def _spread(name: str, estimate: Estimate) -> dict[str, object]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def best_first(found: Sequence[RankedRecipe], search: Search) -> list[int]:
    """The recipes with a value, best first; unless failing is ignored, those without a failed run first."""
    values = {index: value for index, one in enumerate(found) if (value := one.value(search)) is not None}

    def key(index: int) -> tuple[float, float, int]:
        rate = found[index].failed / found[index].finished
        value = values[index] if search.lower_is_better else -values[index]
        return (0.0 if search.failing == "ignore" else rate, value, index)

    return sorted(values, key=key)


def drivers(ranked: pd.DataFrame, search: Search) -> pd.DataFrame:
    """How much each searched field moves the objective and the failing: functional ANOVA shares over the recipes.

    Columns: `field`, `value`, `failed`; NaN where it can't be told. Source: `forest.fanova`.
    """
    names = [one.field for one in search.space]
    known = ranked[ranked["value"].notna()]
    factors = pd.DataFrame({name: known[name].astype(object) for name in names})
    rates = (known["failed"] / known["finished"]).to_numpy(dtype=float)
    shares = forest.fanova(factors, known["value"].to_numpy(dtype=float))
    of_failing = forest.fanova(factors, rates)
    return pd.DataFrame({"field": names, "value": shares.to_numpy(), "failed": of_failing.to_numpy()})
