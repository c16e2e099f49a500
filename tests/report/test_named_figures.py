"""One figure or table for a paper: the names, the sheet, the files."""

import re
import shutil
import subprocess
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from drawn_figures import theirs
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from made_runs import HEAD, Run, study_of
from matplotlib.font_manager import fontManager
from matplotlib.text import Text

from harness.api import Results
from harness.common.errors import HarnessError
from harness.report import files, named_figures, named_tables
from harness.report.figures import fonts, lettering, scores
from harness.report.figures.sheet import Sheet, requested

TEXT = HEAD + "lr: [5e-4, 1e-3, 0.01]\nepochs: 3\nseeds: 1..3\n"
RUNS = {cell: [Run(300 + 10 * seed + cell) for seed in range(3)] for cell in range(3)}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return Results(study_of(tmp_path_factory.mktemp("named"), TEXT, RUNS), None)


def test_a_name_that_is_none_says_the_nearest():
    with pytest.raises(HarnessError, match=r"unknown figure 'spred' \(did you mean 'spread'\?\)"):
        named_figures.figure_named("spred")
    with pytest.raises(HarnessError, match=r"unknown table 'cell' \(did you mean 'cells'\?\)"):
        named_tables.table_named("cell")
    assert {line.split()[0] for line in named_figures.listing().splitlines()} == set(named_figures.specs())


@pytest.mark.parametrize(
    ("width", "inches"), [("3.25in", 3.25), ("8.255cm", 3.25), ("82.55 mm", 3.25), ("240pt", 240 / 72.27), (4, 4.0)]
)
def test_widths_as_people_write_them(width, inches):
    assert named_figures.inches_of(width) == pytest.approx(inches)


@pytest.mark.parametrize("width", ["0.5in", "3 feet", "-3in", "900cm", ""])
def test_other_widths_are_refused(width):
    with pytest.raises(HarnessError, match=r"1\.5 to 20 inches"):
        named_figures.inches_of(width)


def test_a_venue_gives_width_and_font_and_is_overridden_by_options():
    sheet, notes = named_figures.sheet_for("acl", font_size=7)
    assert (sheet.width, sheet.size, sheet.title) == (3.03, 7.0, False)
    assert "times" in sheet.families[0].lower() or notes == [
        f"Times New Roman is not installed: {sheet.families[0]}, which is like it, stands in."
    ]
    with pytest.raises(HarnessError, match=r"unknown venue 'neurip' \(did you mean 'neurips'\?\)"):
        named_figures.sheet_for("neurip")
    with pytest.raises(HarnessError, match=r"the font 'DejaVu Sanz' is not installed \(did you mean 'DejaVu Sans'\?\)"):
        named_figures.sheet_for(font="DejaVu Sanz")


@pytest.mark.parametrize("form", ["pdf", "svg", "png"])
def test_a_figure_has_the_width_and_font_that_were_asked_for(results, tmp_path, form):
    sheet, _ = named_figures.sheet_for(None, "3.25in", 8, "DejaVu Serif")
    path = tmp_path / f"figure.{form}"
    named_figures.write(results.analysis, named_figures.figure_named("spread"), sheet, path)
    data = path.read_bytes()
    if form == "svg":
        assert re.search(rb'width="234pt"', data)  # 3.25 inches
        assert re.search(rb">lr</text>", data)  # text, not outlines
        assert b"'DejaVu Serif'" in data
    if form == "pdf":
        assert re.search(rb"/MediaBox \[ ?0 0 234 ", data)
        assert b"DejaVuSerif" in data
        assert b"/Type3" not in data
    with pytest.raises(HarnessError, match="is to be written as"):
        named_figures.write(results.analysis, named_figures.figure_named("spread"), sheet, path, "eps")


def test_fonts_keep_their_sizes_in_a_narrow_figure_which_has_no_title(results):
    figure = results.plot.spread(width="3.25in", font_size=8)
    sizes = {round(text.get_fontsize(), 2) for text in figure.findobj(Text) if text.get_text()}
    assert max(sizes) == 8
    assert min(sizes) == pytest.approx(6.5 * 8 / 8.5, abs=0.01)
    assert figure.get_suptitle() == ""
    assert "every run" in results.plot.spread(title=True).get_suptitle()


def test_figures_are_drawn_in_axes_of_the_caller(results):
    figure, axes = plt.subplots(1, 2)
    assert results.plot.spread(ax=axes[0]) is figure
    assert [text.get_text() for text in axes[0].get_xticklabels()] == ["5e-4", "1e-3", "0.01"]
    assert axes[0].get_legend() is not None
    assert not axes[1].has_data()
    results.plot.seed_budget(ax=axes, legend=False)
    assert axes[1].get_xlabel() == "seeds per cell"
    assert axes[1].get_legend() is None
    with pytest.raises(HarnessError, match=r"this figure has 2 panels of these runs \(got 1 axes\)"):
        results.plot.seed_budget(ax=axes[0])
    plt.close(figure)


def test_a_users_own_file_keeps_text_too(results, tmp_path):
    with plt.rc_context({"svg.fonttype": "path"}):
        results.plot.failure_rates().savefig(tmp_path / "own.svg")
    assert ">lr</text>" in (tmp_path / "own.svg").read_text()


def test_the_caption_says_what_is_shown_and_of_how_many_runs(results):
    spec = named_figures.figure_named("spread")
    said = named_figures.caption(results.study, spec, named_figures.draw(results.analysis, spec, Sheet(title=False)))
    assert said.startswith("Final dev accuracy of every run. Each dot is one run")
    assert said.endswith("9 runs.")


# ---------------------------------------------------------------------------------------------------------------- fonts


@pytest.fixture
def han_font(tmp_path):
    """An installed font with two signs of its own."""
    builder, pen = FontBuilder(1000), TTGlyphPen(None)
    pen.moveTo((0, 0))
    pen.lineTo((500, 0))
    pen.lineTo((500, 700))
    pen.closePath()
    box = pen.glyph()
    builder.setupGlyphOrder([".notdef", "han", "zi"])
    builder.setupCharacterMap({ord("漢"): "han", ord("字"): "zi"})
    builder.setupGlyf({".notdef": box, "han": box, "zi": box})
    builder.setupHorizontalMetrics(dict.fromkeys((".notdef", "han", "zi"), (1000, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Made Han", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "han.ttf")
    before = list(fontManager.ttflist)
    fontManager.addfont(tmp_path / "han.ttf")
    yield "Made Han"
    fontManager.ttflist[:] = before


def test_signs_come_from_an_installed_font_that_has_them(results, han_font, tmp_path):
    assert fonts.covering("漢字", (fonts.FAMILY,)) == (han_font,)
    assert fonts.covering("abc é α", (fonts.FAMILY,)) == ()
    study = study_of(tmp_path, TEXT + "title: 漢字\n", RUNS)
    with requested(Sheet()):
        assert named_figures.notes(study, Sheet()) == []
    assert fonts.text_width("漢字", 8, (fonts.FAMILY, han_font)) == pytest.approx(2 * 8 / 72, rel=0.1)


def test_signs_that_no_font_has_are_said_once(tmp_path):
    study = study_of(tmp_path, TEXT + "title: \U000f0000 and \U000f0001 twice \U000f0000\n", RUNS)
    (note,) = named_figures.notes(study, Sheet())
    assert note.startswith("No installed font has \U000f0000\U000f0001: figures show □ there.")
    assert lettering.clean("a\U000f0000b") == "a□b"


# --------------------------------------------------------------------------------------------------------------- tables


def test_a_table_has_the_columns_that_were_asked_for(results):
    spec = named_tables.table_named("cells")
    text = named_tables.text_of(results.analysis, spec, ["mean", "sd", "failed", "judged"], "latex", "Cells & more")
    assert text.splitlines()[1:] == [
        r"\begin{table}[t]", r"\centering", r"\begin{tabular}{lrrrr}", r"\toprule",
        r"lr & mean & sd & failed & judged \\", r"\midrule",
        r"5e-4 & 0.775 & 0.025 & 0/3 & 3 \\", r"1e-3 & 0.777 & 0.025 & 0/3 & 3 \\",
        r"0.01 & 0.780 & 0.025 & 0/3 & 3 \\",
        r"\bottomrule", r"\end{tabular}", r"\caption{Cells \& more.}", r"\label{tab:cells}", r"\end{table}",
    ]  # fmt: skip
    text = named_tables.text_of(results.analysis, spec, ["mean", "sd"], "csv")
    assert text.splitlines()[0] == "lr,mean,sd"
    text = named_tables.text_of(results.analysis, spec, ["mean"], "markdown")
    assert text.splitlines()[2] == "| lr | mean |"
    columns, caption = named_tables.usual_columns(spec, "latex", None)
    text = named_tables.text_of(results.analysis, spec, columns, "latex", caption)
    assert r"lr & n & mean & sd & min & max & failed & failure rate {[}95 \%{]} \\" in text.replace("\u00a0", " ")
    assert "Clopper" not in text
    assert named_tables.usual_columns(spec, "csv", None) == (None, None)
    assert not named_tables.too_wide(results.analysis, spec, columns)
    wide = named_tables.too_wide(results.analysis, spec, None)
    assert "of 16 columns is wider than a page" in wide
    assert "--columns, of: finished, failed, failure rate, exact" in wide
    with pytest.raises(HarnessError, match=r"unknown column 'means' \(did you mean 'mean'\?\)"):
        named_tables.text_of(results.analysis, spec, ["means"], "latex")


def latex_of(results: Results) -> str:
    """Every table that there is, in one document."""
    tables = [
        named_tables.text_of(results.analysis, spec, None, "latex")
        for spec in named_tables.TABLES
        if spec.text(results.analysis) is not None
    ]
    start = "\\documentclass{article}\n\\usepackage{booktabs,graphicx}\n\\begin{document}\n"
    return start + "\n".join(tables) + "\n\\clearpage\n"


def compiled(program: str, text: str, folder: Path) -> str:
    """The text of the PDF that a program makes of a document."""
    (folder / "all.tex").write_text(text + "\\end{document}\n")
    command = [program, "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stdout[-2000:]
    assert (folder / "all.pdf").stat().st_size > 1000
    return ran.stdout


HARD = ("a_b & 5 %", "~^\\{x} #1 $y$ <z>", "µ ≥ ½ naïve “β” [*]")


@pytest.fixture(scope="module")
def hard(tmp_path_factory):
    """A study whose names are full of what LaTeX takes for commands."""
    cells = tuple((("weight_decay & co", value), ("100 %", mode)) for value in HARD for mode in ("x_1", "[*]"))
    return Results(theirs(tmp_path_factory.mktemp("hard"), cells, lambda cell, seed: 0.6 + 0.01 * cell, seeds=3), None)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no pdfLaTeX here")
def test_every_table_and_figure_compiles(results, hard, tmp_path):
    figures = ""
    for number, some in enumerate((results, hard)):
        path = tmp_path / f"spread{number}.pdf"
        named_figures.write(some.analysis, named_figures.figure_named("spread"), Sheet(), path)
        figures += f"\\includegraphics{{{path.name}}}\n"
    body = latex_of(results) + latex_of(hard).partition("\\begin{document}\n")[2]
    compiled("pdflatex", body + figures, tmp_path)


@pytest.mark.skipif(shutil.which("lualatex") is None, reason="there is no LuaLaTeX here")
def test_names_in_any_script_compile_where_the_table_says(tmp_path):
    cells = tuple((("感情分析", value),) for value in ("日本語", "한국어"))
    made = Results(theirs(tmp_path, cells, lambda cell, seed: 0.6 + 0.1 * cell, seeds=3), None)
    text = named_tables.text_of(made.analysis, named_tables.table_named("cells"), ["mean"], "latex")
    assert text.startswith("% needs booktabs, and LuaLaTeX or XeLaTeX with a font that has 感情分析日本語한국어.\n")
    compiled("lualatex", latex_of(made), tmp_path)


def test_no_other_table_needs_another_program(hard):
    text = latex_of(hard)
    assert files.beyond_latin(text) == ""
    assert "and LuaLaTeX" not in text


def test_every_table_is_whole_latex(results):
    for spec in named_tables.TABLES:
        if spec.text(results.analysis) is None:
            continue
        text = named_tables.text_of(results.analysis, spec, None, "latex")
        assert text.count("\\begin{") == text.count("\\end{") == 2
        assert [text.count(rule) for rule in ("\\toprule", "\\midrule", "\\bottomrule", "\\caption{")] == [1] * 4
        inside = text.partition("\\toprule")[2].partition("\\bottomrule")[0]
        rows = [line for line in inside.splitlines() if line.endswith(r"\\")]
        assert len({len(re.findall(r"(?<!\\)&", row)) for row in rows}) == 1
        assert text.isascii() or not re.search(r"[–−×±]", text)


def test_a_box_stands_over_its_own_runs_where_only_one_arm_has_enough(tmp_path):
    text = HEAD + "lr: 1e-5\nbias_correction: [off, on]\nmethod: [full, head]\nepochs: 3\nseeds: 1..6\n"
    runs = {cell: [Run(300 + 5 * seed) for seed in range(6 if cell == 3 else 2)] for cell in range(4)}
    ax = scores.spread(Results(study_of(tmp_path, text, runs), None).analysis).axes[0]
    (box,) = ax.patches
    left, right = box.get_path().vertices[:, 0].min(), box.get_path().vertices[:, 0].max()
    (six,) = (marks.get_offsets()[:, 0] for marks in ax.collections if len(marks.get_offsets()) == 6)
    assert left < six.min() < six.max() < right
