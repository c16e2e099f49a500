"""What each example of the dev set scored, where that is more than right or wrong classes: spans and completions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.analysis.cells import NAN, cell_groups
from harness.analysis.dev_answers import DevAnswers, mean_over_seeds, pair_differences
from harness.analysis.outcomes import crossed_cells
from harness.analysis.verdicts import finished_runs
from harness.common import metrics, squad
from harness.records.record import Curves
from harness.records.study import Study, numbers
from harness.stats import example_scores as stats
from harness.stats import means
from harness.stats.bootstrap import rng
from harness.stats.estimate import Estimate

METRICS = (*metrics.SPANS, "exact_match", "token_f1")  # whose score is a mean over the examples


@dataclass(frozen=True)
class ExampleScores:
    """What the scored runs of one cell scored on each dev example, [R, N]; of spans also where these are, [R, N, 2]."""

    values: np.ndarray
    places: np.ndarray | None
    targets: bytes  # of the examples: runs with the same answered the same dev set
    rows: tuple[int, ...]  # of the study's table of runs, [R]


def score_name(runs: pd.DataFrame) -> str:
    """What `noise_floor` is of, in words: the accuracy; of answers that have a score each their metric."""
    names = sorted(set(runs["metric"].dropna()) & set(METRICS))
    return metrics.words(names[0]) if len(names) == 1 else "score" if names else "accuracy"


def read_scores(study: Study, answered: Sequence[DevAnswers | None]) -> list[ExampleScores | None]:
    """The examples' scores of each cell's scored runs; None where answers are classes, or none are kept."""
    if not study.sweeps or not set(study.runs["metric"].dropna()) & set(METRICS):
        return [None] * len(study.cells)
    table = study.runs[finished_runs(study.runs) & study.runs["final_score"].notna()]
    by_cell: list[ExampleScores | None] = []
    for answers, of_cell in zip(answered, cell_groups(table, len(study.cells)), strict=True):
        kept: list[tuple[int, Curves]] = []
        if answers is None and len(of_cell) and set(of_cell["metric"]) <= set(METRICS):
            rows = sorted(map(int, of_cell.index))
            arrays = [(row, own) for row in rows if (own := study.curves(row)) is not None]
            kept = [(row, own) for row, own in arrays if own.labels.dtype.kind == "f" and own.labels.size]
        by_cell.append(_of_one_dev_set(str(of_cell["metric"].iloc[0]), kept) if kept else None)
    return by_cell


def _of_one_dev_set(metric: str, curves: Sequence[tuple[int, Curves]]) -> ExampleScores | None:
    """Of the runs that answered the dev set that most of them did, each with its row."""
    sets: dict[tuple[bytes, tuple[int, ...]], list[tuple[int, Curves]]] = {}
    for row, own in curves:
        if np.isfinite(own.logits).all():
            sets.setdefault((own.labels.tobytes(), own.logits.shape), []).append((row, own))
    if not sets:
        return None
    (targets, _), same = max(sets.items(), key=lambda each: len(each[1]))
    rows, logits = tuple(row for row, _ in same), np.stack([own.logits for _, own in same])  # [R, N, C]
    if metric in metrics.SPANS:
        columns = {name: logits[..., place] for place, name in enumerate(squad.COLUMNS)}
        scored = columns["f1" if metric == "squad_f1" else "exact"]
        return ExampleScores(scored, np.stack([columns["start"], columns["end"]], axis=-1), targets, rows)
    values = logits[..., 1] == same[0][1].labels if metric == "exact_match" else logits[..., 2]
    return ExampleScores(values.astype(float), None, targets, rows)


def with_scores(study: Study, floor: pd.DataFrame, scored: Sequence[ExampleScores | None]) -> pd.DataFrame:
    """The table `noise_floor` with the cells whose examples have scores.

    `accuracy` is the mean of these there, `example_bootstrap` the error of one run's; `consistency` and `disagreement`
    are of answers at the same place, `overlap` the F1 of their characters, mean over pairs of runs. Of completions,
    whose texts are not kept, `alike` is the share of examples that two runs have both right or both wrong.
    """
    table = floor.assign(overlap=NAN, alike=NAN)
    crossed = crossed_cells(study)
    for place, cell in enumerate(table["cell"]):
        scores = scored[cell]
        if scores is None:
            continue
        noise = stats.noise(scores.values, rng("floor"))
        row: dict[str, object] = {
            "runs": noise.runs, "examples": noise.examples, "known_from": "answers", "accuracy": noise.mean,
            "example_bootstrap": noise.error,
        }  # fmt: skip
        same = ("observed", "training", "training_low", "training_high", "training_variance", "dev_share", "mean_error",
                "seed_error", "example_error")  # fmt: skip
        row |= {name: getattr(noise, name) for name in same}
        if cell in crossed:
            row |= {"training_low": NAN, "training_high": NAN}
        row |= {"binomial": float(np.sqrt(noise.mean * (1 - noise.mean) / noise.examples)) if _binary(scores) else NAN}
        row |= _agreement(scores)
        for name, value in row.items():
            table.loc[table.index[place], name] = value
    return table


def with_pairs(study: Study, noise: pd.DataFrame, scored: Sequence[ExampleScores | None]) -> pd.DataFrame:
    """The table `pair_noise` with the pairs of cells whose examples have scores."""

    def difference_of(a: int, b: int) -> Estimate | None:
        first, second = scored[a], scored[b]
        if first is None or second is None or first.targets != second.targets:
            return None
        over_seeds = means.minus(_over_seeds(study, first), _over_seeds(study, second))
        return stats.difference(second.values, first.values, over_seeds)

    further = pair_differences(study, difference_of)
    return noise if further.empty else pd.concat([noise, further], ignore_index=True)


def _over_seeds(study: Study, scores: ExampleScores) -> Estimate:
    """The mean score of a cell's independent runs."""
    chance = float(numbers(study.runs.loc[list(scores.rows)], "majority_score").mean())
    return mean_over_seeds(study, scores.rows, scores.values.mean(axis=1), chance)


def with_selection(table: pd.DataFrame, scored: Sequence[ExampleScores | None]) -> pd.DataFrame:
    """The table `selection` with what the examples' scores tell where there is no test split."""
    table = table.copy()
    for place, (cell, known) in enumerate(zip(table["cell"], table["known_from"], strict=True)):
        scores = scored[cell]
        if not known and scores is not None and len(scores.rows) > 1:
            index = table.index[place]
            table.loc[index, "too_high"] = stats.optimism(scores.values, rng("optimism"))
            table.loc[index, "known_from"] = "dev"
    return table


def _binary(scores: ExampleScores) -> bool:
    return bool(((scores.values == 0) | (scores.values == 1)).all())


def _agreement(scores: ExampleScores) -> dict[str, object]:
    runs = len(scores.values)
    if runs < 2:
        return {}
    if scores.places is not None:
        agreed = stats.place_agreement(scores.places)
        return {"consistency": agreed.same, "disagreement": 1 - agreed.same, "overlap": agreed.overlap}
    if not _binary(scores):
        return {}
    right = scores.values.sum(axis=0)  # [N]
    pairs = right * (right - 1) + (runs - right) * (runs - right - 1)
    return {"alike": float(pairs.mean() / (runs * (runs - 1)))}
