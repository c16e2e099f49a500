"""What a diagnosis says, held against its tables."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from diagnosed_runs import FINE, GONE, RUNS, SMALL, TEXT
from made_runs import Run, study_of

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
    assert any("No run learned, so there is nothing to compare" in sentence for sentence in words)
    words = diagnosis.sentences(analysed(tmp_path / "one", {0: [GONE, FINE]}))
    assert any("needs at least two cells" in sentence for sentence in words)
    words = diagnosis.sentences(analysed(tmp_path / "fits", {0: [SMALL, FINE, FINE, FINE]}))
    assert any("Vanishing gradients: in none of 1 recorded failed run" in sentence for sentence in words)


def test_gradients_and_sizes_in_words(tmp_path: Path) -> None:
    found = analysed(tmp_path)
    (said,) = gradients.sentences(found)
    assert "at 51 % of training the median gradient of 2 runs that failed or ended near chance is 4.0 orders" in said
    assert "below that of 2 others, in the cells with both outcomes (0.0001 vs. 1)" in said
    assert "At the end the difference is 4.0 in “embeddings” and 0.0 in “head”" in said
    (said,) = update_sizes.sentences(found)
    assert re.search(r"largest effective update is 6\.5\d times .* at update 11 of 100; with it, 1\.00 times", said)


def test_the_rule_in_words(tmp_path: Path) -> None:
    runs = {0: [FINE, GONE, GONE, FINE], 1: [FINE, FINE, GONE, FINE], 2: [GONE] * 4, 3: [FINE] * 4}
    found = analysed(tmp_path, runs)
    rule, stopping, within = early_warning.sentences(found)
    assert within.startswith(
        "Among runs of one recipe the earliest signal is the training loss: from 2.5 % of training"
    )
    assert "caught 7 of 7 (100 % [65, 100]) of those runs, with 0 of 9 (0 % [0, 30]) false alarms" in rule
    assert "The signal orders 100 % of pairs of runs within a cell correctly." in rule
    assert stopping.startswith(
        "Stopping by this rule would have ended 7 runs (0 wrongly) and saved 43 % of the training time"
    )
    assert "the mean score of the remaining runs would be at most 12.5 points above that of all runs" in stopping
