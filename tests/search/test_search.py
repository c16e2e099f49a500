"""A search: what it asks for, what it keeps, how it goes on after a kill, and what it refuses."""

import itertools
import json
import math
import os
import re
import signal
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import optuna
import pytest
from driving import content, quiet
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from searches import journal, scored
from typer.testing import CliRunner

from harness.analysis import search_ranking
from harness.cli import arguments
from harness.cli.app import app
from harness.common.errors import HarnessError
from harness.config.search_space import Range, round_to_range
from harness.config.sweep_file import load
from harness.config.trials import Sweep, Trial, expand
from harness.execution import clock, driver, in_process, rerun
from harness.execution.driver import Options
from harness.execution.in_process import InProcess
from harness.execution.packing import Job
from harness.execution.pool import PackProgress, Running
from harness.execution.verification import verify
from harness.records import early_signals
from harness.records.record import Record
from harness.records.store import Store
from harness.report import search_page
from harness.search import search
from harness.search.asking import Asking
from harness.stats import proportions, sequential

HERE = Options(in_process=True)
SPACE = "{lr: {low: 1e-4, high: 1e-2, log: on}, epochs: {low: 1, high: 2}, bias_correction: [off, on]}"
pytestmark = pytest.mark.usefixtures("cpu_only")


@pytest.fixture
def write(tmp_path: Path, data, bert) -> Callable[..., Path]:
    """Write a search file on the small task and model."""

    def make(more: str = "recipes: 4", space: str = SPACE, rest: str = "seeds: 1..2") -> Path:
        path = tmp_path / "find.yaml"
        task, model = json.dumps(data.model_dump(exclude_none=True)), json.dumps(bert.model_dump())
        path.write_text(f"task: {task}\nmodel: {model}\nbatch_size: 20\n{rest}\nsearch: {{space: {space}, {more}}}\n")
        return path

    return make


def labels(sweep: Sweep) -> list[str]:
    return [cell.label for cell in sweep.cells]


# ------------------------------------------------------------------------------------------------------ what it keeps


def test_every_trial_of_a_search_is_a_record_of_its_plan_and_the_study_says_the_same(write, tmp_path) -> None:
    sweep, store = load(write()), Store(tmp_path / "find")
    ended = search.run(sweep, store, HERE, quiet)
    assert (ended.counts.planned, ended.counts.finished, ended.counts.trained_now, ended.complete) == (8, 8, 8, True)
    assert ended.confirmed is None
    plan = store.load_plan()
    assert plan == ended.sweep
    assert plan.search == sweep.search
    assert len(plan.cells) == len(set(labels(plan))) == 4
    trials = journal(store)
    assert [trial.user_attrs["recipe"] for trial in trials] == labels(plan)
    for trial, cell, judged in zip(trials, plan.cells, search_ranking.by_cell(plan, store), strict=True):
        ids = [one.id for one in expand(plan) if plan.cells[one.cell] == cell]
        assert trial.user_attrs["trials"] == ids
        assert trial.value == judged.scores.mean()
        assert trial.constraints == {"failed": judged.failed / 2}
        assert float(f"{trial.params['lr']:.3g}") == dict(cell.axes)["lr"] == cell.recipe.lr
        assert {name: trial.params[name] for name in ("epochs", "bias_correction")} == dict(cell.axes[1:])
    checked = verify.check(plan, store, None)
    assert (checked.finished, checked.problems) == (8, ())
    again = rerun.rerun(plan, store, expand(plan)[5], 0.0)
    assert again.verdict == "identical"


def test_the_seeds_of_a_recipe_train_as_one_pack(write, tmp_path, monkeypatch) -> None:
    packs: list[tuple[str, ...]] = []
    train = InProcess.start

    def start(self: InProcess, job) -> None:
        packs.append(tuple(one.recipe.model_dump_json() for one in job.trials))
        train(self, job)

    monkeypatch.setattr(InProcess, "start", start)
    search.run(load(write("recipes: 3", rest="seeds: 1..3")), Store(tmp_path / "find"), HERE, quiet)
    assert [(len(pack), len(set(pack))) for pack in packs] == [(3, 1)] * 3


def test_one_sampler_seed_gives_one_study_and_another_another(write, tmp_path) -> None:
    found = {}
    for name, more in (("a", "recipes: 3, seed: 5"), ("b", "recipes: 3, seed: 5"), ("c", "recipes: 3, seed: 6")):
        store = Store(tmp_path / name)
        search.run(load(write(more)), store, HERE, quiet)
        found[name] = (labels(store.load_plan()), content(store))
    assert found["a"] == found["b"]
    assert found["a"][0] != found["c"][0]


# ------------------------------------------------------------------------------------------------- without training


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Trial], float]], None]:
    """Have packs 'trained' at once, by a function of the trial that gives the score; at 0.5 and below it failed."""

    def use(score: Callable[[Trial], float]) -> None:
        def train_pack(name, profile, trials: Sequence[Trial], place, progress, *rest) -> list[tuple[Record, None]]:
            return [(scored(name, profile, trial, score(trial)), None) for trial in trials]

        monkeypatch.setattr(in_process, "train_pack", train_pack)

    return use


def peak(trial: Trial) -> float:
    """Best at lr 1e-3; half of the seeds fail from 3e-3 on."""
    lr = trial.recipe.lr
    fails = lr >= 3e-3 and trial.seeds.seed % 2
    return 0.5 if fails else 0.9 - 0.1 * abs(math.log10(lr) + 3) + 0.01 * trial.recipe.epochs


@pytest.mark.parametrize(
    ("sampler", "failing"),
    [
        ("tpe", "constraint"),
        ("tpe", "objective"),
        ("random", "ignore"),
        ("grid", "constraint"),
        ("qmc", "objective"),
        ("nsga2", "constraint"),
        ("nsga2", "objective"),
    ],
)
def test_every_sampler_with_every_look_at_failing(write, made, tmp_path, sampler, failing) -> None:
    made(peak)
    space = SPACE if sampler != "grid" else "{lr: [1e-4, 1e-3, 5e-3], epochs: {low: 1, high: 5, step: 2}}"
    sweep = load(write(f"recipes: 12, sampler: {sampler}, failing: {failing}, objective: mean_minus_sd", space))
    store = Store(tmp_path / "find")
    ended = search.run(sweep, store, HERE, quiet)
    assert ended.complete
    assert ended.asked == (9 if sampler == "grid" else 12)
    trials = journal(store)
    assert len(trials) == ended.asked
    assert {trial.state for trial in trials} == {optuna.trial.TrialState.COMPLETE}
    assert {len(trial.values) for trial in trials} == {2 if failing == "objective" else 1}
    assert all(bool(trial.constraints) == (failing == "constraint") for trial in trials)
    if sampler == "grid":
        assert len(ended.sweep.cells) == 9
        best = search_ranking.table(ended.sweep, store).iloc[0]
        assert (best["lr"], best["epochs"]) == (1e-3, 5)


def test_a_model_based_search_comes_nearer_to_the_peak_than_its_first_recipes(write, made, tmp_path) -> None:
    made(peak)
    store = Store(tmp_path / "find")
    ended = search.run(load(write("recipes: 40, failing: ignore", "{lr: {low: 1e-5, high: 1e-1, log: on}}",
                                  "epochs: 1\nseeds: [2, 4]")), store, HERE, quiet)  # fmt: skip
    off = [abs(math.log10(cell.recipe.lr) + 3) for cell in ended.sweep.cells]
    assert sorted(off[-10:])[5] < sorted(off[:10])[5] / 2


def test_a_recipe_that_is_suggested_again_is_told_and_not_trained_again(write, made, tmp_path) -> None:
    made(peak)
    store = Store(tmp_path / "find")
    ended = search.run(load(write("recipes: 10", "{bias_correction: [off, on]}", "lr: 1e-3\nepochs: 1\nseeds: 1..2")),
                       store, HERE, quiet)  # fmt: skip
    assert (ended.asked, len(ended.sweep.cells), ended.counts.trained_now) == (10, 2, 4)
    trials = journal(store)
    assert len(trials) == 10
    assert all(trial.state == optuna.trial.TrialState.COMPLETE for trial in trials)


class Killed(BaseException):
    """As SIGKILL: nothing is tidied up."""


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "nsga2", "grid"])
def test_a_search_that_is_killed_anywhere_goes_on_to_the_same_study(
    write, made, tmp_path, monkeypatch, sampler
) -> None:
    made(peak)
    space = "{lr: [1e-4, 2e-4, 1e-3, 4e-3], epochs: [1, 2]}" if sampler == "grid" else SPACE
    sweep = load(write(f"recipes: 6, sampler: {sampler}", space))
    whole = Store(tmp_path / "whole")
    search.run(sweep, whole, HERE, quiet)
    cut = Store(tmp_path / "cut")
    save, calls = Store.save, 0

    def save_or_die(self: Store, record: Record, curves) -> None:
        nonlocal calls
        calls += 1
        if calls in (1, 4, 8):  # before the first record of a recipe, and between two of one
            raise Killed
        save(self, record, curves)

    plan, plans = Store.save_plan, 0

    def plan_or_die(self: Store, given: Sweep) -> None:
        nonlocal plans
        plans += 1
        if plans == 5:  # asked for, and not in the plan yet
            raise Killed
        plan(self, given)

    monkeypatch.setattr(Store, "save", save_or_die)
    monkeypatch.setattr(Store, "save_plan", plan_or_die)
    kills = 0
    while True:
        try:
            ended = search.run(sweep, cut, HERE, quiet)
            break
        except Killed:
            kills += 1
    assert kills == 4
    assert ended.sweep == whole.load_plan()
    assert content_of(cut) == content_of(whole)
    assert [(one.params, one.values) for one in journal(cut)] == [(one.params, one.values) for one in journal(whole)]


def content_of(store: Store) -> dict[str, float | None]:
    found = {path.stem: store.load(path.stem) for path in store.trials.glob("*.json")}
    return {name: one and one.measured and one.measured.final_score for name, one in found.items()}


def test_what_was_being_suggested_at_a_kill_is_given_up(write, made, tmp_path) -> None:
    made(peak)
    sweep, store = load(write("recipes: 3")), Store(tmp_path / "find")
    search.run(load(write("recipes: 1")), store, HERE, quiet)
    storage = JournalStorage(JournalFileBackend(str(store.folder / "study.log")))
    optuna.load_study(study_name=sweep.folder_name, storage=storage).ask()
    ended = search.run(sweep, store, HERE, quiet)
    assert (ended.asked, ended.counts.finished) == (3, 6)
    assert [trial.state.name for trial in journal(store)] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]


def test_a_search_whose_time_is_over_goes_on_later(write, made, tmp_path, monkeypatch) -> None:
    def slow(trial: Trial) -> float:
        time.sleep(0.3)
        return peak(trial)

    made(slow)
    sweep, store = load(write("recipes: 6, confirm: {best: 1, seeds: 8..9}")), Store(tmp_path / "find")
    first = search.run(sweep, store, Options(in_process=True, time_limit=1.5), quiet)
    assert 0 < first.asked < 6
    assert (first.complete, first.confirmed) == (False, None)
    assert first.counts.finished >= 2
    last = search.run(sweep, store, HERE, quiet)
    assert (last.complete, last.asked, last.counts.finished, last.confirm_counts.finished) == (True, 6, 12, 2)
    assert last.sweep.cells[: len(first.sweep.cells)] == first.sweep.cells


def test_ctrl_c_ends_a_search_after_the_recipe_that_trains(write, made, tmp_path) -> None:
    def interrupting(trial: Trial) -> float:
        if trial.recipe == third and trial.seeds.seed == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return peak(trial)

    made(peak)
    sweep = load(write("recipes: 5"))
    third = search.run(sweep, Store(tmp_path / "whole"), HERE, quiet).sweep.cells[2].recipe
    made(interrupting)
    store = Store(tmp_path / "find")
    with pytest.raises(KeyboardInterrupt):
        search.run(sweep, store, HERE, quiet)
    assert len(store.load_plan().cells) == 3
    assert len(content_of(store)) == 6
    made(peak)
    assert search.run(sweep, store, HERE, quiet).sweep == Store(tmp_path / "whole").load_plan()


def test_a_search_gets_longer_and_keeps_its_settings(write, made, tmp_path) -> None:
    made(peak)
    store = Store(tmp_path / "find")
    first = search.run(load(write("recipes: 2")), store, HERE, quiet)
    longer = search.run(load(write("recipes: 4")), store, HERE, quiet)
    assert longer.sweep.cells[:2] == first.sweep.cells
    assert longer.counts.trained_now == 4
    nothing = search.run(load(write("recipes: 4")), store, HERE, quiet)
    assert (nothing.counts.trained_now, nothing.complete) == (0, True)
    for changed, said in (
        ({"more": "recipes: 4, seed: 1"}, "seed"),
        ({"more": "recipes: 4, objective: iqm"}, "objective"),
        ({"space": SPACE.replace("1e-2", "1e-3")}, "space"),
        ({"rest": "seeds: 1..3"}, "seeds"),
    ):
        with pytest.raises(HarnessError, match=f"with another {said}"):
            search.run(load(write(**changed)), store, HERE, quiet)
    with pytest.raises(HarnessError, match="the edited sweep has no batch_size"):
        search.run(load(write("recipes: 5"), None, ["batch_size=10"]), store, HERE, quiet)


def test_a_crashed_run_is_missing_data_and_a_recipe_of_crashes_has_no_value(write, made, tmp_path) -> None:
    def some(trial: Trial) -> float:
        if trial.recipe.lr > 2e-3 or trial.seeds.seed == 3:
            raise RuntimeError("out of luck")
        return 0.8

    made(some)
    store = Store(tmp_path / "find")
    space = "{lr: [1e-3, 5e-3]}"
    sweep = load(
        write("recipes: 2, sampler: grid, confirm: {best: 2, seeds: [12, 14]}", space, "epochs: 1\nseeds: 1..3")
    )
    ended = search.run(sweep, store, HERE, quiet)
    assert (ended.counts.finished, ended.counts.crashed, ended.complete) == (2, 4, False)
    states = {trial.params["lr"]: (trial.state.name, trial.value) for trial in journal(store)}
    assert states == {1e-3: ("COMPLETE", 0.8), 5e-3: ("FAIL", None)}
    assert labels(ended.confirmed) == ["lr 1e-3"]


def test_the_best_are_confirmed_on_fresh_seeds_and_older_confirmations_stay(write, made, tmp_path) -> None:
    made(peak)
    more = "recipes: {}, confirm: {{best: 2, seeds: 102..105}}"
    store = Store(tmp_path / "find@default")
    first = search.run(load(write(more.format(3))), store, HERE, quiet)
    beside = search_ranking.confirm_store(first.sweep, store)
    assert beside.folder == tmp_path / "find-confirm@default"
    assert [seeds.seed for seeds in first.confirmed.seeds] == [102, 103, 104, 105]
    assert len(first.confirmed.cells) == 2
    assert first.confirm_counts.finished == 8
    last = search.run(load(write(more.format(12))), store, HERE, quiet)
    assert last.confirmed.cells[:2] == first.confirmed.cells
    found = search_ranking.table(last.sweep, store, search_ranking.confirmed_before(last.sweep, store))
    assert found["fresh"].iloc[:2].notna().all()
    assert int(found["fresh"].notna().sum()) == len(last.confirmed.cells)


def test_fresh_seeds_may_be_added_by_rule(write, made, tmp_path) -> None:
    made(peak)
    rule = '{from: 101, first: 2, at_most: 6, step: 2, until: "failure rate of every cell within ±25 points"}'
    store = Store(tmp_path / "find@default")
    sweep = load(write(f"recipes: 3, confirm: {{best: 2, seeds: {rule}}}"))
    ended = search.run(sweep, store, HERE, quiet)
    assert ended.complete
    assert ended.confirmed is not None
    assert ended.confirmed.growth is not None
    assert len(ended.confirmed.growth.looks) > 1
    assert ended.confirm_counts is not None
    assert ended.confirm_counts.finished == sum(ended.confirmed.due) > 4
    plan = search_ranking.confirm_store(sweep, store).load_plan()
    assert plan == ended.confirmed
    again = search.run(sweep, store, HERE, quiet)
    assert again.confirm_counts is not None
    assert (again.confirm_counts.trained_now, again.confirmed) == (0, ended.confirmed)
    found = search_page.write_report(ended.sweep, store)
    said = " ".join(found.said)
    last = int(max(ended.confirmed.due))
    assert f"On {last} fresh seeds its mean is" in said
    at_every_look, fixed = sequential.rate_sequence(0, last, 6).high, proportions.wilson(0, last)[1]
    assert round(100 * at_every_look) > round(100 * fixed)
    assert f"0 of {last} failed (0 % [0, {100 * at_every_look:.0f}])" in said


def test_conditions_hold_and_what_they_exclude_stays_as_it_was(write, made, tmp_path) -> None:
    made(peak)
    space = "{padding: [dataset, batch], dropout: {low: 0.2, high: 0.5, when: {padding: batch}}, lr: [1e-3, 2e-3]}"
    sweep = load(write("recipes: 12", space, "epochs: 1\nseeds: 1..2\ndropout: 0.05"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ended = search.run(sweep, Store(tmp_path / "find"), HERE, quiet)
    seen = {(cell.recipe.padding, cell.recipe.dropout == 0.05) for cell in ended.sweep.cells}
    assert seen == {("dataset", True), ("batch", False)}


def test_a_search_over_ray_asks_for_as_many_recipes_as_there_are_workers(write, tmp_path) -> None:
    sweep, store = load(write("recipes: 3")), Store(tmp_path / "find")
    most = 0

    def look(progress: driver.Progress) -> None:
        nonlocal most
        most = max(most, progress.lanes)

    ended = search.run(sweep, store, Options(workers=2), look)
    assert ended.complete
    assert ended.counts.finished == 2 * len(ended.sweep.cells) == 6
    assert most == 4
    assert [trial.user_attrs["recipe"] for trial in journal(store)] == labels(ended.sweep)


# --------------------------------------------------------------------------------------------------------- the file


def test_numbers_are_as_a_person_would_write_them_and_within_their_range() -> None:
    lr = Range(field="lr", low=1.2345e-4, high=9.8765e-4, log=True)
    assert round_to_range(3.45678e-4, lr) == 3.46e-4
    assert (round_to_range(1.23451e-4, lr), round_to_range(9.87649e-4, lr)) == (1.2345e-4, 9.8765e-4)
    assert round_to_range(0.30000000000000004, Range(field="warmup_ratio", low=0.0, high=0.3, step=0.1)) == 0.3
    assert Range(field="warmup_ratio", low=0.0, high=0.3, step=0.1).values == (0.0, 0.1, 0.2, 0.3)
    assert Range(field="epochs", low=2, high=5).values == (2, 3, 4, 5)
    assert Range(field="epochs", low=2, high=6, step=2).values == (2, 4, 6)
    assert lr.values is None


def test_the_shipped_search_has_both_profiles_and_stands_for_its_largest_recipe() -> None:
    path = Path(__file__).parents[2] / "sweeps" / "search_rte.yaml"
    small, paper = load(path, "embedded"), load(path, "paper")
    assert (small.search.recipes, len(small.seeds), len(small.search.confirm)) == (16, 4, 8)
    assert small.axes == ("lr", "warmup_ratio", "epochs", "weight_decay", "bias_correction")
    assert (paper.cells[0].recipe.batch_size, paper.cells[0].recipe.epochs) == (32, 20)
    assert load(path, "embedded", ["search.recipes=4"]).search.recipes == 4


BAD = {
    "{}": "search.space is empty",
    "{lr: {low: 1e-3, high: 1e-3}}": "search.space.lr has a single value, 1e-3, and nothing to search",
    "{epochs: [3]}": "search.space.epochs has a single value, 3, and nothing to search",
    "{lr: {low: 1e-4, high: 1e-5}}": "search.space.lr.low must be below high (got low: 1e-4, high: 1e-5)",
    "{weight_decay: {low: 0, high: 1, log: on}}": "search.space.weight_decay.low must be > 0 with log: on (got 0)",
    "{lr: {low: 1e-4, high: 1e-3, log: 2}}": "search.space.lr.log must be on or off (got 2)",
    "{lr: {low: 1e-4}}": "search.space.lr.high must be a number (got nothing)",
    "{lr: {low: 1e-4, high: on}}": "search.space.lr.high must be a number (got on)",
    "{lr: 3}": "search.space.lr must be a mapping of `key: value` lines (got 3)",
    "{lr: {low: 1e-4, hihg: 1e-3}}": "unknown key 'hihg' in search.space.lr (did you mean 'high'?)",
    "{lr: {low: 1e-4, high: 1e-3, choices: [1]}}": "search.space.lr cannot have both a range and choices",
    "{lr: {low: 1e-4, high: 1e-3, log: on, step: 1e-4}}": "search.space.lr cannot have both step and log: on",
    "{lr: {low: 1e-4, high: 1e-3, step: 0}}": "search.space.lr.step must be a number > 0 (got 0)",
    "{rl: {low: 1e-4, high: 1e-3}}": "unknown key 'rl' in search.space",
    "{task: [a, b]}": "unknown key 'task' in search.space",
    "{epochs: {low: 1.5, high: 3}}": "search.space.epochs.low must be a whole number (got 1.5)",
    "{lr: [1e-3, 1e-2], epochs: {low: 0, high: 3}}": "epochs in search.space must be a whole number >= 1 (got 0)",
    "{padding: {low: 1, high: 3}}": "search.space.padding must be a list of choices",
    "{lr: [1e-3, 1e-2], epochs: [1, 2], padding: [dataset, none]}": "padding in search.space must be one of dataset,",
    "{batch_size: [8, 16]}": "batch_size stands both in search.space and beside search",
    "{dropout: {low: 0, high: 0.5, when: {padding: batch}}}": "dropout.when must name choices that stand before",
    "{padding: [dataset, batch], dropout: {low: 0, high: 0.5, when: {padding: x}}}": "Allowed: padding: dataset, batch",
    "{padding: [dataset, batch], lr: {low: 1e-4, high: 1e-3, when: {padding: batch}}}": "lr has no value for where its",
}  # fmt: skip
REST = {
    "seeds: 1": "a search needs two seeds or more: with one it would pick a lucky seed (got 1 seed)",
    "seeds: 1..2\nwarmup_ratio: [0, 0.1]": "warmup_ratio cannot be used beside search",
    "seeds: 1..2\nlr: [1e-3, 1e-2]": "lr cannot be used beside search",
    "seeds: 1..2\nrecipes: {a: {beta2: 0.9}}": "recipes cannot be used beside search",
    "seeds: 1..2\nexclude: [{lr: 1}]": "exclude cannot be used beside search",
}
MORE = {
    "recipes: 0": "search.recipes must be a whole number between 1 and 100000 (got 0)",
    "recipes: few": "search.recipes must be a whole number between 1 and 100000 (got 'few')",
    "sampler: bayes": "search.sampler must be one of tpe, random, grid, qmc, nsga2, cmaes (got 'bayes')",
    "objective: max": "search.objective must be one of",
    "failing: fine": "search.failing must be one of",
    "trials: 3": "unknown key 'trials' in search (did you mean 'recipes'?)",
    "sampler: grid": "the sampler grid cannot use search.space.lr, which is continuous",
    "sampler: cmaes": "the sampler cmaes cannot use search.space.bias_correction, a list",
    "confirm: 3": "search.confirm must be a mapping of `key: value` lines (got 3)",
    "confirm: {best: 2}": "missing required key 'search.confirm.seeds' (for example: seeds: 101..108)",
    "confirm: {best: 2, seeds: 2..5}": "that the search has not used, such as 101..108 (got seeds 2, which it has)",
    "confirm: {best: 2, seeds: [9]}": "search.confirm.seeds must be two seeds or more, such as 101..108 (got 1 seed)",
    "confirm: {best: -1, seeds: 8..9}": "search.confirm.best must be a whole number >= 0 (got -1)",
    "confirm: {most: 2, seeds: 8..9}": "unknown key 'most' in search.confirm",
}


def test_a_search_that_makes_no_sense_is_refused_in_one_line(write) -> None:
    cases = [({"space": space}, said) for space, said in BAD.items()]
    cases += [({"rest": rest}, said) for rest, said in REST.items()]
    cases += [({"more": more}, said) for more, said in MORE.items()]
    for given, said in cases:
        with pytest.raises(HarnessError, match=re.escape(said)) as caught:
            load(write(**given))
        assert "\n" not in str(caught.value)
        for leak in ("None", "True", "False", "Input", "pydantic"):
            assert leak not in str(caught.value)
    path = write()
    plain = load(path).model_copy(update={"search": None, "name": "tiny"})
    with pytest.raises(HarnessError, match="tiny has no search: part"):
        search.run(plain, Store(path.parent / "none"), HERE, quiet)
    assert not (path.parent / "none").exists()


def test_cmaes_without_its_package_says_what_to_install(write, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(search, "find_spec", lambda name: None)
    sweep = load(write("sampler: cmaes", "{lr: {low: 1e-4, high: 1e-2, log: on}}", "epochs: 1\nseeds: 1..2"))
    with pytest.raises(HarnessError, match="pip install cmaes"):
        search.run(sweep, Store(tmp_path / "find"), HERE, quiet)


def test_data_that_cannot_be_read_is_refused_before_anything_is_asked(write, tmp_path) -> None:
    sweep = load(write(), None, ["task.files=/nonexistent"])
    store = Store(tmp_path / "find")
    with pytest.raises(HarnessError):
        search.run(sweep, store, HERE, quiet)
    assert not (store.folder / "study.log").exists()
    path = write(space="{eval_steps: [1, 2]}", rest="lr: 1e-3\nepochs: 1\nseeds: 1..2")
    path.write_text(
        path.read_text().replace("batch_size: 20\n", "").replace("eval_steps: [1, 2]", "batch_size: [8, 999]")
    )
    with pytest.raises(HarnessError, match="number of training examples"):  # at the space's largest batch
        search.run(load(path), store, HERE, quiet)
    assert not (store.folder / "study.log").exists()


# ------------------------------------------------------------------------------------------------------ the commands


def test_the_commands_of_a_search(write, made, tmp_path, monkeypatch) -> None:
    made(peak)
    monkeypatch.chdir(tmp_path)
    write("recipes: 5, confirm: {best: 1, seeds: 102..104}")

    def run(*words: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, list(words))
        assert result.exit_code == code, result.output
        return result.stdout if code == 0 else result.stderr

    assert "5 recipes × 2 seeds = 10 trials (tpe, mean)" in run("plan", "find.yaml")
    planned = json.loads(run("plan", "find.yaml", "--json"))
    assert (planned["trials"], planned["cells"], planned["missing"]) == (10, 5, 10)
    assert "Use `harness search find.yaml`" in run("sweep", "find.yaml", code=2)
    assert "`harness search find.yaml` begins it" in run("report", "find.yaml", code=2)
    shown = json.loads(run("search", "find.yaml", "--in-process", "--json"))
    assert [row["rank"] for row in shown["recipes"]] == [1, 2, 3, 4, 5]
    assert "On 3 fresh seeds its mean is" in " ".join(shown["said"])
    folder = tmp_path / "results" / "find@default" / "search"
    for name in ("search.md", "search.json", "recipes.csv", "importance.csv", "history.png", "front.svg", "slices.pdf"):
        assert (folder / name).stat().st_size > 0
    page = (folder / "search.md").read_text()
    assert all(f"]({name}.png)" in page for name in ("history", "slices", "parallel", "front", "search_importance"))
    monkeypatch.setattr("harness.report.figures.all_figures.MAKERS", ())  # once is enough
    monkeypatch.setattr("harness.report.figures.search.draw_search", lambda *given: iter(()))
    said = run("search", "find.yaml", "--in-process")
    assert "harness report results/find-confirm@default" in said
    assert "5 recipes tried, 10 trials finished" in run("plan", "find.yaml")
    assert json.loads(run("status", "find.yaml", "--json"))["finished"] == 10
    report = json.loads(run("report", "find.yaml", "--json"))
    assert report["search"] == shown
    assert len(report["cells"]) == 5


# ------------------------------------------------------------------------------------------- recipes that are given up

# On the small task the first three rates learn and the others fail. The grid of this seed asks for two that learn, two
# that fail and one that learns; then there is a rule, and the two that are left fail.
RATES = "{lr: [1e-2, 2e-2, 3e-2, 3, 5, 10, 20]}"
GRID, TWO = "recipes: 7, sampler: grid, seed: 16", "seeds: 1..2\nepochs: 15"


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver to which every look at its clock takes a second: it looks at its workers after every step."""
    ticks = itertools.count()
    monkeypatch.setattr(clock, "now", lambda: float(next(ticks)))


def test_a_recipe_whose_runs_all_look_lost_is_given_up_and_only_with_the_switch(write, every_step, tmp_path) -> None:
    sweep = load(write(f"{GRID}, confirm: {{best: 1, seeds: 8..9}}", RATES, TWO))
    store, whole, told = Store(tmp_path / "a" / "find"), Store(tmp_path / "b" / "find"), []
    undisturbed = search.run(sweep, whole, HERE, quiet)
    assert (undisturbed.counts.finished, undisturbed.counts.failed) == (14, 8)
    assert search.stopped(sweep, whole) == search.switches(sweep, whole) == ()

    def tell(progress: driver.Progress) -> None:
        told.extend(progress.messages)
        progress.messages.clear()

    ended = search.run(sweep, store, HERE, tell, stop_hopeless=True)
    assert ended.complete
    assert (ended.counts.finished, ended.counts.missing, ended.counts.crashed, ended.counts.failed) == (10, 4, 0, 4)
    assert ended.confirm_counts is not None
    assert ended.confirm_counts.finished == 2
    assert labels(ended.sweep) == labels(undisturbed.sweep)
    kept, wanted = content(store), content(whole)
    assert kept == {trial: wanted[trial] for trial in kept}
    given_up = [cell.label for cell in ended.sweep.cells[-2:]]
    assert [line.partition(": given up at ")[0] for line in told] == given_up
    states = [one.state.name for one in journal(store)]
    assert states == ["COMPLETE"] * 5 + ["PRUNED"] * 2
    for one, found in zip(journal(store)[-2:], search.stopped(sweep, store), strict=True):
        assert one.constraints == {"failed": 1.0}
        assert one.user_attrs["stopped"] == asdict(found)
        assert 0 < found.share < 0.5
        assert f" at {100 * found.share:.0f} % of its training" in told[int(found.recipe == given_up[1])]
        assert found.rule.endswith(" % of a run")
        assert found.runs == 2

    # The same command trains nothing more; without the switch, what was given up is trained as ever.
    again = search.run(sweep, store, HERE, quiet, stop_hopeless=True)
    assert (again.counts.trained_now, again.counts.left, again.complete) == (0, 0, True)
    assert len(search.stopped(sweep, store)) == 2
    said = arguments.sweep_words("find.yaml", sweep, store)  # what `harness status` proposes
    assert said == f"harness search find.yaml --profile default --results {tmp_path / 'a'} --stop-hopeless"
    trained = search.run(sweep, store, HERE, quiet)
    assert (trained.counts.trained_now, trained.counts.missing) == (4, 0)
    assert content(store) == wanted
    assert search.stopped(sweep, store) == search.switches(sweep, store) == ()
    assert search.run(sweep, store, HERE, quiet, stop_hopeless=True).counts.trained_now == 0


def test_a_search_that_gives_up_recipes_goes_on_after_a_kill(write, every_step, tmp_path) -> None:
    """Killed at the first word of a recipe given up, it does not train that recipe again, and gives up the next."""
    sweep, store = load(write(GRID, RATES, TWO)), Store(tmp_path / "find")

    def kill(progress: driver.Progress) -> None:
        if progress.messages:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search.run(sweep, store, HERE, kill, stop_hopeless=True)
    (first,) = search.stopped(sweep, store)
    ended = search.run(sweep, store, HERE, quiet, stop_hopeless=True)
    assert ended.complete
    assert (ended.counts.trained_now, ended.counts.missing) == (0, 4)
    assert search.stopped(sweep, store)[0] == first
    assert len(search.stopped(sweep, store)) == 2


def test_who_is_given_up_and_a_recipe_of_those_that_is_suggested_again(write, every_step, tmp_path) -> None:
    sweep, store = load(write(GRID, RATES, TWO)), Store(tmp_path / "find")
    search.run(sweep, store, HERE, quiet, stop_hopeless=True)
    asking = Asking(sweep, store, stop_hopeless=True)
    asking._load()
    last = Job(tuple(trial for trial in expand(asking._sweep()) if trial.cell == 6))
    learned = asking._ids(asking.cells[0].recipe)[0]
    curves = store.arrays(learned)
    assert curves is not None
    fine = early_signals.signals(curves.train_loss, 45, curves.eval_step, curves.recording)[None]
    lost = np.full((1, 40, 5), np.inf)

    def hopeless(*lanes: np.ndarray, job: Job = last, asking: Asking = asking) -> bool:
        asking.looked.clear()
        return asking.hopeless(Running(job, PackProgress(0.5, np.concatenate(lanes)), 1.0))

    assert hopeless(lost, lost)
    assert not hopeless(lost, fine)
    assert not hopeless(lost, job=Job(last.trials[:1]))  # its other seed may be better
    assert not hopeless(lost * np.nan, lost)
    assert not asking.hopeless(Running(last, PackProgress(0.01), 1.0))
    assert not hopeless(lost, lost, asking=Asking(sweep, store))
    twice = journal(store)[-1]
    asking._study._study.enqueue_trial(twice.params)
    asking.most += 1
    assert asking._ask() is False
    asking._tell()
    assert asking.open == {}
    assert [one.state.name for one in journal(store)[-2:]] == ["PRUNED"] * 2
    assert journal(store)[-1].user_attrs["stopped"] == twice.user_attrs["stopped"]
    assert len(search.stopped(sweep, store)) == 2


def test_what_was_given_up_is_counted_and_said_to_be_predicted(write, made, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("harness.report.figures.search.draw_search", lambda *given: iter(()))
    made(peak)
    sweep, store = load(write("recipes: 4")), Store(tmp_path / "find")
    search.run(sweep, store, HERE, quiet)
    plan = store.load_plan()
    assert plan is not None
    for trial in expand(plan):
        if trial.cell == 3:
            store.path(trial.id).unlink()
    stopped = [
        search_ranking.StoppedRecipe(plan.cells[3].label, "training loss above 0.7 at 25 % of a run", 0.25, 1.0, 2)
    ]
    assert stopped[0].saved == pytest.approx(3)
    found = search_page.write_report(plan, store, stopped)
    assert found.said[0].startswith(
        "4 different recipes were tried over 2 seeds each: 6 runs finished; "
    )  # none missing
    # Six runs of two seconds, one second, and the three that were saved.
    assert found.said[1] == (
        "1 recipe was given up at 25 % of its training, when all runs were at risk judging by runs of other "
        "recipes: that it would have failed is predicted, not observed. At the pace until then this saved 19 % of "
        "the search's training time."
    )
    assert found.summary["stopped"] == [asdict(stopped[0]) | {"saved_seconds": 3.0}]
    more = [*stopped, search_ranking.StoppedRecipe("lr 1", "", 0.5, 1.0, 2)]
    assert (
        search_page.write_report(plan, store, more)
        .said[1]
        .startswith("2 recipes were given up at 25 % to 50 % of their")
    )
    assert "given up" not in " ".join(search_page.write_report(plan, store).said)


def test_giving_up_needs_recordings_and_a_search_that_rules_out_failing(write, tmp_path) -> None:
    for more, rest, wrong in (
        ("recipes: 4", "seeds: 1..2\nrecord: off", "record: off"),
        ("recipes: 4, failing: objective", "seeds: 1..2", "failing: objective"),
        ("recipes: 4, failing: ignore", "seeds: 1..2", "failing: ignore"),
    ):
        with pytest.raises(HarnessError, match=wrong):
            search.run(load(write(more, rest=rest)), Store(tmp_path / "find"), HERE, quiet, stop_hopeless=True)
    assert not (tmp_path / "find").exists()
