"""A pack in training: what it is made of, and its state, which a checkpoint saves."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.common import metrics
from harness.common.metrics import Majority, Score
from harness.config.trials import Trial
from harness.data import tasks
from harness.data.tokenized import TokenizedSplit
from harness.training import fitting
from harness.training.batches import Batches, DeviceSplit
from harness.training.evaluate import Evaluator, dev_answers
from harness.training.forward import Forward
from harness.training.lanes import Lanes
from harness.training.log import RunLog
from harness.training.optimizers import LaneOptimizer, lane_optimizer
from harness.training.pack import TrainingPack, pack_of
from harness.training.prepare import load_network, load_task
from harness.training.remedies.registry import build_remedies
from harness.training.remedies.remedy import Remedy
from harness.training.replayer import Replayer
from harness.training.selection import Selection
from harness.training.step import LossAndGradient
from harness.training.telemetry import Telemetry
from harness.training.untouched import Untouched, to_beat


@dataclass(eq=False)
class TrainingRun:
    """A pack in training; lane i of every tensor belongs to trial i."""

    pack: TrainingPack
    split: TokenizedSplit  # the training split, with what the remedies put behind its examples
    training: DeviceSplit
    validation: DeviceSplit
    test: DeviceSplit | None
    lanes: Lanes
    batches: Batches
    remedies: tuple[Remedy, ...]
    replayer: Replayer
    loss_and_gradient: LossAndGradient
    evaluator: Evaluator
    optimizer: LaneOptimizer
    telemetry: Telemetry | None  # None: what a diagnosis reads is not recorded
    majority: Majority  # what a run failed at or below
    untouched: Untouched | None  # of language models
    selection: Selection
    log: RunLog = field(default_factory=RunLog)

    @property
    def updates(self) -> int:
        """Updates done."""
        return self.optimizer.done

    @property
    def keeps_vectors(self) -> bool:
        """Whether an evaluation gives the vectors that the head reads."""
        return self.telemetry is not None and self.pack.kind.has_vectors

    def score(self, logits: np.ndarray) -> Score:
        """What a lane's answers [N, C] on the dev set are worth."""
        task, level = self.pack.task, None if self.untouched is None else self.majority
        logits = dev_answers(self.pack, logits)
        return metrics.score(task.metric, logits, task.validation.targets, task.validation.sentences, level)

    def made_of_sha256(self) -> str:
        """A hash of what decides the results beside the recipes: texts, labels, tokens, weights, settings."""
        network, task = self.lanes.network, self.pack.task
        config: Any = self.lanes.module.config
        parts = (task.sha256, network.sha256, config.to_json_string(), "recorded" * (self.telemetry is not None))
        digest = hashlib.sha256("\n".join(parts).encode())
        for split in (self.split, *task.splits[1:]):
            for values in (split.input_ids, split.token_type_ids, split.lengths):
                digest.update(values.tobytes())
        return digest.hexdigest()

    def state(self) -> dict[str, Tensor]:
        """What the updates to come and the results depend on, after an update; not a copy."""
        state = {"weights": self.lanes.weights, "order": self.batches.order}  # [L, P], [L, N]
        state |= self.optimizer.state() | self.log.state() | self.selection.state()
        state |= {} if self.telemetry is None else self.telemetry.state()
        for name, streams in self._streams().items():
            state[f"{name}.streams"] = torch.stack([generator.get_state() for generator in streams])  # [L, bytes]
        for remedy in self.remedies:
            state |= {f"{remedy.name}.{name}": value for name, value in remedy.state().items()}
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Resume from a `state` of a run that was made of the same."""
        device = self.pack.device
        self.lanes.weights.copy_(state["weights"])
        self.batches.order = state["order"].clone()
        for name, value in self.optimizer.state().items():
            value.copy_(state[name])
        self.log.load_state(state, device)
        self.optimizer.done = len(self.log.losses)
        self.selection.load_state(state, device)
        if self.telemetry is not None:
            self.telemetry.restore(state, device)
        for name, streams in self._streams().items():
            for generator, saved in zip(streams, state[f"{name}.streams"], strict=True):
                generator.set_state(saved.clone())
        for remedy in self.remedies:
            prefix = f"{remedy.name}."
            remedy.load_state({n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)})

    def _streams(self) -> dict[str, list[torch.Generator]]:
        """What is drawn from while a pack trains, each one stream a lane."""
        return {"order": self.batches.streams} | {
            remedy.name: remedy.streams for remedy in self.remedies if remedy.streams
        }


def set_up(
    trials: Sequence[Trial],
    device: torch.device,
    *,
    record: bool = True,
    replay: bool = True,
    compiled: bool = False,
    random: bool = True,
) -> TrainingRun:
    """A run of a pack before its first update.

    Args:
        trials: of one shape, a lane each.
        device: where it trains.
        record: whether to record what a diagnosis reads.
        replay: whether steps may be played back from recordings.
        compiled: whether the steps of whole batches are compiled.
        random: without it the remedies that draw are left out, for a loss that depends on the weights alone.

    Raises:
        HarnessError: the data or the model cannot be used, or a recipe does not fit them.
    """
    recipe = trials[0].recipe
    task = load_task(recipe.task, recipe.model, recipe.max_length)
    for trial in trials:
        tasks.check_recipe(trial.recipe, task.train.labels, task.metric)
    pack = pack_of(trials, device, task)
    remedies = build_remedies(pack, random=random)
    split = task.train
    for remedy in remedies:
        split = remedy.change_split(split)
    network = load_network(recipe, task)
    fitting.check(network, task, recipe.model.name, [split])
    training, validation = DeviceSplit(split, pack, network), DeviceSplit(task.validation, pack, network)

    level, untouched = to_beat(pack)
    lanes = Lanes(pack, network)
    for remedy in remedies:
        remedy.start(lanes)
    forward, replayer = Forward(network, pack), Replayer(lanes, enabled=replay, compiled=compiled)
    telemetry = None
    if record and recipe.task.kind != "tokens":  # what it keeps is of one vector an example
        telemetry = Telemetry(
            list(lanes.views),
            network.head,
            lanes.parts.sizes,
            pack.total_steps,
            has_classes=task.metric not in metrics.WITHOUT_CLASSES,
        )
    return TrainingRun(
        pack=pack,
        split=split,
        training=training,
        validation=validation,
        test=None if task.test is None else DeviceSplit(task.test, pack, network),
        lanes=lanes,
        batches=Batches(pack, split, remedies),
        remedies=remedies,
        replayer=replayer,
        loss_and_gradient=LossAndGradient(lanes, forward, training, remedies, replayer),
        evaluator=Evaluator(lanes, forward, replayer),
        optimizer=lane_optimizer(lanes, remedies),
        telemetry=telemetry,
        majority=level,
        untouched=untouched,
        selection=Selection(len(trials)),
    )
