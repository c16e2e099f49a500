"""What trains together and in which order; the queue simulated: how long a sweep takes, what half of it has."""

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.config.sweep_file import load
from harness.config.trials import Trial, expand
from harness.execution import packing
from harness.execution.packing import Job

RTE_LR = load(Path(__file__).parents[2] / "sweeps" / "rte_lr.yaml", "paper")
# Milliseconds a lane-step by lanes of the pack, as `make bench` measured them on one core; 5 s to start a pack.
MEASURED = {1: 36.1, 2: 27.9, 4: 23.5, 8: 22.4, 16: 21.6}
STEPS_AN_EPOCH, START = 156, 5.0


def seconds(job: Job) -> float:
    lanes = len(job.trials)
    lane_step = MEASURED[max(size for size in MEASURED if size <= lanes)]
    return job.trials[0].recipe.epochs * STEPS_AN_EPOCH * lane_step * lanes / 1000 + START


def simulated(jobs: list[Job], workers: int) -> tuple[list[float], float]:
    """When each pack begins, and when the last of `workers` is done, each taking the next as soon as it is free."""
    free, begun = [0.0] * workers, []
    for job in jobs:
        begun.append(heapq.heappop(free))
        heapq.heappush(free, begun[-1] + seconds(job))
    return begun, max(free)


@pytest.mark.parametrize("size", [1, 4, 8, 16])
@pytest.mark.parametrize("workers", [1, 4, 8, 13, 32, 48, 64])
def test_the_last_worker_ends_near_the_lower_bound(workers, size):
    """The bound is that of these packs: work over workers, or the longest pack."""
    jobs = packing.pack(expand(RTE_LR), lambda recipe: size, workers)
    assert sum(len(job.trials) for job in jobs) == 450
    work = [seconds(job) for job in jobs]
    assert simulated(jobs, workers)[1] <= 1.1 * max(sum(work) / workers, *work)


@pytest.mark.parametrize("size", [1, 4, 8, 16])
@pytest.mark.parametrize("workers", [1, 4, 8])
def test_packs_stay_as_large_as_pays(workers, size):
    """Against all work in the largest packs, spread without a gap: no order and no cut can be faster."""
    trials = expand(RTE_LR)
    jobs = packing.pack(trials, lambda recipe: size, workers)
    ideal = sum(trial.recipe.epochs for trial in trials) * STEPS_AN_EPOCH * MEASURED[size] / 1000 / workers
    assert simulated(jobs, workers)[1] <= 1.1 * ideal  # five seconds a pack are in it


@pytest.mark.parametrize(("size", "least"), [(1, 467), (4, 301), (8, 298), (16, 298)])
def test_on_many_workers_no_cut_is_much_faster(size, least):
    """A trial can't be divided: on 64 workers no cut into packs and no order ends before `least` seconds.

    That is where a linear program over what one worker can train in a time needs more than 64 of them for 150 trials of
    3, of 10 and of 20 epochs (Gilmore & Gomory 1961, as for cutting stock).
    """
    jobs = packing.pack(expand(RTE_LR), lambda recipe: size, 64)
    assert least <= simulated(jobs, 64)[1] <= 1.1 * least


@pytest.mark.parametrize("size", [1, 8, 16])
@pytest.mark.parametrize("workers", [1, 2, 8, 64])
def test_at_half_the_time_every_cell_has_begun(workers, size):
    jobs = packing.pack(expand(RTE_LR), lambda recipe: size, workers)
    begun, end = simulated(jobs, workers)
    cells = {trial.cell for job, at in zip(jobs, begun, strict=True) if at <= end / 2 for trial in job.trials}
    assert cells == set(range(len(RTE_LR.cells)))


def test_a_small_sweep_keeps_its_packs():
    few = [trial for trial in expand(RTE_LR) if trial.seeds.seed <= 2 and trial.recipe.epochs == 3]
    assert sorted(len(job.trials) for job in packing.pack(few, lambda recipe: 8, 2)) == [6, 6]


@pytest.mark.parametrize("workers", [1, 8])
def test_half_of_the_paper_s_study_already_has_all_cells_and_seeds_in_order(workers):
    jobs = packing.pack(expand(RTE_LR), lambda recipe: 8, workers)
    half = [trial for job in jobs[: len(jobs) // 2] for trial in job.trials]
    assert {trial.cell for trial in half} == set(range(len(RTE_LR.cells)))
    for cell in range(len(RTE_LR.cells)):
        seeds = [trial.seeds.seed for job in jobs for trial in job.trials if trial.cell == cell]
        assert seeds == sorted(seeds)


@settings(max_examples=60, deadline=None)
@given(
    cells=st.lists(st.integers(1, 3), min_size=1, max_size=6),
    seeds=st.integers(1, 9),
    size=st.integers(1, 9),
    workers=st.integers(1, 5),
)
def test_packs_hold_every_trial_once_and_one_shape(
    trial: Callable[..., Trial], cells: list[int], seeds: int, size: int, workers: int
) -> None:
    trials = [
        trial(seed, epochs=epochs, lr=1e-3 * (cell + 1)).model_copy(update={"cell": cell})
        for cell, epochs in enumerate(cells)
        for seed in range(seeds)
    ]
    jobs = packing.pack(trials, lambda recipe: size, workers)
    assert Counter(t.id for job in jobs for t in job.trials) == Counter(t.id for t in trials)
    assert all(len({t.recipe.epochs for t in job.trials}) == 1 and len(job.trials) <= size for job in jobs)


def test_half_a_sweep_already_has_all_cells(trial: Callable[..., Trial]) -> None:
    trials = [
        trial(seed, epochs=1 + cell % 2, lr=1e-3 * (cell + 1)).model_copy(update={"cell": cell})
        for cell in range(12)
        for seed in range(8)
    ]
    jobs = packing.pack(trials, lambda recipe: 8, 2)
    half = [t for job in jobs[: len(jobs) // 2] for t in job.trials]
    assert {t.cell for t in half} == set(range(12))
    assert jobs[0].work > jobs[1].work  # the longer first


def test_failed_packs_are_halved_and_lost_workers_get_one_more_try(trial: Callable[..., Trial]) -> None:
    pack = Job(tuple(trial(seed) for seed in range(5)))
    halves = packing.after_failure(pack, died=False)
    assert [len(job.trials) for job in halves] == [2, 3]
    assert [t for job in halves for t in job.trials] == list(pack.trials)
    again = packing.after_failure(pack, died=True)
    assert again == [replace(pack, deaths=1)]
    assert [len(job.trials) for job in packing.after_failure(again[0], died=True)] == [2, 3]
    assert packing.after_failure(Job(pack.trials[:1]), died=False) == []
    assert packing.after_failure(Job(pack.trials[:1], deaths=1), died=True) == []
