"""How a device holds lanes and gets what the host made: rows that are aligned alike, copies that nobody waits for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Numbers of float32 in 256 bytes, which the widest load of a GPU's kernels and its allocator agree on.
ALIGNED = 64


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """`values` of the host on the device; to a CUDA device by way of pinned memory, so that the host goes straight on.

    A plain copy waits until the device has done all that it was given, which makes each step as long as the host's
    part and the device's together.
    """
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def lane_rows(shape: Sequence[int], like: Tensor) -> Tensor:
    """Zeros of a `shape` [L, P] as `like` in type and device; each row begins at a multiple of 256 bytes.

    Kernels read several numbers at once and group them by where they lie (on processors without AVX-512 also MKL's
    products of a single row), so that the last bits of a sum would hang on a lane's place in its pack; and a GPU's
    products of rows that aren't aligned take slower kernels.
    """
    lanes, size = shape
    stride = -(-size // ALIGNED) * ALIGNED
    return torch.zeros(lanes, stride, dtype=like.dtype, device=like.device)[:, :size]


def copied(values: Tensor) -> Tensor:
    """A copy of rows [L, P] that lies as `lane_rows` does."""
    return lane_rows(values.shape, values).copy_(values)
