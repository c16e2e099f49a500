"""Made-up records for the tests of tables, figures and pages; nothing here is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from harness.config.sweep_file import load
from harness.config.trials import Sweep, Trial, expand
from harness.records.imported import of_import, save_imported
from harness.records.record import Curves, Environment, Measured, Record, Recording
from harness.records.store import Store
from harness.records.study import Axes, Imported, Study, of_sweep

HEAD = "task: embedded\nmodel: embedded\n"
ENVIRONMENT = Environment(
    device="cpu",
    device_name="one core",
    threads=1,
    pack_size=2,
    harness="0.1.0",
    commit="0123abc",
    python="3.11.2",
    torch="2.13.0",
    transformers="5.23.0",
)


@dataclass(frozen=True)
class Run:
    """One run to make up: right answers of 400 with a majority of 200, or what else became of it."""

    correct: int | None = None
    loss: float | None = 0.3
    score: float | None = None  # of a regression, which has no count of right answers
    diverged: bool = False
    crashed: str | None = None
    # Recorded where given: the layers' gradient norm in the first half of the updates and in the second.
    gradients: tuple[float, float] | None = None
    update: float = 0.01  # norm of each update, of weights of norm 10
    diverged_at: int | None = None  # of a diverged run: its first update that is not finite; None: half of them
    every: int = 10  # updates between two evaluations, the first before any; 0: none at all


MISSING = None


def sweep_of(folder: Path, text: str, name: str = "made") -> Sweep:
    """Load a sweep from YAML text."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return load(path)


def measured(run: Run, steps: int, majority: int, examples: int, metric: str) -> Measured:
    """What training would have given, by the definition of failing."""
    if run.diverged:
        failed, score = True, None
    elif run.correct is None:
        assert run.score is not None
        failed, score = run.score <= 0, run.score
    else:
        failed, score = run.correct <= majority, run.correct / examples
    reason = "diverged" if run.diverged else "constant" if failed else None
    regression = run.score is not None
    return Measured(
        outcome="failed" if failed else "ok",
        reason=reason,
        metric=metric,
        final_score=score,
        best_score=None if score is None else min(score + 0.01, 1.0),
        best_step=None if score is None else steps,
        majority_score=0.0 if regression else majority / examples,
        correct=None if run.diverged else run.correct,
        majority_correct=None if regression else majority,
        dev_examples=examples,
        train_examples=1000,
        steps=steps,
        final_train_loss=None if run.diverged else run.loss,
        final_dev_loss=None if run.diverged else run.loss,
        label_entropy=None if regression else math.log(2),
        diverged_step=(run.diverged_at or steps // 2) if run.diverged else None,
        weights_sha256="a" * 64,
        data_sha256="b" * 64,
        model_sha256="c" * 64,
        parameters=1000,
        wall_seconds=4.0,
        lane_seconds=2.0,
        peak_memory_bytes=2**20,
    )


def answered(found: Measured) -> tuple[np.ndarray, np.ndarray]:
    """Logits [N, C] and labels [N]: the first `correct` examples are right, and the first `majority` are of class 0.

    So a run at the majority's count answers class 0 alone, and two runs disagree where one has more right answers.
    """
    examples = found.dev_examples
    if found.majority_correct is None:  # a regression
        values = np.linspace(0, 1, examples, dtype=np.float32)
        return values[:, None], values
    labels = (np.arange(examples) >= found.majority_correct).astype(np.int64)
    right = np.arange(examples) < (found.correct or 0)
    logits = np.where((np.arange(2) == labels[:, None]) == right[:, None], 1, -1).astype(np.float32)
    return (np.full_like(logits, np.nan) if found.final_score is None else logits), labels


def curves_of(found: Measured, every: int = 10, diverged_at: int | None = None) -> Curves:
    """Curves that end where the run ended, and are NaN from `diverged_at` (the middle) on where it diverged."""
    steps, evaluations = found.steps, np.arange(0, found.steps + 1, every) if every else np.zeros(0, dtype=np.int64)
    end = 0.5 if found.final_score is None else found.final_score
    logits, labels = answered(found)
    loss = np.linspace(0.7, found.final_train_loss or 0.7, steps)
    score = np.linspace(0.5, end, len(evaluations))
    if found.diverged_step is not None:
        loss[found.diverged_step if diverged_at is None else diverged_at - 1 :] = np.nan
        score[evaluations >= diverged_at if diverged_at else np.arange(len(score)) >= len(score) // 2] = np.nan
    return Curves(
        train_loss=loss.astype(np.float32),
        lr=np.full(steps, 1e-5),
        grad_norm=loss.astype(np.float32),
        eval_step=evaluations,
        dev_loss=score.astype(np.float32),
        dev_score=score,
        logits=logits,
        labels=labels,
    )


def recording_of(curves: Curves, run: Run) -> Recording:
    """Every update recorded: two layers and the embeddings have the run's gradients, pooler and head always 0.1."""
    assert run.gradients is not None
    steps = len(curves.train_loss)
    early = np.arange(steps) < steps // 2
    layers = ["embeddings", "1 attention", "1 feed-forward", "2 attention", "2 feed-forward", "pooler", "head"]
    norms = np.full((steps, len(layers)), 0.1, dtype=np.float32)
    norms[:, :5] = np.where(early, *run.gradients)[:, None]
    if run.diverged_at is not None:
        norms[run.diverged_at - 1 :] = np.nan
    classes = np.bincount(curves.logits.argmax(axis=1), minlength=2)
    evaluations = len(curves.eval_step)
    return Recording(
        layers=np.array(layers),
        update=np.arange(1, steps + 1),
        layer_norm=norms,
        update_norm=np.full(steps, run.update, dtype=np.float32),
        weight_norm=np.full(steps, 10, dtype=np.float32),
        predicted=np.tile(classes, (evaluations, 1)).astype(np.int32),
        cls_rank=np.ones(evaluations, dtype=np.float32),
        cls_cosine=np.ones(evaluations, dtype=np.float32),
    )


def save(
    store: Store,
    sweep: Sweep,
    trial: Trial,
    run: Run,
    *,
    majority: int = 200,
    examples: int = 400,
    metric: str = "accuracy",
) -> None:
    """Write one trial's made-up record."""
    found = None if run.crashed else measured(run, 20 * trial.recipe.epochs, majority, examples, metric)
    record = Record(
        id=trial.id,
        sweep=sweep.name,
        profile=sweep.profile,
        trial=trial,
        status="crashed" if run.crashed else "finished",
        attempts=1,
        started_utc="2025-01-01T00:00:00Z",
        environment=ENVIRONMENT,
        measured=found,
        arrays_sha256=None,
        error=run.crashed,
    )
    curves = curves_of(found, run.every, run.diverged_at) if found else None
    if curves is not None and run.gradients is not None:
        curves = replace(curves, recording=recording_of(curves, run))
    store.save(record, curves)


def store_of(
    folder: Path,
    sweep: Sweep,
    runs: Mapping[int, list[Run | None]],
    *,
    backwards: bool = False,
    majority: int = 200,
    examples: int = 400,
    metric: str = "accuracy",
) -> Store:
    """A results folder with `runs[cell]` in the order of the seeds; None is a missing run, as is an absent cell."""
    store = Store(folder / sweep.folder_name)
    store.save_plan(sweep)
    seen: dict[int, int] = {}
    planned = []
    for trial in expand(sweep):
        place = seen[trial.cell] = seen.get(trial.cell, -1) + 1
        given = runs.get(trial.cell, [])
        run = given[place] if place < len(given) else None
        if run is not None:
            planned.append((trial, run))
    for trial, run in reversed(planned) if backwards else planned:
        save(store, sweep, trial, run, majority=majority, examples=examples, metric=metric)
    return store


def study_of(folder: Path, text: str, runs: Mapping[int, list[Run | None]], name: str = "made", **how) -> Study:
    """The study of made-up records."""
    sweep = sweep_of(folder, text, name)
    return of_sweep(sweep, store_of(folder, sweep, runs, **how))


def imported_runs(
    scores: Sequence[float | None], cell: int = 0, **columns: Sequence[object]
) -> list[dict[str, object]]:
    """Rows of an import: one cell's finished runs, seeds from 1 on; None is a missing one. `columns` go beside them."""
    rows: list[dict[str, object]] = []
    for place, score in enumerate(scores):
        row: dict[str, object] = {"trial": f"cell{cell}-seed{place + 1}", "cell": cell, "seed": place + 1}
        row |= {"status": "missing"} if score is None else {"status": "finished", "metric": "acc", "final_score": score}
        rows.append(row | {name: values[place] for name, values in columns.items() if score is not None})
    return rows


def import_of(
    folder: Path, cells: Sequence[Axes], rows: Sequence[dict[str, object]], *, name: str = "theirs", **fields: object
) -> Study:
    """Write an imported study as `harness import` does, and read it back."""
    given = {"metric": "acc", "higher_is_better": True, "notes": ("Read by hand.",)} | fields
    axes = tuple(axis for axis, _ in cells[0])
    files, command = (("theirs.csv", "0123456789abcdef" * 4),), "harness import theirs.csv"
    imported = Imported(name=name, files=files, command=command, axes=axes, cells=tuple(cells), **given)  # type: ignore[arg-type]
    save_imported(folder / name, imported, pd.DataFrame(list(rows)))
    return of_import(folder / name)


MOSBACH = (
    "title: Bias correction and rate\nstand_in: embedded stand-in, not BERT on RTE\n"
    + HEAD
    + "lr: [1e-5, 2e-5]\nbias_correction: [off, on]\nepochs: [3, 10]\nseeds: 1..3\n"
)
# lr 1e-5 trains; lr 2e-5 without correction fails, once near chance and once diverging; with it two runs are lacking.
MOSBACH_RUNS: dict[int, list[Run | None]] = {
    0: [Run(310), Run(320), Run(330)],
    1: [Run(330), Run(340), Run(350)],
    2: [Run(300), Run(310), Run(320)],
    3: [Run(320), Run(330), Run(340)],
    4: [Run(200, 0.693), Run(200, 0.693), Run(199, 0.693)],
    5: [Run(201, 0.692), Run(200, 0.693), Run(diverged=True)],
    6: [Run(320), Run(crashed="Traceback (most recent call last):\n  File x\nRuntimeError: no /home/me/x.txt"), None],
    7: [Run(350), Run(352), Run(354)],
}
