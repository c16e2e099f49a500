"""train(pack): trials of one shape, stacked on a leading axis and trained together; one result a lane.

A lane's result does not depend on its pack: every random draw comes from a stream keyed by the trial's own seeds,
every hyperparameter is a lane vector, and no operation mixes lanes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext

import torch

from harness.config.trials import Trial
from harness.training.callbacks import Callback
from harness.training.checkpoints import Checkpoint, StopTraining
from harness.training.numerics import deterministic_numerics
from harness.training.outcome import LaneResult, lane_results
from harness.training.run import TrainingRun, set_up
from harness.training.selection import DevLogits


def train(
    pack: Sequence[Trial],
    *,
    device: str = "cpu",
    threads: int = 1,
    checkpoint: Checkpoint | None = None,
    callbacks: Sequence[Callback] = (),
    record: bool = True,
    compiled: bool = False,
) -> list[LaneResult]:
    """Train the trials of a pack together and return one result per trial, in the same order.

    Args:
        pack: trials that share their recipes' `shape`.
        device: `cpu` or a CUDA device.
        threads: CPU threads that torch computes with; a part of what decides the last bits.
        checkpoint: training is resumed from it, and saved in it when that is due and where a callback raises
                StopTraining.
        callbacks: called after every update (progress, early-warning signals, a pruner).
        record: whether the results have what the diagnosis reads.
        compiled: whether the steps of whole batches are compiled, which changes their last bits.

    Returns:
        The results. None of them differs by a bit for checkpoint, callbacks or `record`.

    Raises:
        HarnessError: the data or the model cannot be used. A lane that diverges is a result, not an error.
    """
    with deterministic_numerics(device, threads, pack[0].recipe.precision):
        started = time.monotonic()
        run = set_up(pack, torch.device(device), record=record, compiled=compiled)
        if checkpoint is not None and (saved := checkpoint.read(run.made_of_sha256())):
            run.load_state(saved[0])
            started -= saved[1]

        for step in range(run.updates, run.pack.total_steps):
            if run.selection.all_stopped:
                break
            update(run, step)
            if run.pack.evaluates_after(step + 1):
                evaluate(run)
            if checkpoint is not None and checkpoint.due:
                checkpoint.write(run.state(), time.monotonic() - started)
            try:
                for callback in callbacks:
                    callback(run)
            except StopTraining:
                if checkpoint is not None:
                    checkpoint.write(run.state(), time.monotonic() - started)
                raise
        return lane_results(run, time.monotonic() - started)


def update(run: TrainingRun, step: int) -> None:
    """One update of every lane by its next batch, counted from 0: forward, backward, clip, optimizer."""
    lanes, remedies = run.lanes, run.remedies

    # forward and backward; the remedies say what is read and by which weights
    batch = run.batches.draw(step)  # rows [L, B]
    for remedy in remedies:
        batch = remedy.change_batch(batch, run.training)
    weights = lanes.weights  # [L, P]
    for remedy in remedies:
        weights = remedy.weights_for_step(weights)
    loss = run.loss_and_gradient(weights, batch)  # [L]; the gradient is in lanes.gradient [L, P]
    run.log.losses.append(loss)

    # clip, schedule, update
    with torch.no_grad():
        for remedy in remedies:
            remedy.change_gradient(lanes.gradient)
        run.log.rates.append(run.optimizer.rates())
        telemetry, flat = run.telemetry, (lanes.weights, lanes.gradient)
        with telemetry.update(step + 1, *flat, run.optimizer) if telemetry else nullcontext():
            run.log.norms.append(run.optimizer.step(lanes.gradient))  # [L], before clipping
        for remedy in remedies:
            remedy.after_update(lanes.weights, step + 1)


def evaluate(run: TrainingRun) -> None:
    """Evaluate every lane on the dev split, and let the remedies stop lanes or choose what their results are of."""
    weights = run.lanes.weights
    for remedy in run.remedies:
        weights = remedy.weights_for_evaluation(weights, run.updates)
    logits, vectors = run.evaluator(weights, run.validation, run.updates, with_vectors=run.keeps_vectors)
    if run.telemetry is not None:
        run.telemetry.evaluation(logits, vectors)
    evaluation = DevLogits(run.updates, logits)  # [L, N, C]
    run.log.evaluations.append(evaluation)
    run.selection.add_evaluation()
    for remedy in run.remedies:
        remedy.after_evaluation(evaluation, weights, run.selection)
