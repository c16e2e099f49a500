"""What the first screen says: a verdict in one sentence, and a few key figures, all from rows of the tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from harness.analysis.analyze import Analysis
from harness.analysis.best import may_be_best
from harness.analysis.failures import all_runs
from harness.common.text import count_noun
from harness.report.claims import Claim, Sentence, Words
from harness.report.formatting import interval, percent, score
from harness.report.opening import incomplete
from harness.report.section import Term
from harness.report.sections.dev_set import dev_share
from harness.report.wording import contrast_claim, failing_alone, main_arms, rate_claim, run_count
from harness.stats import proportions
from harness.stats.estimate import NAN, Estimate

UNSTABLE = 0.05  # a recipe is called unstable where the interval of its failure rate lies above this
TERM: Term = (
    "unstable",
    f"The 95 % interval of a recipe's failure rate lies above {percent(UNSTABLE)}, Clopper and Pearson's too. Where no "
    "recipe is called unstable, some may be: intervals of few runs are wide.",
)


@dataclass(frozen=True)
class KeyFigure:
    """A key figure of the study: what it is, its value, what it is of, and the claim where one stands behind it."""

    label: str
    value: str
    note: str
    claim: Claim | None = None


def verdict(analysis: Analysis) -> Sentence:
    """Whether the recipes are stable, in one sentence."""
    cells = analysis.cells
    finished, judged = int(cells["finished"].sum()), int(cells["judged"].sum())
    failed = int(cells["failed"].fillna(0).sum())
    if not finished:
        return Sentence("no run has finished yet")
    if not judged:
        return _spread_alone(cells)
    if not failed:
        return _none_failed(cells, judged)
    if failed == judged:
        claim = rate_claim(all_runs(analysis.study).iloc[0], "every run", "all_runs")
        return Sentence(f"no run succeeded: {_of(claim)}", claim)
    if len(cells) == 1:
        claim = rate_claim(cells.iloc[0], "every run", "cells", "cell")
        return Sentence(f"{_unstable(claim)}{_of(claim)}", claim)
    return _by_arms(analysis) or _by_cells(cells, failed, judged)


def _spread_alone(cells: pd.DataFrame) -> Sentence:
    sds = cells["sd"].dropna()
    tail = "whether any run failed is not known"
    if not len(sds):
        return Sentence(f"one run per recipe shows no spread; {tail}")
    words = Words("cells")
    words.summary("min", float(sds.min()), "sd", "sd == sd", score)
    words.summary("max", float(sds.max()), "sd", "sd == sd", score)
    return words.sentence(f"scores spread over seeds with a standard deviation of {_range_of(sds)}; {tail}")


def _none_failed(cells: pd.DataFrame, judged: int) -> Sentence:
    """No failure, and what failure rate so few runs may hide in the cell that is known worst."""
    known = cells[cells["judged"] > 0]
    row = known.loc[known["failed_high"].idxmax()]
    claim = rate_claim(row, "the cell known least", "cells", "cell")
    each = "" if len(known) == 1 else "a single recipe's "
    rate = f"{each}failure rate may still be up to {percent(claim.estimate.high)}"
    words, chance = Words("cells"), int(cells["near_chance"].sum())
    near = words.summary("sum", chance, "near_chance", form=_near) if chance else ""
    of = words.summary("sum", judged, "judged")
    return Sentence(
        f"no run failed: {words.summary('sum', 0, 'failed')} of {of}{near and ', but '}{near}; {rate} (95 %)",
        claim,
        *words.claims,
    )


def _near(chance: int) -> str:
    return f"{chance} {'is' if chance == 1 else 'are'} near chance"


def _by_arms(analysis: Analysis) -> Sentence | None:
    """The two values of the main axis, where their failure rates differ by the study's primary test."""
    arms = main_arms(analysis)
    rows = analysis.contrasts[analysis.contrasts["axis"].isin(arms["axis"])].to_dict("records")
    if len(arms) != 2 or len(rows) != 1 or not arms["balanced_counts"].all() or not (arms["judged"] > 0).all():
        return None
    contrast = contrast_claim(analysis, rows[0])
    if not contrast.decided:
        return None
    rated = sorted(arms.to_dict("records"), key=lambda row: row["failed"] / row["judged"], reverse=True)
    if (rated[0]["value"] == rows[0]["value"]) != (contrast.direction > 0):
        return None  # pooled and all else equal disagree
    worse, better = (rate_claim(row, _among(row["phrase"]), "arms", "axis", "value") for row in rated)
    rest = f"none of {better.n}" if not better.estimate.value else _of(better)
    claims, alone = [worse, better, contrast], ""
    if where := failing_alone(analysis, rated[0]["axis"], rated[0]["value"]):
        alone = f", all of them {where[0]}"
        claims.append(where[1])
    return Sentence(f"{_unstable(worse, worse.subject)}{_of(worse)}{alone}; {better.subject} {rest}", *claims)


def _among(phrase: str) -> str:
    """Where runs fail, of a phrase that says which runs: `with the recipe usual`, `in study a`."""
    if phrase.startswith("of the recipe"):
        return phrase.replace("of", "with", 1)
    return phrase.replace("of", "in", 1) if phrase.startswith("of ") else phrase


def _by_cells(cells: pd.DataFrame, failed: int, judged: int) -> Sentence:
    """How many recipes are unstable, of all."""
    rated = cells[cells["judged"] > 0]
    every = [rate_claim(row, "a recipe", "cells", "cell") for row in rated.to_dict("records")]
    claims = [claim for claim in every if _is_unstable(claim)]
    words = Words("cells")
    counts = words.summary("sum", failed, "failed"), words.summary("sum", judged, "judged", form=run_count)
    total = f"{' of '.join(counts)} failed"
    if not claims:
        return words.sentence(f"some runs fail: {total}; no single recipe is shown to be unstable")
    verb, of = "is" if len(claims) == 1 else "are", words.count(len(rated), "judged > 0")
    return Sentence(f"{len(claims)} of {of} recipes {verb} unstable: {total}", *claims, *words.claims)


def _is_unstable(claim: Claim) -> bool:
    """Whether both intervals lie above the bound: Wilson's begins too high for one failure in three runs."""
    exact, _ = proportions.clopper_pearson(round(claim.estimate.value * claim.n), claim.n)
    return min(claim.estimate.low, exact) > UNSTABLE


def _unstable(claim: Claim, where: str = "") -> str:
    word = "unstable" if _is_unstable(claim) else "some runs fail"
    return f"{word} {where}: " if where else f"{word}: "


def _of(claim: Claim) -> str:
    """`19 of 48 runs failed (40 %, 27–54 %)`."""
    failed = round(claim.estimate.value * claim.n)
    share, low, high = (percent(value) for value in (claim.estimate.value, claim.estimate.low, claim.estimate.high))
    bounds = "" if low == "–" else f", {low.removesuffix(' %')}–{high}"
    return f"{failed} of {run_count(claim.n)} failed ({share}{bounds})".replace(" %", "\N{NO-BREAK SPACE}%")


def _range_of(values: pd.Series) -> str:
    low, high = score(values.min()), score(values.max())
    return low if low == high else f"{low} to {high}"


# ------------------------------------------------------------------------------------------------------ key figures


def cards(analysis: Analysis) -> tuple[KeyFigure, ...]:
    """The key figures that the study has."""
    return (*_runs(analysis), *_failed(analysis), *_recommended(analysis), *_spread(analysis), *_dev_set(analysis))


def _runs(analysis: Analysis) -> Iterator[KeyFigure]:
    cells = analysis.cells
    least, most = int(cells["finished"].min()), int(cells["finished"].max())
    each = count_noun(most, "seed") if least == most else f"{least} to {most} seeds"
    note = f"{count_noun(len(cells), 'recipe')} × {each}"
    yield KeyFigure("Finished runs", f"{int(cells['finished'].sum())}", incomplete(analysis.runs) or note)


def _failed(analysis: Analysis) -> Iterator[KeyFigure]:
    cells = analysis.cells
    judged = int(cells["judged"].sum())
    if not judged:
        return
    worst = cells.loc[(cells["failed"].astype(float) / cells["judged"].where(cells["judged"] > 0)).idxmax()]
    claim = rate_claim(worst, "the worst cell", "cells", "cell")
    failed = int(cells["failed"].fillna(0).sum())
    note = f"of {judged}"
    if failed and len(cells) > 1:
        note += f"; at most {int(worst['failed'])} of {int(worst['judged'])} in one recipe"
    yield KeyFigure("Failed runs", f"{failed}", note, claim)


def _recommended(analysis: Analysis) -> Iterator[KeyFigure]:
    table = analysis.best_set
    known = table[table["scored"] > 0]
    chosen = known[known["recommended"]]
    if len(known) < 2:
        return
    claim = Claim("best set", "recommended", Estimate(len(chosen), NAN, NAN), len(known), "best_set", (), "recommended")
    if len(chosen) == 1:
        yield KeyFigure("Recommended", analysis.study.cells[int(chosen["cell"].iloc[0])].label, _why(known), claim)
    elif len(chosen):
        yield KeyFigure(
            "Recommended", f"{len(chosen)} of {len(known)}", "recipes not distinguished from the best", claim
        )
    elif may_be_best(known).all():
        every = "both" if len(known) == 2 else f"all {len(known)}"
        yield KeyFigure("Recommended", "none", f"{every} recipes may be the best", claim)


def _why(known: pd.DataFrame) -> str:
    """What is shown of the one recipe that is recommended, and what is only not excluded."""
    alone = [
        int(known[name].sum()) == 1 if known[count].sum() else True
        for name, count in (("maybe_best_mean", "scored"), ("maybe_lowest_rate", "judged"))
    ]
    if not known["judged"].sum():
        return "best mean"
    if all(alone):
        return "fails least, best mean"
    mean, rate = alone
    return "best mean; may fail least" if mean else "fails least; may be best" if rate else "may be best, as others"


def _spread(analysis: Analysis) -> Iterator[KeyFigure]:
    sds = analysis.cells["sd"].dropna()
    if len(sds):
        several = "over seeds, by recipe" if len(sds) > 1 else "over seeds"
        yield KeyFigure("Standard deviation", _range_of(sds).replace(" to ", "–"), several)


def _dev_set(analysis: Analysis) -> Iterator[KeyFigure]:
    table = dev_share(analysis)
    if len(table) and table["share"].notna().all():
        row = table.iloc[0].to_dict()
        estimate = Estimate(*(float(row[f"share{end}"]) for end in ("", "_low", "_high")))
        claim = Claim(
            "share", "dev set in the variance over seeds", estimate, int(row["runs"]), "dev_share", (), "share"
        )
        note = "of the spread where no run fails [95 %]"
        yield KeyFigure("Dev-set noise", interval(row, "share", percent), note, claim)
