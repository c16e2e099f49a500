"""Every command that reads records, beside one that can't be used: it does all the rest, says so and ends with 1."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from diagnosed_runs import RUNS, TEXT
from made_runs import store_of, sweep_of
from typer.testing import CliRunner

import harness
from harness.cli.app import _GROUPS as GROUPS
from harness.cli.app import app
from harness.config.trials import Sweep, expand
from harness.records import export
from harness.records.store import Store
from harness.records.study import of_sweep
from harness.serve.studies import Library


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sweep, Store]:
    """Two cells with recordings, of which runs failed."""
    folder = tmp_path_factory.mktemp("damaged")
    sweep = sweep_of(folder, TEXT)
    return sweep, store_of(folder / "results", sweep, RUNS)


@pytest.fixture
def here(whole: tuple[Sweep, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A folder with the results, in which the second record was cut."""
    sweep, store = whole
    monkeypatch.chdir(tmp_path)
    copy = Store(tmp_path / "results" / store.folder.name)
    shutil.copytree(store.folder, copy.folder)
    path = copy.path(expand(sweep)[1].id)
    path.write_bytes(path.read_bytes()[:200])
    return copy


PAGE = "results/made@default/report/index.html"
# Words after `harness`, the folder standing for FOLDER; the exit code beside the damaged record; what must be there.
COMMANDS: dict[str, tuple[tuple[str, ...], int, Callable[[str, Path], bool]]] = {
    "report": (("report", "FOLDER"), 1, lambda said, here: (here / PAGE).is_file()),
    "diagnose": (("diagnose", "FOLDER"), 1, lambda said, here: "Report: " in said),
    "card": (("card", "FOLDER"), 1, lambda said, here: "Written: " in said),
    "figure": (("figure", "spread", "FOLDER", "--out", "x.svg"), 1, lambda said, here: (here / "x.svg").is_file()),
    "table": (("table", "cells", "FOLDER"), 1, lambda said, here: said.startswith("\\begin") or "toprule" in said),
    "status": (("status", "FOLDER"), 1, lambda said, here: "unreadable" in said),
    "status --json": (("status", "FOLDER", "--json"), 1, lambda said, here: json.loads(said)["unreadable"] == 1),
    "verify": (("verify", "FOLDER"), 1, lambda said, here: "record" in said),
    "export": (("export", "FOLDER", "--to", "mlflow"), 1, lambda said, here: "7 runs written" in said),
    "seal": (("seal", "FOLDER"), 1, lambda said, here: (here / "results/made@default/MANIFEST.json").is_file()),
}  # fmt: skip


def _said(here: Store, words: tuple[str, ...]) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(here.folder) if word == "FOLDER" else word for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_does_the_rest_says_so_and_ends_with_1(
    here: Store, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, code, holds = COMMANDS[name]
    if words[0] != "figure":
        monkeypatch.setattr("harness.report.figures.all_figures.MAKERS", ())  # what is drawn hangs on no exit code
    done = export.Exported(7, 0, 0, "elsewhere", "look")
    monkeypatch.setattr(export, "export", lambda *words: done)  # its package need not be here
    ended, out, err = _said(here, words)
    assert ended == code, (out, err)
    assert holds(out, Path.cwd())
    if name not in ("seal", "status --json"):  # a seal names what names them
        (trial,) = [file.trial for file in here.unreadable(_plan(here))]
        assert trial in (out + err).replace("\n", "")


def _plan(store: Store) -> Sweep:
    sweep = store.load_plan()
    assert sweep is not None
    return sweep


def test_what_needs_that_record_is_refused_and_nothing_else(here: Store) -> None:
    trial = expand(_plan(here))[1]
    ended, _, err = _said(here, ("rerun", "FOLDER", "--trial", trial.id, "--json"))
    assert ended == 2
    assert f"cannot rerun {trial.id}: its record trials/{trial.id}.json can't be used" in err
    assert "Traceback" not in err
    ended, _, err = _said(here, ("predict", "FOLDER", "texts.tsv", "--trial", trial.id))
    assert ended == 2
    assert err.count("\n") == 1


def test_notebooks_and_the_browser_have_the_rest(here: Store) -> None:
    results = harness.open(here.folder)
    assert len(results.runs) == len(expand(_plan(here)))
    assert list(results.runs["status"]).count("unreadable") == 1
    (summary,) = (study.summary() for study in Library(here.folder.parent).studies())
    assert summary["unreadable"] == 1
    assert summary["finished"] == list(results.runs["status"]).count("finished")


def _edited(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def _instead(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


# What becomes of a record's file; a blocked or huge one must cost no command more than itself.
HARMS: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "no text": lambda path: path.write_bytes(b"\xff\x00\x1b[31m"),
    "deep": lambda path: path.write_text("[" * 100_000),
    "a FIFO": lambda path: _instead(path, os.mkfifo),
    "a folder": lambda path: _instead(path, Path.mkdir),
    "a link to nowhere": lambda path: _instead(path, lambda gone: gone.symlink_to("nowhere\n")),
    "a link to itself": lambda path: _instead(path, lambda gone: gone.symlink_to(gone)),
    "64 GiB": lambda path: os.truncate(path, 2**36),
    "another's": lambda path: _edited(path, id="x\n\x1b[31m"),
    "of a later version": lambda path: _edited(path, schema_version=99),
    "a number of 5,000 digits": lambda path: path.write_text(
        path.read_text().replace('"attempts": 1', f'"attempts": {"1" * 5000}')
    ),
    "NaN": lambda path: path.write_text(path.read_text().replace('"attempts": 1', '"attempts": NaN')),
    "keys twice": lambda path: path.write_text(path.read_text().replace('"attempts": 1', '"attempts": 1, "id": "y"')),
}  # fmt: skip
QUICK = ("status", "seal")


@pytest.mark.parametrize("harm", HARMS)
def test_whatever_became_of_a_record_each_command_says_so(whole: tuple[Sweep, Store], here: Store, harm: str) -> None:
    """Some that read records and draw nothing; the trial is counted as unreadable, neither finished nor missing."""
    sweep, store = whole
    name = expand(sweep)[1].id
    shutil.copy(store.path(name), here.path(name))
    HARMS[harm](here.path(name))
    state = here.path(name).lstat()
    unsealable = not (stat.S_ISREG(state.st_mode) or stat.S_ISDIR(state.st_mode)) or state.st_size > 2**30
    for command in QUICK:
        words, code, _ = COMMANDS[command]
        ended, out, err = _said(here, words)
        assert ended == (2 if command == "seal" and unsealable else code), (command, out, err)
        assert "\x1b" not in err
        assert "Traceback" not in out + err
    assert list(of_sweep(sweep, here).runs["status"]).count("unreadable") == 1  # what tables, figures, pages are of
    counts = json.loads(_said(here, ("verify", "FOLDER", "--json"))[1])
    assert (counts["unreadable"], counts["missing"]) == (1, sum(run is None for run in runs_of(RUNS)))


def runs_of(runs: dict[int, list[object]]) -> list[object]:
    """All runs of all cells."""
    return [run for cell in runs.values() for run in cell]


def test_each_command_that_reads_records_stands_above() -> None:
    """A new one is to be tried beside a damaged record too."""
    known = {words[0] for words, _, _ in COMMANDS.values()} | {"rerun", "predict", "plan", "serve"}
    none_read = {"init", "data", "keys", "pretrain", "import", "lr-find"}
    opens = {"open", "search", "sweep"}  # what `report` made; and what sets a damaged record aside and goes on
    assert {name for group in GROUPS.values() for name, *_ in group} == known | none_read | opens


def test_a_folder_of_records_that_is_none_is_not_one_of_missing_records(here: Store) -> None:
    """As where this user may not search it: nothing is known of any trial, so none is missing."""
    shutil.rmtree(here.trials)
    here.trials.write_text("")
    planned = len(expand(_plan(here)))
    ended, out, _ = _said(here, ("status", "FOLDER", "--json"))
    assert (ended, json.loads(out)["unreadable"], json.loads(out)["missing"]) == (1, planned, 0)
    assert json.loads(_said(here, ("verify", "FOLDER", "--json"))[1])["unreadable"] == planned


@pytest.mark.parametrize("name", ["baselines.json", "reruns.json", "surface.npz"])
def test_what_lies_beside_the_records_and_cannot_be_read_is_named_by_reports_too(
    whole: tuple[Sweep, Store], here: Store, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, store = whole
    trial = expand(sweep)[1].id
    shutil.copy(store.path(trial), here.path(trial))
    monkeypatch.setattr("harness.report.figures.all_figures.MAKERS", ())
    assert _said(here, ("report", "FOLDER"))[0] == 0
    (here.folder / name).write_bytes(b"{")
    for command in ("report", "diagnose"):
        ended, out, _ = _said(here, (command, "FOLDER"))
        assert (ended, f"{name}: it can't be read" in out) == (1, True), command
    ended, out, _ = _said(here, ("report", "FOLDER", "--json"))
    assert (ended, json.loads(out)["unreadable"]) == (1, [{"trial": None, "file": name, "problem": "it can't be read"}])
    assert _said(here, ("table", "cells", "FOLDER"))[0] == 0  # which shows none of it


def test_a_figure_that_cannot_be_written_is_told_with_its_file(here: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(figure: object, path: object, **options: object) -> None:
        raise OSError(errno.EFBIG, "File too large")  # as a stream says it, which knows no name

    monkeypatch.setattr("harness.report.figures.sheet.ReportFigure.savefig", full)
    ended, _, err = _said(here, ("figure", "spread", "FOLDER", "--out", "x.svg"))
    assert ended == 2
    assert err.startswith("harness: cannot read or write x.svg: file too large")
