"""A results folder that an earlier version left unfinished is read, gone on with, verified and rerun.

`tests/old_results` is one: eight trials of six updates on the embedded model, of which the last is missing, written
before the package had wings.
"""

import shutil
from pathlib import Path

import pytest

from harness.analysis.analyze import analyse
from harness.config.sweep_file import load
from harness.config.trials import Sweep, expand
from harness.execution import driver, rerun
from harness.execution.driver import Options
from harness.execution.verification import verify
from harness.records.store import Store
from harness.records.study import of_sweep

OLD = Path(__file__).parents[1] / "old_results"


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sweep, Store]:
    folder = tmp_path_factory.mktemp("old") / "old@default"
    shutil.copytree(OLD, folder, ignore=shutil.ignore_patterns("*.yaml"))
    return load(OLD / "old.yaml"), Store(folder)


def test_the_sweep_file_plans_the_same_trials(old: tuple[Sweep, Store]) -> None:
    sweep, store = old
    planned = store.load_plan()
    assert planned is not None
    assert [trial.id for trial in expand(sweep)] == [trial.id for trial in expand(planned)]
    assert {path.stem for path in store.trials.glob("*.json")} == {trial.id for trial in expand(sweep)[:-1]}


def test_what_is_missing_is_trained_and_the_rest_stays(old: tuple[Sweep, Store]) -> None:
    sweep, store = old
    before = {path.name: path.read_bytes() for path in store.trials.iterdir()}
    ended = driver.run(sweep, store, Options(in_process=True), lambda progress: None)
    assert (ended.finished, ended.trained_now, ended.left) == (8, 1, 0)
    assert {name: (store.trials / name).read_bytes() for name in before} == before
    assert analyse(of_sweep(sweep, store)).cells["finished"].tolist() == [2, 2, 2, 2]


def test_a_trial_is_trained_again(old: tuple[Sweep, Store]) -> None:
    """Bits carry over between processors of one kind alone; the verdict says which it was."""
    sweep, store = old
    compared = rerun.rerun(sweep, store, expand(sweep)[0], 1e-2)
    assert compared.verdict in ("identical", "within_tolerance"), compared


def test_verify_has_nothing_against_it(old: tuple[Sweep, Store]) -> None:
    sweep, store = old
    checked = verify.check(sweep, store)
    assert checked.problems == ()
