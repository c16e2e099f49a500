"""The weights of a pack, one lane a trial, as one matrix [L, P] with a view for each parameter."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from harness.models import methods, normalisation
from harness.models.pretrained import Network
from harness.training.numerics import stream
from harness.training.pack import TrainingPack
from harness.training.parts import Parts, linear_columns, slots
from harness.training.transfer import lane_rows

Views = dict[str, Tensor]


class Lanes:
    """What differs from lane to lane: weights [L, P], their gradient [L, P], and what a method sets for each."""

    def __init__(self, pack: TrainingPack, network: Network) -> None:
        """Stack the pretrained weights, each lane with the head of its own seed."""
        self.pack, self.network = pack, network
        self.module: nn.Module = network.module.to(pack.device)
        self.weights = self._stack()  # [L, P]
        self.views = _trainable(self.cut(self.weights))  # [L, *shape] each
        self.settings = self._settings()  # [L] each
        self.gradient = lane_rows(self.weights.shape, self.weights)  # [L, P]
        self.gradient_views = self.cut(self.gradient)
        self.parts = self._parts()
        # By lane, the lowest slot that starts from pretrained values; the head below it is drawn afresh.
        self.first_pretrained = [1] * len(pack.trials)
        self._others: tuple[Tensor, Views] | None = None  # other weights that steps read, and their views

    def __len__(self) -> int:
        """The number of lanes, L."""
        return len(self.weights)

    @property
    def all(self) -> list[int]:
        """The numbers of all lanes."""
        return list(range(len(self)))

    def cut(self, flat: Tensor) -> Views:
        """Views [L, *shape] into flat [L, P], by the parameters' names in the module's order."""
        views, start = {}, 0
        for name, value in self.network.pretrained.items():
            views[name] = flat[:, start : start + value.numel()].view(len(flat), *value.shape).detach()
            start += value.numel()
        return views

    def arguments(self, weights: Tensor) -> Views:
        """What the module is given of each lane where it is evaluated with these weights [L, P]."""
        return self.views | self.settings if weights is self.weights else self.views | self.settings | self.cut(weights)

    def trained_arguments(self, weights: Tensor) -> Views:
        """As `arguments`, with views that a gradient can be taken by; the last other weights' views are kept."""
        if weights is self.weights:
            return self.views | self.settings
        if self._others is None or self._others[0] is not weights:
            self._others = weights, _trainable(self.cut(weights))
        return self.views | self.settings | self._others[1]

    def taken(self, arguments: Views, lanes: list[int]) -> Views:
        """Copies of some lanes' arguments, [l, *shape] each, that a gradient goes through.

        Their parameters lie to each other as in the pack, since a kernel's last bits may depend on where a matrix lies.
        """
        places = self.cut(lane_rows((len(lanes), self.weights.shape[1]), self.weights))
        chosen = torch.tensor(lanes, device=self.pack.device)
        apply: Any = _Taken.apply
        return {
            name: apply(view, chosen, places[name]) if name in places else view[chosen]
            for name, view in arguments.items()
        }

    def decayed(self) -> Tensor:
        """[P], 1 where weight decay applies: not on biases and not on the scales of normalisations."""
        scales = normalisation.scales(self.module)
        columns = []
        for name, value in self.network.pretrained.items():
            exempt = name.endswith("bias") or name in scales or methods.is_scale(name)
            columns.append(torch.full((value.numel(),), float(not exempt), device=self.pack.device))
        return torch.cat(columns)

    def _stack(self) -> Tensor:
        seeds = self.pack.seeds("init_seed")
        flat = lane_rows((len(seeds), self.network.parameters), torch.empty(0, device=self.pack.device))
        views = self.cut(flat)
        for lane, seed in enumerate(seeds):
            for name, value in self.network.initialised(stream("init", seed)).items():
                views[name][lane].copy_(value)
        return flat

    def _settings(self) -> Views:
        """What the module is given of each lane beside its parameters, [L]."""
        if self.pack.recipe.method != "lora":
            return {}
        return {methods.LORA_SCALE: self.pack.vector(lambda recipe: recipe.lora_alpha / recipe.lora_rank)}

    def _parts(self) -> Parts:
        columns = linear_columns(self.module)
        return Parts(
            slots=tuple(slots(list(self.views), self.network.head).values()),
            sizes=tuple(view[0].numel() for view in self.views.values()),
            columns=tuple(columns.get(name, 0) for name in self.views),
            values=tuple(self.network.pretrained[name] for name in self.views),
            device=self.pack.device,
        )


class _Taken(torch.autograd.Function):
    """Rows of a stack, copied to a place that is given."""

    @staticmethod
    def forward(ctx: Any, stack: Tensor, rows: Tensor, place: Tensor) -> Tensor:
        """The place [l, *shape], filled with the rows."""
        ctx.shape = stack.shape
        ctx.save_for_backward(rows)
        filled = place.data  # by itself: autograd forbids views of one base that are written one after the other
        return torch.index_select(stack, 0, rows, out=filled)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """The gradient of the stack [L, *shape], 0 where no row was taken."""
        (rows,) = ctx.saved_tensors
        (gradient,) = gradients
        return gradient.new_zeros(ctx.shape).index_copy_(0, rows, gradient), None, None


def _trainable(views: Views) -> Views:
    return {name: view.requires_grad_() for name, view in views.items()}
