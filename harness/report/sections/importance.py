"""Which settings matter for the score, and which for failure?"""

from __future__ import annotations

from collections.abc import Callable

from harness.analysis.analyze import Analysis
from harness.analysis.comparisons import compared_axes
from harness.analysis.drivers import largest_effects
from harness.common.text import show
from harness.report.claims import LEVEL, Claim, Sentence, Words
from harness.report.formatting import Row, decimals, integer, interval, p_value, percent
from harness.report.section import FigureSpec, Section
from harness.report.table import Column, TableSpec, number, with_bounds, with_interval
from harness.report.wording import contrast_claim, points_words, run_count, spaced
from harness.stats.estimate import Estimate

_MOST_NAMED = 4  # settings, in a sentence


def in_short(analysis: Analysis) -> str:
    """What failing and the score depend on, for the opening; empty where nothing stands out."""
    if len(compared_axes(analysis.study)) < 2:
        return ""
    parts = [sentence for sentence in (_of_failing(analysis), _of_score(analysis)) if sentence]
    return Sentence(" ".join(parts), *(claim for part in parts for claim in part.claims)) if parts else ""


def _of_failing(analysis: Analysis) -> Sentence | None:
    """The settings that change the failure rate, by the size of what they change, and whether that order is sure."""
    claims = [contrast_claim(analysis, row) for row in largest_effects(analysis.contrasts).to_dict("records")]
    clear = [claim for claim in claims if claim.decided][:_MOST_NAMED]
    if not clear:
        return None
    named = "; ".join(f"{claim.subject} {points_words(claim.estimate)}" for claim in clear)
    text = f"settings that change the failure rate, all else equal: {named}"
    if len(clear) > 1:
        first, second = (_size(claim.estimate) for claim in clear[:2])
        if _overlap(first, second):
            text += "; which of them matters most is not certain, as the intervals of their sizes overlap"
    return Sentence(f"{text}.", *clear)


def _size(estimate: Estimate) -> Estimate:
    """The size of a difference and its interval, whatever its sign."""
    if estimate.value >= 0:
        return estimate
    return Estimate(-estimate.value, -estimate.high, -estimate.low)


def _overlap(first: Estimate, second: Estimate) -> bool:
    return first.low <= second.high and second.low <= first.high


def _of_score(analysis: Analysis) -> Sentence | None:
    """The terms that the score varies with most, by ω², which allows for their degrees of freedom."""
    table = analysis.drivers_of_score
    terms = table[(table["term"] != "residual")] if len(table) else table
    terms = terms.dropna(subset=["omega_squared", "omega_squared_low"]) if len(terms) else terms
    terms = terms[terms["p"] < LEVEL] if len(terms) > 1 else terms[:0]
    if not len(terms):
        return None
    leading = terms.sort_values("omega_squared", ascending=False, kind="stable").head(2).to_dict("records")
    claims = [_share_claim(row) for row in leading]
    top = leading[0]
    text = f"{spaced(top['term'])} accounts for {interval(top, 'omega_squared', percent)} of the variance of the score"
    if len(leading) == 2:
        other = leading[1]
        sure = "" if _overlap(claims[0].estimate, claims[1].estimate) else "more than "
        text += f", {sure}{spaced(other['term'])} for {interval(other, 'omega_squared', percent)}"
        text += "" if sure else " (the intervals overlap, so that their order is not certain)"
    words, seeds = Words("drivers_of_score"), ""
    for row in table[table["term"] == "residual"].to_dict("records"):
        seeds = f"; seeds within cells account for {words.value(row, ['term'], 'eta_squared', percent)}"
    return Sentence(f"{text}{seeds}.", *claims, *words.claims)


def _share_claim(row: Row) -> Claim:
    return Claim(
        quantity="share",
        subject=f"{row['term']} in the variance of the score",
        estimate=Estimate(*(float(row[f"omega_squared{end}"]) for end in ("", "_low", "_high"))),
        n=0,
        table="drivers_of_score",
        row=(("term", row["term"]),),
        column="omega_squared",
        test="F test",
        p=float(row["p"]),
    )


def sentences(analysis: Analysis) -> list[str]:
    """Which settings drive score and failing; what the shares mean."""
    if not compared_axes(analysis.study):
        return ["Only the seed varies, so there is nothing to rank."]
    if not analysis.cells["finished"].sum():
        return ["Hyperparameter importance appears here once runs have finished."]
    short, table = in_short(analysis), analysis.drivers_of_failing
    texts = [short] if short else []
    if not len(table) or table["chi2"].isna().all():
        failed, judged = int(analysis.cells["failed"].fillna(0).sum()), int(analysis.cells["judged"].sum())
        words, why = Words("cells"), "whether runs failed is not known"
        if judged and failed in (0, judged):
            counts = words.summary("sum", failed, "failed"), words.summary("sum", judged, "judged", form=run_count)
            why = f"{' of '.join(counts)} failed"
        if 0 < failed < judged:
            why = "; ".join(f"{spaced(row['factor'])} {row['note']}" for row in table.to_dict("records"))
        texts.append(words.sentence(f"predictors of failure cannot be determined: {why}."))
    return texts


# --------------------------------------------------------------------------------------------------------------- tables


def _spaced(name: str) -> Callable[[Row], str]:
    return lambda row: spaced(row[name])


def _columns_of_score(analysis: Analysis) -> list[Column]:
    return [
        ("df", number("df", integer)),
        ("η²", number("eta_squared", lambda value: percent(value, 1))),
        ("ω² [F interval]", with_interval("omega_squared", percent)),
        ("F", number("F", lambda value: decimals(value, 2))),
        ("p", number("p", p_value)),
        ("fANOVA", number("fanova", lambda value: percent(value, 1))),
    ]


def _columns_of_failing(analysis: Analysis) -> list[Column]:
    return [
        ("df", number("df", integer)),
        ("χ²", number("chi2", lambda value: decimals(value, 2))),
        ("p", number("p", p_value)),
    ]


def _labels_of_failing(analysis: Analysis) -> list[Column]:
    return [("setting", lambda row: spaced(row["factor"]) + (f" ({row['note']})" if row.get("note") else ""))]


def _labels_of_effects(analysis: Analysis) -> list[Column]:
    return [("setting", _spaced("factor")), ("value", lambda row: show(row["value"]))]


def _of_effects(analysis: Analysis) -> list[Column]:
    return [
        ("adjusted failure rate", number("rate", percent)),
        ("difference from the reference [95 %]", with_bounds("difference", percent)),
    ]


SECTION = Section(
    anchor="importance",
    heading="Hyperparameter importance",
    question="Which settings matter for the score, and which for failure?",
    sentences=sentences,
    figure=FigureSpec(
        "variance.importance",
        "Left the share of each setting, and of settings together (×), in the variance of the score; the residual is "
        "the variance over seeds within cells. Right the largest difference that a setting makes to the failure rate, "
        "the others held as they are, with its 95 % interval. All hold for these ranges of the settings: a wider "
        "range of one would matter more.",
    ),
    more_figures=(
        FigureSpec(
            "parallel.parallel",
            "Each line is one run, from its settings to its score on the right: failed runs red and dashed, the best "
            "quarter blue. A value that red lines share makes runs fail.",
        ),
    ),
    tables=(
        TableSpec(
            "drivers_of_score",
            "Share of each setting in the variance of the score (factorial ANOVA, type II; fANOVA by random forest)",
            _columns_of_score,
            lambda analysis: [("setting", _spaced("term"))],
        ),
        TableSpec(
            "drivers_of_failing",
            "A second look at failure by a model of all settings (Firth's penalised logistic regression, "
            "likelihood-ratio tests)",
            _columns_of_failing,
            _labels_of_failing,
            folded=True,
        ),
        TableSpec(
            "effects_on_failing",
            "The failure rate if every run had that value, by the same model (average marginal effects)",
            _of_effects,
            _labels_of_effects,
            folded=True,
        ),
    ),
    glossary=(
        (
            "η², ω²",
            "Share of a setting in the variance of the score; ω² takes off what chance alone would give and may fall "
            "below 0. Its interval (noncentral F) takes scores as normal: in simulations where up to 10 % of runs fail "
            "it held the truth in as little as 84 %, so it is not called one of 95 %.",
        ),
    ),
)
