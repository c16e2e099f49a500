import dataclasses
import re
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from made_runs import HEAD, MOSBACH, MOSBACH_RUNS, Run, import_of, imported_runs, study_of
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from test_diagnosis import RUNS as DIAGNOSED
from test_diagnosis import TEXT as DIAGNOSED_TEXT

from harness import analysis, figures
from harness.analysis import Analysis, analyse
from harness.diagnosis import Diagnosis
from harness.records import Surface
from harness.study import Axes, Cell, Study, joined

ALL = [
    "spread",
    "failure_rates",
    "curves",
    "noise_floor",
    "best_of_n",
    "seed_budget",
    "importance",
    "performance_profile",
    "loss_vs_score",
    "step_size_factor",
]


def drawn(found: Analysis | Study) -> dict[str, Figure]:
    """All figures there are, laid out as well, for some warnings come only then."""
    result = dict(figures.draw(analyse(found) if isinstance(found, Study) else found))
    for figure in result.values():
        figure.draw_without_rendering()
    return result


def words(figure: Figure) -> str:
    texts = [text.get_text() for text in figure.findobj(Text)]
    return "\n".join(text for text in texts if text)


def marks(figure: Figure) -> int:
    """How many runs and means the spread shows."""
    return sum(len(found.get_offsets()) for ax in figure.axes for found in ax.findobj(PathCollection))


@pytest.fixture(scope="module")
def mosbach(tmp_path_factory):
    return analyse(study_of(tmp_path_factory.mktemp("study"), MOSBACH, MOSBACH_RUNS))


# What only recorded runs have; the last of a surface that was asked for.
RECORDED = ["gradient_norms", "early_warning", "loss_surface"]


@pytest.fixture(scope="module")
def study(mosbach, tmp_path_factory):
    recorded = study_of(tmp_path_factory.mktemp("recorded"), DIAGNOSED_TEXT, DIAGNOSED)
    place, trials = np.linspace(-1, 2, 5), recorded.runs["trial"]
    surface = Surface(
        trials=np.array([trials[0], trials[1]]), x=place, y=place, loss=np.add.outer(place**2, place**2) + 0.1,
        gradient_norm=np.abs(np.add.outer(place, place)), places=np.array([[0, 0], [1, 0], [0.3, 1]]),
        examples=np.array(128),
    )  # fmt: skip
    stand_in = dataclasses.replace(
        recorded, surface=surface, title="Bias correction and rate", stand_in="embedded stand-in, not BERT on RTE"
    )
    others = {name: figure for name, figure in drawn(stand_in).items() if name in RECORDED}
    return drawn(mosbach) | others


DATASETS, METHODS = ("cola", "rte", "sst2"), ("full", "lora")
GRID: tuple[Axes, ...] = tuple((("dataset", one), ("method", two)) for one in DATASETS for two in METHODS)


def theirs(folder, cells=GRID, score=lambda cell, seed: 0.6 + 0.05 * cell + 0.01 * seed, seeds=5, judged=True, **how):
    """An import of cells × seeds, with a majority of 0.62 if it is judged."""
    rows = []
    for cell in range(len(cells)):
        scores = [score(cell, seed) for seed in range(seeds)]
        extra = {}
        if judged:
            extra = {"majority_score": [0.62] * seeds, "outcome": ["failed" if s <= 0.62 else "ok" for s in scores]}
        rows += imported_runs(scores, cell, **extra)
    return import_of(folder, cells, rows, **how)


# ------------------------------------------------------------------------------------------------ of a sweep, whole


def test_every_figure_of_a_sweep_in_order(study):
    assert list(study) == [*ALL, *RECORDED]


@pytest.mark.parametrize("name", [*ALL, *RECORDED])
def test_titles_say_the_stand_in(study, name):
    title = study[name].get_suptitle()
    assert re.match("Bias correction and rate:[ \n]", title)
    assert title.endswith("embedded stand-in, not BERT on RTE")


@pytest.mark.parametrize("name", [*ALL, *RECORDED])
def test_fonts_stay_legible_in_a_column(study, name):
    assert study[name].get_figwidth() == figures.WIDTH
    sizes = [text.get_fontsize() for text in study[name].findobj(Text) if text.get_text()]
    assert min(sizes) >= 6.5


@pytest.mark.parametrize("name", [*ALL, *RECORDED])
def test_nothing_is_cut_off(study, name):
    # Tick labels of a scale lie outside at values that are not shown, so those are left out.
    figure = study[name]
    width, height = figure.get_size_inches() * figure.dpi
    ticks = {tick for ax in figure.axes for axis in (ax.xaxis, ax.yaxis) for tick in axis.findobj(Text)}
    for text in set(figure.findobj(Text)) - ticks:
        if text.get_text() and text.get_visible():
            box = text.get_window_extent()
            assert box.x0 >= -1, text
            assert box.y0 >= -1, text
            assert box.x1 <= width + 1, text
            assert box.y1 <= height + 1, text


def test_layout_of_the_paper(mosbach, study):
    assert figures.layout(mosbach.study) == figures.Layout("lr", "bias_correction", ("epochs",))
    assert [ax.get_title() for ax in study["spread"].axes] == ["epochs 3", "epochs 10"]
    assert [text.get_text() for text in study["spread"].axes[0].get_xticklabels()] == ["1e-5", "2e-5"]


def test_every_finished_run_is_a_mark(study):
    means = 7  # of the eight cells one has a single score, which is its own mean
    assert marks(study["spread"]) == 22 + means
    assert "✕3" in words(study["spread"])
    assert words(study["spread"]).count("n=3") == 6
    assert "diverged run (failed, no score)" in words(study["spread"])
    assert "at chance (not failed, not trained)" in words(study["spread"])


def test_the_mean_has_its_interval(mosbach, study):
    spans = {
        tuple(segment[:, 1])
        for ax in study["spread"].axes
        for found in ax.findobj(LineCollection)
        for segment in found.get_segments()
    }
    known = mosbach.level.dropna(subset=["mean_low", "mean_high"])
    known = known[known["scored"] > 1]
    assert len(known) > 3
    assert set(zip(known["mean_low"], known["mean_high"], strict=True)) <= spans


def test_failure_rates_say_counts_and_what_is_lacking(study):
    said = words(study["failure_rates"])
    assert "3/3" in said
    assert "2/3, 1 at chance" in said
    assert "0/1 (+1 crashed, 1 missing)" in said
    assert "2e-5 · off · 10" in said


def test_curves_have_a_line_a_run(study):
    left, right = study["curves"].axes[0], study["curves"].axes[1]
    # Bias correction off, 3 epochs: three runs at each rate, and a line for the majority or the labels' entropy.
    for ax in (left, right):
        groups = [group for group in ax.collections if isinstance(group, LineCollection)]
        assert (sum(len(group.get_segments()) for group in groups), len(ax.lines)) == (6, 1)
    assert "bias correction on, epochs 3  (n = 4)" in words(study["curves"])


def test_the_noise_floor_has_a_row_a_cell(mosbach, study):
    ax = study["noise_floor"].axes[0]
    assert len(ax.patches) == 8  # a bar is the error of one accuracy
    widths = sorted(bar.get_width() for bar in ax.patches)
    assert widths == pytest.approx(sorted(100 * mosbach.noise_floor["binomial"]))
    assert "n=3, 400" in words(study["noise_floor"])
    assert "counts" not in words(study["noise_floor"])


def test_the_best_of_n_starts_at_the_mean(mosbach, study):
    assert [ax.get_title() for ax in study["best_of_n"].axes] == ["epochs 3", "epochs 10"]
    lines = [line for ax in study["best_of_n"].axes for line in ax.lines]
    assert len(lines) == 8
    firsts = sorted(float(line.get_ydata()[0]) for line in lines)
    assert firsts == pytest.approx(sorted(mosbach.cells["mean"]))
    ticks = study["best_of_n"].axes[0].get_xticks()
    assert ticks[0] == 1
    assert all(tick == int(tick) for tick in ticks)


def test_the_seed_budget_marks_the_seeds_there_are(mosbach, study):
    left, right = study["seed_budget"].axes
    now = {float(x) for ax in (left, right) for found in ax.findobj(PathCollection) for x, _ in found.get_offsets()}
    assert now == {3.0}
    half = mosbach.budget.loc[mosbach.budget["now"], "mean_half_width"]
    heights = sorted(float(y) for found in left.findobj(PathCollection) for _, y in found.get_offsets())
    assert heights == pytest.approx(sorted(100 * half[half > 0]))
    assert "2e-5 · off · 10" in words(study["seed_budget"])  # eight cells have a line of their own


def test_importance_shows_each_term_and_p(mosbach, study):
    left, right = study["importance"].axes
    assert [bar.get_width() for bar in left.patches] == pytest.approx(
        mosbach.drivers_of_score["eta_squared"].fillna(0).tolist()
    )
    assert left.patches[-1].get_hatch()
    assert "residual" in words(study["importance"])
    assert len(right.patches) == 3
    assert "p = " in words(study["importance"]) or "p < 0.001" in words(study["importance"])


def test_the_profile_has_a_line_a_value_and_a_tick_a_run(study):
    ax = study["performance_profile"].axes[0]
    ticks = [line for line in ax.lines if line.get_marker() == "|"]
    assert [len(line.get_xdata()) for line in ticks] == [11, 10]  # of 23 finished runs one diverged and one crashed
    assert "bias correction off (n = 11)" in words(study["performance_profile"])
    assert "majority class" in words(study["performance_profile"])
    assert len(ax.collections) == 2  # bands


def test_boxes_only_from_five_scores_on(tmp_path):
    text = HEAD + "lr: [1e-5, 2e-5]\nepochs: 3\nseeds: 1..5\n"
    runs = {0: [Run(300 + i) for i in range(5)], 1: [Run(300 + i) for i in range(4)]}
    assert len(drawn(study_of(tmp_path, text, runs))["spread"].axes[0].patches) == 1


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


def test_runs_whose_curves_are_not_kept_are_said(tmp_path):
    made = study_of(tmp_path, HEAD + "lr: 1e-5\nepochs: 3\nseeds: 1..2\n", {0: [Run(300), Run(310)]})
    found = analyse(dataclasses.replace(made, load=lambda row: made.load(row) if row else None))
    assert "(n = 2, 1 with curves)" in words(figures.curves(found))
    found = analyse(dataclasses.replace(made, load=lambda row: None))
    assert figures.curves(found) is None
    assert "(counts)" in words(figures.noise_floor(found))


# ------------------------------------------------------------------------------------------------------------ layout


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
    runs = {cell: [Run(300 + cell), Run(200, 0.693)] for cell in range(16)}
    made = study_of(tmp_path, HEAD + axes + "seeds: 1..2\n", runs)
    assert figures.layout(made) == expected
    figure = figures.spread(SimpleNamespace(study=made, runs=analysis.runs(made), level=analysis.level(made)))
    figure.draw_without_rendering()
    assert marks(figure) == 3 * len(made.cells)


def grid(**axes: int) -> Study:
    """A study without runs, of so many values of each axis."""
    cells: list[Axes] = [()]
    for name, size in axes.items():
        cells = [(*cell, (name, f"{name}{i}")) for cell in cells for i in range(size)]
    return Study("made", "Made", tuple(map(Cell, cells)), pd.DataFrame())


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        ({"dataset": 4, "method": 3}, figures.Layout("dataset", "method", ())),
        ({"dataset": 1, "method": 3}, figures.Layout("method", None, ("dataset",))),
        ({"dataset": 3, "method": 20}, figures.Layout("method", "dataset", ())),
        ({"dataset": 20, "method": 20}, figures.Layout("dataset", None, ("method",))),
        ({"sweep": 2, "lr": 3, "bias_correction": 2}, figures.Layout("lr", "sweep", ("bias_correction",))),
        ({"sweep": 2, "bias_correction": 2}, figures.Layout("bias_correction", "sweep", ())),
        ({"sweep": 2}, figures.Layout("sweep", None, ())),
        ({"seed set": 1}, figures.Layout("seed set", None, ())),
    ],
)
def test_layouts_of_others_runs_and_of_two_studies(axes, expected):
    assert figures.layout(grid(**axes)) == expected


def test_two_studies_side_by_side_are_two_colours(tmp_path):
    text = HEAD + "lr: [1e-5, 2e-5]\nepochs: 3\nseeds: 1..2\n"
    pair = [study_of(tmp_path / name, text, {0: [Run(300), Run(310)], 1: [Run(320), Run(330)]}) for name in "ab"]
    found = drawn(joined(*pair, names=("old", "new")))
    handles = [text.get_text() for text in found["spread"].legends[0].get_texts()]
    assert handles[:2] == ["old", "new"]
    assert len(found["performance_profile"].axes[0].collections) == 2


# ----------------------------------------------------------------------------------------------------- others' runs


def test_an_import_is_labelled_by_its_metric(tmp_path):
    found = drawn(theirs(tmp_path))
    lacking = ("curves", "noise_floor", "loss_vs_score", "step_size_factor")  # it has neither losses nor recipes
    assert list(found) == [name for name in ALL if name not in lacking]
    assert found["spread"].axes[0].get_ylabel() == "acc"
    assert "score of every run" in found["spread"].get_suptitle()
    assert not any(re.search(r"\bdev\b", words(figure)) for figure in found.values())
    assert marks(found["spread"]) == 30 + 6
    assert "3/5" in words(found["failure_rates"])
    assert [text.get_text() for text in found["spread"].axes[0].get_xticklabels()] == list(DATASETS)


def test_an_import_without_a_majority_has_no_failures(tmp_path):
    found = drawn(theirs(tmp_path, judged=False))
    assert "failure_rates" not in found
    assert "✕" not in words(found["spread"])
    assert "majority" not in words(found["spread"])
    assert marks(found["spread"]) == 30 + 6  # not judged is not failed: drawn like any other run
    for name in ("seed_budget", "importance"):
        assert "whether runs failed\nis not known" in words(found[name])


def test_rows_known_from_counts_alone_say_so(tmp_path):
    rows = [
        row for cell in range(6) for row in imported_runs([0.5, 0.6], cell, correct=[200, 240], dev_examples=[400, 400])
    ]
    figure = drawn(import_of(tmp_path, GRID, rows))["noise_floor"]
    notes = figure.axes[0].child_axes[0].get_yticklabels()
    assert [text.get_text() for text in notes] == ["n=2, 400 (counts)"] * 6
    assert "observed over seeds (counts only)" in words(figure)
    assert "infinite dev set" not in words(figure)


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


@pytest.mark.parametrize("value", [0.0, 12345.0, -3.0, 1e-9, 1e12])
def test_scores_that_are_all_equal(tmp_path, value):
    found = drawn(theirs(tmp_path, GRID[:2], lambda cell, seed: value, judged=False))
    assert list(found) == ["spread", "best_of_n", "performance_profile"]


# ------------------------------------------------------------------------------------------------------------- edges


@pytest.mark.parametrize(
    ("runs", "shown"),
    [
        ({}, []),
        ({0: [Run(crashed="x")]}, []),
        ({0: [Run(300)]}, [name for name in ALL if name != "importance"]),
        ({0: [Run(diverged=True)] * 6}, ["spread", "failure_rates", "curves", "seed_budget", "step_size_factor"]),
        ({0: [Run(200, 0.693)] * 6}, [name for name in ALL if name != "importance"]),
        ({0: [Run(score=0.5), Run(score=-0.2)]}, [name for name in ALL if name not in ("importance", "noise_floor")]),
    ],
)
def test_edges_are_drawn_without_a_warning(tmp_path, runs, shown):
    text = HEAD + "lr: [1e-5, 2e-5]\nbias_correction: [off, on]\nepochs: 3\nseeds: 1..6\n"
    metric = "pearson" if runs and runs[0][0].score is not None else "accuracy"
    assert list(drawn(study_of(tmp_path, text, runs, metric=metric))) == shown


def test_one_cell(tmp_path):
    text = HEAD + "lr: 1e-5\nepochs: 3\nseeds: 1..4\n"
    found = drawn(study_of(tmp_path, text, {0: [Run(300 + 10 * i) for i in range(4)]}))
    assert list(found) == [name for name in ALL if name not in ("importance", "step_size_factor")]  # with correction
    assert "the only recipe" in words(found["failure_rates"])
    assert "all runs (n = 4)" in words(found["performance_profile"])


def test_half_of_the_importance_says_why_it_is_left_out(tmp_path):
    text = HEAD + "lr: [1e-5, 2e-5]\nepochs: 3\nseeds: 1..3\n"
    runs = {cell: [Run(300 + 10 * i + 40 * cell) for i in range(3)] for cell in range(2)}
    figure = drawn(study_of(tmp_path, text, runs))["importance"]
    assert "no run failed" in words(figure)
    assert len(figure.axes[1].patches) == 0


ODD = (
    "$x$ and $y_1$",
    "<script>alert(1)</script>",
    "🦄 漢字",
    "שלום العربية",
    "n" * 200,
    "line\nbreak",
    "_under",
    "a\\$b & %",
)


def test_odd_names_are_drawn_as_they_are(tmp_path):
    cells = tuple((("$method$ <b>", one), ("n", two)) for one in ODD for two in ("Ω" * 150,))
    made = theirs(tmp_path, cells, lambda cell, seed: (cell * 7 + seed * 3) % 10 / 10, metric="$m$_😀" + "W" * 90)
    made.runs["metric"] = "$m$_😀" + "W" * 90
    found = drawn(dataclasses.replace(made, title="W" * 200 + " $t$ 🦄", stand_in="not $BERT$ " * 30))
    lacking = ("curves", "noise_floor", "loss_vs_score", "step_size_factor")  # it has neither losses nor recipes
    assert list(found) == [name for name in ALL if name not in lacking]
    figure = found["failure_rates"]
    assert not any(text._preprocess_math(text.get_text())[1] for text in figure.findobj(Text))
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert any("line break" in label for label in labels)
    assert any("□" in label for label in labels)
    assert any("nn…nn" in label for label in labels)
    for path in figures.save(figure, tmp_path, "odd"):  # no renderer warns of a glyph that it lacks
        assert path.stat().st_size > 0


# ----------------------------------------------------------------------------------------------------- large studies


def large(cells: int, seeds: int, values: int) -> Analysis:
    """A large import, its tables made by hand: how the figures cope is the question here, not the statistics."""
    made = tuple(Cell((("dataset", f"d{i // values}"), ("method", f"m{i % values}"))) for i in range(cells))
    rng, n = np.random.default_rng(0), cells * seeds
    score = rng.uniform(0.4, 0.9, n)
    failed = np.where(score <= 0.5, "failed", "ok")
    runs = pd.DataFrame({"trial": "t", "cell": np.repeat(np.arange(cells), seeds), "status": "finished"})
    runs = runs.assign(metric="acc", final_score=score, majority_score=0.5, label_entropy=np.nan)
    runs = runs.assign(outcome=failed, verdict=failed, final_train_loss=score)
    names = {
        axis: pd.Series([cell.axes[place][1] for cell in made], dtype=object)
        for place, axis in enumerate(("dataset", "method"))
    }
    base = pd.DataFrame({"cell": range(cells)} | names)
    count = (score.reshape(cells, seeds) <= 0.5).sum(axis=1)
    table = base.assign(planned=seeds, finished=seeds, crashed=0, missing=0, judged=seeds, at_chance=0)
    table = table.assign(failed=pd.array(count.tolist(), dtype="Int64"), failed_low=0.0, failed_high=1.0)
    floor = base.assign(runs=seeds, examples=300, known_from="counts", binomial=0.02, observed=0.01, training=np.nan)

    def repeated(places: list[int]) -> pd.DataFrame:
        again = base.loc[np.repeat(base.index, len(places))].reset_index(drop=True)
        return again.assign(n=np.tile(places, cells))

    best = repeated(list(range(1, seeds + 1))).assign(expected=0.7, low=0.6, high=0.8)
    budget = repeated([5, seeds, 200]).assign(rate_half_width=0.1, mean_half_width=0.05)
    methods = np.repeat(np.array([f"m{i}" for i in range(values)], dtype=object), 101)
    profile = pd.DataFrame({"value": methods, "threshold": np.tile(np.linspace(0.4, 0.9, 101), values)})
    score_table = pd.DataFrame({"term": ["dataset", "method", "residual"], "eta_squared": [0.1, 0.2, 0.7]})
    failing = pd.DataFrame({"factor": ["dataset", "method"], "share": [0.9, 0.1], "p": [0.01, 0.5], "note": ""})
    fates = pd.DataFrame({"cell": runs["cell"], "kind": runs["verdict"], "loss": score})
    nothing = {field.name: pd.DataFrame() for field in dataclasses.fields(Diagnosis)}
    unrecorded = {
        "finished": n,
        "recorded": 0,
        "fates": fates,
        "rule": None,
        "norms": None,
        "compared": (),
        "sizes": {},
    }
    given = {
        "diagnosis": Diagnosis(**nothing | unrecorded),
        "study": Study("big", "Big", made, runs),
        "threshold": None,
        "runs": runs,
        "cells": table,
        "level": base.assign(mean=0.65, mean_low=0.6, mean_high=0.7),
        "noise_floor": floor.assign(training_low=np.nan, training_high=np.nan),
        "best_of_n": best,
        "budget": budget.assign(now=budget["n"] == seeds),
        "profile": profile.assign(share=0.5, low=0.4, high=0.6),
        "drivers_of_score": score_table.assign(fanova=[0.1, np.nan, np.nan], note=""),
        "drivers_of_failing": failing,
    }
    rest = {field.name: pd.DataFrame() for field in dataclasses.fields(Analysis) if field.name not in given}
    return Analysis(**given, **rest)


@pytest.mark.parametrize(("cells", "seeds", "values"), [(10_000, 10, 100), (4, 25_000, 2)])
def test_a_hundred_thousand_runs_are_drawn_small(tmp_path, cells, seeds, values):
    found = large(cells, seeds, values)
    shown = figures.draw(found)
    for name in (name for name in ALL if name not in ("curves", "step_size_factor")):
        got, figure = next(shown)
        assert got == name
        figure.draw_without_rendering()
        paths = (
            figures.save(figure, tmp_path, name) if name in ("spread", "performance_profile", "loss_vs_score") else ()
        )
        assert all(path.stat().st_size < 1_000_000 for path in paths)
        assert figure.get_figheight() < 11  # inches: a page
        title = figure.get_suptitle()
        if cells > 48 and name in ("spread", "failure_rates", "noise_floor", "seed_budget"):
            assert "first 48 of 10,000 cells" in title
        if name == "spread":
            assert marks(figure) == 48 * 11 if cells > 48 else 4 * 25_001
    assert next(shown, None) is None


# -------------------------------------------------------------------------------------------------------- a diagnosis


def test_gradients_have_a_panel_for_parts_from_the_input_up(study):
    titles = [ax.get_title() for ax in study["gradient_norms"].axes]
    assert titles == ["embeddings", "layer 1 of 2", "layer 2 of 2", "pooler", "head"]
    said = words(study["gradient_norms"])
    assert "failed or at chance (n = 2): median" in said
    assert "others (n = 2): median" in said
    assert "cells with both outcomes" in said
    for ax in study["gradient_norms"].axes:
        thin = [found for found in ax.findobj(LineCollection) if len(found.get_segments()) == 2]
        assert len(thin) == 2  # every run of both kinds is a line


def test_a_diverged_run_is_left_out_of_the_losses_and_said_to_be(study):
    assert "1 diverged left out" in study["loss_vs_score"].get_suptitle()
    offsets = [len(found.get_offsets()) for ax in study["loss_vs_score"].axes for found in ax.findobj(PathCollection)]
    assert sum(offsets) == 21  # of 22 finished runs


def test_the_largest_factor_is_named(study):
    assert "6.57 × at update 12" in words(study["step_size_factor"])


def test_the_surface_names_its_runs_and_their_fate(study):
    said = words(study["loss_surface"])
    assert "seed 1: ok" in said
    assert "seed 2: failed" in said
    assert "lr 1e-5, bias correction off" in study["loss_surface"].get_suptitle()


# ------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("name", ["spread", "curves"])
def test_files_are_the_same_each_time(tmp_path, mosbach, name):
    contents = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        paths = figures.save(getattr(figures, name)(mosbach), folder, name)
        assert [path.name for path in paths] == [f"{name}.png", f"{name}.svg", f"{name}.pdf"]
        contents.append([path.read_bytes() for path in paths])
    assert contents[0] == contents[1]
    assert not re.search(rb"<dc:date>", contents[0][1])
    assert b"CreationDate" not in contents[0][2]
    assert b"/Type3" not in contents[0][2]  # fonts that a publisher takes
    assert b"/CIDFontType2" in contents[0][2] or b"/TrueType" in contents[0][2]


def test_the_callers_settings_neither_matter_nor_change(mosbach, tmp_path):
    plain = figures.save(figures.spread(mosbach), tmp_path, "plain")[0].read_bytes()
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "none", "savefig.dpi": 10}):
        before = dict(mpl.rcParams)
        other = figures.save(figures.spread(mosbach), tmp_path, "other")[0].read_bytes()
        assert dict(mpl.rcParams) == before
    assert plain == other


def test_smoothing_keeps_the_mean_and_thins_out():
    steps, means = figures._smooth(np.arange(5000, dtype=np.float32))
    assert len(steps) <= 400
    assert np.allclose(means, steps - 1)  # the running mean of a straight line is that line; steps count from 1
    assert figures._smooth(np.zeros(1, np.float32))[0].tolist() == [1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a  b\n\tc", "a b c"), ("🦄", "□"), ("漢字", "□□"), ("e\u0301", "é"), ("x\u202ey", "xy"), ("\ud800", "□")],
)
def test_characters_that_the_font_lacks_are_boxes(text, expected):
    assert figures._clean(text) == expected


def test_a_long_name_keeps_both_ends():
    cut = figures._cut("results-of-a-very-long-run-2e-5", 8, 1.0)
    assert cut.startswith("resu")
    assert cut.endswith("2e-5")
    assert figures._inches(cut, 8) <= 1.0 < figures._inches("results-of-a-very-long-run-2e-5", 8)
    assert figures._cut("short", 8, 1.0) == "short"
