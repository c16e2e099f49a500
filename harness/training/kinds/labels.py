"""Texts that have any number of labels each: a decision for every label."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from harness.common import metrics
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

    def threshold(self, logits: np.ndarray) -> float | None:
        """That of the task; else the best of 0.01, 0.02, …, 0.99 on the dev split, among equals that nearest to 0.5.

        None where it was to be chosen, and a logit is not finite.
        """
        if self.task.threshold is not None or not np.isfinite(logits).all():
            return self.task.threshold
        split = self.task.validation
        assert split.sentences is not None
        return best_threshold(self.task.metric, logits, split.targets, split.sentences)

    def decided(self, logits: np.ndarray, threshold: float | None) -> np.ndarray:
        """Logits [N · C, 2] with the threshold's in place of that of no, which is 0."""
        if threshold is None:
            return logits
        return np.stack([np.full_like(logits[:, 0], metrics.logit(threshold)), logits[:, 1]], axis=1)


def best_threshold(metric: metrics.Metric, logits: np.ndarray, labels: np.ndarray, sentences: np.ndarray) -> float:
    """The threshold in hundredths whose decisions on logits [N · C, 2] score best, among equals that nearest to 0.5."""
    by_text = labels.reshape(len(sentences), -1)

    def value(hundredths: int) -> tuple[float, int]:
        given = logits[:, 1] > np.float32(metrics.logit(hundredths / 100))
        answers = given.reshape(by_text.shape).astype(labels.dtype)
        return float(metrics.f1_of_labels(metric, answers, by_text)), -abs(hundredths - 50)

    return max(range(1, 100), key=value) / 100
