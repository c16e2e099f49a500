"""Every claim of a search's page says what its table says, and every number is claimed: over random searches."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from checked_claims import NUMBER, check_number
from made_runs import HEAD

from harness.analysis import search_ranking
from harness.analysis.search_ranking import RankedRecipe, StoppedRecipe
from harness.config.recipe import Recipe
from harness.config.sweep_file import load
from harness.config.trials import Cell, Sweep
from harness.report import search_page
from harness.report.claims import claims_of

SPACE = "space: {lr: {low: 1e-5, high: 1e-3, log: on}, epochs: {low: 1, high: 9}}"
RULE = '{from: 11, first: 3, step: 2, at_most: 9, until: "failure rate of every cell within ±20 points"}'
FRESH = ("{best: 3, seeds: 11..18}", f"{{best: 3, seeds: {RULE}}}")
NO_RESULT = re.compile(r"95 % CI|0 failures in")


def searched(folder: Path, draw: np.random.Generator) -> Sweep:
    objective, failing = draw.choice([*search_ranking.WORDS]), draw.choice(["constraint", "ignore", "objective"])
    again = FRESH[int(draw.integers(2))]
    settings = f"{SPACE}, recipes: 8, objective: {objective}, failing: {failing}, confirm: {again}"
    path = folder / "find.yaml"
    path.write_text(f"{HEAD}seeds: 1..4\nsearch: {{{settings}}}\n")
    sweep = load(path)
    cells = []
    for number in range(int(draw.integers(1, 9))):
        axes = (("lr", float(f"{10 ** draw.uniform(-5, -3):.2g}")), ("epochs", 1 + number))
        cells.append(Cell(axes=axes, recipe=Recipe.model_validate(sweep.cells[0].recipe.model_dump() | dict(axes))))
    search = sweep.search.model_copy(update={"lower_is_better": bool(draw.random() < 0.3)})  # type: ignore[union-attr]
    return sweep.model_copy(update={"cells": tuple(cells), "search": search})


def recipe(draw: np.random.Generator, planned: int) -> RankedRecipe:
    finished = int(draw.integers(0, planned + 1))
    fails = tuple(bool(fate) for fate in draw.random(finished) < draw.choice([0.0, 0.3, 1.0]))
    scores = np.where(fails, 0.5, draw.normal(0.8, 0.02, finished)) if draw.random() < 0.9 else np.full(finished, 0.7)
    return RankedRecipe(scores, sum(fails), finished, int(draw.integers(0, planned - finished + 1)), planned, fails)


def given_up(draw: np.random.Generator) -> list[StoppedRecipe]:
    rules = ("median rule: below", "the training loss above 0.6")
    return [
        StoppedRecipe("lr 1e-3", rules[i % 2], float(draw.uniform(0.1, 0.9)), 5.0, 0, by_pruner=i % 2 == 0)
        for i in range(int(draw.integers(0, 4)))
    ]


def unclaimed(sweep: Sweep, sentence: str) -> set[str]:
    text = sentence
    for cell in sweep.cells:
        text = text.replace(cell.label, "")
    made = {number for claim in claims_of(sentence) for number in NUMBER.findall(claim.words)}
    return {number for number in NUMBER.findall(NO_RESULT.sub("", text)) if number not in made}


@pytest.mark.parametrize("seed", range(40))
def test_claims_of_a_search_are_their_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    draw = np.random.default_rng(seed)
    sweep, stopped = searched(tmp_path, draw), given_up(draw)
    tried: Any = [recipe(draw, 4) for _ in sweep.cells]
    monkeypatch.setattr(search_ranking, "by_cell", lambda of, store: store)
    again = sweep.model_copy(update={"cells": sweep.cells[:3]})
    confirmed = (again, [recipe(draw, 8) for _ in again.cells]) if draw.random() < 0.7 else None
    ranked = search_ranking.table(sweep, tried, confirmed)  # type: ignore[arg-type]
    shares = search_ranking.drivers(ranked, sweep.search)  # type: ignore[arg-type]
    tables: dict[str, pd.DataFrame] = {
        "recipes": ranked,
        "importance": shares,
        "search": search_page.totals(sweep, ranked, stopped, 60.0),
        "stopped": search_page.stopped_recipes(stopped),
    }
    for sentence in search_page.sentences(sweep, ranked, shares, stopped, 60.0):
        for claim in claims_of(sentence):
            rows = [row for row in tables[claim.table].to_dict("records") if all(row[k] == v for k, v in claim.row)]
            assert len(rows) == 1 or not claim.row
            check_number(rows, sentence, claim)  # type: ignore[arg-type]
        assert not unclaimed(sweep, sentence), sentence


def test_a_number_that_is_not_its_rows_is_seen(tmp_path: Path) -> None:
    sweep = searched(tmp_path, np.random.default_rng(1))
    ranked = pd.DataFrame(
        {"finished": [4], "failed": [1], "crashed": [0], "planned": [4], "rank": [0], "fresh": [np.nan]}
    )
    ranked["too_high"] = np.nan
    (tried, *_) = search_page.sentences(sweep, ranked, pd.DataFrame({"value": []}))
    (claim,) = (claim for claim in claims_of(tried) if claim.column == "failed")
    with pytest.raises(AssertionError):
        check_number([{"failed": 2}], tried, claim)
