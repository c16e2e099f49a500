"""What a shell completes, asked for as a shell asks, and how a sweep's progress looks."""

import io
from pathlib import Path

import pytest
from made_runs import HEAD, Run, store_of, sweep_of
from rich.console import Console as RichConsole
from typer.testing import CliRunner

from harness.cli.app import app
from harness.cli.console import Console
from harness.cli.progress import sweep_progress
from harness.config.trials import expand
from harness.execution.progress import Progress


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    sweep = sweep_of(tmp_path / "sweeps", HEAD + "lr: [1e-5, 2e-5]\nepochs: 1\nseeds: 1..2\n", "感情_lr")
    store_of(tmp_path / "results", sweep, {0: [Run(300)]})
    return tmp_path


def completed(line: str) -> list[str]:
    environment = {"_HARNESS_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    return CliRunner().invoke(app, prog_name="harness", env=environment).output.split()


def test_names_ids_and_keys_are_completed(here: Path) -> None:
    assert completed("harness plan 感") == ["感情_lr"]
    assert "rte_lr" in completed("harness sweep rte")
    assert completed("harness verify results/") == ["results/感情_lr@default"]
    sweep = sweep_of(here / "sweeps", (here / "sweeps" / "感情_lr.yaml").read_text(), "感情_lr")
    ids = [trial.id for trial in expand(sweep)]
    assert completed("harness rerun 感情_lr --trial lr2e") == ids[2:]
    assert completed("harness rerun no_such --trial lr2e") == []
    assert "lora_rank=" in completed("harness plan 感情_lr --set lora")


def states() -> list[Progress]:
    waits = [Progress(4, 0, 0, 0, phase=phase) for phase in ("starting Ray and its workers …", "loading the model …")]
    return [*waits, Progress(4, 0, 0, 0, 2, 4, estimating=True), Progress(4, 2, 0, 1, 2, 2, 30.0, messages=["a note"])]


def test_a_log_says_what_is_waited_for_and_each_change_once() -> None:
    out = Console(file=io.StringIO())
    with sweep_progress(out) as show:
        for state in states():
            show(state)
            show(state)
    assert isinstance(out.file, io.StringIO)
    assert out.file.getvalue().splitlines() == [
        "starting Ray and its workers … (0 of 4 trials finished so far)",
        "loading the model … (0 of 4 trials finished so far)",
        "0/4 finished, 0 failed, estimating the time left … (4 training on 2 workers)",
        "a note",
        "2/4 finished, 1 failed, about 30 s left (2 training on 2 workers)",
    ]


def test_a_terminal_has_a_bar_from_the_first_moment() -> None:
    text = io.StringIO()
    out: RichConsole = Console(file=text, force_terminal=True, width=120)
    assert isinstance(out, Console)
    with sweep_progress(out) as show:
        for state in states():
            show(state)
    shown = text.getvalue()
    assert "checking the data and the model …" in shown
    assert "a note" in shown
    assert "2/4 finished, 1 failed, about 30 s left" in shown
