"""Optuna's study of a search, kept in `study.log` beside the plan: recipes are asked of it and results told to it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from harness.analysis import search_ranking
from harness.common.errors import HarnessError
from harness.config.trials import Sweep
from harness.records import study_log
from harness.records.store import Store
from harness.search import pruning, suggestions

if TYPE_CHECKING:
    import optuna
    from optuna.storages import JournalStorage

RESTORE = (
    "Restore it from a copy, or search anew in another folder with --results; "
    "the runs that were trained stay, and `harness report` shows them"
)
_STOPPED = "stopped"  # the attribute of a suggestion that was given up
_SWITCHES = "switches"  # that of the study: what it was last started with
_PRUNED = "pruned"  # that of one that a pruner told to stop, which follows at its next step


class StudyJournal:
    """The study of a search that is begun or resumed: what Optuna is asked and told.

    Each suggestion is drawn by a sampler of its own, keyed by the search's seed and the suggestion's number, so that a
    search that was killed and gone on with suggests what it would have suggested.
    """

    def __init__(self, sweep: Sweep, store: Store, switches: Sequence[str]) -> None:
        """Open the study of a search file's sweep, or begin it.

        Args:
            sweep: The sweep of a search file.
            store: Its results folder, which is made where it is not there.
            switches: Those of the command, for whoever goes on with the search.

        Raises:
            HarnessError: The study is there and can't be read.
        """
        import optuna

        assert sweep.search is not None
        self.search = sweep.search
        store.folder.mkdir(parents=True, exist_ok=True)
        _mend(store)
        both = self.search.failing == "objective"
        direction: Literal["minimize", "maximize"] = "minimize" if self.search.lower_is_better else "maximize"
        self._study = optuna.create_study(
            storage=_storage(store),
            study_name=sweep.folder_name,
            directions=[direction, "minimize"] if both else [direction],
            load_if_exists=True,
            pruner=pruning.optuna_pruner(self.search.pruner),
        )
        if both:
            self._study.set_metric_names([search_ranking.objective_words(self.search), "share of failed runs"])
        self._study.set_user_attr(_SWITCHES, list(switches))

    def suggestions(self) -> Iterator[tuple[int, dict[str, Any], bool, search_ranking.StoppedRecipe | None]]:
        """Number, parameters, whether it was told, and how it was given up, of what was suggested before.

        What a killed search had not suggested whole is told to have failed: nobody has seen it.
        """
        import optuna

        for trial in self._trials():
            if "recipe" in trial.user_attrs:
                stopped = trial.user_attrs.get(_STOPPED)
                recipe = search_ranking.StoppedRecipe(**stopped) if stopped else None
                yield trial.number, trial.params, trial.state.is_finished(), recipe
            elif not trial.state.is_finished():
                self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)

    def ask(self) -> optuna.trial.Trial:
        """A new suggestion, with its parameters; it counts once `note_recipe` has said what it is."""
        self._study.sampler = suggestions.sampler(self.search, len(self._trials()))
        trial = self._study.ask()
        suggestions.suggest(trial, self.search.space)
        return trial

    @staticmethod
    def note_recipe(trial: optuna.trial.Trial, label: str, trial_ids: Sequence[str]) -> None:
        """Keep what a suggestion is, in words and as trials."""
        trial.set_user_attr("trials", list(trial_ids))
        trial.set_user_attr("recipe", label)  # the last: with it the suggestion is whole

    def asked(self, number: int) -> optuna.trial.Trial:
        """A suggestion that was asked for, to be told."""
        import optuna

        self._study.sampler = optuna.samplers.RandomSampler()  # has nothing to do here; a grid's would stop a loop
        return optuna.trial.Trial(self._study, self._trials()[number]._trial_id)

    def report(self, trial: optuna.trial.Trial, curve: Mapping[int, float]) -> bool:
        """Give a trial the values of a curve that it does not have; whether it knows nothing that comes after them.

        A trial whose search was killed does: what was asked before is not asked again.
        """
        known = set(self._trials()[trial.number].intermediate_values)
        for step in [step for step in curve if step not in known]:
            trial.report(curve[step], step)
        return known <= set(curve)

    def prunes(self, trial: optuna.trial.Trial) -> bool:
        """Whether the pruner stops a recipe; it is asked of the first ones too, since halving compares with those."""
        import optuna

        assert self.search.pruner is not None
        complete = self._study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        killed = _PRUNED in trial.user_attrs  # before the pack was left; halving gives its answer once
        return killed or (trial.should_prune() and len(complete) >= self.search.pruner.n_startup_trials)

    @staticmethod
    def note_pruned(trial: optuna.trial.Trial, words: str) -> None:
        """Keep that a recipe is to stop, before its pack is left."""
        trial.set_user_attr(_PRUNED, words)

    def tell(self, number: int, ranked: search_ranking.RankedRecipe) -> None:
        """Tell a recipe's value, its failed runs, and to the end what its pruner saw."""
        import optuna

        study, trial = self._study, self.asked(number)
        trial.set_user_attr("scores", [round(score, 6) for score in ranked.scores.tolist()])
        trial.set_user_attr("failed", f"{ranked.failed} of {ranked.finished}")
        self.report(trial, self._to_the_end(number))
        value = ranked.value(self.search)
        if value is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return
        rate = ranked.failed / ranked.finished
        if self.search.failing == "constraint":
            trial.set_constraint("failed", rate)  # at most 0 is feasible
        study.tell(trial, [value, rate] if self.search.failing == "objective" else value)

    def tell_stopped(self, number: int, stopped_recipe: search_ranking.StoppedRecipe) -> None:
        """Tell the study that a recipe was given up: without a value; its runs that hadn't learned count as failed."""
        import optuna

        trial = self.asked(number)
        trial.set_user_attr(_STOPPED, asdict(stopped_recipe))
        if self.search.failing == "constraint":
            trial.set_constraint("failed", stopped_recipe.flat)
        self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)

    def _to_the_end(self, number: int) -> dict[int, float]:
        """The last value that a finished recipe's pruner saw, at all looks after it."""
        pruner, known = self.search.pruner, self._trials()[number].intermediate_values
        if pruner is None or not known:
            return {}
        return dict.fromkeys(range(max(known), 101, pruner.interval_steps), known[max(known)])

    def _trials(self) -> list[optuna.trial.FrozenTrial]:
        return self._study.get_trials(deepcopy=False)


@contextmanager
def without_notes() -> Iterator[None]:
    """Without Optuna's log lines, and its notes that parts of it are new."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.filterwarnings("ignore", "The constraint value is ignored")  # a search killed before told it
            yield
    finally:
        optuna.logging.set_verbosity(before)


def stopped(sweep: Sweep, store: Store) -> tuple[search_ranking.StoppedRecipe, ...]:
    """The recipes of a search that were given up in mid-training and not trained since, from its journal."""
    study, recipes = _begun(sweep, store), {}
    for trial in study.get_trials(deepcopy=False) if study else ():
        if _STOPPED in trial.user_attrs and lack_records(store, trial.user_attrs["trials"]):
            recipes[tuple(trial.user_attrs["trials"])] = search_ranking.StoppedRecipe(**trial.user_attrs[_STOPPED])
    return tuple(recipes.values())


def switches(sweep: Sweep, store: Store) -> tuple[str, ...]:
    """The switches of the command that a search was last started with, for those who go on with it."""
    study = _begun(sweep, store)
    return tuple(study.user_attrs.get(_SWITCHES, ())) if study else ()


def _begun(sweep: Sweep, store: Store) -> optuna.Study | None:
    """The study of a search that was begun; None where there is none, or it can't be read (`Store.damaged_files`)."""
    if not (store.folder / study_log.NAME).is_file() or study_log.damage(store.folder) is not None:
        return None
    import optuna

    with without_notes(), suppress(KeyError):  # no study of this name yet
        return optuna.load_study(study_name=sweep.folder_name, storage=_storage(store))
    return None


def _storage(store: Store) -> JournalStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(store.folder / study_log.NAME)))


def _mend(store: Store) -> None:
    """Remove what a killed search left in the middle of its writing; the folder is held, so no other writes now.

    Optuna waits half a minute for the lock of a writer that is dead, and without end where the folder's name is
    relative, since the lock is then a link that leads nowhere.
    """
    path = store.folder / study_log.NAME
    if (damage := study_log.damage(store.folder)) is not None:
        raise HarnessError(f"cannot read {path}: {damage}", fix=RESTORE)
    with suppress(FileNotFoundError):
        study_log.cut_off(store.folder)
    with suppress(OSError):
        path.with_name(f"{path.name}.lock").unlink()


def lack_records(store: Store, trials: Sequence[str]) -> bool:
    """Whether some of these trials have no record."""
    return not search_ranking.judged([store.load(trial_id) for trial_id in trials]).complete
