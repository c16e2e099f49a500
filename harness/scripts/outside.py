"""Which files of the folder that a script runs in changed while it ran."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Container, Iterator
from pathlib import Path

_MOST_ENTRIES, _MOST_FILES, _DEPTH = 2000, 20, 4  # so that a look costs milliseconds, whatever the folder holds
_TICK = 0.02  # seconds that the clock of files may be behind
_SKIPPED = {".git", ".venv", "__pycache__", "node_modules", ".ipynb_checkpoints"}


Inode = tuple[int, int]  # device and number: which file it is, whatever it is called


def terminal_files() -> tuple[Inode, ...]:
    """Where this process's output and errors go, as in `harness sweep mine >log`: the harness writes there, no run."""
    files = []
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):
            status = os.fstat(descriptor)
            files.append((status.st_dev, status.st_ino))
    return tuple(files)


def changed_since(
    folder: Path, started: float, results: Path | None, others: Container[Inode] = ()
) -> tuple[tuple[str, float], ...]:
    """The files below a folder that changed since a time, with when they last did.

    Left out are those of the results, and `others`, which somebody else than the run writes.
    """
    changed: list[tuple[str, float]] = []
    for number, entry in enumerate(_files(folder, results, _DEPTH)):
        if number >= _MOST_ENTRIES or len(changed) >= _MOST_FILES:
            break
        try:
            status = os.stat(entry.path)
        except OSError:
            continue
        if status.st_mtime >= started - _TICK and (status.st_dev, status.st_ino) not in others:
            changed.append((os.path.relpath(entry.path, folder), status.st_mtime))
    return tuple(changed)


def _files(folder: str | Path, results: Path | None, depth: int) -> Iterator[os.DirEntry[str]]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if depth and entry.name not in _SKIPPED and (results is None or Path(entry.path) != results):
                yield from _files(entry.path, results, depth - 1)
        elif entry.is_file(follow_symlinks=False):
            yield entry
