"""Which workers train a sweep: this process, Ray's, or those that the caller makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from harness.config.trials import Sweep
from harness.execution import machine
from harness.execution.in_process import InProcess
from harness.execution.options import Options
from harness.execution.pool import Pool
from harness.execution.ray_workers import RayPool
from harness.execution.train_pack import worker_setup
from harness.models.keep_weights import Keeping
from harness.training.checkpoints import Checkpoints


@contextmanager
def open_pool(
    sweep: Sweep,
    options: Options,
    most: int,
    checkpoints: Checkpoints | None,
    kept: Keeping | None,
    tick: Callable[[], None],
) -> Iterator[Pool]:
    """The workers that the options ask for, at most so many packs' worth; stopped at the end.

    `tick` is called after every step of a pack that this process trains.
    """
    if options.in_process:
        device = "cuda" if machine.detect_hardware().gpus else "cpu"
        setup = worker_setup(sweep, device, options.threads, checkpoints, kept, bool(options.compiled))
        yield InProcess(sweep, setup, tick)
        return
    pool: Pool
    if options.make_pool is not None:
        pool = options.make_pool(sweep, options, checkpoints, kept)
    else:
        pool = RayPool(
            sweep, options.address, options.workers, options.threads, most, options.hang_minutes, checkpoints,
            options.workers_per_gpu, kept, bool(options.compiled),
        )  # fmt: skip
    try:
        yield pool
    finally:
        pool.close()
