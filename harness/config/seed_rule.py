"""The rule by which a sweep adds seeds: `seeds: {first: 5, at_most: 50, step: 5, until: …}`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from harness.common.errors import HarnessError, describe_value
from harness.common.text import show
from harness.config.field_types import missing_key, unknown_key
from harness.config.recipe import MAX_SEED, MOST, Frozen

_WITHIN = r"within\s+(?:±|\+/?-)?\s*(\d+(?:\.\d+)?)\s*(?:percentage )?(?:points?|pp)"
_RATES = re.compile(rf"failure rates? of (?:every|each) (?:cell|recipe) {_WITHIN}", re.IGNORECASE)
_SETTLED = re.compile(rf"(.+?) settled(?: {_WITHIN})?", re.IGNORECASE)
_BUDGET = re.compile(r"(\d+(?:\.\d+)?)\s*(?:[GC]PU[ -])?(hours?|h|minutes?|min)", re.IGNORECASE)
_GOALS = '"failure rate of every cell within ±10 points", "AXIS settled", "AXIS settled within ±5 points"'


class Goal(Frozen):
    """What a sweep must know before it stops adding seeds."""

    axis: str | None = Field(default=None, description="The axis whose effect is to be settled; null: every cell.")
    within: float | None = Field(
        default=None,
        description="Half the width of an interval that is narrow enough, or the largest effect that is none.",
    )

    @property
    def words(self) -> str:
        """As in a sweep file."""
        if self.axis is None:
            return f"failure rate of every cell within ±{_points(self.within)} points"
        return f"{self.axis} settled" + ("" if self.within is None else f" within ±{_points(self.within)} points")


class SeedRule(Frozen):
    """How many seeds every cell begins with, and when it gets more."""

    start: int = Field(default=1, description="The first seed.")
    first: int = Field(description="Seeds that every cell begins with.")
    at_most: int = Field(description="The most seeds that a cell may get.")
    step: int = Field(description="Seeds that are added to a cell at a time.")
    until: tuple[Goal, ...] = Field(
        default=(),
        description='When to stop: "failure rate of every cell within ±10 points", "AXIS settled" or "AXIS settled '
        'within ±5 points"; of a list, when all hold.',
    )
    budget_hours: float | None = Field(
        default=None, description="Training time, of all workers together, that no further seeds may exceed."
    )

    @property
    def words(self) -> str:
        """The rule in words: what is waited for, and how seeds are added."""
        goals = " and ".join(goal.words for goal in self.until) or "until the budget is spent"
        budget = "" if self.budget_hours is None else f", within {hours_in_words(self.budget_hours)} of training"
        return f"{goals}; {self.first} seeds at first, {self.step} more at a time, at most {self.at_most}{budget}"


def hours_in_words(hours: float) -> str:
    """`3.9 hours`, or `12 minutes` below an hour."""
    amount, unit = (hours, "hour") if hours >= 1 else (60 * hours, "minute")
    return f"{amount:.3g} {unit}{'' if f'{amount:.3g}' == '1' else 's'}"


class Growth(Frozen):
    """How far the plan of such a sweep has grown.

    Attributes:
        horizon: the most seeds of a cell as first planned, which shapes the intervals.
        looks: of each look at the results the seeds of every cell that it was over; the last is the plan now.
    """

    horizon: int = Field(ge=1)
    looks: tuple[tuple[int, ...], ...] = Field(min_length=1)


def _points(fraction: float | None) -> str:
    return show(float(f"{100 * (fraction or 0.0):.6g}")).removesuffix(".0")


def read_rule(given: Mapping[str, Any], key: str, axes: Mapping[str, int]) -> SeedRule:
    """The rule of a mapping.

    Args:
        given: the mapping of the sweep file.
        key: what the file calls it, for messages: `seeds`.
        axes: the axes that a goal may name, with how many values each has.

    Raises:
        HarnessError: it is no such rule.
    """
    allowed = ("from", "first", "at_most", "step", "until", "budget")
    for name in given:
        if name not in allowed:
            raise unknown_key(name, allowed, key)
    for name, example in (("first", "5"), ("at_most", "50")):
        if name not in given:
            raise missing_key(f"{key}.{name}", f"{name}: {example}")
    if "until" not in given and "budget" not in given:
        raise missing_key(f"{key}.until", 'until: "failure rate of every cell within ±10 points"')
    first = _whole(f"{key}.first", given["first"], 1)
    at_most = _whole(f"{key}.at_most", given["at_most"], 1)
    if at_most <= first:
        raise HarnessError(
            f"{key}.at_most must be more than first, or no seed could be added",
            got=f"first: {first}, at_most: {at_most}",
            fix=f"Raise at_most, or write {key}: 1..{first}",
        )
    return SeedRule(
        start=_whole(f"{key}.from", given.get("from", 1), 0, MAX_SEED - at_most),
        first=first,
        at_most=at_most,
        step=_whole(f"{key}.step", given.get("step", first), 1),
        until=_goals(given["until"], f"{key}.until", axes) if "until" in given else (),
        budget_hours=_budget(given["budget"], f"{key}.budget") if "budget" in given else None,
    )


def _whole(name: str, value: object, least: int, most: int = MOST) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise HarnessError(f"{name} must be a whole number between {least} and {most}", got=describe_value(value))
    return value


def _goals(value: object, name: str, axes: Mapping[str, int]) -> tuple[Goal, ...]:
    texts = value if isinstance(value, list) else [value]
    if not texts:
        raise HarnessError(f"{name} is an empty list", allowed=_GOALS)
    goals = [_goal(text, name, axes) for text in texts]
    for index, goal in enumerate(goals):
        if any(goal.axis == other.axis for other in goals[:index]):
            raise HarnessError(f"{name} has two goals for {goal.axis or 'the failure rates'}", fix="Remove one")
    return tuple(goals)


def _goal(text: object, name: str, axes: Mapping[str, int]) -> Goal:
    plain = " ".join(text.split()) if isinstance(text, str) else ""
    if rates := _RATES.fullmatch(plain):
        return Goal(within=_fraction(rates[1], name))
    settled = _SETTLED.fullmatch(plain)
    if settled is None:
        raise HarnessError(f"{name} is not a goal", got=describe_value(text), allowed=_GOALS)
    axis = settled[1] if settled[1] in axes else settled[1].replace(" ", "_")
    _check_axis(axis, name, axes)
    return Goal(axis=axis, within=None if settled[2] is None else _fraction(settled[2], name))


def _check_axis(axis: str, name: str, axes: Mapping[str, int]) -> None:
    several = [other for other, values in axes.items() if values > 1]
    if axis in several:
        return
    raise HarnessError(
        f"{name} names '{axis}', which is not an axis with several values",
        allowed=", ".join(several) if several else '"failure rate of every cell within ±10 points"',
    )


def _fraction(points: str, name: str) -> float:
    if not 0 < float(points) < 50:
        raise HarnessError(f"{name} must be within more than 0 and less than 50 points", got=f"{points} points")
    return float(points) / 100


def _budget(value: object, name: str) -> float:
    budget = _BUDGET.fullmatch(value.strip()) if isinstance(value, str) else None
    if budget is None or float(budget[1]) <= 0:
        raise HarnessError(f"{name} must be a time such as 3 GPU hours or 90 minutes", got=describe_value(value))
    return float(budget[1]) / (60 if budget[2].lower().startswith("m") else 1)


def axis_sizes(places: Sequence[Sequence[tuple[str, object]]]) -> dict[str, int]:
    """How many values each axis has, of cells by their places on them."""
    return {name: len({repr(dict(place)[name]) for place in places}) for name, _ in places[0]}
