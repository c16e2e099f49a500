"""This machine: which profile it can run, how many lanes fit, and how long a sweep would take; without torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from harness import hub, tasks
from harness.glue import EMBEDDED
from harness.records import Record
from harness.sweep import HarnessError, ModelSpec, Recipe, Sweep, TaskSpec, Trial, expand, load, profiles


@dataclass(frozen=True)
class Machine:
    """What there is to train on; memory in bytes."""

    cores: int
    memory: int
    gpus: tuple[tuple[str, int], ...]  # (name, memory)


@lru_cache(maxsize=1)
def here() -> Machine:
    """This machine, found without importing torch."""
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    gpus = []
    if shutil.which("nvidia-smi") and os.environ.get("CUDA_VISIBLE_DEVICES") != "":
        query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
        asked = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
        for line in asked.stdout.splitlines() if asked.returncode == 0 else ():
            name, _, mebibytes = line.rpartition(", ")
            gpus.append((name, int(mebibytes) * 2**20))
    return Machine(cores, memory, tuple(gpus))


def choose_profile(path: Path, asked: str | None) -> tuple[str, str]:
    """The profile to run and the reason: the one asked for, else the first (largest) that this machine can run."""
    found = profiles(path)
    if asked is not None or len(found) == 1:
        return asked or found[0].name, "asked for" if asked else "the only one"
    why = []
    for profile in found:
        gib = max((memory for _, memory in here().gpus), default=0) / 2**30
        if gib < profile.min_gpu_gib:
            has = f"the largest has {gib:.0f}" if gib else "this machine has none"
            why.append(f"{profile.name} needs a GPU of {profile.min_gpu_gib:g} GiB and {has}")
            continue
        try:
            hub.check_model(profile.model)
            tasks.check(profile.task)
        except HarnessError as error:
            why.append(f"{profile.name}: {error.rule}: {error.got}")
            continue
        return profile.name, "; ".join(why) or "the largest this machine can run"
    raise HarnessError(
        "one of the profiles can run here",
        got="; ".join(why),
        allowed=", ".join(p.name for p in found),
        fix="name one with --profile to see what it lacks",
    )


def resolve(path: Path, profile: str | None, overrides: Sequence[str]) -> tuple[Sweep, str]:
    """The sweep of a file under the profile asked for or chosen, and why that one."""
    name, reason = choose_profile(path, profile)
    return load(path, name, overrides), reason


# ------------------------------------------------------------------------------------------------------- estimates


@dataclass(frozen=True)
class Estimate:
    """What training the missing trials would take; None where not known.

    `seconds` is given where it is known within a factor of two, else `between`, the least and the most that it may be.
    """

    seconds: float | None
    basis: str
    memory: int | None  # bytes a lane
    parameters: int | None
    between: tuple[float, float] | None = None  # seconds


def estimate(sweep: Sweep, records: Mapping[str, Record], workers: int) -> Estimate:
    """Time from the finished trials of the same folder, else roughly from the arithmetic; memory a lane.

    `records` are those of the folder, by trial id (`Store.records`).
    """
    trials = expand(sweep)
    parameters = parameter_count(sweep.cells[0].recipe.model)
    memory = max(lane_bytes(cell.recipe, trained_count(cell.recipe)) or 0 for cell in sweep.cells) or None
    per_pass: dict[tuple[object, ...], list[float]] = defaultdict(list)
    left = []
    for trial, record in ((trial, records.get(trial.id)) for trial in trials):
        if record is None:
            left.append(trial)
        elif record.measured:
            per_pass[_work(trial)].append(record.measured.lane_seconds / trial.recipe.passes)
    if not left:
        return Estimate(0.0, "nothing is missing", memory, parameters)
    means = {work: float(np.mean(values)) for work, values in per_pass.items()}
    known = sum(means[_work(trial)] * trial.recipe.passes for trial in left if _work(trial) in means)
    unseen = [trial.recipe for trial in left if _work(trial) not in means]
    if not unseen:
        return Estimate(known / workers, "from the finished trials", memory, parameters)
    recipes = dict.fromkeys(cell.recipe for cell in sweep.cells)
    for task in dict.fromkeys(one.task for one in recipes):  # what doesn't fit its data is said
        tasks.sizes(task, [one for one in recipes if one.task == task])
    guesses = {recipe: guessed_seconds(recipe) for recipe in dict.fromkeys(unseen)}
    bounds = [guess for recipe in unseen if (guess := guesses[recipe]) is not None]
    if len(bounds) < len(unseen):
        return Estimate(None, "the size of the model or data is not known here", memory, parameters)
    low = (known + sum(least for least, _ in bounds)) / workers
    high = (known + sum(most for _, most in bounds)) / workers
    if high <= 4 * low:
        return Estimate((low * high) ** 0.5, "from the finished trials, in part a guess", memory, parameters)
    basis = "a rough guess from the sizes of model and data; the sweep says it closer once it trains"
    return Estimate(None, basis, memory, parameters, (low, high))


# Floating-point operations a second that small batches reach on a core and on a GPU; measured times lay within a factor
# of three of what follows from them.
_CORE_SPEED, _GPU_SPEED, _GUESS = 30e9, 15e12, 3.0
_TOKEN_BYTES = 4.5  # of text, English or Japanese, in a tokenizer's vocabulary of some ten thousands
_SHORTEST = 1 / 8  # of max_length, that texts may be long which aren't known here


def guessed_seconds(recipe: Recipe) -> tuple[float, float] | None:
    """The least and the most seconds of a lane that a trial may take, from its arithmetic; None where that isn't known.

    6 operations a weight and token for forward and backward, 2 to evaluate (Kaplan et al. 2020, 2.1); words that are
    looked up cost none. Raises HarnessError for data that can't be read.
    """
    shape, data = _model_shape(recipe.model), _texts(recipe.task)
    if shape is None or data is None:
        return None
    layers, hidden, inner, _, _ = shape
    examples, evaluated, lengths = data
    if lengths is None:
        widths = (_SHORTEST * recipe.max_length, float(recipe.max_length))
    else:  # padded to the longest of a batch, or of all
        of = min(recipe.max_length, 1.3 * lengths[0] if recipe.padding == "batch" else lengths[1])
        widths = (of, of)
    weights = layers * _layer_weights(hidden, inner)
    operations = 6 * weights * (examples + evaluated / 3) * recipe.passes
    least, most = (operations * width / (_GPU_SPEED if here().gpus else _CORE_SPEED) for width in widths)
    return least / _GUESS, most * _GUESS


@lru_cache(maxsize=64)
def example_counts(task: TaskSpec) -> tuple[int, int] | None:
    """How many training and dev examples a task has; None where only the data could tell. Raises as `tasks.sizes`."""
    return tasks.sizes(task)


@lru_cache(maxsize=64)
def _texts(task: TaskSpec) -> tuple[int, int, tuple[float, float] | None] | None:
    """How many training and dev texts there are, and how many tokens they have, on average and at most; None where that
    isn't known here.
    """
    if task.name != EMBEDDED and task.files is None:
        sizes = tasks.sizes(task)
        return None if sizes is None else (*sizes, None)
    raw = tasks.load(task)
    rows = raw.train
    pairs = rows.pairs or [""] * len(rows.texts)
    tokens = [2 + len((text + pair).encode()) / _TOKEN_BYTES for text, pair in zip(rows.texts, pairs, strict=True)]
    return len(rows.texts), len(raw.validation.texts), (float(np.mean(tokens)), max(tokens))


def _work(trial: Trial) -> tuple[object, ...]:
    r = trial.recipe
    return r.task.name, r.model.name, r.max_length, r.padding, r.pad_to_multiple_of, r.batch_size, r.precision


# (layers, hidden, intermediate, vocabulary, positions): the paper's models, for a plan made without them at hand.
_SHAPES = {
    "bert-large-uncased": (24, 1024, 4096, 30522, 512),
    "bert-base-uncased": (12, 768, 3072, 30522, 512),
    "roberta-large": (24, 1024, 4096, 50265, 514),
}


_GPT2 = {"n_layer": "num_hidden_layers", "n_embd": "hidden_size", "n_positions": "max_position_embeddings"}


@lru_cache(maxsize=64)
def _config(spec: ModelSpec) -> dict[str, Any]:
    """What the model's own folder says of it; nothing where that can't be read."""
    try:
        found = json.loads((Path(hub.location(spec)) / "config.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@lru_cache(maxsize=64)
def _model_shape(spec: ModelSpec) -> tuple[int, int, int, int, int] | None:
    found = dict(_config(spec))
    try:
        if found.get("model_type") == "gpt2":  # has names of its own
            found |= {name: found[short] for short, name in _GPT2.items()}
            found["intermediate_size"] = found.get("n_inner") or 4 * found["n_embd"]
        keys = "num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size", "max_position_embeddings"
        layers, hidden, inner, words, positions = (int(found[key]) for key in keys)
    except (ValueError, KeyError, TypeError):
        return _SHAPES.get(spec.name.rpartition("/")[2])
    return layers, hidden, inner, words, positions


def family(spec: ModelSpec) -> str | None:
    """What kind of network it is, as `deberta-v2`; None where that isn't known here."""
    return _config(spec).get("model_type")


def layers(spec: ModelSpec) -> int | None:
    """How many layers the encoder has; None where that isn't known here."""
    shape = _model_shape(spec)
    return shape[0] if shape else None


def parameter_count(spec: ModelSpec) -> int | None:
    """About how many parameters the encoder has, from its shape; None where that isn't known here."""
    shape = _model_shape(spec)
    if shape is None:
        return None
    layers, hidden, inner, words, positions = shape
    return layers * _layer_weights(hidden, inner) + (words + positions + hidden) * hidden


def _layer_weights(hidden: int, inner: int) -> int:
    return 4 * hidden * hidden + 2 * hidden * inner + 13 * hidden


def trained_count(recipe: Recipe) -> int | None:
    """About how many parameters a lane trains, the head apart, from the model's shape and the method."""
    shape, everything = _model_shape(recipe.model), parameter_count(recipe.model)
    if shape is None or everything is None:
        return None
    layers, hidden, inner, _, _ = shape
    layer = _layer_weights(hidden, inner)
    targets = 2 if recipe.lora_targets is None else recipe.lora_targets.count(",") + 1
    match recipe.method:
        case "full":
            return everything
        case "head":
            return 0
        case "top_layers":
            return min(layers, recipe.top_layers or layers) * layer
        case "lora":  # a map of hidden × hidden values; one of the feed-forward's is up to 2.5 times that
            return layers * targets * recipe.lora_rank * 2 * hidden
        case "prefix":
            return layers * 2 * recipe.virtual_tokens * hidden
        case "prompt":
            return recipe.virtual_tokens * hidden
        case "ia3":
            return layers * (2 * hidden + inner)
        case "adapter":
            return layers * 2 * ((2 * recipe.adapter_size + 3) * hidden + recipe.adapter_size)
        case "bitfit":
            return layers * (8 * hidden + inner)


def lane_bytes(recipe: Recipe, parameters: int | None) -> int | None:
    """Memory a lane takes: what backward keeps, and of each of so many trained parameters weight, gradient, two moments
    and a spare, in float32.
    """
    shape = _model_shape(recipe.model)
    if shape is None or parameters is None:
        return None
    layers, hidden, inner, _, _ = shape
    if recipe.method in ("head", "top_layers"):  # nothing is kept of the layers below
        layers = min(layers, recipe.top_layers or 1)
    width = recipe.max_length + (recipe.virtual_tokens if recipe.method == "prompt" else 0)
    tokens = recipe.batch_size * recipe.forward_passes * width
    heads = max(1, hidden // 64)
    keys = width + (recipe.virtual_tokens if recipe.method == "prefix" else 0)
    # Kept for backward in a layer: about 16 values of the hidden width and 3 of the inner a token, and 3 maps of
    # attention a head.
    kept = layers * tokens * (16 * hidden + 3 * inner + 3 * heads * keys)
    # Mixed weights and their factors; an average and its copy to evaluate; the best so far.
    copies = 2 * (recipe.mixout > 0) + 2 * (recipe.averaging != "none") + recipe.chooses
    in_float32 = 4 * ((5 + copies) * parameters + kept)
    # Half of what is kept takes two bytes then, and the weights stand there once more in two.
    return in_float32 - kept + 2 * parameters if recipe.precision == "bf16" else in_float32


def room(device: str) -> int:
    """Bytes that one worker's lanes may fill on this machine: a core's share of half the memory, or most of a GPU."""
    if device == "cpu":
        return here().memory // (2 * here().cores)
    smallest = min((memory for _, memory in here().gpus), default=16 * 2**30)
    return int(0.8 * smallest)


def pack_size(recipe: Recipe, device: str, asked: int | None, memory: int | None = None) -> int:
    """How many lanes train together: what was asked for, else what fits and pays on that kind of device.

    `memory` is what the lanes may fill, in bytes: this machine's `room` where none is given.
    """
    if asked is not None:
        return asked
    parameters = parameter_count(recipe.model)
    if parameters is None:
        return 1
    # On a CPU small matrices gain from packs; from a few million parameters on a core is busy with one lane.
    usual = 16 if device != "cpu" else 8 if parameters < 5_000_000 else 1
    return min(usual, most_lanes(recipe, device, memory))


_MOST_LANES = 32  # from 16 on a lane-step hardly gets faster, and a pack that is lost costs more


def most_lanes(recipe: Recipe, device: str, memory: int | None = None) -> int:
    """How many lanes fit beside what they share, as `pack_size`; 1 where the model's shape isn't known."""
    everything = parameter_count(recipe.model)
    lane = lane_bytes(recipe, trained_count(recipe))
    if lane is None or everything is None:
        return 1
    frozen = 0 if recipe.method == "full" else 4 * everything  # once, whatever the lanes
    left = (room(device) if memory is None else memory) - frozen
    return max(1, min(_MOST_LANES, left // lane))
