"""All tables of a study, gathered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from harness.analysis import looks
from harness.analysis.baselines import baselines
from harness.analysis.best import best_set
from harness.analysis.cells import cells
from harness.analysis.dev_answers import (
    DevAnswers,
    calibration,
    confusion,
    flips,
    noise_floor,
    pair_noise,
    read_answers,
    scores,
)
from harness.analysis.diagnosis import Diagnosis, diagnose
from harness.analysis.drivers import drivers_of_failing, drivers_of_score, effects_on_failing
from harness.analysis.example_scores import read_scores, with_pairs, with_scores, with_selection
from harness.analysis.failures import arms, contrasts, definitions, never_failed, pair_failures
from harness.analysis.outcomes import crossed_cells
from harness.analysis.published import against_the_paper
from harness.analysis.seeds import best_of_n, budget, needed, seed_factors, selection
from harness.analysis.spread_and_level import level, pair_levels, pair_spreads, pooled_level, profile, spread
from harness.analysis.verdicts import runs
from harness.common.forked import Beside
from harness.records.study import Study

MOST_RESAMPLED = 200  # cells whose dev answers are resampled: of ten thousand it would take half an hour

Answered = Sequence[DevAnswers | None]  # of each cell
# The tables of an analysis by what they are made from; each is called as the function that makes it.
_FROM_SCORES: tuple[Callable[[Study], pd.DataFrame], ...] = (
    cells, arms, contrasts, pair_failures, best_set, spread, pair_spreads, level, pooled_level, pair_levels, profile,
    best_of_n, budget, never_failed, needed, seed_factors, drivers_of_score, drivers_of_failing, effects_on_failing,
    against_the_paper,
)  # fmt: skip
_FROM_ANSWERS: tuple[Callable[[Study, Answered], pd.DataFrame], ...] = (flips, calibration, confusion, baselines)
_RESAMPLED: tuple[Callable[[Study, Answered], pd.DataFrame], ...] = (noise_floor, pair_noise, selection)


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
    best_set: pd.DataFrame
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

    @cached_property
    def crossed(self) -> frozenset[int]:
        """The cells whose runs have crossed parts of the seed, and so are not independent."""
        return crossed_cells(self.study)

    @property
    def comparisons(self) -> int:
        """How many hypotheses of failing, spread and level were tested: what Holm's adjustments guard, and drivers."""
        tested = (self.contrasts["p"], *(table[name] for name, table in self._pairs if len(table)))
        return int(sum(column.notna().sum() for column in tested))

    @property
    def _pairs(self) -> tuple[tuple[str, pd.DataFrame], ...]:
        return ("p_adjusted", self.pair_failures), ("p_holm", self.pair_spreads), ("p_holm", self.pair_levels)


def analyse(study: Study, threshold: float | None = None) -> Analysis:
    """Make every table of a study; a score worse than `threshold` fails in `definitions`, beside our own."""
    others = Beside(lambda: _from_scores(study, threshold))
    try:
        read = study.read_once()  # by the answers, the scores and the diagnosis
        all_answers = read_answers(read)
        resampled = [part if index < MOST_RESAMPLED else None for index, part in enumerate(all_answers)]
        judged = runs(study)
        tables: dict[str, Any] = {make.__name__: make(study, resampled) for make in _RESAMPLED}
        scored = [part if index < MOST_RESAMPLED else None for index, part in enumerate(read_scores(read, all_answers))]
        tables["noise_floor"] = with_scores(study, tables["noise_floor"], scored)
        tables["pair_noise"] = with_pairs(study, tables["pair_noise"], scored)
        tables["selection"] = with_selection(tables["selection"], scored)
        tables |= {make.__name__: make(study, all_answers) for make in _FROM_ANSWERS}
        tables |= {"scores": scores(read, all_answers), "diagnosis": diagnose(read, judged)}
        return Analysis(study=study, threshold=threshold, runs=judged, **tables, **others.result())
    finally:
        others.stop()


def _from_scores(study: Study, threshold: float | None) -> dict[str, pd.DataFrame]:
    """The tables that need no arrays, by their names in `Analysis`."""
    tables = {make.__name__: make(study) for make in _FROM_SCORES}
    return {"definitions": definitions(study, threshold)} | looks.of_tables(study, tables)
