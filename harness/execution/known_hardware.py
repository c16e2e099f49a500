"""Machines to plan for that aren't here: how fast training is guessed to be on them, and their memory.

Training with small batches waits for memory more than for arithmetic, so that the rate that is assumed of an H100
is scaled by the memory bandwidths that the makers publish. Source: NVIDIA's data sheets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.common.errors import HarnessError
from harness.execution.duration import CORE_SPEED, GPU_SPEED

_ASSUMED = "h100-80gb"
# Name -> memory in GiB (as sold), memory bandwidth in GB/s.
_GPUS = {
    "h200": (141, 4800), "h100-80gb": (80, 3350), "a100-80gb": (80, 2039), "a100-40gb": (40, 1555), "l40s": (48, 864),
    "a10": (24, 600), "l4": (24, 300), "v100-32gb": (32, 900), "v100-16gb": (16, 900), "t4": (16, 320),
    "rtx4090": (24, 1008), "rtx3090": (24, 936),
}  # fmt: skip


@dataclass(frozen=True)
class PlannedHardware:
    """So many devices of a kind: operations a second of one, its memory in bytes (None: not known), and the source."""

    name: str
    count: int
    speed: float
    memory: int | None
    source: str

    @property
    def words(self) -> str:
        """`8 × a100-80gb`."""
        return f"{self.count} × {self.name}"

    def fit(self, lane_bytes: int | None) -> str:
        """How many lanes fit on one, in a sentence; empty where that isn't known."""
        if lane_bytes is None or self.memory is None:
            return ""
        lanes = int(0.9 * self.memory // lane_bytes)
        return f"About {lanes} lanes fit on one {self.name}." if lanes else f"A lane does not fit on one {self.name}."


def read(text: str) -> PlannedHardware:
    """The hardware of `a100-80gb,8` or `cores,64`; raises HarnessError for others."""
    match = re.fullmatch(r"([a-z0-9-]+)(?:,([1-9]\d{0,4}))?", text.strip().lower())
    if match is None or match[1] not in (*_GPUS, "cores"):
        raise HarnessError(
            "--hardware must be a kind of machine and how many (for example: a100-80gb,8)",
            got=f"'{text}'",
            allowed=", ".join((*_GPUS, "cores")),
        )
    name, count = match[1], int(match[2] or 1)
    if name == "cores":
        return PlannedHardware(
            name, count, CORE_SPEED, None, "a rate that small batches reach on a core, within a factor of three"
        )
    gib, bandwidth = _GPUS[name]
    speed = GPU_SPEED * bandwidth / _GPUS[_ASSUMED][1]
    source = "a rate that small batches reach on a large GPU, within a factor of three"
    if name != _ASSUMED:
        source += f", scaled by the published memory bandwidths ({bandwidth:,} of {_GPUS[_ASSUMED][1]:,} GB/s)"
    return PlannedHardware(name, count, speed, gib * 2**30, source)
