import re
from pathlib import Path

import numpy as np
import pytest
from made_runs import HEAD, MOSBACH, MOSBACH_RUNS, Run, store_of, sweep_of
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from harness import analysis, figures
from harness.records import frame


def drawn(folder: Path, text: str, runs, **how) -> dict[str, Figure]:
    """All three figures of made-up runs, rendered as well, for some warnings come only then."""
    sweep = sweep_of(folder, text)
    store = store_of(folder, sweep, runs, **how)
    table = frame(sweep, store)
    arrays = {trial: found for trial in table["trial"] if (found := store.curves(trial)) is not None}
    result = dict(figures.draw(sweep, table, analysis.cells(sweep, table), arrays))
    for figure in result.values():
        figure.canvas.draw()
    return result


def words(figure: Figure) -> str:
    texts = [text.get_text() for text in figure.findobj(match=lambda artist: hasattr(artist, "get_text"))]
    return "\n".join(text for text in texts if text)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return drawn(tmp_path_factory.mktemp("study"), MOSBACH, MOSBACH_RUNS)


@pytest.mark.parametrize("name", ["spread", "failure_rates", "curves"])
def test_titles_say_the_stand_in(study, name):
    title = study[name].get_suptitle()
    assert title.startswith("Bias correction and rate: ")
    assert title.endswith("embedded stand-in, not BERT on RTE")


def test_layout_of_the_paper(tmp_path, study):
    assert figures.layout(sweep_of(tmp_path, MOSBACH)) == figures.Layout("lr", "bias_correction", ("epochs",))
    assert [ax.get_title() for ax in study["spread"].axes] == ["epochs 3", "epochs 10"]
    assert [text.get_text() for text in study["spread"].axes[0].get_xticklabels()] == ["1e-5", "2e-5"]


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        ("lr: 1e-5\nepochs: 3\n", figures.Layout(None, None, ())),
        ("lr: 1e-5\nepochs: [3, 10]\n", figures.Layout("epochs", None, ())),
        ("lr: 1e-5\nepochs: 3\nbias_correction: [off, on]\n", figures.Layout("bias_correction", None, ())),
        ("lr: [1e-5, 2e-5]\nepochs: [3, 10]\n", figures.Layout("lr", "epochs", ())),
        ("dropout: [0.0, 0.1]\nlr: [1e-5, 2e-5]\nepochs: [3, 10]\n", figures.Layout("lr", "dropout", ("epochs",))),
        (
            "dropout: [0.0, 0.1]\nlr: [1e-5, 2e-5]\nepochs: [3, 10]\nbias_correction: [off, on]\n",
            figures.Layout("lr", "bias_correction", ("epochs", "dropout")),
        ),
        ("lr: 1e-5\nrecipes: {usual: {epochs: 3}, more: {epochs: 20}}\n", figures.Layout("recipe", None, ())),
    ],
)
def test_layouts(tmp_path, axes, expected):
    sweep = sweep_of(tmp_path, HEAD + axes + "seeds: 1..2\n")
    assert figures.layout(sweep) == expected
    runs = {cell: [Run(300 + cell), Run(200, 0.693)] for cell in range(len(sweep.cells))}
    drawn(tmp_path, HEAD + axes + "seeds: 1..2\n", runs)


def marks(figure: Figure) -> int:
    """How many runs and means the spread shows."""
    return sum(len(found.get_offsets()) for ax in figure.axes for found in ax.findobj(PathCollection))


def test_every_finished_run_is_a_mark(study):
    means = 7  # of the eight cells one has a single score, which is its own mean
    assert marks(study["spread"]) == 22 + means
    assert "✕3" in words(study["spread"])
    assert "diverged run (failed, no score)" in words(study["spread"])
    assert "at chance (not failed, not trained)" in words(study["spread"])


def test_boxes_only_from_five_scores_on(tmp_path):
    text = HEAD + "lr: [1e-5, 2e-5]\nepochs: 3\nseeds: 1..5\n"
    runs = {0: [Run(300 + i) for i in range(5)], 1: [Run(300 + i) for i in range(4)]}
    assert len(drawn(tmp_path, text, runs)["spread"].axes[0].patches) == 1


def test_failure_rates_say_counts_and_what_is_lacking(study):
    said = words(study["failure_rates"])
    assert "3/3" in said
    assert "2/3, 1 at chance" in said
    assert "0/1 (+1 crashed, 1 missing)" in said
    assert "2e-5 · off · 10" in said


def test_curves_have_a_line_a_run(study):
    left, right = study["curves"].axes[0], study["curves"].axes[1]
    # Bias correction off, 3 epochs: three runs at each rate, and a line for the majority or the labels' entropy.
    assert (len(left.lines), len(right.lines)) == (7, 7)
    assert "bias correction on, epochs 3  (n = 4)" in words(study["curves"])


def test_curves_that_are_not_kept_are_said(tmp_path):
    sweep = sweep_of(tmp_path, HEAD + "lr: 1e-5\nepochs: 3\nseeds: 1..2\n")
    table = frame(sweep, store_of(tmp_path, sweep, {0: [Run(300), Run(310)]}))
    assert "(n = 2, 0 with curves)" in words(figures.curves(sweep, table, {}))


@pytest.mark.parametrize(
    "runs",
    [
        {},
        {0: [Run(crashed="x")]},
        {0: [Run(300)]},
        {0: [Run(diverged=True)] * 6},
        {0: [Run(200, 0.693)] * 6},
        {0: [Run(score=0.5), Run(score=-0.2)]},
    ],
)
def test_edges_are_drawn_without_a_warning(tmp_path, runs):
    text = HEAD + "lr: [1e-5, 2e-5]\nbias_correction: [off, on]\nepochs: 3\nseeds: 1..6\n"
    metric = "pearson" if runs and runs[0][0].score is not None else "accuracy"
    assert len(drawn(tmp_path, text, runs, metric=metric)) == 3


def test_tasks_with_their_own_majority_get_their_own_line(tmp_path):
    sweep = sweep_of(tmp_path, "task: [rte, mrpc]\nmodel: embedded\nlr: 1e-5\nepochs: 3\nseeds: 1..2\n")
    table = frame(sweep, store_of(tmp_path, sweep, {0: [Run(300), Run(310)], 1: [Run(300), Run(310)]}))
    table.loc[table["cell"] == 1, "majority_score"] = 0.684
    heights = [
        segment[0, 1]
        for found in figures.spread(sweep, table).axes[0].collections
        if hasattr(found, "get_segments")
        for segment in found.get_segments()
    ]
    assert {0.5, 0.684} <= set(heights)


def test_files_are_the_same_each_time(tmp_path):
    text = HEAD + "lr: 1e-5\nbias_correction: [off, on]\nepochs: 3\nseeds: 1..5\n"
    contents = []
    for name in ("one", "two"):
        figure = drawn(tmp_path / name, text, {0: [Run(300 + i) for i in range(5)]})["spread"]
        contents.append([path.read_bytes() for path in figures.save(figure, tmp_path / name, "spread")])
    assert contents[0] == contents[1]
    assert not re.search(rb"<dc:date>", contents[0][1])


def test_smoothing_keeps_the_mean_and_thins_out():
    steps, means = figures._smooth(np.arange(5000, dtype=np.float32))
    assert len(steps) <= 400
    assert np.allclose(means, steps - 1)  # the running mean of a straight line is that line; steps count from 1
    assert figures._smooth(np.zeros(1, np.float32))[0].tolist() == [1]
