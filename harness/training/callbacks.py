"""What is told of a pack while it trains: a callback is called with the run after every update."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from harness.common.metrics import Evaluation
from harness.records import early_signals
from harness.training.outcome import above_chance
from harness.training.run import TrainingRun

Callback = Callable[[TrainingRun], None]


def report_progress(progress: Callable[[int, int], None]) -> Callback:
    """Call `progress(updates done, updates in all)`; what it raises ends the training."""
    return lambda run: progress(run.updates, run.pack.total_steps)


class ReportSignals:
    """Gives the early-warning signals of each lane so far, [L, t, K], whenever one more of their shares is reached.

    The device is waited for 40 times a run at most, and not between. A lane that stopped early has NaN from there; a
    run that is not recorded has no signals.
    """

    def __init__(self, send: Callable[[np.ndarray], None]) -> None:
        """Send the signals."""
        self.send = send
        self.signals: np.ndarray | None = None  # [L, t, K], at the shares reached

    def __call__(self, run: TrainingRun) -> None:
        """Send them where a share is reached."""
        signals, done, steps, lanes = self.signals, run.updates, run.pack.total_steps, len(run.lanes)
        first = 0 if signals is None else signals.shape[1]
        reached = early_signals.reached(done, steps)
        if run.telemetry is None or reached == first:
            return
        losses = torch.stack(run.log.losses).cpu().numpy()  # [S, L]
        new = np.full((lanes, reached - first, len(early_signals.SIGNALS)), np.nan)
        evaluations = np.array(run.log.eval_steps)
        for lane, rows in enumerate(new):
            made = run.selection.stopped.get(lane, done)
            recorded = run.telemetry.of(lane, made, len(evaluations))
            known = early_signals.signals_since(first, losses[:made, lane], steps, evaluations, recorded)
            rows[: len(known)] = known
        self.signals = new if signals is None else np.concatenate([signals, new], axis=1)
        self.send(self.signals)


class ReportEvaluations:
    """Gives how the lanes stand at each evaluation, for a pruner."""

    def __init__(self, send: Callable[[Evaluation], None]) -> None:
        """Send the evaluations."""
        self.send = send
        self.sent = 0

    def __call__(self, run: TrainingRun) -> None:
        """Send those since the last call."""
        while self.sent < len(run.log.evaluations):
            self.send(standing(run, self.sent))
            self.sent += 1


def standing(run: TrainingRun, number: int) -> Evaluation:
    """How the lanes stood at an evaluation, counted from 0, were training to end there."""
    task, update = run.pack.task, run.log.evaluations[number].update
    scores = [
        run.score(run.log.evaluations[result].logits[lane])
        for lane, result in enumerate(run.selection.standing[number])
    ]
    steps, examples = run.pack.total_steps, task.validation.examples
    return Evaluation(
        share=update / steps,
        scores=np.array([run.majority.value if score.value is None else score.value for score in scores]),
        risen=np.array([above_chance(score, run.majority, examples) for score in scores]),
        last=all(run.selection.stopped.get(lane, steps) <= update for lane in range(len(scores))),
    )
