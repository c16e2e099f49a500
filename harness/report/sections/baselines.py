"""Does fine-tuning beat simple classifiers on the same data?"""

from __future__ import annotations

import pandas as pd

from harness.analysis.analyze import Analysis
from harness.common.text import count_noun
from harness.report.claims import Sentence, Words, followed_by, row_at
from harness.report.formatting import Row, points, score, unknown
from harness.report.section import Section
from harness.report.table import Column, TableSpec, k_of_n, number, with_interval
from harness.report.wording import run_count


def sentences(analysis: Analysis) -> list[str]:
    """Whether the best cell beats the best of the simple classifiers, and by how much."""
    table, texts = analysis.baselines, list[str]()
    for task, of_task in table.groupby("task", sort=False):
        texts += _of_task(of_task, f"On {task} the" if table["task"].nunique() > 1 else "The")
    kinds = table[table["cell"].isna()].drop_duplicates("what")
    if len(kinds):
        texts.append("; ".join(f"{row['what']}: {row['settings']}" for row in kinds.to_dict("records")) + ".")
    return [*texts, *_not_trained_yet(analysis)]


def _of_task(table: pd.DataFrame, start: str) -> list[Sentence]:
    cells, others = table[table["cell"].notna() & table["mean"].notna()], table[table["cell"].isna()]
    if not len(cells):
        return []
    words, key = Words("baselines"), ["task", "what"]
    top, other = (row_at(rows, rows["mean"].idxmax()) for rows in (cells, others))
    gap = top["mean"] - other["mean"]

    def runs(row: Row) -> str:
        return words.value(row, key, "runs", lambda n: run_count(int(n)))

    text = (
        f"{start} best cell, {top['what']} (mean {words.value(top, key, 'mean', score)} of {runs(top)}), "
        + ("equals" if abs(gap) < 1e-12 else f"is {_gap(words, top, other)} {'above' if gap > 0 else 'below'}")
        + f" the best baseline, {other['what']} ({words.value(other, key, 'mean', score)}"
        + (f" of {runs(other)}" if other["runs"] > 1 else "")
        + ")"
    )
    low, high = top["difference_low"], top["difference_high"]
    if not unknown(low):
        side = "beats it" if low > 0 else "falls short of it" if high < 0 else "cannot be distinguished from it"
        bounds = f"[{100 * low:.1f}, {100 * high:.1f}]".replace("-", "−")
        difference = words.value(top, key, "difference", followed_by(points, bounds))
        text += f"; the difference in accuracy over seeds and dev examples is {difference}: fine-tuning {side}"
        text += " (the best cell was selected on these examples, which favours it)" if len(cells) > 1 else ""
    texts, below = [words.sentence(f"{text}.")], int((cells["mean"] <= other["mean"]).sum())
    if 0 < below < len(cells):
        words = Words("baselines")
        of_task = f"task == {top['task']!r} and cell >= 0"
        count = words.count(below, f"{of_task} and mean <= {float(other['mean'])!r}")
        of = words.count(len(cells), f"{of_task} and mean == mean")
        texts.append(words.sentence(f"{count} of {of} cells have a mean at or below {other['what']}'s."))
    return texts


def _gap(words: Words, top: Row, other: Row) -> str:
    pair = f"task == {top['task']!r} and what in {(top['what'], other['what'])!r}"
    return words.summary("range", abs(top["mean"] - other["mean"]), "mean", pair, score)


def _not_trained_yet(analysis: Analysis) -> list[str]:
    trained = set(analysis.baselines["what"])
    names = dict.fromkeys(name for sweep in analysis.study.sweeps for name in sweep.baselines)
    lacking = [name for name in names if name not in trained]
    if not lacking:
        return []
    return [
        f"Not trained on these data yet: {count_noun(len(lacking), 'baseline')} ({', '.join(lacking)}). "
        "The next `harness sweep` trains what is missing."
    ]


# --------------------------------------------------------------------------------------------------------------- tables


def _labels(analysis: Analysis) -> list[Column]:
    task: list[Column] = [("task", lambda row: row["task"])] if analysis.baselines["task"].nunique() > 1 else []
    return [*task, ("cell or baseline", lambda row: row["what"])]


def _runs(row: Row) -> str:
    return "any seed" if not unknown(row["sd"]) and row["runs"] == 1 else str(row["runs"])


def _columns(analysis: Analysis) -> list[Column]:
    return [
        ("runs", _runs),
        ("failed", k_of_n("failed", "judged")),
        ("mean [95 % over seeds]", with_interval("mean")),
        ("sd", number("sd")),
        ("accuracy [95 % over dev examples]", with_interval("dev")),
        ("accuracy minus the best baseline's [95 %]", with_interval("difference")),
    ]


def _named(table: pd.DataFrame) -> pd.DataFrame:
    return table.rename(columns={"accuracy": "dev"})


SECTION = Section(
    anchor="baselines",
    heading="Simple baselines",
    question="Does fine-tuning beat simple classifiers on the same data?",
    sentences=sentences,
    tables=(
        TableSpec(
            "baselines",
            "The cells beside simple classifiers on the same splits; differences over seeds and shared dev examples",
            _columns,
            _labels,
            rows=_named,
        ),
    ),
)
