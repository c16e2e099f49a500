"""Every command that reads records, beside one that can't be used: it does all the rest, says so and ends with 1."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from diagnosed_runs import RUNS, TEXT
from made_runs import store_of, sweep_of
from typer.testing import CliRunner

import harness
from harness.cli.app import app
from harness.config.trials import Sweep, expand
from harness.records import export
from harness.records.store import Store
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
    "status --json": (("status", "FOLDER", "--json"), 1, lambda said, here: json.loads(said)["unreadable"] != []),
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
