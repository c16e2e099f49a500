"""A computation recorded once and played back: the same operations on the same layouts, so the same bits.

What vmap, autograd and the model's Python add to each operation is paid once, at the recording. On a CPU that is a
fifth of a small model's step alone and an eighth in packs of eight (`make bench`); on a GPU it is what keeps the host
from feeding it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

Function = Callable[[Sequence[Tensor]], list[Tensor]]
Layout = tuple[tuple[object, ...], ...]

_aten = torch.ops.aten
_VIEWS = (
    _aten.alias.default,
    _aten.as_strided.default,
    _aten.detach.default,
    _aten.expand.default,
    _aten.permute.default,
    _aten.select.int,
    _aten.slice.Tensor,
    _aten.squeeze.default,
    _aten.squeeze.dim,
    _aten.squeeze.dims,
    _aten.t.default,
    _aten.transpose.int,
    _aten._unsafe_view.default,
    _aten.unsqueeze.default,
    _aten.view.default,
)


def layout(arguments: Sequence[Tensor]) -> Layout:
    """What a recording depends on beside the function: shape, strides, offset, type and device of each argument."""
    return tuple((*_place(one), one.dtype, one.device) for one in arguments)


def record(function: Function, arguments: Sequence[Tensor]) -> Function | None:
    """The function for arguments of this `layout`, played back; None where that gives no bit-equal results.

    The function takes tensors and returns tensors, gradients by autograd included; whatever else it reads becomes a
    constant. What was taken for a constant and isn't is found out by checking with other arguments. It is run thrice.
    """
    try:
        # One argument and no default, which is what it takes.
        graph = make_fx(lambda given: function(given))(
            [one.detach().requires_grad_(one.requires_grad) for one in arguments]
        )
        with torch.no_grad():
            _Noting(graph).run([one.detach() for one in arguments])
            _simplify(graph.graph)
        graph.recompile()

        def play(given: Sequence[Tensor]) -> list[Tensor]:
            with torch.inference_mode():
                found: list[Tensor] = graph(list(given))
            return found

        others = [_other(one) for one in arguments]
        once, again = function(others), play(others)
        same = all(torch.allclose(a, b, rtol=0, atol=0, equal_nan=True) for a, b in zip(once, again, strict=True))
    except Exception:  # a model that can't be recorded is trained as it is
        return None
    return play if same else None


def _other(tensor: Tensor) -> Tensor:
    """Other values of the same layout and range; of weights, which would take much memory, the same."""
    if tensor.requires_grad or tensor.storage_offset() or not tensor.is_contiguous() or not tensor.dim():
        return tensor
    return torch.roll(tensor, 1, dims=-1)


class _Noting(fx.Interpreter):
    """Runs a graph once and notes where each tensor lies."""

    def run_node(self, node: fx.Node) -> Any:
        found = super().run_node(node)
        if isinstance(found, Tensor):
            node.meta["place"] = _place(found)
        return found


def _place(tensor: Tensor) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    return tuple(tensor.shape), tuple(tensor.stride()), int(tensor.storage_offset())


def _simplify(graph: fx.Graph) -> None:
    """One view for a chain of views, none where it changes nothing; no product with 1, which keeps every bit."""
    for node in graph.find_nodes(op="call_function", target=_aten.mul.Scalar):
        factor = node.args[0]
        if node.args[1] == 1 and isinstance(factor, fx.Node) and node.meta["place"] == factor.meta["place"]:
            node.replace_all_uses_with(factor)
    roots: dict[fx.Node, fx.Node] = {}
    views: dict[tuple[object, ...], fx.Node] = {}
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target not in _VIEWS or not isinstance(node.args[0], fx.Node):
            continue
        root, place = roots.get(node.args[0], node.args[0]), node.meta["place"]
        if place == root.meta["place"]:
            view = root
        elif (root, place) in views:
            view = views[root, place]
        else:
            with graph.inserting_before(node):
                view = graph.call_function(_aten.as_strided.default, (root, *place))
            view.meta["place"] = place
            views[root, place] = view
        node.replace_all_uses_with(view)
        roots[node] = roots[view] = root
    graph.eliminate_dead_code()
