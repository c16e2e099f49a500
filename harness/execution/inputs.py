"""What is looked at before anything is trained: the same for `plan`, which loads no weights, and for `sweep`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from harness.common import hub, metrics
from harness.common.errors import HarnessError
from harness.config.axes import unused_settings
from harness.config.recipe import Recipe
from harness.config.recipe_rules import check_reinit
from harness.config.trials import Sweep
from harness.data import augmentation, label_notes, tasks
from harness.data.examples import Raw
from harness.data.glue import GLUE
from harness.execution import baselines, model_shape
from harness.models import model_files


def check_models(recipes: Sequence[Recipe]) -> None:
    """Raise HarnessError for models that can't be had, whose files are not whole, or that a recipe doesn't fit."""
    for model in dict.fromkeys(recipe.model for recipe in recipes):
        hub.check_model(model)
        model_files.check(model)
    check_architectures(recipes)


def check_architectures(recipes: Sequence[Recipe]) -> None:
    """Raise HarnessError for recipes that don't fit what is known here of their model's architecture."""
    for recipe in recipes:
        layers = model_shape.layers(recipe.model)
        if layers is not None:
            check_reinit(recipe, layers)
        # transformers masks its attention, in bf16 under autocast, with the least number of float32: an overflow.
        if recipe.precision == "bf16" and model_shape.family(recipe.model) == "deberta":
            raise HarnessError(
                f"{recipe.model.name} (DeBERTa's first version) cannot be trained with precision: bf16",
                fix="Use float32 or tf32, or a later version",
            )


def check_task(recipes: Sequence[Recipe], raw: Raw) -> None:
    """Raise HarnessError where a task's data can't tell runs apart, or don't fit a recipe that is trained on them."""
    label_notes.refuse_single(raw)
    metrics.check(raw.metric, raw.validation.labels, len(raw.label_names or ()))
    for recipe in recipes:
        tasks.check_recipe(recipe, raw.train.labels, raw.metric)


def planned(sweep: Sweep) -> tuple[str, ...]:
    """Look at all that can be looked at without weights and without the network's help; what a person should know.

    Raises HarnessError for what a sweep would refuse. Data or models by name that can't be had on this machine are
    told, for the plan may be another's.
    """
    if sweep.is_script:
        return ()
    notes = list(unused_settings(sweep.cells))
    recipes = tuple(dict.fromkeys(cell.recipe for cell in sweep.cells))
    for task in dict.fromkeys(recipe.task for recipe in recipes):
        own = [recipe for recipe in recipes if recipe.task == task]
        if tasks.on_the_hub(task):
            tasks.sizes(task, own)
            notes += _absent(partial(tasks.check, task))
            continue
        raw = tasks.load(task)
        check_task(own, raw)
        for recipe in own:
            augmentation.check(recipe, raw)
        notes += label_notes.of(raw)
    by_name = dict.fromkeys(recipe.model for recipe in recipes if model_files.folder_of(recipe.model) is None)
    for model in by_name:
        notes += _absent(partial(hub.check_model, model))
    check_models([recipe for recipe in recipes if recipe.model not in by_name])
    check_architectures(recipes)
    if not any(recipe.task.files is None and recipe.task.name in GLUE for recipe in recipes):
        baselines.check(sweep)
    return tuple(notes)


def _absent(look: Callable[[], None]) -> list[str]:
    try:
        look()
    except HarnessError as error:
        return [f"A sweep could not start here: {str(error).rstrip('.')}."]
    return []
