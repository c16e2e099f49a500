"""The packs that wait for a worker: how many lanes each may have, and which is next."""

from __future__ import annotations

from collections.abc import Sequence

from harness.config.script import AnyRecipe, ScriptRecipe
from harness.config.trials import Trial
from harness.execution import clock, lanes_memory
from harness.execution.packing import Job, after_crash, after_failure, fitting, pack
from harness.execution.pool import Pool
from harness.execution.time_limit import TimeLimit
from harness.training.checkpoints import Checkpoints


class JobQueue:
    """Waiting packs, cut to what the workers' memory holds, and the pace of those that came back."""

    def __init__(self, pool: Pool, lanes: int | None, limit: TimeLimit, checkpoints: Checkpoints) -> None:
        """Hand out packs for the workers of `pool`, of so many lanes where a number is given."""
        self.pool, self.limit, self.checkpoints = pool, limit, checkpoints
        self.waiting: list[Job] = []
        self.begun: dict[Job, float] = {}  # packs in training and when they were started
        self._lanes_given = lanes
        self._room = pool.room  # bytes a pack may fill
        self._fits: dict[object, int] = {}  # shape -> lanes that the memory holds, where it once didn't
        self._paces: dict[object, tuple[float, float]] = {}  # shape -> (seconds, work) of the packs that came back

    # --------------------------------------------------------------------------------------------------- what waits

    def add_packs(self, packs: Sequence[tuple[Trial, ...]]) -> None:
        """Let packs wait as they are: those of which a checkpoint lies there."""
        self.waiting += [Job(trials) for trials in packs]

    def add(self, trials: Sequence[Trial]) -> None:
        """Cut trials into packs that keep all workers busy."""
        self.waiting += pack(trials, lambda recipe: self._size(recipe, trials), self.pool.workers)

    def add_repeats(self, repeats: Sequence[tuple[Trial, int]]) -> None:
        """Let runs of trials wait that have been run before, each with its number."""
        self.waiting += [Job((trial,), repeat=number) for trial, number in repeats]

    def add_by_recipe(self, trials: Sequence[Trial]) -> None:
        """Put the trials of each cell into the queue as one pack, or as many as its lanes need."""
        for cell in dict.fromkeys(trial.cell for trial in trials):
            job = Job(tuple(trial for trial in trials if trial.cell == cell))
            self.waiting += fitting(job, self._usual(job.trials[0].settings, self._room))

    def _usual(self, recipe: AnyRecipe, room: int) -> int:
        if isinstance(recipe, ScriptRecipe):  # a process each
            return 1
        return lanes_memory.pack_size(recipe, self.pool.setup.device, self._lanes_given, room)

    def _size(self, recipe: AnyRecipe, trials: Sequence[Trial]) -> int:
        """How many lanes of a shape train together: as asked for, or as is usual, or as a measurement says."""
        usual = self._usual(recipe, self._room)
        if isinstance(recipe, ScriptRecipe):
            return usual
        alike = [trial for trial in trials if trial.settings.shape == recipe.shape]
        most = lanes_memory.most_lanes(recipe, self.pool.setup.device, self._room)
        most = min(most, len(alike) // self.pool.workers)
        if self._lanes_given is not None or most < 2:
            return usual
        epochs = sum(trial.recipe.epochs for trial in alike) / self.pool.workers
        return self.pool.lanes(alike[0], usual, most, epochs)

    # --------------------------------------------------------------------------------------------- what trains next

    def next(self) -> int | None:
        """Where the next pack stands: the first that is expected to end in time; None where none is."""
        for position, job in enumerate(self.waiting):
            seconds, work = self._paces.get(job.trials[0].settings.shape, (0.0, 1.0))
            if self.limit.leaves(seconds / work * job.work):
                return position
        return None

    def take(self, position: int) -> Job:
        """Take the pack at that place to a worker, as much of it as fits; the rest waits on."""
        whole = self.waiting.pop(position)
        job, *rest = fitting(whole, self._lanes(whole))
        if rest:
            self.checkpoints.remove(whole.trials)
        self.waiting[position:position] = rest
        self.begun[job] = clock.now()
        return job

    def _lanes(self, job: Job) -> int:
        """How many of a pack's lanes fit, after what was found out and with the workers that joined."""
        recipe = job.trials[0].settings
        lanes = self._fits.get(recipe.shape, len(job.trials))
        return lanes if self.pool.room >= self._room else min(lanes, self._usual(recipe, self.pool.room))

    # ------------------------------------------------------------------------------------------------ what came back

    def end(self, job: Job, trained: bool) -> None:
        """A pack came back, `trained` to its end or not."""
        seconds, shape = clock.now() - self.begun.pop(job), job.trials[0].settings.shape
        if trained:
            before = self._paces.get(shape, (0.0, 0.0))
            self._paces[shape] = (before[0] + seconds, before[1] + job.work)

    def retry(self, job: Job, died: bool, out_of_memory: bool, ending: str | None = None) -> bool:
        """Let a pack that failed wait again, whole or in halves; whether there is anything left to try.

        `ending` says how a script's run crashed.
        """
        lanes, shape = len(job.trials), job.trials[0].settings.shape
        if out_of_memory:
            self._fits[shape] = min(self._fits.get(shape, lanes), max(1, lanes // 2))
        again = after_failure(job, died) if ending is None else after_crash(job, ending)
        self.waiting[:0] = again
        if [one.trials for one in again] != [job.trials]:
            self.checkpoints.remove(job.trials)
        return bool(again)
