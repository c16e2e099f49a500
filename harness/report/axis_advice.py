"""Where to go next along an axis of numbers: what all its values show, in words, and the values to try."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.analysis.analyze import Analysis
from harness.common.text import Scalar, show
from harness.config.recipe import Recipe
from harness.report.wording import p_clause
from harness.stats import along_axis

_MOST_VALUES = 8  # that a sentence lists

Beyond = Callable[[float], float | None]  # the value to try beyond an end; None where there is none worth trying


@dataclass(frozen=True)
class Direction:
    """How a setting is changed: the values beyond an axis's ends, and which end the usual remedy lies at."""

    field: Literal["lr", "warmup_ratio", "epochs"]
    below: Beyond
    above: Beyond
    usual: Literal["below", "above"]


@dataclass(frozen=True)
class AxisProfile:
    """Failures along a setting, all else equal, by ascending value; every value has a finished run."""

    field: str
    values: tuple[float, ...]
    failed: tuple[int, ...]
    judged: tuple[int, ...]
    cells: tuple[int, ...] = ()  # of each value

    @property
    def shape(self) -> along_axis.Shape:
        """The shape of the failure rates."""
        return along_axis.shape(self.failed, self.judged)

    @property
    def rates(self) -> tuple[float, ...]:
        """The failure rates."""
        return tuple(k / n for k, n in zip(self.failed, self.judged, strict=True))


@dataclass(frozen=True)
class Advice:
    """Values to try next, and the sentence that says why, empty where one value alone was tried."""

    values: tuple[float, ...]
    reason: str


def profile(analysis: Analysis, recipe: Recipe, field: str) -> AxisProfile:
    """The failures of the study's cells that differ from a recipe in this field at most."""
    counts = analysis.cells.set_index("cell")
    rows: dict[float, tuple[int, int, int]] = {}
    for index, cell in enumerate(analysis.study.sweeps[0].cells):
        value = getattr(cell.recipe, field)
        judged = int(counts.loc[index, "judged"])
        if judged and cell.recipe.model_copy(update={field: getattr(recipe, field)}) == recipe:
            rows[float(value)] = int(counts.loc[index, "failed"]), judged, index
    values = sorted(rows)
    return AxisProfile(field, tuple(values), *zip(*(rows[value] for value in values), strict=True))


def advise(axis: AxisProfile, direction: Direction) -> Advice:
    """What to try along an axis, by the failures at all its values."""
    values = _next_values(axis, direction)
    if len(axis.values) == 1:
        return Advice(values, "")
    return Advice(values, f"{_evidence(axis)} {_conclusion(axis, values)}")


def named(axis: AxisProfile) -> list[int]:
    """The positions of the values whose failures a sentence tells: all, or the first and last with some between."""
    count = len(axis.values)
    if count <= _MOST_VALUES:
        return list(range(count))
    return sorted({round(step * (count - 1) / (_MOST_VALUES - 1)) for step in range(_MOST_VALUES)})


def _next_values(axis: AxisProfile, direction: Direction) -> tuple[float, ...]:
    """Beyond the ends that the shape leads to and that still fail; in a valley beside its bottom."""
    below = direction.below(axis.values[0]) if axis.failed[0] else None
    above = direction.above(axis.values[-1]) if axis.failed[-1] else None
    shape = axis.shape
    if shape == "valley":
        return _beside_lowest(axis)
    if shape == "flat":
        usual, other = (below, above) if direction.usual == "below" else (above, below)
        ends = (axis.rates[0], axis.rates[-1])
        at_usual, at_other = ends if direction.usual == "below" else ends[::-1]
        chosen = [usual, other if len(axis.values) > 1 and at_other <= at_usual else None]
    else:
        chosen = [None if shape == "falling" else below, None if shape == "rising" else above]
    return tuple(value for value in chosen if value is not None)


def _beside_lowest(axis: AxisProfile) -> tuple[float, ...]:
    """Halfway, in the logarithm, between the value that fails least and its neighbours; none where it never failed."""
    lowest = min(range(len(axis.values)), key=lambda index: axis.rates[index])
    if not axis.failed[lowest]:
        return ()
    neighbours = [axis.values[index] for index in (lowest - 1, lowest + 1) if 0 <= index < len(axis.values)]
    between = [_rounded(math.sqrt(value * axis.values[lowest]), axis.field) for value in neighbours]
    return tuple(dict.fromkeys(value for value in between if value not in axis.values))


def _rounded(value: float, field: str) -> float:
    return float(round(value)) if field == "epochs" else float(f"{value:.2g}")


# ------------------------------------------------------------------------------------------------------------- in words


def as_setting(field: str, value: float) -> Scalar:
    """A value as the recipe takes it: epochs are whole."""
    return int(value) if field == "epochs" else value


def _evidence(axis: AxisProfile) -> str:
    """`All else equal, 5 of 5, 5 of 5 and 1 of 5 runs fail at lr 5e-4, 1e-3 and 0.01`, and what follows."""
    picked = named(axis)
    counts = [f"{axis.failed[index]} of {axis.judged[index]}" for index in picked]
    values = [show(as_setting(axis.field, axis.values[index])) for index in picked]
    test = along_axis.same_rate(axis.failed, axis.judged)
    kind = "score" if len(axis.values) == 2 else "exact" if test.exact else "χ²"
    told = f"{kind} test of no difference, {p_clause(test.p)}"
    return f"All else equal, {_listed(counts)} runs fail at {_name(axis.field)} {_listed(values)} ({told}):"


def _conclusion(axis: AxisProfile, values: Sequence[float]) -> str:
    """The shape in words, and what is tried because of it."""
    name = _name(axis.field)
    words = {
        "falling": f"fewer at larger {name}",
        "rising": f"fewer at smaller {name}",
        "peak": "most in the middle",
        "valley": f"fewest at {name} {show(as_setting(axis.field, _lowest(axis)))}, between values that fail more",
        "flat": f"no effect of {name} is shown",
    }[axis.shape]
    if values:
        return f"{words}, so {_listed([show(as_setting(axis.field, value)) for value in values])} would come next."
    if axis.shape != "flat" and min(axis.rates) == 0:
        return f"{words}, where none failed; no other {name} is proposed."
    return f"{words}, and no other {name} is proposed."


def _lowest(axis: AxisProfile) -> float:
    return axis.values[min(range(len(axis.values)), key=lambda index: axis.rates[index])]


def _name(field: str) -> str:
    return field.replace("_", " ")


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
