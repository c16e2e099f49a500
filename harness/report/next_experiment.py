"""The next experiment: a sweep, to be copied, that tries on the cell that fails most what has not been tried there.

Where a number is to change (learning rate, warm-up, epochs) all values that were tried decide in which direction.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from harness.analysis import looks, stopping
from harness.analysis.analyze import Analysis
from harness.common.errors import HarnessError
from harness.common.memo import once_per_object
from harness.common.text import Scalar, count_noun, show
from harness.config.recipe import Recipe
from harness.config.recipe_rules import build_recipe
from harness.config.seed_rule import Goal, SeedRule
from harness.config.trials import Sweep
from harness.report.axis_advice import Advice, AxisProfile, Direction, advise, as_setting, named, profile
from harness.report.claims import LEVEL, Sentence, Words, row_at
from harness.report.formatting import percent
from harness.report.wording import p_clause, rate_claim, rate_words
from harness.stats import along_axis, proportions
from harness.stats.seed_budget import LIMIT, seeds_for_failure, seeds_to_halve

_LONGEST_WARMUP = 0.3
_ENOUGH_TO_BEGIN = 50  # seeds, where no reasonable number would tell its rate from half of it
_ENOUGH_KNOWN = SeedRule(first=5, at_most=50, step=5, until=(Goal(within=0.15),))
_MOST_NAMED = 5  # cells, in a sentence
_PLAIN = re.compile(r"(?!(?:on|off|yes|no|true|false|null|y|n)$)[a-z][a-z0-9-]*", re.IGNORECASE)  # needs no quotes

# Beyond the ends of an axis: half and twice, but no warm-up over most of the training.
WARMUP = Direction(
    "warmup_ratio",
    below=lambda value: value / 2 or None,
    above=lambda value: _LONGEST_WARMUP if value < _LONGEST_WARMUP else None,
    usual="above",
)
RATE = Direction(
    "lr", below=lambda value: float(f"{value / 2:.6g}"), above=lambda value: float(f"{value * 2:.6g}"), usual="below"
)
EPOCHS = Direction("epochs", below=lambda value: value // 2 or None, above=lambda value: value * 2, usual="above")
_NUMBERS = tuple(direction.field for direction in (WARMUP, RATE, EPOCHS))

Changes = Mapping[str, Mapping[str, Scalar]]  # settings that differ from the recipe, by the name of the variant


def next_sweep(analysis: Analysis) -> tuple[Sentence, str] | None:
    """A sentence and a sweep file that tries remedies on the worst cell, those that the sweep has not tried itself.

    The seeds are as many as tell its rate of failing from half of it (Fisher's exact test, power 80 %). None where no
    run failed, or the study is not one sweep.
    """
    proposal = _proposal(analysis)
    if proposal is None:
        return None
    sweep, recipe = proposal.sweep, proposal.sweep.cells[proposal.worst].recipe
    words, row = Words("cells"), row_at(analysis.cells, proposal.worst)
    label = analysis.study.cells[proposal.worst].label
    words.claims.append(rate_claim(row, label, "cells", "cell"))
    rate = rate_words(words.claims[-1])
    counted = row_at(proposal_table(analysis), 0)
    half = words.value(counted, [], "rate", percent, "next_sweep")
    enough = (
        f"{words.value(counted, [], 'seeds', lambda n: count_noun(int(n), 'seed'), 'next_sweep')} per cell distinguish "
        f"a failure rate of {half} from half of that"
        if proposal.seeds
        else f"More than 1,000 seeds would distinguish its rate from half of it; {_ENOUGH_TO_BEGIN} are a start"
    )
    possible = _seed_range(words, counted) if proposal.seeds else ""
    untried = (
        f"Not tried there yet: {', '.join(proposal.variants)}."
        if proposal.variants
        else "This sweep already tries all the usual remedies."
    )
    helped, reasons = _helped(analysis, proposal, words), _reasons(analysis, proposal, words)
    alone = len(analysis.study.cells) == 1
    first = (
        f"the only recipe failed in {rate} runs" if alone else f"the cell that fails most often is “{label}”: {rate}"
    )
    if len(worst := _worst(analysis)) > 1:
        alike = words.count(len(worst), f"cell in {(*worst, -1)}", lambda n: f"{n} cells")
        first = f"{alike} fail as often as any, of which “{label}” is taken: {rate}"
    sentence = words.sentence(
        f"{first}. {helped}{reasons}{untried} {enough} (Fisher's exact test, power 80 %).{possible}"
    )
    return sentence, _sweep_file(sweep, recipe, proposal.variants, proposal.seeds or _ENOUGH_TO_BEGIN)


def _seed_range(words: Words, row: Mapping[str, Any]) -> str:
    """How many seeds it takes at other rates that the runs leave possible, for the rate is not known."""
    fewest, most = (
        f"more than {LIMIT:,}"
        if math.isinf(row[name])
        else words.value(row, [], name, lambda n: f"{int(n)}", "next_sweep")
        for name in ("seeds_low", "seeds_high")
    )
    return f" At other rates that these runs leave possible it takes {fewest} to {most} (10th to 90th percentile)."


@dataclass(frozen=True)
class _Proposal:
    """What is tried next on the cell that fails most, with how many seeds; None: more than a thousand."""

    sweep: Sweep
    worst: int
    seeds: int | None
    variants: Changes
    along: tuple[tuple[AxisProfile, Advice], ...]  # of each number that is to change, what all its values say


@once_per_object
def _proposal(analysis: Analysis) -> _Proposal | None:
    study = analysis.study
    if len(study.sweeps) != 1 or study.sweeps[0].is_script or study.imports or not (alike := _worst(analysis)):
        return None
    worst = alike[0]
    sweep = study.sweeps[0]
    recipe, tried = sweep.cells[worst].recipe, {cell.recipe for cell in sweep.cells}
    k, n = (int(analysis.cells.loc[worst, name]) for name in ("failed", "judged"))
    directions = (WARMUP, RATE, EPOCHS) if recipe.max_steps is None else (WARMUP, RATE)
    profiles = [profile(analysis, recipe, direction.field) for direction in directions]
    along = [(axis, advise(axis, direction)) for axis, direction in zip(profiles, directions, strict=True)]
    variants = {
        name: change
        for name, change in _remedies(recipe, along).items()
        if recipe.model_copy(update=dict(change)) not in tried and _is_allowed(recipe, change)
    }
    return _Proposal(sweep, worst, seeds_for_failure(k, n, k, 2 * n), variants, tuple(along))


def proposal_table(analysis: Analysis) -> pd.DataFrame:
    """What the proposal goes by, in one row: the worst `cell`, its `rate` of failing, `seeds`; none without one.

    `seeds_low` and `seeds_high` are those at the rates between which 80 % of Jeffreys' posterior lie, infinite beyond
    1,000.
    """
    proposal = _proposal(analysis)
    if proposal is None:
        return pd.DataFrame()
    row = row_at(analysis.cells, proposal.worst)
    ends = seeds_to_halve(int(row["failed"]), int(row["judged"]))
    low, high = (math.inf if end is None else float(end) for end in ends)
    low = min(low, proposal.seeds or math.inf)
    columns = {"cell": proposal.worst, "rate": row["failed"] / row["judged"], "seeds": proposal.seeds}
    return pd.DataFrame([columns | {"seeds_low": low, "seeds_high": high}])


def along_axes(analysis: Analysis) -> pd.DataFrame:
    """The tests along the axes of numbers that the proposal goes by: `field`, `p` of no difference."""
    proposal = _proposal(analysis)
    along = () if proposal is None else proposal.along
    rows = [(axis.field, along_axis.same_rate(axis.failed, axis.judged).p) for axis, _ in along]
    return pd.DataFrame(rows, columns=["field", "p"])


def next_values(analysis: Analysis) -> pd.DataFrame:
    """The values of numbers that are proposed: `field`, `value`."""
    proposal = _proposal(analysis)
    along = () if proposal is None else proposal.along
    return pd.DataFrame(
        [(axis.field, value) for axis, advice in along for value in advice.values], columns=["field", "value"]
    )


def _reasons(analysis: Analysis, proposal: _Proposal, words: Words) -> str:
    """Why the numbers that are tried next are what they are; its claims go to `words`."""
    tests, values = along_axes(analysis).set_index("field", drop=False), next_values(analysis).to_dict("records")
    text = ""
    for axis, advice in proposal.along:
        own = [row for row in values if row["field"] == axis.field]
        if advice.reason:
            text += f"{advice.reason} "
            for position in named(axis):
                row = row_at(analysis.cells, axis.cells[position])
                words.claims.append(rate_claim(row, "a value", "cells", "cell"))
            words.value(row_at(tests, axis.field), ["field"], "p", p_clause, "along_axes")
            told = own
        else:
            told = [row for row in own if _variant_of(proposal, row).startswith(axis.field.replace("_", " "))]
        for row in told:
            words.value(row, ["field", "value"], "value", _as_shown(axis.field), "next_values")
    return text


def _as_shown(field: str) -> Callable[[float], str]:
    return lambda value: show(as_setting(field, value))


def more_seeds(analysis: Analysis) -> str:
    """Of runs that were imported, which cells need more seeds before their failure rates are known; empty for none.

    It goes by intervals that hold at every look, so that the advice may be followed again and again.
    """
    table, words = rates_at_every_look(analysis), Words("rates_at_every_look")
    growing = [int(cell) for cell in table.loc[table["grows"], "cell"]]
    if not growing:
        return ""
    points = f"within ±{100 * (_ENOUGH_KNOWN.until[0].within or 0):.0f} points"
    every = words.count(len(table), "")
    which = "the only cell" if len(table) == 1 else f"each of the {every} cells"
    if len(growing) < len(table):
        names = "; ".join(analysis.study.cells[index].label for index in growing[:_MOST_NAMED])
        more = f"; and {len(growing) - _MOST_NAMED} more" if len(growing) > _MOST_NAMED else ""
        cells = words.count(len(growing), "grows", lambda n: count_noun(n, "cell"))
        which = f"{cells} of {every} ({names}{more})"
    elif len(table) == 1:
        words.claims.clear()
    known = "No failure rate" if len(growing) == len(table) else "Not every failure rate"
    return words.sentence(
        f"{known} is known {points} by an interval that holds however often one looks. Add "
        f"{count_noun(_ENOUGH_KNOWN.step, 'seed')} to {which}, import the runs again and look again."
    )


@once_per_object
def rates_at_every_look(analysis: Analysis) -> pd.DataFrame:
    """Of runs that were imported, the cells and whether each `grows`: needs more seeds before its rate is known."""
    cells = looks.cells_of(analysis.study) if analysis.study.imports else []
    if not any(cell.judged for cell in cells):
        return pd.DataFrame({"cell": [], "grows": np.zeros(0, dtype=bool)})
    decision = stopping.decide(_ENOUGH_KNOWN, _ENOUGH_KNOWN.at_most, cells)
    grows = [decision.due is not None and decision.due[i] > len(cell.results) for i, cell in enumerate(cells)]
    return pd.DataFrame({"cell": range(len(cells)), "grows": grows})


def _worst(analysis: Analysis) -> list[int]:
    """The cells with the largest share of failed runs, among equals those of most runs; empty where none failed."""
    table = analysis.cells[analysis.cells["failed"] > 0]
    share = table["failed"].astype(float) / table["judged"]
    highest = table[share == share.max()]
    return [int(cell) for cell in highest.loc[highest["judged"] == highest["judged"].max(), "cell"]]


def _remedies(recipe: Recipe, along: Sequence[tuple[AxisProfile, Advice]]) -> Changes:
    """What could help, the likeliest first, as the settings that differ, by name."""
    changes: dict[str, dict[str, Scalar]] = {}
    if not recipe.bias_correction and recipe.optimizer == "adamw":
        changes["bias correction"] = {"bias_correction": True}
    for axis, advice in along:
        for value in advice.values:
            changes[_variant(recipe, axis.field, value)] = {axis.field: as_setting(axis.field, value)}
    return changes


def _variant_of(proposal: _Proposal, row: Mapping[str, Any]) -> str:
    """What a proposed value is called, where it is proposed; empty where it was tried or isn't allowed."""
    name = _variant(proposal.sweep.cells[proposal.worst].recipe, row["field"], row["value"])
    return name if name in proposal.variants else ""


def _is_allowed(recipe: Recipe, change: Mapping[str, Scalar]) -> bool:
    """Whether a sweep file may say so: half a rate can lie below the schedule's end, say."""
    try:
        build_recipe(recipe.model_dump() | dict(change), "the next sweep")
    except HarnessError:
        return False
    return True


def _variant(recipe: Recipe, field: str, value: float) -> str:
    """What a changed number is called: `longer warm-up`, `half the rate`, `lr 2e-5`."""
    own = float(getattr(recipe, field))
    usual = {
        "warmup_ratio": (_LONGEST_WARMUP, "longer warm-up"),
        "lr": (own / 2, "half the rate"),
        "epochs": (own * 2, "more epochs"),
    }
    if math.isclose(value, usual[field][0], rel_tol=1e-5):
        return usual[field][1]
    return f"{field.replace('_', ' ')} {show(as_setting(field, value))}"


def _helped(analysis: Analysis, proposal: _Proposal, words: Words) -> str:
    """What this sweep's own cells say that differ from the worst in one setting alone, which is no number's axis."""
    worst, recipe = row_at(analysis.cells, proposal.worst), proposal.sweep.cells[proposal.worst].recipe
    k, n = int(worst["failed"]), int(worst["judged"])
    settings = []
    for index, cell in enumerate(proposal.sweep.cells):
        differing = [name for name in Recipe.model_fields if getattr(cell.recipe, name) != getattr(recipe, name)]
        row = row_at(analysis.cells, index)
        if len(differing) != 1 or differing[0] in _NUMBERS or not row["judged"]:
            continue
        other = int(row["failed"]), int(row["judged"])
        if other[0] * n < k * other[1] and proportions.fisher(k, n, *other) < LEVEL:
            words.claims.append(rate_claim(row, "a setting that differs", "cells", "cell"))
            setting = f"{differing[0].replace('_', ' ')} {show(getattr(cell.recipe, differing[0]))}"
            settings.append(f"{setting} ({other[0]} of {other[1]})")
    return f"All else equal, fewer runs fail in this sweep with {', '.join(settings)}. " if settings else ""


# ---------------------------------------------------------------------------------------------------------- as a file


def _sweep_file(sweep: Sweep, recipe: Recipe, variants: Changes, seeds: int) -> str:
    """The text of the sweep: the recipe as it is beside its variants."""
    changed = dict.fromkeys(key for change in variants.values() for key in change)
    fixed = {name: value for name, value in recipe.model_dump(exclude_defaults=True).items() if name not in changed}
    lines = [f"title: {_yaml(f'{sweep.title}: remedies at its worst cell')}"]
    lines += [f"stand_in: {_yaml(sweep.stand_in)}"] if sweep.stand_in else []
    lines += [f"{name}: {_yaml(value)}" for name, value in fixed.items()]
    lines.append("recipes:")
    bundles: Changes = {"as it is": {}} | dict(variants)
    for name, change in bundles.items():
        settings = {key: change.get(key, getattr(recipe, key)) for key in changed}
        lines.append(f"  {name}: {_yaml(settings)}")
    lines.append(f"seeds: 1..{seeds}")
    return "\n".join(lines) + "\n"


def _yaml(value: object) -> str:
    if isinstance(value, Mapping):
        if list(value) == ["name"] and _PLAIN.fullmatch(str(value["name"])):
            return str(value["name"])
        return "{" + ", ".join(f"{key}: {_yaml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, str):
        escapes = {"\\": "\\\\", '"': '\\"', "<": "\\u003c", "`": "\\u0060"}  # it stands in Markdown too
        return '"' + "".join(escapes.get(char, char) for char in value) + '"'
    if isinstance(value, tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    return "null" if value is None else show(value)
