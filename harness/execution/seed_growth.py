"""A sweep whose seeds are added by rule: how far its plan has grown, and how it grows while the sweep runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from harness.config.seed_rule import Growth
from harness.config.trials import Sweep, every_seed, expand
from harness.execution.pool import Running
from harness.records.record import Record
from harness.records.store import Store

if TYPE_CHECKING:
    from harness.analysis.stopping import RunResult, Standing


def standing(sweep: Sweep, store: Store, records: Mapping[str, Record] | None = None) -> Standing:
    """How far a sweep with a rule has come, by its plan and its records.

    Args:
        sweep: the sweep, as its file says or as it was planned before.
        store: its results folder.
        records: those that were read already, by trial id.
    """
    return SeedGrowth(sweep, store, records).standing


def grown(sweep: Sweep, store: Store) -> Sweep:
    """The sweep, where seeds are added by rule with its plan as far as records go; nothing is written."""
    return sweep if sweep.rule is None else standing(sweep, store).sweep


class SeedGrowth:
    """Further seeds for a sweep's cells (`options.PlanSource`), once all that is planned has ended."""

    by_recipe = False
    stopped: frozenset[str] = frozenset()

    def __init__(self, sweep: Sweep, store: Store, records: Mapping[str, Record] | None = None) -> None:
        """Take up what the folder's plan and records say of a sweep with a rule."""
        self.store = store
        self._results = {} if records is None else {name: _result(record) for name, record in records.items()}
        old = store.load_plan()
        self.standing = self._advance(sweep if old is None or sweep.growth else _taken_up(sweep, old, store))
        self._told = 0  # looks that the person knows of

    @property
    def sweep(self) -> Sweep:
        """The sweep with its plan so far."""
        return self.standing.sweep

    @property
    def left(self) -> int:
        """How many trials the next look may add."""
        rule = self.sweep.rule
        assert rule is not None
        if not self.standing.waiting:
            return 0
        return sum(min(rule.step, rule.at_most - seeds) for seeds in self.sweep.due)

    def grown(self) -> Sweep | None:
        """The sweep with more seeds, where all that is planned has ended and the rule asks for more."""
        before = self.sweep
        self.standing = self._advance(before)  # anew after a stop, too: crashed runs may have been tried again
        return None if self.sweep.due == before.due else self.sweep

    def news(self) -> tuple[str, ...]:
        """What was decided after the last look, once."""
        if self.standing.decision is None or self.standing.looks == self._told:
            return ()
        self._told = self.standing.looks
        from harness.analysis.stopping import words

        return (words(self.standing),)

    def hopeless(self, running: Running) -> bool:
        """Never: every seed of a cell counts."""
        return False

    def stop(self, running: Running) -> str:
        """Not called: no pack is given up."""
        raise NotImplementedError

    def _advance(self, sweep: Sweep) -> Standing:
        from harness.analysis.stopping import advance  # scipy, which a sweep with fixed seeds does without

        return advance(sweep, self._result)

    def _result(self, trial: str) -> RunResult | None:
        """The result of a trial that ended; a crashed one may be tried again."""
        known = self._results.get(trial)
        if known is None or known.failed is None:
            record = self.store.load(trial)
            if record is None:
                return None
            known = self._results[trial] = _result(record)
        return known


def _result(record: Record) -> RunResult:
    from harness.analysis.stopping import RunResult

    measured = record.measured
    return RunResult(None, None) if measured is None else RunResult(measured.outcome == "failed", measured.lane_seconds)


def _taken_up(sweep: Sweep, old: Sweep, store: Store) -> Sweep:
    """The sweep with the looks of an older plan, as far as its cells and seeds are the same.

    Of a plan with fixed seeds the trained ones count, so that none is orphaned by a rule.
    """
    rule = sweep.rule
    assert rule is not None
    looks: tuple[tuple[int, ...], ...]
    places = {cell.key: index for index, cell in enumerate(old.cells)}
    if old.rule is None or old.growth is None:
        due = tuple(max(rule.first, seeds) for seeds in _trained(sweep, old, store))
        looks, horizon = (due,), rule.at_most
    else:
        shared = min(len(old.seeds), len(sweep.seeds))
        if old.seeds[:shared] != sweep.seeds[:shared]:
            return sweep
        horizon = old.growth.horizon

        keys = [cell.key for cell in sweep.cells]

        def mapped(look: tuple[int, ...], least: int) -> tuple[int, ...]:
            seeds = [look[places[key]] if key in places else least for key in keys]
            return tuple(min(number, rule.at_most) for number in seeds)

        *before, last = old.growth.looks
        looks = (*(mapped(look, 0) for look in before), mapped(last, rule.first))
    return sweep.model_copy(update={"growth": Growth(horizon=horizon, looks=looks)})


def _trained(sweep: Sweep, old: Sweep, store: Store) -> tuple[int, ...]:
    """Up to which of its seeds each cell has records, by the trials of an older plan."""
    recorded = {trial.id for trial, record in store.each(expand(old)) if record is not None}
    positions = {seeds: number for number, seeds in enumerate(sweep.seeds, 1)}
    due = [0] * len(sweep.cells)
    for trial in expand(every_seed(sweep)):
        if trial.id in recorded:
            due[trial.cell] = max(due[trial.cell], positions[trial.seeds])
    return tuple(due)
