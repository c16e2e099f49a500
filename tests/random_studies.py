"""Random studies: axes, missing, crashed, diverged and failed runs, ties, shared and crossed seeds, recordings."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from harness.analysis.dev_answers import DevAnswers
from harness.analysis.outcomes import SEED_PARTS
from harness.analysis.stopping import RunResult, advance
from harness.config.axes import read_cells
from harness.config.recipe import Seeds
from harness.config.seed_rule import Goal, SeedRule
from harness.config.trials import Sweep, every_seed, expand
from harness.records.frame import SetAside
from harness.records.reading import Unreadable
from harness.records.record import Baseline, Curves, Recording
from harness.records.reruns import Rerun
from harness.records.study import TEXTS, Compared, Imported, Study, StudyCell, columns

MAJORITY, EXAMPLES, STEPS = 50, 100, 20
AXES = ("recipe", "lr", "bias_correction")
VALUES = {"recipe": ("usual", "other", "third", "last"), "lr": (1e-5, 2e-5, 3e-5), "bias_correction": (False, True)}
FATES = ("good", "good", "good", "failed", "near chance", "diverged", "crashed", "missing")
LAYERS = ("embeddings", "1 attention", "1 feed-forward", "2 attention", "2 feed-forward", "head")

BASELINE = Baseline(
    name="tfidf_logistic", settings="C = 1", task="made", metric="accuracy", data_sha256="0" * 64, versions={},
    seeds=(), scores=(0.7,), failed=(False,), labels=tuple(i % 2 for i in range(EXAMPLES)),
    answers=(tuple((i + (i % 10 > 6)) % 2 for i in range(EXAMPLES)),),
)  # fmt: skip


def answers_of(study: Study) -> list[DevAnswers | None]:
    """Answers with as many right ones as each run has, of every cell with a score; none where a study keeps none."""
    labels = np.arange(EXAMPLES) % 2
    by_cell: list[DevAnswers | None] = []
    for cell in range(len(study.cells)):
        runs = study.runs[(study.runs["cell"] == cell) & study.runs["correct"].notna()]
        if not len(runs) or study.title == "Without answers":
            by_cell.append(None)
            continue
        logits = np.zeros((len(runs), EXAMPLES, 2), dtype=np.float32)
        for run, (row, correct) in enumerate(zip(runs.index, runs["correct"].astype(int), strict=True)):
            right = np.random.default_rng(int(row)).permutation(EXAMPLES) < correct
            logits[run, np.arange(EXAMPLES), np.where(right, labels, 1 - labels)] = 1.0
        by_cell.append(DevAnswers(logits, labels, tuple(int(row) for row in runs.index)))
    return by_cell


def study_from(
    axes: list[tuple[str, int]], size: int, draw: np.random.Generator, compared: Compared, crossed: bool = False
) -> Study:
    """A study of every combination of the values; each cell has its own mean and its own chances of each fate.

    Some keep answers, some have a baseline, some are of a sweep with recordings, in some all scores are equal, in some
    nobody judged the runs; seed parts are crossed 2 by 3 where that is asked for.
    """
    parts = list(itertools.product((1, 2), (1, 2, 3))) if crossed else [(seed, seed) for seed in range(1, size + 1)]
    values = [[(name, value) for value in VALUES[name][:size]] for name, size in axes]
    cells = [StudyCell(tuple(place)) for place in itertools.product(*values)]
    tied, judged = draw.random() < 0.2, draw.random() < 0.9
    rows = []
    for index, cell in enumerate(cells):
        chances, level = draw.dirichlet(np.full(len(FATES), 0.4)), 80 if tied else int(draw.integers(55, 95))
        for seed, (head, order) in enumerate(parts, start=1):
            fate, noise = FATES[draw.choice(len(FATES), p=chances)], 0 if tied else int(draw.integers(-3, 4))
            row = {"trial": f"{index}-{seed}", "cell": index, "seed": seed, **dict(cell.axes)}
            row |= {"init_seed": head, "order_seed": order, "dropout_seed": order}
            rows.append(row | run_of(fate, level + noise, seed, judged))
    again: dict[str, Any] = {"set_aside": SetAside(unused_files(rows, draw))} if draw.random() < 0.2 else {}
    runs = table_of(rows, cells)
    if draw.random() < 0.2:
        runs["unknown_share"] = pd.Series(np.where(runs["status"] == "finished", draw.choice([1e-5, 0.02]), np.nan))
    again |= {"reruns": reruns_of(runs, draw)} if draw.random() < 0.3 else {}
    again |= {"imports": (IMPORTED,)} if draw.random() < 0.2 else {}
    title, baselines = ("Made", "Without answers")[draw.integers(2)], (BASELINE,) * int(draw.integers(2))
    again |= {"title": title, "baselines": baselines}
    study = Study(name="made", cells=tuple(cells), runs=runs, compared=compared, **again)
    return recorded(study, sweep_over(tuple(axes), tuple(parts)), draw) if judged and draw.random() < 0.5 else study


IMPORTED = Imported(
    name="made", files=(("runs.csv", "0" * 64),), command="harness import runs.csv", metric="accuracy",
    higher_is_better=True, axes=(), cells=(), notes=(),
)  # fmt: skip


def reruns_of(runs: pd.DataFrame, draw: np.random.Generator) -> tuple[Rerun, ...]:
    """Some trials trained again, once or twice; the same result or another."""
    again = []
    for row in runs[runs["status"] == "finished"].to_dict("records"):
        for number in range(int(draw.integers(3))):
            score = None if np.isnan(row["final_score"]) else row["final_score"]
            gap = float(draw.choice([0.0, 0.0, 0.013]))
            same = "identical" if not gap else "different"
            again.append(
                Rerun(
                    trial=row["trial"], kind="repeat", number=2 + number, when_utc="", verdict=same, max_difference=gap,
                    first_differing_step=int(draw.integers(1, 9)) if gap else None, recorded_score=score,
                    score=None if score is None else score - gap, reasons=(),
                )
            )  # fmt: skip
    return tuple(again)


def unused_files(rows: list[dict[str, object]], draw: np.random.Generator) -> list[Unreadable]:
    """Files of trials that can't be used: the record of some, whose runs are unreadable then, the arrays of others."""
    files = []
    for index in draw.permutation(len(rows))[:7]:
        row, ending = rows[index], "json" if draw.random() < 0.5 else "npz"
        files.append(Unreadable(str(row["trial"]), f"trials/{row['trial']}.{ending}", (("", "cut after 20 bytes"),)))
        if ending == "json":
            kept = {name: row[name] for name in ("trial", "cell", "seed", *SEED_PARTS)}
            row.clear()
            row |= kept | {"status": "unreadable"}
    return files


def table_of(rows: list[dict[str, object]], cells: Sequence[StudyCell]) -> pd.DataFrame:
    """`Study.runs` of these rows."""
    axes = [name for name, _ in cells[0].axes]
    runs = pd.DataFrame(rows).reindex(columns=[*columns(), *axes])
    for name in runs.columns:
        if name in TEXTS:
            runs[name] = runs[name].astype(object).where(runs[name].notna(), None)
    for name in axes:
        runs[name] = pd.Series([dict(cells[index].axes)[name] for index in runs["cell"]], dtype=object)
    return runs


def adaptive_study(axes: list[tuple[str, int]], draw: np.random.Generator, compared: Compared) -> Study:
    """A study of a sweep whose seeds were added by rule, as far as its runs go; the last ones may be missing."""
    plan = sweep_over(tuple(axes))
    first, axis = int(draw.integers(1, 4)), axes[0]
    goals = (Goal(within=float(draw.choice([0.1, 0.3]))), Goal(axis=axis[0], within=draw.choice([None, 0.2])))
    until = goals[1:] if axis[1] > 1 and draw.random() < 0.5 else goals[:1]
    rule = SeedRule(first=first, at_most=first + int(draw.integers(1, 9)), step=int(draw.integers(1, 4)), until=until)
    seeds = tuple(Seeds(seed=n, init_seed=n, order_seed=n, dropout_seed=n) for n in range(1, rule.at_most + 1))
    sweep = plan.model_copy(update={"rule": rule, "seeds": seeds})
    chances = {cell.axes: draw.dirichlet(np.full(len(FATES), 0.4)) for cell in sweep.cells}
    trials = expand(every_seed(sweep))
    rows = {}
    for trial in trials:
        cell, seed = sweep.cells[trial.cell], trial.seeds.seed
        fate = FATES[draw.choice(len(FATES), p=chances[cell.axes])]
        row = {"trial": trial.id, "cell": trial.cell, "seed": seed, **dict(cell.axes), "init_seed": seed}
        row |= {"order_seed": seed, "dropout_seed": seed}
        rows[trial.id] = row | run_of(
            "crashed" if fate == "missing" else fate, 80 + int(draw.integers(-9, 9)), seed, True
        )

    def result_of(trial: str) -> RunResult:
        return RunResult({"ok": False, "failed": True}.get(str(rows[trial].get("outcome"))), 1.0)

    grown = advance(sweep, result_of).sweep
    planned = [rows[trial.id] for trial in expand(grown)]
    for row in planned[len(planned) - int(draw.integers(0, 3)) :]:
        kept = {name: row[name] for name in ("trial", "cell", "seed", "init_seed", "order_seed", "dropout_seed")}
        row.clear()
        row |= kept | {"status": "missing"}
    cells = tuple(StudyCell(cell.axes) for cell in sweep.cells)
    return Study(
        name="made", title="Made", cells=cells, runs=table_of(planned, cells), compared=compared, sweeps=(grown,)
    )


def run_of(fate: str, level: int, seed: int, judged: bool) -> dict[str, object]:
    """What became of a run, as its row says it; `level` are the right answers of one that learned."""
    if fate in ("crashed", "missing"):
        return {"status": fate}
    failed = fate in ("failed", "diverged")
    row: dict[str, object] = {"status": "finished", "metric": "accuracy", "dev_examples": EXAMPLES, "steps": STEPS}
    row |= {"lane_seconds": 1 + seed / 10, "reason": "diverged" if fate == "diverged" else None}
    if judged:
        row |= {"outcome": "failed" if failed else "ok"}
        row |= {"majority_score": MAJORITY / EXAMPLES, "majority_correct": MAJORITY}
    if fate != "diverged":
        correct = {"failed": MAJORITY, "near chance": MAJORITY + 1}.get(fate, level)
        row |= {"final_score": correct / EXAMPLES, "correct": correct}
        row |= {"final_train_loss": 0.69 if failed or seed % 3 == 0 else 0.1}
        row |= {"label_entropy": 0.6931, "data_sha256": BASELINE.data_sha256}
    return row


def recorded(study: Study, sweep: Sweep, draw: np.random.Generator) -> Study:
    """The same study as one of a sweep, most of whose runs have their gradients and updates recorded."""
    curves = {
        row: curves_of(outcome == "failed", reason == "diverged", draw)
        for row, outcome, reason in zip(study.runs.index, study.runs["outcome"], study.runs["reason"], strict=True)
        if outcome is not None and draw.random() < 0.9
    }
    return replace(study, sweeps=(sweep,), load=curves.get)


@lru_cache
def sweep_over(axes: tuple[tuple[str, int], ...], parts: tuple[tuple[int, int], ...] = ((1, 1),)) -> Sweep:
    """A sweep over the first values of the axes, with seeds of these parts; recipes differ in their warm-up."""
    content: dict[str, object] = {"task": {"name": "embedded"}, "model": {"name": "embedded"}, "epochs": 3}
    content |= {} if "lr" in dict(axes) else {"lr": 1e-5}
    for name, size in axes:
        values = VALUES[name][:size]
        warmups = {str(value): {"warmup_ratio": 0.1 * place} for place, value in enumerate(values)}
        content |= {"recipes": warmups} if name == "recipe" else {name: list(values)}
    seeds = tuple(
        Seeds(seed=seed, init_seed=head, order_seed=order, dropout_seed=order)
        for seed, (head, order) in enumerate(parts, start=1)
    )
    return Sweep(name="made", profile="default", title="Made", cells=read_cells(content), seeds=seeds)


def curves_of(failed: bool, diverged: bool, draw: np.random.Generator) -> Curves:
    """Curves and gradients of one run, which tell its outcome more or less."""
    loss = np.linspace(0.7, 0.69 if failed else 0.3, STEPS) + 0.02 * draw.normal(size=STEPS)
    norms = 10.0 ** draw.normal(0, 0.3, size=(STEPS, len(LAYERS)))
    norms[STEPS // 2 :, :-1] *= 10.0 ** (-3 * draw.random()) if failed else 1
    if diverged:
        loss[STEPS // 2 :] = norms[STEPS // 2 :] = np.nan
    evaluations = np.arange(0, STEPS + 1, 5)
    recording = Recording(
        layers=np.array(LAYERS),
        update=np.arange(1, STEPS + 1),
        layer_norm=norms.astype(np.float32),
        update_norm=draw.random(STEPS).astype(np.float32),
        weight_norm=np.full(STEPS, 10, dtype=np.float32),
        predicted=draw.integers(0, EXAMPLES, (len(evaluations), 2)).astype(np.int32),
        cls_rank=np.ones(len(evaluations), dtype=np.float32),
        cls_cosine=np.ones(len(evaluations), dtype=np.float32),
    )
    return Curves(
        train_loss=loss.astype(np.float32),
        lr=np.full(STEPS, 1e-5),
        grad_norm=norms.max(axis=1).astype(np.float32),
        eval_step=evaluations,
        dev_loss=np.zeros(len(evaluations), dtype=np.float32),
        dev_score=np.zeros(len(evaluations)),
        logits=np.zeros((EXAMPLES, 2), dtype=np.float32),
        labels=np.arange(EXAMPLES) % 2,
        recording=recording,
    )


def random_study(seed: int) -> Study:
    """One to three axes, of which the last may lead, and one to six seeds, all drawn from this number."""
    draw = np.random.default_rng(seed)
    names = [str(name) for name in draw.permutation(AXES)][: draw.integers(1, 4)]
    most = {name: min(len(VALUES[name]), 5 - len(names)) for name in names}
    axes = [(name, 1 if draw.random() < 0.15 else int(draw.integers(2, most[name] + 1))) for name in names]
    compared = Compared(main=names[-1] if draw.random() < 0.5 else None, all_pairs=bool(draw.random() < 0.5))
    if draw.random() < 0.15:
        return adaptive_study(axes, draw, compared)
    return study_from(axes, int(draw.integers(1, 7)), draw, compared, crossed=bool(draw.random() < 0.2))
