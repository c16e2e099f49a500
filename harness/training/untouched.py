"""What a run has to beat: the majority classifier; of a language model itself, untouched by any training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harness.common import metrics
from harness.common.errors import HarnessError
from harness.common.metrics import Majority
from harness.models import pretrained
from harness.models.pretrained import Network
from harness.training.batches import DeviceSplit
from harness.training.evaluate import Evaluator, dev_loss
from harness.training.forward import Forward
from harness.training.lanes import Lanes, Views
from harness.training.pack import TrainingPack
from harness.training.replayer import Replayer

_MOST_KNOWN = 8
_known: dict[tuple[object, ...], np.ndarray] = {}  # answers by what decides them, for the packs that a worker trains


@dataclass(frozen=True)
class Untouched:
    """What a pretrained language model scores on the dev set before any training; its loss in nats a token."""

    score: float
    loss: float


class _OneLane(Lanes):
    """The pretrained weights as the only lane, in the memory of the network's own."""

    def __init__(self, pack: TrainingPack, network: Network) -> None:
        self.pack, self.network = pack, network
        self.module = network.module.to(pack.device)
        self.weights = torch.empty(1, 0)

    def arguments(self, weights: Tensor) -> Views:
        """The module's own parameters, [1, *shape]."""
        return {name: value.detach()[None] for name, value in self.module.named_parameters()}


def to_beat(pack: TrainingPack) -> tuple[Majority, Untouched | None]:
    """What a run of the pack failed at or below, and where that is asked the untouched model's score.

    Of a language model it is that score; where all examples have the same choices, the majority's if that is higher.

    Raises:
        HarnessError: the untouched model's answers are not finite.
    """
    task, targets = pack.task, pack.task.validation.targets
    if task.kind != "completion":
        return metrics.majority(task.metric, targets, task.num_labels, task.validation.sentences), None
    answers = _answers(pack)
    score = metrics.score(task.metric, answers, targets)
    if score.value is None:
        raise HarnessError(
            f"the model '{pack.recipe.model.name}' gives the dev answers no finite likelihood before any training",
            fix="Use another model, or precision: float32",
        )
    level = Majority(score.value, score.correct)
    if task.label_names:
        level = max(level, metrics.majority(task.metric, targets, task.num_labels), key=lambda own: own.value)
    return level, Untouched(score.value, dev_loss(pack, answers))


def _answers(pack: TrainingPack) -> np.ndarray:
    """The untouched model's answers on the dev set, [N, C]: once for all packs of the worker that ask the same."""
    recipe, task = pack.recipe, pack.task
    network = pretrained.network(recipe.model, 0, kind=recipe.task.kind)
    widths = (recipe.max_length, recipe.eval_batch_size, recipe.padding, recipe.padding_side, recipe.pad_to_multiple_of)
    where = (recipe.precision, str(pack.device), torch.get_num_threads())
    key = (task.sha256, task.metric, task.tokenizer_sha256, recipe.model, network.sha256, *widths, *where)
    if key not in _known:
        while len(_known) >= _MOST_KNOWN:
            _known.pop(next(iter(_known)))
        lane = _OneLane(pack, network)
        evaluator = Evaluator(lane, Forward(network, pack), Replayer(lane, enabled=False))
        answers, _ = evaluator(lane.weights, DeviceSplit(task.validation, pack, network), pack.total_steps)
        _known[key] = answers[0]
    return _known[key]
