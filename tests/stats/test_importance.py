"""Every number against another source: statsmodels, R's logistf, a textbook, brute force, or a simulated truth."""

import itertools
import math
import subprocess
import sys

import numpy as np
import optuna
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special, stats

from harness.stats import anova as importance
from harness.stats import failure_model, forest
from harness.stats.anova import anova
from harness.stats.failure_model import effects, penalised_logit
from harness.stats.forest import fanova
from harness.stats.variance_components import crossed, variance_components

NUMBERS = ["sum_of_squares", "eta_squared", "omega_squared", "F", "p"]


def grid(runs: int = 1, **values) -> pd.DataFrame:
    """Every combination of the values, each `runs` times, as object columns."""
    rows = [row for row in itertools.product(*values.values()) for _ in range(runs)]
    return pd.DataFrame(rows, columns=list(values), dtype=object)


def drawn(seed: int, runs: int, *sizes: int) -> pd.DataFrame:
    """An unbalanced table: every factor drawn by itself, its values named by letters."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame({f"f{i}": np.array(list("abcdefg"))[rng.integers(0, k, runs)] for i, k in enumerate(sizes)})


def dummies(factors: pd.DataFrame) -> np.ndarray:
    """An intercept and an indicator for every value but the first seen."""
    columns = [factors[name] == value for name in factors for value in factors[name].unique()[1:]]
    return np.stack([np.ones(len(factors)), *columns], axis=1).astype(float)


# ------------------------------------------------------------------------------------------------ analysis of variance


def by_statsmodels(factors: pd.DataFrame, y: np.ndarray, order: int) -> pd.DataFrame:
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    names = list(factors)
    formula = f"y ~ ({' + '.join(f'C({name})' for name in names)}) ** {order}"
    return anova_lm(ols(formula, factors.assign(y=y)).fit(), typ=2)


@pytest.mark.parametrize(("seed", "order"), [(0, 1), (1, 2), (2, 2), (3, 3)])
def test_anova_is_that_of_statsmodels_on_unbalanced_data(seed, order):
    factors = drawn(seed, 130, 2, 3, 4)
    rng = np.random.default_rng(seed)
    y = 3 + rng.normal(size=130) + (factors["f0"] == "a") * (1 + (factors["f1"] == "b")).to_numpy()
    table, expected = anova(factors, y, order), by_statsmodels(factors, y, order)
    names = [
        "residual" if n == "Residual" else n.replace("C(", "").replace(")", "").replace(":", " × ")
        for n in expected.index
    ]
    assert list(table["term"]) == names
    np.testing.assert_allclose(table["sum_of_squares"], expected["sum_sq"], rtol=1e-9)
    np.testing.assert_allclose(table["df"], expected["df"])
    np.testing.assert_allclose(table["F"], expected["F"], rtol=1e-9)
    np.testing.assert_allclose(table["p"], expected["PR(>F)"], rtol=1e-8)
    total, error = ((y - y.mean()) ** 2).sum(), expected["sum_sq"].iloc[-1] / expected["df"].iloc[-1]
    np.testing.assert_allclose(table["eta_squared"], expected["sum_sq"] / total, rtol=1e-9)
    omega = (expected["sum_sq"] - expected["df"] * error) / (total + error)
    np.testing.assert_allclose(table["omega_squared"].iloc[:-1], omega.iloc[:-1], rtol=1e-8)
    assert (table["note"] == "").all()


def test_omega_squared_of_noise_is_negative_about_half_the_time_and_zero_on_average():
    rng = np.random.default_rng(0)
    factors = grid(20, a=[1, 2, 3])
    found = [anova(factors, rng.normal(size=60))["omega_squared"].iloc[0] for _ in range(300)]
    assert 0.4 < np.mean(np.array(found) < 0) < 0.75
    assert abs(np.mean(found)) < 0.006
    assert np.mean([anova(factors, rng.normal(size=60))["eta_squared"].iloc[0] for _ in range(50)]) > 0.02


def test_shares_of_a_balanced_table_add_to_one():
    factors = grid(3, a=[1, 2], b=["x", "y", "z"])
    table = anova(factors, np.random.default_rng(1).normal(size=len(factors)))
    assert table["eta_squared"].sum() == pytest.approx(1)
    assert list(table["df"]) == [1, 2, 2, 12]


def test_one_run_a_cell_leaves_the_residual_nothing():
    factors = grid(a=[1, 2], b=[1, 2, 3])
    y = np.array([1.0, 2, 4, 3, 5, 9])
    table = anova(factors, y).set_index("term")
    # by hand: means 7/3 and 17/3 of a, 2, 3.5 and 6.5 of b; total mean 4
    assert table["sum_of_squares"]["a"] == pytest.approx(3 * 2 * (5 / 3) ** 2)
    assert table["sum_of_squares"]["b"] == pytest.approx(2 * (4 + 0.25 + 6.25))
    assert table["eta_squared"].sum() == pytest.approx(1)
    assert table.loc["residual", "df"] == 0
    assert table[["omega_squared", "F", "p"]].isna().all(axis=None)
    additive = anova(factors, y, order=1).set_index("term")
    assert additive["F"].notna().tolist() == [True, True, False]
    assert additive.loc["residual", "sum_of_squares"] == pytest.approx(table["sum_of_squares"]["a × b"])


def test_a_missing_combination_costs_that_interaction_alone():
    factors = grid(4, a=[1, 2], b=[1, 2, 3], c=[1, 2])
    here = ~((factors["a"] == 2) & (factors["b"] == 3)).to_numpy()
    factors = factors[here]
    y = np.random.default_rng(2).normal(size=here.sum())
    table = anova(factors, y).set_index("term")
    assert table.loc["a × b", "note"] == "1 of 2 degrees of freedom can be told: combinations are missing"
    assert table.loc["a × b", NUMBERS].isna().all()
    assert (table.drop(index="a × b")["note"] == "").all()
    # The residual is that of the same model by plain least squares.
    full = [
        dummies(factors),
        *(
            np.where(factors[[p, q]].eq([v, w]).all(axis=1), 1.0, 0.0)[:, None]
            for p, q in itertools.combinations("abc", 2)
            for v in (1, 2)
            for w in (1, 2, 3)
        ),
    ]
    left = np.linalg.lstsq(np.hstack(full), y)[0]
    assert table.loc["residual", "sum_of_squares"] == pytest.approx(((y - np.hstack(full) @ left) ** 2).sum())
    assert table.loc["residual", "df"] == len(y) - np.linalg.matrix_rank(np.hstack(full))
    unhurt = by_statsmodels(factors.astype(int), y, 1)
    assert anova(factors, y, 1)["sum_of_squares"].iloc[0] == pytest.approx(unhurt["sum_sq"].iloc[0])


def test_a_recipe_that_fixes_everything_is_named():
    factors = grid(5, recipe=["usual", "devlin", "small"], size=[1, 2])
    factors["lr"] = factors["recipe"].map({"usual": 2e-5, "devlin": 3e-5, "small": 3e-5})
    y = np.random.default_rng(4).normal(size=30) + (factors["size"] == 2).to_numpy()
    table = anova(factors, y, 1).set_index("term")
    assert list(table["note"]) == ["confounded with lr", "", "confounded with recipe", ""]
    assert table.loc[["recipe", "lr"], NUMBERS].isna().all(axis=None)
    assert table.loc["size", "F"] > 0
    logit = penalised_logit(factors, y > 0).set_index("factor")
    assert list(logit["note"]) == ["confounded with lr", "", "confounded with recipe"]
    assert logit["share"].dropna().tolist() == [1.0]
    assert (
        effects(factors, y > 0)["note"].tolist()
        == ["confounded with lr"] * 3 + [""] * 2 + ["confounded with recipe"] * 2
    )
    # What cannot be told does not disturb the rest: the recipe alone spans the same fit.
    alone = penalised_logit(factors[["recipe", "size"]], y > 0).set_index("factor")
    assert logit.loc["size", "chi2"] == pytest.approx(alone.loc["size", "chi2"], rel=1e-9)
    np.testing.assert_allclose(
        effects(factors, y > 0)["rate"].dropna(),
        effects(factors[["recipe", "size"]], y > 0)["rate"].iloc[3:],
        rtol=1e-8,
    )


def test_wide_interactions_are_left_out_and_said_so():
    factors = drawn(4, 3000, 2, 2).assign(many=np.arange(3000) % 320, seed=np.arange(3000) % 100)
    y = np.random.default_rng(4).normal(size=3000)
    table = anova(factors, y).set_index("term")
    assert table.loc["many", "note"] == "left out of the model: 319 columns"
    assert table.loc["many × seed", "note"] == f"left out of the model: {319 * 99} columns"
    assert table.loc["f0 × seed", "df"] == 99
    assert table.loc["residual", "df"] == 3000 - (1 + 1 + 1 + 99 + 1 + 99 + 99)
    assert "left out of the model: 320 values" in set(penalised_logit(factors, y > 0)["note"])


def test_no_model_has_more_columns_than_agreed(monkeypatch):
    monkeypatch.setattr(importance, "MOST_IN_ALL", 12)
    table = anova(drawn(5, 400, 2, 3, 4), np.random.default_rng(5).normal(size=400), 3).set_index("term")
    assert table.index[table["note"] != ""].tolist() == ["f1 × f2", "f0 × f1 × f2"]
    assert table.loc["f0 × f2", "F"] > 0


def test_runs_without_a_score_are_left_out():
    factors = drawn(6, 90, 2, 3)
    y = np.random.default_rng(6).normal(size=90)
    y[::7], y[3] = np.nan, np.inf
    here = np.isfinite(y)
    pd.testing.assert_frame_equal(anova(factors, y), anova(factors[here], y[here]))
    pd.testing.assert_series_equal(fanova(factors, y), fanova(factors[here], y[here]))
    failed = np.where(here, y > 0.3, np.nan)
    pd.testing.assert_frame_equal(penalised_logit(factors, failed), penalised_logit(factors[here], failed[here]))


def test_any_name_and_any_scalar_is_taken():
    factors = grid(6, **{"lr (1e-5)": [1e-5, None, "auto"], 'it\'s "so"': [True, 1, 0.5]})
    y = np.random.default_rng(7).normal(size=54)
    table = anova(factors, y)
    assert table["term"].tolist() == ["lr (1e-5)", 'it\'s "so"', 'lr (1e-5) × it\'s "so"', "residual"]
    plain = factors.map(str).set_axis(["p", "q"], axis=1)
    np.testing.assert_allclose(table["sum_of_squares"], by_statsmodels(plain, y, 2)["sum_sq"])
    values = effects(factors, y > 0)["value"].tolist()
    assert values == [1e-5, None, "auto", True, 1, 0.5]
    assert [type(value) for value in values[3:5]] == [bool, int]


def test_what_is_one_value():
    y = np.arange(8) % 3 * 1.0
    mixed = pd.DataFrame({"a": pd.Series([1, 1.0, None, math.nan, True, True, False, 0], dtype=object)})
    assert anova(mixed, y)["df"].iloc[0] == 4  # 1, missing, True, False, 0
    for column in ([0.5, math.nan] * 4, pd.array([1, None] * 4, dtype="Int64"), pd.array(["x", None] * 4, dtype="str")):
        assert anova(pd.DataFrame({"a": column}), y)["df"].iloc[0] == 1
    assert anova(pd.DataFrame({"a": [True, False] * 4, "b": pd.Categorical(list("xyzz") * 2)}), y, 1)[
        "df"
    ].tolist() == [1, 2, 4]


@pytest.mark.parametrize("order", [1, 2, 5])
@pytest.mark.parametrize(
    "y", [[], [0.5], [0.5, 0.5], [0.5, math.nan], [math.nan] * 3, [0.9] * 6, [1, 0, 1], [0, 1, 0, 1, 1]]
)
def test_small_tables_break_nothing(y, order):
    factors = grid(1, a=[None, True], b=["x", 2, 0.1], c=[7]).iloc[: len(y)]
    y = np.array(y, dtype=float)
    table = anova(factors, y, order)
    assert table["term"].iloc[-1] == "residual"
    assert np.isfinite(table["df"].iloc[-1])
    assert not np.isinf(table[NUMBERS].to_numpy(dtype=float)).any()
    assert list(fanova(factors, y).index) == ["a", "b", "c"]
    if set(y[np.isfinite(y)]) <= {0.0, 1.0}:
        logit = penalised_logit(factors, y)
        assert logit["factor"].tolist() == ["a", "b", "c"]
        assert ((logit["note"] != "") == logit["chi2"].isna()).all()
        assert (effects(factors, y)["rate"].isna() == (effects(factors, y)["note"] != "")).all()


def test_a_constant_score_has_no_shares():
    table = anova(grid(3, a=[1, 2], b=[1, 2]), np.full(12, 0.1))
    assert (table["sum_of_squares"] == 0).all()
    assert table[["eta_squared", "omega_squared", "F", "p"]].isna().all(axis=None)


def test_an_exact_fit_has_no_test():
    factors = grid(3, a=[1, 2], b=[1, 2])
    table = anova(factors, np.where(factors["a"] == 1, 0.1, 0.7)).set_index("term")
    assert table.loc["a", "eta_squared"] == pytest.approx(1)
    assert table[["F", "p"]].isna().all(axis=None)
    assert table.loc["residual", "sum_of_squares"] == 0


def test_wrong_arguments_are_named():
    factors = grid(a=[1, 2])
    with pytest.raises(ValueError, match=r"order must be 1 .* or more: got 0"):
        anova(factors, np.zeros(2), 0)
    for function in (anova, penalised_logit, effects, fanova):
        with pytest.raises(ValueError, match=r"got 2 rows and outcomes of shape \(3,\)"):
            function(factors, np.zeros(3))
    with pytest.raises(ValueError, match=r"got 2 rows and outcomes of shape \(3,\)"):
        variance_components(grid(a=[1, 2]), np.zeros(3), np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"must be 0 or 1 .* got 0.5"):
        penalised_logit(factors, np.array([0.5, 1]))


# ------------------------------------------------------------------------------------------------- penalised logit

# Urinary infections of 239 students (Foxman et al. 1997), the data `sex2` of R's logistf; a pattern is the digits of
# case, age, oc, vic, vicl, vis, dia, and `dia` separates: none of its seven is a control.
SEX2 = """
1000010:1 1001000:14 1001010:3 1001100:10 1001110:12 1001111:1 1010000:44 1010001:3 1011000:15 1011001:1 1011010:2
1011100:7 1011110:3 1101000:2 1101010:1 1101011:1 1101100:1 1101111:1 1110000:5 1111000:3 0000010:1 0001000:2 0001010:1
0001100:8 0001110:18 0010000:42 0010010:1 0011000:1 0011100:5 0011110:6 0101100:2 0101110:4 0110000:14 0110010:1
0111000:1 0111110:2
"""
# Printed by summary(logistf(case ~ age + oc + vic + vicl + vis + dia, data = sex2)): coefficients, Chisq and p.
LOGISTF = {
    "age": (-1.10598131, 7.50773092, 6.143472e-03),
    "oc": (-0.06881673, 0.02467044, 8.751911e-01),
    "vic": (2.26887464, 22.93139022, 1.678877e-06),
    "vicl": (-2.11140817, 19.10407252, 1.237805e-05),
    "vis": (-0.78831694, 3.69740975, 5.449701e-02),
    "dia": (3.09601166, 7.89693139, 4.951873e-03),
}
INTERCEPT = 0.12025405


@pytest.fixture(scope="module")
def sex2():
    counts = [pair.split(":") for pair in SEX2.split()]
    rows = [[int(digit) for digit in pattern] for pattern, count in counts for _ in range(int(count))]
    table = pd.DataFrame(rows, columns=["case", *LOGISTF])
    assert (len(table), table["case"].sum()) == (239, 130)
    return table[list(LOGISTF)], table["case"].to_numpy()


def test_the_published_example(sex2):
    table = penalised_logit(*sex2).set_index("factor")
    np.testing.assert_allclose(table["chi2"], [chi2 for _, chi2, _ in LOGISTF.values()], rtol=2e-7)
    np.testing.assert_allclose(table["p"], [p for _, _, p in LOGISTF.values()], rtol=1e-5)
    np.testing.assert_allclose(table["share"], table["chi2"] / sum(chi2 for _, chi2, _ in LOGISTF.values()), rtol=1e-6)
    assert (table["df"] == 1).all()


def test_effects_average_over_the_runs_by_the_published_coefficients(sex2):
    factors, failed = sex2
    table = effects(factors, failed)
    for _, row in table.iterrows():
        changed = factors.assign(**{row["factor"]: row["value"]})
        linear = INTERCEPT + sum(changed[name] * coefficient for name, (coefficient, *_) in LOGISTF.items())
        assert row["rate"] == pytest.approx(special.expit(linear).mean(), rel=1e-6)
    firsts = table.groupby("factor")["rate"].transform("first")
    np.testing.assert_allclose(table["difference"], table["rate"] - firsts, atol=1e-12)
    assert table["low"].isna().sum() == 6
    assert ((table["low"] < table["difference"]) | table["low"].isna()).all()


def penalised(design: np.ndarray, failed: np.ndarray, coefficients: np.ndarray) -> float:
    """Firth's penalised log-likelihood, run by run."""
    rates = special.expit(design @ coefficients)
    information = design.T @ (design * (rates * (1 - rates))[:, None])
    return float(stats.bernoulli.logpmf(failed, rates).sum() + np.linalg.slogdet(information)[1] / 2)


def maximised(design: np.ndarray, failed: np.ndarray, free: list[int]) -> tuple[float, np.ndarray]:
    def loss(part: np.ndarray) -> float:
        whole = np.zeros(design.shape[1])
        whole[free] = part
        return -penalised(design, failed, whole)

    found = optimize.minimize(loss, np.zeros(len(free)), method="BFGS", options={"gtol": 1e-5})
    return -found.fun, found.x


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_test_is_the_drop_from_one_brute_force_maximum_to_another(seed):
    factors = drawn(seed, 40, 2, 3, 3)
    failed = (np.random.default_rng(seed).random(40) < np.where(factors["f0"] == "a", 0.5, 0.0)).astype(int)
    design = dummies(factors)
    best, coefficients = maximised(design, failed, list(range(6)))
    places = {"f0": [1], "f1": [2, 3], "f2": [4, 5]}
    table = penalised_logit(factors, failed).set_index("factor")
    for name, own in places.items():
        lesser, _ = maximised(design, failed, [i for i in range(6) if i not in own])
        assert table.loc[name, "chi2"] == pytest.approx(2 * (best - lesser), abs=1e-6)
        assert table.loc[name, "p"] == pytest.approx(stats.chi2.sf(2 * (best - lesser), len(own)), abs=1e-6)

    # Averaged effects, and their error by differences of the rates in every coefficient.
    def rate(name: str, value: str, at: np.ndarray) -> float:
        own = design.copy()
        own[:, places[name]] = [[value == other for other in factors[name].unique()[1:]]] * 40
        return float(special.expit(own @ at).mean())

    rates = special.expit(design @ coefficients)
    covariance = np.linalg.inv(design.T @ (design * (rates * (1 - rates))[:, None]))
    for _, row in effects(factors, failed).iterrows():
        name, first = row["factor"], factors[row["factor"]].iloc[0]
        assert row["rate"] == pytest.approx(rate(name, row["value"], coefficients), abs=1e-5)
        if row["value"] == first:
            assert row["difference"] == 0
            continue
        steps = 1e-5 * np.eye(6)
        up, down = (
            [
                rate(name, row["value"], coefficients + s * step) - rate(name, first, coefficients + s * step)
                for step in steps
            ]
            for s in (1, -1)
        )
        slope = (np.array(up) - down) / 2e-5
        half = stats.norm.ppf(0.975) * math.sqrt(slope @ covariance @ slope)
        assert row["low"] == pytest.approx(max(row["difference"] - half, -1), abs=1e-4)
        assert row["high"] == pytest.approx(min(row["difference"] + half, 1), abs=1e-4)


@pytest.mark.parametrize(("k", "l", "n"), [(19, 0, 48), (48, 0, 48), (5, 9, 30)])
def test_two_arms_have_a_closed_form(k, l, n):  # noqa: E741
    factors = grid(n, bias_correction=[False, True])
    failed = np.array([1] * k + [0] * (n - k) + [1] * l + [0] * (n - l))
    rates = np.array([k + 0.5, l + 0.5]) / (n + 1)  # half a run added to each of the four counts (Firth 1993)
    table = effects(factors, failed)
    np.testing.assert_allclose(table["rate"], rates, rtol=1e-7)
    half = stats.norm.ppf(0.975) * math.sqrt((rates * (1 - rates) / n).sum())
    assert table["difference"][1] == pytest.approx(rates[1] - rates[0])
    assert table["low"][1] == pytest.approx(max(rates[1] - rates[0] - half, -1), rel=1e-6)
    assert table["high"][1] == pytest.approx(min(rates[1] - rates[0] + half, 1), rel=1e-6)

    # The penalised likelihood of two arms: log of rates to the k + 1/2, n - k + 1/2 (the information is diagonal).
    def value(p: float, q: float) -> float:
        return float(
            special.xlogy([k + 0.5, l + 0.5], [p, q]).sum()
            + special.xlogy([n - k + 0.5, n - l + 0.5], [1 - p, 1 - q]).sum()
        )

    middle = rates.mean()
    chi2 = 2 * (value(*rates) - value(middle, middle))
    assert penalised_logit(factors, failed)["chi2"][0] == pytest.approx(chi2, rel=1e-7)


def test_separation_gives_a_finite_and_clear_answer():
    factors = grid(8, lr=[1e-5, 2e-5, 3e-5], bias_correction=[False, True], epochs=[3, 10])
    failed = np.zeros(96)
    failed[np.flatnonzero(~factors["bias_correction"].astype(bool))[::5]] = 1
    table = penalised_logit(factors, failed).set_index("factor")
    assert table.loc["bias_correction", "share"] > 0.9
    assert table.loc["bias_correction", "p"] < 0.001
    assert (table["note"] == "").all()


def test_false_alarms_are_as_rare_as_the_level_says():
    rng, factors = np.random.default_rng(8), grid(15, a=[1, 2], b=[1, 2, 3])
    p_values = np.array([penalised_logit(factors, rng.random(90) < 0.3)["p"] for _ in range(250)])
    alarms = (p_values < 0.05).mean(axis=0)
    assert (alarms > 0.015).all()
    assert (alarms < 0.09).all()


@pytest.mark.parametrize(("outcome", "note"), [(0, "no run failed"), (1, "every run failed")])
def test_an_outcome_without_variation_tells_nothing(outcome, note):
    factors = grid(3, a=[1, 2], b=[1, 2, 3], c=[1]).iloc[:-4]  # unbalanced: the penalty alone would tell them apart
    table = penalised_logit(factors, np.full(14, outcome))
    assert table["note"].tolist() == [note, note, "one value only"]
    assert table[["chi2", "p", "share"]].isna().all(axis=None)
    assert effects(factors, np.full(14, bool(outcome)))["rate"].isna().all()


@pytest.mark.parametrize(("runs", "failures"), [(4, 1), (7, 2), (48, 19), (1000, 3)])
def test_equal_arms_share_nothing(runs, failures):
    table = penalised_logit(grid(runs, a=[1, 2], b=["x", "y", "z"]), np.tile(np.arange(runs) < failures, 6))
    assert (table["chi2"] == 0).all()  # rounding would make shares of nothing
    assert (table["p"] == 1).all()
    assert table["share"].isna().all()


@pytest.mark.parametrize("failures", [(0, 1, 2), (0, 5, 1), (2, 1, 0), (2, 4, 4), (3, 1, 0)])
def test_an_equal_arm_beside_an_unequal_one_has_exactly_no_share(failures):
    failed = np.tile(np.concatenate([np.arange(5) < count for count in failures]), 2)
    table = penalised_logit(grid(5, a=[1, 2], b=["x", "y", "z"]), failed)
    assert table["chi2"][0] == 0
    assert table["share"].tolist() == [0, 1]


def test_no_convergence_is_said(monkeypatch):
    factors, failed = grid(10, a=[1, 2]), np.array([1] * 9 + [0] * 11)
    monkeypatch.setattr(failure_model, "ITERATIONS", 1)
    for table, numbers in (
        (penalised_logit(factors, failed), ["chi2", "p", "share"]),
        (effects(factors, failed), ["rate"]),
    ):
        assert (table["note"] == "did not converge").all()
        assert table[numbers].isna().all(axis=None)


def test_as_many_parameters_as_runs():
    factors = pd.DataFrame({"a": list("abcdef"), "b": list("xyxyxy")})
    table = penalised_logit(factors, np.array([1, 0, 0, 1, 0, 1]))
    assert table["note"].tolist() == ["confounded with b", "confounded with a"]
    alone = penalised_logit(factors[["a"]], np.array([1, 0, 0, 1, 0, 1]))
    assert 0 < alone["p"][0] < 1


# --------------------------------------------------------------------------------------------------- random forest


@pytest.fixture(scope="module")
def unstable():
    """450 runs: without bias correction a quarter to over a half fail, more with a larger lr; with it, none."""
    factors = grid(25, epochs=[3, 5, 10], lr=[1e-5, 2e-5, 3e-5], bias_correction=[True, False])
    rate = factors["lr"].map({1e-5: 0.25, 2e-5: 0.4, 3e-5: 0.6}) * ~factors["bias_correction"].astype(bool)
    return factors, (np.random.default_rng(0).random(450) < rate.to_numpy(dtype=float)).astype(float)


def test_fanova_finds_what_drives_failing_and_optunas_default_does_not(unstable):
    factors, failed = unstable
    shares = fanova(factors, failed)
    assert list(shares.index) == ["epochs", "lr", "bias_correction"]
    assert shares["bias_correction"] > 0.45
    assert shares["bias_correction"] > 3 * shares["lr"] > 3 * shares["epochs"]
    assert 0.7 < shares.sum() < 1
    kinds = {name: optuna.distributions.CategoricalDistribution(tuple(factors[name].unique())) for name in factors}
    study = optuna.study.create_study()
    for row, value in zip(factors.to_dict("records"), failed, strict=True):
        study.add_trial(optuna.trial.create_trial(params=row, distributions=kinds, value=value))
    default = optuna.importance.PedAnovaImportanceEvaluator().evaluate(study)
    assert default["bias_correction"] < 0.05


def test_fanova_is_the_share_of_main_effects_on_a_full_grid():
    rng = np.random.default_rng(1)
    factors = grid(8, a=[1, 2, 3, 4], b=["x", "y", "z"], c=[True, False])
    y = factors["a"].map(dict(enumerate([0.0, 1, 3, 2], start=1))) + factors["b"].map({"x": 0, "y": 2, "z": 1})
    y = y.to_numpy(dtype=float) + rng.normal(size=len(y)) * 0.1
    table = anova(factors, y, 3).set_index("term")
    assert np.abs(fanova(factors, y) - table["eta_squared"][["a", "b", "c"]].to_numpy()).max() < 0.05


def test_fanova_depends_on_the_seed_alone(unstable):
    factors, failed = unstable
    shuffled = np.random.default_rng(3).permutation(450)
    verbosity = optuna.logging.get_verbosity()
    state = np.random.get_state()[1].copy()
    shares = fanova(factors, failed, seed=1)
    pd.testing.assert_series_equal(shares, fanova(factors.iloc[shuffled], failed[shuffled], seed=1))
    assert not shares.equals(fanova(factors, failed, seed=2))
    assert optuna.logging.get_verbosity() == verbosity
    assert (np.random.get_state()[1] == state).all()


def test_fanova_of_many_rows_takes_a_sample(monkeypatch, unstable):
    factors, failed = unstable
    monkeypatch.setattr(forest, "FOREST_ROWS", 200)
    sampled = fanova(factors, failed)
    assert sampled["bias_correction"] > 0.4
    pd.testing.assert_series_equal(sampled, fanova(factors, failed))
    monkeypatch.undo()
    assert not sampled.equals(fanova(factors, failed))


def test_fanova_of_nothing_to_explain():
    factors = grid(4, a=[1, 2], b=[1])
    assert fanova(factors, np.ones(8)).isna().all()
    assert fanova(factors[["b"]], np.arange(8.0)).isna().all()
    known = fanova(factors, np.arange(8.0))
    assert known["a"] > 0
    assert math.isnan(known["b"])
    assert fanova(grid(a=[1, 2]), np.array([0.0, 1e-300])).index.tolist() == ["a"]


def test_a_factor_of_many_values_takes_no_exponential_time():
    factors = pd.DataFrame({"many": np.arange(300) % 40, "two": np.arange(300) % 2})
    assert fanova(factors, np.random.default_rng(0).normal(size=300) + factors["two"])["many"] > 0


def test_heavy_libraries_come_when_needed_and_in_silence():
    code = """if True:
        import sys, pandas as pd, harness.stats.forest as importance
        print([name for name in ("optuna", "sklearn", "statsmodels") if name in sys.modules])
        print(importance.fanova(pd.DataFrame({"a": [1, 2, 1, 2]}), [0, 1, 0, 1]).round(6).to_dict())
    """
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (answer.stdout, answer.stderr) == ("[]\n{'a': 1.0}\n", "")


# ----------------------------------------------------------------------------------------------- parts of the seed

# Montgomery, Introduction to Statistical Quality Control, gauge study: 20 parts, 3 operators, 2 measurements each.
GAUGE = """
21 20 20 20 19 21  24 23 24 24 23 24  20 21 19 21 20 22  27 27 28 26 27 28  19 18 19 18 18 21
23 21 24 21 23 22  22 21 22 24 22 20  19 17 18 20 19 18  24 23 25 23 24 24  25 23 26 25 24 25
21 20 20 20 21 20  18 19 17 19 18 19  23 25 25 25 25 25  24 24 23 25 24 25  29 30 30 28 31 30
26 26 25 26 25 27  20 20 19 20 20 20  19 21 19 19 21 23  25 26 25 24 25 25  19 19 18 17 19 17
"""


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_components_of_the_textbook():
    y = np.array([float(number) for number in GAUGE.split()])
    found = variance_components(grid(2, part=range(20), operator=range(3)), y, rng())
    table = found.table.set_index("term")
    assert found.reason == ""
    assert list(table.index) == ["part", "operator", "part × operator", "residual"]
    np.testing.assert_allclose(table["mean_square"], [62.391, 1.308, 0.712, 0.992], atol=6e-4)  # as printed there
    np.testing.assert_allclose(table["variance"], [10.2798, 0.0149, -0.1399, 0.9917], atol=6e-5)
    assert list(table["df"]) == [19, 2, 38, 60]
    positive = table["variance"].clip(lower=0)
    np.testing.assert_allclose(table["share"], positive / positive.sum())
    assert table.loc["part × operator", "share"] == 0


@pytest.mark.parametrize("runs", [1, 2])
def test_three_factors_by_the_mean_squares_of_statsmodels(runs):
    levels = grid(runs, a=[1, 2, 3], b=[1, 2, 3, 4], c=["x", "y"])
    y = rng(1).normal(size=len(levels)) + levels["a"].to_numpy(dtype=float)
    expected = by_statsmodels(levels.astype(str), y, 3 if runs > 1 else 2)
    square = dict(zip(["a", "b", "c", "ab", "ac", "bc"], (expected["sum_sq"] / expected["df"]).iloc[:6], strict=True))
    table = variance_components(levels, y, rng()).table.set_index("term")["variance"]
    triple = (expected["sum_sq"] / expected["df"]).iloc[6]
    assert table["a"] == pytest.approx((square["a"] - square["ab"] - square["ac"] + triple) / (8 * runs))
    assert table["c"] == pytest.approx((square["c"] - square["bc"] - square["ac"] + triple) / (12 * runs))
    assert table["a × b"] == pytest.approx((square["ab"] - triple) / (2 * runs))
    assert table["b × c"] == pytest.approx((square["bc"] - triple) / (3 * runs))
    if runs == 1:
        assert table["a × b × c + residual"] == pytest.approx(triple)
        assert len(table) == 7
    else:
        left = (expected["sum_sq"] / expected["df"]).iloc[7]
        assert table["a × b × c"] == pytest.approx((triple - left) / 2)
        assert table["residual"] == pytest.approx(left)


def simulated(draw: np.random.Generator, sizes: tuple[int, ...], variances: dict[tuple[int, ...], float]) -> np.ndarray:
    """Scores of a crossed design whose effects of each set of factors have the given variance."""
    total = np.zeros(sizes)
    for term, variance in variances.items():
        shape = [size if i in term else 1 for i, size in enumerate(sizes)]
        total = total + math.sqrt(variance) * draw.normal(size=shape)
    return total.ravel()


@pytest.mark.parametrize(
    ("sizes", "truth"),
    [
        ((5, 5), {(0,): 1.0, (1,): 0.5, (0, 1): 1.0}),
        ((6, 4), {(0,): 0.0, (1,): 2.0, (0, 1): 1.0}),
        ((4, 4, 3), {(0,): 1.0, (1,): 0.5, (2,): 0.0, (0, 1): 0.5, (0, 2): 0.0, (1, 2): 0.25, (0, 1, 2): 1.0}),
    ],
)
def test_components_are_unbiased_and_their_intervals_cover(monkeypatch, sizes, truth):
    monkeypatch.setattr(importance, "DRAWS", 1000)
    draw, levels = rng(2), grid(**{name: range(size) for name, size in zip("abc", sizes, strict=False)})
    tables = [variance_components(levels, simulated(draw, sizes, truth), draw).table for _ in range(300)]
    variance = np.stack([table["variance"] for table in tables])  # (simulations, terms)
    error = variance.std(axis=0) / math.sqrt(len(tables))
    expected = np.array(list(truth.values()))
    assert (np.abs(variance.mean(axis=0) - expected) < 3.5 * error).all()
    share = expected / expected.sum()
    low, high = (np.stack([table[name] for table in tables]) for name in ("share_low", "share_high"))
    covered = ((low <= share + 1e-12) & (share <= high + 1e-12)).mean(axis=0)
    assert (covered >= 0.9).all()
    assert (high - low).mean() < 0.85  # and not by saying nothing


def test_failing_by_the_init_seed_alone():
    levels = grid(init=range(5), order=range(5))
    failed = (levels["init"].to_numpy() < 2).astype(int)
    table = variance_components(levels, failed, rng()).table.set_index("term")
    assert table["share"].tolist() == pytest.approx([1, 0, 0])
    assert table.loc["init", "variance"] == pytest.approx(failed.reshape(5, 5)[:, 0].var(ddof=1))
    assert table.loc["init", "share_low"] > 0.9
    failed[3] = 1 - failed[3]
    table = variance_components(levels, failed, rng()).table.set_index("term")
    assert 0.5 < table.loc["init", "share"] < 1


def test_the_interval_is_that_of_the_generator():
    levels, y = grid(a=range(4), b=range(3)), rng(4).normal(size=12)
    one, same, other = (variance_components(levels, y, rng(seed)).table for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(one, same)
    assert (one["share_low"] <= one["share_high"]).all()
    assert not one["share_high"].equals(other["share_high"])
    np.testing.assert_allclose(one["share_high"], other["share_high"], atol=0.02)


def test_why_nothing_is_known():
    levels = grid(init=range(5), order=range(5))
    y = rng().normal(size=25)
    for reason, these, scores in [
        ("not fully crossed: 3 of 25 combinations are missing", levels.iloc[3:].iloc[::-1].assign(), y[3:]),
        ("not fully crossed: 2 of 25 combinations are missing", levels, np.where(np.arange(25) % 20 == 4, np.nan, y)),
        ("not balanced: combinations have 1 to 2 runs", pd.concat([levels, levels.iloc[:3]]), np.append(y, y[:3])),
        ("every run has the same outcome", levels, np.zeros(25)),
        ("every run has the same outcome", levels, np.arange(25) * 1e-200),
        ("two or three factors are needed: there are 1", levels[["init"]], y),
        ("order has 1 values: at least 2 are needed", levels.iloc[::5], y[::5]),
        ("init has 0 values: at least 2 are needed", levels.iloc[:0], y[:0]),
    ]:
        found = variance_components(these, scores, rng())
        assert found.reason == reason
        assert found.table.empty
        assert list(found.table) == ["term", "df", "mean_square", "variance", "share", "share_low", "share_high"]


def seeds(init, order, dropout) -> pd.DataFrame:
    return pd.DataFrame(
        {"init_seed": init, "order_seed": order, "dropout_seed": dropout}, index=range(7, 7 + len(init))
    )


def test_crossed_seeds():
    a, b = np.repeat(range(5), 5), np.tile(range(5), 5)
    same = crossed(seeds(a, b, [0] * 25))
    pd.testing.assert_frame_equal(same, pd.DataFrame({"init": a, "order": b}, index=range(7, 32)))
    assert list(crossed(seeds(a, b, b + 100))) == ["init", "order + dropout"]
    assert list(crossed(seeds(a, a, b))) == ["init + order", "dropout"]
    assert crossed(seeds(a, a, a)) is None  # one integer drives all
    assert crossed(seeds(range(25), range(25), range(25))) is None
    assert crossed(seeds([0] * 25, [1] * 25, range(25))) is None
    assert crossed(seeds(a, range(25), [0] * 25)) is None  # nested
    assert crossed(seeds([0, 1] * 5, range(10), [0] * 10)) is None
    assert crossed(seeds(a, b, (a + b) % 5)) is None  # a Latin square
    assert crossed(seeds(a, b, [0] * 25).iloc[:22]).shape == (22, 2)  # and variance_components counts what is missing
    assert crossed(seeds([], [], [])) is None
    three = grid(init_seed=range(2), order_seed=range(3), dropout_seed=range(4))
    assert list(crossed(three)) == ["init", "order", "dropout"]
    assert len(crossed(pd.concat([three, three]))) == 48


def test_names_of_crossed_seeds():
    a, b = np.repeat(range(3), 3), np.tile(range(3), 3)
    table = variance_components(crossed(seeds(a, a, b)), rng().normal(size=9), rng()).table
    assert table["term"].tolist() == ["init + order", "dropout", "(init + order) × dropout + residual"]


# ---------------------------------------------------------------------------------------------------------- laws


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(5, 60))
def test_neither_the_order_of_rows_nor_the_names_of_values_matter(seed, runs):
    draw = rng(seed)
    factors = drawn(seed, runs, 2, 3, 3)
    y, failed = draw.normal(size=runs), (draw.random(runs) < 0.4).astype(float)
    order = draw.permutation(runs)
    names: dict[str, object] = dict(zip("abc", (None, True, 3e-5), strict=True))
    renamed = pd.DataFrame({name: pd.Series([names[v] for v in factors[name]], dtype=object) for name in factors})
    for function, outcome, key in ((anova, y, "term"), (penalised_logit, failed, "factor")):
        table = function(factors, outcome)
        numbers = table.columns.drop([key, "note"])
        for other in (function(factors.iloc[order], outcome[order]), function(renamed, outcome)):
            assert table[[key, "note"]].equals(other[[key, "note"]])
            np.testing.assert_allclose(table[numbers].astype(float), other[numbers].astype(float), rtol=1e-5, atol=1e-6)
    rates = effects(factors, failed).set_index(["factor", "value"])["rate"]
    shuffled = effects(factors.iloc[order], failed[order]).set_index(["factor", "value"])["rate"]
    np.testing.assert_allclose(rates, shuffled.reindex(rates.index), rtol=1e-5)
    np.testing.assert_allclose(rates, effects(renamed, failed)["rate"], rtol=1e-5)


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(2, 4), st.integers(2, 4), st.integers(1, 2))
def test_the_order_of_seeds_does_not_matter(seed, a, b, runs):
    draw, levels = rng(seed), grid(runs, a=range(a), b=range(b))
    y, order = draw.normal(size=len(levels)), draw.permutation(len(levels))
    table = variance_components(levels, y, rng()).table
    other = variance_components(levels.iloc[order] + 10, y[order], rng()).table
    pd.testing.assert_frame_equal(table, other, rtol=1e-6, atol=1e-9)
    assert table["share"].sum() == pytest.approx(1)
    assert table["share"].between(0, 1).all()
