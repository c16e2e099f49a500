"""Which recipe performs best on average?"""

from __future__ import annotations

from harness.analysis.analyze import Analysis
from harness.report.formatting import integer, p_value
from harness.report.section import FigureSpec, Section
from harness.report.table import Column, TableSpec, labels_of_arms, labels_of_pairs, number, with_interval
from harness.report.wording import main_axis_name, pair_count


def sentences(analysis: Analysis) -> list[str]:
    """Which pairs of cells differ in their means after Holm's adjustment."""
    table = analysis.pair_levels
    if not len(table):
        return []
    sure = table[table["p_holm"] < 0.05]
    known = int(table["welch"].notna().sum())
    if not known:
        return ["No pair of cells has two differing scores on both sides, so their means cannot be compared."]
    return [
        f"Of {pair_count(known)} that differ only in {main_axis_name(analysis)}, the mean score differs significantly "
        f"in {len(sure)} (Welch, Holm-adjusted)."
    ]


# --------------------------------------------------------------------------------------------------------------- tables


def _of_level(analysis: Analysis) -> list[Column]:
    return [
        ("n", number("scored", integer)),
        ("mean [95 %]", with_interval("mean")),
        ("median [95 %]", with_interval("median")),
        ("interquartile mean [95 %]", with_interval("iqm")),
    ]


def _of_pairs(analysis: Analysis) -> list[Column]:
    return [
        ("mean", number("mean")),
        ("reference", number("reference_mean")),
        ("difference [95 %]", with_interval("difference")),
        ("P(better) [95 %]", with_interval("improvement")),
        ("Hedges' g [95 %]", with_interval("effect")),
        ("Welch p", number("welch", p_value)),
        ("Mann-Whitney p", number("mann_whitney", p_value)),
        ("permutation p", number("permutation", p_value)),
        ("p, Holm", number("p_holm", p_value)),
    ]


SECTION = Section(
    anchor="level",
    heading="Mean performance",
    question="Which recipe performs best on average?",
    sentences=sentences,
    figure=FigureSpec(
        "scores.performance_profile",
        "The share of runs whose score is better than τ, with a pointwise 95 % band: a higher curve is better at "
        "that score; where curves cross, the order depends on the score required.",
    ),
    tables=(
        TableSpec("level", "Mean, median and interquartile mean of each cell's scores (BCa bootstrap)", _of_level),
        TableSpec(
            "pooled_level",
            "The same pooled over the other axes (bootstrap within cells)",
            _of_level,
            labels_of_arms,
            folded=True,
        ),
        TableSpec(
            "pair_levels",
            "Mean scores, pair by pair; “p, Holm” adjusts Welch's p",
            _of_pairs,
            labels_of_pairs,
            folded=True,
        ),
    ),
    glossary=(
        (
            "P(better)",
            "The probability that a run of the one cell is better than one of the other; ties count half.",
        ),
    ),
)
