"""The paths of a GPU: on one where there is one, else on a device that refuses to meet the CPU's tensors."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import device_apart
import numpy as np
import pytest
import torch
from cut_runs import HERE, CutError, cut, same
from kept_runs import logits, sweep_of, trained
from training_runs import begin

from harness.config.recipe import ModelSpec, TaskSpec
from harness.config.trials import Trial
from harness.data import tasks
from harness.data.text_files import Line
from harness.models import pretrained, saved
from harness.models.predict import Served
from harness.pretraining import pretrain
from harness.pretraining.settings import Settings
from harness.training import loop, probes, replayer
from harness.training.callbacks import ReportSignals
from harness.training.checkpoints import Checkpoints
from harness.training.loop import update
from harness.training.outcome import LaneResult
from harness.training.prepare import load_network, load_task
from harness.training.remedies import dropout

Make = Callable[..., Trial]
pytestmark = pytest.mark.usefixtures("cpu_only")

# How a step was run is measured too, and differs where it is to.
AS_IT_IS = {"step_mode": None, "step_mode_reason": None}
DEVICE = "cuda" if torch.cuda.is_available() else str(device_apart.DEVICE)


@pytest.fixture(autouse=True)
def apart() -> Iterator[object]:
    """A model is cached on the device that it was moved to."""
    pretrained._networks.cache_clear()
    with nullcontext() if DEVICE == "cuda" else device_apart.pretended() as mode:
        yield mode
    pretrained._networks.cache_clear()


@contextmanager
def on_cpu() -> Iterator[None]:
    """Train what the device's results are compared with."""
    pretrained._networks.cache_clear()
    with device_apart.left():
        yield
    pretrained._networks.cache_clear()


def close(there: list[LaneResult], here: list[LaneResult]) -> None:
    for a, b in zip(there, here, strict=True):
        np.testing.assert_allclose(a.curves.train_loss, b.curves.train_loss, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(a.weights, b.weights, rtol=1e-2, atol=2e-4)


# Each alone, where there is a GPU.
SINGLE: dict[str, dict[str, object]] = {
    "as it is": {},
    "by length": {"padding": "batch"},
    "in eights": {"pad_to_multiple_of": 8},
    "accumulated": {"gradient_accumulation": 4},
    "mixout": {"mixout": 0.5},
    "mixup": {"mixup": 0.4},
    "mixup by length": {"mixup": 0.4, "padding": "batch"},
    "noisy": {"neftune_alpha": 5.0},
    "two passes": {"r_drop": 1.0},
    "all at once, by length": {"neftune_alpha": 5.0, "r_drop": 1.0, "mixup": 0.4, "padding": "batch"},
    "smoothed": {"label_smoothing": 0.1},
    "weighted": {"class_weights": True},
    "oversampled": {"oversample": True},
    "decay by layer": {"layerwise_lr_decay": 0.8},
    "re-initialised": {"reinit_layers": 1},
    "pulled back": {"pretrained_decay": 0.1},
    "frozen at first": {"freeze_steps": 3},
    "unfrozen": {"unfreeze_every": 2},
    "clipped by value": {"max_grad_value": 0.01},
    "clipped by tensor": {"clip_per_tensor": True},
    "unclipped": {"max_grad_norm": None},
    "moving average": {"averaging": "ema", "ema_decay": 0.9},
    "mean of the last": {"averaging": "last", "average_last": 2},
    "best kept": {"keep_best": True, "eval_every": 0.5},
    "stopped early": {"early_stopping_patience": 1, "eval_every": 0.5, "lr": 1e-2},
    "momentum": {"optimizer": "sgd", "lr": 1e-2},
    "LAMB": {"optimizer": "lamb"},
    "Adafactor": {"optimizer": "adafactor"},
    "head": {"method": "head"},
    "top layer": {"method": "top_layers", "top_layers": 1},
    "LoRA": {"method": "lora", "lora_rank": 2},
    "prefix": {"method": "prefix", "virtual_tokens": 3},
    "prompt": {"method": "prompt", "virtual_tokens": 3},
    "IA³": {"method": "ia3"},
    "adapter": {"method": "adapter", "adapter_size": 4},
    "BitFit": {"method": "bitfit"},
    "swapped words": {"augment": "swap"},
}
# Elsewhere every operation passes through Python, so several settings go into one run; a test holds that none
# is left out.
TOGETHER: dict[str, dict[str, object]] = {
    "as it is": {},
    "all at once, by length": SINGLE["all at once, by length"],
    "of the data": {
        "pad_to_multiple_of": 8, "label_smoothing": 0.1, "class_weights": True, "oversample": True, "augment": "swap",
    },
    "of the weights": {
        "mixout": 0.5, "layerwise_lr_decay": 0.8, "reinit_layers": 1, "pretrained_decay": 0.1, "clip_per_tensor": True,
    },
    "of the steps": {"freeze_steps": 3, "max_grad_value": 0.01, "averaging": "ema", "ema_decay": 0.9},
    "of the end": {"unfreeze_every": 2, "max_grad_norm": None, "averaging": "last", "average_last": 2},
    "stopped early by SGD": SINGLE["stopped early"] | SINGLE["momentum"],
    "best kept, top layer by LAMB": SINGLE["best kept"] | SINGLE["top layer"] | {"optimizer": "lamb"},
    "LoRA, accumulated": SINGLE["LoRA"] | SINGLE["accumulated"],
    "prefix by Adafactor": SINGLE["prefix"] | SINGLE["Adafactor"],
    "prompt by length": SINGLE["prompt"] | SINGLE["by length"],
    "adapter with mixup": SINGLE["adapter"] | SINGLE["mixup"],
    "IA³": SINGLE["IA³"],
    "BitFit": SINGLE["BitFit"],
    "head": SINGLE["head"],
}  # fmt: skip
RECIPES = SINGLE if DEVICE == "cuda" else TOGETHER
BY_LAYER = {
    "layerwise_lr_decay",
    "reinit_layers",
    "unfreeze_every",
    "top_layers",
}  # others meet nothing new in a second


@pytest.fixture(scope="module")
def shallow(build: Callable[..., Path]) -> ModelSpec:
    """A BERT of one layer."""
    return ModelSpec(name="shallow-bert", folder=str(build("bert", num_hidden_layers=1)))


def test_every_setting_is_tried() -> None:
    tried = [set(recipe.items()) for recipe in TOGETHER.values()]
    for name, single in SINGLE.items():
        assert any(set(single.items()) - {("lr", 1e-2)} <= recipe for recipe in tried), name


@pytest.mark.parametrize("changes", list(RECIPES.values()), ids=list(RECIPES))
def test_a_recipe_gives_what_it_gives_on_the_cpu(
    trial: Make, shallow: ModelSpec, changes: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dropout, "from_counter", lambda device: True)  # so that both drop the same numbers
    if DEVICE != "cuda" and not BY_LAYER & set(changes):
        changes = {"model": shallow} | changes
    pack = [trial(seed, **{"epochs": 1, "batch_size": 16} | changes) for seed in (1, 2)]  # four steps
    there = loop.train(pack, device=DEVICE)
    # On a real one mixout and NEFTune draw there, and Adafactor makes whole steps of gradients that are 0 but for
    # rounding.
    if DEVICE != "cuda" or not ({"mixout", "neftune_alpha"} & set(changes) or changes.get("optimizer") == "adafactor"):
        with on_cpu():
            close(there, loop.train(pack))


@pytest.mark.skipif(DEVICE == "cuda", reason="a real device refuses by itself")
def test_the_device_refuses_what_lies_on_the_cpu() -> None:
    there = torch.ones(3, device=DEVICE)
    assert (there + 1).cpu().tolist() == [2, 2, 2]
    assert (there + torch.tensor(2.0)).cpu().tolist() == [3, 3, 3]
    assert there[torch.tensor([0, 2])].shape == (2,)
    view = there[1:]
    view.mul_(5)
    assert there.cpu().tolist() == [1, 5, 5]
    for wrong in (
        lambda: there + torch.ones(3),
        lambda: torch.ones(3)[there.long()],
        lambda: torch.stack([there, torch.ones(3)]),
    ):
        with pytest.raises(RuntimeError, match="same device"):
            wrong()


@pytest.mark.parametrize(
    "kind", ["roberta", "albert", "electra", "distilbert", "deberta", "deberta-v2", "gpt2", "llama"]
)
def test_every_family_trains(trial: Make, build: Callable[..., Path], kind: str) -> None:
    changes = {"num_key_value_heads": 1} if kind == "llama" else {}
    model = ModelSpec(name=f"tiny-{kind}", folder=str(build(kind, **changes)))
    pack = [trial(seed, model=model, epochs=1, max_steps=2, batch_size=16, dropout=0.0) for seed in (1, 2)]
    there = loop.train(pack, device=DEVICE)
    with on_cpu():
        close(there, loop.train(pack))


@pytest.mark.parametrize("padding", ["dataset", "batch"])
def test_other_kinds_of_task_train(trial: Make, tagged: TaskSpec, numbers: TaskSpec, padding: str) -> None:
    for task in (tagged, numbers):
        changes = {"epochs": 1, "max_steps": 2, "dropout": 0.0, "padding": padding, "gradient_accumulation": 2}
        pack = [trial(seed, task=task, **changes) for seed in (1, 2)]
        there = loop.train(pack, device=DEVICE)
        with on_cpu():
            close(there, loop.train(pack))


@pytest.mark.skipif(DEVICE == "cuda", reason="a real device does not count")
def test_between_evaluations_the_host_reads_nothing(trial: Make, apart: object) -> None:
    """Else it waits for the device at each step, and neither has work while the other does its own."""
    run = begin([trial(1, epochs=2), trial(2, epochs=2)], DEVICE)
    update(run, 0)
    before = apart.reads
    for step in range(1, 7):
        update(run, step)
    assert apart.reads == before


def test_a_run_goes_on_from_its_checkpoint(trial: Make, tmp_path: Path) -> None:
    pack = [trial(seed, averaging="ema", mixout=0.2 + seed / 10, keep_best=True, max_steps=10) for seed in (1, 2)]
    whole = loop.train(pack, device=DEVICE)
    with pytest.raises(CutError):
        loop.train(
            pack,
            device=DEVICE,
            callbacks=[cut(9)],
            checkpoint=Checkpoints(tmp_path, 0).of(pack, HERE),
        )
    assert same(loop.train(pack, device=DEVICE, checkpoint=Checkpoints(tmp_path, 0).of(pack, HERE)), whole)


def test_a_lane_of_a_pack_depends_on_no_other(trial: Make) -> None:
    """At one size of pack, on a device: neither on what the others are nor on its place."""
    changes: list[dict[str, object]] = [{}, {"lr": 1e-2, "dropout": 0.5}, {"bias_correction": False}]
    one, other, third = (trial(seed, epochs=1, max_steps=4, **change) for seed, change in enumerate(changes))
    found = loop.train([one, other], device=DEVICE)[0]
    assert same([found], [loop.train([third, one], device=DEVICE)[1]])


def test_what_is_measured_beside_training(trial: Make) -> None:
    pack = [trial(1, dropout=0.0), trial(2, dropout=0.0)]
    told: list[np.ndarray] = []
    results = loop.train(pack, device=DEVICE, callbacks=[ReportSignals(told.append)])
    weights = [one.weights for one in results]
    _, losses = probes.lr_range(pack, 1e-5, 1e-1, device=DEVICE, threads=1)
    surface, norms = probes.losses_at(pack[0], weights, 20, lanes=len(weights), device=DEVICE, threads=1)
    assert probes.seconds_per_lane_step(pack[0], 2, DEVICE, 1)[1] == 8
    here: list[np.ndarray] = []
    with on_cpu():
        loop.train(pack, callbacks=[ReportSignals(here.append)])
        _, losses_here = probes.lr_range(pack, 1e-5, 1e-1, device="cpu", threads=1)
        surface_here, norms_here = probes.losses_at(pack[0], weights, 20, lanes=len(weights), device="cpu", threads=1)
    np.testing.assert_allclose(told[-1], here[-1], rtol=1e-2, atol=1e-4)
    np.testing.assert_allclose(losses, losses_here, rtol=1e-3)
    np.testing.assert_allclose(surface, surface_here, rtol=1e-3)
    np.testing.assert_allclose(norms, norms_here, rtol=1e-3)


@pytest.mark.parametrize("changes", [{}, {"method": "lora"}], ids=["full", "LoRA"])
def test_a_kept_model_answers(
    trial: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object]
) -> None:
    bare = inspect.unwrap(Served._answer)  # a tensor that holds another can't be one of inference mode
    monkeypatch.setattr(Served, "_answer", torch.no_grad()(bare))
    one = trial(1, lr=1e-2, **changes)
    with on_cpu():
        store = trained(sweep_of(one), tmp_path / "kept")
    lines = [Line(number, text, None, None) for number, text in enumerate(tasks.load(one.recipe.task).validation.texts)]
    found = Served(saved.place(store, one.id), DEVICE).logits(lines, batch_size=7)
    np.testing.assert_allclose(found, logits(store, one), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("objective", ["masked", "causal"])
def test_pretraining(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: str) -> None:
    small = {"layers": 2, "hidden": 16, "heads": 2, "max_length": 24, "batch_size": 8, "warmup_steps": 5}
    settings = Settings(**small, objective=objective, steps=6, pairs=100)
    with on_cpu():
        here = pretrain.pretrain(tmp_path / "here", settings)
    monkeypatch.setattr(pretrain, "_device", lambda: DEVICE)
    there = pretrain.pretrain(tmp_path / "there", settings)
    np.testing.assert_allclose(there.losses, here.losses, rtol=1e-3)


def test_played_back_a_run_is_the_same(trial: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is recorded of a device that is not there has all tensors as constants, which must not be played."""
    monkeypatch.setattr(replayer, "RECORDING_PAYS", 1)
    pack = [trial(seed, epochs=1, max_steps=4, dropout=0.1 * seed) for seed in (1, 2)]
    played = loop.train(pack, device=DEVICE)
    recipe = pack[0].recipe
    recordings = load_network(recipe, load_task(recipe.task, recipe.model, recipe.max_length)).recordings
    assert recordings
    assert all((one is not None) == (DEVICE == "cuda") for one in recordings.values())
    pretrained._networks.cache_clear()
    monkeypatch.setattr(replayer, "RECORDING_PAYS", 10**9)
    before = [replace(one, measured=one.measured.model_copy(update=AS_IT_IS)) for one in played]
    again = loop.train(pack, device=DEVICE)
    assert same(before, [replace(one, measured=one.measured.model_copy(update=AS_IT_IS)) for one in again])


@pytest.mark.skipif(DEVICE != "cuda", reason="needs a GPU")
@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
def test_a_gpu_gives_the_same_bits_again(trial: Make, precision: str) -> None:
    pack = [trial(seed, precision=precision) for seed in (1, 2, 3)]
    once = loop.train(pack, device=DEVICE)
    assert same(once, loop.train(pack, device=DEVICE))
    assert all(one.measured.peak_memory_bytes for one in once)
