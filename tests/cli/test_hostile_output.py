"""No command hands control characters of a study's texts on to a terminal or into a file that people read."""

from __future__ import annotations

import json
import re
import webbrowser
from pathlib import Path

import pytest
from made_runs import Run, store_of
from typer.testing import CliRunner

from harness.cli.app import app
from harness.common.text import without_controls
from harness.config.sweep_file import load
from harness.config.trials import Sweep, expand
from harness.records.store import Store

# What renames a terminal's window, clears it, colours what follows, turns it around and ends a C string.
EVIL = "\x1b]0;owned\x07\x1b[2J\x1b[31m\x9b31m\x00\x08\x7f\u202eevil"
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Sweep, Store]:
    """A sweep whose title, recipes, task, model and profile say it, with runs that failed, crashed and diverged."""
    folder = tmp_path_factory.mktemp("hostile")
    for name in ("train", "dev"):
        rows = [f"{EVIL.replace(chr(0), '')} {number}\t{EVIL.replace(chr(0), '')} {number % 2}" for number in range(40)]
        (folder / f"{name}.tsv").write_text("text\tlabel\n" + "\n".join(rows) + "\n")
    spec = {
        "title": f"T {EVIL}", "stand_in": f"S {EVIL}",
        "task": {"name": "evil", "files": {"train": str(folder / "train.tsv"), "validation": str(folder / "dev.tsv")}},
        "model": "embedded", "epochs": 3, "seeds": "1..4",
        "recipes": {f"first {EVIL}": {"lr": 1e-5}, f"second {EVIL}": {"lr": 2e-5}},
    }  # fmt: skip
    file = folder / "evil.yaml"
    file.write_text(json.dumps(spec))
    sweep = load(file)
    runs: dict[int, list[Run | None]] = {
        0: [Run(300), Run(200), Run(diverged=True), Run(crashed=f"Traceback:\nValueError: {EVIL}")],
        1: [Run(310)] * 3,
    }
    store = store_of(folder / "results", sweep, runs)
    for trial in expand(sweep)[:2]:
        path = store.path(trial.id)
        record = json.loads(path.read_text())
        record["environment"] |= {"device_name": f"core {EVIL}", "torch": f"2 {EVIL}"}
        record["sweep"] = EVIL
        path.write_text(json.dumps(record))
    return file, sweep, store


def said(*words: object) -> str:
    result = CliRunner().invoke(app, list(map(str, words)))
    assert not isinstance(result.exception, Exception), result.exception
    return result.output + result.stderr


def clean(text: str, where: object) -> None:
    found = CONTROLS.search(text)
    assert found is None, (where, text[max(0, found.start() - 100) : found.end() + 20])


@pytest.mark.parametrize(
    "words",
    [
        ("plan",), ("plan", "--json"), ("status",), ("status", "--json"), ("verify",), ("verify", "--json"),
        ("report",), ("report", "--json"), ("card",), ("diagnose",), ("diagnose", "--json"), ("open",),
        ("sweep", "--in-process", "--only", "seed=1"), ("rerun", "--seed", "1"), ("data",), ("predict",),
        ("plan", "--set", f"lr={EVIL}"), ("report", "--threshold", EVIL),
        ("export", "--to", "tensorboard"), ("table", "cells"), ("table", "cells", "--format", "csv"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_is_printed_holds_no_control_characters(
    hostile: tuple[Path, Sweep, Store],
    words: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    no_figures: None,
) -> None:
    file, _, store = hostile
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(webbrowser, "open", lambda address: False)
    folder = tmp_path if words[0] == "plan" else store.folder.parent  # a plan of what is there refuses the other data
    results = () if words[0] in ("data", "predict") else ("--results", folder)
    target = file if words[0] != "predict" else store.folder
    before = 2 if words[0] == "table" else 1  # words of the command before the sweep
    text = said(*words[:before], target, *words[before:], *results)
    assert text.strip()
    clean(text, words)


def test_the_files_of_a_report_hold_none(hostile: tuple[Path, Sweep, Store], no_figures: None) -> None:
    file, _, store = hostile
    said("report", file, "--results", store.folder.parent)
    said("card", file, "--results", store.folder.parent)
    paths = [path for path in (store.folder / "report").rglob("*") if path.suffix in (".md", ".csv", ".tex", ".html")]
    assert len(paths) > 8
    for path in paths:
        text = path.read_text()
        clean(text, path)
    assert "evil" in (store.folder / "report" / "report.md").read_text()


def test_text_without_control_characters_stays_as_it_is() -> None:
    for text in ("plain", "lines\nand\ttabs", "ω² × τ ± ∞", "עברית", "emoji 👩‍💻", "\u200f\u200e"):
        assert without_controls(text) == text
    assert without_controls("a\x1b[31m\x00b\r\n\x9b\u202e\ud800c") == "a [31m b \n   c"
