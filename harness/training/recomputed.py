"""Activation checkpointing (Chen et al. 2016, arXiv:1604.06174): each layer is computed again in the backward pass.

Between the passes only what enters a layer is kept. torch's own checkpointing can't be used inside vmap, whose lanes
are gone when the backward pass computes again; so a layer leaves vmap, is checkpointed over the lanes' stacked tensors,
and enters it anew inside. The operations are the same ones on the same values, and so are the bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten
from torch.utils.checkpoint import checkpoint

from harness.common.errors import HarnessError

Around = Callable[[], AbstractContextManager[object]]


def layers(module: nn.Module) -> nn.ModuleList:
    """The layers of a language model; raises HarnessError where it has no list of them."""
    config: Any = module.config
    depth = getattr(config, "num_hidden_layers", None)
    for part in module.modules():
        if isinstance(part, nn.ModuleList) and len(part) == depth:
            return part
    raise HarnessError(
        f"activation_checkpointing does not support models of the type '{config.model_type}'",
        fix="Remove activation_checkpointing, or lower batch_size",
    )


@contextmanager
def recomputed(module: nn.Module, around: Around) -> Iterator[None]:
    """Have the layers of a module that is called under vmap inside keep no activations for their backward pass.

    Args:
        module: A language model.
        around: What is entered around a layer, also when it is computed again: the precision, no dropout.
    """
    with ExitStack() as changed:
        for layer in layers(module):
            layer.forward = _Recomputed(layer, around)
            changed.callback(layer.__dict__.pop, "forward")
        yield


class _Recomputed:
    """The forward pass of one lane's layer, whose parameters the module has been given."""

    def __init__(self, layer: nn.Module, around: Around) -> None:
        self.layer, self.around = layer, around

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        parameters = dict(self.layer.named_parameters())
        values, spec = tree_flatten((args, kwargs))
        places = [place for place, value in enumerate(values) if isinstance(value, Tensor)]
        specs: list[TreeSpec] = []

        def run(*tensors: Tensor) -> tuple[Tensor, ...]:
            given, inputs = list(values), tensors[len(parameters) :]
            for place, tensor in zip(places, inputs, strict=True):
                given[place] = tensor
            args, kwargs = tree_unflatten(given, spec)
            own = self.layer.__dict__.pop("forward", None)
            try:
                with self.around():
                    result = functional_call(self.layer, dict(zip(parameters, tensors, strict=False)), args, kwargs)
            finally:
                if own is not None:
                    self.layer.__dict__["forward"] = own
            results, of = tree_flatten(result)
            specs[:] = [of]
            return tuple(results)

        apply: Any = _Layer.apply
        results = apply(run, *parameters.values(), *(values[place] for place in places))
        return tree_unflatten(list(results), specs[0])


class _Layer(torch.autograd.Function):
    """A layer that leaves vmap: its rule for a stack of lanes is the checkpoint."""

    @staticmethod
    def forward(run: Callable[..., tuple[Tensor, ...]], *tensors: Tensor) -> tuple[Tensor, ...]:
        """Never called: it is under vmap always."""
        raise NotImplementedError

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept: autograd sees the operations of `vmap`."""

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], run: Callable[..., tuple[Tensor, ...]], *tensors: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """All lanes' layers, computed again in the backward pass."""
        lanes = vmap(run, in_dims=in_dims[1:])
        results: tuple[Tensor, ...] = checkpoint(lanes, *tensors, use_reentrant=False, preserve_rng_state=False)
        return results, (0,) * len(results)
