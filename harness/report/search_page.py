"""What a search found, as people and programs read it: sentences, tables and figures in `search/` of its folder."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from harness.analysis import search_ranking
from harness.analysis.search_ranking import UNSEEN, StoppedRecipe
from harness.common.files import write_json, write_text
from harness.common.text import count_noun, show
from harness.config.trials import Sweep
from harness.records.store import Store
from harness.records.study import of_sweep
from harness.report.claims import Sentence, Words, counting, followed_by, row_at
from harness.report.figures import search as figures_search
from harness.report.figures import style
from harness.report.files import csv, json_rows, markdown, markdown_text
from harness.report.formatting import Row, percent, score, unknown
from harness.report.table import TextTable
from harness.stats import proportions

SHOWN = 20  # recipes in the Markdown; the CSV has them all
_CELL = ("cell",)
CAPTIONS = {
    "history": "Each recipe with its seeds, in the order tried; diamonds are the same recipe on fresh seeds.",
    "slices": "The objective along each field by itself; other fields differ between the marks.",
    "parallel": "Each line is a recipe; the best quarter is drawn strong.",
    "front": "Wanted are a good score and few failed runs; the line joins the recipes that no other one beats in both.",
    "search_importance": "Shares hold for the ranges of this space; a wider range of one field would raise its share.",
}


@dataclass(frozen=True)
class SearchSummary:
    """What a search found: the tables of `ranking`, sentences, and what `--json` prints."""

    page: Path
    said: tuple[str, ...]
    summary: dict[str, object]


def write_report(sweep: Sweep, store: Store, stopped: Sequence[StoppedRecipe] = ()) -> SearchSummary:
    """Write `search/` of a search's results folder: search.md, search.json, CSV tables and figures.

    `stopped` are the recipes that were given up in mid-training.
    """
    search = sweep.search
    assert search is not None
    ranked = search_ranking.table(sweep, store, search_ranking.confirmed_before(sweep, store))
    shares = search_ranking.drivers(ranked, search)
    study = of_sweep(sweep, store)
    trained = float(pd.to_numeric(study.runs["lane_seconds"]).sum())
    said = sentences(sweep, ranked, shares, stopped, trained)
    folder = store.folder / "search"
    folder.mkdir(parents=True, exist_ok=True)
    scores = [one.scores for one in search_ranking.by_cell(sweep, store)]
    drawn = []
    for name, figure in figures_search.draw_search(study, ranked, scores, search, shares):
        style.save(figure, folder, name)
        drawn.append(name)
    summary: dict[str, object] = {
        "sweep": sweep.name,
        "profile": sweep.profile,
        "stand_in": sweep.stand_in,
        "objective": search.objective,
        "failing": search.failing,
        "sampler": search.sampler,
        "said": list(said),
        "stopped": [asdict(one) | {"saved_seconds": one.saved} for one in stopped],
        "recipes": json_rows(ranked),
        "importance": json_rows(shares),
    }
    write_text(folder / "recipes.csv", csv(ranked.drop(columns="cell"), "%.10g"))
    write_text(folder / "importance.csv", csv(shares, "%.10g"))
    write_json(folder / "search.json", summary)
    page = folder / "search.md"
    write_text(page, _markdown(sweep, said, best_table(sweep, ranked), drawn))
    return SearchSummary(page, said, summary)


def totals(
    sweep: Sweep, ranked: pd.DataFrame, stopped: Sequence[StoppedRecipe] = (), trained: float = 0.0
) -> pd.DataFrame:
    """What the sentences say of the search as a whole, in one row.

    Columns: `recipes`, `seeds` (of each), `finished`, `crashed`, `missing` and `failed` runs, `saved` (the share of the
    training time that giving recipes up saved, at the pace until then), `none_failed` (the failure rate that no failure
    in so many seeds is compatible with, 95 %), `luck` (by how much the search's score was off on average, over the
    recipes that were tried again, without its sign).
    """
    finished, failed, crashed, planned = (
        int(ranked[name].sum()) for name in ("finished", "failed", "crashed", "planned")
    )
    saved = sum(one.saved for one in stopped)
    whole = trained + saved + sum(one.seconds for one in stopped)
    again = ranked.loc[(ranked["rank"] > 0) & ranked["fresh"].notna(), "too_high"]
    row: dict[str, object] = {"recipes": len(ranked), "seeds": len(sweep.seeds), "finished": finished}
    row |= {"crashed": crashed, "missing": planned - finished - crashed - sum(one.runs for one in stopped)}
    row |= {"failed": failed, "saved": saved / whole if whole else math.nan}
    row |= {"none_failed": proportions.wilson(0, len(sweep.seeds))[1], "luck": abs(float(again.mean()))}
    return pd.DataFrame([row])


def stopped_recipes(stopped: Sequence[StoppedRecipe]) -> pd.DataFrame:
    """The recipes that were given up, a row each: `share` of its training that was done, `by_pruner`."""
    return pd.DataFrame([(one.share, one.by_pruner) for one in stopped], columns=["share", "by_pruner"])


def sentences(
    sweep: Sweep,
    ranked: pd.DataFrame,
    shares: pd.DataFrame,
    stopped: Sequence[StoppedRecipe] = (),
    trained: float = 0.0,
) -> tuple[Sentence, ...]:
    """What the search found, in plain words: the best, how hopeful the search was, what failed, what mattered.

    `trained` seconds were spent on the finished runs. Claims are of the tables `recipes` (`ranked`), `importance`
    (`shares`), `search` (`totals`) and `stopped` (`stopped_recipes`).
    """
    search = sweep.search
    assert search is not None
    whole = row_at(totals(sweep, ranked, stopped, trained), 0)
    said = [_tried(whole)]
    if stopped:
        texts, words = given_up(stopped), Words("search")
        saved = words.value(whole, [], "saved", percent)
        end = words.sentence(f"At the pace until then this saved {saved} of the search's training time.")
        said.append(Sentence(" ".join([*texts, end]), *(claim for text in (*texts, end) for claim in text.claims)))
    known = ranked[ranked["rank"] > 0]
    if not len(known):
        return (*said, Sentence("No recipe has two finished runs yet, so none is ranked."))
    best, objective = row_at(known, known.index[0]), search_ranking.objective_words(search)
    words = Words("recipes")
    value, seeds = words.value(best, _CELL, "value", score), words.value(best, _CELL, "finished", str)
    said.append(
        words.sentence(
            f"The best of the search is {_label(sweep, best)}: {objective} {value} over its {seeds} seeds, "
            f"{_failing(words, best)}."
        )
    )
    confirmed = known[known["fresh"].notna()]
    if len(confirmed) and not unknown(best["fresh"]):
        said.append(_on_fresh_seeds(best, objective))
    if len(confirmed) > 1:
        said.append(_tried_again(sweep, confirmed, whole, search.lower_is_better))
    if not len(confirmed):
        said.append(
            Sentence(
                "It was selected by the scores of these seeds and has not been tried on fresh seeds yet: expect a "
                "worse score."
            )
        )
    said.append(_failures(known, whole, search.failing != "ignore"))
    told = shares.dropna(subset=["value"])
    if len(told):
        top, words = row_at(told, told["value"].idxmax()), Words("importance")
        said.append(
            words.sentence(
                f"In this space the strongest predictor of the {objective} is {top['field'].replace('_', ' ')} "
                f"({words.value(top, ['field'], 'value', percent)} of the variance between recipes, by functional "
                "ANOVA)."
            )
        )
    return tuple(said)


def _tried(whole: Row) -> Sentence:
    """How many recipes and runs there are."""
    words = Words("search")
    recipes, seeds, finished, failed = (
        words.value(whole, [], name, str) for name in ("recipes", "seeds", "finished", "failed")
    )
    lost = "".join(f", {words.value(whole, [], name, str)} {name}" for name in ("crashed", "missing") if whole[name])
    return words.sentence(
        f"{recipes} different recipes were tried over {seeds} seeds each: {finished} runs finished{lost}; "
        f"{failed} failed."
    )


def _tried_again(sweep: Sweep, confirmed: pd.DataFrame, whole: Row, lower_is_better: bool) -> Sentence:
    """How far the search was off over the recipes that were tried on fresh seeds, and the best of these."""
    words, fresh = Words("recipes"), confirmed["fresh"]
    top = row_at(confirmed, fresh.idxmin() if lower_is_better else fresh.idxmax())
    count = words.count(len(confirmed), "rank > 0 and fresh == fresh")
    luck = words.value(whole, [], "luck", score, "search")
    value = words.value(top, _CELL, "fresh", score)
    return words.sentence(
        f"Over the {count} recipes that were tried again, the search's score was too "
        f"{'good' if confirmed['too_high'].mean() > 0 else 'bad'} by {luck} on average; on fresh seeds the best is "
        f"{_label(sweep, top)} with {value}, {_failing(words, top, 'fresh_')}."
    )


def _failures(known: pd.DataFrame, whole: Row, ordered: bool) -> Sentence:
    """How many recipes had a failed run, and what none in so few seeds leaves possible."""
    words, some = Words("recipes"), int((known["failed"] > 0).sum())
    of, failing = words.count(len(known), "rank > 0"), words.count(some, "rank > 0 and failed > 0")
    order = "They come after the others. " if ordered and some else ""
    seeds = words.value(whole, [], "seeds", lambda n: count_noun(int(n), "seed"), "search")
    return words.sentence(
        f"Of {of} ranked recipes {failing} had a failed run. {order}A recipe without one is not proven safe: 0 "
        f"failures in {seeds} is compatible with a failure rate of up to "
        f"{words.value(whole, [], 'none_failed', percent, 'search')} (95 % CI)."
    )


def given_up(stopped: Sequence[StoppedRecipe]) -> tuple[Sentence, ...]:
    """How many recipes were given up, when, and what for: a sentence each for the pruner's and the hopeless ones."""
    said = []
    for by_pruner in (True, False):
        some = sorted((one for one in stopped if one.by_pruner == by_pruner), key=lambda one: one.share)
        if not some:
            continue
        words, where, one = Words("stopped"), "by_pruner" if by_pruner else "not by_pruner", len(some) == 1
        first = words.summary("min", some[0].share, "share", where, percent)
        last = words.summary("max", some[-1].share, "share", where, percent)
        recipes = words.count(len(some), where, counting("recipe"))
        begin = (
            f"{recipes} {'was' if one else 'were'} given up at "
            f"{first if first == last else f'{first} to {last}'} of {'its' if one else 'their'} training"
        )
        name = some[0].rule.partition(":")[0]
        said.append(
            words.sentence(
                f"{begin} by the {name}: {UNSEEN}, so how {'it' if one else 'they'} would have ended is unknown."
                if by_pruner
                else f"{begin}, when all runs were at risk judging by runs of other recipes: that "
                f"{'it' if one else 'they'} would have failed is predicted, not observed."
            )
        )
    return tuple(said)


def _on_fresh_seeds(best: Row, objective: str) -> Sentence:
    """What fresh seeds say of the recipe that the search took for the best."""
    words = Words("recipes")
    form: Callable[[Any], str] = score
    if not unknown(best["fresh_low"]):
        form = followed_by(score, f"[{score(best['fresh_low'])}, {score(best['fresh_high'])}]")
    seeds, value = words.value(best, _CELL, "fresh_finished", _whole), words.value(best, _CELL, "fresh", form)
    failed = _failing(words, best, "fresh_")
    verdict = "no worse than the search had estimated"
    if best["too_high"] > 0:
        verdict = f"the search had it too good by {words.value(best, _CELL, 'too_high', score)}"
    return words.sentence(f"On {seeds} fresh seeds its {objective} is {value}, {failed}: {verdict}.")


def _failing(words: Words, row: Row, which: str = "") -> str:
    """`3 of 8 failed (38 % [14, 69])`, of the search's seeds or of the fresh ones."""
    failed, of = (words.value(row, _CELL, f"{which}{name}", _whole) for name in ("failed", "finished"))
    low, high = (percent(row[f"{which}rate_{end}"]).removesuffix(" %") for end in ("low", "high"))
    share = words.value(row, _CELL, f"{which}rate", followed_by(percent, f"[{low}, {high}]"))
    return f"{failed} of {of} failed ({share})"


def _whole(number: float) -> str:
    return f"{number:.0f}"


def _label(sweep: Sweep, row: Row) -> str:
    return sweep.cells[int(row["cell"])].label


def best_table(sweep: Sweep, ranked: pd.DataFrame) -> TextTable:
    """The best recipes: score in the search, on fresh seeds, and failed."""
    search = sweep.search
    assert search is not None
    fields = [one.field for one in search.space]
    words = search_ranking.objective_words(search)
    header = (
        "rank",
        *(name.replace("_", " ") for name in fields),
        words,
        "sd",
        "failed",
        "fresh seeds",
        "failed there",
    )
    header += ("too good by",)
    rows = []
    for _, row in ranked.head(SHOWN).iterrows():
        fresh, there, high = "–", "–", "–"
        if not unknown(row["fresh"]):
            bounds = "" if unknown(row["fresh_low"]) else f" [{score(row['fresh_low'])}, {score(row['fresh_high'])}]"
            fresh, high = f"{score(row['fresh'])}{bounds}", score(row["too_high"])
            there = f"{int(row['fresh_failed'])}/{int(row['fresh_finished'])}"
        rank = str(row["rank"]) if row["rank"] else "–"
        numbers = (score(row["value"]), score(row["sd"]), f"{row['failed']}/{row['finished']}", fresh, there, high)
        rows.append((rank, *(show(row[name]) for name in fields), *numbers))
    numeric = tuple(name not in fields for name in ("rank", *fields, *header[len(fields) + 1 :]))
    return TextTable("recipes", f"The best recipes of {sweep.folder_name}, by {words}", header, tuple(rows), numeric)


def _markdown(sweep: Sweep, said: Sequence[str], table: TextTable, drawn: Sequence[str]) -> str:
    stand_in = [f"*{markdown_text(sweep.stand_in)}*", ""] if sweep.stand_in else []
    parts = [f"# {markdown_text(sweep.title)}", "", *stand_in]
    for sentence in said:
        parts += [str(markdown_text(sentence)), ""]
    parts += [markdown(table)]
    for name in drawn:
        parts += [f"![{CAPTIONS[name]}]({name}.png)", "", f"*{CAPTIONS[name]}*", ""]
    return "\n".join(parts)
