"""Data and model of a sweep's recipes are set up once by a worker before anything is trained: what is wrong is said."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.common import hub
from harness.common.errors import HarnessError
from harness.config.trials import Trial
from harness.data import vocabulary


@dataclass(frozen=True)
class Preflight:
    """What setting a trial up gave: why it can't be trained (the parts of an error), or what to tell."""

    refused: tuple[str, str | None, str | None, str | None] | None = None
    notes: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise what was refused."""
        if self.refused is not None:
            problem, got, allowed, fix = self.refused
            raise HarnessError(problem, got=got, allowed=allowed, fix=fix)


def distinct(trials: Iterable[Trial]) -> tuple[Trial, ...]:
    """One trial of each set of data, model and method: what others are set up with is the same."""
    first: dict[object, Trial] = {}
    for trial in trials:
        if trial.script is not None:
            continue
        recipe = trial.recipe
        first.setdefault((recipe.task, recipe.model, recipe.max_length, recipe.peft_config), trial)
    return tuple(first.values())


def look(trial: Trial, *, trusts_remote_code: bool) -> Preflight:
    """Set a trial's data and model up here, where a pack of it will find them again."""
    from harness.training import fitting
    from harness.training.prepare import load_network, load_task

    hub.trust_remote_code(trusts_remote_code)
    recipe = trial.recipe
    try:
        task = load_task(recipe.task, recipe.model, recipe.max_length)
        network = load_network(recipe, task)
        fitting.check(network, task, recipe.model.name)
    except HarnessError as error:
        return Preflight((error.problem, error.got, error.allowed, error.fix))
    except Exception:  # it will happen in the pack again, and be kept in the trials' records
        return Preflight()
    share, notes = task.unknown_share, list(network.notes)
    if share is not None and share > vocabulary.WARN_ABOVE:
        notes.insert(0, vocabulary.words(share, recipe.model.name))
    return Preflight(notes=tuple(notes))
