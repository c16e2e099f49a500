"""Every claim of a page says what its table says, and no two contradict each other: over random studies."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.analysis import seeds
from harness.analysis.analyze import Analysis, analyse
from harness.records.study import TEXTS, Compared, Study, StudyCell, columns
from harness.report import opening
from harness.report.claims import Claim, Sentence, claims_of, rows_of
from harness.report.contents import SECTIONS, TABLES
from harness.report.wording import points_words, rate_words
from harness.stats import forest, pooling
from harness.stats.estimate import UNKNOWN

MAJORITY, EXAMPLES = 50, 100
AXES = ("recipe", "lr", "bias_correction")
VALUES = {"recipe": ("usual", "other", "third", "last"), "lr": (1e-5, 2e-5, 3e-5), "bias_correction": (False, True)}
FATES = ("good", "good", "good", "failed", "near chance", "diverged", "crashed", "missing")


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """What takes long and no claim is made of: the random forest, seeds that are needed, shrunk rates."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forest, "fanova", lambda *given: pd.Series(dtype=float))
        patch.setattr(seeds, "pairs", lambda study: [])
        patch.setattr(pooling, "pooled_rates", lambda failed, judged: [UNKNOWN] * len(failed))
        yield


def study_from(axes: list[tuple[str, int]], size: int, draw: np.random.Generator, compared: Compared) -> Study:
    """A study of every combination of the values; each cell has its own mean and its own chances of each fate."""
    values = [[(name, value) for value in VALUES[name][:size]] for name, size in axes]
    cells = [StudyCell(tuple(place)) for place in itertools.product(*values)]
    rows = []
    for index, cell in enumerate(cells):
        chances, level = draw.dirichlet(np.full(len(FATES), 0.4)), int(draw.integers(55, 95))
        for seed in range(1, size + 1):
            fate = FATES[draw.choice(len(FATES), p=chances)]
            correct = {"failed": MAJORITY, "near chance": MAJORITY + 1}.get(fate, level + int(draw.integers(-3, 4)))
            finished = fate not in ("crashed", "missing")
            row = {"trial": f"{index}-{seed}", "cell": index, "seed": seed, **dict(cell.axes)}
            row |= {"status": "finished" if finished else fate, "metric": "accuracy" if finished else None}
            if finished:
                failed = fate in ("failed", "diverged")
                row |= {"outcome": "failed" if failed else "ok", "reason": "diverged" if fate == "diverged" else None}
                row |= {"majority_score": MAJORITY / EXAMPLES, "majority_correct": MAJORITY, "dev_examples": EXAMPLES}
                if fate != "diverged":
                    row |= {"final_score": correct / EXAMPLES, "correct": correct, "final_train_loss": 0.3}
            rows.append(row)
    runs = pd.DataFrame(rows).reindex(columns=[*columns(), *(name for name, _ in axes)])
    for name in runs.columns:
        if name in TEXTS:
            runs[name] = runs[name].astype(object).where(runs[name].notna(), None)
    for name, _ in axes:
        runs[name] = pd.Series([dict(cells[index].axes)[name] for index in runs["cell"]], dtype=object)
    return Study(name="made", title="Made", cells=tuple(cells), runs=runs, compared=compared)


@st.composite
def studies(draw: st.DrawFn) -> Study:
    names = draw(st.permutations(AXES))[: draw(st.integers(1, 3))]
    axes = [(name, draw(st.integers(1, min(len(VALUES[name]), 3 if len(names) > 2 else 4)))) for name in names]
    compared = Compared(main=draw(st.sampled_from([None, names[-1]])), all_pairs=draw(st.booleans()))
    return study_from(axes, draw(st.integers(1, 6)), np.random.default_rng(draw(st.integers(0, 2**32))), compared)


def sentences_of(analysis: Analysis) -> list[str]:
    return [*opening.answer(analysis), *(text for section in SECTIONS for text in section.sentences(analysis))]


def frame_of(analysis: Analysis, name: str) -> pd.DataFrame:
    own = {spec.name: spec for spec in TABLES}
    return own[name].frame(analysis) if name in own else analysis.tables[name]


def check(analysis: Analysis, sentence: str, claim: Claim) -> None:
    """A claim against its row, against the runs themselves, and against the words."""
    rows = rows_of(frame_of(analysis, claim.table), claim.row)
    assert len(rows) == 1 or not claim.row
    value, low, high = claim.estimate.value, claim.estimate.low, claim.estimate.high
    assert math.isnan(low) or low - 1e-9 <= value <= high + 1e-9
    if claim.quantity == "failure rate":
        row = rows.iloc[0]
        assert (value, claim.n) == (row["failed"] / row["judged"], row["judged"])
        assert recount(analysis.study, claim) == (round(value * claim.n), claim.n)
        assert rate_words(claim).partition(" (")[0] in sentence
    elif claim.quantity == "difference in failure rate":
        row = rows.iloc[0]
        assert [value, low, high, claim.p] == [
            row[name] for name in ("difference", "difference_low", "difference_high", "p_adjusted")
        ]
        assert (value, row["p"]) == pytest.approx(by_hand(analysis.study, claim), abs=1e-9)
        assert (row["p"] < 0.05) == (low > 0 or high < 0) or abs(row["p"] - 0.05) < 1e-6
        assert points_words(claim.estimate) in sentence or claim.direction == 0 or "more" in sentence
    elif claim.quantity == "best set":
        assert (value, claim.n) == (
            rows[claim.column].sum(),
            (rows["judged" if "rate" in claim.column else "scored"] > 0).sum(),
        )
    else:
        assert claim.quantity == "share"
        assert value == rows.iloc[0][claim.column]
        assert 0 <= low <= high <= 1


def recount(study: Study, claim: Claim) -> tuple[int, int]:
    """Failed and judged runs of a row, counted in the runs themselves."""
    key, runs = dict(claim.row), study.runs[study.runs["outcome"].notna()]
    if claim.table == "arms":
        runs = runs[runs[key["axis"]] == key["value"]]
    elif claim.row:
        runs = runs[runs["cell"] == key["cell"]]
    return int((runs["outcome"] == "failed").sum()), len(runs)


def by_hand(study: Study, claim: Claim) -> tuple[float, float]:
    """Mantel and Haenszel's risk difference and Cochran's test, from the runs, stratum by stratum."""
    key, runs = dict(claim.row), study.runs[study.runs["outcome"].notna()]
    others = [name for name in study.axes if name != key["axis"]]
    distance = weight = expected = variance = 0.0
    for _, stratum in runs.groupby(others, sort=False) if others else [((), runs)]:
        arms = [stratum[stratum[key["axis"]] == key[name]]["outcome"] == "failed" for name in ("reference", "value")]
        (k1, n1), (k2, n2) = ((int(arm.sum()), len(arm)) for arm in arms)
        if not n1 or not n2:
            continue
        n, k = n1 + n2, k1 + k2
        distance += n1 * n2 / n * (k2 / n2 - k1 / n1)
        weight += n1 * n2 / n
        expected += k2 - n2 * k / n
        variance += n1 * n2 * k * (n - k) / (n**2 * (n - 1))
    return distance / weight, math.erfc(abs(expected) / math.sqrt(2 * variance)) if variance else 1.0


def check_together(analysis: Analysis, texts: list[str]) -> None:
    """No two claims contradict each other, and the words fit what is decided."""
    said: dict[tuple[object, ...], Claim] = {}
    rates: dict[object, float] = {}
    for sentence in texts:
        for claim in claims_of(sentence):
            before = said.setdefault((claim.quantity, claim.table, claim.row, claim.column), claim)
            assert before.estimate == claim.estimate or before == claim
            assert before.direction == claim.direction
            if claim.table == "arms":
                rates[dict(claim.row)["value"]] = claim.estimate.value
        if "makes no significant difference" in sentence or sentence.startswith("No significant difference"):
            assert not any(claim.decided for claim in claims_of(sentence))
        if "changes the failure rate by" in sentence or "the failure rate differs by" in sentence:
            assert all(claim.decided for claim in claims_of(sentence))
        if "no other recipe may be" in sentence:
            assert [claim.estimate.value for claim in claims_of(sentence)] == [1]
    for claim in said.values():  # Simpson's paradox: pooled rates shown never go against the contrast
        key = dict(claim.row)
        if claim.table == "contrasts" and key["value"] in rates and key["reference"] in rates:
            assert (rates[key["value"]] - rates[key["reference"]]) * claim.estimate.value >= 0
    best = analysis.best_set
    if best["mean"].notna().any():
        assert best.loc[best["mean"].idxmax(), "maybe_best_mean"]


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(studies())
def test_claims_are_their_rows_and_do_not_contradict(study):
    analysis = analyse(study)
    texts = sentences_of(analysis)
    for sentence in texts:
        for claim in claims_of(sentence):
            check(analysis, sentence, claim)
    check_together(analysis, texts)
    assert all(isinstance(sentence, Sentence) for sentence in opening.answer(analysis))


def test_a_wrong_claim_is_seen():
    compared = Compared()
    study = study_from([("bias_correction", 2), ("lr", 2)], 6, np.random.default_rng(2), compared)
    analysis = analyse(study)
    texts = sentences_of(analysis)
    claims = [(text, claim) for text in texts for claim in claims_of(text) if claim.table == "arms"]
    assert claims
    text, claim = claims[0]
    check(analysis, text, claim)
    wrong = Claim(claim.quantity, claim.subject, claim.estimate, claim.n + 1, claim.table, claim.row, claim.column)
    with pytest.raises(AssertionError):
        check(analysis, text, wrong)
