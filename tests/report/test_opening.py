"""The sentences: said from the numbers alone, in the right number, and no further than the data go."""

import numpy as np
import pytest
from made_runs import HEAD, MOSBACH, MOSBACH_RUNS, Run, import_of, imported_runs, study_of
from said_of_studies import ARMS, ONE, everything, found_of
from scipy import stats

from harness.analysis.analyze import analyse
from harness.common.errors import HarnessError
from harness.records.study import compared
from harness.report import opening
from harness.report.sections import best_of_n, dev_set, failures, importance, level, seed_budget, seed_parts, spread

MEANS = "Failed means a final accuracy at or below that of always answering the majority class, 0.500."

# ------------------------------------------------------------------------------------------------------- how often


def test_the_answer_of_the_study(mosbach):
    texts = opening.answer(mosbach)
    assert texts[:5] == [
        "5 of 22 finished runs failed. Failed means a final accuracy at or below that of always answering the majority "
        "class, 0.500; 1 of the 24 planned runs is missing and 1 crashed.",
        "Failure rate by lr: 1e-5: 0 of 12 (0 % [0, 24]); 2e-5: 5 of 10 (50 % [24, 76]), all with bias correction off. "
        "Runs with different lr are spread differently over the other settings, so these rates are not comparable; the "
        "next sentence compares within the same settings.",
        "All else equal, lr 2e-5 compared with 1e-5 changes the failure rate by +48 points [11, 77] (stratified score "
        "test, 4 settings, p = 0.02).",
        "6 of 8 recipes cannot be distinguished from the one with the best mean score (95 %; means 0.775 to 0.880, "
        "1 diverged run counted as the worst).",
        "No recipe can be excluded from having the lowest failure rate (95 %): the 8 cannot be distinguished.",
    ]
    assert texts[5:7] == [
        "Recommendation if few failures and a high mean matter: any of these 5 (of 8), which cannot be "
        "distinguished (0 of 15 failed): lr 1e-5, bias correction off, epochs 3; lr 1e-5, bias correction off, epochs "
        "10; lr 1e-5, bias correction on, epochs 3; lr 1e-5, bias correction on, epochs 10; lr 2e-5, bias correction "
        "on, epochs 10; another recipe, of which less is known or more runs failed, may be as good.",
        "These results cover model embedded on task embedded with up to 3 runs per recipe and the settings that were "
        "tried; they say nothing of other models, tasks, data sizes or values.",
    ]
    assert texts[7].startswith("Crashed and missing runs are spread unevenly: 1 of 3 finished at lr 2e-5, bias correc")
    assert texts[8].startswith(
        "The observed failure rate is highest at lr 2e-5, bias correction off, epochs 3 (3 of 3)"
    )
    assert texts[8].endswith("; over all recipes one more run is near chance, but not counted as failed.")
    assert texts[-1] == "0 failures in 3 seeds is compatible with a failure rate of up to 56 % (95 % CI)."


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
    first, best, recommended, _, spread_of, *rest = opening.answer(found_of(tmp_path, ARMS.format(5), runs))
    assert first == (
        "0 of 10 finished runs failed, which is compatible with a failure rate of up to 28 % (95 % CI). " + MEANS
    )
    z = stats.norm.ppf(0.975)
    assert z**2 / (10 + z**2) == pytest.approx(0.28, abs=0.005)  # Wilson's upper end of 0 in 10
    assert (
        best
        == "The best mean score is that of bias correction on (mean 0.930); no other recipe can be the best (95 %)."
    )
    assert recommended.endswith("bias correction on (0 of 5 failed).")
    assert spread_of == "The observed spread is widest at bias correction off (sd 0.008, n = 5)."
    assert rest[-1] == "0 failures in 5 seeds is compatible with a failure rate of up to 43 % (95 % CI)."


def test_all_fail(tmp_path):
    found = found_of(tmp_path, ARMS.format(4), {0: [Run(200, 0.693)] * 4, 1: [Run(200, 0.693)] * 4})
    texts = opening.answer(found)
    assert texts[:3] == [
        f"8 of 8 finished runs failed. {MEANS}",
        "Failure rate by bias correction: off: 4 of 4 (100 % [51, 100]), on: 4 of 4 (100 % [51, 100]).",
        "Bias correction on compared with off makes no significant difference to the failure rate: 0 points [−52, 52] "
        "(stratified score test, p = 1).",
    ]
    assert "No run did better than the majority class, so a small spread here means failure, not stability." in texts
    assert not any(text.startswith("Recommendation") for text in texts)
    assert spread.sentences(found) == [
        "In 2 of 2 cells every run failed (bias correction off; bias correction on): a small sd there means "
        "failure, not stability."
    ]
    assert "stable" not in " ".join(everything(found))


def test_all_diverged(tmp_path):
    texts = opening.answer(found_of(tmp_path, ONE.format(2), {0: [Run(diverged=True)] * 2}))
    assert texts[0] == f"2 of 2 finished runs failed (100 % [34, 100]). {MEANS}"
    assert any(text.endswith("no run has a score because all of them diverged.") for text in texts)


def test_one_seed_shows_no_spread(tmp_path):
    text = HEAD + "lr: [1e-5, 2e-5]\nbias_correction: on\nepochs: 3\nseeds: 1\n"
    found = found_of(tmp_path, text, {0: [Run(200)], 1: [Run(330)]})
    texts = opening.answer(found)
    assert "Failure rate by lr: 1e-5: 1 of 1 (100 % [21, 100]), 2e-5: 0 of 1 (0 % [0, 79])." in texts
    assert any(
        text.startswith("Too few runs to compare failure rates by lr: however 1 run against 1 had ended")
        for text in texts
    )
    assert "One seed per cell cannot show the spread over seeds." in texts
    assert failures.sentences(found)[0] == (
        "Too few runs to show any difference in failure rate: lr 2e-5 vs. 1e-5 (1 run against 1)."
    )
    assert not any(text.startswith("Recommendation") or "best mean score is" in text for text in texts)
    assert best_of_n.sentences(found) == []
    assert level.sentences(found) == [
        "No pair of cells has two differing scores of successful runs on both sides, so the means of these cannot be "
        "compared."
    ]


def test_no_axes(tmp_path):
    found = found_of(tmp_path, ONE.format(3), {0: [Run(200), Run(320), Run(340)]})
    first, _, second, *_ = opening.answer(found)
    assert first == f"1 of 3 finished runs failed (33 % [6, 79]). {MEANS}"
    assert second == "The mean score is 0.717 (sd 0.189, n = 3), from 0.500 to 0.850."
    assert level.sentences(found) == []
    assert importance.sentences(found) == ["Only the seed varies, so there is nothing to rank."]


def test_one_run(tmp_path):
    said = opening.answer(found_of(tmp_path, ONE.format(1), {0: [Run(300)]}))
    assert said[0].startswith("0 of 1 finished run failed (0 % [0, 79]). ")
    assert said[2] == "One seed per cell cannot show the spread over seeds; the mean score is 0.750 (n = 1)."


def test_named_recipes(tmp_path):
    text = "recipes:\n  usual: {bias_correction: off, epochs: 3}\n  recommended: {bias_correction: on, epochs: 20}\n"
    runs = {0: [Run(200)] * 4 + [Run(320)], 1: [Run(350)] * 5}
    found = found_of(tmp_path, HEAD + "lr: 2e-5\nseeds: 1..5\n" + text, runs)
    assert opening.answer(found)[1:3] == [
        "Failure rate by recipe: usual: 4 of 5 (80 % [38, 96]), recommended: 0 of 5 (0 % [0, 43]).",
        "Recipe recommended compared with usual changes the failure rate by −80 points [−97, −18] (stratified score "
        "test, p = 0.048).",
    ]


def test_one_arm_not_yet_trained(tmp_path):
    found = found_of(tmp_path, ARMS.format(2), {0: [Run(200), Run(300)]})
    texts = opening.answer(found)
    assert texts[0] == f"1 of 2 finished runs failed. {MEANS[:-1]}; 2 of the 4 planned runs are missing."
    assert texts[1] == (
        "Failure rate by bias correction: off: 1 of 2 (50 % [9, 91]); no run with bias correction has finished."
    )
    assert not any("compared with" in text for text in texts)


def test_one_planned_run_is_missing(tmp_path):
    found = found_of(tmp_path, ONE.format(1), {})
    assert opening.answer(found)[0] == "No run has finished yet: 1 of the 1 planned run is missing."


def test_the_worst_cells_are_named_by_what_they_share(tmp_path):
    found = found_of(tmp_path, MOSBACH, dict(MOSBACH_RUNS) | {5: [Run(200)] * 3})
    start = "The observed failure rate is highest at 2 of 8 recipes, lr 2e-5, bias correction off, epochs 3; "
    start += "lr 2e-5, bias correction off, epochs 10 (6 of 6)"
    assert any(text.startswith(start) for text in opening.answer(found))


# ------------------------------------------------------------------------------------------- compared within settings

SIMPSON = HEAD + "bias_correction: [off, on]\nlr: [1e-5, 2e-5]\nepochs: 3\nseeds: 1..20\n"
BAD, GOOD = Run(200, 0.693), Run(330)


def of(failed: int, n: int) -> list[Run]:
    return [BAD] * failed + [Run(330 + i) for i in range(n - failed)]


def test_a_pooled_rate_that_misleads_is_not_given(tmp_path):
    # Within each rate "on" fails less (0/4 and 1/20; 12/20 and 4/4), pooled it fails more (50 % and 21 %).
    found = found_of(tmp_path, SIMPSON, {0: of(1, 20), 1: of(4, 4), 2: of(0, 4), 3: of(12, 20)})
    assert opening.answer(found)[:3] == [
        f"17 of 48 finished runs failed. {MEANS[:-1]}; 32 of the 80 planned runs are missing.",
        "Failure rates pooled by bias correction would mislead and are not given here: runs with different bias "
        "correction are spread differently over the other settings.",
        "All else equal, bias correction on compared with off makes no significant difference to the failure rate: "
        "−23 points [−38, 10] (stratified score test, 2 settings, p = 0.12).",
    ]
    assert not any("50 %" in text or "21 %" in text for text in opening.answer(found)[:7])


def test_pooled_rates_that_are_merely_unbalanced_say_so(tmp_path):
    found = found_of(tmp_path, SIMPSON.replace("1..20", "1..4"), {0: of(1, 4), 1: of(4, 4), 2: of(0, 4), 3: of(2, 3)})
    assert opening.answer(found)[1] == (
        "Failure rate by bias correction: off: 5 of 8 (62 % [31, 86]); on: 2 of 7 (29 % [8, 64]), all with lr 2e-5. "
        "Runs with different bias correction are spread differently over the other settings, so these rates are not "
        "comparable; the next sentence compares within the same settings."
    )


def test_balanced_counts_have_pooled_rates(tmp_path):
    found = found_of(tmp_path, SIMPSON, {0: of(1, 20), 1: of(20, 20), 2: of(0, 20), 3: of(12, 20)})
    assert opening.answer(found)[1:3] == [
        "Failure rate by bias correction: off: 21 of 40 (52 % [37, 67]); on: 12 of 40 (30 % [18, 45]), all with "
        "lr 2e-5.",
        "All else equal, bias correction on compared with off changes the failure rate by −22 points [−38, −9] "
        "(stratified score test, 2 settings, p = 0.0016).",
    ]


def test_three_arms_have_a_rate_each_and_are_compared_with_the_reference(tmp_path):
    text = HEAD + "lr: [1e-5, 2e-5, 3e-5]\nepochs: 3\nseeds: 1..10\n"
    found = found_of(tmp_path, text, {0: of(0, 10), 1: of(3, 10), 2: of(9, 10)})
    assert opening.answer(found)[1:3] == [
        "Failure rate by lr: 1e-5: 0 of 10 (0 % [0, 28]), 2e-5: 3 of 10 (30 % [11, 60]), 3e-5: 9 of 10 (90 % [60, "
        "98]).",
        "Compared with lr 1e-5, the failure rate changes by +90 points [54, 98] with 3e-5; no significant difference "
        "for 2e-5, +30 points [−3, 61] (stratified score test; Holm-adjusted over 2 comparisons, each interval on its "
        "own).",
    ]


def test_no_shared_setting_compares_nothing(tmp_path):
    text = SIMPSON.replace("1..20", "1..2")
    text += "exclude:\n  - {lr: 2e-5, bias_correction: on}\n  - {lr: 1e-5, bias_correction: off}\n"
    apart = found_of(tmp_path, text, {cell: [GOOD, BAD] for cell in range(2)})
    assert (
        opening.answer(apart)[2] == "No setting was run with two values of bias correction, so nothing compares them."
    )


@pytest.mark.parametrize("axis", ["recipes", "weight_decay"])
def test_ten_identical_arms_have_no_best(tmp_path, axis):
    # Whether the axis is of named recipes or of plain values, no arm is named best by luck.
    values = [f"0.0{i}" for i in range(10)]
    arms = f"weight_decay: [{', '.join(values)}]\n"
    if axis == "recipes":
        arms = "recipes:\n" + "".join(f"  m{i}: {{weight_decay: {value}}}\n" for i, value in enumerate(values))
    draw = np.random.default_rng(3)
    runs = {cell: [Run(int(correct)) for correct in draw.normal(325, 4, 5)] for cell in range(10)}
    texts = opening.answer(found_of(tmp_path, HEAD + "lr: 1e-5\nepochs: 3\n" + arms + "seeds: 1..5\n", runs))
    assert texts[1:3] == [
        "No recipe can be excluded from having the best mean score (95 %): the 10 cannot be distinguished.",
        "No recommendation: with 5 scored runs per recipe none stands out.",
    ]


# --------------------------------------------------------------------------------------------------- what is not known


def test_an_import_without_a_majority_claims_nothing_of_failing(tmp_path):
    rows = [*imported_runs([0.5, 0.55, 0.52, None]), *imported_runs([0.7, 0.8, 0.75, 0.7], 1)]
    found = analyse(import_of(tmp_path, [(("method", "a"),), (("method", "b"),)], rows))
    first, second, *rest = opening.answer(found)
    assert first == (
        "It is not known whether any of 7 finished runs failed: no majority-class score was given; 1 of the 8 planned "
        "runs is missing."
    )
    assert second == "The best mean score is that of method b (mean 0.738); no other recipe can be the best (95 %)."
    assert rest == [
        "Recommendation if the mean matters: method b.",
        "These results cover the model and task of these runs with up to 4 runs per recipe and the settings that were "
        "tried; they say nothing of other models, tasks, data sizes or values.",
        "The observed spread is widest at method b (sd 0.048, n = 4).",
    ]
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
    texts = opening.answer(analyse(import_of(tmp_path, [(("dataset", "a"),), (("dataset", "b"),)], rows)))
    assert not any("no run did better" in text.lower() for text in texts)
    assert texts[1] == "Failure rate by dataset: a: 2 of 2 (100 % [34, 100]); not known for runs with dataset b."


def test_lower_is_better(tmp_path):
    rows = [*imported_runs([3.0, 3.5, 4.0]), *imported_runs([1.0, 1.5, 1.25], 1)]
    study = import_of(tmp_path, [(("method", "a"),), (("method", "b"),)], rows, higher_is_better=False)
    found = analyse(study)
    assert opening.answer(found)[1] == (
        "The best mean score is that of method b (mean 1.250); no other recipe can be the best (95 %)."
    )
    assert best_of_n.sentences(found) == [
        "Reporting the best of 3 seeds instead of a single run changes the score by 0.500, from 3.500 to 3.000, at "
        "method a."
    ]


def test_the_reference_and_the_main_axis_are_chosen(tmp_path):
    text = SIMPSON.replace("1..20", "1..8") + "reference: {bias_correction: on}\n"
    study = study_of(tmp_path, text, {0: of(0, 8), 1: of(8, 8), 2: of(0, 8), 3: of(0, 8)})
    assert opening.answer(analyse(study))[2].startswith("All else equal, bias correction off compared with on changes")
    texts = opening.answer(analyse(compared(study, "lr", ["lr=2e-5"])))
    assert texts[1].startswith("Failure rate by lr: 1e-5: 0 of 16")
    assert texts[2].startswith("All else equal, lr 1e-5 compared with 2e-5 changes")
    for main, references, message in (
        ("rate", [], "--main names no axis of these runs"),
        (None, ["lr"], "--reference must be of the form AXIS=VALUE"),
        (None, ["lr=3e-5"], "'lr' has no value '3e-5'"),
    ):
        with pytest.raises(HarnessError, match=message):
            compared(study, main, references)
    with pytest.raises(HarnessError, match=r"reference\.lr must be a value of the axis"):
        study_of(tmp_path / "b", text.replace("{bias_correction: on}", "{lr: 3e-5}"), {})


def test_all_pairs_of_three_arms(tmp_path):
    text = HEAD + "lr: [1e-5, 2e-5, 3e-5]\nepochs: 3\nseeds: 1..10\n"
    study = study_of(tmp_path, text, {0: of(0, 10), 1: of(3, 10), 2: of(9, 10)})
    assert opening.answer(analyse(compared(study, None, [], all_pairs=True)))[2] == (
        "Pair by pair, the failure rate changes by +90 points [54, 98] with 3e-5 vs. 1e-5; by +60 points [17, 84] with "
        "3e-5 vs. 2e-5; no significant difference for 2e-5 vs. 1e-5, +30 points [−3, 61] (stratified score test; "
        "Holm-adjusted over 3 comparisons, each interval on its own)."
    )


def test_the_order_of_imported_rows_chooses_no_reference(tmp_path):
    good, bad = [0.9, 0.8, 0.8, 0.9], [0.5] * 4
    rows = [*imported_runs(good, outcome=["ok"] * 4), *imported_runs(bad, 1, outcome=["failed"] * 4)]
    study = import_of(tmp_path, [(("method", "b"),), (("method", "a"),)], rows)
    assert any(text.startswith("Method b compared with a") for text in opening.answer(analyse(study)))


def test_an_imported_column_that_is_called_final_is_not_final_twice(tmp_path):
    rows = imported_runs([0.5, 0.7], majority_score=[0.5, 0.5], outcome=["failed", "ok"])
    study = import_of(tmp_path, [()], [row | {"metric": "final_score"} for row in rows], metric="final_score")
    means = "Failed means a final score at or below that of always answering the majority class, 0.500"
    assert opening.failing_means(analyse(study)) == means
