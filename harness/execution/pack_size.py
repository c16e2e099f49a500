"""How many lanes a pack holds: by memory, and by measuring where that pays."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from typing import Any

import harness
from harness.common import hub
from harness.common.files import user_cache, write
from harness.config.trials import Trial
from harness.execution import lanes_memory
from harness.execution.train_pack import WorkerSetup, device_name, lacks_memory

# Seconds of training from which on the fastest pack size is measured, and what a doubling must win to go on.
_MEASURING_PAYS, _FASTER = 300.0, 0.97


def worker_memory_budget(device: str, sharing: int = 1) -> int:
    """Bytes that the lanes of one of `sharing` workers may fill: on a GPU, of what is free there now."""
    if not device.startswith("cuda"):
        return lanes_memory.memory_budget(device)
    import torch

    free, total = torch.cuda.mem_get_info(device)
    return int(0.8 * min(free, total / sharing))


def lanes(trial: Trial, setup: WorkerSetup, usual: int, most: int, epochs: float) -> int:
    """How many lanes of a trial's shape train fastest here: a power of two, measured once and kept in the user's cache.

    Args:
        trial: A trial of that shape.
        setup: The worker's device, threads and the like.
        usual: What is given where measuring doesn't pay, with less than some minutes to train.
        most: The largest number that fits the memory.
        epochs: How much a worker has to train, in epochs of one lane.
    """
    from harness.training.numerics import versions
    from harness.training.prepare import load_network, load_task
    from harness.training.probes import seconds_per_lane_step

    hub.trust_remote_code(setup.trusts_remote_code)
    recipe = trial.recipe
    task = load_task(recipe.task, recipe.model, recipe.max_length)
    rows = recipe.batch_size * recipe.forward_passes
    padding = (recipe.padding, recipe.pad_to_multiple_of)
    recomputed = ("recomputed",) * recipe.activation_checkpointing
    step = (rows, recipe.gradient_accumulation, *padding, recipe.precision, recipe.optimizer, *recomputed)
    shape = (*step, *task.train.input_ids.shape[1:], recipe.peft_config)
    config: Any = load_network(recipe, task).module.config
    device = (device_name(setup.device), setup.threads, harness.__version__, versions())
    key = json.dumps([device, shape, config.to_json_string()])
    path = user_cache() / f"lanes-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        return min(most, int(json.loads(path.read_text())["lanes"]))
    best, steps = seconds_per_lane_step(trial, 1, setup.device, setup.threads)
    if best * steps * epochs < _MEASURING_PAYS:
        return usual
    count, times = 1, {1: best}
    while 2 * count <= most:
        try:
            times[2 * count], _ = seconds_per_lane_step(trial, 2 * count, setup.device, setup.threads)
        except RuntimeError as error:
            if not lacks_memory(error):
                raise
            break
        if times[2 * count] > _FASTER * best:
            break
        count *= 2
        best = times[count]
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, json.dumps({"lanes": count, "seconds_a_lane_step": times, "measured": json.loads(key)}).encode())
    return count
