"""Which hyperparameters drive the scores: shares of variance in a factorial design.

Four answers, each a table. `anova`: which hyperparameters and which of their interactions move the score.
`penalised_logit` and `effects`: which hyperparameters make runs fail, also where one value never fails. `fanova`: the
same question to a random forest, which needs no list of interactions. `variance_components`: which part of the seed
(initial weights, order of the data, dropout) the scatter within one recipe comes from.

Factors are always categories, whatever their type: 1e-5 and 3e-5 are two values, and no line is drawn through them.
True and 1 are two values, 1 and 1.0 are one, and None and NaN are one. Rows whose score is not known are left out.
What the data do not tell is NaN, with the reason in the column `note`; no table of the right shape is an error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import linalg, optimize, sparse, special, stats

MOST_COLUMNS = 300  # a term with more degrees of freedom is left out of a model


MOST_IN_ALL = 1500  # and so are the widest interactions of a model with more columns than this


DEPENDENT = 1e-9  # a column with this share of its squared length left, given the others, is a sum of them


NOTHING_LEFT = 1e-12  # a residual of this share of the total sum of squares is rounding


ROUNDING = 1e-11  # of a log-likelihood


DRAWS = 10_000


# ---------------------------------------------------------------------------------------------------------- factors


@dataclass(frozen=True)
class Factor:
    """A hyperparameter of a design: its values and, for each row, which of them it has."""

    name: str
    values: list[object]  # in the order seen
    codes: np.ndarray  # (rows,), positions in `values`

    @property
    def size(self) -> int:
        """How many values it takes."""
        return len(self.values)


def _key(value: object) -> tuple[bool, object]:
    """What makes two values of a factor the same: True is not 1, and whatever is missing is one value."""
    return (isinstance(value, bool | np.bool_), None if pd.isna(value) else value)


def build_factor(name: str, column: pd.Series) -> Factor:
    """A column as a factor: its values in the order seen, and each row's position among them."""
    raw = column.to_numpy(dtype=object)
    keys = [_key(value) for value in raw] if column.dtype == object else column
    if isinstance(keys, list):
        positions: dict[tuple[bool, object], int] = {}
        codes = np.array([positions.setdefault(key, len(positions)) for key in keys], dtype=np.intp)
    else:
        codes = pd.factorize(keys, use_na_sentinel=False)[0]
    firsts = np.sort(np.unique(codes, return_index=True)[1])
    return Factor(name, [raw[first] for first in firsts], codes)


def as_numbers(y: np.ndarray) -> np.ndarray:
    """Outcomes as floats; what is missing is NaN."""
    found = np.asarray(y)
    if found.dtype == object:  # None, pandas' NA and booleans among numbers
        found = np.array([math.nan if pd.isna(value) else float(value) for value in found], dtype=float)
    return found.astype(float)


def known_rows(factors: pd.DataFrame, y: np.ndarray) -> tuple[list[Factor], np.ndarray]:
    """The factors and the outcome of the rows whose outcome is a finite number."""
    numbers = as_numbers(y)
    if numbers.shape != (len(factors),):
        raise ValueError(
            f"one outcome a row is needed: got {len(factors)} rows and outcomes of shape {numbers.shape};"
            " pass both from the same table"
        )
    keep = np.isfinite(numbers)
    kept = factors[keep]
    return [build_factor(str(name), kept.iloc[:, i]) for i, name in enumerate(factors.columns)], numbers[keep]


def patterns(codes: Sequence[np.ndarray], rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct combinations of codes: the first row of each (patterns,), and the pattern of each row (rows,)."""
    pattern, first = np.zeros(rows, dtype=np.intp), np.zeros(min(rows, 1), dtype=np.intp)
    for code in codes:
        _, first, pattern = np.unique(
            pattern * (code.max(initial=0) + 1) + code, return_index=True, return_inverse=True
        )
    return first, pattern


def confounded(factors: Sequence[Factor], index: int) -> str:
    """Why a factor cannot be told from the others, naming those that fix it or that it fixes."""
    here = factors[index]
    partners = []
    for other in factors:
        pairs = len(np.unique(here.codes * other.size + other.codes))
        if other is not here and other.size > 1 and pairs in (here.size, other.size):
            partners.append(other.name)
    return f"confounded with {', '.join(partners)}" if partners else "not estimable: combinations are missing"


# ------------------------------------------------------------------------------------------------- design matrices


@dataclass(frozen=True)
class Design:
    """Columns of 0 and 1, at most one 1 a block (the intercept, a factor, an interaction) in a row."""

    columns: np.ndarray  # (rows, blocks), where the 1 of a block stands; `width` where a block has none
    width: int

    @property
    def matrix(self) -> sparse.csr_array:
        """The design as a sparse matrix (rows, columns)."""
        rows, blocks = self.columns.shape
        there = self.columns < self.width
        ones = (np.ones(there.sum()), (np.repeat(np.arange(rows), blocks)[there.ravel()], self.columns[there]))
        return sparse.csr_array(ones, shape=(rows, self.width))

    def forms(self, matrix: np.ndarray) -> np.ndarray:
        """The quadratic form x' M x of every row x: (rows,), for a symmetric M of (width, width)."""
        padded = np.pad(matrix, (0, 1))
        blocks = list(self.columns.T)
        total = sum((padded[block, block] for block in blocks), np.zeros(len(self.columns)))
        return np.asarray(total + 2 * sum(padded[a, b] for a, b in combinations(blocks, 2)))


def build_design(
    codes: Sequence[np.ndarray], sizes: Sequence[int], terms: Sequence[tuple[int, ...]], rows: int
) -> Design:
    """An intercept and, for each term, an indicator for every combination of its factors' later values (dummies)."""
    blocks, width = [np.zeros(rows, dtype=np.intp)], 1
    for term in terms:
        column, there = np.zeros(rows, dtype=np.intp), np.ones(rows, dtype=bool)
        for i in term:
            column = column * (sizes[i] - 1) + codes[i] - 1
            there &= codes[i] > 0
        blocks.append(np.where(there, width + column, -1))
        width += math.prod(sizes[i] - 1 for i in term)
    columns = np.stack(blocks, axis=1)
    return Design(np.where(columns < 0, width, columns), width)


def basis(gram: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns that are no sums of others, and the Cholesky factor of their Gram matrix scaled to a unit diagonal."""
    columns = columns[np.diag(gram)[columns] > 0]
    if len(columns) == 0:
        return columns, np.zeros((0, 0))
    scale = 1 / np.sqrt(np.diag(gram)[columns])
    scaled = gram[np.ix_(columns, columns)] * np.outer(scale, scale)
    factor, pivots, rank, _ = linalg.lapack.dpstrf(scaled, tol=DEPENDENT, lower=1)
    return columns[pivots[:rank] - 1], np.tril(factor[:rank, :rank])


# ------------------------------------------------------------------------------------------------ analysis of variance


def anova(factors: pd.DataFrame, y: np.ndarray, order: int = 2) -> pd.DataFrame:
    """Which hyperparameters and interactions the score varies with: a factorial analysis of variance, type II.

    `factors` (n rows, a column per hyperparameter), `y` (n,), in any unit; interactions of up to `order` factors. One
    row a term: main effects, interactions (`lr × epochs`), `residual` last. Columns: `term`, `df`, `sum_of_squares`
    (unit of y, squared), `eta_squared` (share of the total sum of squares about the mean; the shares add to 1 in
    balanced data alone), `omega_squared` (that less what chance gives; may be negative), `F` and `p` against the
    residual of the whole model, `note`. Factors with one value are dropped. All but the term is NaN, with a note,
    where combinations are missing or factors confounded, so that less than the term's degrees of freedom can be told
    (it stays in the model); and for terms left out of the model: more than 300 columns, or the widest interactions
    where a model would have more than 1,500. F, p and ω² are NaN without residual degrees of freedom, F and p also
    where the model fits exactly. Raises ValueError for an order below 1 and where the lengths differ.

    Source: type II as in Fox (2016), Applied Regression Analysis, 8.2, and statsmodels' `anova_lm(typ=2)`, by Cholesky
    factors of dummy-coded Gram matrices; η² and ω² as in Olejnik & Algina (2003), ω² = (SS - df MSE) / (SST + MSE).
    """
    if order < 1:
        raise ValueError(f"order must be 1 (main effects) or more: got {order}; 2 adds the pairs")
    found, scores = known_rows(factors, y)
    found = [factor for factor in found if factor.size > 1]
    rows = len(scores)
    every = [term for size in range(1, order + 1) for term in combinations(range(len(found)), size)]
    widths = {term: math.prod(found[i].size - 1 for i in term) for term in every}
    notes, room = {}, MOST_IN_ALL
    for term in sorted(every, key=lambda term: (len(term), widths[term])):
        room -= widths[term] if widths[term] <= MOST_COLUMNS else 0
        if widths[term] > MOST_COLUMNS or (room < 0 and len(term) > 1):
            notes[term] = f"left out of the model: {widths[term]} columns"
    terms = [term for term in every if term not in notes]

    first, pattern = patterns([factor.codes for factor in found], rows)
    design = build_design(
        [factor.codes[first] for factor in found], [factor.size for factor in found], terms, len(first)
    )
    centred = scores - scores.mean() if rows else scores
    counts = np.bincount(pattern, minlength=len(first)).astype(float)
    matrix = design.matrix
    gram = (matrix.T @ sparse.diags_array(counts) @ matrix).toarray()
    moments = matrix.T @ np.bincount(pattern, weights=centred, minlength=len(first))
    ends = np.cumsum([1] + [widths[term] for term in terms])
    places = {term: np.arange(start, start + widths[term]) for term, start in zip(terms, ends, strict=False)}
    memory: dict[tuple[tuple[int, ...], ...], tuple[int, float]] = {}

    def explained(model: tuple[tuple[int, ...], ...]) -> tuple[int, float]:
        """Rank of the model with these terms, and its sum of squares about the mean."""
        if model not in memory:
            columns, factor = basis(gram, np.concatenate([[0], *(places[term] for term in model)]).astype(np.intp))
            scaled = moments[columns] / np.sqrt(np.diag(gram)[columns])
            solved = linalg.solve_triangular(factor, scaled, lower=True) if len(columns) else scaled
            memory[model] = len(columns), float(solved @ solved)
        return memory[model]

    total = float(centred @ centred) if rows and np.ptp(scores) > 0 else 0.0
    rank, fitted = explained(tuple(terms))
    left_df = rows - rank
    left = max(total - fitted, 0.0) if left_df else 0.0
    left = 0.0 if left <= NOTHING_LEFT * total else left
    error = left / left_df if left_df else math.nan
    table = []
    for term in every:
        name = " × ".join(found[i].name for i in term)
        empty = dict.fromkeys(("df", "sum_of_squares", "eta_squared", "omega_squared", "F", "p"), math.nan)
        table.append({"term": name} | empty | {"note": notes.get(term, "")})
        if term in notes:
            continue
        others = tuple(other for other in terms if not set(term) <= set(other))
        without, within = explained(others), explained(tuple(sorted((*others, term), key=terms.index)))
        df, squares = within[0] - without[0], max(within[1] - without[1], 0.0)
        if df < widths[term]:
            missing = f"{df} of {widths[term]} degrees of freedom can be told: combinations are missing"
            table[-1]["note"] = confounded(found, term[0]) if len(term) == 1 else missing
            continue
        table[-1] |= {"df": float(df), "sum_of_squares": squares if total else 0.0}
        if total > 0:
            table[-1]["eta_squared"] = squares / total
            table[-1]["omega_squared"] = (squares - df * error) / (total + error)
        if error > 0:
            ratio = squares / df / error
            table[-1] |= {"F": ratio, "p": float(stats.f.sf(ratio, df, left_df))}
    share = left / total if total > 0 else math.nan
    table.append({"term": "residual", "df": float(left_df), "sum_of_squares": left, "eta_squared": share, "note": ""})
    return pd.DataFrame(
        table, columns=["term", "df", "sum_of_squares", "eta_squared", "omega_squared", "F", "p", "note"]
    )


def share_bounds(table: pd.DataFrame, scores: int) -> np.ndarray:
    """The interval of ω² of each row of an analysis of variance [terms, 2]; NaN where F is not known.

    NaN also where the counts are so unbalanced that the terms' parts do not add up and the interval misses ω² itself.
    """
    left = table.loc[table["term"] == "residual", "df"]
    gains = (table["df"] * (table["F"] - 1)).clip(lower=0).fillna(0.0)
    ends = [
        share_interval(row.F, row.df, float(left.iloc[0]), scores, float(gains.sum() - gain))
        for row, gain in zip(table.itertuples(), gains, strict=True)
    ]
    bounds = np.array(ends).reshape(-1, 2)
    shares = table["omega_squared"].to_numpy(dtype=float)
    outside = (shares > bounds[:, 1]) | ((shares > 0) & (shares < bounds[:, 0]))
    bounds[outside] = math.nan
    return bounds


def share_interval(ratio: float, df: float, left_df: float, rows: int, others: float) -> tuple[float, float]:
    """The 95 % interval of a term's ω², its share in the variance: by the noncentral F distribution.

    The ends are λ / (λ + `others` + `rows`) at the noncentralities λ that leave 2.5 % beyond the observed F. Errors are
    taken as normal and equally spread. NaN where F is not known. Source: Steiger (2004), Psychological Methods 9,
    164–182.

    Args:
        ratio: The term's F; `df` its degrees of freedom, `left_df` the residual's.
        rows: Scores.
        others: The sum of df (F - 1) over the other terms, those below 0 left out.
    """
    if not math.isfinite(ratio) or not left_df:
        return math.nan, math.nan

    def excess(noncentrality: float, tail: float) -> float:
        return float(special.ncfdtr(df, left_df, noncentrality, ratio)) - tail

    ends = []
    for tail in (0.975, 0.025):
        high = 10.0 + 4 * df * ratio
        if excess(0.0, tail) <= 0:
            ends.append(0.0)
            continue
        while excess(high, tail) > 0:
            high *= 2
        ends.append(float(optimize.brentq(excess, 0.0, high, args=(tail,))))
    low, high = (end / (end + others + rows) for end in ends)
    return low, high
