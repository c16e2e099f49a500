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
    if not trial.higher_is_better:  # a loss, of which the untouched model has 2
        outcome = {"outcome": "failed" if score >= 2 else "ok", "reason": None, "metric": "loss"}
        level = {"majority_score": 2.0, "majority_correct": None, "untouched_score": 2.0}
        values = values.model_copy(
            update=outcome | level | {"correct": None, "final_score": score, "best_score": score}
        )
    values = values.model_copy(update={"data_sha256": tasks.load(trial.recipe.task).sha256})
    return train_pack.make_record(name, profile, trial, "2026", ENVIRONMENT, values, None)
