import dataclasses
import re

import numpy as np
import pandas as pd
import pytest
from drawn_figures import ALL, DATASETS, GRID, RECORDED, drawn, marks, theirs, words
from made_runs import HEAD, Run, study_of
from matplotlib.text import Text

from harness.analysis.analyze import Analysis
from harness.analysis.diagnosis import Diagnosis
from harness.records.study import Study, StudyCell, joined
from harness.report.figures import all_figures, sheet, style


def test_every_figure_of_a_sweep_in_order(drawings):
    assert list(drawings) == [*ALL, *RECORDED]


@pytest.mark.parametrize("name", [*ALL, *RECORDED])
def test_titles_say_the_stand_in(drawings, name):
    title = drawings[name].get_suptitle()
    assert "Bias correction and rate" not in title  # a paper's caption says that
    assert re.search(r"embedded stand-in, not BERT on RTE\)?$", title)


@pytest.mark.parametrize("name", [*ALL, *RECORDED])
def test_fonts_stay_legible_in_a_column(drawings, name):
    assert drawings[name].get_figwidth() == sheet.WIDTH
    sizes = [text.get_fontsize() for text in drawings[name].findobj(Text) if text.get_text()]
    assert min(sizes) >= 6.5


@pytest.mark.parametrize("name", [*ALL, *RECORDED])
def test_nothing_is_cut_off(drawings, name):
    # Tick labels of a scale lie outside at values that are not shown, so those are left out.
    figure = drawings[name]
    width, height = figure.get_size_inches() * figure.dpi
    ticks = {tick for ax in figure.axes for axis in (ax.xaxis, ax.yaxis) for tick in axis.findobj(Text)}
    for text in set(figure.findobj(Text)) - ticks:
        if text.get_text() and text.get_visible():
            box = text.get_window_extent()
            assert box.x0 >= -1, text
            assert box.y0 >= -1, text
            assert box.x1 <= width + 1, text
            assert box.y1 <= height + 1, text


def test_two_studies_side_by_side_are_two_colours(tmp_path):
    text = HEAD + "lr: [1e-5, 2e-5]\nepochs: 3\nseeds: 1..2\n"
    pair = [study_of(tmp_path / name, text, {0: [Run(300), Run(310)], 1: [Run(320), Run(330)]}) for name in "ab"]
    found = drawn(joined(*pair, names=("old", "new")))
    handles = [text.get_text() for text in found["spread"].legends[0].get_texts()]
    assert handles[:2] == ["old", "new"]
    assert len(found["performance_profile"].axes[0].collections) == 2


def test_an_import_is_labelled_by_its_metric(tmp_path):
    found = drawn(theirs(tmp_path))
    lacking = ("curves", "noise_floor", "loss_vs_score", "step_size_factor")  # it has neither losses nor recipes
    assert list(found) == [name for name in ALL if name not in lacking]
    assert found["spread"].axes[0].get_ylabel() == "acc"
    assert "acc of every run" in found["spread"].get_suptitle()
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


@pytest.mark.parametrize("value", [0.0, 12345.0, -3.0, 1e-9, 1e12])
def test_scores_that_are_all_equal(tmp_path, value):
    found = drawn(theirs(tmp_path, GRID[:2], lambda cell, seed: value, judged=False))
    assert list(found) == ["spread", "performance_profile", "best_of_n"]


@pytest.mark.parametrize(
    ("runs", "shown"),
    [
        ({}, []),
        ({0: [Run(crashed="x")]}, []),
        ({0: [Run(300)]}, [name for name in ALL if name != "importance"]),
        ({0: [Run(diverged=True)] * 6}, ["failure_rates", "spread", "curves", "step_size_factor", "seed_budget"]),
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
    for path in style.save(figure, tmp_path, "odd"):  # no renderer warns of a glyph that it lacks
        assert path.stat().st_size > 0


def large(cells: int, seeds: int, values: int) -> Analysis:
    """A large import, its tables made by hand: how the figures cope is the question here, not the statistics."""
    made = tuple(StudyCell((("dataset", f"d{i // values}"), ("method", f"m{i % values}"))) for i in range(cells))
    rng, n = np.random.default_rng(0), cells * seeds
    score = rng.uniform(0.4, 0.9, n)
    failed = np.where(score <= 0.5, "failed", "ok")
    runs = pd.DataFrame({"trial": "t", "cell": np.repeat(np.arange(cells), seeds), "status": "finished"})
    runs = runs.assign(metric="acc", final_score=score, majority_score=0.5, label_entropy=np.nan)
    runs = runs.assign(outcome=failed, verdict=failed, final_train_loss=score, seed=np.tile(np.arange(seeds), cells))
    names = {
        axis: pd.Series([cell.axes[place][1] for cell in made], dtype=object)
        for place, axis in enumerate(("dataset", "method"))
    }
    base = pd.DataFrame({"cell": range(cells)} | names)
    count = (score.reshape(cells, seeds) <= 0.5).sum(axis=1)
    table = base.assign(planned=seeds, finished=seeds, crashed=0, missing=0, judged=seeds, near_chance=0)
    table = table.assign(failed=pd.array(count.tolist(), dtype="Int64"), failed_low=0.0, failed_high=1.0)
    floor = base.assign(runs=seeds, examples=300, known_from="counts", binomial=0.02, observed=0.01, training=np.nan)

    def repeated(places: list[int]) -> pd.DataFrame:
        again = base.loc[np.repeat(base.index, len(places))].reset_index(drop=True)
        return again.assign(n=np.tile(places, cells))

    best = repeated(list(range(1, seeds + 1))).assign(unbiased=0.7, expected=0.7)
    budget = repeated([5, seeds, 200]).assign(
        **{f"{name}{end}": 0.1 for name in ("rate_half_width", "mean_half_width") for end in ("", "_low", "_high")}
    )
    methods = np.repeat(np.array([f"m{i}" for i in range(values)], dtype=object), 101)
    profile = pd.DataFrame({"value": methods, "threshold": np.tile(np.linspace(0.4, 0.9, 101), values)})
    score_table = pd.DataFrame({"term": ["dataset", "method", "residual"], "eta_squared": [0.1, 0.2, 0.7]})
    failing = pd.DataFrame({"factor": ["dataset", "method"], "share": [0.9, 0.1], "p": [0.01, 0.5], "note": ""})
    contrasts = pd.DataFrame({"axis": ["dataset", "method"], "difference": [0.3, -0.1], "p_adjusted": [0.01, 0.5]})
    fates = pd.DataFrame({"cell": runs["cell"], "kind": runs["verdict"], "loss": score})
    nothing = {field.name: pd.DataFrame() for field in dataclasses.fields(Diagnosis)}
    unrecorded = {
        "finished": n,
        "recorded": 0,
        "fates": fates,
        "rule": None,
        "norms": None,
        "never_finite": 0,
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
        "budget": budget.assign(mean_now=budget["n"] == seeds, rate_now=budget["n"] == seeds),
        "profile": profile.assign(share=0.5, low=0.4, high=0.6),
        "drivers_of_score": score_table.assign(fanova=[0.1, np.nan, np.nan], note=""),
        "drivers_of_failing": failing,
        "contrasts": contrasts.assign(difference_low=[0.1, -0.3], difference_high=[0.5, 0.1]),
    }
    rest = {field.name: pd.DataFrame() for field in dataclasses.fields(Analysis) if field.name not in given}
    return Analysis(**given, **rest)


@pytest.mark.parametrize(("cells", "seeds", "values"), [(2000, 10, 100), (4, 25_000, 2)])
def test_very_many_runs_are_drawn_small(tmp_path, cells, seeds, values):
    found = large(cells, seeds, values)
    drawn = []
    for name, figure in all_figures.draw(found):
        drawn.append(name)
        figure.draw_without_rendering()
        paths = style.save(figure, tmp_path, name) if name in ("spread", "performance_profile", "loss_vs_score") else ()
        assert all(path.stat().st_size < 1_000_000 for path in paths)
        assert figure.get_figheight() < 11  # inches: a page
        title = figure.get_suptitle()
        if cells > 48 and name in ("spread", "failure_rates", "noise_floor", "seed_budget"):
            assert "40 of 2,000 cells, where most runs failed" in title
        if name == "spread":
            assert marks(figure) == 40 * 11 if cells > 48 else 4 * 25_001
    more = {"failure_map": cells > 48, "distributions": cells <= 48, "seed_ranks": True}  # only where they can be drawn
    beside = [name for name in ALL if name not in ("curves", "step_size_factor")]
    assert [name for name in drawn if name not in more] == beside
    assert {name for name in drawn if name in more} == {name for name, can in more.items() if can}
