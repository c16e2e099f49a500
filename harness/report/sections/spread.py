"""How far do the scores of a recipe spread over seeds, and what is that spread made of?"""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis.analyze import Analysis
from harness.common.text import count_noun
from harness.report.formatting import Row, integer, p_value, percent, rate, score, unknown
from harness.report.section import FigureSpec, Section
from harness.report.table import Column, TableSpec, k_of_n, labels_of_pairs, number, with_interval


def sentences(analysis: Analysis) -> list[str]:
    """What the spread is made of: no cell where all fail is taken for stable."""
    return [*_all_failed(analysis), *_mixed(analysis)]


def _all_failed(analysis: Analysis) -> list[str]:
    cells, labels = analysis.cells, [cell.label for cell in analysis.study.cells]
    indices = list(cells.index[(cells["judged"] > 1) & (cells["failed"] == cells["judged"]).fillna(False)])
    if not indices:
        return []
    named = "; ".join(labels[index] for index in indices[:4]) + ("; …" if len(indices) > 4 else "")
    return [
        f"In {len(indices)} of {count_noun(len(cells), 'cell')} every run failed ({named}): a small sd there "
        "means failure, not stability."
    ]


def _mixed(analysis: Analysis) -> list[str]:
    table, labels = analysis.spread, [cell.label for cell in analysis.study.cells]
    mixed = table[(table["between"] > 0.5) & (table["failed"] > 0)]
    if not len(mixed):
        return []
    widest = mixed["sd"].idxmax()
    ok = table["ok_sd"][widest]
    alone = "" if unknown(ok) else f"; the successful runs alone have sd {score(ok)}"
    return [
        f"In {count_noun(len(mixed), 'cell')} most of the variance lies between failed and "
        f"successful runs ({percent(table['between'][widest])} of it at {labels[widest]}{alone})."
    ]


# --------------------------------------------------------------------------------------------------------------- tables


def _failed(row: Row) -> str:
    return "–" if unknown(row["failed"]) else f"{row['failed']}/{row['judged']}"


def _rate(row: Row) -> str:
    return "unknown" if unknown(row["failed"]) else rate(row["failed"], row["judged"])


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
        ("failure rate [95 %]", _rate),
        ("exact [95 %]", _exact),
        ("near chance", number("near_chance", integer)),
        ("n", number("scored", integer)),
        *((name.replace("_", " "), number(name)) for name in ("mean", "sd", "min", "median", "max", "best_mean")),
        *(_TESTED if "tested" in analysis.cells else ()),
        ("crashed", number("crashed", integer)),
        ("missing", number("missing", integer)),
    ]


def _of_spread(analysis: Analysis) -> list[Column]:
    return [
        ("n", number("scored", integer)),
        ("failed of n", number("failed", integer)),
        ("sd [95 %]", with_interval("sd")),
        ("IQR", number("iqr")),
        ("MAD", number("mad")),
        ("between failed and ok", number("between", percent)),
        ("within ok", number("within_ok", percent)),
        ("within failed", number("within_failed", percent)),
        ("sd of ok runs", number("ok_sd")),
        ("sd of failed runs", number("failed_sd")),
    ]


def _of_pairs(analysis: Analysis) -> list[Column]:
    return [
        ("sd", number("sd")),
        ("reference", number("reference_sd")),
        ("ratio [95 %]", with_interval("ratio")),
        ("Levene p", number("levene", p_value)),
        ("Brown-Forsythe p", number("brown_forsythe", p_value)),
        ("permutation p", number("permutation", p_value)),
        ("p, Holm", number("p_holm", p_value)),
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
        "at the edge diverged runs, diamonds means with their 95 % interval. n counts the scores, × the failures.",
    ),
    tables=(
        TableSpec(
            "cells",
            "One row per cell: final scores, and failure rates with Wilson and Clopper-Pearson (exact) intervals",
            _of_cells,
        ),
        TableSpec(
            "spread",
            "Spread of each cell's scores (BCa bootstrap) and the parts of its variance",
            _of_spread,
            folded=True,
        ),
        TableSpec(
            "pair_spreads",
            "Spread, pair by pair; “p, Holm” adjusts Brown and Forsythe's p (Levene's, about the mean, rejects too "
            "often "
            "where scores are skewed)",
            _of_pairs,
            labels_of_pairs,
            folded=True,
        ),
    ),
    glossary=(("IQR, MAD", "Interquartile range; median absolute deviation from the median, unscaled."),),
)
