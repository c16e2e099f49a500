"""Seconds a lane-step for packs of 1, 2, 4, 8 and 16 against a plain loop over the same model, in one run.

`make bench`, or `python -m tests.bench [--device cuda] [--threads 1] [--steps 15] [--set model.folder=… …]`. Rounds
over all sizes are interleaved and the median is shown, so that a noisy machine disturbs them alike; compare the ratios.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from harness import models, train
from harness.sweep import Trial, expand, load

SIZES = (1, 2, 4, 8, 16)
SWEEP = Path(__file__).parents[1] / "sweeps" / "smoke.yaml"


def plain(trial: Trial, device: str) -> Callable[[int], None]:
    """One step of what people write: the model's own modules, torch's dropout and AdamW, at the same width."""
    recipe = trial.recipe
    task = train.prepared(recipe.task, recipe.model, recipe.max_length)
    network = models.network(recipe.model, task.num_labels)
    module = copy.deepcopy(network.module).to(device).train().requires_grad_(True)
    optimizer = torch.optim.AdamW(module.parameters(), lr=recipe.lr, eps=recipe.eps, weight_decay=recipe.weight_decay)
    data = train._Data(task.train, torch.device(device))
    order = torch.randperm(len(data), generator=train.stream("order", 0))

    def step(number: int) -> None:
        start = number * recipe.batch_size % (len(data) - recipe.batch_size)
        rows = order[start : start + recipe.batch_size]
        width = data.width(rows) if recipe.padding == "batch" else data.input_ids.shape[1]
        inputs = network.inputs(data.input_ids[rows.to(device), :width], data.lengths[rows].to(device), None)
        loss = F.cross_entropy(module(**inputs).logits, data.labels[rows.to(device)])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()

    return step


def packed(trials: list[Trial], device: str) -> Callable[[int], None]:
    """One step of the engine over a pack."""
    run = train._Run(trials, torch.device(device))
    return lambda number: run.update(number % (run.epoch_steps - 1))  # never the epoch's last: no evaluation


def seconds(step: Callable[[int], None], first: int, steps: int, device: str) -> float:
    """Mean seconds of one step."""
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    for number in range(first, first + steps):
        step(number)
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / steps


def main() -> None:
    """Time all sizes in turn and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10, help="steps a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    trials = list(
        expand(load(SWEEP, None, [*given.overrides, f"seeds=1..{max(SIZES)}", "lr=1e-4", "bias_correction=on"]))
    )
    steps = {"plain": (1, plain(trials[0], given.device))}
    steps |= {f"pack of {size}": (size, packed(trials[:size], given.device)) for size in SIZES}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _, step in steps.values():
        seconds(step, 0, 2, given.device)
    for turn in range(given.rounds):
        for name, (lanes, step) in steps.items():
            times[name].append(seconds(step, 2 + turn * given.steps, given.steps, given.device) / lanes)
    base = statistics.median(times["plain"])
    recipe = trials[0].recipe
    print(f"{recipe.model.name}, batch {recipe.batch_size}, {given.device}, {given.threads} threads; "
          f"median of {given.rounds} rounds of {given.steps} steps")  # fmt: skip
    for name, values in times.items():
        middle = statistics.median(values)
        print(f"{name:>10}  {middle * 1e3:8.1f} ms a lane-step  {base / middle:5.2f} × the plain loop's speed")


if __name__ == "__main__":
    main()
