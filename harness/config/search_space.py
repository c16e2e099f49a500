"""What a search looks through: ranges, the sampler's and the pruner's settings."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from harness.common.text import Scalar
from harness.config.recipe import MAX_SEED, MOST, Frozen, Seeds
from harness.config.seed_rule import SeedRule


class Range(Frozen):
    """What a search may set one field of a recipe to: a number from `low` to `high`, or one of `choices`.

    `log`: evenly in the logarithm; `step`: only low, low + step, …. With `when` the field is searched only where the
    fields named there, which stand before it in the space, have one of the values; elsewhere it stays as it is.
    """

    field: str = Field(description="The recipe's field that is searched.")
    low: int | float | None = Field(default=None, description="Smallest value.")
    high: int | float | None = Field(default=None, description="Largest value.")
    log: bool = Field(default=False, description="Sample evenly in the logarithm.")
    step: int | float | None = Field(
        default=None, description="Only low, low + step, low + 2 step, …; null: any value."
    )
    choices: tuple[Scalar, ...] = Field(default=(), description="The values to choose from, instead of low and high.")
    when: tuple[tuple[str, tuple[Scalar, ...]], ...] = Field(
        default=(),
        description="Search it only where earlier fields have these values: {field: value or list}.",
    )
    otherwise: Scalar = Field(default=None, description="Its value where `when` does not hold.")

    @property
    def values(self) -> tuple[Scalar, ...] | None:
        """All values there are, in their order; None where they are continuous."""
        if self.choices or self.low is None or self.high is None:
            return self.choices
        step = self.step or (1 if isinstance(self.low, int) else None)
        if step is None or self.log:
            return None if isinstance(self.low, float) else tuple(range(int(self.low), int(self.high) + 1))
        count = int((self.high - self.low) / step + 1e-9)  # 0.3 / 0.1 lies below 3
        return tuple(round_to_range(self.low + number * step, self) for number in range(count + 1))


class Pruner(Frozen):
    """Which recipes a search stops in mid-training, by Optuna's pruner of that name; a step is 1 % of the training.

    Nothing is stopped before `n_warmup_steps` and before the warm-up of the learning rate is over, nor before
    `n_majority_steps` while a run has not yet risen above the majority classifier: a late riser is no failed run. Of
    the runs of `rte_lr`, embedded, that learned, 7 % rose after half of their training and 1 % after three quarters.
    """

    name: Literal["median", "percentile", "successive_halving", "hyperband", "patient"] = Field(
        description="Optuna's pruner of that name."
    )
    n_startup_trials: int = Field(default=5, ge=0, description="Recipes that must have finished before one is stopped.")
    n_warmup_steps: int = Field(
        default=50, ge=1, le=100, description="Nothing is stopped before this percentage of the training."
    )
    n_majority_steps: int = Field(
        default=75,
        ge=1,
        le=100,
        description="A run still at the majority classifier is not stopped before this percentage of the training.",
    )
    interval_steps: int = Field(default=5, ge=1, le=50, description="Percentage of the training between two checks.")
    percentile: float = Field(
        default=25.0, gt=0, lt=100, description="`percentile`: the best this many per cent continue."
    )
    reduction_factor: int = Field(
        default=3, ge=2, description="`successive_halving`, `hyperband`: one in this many continues."
    )
    patience: int = Field(
        default=20,
        ge=1,
        le=100,
        description="`patient`: percentage of the training without improvement before a recipe may be stopped.",
    )


OF_PRUNERS = {
    "percentile": ("percentile",),
    "reduction_factor": ("successive_halving", "hyperband"),
    "patience": ("patient",),
}


class Search(Frozen):
    """How recipes are looked for in a space instead of listed; the sweep's seeds train every one of them."""

    space: tuple[Range, ...] = Field(
        description="The fields to search: {lr: {low: …, high: …, log: on}, batch_size: [16, 32], …}."
    )
    recipes: int = Field(default=40, ge=1, le=MOST, description="How many recipes to try.")
    sampler: Literal["tpe", "random", "grid", "qmc", "nsga2", "cmaes"] = Field(
        default="tpe", description="How recipes are chosen: Optuna's sampler of that name."
    )
    seed: int = Field(default=0, ge=0, le=MAX_SEED, description="Seed of the sampler.")
    objective: Literal["mean", "iqm", "lower_quantile", "mean_minus_sd"] = Field(
        default="mean",
        description="What to maximise: the mean over seeds, interquartile mean, lower quartile, or mean minus sd.",
    )
    lower_is_better: bool = Field(
        default=False,
        description="Of a loss, or `better: lower` of a script: the objective is minimised, its bad side the high one.",
    )
    failing: Literal["constraint", "objective", "ignore"] = Field(
        default="constraint",
        description="How failed runs count: as a constraint, as a second objective, or not at all.",
    )
    pruner: Pruner | None = Field(
        default=None, description="Stops unpromising recipes in mid-training: a name, or {name: …, …}; null: none."
    )
    best: int = Field(
        default=3, ge=0, description="`confirm.best`: how many of the best recipes are trained again on fresh seeds."
    )
    confirm: tuple[Seeds, ...] = Field(default=(), description="`confirm.seeds`: the fresh seeds.")
    confirm_rule: SeedRule | None = Field(
        default=None, description="`confirm.seeds` as a rule that adds seeds; null: all of them."
    )


def round_to_range(value: int | float, of: Range) -> int | float:
    """A number within a range as a person would write it: of a continuous one three digits."""
    if isinstance(of.low, int) or of.low is None or of.high is None:
        return int(value)
    digits = 12 if of.step is not None else 3
    return min(max(float(f"{value:.{digits}g}"), float(of.low)), float(of.high))
