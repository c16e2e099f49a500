"""What a search found, as people and programs read it: sentences, tables and figures in `search/` of its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from harness.analysis import search_ranking
from harness.analysis.search_ranking import UNSEEN, StoppedRecipe
from harness.common.files import write_json, write_text
from harness.common.text import count_noun, show
from harness.config.trials import Sweep
from harness.records.store import Store
from harness.records.study import of_sweep
from harness.report.figures import search as figures_search
from harness.report.figures import style
from harness.report.files import csv, json_rows, markdown, markdown_text
from harness.report.formatting import percent, rate, score, unknown
from harness.report.table import TextTable
from harness.stats import proportions

SHOWN = 20  # recipes in the Markdown; the CSV has them all
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


def sentences(
    sweep: Sweep,
    ranked: pd.DataFrame,
    shares: pd.DataFrame,
    stopped: Sequence[StoppedRecipe] = (),
    trained: float = 0.0,
) -> tuple[str, ...]:
    """What the search found, in plain words: the best, how hopeful the search was, what failed, what mattered.

    `trained` seconds were spent on the finished runs.
    """
    search = sweep.search
    assert search is not None
    finished, failed, crashed = (int(ranked[name].sum()) for name in ("finished", "failed", "crashed"))
    seeds, words = len(sweep.seeds), search_ranking.objective_words(search)
    lost = f", {crashed} crashed" if crashed else ""
    missing = int(ranked["planned"].sum()) - finished - crashed - sum(one.runs for one in stopped)
    lost += f", {missing} missing" if missing else ""
    said = [f"{len(ranked)} different recipes were tried over {seeds} seeds each: {finished} runs finished{lost}; "
            f"{failed} failed."]  # fmt: skip
    if stopped:
        said.append(" ".join([*given_up(stopped), _saved(stopped, trained)]))
    known = ranked[ranked["rank"] > 0]
    if not len(known):
        return (*said, "No recipe has two finished runs yet, so none is ranked.")
    best = known.iloc[0]
    said.append(
        f"The best of the search is {_label(sweep, best)}: {words} {score(best['value'])} over its "
        f"{int(best['finished'])} seeds, {_failing(best['failed'], best['finished'])}."
    )
    confirmed = known[known["fresh"].notna()]
    horizon = (
        None if search.confirm_rule is None else search.confirm_rule.at_most
    )  # fresh seeds that were added by rule
    if len(confirmed) and not unknown(best["fresh"]):
        said.append(_on_fresh_seeds(best, words, horizon))
    if len(confirmed) > 1:
        fresh = confirmed["fresh"]
        top = confirmed.loc[fresh.idxmin() if search.lower_is_better else fresh.idxmax()]
        mean = float(confirmed["too_high"].mean())
        how_many = _failing(top["fresh_failed"], top["fresh_finished"], horizon)
        said.append(
            f"Over the {len(confirmed)} recipes that were tried again, the search's score was too "
            f"{'good' if mean > 0 else 'bad'} by {score(abs(mean))} on average; on fresh seeds the best is "
            f"{_label(sweep, top)} with {score(top['fresh'])}, {how_many}."
        )
    if not len(confirmed):
        said.append(
            "It was selected by the scores of these seeds and has not been tried on fresh seeds yet: expect a worse "
            "score."
        )
    some = int((known["failed"] > 0).sum())
    order = "They come after the others. " if search.failing != "ignore" and some else ""
    upper = proportions.wilson(0, seeds)[1]
    said.append(
        f"Of {len(known)} ranked recipes {some} had a failed run. {order}A recipe without one is not proven safe: "
        f"0 failures in {count_noun(seeds, 'seed')} is compatible with a failure rate of up to {percent(upper)} "
        "(95 % CI)."
    )
    told = shares.dropna(subset=["value"])
    if len(told):
        top = told.loc[told["value"].idxmax()]
        said.append(
            f"In this space the strongest predictor of the {words} is {top['field'].replace('_', ' ')} "
            f"({percent(top['value'])} of the variance between recipes, by functional ANOVA)."
        )
    return tuple(said)


def given_up(stopped: Sequence[StoppedRecipe]) -> tuple[str, ...]:
    """How many recipes were given up, when, and what for: a sentence each for the pruner's and the hopeless ones."""
    said = []
    for by_pruner in (True, False):
        some = sorted((one for one in stopped if one.by_pruner == by_pruner), key=lambda one: one.share)
        if not some:
            continue
        first, last, one = percent(some[0].share), percent(some[-1].share), len(some) == 1
        begin = (
            f"{count_noun(len(some), 'recipe')} {'was' if one else 'were'} given up at "
            f"{first if first == last else f'{first} to {last}'} of {'its' if one else 'their'} training"
        )
        name = some[0].rule.partition(":")[0]
        said.append(
            f"{begin} by the {name}: {UNSEEN}, so how {'it' if one else 'they'} would have ended is unknown."
            if by_pruner
            else f"{begin}, when all runs were at risk judging by runs of other recipes: that "
            f"{'it' if one else 'they'} would have failed is predicted, not observed."
        )
    return tuple(said)


def _saved(stopped: Sequence[StoppedRecipe], trained: float) -> str:
    saved = sum(one.saved for one in stopped)
    whole = trained + saved + sum(one.seconds for one in stopped)
    return f"At the pace until then this saved {percent(saved / whole)} of the search's training time."


def _on_fresh_seeds(best: pd.Series, words: str, horizon: int | None) -> str:
    """What fresh seeds say of the recipe that the search took for the best."""
    seen = "" if unknown(best["fresh_low"]) else f" [{score(best['fresh_low'])}, {score(best['fresh_high'])}]"
    fresh = int(best["fresh_finished"])
    failed = _failing(best["fresh_failed"], fresh, horizon)
    verdict = (
        f"the search had it too good by {score(best['too_high'])}"
        if best["too_high"] > 0
        else "no worse than the search had estimated"
    )
    return f"On {fresh} fresh seeds its {words} is {score(best['fresh'])}{seen}, {failed}: {verdict}."


def _failing(failed: float, of: float, horizon: int | None = None) -> str:
    return f"{int(failed)} of {int(of)} failed ({rate(int(failed), int(of), horizon)})"


def _label(sweep: Sweep, row: pd.Series) -> str:
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
