"""Verifying: a whole folder passes, every kind of damage is found under its rule, and nothing is changed."""

import json
import math
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import Run, sweep_of
from typer.testing import CliRunner
from whole_records import TEXT, arrays_of, edit, recording_of, rewrite, save_whole, whole_store

from harness.cli.app import app
from harness.common.errors import HarnessError
from harness.config.trials import Cell, Sweep, Trial, expand
from harness.execution import driver
from harness.execution.driver import Options
from harness.execution.rerun import RerunComparison
from harness.execution.verification import verify
from harness.records import reruns
from harness.records.record import RECORDED, Curves
from harness.records.store import Store

pytestmark = pytest.mark.usefixtures("cpu_only")

RUNS = [Run(300), Run(310), Run(200), Run(diverged=True), Run(320), Run(crashed="RuntimeError: no"), None, Run(330)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sweep, Store]:
    """Eight planned trials: five ok or at the majority, one diverged, one crashed, one missing."""
    return whole_store(tmp_path_factory.mktemp("made"), RUNS)


@pytest.fixture
def copied(made: tuple[Sweep, Store], tmp_path: Path) -> tuple[Sweep, Store]:
    """The same, to damage."""
    sweep, store = made
    shutil.copytree(store.folder, tmp_path / store.folder.name)
    return sweep, Store(tmp_path / store.folder.name)


def state(folder: Path) -> dict[str, tuple[int, bytes | None]]:
    """Every file with its time and content."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in folder.rglob("*")
    }


def said(checked: verify.Verification) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """(problems, notes), each as (file, rule); every finding is one printable line."""
    for one in (*checked.problems, *checked.notes):
        assert one.found.isprintable()
        assert 0 < len(one.found) <= 240
    problems, notes = ({(one.file, one.rule) for one in found} for found in (checked.problems, checked.notes))
    return problems, notes


# ---------------------------------------------------------------------------------------------------- a whole folder


def test_a_whole_folder_passes_and_stays_as_it_is(made: tuple[Sweep, Store]) -> None:
    sweep, store = made
    before, steps = state(store.folder), []
    checked = verify.check(sweep, store, lambda done, planned: steps.append((done, planned)))
    assert said(checked) == (set(), set())
    assert (checked.planned, checked.finished, checked.crashed, checked.missing) == (8, 6, 1, 1)
    assert [trial.id for trial in checked.repeatable] == [expand(sweep)[k].id for k in (0, 1, 2, 3, 4, 7)]
    assert steps == [(number, 8) for number in range(1, 9)]
    assert state(store.folder) == before


def test_a_recording_that_fits_is_no_finding(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, TEXT)
    store, trial = Store(tmp_path / "made"), expand(sweep)[0]
    store.save_plan(sweep)
    save_whole(store, sweep, trial, Run(300))
    recorded(store, trial.id)
    whole = store.arrays(trial.id)
    assert whole is not None
    assert whole.recording is not None
    with np.load(f"{store.trials}/{trial.id}.npz") as kept:
        assert all(np.array_equal(array, kept[f"{RECORDED}{name}"]) for name, array in vars(whole.recording).items())
    assert np.array_equal(whole.logits, store.curves(trial.id).logits)  # type: ignore[union-attr]
    assert not verify.check(sweep, store).problems


@pytest.mark.parametrize("metric", ["f1", "matthews_correlation", "pearson", "spearman"])
def test_other_metrics_are_computed_again(tmp_path: Path, metric: str) -> None:
    sweep = sweep_of(tmp_path, TEXT.replace("1..4", "1").replace("[1e-5, 2e-5]", "1e-5"))
    store, trial = Store(tmp_path / "made"), expand(sweep)[0]
    store.save_plan(sweep)
    regression = metric in ("pearson", "spearman")
    # Right are the first 300; of class 0 the first 200: precision 1/1, recall 1/2 of class 1.
    value = {"f1": 2 / 3, "matthews_correlation": math.sqrt(1 / 3)}.get(metric, 1.0)
    if regression:
        save_whole(store, sweep, trial, Run(score=1.0), metric=metric)
        changes: dict[str, object] = {}
    else:
        save_whole(store, sweep, trial, Run(300), metric=metric)
        changes = {"measured__final_score": value, "measured__best_score": value, "measured__best_step": 60}
        changes |= {"measured__majority_score": 2 / 3 if metric == "f1" else 0.0}
        scores = np.linspace(0.1, value, 3)
        rewrite(store, trial.id, dev_score=scores)
        if metric == "f1":  # no better than always answering class 1
            changes |= {"measured__outcome": "failed"}
    edit(store, trial.id, **changes)
    assert said(verify.check(sweep, store)) == (set(), set())
    whole = store.path(trial.id).read_bytes()
    for name in ("final_score", "majority_score"):
        edit(store, trial.id, **{f"measured__{name}": 0.9})
        assert "score" in {one.rule for one in verify.check(sweep, store).problems}
        store.path(trial.id).write_bytes(whole)


def test_scores_on_a_test_split_are_computed_again(made: tuple[Sweep, Store], tmp_path: Path) -> None:
    sweep, _ = made
    first, second, third, *_ = expand(sweep)
    store = Store(tmp_path)
    store.save_plan(sweep)
    logits, labels = np.eye(2, dtype=np.float32)[[0, 1, 1]], np.array([0, 1, 0])
    for trial, score, count in ((first, 2 / 3, 3), (second, 0.5, 3), (third, 2 / 3, 4)):
        save_whole(store, sweep, trial, Run(300), test_score=score, test_examples=count)
        with np.load(store.path(trial.id).with_suffix(".npz")) as arrays:
            curves = Curves(**arrays)
        rewrite(store, trial.id, **vars(replace(curves, test_logits=logits, test_labels=labels)))
    found = verify.check(sweep, store).problems
    assert [(one.trial, one.rule) for one in found] == [
        (second.id, "score"), *[(third.id, "shapes")] * 2, (third.id, "data"),
    ]  # fmt: skip
    assert "test_score is 0.5, logits and labels give 0.666" in found[0].found
    assert found[1].found == "test_logits are float32 (3, 2) for 4 test examples"


# ----------------------------------------------------------------------------------------------------------- damage

JSON, NPZ = "json", "npz"
ok, majority, diverged, crashed, missing = 0, 2, 3, 5, 6  # places in the plan


def labels_of(store: Store, name: str) -> Curves:
    found = store.curves(name)
    assert found is not None
    return found


def recorded(store: Store, name: str, **changes: np.ndarray | None) -> None:
    """Give a trial's arrays a recording that fits, with these changes."""
    curves = Curves(**arrays_of(store, name))
    rewrite(store, name, **{f"recorded_{key}": value for key, value in (vars(recording_of(curves)) | changes).items()})


DAMAGES: dict[str, tuple[int, Callable[[Store, str], object], set[tuple[str, str]]]] = {
    "cut short": (ok, lambda s, n: s.path(n).write_bytes(s.path(n).read_bytes()[:-30]), {(JSON, "record")}),
    "empty": (ok, lambda s, n: s.path(n).write_bytes(b""), {(JSON, "record")}),
    "not text": (ok, lambda s, n: s.path(n).write_bytes(b"\xff\x00\x1b[31m"), {(JSON, "record")}),
    "deep": (ok, lambda s, n: s.path(n).write_text("[" * 100_000), {(JSON, "record")}),
    "a folder": (missing, lambda s, n: s.path(n).mkdir(), {(JSON, "record")}),
    "a NaN": (ok, lambda s, n: edit(s, n, measured__final_score=math.nan), {(JSON, "record")}),
    "another schema": (ok, lambda s, n: edit(s, n, schema_version=2), {(JSON, "record")}),
    "an unknown key": (ok, lambda s, n: edit(s, n, more=1), {(JSON, "record")}),
    "no hash": (ok, lambda s, n: edit(s, n, measured__weights_sha256="0" * 65), {(JSON, "record")}),
    "another id": (ok, lambda s, n: edit(s, n, id="x\n\x1b[31m"), {(JSON, "id")}),
    "another rate": (ok, lambda s, n: edit(s, n, trial__recipe__lr=3e-5), {(JSON, "id")}),
    "another sweep": (ok, lambda s, n: edit(s, n, sweep="theirs"), {(JSON, "sweep")}),
    "another profile": (ok, lambda s, n: edit(s, n, profile="paper"), {(JSON, "profile")}),
    "finished without a result": (ok, lambda s, n: edit(s, n, measured=None), {(JSON, "status")}),
    "finished with an error": (ok, lambda s, n: edit(s, n, error="no"), {(JSON, "status")}),
    "finished nowhere": (ok, lambda s, n: edit(s, n, environment=None), {(JSON, "status")}),
    "crashed with a result": (ok, lambda s, n: edit(s, n, status="crashed", error="no"), {(JSON, "status")}),
    "crashed without an error": (crashed, lambda s, n: edit(s, n, error=None), {(JSON, "status")}),
    "crashed with arrays": (crashed, lambda s, n: edit(s, n, arrays_sha256="0" * 64), {(JSON, "status")}),
    "no arrays' hash": (ok, lambda s, n: edit(s, n, arrays_sha256=None), {(JSON, "status"), (NPZ, "arrays_sha256")}),
    "another hash": (ok, lambda s, n: edit(s, n, arrays_sha256="0" * 64), {(NPZ, "arrays_sha256")}),
    "edited score": (ok, lambda s, n: edit(s, n, measured__final_score=0.8), {(JSON, "score"), (JSON, "curves")}),
    "edited count": (ok, lambda s, n: edit(s, n, measured__correct=301), {(JSON, "score")}),
    "edited majority": (ok, lambda s, n: edit(s, n, measured__majority_correct=199), {(JSON, "score"), (JSON, "data")}),
    "unknown metric": (ok, lambda s, n: edit(s, n, measured__metric="luck"), {(JSON, "score")}),
    "a failure called ok": (
        majority, lambda s, n: edit(s, n, measured__outcome="ok", measured__reason=None), {(JSON, "outcome")},
    ),
    "ok called a failure": (ok, lambda s, n: edit(s, n, measured__outcome="failed"), {(JSON, "outcome")}),
    "ok with a reason": (ok, lambda s, n: edit(s, n, measured__reason="constant"), {(JSON, "outcome")}),
    "constant, unsaid": (majority, lambda s, n: edit(s, n, measured__reason=None), {(JSON, "outcome")}),
    "diverged, unsaid": (diverged, lambda s, n: edit(s, n, measured__reason="constant"), {(JSON, "outcome")}),
    "diverged, in words": (majority, lambda s, n: edit(s, n, measured__reason="diverged"), {(JSON, "outcome")}),
    "edited best": (ok, lambda s, n: edit(s, n, measured__best_score=0.9), {(JSON, "curves")}),
    "edited loss": (ok, lambda s, n: edit(s, n, measured__final_train_loss=0.1), {(JSON, "curves")}),
    "never diverged": (diverged, lambda s, n: edit(s, n, measured__diverged_step=None), {(JSON, "curves")}),
    "other steps": (ok, lambda s, n: edit(s, n, measured__steps=61), {(NPZ, "shapes"), (JSON, "recipe")}),
    "other examples": (
        ok, lambda s, n: edit(s, n, measured__dev_examples=401), {(NPZ, "shapes"), (JSON, "score"), (JSON, "data")},
    ),
    "a short curve": (ok, lambda s, n: rewrite(s, n, lr=np.zeros(3)), {(NPZ, "shapes")}),
    "text as a curve": (ok, lambda s, n: rewrite(s, n, lr=np.array(["a"] * 60)), {(NPZ, "shapes")}),
    "no evaluation": (ok, lambda s, n: rewrite(s, n, eval_step=np.zeros(0, np.int64)), {(NPZ, "shapes")}),
    "steps out of order": (ok, lambda s, n: rewrite(s, n, eval_step=np.array([60, 40, 20])), {(NPZ, "shapes")}),
    "labels out of range": (ok, lambda s, n: rewrite(s, n, labels=np.full(400, 2)), {(NPZ, "shapes")}),
    "an array less": (ok, lambda s, n: rewrite(s, n, lr=None), {(NPZ, "arrays")}),
    "an array more": (ok, lambda s, n: rewrite(s, n, more=np.zeros(3)), {(NPZ, "arrays")}),
    "a recording lacks": (ok, lambda s, n: recorded(s, n, cls_rank=None), {(NPZ, "arrays")}),
    "a recording's parts": (ok, lambda s, n: recorded(s, n, layers=np.array(["head"])), {(NPZ, "shapes")}),
    "a recording goes on": (ok, lambda s, n: recorded(s, n, update=np.arange(61, 91)), {(NPZ, "shapes")}),
    "a recording miscounts": (
        ok, lambda s, n: recorded(s, n, predicted=np.full((3, 2), 199, np.int32)), {(NPZ, "shapes")},
    ),
    "another order of labels": (
        ok, lambda s, n: rewrite(s, n, labels=np.roll(labels_of(s, n).labels, 7)), {(JSON, "score"), (JSON, "data")},
    ),
    "edited arrays": (
        ok, lambda s, n: rewrite(s, n, keep_hash=True, lr=np.zeros(60)), {(NPZ, "arrays_sha256"), (JSON, "recipe")},
    ),
    "no archive": (
        ok, lambda s, n: s.path(n).with_suffix(".npz").write_bytes(b"PK"), {(NPZ, "arrays_sha256"), (NPZ, "arrays")},
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_under_its_rule(copied: tuple[Sweep, Store], damage: str) -> None:
    sweep, store = copied
    place, harm, expected = DAMAGES[damage]
    name = expand(sweep)[place].id
    harm(store, name)
    before = state(store.folder)
    checked = verify.check(sweep, store)
    problems, notes = said(checked)
    assert problems == {(f"trials/{name}.{ending}", rule) for ending, rule in expected}
    assert not [note for note in notes if note[1] != "arrays left over"]
    assert {one.trial for one in checked.problems} == {name}
    assert checked.finished + checked.crashed + checked.missing + checked.unreadable == 8
    counts = driver.ended(sweep, store)
    assert (checked.finished, checked.crashed, checked.unreadable) == (
        counts.finished, counts.crashed, counts.unreadable,
    )  # fmt: skip
    assert state(store.folder) == before


class Trap:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_pickles_are_found_and_not_run(copied: tuple[Sweep, Store], tmp_path: Path) -> None:
    sweep, store = copied
    names, trap = [trial.id for trial in expand(sweep)], Trap(tmp_path / "ran")
    rewrite(store, names[0], lr=np.array([trap], dtype=object))
    store.path(names[1]).with_suffix(".npz").write_bytes(pickle.dumps(trap))
    edit(store, names[1], arrays_sha256=store.arrays_sha256(names[1]))
    checked = verify.check(sweep, store)
    assert said(checked)[0] == {(f"trials/{name}.npz", "arrays") for name in names[:2]}
    assert "allow_pickle=False" in checked.problems[0].found
    assert not trap.path.exists()


@given(st.data())
def test_any_flipped_bit_of_the_arrays_and_any_cut_of_a_record_is_found(
    made: tuple[Sweep, Store], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    sweep, whole = made
    store, trial = Store(tmp_path_factory.mktemp("flip")), expand(sweep)[0]
    shutil.copy(whole.folder / "plan.json", store.folder)
    store.trials.mkdir()
    path = store.path(trial.id)
    text = whole.path(trial.id).read_bytes()
    content = bytearray(whole.path(trial.id).with_suffix(".npz").read_bytes())
    place = data.draw(st.integers(0, len(content) - 1) | st.integers(len(content) - 700, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    path.with_suffix(".npz").write_bytes(content)
    path.write_bytes(text)
    assert (f"trials/{trial.id}.npz", "arrays_sha256") in said(verify.check(sweep, store))[0]
    path.write_bytes(text[: data.draw(st.integers(0, len(text) - 3))])
    assert said(verify.check(sweep, store))[0] == {(f"trials/{path.name}", "record")}


def test_a_record_copied_under_another_id_is_found(copied: tuple[Sweep, Store]) -> None:
    sweep, store = copied
    one, other = (store.path(expand(sweep)[place].id) for place in (ok, missing))
    for ending in (".json", ".npz"):
        shutil.copy(one.with_suffix(ending), other.with_suffix(ending))
    checked = verify.check(sweep, store)
    assert said(checked)[0] == {(f"trials/{other.name}", "id")}
    assert (checked.finished, checked.missing, checked.unreadable) == (6, 0, 1)


def test_without_arrays_the_record_is_held_against_itself(copied: tuple[Sweep, Store]) -> None:
    sweep, store = copied
    names = [trial.id for trial in expand(sweep)]
    for path in store.trials.glob("*.npz"):
        path.unlink()
    finished = [names[k] for k in (0, 1, 2, 3, 4, 7)]
    absent = {(f"trials/{name}.npz", "arrays missing") for name in finished}
    assert said(verify.check(sweep, store)) == (set(), absent)
    for changes, rule in (
        ({"measured__final_score": 0.8}, "score"), ({"measured__correct": 301}, "score"),
        ({"measured__correct": None}, "score"), ({"measured__correct": 500}, "record"),
        ({"measured__correct": 200, "measured__final_score": 0.5}, "outcome"),
        ({"measured__outcome": "failed"}, "outcome"), ({"measured__final_score": None}, "score"),
    ):  # fmt: skip
        before = store.path(names[0]).read_bytes()
        edit(store, names[0], **changes)
        problems, notes = said(verify.check(sweep, store))
        assert (f"trials/{names[0]}.json", rule) in problems
        assert {file for file, _ in problems} == {f"trials/{names[0]}.json"}
        assert notes == (absent if rule != "record" else absent - {(f"trials/{names[0]}.npz", "arrays missing")})
        store.path(names[0]).write_bytes(before)


@pytest.mark.parametrize("rule", ["data_sha256", "model_sha256"])
def test_mixed_data_and_weights_are_found(copied: tuple[Sweep, Store], rule: str) -> None:
    sweep, store = copied
    name = expand(sweep)[0].id
    edit(store, name, **{f"measured__{rule}": "d" * 64})
    checked = verify.check(sweep, store)
    assert said(checked)[0] == {(f"trials/{name}.json", rule)}
    assert "dddddddddddd… for 'embedded', where 5 trials have" in checked.problems[0].found


def test_what_no_planned_trial_owns_is_noted(copied: tuple[Sweep, Store]) -> None:
    sweep, store = copied
    names = [trial.id for trial in expand(sweep)]
    one = names[0]
    for file in (
        f".{one}.json.77.tmp", f"{one}.unreadable", f"{one}.attempt1.json", "stranger.json", "notes\n.txt",
        f"{names[missing]}.npz", f"{names[crashed]}.npz", "gone.attempt1.json",
    ):  # fmt: skip
        (store.trials / file).write_bytes(b"")
    (store.trials / "folder").mkdir()
    (store.folder / ".plan.json.77.tmp").write_bytes(b"")
    problems, notes = said(verify.check(sweep, store))
    assert problems == {("trials/stranger.json", "foreign trial")}
    assert notes == {
        (".plan.json.77.tmp", "half-written"), (f"trials/.{one}.json.77.tmp", "half-written"),
        (f"trials/{one}.unreadable", "unreadable"), (f"trials/{one}.attempt1.json", "set aside"),
        (f"trials/{one}.json", "attempts"), ("trials/notes .txt", "stranger"),
        ("trials/gone.attempt1.json", "stranger"), ("trials/folder", "stranger"),
        (f"trials/{names[missing]}.npz", "arrays left over"), (f"trials/{names[crashed]}.npz", "arrays left over"),
    }  # fmt: skip
    edit(store, one, attempts=2)
    assert (f"trials/{one}.json", "attempts") not in said(verify.check(sweep, store))[1]


def test_a_damaged_plan_is_found(copied: tuple[Sweep, Store]) -> None:
    sweep, store = copied
    path = store.folder / "plan.json"
    whole = json.loads(path.read_text())
    bare = {key: value for key, value in whole["sweep"].items() if key != "cells"}
    for content in (
        "", "{}", "[]", "[" * 100_000, json.dumps(whole | {"schema_version": 9}), json.dumps(whole | {"trials": 3}),
        json.dumps(whole | {"trials": whole["trials"][1:]}), json.dumps(whole | {"trials": whole["trials"][::-1]}),
        json.dumps(whole | {"sweep": bare}), json.dumps(whole | {"sweep": {**whole["sweep"], "more": 1}}),
    ):  # fmt: skip
        path.write_text(content)
        assert said(verify.check(sweep, store))[0] == {("plan.json", "plan")}, content[:80]
    path.unlink()
    assert said(verify.check(sweep, store))[0] == {("plan.json", "plan")}
    with pytest.raises(HarnessError, match="there is no results folder"):
        verify.check(sweep, Store(store.folder / "absent"))


# ------------------------------------------------------------------------------------------------------ trained again


@given(st.integers(0, 8), st.integers(1, 12), st.integers(0, 2**32))
def test_a_draw_is_repeated_by_its_seed(made: tuple[Sweep, Store], there: int, count: int, seed: int) -> None:
    trials = expand(made[0])[:there]
    drawn = verify.draw(trials, count, seed)
    assert len({trial.id for trial in drawn}) == len(drawn) == min(there, count)
    assert list(drawn) == [trial for trial in trials if trial in drawn]
    assert drawn == verify.draw(trials, count, seed)


@pytest.fixture(scope="module")
def trained(trial: Callable[..., Trial], tmp_path_factory: pytest.TempPathFactory) -> tuple[Sweep, Store]:
    """A sweep of two rates and two seeds, really trained."""
    cells = tuple(Cell(axes=(("lr", lr),), recipe=trial(lr=lr, epochs=1).recipe) for lr in (1e-3, 1e-2))
    seeds = (trial(1).seeds, trial(2).seeds)
    sweep = Sweep(name="tiny", profile="default", title="Tiny", cells=cells, seeds=seeds)
    store = Store(tmp_path_factory.mktemp("trained") / sweep.folder_name)
    driver.run(sweep, store, Options(in_process=True), lambda progress: None)
    return sweep, store


def command(*words: object, code: int = 0) -> str:
    """What a command prints, its exit code held; the line of an error is on standard error."""
    result = CliRunner().invoke(app, ["verify", *map(str, words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.stdout if code < 2 else result.stderr


def of_json(*words: object, code: int = 0) -> dict[str, object]:
    def refuse(constant: str) -> object:
        raise ValueError(constant)

    found = json.loads(command(*words, "--json", code=code), parse_constant=refuse)
    assert isinstance(found, dict)
    return found


def test_a_trained_sweep_is_whole_and_trains_again_identically(trained: tuple[Sweep, Store]) -> None:
    sweep, store = trained
    before = state(store.folder)
    checked = verify.check(sweep, store)
    assert said(checked) == (set(), set())
    steps: list[tuple[int, int]] = []
    found = verify.retrain(sweep, store, checked.repeatable[1], 1e-3, lambda step, of: steps.append((step, of)))
    assert isinstance(found, RerunComparison)
    assert found.verdict == "identical"
    assert steps[-1][0] == steps[-1][1]
    assert state(store.folder) == before


def test_the_command_retrains_what_its_seed_draws(trained: tuple[Sweep, Store]) -> None:
    sweep, store = trained
    folder, ids = store.folder, [trial.id for trial in expand(sweep)]
    before = state(folder)
    assert of_json(folder) == {
        "sweep": "tiny", "profile": "default", "planned": 4, "finished": 4, "crashed": 0, "missing": 0,
        "unreadable": 0, "problems": [], "notes": [], "retrained": [], "seed": None,
    }  # fmt: skip
    found = of_json(folder, "--retrain", 99, "--seed", 3)
    same = {"verdict": "identical", "max_difference": 0.0, "first_differing_step": None, "reasons": []}
    assert found["retrained"] == [{"trial": name} | same for name in ids]
    assert found["seed"] == 3
    text = command(folder, "--retrain", 2)
    seed = text.split("(--seed ")[1].split(")")[0]
    assert f"Retrained 2 (--seed {seed}): 2 identical, 0 within tolerance, 0 different." in text
    drawn = [name for name in ids if name in text]
    assert len(drawn) == 2
    again = of_json(folder, "--retrain", 2, "--seed", seed)["retrained"]
    assert isinstance(again, list)
    assert [one["trial"] for one in again] == drawn
    after = state(folder)
    del after[reruns.NAME]
    assert after == before
    assert [(one.kind, one.verdict) for one in reruns.load(folder)] == [("verify", "identical")] * 8


def test_tampered_weights_are_found_by_training_again(
    trained: tuple[Sweep, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, whole = trained
    store = Store(tmp_path / whole.folder.name)
    shutil.copytree(whole.folder, store.folder)
    name = expand(sweep)[0].id
    edit(store, name, measured__weights_sha256="f" * 64)
    assert "problems" in command(store.folder)  # nothing to see without training
    found = of_json(store.folder, "--retrain", 4, "--seed", 0, code=1)
    assert isinstance(found["retrained"], list)
    assert [one["verdict"] for one in found["retrained"]] == ["different", *["identical"] * 3]
    said = command(store.folder, "--retrain", 4, "--seed", 0, code=1)
    assert "Retrained 4 (--seed 0): 3 identical, 0 within tolerance, 1 different." in said
    assert f"different: {name}: largest difference not known; probable reason: nothing in the records" in said

    def crash(*_: object) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr("harness.execution.rerun.train_pack", crash)
    found = of_json(store.folder, "--retrain", 1, "--seed", 1, code=1)
    assert isinstance(found["problems"], list)
    assert [one["rule"] for one in found["problems"]] == ["retrain"]
    assert "RuntimeError: no such kernel" in found["problems"][0]["found"]
    assert "1 could not be trained" in command(store.folder, "--retrain", 1, "--seed", 1, code=1)


# ------------------------------------------------------------------------------------------------------- the command


def test_the_command_prints_counts_and_findings(
    copied: tuple[Sweep, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, store = copied
    one = expand(sweep)[0].id
    monkeypatch.chdir(tmp_path)
    assert "8 planned trials." in command(store.folder)
    for number in range(12):
        (store.trials / f"[bold]{number}").touch()
    edit(store, one, measured__final_score=0.8)
    said = command(store.folder, code=1).splitlines()
    assert said[1].split() == ["records", "finished", "crashed", "missing", "unreadable", "problems", "notes"]
    assert said[2].split() == ["7", "6", "1", "1", "0", "2", "12"]
    assert said[3] == f"problem: trials/{one}.json: score: final_score is 0.8, logits and labels give 0.75"
    assert said[5] == "note: trials/[bold]0: stranger: no planned trial owns it"
    assert said[-1] == "note: stranger: 2 more, which --json lists"
    found = of_json(store.folder, code=1)
    assert isinstance(found["notes"], list)
    assert isinstance(found["problems"], list)
    assert len(found["notes"]) == 12
    assert found["problems"][0] == {
        "trial": one, "file": f"trials/{one}.json", "rule": "score",
        "found": "final_score is 0.8, logits and labels give 0.75",
    }  # fmt: skip


def test_a_sweep_is_named_as_for_the_other_commands(
    copied: tuple[Sweep, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, store = copied
    monkeypatch.chdir(tmp_path)
    sweep_of(tmp_path / "sweeps", TEXT)
    (tmp_path / "results").mkdir()
    store.folder.rename(tmp_path / "results" / store.folder.name)
    folder = tmp_path / "results" / store.folder.name
    for words in (("made",), ("made", "--profile", "default"), ("sweeps/made.yaml",), (folder,)):
        assert of_json(*words)["finished"] == 6
    (folder / "plan.json").write_text("{}")  # the sweep's file still says what was planned; a folder alone does not
    for words in (("made",), ("made", "--profile", "default")):
        problems = of_json(*words, code=1)["problems"]
        assert isinstance(problems, list)
        assert [one["rule"] for one in problems] == ["plan"]
    assert "plan.json: not the plan of a sweep" in command(folder, code=2)
    (folder / "plan.json").unlink()
    assert of_json("made", code=1)["finished"] == 6
    shutil.rmtree(folder)
    assert "there is no results folder" in command("made", code=2)
    assert "--retrain" in command("made", "--seed", 1, code=2)
    assert "--retrain" in command("made", "--retrain", 0, code=2)
    assert "unknown sweep 'absent'" in command("absent", code=2)
