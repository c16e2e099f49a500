"""A captured computation is checked before it is used; where there is no GPU, a stand-in plays its part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from harness.training import capture, fused, philox

Function = Callable[[Sequence[Tensor]], list[Tensor]]
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class _Stream:
    def wait_stream(self, other: object) -> None:
        """Nothing runs beside the host here."""


class _Graph:
    """Replays by calling again what was called while it was open, into the results that were made then."""

    replays: Callable[[], None]

    def replay(self) -> None:
        self.replays()


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """torch.cuda's graphs on the CPU: a test appends what a replay does, as what is captured can't be seen here."""
    replays: list[Callable[[], None]] = []

    @contextmanager
    def graph(made: _Graph, **_: object) -> Iterator[None]:
        yield
        made.replays = replays[-1]

    @contextmanager
    def stream(_: object) -> Iterator[None]:
        yield

    for name, value in {
        "Stream": _Stream, "current_stream": _Stream, "stream": stream, "CUDAGraph": _Graph, "graph": graph,
        "synchronize": lambda: None, "empty_cache": lambda: None, "graph_pool_handle": object,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    return replays


def made(replays: list[Callable[[], None]], wrong: float = 0.0) -> tuple[Function, list[Tensor], Tensor]:
    """A function of weights and inputs that writes beside its result, and what a replay of it does, off by `wrong`."""
    weights, x, written = torch.arange(6.0).view(2, 3), torch.arange(6.0).view(2, 3) + 1, torch.zeros(2, 3)
    seen: list[tuple[Sequence[Tensor], list[Tensor]]] = []

    def function(given: Sequence[Tensor]) -> list[Tensor]:
        written.copy_(given[0] * given[1])
        seen.append((given, [(given[0] * given[1]).sum(dim=1)]))
        return seen[-1][1]

    def replay() -> None:
        given, results = seen[-1]
        written.copy_(given[0] * given[1])
        written[1, 2] += wrong
        results[0].copy_((given[0] * given[1]).sum(dim=1))

    replays.append(replay)
    return function, [weights, x], written


def test_a_capture_reads_fixed_memory_where_it_lies_and_copies_the_rest(pretended: list[Callable[[], None]]) -> None:
    function, (weights, x), written = made(pretended)
    captured = capture.capture(function, [weights, x], {weights.data_ptr()}, [written])
    weights.add_(1)
    other = x * 3
    (result,) = captured([weights, other])
    assert torch.equal(result, (weights * other).sum(dim=1))
    assert torch.equal(written, weights * other)
    assert torch.equal(x, torch.arange(6.0).view(2, 3) + 1)


def test_a_replay_that_differs_by_a_bit_is_not_used(pretended: list[Callable[[], None]]) -> None:
    function, given, written = made(pretended, wrong=1e-6)
    captures = capture.Captures()
    assert captures.of("step", function, given, {given[0].data_ptr()}, [written]) is function
    assert captures.reason is not None
    assert "differs from what it replays" in captures.reason
    assert captures.of("step", function, given, {given[0].data_ptr()}, [written]) is function


def test_what_cannot_be_captured_says_why(pretended: list[Callable[[], None]]) -> None:
    def waits(given: Sequence[Tensor]) -> list[Tensor]:
        raise RuntimeError("operation not permitted when stream is capturing\nmore of it")

    captures = capture.Captures()
    assert captures.of("step", waits, [torch.ones(2)], set()) is waits
    assert captures.reason == "RuntimeError: operation not permitted when stream is capturing"


def test_a_fingerprint_follows_each_bit_and_its_place() -> None:
    value = torch.randn(3, 50)
    for change in (lambda v: v[1].roll(1), lambda v: torch.nextafter(v[1], torch.tensor(9.0)), lambda v: -v[1]):
        other = value.clone()
        other[1] = change(value)
        (before,), (after,) = capture._fingerprints([value]), capture._fingerprints([other])
        assert not torch.equal(before[1], after[1])
        assert torch.equal(before[[0, 2]], after[[0, 2]])
    bits = torch.tensor([[True, False, True]])
    assert not torch.equal(capture._fingerprints([bits])[0], capture._fingerprints([~bits])[0])


# Random123's own test vectors for philox4x32-10 (its file kat_vectors).
@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_its_published_numbers(
    counter: tuple[int, ...], key: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    words = philox.philox([torch.tensor([one]) for one in counter], [torch.tensor([one]) for one in key])
    assert tuple(int(word) for word in words) == expected


def test_a_keep_decision_depends_on_its_lane_update_call_and_place_alone() -> None:
    seeds, cuts = torch.tensor([11, 2**62 + 5, 7]), torch.tensor([6554, 0, 32768])
    whole = philox.keep(seeds, cuts, 3, 1, 40_001)
    assert whole.shape == (3, 40_001)
    assert whole.dtype == torch.bool
    for order in ([2], [1, 0], [2, 0, 1]):
        assert torch.equal(philox.keep(seeds[order], cuts[order], 3, 1, 40_001), whole[order])
    assert torch.equal(philox.keep(seeds, cuts, 3, 1, 100), whole[:, :100])
    assert whole.float().mean(dim=1).tolist() == pytest.approx([1 - 6554 / 65536, 1, 0.5], abs=0.01)
    for update, call in ((4, 1), (3, 2)):
        assert not torch.equal(philox.keep(seeds, cuts, update, call, 40_001)[0], whole[0])


def test_the_fused_update_is_adamws() -> None:
    """Its reference against the optimizer's own operations; on a GPU the kernel is held against the reference."""
    generator = torch.Generator().manual_seed(3)
    weights, gradient, first, second = (torch.randn(2, 700, generator=generator) for _ in range(4))
    second.square_()
    decayed = (weights[0] > 0).float()
    rows = [(1.0, 0.5), (0.9, 0.8), (0.1, 0.2), (0.99, 0.9), (0.01, 0.1), (1e-6, 1e-8), (1e-2, 1e-3), (1e-3, 0.0)]
    settings = torch.tensor(rows)
    m = first * settings[1, :, None] + gradient * settings[0, :, None] * settings[2, :, None]
    v = second * settings[3, :, None] + (gradient * settings[0, :, None]) ** 2 * settings[4, :, None]
    expected = weights - settings[6, :, None] * m / (v.sqrt() + settings[5, :, None])
    expected = expected - settings[7, :, None] * decayed * expected
    start = weights.clone()
    before, moved = fused.reference(weights, gradient, first, second, decayed, settings)
    torch.testing.assert_close(weights, expected)
    torch.testing.assert_close(first, m)
    torch.testing.assert_close(second, v)
    torch.testing.assert_close(before, start.norm(dim=1))
    torch.testing.assert_close(moved, (start - expected).norm(dim=1))


@on_gpu
def test_the_kernels_work_on_this_device() -> None:
    assert philox._kernel_works(0)
    assert fused.works(0)


@on_gpu
def test_a_real_capture_replays_other_inputs_and_says_what_it_cannot() -> None:
    weights, x = torch.randn(4, 8, 8, device="cuda"), torch.randn(4, 5, 8, device="cuda")

    def product(given: Sequence[Tensor]) -> list[Tensor]:
        return [torch.bmm(given[1], given[0]).relu()]

    captures = capture.Captures()
    play = captures.of("product", product, [weights, x], {weights.data_ptr()})
    assert captures.reason is None
    assert play is not product
    weights.mul_(2)
    assert torch.equal(play([weights, x + 1])[0], product([weights, x + 1])[0])

    def reads(given: Sequence[Tensor]) -> list[Tensor]:
        return [given[0] * float(given[0].sum())]

    assert captures.of("reads", reads, [x], set()) is reads
    assert captures.reason is not None
    assert torch.equal(product([weights, x])[0], torch.bmm(x, weights).relu())  # the device goes on
