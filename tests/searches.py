"""Shared by the tests of searches: the study as Optuna reads it, and records of trials that were not trained."""

import optuna
from made_runs import ENVIRONMENT, Run, measured
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from harness.config.trials import Trial
from harness.data import tasks
from harness.execution import train_pack
from harness.records.record import Record
from harness.records.store import Store


def journal(store: Store) -> list[optuna.trial.FrozenTrial]:
    """The study's trials, as anybody's Optuna reads them."""
    storage = JournalStorage(JournalFileBackend(str(store.folder / "study.log")))
    (study,) = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=study, storage=storage).get_trials()


def scored(name: str, profile: str, trial: Trial, score: float) -> Record:
    """A record as if the trial had been trained on the data there are, to that share of 400 dev examples."""
    values = measured(Run(round(400 * score)), 10, 200, 400, "accuracy")
    values = values.model_copy(update={"data_sha256": tasks.load(trial.recipe.task).sha256})
    return train_pack.make_record(name, profile, trial, "2026", ENVIRONMENT, values, None)
