"""What a script's record says twice: its score beside curves and answers, and what the sweep file asks of it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from pydantic import BaseModel

from harness.common.text import show
from harness.config.script import Script, ScriptRecipe
from harness.records.reading import Problem
from harness.records.record import Curves, Measured, Record
from harness.scripts import commands

# What the sweep file says of a script's results, which is not part of a trial's id: it may be edited afterwards.
_JUDGED = {
    "majority": "majority", "failed_below": "failed_below", "higher_is_better": "better: higher", "metric": "metric",
    "score": "score", "also": "also",
}  # fmt: skip


# What is measured of a script's run; the rest only the engine knows.
_OF_SCRIPTS = {
    "outcome", "reason", "metric", "final_score", "best_score", "best_step", "majority_score", "correct",
    "dev_examples", "final_train_loss", "wall_seconds", "lane_seconds", "peak_memory_bytes",
}  # fmt: skip
_OF_THE_ENGINE = tuple(name for name in Measured.model_fields if name not in _OF_SCRIPTS)


def check_script(record: Record, curves: Curves | None, planned: ScriptRecipe | None) -> Iterator[Problem]:
    """What of a finished script's record is not as its recipe and its own arrays have it.

    A script leaves what it likes: steps, weights and data are its own, so that less can be held against it than
    against a trial of the engine's.

    Args:
        record: The record.
        curves: Its arrays; None where there are none.
        planned: The recipe of its trial in the plan.
    """
    recipe, measured, run = record.trial.script, record.measured, record.script
    if recipe is None or measured is None or run is None:
        return
    script = recipe.script
    if planned is not None:
        yield from _check_judged(script, planned.script)
    if measured.metric != script.metric:
        yield "score", f"metric is {measured.metric!r}, the sweep's is {script.metric!r}"
    if measured.majority_score != script.threshold:
        yield "score", f"majority_score is {measured.majority_score}, the sweep says {script.threshold}"
    failed = script.failed(measured.final_score)
    outcome = None if failed is None else "failed" if failed else "ok"
    if measured.outcome != outcome:
        yield (
            "outcome",
            f"{measured.outcome}, and by the sweep's threshold a score of {measured.final_score} is {outcome}",
        )
    if measured.reason not in (None, "diverged"):
        yield "outcome", f"{measured.reason}, which is not told of a script"
    if (measured.reason == "diverged") != (measured.final_score is None):
        yield "outcome", f"{measured.reason or 'no reason'}, and the final score is {measured.final_score}"
    if not commands.may_be_of(run.command, record.trial):
        yield "score", f"command is {run.command}, which is not its trial's"
    for name in _OF_THE_ENGINE:
        if (value := getattr(measured, name)) is not None:
            yield "record", f"{name} is {show(value)}, which is not measured of a script"
    if measured.lane_seconds != measured.wall_seconds:
        yield "times", f"lane_seconds is {measured.lane_seconds:g}, of a run of {measured.wall_seconds:g} s"
    counted = measured.metric == "accuracy" and measured.dev_examples is not None
    if (measured.correct is not None) != counted:
        yield "score", f"correct is {measured.correct} of {measured.dev_examples} answers, for {measured.metric}"
    if run.exit_code != 0:
        yield "status", f"finished, with exit code {run.exit_code}"
    known = [name for name, _ in script.also]
    unknown = [name for name, _ in run.further if name not in known]
    if unknown:
        yield "score", f"it has a metric {unknown[0]!r}, which the sweep does not read"
    if curves is not None:
        yield from _check_curves(record, curves, higher=script.higher_is_better)


def _check_judged(script: Script, planned: Script) -> Iterator[Problem]:
    """Whether a run was scored and judged as the plan says."""
    for field, key in _JUDGED.items():
        recorded, now = getattr(script, field), getattr(planned, field)
        if recorded != now:
            shown = [
                show(value) if not isinstance(value, BaseModel | tuple) else "another" for value in (recorded, now)
            ]
            words = "another one than the plan's" if shown[0] == shown[1] else f"{shown[0]}, in the plan {shown[1]}"
            yield "threshold" if field in ("majority", "failed_below") else "score", f"{key} is {words}"


def _check_curves(record: Record, curves: Curves, *, higher: bool) -> Iterator[Problem]:
    measured = record.measured
    assert measured is not None
    if measured.correct is not None:
        right = int((curves.logits.argmax(axis=1) == curves.labels).sum()) if len(curves.labels) else 0
        if right != measured.correct:
            yield "score", f"correct is {measured.correct}, the answers give {right}"
    scores = curves.dev_score[np.isfinite(curves.dev_score)]
    values = [*scores.tolist(), *(() if measured.final_score is None else (measured.final_score,))]
    best = (max if higher else min)(values, default=None)
    if best is not None and (measured.best_score is None or not math.isclose(measured.best_score, best, rel_tol=1e-9)):
        yield "curves", f"best_score is {measured.best_score}, the curve and the final score give {best}"
    if measured.best_step is not None:  # of an epoch's half the curve has a whole step
        near = np.abs(curves.eval_step - measured.best_step) <= 1
        if not np.isclose(curves.dev_score[near], measured.best_score or np.nan, rtol=1e-9, atol=0).any():
            yield "curves", f"best_step is {measured.best_step}, where the curve does not have the best score"
