"""Runs of a script that crash, hang or leave processes, and the workers that run them."""

import math
import os
import pickle
import re
import subprocess
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.cli.app import app
from harness.common.errors import HarnessError
from harness.config.script import Resources
from harness.config.sweep_file import load
from harness.config.trials import Sweep, Trial, expand
from harness.execution import driver
from harness.execution.driver import Options
from harness.execution.packing import Job
from harness.execution.pool import PutOffError
from harness.execution.script_worker import Needs, ScriptWorker
from harness.execution.train_pack import WorkerSetup
from harness.records.record import Record
from harness.records.shared_files import collisions
from harness.records.store import Store
from harness.records.study import of_sweep
from harness.report import opening, page_notes
from harness.scripts import outside, reaper, runner
from harness.scripts.runner import RunFolders, ScriptError

SWEEP = """\
title: A shell script
command: sh train.sh {seed} {out}
seeds: 1..2
score: {stdout: "acc=([0-9.]+)"}
failed_below: 0.5
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sweep_of(folder: Path, script: str, more: str = "") -> Sweep:
    (folder / "train.sh").write_text(script)
    (folder / "mine.yaml").write_text(SWEEP + more)
    return load(folder / "mine.yaml")


def run(sweep: Sweep, **options: Any) -> tuple[Store, driver.SweepOutcome, list[str]]:
    store, told = Store(Path("results") / sweep.folder_name), []

    def show(progress: driver.Progress) -> None:
        told.extend(progress.messages)
        progress.messages.clear()

    return store, driver.run(sweep, store, Options(in_process=True, **options), show), told


def tries() -> int:
    return len(Path("tries").read_text().splitlines())


def test_a_crash_that_repeats_is_recorded_and_one_by_chance_is_tried_again(here: Path) -> None:
    sweep = sweep_of(here, "echo $1 >>tries; echo no such kernel >&2; exit 4", "retries: 5\n")
    store, outcome, told = run(sweep, max_trials=1)
    assert (outcome.crashed, tries()) == (1, 2)
    (record,) = store.records(sweep).values()
    first, *_, last = (record.error or "").splitlines()
    assert first == "It was tried 2 times; before: the command ended with exit code 4."
    assert last == "the command ended with exit code 4: no such kernel"
    assert told[0] == f"{record.id} to run again: the command ended with exit code 4"


@pytest.mark.parametrize(
    ("fails", "retries", "expected"),
    [
        ("kill -9 $$", 3, 4),
        ("exit $(wc -l <tries)", 2, 3),
        ("[ $(wc -l <tries) = 2 ] || exit 1", 1, 2),
        ("exit 1", 0, 1),
    ],
)
def test_retries(here: Path, fails: str, retries: int, expected: int) -> None:
    sweep = sweep_of(here, f"echo $1 >>tries; {fails}; echo acc=0.6", f"retries: {retries}\n")
    _, outcome, _ = run(sweep, max_trials=1)
    assert (tries(), outcome.finished) == (expected, int("||" in fails))


def test_silence_is_a_hang_and_output_is_not(here: Path) -> None:
    sweep = sweep_of(
        here, "for i in 1 2 3 4; do echo $i; sleep 0.2; done; sleep $(($1 * 60 - 60)); echo acc=0.6", "retries: 0\n"
    )
    store, outcome, _ = run(sweep, hang_minutes=0.01)
    assert (outcome.finished, outcome.crashed) == (1, 1)
    crashed = next(record for record in store.records(sweep).values() if record.error)
    assert "the run was ended: it wrote nothing for 0.01 minutes" in (crashed.error or "")


def test_what_a_run_leaves_in_the_background_ends_with_it(here: Path) -> None:
    sweep = sweep_of(here, "setsid sleep 66.6 & sleep 66.7 & echo acc=0.6")
    _, outcome, _ = run(sweep, max_trials=1)
    assert outcome.finished == 1
    folder = here / "results" / sweep.folder_name / "runs" / expand(sweep)[0].id
    assert reaper.marked(str(folder)) == []


def one_run(trial: Trial, folders: RunFolders) -> float | None:
    return runner.run_trial(trial, folders, None, lambda: None)[0].final_score


def test_an_attempt_begins_in_an_empty_folder_without_the_processes_of_the_one_before(here: Path) -> None:
    sweep = sweep_of(here, 'test -e "$2/old" && echo acc=0.1 || echo acc=0.6')
    (here / "results").mkdir()
    folders, trial = RunFolders(here / "results" / "runs"), expand(sweep)[0]
    folder = here / "results" / "runs" / trial.id
    folder.mkdir(parents=True)
    (folder / "old").touch()
    left = subprocess.Popen(["sleep", "55.5"], env={reaper.MARK: str(folder)}, start_new_session=True)
    assert one_run(trial, folders) == 0.6
    assert left.wait(5) == -9
    # A node that doesn't see the results folder runs it in a temporary one, and no folder is made.
    assert one_run(trial, RunFolders(here / "elsewhere" / "runs")) == 0.6
    assert not (here / "elsewhere").exists()


def test_a_worker_says_what_its_run_wrote_and_ends_it_when_told(here: Path) -> None:
    sweep = sweep_of(here, "echo acc=0.4; echo at step 3; sleep 60")
    (here / "results").mkdir()
    worker = ScriptWorker(WorkerSetup("cpu", 1, runs=RunFolders(here / "results" / "runs")), 1)
    trial, raised = expand(sweep)[0], []

    def train() -> None:
        try:
            worker.train("s", "p", [trial], {})
        except PutOffError as error:
            raised.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    until = time.monotonic() + 20
    while worker.progress().output != "at step 3" and time.monotonic() < until:
        time.sleep(0.02)
    heard = worker.progress()
    assert (heard.output, heard.score, heard.written) == ("at step 3", 0.4, 18)
    worker.leave(("another",))
    worker.leave((trial.id,), put_off=True)
    thread.join(20)
    assert len(raised) == 1
    assert worker.progress().output == ""


def test_what_a_worker_takes_of_its_node() -> None:
    nodes = [{"Resources": {"CPU": 8, "GPU": 2, "memory": 10 * 2**30}}, {"Resources": {"CPU": 3}}]
    for resources, places in [
        (Resources(), 11), (Resources(cpus=4), 2), (Resources(gpus=0.5), 4), (Resources(gpus=0.3), 6),
        (Resources(gpus=2), 1), (Resources(gpus=3), 0), (Resources(cpus=1, memory_gib=4), 2),
        (Resources(gpus=1, cpus=8), 1),
    ]:  # fmt: skip
        assert Needs.of(resources).places(nodes) == places, resources
    needs = Needs.of(Resources(gpus=1, cpus=4, memory_gib=16))
    assert needs.words == "1 GPU, 4 CPUs, 16 GiB of memory"
    with pytest.raises(
        HarnessError, match=r"no room for a run with 1 GPU, 4 CPUs, 16 GiB of memory \(got 0 GPUs, 2 CPUs"
    ):
        needs.refuse_too_many(None, 0, {"CPU": 2.0})
    with pytest.raises(HarnessError, match="no room for 3 runs at once"):
        needs.refuse_too_many(3, 2, {"CPU": 8.0, "GPU": 2.0})


def test_a_crash_survives_the_way_from_a_worker() -> None:
    error = pickle.loads(pickle.dumps(ScriptError("all of it", "exit code 1")))
    assert (str(error), error.ending) == ("all of it", "exit code 1")
    assert math.isfinite(Job(()).deaths)


@pytest.mark.parametrize(
    ("script", "said"), [("echo acc=0.6", True), ("echo acc=0.6$1", False), ("echo acc=0.5", False)]
)
def test_a_script_that_ignores_its_seed_is_said(here: Path, script: str, said: bool) -> None:
    (here / "train.sh").write_text(script)
    (here / "mine.yaml").write_text(SWEEP.replace("1..2", "1..3"))
    sweep = load(here / "mine.yaml")
    store, _, told = run(sweep)
    (note,) = page_notes.notes(of_sweep(sweep, store)) or ("",)
    assert note.startswith("Warning: all 3 seeds of the only recipe gave exactly the same score: the script") is said
    assert (note in told) is said


def test_the_log_of_the_harness_itself_is_no_file_of_a_run(here: Path) -> None:
    (here / "made").touch()
    terminal = os.dup(1)
    with (here / "log").open("w") as log:
        os.dup2(log.fileno(), 1)  # as `harness sweep mine >log`
        try:
            others = outside.terminal_files()
        finally:
            os.dup2(terminal, 1)
            os.close(terminal)
    before = time.time() - 60
    assert [name for name, _ in outside.changed_since(here, before, None)] == ["log", "made"]
    assert [name for name, _ in outside.changed_since(here, before, None, others)] == ["made"]


def test_files_that_several_runs_write_are_said(here: Path) -> None:
    sweep = sweep_of(here, "echo $1 > shared.txt; echo $1 > own$1.txt; echo $1 > $2/x; echo acc=0.6$1; sleep 0.1")
    for path in here.iterdir():  # not written just now
        os.utime(path, (0, 0))
    store, _, _ = run(sweep)
    first, second = store.records(sweep).values()
    assert first.script is not None
    assert second.script is not None
    assert [name for name, _ in first.script.outside] == ["own1.txt", "shared.txt"]
    assert [name for name, _ in second.script.outside] == ["own2.txt", "shared.txt"]

    def at(record: Record, second: int, seconds: float, *outside: tuple[str, float]) -> Record:
        began = datetime.fromtimestamp(1_000_000 + second, UTC).isoformat(timespec="seconds")
        assert record.script is not None
        assert record.measured is not None
        files = tuple((name, 1_000_000 + changed) for name, changed in outside)
        script = record.script.model_copy(update={"outside": files})
        measured = record.measured.model_copy(update={"wall_seconds": seconds})
        return record.model_copy(update={"started_utc": began, "script": script, "measured": measured})

    one = at(first, 0, 10, ("model.pt", 9.0), ("a.txt", 3.0))
    other = at(first, 20, 10, ("model.pt", 29.0), ("b.txt", 23.0))
    (said,) = collisions([one, other])
    assert said.startswith("Warning: several runs wrote the same file outside their own folders (model.pt): if a run")
    long = at(first, 0, 40, ("model.pt", 39.0))  # it may have made all the changes
    assert collisions([one, other, long]) == ()
    assert collisions([one, at(first, 5, 10, ("model.pt", 14.0))]) == ()  # side by side: either may have
    assert collisions([at(first, 0, 10), other]) == ()


@pytest.mark.parametrize(
    ("output", "level", "key", "words"),
    [
        (
            "acc=6$1.5",
            "0.5",
            "majority",
            r"\(61.5 to 62.5\) look like percentages, but majority is 0.5: no run can fail",
        ),
        ("acc=0.6$1", "52.7", "failed_below", r"every run counts as failed. Write failed_below: 0.527 and"),
        ("acc=0.6$1", "0.5", "majority", None),
        ("acc=61$1.5", "0.5", "majority", None),  # a reward, or points of a game
    ],
)
def test_scores_on_another_scale_than_the_threshold_are_said(
    here: Path, output: str, level: str, key: str, words: str | None
) -> None:
    (here / "train.sh").write_text(f"echo {output}")
    (here / "mine.yaml").write_text(SWEEP.replace("failed_below: 0.5", f"{key}: {level}"))
    sweep = load(here / "mine.yaml")
    store, _, told = run(sweep)
    notes = page_notes.notes(of_sweep(sweep, store))
    if words is None:
        assert notes == ()
        return
    (note,) = notes
    assert re.search(words, note)
    assert note in told


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_a_scripts_scores_have_the_unit_that_it_gives_them(here: Path, better: str) -> None:
    sweep = sweep_of(here, "echo acc=61", f"better: {better}\n")
    about = page_notes.about_scores(of_sweep(sweep, Store(Path("results") / sweep.folder_name)))
    assert f"at the end of training, as the script gives them; {better} is better;" in about


def test_a_threshold_that_was_edited_after_training_is_said(here: Path) -> None:
    sweep = sweep_of(here, "echo acc=0.6$1")
    store, _, _ = run(sweep)
    assert page_notes.notes(of_sweep(sweep, store)) == ()
    (here / "mine.yaml").write_text(SWEEP.replace("failed_below: 0.5", "failed_below: 0.7"))
    sweep = load(here / "mine.yaml")
    (note,) = page_notes.notes(of_sweep(sweep, store))
    assert "2 runs were judged by 0.5, it now says 0.7." in note
    assert "--threshold 0.7" in note
    (here / "mine.yaml").write_text(SWEEP.replace("failed_below: 0.5\n", ""))
    (note,) = page_notes.notes(of_sweep(load(here / "mine.yaml"), store))
    assert "judged by 0.5, it now says none." in note


def test_plan_and_verify_say_that_a_threshold_was_edited(here: Path) -> None:
    sweep = sweep_of(here, "echo acc=0.6$1")
    store, _, _ = run(sweep)
    name, words = str(here / "mine.yaml"), "2 runs were judged by 0.5, it now says 0.7"
    assert words not in CliRunner().invoke(app, ["plan", name]).stdout
    Path(name).write_text(SWEEP.replace("failed_below: 0.5", "failed_below: 0.7"))
    assert words in CliRunner().invoke(app, ["plan", name]).stdout
    said = CliRunner().invoke(app, ["verify", name])
    assert said.exit_code == 0  # the folder is as it was trained
    assert words in said.stdout.replace("\n", " ")
    store.save_plan(load(Path(name)))  # as the next sweep does
    said = CliRunner().invoke(app, ["verify", str(store.folder)])
    assert said.exit_code == 1
    assert said.stdout.count("threshold: failed_below is 0.5, in the plan 0.7") == 2


def test_what_failed_means_is_not_said_of_what_nobody_judged(here: Path) -> None:
    (here / "train.sh").write_text("echo acc=0.6$1")
    (here / "mine.yaml").write_text(SWEEP.replace("failed_below: 0.5\n", ""))
    sweep = load(here / "mine.yaml")
    study = of_sweep(sweep, Store(Path("results") / sweep.folder_name))
    analysis: Any = SimpleNamespace(study=study, runs=study.runs)  # all that the sentence reads of an analysis
    assert opening.failing_means(analysis).endswith("the sweep file has neither majority nor failed_below")
