"""Whether a record is what its recipe makes: steps, rates, evaluations, times; and its arrays beside each other.

Each fact stands twice in a record, or follows from the recipe, so that an edit of one of them shows. What stands once
(a seed's luck, the loss of a step) can't be told from an edit without training again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache

import numpy as np

from harness.common import metrics
from harness.config.recipe import Recipe, TaskSpec
from harness.config.schedules import factor
from harness.data import glue, tasks
from harness.execution.verification.times import CLOCKS_APART, utc
from harness.records.reading import Problem
from harness.records.record import Curves, Environment, Measured, Record, Recording

EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # of no bytes at all
HASHES = tuple(name for name in Measured.model_fields if name.endswith("_sha256"))
_FIRST_UTC = datetime(2018, 10, 11, tzinfo=UTC)  # BERT's own: nobody fine-tuned it before
_MOST_STEPS = 300_000  # whose rates and evaluations are computed again: a record may claim any number
_ROUNDING = 1e-4  # of losses and norms in float32, summed in another order
_FRESH = (0.5, 1.5)  # a fresh head's first loss: at least this share of ln C, at most so much more
_Z95 = 1.645  # as `training.outcome`: more than luck above the majority, one-sided


def check_facts(record: Record) -> Iterator[Problem]:
    """Times that can be, and hashes that are some; of every record."""
    began = utc(record.started_utc)
    if began is None or not _FIRST_UTC < began < datetime.now(UTC) + CLOCKS_APART:
        yield "times", f"it began at {record.started_utc!r}"
    measured, environment = record.measured, record.environment
    if measured is None:
        return
    latest = (datetime.now(UTC) + CLOCKS_APART).timestamp()
    if began is not None and began.timestamp() + measured.wall_seconds > latest:  # which no datetime may hold
        yield "times", f"it began at {record.started_utc!r} and took {measured.wall_seconds:g} s, which are not over"
    for name in HASHES:
        value = getattr(measured, name)
        if value is not None and (not value.strip("0") or value == EMPTY_SHA256):
            yield "record", f"{name} is that of nothing"
    if environment is not None and record.script is None:
        share = measured.wall_seconds / environment.pack_size
        if not math.isclose(measured.lane_seconds, share, rel_tol=1e-6, abs_tol=1e-9):
            shown = f"{measured.wall_seconds:g} s of {environment.pack_size} lanes"
            yield "times", f"lane_seconds is {measured.lane_seconds:g}, for {shown}"
        if measured.steps and measured.wall_seconds < 1e-6 * measured.steps:
            yield "times", f"{measured.steps} steps in {measured.wall_seconds:g} s"
    if (measured.trained_parameters or 0) > (measured.parameters or math.inf):
        yield "record", f"{measured.trained_parameters} of {measured.parameters} parameters were trained"


def check_belonging(measured: Measured, recipe: Recipe, environment: Environment | None) -> Iterator[Problem]:
    """What is measured of other kinds of tasks and recipes alone, or on other devices.

    A record that tells what an untouched language model scores is judged by that, so one of another kind must not.
    """
    metric, kind = measured.metric, recipe.task.kind
    built_in = ":" not in metric
    lacking: dict[str, tuple[bool, str]] = {
        "untouched_score": (kind != "completion", "no language model answers"),
        "untouched_loss": (kind != "completion", "no language model answers"),
        "label_threshold": (kind != "labels", "a text has one label"),
        "label_variance": (built_in and not metrics.is_regression(metric), f"{metric} is of no regression"),
        "metric_sha256": (built_in, f"{metric} stands in no file"),
        "augmentation_sha256": (len(recipe.specs) == 2, "nothing changes the training texts"),
    }
    for name, (absent, why) in lacking.items():
        if absent and (value := getattr(measured, name)) is not None:
            yield "recipe", f"{name} is {value}, and {why}"
    on_cpu = environment is not None and environment.device.startswith("cpu")
    if on_cpu and "graph" in (measured.step_mode or ""):
        yield "recipe", f"step_mode is {measured.step_mode}, on a CPU"


# ---------------------------------------------------------------------------------------------------------- the recipe


def epoch_updates(measured: Measured, recipe: Recipe) -> int | None:
    """Updates of an epoch by the size of the training set; None where they depend on its labels."""
    if recipe.oversample or measured.train_examples is None:
        return None
    return math.ceil(measured.train_examples * (1 + recipe.copies) / recipe.batch_size)


def check_recipe(measured: Measured, curves: Curves | None, recipe: Recipe) -> Iterator[Problem]:
    """Steps, rates and evaluations against the recipe and the size of the data."""
    epoch = epoch_updates(measured, recipe)
    total = recipe.max_steps or (None if epoch is None else epoch * recipe.epochs)
    if measured.stopped_step is not None:
        if recipe.early_stopping_patience is None:
            yield "recipe", f"stopped after step {measured.stopped_step}, by a recipe that never stops early"
        elif measured.stopped_step != measured.steps:
            yield "recipe", f"stopped after step {measured.stopped_step}, with {measured.steps} steps"
    elif total is not None and measured.steps != total:
        of_data = f"{measured.train_examples} examples in batches of {recipe.batch_size}, {recipe.epochs} epochs"
        yield "recipe", f"{measured.steps} steps, where {recipe.max_steps or of_data} make {total}"
    if total is not None and (measured.steps or 0) > total:
        yield "recipe", f"{measured.steps} steps of a training of {total}"
        return
    if measured.kept_step is not None and not recipe.keep_best:
        yield "recipe", f"the weights of step {measured.kept_step}, by a recipe that keeps the last"
    if curves is None or total is None:
        return
    yield from _check_rates(curves, recipe, total)
    if epoch is not None and len(curves.lr) <= _MOST_STEPS:
        due = _evaluations(recipe.eval_steps, recipe.eval_every, recipe, epoch, total, measured.steps or 0)
        if not np.array_equal(due, curves.eval_step):
            yield "recipe", f"evaluated after {_few(curves.eval_step)}, where the recipe says {_few(due)}"


def _few(steps: np.ndarray) -> str:
    shown = ", ".join(map(str, steps[:4].tolist()))
    return f"{shown}, … ({len(steps)} in all)" if len(steps) > 4 else shown or "none"


def _check_rates(curves: Curves, recipe: Recipe, total: int) -> Iterator[Problem]:
    key = (recipe.lr, recipe.schedule, recipe.warmup_ratio, recipe.schedule_power, recipe.schedule_end)
    expected = _rates(key, recipe, total, len(curves.lr))
    if np.array_equal(curves.lr, expected):
        return
    apart = np.flatnonzero(~np.isclose(curves.lr[: len(expected)], expected, rtol=1e-9, atol=0))
    if apart.size:
        at = int(apart[0])
        yield (
            "recipe",
            f"the learning rate of step {at + 1} is {curves.lr[at]:g}, where the recipe's is {expected[at]:g}"
            + (f" (and of {apart.size - 1} more steps)" if apart.size > 1 else ""),
        )


_KEPT: dict[object, np.ndarray] = {}


def _rates(key: object, recipe: Recipe, total: int, steps: int) -> np.ndarray:
    """The learning rates of the first steps of a training [S]; those of one recipe are computed once."""
    whole = (key, total, steps)
    if whole not in _KEPT:
        if len(_KEPT) >= 32:
            _KEPT.clear()
        _KEPT[whole] = np.array([recipe.lr * factor(step, total, recipe) for step in range(min(steps, _MOST_STEPS))])
    return _KEPT[whole]


def _evaluations(
    steps: int | None, share: float | None, recipe: Recipe, epoch: int, total: int, made: int
) -> np.ndarray:
    """The updates after which a training of which so many were made is evaluated [E]."""
    key = ("evaluations", steps, share, epoch, total, made)
    if key not in _KEPT:
        if len(_KEPT) >= 32:
            _KEPT.clear()
        due = [step for step in range(1, min(made, total) + 1) if tasks.due(recipe, step, epoch, total)]
        _KEPT[key] = np.array(due, dtype=np.int64)
    return _KEPT[key]


# ---------------------------------------------------------------------------------------------------------- the arrays


def check_within(measured: Measured, curves: Curves, recipe: Recipe) -> Iterator[Problem]:
    """What stands twice in a record and its arrays: losses, predictions, gradient norms, why a run failed."""
    at = _result(measured, curves)
    chooses = recipe.task.kind == "completion" and measured.metric not in metrics.LANGUAGE
    loss = None if chooses else _loss(measured.metric, curves.logits, curves.labels)
    recorded = measured.final_dev_loss
    if loss is not None and recorded is not None and not math.isclose(loss, recorded, rel_tol=_ROUNDING, abs_tol=1e-5):
        yield "score", f"final_dev_loss is {recorded:.6g}, logits and labels give {loss:.6g}"
    classes = curves.logits.shape[1]
    entropy = measured.label_entropy if measured.metric in metrics.CLASSIFICATION else None
    if entropy is not None and entropy > math.log(max(2, classes)) + 1e-9:
        yield "score", f"label_entropy is {entropy:.6g}, more than that of {classes} equal classes"
    names = measured.label_names
    if names is not None and recipe.task.kind == "texts" and len(names) != classes:
        yield "record", f"it names {len(names)} classes, and the logits are of {classes}"
    if measured.metric == "accuracy" and measured.untouched_score is None and at is not None:
        yield from _check_collapse(measured, curves, at)
    recording = curves.recording
    if recording is None:
        return
    if at is not None and classes > 1 and measured.metric not in metrics.WITHOUT_CLASSES:
        yield from _check_predictions(recording, curves, at)
    if not recipe.freeze_steps and recipe.unfreeze_every is None:
        yield from _check_norms(recording, curves)


def _result(measured: Measured, curves: Curves) -> int | None:
    """Which evaluation the result is of, from 0; None for one that there is not."""
    if measured.kept_step is None:
        return len(curves.eval_step) - 1
    places = np.flatnonzero(curves.eval_step == measured.kept_step)
    return int(places[0]) if places.size else None


def _loss(metric: str, logits: np.ndarray, labels: np.ndarray) -> float | None:
    """The mean cross-entropy of logits [N, C], nats, or of a regression the mean squared error; None: not finite."""
    values = logits.astype(np.float64)
    if not len(values) or not np.isfinite(values).all():
        return None
    if metric in metrics.LANGUAGE:
        return float(-values[:, 0].sum() / max(1.0, float(labels.sum())))
    if metric in metrics.SPANS:
        return float(values[:, 0].mean())
    if metric in metrics.REGRESSION:
        return float(np.mean((values[:, 0] - labels) ** 2))
    if values.shape[1] == 2:  # the same, in a third of the time
        no = 0.0 if metric in metrics.MANY_LABELS else values[:, 0]  # of these it is the threshold's
        margins = (values[:, 1] - no) * (1 - 2 * labels)
        return float(np.logaddexp(0, margins).sum()) / len(labels)
    shifted = values - values.max(axis=1, keepdims=True)
    right = shifted[np.arange(len(labels)), labels]
    return float((np.log(np.exp(shifted).sum(axis=1)) - right).mean())


def _check_collapse(measured: Measured, curves: Curves, at: int) -> Iterator[Problem]:
    """Of a failed run, whether an evaluation up to its result was above the majority by more than luck."""
    most, examples = measured.majority_correct, measured.dev_examples
    if measured.outcome != "failed" or measured.reason == "diverged" or most is None or not examples:
        return
    bar = most + _Z95 * math.sqrt(most * (examples - most) / examples)
    scores = curves.dev_score[: at + 1]
    above = bool((np.round(scores[np.isfinite(scores)] * examples) > bar).any())
    if above != (measured.reason == "collapsed"):
        told = "was above the majority before" if above else "was never above the majority"
        yield "outcome", f"failed ({measured.reason or 'no reason'}), and the run {told}"


def _check_predictions(recording: Recording, curves: Curves, at: int) -> Iterator[Problem]:
    counts = np.zeros(curves.logits.shape[1], np.int64)
    if np.isfinite(curves.logits).all():
        counts = np.bincount(curves.logits.argmax(axis=1), minlength=len(counts))
    if recording.predicted.shape[1] != len(counts) or not np.array_equal(recording.predicted[at], counts):
        shown = recording.predicted[at].tolist()[:6]
        yield "recording", f"it counts {shown} answers by class, the logits give {counts.tolist()[:6]}"


def _check_norms(recording: Recording, curves: Curves) -> Iterator[Problem]:
    """Whether the layers' gradient norms make the whole's, and the weights move no further than their updates."""
    at = recording.update.astype(np.int64) - 1
    with np.errstate(over="ignore", invalid="ignore"):
        whole = np.sqrt((recording.layer_norm.astype(np.float64) ** 2).sum(axis=1))
        norms = curves.grad_norm[at].astype(np.float64)
        far = ~np.isfinite(whole) | (np.abs(whole - norms) > 1e-3 * np.maximum(whole, norms) + 1e-12)
        apart = np.isfinite(norms) & far
    if apart.any():
        place = int(np.flatnonzero(apart)[0])
        yield (
            "recording",
            f"at update {at[place] + 1} the layers' gradients make a norm of {whole[place]:.4g}, grad_norm is "
            f"{norms[place]:.4g}",
        )


# --------------------------------------------------------------------------------------------------------------- notes


def odd_start(curves: Curves, recipe: Recipe) -> str | None:
    """Where the first loss is not that of a fresh head, which knows nothing of the labels: about ln C; else None."""
    classes = curves.logits.shape[1]
    changed = recipe.soft_targets or recipe.mixup > 0 or recipe.task.kind != "texts"
    if classes < 2 or changed or not len(curves.train_loss) or not np.isfinite(curves.train_loss[0]):
        return None
    first, chance = float(curves.train_loss[0]), math.log(classes)
    if _FRESH[0] * chance <= first <= chance + _FRESH[1]:
        return None
    return f"the first loss is {first:.3g}, where a fresh head of {classes} classes begins near {chance:.3g}"


def check_sizes(measured: Measured, recipe: Recipe) -> Iterator[Problem]:
    """Whether train and dev split have the sizes that data of that name and hash have, where they are known here."""
    spec = recipe.task
    if spec.files is not None or spec.validation is not None or spec.kind != "texts":
        return
    known: tuple[int, int] | None = None
    if spec.name == glue.EMBEDDED:
        digest, *sizes = _shipped()
        known = (sizes[0], sizes[1]) if digest == measured.data_sha256 else None
    elif spec.name in glue.GLUE:
        known = glue.GLUE[spec.name].sizes
    for name, size in zip(("train_examples", "dev_examples"), known or (), strict=False):
        if getattr(measured, name) != size:
            yield "data", f"{name} is {getattr(measured, name)}, and {spec.name} has {size}"


@lru_cache(maxsize=1)
def _shipped() -> tuple[str, int, int]:
    """The hash of the shipped data, and the sizes of their training and dev split."""
    raw = tasks.load(TaskSpec(name=glue.EMBEDDED))
    return raw.sha256, len(raw.train.texts), len(raw.validation.texts)
