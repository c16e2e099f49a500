"""Texts of figures: of any characters and any length, as they are drawn within so many inches."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from harness.common.text import Scalar, show
from harness.records.study import SOURCE
from harness.report.figures import fonts
from harness.report.figures.sheet import current

LONG = 24  # letters of a value, beyond which what its axis' values share is cut to
SHARED = 6  # letters at each end


def pt(size: float) -> float:
    """The points of a text that has so many in a figure of usual fonts."""
    return size * current().scale


def text_width(text: str, size: float) -> float:
    """How wide a clean text is, in inches, at a font size as `pt` takes it."""
    return fonts.text_width(text, pt(size), current().families)


def clean(text: str) -> str:
    """One line of characters that the fonts have; □ stands for the others."""
    kept, families = [], current().families
    for char in unicodedata.normalize("NFC", text):
        kind = unicodedata.category(char)
        if char.isspace() or kind == "Cc":
            kept.append(" ")
        elif kind != "Cf" and any(ord(char) in fonts.glyphs(family) for family in families):
            kept.append(char)
        elif kind not in ("Cf", "Mn"):  # marks and joiners, which have no width of their own
            kept.append("□")
    return " ".join("".join(kept).split())


def cut(text: str, size: float, inches: float) -> str:
    """A text that fits, without its middle where it is too long: names often differ at their ends."""
    text = clean(text)
    if text_width(text, size) <= inches:
        return text
    low, high = 0, min(len(text), int(inches * 72))  # few glyphs are narrower than a point
    while low < high:
        kept = (low + high + 1) // 2
        fits = text_width(_without_middle(text, kept), size) <= inches
        low, high = (kept, high) if fits else (low, kept - 1)
    return _without_middle(text, low)


def _without_middle(text: str, kept: int) -> str:
    return f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"


def cut_parts(parts: Sequence[str], between: str, size: float, inches: float) -> str:
    """Texts side by side; where they don't fit, those that are too long for their share are cut."""
    whole = clean(between.join(parts))
    if text_width(whole, size) > inches:
        share = inches / len(parts) - text_width(between, size) - 0.02
        whole = clean(between.join(cut(part, size, max(share, 0.12)) for part in parts))
    return cut(whole, size, inches)


def literal(text: str) -> str:
    """A text that matplotlib draws as it is: no mathematics, and a legend leaves out what starts with `_`."""
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def fit(text: str, size: float, inches: float) -> str:
    """A text of any length and any characters as it is drawn within so many inches."""
    return literal(cut(text, size, inches))


def wrap(text: str, size: float, inches: float) -> list[str]:
    """The lines of a text of which each fits."""
    lines = [""]
    for word in clean(text).split():
        longer = f"{lines[-1]} {word}".strip()
        if text_width(longer, size) <= inches or not lines[-1]:
            lines[-1] = cut(longer, size, inches)
        else:
            lines.append(cut(word, size, inches))
    return lines


def spaced(axis: str) -> str:
    """A field's name as people read it: `weight decay`."""
    return axis.replace("_", " ")


def value_texts(values: Sequence[Scalar]) -> list[str]:
    """The values of an axis as texts; what long ones all begin or end with is cut short, for it tells none apart."""
    texts = [show(value) for value in values]
    if len(set(texts)) < 2 or max(map(len, texts)) <= LONG:
        return texts
    start = _shared_start(texts)
    start = start[: start.rfind(" ") + 1] or start
    end = _shared_start([text[len(start) :][::-1] for text in texts])[::-1]
    end = end[end.find(" ") :] if " " in end else end
    head = f"{start[:SHARED]}…" if len(start) > SHARED + 1 else start
    tail = f"…{end[-SHARED:]}" if len(end) > SHARED + 1 else end
    return [f"{head}{text[len(start) : len(text) - len(end)]}{tail}" for text in texts]


def _shared_start(texts: Sequence[str]) -> str:
    """The letters that all texts begin with."""
    first, last = min(texts), max(texts)
    same = next((at for at, letter in enumerate(first) if letter != last[at]), len(first))
    return first[:same]


def setting(axis: str | None, value: Scalar) -> str:
    """`epochs 3`; of two studies side by side the name alone."""
    if axis is None:
        return ""
    return show(value) if axis == SOURCE else f"{spaced(axis)} {show(value)}"


def short_count(number: int) -> str:
    """A count in a few characters."""
    for unit, letter in ((1_000_000, "M"), (1_000, "k")):
        if number >= 10 * unit:
            return f"{number / unit:.3g}{letter}"
    return str(number)
