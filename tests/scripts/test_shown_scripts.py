"""The scripts that the documentation shows, run as they are."""

from pathlib import Path

import numpy as np
import pytest

from harness.config.sweep_file import load
from harness.execution import driver, gate
from harness.execution.driver import Options
from harness.records.store import Store
from harness.records.study import of_sweep
from harness.report import page_notes

FOLDER = Path(__file__).parents[2] / "docs" / "how-to" / "your-script"


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(name, *settings, **options):
        sweep = load(FOLDER / f"{name}.yaml", None, settings)
        gate.check_inputs(sweep, {}, {0})
        store = Store(Path("results") / sweep.folder_name)
        outcome = driver.run(sweep, store, Options(in_process=True, **options), lambda progress: None)
        return outcome, store, list(store.records(sweep).values())

    return run


def test_a_shell_script(runs):
    outcome, _, records = runs("shell", "seeds=1..10", only=("lr=1e-2",))
    assert outcome.finished == 10
    assert 0 < outcome.failed < 10  # it ends in either of two valleys
    assert all(record.measured.metric == "accuracy" for record in records)
    assert {record.measured.outcome for record in records if record.measured.final_score <= 0.6} == {"failed"}


def test_plain_pytorch_with_its_curves(runs):
    outcome, store, (record,) = runs("torch", only=("lr=0.1", "seed=1"))
    assert outcome.finished == 1
    curves = store.curves(record.id)
    assert len(np.unique(curves.train_loss)) == 10  # a line every ten steps
    assert curves.dev_score[-1] == pytest.approx(record.measured.final_score)


def test_a_script_that_crashes_hangs_diverges_or_forgets_its_seed(runs):
    outcome, store, records = runs("faulty", "timeout=2s")
    assert (outcome.finished, outcome.failed, outcome.crashed) == (13, 1, 2)
    broken = {dict(record.trial.script.settings)["fault"]: record for record in records if record.trial.seeds.seed == 2}
    assert broken["crash"].error.splitlines()[-1] == "the command ended with exit code 1: no such kernel"
    assert "longer than the timeout of 2 s" in broken["hang"].error
    assert broken["diverge"].measured.reason == "diverged"
    notes = page_notes.notes(of_sweep(load(FOLDER / "faulty.yaml", None, ["timeout=2s"]), store))
    assert any("gave exactly the same score" in note for note in notes)


def test_lightning(runs):
    pytest.importorskip("lightning")
    outcome, _, (record,) = runs("lightning", only=("lr=0.1", "seed=1"))
    assert outcome.finished == 1
    assert record.measured.final_score > 0.5


def test_sentence_transformers(runs):
    pytest.importorskip("sentence_transformers")
    outcome, _, (record,) = runs("sentence_transformers", only=("lr=1e-3", "seed=1"))
    assert outcome.finished == 1
    assert record.measured.outcome is None  # without a majority nothing is judged
    assert dict(record.script.further).keys() == {"mcc"}
