"""What a script's run leaves as its model is saved by `--keep`, in process, over Ray and by a rerun."""

import sys
from pathlib import Path

import pytest

from harness.common.errors import HarnessError
from harness.config.sweep_file import load
from harness.config.trials import expand
from harness.execution import driver
from harness.execution.driver import Options
from harness.execution.rerun import rerun
from harness.execution.verification import verify
from harness.models import predict, saved
from harness.models.keep_weights import Keeping
from harness.records.store import Store

TRAIN = """\
import json, os, sys
lr, seed, out = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
os.makedirs(out + "/best/deep")
for name in ("best/weights.bin", "best/deep/more.bin", "best/adapter_config.json"):
    open(out + "/" + name, "w").write(f"{lr} {seed}")
if lr > 1: os.rename(out + "/best", out + "/elsewhere")
json.dump({"loss": 0.1 * seed}, open(out + "/r.json", "w"))
"""
SWEEP = """\
title: My script
command: {python} -S train.py {{lr}} {{seed}} {{out}}
lr: [0.1, 2]
seeds: 1..2
score: {{file: r.json, key: loss}}
better: lower
model_out: best
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "mine.yaml").write_text(SWEEP.format(python=sys.executable))
    return Store(tmp_path / "results" / "mine@default")


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


WHOLE = {"weights.bin", "deep/more.bin", "adapter_config.json", "harness.json"}


def test_the_best_of_a_cell_is_kept_and_a_run_without_a_model_says_so(store: Store) -> None:
    sweep = load(Path("mine.yaml"))
    driver.run(sweep, store, Options(in_process=True, keep="best"), lambda progress: None)
    best, other, *without = expand(sweep)
    assert set(saved.kept(store)) == {best.id}  # the lower loss
    folder = saved.place(store, best.id)
    assert files(folder) == WHOLE
    assert (folder / "deep" / "more.bin").read_text() == "0.1 1"
    for trial in without:
        record = store.load(trial.id)
        assert record is not None
        assert record.script is not None
        assert record.script.notes == ("model_out: best is not in the run's folder, so none was kept",)
    with pytest.raises(HarnessError, match="is the model of a script, which the harness can't read"):
        predict.Served(folder)
    with driver.keeping_one(sweep, store) as shelf:
        again = rerun(sweep, store, other, 0.0, None, shelf.keeping)
        assert again.verdict == "identical"
        shelf.publish([again.again])
    assert set(saved.kept(store)) == {best.id, other.id}
    assert verify.check(sweep, store).problems == ()  # what only the script can read is no damage


def test_over_ray_a_script_gives_the_same_and_its_models_and_its_folders_are_as_asked(store: Store) -> None:
    Path("mine.yaml").write_text(SWEEP.format(python=sys.executable) + "keep_out: off\n")
    sweep = load(Path("mine.yaml"))
    outcome = driver.run(sweep, store, Options(workers=2, keep="all"), lambda progress: None)
    assert (outcome.finished, outcome.crashed) == (4, 0)
    for trial in expand(sweep):
        record = store.load(trial.id)
        assert record is not None
        assert record.measured is not None
        assert record.measured.final_score == pytest.approx(0.1 * trial.seeds.seed)
    assert set(saved.kept(store)) == {trial.id for trial in expand(sweep)[:2]}
    assert all(files(saved.place(store, trial.id)) == WHOLE for trial in expand(sweep)[:2])
    assert list((store.folder / "runs").iterdir()) == []


def test_what_another_node_kept_is_sent_with_its_folders(tmp_path: Path) -> None:
    there, here = Keeping(tmp_path / "there", "all", "x"), Keeping(tmp_path / "here", "all", "x")
    folder = tmp_path / "there" / ".some.staged"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.bin").write_bytes(b"abc")
    (tmp_path / "here").mkdir()
    here.receive(here.sent(there))
    assert (tmp_path / "here" / ".some.staged" / "deep" / "a.bin").read_bytes() == b"abc"


def test_keeping_needs_to_know_what_and_the_key_stays_inside(store: Store) -> None:
    text = SWEEP.format(python=sys.executable)
    Path("mine.yaml").write_text(text.replace("model_out: best\n", ""))
    with pytest.raises(HarnessError, match="--keep needs to know what"):
        driver.run(load(Path("mine.yaml")), store, Options(in_process=True, keep="all"), lambda progress: None)
    for wrong in ("../best", "/tmp", ".", "[]"):
        Path("mine.yaml").write_text(text.replace("model_out: best", f"model_out: {wrong}"))
        with pytest.raises(HarnessError, match="model_out must be"):
            load(Path("mine.yaml"))
    ids = []
    for more in ("", "keep_out: off\n", "model_out: other\n"):  # which decide nothing of a result
        Path("mine.yaml").write_text(text.replace("model_out: best\n", more))
        ids.append([trial.id for trial in expand(load(Path("mine.yaml")))])
    assert ids[0] == ids[1] == ids[2]
