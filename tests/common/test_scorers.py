"""scikit-learn's metrics by name and functions of one's own, against the library itself and by hand."""

import math
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import sklearn.metrics as sk

from harness.common import metrics, scorers
from harness.common.errors import HarnessError

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, 60)
LOGITS = RNG.normal(size=(60, 3)).astype(np.float32) + 1.5 * np.eye(3, dtype=np.float32)[LABELS]
TWO, TWO_LOGITS = LABELS % 2, LOGITS[:, :2]
NUMBERS = RNG.normal(size=60).astype(np.float32)
VALUES = (NUMBERS + 0.5 * RNG.normal(size=60)).astype(np.float32)[:, None]


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("balanced_accuracy", sk.balanced_accuracy_score(LABELS, LOGITS.argmax(1))),
        ("cohen_kappa", sk.cohen_kappa_score(LABELS, LOGITS.argmax(1))),
        ("roc_auc", sk.roc_auc_score(LABELS, softmax(LOGITS), multi_class="ovr")),
        ("neg_log_loss", -sk.log_loss(LABELS, softmax(LOGITS))),
        ("f1_weighted", sk.f1_score(LABELS, LOGITS.argmax(1), average="weighted")),
        ("recall_macro", sk.recall_score(LABELS, LOGITS.argmax(1), average="macro")),
        ("neg_brier_score", -((softmax(LOGITS) - np.eye(3)[LABELS]) ** 2).sum(1).mean()),
    ],
)
def test_a_name_of_scikit_learns_is_its_metric(name: str, expected: float) -> None:
    score = metrics.score(name, LOGITS, LABELS)
    assert score.value == pytest.approx(expected)
    assert score.correct == (LOGITS.argmax(1) == LABELS).sum()
    assert not score.at_or_below_majority


def test_of_two_classes_the_second_is_the_positive_one() -> None:
    chances = softmax(TWO_LOGITS)[:, 1]
    for name, expected in (
        ("roc_auc", sk.roc_auc_score(TWO, chances)),
        ("average_precision", sk.average_precision_score(TWO, chances)),
        ("precision", sk.precision_score(TWO, TWO_LOGITS.argmax(1))),
        ("neg_brier_score", -sk.brier_score_loss(TWO, chances)),
    ):
        assert metrics.score(name, TWO_LOGITS, TWO).value == pytest.approx(expected)


def test_of_a_regression_they_take_numbers() -> None:
    assert metrics.is_regression("r2")
    assert not metrics.counts("r2")
    score = metrics.score("r2", VALUES, NUMBERS)
    assert (score.value, score.correct) == (pytest.approx(sk.r2_score(NUMBERS, VALUES[:, 0])), None)
    assert metrics.majority("r2", NUMBERS).value == pytest.approx(0, abs=1e-6)
    error = metrics.majority("neg_mean_squared_error", NUMBERS).value
    assert error == pytest.approx(-NUMBERS.astype(np.float64).var())


@pytest.mark.parametrize("name", get_args(scorers.ScikitLearn))
def test_every_name_has_a_score_of_constant_answers_that_right_ones_are_above(name: str) -> None:
    regression = metrics.is_regression(name)
    labels, classes = (NUMBERS, 0) if regression else (TWO, 2)
    metrics.check(name, labels, classes)
    trivial = metrics.majority(name, labels, classes)
    assert math.isfinite(trivial.value)
    same = np.full((60, 1), labels.mean()) if regression else np.tile([1.0, 0.0], (60, 1))
    score = metrics.score(name, same, labels)
    assert score.constant
    if name != "average_precision":  # of equal probabilities it is the share of the class, as for the majority
        assert score.at_or_below_majority


def test_the_majority_knows_the_classes_frequencies() -> None:
    shares = np.bincount(LABELS) / 60
    assert metrics.majority("neg_log_loss", LABELS, 3).value == pytest.approx((shares * np.log(shares)).sum())
    assert metrics.majority("roc_auc", LABELS, 3).value == 0.5
    assert metrics.majority("balanced_accuracy", LABELS, 3) == (
        metrics.Majority(pytest.approx(1 / 3), int(np.bincount(LABELS).max()))
    )  # fmt: skip


def test_a_run_with_nan_has_no_score() -> None:
    broken = LOGITS.copy()
    broken[3, 1] = np.nan
    assert metrics.score("roc_auc", broken, LABELS).value is None


# ------------------------------------------------------------------------------------------------ of one's own


def write(folder: Path, text: str) -> str:
    path = folder / "my_metrics.py"
    path.write_text("import numpy as np\n\n\n" + text)
    return str(path)


def test_a_function_of_labels_and_predictions(tmp_path: Path) -> None:
    text = "def recall_of_1(labels, predictions, least=0.5):\n    return (predictions[labels == 1] == 1).mean()\n"
    scorer = scorers.read("my_metrics:recall_of_1", write(tmp_path, text))
    assert len(scorer.sha256 or "") == 64
    score = metrics.score("my_metrics:recall_of_1", LOGITS, LABELS)
    assert score.value == (LOGITS.argmax(1) == LABELS)[LABELS == 1].mean()
    assert metrics.words("my_metrics:recall_of_1") == "recall of 1"


@pytest.mark.parametrize("second", ["logits", "probabilities", "values"])
def test_a_function_is_given_what_it_names(tmp_path: Path, second: str) -> None:
    text = f"def f(labels, {second}):\n    global seen\n    seen = {second}\n    return float({second}.ravel()[0])\n"
    scorer = scorers.read("my_metrics:f", write(tmp_path, text))
    logits = VALUES if second == "values" else LOGITS
    expected = {"logits": LOGITS[0, 0], "probabilities": softmax(LOGITS)[0, 0], "values": VALUES[0, 0]}
    assert scorer(logits, NUMBERS if second == "values" else LABELS) == pytest.approx(expected[second])
    assert metrics.is_regression("my_metrics:f") == (second == "values")


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    first = scorers.read("my_metrics:f", write(tmp_path, "def f(labels, predictions):\n    return 1.0\n"))
    assert scorers.read("my_metrics:f", str(tmp_path / "my_metrics.py")) is first
    second = scorers.read("my_metrics:f", write(tmp_path, "def f(labels, predictions):\n    return 2.0\n"))
    assert second.sha256 != first.sha256
    assert metrics.score("my_metrics:f", LOGITS, LABELS).value == 2.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def g(labels, predictions):\n    return 1\n", "my_metrics.py has no function f"),
        ("def f(y_true, y_pred):\n    return 1\n", "must take labels, and one of predictions, logits"),
        ("def f(labels, predictions, logits):\n    return 1\n", "must take labels, and one of"),
        ("import no_such_module\n", "cannot be run: ModuleNotFoundError"),
        ("def f(labels, predictions) return 1\n", "cannot be run: SyntaxError"),
    ],
)
def test_what_cannot_be_used_is_said(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(HarnessError, match=words):
        scorers.read("my_metrics:f", write(tmp_path, text))
    with pytest.raises(HarnessError, match="cannot read the metric's file"):
        scorers.read("other:f", str(tmp_path / "other.py"))


def test_a_loss_and_what_is_no_number_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path, "def error(labels, predictions):\n    return (labels != predictions).mean()\n")
    scorers.read("my_metrics:error", file)
    with pytest.raises(HarnessError, match=r"must be larger for better answers \(got 0 for right answers, 0\.\d+ for"):
        metrics.check("my_metrics:error", LABELS, 3)
    scorers.read("my_metrics:f", write(tmp_path, "def f(labels, predictions):\n    return float('nan')\n"))
    with pytest.raises(HarnessError, match="must give a finite number"):
        metrics.score("my_metrics:f", LOGITS, LABELS)
    with pytest.raises(HarnessError, match=r"the metric precision does not fit these labels"):
        metrics.check("precision", LABELS, 3)
