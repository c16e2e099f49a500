"""A sweep: which trials are missing, how they are trained and recorded; and how it is stopped and resumed.

At the end the plan is compared with the records: no count of Ray's or of this module's is trusted.
"""

from __future__ import annotations

import json
import math
import socket
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from harness.common import watchdog
from harness.common.errors import HarnessError
from harness.config.trials import Sweep, expand
from harness.execution import clock, gate, progress, repeats, resume, selection, step_compilation
from harness.execution.counts import SweepOutcome, count, ended
from harness.execution.options import Options, PlanSource
from harness.execution.progress import Progress
from harness.execution.recorder import Recorder, weights_written, written
from harness.execution.seed_growth import SeedGrowth
from harness.execution.sweep_training import SweepTraining
from harness.execution.time_limit import LAST_SECONDS, TimeLimit
from harness.models import keep_weights
from harness.models.keep_weights import Shelf
from harness.models.saved import KeptAs, Which
from harness.records import heartbeat
from harness.records.record import Record
from harness.records.store import HEARTBEAT, Store
from harness.training.checkpoints import Checkpoints

__all__ = ["Options", "PlanSource", "Progress", "SweepOutcome", "count", "ended", "keeping_one", "run"]


def run(
    sweep: Sweep, store: Store, options: Options, show: Callable[[Progress], None], source: PlanSource | None = None
) -> SweepOutcome:
    """Train what is missing and record it; `show` is called as things move.

    Raises HarnessError, before any training, for data or models that can't be used, for an edit that would orphan
    trained trials and for a folder that another sweep holds; and where a record can't be written. Trials that crash
    are recorded and the sweep goes on. Ctrl-C raises KeyboardInterrupt after the packs that are training, a second one
    at once; SIGTERM raises Terminated after those that come back within the notice. At the time limit the state of what
    trains is kept for a later run, and no pack is started before that would go beyond it at the pace of the finished
    ones of its shape.
    With a `source` the plan grows by the cells that it gives, and `sweep` stands for all of them before the first. A
    sweep whose seeds are added by rule grows by those.
    """
    began = clock.now()
    if source is None and sweep.rule is None:
        selection.matching(sweep, options.only)  # a slip of the pen leaves no folder behind
    with store.locked():
        if source is not None:
            gate.check_inputs(sweep, {}, {0}, options.address)
            sweep = source.grown() or store.load_plan() or sweep
        elif sweep.rule is not None:
            source = growth = SeedGrowth(sweep, store)
            sweep = growth.sweep
        stopped = source.stopped if source else ()
        matching = tuple(trial for trial in selection.matching(sweep, options.only) if trial.id not in stopped)
        tidied = store.tidy(sweep)  # nobody else writes while the folder is held
        records = tidied.records
        options = replace(options, compiled=step_compilation.chosen(records.values(), options.compiled))
        _refuse_unlocked(store)
        for path in (store.folder / HEARTBEAT, *store.folder.glob(".*.tmp")):  # of a driver that was killed
            if path.is_symlink() or not path.is_dir():
                path.unlink(missing_ok=True)
        gate.refuse_orphans(sweep, store, records)
        gate.check_inputs(sweep, records, {trial.cell for trial in matching}, options.address)
        wanted = [trial for trial in matching if selection.to_train(records.get(trial.id), options)]
        chosen = selection.first(sweep, wanted, options.max_trials)
        asked = {trial.id for trial in matching} - {trial.id for trial in wanted} | {trial.id for trial in chosen}
        minutes = math.inf if options.checkpoint_minutes is None else options.checkpoint_minutes
        checkpoints = Checkpoints(store.folder.resolve() / "checkpoints", minutes)
        unfinished = checkpoints.unfinished(
            [one for one in expand(sweep) if selection.to_train(records.get(one.id), options)]
        )
        keep_weights.clear(store)
        trained = 0
        with _shelf(sweep, store, records, options.keep) as shelf:
            if chosen or (options.max_trials is None and not options.only and repeats.due(sweep, store)):
                retried = {trial.id for trial in chosen if trial.id in records}
                state = _progress(sweep, records, retried, estimating=source is None or not source.by_recipe)
                state.messages += [] if tidied.message is None else [tidied.message]
                if (mixing := resume.mixing(records.values(), options)) is not None:
                    state.messages.append(mixing)
                before = tuple(records.values())
                recorder = Recorder(
                    sweep, store, records, retried, shelf, state, partial(resume.found, before, options)
                )
                limit = TimeLimit(options.time_limit, began)
                training = SweepTraining(sweep, chosen, recorder, options, limit, checkpoints, show, source)
                last = None if limit.until is None else limit.until + LAST_SECONDS - clock.now()
                with watchdog.current().limited(last):
                    training.run(unfinished)
                trained, sweep = recorder.trained, training.sweep
                asked |= {trial.id for trial in training.missing}
                asked -= set(source.stopped if source else ())
            else:
                store.save_plan(sweep)
                if tidied.message is not None:
                    state = _progress(sweep, records, (), estimating=False)
                    state.messages.append(tidied.message)
                    show(state)
        checkpoints.close()
    return ended(sweep, store, trained, asked)


def _progress(sweep: Sweep, records: Mapping[str, Record], retried: Collection[str], *, estimating: bool) -> Progress:
    before = count(expand(sweep), records)
    crashed = before.crashed - len(retried)
    return Progress(before.planned, before.finished, crashed, before.failed, estimating=estimating)


def _refuse_unlocked(store: Store) -> None:
    """Refuse a folder in which a sweep of another machine lives; not every network's disk shares its locks.

    Raises HarnessError where its sign of life changes while this waits; the clocks of the two need not agree.
    """
    try:
        first = heartbeat.content(store.folder)
        host = json.loads(first)["host"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return
    until = time.monotonic() + 2.5 * progress.HEARTBEAT_SECONDS
    while host != socket.gethostname() and time.monotonic() < until:
        time.sleep(0.1)
        try:
            if heartbeat.content(store.folder) == first:
                continue
        except FileNotFoundError:  # it ended
            return
        raise HarnessError(
            f"{store.folder} is in use by a sweep on {host}",
            fix="Wait for it, stop it, or name another --results folder",
        )


@contextmanager
def keeping_one(sweep: Sweep, store: Store) -> Iterator[Shelf]:
    """Hold the folder, to keep the weights of a trial that is trained again; raises HarnessError as `run` does."""
    with store.locked(), weights_written(), _shelf(sweep, store, {}, "rerun") as shelf:
        assert shelf is not None
        yield shelf


@contextmanager
def _shelf(sweep: Sweep, store: Store, records: Mapping[str, Record], keep: Which | KeptAs) -> Iterator[Shelf | None]:
    if keep == "none":
        yield None
        return
    script = sweep.cells[0].script
    if script is not None and script.script.model_out is None:
        raise HarnessError(
            "--keep needs to know what of a run's folder is the model",
            fix="Add model_out: NAME to the sweep file, of a file or folder in {out}",
        )
    with written(store.folder / "models"):
        shelf = Shelf(store, sweep, records, keep)
    try:
        yield shelf
    finally:
        shelf.close()
