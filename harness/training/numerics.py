"""What decides the last bits of a result beside its recipe: threads, precisions, kernels, versions, random streams."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import torch

from harness.common.kernel_settings import CUBLAS


def stream(purpose: str, seed: int, device: str | torch.device = "cpu") -> torch.Generator:
    """A random stream of its own for (purpose, seed): the streams of one seed are unrelated to each other."""
    return torch.Generator(device).manual_seed(stream_key(purpose, seed))


def stream_key(purpose: str, seed: int) -> int:
    """A number of 63 bits for (purpose, seed)."""
    digest = hashlib.sha256(f"{purpose}:{seed}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@contextmanager
def deterministic_numerics(device: str, threads: int, precision: str) -> Iterator[None]:
    """Fix threads, precision and kernels while a pack trains, and put them back afterwards.

    Args:
        device: `cpu`, or a CUDA device, whose kernels are the deterministic ones from here on.
        threads: CPU threads that torch computes with.
        precision: a recipe's; `tf32` lets products of float32 round their factors.
    """
    _keep_memory()
    threads_before, precision_before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    deterministic_before = torch.are_deterministic_algorithms_enabled()
    memory: Any = torch.utils.deterministic
    fill_before = memory.fill_uninitialized_memory
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    if device.startswith("cuda"):
        os.environ.setdefault(*CUBLAS)
        torch.use_deterministic_algorithms(True, warn_only=True)
        memory.fill_uninitialized_memory = False  # a kernel more for every new tensor; none is read
        torch.cuda.reset_peak_memory_stats(device)
    try:
        yield
    finally:
        torch.set_num_threads(threads_before)
        torch.set_float32_matmul_precision(precision_before)
        torch.use_deterministic_algorithms(deterministic_before)
        memory.fill_uninitialized_memory = fill_before


def settings_in_force(device: str, threads: int, precision: str) -> tuple[bool, str]:
    """Whether torch's algorithms are deterministic while a pack trains, and the precision of its float32 products."""
    with deterministic_numerics(device, threads, precision):
        return torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision()


def versions() -> dict[str, str]:
    """The versions of what computes: python, torch, transformers."""
    import transformers

    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
    }


@cache
def _keep_memory() -> None:
    """Have glibc keep freed memory: a step on a CPU frees and takes the same megabytes a thousand times."""
    with suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
        mallopt(-3, 2**25)  # M_MMAP_THRESHOLD, the most that is taken
