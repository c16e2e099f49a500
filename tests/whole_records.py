"""Made-up records in which everything fits, as training writes them, so that whatever is changed in one shows."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from made_runs import ENVIRONMENT, Run, curves_of, measured, sweep_of

from harness.config.schedules import factor
from harness.config.trials import Sweep, Trial, expand
from harness.records.record import Curves, Record, Recording
from harness.records.store import Store

STEPS_PER_EPOCH, EXAMPLES, MAJORITY, TRAINING = 20, 400, 200, 320  # 320 examples in batches of 16
TEXT = "task: embedded\nmodel: embedded\nlr: [1e-5, 2e-5]\nepochs: 3\nseeds: 1..4\n"
PARTS = ("embeddings", "1 attention", "head")


def whole_curves(trial: Trial, run: Run, *, record: bool = False) -> Curves:
    """Arrays as training a trial would leave them, once evaluated an epoch; no two trials have the same."""
    recipe, steps = trial.recipe, STEPS_PER_EPOCH * trial.recipe.epochs
    made = curves_of(measured(run, steps, MAJORITY, EXAMPLES, "accuracy"), STEPS_PER_EPOCH)
    noise = np.random.default_rng(int(hashlib.sha256(trial.id.encode()).hexdigest()[:8], 16)).uniform(0, 0.01, steps)
    logits = made.logits
    loss = cross_entropy(logits, made.labels)
    evaluations = made.eval_step[1:]
    curves = replace(
        made,
        train_loss=(made.train_loss + noise).astype(np.float32),
        lr=np.array([recipe.lr * factor(step, steps, recipe) for step in range(steps)]),
        grad_norm=(made.grad_norm + noise).astype(np.float32),
        eval_step=evaluations,
        dev_loss=np.full(len(evaluations), np.nan if loss is None else loss, np.float32),
        dev_score=made.dev_score[1:],
    )
    return replace(curves, recording=recording_of(curves)) if record else curves


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float | None:
    """The mean cross-entropy of logits [N, C], of one column its squared error, by the textbook; None: not finite."""
    if not np.isfinite(logits).all():
        return None
    if logits.shape[1] == 1:
        return float(((logits[:, 0] - labels) ** 2).mean())
    shares = np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum(axis=1, keepdims=True)
    return float(-np.log(shares[np.arange(len(labels)), labels]).mean())


def recording_of(curves: Curves) -> Recording:
    """A recording of every second update, of three parts whose gradients make the whole's."""
    update = np.arange(1, len(curves.train_loss) + 1, 2)
    shares = np.sqrt(np.array([0.5, 0.3, 0.2]))
    answers = np.zeros(2, np.int32)
    if np.isfinite(curves.logits).all():
        answers = np.bincount(curves.logits.argmax(axis=1), minlength=2).astype(np.int32)
    evaluations = len(curves.eval_step)
    return Recording(
        layers=np.array(PARTS),
        update=update,
        layer_norm=(curves.grad_norm[update - 1][:, None] * shares).astype(np.float32),
        update_norm=np.full(len(update), 0.01, np.float32),
        weight_norm=np.full(len(update), 10, np.float32),
        predicted=np.tile(answers, (evaluations, 1)),
        cls_rank=np.ones(evaluations, np.float32),
        cls_cosine=np.ones(evaluations, np.float32),
    )


def save_whole(store: Store, sweep: Sweep, trial: Trial, run: Run, *, record: bool = False, **changes: object) -> None:
    """Write a made-up record whose sums are those of its arrays; `changes` of its result go on top."""
    found, curves = None, None
    if not run.crashed:
        found = measured(run, STEPS_PER_EPOCH * trial.recipe.epochs, MAJORITY, EXAMPLES, "accuracy")
        curves = whole_curves(trial, run, record=record)
        found = found.model_copy(update=sums(curves) | {
            "train_examples": TRAINING, "weights_sha256": hashlib.sha256(trial.id.encode()).hexdigest(),
        } | changes)  # fmt: skip
    store.save(
        Record(
            id=trial.id, sweep=sweep.name, profile=sweep.profile, trial=trial, attempts=1, arrays_sha256=None,
            status="crashed" if run.crashed else "finished", started_utc="2025-01-01T00:00:00Z",
            environment=ENVIRONMENT, measured=found, error=run.crashed,
        ),
        curves,
    )  # fmt: skip


def sums(curves: Curves) -> dict[str, object]:
    """What a record sums up of its curves."""
    bad, scores = np.flatnonzero(np.isnan(curves.train_loss)), curves.dev_score
    best = int(np.nanargmax(scores)) if np.isfinite(scores).any() else None
    loss = float(np.mean(curves.train_loss[-STEPS_PER_EPOCH:], dtype=np.float64))
    return {
        "best_score": None if best is None else float(scores[best]),
        "best_step": None if best is None else int(curves.eval_step[best]),
        "final_train_loss": loss if math.isfinite(loss) else None,
        "final_dev_loss": float(curves.dev_loss[-1]) if np.isfinite(curves.dev_loss[-1]) else None,
        "diverged_step": int(bad[0]) + 1 if bad.size else None,
    }


def whole_store(folder: Path, runs: list[Run | None], text: str = TEXT, *, record: bool = False) -> tuple[Sweep, Store]:
    """A results folder with one run a planned trial; None is a missing one."""
    sweep = sweep_of(folder, text)
    store = Store(folder / "results" / sweep.folder_name)
    store.save_plan(sweep)
    for trial, run in zip(expand(sweep), runs, strict=True):
        if run is not None:
            save_whole(store, sweep, trial, run, record=record)
    return sweep, store


# -------------------------------------------------------------------------------------------------------- to damage it


def edit(store: Store, name: str, **fields: object) -> None:
    """Change fields of a record's file, those of its result as `measured__<field>`."""
    content = json.loads(store.path(name).read_text())
    for key, value in fields.items():
        *outer, last = key.split("__")
        inside = content
        for part in outer:
            inside = inside[part]
        inside[last] = value
    store.path(name).write_text(json.dumps(content, indent=1) + "\n")  # as it was written


def field_of(store: Store, name: str, key: str) -> object:
    """A field of a record's file, as `edit` names it."""
    value = json.loads(store.path(name).read_text())
    for part in key.split("__"):
        value = value[part]
    return value


def arrays_of(store: Store, name: str) -> dict[str, np.ndarray]:
    """All arrays of a trial's file by name."""
    with np.load(store.path(name).with_suffix(".npz")) as kept:
        return dict(kept)


def rewrite(store: Store, name: str, *, keep_hash: bool = False, **arrays: np.ndarray | None) -> None:
    """Change a trial's arrays (None removes one); the record's hash goes with them unless it is kept."""
    content: Mapping[str, np.ndarray | None] = arrays_of(store, name) | arrays
    path = store.path(name).with_suffix(".npz")
    np.savez_compressed(path, **{key: value for key, value in content.items() if value is not None})  # type: ignore[arg-type]
    if not keep_hash:
        edit(store, name, arrays_sha256=store.arrays_sha256(name))
