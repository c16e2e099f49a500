"""Metrics beyond the built-in ones: scikit-learn's by name, and functions in a file of one's own."""

from __future__ import annotations

import hashlib
import inspect
import sys
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from harness.common.errors import HarnessError, describe_os_error

Takes = Literal["predictions", "logits", "probabilities", "values"]
ScikitLearn = Literal[
    "balanced_accuracy", "cohen_kappa", "roc_auc", "average_precision", "neg_log_loss", "neg_brier_score",
    "f1_weighted", "precision", "recall", "precision_macro", "recall_macro", "jaccard_macro",
    "r2", "explained_variance", "neg_mean_squared_error", "neg_root_mean_squared_error", "neg_mean_absolute_error",
]  # fmt: skip
VALUES = ("r2", "explained_variance", *(name for name in get_args(ScikitLearn) if name.endswith("_error")))
NEGATED = {  # losses, as scikit-learn's scorers turn them so that more is better
    name.removeprefix("neg_"): name for name in get_args(ScikitLearn) if name.startswith("neg_")
}
OWN = r"^[^:/\\]+:[^\W\d]\w*$"  # the name of a function in a file: `my_metrics:balanced_accuracy`


@dataclass(frozen=True)
class Scorer:
    """A metric that is a function; more is better.

    Attributes:
        name: As records have it.
        takes: What of the answers it is given: predicted classes [N], logits [N, C], probabilities [N, C], or of a
            regression the values [N].
        function: Labels [N], what it takes, and the number of classes, to a score.
        sha256: Of the file that it stands in; None for scikit-learn's.
    """

    name: str
    takes: Takes
    function: Callable[[np.ndarray, np.ndarray, int], float]
    sha256: str | None = None

    def __call__(self, logits: np.ndarray, labels: np.ndarray) -> float:
        """Score finite logits [N, C]; raises HarnessError where the function gives no finite number."""
        if self.takes == "values":
            labels, logits = labels.astype(np.float64), logits.astype(np.float64)
        value = self.function(labels, self._given(logits), logits.shape[1])
        try:
            score = float(value)
        except (TypeError, ValueError):
            score = float("nan")
        if not np.isfinite(score):
            raise HarnessError(
                f"the metric {self.name} must give a finite number for every run, for constant answers too",
                got=repr(value)[:80],
            )
        return score

    def _given(self, logits: np.ndarray) -> np.ndarray:
        if self.takes in ("logits", "probabilities"):
            return probabilities(logits) if self.takes == "probabilities" else logits
        given: np.ndarray = logits[:, 0] if self.takes == "values" else logits.argmax(axis=1)
        return given

    def trivial(self, labels: np.ndarray, classes: int) -> float:
        """What always giving the same answer scores: the mean label, or the most frequent class (the best of equals).

        A metric of logits or probabilities is given the classes' frequencies for every example.
        """
        if self.takes == "values":
            return self(np.full((len(labels), 1), labels.mean(dtype=np.float64)), labels)
        counts = np.bincount(labels, minlength=classes)
        if self.takes != "predictions":
            shares = np.log(np.maximum(counts / len(labels), 1e-12))
            return self(np.tile(shares, (len(labels), 1)), labels)
        winners = np.flatnonzero(counts == counts.max())
        return max(self(np.tile(np.eye(classes)[winner], (len(labels), 1)), labels) for winner in winners)


def find(metric: str) -> Scorer | None:
    """The scorer of a metric; None of a built-in one.

    Raises HarnessError for a function whose file has not been read (`read`).
    """
    if metric in get_args(ScikitLearn):
        return _scikit_learn(metric)
    if ":" not in metric:
        return None
    if metric not in _own:
        raise HarnessError(f"the file of the metric {metric} is not known", fix="Set task.metric to FILE.py:FUNCTION")
    return _own[metric]


def probabilities(logits: np.ndarray) -> np.ndarray:
    """The softmax of logits [N, C], float64."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    result: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return result


# ----------------------------------------------------------------------------------------------- a file of one's own

_own: dict[str, Scorer] = {}
_SECOND: dict[str, Takes] = {
    "predictions": "predictions", "logits": "logits", "probabilities": "probabilities", "values": "values",
}  # fmt: skip


def read(metric: str, file: str) -> Scorer:
    """Read the function `STEM:FUNCTION` of a file, so that `find` knows it; a file that has not changed only once.

    Raises HarnessError for a file that can't be read or run, or has no such function.
    """
    path = Path(file).expanduser()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise HarnessError(
            f"cannot read the metric's file {file}: {describe_os_error(error)}", fix="Check task.metric"
        ) from None
    digest = hashlib.sha256(content).hexdigest()
    known = _own.get(metric)
    if known is None or known.sha256 != digest:
        name = metric.rpartition(":")[2]
        function = _function(path, content, digest, name)
        _own[metric] = Scorer(metric, *_called(function, f"{path.name}:{name}"), digest)
    return _own[metric]


def _function(path: Path, content: bytes, digest: str, name: str) -> Callable[..., Any]:
    module = types.ModuleType(f"harness_metric_{digest[:16]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses and pickle look their module up
    try:
        exec(compile(content, str(path), "exec"), vars(module))
    except Exception as error:  # of somebody's own code, whatever it is
        raise HarnessError(f"the metric's file {path} cannot be run: {type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise HarnessError(f"{path} has no function {name}", fix="Check task.metric, as FILE.py:FUNCTION")
    return function  # type: ignore[no-any-return]


def _called(function: Callable[..., Any], name: str) -> tuple[Takes, Callable[[np.ndarray, np.ndarray, int], float]]:
    """What a function takes, by the names of its parameters, and how it is called."""
    names = [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is parameter.empty and parameter.kind != parameter.VAR_KEYWORD
    ]
    second = [parameter for parameter in names if parameter in _SECOND]
    if set(names) - {"labels"} != set(second) or "labels" not in names or len(second) != 1:
        raise HarnessError(
            f"the metric {name} must take labels, and one of {', '.join(_SECOND)}",
            got=f"{name.rpartition(':')[2]}({', '.join(names)})",
            fix="Name its parameters so; `values` are the numbers that a regression predicts",
        )
    return _SECOND[second[0]], lambda labels, given, classes: function(**{"labels": labels, second[0]: given})


# ---------------------------------------------------------------------------------------------------- scikit-learn


@lru_cache
def _scikit_learn(name: str) -> Scorer:
    takes, function = _functions()[name]

    def quietly(labels: np.ndarray, given: np.ndarray, classes: int) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of classes that are never answered
            try:
                return float(function(labels, given, classes))
            except ValueError as error:
                raise HarnessError(f"the metric {name} does not fit these labels: {error}") from None

    return Scorer(name, takes, quietly)


def _functions() -> dict[str, tuple[Takes, Callable[[np.ndarray, np.ndarray, int], float]]]:
    """What each of scikit-learn's metrics takes, and how it is called."""
    import sklearn.metrics as sk

    def averaged(metric: Callable[..., float], average: str) -> tuple[Takes, Callable[..., float]]:
        return "predictions", lambda y, given, classes: metric(y, given, average=average, zero_division=0)

    def with_classes(metric: Callable[..., float]) -> Callable[..., float]:
        return lambda y, given, classes: -metric(y, given, labels=np.arange(classes))

    def ranked(metric: Callable[..., float], **of_many: object) -> Callable[..., float]:
        """Of two classes by the probability of the second, of more class by class."""

        def score(y: np.ndarray, given: np.ndarray, classes: int) -> float:
            if classes == 2:
                return metric(y, given[:, 1])
            return metric(np.eye(classes, dtype=int)[y], given, average="macro", **of_many)

        return score

    def value(metric: Callable[..., float], sign: int = 1) -> tuple[Takes, Callable[..., float]]:
        return "values", lambda y, given, classes: sign * metric(y, given)

    return {
        "balanced_accuracy": ("predictions", lambda y, given, classes: sk.balanced_accuracy_score(y, given)),
        "cohen_kappa": ("predictions", lambda y, given, classes: sk.cohen_kappa_score(y, given)),
        "f1_weighted": averaged(sk.f1_score, "weighted"),
        "precision": averaged(sk.precision_score, "binary"),
        "recall": averaged(sk.recall_score, "binary"),
        "precision_macro": averaged(sk.precision_score, "macro"),
        "recall_macro": averaged(sk.recall_score, "macro"),
        "jaccard_macro": averaged(sk.jaccard_score, "macro"),
        "roc_auc": ("probabilities", ranked(sk.roc_auc_score)),
        "average_precision": ("probabilities", ranked(sk.average_precision_score)),
        "neg_log_loss": ("probabilities", with_classes(sk.log_loss)),
        "neg_brier_score": ("probabilities", _negative_brier),
        "r2": value(sk.r2_score),
        "explained_variance": value(sk.explained_variance_score),
        "neg_mean_squared_error": value(sk.mean_squared_error, -1),
        "neg_root_mean_squared_error": value(sk.root_mean_squared_error, -1),
        "neg_mean_absolute_error": value(sk.mean_absolute_error, -1),
    }


def _negative_brier(labels: np.ndarray, given: np.ndarray, classes: int) -> float:
    """Of two classes the mean squared error of the second's probability, of more the sum over the classes."""
    squares = (given - np.eye(classes)[labels]) ** 2
    return -float(squares.sum(axis=1).mean() / (2 if classes == 2 else 1))
