"""R-Drop is its definition, step by step, and lanes of other strengths keep to themselves."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cut_runs import same
from torch.overrides import TorchFunctionMode
from training_runs import begin

from harness.config.recipe import TaskSpec
from harness.config.trials import Trial
from harness.training import loop
from harness.training.loop import update
from harness.training.numerics import stream
from harness.training.remedies.dropout import Masks, NoDropout

Make = Callable[..., Trial]
Fields = dict[str, object]


class OnePass(TorchFunctionMode):
    """The first or the second of two passes through a batch: its half of what was drawn for each place of dropout."""

    def __init__(self, pool: torch.Tensor, which: int) -> None:
        super().__init__()
        self.pool, self.which, self.used = pool, which, 0

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not F.dropout:
            return func(*args, **(kwargs or {}))
        count = 2 * args[0].numel()
        both = self.pool[self.used : self.used + count].view(2, *args[0].shape)
        self.used += count
        return args[0] * both[self.which]


@pytest.mark.parametrize("kind", ["classes", "soft", "numbers", "words"])
@pytest.mark.parametrize("layout", [{}, {"padding": "batch", "gradient_accumulation": 2}], ids=str)
def test_r_drop_is_its_definition(
    trial: Make,
    uneven: TaskSpec,
    numbers: TaskSpec,
    tagged: TaskSpec,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    layout: Fields,
) -> None:
    """Two passes by torch alone: ½ (CE₁ + CE₂) + α · ½ (KL(p‖q) + KL(q‖p)), a batch's mean, as in the method's code."""
    task = {"numbers": numbers, "words": tagged}.get(kind, uneven)
    soft: Fields = {"label_smoothing": 0.1, "class_weights": True} if kind == "soft" else {}
    one = trial(4, task=task, dropout=0.3, r_drop=0.7, max_grad_norm=None, lr=1e-2, **layout, **soft)
    run = begin([trial(5, **one.recipe.model_dump() | {"r_drop": 5.0}), one])
    with torch.no_grad():
        run.lanes.weights.mul_(4)  # a fresh model's answers hardly differ
    stepping, gradients = run.optimizer.step, []

    def seeing(gradient: torch.Tensor) -> torch.Tensor:
        gradients.append(gradient[1].clone())
        return stepping(gradient)

    monkeypatch.setattr(run.optimizer, "step", seeing)
    split, module = run.pack.task.train, copy.deepcopy(run.lanes.network.module).requires_grad_(True)
    masks = Masks([0.3], [one.seeds.dropout_seed], torch.device("cpu"))
    rows_of_all = torch.randperm(len(split.labels), generator=stream("order", one.seeds.order_seed))
    labels, lengths = torch.from_numpy(split.labels), torch.from_numpy(split.lengths)
    weight = len(labels) / (2 * torch.bincount(labels)) if kind == "soft" else None
    for step, rows in enumerate(rows_of_all.split(8)[:3]):
        module.load_state_dict({name: view[1].detach().clone() for name, view in run.lanes.views.items()})
        parts = [(part, split.input_ids.shape[1]) for part in rows.split(8 // one.recipe.gradient_accumulation)]
        if one.recipe.padding == "batch":
            ordered = [part[torch.argsort(lengths[part], stable=True)] for part, _ in parts]
            halves = [half for part in ordered for half in part.split(math.ceil(len(part) / 2))]
            longest = split.input_ids.shape[1]
            parts = [(half, min(longest, math.ceil(int(lengths[half].max()) / 4) * 4)) for half in halves]
        loss, apart, count = torch.zeros(()), torch.zeros(()), 0
        for part, width in parts:
            mask = (torch.arange(width) < lengths[part, None]).long()
            given = {"input_ids": torch.from_numpy(split.input_ids[part][:, :width]), "attention_mask": mask}
            with torch.no_grad(), NoDropout() as counted:
                module(**given)
            (pool,) = masks.draw([0], [(2 * size, rate) for size, rate in counted.sites], 0, 0, whole=False)
            logits = []
            for which in (0, 1):
                with OnePass(pool, which):
                    logits.append(module(**given).logits)
            own = labels[part]
            if kind == "words":
                own = own[:, :width]
                logits, own = [one[own != -100] for one in logits], own[own != -100]
            count += len(own)
            if kind == "numbers":
                first, second = (one[:, 0] for one in logits)
                loss = loss + ((first - own) ** 2 + (second - own) ** 2).sum() / 2
                apart = apart + ((first - second) ** 2).sum()
                continue
            smoothing = one.recipe.label_smoothing
            for answers, others in (logits, logits[::-1]):
                loss = loss + F.cross_entropy(answers, own, weight, reduction="sum", label_smoothing=smoothing) / 2
                divergence = F.kl_div(F.log_softmax(answers, -1), F.softmax(others, -1), reduction="sum")
                apart = apart + divergence / 2
        parameters = list(module.parameters())
        whole, alone = (
            torch.cat([one.flatten() for one in torch.autograd.grad(of / count, parameters, retain_graph=True)])
            for of in (loss + 0.7 * apart, loss)
        )
        update(run, step)
        assert run.log.losses[step][1].item() == pytest.approx((loss / count).item(), rel=1e-5)  # without the term
        scale = whole.norm().item()
        torch.testing.assert_close(gradients[step], whole, rtol=0, atol=1e-5 * scale)
        assert (whole - alone).norm().item() > 0.01 * scale


@pytest.mark.parametrize(
    "common",
    [{}, {"padding": "batch"}, {"method": "lora"}, {"method": "prompt", "virtual_tokens": 3}, {"words": True}],
    ids=str,
)
def test_lanes_of_other_noise_and_r_drop_are_bit_equal_alone_and_in_a_pack(
    trial: Make, tagged: TaskSpec, common: Fields
) -> None:
    common = {"task": tagged} if "words" in common else common
    lanes: list[Fields] = [
        {"neftune_alpha": 1.0, "r_drop": 0.5}, {"neftune_alpha": 20.0, "r_drop": 5.0, "dropout": 0.4},
        {"neftune_alpha": 5.0, "r_drop": 1.0, "lr": 1e30},
    ]  # fmt: skip
    trials = [trial(place, **(common | lane)) for place, lane in enumerate(lanes)]
    wanted = loop.train(trials)
    assert same(loop.train(trials), wanted)
    assert same(loop.train(trials[::-1]), wanted[::-1])
    for place in range(len(trials)):
        assert same(loop.train(trials[place : place + 1]), wanted[place : place + 1])
    assert len({trial(**fields).recipe.shape for fields in ({}, {"neftune_alpha": 1.0}, {"r_drop": 1.0})}) == 3
    for name in ("neftune_alpha", "r_drop"):
        (changed,) = loop.train([trial(0, **(common | lanes[0] | {name: 2.0}))])
        assert changed.measured.weights_sha256 != wanted[0].measured.weights_sha256
