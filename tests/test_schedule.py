"""The queue of packs, simulated: how long a sweep takes, and what half a sweep already has."""

import heapq
from pathlib import Path

import pytest

from harness import execute
from harness.execute import Job
from harness.sweep import expand, load

RTE_LR = load(Path(__file__).parents[1] / "sweeps" / "rte_lr.yaml", "paper")
# Milliseconds a lane-step by lanes of the pack, as `make bench` measured them on one core; 5 s to start a pack.
MEASURED = {1: 36.1, 2: 27.9, 4: 23.5, 8: 22.4, 16: 21.6}
STEPS_AN_EPOCH, START = 156, 5.0


def seconds(job: Job) -> float:
    lanes = len(job.trials)
    lane_step = MEASURED[max(size for size in MEASURED if size <= lanes)]
    return job.trials[0].recipe.epochs * STEPS_AN_EPOCH * lane_step * lanes / 1000 + START


def makespan(jobs: list[Job], workers: int) -> float:
    """When the last of `workers` is done, each taking the next pack as soon as it is free."""
    free = [0.0] * workers
    for job in jobs:
        heapq.heappush(free, heapq.heappop(free) + seconds(job))
    return max(free)


@pytest.mark.parametrize("size", [1, 4, 8, 16])
@pytest.mark.parametrize(("workers", "over"), [(1, 1.1), (4, 1.1), (8, 1.1), (64, 1.2)])
def test_the_last_worker_ends_near_the_lower_bound(workers, over, size):
    """The bound is that of these packs: work over workers, or the longest pack. On 64 workers 10 % is not reached."""
    jobs = execute.pack(expand(RTE_LR), lambda recipe: size, workers)
    assert sum(len(job.trials) for job in jobs) == 450
    work = [seconds(job) for job in jobs]
    assert makespan(jobs, workers) <= over * max(sum(work) / workers, *work)


@pytest.mark.parametrize("size", [4, 8, 16])
@pytest.mark.parametrize("workers", [1, 4, 8])
def test_packs_stay_as_large_as_pays(workers, size):
    """Against all work in the largest packs, spread without a gap: no order and no cut can be faster."""
    trials = expand(RTE_LR)
    jobs = execute.pack(trials, lambda recipe: size, workers)
    ideal = sum(trial.recipe.epochs for trial in trials) * STEPS_AN_EPOCH * MEASURED[size] / 1000 / workers
    assert makespan(jobs, workers) <= 1.15 * ideal  # five seconds a pack are in it


def test_a_small_sweep_keeps_its_packs():
    few = [trial for trial in expand(RTE_LR) if trial.seeds.seed <= 2 and trial.recipe.epochs == 3]
    assert sorted(len(job.trials) for job in execute.pack(few, lambda recipe: 8, 2)) == [6, 6]


@pytest.mark.parametrize("workers", [1, 8])
def test_half_of_the_paper_s_study_already_has_all_cells_and_seeds_in_order(workers):
    jobs = execute.pack(expand(RTE_LR), lambda recipe: 8, workers)
    half = [trial for job in jobs[: len(jobs) // 2] for trial in job.trials]
    assert {trial.cell for trial in half} == set(range(len(RTE_LR.cells)))
    for cell in range(len(RTE_LR.cells)):
        seeds = [trial.seeds.seed for job in jobs for trial in job.trials if trial.cell == cell]
        assert seeds == sorted(seeds)
