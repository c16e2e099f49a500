"""A search's pruner: what it is shown of a pack's curves, which recipes it stops, and that a late riser goes on."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from driving import content, quiet
from searches import journal, scored
from typer.testing import CliRunner

from harness.analysis import search_ranking
from harness.cli.app import app
from harness.common.errors import HarnessError
from harness.common.metrics import Evaluation
from harness.config.search_space import Pruner, Search
from harness.config.sweep_file import load
from harness.config.trials import Sweep, Trial, expand
from harness.execution import driver, in_process
from harness.execution.driver import Options
from harness.records.store import Store
from harness.report import search_page
from harness.search import pruning, search
from harness.search.study_journal import StudyJournal
from harness.training import loop
from harness.training.callbacks import ReportEvaluations

HERE = Options(in_process=True)
pytestmark = pytest.mark.usefixtures("cpu_only")
MEDIAN = Pruner(name="median")
MEAN = Search(space=())


def seen(share: float, *scores: float, risen: Sequence[bool] | None = None, last: bool = False) -> Evaluation:
    """An evaluation of lanes; above 0.6 they have risen."""
    found = np.array(scores)
    return Evaluation(share, found, found > 0.6 if risen is None else np.array(risen), last)


# --------------------------------------------------------------------------------------------------- what it is shown


def test_a_curve_stands_still_between_two_evaluations_so_that_recipes_are_compared_at_equal_shares() -> None:
    thirds = [seen(1 / 3, 0.5, 0.7), seen(2 / 3, 0.7, 0.9), seen(1, 0.8, 1.0)]
    pruner = MEDIAN.model_copy(update={"interval_steps": 10})
    assert pruning.curve(thirds[:1], pruner, MEAN) == {30: 0.6}
    whole = pruning.curve(thirds, pruner, MEAN)
    assert list(whole) == [30, 40, 50, 60, 70, 80, 90, 100]
    assert list(whole.values()) == pytest.approx([0.6] * 4 + [0.8] * 3 + [0.9])
    for lower, sign in ((False, -1), (True, 1)):
        cautious = Search(space=(), objective="mean_minus_sd", lower_is_better=lower)
        assert pruning.curve(thirds, pruner, cautious)[100] == pytest.approx(0.9 + sign * np.std([0.8, 1.0], ddof=1))
    # Of two evaluations at one look the first is compared there, and the second from the next look on.
    close = [seen(0.19, 0.6, 0.6), seen(0.21, 0.7, 0.7), seen(0.4, 0.9, 0.9)]
    assert pruning.curve(close, pruner, MEAN) == {20: 0.6, 30: 0.7, 40: 0.9}


def test_a_recipe_with_a_run_that_may_rise_late_is_not_asked_about(trial) -> None:
    recipe = trial(1).recipe
    early, half, late = (seen(share, 0.9, 0.5) for share in (0.45, 0.5, 0.75))
    assert not pruning.asked([early, half], MEDIAN, recipe)  # one of them is at the majority
    assert pruning.asked([early, half, late], MEDIAN, recipe)
    assert pruning.asked([early, seen(0.5, 0.9, 0.7)], MEDIAN, recipe)
    assert pruning.asked([seen(0.3, 0.9, 0.7), half], MEDIAN, recipe)  # what fell back is no late riser
    assert not pruning.asked([seen(0.49, 0.9, 0.7)], MEDIAN, recipe)  # half of the training isn't over
    assert not pruning.asked([seen(0.5, 0.9, 0.7)], MEDIAN, trial(1, warmup_ratio=0.6).recipe)  # nor the warm-up
    assert not pruning.asked([early, half, late, seen(1, 0.9, 0.5, last=True)], MEDIAN, recipe)
    assert not pruning.asked([late, seen(0.76, 0.9, 0.5)], MEDIAN, recipe)  # the look was at 75 %


@pytest.mark.parametrize("fields", [{}, {"keep_best": True}, {"early_stopping_patience": 1}, {"averaging": "last"}])
def test_evaluations_are_told_as_the_results_say_and_change_none(trial, fields) -> None:
    pack = [trial(seed, epochs=6, lr=lr, **fields) for seed, lr in ((1, 1e-2), (2, 1.0), (3, 1e-3))]
    told: list[Evaluation] = []
    found = loop.train(pack, callbacks=[ReportEvaluations(told.append)])
    without = loop.train(pack)
    assert [one.measured.weights_sha256 for one in found] == [one.measured.weights_sha256 for one in without]
    assert [one.last for one in told] == [False] * (len(told) - 1) + [True]
    for lane, result in enumerate(found):
        scores, steps = result.curves.dev_score, result.curves.eval_step / 48
        assert told[-1].scores[lane] == result.measured.final_score
        if not fields or "averaging" in fields:
            assert [one.scores[lane] for one in told] == scores.tolist()
        np.testing.assert_array_equal([one.share for one in told[: len(steps)]], steps)
        limit = 15 + 1.6448536 * np.sqrt(30 * 0.25)  # one-sided; of 30 dev texts 15 are of the majority's class
        assert [bool(one.risen[lane]) for one in told] == [one.scores[lane] * 30 > limit for one in told]
    if "keep_best" in fields:  # by dev loss
        best = [int(np.argmin(one.curves.dev_loss)) for one in found]
        assert [told[-1].scores[lane] for lane in range(3)] == [
            one.curves.dev_score[at] for one, at in zip(found, best, strict=True)
        ]


def test_a_lane_that_diverges_counts_as_the_majority_and_of_numbers_any_correlation_has_risen(trial, numbers) -> None:
    told: list[Evaluation] = []
    found = loop.train([trial(1, lr=1e30), trial(2, lr=1e-2)], callbacks=[ReportEvaluations(told.append)])
    assert found[0].measured.final_score is None
    assert (told[-1].scores[0], bool(told[-1].risen[0])) == (0.5, False)
    assert told[-1].scores[1] == found[1].measured.final_score
    told.clear()
    (one,) = loop.train([trial(1, task=numbers, lr=1e-2)], callbacks=[ReportEvaluations(told.append)])
    assert [(float(each.scores[0]), bool(each.risen[0])) for each in told] == [
        (score, score > 0) for score in one.curves.dev_score.tolist()
    ]


# ---------------------------------------------------------------------------------------------------- what it stops


@pytest.fixture
def write(tmp_path: Path, data, bert) -> Callable[..., Path]:
    """Write a search of a grid of rates on the small task and model, evaluated ten times a run."""

    def make(more: str = "pruner: median", rates: str = "[1, 2, 3, 4, 5, 6, 7, 8]", rest: str = "epochs: 10") -> Path:
        path = tmp_path / "find.yaml"
        task, model = json.dumps(data.model_dump(exclude_none=True)), json.dumps(bert.model_dump())
        path.write_text(
            f"task: {task}\nmodel: {model}\nbatch_size: 20\nseeds: 1..2\n{rest}\n"
            f"search: {{space: {{lr: {rates}}}, sampler: grid, {more}}}\n"
        )
        return path

    return make


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Trial], Sequence[float]]], None]:
    """Have packs 'trained' along made curves of ten evaluations; a dev score at 0.5 is the majority's."""

    def use(curve: Callable[[Trial], Sequence[float]]) -> None:
        def train_pack(name, profile, trials: Sequence[Trial], place, progress, signals, evaluated) -> list[object]:
            curves = [curve(trial) for trial in trials]
            for place_of, scores in enumerate(zip(*curves, strict=True), 1):
                if place.tells_scores:
                    evaluated(seen(place_of / 10, *scores, last=place_of == 10))
                progress(place_of, 10)
            return [(scored(name, profile, one, end[-1]), None) for one, end in zip(trials, curves, strict=True)]

        monkeypatch.setattr(in_process, "train_pack", train_pack)

    return use


FLAT = [0.5] * 10
RISER = [0.5] * 5 + [0.95] * 5


def shapes(sweep: Sweep, store: Store) -> Callable[[Trial], Sequence[float]]:
    """Curves in the order of asking: five that learn, then a late riser, one that stays flat, one that is behind."""
    order: list[float] = []

    def curve(trial: Trial) -> Sequence[float]:
        if trial.recipe.lr not in order:
            order.append(trial.recipe.lr)
        which = order.index(trial.recipe.lr)
        fine = [0.5, 0.7, *[0.8 + 0.01 * which] * 8]
        behind = [0.5, *[0.65] * 8, 0.99]
        return {5: RISER, 6: FLAT, 7: behind}.get(which, fine)

    return curve


def test_a_late_riser_goes_on_to_the_top_and_what_stays_flat_or_behind_is_stopped(write, made, tmp_path) -> None:
    sweep, store, told = load(write()), Store(tmp_path / "find"), []

    def tell(progress: driver.Progress) -> None:
        told.extend(progress.messages)
        progress.messages.clear()

    made(shapes(sweep, store))
    ended = search.run(sweep, store, HERE, tell)
    assert ended.complete
    assert (ended.counts.finished, ended.counts.missing, ended.counts.crashed) == (12, 4, 0)
    trials = journal(store)
    assert [one.state.name for one in trials] == ["COMPLETE"] * 6 + ["PRUNED"] * 2
    assert search_ranking.best_first(search_ranking.by_cell(ended.sweep, store), sweep.search)[0] == 5  # the late riser
    flat, behind = search.stopped(ended.sweep, store)
    assert (flat.share, behind.share) == (0.8, 0.5)
    assert (flat.by_pruner, flat.flat, behind.flat, flat.runs) == (True, 1.0, 0.0, 2)
    assert flat.rule == "median pruner: mean 0.500 at 80 % of training"
    assert told == [
        f"{flat.recipe}: given up at 80 % of its training, stopped, not seen to the end ({flat.rule})",
        f"{behind.recipe}: given up at 50 % of its training, stopped, not seen to the end ({behind.rule})",
    ]
    assert [one.constraints for one in trials[-2:]] == [{"failed": 1.0}, {"failed": 0.0}]
    riser = {step: 0.5 if step < 60 else 0.95 for step in range(10, 101, 5)}
    assert trials[5].intermediate_values == pytest.approx(riser)
    assert max(trials[7].intermediate_values) == 50
    # The same command trains nothing more, and what was stopped stays so.
    again = search.run(sweep, store, HERE, quiet)
    assert (again.counts.trained_now, again.counts.left, again.complete) == (0, 0, True)
    assert search.stopped(again.sweep, store) == (flat, behind)
    # The words of the report and of the status.
    said = search_page.write_report(again.sweep, store, (flat, behind)).said
    assert said[1].startswith(
        "2 recipes were given up at 50 % to 80 % of their training by the median pruner: stopped, not seen to "
        "the end, so how they would have ended is unknown. At the pace until then this saved "
    )


@pytest.mark.parametrize(
    "pruner",
    [
        "median",
        "{name: percentile, percentile: 60}",
        "{name: patient, patience: 20}",
        "{name: successive_halving, n_warmup_steps: 20, reduction_factor: 2}",
        "{name: hyperband, n_warmup_steps: 20}",
    ],
)
def test_every_pruner_stops_what_falls_behind_and_never_a_late_riser(write, made, tmp_path, pruner) -> None:
    sweep, store = load(write(f"pruner: {pruner}")), Store(tmp_path / "find")
    order: list[float] = []

    def curve(trial: Trial) -> Sequence[float]:
        """Learning ones, the better the earlier, but for a late riser; the last three fall."""
        if trial.recipe.lr not in order:
            order.append(trial.recipe.lr)
        which = order.index(trial.recipe.lr)
        if which == 4:
            return RISER
        return [0.7 - 0.001 * place * (which >= 5) + 0.01 * (5 - which) for place in range(10)]

    made(curve)
    ended = search.run(sweep, store, HERE, quiet)
    states = [one.state.name for one in journal(store)]
    assert ended.complete
    assert states[4] == "COMPLETE"
    assert "PRUNED" in states[5:]
    assert states[0] == "COMPLETE"


def test_the_first_recipes_are_seen_to_the_end(write, made, tmp_path) -> None:
    sweep = load(write("pruner: {name: median, n_startup_trials: 7}"))
    store = Store(tmp_path / "find")
    made(shapes(sweep, store))
    search.run(sweep, store, HERE, quiet)
    assert [one.state.name for one in journal(store)] == ["COMPLETE"] * 7 + ["PRUNED"]


# -------------------------------------------------------------------------------------------------- with real training

RATES = "[1e-2, 2e-2, 3e-2, 1e-3, 3e-3, 5, 10]"
REAL = "pruner: {name: median, n_startup_trials: 2}, seed: 3"


def told(store: Store) -> list[tuple[object, ...]]:
    """What the study says of each recipe."""
    return [
        (
            *(
                one.state,
                one.params,
                one.values,
                one.intermediate_values,
                one.constraints,
                one.user_attrs.get("pruned"),
            ),
            one.user_attrs.get("stopped", {}) | {"seconds": 0},
        )
        for one in journal(store)
    ]


def test_one_sampler_seed_gives_one_study_with_its_pruner_and_the_records_of_a_search_without(write, tmp_path) -> None:
    sweep = load(write(REAL, RATES))
    one, two, whole = (Store(tmp_path / name / "find") for name in ("a", "b", "c"))
    for store in (one, two):
        search.run(sweep, store, HERE, quiet)
    assert told(one) == told(two)
    search.run(load(write("seed: 3", RATES)), whole, HERE, quiet)
    kept, wanted = content(one), content(whole)
    assert kept == content(two) == {trial: wanted[trial] for trial in kept}
    assert 4 <= len(kept) < len(wanted) == 14
    assert all(trial.intermediate_values == {} for trial in journal(whole))
    trials = journal(one)
    assert {trial.state.name for trial in trials} == {"COMPLETE", "PRUNED"}
    plan = one.load_plan()
    assert plan is not None
    for number, trial in enumerate(trials):
        # Against the curves of the records, and the median pruner's rule by hand.
        of_whole = [store_curve(whole, other.id) for other in expand(plan) if other.cell == number]
        means = np.mean(of_whole, axis=0)
        for step, value in trial.intermediate_values.items():
            assert value == pytest.approx(means[max(0, int(step // 10) - 1)])
        done = [other for other in trials[:number] if other.state.name == "COMPLETE"]
        last = max(trial.intermediate_values)
        best = max(trial.intermediate_values.values())
        if trial.state.name == "PRUNED":
            assert last >= 50
            assert len(done) >= 2
            assert best < np.median([other.intermediate_values[last] for other in done])


def store_curve(store: Store, trial: str) -> np.ndarray:
    curves = store.curves(trial)
    assert curves is not None
    return np.asarray(curves.dev_score)


class Killed(BaseException):
    """As SIGKILL: nothing is tidied up."""


HALVING = "pruner: {name: successive_halving, n_startup_trials: 1, n_warmup_steps: 20, reduction_factor: 2}, seed: 3"


@pytest.mark.parametrize("more", [REAL, HALVING])
def test_a_search_with_a_pruner_that_is_killed_goes_on_to_the_same_study(write, tmp_path, monkeypatch, more) -> None:
    sweep, whole, cut = load(write(more, RATES)), Store(tmp_path / "a" / "find"), Store(tmp_path / "b" / "find")
    search.run(sweep, whole, HERE, quiet)
    told_of, calls, leave = StudyJournal.report, 0, in_process.InProcess.leave

    def report_or_die(self: StudyJournal, *words: object) -> bool:
        nonlocal calls
        calls += 1
        found = told_of(self, *words)
        if calls % 11 == 0:
            raise Killed
        return found

    died = []

    def leave_or_die(self: in_process.InProcess, job: object) -> None:
        if not died:
            died.append(job)
            raise Killed
        leave(self, job)

    monkeypatch.setattr(StudyJournal, "report", report_or_die)
    monkeypatch.setattr(in_process.InProcess, "leave", leave_or_die)
    kills = 0
    while True:
        try:
            search.run(sweep, cut, HERE, quiet)
            break
        except Killed:
            kills += 1
    assert kills > 5
    assert died
    assert told(cut) == told(whole)
    assert content(cut) == content(whole)


def test_a_pruner_over_ray_stops_what_falls_behind(write, tmp_path) -> None:
    """Slow enough to be looked at once a second: the second of the rates learns nothing."""
    path = write("pruner: {name: median, n_startup_trials: 1, n_warmup_steps: 10, n_majority_steps: 10}, seed: 3",
                 "[1e-2, 10]", "epochs: 250\neval_steps: 30")  # fmt: skip
    sweep, store = load(path), Store(tmp_path / "find")
    ended = search.run(sweep, store, Options(workers=1), quiet)
    trials = journal(store)
    assert ended.complete
    assert all(one.intermediate_values for one in trials)
    assert [(one.params["lr"], one.state.name) for one in trials] == [(1e-2, "COMPLETE"), (10, "PRUNED")]
    assert (ended.counts.finished, ended.counts.missing) == (2, 2)
    (stopped,) = search.stopped(ended.sweep, store)
    assert 0.1 <= stopped.share < 1


# ------------------------------------------------------------------------------------------------------ what is said

BAD = {
    "pruner: best": "search.pruner.name must be one of median, percentile, successive_halving,",
    "pruner: 3": "search.pruner must be a mapping of `key: value` lines .got 3",
    "pruner: {n_warmup_steps: 3}": "missing required key 'search.pruner.name'",
    "pruner: {name: median, percentile: 5}": "unknown key 'percentile' in search.pruner.*Allowed: name, n_startup",
    "pruner: {name: median, warmup: 5}": "unknown key 'warmup' in search.pruner",
    "pruner: {name: hyperband, n_warmup_steps: 101}": "search.pruner.n_warmup_steps must be a whole number between",
    "pruner: {name: percentile, percentile: 0}": "search.pruner.percentile must be > 0 and < 100 .got 0",
    "pruner: median, failing: objective": "search.pruner cannot be used with failing: objective",
}


def test_a_pruner_that_makes_no_sense_is_refused_in_one_line(write, made, tmp_path) -> None:
    for more, said in BAD.items():
        with pytest.raises(HarnessError, match=said) as caught:
            load(write(more))
        assert "\n" not in str(caught.value)
    sweep, store = load(write()), Store(tmp_path / "find")
    made(shapes(sweep, store))
    search.run(sweep, store, HERE, quiet)
    with pytest.raises(HarnessError, match="with another pruner"):
        search.run(load(write("pruner: hyperband")), store, HERE, quiet)


def test_what_a_pruner_cannot_see_is_said_at_the_start(write, made, tmp_path) -> None:
    made(lambda trial: FLAT)
    said = {}
    for rest, rates in (("epochs: 1", "[1, 2]"), ("epochs: 1\neval_every: 0.4", "[1, 2]"), ("epochs: 4", "[1, 2]"),
                        ("warmup_ratio: 0.8\nepochs: 2", "[1, 2]"), ("", "[1, 2], epochs: [1, 2, 3]")):  # fmt: skip
        messages: list[str] = []
        sweep = load(write(rates=rates, rest=rest))

        def tell(progress: driver.Progress, messages: list[str] = messages) -> None:
            messages.extend(progress.messages)
            progress.messages.clear()

        search.run(sweep, Store(tmp_path / str(len(said))), HERE, tell)
        said[rest] = messages[0] if messages else None
    more = (
        "no evaluation from 50 % of the training on and before its end, so the pruner doesn't stop them; "
        "eval_every: 0.25 (of an epoch) shows it more"
    )
    assert said["epochs: 1"] == said["warmup_ratio: 0.8\nepochs: 2"] == f"recipes of this search have {more}"
    assert said["epochs: 1\neval_every: 0.4"] is None
    assert said["epochs: 4"] is None
    assert said[""] == f"recipes as epochs 1 have {more}"


def test_status_and_plan_say_what_was_stopped(write, made, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("harness.report.figures.search.draw_search", lambda *given: iter(()))
    monkeypatch.chdir(tmp_path)
    made(shapes(load(write()), Store(tmp_path)))

    def run(*words: str) -> str:
        result = CliRunner().invoke(app, list(words))
        assert result.exit_code == 0, result.output
        return result.stdout

    assert "(grid, mean, median pruner)" in run("plan", "find.yaml")
    assert "by the median pruner: stopped, not seen to the end" in run("search", "find.yaml", "--in-process")
    standing = run("status", "find.yaml")
    assert "2 recipes were given up at 50 % to 80 % of their training by the median pruner: " in standing
    assert "Train what is missing" not in standing
    shown = json.loads(run("status", "find.yaml", "--json"))["stopped"]
    assert [one["by_pruner"] for one in shown] == [True, True]
