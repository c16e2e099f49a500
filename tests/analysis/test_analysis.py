"""Every table against something independent: counts by hand, scipy or statsmodels called directly, enumeration."""

import dataclasses
import itertools
import math

import numpy as np
import pandas as pd
import pytest
from made_runs import HEAD, MOSBACH, MOSBACH_RUNS, Run, import_of, imported_runs, store_of, study_of, sweep_of
from scipy import stats
from statsmodels.stats.contingency_tables import StratifiedTable
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from harness.analysis import (
    analyze,
    comparisons,
    dev_answers,
    drivers,
    failures,
    published,
    spread_and_level,
    verdicts,
)
from harness.analysis import cells as cells_module
from harness.analysis import seeds as seeds_module
from harness.analysis.analyze import analyse
from harness.records.record import Curves
from harness.records.study import SOURCE, Compared, joined, of_sweep
from harness.stats import dev_noise, means, seed_budget

TWO_BY_TWO = HEAD + "lr: [1e-5, 2e-5]\nbias_correction: [off, on]\nepochs: 3\nseeds: 1..8\n"
# Cells of lr 1e-5 off, on; lr 2e-5 off, on.
TWO_BY_TWO_RUNS = {
    0: [Run(200, 0.693), *(Run(300 + 3 * i) for i in range(7))],
    1: [Run(320 + i * i) for i in range(8)],
    2: [Run(200, 0.693)] * 4 + [Run(280), Run(300), Run(320), Run(diverged=True)],
    3: [Run(198, 0.69), Run(199, 0.69), *(Run(330 + 2 * i) for i in range(6))],
}


@pytest.fixture(scope="module")
def mosbach(tmp_path_factory):
    return by_correction(study_of(tmp_path_factory.mktemp("mosbach"), MOSBACH, MOSBACH_RUNS))


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    return by_correction(study_of(tmp_path_factory.mktemp("four"), TWO_BY_TWO, TWO_BY_TWO_RUNS))


def by_correction(study):
    """The study with bias correction as its main axis, though its file varies the rate first."""
    return dataclasses.replace(study, compared=Compared(main="bias_correction"))


def one_cell(folder, runs, seeds=None, **how):
    return study_of(folder, HEAD + f"lr: 1e-5\nepochs: 3\nseeds: 1..{seeds or len(runs)}\n", {0: runs}, **how)


def scores_of(study, cell: int) -> np.ndarray:
    here = study.runs[(study.runs["cell"] == cell) & (study.runs["status"] == "finished")]
    return here["final_score"].dropna().to_numpy(dtype=float)


def row_of(table: pd.DataFrame, **values) -> pd.Series:
    found = table[[all(row[name] == value for name, value in values.items()) for _, row in table.iterrows()]]
    assert len(found) == 1, values
    return found.iloc[0]


# -------------------------------------------------------------------------------------------------------------- cells


def test_cells_by_hand(mosbach):
    cells = cells_module.cells(mosbach)
    assert list(cells["planned"]) == [3] * 8
    assert list(cells["finished"]) == list(cells["judged"]) == [3, 3, 3, 3, 3, 3, 1, 3]
    assert list(cells["crashed"]) == [0, 0, 0, 0, 0, 0, 1, 0]
    assert list(cells["missing"]) == [0, 0, 0, 0, 0, 0, 1, 0]
    assert list(cells["scored"]) == [3, 3, 3, 3, 3, 2, 1, 3]
    assert list(cells["failed"]) == [0, 0, 0, 0, 3, 2, 0, 0]
    assert list(cells["diverged"]) == [0, 0, 0, 0, 0, 1, 0, 0]
    assert list(cells["constant"]) == [0, 0, 0, 0, 3, 1, 0, 0]
    assert list(cells["near_chance"]) == [0, 0, 0, 0, 0, 1, 0, 0]
    first = cells.iloc[0]
    assert (first["mean"], first["sd"]) == (pytest.approx(0.8), pytest.approx(0.025))
    assert (first["min"], first["median"], first["max"]) == (0.775, 0.8, 0.825)
    assert first["best_mean"] == pytest.approx(0.81)
    assert first["majority"] == 0.5
    assert cells.iloc[4]["sd"] == pytest.approx(math.sqrt(3) / 3 * 0.0025)
    assert math.isnan(cells.iloc[6]["sd"])
    assert list(cells["bias_correction"]) == [False, False, True, True] * 2
    assert list(cells["lr"]) == [1e-5] * 4 + [2e-5] * 4


@pytest.mark.parametrize(("method", "low", "high"), [
    ("wilson", "failed_low", "failed_high"), ("beta", "exact_low", "exact_high"),
])  # fmt: skip
def test_intervals_of_the_rates_are_those_of_statsmodels(four, method, low, high):
    cells = cells_module.cells(four)
    assert list(cells["failed"]) == [1, 0, 5, 2]
    for _, row in cells.iterrows():
        expected = proportion_confint(row["failed"], row["judged"], method=method)
        assert (row[low], row[high]) == pytest.approx(expected, abs=1e-9)


def test_no_rate_without_a_majority(tmp_path):
    rows = [*imported_runs([0.5, 0.6, None]), *imported_runs([None], 1), *imported_runs([0.7], 2, outcome=["failed"])]
    study = import_of(tmp_path, [(("k", k),) for k in (1, 2, 3)], rows)
    cells = cells_module.cells(study)
    assert list(cells["judged"]) == [0, 0, 1]
    assert [None if value is pd.NA else value for value in cells["failed"]] == [None, 0, 1]
    assert cells["failed_low"].isna().tolist() == [True, True, False]
    assert cells["mean"].tolist()[0] == pytest.approx(0.55)
    assert list(verdicts.runs(study)["verdict"]) == ["unjudged", "unjudged", "", "", "failed"]


def test_near_chance_needs_both_the_count_and_the_loss(tmp_path):
    # 216 of 400 is the largest count that is not above one half at 5 %: P(X >= 217) = 0.0495 < 0.05 < P(X >= 216).
    assert stats.binom.sf(216, 400, 0.5) < 0.05 < stats.binom.sf(215, 400, 0.5)
    entropy = math.log(2)
    runs = [Run(216, entropy), Run(217, entropy), Run(216, 0.94 * entropy), Run(216, 0.96 * entropy), Run(200, entropy)]
    study = one_cell(tmp_path, [*runs, Run(diverged=True), Run(crashed="x"), None])
    assert list(verdicts.near_chance(study.runs)) == [True, False, False, True, False, False, False, False]
    words = ["near chance", "ok", "ok", "near chance", "failed", "diverged", "", ""]
    assert list(verdicts.runs(study)["verdict"]) == words
    assert "verdict" not in study.runs  # what was given is not changed


def test_a_regression_that_was_not_trained_is_near_chance(tmp_path):
    study = one_cell(tmp_path, [Run(score=0.05), Run(score=0.05, loss=2.0), Run(score=0.5, loss=2.0), Run(score=-0.1)],
                     metric="pearson")  # fmt: skip
    assert not verdicts.near_chance(study.runs).any()  # early records don't know the labels' variance
    runs = study.runs.assign(label_variance=2.0)
    assert verdicts.near_chance(runs).tolist() == [False, True, False, False]  # 0.3 is a low loss; 0.5 is no luck
    expected = [stats.pearsonr(*correlated(r, 400), alternative="greater").pvalue for r in (0.05, 0.5, -0.1)]
    assert verdicts.above_majority_p(runs)[[0, 2, 3]].tolist() == pytest.approx(expected, rel=1e-6)
    table = failures.definitions(dataclasses.replace(study, runs=runs))
    assert table[["binomial_failed", "binomial_of", "entropy_failed", "entropy_of"]].to_numpy().tolist() == [
        [3, 4, 2, 4]
    ]


def correlated(r, n):
    """Two series [n] whose Pearson correlation is exactly r."""
    one, other = np.random.default_rng(0).normal(size=(2, n))
    one -= one.mean()
    other -= other.mean() + one * (one @ other) / (one @ one)
    return one, r * one / np.linalg.norm(one) + np.sqrt(1 - r**2) * other / np.linalg.norm(other)


def test_a_regression_is_judged_by_its_sign(tmp_path):
    study = one_cell(tmp_path, [Run(score=0.7), Run(score=-0.1)], metric="pearson")
    assert not verdicts.near_chance(study.runs).any()
    assert cells_module.cells(study)["failed"].tolist() == [1]
    row = failures.definitions(study, 0.0).iloc[0]
    assert (row["majority_failed"], row["majority_of"], row["binomial_of"], row["entropy_of"]) == (1, 2, 0, 0)
    assert (row["threshold_failed"], row["threshold_of"]) == (1, 2)
    assert dev_answers.read_answers(study) == [None]
    floor = dev_answers.noise_floor(study, [None])
    assert list(floor["known_from"]) == [""]
    assert floor[["accuracy", "binomial", "observed", "training_high"]].isna().all(axis=None)


def test_axis_values_stay_as_written(tmp_path):
    text = HEAD + "lr: 1e-5\nepochs: 3\nmax_grad_norm: [1.0, null]\nseeds: 1\n"
    study = study_of(tmp_path, text, {0: [Run(300)]})
    assert list(cells_module.cells(study)["max_grad_norm"]) == [1.0, None]
    assert list(spread_and_level.pooled_level(study)["value"]) == [1.0, None]
    assert list(failures.arms(study)["value"]) == [1.0, None]
    assert list(failures.arms(study)["phrase"]) == ["with max grad norm 1", "with max grad norm none"]


def test_an_axis_named_like_a_column(tmp_path):
    study = import_of(tmp_path, [(("mean", 1), ("n", 2))], imported_runs([0.5, 0.6]))
    cells = cells_module.cells(study)
    assert cells["mean"].tolist() == [pytest.approx(0.55)]
    assert cells["mean (axis)"].tolist() == [1]
    for name, table in analyse(study).tables.items():
        assert table.columns.is_unique, name


# -------------------------------------------------------------------------------------------------------- definitions


def test_each_definition_by_hand(tmp_path):
    entropy = math.log(2)
    runs = [
        Run(200, 0.1),  # the majority, not above it at 5 %
        Run(216, 0.1),  # above by count, not at 5 %
        Run(217, entropy),  # above at 5 %, the loss at the entropy
        Run(300, 0.95 * entropy + 1e-9),
        Run(300, 0.94 * entropy),
        Run(diverged=True),  # under all of them
        Run(crashed="x"),
        None,
    ]
    study = one_cell(tmp_path, runs)
    row = failures.definitions(study, 0.6).iloc[0]
    counts = {name: (row[f"{name}_failed"], row[f"{name}_of"]) for name in ("majority", "binomial", "entropy")}
    assert counts == {"majority": (2, 6), "binomial": (3, 6), "entropy": (3, 6)}
    assert (row["threshold_failed"], row["threshold_of"]) == (4, 6)  # 0.5, 0.54 and 0.5425, and the diverged
    assert not any("threshold" in name for name in failures.definitions(study))


def test_a_threshold_where_lower_is_better(tmp_path):
    rows = imported_runs([0.5, 0.6, 0.7, None])
    study = import_of(tmp_path, [()], rows, higher_is_better=False)
    row = failures.definitions(study, 0.6).iloc[0]
    assert (row["threshold_failed"], row["threshold_of"]) == (1, 3)  # worse is above; at the threshold is no failing
    assert (row["majority_of"], row["binomial_of"], row["entropy_of"]) == (0, 0, 0)


# ------------------------------------------------------------------------------------------------------ arms, contrasts


def test_arms_pool_over_the_other_axes(mosbach):
    arms = failures.arms(mosbach)
    assert list(dict.fromkeys(arms["axis"])) == ["bias_correction", "lr", "epochs"]
    off, on = arms.iloc[0], arms.iloc[1]
    assert (off["failed"], off["judged"], off["finished"], off["planned"]) == (5, 12, 12, 12)
    assert (on["failed"], on["judged"], on["finished"], on["planned"]) == (0, 10, 10, 12)
    assert (off["failed_low"], off["failed_high"]) == pytest.approx(proportion_confint(5, 12, method="wilson"))
    assert not arms["balanced_counts"].any()  # two runs are lacking
    assert off["loss"] == pytest.approx((6 * 0.3 + 4 * 0.693 + 0.692) / 11)
    assert (off["loss_min"], off["loss_max"]) == (0.3, 0.693)
    assert on["mean"] == pytest.approx((300 + 310 + 320 + 320 + 330 + 340 + 320 + 350 + 352 + 354) / 4000)
    assert list(arms["phrase"])[:3] == ["without bias correction", "with bias correction", "with lr 1e-5"]


def test_contrasts_are_the_stratified_tests_of_statsmodels(four):
    found = failures.contrasts(four)
    counts = {(0, 0): (1, 8), (0, 1): (0, 8), (1, 0): (5, 8), (1, 1): (2, 8)}  # (lr, correction): failed, judged
    strata = {
        "bias_correction": [(counts[lr, 0], counts[lr, 1]) for lr in (0, 1)],
        "lr": [(counts[0, bc], counts[1, bc]) for bc in (0, 1)],
    }
    for axis, groups in strata.items():
        row = row_of(found, axis=axis)
        tables = [np.array([[k2, n2 - k2], [k1, n1 - k1]]) for (k1, n1), (k2, n2) in groups]
        expected = StratifiedTable(tables)
        assert row["odds_ratio"] == pytest.approx(expected.oddsratio_pooled)
        bounds = expected.oddsratio_pooled_confint()
        assert (row["odds_ratio_low"], row["odds_ratio_high"]) == pytest.approx(bounds)
        assert row["p"] == pytest.approx(expected.test_null_odds(correction=False).pvalue)
        weights = [n1 * n2 / (n1 + n2) for (_, n1), (_, n2) in groups]
        differences = [k2 / n2 - k1 / n1 for (k1, n1), (k2, n2) in groups]
        assert row["difference"] == pytest.approx(np.average(differences, weights=weights))
        assert row["difference_low"] < row["difference"] < row["difference_high"]
        assert (row["strata"], row["informative"]) == (2, 2)
    assert list(found["p_adjusted"]) == list(found["p"])  # each axis has one comparison
    off = row_of(found, axis="bias_correction")
    assert (off["reference"], off["value"]) == (False, True)
    assert (off["reference_failed"], off["reference_judged"], off["failed"], off["judged"]) == (6, 16, 2, 16)


def test_contrasts_of_an_unbalanced_design_use_shared_strata_only(tmp_path):
    text = HEAD + "lr: [1e-5, 2e-5, 3e-5]\nbias_correction: [off, on]\nepochs: 3\nseeds: 1..4\n"
    text += "exclude:\n  - {lr: 3e-5, bias_correction: on}\n"
    good, bad = Run(300), Run(200, 0.693)
    cells = [[bad, good, good, good], [good] * 4, [bad, bad, good, good], [bad, good, good, good], [bad] * 4]
    study = study_of(tmp_path, text, dict(enumerate(cells)))
    found = failures.contrasts(study)
    correction = row_of(found, axis="bias_correction")
    assert (correction["reference_failed"], correction["reference_judged"]) == (3, 8)  # not the 4 of lr 3e-5
    assert (correction["failed"], correction["judged"], correction["strata"]) == (1, 8, 2)
    highest = row_of(found, axis="lr", value=3e-5)
    assert (highest["reference_failed"], highest["reference_judged"], highest["strata"]) == (1, 4, 1)
    assert (highest["failed"], highest["judged"]) == (4, 4)
    assert not failures.arms(study)["balanced_counts"].any()
    assert len(found) == 3


def test_contrasts_of_what_is_not_judged_are_not_known(tmp_path):
    rows = [*imported_runs([0.5, 0.6]), *imported_runs([0.7, 0.8], 1)]
    study = import_of(tmp_path, [(("k", 1),), (("k", 2),)], rows)
    row = failures.contrasts(study).iloc[0]
    assert row[["p", "p_adjusted", "difference", "odds_ratio"]].isna().all()
    assert (row["judged"], row["strata"]) == (0, 0)
    assert failures.pair_failures(study)["fisher"].isna().all()
    assert spread_and_level.pair_levels(study)["ok_p"].notna().all()


# -------------------------------------------------------------------------------------------------------------- pairs


def cells_of(*axes: tuple[str, list]) -> list:
    return [tuple(zip([name for name, _ in axes], values, strict=True)) for values in
            itertools.product(*(values for _, values in axes))]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "axis"),
    [
        ("lr: 1e-5\nepochs: 3\n", None),
        ("lr: [1e-5, 2e-5]\nepochs: 3\n", "lr"),
        ("lr: [1e-5, 2e-5, 3e-5]\nepochs: [3, 4]\n", "lr"),  # whatever the numbers of values
        ("lr: [1e-5, 2e-5, 3e-5]\nepochs: [3, 4, 5]\n", "lr"),
        ("lr: [1e-5, 2e-5]\nbias_correction: [off, on]\nepochs: 3\n", "lr"),
        ("lr: [1e-5, 2e-5]\nrecipes: {a: {epochs: 3}, b: {epochs: 4}, c: {epochs: 5}}\n", "lr"),
        ("bias_correction: [off, on]\nlr: [1e-5, 2e-5]\nepochs: 3\n", "bias_correction"),
    ],
)
def test_the_main_axis_of_a_sweep(tmp_path, text, axis):
    assert comparisons.main_axis(study_of(tmp_path, HEAD + text + "seeds: 1\n", {})) == axis


def test_the_main_axis_of_an_import_and_of_two_studies(tmp_path):
    cells = cells_of(("dataset", ["mnli", "rte"]), ("method", ["a", "b", "c"]))
    rows = [row for cell in range(6) for row in imported_runs([0.5 + cell / 100, 0.6], cell)]
    study = import_of(tmp_path / "a", cells, rows)
    assert comparisons.main_axis(study) == "dataset"
    study = dataclasses.replace(study, compared=Compared(main="method"))
    assert comparisons.main_axis(study) == "method"
    assert comparisons.pairs(study) == [(0, 1), (0, 2), (3, 4), (3, 5)]
    other = import_of(tmp_path / "b", cells[:2], [*imported_runs([0.5]), *imported_runs([0.6], 1)], name="ours")
    both = joined(study, other)
    assert comparisons.compared_axes(both) == [SOURCE, "dataset", "method"]
    assert comparisons.main_axis(both) == SOURCE
    assert comparisons.pairs(both) == [(0, 6), (1, 7)]
    one = import_of(tmp_path / "c", [(("dataset", "rte"), ("method", "a"))], imported_runs([0.5]))
    assert comparisons.main_axis(one) is None  # axes of one value compare nothing
    assert comparisons.pairs(one) == []


def test_with_too_many_pairs_there_are_none(tmp_path):
    cells = cells_of(("k", list(range(151))), ("method", ["a", "b", "c"]))
    study = import_of(tmp_path, cells, [row for cell in range(453) for row in imported_runs([0.5], cell)])
    study = dataclasses.replace(study, compared=Compared(main="method"))
    assert comparisons.pairs(study) == []
    assert len(comparisons.pairs(dataclasses.replace(study, cells=study.cells[:450]))) == comparisons.MOST_PAIRS
    for table in (failures.pair_failures(study), spread_and_level.pair_levels(study), seeds_module.needed(study)):
        assert not len(table)


def test_pair_failures_against_scipy(four):
    found = failures.pair_failures(four)
    assert list(zip(found["reference"], found["cell"], strict=True)) == [(0, 1), (2, 3)]
    four_counts = [(1, 8, 0, 8), (5, 8, 2, 8)]
    names = ["reference_failed", "reference_judged", "failed", "judged"]
    assert [tuple(row) for row in found[names].to_numpy().tolist()] == four_counts
    for (_, row), (k1, n1, k2, n2) in zip(found.iterrows(), four_counts, strict=True):
        table = [[k2, n2 - k2], [k1, n1 - k1]]
        assert row["fisher"] == pytest.approx(stats.fisher_exact(table)[1])
        assert row["odds_ratio"] == pytest.approx(stats.contingency.odds_ratio(table).statistic)
        assert row["difference"] == pytest.approx(k2 / n2 - k1 / n1)
        chi2 = stats.chi2_contingency(table, correction=False).statistic * (n1 + n2 - 1) / (n1 + n2)
        least = min(
            stats.fisher_exact([[k, n2 - k], [k1 + k2 - k, n1 - k1 - k2 + k]])[1]
            for k in range(max(0, k1 + k2 - n1), min(k1 + k2, n2) + 1)
        )
        assert row["p"] == pytest.approx(max(stats.chi2.sf(chi2, 1), least))
        assert (row["difference_low"] > 0 or row["difference_high"] < 0) == (row["p"] < 0.05)
    assert list(found["p_adjusted"]) == pytest.approx(list(multipletests(found["p"], method="holm")[1]))


def good_scores_of(study, cell: int) -> np.ndarray:
    table = study.runs[(study.runs["cell"] == cell) & (study.runs["outcome"] == "ok")]
    return np.sort(table["final_score"].dropna().to_numpy(dtype=float))


def diverged_in(study, cell: int) -> int:
    table = study.runs[(study.runs["cell"] == cell) & (study.runs["status"] == "finished")]
    return int(table["final_score"].isna().sum())


def test_pair_spreads_against_scipy(four):
    found = spread_and_level.pair_spreads(four)
    for (_, row), (a, b) in zip(found.iterrows(), [(0, 1), (2, 3)], strict=True):
        x, y = good_scores_of(four, a), good_scores_of(four, b)
        assert row["ratio"] == pytest.approx(y.std(ddof=1) / x.std(ddof=1))
        assert (row["reference_ok_sd"], row["ok_sd"]) == pytest.approx((x.std(ddof=1), y.std(ddof=1)))
        if min(len(x), len(y)) >= 4:
            assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
            assert (row["p"] < 0.05) == (row["ratio_low"] > 1 or row["ratio_high"] < 1)
        assert row["levene"] == pytest.approx(stats.levene(x, y, center="mean").pvalue)
        assert row["brown_forsythe"] == pytest.approx(stats.levene(x, y, center="median").pvalue)
        assert 0 < row["permutation"] <= 1
    assert found["p_holm"].dropna().tolist() == pytest.approx(
        list(multipletests(found["p"].dropna(), method="holm")[1])
    )


def test_pair_levels_against_scipy(four):
    found = spread_and_level.pair_levels(four)
    for (_, row), (a, b) in zip(found.iterrows(), [(0, 1), (2, 3)], strict=True):
        x, y = good_scores_of(four, a), good_scores_of(four, b)
        welch = stats.ttest_ind(y, x, equal_var=False)
        assert row["ok_difference"] == pytest.approx(y.mean() - x.mean())
        bounds = welch.confidence_interval()
        assert (row["ok_difference_low"], row["ok_difference_high"]) == pytest.approx((bounds.low, bounds.high))
        assert row["ok_p"] == pytest.approx(welch.pvalue)
        x, y = scores_of(four, a), scores_of(four, b)
        assert row["difference"] == pytest.approx(y.mean() - x.mean())
        assert (row["reference_mean"], row["mean"]) == pytest.approx((x.mean(), y.mean()))
        x, y = (np.concatenate([scores_of(four, k), np.full(diverged_in(four, k), -np.inf)]) for k in (a, b))
        better = np.mean([(i > j) + (i == j) / 2 for i in y for j in x])
        assert row["improvement"] == pytest.approx(better)
        worst = np.nan_to_num(x, neginf=-9), np.nan_to_num(y, neginf=-9)
        assert row["mann_whitney"] == pytest.approx(stats.mannwhitneyu(*worst).pvalue)
    assert list(found["p_holm"]) == pytest.approx(list(multipletests(found["ok_p"], method="holm")[1]))


def test_better_is_lower_where_lower_is_better(tmp_path):
    cells = [(("method", "a"),), (("method", "b"),)]
    rows = [*imported_runs([0.3, 0.4, 0.5]), *imported_runs([0.1, 0.2, 0.35], 1)]
    higher = spread_and_level.pair_levels(import_of(tmp_path / "h", cells, rows)).iloc[0]
    lower = spread_and_level.pair_levels(import_of(tmp_path / "l", cells, rows, higher_is_better=False)).iloc[0]
    assert lower["improvement"] == pytest.approx(8 / 9)  # b is lower in 8 of 9 pairs
    assert higher["improvement"] == pytest.approx(1 / 9)
    assert (lower["improvement_low"], lower["improvement_high"]) == pytest.approx(
        (1 - higher["improvement_high"], 1 - higher["improvement_low"])
    )
    assert lower["difference"] == higher["difference"] < 0  # in the unit of the scores


# ------------------------------------------------------------------------------------------------------ spread, level


def test_the_variance_split_by_hand(tmp_path):
    study = one_cell(tmp_path, [Run(200), Run(180), Run(300), Run(340), Run(380), Run(diverged=True), None])
    row = spread_and_level.spread(study).iloc[0]
    failed, good = np.array([0.5, 0.45]), np.array([0.75, 0.85, 0.95])
    scores = np.concatenate([failed, good])
    total = ((scores - scores.mean()) ** 2).sum()
    between = 2 * (failed.mean() - scores.mean()) ** 2 + 3 * (good.mean() - scores.mean()) ** 2
    assert row["between"] == pytest.approx(between / total)
    assert row["within_ok"] == pytest.approx(((good - 0.85) ** 2).sum() / total)
    assert row["within_failed"] == pytest.approx(((failed - 0.475) ** 2).sum() / total)
    assert row[["between", "within_ok", "within_failed"]].sum() == pytest.approx(1)
    assert (row["scored"], row["failed"]) == (5, 2)
    assert (row["ok_sd"], row["failed_sd"]) == pytest.approx((good.std(ddof=1), failed.std(ddof=1)))
    assert row["sd"] == pytest.approx(scores.std(ddof=1))
    assert row["iqr"] == pytest.approx(stats.iqr(scores))
    assert row["mad"] == pytest.approx(stats.median_abs_deviation(scores))
    four_good = one_cell(tmp_path / "b", [Run(200), Run(300), Run(340), Run(380), Run(330)])
    row = spread_and_level.spread(four_good).iloc[0]
    assert row["ok_sd_low"] < row["ok_sd"] < row["ok_sd_high"]


def test_the_split_where_all_fail_none_do_or_nobody_knows(tmp_path):
    rows = [*imported_runs([0.1, 0.2, 0.4], outcome=["failed"] * 3), *imported_runs([0.5, 0.6, 0.8], 1,
            outcome=["ok"] * 3), *imported_runs([0.5, 0.6, 0.8], 2), *imported_runs([0.5, 0.5], 3, outcome=["ok"] * 2),
            *imported_runs([0.5, 0.6], 4, outcome=["ok", None]), *imported_runs([None], 5)]  # fmt: skip
    table = spread_and_level.spread(import_of(tmp_path, [(("k", k),) for k in range(6)], rows))
    shares = table[["between", "within_ok", "within_failed"]].to_numpy()
    assert shares[0].tolist() == [0, 0, 1]
    assert shares[1].tolist() == [0, 1, 0]
    assert np.isnan(shares[2:]).all()  # not judged; no spread; judged in part; nothing there
    assert [None if value is pd.NA else value for value in table["failed"]] == [3, 0, None, 0, None, 0]
    assert table["iqr"].dtype == table["mad"].dtype == float


def test_level_by_hand(four):
    table = spread_and_level.level(four)
    for cell, row in table.iterrows():
        scores, good = scores_of(four, cell), good_scores_of(four, cell)
        ranked = np.sort(np.concatenate([scores, np.full(diverged_in(four, cell), -np.inf)]))
        assert row["mean"] == pytest.approx(scores.mean())
        assert row["mean_low"] <= row["mean"] <= row["mean_high"]
        bounds = stats.ttest_1samp(good, 0).confidence_interval()
        assert (row["ok"], row["ok_mean"]) == (len(good), pytest.approx(good.mean()))
        assert (row["ok_mean_low"], row["ok_mean_high"]) == pytest.approx((bounds.low, bounds.high))
        assert row["median"] == pytest.approx(np.median(ranked))
        assert (row["median_low"], row["median_high"]) == (ranked[0], ranked[-1])  # of eight
        assert row["iqm"] == pytest.approx(stats.trim_mean(ranked, 0.25))
        assert math.isnan(row["iqm_low"]) == (diverged_in(four, cell) > 0)
        assert row["worst_tenth"] == ranked[0]
    assert list(table["scored"]) == [8, 8, 7, 8]
    assert list(table["diverged"]) == [0, 0, 1, 0]


def test_the_pooled_level_is_of_all_runs_of_a_value(four):
    table = spread_and_level.pooled_level(four)
    off = row_of(table, axis="bias_correction", value=False)
    both = np.concatenate([scores_of(four, 0), scores_of(four, 2)])
    assert off["scored"] == 15
    ranked = np.append(both, -np.inf)  # one diverged
    assert (off["mean"], off["median"]) == pytest.approx((both.mean(), np.median(ranked)))
    assert off["iqm"] == pytest.approx(stats.trim_mean(ranked, 0.25))
    assert off["mean_low"] < off["mean"] < off["mean_high"]
    # Put together from the cells' own intervals, and not less than Student's: how far the two lie apart is left out.
    own = spread_and_level.level(four).iloc[[0, 2]]
    below = math.hypot(*(own["mean"] - own["mean_low"]) * own["scored"] / 15)
    assert off["mean"] - off["mean_low"] >= below - 1e-12
    weights = [len(scores_of(four, cell)) / 15 for cell in (0, 2)]
    student = means.stratified([scores_of(four, 0), scores_of(four, 2)], weights)
    assert off["mean_low"] == pytest.approx(min(off["mean"] - below, student.low))
    assert len(table) == 4


def test_the_profile_is_the_share_of_better_runs(four):
    table = spread_and_level.profile(four)
    assert list(dict.fromkeys(table["value"])) == [False, True]
    assert len(table) == 2 * spread_and_level.THRESHOLDS
    for value, cells in ((False, (0, 2)), (True, (1, 3))):
        scores = np.concatenate([scores_of(four, cell) for cell in cells])
        scores = np.concatenate([scores, np.full(sum(diverged_in(four, cell) for cell in cells), -np.inf)])
        here = table[table["value"] == value]
        assert list(here["share"]) == pytest.approx([np.mean(scores > tau) for tau in here["threshold"]])
        assert ((here["low"] <= here["share"]) & (here["share"] <= here["high"])).all()
        assert (here["share"].iloc[0], here["share"].iloc[-1]) == (np.isfinite(scores).mean(), 0)


def test_the_profile_where_lower_is_better(tmp_path):
    study = import_of(tmp_path, [()], imported_runs([1.0, 2.0, 4.0]), higher_is_better=False)
    table = spread_and_level.profile(study)
    assert list(table["share"]) == pytest.approx([np.mean(np.array([1.0, 2.0, 4.0]) < t) for t in table["threshold"]])
    assert table["value"].tolist() == [None] * spread_and_level.THRESHOLDS
    assert table["threshold"].is_monotonic_increasing


# ---------------------------------------------------------------------------------------------------- dev set's noise


def with_answers(study, correct: dict[int, np.ndarray], labels: np.ndarray):
    """The study with other dev answers: `correct[row]` [N] says which are right; of two classes."""
    template = study.curves(0)

    def load(row: int) -> Curves | None:
        if row not in correct:
            return None
        logits = np.where((np.arange(2) == labels[:, None]) == correct[row][:, None], 2.0, -2.0).astype(np.float32)
        return dataclasses.replace(template, logits=logits, labels=labels)

    return dataclasses.replace(study, load=load)


def test_the_noise_floor_of_made_up_answers(tmp_path):
    rng = np.random.default_rng(2)
    made = rng.random((6, 400)) < rng.beta(4, 1, 400)
    study = one_cell(tmp_path, [Run(int(answers.sum())) for answers in made])
    study = with_answers(study, dict(enumerate(made)), np.repeat([0, 1], 200))
    found = dev_answers.read_answers(study)[0]
    assert found is not None
    assert (found.correct == made).all()
    row = dev_answers.noise_floor(study, [found]).iloc[0]
    accuracy = made.mean(axis=1)
    assert (row["runs"], row["examples"], row["known_from"]) == (6, 400, "answers")
    assert (row["accuracy"], row["observed"]) == pytest.approx((accuracy.mean(), accuracy.std(ddof=1)))
    assert row["binomial"] == pytest.approx(math.sqrt(accuracy.mean() * (1 - accuracy.mean()) / 400))
    # Jordan's estimate: the mean covariance over runs of two different examples.
    covariance = np.cov(made.T.astype(float))
    apart = (covariance.sum() - np.trace(covariance)) / (400 * 399)
    assert row["training"] == pytest.approx(math.sqrt(max(apart, 0)))
    assert row["dev_share"] == pytest.approx(min(max(1 - apart / accuracy.var(ddof=1), 0), 1))
    differ = np.mean([(made[i] != made[j]).mean() for i, j in itertools.combinations(range(6), 2)])
    assert row["disagreement"] == pytest.approx(differ)
    votes = made.sum(axis=0)
    assert row["voted"] == pytest.approx(((votes > 3) + (votes == 3) / 2).mean())


def test_pairs_are_compared_on_the_same_examples(tmp_path):
    text = HEAD + "lr: [1e-5, 2e-5]\nbias_correction: [off, on]\nepochs: 3\nseeds: 1..3\n"
    runs = {0: [Run(300), Run(320), Run(340)], 1: [Run(380), Run(390), Run(370)], 2: [Run(300), None, Run(320)]}
    study = by_correction(study_of(tmp_path, text, runs | {3: [Run(300), Run(310), Run(320)]}))
    table = dev_answers.pair_noise(study, dev_answers.read_answers(study))
    assert [tuple(row) for row in table[["reference", "cell"]].to_numpy()] == [(0, 1), (2, 3)]
    assert list(table["difference"]) == pytest.approx([60 / 400, 0], abs=1e-12)
    # Never surer than the difference of the means over seeds, and by what the examples add as answers are nested.
    levels = spread_and_level.pair_levels(study)
    shares = [answer.correct.mean(axis=0) for answer in dev_answers.read_answers(study)[:2]]
    error = 1.96 * stats.sem(shares[1] - shares[0])
    for end in ("low", "high"):
        over_seeds = levels.loc[0, f"difference_{end}"] - 60 / 400
        assert abs(table.loc[0, f"difference_{end}"] - 60 / 400) == pytest.approx(
            math.hypot(over_seeds, error), rel=1e-4
        )


def test_the_noise_floor_from_counts_alone(tmp_path):
    rows = imported_runs([0.7, 0.75, 0.8], correct=[280, 300, 320], dev_examples=[400] * 3)
    rows += imported_runs([0.7, 0.75], 1)
    rows += imported_runs([0.7, 0.75], 2, correct=[280, 150], dev_examples=[400, 200])
    study = import_of(tmp_path, [(("k", k),) for k in range(3)], rows)
    table = dev_answers.noise_floor(study, dev_answers.read_answers(study))
    assert list(table["known_from"]) == ["counts", "", ""]  # not known; of two sizes
    row = table.iloc[0]
    assert (row["runs"], row["examples"]) == (3, 400)
    assert row["binomial"] == pytest.approx(math.sqrt(0.75 * 0.25 / 400))
    assert (row["observed"], row["training_high"]) == pytest.approx((0.05, 0.05))
    assert math.isnan(row["training"])
    assert math.isnan(row["dev_share"])
    assert row["training_low"] == dev_noise.counts_only(np.array([0.7, 0.75, 0.8]), 400).training_least


def test_the_examples_that_flip(tmp_path):
    study = study_of(
        tmp_path, HEAD + "lr: [1e-5, 2e-5]\nepochs: 3\nseeds: 1..4\n", {0: [Run(300)] * 4, 1: [Run(300)] * 4}
    )
    right = np.ones((8, 10), bool)
    right[0, 3] = right[1, 3] = False  # half of the runs of cell 0: churn 4/6 there
    right[4, 3] = False  # one of four of cell 1: 3/6
    right[5, 7] = False
    labels = np.tile([0, 1], 5)
    study = with_answers(study, dict(enumerate(right)), labels)
    table = dev_answers.flips(study, dev_answers.read_answers(study))
    assert table.to_dict("list") == {
        "example": [3, 7], "label": [1, 1], "right": [5, 7], "runs": [8, 8],
        "churn": [pytest.approx((4 / 6 + 3 / 6) / 2), pytest.approx(3 / 6 / 2)],
    }  # fmt: skip
    assert len(dev_answers.flips(study, dev_answers.read_answers(study), most=1)) == 1


def test_flips_are_of_cells_in_which_no_run_failed(tmp_path):
    text = HEAD + "lr: [1e-5, 2e-5]\nepochs: 3\nseeds: 1..2\n"
    study = study_of(tmp_path, text, {0: [Run(200), Run(300)], 1: [Run(300), Run(301)]})
    table = dev_answers.flips(study, dev_answers.read_answers(study))
    assert table["example"].tolist() == [300]  # the one example by which the two runs of cell 1 differ
    both = study_of(tmp_path / "b", text, {0: [Run(200), Run(203)], 1: [Run(200), Run(202)]})
    assert dev_answers.flips(both, dev_answers.read_answers(both))["example"].tolist() == [200, 201, 202]
    assert dev_answers.flips(both, [None, None]).empty


def test_diverged_runs_and_other_dev_sets_answer_nothing(tmp_path):
    study = one_cell(tmp_path, [Run(diverged=True), Run(300), Run(crashed="x"), Run(310), None])
    found = dev_answers.read_answers(study)[0]
    assert found is not None
    assert found.rows == (1, 3)
    other = study.curves(3)
    shorter = dataclasses.replace(other, logits=other.logits[:9], labels=other.labels[:9])
    mixed = dataclasses.replace(study, load=lambda row: shorter if row == 3 else study.load(row))
    assert dev_answers.read_answers(mixed)[0].rows == (1,)


# ------------------------------------------------------------------------------------------- best of n, seed budget


def test_the_best_of_n_by_enumeration(four):
    table = seeds_module.best_of_n(four)
    scores = np.append(scores_of(four, 2), 0.5)  # the run that diverged, as the majority
    here = table[table["cell"] == 2]
    assert list(here["n"]) == list(range(1, 9))
    for n in (1, 2, 3):
        row = row_of(here, n=n)
        draws = [max(draw) for draw in itertools.product(scores, repeat=n)]
        assert row["expected"] == pytest.approx(np.mean(draws))
        assert row["unbiased"] == pytest.approx(np.mean([max(s) for s in itertools.combinations(scores, n)]))


def test_the_best_is_the_lowest_where_lower_is_better(tmp_path):
    study = import_of(tmp_path, [()], imported_runs([3.0, 1.0, 2.0]), higher_is_better=False)
    table = seeds_module.best_of_n(study)
    assert table["unbiased"].tolist() == pytest.approx([2.0, 4 / 3, 1.0])
    assert seeds_module.selection(study, [None])["best"].tolist() == [1.0]


@pytest.mark.parametrize("sign", [1, -1])
def test_selection_against_a_test_set(tmp_path, sign):
    dev, test = np.array([0.7, 0.9, 0.8]) * sign, np.array([0.68, 0.80, 0.77]) * sign
    study = import_of(tmp_path, [()], imported_runs(list(dev), test_score=list(test)), higher_is_better=sign > 0)
    row = seeds_module.selection(study, [None]).iloc[0]
    assert (row["n"], row["best"], row["known_from"]) == (3, sign * 0.9, "test")
    # The picked seed lies 0.10 above its test score; a seed lies 0.05 above it on average.
    assert row["too_high"] == pytest.approx(0.10 - 0.05)


def test_selection_takes_the_mean_of_equally_good_seeds(tmp_path):
    rows = imported_runs([0.9, 0.9, 0.6], test_score=[0.9, 0.7, 0.6])
    for order in (rows, rows[::-1]):
        row = seeds_module.selection(import_of(tmp_path, [()], order), [None]).iloc[0]
        assert row["too_high"] == pytest.approx(0.1 - 0.2 / 3)


def test_selection_by_parts_of_the_dev_set(tmp_path):
    # Each of two runs is right on its own half of the examples: the picked one is the better the worse it is elsewhere.
    right = np.stack([np.arange(8) < 4, np.arange(8) >= 4])
    study = with_answers(one_cell(tmp_path, [Run(300), Run(300)]), dict(enumerate(right)), np.zeros(8, np.int64))
    kept = dev_answers.read_answers(study)
    row = seeds_module.selection(study, kept).iloc[0]
    # One example is left out: the other run is right on it, and the picked one on 4 of the other 7.
    assert row["too_high"] == pytest.approx(4 / 7 * math.sqrt(7 / 8))
    assert row["known_from"] == "dev"
    assert seeds_module.selection(study, [None])["too_high"].isna().all()


def test_a_test_score_that_is_not_known_of_every_run_picks_nothing(tmp_path):
    study = import_of(tmp_path, [()], imported_runs([0.7, 0.9], test_score=[0.7, None]))
    row = seeds_module.selection(study, [None]).iloc[0]
    assert math.isnan(row["too_high"])
    assert row["known_from"] == ""


def test_the_budget_is_students_and_wilsons(four):
    table = seeds_module.budget(four)
    scores = scores_of(four, 2)
    assert list(table[table["cell"] == 2]["n"]) == [5, 7, 8, 10, 15, 25, 50, 100, 200]  # 7 scored, 8 judged
    for n in (7, 8, 25):
        row = row_of(table, cell=2, n=n)
        assert (row["mean_now"], row["rate_now"]) == (n == 7, n == 8)
        half = stats.t.ppf(0.975, n - 1) * scores.std(ddof=1) / math.sqrt(n)
        assert row["mean_half_width"] == pytest.approx(half)
    low, high = proportion_confint(5, 8, method="wilson")
    assert row_of(table, cell=2, n=8)["rate_half_width"] == pytest.approx((high - low) / 2)


def test_where_no_run_failed(four):
    table = failures.never_failed(four)
    assert list(table["cell"]) == [1]
    row = table.iloc[0]
    assert row["exact"] == pytest.approx(stats.binomtest(0, 8, alternative="less").proportion_ci(0.95).high)
    assert row["rule_of_three"] == pytest.approx(3 / 8)


def test_the_seeds_that_are_needed(four):
    table = seeds_module.needed(four)
    assert list(zip(table["reference"], table["cell"], strict=True)) == [(0, 1), (2, 3)]
    assert list(table["failure_now"]) == [8, 8]
    assert list(table["mean_now"]) == [8, 7]
    for (_, row), (k1, k2) in zip(table.iterrows(), [(1, 0), (5, 2)], strict=True):
        seeds = seed_budget.needed_for_failure(k1, 8, k2, 8)
        assert [row[f"failure_{end}"] for end in ("low", "assured", "high")] == [
            pd.NA if n is None else n for n in (seeds.low, seeds.assured, seeds.high)
        ]
    assert table["mean_low"].notna().all()


# ----------------------------------------------------------------------------------------------------- what drives it


def crossed_study(folder, correct):
    text = HEAD + "lr: 1e-5\nepochs: 3\nseeds: [1]\ninit_seed: [1, 2, 3, 4]\norder_seed: [1, 2, 3]\n"
    sweep = sweep_of(folder, text)
    places = [(seeds.init_seed - 1, seeds.order_seed - 1) for seeds in sweep.seeds]
    runs = {0: [None if correct[place] is None else Run(int(correct[place])) for place in places]}
    return of_sweep(sweep, store_of(folder, sweep, runs))


def test_crossed_runs_count_as_the_independent_ones_that_they_are_worth(tmp_path):
    correct = {(i, j): 200 if i == 0 else 300 + 10 * i + j for i in range(4) for j in range(3)}
    study = crossed_study(tmp_path, correct)
    budget = seeds_module.budget(study)
    now = budget[budget["rate_now"]].iloc[0]
    assert now["n"] <= 4 < 12  # as many as there are heads, which failing hangs on
    cell = cells_module.cells(study).iloc[0]
    assert now["rate_half_width"] == pytest.approx((cell["failed_high"] - cell["failed_low"]) / 2, rel=0.3)
    assert budget.loc[budget["mean_now"], "n"].item() <= 6


def test_seed_factors_are_the_mean_squares_of_a_crossed_design(tmp_path):
    correct = np.random.default_rng(5).integers(280, 340, (4, 3)) + 15 * np.arange(4)[:, None]
    study = crossed_study(tmp_path, {place: int(value) for place, value in np.ndenumerate(correct)})
    table = seeds_module.seed_factors(study)
    grid = correct / 400
    rows, columns = grid.mean(axis=1) - grid.mean(), grid.mean(axis=0) - grid.mean()
    rest = grid - grid.mean() - rows[:, None] - columns
    error = (rest**2).sum() / 6
    expected = {
        "init": ((rows**2).sum() * 3 / 3 - error) / 3, "order": ((columns**2).sum() * 4 / 2 - error) / 4,
        "init × order + residual": error,
    }  # fmt: skip
    scores = table[table["of"] == "score"].set_index("term")
    assert {term: scores["variance"][term] for term in scores.index} == pytest.approx(expected)
    positive = {term: max(value, 0) for term, value in expected.items()}
    shares = {term: value / sum(positive.values()) for term, value in positive.items()}
    assert dict(scores["share"]) == pytest.approx(shares)
    assert ((scores["low"] <= scores["share"]) & (scores["share"] <= scores["high"])).all()
    assert (scores["runs"] == 12).all()
    failing = table[table["of"] == "failing"]
    assert list(failing["reason"]) == ["every run has the same outcome"]
    assert failing["share"].isna().all()


def test_seed_factors_of_an_incomplete_or_coupled_design(tmp_path, four):
    assert seeds_module.seed_factors(four).empty
    correct: dict = {(i, j): 300 + 10 * i + j for i in range(4) for j in range(3)}
    correct[1, 1] = None
    table = seeds_module.seed_factors(crossed_study(tmp_path, correct))
    assert list(table["of"]) == ["score", "failing"]
    assert list(table["runs"]) == [11, 11]
    assert table["reason"].str.contains("1 of 12 combinations are missing").all()


def test_drivers_are_the_sums_of_squares_of_a_balanced_design(tmp_path):
    runs = TWO_BY_TWO_RUNS | {2: [*TWO_BY_TWO_RUNS[2][:7], Run(310)]}  # nothing diverged
    study = study_of(tmp_path, TWO_BY_TWO, runs)
    table = drivers.drivers_of_score(study).set_index("term")
    grid = np.array([scores_of(study, cell) for cell in range(4)]).reshape(2, 2, 8)  # lr, correction, seed
    total = ((grid - grid.mean()) ** 2).sum()
    rate = 16 * ((grid.mean(axis=(1, 2)) - grid.mean()) ** 2).sum()
    correction = 16 * ((grid.mean(axis=(0, 2)) - grid.mean()) ** 2).sum()
    residual = ((grid - grid.mean(axis=2, keepdims=True)) ** 2).sum()
    assert table["eta_squared"]["lr"] == pytest.approx(rate / total)
    assert table["eta_squared"]["bias_correction"] == pytest.approx(correction / total)
    assert table["eta_squared"]["residual"] == pytest.approx(residual / total)
    assert table["eta_squared"].sum() == pytest.approx(1)
    assert table["p"]["lr"] == pytest.approx(stats.f.sf(rate / (residual / 28), 1, 28))
    assert table["fanova"].notna().tolist() == [True, True, False, False]


def test_drivers_of_failing_rank_what_fails(four):
    table = drivers.drivers_of_failing(four)
    assert list(table["factor"]) == ["bias_correction", "lr"]
    assert table["share"].sum() == pytest.approx(1)
    assert table.set_index("factor")["chi2"].idxmax() == "lr"
    effects = drivers.effects_on_failing(four)
    assert list(zip(effects["factor"], effects["value"], strict=True)) == [
        ("bias_correction", False), ("bias_correction", True), ("lr", 1e-5), ("lr", 2e-5),
    ]  # fmt: skip
    rates = effects.set_index(["factor", "value"])["rate"]
    assert rates["lr", 2e-5] > rates["lr", 1e-5]
    # The two rates of a balanced factor have the overall rate as their mean, but for Firth's pull to one half.
    assert np.mean([rates["lr", 2e-5], rates["lr", 1e-5]]) == pytest.approx(8 / 32, abs=0.03)


def test_drivers_without_axes_or_runs(tmp_path):
    study = one_cell(tmp_path, [Run(300), Run(200)])
    assert drivers.drivers_of_failing(study).empty
    assert drivers.effects_on_failing(study).empty
    assert set(drivers.drivers_of_score(study)["term"]) <= {"residual"}


def test_against_the_paper(tmp_path):
    head = "task: rte\nmodel: bert-large-uncased\ntoken_type_ids: off\n"
    text = head + "lr: 2e-5\nbias_correction: [off, on]\nepochs: 3\nseeds: 1..4\n"
    study = study_of(tmp_path / "a", text, {0: [Run(200), Run(210), Run(250), Run(260)]})
    table = published.against_the_paper(study)
    assert set(table["task"]) == {"rte"}
    own = table[(table["recipe"] == "Devlin") & (table["version"] == "v1")].iloc[0]
    assert own["cell"] == 0, own["why"]
    assert own["mean"] == pytest.approx(0.575)
    assert own["verdict"] in ("agrees", "differs")
    assert table[table["recipe"] == "Mixout"]["verdict"].tolist() == ["not comparable"]
    assert published.against_the_paper(one_cell(tmp_path / "b", [Run(300)])).empty
    both = joined(study, study_of(tmp_path / "c", text, {}, "other"))
    assert published.against_the_paper(both).empty  # of two studies, none is told apart yet


# -------------------------------------------------------------------------------------------------------------- laws


def tables_of(study, threshold=None) -> dict[str, pd.DataFrame]:
    return {name: table for name, table in analyse(study, threshold).tables.items() if name != "runs"}


def assert_same(first: dict[str, pd.DataFrame], second: dict[str, pd.DataFrame]) -> None:
    assert set(first) == set(second)
    for name, table in first.items():
        pd.testing.assert_frame_equal(table, second[name], obj=name, rtol=1e-9, atol=1e-12)  # sums differ by an ulp


@pytest.mark.parametrize("seed", [0, 1])
def test_the_order_of_rows_changes_no_table(mosbach, four, seed):
    for study in (mosbach, four):
        shuffled = dataclasses.replace(study, runs=study.runs.sample(frac=1, random_state=seed))
        assert_same(tables_of(study, 0.6), tables_of(shuffled, 0.6))


def test_the_order_of_records_changes_no_table(tmp_path, mosbach):
    backwards = by_correction(study_of(tmp_path, MOSBACH, MOSBACH_RUNS, backwards=True))
    expected = tables_of(mosbach)
    for name, table in tables_of(backwards).items():
        pd.testing.assert_frame_equal(table, expected[name], check_exact=True)


def test_a_report_made_twice_is_the_same(four):
    first, second = tables_of(four), tables_of(four)
    for name, table in first.items():
        pd.testing.assert_frame_equal(table, second[name], check_exact=True)


def test_what_crashed_or_is_missing_is_in_no_denominator(tmp_path):
    finished = [Run(200, 0.693), Run(300), Run(310), Run(diverged=True)]
    whole = one_cell(tmp_path / "a", finished)
    for lacking in (None, Run(crashed="x")):
        name = "crashed" if lacking else "missing"
        study = one_cell(tmp_path / name, [*finished, *[lacking] * 5])
        first, second = tables_of(whole, 0.6), tables_of(study, 0.6)
        counts = ["planned", "crashed", "missing"]
        assert second["cells"][name].tolist() == [5]
        for tables in (first, second):
            tables["cells"] = tables["cells"].drop(columns=counts)
            tables["budget"] = tables["budget"][tables["budget"]["n"] == 25].reset_index(drop=True)
        assert_same(first, second)


EDGES = {
    "nothing": (HEAD + "lr: [1e-5, 2e-5]\nbias_correction: [off, on]\nepochs: 3\nseeds: 1..2\n", {}),
    "one run": (HEAD + "lr: 1e-5\nepochs: 3\nseeds: 1\n", {0: [Run(300)]}),
    "one seed": (HEAD + "lr: [1e-5, 2e-5]\nepochs: [3, 4]\nseeds: 1\n", {cell: [Run(300 + cell)] for cell in range(4)}),
    "all failed": (TWO_BY_TWO, {cell: [Run(200, 0.693)] * 8 for cell in range(4)}),
    "all diverged": (TWO_BY_TWO, {cell: [Run(diverged=True)] * 8 for cell in range(4)}),
    "all crashed": (TWO_BY_TWO, {cell: [Run(crashed="x")] * 8 for cell in range(4)}),
    "one cell of four": (TWO_BY_TWO, {2: [Run(300 + i) for i in range(8)]}),
    "one failed cell": (TWO_BY_TWO, dict(TWO_BY_TWO_RUNS) | {1: [Run(200, 0.693)] * 8}),
    "all the same": (TWO_BY_TWO, {cell: [Run(300)] * 8 for cell in range(4)}),
    "two a cell": (HEAD + "lr: [1e-5, 2e-5]\nepochs: 3\nseeds: 1..2\n", {0: [Run(300), Run(301)], 1: [Run(200), None]}),
}


@pytest.mark.parametrize("name", EDGES)
def test_edges_have_every_table(tmp_path, name):
    text, runs = EDGES[name]
    study = study_of(tmp_path, text, runs)
    found = analyse(study, 0.6)
    cells = found.cells
    assert len(cells) == len(study.cells)
    assert (cells["finished"] + cells["crashed"] + cells["missing"] == cells["planned"]).all()
    assert (cells["failed"] <= cells["judged"]).all()
    assert (cells["scored"] <= cells["finished"]).all()
    estimates = found.tables | {"cells": cells.assign(failed=cells["failed"].astype(float) / cells["judged"])}
    estimates["arms"] = found.arms.assign(failed=found.arms["failed"] / found.arms["judged"])
    for table in estimates.values():
        for column in [column for column in table if f"{column}_low" in table]:
            known = table[[f"{column}_low", column, f"{column}_high"]].astype(float).dropna().to_numpy()
            assert (known[:, :-1] <= known[:, 1:] + 1e-12).all(), column
    shares = found.spread[["between", "within_ok", "within_failed"]].dropna()
    assert shares.sum(axis=1).tolist() == pytest.approx([1] * len(shares))


def test_a_cell_where_all_fail_is_not_hidden(tmp_path):
    study = by_correction(study_of(tmp_path, *EDGES["one failed cell"]))
    found = analyse(study)
    assert found.cells["failed"].tolist() == [1, 8, 5, 2]
    assert found.cells["sd"][1] == 0
    assert math.isnan(found.spread["between"][1])
    assert math.isnan(found.pair_spreads["ratio"][0])  # of the runs that did not fail there is none


def test_the_hypotheses_are_counted(four, tmp_path):
    found = analyse(four)
    assert found.comparisons == 2 + 2 + int(found.pair_spreads["p"].notna().sum()) + 2
    assert analyse(one_cell(tmp_path, [Run(300)])).comparisons == 0


def test_every_table_is_named_after_its_function(mosbach):
    found = analyse(mosbach)
    for name in found.tables.keys() - found.diagnosis.tables:
        assert callable(getattr(analyze, name))
    assert list(found.tables)[:2] == ["runs", "cells"]
    assert found.threshold is None


def test_values_of_an_axis_are_not_compared_with_cells_that_go_without_it(tmp_path):
    text = HEAD + "lr: [1e-3, 2e-3]\nmethod: [full, lora]\nlora_rank: [4, 8]\nepochs: 1\nseeds: 1..8\n"
    failing = (0, 2, 0, 0, 8, 3)
    runs = {cell: [Run(200)] * count + [Run(300)] * (8 - count) for cell, count in enumerate(failing)}
    found = analyse(study_of(tmp_path, text, runs)).contrasts
    rank = found[found["axis"] == "lora_rank"].set_index("value")
    assert list(rank["reference"]) == [4, 4]  # not None, which full fine-tuning stands at
    assert rank.loc[8, "strata"] == 2  # one a learning rate
    assert rank.loc[8, "difference"] == pytest.approx(-7 / 16, abs=0.01)
