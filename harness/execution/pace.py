"""How long a sweep still takes, by its packs' own pace; not said before it is known within a factor of two.

That bound takes two things for granted: packs of a shape go on as they began, and the arithmetic of a shape that none
has trained yet is wrong by a factor of three at most (`_ARITHMETIC`).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.config.recipe import Recipe, TaskSpec
from harness.config.script import AnyRecipe, ScriptRecipe
from harness.execution.packing import Job

# A pack's pace is taken for known after so many seconds and changes of its share since its first step, where its first
# half and its second differ by no more than this factor: the first steps compile, record and allocate.
_SECONDS, _CHANGES, _STEADY = 5.0, 4, 1.6
# Shapes that no pack has trained yet are reckoned from their arithmetic, which may be too low by the first factor;
# nothing is said where the time left would then be longer by more than the second, which leaves some of the factor of
# two to the rest.
_ARITHMETIC, _LONGER = 3.0, 5 / 3
_MOST_MARKS = 64


@dataclass
class Track:
    """What was heard of a pack in training: when, and which share of its steps was done."""

    started: float
    warm: bool  # whether its worker had trained a pack before
    sees: float  # the share from which on what has been trained stands for the rest: the first evaluation is behind it
    marks: list[tuple[float, float]] = field(default_factory=list)  # (seconds, share), from the first step on

    def hear(self, share: float, now: float) -> None:
        """Note a share where it is another than before."""
        if share > 0 and (not self.marks or share > self.marks[-1][1]):
            self.marks.append((now, share))
            if len(self.marks) > _MOST_MARKS:
                self.marks = self.marks[:1] + self.marks[2::2]

    @property
    def seconds(self) -> float | None:
        """What the whole pack takes, its start left out; None while that is not known."""
        if len(self.marks) <= _CHANGES:
            return None
        (began, first), (now, share) = self.marks[0], self.marks[-1]
        if now - began < _SECONDS or share < self.sees:
            return None
        middle, half = min(self.marks[1:-1], key=lambda mark: abs(mark[1] - (first + share) / 2))
        early, late = (middle - began) / (half - first), (now - middle) / (share - half)
        if max(early, late) > _STEADY * min(early, late):
            return None
        return (now - began) / (share - first)

    def whole(self, now: float) -> float:
        """What the pack took, as it ended; a worker's first, which loads and compiles, by its second half."""
        if self.warm or not self.marks or self.marks[0][1] > 0.5:
            return now - self.started
        middle, half = min(self.marks, key=lambda mark: abs(mark[1] - 0.5))
        return (now - middle) / (1 - half)


def until_evaluated(recipe: Recipe, sizes: tuple[int, int] | None) -> float:
    """The share of a pack's steps up to its first evaluation; 0 where evaluations hardly count beside the training.

    `sizes` are the examples to train with and to evaluate on, None where that isn't known.
    """
    if sizes is None:
        return 1 / recipe.epochs
    train, dev = sizes[0] * (1 + recipe.copies), sizes[1]
    epoch = math.ceil(train / recipe.batch_size)
    every = recipe.eval_steps or max(1, int((recipe.eval_every or 1.0) * epoch))
    evaluating = (epoch / min(every, epoch)) * dev / 3  # a forward pass is a third of forward and backward
    if evaluating < train * recipe.forward_passes / 2:
        return 0.0
    return min(1.0, min(every, epoch) / (recipe.max_steps or epoch * recipe.epochs))


def _makespan(running: Sequence[float], waiting: Sequence[float], workers: int) -> float:
    """Seconds until the last pack ends, each of the waiting ones going to the worker that is free first."""
    ends = [*running, *[0.0] * max(workers - len(running), 0 if running else 1)]
    heapq.heapify(ends)
    for seconds in waiting:
        heapq.heapreplace(ends, ends[0] + seconds)
    return max(ends)


class TimeLeft:
    """Learns how fast packs of each shape train, and says what is left of a sweep."""

    def __init__(
        self, guess: Callable[[Recipe], tuple[float, float] | None], sizes: Callable[[TaskSpec], tuple[int, int] | None]
    ) -> None:
        """`guess` gives the least and the most seconds of a lane, roughly; `sizes` is as in `until_evaluated`."""
        self._guess, self._sizes = guess, sizes
        self._tracks: dict[Job, Track] = {}
        self._ended: dict[object, tuple[float, float]] = {}  # shape -> (seconds, work)
        self._recipes: dict[object, AnyRecipe] = {}  # shape -> one of its recipes, of the packs that were started

    def start(self, job: Job, now: float) -> None:
        """A pack was given to a worker."""
        recipe = job.trials[0].settings
        self._recipes.setdefault(recipe.shape, recipe)
        first = 0.0 if isinstance(recipe, ScriptRecipe) else until_evaluated(recipe, self._sizes(recipe.task))
        self._tracks[job] = Track(now, bool(self._ended), first)

    def hear(self, job: Job, share: float, now: float) -> None:
        """So much of a pack is done."""
        if job in self._tracks:
            self._tracks[job].hear(share, now)

    def end(self, job: Job, now: float, trained: bool) -> None:
        """A pack came back, `trained` to its end or not."""
        track = self._tracks.pop(job, None)
        if track is not None and trained:
            shape = job.trials[0].settings.shape
            seconds, work = self._ended.get(shape, (0.0, 0.0))
            self._ended[shape] = (seconds + track.whole(now), work + job.work)

    def seconds(self, running: Sequence[tuple[Job, float]], queue: Sequence[Job], workers: int) -> float | None:
        """What packs in training (with the share that is done) and waiting ones still take; None while not known.

        The waiting ones go in their order to the worker that is free first, as the driver hands them out.
        """
        paces = self._paces([job for job, _ in running])
        expected, at_most = [], []  # seconds of each pack, those in training first
        for job, rest in [*((job, 1 - share) for job, share in running), *((job, 1.0) for job in queue)]:
            recipe = job.trials[0].settings
            pace = paces.get(recipe.shape)
            reckoned = pace is None
            if pace is None and (pace := self._reckoned(recipe, paces)) is None:
                return None
            seconds = rest * pace * job.work
            expected.append(seconds)
            at_most.append(_ARITHMETIC * seconds if reckoned else seconds)
        left, longest = (
            _makespan(seconds[: len(running)], seconds[len(running) :], workers) for seconds in (expected, at_most)
        )
        return left if longest <= _LONGER * left else None

    def _paces(self, training: Sequence[Job]) -> dict[object, float]:
        """Seconds a unit of work (`Job.work`) of each known shape: of ended packs, else of those in training."""
        heard: dict[object, list[float]] = {}
        for job in training:
            seconds = self._tracks[job].seconds if job in self._tracks else None
            if seconds is not None:
                heard.setdefault(job.trials[0].settings.shape, []).append(seconds / job.work)
        paces = {shape: sum(values) / len(values) for shape, values in heard.items()}
        return paces | {shape: seconds / work for shape, (seconds, work) in self._ended.items()}

    def _reckoned(self, recipe: AnyRecipe, paces: Mapping[object, float]) -> float | None:
        """The pace of an unseen shape: that of the known ones times what its arithmetic is of theirs."""
        own, ratios = self._of_a_pass(recipe), []
        for shape, pace in paces.items():
            theirs = self._of_a_pass(self._recipes[shape])
            if own is None or theirs is None:
                return None
            ratios.append(pace * own / theirs)
        return sum(ratios) / len(ratios) if ratios else None

    def _of_a_pass(self, recipe: AnyRecipe) -> float | None:
        if isinstance(recipe, ScriptRecipe):
            return 1.0  # as long as the others, as far as is known
        guess = self._guess(recipe)
        return None if guess is None else math.sqrt(guess[0] * guess[1]) / recipe.passes
