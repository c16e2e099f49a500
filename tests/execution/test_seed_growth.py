"""Seeds that are added by rule: the driver's plan grows from the records, whatever the order and whoever kills it."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from driving import content
from made_runs import ENVIRONMENT, Run, curves_of, measured

from harness.analysis.stopping import RunResult, advance
from harness.common.errors import HarnessError
from harness.config.seed_rule import Goal, SeedRule
from harness.config.sweep_file import load
from harness.config.trials import Sweep, Trial, every_seed, expand
from harness.data import tasks
from harness.execution import driver, in_process, rerun, seed_growth, train_pack
from harness.execution.driver import Options
from harness.execution.verification import verify
from harness.records.record import Record
from harness.records.store import Store

HERE = Options(in_process=True, pack=4)
TEXT = """
task: embedded
model: embedded
max_length: 16
epochs: 1
lr: [1e-4, 6e-4]
bias_correction: [off, on]
seeds: {first: 3, at_most: 12, step: 3, until: "%s"}
"""
RATES, SETTLED = "failure rate of every cell within ±36 points", "bias_correction settled"
pytestmark = pytest.mark.usefixtures("cpu_only")


def quiet(progress: driver.Progress) -> None:
    """Show nothing."""
    progress.messages.clear()


def adaptive(folder: Path, until: str = RATES) -> Sweep:
    """A sweep of four cells whose seeds are added by rule."""
    folder.mkdir(parents=True, exist_ok=True)
    return load_text(folder, TEXT % until)


def load_text(folder: Path, text: str) -> Sweep:
    """The sweep of a YAML text."""
    (folder / "grows.yaml").write_text(text)
    return load(folder / "grows.yaml")


def fails(trial: Trial) -> bool:
    """Half of the runs of one cell, none of the others."""
    return trial.cell == 1 and trial.seeds.seed % 2 == 0


class Trainer:
    """Trains nothing: records come from `fails`; may die at a pack, or crash trials."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails: Callable[[Trial], bool] = fails) -> None:
        self.fails, self.trained, self.dies_after = fails, list[str](), 10**9
        self.crashes: Callable[[Trial], bool] = lambda trial: False
        monkeypatch.setattr(in_process, "train_pack", self)

    def __call__(self, sweep: str, profile: str, trials: Sequence[Trial], *rest: object) -> list[train_pack.Result]:
        if len(self.trained) >= self.dies_after:
            raise KeyboardInterrupt
        if any(self.crashes(trial) for trial in trials):
            raise RuntimeError("no such luck")
        self.trained += [trial.id for trial in trials]
        results: list[train_pack.Result] = []
        for trial in trials:
            found = measured(Run(200 if self.fails(trial) else 350), 20, 200, 400, "accuracy")
            found = found.model_copy(update={"data_sha256": tasks.load(trial.recipe.task).sha256})
            record = Record(
                id=trial.id, sweep=sweep, profile=profile, trial=trial, status="finished", attempts=1,
                started_utc="2025-01-01T00:00:00Z", environment=ENVIRONMENT, measured=found, arrays_sha256=None,
                error=None,
            )  # fmt: skip
            results.append((record, curves_of(found)))
        return results


def planned(store: Store) -> set[str]:
    kept = store.load_plan()
    assert kept is not None
    return {trial.id for trial in expand(kept)}


# ---------------------------------------------------------------------------------------------------------- to the end


def test_seeds_are_added_where_too_little_is_known_until_enough_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, store, told = Trainer(monkeypatch), Store(tmp_path / "grows"), list[str]()

    def tell(progress: driver.Progress) -> None:
        told.extend(line for line in progress.messages if not line.startswith("waiting for "))
        progress.messages.clear()

    sweep = adaptive(tmp_path)
    assert len(expand(sweep)) == 12  # what is planned at first
    ended = driver.run(sweep, store, HERE, tell)
    kept = store.load_plan()
    assert kept is not None
    assert kept.growth is not None
    assert kept.growth.looks[0] == (3, 3, 3, 3)
    assert kept.due[1] > max(kept.due[0], *kept.due[2:])  # half of its runs fail: it needs most seeds
    assert (ended.planned, ended.missing, ended.left) == (sum(kept.due), 0, 0)
    assert ended.trained_now == len(trainer.trained) == len(set(trainer.trained)) == sum(kept.due)
    assert len(told) == len(kept.growth.looks)
    assert told[-1].startswith(f"Enough is known after {len(told)} looks and {sum(kept.due)} runs: ")
    assert driver.run(sweep, store, HERE, quiet).trained_now == 0  # it has stopped
    checked = verify.check(kept, store, None)
    assert (checked.planned, checked.missing) == (sum(kept.due), 0)


def test_a_contrast_stops_as_soon_as_it_is_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, store = Trainer(monkeypatch, lambda trial: not trial.recipe.bias_correction), Store(tmp_path / "grows")
    driver.run(adaptive(tmp_path, SETTLED), store, HERE, quiet)
    kept = store.load_plan()
    assert kept is not None
    assert len(set(kept.due)) == 1
    assert max(kept.due) < 12
    assert len(trainer.trained) == sum(kept.due) < 48


def test_what_is_never_settled_ends_at_the_most_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Trainer(monkeypatch, lambda trial: False)
    store = Store(tmp_path / "grows")
    ended = driver.run(adaptive(tmp_path, SETTLED), store, HERE, quiet)
    assert (ended.planned, ended.finished, ended.left) == (48, 48, 0)
    standing = seed_growth.standing(adaptive(tmp_path, SETTLED), store)
    assert standing.decision is not None
    assert not standing.decision.reached
    assert "4 cells have reached at_most, 12 seeds; bias correction on vs. off is not settled" in standing.decision.why


# -------------------------------------------------------------------------------------------------------- interruptions


@pytest.mark.parametrize("until", [RATES, SETTLED])
def test_killed_anywhere_and_resumed_it_has_the_same_trials(
    until: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(monkeypatch)
    sweep, whole = adaptive(tmp_path, until), Store(tmp_path / "whole")
    driver.run(sweep, whole, HERE, quiet)
    total = len(trainer.trained)
    for after in range(0, total, 8):
        store, trainer.trained, trainer.dies_after = Store(tmp_path / f"killed{after}"), [], after
        with pytest.raises(KeyboardInterrupt):
            driver.run(sweep, store, HERE, quiet)
        if after % 16:
            (store.folder / "plan.json").unlink()  # the records alone tell how far it was
        trainer.dies_after = 10**9
        driver.run(sweep, store, replace(HERE, pack=1 + after % 3), quiet)
        assert planned(store) == planned(whole)
        assert sorted(trainer.trained) == sorted(set(trainer.trained)) == sorted(planned(whole))
        kept, other = store.load_plan(), whole.load_plan()
        assert kept == other


def test_the_plan_is_the_same_in_whatever_order_runs_end(tmp_path: Path) -> None:
    sweep = adaptive(tmp_path)
    everything = expand(every_seed(sweep))
    ends: list[Sweep] = []
    for order in range(4):
        recorded: set[str] = set()
        by_id = {trial.id: trial for trial in everything}

        def result(trial: str, known: set[str] = recorded, all_trials: dict[str, Trial] = by_id) -> RunResult | None:
            return RunResult(fails(all_trials[trial]), 1.0) if trial in known else None

        now, draw = sweep, random.Random(order)
        while True:
            standing = advance(now, result)
            now = standing.sweep
            waiting = [trial.id for trial in expand(now) if trial.id not in recorded]
            if not waiting:
                break
            recorded.add(draw.choice(waiting))
        ends.append(now)
        assert advance(sweep, result).sweep == now  # all at once
    assert all(one == ends[0] for one in ends)


def test_a_part_of_the_plan_waits_for_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, store, sweep = Trainer(monkeypatch), Store(tmp_path / "grows"), adaptive(tmp_path)
    ended = driver.run(sweep, store, replace(HERE, only=("lr=6e-4",)), quiet)
    assert (ended.planned, ended.finished, ended.missing, ended.left) == (12, 6, 6, 0)
    ended = driver.run(sweep, store, replace(HERE, max_trials=6), quiet)
    assert ended.finished == 12
    assert ended.planned == ended.finished + ended.missing > 12  # the look is complete, and asks for more
    assert len(trainer.trained) == 12
    ended = driver.run(sweep, store, replace(HERE, max_trials=1), quiet)
    assert (ended.trained_now, ended.left) == (1, 0)
    with pytest.raises(HarnessError, match=r"--only seed=40 matches no trial of the plan\. Allowed: .*; seed 1 to "):
        driver.run(sweep, store, replace(HERE, only=("seed=40",)), quiet)


def test_cells_that_crash_get_no_more_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, store, sweep = Trainer(monkeypatch), Store(tmp_path / "grows"), adaptive(tmp_path)
    trainer.crashes = lambda trial: trial.cell == 3
    ended = driver.run(sweep, store, HERE, quiet)
    assert (ended.crashed, ended.missing) == (3, 0)
    kept = store.load_plan()
    assert kept is not None
    assert kept.due[3] == 3
    decision = seed_growth.standing(sweep, store).decision
    assert decision is not None
    assert "every run of 1 cell crashed" in decision.why
    trainer.crashes = lambda trial: False
    ended = driver.run(sweep, store, replace(HERE, retry_crashed=True), quiet)
    assert (ended.crashed, ended.missing) == (0, 0)
    again = store.load_plan()
    assert again is not None
    assert again.due[3] > 3


# ---------------------------------------------------------------------------------------------------------------- edits


def test_a_rule_may_be_changed_and_cells_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Trainer(monkeypatch)
    store = Store(tmp_path / "grows")
    fixed = load_text(tmp_path, TEXT.replace('{first: 3, at_most: 12, step: 3, until: "%s"}', "1..5"))
    driver.run(fixed, store, HERE, quiet)
    grown = adaptive(tmp_path)
    driver.run(grown, store, HERE, quiet)
    kept = store.load_plan()
    assert kept is not None
    assert min(kept.due) >= 5  # none of the trained seeds is orphaned
    longer = load_text(tmp_path, (TEXT % "failure rate of every cell within ±20 points").replace("12", "20"))
    ended = driver.run(longer, store, HERE, quiet)
    assert ended.trained_now > 0
    again = store.load_plan()
    assert again is not None
    assert again.growth is not None
    assert kept.growth is not None
    assert again.growth.horizon == 12  # what the intervals were made for stays
    assert again.growth.looks[: len(kept.growth.looks)] == kept.growth.looks
    more = load_text(tmp_path, (TEXT % RATES).replace("[1e-4, 6e-4]", "[1e-4, 6e-4, 9e-4]").replace("12", "20"))
    ended = driver.run(more, store, HERE, quiet)
    assert ended.left == 0
    with pytest.raises(HarnessError, match="the edited sweep has no lr 9e-4"):
        driver.run(load_text(tmp_path, (TEXT % RATES).replace("12", "20")), store, HERE, quiet)
    with pytest.raises(HarnessError, match=r"seeds\.at_most must not be less than the seeds already trained"):
        driver.run(adaptive(tmp_path), store, HERE, quiet)


# ----------------------------------------------------------------------------------------------------------- in earnest


def test_its_runs_are_those_of_fixed_seeds(tiny_sweep: Sweep, trial: Callable[..., Trial], tmp_path: Path) -> None:
    seeds = tuple(trial(seed).seeds for seed in range(1, 5))
    rule = SeedRule(first=1, at_most=4, step=1, until=(Goal(within=0.4),))
    grows, fixed = Store(tmp_path / "grows"), Store(tmp_path / "fixed")
    driver.run(tiny_sweep.model_copy(update={"seeds": seeds}), fixed, Options(in_process=True), quiet)
    ended = driver.run(tiny_sweep.model_copy(update={"seeds": seeds, "rule": rule}), grows, HERE, quiet)
    kept = grows.load_plan()
    assert kept is not None
    assert ended.finished == sum(kept.due) > 2
    whole = content(fixed)
    assert content(grows) == {name: whole[name] for name in content(grows)}
    again = rerun.rerun(kept, grows, expand(kept)[-1], 0.0)
    assert again.verdict == "identical"
