"""Simple classifiers beside the cells: what they are, when they are trained anew, and what the report says of them."""

import dataclasses
import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
from made_runs import HEAD, Run, sweep_of
from made_runs import store_of as made_store
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score
from typer.testing import CliRunner

from harness.analysis.analyze import analyse
from harness.cli.app import app
from harness.common.errors import HarnessError
from harness.config.recipe import TaskFiles, TaskSpec
from harness.data import tasks
from harness.execution import baselines
from harness.records.record import Baseline
from harness.records.store import Store
from harness.records.study import joined, of_sweep
from harness.report import opening, page
from harness.report.contents import text_tables
from harness.report.sections import baselines as baselines_section
from harness.stats import dev_noise

SHARED = Path(__file__).parents[3] / "shared" / "data"
TWO_CELLS = HEAD + "bias_correction: [off, on]\nlr: 1e-5\nepochs: 1\nseeds: 1..4\n"


def files(folder: Path, train: str, dev: str, header: str = "text\tlabel") -> TaskFiles:
    folder.mkdir(exist_ok=True)
    for name, rows in (("train", train), ("dev", dev)):
        (folder / f"{name}.tsv").write_text(f"{header}\n{rows}")
    return TaskFiles(train=str(folder / "train.tsv"), validation=str(folder / "dev.tsv"))


def trained(spec: TaskSpec, name, seeds=(1, 2)) -> Baseline:
    raw = tasks.load(spec)
    return baselines._trained(baselines._planned(name, raw, seeds), name, raw)


# ----------------------------------------------------------------------------------------------- what they answer


def test_the_features_are_tf_idf_by_hand(tmp_path):
    spec = TaskSpec(name="x", files=files(tmp_path, "A b\t0\nb b\t1\n", "b c A\t0\n"))
    train, dev = baselines._features(tasks.load(spec))
    # Words a, b and their pairs in the order of the alphabet: a, a b, b, b b; idf = ln((1 + n) / (1 + df)) + 1.
    rare, common = math.log(3 / 2) + 1, math.log(3 / 3) + 1
    first, second = np.array([rare, rare, common, 0]), np.array([0, 0, 2 * common, rare])
    expected = np.array([first / np.linalg.norm(first), second / np.linalg.norm(second)])
    np.testing.assert_allclose(train.toarray(), expected, rtol=1e-12)
    known = np.array([rare, 0, common, 0])  # what only the dev text has counts for nothing
    np.testing.assert_allclose(dev.toarray(), [known / np.linalg.norm(known)], rtol=1e-12)


def test_the_texts_of_a_pair_are_separate_blocks(tmp_path):
    rows = files(tmp_path, "a\tb\t0\nb\ta\t1\n", "a\tb\t0\nb\ta\t1\n", "text\ttext_pair\tlabel")
    spec = TaskSpec(name="x", files=rows)
    train, _ = baselines._features(tasks.load(spec))
    assert train.toarray().tolist() == [[1, 0, 0, 1], [0, 1, 1, 0]]
    # One bag of both texts would hold the same words for both labels.
    assert trained(spec, "tfidf_logistic").scores == (1.0,)


def test_signs_and_single_letters_are_words(tmp_path):
    spec = TaskSpec(name="x", files=files(tmp_path, "( & )\t0\n( | )\t1\n", "| ( x\t1\n& !\t0\n"))
    assert trained(spec, "tfidf_logistic").answers == ((1, 0),)


def test_majority_is_that_of_the_dev_labels(tmp_path):
    spec = TaskSpec(name="x", files=files(tmp_path, "a\t0\nb\t0\nc\t1\n", "a\t1\nb\t1\nc\t0\n"))
    found = trained(spec, "majority")
    assert (found.scores, found.failed, found.answers, found.labels) == ((2 / 3,), (True,), ((1, 1, 1),), (1, 1, 0))
    even = TaskSpec(name="x", metric="f1", files=files(tmp_path / "even", "a\t0\nb\t1\n", "a\t0\nb\t1\n"))
    assert trained(even, "majority").answers == ((1, 1),)  # F1 of class 1 is 2/3 there, and 0 for always class 0
    assert trained(even, "majority").scores == (pytest.approx(2 / 3),)
    numbers = TaskSpec(name="x", metric="pearson", files=files(tmp_path / "n", "a\t0.5\nb\t1\n", "a\t0\nb\t1\n"))
    found = trained(numbers, "majority")
    assert (found.scores, found.failed, found.answers) == ((0.0,), (True,), ())


@pytest.mark.parametrize(("metric", "reference"), [("accuracy", accuracy_score), ("f1", f1_score)])
def test_scores_are_the_sweeps_own_metric(data, metric, reference):
    found = trained(data.model_copy(update={"metric": metric}), "tfidf_logistic")
    assert found.seeds == ()
    assert found.scores == (pytest.approx(reference(found.labels, found.answers[0])),)
    assert found.scores[0] > 0.7  # one word decides
    assert found.failed == (False,)


def test_lightgbm_answers_by_seed_and_the_same_again():
    pytest.importorskip("lightgbm")
    spec = TaskSpec(name="embedded")
    found = trained(spec, "tfidf_lightgbm", (1, 2**63 - 1, 3))
    assert found.seeds == (1, 2**63 - 1, 3)
    assert len({*found.answers}) == 3
    assert min(found.scores) > 0.6
    assert trained(spec, "tfidf_lightgbm", (3,)).answers[0] == found.answers[2]
    assert found.versions.keys() == {"scikit-learn", "lightgbm"}


def test_words_of_japanese_texts_are_found_by_mecab(tmp_path):
    pytest.importorskip("fugashi")
    pytest.importorskip("unidic_lite")
    train = "売上高は増加しました\t1\n利益は減少しました\t0\n"
    spec = TaskSpec(name="x", files=files(tmp_path, train, "増加した\t1\n減少した\t0\n"))
    found = trained(spec, "tfidf_logistic")
    assert found.answers == ((1, 0),)  # no text of the dev set has a run of letters that training had
    assert found.settings.endswith("words by MeCab")
    assert found.versions.keys() == {"scikit-learn", "fugashi", "unidic-lite"}
    assert trained(spec, "majority").versions == {}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not here")
def test_real_texts():
    sst2 = TaskSpec(name="sst2", files=str(SHARED / "sst2_small"))
    assert trained(sst2, "tfidf_logistic").scores[0] == pytest.approx(0.76, abs=0.01)


# -------------------------------------------------------------------------------------- when they are trained anew


@pytest.fixture
def asked(tiny_sweep, tmp_path):
    """A sweep that asks for baselines, its store, and a function that trains and gives what was said."""
    sweep = tiny_sweep.model_copy(update={"baselines": ("majority", "tfidf_logistic")})
    store = Store(tmp_path / "results")
    store.folder.mkdir()

    def train(changed=sweep) -> list[str]:
        said: list[str] = []
        baselines.train(changed, store, said.append)
        return said

    return sweep, store, train


def test_they_are_kept_until_something_changes(asked, data, tmp_path, monkeypatch):
    sweep, store, train = asked
    both = [f"Training the baseline {name} on good." for name in sweep.baselines]
    assert train() == both
    content = (store.folder / "baselines.json").read_bytes()
    assert [path.name for path in store.folder.iterdir()] == ["baselines.json"]
    assert train() == []
    assert (store.folder / "baselines.json").read_bytes() == content
    assert [one.name for one in store.baselines()] == list(sweep.baselines)

    seeds = sweep.model_copy(update={"seeds": sweep.seeds[:1]})
    assert train(seeds) == []  # no seed changes these
    with monkeypatch.context() as patch:
        patch.setattr(baselines.importlib.metadata, "version", lambda package: "0.1")
        assert train() == both[1:]
    assert train() == both[1:]

    moved = tmp_path / "moved.tsv"
    moved.write_text(Path(data.files.train).read_text())
    cells = [cell.recipe.task for cell in sweep.cells]

    def with_training_file(path: Path):
        there = cells[0].model_copy(update={"files": data.files.model_copy(update={"train": str(path)})})
        changed = (cell.model_copy(update={"recipe": cell.recipe.model_copy(update={"task": there})})
                   for cell in sweep.cells)  # fmt: skip
        return sweep.model_copy(update={"cells": tuple(changed)})

    assert train(with_training_file(moved)) == []  # the same texts elsewhere
    moved.write_text(Path(data.files.train).read_text() + "one more\tno\n")
    assert train(with_training_file(moved)) == both
    (store.folder / "baselines.json").write_text('[{"name"')
    assert store.baselines() == ()
    assert train() == both
    assert (store.folder / "baselines.json").read_bytes() == content


def test_seeds_of_lightgbm_are_the_sweeps(asked):
    pytest.importorskip("lightgbm")
    sweep, store, train = asked
    trees = sweep.model_copy(update={"baselines": ("tfidf_lightgbm",)})
    assert train(trees) == ["Training the baseline tfidf_lightgbm on good."]
    (found,) = store.baselines()
    assert (found.seeds, len(found.scores), len(found.answers)) == ((1, 2, 3), 3, 3)
    assert len(train(trees.model_copy(update={"seeds": trees.seeds[:2]}))) == 1


def test_what_can_not_be_trained_is_refused(asked, tmp_path, monkeypatch):
    sweep, store, train = asked

    def on(spec: TaskSpec, *names: str):
        recipe = sweep.cells[0].recipe.model_copy(update={"task": spec})
        cell = sweep.cells[0].model_copy(update={"recipe": recipe})
        return sweep.model_copy(update={"cells": (cell,), "baselines": names})

    numbers = TaskSpec(name="x", metric="pearson", files=files(tmp_path / "n", "a\t0.5\nb\t1\n", "a\t0\nb\t1\n"))
    with pytest.raises(
        HarnessError, match=r"tfidf_logistic requires a task with classes \(got x, a regression \(pearson\)"
    ):
        baselines.check(on(numbers, "majority", "tfidf_logistic"))
    baselines.check(on(numbers, "majority"))
    folder = tmp_path / "tagged"
    folder.mkdir()
    for name in ("train", "dev"):
        (folder / f"{name}.conll").write_text("a\tO\nb\tB-X\n\nb\tB-X\n")
    tagged = TaskSpec(name="x", kind="tokens", files=TaskFiles(train=str(folder), validation=str(folder)))
    message = r"requires a task with classes \(got x, a token task \(f1_entity\)\)\. .* majority answers O there"
    with pytest.raises(HarnessError, match=message):
        baselines.check(on(tagged, "tfidf_logistic"))
    japanese = TaskSpec(name="ja", files=files(tmp_path / "ja", "これ\t0\nそれ\t1\n", "あれ\t0\n"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(HarnessError, match=r"requires MeCab, .*pip install .*\[japanese\]'"):
        baselines.check(on(japanese, "tfidf_logistic"))
    baselines.check(on(japanese, "majority"))
    with pytest.raises(HarnessError, match=r"LightGBM, .*pip install .*\[lightgbm\]'"):
        train(on(sweep.cells[0].recipe.task, "tfidf_lightgbm"))
    assert not list(store.folder.iterdir())
    train(on(tagged, "majority"))
    (found,) = store.baselines()
    assert (found.scores, found.failed, found.answers) == ((0.0,), (True,), ())


# --------------------------------------------------------------------------------------------- what the report says


def made(folder: Path, text: str, kept: tuple[Baseline, ...]):
    """Four runs a cell with 300 to 334 and 200 right answers of 400, and baselines beside them."""
    sweep = sweep_of(folder, text)
    right = {0: [Run(300), Run(310), Run(320), Run(334)], 1: [Run(200)] * 4}
    store = made_store(folder, sweep, right)
    store.save_baselines(kept)
    return of_sweep(sweep, store)


def baseline(name: str, right: tuple[int, ...], **changes) -> Baseline:
    """The first `right` answers are right, as in the made-up runs."""
    labels = (0,) * 200 + (1,) * 200
    answers = tuple(tuple(label if place < k else 1 - label for place, label in enumerate(labels)) for k in right)
    fields = {
        "name": name, "settings": "made up", "task": "embedded", "metric": "accuracy", "data_sha256": "b" * 64,
        "versions": {}, "seeds": tuple(range(len(right))) if len(right) > 1 else (),
        "scores": tuple(k / 400 for k in right), "failed": tuple(k <= 200 for k in right),
        "labels": labels, "answers": answers,
    }  # fmt: skip
    return Baseline(**(fields | changes))


ALL = "baselines: [majority, tfidf_logistic, tfidf_lightgbm]\n"
THREE = (
    baseline("majority", (200,)),
    baseline("tfidf_logistic", (280,)),
    baseline("tfidf_lightgbm", (220, 240, 260, 230)),
)


def test_cells_and_baselines_stand_in_one_table(tmp_path):
    found = analyse(made(tmp_path, TWO_CELLS + ALL, THREE))
    table = found.baselines
    assert list(table["what"]) == ["bias correction off", "bias correction on", *(one.name for one in THREE)]
    assert table["mean"].tolist() == pytest.approx([316 / 400, 0.5, 0.5, 0.7, 237.5 / 400])
    assert table["runs"].tolist() == [4, 4, 1, 1, 4]
    assert table["failed"].tolist() == [0, 4, 1, 0, 0]
    assert table["sd"].tolist()[2:] == pytest.approx([0, 0, np.std([0.55, 0.6, 0.65, 0.575], ddof=1)])
    assert table["mean_low"].notna().tolist() == [True, False, False, False, True]
    assert table["against"].tolist() == ["tfidf_logistic"] * 2 + [""] * 3
    assert table["difference"].tolist()[:2] == pytest.approx([316 / 400 - 0.7, -0.2])
    # By hand, the bootstrap's error of a mean over examples; from 280 on they differ.
    share = np.concatenate([np.zeros(300), [0.25] * 10, [0.5] * 10, [0.75] * 14, np.ones(66)])  # wrong answers
    error = 1.96 * np.std(1 - share) / 20
    assert table["dev_low"][0] == pytest.approx(316 / 400 - error, abs=0.006)
    assert table["dev_high"][0] == pytest.approx(316 / 400 + error, abs=0.006)
    gained = np.concatenate([np.zeros(280), np.ones(20), [0.75] * 10, [0.5] * 10, [0.25] * 14, np.zeros(66)])
    over_seeds = stats.t.ppf(0.975, 3) * np.std([300, 310, 320, 334], ddof=1) / 400 / 2
    over_both = math.hypot(1.96 * np.std(gained, ddof=1) / 20, over_seeds)
    assert table["difference_high"][0] - table["difference"][0] == pytest.approx(over_both, rel=1e-3)
    shown = text_tables(found)["baselines"]
    assert shown.header[:3] == ("cell or baseline", "runs", "failed")
    assert shown.rows[3][:5] == ("tfidf_logistic", "any seed", "0/1", "0.700", "0.000")
    assert [row[-1][:5] for row in shown.rows] == ["0.090", "−0.20", "–", "–", "–"]
    said = baselines_section.sentences(found)
    assert said[0].startswith(
        "The best cell, bias correction off (mean 0.790 of 4 runs), is 0.090 above the best baseline, tfidf_logistic "
        "(0.700); the difference in accuracy over seeds and dev examples is 9.0 points ["
    )
    assert said[0].endswith(
        "]: fine-tuning cannot be distinguished from it (the best cell was selected on these examples, which favours "
        "it)."
    )
    assert said[0] in opening.answer(found)
    assert said[1:] == [
        "1 of 2 cells have a mean at or below tfidf_logistic's.",
        "majority: made up; tfidf_logistic: made up; tfidf_lightgbm: made up.",
    ]


def test_what_no_seed_changes_counts_as_the_same_run_with_each(tmp_path):
    found = analyse(made(tmp_path, TWO_CELLS + ALL, (THREE[2], baseline("tfidf_logistic", (316,)))))
    row = found.baselines.iloc[0]
    assert row["difference"] == 0
    assert row["difference_low"] < 0 < row["difference_high"]
    said = baselines_section.sentences(found)
    assert "equals the best baseline, tfidf_logistic" in said[0]
    assert "fine-tuning cannot be distinguished from it" in said[0]
    assert said[-1] == (
        "Not trained on these data yet: 1 baseline (majority). The next `harness sweep` trains what is missing."
    )


def test_baselines_of_other_data_or_another_metric_are_not_compared(tmp_path):
    for change in ({"data_sha256": "c" * 64}, {"metric": "f1"}):
        found = analyse(made(tmp_path / str(len(change)) / next(iter(change)), TWO_CELLS + ALL,
                             tuple(one.model_copy(update=change) for one in THREE)))  # fmt: skip
        assert not len(found.baselines)
        said = baselines_section.sentences(found)
        assert said == [
            "Not trained on these data yet: 3 baselines (majority, tfidf_logistic, tfidf_lightgbm). The next "
            "`harness sweep` trains what is missing."
        ]


def test_a_sweep_that_asks_for_none_says_nothing_of_them(tmp_path, no_figures):
    plain, asking = (made(tmp_path / name, TWO_CELLS + more, THREE) for name, more in (("a", ""), ("b", ALL)))
    written = [page.write(study, tmp_path / study.sweeps[0].name / str(place)) for place, study in
               enumerate((plain, asking))]  # fmt: skip
    texts = [(one.folder / "report.md").read_text() for one in written]
    assert ["Simple baselines" in text for text in texts] == [False, True]
    assert [(one.folder / "tables" / "baselines.csv").exists() for one in written] == [False, True]
    assert "baselines" not in written[0].summary
    rows = json.loads(json.dumps(written[1].summary["baselines"], allow_nan=False))
    assert [row["what"] for row in rows][2:] == ["majority", "tfidf_logistic", "tfidf_lightgbm"]
    assert rows[2]["cell"] is None
    assert rows[2]["difference"] is None
    both = joined(asking, dataclasses.replace(asking, name="other"))
    assert len(both.baselines) == 3
    assert len(analyse(both).baselines) == 7


def test_the_interval_over_examples(tmp_path):
    rng = np.random.default_rng(0)
    correct = rng.random((3, 500)) < 0.8
    low, high = dev_noise.example_interval(correct, np.random.default_rng(1), 4000)
    error = 1.96 * correct.mean(axis=0).std() / np.sqrt(500)
    assert (low, high) == (
        pytest.approx(correct.mean() - error, abs=2e-3),
        pytest.approx(correct.mean() + error, abs=2e-3),
    )
    assert dev_noise.example_interval(np.ones((2, 10), dtype=bool), rng) == (1, 1)
    assert np.isnan(dev_noise.example_interval(np.ones((2, 1), dtype=bool), rng)).all()
    with pytest.raises(ValueError, match="booleans"):
        dev_noise.example_interval(np.ones((2, 3)), rng)


def test_sweep_trains_them_and_reports(data, bert, tmp_path, no_figures, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = f"task: {json.dumps(data.model_dump(exclude_none=True))}\nmodel: {json.dumps(bert.model_dump())}\n"
    Path("tiny.yaml").write_text(
        text + "lr: 1e-3\nepochs: 1\nbatch_size: 8\nseeds: [1]\nbaselines: [majority, tfidf_logistic]\n"
    )
    first = CliRunner().invoke(app, ["sweep", "tiny.yaml", "--in-process"])
    assert first.exit_code == 0, first.output
    assert "Training the baseline tfidf_logistic on good." in first.stdout
    again = CliRunner().invoke(app, ["sweep", "tiny.yaml", "--in-process"])
    assert "Training the baseline" not in again.stdout
    shown = json.loads(CliRunner().invoke(app, ["report", "tiny.yaml", "--json"]).stdout)
    assert [row["what"] for row in shown["baselines"]] == ["the only recipe", "majority", "tfidf_logistic"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    refused = CliRunner().invoke(app, ["sweep", "tiny.yaml", "--in-process", "--set", "baselines=[tfidf_lightgbm]"])
    assert refused.exit_code == 2
    assert "[lightgbm]'" in refused.stderr
