"""How early can a failure be detected?"""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.analysis.analyze import Analysis
from harness.analysis.early_warning import CAUGHT, FALSE_ALARMS, Rule
from harness.common.text import count_noun
from harness.report.claims import Sentence, Words, row_at
from harness.report.formatting import Row, integer, percent, points, unknown
from harness.report.section import FigureSpec, Section
from harness.report.table import Column, TableSpec, k_of_n, number, with_interval

_WELL = 0.9  # of pairs in the right order
_WITHIN_CELLS = 0.7  # of them, from which on a signal tells runs of one recipe apart
_FEWEST_PAIRS = 10  # of runs of one recipe, below which it is not said what tells them apart


def sentences(analysis: Analysis) -> list[Sentence]:
    """The first rule that detects runs that end failed or near chance, what it would have saved and changed."""
    diagnosis = analysis.diagnosis
    if diagnosis.early_warning.empty:
        return [] if not diagnosis.recorded else [_why_not(analysis)]
    table = diagnosis.early_warning
    aim = (
        f"{percent(CAUGHT)} of the runs that fail or end near chance with at most {percent(FALSE_ALARMS)} false alarms"
    )
    if diagnosis.rule is None:
        words = Words("early_warning")
        rules = words.count(int((table["share"] < 1).sum()), "share < 1", lambda n: count_noun(n, "rule"))
        none = f"none of {rules} on one signal detects at least {aim}, on cells it was not fitted to, before the end."
        return [words.sentence(none), *_within_recipes(table)]
    return [_rule(diagnosis.rule.rule, aim, table), _stopping(analysis), *_within_recipes(table)]


def _rule(rule: Rule, aim: str, table: pd.DataFrame) -> Sentence:
    """The rule, what it caught on cells that it was not fitted to, and how its signal does within cells."""
    words, key = Words("early_warning"), ["share", "signal"]
    chosen = table[(table["share"] == rule.share) & (table["signal"] == rule.signal)]
    row = row_at(chosen, chosen.index[0])
    threshold = words.value(row, key, "threshold", "{:.3g}".format)
    share = words.value(row, key, "share", _share_of_training)
    caught, lost, false = (words.value(row, key, name, integer) for name in ("caught", "lost", "false"))
    others = words.value(row, key, "others", lambda n: f"{integer(n)} {'other' if n == 1 else 'others'}")
    return words.sentence(
        f"the first rule that detects at least {aim}, on cells it was not fitted to: {rule.signal} "
        f"{'above' if rule.sign > 0 else 'below'} {threshold} at {share} of a run. Over all cells together it caught "
        f"{caught} of {lost} of those runs, with false alarms in {false} of {others}; as the first of many rules tried "
        f"on these runs it is likely to do worse on others. {_within_cells(words, row)}"
    )


def _within_cells(words: Words, row: Row) -> str:
    if unknown(row["within"]):
        return "How well its signal separates runs within a cell is unknown, as no cell has both outcomes."
    key = ["share", "signal"]
    end = "." if row["within"] >= _WITHIN_CELLS else ": it separates recipes more than runs of one recipe."
    pairs = words.value(row, key, "pairs", _pairs_of_runs)
    return f"The signal orders {words.value(row, key, 'within', percent)} of {pairs} within a cell correctly{end}"


def _pairs_of_runs(n: float) -> str:
    return f"{count_noun(int(n), 'pair')} of runs"


def _share_of_training(share: float) -> str:
    return percent(share, 1)


def _stopping(analysis: Analysis) -> Sentence:
    """What stopping by the rule would have saved, and changed."""
    table, words = analysis.diagnosis.stopping, Words("stopping")
    stopped = words.summary("sum", int(table["stopped"].sum()), "stopped", form=lambda n: count_noun(int(n), "run"))
    wrongly = words.summary("sum", int(table["wrongly"].sum()), "wrongly")
    time = ""
    if table["seconds"].sum():
        share = float(table["seconds_saved"].sum() / table["seconds"].sum())
        saved = words.summary("ratio", share, "seconds_saved", form=percent, over="seconds")
        time = f" and saved {saved} of the training time of the recorded runs"
    changed, parts = int((table["failed_after"] != table["failed"]).sum()), list[str]()
    if changed:
        cells = words.count(changed, "failed_after != failed", lambda n: count_noun(n, "cell"))
        parts.append(f"the number of failed runs would change in {cells}")
    if table["shift"].max() > 0:
        most = words.summary("max", float(table["shift"].max()), "shift", "shift == shift", points)
        parts.append(f"the mean score of the remaining runs would be at most {most} above that of all runs")
    consequences = "; ".join(parts) or "no cell's numbers would change"
    return words.sentence(
        f"stopping by this rule would have ended {stopped} ({wrongly} wrongly){time}; {consequences}. A study's own "
        "runs are never stopped by it."
    )


def _within_recipes(table: pd.DataFrame) -> list[Sentence]:
    """From when on a signal tells runs of one recipe apart, to the end; not where only a few pairs say so."""
    earliest: dict[str, int] = {}  # signal -> label of the row from which on it is good
    for name, of_signal in table[table["pairs"] >= _FEWEST_PAIRS].groupby("signal", sort=False):
        poor = np.flatnonzero(~(of_signal["within"] >= _WELL).to_numpy())
        position = int(poor[-1]) + 1 if len(poor) else 0
        if position < len(of_signal) - 1:
            earliest[str(name)] = int(of_signal.index[position])
    if not earliest:
        return []
    first = min(earliest, key=lambda name: table["share"][earliest[name]])
    words, key, row = Words("early_warning"), ["share", "signal"], row_at(table, earliest[first])
    after = table[(table["signal"] == first) & (table["share"] >= row["share"]) & (table["pairs"] >= _FEWEST_PAIRS)]
    which = f"signal == {first!r} and share >= {float(row['share'])!r} and pairs >= {_FEWEST_PAIRS}"
    worst = words.summary("min", float(after["within"].min()), "within", which, percent)
    orders = f"orders {worst}" if after["within"].min() == 1 else f"never orders fewer than {worst}"
    return [
        words.sentence(
            f"among runs of one recipe the earliest signal is the {first}: from "
            f"{words.value(row, key, 'share', _share_of_training)} of training on it {orders} "
            f"of {words.value(row, key, 'pairs', _pairs_of_runs)} correctly."
        )
    ]


def _why_not(analysis: Analysis) -> Sentence:
    lost, recorded = analysis.diagnosis.recorded_lost, analysis.diagnosis.recorded
    if not lost:
        return Sentence("all recorded runs learned, so there is nothing to warn of.")
    if lost == recorded:
        return Sentence("no recorded run learned, so there is nothing to compare.")
    return Sentence("early warning is evaluated on held-out cells and needs at least two cells.")


# --------------------------------------------------------------------------------------------------------------- tables


def _of_signals(analysis: Analysis) -> list[Column]:
    return [
        ("training done", number("share", lambda value: percent(value, 1))),
        ("AUC [95 %]", with_interval("auc")),
        ("AUC within cells", number("within")),
        ("pairs within cells", number("pairs", integer)),
        ("alarm", _alarm),
        ("caught", k_of_n("caught", "lost")),
        ("false alarms", k_of_n("false", "others")),
    ]


def _alarm(row: Row) -> str:
    return "–" if unknown(row["threshold"]) else f"{'above' if row['above'] else 'below'} {row['threshold']:.3g}"


def _of_stopping(analysis: Analysis) -> list[Column]:
    return [
        ("runs", number("runs", integer)),
        ("stopped", number("stopped", integer)),
        ("wrongly", number("wrongly", integer)),
        ("failed", number("failed", integer)),
        ("failed or stopped", number("failed_after", integer)),
        ("mean", number("mean")),
        ("mean of the rest", number("mean_after")),
        ("time saved", number("saved", percent)),
    ]


SECTION = Section(
    anchor="early",
    heading="Early warning",
    question="How early can a failure be detected, and what would stopping the run change?",
    sentences=sentences,
    figure=FigureSpec(
        "diagnosis.early_warning",
        "Left how well a signal separates runs that fail or end near chance from others: 1 perfectly, 0.5 not at all; "
        "bands are 95 % intervals over cells. Right what a rule on it catches; dots where it gave at most 1 % false "
        "alarms. All on held-out cells; the dashed line is the first rule that meets the target.",
    ),
    tables=(
        TableSpec("stopping", "Effect of stopping runs by the rule", _of_stopping),
        TableSpec(
            "early_warning",
            "How well each signal detects runs that fail or end near chance, by share of training (leave-one-cell-out)",
            _of_signals,
            lambda analysis: [("signal", lambda row: row["signal"])],
            folded=True,
        ),
    ),
    glossary=(
        (
            "AUC",
            "Area under the ROC curve: of the pairs of a run that failed or ended near chance and another run, the "
            "share "
            "that a signal orders correctly. The direction is learned from cells that neither of the two belongs to. "
            "AUC, alarms and false alarms are over the runs of all cells together, so telling recipes apart counts; "
            "within cells only pairs of runs of one cell do.",
        ),
    ),
)
