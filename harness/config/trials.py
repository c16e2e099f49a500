"""A sweep's cells (recipes) and trials (a recipe and its seeds), and their ids."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, Self

from pydantic import ConfigDict, Field, model_validator

from harness.common.errors import HarnessError
from harness.common.text import Scalar, count_noun, name_cell, same_value, show
from harness.config.field_types import unknown_key
from harness.config.recipe import BY_NAME, SEED_FIELDS, BaselineName, Frozen, Recipe, Seeds, Spec, TaskSpec
from harness.config.script import AnyRecipe, ScriptRecipe
from harness.config.search_space import Search
from harness.config.seed_rule import Growth, SeedRule
from harness.config.yaml_reader import parse_yaml


class _WithRecipe(Frozen):
    """A recipe of the engine's or of a script; the two are told apart by `script`."""

    model_config = ConfigDict(serialize_by_alias=True)

    settings: AnyRecipe = Field(alias="recipe", description="Its hyperparameters.")

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other fields, of which `recipe` may be one."""
        renamed = {"settings" if name == "recipe" else name: value for name, value in (update or {}).items()}
        return super().model_copy(update=renamed, deep=deep)

    @property
    def recipe(self) -> Recipe:
        """The recipe of one that the engine trains; raises TypeError for one of a script."""
        if isinstance(self.settings, ScriptRecipe):
            raise TypeError("a script's recipe has only its own settings")
        return self.settings

    @property
    def script(self) -> ScriptRecipe | None:
        """The recipe of one that a script trains; None of the engine's."""
        return self.settings if isinstance(self.settings, ScriptRecipe) else None

    @property
    def higher_is_better(self) -> bool:
        """Whether a higher score is better."""
        if isinstance(self.settings, ScriptRecipe):
            return self.settings.script.higher_is_better
        return self.settings.task.higher_is_better

    def setting(self, name: str) -> object:
        """The value of a setting by its name: None where there is none of that name."""
        if isinstance(self.settings, ScriptRecipe):
            return dict(self.settings.settings).get(name)
        value = getattr(self.settings, name, None)
        return value.name if isinstance(value, Spec) else value


class Cell(_WithRecipe):
    """One recipe of a sweep and where it stands on the sweep's axes, as (axis, value) pairs in the file's order."""

    axes: tuple[tuple[str, Scalar], ...] = Field(description="Its (axis, value) pairs, in the file's order.")

    @property
    def label(self) -> str:
        """`lr 2e-5, bias correction on, epochs 3`; `the only recipe` in a sweep without axes."""
        return name_cell(self.axes)

    @property
    def key(self) -> str:
        """What tells recipes apart: all that decides a result, so neither a script's timeout nor a folder's place."""
        return Trial(recipe=self.settings, seeds=_ANY_SEEDS, cell=0).id


class Trial(_WithRecipe):
    """One training run: a recipe and its seeds, and the place of its cell in the sweep."""

    seeds: Seeds = Field(description="Its seeds.")
    cell: int = Field(ge=0, description="The index of its cell in the sweep, from 0.")

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Trial:
        """A copy with other fields, without the id of the original."""
        copy = super().model_copy(update=update, deep=deep)
        vars(copy).pop("id", None)
        return copy

    @cached_property
    def id(self) -> str:
        """A readable slug and eight hex digits over every field that decides the result.

        The slug holds the same fields in every sweep, and fields at their default are left out of the hash, so that
        neither a new axis nor a new field of `Recipe` orphans trained trials.
        """
        if self.script is not None:
            return _script_id(self.script, self.seeds.seed)
        recipe, seeds = self.recipe, self.seeds
        before, after = _decisive_text(recipe)
        own = json.dumps([seeds.init_seed, seeds.order_seed, seeds.dropout_seed])
        digest = hashlib.sha256(f"{before}{own}{after}".encode()).hexdigest()[:8]
        drivers = (seeds.init_seed, seeds.order_seed, seeds.dropout_seed)
        which = f"seed{seeds.seed}" if set(drivers) == {seeds.seed} else "init{}-order{}-dropout{}".format(*drivers)
        correction = "bc" if recipe.bias_correction else "nobc"
        return f"lr{show(recipe.lr)}-{correction}-ep{recipe.epochs}-{which}-{digest}"


_ANY_SEEDS = Seeds(seed=0, init_seed=0, order_seed=0, dropout_seed=0)
# What stood before and after the seeds for the recipe that was asked for last: trials come cell by cell.
_last_text: tuple[Recipe, tuple[str, str]] | None = None
_SEEDS = '"seeds": []'


def _decisive_text(recipe: Recipe) -> tuple[str, str]:
    """All that decides a trial's result as JSON, before and after the list of its seeds."""
    global _last_text
    last = _last_text
    if last is not None and last[0] is recipe:
        return last[1]
    decisive = recipe.model_dump(exclude_defaults=True)
    for name in BY_NAME:
        if isinstance(spec := decisive.get(name), dict):
            for no_part in ("files", "folder", "file", "metric_file", "allow_unknown"):  # doesn't decide the result
                spec.pop(no_part, None)
    before, _, after = json.dumps(decisive | {"seeds": []}, sort_keys=True).partition(_SEEDS)
    text = f"{before}{_SEEDS[:-2]}", after
    _last_text = recipe, text
    return text


def _script_id(recipe: ScriptRecipe, seed: int) -> str:
    """`lr2e-5-epochs3-seed1-` and eight hex digits over all that decides what the script gives."""
    script = recipe.script
    decisive: list[object] = [script.command, script.function, script.cwd, script.env, script.inputs]
    decisive += [recipe.settings, recipe.words, seed]
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:8]
    words = [f"{name}{show(value)}" for name, value in recipe.settings]
    slug = re.sub(r"[^\w.+-]+", "_", "-".join([*words, f"seed{seed}"])).lstrip(".-")
    return f"{slug[:100]}-{digest}"


class Sweep(Frozen):
    """A resolved sweep: one profile, its cells in the order of the axes, and the seeds every cell is trained with."""

    # They name a folder; a plan.json may be a stranger's.
    name: str = Field(pattern=r"^[^/\x00]+$", description="The file's name without its ending.")
    profile: str = Field(pattern=r"^[^/\x00]+$", description="The profile's name.")
    title: str = Field(max_length=2000, description="The title of its report.")
    stand_in: str | None = Field(
        default=None, description="What it stands in for, said beside every result; null: nothing."
    )
    source: str | None = Field(default=None, description="The sweep file's text, and what was set beside it.")
    baselines: tuple[BaselineName, ...] = Field(
        default=(), description="Classical baselines to compare the cells with."
    )
    cells: tuple[Cell, ...] = Field(
        min_length=1,
        description="The recipes, in the order of the axes; of a search, one at the largest values of its space.",
    )
    seeds: tuple[Seeds, ...] = Field(min_length=1, description="The seeds of every cell; by rule: the most of them.")
    record: bool = Field(
        default=True, description="Record training curves and statistics for the diagnosis; changes no result."
    )
    reference: tuple[tuple[str, Scalar], ...] = Field(
        default=(), description="Of an axis the value that its report compares the others with."
    )
    search: Search | None = Field(default=None, description="What is searched; null: the cells are all there is.")
    rule: SeedRule | None = Field(default=None, description="How seeds are added; null: all are planned at once.")
    growth: Growth | None = Field(default=None, description="How far a rule has come; null: it has not begun.")

    @model_validator(mode="after")
    def _check_growth(self) -> Sweep:
        """A plan.json may be a stranger's."""
        looks = self.growth.looks if self.growth else ()
        if any(len(look) != len(self.cells) or not 0 <= min(look) <= max(look) <= len(self.seeds) for look in looks):
            raise ValueError("growth does not fit cells and seeds")
        return self

    @model_validator(mode="after")
    def _check_axes(self) -> Sweep:
        """All cells stand on the same axes, and a reference is a value of one of them."""
        names = tuple(name for name, _ in self.cells[0].axes)
        if len(set(names)) < len(names) or any(tuple(name for name, _ in cell.axes) != names for cell in self.cells):
            raise ValueError("cells do not stand on the same axes, each once")
        values = {name: [dict(cell.axes)[name] for cell in self.cells] for name, _ in self.reference if name in names}
        for name, wanted in () if self.search else self.reference:
            if not any(show(wanted) == show(value) for value in values.get(name, ())):
                raise ValueError(f"the reference {name} is no value of an axis")
        return self

    @property
    def folder_name(self) -> str:
        """`<sweep>@<profile>`, the name of its results folder."""
        return f"{self.name}@{self.profile}"

    @property
    def due(self) -> tuple[int, ...]:
        """How many seeds of each cell are planned by now: all of them, unless they are added by rule."""
        if self.rule is None:
            return (len(self.seeds),) * len(self.cells)
        return self.growth.looks[-1] if self.growth else (self.rule.first,) * len(self.cells)

    @property
    def size(self) -> str:
        """`4 cells × 3 seeds`; by rule those that are planned by now, `4 cells × 3 to 12 seeds`."""
        low, high = min(self.due), max(self.due)
        seeds = count_noun(high, "seed") if low == high else f"{low} to {high} seeds"
        return f"{count_noun(len(self.cells), 'cell')} × {seeds}"

    @property
    def due_seeds(self) -> tuple[Seeds, ...]:
        """The seeds that any cell is planned with by now."""
        return self.seeds[: max(self.due)]

    @property
    def is_script(self) -> bool:
        """Whether its trials are trained by a script, not by the engine."""
        return self.cells[0].script is not None

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of the axes, in the file's order."""
        return tuple(name for name, _ in self.cells[0].axes)


@lru_cache(maxsize=8)
def expand(sweep: Sweep) -> tuple[Trial, ...]:
    """All planned trials of a sweep, cell by cell and in each by seed; the same sweep gives the same trials and ids.

    Raises HarnessError when two of them are the same training run (two named recipes with equal values, say).
    """
    due = sweep.due
    trials = tuple(
        Trial(recipe=cell.settings, seeds=seeds, cell=index)
        for index, cell in enumerate(sweep.cells)
        for seeds in sweep.seeds[: due[index]]
    )
    first: dict[str, Trial] = {}
    for trial in trials:
        other = first.setdefault(trial.id, trial)
        if other is not trial:
            raise HarnessError(
                f"'{sweep.cells[other.cell].label}' and '{sweep.cells[trial.cell].label}' are the same training run,"
                f" {trial.id}",
                fix="Remove one of them",
            )
    return trials


def every_seed(sweep: Sweep) -> Sweep:
    """The sweep with all seeds planned that a rule may come to."""
    return sweep if sweep.rule is None else sweep.model_copy(update={"rule": None, "growth": None})


def where(
    sweep: Sweep, conditions: Sequence[str], seed: int | None = None, option: str = "--where"
) -> tuple[Trial, ...]:
    """The trials that match `key=value` texts over axes, recipe fields and seeds, in the plan's order.

    Raises HarnessError, which names the `option` that they were given by, for texts that can't be read.
    """
    wanted: dict[str, Any] = {}
    for condition in conditions:
        key, equals, text = condition.partition("=")
        fields = Recipe.model_fields if not sweep.is_script else ()
        known = dict.fromkeys((*sweep.axes, *fields, *SEED_FIELDS))
        if not equals:
            raise HarnessError(f"{option} {condition} is not of the form KEY=VALUE (for example: {option} lr=2e-5)")
        if key not in known:
            raise unknown_key(key, tuple(known), option)
        if key in wanted or (key == "seed" and seed is not None):
            raise HarnessError(f"{option} names {key} twice", fix="Remove one")
        wanted[key] = None if text == "none" else parse_yaml(text, f"the value of {option} {key}")
    if seed is not None:
        wanted["seed"] = seed

    def value(trial: Trial, key: str) -> object:
        axes = dict(sweep.cells[trial.cell].axes)
        if key in axes:
            return axes[key]
        if key in SEED_FIELDS:
            return getattr(trial.seeds, key)
        return trial.setting(key)

    def matches(trial: Trial) -> bool:
        return all(same_value(value(trial, key), want) for key, want in wanted.items())

    return tuple(trial for trial in expand(sweep) if matches(trial))


def _decisive(recipe: AnyRecipe) -> dict[str, object]:
    """The fields of a recipe that an id depends on, those of task and model each by itself."""
    if isinstance(recipe, ScriptRecipe):
        script = recipe.script
        own = {name: getattr(script, name) for name in ("command", "function", "cwd", "env", "inputs")}
        return {**own, **dict(recipe.settings), **{f"{name} as {word!r}": word for name, word in recipe.words}}
    values = {name: getattr(recipe, name) for name in Recipe.model_fields if name not in ("task", "model")}
    fields = {name: value.name if isinstance(value, Spec) else value for name, value in values.items()}
    told = (name for name in TaskSpec.model_fields if name not in ("files", "metric_file", "allow_unknown"))
    task = {f"task.{name}": getattr(recipe.task, name) for name in told}
    return {**task, "model.name": recipe.model.name, **fields}


def orphaning_change(old: Sweep, new: Sweep, trained: Sequence[Trial]) -> str | None:
    """Which axis of an edited sweep lost values that trained trials have; None when none would be orphaned."""
    kept = {trial.id for trial in expand(new)}
    lost = [trial for trial in trained if trial.id not in kept]
    if not lost:
        return None
    have, gone = ([_decisive(one.settings) for one in many] for many in (new.cells, lost))
    for name in gone[0]:
        values = [fields.get(name) for fields in have]
        removed = [
            fields.get(name) for fields in gone if not any(same_value(fields.get(name), value) for value in values)
        ]
        if removed:
            return f"{name.removesuffix('.name')} {show(removed[0])}"
    for name in SEED_FIELDS:
        seeds = {getattr(seeds, name) for seeds in new.seeds}
        missing = sorted({getattr(trial.seeds, name) for trial in lost} - seeds)
        if missing:
            return f"{name} {', '.join(map(str, missing[:5]))}{', …' if len(missing) > 5 else ''}"
    return f"cell '{old.cells[lost[0].cell].label}'"
