"""The time left is not said before it is within a factor of two; packs, workers and their clock are made up."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.config.recipe import Recipe, TaskSpec
from harness.config.trials import Trial
from harness.execution.pace import TimeLeft, Track, until_evaluated
from harness.execution.packing import Job

Make = Callable[..., Trial]
SIZES = (1000, 100)


def sizes(task: TaskSpec) -> tuple[int, int]:
    return SIZES


def guess(recipe: Recipe) -> tuple[float, float]:
    """In proportion to the tokens of a trial, as `duration.guessed_seconds`."""
    return recipe.passes * recipe.max_length / 3, recipe.passes * recipe.max_length * 3


@dataclass(frozen=True)
class World:
    """How long things really take, in seconds: `load` a worker's first pack before its first step, whose first steps
    take `slow` more in all; a unit of work of the shapes with a `max_length`.
    """

    workers: int
    load: float
    slow: float
    pace: dict[int, float]

    def seconds(self, job: Job) -> float:
        return self.pace[job.trials[0].recipe.max_length] * job.work

    def share(self, job: Job, since: float, first: bool) -> float:
        """Of a pack's 200 steps, those done so long after its start; the slow ones are its first three."""
        left, step = since - self.load * first, self.seconds(job) / 200
        for early in range(3) if first else ():
            if left < step + self.slow / 3:
                return early / 200
            left -= step + self.slow / 3
        return min(1.0, math.floor(3 * first + max(0.0, left) / step) / 200)

    def whole(self, job: Job, first: bool) -> float:
        return self.seconds(job) + (self.load + self.slow) * first


def said(world: World, jobs: list[Job]) -> tuple[list[tuple[float, float | None]], float]:
    """What is said each second, and when the last pack ends."""
    left, queue, now = TimeLeft(guess, sizes), list(jobs), 0.0
    training: dict[int, tuple[Job, float, bool]] = {}  # worker -> pack, start, whether its first
    found: list[tuple[float, float | None]] = []
    fresh = set(range(world.workers))
    while queue or training:
        for worker in range(world.workers):
            if worker not in training and queue:
                training[worker] = (queue.pop(0), now, worker in fresh)
                fresh.discard(worker)
                left.start(training[worker][0], now)
        now += 1.0
        for worker, (job, began, first) in list(training.items()):
            if now - began >= world.whole(job, first):
                del training[worker]
                left.end(job, now, trained=True)
        running = [(job, world.share(job, now - began, first)) for job, began, first in training.values()]
        for job, share in running:
            left.hear(job, share, now)
        found.append((now, left.seconds(running, queue, world.workers)))
    return found, now


def jobs_of(trial: Make, lengths: list[int], packs: int, lanes: int) -> list[Job]:
    """The same number of packs of each `max_length`, in turns as the queue has them."""
    return [
        Job(tuple(trial(100 * number + lane, max_length=length) for lane in range(lanes)))
        for number in range(packs)
        for length in lengths
    ]


@settings(max_examples=20)
@given(
    workers=st.integers(1, 4), load=st.floats(0, 60), slow=st.floats(0, 30), lanes=st.integers(1, 4),
    packs=st.integers(1, 3), fastest=st.floats(3, 14), slower=st.lists(st.floats(1, 3), min_size=1, max_size=3),
)  # fmt: skip
def test_what_is_said_is_within_a_factor_of_two(
    trial: Make, workers: int, load: float, slow: float, lanes: int, packs: int, fastest: float, slower: list[float]
) -> None:
    """But for the last half minute, in which seconds count; the arithmetic of the shapes is wrong by 3 at most."""
    paces = [fastest * factor for factor in slower]
    lengths = [8 * (number + 1) for number in range(len(paces))]
    world = World(workers, load, slow, {length: pace * length / 8 for length, pace in zip(lengths, paces, strict=True)})
    jobs = jobs_of(trial, lengths, packs, lanes)
    lines, end = said(world, jobs)
    for now, seconds in lines:
        if seconds is not None and end - now > 30:
            assert (end - now) / 2 - 2 <= seconds <= 2 * (end - now) + 2, (now, seconds, end - now)


def test_a_slow_start_is_held_back_and_is_no_part_of_the_pace(trial: Make) -> None:
    """What was said after a step of a large model's sweep: days for what took two hours."""
    world = World(2, load=60.0, slow=30.0, pace={8: 20.0})
    jobs = jobs_of(trial, [8], 60, 2)
    lines, end = said(world, jobs)
    first, seconds = next((now, seconds) for now, seconds in lines if seconds is not None)
    assert 60 < first < 200
    assert seconds == pytest.approx(end - first, rel=0.4)
    assert end > 3000


def test_shapes_that_none_has_trained_are_reckoned_and_held_back_while_they_are_most(trial: Make) -> None:
    left = TimeLeft(guess, sizes)
    short, long = jobs_of(trial, [8, 32], 1, 2)
    left.start(short, 0.0)
    left.end(short, 10.0, trained=True)
    assert left.seconds([], [short] * 4, 1) == pytest.approx(40.0)
    assert left.seconds([], [short] * 9 + [long], 1) == pytest.approx(90.0 + 40.0)  # four times the tokens
    assert left.seconds([], [short] * 29 + [long], 2) == pytest.approx(180.0)  # 15 and 14 of 10 s, then the long one
    assert left.seconds([], [long] + [short] * 30, 2) == pytest.approx(170.0)  # the others go round it
    assert left.seconds([], [short] * 9 + [long], 2) is None  # the long one alone decides when it ends
    assert left.seconds([], [short] * 4 + [long], 1) is None  # half of it would be a guess
    unknown = TimeLeft(lambda recipe: None, sizes)
    unknown.start(short, 0.0)
    unknown.end(short, 10.0, trained=True)
    assert unknown.seconds([], [short] * 9 + [long], 1) is None
    assert unknown.seconds([], [short] * 9, 1) == pytest.approx(90.0)


def test_a_pack_that_did_not_end_says_nothing_and_the_last_is_waited_for(trial: Make) -> None:
    left = TimeLeft(guess, sizes)
    one, other = jobs_of(trial, [8], 2, 2)
    left.start(one, 0.0)
    left.end(one, 1.0, trained=False)
    assert left.seconds([], [other], 1) is None
    left.start(one, 1.0)
    left.end(one, 11.0, trained=True)
    assert left.seconds([(other, 0.5)], [], 4) == pytest.approx(5.0)  # three workers are idle
    assert left.seconds([], [], 4) == 0.0


def test_a_pack_that_goes_on_from_a_checkpoint_has_its_pace_from_there() -> None:
    track = Track(0.0, warm=False, sees=0.0)
    for second in range(20):
        track.hear(0.5 + second / 100, 30.0 + second)
    assert track.seconds == pytest.approx(100.0)
    uneven = Track(0.0, warm=False, sees=0.0)
    for second in range(20):
        uneven.hear(second / 1000 if second < 10 else (second - 9) / 100, float(second))
    assert uneven.seconds is None


def test_long_evaluations_are_waited_for(trial: Make) -> None:
    """A dev set of twenty training sets takes most of the time, which the first steps don't show."""
    recipe = trial(1, epochs=4, batch_size=10).recipe
    assert until_evaluated(recipe, (100, 100)) == 0
    assert until_evaluated(recipe, (100, 2000)) == 1 / 4
    assert until_evaluated(recipe, None) == 1 / 4
    often = trial(1, epochs=4, batch_size=10, eval_steps=2).recipe
    assert until_evaluated(often, (100, 20)) == 0
    assert until_evaluated(often, (100, 100)) == 2 / 40
    track = Track(0.0, warm=False, sees=1 / 4)
    for second in range(20):
        track.hear(second / 100, float(second))
    assert track.seconds is None
    for second in range(50):
        track.hear(0.2 + second / 1000, 20.0 + second)
    assert track.seconds is None  # the two halves differ tenfold
