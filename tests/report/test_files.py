"""Tables as files, with texts that would like to be a formula or markup."""

import csv as csv_module
import io
import itertools
import math
import re

import pandas as pd
import pytest
from hostile_texts import HOSTILE
from made_runs import import_of, imported_runs

from harness.analysis.analyze import analyse
from harness.report.contents import text_tables
from harness.report.files import csv, latex, latex_text, markdown, markdown_text
from harness.report.table import TextTable

NAN, INF = float("nan"), float("inf")


# --------------------------------------------------------------------------------------------------------------- CSV


def read(text: str) -> list[list[str]]:
    return list(csv_module.reader(io.StringIO(text)))


FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


@pytest.mark.parametrize("sign", FORMULAS)
def test_no_cell_and_no_header_of_a_csv_starts_a_formula(sign):
    text = f"{sign}HYPERLINK(1)"
    kept = text.replace("\r", "\n")
    table = pd.DataFrame({text: [text, "fine"], "plain": [1.0, -2.5]})
    found = read(csv(table))
    assert found[0] == [f"'{kept}", "plain"]
    assert found[1] == [f"'{kept}", "1.0"]
    assert found[2] == ["fine", "-2.5"]
    assert list(table.columns) == [text, "plain"]  # what was given is not changed


def test_a_carriage_return_starts_no_row():
    table = pd.DataFrame({"method": ["a\r=1+1", "b\r\n=1+1"]})
    assert csv(table) == 'method\n"a\n=1+1"\n"b\n=1+1"\n'  # within quotes, and so no row of its own


def test_plain_numbers_stay_numbers():
    axis = pd.Series([-1, -2.5, None, True], dtype=object)
    table = pd.DataFrame({"axis": axis, "n": pd.array([1, None, -3, 4], dtype="Int64"), "x": [-0.1, NAN, INF, 1 / 3]})
    assert read(csv(table, "%.10g")) == [
        ["axis", "n", "x"], ["-1", "1", "-0.1"], ["-2.5", "", ""], ["", "-3", "inf"], ["True", "4", "0.3333333333"],
    ]  # fmt: skip


@pytest.mark.parametrize("value", HOSTILE)
def test_a_csv_of_hostile_axis_values_comes_back(tmp_path, value):
    cells = [(("method", value), ("k", 1)), (("method", "plain"), ("k", -1))]
    found = analyse(import_of(tmp_path, cells, [*imported_runs([0.5, 0.6]), *imported_runs([0.5, 0.7], 1)]))
    rows = read(csv(found.cells, "%.10g"))
    assert len({len(row) for row in rows}) == 1
    assert rows[1][1] == (f"'{value}" if value.startswith(FORMULAS) else value)
    assert rows[2][1:3] == ["plain", "-1"]


@pytest.mark.parametrize("name", ["=1+1", "@x", "a|b", "<b>", r"\input{x}", "$y$", "-lr"])
def test_hostile_axis_names(tmp_path, name):
    cells = [((name, 1), ("k", 1)), ((name, 2), ("k", 1)), ((name, 2), ("k", 2))]
    rows = [row for cell in range(3) for row in imported_runs([0.5, 0.6, 0.55 + cell / 10], cell)]
    found = analyse(import_of(tmp_path, cells, rows))
    for table in found.tables.values():
        for text in itertools.chain(*read(csv(table))):
            assert not text.startswith(FORMULAS) or re.fullmatch(r"-inf|-?[\d.]+(e-?\d+)?", text), text
    for table in text_tables(found).values():
        holds_as_markdown(table)
        holds_as_latex(table)


# ------------------------------------------------------------------------------------------------- Markdown and LaTeX


def cells_of(line: str) -> list[str]:
    return re.split(r"(?<!\\)\|", line)[1:-1]


def holds_as_markdown(table: TextTable) -> None:
    text = markdown(table)
    lines = text.split("\n")
    assert lines[-1] == ""
    assert all(len(cells_of(line)) == len(table.header) for line in lines[2:-1]), text
    assert len(lines) == len(table.rows) + 5
    assert "<" not in text
    assert ">" not in text.replace("&gt;", "")
    bare = re.sub(r"\\[|\\`*\[\]~$_]", "", text.replace("| --- |", "").replace("---:", ""))
    assert not re.search(r"[`*\[\]~$_\\]", bare), bare


def holds_as_latex(table: TextTable) -> None:
    text = latex(table)
    lines = text.split("\n")
    assert len(lines) == len(table.rows) + 8
    for line in [lines[3], *lines[5:-4]]:
        assert line.endswith(r" \\"), line
        inner = line.removesuffix(r" \\")
        assert len(re.findall(r"(?<!\\)&", inner)) == len(table.header) - 1, line
        known = r"\\(textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar)\{\}|\\[&%$#_{}]"
        known += r"|\$(-|\\(times|cdot|pm|infty|kappa|eta|omega|chi|tau))\$|\\textsuperscript\{2\}|\{[][*]\}"
        bare = re.sub(known, "", inner).replace("&", "")
        assert not re.search(r"[\\$%#_{}~^<>|*\[\]]", bare), bare


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_axis_values_in_markdown_and_latex(tmp_path, value):
    cells = [(("method", value), ("k", 1)), (("method", "plain"), ("k", 1))]
    found = analyse(import_of(tmp_path, cells, [*imported_runs([0.5, 0.6]), *imported_runs([0.5, 0.7], 1)]))
    for table in text_tables(found).values():
        holds_as_markdown(table)
        holds_as_latex(table)


def test_markdown_and_latex_of_known_texts():
    row = ("<b>&amp;</b>", "a|b_c*d*", r"\input{x}", "$x$ [1, 2]", "a\n b  c", '"it\'s"')
    table = TextTable(
        "t", "Cap_tion\nof 5 %", ("h_1", "b", "c", "d", "e", "f"), (row,), (False, True, False, True, False, False)
    )
    assert markdown(table) == (
        "Cap\\_tion of 5 %\n\n| h\\_1 | b | c | d | e | f |\n| --- | ---: | --- | ---: | --- | --- |\n"
        '| &lt;b&gt;&amp;amp;&lt;/b&gt; | a\\|b\\_c\\*d\\* | \\\\input{x} | \\$x\\$ \\[1, 2\\] | a b c | "it\'s" |\n'
    )
    assert latex(table) == (
        "% needs booktabs. Cap_tion of 5 %\n\\begin{tabular}{lrlrll}\n\\toprule\n"
        "h\\_1 & b & c & d & e & f \\\\\n\\midrule\n"
        "\\textless{}b\\textgreater{}\\&amp;\\textless{}/b\\textgreater{} & a\\textbar{}b\\_c{*}d{*} & "
        "\\textbackslash{}input\\{x\\} & \\$x\\$ {[}1, 2{]} & a b c & ''it's'' \\\\\n"
        "\\bottomrule\n\\end{tabular}\n"
    )


def test_texts_are_not_escaped_twice():
    once = markdown_text("a & b")
    assert str(once) == "a &amp; b"
    assert "{{" not in latex_text("{")
    assert math.isclose(float(latex_text("0.5")), 0.5)
