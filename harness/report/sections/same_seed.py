"""Does the same seed give the same result, and how far do its results scatter beside those of other seeds?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import pandas as pd

from harness.analysis.analyze import Analysis
from harness.common.text import count_noun
from harness.records.study import numbers
from harness.report.formatting import Row, integer, score
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


def counted(analysis: Analysis) -> str:
    """`Reruns of 3 trials: 3 identical.`; empty where none was trained again."""
    reruns = analysis.study.reruns
    if not reruns:
        return ""
    trials = len({rerun.trial for rerun in reruns})
    counts: Counter[str] = Counter(rerun.verdict for rerun in reruns)
    parts = ", ".join(f"{counts[verdict]} {words}" for verdict, words in _VERDICTS.items() if counts[verdict])
    times = "" if len(reruns) == trials else f", {len(reruns)} times"
    return f"Reruns of {count_noun(trials, 'trial')}{times}: {parts}"


def _sentences(analysis: Analysis) -> Sequence[str]:
    first = counted(analysis)
    if not first:
        return ()
    sizes = [rerun.max_difference for rerun in analysis.study.reruns if rerun.max_difference]
    steps = [rerun.first_differing_step for rerun in analysis.study.reruns if rerun.first_differing_step is not None]
    at = f", first at step {min(steps)}" if steps else ""
    first += f" (largest difference {score(max(sizes))}{at})" if sizes else ""
    return (f"{first}.", *_scatter(analysis))


def _scatter(analysis: Analysis) -> Iterator[str]:
    """How far one seed's scores scatter, beside those of different seeds in the same cells."""
    runs = analysis.runs[analysis.runs["status"] == "finished"]
    results = list(_results(analysis))
    same, degrees = within_sd([scores for _, _, scores in results])
    if not degrees:
        return
    if same.value == 0:
        yield "The same seed gave the same score each time: the scores of different seeds differ by their seeds alone."
        return
    cells = sorted({cell for cell, _, _ in results})
    over = [list(numbers(runs[runs["cell"] == cell], "final_score").dropna()) for cell in cells]
    seeds, _ = within_sd(over)
    words = (
        f"The same seed does not give the same score: its results scatter with a standard deviation of "
        f"{score(same.value)} (95 % interval {score(same.low)} to {score(same.high)}, from "
        f"{count_noun(sum(len(scores) for _, _, scores in results), 'result')} of {count_noun(len(results), 'trial')})"
    )
    if seeds.value > 0:
        share = min(1.0, same.value**2 / seeds.value**2)
        words += (
            f"; the scores of different seeds in the same settings with {score(seeds.value)}, of whose variance the "
            f"script's own nondeterminism is about {100 * share:.0f} %"
        )
    yield f"{words}."


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
