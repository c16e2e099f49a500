"""What a diagnosis says, in sentences that go no further than its tables; and the next experiment, to copy."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pandas as pd

from harness.analysis.analyze import Analysis
from harness.analysis.diagnosis import LOST, VANISHED
from harness.analysis.early_warning import CAUGHT, FALSE_ALARMS
from harness.common.text import Scalar, count_noun, show
from harness.config.recipe import Recipe
from harness.config.trials import Sweep
from harness.report.formatting import percent, points, rate, unknown
from harness.stats import proportions, seed_budget

_LACKING = "was not recorded (a sweep records unless it says `record: off`; results are the same to the bit)"
_LONGEST_WARMUP = 0.3
_WELL = 0.9  # of pairs in the right order
_PLAIN = re.compile(r"(?!(?:on|off|yes|no|true|false|null|y|n)$)[a-z][a-z0-9-]*", re.IGNORECASE)  # needs no quotes


def words(found: Analysis) -> list[str]:
    """All that is said of why runs fail."""
    return [sentence for say in (reasons, gradients, sizes, warning, same_seeds) for sentence in say(found)]


def reasons(found: Analysis) -> list[str]:
    """What became of the failed runs: not optimised, not generalised, diverged; and whether gradients vanished."""
    diagnosis = found.diagnosis
    kinds = diagnosis.kinds.drop(columns="cell").sum()
    failed = int(kinds[["not_optimised", "not_generalised", "diverged", "not_told"]].sum())
    if not diagnosis.finished:
        return []
    if not failed:
        chance = f"; {count_noun(int(kinds['at_chance']), 'run')} ended at chance" if kinds["at_chance"] else ""
        return [f"No run failed, so there is nothing to explain{chance}."]
    said = {
        "not_optimised": "without having fitted the training data (loss in the last epoch above half of the labels' "
        "entropy: optimisation failed)",
        "not_generalised": "with the training data fitted, and no better than the majority on the dev set "
        "(generalisation failed)",
        "diverged": "diverged",
        "not_told": "without it being known which, for the entropy of the labels is not",
    }
    parts = [f"{int(kinds[name])} {words}" for name, words in said.items() if kinds[name]]
    return [f"{failed} of {_finished(diagnosis.finished)} failed: {'; '.join(parts)}.", *_vanishing(found)]


def _finished(n: int) -> str:
    return count_noun(n, "finished run")


def _share(k: int, n: int) -> str:
    """`19 of 48 (40 % [27, 54])`."""
    return f"{k} of {n} ({rate(k, n)})"


def _never_finite(runs: int) -> str:
    return f"{count_noun(runs, 'recorded run')} had no finite gradient from 1 % of training on"


def _vanishing(found: Analysis) -> list[str]:
    """Whether the gradients of the failed runs vanished, when and in which layers."""
    diagnosis = found.diagnosis
    kinds = diagnosis.kinds.drop(columns="cell").sum()
    recorded, vanished = int(kinds["failed_recorded"]), int(kinds["vanished"])
    if not recorded:
        return [f"How the failed runs trained {_LACKING}."]
    if diagnosis.norms is None:
        return [f"{_never_finite(diagnosis.never_finite)}."]
    if not (found.runs["verdict"] == "ok").any():
        return ["No run learned, so that there is nothing to hold the failed runs' gradients against."]
    layers = len(diagnosis.norms.layers)
    measure = (
        f"the gradient norm of at least half of the {layers} layers fell below {percent(VANISHED)} of the median of "
        "runs that learn, and stayed there to the end"
    )
    without = f" {_never_finite(diagnosis.never_finite)}." if diagnosis.never_finite else ""
    if not vanished:
        return [f"Vanishing gradients: in none of {count_noun(recorded, 'recorded failed run')} ({measure}).{without}"]
    gone = diagnosis.fates[diagnosis.fates["vanished"].notna() & ~diagnosis.fates["kind"].isin(["ok", "at chance"])]
    at = gone["vanished"].astype(float)
    when = f"by update {at.median():.0f}" + (
        "" if len(at) == 1 else f" in the median ({at.min():.0f} to {at.max():.0f})"
    )
    return [
        f"Vanishing gradients: in {vanished} of {count_noun(recorded, 'recorded failed run')} {measure}; {when}, in "
        f"{gone['vanished_layers'].median():.0f} layers in the median.{without}"
    ]


def gradients(found: Analysis) -> list[str]:
    """Where and when the gradients of lost runs and others are farthest apart."""
    table = found.diagnosis.gradients
    if table.empty:
        return []
    top = table.loc[table["orders"].abs().idxmax()]
    below = "below" if top["orders"] > 0 else "above"
    where = ", in the cells with both outcomes" if found.diagnosis.both else ", whose recipes differ too"
    where = where if len(found.study.cells) > 1 else ""
    first, last = table["part"].iloc[0], table["part"].iloc[-1]
    return [
        f"Farthest apart is the part “{top['part']}”: at {percent(top['at'])} of training the median gradient of "
        f"{count_noun(int(top['lost']), 'run')} that failed or ended at chance lies {abs(top['orders']):.1f} orders of "
        f"magnitude {below} that of {count_noun(int(top['others']), 'other')}{where} ({top['lost_norm']:.2g} against "
        f"{top['others_norm']:.2g}). At the end it is {_orders(table['end_orders'].iloc[0])} in “{first}” and "
        f"{_orders(table['end_orders'].iloc[-1])} in “{last}”.",
    ]


def _orders(value: float) -> str:
    return f"{value:.1f}".replace("-", "−")


def sizes(found: Analysis) -> list[str]:
    """How large the largest effective update is, with and without bias correction."""
    table = found.diagnosis.step_sizes
    without, having = table[~table["correction"].astype(bool)], table[table["correction"].astype(bool)]
    if without.empty:
        return []
    top = without.loc[without["largest"].idxmax()]
    said = (
        f"Without bias correction the largest effective update is {top['largest']:.2f} times what the learning rate "
        f"says, at update {top['at']} of {top['updates']}"
    )
    return [said + (f"; with it, {having['largest'].max():.2f} times." if len(having) else ".")]


def warning(found: Analysis) -> list[str]:
    """The first rule that tells lost runs, what it would have saved, and what it would have changed."""
    diagnosis = found.diagnosis
    if diagnosis.early_warning.empty:
        return [] if not diagnosis.recorded else [_why_no_warning(found)]
    measure = f"at least {percent(CAUGHT)} of the lost runs with at most {percent(FALSE_ALARMS)} false alarms"
    kept, table, table_of = diagnosis.rule, diagnosis.stopping, diagnosis.early_warning
    if kept is None:
        none = f"No rule of one signal tells {measure}, on cells that it was not learned from, before the end."
        return [none, *_within(table_of)]
    direction = "above" if kept.rule.sign > 0 else "below"
    stopped, wrongly = int(table["stopped"].sum()), int(table["wrongly"].sum())
    runs = found.runs[(found.runs["status"] == "finished")]
    seconds = pd.to_numeric(runs["lane_seconds"]).astype(float)
    of_cell = seconds.groupby(runs["cell"]).sum()
    saved = float((table["saved"] * table["cell"].map(of_cell)).sum() / seconds.sum()) if seconds.sum() else np.nan
    moved = table[table["failed_after"] != table["failed"]]
    changes = f"the count of failed runs would change in {count_noun(len(moved), 'cell')}" if len(moved) else ""
    shift = (table["mean_after"] - table["mean"]).dropna()
    effect = (
        f"the mean score of what is left lies {points(float(shift.max()))} above that of all runs at most"
        if len(shift) and shift.max() > 0
        else ""
    )
    consequences = "; ".join(part for part in (changes, effect) if part) or "no cell's numbers would change"
    at = table_of[(table_of["share"] == kept.rule.share) & (table_of["signal"] == kept.rule.signal)]["within"].iloc[0]
    inside = (
        "Within cells it is not known how well it tells runs apart, for none has both."
        if unknown(at)
        else f"Of pairs of runs of one cell the signal puts {percent(at)} in the right order there"
        + ("." if at >= 0.7 else ": it tells recipes apart more than runs of one recipe.")
    )
    return [
        f"The first rule that tells {measure}, on cells that it was not learned from: {kept.rule.signal} {direction} "
        f"{kept.rule.threshold:.3g} at {percent(kept.rule.share, 1)} of a run. It caught "
        f"{_share(kept.caught, kept.lost)} of the lost runs, with {_share(kept.false, kept.others)} false alarms; "
        f"chosen as the first of many on these runs, it will do a little worse on others. {inside}",
        f"Stopping by it would have ended {count_noun(stopped, 'run')} ({wrongly} wrongly) and saved "
        f"{percent(saved)} of "
        f"the training time; {consequences}. A study's own runs are never stopped by it.",
        *_within(table_of),
    ]


def _within(table: pd.DataFrame) -> list[str]:
    """From when on a signal tells runs of one recipe apart, to the end."""
    since: dict[str, float] = {}
    for name, here in table.groupby("signal", sort=False):
        poor = np.flatnonzero(~(here["within"] >= _WELL).to_numpy())
        place = int(poor[-1]) + 1 if len(poor) else 0
        if place < len(here) - 1:
            since[str(name)] = float(here["share"].iloc[place])
    if not since:
        return []
    first = min(since, key=lambda name: since[name])
    return [
        f"Among runs of one recipe the earliest to tell is the {first}: from {percent(since[first], 1)} of training "
        f"on it puts at least {percent(_WELL)} of pairs in the right order."
    ]


def _why_no_warning(found: Analysis) -> str:
    lost = found.runs["verdict"].isin(LOST)
    if not lost.any():
        return "All runs learned: there is nothing to tell apart early."
    if not (found.runs["verdict"] == "ok").any():
        return "No run learned: there is nothing to tell apart early."
    return "Telling lost runs early is judged on cells left out, and takes two cells or more."


def same_seeds(found: Analysis) -> list[str]:
    """Whether the same seeds do badly in several cells."""
    said = []
    for row in found.diagnosis.shared_seeds.to_dict("records"):
        if unknown(row["correlation"]):
            continue
        what = {"score": "scores", "failing": "failing"}[row["of"]]
        p = "p < 0.001" if row["p"] < 0.001 else f"p = {row['p']:.2g}"
        correlation = f"{row['correlation']:.2f}".replace("-", "−")
        verdict = "the same seeds tend to do badly" if row["p"] < 0.05 else "no sign that the same seeds do badly"
        said.append(
            f"{what.capitalize()} across cells: {verdict} (mean rank correlation {correlation} over "
            f"{row['cells']} cells and {row['seeds']} seeds; permutation test, one-sided, {p})."
        )
    return said


# ------------------------------------------------------------------------------------------------ the next experiment


def _worst(found: Analysis) -> int | None:
    """The cell with the largest share of failed runs; None where none failed."""
    table = found.cells[found.cells["failed"] > 0]
    if table.empty:
        return None
    share = table["failed"] / table["finished"]
    return int(table.loc[share.idxmax(), "cell"])


def _remedies(recipe: Recipe) -> dict[str, dict[str, Scalar]]:
    """What could help, the likeliest first: the settings that differ, by name."""
    found: dict[str, dict[str, Scalar]] = {}
    if not recipe.bias_correction and recipe.optimizer == "adamw":
        found["bias correction"] = {"bias_correction": True}
    if recipe.warmup_ratio < _LONGEST_WARMUP:
        found["longer warm-up"] = {"warmup_ratio": _LONGEST_WARMUP}
    found["half the rate"] = {"lr": float(f"{recipe.lr / 2:.6g}")}
    if recipe.max_steps is None:
        found["more epochs"] = {"epochs": 2 * recipe.epochs}
    return found


def _yaml(value: object) -> str:
    if isinstance(value, Mapping):
        if list(value) == ["name"] and _PLAIN.fullmatch(str(value["name"])):
            return str(value["name"])
        return "{" + ", ".join(f"{key}: {_yaml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, str):
        escapes = {"\\": "\\\\", '"': '\\"', "<": "\\u003c", "`": "\\u0060"}  # it stands in Markdown too
        return '"' + "".join(escapes.get(char, char) for char in value) + '"'
    return "null" if value is None else show(value)


def next_sweep(found: Analysis) -> tuple[str, str] | None:
    """A sentence and a sweep file that tries remedies on the worst cell, those that the sweep has not tried itself.

    The seeds are as many as tell its rate of failing from half of it (Fisher's exact test, power 80 %). None where no
    run failed, or the study is not one sweep.
    """
    if len(found.study.sweeps) != 1 or found.study.imports or (worst := _worst(found)) is None:
        return None
    sweep = found.study.sweeps[0]
    recipe = sweep.cells[worst].recipe
    counts = found.cells.set_index("cell").loc[worst]
    k, n = int(counts["failed"]), int(counts["finished"])
    seeds = seed_budget.seeds_for_failure(k, n, k, 2 * n)
    tried = {cell.recipe for cell in sweep.cells}
    variants = {
        name: change for name, change in _remedies(recipe).items() if recipe.model_copy(update=change) not in tried
    }
    helped = _helped(found, worst, recipe)
    fields = recipe.model_dump(exclude_defaults=True)
    fixed = {
        name: value for name, value in fields.items() if name not in {key for of in variants.values() for key in of}
    }
    lines = [f"title: {_yaml(f'{sweep.title}: remedies at its worst cell')}"]
    lines += [f"stand_in: {_yaml(sweep.stand_in)}"] if sweep.stand_in else []
    lines += [f"{name}: {_yaml(value)}" for name, value in fixed.items()]
    changed = dict.fromkeys(key for of in variants.values() for key in of)
    bundles: dict[str, dict[str, Scalar]] = {"as it is": {}} | variants
    lines.append("recipes:")
    for name, change in bundles.items():
        settings = {key: change.get(key, getattr(recipe, key)) for key in changed}
        lines.append(f"  {name}: {_yaml(settings)}")
    lines.append(f"seeds: 1..{seeds or 50}")
    enough = (
        f"{seeds} seeds a cell tell {percent(k / n)} failed runs from half of that"
        if seeds
        else "More than a thousand seeds would tell its rate from half of it; 50 are a start"
    )
    untried = (
        f"Not tried there yet: {', '.join(variants)}." if variants else "The usual remedies are all in this sweep."
    )
    sentence = (
        f"The cell that fails most is “{found.study.cells[worst].label}”, {_share(k, n)}. {helped}"
        f"{untried} {enough} (Fisher's exact test, power 80 %)."
    )
    return sentence, "\n".join(lines) + "\n"


def _helped(found: Analysis, worst: int, recipe: Recipe) -> str:
    """What this sweep's own cells say that differ from the worst in one setting alone."""
    sweep: Sweep = found.study.sweeps[0]
    counts = found.cells.set_index("cell")
    k, n = int(counts.loc[worst, "failed"]), int(counts.loc[worst, "finished"])
    said = []
    for index, cell in enumerate(sweep.cells):
        differing = [name for name in Recipe.model_fields if getattr(cell.recipe, name) != getattr(recipe, name)]
        if len(differing) != 1 or not counts.loc[index, "finished"]:
            continue
        other = int(counts.loc[index, "failed"]), int(counts.loc[index, "finished"])
        if other[0] * n < k * other[1] and proportions.fisher(k, n, *other) < 0.05:
            name = differing[0]
            said.append(f"{name.replace('_', ' ')} {show(getattr(cell.recipe, name))} ({other[0]} of {other[1]})")
    return f"All else equal fewer fail in this sweep with {', '.join(said)}. " if said else ""
