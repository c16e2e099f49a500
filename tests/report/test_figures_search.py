import numpy as np
import pandas as pd
import pytest
from drawn_figures import marks, words

from harness.config.search_space import Range, Search
from harness.records.study import Study, StudyCell
from harness.report.figures import search as figures_search

SPACE = (
    Range(field="lr", low=1e-6, high=1e-2, log=True),
    Range(field="epochs", low=1, high=9),
    Range(field="schedule", choices=("linear", "cosine")),
)
# Ranked best first; the fourth has no finished run.
RANKED = pd.DataFrame(
    {
        "asked": [2, 4, 1, 3], "cell": [1, 3, 0, 2], "value": [0.9, 0.7, 0.6, np.nan], "fresh": [0.8, *[np.nan] * 3],
        "fresh_low": [0.7, *[np.nan] * 3], "fresh_high": [0.85, *[np.nan] * 3], "failed": [0, 2, 1, 0],
        "finished": [4, 4, 4, 0], "front": [True, False, False, False], "lr": [1e-5, 1e-3, 1e-4, 1e-2],
        "epochs": [3, 5, 7, 9], "schedule": ["linear", "cosine", "linear", "cosine"],
    }
)  # fmt: skip
SHARES = pd.DataFrame({"field": ["lr", "epochs", "schedule"], "value": [0.7, 0.2, np.nan], "failed": [np.nan] * 3})


@pytest.fixture(scope="module")
def shown():
    search = Search.model_construct(space=SPACE)
    study = Study("made", "Made", (StudyCell(()),), pd.DataFrame({"metric": ["accuracy"]}), stand_in="a stand-in")
    scores = [np.array([0.5, 0.7]), np.array([0.9]), np.zeros(0), np.array([0.7])]
    result = dict(figures_search.draw_search(study, RANKED, scores, search, SHARES))
    for figure in result.values():
        figure.draw_without_rendering()
    return result


def test_every_figure_of_a_search_says_the_stand_in(shown):
    assert list(shown) == ["history", "slices", "parallel", "front", "search_importance"]
    assert all("a stand-in" in figure.get_suptitle() for figure in shown.values())


def test_the_history_has_each_recipe_its_seeds_and_the_highest_so_far(shown):
    assert marks(shown["history"]) == 4 + 3 + 1  # seeds, recipes with a value, and one on fresh seeds
    (line,) = shown["history"].axes[0].lines
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([1, 2, 4], [0.6, 0.9, 0.9])


def test_each_field_has_its_panel_and_scale(shown):
    axes = {ax.get_title(): ax for ax in shown["slices"].axes}
    assert list(axes) == ["lr", "epochs", "schedule"]
    assert (axes["lr"].get_xscale(), axes["epochs"].get_xscale()) == ("log", "linear")
    assert [text.get_text() for text in axes["schedule"].get_xticklabels()] == ["linear", "cosine"]
    assert marks(shown["slices"]) == 3 * 3


def test_the_ends_of_each_field_stand_at_the_lines(shown):
    said = words(shown["parallel"])
    for end in ("1e-5", "1e-3", "3", "7", "linear", "cosine", "0.600", "0.900"):
        assert end in said
    assert len(shown["parallel"].axes[0].lines) == 3


def test_the_front_joins_what_no_other_beats(shown):
    (line,) = shown["front"].axes[0].lines
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([0], [0.9])


def test_an_unknown_share_is_a_dash(shown):
    left, right = shown["search_importance"].axes
    assert [text.get_text() for text in left.texts] == ["70 %", "20 %", "– (not known)"]
    assert [text.get_text() for text in right.texts] == ["– (not known)"] * 3


def test_a_search_without_a_finished_recipe_has_no_figures():
    study = Study("made", "Made", (StudyCell(()),), pd.DataFrame({"metric": ["accuracy"]}))
    nothing = RANKED.assign(value=np.nan)
    shares = SHARES.assign(value=np.nan)
    assert list(figures_search.draw_search(study, nothing, [], Search.model_construct(space=SPACE), shares)) == []


def test_a_range_test_shows_rates_that_failed():
    rates = 10.0 ** np.linspace(-6, -2, 40)
    falling = 2 - np.linspace(0, 1, 40)
    figure = figures_search.lr_range(
        "Made", None, [(1, rates, falling, falling)], {"steepest": (1e-4, 5e-5, 2e-4)}, [(1e-3, 2, 5)]
    )
    figure.draw_without_rendering()
    assert "2/5" in words(figure)
    assert "steepest descent, range over seeds" in words(figure)
    assert figure.axes[0].get_xscale() == "log"
