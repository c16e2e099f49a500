"""Mixup: its draws, the words that it mixes in every family, and lanes that keep to themselves."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cut_runs import same
from training_runs import begin, loss_of, remedy

from harness.config.recipe import ModelSpec
from harness.config.trials import Trial
from harness.training import loop
from harness.training.batches import Batch
from harness.training.remedies.mixup import Mixup

Make = Callable[..., Trial]
Fields = dict[str, object]


def test_mixup_draws_its_shares_from_a_beta_distribution(trial: Make) -> None:
    """Of mean 1/2 and variance 1 / (4 (2α + 1)); a batch is mixed with all of itself, λ once a batch and lane."""
    run = begin([trial(seed, mixup=alpha) for seed, alpha in ((1, 0.2), (2, 1.0), (2, 4.0))])
    mixup = remedy(run, Mixup)
    rows = torch.arange(30).view(3, 10)
    others, shares_drawn = [], []
    for _ in range(4000):
        others.append(mixup.change_batch(Batch(rows, [0, 1, 2], 0), run.training).also_read["mixup"])
        shares_drawn.append(mixup.shares)
    assert all(torch.equal(one.sort(dim=1).values, rows) for one in others)
    first = torch.stack([one[0] for one in others])
    assert (first == rows[0]).float().mean().item() == pytest.approx(0.1, abs=0.006)  # 4 standard errors
    shares = torch.stack(shares_drawn)
    assert shares.mean(dim=0).tolist() == pytest.approx([0.5] * 3, abs=4 * math.sqrt(0.18 / 4000))
    assert shares.var(dim=0).tolist() == pytest.approx([1 / (4 * (2 * a + 1)) for a in (0.2, 1.0, 4.0)], rel=0.06)


def test_lanes_of_other_mixtures_are_bit_equal_alone_and_in_a_pack(trial: Make) -> None:
    lanes: list[Fields] = [{"mixup": 0.2}, {"mixup": 4.0, "mixout": 0.5}, {"mixup": 1.0, "dropout": 0.0, "lr": 1e30}]
    for common in ({}, {"padding": "batch"}, {"method": "lora"}, {"method": "prompt", "virtual_tokens": 3}):
        kept = [lane for lane in lanes if "mixout" not in lane or "method" not in common]
        trials = [trial(place, **lane, **common) for place, lane in enumerate(kept)]
        wanted = loop.train(trials)
        for place in range(len(trials)):
            assert same(loop.train(trials[place : place + 1]), wanted[place : place + 1])
    (without,) = loop.train([trial(0, method="prompt", virtual_tokens=3)])
    assert not np.array_equal(without.curves.train_loss, wanted[0].curves.train_loss)


@pytest.mark.parametrize("kind", ["roberta", "albert", "electra", "distilbert", "deberta", "deberta-v2"])
def test_mixup_reads_what_every_family_reads(trial: Make, build: Callable[..., Path], kind: str) -> None:
    """An example mixed with itself is itself."""
    model = ModelSpec(name=f"m-{kind}", folder=str(build(kind)))
    rows = torch.arange(8)[None]
    found = []
    for others in (None, rows, rows.flip(1)):
        run = begin([trial(1, model=model, dropout=0.0, mixup=0.0 if others is None else 0.4)])
        with torch.no_grad():
            run.lanes.weights.mul_(8)  # a fresh model hardly looks at the words
        batch = Batch(rows, [0], 0)
        if others is not None:
            remedy(run, Mixup).shares = torch.tensor([0.25])
            batch = replace(batch, also_read={"mixup": others})
        found.append(loss_of(run, batch))
    assert found[1] == pytest.approx(found[0], rel=1e-5)
    assert found[2] != pytest.approx(found[0], rel=1e-5)
