"""What is recorded of each lane while it trains, beside its loss: by layer, by update and by evaluation.

Nothing here changes a weight, and what is recorded of a lane doesn't depend on its pack.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.models import masks
from harness.records.record import Recording
from harness.training.optimizers import LaneOptimizer
from harness.training.parts import slots as slots_of
from harness.training.transfer import to_device

# Of so many updates at most, evenly over a run; a run of a few hundred is recorded whole.
_MOST_UPDATES = 500
# The [CLS] vectors of so many dev examples are looked at; spread below what rounding makes is none.
MOST_VECTORS = 512
_NO_SPREAD = 1e-12
_LAYER = re.compile(r"\.(\d+)\.(.*)")
_ATTENTION = re.compile(r"attention\b|attn\b|\bsa_layer_norm|\binput_layernorm|\bln_1\b")


def groups(names: Sequence[str], head: Collection[str]) -> list[str]:
    """The part of the network that each parameter belongs to: `embeddings`, `1 attention`, `1 feed-forward`, `2
    attention`, …, `pooler`, `head`; the lowest layer is 1. `names` are in the module's order. What lies above the
    layers of a language model, which has no head, is its `output`.
    """
    slots = slots_of(names, head)
    parts = []
    for name, slot in slots.items():
        if name in head:
            parts.append("head")
        elif (match := _LAYER.search(name)) is None:
            above = "pooler" if head else "output"
            parts.append(above if slot == 1 else "embeddings")
        else:
            parts.append(f"{int(match[1]) + 1} {'attention' if _ATTENTION.search(match[2]) else 'feed-forward'}")
    return parts


class Telemetry:
    """The recordings of a pack, on its device until they are asked for; R updates, G groups, E evaluations."""

    def __init__(
        self,
        names: Sequence[str],
        head: Collection[str],
        sizes: Sequence[int],
        steps: int,
        *,
        has_classes: bool = True,
    ) -> None:
        """Record training over `steps` of weights [L, P] that are cut into parameters of these names and sizes.

        Without classes every example counts as predicted as the only one, as of a regression.
        """
        self._columns = None if has_classes else 1
        of = groups(names, head)
        self.layers = list(dict.fromkeys(of))
        self._every = -(-steps // _MOST_UPDATES)
        # Neighbours of one group are one stretch: (group, start, end).
        self._stretches: list[tuple[int, int, int]] = []
        start = 0
        for name, size in zip(of, sizes, strict=True):
            group = self.layers.index(name)
            if self._stretches and self._stretches[-1][0] == group:
                self._stretches[-1] = group, self._stretches[-1][1], start + size
            else:
                self._stretches.append((group, start, start + size))
            start += size
        self.updates: list[int] = []  # R, counted from 1
        self.layer_norms: list[Tensor] = []  # R × [L, G]
        self.update_norms: list[Tensor] = []  # R × [L]
        self.weight_norms: list[Tensor] = []  # R × [L]
        self.predicted: list[np.ndarray] = []  # E × [L, C]: dev examples by predicted class
        self.vectors: list[np.ndarray] = []  # E × [L, 2]: rank and mean cosine
        self._sliced: tuple[Tensor, list[list[Tensor]]] | None = None  # a gradient, and its lanes' stretches
        self._fetched: tuple[np.ndarray, ...] = ()  # the three norms, as last fetched from the device

    def due(self, update: int) -> bool:
        """Whether the update of this number (from 1) is recorded."""
        return (update - 1) % self._every == 0

    @contextmanager
    def update(
        self, number: int, weights: Tensor, gradient: Tensor, optimizer: LaneOptimizer | None = None
    ) -> Iterator[None]:
        """Record an update of `weights` [L, P] by `gradient` [L, P] that happens inside; the gradient may be spent.

        An optimizer that knows how far it moved saves a copy of the weights.
        """
        if not self.due(number):
            yield
            return
        self.updates.append(number)
        self.layer_norms.append(self._by_group(gradient))
        if optimizer is not None and optimizer.tells_moves:
            yield
            assert optimizer.moved is not None
            before_norms, update_norms = optimizer.moved
            self.weight_norms.append(before_norms)
            self.update_norms.append(update_norms)
            return
        before = weights.clone()
        self.weight_norms.append(_norms([lane[None] for lane in before])[:, 0])
        yield
        self.update_norms.append(_norms([lane[None] for lane in before.sub_(weights)])[:, 0])

    def _by_group(self, values: Tensor) -> Tensor:
        """The norm of each group in each lane, [L, G]."""
        if self._sliced is None or self._sliced[0] is not values:
            self._sliced = values, [[lane[start:end] for _, start, end in self._stretches] for lane in values]
        norms = _norms(self._sliced[1])  # [L, stretches]
        if len(self._stretches) == len(self.layers):
            return norms
        of_stretches = to_device(torch.tensor([group for group, _, _ in self._stretches]), values.device)
        squares = torch.zeros(len(values), len(self.layers), dtype=torch.float64, device=values.device)
        return squares.index_add_(1, of_stretches, norms.double().square()).sqrt().float()

    def evaluation(self, logits: np.ndarray, vectors: Tensor | None) -> None:
        """Record what logits [L, N, C] predict, and the spread of the vectors [L, n, H] that the head reads; None where
        they aren't known.
        """
        self.predicted.append(_histograms(logits[..., : self._columns]))
        lanes = [(np.nan, np.nan)] if vectors is None else [spread(lane) for lane in vectors]
        self.vectors.append(np.array(lanes, dtype=np.float32))

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of it; not a copy."""
        return {
            "recorded.updates": torch.tensor(self.updates, dtype=torch.int64),
            "recorded.layer_norms": torch.stack(self.layer_norms),
            "recorded.update_norms": torch.stack(self.update_norms),
            "recorded.weight_norms": torch.stack(self.weight_norms),
            "recorded.vectors": torch.from_numpy(np.array(self.vectors, dtype=np.float32)),
        }

    def restore(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """Resume from a `state`, beside which the run's has the `logits` of its evaluations [E, L, N, C]."""
        self.predicted = [_histograms(logits[..., : self._columns]) for logits in state["logits"].numpy()]
        self.updates = state["recorded.updates"].tolist()
        self.layer_norms = list(state["recorded.layer_norms"].to(device, copy=True))
        self.update_norms = list(state["recorded.update_norms"].to(device, copy=True))
        self.weight_norms = list(state["recorded.weight_norms"].to(device, copy=True))
        self.vectors = list(state["recorded.vectors"].clone().numpy())

    def of(self, lane: int, steps: int, evaluations: int) -> Recording:
        """What was recorded of a lane in its first `steps` updates and `evaluations`."""
        count = sum(update <= steps for update in self.updates)
        vectors = np.array([of_lanes[min(lane, len(of_lanes) - 1)] for of_lanes in self.vectors[:evaluations]])
        vectors = vectors.reshape(-1, 2)  # [E, 2], also where there is none
        if not self._fetched or len(self._fetched[0]) != len(self.updates):
            norms = (self.layer_norms, self.update_norms, self.weight_norms)
            self._fetched = tuple(torch.stack(values).cpu().numpy() for values in norms)
        layer_norm, update_norm, weight_norm = (values[:count, lane] for values in self._fetched)
        return Recording(
            layers=np.array(self.layers),
            update=np.array(self.updates[:count]),
            layer_norm=layer_norm,
            update_norm=update_norm,
            weight_norm=weight_norm,
            predicted=np.array([of_lanes[lane] for of_lanes in self.predicted[:evaluations]], dtype=np.int32),
            cls_rank=vectors[:, 0],
            cls_cosine=vectors[:, 1],
        )


def _norms(values: Sequence[Sequence[Tensor]]) -> Tensor:
    """The Euclidean norm of each of L × K vectors, [L, K]; each by itself, so that the others change no bit of it."""
    return torch.stack(torch._foreach_norm([vector for row in values for vector in row])).view(len(values), -1)


def _histograms(logits: np.ndarray) -> np.ndarray:
    """As `_histogram`, of each lane of logits [L, N, C], [L, C]."""
    return np.array([_histogram(lane) for lane in logits])


def _histogram(logits: np.ndarray) -> np.ndarray:
    """How many examples of logits [N, C] are predicted as each class, [C]; none where they are not finite."""
    classes = logits.shape[-1]
    if not np.isfinite(logits).all():
        return np.zeros(classes, dtype=np.int32)
    return np.bincount(logits.argmax(axis=-1).ravel(), minlength=classes).astype(np.int32)


def spread(vectors: Tensor) -> tuple[float, float]:
    """The effective rank and the mean cosine of vectors [n, H]; NaN where they are not finite.

    The rank is the participation ratio of the spectrum of their covariance C, tr(C)² / ‖C‖²: from 0, all the same, to
    at most H. The mean is over all pairs: 1 where all point the same way, which is collapse.
    """
    x = vectors.to("cpu", torch.float64)
    n = len(x)
    if n < 2 or not bool(torch.isfinite(x).all()):
        return float("nan"), float("nan")
    lengths = x.norm(dim=1, keepdim=True)
    unit = x / lengths.clamp(min=torch.finfo(torch.float64).tiny)
    cosine = (float(unit.sum(dim=0).square().sum()) - n) / (n * (n - 1))
    centred = x - x.mean(dim=0)
    gram = centred @ centred.T if n < x.shape[1] else centred.T @ centred  # of the same spectrum; the smaller
    trace = float(gram.trace())
    if trace <= _NO_SPREAD * float(lengths.square().sum()):
        return 0.0, cosine
    return trace**2 / float(gram.square().sum()), cosine


@contextmanager
def vectors(module: nn.Module, causal: bool) -> Iterator[list[Tensor]]:
    """Put into the list what the head reads of each text, [B, H], at every call of the classifier `module` inside.

    That is the last layer's vector of the first position, or of the last real one in a decoder.
    """
    read: list[Tensor] = []

    def keep(encoder: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        hidden: Tensor = output[0]  # [B, T, H]
        if not causal:
            read.append(hidden[:, 0])
            return
        real = masks.lengths_of(kwargs["attention_mask"])
        read.append(hidden.gather(1, (real - 1)[:, None, None].expand(-1, 1, hidden.shape[-1]))[:, 0])

    encoder: Any = module
    handle = encoder.base_model.register_forward_hook(keep, with_kwargs=True)
    try:
        yield read
    finally:
        handle.remove()
