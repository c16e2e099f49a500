"""Scores of a dev set, and whether they beat the majority classifier: decided in whole numbers, never in floats."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np

from harness.common import scorers, squad
from harness.common.errors import HarnessError

BuiltIn = Literal["accuracy", "f1", "matthews_correlation", "pearson", "spearman", "f1_macro", "f1_micro", "f1_entity",
    "loss", "perplexity", "exact_match", "token_f1", "f1_labels", "f1_labels_macro",
    "squad_f1", "squad_exact", "question_match"]  # fmt: skip
Metric = str  # a built-in one, one of scikit-learn's, or a function of one's own (`scorers`)
REGRESSION: tuple[Metric, ...] = ("pearson", "spearman")
ENTITIES: Metric = "f1_entity"
_MOST_LOSS = 700.0  # nats a token; e to more is no number
LANGUAGE: tuple[Metric, ...] = ("loss", "perplexity", "exact_match", "token_f1")  # of what a language model answers
LOWER_IS_BETTER: tuple[Metric, ...] = ("loss", "perplexity")
MANY_LABELS: tuple[Metric, ...] = ("f1_labels", "f1_labels_macro")  # of texts with any number of labels each
SPANS: tuple[Metric, ...] = squad.METRICS  # of answers that are parts of a context
QUESTIONS: Metric = "question_match"  # of classes of answers, several a question
WITHOUT_CLASSES: tuple[Metric, ...] = (*LANGUAGE, *MANY_LABELS, *SPANS)  # beside those of numbers and of entities
CLASSIFICATION: tuple[Metric, ...] = ("accuracy", "f1", "f1_macro", "f1_micro", "matthews_correlation")
# What tables call them, and what is told beside them: calibration's error, both parts of an entity F1.
HEADINGS = {
    "accuracy": "accuracy",
    "f1": "F1 of class 1",
    "f1_macro": "macro F1",
    "f1_micro": "micro F1",
    "matthews_correlation": "Matthews",
    "ece": "ECE",
    "pearson": "Pearson",
    "spearman": "Spearman",
    "f1_entity": "entity F1",
    "entity_precision": "precision",
    "entity_recall": "recall",
    "question_match": "questions all right",
    "f1_labels": "micro F1 of labels",
    "f1_labels_macro": "macro F1 of labels",
    "loss": "loss",
    "perplexity": "perplexity",
    "exact_match": "exact match",
    "token_f1": "token F1",
    "token_accuracy": "token accuracy",
    "squad_f1": "SQuAD F1",
    "squad_exact": "SQuAD exact match",
}


@dataclass(frozen=True)
class Score:
    """What logits are worth on a dev set.

    `value` is a fraction (f1: of the class with index 1, with more than two classes f1_macro; f1_macro: the mean over
    the classes that occur; f1_micro: of the pooled counts, which is the accuracy where every example has one label and
    one answer; f1_entity: see `entities`), None where a logit was not finite. `correct` counts right answers, None for
    a regression, for entities and where `value` is. `at_or_below_majority` is exact. `constant`: the same class, or for
    a regression the same number, was predicted for all.
    """

    value: float | None
    correct: int | None
    at_or_below_majority: bool
    constant: bool


@dataclass(frozen=True)
class Majority:
    """What the majority classifier scores; `correct` as in `Score`.

    For a regression it is always predicting the mean, for entities finding none; where a text has any number of labels
    always giving the set of labels that scores best; of questions about a context the better of always answering
    nothing and always the commonest answer. Of completions it is what the untouched model scores, or the majority
    classifier where that is better.
    """

    value: float
    correct: int | None


@dataclass(frozen=True)
class Evaluation:
    """How the lanes of a pack stand on the dev set after a share of their updates, were training to end there.

    `scores` [L], of a lane that got NaN or infinity the majority's; `risen` [L]: above the majority by more than
    chance leaves. Of a lane that stopped early it is the evaluation that its result is of. `last`: none follows.
    """

    share: float
    scores: np.ndarray
    risen: np.ndarray
    last: bool


def is_regression(metric: Metric) -> bool:
    """Say whether a metric compares numbers (one logit an example) instead of classes."""
    scorer = scorers.find(metric)
    return metric in REGRESSION if scorer is None else scorer.takes == "values"


_SPELT = {"f1": "F1", "squad": "SQuAD", "matthews": "Matthews", "pearson": "Pearson", "spearman": "Spearman"}


def words(metric: Metric) -> str:
    """A metric's name in a sentence: `balanced accuracy`, of a function of one's own without its file."""
    if re.fullmatch(scorers.OWN, metric):
        return metric.rpartition(":")[2].replace("_", " ")
    return " ".join(_SPELT.get(word, word) for word in metric.split("_"))


def check(metric: Metric, labels: np.ndarray, classes: int) -> None:
    """Raise HarnessError where a metric that is a function does not fit these dev labels [N], or less of it is better.

    Right answers must score more than always answering the same.
    """
    scorer = scorers.find(metric)
    if scorer is None:
        return
    right = labels[:, None] if scorer.takes == "values" else 20 * np.eye(classes)[labels]
    best, trivial = scorer(right, labels), scorer.trivial(labels, classes)
    if best <= trivial:
        raise HarnessError(
            f"the metric {metric} must be larger for better answers",
            got=f"{best:.4g} for right answers, {trivial:.4g} for always the same one",
            fix="Return the negative of a loss",
        )


def counts(metric: Metric) -> bool:
    """Say whether right answers are counted by a metric's `Score`."""
    if is_regression(metric) or metric in (ENTITIES, *MANY_LABELS, "squad_f1", QUESTIONS):
        return False
    return metric not in LANGUAGE or metric == "exact_match"


def higher_is_better(metric: Metric) -> bool:
    """Say whether a higher score is better by a metric."""
    return metric not in LOWER_IS_BETTER


_FROM_MINUS_ONE: tuple[Metric, ...] = ("matthews_correlation", "pearson", "spearman", "cohen_kappa")
_SHARES: tuple[Metric, ...] = (
    "accuracy", "f1", "f1_macro", "f1_micro", ENTITIES, "exact_match", "token_f1", *MANY_LABELS, *SPANS, "roc_auc",
    "balanced_accuracy", "average_precision", "f1_weighted", "precision", "recall", "precision_macro", "recall_macro",
    "jaccard_macro",
)  # fmt: skip
_LOWEST = {"loss": 0.0, "perplexity": 1.0}


def scale(metric: Metric) -> tuple[float, float]:
    """Give the lowest and the highest score that a metric can have; infinite where it has no such end or none is known.

    Names of other tools count, too: `eval_accuracy`, `acc`.
    """
    metric = re.sub(r"^(eval|dev|val|valid|validation|test)[_/]", "", metric)
    metric = {"acc": "accuracy", "mcc": "matthews_correlation"}.get(metric, metric)
    if metric in _SHARES:
        return 0.0, 1.0
    if metric in _FROM_MINUS_ONE:
        return -1.0, 1.0
    if metric in scorers.VALUES or metric.startswith("neg_"):
        return -math.inf, 1.0 if metric in ("r2", "explained_variance") else 0.0
    return _LOWEST.get(metric, -math.inf), math.inf


def best_evaluation(metric: Metric, scores: np.ndarray) -> int | None:
    """Give the place of the best of scores [E], the first among equals; None where none is a number."""
    finite = np.isfinite(scores)
    if finite.all() and scores.size:
        return int(scores.argmax() if higher_is_better(metric) else scores.argmin())
    if not finite.any():
        return None
    return int(np.nanargmax(scores if higher_is_better(metric) else -scores))


def score(
    metric: Metric,
    logits: np.ndarray,
    labels: np.ndarray,
    sentences: np.ndarray | None = None,
    level: Majority | None = None,
) -> Score:
    """Score logits [N, C] against labels [N]: classes 0 to C-1, or numbers for a regression, where C is 1.

    Of entities N counts words, and `sentences` says how many of them each sentence has. Of what a language model
    answers `logits` [N, 2] are each answer's log-likelihood (nats, summed over its tokens) and how many of its tokens
    were the likeliest, and labels [N] how many it has; `loss` is the mean over all of these tokens, `perplexity` e to
    it, `exact_match` the share of answers whose tokens all were the likeliest, which greedy decoding would give. With a
    third column, the token F1 of each greedy answer, `token_f1` is its mean.

    Where a text has any number of labels N counts decisions, one for each label of each text in order, and C is 2;
    `sentences` [S] are the number of labels, for each text. A run has to beat always giving the best set of labels.

    Where a question has several answers, of which each is right or wrong, N counts these and `sentences` [Q] how many
    each question has; `question_match` is the share of questions whose answers are all told rightly.

    Of questions about a context `logits` [N, 6] are what is kept of each answer (`squad.COLUMNS`), and labels [N] what
    the best constant answer scores, which a run has to beat.

    `level` is what a run has to beat where that isn't the majority classifier: at or below it are no more right answers
    than it has, or where none are counted no better score.

    Between equal logits the first class is the answer. At or below the majority are: no more right answers than the
    majority classifier has (accuracy), an F1 not above its F1 (of entities: none found), a Matthews correlation,
    Pearson or Spearman not above 0; of a function what is not above its score of constant answers, but for rounding.
    A correlation that is not defined, a side being constant, is 0. Raises ValueError for shapes or labels that do not
    fit.
    """
    _check(metric, logits, labels)
    if not np.isfinite(logits).all():
        return Score(value=None, correct=None, at_or_below_majority=True, constant=False)
    if metric in LANGUAGE:
        return _score_language(metric, logits, labels, level)
    if metric in SPANS:
        return _score_spans(metric, logits, labels)
    if (scorer := scorers.find(metric)) is not None:
        return _score_by_function(scorer, logits, labels)
    if is_regression(metric):
        return _score_regression(metric, logits[:, 0], labels)
    if metric in MANY_LABELS:
        return _score_many(metric, logits.argmax(axis=1), labels, sentences)
    if metric == QUESTIONS:
        return _score_questions(logits, labels, _all(sentences, labels))
    if metric == ENTITIES:
        answers = logits.argmax(axis=1)
        compared = entities(answers, labels, _all(sentences, labels))
        return Score(compared.f1, None, compared.right == 0, constant=bool((answers == answers[0]).all()))
    classes = logits.shape[1]
    table = _counted(labels, logits.argmax(axis=1), classes)
    correct = sum(table.right)
    if metric in ("accuracy", "f1_micro"):  # the fractions of `_exact`, over one denominator
        value, below = correct / len(labels), correct <= max(table.labels)
    elif metric == "matthews_correlation":
        value = _value(metric, table)
        below = _matthews_numerator(table) <= 0
    else:
        value = _value(metric, table)
        below = _exact(metric, table) <= max(_exact(metric, constant) for constant in _majority_tables(table))
    if level is not None and level.correct is not None:
        below = correct <= level.correct
    constant = sum(map(bool, table.answers)) == 1
    return Score(value=value, correct=correct, at_or_below_majority=below, constant=constant)


@dataclass(frozen=True)
class Entities:
    """How many entities there are, how many were answered, and how many of these are right: start, end and type."""

    there: int
    answered: int
    right: int

    @property
    def f1(self) -> float:
        """2 right / (there + answered), 0 where there is nothing."""
        return 2 * self.right / (self.there + self.answered) if self.there + self.answered else 0.0


def entities(answers: np.ndarray, labels: np.ndarray, sentences: np.ndarray) -> Entities:
    """Compare the entities of the tags answered [N] with those of the labels [N]; `sentences` [S] counts words.

    Tag 0 is O, 2k+1 begins an entity of type k (B-), 2k+2 goes on with it (I-). As IOB2, strictly: an entity begins
    with its B and goes on over the I of its type, within its sentence; an I that follows neither belongs to none
    (seqeval's strict mode; Tjong Kim Sang and De Meulder 2003 for the F1).
    """
    there, answered = (_spans(tags, sentences) for tags in (labels, answers))
    return Entities(len(there), len(answered), len(np.intersect1d(there, answered, assume_unique=True)))


def _spans(tags: np.ndarray, sentences: np.ndarray) -> np.ndarray:
    """The entities of tags [N], one number each for start, end and type."""
    kind = (tags.astype(np.int64) + 1) // 2  # 0: none
    goes_on = (tags > 0) & (tags % 2 == 0)
    goes_on[1:] &= kind[1:] == kind[:-1]
    goes_on[np.cumsum(sentences)[:-1]] = False
    goes_on[0] = False
    breaks = np.append(np.flatnonzero(~goes_on), len(tags))
    begins = tags[breaks[:-1]] % 2 == 1
    start, end = breaks[:-1][begins], breaks[1:][begins]
    spans: np.ndarray = (kind[start] * (len(tags) + 1) + start) * (len(tags) + 1) + end
    return spans


def _all(sentences: np.ndarray | None, labels: np.ndarray) -> np.ndarray:
    if sentences is None or sentences.sum() != len(labels) or sentences.min() < 1:
        raise ValueError(f"entities stand in sentences of one word or more, {len(labels)} in all; got {sentences}")
    return sentences


def every_score(logits: np.ndarray, labels: np.ndarray, sentences: np.ndarray | None = None) -> dict[str, float]:
    """Score logits [N, C] against labels [N] by all metrics that fit them; f1 with two classes alone.

    With `sentences`, as in `score`: f1_entity with `entity_precision`, `entity_recall` and the words' accuracy. Empty
    where a logit is not finite. Raises ValueError as `score` does.
    """
    regression = labels.dtype.kind == "f"
    if regression and logits.ndim == 2 and logits.shape[1] in (2, 3):
        return _language_values(logits, labels)
    if regression and logits.ndim == 2 and logits.shape[1] == len(squad.COLUMNS):
        return squad.values(logits) if np.isfinite(logits).all() else {}
    _check("pearson" if regression else "accuracy", logits, labels)
    if not np.isfinite(logits).all():
        return {}
    if regression:
        return {metric: _score_regression(metric, logits[:, 0], labels).value or 0.0 for metric in REGRESSION}
    answers = logits.argmax(axis=1)
    if sentences is not None and logits.shape[1] == 2:  # tags are three or more
        by_text = _many(answers, labels, sentences)
        right = {"accuracy": float((answers == labels).mean())}
        return right | {metric: float(f1_of_labels(metric, *by_text)) for metric in MANY_LABELS}
    if sentences is not None:
        compared = entities(answers, labels, _all(sentences, labels))
        shares = {"entity_precision": compared.answered, "entity_recall": compared.there}
        parts = {name: compared.right / of if of else 0.0 for name, of in shares.items()}
        return {"accuracy": float((answers == labels).mean()), "f1_entity": compared.f1} | parts
    return dict(_values(_counted(labels, answers, logits.shape[1])))


def question_match(logits: np.ndarray, labels: np.ndarray, sizes: np.ndarray) -> float:
    """Give the share of questions all of whose answers are judged right: MultiRC's exact match (Khashabi et al. 2018).

    Logits [N, C] and labels [N] are of the answers, those of a question behind each other; `sizes` [Q] counts them.
    """
    right = logits.argmax(axis=1) == labels
    return float(np.logical_and.reduceat(right, np.cumsum(sizes) - sizes).mean())


@lru_cache(maxsize=4096)  # runs of one cell often answer alike, and exact fractions take their time
def _values(table: _Counts) -> tuple[tuple[str, float], ...]:
    """The metrics that fit answers in classes, and their scores."""
    return tuple(
        (metric, _value(metric, table)) for metric in CLASSIFICATION if metric != "f1" or len(table.labels) == 2
    )


def of_counts(metric: Metric, table: list[list[int]]) -> float:
    """Give the score of a confusion table [C][C], rows being labels and columns answers, C at least 2."""
    right = tuple(table[k][k] for k in range(len(table)))
    return _value(metric, _Counts(right, tuple(map(sum, table)), tuple(map(sum, zip(*table, strict=True)))))


def _score_questions(logits: np.ndarray, labels: np.ndarray, sizes: np.ndarray) -> Score:
    right, answers = question_match(logits, labels, sizes), logits.argmax(axis=1)
    below = right <= _constant_questions(labels, logits.shape[1], sizes)
    return Score(right, None, below, constant=bool((answers == answers[0]).all()))


def _constant_questions(labels: np.ndarray, classes: int, sizes: np.ndarray) -> float:
    """The best share of questions whose answers are all told rightly by always the same class."""
    same = (np.eye(classes)[np.full(len(labels), one)] for one in range(classes))
    return max(question_match(logits, labels, sizes) for logits in same)


def majority(
    metric: Metric, labels: np.ndarray, num_classes: int | None = None, sentences: np.ndarray | None = None
) -> Majority:
    """Score the classifier that always answers the most frequent of these labels [N]; among equals, the best of them.

    `num_classes` matters to f1 alone, which is a macro mean above two; without it, it is read off the labels. A
    correlation with a constant is 0 by convention, Matthews' as well. `sentences` are as in `score`, and matter to
    question_match alone.
    """
    if (scorer := scorers.find(metric)) is not None:
        return _majority_by_function(scorer, labels, num_classes)
    if metric in MANY_LABELS:
        assert num_classes is not None
        return Majority(value=float(_best_set(metric, labels.reshape(-1, num_classes))), correct=None)
    if metric in SPANS:
        total = math.fsum(labels.tolist())
        return Majority(value=total / len(labels), correct=round(total) if counts(metric) else None)
    if metric == QUESTIONS:
        classes = max(2, int(labels.max()) + 1) if num_classes is None else num_classes
        return Majority(value=_constant_questions(labels, classes, _all(sentences, labels)), correct=None)
    if not counts(metric):
        return Majority(value=0.0, correct=None)
    classes = max(2, int(labels.max()) + 1) if num_classes is None else num_classes
    _check(metric, np.zeros((len(labels), classes)), labels)
    table = _counted(labels, labels, classes)
    value = max(_value(metric, constant) for constant in _majority_tables(table))
    return Majority(value=value, correct=max(table.labels))


def label_entropy(labels: np.ndarray, width: int = 1) -> float:
    """Give the entropy of class labels [N] in nats: the loss of a model that knows their frequencies and no more.

    Of `width` decisions a text, [N · width], the mean over these.
    """
    if width > 1:
        return float(np.mean([label_entropy(column) for column in labels.reshape(-1, width).T]))
    _, counts = np.unique(labels, return_counts=True)
    shares = counts / counts.sum()
    return float((shares * np.log(1 / shares)).sum())


def _check(metric: Metric, logits: np.ndarray, labels: np.ndarray) -> None:
    if metric in LANGUAGE and logits.shape[1:] != (3 if metric == "token_f1" else 2,):
        raise ValueError(f"an answer has a log-likelihood and a count of tokens; got logits {logits.shape}")
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise ValueError(f"logits are [N, C] and labels [N], N at least 1; got {logits.shape} and {labels.shape}")
    if is_regression(metric):
        if logits.shape[1] != 1 or not np.isfinite(labels).all():
            raise ValueError(f"a regression has one logit an example and finite labels; got logits {logits.shape}")
    elif metric in SPANS:
        shares = labels.dtype.kind == "f" and bool(((labels >= 0) & (labels <= 1)).all())
        if not shares or logits.shape[1] != len(squad.COLUMNS):
            raise ValueError(f"an answer has {len(squad.COLUMNS)} numbers, and a score to beat; got {logits.shape}")
    elif metric not in LANGUAGE and (
        logits.shape[1] < 2 or labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= logits.shape[1]
    ):
        raise ValueError(
            f"labels are whole numbers from 0 to C-1, C at least 2; got {labels.dtype} {labels.min()} to {labels.max()}"
            f" for {logits.shape[1]} logits"
        )


# ----------------------------------------------------------------------------------------------- any number of labels


def _many(answers: np.ndarray, labels: np.ndarray, sentences: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Answers and labels [N] as those of texts, [S, C]."""
    if sentences is None or not len(sentences) or set(sentences.tolist()) != {len(labels) // len(sentences)}:
        raise ValueError(f"each text has as many decisions as there are labels; got {len(labels)} for {sentences}")
    return answers.reshape(len(sentences), -1), labels.reshape(len(sentences), -1)


def f1_of_labels(metric: Metric, answers: np.ndarray, labels: np.ndarray) -> Fraction:
    """Micro: 2 TP / (2 TP + FP + FN) over all decisions [S, C]; macro: its mean over the labels, 0 of one without any.

    As scikit-learn's `f1_score` of label indicators, `zero_division=0`.
    """
    right, answered, there = ((answers & labels).sum(axis=0), answers.sum(axis=0), labels.sum(axis=0))  # [C] each
    if metric == "f1_labels":
        right, answered, there = (each.sum(keepdims=True) for each in (right, answered, there))
    parts = zip(right.tolist(), (answered + there).tolist(), strict=True)
    values = [Fraction(2 * hits, total) if total else Fraction(0) for hits, total in parts]
    return sum(values, Fraction(0)) / len(values)


def logit(probability: float) -> float:
    """Give the logit of a probability within (0, 1)."""
    return math.log(probability / (1 - probability))


def _best_set(metric: Metric, labels: np.ndarray) -> Fraction:
    """The best score of always giving the same set of labels [S, C].

    Micro F1 is best with the k most frequent labels for some k, macro F1 with all.
    """
    counts, size = sorted(labels.sum(axis=0).tolist(), reverse=True), len(labels)
    if metric == "f1_labels_macro":
        return sum((Fraction(2 * count, size + count) for count in counts), Fraction(0)) / len(counts)
    total, right = sum(counts), itertools.accumulate(counts)
    return max(Fraction(2 * hits, k * size + total) for k, hits in enumerate(right, 1))


def _score_many(metric: Metric, answers: np.ndarray, labels: np.ndarray, sentences: np.ndarray | None) -> Score:
    given, there = _many(answers, labels, sentences)
    value = f1_of_labels(metric, given, there)
    constant = bool((given == given[0]).all())
    return Score(float(value), None, value <= _best_set(metric, there), constant)


# ------------------------------------------------------------------------------------------------- language models


def _score_language(metric: Metric, answers: np.ndarray, tokens: np.ndarray, level: Majority | None) -> Score:
    values = _language_values(answers, tokens)
    if metric not in values:
        return Score(value=None, correct=None, at_or_below_majority=True, constant=False)
    value = values[metric]
    correct = int((answers[:, 1] == tokens).sum()) if metric == "exact_match" else None
    below = False
    if level is not None:
        worse = value <= level.value if higher_is_better(metric) else value >= level.value
        below = worse if correct is None or level.correct is None else correct <= level.correct
    return Score(value=value, correct=correct, at_or_below_majority=below, constant=False)


def _language_values(answers: np.ndarray, tokens: np.ndarray) -> dict[str, float]:
    """Loss, perplexity and shares of answers [N, 2] of so many tokens [N]; nothing where a number isn't finite."""
    total = float(tokens.sum(dtype=np.float64))
    loss = -float(answers[:, 0].sum(dtype=np.float64)) / total
    if not np.isfinite(answers).all() or not loss < _MOST_LOSS:
        return {}
    shares = {
        "exact_match": float((answers[:, 1] == tokens).mean()),
        "token_accuracy": float(answers[:, 1].sum(dtype=np.float64)) / total,
    }
    if answers.shape[1] == 3:
        shares["token_f1"] = float(answers[:, 2].mean(dtype=np.float64))
    return {"loss": loss, "perplexity": math.exp(loss)} | shares


def token_f1(answer: str, expected: str) -> float:
    """Give the F1 of an answer's words against the expected ones', as SQuAD counts them (`squad.f1`)."""
    return squad.f1(answer, expected)


# ------------------------------------------------------------------------------------------ answers in a context


def _score_spans(metric: Metric, answers: np.ndarray, level: np.ndarray) -> Score:
    total = squad.total(metric, answers)
    return Score(
        value=total / len(answers),
        correct=round(total) if counts(metric) else None,
        at_or_below_majority=total <= math.fsum(level.tolist()),
        constant=bool(squad.nothing(answers).all()),
    )


# --------------------------------------------------------------------------------------------- functions as metrics

_ROUNDING = 1e-9  # of a function's float: so much above constant answers is not above them


def _score_by_function(scorer: scorers.Scorer, logits: np.ndarray, labels: np.ndarray) -> Score:
    value = scorer(logits, labels)
    trivial = _trivial(scorer, logits.shape[1], labels.dtype.str, labels.tobytes())
    below = value <= trivial + _ROUNDING * max(1.0, abs(trivial))
    answers = logits[:, 0] if scorer.takes == "values" else logits.argmax(axis=1)
    correct = None if scorer.takes == "values" else int((answers == labels).sum())
    return Score(value, correct, below, constant=bool((answers == answers[0]).all()))


def _majority_by_function(scorer: scorers.Scorer, labels: np.ndarray, num_classes: int | None) -> Majority:
    if scorer.takes == "values":
        return Majority(_trivial(scorer, 1, labels.dtype.str, labels.tobytes()), correct=None)
    classes = max(2, int(labels.max()) + 1) if num_classes is None else num_classes
    value = _trivial(scorer, classes, labels.dtype.str, labels.tobytes())
    return Majority(value, correct=int(np.bincount(labels).max()))


@lru_cache(maxsize=64)  # all evaluations of a task share the labels
def _trivial(scorer: scorers.Scorer, classes: int, dtype: str, labels: bytes) -> float:
    return scorer.trivial(np.frombuffer(labels, dtype), classes)


# ------------------------------------------------------------------------------------------------- classification


class _Counts(NamedTuple):
    """What the metrics read of a confusion table, whose square they need not: of each class how often it was.

    Of Python's integers, whose products neither round nor overflow.
    """

    right: tuple[int, ...]  # [C] the label and the answer
    labels: tuple[int, ...]  # [C] the label
    answers: tuple[int, ...]  # [C] the answer


def _counted(labels: np.ndarray, answers: np.ndarray, classes: int) -> _Counts:
    labels = labels.astype(np.int64)
    counted = (np.bincount(each, minlength=classes) for each in (labels[labels == answers], labels, answers))
    right, there, answered = (tuple(counts.tolist()) for counts in counted)
    return _Counts(right, there, answered)


def _majority_tables(table: _Counts) -> Iterator[_Counts]:
    """The counts of always answering a most frequent class; of more than two classes the first, as all score alike."""
    most, classes, total = max(table.labels), len(table.labels), sum(table.labels)
    winners = [k for k in range(classes) if table.labels[k] == most]
    for winner in winners if classes == 2 else winners[:1]:
        right, answers = [0] * classes, [0] * classes
        right[winner], answers[winner] = most, total
        yield _Counts(tuple(right), table.labels, tuple(answers))


def _exact(metric: Metric, table: _Counts) -> Fraction:
    if metric in ("accuracy", "f1_micro"):  # Σ 2 TP / Σ (2 TP + FP + FN): each wrong answer is one FP and one FN
        return Fraction(sum(table.right), sum(table.labels))
    if metric == "f1" and len(table.labels) == 2:
        return _f1(table, 1)
    # As scikit-learn's macro mean: over the classes that occur, in the labels or in the answers.
    present = [k for k, there in enumerate(table.labels) if there or table.answers[k]]
    return sum((_f1(table, k) for k in present), Fraction(0)) / len(present)


def _f1(table: _Counts, positive: int) -> Fraction:
    """2 TP / (2 TP + FP + FN); 0 where a class neither occurs nor is answered."""
    denominator = table.labels[positive] + table.answers[positive]
    return Fraction(2 * table.right[positive], denominator) if denominator else Fraction(0)


def _matthews_numerator(table: _Counts) -> int:
    """The covariance of labels and answers, times N²: c·N - Σ t_k·p_k (Gorodkin 2004, R_K)."""
    products = (there * answered for there, answered in zip(table.labels, table.answers, strict=True))
    return sum(table.right) * sum(table.labels) - sum(products)


def _value(metric: Metric, table: _Counts) -> float:
    if metric != "matthews_correlation":
        return float(_exact(metric, table))
    total = sum(table.labels)
    labels = total**2 - sum(count**2 for count in table.labels)
    answers = total**2 - sum(count**2 for count in table.answers)
    return _ratio(_matthews_numerator(table), labels, answers)


# ----------------------------------------------------------------------------------------------------- regression


def _score_regression(metric: Metric, predictions: np.ndarray, labels: np.ndarray) -> Score:
    whole = _doubled_ranks if metric == "spearman" else _whole_numbers
    first, second = whole(predictions), whole(labels)
    covariance = len(first) * sum(a * b for a, b in zip(first, second, strict=True)) - sum(first) * sum(second)
    variances = [len(x) * sum(a * a for a in x) - sum(x) ** 2 for x in (first, second)]
    value = _ratio(covariance, *variances)
    return Score(value=value, correct=None, at_or_below_majority=covariance <= 0, constant=variances[0] == 0)


def _whole_numbers(values: np.ndarray) -> list[int]:
    """The values times a common power of two that makes all whole: every finite float is a whole number over one."""
    ratios: Sequence[tuple[int, int]] = [value.as_integer_ratio() for value in values.tolist()]
    scale = max(denominator for _, denominator in ratios)
    return [numerator * (scale // denominator) for numerator, denominator in ratios]


def _doubled_ranks(values: np.ndarray) -> list[int]:
    """Twice the ranks, so that those of equal values, the mean of their places, are whole."""
    _, position, counts = np.unique(values, return_inverse=True, return_counts=True)
    doubled = 2 * counts.cumsum() - counts + 1
    ranks: list[int] = doubled[position].tolist()
    return ranks


def _ratio(covariance: int, variance: int, other: int) -> float:
    """Give covariance / √(variance · other), 0 where it is not defined; squared exactly, rounded once, so within ±1."""
    if variance == 0 or other == 0:
        return 0.0
    return math.copysign(math.sqrt(Fraction(covariance**2, variance * other)), covariance) if covariance else 0.0
