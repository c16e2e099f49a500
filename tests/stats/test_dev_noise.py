import itertools
import math
from dataclasses import asdict, astuple, fields

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from scipy.spatial import distance
from statsmodels.formula.api import ols
from statsmodels.stats.inter_rater import fleiss_kappa

from harness.stats import dev_noise
from harness.stats.estimate import NAN, Estimate

BY_LUCK = {"training_low", "training_high", "mean_low", "mean_high"}  # the fields that resampling decides


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def drawn(draw: np.random.Generator, runs: int, examples: int, sd: float, base: float = 0.7) -> np.ndarray:
    """Answers of runs whose accuracies on the distribution scatter by `sd`, on fresh examples, some easy, some hard."""
    ability = draw.uniform(-1, 1, runs) * math.sqrt(3) * sd  # bounded, so that no probability leaves [0, 1]
    ease = draw.choice([-0.15, 0.15], examples)
    return draw.random((runs, examples)) < base + ability[:, None] + ease


def some_failed(draw: np.random.Generator, runs: int, examples: int, share: float) -> np.ndarray:
    """As `drawn`, but some runs always answer one class, which is right on 53 %."""
    constant = draw.random(examples) < 0.53
    return np.where(draw.random(runs)[:, None] < share, constant, drawn(draw, runs, examples, 0.01))


def logits_of(predicted: np.ndarray, classes: int) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[predicted]


def same(one: float, other: float, tolerance: float = 1e-12) -> bool:
    return (math.isnan(one) and math.isnan(other)) or one == pytest.approx(other, abs=tolerance)


CORRECT = hnp.arrays(np.bool_, st.tuples(st.integers(1, 6), st.integers(1, 8)))
PREDICTED = hnp.arrays(np.int64, st.tuples(st.integers(1, 6), st.integers(1, 8)), elements=st.integers(0, 2))


# --------------------------------------------------------------------------------------------------------- the floor


def anova(correct: np.ndarray) -> float:
    """(MS_seed - MS_residual) / N of the two-way table, by statsmodels."""
    runs, examples = correct.shape
    seed, example = np.indices((runs, examples))
    table = pd.DataFrame({"y": correct.ravel().astype(float), "seed": seed.ravel(), "example": example.ravel()})
    found = sm.stats.anova_lm(ols("y ~ C(seed) + C(example)", table).fit())
    square = found["sum_sq"] / found["df"]
    return float((square["C(seed)"] - square["Residual"]) / examples)


@pytest.mark.parametrize("seed", range(3))
def test_training_variance_is_the_seed_component_of_an_anova(seed):
    correct = drawn(rng(seed), 4 + seed, 30, 0.1)
    assert dev_noise.floor(correct, rng(), 1).training_variance == pytest.approx(anova(correct), rel=1e-9)


def by_hand_covariance(correct: np.ndarray) -> float:
    """Jordan's quantity as it is meant: the covariance over runs of two different examples, mean over all such."""
    covariances = np.cov(correct.astype(float), rowvar=False)  # [N, N], n - 1
    examples = correct.shape[1]
    return float(covariances[~np.eye(examples, dtype=bool)].mean())


@given(hnp.arrays(np.bool_, st.tuples(st.integers(2, 6), st.integers(2, 8))))
def test_floor_by_hand(correct):
    examples = correct.shape[1]
    found = dev_noise.floor(correct, rng(), 20)
    accuracies = correct.mean(axis=1)
    p = correct.mean()
    assert found.mean == pytest.approx(p)
    assert found.binomial == pytest.approx(math.sqrt(p * (1 - p) / examples))
    assert found.observed == pytest.approx(accuracies.std(ddof=1), abs=1e-12)
    assert found.training_variance == pytest.approx(by_hand_covariance(correct), abs=1e-12)
    assert found.training == pytest.approx(math.sqrt(max(found.training_variance, 0)), abs=1e-9)
    if found.observed:
        share = 1 - found.training_variance / accuracies.var(ddof=1)
        assert found.dev_share == pytest.approx(min(max(share, 0), 1), abs=1e-9)
    else:
        assert math.isnan(found.dev_share)
    assert 0 <= found.training_low <= found.training_high
    assert found.training_variance <= found.observed**2 + 1e-12


def test_one_runs_example_bootstrap_is_the_closed_form():
    correct = drawn(rng(1), 3, 40, 0.1)
    picks = rng(2).integers(0, 40, (20_000, 40))
    errors = [run[picks].mean(axis=1).std() for run in correct.astype(float)]
    assert dev_noise.floor(correct, rng(), 1).example_bootstrap == pytest.approx(np.mean(errors), rel=0.02)


def test_errors_of_the_mean_are_those_of_the_resampling_done_by_loops():
    correct = drawn(rng(3), 6, 25, 0.15).astype(float)
    runs, examples = correct.shape
    draw = rng(4)
    both, seeds, items = [], [], []
    for _ in range(20_000):
        row, column = draw.integers(0, runs, runs), draw.integers(0, examples, examples)
        both.append(correct[np.ix_(row, column)].mean())
        seeds.append(correct[row].mean())
        items.append(correct[:, column].mean())
    found = dev_noise.floor(correct.astype(bool), rng(5), 20_000)
    assert found.mean_error == pytest.approx(np.std(both), rel=0.02)
    assert found.seed_error == pytest.approx(np.std(seeds), rel=0.02)
    assert found.example_error == pytest.approx(np.std(items), rel=0.02)
    assert [found.mean_low, found.mean_high] == pytest.approx(np.quantile(both, [0.025, 0.975]), abs=0.007)


def test_resampled_variances_are_those_of_a_loop():
    correct = drawn(rng(6), 5, 6, 0.1)
    variances, means = dev_noise._resampled(correct, rng(7), 50)
    draw, at = rng(7), 0
    seeds, weights = dev_noise._drawn(draw, 5, 50), dev_noise._drawn(draw, 6, 50)
    assert (weights.sum(axis=1) == 6).all()
    for seed, weight, mean in zip(seeds, weights, means, strict=True):
        rows, columns = np.repeat(np.arange(5), seed.astype(int)), np.repeat(np.arange(6), weight.astype(int))
        taken = correct[np.ix_(rows, columns)].astype(float)
        assert mean == pytest.approx(taken.mean())
        covariances = np.cov(taken, rowvar=False)
        different = columns[:, None] != columns[None, :]
        if different.any():
            assert variances[at] == pytest.approx(covariances[different].mean() * 5 / 4, abs=1e-12)
            at += 1
    assert at == len(variances)


def test_many_examples_are_resampled_in_parts(monkeypatch):
    correct = drawn(rng(8), 8, 50, 0.1)
    whole = dev_noise.floor(correct, rng(9), 4000)
    monkeypatch.setattr(dev_noise, "_BLOCK", 120)
    parts = dev_noise.floor(correct, rng(9), 4000)
    for name in BY_LUCK:
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), abs=0.02)
    assert list(dev_noise._blocks(7, 50)) == [2, 2, 2, 1]


@pytest.mark.parametrize(("runs", "examples", "sd"), [(25, 277, 0.03), (5, 200, 0.1), (10, 100, 0.0)])
def test_training_variance_is_unbiased_and_its_interval_covers(runs, examples, sd):
    draw = rng(runs)
    found = [dev_noise.floor(drawn(draw, runs, examples, sd), draw, 200) for _ in range(200)]
    estimates = np.array([one.training_variance for one in found])
    assert estimates.mean() == pytest.approx(sd**2, abs=3 * estimates.std() / math.sqrt(len(found)))
    assert np.mean([one.training_low <= sd <= one.training_high for one in found]) >= 0.88


def test_the_interval_covers_where_some_runs_fail():
    draw = rng(12)
    true = math.sqrt(0.2 * 0.8 * 0.17**2 + 0.8 * 0.01**2)
    found = [dev_noise.floor(some_failed(draw, 25, 277, 0.2), draw, 200) for _ in range(200)]
    assert np.mean([one.training_low <= true <= one.training_high for one in found]) >= 0.88
    naive = np.mean([one.training_variance for one in found])
    assert naive == pytest.approx(true**2, rel=0.1)


@pytest.mark.parametrize(("runs", "examples", "sd"), [(25, 277, 0.05), (8, 400, 0.08)])
def test_the_means_error_is_the_true_one_where_both_are_drawn_anew(runs, examples, sd):
    draw = rng(13)
    found = [dev_noise.floor(drawn(draw, runs, examples, sd), draw, 200) for _ in range(250)]
    error = math.sqrt(np.mean([one.mean_error**2 for one in found]))
    assert error == pytest.approx(np.std([one.mean for one in found]), rel=0.2)
    assert np.mean([one.mean_low <= 0.7 <= one.mean_high for one in found]) >= 0.88


def test_a_dev_set_that_explains_all_and_one_that_explains_nothing():
    independent = dev_noise.floor(drawn(rng(14), 200, 300, 0.0), rng(), 50)
    assert independent.dev_share > 0.8
    assert independent.training < 0.4 * independent.observed
    ladder = np.arange(1000)[None, :] < np.array([[100], [500], [900]])  # each run right on the first so many
    assert dev_noise.floor(ladder, rng(), 50).dev_share < 0.01


@pytest.mark.parametrize(
    "correct",
    [
        np.ones((5, 7), dtype=bool),
        np.zeros((5, 7), dtype=bool),
        np.tile(np.arange(9) % 3 > 0, (4, 1)),
        np.arange(12).reshape(3, 4) % 2 == 0,
    ],
    ids=["all right", "none right", "identical runs", "identical runs, two kinds of example"],
)
def test_identical_runs_have_no_spread(correct):
    found = dev_noise.floor(correct, rng())
    assert (found.observed, found.training, found.training_variance) == (0, 0, 0)
    assert (found.training_low, found.training_high, found.seed_error) == (0, 0, 0)
    assert math.isnan(found.dev_share)
    assert found.mean_error == pytest.approx(found.example_error)
    assert found.example_error == pytest.approx(found.example_bootstrap)


def unknown(found: object) -> set[str]:
    return {name for name, value in asdict(found).items() if isinstance(value, float) and math.isnan(value)}


def test_all_numbers_are_pythons_own():
    correct = drawn(rng(1), 4, 20, 0.1)
    logits = logits_of(correct.astype(int), 2)
    found = [dev_noise.floor(correct, rng()), dev_noise.agreement(logits, np.ones(20, dtype=int))]
    found += [dev_noise.counts_only(correct.mean(axis=1), 20), dev_noise.counts_only(correct.mean(axis=1)[:1], 20)]
    assert {type(value) for one in found for value in asdict(one).values()} == {int, float}
    difference = dev_noise.difference(correct, correct, Estimate(0.0, -0.1, 0.1))
    assert {type(value) for value in astuple(difference)} == {float}


def test_one_run_and_one_example_leave_unknown_what_they_do_not_tell():
    over_runs = {"observed", "training", "training_variance", "training_low", "training_high", "dev_share"}
    of_mean = {"mean_error", "mean_low", "mean_high"}
    one_run = dev_noise.floor(drawn(rng(), 1, 20, 0.1), rng())
    assert unknown(one_run) == over_runs | of_mean | {"seed_error"}
    assert one_run.example_error == pytest.approx(one_run.example_bootstrap)
    one_example = dev_noise.floor(np.array([[True], [False]]), rng())
    assert unknown(one_example) == (over_runs - {"observed"}) | of_mean | {"example_error", "example_bootstrap"}
    assert dev_noise.floor(np.array([[True]]), rng()).mean == 1


@given(CORRECT, st.randoms(use_true_random=False))
def test_the_order_of_runs_and_examples_changes_nothing(correct, shuffle):
    rows, columns = list(range(correct.shape[0])), list(range(correct.shape[1]))
    shuffle.shuffle(rows)
    shuffle.shuffle(columns)
    one, other = (dev_noise.floor(array, rng(), 5) for array in (correct, correct[rows][:, columns]))
    for field in fields(one):
        if field.name not in BY_LUCK:
            assert same(getattr(one, field.name), getattr(other, field.name)), field.name


def test_the_same_generator_gives_the_same_floor_and_no_global_one_is_used():
    correct = drawn(rng(15), 6, 50, 0.1)
    before = np.random.get_state()[1].copy()
    assert dev_noise.floor(correct, rng(1)) == dev_noise.floor(correct, rng(1))
    assert (np.random.get_state()[1] == before).all()


@pytest.mark.parametrize(
    "correct", [np.ones((2, 3)), np.ones(3, dtype=bool), np.ones((0, 3), dtype=bool), np.ones((3, 0), dtype=bool)]
)
def test_other_arrays_are_refused(correct):
    with pytest.raises(ValueError, match="right answers are booleans"):
        dev_noise.floor(correct, rng())
    with pytest.raises(ValueError, match="right answers are booleans"):
        dev_noise.difference(correct, correct, Estimate(0.0, -0.1, 0.1))


def test_no_resamples_are_refused():
    with pytest.raises(ValueError, match="resamples is 1 or more; got 0"):
        dev_noise.floor(np.ones((2, 2), dtype=bool), rng(), 0)


# ------------------------------------------------------------------------------------------------- two cells compared


def test_a_difference_is_that_over_seeds_widened_by_the_examples():
    """Without an error over seeds it is the paired t interval over examples, with a normal quantile."""
    a, b = drawn(rng(1), 5, 300, 0.15), drawn(rng(2), 4, 300, 0.05, base=0.6)
    value = a.mean() - b.mean()
    apart = stats.sem(a.mean(axis=0) - b.mean(axis=0))
    alone = dev_noise.difference(a, b, Estimate(value, value, value))
    assert (alone.value, alone.low, alone.high) == pytest.approx(
        (value, value - 1.96 * apart, value + 1.96 * apart), abs=1e-5
    )
    both = dev_noise.difference(a, b, Estimate(value, value - 0.03, value + 0.04))
    assert both.high - value == pytest.approx(math.hypot(0.04, 1.96 * apart), abs=1e-5)
    assert value - both.low == pytest.approx(math.hypot(0.03, 1.96 * apart), abs=1e-5)


def test_resampled_difference_by_loops():
    a, b = drawn(rng(1), 5, 30, 0.15), drawn(rng(2), 4, 30, 0.05, base=0.6)
    draw = rng(3)
    by_hand = []
    for _ in range(5_000):
        column = draw.integers(0, 30, 30)
        rows = draw.integers(0, 5, 5), draw.integers(0, 4, 4)
        by_hand.append(a[np.ix_(rows[0], column)].mean() - b[np.ix_(rows[1], column)].mean())
    ends = dev_noise.resampled_difference(a, b, rng(4), 20_000)
    assert ends == pytest.approx(np.quantile(by_hand, [0.025, 0.975]), abs=0.01)


def test_a_cell_does_not_differ_from_itself():
    a = drawn(rng(1), 5, 30, 0.15)
    assert dev_noise.difference(a, a, Estimate(0.0, 0.0, 0.0)) == Estimate(0, 0, 0)


def test_the_interval_of_a_difference_is_not_known_where_that_over_seeds_is_not():
    a, b = drawn(rng(1), 1, 30, 0.1), drawn(rng(2), 4, 30, 0.1)
    difference = dev_noise.difference(a, b, Estimate(0.1, NAN, NAN))
    assert difference.value == pytest.approx(a.mean() - b.mean())
    assert math.isnan(difference.low)
    assert math.isnan(difference.high)
    assert math.isnan(dev_noise.difference(a[:, :1], b[:, :1], Estimate(0.1, 0.0, 0.2)).low)  # one example


def test_difference_refuses_other_examples():
    a = np.ones((3, 5), dtype=bool)
    with pytest.raises(ValueError, match="the same examples; got 5 and 4"):
        dev_noise.difference(a, a[:, :4], Estimate(0.0, 0.0, 0.0))


# --------------------------------------------------------------------------------------------------------- agreement

# Ten subjects, fourteen raters, five categories: the worked example of Wikipedia's article on Fleiss' kappa.
WIKIPEDIA = [
    [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
]  # fmt: skip


def test_kappa_of_the_published_example():
    predicted = np.array([np.repeat(np.arange(5), counts) for counts in WIKIPEDIA]).T  # [14, 10]
    found = dev_noise.agreement(logits_of(predicted, 5), np.zeros(10, dtype=int))
    assert found.fleiss_kappa == pytest.approx(0.210, abs=5e-4)
    assert found.consistency == pytest.approx(0.378, abs=5e-4)  # the mean agreement P
    assert 1 - found.expected_disagreement == pytest.approx(0.213, abs=5e-4)


@pytest.mark.parametrize("runs", [300, 301])
def test_outputs_of_very_many_runs_are_compared_in_some_pairs(runs, monkeypatch):
    logits = rng().normal(size=(runs, 9, 3)) * np.linspace(0.5, 3, runs)[:, None, None]
    labels = np.zeros(9, dtype=int)
    some = dev_noise.agreement(logits, labels).jensen_shannon
    monkeypatch.setattr(dev_noise, "MOST_PAIRS", runs**2)
    every = dev_noise.agreement(logits, labels).jensen_shannon
    assert some != every
    assert some == pytest.approx(every, rel=0.01)


@given(PREDICTED)
def test_agreement_by_hand(predicted):
    runs, examples = predicted.shape
    found = dev_noise.agreement(logits_of(predicted, 3), np.zeros(examples, dtype=int))
    if runs == 1:
        assert unknown(found) == {
            "fleiss_kappa",
            "consistency",
            "disagreement",
            "expected_disagreement",
            "jensen_shannon",
        }
        return
    pairs = list(itertools.combinations(predicted, 2))
    assert found.disagreement == pytest.approx(np.mean([(one != other).mean() for one, other in pairs]), abs=1e-12)
    counts = np.array([[(column == k).sum() for k in range(3)] for column in predicted.T])
    if len(np.unique(predicted)) == 1:
        assert math.isnan(found.fleiss_kappa)
        assert (found.disagreement, found.expected_disagreement) == (0, 0)
    else:
        assert found.fleiss_kappa == pytest.approx(fleiss_kappa(counts), abs=1e-9)


def test_jensen_shannon_is_scipys():
    logits = (3 * rng(1).normal(size=(5, 7, 3))).astype(np.float32)
    logits[2, 3] = [200, 0, -200]  # an output of exactly 1 and 0
    outputs = np.exp(logits.astype(float))
    outputs /= outputs.sum(axis=2, keepdims=True)
    by_hand = [distance.jensenshannon(one, other, axis=1) ** 2 for one, other in itertools.combinations(outputs, 2)]
    found = dev_noise.agreement(logits, np.zeros(7, dtype=int)).jensen_shannon
    assert found == pytest.approx(np.mean(by_hand), rel=1e-9)


def test_jensen_shannon_ends():
    sure = logits_of(np.array([[0, 0], [1, 1]]), 2) * 1000
    assert dev_noise.agreement(sure, np.array([0, 1])).jensen_shannon == pytest.approx(math.log(2))
    alike = np.tile(rng(2).normal(size=(1, 50, 3)).astype(np.float32), (4, 1, 1))
    assert dev_noise.agreement(alike, np.zeros(50, dtype=int)).jensen_shannon == 0


def test_the_vote_and_its_ties():
    predicted = np.array([[0, 1, 2, 0], [0, 1, 1, 1], [1, 1, 0, 2], [1, 0, 2, 2]])
    #                      tie  1  2  2
    labels = np.array([0, 1, 0, 2])
    assert dev_noise.agreement(logits_of(predicted, 3), labels).accuracy_if_voted == pytest.approx(
        (0.5 + 1 + 0 + 1) / 4
    )
    one = dev_noise.agreement(logits_of(predicted[:1], 3), labels)
    assert one.accuracy_if_voted == pytest.approx(0.5)


def test_a_vote_of_runs_with_independent_errors_is_better_than_they_are():
    labels = np.zeros(500, dtype=int)
    predicted = (rng(3).random((25, 500)) < 0.3).astype(int)
    assert dev_noise.agreement(logits_of(predicted, 2), labels).accuracy_if_voted > 0.95


def distinct(shape: tuple[int, ...]) -> st.SearchStrategy[np.ndarray]:
    """Logits without ties, for the first class answers them."""
    size = math.prod(shape)
    return st.permutations(range(size)).map(lambda order: np.array(order, dtype=np.float32).reshape(shape) / size)


@given(
    st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(2, 3)).flatmap(
        lambda shape: st.tuples(
            distinct(shape), hnp.arrays(np.int64, shape[1], elements=st.integers(0, shape[2] - 1)), st.just(shape)
        )
    ),
    st.randoms(use_true_random=False),
)
def test_the_order_of_runs_examples_and_classes_changes_no_agreement(made, shuffle):
    logits, labels, shape = made
    orders = [list(range(size)) for size in shape]
    for order in orders:
        shuffle.shuffle(order)
    runs, examples, classes = orders
    renamed = np.argsort(classes)[labels][examples]  # class k of before stands where `classes` has k
    moved = logits[np.ix_(runs, examples, classes)]
    one, other = dev_noise.agreement(logits, labels), dev_noise.agreement(moved, renamed)
    assert all(same(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))
    before = dev_noise.flips(logits, labels).set_index("example")
    after = dev_noise.flips(moved, renamed).set_index("example")
    for place, example in enumerate(examples):
        assert before.loc[example, "right"] == after.loc[place, "right"]
        assert same(before.loc[example, "churn"], after.loc[place, "churn"])


# ------------------------------------------------------------------------------------------------------------- flips


def test_flips_by_hand():
    predicted = np.array([[0, 1, 0, 2], [0, 1, 1, 2], [0, 0, 2, 2], [0, 0, 0, 2]])
    found = dev_noise.flips(logits_of(predicted, 3), np.array([0, 1, 0, 1]))
    assert list(found.columns) == ["example", "label", "right", "runs", "churn"]
    assert list(found["example"]) == [2, 1, 0, 3]
    assert list(found["label"]) == [0, 1, 0, 1]
    assert list(found["right"]) == [2, 2, 4, 0]
    assert list(found["runs"]) == [4] * 4
    assert list(found["churn"]) == pytest.approx([5 / 6, 4 / 6, 0, 0])


@given(PREDICTED.filter(lambda predicted: len(predicted) > 1))
def test_churn_is_that_of_pairs_and_agrees_with_the_floor(predicted):
    labels = np.ones(predicted.shape[1], dtype=int)
    found = dev_noise.flips(logits_of(predicted, 3), labels)
    for _, row in found.iterrows():
        pairs = itertools.combinations(predicted[:, int(row["example"])], 2)
        assert row["churn"] == pytest.approx(np.mean([one != other for one, other in pairs]))
    keys = [(-row["churn"], row["example"]) for _, row in found.iterrows()]
    assert keys == sorted(keys)
    assert found["churn"].mean() == pytest.approx(dev_noise.agreement(logits_of(predicted, 3), labels).disagreement)
    mean = dev_noise.floor(dev_noise.answers(logits_of(predicted, 3), labels), rng(), 1).mean
    assert found["right"].sum() / predicted.size == pytest.approx(mean)


def test_flips_of_one_run_stand_in_order():
    found = dev_noise.flips(logits_of(np.array([[0, 1, 1]]), 2), np.array([0, 0, 1]))
    assert list(found["example"]) == [0, 1, 2]
    assert list(found["right"]) == [1, 0, 1]
    assert found["churn"].isna().all()


# ----------------------------------------------------------------------------------------------------- bad input


def test_answers_takes_the_first_of_equal_logits():
    logits = np.zeros((1, 2, 2), dtype=np.float32)
    assert dev_noise.answers(logits, np.array([0, 1])).tolist() == [[True, False]]


@pytest.mark.parametrize("ask", [dev_noise.answers, dev_noise.agreement, dev_noise.flips])
@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((3, 2)), [0, 1, 0], "logits are .R, N, C."),
        (np.zeros((2, 3, 1)), [0, 0, 0], "C at least 2; got"),
        (np.zeros((0, 3, 2)), [0, 0, 0], "R and N at least 1"),
        (np.full((2, 3, 2), np.nan), [0, 0, 0], "leave runs that diverged out"),
        (np.zeros((2, 3, 2)), [0, 0], "labels are .N., one an example"),
        (np.zeros((2, 3, 2)), [0, 0, 2], "from 0 to C-1; got int64 0 to 2 for 2 logits"),
        (np.zeros((2, 3, 2)), [0, 0, -1], "from 0 to C-1"),
        (np.zeros((2, 3, 2)), [0.0, 0.0, 1.0], "got float64"),
    ],
)
def test_other_logits_and_labels_are_refused(ask, logits, labels, message):
    with pytest.raises(ValueError, match=message):
        ask(logits, np.array(labels))


# ------------------------------------------------------------------------------------------ scores without the answers


def test_binomial_floor_of_rte():
    assert dev_noise.binomial_floor(0.70, 277) == pytest.approx(0.0275, abs=5e-5)  # MOSBACH.md, trap 6
    assert dev_noise.binomial_floor(1.0, 277) == 0


@pytest.mark.parametrize(("score", "examples"), [(1.1, 10), (-0.1, 10), (float("nan"), 10), (0.5, 0)])
def test_binomial_floor_refuses(score, examples):
    with pytest.raises(ValueError, match="an accuracy is 0 to 1"):
        dev_noise.binomial_floor(score, examples)


@given(hnp.arrays(np.bool_, st.tuples(st.integers(2, 6), st.integers(2, 8))))
def test_what_scores_alone_tell_holds_what_the_answers_tell(correct):
    full = dev_noise.floor(correct, rng(), 1)
    found = dev_noise.counts_only(correct.mean(axis=1), correct.shape[1])
    assert found.mean == pytest.approx(full.mean)
    assert found.binomial == pytest.approx(full.binomial, abs=1e-7)
    assert found.observed == pytest.approx(full.observed, abs=1e-9)
    assert found.training_least <= full.training + 1e-7
    assert full.training <= found.observed + 1e-7


def test_the_least_is_reached_where_every_example_is_equally_hard():
    correct = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]], dtype=bool)  # each right in two
    full, found = dev_noise.floor(correct, rng(), 1), dev_noise.counts_only(correct.mean(axis=1), 4)
    assert full.training > 0
    assert found.training_least == pytest.approx(full.training)


def test_scores_may_spread_less_than_the_binomial():
    found = dev_noise.counts_only(np.array([0.70, 0.701, 0.699]), 277)
    assert found.observed < found.binomial
    assert found.training_least == 0


def test_counts_of_one_run():
    found = dev_noise.counts_only(np.array([0.7]), 277)
    assert (found.mean, found.runs, found.examples) == (0.7, 1, 277)
    assert unknown(found) == {"observed", "training_least"}
    for scores in ([], [[0.5]], [1.2], [float("nan")]):
        with pytest.raises(ValueError, match="accuracies are"):
            dev_noise.counts_only(np.array(scores), 277)


# --------------------------------------------------------------------------------------------- picking the best seed


def test_runs_that_are_all_alike_are_picked_by_luck_alone():
    """Truth: 20 runs of the same accuracy on their own answers; the best is above it by the expected maximum."""
    draws = np.random.default_rng(3)
    values = [dev_noise.optimism(draws.random((20, 400)) < 0.8, rng(), 20) for _ in range(250)]
    error = math.sqrt(0.8 * 0.2 / 400)
    expected_maximum = 1.8675  # of 20 standard normal draws (Tippett 1925; Teichroew 1956)
    assert np.mean(values) == pytest.approx(expected_maximum * error, rel=0.12)


def test_a_run_that_is_best_everywhere_is_not_picked_by_luck():
    correct = np.zeros((5, 200), dtype=bool)
    correct[3] = True
    assert dev_noise.optimism(correct, rng(), 50) == 0.0


def test_optimism_is_not_known_of_one_run_or_one_example():
    assert math.isnan(dev_noise.optimism(np.ones((1, 10), dtype=bool), rng()))
    assert math.isnan(dev_noise.optimism(np.ones((3, 1), dtype=bool), rng()))


def test_runs_of_one_class_each_on_a_balanced_dev_set_are_not_called_selected():
    """Always class 0 and always class 1 have the same score on every balanced dev set: none can be picked too high."""
    labels = np.arange(400) % 2
    constant = np.array([labels == 0, labels == 1])
    assert dev_noise.optimism(constant, rng(), 300) > 0.04
    assert dev_noise.optimism(constant, rng(), 300, labels) == pytest.approx(0.0, abs=1e-12)


def test_a_tenth_of_each_class_gives_the_selection_bias_of_answers_by_chance():
    """Of R equal runs with N answers right by chance it is the expected largest of R normals (Tippett) sd/sqrt(N)."""
    draws, labels = np.random.default_rng(3), np.arange(400) % 2
    values = [dev_noise.optimism(draws.random((20, 400)) < 0.8, rng(), 20, labels) for _ in range(250)]
    assert np.mean(values) == pytest.approx(1.867 * math.sqrt(0.8 * 0.2 / 400), rel=0.1)
