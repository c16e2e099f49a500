"""Which trials train together, in which order, and what is tried after a pack failed; pure."""

from __future__ import annotations

import heapq
import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from harness.config.script import AnyRecipe
from harness.config.trials import Trial

# A pack whose worker dies is tried once more as it is, then in halves, then its last lane is recorded as crashed.
DEATHS_BEFORE_SPLIT = 2
SHARES = (1, 0.7, 0.5, 0.35)  # of a pack of the longest trials, that packs of shorter ones may be: they fill the gaps
TAIL = 2  # packs a worker that are handed out longest first, at the end
CLOSE = 1.02  # times the least time there can be: no other cut is tried
STEP_OVERHEAD = 0.7  # lanes that the fixed part of a step is worth, on one core (`make bench`)


@dataclass(frozen=True)
class Job:
    """A pack to train, and how often its worker died with it."""

    trials: tuple[Trial, ...]
    deaths: int = 0
    repeat: int = 0  # of a script's run that `repeats:` asks for, which one, from 2
    endings: tuple[str, ...] = ()  # how the crashed runs of a script ended before

    @property
    def work(self) -> float:
        """What its time is in proportion to, in epochs of one lane."""
        return self.trials[0].settings.passes * (len(self.trials) + STEP_OVERHEAD)


def pack(trials: Sequence[Trial], size: Callable[[AnyRecipe], int], workers: int) -> list[Job]:
    """Cut trials into packs of one shape, seed by seed over the cells, so that half a sweep already has all cells.

    Large packs are cheap and small ones fill the workers evenly: of some ways to cut, largest packs first, the one that
    ends first in a simulation (`makespan`). Shapes take turns; at the end the longer packs come before the shorter.
    """
    groups: dict[object, list[Trial]] = defaultdict(list)
    ranks: dict[int, int] = defaultdict(int)  # cell -> how many of its trials came before
    rank = {}
    for trial in trials:
        rank[trial.id] = ranks[trial.cell]
        ranks[trial.cell] += 1
        groups[trial.settings.shape].append(trial)
    for group in groups.values():
        group.sort(key=lambda trial: (rank[trial.id], trial.cell))
    shapes = [(group, size(group[0].settings)) for group in groups.values()]
    longest = max((group[0].settings.passes for group, _ in shapes), default=0)
    most = max((lanes for _, lanes in shapes), default=0)
    jobs = _cut(shapes, longest * (most + STEP_OVERHEAD), 1, workers)
    ends, close = makespan(jobs, workers), CLOSE * sum(job.work for job in jobs) / workers
    for lanes, share in itertools.product(range(most, 0, -1), SHARES):
        if ends <= close:
            break
        cut = _cut(shapes, longest * (lanes + STEP_OVERHEAD), share, workers)
        if (end := makespan(cut, workers)) < ends:
            jobs, ends = cut, end
    return jobs


def _cut(shapes: Sequence[tuple[list[Trial], int]], work: float, share: float, workers: int) -> list[Job]:
    """Packs of at most their shape's lanes and so much work, those of shorter trials a share of it, in their order."""
    longest = max((group[0].settings.passes for group, _ in shapes), default=0)
    turns = []
    for group, most in shapes:
        epochs = group[0].settings.passes
        room = (work if epochs == longest else share * work) / epochs - STEP_OVERHEAD
        lanes = max(1, min(most, int(room + 1e-9)))
        turns += [(at / len(group), Job(tuple(group[at : at + lanes]))) for at in range(0, len(group), lanes)]
    jobs = [job for _, job in sorted(turns, key=lambda turn: (turn[0], -turn[1].work))]
    tail = max(0, len(jobs) - TAIL * workers)
    return jobs[:tail] + sorted(jobs[tail:], key=lambda job: -job.work)


def makespan(jobs: Sequence[Job], workers: int) -> float:
    """When the last worker is done, each taking the next pack as soon as it is free, in epochs of one lane."""
    free = [0.0] * workers
    for job in jobs:
        heapq.heappush(free, heapq.heappop(free) + job.work)
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


def after_crash(job: Job, ending: str) -> list[Job]:
    """What to try after a script's run crashed; an empty list when it is to be recorded.

    It is tried as often as its `retries` say, unless it ended in the same way before: that is deterministic, but where
    a signal ended it, which may be the system's in want of memory.
    """
    script = job.trials[0].script
    assert script is not None
    if len(job.endings) >= script.script.retries or (ending in job.endings and "signal" not in ending):
        return []
    return [replace(job, endings=(*job.endings, ending))]


def fitting(job: Job, lanes: int) -> list[Job]:
    """A pack, in parts of no more lanes than fit."""
    return [replace(job, trials=job.trials[start : start + lanes]) for start in range(0, len(job.trials), lanes)]
