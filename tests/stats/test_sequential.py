"""Sequential intervals: exact coverage under peeking after every run, by dynamic programming over the counts."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from harness.stats import proportions, sequential
from harness.stats.estimate import Estimate
from harness.stats.sequential import contrast_sequence, rate_sequence


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


def test_a_difference_costs_about_half_as_much_width_again():
    draw, ratios = np.random.default_rng(0), []
    for p1, p2 in ((0.05, 0.05), (0.1, 0.5), (0.3, 0.3), (0.0, 0.3)):
        for n in (10, 20, 35, 50):
            for _ in range(10):
                first, second = draw.random(n) < p1, draw.random(n) < p2
                gained, lost = int((second & ~first).sum()), int((first & ~second).sum())
                fixed = proportions.newcombe(int(first.sum()), n, int(second.sum()), n)
                ratios.append(width(contrast_sequence(gained, lost, n, 50).difference) / width(fixed))
    assert np.mean(ratios) < 1.55
    assert max(ratios) < 1.95


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
