"""How a sweep is run, and what may add to its plan while it runs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from harness.config.trials import Sweep
from harness.execution.pool import Pool, Running
from harness.models.keep_weights import Keeping
from harness.models.saved import Which
from harness.training.checkpoints import Checkpoints


@dataclass(frozen=True)
class Options:
    """How to run; `threads` and `compiled` change the last bits of a result, the rest nothing; records keep both."""

    in_process: bool = False
    address: str | None = None
    workers: int | None = None
    threads: int = 1
    pack: int | None = None
    retry_crashed: bool = False
    notice: float = 20.0  # seconds that packs have to come back in after SIGTERM
    hang_minutes: float = 30.0  # without a step, and a worker is killed; not in process
    # Between two of a pack; None: those that lie there are used, and one is written where the time limit ends a pack.
    checkpoint_minutes: float | None = None
    only: tuple[str, ...] = ()  # `key=value` texts, as `trials.where` takes them
    max_trials: int | None = None
    time_limit: float | None = None  # seconds from the call of `run`
    workers_per_gpu: int = 1
    tune: bool = False  # of a search: Ray Tune hands out the packs and may stop them
    make_pool: Callable[[Sweep, Options, Checkpoints | None, Keeping | None], Pool] | None = None  # not Ray's own
    keep: Which = "none"  # of which finished trials the weights are kept
    compiled: bool | None = None  # whether steps are compiled; None: as the sweep was begun


class PlanSource(Protocol):
    """Where a sweep's trials come from while it runs: a search's recipes, or further seeds of the same ones.

    Attributes:
        by_recipe: Whether it gives a recipe at a time, whose trials are one pack, while others train; else it is asked
            when all trials have ended.
    """

    by_recipe: bool

    @property
    def left(self) -> int:
        """How many packs may still come at most."""

    def grown(self) -> Sweep | None:
        """The sweep with more to train, whenever a worker has nothing else to do; None where there is nothing (yet)."""

    def news(self) -> Sequence[str]:
        """What the person is to be told that was not told before."""

    @property
    def stopped(self) -> Collection[str]:
        """Trials that were given up in mid-training, and are not to be trained."""

    def hopeless(self, running: Running) -> bool:
        """Whether a pack is to be given up, by what it is heard to do."""

    def stop(self, running: Running) -> str:
        """Take note of a pack that was given up, as it was last heard of; what the person is told."""
