"""AdamW with its bias-correction switch, SGD, LAMB and Adafactor, with clipping; each with one value a lane."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.config.recipe import Recipe
from harness.config.schedules import correction, factor
from harness.training import fused
from harness.training.lanes import Lanes
from harness.training.parts import Parts, depth
from harness.training.remedies.remedy import Remedy
from harness.training.transfer import ALIGNED, lane_rows, to_device

# Of each lane, by slot: the factor on the rate, 0 where it is frozen, and how many updates it had with this one.
Layers = Sequence[tuple[list[float], list[int]]]

# A norm is taken over blocks, then over the blocks' norms, so that float32 keeps its digits over millions of values.
_NORM_BLOCK = 512
# Values (over all lanes) that a processor's cache holds beside their gradient and moments.
_CACHED = 2**15


class LaneOptimizer(ABC):
    """What the optimizers over flat weights [L, P] share: rates, clipping, frozen layers, pretrained decay.

    Every hyperparameter is a vector [L], and nothing here mixes lanes. What no lane uses costs nothing.
    """

    def __init__(
        self,
        weights: Tensor,
        decayed: Tensor,
        recipes: Sequence[Recipe],
        total_steps: int,
        parts: Parts | None = None,
        remedies: Sequence[Remedy] = (),
    ) -> None:
        """Take `weights` [L, P], changed in place, and `decayed` [P], 1 where weight decay applies and 0 elsewhere.

        `parts` are needed where layers or parameters are told apart: by the recipe, or by one of the `remedies`.
        """
        self.weights, self.decayed, self.recipes, self.total_steps = weights, decayed, recipes, total_steps
        self.done = 0
        self.range_test: Callable[[int], float] | None = None  # the rate of every lane, instead of recipe and schedule
        # Of the last update, [L] each, the norms of the weights before it and of what it changed; None where they must
        # be taken from the weights.
        self.moved: tuple[Tensor, Tensor] | None = None
        self._parts = parts
        self._decays = any(recipe.weight_decay > 0 for recipe in recipes)
        self._layered = any(remedy.overrides("scale_rate") or remedy.overrides("first_update") for remedy in remedies)
        if self._layered:  # by lane and slot
            depths = [depth(slot) for slot in range(self._known.count)]
            lanes = range(len(recipes))
            self._scales = [[math.prod(r.scale_rate(lane, d) for r in remedies) for d in depths] for lane in lanes]
            self._begins = [[max(r.first_update(lane, d) for r in remedies) for d in depths] for lane in lanes]
        self._pulling = [remedy for remedy in remedies if remedy.overrides("pull")]
        # On a CPU the dozen operations of an update run over one stretch of the weights after the other, which stays
        # in the cache; stretches end at a vector's end, so that they change no bit.
        on_cpu = weights.device.type == "cpu"
        self._chunk = max(1024, _CACHED // len(weights) // 1024 * 1024) if on_cpu else weights.shape[1]
        self._prepare()

    @abstractmethod
    def _prepare(self) -> None:
        """Make the state and the vectors of hyperparameters."""

    @property
    def tells_moves(self) -> bool:
        """Whether `moved` is known after an update."""
        return False

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """What the updates to come depend on beside the weights and `done`; not a copy."""

    def _lanes(self, values: Sequence[float]) -> Tensor:
        return to_device(torch.tensor(values, dtype=self.weights.dtype), self.weights.device)[:, None]  # [L, 1]

    def _stretches(self) -> Iterator[slice]:
        for start in range(0, self.weights.shape[1], self._chunk):
            yield slice(start, start + self._chunk)

    def rates(self) -> list[float]:
        """The learning rate of the coming update, per lane."""
        if self.range_test is not None:
            return [self.range_test(self.done)] * len(self.recipes)
        return [r.lr * factor(self.done, self.total_steps, r) for r in self.recipes]

    def step(self, gradient: Tensor) -> Tensor:
        """One update by `gradient` [L, P] (spent in it); returns its global norm before clipping, [L]."""
        layers = [self._layers(lane) for lane in range(len(self.recipes))] if self._layered else None
        if layers and any(0.0 in factors for factors, _ in layers):
            # As if they had no gradient: no part in the norm, and moments that stay 0.
            gradient.mul_(self._over([[float(factor > 0) for factor in factors] for factors, _ in layers]))
        norms = _norms(gradient)
        limits, seen = [recipe.max_grad_norm or math.inf for recipe in self.recipes], norms
        for lane, recipe in enumerate(self.recipes):
            if recipe.max_grad_value is not None:
                gradient[lane].clamp_(-recipe.max_grad_value, recipe.max_grad_value)
                seen = seen.clone()
                seen[lane] = _norm(gradient[lane])
            if recipe.clip_per_tensor:
                self._clip_tensors(gradient[lane], limits[lane])
                limits[lane] = math.inf
        # As clip_grad_norm_: min(1, limit / (norm + 1e-6)); a NaN norm stays NaN and spoils this lane alone.
        clip = (self._lanes(limits) / (seen[:, None] + 1e-6)).clamp(max=1.0)
        rates = self.rates()
        self._update(gradient, clip, rates, layers)
        scales = None if layers is None else [by_slot for by_slot, _ in layers]
        for remedy in self._pulling:
            remedy.pull(self.weights, rates, scales, self._stretches())
        self.done += 1
        return norms

    @abstractmethod
    def _update(self, gradient: Tensor, clip: Tensor, rates: list[float], layers: Layers | None) -> None:
        """Change the weights by a gradient that is to be multiplied by `clip` [L, 1]."""

    def _layers(self, lane: int) -> tuple[list[float], list[int]]:
        """By slot: the factor on this update's rate, 0 where it is frozen, and its updates with this one."""
        scales, counts = [], []
        for scale, begin in zip(self._scales[lane], self._begins[lane], strict=True):
            scales.append(scale if self.done >= begin else 0.0)
            counts.append(max(1, self.done + 1 - begin))
        return scales, counts

    @property
    def _known(self) -> Parts:
        assert self._parts is not None, "a recipe that tells layers apart needs parts"
        return self._parts

    def _over(self, table: Sequence[Sequence[float]], columns: slice = slice(None)) -> Tensor:
        return self._known.spread(table, columns, self.weights.dtype)

    def _clip_tensors(self, gradient: Tensor, limit: float) -> None:
        norms = self._tensor_norms(gradient)
        gradient.mul_(self._by_tensor((limit / (norms + 1e-6)).clamp(max=1.0)))

    def _tensor_norms(self, values: Tensor) -> Tensor:
        """The norm of each parameter in [P]."""
        return torch.stack([torch.linalg.vector_norm(part) for part in torch.split(values, list(self._known.sizes))])

    def _by_tensor(self, values: Tensor) -> Tensor:
        """One value a parameter, over its numbers [P]."""
        sizes = torch.tensor(self._known.sizes, device=values.device)
        return torch.repeat_interleave(values, sizes, output_size=self.weights.shape[1])


class LaneAdamW(LaneOptimizer):
    """The AdamW of the paper's code over flat weights [L, P].

    `transformers.AdamW` (until 4.x; Mosbach et al. 2021 used it): ε is added to the uncorrected √v, the decay comes
    after the update and is multiplied by the uncorrected rate, and bias correction multiplies the step size by
    √(1−β2^t)/(1−β1^t), where t counts from a layer's unfreezing.
    """

    def _prepare(self) -> None:
        recipes = self.recipes
        self.first = lane_rows(self.weights.shape, self.weights)  # m
        self.second = lane_rows(self.weights.shape, self.weights)  # v
        self._beta1, self._beta2 = self._lanes([r.beta1 for r in recipes]), self._lanes([r.beta2 for r in recipes])
        self._rest1 = self._lanes([1 - r.beta1 for r in recipes])
        self._rest2 = self._lanes([1 - r.beta2 for r in recipes])
        self._eps = self._lanes([r.eps for r in recipes])
        device = self.weights.device
        self._fused = (
            type(self) is LaneAdamW
            and device.type == "cuda"
            and not self._layered
            and not self._pulling
            and fused.works(device.index or 0)
        )

    @property
    def tells_moves(self) -> bool:
        """Whether `moved` is known after an update."""
        return self._fused

    def state(self) -> dict[str, Tensor]:
        """The moments."""
        return {"first": self.first, "second": self.second}

    def _update(self, gradient: Tensor, clip: Tensor, rates: list[float], layers: Layers | None) -> None:
        count = self.done + 1
        sizes = [
            rate * math.sqrt(1 - r.beta2**count) / (1 - r.beta1**count) if r.bias_correction else rate
            for rate, r in zip(rates, self.recipes, strict=True)
        ]
        step = self._lanes(sizes)
        decay = self._lanes([rate * r.weight_decay for rate, r in zip(rates, self.recipes, strict=True)])
        if self._fused:
            by_lane = (clip, self._beta1, self._rest1, self._beta2, self._rest2, self._eps, step, decay)
            settings = torch.cat(by_lane, dim=1).T.contiguous()  # [8, L]
            self.moved = fused.adamw(self.weights, gradient, self.first, self.second, self.decayed, settings)
            return
        factors, ratios = [], []
        for (by_slot, counts), r in zip(layers or (), self.recipes, strict=False):
            factors.append(by_slot)
            # The first update of a layer has the correction of a first update.
            whole = correction(count, r)
            ratios.append([f * (correction(t, r) / whole) for f, t in zip(by_slot, counts, strict=True)])
        for columns in self._stretches():
            w, g, m, v = (x[:, columns] for x in (self.weights, gradient, self.first, self.second))  # [L, width]
            g.mul_(clip)
            m.mul_(self._beta1).addcmul_(g, self._rest1)
            v.mul_(self._beta2).addcmul_(g.mul_(g), self._rest2)  # the gradient is spent
            denominator = torch.sqrt(v, out=g).add_(self._eps)
            update = torch.div(m, denominator, out=denominator)
            if layers:
                update.mul_(self._over(ratios, columns))  # by exactly 1 in lanes without
            w.addcmul_(update, step, value=-1)
            if self._decays:
                decayed = w * self.decayed[columns]
                w.addcmul_(decayed.mul_(self._over(factors, columns)) if layers else decayed, decay, value=-1)


class LaneSGD(LaneOptimizer):
    """SGD with momentum as torch.optim.SGD: b ← μ·b + g + λ·w, w ← w − lr·b."""

    def _prepare(self) -> None:
        self.first = lane_rows(self.weights.shape, self.weights)
        self._momentum = self._lanes([r.momentum for r in self.recipes])
        self._weight_decay = self._lanes([r.weight_decay for r in self.recipes])

    def state(self) -> dict[str, Tensor]:
        """The momentum."""
        return {"first": self.first}

    def _update(self, gradient: Tensor, clip: Tensor, rates: list[float], layers: Layers | None) -> None:
        step = self._lanes(rates)
        factors = [of_lane[0] for of_lane in layers] if layers else []
        trained = [[float(f > 0) for f in of_lane] for of_lane in factors]
        for columns in self._stretches():
            w, g, b = (x[:, columns] for x in (self.weights, gradient, self.first))  # [L, width]
            g.mul_(clip)
            if self._decays:
                decayed = w * self.decayed[columns]
                g.addcmul_(decayed.mul_(self._over(trained, columns)) if layers else decayed, self._weight_decay)
            b.mul_(self._momentum).add_(g)
            w.addcmul_(b * self._over(factors, columns) if layers else b, step, value=-1)


class LaneLAMB(LaneAdamW):
    """LAMB (You et al. 2020, arXiv:1904.00962, algorithm 2): AdamW's direction at the scale of each parameter.

    u = m̂/(√v̂ + ε) + λ·w, and w ← w − lr · ‖w‖/‖u‖ · u for each parameter by itself; a ratio of 1 where a norm is 0.
    """

    def _update(self, gradient: Tensor, clip: Tensor, rates: list[float], layers: Layers | None) -> None:
        gradient.mul_(clip)
        self.first.mul_(self._beta1).addcmul_(gradient, self._rest1)
        self.second.mul_(self._beta2).addcmul_(gradient.mul_(gradient), self._rest2)  # the gradient is spent
        for lane, (rate, r) in enumerate(zip(rates, self.recipes, strict=True)):
            factors, counts = layers[lane] if layers else ([1.0], [self.done + 1])
            rests1, rests2 = (
                [1 - beta**t if r.bias_correction else 1.0 for t in counts] for beta in (r.beta1, r.beta2)
            )
            first, second = ((self._over([c])[0] if layers else c[0]) for c in (rests1, rests2))
            w, u = self.weights[lane], gradient[lane]
            torch.sqrt(self.second[lane] / second, out=u).add_(r.eps)
            torch.div(self.first[lane] / first, u, out=u)
            if r.weight_decay:
                u.addcmul_(w, self.decayed, value=r.weight_decay)
            sizes, lengths = self._tensor_norms(w), self._tensor_norms(u)
            trust = torch.where((sizes == 0) | (lengths == 0), torch.ones_like(sizes), sizes / lengths)
            u.mul_(self._by_tensor(trust))
            if layers:
                u.mul_(self._over([factors])[0])
            w.sub_(u, alpha=rate)


class LaneAdafactor(LaneOptimizer):
    """Adafactor (Shazeer & Stern 2018, arXiv:1804.04235) as transformers', called with scale_parameter=False,
    relative_step=False and warmup_init=False, its other settings as they are: a rate from outside, no first moment.

    Of a matrix [r, c] the second moments are kept as those of its rows [r] and columns [c], with β2 = 1 − t^(−0.8), t
    from a layer's unfreezing; an update whose root mean square exceeds 1 is scaled down to it, each parameter by
    itself; the decay comes before the update.
    """

    _EPS, _DECAY_RATE, _MOST = 1e-30, -0.8, 1.0  # transformers' eps[0], decay_rate and clip_threshold

    def _prepare(self) -> None:
        groups: dict[tuple[int, ...], list[int]] = {}  # shape -> its parameters, which are computed together
        for number, value in enumerate(self._known.values):
            groups.setdefault(tuple(value.shape), []).append(number)
        self._groups = list(groups.items())
        sizes = [len(numbers) * self._moments(shape) for shape, numbers in self._groups]
        # Group by group, of the matrices' rows and then of their columns.
        self.second = self.weights.new_zeros(len(self.weights), sum(sizes))
        self._seconds = [torch.split(second, sizes) for second in self.second]

    @staticmethod
    def _moments(shape: tuple[int, ...]) -> int:
        """How many second moments are kept of a parameter."""
        if len(shape) < 2:
            return math.prod(shape)
        return math.prod(shape[:-2]) * (shape[-2] + shape[-1])

    def state(self) -> dict[str, Tensor]:
        """The second moments."""
        return {"second": self.second}

    def _update(self, gradient: Tensor, clip: Tensor, rates: list[float], layers: Layers | None) -> None:
        gradient.mul_(clip)
        for lane, (rate, r) in enumerate(zip(rates, self.recipes, strict=True)):
            factors, counts = layers[lane] if layers else ([1.0], [self.done + 1])
            betas = [1 - count**self._DECAY_RATE for count in counts]
            parts = torch.split(gradient[lane], list(self._known.sizes))
            updates: list[Tensor] = [gradient[lane]] * len(parts)
            for (shape, numbers), second in zip(self._groups, self._seconds[lane], strict=True):
                own = [betas[self._known.slots[number]] if layers else betas[0] for number in numbers]
                update = self._direction(torch.stack([parts[number] for number in numbers]), shape, second, own)
                for number, of_parameter in zip(numbers, update, strict=True):
                    updates[number] = of_parameter.reshape(-1)
            update, w = torch.cat(updates), self.weights[lane]
            over = self._over([factors])[0] if layers else None
            if r.weight_decay:
                w.addcmul_(w, self.decayed if over is None else self.decayed * over, value=-rate * r.weight_decay)
            w.sub_(update if over is None else update.mul_(over), alpha=rate)

    def _direction(self, g: Tensor, shape: tuple[int, ...], second: Tensor, betas: list[float]) -> Tensor:
        """What parameters of one shape move by at a rate of 1, [G, *shape], of their gradients [G, numel]."""
        count, g = len(betas), g.view(-1, *shape)
        decay, rest = (g.new_tensor(values)[:, None] for values in (betas, [1 - beta for beta in betas]))  # [G, 1]
        squares = g.square().add_(self._EPS)
        if len(shape) < 2:
            second = second.view(count, -1)
            second.mul_(decay).add_(squares.view(count, -1) * rest)
            update = second.rsqrt().view(g.shape).mul_(g)
        else:
            outer = count * math.prod(shape[:-1])
            rows, columns = second[:outer].view(count, -1), second[outer:].view(count, -1)
            rows.mul_(decay).add_(squares.mean(dim=-1).view(count, -1) * rest)
            columns.mul_(decay).add_(squares.mean(dim=-2).view(count, -1) * rest)
            by_row = rows.view(count, *shape[:-1])
            scale = (by_row / by_row.mean(dim=-1, keepdim=True)).rsqrt_()[..., None]  # [G, …, r, 1]
            update = scale * columns.view(count, *shape[:-2], 1, shape[-1]).rsqrt()  # [G, …, r, c]
            update.mul_(g)
        sizes = update.flatten(1) if len(shape) else update[:, None]
        size = sizes.square().mean(dim=1).sqrt_()  # root mean square, [G]
        return update.div_((size / self._MOST).clamp_(min=1.0).view(-1, *[1] * len(shape)))


def lane_optimizer(lanes: Lanes, remedies: Sequence[Remedy]) -> LaneOptimizer:
    """The optimizer that the recipes of the lanes name, with what the remedies change of rates and updates."""
    kinds: dict[str, Callable[..., LaneOptimizer]] = {
        "adamw": LaneAdamW,
        "sgd": LaneSGD,
        "lamb": LaneLAMB,
        "adafactor": LaneAdafactor,
    }
    pack = lanes.pack
    kind = kinds[pack.recipe.optimizer]
    return kind(lanes.weights, lanes.decayed(), pack.recipes, pack.total_steps, lanes.parts, remedies)


def _norms(values: Tensor) -> Tensor:
    """The Euclidean norm of each lane's vector in [L, P], [L].

    On a CPU by itself, not in one reduction: how torch splits that depends on its shape. On a GPU all at once, where
    bits may depend on the number of lanes, never on what they hold.
    """
    if values.device.type != "cuda":
        return torch.stack([_norm(lane) for lane in values])
    whole = values.shape[1] // _NORM_BLOCK * _NORM_BLOCK
    blocks = torch.linalg.vector_norm(values[:, :whole].view(len(values), -1, _NORM_BLOCK), dim=2)  # [L, blocks]
    rest = torch.linalg.vector_norm(values[:, whole:], dim=1)
    parts = torch.cat([blocks, rest[:, None]], dim=1)
    # Rows that are not aligned alike are added up in another order; zeros change no sum.
    return F.pad(parts, (0, -parts.shape[1] % ALIGNED)).square().sum(dim=1).sqrt()


def _norm(values: Tensor) -> Tensor:
    """The Euclidean norm of a vector [P], block by block."""
    whole = len(values) // _NORM_BLOCK * _NORM_BLOCK
    blocks = torch.linalg.vector_norm(values[:whole].view(-1, _NORM_BLOCK), dim=1)
    rest = torch.linalg.vector_norm(values[whole:])
    return torch.cat([blocks, rest[None]]).square().sum().sqrt()  # `sum` adds pairwise
