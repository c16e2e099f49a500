"""A sweep that is scored by a function of one's own, from its file to the record and the page."""

from pathlib import Path

import numpy as np
import pytest

from harness.common import hub
from harness.common.errors import HarnessError
from harness.config.recipe import ModelSpec, TaskSpec
from harness.config.sweep_file import load
from harness.config.trials import Sweep, expand
from harness.execution import driver, gate, shipping
from harness.execution.verification import verify
from harness.records.store import Store
from harness.records.study import of_sweep
from harness.report import page

METRIC = (
    "def balanced(labels, predictions):\n    return sum((predictions[labels == k] == k).mean() for k in (0, 1)) / 2\n"
)


def sweep_of(folder: Path, metric: str) -> Sweep:
    for split in ("train", "dev"):
        rows = "".join(f"{'good' if row % 3 else 'bad'} {split} thing {row}\t{int(row % 3 > 0)}\n" for row in range(24))
        (folder / f"{split}.tsv").write_text("text\tlabel\n" + rows)
    path = folder / "mine.yaml"
    files = f"{{train: {folder}/train.tsv, validation: {folder}/dev.tsv}}"
    path.write_text(
        f"task: {{name: mine, files: {files}, metric: '{metric}', allow_unknown: on}}\nmodel: embedded\n"
        "lr: 1e-3\nepochs: 1\nbatch_size: 8\nmax_length: 16\nseeds: 1..2\n"
    )
    return load(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Sweep, Store]:
    folder = tmp_path_factory.mktemp("own_metric")
    (folder / "my_metrics.py").write_text(METRIC)
    sweep = sweep_of(folder, f"{folder}/my_metrics.py:balanced")
    store = Store(folder / "results" / sweep.folder_name)
    driver.run(sweep, store, driver.Options(in_process=True), lambda progress: None)
    return folder, sweep, store


def test_the_record_has_the_score_and_the_files_hash(trained: tuple[Path, Sweep, Store]) -> None:
    _, sweep, store = trained
    for trial in expand(sweep):
        record, curves = store.load(trial.id), store.arrays(trial.id)
        assert record is not None
        assert record.measured is not None
        assert curves is not None
        answers = curves.logits.argmax(axis=1)
        expected = np.mean([(answers[curves.labels == k] == k).mean() for k in (0, 1)])
        assert record.measured.final_score == pytest.approx(expected)
        assert (record.measured.metric, record.measured.majority_score) == ("my_metrics:balanced", 0.5)
        assert len(record.measured.metric_sha256 or "") == 64


def test_an_id_does_not_depend_on_where_the_file_is(trained: tuple[Path, Sweep, Store], tmp_path: Path) -> None:
    (tmp_path / "my_metrics.py").write_text(METRIC)
    elsewhere = sweep_of(tmp_path, f"{tmp_path}/my_metrics.py:balanced")
    assert [trial.id for trial in expand(elsewhere)] == [trial.id for trial in expand(trained[1])]
    assert expand(sweep_of(tmp_path, "accuracy"))[0].id != expand(elsewhere)[0].id


def test_a_changed_function_is_not_mixed_with_the_old_one(trained: tuple[Path, Sweep, Store], tmp_path: Path) -> None:
    _, sweep, store = trained
    gate.check_planned(sweep, store.records(sweep))
    (tmp_path / "my_metrics.py").write_text(METRIC + "# changed\n")
    changed = sweep_of(tmp_path, f"{tmp_path}/my_metrics.py:balanced")
    with pytest.raises(HarnessError, match="is not the one that the finished trials were scored with"):
        gate.check_planned(changed, store.records(changed))
    gate.check_planned(sweep, store.records(sweep))


def test_verify_runs_its_code_where_that_is_trusted(trained: tuple[Path, Sweep, Store]) -> None:
    _, sweep, store = trained
    assert not verify.check(sweep, store).problems
    hub.trust_remote_code(True)
    try:
        assert not verify.check(sweep, store).problems
        trial = expand(sweep)[0]
        record, curves = store.load(trial.id), store.arrays(trial.id)
        assert record is not None
        assert record.measured is not None
        lied = record.measured.model_copy(update={"final_score": 0.9})
        assert list(verify.check_measured(lied, curves, trial.recipe))
    finally:
        hub.trust_remote_code(False)


def test_the_page_names_the_function(trained: tuple[Path, Sweep, Store], tmp_path: Path) -> None:
    _, sweep, store = trained
    page.write(of_sweep(sweep, store), tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    assert "Scores are dev balanced at the end of training, higher is better; only" in text
    assert "Failed means a final balanced at or below that of always answering the majority class, 0.500" in text


def test_the_file_goes_to_the_workers(trained: tuple[Path, Sweep, Store], tmp_path: Path) -> None:
    folder, sweep, _ = trained
    trial = expand(sweep)[0]
    content = shipping.files(trial.recipe.task)
    assert content is not None
    assert sorted(content) == ["metric/my_metrics.py", "train/train.tsv", "validation/dev.tsv"]
    moved = shipping.moved(trial, {trial.recipe.task: shipping.unpacked(shipping.sha256(content), lambda: content)})
    file = moved.recipe.task.metric_file
    assert file is not None
    assert Path(file).read_text() == METRIC
    assert not file.startswith(str(folder))
    assert moved.id == trial.id
    alone = TaskSpec.model_validate({"name": "embedded", "metric": f"{folder}/my_metrics.py:balanced"})
    assert list(shipping.files(alone) or ()) == ["metric/my_metrics.py"]
    assert shipping.files(ModelSpec(name="embedded")) is None


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("my_metrics:balanced", "must name the file of its function"),
        ("acuracy", "task.metric must be one of accuracy, .*, or FILE.py:FUNCTION"),
        ("no_such.py:f", "cannot read the metric's file no_such.py"),
    ],
)
def test_what_is_no_metric_is_said(tmp_path: Path, metric: str, words: str) -> None:
    with pytest.raises(HarnessError, match=words):
        gate.check_inputs(sweep_of(tmp_path, metric), {}, [0])


def test_a_loss_of_scikit_learns_is_its_negative(tmp_path: Path) -> None:
    assert sweep_of(tmp_path, "log_loss").cells[0].recipe.task.metric == "neg_log_loss"
