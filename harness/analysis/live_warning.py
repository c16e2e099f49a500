"""Which runs in training are at risk: by the rule of `early_warning`, learned from the finished runs of other recipes.

It is a forecast: what is at risk has not failed, and nothing here stops it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import chain, islice, zip_longest

import numpy as np

from harness.analysis import diagnosis, early_warning
from harness.analysis.verdicts import verdicts
from harness.common.text import count_noun
from harness.config.trials import Sweep, Trial
from harness.records import early_signals
from harness.records.frame import frame
from harness.records.store import Store

MOST_RUNS = 300  # that are learned from: reading their arrays takes a second
_GROWN = 1.1  # so many times the finished runs, and the rules are learned again


class Lessons:
    """What the finished and recorded runs of a sweep teach; each run is read once."""

    def __init__(self, store: Store) -> None:
        """Learn from runs in `store`; nothing is read before `learn`."""
        self.store = store
        self.signals: dict[str, np.ndarray | None] = {}  # [T, K] by trial; None: not recorded
        self.finished = 0  # runs that there were when the rules were learned
        self.found, self.lost, self.cells = early_signals.of_runs([]), np.empty(0, dtype=bool), np.empty(0, dtype=int)
        self.rules: dict[int, early_warning.Kept | str] = {}

    def learn(self, sweep: Sweep, finished: Sequence[Trial]) -> None:
        """Learn from these finished trials of a sweep, where they are a tenth more than the last time."""
        if self.finished and len(finished) < _GROWN * self.finished:
            return
        self.finished, self.rules = len(finished), {}
        table = frame(sweep, self.store, spread(finished))
        table["verdict"] = verdicts(table)
        table = table[(table["status"] == "finished") & (table["verdict"] != "unjudged")]
        steps = diagnosis.planned_steps(table)
        rows = []
        for row, trial in table["trial"].items():
            if trial not in self.signals:
                curves = self.store.arrays(trial)
                self.signals[trial] = None if curves is None or curves.recording is None else early_signals.signals(
                    curves.train_loss, steps[int(row)], curves.eval_step, curves.recording
                )  # fmt: skip
            if self.signals[trial] is not None:
                rows.append(row)
        chosen = table.loc[rows]
        self.found = early_signals.of_runs(
            [found for one in chosen["trial"] if (found := self.signals[one]) is not None]
        )
        self.lost = chosen["verdict"].isin(diagnosis.LOST).to_numpy(dtype=bool)
        self.cells = chosen["cell"].to_numpy(dtype=int)

    def rule(self, cell: int) -> early_warning.Kept | str:
        """The first rule that the runs of other cells give, or why they give none."""
        if cell not in self.rules:
            self.rules[cell] = self._rule(self.cells != cell)
        return self.rules[cell]

    def _rule(self, others: np.ndarray) -> early_warning.Kept | str:
        found, lost, cells = self.found[others], self.lost[others], self.cells[others]
        bad, good = (len(np.unique(cells[which])) for which in (lost, ~lost))
        if bad < 2 or good < 2:  # a rule is tried on cells that it was not learned from
            return (
                "it takes finished, recorded runs of two other recipes that failed or ended near chance and of two "
                f"that did not, and there are {bad} and {good}"
            )
        kept = early_warning.first_rule(found, lost, cells)
        if kept is None:
            share, wrong = f"{100 * early_warning.CAUGHT:g} %", f"{100 * early_warning.FALSE_ALARMS:g} %"
            return f"no one signal tells {share} of the lost runs with at most {wrong} false alarms"
        return kept


def spread(finished: Sequence[Trial]) -> list[Trial]:
    """The trials to learn from, `MOST_RUNS` at most: the first of each cell, then the second of each, and so on."""
    cells: dict[int, list[Trial]] = defaultdict(list)
    for trial in finished:
        cells[trial.cell].append(trial)
    in_turn = chain.from_iterable(zip_longest(*cells.values()))
    return list(islice((trial for trial in in_turn if trial is not None), MOST_RUNS))


def look_lost(rule: early_warning.Kept | str, signals: np.ndarray) -> list[bool | None]:
    """Whether lanes are at risk by their signals so far [L, T, K]; None where that can't be told (yet)."""
    if isinstance(rule, str):
        return [None] * len(signals)
    told, alarms = rule.rule.known(signals), rule.rule.alarms(signals)
    return [bool(alarm) if known else None for known, alarm in zip(told, alarms, strict=True)]


def words(rules: Sequence[early_warning.Kept | str], lost: Sequence[bool | None]) -> str:
    """How many lanes are at risk and by which rule, or why it can't be told; a rule and a verdict a lane."""
    lanes, alarms, unknown = len(lost), lost.count(True), lost.count(None)
    learned = [rule for rule in rules if not isinstance(rule, str)]
    if not learned:
        ((why, _),) = Counter(rule for rule in rules if isinstance(rule, str)).most_common(1)
        return f"Which of {count_noun(lanes, 'training lane')} are at risk can't be told yet: {why}."
    used = [rule for rule, one in zip(rules, lost, strict=True) if one and not isinstance(rule, str)] or learned
    ((first, _),) = Counter(rule.rule.words for rule in used).most_common(1)
    kept = next(rule for rule in used if rule.rule.words == first)
    more = len({rule.rule.words for rule in used}) - 1
    yet = f"; {unknown} can't be told yet" if unknown else ""
    rules = f"{first}, or {count_noun(more, 'other rule')}" if more else first
    return (
        f"{alarms} of {count_noun(lanes, 'training lane')} {'is' if alarms == 1 else 'are'} at risk{yet}. "
        f"At risk: {rules}; of the finished runs of other recipes this flags {kept.caught} of {kept.lost} that failed "
        "or ended near chance, with "
        f"{count_noun(kept.false, 'false alarm')} among {kept.others}."
    )
