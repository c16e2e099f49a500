"""Runs as rows of a study's table: judged against the majority, at the precision of the file or in counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from harness.common.errors import HarnessError
from harness.common.text import count_noun
from harness.records.importing import precision
from harness.records.importing.merging import Runs
from harness.records.importing.options import ImportOptions
from harness.records.importing.rows import ImportedRows
from harness.records.importing.text import parse_number

NEAR = 0.001  # a score this near to the majority, yet not at it, deserves a word


@dataclass(frozen=True)
class JudgedRuns:
    """The table of runs, `_seed` their place among the seeds, and how many failed by the file's precision alone."""

    table: pd.DataFrame
    by_precision: int
    example: str


def check_counts(examples: np.ndarray, rows: ImportedRows, score: np.ndarray, size: np.ndarray) -> str:
    """A word on scores times examples; raises HarnessError where a score is no share or `examples` no whole number."""
    wrong = examples[~np.isnan(examples) & ((examples < 1) | (examples != np.floor(examples)) | (examples > 2**53))]
    if len(wrong):
        raise HarnessError("--examples must be the number of dev examples, 1 or more", got=f"{wrong[0]:g}")
    outside = np.flatnonzero((score < 0) | (score > 1))
    if len(outside):
        raise HarnessError(
            "with --examples scores must be between 0 and 1: shares of right answers",
            got=f"{score[outside[0]]:g} in {rows.places[outside[0]]}",
            fix="Set --unit percent if they are in percent, or leave --examples out",
        )
    words = "Failing is judged in right answers: score × --examples, rounded"
    product = score * size
    # A score of d decimals, times N, is off a whole number by up to N/2 × 10^-d; float32 adds its own.
    places = np.array([precision.decimals(value) for value in score.tolist()])
    rounded = size * 0.5 * 10.0**-places * 1.001 + np.abs(product) * precision.FLOAT32 + 1e-6
    uneven = np.flatnonzero(np.abs(product - np.round(product)) > rounded)
    if not len(uneven):
        return f"{words}."
    cell = uneven[0]
    example = f"{score[cell]:.6g} × {size[cell]:.0f} = {product[cell]:.2f}"
    return f"{words}; that is no whole number for {count_noun(len(uneven), 'score')} ({example}): is --examples right?"


def judge(
    options: ImportOptions,
    runs: Runs,
    words: Sequence[str],
    majority: np.ndarray | None,  # [cells]
    examples: np.ndarray | None,  # [cells]
    half: np.ndarray,  # [rows] half the last decimal of the scores
) -> JudgedRuns:
    """One row a run that has a row in the files; what is measured stands with the finished ones alone."""
    done = runs.status == "finished"
    lost = done & runs.diverged
    score = np.where(done & ~lost, runs.numbers["score"], math.nan)
    nothing = np.full(len(score), math.nan)
    floor = nothing if majority is None else majority[runs.cell]
    count = nothing if examples is None else examples[runs.cell]
    right, at_majority = np.round(score * count), np.round(floor * count)
    slack = precision.slack(floor, half[runs.row])
    above = score - floor if options.higher_is_better else floor - score
    in_counts = ~np.isnan(at_majority)
    failed = lost | np.where(in_counts, right <= at_majority, above <= slack)
    judged = done & ~np.isnan(floor)
    # Written the same to the last digit but one needs no word; a number of another precision does.
    by_precision = np.flatnonzero(judged & ~lost & ~in_counts & (above > 1e-9 * np.abs(floor)) & (above <= slack))
    example = f"{score[by_precision[0]]:.12g} at {floor[by_precision[0]]:.12g}" if len(by_precision) else ""

    def where_done(values: np.ndarray) -> np.ndarray:
        return np.where(done, values, math.nan)

    columns: dict[str, Any] = {
        "trial": runs.trials,
        "cell": runs.cell,
        "_seed": runs.seed,
        "status": runs.status,
        "attempts": np.where(runs.status == "missing", 0, 1),
        "error": [words[row] if state == "crashed" else None for row, state in zip(runs.row, runs.status, strict=True)],
        "outcome": [("failed" if bad else "ok") if known else None for known, bad in zip(judged, failed, strict=True)],
        "reason": ["diverged" if is_lost else None for is_lost in lost],
        "metric": [options.metric if is_done else None for is_done in done],
        "final_score": score,
        "best_score": where_done(runs.numbers.get("best", nothing)),
        "majority_score": where_done(floor),
        "correct": right,
        "majority_correct": where_done(at_majority),
        "dev_examples": where_done(count),
        "final_train_loss": where_done(runs.numbers.get("loss", nothing)),
        "test_score": where_done(runs.numbers.get("test", nothing)),
    }
    table = pd.DataFrame(columns)
    for name in ("error", "outcome", "reason", "metric"):
        table[name] = table[name].astype(object)
    return JudgedRuns(table, len(by_precision), example)


def unseen(table: pd.DataFrame, cells: int, planned: Sequence[Any], levels: Sequence[Any]) -> pd.DataFrame:
    """The planned runs without a row."""
    position = {seed: index for index, seed in enumerate(levels)}
    wanted = np.array([position[seed] for seed in planned], dtype=np.int64)
    keys = (np.arange(cells)[:, None] * len(levels) + wanted).ravel()
    keys = np.setdiff1d(keys, table["cell"].to_numpy() * len(levels) + table["_seed"].to_numpy())
    cell, seed = keys // len(levels), keys % len(levels)
    names = [
        f"no row (cell {cell_number + 1}, seed {levels[seed_number]})"
        for cell_number, seed_number in zip(cell.tolist(), seed.tolist(), strict=True)
    ]
    empty = pd.DataFrame({"trial": names, "cell": cell, "_seed": seed, "status": "missing", "attempts": 0})
    for name in table.columns.difference(empty.columns):
        empty[name] = pd.Series(
            [None if table[name].dtype == object else math.nan] * len(empty), dtype=table[name].dtype
        )
    return empty[list(table.columns)]


def notes_on_judging(
    options: ImportOptions, judged: JudgedRuns, majority: np.ndarray | None, counting: str | None
) -> list[str]:
    """Sentences on how failing was judged."""
    if majority is None:
        return ["No majority is given, so no run can be called failed."]
    typed = parse_number(str(options.majority))
    source = f"the column {options.majority}"
    if typed is not None:
        level = float(majority[0])  # in the unit of the scores, which may not be that of the option
        source = f"{options.majority}, as given" if typed == level else f"{level:g} (given as {options.majority})"
    notes = [f"The majority classifier's score is {source}."]
    lacking = int(np.isnan(majority).sum())
    if lacking:
        notes.append(f"It is not known for {count_noun(lacking, 'cell')}, where no run can be called failed.")
    if counting:
        return [*notes, counting]
    if judged.by_precision:
        scores = "score equals" if judged.by_precision == 1 else "scores equal"
        verb = "counts" if judged.by_precision == 1 else "count"
        notes.append(
            f"{judged.by_precision} {scores} the majority at the precision of the file's numbers ({judged.example}) "
            f"and {verb} as failed; --examples N compares counts."
        )
    table = judged.table
    distance = (table["final_score"] - table["majority_score"]).abs()
    near = int(((distance <= NEAR + 1e-9) & (table["outcome"] == "ok")).sum())
    if near:
        scores = "score lies" if near == 1 else "scores lie"
        notes.append(
            f"{near} {scores} within {NEAR} of the majority without being at it; --examples N compares counts."
        )
    return notes
