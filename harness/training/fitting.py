"""Whether a network can read what a task's texts became: their lengths, and every token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.common.errors import HarnessError
from harness.data import vocabulary
from harness.data.tokenized import Task, TokenizedSplit
from harness.models.pretrained import Network
from harness.training.forward import word_embedding


def check(network: Network, task: Task, model: str, more: Sequence[TokenizedSplit] = ()) -> None:
    """Raise HarnessError for texts of the task, or of `more` splits, that the network of `model` can't read."""
    splits = (*task.splits, *more)
    longest, limit = max(split.input_ids.shape[-1] for split in splits), network.positions
    if limit is not None and longest > limit:
        raise HarnessError(
            f"the model reads at most {limit} tokens, the texts have {longest}", fix=f"Lower max_length to {limit}"
        )
    config: Any = network.module.config
    embeddings = word_embedding(network.module).num_embeddings
    if getattr(config, "vocab_size", None) is not None:  # else characters are hashed to embeddings
        largest = max(int(split.input_ids.max()) for split in splits)
        vocabulary.check_ids(largest, embeddings, task.vocabulary or largest + 1, model)
