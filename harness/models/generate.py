"""Greedy answers of a causal language model: the likeliest token each time, until the end of a text or a bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

# Token ids [B, W] padded on the right and how many of each are real [B] -> logits of the token after them, [..., B, V].
NextLogits = Callable[[Tensor, Tensor], Tensor]


@torch.no_grad()
def greedy(
    next_logits: NextLogits,
    prompts: Sequence[Sequence[int]],
    *,
    end: int | None,
    padding: int,
    most: int,
    device: str,
    width: int | None = None,
    positions: int | None = None,
) -> list[list[int]]:
    """The answer to each prompt as token ids, without the end of a text; at most `most` tokens.

    All are computed in one batch, and the whole text anew for each token: nothing is cached, so that every method that
    trains a model can be asked in the same way. Between equal logits the token of the lowest number is taken.

    Args:
        next_logits: The model.
        prompts: Token ids, at least one each.
        end: The token that ends a text; None: there is none.
        padding: The token that fills up.
        most: The longest answer.
        device: Where the model lies.
        width: Tokens that each call reads, whatever the answers' lengths, so that none depends on the others': a prompt
            and its answer have no more. None: as many as there are so far.
        positions: Tokens that the model can read, where it has a bound: a prompt and its answer have no more.
    """
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)  # [B]
    room = min(int(lengths.max()) + most, positions or 2**30) if width is None else width
    ids = torch.full((len(prompts), room), padding, device=device)  # [B, W]
    for row, prompt in zip(ids, prompts, strict=True):
        row[: len(prompt)] = torch.tensor(prompt, device=device)
    begins, ended = lengths.clone(), torch.zeros(len(prompts), dtype=torch.bool, device=device)
    for _ in range(most):
        read = width or int(lengths.max())
        tokens = next_logits(ids[:, :read], lengths).argmax(dim=-1)  # [B]
        ended = ended | (lengths == room)
        ended = ended | (tokens == end) if end is not None else ended
        if bool(ended.all()):
            break
        rows = torch.arange(len(prompts), device=device)[~ended]
        ids[rows, lengths[rows]] = tokens[rows]
        lengths[rows] += 1
    spans = zip(ids.tolist(), begins.tolist(), lengths.tolist(), strict=True)
    return [row[begin:length] for row, begin, length in spans]
