"""AdamW's update of all lanes in one pass over the weights, on a CUDA device; what `LaneAdamW` does in a dozen.

Weights, gradient and moments are read once and written once, and the norms that a recording keeps of an update are
taken on the way. Triton compiles it at the first update; where it can't, or the result isn't that of torch's
operations within rounding, training goes on without it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from harness.training.transfer import copied, lane_rows

_BLOCK = 1024
# Of the values after an update, against torch's operations: a fused multiply-add rounds once where they round twice.
_TOLERANCE = 1e-6


def adamw(
    weights: Tensor, gradient: Tensor, first: Tensor, second: Tensor, decayed: Tensor, settings: Tensor
) -> tuple[Tensor, Tensor]:
    """Change weights and moments [L, P] by `gradient`, which is left as it is; the norms of weights and update, [L].

    Their rows lie as `transfer.lane_rows` lays them. `decayed` [P] is 1 where weight decay applies; the rows of
    `settings` [8, L] are clip, β1, 1−β1, β2, 1−β2, ε, step size and decay, 1 − β rounded from float64.
    """
    lanes, size = weights.shape
    if len({value.stride() for value in (weights, gradient, first, second)}) != 1:
        raise ValueError("weights, gradient and moments lie alike")
    blocks = -(-size // _BLOCK)
    sums = lane_rows((2 * lanes, blocks), weights)
    _kernel()[(blocks, lanes)](
        weights, gradient, first, second, decayed, settings, sums,
        size, weights.stride(0), lanes, sums.stride(0), BLOCK=_BLOCK,
    )  # fmt: skip
    norms = sums.sum(dim=1, dtype=torch.float64).sqrt().float()
    return norms[:lanes], norms[lanes:]


@cache
def works(device: int) -> bool:
    """Whether the kernel runs there and updates as `reference` does."""
    try:
        generator = torch.Generator(f"cuda:{device}").manual_seed(1)
        made = [copied(torch.randn(3, 2 * _BLOCK + 5, device=generator.device, generator=generator)) for _ in range(4)]
        made[3].square_()  # a second moment
        decayed = (made[0][0] > 0).float()
        rows = (0.5, 0.9, 0.1, 0.999, 0.001, 1e-6, 1e-3, 1e-2)
        settings = torch.tensor(rows, device=generator.device)[:, None].repeat(1, 3)
        settings[0, 1] = torch.nan
        expected = [copied(value) for value in made]
        norms = adamw(*made, decayed, settings), reference(*expected, decayed, settings)  # type: ignore[call-arg]
        pairs = zip([*made, *norms[0]], [*expected, *norms[1]], strict=True)
        return all(torch.allclose(a, b, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True) for a, b in pairs)
    except Exception:  # no Triton, or one that can't build for this device
        return False


def reference(
    weights: Tensor, gradient: Tensor, first: Tensor, second: Tensor, decayed: Tensor, settings: Tensor
) -> tuple[Tensor, Tensor]:
    """As `adamw`, in torch's operations."""
    clip, beta1, rest1, beta2, rest2, eps, step, decay = settings[:, :, None]
    before = weights.clone()
    g = gradient * clip
    first.mul_(beta1).addcmul_(g, rest1)
    second.mul_(beta2).addcmul_(g * g, rest2)
    weights.sub_(first / (second.sqrt() + eps) * step)
    weights.sub_(weights * decayed * decay)
    return before.norm(dim=1), (before - weights).norm(dim=1)


@cache
def _kernel() -> Any:
    """The Triton kernel; raises ImportError where Triton isn't installed."""
    import triton
    import triton.language as tl

    globals()["tl"] = tl  # where Triton looks for what a kernel names

    @triton.jit(do_not_specialize=["lanes"])  # type: ignore[untyped-decorator]
    def kernel(  # type: ignore[no-untyped-def]
        weights, gradient, first, second, decayed, settings, sums,
        size, stride, lanes, sums_stride, BLOCK: tl.constexpr,  # noqa: N803
    ):  # fmt: skip
        block = tl.program_id(0)
        lane = tl.program_id(1)
        at = block * BLOCK + tl.arange(0, BLOCK)
        inside = at < size
        address = lane.to(tl.int64) * stride + at
        clip = tl.load(settings + lane)
        beta1 = tl.load(settings + lanes + lane)
        rest1 = tl.load(settings + 2 * lanes + lane)
        beta2 = tl.load(settings + 3 * lanes + lane)
        rest2 = tl.load(settings + 4 * lanes + lane)
        eps = tl.load(settings + 5 * lanes + lane)
        step = tl.load(settings + 6 * lanes + lane)
        decay = tl.load(settings + 7 * lanes + lane)
        w = tl.load(weights + address, mask=inside, other=0.0)
        g = tl.load(gradient + address, mask=inside, other=0.0) * clip
        m = tl.load(first + address, mask=inside, other=0.0) * beta1 + g * rest1
        v = tl.load(second + address, mask=inside, other=0.0) * beta2 + g * g * rest2
        new = w - tl.div_rn(m, tl.sqrt_rn(v) + eps) * step
        new = new - new * tl.load(decayed + at, mask=inside, other=0.0) * decay
        tl.store(weights + address, new, mask=inside)
        tl.store(first + address, m, mask=inside)
        tl.store(second + address, v, mask=inside)
        move = tl.where(inside, new - w, 0.0)
        tl.store(sums + lane * sums_stride + block, tl.sum(w * w, axis=0))
        tl.store(sums + (lanes + lane) * sums_stride + block, tl.sum(move * move, axis=0))

    return kernel
