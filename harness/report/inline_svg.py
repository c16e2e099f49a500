"""A figure's SVG as a page carries it: a fraction of the size of matplotlib's file, and with colours for dark pages."""

from __future__ import annotations

import colorsys
import itertools
import re
from string import ascii_lowercase
from urllib.parse import quote

DARK_PAPER, DARK_INK = "#17171b", "#e9e9ee"
# Colours on a dark page, in lower case as matplotlib writes them; any other colour keeps its hue and swaps light and
# dark.
DARK = {
    "#ffffff": DARK_PAPER,
    "#000000": DARK_INK,
    "#222222": "#dcdce2",
    "#3a3a3a": "#d0d0d8",
    "#555555": "#a9a9b6",
    "#e4e4e4": "#33333b",
    "#0072b2": "#4da8e0",
    "#e69f00": "#e69f00",
    "#009e73": "#2bc29a",
    "#cc79a7": "#dd8fba",
    "#56b4e9": "#8fd0f7",
    "#8c6d31": "#c9a35b",
    "#7f7f7f": "#a3a3a3",
    "#5e3c99": "#ab91e0",
    "#a50f15": "#ff7468",
}
_UNSAFE = re.compile('[%#&"\n\r\t]')  # what may not stand as it is in the double-quoted address of an image
_COLOUR = re.compile(r"#[0-9a-f]{6}\b")
_NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
_PATH = re.compile(r" d='([^']*)'")
_LINES = re.compile(r"(?:[ML] -?[\d.]+ -?[\d.]+ ?|z ?)+")


def data_uri(svg: str) -> str:
    """The address of an image that is the SVG itself, for an attribute in double quotes."""
    return "data:image/svg+xml," + _UNSAFE.sub(lambda sign: quote(sign[0]), compact(svg))


def compact(svg: str) -> str:
    """The same picture: coordinates to a tenth of a point, each style once, with the colours of a dark page beside."""
    svg = svg[max(svg.find("<svg"), 0) :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r">\s+<", "><", svg).replace("\n", " ").replace("xlink:href", "href")
    svg = re.sub(r' xmlns:xlink="[^"]*"', "", svg)
    svg = re.sub(r' style=""', "", svg)
    named = set(re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", svg))
    svg = _with_short_names(svg, [name for pair in named for name in pair if name])
    svg = re.sub(r' transform="rotate\(-?0(?:\.0)? [^"]*"', "", svg)  # of every text that stands upright
    svg = _with_classes(svg)
    svg = re.sub(r"=\"([^\"'<>]*)\"", r"='\1'", svg)
    svg = _PATH.sub(lambda path: f" d='{_short_path(path[1])}'", svg)
    svg = re.sub(r" (x|y|width|height|transform|points)='([^']*)'", _rounded, svg)
    while (fewer := re.sub(r"<g>((?:(?!</?g\b).)*)</g>", r"\1", svg)) != svg:  # groups that say nothing
        svg = fewer
    return svg


def _with_short_names(svg: str, named: list[str]) -> str:
    """Without the names that nothing refers to; the others as short as can be."""
    short = dict(zip(sorted(named), _names(), strict=False))
    svg = re.sub(r' id="([^"]*)"', lambda name: f' id="{short[name[1]]}"' if name[1] in short else "", svg)
    return re.sub(r"#([\w-]+)(?=[\")])", lambda name: f"#{short.get(name[1], name[1])}", svg)


def _with_classes(svg: str) -> str:
    """Styles as classes, which are said once; with the same for a dark page."""
    names, classes = _names(), dict[str, str]()

    def as_class(style: re.Match[str]) -> str:
        text = _short_style(style[1])
        if text not in classes:
            classes[text] = next(names)
        return f' class="{classes[text]}"' if text else ""

    svg = re.sub(r' style="([^"]*)"', as_class, svg)
    rules = "".join(f".{name}{{{text}}}" for text, name in classes.items() if text)
    dark = "".join(f".{name}{{{_dark_rule(text)}}}" for text, name in classes.items() if _COLOUR.search(text))
    dark += "".join(
        f"[fill='{colour}']{{fill:{dark_of(colour)}}}"
        for colour in sorted(set(re.findall(r' fill="(#[0-9a-f]{6})"', svg)))
    )
    dark = f"svg{{fill:{DARK_INK}}}image{{filter:invert(.9) hue-rotate(180deg)}}{dark}"
    sheet = f"{rules}@media screen and (prefers-color-scheme:dark){{{dark}}}"
    return re.sub(r"(<style[^>]*>.*?)(?=</style>)", lambda style: style[1] + sheet, svg, count=1, flags=re.DOTALL)


def _short_style(style: str) -> str:
    style = re.sub(r"stroke-dasharray: ?;|stroke-dashoffset: 0;?|; *$", "", style)
    style = re.sub(r"font-family: ([^;]*)", _first_fonts, style)
    return re.sub(r"\s*([:;,])\s*", r"\1", style).strip("; ").replace('"', "'")


def _first_fonts(families: re.Match[str]) -> str:
    """The fonts of a text without the dozen that matplotlib adds behind."""
    usual = ("Bitstream Vera", "Computer Modern", "Lucid", "Verdana", "Geneva", "Arial'", "Helvetica'", "Avant Garde")
    own = [family.strip() for family in families[1].split(",")]
    kept = [own[0], *(family for family in own[1:] if not family.strip("'\"").startswith(tuple(usual)))]
    return "font-family:" + ",".join(kept)


def _dark_rule(text: str) -> str:
    """What differs on a dark page: the declarations that name a colour."""
    parts = [part for part in text.split(";") if _COLOUR.search(part)]
    return _COLOUR.sub(lambda colour: dark_of(colour[0]), ";".join(parts))


def dark_of(colour: str) -> str:
    """A colour's counterpart on a dark page."""
    if colour in DARK:
        return DARK[colour]
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    hue, lightness, saturation = colorsys.rgb_to_hls(red, green, blue)
    parts = colorsys.hls_to_rgb(hue, 0.1 + 0.8 * (1 - lightness), 0.85 * saturation)
    return "#" + "".join(f"{round(255 * part):02x}" for part in parts)


def _short_path(path: str) -> str:
    """A path to a tenth of a point; straight lines as differences, of which each is short and no error adds up."""
    path = " ".join(path.split())
    if not _LINES.fullmatch(path):
        return _NUMBER.sub(_hundredths, path)
    result: list[str] = []
    at, drawing = (0, 0), ""
    precise = len(path) < 90  # markers are small
    unit = 100 if precise else 10
    for command, x, y in re.findall(r"([MLz])(?: (-?[\d.]+) (-?[\d.]+))?", path):
        if command == "z":
            result.append("z")
            drawing = ""
            continue
        to = (round(float(x) * unit), round(float(y) * unit))
        if command == "M":
            result.append(f"M{_pair(*to, unit)}")
            drawing = ""
        elif to != at:
            text = _pair(to[0] - at[0], to[1] - at[1], unit)
            result.append(text if drawing and text[0] == "-" else f"{drawing and ' '}{'' if drawing else 'l'}{text}")
            drawing = "l"
        elif not drawing:
            result.append("l0 0")
            drawing = "l"
        at = to
    return "".join(result)


def _pair(x: int, y: int, unit: int) -> str:
    first, second = (_decimal(value / unit) for value in (x, y))
    return first + (second if second.startswith("-") else f" {second}")


def _decimal(value: float) -> str:
    return re.sub(r"^(-?)0\.", r"\1.", f"{value:.2f}".rstrip("0").rstrip(".")).replace("-0", "0") or "0"


def _hundredths(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")


def _rounded(attribute: re.Match[str]) -> str:
    return f" {attribute[1]}='{_NUMBER.sub(_hundredths, attribute[2])}'"


def _names() -> itertools.chain[str]:
    """a, b, …, z, aa, ab, …."""
    lengths = (map("".join, itertools.product(ascii_lowercase, repeat=length)) for length in (1, 2, 3))
    return itertools.chain.from_iterable(lengths)
