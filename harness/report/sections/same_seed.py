"""Does the same seed give the same result, and how far do its results scatter beside those of other seeds?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pandas as pd

from harness.analysis.analyze import Analysis
from harness.common.text import count_noun
from harness.records.study import numbers
from harness.report.claims import Words, row_at
from harness.report.formatting import Row, integer, percent, score
from harness.report.section import Section
from harness.report.table import Column, TableSpec, number, with_interval
from harness.stats.repeats import within_sd

_VERDICTS = {"identical": "identical", "within_tolerance": "within tolerance", "different": "different"}


def _results(analysis: Analysis) -> Iterator[tuple[int, str, list[float]]]:
    """(cell, trial, scores) of each trial that was trained again: its record's score first; diverged runs have none."""
    cells = dict(zip(analysis.runs["trial"], analysis.runs["cell"], strict=True))
    by_trial: dict[str, list[float]] = {}
    for rerun in analysis.study.reruns:
        if rerun.recorded_score is not None and rerun.score is not None:
            by_trial.setdefault(rerun.trial, [rerun.recorded_score]).append(rerun.score)
    for trial, scores in by_trial.items():
        yield int(cells[trial]), trial, scores


def _table(analysis: Analysis) -> pd.DataFrame:
    """A row for each cell with trials that were trained again: how far one seed's scores scatter, and the seeds'."""
    runs = analysis.runs[analysis.runs["status"] == "finished"]
    by_cell: dict[int, list[list[float]]] = {}
    for cell, _, scores in _results(analysis):
        by_cell.setdefault(cell, []).append(scores)
    rows = []
    for cell in sorted(by_cell):
        groups = by_cell[cell]
        same, degrees = within_sd(groups)
        over_seeds = numbers(runs[runs["cell"] == cell], "final_score").dropna()
        rows.append({
            "cell": cell,
            "trials": len(groups),
            "results": sum(map(len, groups)),
            "same_seed_sd": same.value, "same_seed_sd_low": same.low, "same_seed_sd_high": same.high,
            "degrees": degrees,
            "seeds": len(over_seeds),
            "seeds_sd": float(over_seeds.std()) if len(over_seeds) > 1 else None,
        })  # fmt: skip
    return pd.DataFrame(rows)


def _columns(analysis: Analysis) -> list[Column]:
    def same(row: Row) -> str:
        return "0 (all equal)" if row["same_seed_sd"] == 0 else with_interval("same_seed_sd")(row)

    return [
        ("trials", number("trials", integer)),
        ("results", number("results", integer)),
        ("SD of one seed (95 %)", same),
        ("seeds", number("seeds", integer)),
        ("SD over seeds", number("seeds_sd")),
    ]


def reruns(analysis: Analysis) -> pd.DataFrame:
    """A row for each time that a trial was trained again: `trial` (a number), `verdict`, what differs, the scores."""
    numbers_of = {trial: number for number, trial in enumerate(dict.fromkeys(r.trial for r in analysis.study.reruns))}
    columns = ["verdict", "max_difference", "first_differing_step", "recorded_score", "score"]
    rows = [(numbers_of[rerun.trial], *(getattr(rerun, name) for name in columns)) for rerun in analysis.study.reruns]
    table = pd.DataFrame(rows, columns=["trial", *columns])
    return table.astype(dict.fromkeys(columns[1:], float))


def _counted(table: pd.DataFrame, words: Words) -> str:
    """`Reruns of 3 trials: 3 identical`."""
    trials = table["trial"].nunique()
    counts = table["verdict"].value_counts()
    parts = ", ".join(
        f"{words.count(int(counts[verdict]), f'verdict == {verdict!r}')} {name}"
        for verdict, name in _VERDICTS.items()
        if verdict in counts
    )
    of = words.summary("distinct", trials, "trial", form=lambda n: count_noun(n, "trial"))
    times = "" if len(table) == trials else f", {words.count(len(table), '')} times"
    return f"Reruns of {of}{times}: {parts}"


def _sentences(analysis: Analysis) -> Sequence[str]:
    table, words = reruns(analysis), Words("reruns")
    if table.empty:
        return ()
    first = _counted(table, words)
    steps = table["first_differing_step"].dropna()
    at = ""
    if len(steps):
        known = "first_differing_step == first_differing_step"
        at = f", first at step {words.summary('min', int(steps.min()), 'first_differing_step', known)}"
    if (table["max_difference"] > 0).any():
        largest = words.summary("max", table["max_difference"].max(), "max_difference", "max_difference > 0", score)
        first += f" (largest difference {largest}{at})"
    return (words.sentence(f"{first}."), *_scatter(analysis))


def _scatter(analysis: Analysis) -> Iterator[str]:
    """How far one seed's scores scatter, beside those of different seeds in the same cells."""
    table, words = scatter(analysis), Words("same_seed_scatter")
    if table.empty:
        return
    row = row_at(table, 0)
    if row["sd"] == 0:
        yield "The same seed gave the same score each time: the scores of different seeds differ by their seeds alone."
        return
    low, high = (words.value(row, [], f"sd_{end}", score) for end in ("low", "high"))
    results = words.value(row, [], "results", lambda n: count_noun(int(n), "result"))
    trials = words.value(row, [], "trials", lambda n: count_noun(int(n), "trial"))
    text = (
        "the same seed does not give the same score: its results scatter with a standard deviation of "
        f"{words.value(row, [], 'sd', score)} (95 % interval {low} to {high}, from {results} of {trials})"
    )
    if row["seeds_sd"] > 0:
        text += (
            f"; the scores of different seeds in the same settings scatter with "
            f"{words.value(row, [], 'seeds_sd', score)}, and about {words.value(row, [], 'share', percent)} of that "
            "variance is what one seed's results scatter by"
        )
    yield words.sentence(f"{text}.")


def scatter(analysis: Analysis) -> pd.DataFrame:
    """How far one seed's scores scatter over all cells, beside those of different seeds in the same cells: one row.

    Columns: `results` of `trials`; `sd` with `_low`, `_high`; `seeds_sd` of different seeds; `share`, of whose variance
    that of one seed is, 1 at most. No row where nothing was trained twice.
    """
    runs = analysis.runs[analysis.runs["status"] == "finished"]
    results = list(_results(analysis))
    same, degrees = within_sd([scores for _, _, scores in results])
    if not degrees:
        return pd.DataFrame()
    cells = sorted({cell for cell, _, _ in results})
    seeds, _ = within_sd([list(numbers(runs[runs["cell"] == cell], "final_score").dropna()) for cell in cells])
    row = {"results": sum(len(scores) for _, _, scores in results), "trials": len(results), "sd": same.value}
    row |= {"sd_low": same.low, "sd_high": same.high, "seeds_sd": seeds.value}
    return pd.DataFrame([row | {"share": min(1.0, same.value**2 / seeds.value**2) if seeds.value > 0 else math.nan}])


SECTION = Section(
    anchor="same-seed",
    heading="Same seed, same result",
    question="Does the same seed give the same result?",
    sentences=_sentences,
    tables=(
        TableSpec(
            "same_seed",
            "Final scores of trials that were trained again with their own seed, beside those of different seeds",
            _columns,
            data=_table,
        ),
    ),
)
