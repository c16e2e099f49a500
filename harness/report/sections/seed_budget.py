"""How many seeds are needed to distinguish these recipes?"""

from __future__ import annotations

from collections.abc import Callable

from harness.analysis.analyze import Analysis
from harness.common.text import count_noun
from harness.report.formatting import Row, integer, percent, score, unknown
from harness.report.section import FigureSpec, Section
from harness.report.table import Column, TableSpec, labels_of_pairs, one_row_per_cell
from harness.report.wording import capitalized, pair_count

FEWEST = {"mean": 2, "failure": 1}  # runs a cell, without which nothing is known of a mean's spread, or of a rate
UNTOLD = "the difference may be too small for 1,000 seeds, or none at all"
FEW_SEEDS = 10  # runs a cell, below which the report says which failure rates none of them rules out


def few_seeds(analysis: Analysis) -> str:
    """Which failure rates are compatible with none in so few seeds; empty where there are enough of them."""
    cells = analysis.cells
    spotless = cells[(cells["judged"] > 0) & (cells["failed"].fillna(1) == 0)].sort_values("judged", kind="stable")
    if not len(spotless):
        return ""
    middle = spotless.iloc[(len(spotless) - 1) // 2]  # one with as many runs as most
    if middle["judged"] >= FEW_SEEDS:
        return ""
    seeds, upper = count_noun(int(middle["judged"]), "seed"), percent(float(middle["failed_high"]))
    return f"0 failures in {seeds} is compatible with a failure rate of up to {upper} (95 % CI)."


def sentences(analysis: Analysis) -> list[str]:
    """How many seeds would settle it, as far as the runs tell."""
    few = few_seeds(analysis)
    needs = [_needs(analysis, name, quantity) for name, quantity in (("failure", "failure rates"), ("mean", "means"))]
    return [text for text in (capitalized(few), *needs, _worth(analysis)) if text]


def _worth(analysis: Analysis) -> str:
    """That runs which share a part of their seed count as fewer; empty where they do not."""
    now = analysis.budget[analysis.budget["rate_now"]].set_index("cell")["n"]
    judged = analysis.cells.set_index("cell")["judged"]
    fewer = now[now < judged.reindex(now.index)]
    if fewer.empty:
        return ""
    cell = fewer.index[0]
    return (
        "Runs that share parts of their seed are counted as the independent runs that they are worth: "
        f"{count_noun(judged[cell], 'run')} as {fewer.iloc[0]} ({analysis.study.cells[cell].label}). Further seeds are "
        "meant to share none."
    )


def _needs(analysis: Analysis, name: str, quantity: str) -> str:
    """For how many pairs of cells the seeds are enough, for how many they are not, and for how many nobody can tell."""
    table = analysis.needed
    known = table[table[f"{name}_now"] >= FEWEST[name]]
    if known.empty:
        return ""
    told = known[known[[f"{name}_assured", f"{name}_high"]].notna().all(axis=1)]
    more = told[told[f"{name}_assured"] > told[f"{name}_now"]]
    if len(known) == 1:
        return _need_of_one(known.iloc[0], name, quantity, told=len(told) == 1)
    enough = _verb(len(told) - len(more), "has", "have")
    parts = [
        f"Of {pair_count(len(known))}, {enough} enough seeds to distinguish their {quantity} (power 80 %, 5 % level)"
    ]
    if len(more):
        row = more.loc[more[f"{name}_assured"].astype(int).idxmax()]
        parts.append(
            f"{_verb(len(more), 'needs', 'need')} more, up to {row[f'{name}_assured']} seeds per cell "
            f"({analysis.study.cells[row['cell']].label}: {_range(row, name)}, {row[f'{name}_now']} now)"
        )
    if len(known) > len(told):
        parts.append(f"for {len(known) - len(told)} these runs cannot tell how many it takes: {UNTOLD}")
    return f"{'; '.join(parts)}."


def _need_of_one(row: Row, name: str, quantity: str, told: bool) -> str:
    """The same of the only pair."""
    now = row[f"{name}_now"]
    if not told:
        best = "" if unknown(row[f"{name}_low"]) else f" (at best {row[f'{name}_low']})"
        runs = f"{count_noun(now, 'run')} per cell cannot tell"
        return f"How many seeds would distinguish the {quantity}{best}, {runs}: {UNTOLD}."
    takes = f"takes about {row[f'{name}_assured']} seeds per cell ({_range(row, name)}; {now} now)"
    return f"Distinguishing the {quantity} with a power of 80 % at the 5 % level {takes}."


def _range(row: Row, name: str) -> str:
    return f"{row[f'{name}_low']} to {row[f'{name}_high']}"


def _verb(n: int, singular: str, plural: str) -> str:
    return f"{n} {singular if n == 1 else plural}"


# --------------------------------------------------------------------------------------------------------------- tables


def _of_needed(analysis: Analysis) -> list[Column]:
    def now(name: str) -> Callable[[Row], str]:
        return lambda row: integer(row[f"{name}_now"] or None)

    def seeds(name: str) -> Callable[[Row], str]:
        def text(row: Row) -> str:
            low, assured, high = (row[f"{name}_{end}"] for end in ("low", "assured", "high"))
            if row[f"{name}_now"] < FEWEST[name]:
                return "–"
            if unknown(assured) or unknown(high):
                return "cannot tell" if unknown(low) else f"cannot tell (≥ {low})"
            return f"{assured} [{low}, {high}]"

        return text

    return [
        ("scored now", now("mean")),
        ("seeds to distinguish the means", seeds("mean")),
        ("judged now", now("failure")),
        ("seeds to distinguish the failure rates", seeds("failure")),
    ]


def _of_budget(analysis: Analysis) -> list[Column]:
    table = analysis.budget
    by_cell = {(row["cell"], row["n"]): row for row in table.to_dict("records")}

    def half(n: int) -> Callable[[Row], str]:
        def text(row: Row) -> str:
            widths = by_cell.get((row["cell"], n))
            if widths is None or (unknown(widths["mean_half_width"]) and unknown(widths["rate_half_width"])):
                return "–"
            return f"{score(widths['mean_half_width'])} · {percent(widths['rate_half_width'])}"

        return text

    of_every_cell = table.groupby("n")["cell"].nunique() == table["cell"].nunique()
    return [(f"{n} seeds", half(n)) for n in sorted(of_every_cell.index[of_every_cell])]


SECTION = Section(
    anchor="budget",
    heading="Seed budget",
    question="How many seeds are needed to distinguish these recipes?",
    sentences=sentences,
    figure=FigureSpec(
        "variance.seed_budget",
        "Width of the 95 % intervals of the mean and of the failure rate for other numbers of seeds, at the observed "
        "spread and rate; the marks show the present number of runs. Bands, where there are few cells, reach from the "
        "10th to the 90th percentile over the spreads and rates that the runs leave possible.",
    ),
    tables=(
        TableSpec(
            "needed",
            "Seeds per cell for 80 % power at the 5 % level, on average over the differences that the runs leave "
            "possible [10th to 90th percentile over them]",
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
    glossary=(
        (
            "power, assurance",
            "The chance that a test finds a difference that is there, at one true difference; and its average over all "
            "differences that the runs so far leave possible. Seeds are counted for an assurance of 80 % at the 5 % "
            "level, of Fisher's test for failure rates and of Welch's for means.",
        ),
    ),
)
