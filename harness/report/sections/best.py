"""Which recipes are best, and which can't be told from the best?"""

from __future__ import annotations

import pandas as pd

from harness.analysis import looks
from harness.analysis.analyze import Analysis
from harness.analysis.best import may_be_best
from harness.common.text import count_noun
from harness.report.claims import Claim, Sentence, Words
from harness.report.formatting import p_value, score, unknown
from harness.report.section import Section
from harness.report.table import Column, TableSpec, k_of_n, number
from harness.report.wording import named_cells
from harness.stats.estimate import NAN, Estimate

_AS_FAST = 1.5  # times the shortest training time; what takes no longer is as cheap, for machines are not always free
_MEASURES = (
    ("mean", "scored", "maybe_best_mean", "the best mean score"),
    ("failed", "judged", "maybe_lowest_rate", "the lowest failure rate"),
)


def sentences(analysis: Analysis) -> list[Sentence]:
    """Which cells are not told apart from the best, on the mean and on failing; one is named best only if alone."""
    texts = []
    for column, over, member, what in _MEASURES:
        table = analysis.best_set
        known = table[table[over] > 0]
        if len(known) < 2 or (column == "failed" and not known["failed"].sum()):
            continue
        texts.append(_of_measure(analysis, known, column, member, what))
    return texts


def _of_measure(analysis: Analysis, known: pd.DataFrame, column: str, member: str, what: str) -> Sentence:
    members = known[known[member]]
    claim = Claim("best set", what, Estimate(len(members), NAN, NAN), len(known), "best_set", (), member)
    words = Words("best_set")
    words.claims.append(claim)
    if column == "mean":
        low = words.summary("min", float(members["mean"].min()), "mean", member, score)
        high = words.summary("max", float(members["mean"].max()), "mean", member, score)
        values = f"mean {low}" if low == high else f"means {low} to {high}"
        diverged = int(analysis.cells.loc[known["cell"].astype(int), "diverged"].sum())
        if diverged:
            left_out = words.summary(
                "sum", diverged, "diverged", "scored > 0", lambda n: count_noun(int(n), "diverged run"), "cells"
            )
            values += f", {left_out} counted as the worst"
    else:
        values = f"{_failed(words, members, member)} failed"
    sure = "95 % for a single look" if column == "mean" and looks.looked_at(analysis.study) else "95 %"
    if len(members) == 1:
        best = f"{what} is that of {_named(analysis, members)} ({values})"
        text = f"{best}; no other recipe can be the best ({sure})"
        return words.sentence(f"{text}.")
    if len(members) == len(known):
        return Sentence(
            f"no recipe can be excluded from having {what} ({sure}): the {len(known)} cannot be distinguished.", claim
        )
    named = _named(analysis, members)
    return words.sentence(
        f"{len(members)} of {len(known)} recipes cannot be distinguished from the one with {what} ({sure}; {values})"
        + (f": {named}." if named else ".")
    )


def _failed(words: Words, rows: pd.DataFrame, where: str) -> str:
    """`3 of 20`, of the rows that `where` holds for."""
    counts = (words.summary("sum", int(rows[name].sum()), name, where, str) for name in ("failed", "judged"))
    return " of ".join(counts)


def _chance(analysis: Analysis, words: Words, rows: pd.DataFrame) -> str:
    """`, 3 near chance`, of the cells of these rows; empty for none."""
    cells = [int(index) for index in rows["cell"]]
    number = int(analysis.cells.loc[cells, "near_chance"].sum())
    where = f"cell in {(*cells, -1)}"
    return f", {words.summary('sum', number, 'near_chance', where, str, 'cells')} near chance" if number else ""


def _named(analysis: Analysis, rows: pd.DataFrame) -> str:
    return named_cells(analysis, [int(index) for index in rows["cell"]])


def recommendation(analysis: Analysis) -> list[Sentence]:
    """One sentence on what to use, with its condition; empty where there is nothing to choose from."""
    table = analysis.best_set
    known = table[table["scored"] > 0]
    if len(known) < 2:
        return []
    judged = bool(known["judged"].sum())
    chosen = known[known["recommended"]]
    claim = Claim("best set", "recommended", Estimate(len(chosen), NAN, NAN), len(known), "best_set", (), "recommended")
    words = Words("best_set")
    words.claims.append(claim)
    good = "high" if analysis.study.higher_is_better else "low"
    criteria = f"few failures and a {good} mean matter" if judged else "the mean matters"
    open_to_all = may_be_best(known)
    if open_to_all.all():
        fewest, most = int(known["scored"].min()), int(known["scored"].max())
        runs = words.summary("min", fewest, "scored", "scored > 0", lambda n: count_noun(int(n), "scored run"))
        runs += f"{' or more' if most > fewest else ''} per recipe"
        return [words.sentence(f"no recommendation: with {runs} none stands out.")]
    if not len(chosen):
        return [Sentence("no recommendation: the recipes that may have the best mean do not fail least.", claim)]
    counts = f" ({_failed(words, chosen, 'recommended')} failed{_chance(analysis, words, chosen)})" if judged else ""
    others = int(open_to_all.sum()) - len(chosen)
    caveat = ""
    if others:
        rest = f"maybe_best_mean and not recommended{' and maybe_lowest_rate' if judged else ''}"
        which = "another recipe" if others == 1 else words.count(others, rest, lambda n: f"{n} other recipes")
        caveat = f"; {which}, of which less is known or more runs failed, may be as good"
    named = _named(analysis, chosen)
    if len(chosen) > 1:
        several = f"any of these {len(chosen)} (of {len(known)}), which cannot be distinguished{counts}"
        named = f"{several}: {named}" if named else several
    cheapest = _cheapest(analysis, words, chosen)
    alone = counts if len(chosen) == 1 else ""
    return [words.sentence(f"recommendation if {criteria}: {named}{alone}{caveat}.{cheapest}")]


def _cheapest(analysis: Analysis, words: Words, chosen: pd.DataFrame) -> str:
    """Which of several recipes train fastest, and how long the slowest takes; empty where unknown or about alike."""
    seconds = chosen["run_seconds"]
    if len(chosen) < 2 or not seconds.notna().all() or seconds.max() <= _AS_FAST * seconds.min():
        return ""
    fastest = chosen[seconds <= _AS_FAST * seconds.min()]
    named = _named(analysis, fastest)
    if not named:
        return ""
    least = words.summary("min", float(seconds.min()), "run_seconds", "recommended", _seconds)
    most = words.summary("max", float(seconds.max()), "run_seconds", "recommended", _seconds)
    return f" The cheapest of them to train: {named} ({least} per run; the slowest {most})."


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if value >= 10 else f"{value:.2g} s"


def _columns(analysis: Analysis) -> list[Column]:
    return [
        ("mean", number("mean")),
        ("may be the best", number("maybe_best_mean", lambda value: "yes" if value else "no")),
        ("p, adjusted", number("p_mean", p_value)),
        ("failed", k_of_n("failed", "judged")),
        ("may fail least", number("maybe_lowest_rate", lambda value: "yes" if value else "no")),
        ("p, adjusted ", number("p_rate", p_value)),
        ("recommended", number("recommended", lambda value: "yes" if value else "no")),
        ("seconds per run", number("run_seconds", lambda value: "–" if unknown(value) else _seconds(value))),
    ]


SECTION = Section(
    anchor="best-recipes",
    heading="Best recipes",
    question="Which recipes are best, and which are not told apart from the best?",
    sentences=sentences,
    tables=(
        TableSpec(
            "best_set",
            "Recipes that may be the best: no other is shown to be better (Welch's test of means, score test of rates, "
            "Bonferroni-adjusted)",
            _columns,
            folded=True,
        ),
    ),
    glossary=(
        (
            "may be the best",
            "A recipe that no other is shown to beat. The set of these holds the truly best one with 95 % confidence "
            "or more (Gupta's subset rule); it shrinks with more seeds. Where seed parts are crossed, runs count as "
            "the independent ones that they are worth. Where seeds are added by rule, the set of failure rates holds "
            "at every look, that of means at a single one.",
        ),
    ),
)
