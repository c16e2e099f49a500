"""An oversampled epoch has equal classes."""

import math
from collections.abc import Callable

import numpy as np
from training_runs import begin

from harness.config.recipe import TaskSpec
from harness.config.trials import Trial
from harness.data import tasks
from harness.training.loop import update

Make = Callable[..., Trial]
Fields = dict[str, object]


def test_an_oversampled_epoch_has_equal_classes(trial: Make, uneven: TaskSpec) -> None:
    run = begin([trial(1, task=uneven, oversample=True)])
    counts = np.bincount(run.pack.task.train.labels).tolist()
    assert counts == [30, 10]
    assert run.pack.epoch_steps == math.ceil(60 / 8) == tasks.epoch_steps(run.pack.task.train.labels, run.pack.recipe)
    orders = []
    for epoch in range(2):
        update(run, epoch * run.pack.epoch_steps)
        orders.append(run.batches.order[0].tolist())
        assert np.bincount(run.pack.task.train.labels[orders[-1]]).tolist() == [30, 30]
        assert set(orders[-1]) == set(range(40))  # nothing is left out
    assert sorted(orders[0]) != sorted(orders[1])
