from types import SimpleNamespace

import pandas as pd
import pytest
from drawn_figures import marks
from made_runs import HEAD, Run, study_of

from harness.analysis import spread_and_level, verdicts
from harness.records.study import Axes, Study, StudyCell
from harness.report.figures import scores
from harness.report.figures.layout import MOST_CELLS, Layout, layout, selected
from harness.report.figures.lettering import value_texts


def test_layout_of_the_paper(mosbach, drawings):
    assert layout(mosbach.study) == Layout("lr", "bias_correction", ("epochs",))
    assert [ax.get_title() for ax in drawings["spread"].axes] == ["epochs 3", "epochs 10"]
    assert [text.get_text() for text in drawings["spread"].axes[0].get_xticklabels()] == ["1e-5", "2e-5"]


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        ("lr: 1e-5\nepochs: 3\n", Layout(None, None, ())),
        ("lr: 1e-5\nepochs: [3, 10]\n", Layout("epochs", None, ())),
        ("lr: 1e-5\nepochs: 3\nbias_correction: [off, on]\n", Layout("bias_correction", None, ())),
        ("lr: [1e-5, 2e-5]\nepochs: [3, 10]\n", Layout("lr", "epochs", ())),
        ("dropout: [0.0, 0.1]\nlr: [1e-5, 2e-5]\nepochs: [3, 10]\n", Layout("lr", "dropout", ("epochs",))),
        (
            "dropout: [0.0, 0.1]\nlr: [1e-5, 2e-5]\nepochs: [3, 10]\nbias_correction: [off, on]\n",
            Layout("lr", "bias_correction", ("epochs", "dropout")),
        ),
        ("lr: 1e-5\nrecipes: {usual: {epochs: 3}, more: {epochs: 20}}\n", Layout("recipe", None, ())),
    ],
)
def test_layouts(tmp_path, axes, expected):
    runs = {cell: [Run(300 + cell), Run(200, 0.693)] for cell in range(16)}
    made = study_of(tmp_path, HEAD + axes + "seeds: 1..2\n", runs)
    assert layout(made) == expected
    figure = scores.spread(SimpleNamespace(study=made, runs=verdicts.runs(made), level=spread_and_level.level(made)))
    figure.draw_without_rendering()
    assert marks(figure) == 3 * len(made.cells)


def grid(**axes: int) -> Study:
    """A study without runs, of so many values of each axis."""
    cells: list[Axes] = [()]
    for name, size in axes.items():
        cells = [(*cell, (name, f"{name}{i}")) for cell in cells for i in range(size)]
    return Study("made", "Made", tuple(map(StudyCell, cells)), pd.DataFrame())


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        ({"dataset": 4, "method": 3}, Layout("dataset", "method", ())),
        ({"dataset": 1, "method": 3}, Layout("method", None, ("dataset",))),
        ({"dataset": 3, "method": 20}, Layout("method", "dataset", ())),
        ({"dataset": 20, "method": 20}, Layout("dataset", None, ("method",))),
        ({"sweep": 2, "lr": 3, "bias_correction": 2}, Layout("lr", "sweep", ("bias_correction",))),
        ({"sweep": 2, "bias_correction": 2}, Layout("bias_correction", "sweep", ())),
        ({"sweep": 2}, Layout("sweep", None, ())),
        ({"seed set": 1}, Layout("seed set", None, ())),
    ],
)
def test_layouts_of_others_runs_and_of_two_studies(axes, expected):
    assert layout(grid(**axes)) == expected


def failing(study: Study, failed: dict[int, int]) -> SimpleNamespace:
    """An analysis that knows no more than how many runs of each cell failed."""
    return SimpleNamespace(
        study=study, cells=pd.DataFrame({"failed": [failed.get(i, 0) for i in range(len(study.cells))]})
    )


def test_of_many_cells_the_panels_are_shown_where_most_runs_failed():
    many = grid(lr=10, epochs=5, decay=2)
    at = {cell.axes: index for index, cell in enumerate(many.cells)}
    worst = at[("lr", "lr7"), ("epochs", "epochs4"), ("decay", "decay1")]
    shown = selected(failing(many, {0: 1, worst: 3}))
    assert shown.why == "where most runs failed"
    epochs = [dict(many.cells[index].axes)["epochs"] for index in shown.cells]
    assert {name: epochs.count(name) for name in epochs} == {"epochs0": 20, "epochs4": 20}
    assert list(shown.cells) == sorted(shown.cells)


def test_the_first_cells_are_shown_where_none_failed_or_a_panel_is_too_large():
    for study, failed in ((grid(lr=10, epochs=5, decay=2), {}), (grid(lr=60), {50: 2})):
        shown = selected(failing(study, failed))
        assert shown.cells == tuple(range(MOST_CELLS))
        assert shown.why == ""
    assert selected(failing(grid(lr=4), {3: 1})).cells == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ((1e-5, 0.01), ["1e-5", "0.01"]),
        (("a short name", "another"), ["a short name", "another"]),
        (
            ("some long name of a corpus, part 1 of the whole", "some long name of a corpus, part 22 of the whole"),
            ["some l…1… whole", "some l…22… whole"],
        ),
        (("the same long name of a data set",), ["the same long name of a data set"]),
        (("x" * 30, "x" * 31), ["xxxxxx…", "xxxxxx…x"]),
    ],
)
def test_long_values_keep_what_tells_them_apart(values, texts):
    assert value_texts(values) == texts
