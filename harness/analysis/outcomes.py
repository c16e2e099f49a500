"""What became of a cell's finished runs, and the estimates that are made of it: rate of failing, level, spread."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.analysis.verdicts import failed_runs, finished_runs, judged_runs
from harness.common.memo import once_per_object
from harness.records.study import Study, numbers
from harness.stats import clusters, means, proportions, variance_components
from harness.stats.estimate import NAN, UNKNOWN, Estimate

SEED_PARTS = ["init_seed", "order_seed", "dropout_seed"]


@dataclass(frozen=True)
class Outcomes:
    """The finished runs of a cell [N], in the order of their scores; those that diverged, without a score, last.

    `judged` says whether it is known of every one whether it failed; where it is not, none counts as failed. `chance`
    is the score of the majority class, NaN where not known. `levels` are the parts of the seeds, a row a run, where
    they are crossed: the runs are not independent then.
    """

    scores: np.ndarray  # NaN for a run that diverged
    failed: np.ndarray
    judged: bool
    chance: float
    levels: pd.DataFrame | None

    @property
    def scored(self) -> np.ndarray:
        """Which runs have a score [N]."""
        return np.asarray(~np.isnan(self.scores))

    @property
    def diverged(self) -> int:
        """How many runs have none."""
        return int((~self.scored).sum())

    @property
    def good(self) -> np.ndarray:
        """Scores of the runs that did not fail, ascending."""
        return np.asarray(self.scores[self.scored & ~self.failed])

    def ranked(self, higher_is_better: bool) -> np.ndarray:
        """All runs from the worst to the best, ascending: the scores, turned round where lower is better.

        A run that diverged is the worst, -inf.
        """
        signed = self.scores if higher_is_better else -self.scores
        return np.sort(np.where(self.scored, signed, -np.inf))

    def _levels_of(self, chosen: np.ndarray) -> pd.DataFrame:
        assert self.levels is not None
        return self.levels[chosen]

    def levels_of_good(self) -> pd.DataFrame:
        """The seed parts of the runs that did not fail, in the order of `good`."""
        return self._levels_of(self.scored & ~self.failed)

    def mean_of_good(self) -> Estimate:
        """The mean score of the runs that did not fail."""
        chosen = self.scored & ~self.failed
        if self.levels is None:
            return means.student(self.scores[chosen])
        return clusters.mean(self._levels_of(chosen), self.scores[chosen])

    def rate(self) -> Estimate:
        """The share of failed runs among those with a score."""
        failed = self.failed[self.scored]
        if not self.judged or not len(failed):
            return UNKNOWN
        if self.levels is not None:
            return clusters.rate(self._levels_of(self.scored), failed)
        k, n = int(failed.sum()), len(failed)
        return Estimate(k / n, *proportions.wilson(k, n))

    def mean(self) -> Estimate:
        """The mean score of all runs with one: of the successful and the failed, weighted by the rate of failing.

        Where it is not known which failed, the mean by itself.
        """
        scores = self.scores[self.scored]
        good, rate = self.mean_of_good(), self.rate()
        if not len(scores) or np.isnan(rate.value):
            return good
        bad = self.scores[self.scored & self.failed]
        level = float(bad.mean()) if len(bad) else self.chance
        value = float(scores.mean())
        if not len(good_scores := self.good) or np.isnan(level):
            return Estimate(value, NAN, NAN)
        if np.ptp(good_scores) == 0 and len(good_scores) > 1:
            good = Estimate(good.value, good.value, good.value)
        mixed = means.mixture(good, rate, level)
        return Estimate(value, mixed.low, mixed.high)

    def deviation_of_good(self) -> Estimate:
        """The sd of the scores of the runs that did not fail; without an interval where seed parts are crossed."""
        sd = means.deviation(self.good)
        return sd if self.levels is None else Estimate(sd.value, NAN, NAN)

    def effective(self, happened: np.ndarray) -> float | None:
        """How many independent runs these are worth for a share; None where they are independent."""
        return None if self.levels is None else clusters.effective_runs(self.levels, happened)


def crossed_levels(runs: pd.DataFrame) -> pd.DataFrame | None:
    """The parts of the seeds of runs where they are crossed, a row a run; None where one integer drives all parts."""
    return variance_components.crossed(runs[SEED_PARTS])


@once_per_object
def crossed_cells(study: Study) -> frozenset[int]:
    """The cells whose finished runs have crossed parts of the seed, and so are not independent."""
    if not any_apart(study.runs):
        return frozenset()
    done = study.runs[finished_runs(study.runs)]
    return frozenset(int(index) for index, runs in done.groupby("cell") if crossed_levels(runs) is not None)


def seed_parts(runs: pd.DataFrame) -> pd.DataFrame:
    """The parts of the seeds of runs of one or several cells, a row a run; runs of unknown seeds share nothing."""
    parts = runs[SEED_PARTS].astype(float)
    unknown = -1.0 - np.arange(len(runs))
    parts = parts.apply(lambda column: column.where(column.notna(), unknown))
    varying = [name for name in SEED_PARTS if parts[name].nunique() > 1]
    return parts[varying or SEED_PARTS[:1]]


def any_apart(runs: pd.DataFrame) -> bool:
    """Whether the parts of the seed of any run differ from each other."""
    init, order, dropout = (runs[name].to_numpy() for name in SEED_PARTS)  # asked often, so not by pandas
    same = np.asarray((init == order) & (init == dropout), dtype=bool)
    rest = ~same
    return bool(rest.any()) and not all(bool(pd.isna(part[rest]).all()) for part in (init, order, dropout))


@once_per_object
def outcomes(study: Study) -> list[Outcomes]:
    """Of each cell, in the study's order."""
    done = study.runs[finished_runs(study.runs)]
    scores, cell_of = numbers(done, "final_score").to_numpy(), done["cell"].to_numpy(dtype=int)
    order = np.lexsort((scores, cell_of))
    ends = np.searchsorted(cell_of[order], np.arange(1, len(study.cells)))
    scores, chance = scores[order], numbers(done, "majority_score").to_numpy()[order]
    failed, judged = failed_runs(done).to_numpy()[order], judged_runs(done).to_numpy()[order]
    apart = any_apart(study.runs)
    parts = zip(*(np.split(column, ends) for column in (scores, failed, judged, chance, order)), strict=True)
    return [
        Outcomes(
            scores=of_cell,
            failed=fails & known.all(),
            judged=bool(len(known)) and bool(known.all()),
            chance=float(known_level.mean()) if len(known_level := level[~np.isnan(level)]) else NAN,
            levels=crossed_levels(done.iloc[rows]) if apart else None,
        )
        for of_cell, fails, known, level, rows in parts
    ]


def failure_rate(runs: pd.DataFrame) -> Estimate:
    """The share of failed runs of any rows of `Study.runs`, of one cell or of several, with its 95 % interval.

    Wilson's interval; where the parts of the seeds are crossed, or cells share their seeds, that of as many runs as are
    independent.
    """
    judged = runs[judged_runs(runs)]
    failed = failed_runs(judged).to_numpy()
    levels = crossed_levels(judged) if len(judged) and any_apart(judged) else None
    if levels is not None:
        return clusters.rate(levels, failed)
    cell, seed = judged["cell"].to_numpy(), judged["seed"].to_numpy()
    if len(judged) and pd.notna(seed).all() and judged["cell"].nunique() > 1:
        return clusters.rate_over_cells(cell, seed, failed)
    k, n = int(failed.sum()), len(failed)
    return Estimate(k / n if n else NAN, *proportions.wilson(k, n))
