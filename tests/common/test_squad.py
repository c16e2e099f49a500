"""SQuAD's scores: the official script's rules by vectors, a second implementation, and the best constant answer."""

from __future__ import annotations

import random
import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from harness.common import metrics, squad


@pytest.mark.parametrize(
    ("answer", "expected", "exact", "f1"),
    [
        ("The Cat.", "cat", 1, 1),  # case, articles and punctuation
        ("a  big\tcat", "big cat", 1, 1),  # white space
        ("theatre", "atre", 0, 0),  # an article is a whole word
        ("U.S.A.", "USA", 1, 1),  # punctuation goes without leaving a blank
        ("well-known", "well known", 0, 0),
        ("the-end", "end", 0, 0),  # punctuation goes before articles
        ("big cat", "big black cat", 0, 4 / 5),
        ("cat cat", "cat", 0, 2 / 3),  # words are counted, as often as in both
        ("", "", 1, 1),
        ("", "cat", 0, 0),
        ("the", "", 1, 1),  # nothing is left of it
        ("the", "an", 1, 1),
        ("猫", "猫。", 0, 0),  # punctuation is ASCII's alone
    ],
)
def test_the_official_rules(answer: str, expected: str, exact: int, f1: float) -> None:
    assert squad.exact(answer, expected) == bool(exact)
    assert squad.f1(answer, expected) == pytest.approx(f1)
    assert squad.f1(expected, answer) == pytest.approx(f1)
    assert metrics.token_f1(answer, expected) == squad.f1(answer, expected)


@pytest.mark.parametrize(
    ("answer", "expected", "score"),
    [
        ("cat", ["dog", "the cat"], (1, 1)),
        ("big cat", ["cat", "big black cat"], (0, 4 / 5)),  # the best of all
        ("", [], (1, 1)),
        ("cat", [], (0, 0)),
        ("", ["the"], (1, 1)),  # an answer of articles alone counts as none
        ("", ["the", "cat"], (0, 0)),
    ],
)
def test_the_best_of_several_answers(answer: str, expected: list[str], score: tuple[float, float]) -> None:
    assert squad.best(answer, expected) == pytest.approx(score)


def _official(gold: Sequence[str], answer: str) -> tuple[int, float]:
    """Written down from the script's rules, step by step and by other means than ours."""

    def normalized(text: str) -> str:
        text = "".join(char for char in text.lower() if char not in set(string.punctuation))
        return " ".join(re.sub(re.compile(r"\b(a|an|the)\b", re.UNICODE), " ", text).split())

    def f1(first: str, second: str) -> float:
        own, other = normalized(first).split(), normalized(second).split()
        if not own or not other:
            return int(own == other)
        same = sum((Counter(own) & Counter(other)).values())
        if same == 0:
            return 0
        precision, recall = same / len(other), same / len(own)
        return 2 * precision * recall / (precision + recall)

    told = [text for text in gold if normalized(text)] or [""]
    return max(int(normalized(text) == normalized(answer)) for text in told), max(f1(text, answer) for text in told)


def test_a_second_implementation_agrees() -> None:
    draw = random.Random(1)
    alphabet = ["the", "A", "cat", "Cat,", "dog", "...", "an", "big-cat", "é", " "]

    def text() -> str:
        return " ".join(draw.choices(alphabet, k=draw.randint(0, 4)))

    for _ in range(500):
        gold, answer = [text() for _ in range(draw.randint(0, 3))], text()
        assert squad.best(answer, gold) == pytest.approx(_official(gold, answer))


@pytest.mark.parametrize("metric", metrics.SPANS)
def test_the_best_constant_answer(metric: str) -> None:
    expected = [("The cat", "cat"), ("cat",), (), ("big cat", "dog"), ("dog",), ("bird",), (), ("cat!",)]
    answer, scores = squad.constant(metric, expected)
    assert answer == "The cat"  # asked for thrice, two answers of one question count once; none is right twice
    assert scores.tolist() == pytest.approx([1, 1, 0, 2 / 3 if metric == "squad_f1" else 0, 0, 0, 0, 1])
    assert squad.constant(metric, [(), (), ("cat",)])[0] == ""
    assert squad.constant(metric, [(), ("cat",)])[0] == ""  # among equals


@pytest.mark.parametrize("metric", metrics.SPANS)
def test_scores_of_recorded_answers(metric: str) -> None:
    """Exactly what the constant answer scores is not above it."""
    exact, f1 = np.array([1, 0, 0], np.float32), np.array([1, 1 / 3, 0], np.float32)
    answers = np.stack([np.ones(3), exact, f1, np.ones(3), np.zeros(3), [3, 4, 0]], axis=1).astype(np.float32)
    own = exact if metric == "squad_exact" else f1
    score, level = metrics.score(metric, answers, own), metrics.majority(metric, own)
    assert score.value == level.value == pytest.approx(own.mean())
    assert score.at_or_below_majority
    assert score.correct == level.correct == (1 if metric == "squad_exact" else None)
    assert not score.constant
    assert not metrics.score(metric, answers, own * np.float32(0.999)).at_or_below_majority
    assert metrics.every_score(answers, own) == pytest.approx({"squad_f1": 4 / 9, "squad_exact": 1 / 3})
    answers[:, 5] = 0
    assert metrics.score(metric, answers, own).constant  # nothing, whatever is asked
    assert metrics.score(metric, answers * np.nan, own).value is None
    with pytest.raises(ValueError, match="an answer has 6 numbers"):
        metrics.score(metric, answers[:, :5], own)
