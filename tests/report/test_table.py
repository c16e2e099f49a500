"""Every table of the report: declared once, rectangular, and without what nobody knows."""

import itertools
import re
from dataclasses import replace

import pytest
from diagnosed_runs import FINE, GONE
from diagnosed_runs import TEXT as DIAGNOSED_TEXT
from made_runs import HEAD, MOSBACH, MOSBACH_RUNS, Run, import_of, imported_runs, store_of, study_of, sweep_of

from harness.analysis.analyze import analyse
from harness.records.study import Compared, joined, of_sweep
from harness.report.contents import TABLES, text_tables
from harness.report.files import markdown
from harness.report.table import MOST_ROWS, TextTable

NAN, INF = float("nan"), float("inf")


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
    main = {"mosbach": "bias_correction", "import": "method"}  # what their tests compare
    compared = {name: replace(study, compared=Compared(main=main.get(name))) for name, study in studies.items()}
    return {name: analyse(study, 0.7) for name, study in compared.items()}


def test_every_table_of_the_analysis_stands_in_one_section_or_is_left_out(analyses):
    left_out = {"runs", "profile"}  # a table of its own on the page; drawn, and as CSV
    names = [spec.name for spec in TABLES if spec.data is None]
    assert sorted(names) == sorted(set(analyses["mosbach"].tables) - left_out)  # each once


def test_every_table_is_made_in_some_study(analyses):
    made = {name for found in analyses.values() for name in text_tables(found)}
    recorded = {"gradients", "early_warning", "stopping", "same_seed"}  # they have runs of their own, as baselines
    assert made == {spec.name for spec in TABLES} - {"baselines"} - recorded


def test_every_table_is_rectangular_and_of_text(analyses):
    for found in analyses.values():
        for name, table in text_tables(found).items():
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
        for table in text_tables(found).values():
            for text in itertools.chain(table.header, *table.rows):
                said = text.replace("[-", "[−") if table.name == "against_the_paper" else text
                assert not wrong.search(said), (table.name, text)


def test_what_nowhere_is_known_is_left_out(analyses):
    made = text_tables(analyses["import"])
    assert "at or below the majority" not in made["definitions"].header
    assert "mean training loss" not in made["arms"].header
    assert "training noise alone [95 %]" not in made["noise_floor"].header
    assert "bootstrap error" not in made["noise_floor"].header
    assert "seed_factors" not in made


def test_pairs_say_what_is_compared_and_where(analyses):
    made = text_tables(analyses["import"])["pair_levels"]
    assert [row[:2] for row in made.rows] == [
        ("dataset a", "method y vs. x"), ("dataset b", "method y vs. x"),
    ]  # fmt: skip
    two = text_tables(analyses["two"])["pair_failures"]
    assert two.rows[0][:2] == ("lr 1e-5, bias correction off, epochs 3", "sweep other@default vs. made@default")


def test_seeds_that_are_needed_are_not_known_from_one_score(analyses):
    table = text_tables(analyses["mosbach"])["needed"]
    rows = {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}
    means, rates = "seeds to distinguish the means", "seeds to distinguish the failure rates"
    assert rows["lr 2e-5, epochs 3"][means] == "–"  # one run with correction
    assert rows["lr 2e-5, epochs 3"][rates] == "16 [4, 62]"
    assert rows["lr 1e-5, epochs 3"][rates] == "cannot tell"  # none failed on either side
    assert rows["lr 2e-5, epochs 10"][means].startswith("2 [2, ")
    imported = text_tables(analyses["import"])["needed"]
    assert rates not in imported.header  # nothing is judged
    assert "judged now" not in imported.header


def test_long_tables_are_cut_on_the_page_only():
    rows = tuple((str(number),) for number in range(MOST_ROWS + 5))
    table = TextTable("t", "T", ("n",), rows, (True,))
    assert (len(table.shown), table.left_out) == (MOST_ROWS, 5)
    assert markdown(table).count("\n") == len(rows) + 4
    assert TextTable("t", "T", ("n",), rows[:3], (True,)).left_out == 0


def test_the_tables_of_a_diagnosis(tmp_path):
    runs = {0: [FINE, GONE, GONE, FINE], 1: [FINE, FINE, GONE, FINE], 2: [GONE] * 4, 3: [FINE] * 4}
    made = text_tables(analyse(study_of(tmp_path, DIAGNOSED_TEXT, runs)))
    assert made["kinds"].header[-1] == "gradients vanished"
    assert [row[-1] for row in made["kinds"].rows] == ["2 of 2", "1 of 1", "4 of 4", "–"]
    assert made["gradients"].rows[1] == ("1 attention", "51 %", "0.0001", "1", "4.0", "4.0")
    assert made["step_sizes"].rows[0][-4:] == ("6.56", "11", "6.56e-5", "0 %")
    assert len(made["early_warning"].rows) == 200
    assert made["stopping"].rows[2] == ("2e-5", "off", "4", "4", "0", "4", "4", "0.500", "–", "98 %")
    assert [row[0] for row in made["shared_seeds"].rows] == ["score", "failing"]
