"""A training step compiled by Inductor: fused operations, after a minute of compilation, and last bits of its own.

What is compiled is the recording of a step (`replay`), so it is always the batch of full size: which steps are compiled
depends on the recipe alone, never on what a process trained before. A compiled step is checked before it is used; where
compilation fails or a check does, the step runs as without it and the reason is kept for the record.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

from harness.common.files import user_cache
from harness.training.replay import Function, Tape, with_other_values

NO_COMPILER = "none"
# How far a compiled step's results may lie from the plain one's, over all of them, relative to their norm.
_TOLERANCE = {"float32": 1e-4, "tf32": 1e-2, "bf16": 5e-2}


class NotCompiledError(RuntimeError):
    """A step can't be compiled, or what was compiled isn't that step."""


@dataclass(frozen=True, eq=False)
class Compiled:
    """A compiled recording, to be called as the function that was recorded."""

    graph: Callable[..., Sequence[Tensor]]

    def __call__(self, given: Sequence[Tensor]) -> list[Tensor]:
        """The results for arguments of the recorded layout."""
        with torch.no_grad():
            return list(self.graph(*[argument.detach() for argument in given]))


@dataclass
class CompiledSteps:
    """The compiled steps of a run.

    `known` outlives the run: what the process compiled so far or, as a text, why it could not.
    """

    precision: str
    known: dict[object, Compiled | str]
    used: bool = False
    failure: str | None = field(default=None)

    @property
    def reason(self) -> str | None:
        """Why no step of the run was compiled; None where one was."""
        return None if self.used else self.failure or "not compiled: no step has the shape of a whole batch"

    def of(self, key: object, step: Function, given: Sequence[Tensor]) -> Compiled | None:
        """The compiled step for arguments of this layout; None where there is none.

        `key` tells steps and layouts apart. Every argument and every result has the lanes in its first dimension.
        """
        key = (key, torch.get_num_threads())  # which a kernel is compiled for
        if key not in self.known:
            try:
                self.known[key] = compile_step(step, given, _TOLERANCE[self.precision])
            except NotCompiledError as error:
                self.known[key] = str(error)
        compiled = self.known[key]
        if isinstance(compiled, str):
            self.failure = f"not compiled: {compiled}"
            return None
        self.used = True
        return compiled


@cache
def compiler(device: str) -> str:
    """Name and version of what compiles for a kind of device, `NO_COMPILER` where nothing can."""
    if device.startswith("cuda"):
        try:
            import triton
        except ImportError:
            return NO_COMPILER
        return f"triton {triton.__version__}"
    try:
        from torch._inductor.cpp_builder import get_cpp_compiler

        command = [get_cpp_compiler(), "--version"]
        answer = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=30, check=True)
        return answer.stdout.splitlines()[0].strip()
    except Exception:  # torch raises its own kinds where it finds none
        return NO_COMPILER


def compile_step(step: Function, given: Sequence[Tensor], tolerance: float) -> Compiled:
    """The recording of a step as compiled by Inductor, checked with other values.

    Its kernels are kept in the user's cache, from which the next worker or run takes them. Checked are: over all
    results together the difference from the step is at most `tolerance` of their norm; and with the lanes in other
    places each lane's results are the same bits, so that they depend neither on its place nor on what the others hold.

    Raises:
        NotCompiledError: there is no compiler, or it fails, or a check does.
    """
    name = compiler(given[0].device.type)
    if name == NO_COMPILER:
        raise NotCompiledError("there is no C++ compiler, or for a GPU no Triton")
    # Kernels are looked up by their source and flags alone, so another compiler's must not lie there.
    folder = user_cache() / "inductor" / hashlib.sha256(name.encode()).hexdigest()[:16]
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    try:
        tape = Tape(given)
        with tape:
            results = step(given)
        others = with_other_values(given)
        plain = step(others)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch about itself
            compiled = Compiled(_compile(tape.of(results, simplified=False)))
            fused, turned = compiled(others), compiled(_turned(others))
    except Exception as error:  # whatever the compiler or the model's own code says
        raise NotCompiledError(_line(error)) from None
    apart = sum(float((a.double() - b.double()).square().sum()) for a, b in zip(plain, fused, strict=True))
    whole = sum(float(a.double().square().sum()) for a in plain)
    if not apart <= tolerance**2 * whole:
        distance = (apart / whole) ** 0.5 if whole else apart
        raise NotCompiledError(f"its results are {distance:.1g} apart from the step's")
    for a, b in zip(fused, turned, strict=True):
        if not torch.equal(a.roll(1, dims=0), b):
            raise NotCompiledError("a lane's last bits depend on its place in the pack")
    return compiled


def _line(error: Exception) -> str:
    """What an error says, without what torch says around it."""
    inner = getattr(error, "inner_exception", error)
    line = next((line.strip() for line in str(inner).splitlines() if line.strip()), "")
    return f"{type(inner).__name__}: {line}"[:300]


def _compile(graph: torch.fx.GraphModule) -> Callable[..., Sequence[Tensor]]:
    import torch._inductor.config as settings

    # Nothing is chosen by the clock, which would choose other last bits in the next process.
    options: dict[str, Any] = {"deterministic": True} if hasattr(settings, "deterministic") else {}
    compiled: Callable[..., Sequence[Tensor]] = torch.compile(graph, fullgraph=True, dynamic=False, options=options)
    return compiled


def _turned(given: Sequence[Tensor]) -> list[Tensor]:
    """The arguments with each lane's values in the next lane's place, in the same layout.

    Views of one memory stay views of one memory: weights are copied once, not once a parameter.
    """
    copies: dict[int, Tensor] = {}
    turned = []
    for argument in given:
        memory = argument.untyped_storage()
        if memory.data_ptr() not in copies:
            whole = argument.detach().as_strided((memory.nbytes() // argument.element_size(),), (1,), 0)
            copies[memory.data_ptr()] = whole.clone()
        view = copies[memory.data_ptr()].as_strided(argument.shape, argument.stride(), argument.storage_offset())
        turned.append(view.copy_(argument.detach().roll(1, dims=0)))
    return turned
