"""A computation captured once as a CUDA graph and replayed: one launch instead of one for each of its kernels.

Small steps are bound by launches on a GPU: a step of a twelve-layer encoder launches two thousand kernels, which takes
the host longer than a batch of short texts takes the device. A capture is checked before it is used, twice, with other
values: where it raises or differs by a bit, the step runs as before and the reason is kept.
"""

from __future__ import annotations

import gc
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from harness.training.replay import Function

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class NoCaptureError(RuntimeError):
    """A computation can't be captured, or its capture doesn't give its bits."""


@dataclass(eq=False)
class Capture:
    """A captured function: what it reads, where its results are, and the graph between them.

    Arguments whose memory is the one that was captured are read where they lie; others are copied to where the graph
    reads them. Results lie where they lay before: they are overwritten by the next replay.
    """

    arguments: list[Tensor]
    results: list[Tensor]
    graph: Any

    def __call__(self, given: Sequence[Tensor]) -> list[Tensor]:
        """The results for arguments of the captured layout."""
        for static, value in zip(self.arguments, given, strict=True):
            if static.data_ptr() != value.data_ptr():
                static.copy_(value)
        self.graph.replay()
        return self.results


def capture(
    function: Function,
    given: Sequence[Tensor],
    fixed: Collection[int],
    written: Sequence[Tensor] = (),
    pool: Any = None,
) -> Capture:
    """Capture a function of tensors as a CUDA graph.

    Args:
        function: What is captured.
        given: Its tensors.
        fixed: The `data_ptr` of those that every replay reads where they lie; the others are copied in.
        written: What the function writes beside its results.
        pool: The memory pool of another capture, to be shared; None: one of its own.

    Raises:
        NoCaptureError: It can't be captured, or a replay differs from the function by a bit.
    """
    try:
        return _checked(function, given, fixed, written, pool)
    except NoCaptureError:
        raise
    except Exception as error:  # whatever CUDA, cuBLAS or the model's own code says
        line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        raise NoCaptureError(f"{type(error).__name__}: {line}"[:300]) from None
    finally:
        torch.cuda.empty_cache()


def _checked(
    function: Function, given: Sequence[Tensor], fixed: Collection[int], written: Sequence[Tensor], pool: Any
) -> Capture:
    # Twice before the capture, on its stream: libraries plan and take their memory then. The capture comes after, so
    # that never both its memory and theirs are held.
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        others = [_others(given, fixed, turn) for turn in (1, 2)]
        expected = [_fingerprints([*function(values), *written]) for values in others]
        arguments = [tensor if tensor.data_ptr() in fixed else tensor.clone() for tensor in given]
    torch.cuda.synchronize()
    gc.collect()
    torch.cuda.empty_cache()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
        results = function(arguments)
    captured = Capture(arguments, results, graph)
    for turn, (values, wanted) in enumerate(zip(others, expected, strict=True), 1):
        for tensor in written:
            tensor.zero_()
        replayed = _fingerprints([*captured(values), *written])
        for number, (a, b) in enumerate(zip(replayed, wanted, strict=True)):
            if not torch.equal(a, b):
                raise NoCaptureError(f"replay {turn} differs from what it replays, in result {number}")
    return captured


def _others(given: Sequence[Tensor], fixed: Collection[int], turn: int) -> list[Tensor]:
    """Other values of the same layout and range."""
    return [
        tensor if tensor.data_ptr() in fixed or not tensor.dim() else torch.roll(tensor, turn, dims=-1)
        for tensor in given
    ]


def _fingerprints(values: Sequence[Tensor]) -> list[Tensor]:
    """Of each tensor a few numbers, [rows, 2], that follow each of its bits and their places, in little memory."""
    made = []
    for value in values:
        rows = value.detach().reshape(len(value) if value.dim() > 1 else 1, -1)
        places = torch.arange(1, rows.shape[1] + 1, device=rows.device)
        of_rows = []
        for row in rows:
            bits = row.contiguous().view(_INTEGERS[row.element_size()]).long()
            of_rows.append(torch.stack([bits.sum(), (bits * places).sum()]))
        made.append(torch.stack(of_rows))
    return made


@dataclass
class Captures:
    """The captures of a run, which share their memory: what each computes is read before the next is replayed.

    `reason` says why a step wasn't captured where one was tried, for the record.
    """

    reason: str | None = None
    known: dict[object, Capture | None] = field(default_factory=dict)
    _pool: Any = None

    def of(
        self,
        key: object,
        function: Function,
        given: Sequence[Tensor],
        fixed: Collection[int],
        written: Sequence[Tensor] = (),
    ) -> Function:
        """The function's capture under this key, or the function itself where it can't be captured."""
        if key not in self.known:
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            try:
                self.known[key] = capture(function, given, fixed, written, self._pool)
            except NoCaptureError as error:
                self.known[key], self.reason = None, str(error)
        return self.known[key] or function
