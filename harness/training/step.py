"""The loss of a batch and its gradient: vmap over the lanes, autograd outside."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import torch
from torch import Tensor
from torch.func import vmap

from harness.training.batches import Batch, DeviceSplit
from harness.training.forward import Forward
from harness.training.lanes import Lanes, Views
from harness.training.recomputed import recomputed
from harness.training.remedies.dropout import Dropout, NoDropout
from harness.training.remedies.remedy import Loss, Reading, Remedy
from harness.training.replayer import Replayer, write_gradients

# Under `padding: batch` a batch is sorted by length and cut in so many parts, each padded to its own longest text,
# rounded up so that lanes often share a width. The sum over the parts is the batch's loss; on phrases of 2 to 60
# tokens two parts save a third of the work; more cost as much again in the embeddings' dense gradients.
_PARTS = 2
_IN_STEP = ("forward_context", "loss_function", "change_loss")


class LossAndGradient:
    """The loss of each lane's batch, and its gradient by the weights that the forward pass reads."""

    def __init__(
        self, lanes: Lanes, forward: Forward, data: DeviceSplit, remedies: Sequence[Remedy], replayer: Replayer
    ) -> None:
        """Compute over rows of `data` with what the remedies change; steps are replayed where that pays."""
        self.lanes, self.pack, self.forward, self.data = lanes, lanes.pack, forward, data
        self.remedies, self.replayer = remedies, replayer
        self.loss_function: Loss = self.pack.kind.loss
        for remedy in remedies:
            self.loss_function = remedy.loss_function(self.loss_function)
        self._in_step = [remedy for remedy in remedies if any(map(remedy.overrides, _IN_STEP))]
        self._drops = any(isinstance(remedy, Dropout) for remedy in remedies)
        self._passes = math.prod(remedy.passes for remedy in remedies)

    def __call__(self, weights: Tensor, batch: Batch) -> Tensor:
        """The loss of each lane, [L], a mean over its examples or words; its gradient is in `lanes.gradient`.

        The batch goes through in micro-batches where the recipe accumulates gradients.
        """
        recipe, arguments = self.pack.recipe, self.lanes.trained_arguments(weights)
        size = (1 if self.pack.kind.per_token else batch.rows.shape[1]) * self._passes
        add_up = self.at_one_width if recipe.padding == "dataset" else self._by_length
        losses: Tensor | None = None
        for part in batch.split(recipe.batch_size // recipe.gradient_accumulation):
            # The gradient of the first part is copied, not added to zeros: 0 + x is another bit where x is -0.
            loss = add_up(arguments, part, size, add=part.call > 0)
            losses = loss if losses is None else losses + loss
        assert losses is not None
        if self.pack.kind.per_token:
            divisor = self.pack.kind.divisor(self.data.labels_of(batch.rows))  # [L]
            assert divisor is not None
            losses = losses / divisor
            self.lanes.gradient.div_(divisor[:, None])
        return losses

    def at_one_width(self, arguments: Views, batch: Batch, size: int, *, add: bool) -> Tensor:
        """The loss of rows [L, b] of all lanes at the task's width, over `size`, [L]; its gradient is written or added.

        Args:
            arguments: the lanes' weights and settings, of which the first are those that the gradient is taken by.
            batch: examples of all lanes.
            size: what the sum over the examples is divided by.
            add: whether the gradient is added to what is there.
        """
        inputs, labels, further = self._read(arguments, batch, self.data.width, all_lanes=True)
        names, start, trained = list(inputs), len(arguments), len(self.lanes.views)

        def step(given: Sequence[Tensor]) -> list[Tensor]:
            views = dict(zip(arguments, given, strict=False))
            named = dict(zip(names, given[start:], strict=False))
            labels, *more = given[start + len(names) :]
            losses = self._losses(views, named, labels, dict(zip(further, more, strict=True))) / size
            return [losses.detach(), *torch.autograd.grad(losses.sum(), given[:trained], materialize_grads=True)]

        recipe, accumulation = self.pack.recipe, self.pack.recipe.gradient_accumulation
        of_full_size = self.pack.kind.per_token or size == recipe.batch_size * self._passes
        return self.replayer.step(
            " ".join(["step", *(remedy.name for remedy in self._in_step), *further]),
            step,
            arguments,
            [*inputs.values(), labels, *further.values()],
            size,
            (self.pack.total_steps - batch.update - 1) * accumulation,
            fixed=lambda: set().union(*(remedy.fixed_memory() for remedy in self.remedies)),
            whole=of_full_size and batch.rows.shape[1] * accumulation == recipe.batch_size,
            add=add,
            in_parts=accumulation > 1,
        )

    def _by_length(self, arguments: Views, batch: Batch, size: int, *, add: bool) -> Tensor:
        """As `at_one_width`, with a lane's rows sorted by length and cut in parts, each as wide as its longest text."""
        count = len(batch.rows)
        losses, total = torch.zeros(count, device=self.pack.device), torch.zeros((), device=self.pack.device)
        for number, part in enumerate(self._sorted_parts(batch), start=batch.call * _PARTS):
            groups: dict[int, list[int]] = {}  # width -> lanes; a lane's width depends on its own rows alone
            for lane, read in enumerate(part):
                groups.setdefault(self.data.width_of(read), []).append(lane)
            for width, lanes in groups.items():
                whole = len(lanes) == count
                # Views of their own also of all lanes: what a part adds to a parameter that is used twice (tied words,
                # shared layers) is then summed before the parts are, whatever the other lanes' widths.
                if whole:
                    views = {name: view.view_as(view) for name, view in arguments.items()}
                else:
                    views = self.lanes.taken(arguments, lanes)
                also_read = {name: part[lanes, :, number] for number, name in enumerate(batch.also_read, start=1)}
                own = replace(batch, rows=part[lanes, :, 0], lanes=lanes, call=number, also_read=also_read)
                loss = self._losses(views, *self._read(views, own, width, all_lanes=False)) / size  # [lanes]
                losses[lanes] += loss.detach()
                total = total + loss.sum()
        trained = [arguments[name] for name in self.lanes.views]
        gradients = torch.autograd.grad(total, trained, materialize_grads=True)
        write_gradients(self.lanes.gradient_views, gradients, add)
        return losses

    def _sorted_parts(self, batch: Batch) -> Sequence[Tensor]:
        """The rows that each lane reads, sorted by the longest text of an example and cut, [L, b, texts] each."""
        read = torch.stack([batch.rows, *batch.also_read.values()], dim=2)
        by_length = torch.argsort(self.data.lengths[read].amax(dim=2), dim=1, stable=True)
        sorted_rows = read.gather(1, by_length[..., None].expand_as(read))
        return torch.split(sorted_rows, math.ceil(read.shape[1] / _PARTS), dim=1)

    def _read(
        self, arguments: Views, batch: Batch, width: int, *, all_lanes: bool
    ) -> tuple[dict[str, Tensor], Tensor, dict[str, Tensor]]:
        """What a pass reads of some lanes' rows [l, b] at a width: inputs, labels, and the remedies' inputs by name."""
        for remedy in self.remedies:
            batch = remedy.change_pass(batch)
        lengths = self.data.sequence_lengths[batch.rows]
        for rows in batch.also_read.values():
            lengths = torch.maximum(lengths, self.data.sequence_lengths[rows])
        inputs = self.data.inputs(batch.rows, width, lengths)

        def labels_of(rows: Tensor) -> Tensor:
            per_token = self.pack.kind.per_token
            labels = self.data.token_labels(rows, width) if per_token else self.data.labels_of(rows)
            for remedy in self.remedies:
                labels = remedy.change_labels(labels, batch.lanes)
            return labels

        reading = Reading(batch, width, all_lanes, lengths, inputs, arguments, self.forward, self.data, labels_of)
        further = {
            f"{remedy.name}.{name}": value
            for remedy in self.remedies
            for name, value in remedy.step_inputs(reading).items()
        }
        return inputs, labels_of(batch.rows), further

    def _losses(self, views: Views, inputs: dict[str, Tensor], labels: Tensor, further: dict[str, Tensor]) -> Tensor:
        """The loss of each lane's rows, summed over them, [l]."""
        self.forward.module.train()
        views = views | self.forward.shared(len(labels))
        with self.forward.looked_up(inputs["input_ids"]):
            losses: Tensor = vmap(self._loss)(views, inputs, labels, further)
        return losses

    def _loss(self, view: Views, inputs: dict[str, Tensor], labels: Tensor, further: dict[str, Tensor]) -> Tensor:
        """The loss of one lane's rows, summed over them, []."""
        given = {remedy.name: _of(remedy, further) for remedy in self._in_step}
        with ExitStack() as around:
            if not self._drops:  # else the module would draw for itself
                around.enter_context(NoDropout())
            for remedy in self._in_step:
                around.enter_context(remedy.forward_context(self.forward.module, given[remedy.name]))
            if self.pack.recipe.activation_checkpointing:
                around.enter_context(recomputed(self.forward.module, self._around_layer))
            logits = self.forward.logits(view, inputs)  # [b, C]
        loss = self.loss_function(logits, labels)
        for remedy in self._in_step:
            loss = remedy.change_loss(loss, logits, labels, given[remedy.name], self.loss_function)
        return loss

    @contextmanager
    def _around_layer(self) -> Iterator[None]:
        """What a layer is computed in, which is over when the backward pass computes it again."""
        with NoDropout(), self.forward.computing():
            yield


def _of(remedy: Remedy, further: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A remedy's own inputs of a step, by the names that it gave them."""
    prefix = f"{remedy.name}."
    return {name.removeprefix(prefix): value for name, value in further.items() if name.startswith(prefix)}
