"""Which numbers dropout keeps, for all lanes at once, from a counter: Philox4x32-10 keyed by each lane's own seed.

A decision depends on (seed, update, call within the update, position) alone, so neither the pack nor what was drawn
before changes it, and there is no state to keep. On a CUDA device one Triton kernel writes them; `keep_by_torch` is the
same function in torch's operations, for other devices and as the kernel's reference.

Source: Salmon et al. (2011), "Parallel random numbers: as easy as 1, 2, 3".
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_LOW = 0xFFFFFFFF
# Each counter gives four words of 32 bits, which are eight decisions of 16 bits, stored as eight bytes.
DECISIONS = 8
_BLOCK = 1024  # counters of a program of the kernel


def keep(seeds: Tensor, cuts: Tensor, update: int, call: int, draws: int, out: Tensor | None = None) -> Tensor:
    """Which numbers each lane keeps in dropout: where its 16 random bits reach the lane's cut.

    Args:
        seeds: [L] int64 on the device.
        cuts: [L] int64 on the device; a cut of c drops with probability c / 65536.
        update: The update, which keys the draws.
        call: The number of the draw within the update.
        draws: How many numbers there are.
        out: Takes the decisions, int64 [L, ⌈draws / 8⌉]; None: new memory.

    Returns:
        bool [L, draws], on where a number is kept.
    """
    if out is None:
        out = torch.empty(len(seeds), -(-draws // DECISIONS), dtype=torch.int64, device=seeds.device)
    if seeds.device.type == "cuda" and _kernel_works(seeds.device.index or 0):
        _launch(out, seeds, cuts, update, call)
    else:
        out.copy_(keep_by_torch(seeds, cuts, update, call, out.shape[1]))
    return out.view(torch.uint8).view(torch.bool)[:, :draws]


def keep_by_torch(seeds: Tensor, cuts: Tensor, update: int, call: int, counters: int) -> Tensor:
    """As `keep`, eight decisions a counter in the bytes of an int64, [L, counters]."""
    first = torch.arange(counters, device=seeds.device).expand(len(seeds), -1)
    constant = torch.zeros_like(first)
    key = (seeds & _LOW)[:, None], (seeds >> 32 & _LOW)[:, None]
    words = philox((first, constant + call, constant + update, constant), key)
    packed = constant
    for number, word in enumerate(words):
        for half in (0, 1):
            keeps = (word >> 16 * half & 0xFFFF) >= cuts[:, None]
            packed = packed | keeps.long() << 8 * (2 * number + half)
    return packed


def philox(counter: Sequence[Tensor], key: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Four random words for counters of four words and keys of two, all int64 of 32 bits."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        (high0, low0), (high1, low1) = (_product(m, c) for m, c in zip(_MULTIPLIERS, (c0, c2), strict=True))
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
    return c0, c1, c2, c3


def _product(factor: int, word: Tensor) -> tuple[Tensor, Tensor]:
    """The high and the low word of a product of two words; no step of it needs more than 63 bits."""
    upper, lower = factor * (word >> 16), factor * (word & 0xFFFF)
    return (upper + (lower >> 16)) >> 16, (lower + ((upper & 0xFFFF) << 16)) & _LOW


def _launch(out: Tensor, seeds: Tensor, cuts: Tensor, update: int, call: int) -> None:
    grid = (-(-out.shape[1] // _BLOCK), len(seeds))
    _kernel()[grid](out, seeds, cuts, update, call, out.shape[1], BLOCK=_BLOCK)


@cache
def _kernel_works(device: int) -> bool:
    """Whether the kernel runs there and gives the bits of `keep_by_torch`."""
    seeds = torch.tensor([1, 2**40 + 17, 2**62 + 12345], device=f"cuda:{device}")
    cuts = torch.tensor([6554, 0, 65535], device=seeds.device)
    out = torch.empty(3, _BLOCK + 7, dtype=torch.int64, device=seeds.device)
    try:
        _launch(out, seeds, cuts, 12345, 3)
    except Exception:  # no Triton, or one that can't build for this device: torch's operations take its place
        return False
    return torch.equal(out, keep_by_torch(seeds, cuts, 12345, 3, out.shape[1]))


@cache
def _kernel() -> Any:
    """The Triton kernel; raises ImportError where Triton isn't installed."""
    import triton
    import triton.language as tl

    globals()["tl"] = tl  # where Triton looks for what a kernel names

    @triton.jit(do_not_specialize=["update", "call", "counters"])  # type: ignore[untyped-decorator]
    def kernel(out, seeds, cuts, update, call, counters, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
        lane = tl.program_id(1)
        at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        zero = at * 0
        words = tl.philox(tl.load(seeds + lane), at, zero + call, zero + update, zero)
        cut = tl.load(cuts + lane).to(tl.uint32)
        packed = zero.to(tl.int64)
        for number in tl.static_range(4):
            low = ((words[number] & 0xFFFF) >= cut).to(tl.int64)
            high = ((words[number] >> 16) >= cut).to(tl.int64)
            packed = packed | (low << (16 * number)) | (high << (16 * number + 8))
        tl.store(out + lane.to(tl.int64) * counters + at, packed, mask=at < counters)

    return kernel
