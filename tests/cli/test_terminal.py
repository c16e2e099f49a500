"""What the terminal says at the end of a sweep, of a slip of the pen, and in its help."""

import webbrowser

import pytest
from made_runs import HEAD, Run, store_of, sweep_of
from rich.console import Console
from rich.table import Table
from typer.testing import CliRunner

from harness.cli.app import app
from harness.cli.console import Console as OurConsole
from harness.cli.run_views import print_answer
from harness.report import of_sweep


def said(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(words))
    return result.exit_code, " ".join((result.output + result.stderr).split())


@pytest.fixture
def ended(tmp_path, no_figures):
    sweep = sweep_of(tmp_path, HEAD + "lr: 1e-5\nbias_correction: [off, on]\nepochs: 3\nseeds: 1..8\n")
    store = store_of(tmp_path, sweep, {0: [Run(200)] * 7 + [Run(300)], 1: [Run(310)] * 8})
    return sweep, store, of_sweep.write(sweep, store.folder, "harness rerun made")


def test_a_sweep_ends_with_its_answer(ended, capsys):
    sweep, store, answer = ended
    print_answer(Console(highlight=False, width=1000), sweep, store, answer, "harness rerun made")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Unstable without bias correction: 7 of 8 runs failed (88 %, 53–98 %)")
    assert lines[1].startswith("Recommendation if few failures and a high mean matter: bias correction on")
    assert lines[2].startswith("Failed: lr1e-5-nobc-ep3-seed1-")
    assert lines[2].endswith(" and 4 more.")
    assert lines[3].startswith("Train one again: harness rerun made --trial lr1e-5-nobc-ep3-seed1-")
    assert lines[4] == f"Report: {store.folder / 'report' / 'index.html'}"
    assert lines[5].endswith(f"open {store.folder}")


def test_status_names_the_failed_trials(ended):
    _, store, _ = ended
    code, text = said("status", str(store.folder))
    assert code == 0
    assert "Failed: lr1e-5-nobc-ep3-seed1-" in text
    assert "… and 2 more (--json lists them)" in text


def test_the_page_is_opened(ended, monkeypatch):
    _, store, answer = ended
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda address: bool(opened.append(address)))
    code, text = said("open", str(store.folder))
    assert code == 0
    assert opened == [answer.page.resolve().as_uri()]
    assert "No browser was found here" in text
    answer.page.unlink()
    code, text = said("open", str(store.folder))
    assert code == 2
    assert "writes it" in text


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("plan", "elsewhere/rte_lr.yml"), "elsewhere/rte_lr.yml is not there (did you mean the sweep 'rte_lr'?)"),
        (("sweep", "rte_lr", "--seeds", "5"), "changed by --set, as: --set seeds=1..5."),
        (("sweep", "rte_lr", "--lr", "2"), "changed by --set, as: --set lr=…"),
        (("plan", "rte_lr", "--set", "lr=0,001"), "Write 0.001 with a point, or [0,001] for two values."),
        (("plan", "rte_lr", "--set", "seeds=5"), "Write 1..5 for 5 seeds, or [5] for that one."),
    ],
)
def test_a_slip_of_the_pen_is_answered_by_what_to_write(words, answer):
    code, text = said(*words)
    assert code == 2
    assert answer in text


def test_help_has_groups_and_a_short_name():
    code, text = said("-h")
    assert code == 0
    for group in ("Plan and train", "Read results", "Check results", "Data and models"):
        assert group in text
    assert said("plan", "-h")[0] == 0


def test_a_narrow_terminal_cuts_no_names(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    table = Table(box=None)
    for name in ("bias_correction", "finished", "crashed", "missing"):
        table.add_column(name)
    table.add_row("off", "8", "0", "0")
    OurConsole().print_table(table)
    assert "bias_correction  finished  crashed  missing" in capsys.readouterr().out
