"""The token F1 of greedy answers to a split's prompts, of all lanes at once."""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.func import vmap

from harness.common import metrics
from harness.models import pretrained
from harness.models.generate import greedy
from harness.training.batches import DeviceSplit
from harness.training.forward import Forward
from harness.training.lanes import Lanes, Views


def generated_f1(lanes: Lanes, forward: Forward, arguments: Views, data: DeviceSplit) -> np.ndarray:
    """The F1 of each lane's greedy answer to each of N prompts, [L, N] float32.

    Every call reads as many tokens as the longest prompt and answer may have together, so that no lane's answer depends
    on how long another's is.

    Args:
        lanes: of the pack.
        forward: The network.
        arguments: The lanes' weights and settings.
        data: The split.
    """
    pack, network = lanes.pack, forward.network
    tokenizer, count = pretrained.tokenizer(pack.recipe.model), len(lanes)
    rows = _rows(data)
    most = pack.recipe.task.max_new_tokens or max(len(answer) for _, answer in rows)
    width = min(max(len(prompt) for prompt, _ in rows) + most, network.positions or 2**30)
    views = arguments | forward.shared(count)

    def last(view: Views, inputs: Views, lengths: Tensor) -> Tensor:
        logits = forward.logits(view, inputs)  # [B, W, V]
        return logits.gather(1, (lengths - 1)[:, None, None].expand(-1, 1, logits.shape[-1]))[:, 0]

    def next_logits(ids: Tensor, lengths: Tensor) -> Tensor:
        ids, lengths = ids.view(count, -1, ids.shape[-1]), lengths.view(count, -1)  # [L, B, W], [L, B]
        logits: Tensor = vmap(last)(views, network.inputs(ids, lengths, None), lengths)
        return logits.flatten(0, 1)

    f1 = np.empty((count, len(rows)), dtype=np.float32)
    size = pack.recipe.eval_batch_size
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        answers = greedy(
            next_logits, [prompt for prompt, _ in batch] * count, end=tokenizer.eos_token_id,
            padding=pack.task.pad_token_id, most=most, device=str(pack.device), width=width,
        )  # fmt: skip
        texts = [tokenizer.decode(answer, skip_special_tokens=True) for answer in answers]
        expected = [tokenizer.decode(answer, skip_special_tokens=True) for _, answer in batch] * count
        scores = [metrics.token_f1(text, own) for text, own in zip(texts, expected, strict=True)]
        f1[:, start : start + len(batch)] = np.array(scores, dtype=np.float32).reshape(count, -1)
    return f1


def _rows(data: DeviceSplit) -> list[tuple[list[int], list[int]]]:
    """The tokens of each prompt and of its answer."""
    ids, lengths = data.input_ids.tolist(), data.lengths.tolist()
    begins = [int(length - answer) for length, answer in zip(lengths, data.answer_tokens.tolist(), strict=True)]
    return [(row[:begin], row[begin:length]) for row, begin, length in zip(ids, begins, lengths, strict=True)]
