"""The loss over the plane through pretrained weights and those of two trials (Figure 7 of Mosbach et al. 2021)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from harness.common.errors import HarnessError
from harness.config.trials import Sweep, Trial, expand
from harness.execution import lanes_memory, machine
from harness.models import saved, token_hash
from harness.records.record import Surface
from harness.records.store import Store
from harness.training import probes
from harness.training.prepare import load_network, load_task

POINTS = 21  # of each side of the grid
EXAMPLES = 128  # of the training data, over which the loss is taken
_MARGIN = 0.35  # of the longer side, around the three points


def plane(
    start: np.ndarray, first: np.ndarray, second: np.ndarray
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """The three places [3, 2] in the plane through weights [P], its grid [2, POINTS], and its two directions [P].

    The directions are orthonormal (Gram and Schmidt): distances in the plane are those between weights.
    Raises HarnessError where the three lie on a line.
    """
    first_end, second_end = (weights.astype(np.float64) - start for weights in (first, second))
    length = float(np.linalg.norm(first_end))
    along = first_end / (length or 1.0)
    rest = second_end - (second_end @ along) * along
    height = float(np.linalg.norm(rest))
    if height <= 1e-6 * max(length, float(np.linalg.norm(second_end))):
        raise HarnessError(
            "the weights of the two trials lie on one line with the pretrained ones, which spans no plane",
            fix="Name another trial",
        )
    across = rest / height
    places = np.array([[0.0, 0.0], [length, 0.0], [float(second_end @ along), height]])
    low, high = places.min(axis=0), places.max(axis=0)
    margin = _MARGIN * float((high - low).max())
    grid = np.stack([np.linspace(low[axis] - margin, high[axis] + margin, POINTS) for axis in range(2)])
    return places, grid, (along, across)


def compute(
    sweep: Sweep,
    store: Store,
    ids: tuple[str, str],
    *,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Surface:
    """Compute the loss surface through two saved trials of one cell and the start of the first, and save it.

    Args:
        sweep: The sweep of the trials.
        store: Its results folder, where their weights are saved.
        ids: The ids of the two trials.
        threads: CPU threads to compute with.
        progress: Called with (done, all) grid points.

    Returns:
        The surface on a grid of `POINTS` by `POINTS`.

    Raises:
        HarnessError: The trials are not of one cell, their weights are not saved, or data, tokenizer or pretrained
            weights are others than they were trained with.
    """
    trials = [_trial(sweep, name) for name in ids]
    if trials[0].cell != trials[1].cell or trials[0].id == trials[1].id:
        raise HarnessError(
            "a loss surface needs two different trials of one cell",
            got=f"{ids[0]} and {ids[1]}",
            fix="Name two ids that differ in the seed only, such as a failed and a successful one",
        )
    for given_trial in trials:
        _check_inputs(store, given_trial)
    ends = [
        np.concatenate([value.ravel() for value in saved.weights(store, given_trial.id).values()])
        for given_trial in trials
    ]
    trial = trials[0]
    device = "cuda" if machine.detect_hardware().gpus else "cpu"
    start = probes.starting_weights(trial)
    places, grid, (along, across) = plane(start, *ends)
    points = [(x, y) for y in grid[1] for x in grid[0]]
    losses, norms = probes.losses_at(
        trial,
        ((start + x * along + y * across).astype(np.float32) for x, y in points),
        EXAMPLES,
        lanes=min(lanes_memory.pack_size(trial.recipe, device, None), len(points)),
        device=device,
        threads=threads,
        progress=None if progress is None else lambda done: progress(done, len(points)),
    )
    shape = (POINTS, POINTS)
    surface = Surface(
        trials=np.array([given_trial.id for given_trial in trials]),
        x=grid[0],
        y=grid[1],
        loss=losses.reshape(shape),
        gradient_norm=norms.reshape(shape),
        places=places,
        examples=np.array(EXAMPLES),
    )
    store.save_surface(surface)
    return surface


def _check_inputs(store: Store, trial: Trial) -> None:
    """Refuse a surface over other data, tokens or pretrained weights than those of the trial's record."""
    record, recipe = store.load(trial.id), trial.recipe
    if record is None or record.measured is None:
        return
    task = load_task(recipe.task, recipe.model, recipe.max_length)
    current = {
        "data": (record.measured.data_sha256, task.sha256),
        "tokenizer": (record.measured.tokens_sha256, token_hash.tokens_sha256(task)),
        "config.json": (record.measured.config_sha256, load_network(recipe, task).config_sha256),
        "pretrained weights": (record.measured.model_sha256, load_network(recipe, task).sha256),
    }
    for name, (then, now) in current.items():
        if then not in (None, now):
            raise HarnessError(
                f"{trial.id} was trained with another {name} than there is now"
                if name == "tokenizer"
                else f"{trial.id} was trained with other {name} than there are now",
                fix="Restore the data, tokenizer and pretrained weights",
            )


def _trial(sweep: Sweep, name: str) -> Trial:
    for trial in expand(sweep):
        if trial.id == name:
            return trial
    raise HarnessError(f"the sweep has no trial {name} (--surface)", fix="Copy two ids from the report's table of runs")
