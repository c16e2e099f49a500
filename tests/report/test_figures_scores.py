import pytest
from drawn_figures import GRID, drawn, marks, words
from made_runs import HEAD, Run, import_of, imported_runs, study_of
from matplotlib.collections import LineCollection

from harness.analysis.analyze import analyse


def test_every_finished_run_is_a_mark(drawings):
    means = 7  # of the eight cells one has a single score, which is its own mean
    assert marks(drawings["spread"]) == 22 + means
    assert "✕3" in words(drawings["spread"])
    assert words(drawings["spread"]).count("n=3") == 6
    assert "diverged run (failed, no score)" in words(drawings["spread"])
    assert "near chance (not counted as failed)" in words(drawings["spread"])


def test_the_mean_has_its_interval(mosbach, drawings):
    spans = {
        tuple(segment[:, 1])
        for ax in drawings["spread"].axes
        for found in ax.findobj(LineCollection)
        for segment in found.get_segments()
    }
    known = mosbach.level.dropna(subset=["mean_low", "mean_high"])
    known = known[known["scored"] > 1]
    assert len(known) > 3
    assert set(zip(known["mean_low"], known["mean_high"], strict=True)) <= spans


@pytest.mark.parametrize(("scores", "arrows"), [((300, 310, 330, 320), 0), ((300, 380), 1)])
def test_intervals_of_means_are_whole_or_end_in_arrows(tmp_path, scores, arrows):
    """Of two far scores the interval of the mean is many times as wide as the scores reach."""
    study = study_of(tmp_path, HEAD + "lr: [1e-5, 2e-5]\nepochs: 3\nseeds: 1..4\n", {0: [Run(s) for s in scores]})
    (ax,) = drawn(study, ["spread"])["spread"].axes
    level = analyse(study).level.iloc[0]
    low, high = ax.get_ylim()
    assert (low > level["mean_low"]) + (high < level["mean_high"]) == arrows
    ends = [line.get_marker() for line in ax.lines if line.get_marker() in ("v", "^")]
    assert len(ends) == arrows


def test_boxes_only_from_five_scores_on(tmp_path):
    text = HEAD + "lr: [1e-5, 2e-5]\nepochs: 3\nseeds: 1..5\n"
    runs = {0: [Run(300 + i) for i in range(5)], 1: [Run(300 + i) for i in range(4)]}
    assert len(drawn(study_of(tmp_path, text, runs))["spread"].axes[0].patches) == 1


def test_the_box_of_a_lone_arm_stands_over_its_own_runs(tmp_path):
    """Where one arm of a panel alone has scores enough for a box, which seaborn would set on the tick, over both."""
    text = HEAD + "lr: 1e-5\nbias_correction: [off, on]\nepochs: 3\nseeds: 1..5\n"
    runs = {0: [Run(300 + i) for i in range(5)], 1: [Run(300 + i) for i in range(2)]}
    axes = drawn(study_of(tmp_path, text, runs))["spread"].axes[0]
    (box,) = axes.patches
    (middle,) = {round(float(box.get_path().get_extents().x0 + box.get_path().get_extents().x1) / 2, 6)}
    marks = [collection.get_offsets()[:, 0] for collection in axes.collections if len(collection.get_offsets()) == 5]
    assert abs(float(marks[0].mean()) - middle) < 0.05
    assert box.get_path().get_extents().width < 0.5


def test_tasks_with_their_own_majority_get_their_own_line(tmp_path):
    text = "task: [rte, mrpc]\nmodel: embedded\nlr: 1e-5\nepochs: 3\nseeds: 1..2\n"
    made = study_of(tmp_path, text, {0: [Run(300), Run(310)], 1: [Run(300), Run(310)]})
    made.runs.loc[made.runs["cell"] == 1, "majority_score"] = 0.684
    found = drawn(made)
    heights = [
        segment[0, 1] for lines in found["spread"].axes[0].findobj(LineCollection) for segment in lines.get_segments()
    ]
    assert {0.5, 0.684} <= set(heights)
    assert "majority class" not in words(found["performance_profile"])  # there is not one line


def test_losses_over_orders_of_magnitude_get_logarithms_and_say_that_lower_is_better(tmp_path):
    def perplexity(cell, seed):
        return None if (cell, seed) == (5, 0) else 10.0 ** (cell / 2 + 1) + seed

    cells = [
        row | ({"status": "finished", "metric": "ppl"} if row["status"] == "missing" else {})
        for cell in range(6)
        for row in imported_runs([perplexity(cell, seed) for seed in range(5)], cell)
    ]
    made = import_of(tmp_path, GRID, cells, metric="ppl", higher_is_better=False)
    made.runs["metric"] = "ppl"
    found = drawn(made)
    ax = found["spread"].axes[0]
    assert ax.get_yscale() == "log"
    assert "lower is better" in words(found["performance_profile"])
    triangles = [group for group in ax.collections if len(group.get_offsets()) == 1 and group.get_clip_on() is False]
    assert len(triangles) == 1  # the run that diverged stands where scores are worst
    assert triangles[0].get_offsets()[0, 1] == made.runs["final_score"].max()


def test_failure_rates_say_counts_and_what_is_lacking(drawings):
    said = words(drawings["failure_rates"])
    assert "3/3" in said
    assert "2/3, 1 near chance" in said
    assert "0/1 (+1 crashed, 1 missing)" in said
    assert "2e-5 · off · 10" in said


def test_the_profile_has_a_line_a_value_and_a_tick_a_run(drawings):
    ax = drawings["performance_profile"].axes[0]
    ticks = [line for line in ax.lines if line.get_marker() == "|"]
    assert [len(line.get_xdata()) for line in ticks] == [12, 9]  # of 23 finished runs one diverged and one crashed
    assert "lr 2e-5 (n = 9)" in words(drawings["performance_profile"])
    assert "majority class" in words(drawings["performance_profile"])
    assert len(ax.collections) == 2  # bands
