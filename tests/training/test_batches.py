"""Batches are cut and repeated with all that is read beside them; selections go into a checkpoint and come back."""

from collections.abc import Callable

import torch
from training_runs import begin

from harness.config.trials import Trial
from harness.training.batches import Batch
from harness.training.selection import Selection


def test_a_batch_is_cut_with_what_is_read_beside_it() -> None:
    rows, others = torch.arange(20).view(2, 10), torch.arange(20, 40).view(2, 10)
    batch = Batch(rows, [0, 1], 7, also_read={"mixup": others})
    parts = batch.split(4)
    assert [part.rows.shape[1] for part in parts] == [4, 4, 2]
    assert [(part.update, part.call) for part in parts] == [(7, 0), (7, 1), (7, 2)]
    assert torch.equal(torch.cat([part.rows for part in parts], dim=1), rows)
    assert torch.equal(torch.cat([part.also_read["mixup"] for part in parts], dim=1), others)
    twice = parts[2].repeat(2)
    assert twice.rows.tolist() == [[8, 9, 8, 9], [18, 19, 18, 19]]
    assert twice.also_read["mixup"].tolist() == [[28, 29, 28, 29], [38, 39, 38, 39]]


def test_batches_go_through_each_epoch_and_begin_the_next_anew(trial: Callable[..., Trial]) -> None:
    run = begin([trial(1, epochs=2), trial(2, epochs=2)])
    epochs = []
    for epoch in range(2):
        steps = range(epoch * run.pack.epoch_steps, (epoch + 1) * run.pack.epoch_steps)
        epochs.append(torch.cat([run.batches.draw(step).rows for step in steps], dim=1))
    for order in epochs:
        assert [sorted(lane) for lane in order.tolist()] == [list(range(60))] * 2
    assert not torch.equal(epochs[0], epochs[1])
    assert run.pack.epoch_ends == [8, 16]


def test_a_selection_comes_back_from_its_state() -> None:
    selection = Selection(3)
    for number, lane in enumerate((None, 1, 1)):
        selection.add_evaluation()
        if lane is not None:
            selection.keep_previous(lane)
        if number == 1:
            selection.stopped[2] = 5
    selection.choose(1, 4, torch.arange(4.0))
    assert selection.standing == [[0, 0, 0], [1, 0, 1], [2, 0, 1]]
    other = Selection(3)
    other.load_state(selection.state(), torch.device("cpu"))
    assert (other.standing, other.stopped) == (selection.standing, {2: 5})
    assert other.chosen[1][0] == 4
    assert other.chosen[1][1].tolist() == [0, 1, 2, 3]
    assert not other.all_stopped
    other.stopped |= {0: 5, 1: 5}
    assert other.all_stopped
    assert Selection(2).state()["standing"].shape == (0, 2)
