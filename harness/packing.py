"""Which trials train together, in which order, and what is tried after a pack failed; pure."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from harness.sweep import Recipe, Trial

# A pack whose worker dies is tried once more as it is, then in halves, then its last lane is recorded as crashed.
DEATHS_BEFORE_SPLIT = 2
# Parts of a worker's share of the work that a pack is tried with, and how far the longest shape goes ahead.
PARTS, HEAD_START = (0.5, 0.75, 1, 1.5, 2, 3, 4, 6), 0.5
STEP_OVERHEAD = 0.7  # lanes that the fixed part of a step is worth, on one core (`make bench`)


@dataclass(frozen=True)
class Job:
    """A pack to train, and how often its worker died with it."""

    trials: tuple[Trial, ...]
    deaths: int = 0

    @property
    def lane_epochs(self) -> int:
        """Epochs to train over all lanes, the measure of work left."""
        return sum(trial.recipe.epochs for trial in self.trials)


def pack(trials: Sequence[Trial], size: Callable[[Recipe], int], workers: int) -> list[Job]:
    """Cut trials into packs of one shape, seed by seed over the cells, so that half a sweep already has all cells.

    Large packs are cheap and small ones fill the workers evenly: of a few ways to cut, the one that ends first in a
    simulation (`makespan`). Shapes take turns, the longer ahead of the shorter, which fill the gaps at the end.
    """
    groups: dict[object, list[Trial]] = defaultdict(list)
    ranks: dict[int, int] = defaultdict(int)  # cell -> how many of its trials came before
    rank = {}
    for trial in trials:
        rank[trial.id] = ranks[trial.cell]
        ranks[trial.cell] += 1
        groups[trial.recipe.shape].append(trial)
    for group in groups.values():
        group.sort(key=lambda trial: (rank[trial.id], trial.cell))
    most = [(group, size(group[0].recipe)) for group in groups.values()]
    share = sum(trial.recipe.epochs for trial in trials) / workers  # epochs of all lanes that a worker has to train
    cuts = [_cut(most, share / parts) for parts in (PARTS if workers > 1 else (0.001,))]
    return min(cuts, key=lambda jobs: makespan(jobs, workers))


def _cut(groups: Sequence[tuple[list[Trial], int]], most_work: float) -> list[Job]:
    """Packs of at most their shape's lanes and of at most so much work (epochs of all lanes), in their order."""
    longest = max((group[0].recipe.epochs for group, _ in groups), default=1)
    jobs = []
    for group, size in groups:
        epochs = group[0].recipe.epochs
        lanes = int(max(1, min(size, most_work // epochs)))
        for start in range(0, len(group), lanes):
            turn = start / len(group) * (1 - HEAD_START * epochs / longest)
            jobs.append((turn, Job(tuple(group[start : start + lanes]))))
    return [job for _, job in sorted(jobs, key=lambda item: (item[0], -item[1].lane_epochs))]


def makespan(jobs: Sequence[Job], workers: int) -> float:
    """When the last worker is done, each taking the next pack as soon as it is free, in epochs of one lane."""
    free = [0.0] * workers
    for job in jobs:
        heapq.heappush(free, heapq.heappop(free) + job.trials[0].recipe.epochs * (len(job.trials) + STEP_OVERHEAD))
    return max(free)


def after_failure(job: Job, died: bool) -> list[Job]:
    """What to try after a pack failed; an empty list when its only trial is to be recorded as crashed.

    An error is deterministic, so it is never tried again as it was: halves find the lane that causes it, and a pack
    that was too large for the memory fits. A dead worker may have been bad luck: once more, then halves.
    """
    if died and job.deaths + 1 < DEATHS_BEFORE_SPLIT:
        return [replace(job, deaths=job.deaths + 1)]
    if len(job.trials) == 1:
        return []
    middle = len(job.trials) // 2
    return [Job(job.trials[:middle]), Job(job.trials[middle:])]


def fitting(job: Job, lanes: int) -> list[Job]:
    """A pack, in parts of no more lanes than fit."""
    return [replace(job, trials=job.trials[start : start + lanes]) for start in range(0, len(job.trials), lanes)]
