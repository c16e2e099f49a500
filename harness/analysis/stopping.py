"""Which seeds come next, where they are added by rule: from the results so far to a decision, and why, in words.

All of it is a function of the results: in which order they came, and on how many machines, changes nothing. A decision
is made when every planned run has ended; one that is under way decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from typing import NamedTuple

from harness.common.text import Scalar, count_noun, name_cell, show
from harness.config.seed_rule import Goal, Growth, SeedRule, hours_in_words
from harness.config.trials import Sweep, expand
from harness.records.study import Study
from harness.stats.estimate import TAIL
from harness.stats.sequential import SequentialContrast, contrast_of_looks, rate_sequence

Place = tuple[tuple[str, Scalar], ...]
_SHOWN = 3  # cells that a sentence names


class RunResult(NamedTuple):
    """What a decision needs to know of a run that ended: None where nothing is known, as of a crashed one."""

    failed: bool | None
    seconds: float | None  # of training, its share of its pack's


Load = Callable[[str], RunResult | None]  # of a trial's id; None: it has not ended


@dataclass(frozen=True)
class Cell:
    """A cell's place on the axes and its results, by seed."""

    place: Place
    results: tuple[RunResult, ...]

    @property
    def judged(self) -> list[bool]:
        """Of each run that finished, whether it failed."""
        return [result.failed for result in self.results if result.failed is not None]

    @property
    def crashes(self) -> bool:
        """Whether every run crashed: more seeds would crash too."""
        return bool(self.results) and not self.judged


@dataclass(frozen=True)
class Comparison:
    """One value of an axis against the reference, over pairs of runs that differ in nothing else."""

    axis: str
    value: Scalar
    reference: Scalar
    cells: tuple[int, ...]  # of both, those whose pairs count
    gained: int
    lost: int
    pairs: int
    contrast: SequentialContrast
    decided: bool  # that the rates differ
    small: bool  # shown that the difference is below what was stated

    @property
    def size(self) -> str:
        """`−40 points [−55, −22]`."""
        value, low, high = map(_signed, astuple(self.contrast.difference))
        return f"{value} points [{low}, {high}]"

    @property
    def words(self) -> str:
        """`bias correction on fails less often than off by 40 points [22, 55] (48 pairs)`."""
        name, value, reference = self.axis.replace("_", " "), show(self.value), show(self.reference)
        if not self.pairs:
            return f"{name} {value} has no pairs of runs with {reference}"
        size = f"{self.size} over {count_noun(self.pairs, 'pair')}"
        if self.decided:
            more = "more" if self.contrast.difference.value > 0 else "less"
            return f"{name} {value} fails {more} often than {reference}: {size}"
        if self.small:
            return f"{name} {value} and {reference} differ by less than was stated: {size}"
        return f"{name} {value} vs. {reference} is not settled: {size}"


@dataclass(frozen=True)
class Decision:
    """What is done after a look: `due` seeds of every cell from then on; None: no seed is added, for this reason."""

    due: tuple[int, ...] | None
    reached: bool  # whether all goals hold
    why: str
    comparisons: tuple[Comparison, ...] = ()  # those that `why` tells of
    lacking: tuple[int, ...] = ()  # the cells that are to be known better

    @property
    def stops(self) -> bool:
        """Whether no seed is added."""
        return self.due is None


def decide(rule: SeedRule, horizon: int, cells: Sequence[Cell], references: Place = ()) -> Decision:
    """The decision after a look at results.

    Args:
        rule: how seeds are added.
        horizon: the most seeds of a cell as first planned, which shapes the intervals.
        cells: of every cell the results of all its planned runs, which have ended.
        references: of an axis the value that its others are compared with; of an axis that is not there, the first.

    Returns:
        The decision. Cells all of whose runs crashed get no more seeds, and neither do those of which enough is known.
    """
    states = [_state(goal, horizon, cells, references) for goal in rule.until]
    lacking = sorted({index for state in states for index in state.open})
    if rule.until and not lacking:
        told = tuple(comparison for state in states for comparison in state.comparisons)
        return Decision(None, True, "; ".join(state.words for state in states), told)
    told = tuple(comparison for state in states if state.open for comparison in state.comparisons)
    lacking = lacking if rule.until else list(range(len(cells)))
    grows = [index for index in lacking if len(cells[index].results) < rule.at_most and not cells[index].crashes]
    words = "; ".join(state.words for state in states if state.open)
    if not grows:
        why = f"{_ended(cells, lacking, rule.at_most)}{f'; {words}' if words else ''}"
        return Decision(None, False, why, told, tuple(lacking))
    due = [len(cell.results) for cell in cells]
    for index in grows:
        due[index] = min(due[index] + rule.step, rule.at_most)
    spent, needed = _seconds(cells, due)
    if rule.budget_hours is not None and spent + needed > 3600 * rule.budget_hours:
        budget, trained = hours_in_words(rule.budget_hours), hours_in_words(spent / 3600)
        more = count_noun(sum(due) - sum(len(cell.results) for cell in cells), "more run")
        budget = (
            f"the budget of {budget} of training is spent ({trained} so far)"
            if spent >= 3600 * rule.budget_hours
            else f"{more} would exceed the budget of {budget} of training ({trained} so far, about "
            f"{hours_in_words(needed / 3600)} more)"
        )
        return Decision(None, False, f"{budget}{f'; {words}' if words else ''}", told, tuple(lacking))
    return Decision(tuple(due), False, words or "the budget is not spent yet", told, tuple(lacking))


class _State(NamedTuple):
    """Where a goal stands: the cells that it needs more seeds of, and words."""

    open: tuple[int, ...]
    words: str
    comparisons: tuple[Comparison, ...] = ()


def _state(goal: Goal, horizon: int, cells: Sequence[Cell], references: Place) -> _State:
    if goal.axis is None:
        return _rates_state(goal.within or 0.0, horizon, cells)
    comparisons = compare(goal, horizon, cells, references)
    unsettled = [one for one in comparisons if not (one.decided or one.small)]
    told = tuple(unsettled or comparisons)
    words = "; ".join(one.words for one in told)
    return _State(tuple(sorted({index for one in unsettled for index in one.cells})), words, told)


def _rates_state(within: float, horizon: int, cells: Sequence[Cell]) -> _State:
    wide = [index for index, cell in enumerate(cells) if _half_width(cell, horizon) > within]
    points = f"±{show(float(f'{100 * within:.6g}')).removesuffix('.0')} points"
    if not wide:
        return _State((), f"the failure rate of every cell is known within {points}")
    names = [name_cell(cells[index].place) for index in wide[:_SHOWN]]
    listed = "; ".join(names) + (f"; and {len(wide) - _SHOWN} more" if len(wide) > _SHOWN else "")
    rates = "the failure rate of 1 cell is" if len(wide) == 1 else f"the failure rates of {len(wide)} cells are"
    return _State(tuple(wide), f"{rates} not known within {points} ({listed})")


def _half_width(cell: Cell, horizon: int) -> float:
    judged = cell.judged
    if not judged:
        return 1.0
    rate = rate_sequence(sum(judged), len(judged), horizon)
    return (rate.high - rate.low) / 2


def compare(goal: Goal, horizon: int, cells: Sequence[Cell], references: Place = ()) -> tuple[Comparison, ...]:
    """Every value of the goal's axis against the reference: the one that `references` names, or else the first.

    A pair are the runs of the same seed in two cells that differ in the axis alone. Of all strata as many seeds count
    as every one of them has, so that the difference is the mean over the strata. Where there are several comparisons,
    each is decided at its share of the 5 % (Bonferroni).
    """
    axis = goal.axis or ""
    kinds = list({repr(dict(cell.place)[axis]): dict(cell.place)[axis] for cell in cells}.values())
    reference = next((value for name, value in references if name == axis), kinds[0])
    others = [value for value in kinds if repr(value) != repr(reference)]
    return tuple(
        compare_values(axis, (value, reference), horizon, cells, goal.within, tests=len(others)) for value in others
    )


def compare_values(
    axis: str,
    values: tuple[Scalar, Scalar],
    horizon: int,
    cells: Sequence[Cell],
    within: float | None = None,
    tests: int = 1,
) -> Comparison:
    """One value of an axis against another, the reference; as `compare`, where it is one of so many tests."""
    places = {repr(cell.place): index for index, cell in enumerate(cells)}  # True is not 1 there
    matched = [
        (places[other], index)
        for index, cell in enumerate(cells)
        if repr(dict(cell.place)[axis]) == repr(values[0])
        and (other := repr(tuple((name, values[1] if name == axis else at) for name, at in cell.place))) in places
    ]
    usable = [pair for pair in matched if not any(cells[index].crashes for index in pair)]
    seeds = min((len(cells[index].results) for pair in usable for index in pair), default=0)
    looks = counts_by_seed([(cells[one].results[:seeds], cells[other].results[:seeds]) for one, other in usable])
    gained, lost, pairs = looks[-1]
    contrast = contrast_of_looks(looks, horizon * max(1, len(usable)))
    low, high = contrast.difference.low, contrast.difference.high
    small = within is not None and -within <= low and high <= within
    return Comparison(
        axis, *values, tuple(sorted({index for pair in usable for index in pair})), gained, lost,
        pairs, contrast, decided=contrast.p * tests <= 2 * TAIL, small=small,
    )  # fmt: skip


def counts_by_seed(arms: Sequence[tuple[Sequence[RunResult], Sequence[RunResult]]]) -> list[tuple[int, int, int]]:
    """Of runs by seed, in several settings: pairs of runs of one seed and setting, up to each seed.

    (only the second failed, only the first failed, all of them); first none, before any seed.
    """
    counts = [(0, 0, 0)]
    for seed in range(max((min(len(first), len(second)) for first, second in arms), default=0)):
        gained, lost, pairs = counts[-1]
        for first, second in arms:
            if seed >= min(len(first), len(second)):
                continue
            before, after = first[seed].failed, second[seed].failed
            if before is not None and after is not None:
                gained, lost, pairs = gained + (after and not before), lost + (before and not after), pairs + 1
        counts.append((gained, lost, pairs))
    return counts


def _ended(cells: Sequence[Cell], lacking: Sequence[int], most: int) -> str:
    """Why none of the cells that lack seeds gets more."""
    crashing = sum(cells[index].crashes for index in lacking)
    full = len(lacking) - crashing
    parts = [f"{_cells(full)} {'has' if full == 1 else 'have'} reached at_most, {most} seeds"] if full else []
    parts += [f"every run of {_cells(crashing)} crashed"] if crashing else []
    return " and ".join(parts) or "no pair of runs is left to compare"


def _cells(number: int) -> str:
    return count_noun(number, "cell")


def _seconds(cells: Sequence[Cell], due: Sequence[int]) -> tuple[float, float]:
    """Seconds of training that the results took, and those that the next seeds will, at each cell's own pace."""
    took = [[result.seconds for result in cell.results if result.seconds is not None] for cell in cells]
    known = [seconds for cell in took for seconds in cell]
    overall = sum(known) / len(known) if known else 0.0
    needed = 0.0
    for cell, seconds, seeds in zip(cells, took, due, strict=True):
        needed += (seeds - len(cell.results)) * (sum(seconds) / len(seconds) if seconds else overall)
    return sum(known), needed


def _signed(fraction: float) -> str:
    points = round(100 * fraction)
    return f"−{-points}" if points < 0 else f"+{points}" if points > 0 else "0"


# ------------------------------------------------------------------------------------------- the plan from the records


@dataclass(frozen=True)
class Standing:
    """How far a sweep whose seeds are added by rule has come.

    Attributes:
        sweep: the sweep, whose plan has grown as far as its results go.
        waiting: planned runs that have not ended, for which the next decision waits.
        decision: the last one; None before the first.
        looks: looks at the results so far, the one that is waited for left out.
    """

    sweep: Sweep
    waiting: int
    decision: Decision | None

    @property
    def looks(self) -> int:
        """Looks at the results so far."""
        assert self.sweep.growth is not None
        return len(self.sweep.growth.looks) - bool(self.waiting)

    @property
    def lines(self) -> tuple[str, ...]:
        """The rule, what it can't reach, and how far the seeds have come and what comes next."""
        rule = self.sweep.rule
        assert rule is not None
        most = count_noun(at_most(self.sweep), "trial")
        warning = () if self.decision is not None and self.decision.reached else _out_of_reach(rule)
        return (f"Seeds are added by rule ({rule.words}), {most} at most.", *warning, words(self))

    @property
    def words(self) -> str:
        """How far the seeds have come and what comes next."""
        return words(self)

    def as_json(self) -> dict[str, object]:
        """The same as the contract of `--json`."""
        decision, rule = self.decision, self.sweep.rule
        assert rule is not None
        return {
            "rule": rule.words,
            "at_most_trials": at_most(self.sweep),
            "looks": self.looks,
            "waiting": self.waiting,
            "stopped": decision is not None and decision.stops,
            "reached": decision is not None and decision.reached,
            "why": decision and decision.why,
        }


def _out_of_reach(rule: SeedRule) -> tuple[str, ...]:
    """A warning where the most seeds are too few for rates near one half."""
    within = next((goal.within for goal in rule.until if goal.axis is None), None)
    rate = rate_sequence(rule.at_most // 2, rule.at_most, rule.at_most)
    half = (rate.high - rate.low) / 2
    if within is None or half <= within:
        return ()
    return (
        f"If half of a cell's runs fail, {rule.at_most} seeds give its failure rate only within ±{100 * half:.0f} "
        f"points, not ±{show(float(f'{100 * within:.6g}')).removesuffix('.0')}.",
    )


def at_most(sweep: Sweep) -> int:
    """The most trials that a sweep with a rule may come to."""
    return len(sweep.cells) * len(sweep.seeds)


def advance(sweep: Sweep, load: Load) -> Standing:
    """Let the plan grow as far as the results go; the same results give the same plan.

    Args:
        sweep: a sweep with a rule, whose plan may have grown before.
        load: the result of a trial.
    """
    rule = sweep.rule
    assert rule is not None
    growth = sweep.growth or Growth(horizon=rule.at_most, looks=(sweep.due,))
    sweep = sweep.model_copy(update={"growth": growth})
    while True:
        results = [(trial.cell, load(trial.id)) for trial in expand(sweep)]
        waiting = sum(result is None for _, result in results)
        if waiting:
            return Standing(sweep, waiting, _last_decision(sweep, growth, results))
        decision = decide(rule, growth.horizon, _cells_of(sweep, results), sweep.reference)
        if decision.due is None:
            return Standing(sweep, 0, decision)
        growth = growth.model_copy(update={"looks": (*growth.looks, decision.due)})
        sweep = sweep.model_copy(update={"growth": growth})


def of_study(study: Study) -> Standing | None:
    """How far the seeds of a study have come; None of one whose seeds are not added by rule."""
    if len(study.sweeps) != 1 or study.sweeps[0].rule is None:
        return None
    runs = study.runs
    ended = ~runs["status"].isin(["missing", "unreadable"])
    failed = [None if outcome is None else outcome == "failed" for outcome in runs["outcome"].where(ended, None)]
    seconds = [None if value != value else float(value) for value in runs["lane_seconds"]]
    results = {
        trial: RunResult(fate, time)
        for trial, fate, time, known in zip(runs["trial"], failed, seconds, ended, strict=True)
        if known
    }
    return advance(study.sweeps[0], results.get)


def words(standing: Standing) -> str:
    """How far the seeds have come and what comes next."""
    decision, runs = standing.decision, count_noun(sum(standing.sweep.due), "run")
    verb = "has" if standing.waiting == 1 else "have"
    number = "next" if standing.looks else "first"
    waiting = f"the {number} look comes when {count_noun(standing.waiting, 'more run')} {verb} ended"
    looks = count_noun(standing.looks, "look")
    if decision is None or (standing.waiting and decision.stops):  # of an edited rule
        return f"After {looks} {runs} are planned; {waiting}." if standing.looks else f"T{waiting[1:]}."
    if decision.stops:
        rule = standing.sweep.rule
        unreached = "The goal was not reached" if rule is not None and rule.until else "No more seeds are added"
        verdict = "Enough is known" if decision.reached else unreached
        return f"{verdict} after {looks} and {runs}: {decision.why}."
    return f"After {looks} {runs} are planned, because {decision.why}; {waiting}."


def _last_decision(sweep: Sweep, growth: Growth, results: Sequence[tuple[int, RunResult | None]]) -> Decision | None:
    """What the look before this one, which waits for runs, decided; None where there was none or its runs are gone."""
    if len(growth.looks) < 2 or sweep.rule is None:
        return None
    before = growth.looks[-2]
    seen = [0] * len(sweep.cells)
    counted = []
    for cell, result in results:
        seen[cell] += 1
        if seen[cell] <= before[cell]:
            counted.append((cell, result))
    if any(result is None for _, result in counted):
        return None
    return decide(sweep.rule, growth.horizon, _cells_of(sweep, counted), sweep.reference)


def _cells_of(sweep: Sweep, results: Sequence[tuple[int, RunResult | None]]) -> list[Cell]:
    by_cell: list[list[RunResult]] = [[] for _ in sweep.cells]
    for cell, result in results:
        if result is not None:
            by_cell[cell].append(result)
    return [Cell(cell.axes, tuple(results)) for cell, results in zip(sweep.cells, by_cell, strict=True)]
