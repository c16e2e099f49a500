import math
from pathlib import Path

import pandas as pd
import pytest
from made_runs import HEAD, MOSBACH, MOSBACH_RUNS, Run, store_of, sweep_of
from scipy import stats

from harness import analysis
from harness.records import frame


def made(folder: Path, text: str, runs, **how):
    sweep = sweep_of(folder, text)
    return sweep, frame(sweep, store_of(folder, sweep, runs, **how))


@pytest.fixture(scope="module")
def mosbach(tmp_path_factory):
    return made(tmp_path_factory.mktemp("mosbach"), MOSBACH, MOSBACH_RUNS)


def by_hand_wilson(k: int, n: int) -> tuple[float, float]:
    z = stats.norm.ppf(0.975)
    centre, half = k + z * z / 2, z * math.sqrt(k * (n - k) / n + z * z / 4)
    return (centre - half) / (n + z * z), (centre + half) / (n + z * z)


@pytest.mark.parametrize(("k", "n"), [(0, 8), (3, 8), (8, 8), (19, 30), (1, 1)])
def test_wilson_is_the_formula(k, n):
    low, high = by_hand_wilson(k, n)
    assert analysis.wilson(k, n) == (pytest.approx(low, abs=1e-12), pytest.approx(high, abs=1e-12))


def test_wilson_of_nothing_is_not_known():
    assert all(math.isnan(bound) for bound in analysis.wilson(0, 0))
    assert analysis.rate(0, 0) == "not known"


def test_a_published_interval():
    # Newcombe (1998), Statistics in Medicine 17, 857–872, table I: 81 of 263.
    assert analysis.wilson(81, 263) == (pytest.approx(0.2553, abs=5e-5), pytest.approx(0.3662, abs=5e-5))
    assert analysis.rate(81, 263) == "31 % [26, 37]"


def test_cells_by_hand(mosbach):
    cells = analysis.cells(*mosbach)
    assert list(cells["planned"]) == [3] * 8
    assert list(cells["finished"]) == [3, 3, 3, 3, 3, 3, 1, 3]
    assert list(cells["crashed"]) == [0, 0, 0, 0, 0, 0, 1, 0]
    assert list(cells["missing"]) == [0, 0, 0, 0, 0, 0, 1, 0]
    assert list(cells["scored"]) == [3, 3, 3, 3, 3, 2, 1, 3]
    assert list(cells["failed"]) == [0, 0, 0, 0, 3, 2, 0, 0]
    assert list(cells["diverged"]) == [0, 0, 0, 0, 0, 1, 0, 0]
    assert list(cells["constant"]) == [0, 0, 0, 0, 3, 1, 0, 0]
    assert list(cells["at_chance"]) == [0, 0, 0, 0, 0, 1, 0, 0]
    first = cells.iloc[0]
    assert (first["mean"], first["sd"]) == (pytest.approx(0.8), pytest.approx(0.025))
    assert (first["min"], first["median"], first["max"]) == (0.775, 0.8, 0.825)
    assert first["best_mean"] == pytest.approx(0.81)
    assert first["majority"] == 0.5
    assert cells.iloc[4]["sd"] == pytest.approx(math.sqrt(3) / 3 * 0.0025)
    assert math.isnan(cells.iloc[6]["sd"])
    assert (cells.iloc[5]["failed_low"], cells.iloc[5]["failed_high"]) == pytest.approx(by_hand_wilson(2, 3))
    assert list(cells["bias_correction"]) == [False, False, True, True] * 2


def test_the_order_of_records_changes_nothing(tmp_path, mosbach):
    sweep, table = made(tmp_path, MOSBACH, MOSBACH_RUNS, backwards=True)
    assert analysis.cells(sweep, table).equals(analysis.cells(*mosbach))
    shuffled = table.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(analysis.cells(sweep, shuffled), analysis.cells(*mosbach))  # sums differ by an ulp
    assert analysis.answer(sweep, shuffled) == analysis.answer(*mosbach)


def test_at_chance_needs_both_the_count_and_the_loss(tmp_path):
    # 216 of 400 is the largest count that is not above one half at 5 %: P(X >= 217) = 0.0495 < 0.05 < P(X >= 216).
    assert stats.binom.sf(216, 400, 0.5) < 0.05 < stats.binom.sf(215, 400, 0.5)
    entropy = math.log(2)
    runs = [Run(216, entropy), Run(217, entropy), Run(216, 0.94 * entropy), Run(216, 0.96 * entropy), Run(200, entropy)]
    sweep, table = made(tmp_path, HEAD + "lr: 1e-5\nepochs: 3\nseeds: 1..7\n", {0: [*runs, Run(diverged=True)]})
    assert list(analysis.at_chance(table)) == [True, False, False, True, False, False, False]
    assert list(analysis.failed_runs(sweep, table)["verdict"]) == ["at chance", "at chance", "failed", "failed"]


def test_a_regression_is_never_at_chance_and_has_no_noise_note_in_points(tmp_path):
    runs = {0: [Run(score=0.7), Run(score=-0.1)]}
    sweep, table = made(tmp_path, HEAD + "lr: 1e-5\nepochs: 3\nseeds: 1..2\n", runs, metric="pearson")
    assert not analysis.at_chance(table).any()
    assert analysis.noise(sweep, table) is None
    assert "no simple formula" in analysis.noise_note(sweep, table)[0]
    assert analysis.cells(sweep, table)["failed"].tolist() == [1]


def test_arms_pool_over_the_other_axes(mosbach):
    arms = analysis.arms(*mosbach)
    assert list(dict.fromkeys(arms["axis"])) == ["bias_correction", "lr", "epochs"]
    off, on = arms.iloc[0], arms.iloc[1]
    assert (off["failed"], off["finished"], on["failed"], on["finished"]) == (5, 12, 0, 10)
    # Fisher by the hypergeometric: no table with these margins is less likely but those in the other tail.
    tables = stats.hypergeom(22, 5, 12).pmf(range(6))
    expected = tables[tables <= tables[5] * (1 + 1e-9)].sum()
    assert off["p"] == on["p"] == pytest.approx(expected)
    assert arms["balanced"].all()
    assert off["loss"] == pytest.approx((6 * 0.3 + 4 * 0.693 + 0.692) / 11)


def test_an_axis_of_three_has_no_test_and_an_unbalanced_one_says_so(tmp_path):
    text = HEAD + "lr: [1e-5, 2e-5, 3e-5]\nbias_correction: [off, on]\nepochs: 3\nseeds: 1..2\n"
    text += "exclude:\n  - {lr: 3e-5, bias_correction: on}\n"
    runs = {cell: [Run(300), Run(200, 0.693)] for cell in range(5)}
    sweep, table = made(tmp_path, text, runs)
    arms = analysis.arms(sweep, table)
    assert arms[arms["axis"] == "lr"]["p"].isna().all()
    assert not arms["balanced"].any()
    assert "not over the same other settings" in analysis.answer(sweep, table)[0]


def test_axis_values_stay_as_written(tmp_path):
    text = HEAD + "lr: 1e-5\nepochs: 3\nmax_grad_norm: [1.0, null]\nseeds: 1\n"
    sweep, table = made(tmp_path, text, {0: [Run(300)]})
    assert list(analysis.cells(sweep, table)["max_grad_norm"]) == [1.0, None]
    assert list(analysis.arms(sweep, table)["phrase"]) == ["with max_grad_norm 1", "with max_grad_norm none"]
    assert "none with max_grad_norm none is finished" not in analysis.answer(sweep, table)[0]  # nothing failed


def test_failed_runs_carry_their_command(mosbach):
    runs = analysis.failed_runs(*mosbach)
    assert list(runs["verdict"]) == ["failed"] * 3 + ["at chance", "failed", "failed"]
    assert list(runs["reason"]) == ["constant"] * 3 + ["", "constant", "diverged"]
    assert runs["command"][0] == f"harness rerun made --profile default --trial {runs['trial'][0]}"
    sweep, table = mosbach
    assert analysis.failed_runs(sweep, table, "make rerun")["command"][0].startswith("make rerun --trial lr")


def test_crossed_seeds_are_named_by_part(tmp_path):
    text = HEAD + "lr: 1e-5\nepochs: 3\nseeds: [1]\norder_seed: [1, 2]\n"
    sweep, table = made(tmp_path, text, {0: [Run(200), Run(200)]})
    assert list(analysis.failed_runs(sweep, table)["seed"]) == ["1", "init 1, order 2, dropout 1"]


# ------------------------------------------------------------------------------------------------------- the sentences


def test_the_answer_of_the_study(mosbach):
    assert analysis.answer(*mosbach) == [
        "Of 12 runs without bias correction 5 failed (42 % [19, 68]), of 10 with it 0 (0 % [0, 28]; Fisher's exact "
        "p = 0.04); of the 24 planned runs 1 is missing and 1 crashed.",
        "The failure rate is highest at lr 2e-5, bias correction off, epochs 3 (3 of 3); the best mean score, 0.880 "
        "(sd 0.005, n = 3), is that of lr 2e-5, bias correction on, epochs 10; 10 epochs have a higher mean than 3 in "
        "4 of 4 settings; one more run ended at chance, not failed by the definition and not trained either.",
    ]


def test_nothing_trained(tmp_path):
    sweep, table = made(tmp_path, MOSBACH, {})
    first, second = analysis.answer(sweep, table)
    assert first == "Nothing is known yet: of the 24 planned runs 24 are missing."
    assert second == "How often and where runs fail stands here once some are finished."
    assert analysis.noise_note(sweep, table) == []
    assert analysis.cells(sweep, table)["failed_low"].isna().all()


def test_all_crashed(tmp_path):
    sweep, table = made(tmp_path, HEAD + "lr: 1e-5\nepochs: 3\nseeds: 1..2\n", {0: [Run(crashed="x")] * 2})
    assert analysis.answer(sweep, table)[0] == "Nothing is known yet: of the 2 planned runs 2 crashed."
    assert analysis.cells(sweep, table)["failed"].tolist() == [0]


def test_no_failure_still_leaves_room(tmp_path):
    text = HEAD + "lr: 1e-5\nbias_correction: [off, on]\nepochs: 3\nseeds: 1..5\n"
    sweep, table = made(tmp_path, text, {0: [Run(300 + 2 * i) for i in range(5)], 1: [Run(370 + i) for i in range(5)]})
    first, second = analysis.answer(sweep, table)
    assert first == (
        "0 of 10 finished runs (5 without bias correction and 5 with bias correction) failed; the rate over these "
        "settings may still be up to 28 % (95 % confidence)."
    )
    assert by_hand_wilson(0, 10)[1] == pytest.approx(0.28, abs=0.005)
    assert second == (
        "The spread is widest at bias correction off (sd 0.008); the best mean score, 0.930 (sd 0.004, n = 5), is that "
        "of bias correction on."
    )


def test_all_fail(tmp_path):
    text = HEAD + "lr: 1e-5\nbias_correction: [off, on]\nepochs: 3\nseeds: 1..4\n"
    sweep, table = made(tmp_path, text, {0: [Run(200, 0.693)] * 4, 1: [Run(200, 0.693)] * 4})
    first, second = analysis.answer(sweep, table)
    assert first == (
        "Of 4 runs without bias correction 4 failed (100 % [51, 100]), of 4 with it 4 (100 % [51, 100]; Fisher's exact "
        "p = 1)."
    )
    assert second == "No run learned more than the majority class, so a small spread here is failing, not stability."
    assert analysis.cells(sweep, table)["sd"].tolist() == [0, 0]


def test_all_diverged(tmp_path):
    sweep, table = made(tmp_path, HEAD + "lr: 1e-5\nepochs: 3\nseeds: 1..2\n", {0: [Run(diverged=True)] * 2})
    first, second = analysis.answer(sweep, table)
    assert first == "Of 2 finished runs 2 failed (100 % [34, 100])."
    assert second.endswith("no run has a score, for all of them diverged.")
    cells = analysis.cells(sweep, table)
    assert cells["scored"].tolist() == [0]
    assert cells["mean"].isna().all()


def test_one_seed_shows_no_spread(tmp_path):
    text = HEAD + "lr: [1e-5, 2e-5]\nbias_correction: on\nepochs: 3\nseeds: 1\n"
    sweep, table = made(tmp_path, text, {0: [Run(200)], 1: [Run(330)]})
    first, second = analysis.answer(sweep, table)
    assert first == (
        "Of 1 run with lr 1e-5 1 failed (100 % [21, 100]), of 1 with lr 2e-5 0 (0 % [0, 79]; Fisher's exact p = 1)."
    )
    assert second == (
        "The failure rate is highest at lr 1e-5 (1 of 1); one seed a cell does not show the spread over seeds; the "
        "best mean score, 0.825 (n = 1), is that of lr 2e-5."
    )


def test_no_axes(tmp_path):
    sweep, table = made(tmp_path, HEAD + "lr: 1e-5\nepochs: 3\nseeds: 1..3\n", {0: [Run(200), Run(320), Run(340)]})
    first, second = analysis.answer(sweep, table)
    assert first == "Of 3 finished runs 1 failed (33 % [6, 79])."
    assert second == "The mean score is 0.717 (sd 0.189, n = 3), from 0.500 to 0.850."
    assert analysis.arms(sweep, table).empty


def test_named_recipes(tmp_path):
    text = "recipes:\n  usual: {bias_correction: off, epochs: 3}\n  recommended: {bias_correction: on, epochs: 20}\n"
    runs = {0: [Run(200)] * 3 + [Run(320)], 1: [Run(350)] * 4}
    sweep, table = made(tmp_path, HEAD + "lr: 2e-5\nseeds: 1..4\n" + text, runs)
    assert analysis.answer(sweep, table)[0] == (
        "Of 4 runs of the recipe usual 3 failed (75 % [30, 95]), of 4 of the recipe recommended 0 (0 % [0, 49]; "
        "Fisher's exact p = 0.14)."
    )


def test_one_arm_not_yet_trained(tmp_path):
    text = HEAD + "lr: 1e-5\nbias_correction: [off, on]\nepochs: 3\nseeds: 1..2\n"
    sweep, table = made(tmp_path, text, {0: [Run(200), Run(300)]})
    assert analysis.answer(sweep, table)[0] == (
        "Of 2 runs without bias correction 1 failed (50 % [9, 91]); none with bias correction is finished; of the 4 "
        "planned runs 2 are missing."
    )


def test_the_worst_cells_are_named_by_what_they_share(tmp_path):
    runs = dict(MOSBACH_RUNS) | {5: [Run(200)] * 3}
    sweep, table = made(tmp_path, MOSBACH, runs)
    second = analysis.answer(sweep, table)[1]
    assert second.startswith(
        "The failure rate is highest in 2 of 8 cells, all with lr 2e-5, bias correction off (6 of 6); the best mean"
    )


def test_277_examples_do_not_tell_but_losses_do(tmp_path):
    # The numbers of a plain loop with MiniLM on RTE: without correction .4729 and .5271, with it .5379 and .5307.
    text = HEAD + "lr: 1e-4\nbias_correction: [off, on]\nepochs: 3\nseeds: 1..2\n"
    runs = {0: [Run(131, 0.695), Run(146, 0.669)], 1: [Run(149, 0.429), Run(147, 0.395)]}
    sweep, table = made(tmp_path, text, runs, majority=146, examples=277)
    found = analysis.noise(sweep, table)
    assert found is not None
    assert found.error == pytest.approx(0.03, abs=1e-4)  # sqrt(.517 · .483 / 277)
    assert found.needed == pytest.approx(1.96 * math.sqrt(2) * found.error)
    assert not found.tells
    note = " ".join(analysis.noise_note(sweep, table))
    assert "277 examples do not tell 0.500 from 0.534, and the means do not rank the recipes." in note
    assert (
        "Mean training loss in the last epoch 0.682 without bias correction, 0.412 with it (no two runs overlap: the "
        "losses tell the arms apart)." in note
    )
    first, second = analysis.answer(sweep, table)
    assert first.startswith("Of 2 runs without bias correction 2 failed")
    assert "277 dev examples do not tell the cell means apart (0.500 to 0.534), mean training loss" in second
    # The two runs with correction are above by count; their losses say that they trained.
    assert not analysis.at_chance(table).any()
