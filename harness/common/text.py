"""Values, counts and names of cells as texts; the last line of an error; texts without control characters."""

from __future__ import annotations

import re
from collections.abc import Sequence

Scalar = str | int | float | bool | None

# What moves a terminal's cursor, colours or renames it (C0, DEL, C1), turns the order of what follows around (bidi
# embeddings, overrides and isolates), or is half a character; lines and tabs stay.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def show(value: object) -> str:
    """A value as people write it: 2e-5, on, off, none."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        plain = f"{value:.12g}"
        mantissa, _, exponent = f"{value:.11e}".partition("e")
        short = f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}" if exponent else plain
        return short if "e" in plain or (0 < abs(value) < 0.01 and len(short) <= len(plain)) else plain
    return str(value)


def count_noun(number: int, unit: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{number} {unit}{'' if number == 1 else 's'}"


def name_cell(axes: Sequence[tuple[str, Scalar]]) -> str:
    """A place on the axes in words: `lr 2e-5, bias correction on`; `the only recipe` where there are no axes."""
    return ", ".join(f"{name.replace('_', ' ')} {show(value)}" for name, value in axes) or "the only recipe"


def same_value(first: object, second: object) -> bool:
    """Equal as YAML means it: 1 and 1.0 are, 1 and on are not."""
    return first == second and isinstance(first, bool) == isinstance(second, bool)


def last_line(error: str) -> str:
    """The line of a traceback that says what happened."""
    lines = [line for line in error.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no text"


def is_unicode(text: str) -> bool:
    """Whether a text can be written, hashed and tokenised: half of a surrogate pair is no character.

    JSON can spell one, and a file's name, of any bytes but / and zero, is read as some.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def without_controls(text: str) -> str:
    """A text as it may leave for a terminal or a file that people read: a space in place of each control character.

    All that is printed, and all Markdown, CSV, LaTeX and HTML, goes through here where it leaves.
    """
    return text if text.isprintable() else _CONTROLS.sub(" ", text)
