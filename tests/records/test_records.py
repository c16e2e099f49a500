"""Records: written once and whole, read back, joined to the plan; one sweep at a time."""

import errno
import fcntl
import json
import math
import os
import pwd
import re
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import ENVIRONMENT, MOSBACH, MOSBACH_RUNS, Run, curves_of, measured, save, store_of, sweep_of

from harness.common.errors import HarnessError
from harness.config.trials import expand
from harness.records import reruns
from harness.records.frame import frame
from harness.records.record import Curves, Environment, Measured, Record
from harness.records.store import Store

TWO = "task: embedded\nmodel: embedded\nlr: 1e-5\nepochs: 1\nseeds: 1..2\n"


@pytest.fixture
def sweep(tmp_path):
    return sweep_of(tmp_path, TWO)


@pytest.fixture
def store(tmp_path, sweep):
    store = Store(tmp_path / sweep.folder_name)
    store.save_plan(sweep)
    return store


@pytest.fixture
def first(sweep):
    return expand(sweep)[0]


def record_of(trial, run=None, **changes):
    found = measured(run or Run(300), 20, 200, 400, "accuracy")
    given = {
        "id": trial.id, "sweep": "made", "profile": "default", "trial": trial, "status": "finished", "attempts": 1,
        "started_utc": "2025-01-01T00:00:00+00:00", "environment": ENVIRONMENT, "measured": found,
        "arrays_sha256": None, "error": None,
    }  # fmt: skip
    return Record(**given | changes)


def same_arrays(one: Curves, other: Curves) -> bool:
    pairs = [(one.arrays[name], other.arrays[name]) for name in one.arrays]
    return one.arrays.keys() == other.arrays.keys() and all(
        a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in pairs
    )


# ---------------------------------------------------------------------------------------------------- write and read

numbers = st.floats(-1e100, 1e100)
scores = st.floats(0, 1)
losses = st.lists(st.floats(width=32), min_size=20, max_size=20).map(lambda values: np.array(values, np.float32))


@given(score=scores | st.none(), loss=numbers | st.none(), curve=losses, error=st.text(max_size=20))
@settings(deadline=None, max_examples=40)
def test_what_is_saved_comes_back(score, loss, curve, error):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trial = expand(sweep_of(folder, TWO))[1]
        store = Store(folder / "results")
        store.trials.mkdir(parents=True)
        found = measured(Run(300), 20, 200, 400, "accuracy")
        found = found.model_copy(update={"final_score": score, "final_train_loss": loss})
        error = error.encode("utf-8", "ignore").decode()
        record = record_of(trial, measured=found, error=error)
        curves = Curves(**vars(curves_of(measured(Run(300), 20, 200, 400, "accuracy"))) | {"train_loss": curve})
        store.save(record, curves)
        kept = store.load(trial.id)
        content = store.path(trial.id).with_suffix(".npz").read_bytes()
        assert kept == record.model_copy(update={"arrays_sha256": sha256(content).hexdigest()})
        read = store.curves(trial.id)
        assert read is not None
        assert same_arrays(read, curves)
        assert sorted(path.name for path in store.trials.iterdir()) == [f"{trial.id}.json", f"{trial.id}.npz"]


def test_arrays_of_a_test_split_are_kept_where_there_is_one(store, sweep, first):
    store.save(record_of(first), curves_of(measured(Run(300), 20, 200, 400, "accuracy")))
    with np.load(store.path(first.id).with_suffix(".npz")) as kept:
        assert not {"test_logits", "test_labels"} & set(kept)
    assert store.curves(first.id).test_labels.shape == (0,)
    other = expand(sweep)[1]
    tested = {"test_logits": np.ones((3, 2), np.float32), "test_labels": np.array([0, 1, 1])}
    curves = replace(store.curves(first.id), **tested)
    found = record_of(other).measured.model_copy(update={"test_score": 1 / 3, "test_examples": 3})
    store.save(record_of(other, measured=found), curves)
    assert same_arrays(store.curves(other.id), curves)
    table = frame(sweep, store)
    assert table["test_score"].tolist()[:2] == pytest.approx([float("nan"), 1 / 3], nan_ok=True)


def test_a_record_is_written_once(sweep, store, first):
    save(store, sweep, first, Run(300))
    before = store.path(first.id).read_bytes()
    with pytest.raises(FileExistsError):
        save(store, sweep, first, Run(310))
    assert store.path(first.id).read_bytes() == before


def test_records_of_before_the_later_fields_are_read(sweep, store, first):
    store.save(record_of(first), None)
    path = store.path(first.id)
    said = json.loads(path.read_text())
    later = ("dirty_diff_sha256", "driver", "cuda", "deterministic", "matmul_precision", "kernels")
    for name in later:
        del said["environment"][name]
    path.write_text(json.dumps(said))
    record = store.load(first.id)
    assert record is not None
    assert record == record_of(first)
    assert [getattr(record.environment, name) for name in later] == [None] * 6
    assert frame(sweep, store)["status"].tolist() == ["finished", "missing"]


def test_a_crash_is_kept_without_arrays(sweep, store, first):
    save(store, sweep, first, Run(crashed="Traceback\nKeyError: 'x'"))
    kept = store.load(first.id)
    assert kept is not None
    assert (kept.status, kept.measured, kept.arrays_sha256) == ("crashed", None, None)
    assert store.curves(first.id) is None


def test_json_is_strict_and_never_holds_nan(sweep, store, first):
    save(store, sweep, first, Run(diverged=True))

    def refuse(name):
        raise AssertionError(name)

    kept = json.loads(store.path(first.id).read_text(), parse_constant=refuse)
    assert kept["measured"]["final_score"] is None
    assert kept["schema_version"] == 1
    curves = store.curves(first.id)
    assert curves is not None
    assert np.isnan(curves.train_loss).any()  # arrays may hold it
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match="finite"):
            Measured(**measured(Run(300), 20, 200, 400, "accuracy").model_dump() | {"final_score": value})


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: text[:-3],
        lambda text: text.replace('"schema_version": 1', '"schema_version": 2'),
        lambda text: text.replace('"attempts"', '"tries"'),
        lambda text: text.replace('"finished"', '"fine"'),
        lambda text: text.replace('"seed": 1', '"seed": -1'),
        lambda text: text.replace('"id": "lr1e-5', '"id": "lr2e-5'),
        lambda text: "[]",
        lambda text: "\x00" * 100,
        lambda text: b"\xff\xfe\x00garbage",
    ],
)
def test_what_is_no_record_counts_as_unreadable_and_is_listed(sweep, store, first, damage):
    save(store, sweep, first, Run(300))
    assert store.unreadable(sweep) == ()
    path = store.path(first.id)
    damaged = damage(path.read_text())
    assert damaged != path.read_text()
    path.write_bytes(damaged if isinstance(damaged, bytes) else damaged.encode())
    assert store.load(first.id) is None
    assert [file.file for file in store.unreadable(sweep)] == [f"trials/{path.name}"]
    table = frame(sweep, store)
    assert table["status"].tolist() == ["unreadable", "missing"]
    assert table["error"][0] == store.unreadable(sweep)[0].reason
    assert table["error"][0].isprintable()


@pytest.mark.parametrize("content", [b"", b"PK", b"garbage", b"PK\x03\x04" + b"\x00" * 60, None])
def test_arrays_that_are_not_kept_or_cut_short_are_none(sweep, store, first, content):
    save(store, sweep, first, Run(300))
    path = store.path(first.id).with_suffix(".npz")
    if content is None:
        path.write_bytes(path.read_bytes()[:-40])
    else:
        path.write_bytes(content)
    assert store.curves(first.id) is None
    path.unlink()
    assert store.curves(first.id) is None
    assert store.load(first.id) is not None


def test_killed_between_arrays_and_record_the_trial_is_missing(sweep, store, first, monkeypatch):
    real = Path.rename

    def killed(self, target):
        if str(target).endswith(".json"):
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        save(store, sweep, first, Run(300))
    monkeypatch.setattr(Path, "rename", real)
    assert [path.name for path in store.trials.iterdir()] == [f"{first.id}.npz"]
    assert store.load(first.id) is None
    assert store.unreadable(sweep) == ()
    save(store, sweep, first, Run(310))  # the next attempt writes both
    kept = store.load(first.id)
    assert kept is not None
    assert kept.arrays_sha256 == sha256(store.path(first.id).with_suffix(".npz").read_bytes()).hexdigest()


def test_all_records_at_once_are_each_as_it_is_loaded(tmp_path):
    sweep = sweep_of(tmp_path, MOSBACH)
    store = store_of(tmp_path / "results", sweep, MOSBACH_RUNS)
    cut, elsewhere = (store.path(trial.id) for trial in expand(sweep)[:2])
    cut.write_bytes(cut.read_bytes()[:100])
    # As an edited sweep leaves it: the record keeps the place that its cell had.
    elsewhere.write_text(elsewhere.read_text().replace('"cell": 0', '"cell": 7'))
    found = store.records(sweep)
    loaded = {trial.id: store.load(trial.id) for trial in expand(sweep)}
    assert found == {name: record for name, record in loaded.items() if record is not None}
    assert list(found) == [trial.id for trial in expand(sweep) if loaded[trial.id]]
    assert found[elsewhere.stem].trial.cell == 7
    assert store.unreadable(sweep, found) == ()
    assert store.unreadable(sweep) == store.unreadable(sweep, [cut.stem, "no-such-trial"])
    assert [file.trial for file in store.unreadable(sweep)] == [cut.stem]
    (store.trials / ".left.json.1.tmp").write_text("half")
    cut.with_suffix(".unreadable").mkdir()
    tidied = store.tidy(sweep)
    assert tidied.records == found
    assert tidied.message is not None
    assert tidied.message.startswith(f"1 record can't be used and was renamed from .json to .unreadable: {cut.stem} (")
    assert tidied.message.endswith("; its trial counts as missing and may be trained again")
    assert store.tidy(sweep).message is None
    assert not list(store.trials.glob(".*"))
    assert cut.with_suffix(".unreadable2").is_file()


def test_records_are_read_when_their_turn_comes(sweep, store):
    trials = expand(sweep)
    walk = store.each(trials)
    assert next(walk) == (trials[0], None)
    save(store, sweep, trials[1], Run(300))  # as a sweep does while somebody looks
    assert next(walk) == (trials[1], store.load(trials[1].id))


def test_a_changed_trial_has_another_id(first):
    name = first.id
    other = first.model_copy(update={"seeds": first.seeds.model_copy(update={"seed": 9, "init_seed": 9})})
    assert other.id != name == first.id == first.model_copy().id == first.model_copy(deep=True).id
    assert first == type(first).model_validate_json(first.model_dump_json())
    assert "id" not in json.loads(first.model_dump_json())


@given(flip=st.integers(0, 10_000))
@settings(deadline=None, max_examples=60)
def test_changed_arrays_are_none_or_as_numpy_reads_them(flip):
    with tempfile.TemporaryDirectory() as name:
        sweep = sweep_of(Path(name), TWO)
        store = Store(Path(name) / "results")
        store.trials.mkdir(parents=True)
        trial = expand(sweep)[0]
        save(store, sweep, trial, Run(15), examples=20, majority=10)
        path = store.path(trial.id).with_suffix(".npz")
        good = store.curves(trial.id)
        assert good is not None
        with np.load(path) as arrays:
            assert same_arrays(good, Curves(**arrays))
        content = bytearray(path.read_bytes())
        content[flip % len(content)] ^= 0xFF
        path.write_bytes(content)
        read = store.curves(trial.id)
        assert read is None or same_arrays(read, good)


def test_a_record_set_aside_stays_and_counts(sweep, store, first):
    assert store.attempts(first.id) == 0
    for number in (1, 2):
        save(store, sweep, first, Run(crashed=f"no {number}"))
        store.set_aside(first.id)
        assert store.load(first.id) is None
        assert store.attempts(first.id) == number
    kept = [json.loads((store.trials / f"{first.id}.attempt{n}.json").read_text())["error"] for n in (1, 2)]
    assert kept == ["no 1", "no 2"]
    assert store.unreadable(sweep) == ()


# --------------------------------------------------------------------------------------------------------- the plan


def test_the_plan_comes_back(tmp_path):
    text = (
        "title: All\nstand_in: not BERT\ntask: [{name: mine, files: x, text: 0}, rte]\nmodel: {name: m, folder: ./f}\n"
        "lr: [1, 1e-5]\nbias_correction: [on, off]\nmax_grad_norm: [null, 1]\nweight_decay: [0, 0.1]\nepochs: 1\n"
        "seeds: [1, 9223372036854775807]\ninit_seed: 3\n"
    )
    sweep = sweep_of(tmp_path, text)
    store = Store(tmp_path / "results")
    assert store.load_plan() is None
    store.save_plan(sweep)
    kept = store.load_plan()
    assert kept == sweep
    assert kept is not None
    assert [cell.label for cell in kept.cells] == [cell.label for cell in sweep.cells]
    assert [trial.id for trial in expand(kept)] == [trial.id for trial in expand(sweep)]
    store.save_plan(sweep)  # the plan alone may be written again


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage", b"[]", b"3", b"{}", b'{"sweep": 3}', b'{"trials": []}', b"\xff\xfe", b"[" * 3000, "no trials"],
)
def test_a_plan_that_is_none_is_said_in_one_line(sweep, store, content):
    path = store.folder / "plan.json"
    if content == "no trials":
        plan = json.loads(path.read_text())
        del plan["trials"]
        content = json.dumps(plan).encode()
    path.write_bytes(content)
    with pytest.raises(HarnessError, match=r"cannot read .*plan\.json: .* Remove it"):
        store.load_plan()


def test_a_plan_of_other_ids_is_refused(sweep, store):
    path = store.folder / "plan.json"
    path.write_text(path.read_text().replace("lr1e-5-bc-ep1-seed1-", "lr1e-5-bc-ep1-seed1-0"))
    with pytest.raises(HarnessError, match="written by another version of the harness"):
        store.load_plan()


# --------------------------------------------------------------------------------------------------------- the table


def test_the_table_has_one_row_a_planned_trial_in_the_plans_order(tmp_path):
    sweep = sweep_of(tmp_path, MOSBACH)
    forwards = store_of(tmp_path / "a", sweep, MOSBACH_RUNS)
    backwards = store_of(tmp_path / "b", sweep, MOSBACH_RUNS, backwards=True)
    stranger = expand(sweep_of(tmp_path / "c", MOSBACH.replace("1..3", "[9]")))[0]
    save(backwards, sweep, stranger, Run(300))  # a record of no planned trial
    (backwards.trials / "notes.json").write_text("{}")
    table = frame(sweep, backwards)
    assert table["trial"].tolist() == [trial.id for trial in expand(sweep)]
    assert table.equals(frame(sweep, forwards))
    assert table["status"].value_counts().to_dict() == {"finished": 22, "missing": 1, "crashed": 1}
    columns = ["trial", "cell", *sweep.axes, "seed", "init_seed", "order_seed", "dropout_seed", "status"]
    columns += ["attempts", "error", *Measured.model_fields, *Environment.model_fields]
    assert table.columns.tolist() == columns
    missing = table[table["status"] == "missing"].iloc[0]
    assert math.isnan(missing["final_score"])
    assert missing["outcome"] is None or math.isnan(missing["outcome"])
    assert missing["attempts"] == 0


def test_a_table_without_records_has_number_columns(sweep, store):
    table = frame(sweep, store)
    assert len(table) == 2
    assert table["final_score"].dtype.kind == "f"
    assert table["final_score"].isna().all()
    assert table["status"].tolist() == ["missing", "missing"]


@given(data=st.data())
@settings(deadline=None, max_examples=15)
def test_no_trial_is_lost_or_doubled_whatever_is_there(data):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sweep = sweep_of(folder, TWO.replace("1..2", "1..4"))
        store = Store(folder / "results")
        store.save_plan(sweep)
        expected = {}
        for trial in data.draw(st.permutations(expand(sweep))):
            state = data.draw(st.sampled_from(["finished", "crashed", "missing", "cut"]))
            if state != "missing":
                save(store, sweep, trial, Run(crashed="no") if state == "crashed" else Run(300))
            if state == "cut":
                path = store.path(trial.id)
                path.write_bytes(path.read_bytes()[:100])
            expected[trial.id] = "unreadable" if state == "cut" else state
        table = frame(sweep, store)
        assert table["trial"].tolist() == [trial.id for trial in expand(sweep)]
        assert dict(zip(table["trial"], table["status"], strict=True)) == expected


# ---------------------------------------------------------------------------------------------------------- the lock

HOLD = """
    import sys, time
    from pathlib import Path
    from harness.records.store import Store
    with Store(Path(sys.argv[1])).locked():
        print("held", flush=True)
        time.sleep(60)
"""


def test_one_process_holds_the_folder_until_it_is_killed(store):
    words = [sys.executable, "-c", textwrap.dedent(HOLD), str(store.folder)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(HarnessError) as caught, store.locked():
                pass
            said = str(caught.value)
            who = re.escape(f"process {holder.pid} on {socket.gethostname()} of {pwd.getpwuid(os.getuid()).pw_name}")
            assert re.search(rf"in use by {who} since 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", said)
            assert "\n" not in said
            assert ".lock" not in said
            (store.folder / "running.json").write_text("{}")
            os.utime(store.folder / "running.json", (0, 2**33))  # of a clock that goes before
            (store.folder / ".lock").write_text("process 7 on elsewhere of anna since 2025-01-01T00:00:00+00:00\n")
            with pytest.raises(HarnessError) as caught, store.locked():
                pass
            said = str(caught.value)
            assert "in use by process 7 on elsewhere of anna since 2025-01-01T00:00:00+00:00, whose last sign" in said
            assert "whose last sign of life is 0 s old" in said
            assert said.endswith(f"if that machine is down for good, remove {store.folder / '.lock'}.")
        finally:
            os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    with store.locked(), pytest.raises(HarnessError, match="is in use by"), Store(store.folder).locked():
        pass
    with store.locked():  # given back at the end
        pass


def test_a_disk_that_cannot_lock_is_refused(store, monkeypatch):
    def unable(stream, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unable)
    with pytest.raises(HarnessError, match=r"cannot lock files.*no locks available"), store.locked():
        pass


def test_a_user_without_a_name_has_a_number(store, monkeypatch):
    def unknown(number):
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with store.locked():
        assert f" of user {os.getuid()} since " in (store.folder / ".lock").read_text()


def test_a_rerun_overwrites_no_file_of_reruns_that_it_cannot_read(tmp_path: Path) -> None:
    (tmp_path / reruns.NAME).write_text('[{"trial": "mended by hand"')
    again = reruns.Rerun(
        trial="a", kind="rerun", number=0, when_utc="2025-01-02T00:00:00+00:00", verdict="identical",
        max_difference=0.0, first_differing_step=None, recorded_score=0.75, score=0.75, reasons=(),
    )  # fmt: skip
    assert reruns.damaged(tmp_path)
    reruns.add(tmp_path, again)
    reruns.add(tmp_path, again)
    assert reruns.load(tmp_path) == (again, again)
    assert not reruns.damaged(tmp_path)
    assert (tmp_path / f"{reruns.NAME}.unreadable").read_text() == '[{"trial": "mended by hand"'
