"""Dropout: of every place of a model, from the lanes' own streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from harness.config.recipe import Recipe
from harness.training import philox
from harness.training.numerics import stream, stream_key
from harness.training.pack import TrainingPack
from harness.training.remedies.remedy import Reading, Remedy
from harness.training.transfer import to_device

Rate = float | Literal["model"]
# A place of dropout in a forward pass: how many numbers it draws there, the model's own rate.
Site = tuple[int, float]
_PARTS = 65536  # of a rate: a decision takes 16 random bits


class Dropout(Remedy):
    """Each lane drops at its own rate: that of its recipe at every place, as the study sets them alike, or the model's.

    One draw a lane and forward pass serves all places of the model, which are found by a pass that drops nothing, once
    for each shape of a batch.
    """

    name = "dropout"
    order = 70
    is_random = True

    def __init__(self, pack: TrainingPack) -> None:
        """The lanes' rates and streams."""
        super().__init__(pack)
        self.masks = Masks([recipe.dropout for recipe in pack.recipes], pack.seeds("dropout_seed"), pack.device)
        self.streams = self.masks.streams
        self.sites: dict[tuple[int, ...], list[Site]] = {}  # (batch, width) -> where a forward pass draws

    @staticmethod
    def used_by(recipe: Recipe) -> bool:
        """Whether it may drop anything: a model's own rates are known when it is loaded."""
        return recipe.dropout == "model" or round(recipe.dropout * _PARTS) != 0

    def step_inputs(self, reading: Reading) -> dict[str, Tensor]:
        """Masks [l, draws] of the pass, and what is kept is multiplied by."""
        batch = reading.batch
        sites, lanes = self._sites_of(reading), batch.lanes
        masks = self.masks.draw(lanes, sites, batch.update, batch.call, whole=reading.all_lanes)
        return {"masks": masks, "scale": self.masks.scales[lanes]}

    def forward_context(self, module: nn.Module, given: Mapping[str, Tensor]) -> AbstractContextManager[object]:
        """Have every call of dropout take its mask from the lane's pool."""
        return _ApplyMasks(given["masks"], given["scale"])

    def fixed_memory(self) -> set[int]:
        """Where masks of all lanes are written."""
        return self.masks.memory()

    def _sites_of(self, reading: Reading) -> list[Site]:
        shape = tuple(reading.inputs["input_ids"].shape[1:])
        if shape not in self.sites:
            reading.forward.module.train()  # in evaluation a model calls it with a rate of 0
            first = (
                {name: value[0] for name, value in values.items()} for values in (reading.arguments, reading.inputs)
            )
            with torch.no_grad(), NoDropout() as counted:
                reading.forward.logits(*first)
            self.sites[shape] = counted.sites
        return self.sites[shape]


class NoDropout(TorchFunctionMode):
    """Drops nothing, and notes where a forward pass of a lane would draw: how many numbers, at which rate."""

    def __init__(self) -> None:
        """Begin with no place."""
        super().__init__()
        self.sites: list[Site] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Pass on what goes into dropout as it is."""
        if func is F.dropout:
            self.sites.append((args[0].numel(), _rate(*args[1:], **(kwargs or {}))))
            return args[0]
        return func(*args, **(kwargs or {}))


def _rate(p: float = 0.5, training: bool = True, inplace: bool = False, input: object = None) -> float:
    """The rate that `F.dropout` was called with beside its input."""
    return float(p) if training else 0.0


class _ApplyMasks(TorchFunctionMode):
    """Every call of dropout, wherever it stands in the model, takes its mask from the lane's pool [draws]."""

    def __init__(self, masks: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.masks, self.scale, self.used = masks, scale, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.dropout:
            x = args[0]
            mask = self.masks[self.used : self.used + x.numel()].view(x.shape)
            self.used += x.numel()
            # Never in bf16, where the scale would be rounded; as a rule it is added to float32 next.
            masked = x.float() * mask
            return masked * self.scale if mask.dtype == torch.bool else masked
        return func(*args, **(kwargs or {}))


def from_counter(device: torch.device) -> bool:
    """Whether the numbers come from a counter there, instead of a stream a lane."""
    return device.type != "cpu"


class Masks:
    """The dropout masks of each lane: one draw a lane and step for all places of the model.

    A keep decision takes 16 random bits, so a rate is rounded to 1/65536 and the scale is that of the rounded rate. On
    a CPU they come from a stream a lane, where drawing 64 bits at a time costs a fifth of `bernoulli_`; elsewhere from
    a counter (`philox`), which draws for all lanes in one launch.
    """

    def __init__(self, rates: Sequence[Rate], seeds: Sequence[int], device: torch.device) -> None:
        """One rate and one seed a lane."""
        self.cuts = [None if rate == "model" else round(rate * _PARTS) for rate in rates]  # None: each place its own
        self.device = device
        self.counted = from_counter(device)
        self.streams = [] if self.counted else [stream("dropout", seed) for seed in seeds]
        self.keys = torch.tensor([stream_key("dropout", seed) for seed in seeds], device=device)  # [L]
        self.limits = torch.tensor([cut or 0 for cut in self.cuts], device=device)  # [L]
        self.scales = torch.tensor([_scale(cut or 0) for cut in self.cuts], device=device)  # [L]
        self._buffers: dict[tuple[int, int], Tensor] = {}

    def draw(self, lanes: Sequence[int], sites: Sequence[Site], update: int, call: int, *, whole: bool) -> Tensor:
        """Masks [l, draws] of an update's call: bool, or scaled float32.

        The latter on a CPU, where that multiplies fastest, and where places differ in their rates. With `whole` they
        are of all lanes, and bool ones are written where the last such were, for the next call to overwrite.
        """
        draws = sum(count for count, _ in sites)
        if self.counted:
            if None in self.cuts:
                return self._counted_by_site(lanes, sites, update, call)
            keys, limits, out = self.keys, self.limits, None
            if whole:
                out = self._buffer(len(lanes), -(-draws // philox.DECISIONS))
            else:
                chosen = to_device(torch.tensor(lanes), self.device)
                keys, limits = keys[chosen], limits[chosen]
            return philox.keep(keys, limits, update, call, draws, out)
        masks = torch.empty(len(lanes), draws)
        bits = torch.empty((draws + 3) // 4, dtype=torch.int64)
        for row, lane in enumerate(lanes):
            bits.random_(-(2**63), None, generator=self.streams[lane])
            drawn, cut = bits.view(torch.int16)[:draws], self.cuts[lane]
            if cut is not None:
                torch.ge(drawn, cut - 32768, out=masks[row])
                continue
            start = 0
            for count, rate in sites:
                site, own = slice(start, start + count), round(rate * _PARTS)
                torch.ge(drawn[site], own - 32768, out=masks[row, site])
                masks[row, site].mul_(_scale(own))
                start += count
        return masks.mul_(self.scales[lanes, None])

    def _counted_by_site(self, lanes: Sequence[int], sites: Sequence[Site], update: int, call: int) -> Tensor:
        """Scaled masks [l, draws] where lanes leave each place its rate: the same numbers against several cuts."""
        chosen = to_device(torch.tensor(lanes), self.device)
        by_site = to_device(torch.tensor([self.cuts[lane] is None for lane in lanes]), self.device)
        keys, draws, start = self.keys[chosen], sum(count for count, _ in sites), 0
        masks = torch.empty(len(lanes), draws, device=self.device)
        known: dict[int, tuple[Tensor, Tensor]] = {}
        for count, rate in sites:
            cut = round(rate * _PARTS)
            if cut not in known:
                limits = torch.where(by_site, cut, self.limits[chosen])
                scales = torch.where(by_site, _scale(cut), self.scales[chosen])
                known[cut] = philox.keep(keys, limits, update, call, draws), scales[:, None]
            keeps, scale = known[cut]
            torch.mul(keeps[:, start : start + count], scale, out=masks[:, start : start + count])
            start += count
        return masks

    def _buffer(self, lanes: int, counters: int) -> Tensor:
        if (lanes, counters) not in self._buffers:
            self._buffers[lanes, counters] = torch.empty(lanes, counters, dtype=torch.int64, device=self.device)
        return self._buffers[lanes, counters]

    def memory(self) -> set[int]:
        """Where masks of all lanes are written, as `data_ptr`."""
        return {buffer.data_ptr() for buffer in self._buffers.values()}


def _scale(cut: int) -> float:
    """What is kept at a rate of cut / 65536 is multiplied by."""
    return _PARTS / (_PARTS - cut) if cut < _PARTS else 0.0
