"""Numbers and tables as people read them: at the edges of numbers, and with texts that would like to be markup."""

import csv
import io
import itertools
import math
import re

import numpy as np
import pandas as pd
import pytest
from diagnosed_runs import FINE, GONE
from diagnosed_runs import TEXT as DIAGNOSED_TEXT
from made_runs import HEAD, MOSBACH, MOSBACH_RUNS, Run, import_of, imported_runs, store_of, study_of, sweep_of

from harness.analysis.analyze import analyse
from harness.records.study import joined, of_sweep
from harness.report import formatting
from harness.report.formatting import MADE, Table

NAN, INF = float("nan"), float("inf")
HOSTILE = [
    "<script>alert(1)</script>", "a|b", "$x$", r"\input{x}", "=cmd()", "+1", "-1+1", "@SUM(A1)", "\t=1", "＝1+1",
    "&amp;", "*bold* _under_", "`code`", "[link](http://x)", "~~no~~", "^up", "#1", "50 %", '"quoted", \'too\'',
    "a\nb", "emoji 😀", "עברית", "\u202eabc", " ", "ω² × τ ± ∞", "{brace}", "a & b \\\\ c", "* star",
]  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.81249, "0.812"), (-0.5, "−0.500"), (0.0, "0.000"), (-0.0, "0.000"), (-1e-9, "0.000"), (1e-7, "0.000"),
        (9.9994, "9.999"), (12.345, "12.35"), (123.45, "123.5"), (99999, "99999.0"), (1e5, "100000"),
        (-2.5e7, "−25000000"), (INF, "∞"), (-INF, "−∞"), (NAN, "–"), (None, "–"), (pd.NA, "–"),
        (np.float64("nan"), "–"), (np.float64(0.5), "0.500"),
    ],
)  # fmt: skip
def test_scores(value, text):
    assert formatting.score(value) == text


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(0.5, 0, "50 %"), (0.123, 1, "12.3 %"), (-0.333, 0, "−33 %"), (-0.001, 0, "0 %"), (-0.0, 1, "0.0 %"),
     (0, 0, "0 %"), (1, 0, "100 %"), (NAN, 0, "–"), (None, 0, "–"), (pd.NA, 1, "–")],
)  # fmt: skip
def test_percent(value, digits, text):
    assert formatting.percent(value, digits) == text


def test_points_p_values_and_counts():
    assert [formatting.points(value) for value in (0.0123, -0.2, NAN, None)] == ["1.2 points", "−20.0 points", "–", "–"]
    assert [formatting.p_value(value) for value in (1.0, 0.0404, 0.00012, 9e-5, 0.0, NAN, None)] == [
        "1", "0.04", "0.00012", "< 0.0001", "< 0.0001", "–", "–",
    ]  # fmt: skip
    assert [formatting.integer(value) for value in (3, 3.0, np.int64(7), "12", NAN, pd.NA, None)] == [
        "3", "3", "7", "12", "–", "–", "–",
    ]  # fmt: skip


def test_rates_and_intervals():
    # Newcombe (1998), Statistics in Medicine 17, 857–872, table I: 81 of 263 is 0.2553 to 0.3662.
    assert formatting.rate(81, 263) == "31 % [26, 37]"
    assert formatting.rate(0, 0) == "not known"
    assert formatting.rate(0, 5) == "0 % [0, 43]"
    row = {"x": -0.25, "x_low": -0.5, "x_high": NAN}
    assert formatting.interval(row, "x") == "−0.250"  # half an interval is none
    assert formatting.interval(row | {"x_high": INF}, "x") == "−0.250 [−0.500, ∞]"
    assert formatting.interval(row | {"x_high": 0.0}, "x", formatting.percent) == "−25 % [−50, 0]"
    assert formatting.interval(row | {"x": pd.NA}, "x") == "–"


# ------------------------------------------------------------------------------------------------------------- tables


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    mosbach = study_of(folder / "mosbach", MOSBACH, MOSBACH_RUNS)
    crossed = sweep_of(
        folder / "crossed", HEAD + "lr: 1e-5\nepochs: 3\nseeds: [1]\ninit_seed: [1, 2]\norder_seed: [1, 2, 3]\n"
    )
    runs = [Run(300 + 7 * place * place) for place in range(6)]
    paper = "task: rte\nmodel: bert-large-uncased\ntoken_type_ids: off\nlr: 2e-5\nepochs: 3\nbias_correction: off\n"
    given = [row | {"correct": round(row.get("final_score", 0) * 400), "dev_examples": 400}
             for cell in range(4) for row in imported_runs([0.6 + cell / 50, 0.7, 0.65], cell)]  # fmt: skip
    cells = [(("dataset", dataset), ("method", method)) for dataset in "ab" for method in "xy"]
    return {
        "mosbach": mosbach,
        "nothing": study_of(folder / "nothing", MOSBACH, {}),
        "one": study_of(folder / "one", HEAD + "lr: 1e-5\nepochs: 3\nseeds: 1\n", {0: [Run(300)]}),
        "diverged": study_of(folder / "d", HEAD + "lr: 1e-5\nepochs: 3\nseeds: 1..2\n", {0: [Run(diverged=True)] * 2}),
        "crossed": of_sweep(crossed, store_of(folder / "crossed", crossed, {0: list(runs)})),
        "paper": study_of(folder / "paper", paper + "seeds: 1..3\n", {0: [Run(200), Run(240), Run(280)]}),
        "import": import_of(folder / "import", cells, given),
        "two": joined(mosbach, study_of(folder / "other", MOSBACH, {0: [Run(300)] * 3}, "other")),
        "regression": study_of(
            folder / "r", HEAD + "lr: [1e-5, 2e-5]\nepochs: 3\nseeds: 1..2\n", {0: [Run(score=0.5), Run(score=-0.1)]}
        ),
    }


@pytest.fixture(scope="module")
def analyses(studies):
    return {name: analyse(study, 0.7) for name, study in studies.items()}


def test_every_table_of_the_analysis_has_a_maker_or_is_left_out(analyses):
    left_out = {"runs", "profile"}  # a table of its own on the page; drawn, and as CSV
    assert set(MADE) == set(analyses["mosbach"].tables) - left_out
    assert [name for name in analyses["mosbach"].tables if name in MADE] == list(MADE)  # in one order


def test_every_table_is_made_in_some_study(analyses):
    made = {name for found in analyses.values() for name in formatting.tables(found)}
    recorded = {"gradients", "early_warning", "stopping"}  # they have runs of their own, as baselines
    assert made == set(MADE) - {"baselines"} - recorded


def test_every_table_is_rectangular_and_of_text(analyses):
    for found in analyses.values():
        for name, table in formatting.tables(found).items():
            assert table.name == name
            assert table.caption
            assert not table.caption.endswith(".")
            assert len(table.header) == len(table.numeric) == len(set(table.header))
            assert all(len(row) == len(table.header) for row in table.rows)
            assert all(isinstance(text, str) and text for row in table.rows for text in row), name
            assert table.rows


def test_no_table_says_nan(analyses):
    wrong = re.compile(r"\bnan\b|\bNaN\b|\bNone\b|<NA>|\binf\b|(?<![\w.])-\d")
    for found in analyses.values():
        for table in formatting.tables(found).values():
            for text in itertools.chain(table.header, *table.rows):
                said = text.replace("[-", "[−") if table.name == "against_the_paper" else text
                assert not wrong.search(said), (table.name, text)


def test_what_nowhere_is_known_is_left_out(analyses):
    made = formatting.tables(analyses["import"])
    assert "at or below the majority" not in made["definitions"].header
    assert "mean training loss" not in made["arms"].header
    assert "training alone [95 %]" not in made["noise_floor"].header
    assert "bootstrap error" not in made["noise_floor"].header
    assert "seed_factors" not in made


def test_pairs_say_what_is_compared_and_where(analyses):
    made = formatting.tables(analyses["import"])["pair_levels"]
    assert [row[:2] for row in made.rows] == [
        ("dataset a", "method y against x"), ("dataset b", "method y against x"),
    ]  # fmt: skip
    two = formatting.tables(analyses["two"])["pair_failures"]
    assert two.rows[0][:2] == ("lr 1e-5, bias correction off, epochs 3", "sweep other@default against made@default")


def test_seeds_that_are_needed_are_not_known_from_one_score(analyses):
    table = formatting.tables(analyses["mosbach"])["needed"]
    rows = {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}
    assert rows["lr 2e-5, epochs 3"]["to tell the means apart"] == "–"  # one run with correction
    assert rows["lr 2e-5, epochs 3"]["to tell the rates apart"] == "4"
    assert rows["lr 1e-5, epochs 3"]["to tell the rates apart"] == "> 1000"  # none failed on either side
    imported = formatting.tables(analyses["import"])["needed"]
    assert "to tell the rates apart" not in imported.header  # nothing is judged


def test_long_tables_are_cut_on_the_page_only():
    rows = tuple((str(number),) for number in range(formatting.MOST_ROWS + 5))
    table = Table("t", "T", ("n",), rows, (True,))
    assert (len(table.shown), table.left_out) == (formatting.MOST_ROWS, 5)
    assert formatting.markdown(table).count("\n") == len(rows) + 4
    assert Table("t", "T", ("n",), rows[:3], (True,)).left_out == 0


# --------------------------------------------------------------------------------------------------------------- CSV


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


@pytest.mark.parametrize("sign", FORMULAS)
def test_no_cell_and_no_header_of_a_csv_starts_a_formula(sign):
    text = f"{sign}HYPERLINK(1)"
    kept = text.replace("\r", "\n")
    table = pd.DataFrame({text: [text, "fine"], "plain": [1.0, -2.5]})
    found = read(formatting.csv(table))
    assert found[0] == [f"'{kept}", "plain"]
    assert found[1] == [f"'{kept}", "1.0"]
    assert found[2] == ["fine", "-2.5"]
    assert list(table.columns) == [text, "plain"]  # what was given is not changed


def test_a_carriage_return_starts_no_row():
    table = pd.DataFrame({"method": ["a\r=1+1", "b\r\n=1+1"]})
    assert formatting.csv(table) == 'method\n"a\n=1+1"\n"b\n=1+1"\n'  # within quotes, and so no row of its own


def test_plain_numbers_stay_numbers():
    axis = pd.Series([-1, -2.5, None, True], dtype=object)
    table = pd.DataFrame({"axis": axis, "n": pd.array([1, None, -3, 4], dtype="Int64"), "x": [-0.1, NAN, INF, 1 / 3]})
    assert read(formatting.csv(table, "%.10g")) == [
        ["axis", "n", "x"], ["-1", "1", "-0.1"], ["-2.5", "", ""], ["", "-3", "inf"], ["True", "4", "0.3333333333"],
    ]  # fmt: skip


@pytest.mark.parametrize("value", HOSTILE)
def test_a_csv_of_hostile_axis_values_comes_back(tmp_path, value):
    cells = [(("method", value), ("k", 1)), (("method", "plain"), ("k", -1))]
    found = analyse(import_of(tmp_path, cells, [*imported_runs([0.5, 0.6]), *imported_runs([0.5, 0.7], 1)]))
    rows = read(formatting.csv(found.cells, "%.10g"))
    assert len({len(row) for row in rows}) == 1
    assert rows[1][1] == (f"'{value}" if value.startswith(FORMULAS) else value)
    assert rows[2][1:3] == ["plain", "-1"]


@pytest.mark.parametrize("name", ["=1+1", "@x", "a|b", "<b>", r"\input{x}", "$y$", "-lr"])
def test_hostile_axis_names(tmp_path, name):
    cells = [((name, 1), ("k", 1)), ((name, 2), ("k", 1)), ((name, 2), ("k", 2))]
    rows = [row for cell in range(3) for row in imported_runs([0.5, 0.6, 0.55 + cell / 10], cell)]
    found = analyse(import_of(tmp_path, cells, rows))
    for table in found.tables.values():
        for text in itertools.chain(*read(formatting.csv(table))):
            assert not text.startswith(FORMULAS) or re.fullmatch(r"-?[\d.]+(e-?\d+)?", text), text
    for table in formatting.tables(found).values():
        holds_as_markdown(table)
        holds_as_latex(table)


# ------------------------------------------------------------------------------------------------- Markdown and LaTeX


def cells_of(line: str) -> list[str]:
    return re.split(r"(?<!\\)\|", line)[1:-1]


def holds_as_markdown(table: Table) -> None:
    text = formatting.markdown(table)
    lines = text.split("\n")
    assert lines[-1] == ""
    assert all(len(cells_of(line)) == len(table.header) for line in lines[2:-1]), text
    assert len(lines) == len(table.rows) + 5
    assert "<" not in text
    assert ">" not in text.replace("&gt;", "")
    bare = re.sub(r"\\[|\\`*\[\]~$_]", "", text.replace("| --- |", "").replace("---:", ""))
    assert not re.search(r"[`*\[\]~$_\\]", bare), bare


def holds_as_latex(table: Table) -> None:
    text = formatting.latex(table)
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
    for table in formatting.tables(found).values():
        holds_as_markdown(table)
        holds_as_latex(table)


def test_markdown_and_latex_of_known_texts():
    row = ("<b>&amp;</b>", "a|b_c*d*", r"\input{x}", "$x$ [1, 2]", "a\n b  c", '"it\'s"')
    table = Table(
        "t", "Cap_tion\nof 5 %", ("h_1", "b", "c", "d", "e", "f"), (row,), (False, True, False, True, False, False)
    )
    assert formatting.markdown(table) == (
        "Cap\\_tion of 5 %\n\n| h\\_1 | b | c | d | e | f |\n| --- | ---: | --- | ---: | --- | --- |\n"
        '| &lt;b&gt;&amp;amp;&lt;/b&gt; | a\\|b\\_c\\*d\\* | \\\\input{x} | \\$x\\$ \\[1, 2\\] | a b c | "it\'s" |\n'
    )
    assert formatting.latex(table) == (
        "% needs booktabs. Cap_tion of 5 %\n\\begin{tabular}{lrlrll}\n\\toprule\n"
        "h\\_1 & b & c & d & e & f \\\\\n\\midrule\n"
        "\\textless{}b\\textgreater{}\\&amp;\\textless{}/b\\textgreater{} & a\\textbar{}b\\_c{*}d{*} & "
        "\\textbackslash{}input\\{x\\} & \\$x\\$ {[}1, 2{]} & a b c & ''it's'' \\\\\n"
        "\\bottomrule\n\\end{tabular}\n"
    )


def test_texts_are_not_escaped_twice():
    once = formatting.markdown_text("a & b")
    assert str(once) == "a &amp; b"
    assert "{{" not in formatting.latex_text("{")
    assert math.isclose(float(formatting.latex_text("0.5")), 0.5)


def test_the_tables_of_a_diagnosis(tmp_path):
    runs = {0: [FINE, GONE, GONE, FINE], 1: [FINE, FINE, GONE, FINE], 2: [GONE] * 4, 3: [FINE] * 4}
    made = formatting.tables(analyse(study_of(tmp_path, DIAGNOSED_TEXT, runs)))
    assert made["kinds"].header[-1] == "gradients vanished"
    assert [row[-1] for row in made["kinds"].rows] == ["2 of 2", "1 of 1", "4 of 4", "–"]
    assert made["gradients"].rows[1] == ("1 attention", "51 %", "0.0001", "1", "4.0", "4.0")
    assert made["step_sizes"].rows[0][-4:] == ("6.56", "11", "6.56e-5", "0 %")
    assert len(made["early_warning"].rows) == 200
    assert made["stopping"].rows[2] == ("2e-5", "off", "4", "4", "0", "4", "4", "0.500", "–", "98 %")
    assert [row[0] for row in made["shared_seeds"].rows] == ["score", "failing"]
