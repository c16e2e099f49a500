"""The sentences: said from the numbers alone, in the right number, and no further than the data go."""

import pytest
from made_runs import HEAD, MOSBACH, MOSBACH_RUNS, Run, import_of, imported_runs, study_of
from said_of_studies import ARMS, ONE, everything, found_of
from scipy import stats

from harness.analysis.analyze import analyse
from harness.report import opening
from harness.report.sections import best_of_n, dev_set, failures, importance, level, seed_budget, seed_parts, spread

# ------------------------------------------------------------------------------------------------------- how often


def test_the_answer_of_the_study(mosbach):
    said = opening.answer(mosbach)
    assert said[:2] == [
        "5 of 12 runs without bias correction failed (42 % [19, 68]), compared with 0 of 10 with it (0 % [0, 28]; "
        "Fisher's exact p = 0.04); 1 of the 24 planned runs is missing and 1 crashed.",
        "The failure rate is highest at lr 2e-5, bias correction off, epochs 3 (3 of 3); the best mean score is "
        "0.880 (sd 0.005, n = 3), at lr 2e-5, bias correction on, epochs 10; 10 epochs give a higher mean than 3 in "
        "4 of 4 settings; one more run is near chance, but not counted as failed.",
    ]
    assert said[2] == (
        "The strongest predictor of failure is lr (59 % of the explained χ²); bias correction × lr accounts for 37 % "
        "of the variance "
        "of the score, seeds within cells for 1 %."
    )
    assert said[-1] == "0 failures in 3 seeds is compatible with a failure rate of up to 56 % (95 % CI)."


def test_nothing_trained(tmp_path):
    found = found_of(tmp_path, MOSBACH, {})
    assert opening.answer(found) == [
        "No run has finished yet: 24 of the 24 planned runs are missing.",
        "Failure rates appear here once runs have finished.",
    ]
    for make in (failures.sentences, spread.sentences, dev_set.sentences, best_of_n.sentences, seed_budget.sentences):
        assert make(found) == []
    assert opening.multiplicity(found) == "No hypothesis was tested."


def test_all_crashed(tmp_path):
    found = found_of(tmp_path, ONE.format(2), {0: [Run(crashed="x")] * 2})
    assert opening.answer(found)[0] == "No run has finished yet: 2 of the 2 planned runs crashed."


def test_no_failure_still_leaves_room(tmp_path):
    runs = {0: [Run(300 + 2 * i) for i in range(5)], 1: [Run(370 + i) for i in range(5)]}
    first, second, *rest = opening.answer(found_of(tmp_path, ARMS.format(5), runs))
    assert first == (
        "0 of 10 finished runs (5 without bias correction and 5 with bias correction) failed, which is "
        "compatible with a failure rate of up to 28 % (95 % CI)."
    )
    z = stats.norm.ppf(0.975)
    assert z**2 / (10 + z**2) == pytest.approx(0.28, abs=0.005)  # Wilson's upper end of 0 in 10
    assert second == (
        "The spread is widest at bias correction off (sd 0.008); the best mean score is 0.930 (sd 0.004, n = 5), at "
        "bias correction on."
    )
    assert rest[-1] == "0 failures in 5 seeds is compatible with a failure rate of up to 43 % (95 % CI)."


def test_all_fail(tmp_path):
    found = found_of(tmp_path, ARMS.format(4), {0: [Run(200, 0.693)] * 4, 1: [Run(200, 0.693)] * 4})
    first, second, *_ = opening.answer(found)
    assert first == (
        "4 of 4 runs without bias correction failed (100 % [51, 100]), compared with 4 of 4 with it (100 % [51, 100]; "
        "Fisher's exact p = 1)."
    )
    assert second == "No run did better than the majority class, so a small spread here means failure, not stability."
    assert spread.sentences(found) == [
        "In 2 of 2 cells every run failed (bias correction off; bias correction on): a small sd there means "
        "failure, not stability."
    ]
    assert "stable" not in " ".join(everything(found))


def test_all_diverged(tmp_path):
    first, second, *_ = opening.answer(found_of(tmp_path, ONE.format(2), {0: [Run(diverged=True)] * 2}))
    assert first == "2 of 2 finished runs failed (100 % [34, 100])."
    assert second.endswith("no run has a score because all of them diverged.")


def test_one_seed_shows_no_spread(tmp_path):
    text = HEAD + "lr: [1e-5, 2e-5]\nbias_correction: on\nepochs: 3\nseeds: 1\n"
    found = found_of(tmp_path, text, {0: [Run(200)], 1: [Run(330)]})
    first, second, *rest = opening.answer(found)
    assert first == (
        "1 of 1 run with lr 1e-5 failed (100 % [21, 100]), compared with 0 of 1 with lr 2e-5 (0 % [0, 79]; Fisher's "
        "exact p = 1)."
    )
    assert second == (
        "The failure rate is highest at lr 1e-5 (1 of 1); one seed per cell cannot show the spread over seeds; the "
        "best mean score is 0.825 (n = 1), at lr 2e-5."
    )
    assert rest == ["0 failures in 1 seed is compatible with a failure rate of up to 79 % (95 % CI)."]
    assert best_of_n.sentences(found) == []
    assert level.sentences(found) == [
        "No pair of cells has two differing scores of successful runs on both sides, so the means of these cannot be "
        "compared."
    ]


def test_no_axes(tmp_path):
    found = found_of(tmp_path, ONE.format(3), {0: [Run(200), Run(320), Run(340)]})
    first, second, *_ = opening.answer(found)
    assert first == "1 of 3 finished runs failed (33 % [6, 79])."
    assert second == "The mean score is 0.717 (sd 0.189, n = 3), from 0.500 to 0.850."
    assert level.sentences(found) == []
    assert importance.sentences(found) == ["Only the seed varies, so there is nothing to rank."]


def test_one_run(tmp_path):
    said = opening.answer(found_of(tmp_path, ONE.format(1), {0: [Run(300)]}))
    assert said[0].startswith("0 of 1 finished run failed, which is compatible with a failure rate of up to 79 %")
    assert said[1] == "One seed per cell cannot show the spread over seeds; the mean score is 0.750 (n = 1)."


def test_named_recipes(tmp_path):
    text = "recipes:\n  usual: {bias_correction: off, epochs: 3}\n  recommended: {bias_correction: on, epochs: 20}\n"
    runs = {0: [Run(200)] * 3 + [Run(320)], 1: [Run(350)] * 4}
    found = found_of(tmp_path, HEAD + "lr: 2e-5\nseeds: 1..4\n" + text, runs)
    assert opening.answer(found)[0] == (
        "3 of 4 runs of the recipe usual failed (75 % [30, 95]), compared with 0 of 4 of the recipe recommended "
        "(0 % [0, 49]; Fisher's exact p = 0.14)."
    )


def test_one_arm_not_yet_trained(tmp_path):
    found = found_of(tmp_path, ARMS.format(2), {0: [Run(200), Run(300)]})
    assert opening.answer(found)[0] == (
        "1 of 2 runs without bias correction failed (50 % [9, 91]); no run with bias correction has finished; 2 of the "
        "4 planned runs are missing."
    )


def test_one_planned_run_is_missing(tmp_path):
    found = found_of(tmp_path, ONE.format(1), {})
    assert opening.answer(found)[0] == "No run has finished yet: 1 of the 1 planned run is missing."


def test_the_worst_cells_are_named_by_what_they_share(tmp_path):
    found = found_of(tmp_path, MOSBACH, dict(MOSBACH_RUNS) | {5: [Run(200)] * 3})
    assert opening.answer(found)[1].startswith(
        "The failure rate is highest in 2 of 8 cells, all with lr 2e-5, bias correction off (6 of 6); the best mean"
    )


UNBALANCED = HEAD + "lr: [1e-5, 2e-5, 3e-5]\nbias_correction: [off, on]\nepochs: 3\nseeds: 1..2\n"


def test_an_unbalanced_comparison_says_so(tmp_path):
    text = UNBALANCED + "exclude:\n  - {lr: 3e-5, bias_correction: on}\n"
    found = found_of(tmp_path, text, {cell: [Run(300), Run(200, 0.693)] for cell in range(5)})
    assert (
        "but the other settings differ too; in the 2 shared settings 2 of 4 compared with 2 of 4)."
        in opening.answer(found)[0]
    )
    text = UNBALANCED.replace("[1e-5, 2e-5, 3e-5]", "[1e-5, 2e-5]")
    text += "exclude:\n  - {lr: 2e-5, bias_correction: on}\n  - {lr: 1e-5, bias_correction: off}\n"
    apart = found_of(tmp_path / "b", text, {cell: [Run(300), Run(200, 0.693)] for cell in range(2)})
    assert "but the other settings differ too and none is shared)." in opening.answer(apart)[0]


# --------------------------------------------------------------------------------------------------- what is not known


def test_an_import_without_a_majority_claims_nothing_of_failing(tmp_path):
    rows = [*imported_runs([0.5, 0.6, 0.65, None]), *imported_runs([0.7, 0.8, 0.75, 0.7], 1)]
    found = analyse(import_of(tmp_path, [(("method", "a"),), (("method", "b"),)], rows))
    first, second, *rest = opening.answer(found)
    assert first == (
        "It is not known whether any of 7 finished runs failed: no majority-class score was given; 1 of the 8 planned "
        "runs is missing."
    )
    assert second == (
        "The spread is widest at method a (sd 0.076); the best mean score is 0.738 (sd 0.048, n = 4), at method b."
    )
    assert rest == []
    assert failures.sentences(found) == []
    assert spread.sentences(found) == []
    assert not any("failed in" in sentence or "% [" in sentence for sentence in everything(found))
    assert "Predictors of failure cannot be determined: whether runs failed is not known." in importance.sentences(
        found
    )
    assert seed_parts.sentences(found) == []


def test_what_is_judged_in_part_says_the_rest(tmp_path):
    rows = [*imported_runs([0.4, 0.6], outcome=["failed", "ok"]), *imported_runs([0.7, 0.8, 0.9], 1)]
    found = analyse(import_of(tmp_path, [(("dataset", "a"),), (("dataset", "b"),)], rows))
    assert opening.answer(found)[0].endswith("; for 3 more finished runs it is not known whether they failed.")
    rows[1]["outcome"] = "failed"
    second = opening.answer(analyse(import_of(tmp_path, [(("dataset", "a"),), (("dataset", "b"),)], rows)))[1]
    assert "no run did better" not in second.lower()
    assert "best mean score is 0.800 (sd 0.100, n = 3), at dataset b" in second


def test_lower_is_better(tmp_path):
    rows = [*imported_runs([3.0, 3.5, 4.0]), *imported_runs([1.0, 1.5, 1.25], 1)]
    study = import_of(tmp_path, [(("method", "a"),), (("method", "b"),)], rows, higher_is_better=False)
    found = analyse(study)
    assert "the best mean score is 1.250 (sd 0.250, n = 3), at method b." in opening.answer(found)[1]
    assert best_of_n.sentences(found) == [
        "Reporting the best of 3 seeds instead of a single run changes the score by 0.500, from 3.500 to 3.000, at "
        "method a."
    ]


# --------------------------------------------------------------------------------------------- what helped and did not

RECIPES = HEAD + (
    "lr: {lr}\nepochs: 3\nrecipes:\n  usual: {{bias_correction: off}}\n  corrected: {{bias_correction: on}}\n"
    "  warm-up: {{bias_correction: off, warmup_ratio: 0.3}}\nseeds: 1..8\n"
)


def test_named_recipes_are_held_against_the_first(tmp_path):
    bad, good = [Run(200)] * 8, [Run(300 + seed) for seed in range(8)]
    runs = {0: bad, 1: bad, 2: good, 3: good, 4: bad, 5: [*bad[:6], *good[:2]]}  # recipe by recipe, two rates each
    (said,) = opening.helped(analyse(study_of(tmp_path, RECIPES.format(lr="[1e-5, 2e-5]"), by_recipe(runs))))
    assert said == (
        "compared with the recipe “usual” (16 of 16 failed): fewer runs fail with corrected (0 of 16); no significant "
        "difference in failure rate for the other (Holm-adjusted p < 0.05)."
    )


def by_recipe(runs):
    """The cells of `RECIPES` at two rates in the order of the file, which puts the rate first."""
    return {0: runs[0], 1: runs[2], 2: runs[4], 3: runs[1], 4: runs[3], 5: runs[5]}


def test_where_none_fails_the_means_are_compared(tmp_path):
    low, high = ([Run(base + 3 * seed) for seed in range(8)] for base in (250, 330))
    found = analyse(study_of(tmp_path, RECIPES.format(lr="1e-5"), {0: low, 1: high, 2: low}))
    failing, means = opening.helped(found)
    assert failing == (
        "compared with the recipe “usual” (0 of 8 failed): no significant difference in failure rate for both "
        "(Holm-adjusted p < 0.05)."
    )
    assert means == (
        "compared with the recipe “usual” (mean 0.651): the mean of successful runs is better with corrected (0.851); "
        "no significant difference in mean for the other (Holm-adjusted p < 0.05)."
    )
    assert opening.helped(analyse(study_of(tmp_path / "two", ARMS.format(8), {0: low, 1: high}))) == []
