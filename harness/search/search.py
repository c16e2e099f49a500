"""A search: Optuna suggests recipes, the sweep's queue trains each over its seeds, the best are tried on fresh seeds.

The study lies in `study.log` beside the plan (Optuna's journal, which optuna-dashboard opens); the records are a
sweep's, whose cells are the recipes in the order in which they were asked for.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from harness.analysis import search_ranking
from harness.common.errors import HarnessError
from harness.config.recipe import Recipe
from harness.config.search_space import Search
from harness.config.trials import Cell, Sweep, Trial, expand
from harness.execution import driver, step_compilation
from harness.execution.packing import Job
from harness.execution.pool import Pool, Running
from harness.models.keep_weights import Keeping
from harness.records import early_signals
from harness.records.record import Record
from harness.records.store import Store
from harness.search import pruning, suggestions
from harness.training.checkpoints import Checkpoints

if TYPE_CHECKING:
    import optuna
    from optuna.storages import JournalStorage

    from harness.analysis.live_warning import Lessons

STUDY = "study.log"
_STOPPED = "stopped"  # the attribute of a suggestion that was given up
_SWITCHES = "switches"  # that of the study: what it was last started with
_PRUNED = "pruned"  # that of one that a pruner told to stop, which follows at its next step
_TUNE = "ASHA scheduler of Ray Tune"


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
    if stop_hopeless:
        _refuse_stopping(sweep)
    if options.tune:
        _refuse_tune(search, options.in_process)
        options = replace(options, make_pool=_tune_pool)
    began = time.monotonic()
    with _quiet():
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


def stopped(sweep: Sweep, store: Store) -> tuple[search_ranking.StoppedRecipe, ...]:
    """The recipes of a search that were given up in mid-training and not trained since, from its journal."""
    study, recipes = _begun(sweep, store), {}
    for trial in study.get_trials(deepcopy=False) if study else ():
        if _STOPPED in trial.user_attrs and _lack(store, trial.user_attrs["trials"]):
            recipes[tuple(trial.user_attrs["trials"])] = search_ranking.StoppedRecipe(**trial.user_attrs[_STOPPED])
    return tuple(recipes.values())


def switches(sweep: Sweep, store: Store) -> tuple[str, ...]:
    """The switches of the command that a search was last started with, for those who go on with it."""
    study = _begun(sweep, store)
    return tuple(study.user_attrs.get(_SWITCHES, ())) if study else ()


def _begun(sweep: Sweep, store: Store) -> optuna.Study | None:
    """The study of a search that was begun."""
    if not (store.folder / STUDY).is_file():
        return None
    import optuna

    with _quiet(), suppress(KeyError):  # no study of this name yet
        return optuna.load_study(study_name=sweep.folder_name, storage=_journal(store))
    return None


def confirming(sweep: Sweep, store: Store) -> Sweep | None:
    """The sweep of the best recipes over fresh seeds, with those confirmed before; None where none has a value."""
    assert sweep.search is not None
    order = search_ranking.best_first(search_ranking.by_cell(sweep, store), sweep.search)
    plan = search_ranking.confirm_store(sweep, store).load_plan()
    cells = dict.fromkeys(
        [*(plan.cells if plan else ()), *(sweep.cells[index] for index in order[: sweep.search.best])]
    )
    if not cells:
        return None
    return Sweep(
        name=f"{sweep.name}-confirm",
        profile=sweep.profile,
        title=f"{sweep.title}: the best recipes on fresh seeds",
        stand_in=sweep.stand_in,
        source=sweep.source,
        cells=tuple(cells),
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


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's log lines, and its notes that parts of it are new."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


class Asking:
    """The recipes of a search as the queue asks for them (`options.PlanSource`); what it knows lies in the journal.

    Each suggestion is drawn by a sampler of its own, keyed by the search's seed and the suggestion's number, so that a
    search that was killed and gone on with suggests what it would have suggested.
    """

    by_recipe = True

    def __init__(self, sweep: Sweep, store: Store, stop_hopeless: bool = False, tune: bool = False) -> None:
        """Search where `sweep` says; the journal is opened when the first recipe is asked for.

        With `tune` Ray Tune does the pruning, and the pruner here is only told of it.
        """
        self.stop_hopeless, self.tune = stop_hopeless, tune
        self.lessons: Lessons | None = None
        self.looked: dict[Job, int] = {}  # shares of a pack's run at which it was looked at
        self.seen: dict[Job, int] = {}  # evaluations that the study knows
        self.hopeless_by: dict[Job, str] = {}
        self.pruned_by: dict[Job, str] = {}
        self._given_up: dict[Recipe, search_ranking.StoppedRecipe] = {}
        assert sweep.search is not None
        self.template, self.store, self.search = sweep, store, sweep.search
        self.cells: list[Cell] = []
        self._noted = False
        self.open: dict[int, Cell] = {}  # number -> cell, asked and not told
        self.asked = 0
        # A grid ends; other samplers may suggest the same twice, which counts and is not trained again.
        grid = math.prod(len(dimension.values or ()) for dimension in self.search.space)
        self.most = min(self.search.recipes, grid) if self.search.sampler == "grid" else self.search.recipes
        self._study: optuna.Study | None = None

    @property
    def left(self) -> int:
        """Recipes still to ask for."""
        return max(0, self.most - self.asked)

    def news(self) -> tuple[str, ...]:
        """Of which recipes a pruner sees nothing in time; said once."""
        if self.search.pruner is None or self._noted:
            return ()
        self._noted = True
        note = pruning.unseen(self.search, self.template.cells[0].recipe)
        return () if note is None else (note,)

    def grown(self) -> Sweep | None:
        """Tell what is finished, then ask for a recipe that was not trained before; None where all were asked."""
        resumed = self._study is None
        if resumed:
            self._load()
        self._tell()
        if resumed and self.open:
            return self._sweep()
        while self.left:
            if self._ask():
                return self._sweep()
            self._tell()  # a recipe that was trained already
        return None

    @property
    def stopped(self) -> set[str]:
        """The trials of recipes that were given up and have not been trained since."""
        each = [self._ids(recipe) for recipe in self._given_up]
        return {trial_id for ids in each if _lack(self.store, ids) for trial_id in ids}

    def hopeless(self, running: Running) -> bool:
        """Whether the pruner stops a recipe, or all its runs are at risk; all its seeds must be one pack."""
        return self._behind(running) or self._lost(running)

    def _behind(self, running: Running) -> bool:
        """Whether the pruner stops a recipe by the evaluations of its runs, which the study is told of."""
        job, evaluations, pruner = running.job, running.heard.evaluations, self.search.pruner
        first = self.seen.get(job, 0)
        if pruner is None or len(evaluations) == first or not self._whole(job):
            return False
        self.seen[job] = len(evaluations)
        for number, cell in self.open.items():
            if cell.recipe != job.trials[0].recipe:
                continue
            trial = self._suggested(number)
            for so_far in range(first + 1, len(evaluations) + 1):
                new = self._report(trial, pruning.curve(evaluations[:so_far], pruner, self.search.objective))
                if self.tune or not new or not pruning.asked(evaluations[:so_far], pruner, cell.recipe):
                    continue
                if self._prunes(trial):
                    self.pruned_by[job] = pruning.words(pruner, evaluations[so_far - 1], self.search.objective)
                    trial.set_user_attr(_PRUNED, self.pruned_by[job])
                    break
        return job in self.pruned_by

    def _report(self, trial: optuna.trial.Trial, curve: Mapping[int, float]) -> bool:
        """Give a trial the values of a curve that it does not have; whether it knows nothing that comes after them.

        A trial whose search was killed does: what was asked before is not asked again.
        """
        known = set(self._opened.get_trials(deepcopy=False)[trial.number].intermediate_values)
        for step in [step for step in curve if step not in known]:
            trial.report(curve[step], step)
        return known <= set(curve)

    def _prunes(self, trial: optuna.trial.Trial) -> bool:
        """Whether the pruner stops a recipe; it is asked of the first ones too, since halving compares with those."""
        import optuna

        assert self.search.pruner is not None
        complete = self._opened.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        killed = _PRUNED in trial.user_attrs  # before the pack was left; halving gives its answer once
        return killed or (trial.should_prune() and len(complete) >= self.search.pruner.n_startup_trials)

    def _whole(self, job: Job) -> bool:
        return {trial.id for trial in job.trials} == set(self._ids(job.trials[0].recipe))

    def _lost(self, running: Running) -> bool:
        """Whether all runs of a recipe are at risk by the finished runs of other recipes."""
        job, signals = running.job, running.heard.signals
        if not self.stop_hopeless or signals is None or self.looked.get(job) == signals.shape[1]:
            return False
        self.looked[job] = signals.shape[1]
        if not self._whole(job):
            return False
        from harness.analysis import live_warning  # scipy

        sweep = self._sweep()
        trials = expand(sweep)
        self.lessons = self.lessons or live_warning.Lessons(self.store)
        self.lessons.learn(sweep, [trial for trial, record in self.store.each(trials) if _finished(record)])
        rule = self.lessons.rule(job.trials[0].cell)
        lost = live_warning.look_lost(rule, early_signals.of_lanes(signals))
        if isinstance(rule, str) or not all(lost):
            return False
        self.hopeless_by[job] = rule.rule.words
        return True

    def stop(self, running: Running) -> str:
        """Tell the study of a recipe that was given up."""
        job = running.job
        cell, by_pruner = self.cells[job.trials[0].cell], job not in self.hopeless_by
        if by_pruner and job not in self.pruned_by:  # by Tune
            assert self.search.pruner is not None
            latest = running.heard.evaluations[-1]
            self.pruned_by[job] = pruning.words(self.search.pruner, latest, self.search.objective, _TUNE)
        rule = self.pruned_by[job] if by_pruner else self.hopeless_by[job]
        stopped_recipe = search_ranking.StoppedRecipe(cell.label, rule, running.share, running.seconds, len(job.trials))
        if by_pruner:
            stopped_recipe = replace(stopped_recipe, by_pruner=True, flat=pruning.flat(running.heard.evaluations))
        self._given_up[cell.recipe] = stopped_recipe
        self._tell()
        why = f"{search_ranking.UNSEEN} ({rule})" if by_pruner else f"because all its runs are at risk ({rule})"
        return f"{cell.label}: given up at {100 * stopped_recipe.share:.0f} % of its training, {why}"

    @property
    def _opened(self) -> optuna.Study:
        assert self._study is not None
        return self._study

    def _sweep(self) -> Sweep:
        return self.template.model_copy(update={"cells": tuple(self.cells)})

    def _load(self) -> None:
        import optuna

        self.store.folder.mkdir(parents=True, exist_ok=True)
        both = self.search.failing == "objective"
        self._study = optuna.create_study(
            storage=_journal(self.store),
            study_name=self.template.folder_name,
            directions=["maximize", "minimize"] if both else ["maximize"],
            load_if_exists=True,
            pruner=pruning.optuna_pruner(self.search.pruner),
        )
        if both:
            self._study.set_metric_names([search_ranking.WORDS[self.search.objective], "share of failed runs"])
        switches = {"--stop-hopeless": self.stop_hopeless, "--tune": self.tune}
        self._study.set_user_attr(_SWITCHES, [name for name, on in switches.items() if on])
        for trial in self._study.get_trials(deepcopy=False):
            if "recipe" in trial.user_attrs:
                self._join(trial.number, trial.params, trial.state.is_finished())
                if _STOPPED in trial.user_attrs:
                    stopped_recipe = search_ranking.StoppedRecipe(**trial.user_attrs[_STOPPED])
                    if self.stop_hopeless or stopped_recipe.by_pruner:
                        self._given_up[self._cell(trial.params).recipe] = stopped_recipe
            elif not trial.state.is_finished():  # killed while it was suggested: nobody has seen it
                self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)

    def _join(self, number: int, params: Mapping[str, Any], told: bool) -> bool:
        """Take an asked recipe into the plan; whether it is new there."""
        self.asked += 1
        cell = self._cell(params)
        fresh = cell.recipe not in {existing.recipe for existing in self.cells}
        if fresh:
            self.cells.append(cell)
        if not told:
            self.open[number] = cell
        return fresh

    def _cell(self, params: Mapping[str, Any]) -> Cell:
        return suggestions.cell_of(self.template.cells[0].recipe, self.search.space, params)

    def _ids(self, recipe: Recipe) -> list[str]:
        return [Trial(recipe=recipe, seeds=seeds, cell=0).id for seeds in self.template.seeds]

    def _tell(self) -> None:
        """Tell the study of every asked recipe whose trials all have records, or that was given up."""
        for number, cell in list(self.open.items()):
            if cell.recipe in self._given_up:
                self._tell_stopped(number, self._given_up[cell.recipe])
                del self.open[number]
                continue
            ranked = search_ranking.judged([self.store.load(trial_id) for trial_id in self._ids(cell.recipe)])
            if ranked.complete:
                self._tell_one(number, ranked)
                del self.open[number]

    def _suggested(self, number: int) -> optuna.trial.Trial:
        """An asked trial, to be told."""
        import optuna

        study = self._opened
        study.sampler = optuna.samplers.RandomSampler()  # has nothing to do here; a grid's would stop a loop
        return optuna.trial.Trial(study, study.get_trials(deepcopy=False)[number]._trial_id)

    def _tell_stopped(self, number: int, stopped_recipe: search_ranking.StoppedRecipe) -> None:
        """Tell the study that a recipe was given up: without a value; its runs that hadn't learned count as failed."""
        import optuna

        trial = self._suggested(number)
        trial.set_user_attr(_STOPPED, asdict(stopped_recipe))
        if self.search.failing == "constraint":
            trial.set_constraint("failed", stopped_recipe.flat)
        self._opened.tell(trial, state=optuna.trial.TrialState.PRUNED)

    def _tell_one(self, number: int, ranked: search_ranking.RankedRecipe) -> None:
        import optuna

        study, trial = self._opened, self._suggested(number)
        trial.set_user_attr("scores", [round(score, 6) for score in ranked.scores.tolist()])
        trial.set_user_attr("failed", f"{ranked.failed} of {ranked.finished}")
        self._report(trial, self._to_the_end(number))
        value = ranked.value(self.search.objective)
        if value is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return
        rate = ranked.failed / ranked.finished
        if self.search.failing == "constraint":
            trial.set_constraint("failed", rate)  # at most 0 is feasible
        study.tell(trial, [value, rate] if self.search.failing == "objective" else value)

    def _to_the_end(self, number: int) -> dict[int, float]:
        """The last value that a finished recipe's pruner saw, at all looks after it."""
        pruner, known = self.search.pruner, self._opened.get_trials(deepcopy=False)[number].intermediate_values
        if pruner is None or not known:
            return {}
        return dict.fromkeys(range(max(known), 101, pruner.interval_steps), known[max(known)])

    def _ask(self) -> bool:
        """Suggest a recipe and keep it in the journal; whether it is new to the plan."""
        study = self._opened
        study.sampler = suggestions.sampler(self.search, len(study.get_trials(deepcopy=False)))
        trial = study.ask()
        suggestions.suggest(trial, self.search.space)
        cell = self._cell(trial.params)
        trial.set_user_attr("trials", self._ids(cell.recipe))
        trial.set_user_attr("recipe", cell.label)  # the last: with it the suggestion is whole
        return self._join(trial.number, trial.params, told=False)


def _journal(store: Store) -> JournalStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(store.folder / STUDY)))


def _lack(store: Store, trials: Sequence[str]) -> bool:
    """Whether some of these trials have no record."""
    return not search_ranking.judged([store.load(trial_id) for trial_id in trials]).complete


def _finished(record: Record | None) -> bool:
    return record is not None and record.status == "finished"
