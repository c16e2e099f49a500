"""The proposed sweep: it must load, and be what its sentence says."""

from collections.abc import Mapping
from pathlib import Path

from diagnosed_runs import FINE, RUNS, TEXT
from made_runs import HEAD, Run, import_of, imported_runs, study_of

from harness.analysis import analyze
from harness.analysis.analyze import Analysis
from harness.config.sweep_file import load
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
    assert list(named) == ["as it is", "longer warm-up", "more epochs"]  # correction and half the rate were tried
    assert named["longer warm-up"] == worst.model_copy(update={"warmup_ratio": 0.3})
    assert named["more epochs"] == worst.model_copy(update={"epochs": 10})
    assert "“lr 2e-5, bias correction off”: 4 of 4 (100 % [51, 100])" in sentence
    assert "Not tried there yet: longer warm-up, more epochs." in sentence
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


def test_no_next_sweep_where_nothing_failed(tmp_path: Path) -> None:
    assert next_sweep(analysed(tmp_path, {0: [FINE, FINE]})) is None


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
