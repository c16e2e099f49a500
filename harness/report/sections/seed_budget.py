"""How many seeds would settle it?"""

from __future__ import annotations

from collections.abc import Callable

from harness.analysis.analyze import Analysis
from harness.report.formatting import Row, integer, percent, score, unknown
from harness.report.section import FigureSpec, Section
from harness.report.table import Column, TableSpec, labels_of_pairs, number, one_row_per_cell
from harness.report.wording import capitalized, pair_count
from harness.stats import proportions

FEW_SEEDS = 10  # runs a cell below which the report says what they can't tell


def few_seeds(analysis: Analysis) -> str:
    """What so few seeds a cell cannot tell; empty where there are enough of them."""
    judged = analysis.cells["judged"][analysis.cells["judged"] > 0]
    if not len(judged) or judged.median() >= FEW_SEEDS:
        return ""
    n = int(judged.median())
    upper = 100 * proportions.wilson(0, n)[1]
    return (
        f"{n} {'seed' if n == 1 else 'seeds'} a cell cannot tell 0 % from {upper:.0f} %: "
        f"the interval of 0 failed in {n} is 0–{upper:.0f} %."
    )


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
        text = (
            f"The {test} of {len(enough)} of {pair_count(len(analysis.needed))} are told apart by the seeds there are"
        )
        if len(short):
            row = short.loc[short[name].astype(int).idxmin()]
            text += (
                f"; the next, {analysis.study.cells[row['cell']].label}, would take {row[name]} seeds a cell "
                f"({row['now']} now)"
            )
        texts.append(f"{text} (power 80 %, 5 %, would further runs fall out as these did).")
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
        ("to tell the means apart", mean),
        ("to tell the rates apart", failure),
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
    question="How many seeds would settle it?",
    sentences=sentences,
    figure=FigureSpec(
        "variance.seed_budget",
        "How wide the 95 % intervals of the mean and of the failure rate are at other numbers of seeds, at the spread "
        "and rate observed; the marks stand at the seeds there are.",
    ),
    tables=(
        TableSpec(
            "needed",
            "Seeds a cell for a power of 80 % at 5 %, would further runs fall out as these did",
            _of_needed,
            labels_of_pairs,
        ),
        TableSpec(
            "budget",
            "Half-width of the 95 % interval of the mean score · of the failure rate, at other numbers of seeds",
            _of_budget,
            rows=one_row_per_cell,
            folded=True,
        ),
    ),
)
