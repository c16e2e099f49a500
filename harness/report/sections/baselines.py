"""Does fine-tuning beat simple classifiers on the same data?"""

from __future__ import annotations

import pandas as pd

from harness.analysis.analyze import Analysis
from harness.common.text import count_noun
from harness.report.formatting import Row, points, score, unknown
from harness.report.section import Section
from harness.report.table import Column, TableSpec, k_of_n, number, with_interval
from harness.report.wording import run_count


def sentences(analysis: Analysis) -> list[str]:
    """Whether the best cell beats the best of the simple classifiers, and by how much."""
    table, texts = analysis.baselines, []
    for task, of_task in table.groupby("task", sort=False):
        texts += _of_task(of_task, f"On {task} the" if table["task"].nunique() > 1 else "The")
    kinds = table[table["cell"].isna()].drop_duplicates("what")
    if len(kinds):
        texts.append("; ".join(f"{row['what']}: {row['settings']}" for row in kinds.to_dict("records")) + ".")
    return [*texts, *_not_trained_yet(analysis)]


def _of_task(table: pd.DataFrame, start: str) -> list[str]:
    cells, others = table[table["cell"].notna() & table["mean"].notna()], table[table["cell"].isna()]
    if not len(cells):
        return []
    top, other = cells.loc[cells["mean"].idxmax()], others.loc[others["mean"].idxmax()]
    gap = top["mean"] - other["mean"]
    text = (
        f"{start} best cell, {top['what']} (mean {score(top['mean'])} of {run_count(int(top['runs']))}), "
        + ("equals" if abs(gap) < 1e-12 else f"is {score(abs(gap))} {'above' if gap > 0 else 'below'}")
        + f" the best baseline, {other['what']} ({score(other['mean'])}"
        + (f" of {run_count(int(other['runs']))}" if other["runs"] > 1 else "")
        + ")"
    )
    low, high = top["difference_low"], top["difference_high"]
    if not unknown(low):
        side = "beats it" if low > 0 else "falls short of it" if high < 0 else "cannot be distinguished from it"
        bounds = f"{points(top['difference'])} [{100 * low:.1f}, {100 * high:.1f}]".replace("-", "−")
        text += f"; the difference in accuracy over seeds and dev examples is {bounds}: fine-tuning {side}"
        text += " (the best cell was selected on these examples, which favours it)" if len(cells) > 1 else ""
    below = int((cells["mean"] <= other["mean"]).sum())
    if below == 0 or below == len(cells):
        return [f"{text}."]
    return [f"{text}.", f"{below} of {len(cells)} cells have a mean at or below {other['what']}'s."]


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
