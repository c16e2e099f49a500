"""Signals of a run so far against hand computations; telling and rules against scikit-learn and brute force."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from harness.analysis import early_warning
from harness.analysis.early_warning import Rule
from harness.records import early_signals
from harness.records.early_signals import SHARES, SIGNALS
from harness.records.record import Recording

RNG = np.random.default_rng


def recording(steps: int, gradient: np.ndarray, predicted: list[list[int]]) -> Recording:
    """Three layers, of which the middle one has this gradient in attention and feed-forward, [steps] each."""
    layers = ["embeddings", *(f"{n} {part}" for n in (1, 2, 3) for part in ("attention", "feed-forward")), "head"]
    norms = np.full((steps, len(layers)), 7.0, dtype=np.float32)
    norms[:, 3], norms[:, 4] = 3 * gradient, 4 * gradient
    blank = np.ones(len(predicted), dtype=np.float32)
    return Recording(
        np.array(layers), np.arange(1, steps + 1), norms, np.full(steps, 0.1, np.float32),
        np.full(steps, 10, np.float32), np.array(predicted, dtype=np.int32), blank, blank,
    )  # fmt: skip


def test_signals_by_hand() -> None:
    steps = 100  # windows of five
    loss = np.linspace(1.0, 0.01, steps).astype(np.float32)
    found = early_signals.signals(
        loss, steps, np.array([50, 100]), recording(steps, np.linspace(1, 2, steps), [[5, 5], [10, 0]])
    )
    half = int(np.flatnonzero(np.isclose(SHARES, 0.5))[0])
    assert found[half, 0] == pytest.approx(loss[45:50].mean(), rel=1e-6)
    assert found[half, 1] == pytest.approx(-0.01, rel=1e-4)  # per update
    assert found[half, 2] == pytest.approx(math.log10(5 * np.linspace(1, 2, steps)[47]), rel=1e-5)  # 3-4-5
    assert found[half, 3] == pytest.approx(-2)
    assert found[half, 4] == pytest.approx(math.log(2))
    assert found[-1, 4] == 0
    assert np.isnan(found[half - 1, 4])  # before the first evaluation


def test_an_update_without_a_rate_is_no_part_of_the_ratio() -> None:
    found = recording(80, np.ones(80), [])
    found.update_norm[0] = 0
    told = early_signals.signals(np.ones(80), 80, np.array([]), found)
    assert told[:, 3] == pytest.approx([-2.0] * 40)  # at the first share there are two updates
    found.update_norm[:] = 0
    assert (early_signals.signals(np.ones(80), 80, np.array([]), found)[:, 3] == -50).all()


def test_signals_of_an_unfinished_a_diverged_and_an_unrecorded_run() -> None:
    loss = np.ones(30, dtype=np.float32)
    unfinished = early_signals.signals(loss, 100, np.array([]), None)
    assert np.isfinite(unfinished[:12, 0]).all()
    assert np.isnan(unfinished[12:]).all()
    assert np.isnan(unfinished[:, 2:]).all()
    loss[20:] = np.nan
    assert np.isposinf(early_signals.signals(loss, 30, np.array([]), None)[-1, :2]).all()


def three_cells(shift: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A signal, lost runs and cells: lost runs have the larger signal, mostly."""
    rng = RNG(3)
    cells = np.repeat([0, 1, 2], 12)
    lost = np.tile([True, False, False, True], 9)
    return rng.normal(size=36) + 1.5 * lost + shift * cells, lost, cells


def test_auc_against_scikit_learn() -> None:
    signal, lost, cells = three_cells()
    signal[5] = signal[8]  # a tie
    for sign in (1, -1):
        told = early_warning.telling(sign * signal, lost, cells, RNG(0))
        expected = roc_auc_score(lost, signal)
        assert told.auc.value == pytest.approx(expected)
        within = [roc_auc_score(lost[cells == c], signal[cells == c]) for c in range(3)]
        assert told.within == pytest.approx(np.mean(within))  # as many pairs in each
        assert told.auc.low < expected < told.auc.high


def test_the_order_is_learned_from_other_cells_alone() -> None:
    """In one cell of three the signal is turned round: its own pairs come out wrong, not turned round with it."""
    signal, lost = np.tile([1.0, 0.0], 30), np.tile([True, False], 30)
    cells = np.repeat([0, 1, 2], 20)
    signal[cells == 2] = 1 - signal[cells == 2]
    told = early_warning.telling(signal, lost, cells, RNG(0))
    assert told.within == pytest.approx(2 / 3)
    two = cells < 2  # of two cells, no pair has runs left to learn from but those of a cell by itself
    told = early_warning.telling(signal[two], lost[two], cells[two], RNG(0))
    assert told.within == 1
    assert math.isnan(told.auc.low)


def test_telling_by_brute_force() -> None:
    rng = RNG(5)
    signal, cells = rng.integers(0, 4, 24).astype(float), rng.integers(0, 4, 24)
    lost = rng.random(24) < 0.5
    right = pairs = 0.0
    for i in np.flatnonzero(lost):
        for j in np.flatnonzero(~lost):
            out = (cells == cells[i]) | (cells == cells[j])
            rest = [(a, b) for a in np.flatnonzero(lost & ~out) for b in np.flatnonzero(~lost & ~out)]
            # Pairs with one end in the cells are left out too.
            if not rest:
                continue
            upwards = sum((signal[a] > signal[b]) + (signal[a] == signal[b]) / 2 for a, b in rest) >= len(rest) / 2
            larger = (signal[i] > signal[j]) + (signal[i] == signal[j]) / 2
            right += larger if upwards else 1 - larger
            pairs += 1
    told = early_warning.telling(signal, lost, cells, RNG(0))
    assert told.auc.value == pytest.approx(right / pairs)


def test_what_is_not_known_is_not_told() -> None:
    signal, lost, cells = three_cells()
    for which in (lost, ~lost):
        told = early_warning.telling(signal[which], lost[which], cells[which], RNG(0))
        assert math.isnan(told.auc.value)
    assert math.isnan(early_warning.telling(np.full(36, np.nan), lost, cells, RNG(0)).auc.value)
    one = early_warning.telling(signal, lost, np.zeros(36), RNG(0))
    assert math.isnan(one.auc.value)  # nothing to learn the order from


@given(st.permutations(range(36)))
def test_the_order_of_the_rows_decides_nothing(order: list[int]) -> None:
    signal, lost, cells = three_cells()
    one, other = (
        early_warning.telling(signal, lost, cells, RNG(1)),
        early_warning.telling(signal[order], lost[order], cells[order], RNG(1)),
    )
    assert other.auc.value == pytest.approx(one.auc.value)
    assert other.auc.low == pytest.approx(one.auc.low)


# ------------------------------------------------------------------------------------------------------------ the rule


def told_from(place: int, column: int, sign: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Signals in which one column tells lost runs from a place on, three cells of ten."""
    rng = RNG(2)
    lost, cells = np.tile([True, False], 15), np.repeat([0, 1, 2], 10)
    found = rng.normal(size=(30, len(SHARES), len(SIGNALS)))
    found[:, place:, column] = sign * np.where(lost, 10.0, 0.0)[:, None] + rng.random((30, 1))
    return found, lost, cells


@pytest.mark.parametrize("sign", [1, -1])
def test_the_first_rule_is_found(sign: int) -> None:
    found, lost, cells = told_from(7, 2, sign)
    kept = early_warning.first_rule(found, lost, cells)
    assert kept is not None
    assert (kept.rule.signal, kept.rule.share, kept.rule.sign) == (SIGNALS[2], SHARES[7], sign)
    assert (kept.caught, kept.lost, kept.false, kept.others) == (15, 15, 0, 15)
    values = sign * found[:, 7, 2]
    assert kept.rule.threshold == pytest.approx((values[~lost].max() + values[lost].min()) / 2)
    assert kept.rule.alarms(found).tolist() == lost.tolist()


def test_no_rule_where_nothing_tells() -> None:
    found, lost, cells = told_from(len(SHARES), 0)
    assert early_warning.first_rule(found, lost, cells) is None
    found, lost, cells = told_from(3, 1)
    assert early_warning.first_rule(found, lost, np.zeros(30)) is None  # one cell
    assert early_warning.first_rule(found, np.zeros(30, dtype=bool), cells) is None


def test_a_rule_is_judged_on_cells_it_was_not_learned_from() -> None:
    """In cell 2 a run that learns has the signal of the lost: a false alarm there, though learning with it had none."""
    found, lost, cells = told_from(5, 0)
    odd = int(np.flatnonzero((cells == 2) & ~lost)[0])
    found[odd, 5, 0] = 8.0
    kept = early_warning.held(found, lost, cells, 5, 0)
    assert kept is not None
    assert kept.false == 1
    assert kept.alarms[odd]
    assert kept.rule.threshold > 8  # of all cells it is one that would not


def test_with_many_runs_one_in_a_hundred_may_be_wrong() -> None:
    lost = np.zeros(420, dtype=bool)
    lost[:20] = True
    found = np.zeros((420, len(SHARES), len(SIGNALS)))
    found[:20] = 5.0
    found[20:23] = 9.0  # three of four hundred
    kept = early_warning.held(found, lost, np.arange(420) % 7, 0, 0)
    assert kept is not None
    assert (kept.caught, kept.false) == (20, 3)


def test_a_diverged_run_is_an_alarm_whatever_the_rule() -> None:
    found = np.full((2, len(SHARES), len(SIGNALS)), np.nan)
    found[0, :, 0] = np.inf
    assert Rule("middle gradient", 0.5, -1, 0.0).alarms(found).tolist() == [True, False]


@pytest.mark.parametrize(("sign", "side"), [(1, "above"), (-1, "below")])
def test_a_rule_names_the_signal_at_which_its_alarm_begins(sign: int, side: str) -> None:
    lost = np.arange(20) < 10
    found = np.full((20, len(SHARES), len(SIGNALS)), np.nan)
    for column, (of_lost, of_others, value) in {0: (0.7, 0.5, "0.6"), 2: (-3.0, -1.0, "0.01")}.items():
        first, second = (of_lost, of_others) if (of_lost > of_others) == (sign > 0) else (of_others, of_lost)
        found[:, :, column] = np.where(lost, first, second)[:, None]
        kept = early_warning.held(found, lost, np.arange(20) % 5, 9, column)
        assert kept is not None
        assert (kept.caught, kept.false) == (10, 0)
        assert kept.rule.words == f"{SIGNALS[column]} {side} {value} at 25 % of a run"


def test_more_cells_than_folds_are_left_out_in_groups() -> None:
    rng = RNG(0)
    lost = rng.random(300) < 0.5
    found = np.repeat(np.where(lost, 1.0, 0.0)[:, None, None], len(SHARES), axis=1).repeat(len(SIGNALS), axis=2)
    kept = early_warning.held(found, lost, np.arange(300) // 3, 0, 0)
    assert kept is not None
    assert (kept.caught, kept.false) == (int(lost.sum()), 0)


def test_very_many_cells_are_drawn_in_groups() -> None:
    rng = RNG(0)
    lost = rng.random(1200) < 0.5
    signal = rng.normal(size=1200) + lost
    cells = np.arange(1200) // 4
    told = early_warning.telling(signal, lost, cells, RNG(0))
    assert told.auc.low < told.auc.value < told.auc.high
    assert told.auc.value == pytest.approx(roc_auc_score(lost, signal))
    assert told.auc.high - told.auc.low < 0.1
