"""How often do runs fail, where, and how sure are the differences?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from harness.analysis.analyze import Analysis
from harness.analysis.failures import all_runs
from harness.analysis.verdicts import level_to_beat, untrained_loss_name
from harness.report.claims import Claim, Sentence, Words
from harness.report.formatting import integer, p_value, percent, rate_of, score, versus
from harness.report.section import FigureSpec, Section
from harness.report.table import (
    Column,
    TableSpec,
    k_of_n,
    labels_of_arms,
    labels_of_pairs,
    number,
    with_interval,
)
from harness.report.wording import (
    arm_sizes,
    can_be_shown,
    contrast_claim,
    failure_test,
    p_clause,
    points_words,
    run_count,
)

_MOST_NAMED = 3  # comparisons, in a sentence
_MOST_CLEAR = 12  # comparisons with a sentence of their own


def sentences(analysis: Analysis) -> Sequence[str]:
    """How sure the differences in failure rate are, and how much depends on the definition."""
    if not analysis.cells["judged"].sum():
        return []
    return [*_differences(analysis), *_by_other_definitions(analysis)]


def _differences(analysis: Analysis) -> list[Sentence]:
    every = analysis.contrasts[analysis.contrasts["p"].notna()].to_dict("records")
    tested = [row for row in every if can_be_shown(row)]
    claims = [contrast_claim(analysis, row) for row in tested]
    clear = [claim for claim in claims if claim.decided]
    texts = [
        Sentence(
            f"{claim.subject}: the failure rate differs by {points_words(claim.estimate)}, all else equal "
            f"({failure_test(analysis)}, adjusted {p_clause(claim.p)}).",
            claim,
        )
        for claim in clear[:_MOST_CLEAR]
    ]
    if len(clear) > _MOST_CLEAR:
        rest = clear[_MOST_CLEAR:]
        texts.append(Sentence(f"{len(rest)} more comparisons by axis differ significantly.", *rest))
    texts += _not_shown([claim for claim in claims if not claim.decided], len(claims))
    return [*texts, *_too_few([row for row in every if not can_be_shown(row)])]


def _too_few(rows: list[dict[str, Any]]) -> list[Sentence]:
    """The comparisons in which no outcome would have been significant: nothing is said of their differences."""
    if not rows:
        return []
    if len(rows) > _MOST_NAMED:
        words = Words("contrasts")
        comparisons = words.count(len(rows), "p == p and not p_least < 0.05", lambda n: f"{n} comparisons")
        return [words.sentence(f"too few runs to show any difference in failure rate in {comparisons} by axis.")]
    named = "; ".join(f"{versus(row['axis'], row['value'], row['reference'])} ({arm_sizes(row)})" for row in rows)
    return [Sentence(f"too few runs to show any difference in failure rate: {named}.")]


def _not_shown(claims: list[Claim], tested: int) -> list[Sentence]:
    """The comparisons that are not decided, each with what its interval leaves possible."""
    if not claims:
        return []
    if len(claims) > _MOST_NAMED:
        text = f"no significant difference in failure rate in {len(claims)} of {tested} comparisons by axis"
        return [Sentence(f"{text} (adjusted p of 0.05 or more).", *claims)]
    named = "; ".join(f"{claim.subject}, {points_words(claim.estimate)}" for claim in claims)
    alone = any(claim.estimate.low > 0 or claim.estimate.high < 0 for claim in claims)
    note = "; an interval that leaves out 0 does so only before the adjustment" if alone else ""
    return [
        Sentence(
            f"no significant difference in failure rate for {named} (all else equal, adjusted p of 0.05 or more"
            f"{note}).",
            *claims,
        )
    ]


def _by_other_definitions(analysis: Analysis) -> list[str]:
    definitions = analysis.definitions
    words = {
        "binomial": f"not significantly above the {_level(analysis)} at 5 %",
        "entropy": f"training loss still at the {untrained_loss_name(analysis.study)}",
        "threshold": f"worse than {score(analysis.threshold)}",
    }
    of_all, counts = Words("definitions"), list[str]()

    def total(column: str, form: Callable[[int], str] = str) -> str:
        return of_all.summary("sum", int(definitions[column].sum()), column, form=form)

    for name, meaning in words.items():
        if f"{name}_of" in definitions and definitions[f"{name}_of"].sum():
            counts.append(f"{total(f'{name}_failed')} of {total(f'{name}_of')} ({meaning})")
    if not counts:
        return []
    failed, runs = total("majority_failed"), total("majority_of", run_count)
    return [of_all.sentence(f"By the definition used here {failed} of {runs} failed; by others {', '.join(counts)}.")]


def _level(analysis: Analysis) -> str:
    """What a run has to beat, shortly: `majority`, or `untouched model`."""
    return level_to_beat(analysis.study).removesuffix(" class")


# --------------------------------------------------------------------------------------------------------------- tables


def _of_arms(analysis: Analysis) -> list[Column]:
    return [
        ("failed", k_of_n("failed", "judged")),
        ("failure rate [95 %]", rate_of),
        ("balanced counts", number("balanced_counts", lambda value: "yes" if value else "no")),
        ("mean score", number("mean")),
        ("mean training loss", number("loss")),
    ]


def _of_all_runs(analysis: Analysis) -> list[Column]:
    counts = ("planned", "finished", "crashed", "missing", *(("unreadable",) if analysis.study.unreadable else ()))
    return [
        *((name, number(name, integer)) for name in counts),
        ("failed", k_of_n("failed", "judged")),
        ("failure rate [95 %]", rate_of),
    ]


def _labels_of_contrasts(analysis: Analysis) -> list[Column]:
    return [("comparison", lambda row: versus(row["axis"], row["value"], row["reference"]))]


def _of_contrasts(analysis: Analysis) -> list[Column]:
    return [
        ("failed", k_of_n("failed", "judged")),
        ("reference", k_of_n("reference_failed", "reference_judged")),
        ("risk difference [95 %]", with_interval("difference", percent)),
        ("odds ratio [95 %]", with_interval("odds_ratio")),
        ("strata (informative)", lambda row: f"{row['strata']} ({row['informative']})"),
        ("p", number("p", p_value)),
        ("p, Holm", number("p_adjusted", p_value)),
    ]


def _of_pairs(analysis: Analysis) -> list[Column]:
    return [
        ("failed", k_of_n("failed", "judged")),
        ("reference", k_of_n("reference_failed", "reference_judged")),
        ("risk difference [95 %]", with_interval("difference", percent)),
        ("p", number("p", p_value)),
        ("p, Holm", number("p_adjusted", p_value)),
        ("odds ratio [95 %]", with_interval("odds_ratio")),
        ("Fisher p", number("fisher", p_value)),
    ]


def _of_definitions(analysis: Analysis) -> list[Column]:
    names = {
        "majority": f"at or {'below' if analysis.study.higher_is_better else 'above'} the {_level(analysis)}",
        "binomial": "not significantly above it",
        "entropy": f"loss at {untrained_loss_name(analysis.study)}",
    }
    if analysis.threshold is not None:
        side = "below" if analysis.study.higher_is_better else "above"
        names["threshold"] = f"{side} {score(analysis.threshold)}"
    return [(words, k_of_n(f"{name}_failed", f"{name}_of")) for name, words in names.items()]


def _where_several_are_known(table: pd.DataFrame) -> pd.DataFrame:
    """All rows; none where no definition but the page's own is known of any run."""
    others = [name for name in table if name.endswith("_of") and name != "majority_of"]
    return table if table[others].to_numpy().any() else table[:0]


def _of_never_failed(analysis: Analysis) -> list[Column]:
    return [
        ("runs", number("judged", lambda value: f"0 of {value} failed")),
        ("upper bound, exact", number("exact", lambda value: percent(value, 1))),
        ("rule of three", number("rule_of_three", lambda value: percent(value, 1))),
    ]


SECTION = Section(
    anchor="failing",
    heading="Failure rates",
    question="How often do runs fail, where, and how sure are the differences?",
    sentences=sentences,
    figure=FigureSpec(
        "scores.failure_rates",
        "The mark is the failed share of a cell's finished runs, the bar its 95 % Wilson interval: with few seeds even "
        "0 failures is compatible with a high rate. Crashed and missing runs are given beside the count.",
    ),
    more_figures=(
        FigureSpec(
            "failure_map.failure_map",
            "Each field is a pair of values, with failed of judged runs; the redder, the larger the share that failed. "
            "Grey fields have no judged run.",
        ),
    ),
    tables=(
        TableSpec(
            "all_runs",
            "All runs together; what seeds do alike in several cells counts once",
            _of_all_runs,
            lambda analysis: [],
            folded=True,
            data=lambda analysis: all_runs(analysis.study),
        ),
        TableSpec(
            "arms",
            "Pooled over the other axes; where the counts are not balanced, the pooled rates mix effects",
            _of_arms,
            labels_of_arms,
            folded=True,
        ),
        TableSpec(
            "contrasts",
            "Failure rates by axis within the same other settings (stratified score test and its interval, Miettinen "
            "and Nurminen; p, Holm, over the comparisons of the axis)",
            _of_contrasts,
            _labels_of_contrasts,
        ),
        TableSpec(
            "pair_failures",
            "Failure rates, pair by pair (score test and its interval; as a second look exact odds ratios and Fisher's "
            "exact test)",
            _of_pairs,
            labels_of_pairs,
            folded=True,
        ),
        TableSpec(
            "definitions",
            "Failed runs under other definitions of failure, of the runs for which each is known",
            _of_definitions,
            folded=True,
            rows=_where_several_are_known,
        ),
        TableSpec(
            "never_failed",
            "Cells without a failure: the highest failure rate compatible with that (95 %, one-sided)",
            _of_never_failed,
            folded=True,
        ),
    ),
    glossary=(
        (
            "score test",
            "The test of a difference in failure rate, within the same other settings: at no difference Cochran, "
            "Mantel and Haenszel's. Its p is never below the least that an exact test of as many runs and failures "
            "could give, so that a single failure among two runs is no difference; the interval leaves out 0 just "
            "where p is below 0.05.",
        ),
    ),
)
