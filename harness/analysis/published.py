"""The published numbers of Mosbach, Andriushchenko & Klakow beside one's own cells: agree, differ, not comparable.

"On the Stability of Fine-tuning BERT", ICLR 2021, arXiv 2006.04884.

`Published` holds percent as printed; everything else here is a fraction, as in every table of the harness. Of Figure 9
no value of a cell is published, so none stands here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from harness.analysis.cells import cell_groups
from harness.analysis.verdicts import finished_runs
from harness.records.study import Study, numbers

Verdict = Literal["agrees", "differs", "not comparable"]
Checkpoint = Literal["final", "best"]
NAN = float("nan")
MODELS = ("bert-large-uncased", "google-bert/bert-large-uncased")  # one model, its old and its new name on the hub
METRICS = {"rte": "accuracy", "mrpc": "f1", "cola": "matthews_correlation"}


@dataclass(frozen=True)
class Published:
    """One published cell: spread (n - 1), mean and maximum over its runs, in percent as printed.

    `status` is `read`, or `unchecked` for numbers noted from memory. `checkpoint` says whether its scores are those of
    the end of training or of each run's best dev checkpoint.
    """

    recipe: str
    task: str
    metric: str
    sd: float
    mean: float
    maximum: float
    version: str
    status: Literal["read", "unchecked"]
    checkpoint: Checkpoint
    note: str
    runs: int = 25


@dataclass(frozen=True)
class Own:
    """One cell of a study: its place, what was trained, and its runs' final and best scores as fractions [R].

    `recipe` maps the fields of `recipe.Recipe`, those left out at their defaults, which are the paper's; give it
    `recipe.model_dump(exclude_defaults=True)`, for a field that is not known here counts as a difference. `metric` is
    that of the scores, None for the task's own. `role` is the cell's value on an axis of named recipes: it shows a
    stand-in's numbers beside those of the recipe that it stands for.
    """

    cell: int
    task: str
    model: str
    recipe: Mapping[str, object]
    final: np.ndarray
    best: np.ndarray
    metric: str | None = None
    role: str | None = None


@dataclass(frozen=True)
class PublishedComparison:
    """A published cell beside one's own, in fractions; intervals at 95 %, NaN where not known.

    `mean_low` to `mean_high` is Student's interval of the own mean, `sd_low` to `sd_high` the χ² one of the own sd
    (normal scores). `difference` is own mean minus published with Welch's interval, `ratio` own sd by published with
    the F interval (normal scores). `verdict` is `agrees` where both parts agree; that says no more than that the runs
    tell no difference, so the fewer they are the easier it is. The maximum grows with the number of runs and is shown
    only.
    """

    published: Published
    cell: int
    checkpoint: Checkpoint
    runs: int
    mean: float
    mean_low: float
    mean_high: float
    sd: float
    sd_low: float
    sd_high: float
    maximum: float
    difference: float
    difference_low: float
    difference_high: float
    ratio: float
    ratio_low: float
    ratio_high: float
    mean_verdict: Verdict
    sd_verdict: Verdict
    verdict: Verdict
    why: str


_Three = tuple[float, float, float]
_Seven = tuple[float, float, float, float, float, float, float]

# The table "Numbers to compare with": (recipe, version, status, checkpoint, note, (sd, mean, maximum) by task).
_BEST = "best dev checkpoint kept, of three evaluations an epoch"  # eval_logging_steps in the authors' configs
_END = "end of training"
_TABLE: tuple[tuple[str, str, Literal["read", "unchecked"], Checkpoint, str, dict[str, _Three]], ...] = (
    ("Devlin", "v1", "read", "final", _END,
     {"rte": (7.2, 52.3, 71.1), "mrpc": (5.9, 79.0, 89.4), "cola": (25.6, 45.6, 64.6)}),
    ("Mixout", "v1", "read", "final", "checkpoint not said; taken as the end of training",
     {"rte": (7.9, 65.3, 74.4), "mrpc": (3.8, 87.8, 91.8), "cola": (20.9, 51.9, 64.0)}),
    ("recommended", "v1", "read", "best", _BEST,
     {"rte": (2.4, 70.1, 75.5), "mrpc": (0.8, 89.6, 91.4), "cola": (1.0, 64.6, 66.8)}),
    ("Devlin", "ICLR", "unchecked", "final", _END,
     {"rte": (4.5, 50.9, 67.5), "mrpc": (3.9, 84.0, 91.2), "cola": (25.6, 45.6, 64.6)}),
    ("recommended", "ICLR", "unchecked", "final", _END,
     {"rte": (2.7, 67.3, 71.1), "mrpc": (0.8, 90.3, 91.7), "cola": (1.8, 62.1, 65.3)}),
)  # fmt: skip
NUMBERS: tuple[Published, ...] = tuple(
    Published(recipe, task, METRICS[task], *numbers, version, status, checkpoint, note)
    for task in METRICS
    for recipe, version, status, checkpoint, note, by_task in _TABLE
    for numbers in (by_task[task],)
)

# What every published recipe shares (the authors' configs of bert-large-uncased), by the names of `recipe.Recipe`.
_COMMON: dict[str, object] = {
    "lr": 2e-5, "batch_size": 16, "max_length": 128, "token_type_ids": False, "warmup_ratio": 0.1, "weight_decay": 0.01,
    "beta1": 0.9, "beta2": 0.999, "eps": 1e-6, "max_grad_norm": 1.0, "dropout": 0.1, "precision": "float32",
}  # fmt: skip
RECIPES: Mapping[str, Mapping[str, object]] = {
    "Devlin": _COMMON | {"bias_correction": False, "epochs": 3},
    "recommended": _COMMON | {"bias_correction": True, "epochs": 20},
}
ROLES: Mapping[str, str] = {"Devlin": "usual", "recommended": "recommended"}  # as the shipped sweeps call them
_DEFAULTS = _COMMON | {"bias_correction": True}  # of `recipe.Recipe`; lr and epochs have none and are always said
_BESIDE = {
    "task",
    "model",
    "eval_batch_size",
    "padding",
    "pad_to_multiple_of",
    "eval_steps",
}  # these do not change the training


# -------------------------------------------------------------------------------------------------------- the numbers


def welch(mean: float, sd: float, runs: int, other_mean: float, other_sd: float, other_runs: int) -> _Three:
    """The difference of two means, first minus other, and its 95 % interval, from summaries of 2 runs or more each.

    Unequal variances, degrees of freedom by Welch and Satterthwaite (Welch 1947, Biometrika 34, 28-35). NaN bounds for
    fewer runs.
    """
    gap = mean - other_mean
    if min(runs, other_runs) < 2:
        return gap, NAN, NAN
    parts = sd**2 / runs, other_sd**2 / other_runs
    error = math.sqrt(sum(parts))
    if error == 0:
        return gap, gap, gap
    # By shares: the squares of tiny variances would vanish.
    shares = parts[0] / sum(parts), parts[1] / sum(parts)
    freedom = 1 / (shares[0] ** 2 / (runs - 1) + shares[1] ** 2 / (other_runs - 1))
    half = float(stats.t.ppf(0.975, freedom)) * error
    return gap, gap - half, gap + half


def sd_ratio(sd: float, runs: int, other_sd: float, other_runs: int) -> _Three:
    """The ratio of two sds, first by other, and its 95 % F interval, from summaries of 2 runs or more each.

    It assumes normal scores, which a cell with some failed runs does not have: rare failures make it too narrow. NaN
    for fewer runs and for an other sd of 0. Snedecor & Cochran 1989, Statistical Methods, on comparing two variances.
    """
    if min(runs, other_runs) < 2 or other_sd == 0:
        return NAN, NAN, NAN
    ratio = sd / other_sd
    high, low = np.sqrt(stats.f.ppf((0.025, 0.975), runs - 1, other_runs - 1))
    return ratio, ratio / float(low), ratio / float(high)


def _own_intervals(scores: np.ndarray) -> _Seven:
    """Mean, its Student interval, sd, its χ² interval and the maximum of scores [R]; NaN where not known."""
    runs = len(scores)
    if not runs:
        return NAN, NAN, NAN, NAN, NAN, NAN, NAN
    mean, top = float(scores.mean()), float(scores.max())
    if runs < 2:
        return mean, NAN, NAN, NAN, NAN, NAN, top
    sd = float(scores.std(ddof=1))
    half = float(stats.t.ppf(0.975, runs - 1)) * sd / math.sqrt(runs)
    low, high = (sd * math.sqrt((runs - 1) / float(stats.chi2.ppf(tail, runs - 1))) for tail in (0.975, 0.025))
    return mean, mean - half, mean + half, sd, low, high, top


# ----------------------------------------------------------------------------------------------------- the comparison


def _said(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _same(one: object, other: object) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _apart(published: Published, own: Own) -> list[str]:
    """What sets a cell apart from a published one, in words; empty where they are one recipe on one model and task."""
    apart = []
    if own.task != published.task:
        apart.append(f"task {own.task} (theirs {published.task})")
    if own.metric not in (None, published.metric):
        apart.append(f"metric {own.metric} (theirs {published.metric})")
    if own.model not in MODELS:
        apart.append(f"model {own.model} (theirs {MODELS[0]})")
    if published.recipe not in RECIPES:
        return [*apart, f"no {published.recipe.lower()} in this sweep"]
    theirs = RECIPES[published.recipe]
    for field in dict.fromkeys((*theirs, *own.recipe)):
        if field in _BESIDE:
            continue
        if field not in theirs:
            apart.append(f"{field} {_said(own.recipe[field])} (not in theirs)")
        elif field not in own.recipe and field in ("lr", "epochs"):
            apart.append(f"{field} not known (theirs {_said(theirs[field])})")
        elif not _same(own.recipe.get(field, _DEFAULTS.get(field)), theirs[field]):
            value = own.recipe.get(field, _DEFAULTS.get(field))
            apart.append(f"{field} {_said(value)} (theirs {_said(theirs[field])})")
    return apart


def _stands_in(stand_in: str) -> str:
    return f"stand-in (other model, other data): {stand_in}"


def _fraction(percent: float) -> float:
    """Without the digits that division adds: 7.2 / 100 is 0.07200000000000001."""
    return round(percent / 100, 6)


def _holds(value: float, low: float, high: float) -> Verdict:
    return "agrees" if low <= value <= high else "differs"


def _compare(published: Published, own: Own, stand_in: str | None) -> PublishedComparison:
    scores = np.asarray(own.best if published.checkpoint == "best" else own.final, dtype=float)
    finite = scores[np.isfinite(scores)]
    numbers = _own_intervals(finite)
    mean, sd, runs = numbers[0], numbers[3], len(finite)
    other_mean, other_sd = _fraction(published.mean), _fraction(published.sd)
    gap = welch(mean, sd, runs, other_mean, other_sd, published.runs)
    ratio = sd_ratio(sd, runs, other_sd, published.runs)
    against = [_stands_in(stand_in)] if stand_in else _apart(published, own)
    if runs < 2:
        against.append(f"{runs} {'run' if runs == 1 else 'runs'} with a score, 2 or more needed")
    verdicts: tuple[Verdict, Verdict, Verdict] = ("not comparable",) * 3
    if against:
        why = "; ".join(against)
    else:
        by_mean, by_sd = _holds(0, *gap[1:]), _holds(1, *ratio[1:])
        verdicts = by_mean, by_sd, "agrees" if by_mean == by_sd == "agrees" else "differs"
        apart, low, high = (f"{100 * bound:+.1f}".replace("-", "−") for bound in gap)
        why = (
            f"mean {by_mean}: {apart} points [{low}, {high}] from theirs (Welch); "
            f"sd {by_sd}: {ratio[0]:.2f} times theirs [{ratio[1]:.2f}, {ratio[2]:.2f}] (F, assumes normal scores); "
            f"{published.checkpoint} scores here, theirs: {published.note}"
        )
        if runs < len(scores):
            why += f"; {len(scores) - runs} of {len(scores)} runs without a score left out"
    if published.status == "unchecked":
        why += "; the published numbers are unchecked"
    return PublishedComparison(published, own.cell, published.checkpoint, runs, *numbers, *gap, *ratio, *verdicts, why)


def compare(own: Own, stand_in: str | None = None) -> list[PublishedComparison]:
    """One cell beside every published row on its task, in the order of `NUMBERS`; empty for other tasks.

    The own scores are the final ones, or the best where the published row keeps the best dev checkpoint. Scores that
    are not finite are left out and counted in `why`. A stand-in (its sentence) is never comparable, nor are another
    model, metric or recipe, fewer than 2 runs, or Mixout, which no recipe here can say.
    """
    return [_compare(published, own, stand_in) for published in NUMBERS if published.task == own.task]


COLUMNS = (
    "recipe", "task", "version", "status", "checkpoint", "published_mean", "published_sd", "published_max",
    "published_runs", "cell", "mean", "mean_low", "mean_high", "sd", "sd_low", "sd_high", "max", "runs",
    "mean_verdict", "sd_verdict", "verdict", "why",
)  # fmt: skip


def compare_study(cells: Sequence[Own], stand_in: str | None = None) -> pd.DataFrame:
    """One row a published row that speaks about the study, in the order of `NUMBERS`; empty for unrelated studies.

    Columns `COLUMNS`, in fractions: the published row; `cell`, the own cell with this very task, model and recipe, and
    its numbers (`cell` and `runs` None and the rest NaN where there is none, `why` then names the nearest; a row each
    where several match); the verdicts and `why`. Published rows speak about a study with their task, and about a
    stand-in whose sentence names their task (`embedded stand-in, not BERT on RTE`); a stand-in's rows are never
    comparable, and beside the cell whose named recipe has that role (`ROLES`), else without a cell.
    """
    tasks = {own.task for own in cells}
    if stand_in:
        tasks |= set(re.findall(r"\w+", stand_in.lower()))
    rows: list[dict[str, object]] = []
    for published in NUMBERS:
        if published.task not in tasks:
            continue
        here = [own for own in cells if own.task == published.task]
        role = ROLES.get(published.recipe)
        if stand_in:
            matching = [own for own in cells if role is not None and own.role == role]
        else:
            matching = [own for own in here if not _apart(published, own)]
        rows += [_row(published, _compare(published, own, stand_in)) for own in matching]
        if not matching:
            rows.append(_row(published, None) | {"why": _why_none(published, here, stand_in)})
    result = pd.DataFrame(rows, columns=list(COLUMNS))
    for name in ("cell", "runs"):  # as objects: pandas would turn 3 and None into 3.0 and NaN
        result[name] = pd.Series([row[name] for row in rows], dtype=object)
    return result


def _row(published: Published, found: PublishedComparison | None) -> dict[str, object]:
    row: dict[str, object] = {name: getattr(published, name) for name in COLUMNS[:5]}
    row |= {
        "published_mean": _fraction(published.mean),
        "published_sd": _fraction(published.sd),
        "published_max": _fraction(published.maximum),
        "published_runs": published.runs,
    }
    if found is None:
        unknown = dict.fromkeys(COLUMNS[9:18], NAN) | {"cell": None, "runs": None}
        return row | unknown | dict.fromkeys(COLUMNS[18:21], "not comparable")
    row |= {name: getattr(found, name) for name in COLUMNS[9:] if name != "max"}
    return row | {"max": found.maximum}


def _why_none(published: Published, here: Sequence[Own], stand_in: str | None) -> str:
    if stand_in:
        why = _stands_in(stand_in)
    elif published.recipe not in RECIPES:
        why = f"no {published.recipe.lower()} in this sweep"
    else:
        apart = {own.cell: _apart(published, own) for own in here}
        nearest = min(apart, key=lambda cell: len(apart[cell]))
        why = f"no cell with this recipe; the nearest, cell {nearest}, differs in {', '.join(apart[nearest])}"
    return why + ("; the published numbers are unchecked" if published.status == "unchecked" else "")


def against_the_paper(study: Study) -> pd.DataFrame:
    """The published numbers that speak of this study's task, each beside the cell that repeats it."""
    own = []
    for sweep in study.sweeps if len(study.sweeps) == 1 and not study.imports and not study.sweeps[0].is_script else ():
        groups = cell_groups(study.runs, len(study.cells))
        for index, (cell, here) in enumerate(zip(sweep.cells, groups, strict=True)):
            done = here[finished_runs(here)]
            fields = cell.recipe.model_dump(exclude={"task", "model"}, exclude_defaults=True)
            final, best = (numbers(done, name).to_numpy() for name in ("final_score", "best_score"))
            metrics = set(done["metric"].dropna())
            role = dict(cell.axes).get("recipe")
            own.append(
                Own(
                    index, cell.recipe.task.name, cell.recipe.model.name, fields, final, best,
                    metric=metrics.pop() if len(metrics) == 1 else None, role=role if isinstance(role, str) else None,
                )
            )  # fmt: skip
    return compare_study(own, study.stand_in)
