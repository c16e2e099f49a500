"""All tables of a study, gathered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.analysis.cells import cells, runs
from harness.analysis.dev_answers import (
    answers,
    baselines,
    calibration,
    confusion,
    flips,
    noise_floor,
    pair_noise,
    scores,
)
from harness.analysis.diagnosis import Diagnosis, diagnose
from harness.analysis.drivers import against_the_paper, drivers_of_failing, drivers_of_score, effects_on_failing
from harness.analysis.failures import arms, contrasts, definitions, never_failed, pair_failures
from harness.analysis.seeds import best_of_n, budget, needed, seed_factors, selection
from harness.analysis.spread_and_level import level, pair_levels, pair_spreads, pooled_level, profile, spread
from harness.common.forked import Beside
from harness.records.study import Study

MOST_RESAMPLED = 200  # cells whose dev answers are resampled: of ten thousand it would take half an hour


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
