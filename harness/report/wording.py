"""Parts of sentences that several questions of the report share."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import astuple
from string import ascii_uppercase

import pandas as pd

from harness.analysis import looks
from harness.analysis.analyze import Analysis
from harness.analysis.comparisons import main_axis
from harness.analysis.verdicts import of_positions
from harness.common.text import Scalar, count_noun, show
from harness.config.trials import Sweep
from harness.records.study import SOURCE
from harness.report.claims import LEVEL, Claim
from harness.report.formatting import Row, p_value, percent, unknown
from harness.stats.estimate import NAN, Estimate

_MOST_NAMED = 5  # cells, in a sentence


def failure_test(analysis: Analysis) -> str:
    """The one test of differences in failure rate, as the seeds allow: fixed, crossed, or added by rule."""
    if looks.looked_at(analysis.study):
        return "test that holds at every look"
    if analysis.crossed:
        return "score test of as many runs as are independent, as seed parts are crossed"
    return "stratified score test"


def class_names(analysis: Analysis, classes: int) -> tuple[str, ...]:
    """What classes are called, by their index: as the data spell them where all runs' records say so, else numbers.

    Of multiple choice they are the columns of the choices where the task names these, else letters.
    """
    if of_positions(analysis.study):
        columns = {cell.recipe.task.choices for sweep in analysis.study.sweeps for cell in sweep.cells}
        named = next(iter(columns)) if len(columns) == 1 else None
        return named if isinstance(named, tuple) else tuple(ascii_uppercase[:classes])
    runs = analysis.runs
    spelt = set(runs["label_names"].dropna()) if "label_names" in runs else set()
    names = tuple(map(str, json.loads(spelt.pop()))) if len(spelt) == 1 else ()
    return names if len(names) == classes else tuple(map(str, range(classes)))


def first_part(sweeps: Sequence[Sweep]) -> str:
    """What a run draws before it trains: its head, which a language model has not, or what an adapter begins with."""
    languages = all(
        cell.script is None and cell.recipe.task.kind == "completion" for sweep in sweeps for cell in sweep.cells
    )
    return "initialisation" if languages else "head"


def p_clause(value: float) -> str:
    """`p = 0.04`, `p < 0.0001`."""
    return f"p {p_value(value)}" if value < 1e-4 else f"p = {p_value(value)}"


def run_count(n: int, kind: str = "") -> str:
    """`1 run`, `3 finished runs`; `kind` ends with a space."""
    return count_noun(n, f"{kind}run")


def pair_count(n: int) -> str:
    """`3 pairs of cells`."""
    return f"{count_noun(n, 'pair')} of cells"


def spaced(name: str) -> str:
    """The name of a setting in words: `weight decay`."""
    return name.replace("_", " ")


def setting(axis: str, value: Scalar) -> str:
    """A setting and its value: `bias correction on`; of two studies side by side, the study's name."""
    return show(value) if axis == SOURCE else f"{spaced(axis)} {show(value)}"


def main_axis_name(analysis: Analysis) -> str:
    """The axis that pairs of cells differ in, in words; empty without axes."""
    axis = main_axis(analysis.study)
    return "" if axis is None else "the study" if axis == SOURCE else spaced(axis)


def main_arms(analysis: Analysis) -> pd.DataFrame:
    """The rows of `arms` of the main axis; empty without axes."""
    return analysis.arms[analysis.arms["axis"] == main_axis(analysis.study)]


def named_cells(analysis: Analysis, cells: Sequence[int]) -> str:
    """Some of a study's cells: by name if they are few, otherwise by what they have in common; empty without that."""
    study = analysis.study
    if len(cells) <= _MOST_NAMED:
        return "; ".join(study.cells[index].label for index in cells)
    first = study.cells[cells[0]].axes
    shared = [
        pair for pair in first if len(study.values(pair[0])) > 1 and all(pair in study.cells[i].axes for i in cells)
    ]
    return f"all with {', '.join(setting(*pair) for pair in shared)}" if shared else ""


# ------------------------------------------------------------------------------------------------ where runs fail alone


def failing_alone(analysis: Analysis, axis: str, value: Scalar) -> tuple[str, Claim] | None:
    """Where all failures of an arm are, if another axis has values at which none of its runs failed.

    In words, `with lr 1e-3 or more`, and the count of failures there, which is that of the arm; None where runs fail at
    every value of every other axis, or nowhere. Without it a rate over such an axis would read as if all its values
    shared in the failures.
    """
    study, cells = analysis.study, analysis.cells
    members = [i for i, cell in enumerate(study.cells) if dict(cell.axes)[axis] == value and cells["judged"][i]]
    for other in study.axes:
        at = {index: dict(study.cells[index].axes)[other] for index in members}
        failing = {at[index] for index in members if cells["failed"][index]}
        values = [position for position in study.values(other) if position in at.values()]
        if other == axis or not failing or len(failing) == len(values):
            continue
        own = [index for index in members if at[index] in failing]
        count = int(cells.loc[own, "failed"].sum())
        where = f"cell in {(*own, -1)}"
        claim = Claim(
            "sum", "failed", Estimate(float(count), NAN, NAN), 1, "cells", (), "failed", where=where, words=str(count)
        )
        return f"with {_values_in_words(other, values, failing)}", claim
    return None


def _values_in_words(axis: str, values: Sequence[Scalar], chosen: Collection[Scalar]) -> str:
    """Some of an axis's values: `lr 1e-3 or more`, `epochs 3`, `recipe usual or other`."""
    inside = [value for value in values if value in chosen]
    if len(inside) > 1 and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        ordered = sorted(values, key=lambda value: float(str(value)))
        if set(ordered[-len(inside) :]) == set(inside):
            return f"{setting(axis, ordered[-len(inside)])} or more"
        if set(ordered[: len(inside)]) == set(inside):
            return f"{setting(axis, ordered[len(inside) - 1])} or less"
    names = [show(value) for value in inside]
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
    return f"{spaced(axis)} {listed}"


# ------------------------------------------------------------------------------------------------- claims in words


def rate_claim(row: Row, subject: str, table: str, *key: str) -> Claim:
    """The failure rate of a row of a table with `failed`, `judged` and its interval; `key` names the row's columns."""
    failed, judged = int(row["failed"]), int(row["judged"])
    estimate = Estimate(failed / judged, float(row["failed_low"]), float(row["failed_high"]))
    return Claim("failure rate", subject, estimate, judged, table, tuple((name, row[name]) for name in key), "failed")


def rate_words(claim: Claim) -> str:
    """`19 of 48 (40 % [27, 54])`."""
    value, low, high = (percent(part).removesuffix(" %") for part in astuple(claim.estimate))
    bounds = "" if unknown(claim.estimate.low) else f" [{low}, {high}]"
    return f"{round(claim.estimate.value * claim.n)} of {claim.n} ({value} %{bounds})"


def contrast_claim(analysis: Analysis, row: Row) -> Claim:
    """The difference in failure rate that a row of `contrasts` tells, all else equal."""
    return Claim(
        quantity="difference in failure rate",
        subject=f"{setting(row['axis'], row['value'])} compared with {show(row['reference'])}",
        estimate=Estimate(*(float(row[f"difference{end}"]) for end in ("", "_low", "_high"))),
        n=int(row["judged"] + row["reference_judged"]),
        table="contrasts",
        row=tuple((name, row[name]) for name in ("axis", "value", "reference")),
        column="difference",
        test=failure_test(analysis),
        p=float(row["p_adjusted"]),
    )


def can_be_shown(row: Row) -> bool:
    """Whether so many runs could show any difference at all in a row of `contrasts`, however they had ended."""
    return bool(row["p_least"] < LEVEL)


def arm_sizes(row: Row) -> str:
    """`2 runs against 3` of a row of `contrasts`."""
    return f"{run_count(int(row['judged']))} against {int(row['reference_judged'])}"


def points_words(estimate: Estimate) -> str:
    """A difference of rates with its interval: `−40 points [−53, −26]`."""
    value, low, high = (percent(part).removesuffix(" %") for part in astuple(estimate))
    sign = "+" if estimate.value > 0 and value != "0" else ""
    return f"{sign}{value} points" + ("" if unknown(estimate.low) else f" [{low}, {high}]")
