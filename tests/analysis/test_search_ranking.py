"""Which recipe of a search is best, held against hand computations; and what is said of it."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import HEAD, MISSING, Run, store_of
from scipy import stats

from harness.analysis import search_ranking
from harness.config.recipe import Recipe
from harness.config.sweep_file import load
from harness.config.trials import Cell, Sweep
from harness.records.store import Store
from harness.records.study import of_sweep
from harness.report import search_page
from harness.search import search

SPACE = "space: {lr: {low: 1e-5, high: 1e-3, log: on}, epochs: {low: 1, high: 9}}"
TEXT = HEAD + "seeds: 1..4\nsearch: {" + SPACE + ", recipes: 8, confirm: {best: 2, seeds: 11..18}, failing: FAILING}\n"


def of(folder: Path, recipes: list[tuple[float, int]], failing: str = "constraint", more: str = "") -> Sweep:
    """A search that asked for these recipes."""
    path = folder / "find.yaml"
    path.write_text(TEXT.replace("FAILING", failing + more))
    sweep = load(path)
    cells = [
        Cell(axes=(("lr", lr), ("epochs", epochs)),
             recipe=Recipe.model_validate(sweep.cells[0].recipe.model_dump() | {"lr": lr, "epochs": epochs}))
        for lr, epochs in recipes
    ]  # fmt: skip
    return sweep.model_copy(update={"cells": tuple(cells)})


def test_objectives_are_what_they_say() -> None:
    rows = np.array([[0.5, 0.7, 0.8, 0.8, 0.9], [0.1, 0.2, 0.3, 0.4, 0.5]])
    for objective, expected in (
        ("mean", rows.mean(axis=1)),
        ("iqm", stats.trim_mean(rows, 0.25, axis=1)),
        ("lower_quantile", [0.7, 0.2]),
        ("mean_minus_sd", [0.74 - math.sqrt(0.092 / 4), 0.3 - math.sqrt(0.1 / 4)]),
    ):
        np.testing.assert_allclose(search_ranking.objective_of(rows, objective), expected, rtol=1e-12)


@pytest.mark.parametrize("objective", ["mean", "iqm", "lower_quantile", "mean_minus_sd"])
def test_a_loss_is_ranked_as_its_negative_is(tmp_path, objective: str) -> None:
    """And shown as it is: a quarter of its seeds is worse than its upper quartile."""
    higher = of(tmp_path, [(1e-4, 2), (2e-4, 2), (3e-4, 2)], more=f", objective: {objective}").search
    assert higher is not None
    lower = higher.model_copy(update={"lower_is_better": True})
    scores = [np.array([0.5, 0.7, 0.8, 0.9]), np.array([0.6, 0.6, 0.7, 0.7]), np.array([0.9, 0.9, 0.9, 1.3])]
    gains = [search_ranking.RankedRecipe(-each, 0, 4, 0, 4) for each in scores]
    losses = [search_ranking.RankedRecipe(each, 0, 4, 0, 4) for each in scores]
    assert search_ranking.best_first(losses, lower) == search_ranking.best_first(gains, higher)
    for gain, loss in zip(gains, losses, strict=True):
        assert loss.value(lower) == pytest.approx(-gain.value(higher))  # type: ignore[operator]
    worst = {"lower_quantile": "upper quartile", "mean_minus_sd": "mean plus one sd"}
    assert search_ranking.objective_words(lower) == worst.get(objective, search_ranking.WORDS[objective])


def test_a_run_that_diverged_counts_as_the_majority_and_a_crashed_one_not_at_all(tmp_path) -> None:
    sweep = of(tmp_path, [(1e-4, 2), (2e-4, 2), (3e-4, 2), (4e-4, 2)])
    store = store_of(tmp_path, sweep, {
        0: [Run(320), Run(diverged=True), Run(320), Run(320)], 1: [Run(320), Run(crashed="no"), Run(340), Run(200)],
        2: [Run(320), MISSING, Run(crashed="no"), MISSING], 3: [Run(crashed="no")] * 4,
    })  # fmt: skip
    first, second, third, fourth = search_ranking.by_cell(sweep, store)
    assert sorted(first.scores) == [0.5, 0.8, 0.8, 0.8]
    assert (first.failed, first.finished, first.complete) == (1, 4, True)
    assert (second.failed, second.finished, second.crashed, second.complete) == (1, 3, 1, True)
    assert second.value(sweep.search) == pytest.approx((0.8 + 0.85 + 0.5) / 3)
    assert (third.complete, third.value(sweep.search)) == (False, None)
    assert (fourth.complete, fourth.value(sweep.search)) == (True, None)
    table = search_ranking.table(sweep, store)
    assert list(table["rank"]) == [1, 2, 0, 0]
    assert list(table["asked"]) == [1, 2, 3, 4]


RUNS = {
    0: [Run(330)] * 4,
    1: [Run(380), Run(380), Run(380), Run(190)],
    2: [Run(320), Run(330), Run(340), Run(350)],
    3: [Run(200)] * 4,
    4: [Run(300)] * 4,
}


@pytest.mark.parametrize(
    ("failing", "order", "front"),
    [("constraint", [2, 0, 4, 1, 3], {2}), ("ignore", [2, 1, 0, 4, 3], {2}), ("objective", [2, 0, 4, 1, 3], {2})],
)
def test_recipes_are_ranked_with_failing_and_without(tmp_path, failing, order, front) -> None:
    sweep = of(tmp_path, [(1e-4, 2), (2e-4, 2), (3e-4, 2), (4e-4, 2), (5e-4, 3)], failing)
    table = search_ranking.table(sweep, store_of(tmp_path, sweep, RUNS))
    assert list(table["cell"]) == order
    assert set(table["cell"][table["front"]]) == front


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 4)), min_size=1, max_size=12))
def test_the_front_is_what_nobody_beats_in_both(points) -> None:
    values, rates = (np.array(column, dtype=float) for column in zip(*points, strict=True))
    expected = [not any((v >= a and r <= b) and (v > a or r < b) for v, r in points) for a, b in points]
    assert search_ranking._front(values, rates).tolist() == expected


def test_what_fresh_seeds_say_and_how_hopeful_the_search_was(tmp_path) -> None:
    sweep = of(tmp_path, [(1e-4, 2), (2e-4, 2), (3e-4, 2), (4e-4, 2), (5e-4, 3)])
    store = store_of(tmp_path, sweep, RUNS)
    again = search.confirming(sweep, store)
    assert [cell.label for cell in again.cells] == ["lr 3e-4, epochs 2", "lr 1e-4, epochs 2"]
    fresh = [300, 310, 320, 330, 300, 310, 320, 330]
    store_of(tmp_path, again, {0: [Run(right) for right in fresh], 1: [Run(340)] * 7 + [Run(200)]})
    table = search_ranking.table(sweep, store, search_ranking.confirmed_before(sweep, store))
    best, second = table.iloc[0], table.iloc[1]
    assert best["fresh"] == pytest.approx(315 / 400)
    assert best["too_high"] == pytest.approx((335 - 315) / 400)
    assert best["fresh_low"] < best["fresh"] < best["fresh_high"]
    assert (second["fresh_failed"], second["fresh_finished"]) == (1, 8)
    assert table["fresh"].iloc[2:].isna().all()
    said = " ".join(search_page.sentences(sweep, table, search_ranking.drivers(table, sweep.search)))
    assert "5 different recipes were tried over 4 seeds each: 20 runs finished; 5 failed." in said
    assert "The best of the search is lr 3e-4, epochs 2: mean 0.838 over its 4 seeds, 0 of 4 failed" in said
    assert "On 8 fresh seeds its mean is 0.787 [" in said or "On 8 fresh seeds its mean is 0.788 [" in said
    assert "the search had it too good by 0.050" in said
    assert "Over the 2 recipes that were tried again" in said
    assert "on fresh seeds the best is lr 1e-4, epochs 2 with 0.806, 1 of 8 failed" in said
    assert "Of 5 ranked recipes 2 had a failed run. They come after the others." in said
    assert "0 failures in 4 seeds is compatible with a failure rate of up to 49 % (95 % CI)" in said
    rows = {row[0]: row for row in search_page.best_table(sweep, table).rows}
    assert rows["2"][-2:] == ("1/8", "0.019")


def test_selection_among_equal_recipes_is_shown_as_hope(tmp_path) -> None:
    """Recipes that do not differ: the best of many looks better than it is, by what order statistics say."""
    rng = np.random.default_rng(3)
    hopes = []
    for number in range(12):
        sweep = of(tmp_path, [(1e-5 * (index + 1), 2) for index in range(10)])
        folder = tmp_path / str(number)
        drawn = {cell: [Run(round(right)) for right in rng.normal(320, 10, 4)] for cell in range(10)}
        store = store_of(folder, sweep, drawn)
        again = search.confirming(sweep, store)
        store_of(folder, again, {cell: [Run(round(right)) for right in rng.normal(320, 10, 8)] for cell in range(2)})
        table = search_ranking.table(sweep, store, search_ranking.confirmed_before(sweep, store))
        hopes.append(table["too_high"].iloc[0] * 400)
    # The largest of ten means of four with sd 10 / 2 lies 1.539 sd above their mean (order statistics of the normal).
    error = math.sqrt((0.586 * 5) ** 2 + 10**2 / 8) / math.sqrt(12)
    assert abs(np.mean(hopes) - 1.539 * 5) < 3 * error


def test_intervals_of_every_objective_hold_the_value_and_are_the_same_each_time(tmp_path) -> None:
    search_of = of(tmp_path, [(1e-4, 2)]).search
    assert search_of is not None
    scores = np.array([0.6, 0.7, 0.72, 0.74, 0.75, 0.76, 0.8, 0.81])
    for objective in ("mean", "iqm", "lower_quantile"):
        chosen = search_of.model_copy(update={"objective": objective})
        recipe, turned = (search_ranking.RankedRecipe(of_it, 0, 8, 0, 8) for of_it in (scores, scores[::-1]))
        low, high = search_ranking._interval(recipe, chosen)
        assert low < search_ranking.objective_of(scores[None], objective)[0] < high
        assert (low, high) == pytest.approx(search_ranking._interval(turned, chosen), abs=1e-12)
        equal = search_ranking.RankedRecipe(np.full(4, 0.7), 0, 4, 0, 4)
        assert all(map(math.isnan, search_ranking._interval(equal, chosen)))


def test_what_moves_the_objective_is_found(tmp_path) -> None:
    recipes = [(1e-5 * (index + 1), 1 + index * 3 % 9) for index in range(18)]
    sweep = of(tmp_path, recipes)
    store = store_of(tmp_path, sweep, {i: [Run(210 + 8 * i)] * 4 for i in range(18)})
    shares = search_ranking.drivers(search_ranking.table(sweep, store), sweep.search)
    assert list(shares["field"]) == ["lr", "epochs"]
    assert shares["value"][0] > 0.7 > shares["value"][1]
    assert shares["failed"].isna().all()


def test_a_search_without_results_says_so(tmp_path) -> None:
    sweep = of(tmp_path, [(1e-4, 2), (2e-4, 2)])
    store = Store(tmp_path / sweep.folder_name)
    table = search_ranking.table(sweep, store)
    said = search_page.sentences(sweep, table, search_ranking.drivers(table, sweep.search))
    assert said[0].startswith("2 different recipes were tried over 4 seeds each: 0 runs finished, 8 missing")
    assert said[1] == "No recipe has two finished runs yet, so none is ranked."
    assert search.confirming(sweep, store) is None
    assert len(of_sweep(sweep, store).runs) == 8


def test_the_interval_of_fresh_seeds_is_the_reports_own(tmp_path) -> None:
    """Student's of a mean; wide where a run failed; of a quartile order statistics; none of a mean minus one sd."""
    scores = np.array([0.75, 0.775, 0.8, 0.825, 0.75, 0.775, 0.8, 0.825])
    found = {}
    for objective in ("mean", "iqm", "lower_quantile", "mean_minus_sd"):
        search_of = of(tmp_path, [(1e-4, 2)], more=f", objective: {objective}").search
        sound = search_ranking.RankedRecipe(scores, 0, 8, 0, 8)
        one = search_ranking.RankedRecipe(np.append(scores[:7], 0.5), 1, 8, 0, 8, (False,) * 7 + (True,))
        found[objective] = search_ranking._interval(sound, search_of), search_ranking._interval(one, search_of)
    low, high = stats.t.interval(0.95, 7, scores.mean(), stats.sem(scores))
    assert found["mean"][0] == pytest.approx((low, high))
    assert found["mean"][1][0] < 0.7 < 0.8 < found["mean"][1][1] + 0.02
    assert found["lower_quantile"][0][0] == -math.inf
    assert np.isnan(found["mean_minus_sd"]).all()
    assert found["iqm"][0][0] < scores.mean() < found["iqm"][0][1]


def test_a_mean_on_fresh_seeds_ends_where_the_metric_does(tmp_path) -> None:
    found = of(tmp_path, [(1e-4, 2)], more=", objective: mean").search
    assert found is not None
    for scores, metric, highest in (
        ([0.6, 0.99], "accuracy", 1.0),
        ([60.0, 99.0], "accuracy", 327.0),
        ([0.6, 0.99], "", 3.27),
    ):
        recipe = search_ranking.RankedRecipe(np.array(scores), 0, 2, 0, 2, (), metric)
        assert search_ranking._interval(recipe, found)[1] == pytest.approx(highest, rel=0.01)
