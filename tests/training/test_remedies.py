"""Remedies: each is what a plain torch loop with the field's own tools gives, and keeps the laws of the engine."""

import copy
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cut_runs import HERE, CutError, cut, same
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.func import functional_call
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from training_runs import rate
from transformers.optimization import Adafactor

from harness.common.errors import HarnessError
from harness.config.recipe import ModelSpec, Recipe, TaskFiles, TaskSpec
from harness.config.trials import Trial
from harness.models import pretrained as models
from harness.training import loop, replayer
from harness.training.checkpoints import Checkpoints
from harness.training.numerics import stream
from harness.training.prepare import load_task

Make = Callable[..., Trial]
Fields = dict[str, object]
# What lanes of one pack may differ in.
LANES: list[Fields] = [
    {}, {"schedule": "cosine"}, {"layerwise_lr_decay": 0.8}, {"reinit_layers": 1}, {"mixout": 0.5},
    {"pretrained_decay": 0.1, "layerwise_lr_decay": 0.9}, {"freeze_steps": 3}, {"unfreeze_every": 2},
    {"max_grad_value": 1e-3}, {"clip_per_tensor": True}, {"averaging": "ema", "ema_decay": 0.9},
    {"averaging": "last", "average_last": 2}, {"early_stopping_patience": 1, "lr": 2e-2},
    {"keep_best": True, "early_stopping_on": "score", "lr": 1e-2},
    {"mixout": 0.9, "reinit_layers": 2, "pretrained_decay": 1.0, "freeze_steps": 1}, {"lr": 1e30, "mixout": 0.1},
    {"lr": 1e30, "early_stopping_patience": 1, "keep_best": True},
]  # fmt: skip
# What the trials of a pack have in common.
PACKS: list[Fields] = [
    {"padding": "batch"}, {"eval_every": 0.25}, {"gradient_accumulation": 2}, {"max_steps": 9}, {"optimizer": "sgd"},
    {"optimizer": "lamb"}, {"optimizer": "adafactor"}, {"mixup": 0.4},
    {"mixup": 1.0, "padding": "batch", "gradient_accumulation": 2, "label_smoothing": 0.1},
    {"neftune_alpha": 5.0}, {"r_drop": 1.0},
    {"neftune_alpha": 5.0, "r_drop": 1.0, "mixup": 0.4, "padding": "batch", "gradient_accumulation": 2},
    {"oversample": True}, {"class_weights": True, "eval_steps": 3}, {"class_weights": "balanced", "eval_steps": 3},
]  # fmt: skip


# --------------------------------------------------------------------------------------- against their definitions


def below(name: str) -> int:
    """Layers below the head of a parameter of the BERT of two layers."""
    return 3 if "embeddings" in name else 2 if "layer.0" in name else 1 if "layer.1" in name else 0


def start(one: Trial) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """The network of a trial as it begins, and its pretrained values."""
    r = one.recipe
    network = models.network(r.model, 2)
    module = copy.deepcopy(network.module).eval().requires_grad_(True)
    values = network.initialised(stream("init", one.seeds.init_seed))
    generator = stream("reinit", one.seeds.init_seed)
    for name, value in values.items():
        fresh = r.reinit_layers and ("pooler" in name or 0 < below(name) <= r.reinit_layers)
        if fresh and value.dim() > 1:
            values[name] = torch.empty(value.shape).normal_(0, 0.02, generator=generator)
        elif fresh:
            values[name] = torch.full_like(value, float("LayerNorm.weight" in name))
    module.load_state_dict(module.state_dict() | values)
    return module, network.pretrained


def mixed(
    r: Recipe, module: torch.nn.Module, pretrained: dict[str, torch.Tensor], generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """The parameters with mixout by its formula, a mask for the columns of each linear layer outside the head."""
    p = round(r.mixout * 65536) / 65536
    linear = {f"{n}.weight": m.in_features for n, m in module.named_modules() if isinstance(m, torch.nn.Linear)}
    bits = torch.empty((sum(linear.values()) + 3) // 4, dtype=torch.int64).random_(-(2**63), None, generator=generator)
    draws = (bits.view(torch.int16)[: sum(linear.values())].double() + 32768) / 65536
    found, at = {}, 0
    for name, value in module.named_parameters():
        found[name] = value
        if name in linear:
            mask = (draws[at : at + linear[name]] >= p).float()  # of the outgoing weights of an input neuron
            at += linear[name]
            if "classifier" not in name and not (r.reinit_layers and "embeddings" not in name):
                mixture = mask * value + (1 - mask) * pretrained[name]
                found[name] = (mixture - p * pretrained[name]) / (1 - p)
    return found


def plain(one: Trial) -> tuple[list[float], list[float], np.ndarray]:
    """A loop as people write it with torch's and transformers' own tools; losses, norms, final logits."""
    r = one.recipe
    task = load_task(r.task, r.model, r.max_length)
    module, pretrained = start(one)
    names = dict(module.named_parameters())
    data = {name: torch.from_numpy(getattr(task.train, name)) for name in ("input_ids", "lengths", "labels")}
    first = {name: torch.zeros_like(value) for name, value in names.items()}
    second, counts = copy.deepcopy(first), dict.fromkeys(names, 0)
    sgd = torch.optim.SGD(
        [{"params": [value], "weight_decay": r.weight_decay * decays(name)} for name, value in names.items()],
        momentum=r.momentum,
    )
    factored = Adafactor(
        [{"params": [v], "weight_decay": r.weight_decay * decays(name)} for name, v in names.items()],
        lr=r.lr, scale_parameter=False, relative_step=False, warmup_init=False,
    )  # fmt: skip
    order, mixing = stream("order", one.seeds.order_seed), stream("mixout", one.seeds.dropout_seed)
    pairing, noising = (stream(purpose, one.seeds.dropout_seed) for purpose in ("mixup", "neftune"))
    an_epoch = math.ceil(len(data["labels"]) / r.batch_size)
    total = r.max_steps or an_epoch * r.epochs
    counted = torch.bincount(data["labels"])
    weight = len(data["labels"]) / (2 * counted) if r.class_weights else None
    ema = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(r.ema_decay))
    last = AveragedModel(module)
    losses: list[float] = []
    norms: list[float] = []
    while len(losses) < total:
        for rows in torch.randperm(len(data["labels"]), generator=order).split(r.batch_size)[: total - len(losses)]:
            step = len(losses)
            for name, value in names.items():
                opens = below(name) * (r.unfreeze_every or 0) + r.freeze_steps * (below(name) > 0)
                value.requires_grad_(step >= opens)
            parameters = mixed(r, module, pretrained, mixing) if r.mixout else names
            mask = (torch.arange(data["input_ids"].shape[1]) < data["lengths"][rows, None]).long()
            inputs = {"input_ids": data["input_ids"][rows], "attention_mask": mask}
            others, share = rows, 1.0
            if r.mixup:
                words = module.get_input_embeddings()  # type: ignore[operator]
                others = rows[torch.randperm(len(rows), generator=pairing)]
                both = torch.tensor([r.mixup, r.mixup], dtype=torch.float64)
                share = torch._sample_dirichlet(both, generator=pairing)[0].item()
                embedded = share * words(inputs.pop("input_ids")) + (1 - share) * words(data["input_ids"][others])
                longer = torch.maximum(data["lengths"][rows], data["lengths"][others])
                inputs = {
                    "inputs_embeds": embedded,
                    "attention_mask": (torch.arange(data["input_ids"].shape[1]) < longer[:, None]).long(),
                }
            if r.neftune_alpha:
                words = module.get_input_embeddings()  # type: ignore[operator]
                embedded = inputs["inputs_embeds"] if r.mixup else words(inputs.pop("input_ids"))
                noise = torch.empty(embedded.shape).uniform_(-1, 1, generator=noising)
                for own, length in zip(noise, inputs["attention_mask"].sum(dim=1).tolist(), strict=True):
                    own[:length] *= r.neftune_alpha / math.sqrt(length * embedded.shape[-1])
                    own[length:] = 0
                inputs["inputs_embeds"] = embedded + noise
            logits = functional_call(module, parameters, kwargs=inputs).logits
            # `on` divides by the batch's size, `balanced` is F.cross_entropy's own mean.
            whole = r.class_weights == "balanced"
            smoothing = {
                "label_smoothing": r.label_smoothing,
                "weight": weight,
                "reduction": "mean" if whole else "sum",
            }
            first_loss, other_loss = (F.cross_entropy(logits, data["labels"][i], **smoothing) for i in (rows, others))  # type: ignore[arg-type]
            loss = (share * first_loss + (1 - share) * other_loss) / (1 if whole else len(rows))
            module.zero_grad()
            loss.backward()
            trained = {name: value for name, value in names.items() if value.grad is not None}
            losses.append(loss.item())
            norms.append(torch.nn.utils.get_total_norm([value.grad for value in trained.values()]).item())
            if r.max_grad_value:
                torch.nn.utils.clip_grad_value_(trained.values(), r.max_grad_value)
            for group in [[v] for v in trained.values()] if r.clip_per_tensor else [list(trained.values())]:
                torch.nn.utils.clip_grad_norm_(group, r.max_grad_norm or math.inf)
            lr = rate(r, step, total)
            for group in sgd.param_groups:
                group["lr"] = lr
            if r.optimizer == "sgd":
                sgd.step()
            if r.optimizer == "adafactor":
                for name, group in zip(names, factored.param_groups, strict=True):
                    group["lr"] = lr * r.layerwise_lr_decay ** below(name)
                factored.step()
            for name, value in trained.items():
                counts[name] += 1
                with torch.no_grad():
                    if r.optimizer in ("adamw", "lamb"):
                        step_of(r, name, value, first[name], second[name], counts[name], lr)
                    own = lr * r.layerwise_lr_decay ** below(name) * decays(name)
                    fresh = "classifier" in name or (r.reinit_layers and below(name) <= r.reinit_layers)
                    if not fresh:
                        value.sub_(own * r.pretrained_decay * (value - pretrained[name]))
            ema.update_parameters(module)
            if len(losses) % an_epoch == 0 and len(losses) > an_epoch * (r.epochs - r.average_last):
                last.update_parameters(module)
    final = {"none": module, "ema": ema.module, "last": last.module}[r.averaging]
    dev = task.validation
    mask = (torch.arange(dev.input_ids.shape[1]) < torch.from_numpy(dev.lengths)[:, None]).long()
    with torch.no_grad():
        logits = final(input_ids=torch.from_numpy(dev.input_ids), attention_mask=mask).logits
    return losses, norms, logits.numpy()


def decays(name: str) -> bool:
    return not (name.endswith("bias") or "LayerNorm.weight" in name)


def step_of(r: Recipe, name: str, value: torch.Tensor, m: torch.Tensor, v: torch.Tensor, t: int, lr: float) -> None:
    """The paper's AdamW of one parameter, or LAMB's algorithm 2."""
    assert value.grad is not None
    m.mul_(r.beta1).add_(value.grad, alpha=1 - r.beta1)
    v.mul_(r.beta2).addcmul_(value.grad, value.grad, value=1 - r.beta2)
    c1, c2 = (1 - r.beta1**t, 1 - r.beta2**t) if r.bias_correction else (1.0, 1.0)
    lr *= r.layerwise_lr_decay ** below(name)
    if r.optimizer == "lamb":
        u = (m / c1) / ((v / c2).sqrt() + r.eps) + r.weight_decay * decays(name) * value
        norms = value.norm(), u.norm()
        value.sub_(lr * (norms[0] / norms[1] if all(norms) else 1.0) * u)
        return
    value.addcdiv_(m, v.sqrt().add_(r.eps), value=-lr * math.sqrt(c2) / c1)
    value.sub_(lr * r.weight_decay * decays(name) * value)


@pytest.mark.parametrize(
    "fields",
    [
        {"schedule": "polynomial", "schedule_power": 2.0, "schedule_end": 1e-4},
        {"layerwise_lr_decay": 0.7, "bias_correction": False},
        {"reinit_layers": 1}, {"reinit_layers": 2, "pretrained_decay": 5.0, "mixout": 0.4},
        {"mixout": 0.9, "weight_decay": 0.0},
        {"pretrained_decay": 5.0, "layerwise_lr_decay": 0.9},
        {"label_smoothing": 0.1, "class_weights": True}, {"class_weights": True},
        {"class_weights": "balanced"}, {"class_weights": "balanced", "padding": "batch"},
        {"label_smoothing": 0.1, "class_weights": "balanced", "gradient_accumulation": 4},
        {"mixup": 0.4, "class_weights": "balanced", "label_smoothing": 0.1, "padding": "batch", "lr": 2e-2},
        {"freeze_steps": 5, "warmup_ratio": 0.0}, {"unfreeze_every": 3, "optimizer": "sgd"},
        {"max_grad_value": 1e-2}, {"max_grad_value": 1e-2, "max_grad_norm": None},
        {"max_grad_norm": 0.01, "clip_per_tensor": True},
        {"max_steps": 5, "schedule": "cosine"},
        {"averaging": "ema", "ema_decay": 0.9}, {"averaging": "last", "average_last": 2},
        {"optimizer": "sgd", "lr": 0.1},
        {"optimizer": "lamb", "lr": 1e-2}, {"optimizer": "lamb", "bias_correction": False, "unfreeze_every": 2},
        {"mixup": 0.4, "lr": 2e-2},
        {"mixup": 2.0, "lr": 2e-2, "padding": "batch", "label_smoothing": 0.1, "class_weights": True},
        {"neftune_alpha": 5.0}, {"neftune_alpha": 2.0, "mixup": 0.4, "lr": 1e-2},
        {"optimizer": "adafactor"}, {"optimizer": "adafactor", "layerwise_lr_decay": 0.7, "unfreeze_every": 2},
    ],
    ids=lambda fields: " ".join(f"{name}={value}" for name, value in fields.items()),
)  # fmt: skip
def test_a_remedy_is_its_definition(trial: Make, uneven: TaskSpec, fields: Fields) -> None:
    """All steps, to float32's rounding, whose differences grow with the steps; and bit-equal alone and in a pack."""
    common = {"task": uneven, "dropout": 0.0, "epochs": 2, "lr": 3e-3, "weight_decay": 0.1}
    one = trial(4, **(common | fields))
    other = trial(5, **(common | {name: value for name, value in fields.items() if name in shared}))
    result = loop.train([other, one])[1]

    def close(losses: list[float], norms: list[float], logits: np.ndarray) -> bool:
        same_steps = np.allclose(found.train_loss, losses, rtol=5e-5) and np.allclose(found.grad_norm, norms, rtol=5e-4)
        return same_steps and np.allclose(found.logits, logits, atol=5e-4)

    found = result.curves
    assert close(*plain(one))
    untouched = {name: value for name, value in fields.items() if name in kept}
    assert not close(*without(trial(4, **(common | untouched))))
    assert same(loop.train([one]), [result])


without = cache(plain)
# By the trials of a pack.
shared = {
    "label_smoothing",
    "class_weights",
    "gradient_accumulation",
    "max_steps",
    "optimizer",
    "mixup",
    "neftune_alpha",
    "padding",
}
kept = {"lr", "weight_decay", "warmup_ratio", "max_grad_norm", "max_steps", "padding"}  # no remedies of this module


# ------------------------------------------------------------------------------------- evaluation, stopping, keeping


# ------------------------------------------------------------------------------------------------ the engine's laws


def test_lanes_with_remedies_are_bit_equal_alone_and_in_any_pack(trial: Make) -> None:
    trials = [trial(place % 3, epochs=2, **fields) for place, fields in enumerate(LANES)]
    alone = cache(lambda place: loop.train([trials[place]])[0])

    @settings(max_examples=7, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.integers(0, len(trials) - 1), min_size=2, max_size=8))
    def check(lanes: list[int]) -> None:
        together = loop.train([trials[lane] for lane in lanes])
        assert same(together, [alone(lane) for lane in lanes])

    check()
    assert same(loop.train(trials[::-1]), [alone(lane) for lane in range(len(trials))][::-1])


@pytest.mark.parametrize("fields", PACKS, ids=str)
def test_packs_keep_the_laws(
    trial: Make, uneven: TaskSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: Fields
) -> None:
    """Alone and together, cut and gone on, recorded and not: the same bits."""
    lanes = [LANES[place] for place in (0, 2, 4, 7, 10, 11, 12, 13, 14, 16)]
    trials = [trial(place % 3, task=uneven, epochs=2, **(fields | lane)) for place, lane in enumerate(lanes)]
    wanted = loop.train(trials)
    assert same(loop.train(trials[2:5]), wanted[2:5])
    assert same(loop.train(trials[-1:]), wanted[-1:])
    for at in (1, 4, 6, 8):
        with pytest.raises(CutError):
            loop.train(trials, callbacks=[cut(at)], checkpoint=Checkpoints(tmp_path, 0).of(trials, HERE))
    assert same(loop.train(trials, checkpoint=Checkpoints(tmp_path, math.inf).of(trials, HERE)), wanted)
    monkeypatch.setattr(replayer, "RECORDING_PAYS", 0)
    assert same(loop.train(trials), wanted)


# ---------------------------------------------------------------------------------------------------------- refusals


def test_what_does_not_fit_model_or_data_is_refused(trial: Make, build: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"reinit_layers must be at most the model's 2 layers \(got 3"):
        loop.train([trial(reinit_layers=3)])
    with pytest.raises(HarnessError, match="max_steps must be at most 16, the steps of 2 epochs"):
        loop.train([trial(max_steps=17)])
    with pytest.raises(HarnessError, match=r"mixup requires an encoder: tiny-gpt2 answers at"):
        loop.train([trial(mixup=0.2, model=ModelSpec(name="tiny-gpt2", folder=str(build("gpt2"))))])
    for name in ("train", "validation"):
        (tmp_path / f"{name}.tsv").write_text("text\tlabel\n" + "".join(f"a b\t{n}.5\n" for n in range(20)))
    files = TaskFiles(train=str(tmp_path / "train.tsv"), validation=str(tmp_path / "validation.tsv"))
    numbers = TaskSpec(name="numbers", files=files, metric="pearson")
    for fields in ({"label_smoothing": 0.1}, {"class_weights": True}, {"oversample": True}, {"mixup": 0.2}):
        with pytest.raises(
            HarnessError, match=f"{next(iter(fields))} requires a task with classes .got numbers, a regression"
        ):
            loop.train([trial(task=numbers, **fields)])
