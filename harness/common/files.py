"""Files written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path


def user_cache() -> Path:
    """The folder of what is kept for this user and can be made again: measurements, compiled kernels."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stability-harness"


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, and have it on the disk before returning."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
    flush(path.parent)


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Write strict JSON for programs and people, as `write` does; raises ValueError for NaN."""
    write(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def flush(path: Path) -> None:
    """Have a file, or a folder's list of files, on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
