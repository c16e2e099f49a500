"""Where a lane stops, what its result is of, and when a pack ends."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from training_runs import advance, begin

from harness.config.trials import Trial
from harness.training import loop
from harness.training.callbacks import report_progress
from harness.training.outcome import LaneResult, lane_results

Make = Callable[..., Trial]
Fields = dict[str, object]


@pytest.mark.parametrize("on", ["loss", "score"])
def test_a_lane_stops_by_itself_where_its_dev_curve_says(trial: Make, on: str) -> None:
    """The evaluations of the same run without stopping tell when it stops and which is the best."""
    common = {"eval_every": 0.25, "epochs": 6, "lr": 2e-2}
    lanes = [{}, {"early_stopping_patience": 3, "early_stopping_on": on}]
    lanes.append(lanes[1] | {"keep_best": True})
    whole, stopped, best = loop.train([trial(2, **common, **lane) for lane in lanes])
    values = whole.curves.dev_score if on == "score" else -whole.curves.dev_loss
    top, since, end = -math.inf, 0, -1
    for value in values:
        end += 1
        top, since = (value, 0) if value > top else (top, since + 1)
        if since == 3:
            break
    step = int(whole.curves.eval_step[end])
    assert since == 3
    assert step < whole.measured.steps
    for found in (stopped, best):
        assert (found.measured.stopped_step, found.measured.steps) == (step, step)
        for name in ("train_loss", "grad_norm", "lr"):
            np.testing.assert_array_equal(getattr(found.curves, name), getattr(whole.curves, name)[:step])
        np.testing.assert_array_equal(found.curves.dev_loss, whole.curves.dev_loss[: end + 1])
    kept = int(np.argmax(values[: end + 1]))
    assert best.measured.kept_step == whole.curves.eval_step[kept]
    assert best.measured.final_score == whole.curves.dev_score[kept]
    assert stopped.measured.final_score == whole.curves.dev_score[end]
    assert stopped.measured.kept_step is whole.measured.stopped_step is None
    # The weights are those of a run that ends there: the same schedule, cut.
    run = begin([trial(2, **common)])
    hashes = {}
    for number in range(step):
        advance(run, number)
        hashes[number + 1] = (
            lane_results(run, 0.0)[0].measured.weights_sha256 if number + 1 in (step, kept_step(best)) else ""
        )
    assert stopped.measured.weights_sha256 == hashes[step]
    assert best.measured.weights_sha256 == hashes[kept_step(best)]


def kept_step(result: LaneResult) -> int:
    assert result.measured.kept_step is not None
    return result.measured.kept_step


def test_a_pack_whose_lanes_all_stopped_ends(trial: Make) -> None:
    seen: list[int] = []
    trials = [trial(seed, lr=1e-9, early_stopping_patience=1, epochs=9, early_stopping_on="score") for seed in (1, 2)]
    results = loop.train(trials, callbacks=[report_progress(lambda step, steps: seen.append(step))])
    assert [result.measured.stopped_step for result in results] == [16, 16]
    assert seen[-1] == 16
