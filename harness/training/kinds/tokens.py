"""Words that have a label each, on the first token of each word."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from harness.data.examples import NO_LABEL
from harness.training.kinds.kind import Kind


class Tokens(Kind):
    """A loss over the words of the batch, of which each lane has its own number."""

    per_token = by_token = True

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of logits [b, T, C] against labels [b, T], summed over the tokens that have one."""
        flat = logits.reshape(-1, logits.shape[-1])
        return F.cross_entropy(flat, labels.reshape(-1), ignore_index=NO_LABEL, reduction="sum")

    def divisor(self, labels: Tensor) -> Tensor:
        """The tokens that have a label, [L]; 1 where there is none."""
        return (labels != NO_LABEL).sum((1, 2)).clamp(min=1)
