"""What is suggested: the sampler of each suggestion, the values that it chooses, and the recipe that they stand for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.config.recipe import Recipe
from harness.config.script import AnyRecipe, ScriptRecipe
from harness.config.search_space import Range, Search, round_to_range
from harness.config.trials import Cell

if TYPE_CHECKING:
    import optuna

# The NSGA-II default of 50 would make a search of 40 recipes random.
_GENERATIONS, _SMALLEST_POPULATION = 5, 4


def sampler(search: Search, number: int) -> optuna.samplers.BaseSampler:
    """The sampler of one suggestion, keyed by the search's seed and the suggestion's number.

    So a search that was killed and gone on with suggests what it would have suggested.
    """
    from optuna import samplers

    seed = _key(search.seed, number)
    if search.sampler == "random":
        return samplers.RandomSampler(seed=seed)
    if search.sampler == "grid":  # the seed numbers its points
        points = {dimension.field: list(dimension.values or ()) for dimension in search.space}
        return samplers.GridSampler(points, seed=_key(search.seed, 0))
    if search.sampler == "qmc":  # one sequence, whose place the journal keeps
        other = samplers.RandomSampler(seed=seed)
        return samplers.QMCSampler(
            scramble=True, seed=_key(search.seed, 0), independent_sampler=other,
            warn_asynchronous_seeding=False, warn_independent_sampling=False,
        )  # fmt: skip
    if search.sampler == "nsga2":
        population = max(_SMALLEST_POPULATION, search.recipes // _GENERATIONS)
        return samplers.NSGAIISampler(population_size=population, seed=seed)
    if search.sampler == "cmaes":
        return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
    return samplers.TPESampler(seed=seed, constant_liar=True)


def _key(seed: int, number: int) -> int:
    """A sampler's seed, 32 bits, for a suggestion of a search."""
    return int.from_bytes(hashlib.sha256(f"search:{seed}:{number}".encode()).digest()[:4], "big")


def suggest(trial: optuna.Trial, space: Sequence[Range]) -> None:
    """Let a trial's sampler choose every field of the space whose conditions the fields before it meet."""
    for dimension in space:
        if all(trial.params.get(field) in wanted for field, wanted in dimension.when):
            _suggest(trial, dimension)


def _suggest(trial: optuna.Trial, dimension: Range) -> None:
    if dimension.choices:
        trial.suggest_categorical(dimension.field, dimension.choices)
    elif isinstance(dimension.low, int) and isinstance(dimension.high, int):
        trial.suggest_int(
            dimension.field, dimension.low, dimension.high, step=int(dimension.step or 1), log=dimension.log
        )
    else:
        assert dimension.low is not None
        assert dimension.high is not None
        trial.suggest_float(dimension.field, dimension.low, dimension.high, step=dimension.step, log=dimension.log)


def cell_of(template: AnyRecipe, space: Sequence[Range], params: Mapping[str, Any]) -> Cell:
    """The recipe that a suggestion stands for; continuous numbers are rounded to what a person would write."""
    if isinstance(template, ScriptRecipe):
        return _cell_of_script(template, space, params)
    fixed = template.model_dump()
    for dimension in space:
        if dimension.field in params:
            fixed[dimension.field] = (
                params[dimension.field] if dimension.choices else round_to_range(params[dimension.field], dimension)
            )
        else:
            fixed[dimension.field] = dimension.otherwise
    recipe = Recipe.model_validate(fixed)
    return Cell(
        axes=tuple((dimension.field, getattr(recipe, dimension.field)) for dimension in space),
        recipe=recipe,
    )


def _cell_of_script(template: ScriptRecipe, space: Sequence[Range], params: Mapping[str, Any]) -> Cell:
    """The same for a script, whose settings are the values of the space and what stands beside it."""
    values = dict(template.settings)
    for dimension in space:
        value = params.get(dimension.field, dimension.otherwise)
        if dimension.field in params and not dimension.choices:
            value = round_to_range(value, dimension)
        values[dimension.field] = value
    axes = tuple((dimension.field, values[dimension.field]) for dimension in space)
    return Cell(axes=axes, recipe=template.model_copy(update={"settings": tuple(values.items())}))
