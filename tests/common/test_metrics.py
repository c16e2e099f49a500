"""Scores against hand computation, scipy and published numbers; the majority decided in whole numbers."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from harness.common.metrics import (
    CLASSIFICATION,
    entities,
    every_score,
    is_regression,
    label_entropy,
    majority,
    score,
    words,
)


def answering(answers, classes=2):
    """Logits [N, C] whose largest is the answer."""
    return np.eye(classes, dtype=np.float32)[np.asarray(answers)]


def balanced(*counts):
    """Labels [N] with these counts of class 0, 1, …"""
    return np.repeat(np.arange(len(counts)), counts)


classification = st.integers(2, 4).flatmap(
    lambda classes: st.tuples(
        st.just(classes),
        st.lists(st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1)), min_size=1, max_size=40),
    )
)


def test_published_majorities():
    assert majority("accuracy", balanced(146, 131)).correct == 146
    assert round(majority("accuracy", balanced(146, 131)).value, 4) == 0.5271
    mrpc = balanced(129, 279)
    assert round(majority("accuracy", mrpc).value, 3) == 0.684
    assert round(majority("f1", mrpc).value, 3) == 0.812
    assert majority("f1", mrpc).correct == 279
    assert majority("matthews_correlation", balanced(322, 721)).value == 0


def test_exactly_the_majority_count_is_at_or_below_it():
    """146/277 in float32 lies above 146/277 in float64 (MOSBACH.md, trap 8)."""
    assert float(np.float32(146) / np.float32(277)) > 146 / 277
    labels = balanced(146, 131)
    answers = labels.copy()
    answers[:131] = 1 - answers[:131]  # 15 of class 0 right, and all 131 of class 1
    result = score("accuracy", answering(answers), labels)
    assert (result.correct, result.at_or_below_majority, result.constant) == (146, True, False)
    answers[0] = 0
    result = score("accuracy", answering(answers), labels)
    assert (result.correct, result.at_or_below_majority) == (147, False)


def test_f1_by_hand():
    result = score("f1", answering([1, 1, 0, 1, 0]), np.array([1, 0, 1, 1, 0]))
    assert result.value == 4 / 6  # 2 right of the positive class, 1 false, 1 missed
    assert result.correct == 3
    assert result.at_or_below_majority  # always 1: 6/8
    assert not score("f1", answering([1, 1, 1, 1, 0]), np.array([1, 0, 1, 1, 0])).at_or_below_majority


def test_f1_of_more_classes_is_the_macro_mean():
    result = score("f1", answering([0, 1, 1, 2], 3), np.array([0, 1, 2, 2]))
    assert result.value == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)
    assert majority("f1", np.array([0, 1, 2, 2])).value == pytest.approx(2 / 3 / 3)


def test_f1_with_equal_classes_takes_the_better_constant():
    labels = balanced(5, 5)
    assert majority("f1", labels).value == pytest.approx(2 / 3)
    assert score("f1", answering([1] * 10), labels).at_or_below_majority
    assert score("f1", answering([0] * 10), labels).value == 0


def test_a_class_that_the_dev_set_lacks_does_not_make_f1_binary():
    labels = np.array([0, 1, 1])
    logits = answering([1, 1, 1], 3)
    assert majority("f1", labels, num_classes=3).value == score("f1", logits, labels).value == pytest.approx(0.4)


def test_macro_and_micro_f1_by_hand():
    labels, answers = np.array([1, 0, 1, 1, 0]), [1, 1, 0, 1, 0]
    macro = score("f1_macro", answering(answers), labels)
    assert macro.value == pytest.approx((4 / 6 + 2 / 4) / 2)  # of class 1, and 1 right, 1 false, 1 missed of class 0
    assert not macro.at_or_below_majority  # always 1: (6/8 + 0) / 2
    micro = score("f1_micro", answering(answers), labels)
    assert (micro.value, micro.correct, micro.at_or_below_majority) == (3 / 5, 3, True)  # always 1: 3/5
    assert majority("f1_macro", labels).value == pytest.approx(6 / 8 / 2)
    assert majority("f1_micro", labels).value == 3 / 5
    # Of two equally frequent classes either constant has the same macro mean.
    assert majority("f1_macro", balanced(5, 5)).value == pytest.approx(1 / 3)


@given(classification)
@settings(max_examples=60, deadline=None)
def test_every_score_is_scikit_learns(case):
    classes, pairs = case
    labels, answers = np.array(pairs).T
    found = every_score(answering(answers, classes), labels)
    theirs = {
        "accuracy": accuracy_score(labels, answers),
        "f1_macro": f1_score(labels, answers, average="macro", zero_division=0),
        "f1_micro": f1_score(labels, answers, average="micro", labels=range(classes), zero_division=0),
    }
    if len(set(labels) | set(answers)) > 1:  # else scikit-learn warns, and has no name for it
        theirs["matthews_correlation"] = matthews_corrcoef(labels, answers)
    if classes == 2:
        theirs["f1"] = f1_score(labels, answers, zero_division=0)
    assert {name: found[name] for name in theirs} == pytest.approx(theirs, abs=1e-12)
    assert set(found) == {"accuracy", "f1_macro", "f1_micro", "matthews_correlation"} | ({"f1"} & set(theirs))
    for name, value in found.items():
        assert score(name, answering(answers, classes), labels).value == value


def test_every_score_of_a_regression_and_of_nothing():
    numbers = np.array([0.0, 1, 3], np.float32)
    found = every_score(np.array([[0.0], [2], [1]], np.float32), numbers)
    assert found["pearson"] == pytest.approx(stats.pearsonr([0, 2, 1], numbers).statistic)
    assert found["spearman"] == pytest.approx(0.5)
    assert every_score(np.array([[0.0, math.nan]]), np.array([0])) == {}


# Tags: 0 O, 1 B-a, 2 I-a, 3 B-b, 4 I-b.
ENTITY_CASES = {
    "all right": ([1, 2, 0, 3], [1, 2, 0, 3], [4], (2, 2, 2)),
    "an end too early, one too late": ([1, 2, 0, 3, 0], [1, 0, 0, 3, 4], [5], (2, 2, 0)),
    "another type": ([1, 2, 0], [3, 4, 0], [3], (1, 1, 0)),
    "two of one type side by side": ([1, 1, 2], [1, 2, 2], [3], (2, 1, 0)),
    "an I without its B belongs to none": ([1, 0, 1], [2, 2, 1], [3], (2, 1, 1)),
    "an I of another type ends it": ([1, 2, 0], [1, 4, 0], [3], (1, 1, 0)),
    "an I after that belongs to none": ([1, 0, 0], [1, 4, 4], [3], (1, 1, 1)),
    "a sentence's end ends it": ([1, 2, 1, 0], [1, 2, 1, 0], [2, 2], (2, 2, 2)),
    "an I that begins a sentence belongs to none": ([1, 2, 0, 0], [1, 2, 2, 0], [2, 2], (1, 1, 1)),
    "nothing there": ([0, 0], [1, 0], [2], (0, 1, 0)),
}


@pytest.mark.parametrize("name", ENTITY_CASES)
def test_entities_by_hand(name):
    labels, answers, sentences, expected = ENTITY_CASES[name]
    found = entities(np.array(answers), np.array(labels), np.array(sentences))
    assert (found.there, found.answered, found.right) == expected
    there, answered, right = expected
    result = score("f1_entity", answering(answers, 5), np.array(labels), np.array(sentences))
    assert result.value == pytest.approx(2 * right / (there + answered))
    assert (result.correct, result.at_or_below_majority) == (None, right == 0)
    every = every_score(answering(answers, 5), np.array(labels), np.array(sentences))
    assert every["f1_entity"] == result.value
    assert every["entity_precision"] == (right / answered if answered else 0)
    assert every["entity_recall"] == (right / there if there else 0)


def test_entities_as_seqeval_has_them():
    """An example of its README (1.2.2) and one with strays, with its numbers in strict mode and IOB2."""
    labels = np.array([0, 0, 0, 1, 2, 2, 0, 3, 4, 0])  # O O O B-MISC I-MISC I-MISC O | B-PER I-PER O
    answers = np.array([0, 0, 1, 2, 2, 2, 0, 3, 4, 0])
    assert score("f1_entity", answering(answers, 5), labels, np.array([7, 3])).value == 0.5
    strays = np.array([2, 2, 0, 1, 2, 2, 0, 4, 4, 3])
    assert score("f1_entity", answering(strays, 5), labels, np.array([7, 3])).value == 0.5  # 1 of 2, and 1 of 2


tags = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.booleans()), min_size=1, max_size=30)


def spans_by_loop(tags, begins):
    found, current = set(), None
    for place, (tag, first) in enumerate(zip([*tags, 0], [*begins, True], strict=True)):
        if current and (first or tag % 2 == 1 or tag == 0 or tag != tags[current[0]] + 1):
            found.add((*current, place))
            current = None
        if place < len(tags) and tag % 2 == 1:
            current = (place, tag)
    return found


@given(tags)
@settings(max_examples=200, deadline=None)
def test_entities_are_those_of_a_loop(case):
    labels, answers, begins = (list(one) for one in zip(*case, strict=True))
    begins[0] = True
    starts = [*np.flatnonzero(begins), len(begins)]
    found = entities(np.array(answers), np.array(labels), np.diff(starts))
    there, answered = spans_by_loop(labels, begins), spans_by_loop(answers, begins)
    assert (found.there, found.answered, found.right) == (len(there), len(answered), len(there & answered))


def test_of_entities_the_majority_finds_none():
    labels, sentences = np.array([0, 1, 2]), np.array([3])
    assert (majority("f1_entity", labels, 3).value, majority("f1_entity", labels, 3).correct) == (0.0, None)
    constant = score("f1_entity", answering([0, 0, 0], 3), labels, sentences)
    assert (constant.value, constant.at_or_below_majority, constant.constant) == (0.0, True, True)
    diverged = score("f1_entity", np.full((3, 3), np.nan), labels, sentences)
    assert (diverged.value, diverged.at_or_below_majority) == (None, True)
    for wrong in (None, np.array([2]), np.array([3, 0])):
        with pytest.raises(ValueError, match="sentences of one word or more, 3 in all"):
            score("f1_entity", answering([0, 0, 0], 3), labels, wrong)


def test_matthews_by_hand():
    labels, answers = np.array([1, 1, 1, 0, 0, 0, 0]), [1, 1, 0, 0, 0, 0, 1]
    expected = (2 * 3 - 1 * 1) / math.sqrt(3 * 3 * 4 * 4)
    assert score("matthews_correlation", answering(answers), labels).value == pytest.approx(expected)
    assert score("matthews_correlation", answering(1 - np.array(answers)), labels).at_or_below_majority
    exactly_uncorrelated = score("matthews_correlation", answering([0, 1, 0, 1]), np.array([0, 0, 1, 1]))
    assert exactly_uncorrelated.value == 0
    assert exactly_uncorrelated.at_or_below_majority


def test_matthews_of_three_classes():
    # R_K of Gorodkin (2004), written out: 5 right of 7
    labels, answers = np.array([0, 0, 1, 1, 2, 2, 2]), [0, 1, 1, 1, 2, 2, 0]
    numerator = 5 * 7 - (2 * 2 + 2 * 3 + 3 * 2)
    expected = numerator / math.sqrt((49 - 4 - 4 - 9) * (49 - 4 - 9 - 4))
    assert score("matthews_correlation", answering(answers, 3), labels).value == pytest.approx(expected)


@given(classification)
@settings(max_examples=60, deadline=None)
def test_matthews_is_the_correlation_of_two_classes_and_bounded(case):
    classes, pairs = case
    labels, answers = np.array(pairs).T
    result = score("matthews_correlation", answering(answers, classes), labels)
    assert -1 <= result.value <= 1
    assert result.at_or_below_majority == (result.value <= 0)
    if classes == 2 and len(set(labels)) == len(set(answers)) == 2:
        assert result.value == pytest.approx(np.corrcoef(labels, answers)[0, 1], abs=1e-12)


@given(classification, st.sampled_from(CLASSIFICATION))
@settings(max_examples=100, deadline=None)
def test_laws_of_classification(case, metric):
    classes, pairs = case
    labels, answers = np.array(pairs).T
    result = score(metric, answering(answers, classes), labels)
    assert result.correct == sum(a == b for a, b in pairs)
    assert result.constant == (len(set(answers)) == 1)
    # the most frequent class, always answered, never beats the majority; being right always never falls below it
    often = np.bincount(labels).argmax()
    assert score(metric, answering([often] * len(labels), classes), labels).at_or_below_majority
    baseline = majority(metric, labels, num_classes=classes)
    assert baseline.correct == np.bincount(labels).max()
    if abs(result.value - baseline.value) > 1e-9:
        assert result.at_or_below_majority == (result.value < baseline.value)
    # the order of the examples does not matter
    assert score(metric, answering(answers[::-1], classes), labels[::-1]) == result
    if len(set(labels)) > 1:
        assert not score(metric, answering(labels, classes), labels).at_or_below_majority or metric == "f1"


numbers = st.floats(-5, 5, width=32)


@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=40))
@settings(max_examples=100, deadline=None)
def test_regression_agrees_with_scipy(pairs):
    one, two = np.array(pairs, dtype=np.float32).T
    for metric, theirs in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
        result = score(metric, one[:, None], two)
        assert result.correct is None
        assert -1 <= result.value <= 1
        if len(set(one)) == 1 or len(set(two)) == 1:
            assert result.value == 0
            assert result.at_or_below_majority
        elif metric == "spearman" or min(np.ptp(one), np.ptp(two)) > 1e-3:  # scipy's Pearson rounds; ours does not
            assert result.value == pytest.approx(theirs(one.astype(float), two.astype(float)).statistic, abs=1e-6)


def test_regression_by_hand():
    labels = np.array([1, 2, 3, 4], dtype=np.float32)
    assert score("pearson", np.array([[1.0], [2], [3], [4]], dtype=np.float32), labels).value == 1
    assert score("spearman", np.array([[1.0], [10], [100], [1000]], dtype=np.float32), labels).value == 1
    assert score("pearson", np.array([[1.0], [10], [100], [1000]], dtype=np.float32), labels).value < 1
    flat = score("pearson", np.full((4, 1), 0.1, dtype=np.float32), labels)
    assert (flat.value, flat.at_or_below_majority, flat.constant) == (0.0, True, True)
    uncorrelated = score("pearson", np.array([[0.1], [0.3], [0.3], [0.1]], dtype=np.float32), labels)
    assert (uncorrelated.value, uncorrelated.at_or_below_majority) == (0.0, True)
    assert majority("pearson", labels).value == 0
    assert majority("spearman", labels).correct is None
    assert is_regression("spearman")
    assert not is_regression("f1")


@pytest.mark.parametrize("metric", ["accuracy", "f1", "matthews_correlation", "pearson"])
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_one_logit_that_is_not_finite_leaves_no_score(metric, poison):
    regression = is_regression(metric)
    logits = np.zeros((3, 1 if regression else 2), dtype=np.float32)
    logits[1, 0] = poison
    result = score(metric, logits, np.array([0.0, 1, 2], np.float32) if regression else np.array([0, 1, 1]))
    assert (result.value, result.correct, result.at_or_below_majority, result.constant) == (None, None, True, False)


def test_label_entropy():
    assert label_entropy(balanced(5, 5)) == pytest.approx(math.log(2))
    assert label_entropy(balanced(1, 1, 1)) == pytest.approx(math.log(3))
    assert label_entropy(balanced(4)) == 0
    assert label_entropy(balanced(1249, 1241)) == pytest.approx(0.693142, abs=1e-6)


@pytest.mark.parametrize(
    ("metric", "logits", "labels"),
    [
        ("accuracy", np.zeros((2, 2)), np.array([0, 1, 1])),
        ("accuracy", np.zeros((0, 2)), np.array([], dtype=int)),
        ("accuracy", np.zeros((2, 2)), np.array([0, 2])),
        ("accuracy", np.zeros((2, 2)), np.array([0.0, 1.0])),
        ("accuracy", np.zeros((2, 1)), np.array([0, 0])),
        ("pearson", np.zeros((2, 2)), np.array([0.0, 1.0])),
        ("pearson", np.zeros((2, 1)), np.array([0.0, math.nan])),
    ],
)
def test_what_does_not_fit_is_refused(metric, logits, labels):
    with pytest.raises(ValueError, match="got"):
        score(metric, logits, labels)


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("accuracy", "accuracy"),
        ("f1_macro", "F1 macro"),
        ("squad_f1", "SQuAD F1"),
        ("matthews_correlation", "Matthews correlation"),
        ("my_metrics.py:squad_like_f1", "squad like f1"),
    ],
)
def test_metrics_are_spelt_as_they_are_known(metric: str, said: str) -> None:
    assert words(metric) == said
