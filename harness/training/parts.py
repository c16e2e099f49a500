"""What the flat weights [P] of a lane are made of: parameters, and the layers that these belong to."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

_LAYER = re.compile(r"\.(\d+)\.")


def slots(names: Sequence[str], head: Collection[str]) -> dict[str, int]:
    """The slot of each parameter of a network, counted downwards from the head.

    0 is the head, 1 what else lies above the layers (a pooler), 2 the top layer, 3 the one below, …, and the
    embeddings come last. Layers that share weights (ALBERT) are one.

    Args:
        names: parameters in the module's order; a layer is known by its number in the name.
        head: the names of those that are drawn afresh for each trial.
    """
    numbers = {name: int(match[1]) for name in names if name not in head and (match := _LAYER.search(name))}
    layers = max(numbers.values(), default=-1) + 1
    slot_of: dict[str, int] = {}
    above = False
    for name in names:
        above = above or name in numbers
        if name in head:
            slot_of[name] = 0
        elif name in numbers:
            slot_of[name] = 1 + layers - numbers[name]
        else:
            slot_of[name] = 1 if above and "embed" not in name else layers + 2
    return slot_of


def depth(slot: int) -> int:
    """Layers below the head, the pooler counting as head: 0, 0, 1, 2, …"""
    return max(0, slot - 1)


@dataclass(frozen=True, eq=False)
class Parts:
    """What the flat weights [P] of a lane are made of, parameter by parameter in the module's order."""

    slots: tuple[int, ...]
    sizes: tuple[int, ...]
    columns: tuple[int, ...]  # inputs of a linear layer, whose weight is [outputs, inputs]; 0 for all else
    values: tuple[Tensor, ...]  # pretrained
    device: torch.device

    @cached_property
    def count(self) -> int:
        """One more than the highest slot."""
        return max(self.slots) + 1

    @cached_property
    def slot(self) -> Tensor:
        """The slot of each number, [P]."""
        return torch.repeat_interleave(torch.tensor(self.slots, dtype=torch.int32), torch.tensor(self.sizes)).to(
            self.device
        )

    @cached_property
    def pretrained(self) -> Tensor:
        """The pretrained values, [P]; the head's mean nothing."""
        return torch.cat([value.reshape(-1) for value in self.values]).to(self.device)

    def spread(self, table: Sequence[Sequence[float]], columns: slice, dtype: torch.dtype) -> Tensor:
        """A table [L, slots] as one value a number of the weights, [L, columns]."""
        return torch.tensor(table, dtype=dtype, device=self.device).index_select(1, self.slot[columns])


def linear_columns(module: nn.Module) -> dict[str, int]:
    """The number of inputs of each linear layer, by the name of its weight [outputs, inputs]."""
    return {f"{name}.weight": part.in_features for name, part in module.named_modules() if isinstance(part, nn.Linear)}
