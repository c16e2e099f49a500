"""Ray Tune as a search's backend: the same records, what its ASHA stops, and that it leaves nothing behind."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import ray
from driving import content, descends, quiet
from searches import journal

from harness.common.errors import HarnessError
from harness.config.search_space import Pruner
from harness.config.sweep_file import load
from harness.config.trials import expand
from harness.execution import driver
from harness.execution.driver import Options
from harness.execution.packing import Job
from harness.execution.pool import LeftError
from harness.execution.train_pack import worker_setup
from harness.records.store import Store
from harness.search import ray_tune, search

TUNE = Options(workers=1, tune=True)
pytestmark = pytest.mark.usefixtures("cpu_only")


@pytest.fixture
def write(tmp_path: Path, data, bert) -> Callable[..., Path]:
    """Write a search on the small task and model."""

    def make(more: str, space: str, rest: str = "epochs: 4") -> Path:
        path = tmp_path / "find.yaml"
        task, model = json.dumps(data.model_dump(exclude_none=True)), json.dumps(bert.model_dump())
        path.write_text(
            f"task: {task}\nmodel: {model}\nbatch_size: 20\nseeds: 1..2\n{rest}\nsearch: {{space: {space}, {more}}}\n"
        )
        return path

    return make


def trials_of_tune() -> list[int]:
    """The processes of Tune's trials that this process has."""
    listed = subprocess.run(["pgrep", "-f", "^ray::ImplicitFunc"], capture_output=True, text=True, check=False)
    return [process for process in map(int, listed.stdout.split()) if descends(process, os.getpid())]


def test_tune_trains_the_same_study_to_the_same_records(write, tmp_path) -> None:
    """One trial of Tune is killed under way: it is trained again."""
    space = "{lr: {low: 1e-4, high: 1e-2, log: on}}"
    sweep = load(write("recipes: 2, sampler: random, confirm: {best: 1, seeds: 8..9}", space))
    one, two = Store(tmp_path / "a" / "find"), Store(tmp_path / "b" / "find")
    killed: list[int] = []

    def kill(progress: driver.Progress) -> None:
        if progress.lanes and not killed and (found := trials_of_tune()):
            os.kill(found[0], signal.SIGKILL)
            killed.extend(found)

    ended = search.run(sweep, one, TUNE, kill)
    assert killed
    assert ended.complete
    search.run(sweep, two, Options(in_process=True), quiet)
    assert one.load_plan() == two.load_plan()
    assert content(one) == content(two)
    assert len(content(one)) == 4
    assert [(trial.params, trial.values) for trial in journal(one)] == [
        (trial.params, trial.values) for trial in journal(two)
    ]
    assert trials_of_tune() == []


def test_what_asha_stops_is_missing_and_pruned_in_the_journal(write, tmp_path, capfd) -> None:
    of_tune = Path("~/ray_results").expanduser()
    before = of_tune.exists() and of_tune.stat().st_mtime
    pruner = "{name: successive_halving, n_startup_trials: 1, n_warmup_steps: 10, n_majority_steps: 50}"
    more = f"sampler: grid, seed: 3, pruner: {pruner}"
    sweep = load(write(more, "{lr: [1e-2, 10]}", "epochs: 10"))
    store, said = Store(tmp_path / "find"), []

    def tell(progress: driver.Progress) -> None:
        said.extend(progress.messages)
        progress.messages.clear()

    ended = search.run(sweep, store, TUNE, tell)
    assert ended.complete
    assert (ended.counts.finished, ended.counts.missing, ended.counts.crashed) == (2, 2, 0)
    states = [(one.params["lr"], one.state.name) for one in journal(store)]
    assert states == [(1e-2, "COMPLETE"), (10, "PRUNED")]
    (stopped,) = search.stopped(ended.sweep, store)
    assert stopped.by_pruner
    assert (stopped.share, stopped.flat) == (0.5, 1.0)  # not before, for its runs sit at the majority
    assert stopped.rule == "ASHA scheduler of Ray Tune: mean 0.500 at 50 % of training"
    assert [line for line in said if not line.startswith("waiting for ")] == [
        f"lr 10: given up at 50 % of its training, stopped, not seen to the end ({stopped.rule})",
    ]
    assert (of_tune.exists() and of_tune.stat().st_mtime) == before
    assert capfd.readouterr() == ("", "")
    assert search.switches(ended.sweep, store) == ("--tune",)
    again = search.run(sweep, store, Options(in_process=True), quiet)
    assert (again.counts.trained_now, again.complete) == (0, True)


def test_a_trial_tells_tune_what_it_may_be_stopped_at_and_leaves_as_it_is_told(write, monkeypatch) -> None:
    pruner = "{name: successive_halving, n_warmup_steps: 30, n_majority_steps: 60}"
    sweep = load(write(f"pruner: {pruner}, sampler: grid", "{lr: [1e-3, 1e-2]}", "epochs: 5"))
    place = worker_setup(sweep, "cpu", 1, None, None)
    trials, said, ended = expand(sweep), [], {}
    leaving: list[bool | None] = [None]  # whether it leaves, and then whether it is put off

    def box(pack: object) -> SimpleNamespace:
        def call(answer: Callable[..., object]) -> SimpleNamespace:
            return SimpleNamespace(remote=answer)

        return SimpleNamespace(
            pack=call(lambda number: pack),
            hear=call(lambda number, heard: leaving[0]),
            end=call(lambda number, outcome: ended.update({number: outcome})),
        )

    monkeypatch.setattr(ray_tune, "ray", SimpleNamespace(get=lambda found: found))
    monkeypatch.setattr(ray_tune.tune, "report", said.append)
    ray_tune._train({"pack": 1}, sweep, place, box((trials, {})))
    results, _ = ended[1]
    assert [record.id for record, _ in results] == [trial.id for trial in trials]
    means = np.mean([curves.dev_score for _, curves in results], axis=0)
    above = np.array([curves.dev_score * 30 > 15 + 1.645 * np.sqrt(30 / 4) for _, curves in results])
    # At 40 % where both have risen, and then whatever has.
    asked = [1, 2, 3] if above[:, :2].any(axis=1).all() else [2, 3]
    assert said == [{"objective": pytest.approx(means[at]), "training_percent": 20 * (at + 1)} for at in asked]
    said.clear()
    ray_tune._train({"pack": 2}, sweep, place, box((trials[:1], {})))
    assert said == []  # of a part of a recipe
    assert len(ended[2][0]) == 1
    leaving[0] = False
    ray_tune._train({"pack": 3}, sweep, place, box((trials, {})))
    assert isinstance(ended[3], LeftError)
    ray_tune._train({"pack": 4}, sweep, place, box(((), {})))
    assert ended[4].startswith("IndexError: ")


@pytest.mark.parametrize(("mode", "stopped"), [("min", 0.9), ("max", 0.1)])
def test_asha_stops_the_high_losses_and_the_low_scores(mode: str, stopped: float) -> None:
    halving = ray_tune._Halving(mode, Pruner(name="successive_halving", n_warmup_steps=20, reduction_factor=3))
    halving.whole = halving.least
    decisions = {}
    for value in (0.4, 0.5, 0.6, stopped):
        trial = SimpleNamespace(trial_id=str(value))
        halving.on_trial_add(None, trial)
        result = {"objective": value, "training_percent": 20}
        decisions[value] = halving.on_trial_result(None, trial, result)
    assert decisions[stopped] == halving.STOP
    assert decisions[0.6] == (halving.STOP if mode == "min" else halving.CONTINUE)
    assert decisions[0.4] == halving.CONTINUE  # the first


def test_what_tune_is_not_used_for_is_refused_in_one_line(write, tmp_path) -> None:
    space = "{lr: [1e-3, 1e-2]}"
    for more, options, said in (
        ("recipes: 2", Options(in_process=True, tune=True), "--tune cannot be used with --in-process"),
        (
            "pruner: median",
            TUNE,
            r"asynchronous successive halving \(ASHA\) only \(got pruner: median",
        ),
    ):
        with pytest.raises(HarnessError, match=said):
            search.run(load(write(more, space)), Store(tmp_path / "find"), options, quiet)
    assert not (tmp_path / "find").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (replace(TUNE, workers=3), "cannot run 3 workers on 2 cores at 1 thread a worker: at most 2"),
        (replace(TUNE, workers=None, threads=3), "cannot run 1 worker on 2 cores at 3 threads a worker"),
    ],
)
def test_workers_that_the_machine_lacks_are_refused(write, tmp_path, options: Options, said: str) -> None:
    sweep = load(write("recipes: 2", "{lr: [1e-3, 1e-2]}"))
    with pytest.raises(HarnessError, match=said):
        search.run(sweep, Store(tmp_path / "find"), options, quiet)
    assert not ray.is_initialized()
    assert not list((tmp_path / "find").glob("trials/*.json"))


def test_where_ray_ends_under_tune_its_packs_died_and_the_next_is_refused(write) -> None:
    sweep = load(write("recipes: 2", "{lr: [1e-3, 1e-2]}", "epochs: 200"))
    job = Job(expand(sweep)[:1])
    pool = ray_tune.TunePool(sweep, None, 1, 1, None, 1, None)
    try:
        pool.start(job)
        ray.kill(pool.box)
        (done,) = pool.wait(0.1)
        assert (done.job, done.died) == (job, True)
        assert (pool.running(), pool.wait(0.1)) == ([], [])
        with pytest.raises(HarnessError, match=r"Ray Tune has stopped: \w+Error.* without --tune"):
            pool.start(job)
    finally:
        pool.close()
    assert not ray.is_initialized()
