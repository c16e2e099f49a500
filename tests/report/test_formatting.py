"""Numbers as people read them, at their edges."""

import numpy as np
import pandas as pd
import pytest

from harness.report import formatting

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.81249, "0.812"), (-0.5, "−0.500"), (0.0, "0.000"), (-0.0, "0.000"), (-1e-9, "0.000"), (1e-7, "0.000"),
        (9.9994, "9.999"), (12.345, "12.35"), (123.45, "123.5"), (99999, "99999.0"), (1e5, "100000"),
        (-2.5e7, "−25000000"), (INF, "∞"), (-INF, "−∞"), (NAN, "–"), (None, "–"), (pd.NA, "–"),
        (np.float64("nan"), "–"), (np.float64(0.5), "0.500"),
    ],
)  # fmt: skip
def test_scores(value, text):
    assert formatting.score(value) == text


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(0.5, 0, "50 %"), (0.123, 1, "12.3 %"), (-0.333, 0, "−33 %"), (-0.001, 0, "0 %"), (-0.0, 1, "0.0 %"),
     (0, 0, "0 %"), (1, 0, "100 %"), (NAN, 0, "–"), (None, 0, "–"), (pd.NA, 1, "–")],
)  # fmt: skip
def test_percent(value, digits, text):
    assert formatting.percent(value, digits) == text


def test_a_p_below_a_level_is_not_rounded_up_to_it():
    assert [formatting.p_value(value) for value in (0.0498, 0.05, 0.0501)] == ["0.0498", "0.05", "0.05"]


def test_points_p_values_and_counts():
    assert [formatting.points(value) for value in (0.0123, -0.2, NAN, None)] == ["1.2 points", "−20.0 points", "–", "–"]
    assert [formatting.p_value(value) for value in (1.0, 0.0404, 0.00012, 9e-5, 0.0, NAN, None)] == [
        "1", "0.04", "0.00012", "< 0.0001", "< 0.0001", "–", "–",
    ]  # fmt: skip
    assert [formatting.integer(value) for value in (3, 3.0, np.int64(7), "12", NAN, pd.NA, None)] == [
        "3", "3", "7", "12", "–", "–", "–",
    ]  # fmt: skip


def test_rates_and_intervals():
    # Newcombe (1998), Statistics in Medicine 17, 857–872, table I: 81 of 263 is 0.2553 to 0.3662.
    bounds = {"failed_low": 0.2553, "failed_high": 0.3662}
    assert formatting.rate_of({"failed": 81, "judged": 263} | bounds) == "31 % [26, 37]"
    assert formatting.rate_of({"failed": 0, "judged": 0, "failed_low": NAN, "failed_high": NAN}) == "unknown"
    row = {"x": -0.25, "x_low": -0.5, "x_high": NAN}
    assert formatting.interval(row, "x") == "−0.250"  # half an interval is none
    assert formatting.interval(row | {"x_high": INF}, "x") == "−0.250 [−0.500, ∞]"
    assert formatting.interval(row | {"x_high": 0.0}, "x", formatting.percent) == "−25 % [−50, 0]"
    assert formatting.interval(row | {"x": pd.NA}, "x") == "–"
