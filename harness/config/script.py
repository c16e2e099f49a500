"""A recipe of somebody else's training code: a command or function, what it varies, and where its score is."""

from __future__ import annotations

import re
import string
import sys
from collections.abc import Mapping, Sequence

from pydantic import Field

from harness.common.errors import HarnessError, did_you_mean
from harness.common.text import Scalar, show
from harness.config.recipe import Frozen, Recipe
from harness.config.score_sources import Predictions, ScoreSource

GIVEN = ("seed", "out", "here", "python")  # what the harness puts into a command beside the axes


class Resources(Frozen):
    """What one run takes of a machine."""

    gpus: float = Field(default=0.0, ge=0, allow_inf_nan=False, description="GPUs; a fraction shares one.")
    cpus: int = Field(default=1, ge=1, description="Cores.")
    memory_gib: float = Field(default=0.0, ge=0, allow_inf_nan=False, description="Memory, GiB; 0: not reserved.")


class Script(Frozen):
    """What is run, and what is read of it."""

    command: str | None = Field(
        default=None, description="The command, with {placeholders} for axes, {seed}, {out}, {here}, {python}."
    )
    function: str | None = Field(default=None, description="module:function, called with axes, seed and out.")
    shell: bool = Field(default=False, description="Run the command by sh -c.")
    here: str = Field(default=".", description="The folder of the sweep file, for {here}; not part of a trial's id.")
    cwd: str | None = Field(default=None, description="The folder that it runs in; null: where the harness is called.")
    env: tuple[tuple[str, str], ...] = Field(default=(), description="Environment variables, beside the present ones.")
    inputs: tuple[tuple[str, str], ...] = Field(
        default=(), description="Files that decide the result, each with its SHA-256."
    )
    timeout: float | None = Field(default=None, gt=0, description="Seconds after which a run is ended; null: none.")
    retries: int = Field(default=1, ge=0, description="How often a crashed run is tried again.")
    repeats: int = Field(default=1, ge=1, description="How often the first seed of each cell is run.")
    resources: Resources = Field(default=Resources(), description="What one run takes.")
    score: ScoreSource = Field(description="Where its score is.")
    higher_is_better: bool = Field(default=True, description="Whether a higher score is better.")
    also: tuple[tuple[str, ScoreSource], ...] = Field(default=(), description="Further metrics by their names.")
    curves: tuple[tuple[str, ScoreSource], ...] = Field(
        default=(), description="`loss` and `score` over the steps, from a file with a row a step."
    )
    predictions: Predictions | None = Field(default=None, description="The answers on the dev set.")
    majority: float | None = Field(
        default=None, allow_inf_nan=False, description="A run that is not better than this has failed."
    )
    failed_below: float | None = Field(
        default=None, allow_inf_nan=False, description="A run that is worse than this has failed."
    )
    model_out: str | None = Field(
        default=None, description="The file or folder in {out} that `--keep` saves; not part of a trial's id."
    )
    keep_out: bool = Field(
        default=True, description="Whether {out} stays after a finished run; not part of a trial's id."
    )
    metric: str = Field(default="score", min_length=1, description="What the score is called.")

    def failed(self, score: float | None) -> bool | None:
        """Whether a run with that score failed (None: it diverged); None where that can't be told."""
        if score is None:
            return True
        sign = 1 if self.higher_is_better else -1
        if self.majority is not None:
            return sign * score <= sign * self.majority
        if self.failed_below is not None:
            return sign * score < sign * self.failed_below
        return None

    @property
    def threshold(self) -> float | None:
        """The score that a run must beat (or reach), where there is one."""
        return self.majority if self.majority is not None else self.failed_below


class ScriptRecipe(Frozen):
    """One cell of a script sweep: the script and the values of its axes."""

    script: Script = Field(description="What is run.")
    settings: tuple[tuple[str, Scalar], ...] = Field(description="(axis, value) pairs.")
    words: tuple[tuple[str, str], ...] = Field(
        default=(), description="What a value becomes on the command line, where it is not the value itself."
    )

    @property
    def shape(self) -> object:
        """What trials have in common that take alike long: scripts are run one by one."""
        return self.settings

    @property
    def passes(self) -> float:
        """What its time is in proportion to, as far as is known."""
        return 1.0

    def filled(self, seed: int, out: str) -> dict[str, str]:
        """The text of each placeholder."""
        texts = {name: text_of(value) for name, value in self.settings} | dict(self.words)
        return texts | {"seed": str(seed), "out": out, "here": self.script.here, "python": sys.executable}


AnyRecipe = Recipe | ScriptRecipe


def text_of(value: Scalar) -> str:
    """A value as a command takes it: on and off are True and False, as Python's parsers read them."""
    if value is None:
        return "none"
    return str(value) if isinstance(value, bool) else show(value)


def placeholders(command: str) -> list[str]:
    """The names in braces of a command, in their order; raises HarnessError for what is no such name."""
    names = []
    try:
        for _, name, form, conversion in string.Formatter().parse(command):
            if name is None:
                continue
            if not re.fullmatch(r"[^\W\d]\w*", name) or form or conversion:
                raise ValueError(name)
            names.append(name)
    except ValueError:
        raise HarnessError(
            "the command has braces that are no placeholder",
            got=f"'{command}'",
            fix="Write {{ and }} for braces that the script is to see",
        ) from None
    return list(dict.fromkeys(names))


def check_placeholders(
    command: str, axes: Sequence[str], fixed: Mapping[str, object], keys: Sequence[str] = ()
) -> None:
    """Raise HarnessError for a placeholder that nothing fills, and for an axis or the seed that none uses.

    `keys` are those of a sweep file, one of which may be meant.
    """
    names = placeholders(command)
    known = (*axes, *fixed, *GIVEN)
    for name in names:
        if name not in known:
            raise HarnessError(
                f"the command's {{{name}}} is filled by nothing",
                allowed=", ".join(f"{{{key}}}" for key in known),
                fix=f"Add {name}: [values], or write {{{{{name}}}}} for braces that the script is to see",
            )
    for name in fixed:
        if name not in names:
            meant = did_you_mean(name, keys)
            if name in Resources.model_fields:
                meant = f" (did you mean 'resources: {{{name}: …}}'?)"
            raise HarnessError(
                f"{name} is neither a key of a sweep nor used by the command{meant}",
                fix=f"Put {{{name}}} into the command, or remove it",
            )
    for axis in axes:
        if axis not in names:
            raise HarnessError(
                f"the axis {axis} is not used by the command, so all its values would train the same",
                fix=f"Put {{{axis}}} into the command, or remove the axis",
            )
    if "seed" not in names:
        raise HarnessError(
            "the command has no {seed}, so all seeds would train the same", fix="Add it, as --seed {seed}"
        )
