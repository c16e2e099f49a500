"""The learning-rate finder: a range test over several seeds, what it suggests, and whether runs failed there."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from harness.common.errors import HarnessError
from harness.common.files import write_json, write_text
from harness.common.text import show
from harness.config.recipe import Recipe
from harness.config.trials import Sweep, Trial
from harness.execution import lanes_memory, machine
from harness.records.store import Store
from harness.report.files import csv

SMOOTHING = 0.9  # of the exponential moving average: a mean over about ten steps
DIVERGED = 4.0  # times the lowest smoothed loss so far: there the curve ends, as in fastai
NEAR = 2.0  # a tested rate within this factor of the suggestion tells of it
_SEEDS = 4  # that a test is run over, unless somebody says otherwise


@dataclass(frozen=True)
class Curve:
    """The range test of one seed; S steps up to where the loss diverged."""

    seed: int
    lr: np.ndarray  # [S]
    loss: np.ndarray  # [S] smoothed, nats
    raw: np.ndarray  # [S] nats
    steepest: float | None  # the rate, up to that minimum, where the smoothed loss falls fastest per factor of the rate
    tenth: float | None  # a tenth of the rate of the lowest smoothed loss


@dataclass(frozen=True)
class Evidence:
    """Finished runs of the sweep at one learning rate, over its other settings."""

    lr: float
    failed: int
    finished: int


@dataclass(frozen=True)
class RangeTest:
    """The range tests of one recipe and what they suggest, and what finished runs say of it."""

    recipe: Recipe
    curves: tuple[Curve, ...]
    evidence: tuple[Evidence, ...]  # rates near the suggestions at which runs failed
    tested: tuple[Evidence, ...]  # all rates with finished runs, in their order

    def suggested(self, rule: str) -> tuple[float, float, float] | None:
        """Geometric mean, lowest and highest over the seeds of `steepest` or `tenth`; None where none has one."""
        rates = [rate for curve in self.curves if (rate := getattr(curve, rule)) is not None]
        return (math.exp(float(np.mean(np.log(rates)))), min(rates), max(rates)) if rates else None


def one_recipe(sweep: Sweep, trials: Sequence[Trial], epochs: int) -> Recipe:
    """The recipe that is tested: that of the trials, whatever their lr and epochs.

    Raises HarnessError where they differ in anything else.
    """
    alike = {trial.recipe.model_copy(update={"lr": 1.0, "epochs": epochs}): trial for trial in trials}
    if len(alike) == 1:
        return next(iter(alike))
    axes = [axis for axis in sweep.axes if axis not in ("lr", "epochs")]
    left = [
        ", ".join(f"{axis}={show(dict(sweep.cells[of_recipe.cell].axes)[axis])}" for axis in axes)
        for of_recipe in alike.values()
    ]
    raise HarnessError(
        f"a range test needs one recipe: {len(alike)} differ in {', '.join(axes)}"
        if alike
        else "a range test needs one recipe: none matches",
        allowed="; ".join(left[:20]) or None,
        fix="Choose one with --where KEY=VALUE" if alike else "Loosen --where",
    )


def find(
    sweep: Sweep,
    store: Store,
    trials: Sequence[Trial],
    *,
    seeds: int | None,
    low: float,
    high: float,
    epochs: int = 1,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> RangeTest:
    """Run a learning-rate range test of one recipe; trains no trial and records none.

    Args:
        sweep: The sweep of the recipe.
        store: Its results folder, whose finished runs near the suggestion are looked at.
        trials: The trials whose recipe is tested, whatever their lr and epochs.
        seeds: How many of the sweep's seeds it is tested over, as lanes of packs; None: four, or all of fewer.
        low: The lowest learning rate, that of the first update.
        high: The highest, that of the last update.
        epochs: Passes over the training data.
        threads: CPU threads to compute with.
        progress: Called with (steps, all steps) over all seeds.

    Raises:
        HarnessError: The range is upside down, the sweep has fewer seeds, or the trials have several recipes.
    """
    if not 0 < low < high < math.inf:
        raise HarnessError("--low must be > 0 and below --high", got=f"--low {show(low)} --high {show(high)}")
    if sweep.search is not None:
        raise HarnessError(
            f"a range test needs one recipe, but {sweep.name} searches for one",
            fix="Write its fields as single values, without search:",
        )
    recipe = one_recipe(sweep, trials, epochs)
    seeds = min(_SEEDS, len(sweep.seeds)) if seeds is None else seeds
    if not 1 <= seeds <= len(sweep.seeds):
        raise HarnessError(
            f"--seeds must be between 1 and {len(sweep.seeds)}, the number of the sweep's seeds", got=seeds
        )
    from harness.training import probes

    device = "cuda" if machine.detect_hardware().gpus else "cpu"
    pack = [Trial(recipe=recipe, seeds=seeds_of_lane, cell=0) for seeds_of_lane in sweep.seeds[:seeds]]
    size = lanes_memory.pack_size(recipe, device, None)
    curves: list[Curve] = []
    for start in range(0, len(pack), size):
        part = pack[start : start + size]

        def follow(step: int, steps: int, start: int = start, lanes: int = len(part)) -> None:
            if progress is not None:
                progress(start * steps + step * lanes, len(pack) * steps)

        rates, losses = probes.lr_range(part, low, high, device=device, threads=threads, progress=follow)
        curves += [curve(trial.seeds.seed, rates, losses[:, lane]) for lane, trial in enumerate(part)]
    tested = rates_tested(sweep, store, trials)
    suggestions = [
        rate for seed_curve in curves for rate in (seed_curve.steepest, seed_curve.tenth) if rate is not None
    ]
    return RangeTest(recipe, tuple(curves), failing_near(tested, suggestions), tested)


def curve(seed: int, rates: np.ndarray, losses: np.ndarray) -> Curve:
    """Smooth one seed's losses [S] over rates [S], cut them where they diverge, and suggest.

    Smoothed as Adam's moments: an exponential moving average divided by 1 - β^t (Kingma & Ba 2015), so that the first
    steps are not drawn to 0. The slope is that against the logarithm of the rate. Source: Gugger (2018), fastai.
    """
    smooth, average = np.empty(len(losses)), 0.0
    for step, loss_here in enumerate(losses.tolist()):
        average = SMOOTHING * average + (1 - SMOOTHING) * loss_here
        smooth[step] = average / (1 - SMOOTHING ** (step + 1))
    lowest = np.minimum.accumulate(np.where(np.isfinite(smooth), smooth, np.inf))
    bad = np.flatnonzero(~np.isfinite(smooth) | (smooth > DIVERGED * lowest))
    end = int(bad[0]) if bad.size else len(smooth)
    lr, loss = rates[:end], smooth[:end]
    steepest = tenth = None
    if end >= 3:
        minimum = int(loss.argmin())
        # A loss that comes down from a peak beyond its minimum says nothing.
        slope = np.gradient(loss, np.log(lr))[: minimum + 1]
        at = int(slope.argmin())
        steepest = float(lr[at]) if slope[at] < 0 else None
        tenth = float(lr[minimum]) / 10 if minimum > 0 else None
    return Curve(seed, lr, loss, losses[:end], steepest, tenth)


def rates_tested(sweep: Sweep, store: Store, trials: Sequence[Trial]) -> tuple[Evidence, ...]:
    """What the records say of each learning rate, over the trials given."""
    counts: dict[float, list[int]] = {}
    for trial, record in store.each(trials):
        if record is not None and record.measured is not None:
            counted = counts.setdefault(trial.recipe.lr, [0, 0])
            counted[0] += record.measured.outcome == "failed"
            counted[1] += 1
    return tuple(Evidence(lr, *counts[lr]) for lr in sorted(counts))


def failing_near(tested: Sequence[Evidence], suggestions: Sequence[float]) -> tuple[Evidence, ...]:
    """The tested rates with failed runs that tell of a suggestion: next to it, or below its highest."""
    if not suggestions:
        return ()
    highest, lowest = max(suggestions), min(suggestions)
    return tuple(rate for rate in tested if rate.failed and lowest / NEAR <= rate.lr <= highest * NEAR)


_EDGE = 1.1  # times the lowest rate: a suggestion below it is where the test began, not what it found


def words(test: RangeTest) -> tuple[str, ...]:
    """What the range test suggests, and the warning where runs failed there."""
    sentences = []
    for rule, name in (("steepest", "where the loss falls fastest"), ("tenth", "a tenth of where it is lowest")):
        rates = test.suggested(rule)
        if rates is None:
            sentences.append(f"{name.capitalize()}: not known, the loss did not fall.")
            continue
        middle, low, high = rates
        n = sum(getattr(curve, rule) is not None for curve in test.curves)
        sentences.append(
            f"{name.capitalize()}: {show(_three(middle))} (geometric mean of {n} {'seed' if n == 1 else 'seeds'}, "
            f"{show(_three(low))} to {show(_three(high))})."
        )
        if rule == "steepest" and low <= _EDGE * min(float(curve.lr[0]) for curve in test.curves if len(curve.lr)):
            sentences.append("That lies at the low end of the range: test from a lower rate, or over more epochs.")
    if test.evidence:
        runs = "; ".join(f"{rate.failed} of {rate.finished} failed at lr {show(rate.lr)}" for rate in test.evidence)
        sentences.append(
            f"Warning: finished runs of this sweep failed near there: {runs}. "
            "A range test sees the first steps alone, not whether a run holds to its end; take a lower rate or warm up."
        )
    elif test.tested:
        sentences.append("No finished run of this sweep near these rates failed.")
    else:
        sentences.append("No run of this sweep is finished, so that nothing is known of failing at these rates.")
    return tuple(sentences)


def _three(value: float) -> float:
    return float(f"{value:.3g}")


def save(test: RangeTest, sweep: Sweep, folder: Path) -> dict[str, object]:
    """Write lr_find.json, curves.csv and the picture into a folder; what `--json` prints."""
    from harness.report.figures import search, style

    folder.mkdir(parents=True, exist_ok=True)
    suggestions = [
        {"seed": curve.seed, "steepest": curve.steepest, "tenth": curve.tenth, "steps": len(curve.lr)}
        for curve in test.curves
    ]
    tested = [
        {"lr": rate.lr, "failed": rate.failed, "finished": rate.finished, "warns": rate in test.evidence}
        for rate in test.tested
    ]
    summary: dict[str, object] = {"sweep": sweep.name, "profile": sweep.profile, "stand_in": sweep.stand_in}
    for rule in ("steepest", "tenth"):
        rates = test.suggested(rule)
        summary[rule] = None if rates is None else dict(zip(("suggested", "low", "high"), rates, strict=True))
    summary |= {"seeds": suggestions, "tested": tested, "warning": bool(test.evidence), "said": list(words(test))}
    table = pd.concat(
        [
            pd.DataFrame({"seed": curve.seed, "lr": curve.lr, "smoothed_loss": curve.loss, "loss": curve.raw})
            for curve in test.curves
        ]
    )
    write_text(folder / "curves.csv", csv(table, "%.10g"))
    write_json(folder / "lr_find.json", summary)
    lines = [(curve.seed, curve.lr, curve.loss, curve.raw) for curve in test.curves]
    marks = {rule: rates for rule in ("steepest", "tenth") if (rates := test.suggested(rule)) is not None}
    runs = [(rate.lr, rate.failed, rate.finished) for rate in test.tested]
    figure = search.lr_range(sweep.title, sweep.stand_in, lines, marks, runs)
    style.save(figure, folder, "lr_find")
    return summary
