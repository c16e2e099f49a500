"""The optimizer of both arms: a hand computation, a reference from the formula, and torch's AdamW as second witness."""

import math

import numpy as np
import pytest
import torch

from harness.config.recipe import ModelSpec, Recipe, TaskSpec
from harness.config.schedules import warmup_linear
from harness.training.optimizers import LaneAdafactor, LaneAdamW
from harness.training.parts import Parts


def recipe(**fields: object) -> Recipe:
    given = {"task": TaskSpec(name="embedded"), "model": ModelSpec(name="embedded"), "lr": 1e-2, "epochs": 1}
    return Recipe(**(given | {"max_grad_norm": None, "warmup_ratio": 0.0} | fields))


def run(recipes: list[Recipe], gradients: list[torch.Tensor], start: torch.Tensor, total: int) -> torch.Tensor:
    """Weights [L, P] after the gradients, the second of two parameters not decayed."""
    weights = start.repeat(len(recipes), 1)
    optimizer = LaneAdamW(weights, torch.tensor([1.0, 0.0], dtype=start.dtype), recipes, total)
    for gradient in gradients:
        optimizer.step(gradient.repeat(len(recipes), 1))
    return weights


def test_two_steps_by_hand() -> None:
    """lr 0.01 constant-ish (total 2, no warm-up: factors 1 and 1/2), g = (0.5, −1) then (0.5, 0)."""
    start = torch.tensor([1.0, 2.0], dtype=torch.float64)
    gradients = [torch.tensor([0.5, -1.0], dtype=torch.float64), torch.tensor([0.5, 0.0], dtype=torch.float64)]
    off, on = run([recipe(bias_correction=False), recipe(bias_correction=True)], gradients, start, 2)
    # Step 1: m = 0.1 g, v = 0.001 g²; update m / (√v + 1e-6); then the decay 0.01 · 0.01 · w on the first.
    first = 1.0 - 0.01 * 0.05 / (math.sqrt(0.00025) + 1e-6)
    first -= 0.01 * 0.01 * first
    second = 2.0 + 0.01 * 0.1 / (math.sqrt(0.001) + 1e-6)
    # Step 2: m = 0.9 m + 0.1 g, v = 0.999 v + 0.001 g²; rate 0.005.
    first -= 0.005 * (0.9 * 0.05 + 0.05) / (math.sqrt(0.999 * 0.00025 + 0.00025) + 1e-6)
    first -= 0.005 * 0.01 * first
    second += 0.005 * 0.09 / (math.sqrt(0.999 * 0.001) + 1e-6)
    assert off.tolist() == pytest.approx([first, second], rel=1e-12)
    # With correction only the step size changes: by √(1−β2^t)/(1−β1^t), the ε staying beside the uncorrected √v.
    one, two = math.sqrt(0.001) / 0.1, math.sqrt(1 - 0.999**2) / (1 - 0.9**2)
    corrected = 2.0 + 0.01 * one * 0.1 / (math.sqrt(0.001) + 1e-6) + 0.005 * two * 0.09 / (math.sqrt(0.000999) + 1e-6)
    assert on[1].item() == pytest.approx(corrected, rel=1e-12)


@pytest.mark.parametrize("correction", [False, True])
def test_against_torch_adamw_with_emulated_settings(correction: bool) -> None:
    """torch's AdamW called with lr', ε' and wd' that undo its own correction (DESIGN.md) takes the same steps.

    torch decays before the update and ours after it with the uncorrected rate, so the decay is left out here and
    held by the hand computation.
    """
    draw = torch.Generator().manual_seed(3)
    start = torch.randn(2, generator=draw, dtype=torch.float64)
    gradients = [torch.randn(2, generator=draw, dtype=torch.float64) for _ in range(50)]
    given = recipe(bias_correction=correction, weight_decay=0.0, warmup_ratio=0.1, eps=1e-3)
    ours = run([given], gradients, start, 50)[0]
    weights = start.clone().requires_grad_()
    theirs = torch.optim.AdamW([weights], lr=1.0, betas=(0.9, 0.999), weight_decay=0.0)
    for number, gradient in enumerate(gradients):
        t = number + 1
        c1, c2 = 1 - 0.9**t, 1 - 0.999**t
        rate = given.lr * warmup_linear(number, 50, 0.1)
        # torch: rate/c1 · m / (√v/√c2 + ε). Ours, uncorrected: rate · m / (√v + ε); corrected: times √c2/c1.
        theirs.param_groups[0]["lr"] = rate if correction else rate * c1 / math.sqrt(c2)
        theirs.param_groups[0]["eps"] = given.eps / math.sqrt(c2)
        weights.grad = gradient.clone()
        theirs.step()
    assert ours.tolist() == pytest.approx(weights.tolist(), abs=1e-14)


def test_uncorrected_steps_are_up_to_six_and_a_half_times_larger() -> None:
    """MOSBACH.md, trap 4: 6.56 at step 12, 3.2 at step 100; the factor from the formula."""
    factor = [(1 - 0.9**t) / math.sqrt(1 - 0.999**t) for t in range(1, 201)]
    assert int(np.argmax(factor)) + 1 == 12
    assert 6.56 <= max(factor) < 6.57
    gradients = [torch.tensor([0.5, 0.5], dtype=torch.float64)] * 12
    start = torch.zeros(2, dtype=torch.float64)
    common = {"weight_decay": 0.0, "eps": 1e-12}
    before = run([recipe(bias_correction=b, **common) for b in (False, True)], gradients[:11], start, 10**9)
    after = run([recipe(bias_correction=b, **common) for b in (False, True)], gradients, start, 10**9)
    off, on = ((after - before)[:, 0]).tolist()
    assert off / on == pytest.approx(factor[11], rel=1e-6)


def test_schedule_of_the_study() -> None:
    """RTE: 468 steps at 3 epochs, int(46.8) = 46 of warm-up; the first update has rate 0, as under LambdaLR."""
    factors = [warmup_linear(step, 468, 0.1) for step in range(468)]
    assert factors[0] == 0.0
    assert factors[23] == 0.5
    assert factors[46] == 1.0
    assert factors[467] == pytest.approx(1 / 422)
    assert int(np.argmax(factors)) == 46
    assert [warmup_linear(step, 4, 0.0) for step in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]
    from torch.optim.lr_scheduler import LambdaLR
    from transformers import get_linear_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule: LambdaLR = get_linear_schedule_with_warmup(optimizer, 46, 468)
    theirs = []
    for _ in range(468):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert factors == pytest.approx(theirs, abs=1e-15)


def test_clipping_is_per_lane_and_as_torch_does_it() -> None:
    gradients = torch.tensor([[3.0, 4.0], [0.3, 0.4], [3.0, 4.0]])
    recipes = [recipe(max_grad_norm=1.0), recipe(max_grad_norm=1.0), recipe(max_grad_norm=None)]
    seen = gradients.clone()
    optimizer = LaneAdamW(torch.zeros(3, 2), torch.ones(2), recipes, 10)
    norms = optimizer.step(seen)
    assert norms.tolist() == pytest.approx([5.0, 0.5, 5.0])
    for lane, limit in enumerate((1.0, 1.0, math.inf)):
        weights = torch.zeros(2, requires_grad=True)
        weights.grad = gradients[lane].clone()
        torch.nn.utils.clip_grad_norm_([weights], limit)
        assert weights.grad is not None
        assert optimizer.first[lane].tolist() == pytest.approx((0.1 * weights.grad).tolist())


def test_a_lane_that_is_not_a_number_spoils_no_other() -> None:
    recipes = [recipe(max_grad_norm=1.0)] * 2
    good = torch.tensor([0.5, -1.0])
    both, alone = torch.ones(2, 2), torch.ones(1, 2)
    together = LaneAdamW(both, torch.ones(2), recipes, 10)
    single = LaneAdamW(alone, torch.ones(2), recipes[:1], 10)
    for _ in range(3):
        together.step(torch.stack([torch.tensor([math.nan, 1.0]), good]))
        single.step(good[None].clone())
    assert torch.isnan(both[0]).all()
    assert torch.equal(both[1], alone[0])


def test_the_norm_keeps_its_digits_over_many_parameters() -> None:
    """float32 sums over millions of parameters lose digits when they are added one after the other."""
    gradient = torch.full((1, 20_000_000), 1e-3)
    norm = LaneAdamW(torch.zeros_like(gradient), torch.zeros(gradient.shape[1]), [recipe()], 10).step(gradient)
    assert norm.item() == pytest.approx(1e-3 * math.sqrt(20_000_000), rel=1e-6)


def test_adafactor_is_that_of_transformers_for_every_shape() -> None:
    """30 steps in float64 of vectors, matrices (two of one shape), a stack of matrices, columns and a number."""
    from transformers.optimization import Adafactor

    shapes = [(5,), (4, 3), (2, 3, 4), (4, 3), (6, 1), (), (1, 7)]
    draw = torch.Generator().manual_seed(3)
    start = [torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes]
    sizes = tuple(value.numel() for value in start)
    parts = Parts((0,) * len(shapes), sizes, (0,) * len(shapes), tuple(start), torch.device("cpu"))
    flat = torch.cat([value.reshape(-1) for value in start])
    decayed = torch.cat([torch.full((size,), float(size > 5), dtype=torch.float64) for size in sizes])
    given = recipe(optimizer="adafactor", weight_decay=0.1, schedule="constant")
    weights = flat.repeat(2, 1)
    ours = LaneAdafactor(weights, decayed, [recipe(optimizer="adafactor", lr=1.0), given], 30, parts)
    theirs = [value.clone().requires_grad_() for value in start]
    groups = [{"params": [one], "weight_decay": 0.1 * (one.numel() > 5)} for one in theirs]
    reference = Adafactor(groups, lr=given.lr, scale_parameter=False, relative_step=False, warmup_init=False)
    for _ in range(30):
        # Of very different sizes, so that the limit on an update's root mean square is met by some and not by others.
        gradient = torch.randn(len(flat), generator=draw, dtype=torch.float64) * torch.rand(1, generator=draw).exp()
        for one, part in zip(theirs, gradient.split(sizes), strict=True):
            one.grad = part.view(one.shape).clone()
        ours.step(gradient.repeat(2, 1))
        reference.step()
    wanted = torch.cat([one.detach().reshape(-1) for one in theirs])
    assert weights[1].tolist() == pytest.approx(wanted.tolist(), abs=1e-12)
    # A moment a number of a vector, a row and a column of a matrix.
    assert ours.state()["second"].shape == (2, 5 + 2 * 7 + 2 * 7 + 7 + 1 + 8)
