"""Every kind of corruption that was thought of, planted in a whole folder, and what `verify` says of it.

A row: what is done to the folder, and the findings that must be there (`problem` or `note`, with its rule); or why
nothing can be seen without training again. Nothing is trained here: the records are made up so that everything fits.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_runs import Run
from whole_records import arrays_of, cross_entropy, edit, field_of, rewrite, whole_store

from harness.config.trials import Sweep, expand
from harness.execution.verification import verify
from harness.records.reruns import NAME as RERUNS
from harness.records.store import Store
from harness.records.study import of_sweep

# In the plan's order, of two cells with four seeds each; the last one is missing.
RUNS = [Run(300), Run(310), Run(200), Run(diverged=True), Run(320), Run(crashed="RuntimeError: no"), Run(330), None]
OK, OTHER, FAILED, DIVERGED, SECOND_CELL, CRASHED, LAST, MISSING = range(8)
FINISHED = (OK, OTHER, FAILED, DIVERGED, SECOND_CELL, LAST)


@dataclass(frozen=True)
class Folder:
    """The copy that is damaged."""

    sweep: Sweep
    store: Store

    def name(self, place: int) -> str:
        """The id of a trial by its place in the plan."""
        return expand(self.sweep)[place].id

    def json(self, place: int = OK) -> Path:
        """The record of a trial."""
        return self.store.path(self.name(place))

    def npz(self, place: int = OK) -> Path:
        """The arrays of a trial."""
        return self.json(place).with_suffix(".npz")

    def edit(self, place: int = OK, **fields: object) -> None:
        """Change fields of a record, those of its result by their name with `m_` before it."""
        edit(
            self.store, self.name(place), **{f"measured__{k[2:]}" if k[:2] == "m_" else k: v for k, v in fields.items()}
        )

    def rewrite(self, place: int = OK, **arrays: np.ndarray | None) -> None:
        """Change arrays, and the hash with them."""
        rewrite(self.store, self.name(place), **arrays)

    def arrays(self, place: int = OK) -> dict[str, np.ndarray]:
        """All arrays of a trial."""
        return arrays_of(self.store, self.name(place))

    def field(self, key: str, place: int = OK) -> object:
        """A field of a record."""
        return field_of(self.store, self.name(place), key)


Harm = Callable[[Folder], object]
UNSEEN = "unseen"


@dataclass(frozen=True)
class Planted:
    """What is done, which findings have to be there, and of which trials alone; or why there can be none."""

    harm: Harm
    expected: frozenset[tuple[str, str]] = frozenset()  # (problem or note, rule)
    places: tuple[int, ...] = (OK,)
    why_unseen: str = ""


def problem(*rules: str, places: tuple[int, ...] = (OK,)) -> Callable[[Harm], Planted]:
    """A row whose findings are problems."""
    return lambda harm: Planted(harm, frozenset(("problem", rule) for rule in rules), places)


def note(*rules: str, places: tuple[int, ...] = (OK,)) -> Callable[[Harm], Planted]:
    """A row whose findings are notes."""
    return lambda harm: Planted(harm, frozenset(("note", rule) for rule in rules), places)


def unseen(why: str) -> Callable[[Harm], Planted]:
    """A row of which nothing can be seen."""
    return lambda harm: Planted(harm, why_unseen=why)


# ------------------------------------------------------------------------------------------------------- what is done


def _instead(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def _link(path: Path) -> None:
    other = Path(tempfile.mkdtemp()) / "elsewhere"
    shutil.move(path, other)
    path.symlink_to(other)


def _sparse(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.truncate(2**36)


def _cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _replaced(path: Path, text: str, by: str) -> None:
    path.write_text(path.read_text().replace(text, by))


def _without_key(f: Folder) -> None:
    content = json.loads(f.json().read_text())
    del content["attempts"]
    f.json().write_text(json.dumps(content))


def _scaled(f: Folder, name: str, factor: float, where: slice = slice(None), place: int = OK) -> None:
    array = f.arrays(place)[name].copy()
    array[where] = array[where] * factor
    f.rewrite(place, **{name: array})


def _first_rows(f: Folder, name: str, rows: int) -> None:
    f.rewrite(**{name: f.arrays()[name][:rows]})


def _swap(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def _take_arrays(f: Folder) -> None:
    shutil.copy(f.npz(OTHER), f.npz())
    f.edit(arrays_sha256=f.store.arrays_sha256(f.name(OK)))


def _copy_result(f: Folder) -> None:
    """A seed's result told as another's: all of it, arrays too."""
    _take_arrays(f)
    content, other = (json.loads(f.json(place).read_text()) for place in (OK, OTHER))
    content["measured"] = other["measured"]
    f.json().write_text(json.dumps(content))


def _copy_trial(f: Folder) -> None:
    for path, to in ((f.json(), f.json(MISSING)), (f.npz(), f.npz(MISSING))):
        shutil.copy(path, to)


def _renamed_copy(f: Folder) -> None:
    """A record told as that of the missing trial: with its id, its recipe and its seeds."""
    _copy_trial(f)
    trial = expand(f.sweep)[MISSING]
    f.edit(MISSING, id=trial.id, trial=json.loads(trial.model_dump_json()))


def _better_answers(f: Folder) -> None:
    """Ten more right answers: logits, score, counts, loss, recording, all alike."""
    arrays = f.arrays()
    logits, labels = arrays["logits"].copy(), arrays["labels"]
    wrong = np.flatnonzero(logits.argmax(axis=1) != labels)[:10]
    logits[wrong] = logits[wrong][:, ::-1]
    loss, score = cross_entropy(logits, labels), float((logits.argmax(axis=1) == labels).mean())
    answers = np.tile(np.bincount(logits.argmax(axis=1), minlength=2).astype(np.int32), (3, 1))
    scores, losses = arrays["dev_score"].copy(), arrays["dev_loss"].copy()
    scores[-1], losses[-1] = score, loss
    f.rewrite(logits=logits, dev_score=scores, dev_loss=losses, recorded_predicted=answers)
    f.edit(m_final_score=score, m_correct=310, m_final_dev_loss=float(losses[-1]), m_best_score=score)


def _other_report(f: Folder, score: str) -> None:
    """A table of the last report with another score than the record's."""
    _report(f, OK)
    table = f.store.folder / "report" / "tables" / "runs.csv"
    table.write_text(f"trial,status,final_score\n{f.name(OK)},finished,{score}\n{f.name(OTHER)},finished,0.775\n")


def _report(f: Folder, place: int) -> None:
    table = f.store.folder / "report" / "tables" / "runs.csv"
    table.parent.mkdir(parents=True)
    table.write_text(f"trial,status\n{f.name(place)},finished\n")


def _delete(f: Folder) -> None:
    _report(f, OK)
    f.json().unlink()
    f.npz().unlink()


def _delete_kept(f: Folder) -> None:
    (f.store.folder / "models" / f.name(OK)).mkdir(parents=True)
    f.json().unlink()


def _foreign(f: Folder) -> None:
    shutil.copy(f.json(), f.json().with_name("lr3e-5-bc-ep3-seed1-00000000.json"))


def _plan(f: Folder, change: Callable[[dict], object]) -> None:
    path = f.store.folder / "plan.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _pickled(f: Folder) -> None:
    f.npz().write_bytes(pickle.dumps(Path("x")))
    f.edit(arrays_sha256=f.store.arrays_sha256(f.name(OK)))


def _with_nan(f: Folder, at: int) -> None:
    loss = f.arrays()["train_loss"].copy()
    loss[at] = np.nan
    f.rewrite(train_loss=loss)


def _moved(array: np.ndarray, place: int, value: float) -> np.ndarray:
    moved = array.copy()
    moved[place] = value
    return moved


def _rerun(f: Folder, **changes: object) -> None:
    """An entry of a rerun that gave the same, but for what is changed in it."""
    entry = {
        "trial": f.name(OK), "kind": "rerun", "number": 0, "when_utc": "2025-01-02T00:00:00+00:00",
        "verdict": "identical", "max_difference": 0.0, "first_differing_step": None, "recorded_score": 0.75,
        "score": 0.75, "reasons": [],
    }  # fmt: skip
    (f.store.folder / RERUNS).write_text(json.dumps([entry | changes]))


def _rerun_before(f: Folder) -> None:
    """All that a record tells of its score is edited, after a rerun that was compared with it."""
    _rerun(f)
    _better_answers(f)


def _baseline(f: Folder, **changes: object) -> None:
    """A baseline that answers class 0 alone, on the records' data, but for what is changed in it."""
    labels = f.arrays()["labels"].tolist()
    entry = {
        "name": "majority", "settings": "made up", "task": "embedded", "metric": "accuracy", "versions": {},
        "data_sha256": f.field("measured__data_sha256"), "seeds": [], "scores": [0.5], "failed": [True],
        "labels": labels, "answers": [[0] * 400],
    }  # fmt: skip
    (f.store.folder / "baselines.json").write_text(json.dumps([entry | changes]))


def _surface(f: Folder, **changes: np.ndarray) -> None:
    """A loss surface between the first two trials, but for what is changed in it."""
    grid = np.ones((4, 5))
    arrays = {
        "trials": np.array([f.name(OK), f.name(OTHER)]), "x": np.linspace(0, 1, 5), "y": np.linspace(0, 1, 4),
        "loss": grid, "gradient_norm": grid, "places": np.zeros((3, 2)), "examples": np.array(128),
    }  # fmt: skip
    np.savez(f.store.folder / "surface.npz", **arrays | changes)  # type: ignore[arg-type]


def _touch(f: Folder, name: str) -> None:
    (f.store.trials / name).write_bytes(b"")


# Texts that a table has None of where no run has one, and NaN where another run has.
MOSTLY_NONE = ("error", "label_names", "tokens_sha256", "step_mode", "metric_sha256", "augmentation_sha256")
NO_TRAINING = "it stands once, and what it should be takes the training"
PLANTED: dict[str, Planted] = {
    # the record's file
    "cut short": problem("record")(lambda f: _cut(f.json(), 0.9)),
    "empty": problem("record")(lambda f: f.json().write_bytes(b"")),
    "zeros, as after a power cut": problem("record")(lambda f: f.json().write_bytes(bytes(4096))),
    "no text": problem("record")(lambda f: f.json().write_bytes(b"\xff\xfe\x1b[31m")),
    "deep JSON": problem("record")(lambda f: f.json().write_text("[" * 100_000)),
    "a list": problem("record")(lambda f: f.json().write_text("[]")),
    "a FIFO": problem("record")(lambda f: _instead(f.json(), os.mkfifo)),
    "a folder": problem("record")(lambda f: _instead(f.json(), Path.mkdir)),
    "a link": problem("record")(lambda f: _link(f.json())),
    "64 GiB": problem("record")(lambda f: _sparse(f.json())),
    "a NaN": problem("record")(lambda f: f.edit(m_final_score=float("nan"))),
    "another schema": problem("record")(lambda f: f.edit(schema_version=2)),
    "an unknown key": problem("record")(lambda f: f.edit(more=1)),
    "a key less": problem("record")(_without_key),
    "a key that stands twice": problem("record")(
        lambda f: _replaced(f.json(), '"status":', '"status": "crashed", "status":')
    ),
    "a text for a number": problem("record")(lambda f: f.edit(m_steps="sixty")),
    # whose record it is
    "another id": problem("id")(lambda f: f.edit(id="x\n\x1b[31m")),
    "another learning rate": problem("id")(lambda f: f.edit(trial__recipe__lr=3e-5)),
    "another seed": problem("id")(lambda f: f.edit(trial__seeds__init_seed=77)),
    "another sweep's": problem("sweep")(lambda f: f.edit(sweep="theirs")),
    "another profile's": problem("profile")(lambda f: f.edit(profile="paper")),
    "copied to another id": problem("id", places=(MISSING,))(_copy_trial),
    "copied and renamed": problem("shared result", "arrays of another", "recipe", places=(MISSING,))(_renamed_copy),
    "a result told twice": problem("shared result", "arrays of another", places=(OTHER,))(_copy_result),
    # states
    "finished without a result": problem("status")(lambda f: f.edit(measured=None)),
    "crashed with a result": problem("status")(lambda f: f.edit(status="crashed", error="no")),
    "finished with an error": problem("status")(lambda f: f.edit(error="no")),
    "finished nowhere": problem("status")(lambda f: f.edit(environment=None)),
    "crashed without an error": problem("status", places=(CRASHED,))(lambda f: f.edit(CRASHED, error=None)),
    "crashed with arrays' hash": problem("status", places=(CRASHED,))(
        lambda f: f.edit(CRASHED, arrays_sha256="1" * 64)
    ),
    "another number of attempts": note("attempts")(lambda f: f.edit(attempts=3)),
    # scores
    "a better score": problem("score", "curves")(lambda f: f.edit(m_final_score=0.8)),
    "a better score and count": problem("score", "curves")(lambda f: f.edit(m_final_score=0.8, m_correct=320)),
    "a count": problem("score")(lambda f: f.edit(m_correct=301)),
    "a best score": problem("curves")(lambda f: f.edit(m_best_score=0.9)),
    "a best step": problem("curves")(lambda f: f.edit(m_best_step=40)),
    "a lower majority": problem("score", "data")(lambda f: f.edit(m_majority_correct=100, m_majority_score=0.25)),
    "a score of 1e300": problem("record")(lambda f: f.edit(m_final_score=1e300)),
    "an accuracy below 0": problem("record")(lambda f: f.edit(m_final_score=-0.2)),
    "more right than there are": problem("record")(lambda f: f.edit(m_correct=500)),
    "an unknown metric": problem("score")(lambda f: f.edit(m_metric="luck")),
    "another metric": problem("score")(lambda f: f.edit(m_metric="f1")),
    "a test score without a test": problem("score")(lambda f: f.edit(m_test_score=0.9)),
    "a failure called ok": problem("outcome", places=(FAILED,))(
        lambda f: f.edit(FAILED, m_outcome="ok", m_reason=None)
    ),
    "ok called a failure": problem("outcome")(lambda f: f.edit(m_outcome="failed")),
    "constant, not said": problem("outcome", places=(FAILED,))(lambda f: f.edit(FAILED, m_reason=None)),
    "collapsed, and never above": problem("outcome", places=(FAILED,))(
        lambda f: f.edit(FAILED, m_reason="collapsed")
    ),
    "diverged, not said": problem("outcome", places=(DIVERGED,))(lambda f: f.edit(DIVERGED, m_reason="constant")),
    "never diverged": problem("curves", places=(DIVERGED,))(lambda f: f.edit(DIVERGED, m_diverged_step=None)),
    "diverged earlier": problem("curves", places=(DIVERGED,))(lambda f: f.edit(DIVERGED, m_diverged_step=3)),
    "a good run that diverged": problem("curves")(lambda f: f.edit(m_diverged_step=3)),
    # losses
    "a lower training loss": problem("curves")(lambda f: f.edit(m_final_train_loss=0.01)),
    "a lower dev loss": problem("curves", "score")(lambda f: f.edit(m_final_dev_loss=0.01)),
    "an impossible entropy": problem("score", "data")(lambda f: f.edit(m_label_entropy=2.0)),
    "another entropy": problem("data")(lambda f: f.edit(m_label_entropy=0.5)),
    # the recipe
    "other steps": problem("shapes", "recipe")(lambda f: f.edit(m_steps=61)),
    "10**12 steps": problem("record")(lambda f: f.edit(m_steps=10**12)),
    "a larger training set": problem("recipe", "data")(lambda f: f.edit(m_train_examples=1000)),
    "a training set of one example less": problem("data")(lambda f: f.edit(m_train_examples=319)),
    "a smaller dev set": problem("shapes", "score", "data")(lambda f: f.edit(m_dev_examples=399)),
    "stopped early": problem("recipe")(lambda f: f.edit(m_stopped_step=60)),
    "the best kept": problem("recipe")(lambda f: f.edit(m_kept_step=40)),
    "a flat rate": problem("recipe")(lambda f: f.rewrite(lr=np.full(60, 1e-5))),
    "one other rate": problem("recipe")(lambda f: f.rewrite(lr=_moved(f.arrays()["lr"], 7, 1e-7))),
    "an evaluation elsewhere": problem("recipe")(lambda f: f.rewrite(eval_step=np.array([20, 41, 60]))),
    "what an untouched model scores": problem("recipe")(
        lambda f: f.edit(m_untouched_score=0.1, m_untouched_loss=3.0, m_majority_score=0.1)
    ),
    "a failure judged by an untouched model": problem("recipe", places=(FAILED,))(
        lambda f: f.edit(FAILED, m_untouched_score=0.1, m_majority_score=0.1, m_majority_correct=40, m_outcome="ok",
                         m_reason=None)
    ),
    "a threshold of labels": problem("recipe")(lambda f: f.edit(m_label_threshold=0.7)),
    "a regression's variance": problem("recipe")(lambda f: f.edit(m_label_variance=1.0)),
    "the file of a metric": problem("recipe")(lambda f: f.edit(m_metric_sha256="d" * 64)),
    "words that changed the texts": problem("recipe")(lambda f: f.edit(m_augmentation_sha256="d" * 64)),
    "a CUDA graph on a CPU": problem("recipe")(lambda f: f.edit(m_step_mode="cuda graph")),
    "seven times all tokens": problem("record")(lambda f: f.edit(m_unknown_share=7.0)),
    # hashes
    "weights of nothing": problem("record")(lambda f: f.edit(m_weights_sha256="0" * 64)),
    "a hash too long": problem("record")(lambda f: f.edit(m_weights_sha256="1" * 65)),
    "the weights of another seed": problem("shared result", places=(OK, OTHER))(
        lambda f: f.edit(m_weights_sha256=f.field("measured__weights_sha256", OTHER))
    ),
    "another share of unknown tokens": problem("data", places=FINISHED)(
        lambda f: [f.edit(place, m_tokens_sha256="a1" * 32, m_unknown_share=0.5 * (place == OK)) for place in FINISHED]
    ),
    "other data": problem("data_sha256")(lambda f: f.edit(m_data_sha256="d" * 64)),
    "another model": problem("model_sha256")(lambda f: f.edit(m_model_sha256="d" * 64)),
    "names of three classes": problem("record")(lambda f: f.edit(m_label_names=["a", "b", "c"])),
    "names of 51 classes": problem("record")(lambda f: f.edit(m_label_names=[str(number) for number in range(51)])),
    "other parameters": problem("data")(lambda f: f.edit(m_parameters=2000)),
    "more trained than there are": problem("record")(lambda f: f.edit(m_trained_parameters=10_000)),
    # times
    "no time at all": problem("times")(lambda f: f.edit(m_wall_seconds=0.0, m_lane_seconds=0.0)),
    "a negative time": problem("record")(lambda f: f.edit(m_wall_seconds=-1.0)),
    "another share of the pack": problem("times")(lambda f: f.edit(m_lane_seconds=0.1)),
    "another pack": problem("times")(lambda f: f.edit(environment__pack_size=7)),
    "begun in the future": problem("times")(lambda f: f.edit(started_utc="2999-01-01T00:00:00+00:00")),
    "begun at the end of all time": problem("times")(lambda f: f.edit(started_utc="9999-12-31T23:59:59+00:00")),
    "begun before there was BERT": problem("times")(lambda f: f.edit(started_utc="1970-01-01T00:00:00+00:00")),
    "not over yet": problem("times")(lambda f: f.edit(m_wall_seconds=3e8, m_lane_seconds=1.5e8)),
    "begun at no time": problem("times")(lambda f: f.edit(started_utc="yesterday")),
    # the arrays' file
    "no arrays": note("arrays missing")(lambda f: f.npz().unlink()),
    "arrays cut short": problem("arrays_sha256", "arrays")(lambda f: _cut(f.npz(), 0.7)),
    "a flipped bit": problem("arrays_sha256")(lambda f: _flip(f.npz())),
    "a FIFO of arrays": problem("arrays")(lambda f: _instead(f.npz(), os.mkfifo)),
    "a link to arrays": problem("arrays")(lambda f: _link(f.npz())),
    "64 GiB of arrays": problem("arrays")(lambda f: _sparse(f.npz())),
    "a bomb": problem("arrays")(lambda f: f.rewrite(test_logits=np.zeros((2**21, 8), np.float32))),
    "a pickle": problem("arrays")(_pickled),
    "another hash": problem("arrays_sha256")(lambda f: f.edit(arrays_sha256="1" * 64)),
    "no hash": problem("status", "arrays_sha256")(lambda f: f.edit(arrays_sha256=None)),
    "swapped arrays": problem("arrays_sha256", "arrays of another", places=(OK, OTHER))(
        lambda f: _swap(f.npz(OK), f.npz(OTHER))
    ),
    "another's arrays with their hash": problem("arrays of another", "score", places=(OK, OTHER))(_take_arrays),
    "an array less": problem("arrays")(lambda f: f.rewrite(logits=None)),
    "an array more": problem("arrays")(lambda f: f.rewrite(more=np.zeros(3))),
    "arrays of a crash": problem("arrays of another", places=(CRASHED,))(
        lambda f: shutil.copy(f.npz(), f.npz(CRASHED))
    ),
    # the arrays
    "logits of 7 rows": problem("shapes")(lambda f: _first_rows(f, "logits", 7)),
    "labels of 3 rows": problem("shapes")(lambda f: _first_rows(f, "labels", 3)),
    "a short curve": problem("shapes")(lambda f: _first_rows(f, "train_loss", 30)),
    "texts for numbers": problem("shapes")(lambda f: f.rewrite(lr=np.array(["a"] * 60))),
    "labels of a third class": problem("shapes")(lambda f: f.rewrite(labels=np.full(400, 2))),
    "labels in another order": problem("score", "data")(lambda f: f.rewrite(labels=np.roll(f.arrays()["labels"], 7))),
    "surer logits": problem("score")(lambda f: _scaled(f, "logits", 3.0)),
    "no evaluation": problem("shapes")(
        lambda f: f.rewrite(eval_step=np.zeros(0, int), dev_loss=np.zeros(0, "f"), dev_score=np.zeros(0))
    ),
    "steps out of order": problem("shapes")(lambda f: f.rewrite(eval_step=np.array([60, 40, 20]))),
    "a dev score of 1e300": problem("shapes")(lambda f: f.rewrite(dev_score=np.full(3, 1e300))),
    "a best evaluation": problem("curves")(lambda f: f.rewrite(dev_score=_moved(f.arrays()["dev_score"], 0, 0.99))),
    "a lower end of the loss": problem("curves")(lambda f: _scaled(f, "train_loss", 0.1, slice(-10, None))),
    "a NaN in the loss": problem("curves")(lambda f: _with_nan(f, 30)),
    "a first loss that no fresh head has": note("first loss")(lambda f: _scaled(f, "train_loss", 9.0, slice(0, 1))),
    "a gradient": problem("recording")(lambda f: _scaled(f, "grad_norm", 2.0, slice(4, 5))),
    # the recording
    "a recording cut": problem("shapes")(lambda f: _first_rows(f, "recorded_update", 5)),
    "a recording less an array": problem("arrays")(lambda f: f.rewrite(recorded_cls_rank=None)),
    "other gradients of the layers": problem("recording")(lambda f: _scaled(f, "recorded_layer_norm", 2.0)),
    "infinite gradients of the layers": problem("recording")(lambda f: _scaled(f, "recorded_layer_norm", np.inf)),
    "other names of the layers": problem("data")(
        lambda f: f.rewrite(recorded_layers=np.array(["\x1b[31m", "<b>", "c"]))
    ),
    "other answers by class": problem("recording")(
        lambda f: f.rewrite(recorded_predicted=np.full((3, 2), 200, np.int32))
    ),
    "a recording that miscounts": problem("shapes")(
        lambda f: f.rewrite(recorded_predicted=np.full((3, 2), 199, np.int32))
    ),
    "another's recording": problem("recording")(
        lambda f: f.rewrite(**{k: v for k, v in f.arrays(OTHER).items() if k.startswith("recorded_")})
    ),
    # the folder
    "a foreign record": problem("foreign trial", places=())(_foreign),
    "deleted, and reported before": problem("deleted")(_delete),
    "a better score in the report": problem("report")(lambda f: _other_report(f, "0.99")),
    "no score in the report": problem("report")(lambda f: _other_report(f, "")),
    "a text for a score in the report": problem("report")(lambda f: _other_report(f, "\x1b[31m")),
    "deleted, and its model kept": problem("deleted", "kept weights")(_delete_kept),
    "half a file": note("half-written", places=())(lambda f: _touch(f, ".x.json.7.tmp")),
    "a stranger": note("stranger", places=())(lambda f: _touch(f, "notes.txt")),
    "renamed as unreadable": note("unreadable")(lambda f: f.json().rename(f.json().with_suffix(".unreadable"))),
    "an earlier attempt": note("set aside", "attempts")(lambda f: _touch(f, f"{f.name(OK)}.attempt1.json")),
    "no plan": problem("plan", places=())(lambda f: (f.store.folder / "plan.json").unlink()),
    "a plan cut": problem("plan", places=())(lambda f: _cut(f.store.folder / "plan.json", 0.5)),
    "a plan without a trial": problem("plan", places=())(lambda f: _plan(f, lambda p: p["trials"].pop(0))),
    "a plan with a key twice": problem("plan", places=())(
        lambda f: _replaced(f.store.folder / "plan.json", '"title":', '"title": "x", "title":')
    ),
    "a plan of another version": problem("plan", places=())(lambda f: _plan(f, lambda p: p.update(schema_version=9))),
    "another torch for one": note("mixed runs", places=())(lambda f: f.edit(environment__torch="1.0")),
    "reruns that are none": problem("damaged", places=())(lambda f: (f.store.folder / RERUNS).write_text("[1]")),
    "baselines that are none": problem("damaged", places=())(
        lambda f: (f.store.folder / "baselines.json").write_text("{")
    ),
    "a surface that is none": problem("damaged", places=())(
        lambda f: (f.store.folder / "surface.npz").write_bytes(b"PK")
    ),
    "a score edited after a rerun": problem("reruns")(_rerun_before),
    "an identical rerun of another score": problem("reruns")(lambda f: _rerun(f, score=0.7)),
    "an identical rerun that differs": problem("reruns")(lambda f: _rerun(f, first_differing_step=3)),
    "a rerun of no planned trial": problem("reruns", places=())(lambda f: _rerun(f, trial="x\x1b[31m")),
    "a rerun before the run": problem("reruns")(lambda f: _rerun(f, when_utc="2020-01-01T00:00:00+00:00")),
    "a rerun at no time": problem("reruns")(lambda f: _rerun(f, when_utc="\x1b[31mnow")),
    "a rerun that differs behind the end": problem("reruns")(
        lambda f: _rerun(f, verdict="different", first_differing_step=900)
    ),
    "a rerun's score of 1e300": problem("damaged", places=())(lambda f: _rerun(f, score=1e300)),
    "a baseline's score": problem("baselines", places=())(lambda f: _baseline(f, scores=[0.9])),
    "a baseline's verdict": problem("baselines", places=())(lambda f: _baseline(f, failed=[False])),
    "a baseline's labels": problem("baselines", places=())(
        lambda f: _baseline(f, labels=[0] * 300 + [1] * 100, scores=[0.75])
    ),
    "a baseline's answers cut": problem("damaged", places=())(lambda f: _baseline(f, answers=[[0, 0]])),
    "a baseline without a score": problem("damaged", places=())(lambda f: _baseline(f, scores=[], failed=[])),
    "a baseline's answers of no class": problem("damaged", places=())(lambda f: _baseline(f, answers=[[-1] * 400])),
    "a surface of no planned trial": problem("surface", places=())(
        lambda f: _surface(f, trials=np.array(["x\x1b[31m", "y"]))
    ),
    "a surface cut": problem("damaged", places=())(lambda f: _surface(f, x=np.zeros(3))),
    "a surface of texts": problem("damaged", places=())(lambda f: _surface(f, loss=np.full((4, 5), "a"))),
    # what can't be seen
    "one loss in the middle": unseen(NO_TRAINING)(lambda f: _scaled(f, "train_loss", 0.9, slice(20, 21))),
    "a dev loss in the middle": unseen(NO_TRAINING)(lambda f: _scaled(f, "dev_loss", 0.9, slice(0, 1))),
    "a lower score in the middle": unseen(NO_TRAINING)(lambda f: _scaled(f, "dev_score", 0.9, slice(0, 1))),
    "made-up weights": unseen(NO_TRAINING)(lambda f: f.edit(m_weights_sha256="9c" * 32)),
    "norms of the weights": unseen(NO_TRAINING)(lambda f: _scaled(f, "recorded_weight_norm", 2.0)),
    "the head's vectors": unseen(NO_TRAINING)(lambda f: _scaled(f, "recorded_cls_rank", 2.0)),
    "a gradient that was not recorded": unseen(NO_TRAINING)(lambda f: _scaled(f, "grad_norm", 2.0, slice(5, 6))),
    "ten right answers, told everywhere": unseen(NO_TRAINING)(_better_answers),
    "an hour": unseen("no clock is kept beside it")(lambda f: f.edit(started_utc="2025-01-01T01:00:00Z")),
    "twice the time": unseen("no clock is kept beside it")(lambda f: f.edit(m_wall_seconds=8.0, m_lane_seconds=4.0)),
    "memory": unseen("it is measured once")(lambda f: f.edit(m_peak_memory_bytes=1)),
    "deleted without a trace": unseen("it looks as one that was never trained; a sealed manifest tells")(
        lambda f: (f.json().unlink(), f.npz().unlink())
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sweep, Store]:
    """Seven records in which everything fits, all with recordings."""
    return whole_store(tmp_path_factory.mktemp("planted"), RUNS, record=True)


@pytest.fixture
def folder(whole: tuple[Sweep, Store], tmp_path: Path) -> Folder:
    """A copy to damage."""
    sweep, store = whole
    shutil.copytree(store.folder, tmp_path / store.folder.name)
    return Folder(sweep, Store(tmp_path / store.folder.name))


def found(folder: Folder) -> tuple[set[tuple[str, str]], set[str]]:
    """((problem or note, rule), trials that are named) of all findings but the general notes."""
    checked = verify.check(folder.sweep, folder.store)
    rows = [("problem", one) for one in checked.problems] + [("note", one) for one in checked.notes]
    for _, one in rows:
        assert one.found.isprintable()
        assert 0 < len(one.found) <= 240
    assert checked.finished + checked.crashed + checked.missing + checked.unreadable == 8
    return {(kind, one.rule) for kind, one in rows}, {one.trial for _, one in rows if one.trial is not None}


def test_there_are_many_kinds_and_the_whole_folder_has_none(folder: Folder) -> None:
    assert len(PLANTED) >= 60
    assert sum(bool(row.expected) for row in PLANTED.values()) >= 100
    assert found(folder) == (set(), set())


@pytest.mark.parametrize("kind", PLANTED)
def test_what_is_planted_is_told(folder: Folder, kind: str) -> None:
    row = PLANTED[kind]
    row.harm(folder)
    rules, trials = found(folder)
    if row.why_unseen:
        assert not rules, f"it can be seen after all, so say so: {rules}"
        return
    assert row.expected <= rules
    if all(expected[0] == "note" for expected in row.expected):
        assert {kind for kind, _ in rules} == {"note"}
    assert trials <= {folder.name(place) for place in row.places}


@pytest.mark.parametrize("kind", PLANTED)
def test_no_damaged_record_costs_more_than_itself(folder: Folder, kind: str) -> None:
    """Of the trials that were not touched the table is as before, and their arrays are read."""
    if (folder.store.folder / RERUNS).exists():
        pytest.fail("a whole folder has none")
    before = of_sweep(folder.sweep, folder.store)
    row = PLANTED[kind]
    row.harm(folder)
    after = of_sweep(folder.sweep, folder.store)
    touched = {folder.name(place) for place in (*row.places, OK)}
    others = ~before.runs["trial"].isin(touched)
    assert len(after.runs) == 8
    columns = [name for name in before.runs if name not in MOSTLY_NONE]
    pd.testing.assert_frame_equal(after.runs.loc[others, columns], before.runs.loc[others, columns], check_dtype=False)
    for index in before.runs.index[others]:
        one, other = before.curves(int(index)), after.curves(int(index))
        assert (one is None) == (other is None)
        assert one is None or other is None or np.array_equal(one.logits, other.logits, equal_nan=True)


@pytest.mark.parametrize(
    ("axis", "why"),
    [("bias_correction: [on, off]", "bias correction"), ("epochs: [3, 4]", "number of epochs")],
)
def test_the_result_of_a_seed_is_not_told_as_that_of_another_recipe(tmp_path: Path, axis: str, why: str) -> None:
    """With arrays packed anew, so that no hash tells; with one of two facts made up the other tells."""
    text = f"task: embedded\nmodel: embedded\nlr: 1e-5\nepochs: 3\n{axis}\nseeds: 1..2\n"
    text = text.replace("epochs: 3\nepochs", "epochs")
    sweep, store = whole_store(tmp_path, [Run(300), Run(310), Run(320), Run(330)], text)
    one, _, other, _ = (trial.id for trial in expand(sweep))

    def shared() -> list[str]:
        return [row.found for row in verify.check(sweep, store).problems if row.rule == "shared result"]

    assert shared() == []
    edit(store, other, measured__weights_sha256=field_of(store, one, "measured__weights_sha256"))
    assert shared() == [f"the same weights as {one}, of another {why}"]
    edit(store, other, measured__weights_sha256="9c" * 32)
    assert shared() == []
    losses = arrays_of(store, one)["train_loss"]
    if len(arrays_of(store, other)["train_loss"]) == len(losses):  # else its length tells
        rewrite(store, other, train_loss=losses)
        assert shared() == [f"the same training losses as {one}, of another {why}"]


def test_weights_that_a_longer_training_may_share_are_no_problem(tmp_path: Path) -> None:
    """Where the best evaluation's are kept, or the steps are given, epochs need not matter."""
    for more in ("keep_best: true", "max_steps: 60"):
        text = f"task: embedded\nmodel: embedded\nlr: 1e-5\nepochs: [3, 4]\n{more}\nseeds: 1..1\n"
        sweep, store = whole_store(tmp_path / more[:4], [Run(300), Run(310)], text)
        one, other = (trial.id for trial in expand(sweep))
        edit(store, other, measured__weights_sha256=field_of(store, one, "measured__weights_sha256"))
        assert "shared result" not in {row.rule for row in verify.check(sweep, store).problems}


def test_suspicious_trials_are_trained_again_first(folder: Folder) -> None:
    folder.edit(SECOND_CELL, m_correct=321)  # a problem
    _scaled(folder, "train_loss", 9.0, slice(0, 1), OTHER)  # a note that training again settles
    folder.edit(LAST, attempts=3)  # a note that it does not
    checked = verify.check(folder.sweep, folder.store)
    suspects = verify.suspects(checked)
    assert suspects == {folder.name(SECOND_CELL), folder.name(OTHER)}
    for seed in range(20):
        assert {trial.id for trial in verify.draw(checked.repeatable, 1, seed, suspects)} < suspects
        assert [trial.id for trial in verify.draw(checked.repeatable, 2, seed, suspects)] == [
            folder.name(OTHER),
            folder.name(SECOND_CELL),
        ]  # in the plan's order
        assert suspects < {trial.id for trial in verify.draw(checked.repeatable, 3, seed, suspects)}
    others = {trial.id for seed in range(20) for trial in verify.draw(checked.repeatable, 3, seed, suspects)} - suspects
    assert len(others) == len(checked.repeatable) - 2  # the rest at random
