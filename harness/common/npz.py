"""Arrays out of an `.npz` file as numpy writes it, in a third of the time that `zipfile` takes.

A report opens ten thousand of them, a dozen arrays each, of some hundred bytes: what `zipfile` does for each member
(locks, objects, a second reading of the names) is most of the time.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

# Of PKWARE's APPNOTE 6.3.10: 4.3.16, the end of the central directory; 4.3.12, a file's entry in it; 4.3.7, its header.
_END, _ENTRY, _HEADER = struct.Struct("<4s4H2LH"), struct.Struct("<4s6H3L5H2L"), struct.Struct("<4s5H3L2H")
_STORED, _DEFLATED = 0, 8
_WHOLE = 0xFFFFFFFF  # stands for a size or place that only the 64-bit fields hold


class Archive:
    """A zip archive in memory, of members that are stored or deflated; `namelist` and `read` are those of `ZipFile`."""

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

    def namelist(self) -> list[str]:
        """The names of the members, in their order."""
        return list(self._members)

    def read(self, name: str) -> bytes:
        """The bytes of a member; raises KeyError, and BadZipFile or zlib.error for one that was cut or changed."""
        method, crc, deflated, whole, begin = self._members[name]
        try:
            mark, *_, name_size, extra = _HEADER.unpack_from(self._content, begin)
        except struct.error as error:
            raise zipfile.BadZipFile(str(error)) from None
        start = begin + _HEADER.size + name_size + extra
        if mark != b"PK\3\4" or self._content[begin + _HEADER.size : start - extra] != name.encode():
            raise zipfile.BadZipFile(f"no header of {name}")
        found = self._content[start : start + deflated]
        if method == _DEFLATED:
            found = zlib.decompress(
                found, -zlib.MAX_WBITS, min(whole, 2**20) or 1
            )  # as far as the file can be believed
        if len(found) != whole or zlib.crc32(found) != crc:
            raise zipfile.BadZipFile(f"bad checksum of {name}")
        return found


def opened(content: bytes) -> Archive | zipfile.ZipFile:
    """The archive that these bytes are; raises BadZipFile where they are none."""
    try:
        return Archive(content)
    except zipfile.BadZipFile:
        return zipfile.ZipFile(io.BytesIO(content))
