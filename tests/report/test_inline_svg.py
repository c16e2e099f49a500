"""The figures that a page carries: the same pictures as the files, small, and legible on a dark page."""

import re
import xml.etree.ElementTree as ElementTree
from urllib.parse import unquote

import numpy as np
import pytest
from matplotlib.figure import Figure

from harness.report import inline_svg
from harness.report.figures import style

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The SVG of a figure of lines, bands, marks, a hatch, an image and texts with signs of markup, long and short."""
    figure = Figure(figsize=(3, 2))
    ax = figure.subplots()
    x = np.linspace(0, 1, 200)
    ax.plot(x, np.sin(20 * x), color=style.HUES[0], label="a < b & \"c\" 'd' #1 5 %")
    ax.fill_between(x, x, x + 0.1, alpha=0.3, color=style.FAILED)
    ax.scatter(x[::20], x[::20], marker="^", color="#123456")
    ax.bar([0.5], [1.0], hatch="//", facecolor="white")
    ax.imshow(np.eye(2), extent=(0, 1, 0, 1))
    ax.set_yscale("symlog")
    ax.set_xlabel("Ünï – τ", rotation=10)
    ax.legend()
    folder = tmp_path_factory.mktemp("svg")
    style.save(figure, folder, "figure")
    text = (folder / "figure.svg").read_text()
    return text, inline_svg.compact(text)


def points(path: str) -> np.ndarray:
    """Where the straight lines of a path go, absolute [N, 2]."""
    result, at, start = [], np.zeros(2), np.zeros(2)
    for command, numbers in re.findall(r"([MLlz])([^MLlzCQ]*)", path):
        values = np.array(re.findall(r"-?(?:\d+\.?\d*|\.\d+)", numbers), dtype=float).reshape(-1, 2)
        for pair in values:
            at = at + pair if command == "l" else pair
            result.append(at)
        start = result[-1] if command == "M" else start
        at = start if command == "z" else at
    return np.array(result)


def test_lines_are_where_they_were(files):
    full, short = ([points(path) for path in re.findall(r"[ ]d=[\"\'](M[^\"\'CQ]*)[\"\']", text)] for text in files)
    assert len(full) == len(short) > 10
    for before, after in zip(full, short, strict=True):
        gaps = np.hypot(*(before[:, None] - after[None]).transpose(2, 0, 1))  # points on one spot are one
        assert max(gaps.min(axis=0).max(), gaps.min(axis=1).max()) < 0.08


def test_texts_and_marks_stay(files):
    full, short = map(ElementTree.fromstring, files)
    for tag in ("text", "use", "image", "path", "clipPath", "pattern"):
        counts = [len(list(tree.iter(SVG + tag))) for tree in (full, short)]
        assert counts[0] == counts[1] > 0, tag
    for tree in (full, short):
        texts = ["".join(element.itertext()) for element in tree.iter(SVG + "text")]
        assert "Ünï – τ" in texts
        assert "a < b & \"c\" 'd' #1 5 %" in texts


def test_what_is_referred_to_is_there_and_each_style_is_said_once(files):
    short = files[1]
    ids = re.findall(r" id='([^']*)'", short)
    assert set(re.findall(r"(?:url\(|href=')#([\w-]+)", short)) == set(ids)
    assert len(ids) == len(set(ids))
    assert " style=" not in short
    classes = set(re.findall(r" class='([a-z]+)'", short))
    assert classes == set(re.findall(r"\.([a-z]+)\{", short.partition("@media")[0]))
    drawn = [re.sub(r"<image.*?>", "", text, flags=re.DOTALL) for text in files]  # pixels stay as they are
    assert len(drawn[1]) < 0.5 * len(drawn[0])


def test_the_address_gives_the_picture_again(files):
    address = inline_svg.data_uri(files[0])
    assert not set('"\n#') & set(address.removeprefix("data:"))
    assert unquote(address.partition(",")[2]) == files[1]


def luminance(colour: str) -> float:
    """WCAG's relative luminance."""
    parts = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(first: str, second: str) -> float:
    """WCAG's ratio of contrast."""
    low, high = sorted([luminance(first), luminance(second)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colour", [*style.HUES, style.FAILED, style.CHANCE])
def test_marks_stand_out_on_a_dark_page(colour):
    assert contrast(inline_svg.dark_of(colour.lower()), inline_svg.DARK_PAPER) >= 4.5


@pytest.mark.parametrize("colour", [style.INK, style.FAINT, style.FAILED, "#000000"])
def test_texts_are_legible_on_a_dark_page(colour):
    assert contrast(inline_svg.dark_of(colour.lower()), inline_svg.DARK_PAPER) >= 4.5


def test_shades_keep_their_order_on_a_dark_page():
    """A heat map from white to blue becomes one from dark to light."""
    shades = [inline_svg.dark_of(shade) for shade in ("#ffffff", "#dbebf4", "#92c3de", "#499ac8", "#0072b2")]
    levels = [luminance(shade) for shade in shades]
    assert levels == sorted(levels)
