"""Answers that are parts of a context: where they start and end in each window of it."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from harness.data.tokenized import Task, TokenizedSplit
from harness.models import outputs
from harness.training.kinds.kind import Kind


class Span(Kind):
    """The mean of start's and end's cross-entropy over the tokens of a window, which is an example of training.

    An evaluation keeps each question's answer and what it scores (`squad.COLUMNS`), the best of all its windows.
    """

    reads_labels = True
    by_token = True
    has_vectors = False

    def __init__(self, task: Task, longest: int) -> None:
        """Answer with at most so many tokens."""
        super().__init__(task)
        self.longest = longest

    @property
    def constants(self) -> tuple[object, ...]:
        """The longest answer."""
        return (self.longest,)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of logits [b, T, 2] against `spans.LABELS` [b, 6], summed over the windows, [], under vmap."""
        return outputs.span_losses(logits, labels).sum()

    def reduce(self, logits: Tensor, labels: Tensor | None) -> Tensor:
        """The best answer in each window, `outputs.OF_WINDOW` [b, 6], of logits [b, T, 2]."""
        assert labels is not None
        return outputs.best_in_windows(logits, labels, self.longest)

    def arrange(self, rows: np.ndarray, split: TokenizedSplit) -> np.ndarray:
        """What N windows gave, [L, N, 6], as the answers to Q questions, [L, Q, 6]."""
        windows = split.windows
        assert windows is not None
        lanes = [outputs.chosen(own, windows.question, windows.offsets, abstains=self.task.abstains) for own in rows]
        return np.stack([outputs.compared(answers, windows) for answers in lanes])

    def dev_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of the windows, of the answers [Q, 6], which have it in parts."""
        return logits[:, 0].double().mean()
