"""How many seeds are needed to distinguish these recipes?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.analysis import looks
from harness.analysis.analyze import Analysis
from harness.common.text import count_noun
from harness.report.claims import Words, row_at
from harness.report.formatting import Row, integer, percent, score, unknown
from harness.report.section import FigureSpec, Section
from harness.report.table import Column, TableSpec, labels_of_pairs, one_row_per_cell
from harness.report.wording import pair_count

FEWEST = {"mean": 2, "failure": 1}  # runs a cell, without which nothing is known of a mean's spread, or of a rate
# A number is given where few runs differ by much, so by luck it is rather too small: `results/bench/coverage.md`.
_SAFE = (
    "Plan for the upper end of a range: the number itself, which few runs that differ much give, is often too small."
)
UNTOLD = "the difference may be too small for 1,000 seeds, or none at all"
FEW_SEEDS = 10  # runs a cell, below which the report says which failure rates none of them rules out


def few_seeds(analysis: Analysis) -> str:
    """Which failure rates are compatible with none in so few seeds; empty where there are enough of them."""
    cells = analysis.cells
    spotless = cells[(cells["judged"] > 0) & (cells["failed"].fillna(1) == 0)].sort_values("judged", kind="stable")
    if not len(spotless):
        return ""
    middle = row_at(spotless, spotless.index[(len(spotless) - 1) // 2])  # one with as many runs as most
    if middle["judged"] >= FEW_SEEDS:
        return ""
    words = Words("cells")
    failures = words.value(middle, ["cell"], "failed", lambda n: count_noun(int(n), "failure"))
    seeds = words.value(middle, ["cell"], "judged", lambda n: count_noun(int(n), "seed"))
    upper = words.value(middle, ["cell"], "failed_high", percent)
    return words.sentence(f"{failures} in {seeds} is compatible with a failure rate of up to {upper} (95 % CI).")


def sentences(analysis: Analysis) -> list[str]:
    """How many seeds would settle it, as far as the runs tell."""
    few = few_seeds(analysis)
    needs = [_needs(analysis, name, quantity) for name, quantity in (("failure", "failure rates"), ("mean", "means"))]
    return [text for text in (few, *needs, _safe(analysis), _looks(analysis, needs), _worth(analysis)) if text]


def _looks(analysis: Analysis, needs: Sequence[str]) -> str:
    """That the seeds are counted for another test than the one of seeds that are added by rule."""
    if not any(needs) or not looks.looked_at(analysis.study):
        return ""
    return (
        "These are seeds of a study that is planned once and looked at once; tests that hold at every look, as on this "
        "page, take more."
    )


def _safe(analysis: Analysis) -> str:
    """Which number of a range to plan for; empty where no more seeds are advised."""
    table = analysis.needed
    advised = [
        (table[f"{name}_assured"] > table[f"{name}_now"]) & table[f"{name}_high"].notna()
        for name in ("failure", "mean")
    ]
    return _SAFE if any(mask.fillna(False).any() for mask in advised) else ""


def _worth(analysis: Analysis) -> str:
    """That runs which share a part of their seed count as fewer; empty where they do not."""
    now = analysis.budget[analysis.budget["rate_now"].astype(bool)]
    judged = analysis.cells.set_index("cell")["judged"]
    fewer = now[now["n"] < judged.reindex(now["cell"]).to_numpy()]
    if fewer.empty:
        return ""
    words, row = Words("budget"), row_at(fewer, fewer.index[0])
    runs = words.value(
        row_at(analysis.cells, row["cell"]), ["cell"], "judged", lambda n: count_noun(int(n), "run"), "cells"
    )
    worth = words.value(row, ["cell", "rate_now"], "n", str)
    return words.sentence(
        f"Runs that share parts of their seed are counted as the independent runs that they are worth: {runs} as "
        f"{worth} ({analysis.study.cells[row['cell']].label}). Further seeds are meant to share none."
    )


def _needs(analysis: Analysis, name: str, quantity: str) -> str:
    """For how many pairs of cells the seeds are enough, for how many they are not, and for how many nobody can tell."""
    table, words = analysis.needed, Words("needed")
    known = table[table[f"{name}_now"] >= FEWEST[name]]
    if known.empty:
        return ""
    told = known[known[[f"{name}_assured", f"{name}_high"]].notna().all(axis=1)]
    more = told[told[f"{name}_assured"] > told[f"{name}_now"]]
    if len(known) == 1:
        return _need_of_one(words, row_at(known, known.index[0]), name, quantity, told=len(told) == 1)
    enough, is_told = len(told) - len(more), f"{name}_now >= {FEWEST[name]} and {name}_high > 0"
    parts = [
        f"Of {words.count(len(known), f'{name}_now >= {FEWEST[name]}', pair_count)}, "
        f"{words.count(enough, f'{is_told} and {name}_assured <= {name}_now')} {'has' if enough == 1 else 'have'} "
        f"enough seeds to distinguish their {quantity} (power 80 %, 5 % level)"
    ]
    if len(more):
        row = row_at(more, more[f"{name}_assured"].astype(int).idxmax())
        key = ["reference", "cell"]
        needing = words.count(len(more), f"{is_told} and {name}_assured > {name}_now")
        parts.append(
            f"{needing} {'needs' if len(more) == 1 else 'need'} more, up to "
            f"{words.value(row, key, f'{name}_assured', str)} seeds per cell "
            f"({analysis.study.cells[row['cell']].label}: {_range(words, row, name)}, "
            f"{words.value(row, key, f'{name}_now', str)} now)"
        )
    if len(known) > len(told):
        untold = words.count(len(known) - len(told), f"{name}_now >= {FEWEST[name]} and not {name}_high > 0")
        parts.append(f"for {untold} these runs cannot tell how many it takes: {UNTOLD}")
    if len(table) > len(known):
        left = words.count(len(table) - len(known), f"{name}_now < {FEWEST[name]}", lambda n: f"{n} more")
        parts.append(f"{left} {'has' if len(table) - len(known) == 1 else 'have'} too few runs to say")
    return words.sentence(f"{'; '.join(parts)}.")


def _need_of_one(words: Words, row: Row, name: str, quantity: str, told: bool) -> str:
    """The same of the only pair."""
    key = ["reference", "cell"]
    if not told:
        best = ""
        if not unknown(row[f"{name}_low"]):
            best = f" (at best {words.value(row, key, f'{name}_low', str)})"
        runs = words.value(row, key, f"{name}_now", lambda n: count_noun(int(n), "run"))
        return words.sentence(
            f"How many seeds would distinguish the {quantity}{best}, {runs} per cell cannot tell: {UNTOLD}."
        )
    takes = words.value(row, key, f"{name}_assured", str)
    now = words.value(row, key, f"{name}_now", str)
    return words.sentence(
        f"Distinguishing the {quantity} with a power of 80 % at the 5 % level takes about {takes} seeds per cell "
        f"({_range(words, row, name)}; {now} now)."
    )


def _range(words: Words, row: Row, name: str) -> str:
    low, high = (words.value(row, ["reference", "cell"], f"{name}_{end}", str) for end in ("low", "high"))
    return f"{low} to {high}"


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
