"""The proposed sweep: it must load, and be what its sentence says."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from diagnosed_runs import FINE, RUNS, TEXT
from made_runs import HEAD, Run, import_of, imported_runs, study_of

from harness.analysis import analyze
from harness.analysis.analyze import Analysis
from harness.common.text import show
from harness.config.sweep_file import load
from harness.report import next_experiment
from harness.report.axis_advice import AxisProfile, advise
from harness.report.next_experiment import more_seeds, next_sweep


def analysed(folder: Path, runs: Mapping[int, list[Run | None]] = RUNS, text: str = TEXT) -> Analysis:
    return analyze.analyse(study_of(folder, text, runs))


def test_the_next_sweep_loads_and_holds_what_was_not_tried(tmp_path: Path) -> None:
    found = analysed(tmp_path)
    proposed = next_sweep(found)
    assert proposed is not None
    sentence, text = proposed
    path = tmp_path / "next.yaml"
    path.write_text(text)
    sweep = load(path)
    worst = found.study.sweeps[0].cells[2].recipe  # all four failed
    assert sweep.cells[0].recipe == worst
    named = {str(dict(cell.axes)["recipe"]): cell.recipe for cell in sweep.cells}
    assert list(named) == ["as it is", "longer warm-up", "lr 5e-6", "more epochs"]  # correction was tried
    assert named["lr 5e-6"] == worst.model_copy(update={"lr": 5e-6})  # half the rate was tried, and failed as well
    assert named["longer warm-up"] == worst.model_copy(update={"warmup_ratio": 0.3})
    assert named["more epochs"] == worst.model_copy(update={"epochs": 10})
    assert "“lr 2e-5, bias correction off”: 4 of 4 (100 % [51, 100])" in sentence
    assert "Not tried there yet: longer warm-up, lr 5e-6, more epochs." in sentence
    assert f"{len(sweep.seeds)} seeds per cell distinguish a failure rate of 100 % from half of that" in sentence


def test_the_next_sweep_keeps_everything_else_of_the_recipe(tmp_path: Path) -> None:
    text = (
        'title: "A: \\"quoted\\""\nstand_in: not BERT\n'
        "task: {name: good, files: {train: a.tsv, validation: b.tsv}, text: t, label: 1, header: off}\n"
        "model: {name: m, folder: ./m}\nlr: 1e-3\nbias_correction: off\nepochs: 2\nmax_grad_norm: null\n"
        "dropout: 0.2\nseeds: 1..3\n"
    )
    found = analysed(tmp_path, {0: [Run(200), Run(200), Run(300)]}, text)
    proposed = next_sweep(found)
    assert proposed is not None
    path = tmp_path / "next.yaml"
    path.write_text(proposed[1])
    sweep = load(path)
    assert sweep.cells[0].recipe == found.study.sweeps[0].cells[0].recipe
    assert sweep.stand_in == "not BERT"
    assert sweep.title.startswith('A: "quoted"')
    assert [dict(cell.axes)["recipe"] for cell in sweep.cells] == [
        "as it is", "bias correction", "longer warm-up", "half the rate", "more epochs",
    ]  # fmt: skip


def test_what_already_helped_is_said(tmp_path: Path) -> None:
    text = HEAD + "lr: 1e-5\nbias_correction: [off, on]\nepochs: 5\nseeds: 1..8\n"
    proposed = next_sweep(analysed(tmp_path, {0: [Run(200)] * 8, 1: [Run(300)] * 8}, text))
    assert proposed is not None
    assert proposed[0].startswith(
        "The cell that fails most often is “bias correction off”: 8 of 8 (100 % [68, 100]). All else equal, fewer runs "
        "fail in this sweep with bias correction on (0 of 8). Not tried there yet: "
    )


def test_an_only_recipe_is_not_the_one_that_fails_most_often(tmp_path: Path) -> None:
    proposed = next_sweep(
        analysed(tmp_path, {0: [Run(200), FINE, FINE, FINE]}, HEAD + "lr: 1e-5\nepochs: 5\nseeds: 1..4\n")
    )
    assert proposed is not None
    assert proposed[0].startswith("The only recipe failed in 1 of 4 (25 % [5, 70]) runs. Not tried there yet: ")


def test_no_next_sweep_where_nothing_failed(tmp_path: Path) -> None:
    assert next_sweep(analysed(tmp_path, {0: [FINE, FINE]})) is None


def along(failed: Mapping[str, int], runs: int = 5) -> tuple[str, list[str]]:
    """The reason that is given and the learning rates to try, where so many of the runs fail at each rate."""
    rates, counts = tuple(map(float, failed)), tuple(failed.values())
    advice = advise(AxisProfile("lr", rates, counts, (runs,) * len(rates)), next_experiment.RATE)
    return advice.reason.removeprefix("All else equal, "), [show(value) for value in advice.values]


def test_where_larger_rates_fail_less_a_larger_one_is_tried() -> None:
    reason, rates = along({"5e-4": 5, "1e-3": 5, "0.01": 1})
    assert rates == ["0.02"]
    assert reason == (
        "5 of 5, 5 of 5 and 1 of 5 runs fail at lr 5e-4, 1e-3 and 0.01 (exact test of no difference, p = 0.011): "
        "fewer at larger lr, so 0.02 would come next."
    )


def test_where_larger_rates_fail_more_a_smaller_one_is_tried() -> None:
    reason, rates = along({"1e-4": 1, "5e-4": 5, "1e-3": 5})
    assert rates == ["5e-5"]
    assert reason.endswith("fewer at smaller lr, so 5e-5 would come next.")


@pytest.mark.parametrize(
    ("failed", "shape"),
    [
        ((5, 5, 0), "fewer at larger lr, where none failed; no other lr is proposed."),
        ((0, 5, 5), "fewer at smaller lr, where none failed; no other lr is proposed."),
        ((0, 5, 0), "most in the middle, where none failed; no other lr is proposed."),
        ((5, 0, 5), "fewest at lr 5e-4, between values that fail more, where none failed; no other lr is proposed."),
    ],
)
def test_no_rate_is_tried_where_one_without_a_failure_is_there(failed: tuple[int, ...], shape: str) -> None:
    reason, rates = along(dict(zip(("1e-4", "5e-4", "1e-3"), failed, strict=True)))
    assert reason.endswith(shape)
    assert not rates


def test_failures_in_the_middle_or_at_both_ends() -> None:
    rates = ("1e-4", "5e-4", "1e-3", "5e-3")
    peak = along(dict(zip(rates, (1, 8, 8, 1), strict=True)), runs=8)
    assert peak[1] == ["5e-5", "0.01"]
    assert peak[0].endswith("most in the middle, so 5e-5 and 0.01 would come next.")
    valley = along(dict(zip(rates, (8, 8, 1, 8), strict=True)), runs=8)
    assert valley[1] == ["7.1e-4", "2.2e-3"]  # halfway in the logarithm
    assert valley[0].endswith("fewest at lr 1e-3, between values that fail more, so 7.1e-4 and 2.2e-3 would come next.")


def test_where_all_rates_fail_alike_both_directions_are_open() -> None:
    reason, rates = along({"1e-4": 5, "5e-4": 5, "1e-3": 5})
    assert rates == ["5e-5", "2e-3"]
    assert reason.endswith("p = 1): no effect of lr is shown, so 5e-5 and 2e-3 would come next.")


def test_few_runs_decide_nothing() -> None:
    reason, rates = along({"1e-4": 0, "5e-4": 0, "1e-3": 2}, runs=3)
    assert not rates  # below the rate that fails, two without a failure are there already
    assert reason.endswith("p = 0.25): no effect of lr is shown, and no other lr is proposed.")


def test_a_single_rate_is_halved() -> None:
    assert along({"1e-4": 5}) == ("", ["5e-5"])


def test_the_whole_axis_of_a_study_is_looked_at_all_else_equal(tmp_path: Path) -> None:
    text = HEAD + "lr: [5e-4, 1e-3, 0.01]\nbias_correction: [on, off]\nepochs: 5\nseeds: 1..5\n"
    runs = {0: [Run(200)] * 5, 2: [Run(200)] * 5, 4: [Run(200), *[Run(300)] * 4]}
    proposed = next_sweep(analysed(tmp_path, runs | {1: [Run(300)] * 5, 3: [Run(300)] * 5, 5: [Run(300)] * 5}, text))
    assert proposed is not None
    assert "5 of 5, 5 of 5 and 1 of 5 runs fail at lr 5e-4, 1e-3 and 0.01 (exact" in proposed[0]
    assert "  lr 0.02: {" in proposed[1]
    assert "2.5e-4" not in proposed[1]


def test_what_a_sweep_file_would_refuse_is_not_proposed(tmp_path: Path) -> None:
    # Half the rate would end above where it began.
    text = HEAD + "lr: 1e-4\nepochs: 5\nseeds: 1..5\nschedule: polynomial\nschedule_end: 6e-5\n"
    proposed = next_sweep(analysed(tmp_path, {0: [Run(200)] * 5}, text))
    assert proposed is not None
    assert "half the rate" not in proposed[1]


def test_of_cells_that_fail_alike_the_one_of_most_runs_is_taken(tmp_path: Path) -> None:
    text = HEAD + "lr: [1e-5, 2e-5]\nepochs: 5\nseeds: 1..6\n"
    proposed = next_sweep(analysed(tmp_path, {0: [Run(200)], 1: [Run(200)] * 6}, text))
    assert proposed is not None
    assert "“lr 2e-5”: 6 of 6" in proposed[0]


def imported(folder: Path, *fates: str) -> Analysis:
    """An import whose cells have runs that failed (`x`) or not (`.`)."""
    rows = [
        row
        for cell, of in enumerate(fates)
        for row in imported_runs(
            [0.5 if fate == "x" else 0.8 for fate in of],
            cell,
            outcome=["failed" if fate == "x" else "ok" for fate in of],
            majority_score=[0.5] * len(of),
        )
    ]
    return analyze.analyse(import_of(folder, [(("lr", rate),) for rate in (1e-5, 2e-5, 3e-5)[: len(fates)]], rows))


def test_of_imported_runs_the_cells_that_need_seeds_are_named(tmp_path: Path) -> None:
    advice = more_seeds(imported(tmp_path / "two", "." * 20, "xx.x.", "x...."))
    assert advice == (
        "Not every failure rate is known within ±15 points by an interval that holds however often one looks. Add "
        "5 seeds to 2 cells of 3 (lr 2e-5; lr 3e-5), import the runs again and look again."
    )
    advice = more_seeds(imported(tmp_path / "all", "x.", ".."))
    assert advice.startswith("No failure rate is known within ±15 points")
    assert "Add 5 seeds to each of the 2 cells, import" in advice
    assert more_seeds(imported(tmp_path / "none", "." * 20, "." * 20)) == ""
    scores = import_of(tmp_path / "unjudged", [(("lr", 1e-5),)], imported_runs([0.5, 0.6]))
    assert more_seeds(analyze.analyse(scores)) == ""  # it isn't known whether they failed
    assert more_seeds(analysed(tmp_path / "own")) == ""  # has a sweep to copy
