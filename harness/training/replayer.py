"""How a step reaches the device: operation by operation, played back from a recording, or as a CUDA graph."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from torch import Tensor

from harness.records.record import StepMode
from harness.training import replay
from harness.training.capture import Captures
from harness.training.compiled import CompiledSteps
from harness.training.lanes import Lanes, Views
from harness.training.replay import Function
from harness.training.transfer import copied

# Calls with one layout from which on a recording of them pays: each saves a fiftieth of what recording takes, or more.
RECORDING_PAYS = 100
Key = tuple[object, ...]


class Replayer:
    """Calls functions of the lanes' tensors in the fastest way that gives their bits.

    Recordings are kept with the network, for the packs that the worker trains next; captured graphs read and write the
    memory of this run.
    """

    def __init__(self, lanes: Lanes, *, enabled: bool = True, compiled: bool = False) -> None:
        """Without `enabled` nothing is recorded; `compiled` has the steps of whole batches compiled."""
        pack = lanes.pack
        self.lanes, self.enabled = lanes, enabled
        self._recordings, self._calls = lanes.network.recordings, lanes.network.calls
        captures = pack.device.type == "cuda" and os.environ.get("HARNESS_CAPTURE") != "off"
        self.captures = Captures() if captures else None
        self._compiled = CompiledSteps(pack.recipe.precision, lanes.network.compiled) if compiled else None
        self._kind = (
            pack.recipe.precision,
            pack.recipe.activation_checkpointing,  # whose bits are the same, and whose memory is not
            pack.task.num_labels,
            pack.task.label_names is None,
            *pack.kind.constants,
        )
        self._layout = replay.layout(list(lanes.arguments(lanes.weights).values()))
        self._step_keys: set[Key] = set()  # of the recordings that there may be of a step
        self._part_gradient: Tensor | None = None  # [L, P], of a captured part of a batch

    def call(
        self, what: str, function: Function, arguments: Views, inputs: Sequence[Tensor], calls_left: int
    ) -> list[Tensor]:
        """What a function gives for the lanes' arguments and further inputs; played back once that pays."""
        key = self._key(what, arguments, inputs, 0)
        function, _ = self._recorded(key, function, given := [*arguments.values(), *inputs], calls_left)
        return function(given)

    def step(
        self,
        what: str,
        function: Function,
        arguments: Views,
        inputs: Sequence[Tensor],
        size: int,
        calls_left: int,
        *,
        fixed: Callable[[], set[int]],
        whole: bool,
        add: bool,
        in_parts: bool,
    ) -> Tensor:
        """The losses [L] of a function that gives them and their gradients, which are written to the lanes' gradient.

        Args:
            what: names the function, for its recordings.
            function: gives the losses and a gradient [L, *shape] for each parameter.
            arguments: the lanes' weights and settings, which come first among what the function is given.
            inputs: what else it is given.
            size: a number that it takes as a constant.
            calls_left: how often it will be called again in this run.
            fixed: where a captured step reads inputs, as `data_ptr`.
            whole: whether it is of a batch, or a part of one, of full size: such steps can be compiled.
            add: whether the gradient is added to what is there.
            in_parts: whether others of the same update are added.
        """
        given, key = [*arguments.values(), *inputs], self._key(what, arguments, inputs, size)
        # Whether a step is compiled must not depend on how often this process called it: bits depend on it.
        compiled = self._compiled.of(key, function, given) if self._compiled is not None and whole else None
        function, pays = (compiled, True) if compiled else self._recorded(key, function, given, calls_left)
        self._step_keys.add(key)
        if self.captures is not None and pays:
            addresses = {tensor.data_ptr() for tensor in arguments.values()} | fixed()
            return self._captured(self.captures, key, function, given, addresses, add=add, in_parts=in_parts)
        losses, *gradients = function(given)
        write_gradients(self.lanes.gradient_views, gradients, add)
        return losses

    def _captured(
        self,
        captures: Captures,
        key: Key,
        step: Function,
        given: list[Tensor],
        fixed: set[int],
        *,
        add: bool,
        in_parts: bool,
    ) -> Tensor:
        """The losses [L] by a CUDA graph of the step and of writing its gradient."""
        lanes = self.lanes
        whole = lanes.gradient
        if in_parts:  # a part's gradient lies beside the sum of the parts before it
            whole = self._part_gradient = copied(whole) if self._part_gradient is None else self._part_gradient

        def write(given: Sequence[Tensor]) -> list[Tensor]:
            losses, *gradients = step(given)
            write_gradients(lanes.cut(whole), gradients, add=False)
            return [losses]

        losses = captures.of((key, given[0].data_ptr()), write, given, fixed, [whole])(given)[0].clone()
        if whole is not lanes.gradient:
            lanes.gradient.add_(whole) if add else lanes.gradient.copy_(whole)
        return losses

    def _key(self, what: str, arguments: Views, inputs: Sequence[Tensor], size: int) -> Key:
        """What a recording of a function depends on, the function by name."""
        stride = next(iter(arguments.values())).stride(0)  # all else of how they lie is as `self._layout` says
        return (what, *self._kind, size, self._layout, stride, replay.layout(inputs))

    def _recorded(self, key: Key, function: Function, given: list[Tensor], calls_left: int) -> tuple[Function, bool]:
        """The function's recording, or itself where there can't be one or it doesn't pay; and whether it does."""
        known = self._recordings
        if key not in known:
            self._calls[key] += 1  # those of the worker's packs before count too
            if not self.enabled or self._calls[key] + calls_left < RECORDING_PAYS:
                return function, False
            known[key] = replay.record(function, given)
        return known[key] or function, True

    @property
    def step_mode(self) -> StepMode:
        """How most steps of this run reached the device."""
        played = [self._recordings.get(key) for key in self._step_keys]
        compiled = self._compiled is not None and self._compiled.used
        if self.captures is not None and any(self.captures.known.values()):
            return "compiled cuda graph" if compiled else "cuda graph"
        return "compiled" if compiled else "recording" if any(played) else "operations"

    @property
    def reason(self) -> str | None:
        """Why steps were not compiled or captured, where that was asked for or tried."""
        reasons = [tried.reason for tried in (self._compiled, self.captures) if tried is not None]
        return "; ".join(filter(None, reasons)) or None


def write_gradients(views: Views, gradients: Sequence[Tensor], add: bool) -> None:
    """Put the gradients [L, *shape] into the views of their parameters, or add them to what is there."""
    for view, gradient in zip(views.values(), gradients, strict=True):
        view.add_(gradient) if add else view.copy_(gradient)
