"""A search: Optuna suggests recipes, the sweep's queue trains each over its seeds, the best are tried on fresh seeds.

The study lies in `study.log` beside the plan (Optuna's journal, which optuna-dashboard opens); the records are a
sweep's, whose cells are the recipes in the order in which they were asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec

from harness.analysis import search_ranking
from harness.common.errors import HarnessError
from harness.config.search_space import Search
from harness.config.trials import Sweep
from harness.execution import driver, step_compilation
from harness.execution.pool import Pool
from harness.models.keep_weights import Keeping
from harness.records.store import Store
from harness.search.asking import Asking
from harness.search.study_journal import stopped, switches, without_notes
from harness.training.checkpoints import Checkpoints

__all__ = ["SearchOutcome", "check", "confirming", "run", "stopped", "switches"]


@dataclass(frozen=True)
class SearchOutcome:
    """What a search ended with; `confirmed` is None where nothing was to be confirmed or the search was cut short."""

    sweep: Sweep
    counts: driver.SweepOutcome
    confirmed: Sweep | None
    confirm_counts: driver.SweepOutcome | None
    asked: int  # recipes, repeated ones too
    left: int  # recipes that were not asked for yet

    @property
    def complete(self) -> bool:
        """Whether every run of every recipe has finished, those on fresh seeds too."""
        search, again = self.sweep.search, self.confirm_counts
        assert search is not None
        confirmed = again.left == 0 if again is not None else not (search.best and search.confirm)
        return self.counts.left == 0 and self.left == 0 and confirmed


def run(
    sweep: Sweep,
    store: Store,
    options: driver.Options,
    show: Callable[[driver.Progress], None],
    stop_hopeless: bool = False,
) -> SearchOutcome:
    """Search for recipes, then confirm the best of them on fresh seeds.

    Args:
        sweep: The sweep of a search file.
        store: Its results folder.
        options: How the trials are trained.
        show: Called with the progress.
        stop_hopeless: Give a recipe up in mid-training when all its runs are at risk by the rule that the finished
            runs of other recipes give (`early_warning`). It is then not resumed while this is on; fresh seeds are
            never given up.

    Raises:
        HarnessError: As `driver.run`, and where the settings differ from those that the search was started with.
    """
    search = check(sweep, store)
    for option in ("--stop-hopeless",) * stop_hopeless + ("--tune",) * options.tune:
        if sweep.is_script:
            raise HarnessError(
                f"{option} cannot be used in the search of a script: it goes by what the engine says of its steps",
                fix="Leave it out",
            )
    if stop_hopeless:
        _refuse_stopping(sweep)
    if options.tune:
        _refuse_tune(search, options.in_process)
        options = replace(options, make_pool=_tune_pool)
    began = time.monotonic()
    with without_notes():
        asking = Asking(sweep, store, stop_hopeless, options.tune)
        counts = driver.run(sweep, store, options, show, asking)
    plan = store.load_plan() or sweep
    confirmed, confirm_counts = None, None
    if options.time_limit is not None:
        options = replace(options, time_limit=max(0.0, options.time_limit - (time.monotonic() - began)))
    if search.best and search.confirm and counts.missing == len(asking.stopped) and not asking.left:
        confirmed = confirming(plan, store)
        if confirmed is not None:
            compiled = step_compilation.chosen(store.records(plan).values(), options.compiled)
            options = replace(options, tune=False, make_pool=None, compiled=compiled)
            beside = search_ranking.confirm_store(sweep, store)
            confirm_counts = driver.run(confirmed, beside, options, show)
            confirmed = beside.load_plan() or confirmed  # which may have grown
    return SearchOutcome(plan, counts, confirmed, confirm_counts, asking.asked, asking.left)


def _tune_pool(sweep: Sweep, options: driver.Options, checkpoints: Checkpoints | None, keeping: Keeping | None) -> Pool:
    from harness.search.ray_tune import TunePool  # Ray Tune takes seconds to import

    return TunePool(
        sweep, options.address, options.workers, options.threads, checkpoints, options.workers_per_gpu, keeping,
        bool(options.compiled),
    )  # fmt: skip


def check(sweep: Sweep, store: Store) -> Search:
    """What is searched; raises HarnessError for a search that can't be done here, or not go on with these settings."""
    search = sweep.search
    if search is None:
        raise HarnessError(
            f"{sweep.name} has no search: part (for example: search: "
            f"{{space: {{lr: {{low: 1e-5, high: 1e-3, log: on}}}}}})",
            fix="Add it, or train the sweep with `harness sweep`",
        )
    if search.sampler == "cmaes" and find_spec("cmaes") is None:
        raise HarnessError(
            "the sampler cmaes requires the package cmaes, which is not installed",
            fix="Run pip install cmaes, or use tpe, random, grid, qmc or nsga2",
        )
    _refuse_changed(sweep, store)
    return search


def confirming(sweep: Sweep, store: Store) -> Sweep | None:
    """The sweep of the best recipes over fresh seeds, with those confirmed before; None where none has a value."""
    assert sweep.search is not None
    order = search_ranking.best_first(search_ranking.by_cell(sweep, store), sweep.search)
    plan = search_ranking.confirm_store(sweep, store).load_plan()
    chosen = [*(plan.cells if plan else ()), *(sweep.cells[index] for index in order[: sweep.search.best])]
    now = {cell.key: cell for cell in sweep.cells}  # with today's timeout, threshold and folders
    cells = {cell.key: now.get(cell.key, cell) for cell in chosen}
    if not cells:
        return None
    return Sweep(
        name=f"{sweep.name}-confirm",
        profile=sweep.profile,
        title=f"{sweep.title}: the best recipes on fresh seeds",
        stand_in=sweep.stand_in,
        source=sweep.source,
        cells=tuple(cells.values()),
        seeds=sweep.search.confirm,
        rule=sweep.search.confirm_rule,
    )


def _refuse_stopping(sweep: Sweep) -> None:
    """Refuse to give recipes up where that can't be told, or where failing doesn't rule a recipe out."""
    assert sweep.search is not None
    if not sweep.record:
        raise HarnessError(
            "--stop-hopeless cannot be used with record: off: it goes by what is recorded while runs train",
            fix="Leave one of them out",
        )
    if sweep.search.failing != "constraint":
        raise HarnessError(
            "--stop-hopeless requires failing: constraint: it rules out recipes before their runs are seen to fail",
            got=f"failing: {sweep.search.failing}",
            fix="Leave one of them out",
        )


def _refuse_tune(search: Search, in_process: bool) -> None:
    """Refuse what Ray Tune is not used for."""
    if in_process:
        raise HarnessError("--tune cannot be used with --in-process: it trains over Ray", fix="Leave one of them out")
    if search.pruner is not None and search.pruner.name != "successive_halving":
        raise HarnessError(
            "--tune stops recipes by asynchronous successive halving (ASHA) only",
            got=f"pruner: {search.pruner.name}",
            fix="Set pruner: successive_halving or remove it, or leave --tune out",
        )


def _refuse_changed(sweep: Sweep, store: Store) -> None:
    """Refuse to go on with a search under other settings; it may get longer, and be confirmed otherwise."""
    plan = store.load_plan()
    if plan is None:
        return
    old, new = plan.search, sweep.search
    assert new is not None
    names = ("space", "sampler", "seed", "objective", "failing", "pruner")
    changed = ["search"] if old is None else [name for name in names if getattr(old, name) != getattr(new, name)]
    changed += ["seeds"] if plan.seeds != sweep.seeds else []
    if changed:
        raise HarnessError(
            f"cannot resume the search in {store.folder} with another {changed[0]}",
            allowed="more recipes, or another confirm",
            fix="Restore it, or name another folder with --results",
        )
