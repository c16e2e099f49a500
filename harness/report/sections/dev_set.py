"""How much of the spread is dev-set sampling noise, and which differences exceed it?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from harness.analysis import example_scores
from harness.analysis.analyze import Analysis
from harness.analysis.verdicts import of_scripts
from harness.records.study import numbers
from harness.report.claims import Claim, Sentence, Words, followed_by, row_at
from harness.report.formatting import Row, integer, interval, percent, points, unknown
from harness.report.section import FigureSpec, Section
from harness.report.table import Column, TableSpec, k_of_n, labels_of_pairs, number, with_interval
from harness.report.wording import class_names, main_arms, main_axis_name, pair_count
from harness.stats import dev_noise
from harness.stats.estimate import Estimate

_NORMAL_95 = 1.96
_ROUNDING = 1e-9  # of standard deviations: of cells that differ by less the first is taken


def sampling(analysis: Analysis) -> pd.DataFrame:
    """The sampling error of one score on the (smallest) dev set: one row; none for metrics that are no mean of answers.

    Columns: `examples`, `accuracy` (the mean final score, at which the error is taken), `error` (binomial standard
    deviation of one accuracy; of answers that score between 0 and 1 the mean over the cells of their standard error),
    `apart` (difference of two single runs that 95 % asks for, were their errors independent); as fractions.
    """
    floor = analysis.noise_floor
    known = floor[(floor["known_from"] != "")]
    metrics = set(analysis.runs["metric"].dropna())
    shares = {"accuracy", "exact_match", "squad_exact"}
    partly = bool(metrics) and metrics <= set(example_scores.METRICS) - shares
    counted = (metrics <= shares and len(metrics) == 1) or (known["known_from"] == "counts").all()
    if not len(known) or not (counted or partly):
        return pd.DataFrame()
    scored = numbers(analysis.runs[analysis.runs["status"] == "finished"], "final_score").dropna()
    examples, near = int(known["examples"].min()), float(scored.mean())
    error = float(known["example_bootstrap"].mean() if partly else np.sqrt(near * (1 - near) / examples))
    apart = _NORMAL_95 * 2**0.5 * error
    return pd.DataFrame([{"examples": examples, "accuracy": near, "error": error, "apart": apart}])


def _losses(analysis: Analysis) -> list[Sentence]:
    """How the training losses of the two main arms compare; none where they are not known."""
    pair = main_arms(analysis)
    pair = pair if len(pair) != 2 else pair.dropna(subset=["loss"])
    if len(pair) != 2:
        return []
    rows, words = pair.to_dict("records"), Words("arms")
    low, high = sorted(rows, key=lambda row: float(row["loss"]))
    verdict = ""
    if min(row["finished"] for row in rows) > 1:
        verdict = f" (their ranges {'do not ' if low['loss_max'] < high['loss_min'] else ''}overlap)"
    means = (f"{words.value(row, ['axis', 'value'], 'loss', '{:.3f}'.format)} {row['phrase']}" for row in rows)
    return [words.sentence(f"mean training loss in the last epoch {', '.join(means)}{verdict}.")]


def dev_share(analysis: Analysis) -> pd.DataFrame:
    """The dev set's share in the variance over seeds of all cells without a failed run, weighted by variance: one row.

    Columns: `cells`, `runs`, `share` with `_low`, `_high` (`dev_noise.pooled_share`), `smallest` and `largest` of a
    single cell.
    """
    table = _without_failures(analysis)
    if not len(table):
        return pd.DataFrame()
    share, low, high = dev_noise.pooled_share(
        table["observed"].to_numpy(), table["training_variance"].to_numpy(), table["runs"].to_numpy(dtype=int)
    )
    row = {"cells": len(table), "runs": int(table["runs"].sum()), "share": share, "share_low": low, "share_high": high}
    return pd.DataFrame([row | {"smallest": table["dev_share"].min(), "largest": table["dev_share"].max()}])


def in_short(analysis: Analysis) -> str:
    """The dev set's share in the variance over seeds; a verdict only where its interval lies on one side of a half."""
    table = dev_share(analysis)
    if not len(table):
        return ""
    row = table.iloc[0]
    claim = Claim(
        quantity="share",
        subject="dev set in the variance over seeds",
        estimate=Estimate(*(float(row[f"share{end}"]) for end in ("", "_low", "_high"))),
        n=int(row["runs"]),
        table="dev_share",
        row=(),
        column="share",
    )
    words, sizes = Words("dev_share"), _without_failures(analysis)["examples"].unique()
    of_floor = "runs > 2 and dev_share == dev_share"
    examples = ""
    if len(sizes) == 1:
        examples = f" of {words.summary('min', int(sizes[0]), 'examples', of_floor, str, 'noise_floor')} examples"
    where, weighted = "the cell where no run failed", ""
    if row["cells"] > 1:
        of_share = row_at(table, 0)
        where = f"the {words.value(of_share, [], 'cells', integer)} cells where no run failed"
        ends = " to ".join(words.value(of_share, [], name, percent) for name in ("smallest", "largest"))
        low, _, high = ends.partition(" to ")
        weighted = f" (weighted by variance; {f'single cells {ends}' if low != high else f'every cell {low}'})"
    verdict = ""
    if claim.estimate.low > 0.5:
        verdict = ": most of the spread is dev-set sampling noise"
    elif claim.estimate.high < 0.5:
        verdict = ": most of the spread comes from training"
    bounds = interval(row.to_dict(), "share", percent)
    return Sentence(
        f"in {where} the finite dev set{examples} accounts for {bounds} of the variance over seeds{weighted}{verdict}.",
        claim,
        *words.claims,
    )


def _without_failures(analysis: Analysis) -> pd.DataFrame:
    """The cells whose spread has something to tell of training: answers kept, some spread, and no failed run."""
    floor = analysis.noise_floor
    clean = (analysis.cells["failed"].fillna(0) == 0).to_numpy()
    clean &= ~floor["cell"].isin(analysis.crossed).to_numpy()  # their runs are not independent
    return floor[clean & floor["dev_share"].notna().to_numpy() & (floor["runs"] > 2)]


def sentences(analysis: Analysis) -> list[str]:
    """What the dev set can and cannot tell; empty before anything has a score."""
    share = in_short(analysis)
    return [
        *([share] if share else []),
        *_error_of_one(analysis),
        *_not_told_apart(analysis),
        *_widest(analysis),
        *_pairs(analysis),
        *_losses(analysis),
    ]


def _unknown_error(analysis: Analysis) -> str:
    """Why the sampling error of a score is not given: its examples are not known, or its metric has none."""
    study = analysis.study
    if not of_scripts(study) or numbers(analysis.runs, "dev_examples").notna().any():
        return "The sampling error of this metric on a finite dev set has no simple formula and is not given."
    ours = " (a script's `predictions` would tell)" if study.sweeps else ""
    return (
        f"Which dev examples a run answers rightly is not known{ours}, so the sampling error of a score is not given."
    )


def _error_of_one(analysis: Analysis) -> list[str]:
    table, words = sampling(analysis), Words("sampling")
    if not len(table):
        return [_unknown_error(analysis)] if analysis.cells["scored"].sum() else []
    row = row_at(table, 0)
    compared = " and are compared pair by pair below" if analysis.pair_noise["difference_low"].notna().any() else ""
    name = example_scores.score_name(analysis.runs)
    plural = "accuracies" if name == "accuracy" else "scores"
    return [
        words.sentence(
            f"a single {name} near {words.value(row, [], 'accuracy', '{:.2f}'.format)} on "
            f"{words.value(row, [], 'examples', integer)} dev examples has a sampling error (one standard deviation) "
            f"of {words.value(row, [], 'error', points)}. Of two single runs with independent errors, {plural} "
            f"{words.value(row, [], 'apart', points)} or more apart differ at 95 % confidence; this holds neither for "
            f"means over seeds nor for runs on the same examples, which share part of the error{compared}."
        )
    ]


def _not_told_apart(analysis: Analysis) -> list[str]:
    if not (analysis.noise_floor["known_from"] == "counts").any():
        return []
    return [
        "Only scores and numbers of examples are known, not single answers, so training noise and the choice of dev "
        "examples cannot be separated."
    ]


def _widest(analysis: Analysis) -> list[str]:
    """What an infinite dev set would leave of the widest spread without a failed run."""
    texts, words, key = list[str](), Words("noise_floor"), ["cell"]
    clean = _without_failures(analysis)
    widest = clean[clean["observed"] > clean["observed"].max() - _ROUNDING]
    for row in widest.head(1).to_dict("records"):
        name = example_scores.score_name(analysis.runs)
        values = "accuracies have" if name == "accuracy" else f"the {name} has"
        bounds = f"[{100 * row['training_low']:.1f}, {100 * row['training_high']:.1f}]"
        training = words.value(row, key, "training", followed_by(points, bounds))
        texts.append(
            words.sentence(
                f"At {analysis.study.cells[row['cell']].label}, the cell with the widest spread and no failed run, "
                f"{values} a standard deviation of {words.value(row, key, 'observed', points)} over "
                f"{words.value(row, key, 'runs', str)} seeds; with an infinite dev set it would be {training}."
                f"{_agreement(row, words)}"
            )
        )
    return texts


def _agreement(row: Row, words: Words) -> str:
    """How far two runs of a cell agree, as a sentence behind another; nothing where that is not known."""

    def share(column: str) -> str:
        return words.value(row, ["cell"], column, lambda value: percent(value, 1))

    if not unknown(row["overlap"]):
        overlap = words.value(row, ["cell"], "overlap", "{:.2f}".format)
        return (
            f" Two runs give the same answer to {share('consistency')} of the questions; the F1 of their answers' "
            f"characters is {overlap} on average."
        )
    if not unknown(row["alike"]):
        return f" Two runs are both right or both wrong on {share('alike')} of the examples."
    return "" if unknown(row["disagreement"]) else f" Two runs disagree on {share('disagreement')} of the examples."


def _pairs(analysis: Analysis) -> list[str]:
    table = analysis.pair_noise.dropna(subset=["difference_low"])
    if not len(table):
        return []
    sure, words = (table["difference_low"] > 0) | (table["difference_high"] < 0), Words("pair_noise")
    apart = words.count(int(sure.sum()), "difference_low > 0 or difference_high < 0")
    s = "s" if len(table) == 1 else ""
    pairs = words.count(len(table), "difference_low == difference_low", pair_count)
    name = example_scores.score_name(analysis.runs)
    return [
        words.sentence(
            f"Accounting for the choice of dev examples, {apart} of {pairs} that differ{s} only in "
            f"{main_axis_name(analysis)} differ{s} in {name} (95 %, each pair on its own)."
        )
    ]


# --------------------------------------------------------------------------------------------------------------- tables


def _in_points(name: str) -> Callable[[Row], str]:
    return lambda row: "–" if unknown(row[name]) else f"{100 * row[name]:.2f}"


def _training(row: Row) -> str:
    if unknown(row["training"]):
        return "–"
    if unknown(row["training_low"]):
        return f"{100 * row['training']:.2f}"
    return f"{100 * row['training']:.2f} [{100 * row['training_low']:.2f}, {100 * row['training_high']:.2f}]"


def _of_noise(analysis: Analysis) -> list[Column]:
    return [
        ("runs", number("runs", lambda value: integer(value) if value else "–")),
        ("examples", number("examples", integer)),
        (f"mean {example_scores.score_name(analysis.runs)}".replace("mean accuracy", "accuracy"), number("accuracy")),
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
        ("F1 of two answers", number("overlap")),
        ("right or wrong alike", number("alike", lambda value: percent(value, 1))),
        ("JS divergence", number("jensen_shannon")),
        ("majority-vote accuracy", number("voted")),
    ]


def _of_pairs(analysis: Analysis) -> list[Column]:
    return [(f"difference in {example_scores.score_name(analysis.runs)} [95 %]", with_interval("difference"))]


def _of_flips(analysis: Analysis) -> list[Column]:
    names = class_names(analysis, analysis.confusion["label"].nunique() if len(analysis.confusion) else 0)
    return [
        ("dev example", number("example", integer)),
        ("label", lambda row: names[int(row["label"])]),
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
        "Dots are the spread of the scores over seeds; the bar is the error that a dev set of this size gives any "
        "single score; diamonds are the spread that an infinite dev set would leave, with an interval. A spread "
        "below the bar does not mean stability: the runs share their examples.",
    ),
    tables=(
        TableSpec(
            "noise_floor",
            "Spread and errors of the score in percentage points, and agreement between the runs of a cell",
            _of_noise,
        ),
        TableSpec(
            "dev_share",
            "The dev set's share in the variance over seeds of all cells without a failed run, weighted by variance",
            lambda analysis: [
                ("cells", number("cells", integer)),
                ("runs", number("runs", integer)),
                ("share [95 %]", with_interval("share", percent)),
                ("smallest of a cell", number("smallest", percent)),
                ("largest of a cell", number("largest", percent)),
            ],
            lambda analysis: [],
            folded=True,
            data=dev_share,
        ),
        TableSpec(
            "sampling",
            "Sampling error of a single score on this many dev examples, in percentage points",
            lambda analysis: [
                ("examples", number("examples", integer)),
                ("at a score of", number("accuracy")),
                ("standard deviation", _in_points("error")),
                ("two single runs differ from", _in_points("apart")),
            ],
            lambda analysis: [],
            folded=True,
            data=sampling,
        ),
        TableSpec(
            "pair_noise",
            "Scores, pair by pair: the interval of means over seeds, widened for the choice of dev examples",
            _of_pairs,
            labels_of_pairs,
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
            "Jensen-Shannon divergence of their probabilities in nats (of very many runs, over 5,000 of the pairs).",
        ),
    ),
)
