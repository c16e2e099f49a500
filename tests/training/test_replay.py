"""A recording gives the same bits as what it recorded, or there is none; training with recordings is training."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.func import vmap

from harness.config.recipe import ModelSpec
from harness.config.trials import Trial
from harness.models import pretrained
from harness.training import loop, replay, replayer

KINDS = ("bert", "roberta", "distilbert", "albert", "electra", "deberta-v2")


def layered(given: Sequence[Tensor]) -> list[Tensor]:
    """Losses of two linear layers over a stack of lanes, and their gradients; chains of views as vmap leaves them."""
    first, second, x = given

    def one(first: Tensor, second: Tensor, x: Tensor) -> Tensor:
        hidden = torch.nn.functional.linear(x, first, first[:, 0]).view(-1, 2, 4).transpose(0, 1)
        return (hidden.reshape(-1, 8) @ second).exp().sum()

    losses = vmap(one, in_dims=(0, 0, None))(first, second, x)
    return [losses.detach(), *torch.autograd.grad(losses.sum(), [first, second])]


def weights(lanes: int, seed: int = 0) -> list[Tensor]:
    stream = torch.Generator().manual_seed(seed)
    flat = torch.randn(lanes, 3 + 8 * 4 + 8 * 5, generator=stream) / 8
    first, second = flat[:, 3:35].view(lanes, 8, 4), flat[:, 35:].view(lanes, 8, 5)
    return [first.requires_grad_(), second.requires_grad_(), torch.randn(6, 4, generator=stream)]


@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_a_recording_gives_the_same_bits_for_other_values(lanes: int) -> None:
    play = replay.record(layered, weights(lanes))
    assert play is not None
    for seed in range(5):
        given = weights(lanes, seed)
        for found, expected in zip(play(given), layered(given), strict=True):
            assert torch.equal(found, expected)


def test_not_a_number_is_played_back_too() -> None:
    given = weights(2)
    with torch.no_grad():
        given[1][1].fill_(torch.inf)
    play = replay.record(layered, given)
    assert play is not None
    losses, *gradients = play(given)
    assert torch.isfinite(losses[0])
    assert not torch.isfinite(losses[1])
    assert torch.isfinite(gradients[0][0]).all()


def test_what_cannot_be_recorded_is_not() -> None:
    def branches(given: Sequence[Tensor]) -> list[Tensor]:
        return [given[0] * 2 if given[0].sum() > 0 else given[0]]

    def draws(given: Sequence[Tensor]) -> list[Tensor]:
        return [given[0] + torch.rand(3)]

    def remembers(given: Sequence[Tensor]) -> list[Tensor]:
        calls.append(None)
        return [given[0] + len(calls)]

    calls: list[None] = []
    for function in (branches, draws, remembers):
        assert replay.record(function, [torch.ones(3)]) is None


def test_views_are_one_step_and_a_product_with_one_is_none() -> None:
    def viewing(given: Sequence[Tensor]) -> list[Tensor]:
        (x,) = given
        y = torch.ops.aten.mul.Scalar(x.view(3, 4).t().reshape(2, 6).view(-1, 3), 1).expand(4, 3)
        return [y.detach().view(4, 3) + x.view(2, 6).view(6, 2).view(4, 3)]

    x = torch.arange(12.0)
    with replay.Tape([x]) as tape:
        results = viewing([x])
    graph = tape.of(results)
    names = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
    assert [name.split(".")[1] for name in names] == ["as_strided", "clone", "as_strided", "add"]
    assert torch.equal(graph(x)[0], viewing([x])[0])


def test_what_is_no_function_of_the_arguments_alone_is_not_played() -> None:
    x, seen = torch.arange(6.0).view(2, 3), torch.tensor([1.0])

    def reads_a_number(given: Sequence[Tensor]) -> list[Tensor]:
        return [given[0] * given[0].sum().item()]

    def behind_our_back(given: Sequence[Tensor]) -> list[Tensor]:
        return [given[0] + torch.from_numpy(given[0].numpy().cumsum(axis=1))]

    assert replay.record(reads_a_number, [x]) is None
    assert replay.record(behind_our_back, [x]) is None
    played = replay.record(lambda given: [given[0] + seen], [x])
    assert played is not None
    assert torch.equal(played([x])[0], x + 1)


def test_what_is_written_in_place_and_read_through_views_is_played() -> None:
    def works(given: Sequence[Tensor]) -> list[Tensor]:
        x, y = given
        kept = torch.zeros(3, 4)
        kept[1:].copy_(x)
        low, high = (kept.t() @ kept).split(2)
        kept.add_(1)
        return [torch.cat([low, high]) + kept[0], torch.stack([x, y]).max(dim=0).values, y]

    x, y = torch.arange(8.0).view(2, 4), torch.ones(2, 4)
    played = replay.record(works, [x, y])
    assert played is not None
    for given in ([x, y], [x * 3, x - y]):
        assert all(torch.equal(a, b) for a, b in zip(played(given), works(given), strict=True))


def test_the_layout_tells_apart_what_a_recording_depends_on() -> None:
    x = torch.zeros(4, 4)
    others = (x[:2], x.t(), x[1:], x.double(), x.view(2, 8), torch.zeros(5, 4)[1:])
    assert len({replay.layout([one]) for one in (x, *others)}) == 1 + len(others)
    assert replay.layout([x]) == replay.layout([torch.ones(4, 4)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lanes", [1, 3])
def test_training_with_recordings_gives_the_same_bits(
    trial: Callable[..., Trial], build: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, kind: str, lanes: int
) -> None:
    spec = ModelSpec(name=kind, folder=str(build(kind)))
    changes = [{"dropout": 0.3}, {"lr": 1e-2}, {"lr": 1e30}]  # the last diverges
    pack = [trial(seed, model=spec, epochs=1, eval_batch_size=10, **changes[seed]) for seed in range(lanes)]
    plain = loop.train(pack)
    monkeypatch.setattr(replayer, "RECORDING_PAYS", 0)
    recorded = loop.train(pack)
    known = pretrained.network(spec, 2).recordings
    whats = {key[0] for key, play in known.items() if play is not None}  # type: ignore[index]
    assert whats == {"step dropout dropout.masks dropout.scale", "logits and vectors"}
    for one, other in zip(plain, recorded, strict=True):
        assert one.measured.weights_sha256 == other.measured.weights_sha256
        for name, value in one.curves.arrays.items():
            assert value.tobytes() == other.curves.arrays[name].tobytes(), name


@pytest.mark.parametrize(
    "fields",
    [
        {"dropout": 0.0}, {"precision": "bf16"}, {"padding": "batch"}, {"eval_steps": 3}, {"mixup": 0.4},
        {"neftune_alpha": 5.0}, {"r_drop": 1.0}, {"mixup": 0.4, "neftune_alpha": 5.0, "r_drop": 1.0},
    ],
    ids=str,
)  # fmt: skip
def test_other_recipes_are_recorded_apart(
    trial: Callable[..., Trial], build: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, fields: dict[str, object]
) -> None:
    spec = ModelSpec(name="bert", folder=str(build("bert")))
    packs = [[trial(seed, model=spec, epochs=1, **extra) for seed in (1, 2)] for extra in ({}, fields)]
    plain = [loop.train(pack) for pack in packs]
    monkeypatch.setattr(replayer, "RECORDING_PAYS", 0)
    for pack, expected in zip(packs + packs, plain + plain, strict=True):
        for one, other in zip(loop.train(pack), expected, strict=True):
            assert one.measured.weights_sha256 == other.measured.weights_sha256
            assert one.curves.logits.tobytes() == other.curves.logits.tobytes()
    recorded = {
        word
        for key, play in pretrained.network(spec, 2).recordings.items()
        if play is not None
        for word in key[0].split()  # type: ignore[index]
    }
    for word, name in (("mixup.words", "mixup"), ("neftune.noise", "neftune_alpha"), ("r_drop.alpha", "r_drop")):
        assert (word in recorded) == (name in fields)


def test_what_is_called_seldom_is_not_recorded(
    trial: Callable[..., Trial], build: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = ModelSpec(name="bert", folder=str(build("bert")))
    monkeypatch.setattr(replayer, "RECORDING_PAYS", 33)
    known = pretrained.network(spec, 2).recordings
    loop.train([trial(1, model=spec)])  # 14 full batches
    assert not known
    loop.train([trial(2, model=spec)])
    assert not known
    loop.train([trial(3, model=spec)])
    assert {key[0] for key in known} == {"step dropout dropout.masks dropout.scale"}  # type: ignore[index]


def test_a_copy_of_what_no_argument_decides_is_a_constant() -> None:
    """A table that a model makes on the host at each call must not be copied to a GPU inside a captured step."""

    def looks_up(given: Sequence[Tensor]) -> list[Tensor]:
        table = (torch.arange(6) * 2).to(torch.float64)
        return [given[0].double() * table.view(2, 3), given[0].to(torch.float64)]

    x = torch.arange(6.0).view(2, 3)
    with replay.Tape([x]) as tape:
        results = looks_up([x])
    graph = tape.of(results)
    copies = [node for node in graph.graph.nodes if node.target is torch.ops.aten._to_copy.default]
    assert len(copies) == 2  # of what is given
    assert not graph.graph.find_nodes(op="call_function", target=torch.ops.aten.arange.default)
    for a, b in zip(graph(x + 1), looks_up([x + 1]), strict=True):
        assert torch.equal(a, b)

    def writes(given: Sequence[Tensor]) -> list[Tensor]:
        table = torch.arange(6).to(torch.float64)
        table.add_(given[0].view(-1))
        return [table]

    assert replay.record(writes, [x]) is None
