"""What a diagnosis says, held against its tables; and the proposed sweep, which must load and be what it says."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from diagnosed_runs import FINE, GONE, RUNS, SMALL, TEXT
from made_runs import HEAD, Run, study_of

from harness.analysis import analyze
from harness.analysis.analyze import Analysis
from harness.config.sweep_file import load
from harness.report.sections import diagnosis


def analysed(folder: Path, runs: Mapping[int, list[Run | None]] = RUNS, text: str = TEXT) -> Analysis:
    return analyze.analyse(study_of(folder, text, runs))


def test_the_failed_runs_are_put_into_words(tmp_path: Path) -> None:
    first, second = diagnosis.reasons(analysed(tmp_path))
    assert first == (
        "6 of 14 finished runs failed: 4 without having fitted the training data (loss in the last epoch above half of "
        "the labels' entropy: optimisation failed); 1 with the training data fitted, and no better than the majority "
        "on the dev set (generalisation failed); 1 diverged."
    )
    assert second == (
        "Vanishing gradients: in 4 of 6 recorded failed runs the gradient norm of at least half of the 2 layers fell "
        "below 10 % of the median of runs that learn, and stayed there to the end; by update 51 in the median (51 to "
        "51), in 2 layers in the median."
    )


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ({0: [FINE, FINE]}, ["No run failed, so there is nothing to explain."]),
        ({0: [Run(205, loss=0.69), FINE]}, ["No run failed, so there is nothing to explain; 1 run ended at chance."]),
        ({}, []),
    ],
)
def test_where_nothing_failed(tmp_path: Path, runs: Mapping[int, list[Run | None]], said: list[str]) -> None:
    assert diagnosis.reasons(analysed(tmp_path, runs)) == said


def test_what_is_not_known_is_said_to_be(tmp_path: Path) -> None:
    words = diagnosis.words(analysed(tmp_path, {0: [Run(300), Run(200, loss=0.69)]}))
    assert any("How the failed runs trained was not recorded" in sentence for sentence in words)
    words = diagnosis.words(analysed(tmp_path / "all", {0: [GONE, GONE]}))
    assert any("No run learned, so that there is nothing to hold" in sentence for sentence in words)
    assert any("No run learned: there is nothing to tell apart early" in sentence for sentence in words)
    words = diagnosis.words(analysed(tmp_path / "one", {0: [GONE, FINE]}))
    assert any("takes two cells or more" in sentence for sentence in words)
    words = diagnosis.words(analysed(tmp_path / "fits", {0: [SMALL, FINE, FINE, FINE]}))
    assert any("Vanishing gradients: in none of 1 recorded failed run" in sentence for sentence in words)


def test_gradients_and_sizes_in_words(tmp_path: Path) -> None:
    found = analysed(tmp_path)
    (said,) = diagnosis.gradients(found)
    assert "at 51 % of training the median gradient of 2 runs that failed or ended at chance lies 4.0 orders" in said
    assert "below that of 2 others, in the cells with both outcomes (0.0001 against 1)" in said
    assert "At the end it is 4.0 in “embeddings” and 0.0 in “head”" in said
    (said,) = diagnosis.sizes(found)
    assert re.search(r"largest effective update is 6\.5\d times .* at update 11 of 100; with it, 1\.00 times", said)


def test_the_rule_in_words(tmp_path: Path) -> None:
    runs = {0: [FINE, GONE, GONE, FINE], 1: [FINE, FINE, GONE, FINE], 2: [GONE] * 4, 3: [FINE] * 4}
    found = analysed(tmp_path, runs)
    rule, stopping, within = diagnosis.warning(found)
    assert within.startswith(
        "Among runs of one recipe the earliest to tell is the training loss: from 2.5 % of training"
    )
    assert "caught 7 of 7 (100 % [65, 100]) of the lost runs, with 0 of 9 (0 % [0, 30]) false alarms" in rule
    assert "Of pairs of runs of one cell the signal puts 100 % in the right order there." in rule
    assert stopping.startswith("Stopping by it would have ended 7 runs (0 wrongly) and saved 43 % of the training time")
    assert "the mean score of what is left lies 12.5 points above that of all runs at most" in stopping


# ------------------------------------------------------------------------------------------------ the next experiment


def test_the_next_sweep_loads_and_holds_what_was_not_tried(tmp_path: Path) -> None:
    found = analysed(tmp_path)
    proposed = diagnosis.next_sweep(found)
    assert proposed is not None
    sentence, text = proposed
    path = tmp_path / "next.yaml"
    path.write_text(text)
    sweep = load(path)
    worst = found.study.sweeps[0].cells[2].recipe  # all four failed
    assert sweep.cells[0].recipe == worst
    named = {str(dict(cell.axes)["recipe"]): cell.recipe for cell in sweep.cells}
    assert list(named) == ["as it is", "longer warm-up", "more epochs"]  # correction and half the rate were tried
    assert named["longer warm-up"] == worst.model_copy(update={"warmup_ratio": 0.3})
    assert named["more epochs"] == worst.model_copy(update={"epochs": 10})
    assert "“lr 2e-5, bias correction off”, 4 of 4 (100 % [51, 100])" in sentence
    assert "Not tried there yet: longer warm-up, more epochs." in sentence
    assert f"{len(sweep.seeds)} seeds a cell tell 100 % failed runs from half of that" in sentence


def test_the_next_sweep_keeps_everything_else_of_the_recipe(tmp_path: Path) -> None:
    text = (
        'title: "A: \\"quoted\\""\nstand_in: not BERT\n'
        "task: {name: good, files: {train: a.tsv, validation: b.tsv}, text: t, label: 1, header: off}\n"
        "model: {name: m, folder: ./m}\nlr: 1e-3\nbias_correction: off\nepochs: 2\nmax_grad_norm: null\n"
        "dropout: 0.2\nseeds: 1..3\n"
    )
    found = analysed(tmp_path, {0: [Run(200), Run(200), Run(300)]}, text)
    proposed = diagnosis.next_sweep(found)
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
    proposed = diagnosis.next_sweep(analysed(tmp_path, {0: [Run(200)] * 8, 1: [Run(300)] * 8}, text))
    assert proposed is not None
    assert proposed[0].startswith(
        "The cell that fails most is “bias correction off”, 8 of 8 (100 % [68, 100]). All else equal fewer fail in "
        "this sweep with bias correction on (0 of 8). Not tried there yet: "
    )


def test_no_next_sweep_where_nothing_failed(tmp_path: Path) -> None:
    assert diagnosis.next_sweep(analysed(tmp_path, {0: [FINE, FINE]})) is None
