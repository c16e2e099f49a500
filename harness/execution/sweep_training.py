"""A sweep in training, top to bottom: packs go to the workers, and what comes back is recorded or tried again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from harness.analysis.score_scale import edited_thresholds, other_scales
from harness.analysis.seed_use import ignored_seeds
from harness.common.text import count_noun, last_line
from harness.config.trials import Sweep, Trial, expand, where
from harness.execution import clock, duration, repeats, selection
from harness.execution.interrupts import Stop, TimeUp
from harness.execution.job_queue import JobQueue
from harness.execution.options import Options, PlanSource
from harness.execution.pace import TimeLeft
from harness.execution.packing import Job
from harness.execution.pool import Done, Pool, Running
from harness.execution.pools import open_pool
from harness.execution.preflight import distinct
from harness.execution.progress import Progress, SignOfLife
from harness.execution.recorder import Recorder, no_room, written
from harness.execution.start_up import StartUp
from harness.execution.time_limit import TimeLimit
from harness.records.store import Store
from harness.records.study import of_sweep
from harness.scripts import outside
from harness.scripts.runner import RunFolders, code_files
from harness.training.checkpoints import Checkpoints

# Seconds between two looks at the workers, and once they are to end: another Ctrl-C is looked at as often.
_LOOK, _STOPPING_LOOK = 1.0, 0.2


class SweepTraining:
    """The workers of a sweep and their packs."""

    def __init__(
        self,
        sweep: Sweep,
        missing: Sequence[Trial],
        recorder: Recorder,
        options: Options,
        limit: TimeLimit,
        checkpoints: Checkpoints,
        show: Callable[[Progress], None],
        source: PlanSource | None = None,
    ) -> None:
        """Train the `missing` trials and those that the source adds."""
        self.sweep, self.missing, self.source = sweep, missing, source
        self.recorder, self.options, self.limit, self.checkpoints = recorder, options, limit, checkpoints
        self.show, self.progress = show, recorder.progress
        self.stop = Stop(options.notice)
        self.sign_of_life = SignOfLife(recorder.store)
        self.time_left = TimeLeft(duration.guessed_seconds, duration.example_counts)
        self.given_up: dict[Job, Running] = {}  # as they were when they were told to stop
        self._stopped = 0  # trials of packs that were given up
        self._evaluated = 0  # evaluations heard of the packs in training, when they were last looked at
        self._ticked = 0.0
        self._told: set[bool] = set()
        self._repeats: list[tuple[Trial, int]] | None = None  # None: it is not known yet, as trials are missing

    def run(self, unfinished: Sequence[tuple[Trial, ...]]) -> None:
        """Train all; raises KeyboardInterrupt or Terminated where a signal ends it early.

        `unfinished` are packs with a checkpoint.
        """
        chosen = {trial.id for trial in self.missing}
        unfinished = [trials for trials in unfinished if chosen.issuperset(trial.id for trial in trials)]
        keeps = self.options.checkpoint_minutes is not None or self.limit.until is not None
        checkpoints = self.checkpoints if keeps or unfinished else None
        kept = None if self.recorder.shelf is None else self.recorder.shelf.keeping
        # Enough workers for one trial each; the packs are then cut to the workers there are.
        runs = _run_folders(self.sweep, self.recorder.store, self.options.address)
        start = StartUp(self._tell, self._check_start)
        self._begin("starting the workers …" if self.options.in_process else "starting Ray and its workers …")
        pool = open_pool(self.sweep, self.options, self._most(), checkpoints, kept, self.tick, start, runs)
        # What waits for Ray looks at the limit itself: of what an alarm raises Ray's C code makes a SystemError.
        alarmed = self.limit.until is not None and self.options.in_process
        seconds = (self.limit.until or 0.0) - clock.now() if alarmed else None
        # The same is so of signals; only a pool that the caller makes waits without looking.
        polled = not self.options.in_process and self.options.make_pool is None
        listening = self.stop.listening(seconds, polled)
        with listening, suppress(TimeUp), pool as self.pool:
            self._begin("" if self.sweep.is_script else "loading the model and the data …")
            left = None if self.limit.until is None else self.limit.until - clock.now()
            loading = self.stop.loading(self.options.in_process, left, self._leaves)
            with start.waiting_for("the model and the data to load"), loading:
                self._preflight(self.pool)
                self._save_plan()  # before any training, and not for workers that can't be had
                if keeps:
                    with written(self.checkpoints.folder):
                        self.checkpoints.folder.mkdir(exist_ok=True)
                self._fill(unfinished)
            self.progress.phase = ""
            self.show(self.progress)
            self._check_start()
            try:
                with self.stop.training(self.options.in_process):
                    self._train()
            except TimeUp:
                pass
            finally:
                self.sign_of_life.remove()
            words = self.limit.words(list(self.queue.begun), self.queue.waiting, self.checkpoints)
            self.progress.messages += [words] if words else []
            if self.sweep.is_script:
                study = of_sweep(self.sweep, self.recorder.store)
                thresholds = (*other_scales(study), *edited_thresholds(study))
                self.progress.messages += [*study.notes, *ignored_seeds(study), *thresholds]
            self.progress.lanes, self.progress.seconds_left = 0, 0.0
            self.show(self.progress)
            return
        self._tell(f"{self._leaves}; re-run the same command to train them")

    @property
    def _leaves(self) -> str:
        """What a time limit that is over before anything trained leaves."""
        return f"the time limit leaves {count_noun(len(self.missing), 'trial')} missing"

    def _check_start(self) -> None:
        self.stop.take_back()
        self.stop.check_start()
        self.limit.check()

    def _begin(self, phase: str) -> None:
        """Say what happens now, before anything trains."""
        self.progress.phase = phase
        self.show(self.progress)

    def _tell(self, line: str) -> None:
        self.progress.messages.append(line)
        self.show(self.progress)

    def _preflight(self, pool: Pool) -> None:
        for trial in distinct(self.missing):
            looked_at = pool.preflight(trial)
            looked_at.check()
            self.progress.messages += [note for note in looked_at.notes if note not in self.progress.messages]

    def _save_plan(self) -> None:
        store = self.recorder.store
        with written(store.folder / "plan.json"):
            store.save_plan(self.sweep)

    def _fill(self, unfinished: Sequence[tuple[Trial, ...]]) -> None:
        """Make the queue: packs with a checkpoint as they were, the other trials as fits the workers."""
        self.progress.workers = self.pool.workers
        self.queue = JobQueue(self.pool, self.options.pack, self.limit, self.checkpoints)
        begun = {trial.id for trials in unfinished for trial in trials}
        self.queue.add_packs(unfinished)
        self._join([trial for trial in self.missing if trial.id not in begun])
        self.progress.messages += self.source.news() if self.source else ()

    def _join(self, trials: Sequence[Trial]) -> None:
        if self.source is not None and self.source.by_recipe:
            self.queue.add_by_recipe(trials)
        else:
            self.queue.add(trials)

    # ------------------------------------------------------------------------------------------------------ the loop

    def _train(self) -> None:
        while self.queue.begun or self._next() is not None:
            self.progress.messages += self.pool.follow(0 if self.stop.asked else self._most())
            while self.pool.free and (position := self._next()) is not None:
                self._start(self.queue.take(position))
            self.tick()
            for done in self.pool.wait(_STOPPING_LOOK if self.stop.asked else _LOOK):
                self.progress.lanes -= len(done.job.trials)
                with self.stop.held():
                    self._take(done)
        self.stop.end()

    def _most(self) -> int:
        """How many packs there may still be at most."""
        left = len(self.missing) - self.recorder.trained - self._stopped
        waiting = sum(job.repeat > 0 for job in [*self.queue.waiting, *self.queue.begun]) if self._repeats else 0
        return left + waiting + (self.source.left if self.source else 0)

    def _next(self) -> int | None:
        """Where in the queue the next pack stands; None where none is to be started now."""
        if self.stop.asked or self.limit.put_off is not None:
            return None
        self._grow()
        return self.queue.next()

    def _grow(self) -> None:
        """Let what the source adds join plan and queue, where no pack waits."""
        if self.queue.waiting or self.limit.over:
            return
        if self.source is None:
            self._repeat()
            return
        if self.queue.begun and not self.source.by_recipe:
            return
        grown = self.source.grown()
        self.progress.messages += self.source.news()
        if grown is None:
            self._repeat()
            return
        known = {trial.id for trial in expand(self.sweep)}
        fresh = [trial for trial in expand(grown) if trial.id not in known]
        self.sweep = grown
        self._save_plan()
        self.progress.planned += len(fresh)
        chosen = self._chosen(fresh)
        self.missing = [*self.missing, *chosen]
        self._join(chosen)

    def _repeat(self) -> None:
        """Let the runs wait that `repeats:` asks for, once all trials have ended."""
        if self._repeats is None and not self.queue.begun and not self.options.only and self.options.max_trials is None:
            self._repeats = repeats.due(self.sweep, self.recorder.store)
            self.queue.add_repeats(self._repeats)

    def _chosen(self, fresh: Sequence[Trial]) -> list[Trial]:
        """Those of the added trials that this command trains."""
        most = self.options.max_trials
        left = None if most is None else max(0, most - len(self.missing))
        named = {trial.id for trial in where(self.sweep, self.options.only)} if self.options.only else None
        return selection.first(self.sweep, [trial for trial in fresh if named is None or trial.id in named], left)

    def _start(self, job: Job) -> None:
        self.time_left.start(job, self.queue.begun[job])
        self.pool.start(job)
        self.progress.lanes += len(job.trials)

    def _take(self, done: Done) -> None:
        """Record a pack that came back, or put into the queue what is to be tried again."""
        job, trained = done.job, not done.left and done.error is None
        self.time_left.end(job, clock.now(), trained=trained)
        self.queue.end(job, trained)
        if done.put_off:
            assert self.limit.put_off is not None
            self.limit.put_off.append(job)
        elif done.left:
            assert self.source is not None
            self._stopped += len(job.trials)
            self.checkpoints.remove(job.trials)
            self.progress.messages.append(self.source.stop(done.stopped or self.given_up[job]))
        elif done.error is None:
            if job.repeat:
                self.recorder.repeat(job.repeat, done.results)
            else:
                self.recorder.keep(done.results)
            self.checkpoints.remove(job.trials)
        else:
            self._take_failed(done, done.error)

    def _take_failed(self, done: Done, error: str) -> None:
        if done.unkept is not None:
            raise no_room(done.unkept)
        if done.refused is not None:
            raise done.refused
        if done.died and self.stop.asked:
            return  # it may be the same signal that ended the worker: its trials are missing, not crashed
        lanes = len(done.job.trials)
        if not self.queue.retry(done.job, done.died, done.out_of_memory, done.ending):
            if done.job.endings:
                tried = f"It was tried {len(done.job.endings) + 1} times; before: {'; '.join(done.job.endings)}."
                error = f"{tried}\n{error}"
            if done.job.repeat:
                name = f"repeat {done.job.repeat} of {done.job.trials[0].id}"
                self.progress.messages.append(f"{name} crashed: {last_line(error)}")
            else:
                self.recorder.crash(done.job.trials[0], error)
        elif done.ending is not None:
            self.progress.messages.append(f"{done.job.trials[0].id} to run again: {done.ending}")
        elif done.died:
            self.progress.messages.append(f"{count_noun(lanes, 'trial')} to train again: {error.splitlines()[0]}")

    # ------------------------------------------------------------------------------------------ how far the sweep is

    def tick(self) -> None:
        """Say how far it is, at most every second or after an evaluation; in process called after every step."""
        self.stop.check()
        self.limit.enforce(self.pool)
        stopping = self._tell_stopping()
        running = self.pool.running()
        evaluated = sum(len(one.heard.evaluations) for one in running)
        # A pruner looks at every evaluation: in process, when it looks does not depend on the clock.
        if not stopping and evaluated == self._evaluated and clock.now() - self._ticked < 1:
            return
        self._evaluated, self.progress.workers = evaluated, self.pool.workers
        for one in running:
            self._give_up(one)
        self._ticked = clock.now()
        for one in running:
            self.time_left.hear(one.job, one.share, self._ticked)
        if self.source is None or not self.source.by_recipe:  # what a search will ask for isn't known
            packs = [(one.job, one.share) for one in running]
            self.progress.seconds_left = self.time_left.seconds(packs, self.queue.waiting, self.pool.workers)
            self.progress.estimating = self.progress.seconds_left is None
        now = clock.now()
        if self.sign_of_life.due(now):
            self.sign_of_life.write(now, self.pool.setup.device, self.progress, running)
        self.show(self.progress)

    def _tell_stopping(self) -> bool:
        """Say once what a signal asked for; whether it was said now."""
        terminated = self.stop.deadline is not None
        if not self.stop.asked or terminated in self._told:
            return False
        self._told.add(terminated)
        self.progress.messages.append(self.stop.words(self.progress.lanes))
        return True

    def _give_up(self, one: Running) -> None:
        """Have a pack left where the source of the recipes takes it for hopeless."""
        if self.source is not None and one.job not in self.given_up and self.source.hopeless(one):
            self.given_up[one.job] = one
        if one.job in self.given_up:
            self.pool.leave(one.job)


def _run_folders(sweep: Sweep, store: Store, address: str | None) -> RunFolders:
    """Where a script's runs have their folders, and where they run."""
    recipe = sweep.cells[0].script
    if recipe is None:
        return RunFolders(None)
    cwd = Path(recipe.script.cwd or ".").resolve()
    files = () if address is None else code_files(recipe.script, cwd)
    return RunFolders(store.folder.resolve() / "runs", files=files, terminal=outside.terminal_files(), cwd=str(cwd))
