"""What a diagnosis says, held against its tables."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from diagnosed_runs import FINE, GONE, RUNS, SMALL, TEXT
from made_runs import Run, import_of, imported_runs, study_of

from harness.analysis import analyze
from harness.analysis.analyze import Analysis
from harness.report import diagnosis
from harness.report.sections import early_warning, gradients, reasons, update_sizes


def analysed(folder: Path, runs: Mapping[int, list[Run | None]] = RUNS, text: str = TEXT) -> Analysis:
    return analyze.analyse(study_of(folder, text, runs))


def test_the_failed_runs_are_put_into_words(tmp_path: Path) -> None:
    first, second = reasons.sentences(analysed(tmp_path))
    assert first == (
        "6 of 14 finished runs failed: 4 did not fit the training data (loss in the last epoch above half of the label "
        "entropy: optimisation failed); 1 fitted the training data but was no better than the majority on the dev set "
        "(generalisation failed); 1 diverged."
    )
    assert second == (
        "Vanishing gradients: in 4 of 6 recorded failed runs the gradient norm of at least half of the 2 layers fell "
        "below 10 % of the median of runs that learn and stayed there to the end; by update 51 in the median (51 to "
        "51), in 2 layers in the median."
    )


def test_failed_runs_of_a_regression_are_told_by_the_label_variance(tmp_path: Path) -> None:
    made = study_of(tmp_path, TEXT, {0: [Run(score=0.7, loss=0.2), Run(score=-0.2, loss=1.9)]}, metric="pearson")
    study = dataclasses.replace(made, runs=made.runs.assign(label_variance=2.0))
    said = reasons.sentences(analyze.analyse(study))[0]
    assert "1 did not fit the training data (loss in the last epoch above half of the label variance" in said
    assert "unknown" not in said


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ({0: [FINE, FINE]}, ["No run failed, so there is nothing to explain."]),
        ({0: [Run(205, loss=0.69), FINE]}, ["No run failed, so there is nothing to explain; 1 run is near chance."]),
        ({}, []),
    ],
)
def test_where_nothing_failed(tmp_path: Path, runs: Mapping[int, list[Run | None]], said: list[str]) -> None:
    assert reasons.sentences(analysed(tmp_path, runs)) == said


def test_what_is_not_known_is_said_to_be(tmp_path: Path) -> None:
    words = diagnosis.sentences(analysed(tmp_path, {0: [Run(300), Run(200, loss=0.69)]}))
    assert any("How the failed runs trained was not recorded" in sentence for sentence in words)
    words = diagnosis.sentences(analysed(tmp_path / "all", {0: [GONE, GONE]}))
    assert any("No run learned, so there is no reference for" in sentence for sentence in words)
    assert any("No recorded run learned, so there is nothing to compare" in sentence for sentence in words)
    words = diagnosis.sentences(analysed(tmp_path / "one", {0: [GONE, FINE]}))
    assert any("needs at least two cells" in sentence for sentence in words)
    words = diagnosis.sentences(analysed(tmp_path / "fits", {0: [SMALL, FINE, FINE, FINE]}))
    assert any("Vanishing gradients: in none of 1 recorded failed run" in sentence for sentence in words)


def test_gradients_and_sizes_in_words(tmp_path: Path) -> None:
    found = analysed(tmp_path)
    (said,) = gradients.sentences(found)
    assert said == (
        "The largest of many differences in gradient norm, none of them tested, is in “embeddings” at 51 % of training "
        "in the cells with both outcomes: a median of 0.0001 in 2 runs that failed or ended near chance and of 1 in "
        "2 others, 4.0 orders of magnitude lower in the former. At the end the failed runs' median is 4.0 orders of "
        "magnitude below the others' in “embeddings” and as high as the others' in “head”."
    )
    (said,) = update_sizes.sentences(found)
    assert re.search(r"largest effective update is 6\.5\d times .* at update 11 of 100; with it, 1\.00 times", said)


def test_the_rule_in_words(tmp_path: Path) -> None:
    runs = {0: [FINE, GONE, GONE, FINE], 1: [FINE, FINE, GONE, FINE], 2: [GONE] * 4, 3: [FINE] * 4}
    found = analysed(tmp_path, runs)
    rule, stopping = early_warning.sentences(found)  # seven pairs of runs of one recipe are too few to tell them apart
    assert "Over all cells together it caught 7 of 7 of those runs, with false alarms in 0 of 9 others; as the" in rule
    assert "The signal orders 100 % of 7 pairs of runs within a cell correctly." in rule
    assert stopping.startswith(
        "Stopping by this rule would have ended 7 runs (0 wrongly) and saved 43 % of the training time of the recorded "
        "runs"
    )
    assert "the mean score of the remaining runs would be at most 12.5 points above that of all runs" in stopping


def test_signals_within_recipes_and_runs_without_a_rule(tmp_path: Path) -> None:
    text = TEXT.replace("1..4", "1..8")
    told = early_warning.sentences(analysed(tmp_path, {0: [FINE, GONE] * 4, 1: [FINE] * 8, 2: [GONE] * 4}, text))
    assert told[-1] == (
        "Among runs of one recipe the earliest signal is the training loss: from 2.5 % of training on it orders "
        "100 % of 16 pairs of runs correctly."
    )
    learned = {0: [FINE, FINE], 1: [Run(200, loss=0.69), FINE]}  # the failed run is not recorded
    assert early_warning.sentences(analysed(tmp_path / "learned", learned)) == [
        "All recorded runs learned, so there is nothing to warn of."
    ]


def test_a_signal_that_tells_nothing_has_no_rule(tmp_path: Path) -> None:
    """Runs that end failed look like the others until the end."""
    same = Run(100, loss=0.3, gradients=(1.0, 1.0))  # as many answers of each class as FINE
    (none,) = early_warning.sentences(analysed(tmp_path, {0: [FINE, same, same, FINE], 1: [FINE, same, FINE, FINE]}))
    assert none == (
        "None of 195 rules on one signal detects at least 50 % of the runs that fail or end near chance with at most "
        "1 % false alarms, on cells it was not fitted to, before the end."
    )


def test_of_runs_that_nobody_judged_none_is_explained(tmp_path: Path) -> None:
    """One of two imported runs diverged; without a majority it is not known how many failed."""
    rows = imported_runs([0.8, 0.9])
    del rows[1]["final_score"]
    found = analyze.analyse(import_of(tmp_path, [()], rows))
    assert found.runs["verdict"].tolist() == ["unjudged", "diverged"]
    assert reasons.sentences(found) == []
