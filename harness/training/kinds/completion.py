"""Answers of a causal language model: the loss of their tokens, and how likely each answer is."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.data.examples import NO_LABEL
from harness.data.tokenized import Task, TokenizedSplit
from harness.training.kinds.tokens import Tokens


class Completion(Tokens):
    """A loss over the tokens of the batch's answers, as transformers' causal models have it; labels are next tokens.

    An evaluation keeps two numbers of each answer: its log-likelihood in nats, and how many of its tokens were the
    likeliest. Where choices are compared it keeps the log-likelihood of each.
    """

    reads_labels = True
    has_vectors = False

    def __init__(self, task: Task) -> None:
        """Answers are generated where a metric reads them."""
        super().__init__(task)
        self.generates = task.metric == "token_f1"

    @property
    def outputs(self) -> int | None:
        """Every token that the network knows is one."""
        return None

    def reduce(self, logits: Tensor, labels: Tensor | None) -> Tensor:
        """The log-likelihood of each answer and its likeliest tokens, [b, 2], of logits [b, T, V] and labels [b, T]."""
        assert labels is not None
        learned = labels != NO_LABEL
        chosen = labels.clamp(min=0)[..., None]  # [b, T, 1]
        likelihoods = F.log_softmax(logits, dim=-1).gather(-1, chosen)[..., 0] * learned
        likeliest = (logits.argmax(dim=-1) == labels) & learned
        return torch.stack([likelihoods.sum(dim=-1), likeliest.sum(dim=-1).float()], dim=-1)

    def arrange(self, rows: np.ndarray, split: TokenizedSplit) -> np.ndarray:
        """Rows [L, R, 2] as [L, N, 2], or with C choices their log-likelihoods, [L, N, C]."""
        choices = split.choices
        if not choices:
            return rows
        return np.ascontiguousarray(rows[..., 0].reshape(len(rows), -1, choices))

    def dev_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean over the tokens of the right answers, of what an evaluation kept [N, 2] or [N, C]."""
        split = self.task.validation
        assert split.answer_tokens is not None
        tokens = torch.from_numpy(split.answer_tokens)
        if split.choices:
            logits = logits.gather(1, labels[:, None])
            tokens = tokens.view(-1, split.choices).gather(1, labels[:, None])
        return -logits[:, 0].double().sum() / tokens.sum()
