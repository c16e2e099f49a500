"""What was planted in records of answers in a context, choices, completions and labels, and what `verify` says of each.

Three seeds of one recipe are trained a kind, in seconds, so that the records are what the engine writes.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from choice_tasks import choice_task
from choice_tasks import rows as choice_rows
from language_models import completion_task, write_decoder
from language_models import rows as completion_rows
from span_tasks import span_task
from whole_records import arrays_of, edit, field_of, rewrite

from harness.config.recipe import ModelSpec, TaskFiles, TaskSpec
from harness.config.sweep_file import load
from harness.config.trials import Sweep, expand
from harness.execution import driver
from harness.execution.verification import verify
from harness.records.store import Store


@dataclass(frozen=True)
class Folder:
    """The copy that is damaged; what is done is done to the first of three trials."""

    sweep: Sweep
    store: Store

    @property
    def names(self) -> list[str]:
        """The ids of the three trials."""
        return [trial.id for trial in expand(self.sweep)]

    def edit(self, **fields: object) -> None:
        """Change fields of the first trial's result."""
        edit(self.store, self.names[0], **{f"measured__{name}": value for name, value in fields.items()})

    def field(self, name: str) -> object:
        """A field of the first trial's result."""
        return field_of(self.store, self.names[0], f"measured__{name}")

    def arrays(self, place: int = 0) -> dict[str, np.ndarray]:
        """The arrays of a trial."""
        return arrays_of(self.store, self.names[place])

    def rewrite(self, **arrays: np.ndarray | None) -> None:
        """Change arrays of the first trial, and the hash in its record with them."""
        rewrite(self.store, self.names[0], **arrays)


Harm = Callable[[Folder], object]


def _labels_task(folder: Path) -> TaskSpec:
    draw, names = random.Random(3), ("blue", "new", "red")
    folder.mkdir(parents=True)
    for split, count in (("train", 40), ("dev", 20), ("test", 10)):
        rows = []
        for _ in range(count):
            labels = [name for name in names if draw.random() < 0.4]
            rows.append(json.dumps({"text": " ".join([*labels, *draw.choices("abcdefgh", k=3)]), "labels": labels}))
        (folder / f"{split}.jsonl").write_text("\n".join(rows) + "\n")
    files = TaskFiles(train=str(folder), validation=str(folder), test=str(folder))
    return TaskSpec(name="topics", kind="labels", label="labels", files=files, threshold="dev")


def _made(folder: Path, kind: str, bert: ModelSpec) -> tuple[TaskSpec, ModelSpec, dict[str, object]]:
    """Data, model and recipe of a kind."""
    if kind == "span":
        return span_task(folder / "data"), bert, {"max_length": 10, "lr": 5e-3}
    if kind == "choice":
        dev = [row | {"label": (row["label"] + (place % 4 == 0)) % 3} for place, row in enumerate(choice_rows(20, 2))]
        return choice_task(folder / "data", choice_rows(40, 1), dev), bert, {}
    if kind == "labels":
        return _labels_task(folder / "data"), bert, {"lr": 2e-2}
    decoder = write_decoder(folder / "decoder", "gpt2")
    if kind == "completion":
        return completion_task(folder / "data", completion_rows(24, 1), completion_rows(10, 2)), decoder, {}
    rows = [completion_rows(count, seed, choices=True) for count, seed in ((24, 1), (11, 2))]
    return completion_task(folder / "data", *rows, metric="accuracy"), decoder, {"lr": 3e-2, "epochs": 4}


KINDS = ("span", "choice", "labels", "completion", "compared")


@pytest.fixture(scope="module")
def trained(bert: ModelSpec, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Sweep, Store]]:
    """Three trained trials of a kind, the first time that it is named."""
    made: dict[str, tuple[Sweep, Store]] = {}

    def of(kind: str) -> tuple[Sweep, Store]:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            task, model, fields = _made(folder, kind, bert)
            spec = {"task": task.model_dump(exclude_none=True), "model": model.model_dump(exclude_none=True)}
            spec |= {"lr": 1e-2, "epochs": 2, "batch_size": 8, "seeds": "1..3"} | fields
            (folder / "mine.yaml").write_text(json.dumps(spec))
            sweep = load(folder / "mine.yaml")
            store = Store(folder / "results" / sweep.folder_name)
            driver.run(sweep, store, driver.Options(in_process=True, pack=3), lambda progress: None)
            made[kind] = sweep, store
        return made[kind]

    return of


def _moved(f: Folder, name: str, place: tuple[int, ...], value: float) -> None:
    """Change one number of an array."""
    array = f.arrays()[name].copy()
    array[place] = value
    f.rewrite(**{name: array})


def _swap_rows(f: Folder) -> None:
    """The answers to two questions, of which one is right and the other is not."""
    arrays = f.arrays()
    logits, right = arrays["logits"].copy(), arrays["logits"].argmax(axis=1) == arrays["labels"]
    # Swapped they are both wrong, or one more is right: whichever pair of rows changes the count is taken.
    for one in np.flatnonzero(right):
        for other in np.flatnonzero(~right):
            swapped = logits.copy()
            swapped[[one, other]] = swapped[[other, one]]
            if (swapped.argmax(axis=1) == arrays["labels"]).sum() != right.sum():
                f.rewrite(logits=swapped)
                return
    pytest.fail("no pair of answers changes the count")


def _cut(f: Folder, name: str, rows: int) -> None:
    f.rewrite(**{name: f.arrays()[name][:rows]})


def _take_arrays(f: Folder) -> None:
    """The arrays of another seed, with their hash."""
    one, other = (f.store.path(name).with_suffix(".npz") for name in f.names[:2])
    shutil.copy(other, one)
    edit(f.store, f.names[0], arrays_sha256=f.store.arrays_sha256(f.names[0]))


def _add(f: Folder, name: str, amount: float) -> None:
    """Edit a number of the result."""
    value = f.field(name)
    assert isinstance(value, int | float)
    f.edit(**{name: value + amount})


def _scale(f: Folder, name: str, column: int, factor: float) -> None:
    array = f.arrays()[name].copy()
    array[:, column] *= factor
    f.rewrite(**{name: array})


def added(name: str, amount: float) -> Harm:
    """A number of the result that is edited."""
    return partial(_add, name=name, amount=amount)


EVERY: dict[str, tuple[Harm, set[str]]] = {
    "a better score": (added("final_score", 0.07), {"score"}),
    "a best score": (added("best_score", 0.07), {"curves"}),
    "a lower dev loss": (added("final_dev_loss", -0.2), {"score", "curves"}),
    "what the score is held against": (added("majority_score", 0.05), {"score", "data"}),
    "answers of 7 examples": (partial(_cut, name="logits", rows=7), {"shapes"}),
    "labels of 3 examples": (partial(_cut, name="labels", rows=3), {"shapes"}),
    "another's arrays": (_take_arrays, {"arrays of another"}),
    "another entropy": (added("label_entropy", 0.01), {"data"}),
    "the outcome": (lambda f: f.edit(outcome="ok" if f.field("outcome") == "failed" else "failed"), {"outcome"}),
}  # fmt: skip
OWN: dict[str, dict[str, tuple[Harm, set[str]]]] = {
    "span": {
        "an F1 beyond 1": (partial(_moved, name="logits", place=(0, 2), value=1.5), {"shapes"}),
        "an exact match that is none": (partial(_moved, name="logits", place=(0, 1), value=0.5), {"score"}),
        "an exact match without its F1": (partial(_scale, name="logits", column=2, factor=0.0), {"score"}),
        "an answer's F1": (partial(_scale, name="logits", column=2, factor=0.5), {"shapes", "score"}),
        "an answer's loss": (partial(_scale, name="logits", column=0, factor=0.5), {"score"}),
        "a negative loss": (partial(_scale, name="logits", column=0, factor=-1.0), {"score"}),
        "a sure answer": (partial(_moved, name="logits", place=(0, 3), value=-0.1), {"shapes"}),
        "what a constant answer scores": (partial(_moved, name="labels", place=(0,), value=0.37), {"score", "data"}),
    },
    "choice": {
        "swapped answers": (_swap_rows, {"score"}),
        "a fourth choice": (partial(_moved, name="labels", place=(0,), value=3), {"shapes"}),
        "another right choice": (lambda f: f.rewrite(labels=(f.arrays()["labels"] + 1) % 3), {"score", "data"}),
        "a count": (added("correct", 1), {"score"}),
        "the majority's count": (added("majority_correct", 1), {"score", "data"}),
    },
    "labels": {
        "swapped answers": (lambda f: f.rewrite(logits=np.roll(f.arrays()["logits"], 1, axis=0)), {"score"}),
        "another threshold": (lambda f: f.edit(label_threshold=0.37), {"score"}),
        "answers that count other texts": (partial(_moved, name="sentences", place=(0,), value=2), {"shapes"}),
        "texts of other numbers of labels": (
            lambda f: f.rewrite(sentences=np.array([2, 4, *f.arrays()["sentences"][2:]])), {"shapes"},
        ),
        "a test score": (added("test_score", 0.05), {"score"}),
        "answers on the test split": (partial(_cut, name="test_logits", rows=3), {"shapes"}),
    },
    "completion": {
        "a likelihood": (partial(_scale, name="logits", column=0, factor=0.5), {"score"}),
        "an answer of no token": (partial(_moved, name="labels", place=(0,), value=0.0), {"shapes"}),
        "an answer of more tokens": (partial(_moved, name="labels", place=(0,), value=9.0), {"score", "data"}),
        "more likeliest tokens than there are": (partial(_moved, name="logits", place=(0, 1), value=99.0), {"score"}),
        "the untouched model's score": (added("untouched_score", 0.2), {"score", "data"}),
        "the untouched model's loss": (added("untouched_loss", 0.2), {"score", "data"}),
        "the untouched model, told everywhere in the record": (
            lambda f: [added(name, 0.2)(f) for name in ("untouched_score", "untouched_loss", "majority_score")],
            {"data"},
        ),
        "no untouched model": (lambda f: f.edit(untouched_score=None), {"score"}),
    },
    "compared": {
        "swapped choices": (lambda f: f.rewrite(logits=f.arrays()["logits"][:, ::-1]), {"score"}),
        "the untouched model's score": (added("untouched_score", 0.1), {"data"}),
        "an untouched model that beats what is to be beaten": (lambda f: f.edit(untouched_score=1.0), {"score"}),
    },
}  # fmt: skip
PLANTED = [(kind, name) for kind in KINDS for name in (*EVERY, *OWN[kind])]
NOT_OF = {  # no such number
    ("completion", "another entropy"), ("compared", "a lower dev loss"),
}  # fmt: skip
UNSEEN: dict[str, dict[str, tuple[Harm, str]]] = {
    "span": {
        "swapped answers": (
            lambda f: f.rewrite(logits=f.arrays()["logits"][::-1]), "which question an answer is of stands once",
        ),
        "places": (partial(_scale, name="logits", column=4, factor=0.0), "the texts are not kept beside the answers"),
    },
    "completion": {
        "swapped answers": (
            lambda f: f.rewrite(logits=np.concatenate([f.arrays()["logits"][1::-1], f.arrays()["logits"][2:]])),
            "of answers of as many tokens",
        ),
    },
}  # fmt: skip


@pytest.fixture
def copied(trained: Callable[[str], tuple[Sweep, Store]], tmp_path: Path) -> Callable[[str], Folder]:
    """A copy of a kind's folder, to damage."""

    def of(kind: str) -> Folder:
        sweep, store = trained(kind)
        shutil.copytree(store.folder, tmp_path / store.folder.name)
        return Folder(sweep, Store(tmp_path / store.folder.name))

    return of


def found(folder: Folder) -> tuple[set[str], set[str | None]]:
    """Rules of problems, and the trials that are named."""
    checked = verify.check(folder.sweep, folder.store)
    assert all(one.found.isprintable() for one in checked.problems)
    return {one.rule for one in checked.problems}, {one.trial for one in checked.problems if one.trial is not None}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_found_where_everything_fits(copied: Callable[[str], Folder], kind: str) -> None:
    folder = copied(kind)
    assert folder.field("outcome") in ("ok", "failed")
    assert found(folder) == (set(), set())


@pytest.mark.parametrize(("kind", "name"), [row for row in PLANTED if row not in NOT_OF])
def test_what_is_planted_is_told_of_its_trial(copied: Callable[[str], Folder], kind: str, name: str) -> None:
    folder = copied(kind)
    harm, rules = (EVERY | OWN[kind])[name]
    harm(folder)
    problems, named = found(folder)
    assert rules & problems, problems
    assert named <= {*folder.names[:2]} if "arrays of another" in problems else named == {folder.names[0]}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in UNSEEN for name in UNSEEN[kind]])
def test_what_cannot_be_seen(copied: Callable[[str], Folder], kind: str, name: str) -> None:
    folder = copied(kind)
    UNSEEN[kind][name][0](folder)
    assert found(folder) == (set(), set()), UNSEEN[kind][name][1]


def test_each_untouched_model_scores_what_it_does(tmp_path: Path) -> None:
    """Two models on one task: what each run had to beat is the model's, and no contradiction."""
    task = completion_task(tmp_path / "data", completion_rows(8, 1), completion_rows(6, 2))
    models = [write_decoder(tmp_path / kind, kind).model_dump(exclude_none=True) for kind in ("gpt2", "llama")]
    spec = {"task": task.model_dump(exclude_none=True), "model": models, "seeds": "1..2"}
    (tmp_path / "mine.yaml").write_text(json.dumps(spec | {"lr": 1e-3, "epochs": 1, "batch_size": 8}))
    sweep = load(tmp_path / "mine.yaml")
    store = Store(tmp_path / "results" / sweep.folder_name)
    driver.run(sweep, store, driver.Options(in_process=True, pack=2), lambda progress: None)
    folder = Folder(sweep, store)
    assert found(folder) == (set(), set())
    levels = {field_of(store, name, "measured__untouched_score") for name in folder.names}
    assert len(levels) == 2
