import json
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from diagnosed_runs import RUNS as DIAGNOSED
from diagnosed_runs import TEXT as DIAGNOSED_TEXT
from made_runs import HEAD, MOSBACH, MOSBACH_RUNS, Run, import_of, imported_runs, store_of, study_of, sweep_of

from harness.analysis.analyze import analyse
from harness.common.errors import HarnessError
from harness.config.trials import expand
from harness.records.frame import frame
from harness.records.imported import is_imported, of_import, save_imported
from harness.records.record import Environment, Measured
from harness.records.study import SOURCE, Imported, StudyCell, columns, joined, of_sweep

ODD = (("method", "<b>|$x$|</b>"), ("k", None), ("on", True)), (("method", "=1+1"), ("k", 2.5), ("on", False))


# ------------------------------------------------------------------------------------------------------------ sweeps


def test_a_sweep_is_one_row_a_planned_trial(tmp_path):
    sweep = sweep_of(tmp_path, MOSBACH)
    store = store_of(tmp_path, sweep, MOSBACH_RUNS)
    study = of_sweep(sweep, store)
    assert (study.name, study.title, study.profile) == ("made@default", "Bias correction and rate", "default")
    assert study.stand_in == "embedded stand-in, not BERT on RTE"
    assert study.axes == ("lr", "bias_correction", "epochs")
    assert study.values("epochs") == [3, 10]
    assert [cell.label for cell in study.cells] == [cell.label for cell in sweep.cells]
    assert list(study.runs["trial"]) == [trial.id for trial in expand(sweep)]
    known = frame(sweep, store)
    pd.testing.assert_frame_equal(study.runs[list(known)].astype(known.dtypes), known)
    assert set(columns()) | set(study.axes) == set(study.runs)
    assert study.runs["test_score"].isna().all()
    assert (study.higher_is_better, study.unreadable, study.sweeps, study.imports) == (True, 0, (sweep,), ())


def test_the_commands_and_the_curves_of_a_sweep(tmp_path):
    sweep = sweep_of(tmp_path, MOSBACH)
    store = store_of(tmp_path, sweep, MOSBACH_RUNS)
    study, trials = of_sweep(sweep, store), expand(sweep)
    assert study.runs["command"][5] == f"harness rerun made --profile default --trial {trials[5].id}"
    assert of_sweep(sweep, store, "make rerun").runs["command"][5] == f"make rerun --trial {trials[5].id}"
    first = study.curves(0)
    assert first is not None
    assert (first.logits.argmax(axis=1) == first.labels).sum() == 310
    assert study.curves(19) is None  # crashed
    assert [study.runs["status"][row] for row in (19, 20)] == ["crashed", "missing"]


def test_arrays_are_read_once_and_within_a_limit(tmp_path):
    study = study_of(tmp_path, DIAGNOSED_TEXT, DIAGNOSED)
    opened: Counter[int] = Counter()

    def load(row):
        opened[row] += 1
        return study.load(row)

    counted = replace(study, load=load)
    found = analyse(counted).diagnosis
    assert found.recorded == (study.runs["status"] == "finished").sum() > 0
    assert set(opened.values()) == {1}  # by the answers and the diagnosis
    opened.clear()
    one = sum(array.nbytes for array in study.load(0).arrays.values())
    little = counted.read_once(one + 1)
    for _ in range(2):
        for row in range(3):
            assert little.curves(row).recording is not None
    assert [opened[row] for row in range(3)] == [1, 1, 2]  # two pass the limit, what comes then is not kept


def test_values_of_a_sweeps_axes_stay_as_written(tmp_path):
    study = study_of(tmp_path, HEAD + "lr: 1e-5\nepochs: 3\nmax_grad_norm: [1.0, null]\nseeds: 1\n", {})
    assert study.runs["max_grad_norm"].tolist() == [1.0, None]


def test_a_study_without_axes_has_one_cell(tmp_path):
    study = study_of(tmp_path, HEAD + "lr: 1e-5\nepochs: 3\nseeds: 1\n", {})
    assert (study.axes, study.cells) == ((), (StudyCell(()),))
    assert study.cells[0].label == "the only recipe"
    assert list(study.runs["status"]) == ["missing"]


def test_records_that_cannot_be_read_are_counted(tmp_path):
    sweep = sweep_of(tmp_path, HEAD + "lr: 1e-5\nepochs: 3\nseeds: 1..3\n")
    store = store_of(tmp_path, sweep, {0: [Run(300)] * 3})
    store.path(expand(sweep)[1].id).write_text("{")
    study = of_sweep(sweep, store)
    assert study.unreadable == 1
    assert list(study.runs["status"]) == ["finished", "unreadable", "finished"]
    assert [file.trial for file in study.set_aside.files] == [expand(sweep)[1].id]


# ------------------------------------------------------------------------------------------------------------ imports


def test_an_import_comes_back_as_it_was_saved(tmp_path):
    rows = imported_runs([0.5, None, 1 / 3], correct=[150, 0, 100], dev_examples=[300, 0, 300])
    rows += imported_runs([0.25], 1, outcome=["failed"], test_score=[0.125])
    assert not is_imported(tmp_path / "theirs")
    study = import_of(tmp_path, ODD, rows)
    assert is_imported(tmp_path / "theirs")
    assert [cell.axes for cell in study.cells] == list(ODD)
    assert study.axes == ("method", "k", "on")
    assert study.values("k") == [None, 2.5]
    assert [list(study.runs[axis]) for axis in study.axes] == [
        ["<b>|$x$|</b>"] * 3 + ["=1+1"], [None] * 3 + [2.5], [True] * 3 + [False],
    ]  # fmt: skip
    assert set(study.runs) == {*columns(), "method", "k", "on"}
    assert list(study.runs["status"]) == ["finished", "missing", "finished", "finished"]
    assert study.runs["final_score"][2] == 1 / 3  # to the last bit
    assert list(study.runs["outcome"]) == [None, None, None, "failed"]
    assert list(study.runs["metric"]) == ["acc", None, "acc", "acc"]
    assert study.runs["command"].isna().all()
    assert study.runs["test_score"].dropna().tolist() == [0.125]
    assert (study.notes, study.sweeps, study.profile, study.unreadable) == (("Read by hand.",), (), None, 0)
    assert study.imports[0].files == (("theirs.csv", "0123456789abcdef" * 4),)
    assert study.curves(0) is None


@pytest.mark.parametrize("text", ["NA", "nan", "null", "None", "007", "true", "1e5", " x ", "=1+1", "“ü”, 😀", "א"])
def test_texts_stay_texts(tmp_path, text):
    rows = imported_runs([0.5, 0.6], error=[text, None])
    rows[0] |= {"status": "crashed", "trial": text}
    study = import_of(tmp_path, [(("method", text),)], rows)
    assert study.runs["error"].tolist() == [text, None]
    assert study.runs["trial"][0] == text
    assert study.values("method") == [text]


def test_an_import_without_axes(tmp_path):
    study = import_of(tmp_path, [()], imported_runs([0.5, 0.6]))
    assert study.axes == ()
    assert study.runs["final_score"].tolist() == [0.5, 0.6]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("imported.json", None), ("imported.json", b""), ("imported.json", b"{}"), ("imported.json", b"\xff\xfe"),
        ("imported.json", b'{"schema_version": 2}'), ("imported.json", b"[" * 100_000), ("runs.csv", None),
        ("runs.csv", b""), ("runs.csv", b"\xff\xfe\x00"), ("runs.csv", b"\x1f\x8b nonsense"),
        ("runs.csv", b"trial\nno cell\n"), ("runs.csv", b"cell,status\n7,finished\n"),
        ("runs.csv", b"cell,status\n-1,finished\n"), ("runs.csv", b"cell,status\nx,finished\n"),
        ("runs.csv", b"cell,status\n,finished\n"), ("runs.csv", b"cell,status\n0.5,finished\n"),
        ("runs.csv", b"cell,status,final_score\n0,finished,high\n"), ("runs.csv", b"cell,status\n"),
        ("runs.csv", b'cell,status\n0,"fin\n'),
    ],
)  # fmt: skip
def test_a_damaged_import_is_one_line(tmp_path, name, content):
    import_of(tmp_path, [(("k", 1),), (("k", 2),)], [*imported_runs([0.5]), *imported_runs([0.6], 1)])
    path = tmp_path / "theirs" / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(HarnessError) as caught:
        of_import(tmp_path / "theirs")
    said = str(caught.value)
    assert "cannot read the imported runs in " in said
    assert "\n" not in said
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "odd",
    [
        {"score_ends": np.array([1.0, 2.0])}, {"loss_ends": np.array(2)}, {"loss_ends": np.array([2, 1])},
        {"loss_steps": np.array([1.0, np.inf])}, {"score_steps": np.array([np.nan, 1.0])},
        {"score_steps": np.array(["a", "b"])}, {"score_values": np.ones((2, 2))}, {"loss_values": np.array(["a", "b"])},
    ],
)  # fmt: skip
def test_damaged_curves_of_an_import_are_one_line(tmp_path, odd):
    import_of(tmp_path, [()], imported_runs([0.5, 0.6]))
    arrays = {f"{name}_ends": np.array([1, 2]) for name in ("score", "loss")}
    arrays |= {f"{name}_{part}": np.ones(2) for name in ("score", "loss") for part in ("steps", "values")}
    np.savez(tmp_path / "theirs" / "curves.npz", **arrays)
    kept = tmp_path / "theirs" / "imported.json"
    kept.write_text(json.dumps(json.loads(kept.read_text()) | {"curves_sha256": None}))
    assert of_import(tmp_path / "theirs").curves(0) is not None
    np.savez(tmp_path / "theirs" / "curves.npz", **arrays | odd)
    with pytest.raises(HarnessError, match="cannot read the imported runs in "):
        of_import(tmp_path / "theirs")


def test_saving_twice_replaces(tmp_path):
    first = import_of(tmp_path, [()], imported_runs([0.5]))
    save_imported(tmp_path / "theirs", first.imports[0], pd.DataFrame(imported_runs([0.5, 0.75])))
    assert of_import(tmp_path / "theirs").runs["final_score"].tolist() == [0.5, 0.75]
    assert sorted(path.name for path in (tmp_path / "theirs").iterdir()) == ["imported.json", "runs.csv"]
    kept = json.loads((tmp_path / "theirs" / "imported.json").read_text())
    assert kept["schema_version"] == 1
    kept |= {"runs_sha256": None, "curves_sha256": None}
    assert Imported.model_validate(kept) == first.imports[0]


@pytest.mark.parametrize(
    ("before", "after"),
    [("0.8", "0.99"), ("0.75\n", "0.75\ncell0-seed1,0,1,finished,acc,0.7\n"), ("0.75\n", ""), ("0.5", "1e300")],
    ids=["a score", "a run twice", "a run less", "a giant number"],
)
@pytest.mark.parametrize("sealed", [True, False], ids=["as today", "of an early import"])
def test_an_edited_table_of_imported_runs_is_refused(tmp_path, before, after, sealed):
    """Without the hash of the file, which the first imports have not, a giant number and a run twice are."""
    import_of(tmp_path, [()], imported_runs([0.7, 0.8, 0.5, 0.75]))
    folder = tmp_path / "theirs"
    table = folder / "runs.csv"
    if not sealed:
        kept = json.loads((folder / "imported.json").read_text())
        (folder / "imported.json").write_text(json.dumps({k: v for k, v in kept.items() if not k.endswith("_sha256")}))
    table.write_text(table.read_text().replace(before, after, 1))
    if not sealed and after in ("0.99", ""):
        assert len(of_import(folder).runs) in (3, 4)
        return
    with pytest.raises(HarnessError, match="was changed since the import" if sealed else "not as `harness import`"):
        of_import(folder)


# --------------------------------------------------------------------------------------------------------------- two


def test_two_sweeps_side_by_side(tmp_path):
    first = study_of(
        tmp_path / "a", HEAD + "lr: [1e-5, 2e-5]\nepochs: 3\nseeds: 1..2\n", {0: [Run(300), Run(310)]}, "a"
    )
    text = HEAD + "lr: 1e-5\nepochs: 3\ndropout: [0.0, 0.2]\nseeds: 1..3\n"
    second = study_of(tmp_path / "b", text, {1: [None, Run(320)]}, "b")
    both = joined(first, second)
    assert both.name == "a@default--b@default"
    assert both.axes == (SOURCE, "lr", "dropout")
    assert [cell.axes for cell in both.cells] == [
        ((SOURCE, source), ("lr", lr), ("dropout", dropout))
        for source, lr, dropout in [
            ("a@default", 1e-5, 0.1), ("a@default", 2e-5, 0.1), ("b@default", 1e-5, 0.0), ("b@default", 1e-5, 0.2),
        ]
    ]  # fmt: skip
    assert both.runs["cell"].tolist() == [0, 0, 1, 1, 2, 2, 2, 3, 3, 3]
    assert both.runs["trial"].tolist() == [*first.runs["trial"], *second.runs["trial"]]
    for axis in both.axes:
        assert both.runs[axis].tolist() == [dict(both.cells[index].axes)[axis] for index in both.runs["cell"]]
    assert both.runs["final_score"].dropna().tolist() == [0.75, 0.775, 0.8]
    assert both.runs["final_score"].dtype == float
    assert both.sweeps == first.sweeps + second.sweeps
    assert both.unreadable == 0
    own, theirs = both.curves(1), both.curves(8)
    assert own is not None
    assert theirs is not None
    assert [(one.logits.argmax(axis=1) == one.labels).sum() for one in (own, theirs)] == [310, 320]
    assert both.curves(7) is None
    assert len(first.runs) == 4
    assert list(first.runs["cell"]) == [0, 0, 1, 1]  # what was given is not changed


def test_names_of_recipes_give_way_to_the_settings_they_stand_for(tmp_path):
    first = study_of(tmp_path / "a", HEAD + "lr: 1e-5\nepochs: [3, 5]\nseeds: 1\n", {}, "a")
    text = HEAD + "lr: 1e-5\nrecipes: {usual: {epochs: 3}, more: {epochs: 9, max_grad_norm: null}}\nseeds: 1\n"
    both = joined(first, study_of(tmp_path / "b", text, {}, "b"))
    assert set(both.axes) == {SOURCE, "epochs", "max_grad_norm"}
    assert [dict(cell.axes)["epochs"] for cell in both.cells] == [3, 5, 3, 9]
    assert [dict(cell.axes)["max_grad_norm"] for cell in both.cells] == [1.0, 1.0, 1.0, None]


def test_a_sweep_beside_an_import(tmp_path):
    first = study_of(tmp_path, HEAD + "lr: [1e-5, 2e-5]\nepochs: 3\nseeds: 1..2\n", {0: [Run(300), Run(200)]})
    rows = [row | {"metric": "accuracy"} for row in imported_runs([0.8, 0.9])]
    second = import_of(tmp_path, [(("variant", "x"),)], rows)
    both = joined(first, second)
    assert both.axes == (SOURCE, "lr", "variant")
    assert [cell.axes[1:] for cell in both.cells] == [
        (("lr", 1e-5), ("variant", None)), (("lr", 2e-5), ("variant", None)), (("lr", None), ("variant", "x")),
    ]  # fmt: skip
    assert both.runs["outcome"].tolist() == ["ok", "failed", None, None, None, None]
    assert both.runs["final_score"].tolist()[4:] == [0.8, 0.9]
    assert both.notes == ("Read by hand.",)
    assert both.stand_in is None
    assert both.curves(4) is None
    assert both.curves(0) is not None


def test_two_of_one_name_are_told_apart(tmp_path):
    one = import_of(tmp_path / "a", [()], imported_runs([0.5]))
    two = import_of(tmp_path / "b", [()], imported_runs([0.6]))
    both = joined(one, two)
    assert both.values(SOURCE) == ["theirs (first)", "theirs (second)"]
    assert both.title == "theirs, twice"
    assert joined(one, two, ("old", "new")).values(SOURCE) == ["old", "new"]


def test_two_metrics_cannot_stand_side_by_side(tmp_path):
    one = import_of(tmp_path / "a", [()], imported_runs([0.5]))
    other = import_of(tmp_path / "b", [()], [row | {"metric": "f1"} for row in imported_runs([0.5])], metric="f1")
    with pytest.raises(HarnessError, match=r"different metrics side by side \(got acc .* and f1 "):
        joined(one, other)
    lower = import_of(tmp_path / "c", [()], imported_runs([0.5]), higher_is_better=False)
    with pytest.raises(HarnessError, match="different metrics") as caught:
        joined(one, lower)
    assert "(got acc (higher is better) and acc (lower is better))" in str(caught.value)
    nothing = import_of(tmp_path / "d", [()], imported_runs([None]))
    assert len(joined(one, nothing).runs) == 2  # nothing is known of its metric yet


def test_every_known_field_has_a_column():
    assert set(Measured.model_fields) | set(Environment.model_fields) < set(columns())
    assert len(columns()) == len(set(columns()))


def test_numbers_that_are_not_known_stay_numbers(tmp_path):
    study = import_of(tmp_path, [()], imported_runs([None, None]))
    assert study.runs["final_score"].dtype == float
    assert all(math.isnan(value) for value in study.runs["final_score"])
    assert np.isnan(study.runs["dev_examples"].to_numpy(dtype=float)).all()


def test_full_fine_tuning_has_no_rank_beside_ranks(tmp_path):
    lora = HEAD + "lr: 1e-5\nmethod: lora\nlora_rank: [4, 8]\nepochs: 3\nseeds: 1\n"
    full = HEAD + "lr: 1e-5\nepochs: 3\nseeds: 1\n"
    both = joined(study_of(tmp_path, lora, {}, "lora"), study_of(tmp_path, full, {}, "full"))
    assert [cell.label for cell in both.cells] == [
        "sweep lora@default, lora rank 4", "sweep lora@default, lora rank 8", "sweep full@default, lora rank none",
    ]  # fmt: skip


def test_records_that_no_trial_of_the_plan_owns_are_told(tmp_path):
    sweep = sweep_of(tmp_path, MOSBACH)
    store = store_of(tmp_path, sweep, MOSBACH_RUNS)
    assert not any("does not plan" in note for note in of_sweep(sweep, store).notes)
    (store.trials / f"{expand(sweep)[0].id}.attempt1.json").write_text("{}")  # of a trial that is planned
    fewer = sweep.model_copy(update={"cells": sweep.cells[:-1]})
    (note,) = of_sweep(fewer, store).notes
    assert note.startswith("Warning: trials/ holds 3 records of trials that this sweep does not plan; they are not")


@pytest.mark.parametrize("name", ["reruns.json", "baselines.json", "surface.npz"])
def test_what_lies_beside_the_records_and_cannot_be_read_is_told(tmp_path, name):
    sweep = sweep_of(tmp_path, HEAD + "lr: 1e-5\nepochs: 3\nseeds: 1..2\n")
    store = store_of(tmp_path, sweep, {0: [Run(300), Run(310)]})
    assert not of_sweep(sweep, store).notes
    (store.folder / name).write_bytes(b"{")
    assert of_sweep(sweep, store).notes == (f"Warning: {name} can't be read, so this report does without it.",)
