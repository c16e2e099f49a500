"""How long a sweep would take, guessed before anything ran."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from harness.config.recipe import Recipe, TaskSpec
from harness.config.trials import Sweep, Trial, expand
from harness.data import tasks
from harness.data.examples import Raw, Rows
from harness.data.glue import EMBEDDED
from harness.execution.lanes_memory import lane_bytes
from harness.execution.machine import detect_hardware
from harness.execution.model_shape import TOKEN_BYTES, model_shape, parameter_count, trained_count
from harness.records.record import Record

# ------------------------------------------------------------------------------------------------------- estimates


@dataclass(frozen=True)
class DurationEstimate:
    """What training the missing trials would take; None where not known.

    `seconds` is given where it is known within a factor of two, else `between`, the least and the most that it may be.
    """

    seconds: float | None
    basis: str
    memory: int | None  # bytes a lane
    parameters: int | None
    between: tuple[float, float] | None = None  # seconds


def estimate(sweep: Sweep, records: Mapping[str, Record], workers: int, speed: float | None = None) -> DurationEstimate:
    """Time from the finished trials of the same folder, else roughly from the arithmetic; memory a lane.

    `records` are those of the folder, by trial id (`Store.records`). With a `speed` (operations a second of a
    worker) it is for another machine, of which the finished trials tell nothing.
    """
    trials = expand(sweep)
    if sweep.is_script:
        return _of_scripts(trials, records, workers)
    parameters = parameter_count(sweep.cells[0].recipe.model)
    memory = max(lane_bytes(cell.recipe, trained_count(cell.recipe)) or 0 for cell in sweep.cells) or None
    per_pass: dict[tuple[object, ...], list[float]] = defaultdict(list)
    left = []
    for trial, record in ((trial, records.get(trial.id)) for trial in trials):
        if record is None:
            left.append(trial)
        elif record.measured and speed is None:
            per_pass[_work(trial)].append(record.measured.lane_seconds / trial.recipe.passes)
    if not left:
        return DurationEstimate(0.0, "nothing is missing", memory, parameters)
    means = {work: float(np.mean(values)) for work, values in per_pass.items()}
    known = sum(means[_work(trial)] * trial.recipe.passes for trial in left if _work(trial) in means)
    unseen = [trial.recipe for trial in left if _work(trial) not in means]
    if not unseen:
        return DurationEstimate(known / workers, "from the finished trials", memory, parameters)
    recipes = dict.fromkeys(cell.recipe for cell in sweep.cells)
    for task in dict.fromkeys(recipe.task for recipe in recipes):  # what doesn't fit its data is said
        tasks.sizes(task, [recipe for recipe in recipes if recipe.task == task])
    guesses = {recipe: guessed_seconds(recipe, speed) for recipe in dict.fromkeys(unseen)}
    bounds = [guess for recipe in unseen if (guess := guesses[recipe]) is not None]
    if len(bounds) < len(unseen):
        return DurationEstimate(None, "the size of the model or data is not known here", memory, parameters)
    low = (known + sum(least for least, _ in bounds)) / workers
    high = (known + sum(most for _, most in bounds)) / workers
    if high <= 4 * low:
        return DurationEstimate((low * high) ** 0.5, "from the finished trials, in part a guess", memory, parameters)
    basis = "a rough guess from the sizes of model and data; the sweep gives a closer estimate once it trains"
    return DurationEstimate(None, basis, memory, parameters, (low, high))


def _of_scripts(trials: tuple[Trial, ...], records: Mapping[str, Record], workers: int) -> DurationEstimate:
    """By the finished runs: of the same cell where there are any."""
    by_cell: dict[int, list[float]] = defaultdict(list)
    for trial in trials:
        record = records.get(trial.id)
        if record is not None and record.measured is not None:
            by_cell[trial.cell].append(record.measured.wall_seconds)
    left = [trial.cell for trial in trials if trial.id not in records]
    if not left:
        return DurationEstimate(0.0, "nothing is missing", None, None)
    if not by_cell:
        return DurationEstimate(None, "no run of the script has finished yet", None, None)
    every = float(np.mean([seconds for of_cell in by_cell.values() for seconds in of_cell]))
    seconds = sum(float(np.mean(by_cell[cell])) if cell in by_cell else every for cell in left)
    return DurationEstimate(seconds / workers, "from the finished trials", None, None)


# Floating-point operations a second that small batches reach on a core and on a GPU; measured times lay within a factor
# of three of what follows from them.
CORE_SPEED, GPU_SPEED, _GUESS = 30e9, 15e12, 3.0


_SHORTEST = 1 / 8  # of max_length, that texts may be long which aren't known here


def guessed_seconds(recipe: Recipe, speed: float | None = None) -> tuple[float, float] | None:
    """The least and the most seconds of a lane that a trial may take, from its arithmetic; None where that isn't known.

    6 operations a weight and token for forward and backward, 2 to evaluate (Kaplan et al. 2020, 2.1); words that are
    looked up cost none. Raises HarnessError for data that can't be read.
    """
    shape, data = model_shape(recipe.model), _sequences(recipe.task, recipe.max_length)
    if shape is None or data is None:
        return None
    examples, evaluated, lengths = data
    if lengths is None:
        widths = (_SHORTEST * recipe.max_length, float(recipe.max_length))
    else:  # padded to the longest of a batch, or of all
        of = min(recipe.max_length, 1.3 * lengths[0] if recipe.padding == "batch" else lengths[1])
        widths = (of, of)
    speed = speed or (GPU_SPEED if detect_hardware().gpus else CORE_SPEED)
    operations = 6 * shape.layers * shape.layer_weights * (examples + evaluated / 3) * recipe.passes
    least, most = (operations * width / speed for width in widths)
    return least / _GUESS, most * _GUESS


@lru_cache(maxsize=64)
def example_counts(task: TaskSpec) -> tuple[int, int] | None:
    """How many training and dev examples a task has; None where only the data could tell. Raises as `tasks.sizes`."""
    return tasks.sizes(task)


@lru_cache(maxsize=64)
def _sequences(task: TaskSpec, max_length: int) -> tuple[int, int, tuple[float, float] | None] | None:
    """How many sequences are read in training and on the dev split, and how many tokens the training ones have, on
    average and at most; None where that isn't known here.

    A text with each of its choices is one, and so is each window of a long context.
    """
    if task.name != EMBEDDED and task.files is None:
        sizes = tasks.sizes(task)
        return None if sizes is None else (*sizes, None)
    raw = tasks.load(task)
    train, dev = (_token_counts(raw, rows, max_length) for rows in (raw.train, raw.validation))
    return len(train), len(dev), (float(np.mean(train)), max(train))


def _token_counts(raw: Raw, rows: Rows, max_length: int) -> list[float]:
    """About how many tokens each sequence of a split has."""
    pairs = rows.pairs or [""] * len(rows.texts)
    if raw.kind == "span":
        stride = max_length // 3 if raw.stride is None else raw.stride
        return [size for text, pair in zip(rows.texts, pairs, strict=True)
                for size in _window_sizes(_tokens(text) + 1, _tokens(pair), max_length, stride)]  # fmt: skip
    together = [text + pair for text, pair in zip(rows.texts, pairs, strict=True)]
    if raw.kind == "choice" and rows.choices is not None:
        together = [text + choice for text, own in zip(rows.texts, rows.choices, strict=True) for choice in own]
    return [2 + _tokens(text) for text in together]


def _tokens(text: str) -> float:
    return len(text.encode()) / TOKEN_BYTES


def _window_sizes(beside: float, context: float, max_length: int, stride: int) -> list[float]:
    """The tokens of the windows of a context, `beside` which stand a question and the special tokens."""
    beside += 2
    if beside + context <= max_length:
        return [beside + context]
    step = max(1.0, max_length - beside - stride)  # the tokens that a further window adds
    count = 1 + math.ceil((context - (max_length - beside)) / step)
    return [float(max_length)] * count


def _work(trial: Trial) -> tuple[object, ...]:
    r = trial.recipe
    return r.task.name, r.model.name, r.max_length, r.padding, r.pad_to_multiple_of, r.batch_size, r.precision
