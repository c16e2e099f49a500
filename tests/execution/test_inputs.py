"""What `plan` accepts, `sweep` starts: both refuse the same in one line, before anything is trained or written."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from made_files import folder
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from harness.cli.app import app
from harness.config.recipe import ModelSpec, TaskSpec
from harness.config.sweep_file import load
from harness.execution import driver
from harness.records.store import Store

LINE = "harness: "


@pytest.fixture
def sweep(tmp_path: Path, bert: ModelSpec, data: TaskSpec, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep of one short run on a model folder of its own, in the working directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(str(bert.folder), tmp_path / "model")
    assert data.files is not None
    files = f"{{train: {data.files.train}, validation: {data.files.validation}}}"
    (tmp_path / "own.yaml").write_text(
        f"task: {{name: good, files: {files}}}\nmodel: ./model\nlr: 1e-3\nepochs: 1\nmax_length: 16\nseeds: 1..2\n"
    )
    return tmp_path / "own.yaml"


def run(*words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, list(words))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def refused(sweep: Path, *settings: str, how: tuple[str, ...] = ("--in-process",)) -> str:
    """The line that plan and sweep both refuse with; nothing was recorded."""
    changes = [word for setting in settings for word in ("--set", setting)]
    planned = run("plan", str(sweep), *changes)
    swept = run("sweep", str(sweep), *how, *changes)
    assert planned[0] == swept[0] == 2, (planned, swept)
    assert planned[2] == swept[2]
    assert planned[2].startswith(LINE)
    assert planned[2].count("\n") == 1
    assert not list(sweep.parent.glob("results/*/trials/*"))
    return planned[2]


def test_a_plan_refuses_what_a_sweep_refuses(sweep: Path) -> None:
    assert "unknown task 'RTE' (did you mean 'rte'?)" in refused(sweep, "task=RTE")
    assert "did you mean 'sst2'?" in refused(sweep, "task=sst-2")
    assert "line 1: typographic quotes are not YAML's quotes (got “rte”)" in refused(sweep, "task=“rte”")
    assert "has no config.json" in refused(sweep, "model.folder=/nowhere")
    assert "no such file or folder" in refused(sweep, "task.files=/nowhere")
    same = folder(sweep.parent / "same", "text\tlabel\na\tx\nb\ty\n", "text\tlabel\na\tx\nb\tx\n")
    assert "the dev labels are all" in refused(sweep, f"task.files={same}", "batch_size=2")
    empty = folder(sweep.parent / "empty", "", "")
    assert "has no rows" in refused(sweep, f"task.files={empty}")
    assert "the baseline tfidf_logistic requires a task with classes" in refused(
        sweep, "task.metric=pearson", f"task.files={_numbers(sweep)}", "baselines=tfidf_logistic", "batch_size=2"
    )
    sweep.write_text(sweep.read_text().replace("lr: 1e-3", "lr: “1e-3”"))
    assert "line 3: typographic quotes" in refused(sweep)


def _numbers(sweep: Path) -> Path:
    rows = "text\tlabel\na\t1\nb\t2\nc\t4\n"
    return folder(sweep.parent / "numbers", rows, rows)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read(sweep: Path) -> None:
    (sweep.parent / "model" / "model.safetensors").chmod(0)
    assert "permission denied" in refused(sweep)


def test_damaged_weights_are_one_line_before_training(sweep: Path) -> None:
    path = sweep.parent / "model" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "cannot read model/" in refused(sweep)
    assert "cannot read model/" in refused(sweep, how=())  # over Ray, which isn't even begun


def test_a_weight_that_is_nan_is_one_line_before_training(sweep: Path) -> None:
    path = sweep.parent / "model" / "model.safetensors"
    tensors = load_file(path)
    tensors["encoder.layer.0.output.dense.bias"][0] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})
    assert run("plan", str(sweep))[0] == 0  # it loads no weights
    for how in (["--in-process"], []):
        code, _, said = run("sweep", str(sweep), *how)
        assert (code, said.count("\n")) == (2, 1)
        assert "not all finite: NaN (1 of 16 numbers) in encoder.layer.0.output.dense.bias" in said
    assert not list(sweep.parent.glob("results/*/trials/*"))


def test_a_plan_tells_what_the_labels_can_not_show(sweep: Path) -> None:
    train = "text\tlabel\n" + "".join(f"t{number}\t{'ab'[number % 2]}\n" for number in range(20))
    dev = "text\tlabel\n" + "".join(f"d{number}\t{'b' if number == 5 else 'a'}\n" for number in range(20))
    files = folder(sweep.parent / "unbalanced", train, dev)
    code, shown, _ = run("plan", str(sweep), "--set", f"task.files={files}")
    assert code == 0
    assert "19 of 20 dev examples are of 'a': always answering that scores 0.950" in shown
    told = json.loads(run("plan", str(sweep), "--json", "--set", f"task.files={files}")[1])["notes"]
    assert len(told) == 1
    assert told[0] in shown


def test_a_plan_of_what_is_not_here_says_so(sweep: Path) -> None:
    code, shown, _ = run("plan", str(sweep), "--set", "task=rte", "--set", "model=org/absent")
    assert code == 0
    assert shown.count("A sweep could not start here: ") == 2
    assert "cannot find the model 'org/absent'" in shown


def test_a_share_of_the_training_file_trains_and_is_recorded(sweep: Path, data: TaskSpec) -> None:
    assert data.files is not None
    shutil.copy(data.files.train, sweep.parent / "train.tsv")
    resolved = load(sweep, None, [f"task.files={sweep.parent}", "task.validation=0.2", "seeds=1"])
    store = Store(sweep.parent / "share")
    assert driver.run(resolved, store, driver.Options(in_process=True), lambda progress: None).finished == 1
    (record,) = store.records(resolved).values()
    assert record.measured is not None
    assert (record.trial.recipe.task.validation, record.trial.recipe.task.validation_seed) == (0.2, 0)
    assert (record.measured.train_examples, record.measured.dev_examples) == (48, 12)


def test_plan_needs_no_torch(sweep: Path) -> None:
    code = "import sys; from harness.cli.app import app\ntry: app(['plan', sys.argv[1]])\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'transformers', 'ray'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code, str(sweep)], check=True, cwd=sweep.parent, capture_output=True)
