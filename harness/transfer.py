"""Moving what the host made to the device that trains, without waiting for the device."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """`values` of the host on the device; to a CUDA device by way of pinned memory, so that the host goes straight on.

    A plain copy waits until the device has done all that it was given, which makes each step as long as the host's
    part and the device's together.
    """
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)
