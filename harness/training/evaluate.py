"""Logits of every lane's weights on a split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap

from harness.data.examples import NO_LABEL
from harness.training import telemetry
from harness.training.batches import DeviceSplit
from harness.training.forward import Forward
from harness.training.generated import generated_f1
from harness.training.lanes import Lanes
from harness.training.pack import TrainingPack
from harness.training.replay import Function
from harness.training.replayer import Replayer


class Evaluator:
    """The network in evaluation mode over a split, all lanes at once; played back from a recording where that pays."""

    def __init__(self, lanes: Lanes, forward: Forward, replayer: Replayer) -> None:
        """Evaluate at the widths and in the batches of the pack's recipe."""
        self.lanes, self.pack, self.forward, self.replayer = lanes, lanes.pack, forward, replayer

    @torch.no_grad()
    def __call__(
        self, weights: Tensor, data: DeviceSplit, updates: int, *, with_vectors: bool = False
    ) -> tuple[np.ndarray, Tensor | None]:
        """The logits of weights [L, P] on a split, and the vectors that the head reads.

        Args:
            weights: of all lanes.
            data: the split of N examples; of a token task N counts words, each by its first token, of questions about
                contexts the questions.
            updates: updates done, from which it follows how many evaluations are to come.
            with_vectors: whether to give the vectors of the first examples.

        Returns:
            Logits [L, N, C] float32, and vectors [L, n, H]; None where they are not asked for or not known.
        """
        self.forward.module.eval()
        arguments, recipe, kind = self.lanes.arguments(weights), self.pack.recipe, self.pack.kind
        trim = recipe.padding == "batch"
        # Sorting by length makes trimmed batches short; it is the same order for every lane.
        order = torch.argsort(data.lengths, stable=True) if trim else torch.arange(len(data))
        answers: np.ndarray | None = None  # [L, rows, …]
        batches = torch.split(order, recipe.eval_batch_size)
        evaluations_left = (self.pack.total_steps - updates) // (recipe.eval_steps or self.pack.epoch_steps)
        calls_left = evaluations_left * (1 if trim else len(batches))
        vectors: list[Tensor] = []
        for rows in batches:
            width = data.width_of(rows) if trim else data.width
            inputs = data.inputs(rows, width)
            if kind.reads_labels:
                inputs["labels"] = data.token_labels(rows, width) if kind.per_token else data.labels_of(rows)
            of_batch, *read = self.replayer.call(
                "logits and vectors" if with_vectors else "logits",
                self._function(list(arguments), list(inputs), with_vectors),
                arguments,
                list(inputs.values()),
                calls_left,
            )  # [L, B, C], [L, B, H]
            places = rows
            if kind.per_token and not kind.reads_labels:  # [L, B, T, C]
                labels = data.labels[rows.to(self.pack.device), : of_batch.shape[2]]
                of_batch = of_batch[:, labels != NO_LABEL]
                places = torch.cat([torch.arange(int(data.begins[row]), int(data.begins[row + 1])) for row in rows])
            if answers is None:
                answers = np.empty((len(self.lanes), int(data.begins[-1]), *of_batch.shape[2:]), dtype=np.float32)
            answers[:, places.numpy()] = of_batch.cpu().numpy()
            first = rows < telemetry.MOST_VECTORS
            vectors += [
                values.view(len(values), len(rows), -1, values.shape[-1])[:, first].flatten(1, 2) for values in read
            ]
        assert answers is not None
        if kind.generates:
            f1 = generated_f1(self.lanes, self.forward, arguments, data)  # [L, rows]
            answers = np.concatenate([answers, f1[..., None]], axis=2)
        return kind.arrange(answers, data.split), torch.cat(vectors, dim=1) if vectors else None

    def _function(self, parameters: list[str], names: list[str], with_vectors: bool) -> Function:
        """What gives the logits, and vectors, from the lanes' arguments and the network's inputs."""
        answer = self._with_vectors if with_vectors else self._logits

        def forward(given: Sequence[Tensor]) -> list[Tensor]:
            views = dict(zip(parameters, given, strict=False))
            inputs = dict(zip(names, given[len(parameters) :], strict=True))
            if not (shared := self.forward.shared(len(self.lanes))):
                return list(vmap(answer, in_dims=(0, None))(views, inputs))
            each = {name: value.expand(len(self.lanes), *value.shape) for name, value in inputs.items()}
            return list(vmap(answer)(views | shared, each))

        return forward

    def _logits(self, view: dict[str, Tensor], inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        given = dict(inputs)
        labels = given.pop("labels", None)
        return (self.pack.kind.reduce(self.forward.logits(view, given), labels),)

    def _with_vectors(self, view: dict[str, Tensor], inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """The logits [B, C], and the vectors [B, H] that the head reads."""
        with telemetry.vectors(self.forward.module, self.forward.network.causal) as vectors:
            return *self._logits(view, inputs), *vectors


def dev_answers(pack: TrainingPack, logits: np.ndarray) -> np.ndarray:
    """A lane's answers [N, C] on the dev set, of which the largest is what is answered."""
    return pack.kind.decided(logits, pack.kind.threshold(logits))


def dev_loss(pack: TrainingPack, logits: np.ndarray) -> float:
    """The mean loss of a lane's answers [N, C] on the dev set, nats; of a regression the mean squared error."""
    return float(pack.kind.dev_loss(torch.from_numpy(logits), torch.from_numpy(pack.task.validation.targets)))
