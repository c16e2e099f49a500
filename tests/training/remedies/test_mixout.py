"""Mixout keeps the mean and drops at its rate; other streams are as without it."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from training_runs import begin, remedy

from harness.config.trials import Trial
from harness.training.loop import update
from harness.training.remedies.dropout import Dropout
from harness.training.remedies.mixout import Mixout

Make = Callable[..., Trial]
Fields = dict[str, object]


def test_the_head_and_the_other_streams_are_those_of_the_same_seed_without(trial: Make) -> None:
    run = begin([trial(1), trial(1, reinit_layers=1, mixout=0.5)])
    for name, view in run.lanes.views.items():
        fresh = ("layer.1" in name or "pooler" in name) and view[0].dim() > 1  # a fresh model's biases are 0 anyhow
        assert torch.equal(view[0], view[1]) != fresh, name
    update(run, 0)
    assert torch.equal(run.batches.order[0], run.batches.order[1])
    assert torch.equal(*(one.get_state() for one in remedy(run, Dropout).streams))


def test_mixout_keeps_the_mean_and_its_rate(trial: Make) -> None:
    run = begin([trial(1, mixout=0.3)])
    with torch.no_grad():
        run.lanes.weights.add_(1.0)  # away from the pretrained values
        mixout, shares = remedy(run, Mixout), []
        for _ in range(50):
            mixout.weights_for_step(run.lanes.weights)
            shares.append(float((mixout.factors[0] == 0).float().mean()))
    parts = run.lanes.parts
    linear = sum(
        size for size, columns, slot in zip(parts.sizes, parts.columns, parts.slots, strict=True)
        if columns and slot
    )  # fmt: skip
    # 480 columns a draw, 50 draws: 4 standard errors of a share of 0.3, columns of unequal length counted in.
    assert np.mean(shares) * run.lanes.weights.shape[1] / linear == pytest.approx(0.3, abs=0.02)
