"""What was planted in the records and files of somebody's training script, and what `verify` says of each.

A script leaves less than the engine that stands twice: a score in its file and in its record, a curve beside it,
answers beside a count, the threshold in the sweep file and in each record. Nothing is run here.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from made_runs import ENVIRONMENT, sweep_of
from whole_records import edit, field_of, rewrite

from harness.config.trials import Sweep, Trial, expand
from harness.execution.verification import outputs as verify_outputs
from harness.execution.verification import verify
from harness.records.record import Curves, Measured, Record, ScriptRun
from harness.records.store import Store
from harness.scripts.commands import shown
from harness.scripts.process import STDERR, STDOUT

SWEEP = """\
title: A script
command: python train.py --a {a} --seed {seed} --out {out}
a: [1, 2]
seeds: 1..3
score: {file: r.json, key: accuracy}
also: {f1: {stdout: "f1=([0-9.]+)"}}
curves: {score: {file: log.jsonl, key: accuracy}, loss: {file: log.jsonl, key: loss}}
predictions: {file: p.csv}
majority: 0.5
metric: accuracy
"""
SCORES = (0.7, 0.75, 0.4, 0.8, 0.85, 0.9)  # the third has failed
OK, OTHER, FAILED = range(3)
ENGINE = {name: None for name in Measured.model_fields if Measured.model_fields[name].is_required()}


def save(store: Store, sweep: Sweep, trial: Trial, score: float) -> None:
    """What a run of a script leaves: its record, its arrays and its folder."""
    labels = (np.arange(20) >= 10).astype(np.int64)
    right = np.arange(20) < round(20 * score)
    logits = np.eye(2, dtype=np.float32)[np.where(right, labels, 1 - labels)]
    noise = trial.seeds.seed / 1000 + trial.cell / 100
    curves = Curves(
        train_loss=np.array([0.7, 0.5, 0.3], np.float32) + np.float32(noise), lr=np.zeros(0), grad_norm=np.zeros(0),
        eval_step=np.array([10, 20, 30]), dev_loss=np.full(3, np.nan, np.float32),
        dev_score=np.array([0.3, 0.35, score]), logits=logits, labels=labels,
    )  # fmt: skip
    failed = score <= 0.5
    measured = Measured(**ENGINE | {
        "outcome": "failed" if failed else "ok", "metric": "accuracy", "final_score": score, "best_score": score,
        "best_step": 30, "majority_score": 0.5, "correct": int(right.sum()), "dev_examples": 20,
        "final_train_loss": float(curves.train_loss[-1]), "wall_seconds": 3.0, "lane_seconds": 3.0,
        "peak_memory_bytes": 2**20,
    })  # fmt: skip
    run = ScriptRun(
        command=shown(trial, "/elsewhere/out"), exit_code=0, further=(("f1", score - 0.1),), notes=(), commit=None,
        dirty_diff_sha256=None, python="3.11.2", packages_sha256=None,
    )  # fmt: skip
    record = Record(
        id=trial.id, sweep=sweep.name, profile=sweep.profile, trial=trial, status="finished", attempts=1,
        started_utc="2025-01-01T00:00:00+00:00", arrays_sha256=None, error=None, measured=measured, script=run,
        environment=ENVIRONMENT.model_copy(update={"torch": None, "transformers": None, "pack_size": 1}),
    )  # fmt: skip
    store.save(record, curves)
    folder = store.folder / "runs" / trial.id
    folder.mkdir(parents=True)
    (folder / "r.json").write_text(json.dumps({"accuracy": score}))
    (folder / STDOUT).write_text(f"f1={score - 0.1!r}\n")
    losses = [{"step": step, "loss": float(loss)} for step, loss in enumerate(curves.train_loss, 1)]
    scores = [
        {"step": int(step), "accuracy": float(of)} for step, of in zip(curves.eval_step, curves.dev_score, strict=True)
    ]
    (folder / "log.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in (*losses, *scores)))
    answers = zip(labels, logits.argmax(axis=1), strict=True)
    (folder / "p.csv").write_text("label,prediction\n" + "".join(f"{label},{answer}\n" for label, answer in answers))


@dataclass(frozen=True)
class Folder:
    """The copy that is damaged."""

    sweep: Sweep
    store: Store

    def name(self, place: int = OK) -> str:
        return expand(self.sweep)[place].id

    def run(self, place: int = OK) -> Path:
        """The folder of a run."""
        return self.store.folder / "runs" / self.name(place)

    def edit(self, place: int = OK, **fields: object) -> None:
        """Change fields of a record, those of its result by their name with `m_` before it."""
        named = {f"measured__{key[2:]}" if key[:2] == "m_" else key: value for key, value in fields.items()}
        edit(self.store, self.name(place), **named)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sweep, Store]:
    """Six records of a script, with their arrays and their folders."""
    folder = tmp_path_factory.mktemp("scripts")
    sweep = sweep_of(folder, SWEEP)
    store = Store(folder / sweep.folder_name)
    store.save_plan(sweep)
    for trial, score in zip(expand(sweep), SCORES, strict=True):
        save(store, sweep, trial, score)
    return sweep, store


@pytest.fixture
def folder(whole: tuple[Sweep, Store], tmp_path: Path) -> Folder:
    """A copy to damage."""
    sweep, store = whole
    shutil.copytree(store.folder, tmp_path / store.folder.name)
    return Folder(sweep, Store(tmp_path / store.folder.name))


def _swap(one: Path, other: Path) -> None:
    between = one.with_name("between")
    one.rename(between)
    other.rename(one)
    between.rename(other)


def _swap_arrays(f: Folder) -> None:
    _swap(*(f.store.path(f.name(place)).with_suffix(".npz") for place in (OK, OTHER)))


def _swap_records(f: Folder) -> None:
    """Each told as the other's: its id, its trial; what was measured stays."""
    own = {place: {key: field_of(f.store, f.name(place), key) for key in ("id", "trial")} for place in (OK, OTHER)}
    _swap(*(f.store.path(f.name(place)) for place in (OK, OTHER)))
    _swap_arrays(f)
    for place, fields in own.items():
        f.edit(place, **fields)


def _plan(f: Folder, **changes: object) -> None:
    """Change what the plan says of the script in every cell."""
    path = f.store.folder / "plan.json"
    content = json.loads(path.read_text())
    for cell in content["sweep"]["cells"]:
        cell["recipe"]["script"] |= changes
    path.write_text(json.dumps(content))


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def _replaced(path: Path, text: str, by: str) -> None:
    assert text in path.read_text()
    path.write_text(path.read_text().replace(text, by))


def _lower_end(f: Folder) -> None:
    rewrite(f.store, f.name(), train_loss=np.array([0.7, 0.5, 0.01], np.float32))


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _answers(f: Folder) -> None:
    with np.load(f.store.path(f.name()).with_suffix(".npz")) as arrays:
        rewrite(f.store, f.name(), logits=arrays["logits"][:, ::-1])


Harm = Callable[[Folder], object]
JUDGED = "trial__recipe__script"
PROBLEMS: dict[str, tuple[Harm, set[str], set[int]]] = {
    "a score": (lambda f: f.edit(m_final_score=0.95), {"curves", "outputs"}, {OK}),
    "a score and the best": (lambda f: f.edit(m_final_score=0.95, m_best_score=0.95), {"outputs"}, {OK}),
    "a failure called ok": (lambda f: f.edit(FAILED, m_outcome="ok"), {"outcome"}, {FAILED}),
    "an outcome nobody judged": (lambda f: f.edit(m_outcome=None), {"outcome"}, {OK}),
    "a failure's score": (
        lambda f: f.edit(FAILED, m_final_score=0.6, m_outcome="ok"), {"outputs", "curves"}, {FAILED}
    ),
    "a threshold": (lambda f: f.edit(FAILED, m_majority_score=0.3, m_outcome="ok"), {"score", "outcome"}, {FAILED}),
    "a threshold, told everywhere in the record": (
        lambda f: f.edit(FAILED, m_majority_score=0.3, m_outcome="ok", **{f"{JUDGED}__majority": 0.3}),
        {"threshold"}, {FAILED},
    ),
    "another way to judge": (
        lambda f: f.edit(**{f"{JUDGED}__majority": None, f"{JUDGED}__failed_below": 0.5}), {"threshold"}, {OK}
    ),
    "lower is better": (lambda f: f.edit(**{f"{JUDGED}__higher_is_better": False}), {"score", "outcome"}, {OK}),
    "another source of the score": (lambda f: f.edit(**{f"{JUDGED}__score__key": "best"}), {"score"}, {OK}),
    "the plan's threshold": (lambda f: _plan(f, majority=0.8), {"threshold"}, set(range(6))),
    "the plan's direction": (lambda f: _plan(f, higher_is_better=False), {"score"}, set(range(6))),
    "another metric": (lambda f: f.edit(m_metric="f1"), {"score"}, {OK}),
    "a further metric": (lambda f: f.edit(script__further=[["f1", 0.99]]), {"outputs"}, {OK}),
    "a metric that nobody reads": (lambda f: f.edit(script__further=[["luck", 0.99]]), {"score"}, {OK}),
    "a count": (lambda f: f.edit(m_correct=19), {"score"}, {OK}),
    "more right than there are": (lambda f: f.edit(m_correct=21), {"record"}, {OK}),
    "other answers": (_answers, {"score"}, {OK}),
    "swapped arrays": (_swap_arrays, {"arrays_sha256", "arrays of another"}, {OK, OTHER}),
    "swapped runs": (lambda f: _swap(f.run(OK), f.run(OTHER)), {"outputs"}, {OK, OTHER}),
    "swapped records": (_swap_records, {"outputs"}, {OK, OTHER}),
    "the score in the run's file": (
        lambda f: _write(f.run() / "r.json", '{"accuracy": 0.99}'), {"outputs"}, {OK}
    ),
    "a score of infinity in the file": (
        lambda f: _write(f.run() / "r.json", '{"accuracy": Infinity}'), {"outputs"}, {OK}
    ),
    "a score in the run's curve": (
        lambda f: _replaced(f.run() / "log.jsonl", '"accuracy": 0.35', '"accuracy": 0.36'), {"outputs"}, {OK}
    ),
    "a loss in the run's curve": (
        lambda f: _replaced(f.run() / "log.jsonl", '"loss": 0.5', '"loss": 0.4'), {"outputs"}, {OK}
    ),
    "an answer in the run's file": (lambda f: _replaced(f.run() / "p.csv", "0,0\n", "0,1\n"), {"outputs"}, {OK}),
    "an answer less": (lambda f: _write(f.run() / "p.csv", "label,prediction\n0,0\n1,1\n"), {"outputs"}, {OK}),
    "the end of the losses": (_lower_end, {"outputs"}, {OK}),
    "the log": (lambda f: _write(f.run() / STDOUT, "f1=0.99\n"), {"outputs"}, {OK}),
    "a result of nobody's script": (lambda f: f.edit(script=None), {"status"}, {OK}),
    "the exit code of a crash": (lambda f: f.edit(script__exit_code=1), {"status"}, {OK}),
    "a curve": (
        lambda f: rewrite(f.store, f.name(), dev_score=np.array([0.3, 0.99, 0.7])), {"curves"}, {OK}
    ),
    "a short curve": (lambda f: rewrite(f.store, f.name(), dev_score=np.array([0.3])), {"shapes"}, {OK}),
    "another seed in the command": (
        lambda f: f.edit(script__command="python train.py --a 1 --seed 3 --out /elsewhere/out"), {"score"}, {OK}
    ),
    "a command of quotes": (lambda f: f.edit(script__command="python 'train.py"), {"score"}, {OK}),
    "another command": (
        lambda f: f.edit(**{f"{JUDGED}__command": "python other.py {a} {seed} {out}"}), {"id"}, {OK}
    ),
    "another setting": (lambda f: f.edit(trial__recipe__settings=[["a", 2]]), {"id"}, {OK}),
    "on for 1": (lambda f: f.edit(trial__recipe__settings=[["a", True]]), {"id"}, {OK}),
    "the settings of the engine": (lambda f: f.edit(m_weights_sha256="0" * 64), {"record"}, {OK}),
    "another share of the time": (lambda f: f.edit(m_lane_seconds=9000.0), {"times"}, {OK}),
    "not over yet": (lambda f: f.edit(m_wall_seconds=3e8, m_lane_seconds=3e8), {"times"}, {OK}),
    "a step that is not the best": (lambda f: f.edit(m_best_step=10), {"curves"}, {OK}),
    "answers that nobody counted": (lambda f: f.edit(m_correct=None), {"score"}, {OK}),
    "constant": (lambda f: f.edit(FAILED, m_reason="constant"), {"outcome"}, {FAILED}),
    "steps of the engine": (lambda f: f.edit(m_steps=5), {"record"}, {OK}),
    "a score on a test split": (lambda f: f.edit(m_test_score=0.9), {"record"}, {OK}),
    "no time at all": (lambda f: f.edit(m_wall_seconds=-1.0), {"record"}, {OK}),
}  # fmt: skip
NOTES: dict[str, Harm] = {
    "a run's file that is no JSON": lambda f: _write(f.run() / "r.json", "{"),
    "a FIFO": lambda f: _fifo(f.run() / "r.json"),
    "deep JSON": lambda f: _write(f.run() / "r.json", "[" * 100_000),
    "a text for the score": lambda f: _write(f.run() / "r.json", '{"accuracy": "\\u001b[31m70%"}'),
    "64 GiB": lambda f: os.truncate(f.run() / STDOUT, 2**36),
}
UNSEEN: dict[str, tuple[Harm, str]] = {
    "a link to a run's file": (
        lambda f: ((f.run() / "r.json").unlink(), (f.run() / "r.json").symlink_to("/etc/passwd")),
        "scripts make links",
    ),
    "a link to a run's folder": (
        lambda f: (shutil.rmtree(f.run()), f.run().symlink_to(f.run(OTHER))),
        "it is not followed",
    ),
    "a run's files tidied": (lambda f: shutil.rmtree(f.run()), "they may be large"),
    "a log that holds no score": (lambda f: _write(f.run() / STDERR, "all well"), "no hash of it is kept"),
    "the end of the losses, and the run's curve tidied": (
        lambda f: ((f.run() / "log.jsonl").unlink(), _lower_end(f)),
        "a loss that is logged within a step is none of the curve's",
    ),
    "told everywhere": (
        lambda f: (
            f.edit(m_final_score=0.75, m_best_score=0.75),
            _write(f.run() / "r.json", '{"accuracy": 0.75}'),
            rewrite(f.store, f.name(), dev_score=np.array([0.3, 0.35, 0.75])),
            _replaced(f.run() / "log.jsonl", '"accuracy": 0.7', '"accuracy": 0.75'),
        ),
        "the answers' count is no score of the script's",
    ),
}


def found(folder: Folder) -> tuple[set[str], set[str], set[str | None]]:
    """Rules of problems, rules of notes, and the trials that are named."""
    checked = verify.check(folder.sweep, folder.store)
    everything = (*checked.problems, *checked.notes)
    assert all(one.found.isprintable() and one.file.isprintable() for one in everything)
    named = {one.trial for one in everything if one.trial is not None}
    return {one.rule for one in checked.problems}, {one.rule for one in checked.notes}, named


def test_nothing_is_found_where_everything_fits(folder: Folder) -> None:
    assert found(folder) == (set(), set(), set())


@pytest.mark.parametrize("kind", PROBLEMS)
def test_what_contradicts_something_is_told(folder: Folder, kind: str) -> None:
    harm, rules, places = PROBLEMS[kind]
    harm(folder)
    if kind.startswith("the plan's"):  # as the command does
        plan = folder.store.load_plan()
        assert plan is not None
        folder = Folder(plan, folder.store)
    problems, _, named = found(folder)
    assert rules <= problems
    assert named == {folder.name(place) for place in places}


@pytest.mark.parametrize("kind", NOTES)
def test_a_file_that_cannot_be_read_again_is_a_note(folder: Folder, kind: str) -> None:
    NOTES[kind](folder)
    assert found(folder) == (set(), {"outputs"}, {folder.name()})


@pytest.mark.parametrize("kind", UNSEEN)
def test_what_cannot_be_seen(folder: Folder, kind: str) -> None:
    UNSEEN[kind][0](folder)
    assert found(folder) == (set(), set(), set())


def test_an_expression_that_takes_for_ever_costs_its_time_alone(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_outputs, "_SECONDS", 0.3)
    folder.edit(**{f"{JUDGED}__also": [["f1", {"kind": "stdout", "key": "((a+)+)b", "file": None, "row": "last"}]]})
    _write(folder.run() / STDOUT, "a" * 50)
    began = time.monotonic()
    problems, notes, _ = found(folder)
    assert time.monotonic() - began < 5
    assert (problems, notes) == ({"score"}, {"outputs"})
