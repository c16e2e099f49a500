"""What is done against instability beside the optimizer, each lane by its own recipe; nothing here mixes lanes."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.config.recipe import Recipe
from harness.config.recipe_rules import check_reinit
from harness.models import normalisation
from harness.training.transfer import copied

_LAYER = re.compile(r"\.(\d+)\.")


def slots(names: Sequence[str], head: Collection[str]) -> dict[str, int]:
    """Where each parameter of a network stands, counted downwards: 0 the head, 1 what else lies above the layers
    (a pooler), 2 the top layer, 3 the one below, …, and the embeddings last.

    `names` are in the module's order; a layer is known by its number in the name. Layers that share weights (ALBERT)
    are one.
    """
    numbers = {name: int(match[1]) for name in names if name not in head and (match := _LAYER.search(name))}
    layers = max(numbers.values(), default=-1) + 1
    found: dict[str, int] = {}
    above = False
    for name in names:
        above = above or name in numbers
        if name in head:
            found[name] = 0
        elif name in numbers:
            found[name] = 1 + layers - numbers[name]
        else:
            found[name] = 1 if above and "embed" not in name else layers + 2
    return found


def depth(slot: int) -> int:
    """Layers below the head, the pooler counting as head: 0, 0, 1, 2, …"""
    return max(0, slot - 1)


@dataclass(frozen=True, eq=False)
class Parts:
    """What the flat weights [P] of a lane are made of, parameter by parameter in the module's order."""

    slots: tuple[int, ...]
    sizes: tuple[int, ...]
    columns: tuple[int, ...]  # inputs of a linear layer, whose weight is [outputs, inputs]; 0 for all else
    values: tuple[Tensor, ...]  # pretrained
    device: torch.device

    @cached_property
    def count(self) -> int:
        """One more than the highest slot."""
        return max(self.slots) + 1

    @cached_property
    def slot(self) -> Tensor:
        """The slot of each number, [P]."""
        return torch.repeat_interleave(torch.tensor(self.slots, dtype=torch.int32), torch.tensor(self.sizes)).to(
            self.device
        )

    @cached_property
    def pretrained(self) -> Tensor:
        """The pretrained values, [P]; the head's mean nothing."""
        return torch.cat([value.reshape(-1) for value in self.values]).to(self.device)

    def first_pretrained(self, recipe: Recipe) -> int:
        """The lowest slot whose start is pretrained: what lies before it was drawn afresh for this trial."""
        return 2 + recipe.reinit_layers if recipe.reinit_layers else 1

    def over(self, table: Sequence[Sequence[float]], here: slice, dtype: torch.dtype) -> Tensor:
        """A table [L, slots] over the numbers, [L, here]."""
        return torch.tensor(table, dtype=dtype, device=self.device).index_select(1, self.slot[here])


def reinitialise(
    recipe: Recipe,
    parts: Parts,
    views: Mapping[str, Tensor],
    lane: int,
    module: nn.Module,
    std: float,
    generator: torch.Generator,
) -> None:
    """Draw the top `reinit_layers` layers and the pooler of a lane afresh, as the model's own initialisation does.

    Weights N(0, std), biases 0, normalisations' scales 1 (0 where the model adds 1 to them), in the module's order
    (Zhang et al. 2021, arXiv:2006.05987).
    Raises HarnessError beyond the model's depth.
    """
    if not recipe.reinit_layers:
        return
    check_reinit(recipe, parts.count - 3)
    scales = normalisation.scales(module)
    for (name, view), slot in zip(views.items(), parts.slots, strict=True):
        if 1 <= slot < parts.first_pretrained(recipe):
            if view[lane].dim() > 1 and name not in scales:
                view[lane].copy_(torch.empty(view[lane].shape).normal_(0.0, std, generator=generator))
            else:
                view[lane].fill_(scales.get(name, 0.0))


def linear_columns(module: nn.Module) -> dict[str, int]:
    """The number of inputs of each linear layer, by the name of its weight [outputs, inputs]."""
    return {f"{name}.weight": part.in_features for name, part in module.named_modules() if isinstance(part, nn.Linear)}


class Mixout:
    """Weights mixed with their pretrained values anew in every update (Lee et al. 2020, arXiv:1909.11299).

    All outgoing weights of an input neuron of a linear layer are replaced together with probability p, as in the
    paper and its code, and rescaled: (x̂ − p·w0) / (1 − p). The head and what was re-initialised have no pretrained
    values and are left as they are. A decision takes 16 random bits, so p is rounded to 1/65536.
    """

    def __init__(self, parts: Parts, recipes: Sequence[Recipe], streams: Sequence[torch.Generator]) -> None:
        """One stream a lane; lanes whose rate is 0 draw nothing."""
        self.parts, self.recipes, self.streams = parts, recipes, streams
        self.lanes = [lane for lane, recipe in enumerate(recipes) if recipe.mixout > 0]
        self.drawn = sum(parts.columns)  # decisions of an update
        self.factors: dict[int, Tensor] = {}  # lane -> d mixed / d weights of this update, [P]

    @cached_property
    def index(self) -> Tensor:
        """Which decision each number follows, [P]; -1 for what is no weight of a linear layer."""
        found, drawn = [], 0
        for size, columns in zip(self.parts.sizes, self.parts.columns, strict=True):
            row = torch.arange(drawn, drawn + columns, dtype=torch.int32) if columns else torch.tensor([-1])
            found.append(row.to(torch.int32).repeat(size // len(row)))
            drawn += columns
        return torch.cat(found).to(self.parts.device)

    def mix(self, weights: Tensor, mixed: Tensor) -> None:
        """Write the weights [L, P] that this update computes with."""
        mixed.copy_(weights)
        start = self.parts.pretrained
        for lane in self.lanes:
            cut = round(self.recipes[lane].mixout * 65536)
            bits = torch.empty((self.drawn + 3) // 4, dtype=torch.int64, device=weights.device)
            bits.random_(-(2**63), None, generator=self.streams[lane])
            kept = torch.ge(bits.view(torch.int16)[: self.drawn], cut - 32768).float().mul_(65536 / (65536 - cut))
            left = (self.index < 0) | (self.parts.slot < self.parts.first_pretrained(self.recipes[lane]))
            factor = kept[self.index.clamp(min=0)].masked_fill_(left, 1.0)
            # Kept: w0 + (w − w0)/(1−p) = (w − p·w0)/(1−p). Replaced: w0.
            mixed[lane].copy_(torch.where(left, weights[lane], start + factor * (weights[lane] - start)))
            self.factors[lane] = factor

    def back(self, gradient: Tensor) -> None:
        """Turn the gradient by the mixed weights [L, P] into that by the weights themselves."""
        for lane in self.lanes:
            gradient[lane].mul_(self.factors.pop(lane))


@dataclass(frozen=True, eq=False)
class Mixture:
    """What each example of a batch is mixed with: the rows of the `others` [L, B], and the first's `shares` λ [L]."""

    others: Tensor
    shares: Tensor

    def split(self, size: int) -> list[Mixture | None]:
        """That of each part of so many examples."""
        return [Mixture(others, self.shares) for others in torch.split(self.others, size, dim=1)]


class Mixup:
    """Each batch mixed with a permutation of itself (Zhang et al. 2018, arXiv:1710.09412): λ ~ Beta(α, α) a batch.

    Of texts the embeddings of words are mixed (Guo et al. 2019, arXiv:1905.08941), place by place, as far as the longer
    of the two goes; positions and segments are the first's. The loss is λ times that against the first's label and
    1 − λ times that against the other's.
    """

    def __init__(self, recipes: Sequence[Recipe], streams: Sequence[torch.Generator]) -> None:
        """One stream a lane, on the CPU."""
        self.recipes, self.streams = recipes, streams

    def draw(self, rows: Tensor) -> Mixture:
        """Whom the rows [L, B] of a batch are mixed with."""
        others, shares = torch.empty_like(rows), torch.empty(len(rows))
        for lane, (recipe, generator) in enumerate(zip(self.recipes, self.streams, strict=True)):
            others[lane] = rows[lane, torch.randperm(rows.shape[1], generator=generator)]
            # torch.distributions.Beta draws so too, but from the global generator.
            both = torch.full((2,), recipe.mixup, dtype=torch.float64)
            shares[lane] = torch._sample_dirichlet(both, generator=generator)[0]
        return Mixture(others, shares)


def embedding(module: nn.Module) -> nn.Embedding:
    """The embeddings of the words that a network reads."""
    model: Any = module
    return next(part for part in model.get_input_embeddings().modules() if isinstance(part, nn.Embedding))


@contextmanager
def mixed_words(module: nn.Module, others: Tensor, share: Tensor) -> Iterator[None]:
    """Mix the embeddings of the words that a network reads with those of other words [B, T]."""
    words = embedding(module)

    def mix(_: nn.Module, __: object, embedded: Tensor) -> Tensor:
        own, other = embedded.chunk(2)  # [B, T, D]
        return share * own + (1 - share) * other

    # Looked up together: two look-ups' gradients would be added up in an order that depends on the pack.
    hooks = (
        words.register_forward_pre_hook(lambda _, given: (torch.cat([given[0], others]),)),
        words.register_forward_hook(mix),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class Noise:
    """Uniform noise on the embeddings of words in training: NEFTune (Jain et al. 2023, arXiv:2310.05914).

    Each number of an example is moved by up to α / √(l·D), with l its own tokens and D the embeddings' size, and its
    padding by nothing: so in the code of the paper's experiments. transformers and trl take the padded batch's width
    for l, which would make the noise depend on an example's neighbours.
    """

    def __init__(self, recipes: Sequence[Recipe], streams: Sequence[torch.Generator], size: int) -> None:
        """One stream a lane, on the device that trains; `size` is D."""
        self.streams, self.size = streams, size
        self.alphas = torch.tensor([recipe.neftune_alpha for recipe in recipes])  # [L]

    def draw(self, lanes: Sequence[int], lengths: Tensor, width: int) -> Tensor:
        """The noise of some lanes' examples of these lengths [lanes, B], [lanes, B, width, D]."""
        noise = torch.empty(*lengths.shape, width, self.size, device=lengths.device)
        for row, lane in enumerate(lanes):
            noise[row].uniform_(-1, 1, generator=self.streams[lane])
        most = self.alphas[lanes, None].to(lengths.device) / (lengths * self.size).sqrt()  # [lanes, B]
        real = torch.arange(width, device=lengths.device) < lengths[..., None]  # [lanes, B, width]
        return noise.mul_((most[..., None] * real)[..., None])


@contextmanager
def noisy_words(module: nn.Module, noise: Tensor) -> Iterator[None]:
    """Add noise [B, T, D] to the embeddings of the words that a network reads."""
    hook = embedding(module).register_forward_hook(lambda _, __, embedded: embedded + noise)
    try:
        yield
    finally:
        hook.remove()


def divergence(first: Tensor, second: Tensor) -> Tensor:
    """KL(p‖q) + KL(q‖p) of the distributions that logits [..., C] stand for, [...], nats."""
    p, q = F.log_softmax(first, dim=-1), F.log_softmax(second, dim=-1)
    return ((p.exp() - q.exp()) * (p - q)).sum(dim=-1)


class Targets:
    """Targets [L, B, C] instead of labels [L, B]: smoothed, and weighted by class.

    Summed and divided by what `begin` says, `balanced` weights give F.cross_entropy with `weight` and
    `label_smoothing`; the older `on` divides by the batch's size instead, so that its loss is larger or smaller with
    the classes that a batch happens to have.
    """

    def __init__(self, recipes: Sequence[Recipe], labels: np.ndarray, classes: int, device: torch.device) -> None:
        """`labels` [N] of the training set give the weights n / (C · n_c), inverse to a class's frequency."""
        counts = np.bincount(labels, minlength=classes)
        inverse = [len(labels) / (classes * count) if count else 1.0 for count in counts.tolist()]
        weights = [inverse if recipe.class_weights else [1.0] * classes for recipe in recipes]
        self.weights = torch.tensor(weights, device=device)[:, None]  # [L, 1, C]
        balanced = [recipe.class_weights == "balanced" for recipe in recipes]
        self.balanced = torch.tensor(balanced, device=device) if any(balanced) else None  # [L]
        self.shares = torch.ones(len(recipes), 1, 1, device=device)  # [L, 1, 1]
        self.smoothing = torch.tensor([r.label_smoothing for r in recipes], device=device)[:, None, None]  # [L, 1, 1]
        self.classes = classes

    def begin(self, labels: Tensor) -> None:
        """Take in the labels [L, B] of a whole batch, whose weights `balanced` divides by: a part of it doesn't know.

        The sum over the batch is divided by B elsewhere, so targets are multiplied by B over the sum of the weights;
        by exactly 1 in lanes without.
        """
        if self.balanced is not None:
            total = self.weights[:, 0].gather(1, labels).sum(dim=1)  # [L]
            shares = torch.where(self.balanced, labels.shape[1] / total, torch.ones_like(total))
            self.shares = shares[:, None, None]

    def of(self, labels: Tensor, lanes: Sequence[int]) -> Tensor:
        """The targets of some lanes' labels [lanes, B], a part of the batch."""
        smoothing, hard = self.smoothing[lanes], F.one_hot(labels, self.classes).float()
        return (hard * (1 - smoothing) + smoothing / self.classes) * self.weights[lanes] * self.shares[lanes]


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """The cross-entropy of logits [B, C] against targets [B, C], summed."""
    return -(targets * F.log_softmax(logits, dim=-1)).sum()


class Averages:
    """The mean of a lane's weights over its way: what is evaluated and kept instead of the last ones.

    `ema`: a ← d·a + (1−d)·w after every update, beginning with the weights after the first. `last`: the mean over the
    last `average_last` of `ends`. Both as torch.optim.swa_utils.AveragedModel.
    """

    def __init__(self, recipes: Sequence[Recipe], weights: Tensor, ends: Sequence[int]) -> None:
        """`ends` are the updates after which an epoch or the training ends."""
        self.recipes = recipes
        self.lanes = [lane for lane, recipe in enumerate(recipes) if recipe.averaging != "none"]
        self.rows = weights.new_zeros(len(self.lanes), weights.shape[1])  # [A, P]
        self.ends = ends

    def update(self, weights: Tensor, done: int) -> None:
        """Take in the weights [L, P] after an update."""
        for row, lane in zip(self.rows, self.lanes, strict=True):
            recipe = self.recipes[lane]
            last = self.ends[-recipe.average_last :]
            if recipe.averaging == "ema":
                row.lerp_(weights[lane], 1.0 if done == 1 else 1 - recipe.ema_decay)
            elif done in last:
                row.add_((weights[lane] - row) / (last.index(done) + 1))

    def evaluated(self, weights: Tensor, done: int) -> Tensor:
        """The weights [L, P] with the averages there are in their lanes' places."""
        found = copied(weights)
        for row, lane in zip(self.rows, self.lanes, strict=True):
            recipe = self.recipes[lane]
            if recipe.averaging == "ema" or done >= self.ends[-recipe.average_last :][0]:
                found[lane].copy_(row)
        return found


class Choice:
    """Which evaluation of a lane is the best so far, and whether training ends by it."""

    def __init__(self, recipe: Recipe) -> None:
        """Begin without an evaluation."""
        self.recipe = recipe
        self.best: float | None = None
        self.since, self.stopped = 0, False

    def see(self, value: float | None) -> bool:
        """Take in an evaluation's loss or score; whether it is the best so far, which no NaN is."""
        patience = self.recipe.early_stopping_patience
        if value is not None and math.isfinite(value):
            worth = -value if self.recipe.early_stopping_on == "loss" else value
            if self.best is None or worth > self.best:
                self.best, self.since = worth, 0
                return True
        self.since += 1
        self.stopped = patience is not None and self.since >= patience
        return False
