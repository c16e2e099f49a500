"""Calibration and confusion: hand counts, and scikit-learn as the independent source."""

import numpy as np
import pandas as pd
import pytest
from made_runs import HEAD, MOSBACH, MOSBACH_RUNS, Run, study_of
from sklearn.metrics import (
    brier_score_loss,
    confusion_matrix,
    f1_score,
    matthews_corrcoef,
    precision_recall_fscore_support,
)

from harness.analysis.analyze import analyse
from harness.analysis.dev_answers import DevAnswers
from harness.analysis.dev_answers import calibration as calibration_table
from harness.analysis.dev_answers import confusion as confusion_table
from harness.analysis.dev_answers import scores as score_table
from harness.report.sections import calibration as calibration_section
from harness.stats import calibration

ONE = HEAD + "lr: 1e-5\nepochs: 1\nseeds: 1..3\n"


def test_the_expected_error_by_hand():
    # Confidences 0.9 (right), 0.9 (wrong) and 0.91 (right) share the bin (13/15, 14/15], 0.6 (right) has one alone.
    chances = np.array([[0.9, 0.1], [0.9, 0.1], [0.09, 0.91], [0.6, 0.4]])
    labels = np.array([0, 1, 1, 0])
    expected = (3 * abs(2 / 3 - (0.9 + 0.9 + 0.91) / 3) + 1 * (1 - 0.6)) / 4
    assert calibration.expected_error(chances, labels) == pytest.approx(expected, rel=1e-12)


def test_bins_have_their_upper_edge():
    # 0.6 = 9/15 closes the bin below it: with 0.59 it is one bin, whose errors take each other off.
    chances = np.array([[0.6, 0.4], [0.59, 0.41]])
    assert calibration.expected_error(chances, np.array([0, 1])) == pytest.approx(abs(0.5 - 0.595))
    apart = np.array([[0.601, 0.399], [0.59, 0.41]])
    assert calibration.expected_error(apart, np.array([0, 1])) == pytest.approx((0.399 + 0.59) / 2)
    certain = np.array([[1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    assert calibration.expected_error(certain, np.array([0, 0])) == pytest.approx(1 / 3)


def test_a_model_that_knows_its_chances_is_calibrated():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(200_000, 3)).astype(np.float32) * 2
    chances = calibration.probabilities(logits)
    labels = (chances.cumsum(axis=1) < rng.random((len(logits), 1))).sum(axis=1).clip(max=2)
    assert calibration.expected_error(chances, labels) < 0.005
    sure = calibration.probabilities(3 * logits)
    assert calibration.expected_error(sure, labels) > 0.1


@pytest.mark.parametrize("classes", [2, 4])
def test_the_brier_score_is_scikit_learns(classes):
    rng = np.random.default_rng(classes)
    chances = calibration.probabilities(rng.normal(size=(50, classes)))
    labels = rng.integers(0, classes, 50)
    one_hot = np.eye(classes)[labels]
    assert calibration.brier(chances, labels) == pytest.approx(((chances - one_hot) ** 2).sum() / 50)
    if classes == 2:
        assert calibration.brier(chances, labels) == pytest.approx(2 * brier_score_loss(labels, chances[:, 1]))


def test_confusion_is_scikit_learns(tmp_path):
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 40)
    logits = rng.normal(size=(3, 40, 4)) + 1.5 * np.eye(4)[labels]
    logits[:, :, 3] = -9  # a class that is neither there nor answered
    study = study_of(tmp_path, ONE, {0: [Run(300), Run(310), Run(320)]})
    found = confusion_table(study, [DevAnswers(logits, labels, (0, 1, 2))])
    answers = logits.argmax(axis=2)
    every = {"labels": range(4), "zero_division": np.nan}
    total = confusion_matrix(np.tile(labels, 3), answers.ravel(), labels=range(4))
    assert found[[f"as_{k}" for k in range(4)]].to_numpy(dtype=int).tolist() == total.tolist()
    assert found["answered"].tolist() == total.sum(axis=0).tolist()
    assert found["examples"].tolist() == total.sum(axis=1).tolist()
    precision, recall, _, _ = precision_recall_fscore_support(np.tile(labels, 3), answers.ravel(), **every)
    np.testing.assert_allclose(found["precision"], precision)
    np.testing.assert_allclose(found["recall"], recall)
    runs = [precision_recall_fscore_support(labels, answer, **every) for answer in answers]
    np.testing.assert_allclose(found["precision_sd"], np.std([one[0] for one in runs], axis=0, ddof=1))
    np.testing.assert_allclose(found["recall_sd"], np.std([one[1] for one in runs], axis=0, ddof=1))
    assert found.iloc[3][["precision", "recall", "precision_sd"]].isna().all()
    each = np.array([confusion_matrix(labels, answer, labels=range(4)) for answer in answers])
    np.testing.assert_allclose(found[[f"as_{k}_sd" for k in range(4)]].to_numpy(float), each.std(axis=0, ddof=1))


def test_the_scores_of_a_cell_are_scikit_learns(tmp_path):
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 3, 40)
    logits = rng.normal(size=(3, 40, 3)) + np.eye(3)[labels]
    study = study_of(tmp_path, ONE, {0: [Run(300), Run(310), Run(320)]})
    (row,) = score_table(study, [DevAnswers(logits, labels, (0, 1, 2))]).to_dict("records")
    answers = logits.argmax(axis=2)
    macro = [f1_score(labels, answer, average="macro") for answer in answers]
    matthews = [matthews_corrcoef(labels, answer) for answer in answers]
    chances = calibration.probabilities(logits)
    ece = [calibration.expected_error(one, labels) for one in chances]
    for name, values in (("f1_macro", macro), ("matthews_correlation", matthews), ("ece", ece)):
        assert row[name] == pytest.approx(np.mean(values))
        assert row[f"{name}_sd"] == pytest.approx(np.std(values, ddof=1))
    assert row["f1_micro"] == row["accuracy"] == pytest.approx((answers == labels).mean())
    assert row["runs"] == 3
    assert "f1" not in row
    assert "pearson" not in row


def test_the_scores_of_a_regression(tmp_path):
    found = analyse(study_of(tmp_path, ONE, {0: [Run(score=0.5), Run(score=0.6)]}, metric="pearson"))
    (row,) = found.scores.to_dict("records")
    assert (row["runs"], row["pearson"], row["spearman"]) == (2, 1.0, 1.0)  # the made-up answers are the labels
    assert "accuracy" not in row


def test_every_run_has_its_row(tmp_path):
    found = analyse(study_of(tmp_path, MOSBACH, MOSBACH_RUNS))
    table = found.calibration
    scored = found.runs[(found.runs["status"] == "finished") & found.runs["final_score"].notna()]
    assert sorted(table["trial"]) == sorted(scored["trial"])
    by_trial = scored.set_index("trial")["final_score"]
    assert table["accuracy"].tolist() == pytest.approx(by_trial[table["trial"]].tolist())
    # The made-up logits are 1 and -1: everywhere one confidence, so that one bin holds all.
    confidence = 1 / (1 + np.exp(-2))
    assert table["confidence"].tolist() == pytest.approx([confidence] * len(table))
    assert table["ece"].tolist() == pytest.approx((table["accuracy"] - confidence).abs().tolist())
    squares = 2 * (1 - confidence) ** 2 * table["accuracy"]
    squares += 2 * confidence**2 * (1 - table["accuracy"])
    assert table["brier"].tolist() == pytest.approx(squares.tolist())
    said = calibration_section.sentences(found)
    assert said == [
        "The expected calibration error (mean over runs) is from 0.004 (lr 2e-5, bias correction on, epochs 10) to "
        "0.382 (lr 2e-5, bias correction off, epochs 3), where the mean confidence is 0.881 and the "
        "accuracy 0.499."
    ]


def test_a_class_that_is_never_answered_is_said(tmp_path):
    found = analyse(study_of(tmp_path, ONE, {0: [Run(200)] * 3}))
    said = calibration_section.sentences(found)
    assert said[1] == "In 1 cell no run ever predicts some class that the dev set contains."
    assert found.confusion["recall"].tolist() == [1, 0]
    assert found.confusion["precision"].isna().tolist() == [False, True]


def test_nothing_of_a_regression_or_of_nothing(tmp_path):
    for name, runs in (("a", {0: [Run(score=0.5), Run(score=0.6)]}), ("b", {})):
        found = analyse(study_of(tmp_path / name, ONE, runs, metric="pearson"))
        assert not len(found.calibration)
        assert not len(found.confusion)
        assert calibration_section.sentences(found) == []
    none = calibration_table(found.study, [None])
    assert isinstance(none, pd.DataFrame)
    assert list(none.columns) == ["cell", "trial", "seed", "accuracy", "confidence", "ece", "brier"]
