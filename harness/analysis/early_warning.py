"""How early can it be told that a run will fail? The first rule that holds.

Numbers in, numbers out: also for runs that still train, and nothing is learned from the recipe that is judged by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.records.early_signals import LOGARITHMS, SHARES, SIGNALS, Floats

if TYPE_CHECKING:
    from harness.stats.estimate import Estimate


FALSE_ALARMS = 0.01  # of the runs that learn, at most


CAUGHT = 0.5  # of the runs that are lost, at least: a rule that tells fewer is none


_MOST_RUNS = 2000  # compared pair by pair; of more, so many are drawn


_FOLDS = 30  # cells are left out one by one up to so many, then in so many groups


_RESAMPLES = 1000


_MOST_CELLS = 100  # are drawn one by one


# ------------------------------------------------------------------------------------------------- how well they tell


@dataclass(frozen=True)
class Telling:
    """How well one signal tells lost runs from others: over all pairs of runs, and over the `pairs` of one cell."""

    auc: Estimate
    within: float
    pairs: int = 0


def telling(signal: Floats, lost: Floats, cells: Floats, rng: np.random.Generator) -> Telling:
    """The area under the ROC curve of a signal [R] for whether runs are lost [R], with a bootstrap over cells.

    It is the share of pairs of a lost and another run in which the signal puts them in the right order, ties counting
    half (Mann and Whitney 1947). Which order is right for a pair is learned from the runs of the cells that neither of
    the two belongs to; a pair for which there are none is left out. NaN where no pair is left, intervals with fewer
    than three cells that have pairs.
    """
    from harness.stats.estimate import Estimate  # scipy, which nobody pays for who only watches a run

    known = ~np.isnan(signal)
    signal, lost, cells = signal[known], lost[known], cells[known]
    unknown = Estimate(np.nan, np.nan, np.nan)
    if not lost.any() or lost.all():
        return Telling(unknown, np.nan)
    right, pairs = _oriented(*_by_cells(signal, lost, cells, rng))
    total = pairs.sum()
    if not total:
        return Telling(unknown, np.nan)
    same = int(np.trace(pairs))
    grouped, of = (_grouped(counts) for counts in (right, pairs))
    drawn = rng.multinomial(len(of), np.full(len(of), 1 / len(of)), size=_RESAMPLES).astype(float)
    with np.errstate(invalid="ignore"):
        again = ((drawn @ grouped) * drawn).sum(axis=1) / ((drawn @ of) * drawn).sum(axis=1)
    again = again[np.isfinite(again)]
    bounds = np.percentile(again, [2.5, 97.5]) if len(pairs) >= 3 and len(again) else (np.nan, np.nan)
    value = Estimate(float(right.sum() / total), float(bounds[0]), float(bounds[1]))
    return Telling(value, float(np.trace(right) / same) if same else np.nan, same)


def _grouped(counts: Floats) -> Floats:
    """Counts between cells [C, C] as they are, or of very many between groups of them, which are drawn together."""
    if len(counts) <= _MOST_CELLS:
        return counts
    missing = -len(counts) % _MOST_CELLS
    rows = (len(counts) + missing) // _MOST_CELLS
    filled = np.pad(counts, (0, missing)).reshape(rows, _MOST_CELLS, rows, _MOST_CELLS)
    return np.asarray(filled.sum(axis=(0, 2)))  # of halves: exact in any order


def _by_cells(signal: Floats, lost: Floats, cells: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Of each pair of cells [C, C]: pairs of a lost run in the one and another in the other in which the lost run has
    the larger signal, and all pairs.
    """
    if len(signal) > _MOST_RUNS:
        chosen = np.sort(rng.choice(len(signal), _MOST_RUNS, replace=False))
        signal, lost, cells = signal[chosen], lost[chosen], cells[chosen]
    names, places = np.unique(cells, return_inverse=True)
    above, below = signal[lost], signal[~lost]
    larger = (above[:, None] > below).astype(float) + (above[:, None] == below) / 2
    of_lost, of_others = (np.bincount(places[which], minlength=len(names)) for which in (lost, ~lost))
    for axis, counts, order in ((0, of_lost, places[lost]), (1, of_others, places[~lost])):
        larger = np.take(larger, np.argsort(order, kind="stable"), axis=axis)
        starts = np.cumsum(counts) - counts
        larger = np.add.reduceat(larger, starts[counts > 0], axis=axis)  # of halves: exact in any order
    found = np.zeros((len(names), len(names)))
    found[np.ix_(of_lost > 0, of_others > 0)] = larger
    return found, np.outer(of_lost, of_others).astype(float)


def _oriented(larger: Floats, pairs: Floats) -> tuple[Floats, Floats]:
    """Rightly ordered pairs and pairs, [C, C]: the order that the pairs without either cell have."""

    def without(counts: Floats) -> Floats:
        touching = counts.sum(axis=0) + counts.sum(axis=1) - np.diag(counts)  # one cell
        either = touching[:, None] + touching - counts - counts.T
        np.fill_diagonal(either, touching)
        return np.asarray(counts.sum() - either)

    rest, of = without(larger), without(pairs)
    known = of > 0.5
    upwards = rest >= of / 2
    return np.where(known, np.where(upwards, larger, pairs - larger), 0.0), np.where(known, pairs, 0.0)


# ------------------------------------------------------------------------------------------------------------ the rule


@dataclass(frozen=True)
class Rule:
    """An alarm: at `share` of a run its signal times `sign` is above `threshold`."""

    signal: str
    share: float
    sign: int
    threshold: float

    @property
    def words(self) -> str:
        """`middle gradient below 3.1e-05 at 25 % of a run`."""
        side = "above" if self.sign > 0 else "below"
        return f"{self.signal} {side} {self.value:.3g} at {100 * self.share:g} % of a run"

    @property
    def value(self) -> float:
        """The threshold as people read it: of a signal that is kept as a logarithm, the number itself."""
        at = self.sign * self.threshold + 0.0  # no −0
        return 10.0**at if self.signal in LOGARITHMS else at

    def alarms(self, found: Floats) -> np.ndarray:
        """Which runs of signals [R, T, K] it takes for lost, [R]; one with an infinite loss is."""
        row = self._row
        with np.errstate(invalid="ignore"):
            beyond = self.sign * found[:, row, SIGNALS.index(self.signal)] > self.threshold
        return np.asarray(beyond | np.isposinf(found[:, row, 0]))

    def known(self, found: Floats) -> np.ndarray:
        """Of which runs of signals [R, T, K] that train it can tell already, [R]."""
        here = found[:, self._row]
        return np.asarray(~np.isnan(here[:, SIGNALS.index(self.signal)]) | np.isposinf(here[:, 0]))

    @property
    def _row(self) -> int:
        return int(np.flatnonzero(np.isclose(SHARES, self.share))[0])


@dataclass(frozen=True)
class Kept:
    """How a rule does on cells that it was not learned from: alarms [R], and what they are."""

    rule: Rule  # learned from all cells
    alarms: np.ndarray
    caught: int
    lost: int
    false: int
    others: int


def _learned(found: Floats, lost: Floats, row: int, column: int) -> Rule | None:
    """The rule of a signal at a share that gives the runs of `found` [R, T, K] at most 1 % false alarms, with room."""
    values = found[:, row, column]
    known = ~np.isnan(values)
    bad, good = values[known & lost], np.sort(values[known & ~lost])
    if not len(bad) or not len(good):
        return None
    above = np.searchsorted(good, bad, side="left") + np.searchsorted(good, bad, side="right")  # twice the rank
    sign = 1 if above.sum() >= len(bad) * len(good) else -1
    ordered = np.sort(sign * good)[::-1]
    last = ordered[min(int(FALSE_ALARMS * len(good)), len(ordered) - 1)]  # that must give no alarm
    beyond = sign * bad[sign * bad > last]
    # Half-way to the next lost run, so that the runs of another recipe have room.
    threshold = (last + beyond.min()) / 2 if len(beyond) and np.isfinite(beyond.min()) else last
    return Rule(SIGNALS[column], float(SHARES[row]), sign, float(threshold))


def held(found: Floats, lost: Floats, cells: Floats, row: int, column: int) -> Kept | None:
    """How the rule of a signal at a share does by leave-one-cell-out; None where it can't be learned.

    `found` [R, T, K], `lost` and `cells` [R]. With more than thirty cells, groups of whole cells are left out.
    """
    rule = _learned(found, lost, row, column)
    names, places = np.unique(cells, return_inverse=True)
    if rule is None or len(names) < 2:
        return None
    folds = places % _FOLDS
    alarms = np.zeros(len(found), dtype=bool)
    for fold in np.unique(folds):
        out = folds == fold
        other = _learned(found[~out], lost[~out], row, column)
        if other is None:
            return None
        alarms[out] = other.alarms(found[out])
    return Kept(
        rule,
        alarms,
        caught=int((alarms & lost).sum()),
        lost=int(lost.sum()),
        false=int((alarms & ~lost).sum()),
        others=int((~lost).sum()),
    )


def first_rule(found: Floats, lost: Floats, cells: Floats) -> Kept | None:
    """The rule of `first_that_holds` for signals [R, T, K]; shares after it are not looked at."""
    shares = range(len(SHARES) - 1)
    return first_that_holds([held(found, lost, cells, row, column) for column in range(len(SIGNALS))] for row in shares)


def first_that_holds(by_share: Iterable[Sequence[Kept | None]]) -> Kept | None:
    """The rule of the first share that catches half of the lost runs with at most 1 % false alarms, by
    leave-one-cell-out; of several the one that catches most. None where there is none.

    `by_share` has those of each signal, share by share before the end. It is the best of many looked at on the same
    runs: what it does on others will be a little worse.
    """
    for rules in by_share:
        good = [
            kept
            for kept in rules
            if kept is not None and kept.false <= FALSE_ALARMS * kept.others and kept.caught >= CAUGHT * kept.lost
        ]
        if good:
            return max(good, key=lambda kept: kept.caught)
    return None
