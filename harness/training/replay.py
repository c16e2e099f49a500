"""A computation recorded once and played back: the same operations on the same layouts, so the same bits.

What vmap, autograd and the model's Python add to each operation is paid once, at the recording. On a CPU that is a
quarter of a small model's step alone and a twelfth in packs of eight; on a GPU it is what keeps the host from feeding
it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from torch.utils.weak import WeakTensorKeyDictionary

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
    return tuple((*_place(argument), argument.dtype, argument.device) for argument in arguments)


def record(function: Function, arguments: Sequence[Tensor]) -> Function | None:
    """The function for arguments of this `layout`, played back; None where that gives no bit-equal results.

    The function takes tensors and returns tensors, gradients by autograd included; whatever else it reads becomes a
    constant. What was taken for a constant and isn't is found out by checking with other arguments. It is run thrice.
    """
    try:
        tape = Tape(arguments)
        with tape:
            results = function(arguments)
        graph = tape.of(results)

        def play(given: Sequence[Tensor]) -> list[Tensor]:
            with torch.inference_mode():
                results: list[Tensor] = graph(*given)
            return results

        others = with_other_values(arguments)
        once, again = function(others), play(others)
        same = all(torch.allclose(a, b, rtol=0, atol=0, equal_nan=True) for a, b in zip(once, again, strict=True))
    except Exception:  # a model that can't be recorded is trained as it is
        return None
    return play if same else None


def with_other_values(arguments: Sequence[Tensor]) -> list[Tensor]:
    """Arguments of the same layout with other values, to check a recording with."""
    return [_other(argument) for argument in arguments]


def _other(tensor: Tensor) -> Tensor:
    """Other values of the same layout and range; of weights, which would take much memory, the same."""
    if tensor.requires_grad or tensor.storage_offset() or not tensor.is_contiguous() or not tensor.dim():
        return tensor
    return torch.roll(tensor, 1, dims=-1)


class Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down what is computed from some arguments: each operation below autograd and vmap, and where results lie.

    torch's own `make_fx` does so too, in four times the time, most of which goes into what a compiler wants to know.
    """

    def __init__(self, arguments: Sequence[Tensor]) -> None:
        """Begin with what the computation is given."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph = fx.Graph()
        self.nodes = WeakTensorKeyDictionary()  # what is freed while it is recorded must not be kept
        self.constants: dict[str, Tensor] = {}
        self.copies = WeakTensorKeyDictionary()  # of what doesn't follow from the arguments
        self.filled: set[int] = set()  # memory that what follows from the arguments was written to
        for number, argument in enumerate(arguments):
            self._know(argument, self.graph.placeholder(f"given_{number}"))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute an operation and write it down."""
        if func is _aten._local_scalar_dense.default:
            raise ValueError("what follows a number that the host reads depends on it")
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is _aten._to_copy.default and not self._given(args[0]):
            # The same at every call, and a graph of a GPU can't wait for the host's memory: a constant from here on.
            self.copies[result] = True
            return result
        if func._schema.is_mutable:
            self._written([tensor for tensor in args if isinstance(tensor, Tensor)])
        node = self.graph.call_function(func, tree_map(self._named, tuple(args)), tree_map(self._named, kwargs))
        if isinstance(result, Tensor):
            self._know(result, node)
        else:
            for number, tensor in enumerate(result or ()):
                if isinstance(tensor, Tensor):
                    self._know(tensor, self.graph.call_function(operator.getitem, (node, number)))
        return result

    def of(self, results: Sequence[Tensor], *, simplified: bool = True) -> fx.GraphModule:
        """What gives such results from other arguments.

        Simplified, its views say where in an argument's memory they lie; a compiler that moves arguments needs them as
        they were.
        """
        self.graph.output([self._named(tensor) for tensor in results])
        if simplified:
            _simplify(self.graph)
        return fx.GraphModule(self.constants, self.graph)

    def _given(self, tensor: Tensor) -> bool:
        """Whether a tensor follows from the arguments."""
        known = tensor in self.nodes and bool(self.nodes[tensor].meta["given"])
        return known or _memory(tensor) in self.filled

    def _written(self, tensors: Sequence[Tensor]) -> None:
        """Take note of an operation that writes to one of these what follows from the others."""
        if any(tensor in self.copies for tensor in tensors):
            raise ValueError("what was taken for a constant is written to")
        if any(self._given(tensor) for tensor in tensors):
            self.filled.update(_memory(tensor) for tensor in tensors)

    def _know(self, tensor: Tensor, node: fx.Node) -> None:
        node.meta["place"] = _place(tensor)
        node.meta["given"] = node.op == "placeholder" or any(map(_follows, node.all_input_nodes))
        self.nodes[tensor] = node

    def _named(self, tensor: Any) -> Any:
        if not isinstance(tensor, Tensor):
            return tensor
        if tensor not in self.nodes:
            name = f"constant_{len(self.constants)}"
            self.constants[name] = tensor
            with self.graph.inserting_before(next(iter(self.graph.nodes))):
                self._know(tensor, self.graph.get_attr(name))
        return self.nodes[tensor]


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _follows(node: fx.Node) -> bool:
    """Whether a node follows from the arguments; one that gives several results is known by what it takes."""
    return bool(node.meta["given"]) if "given" in node.meta else any(map(_follows, node.all_input_nodes))


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
        root, lies = roots.get(node.args[0], node.args[0]), node.meta["place"]
        if lies == root.meta["place"]:
            view = root
        elif (root, lies) in views:
            view = views[root, lies]
        else:
            with graph.inserting_before(node):
                view = graph.call_function(_aten.as_strided.default, (root, *lies))
            view.meta["place"] = lies
            views[root, lies] = view
        node.replace_all_uses_with(view)
        roots[node] = roots[view] = root
    graph.eliminate_dead_code()
