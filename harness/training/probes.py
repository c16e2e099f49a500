"""What is measured with a run that no result comes of: a step's time, a range of rates, losses at given weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

import numpy as np
import torch

from harness.config.trials import Trial
from harness.training.batches import Batch
from harness.training.loop import update
from harness.training.numerics import deterministic_numerics
from harness.training.run import TrainingRun, set_up


def seconds_per_lane_step(trial: Trial, lanes: int, device: str, threads: int) -> tuple[float, int]:
    """Seconds that one update takes in a pack of so many lanes, over the lanes; and the updates of an epoch."""
    with deterministic_numerics(device, threads, trial.recipe.precision):
        run = set_up([trial] * lanes, torch.device(device), replay=False)
        times = []
        for _ in range(4):
            started = time.perf_counter()
            update(run, 0)
            float(run.log.losses[-1][0])  # waits for the device
            times.append(time.perf_counter() - started)
        return sorted(times[1:])[1] / lanes, run.pack.epoch_steps


def lr_range(
    pack: Sequence[Trial],
    low: float,
    high: float,
    *,
    device: str,
    threads: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """A learning-rate range test of each lane over the recipe's epochs.

    The rate of update s of S is low · (high/low)^(s/(S-1)), without warm-up or schedule; a loss is that of the step's
    batch before its update. Source: Smith (2017), with the exponential form of Gugger (2018).

    Returns:
        Rates [S], and training losses [S, L] in nats.
    """
    with deterministic_numerics(device, threads, pack[0].recipe.precision):
        run = set_up(pack, torch.device(device), record=False)
        steps = run.pack.total_steps
        rates = low * (high / low) ** (np.arange(steps) / max(1, steps - 1))
        run.optimizer.range_test = lambda step: float(rates[step])
        for step in range(steps):
            update(run, step)
            if progress is not None:
                progress(step + 1, steps)
        return rates, torch.stack(run.log.losses).cpu().numpy()


def starting_weights(trial: Trial) -> np.ndarray:
    """The weights that a trial starts from, [P] float32: the pretrained ones, and the head of its seed."""
    return set_up([trial], torch.device("cpu"), record=False, random=False).lanes.weights[0].numpy()


def losses_at(
    trial: Trial,
    weights: Iterable[np.ndarray],
    examples: int,
    *,
    lanes: int,
    device: str,
    threads: int,
    progress: Callable[[int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Training loss and gradient norm of a trial's recipe at given weights, without any remedy that draws.

    Args:
        trial: The trial whose recipe and data are used.
        weights: N weights [P] each, drawn as they are needed.
        examples: Over how many of the first training examples.
        lanes: How many weights are computed together.
        device: `cpu` or `cuda`.
        threads: CPU threads.
        progress: Called with how many weights are done.

    Returns:
        Losses [N] in nats, a mean over the examples or over their words or tokens that have a label, and the norms of
        their gradients [N].
    """
    with deterministic_numerics(device, threads, trial.recipe.precision):
        run = set_up([trial] * lanes, torch.device(device), record=False, replay=False, random=False)
        points, results, done = iter(weights), list[tuple[np.ndarray, np.ndarray]](), 0
        while chosen := list(islice(points, lanes)):
            idle = [chosen[-1]] * (lanes - len(chosen))  # of the last pack, so that the run need not be built again
            losses, norms = _losses_and_norms(run, np.stack([*chosen, *idle]), min(examples, len(run.training)))
            results.append((losses[: len(chosen)], norms[: len(chosen)]))
            done += len(chosen)
            if progress is not None:
                progress(done)
        return np.concatenate([losses for losses, _ in results]), np.concatenate([norms for _, norms in results])


def _losses_and_norms(run: TrainingRun, weights: np.ndarray, examples: int) -> tuple[np.ndarray, np.ndarray]:
    """The loss [L] and its gradient's norm [L] of each lane's weights [L, P] over the first so many examples."""
    with torch.no_grad():
        run.lanes.weights.copy_(torch.from_numpy(weights))
    total = torch.zeros(len(run.lanes), device=run.pack.device)
    run.lanes.gradient.zero_()
    batch = Batch(torch.arange(examples).expand(len(run.lanes), -1), run.lanes.all, 0)
    for remedy in run.remedies:
        batch = remedy.change_batch(batch, run.training)
    arguments, kind = run.lanes.trained_arguments(run.lanes.weights), run.pack.kind
    for part in batch.split(run.pack.recipe.batch_size):
        total += run.loss_and_gradient.at_one_width(arguments, part, 1 if kind.per_token else examples, add=True)
    if kind.per_token:
        divisor = kind.divisor(run.training.labels_of(batch.rows))  # [L]
        assert divisor is not None
        total /= divisor
        run.lanes.gradient.div_(divisor[:, None])
    norms = torch.linalg.vector_norm(run.lanes.gradient.double(), dim=1)
    return total.cpu().numpy(), norms.cpu().numpy()
