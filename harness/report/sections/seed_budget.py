"""How many seeds are needed to distinguish these recipes?"""

from __future__ import annotations

from collections.abc import Callable

from harness.analysis.analyze import Analysis
from harness.common.text import count_noun
from harness.report.formatting import Row, integer, percent, score, unknown
from harness.report.section import FigureSpec, Section
from harness.report.table import Column, TableSpec, labels_of_pairs, number, one_row_per_cell
from harness.report.wording import capitalized, pair_count
from harness.stats import proportions

FEW_SEEDS = 10  # runs a cell, below which the report says which failure rates none of them rules out


def few_seeds(analysis: Analysis) -> str:
    """Which failure rates are compatible with none in so few seeds; empty where there are enough of them."""
    judged = analysis.cells["judged"][analysis.cells["judged"] > 0]
    if not len(judged) or judged.median() >= FEW_SEEDS:
        return ""
    n = int(judged.median())
    upper = 100 * proportions.wilson(0, n)[1]
    return f"0 failures in {count_noun(n, 'seed')} is compatible with a failure rate of up to {upper:.0f} % (95 % CI)."


def sentences(analysis: Analysis) -> list[str]:
    """How many seeds would settle it."""
    few = few_seeds(analysis)
    texts = [capitalized(few)] if few else []
    for name, test in (("for_failure", "failure rates"), ("for_mean", "means")):
        known = analysis.needed.dropna(subset=[name])
        if not len(known):
            continue
        enough = known[known[name] <= known["now"]]
        short = known[known[name] > known["now"]]
        share = f"{len(enough)} of {pair_count(len(analysis.needed))}"
        text = f"The {test} of {share} can be distinguished with the present seeds"
        if len(short):
            row = short.loc[short[name].astype(int).idxmin()]
            text += (
                f"; the next, {analysis.study.cells[row['cell']].label}, would need {row[name]} seeds per cell "
                f"({row['now']} now)"
            )
        texts.append(f"{text} (power 80 %, 5 % level, if further runs behave like these).")
    return texts


# --------------------------------------------------------------------------------------------------------------- tables


def _of_needed(analysis: Analysis) -> list[Column]:
    judged = analysis.cells["judged"]

    def mean(row: Row) -> str:
        if not unknown(row["for_mean"]):
            return str(row["for_mean"])
        return "> 1000" if row["now"] > 1 else "–"  # one score a cell tells no spread

    def failure(row: Row) -> str:
        if not unknown(row["for_failure"]):
            return str(row["for_failure"])
        return "> 1000" if judged[row["reference"]] and judged[row["cell"]] else "–"

    return [
        ("runs now", number("now", integer)),
        ("needed to distinguish the means", mean),
        ("needed to distinguish the failure rates", failure),
    ]


def _of_budget(analysis: Analysis) -> list[Column]:
    table = analysis.budget
    by_cell = {(row["cell"], row["n"]): row for row in table.to_dict("records")}

    def half(n: int) -> Callable[[Row], str]:
        def text(row: Row) -> str:
            found = by_cell.get((row["cell"], n))
            if found is None or (unknown(found["mean_half_width"]) and unknown(found["rate_half_width"])):
                return "–"
            return f"{score(found['mean_half_width'])} · {percent(found['rate_half_width'])}"

        return text

    return [(f"{n} seeds", half(n)) for n in sorted(set(table["n"]))]


SECTION = Section(
    anchor="budget",
    heading="Seed budget",
    question="How many seeds are needed to distinguish these recipes?",
    sentences=sentences,
    figure=FigureSpec(
        "variance.seed_budget",
        "Width of the 95 % intervals of the mean and of the failure rate for other numbers of seeds, at the observed "
        "spread and rate; the marks show the present number of seeds.",
    ),
    tables=(
        TableSpec(
            "needed",
            "Seeds per cell for 80 % power at the 5 % level, if further runs behave like these",
            _of_needed,
            labels_of_pairs,
        ),
        TableSpec(
            "budget",
            "Half-width of the 95 % interval of the mean score · of the failure rate, for other numbers of seeds",
            _of_budget,
            rows=one_row_per_cell,
            folded=True,
        ),
    ),
)
