"""transformers' networks for multiple choice, so that they read one sequence a row, as all other networks do."""

from __future__ import annotations

import functools
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from harness.common.errors import HarnessError

_OUTPUTS = 2  # a product with a single column takes another kernel when a lane is alone: the second is never read


def prepare(name: str, module: Any) -> frozenset[str]:
    """Give the network of the model `name` a second output, and have it read sequences one by one, in place.

    Returns:
        The names of the parameters that give the outputs.

    Raises:
        HarnessError: it has not a single linear layer with one output beside its encoder.
    """
    encoder = f"{module.base_model_prefix}."
    heads = {
        path: part
        for path, part in module.named_modules()
        if isinstance(part, nn.Linear) and part.out_features == 1 and not path.startswith(encoder)
    }
    if len(heads) != 1:
        raise HarnessError(
            f"models of the type '{module.config.model_type}' cannot be trained on task.kind: choice",
            got=f"{len(heads)} layers with one output in {type(module).__name__} of '{name}'",
            fix="Use another model",
        )
    ((path, head),) = heads.items()
    parent, _, own = path.rpartition(".")
    with torch.random.fork_rng(devices=[]):  # each trial draws its own values
        setattr(module.get_submodule(parent), own, nn.Linear(head.in_features, _OUTPUTS, bias=head.bias is not None))
    read_singly(module)
    return frozenset(f"{path}.{parameter}" for parameter, _ in head.named_parameters())


def read_singly(module: Any) -> None:
    """Have a network for multiple choice read sequences [B, T], and give each its outputs [B, K], in place.

    Its own call reads [B, choices, T] and gives one number for each choice. A sequence is here the only choice of an
    example.
    """
    module.forward = MethodType(_forward_of(type(module)), module)


def _forward_of(network: type[Any]) -> Any:
    @functools.wraps(network.forward)  # whose signature says what it takes
    def forward(self: Any, input_ids: Tensor, attention_mask: Tensor | None = None, **given: Tensor) -> Any:
        def with_mask(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            return args, kwargs | {"attention_mask": attention_mask}

        # transformers would flatten the mask as if it were [B, choices, T], and a ready one is [B, 1, T, T].
        handle = self.base_model.register_forward_pre_hook(with_mask, with_kwargs=True)
        try:
            single = {name: value[:, None] for name, value in given.items()}
            output = network.forward(self, input_ids=input_ids[:, None], **single)
        finally:
            handle.remove()
        output.logits = output.logits.reshape(len(input_ids), -1)
        return output

    return forward
