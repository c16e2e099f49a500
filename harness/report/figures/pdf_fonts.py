"""The fonts of PDF files, cut down once for all figures of a report instead of once for each."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from matplotlib.backends import _backend_pdf_ps
from matplotlib.font_manager import get_font

# Of which nearly every figure has some: a font with all of them is the same for all figures. matplotlib writes those
# below 256 as one font and the others as another.
_COMMON = (
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,:;()[]%+-=<>/_@·×±²",
    "–−τη≥…✕",
)

_NAME = "get_glyphs_subset"  # of matplotlib's function

Subset = Callable[[Any, Iterable[Any]], AbstractContextManager[Any]]


@contextmanager
def shared() -> Iterator[None]:
    """PDF files that are written meanwhile share fonts that are cut down to the same letters, without layout tables.

    A PDF's letters have their positions already. Cutting fonts took half of the time to write a PDF. matplotlib has no
    setting for either; where its internals are not those that this knows, it writes as it does by itself.
    """
    from fontTools.subset import Options

    usual_tables = getattr(Options, "_drop_tables_default", [])
    usual: Subset | None = getattr(_backend_pdf_ps, _NAME, None)
    Options._drop_tables_default = [*usual_tables, "GSUB", "GPOS", "GDEF"]
    if usual is not None:
        setattr(_backend_pdf_ps, _NAME, functools.partial(_subset, usual))
    try:
        yield
    finally:
        Options._drop_tables_default = usual_tables
        if usual is not None:
            setattr(_backend_pdf_ps, _NAME, usual)


def _subset(usual: Subset, font_file: Any, glyphs: Iterable[Any]) -> AbstractContextManager[Any]:
    """As matplotlib's, with the common letters too; what was cut once is given again."""
    needed = frozenset(glyphs)
    if not all(isinstance(glyph, int) for glyph in needed):  # of an older matplotlib, which names characters
        return usual(font_file, needed)
    usual_letters = next((glyphs for glyphs in _common(font_file) if needed & glyphs), frozenset())
    return nullcontext(_cut(usual, font_file, needed | usual_letters))


@functools.cache
def _common(font_file: Any) -> tuple[frozenset[Any], ...]:
    glyph_of = get_font(font_file).get_charmap()
    return tuple(
        frozenset(glyph_of[ord(letter)] for letter in letters if ord(letter) in glyph_of) for letters in _COMMON
    )


@functools.lru_cache(maxsize=32)
def _cut(usual: Subset, font_file: Any, glyphs: frozenset[Any]) -> Any:
    with usual(font_file, glyphs) as subset:
        return subset
