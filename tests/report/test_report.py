import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from diagnosed_runs import RUNS as DIAGNOSED
from diagnosed_runs import TEXT as DIAGNOSED_TEXT
from made_runs import HEAD, MOSBACH, MOSBACH_RUNS, Run, import_of, imported_runs, store_of, study_of, sweep_of
from read_page import Reader, holds, strict

from harness.analysis.analyze import analyse
from harness.config.sweep_file import load
from harness.config.trials import expand
from harness.records.study import joined, of_sweep
from harness.report import page as report
from harness.report import run_tables
from harness.report.contents import CHAPTERS, SECTIONS, TABLES
from harness.report.run_tables import error_line, seed_name, seeds_crossed

GOLDEN = Path(__file__).parents[1] / "golden"
FIGURES = (
    "best_of_n", "curves", "failure_rates", "importance", "noise_floor", "performance_profile", "seed_budget", "spread",
    "loss_vs_score", "step_size_factor",
)  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    sweep = sweep_of(folder, MOSBACH)
    store = store_of(folder, sweep, MOSBACH_RUNS)
    return sweep, report.write(of_sweep(sweep, store), store.folder / "report")


def texts_of(folder: Path) -> dict[str, str]:
    """Every file of a report that is text."""
    endings = {".html", ".md", ".csv", ".tex", ".svg"}
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.suffix in endings}


def same_as_golden(path: Path, name: str) -> None:
    """Compare with a golden file; GOLDEN=write writes it anew, to be looked at before it is kept."""
    golden = GOLDEN / name
    if os.environ.get("GOLDEN") == "write":
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(path.read_text())
    assert path.read_text() == golden.read_text()


def test_golden_markdown(written):
    same_as_golden(written[1].folder / "report.md", "report_report.md")


def test_test_scores_stand_beside_those_of_the_dev_set(tmp_path, no_figures):
    sweep = sweep_of(tmp_path, HEAD + "lr: [1e-5, 2e-5]\nepochs: 1\nseeds: 1..3\n")
    store = store_of(tmp_path, sweep, {0: [Run(300), Run(310), Run(320)], 1: [Run(300), Run(diverged=True)]})
    tests = [0.7, 0.8, 0.75, 0.5, None]
    for trial, score in zip(expand(sweep), tests, strict=False):
        path = store.path(trial.id)
        said = json.loads(path.read_text())
        said["measured"] |= {"test_score": score, "test_examples": 200}
        path.write_text(json.dumps(said))
    made = report.write(of_sweep(sweep, store), tmp_path / "report")
    cells = made.summary["cells"]
    assert [(cell["tested"], cell["test_mean"]) for cell in cells] == [(3, pytest.approx(0.75)), (1, 0.5)]
    assert [cell["test_sd"] for cell in cells] == [pytest.approx(0.05), None]
    page = (made.folder / "report.md").read_text()
    assert "| best mean | tested | test mean | test sd | crashed |" in page
    assert "| 0.785 | 3/3 | 0.750 | 0.050 | 0 |" in page
    assert "| 1/2 | 0.500 | – | 0 | 1 |" in page
    assert "Test scores come from the same weights, on examples that were never used for selection." in page
    picked = made.summary["tables"]["selection"][0]
    assert picked["known_from"] == "test"  # dev 0.75, 0.775, 0.8; the best has 0.05 more than its test score
    assert picked["too_high"] == pytest.approx(0.05 - (0.05 - 0.025 + 0.05) / 3)
    runs = pd.read_csv(made.folder / "tables" / "runs.csv")
    assert runs["test_score"].dropna().tolist() == [0.7, 0.8, 0.75, 0.5]


def test_golden_cells(written):
    same_as_golden(written[1].folder / "tables" / "cells.csv", "report_cells.csv")


def test_failed_and_near_chance_runs_are_called_so_and_counted(written):
    assert [run_tables.failed_heading(count) for count in (1, 2)] == [
        "1 failed or near-chance run, with the command that reruns it",
        "2 failed or near-chance runs, with the command that reruns each",
    ]
    assert ">6 failed or near-chance runs, with the command" in (written[1].folder / "index.html").read_text()
    assert "<summary>Failed and near-chance runs</summary>" in (written[1].folder / "report.md").read_text()


def test_golden_runs(written):
    same_as_golden(written[1].folder / "tables" / "runs.csv", "report_runs.csv")


def test_all_files_are_there_and_nothing_else(written):
    folder = written[1].folder
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    tables = {path.stem for path in (folder / "tables").iterdir()} - {"runs", "profile"}
    # One integer seeds all parts; no baselines were asked for, and nothing was recorded.
    assert tables == {spec.name for spec in TABLES} - {
        "seed_factors",
        "baselines",
        "gradients",
        "early_warning",
        "stopping",
        "same_seed",
    }
    assert names == {
        *(f"figures/{name}.{ending}" for name in FIGURES for ending in ("png", "svg", "pdf")),
        *(f"tables/{name}.{ending}" for name in tables for ending in ("csv", "md", "tex")),
        "tables/profile.csv",
        "tables/runs.csv",
        "index.html",
        "report.md",
    }
    assert sorted(path.name for path in folder.parent.iterdir()) == ["plan.json", "report", "trials"]
    assert all(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_every_csv_is_a_table_of_its_own(written):
    for path in (written[1].folder / "tables").glob("*.csv"):
        table = pd.read_csv(path)
        assert len(table)
        assert table.columns.is_unique
        assert not any(str(name).startswith("Unnamed") for name in table.columns)


def test_pairs_in_files_are_named_and_not_numbered(written):
    table = pd.read_csv(written[1].folder / "tables" / "pair_levels.csv")
    assert table["reference"][0] == "lr 1e-5, bias correction off, epochs 3"
    assert table["cell"][0] == "lr 2e-5, bias correction off, epochs 3"


def test_the_page_is_self_contained_and_well_formed(written):
    page = written[1].page.read_text()
    read = Reader(page)
    assert len(read.images) == len(FIGURES)
    outside = [address for address in read.addresses if not address.startswith(("data:image/", "#"))]
    assert outside == []
    page = re.sub(r'src(?:set)?="data:image/[^"]*"', "", page)  # an SVG names its namespaces
    assert "http://" not in page
    assert "https://" not in page
    assert "url(" not in page
    assert "@import" not in page


def test_title_and_heading_say_the_stand_in(written):
    read = Reader(written[1].page.read_text())
    assert read.texts["title"] == ["Bias correction and rate (embedded stand-in, not BERT on RTE)"]
    heading = read.texts["h1"] + read.texts["span"]
    assert "Bias correction and rate" in heading[0]
    assert "embedded stand-in, not BERT on RTE" in heading


def test_every_section_has_its_place(written):
    read = Reader(written[1].page.read_text())
    sections = [found["aria-labelledby"] for tag, found in read.tags if tag == "section"]
    assert sections == ["next", *(chapter.anchor for chapter in CHAPTERS), "runs", "made", "words"]
    places = [found["id"] for _, found in read.tags if "id" in found]
    shown = [
        section.anchor
        for section in SECTIONS
        if section.anchor not in ("baselines", "gradients", "surface", "early", "same-seed")
    ]
    assert [place for place in places if place in {section.anchor for section in SECTIONS}] == shown
    folded = [found.get("id") for tag, found in read.tags if tag == "details" and "folded" in found.get("class", "")]
    assert set(folded) == {section.anchor for chapter in CHAPTERS for section in chapter.folded} & set(shown)


def test_every_run_has_its_command(written):
    sweep, result = written
    commands = [text for text in Reader(result.page.read_text()).texts["code"] if text.startswith("harness rerun")]
    trials = expand(sweep)
    planned = [f"harness rerun made --profile default --trial {trial.id}" for trial in trials]
    early = len(commands) - len(trials) - 1  # those that failed stand in their chapter too
    early, rest = commands[:early], commands[early:]
    wrong = result.analysis.runs["verdict"].isin(["failed", "diverged", "near chance"])
    assert [command.split()[-1] for command in early] == list(result.analysis.runs["trial"][wrong])
    assert rest[: len(trials)] == planned
    assert len(rest) == len(trials) + 1  # once more among the crashed
    markdown = (result.folder / "report.md").read_text()
    for trial in trials:
        assert (f"--trial {trial.id}`" in markdown) == (trial.cell in (4, 5) or trial == trials[19])


def test_no_paths_of_the_machine(written):
    folder = written[1].folder
    for name, text in texts_of(folder).items():
        assert "/home/me" not in text, name
        assert str(folder.parent) not in text, name
        assert str(Path.cwd()) not in text, name
    assert "RuntimeError: no …/x.txt" in (folder / "tables" / "runs.csv").read_text()


def test_runs_has_a_row_for_each_planned_trial(written):
    sweep, result = written
    table = pd.read_csv(result.folder / "tables" / "runs.csv", keep_default_na=False)
    assert list(table["trial"]) == [trial.id for trial in expand(sweep)]
    assert table["verdict"].value_counts().to_dict() == {"ok": 16, "failed": 4, "": 2, "near chance": 1, "diverged": 1}
    assert table["status"].value_counts().to_dict() == {"finished": 22, "crashed": 1, "missing": 1}
    assert set(table["steps"]) == {"60", "200", ""}  # whole, though some are missing


# ------------------------------------------------------------------------------------------------------- for programs


def test_summary_keeps_the_contract(written):
    sweep, result = written
    found = strict(result)
    assert (found["sweep"], found["profile"], found["majority"]) == ("made", "default", 0.5)
    keys = ["axes", "planned", "finished", "crashed", "missing", "failed", "failed_low", "failed_high"]
    keys += ["mean", "sd", "min", "median", "max"]
    assert all(set(keys) <= set(cell) for cell in found["cells"])
    assert found["cells"][0]["axes"] == {"lr": 1e-5, "bias_correction": False, "epochs": 3}
    seventh = found["cells"][6]
    assert (seventh["finished"], seventh["crashed"], seventh["missing"]) == (1, 1, 1)
    assert (seventh["mean"], seventh["sd"]) == (0.8, None)
    assert len(found["cells"]) == len(sweep.cells)
    assert len(found["answer"]) > 2


def test_the_summary_has_every_table(written):
    tables = strict(written[1])["tables"]
    assert set(tables) == {*(spec.name for spec in TABLES), "runs", "profile"}
    assert len(tables["cells"]) == 8
    assert tables["cells"][6]["sd"] is None
    assert tables["cells"][0]["bias_correction"] is False
    assert tables["seed_factors"] == []
    assert tables["contrasts"][0]["odds_ratio"] == "inf"  # JSON has no word for it
    assert [row["verdict"] for row in tables["runs"]].count("near chance") == 1
    assert type(tables["cells"][0]["finished"]) is int


def test_the_summary_of_nothing(tmp_path, no_figures):
    study = study_of(tmp_path, MOSBACH, {})
    found = strict(report.write(study, tmp_path / "out"))
    assert found["majority"] is None
    assert all(cell["mean"] is None and cell["failed_low"] is None for cell in found["cells"])
    assert found == json.loads(json.dumps(report.summary(analyse(study)), allow_nan=False))


# ------------------------------------------------------------------------------------------------------------ writing


def test_a_second_report_replaces_the_first_and_a_failed_one_leaves_it(tmp_path, monkeypatch, no_figures):
    sweep = sweep_of(tmp_path, HEAD + "lr: 1e-5\nepochs: 3\nseeds: 1..2\n")
    store = store_of(tmp_path, sweep, {0: [Run(300), None]})
    study, folder = of_sweep(sweep, store), store.folder / "report"
    first = report.write(study, folder)
    (folder / "mine.txt").write_text("from the old one")
    before = first.page.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(report, "_render", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            report.write(study, folder)
    assert first.page.read_bytes() == before
    assert report.write(study, folder).page.read_bytes() == before
    assert not (folder / "mine.txt").exists()
    assert [path.name for path in store.folder.iterdir() if path.name.startswith(".")] == []


def test_another_folder_and_another_command(tmp_path, no_figures):
    sweep = sweep_of(tmp_path, HEAD + "lr: 1e-5\nepochs: 3\nseeds: 1\n")
    study = of_sweep(sweep, store_of(tmp_path, sweep, {0: [Run(200)]}), "harness rerun sweeps/x.yaml")
    result = report.write(study, tmp_path / "a" / "b")
    assert result.page == tmp_path / "a" / "b" / "index.html"
    assert "<code>harness rerun sweeps/x.yaml --trial lr1e-5-bc-ep3-seed1-" in result.page.read_text()


def test_a_threshold_is_one_more_definition(tmp_path, no_figures):
    study = study_of(tmp_path, HEAD + "lr: 1e-5\nepochs: 3\nseeds: 1..2\n", {0: [Run(300), Run(340)]})
    text = (report.write(study, tmp_path / "out", 0.8).folder / "report.md").read_text()
    assert "| below 0.800 |" in text
    assert "1 of 2 (worse than 0.800)" in text


EDGES = {
    "nothing": ("lr: 1e-5\nepochs: 3\n", {}),
    "all diverged": ("lr: 1e-5\nepochs: 3\n", {0: [Run(diverged=True)] * 2}),
    "all crashed": ("lr: 1e-5\nepochs: 3\n", {0: [Run(crashed="no traceback")] * 2}),
    "one each": ("lr: [1e-5, 2e-5]\nepochs: 3\n", {0: [Run(300), None], 1: [Run(200), None]}),
    "recipes": (
        "lr: 1e-5\nrecipes: {usual: {epochs: 3}, more: {epochs: 20}}\n",
        {0: [Run(200)] * 2, 1: [Run(300)] * 2},
    ),
    "four axes": (
        "lr: [1e-5, 2e-5]\nepochs: [3, 10]\nbias_correction: [off, on]\nmax_grad_norm: [1.0, null]\n",
        {cell: [Run(300 + cell), Run(200)] for cell in range(16)},
    ),
}


@pytest.mark.parametrize("name", EDGES)
def test_edges(tmp_path, name, no_figures):
    axes, runs = EDGES[name]
    result = report.write(study_of(tmp_path, HEAD + axes + "seeds: 1..2\n", runs), tmp_path / "out")
    holds(result)
    page = result.page.read_text()
    if name == "recipes":
        assert "3 (usual); 20 (more)" in page
    if name == "four axes":
        assert ">none</td>" in page
    if name == "nothing":
        assert "No run has finished yet." in page


def test_a_record_that_cannot_be_read_is_unreadable_and_said(tmp_path, no_figures):
    sweep = sweep_of(tmp_path, HEAD + "lr: 1e-5\nepochs: 3\nseeds: 1..2\n")
    store = store_of(tmp_path, sweep, {0: [Run(300), Run(310)]})
    store.path(expand(sweep)[0].id).write_text('{"cut sh')
    text = holds(report.write(of_sweep(sweep, store), tmp_path / "out"))
    assert "Planned: 1 cell × 2 seeds = 2; 1 finished, 0 crashed, 0 missing, 1 unreadable." in text
    assert "1 of the 2 planned runs has an unreadable record" in text
    assert f"Warning: 1 record can't be used (trials/{expand(sweep)[0].id}.json: Invalid JSON" in text


def test_very_many_runs_are_cut_on_the_page(tmp_path, no_figures, monkeypatch):
    monkeypatch.setattr(run_tables, "MOST_RUNS", 5)
    runs = {0: [*(Run(300 + i) for i in range(8)), Run(200), Run(crashed="x")]}
    result = report.write(study_of(tmp_path, HEAD + "lr: 1e-5\nepochs: 3\nseeds: 1..10\n", runs), tmp_path / "out")
    page = result.page.read_text()
    assert "The first 5 runs, failed ones first; 5 more are in" in page
    assert page.count("<tr data-verdict=") == 5
    assert page.count('<tr data-verdict="failed">') == page.count('<tr data-verdict="crashed">') == 1
    assert len(pd.read_csv(result.folder / "tables" / "runs.csv")) == 10


# -------------------------------------------------------------------------------------------- imports, and two studies

CELLS = [(("dataset", dataset), ("method", method)) for dataset in ("rte", "mrpc") for method in ("a", "b")]


def import_rows(**columns) -> list[dict[str, object]]:
    rows = []
    for cell in range(4):
        given = {name: values[cell] for name, values in columns.items()}
        rows += imported_runs([0.5 + cell / 20, 0.6, 0.75, None], cell, **given)
    return rows


def test_an_import_without_a_majority(tmp_path, empty_pictures):
    result = report.write(import_of(tmp_path, CELLS, import_rows()), tmp_path / "out")
    text = holds(result)
    assert "It is not known whether any of 12 finished runs failed" in text
    assert "Scores are the column acc; higher is better." in text
    assert "Read by hand." in text
    assert "| imported by | harness import theirs.csv |" in text
    assert "| file theirs.csv | SHA-256 0123456789abcdef |" in text
    assert "One integer seeds" not in text
    assert "Failed runs</summary>" not in text
    found = strict(result)
    assert (found["sweep"], found["profile"], found["majority"]) == ("theirs", None, None)
    assert all(cell["failed"] is None for cell in found["cells"])
    assert found["cells"][0]["axes"] == {"dataset": "rte", "method": "a"}
    page = result.page.read_text()
    assert "trains it again" not in page
    assert 'data-verdict="unjudged"' in page


def test_an_import_with_a_majority_and_counts(tmp_path, no_figures):
    outcome = [["failed", "ok", "ok", None]] * 4
    counts = [[round(400 * score) for score in (0.5 + cell / 20, 0.6, 0.75)] + [0] for cell in range(4)]
    rows = import_rows(
        outcome=outcome, correct=counts, dev_examples=[[400] * 4] * 4, majority_score=[[0.53] * 4] * 4,
        majority_correct=[[212] * 4] * 4,
    )  # fmt: skip
    text = holds(report.write(import_of(tmp_path, CELLS, rows), tmp_path / "out"))
    assert " 2 of 6 (33 % " in text
    assert "Only scores and numbers of examples are known" in text
    assert "Failed and near-chance runs</summary>\n\n| dataset | method | seed | verdict |" in text


def test_a_report_of_two_studies(tmp_path, no_figures):
    first = study_of(tmp_path / "a", MOSBACH, MOSBACH_RUNS, "a")
    text = MOSBACH.replace("title: Bias correction and rate", "title: The same on another day")
    second = study_of(tmp_path / "b", text, {cell: runs[::-1] for cell, runs in MOSBACH_RUNS.items()}, "b")
    result = report.write(joined(first, second), tmp_path / "out")
    said = holds(result)
    assert said.startswith("# Bias correction and rate against The same on another day (embedded stand-in, not BERT on")
    assert "a@default: 5 of 22 (" in said
    assert "sweep b@default vs. a@default" in said
    found = strict(result)
    assert (found["sweep"], found["profile"]) == ("a@default--b@default", None)
    assert found["cells"][0]["axes"] == {"sweep": "a@default", "lr": 1e-5, "bias_correction": False, "epochs": 3}
    assert "Every field of the recipes of a@default" in said
    assert "Every field of the recipes of b@default" in said
    page = result.page.read_text()
    assert "harness rerun a --profile default" in page
    assert "harness rerun b --profile default" in page


def test_a_sweep_beside_an_import(tmp_path, no_figures):
    first = study_of(tmp_path, HEAD + "lr: [1e-5, 2e-5]\nepochs: 3\nseeds: 1..2\n", {0: [Run(300), Run(200)]})
    rows = [row | {"metric": "accuracy"} for row in imported_runs([0.8, 0.9])]
    result = report.write(joined(first, import_of(tmp_path, [(("method", "x"),)], rows)), tmp_path / "out")
    assert "for 2 more finished runs it is not known whether they failed" in holds(result)


# ----------------------------------------------------------------------------------------- markup in others' texts

HOSTILE = [
    "<script>alert(1)</script>", "</style><b>", '"><img src=x onerror=alert(1)>', "a|b", "*x* _y_", "`z`", "$x$",
    r"\input{x}", "=cmd()", "{{ 7 * 7 }}", "{% raw %}", "javascript:alert(1)", "😀", "עברית", "&lt;b&gt;", "![x](y)",
    "__proto__", "%s %(x)s",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_markup_in_axis_values_and_names_is_shown_not_taken_over(tmp_path, no_figures, text):
    cells = [((text, "plain"), ("method", text)), ((text, "plain"), ("method", "x"))]
    rows = [*imported_runs([0.5, 0.6]), *imported_runs([0.7, 0.8], 1)]
    rows.append({"trial": "t", "cell": 0, "seed": 9, "status": "crashed", "attempts": 1, "error": f"Error: {text}"})
    study = import_of(tmp_path, cells, rows, notes=(f"Note {text}.",))
    result = report.write(dataclasses.replace(study, title=text), tmp_path / "out")
    holds(result)
    page, markdown = result.page.read_text(), (result.folder / "report.md").read_text()
    read = Reader(page)
    assert read.texts["title"] == [text]
    assert text in read.texts["td"]
    assert f"Note {text}." in read.texts["p"]
    assert [tag for tag, _ in read.tags if tag in ("script", "style")] == ["style", "script"]
    assert not [found for tag, found in read.tags if tag == "img"]
    assert "<" not in re.sub(r"`[^`]*`|</?details>|</?summary>", "", markdown)
    assert f"`{text}`" not in markdown or "`" in text


def test_markup_in_titles_and_files(tmp_path, no_figures):
    text = 'title: "<script>alert(1)</script> | *stars*"\n# </pre><script>alert(2)</script>\n'
    study = study_of(tmp_path, text + HEAD + "lr: 1e-5\nepochs: 3\nseeds: 1\n", {0: [Run(200)]})
    result = report.write(study, tmp_path / "out")
    page = result.page.read_text()
    assert "<script>alert" not in page
    assert "<script>alert" not in (result.folder / "report.md").read_text()
    read = Reader(page)
    assert read.texts["title"] == ["<script>alert(1)</script> | *stars*"]
    assert "# </pre><script>alert(2)</script>" in "".join(read.texts["pre"])


def test_figures_of_hostile_texts_are_drawn(tmp_path):
    cells = [(("$x$", "\\frac"), ("method", "<script>alert(1)</script>")), (("$x$", "\\frac"), ("method", "😀 עברית"))]
    rows = [*imported_runs([0.5, 0.6, 0.55]), *imported_runs([0.7, 0.8, 0.9], 1)]
    study = dataclasses.replace(import_of(tmp_path, cells, rows), title="$\\alpha")
    result = report.write(study, tmp_path / "out")
    holds(result)
    for name, text in texts_of(result.folder).items():
        if name.endswith(".svg"):
            assert "<script" not in text


# -------------------------------------------------------------------------------------------------------------- parts


def test_error_lines():
    assert error_line('Traceback (most recent call last):\n  File "/a/b.py"\nOSError: /a/b c\n') == "OSError: …/b c"
    assert error_line("killed by signal 9\nsecond line") == "killed by signal 9"
    assert error_line("") == error_line(" \n") == "no message"
    assert error_line("see https://a.b/c/d") == "see https://a.b/c/d"
    assert len(error_line("x" * 1000)) == 300


def test_seeds_are_named_by_part_where_they_are_crossed():
    run = {"seed": 3.0, "init_seed": 3, "order_seed": 3, "dropout_seed": 3}
    together, crossed = pd.DataFrame([run, run]), pd.DataFrame([run, run | {"order_seed": 5}])
    assert not seeds_crossed(together)
    assert seeds_crossed(crossed)
    assert not seeds_crossed(together.assign(init_seed=None, order_seed=float("nan"), dropout_seed=None))
    assert seed_name(run, crossed=False) == "3"
    assert seed_name(run, crossed=True) == "init 3, order 3, dropout 3"


def test_no_torch_for_a_report():
    code = "import sys, harness.report.page; sys.exit('torch' in sys.modules or 'ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -------------------------------------------------------------------------------------------------------- a diagnosis


def test_a_recorded_study_has_its_diagnosis_on_the_page(tmp_path, empty_pictures):
    study = study_of(tmp_path, DIAGNOSED_TEXT, DIAGNOSED)
    made = report.write(study, tmp_path / "report")
    page, figures = made.page.read_text(), {path.stem for path in (made.folder / "figures").iterdir()}
    assert figures >= {"gradient_norms", "step_size_factor", "loss_vs_score", "early_warning"}
    Reader(page).check()
    for heading in ("Why do runs fail?", "Gradients by layer", "Early warning", "The next experiment"):
        assert re.search(rf">{re.escape(heading)}( <span|</h2>)", page)
    text = (made.folder / "report.md").read_text()
    proposed = text.split("```yaml\n")[1].split("```")[0]
    (tmp_path / "next.yaml").write_text(proposed)
    assert load(tmp_path / "next.yaml").cells[0].recipe == study.sweeps[0].cells[2].recipe
    runs = pd.read_csv(made.folder / "tables" / "runs.csv")
    assert runs["kind"].value_counts()["not optimised"] == 4
    assert runs["gradients_vanished_by"].notna().sum() == 4
