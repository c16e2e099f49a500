"""Which parameters are the scales of normalisations: one answer for weight decay, for drawing afresh, for adapters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import torch
from torch import nn
from torch.func import functional_call

_TORCH = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)


def modules(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The normalisations inside a module that have a scale, by their paths, in the module's order."""
    for path, part in module.named_modules():
        if _is_normalisation(part):
            yield path, part


def scales(module: nn.Module) -> dict[str, float]:
    """The scale of each normalisation by its parameter's name, and the value with which it changes nothing.

    That is 1 where the scale multiplies, and 0 where 1 is added to it first, as in Gemma.
    """
    neutral: dict[type, float] = {}
    names = {}
    for path, part in modules(module):
        if type(part) not in neutral:
            neutral[type(part)] = _neutral(part)
        names[f"{path}.weight" if path else "weight"] = neutral[type(part)]
    return names


def _is_normalisation(part: nn.Module) -> bool:
    """Whether a module has a scale of its own and is called a normalisation, or is built as one.

    Families have classes of their own (DeBERTa's, MobileBERT's, I-BERT's, the RMSNorm of T5, Llama, EuroBERT), so
    their names and shapes decide: nothing else has a weight with one axis and at most a bias as long beside it,
    but for PReLU, whose weight is a slope.
    """
    own = dict(part.named_parameters())  # with those of its parts, where it has any
    weight = own.get("weight")
    if weight is None or isinstance(part, nn.PReLU):
        return False
    if isinstance(part, _TORCH):
        return True
    if not own.keys() <= {"weight", "bias"} or any(value.shape != weight.shape for value in own.values()):
        return False
    return weight.dim() == 1 or "norm" in type(part).__name__.lower()


@torch.no_grad()
def _neutral(part: nn.Module) -> float:
    """Found out by a call with a scale of 0: an answer that is not 0 has 1 added to it."""
    nothing = {name: torch.zeros_like(value, device="cpu") for name, value in part.named_parameters()}
    if isinstance(part, nn.GroupNorm | nn.modules.batchnorm._NormBase):  # whose channels don't stand last
        return 1.0
    weight = nothing["weight"]
    probe = torch.linspace(-1.0, 2.0, weight.numel()).view(1, *weight.shape)
    with suppress(Exception):  # one that takes more than what it normalises: none known adds 1
        answer = functional_call(part, nothing, (probe,))
        return float(isinstance(answer, torch.Tensor) and not answer.any())
    return 1.0
