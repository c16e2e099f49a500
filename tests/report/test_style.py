import io
import re
import zlib

import matplotlib as mpl
import pytest
from fontTools import subset
from fontTools.ttLib import TTFont

from harness.report.figures import curves, lettering, scores, style


@pytest.mark.parametrize("make", [scores.spread, curves.curves])
def test_files_are_the_same_each_time(tmp_path, mosbach, make):
    contents, name = [], make.__name__
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        paths = style.save(make(mosbach), folder, name)
        assert [path.name for path in paths] == [f"{name}.png", f"{name}.svg", f"{name}.pdf"]
        contents.append([path.read_bytes() for path in paths])
    assert contents[0] == contents[1]
    assert not re.search(rb"<dc:date>", contents[0][1])
    assert b"CreationDate" not in contents[0][2]
    assert b"/Type3" not in contents[0][2]  # fonts that a publisher takes
    assert b"/CIDFontType2" in contents[0][2] or b"/TrueType" in contents[0][2]


def test_the_callers_settings_neither_matter_nor_change(mosbach, tmp_path):
    plain = style.save(scores.spread(mosbach), tmp_path, "plain")[0].read_bytes()
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "none", "savefig.dpi": 10}):
        before = dict(mpl.rcParams)
        other = style.save(scores.spread(mosbach), tmp_path, "other")[0].read_bytes()
        assert dict(mpl.rcParams) == before
    assert plain == other


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a  b\n\tc", "a b c"), ("🦄", "□"), ("漢字", "□□"), ("e\u0301", "é"), ("x\u202ey", "xy"), ("\ud800", "□")],
)
def test_characters_that_the_font_lacks_are_boxes(text, expected):
    assert lettering.clean(text) == expected


def test_a_long_name_keeps_both_ends():
    cut = lettering.cut("results-of-a-very-long-run-2e-5", 8, 1.0)
    assert cut.startswith("resu")
    assert cut.endswith("2e-5")
    assert lettering.text_width(cut, 8) <= 1.0 < lettering.text_width("results-of-a-very-long-run-2e-5", 8)
    assert lettering.cut("short", 8, 1.0) == "short"


def test_a_pdf_has_its_letters_and_no_tables_that_place_them(mosbach, tmp_path):
    """And fontTools is left as it was found."""
    usual = list(subset.Options().drop_tables)
    pdf = style.save(scores.spread(mosbach), tmp_path, "spread")[2].read_bytes()
    assert subset.Options().drop_tables == usual
    streams = [zlib.decompress(one) for one in re.findall(rb"stream\r?\n(x.*?)\r?\nendstream", pdf, re.DOTALL)]
    fonts = [TTFont(io.BytesIO(one)) for one in streams if one[:4] in (b"\x00\x01\x00\x00", b"true")]
    assert sum(len(font["glyf"].keys()) for font in fonts) > 30
    assert not any({"GSUB", "GPOS", "GDEF"} & set(font.keys()) for font in fonts)
