"""The decision which seeds come next: pure, and recomputed here from the counts by other means."""

import itertools
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from made_runs import HEAD, Run, store_of, sweep_of

from harness.analysis.stopping import Cell, RunResult, advance, compare, decide, of_study
from harness.config.seed_rule import Goal, SeedRule
from harness.config.trials import Sweep, every_seed, expand
from harness.records.study import of_sweep
from harness.report import page_notes
from harness.stats.sequential import contrast_sequence, rate_sequence

ON_OFF = [(("lr", lr), ("bias_correction", switch)) for lr in (1e-5, 2e-5) for switch in (False, True)]
EFFECT = Goal(axis="bias_correction")


def rule(*goals: Goal, first: int = 4, at_most: int = 20, step: int = 4, budget: float | None = None) -> SeedRule:
    return SeedRule(first=first, at_most=at_most, step=step, until=goals, budget_hours=budget)


def cells(*fates: str, seconds: float = 3600.0) -> list[Cell]:
    """Cells by the fates of their runs: `x` failed, `.` did not, `!` crashed."""
    results = {"x": RunResult(True, seconds), ".": RunResult(False, seconds), "!": RunResult(None, None)}
    return [
        Cell(place, tuple(results[fate] for fate in of)) for place, of in zip(ON_OFF[: len(fates)], fates, strict=True)
    ]


# -------------------------------------------------------------------------------------------------------------- rates


@given(st.lists(st.text("x.!", min_size=1, max_size=20), min_size=1, max_size=4), st.sampled_from([0.1, 0.2, 0.3]))
def test_cells_whose_rate_is_not_known_well_get_seeds_and_others_none(fates: list[str], within: float) -> None:
    decision = decide(rule(Goal(within=within)), 20, cells(*fates))
    expected = []
    for of in fates:
        estimate = rate_sequence(of.count("x"), len(of) - of.count("!"), 20)
        narrow = estimate.high - estimate.low <= 2 * within  # False where nothing is known
        more = not narrow and len(of) < 20 and set(of) != {"!"}
        expected.append(min(len(of) + 4, 20) if more else len(of))
    grows = expected != [len(of) for of in fates]
    assert decision.due == (tuple(expected) if grows else None)
    if decision.reached:
        assert all(set(of) != {"!"} for of in fates)


def test_values_are_compared_with_the_reference_that_the_sweep_names(tmp_path: Path) -> None:
    (other,) = compare(EFFECT, 20, cells("xxxx", "...."), (("bias_correction", True),))
    assert (other.value, other.reference, other.gained, other.lost) == (False, True, 4, 0)
    text = HEAD + "lr: [1e-5, 2e-5, 3e-5]\nepochs: 3\nseeds: {first: 6, at_most: 8, until: lr settled}\n"
    fails, works = [Run(200)] * 6, [Run(300)] * 6
    for reference, why in (
        ("", "lr 2e-5 vs. 1e-5 is not settled: 0 points"),
        ("reference: {lr: 3e-5}\n", "lr 1e-5 vs. 3e-5 is not settled: +100 points"),
    ):
        sweep = sweep_of(tmp_path, text + reference)
        study = of_sweep(sweep, store_of(tmp_path / reference[:9], sweep, {0: fails, 1: fails, 2: works}))
        standing = of_study(study)
        assert standing is not None
        assert why in standing.words


def test_it_says_why() -> None:
    decision = decide(rule(Goal(within=0.3)), 20, cells("x.x.", "...."))
    assert decision.due == (8, 8)
    assert decision.why == (
        "the failure rates of 2 cells are not known within ±30 points (lr 1e-5, bias correction off; "
        "lr 1e-5, bias correction on)"
    )
    decision = decide(rule(Goal(within=0.3), at_most=5), 20, cells("x.x.x", "!!!!", "." * 20))
    assert (decision.due, decision.reached) == (None, False)
    assert decision.why.startswith("1 cell has reached at_most, 5 seeds and every run of 1 cell crashed; the failure")
    decision = decide(rule(Goal(within=0.3)), 20, cells("." * 20))
    assert (decision.due, decision.reached) == (None, True)
    assert decision.why == "the failure rate of every cell is known within ±30 points"


# ----------------------------------------------------------------------------------------------------------- contrasts


@given(st.lists(st.text("x.!", min_size=6, max_size=6), min_size=4, max_size=4))
def test_a_contrast_counts_pairs_of_the_same_seed_and_setting(fates: list[str]) -> None:
    (found,) = compare(EFFECT, 20, cells(*fates))
    strata = [pair for pair in (fates[:2], fates[2:]) if not any(set(of_cell) == {"!"} for of_cell in pair)]
    p = []
    for seeds in range(7):
        both = [before + after for off, on in strata for before, after in zip(off[:seeds], on[:seeds], strict=True)]
        gained, lost, pairs = both.count(".x"), both.count("x."), sum("!" not in pair for pair in both)
        p.append(contrast_sequence(gained, lost, pairs, 20 * max(1, len(strata))).p)
    assert (found.gained, found.lost, found.pairs) == (gained, lost, pairs)
    assert found.decided == any(each <= 0.05 for each in p)
    swapped = [fates[1], fates[0], fates[3], fates[2]]
    (other,) = compare(EFFECT, 20, cells(*swapped))
    assert (other.gained, other.lost, other.decided) == (lost, gained, found.decided)


def test_only_as_many_seeds_count_as_every_stratum_has() -> None:
    (found,) = compare(EFFECT, 20, cells("xxxxxx", "......", "xxxx", "...."))
    assert found.pairs == 8
    assert found.lost == 8


def test_a_contrast_stops_where_it_is_decided_or_shown_small() -> None:
    decided = decide(rule(EFFECT), 20, cells("x" * 8, "." * 8))
    assert (decided.due, decided.reached) == (None, True)
    assert decided.why.startswith("bias correction on fails less often than off: −100 points [−100, −")
    assert decide(rule(EFFECT), 20, cells("." * 8, "." * 8)).due == (12, 12)
    small = decide(rule(Goal(axis="bias_correction", within=0.3)), 40, cells("." * 40, "." * 40))
    assert (small.due, small.reached) == (None, True)
    assert "differ by less than was stated" in small.why
    never = decide(rule(EFFECT), 20, cells("." * 20, "." * 20))
    assert (never.due, never.reached) == (None, False)


def test_of_several_values_each_is_settled_at_its_share_of_the_level() -> None:
    places = [(("schedule", name),) for name in ("linear", "cosine", "constant", "none")]
    fates = ("x" * 7 + "." * 13, "." * 20, "x" * 7 + "." * 13, "x" * 20)
    many = [Cell(place, cell.results) for place, cell in zip(places, cells(*fates), strict=True)]
    goal = Goal(axis="schedule")
    found = compare(goal, 20, many)
    assert [one.value for one in found] == ["cosine", "constant", "none"]
    assert all(one.reference == "linear" for one in found)
    assert [one.decided for one in found] == [one.contrast.p <= 0.05 / 3 for one in found]
    due = decide(rule(goal, at_most=40), 40, many).due
    assert due is not None
    assert due[0] > 20  # the reference grows with what is not settled
    assert due[2] > 20
    assert due[3] == 20


# -------------------------------------------------------------------------------------------------------------- budget


def test_a_budget_is_not_exceeded() -> None:
    two = cells("x.x.", "....", seconds=900)  # two hours so far, two more for the next look
    assert decide(rule(Goal(within=0.1), budget=4.0), 20, two).due == (8, 8)
    decision = decide(rule(Goal(within=0.1), budget=3.9), 20, two)
    assert (decision.due, decision.reached) == (None, False)
    assert decision.why.startswith(
        "8 more runs would exceed the budget of 3.9 hours of training (2 hours so far, about 2 hours more);"
    )
    assert decide(rule(budget=4.0), 20, two).due == (8, 8)  # without a goal it is the budget that stops


# ---------------------------------------------------------------------------------------------------------- the whole


def grows(folder: Path, until: str = "bias_correction settled") -> Sweep:
    rule_text = f'{{first: 2, at_most: 12, step: 2, until: "{until}"}}'
    return sweep_of(folder, HEAD + f"lr: [1e-5, 2e-5]\nbias_correction: [off, on]\nepochs: 3\nseeds: {rule_text}\n")


@given(st.permutations(range(16)), st.integers(0, 2**16 - 1))
def test_whatever_ends_first_the_plan_is_that_of_all_results(order: list[int], fates: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        sweep = grows(Path(folder))
    names = [trial.id for trial in expand(sweep)]
    everything = [trial.id for trial in expand(every_seed(sweep))]
    known: dict[str, RunResult] = {}
    for number in itertools.chain(order, range(16, 48)):
        known[everything[number]] = RunResult(bool(fates >> (number % 16) & 1), 1.0)
    whole = advance(sweep, known.get)
    stepwise, seen = sweep, dict[str, RunResult]()
    for name, result in known.items():
        seen[name] = result
        stepwise = advance(stepwise, seen.get).sweep
    assert stepwise == whole.sweep
    assert set(names) <= {trial.id for trial in expand(whole.sweep)}


def test_the_page_says_after_how_many_looks_it_stopped_and_what_fixed_seeds_would_have_cost(tmp_path: Path) -> None:
    sweep = grows(tmp_path)
    fails = {0: Run(200), 1: Run(350), 2: Run(200), 3: Run(350)}
    full = advance(sweep, {t.id: RunResult(t.cell in (0, 2), 1.0) for t in expand(every_seed(sweep))}.get).sweep
    runs = {cell: [fails[cell]] * full.due[cell] for cell in range(4)}
    study = of_sweep(full, store_of(tmp_path, full, runs))
    said = page_notes.completeness(study)
    total = sum(full.due)
    assert full.growth is not None
    looks = len(full.growth.looks)
    assert said.startswith(f"Planned: 4 cells × {full.due[0]} seeds = {total}; {total} finished, 0 crashed, 0 missing.")
    assert "Seeds are added by rule (bias_correction settled; 2 seeds at first, 2 more at a time, at most 12)." in said
    assert f"Enough is known after {looks} looks and {total} runs: bias correction on fails less often" in said
    assert said.endswith("The same 12 seeds in every cell would have cost 48 runs.")
    standing = of_study(study)
    assert standing is not None
    assert (standing.looks, standing.waiting) == (looks, 0)
    fewer = {**runs, 0: [Run(200)]}
    study = of_sweep(full, store_of(tmp_path / "less", full, fewer))
    said = page_notes.completeness(study)
    lacking = full.due[0] - 1
    assert f"the next look comes when {lacking} more run{'' if lacking == 1 else 's'} ha" in said
    assert f"After {looks - 1} look{'' if looks == 2 else 's'} {total} runs are planned" in said
    assert "would have cost" not in said


def test_a_goal_that_the_most_seeds_cannot_reach_is_warned_of(tmp_path: Path) -> None:
    lines = advance(grows(tmp_path, "failure rate of every cell within ±10 points"), lambda trial: None).lines
    assert lines[1].startswith("If half of a cell's runs fail, 12 seeds give its failure rate only within ±")
    assert lines[1].endswith(" points, not ±10.")
    assert len(advance(grows(tmp_path, "failure rate of every cell within ±45 points"), lambda trial: None).lines) == 2
