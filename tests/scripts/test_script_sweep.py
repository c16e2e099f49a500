"""A sweep of somebody else's script, from its file to its records and page."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import harness
from harness.cli import app as cli
from harness.common.errors import HarnessError
from harness.config.sweep_file import load
from harness.config.trials import Sweep, expand
from harness.execution import driver, gate
from harness.execution.driver import Options
from harness.execution.rerun import rerun
from harness.records.store import Store
from harness.records.study import of_sweep
from harness.scripts import commands, reaper

TRAIN = """\
import json, sys
lr, flag, seed, out = float(sys.argv[1]), "--amsgrad" in sys.argv, int(sys.argv[-2]), sys.argv[-1]
print("seed", seed)
if seed == 3 and lr > 0.005: sys.exit("no such kernel")
score = 0.5 if seed == 2 and lr > 0.005 else 0.7 + seed / 100 + flag / 1000
json.dump({"eval": {"acc": score}, "f1": score / 2}, open(out + "/r.json", "w"))
json.dump([{"step": 1, "loss": 0.9}, {"step": 2, "loss": 0.1}], open(out + "/log.jsonl", "w"))
"""
SWEEP = """\
title: My script
command: {python} -S train.py {{lr}} {{amsgrad}} {{seed}} {{out}}
lr: [1e-3, 1e-2]
amsgrad: {{on: --amsgrad, off: ""}}
seeds: 1..3
score: {{file: r.json, key: eval.acc}}
also: {{f1: {{file: r.json, key: f1}}}}
curves: {{loss: {{file: log.jsonl, key: loss}}}}
majority: 0.5
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(TRAIN)
    return tmp_path


def sweep_of(folder: Path, text: str = SWEEP) -> Sweep:
    path = folder / "mine.yaml"
    path.write_text(text.format(python=sys.executable))
    return load(path)


def trained(sweep: Sweep, store: Store, **options: object) -> driver.SweepOutcome:
    return driver.run(sweep, store, Options(in_process=True, **options), lambda progress: None)


def test_a_script_is_planned_run_recorded_and_judged(here):
    sweep = sweep_of(here)
    store = Store(here / "results" / sweep.folder_name)
    gate.check_inputs(sweep, {}, {0})
    outcome = trained(sweep, store)
    assert (outcome.planned, outcome.finished, outcome.failed, outcome.crashed) == (12, 10, 2, 2)
    records = store.records(sweep)
    first = records[expand(sweep)[0].id]
    assert first.measured.final_score == pytest.approx(0.711)
    assert first.measured.outcome == "ok"
    assert first.measured.metric == "acc"
    assert dict(first.script.further) == {"f1": pytest.approx(0.3555)}
    assert first.script.command.split()[2:5] == ["train.py", "1e-3", "--amsgrad"]
    assert store.curves(first.id).train_loss.tolist() == pytest.approx([0.9, 0.1])
    crashed = [record for record in records.values() if record.status == "crashed"]
    assert all(record.error.splitlines()[-1].endswith("exit code 1: no such kernel") for record in crashed)
    assert all("seed 3" in record.error for record in crashed)  # what it printed
    study = of_sweep(sweep, store)
    assert study.runs["outcome"].value_counts().to_dict() == {"ok": 8, "failed": 2}
    assert store.load_plan() == sweep
    again = trained(sweep, store)
    assert again.trained_now == 0


def test_a_rerun_says_identical_or_what_differs(here):
    sweep = sweep_of(here)
    store = Store(here / "results" / sweep.folder_name)
    trained(sweep, store, only=("lr=1e-3", "seed=1"))
    trial = expand(sweep)[0]
    assert rerun(sweep, store, trial, 1e-3).verdict == "identical"
    (here / "train.py").write_text(TRAIN.replace("flag / 1000", "flag / 500"))
    other = rerun(sweep, store, trial, 1e-3)
    assert other.verdict == "different"
    assert other.max_difference == pytest.approx(0.001)


def test_ids_hang_on_what_decides_a_result(here):
    sweep = sweep_of(here)
    ids = [trial.id for trial in expand(sweep)]
    assert len(set(ids)) == 12
    assert ids[0].startswith("lr1e-3-amsgradon-seed1-")
    relabelled = sweep_of(here, SWEEP.replace("majority: 0.5", "failed_below: 0.6"))
    assert [trial.id for trial in expand(relabelled)] == ids
    for change in (("train.py {{lr}}", "./train.py {{lr}}"), ("on: --amsgrad", "on: --amsgrad2")):
        assert not set(ids[:3]) & {trial.id for trial in expand(sweep_of(here, SWEEP.replace(*change)))}
    with_input = sweep_of(here, SWEEP + "inputs: train.py\n")
    (here / "train.py").write_text(TRAIN + "\n")
    changed = sweep_of(here, SWEEP + "inputs: train.py\n")
    assert not {trial.id for trial in expand(with_input)} & {trial.id for trial in expand(changed)}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{{lr}} ", "", "the axis lr is not used by the command"),
        ("{{lr}}", "{{rate}}", "the command's {rate} is filled by nothing"),
        ("{{seed}}", "7", "the command has no {seed}"),
        ("{{out}}", "here", "the command has no {out} to write it to"),
        ("lr: [1e-3, 1e-2]", "lr: []", "lr has an empty list"),
        ("lr: [1e-3, 1e-2]", "lr: [1e-3, 0.001]", "lr lists the value 1e-3 twice"),
        ("majority: 0.5", "majority: half", "majority must be a number on the scale"),
        ("seeds: 1..3", "seed: 1..3", "'seed' is no key (did you mean 'seeds'?)"),
        ("majority: 0.5", "majority: 0.5\nfailed_below: 0.6", "majority and failed_below are both given"),
        ("majority: 0.5", "timout: 3h", "timout is neither a key of a sweep nor used by the command"),
        ("majority: 0.5", "timeout: 3", "timeout must be a time"),
        ("majority: 0.5", "resources: {{gpu: 1}}", "unknown key 'gpu'"),
        ("majority: 0.5", "search: {{}}", "cannot be used beside search"),
        ("file: r.json, key: eval.acc", "file: r.json", "score.key must be text"),
        ("file: r.json, key: eval.acc", "file: ../r.json, key: acc", "must lie in the run's own folder"),
        ("file: r.json, key: eval.acc", "file: r.xlsx, key: acc", "of a kind that is not known by its ending"),
        ("file: r.json, key: eval.acc", 'stdout: "acc ([0-9"', "score.stdout is no regular expression"),
        ("file: r.json, key: eval.acc", 'stdout: "acc [0-9]+"', "has no group for the number"),
        ("train.py {{lr}}", "train.py | tee x {{lr}}", "which only a shell understands"),
        ("train.py {{lr}}", "'train.py {{lr}}", "quotes do not fit"),
        ("train.py {{lr}}", "train.py {{lr:.3f}}", "braces that are no placeholder"),
        ("inputs", "inputs", ""),
    ],
)
def test_a_bad_file_is_one_line(here, old, new, message):
    if not message:
        text, message = SWEEP + "inputs: [nowhere.txt]\n", "cannot read the input nowhere.txt"
    else:
        assert old in SWEEP
        text = SWEEP.replace(old, new, 1)
    with pytest.raises(HarnessError) as caught:
        sweep_of(here, text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("train.py", "trian.py", "the script trian.py is not there"),
        ("{python} -S train.py", "sh trian.sh", "the script trian.sh is not there"),
        ("{python}", "pythn", "the command's program 'pythn' is not found"),
        ("amsgrad", "steps", "the axis steps has the name of a column"),
        ("majority: 0.5", "resources: {{cpus: 1000}}", "no room for a run with 1000 CPUs"),
        ("majority: 0.5", "resources: {{gpus: 99}}", "no room for a run with 99 GPUs, 1 CPU "),
    ],
)
def test_what_can_t_run_is_refused_before_anything_is_run(here, old, new, message):
    with pytest.raises(HarnessError, match=message):
        gate.check_inputs(sweep_of(here, SWEEP.replace(old, new)), {}, {0})


def test_a_results_folder_that_cannot_be_written_is_refused_by_plan(here, monkeypatch):
    sweep_of(here)
    plan = CliRunner().invoke(cli.app, ["plan", "mine.yaml", "--results", "deep/results"])
    assert plan.exit_code == 0
    assert not (here / "deep").exists()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != here)
    with pytest.raises(HarnessError, match=r"deep/results/mine@default cannot be written: .* is not writable"):
        gate.check_writable(Path("deep/results/mine@default"))
    refused = CliRunner().invoke(cli.app, ["plan", "mine.yaml", "--results", "deep/results"])
    assert refused.exit_code == 2
    with pytest.raises(HarnessError, match="is no folder"):
        gate.check_writable(here / "mine.yaml" / "results")


def test_words_of_a_command(here):
    sweep = sweep_of(here)
    on, off = (expand(sweep)[index] for index in (0, 3))
    assert commands.words_of(on, "a b")[2:] == ["train.py", "1e-3", "--amsgrad", "1", "a b"]
    assert commands.words_of(off, "a b")[2:] == ["train.py", "1e-3", "1", "a b"]
    shell = sweep_of(here, SWEEP.replace("command: ", "shell: on\ncommand: cd . && "))
    assert commands.words_of(expand(shell)[0], "a b")[2].endswith("train.py 1e-3 --amsgrad 1 'a b'")


def test_a_run_without_a_score_is_crashed_and_says_what_there_is(here):
    sweep = sweep_of(here, SWEEP.replace("eval.acc", "eval.accuracy"))
    store = Store(here / "results" / sweep.folder_name)
    outcome = trained(sweep, store, only=("lr=1e-3", "seed=1"))
    assert outcome.crashed == 2
    error = next(iter(store.records(sweep).values())).error
    assert error.splitlines()[-1] == (
        "the run left no score: there is no eval.accuracy in r.json; the keys there are: acc"
    )


def test_a_timeout_ends_the_run_and_its_children(here):
    (here / "train.py").write_text("import subprocess, time\nsubprocess.Popen(['sleep', '77.7'])\ntime.sleep(60)\n")
    sweep = sweep_of(here, SWEEP.replace("majority: 0.5", "majority: 0.5\ntimeout: 1s"))
    store = Store(here / "results" / sweep.folder_name)
    began = time.monotonic()
    assert trained(sweep, store, max_trials=1).crashed == 1
    assert time.monotonic() - began < 20
    assert "longer than the timeout of 1 s" in next(iter(store.records(sweep).values())).error
    assert not running("sleep 77.7")


def running(words: str) -> list[str]:
    out = subprocess.run(["ps", "-eo", "stat,args"], capture_output=True, text=True, check=True).stdout
    return [line for line in out.splitlines() if words in line and not line.startswith("Z")]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_is_left_when_the_sweep_is_ended(here, number):
    (here / "train.py").write_text(
        "import subprocess, time\nsubprocess.Popen(['sleep', '88.8'])\nprint('up', flush=True)\ntime.sleep(60)\n"
    )
    sweep = sweep_of(here)
    command = [sys.executable, "-m", "harness", "sweep", "mine.yaml", "--in-process", "--notice", "0"]
    env = os.environ | {"PYTHONPATH": str(Path(harness.__file__).parents[1])}
    process = subprocess.Popen(command, cwd=here, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    runs = here / "results" / sweep.folder_name / "runs"
    until = time.monotonic() + 60
    while not any(path.stat().st_size for path in runs.glob("*/stdout.txt")) and time.monotonic() < until:
        time.sleep(0.05)
    assert running("sleep 88.8")
    process.send_signal(number)
    if number == signal.SIGINT:
        time.sleep(0.5)
        process.send_signal(number)
    process.wait(60)
    until = time.monotonic() + 20
    while running("sleep 88.8") and time.monotonic() < until:
        time.sleep(0.1)
    assert not running("sleep 88.8")
    assert not list((here / "results" / sweep.folder_name / "trials").glob("*.json"))  # missing, not crashed


def test_a_process_that_left_its_group_is_found_by_its_mark():
    env = os.environ | {reaper.MARK: "the mark of this test"}
    process = subprocess.Popen(["sleep", "99.9"], env=env, start_new_session=True)
    assert reaper.marked("the mark of this test") == [process.pid]
    other = subprocess.Popen(["sleep", "99.8"], start_new_session=True)
    reaper.end(other.pid, "the mark of this test")
    assert process.wait(10) == -signal.SIGKILL
    assert other.wait(10) == -signal.SIGTERM


def test_a_function_is_called_with_its_axes(here):
    (here / "mymodule.py").write_text(
        "def train(lr, seed, report):\n"
        "    for step in range(3):\n"
        "        report(step + 1, loss=1 / (step + 1), score=lr + seed)\n"
        "    return lr + seed\n"
    )
    sweep = sweep_of(
        here,
        "title: f\nfunction: mymodule:train\nlr: [0.25, 0.5]\nseeds: 1..2\n"
        "curves: {{loss: {{file: reports.jsonl, key: loss}}, score: {{file: reports.jsonl, key: score}}}}\n",
    )
    store = Store(here / "results" / sweep.folder_name)
    assert trained(sweep, store).finished == 4
    record = store.load(expand(sweep)[0].id)
    assert record.measured.final_score == 1.25
    assert record.measured.outcome is None  # nothing says when a run failed
    assert store.curves(record.id).train_loss.tolist() == pytest.approx([1, 1 / 2, 1 / 3])
    assert json.loads((store.path(record.id)).read_text())["script"]["exit_code"] == 0


SHOWN = Path(__file__).parents[2] / "docs" / "how-to" / "your-script" / "trainer_witness.yaml"


@pytest.mark.parametrize("path", [SHOWN, Path(harness.__file__).parent / "sweeps" / "any_script.yaml"], ids=str)
def test_the_examples_can_run_from_any_folder(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep = load(path)
    assert len(expand(sweep)) == 32
    gate.check_inputs(sweep, {}, {0})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{{out}}", "{{out}}; rm x", r"the command has {out};, which only a shell understands"),
        ("{{out}}", "{{out}} 2>&1", "the command has 2>&1, which only a shell understands"),
        ("majority: 0.5", "majority: 0.5\ntime_out: 3h", r"time_out is neither .* \(did you mean 'timeout'\?\)"),
        ("majority: 0.5", "majority: 0.5\ngpus: 1", r"\(did you mean 'resources: \{gpus: …\}'\?\)"),
        ("majority: 0.5", "majority: 0.5\nrepeats: 0", r"repeats must be a whole number from 1 to 100 \(got 0\)"),
        ("majority: 0.5", "majority: 0.5\npredictions: {{file: p.txt}}", r"known by its ending \(got 'p.txt'\)"),
        ("{{f1: {{file: r.json, key: f1}}}}", "{{f1: 3}}", r"also\.f1 must say where .* Allowed: f1: \{file: "),
    ],
)
def test_a_file_that_cannot_work_is_refused_in_one_line(here, old, new, message):
    with pytest.raises(HarnessError, match=message) as caught:
        sweep_of(here, SWEEP.replace(old, new))
    assert "\n" not in str(caught.value)


def test_a_misspelt_command_is_recognised(here):
    with pytest.raises(HarnessError, match=r"unknown key 'comand' in mine.yaml \(did you mean 'command'\?\)"):
        sweep_of(here, "comand: sh train.sh {{seed}}\nseeds: 1..2\n")


def test_a_function_of_a_module_that_is_not_there_is_refused(here):
    sweep = sweep_of(here, "title: f\nfunction: no_such.module:train\nseeds: 1..2\n")
    with pytest.raises(HarnessError, match=r"the function's module no_such\.module is not there"):
        gate.check_inputs(sweep, {}, {0})


MODULE = """\
import os
from os.path import join as joined
if os.name:
    def train(lr, seed, *, momentum=0.9): return lr
else:
    train = None
def evaluate(lr, more, seed): return lr
def anything(**settings): return 1
def wrapped(lr): return lr
wrapped = joined(wrapped)
raise SystemExit("nothing imports this")
"""


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("mymodule:train", None),
        ("mymodule:anything", None),
        ("mymodule:wrapped", None),
        ("mymodule:joined", None),
        ("inner.deep:train", None),
        ("json.decoder:JSONDecoder", None),
        (
            "mymodule:trian",
            r"the module mymodule has no trian \(did you mean 'train'\?\).* Allowed: evaluate, anything",
        ),
        ("mymodule:evaluate", r"mymodule:evaluate needs more, which nothing gives"),
        ("mymodule.inner:train", r"mymodule\.inner is not there: no package mymodule"),
        ("inner.other:train", r"inner\.other is not there: .*inner has no other\.py"),
        ("inner.deep:evaluate", r"inner\.deep has no evaluate"),
        ("json.decodr:JSONDecoder", r"json\.decodr is not there: .*json has no decodr\.py"),
        ("broken:train", r"broken\.py cannot be parsed: line 2"),
        ("seedless:train", r"seedless:train takes no lr"),
    ],
)
def test_a_function_is_looked_for_before_anything_runs(here, function, message):
    (here / "mymodule.py").write_text(MODULE)
    (here / "inner").mkdir()
    (here / "inner" / "deep.py").write_text("async def other(): pass\ntrain = lambda lr: lr\n")
    (here / "broken.py").write_text("x = 1\ndef train(:\n")
    (here / "seedless.py").write_text("def train(rate=1): return 1\n")
    sweep = sweep_of(here, f"title: f\nfunction: {function}\nlr: [0.25, 0.5]\nseeds: 1..2\n")
    if message is None:
        gate.check_inputs(sweep, {}, {0})
        return
    with pytest.raises(HarnessError, match=message):
        gate.check_inputs(sweep, {}, {0})
