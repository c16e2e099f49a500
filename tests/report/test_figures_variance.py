import numpy as np
import pytest
from drawn_figures import GRID, drawn, words
from made_runs import HEAD, Run, import_of, imported_runs, study_of
from matplotlib.collections import PathCollection

from harness.analysis.analyze import analyse
from harness.report.figures import variance


def test_the_noise_floor_has_a_row_a_cell(mosbach, drawings):
    ax = drawings["noise_floor"].axes[0]
    assert len(ax.patches) == 8  # a bar is the error of one accuracy
    widths = sorted(bar.get_width() for bar in ax.patches)
    assert widths == pytest.approx(sorted(100 * mosbach.noise_floor["binomial"]))
    assert "n=3, 400" in words(drawings["noise_floor"])
    assert "counts" not in words(drawings["noise_floor"])


def test_rows_known_from_counts_alone_say_so(tmp_path):
    rows = [
        row for cell in range(6) for row in imported_runs([0.5, 0.6], cell, correct=[200, 240], dev_examples=[400, 400])
    ]
    figure = drawn(import_of(tmp_path, GRID, rows))["noise_floor"]
    notes = figure.axes[0].child_axes[0].get_yticklabels()
    assert [text.get_text() for text in notes] == ["n=2, 400 (counts)"] * 6
    assert "observed over seeds (counts only)" in words(figure)
    assert "infinite dev set" not in words(figure)


def test_the_best_of_n_starts_at_the_mean(mosbach, drawings):
    assert [ax.get_title() for ax in drawings["best_of_n"].axes] == ["epochs 3", "epochs 10"]
    lines = [line for ax in drawings["best_of_n"].axes for line in ax.lines]
    assert len(lines) == 8
    firsts = sorted(float(line.get_ydata()[0]) for line in lines)
    single = mosbach.best_of_n[mosbach.best_of_n["n"] == 1]  # the mean, with a run that diverged as the majority
    assert firsts == pytest.approx(sorted(single["unbiased"]))
    assert single["unbiased"].max() == pytest.approx(mosbach.cells["mean"].max())
    ticks = drawings["best_of_n"].axes[0].get_xticks()
    assert ticks[0] == 1
    assert all(tick == int(tick) for tick in ticks)


def test_the_seed_budget_marks_the_seeds_there_are(mosbach, drawings):
    left, right = drawings["seed_budget"].axes
    now = {float(x) for ax in (left, right) for found in ax.findobj(PathCollection) for x, _ in found.get_offsets()}
    assert now == {1.0, 2.0, 3.0}  # two cells have fewer than the others
    half = mosbach.budget.loc[mosbach.budget["mean_now"], "mean_half_width"]
    heights = sorted(float(y) for found in left.findobj(PathCollection) for _, y in found.get_offsets())
    assert heights == pytest.approx(sorted(100 * half[half > 0]))


def test_lines_of_the_seed_budget_are_named_at_their_ends_widest_first(tmp_path):
    text = HEAD + "lr: [1e-5, 2e-5, 3e-5, 4e-5, 5e-5, 6e-5, 7e-5]\nepochs: 3\nseeds: 1..4\n"
    spreads = {cell: [Run(300 + (cell + 1) * seed) for seed in range(4)] for cell in range(6)}
    made = analyse(study_of(tmp_path, text, spreads | {6: spreads[5]}))
    left, right = variance.seed_budget(made).axes
    names = [note.get_text() for note in left.texts]
    assert names == ["6e-5 +1 alike", "5e-5", "4e-5", "2e-5", "1e-5"]  # five of six lines
    heights = [note.xyann[1] for note in left.texts]
    assert heights == sorted(heights, reverse=True)
    assert np.diff(np.log(heights)).max() < -0.1  # none on another
    assert [note.get_text() for note in right.texts] == ["1e-5 +6 alike"]  # no run failed: one line
    assert len({line.get_color() for line in left.lines}) == 6  # five of their own, one grey


def test_importance_shows_each_term_and_p(mosbach, drawings):
    left, right = drawings["importance"].axes
    assert [bar.get_width() for bar in left.patches] == pytest.approx(
        mosbach.drivers_of_score["eta_squared"].fillna(0).tolist()
    )
    assert left.patches[-1].get_hatch()
    assert "residual" in words(drawings["importance"])
    assert len(right.patches) == 3
    assert "p = " in words(drawings["importance"]) or "p < 0.001" in words(drawings["importance"])


def test_half_of_the_importance_says_why_it_is_left_out(tmp_path):
    text = HEAD + "lr: [1e-5, 2e-5]\nepochs: 3\nseeds: 1..3\n"
    runs = {cell: [Run(300 + 10 * i + 40 * cell) for i in range(3)] for cell in range(2)}
    figure = drawn(study_of(tmp_path, text, runs))["importance"]
    assert "no run failed" in words(figure)
    assert len(figure.axes[1].patches) == 0
