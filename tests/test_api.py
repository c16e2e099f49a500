"""`import harness`: what it gives, how it fails, and that nothing heavy is imported for it."""

import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_runs import HEAD, Run, study_of
from matplotlib.figure import Figure

import harness
from harness.config.recipe import ModelSpec, TaskSpec
from harness.config.trials import expand
from harness.execution import follow
from harness.execution.driver import Progress
from harness.report.figures import all_figures
from harness.report.page import write

ROOT = Path(harness.__file__).parents[1]


def python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", code]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)


def test_the_import_is_quick_and_lazy(tmp_path: Path) -> None:
    code = (
        "import sys, time\nbegan = time.process_time()\nimport harness\ntook = time.process_time() - began\n"
        "heavy = {'pandas', 'numpy', 'torch', 'pydantic', 'ray', 'matplotlib', 'yaml'} & set(sys.modules)\n"
        "print(took, sorted(heavy), harness.load_sweep.__module__, 'torch' in sys.modules, 'ray' in sys.modules)"
    )
    took, *rest = python(code, tmp_path).stdout.split(maxsplit=1)
    assert rest == ["[] harness.execution.loaded_sweep False False\n"]
    assert float(took) < 0.1


def test_everything_that_is_promised_is_there() -> None:
    for name in harness.__all__:
        assert getattr(harness, name).__doc__
    assert set(harness.__all__) <= set(dir(harness))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        harness.nonsense  # noqa: B018


def test_every_public_function_says_its_arguments_and_what_it_gives() -> None:
    import inspect

    functions = [getattr(harness, name) for name in ("load_sweep", "run", "open", "read_runs")]
    functions += [getattr(harness.Results, name) for name in ("curves", "failures", "compare", "report", "rerun")]
    for function in functions:
        given = [name for name in inspect.signature(function).parameters if name != "self"]
        for name in given:
            assert re.search(rf"^ +{name}: ", function.__doc__, re.MULTILINE), f"{function.__name__}: {name}"


# ---------------------------------------------------------------------------------------------------------- sweeps


def test_a_sweep_is_found_by_its_name_and_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = harness.load_sweep("smoke", set={"seeds": "1..3", "lr": [1e-4, 2e-4], "bias_correction": True})
    assert (sweep.name, sweep.profile, sweep.source) == ("smoke", "embedded", "smoke")
    assert [dict(cell.axes)["lr"] for cell in sweep.cells] == [1e-4, 2e-4]
    assert [trial.seeds.seed for trial in sweep.trials] == [1, 2, 3, 1, 2, 3]
    assert sweep.cells[0].recipe.bias_correction is True
    assert repr(sweep) == "<sweep smoke@embedded: 2 cells × 3 seeds = 6 trials>"
    assert "<td>2e-4</td>" in sweep._repr_html_()
    assert harness.load_sweep("smoke", set=["seeds=[7]"]).trials[0].seeds.seed == 7


def test_ones_own_sweep_comes_before_a_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "smoke.yaml").write_text(f"{HEAD}lr: 1e-4\nepochs: 1\nseeds: [5]\n")
    assert len(harness.load_sweep("smoke").trials) == 1
    assert len(harness.load_sweep("rte_lr", profile="embedded").trials) == 96


def test_a_name_that_is_none_is_said_with_what_may_be_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(harness.HarnessError, match=r"unknown sweep 'smok' \(did you mean 'smoke'\?\)"):
        harness.load_sweep("smok")
    with pytest.raises(harness.HarnessError, match="`harness init zzz` begins a new one"):
        harness.load_sweep("zzz")
    with pytest.raises(harness.HarnessError, match="Use `harness search search_rte`"):
        harness.run("search_rte")


# ---------------------------------------------------------------------------------------------------------- results


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> harness.Results:
    """Two arms at two rates over four seeds: at 6e-4 without bias correction all fail, one elsewhere is missing."""
    folder = tmp_path_factory.mktemp("made")
    text = f"{HEAD}bias_correction: [off, on]\nlr: [2e-4, 6e-4]\nepochs: 1\nseeds: 1..4\n"
    fine: list[Run | None] = [Run(correct=300 + seed) for seed in range(4)]
    failed: list[Run | None] = [Run(correct=200, loss=0.69) for _ in range(4)]
    study = study_of(folder, text, {0: fine, 1: failed, 2: fine, 3: fine[:3]})
    return harness.Results(study, folder / study.name)


def test_runs_and_cells_are_typed_tables(made: harness.Results) -> None:
    runs = made.runs
    assert len(runs) == 16
    assert list(runs["verdict"].value_counts().loc[["ok", "failed"]]) == [11, 4]
    assert runs["correct"].dtype == "Int64"
    assert runs["correct"].isna().sum() == 1
    assert runs["bias_correction"].dtype == bool
    assert runs["lr"].dtype == float
    assert pd.api.types.is_string_dtype(runs["trial"])
    assert list(made.cells["failed"]) == [0, 4, 0, 0]
    assert list(made.cells["missing"]) == [0, 0, 0, 1]
    assert "15 finished, 0 crashed, 1 missing; 4 failed" in repr(made)


def test_a_notebook_shows_the_answer_and_the_cells(made: harness.Results) -> None:
    page = made._repr_html_()
    assert all(sentence.split()[0] in page for sentence in made.answer)
    assert "<td>4/4</td><td>51 to 100 %</td>" in page
    assert page.count("<tr>") == 5


def test_failed_runs_are_listed_with_their_reason(made: harness.Results) -> None:
    failures = made.failures()
    assert list(failures["kind"]) == ["not optimised"] * 4
    assert set(failures["lr"]) == {6e-4}
    assert failures["command"][0].endswith(failures["trial"][0])


def test_the_values_of_an_axis_are_compared(made: harness.Results) -> None:
    (row,) = made.compare("bias_correction").to_dict("records")
    assert (row["value"], row["reference"], row["failed"], row["reference_failed"]) == (True, False, 0, 4)
    assert row["difference"] < row["difference_high"] < 0
    assert row["mean"] == pytest.approx(made.runs[made.runs.bias_correction]["final_score"].mean())
    assert row["reference_mean"] == pytest.approx(made.runs[~made.runs.bias_correction]["final_score"].mean())
    with pytest.raises(harness.HarnessError, match=r"cannot compare along 'epochs', .*Allowed: bias_correction, lr"):
        made.compare("epochs")


def test_a_runs_curves_are_tables(made: harness.Results) -> None:
    trial = made.runs.trial[0]
    curves = made.curves(trial)
    assert list(curves.steps.columns) == ["step", "train_loss", "lr", "grad_norm"]
    assert curves.steps["step"].iloc[-1] == len(curves.steps) == made.runs.steps[0]
    assert curves.evaluations["dev_score"].iloc[-1] == pytest.approx(made.runs.final_score[0])
    assert made.curves(trial[:-1]).steps.equals(curves.steps)
    with pytest.raises(harness.HarnessError, match="several trials begin with 'lr'"):
        made.curves("lr")
    with pytest.raises(harness.HarnessError, match="they are kept of finished trials"):
        made.curves(made.runs.trial[15])


def test_there_is_a_function_for_every_figure(made: harness.Results) -> None:
    names = {name for name in vars(harness.Plots) if not name.startswith("_")}
    assert names == {maker.__name__ for maker in all_figures.MAKERS}
    assert isinstance(made.plot.spread(), Figure)
    with pytest.raises(harness.HarnessError, match="nothing for the figure loss_surface to show"):
        made.plot.loss_surface()


@pytest.mark.usefixtures("no_figures")
def test_a_report_is_the_one_of_the_command(made: harness.Results, tmp_path: Path) -> None:
    page = made.report(tmp_path / "page")
    assert page == tmp_path / "page" / "index.html"
    write(made.study, tmp_path / "other")
    assert page.read_bytes() == (tmp_path / "other" / "index.html").read_bytes()


def test_runs_of_other_code_are_read_from_a_table_and_from_a_file(tmp_path: Path) -> None:
    table = pd.DataFrame({"method": ["a"] * 3 + ["b"] * 3, "seed": [1, 2, 3] * 2, "acc": [0.5, 0.7, 0.71] + [0.8] * 3})
    results = harness.read_runs(table, cell="method", seed="seed", metric="acc", majority=0.5)
    assert list(results.cells["failed"]) == [1, 0]
    assert results.folder is None
    table.to_csv(tmp_path / "runs.csv", index=False)
    same = harness.read_runs(tmp_path / "runs.csv", cell=["method"], seed="seed", metric="acc", majority=0.5)
    assert same.cells.equals(results.cells)
    with pytest.raises(harness.HarnessError, match="so a report needs one"):
        results.report()
    with pytest.raises(harness.HarnessError, match="its runs were not trained by the harness"):
        results.rerun("1")
    with pytest.raises(harness.HarnessError, match="accuracy"):
        harness.read_runs(table, cell="method", seed="seed", metric="accuracy")


def test_a_sweep_is_trained_opened_and_rerun(
    tmp_path: Path, bert: ModelSpec, data: TaskSpec, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert data.files is not None
    files = {"train": data.files.train, "validation": data.files.validation}
    (tmp_path / "tiny.yaml").write_text(
        f"task: {{name: good, files: {files}}}\nmodel: {bert.folder}\n"
        "lr: 1e-3\nepochs: 1\nmax_length: 16\nseeds: 1..2\n"
    )
    first = harness.run("tiny.yaml", in_process=True, max_trials=1)
    assert list(first.runs["status"]) == ["finished", "missing"]
    assert "1/2 finished" in capsys.readouterr().err
    results = harness.run(harness.load_sweep("tiny.yaml"), in_process=True, progress=False)
    assert list(results.runs["status"]) == ["finished", "finished"]
    assert capsys.readouterr().err == ""
    opened = harness.open("results/tiny@default")
    assert opened.runs["weights_sha256"].equals(results.runs["weights_sha256"])
    trial = expand(results.study.sweeps[0])[1].id
    assert opened.rerun(trial, progress=False).verdict == "identical"
    assert opened.curves(trial).steps["train_loss"].notna().all()


# --------------------------------------------------------------------------------------------------------- progress


class Shell:
    config = ("IPKernelApp",)


class Handle:
    def __init__(self) -> None:
        self.shown: list[str] = []

    def update(self, value: str) -> None:
        self.shown.append(value)


def test_a_notebook_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = Handle()
    python = types.ModuleType("IPython")
    python.get_ipython = Shell  # type: ignore[attr-defined]
    display = types.ModuleType("IPython.display")
    display.HTML = str  # type: ignore[attr-defined]
    display.display = lambda value, display_id: handle  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", python)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    with follow.sweep_shown() as shown:
        shown(Progress(planned=4, finished=1, crashed=1, failed=1, messages=["a <note>"]))
        shown(Progress(planned=4, finished=3, crashed=1, failed=1))
    assert handle.shown[0] == (
        '<div>a &lt;note&gt;</div><progress value="2" max="4"></progress> 1/4 finished, 1 failed, 1 crashed'
    )
    assert handle.shown[-1] == "<div>a &lt;note&gt;</div>"  # the bar goes, what was said stays


def test_a_log_has_a_line_every_tenth(capsys: Any) -> None:
    with follow.steps_shown("steps") as shown:
        for step in range(1, 101):
            shown(step, 100)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11
    assert lines[-1] == "100/100 steps"
