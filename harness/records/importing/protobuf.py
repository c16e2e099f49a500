"""Just enough of protocol buffers to read the event files of TensorBoard and the logs of Weights & Biases."""

from __future__ import annotations

import struct
from collections.abc import Iterator


class DamagedError(Exception):
    """A message that is cut short or none at all."""


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message: their numbers, and an integer or the bytes (of fixed-width numbers too)."""
    position, end = 0, len(message)
    while position < end:
        key, position = _varint(message, position)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, position = _varint(message, position)
            yield number, value
            continue
        if kind == 2:
            size, position = _varint(message, position)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise DamagedError
        if position + size > end:
            raise DamagedError
        yield number, message[position : position + size]
        position += size


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(message) or shift > 63:
            raise DamagedError
        byte = message[position]
        value |= (byte & 127) << shift
        position += 1
        if byte < 128:
            return value, position
        shift += 7


def signed(value: int | bytes) -> int:
    """A varint as a signed number of 64 bits."""
    assert isinstance(value, int)
    return value - 2**64 if value >= 2**63 else value


def double(value: int | bytes) -> float:
    """A number of 8 bytes."""
    return float(struct.unpack("<d", value)[0]) if isinstance(value, bytes) and len(value) == 8 else float("nan")


def single(value: int | bytes) -> float:
    """A number of 4 bytes."""
    return float(struct.unpack("<f", value)[0]) if isinstance(value, bytes) and len(value) == 4 else float("nan")


def content(value: int | bytes) -> bytes:
    """A field that holds bytes, a text or a message."""
    if not isinstance(value, bytes):
        raise DamagedError
    return value


def text(value: int | bytes) -> str:
    """A field that holds a text."""
    return content(value).decode("utf-8", "replace")
