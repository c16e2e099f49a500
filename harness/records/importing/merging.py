"""Several rows of one seed become one run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.common.errors import HarnessError
from harness.common.text import count_noun, name_cell
from harness.records.importing.options import AGGREGATIONS
from harness.records.importing.rows import ImportedRows
from harness.records.importing.text import quoted
from harness.records.study import Axes


@dataclass(frozen=True)
class RowFacts:
    """What is known of each of the rows [N] before they are merged.

    `unusable` is a score that is written but NaN or infinite, `empty` none at all; `numbers` has the score (NaN for
    both) and the best, test and loss columns.
    """

    cell: np.ndarray  # [N]
    seed: np.ndarray  # [N] its place among the seeds
    status: np.ndarray  # [N] finished, crashed, missing
    empty: np.ndarray  # [N] bool
    unusable: np.ndarray  # [N] bool
    numbers: dict[str, np.ndarray]


@dataclass(frozen=True)
class Runs:
    """The rows merged to runs, sorted by cell and seed, R of them; `passed_over` rows had no score beside others."""

    row: np.ndarray  # [R] the row that stands for the run
    cell: np.ndarray  # [R]
    seed: np.ndarray  # [R] its place among the seeds
    trials: list[str]
    status: np.ndarray  # [R]
    diverged: np.ndarray  # [R] bool
    numbers: dict[str, np.ndarray]  # [R] score, best, test, loss
    members: list[np.ndarray]  # [R] the rows of each run
    of_rows: dict[str, np.ndarray]  # [N] the same of every row
    lacking: int  # finished runs without a usable score
    passed_over: int


def merge(
    rows: ImportedRows,
    facts: RowFacts,
    seed_column: str,
    number_of_seeds: int,
    axes: Sequence[Axes],
    aggregate: str | None,
    nan: str | None,
    metric: str,
) -> Runs:
    """Merge the rows of each run, and judge scores that are no numbers.

    Args:
        rows: The rows that are read.
        facts: The numbers of each row [rows].
        seed_column: The column of the seeds, for errors.
        number_of_seeds: How many different seeds there are.
        axes: The axes of each cell, for errors.
        aggregate: What `--aggregate` says; None: every run has one row.
        nan: What `--nan` says of scores that are no numbers: missing or diverged; None: there are none.
        metric: The column of the scores, for errors.

    Raises:
        HarnessError: Rows are to be merged or judged, and the option does not say how.
    """
    key = facts.cell * number_of_seeds + facts.seed
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(key[order]) != 0])
    ends = np.r_[starts[1:], len(order)]
    several = np.flatnonzero(ends - starts > 1)
    if len(several) and aggregate is None:
        first, other = order[starts[several[0]]], order[starts[several[0]] + 1]
        seed, label = rows.values(seed_column)[first], quoted(name_cell(axes[facts.cell[first]]), 100)
        raise _repeated_error((rows.places[first], rows.places[other]), seed, label, len(several))
    members = [order[start:end] for start, end in zip(starts, ends, strict=True)]
    chosen = order[starts]
    score = facts.numbers["score"]
    lost = np.isnan(score[chosen]) & (facts.status[chosen] == "finished")  # of runs: no score that can be used
    numbers = {name: values[chosen] for name, values in facts.numbers.items()}
    trials = [rows.places[row] for row in chosen]
    passed_over = 0
    for run in several:
        group = members[run]
        merged = _merged(group, facts, str(aggregate), nan)
        chosen[run], lost[run] = merged.row, merged.is_lost
        passed_over += merged.passed_over
        named = [rows.places[member] for member in group[:3]]
        trials[run] = "+".join(named) + ("…" if len(group) > 3 else "")
        for name, values in facts.numbers.items():
            numbers[name][run] = values[merged.row]
        if aggregate in ("mean", "median") and facts.status[merged.row] == "finished" and not merged.is_lost:
            for name, values in facts.numbers.items():
                numbers[name][run] = _average(values[group[facts.status[group] == "finished"]], str(aggregate))
    if lost.any() and nan is None:
        row = chosen[np.flatnonzero(lost)[0]]
        count = count_noun(int(lost.sum()), "row" if len(chosen) == len(order) else "run")
        raise HarnessError(
            f"{count} of {len(chosen)} {'has' if lost.sum() == 1 else 'have'} an empty, NaN or infinite score, "
            f"first {rows.places[row]} ({quoted(rows.values(metric)[row])})",
            fix="Set --nan missing (the run is not known) or --nan diverged (it was trained and failed)",
        )
    status = facts.status[chosen].copy()
    status[lost & (nan == "missing")] = "missing"
    diverged = lost & (nan == "diverged")
    return Runs(
        chosen, facts.cell[chosen], facts.seed[chosen], trials, status, diverged, numbers, members, facts.numbers,
        int(lost.sum()), passed_over,
    )  # fmt: skip


def _repeated_error(places: tuple[str, str], seed: object, label: str, number: int) -> HarnessError:
    """The error of rows that are one run, where nobody says how to merge them."""
    return HarnessError(
        f"two rows are the same seed of the same cell: {places[0]} and {places[1]}, seed {quoted(seed)} of {label} "
        f"({count_noun(number, 'such seed')} in all)",
        fix="Add the column that tells them apart to --cell, choose rows with --where, or set --aggregate "
        f"{'|'.join(AGGREGATIONS)}",
    )


def _average(scores: np.ndarray, how: str) -> float:
    """The mean or median of those scores that are numbers; sorted first, so that no order decides anything."""
    known = np.sort(scores)
    known = known[~np.isnan(known)]
    return float((np.mean if how == "mean" else np.median)(known)) if len(known) else math.nan


@dataclass(frozen=True)
class _Merged:
    row: int
    is_lost: bool  # it finished, without a score that can be used
    passed_over: int


def _merged(group: np.ndarray, facts: RowFacts, how: str, nan: str | None) -> _Merged:
    """The row that stands for several of one seed.

    Rows without any score say nothing where others of the run have one (Lightning's sparse tables). Of the rest the
    first or last counts, or the best; one that is NaN or infinite counts as lost, unless --nan missing passes it over.
    """
    done = group[facts.status[group] == "finished"]
    if not len(done):
        crashed = group[facts.status[group] == "crashed"]
        return _Merged(int(crashed[0] if len(crashed) else group[0]), False, 0)
    scored = done[~facts.empty[done]]
    if not len(scored):
        return _Merged(int(done[0]), True, 0)
    usable = scored[~facts.unusable[scored]]
    if nan == "missing" and len(usable):
        scored = usable
    passed_over = len(done) - len(scored)
    if how in ("first", "last"):
        row = int(scored[0 if how == "first" else -1])
        return _Merged(row, bool(facts.unusable[row]), passed_over)
    if facts.unusable[scored].any():
        return _Merged(int(scored[facts.unusable[scored]][0]), True, passed_over)
    score = facts.numbers["score"]
    return _Merged(
        int(scored[np.argmax(score[scored]) if how == "max" else np.argmin(score[scored])]), False, passed_over
    )
