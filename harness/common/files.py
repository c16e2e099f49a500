"""Files written whole or not at all, and never through a link or in a folder that somebody else put in the way."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import IO

from harness.common.errors import HarnessError
from harness.common.text import without_controls

_KINDS = {
    stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}  # fmt: skip
_PIECE = 2**24  # bytes read at a time


def user_cache() -> Path:
    """The folder of what is kept for this user and can be made again: measurements, compiled kernels.

    That of a user without a home folder, as a container's made-up number is, lies among the temporary files. Raises
    HarnessError where somebody else took its name there.
    """
    named, home = os.environ.get("XDG_CACHE_HOME"), os.path.expanduser("~")
    if named or os.path.isabs(home):
        return Path(named or f"{home}/.cache") / "stability-harness"
    folder = temporary_folder("cache")
    if folder is None:
        raise HarnessError(
            f"cannot keep measurements in {_temporary('cache')}: others own it or may write to it",
            fix="Set HOME or XDG_CACHE_HOME to a folder that this user can write to",
        )
    return folder


def temporary_folder(what: str) -> Path | None:
    """This user's folder for something among the temporary files; None where somebody else took its name."""
    folder = _temporary(what)
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder if is_own_folder(folder) else None


def _temporary(what: str) -> Path:
    return Path(tempfile.gettempdir()) / f"harness-{what}-{os.getuid()}"


def read_regular(path: str | Path, most_bytes: int) -> bytes:
    """The content of a regular file; nothing else is opened for longer than it takes to see what it is.

    A FIFO does not block, a device is not read, a link is not followed, and a file that is too large is refused before
    any of it is read.

    Args:
        path: The file.
        most_bytes: The largest size that is read.

    Raises:
        FileNotFoundError: There is none.
        OSError: It is no regular file, it is too large, or it can't be read; `strerror` says which.
    """
    number, size = _open_regular(path)
    try:
        if size > most_bytes:
            problem = f"{size:,} bytes, more than the {most_bytes:,} that are read of such a file"
            raise OSError(errno.EFBIG, problem, str(path))
        content = os.read(number, min(size, _PIECE))
        if len(content) == size:
            return content
        pieces, left = [content], size - len(content)
        while left and (piece := os.read(number, min(left, _PIECE))):
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)
    finally:
        os.close(number)


def opened_regular(path: str | Path) -> BufferedReader:
    """A regular file, open to be read; raises as `read_regular`."""
    return os.fdopen(_open_regular(path)[0], "rb")


def file_sha256(path: str | Path) -> str:
    """The SHA-256 of a regular file of any size; raises as `read_regular`."""
    with opened_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _open_regular(path: str | Path) -> tuple[int, int]:
    """The descriptor and the size of a regular file; raises as `read_regular`."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(error.errno, "a symbolic link, not a regular file", str(path)) from None
        if error.errno == errno.ENXIO:  # a socket, or a device that is not there
            raise OSError(error.errno, "a socket or device, not a regular file", str(path)) from None
        raise
    state = os.fstat(number)
    if not stat.S_ISREG(state.st_mode):
        os.close(number)
        kind = _KINDS.get(stat.S_IFMT(state.st_mode), "something else")
        raise OSError(errno.EINVAL, f"{kind}, not a regular file", str(path))
    return number, state.st_size


def write(path: Path, content: bytes, durable: bool = True) -> None:
    """Write a file whole or not at all; a `durable` one is on the disk before this returns."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with naming(path):
            with _created(temporary) as stream:
                stream.write(content)
                stream.flush()
                if durable:
                    os.fsync(stream.fileno())
            temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
        flush(path.parent)


def _created(path: Path) -> IO[bytes]:
    """A new file, and no other that a link of this name leads to; what a killed writer left is removed."""
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), "wb")


def open_lock(path: Path) -> IO[str]:
    """A file to lock, made where there is none, opened to read and to append.

    Raises:
        HarnessError: It is a link or no regular file: writing who holds the lock would overwrite something else.
        OSError: It can't be opened.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        number = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise _no_lock(path) from None
        raise
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise _no_lock(path)
    return os.fdopen(number, "a+", encoding="utf-8", errors="replace")


def _no_lock(path: Path) -> HarnessError:
    kind = "a link" if path.is_symlink() else "no regular file"
    return HarnessError(f"cannot lock {path}: it is {kind}, which the harness never makes", fix="Remove it")


def is_own_folder(path: Path) -> bool:
    """Whether a path is a folder itself, no link, that is this user's and that nobody else may write to."""
    try:
        state = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid() and not state.st_mode & 0o022


def write_text(path: Path, text: str) -> None:
    """Write a text that people read, which can be made again, whole and without control characters."""
    write(path, without_controls(text).encode(), durable=False)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give an OSError that names no file this one: which disk was full, say."""
    try:
        yield
    except OSError as error:
        if error.filename is None and not isinstance(error, BrokenPipeError):
            error.filename = str(path)
        raise


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
