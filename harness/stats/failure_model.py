"""What drives failing: a penalised logistic regression (Firth 1993)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse, special, stats

from harness.stats.anova import (
    MOST_COLUMNS,
    ROUNDING,
    Design,
    Factor,
    basis,
    build_design,
    confounded,
    known_rows,
    patterns,
)

ITERATIONS = 200


HALVINGS = 30


LONGEST_STEP = 5.0  # of a coefficient in one iteration, as in R's logistf


SCORE_AT_MAXIMUM = 1e-7


Z_95 = float(stats.norm.ppf(0.975))


# ------------------------------------------------------------------------------------------------- penalised logit


@dataclass(frozen=True)
class _Point:
    """The penalised likelihood of failing at one vector of coefficients."""

    value: float  # log-likelihood plus half the log-determinant of the information; -inf where that is singular
    rates: np.ndarray  # (rows,)
    information: np.ndarray  # (width, width)


@dataclass(frozen=True)
class _Counts:
    """Runs and failures of each combination of values, and the design of their main effects."""

    design: Design
    runs: np.ndarray  # (rows,)
    failed: np.ndarray  # (rows,)

    def at(self, matrix: sparse.csr_array, coefficients: np.ndarray) -> _Point:
        linear = matrix @ coefficients
        rates = special.expit(linear)
        weights = self.runs * rates * special.expit(-linear)
        information = (matrix.T @ sparse.diags_array(weights) @ matrix).toarray()
        sign, determinant = np.linalg.slogdet(information)
        likelihood = self.failed @ special.log_expit(linear) + (self.runs - self.failed) @ special.log_expit(-linear)
        value = float(likelihood + determinant / 2) if sign > 0 else -math.inf
        return _Point(value if math.isfinite(value) else -math.inf, rates, information)

    def maximum(self, start: np.ndarray, free: np.ndarray) -> tuple[np.ndarray, _Point] | None:
        """Coefficients of the largest penalised likelihood, those not `free` kept at 0; None without convergence.

        Firth's modified score is brought to 0 with step-halving (Heinze & Schemper 2002, section 2). A step divides it
        by its slope with the leverages held: the information alone oversteps twofold where every run has its own
        coefficient, and circles. The penalty is that of all columns, so that a restricted maximum is one of the same
        function.
        """
        matrix = self.design.matrix
        here = np.where(free, start, 0.0)
        point = self.at(matrix, here)
        for _ in range(ITERATIONS):
            if not math.isfinite(point.value):
                return None
            weights = self.runs * point.rates * (1 - point.rates)
            leverage = weights * self.design.forms(np.linalg.inv(point.information))
            score = matrix.T @ (self.failed - self.runs * point.rates + leverage * (0.5 - point.rates))
            if not free.any() or np.abs(score[free]).max() < SCORE_AT_MAXIMUM:
                return here, point
            bend = (self.runs + leverage) * point.rates * (1 - point.rates)
            curvature = (matrix.T @ sparse.diags_array(bend) @ matrix).toarray()
            step = np.zeros_like(here)
            step[free] = np.linalg.solve(curvature[np.ix_(free, free)], score[free])
            step *= min(1.0, LONGEST_STEP / np.abs(step).max())
            for _ in range(HALVINGS):
                next_point = self.at(matrix, here + step)
                if next_point.value >= point.value - 1e-12 * abs(point.value):  # less than rounding is no loss
                    break
                step /= 2
            else:
                return None
            here, point = here + step, next_point
        return None


@dataclass(frozen=True)
class Logit:
    """The model of `penalised_logit`, fitted; `likelihood_ratios` and `effects_of` tell what it says."""

    factors: list[Factor]
    notes: list[str]  # a factor: why it has no numbers; empty where it has
    counts: _Counts
    codes: list[np.ndarray]  # a factor: (rows,) of `counts`
    blocks: list[int]  # a factor: its block of the design
    coefficients: np.ndarray | None
    point: _Point | None


def fit(factors: pd.DataFrame, failed: np.ndarray) -> Logit:
    """Fit the model of `penalised_logit`, whose arguments and errors it has."""
    found, outcome = known_rows(factors, failed)
    if not np.isin(outcome, (0.0, 1.0)).all():
        wrong = outcome[~np.isin(outcome, (0.0, 1.0))][0]
        raise ValueError(f"an outcome must be 0 or 1 (failed), or NaN where it is not known: got {wrong:g}")
    notes = ["" for _ in found]
    for i, factor in enumerate(found):
        if factor.size < 2:
            notes[i] = "one value only" if factor.size else "no runs"
        elif factor.size > MOST_COLUMNS:
            notes[i] = f"left out of the model: {factor.size} values"
    used = [i for i, note in enumerate(notes) if not note]
    if len(outcome) and outcome.max() == outcome.min():
        notes = [note or ("every run failed" if outcome[0] else "no run failed") for note in notes]

    first, pattern = patterns([found[i].codes for i in used], len(outcome))
    runs = np.bincount(pattern, minlength=len(first)).astype(float)
    codes = [factor.codes[first] for factor in found]
    design = build_design(codes, [factor.size for factor in found], [(i,) for i in used], len(first))
    matrix = design.matrix
    gram = (matrix.T @ sparse.diags_array(runs) @ matrix).toarray()
    ends = np.cumsum([1] + [found[i].size - 1 for i in used])
    everything = np.arange(design.width)
    kept = np.sort(basis(gram, everything)[0])
    for i, start in zip(used, ends, strict=False):
        own = np.arange(start, start + found[i].size - 1)
        if len(kept) - len(basis(gram, np.setdiff1d(everything, own))[0]) < len(own):
            notes[i] = notes[i] or confounded([found[j] for j in used], used.index(i))
    renamed = np.full(design.width + 1, len(kept))  # columns that are sums of others become absent
    renamed[kept] = np.arange(len(kept))
    failures = np.bincount(pattern, weights=outcome, minlength=len(first))
    counts = _Counts(Design(renamed[design.columns], len(kept)), runs, failures)
    blocks = [used.index(i) + 1 if i in used else 0 for i in range(len(found))]
    maximum = counts.maximum(np.zeros(len(kept)), np.ones(len(kept), dtype=bool)) if "" in notes else None
    if maximum is None:
        notes = [note or "did not converge" for note in notes]
    return Logit(found, notes, counts, codes, blocks, *(maximum or (None, None)))


def penalised_logit(factors: pd.DataFrame, failed: np.ndarray) -> pd.DataFrame:
    """Which hyperparameters runs fail by: a logit on main effects, finite also where a value never or always fails.

    `factors` (n rows, a column per hyperparameter), `failed` (n,) of 0 and 1, or NaN where not known. One row a factor,
    in the frame's order: `factor`, `df` (values less one), `chi2` (twice the drop in penalised log-likelihood with all
    its coefficients at 0, the penalty remaining that of all columns), `p` (of chi2 with df; asymptotic), `share` (of
    the sum of the chi2 of the factors that have one: a description, not a decomposition of anything), `note`. NaN with
    a note where a factor has one value (or more than 300), is confounded, where no run failed or every one (the
    penalty alone would tell the values apart then), and without convergence; `share` is NaN where all chi2 are 0.
    Raises ValueError for other outcomes and where the lengths differ.

    Source: Firth (1993), Biometrika 80; Heinze & Schemper (2002), Statistics in Medicine 21; the test is that of R's
    `logistf`. Neither scipy, statsmodels nor scikit-learn has it.
    """
    return likelihood_ratios(fit(factors, failed))


def likelihood_ratios(logit: Logit) -> pd.DataFrame:
    """The table of `penalised_logit` of a model that was fitted."""
    table = []
    for factor, note, block in zip(logit.factors, logit.notes, logit.blocks, strict=True):
        row = {"factor": factor.name, "df": float(max(factor.size - 1, 0)), "chi2": math.nan, "p": math.nan}
        if logit.coefficients is not None and logit.point is not None and not note:
            design = logit.counts.design
            free = ~np.isin(np.arange(design.width), design.columns[:, block])
            restricted = logit.counts.maximum(logit.coefficients, free)
            restricted = restricted or logit.counts.maximum(np.zeros(design.width), free)
            if restricted is None:
                note = "did not converge"
            else:
                drop = 2 * (logit.point.value - restricted[1].value)
                row["chi2"] = drop if drop > ROUNDING * abs(logit.point.value) else 0.0
                row["p"] = float(stats.chi2.sf(row["chi2"], row["df"]))
        table.append(row | {"note": note})
    result = pd.DataFrame(table, columns=["factor", "df", "chi2", "p", "note"])
    total = float(result["chi2"].sum())  # NaN counts as 0
    result.insert(4, "share", result["chi2"].astype(float) / total if total > 0 else math.nan)
    return result


def effects(factors: pd.DataFrame, failed: np.ndarray, references: Mapping[str, object] | None = None) -> pd.DataFrame:
    """What each value does to the failing: the averaged marginal effects of the fit of `penalised_logit`.

    Arguments and errors as there. One row a value of a factor, in the order seen: `factor`, `value`, `rate` (a
    fraction: the rate the fit predicts were every run set to this value and otherwise as it is, averaged over the
    runs), `difference` (to the rate of the factor's reference, in fractions), `low` and `high` (its 95 % interval,
    within -1 and 1; NaN for the reference), `note`. NaN with a note as there. A factor without a value in `references`,
    or with one that is not seen, is compared with the first seen.

    Source: the delta method with the inverse Fisher information at Firth's estimate, as Dowd, Greene & Norton (2014),
    Health Services Research 49, set out for averaged effects.
    """
    return effects_of(fit(factors, failed), references)


def effects_of(logit: Logit, references: Mapping[str, object] | None = None) -> pd.DataFrame:
    """The table of `effects` of a model that was fitted."""
    table: list[dict[str, object]] = []
    for factor, note, codes, block in zip(logit.factors, logit.notes, logit.codes, logit.blocks, strict=True):
        empty: dict[str, object] = dict.fromkeys(("rate", "difference", "low", "high"), math.nan)
        rows = [{"factor": factor.name, "value": value} | empty | {"note": note} for value in factor.values]
        table += rows
        if logit.coefficients is None or logit.point is None or note:
            continue
        counts, width = logit.counts, logit.counts.design.width
        covariance = np.linalg.inv(logit.point.information)
        first_rate, first_slope = 0.0, np.zeros(width)
        first = (references or {}).get(factor.name)
        first_code = factor.values.index(first) if first in factor.values else 0
        for code, row in sorted(enumerate(rows), key=lambda each: each[0] != first_code):
            columns = counts.design.columns.copy()
            columns[:, block] = columns[codes == code, block][0]
            matrix = Design(columns, width).matrix
            rates = special.expit(matrix @ logit.coefficients)
            rate = float(counts.runs @ rates / counts.runs.sum())
            slope = matrix.T @ (counts.runs * rates * (1 - rates)) / counts.runs.sum()
            if code == first_code:
                first_rate, first_slope = rate, slope
                row |= {"rate": rate, "difference": 0.0}
                continue
            change = slope - first_slope
            half = Z_95 * math.sqrt(max(float(change @ covariance @ change), 0.0))
            difference = rate - first_rate
            row |= {"rate": rate, "difference": difference}
            row |= {"low": max(difference - half, -1.0), "high": min(difference + half, 1.0)}
    result = pd.DataFrame(table, columns=["factor", "value", "rate", "difference", "low", "high", "note"])
    result["value"] = pd.Series([row["value"] for row in table], dtype=object)  # as written: None is not made NaN
    return result
