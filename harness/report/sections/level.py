"""Which recipe performs best on average?"""

from __future__ import annotations

from harness.analysis import looks
from harness.analysis.analyze import Analysis
from harness.analysis.outcomes import any_apart
from harness.common.text import count_noun
from harness.report.claims import LEVEL, Sentence, Words
from harness.report.coverage import held, unfit
from harness.report.formatting import integer, p_value
from harness.report.section import FigureSpec, Section
from harness.report.table import Column, TableSpec, labels_of_arms, labels_of_pairs, number, with_interval
from harness.report.wording import main_axis_name, pair_count


def sentences(analysis: Analysis) -> list[str]:
    """Which pairs of cells differ in their means, and whether runs diverged."""
    return [*_pairs(analysis), *_diverged(analysis), *single_look(analysis)]


def single_look(analysis: Analysis) -> list[str]:
    """That means and spreads have intervals of fixed seeds, where seeds were added by rule."""
    if not looks.looked_at(analysis.study):
        return []
    return [
        "Seeds were added by rule: failure rates and their differences hold at every look, but means, spreads and "
        "their comparisons have the intervals and tests of a fixed number of seeds, which hold for a single look."
    ]


def _pairs(analysis: Analysis) -> list[Sentence]:
    table, words = analysis.pair_levels, Words("pair_levels")
    if not len(table) or not analysis.cells["scored"].sum():
        return []
    judged = bool(analysis.cells["judged"].sum())
    known, axis = int(table["ok_p"].notna().sum()), main_axis_name(analysis)
    text = (
        "No pair of cells has two differing scores of successful runs on both sides, so the means of these cannot be "
        "compared"
        if judged
        else "No pair of cells has two differing scores on both sides, so their means cannot be compared"
    )
    if known:
        pairs = words.count(known, "ok_p == ok_p", pair_count)
        of_good = " of the successful runs" if judged else ""
        significant = words.count(int((table["p_holm"] < LEVEL).sum()), "p_holm < 0.05")
        text = (
            f"Of {pairs} that differ{'s' if known == 1 else ''} only in {axis}, the mean score{of_good} "
            f"differs significantly in "
            f"{significant} ({_test(analysis)}, Holm-adjusted)"
        )
        if known < len(table):
            left = words.count(len(table) - known, "ok_p != ok_p", lambda n: f"{n} more")
            few = "successful runs" if judged else "runs"
            text += f"; {left}, where a side has fewer than two {few} or no score differs, cannot be tested"
    both = int(table["difference_low"].notna().sum())
    if both and judged:
        apart = int(((table["difference_low"] > 0) | (table["difference_high"] < 0)).sum())
        text += (
            "; with the failed runs, and the failures that so few runs may not have shown, the mean of all runs "
            f"differs in {words.count(apart, 'difference_low > 0 or difference_high < 0')} of "
            f"{words.count(both, 'difference_low == difference_low')} (95 %, each pair on its own)"
        )
    return [words.sentence(f"{text}.")]


def _test(analysis: Analysis) -> str:
    return "cluster t" if any_apart(analysis.study.runs) else "Welch"


def _diverged(analysis: Analysis) -> list[Sentence]:
    count, words = int(analysis.level["diverged"].sum()), Words("level")
    if not count:
        return []
    runs = words.summary("sum", count, "diverged", form=lambda n: f"{count_noun(n, 'run')} that diverged")
    return [
        words.sentence(
            f"{runs} {'has' if count == 1 else 'have'} no score: the means leave {'it' if count == 1 else 'them'} out; "
            f"in the median and other quantiles, P(better), the profile and the best of n "
            f"{'it counts' if count == 1 else 'they count'} as the worst."
        )
    ]


# --------------------------------------------------------------------------------------------------------------- tables


def _of_level(analysis: Analysis) -> list[Column]:
    return [
        ("n", number("scored", integer)),
        ("mean [95 %]", with_interval("mean")),
        ("successful", number("ok", integer)),
        ("mean of successful runs [95 %]", with_interval("ok_mean")),
        ("median [95 %]", with_interval("median")),
        ("interquartile mean [95 %]", with_interval("iqm")),
        ("10 % quantile [95 %]", with_interval("q10")),
        ("mean of the worst 10 %", number("worst_tenth")),
    ]


def _of_pooled_level(analysis: Analysis) -> list[Column]:
    return [
        ("n", number("scored", integer)),
        ("mean [95 %]", with_interval("mean")),
        ("median [95 %]", with_interval("median")),
        ("interquartile mean [95 %]", with_interval("iqm")),
    ]


def _of_pairs(analysis: Analysis) -> list[Column]:
    return [
        ("mean of successful runs", number("ok_mean")),
        ("reference", number("reference_ok_mean")),
        ("difference [95 %]", with_interval("ok_difference")),
        ("p", number("ok_p", p_value)),
        ("p, Holm", number("p_holm", p_value)),
        ("difference, all runs [95 %]", with_interval("difference")),
        ("P(better) [95 %]", with_interval("improvement")),
        ("Mann-Whitney p", number("mann_whitney", p_value)),
        ("Hedges' g [95 %]", with_interval("ok_effect")),
        ("permutation p", number("ok_permutation", p_value)),
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
        TableSpec("level", "How high each cell's scores are: all runs, the successful ones, and the worst", _of_level),
        TableSpec(
            "pooled_level",
            "The same pooled over the other axes",
            _of_pooled_level,
            labels_of_arms,
            folded=True,
        ),
        TableSpec(
            "pair_levels",
            "Mean scores, pair by pair: of the successful runs (Welch; “p, Holm” adjusts its p) and of all",
            _of_pairs,
            labels_of_pairs,
            folded=True,
        ),
    ),
    glossary=(
        (
            "mean [95 %]",
            "Of all scored runs: the failed and the successful, weighted by the rate of failing. Its interval is made "
            "of the rate's (Wilson) and that of the successful runs' mean, so it reaches down for failures that so few "
            "runs may not have shown yet; where it is not known which runs failed, it is Student's of all runs. It "
            "ends where the metric's scale does. "
            f"{held('mean')}",
        ),
        (
            "mean of successful runs [95 %]",
            f"Student's interval of the runs that did not fail: what a recipe reaches when it works. "
            f"{held('mean of successful runs')} For the mean of all runs Student's interval would not do: "
            f"{unfit('mean')}",
        ),
        (
            "median, 10 % quantile [95 %]",
            "Over all runs, a run that diverged as the worst; intervals between order statistics, which need no "
            f"distribution. −∞ or ∞: so few runs do not bound it. {held('median')}",
        ),
        (
            "interquartile mean [95 %]",
            f"Of the middle half of all runs; BCa bootstrap, from eight runs on. {held('interquartile mean')}",
        ),
        ("mean of the worst 10 %", "Conditional value at risk: of the worst tenth of the runs, at least of the worst."),
        (
            "P(better)",
            "The probability that a run of the one cell is better than one of the other; ties count half, and a run "
            f"that diverged is worse than all others. {held('P(better)')}",
        ),
    ),
)
