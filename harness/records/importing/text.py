"""Texts and numbers of other people's files: safe to print, safe to keep, and read without guessing."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def storable(text: str) -> str:
    """A text that UTF-8 can hold: names of files may have bytes that it can't."""
    return text.encode("utf-8", "replace").decode("utf-8")


def printable(text: str) -> str:
    """A text without control characters, nor such as turn the direction of writing: safe on any terminal."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def quoted(value: object, most: int = 60) -> str:
    """A value of a file in an error: in quotes, printable, and cut where it is long."""
    text = printable("nothing" if value is None else text_of(value))
    return f"'{text if len(text) <= most else text[: most - 1] + '…'}'"


def listed(values: Iterable[object], most: int = 20) -> str:
    """Values of a file in an error, the first of them where they are many."""
    shown = [quoted(value, 40) for value in values]
    return ", ".join(shown[:most]) + (f", … ({len(shown)})" if len(shown) > most else "") or "none"


def text_of(value: object) -> str:
    """A value as text, nothing as an empty one."""
    return "" if value is None else str(value)


def parse_number(text: str) -> float | None:
    """The finite number that a text is, else None."""
    text = text.strip()
    if len(text) > 400 or not _NUMBER.fullmatch(text):
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def split_names(text: str) -> list[str]:
    """`a,b` and `"a,b",c` as names; a text that can't be read so is one name."""
    try:
        return next(csv.reader([text], strict=True), [text])
    except csv.Error:
        return [text]
