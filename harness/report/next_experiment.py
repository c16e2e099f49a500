"""The next experiment: a sweep, to be copied, that tries on the cell that fails most what has not been tried there.

Where a number is to change (learning rate, warm-up, epochs) all values that were tried decide in which direction.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from harness.analysis import looks, stopping
from harness.analysis.analyze import Analysis
from harness.common.errors import HarnessError
from harness.common.text import Scalar, count_noun, show
from harness.config.recipe import Recipe
from harness.config.recipe_rules import build_recipe
from harness.config.seed_rule import Goal, SeedRule
from harness.config.trials import Sweep
from harness.report.axis_advice import Direction, advise, as_setting, profile
from harness.report.formatting import percent, rate
from harness.stats import proportions
from harness.stats.seed_budget import seeds_for_failure

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


def next_sweep(analysis: Analysis) -> tuple[str, str] | None:
    """A sentence and a sweep file that tries remedies on the worst cell, those that the sweep has not tried itself.

    The seeds are as many as tell its rate of failing from half of it (Fisher's exact test, power 80 %). None where no
    run failed, or the study is not one sweep.
    """
    study = analysis.study
    if len(study.sweeps) != 1 or study.sweeps[0].is_script or study.imports or (worst := _worst(analysis)) is None:
        return None
    sweep = study.sweeps[0]
    recipe = sweep.cells[worst].recipe
    counts = analysis.cells.set_index("cell").loc[worst]
    k, n = int(counts["failed"]), int(counts["finished"])
    seeds = seeds_for_failure(k, n, k, 2 * n)
    tried = {cell.recipe for cell in sweep.cells}
    remedies, reasons = _remedies(analysis, recipe)
    variants = {
        name: change
        for name, change in remedies.items()
        if recipe.model_copy(update=dict(change)) not in tried and _is_allowed(recipe, change)
    }
    enough = (
        f"{seeds} seeds per cell distinguish a failure rate of {percent(k / n)} from half of that"
        if seeds
        else f"More than 1,000 seeds would distinguish its rate from half of it; {_ENOUGH_TO_BEGIN} are a start"
    )
    untried = (
        f"Not tried there yet: {', '.join(variants)}."
        if variants
        else "This sweep already tries all the usual remedies."
    )
    sentence = (
        f"The cell that fails most often is “{study.cells[worst].label}”: {k} of {n} ({rate(k, n)}). "
        f"{_helped(analysis, worst, recipe)}{reasons}{untried} {enough} (Fisher's exact test, power 80 %)."
    )
    return sentence, _sweep_file(sweep, recipe, variants, seeds or _ENOUGH_TO_BEGIN)


def more_seeds(analysis: Analysis) -> str:
    """Of runs that were imported, which cells need more seeds before their failure rates are known; empty for none.

    It goes by intervals that hold at every look, so that the advice may be followed again and again.
    """
    cells = looks.cells_of(analysis.study) if analysis.study.imports else []
    if not any(cell.judged for cell in cells):
        return ""
    decision = stopping.decide(_ENOUGH_KNOWN, _ENOUGH_KNOWN.at_most, cells)
    if decision.due is None:
        return ""
    growing = [index for index, cell in enumerate(cells) if decision.due[index] > len(cell.results)]
    points = f"within ±{100 * (_ENOUGH_KNOWN.until[0].within or 0):.0f} points"
    which = "the only cell" if len(cells) == 1 else f"each of the {len(cells)} cells"
    if len(growing) < len(cells):
        named = "; ".join(analysis.study.cells[index].label for index in growing[:_MOST_NAMED])
        more = f"; and {len(growing) - _MOST_NAMED} more" if len(growing) > _MOST_NAMED else ""
        which = f"{count_noun(len(growing), 'cell')} of {len(cells)} ({named}{more})"
    known = "No failure rate" if len(growing) == len(cells) else "Not every failure rate"
    return (
        f"{known} is known {points} by an interval that holds however often one looks. Add "
        f"{count_noun(_ENOUGH_KNOWN.step, 'seed')} to {which}, import the runs again and look again."
    )


def _worst(analysis: Analysis) -> int | None:
    """The cell with the largest share of failed runs, among equals that of most runs; None where none failed."""
    table = analysis.cells[analysis.cells["failed"] > 0]
    if table.empty:
        return None
    share = table["failed"] / table["finished"]
    return int(table.loc[table.loc[share == share.max(), "finished"].idxmax(), "cell"])


def _remedies(analysis: Analysis, recipe: Recipe) -> tuple[Changes, str]:
    """What could help, the likeliest first, as the settings that differ, by name; and why a number is what it is."""
    changes: dict[str, dict[str, Scalar]] = {}
    if not recipe.bias_correction and recipe.optimizer == "adamw":
        changes["bias correction"] = {"bias_correction": True}
    reasons = ""
    for direction in (WARMUP, RATE, EPOCHS) if recipe.max_steps is None else (WARMUP, RATE):
        field = direction.field
        advice = advise(profile(analysis, recipe, field), direction)
        for value in advice.values:
            changes[_variant(recipe, field, value)] = {field: as_setting(field, value)}
        reasons += f"{advice.reason} " if advice.reason else ""
    return changes, reasons


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


def _helped(analysis: Analysis, worst: int, recipe: Recipe) -> str:
    """What this sweep's own cells say that differ from the worst in one setting alone, which is no number's axis."""
    counts = analysis.cells.set_index("cell")
    k, n = int(counts.loc[worst, "failed"]), int(counts.loc[worst, "finished"])
    settings = []
    for index, cell in enumerate(analysis.study.sweeps[0].cells):
        differing = [name for name in Recipe.model_fields if getattr(cell.recipe, name) != getattr(recipe, name)]
        if len(differing) != 1 or differing[0] in _NUMBERS or not counts.loc[index, "finished"]:
            continue
        other = int(counts.loc[index, "failed"]), int(counts.loc[index, "finished"])
        if other[0] * n < k * other[1] and proportions.fisher(k, n, *other) < 0.05:
            name = differing[0]
            settings.append(f"{name.replace('_', ' ')} {show(getattr(cell.recipe, name))} ({other[0]} of {other[1]})")
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
    return "null" if value is None else show(value)
