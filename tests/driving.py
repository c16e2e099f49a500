"""Shared by the tests that disturb sweeps: what was kept, in bits, and which processes are a sweep's own."""

import os
import subprocess
from pathlib import Path

import numpy as np

from harness.records.store import Store


def quiet(progress: object) -> None:
    """Show nothing."""


def content(store: Store) -> dict[str, tuple[str, ...]]:
    """What each record measured, in bits; the arrays beside it are those it was written with."""
    found = {}
    for path in sorted(store.trials.glob("*.json")):
        record = store.load(path.stem)
        assert record is not None
        assert record.measured is not None
        assert record.arrays_sha256 == store.arrays_sha256(record.id)
        measured = record.measured
        found[record.id] = (measured.weights_sha256, str(measured.final_score), str(record.arrays_sha256))
    return found


def ray_workers(of: int | None = None) -> list[int]:
    """The Ray workers that train for a driver, this process unless named, and for no other sweep on the machine."""
    listed = subprocess.run(["pgrep", "-f", "^ray::RayWorker"], capture_output=True, text=True, check=False)
    return [process for process in map(int, listed.stdout.split()) if descends(process, of or os.getpid())]


def descends(process: int, of: int) -> bool:
    """Whether a process is of another's family."""
    while process > 1:
        if process == of:
            return True
        try:
            process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return False
    return False


def same_arrays(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> bool:
    """Bit for bit, names too; NaN equals NaN."""
    return found.keys() == wanted.keys() and all(
        np.array_equal(found[name], value, equal_nan=value.dtype.kind == "f") for name, value in wanted.items()
    )
