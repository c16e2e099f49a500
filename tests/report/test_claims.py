"""Every claim of a page says what its table says, and no two contradict each other: over random studies."""

from __future__ import annotations

import functools
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import pytest
from checked_claims import NUMBER, Rows, check_number
from random_studies import LAYERS, answers_of, random_study, study_from

from harness.analysis import analyze, early_warning, spread_and_level
from harness.analysis.analyze import Analysis, analyse
from harness.common import forked
from harness.common.text import show
from harness.records import early_signals
from harness.records.study import Compared, Study
from harness.report import card, claim_tables, headline, next_experiment, opening, page_notes
from harness.report.claims import Claim, claims_of
from harness.report.contents import SECTIONS, TABLES
from harness.report.formatting import percent
from harness.report.wording import p_clause, points_words, rate_words
from harness.stats import bootstrap, dev_noise, forest, pooling, seed_budget
from harness.stats.estimate import UNKNOWN

# STUDIES=2000 FIRST=1000 python -m pytest tests/report/test_claims.py
STUDIES, FIRST = int(os.environ.get("STUDIES", "200")), int(os.environ.get("FIRST", "0"))
PARTS = 10  # of a few seconds each, for tests that run side by side


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Less of what takes long: no random forest and shrunk rates, of which no claim is made; seeds that are needed are
    made up; few resamples of dev answers; all in this process. Answers on the dev set are made of the scores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forest, "fanova", lambda *given: pd.Series(dtype=float))
        patch.setattr(pooling, "pooled_rates", lambda failed, judged: [UNKNOWN] * len(failed))
        patch.setattr(seed_budget, "needed_for_failure", lambda *counts: made_up(sum(counts)))
        patch.setattr(seed_budget, "needed_for_mean", lambda x, y, draw, worth: made_up(len(x) + len(y)))
        for function, default in ((dev_noise.floor, (20,)), (dev_noise.optimism, (5, None)),
                                  (dev_noise.example_interval, (20,))):  # fmt: skip
            patch.setattr(function, "__defaults__", default)
        patch.setattr(bootstrap.bootstrap, "__defaults__", (20,))
        patch.setattr(bootstrap.pooled, "__defaults__", (20,))
        patch.setattr(next_experiment, "seeds_for_failure", lambda k, n, *of: 10 * n + k if k % 3 else None)
        patch.setattr(next_experiment, "seeds_to_halve", lambda k, n: (9 * n, 30 * n if k % 2 else None))
        patch.setattr(spread_and_level, "THRESHOLDS", 3)
        patch.setattr("harness.analysis.diagnosis._PERMUTATIONS", 99)
        for module in (early_signals, early_warning):
            patch.setattr(module, "SHARES", np.arange(1, 9) / 8)
        patch.setattr(early_warning, "_RESAMPLES", 20)
        patch.setattr(forked, "cores", lambda: 1)
        for name in ("_FROM_SCORES", "_FROM_ANSWERS"):
            made = [make if make.__name__ not in UNCLAIMED else no_rows(make) for make in getattr(analyze, name)]
            patch.setattr(analyze, name, tuple(made))
        patch.setattr(analyze, "read_answers", answers_of)
        yield


# Tables of which no sentence of the page is made.
UNCLAIMED = ("pair_failures", "pair_spreads", "pooled_level", "profile", "flips", "against_the_paper")


def no_rows(make: Callable[..., pd.DataFrame]) -> Callable[..., pd.DataFrame]:
    return functools.update_wrapper(lambda *given: pd.DataFrame(), make)


def made_up(runs: float) -> seed_budget.SeedsNeeded:
    """A budget that sometimes can't be told."""
    low, assured, high = 2 + int(runs) % 5, 3 + int(runs) % 9, 20 + int(runs)
    return seed_budget.SeedsNeeded(low, assured, None if int(runs) % 4 == 0 else high)


def sentences_of(analysis: Analysis) -> list[str]:
    sections = (text for section in SECTIONS for text in section.sentences(analysis))
    study, proposed = analysis.study, next_experiment.next_sweep(analysis)
    notes = [page_notes.completeness(study), *page_notes.notes(study), page_notes.about_scores(study)]
    following = [*(proposed or ())[:1], next_experiment.more_seeds(analysis)]
    return [
        headline.verdict(analysis),
        *opening.answer(analysis),
        *sections,
        *notes,
        *following,
        *card.rows(analysis),
        *card.sentences(analysis),
    ]


SPECS = {spec.name: spec for spec in TABLES}


class Frames(dict[str, Rows]):
    """The rows of an analysis's tables, each table made once; a value that is not known is NaN."""

    def __init__(self, analysis: Analysis) -> None:
        self.analysis = analysis
        runs = analysis.study.runs
        judged = runs[runs["outcome"].notna()]
        self.judged = judged[["cell", "seed", "outcome", *analysis.study.axes]].to_dict("records")

    def __missing__(self, name: str) -> Rows:
        if name in SPECS:
            table = SPECS[name].frame(self.analysis)
        elif name in claim_tables.TABLES:
            table = claim_tables.TABLES[name](self.analysis)
        else:
            table = self.analysis.diagnosis.fates if name == "fates" else self.analysis.tables[name]
        columns = [
            [math.nan if value is None or value is pd.NA else value for value in table[column].tolist()]
            for column in table
        ]
        self[name] = [dict(zip(table, row, strict=True)) for row in zip(*columns, strict=True)]
        return self[name]

    def rows(self, claim: Claim) -> Rows:
        """Those that a claim's row names: one, or, of a claim of no row, all."""
        key = [(name, math.nan if value is None else value) for name, value in claim.row]
        return [
            row for row in self[claim.table] if all(row[name] is value or row[name] == value for name, value in key)
        ]


def check(analysis: Analysis, frames: Frames, sentence: str, claim: Claim) -> None:
    """A claim against its row, against the runs themselves, and against the words."""
    rows = frames.rows(claim)
    assert len(rows) == 1 or not claim.row
    value, low, high = claim.estimate.value, claim.estimate.low, claim.estimate.high
    assert math.isnan(low) or low - 1e-9 <= value <= high + 1e-9
    if claim.quantity == "failure rate":
        (row,) = rows[:1]
        assert (value, claim.n) == (row["failed"] / row["judged"], row["judged"])
        assert recount(frames, claim) == (round(value * claim.n), claim.n)
        counts = rate_words(claim).partition(" (")[0]
        assert counts in sentence or claim.subject in ("a recipe", "the cell known least") or "none of" in sentence
    elif claim.quantity == "difference in failure rate":
        (row,) = rows[:1]
        assert [value, low, high, claim.p] == [
            row[name] for name in ("difference", "difference_low", "difference_high", "p_adjusted")
        ]
        looks = "every look" in claim.test
        difference, p = (by_pairs(frames, claim), row["p"]) if looks else by_hand(frames, claim)
        assert value == pytest.approx(difference, abs=1e-9)
        assert row["p"] == pytest.approx(p, abs=1e-9) or "as many runs as are independent" in claim.test
        assert (row["p"] < 0.05) == (low > 0 or high < 0) or abs(row["p"] - 0.05) < 1e-6
        assert points_words(claim.estimate) in sentence or claim.direction == 0 or re.search("more|^Unstable", sentence)
    elif claim.quantity == "best set":
        of = "judged" if "rate" in claim.column else "scored"
        assert (value, claim.n) == (sum(row[claim.column] for row in rows), sum(row[of] > 0 for row in rows))
    elif claim.quantity == "share":
        assert value == rows[0][claim.column]
        assert 0 <= low <= high <= 1
    else:
        check_number(rows, sentence, claim)


def recount(frames: Frames, claim: Claim) -> tuple[int, int]:
    """Failed and judged runs of a row, counted in the runs themselves."""
    key, runs = dict(claim.row), frames.judged
    if claim.table == "arms":
        runs = [row for row in runs if row[str(key["axis"])] == key["value"]]
    elif claim.row:
        runs = [row for row in runs if row["cell"] == key["cell"]]
    return sum(row["outcome"] == "failed" for row in runs), len(runs)


def by_pairs(frames: Frames, claim: Claim) -> float:
    """The mean difference over pairs of runs with the same seed and the same other settings; of all settings as many
    seeds count as every one of them has."""
    key, study = dict(claim.row), frames.analysis.study
    axis = str(key["axis"])
    planned = study.runs.groupby("cell").size()
    judged = {row["cell"] for row in frames.judged}
    fates = {(row["cell"], row["seed"]): row["outcome"] == "failed" for row in frames.judged}
    cells = {cell.axes: index for index, cell in enumerate(study.cells)}
    both = [
        (other, index)
        for axes, index in cells.items()
        if dict(axes)[axis] is key["value"] or dict(axes)[axis] == key["value"]
        if (other := cells.get(tuple((name, key["reference"] if name == axis else at) for name, at in axes)))
        is not None
        if index in judged and other in judged
    ]
    seeds = min(planned[index] for pair in both for index in pair)
    differences = [
        fates[index, seed] - fates[other, seed]
        for other, index in both
        for seed in range(1, seeds + 1)
        if (other, seed) in fates and (index, seed) in fates
    ]
    return float(np.mean(differences))


def by_hand(frames: Frames, claim: Claim) -> tuple[float, float]:
    """Mantel and Haenszel's risk difference and Cochran's test, from the runs, stratum by stratum."""
    key = dict(claim.row)
    axis, ends = str(key["axis"]), (key["reference"], key["value"])
    others = [name for name in frames.analysis.study.axes if name != axis]
    strata: dict[tuple[object, ...], list[list[bool]]] = {}
    for row in frames.judged:
        if row[axis] in ends:
            arms = strata.setdefault(tuple(row[name] for name in others), [[], []])
            arms[ends.index(row[axis])].append(row["outcome"] == "failed")
    distance = weight = expected = variance = 0.0
    for arms in strata.values():
        (k1, n1), (k2, n2) = ((sum(arm), len(arm)) for arm in arms)
        if not n1 or not n2:
            continue
        n, k = n1 + n2, k1 + k2
        distance += n1 * n2 / n * (k2 / n2 - k1 / n1)
        weight += n1 * n2 / n
        expected += k2 - n2 * k / n
        variance += n1 * n2 * k * (n - k) / (n**2 * (n - 1))
    p = math.erfc(abs(expected) / math.sqrt(2 * variance)) if variance else 1.0
    return distance / weight, max(p, least_exact([(sum(a), len(a), sum(b), len(b)) for a, b in strata.values()]))


def least_exact(strata: list[tuple[int, int, int, int]]) -> float:
    """The least p that the exact conditional test can give: the chance of the one extreme outcome, or of both."""
    low = high = 1.0
    for k1, n1, k2, n2 in strata:
        if n1 and n2:
            ways, fewest, most = math.comb(n1 + n2, k1 + k2), max(0, k1 + k2 - n1), min(k1 + k2, n2)
            low *= math.comb(n2, fewest) * math.comb(n1, k1 + k2 - fewest) / ways
            high *= math.comb(n2, most) * math.comb(n1, k1 + k2 - most) / ways
    return min(1.0, min(low, high) * (2 if math.isclose(low, high, rel_tol=1e-9) else 1))


# What a sentence may say that is no result: levels, powers, designs, definitions.
NO_RESULT = re.compile(
    r"Add 5 seeds|50 are a start|within 20 updates|within ±\d+ points|and \d+ more\)|only the first 200|"
    r"runs fail at .*? \((?=score|exact|χ²)|95 % CI|\(?95 %|power of 80 %|power 80 %|"
    r"the? 5 % level|5 % level|1,000 seeds|more than 1,000|adjusted p of 0\.05|"
    r"leaves out 0|failure \(0 or 1\)|p < 0\.05|at 5 %|50 % of the runs|1 % false alarms|at least 90 %|"
    r"below 10 % of|from 1 % of training|\d+ settings?\b|(?:over|in) \d+ comparisons?|"
    r"however \d+ runs? against \d+|\(\d+ runs? against \d+\)|the \d+ cannot be distinguished|the \d+ layers|"
    r"not fully crossed: .*|C = 1|`[^`]*`|10th to 90th percentile"
)


def unclaimed(study: Study, sentence: str) -> set[str]:
    """The numbers of a sentence that none of its claims makes, and that are neither settings nor fixed."""
    text = sentence
    settings = [cell.label for cell in study.cells] + [
        show(value) for axis in study.axes for value in study.values(axis)
    ]
    quoted = [part for file in study.set_aside.files for part in (file.file, file.reason)]
    quoted += [sweep.rule.words for sweep in study.sweeps if sweep.rule]
    for name in sorted({*settings, *LAYERS, *quoted}, key=len, reverse=True):
        text = text.replace(name, "")
    made: set[str] = set()
    for claim in claims_of(sentence):
        ends = (claim.estimate.value, claim.estimate.low, claim.estimate.high)
        words = [claim.words, *(percent(end) for end in ends)] if claim.quantity in PERCENT else [claim.words]
        words += [p_clause(claim.p), str(claim.n), str(round(claim.estimate.value * claim.n))]
        words += [f"{claim.estimate.value:.0f}"] if claim.quantity == "best set" else []
        made.update(*(NUMBER.findall(part) for part in words))
    # How many comparisons or recipes there are is counted by the claims themselves.
    counts = {str(count) for count in Counter(claim.quantity for claim in claims_of(sentence)).values()}
    return {number for number in NUMBER.findall(NO_RESULT.sub("", text)) if number not in made} - counts


PERCENT = ("failure rate", "difference in failure rate", "share")


def check_together(analysis: Analysis, texts: list[str]) -> None:
    """No two claims contradict each other, and the words fit what is decided."""
    said: dict[tuple[object, ...], Claim] = {}
    rates: dict[object, float] = {}
    for sentence in texts:
        for claim in claims_of(sentence):
            before = said.setdefault((claim.quantity, claim.table, claim.row, claim.column, claim.where), claim)
            assert repr(before.estimate) == repr(claim.estimate)
            assert before.direction == claim.direction
            if claim.table == "arms" and claim.quantity == "failure rate":
                rates[dict(claim.row)["value"]] = claim.estimate.value
        if "makes no significant difference" in sentence or sentence.startswith("No significant difference"):
            assert not any(claim.decided for claim in claims_of(sentence))
        if "changes the failure rate by" in sentence or "the failure rate differs by" in sentence:
            assert all(claim.decided for claim in claims_of(sentence))
        if "lower in the former" in sentence or "higher in the former" in sentence:
            norms = {claim.column: claim.estimate.value for claim in claims_of(sentence)}
            assert ("lower in" in sentence) == (norms["lost_norm"] < norms["others_norm"])
        if "no other recipe may be" in sentence:
            assert [claim.estimate.value for claim in claims_of(sentence)] == [1]
    for claim in said.values():  # Simpson's paradox: pooled rates shown never go against the contrast
        key = dict(claim.row)
        if claim.quantity == "difference in failure rate" and key["value"] in rates and key["reference"] in rates:
            assert (rates[key["value"]] - rates[key["reference"]]) * claim.estimate.value >= 0
    best = analysis.best_set
    if best["mean"].notna().any():
        assert best.loc[best["mean"].idxmax(), "maybe_best_mean"]


def check_all(seed: int) -> None:
    """All that a page says of a random study."""
    analysis = analyse(random_study(seed))
    texts, frames = sentences_of(analysis), Frames(analysis)
    for sentence in texts:
        for claim in claims_of(sentence):
            check(analysis, frames, sentence, claim)
        assert not unclaimed(analysis.study, sentence), sentence
    check_together(analysis, texts)


@pytest.mark.parametrize("part", range(PARTS))
def test_claims_are_their_rows_and_do_not_contradict(part):
    for seed in range(FIRST + part, FIRST + STUDIES, PARTS):
        try:
            check_all(seed)
        except BaseException as error:
            error.add_note(f"The study is random_study({seed}).")
            raise


def test_a_wrong_claim_is_seen():
    compared = Compared()
    study = study_from([("bias_correction", 2), ("lr", 2)], 6, np.random.default_rng(2), compared)
    analysis = analyse(study)
    texts = sentences_of(analysis)
    claims = [(text, claim) for text in texts for claim in claims_of(text) if claim.table == "arms"]
    assert claims
    text, claim = claims[0]
    check(analysis, Frames(analysis), text, claim)
    wrong = Claim(claim.quantity, claim.subject, claim.estimate, claim.n + 1, claim.table, claim.row, claim.column)
    with pytest.raises(AssertionError):
        check(analysis, Frames(analysis), text, wrong)
