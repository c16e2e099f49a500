"""Arrays out of an `.npz` file as numpy writes it, in a third of the time that `zipfile` takes, and within bounds.

A report opens ten thousand of them, a dozen arrays each, of some hundred bytes: what `zipfile` does for each member
(locks, objects, a second reading of the names) is most of the time. The file may be a stranger's: an array is made only
once its header says a shape and a type of numbers or texts that fit the size in the archive's directory, and no
more is unpacked than that size.
"""

from __future__ import annotations

import io
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np

# Of PKWARE's APPNOTE 6.3.10: 4.3.16, the end of the central directory; 4.3.12, a file's entry in it; 4.3.7, its header.
_END, _ENTRY, _HEADER = struct.Struct("<4s4H2LH"), struct.Struct("<4s6H3L5H2L"), struct.Struct("<4s22x2H")
_STORED, _DEFLATED = 0, 8
_WHOLE = 0xFFFFFFFF  # stands for a size or place that only the 64-bit fields hold
_FIRST = 4096  # bytes of a member that are unpacked before its header is believed
_LONGEST_HEADER = 2048  # bytes of the header of an array; numpy's own take 128
MOST_UNPACKED = 2**30  # bytes of all arrays of a file
MOST_MEMBERS = 100

# What zipfile, zlib and numpy raise for an archive that was cut short or changed.
_DAMAGED: tuple[type[Exception], ...] = (
    EOFError, KeyError, ValueError, NotImplementedError, RuntimeError, SyntaxError, OSError, MemoryError, OverflowError,
    RecursionError, TypeError, tokenize.TokenError, zipfile.BadZipFile, zlib.error, struct.error,
)  # fmt: skip


class ArraysError(ValueError):
    """A file of arrays that can't be used: damaged, too large, or of something else than numbers and texts."""


class Archive:
    """A zip archive in memory, of members that are stored or deflated."""

    def __init__(self, content: bytes) -> None:
        """Read the directory; raises BadZipFile for what is none, or has a comment, parts, encryption or 64-bit sizes.

        `zipfile` reads some of these.
        """
        self._content = content
        # Name -> method, checksum, size deflated and whole, where its header stands.
        self._members: dict[str, tuple[int, int, int, int, int]] = {}
        try:
            self._list()
        except (struct.error, UnicodeDecodeError) as error:
            raise zipfile.BadZipFile(str(error)) from None

    def _list(self) -> None:
        end = len(self._content) - _END.size
        mark, disk, first, here, entries, size, place, comment = _END.unpack_from(self._content, max(0, end))
        if mark != b"PK\5\6" or disk or first or here != entries or comment or place + size != end:
            raise zipfile.BadZipFile("no plain zip file")
        for _ in range(entries):
            mark, _, _, flags, method, _, _, crc, deflated, whole, name, extra, said, disk, _, _, begin = (
                _ENTRY.unpack_from(self._content, place)
            )
            plain = mark == b"PK\1\2" and not flags and method in (_STORED, _DEFLATED) and not disk
            if not plain or _WHOLE in (deflated, whole, begin):
                raise zipfile.BadZipFile("no plain member of a zip file")
            place += _ENTRY.size
            self._members[self._content[place : place + name].decode("ascii")] = method, crc, deflated, whole, begin
            place += name + extra + said

    @property
    def sizes(self) -> dict[str, int]:
        """The members' sizes unpacked, in bytes, as the directory says, in its order."""
        return {name: whole for name, (_, _, _, whole, _) in self._members.items()}

    def read(self, name: str, rows: int | None = None) -> np.ndarray:
        """The array of a member.

        Args:
            name: With its ending.
            rows: Of its first dimension; None: any number.

        Raises:
            ArraysError, BadZipFile, zlib.error: It was cut or changed, or is none of numbers or texts of so many rows.
        """
        method, crc, deflated, whole, begin = self._members[name]
        mark, name_size, extra = _HEADER.unpack_from(self._content, begin)
        start = begin + _HEADER.size + name_size + extra
        if mark != b"PK\3\4" or self._content[begin + _HEADER.size : start - extra] != name.encode():
            raise zipfile.BadZipFile(f"no header of {name}")
        packed = self._content[start : start + deflated]
        if method == _STORED:
            header = _check_start(name, packed[:_FIRST], whole, rows)
            content = packed
        else:
            unpacking = zlib.decompressobj(-zlib.MAX_WBITS)
            content = unpacking.decompress(packed, min(_FIRST, whole + 1))
            header = _check_start(name, content, whole, rows)
            if len(content) < whole:
                content += unpacking.decompress(unpacking.unconsumed_tail, whole - len(content) + 1)
            elif unpacking.unconsumed_tail:  # the end of the data, or more of them than the directory says
                content += unpacking.decompress(unpacking.unconsumed_tail, 1)
        if len(content) != whole or zlib.crc32(content) != crc:
            raise zipfile.BadZipFile(f"bad checksum of {name}")
        return header.array(content)


class _Odd:
    """An archive that `zipfile` alone can read: with a comment, 64-bit sizes or other flags; as `Archive`."""

    def __init__(self, content: bytes) -> None:
        self._archive = zipfile.ZipFile(io.BytesIO(content))
        if any(info.compress_type not in (_STORED, _DEFLATED) for info in self._archive.infolist()):
            raise ArraysError("it is packed by another method than numpy's")

    @property
    def sizes(self) -> dict[str, int]:
        return {info.filename: info.file_size for info in self._archive.infolist()}

    def read(self, name: str, rows: int | None = None) -> np.ndarray:
        whole = self._archive.getinfo(name).file_size
        with self._archive.open(name) as stream:
            content = stream.read(min(_FIRST, whole + 1))
            header = _check_start(name, content, whole, rows)
            content += stream.read(whole - len(content) + 1)
        if len(content) != whole:
            raise zipfile.BadZipFile(f"another size of {name}")
        return header.array(content)


def read_arrays(
    content: bytes,
    *,
    without: str = "",
    rows: Mapping[str, int] | None = None,
    most_bytes: int = MOST_UNPACKED,
    members: Collection[str] | None = None,
) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file by name, each in memory of its own; nothing is unpickled.

    Args:
        content: The file's bytes.
        without: Arrays whose names begin with it are left out; empty: none is.
        rows: Of some arrays how long their first dimension has to be; an array of another length is not unpacked.
        most_bytes: The most that all of them may take.
        members: The only arrays that are read; None: all.

    Raises:
        ArraysError: The file is damaged, too large, or holds something else than arrays of numbers and texts.
    """
    try:
        try:
            archive: Archive | _Odd = Archive(content)
        except zipfile.BadZipFile:
            archive = _Odd(content)
        sizes = archive.sizes
        if len(sizes) > MOST_MEMBERS or sum(sizes.values()) > most_bytes:
            raise ArraysError(
                f"{len(sizes)} arrays of {sum(sizes.values()):,} bytes, more than the {MOST_MEMBERS} or the "
                f"{most_bytes:,} that are read"
            )
        lengths, arrays = rows or {}, {}
        for file in sizes:
            name = file.removesuffix(".npy")
            if (without and name.startswith(without)) or (members is not None and name not in members):
                continue
            arrays[name] = archive.read(file, lengths.get(name))
        return arrays
    except ArraysError:
        raise
    except _DAMAGED as error:
        raise ArraysError(f"damaged: {type(error).__name__}: {error}") from None


class _ArrayHeader(NamedTuple):
    """What the header of an array says, and where the values begin."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype
    begin: int
    size: int  # bytes of header and values

    def array(self, content: bytes) -> np.ndarray:
        """The array, in memory of its own."""
        shared = np.ndarray(self.shape, self.dtype, content, self.begin, order="F" if self.fortran else "C")
        return shared.copy(order="K")


def _check_start(name: str, start: bytes, whole: int, rows: int | None) -> _ArrayHeader:
    """The header that an array begins with; raises ArraysError where it does not fit its size and its rows."""
    header = _read_header(start)
    shape = header.shape
    if header.size != whole:
        raise ArraysError(f"{name} holds {whole:,} bytes for an array {shape} of {header.dtype}")
    if rows is not None and (shape[0] if shape else 0) != rows:
        raise ArraysError(f"{name.removesuffix('.npy')} is {header.dtype} {shape} for {rows:,} rows")
    return header


def _read_header(start: bytes) -> _ArrayHeader:
    """The header of a `.npy` file by its first bytes."""
    version = start[6:8]
    if start[:6] != b"\x93NUMPY" or version not in (b"\1\0", b"\2\0"):
        raise ArraysError("it holds something else than arrays of numpy's")
    width = 2 if version == b"\1\0" else 4
    begin = 8 + width + int.from_bytes(start[8 : 8 + width], "little")
    if begin > min(_LONGEST_HEADER, len(start)):
        raise ArraysError("an array's header is too long, or cut short")
    return _header(start[:begin])


@lru_cache(maxsize=1024)  # ten thousand records share a dozen headers, and reading one is most of reading an array
def _header(text: bytes) -> _ArrayHeader:
    stream = io.BytesIO(text)
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if dtype.hasobject:
        raise ArraysError("it holds Python objects (pickles), which are not read: allow_pickle=False")
    if dtype.kind not in "biufU":
        raise ArraysError(f"it holds an array of {dtype}, neither numbers nor texts")
    if any(length < 0 for length in shape):
        raise ArraysError(f"it holds an array of shape {shape}")
    return _ArrayHeader(shape, fortran, dtype, len(text), len(text) + dtype.itemsize * math.prod(shape))
