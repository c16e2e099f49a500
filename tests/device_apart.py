"""A device that is not there: its tensors hold their values on the CPU, and refuse to meet the CPU's, as a GPU's do.

So the paths of a GPU are walked where there is none. torch's own FakeTensor has no values and knows no generator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes, return_and_correct_aliasing

# A type that torch knows and that needs no library: it has an autograd queue and a device guard in every build.
DEVICE = torch.device("lazy:0")

_aten = torch.ops.aten
_ACROSS = {_aten.copy_.default, _aten._to_copy.default}
_INDEXING = {_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default, _aten._unsafe_index.Tensor}


class _Apart(torch.Tensor):
    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> _Apart:
        made: _Apart = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            device=DEVICE,
        )  # fmt: skip
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


class _Everywhere(TorchDispatchMode):
    """What is made on the device or copied to it comes here, and each read of the host is counted."""

    reads = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        copied = func is _aten._to_copy.default and torch.device(kwargs.get("device") or DEVICE).type == "cpu"
        if (copied or func is _aten._local_scalar_dense.default) and isinstance(args[0], _Apart):
            self.reads += 1
        return _compute(func, args, kwargs)


def _each(function: Callable[[Any], Any], given: Any) -> Any:
    """The same tuples, lists and dicts with a function's results; torch's own trees know more, and slowly."""
    if isinstance(given, tuple | list):
        return type(given)([_each(function, one) for one in given])
    if isinstance(given, dict):
        return {name: _each(function, one) for name, one in given.items()}
    return function(given)


def _compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    target = kwargs.get("device")
    apart = []

    def held(one: Any) -> Any:
        if isinstance(one, _Apart):
            apart.append(one)
            return one.held
        return one

    own = _each(held, args), _each(held, kwargs)
    if apart and func not in _ACROSS:
        _refuse_others(func, args, kwargs)
    given = {**own[1], "device": torch.device("cpu")} if target is not None else own[1]
    found = func(*own[0], **given)
    if func is _aten.copy_.default:
        return args[0]
    there = bool(apart) if target is None else torch.device(target).type == DEVICE.type
    if not there:
        return found
    made = _each(lambda one: _Apart(one) if isinstance(one, torch.Tensor) else one, found)
    return return_and_correct_aliasing(func, args, kwargs, made) if apart else made


def _refuse_others(func: Any, args: Any, kwargs: dict[str, Any]) -> None:
    """A CPU's tensor meets the device's as a number, or as the places that the device's is read at."""
    if func in _INDEXING and isinstance(args[0], _Apart):
        args = (args[0], *args[2:])

    def refuse(one: Any) -> None:
        if isinstance(one, torch.Tensor) and not isinstance(one, _Apart) and one.dim():
            raise RuntimeError(f"all tensors lie on the same device: {func} got one of the CPU, {tuple(one.shape)}")

    _each(refuse, (args, kwargs))


@contextmanager
def pretended() -> Iterator[_Everywhere]:
    """While this holds, tensors can be made on `DEVICE` and moved to it; gives the count of what the host read."""
    generator = torch.Generator

    class OnCpu(generator):  # type: ignore[misc,valid-type]
        def __new__(cls, device: object = "cpu") -> torch.Generator:  # type: ignore[misc]
            return generator("cpu")

    torch.Generator = OnCpu  # type: ignore[misc]
    torch._C._set_only_lift_cpu_tensors(True)  # so that `torch.tensor(…, device=…)` is a copy that is seen here
    try:
        with _Everywhere() as mode:
            yield mode
    finally:
        torch._C._set_only_lift_cpu_tensors(False)
        torch.Generator = generator  # type: ignore[misc]


@contextmanager
def left() -> Iterator[None]:
    """While this holds, torch computes on the CPU as ever: nothing passes through the device's Python, a tenth of the
    time.
    """
    with _disable_current_modes():
        yield
