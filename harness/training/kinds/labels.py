"""Texts that have any number of labels each: a decision for every label."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from harness.data.tokenized import TokenizedSplit
from harness.training.kinds.kind import Kind


class Labels(Kind):
    """Binary cross-entropy, a mean over texts and labels, as transformers' `multi_label_classification` has it.

    An evaluation keeps a decision for every label of every text, in order: the logits of no and yes, 0 and the
    network's.
    """

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of logits [b, C] against labels [b, C] of 0 and 1: a mean over labels, summed over texts, []."""
        total = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="sum")
        return total / labels.shape[-1]

    def arrange(self, rows: np.ndarray, split: TokenizedSplit) -> np.ndarray:
        """Logits [L, N, C] as those of N · C decisions, [L, N · C, 2]."""
        yes = rows.reshape(len(rows), -1)
        return np.stack([np.zeros_like(yes), yes], axis=-1)
