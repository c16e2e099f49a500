"""Fonts of figures: which are installed, which stand in for one that is not, and which have the signs of a text."""

from __future__ import annotations

import difflib
import functools
import unicodedata
from collections.abc import Iterable, Sequence

from matplotlib.font_manager import FontEntry, FontProperties, findfont, findSystemFonts, fontManager, get_font

from harness.common.errors import HarnessError

FAMILY = "DejaVu Sans"
_DPI = 200
_RESORTS = ("last resort", "emoji", "symbol", "math", "dingbat")  # signs for everything, and none of a language
# Fonts with the widths, or nearly those, of what papers ask for and few machines without Windows have.
_ALIKE = {
    "times new roman": ("Times", "Liberation Serif", "Tinos", "TeX Gyre Termes", "Nimbus Roman", "STIXGeneral"),
    "times": ("Times New Roman", "Liberation Serif", "Tinos", "TeX Gyre Termes", "Nimbus Roman", "STIXGeneral"),
    "arial": ("Liberation Sans", "Arimo", "Helvetica", "TeX Gyre Heros", "Nimbus Sans"),
    "helvetica": ("Arial", "Liberation Sans", "Arimo", "TeX Gyre Heros", "Nimbus Sans"),
    "courier new": ("Liberation Mono", "Cousine", "Courier", "TeX Gyre Cursor"),
    "computer modern": ("CMU Serif", "Latin Modern Roman", "cmr10"),
}


@functools.cache
def installed() -> dict[str, str]:
    """The families of this machine by their names in lower case, also those that matplotlib does not list yet."""
    listed = {str(entry.fname) for entry in fontManager.ttflist}
    for path in findSystemFonts():
        if path not in listed:
            try:
                fontManager.addfont(path)
            except (OSError, RuntimeError, ValueError):  # damaged, or of bitmaps alone
                continue
    return {entry.name.lower(): entry.name for entry in fontManager.ttflist}


def family_for(name: str) -> tuple[str, str | None]:
    """The installed family for a name, and a sentence where another stands in for it.

    Raises:
        HarnessError: neither the font nor one like it is installed.
    """
    families = installed()
    if name.lower() in families:
        return families[name.lower()], None
    for other in _ALIKE.get(name.lower(), ()):
        if other.lower() in families:
            return families[other.lower()], f"{name} is not installed: {other}, which is like it, stands in."
    close = difflib.get_close_matches(name.lower(), families, n=1, cutoff=0.7)
    raise HarnessError(
        f"the font '{name}' is not installed" + (f" (did you mean '{families[close[0]]}'?)" if close else ""),
        allowed=", ".join(sorted(families.values())[:12]) + ", …",
    )


def behind(family: str) -> tuple[str, ...]:
    """What draws the signs of ours, crosses and Greek letters, that a family may lack."""
    return () if family == FAMILY else (FAMILY,)


@functools.cache
def glyphs(family: str) -> frozenset[int]:
    """The code points that a family has signs for."""
    return frozenset(get_font(findfont(FontProperties(family=family))).get_charmap())


def is_drawn(char: str) -> bool:
    """Whether a character has a sign of its own: spaces, controls, marks and joiners have none."""
    return not char.isspace() and unicodedata.category(char) not in ("Cc", "Cf", "Mn", "Cs")


def lacking(characters: Iterable[str], families: Sequence[str]) -> frozenset[int]:
    """The code points among characters that none of the families has a sign for."""
    codes = {ord(char) for char in characters if is_drawn(char)}
    for family in families:
        if not codes:
            break
        codes -= glyphs(family)
    return frozenset(codes)


def covering(characters: Iterable[str], families: Sequence[str]) -> tuple[str, ...]:
    """Installed families that have the signs which `families` lack, those with most of them first; few or none."""
    left = lacking(characters, families)
    return _covering(left) if left else ()


@functools.lru_cache(maxsize=64)
def _covering(left: frozenset[int]) -> tuple[str, ...]:
    installed()
    families = list(_files())
    families = [name for name in families if not any(word in name.lower() for word in _RESORTS)]
    chosen: list[str] = []
    while left:
        best = max(families, key=lambda name: len(left & _readable(name)))
        if not left & _readable(best):
            break
        chosen.append(best)
        left -= _readable(best)
    return tuple(chosen)


@functools.cache
def _files() -> dict[str, str]:
    """A font file of each installed family; asked for one by its family, matplotlib logs what styles that lacks."""
    files: dict[str, str] = {}
    for entry in sorted(fontManager.ttflist, key=_rank):
        files.setdefault(entry.name, str(entry.fname))
    return files


@functools.cache
def _readable(family: str) -> frozenset[int]:
    try:
        return frozenset(get_font(_files()[family]).get_charmap())
    except (OSError, RuntimeError, ValueError):
        return frozenset()


def _rank(entry: FontEntry) -> tuple[bool, bool, bool, str]:
    """Plain sans-serif fonts before others."""
    name = entry.name.lower()
    return ("sans" not in name, "mono" in name or "serif" in name, entry.style != "normal", name)


@functools.lru_cache(maxsize=8192)
def text_width(text: str, size: float, families: tuple[str, ...]) -> float:
    """How wide a text without line breaks is at a font size in points, in inches."""
    font = get_font([findfont(FontProperties(family=family)) for family in families])
    font.set_size(size, _DPI)
    font.set_text(text)
    return float(font.get_width_height()[0]) / 64 / _DPI
