"""How much of the spread is dev-set sampling noise, and which differences exceed it?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.analysis.analyze import Analysis
from harness.common.text import count_noun
from harness.records.study import numbers
from harness.report.formatting import Row, integer, percent, points, unknown
from harness.report.section import FigureSpec, Section
from harness.report.table import Column, TableSpec, k_of_n, labels_of_pairs, number, with_interval
from harness.report.wording import capitalized, main_arms, main_axis_name, second_arm

_NORMAL_95 = 1.96


@dataclass(frozen=True)
class Sampling:
    """What a finite dev set allows to tell; accuracies as fractions."""

    examples: int
    near: float  # the mean final accuracy, at which the error is taken
    error: float  # binomial standard deviation of one accuracy
    needed: float  # difference of two single runs that 95 % asks for, were their errors independent
    lowest: float  # cell means
    highest: float

    @property
    def tells(self) -> bool:
        """Whether the largest difference between cell means is beyond what two single runs differ by by chance."""
        return self.highest - self.lowest >= self.needed


def sampling(analysis: Analysis) -> Sampling | None:
    """The sampling error of one accuracy on the (smallest) dev set; None for other metrics and without scores."""
    floor = analysis.noise_floor
    known = floor[(floor["known_from"] != "")]
    metrics = set(analysis.runs["metric"].dropna())
    if not len(known) or not (metrics == {"accuracy"} or (known["known_from"] == "counts").all()):
        return None
    scored = numbers(analysis.runs[analysis.runs["status"] == "finished"], "final_score").dropna()
    examples, near = int(known["examples"].min()), float(scored.mean())
    error = float(np.sqrt(near * (1 - near) / examples))
    means = analysis.cells["mean"].dropna()
    return Sampling(examples, near, error, _NORMAL_95 * 2**0.5 * error, float(means.min()), float(means.max()))


def losses(analysis: Analysis) -> str:
    """How the training losses of the two main arms compare; empty where they are not known."""
    pair = main_arms(analysis).dropna(subset=["loss"])
    if len(pair) != 2:
        return ""
    first, second = (row for _, row in pair.iterrows())
    low, high = (first, second) if first["loss"] < second["loss"] else (second, first)
    apart = low["loss_max"] < high["loss_min"]
    verdict = "no two runs overlap" if apart else "single runs overlap"
    return (
        f"mean training loss in the last epoch {first['loss']:.3f} {first['phrase']}, "
        f"{second['loss']:.3f} {second_arm(second)} ({verdict})"
    )


def in_short(analysis: Analysis) -> str:
    """The dev set's share in the variance over seeds, for the opening; empty where it is not known."""
    table = _without_failures(analysis)
    if not len(table):
        return ""
    share, sizes = float(table["dev_share"].median()), table["examples"].unique()
    examples = f" of {sizes[0]} examples" if len(sizes) == 1 else ""
    where = "cells where no run failed" if len(table) > 1 else "cell where no run failed"
    return (
        f"in the {len(table) if len(table) > 1 else ''} {where} ".replace("  ", " ")
        + f"the finite dev set{examples} accounts for {percent(share)} of the variance over seeds"
        + (" (median)" if len(table) > 1 else "")
        + (": most of the remaining spread is dev-set sampling noise" if share > 0.5 else "")
        + "."
    )


def _without_failures(analysis: Analysis) -> pd.DataFrame:
    """The cells whose spread has something to tell of training: answers kept, some spread, and no failed run."""
    floor = analysis.noise_floor
    clean = (analysis.cells["failed"].fillna(0) == 0).to_numpy()
    return floor[clean & floor["dev_share"].notna().to_numpy() & (floor["runs"] > 2)]


def sentences(analysis: Analysis) -> list[str]:
    """What the dev set can and cannot tell; empty before anything has a score."""
    losses_apart = losses(analysis)
    return [
        *_error_of_one(analysis),
        *_not_told_apart(analysis),
        *_widest(analysis),
        *_pairs(analysis),
        *([f"{capitalized(losses_apart)}."] if losses_apart else []),
    ]


def _error_of_one(analysis: Analysis) -> list[str]:
    sample = sampling(analysis)
    if sample is None:
        unknown_error = "The sampling error of this metric on a finite dev set has no simple formula and is not given."
        return [unknown_error] if analysis.cells["scored"].sum() else []
    texts = [
        f"A single accuracy near {sample.near:.2f} on {sample.examples} dev examples has a sampling error (one "
        f"standard "
        f"deviation) of {points(sample.error)}; two single runs must differ by about {points(sample.needed)} to be "
        "distinguishable at 95 % confidence, if their errors are independent (runs share their dev examples and so "
        "part of the error; averaging over seeds reduces training noise, not the error from the choice of examples)."
    ]
    gap = sample.highest - sample.lowest
    if gap > 0 and sample.tells:
        texts.append(f"The largest difference between cell means is {points(gap)}, more than that.")
    elif gap > 0:
        texts.append(
            f"The largest difference between cell means is {points(gap)}, less than that: {sample.examples} examples "
            f"cannot distinguish {sample.lowest:.3f} from {sample.highest:.3f}, and the means do not rank the recipes."
        )
    return texts


def _not_told_apart(analysis: Analysis) -> list[str]:
    if not (analysis.noise_floor["known_from"] == "counts").any():
        return []
    return [
        "Only scores and numbers of examples are known, not single answers, so training noise and the choice of dev "
        "examples cannot be separated."
    ]


def _widest(analysis: Analysis) -> list[str]:
    """What an infinite dev set would leave of the widest spread without a failed run."""
    texts = []
    for row in _without_failures(analysis).nlargest(1, "observed").to_dict("records"):
        low, high = (100 * row[f"training_{end}"] for end in ("low", "high"))
        texts.append(
            f"At {analysis.study.cells[row['cell']].label}, the cell with the widest spread and no failed run, "
            f"accuracies have a standard deviation of {points(row['observed'])} over {row['runs']} seeds; with an "
            f"infinite dev set it would be {points(row['training'])} [{low:.1f}, {high:.1f}]. Two runs disagree on "
            f"{percent(row['disagreement'], 1)} of the examples."
        )
    return texts


def _pairs(analysis: Analysis) -> list[str]:
    table = analysis.pair_noise.dropna(subset=["difference_low"])
    if not len(table):
        return []
    sure = (table["difference_low"] > 0) | (table["difference_high"] < 0)
    return [
        f"Accounting for the choice of dev examples, {int(sure.sum())} of {count_noun(len(table), 'pair')} of cells "
        f"that differ only in {main_axis_name(analysis)} differ in accuracy (95 %, each pair on its own)."
    ]


# --------------------------------------------------------------------------------------------------------------- tables


def _in_points(name: str) -> Callable[[Row], str]:
    return lambda row: "–" if unknown(row[name]) else f"{100 * row[name]:.2f}"


def _training(row: Row) -> str:
    if unknown(row["training"]):
        return "–"
    return f"{100 * row['training']:.2f} [{100 * row['training_low']:.2f}, {100 * row['training_high']:.2f}]"


def _of_noise(analysis: Analysis) -> list[Column]:
    return [
        ("runs", number("runs", lambda value: integer(value) if value else "–")),
        ("examples", number("examples", integer)),
        ("accuracy", number("accuracy")),
        ("sd over seeds", _in_points("observed")),
        ("binomial error", _in_points("binomial")),
        ("bootstrap error", _in_points("example_bootstrap")),
        ("training noise alone [95 %]", _training),
        ("dev-set share", number("dev_share", percent)),
        ("error of the mean", _in_points("mean_error")),
        ("due to seeds", _in_points("seed_error")),
        ("due to examples", _in_points("example_error")),
        ("Fleiss κ", number("fleiss_kappa")),
        ("consistency", number("consistency", lambda value: percent(value, 1))),
        ("disagreement", number("disagreement", lambda value: percent(value, 1))),
        ("JS divergence", number("jensen_shannon")),
        ("majority-vote accuracy", number("voted")),
    ]


def _labels_of_pairs(analysis: Analysis) -> list[Column]:
    return [*labels_of_pairs(analysis), ("seeds", lambda row: row["seeds"])]


def _of_pairs(analysis: Analysis) -> list[Column]:
    return [("difference in accuracy [95 %]", with_interval("difference"))]


def _of_flips(analysis: Analysis) -> list[Column]:
    return [
        ("dev example", number("example", integer)),
        ("label", number("label", integer)),
        ("right", k_of_n("right", "runs")),
        ("churn", number("churn", percent)),
    ]


SECTION = Section(
    anchor="noise",
    heading="Dev-set sampling noise",
    question="How much of the spread is dev-set sampling noise, and which differences exceed it?",
    sentences=sentences,
    figure=FigureSpec(
        "variance.noise_floor",
        "Dots are the spread of the accuracies over seeds; the bar is the error that a dev set of this size gives any "
        "single accuracy; diamonds are the spread that an infinite dev set would leave, with an interval. A spread "
        "below the bar does not mean stability: the runs share their examples.",
    ),
    tables=(
        TableSpec(
            "noise_floor",
            "Spread and errors of the accuracy in percentage points, and agreement between the runs of a cell",
            _of_noise,
        ),
        TableSpec(
            "pair_noise",
            "Accuracy, pair by pair, with seeds and dev examples resampled together (multi-bootstrap)",
            _of_pairs,
            _labels_of_pairs,
            folded=True,
        ),
        TableSpec(
            "flips",
            "Dev examples that flip most: churn is how often two runs of a cell disagree (examples counted from 0)",
            _of_flips,
            lambda analysis: [],
            folded=True,
        ),
    ),
    glossary=(
        (
            "κ, consistency, disagreement, JS divergence",
            "How far the runs of a cell agree on the dev examples: Fleiss' κ of the classes (1: always), the share on "
            "which two runs agree (consistency: Bui, Savova and Wang 2025) and that on which they differ, and the "
            "Jensen-Shannon divergence of their probabilities in nats (of very many runs, over 20,000 of the pairs).",
        ),
    ),
)
