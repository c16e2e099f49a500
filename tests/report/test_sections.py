"""What each section says: from the numbers alone, and no further than the data go."""

import dataclasses
import math

import numpy as np
import pytest
from made_runs import HEAD, MOSBACH, MOSBACH_RUNS, Run, import_of, imported_runs, store_of, study_of, sweep_of
from said_of_studies import ARMS, ONE, everything, found_of

from harness.analysis.analyze import analyse
from harness.records.study import joined, of_sweep
from harness.report import opening
from harness.report.sections import best_of_n, dev_set, failures, importance, level, seed_budget, seed_parts, spread

GOOD = [Run(300), Run(310), Run(320)]


def test_failing_says_what_differs_and_what_may_not(mosbach):
    said = failures.sentences(mosbach)
    assert said[:2] == [
        "Lr 2e-5 compared with 1e-5: the failure rate differs by +48 points [11, 77], all else equal (stratified score "
        "test, adjusted p = 0.02).",
        "No significant difference in failure rate for bias correction on compared with off, −33 points [−66, 0]; "
        "epochs 10 compared with 3, −10 points [−44, 21] (all else equal, adjusted p of 0.05 or more).",
    ]
    assert said[2] == (
        "By the definition used here 5 of 22 runs failed; by others 6 of 22 (not significantly above the majority at "
        "5 %), 6 of 22 (training loss still at the label entropy)."
    )
    assert len(said) == 3


def test_failing_with_a_threshold_and_one_comparison(tmp_path):
    found = found_of(tmp_path, ARMS.format(2), {0: [Run(200, 0.1), Run(300)], 1: [Run(310), Run(320)]}, 0.78)
    assert failures.sentences(found) == [
        "Too few runs to show any difference in failure rate: bias correction on vs. off (2 runs against 2).",
        "By the definition used here 1 of 4 runs failed; by others 1 of 4 (not significantly above the majority at "
        "5 %), 0 of 4 (training loss still at the label entropy), 3 of 4 (worse than 0.780).",
    ]


def test_many_comparisons_that_show_nothing_are_counted(tmp_path):
    text = ONE.format(4).replace("lr: 1e-5", "lr: [1e-5, 2e-5, 3e-5, 4e-5, 5e-5]")
    runs = {0: [Run(200), *GOOD], **{cell: [*GOOD, Run(305)] for cell in range(1, 5)}}
    assert failures.sentences(found_of(tmp_path / "four", text, runs))[0] == (
        "No significant difference in failure rate in 4 of 4 comparisons by axis (adjusted p of 0.05 or more)."
    )
    two = {cell: of_cell[:2] for cell, of_cell in runs.items()}
    assert failures.sentences(found_of(tmp_path / "two", text.replace("1..4", "1..2"), two))[0] == (
        "Too few runs to show any difference in failure rate in 4 comparisons by axis."
    )


def test_spread_between_failed_and_successful(tmp_path):
    found = found_of(tmp_path, ONE.format(5), {0: [Run(200), Run(200), Run(340), Run(342), Run(344)]})
    assert spread.sentences(found) == [
        "In 1 cell most of the variance lies between failed and successful runs (100 % of it; "
        "the successful runs alone have sd 0.005)."
    ]
    one = found_of(tmp_path / "b", ONE.format(2), {0: [Run(200), Run(340)]})
    assert spread.sentences(one) == []  # between two runs all variance lies between failed and successful


def test_levels(tmp_path, mosbach):
    all_runs = (
        "with the failed runs, and the failures that so few runs may not have shown, the mean of all runs differs "
    )
    assert level.sentences(mosbach) == [
        "Of 1 pair of cells that differs only in lr, the mean score of the successful runs differs "
        "significantly in 0 (Welch, Holm-adjusted); 3 more, where a side has fewer than two successful runs or no "
        f"score differs, cannot be tested; {all_runs}in 0 of 1 (95 %, each pair on its own).",
        "1 run that diverged has no score: the means leave it out; in the median and other quantiles, P(better), the "
        "profile and the best of n it counts as the worst.",
    ]
    found = found_of(tmp_path, ARMS.format(3), {0: [Run(300), Run(301), Run(302)], 1: [Run(340), Run(342), Run(344)]})
    assert level.sentences(found) == [
        "Of 1 pair of cells that differs only in bias correction, the mean score of the successful runs differs "
        f"significantly in 1 (Welch, Holm-adjusted); {all_runs}in 0 of 1 (95 %, each pair on its own)."
    ]
    first = study_of(tmp_path / "a", ONE.format(3), {0: [Run(300), Run(301), Run(302)]}, "a")
    second = study_of(tmp_path / "b", ONE.format(3), {0: [Run(200), Run(300), Run(302)]}, "b")
    both = analyse(joined(first, second))
    assert "that differs only in the study" in level.sentences(both)[0]
    assert opening.answer(both)[1] == (
        "Failure rate by study: a@default: 0 of 3 (0 % [0, 56]), b@default: 1 of 3 (33 % [6, 79])."
    )


def test_277_examples_do_not_tell_but_losses_do(tmp_path):
    # The numbers of a plain loop with MiniLM on RTE: without correction .4729 and .5271, with it .5379 and .5307.
    text = HEAD + "lr: 1e-4\nbias_correction: [off, on]\nepochs: 3\nseeds: 1..2\n"
    runs = {0: [Run(131, 0.695), Run(146, 0.669)], 1: [Run(149, 0.429), Run(147, 0.395)]}
    found = found_of(tmp_path, text, runs, majority=146, examples=277)
    sample = dev_set.sampling(found).iloc[0]
    assert sample["error"] == pytest.approx(0.03, abs=1e-4)  # sqrt(.517 · .483 / 277)
    assert sample["apart"] == pytest.approx(1.96 * math.sqrt(2) * sample["error"])
    note = " ".join(dev_set.sentences(found))
    assert "this holds neither for means over seeds nor for runs on the same examples" in note
    assert (
        "Mean training loss in the last epoch 0.682 without bias correction, 0.412 with bias correction (their "
        "ranges do not overlap)." in note
    )
    texts = opening.answer(found)
    assert "off: 2 of 2 (100 %" in texts[1]
    assert "No recipe can be excluded from having the best mean score (95 %): the 2 cannot be distinguished." in texts
    # The two runs with correction are above by count; their losses say that they trained.
    assert not found.cells["near_chance"].any()


def test_losses_that_overlap_say_so(tmp_path):
    runs = {0: [Run(300, 0.3), Run(302, 0.5)], 1: [Run(304, 0.4), Run(306, 0.2)]}
    assert dev_set.sentences(found_of(tmp_path, ARMS.format(2), runs))[-1] == (
        "Mean training loss in the last epoch 0.400 without bias correction, 0.300 with bias correction (their ranges "
        "overlap)."
    )


def test_a_regression_has_no_noise_in_points(tmp_path):
    found = found_of(tmp_path, ONE.format(2), {0: [Run(score=0.7), Run(score=-0.1)]}, metric="pearson")
    assert not len(dev_set.sampling(found))
    said = dev_set.sentences(found)
    assert said[0] == "The sampling error of this metric on a finite dev set has no simple formula and is not given."
    assert not any("points" in sentence for sentence in said)


def test_counts_alone_leave_the_spread_unsplit(tmp_path):
    rows = imported_runs([0.7, 0.75, 0.8], correct=[280, 300, 320], dev_examples=[400] * 3)
    said = dev_set.sentences(analyse(import_of(tmp_path, [()], rows)))
    assert said[0].startswith(
        "A single accuracy near 0.75 on 400 dev examples has a sampling error (one standard deviation) "
    )
    assert "of 2.2 points. Of two single runs with independent errors, accuracies 6.0 points or more apart" in said[0]
    assert said[1].startswith("Only scores and numbers of examples are known, not single answers, so training noise")
    assert len(said) == 2


def test_the_share_of_the_dev_set_is_said_of_cells_without_failures(tmp_path):
    rng = np.random.default_rng(0)
    right = rng.random((2, 6, 400)) < 0.8
    runs = {cell: [Run(int(answers.sum())) for answers in right[cell]] for cell in (0, 1)}
    study = study_of(tmp_path, ARMS.format(6), runs)
    template = study.curves(0)
    labels = np.repeat([0, 1], 200)

    def load(row: int):
        answers = right.reshape(12, 400)[row]
        logits = np.where((np.arange(2) == labels[:, None]) == answers[:, None], 2.0, -2.0)
        return dataclasses.replace(template, logits=logits.astype(np.float32), labels=labels)

    found = analyse(dataclasses.replace(study, load=load))
    (share,) = dev_set.dev_share(found).to_dict("records")
    floor = found.noise_floor
    assert share["share"] == pytest.approx(
        1 - floor["training_variance"].sum() / (floor["observed"] ** 2).sum()  # every answer is a coin of its own
    )
    assert share["share_low"] < 0.5 < share["share_high"]
    (text,) = (text for text in opening.answer(found) if text.startswith("In the 2 cells where no run failed"))
    assert f"accounts for {100 * share['share']:.0f} % [" in text
    assert "most of" not in text  # the interval spans a half
    widest = next(text for text in dev_set.sentences(found) if text.startswith("At "))
    assert widest.startswith("At bias correction ")
    assert ", the cell with the widest spread and no failed run, accuracies have a standard deviation of " in widest
    failed = study_of(tmp_path / "b", ARMS.format(6), {cell: [Run(200), *of[1:]] for cell, of in runs.items()})
    assert not any("no run failed" in sentence for sentence in opening.answer(analyse(failed)))


def test_few_seeds(tmp_path):
    few = "0 failures in {0} seeds is compatible with a failure rate of up to {1} % (95 % CI)."
    for n, upper in ((2, 66), (5, 43), (9, 30)):
        found = found_of(tmp_path / str(n), ONE.format(n), {0: [Run(300 + i) for i in range(n)]})
        assert opening.answer(found)[-1] == few.format(n, upper)
        assert seed_budget.sentences(found)[0] == few.format(n, upper)
    found = found_of(tmp_path, ONE.format(10), {0: [Run(300 + i) for i in range(10)]})
    assert not any(sentence.startswith("0 failures") for sentence in everything(found))


def test_best_of_n(tmp_path):
    rows = imported_runs([0.7, 0.9, 0.8], test_score=[0.68, 0.80, 0.77])
    assert best_of_n.sentences(analyse(import_of(tmp_path, [()], rows))) == [
        "Reporting the best of 3 seeds instead of a single run changes the score by 0.100, from 0.800 to 0.900.",
        "Selection bias: the selected seed's dev score is too high by up to 0.050, measured on the test set.",
    ]
    rows = imported_runs([0.7, 0.9, 0.8], test_score=[0.6, 0.9, 0.8])
    assert len(best_of_n.sentences(analyse(import_of(tmp_path, [()], rows)))) == 1  # it was not too high


def failing(failed, n):
    return [Run(200)] * failed + [Run(300 + 2 * i) for i in range(n - failed)]


def test_the_budget_of_one_pair(tmp_path):
    found = found_of(tmp_path / "a", ARMS.format(10), {0: failing(7, 10), 1: failing(0, 10)})
    row = found.needed.iloc[0]
    assert row["failure_low"] < row["failure_assured"] < row["failure_high"]
    assert seed_budget.sentences(found)[0] == (
        f"Distinguishing the failure rates with a power of 80 % at the 5 % level takes about {row['failure_assured']} "
        f"seeds per cell ({row['failure_low']} to {row['failure_high']}; 10 now)."
    )
    assert seed_budget.sentences(found)[1].startswith("Distinguishing the means with ")
    found = found_of(tmp_path / "b", ARMS.format(10), {0: failing(2, 10), 1: failing(1, 10)})
    assert seed_budget.sentences(found)[0] == (
        f"How many seeds would distinguish the failure rates (at best {found.needed.iloc[0]['failure_low']}), 10 runs "
        "per cell cannot tell: the difference may be too small for 1,000 seeds, or none at all."
    )


def test_the_budget_of_several_pairs_names_the_largest(tmp_path):
    text = HEAD + "bias_correction: [off, on]\nlr: [1e-5, 2e-5, 3e-5, 4e-5]\nepochs: 3\nseeds: 1..10\n"
    study = found_of(tmp_path / "none", text, {}).study
    off = {dict(cell.axes)["lr"]: i for i, cell in enumerate(study.cells) if not dict(cell.axes)["bias_correction"]}
    on = {dict(cell.axes)["lr"]: i for i, cell in enumerate(study.cells) if dict(cell.axes)["bias_correction"]}
    counts = {1e-5: (10, 0), 2e-5: (7, 1), 3e-5: (6, 0), 4e-5: (3, 3)}
    runs = {cell: failing(counts[lr][arm], 10) for arm, of in enumerate((off, on)) for lr, cell in of.items()}
    found = found_of(tmp_path / "runs", text, runs)
    table = found.needed.set_index("cell")
    largest = table.loc[on[2e-5]]
    assert table.loc[on[3e-5], "failure_assured"] < largest["failure_assured"]
    assert seed_budget.sentences(found)[0] == (
        "Of 4 pairs of cells, 1 has enough seeds to distinguish their failure rates (power 80 %, 5 % level); 2 need "
        f"more, up to {largest['failure_assured']} seeds per cell ({found.study.cells[on[2e-5]].label}: "
        f"{largest['failure_low']} to {largest['failure_high']}, 10 now); for 1 these runs cannot tell how many it "
        "takes: the difference may be too small for 1,000 seeds, or none at all."
    )


def test_the_budget_counts_runs_of_each_quantity(tmp_path):
    diverged = [Run(diverged=True)] * 4
    found = found_of(tmp_path, ARMS.format(10), {0: diverged + failing(2, 6), 1: failing(0, 10)})
    row = found.needed.iloc[0]
    assert (row["mean_now"], row["failure_now"]) == (6, 10)
    budget = found.budget[found.budget["cell"] == 0].set_index("n")
    assert list(budget.index[budget["mean_now"]]) == [6]
    assert list(budget.index[budget["rate_now"]]) == [10]


def test_the_budget_of_crossed_seeds(tmp_path):
    text = HEAD + "lr: 1e-5\nepochs: 3\nseeds: [1]\ninit_seed: [1, 2, 3, 4]\norder_seed: [1, 2, 3]\n"
    runs = [Run(200 if i == 0 else 300 + 10 * i + j) for i in range(4) for j in range(3)]
    found = found_of(tmp_path, text, {0: runs})
    worth = found.budget.loc[found.budget["rate_now"], "n"].item()
    assert worth < 12
    assert seed_budget.sentences(found)[-1] == (
        "Runs that share parts of their seed are counted as the independent runs that they are worth: 12 runs as "
        f"{worth} ({found.study.cells[0].label}). Further seeds are meant to share none."
    )


def test_drivers_are_named_only_where_they_show(tmp_path, mosbach):
    (text,) = importance.sentences(mosbach)
    assert text in opening.answer(mosbach)
    assert text.startswith(
        "Settings that change the failure rate, all else equal: lr 2e-5 compared with 1e-5 +48 points [11, 77]. Lr × "
        "bias correction accounts for "
    )
    text = HEAD + "lr: [1e-5, 2e-5]\nepochs: [3, 4]\nseeds: 1..4\n"
    same = found_of(tmp_path, text, {cell: [Run(300), Run(310), Run(305), Run(315)] for cell in range(4)})
    assert importance.sentences(same) == ["Predictors of failure cannot be determined: 0 of 16 runs failed."]
    assert not any("of the variance of the score" in sentence for sentence in opening.answer(same))
    failed = found_of(tmp_path / "b", text, {cell: [Run(200, 0.69)] * 4 for cell in range(4)})
    assert importance.sentences(failed) == ["Predictors of failure cannot be determined: 16 of 16 runs failed."]


def test_seed_parts(tmp_path, mosbach):
    assert seed_parts.sentences(mosbach)[0].startswith(
        "One integer seeds head, data order and dropout of each run, so their"
    )
    text = HEAD + "lr: 1e-5\nepochs: 3\nseeds: [1]\ninit_seed: [1, 2, 3, 4]\norder_seed: [1, 2, 3]\n"
    sweep = sweep_of(tmp_path, text)
    runs = [Run(280 + 20 * seeds.init_seed + seeds.order_seed * seeds.init_seed % 3) for seeds in sweep.seeds]
    found = analyse(of_sweep(sweep, store_of(tmp_path, sweep, {0: list(runs)})))
    said = seed_parts.sentences(found)
    assert said[0].startswith("The head's initialisation is the seed component with the largest share of the ")
    assert "[" in said[0]
    assert "–" not in said[0].split("[")[1]  # the interval is known
    assert "Variance components are unknown: every run has the same outcome." in said  # of failing
    lacking = analyse(of_sweep(sweep, store_of(tmp_path / "b", sweep, {0: [None, *runs[1:]]})))
    assert seed_parts.sentences(lacking) == [
        "Variance components are unknown: not fully crossed: 1 of 12 combinations are missing."
    ]


def test_multiplicity_counts(tmp_path, mosbach):
    assert opening.multiplicity(mosbach).startswith(
        f"{mosbach.comparisons} hypotheses were tested (failure rates by axis"
    )
    found = found_of(tmp_path, ARMS.format(1), {0: [Run(200)], 1: [Run(300)]})
    n = found.comparisons
    assert opening.multiplicity(found).startswith(f"{n} {'hypothesis was' if n == 1 else 'hypotheses were'} tested")


SHAPES = {
    "mosbach": (MOSBACH, MOSBACH_RUNS), "nothing": (MOSBACH, {}), "one": (ONE.format(1), {0: [Run(300)]}),
    "one failed": (ONE.format(1), {0: [Run(200)]}), "diverged": (ONE.format(2), {0: [Run(diverged=True)] * 2}),
    "half": (ARMS.format(4), {0: [Run(300), Run(200), None, Run(crashed="x")]}),
    "equal": (ARMS.format(3), {0: [Run(300)] * 3, 1: [Run(300)] * 3}),
    "regression": (ARMS.format(2), {0: [Run(score=0.5), Run(score=-0.1)], 1: [Run(score=0.9), Run(score=0.8)]}),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_sentences_are_sentences(tmp_path, name):
    found = found_of(tmp_path, *SHAPES[name])
    for sentence in everything(found):
        assert sentence[0].isupper() or sentence[0].isdigit(), sentence
        assert sentence.endswith("."), sentence
        assert "  " not in sentence
        for wrong in (" nan", "NaN", "inf ", "None", " –)", "sd –", "-0", " 1 runs", " 1 seeds", "1 pairs", "1 cells",
                      "1 hypotheses", "_"):  # fmt: skip
            assert wrong not in sentence.replace("`init_seed: 1..5`, `order_seed: 1..5`", ""), sentence
