"""Figures that only some studies have: many runs, two long axes, many axes, both outcomes, shared seeds."""

import numpy as np
import pandas as pd
import pytest
from drawn_figures import theirs, words
from made_runs import HEAD, Run, study_of
from matplotlib.collections import LineCollection, PathCollection, QuadMesh

from harness.analysis.analyze import analyse
from harness.report.figures import distributions, failure_map, outcome_curves, parallel, seed_ranks, variance

CELLS = tuple((("lr", lr), ("epochs", epochs)) for lr in (1e-5, 1e-4, 1e-3) for epochs in (3, 1, 10))


def failing(cell: int, seed: int) -> float:
    """The larger the rate, the more runs fail."""
    return 0.6 if seed < 2 * (cell // 3) else 0.7 + 0.01 * seed


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    return analyse(theirs(tmp_path_factory.mktemp("grid"), CELLS, failing, seeds=20))


def array_of(ax) -> np.ndarray:
    (mesh,) = ax.findobj(QuadMesh)
    return np.ma.filled(mesh.get_array().astype(float), np.nan)


def test_half_violins_stand_over_every_run(grid):
    figure = distributions.distributions(grid)
    ax = figure.axes[0]
    assert sum(len(marks.get_offsets()) for marks in ax.findobj(PathCollection)) == 180
    assert len([band for band in ax.collections if not isinstance(band, PathCollection)]) == 9  # a density a cell
    medians = [float(line.get_xdata()[0]) for line in ax.lines]
    assert medians == pytest.approx(grid.cells["median"].tolist())
    assert "n=20, ✕4" in words(figure)


def test_a_density_is_that_of_scipy():
    from scipy.stats import gaussian_kde

    scores = np.random.default_rng(0).normal(0.8, 0.05, 200)
    x, height = distributions.density(scores)
    width = 0.9 * min(scores.std(ddof=1), np.subtract(*np.percentile(scores, [75, 25])) / 1.34) * 200**-0.2
    theirs = gaussian_kde(scores, bw_method=width / scores.std(ddof=1))(x)
    assert height == pytest.approx(theirs / theirs.max(), abs=1e-6)


def test_few_runs_have_no_density(tmp_path):
    assert distributions.distributions(analyse(theirs(tmp_path, CELLS, failing, seeds=19))) is None


def test_the_failure_map_has_rates_and_counts_in_the_order_of_the_values(grid):
    ax = failure_map.failure_map(grid).axes[0]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["1e-5", "1e-4", "1e-3"]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["1", "3", "10"]
    assert array_of(ax).reshape(3, 3).tolist() == [[0, 0.1, 0.2]] * 3
    assert sorted(text.get_text() for text in ax.texts) == ["0/20"] * 3 + ["2/20"] * 3 + ["4/20"] * 3


def test_no_failure_map_of_short_axes_or_without_failures(tmp_path):
    short = tuple((("lr", lr), ("epochs", epochs)) for lr in (1e-5, 1e-4, 1e-3) for epochs in (3, 1))
    assert failure_map.failure_map(analyse(theirs(tmp_path, short, failing, seeds=3))) is None
    fine = analyse(theirs(tmp_path, CELLS, lambda cell, seed: 0.8, seeds=2))
    assert failure_map.failure_map(fine) is None


def test_parallel_lines_go_from_the_settings_to_the_score(tmp_path):
    axes = [(a, b, c, d) for a in (1e-5, 1e-4) for b in (1, 2) for c in ("x", "y") for d in (True, False)]
    cells = tuple(tuple(zip(("lr", "epochs", "kind", "on"), values, strict=True)) for values in axes)
    made = analyse(theirs(tmp_path, cells, lambda cell, seed: 0.5 + 0.02 * cell, seeds=2))
    figure = parallel.parallel(made)
    ax = figure.axes[0]
    lines = [line for group in ax.findobj(LineCollection) for line in group.get_segments()]
    assert len(lines) == 32
    assert all(len(line) == 5 for line in lines)
    scores = sorted(float(line[-1, 1]) for line in lines)
    assert scores == pytest.approx(sorted(np.repeat(np.arange(16) / 15, 2)))
    failed = [line for group in ax.collections if group.get_zorder() == 4 for line in group.get_segments()]
    assert len(failed) == int((made.runs["outcome"] == "failed").sum())
    assert {"1e-5", "1e-4", "x", "y", "on", "off"} <= {text.get_text() for text in ax.texts}


def test_three_axes_have_no_parallel_lines(grid):
    assert parallel.parallel(grid) is None


def test_bands_of_curves_hold_the_median_of_each_outcome(tmp_path):
    text = HEAD + "lr: [1e-5, 2e-5]\nepochs: 3\nseeds: 1..16\n"
    made = analyse(study_of(tmp_path, text, {0: [Run(340)] * 16, 1: [Run(200, 0.693)] * 15 + [Run(diverged=True)]}))
    left, right = outcome_curves.outcome_curves(made).axes
    good, bad = left.lines[:2]
    assert (good.get_ydata()[-1], bad.get_ydata()[-1]) == (pytest.approx(0.85), pytest.approx(0.5))
    assert [len(ax.collections) for ax in (left, right)] == [2, 2]
    assert "failed or near chance (n = 16): median" in words(left.figure)
    few = analyse(study_of(tmp_path / "few", text, {0: [Run(340)] * 14, 1: [Run(200, 0.693)] * 15}))
    assert outcome_curves.outcome_curves(few) is None


def test_seeds_are_sorted_by_their_mean_rank(tmp_path):
    quality = {1: 3, 2: 0, 3: 4, 4: 1, 5: 2, 6: 5}  # the same in every cell
    made = analyse(theirs(tmp_path, CELLS, lambda cell, seed: 0.6 + 0.01 * cell + 0.05 * quality[seed + 1], seeds=6))
    figure = seed_ranks.seed_ranks(made)
    ax = figure.axes[0]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["2", "4", "5", "1", "3", "6"]
    assert array_of(ax).reshape(9, 6).tolist() == [[0, 0.2, 0.4, 0.6, 0.8, 1]] * 9
    crosses = sum(len(marks.get_offsets()) for marks in ax.findobj(PathCollection))
    assert crosses == int((made.runs["outcome"] == "failed").sum()) == 3


def test_too_few_seeds_or_cells_have_no_ranks(tmp_path):
    assert seed_ranks.seed_ranks(analyse(theirs(tmp_path / "a", CELLS[:2], failing, seeds=7))) is None
    assert seed_ranks.seed_ranks(analyse(theirs(tmp_path / "b", CELLS, failing, seeds=5))) is None


def test_crossed_seeds_have_no_ranks(grid):
    twice = grid.runs.assign(seed=pd.Series(np.repeat(np.arange(90), 2), index=grid.runs.index) % 10)
    assert seed_ranks.seed_ranks(type(grid)(**{**vars(grid), "runs": twice})) is None


def test_runs_that_all_failed_alike_have_neither_ranks_nor_densities(tmp_path):
    alike = analyse(theirs(tmp_path, CELLS, lambda cell, seed: 0.62, seeds=20))
    assert seed_ranks.seed_ranks(alike) is None
    assert distributions.distributions(alike) is None
    assert array_of(failure_map.failure_map(alike).axes[0]).ravel().tolist() == [1] * 9


def test_equal_scores_have_ticks_of_few_decimals(tmp_path):
    figure = variance.best_of_n(analyse(theirs(tmp_path, CELLS[:1], lambda cell, seed: 0.62, seeds=4)))
    figure.draw_without_rendering()
    assert max(len(tick.get_text()) for tick in figure.axes[0].get_yticklabels()) <= 5
