"""Sequential intervals: exact coverage under peeking after every run, by dynamic programming over the counts."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from harness.stats import proportions, sequential
from harness.stats.estimate import Estimate
from harness.stats.sequential import contrast_of_looks, contrast_sequence, rate_sequence


def width(estimate: Estimate) -> float:
    return estimate.high - estimate.low


def surviving(rate: float, holds: Callable[[int, int], bool], horizon: int) -> float:
    """The chance that `holds(failed, n)` at every look, looking after every run: exact."""
    chance = np.array([1.0])  # of so many failures so far, without a look that missed
    for n in range(1, horizon + 1):
        chance = np.append(chance * (1 - rate), 0) + np.append(0, chance * rate)
        chance *= [holds(failed, n) for failed in range(n + 1)]
    return float(chance.sum())


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.2, 0.35, 0.5, 0.8])
def test_a_rate_is_covered_at_every_look(rate):
    def at_every_look(failed: int, n: int) -> bool:
        interval = rate_sequence(failed, n, 30)
        return interval.low <= rate <= interval.high

    def fixed(failed: int, n: int) -> bool:
        low, high = proportions.wilson(failed, n)
        return low <= rate <= high

    assert surviving(rate, at_every_look, 30) >= 0.95
    assert surviving(rate, fixed, 30) < 0.9  # an interval for a fixed n does not


def test_a_rate_is_covered_beyond_the_horizon():
    assert surviving(0.3, lambda k, n: rate_sequence(k, n, 10).low <= 0.3 <= rate_sequence(k, n, 10).high, 30) >= 0.95


@pytest.mark.parametrize(("gain", "loss"), [(0.05, 0.05), (0.4, 0.1), (0.25, 0.25), (0.3, 0.0)])
def test_a_difference_is_covered_at_every_look(gain, loss):
    truth, same, horizon = gain - loss, 1 - gain - loss, 14
    chance, no_false_alarm = {(0, 0): 1.0}, {(0, 0): 1.0}

    def after_a_pair(chances: dict[tuple[int, int], float]) -> dict[tuple[int, int], float]:
        following: dict[tuple[int, int], float] = {}
        for (gained, lost), p in chances.items():
            for step, weight in (((1, 0), gain), ((0, 1), loss), ((0, 0), same)):
                counts = (gained + step[0], lost + step[1])
                following[counts] = following.get(counts, 0.0) + p * weight
        return following

    for n in range(1, horizon + 1):
        chance, no_false_alarm = after_a_pair(chance), after_a_pair(no_false_alarm)
        for counts in list(chance):
            difference = contrast_sequence(*counts, n, horizon).difference
            if not difference.low <= truth <= difference.high:
                del chance[counts]
        no_false_alarm = {c: p for c, p in no_false_alarm.items() if contrast_sequence(*c, n, horizon).p > 0.05}
    assert sum(chance.values()) >= 0.95
    assert truth != 0 or sum(no_false_alarm.values()) >= 0.95


def test_a_difference_that_varies_between_strata_is_covered_as_their_mean():
    gains, looks, studies = np.array([0.6, 0.0, 0.1, 0.1]), 12, 400
    drawn = np.random.default_rng(0).random((studies, looks, 4))
    gained = (drawn < gains).sum(axis=2).cumsum(axis=1)
    lost = (drawn > 0.95).sum(axis=2).cumsum(axis=1)
    missed = 0
    for study in range(studies):
        looked = [
            contrast_sequence(int(gained[study, look]), int(lost[study, look]), 4 * (look + 1), 4 * looks).difference
            for look in range(looks)
        ]
        missed += any(not difference.low <= gains.mean() - 0.05 <= difference.high for difference in looked)
    assert missed / studies < 0.05


def test_a_rate_costs_at_most_half_as_much_width_again():
    for n in range(10, 51, 4):
        for failed in range(n + 1):
            low, high = proportions.wilson(failed, n)
            assert width(rate_sequence(failed, n, 50)) <= 1.5 * (high - low), (failed, n)


def path_of(first: np.ndarray, second: np.ndarray) -> list[tuple[int, int, int]]:
    """Looks after every pair of runs: whether each run of either arm failed [n]."""
    gained, lost = np.cumsum(second & ~first), np.cumsum(first & ~second)
    return [(int(a), int(b), n) for n, (a, b) in enumerate(zip(gained, lost, strict=True), 1)]


def test_what_all_looks_share_costs_less_than_half_as_much_width_again():
    draw = np.random.default_rng(0)
    ratios: dict[int, list[float]] = {n: [] for n in (10, 25, 50)}
    for p1, p2 in ((0.1, 0.1), (0.1, 0.5), (0.3, 0.3), (0.0, 0.3)):
        for _ in range(15):
            first, second = draw.random(50) < p1, draw.random(50) < p2
            for n, of_size in ratios.items():
                fixed = proportions.newcombe(int(first[:n].sum()), n, int(second[:n].sum()), n)
                looks = contrast_of_looks(path_of(first[:n], second[:n]), 50).difference
                of_size.append(width(looks) / width(fixed))
                assert width(looks) <= width(contrast_sequence(*path_of(first[:n], second[:n])[-1], 50).difference)
    assert np.mean(ratios[10]) < 1.55
    assert np.mean(ratios[25]) < 1.45
    assert np.mean(ratios[50]) < 1.4


@pytest.mark.parametrize(("p1", "p2"), [(0.3, 0.3), (0.1, 0.5)])
def test_what_all_looks_share_holds_the_difference_and_its_test_agrees(p1: float, p2: float):
    """Peeking after every pair of 25; whoever stops at the first look that says a difference is misled seldom."""
    draw, studies = np.random.default_rng(5), 60
    missed = misled = 0
    for _ in range(studies):
        path, ever, told = path_of(draw.random(25) < p1, draw.random(25) < p2), False, False
        for n in range(1, 26):
            found = contrast_of_looks(path[:n], 25)
            low, high = found.difference.low, found.difference.high
            assert low <= found.difference.value <= high
            assert (found.p <= 0.05) == (low > 0 or high < 0)
            ever |= not low <= p2 - p1 <= high
            told |= found.p <= 0.05
        missed += ever
        misled += told and p1 == p2
    assert missed / studies <= 0.05
    assert misled / studies <= 0.05


def test_looks_that_contradict_each_other_leave_the_last_alone():
    path = [(n, 0, n) for n in range(1, 31)] + [(30, n, 30 + n) for n in range(1, 61)]
    found = contrast_of_looks(path, 100)
    assert found == contrast_sequence(30, 60, 90, 100)
    assert math.isnan(contrast_of_looks([(0, 0, 0)], 20).p)
    assert contrast_of_looks([(0, 0, 0), (1, 0, 4)], 20) == contrast_sequence(1, 0, 4, 20)


def test_the_end_of_an_interval_is_where_bets_run_by_run_have_won_forty_times_the_stake():
    outcomes, horizon = [0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 0, 0], 25
    rate = rate_sequence(sum(outcomes), len(outcomes), horizon).low
    sizes = [12, 25]  # one step of at most 2.5
    winnings = []
    for size in sizes:
        wealth = 1.0
        alternative = rate + math.sqrt(2 * math.log(40) * rate * (1 - rate) / size)
        assert 1 - (1 - alternative) / (1 - rate) < sequential.MOST_STAKED
        for outcome in outcomes:
            wealth *= alternative / rate if outcome else (1 - alternative) / (1 - rate)
        winnings.append(wealth)
    assert np.mean(winnings) == pytest.approx(40, rel=1e-6)


def test_p_and_interval_agree_and_sides_are_exchangeable():
    for n in (1, 6, 17):
        for gained in range(n + 1):
            for lost in range(n + 1 - gained):
                contrast, mirrored = contrast_sequence(gained, lost, n, 20), contrast_sequence(lost, gained, n, 20)
                difference = contrast.difference
                assert (contrast.p <= 0.05) == (difference.low > 0 or difference.high < 0)
                assert difference.low <= difference.value <= difference.high
                assert difference.low == pytest.approx(-mirrored.difference.high)
                assert contrast.p == pytest.approx(mirrored.p)
    rate, mirrored_rate = rate_sequence(3, 11, 40), rate_sequence(8, 11, 40)
    assert rate.low == pytest.approx(1 - mirrored_rate.high)


def test_ends():
    assert math.isnan(rate_sequence(0, 0, 50).value)
    assert math.isnan(contrast_sequence(0, 0, 0, 50).p)
    assert rate_sequence(0, 1, 1).low == 0.0
    assert rate_sequence(7, 7, 50).high == 1.0
    assert width(rate_sequence(2, 3, 5)) > 0.5
    assert contrast_sequence(0, 5, 5, 5).difference.low == -1.0
    assert contrast_sequence(0, 0, 1, 1).p == 1.0
    # A finding of tens of runs, not of a handful.
    assert contrast_sequence(3, 0, 3, 50).p > 0.05
    assert contrast_sequence(12, 1, 25, 50).p < 0.05
