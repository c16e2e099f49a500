"""Which training runs are at risk: their signals, what is learned from whom, and what is said."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from driving import same_arrays
from made_runs import HEAD, MISSING, Run, save, store_of, sweep_of

from harness.analysis import early_warning, live_warning
from harness.config.trials import Sweep, Trial, expand
from harness.records import early_signals, heartbeat
from harness.records.record import Environment
from harness.records.store import Store
from harness.training import loop
from harness.training.callbacks import Callback, ReportSignals, report_progress
from harness.training.checkpoints import Checkpoints
from harness.training.outcome import LaneResult

Make = Callable[..., Trial]
TEXT = HEAD + "lr: [1e-5, 2e-5, 3e-5]\nepochs: 5\nseeds: 1..4\n"
FINE = Run(300, gradients=(1.0, 1.0))
GONE = Run(200, loss=0.69, gradients=(1e-4, 1e-4))
RUNS: Mapping[int, list[Run | None]] = {0: [FINE, GONE, GONE, FINE], 1: [FINE, GONE, FINE, FINE], 2: [GONE, FINE]}


def lessons_of(folder: Path, runs: Mapping[int, list[Run | None]]) -> tuple[live_warning.Lessons, Sweep, Store]:
    sweep = sweep_of(folder, TEXT)
    store = store_of(folder, sweep, runs)
    lessons = live_warning.Lessons(store)
    lessons.learn(sweep, [trial for trial in expand(sweep) if store.load(trial.id)])
    return lessons, sweep, store


# ------------------------------------------------------------------------------------------------- a run's own signals


def live(pack: list[Trial], *others: Callback, **how: object) -> tuple[list[np.ndarray], list[LaneResult]]:
    seen: list[np.ndarray] = []
    return seen, loop.train(pack, callbacks=[ReportSignals(seen.append), *others], **how)  # type: ignore[arg-type]


@pytest.mark.parametrize("epochs", [2, 7])  # 16 updates, and 56: more than there are shares
def test_signals_while_it_trains_are_those_of_the_finished_record(trial: Make, epochs: int) -> None:
    pack = [trial(seed, lr=lr, epochs=epochs) for seed, lr in ((1, 1e-3), (2, 1e-2), (3, 1e30))]  # the last diverges
    seen, found = live(pack)
    assert len(seen) == min(40, 8 * epochs)
    for lane, one in enumerate(found):
        whole = early_signals.signals(one.curves.train_loss, 8 * epochs, one.curves.eval_step, one.curves.recording)
        assert np.isfinite(whole[-1]).all() or lane == 2
        for told in seen:
            np.testing.assert_array_equal(told[lane], whole[: told.shape[1]])
    assert seen[-1].shape == (3, 40, len(early_signals.SIGNALS))
    assert np.isposinf(seen[-1][2, -1, 0])
    without = loop.train(pack)
    for one, other in zip(found, without, strict=True):
        assert one.measured.weights_sha256 == other.measured.weights_sha256
        assert same_arrays(one.curves.arrays, other.curves.arrays)
    assert live(pack, record=False)[0] == []


def test_a_lane_that_stopped_early_has_no_signals_from_there(trial: Make) -> None:
    fields = {"epochs": 6, "early_stopping_patience": 1, "early_stopping_on": "score"}
    seen, found = live([trial(1, lr=1e-7, **fields), trial(2, lr=1e-3, **fields)])
    stopped = found[0].measured.stopped_step
    assert stopped is not None
    known = early_signals.reached(stopped, 48)
    assert known < 40
    assert np.isfinite(seen[-1][0, :known, 0]).all()
    assert np.isnan(seen[-1][0, known:]).all()


def test_a_run_that_goes_on_has_its_earlier_signals(trial: Make, tmp_path: Path) -> None:
    pack = [trial(1), trial(2)]
    whole, _ = live(pack)
    environment = Environment(
        device="cpu", device_name="one", threads=1, pack_size=2, harness="1", commit=None, python="3", torch="2",
        transformers="5",
    )  # fmt: skip

    def cut(step: int, steps: int) -> None:
        if step == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        live(pack, report_progress(cut), checkpoint=Checkpoints(tmp_path, 0).of(pack, environment))
    again, _ = live(pack, checkpoint=Checkpoints(tmp_path, 0).of(pack, environment))
    assert len(again) == 6
    for told, wanted in zip(again, whole[10:], strict=True):
        np.testing.assert_array_equal(told, wanted)


# --------------------------------------------------------------------------------------------------- what is learned


def test_nothing_is_learned_from_the_same_recipe(tmp_path: Path) -> None:
    lessons, sweep, store = lessons_of(tmp_path, RUNS)
    kept = lessons.rule(2)
    assert not isinstance(kept, str)
    assert (kept.caught, kept.lost, kept.false, kept.others) == (3, 3, 0, 5)
    before = kept.rule
    # The other outcome for all its own runs changes nothing for a cell.
    for trial in expand(sweep):
        if trial.cell == 2:
            store.path(trial.id).unlink(missing_ok=True)
            save(store, sweep, trial, Run(200, gradients=(1.0, 1.0)))
    turned = live_warning.Lessons(store)
    turned.learn(sweep, expand(sweep))
    again = turned.rule(2)
    assert not isinstance(again, str)
    assert again.rule == before
    other = turned.rule(0)
    assert isinstance(other, str)  # there the two outcomes look the same


def test_lanes_look_lost_as_the_rule_says_and_not_before(tmp_path: Path) -> None:
    lessons, _, _ = lessons_of(tmp_path, RUNS)
    kept = lessons.rule(2)
    assert not isinstance(kept, str)
    (first, *_) = (trial for trial, found in lessons.signals.items() if found is not None)
    good = lessons.signals[first]
    bad = next(found for found, lost in zip(lessons.found, lessons.lost, strict=True) if lost)
    assert good is not None
    nothing = np.full_like(good, np.nan)
    diverged = nothing.copy()
    diverged[:, 0] = np.inf
    assert live_warning.look_lost(kept, np.stack([good, bad, nothing, diverged])) == [False, True, None, True]
    assert live_warning.look_lost("why", np.stack([good, bad])) == [None, None]


@pytest.mark.parametrize(
    ("runs", "lost", "others"),
    [
        ({}, 0, 0),
        ({0: [FINE, GONE]}, 1, 1),
        ({0: [Run(300), Run(200)], 1: [Run(300), Run(200)]}, 0, 0),  # not recorded
        ({0: [FINE, FINE], 1: [FINE]}, 0, 2),
        ({0: [GONE, GONE], 1: [GONE, FINE]}, 2, 1),
        ({2: [FINE, GONE], 1: [FINE, GONE]}, 1, 1),
    ],
)
def test_why_nothing_can_be_told(tmp_path: Path, runs: Mapping[int, list[Run | None]], lost: int, others: int) -> None:
    lessons, _, _ = lessons_of(tmp_path, runs)
    said = live_warning.words([lessons.rule(2)] * 2, [None, None])
    assert said == (
        "Which of 2 training lanes are at risk can't be told yet: it takes finished, recorded runs of two other "
        f"recipes that failed or ended near chance and of two that did not, and there are {lost} and {others}."
    )


def test_where_no_signal_tells_that_is_said(tmp_path: Path) -> None:
    lessons, _, _ = lessons_of(tmp_path, RUNS)
    lessons.found = np.zeros_like(lessons.found)
    assert lessons.rule(2) == "no one signal tells 50 % of the lost runs with at most 1 % false alarms"


def test_a_run_near_chance_is_lost_though_it_has_not_failed(tmp_path: Path) -> None:
    chance = Run(201, loss=0.69, gradients=(1e-4, 1e-4))
    lessons, _, _ = lessons_of(tmp_path, {0: [FINE, chance], 1: [FINE, FINE]})
    assert lessons.lost.tolist() == [False, False, True, False]  # the first of each cell, then the second


def test_words_count_lanes_and_say_how_the_rule_did() -> None:
    one = early_warning.Kept(early_warning.Rule("middle gradient", 0.25, -1, 4.5), np.zeros(0), 7, 8, 0, 30)
    other = early_warning.Kept(early_warning.Rule("loss slope", 0.1, 1, 0.0), np.zeros(0), 7, 8, 1, 30)
    assert live_warning.words([one, one, other, "why"], [True, None, False, None]) == (
        "1 of 4 training lanes is at risk; 2 can't be told yet. At risk: middle gradient below 3.16e-05 at 25 % of a "
        "run; of the finished runs of other recipes this flags 7 of 8 that failed or ended near chance, with 0 "
        "false alarms among 30."
    )
    said = live_warning.words([one, one, other], [True, True, True])
    assert said.startswith(
        "3 of 3 training lanes are at risk. At risk: middle gradient below 3.16e-05 at 25 % of a run, or "
    )
    assert "or 1 other rule;" in said


def test_runs_to_learn_from_are_spread_over_the_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = sweep_of(tmp_path, HEAD + "lr: [1e-5, 2e-5, 3e-5]\nepochs: 5\nseeds: 1..400\n")
    trials = [trial for trial in expand(sweep) if trial.cell != 1 or trial.seeds.seed <= 20]
    chosen = live_warning.spread(trials)
    assert len(chosen) == len(set(chosen)) == live_warning.MOST_RUNS
    assert [sum(trial.cell == cell for trial in chosen) for cell in range(3)] == [140, 20, 140]


def test_runs_are_read_once_and_rules_are_learned_when_there_are_a_tenth_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = sweep_of(tmp_path, HEAD + "lr: [1e-5, 2e-5, 3e-5]\nepochs: 5\nseeds: 1..20\n")
    runs = [FINE, GONE] * 6
    store = store_of(tmp_path, sweep, {0: [*runs, MISSING], 1: [*runs, MISSING]})
    read, arrays = [], store.arrays
    monkeypatch.setattr(store, "arrays", lambda one: read.append(one) or arrays(one))
    lessons = live_warning.Lessons(store)
    trials = expand(sweep)
    finished = [trial for trial in trials if store.load(trial.id)]
    lessons.learn(sweep, finished)
    assert len(read) == len(lessons.lost) == 24
    left = [trial for trial in trials if trial not in finished][:3]
    for trial in left:
        save(store, sweep, trial, GONE)
        finished.append(trial)
        lessons.learn(sweep, finished)
    assert len(read) == len(set(read)) == len(lessons.lost) == 27
    assert lessons.finished == 27  # not at 25 and 26


# ------------------------------------------------------------------------------------------------------ as JSON has it


def test_signals_are_written_as_strict_json_and_read_back() -> None:
    lane = np.array([[1.0, np.nan, np.inf, -50.0, 0.1], [np.nan] * 5])
    (written,) = heartbeat.written(lane[None])
    assert written == [[1.0, None, "inf", -50.0, 0.1], [None] * 5]
    back = heartbeat.read(written)
    assert back.shape == (40, 5)
    np.testing.assert_array_equal(back[:2], lane)
    assert np.isnan(back[2:]).all()
    for damaged in ([[1.0] * 4], [[1.0] * 5] * 41, []):
        assert np.isnan(heartbeat.read(damaged)).all()
