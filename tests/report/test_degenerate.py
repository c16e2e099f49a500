"""Reports of studies in which there is next to nothing to compare: a page is always written, and its numbers hold."""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from made_runs import HEAD, Run, study_of
from read_page import holds

from harness.analysis.analyze import analyse
from harness.common import files
from harness.report import page
from harness.report.figures.diagnosis import gradient_norms
from harness.report.sections.reasons import sentences as reasons

_GRADIENTS = (1.0, 0.5)
GOOD = Run(300, gradients=_GRADIENTS)
AT_ONCE = Run(diverged=True, diverged_at=1, gradients=_GRADIENTS)  # no update was finite
SECOND = Run(diverged=True, diverged_at=2, gradients=_GRADIENTS)
CONSTANT = Run(200, 0.693, gradients=_GRADIENTS)  # one class predicted
ONE_CELL, TWO_CELLS = "lr: 1e-5\nepochs: 2\n", "lr: [1e-5, 2e-5]\nbias_correction: off\nepochs: 2\n"
FOUR_CELLS = "lr: [1e-5, 2e-5]\nbias_correction: [off, on]\nepochs: 2\n"


@dataclass(frozen=True)
class Degenerate:
    """A study of three seeds a cell, and what its page has to count: finished, failed, crashed and missing runs."""

    text: str
    runs: Mapping[int, list[Run | None]]
    counts: tuple[int, int, int, int]
    majority: int = 200
    examples: int = 400
    metric: str = "accuracy"


def each(run: Run | None, cells: int = 1, seeds: int = 3) -> dict[int, list[Run | None]]:
    return {cell: [run] * seeds for cell in range(cells)}


CASES = {
    "all diverged at once": Degenerate(FOUR_CELLS, each(AT_ONCE, 4), (12, 12, 0, 0)),
    "all diverged at once, one cell": Degenerate(ONE_CELL, each(AT_ONCE), (3, 3, 0, 0)),
    "all diverged in the second update": Degenerate(TWO_CELLS, each(SECOND, 2), (6, 6, 0, 0)),
    "diverged at once or not at all": Degenerate(TWO_CELLS, {0: [AT_ONCE] * 3, 1: [GOOD] * 3}, (6, 3, 0, 0)),
    "one diverged beside one that learned": Degenerate(ONE_CELL, {0: [AT_ONCE, GOOD, None]}, (2, 1, 0, 1)),
    "one run of all": Degenerate(TWO_CELLS, {1: [GOOD]}, (1, 0, 0, 5)),
    "one run of all, diverged": Degenerate(TWO_CELLS, {1: [AT_ONCE]}, (1, 1, 0, 5)),
    "one class predicted": Degenerate(TWO_CELLS, each(CONSTANT, 2), (6, 6, 0, 0)),
    "one class in dev": Degenerate(TWO_CELLS, each(Run(400), 2), (6, 6, 0, 0), majority=400),
    "one dev example": Degenerate(TWO_CELLS, {0: [Run(1)] * 3, 1: [Run(0)] * 3}, (6, 6, 0, 0), majority=1, examples=1),
    "no evaluation": Degenerate(TWO_CELLS, each(Run(300, every=0, gradients=_GRADIENTS), 2), (6, 0, 0, 0)),
    "no evaluation, diverged": Degenerate(
        ONE_CELL, each(Run(diverged=True, diverged_at=1, every=0, gradients=_GRADIENTS)), (3, 3, 0, 0)
    ),
    "an evaluation each update": Degenerate(TWO_CELLS, each(Run(300, every=1, gradients=_GRADIENTS), 2), (6, 0, 0, 0)),
    "one score": Degenerate(TWO_CELLS, each(GOOD, 2), (6, 0, 0, 0)),
    "all right": Degenerate(TWO_CELLS, each(Run(400, 0.0), 2), (6, 0, 0, 0)),
    "none right": Degenerate(TWO_CELLS, each(Run(0, 5.0), 2), (6, 6, 0, 0)),
    "a regression of one score": Degenerate(FOUR_CELLS, each(Run(score=0.0), 4), (12, 12, 0, 0), metric="pearson"),
    "all crashed": Degenerate(FOUR_CELLS, each(Run(crashed="E"), 4), (0, 0, 12, 0)),
    "nothing": Degenerate(FOUR_CELLS, {}, (0, 0, 0, 12)),
}


@pytest.mark.usefixtures("empty_pictures")
@pytest.mark.parametrize("name", CASES)
def test_a_page_is_written_and_counts(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    study = study_of(
        tmp_path, HEAD + case.text + "seeds: 1..3\n", case.runs, majority=case.majority, examples=case.examples,
        metric=case.metric,
    )  # fmt: skip
    made = page.write(study, tmp_path / "out")
    text, finished, failed, crashed, missing = holds(made), *case.counts
    planned = 3 * len(study.cells)
    assert f"= {planned}; {finished} finished, {crashed} crashed, {missing} missing." in text
    cells = made.summary["cells"]
    assert [sum(cell[key] or 0 for cell in cells) for key in ("finished", "failed", "crashed", "missing")] == [
        finished, failed, crashed, missing,
    ]  # fmt: skip
    assert sum(cell["planned"] for cell in cells) == planned == finished + crashed + missing
    if finished:
        assert re.search(rf"\b{failed} of {finished} finished runs? .*failed", text)


def test_runs_without_a_finite_gradient_are_counted_and_left_out(tmp_path: Path) -> None:
    some = analyse(study_of(tmp_path / "some", HEAD + TWO_CELLS + "seeds: 1..3\n", {0: [AT_ONCE, GOOD, GOOD]}))
    assert "1 recorded run had no finite gradient from 1 % of training on." in " ".join(reasons(some))
    figure = gradient_norms(some)
    assert figure is not None
    assert "1 without finite ones left out" in figure.get_suptitle()
    none = analyse(study_of(tmp_path / "none", HEAD + TWO_CELLS + "seeds: 1..3\n", {0: [AT_ONCE] * 3}))
    assert reasons(none)[-1] == "3 recorded runs had no finite gradient from 1 % of training on."
    assert gradient_norms(none) is None


def test_a_part_whose_gradients_are_zero_has_no_line(tmp_path: Path) -> None:
    still = Run(200, 0.693, gradients=(0.0, 0.0))  # of the layers; the head's are not
    figure = gradient_norms(analyse(study_of(tmp_path, HEAD + ONE_CELL + "seeds: 1..3\n", {0: [still, GOOD, None]})))
    assert figure is not None
    figure.draw_without_rendering()


@pytest.mark.usefixtures("no_figures")  # which have a test with thousands
def test_hundreds_of_cells_have_a_page_within_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the cells diverged and as many learned, none of them alike; what is cut is said."""
    monkeypatch.setattr(
        files, "write", lambda path, content, **how: path.write_bytes(content)
    )  # without waiting for disks
    rates = ", ".join(f"{number}e-7" for number in range(1, 261))
    diverged = Run(diverged=True, diverged_at=1)
    cell = {number: [diverged if number % 2 else Run(25 + number % 10)] for number in range(260)}
    text = HEAD + f"lr: [{rates}]\nepochs: 1\nseeds: 1..2\n"
    study = study_of(tmp_path, text, cell, majority=20, examples=40)
    began = time.process_time()
    made = page.write(study, tmp_path / "out")
    assert time.process_time() - began < 20  # a fifth of it on one core of 2025; sums over pairs grow quadratically
    text = holds(made)
    assert "= 520; 260 finished, 0 crashed, 260 missing." in text
    assert re.search(r"\b130 of 260 finished runs .*failed", text)
    assert "the answers of only the first 200 of 260 cells." in text
    assert made.page.stat().st_size < 10_000_000
    assert len(made.summary["cells"]) == 260
