"""Which examples a lane reads at each update, and how they lie on the device."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.data.examples import NO_LABEL
from harness.data.tokenized import TokenizedSplit
from harness.models.pretrained import Network
from harness.training.pack import TrainingPack
from harness.training.transfer import to_device

if TYPE_CHECKING:
    from harness.training.remedies.remedy import Remedy

_WIDTH_STEP = 4  # to which widths are rounded up under `padding: batch`, so that lanes often share one


@dataclass(frozen=True, eq=False)
class Batch:
    """Some lanes' examples, by their rows in the training split.

    `also_read` has the rows of further texts that each example is read with, by the remedy that reads them.
    """

    rows: Tensor  # [l, b], on the CPU
    lanes: list[int]  # l of the pack's lanes
    update: int  # updates done before it
    call: int = 0  # tells the forward passes of one update apart
    also_read: Mapping[str, Tensor] = field(default_factory=dict)  # [l, b] each

    def split(self, size: int) -> list[Batch]:
        """The batch in parts of `size` examples a lane, numbered by `call`."""
        parts = torch.split(self.rows, size, dim=1)
        others = {name: torch.split(rows, size, dim=1) for name, rows in self.also_read.items()}
        return [
            replace(self, rows=rows, call=number, also_read={name: cut[number] for name, cut in others.items()})
            for number, rows in enumerate(parts)
        ]

    def repeat(self, times: int) -> Batch:
        """The batch with all of its examples so many times, [l, times · b]."""
        also_read = {name: rows.repeat(1, times) for name, rows in self.also_read.items()}
        return replace(self, rows=self.rows.repeat(1, times), also_read=also_read)


class DeviceSplit:
    """A split on the device, padded to a multiple of some tokens that is no more than the model reads."""

    def __init__(self, split: TokenizedSplit, pack: TrainingPack, network: Network) -> None:
        """Move the split of N examples, T tokens wide, to the pack's device."""
        recipe, width = pack.recipe, split.input_ids.shape[-1]
        self.split = split
        self.network, self.device, self._has_types = network, pack.device, recipe.token_type_ids
        self._left, self._padding = recipe.padding_side == "left", pack.task.pad_token_id
        multiple = recipe.pad_to_multiple_of
        more = min(math.ceil(width / multiple) * multiple, network.positions or sys.maxsize) - width
        fill = {"input_ids": pack.task.pad_token_id, "token_type_ids": 0}
        fill |= {"labels": NO_LABEL} if pack.kind.per_token else {}

        def moved(name: str) -> Tensor:
            values = torch.from_numpy(getattr(split, name))
            return (F.pad(values, (0, more), value=fill[name]) if name in fill else values).to(pack.device)

        self.input_ids, self.token_type_ids = moved("input_ids"), moved("token_type_ids")  # [N, T]
        # [N], or of examples with C sequences [N, C], whose longest is the example's; both are read by the host.
        self.sequence_lengths = torch.from_numpy(split.lengths)
        self.lengths = self.sequence_lengths.view(len(split.lengths), -1).amax(dim=1)  # [N]
        answers = np.zeros(0, np.float32) if split.answer_tokens is None else split.answer_tokens
        self.answer_tokens = torch.from_numpy(answers)  # [N] of completions, read by the host
        self.labels = moved("labels")  # [N], or of a token task [N, T]
        self.multiple = multiple if multiple > 1 else _WIDTH_STEP
        words = split.sentences if pack.kind.per_token else None
        # Where each sentence's words begin among all of them, [N + 1]; of other tasks an example counts as one word.
        self.begins = torch.from_numpy(
            np.append(0, np.cumsum(np.ones(len(self.lengths), int) if words is None else words))
        )

    def __len__(self) -> int:
        """The number of examples, N."""
        return len(self.lengths)

    @property
    def width(self) -> int:
        """Tokens of the widest batch, T."""
        return int(self.input_ids.shape[-1])

    def width_of(self, rows: Tensor) -> int:
        """The longest text of these rows, rounded up to a width that batches share."""
        longest = int(self.lengths[rows].max())
        return min(self.width, math.ceil(longest / self.multiple) * self.multiple)

    def inputs(self, rows: Tensor, width: int, lengths: Tensor | None = None) -> dict[str, Tensor]:
        """The network's keyword arguments for rows [..., b] at a width, [..., b, width], or [..., b, C, width].

        Args:
            rows: on the CPU.
            width: tokens that are read of each text.
            lengths: real tokens of each row [..., b], or [..., b, C], on the CPU; its own where not given.
        """
        lengths = to_device(self.sequence_lengths[rows] if lengths is None else lengths, self.device)
        rows = to_device(rows, self.device)
        types = self.token_type_ids[rows, ..., :width] if self._has_types else None
        ids = self.input_ids[rows, ..., :width]
        if self._left:
            return self.network.inputs(_to_the_right(ids, lengths, self._padding), lengths, types, left=True)
        return self.network.inputs(ids, lengths, types)

    def token_labels(self, rows: Tensor, width: int) -> Tensor:
        """The labels of the tokens of rows [..., b] at a width, [..., b, width], on the device."""
        labels = self.labels_of(rows)[..., :width]
        return _to_the_right(labels, to_device(self.lengths[rows], self.device), NO_LABEL) if self._left else labels

    def labels_of(self, rows: Tensor) -> Tensor:
        """The labels of rows [..., b], on the device."""
        return self.labels[to_device(rows, self.device)]


def _to_the_right(values: Tensor, lengths: Tensor, padding: int) -> Tensor:
    """Rows [..., T] whose first `lengths` [...] tokens are real, with the padding before them."""
    places = torch.arange(values.shape[-1], device=values.device) - (values.shape[-1] - lengths[..., None])
    return values.gather(-1, places.clamp(min=0)).masked_fill(places < 0, padding)


class Batches:
    """The order in which each lane reads the training split, epoch by epoch, each from a stream of its own."""

    def __init__(self, pack: TrainingPack, split: TokenizedSplit, remedies: Sequence[Remedy]) -> None:
        """Read the task's training examples; `split` has what the remedies put behind them too."""
        self._pack, self._remedies = pack, remedies
        self._labels = torch.from_numpy(split.labels)
        self.streams = pack.streams("order", "order_seed")
        self.order = torch.empty(len(pack.trials), 0, dtype=torch.int64)  # [L, N], of the epoch that is read

    def draw(self, step: int) -> Batch:
        """The batch of an update, counted from 0; the first of an epoch draws its order."""
        number, size = step % self._pack.epoch_steps, self._pack.recipe.batch_size
        if number == 0:
            self.order = torch.stack([self._epoch(generator) for generator in self.streams])
        rows = self.order[:, number * size : (number + 1) * size]  # [L, B]
        return Batch(rows, list(range(len(rows))), step)

    def _epoch(self, generator: torch.Generator) -> Tensor:
        """The order of an epoch's examples, [N]."""
        rows = torch.arange(len(self._pack.task.train.labels))
        for remedy in self._remedies:
            rows = remedy.change_epoch(rows, self._labels, generator)
        return rows[torch.randperm(len(rows), generator=generator)]
