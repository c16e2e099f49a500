"""What a started sweep and its models must be before anything is trained: `plan` and all that train go through here.

What can be told of data and models without records stands in `inputs`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from harness.common import hub, scorers
from harness.common.errors import HarnessError
from harness.config.recipe import ModelSpec, Recipe, TaskSpec
from harness.config.trials import Sweep, expand, orphaning_change
from harness.data import augmentation, tasks
from harness.data.examples import Raw, splits
from harness.execution import inputs, machine, model_shape
from harness.execution.script_worker import Needs
from harness.models import model_files, token_hash
from harness.records.record import Record
from harness.records.store import Store
from harness.records.study import columns
from harness.scripts import commands


def refuse_orphans(sweep: Sweep, store: Store, records: Mapping[str, Record]) -> None:
    """Raise HarnessError for an edit of a started sweep that would orphan trained trials.

    `records` are those of the folder, by trial id (`Store.records`).
    """
    old = store.load_plan()
    if old is None or old == sweep:
        return
    trained = [trial for trial in expand(old) if trial.id in records or store.load(trial.id) is not None]
    seeds, rule = max(Counter(trial.cell for trial in trained).values(), default=0), sweep.rule
    if rule is not None and old.rule is not None and rule.start == old.rule.start and seeds > rule.at_most:
        raise HarnessError(
            f"seeds.at_most must not be less than the seeds already trained per cell in {store.folder}",
            got=f"at_most: {rule.at_most}, {seeds} trained",
            fix="Raise it, or name another folder with --results",
        )
    change = orphaning_change(old, sweep, trained)
    if change is not None:
        raise HarnessError(
            f"the edited sweep has no {change}, which trained trials in {store.folder} have",
            fix="Put it back (values and seeds may be added), or name another folder with --results",
        )


def check_inputs(
    sweep: Sweep, records: Mapping[str, Record], cells: Collection[int], address: str | None = None
) -> None:
    """Load the data and look for the models of some cells; raises HarnessError as `inputs`, and as `check_planned`.

    At an address what a script takes is the cluster's to have.
    """
    if sweep.is_script:
        check_scripts(sweep, of_this_machine=address is None)
        return
    recipes = [sweep.cells[cell].recipe for cell in sorted(cells)]
    started = _Started(sweep, records)
    loaded: dict[TaskSpec, Raw] = {}
    for task in dict.fromkeys(recipe.task for recipe in recipes):
        loaded[task] = raw = tasks.load(task)
        own = [recipe for recipe in recipes if recipe.task == task]
        inputs.check_task(own, raw)
        started.check(own, raw)
    inputs.check_models(recipes)
    _check_settings(recipes, records)
    for model in dict.fromkeys(recipe.model for recipe in recipes):
        model_files.check_finite(model)
    token_hash.check_started(recipes, token_hash.known(records.values()))
    _check_methods(recipes)
    _check_lengths(recipes, loaded)


def check_scripts(sweep: Sweep, of_this_machine: bool = True) -> None:
    """Raise HarnessError where a script can't be run here, or an axis has the name of a column of the results.

    `of_this_machine`: what a run takes must be there.
    """
    taken = {*columns(), "cell"}
    for axis in sweep.axes:
        if axis in taken:
            raise HarnessError(
                f"the axis {axis} has the name of a column of the results",
                fix=f"Call it, say, {axis}_given, in the command too",
            )
    for trial in expand(sweep)[:: max(1, len(sweep.due_seeds))]:
        commands.check(trial)
    script = sweep.cells[0].script
    assert script is not None
    if of_this_machine:
        hardware = machine.detect_hardware()
        there = {"CPU": hardware.cores, "GPU": len(hardware.gpus), "memory": hardware.memory}
        needs = Needs.of(script.script.resources)
        needs.refuse_too_many(None, needs.places([{"Resources": there}]), there)


def check_writable(folder: Path) -> None:
    """Raise HarnessError where a results folder that is not there yet, or is, can't be written; writes nothing."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise HarnessError(
            f"the results folder {folder} cannot be written: {there} is "
            f"{'not writable' if there.is_dir() else 'no folder'}",
            fix="Name another folder with --results",
        )


def check_planned(sweep: Sweep, records: Mapping[str, Record]) -> None:
    """Raise HarnessError for what a sweep would refuse beyond `inputs.planned`, without asking the hub for anything.

    That is other data, words or tokens than the finished trials had, a method that a model has not the parts for, words
    of a token task that would be scored and have no token, answers that stand whole in no window, and choices that are
    too long.
    """
    if sweep.is_script:
        check_scripts(sweep)
        return
    recipes = [cell.recipe for cell in sweep.cells]
    started = _Started(sweep, records)
    loaded: dict[TaskSpec, Raw] = {}
    for task in dict.fromkeys(recipe.task for recipe in recipes):
        own = [recipe for recipe in recipes if recipe.task == task]
        if not tasks.on_the_hub(task) and (task.kind in _LENGTHS_MATTER or started.knows(own)):
            loaded[task] = tasks.load(task)
            started.check(own, loaded[task])
    _check_settings(recipes, records)
    there = [recipe for recipe in recipes if _is_here(recipe.model)]
    read_here = [recipe for recipe in there if not tasks.on_the_hub(recipe.task)]
    token_hash.check_started(read_here, token_hash.known(records.values()))
    _check_methods([recipe for recipe in recipes if recipe in there or model_shape.known_type(recipe.model)])
    _check_lengths(there, loaded)


def _check_settings(recipes: Sequence[Recipe], records: Mapping[str, Record]) -> None:
    """Refuse a model whose config.json says something else than when the finished trials were trained.

    Early records have no hash of it, and a model that is not fetched yet has no file.
    """
    trained: dict[str, str] = {}
    for record in records.values():
        if record.measured is not None and record.measured.config_sha256 is not None:
            trained.setdefault(record.trial.recipe.model.name, record.measured.config_sha256)
    for model in dict.fromkeys(recipe.model for recipe in recipes if recipe.model.name in trained):
        if model_files.config_sha256(model) not in (None, trained[model.name]):
            raise HarnessError(
                f"the config.json of '{model.name}' is not that with which the finished trials were trained",
                fix="Restore the file, or name another folder with --results",
            )


def _is_here(model: ModelSpec) -> bool:
    return model_files.folder_of(model) is not None or hub.cached("model", model.name)


class _Started:
    """What the finished trials of a sweep were trained on."""

    def __init__(self, sweep: Sweep, records: Mapping[str, Record]) -> None:
        self.data: dict[str, tuple[str, str]] = {}  # task -> (hash, a trial that has it)
        for trial in expand(sweep):
            record = records.get(trial.id)
            if record and record.measured and record.measured.data_sha256:
                self.data.setdefault(trial.recipe.task.name, (record.measured.data_sha256, trial.id))
        self.metrics = {
            record.measured.metric: record.measured.metric_sha256
            for record in records.values()
            if record.measured and record.measured.metric_sha256
        }
        self.words: dict[str, str | None] = {
            record.trial.recipe.synonyms.name: record.measured.augmentation_sha256
            for record in records.values()
            if record.measured and record.trial.recipe.synonyms
        }

    def knows(self, recipes: Sequence[Recipe]) -> bool:
        """Whether any of it is what these recipes are trained on."""
        names = {recipe.synonyms.name for recipe in recipes if recipe.synonyms}
        if any(recipe.task.metric in self.metrics for recipe in recipes):
            return True
        return any(recipe.task.name in self.data for recipe in recipes) or bool(names & set(self.words))

    def check(self, recipes: Sequence[Recipe], raw: Raw) -> None:
        """Refuse to mix data or words under one name; the recipes are of one task."""
        for recipe in recipes:
            digest = augmentation.check(recipe, raw)
            if recipe.synonyms and self.words.get(recipe.synonyms.name, digest) != digest:
                raise HarnessError(
                    f"the synonyms '{recipe.synonyms.name}' are not those that the finished trials were trained with",
                    fix="Restore the list, or give the new one another name",
                )
        scorer = scorers.find(raw.metric)
        if scorer is not None and self.metrics.get(scorer.name, scorer.sha256) != scorer.sha256:
            raise HarnessError(
                f"the file of the metric {scorer.name} is not the one that the finished trials were scored with",
                fix="Restore it, give the changed function another name, or name another folder with --results",
            )
        name = recipes[0].task.name
        if name in self.data and self.data[name][0] != raw.sha256:
            raise HarnessError(
                f"the data of '{name}' are not those that {self.data[name][1]} was trained with",
                fix="Restore the same texts and labels in the same order, or name another folder with --results",
            )


def _check_methods(recipes: Sequence[Recipe]) -> None:
    for model, method, kind in dict.fromkeys(
        (recipe.model, recipe.peft_config, recipe.task.kind)
        for recipe in recipes
        if recipe.method != "full" or recipe.task.kind != "texts"
    ):
        from harness.models import pretrained  # torch, where a method or a kind asks what the model has

        pretrained.check(model, method, kind, None if _is_here(model) else model_shape.known_type(model))


_LENGTHS_MATTER = ("tokens", "choice", "span")  # whose data are refused where max_length would cut what is scored


def _check_lengths(recipes: Sequence[Recipe], loaded: Mapping[TaskSpec, Raw]) -> None:
    for task, model, length in dict.fromkeys((recipe.task, recipe.model, recipe.max_length) for recipe in recipes):
        if task.kind in _LENGTHS_MATTER and task in loaded:
            from harness.data import choices, spans, tokenization  # torch; tokens are needed of these kinds alone
            from harness.models import pretrained

            tokenizer = pretrained.tokenizer(model)
            if task.kind == "span":
                spans.check(loaded[task], tokenizer, length)
            elif task.kind == "choice":
                for rows in splits(loaded[task]).values():
                    choices.encode_rows(rows, tokenizer, length)
            else:
                tokenization.check_words(loaded[task], tokenizer, length)
