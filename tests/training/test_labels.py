"""Texts with any number of labels: read, trained as transformers does, scored as scikit-learn does, reported."""

from __future__ import annotations

import csv
import json
import math
import random
import warnings
from collections.abc import Callable
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cut_runs import same_lane
from sklearn.metrics import f1_score
from training_runs import begin, loss_of

from harness.common import metrics
from harness.common.errors import HarnessError
from harness.config.recipe import ModelSpec, TaskFiles, TaskSpec
from harness.config.recipe_rules import check_recipe
from harness.config.sweep_file import load
from harness.config.trials import Trial, expand
from harness.data import summary, tasks
from harness.execution import driver
from harness.execution.driver import Options
from harness.execution.rerun import rerun
from harness.execution.verification import scores as verify_scores
from harness.execution.verification import verify
from harness.models import predict_labels, saved
from harness.models.predict import PredictionOptions
from harness.records.store import Store
from harness.records.study import of_sweep
from harness.report import page
from harness.training import loop
from harness.training.prepare import load_task

Make = Callable[..., Trial]
NAMES = ("blue", "new", "red")


@pytest.fixture(scope="module")
def topics(tmp_path_factory: pytest.TempPathFactory) -> TaskSpec:
    """Texts of letters and of any of three words, which are their labels; 64 of training, 30 of dev, 10 of test."""
    folder, draw = tmp_path_factory.mktemp("topics"), random.Random(3)
    for split, count in (("train", 64), ("dev", 30), ("test", 10)):
        rows = []
        for _ in range(count):
            labels = [name for name in NAMES if draw.random() < 0.4]
            words = [*labels, *draw.choices("abcdefgh", k=draw.randint(1, 5))]
            rows.append(json.dumps({"text": " ".join(draw.sample(words, len(words))), "labels": labels}))
        (folder / f"{split}.jsonl").write_text("\n".join(rows) + "\n")
    files = TaskFiles(train=str(folder), validation=str(folder), test=str(folder))
    return TaskSpec(name="topics", kind="labels", label="labels", files=files)


def test_a_list_and_names_with_bars_are_the_same_task(topics: TaskSpec, tmp_path: Path) -> None:
    raw = tasks.load(topics)
    assert raw.label_names == NAMES
    assert raw.train.labels.shape == (64, 3)
    assert topics.files is not None
    for split in ("train", "dev", "test"):
        rows = map(json.loads, (Path(topics.files.train) / f"{split}.jsonl").read_text().splitlines())
        lines = [f"{row['text']}\t{' | '.join(row['labels']) or '[]'}" for row in rows]
        (tmp_path / f"{split}.tsv").write_text("\n".join(["text\tlabels", *lines]) + "\n")
    files = TaskFiles(train=str(tmp_path), validation=str(tmp_path), test=str(tmp_path))
    assert tasks.load(topics.model_copy(update={"files": files})).sha256 == raw.sha256
    described = summary.describe(topics, None, 16)
    assert described.train.labels == dict(zip(NAMES, raw.train.labels.sum(axis=0).tolist(), strict=True))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"text": "a", "labels": ["red", null]}', r"train.jsonl, line 3: labels that are no names"),
        ('{"text": "a", "labels": ["red", "red"]}', "a label stands twice"),
        ('{"text": "a"}', "no key labels"),
        ('{"text": " ", "labels": []}', "no text"),
    ],
)
def test_rows_that_are_none_are_refused(topics: TaskSpec, tmp_path: Path, row: str, message: str) -> None:
    good = '{"text": "a", "labels": ["red"]}\n{"text": "b", "labels": ["blue"]}\n'
    (tmp_path / "train.jsonl").write_text(good + row)
    (tmp_path / "dev.jsonl").write_text(good)
    files = TaskFiles(train=str(tmp_path), validation=str(tmp_path))
    with pytest.raises(HarnessError, match=message):
        tasks.load(topics.model_copy(update={"files": files}))


def test_a_column_that_lacks_is_set_in_the_sweep_file(topics: TaskSpec) -> None:
    for role, column in (("label", "label"), ("text_pair", "reply")):
        spec = topics.model_copy(update={role: column})
        with pytest.raises(HarnessError, match=rf"no column {column} for task\.{role}.*Set task\.{role}\."):
            tasks.load(spec)


def test_a_step_s_loss_is_transformers_own(trial: Make, topics: TaskSpec, bert: ModelSpec) -> None:
    run = begin([trial(1, task=topics, dropout=0.0, batch_size=8)])
    batch = run.batches.draw(0)
    ours = loss_of(run, batch) / 8
    from transformers import AutoModelForSequenceClassification

    with torch.random.fork_rng(devices=[]):
        module = AutoModelForSequenceClassification.from_pretrained(
            bert.folder, num_labels=3, problem_type="multi_label_classification", dtype=torch.float32,
            attn_implementation="eager",
        ).eval()  # fmt: skip
    views = {name: view[0].detach() for name, view in run.lanes.arguments(run.lanes.weights).items()}
    module.load_state_dict(views, strict=False)
    task = load_task(topics, bert, run.pack.recipe.max_length)
    rows = batch.rows[0].numpy()
    ids, labels = torch.from_numpy(task.train.input_ids[rows]), torch.from_numpy(task.train.labels[rows])
    mask = (torch.arange(ids.shape[1]) < torch.from_numpy(task.train.lengths[rows])[:, None]).long()
    theirs = module(input_ids=ids, attention_mask=mask, labels=labels.float())
    assert ours == pytest.approx(theirs.loss.item(), rel=1e-5)
    by_hand = np.log1p(np.exp(-np.where(labels.bool(), 1, -1) * theirs.logits.detach().numpy())).mean()
    assert ours == pytest.approx(float(by_hand), rel=1e-5)


def test_a_lane_is_bit_equal_alone_and_in_a_pack(trial: Make, topics: TaskSpec) -> None:
    fields = {"task": topics, "lr": 1e-2, "epochs": 1, "padding": "batch"}
    pack = [trial(seed, **fields) for seed in (1, 2, 3)]
    (alone,) = loop.train(pack[1:2])
    assert same_lane(alone, loop.train(pack)[1])
    assert alone.curves.logits.shape == (90, 2)
    assert alone.curves.sentences.tolist() == [3] * 30
    labels = tasks.load(topics).train.labels
    shares = labels.mean(axis=0)
    entropy = -(shares * np.log(shares) + (1 - shares) * np.log(1 - shares)).mean()
    assert alone.measured.label_entropy == pytest.approx(entropy)


@pytest.mark.parametrize("metric", metrics.MANY_LABELS)
def test_scores_are_scikit_learns_and_the_level_is_the_best_of_all_sets(metric: metrics.Metric) -> None:
    draw = np.random.default_rng(4)
    average = "micro" if metric == "f1_labels" else "macro"

    def theirs(labels: np.ndarray, answers: np.ndarray) -> float:
        return float(f1_score(labels, answers, average=average, zero_division=0))

    for _ in range(60):
        labels, answers = draw.random((2, 9, 4)) < draw.random(4)
        labels, answers = labels.astype(np.int64), answers.astype(np.int64)
        logits = np.stack([np.zeros(36), np.where(answers.ravel() == 1, 1.0, -1.0)], axis=1)
        score = metrics.score(metric, logits, labels.ravel(), np.full(9, 4))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert score.value == pytest.approx(theirs(labels, answers))
            sets = [theirs(labels, np.tile(one, (9, 1))) for one in product((0, 1), repeat=4)]
        assert metrics.every_score(logits, labels.ravel(), np.full(9, 4))[metric] == score.value
        level = metrics.majority(metric, labels.ravel(), 4)
        assert level.value == pytest.approx(max(sets))
        assert score.at_or_below_majority == (score.value <= level.value + 1e-12)  # type: ignore[operator]
    nan = metrics.score(metric, logits * math.nan, labels.ravel(), np.full(9, 4))
    assert nan.value is None


def test_a_sweep_is_recorded_kept_rerun_and_reported(
    topics: TaskSpec, bert: ModelSpec, tmp_path: Path, empty_pictures: None
) -> None:
    path = tmp_path / "mine.yaml"
    task, model = json.dumps(topics.model_dump(exclude_none=True)), json.dumps(bert.model_dump())
    path.write_text(
        f"task: {task}\nmodel: {model}\nlr: [2e-2, 1e-9]\nbias_correction: on\nepochs: 10\nbatch_size: 8\nseeds: 1..2\n"
    )
    sweep = load(path)
    store = Store(tmp_path / "results" / sweep.folder_name)
    outcome = driver.run(sweep, store, Options(in_process=True, keep="best"), lambda progress: None)
    assert outcome.finished == 4
    first, *_, last = expand(sweep)
    measured = store.load(first.id).measured  # type: ignore[union-attr]
    assert measured is not None
    assert (measured.metric, measured.outcome, measured.correct) == ("f1_labels", "ok", None)
    assert store.load(last.id).measured.outcome == "failed"  # type: ignore[union-attr]
    assert store.curves(first.id) is not None
    assert rerun(sweep, store, first, 0.0).verdict == "identical"
    folder = saved.place(store, next(iter(saved.kept(store))))
    assert topics.files is not None
    dev, out = Path(topics.files.train) / "dev.jsonl", tmp_path / "answers.tsv"
    prediction = predict_labels.run(PredictionOptions((folder,), dev, out, label="labels", probabilities=True))
    kept, curves = store.load(folder.name), store.curves(folder.name)
    assert kept is not None
    assert kept.measured is not None
    assert curves is not None
    assert prediction.score == kept.measured.final_score
    answers = list(csv.DictReader(out.read_text().splitlines(), delimiter="\t"))
    decided = [
        [name for name, yes in zip(NAMES, row, strict=True) if yes] for row in curves.logits.argmax(1).reshape(-1, 3)
    ]
    assert [row["labels"] for row in answers] == ["|".join(names) or "[]" for names in decided]
    assert [float(row["probability_new"]) for row in answers] == pytest.approx(
        (1 / (1 + np.exp(-curves.logits[1::3, 1]))).tolist(), rel=1e-5
    )
    from transformers import pipeline

    answered = pipeline("text-classification", model=str(folder), top_k=None, device="cpu")("a red b")[0]
    assert {answer["label"] for answer in answered} == set(NAMES)
    assert sum(answer["score"] for answer in answered) != pytest.approx(1)  # each is decided by itself
    made = page.write(of_sweep(sweep, store), store.folder / "report")
    text = (store.folder / "report" / "report.md").read_text()
    assert "at or below that of always giving the best set of labels" in text
    assert "can't be used" not in text
    assert made
    assert not verify.check(sweep, store).problems


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"r_drop": 1.0}, "r_drop requires a task with classes"),
        ({"oversample": True}, "oversample requires a task with classes.*any number of labels a text"),
    ],
)
def test_what_needs_one_label_a_text_is_refused(
    trial: Make, topics: TaskSpec, fields: dict[str, object], message: str
) -> None:
    raw = tasks.load(topics)
    with pytest.raises(HarnessError, match=message):
        tasks.check_recipe(trial(1, task=topics, **fields).recipe, raw.train.labels, raw.metric)


def test_the_level_of_labels_is_checked_by_the_texts_labels(trial: Make, topics: TaskSpec, tmp_path: Path) -> None:
    one, all_three = {"text": "a red", "labels": ["red"]}, {"text": "b red", "labels": ["red", "new", "blue"]}
    for split, count in (("train", 8), ("dev", 5)):  # 15 decisions on dev; red alone is the best set
        rows = [one] * (count - 1) + [all_three]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = TaskFiles(train=str(tmp_path), validation=str(tmp_path))
    planned = trial(1, task=topics.model_copy(update={"files": files}), epochs=1)
    (result,) = loop.train([planned])
    assert result.measured.majority_score == pytest.approx(2 * 5 / (5 + 7))
    assert not list(verify_scores.check_measured(result.measured, result.curves, planned.recipe))


def test_a_threshold_chosen_on_dev_stands_in_the_record_and_scores_test(trial: Make, topics: TaskSpec) -> None:
    task = topics.model_copy(update={"threshold": "dev"})
    fields = {"lr": 1e-2, "epochs": 2, "early_stopping_on": "score", "keep_best": True}
    pack = [trial(seed, task=task, **fields) for seed in (1, 2)]
    chosen = loop.train(pack)
    (alone,) = loop.train(pack[:1])
    assert same_lane(alone, chosen[0])
    raw = tasks.load(task)
    assert raw.test is not None
    for result in chosen:
        curves, measured = result.curves, result.measured
        cut = measured.label_threshold
        assert cut is not None
        yes = 1 / (1 + np.exp(-curves.logits[:, 1].astype(np.float64))).reshape(30, 3)
        scores = {
            t: f1_score(raw.validation.labels, yes > t / 100, average="micro", zero_division=0) for t in range(1, 100)
        }
        assert scores[round(100 * cut)] == pytest.approx(max(scores.values()))
        assert measured.final_score == pytest.approx(max(scores.values()))
        nearest = min(abs(t - 50) for t, score in scores.items() if score > max(scores.values()) - 1e-12)
        assert abs(round(100 * cut) - 50) == nearest
        on_test = 1 / (1 + np.exp(-curves.test_logits[:, 1].astype(np.float64))).reshape(10, 3) > cut
        assert measured.test_score == pytest.approx(f1_score(raw.test.labels, on_test, average="micro"))
        assert not list(verify_scores.check_measured(measured, curves, pack[0].recipe))
        edited = measured.model_copy(update={"label_threshold": 0.77})
        problems = [problem for _, problem in verify_scores.check_measured(edited, curves, pack[0].recipe)]
        assert any("label_threshold is 0.77, and answers on the dev split" in problem for problem in problems)
    usual = loop.train([trial(1, task=topics, **fields)])[0]
    assert usual.measured.label_threshold == 0.5
    assert (usual.curves.logits[:, 0] == 0).all()
    fixed = loop.train([trial(1, task=topics.model_copy(update={"threshold": 0.3}), **fields)])[0]
    assert fixed.measured.label_threshold == 0.3
    assert fixed.curves.logits[0, 0] == np.float32(math.log(0.3 / 0.7))
    with pytest.raises(HarnessError, match=r"task\.threshold requires task\.kind: labels"):
        check_recipe(trial(1, task=topics.model_copy(update={"kind": "texts", "threshold": 0.3})).recipe)


def test_several_models_decide_together_by_their_mean_probability(
    monkeypatch: pytest.MonkeyPatch, topics: TaskSpec, tmp_path: Path
) -> None:
    """Two stand-ins with thresholds of 0.2 and 0.6 give one label at 0.3 and 0.6: 0.45 is above 0.4."""

    class Stand:
        def __init__(self, folder: Path, device: str) -> None:
            self.card, self.chance = cards[folder], {"one": 0.3, "two": 0.6}[folder.name]

        def logits(self, rows: list[object], batch_size: int, source: str) -> np.ndarray:
            own = np.full((len(rows), 3), -9.0, dtype=np.float32)
            own[:, 1] = math.log(self.chance / (1 - self.chance))
            return own

    recipe = SimpleNamespace(task=topics)
    cards = {
        Path(name): SimpleNamespace(
            label_names=NAMES,
            pairs=False,
            trial=SimpleNamespace(recipe=recipe),
            metric="f1_labels",
            label_threshold=cut,
        )
        for name, cut in (("one", 0.2), ("two", 0.6))
    }
    monkeypatch.setattr(predict_labels, "Served", Stand)
    monkeypatch.setattr(predict_labels.saved, "read_card", cards.__getitem__)
    file, out = tmp_path / "ask.jsonl", tmp_path / "out.jsonl"
    file.write_text('{"text": "a b", "labels": ["new"]}\n')
    prediction = predict_labels.run(PredictionOptions(tuple(cards), file, out, label="labels", probabilities=True))
    line = json.loads(out.read_text())
    assert line["labels"] == ["new"]
    assert line["agreement"] == 0.5
    assert line["probabilities"]["new"] == pytest.approx(0.45)
    assert (prediction.score, prediction.members, prediction.disagreeing) == (1.0, (1.0, 0.0), 1.0)
    file.write_text('{"text": "a b", "labels": ["odd"]}\n')
    assert "'odd' is none of" in str(predict_labels.run(PredictionOptions(tuple(cards), file, out)).unscored)
    file.write_text('{"text": "a b"}\n')
    assert predict_labels.run(PredictionOptions(tuple(cards), file, out)).score is None
