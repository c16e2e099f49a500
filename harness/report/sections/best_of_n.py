"""How much does reporting the best of several seeds inflate a score?"""

from __future__ import annotations

from collections.abc import Callable

from harness.analysis.analyze import Analysis
from harness.report.claims import Sentence, Words, row_at
from harness.report.formatting import Row, integer, score
from harness.report.section import FigureSpec, Section
from harness.report.table import Column, TableSpec, number, one_row_per_cell

_SHOWN = (1, 2, 3, 5, 10, 20, 50)  # numbers of seeds that have a column; the file has all


def sentences(analysis: Analysis) -> list[Sentence]:
    """What reporting the best seed instead of the mean makes of the scores."""
    table = analysis.best_of_n
    if not len(table):
        return []
    by_cell = table.groupby("cell")["unbiased"].agg(["first", "last"])
    gain = (by_cell["last"] - by_cell["first"]).abs()
    widest = gain.idxmax()
    n = int(table[table["cell"] == widest]["n"].max())
    if n < 2 or score(gain[widest]) == score(0.0):
        return _too_high(analysis)
    words, of_cell = Words("best_of_n"), table[table["cell"] == widest].set_index("n", drop=False)
    seeds = words.value(row_at(of_cell, n), ["cell", "n"], "n", str)
    one, best = (words.value(row_at(of_cell, size), ["cell", "n"], "unbiased", score) for size in (1, n))
    by = words.summary("range", gain[widest], "unbiased", f"cell == {widest} and n in (1, {n})", score)
    where = f", at {analysis.study.cells[widest].label}" if len(analysis.study.cells) > 1 else ""
    text = (
        f"Reporting the best of {seeds} seeds instead of a single run changes the score by {by}, from {one} to "
        f"{best}{where}."
    )
    return [words.sentence(text), *_too_high(analysis)]


def _too_high(analysis: Analysis) -> list[Sentence]:
    high = analysis.selection.dropna(subset=["too_high"])
    clean = high[(analysis.cells["failed"].fillna(0) == 0).to_numpy()[high["cell"].astype(int)]]
    if len(clean):  # where runs fail, the best differs by more than luck
        high = clean
    if not len(high) or not high["too_high"].max() > 0 or score(high["too_high"].max()) == score(0.0):
        return []
    words, row = Words("selection"), row_at(high, high["too_high"].idxmax())
    source = "on the test set" if row["known_from"] == "test" else "on parts of the dev set that did not pick it"
    bias = words.value(row, ["cell"], "too_high", score)
    label = f" ({analysis.study.cells[row['cell']].label})" if len(analysis.study.cells) > 1 else ""
    return [
        words.sentence(
            f"Selection bias: the selected seed's dev score is too high by up to {bias}{label}, measured {source}."
        )
    ]


# --------------------------------------------------------------------------------------------------------------- tables


def _of_best(analysis: Analysis) -> list[Column]:
    """A column for some numbers of seeds."""
    table = analysis.best_of_n
    largest = int(table["n"].max()) if len(table) else 0
    by_cell = {(row["cell"], row["n"]): row for row in table.to_dict("records")}

    def best(n: int) -> Callable[[Row], str]:
        def text(row: Row) -> str:
            known = by_cell.get((row["cell"], n))
            return "–" if known is None else score(known["unbiased"])

        return text

    chosen = [n for n in dict.fromkeys((*_SHOWN, largest)) if n <= largest]
    return [(f"best of {n}" if n > 1 else "one run", best(n)) for n in chosen]


def _of_selection(analysis: Analysis) -> list[Column]:
    source = {"test": "test set", "dev": "tenths of the dev set"}
    return [
        ("seeds", number("n", integer)),
        ("mean", number("mean")),
        ("best seed", number("best")),
        ("selection bias", number("too_high")),
        ("estimated from", lambda row: source.get(row["known_from"], "–")),
    ]


SECTION = Section(
    anchor="best",
    heading="Best of n seeds",
    question="How much does reporting the best of several seeds inflate a score?",
    sentences=sentences,
    figure=FigureSpec(
        "variance.best_of_n",
        "The score to expect if the best of n seeds is reported; n = 1 is the mean of all runs, of which those that "
        "diverged score as the worst. The steeper, the more a result depends on how many seeds were tried.",
    ),
    tables=(
        TableSpec(
            "best_of_n",
            "Expected best score of n seeds (Tang et al. 2020); no interval, for none holds the truth near n = N",
            _of_best,
            rows=one_row_per_cell,
        ),
        TableSpec(
            "selection",
            "Selection bias of picking the best seed by its dev score",
            _of_selection,
            folded=True,
        ),
    ),
)
