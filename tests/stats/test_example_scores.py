"""Scores of single examples: against brute force, `dev_noise.floor` and simulated coverage."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from harness.stats import dev_noise, example_scores
from harness.stats.estimate import Estimate


def test_the_training_variance_is_the_mean_covariance_of_two_examples() -> None:
    values = np.random.default_rng(1).beta(2, 1, (5, 7))
    noise = example_scores.noise(values, np.random.default_rng(0))
    covariance = np.cov(values.T, ddof=1)
    pairs = [covariance[a, b] for a, b in itertools.permutations(range(7), 2)]
    assert noise.training_variance == pytest.approx(np.mean(pairs))
    assert noise.observed == pytest.approx(values.mean(axis=1).std(ddof=1))
    assert noise.error == pytest.approx(np.mean([row.std(ddof=1) / np.sqrt(7) for row in values]))
    assert noise.dev_share == pytest.approx(np.clip(1 - np.mean(pairs) / noise.observed**2, 0, 1))


def test_right_and_wrong_answers_have_the_floor_of_accuracies() -> None:
    draw = np.random.default_rng(2)
    correct = draw.random((6, 80)) < draw.uniform(0.3, 0.9, 80) * draw.uniform(0.8, 1, (6, 1))
    ours = example_scores.noise(correct.astype(float), np.random.default_rng(0), 4000)
    theirs = dev_noise.floor(correct, np.random.default_rng(0), 4000)
    for name in ("mean", "observed", "training_variance", "dev_share", "seed_error", "example_error", "mean_error"):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name)), name
    for name in ("training_low", "training_high"):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name), abs=0.004), name


def test_the_interval_holds_the_training_sd() -> None:
    """Scores of 60 examples within 0 to 1, eight runs whose means over all examples lie apart by 0.03."""
    draw, hits, times = np.random.default_rng(3), 0, 150
    for _ in range(times):
        level = draw.beta(2, 1, 60) * 0.6 + 0.2
        values = level + 0.03 * draw.standard_normal((8, 1)) + draw.uniform(-0.1, 0.1, (8, 60))
        noise = example_scores.noise(values, draw, 200)
        hits += noise.training_low <= 0.03 <= noise.training_high
    assert hits >= 0.92 * times


def test_differences_and_selection_are_those_of_accuracies() -> None:
    draw = np.random.default_rng(5)
    a, b = (draw.random((5, 90)) < chance for chance in (0.7, 0.6))
    over_seeds = Estimate(0.1, 0.02, 0.2)
    ours = example_scores.difference(a.astype(float), b.astype(float), over_seeds)
    theirs = dev_noise.difference(a, b, over_seeds)
    assert (ours.value, ours.low, ours.high) == pytest.approx((theirs.value, theirs.low, theirs.high))
    by_values = example_scores.optimism(a.astype(float), np.random.default_rng(1), 300)
    assert by_values == pytest.approx(dev_noise.optimism(a, np.random.default_rng(1), 300))
    assert np.isnan(example_scores.optimism(a[:1].astype(float), np.random.default_rng(1)))
    with pytest.raises(ValueError, match="the same examples"):
        example_scores.difference(a.astype(float), b[:, 1:].astype(float), over_seeds)


def test_one_run_or_one_example_tell_no_spread() -> None:
    for shape in ((1, 5), (4, 1), (1, 1)):
        noise = example_scores.noise(np.full(shape, 0.5), np.random.default_rng(0))
        assert noise.mean == 0.5
        assert np.isnan([noise.training_low, noise.dev_share, noise.mean_error]).all()
    with pytest.raises(ValueError, match="finite"):
        example_scores.noise(np.array([[np.nan, 1.0]]), np.random.default_rng(0))


def test_agreement_of_places_is_that_of_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(4)
    start = draw.integers(0, 6, (5, 40))
    places = np.stack([start, start + draw.integers(0, 4, (5, 40))], axis=-1)
    same, overlap = [], []
    for a, b in itertools.combinations(places, 2):
        for one, other in zip(a, b, strict=True):
            first, second = (set(range(*part)) for part in (one, other))
            same.append(first == second)
            sizes = len(first) + len(second)
            overlap.append(2 * len(first & second) / sizes if sizes else 1.0)
    agreed = example_scores.place_agreement(places)
    assert (agreed.same, agreed.overlap) == (pytest.approx(np.mean(same)), pytest.approx(np.mean(overlap)))
    many = np.repeat(places, 20, axis=0)[draw.permutation(100)]
    whole = example_scores.place_agreement(many)
    monkeypatch.setattr(example_scores, "MOST_PAIRS", 400)
    assert example_scores.place_agreement(many).overlap == pytest.approx(whole.overlap, abs=0.05)
    with pytest.raises(ValueError, match="R at least 2"):
        example_scores.place_agreement(places[:1])
