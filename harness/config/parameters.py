"""What a trial was trained with, as data: every axis and every setting that decides its result, defaults among them."""

from __future__ import annotations

from harness.common.text import Scalar, show
from harness.config.recipe import SEED_FIELDS, Recipe, Spec, TaskSpec
from harness.config.trials import Sweep, Trial

Parameters = tuple[tuple[str, Scalar], ...]


def parameters(sweep: Sweep, trial: Trial) -> Parameters:
    """The (name, value) pairs of a trial: its place on every axis, every field of its recipe, and its seeds.

    No field is left out for being at its default: stores filter and group by them. Only settings of another method are
    (`lora_rank` of a fully fine-tuned run), unless they are an axis. Task and model stand by their names, how a task is
    read under `task.…`, and a name of `recipes:` on the axis `recipe`.
    """
    if trial.script is not None:
        seeds = (("seed", trial.seeds.seed),)
        return (*dict((*sweep.cells[trial.cell].axes, *trial.script.settings)).items(), *seeds)
    recipe = trial.recipe
    values: dict[str, Scalar] = dict(sweep.cells[trial.cell].axes)
    for name in Recipe.model_fields:
        if recipe.uses_field(name) and values.get(name, "") is not None:  # None: it doesn't count in this cell
            value = getattr(recipe, name)
            values[name] = value.name if isinstance(value, Spec) else value
    for name in TaskSpec.model_fields:
        if name not in ("name", "files", "metric_file"):  # where files lie decides nothing
            values[f"task.{name}"] = getattr(recipe.task, name)
    return (*values.items(), *((name, getattr(trial.seeds, name)) for name in SEED_FIELDS))


def exact(value: Scalar) -> str:
    """A value as people write it, 2e-5 or on, that reads back as the same number."""
    text = show(value)
    return text if not isinstance(value, float) or float(text) == value else repr(value)
