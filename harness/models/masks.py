"""What a network is told of padding, so that no layer sees it and local layers stay local.

A ready mask stands in for every mask that transformers would make, so it is right only where all layers attend alike.
Every other network gets one value a token and makes its own masks: causal, local or chunked, as its layers are.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

# `row` and `causal` are ready additive masks [B, 1, 1, T] and [B, 1, T, T]; `tokens` is 1 for a real token [B, T].
Kind = Literal["row", "causal", "tokens"]
# Ready masks cost less, as they are made once for all lanes, and outside of the recorded step.
_ROW = ("albert", "bert", "camembert", "distilbert", "electra", "mpnet", "roberta", "xlm-roberta")
_CAUSAL = ("gpt2", "llama", "qwen2")


def kind_of(config: Any) -> Kind:
    """The kind of mask that a model of this configuration is given."""
    if config.model_type in _ROW and not getattr(config, "is_decoder", False):
        return "row"
    if config.model_type in _CAUSAL and not _has_local_layers(config):
        return "causal"
    _always_make_masks()
    return "tokens"


def _has_local_layers(config: Any) -> bool:
    return any(kind != "full_attention" for kind in getattr(config, "layer_types", None) or ())


def mask(kind: Kind, lengths: Tensor, width: int, *, left: bool = False) -> Tensor:
    """The mask of texts padded to `width`, on the right or `left`, of which `lengths` [...] tokens are real."""
    places = torch.arange(width, device=lengths.device)
    real = places >= width - lengths[..., None] if left else places < lengths[..., None]  # [..., T]
    if kind == "tokens":
        return real.long()
    if kind == "causal":
        real = real[..., None, :] & torch.ones(width, width, dtype=torch.bool, device=real.device).tril()
    additive = torch.zeros(real.shape, device=real.device).masked_fill_(~real, torch.finfo(torch.float32).min)
    return additive[..., None, :, :] if kind == "causal" else additive[..., None, None, :]


def lengths_of(given: Tensor) -> Tensor:
    """How many tokens of each text [B] are real, from a `tokens` or `causal` mask."""
    if given.dim() == 2:
        return given.sum(dim=-1)
    return (given[:, 0, -1] == 0).sum(dim=-1)  # the last position sees all real ones


def full_mask(*args: Any, **options: Any) -> Tensor:
    """The additive mask of transformers' own attention, [B, 1, T, T], also where no token is padding.

    It is left out there, by a look at its values, which vmap forbids. Zeros are added instead, which changes no bit.
    """
    from transformers.masking_utils import eager_mask

    made: Tensor = eager_mask(*args, **(options | {"allow_is_bidirectional_skip": False}))
    return made


def _always_make_masks() -> None:
    from transformers import AttentionMaskInterface

    AttentionMaskInterface.register("eager", full_mask)
