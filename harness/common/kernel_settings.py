"""Environment variables that choose the kernels of MKL, oneDNN, ATen, OpenMP, OpenBLAS and NVIDIA's libraries.

They change the order or the precision of sums, and so a result's last bits. Numbers of threads are not among them:
torch's own is set by the harness and recorded.
"""

import os
from collections.abc import Mapping

# What a GPU's products need to be deterministic (NVIDIA's cuBLAS documentation, "Results reproducibility").
CUBLAS = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
NAMES = (
    "ATEN_CPU_CAPABILITY", "CUBLASLT_WORKSPACE_SIZE", CUBLAS[0], "DNNL_DEFAULT_FPMATH_MODE", "DNNL_MAX_CPU_ISA",
    "KMP_DETERMINISTIC_REDUCTION", "MKL_CBWR", "MKL_DEBUG_CPU_TYPE", "MKL_DYNAMIC", "MKL_ENABLE_INSTRUCTIONS",
    "NVIDIA_TF32_OVERRIDE", "OMP_DYNAMIC", "ONEDNN_DEFAULT_FPMATH_MODE", "ONEDNN_MAX_CPU_ISA", "OPENBLAS_CORETYPE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "TORCH_BLAS_PREFER_CUBLASLT",
)  # fmt: skip
NONE = "none"  # is set


def in_force(device: str, environment: Mapping[str, str] = os.environ) -> str:
    """Those that are set where a pack trains on this device, as `NAME=VALUE` with spaces between them, or `none`."""
    values = {name: environment[name] for name in NAMES if environment.get(name)}
    if device.startswith("cuda"):
        values.setdefault(*CUBLAS)  # as the harness sets it before the first product
    return " ".join(f"{name}={values[name]}" for name in sorted(values)) or NONE


def changes(before: str, now: str) -> str:
    """What differs between two texts of `in_force`: `MKL_CBWR: COMPATIBLE then, not set now`."""
    old, new = (dict(part.partition("=")[::2] for part in text.split() if "=" in part) for text in (before, now))
    names = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    return "; ".join(f"{name}: {old.get(name, 'not set')} then, {new.get(name, 'not set')} now" for name in names)
