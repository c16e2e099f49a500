"""Functional ANOVA by a random forest, for designs that are no grid (Hutter, Hoos & Leyton-Brown 2014)."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from harness.stats.anova import Factor, known_rows

FOREST_ROWS = 2000


# --------------------------------------------------------------------------------------------------- random forest


def _sorted_codes(factor: Factor) -> np.ndarray:
    """Codes in the order of the values: numbers by size, anything else by how it is written."""

    def place(code: int) -> tuple[bool, float, str]:
        value = factor.values[code]
        number = isinstance(value, int | float | np.number | np.bool_) and not pd.isna(value)
        return (not number, float(value) if number else 0.0, f"{type(value).__name__} {value}")  # type: ignore[arg-type]

    ranks = np.argsort(sorted(range(factor.size), key=place))
    return np.asarray(ranks[factor.codes])


def fanova(factors: pd.DataFrame, y: np.ndarray, seed: int = 0) -> pd.Series:
    """Which hyperparameters move the outcome by themselves, as a random forest sees it: functional ANOVA shares.

    `factors` (n rows, a column per hyperparameter), `y` (n,), a score or 0 and 1 for failed. Index: the factors' names,
    in the frame's order; values: the share of the variance of the forest's prediction, over the whole grid of values,
    that is the factor's main effect (what is missing to 1 is interactions). It leaves out the scatter between seeds,
    so it is larger than η². NaN for a factor with one value, and for all where the outcome or the forest is constant.
    Of more than 2,000 rows a sample of 2,000 drawn by `seed` is used: a forest takes seconds a thousand rows.
    Raises ValueError where the lengths differ.

    Source: Hutter, Hoos & Leyton-Brown (2014), by Optuna's FanovaImportanceEvaluator. Not Optuna's default, PED-ANOVA:
    that looks at the best tenth of the runs, which is no question to ask of a 0-1 outcome. Values are passed as integer
    codes in their order, not as Optuna's categories: those become one column a value, over whose impossible
    combinations the forest is averaged too (mean error 0.05 against 0.02 on grids whose shares are known), in a time
    that doubles with every value.
    """
    import optuna

    found, outcome = known_rows(factors, y)
    shares = pd.Series(math.nan, index=[factor.name for factor in found], dtype=float)
    used = [i for i, factor in enumerate(found) if factor.size > 1]
    if not used or np.ptp(outcome) == 0:
        return shares
    codes = np.stack([_sorted_codes(found[i]) for i in used], axis=1)  # (rows, used)
    order = np.lexsort((outcome, *codes.T))  # so that the order of the rows changes nothing
    if len(order) > FOREST_ROWS:
        order = order[np.sort(np.random.default_rng(seed).choice(len(order), FOREST_ROWS, replace=False))]
    ranges: dict[str, optuna.distributions.BaseDistribution] = {
        str(i): optuna.distributions.IntDistribution(0, found[i].size - 1) for i in used
    }
    trials = [
        optuna.trial.create_trial(
            params={str(i): int(code) for i, code in zip(used, codes[row], strict=True)},
            distributions=ranges,
            value=float(outcome[row]),
        )
        for row in order
    ]
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # a study announces itself otherwise
    try:
        study = optuna.create_study()
        study.add_trials(trials)
        answer = optuna.importance.FanovaImportanceEvaluator(seed=seed).evaluate(study)
    except RuntimeError:  # "Encountered zero total variance in all trees."
        return shares
    finally:
        optuna.logging.set_verbosity(before)
    for name, share in answer.items():
        shares.iloc[int(name)] = share
    return shares
