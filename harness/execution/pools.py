"""Which workers train a sweep: this process, Ray's, or those that the caller makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from harness.config.trials import Sweep
from harness.execution import machine
from harness.execution.in_process import InProcess
from harness.execution.options import Options
from harness.execution.pool import Pool
from harness.execution.ray_workers import RayPool
from harness.execution.start_up import StartUp
from harness.execution.train_pack import worker_setup
from harness.models.keep_weights import Keeping
from harness.scripts.runner import TEMPORARY, RunFolders
from harness.training.checkpoints import Checkpoints


@contextmanager
def open_pool(
    sweep: Sweep,
    options: Options,
    most: int,
    checkpoints: Checkpoints | None,
    keeping: Keeping | None,
    tick: Callable[[], None],
    start: StartUp,
    runs: RunFolders = TEMPORARY,
) -> Iterator[Pool]:
    """The workers that the options ask for, stopped at the end.

    Args:
        sweep: What they train.
        options: What the command line said of workers, devices and Ray.
        most: How many packs there are at most: no more workers are started.
        checkpoints: Where packs are saved in mid-training; None: nowhere.
        keeping: Which trained weights are saved, and where; None: none.
        tick: Called after every step of a pack that this process trains.
        start: What waits for Ray and its workers.
        runs: Where a script's runs have their folders.
    """
    if options.in_process:
        device = "cuda" if machine.detect_hardware().gpus else "cpu"
        setup = worker_setup(sweep, device, options.threads, checkpoints, keeping, bool(options.compiled))
        setup = replace(setup, runs=runs, silence=60 * options.hang_minutes)
        yield InProcess(sweep, setup, tick)
        return
    pool: Pool
    if options.make_pool is not None:
        pool = options.make_pool(sweep, options, checkpoints, keeping)
    else:
        pool = RayPool(
            sweep, options.address, options.workers, options.threads, most, options.hang_minutes, checkpoints,
            options.workers_per_gpu, keeping, bool(options.compiled), runs, start,
        )  # fmt: skip
    try:
        yield pool
    finally:
        pool.close()
