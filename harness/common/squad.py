"""SQuAD's scores of answers, exact match and F1 of words, as its official script has them.

Rajpurkar et al. 2016 and, for questions without an answer, Rajpurkar, Jia and Liang 2018 (`evaluate-v2.0.py`).
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

NO_ANSWER = ""  # what a question without an answer is answered with
METRICS = ("squad_f1", "squad_exact")
# What is kept of a run's answer to each question, a column each.
COLUMNS = ("loss", "exact", "f1", "probability", "start", "end")
_SCORED = {"squad_exact": COLUMNS.index("exact"), "squad_f1": COLUMNS.index("f1")}
_ARTICLES = re.compile(r"\b(a|an|the)\b", re.UNICODE)
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@lru_cache(maxsize=2**16)  # each run is compared with the same answers, and many answer alike
def words(text: str) -> tuple[str, ...]:
    """The words that count: in lower case, without ASCII punctuation and English articles."""
    return tuple(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact(answer: str, expected: str) -> bool:
    """Say whether two answers are the same in the words that count."""
    return words(answer) == words(expected)


def f1(answer: str, expected: str) -> float:
    """Give the F1 of an answer's words against the expected ones'; where either has none, 1 if both have, else 0."""
    own, other = words(answer), words(expected)
    if not own or not other:
        return float(own == other)
    same = sum((Counter(own) & Counter(other)).values())
    return 2 * same / (len(own) + len(other))


def best(answer: str, expected: Sequence[str]) -> tuple[float, float]:
    """Give exact match, 0 or 1, and F1 against the expected answer that fits best.

    Expected answers without a word that counts are left out; where none is left, no answer is right.
    """
    told = [text for text in expected if words(text)] or [NO_ANSWER]
    return float(any(exact(answer, text) for text in told)), max(f1(answer, text) for text in told)


def constant(metric: str, expected: Sequence[Sequence[str]]) -> tuple[str, np.ndarray]:
    """Give the better of two constant answers, none and the commonest, and its score on each of N questions.

    The commonest is the one that is expected of most questions, the first among equals; among equally good ones, none.

    Args:
        metric: One of `METRICS`.
        expected: The answers that are right for each question; nothing where none is.

    Returns:
        The answer, and its scores [N] float32.
    """
    spelt: dict[tuple[str, ...], str] = {}
    counts: Counter[tuple[str, ...]] = Counter()
    for answers in expected:
        own = {words(text): text for text in reversed(answers) if words(text)}
        counts.update(reversed(own))
        for key, text in own.items():
            spelt.setdefault(key, text)
    candidates = [NO_ANSWER, *(spelt[key] for key, _ in counts.most_common(1))]
    scored = []
    for answer in candidates:
        each = [best(answer, answers)[metric == "squad_f1"] for answers in expected]
        scored.append((answer, np.array(each, dtype=np.float32)))
    return max(scored, key=lambda pair: math.fsum(pair[1].tolist()))


def total(metric: str, answers: np.ndarray) -> float:
    """Give the sum over the questions of the scores in answers [N, 6], correctly rounded."""
    return math.fsum(answers[:, _SCORED[metric]].tolist())


def values(answers: np.ndarray) -> dict[str, float]:
    """Give the mean score of answers [N, 6] by each metric."""
    return {metric: total(metric, answers) / len(answers) for metric in METRICS}


def nothing(answers: np.ndarray) -> np.ndarray:
    """Say which of answers [N, 6] are none: [N]."""
    empty: np.ndarray = answers[:, COLUMNS.index("start")] == answers[:, COLUMNS.index("end")]
    return empty
