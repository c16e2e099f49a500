"""Which settings matter for the score, and which for failure?"""

from __future__ import annotations

from collections.abc import Callable

from harness.analysis.analyze import Analysis
from harness.analysis.comparisons import axes_by_weight
from harness.common.text import show
from harness.report.formatting import Row, decimals, integer, p_value, percent, unknown
from harness.report.section import FigureSpec, Section
from harness.report.table import Column, TableSpec, number, with_bounds
from harness.report.wording import capitalized, run_count, spaced


def in_short(analysis: Analysis) -> str:
    """What failing and the score depend on most, for the opening; empty where nothing stands out."""
    if len(axes_by_weight(analysis.study)) < 2:
        return ""
    clauses = [clause for clause in (_of_failing_most(analysis), _of_score_most(analysis)) if clause]
    return "; ".join(clauses) + "." if clauses else ""


def _of_failing_most(analysis: Analysis) -> str:
    table = analysis.drivers_of_failing
    known = table.dropna(subset=["share"]) if len(table) else table
    if len(known) < 2 or known["p"].min() >= 0.05:
        return ""
    top = known.loc[known["share"].idxmax()]
    return (
        f"the strongest predictor of failure is {spaced(top['factor'])} ({percent(top['share'])} of the explained χ²)"
    )


def _of_score_most(analysis: Analysis) -> str:
    table = analysis.drivers_of_score
    terms = table[(table["term"] != "residual")] if len(table) else table
    terms = terms.dropna(subset=["eta_squared"]) if len(terms) else terms
    terms = terms[terms["p"] < 0.05] if len(terms) > 1 else terms[:0]
    if not len(terms):
        return ""
    top = terms.loc[terms["eta_squared"].idxmax()]
    residual = table[table["term"] == "residual"]["eta_squared"]
    seeds = f", seeds within cells for {percent(float(residual.iloc[0]))}" if len(residual) else ""
    return f"{spaced(top['term'])} accounts for {percent(top['eta_squared'])} of the variance of the score{seeds}"


def sentences(analysis: Analysis) -> list[str]:
    """Which settings drive score and failing; what the shares mean."""
    if not axes_by_weight(analysis.study):
        return ["Only the seed varies, so there is nothing to rank."]
    if not analysis.cells["finished"].sum():
        return ["Hyperparameter importance appears here once runs have finished."]
    short, table = in_short(analysis), analysis.drivers_of_failing
    texts = [capitalized(short)] if short else []
    if not len(table) or unknown(table["share"].max()):
        failed, judged = int(analysis.cells["failed"].fillna(0).sum()), int(analysis.cells["judged"].sum())
        why = f"{failed} of {run_count(judged)} failed" if judged else "whether runs failed is not known"
        if 0 < failed < judged:
            why = "; ".join(f"{spaced(row['factor'])} {row['note']}" for row in table.to_dict("records"))
        texts.append(f"Predictors of failure cannot be determined: {why}.")
    return texts


# --------------------------------------------------------------------------------------------------------------- tables


def _spaced(name: str) -> Callable[[Row], str]:
    return lambda row: spaced(row[name])


def _of_score(analysis: Analysis) -> list[Column]:
    return [
        ("df", number("df", integer)),
        ("η²", number("eta_squared", lambda value: percent(value, 1))),
        ("ω²", number("omega_squared", lambda value: percent(value, 1))),
        ("F", number("F", lambda value: decimals(value, 2))),
        ("p", number("p", p_value)),
        ("fANOVA", number("fanova", lambda value: percent(value, 1))),
    ]


def _of_failing(analysis: Analysis) -> list[Column]:
    return [
        ("df", number("df", integer)),
        ("χ²", number("chi2", lambda value: decimals(value, 2))),
        ("p", number("p", p_value)),
        ("share of χ²", number("share", percent)),
    ]


def _labels_of_failing(analysis: Analysis) -> list[Column]:
    return [("setting", lambda row: spaced(row["factor"]) + (f" ({row['note']})" if row.get("note") else ""))]


def _labels_of_effects(analysis: Analysis) -> list[Column]:
    return [("setting", _spaced("factor")), ("value", lambda row: show(row["value"]))]


def _of_effects(analysis: Analysis) -> list[Column]:
    return [
        ("adjusted failure rate", number("rate", percent)),
        ("difference from the first [95 %]", with_bounds("difference", percent)),
    ]


SECTION = Section(
    anchor="importance",
    heading="Hyperparameter importance",
    question="Which settings matter for the score, and which for failure?",
    sentences=sentences,
    figure=FigureSpec(
        "variance.importance",
        "Left the share of each setting, and of settings together (×), in the variance of the score; the residual is "
        "the variance over seeds within cells. Right its share in explaining which runs fail. Shares hold for these "
        "ranges of the settings: a wider range of one would raise its share.",
    ),
    tables=(
        TableSpec(
            "drivers_of_score",
            "Share of each setting in the variance of the score (factorial ANOVA, type II; fANOVA by random forest)",
            _of_score,
            lambda analysis: [("setting", _spaced("term"))],
        ),
        TableSpec(
            "drivers_of_failing",
            "Predictors of failure (Firth's penalised logistic regression, likelihood-ratio tests)",
            _of_failing,
            _labels_of_failing,
        ),
        TableSpec(
            "effects_on_failing",
            "Average marginal effects: the failure rate if every run had that value",
            _of_effects,
            _labels_of_effects,
            folded=True,
        ),
    ),
    glossary=(
        (
            "η², ω²",
            "Share of a setting in the variance of the score; ω² takes off what chance alone would give and may fall "
            "below 0.",
        ),
    ),
)
