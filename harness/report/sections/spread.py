"""How far do the scores of a recipe spread over seeds, and what is that spread made of?"""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis.analyze import Analysis
from harness.common.text import count_noun
from harness.report.claims import LEVEL, Sentence, Words, row_at
from harness.report.coverage import held
from harness.report.formatting import Row, integer, p_value, percent, rate_of, score, unknown
from harness.report.section import FigureSpec, Section
from harness.report.table import Column, TableSpec, k_of_n, labels_of_pairs, number, with_interval

_MOST_NAMED = 4
_FEWEST_MIXED = 4  # scores, below which the variance lies between failed and successful runs by arithmetic


def sentences(analysis: Analysis) -> list[str]:
    """What the spread is made of: no cell where all fail is taken for stable."""
    return [*_all_failed(analysis), *_mixed(analysis), *_two_groups(analysis), *_crossed(analysis)]


def _crossed(analysis: Analysis) -> list[str]:
    """What is not given where runs are not independent."""
    if not analysis.crossed:
        return []
    return [
        "Parts of the seed are crossed, so runs are not independent: sds, their ratios and the dip test have no "
        "interval and no p there, and an sd is that of these parts alone."
    ]


def _all_failed(analysis: Analysis) -> list[Sentence]:
    cells, labels = analysis.cells, [cell.label for cell in analysis.study.cells]
    indices = list(cells.index[(cells["judged"] > 1) & (cells["failed"] == cells["judged"]).fillna(False)])
    if not indices:
        return []
    named = "; ".join(labels[index] for index in indices[:4]) + ("; …" if len(indices) > 4 else "")
    words = Words("cells")
    count = words.count(len(indices), "judged > 1 and failed == judged")
    of = words.count(len(cells), "True", lambda n: count_noun(n, "cell"))
    return [
        words.sentence(f"In {count} of {of} every run failed ({named}): a small sd there means failure, not stability.")
    ]


def _mixed(analysis: Analysis) -> list[Sentence]:
    table, labels = analysis.spread, [cell.label for cell in analysis.study.cells]
    mixed = table[(table["between"] > 0.5) & (table["failed"] > 0) & (table["scored"] >= _FEWEST_MIXED)]
    if not len(mixed):
        return []
    words, row = Words("spread"), row_at(table, mixed["sd"].idxmax())
    count = words.count(
        len(mixed), f"between > 0.5 and failed > 0 and scored >= {_FEWEST_MIXED}", lambda n: count_noun(n, "cell")
    )
    between = words.value(row, ["cell"], "between", percent)
    alone, where = "", f" at {labels[row['cell']]}" if len(labels) > 1 else ""
    if not unknown(row["ok_sd"]):
        alone = f"; the successful runs alone have sd {words.value(row, ['cell'], 'ok_sd', score)}"
    return [
        words.sentence(
            f"In {count} most of the variance lies between failed and successful runs ({between} of it{where}{alone})."
        )
    ]


def _two_groups(analysis: Analysis) -> list[Sentence]:
    """Which cells' scores have two modes, by Holm's adjustment over the cells tested."""
    table, labels, words = analysis.spread, [cell.label for cell in analysis.study.cells], Words("spread")
    shown = table[table["dip_p_holm"] < LEVEL]
    texts = []
    for row in shown.head(_MOST_NAMED).to_dict("records"):
        groups = [
            f"{words.value(row, ['cell'], f'{side}_runs', str)} near {words.value(row, ['cell'], side, score)}"
            for side in ("lower", "upper")
        ]
        texts.append(", ".join(groups) + (f" ({labels[row['cell']]})" if len(labels) > 1 else ""))
    if not texts:
        return []
    more = f"; and in {len(shown) - len(texts)} more cells" if len(shown) > len(texts) else ""
    return [words.sentence(f"Two groups of runs: {'; '.join(texts)}{more} (dip test, Holm-adjusted p < 0.05).")]


# --------------------------------------------------------------------------------------------------------------- tables


def _failed(row: Row) -> str:
    return "–" if unknown(row["failed"]) else f"{row['failed']}/{row['judged']}"


def _exact(row: Row) -> str:
    return "–" if unknown(row["exact_low"]) else f"[{100 * row['exact_low']:.0f}, {100 * row['exact_high']:.0f}]"


_TESTED: Sequence[Column] = (
    ("tested", k_of_n("tested", "finished")),
    ("test mean", number("test_mean")),
    ("test sd", number("test_sd")),
)


def _of_cells(analysis: Analysis) -> list[Column]:
    return [
        ("finished", lambda row: f"{row['finished']}/{row['planned']}"),
        ("failed", _failed),
        ("failure rate [95 %]", rate_of),
        ("exact [95 %]", _exact),
        ("shrunk [95 %]", with_interval("shrunk", percent)),
        ("near chance", number("near_chance", integer)),
        ("n", number("scored", integer)),
        *((name.replace("_", " "), number(name)) for name in ("mean", "sd", "min", "median", "max", "best_mean")),
        *(_TESTED if "tested" in analysis.cells else ()),
        ("crashed", number("crashed", integer)),
        ("missing", number("missing", integer)),
        *((("unreadable", number("unreadable", integer)),) if analysis.study.unreadable else ()),
    ]


def _of_spread(analysis: Analysis) -> list[Column]:
    return [
        ("n", number("scored", integer)),
        ("failed of n", number("failed", integer)),
        ("sd", number("sd")),
        ("sd of successful runs [95 %]", with_interval("ok_sd")),
        ("IQR", number("iqr")),
        ("MAD", number("mad")),
        ("between failed and ok", number("between", percent)),
        ("within ok", number("within_ok", percent)),
        ("within failed", number("within_failed", percent)),
        ("sd of failed runs", number("failed_sd")),
        ("dip p", number("dip_p", p_value)),
        ("dip p, Holm", number("dip_p_holm", p_value)),
    ]


def _of_pairs(analysis: Analysis) -> list[Column]:
    return [
        ("sd of successful runs", number("ok_sd")),
        ("reference", number("reference_ok_sd")),
        ("ratio [95 %]", with_interval("ratio")),
        ("p", number("p", p_value)),
        ("p, Holm", number("p_holm", p_value)),
        ("Levene p", number("levene", p_value)),
        ("Brown-Forsythe p", number("brown_forsythe", p_value)),
        ("permutation p", number("permutation", p_value)),
    ]


SECTION = Section(
    anchor="spread",
    heading="Spread",
    question="How far do scores spread over seeds, and what is the spread made of?",
    sentences=sentences,
    figure=FigureSpec(
        "scores.spread",
        "Each dot is one run, each box the middle half of a cell's runs (drawn from five scores on); whiskers reach "
        "the farthest run within 1.5 box heights. Crosses are failed runs, hollow squares runs near chance, triangles "
        "at the edge diverged runs, diamonds means with their 95 % interval, which leaves room for "
        "failures that so few runs may not have shown. n counts the scores, × the failures.",
    ),
    more_figures=(
        FigureSpec(
            "distributions.distributions",
            "Half-violins show the density of a cell's scores, each as high as the others, from twenty scores on; "
            "below them every run, failed ones as crosses, and the median as a bar. Two humps are two kinds of run.",
        ),
    ),
    tables=(
        TableSpec(
            "cells",
            "One row per cell: final scores, and failure rates with Wilson and Clopper-Pearson (exact) intervals and "
            "shrunk towards the other cells' (beta-binomial)",
            _of_cells,
            for_paper=(
                ("n", "mean", "sd", "min", "max", "failed", "failure rate"),
                "Final scores by cell: number of scored runs, mean, standard deviation, lowest and highest; failed "
                "runs and failure rate with its 95 % interval",
            ),
        ),
        TableSpec(
            "spread",
            "Spread of each cell's scores (Bonett's interval), the parts of its variance, and the dip test of one mode",
            _of_spread,
            folded=True,
        ),
        TableSpec(
            "pair_spreads",
            "Spread of the successful runs, pair by pair (Bonett's intervals put together, and p of the same method); "
            "beside it Levene's, Brown and Forsythe's and a permutation test",
            _of_pairs,
            labels_of_pairs,
            folded=True,
        ),
    ),
    glossary=(
        ("IQR, MAD", "Interquartile range; median absolute deviation from the median, unscaled."),
        (
            "sd of successful runs [95 %]",
            "Bonett's interval (2006), from four runs on; the sd of all runs, which failures decide, has none, and "
            "neither has one of runs whose seed parts are crossed. "
            f"{held('sd of successful runs')}",
        ),
        (
            "shrunk [95 %]",
            "The failure rate of a cell that borrows from the other cells: all rates are taken as drawn from one beta "
            "distribution, which is not known either. It helps where cells have few runs; it takes no notice of what "
            "their settings have in common.",
        ),
        (
            "dip p",
            "Hartigan's dip test: how likely so deep a gap is if the scores had one mode. From eight runs on.",
        ),
    ),
)
