import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from made_runs import HEAD, MOSBACH, MOSBACH_RUNS, Run, store_of, sweep_of

from harness import report
from harness.records import frame
from harness.sweep import expand

GOLDEN = Path(__file__).parent / "golden"
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Reader(HTMLParser):
    """Checks that tags close in order, and gathers the text and every address."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.images: list[str | None] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.addresses += [found[name] for name in ("src", "href", "srcset", "action", "data") if name in found]
        if tag == "img":
            self.images.append(found.get("alt"))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    sweep = sweep_of(folder, MOSBACH)
    return sweep, report.write(sweep, store_of(folder, sweep, MOSBACH_RUNS))


def same_as_golden(path: Path, name: str) -> None:
    """Compare with a golden file; GOLDEN=write writes it anew, to be looked at before it is kept."""
    golden = GOLDEN / name
    if os.environ.get("GOLDEN") == "write":
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(path.read_text())
    assert path.read_text() == golden.read_text()


def test_golden_markdown(written):
    same_as_golden(written[1].folder / "report.md", "report_report.md")


def test_golden_cells(written):
    same_as_golden(written[1].folder / "cells.csv", "report_cells.csv")


def test_golden_trials(written):
    same_as_golden(written[1].folder / "trials.csv", "report_trials.csv")


def test_all_files_are_there_and_nothing_else(written):
    folder = written[1].folder
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert names == [
        "cells.csv",
        *(f"figures/{name}.{ending}" for name in ("curves", "failure_rates", "spread") for ending in ("png", "svg")),
        "index.html",
        "report.md",
        "trials.csv",
    ]
    assert sorted(path.name for path in folder.parent.iterdir()) == ["plan.json", "report", "trials"]


def test_the_page_is_self_contained_and_well_formed(written):
    page = written[1].page.read_text()
    read = Reader(page)
    assert len(read.images) == 3
    assert all(read.images)
    assert all(address.startswith("data:image/") for address in read.addresses)
    assert "http://" not in page.replace("data:", "")
    assert "https://" not in page
    assert "url(" not in page
    assert "@import" not in page


def test_title_and_heading_say_the_stand_in(written):
    read = Reader(written[1].page.read_text())
    assert read.texts["title"] == ["Bias correction and rate (embedded stand-in, not BERT on RTE)"]
    heading = read.texts["h1"] + read.texts["span"]
    assert "Bias correction and rate" in heading[0]
    assert "embedded stand-in, not BERT on RTE" in heading


def test_every_failed_and_crashed_run_has_its_command(written):
    sweep, result = written
    commands = Reader(result.page.read_text()).texts["code"]
    failed = [trial for trial in expand(sweep) if trial.cell in (4, 5)]
    for trial in failed:
        assert f"harness rerun made --profile default --trial {trial.id}" in commands
    assert len([command for command in commands if command.startswith("harness rerun")]) == len(failed) + 1


def test_no_paths_of_the_machine(written):
    folder = written[1].folder
    for name in ("index.html", "report.md", "trials.csv", "cells.csv"):
        text = (folder / name).read_text()
        assert "/home/me" not in text
        assert str(folder.parent) not in text
    assert "RuntimeError: no …/x.txt" in (folder / "trials.csv").read_text()


def test_trials_has_a_row_for_each_planned_trial(written):
    sweep, result = written
    table = pd.read_csv(result.folder / "trials.csv")
    assert list(table["trial"]) == [trial.id for trial in expand(sweep)]
    assert table["at_chance"].sum() == 1
    assert table["status"].value_counts().to_dict() == {"finished": 22, "crashed": 1, "missing": 1}


def test_summary_keeps_the_contract(written):
    sweep, result = written
    found = json.loads(json.dumps(result.summary, allow_nan=False))
    assert (found["sweep"], found["profile"], found["majority"]) == ("made", "default", 0.5)
    keys = ["axes", "planned", "finished", "crashed", "missing", "failed", "failed_low", "failed_high"]
    keys += ["mean", "sd", "min", "median", "max"]
    assert all(set(keys) <= set(cell) for cell in found["cells"])
    assert found["cells"][0]["axes"] == {"lr": 1e-5, "bias_correction": False, "epochs": 3}
    seventh = found["cells"][6]
    assert (seventh["finished"], seventh["crashed"], seventh["missing"]) == (1, 1, 1)
    assert (seventh["mean"], seventh["sd"]) == (0.8, None)
    assert len(found["cells"]) == len(sweep.cells)


def test_a_second_report_replaces_the_first_and_a_failed_one_leaves_it(tmp_path, monkeypatch):
    sweep = sweep_of(tmp_path, HEAD + "lr: 1e-5\nepochs: 3\nseeds: 1..2\n")
    store = store_of(tmp_path, sweep, {0: [Run(300), None]})
    first = report.write(sweep, store)
    (first.folder / "mine.txt").write_text("from the old one")
    before = first.page.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(report, "_render", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            report.write(sweep, store)
    assert first.page.read_bytes() == before
    assert report.write(sweep, store).page.read_bytes() == before
    assert not (first.folder / "mine.txt").exists()
    assert [path.name for path in store.folder.iterdir() if path.name.startswith(".")] == []


def test_another_folder_and_another_command(tmp_path):
    sweep = sweep_of(tmp_path, HEAD + "lr: 1e-5\nepochs: 3\nseeds: 1\n")
    store = store_of(tmp_path, sweep, {0: [Run(200)]})
    result = report.write(sweep, store, out=tmp_path / "a" / "b", rerun="harness rerun sweeps/x.yaml")
    assert result.page == tmp_path / "a" / "b" / "index.html"
    assert "<code>harness rerun sweeps/x.yaml --trial lr1e-5-bc-ep3-seed1-" in result.page.read_text()


@pytest.mark.parametrize(
    ("axes", "runs"),
    [
        ("lr: 1e-5\nepochs: 3\n", {}),
        ("lr: 1e-5\nepochs: 3\n", {0: [Run(diverged=True)] * 2}),
        ("lr: 1e-5\nepochs: 3\n", {0: [Run(crashed="no traceback")] * 2}),
        ("lr: 1e-5\nrecipes: {usual: {epochs: 3}, more: {epochs: 20}}\n", {0: [Run(200)] * 2, 1: [Run(300)] * 2}),
        (
            "lr: [1e-5, 2e-5]\nepochs: [3, 10]\nbias_correction: [off, on]\nmax_grad_norm: [1.0, null]\n",
            {cell: [Run(300 + cell), Run(200)] for cell in range(16)},
        ),
    ],
    ids=["nothing", "all diverged", "all crashed", "recipes", "four axes"],
)
def test_edges(tmp_path, axes, runs):
    sweep = sweep_of(tmp_path, HEAD + axes + "seeds: 1..2\n")
    result = report.write(sweep, store_of(tmp_path, sweep, runs))
    text = result.page.read_text()
    Reader(text)
    json.dumps(result.summary, allow_nan=False)
    for word in (" nan", "NaN", "None |", "inf %"):
        assert word not in (result.folder / "report.md").read_text().replace("NaN or", "")
    if "recipes" in axes:
        assert "3 (usual); 20 (more)" in text
    if "max_grad_norm" in axes:
        assert ">none</td>" in text


def test_a_record_that_cannot_be_read_is_missing_and_said(tmp_path):
    sweep = sweep_of(tmp_path, HEAD + "lr: 1e-5\nepochs: 3\nseeds: 1..2\n")
    store = store_of(tmp_path, sweep, {0: [Run(300), Run(310)]})
    store.path(expand(sweep)[0].id).write_text('{"cut sh')
    text = (report.write(sweep, store).folder / "report.md").read_text()
    assert "Planned: 1 cell × 2 seeds = 2; 1 finished, 0 crashed, 1 missing." in text
    assert "1 of the missing left a record that cannot be read." in text


def test_markup_in_names_is_shown_not_taken_over(tmp_path):
    text = 'title: "<script>alert(1)</script> | *stars*"\n' + HEAD + "lr: 1e-5\nepochs: 3\nseeds: 1\n"
    sweep = sweep_of(tmp_path, text)
    result = report.write(sweep, store_of(tmp_path, sweep, {0: [Run(200)]}))
    assert "<script>alert" not in result.page.read_text()
    assert "<script>alert" not in (result.folder / "report.md").read_text()
    assert Reader(result.page.read_text()).texts["title"] == ["<script>alert(1)</script> | *stars*"]


def test_error_lines():
    assert (
        report._error_line('Traceback (most recent call last):\n  File "/a/b.py"\nOSError: /a/b c\n')
        == "OSError: …/b c"
    )
    assert report._error_line("killed by signal 9\nsecond line") == "killed by signal 9"
    assert report._error_line("") == "no message"


def test_no_torch_for_a_report():
    code = "import sys, harness.report; sys.exit('torch' in sys.modules or 'ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_summary_comes_from_the_table_alone(tmp_path):
    sweep = sweep_of(tmp_path, MOSBACH)
    found = report.summary(sweep, frame(sweep, store_of(tmp_path, sweep, {})))
    assert found["majority"] is None
    assert all(cell["mean"] is None and cell["failed_low"] is None for cell in found["cells"])
