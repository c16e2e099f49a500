"""Activation checkpointing: the bits of training without it, and less kept between the passes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from language_models import PLAIN, completion_task, rows, trial_of, write_decoder
from torch import fx
from training_runs import begin

from harness.common.errors import HarnessError
from harness.config.recipe import ModelSpec, TaskSpec
from harness.execution import lanes_memory
from harness.training import compiled, recomputed, replayer
from harness.training.loop import train, update
from harness.training.run import TrainingRun

SHAPES = {"gpt2": {}, "llama": {}, "qwen3": PLAIN, "gemma": {}}


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ModelSpec]:
    made: dict[str, ModelSpec] = {}

    def of(kind: str) -> ModelSpec:
        if kind not in made:
            made[kind] = write_decoder(tmp_path_factory.mktemp(kind), kind, **SHAPES[kind])
        return made[kind]

    return of


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> TaskSpec:
    return completion_task(tmp_path_factory.mktemp("data") / "answers", rows(24, 1), rows(10, 2))


def both(task: TaskSpec, model: ModelSpec, seed: int, **fields: Any) -> list[Any]:
    return [trial_of(task, model, seed, dropout=0.0, activation_checkpointing=on, **fields) for on in (False, True)]


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("gpt2", {}),
        ("llama", {"method": "lora", "lora_rank": 2}),
        ("qwen3", {"method": "lora", "lora_rank": 2, "lora_targets": "q_proj,down_proj"}),
        ("gemma", {"method": "ia3"}),
        ("gpt2", {"method": "prefix", "virtual_tokens": 3}),
        ("gpt2", {"padding": "batch", "gradient_accumulation": 2}),
        ("llama", {"padding_side": "left", "padding": "batch"}),
        ("gpt2", {"precision": "bf16"}),
        ("llama", {"neftune_alpha": 5.0}),
    ],
)
def test_the_bits_are_those_without_it_alone_and_in_a_pack(
    decoder: Callable[[str], ModelSpec], answers: TaskSpec, kind: str, fields: dict[str, Any]
) -> None:
    pairs = [both(answers, decoder(kind), seed, lr=lr, **fields) for seed, lr in ((1, 1e-2), (2, 3e-2))]
    plain, saving = (train([pair[place] for pair in pairs]) for place in (0, 1))
    (alone,) = train([pairs[1][1]])
    for one, other in (*zip(plain, saving, strict=True), (plain[1], alone)):
        assert one.measured.weights_sha256 == other.measured.weights_sha256
        np.testing.assert_array_equal(one.curves.train_loss, other.curves.train_loss)
        np.testing.assert_array_equal(one.curves.logits, other.curves.logits)
        np.testing.assert_array_equal(one.curves.grad_norm, other.curves.grad_norm)


def test_a_recorded_step_has_the_bits_too(
    decoder: Callable[[str], ModelSpec], answers: TaskSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replayer, "RECORDING_PAYS", 1)
    plain, saving = (train([trial])[0] for trial in both(answers, decoder("llama"), 1, method="lora", lora_rank=2))
    assert plain.measured.step_mode == saving.measured.step_mode == "recording"
    assert plain.measured.weights_sha256 == saving.measured.weights_sha256


def peak_bytes(run: TrainingRun) -> int:
    """The most that an update allocates beyond what there was before it, as torch's profiler sees it."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        update(run, 1)
    assert profiler.profiler is not None
    results: Any = profiler.profiler.kineto_results
    changes = [event.nbytes() for event in results.events() if event.name() == "[memory]"]
    return int(np.cumsum(changes).max())


def test_less_is_kept_between_the_passes(answers: TaskSpec, tmp_path: Path) -> None:
    """Of eight layers, of which one is computed again at a time."""
    model = write_decoder(tmp_path, "llama", num_hidden_layers=8)
    trials = both(answers, model, 1, method="lora", lora_rank=2, batch_size=12)
    runs = [begin([trial, trial], replay=False, record=False) for trial in trials]
    for run in runs:
        update(run, 0)  # what the first one allocates stays
    kept = [peak_bytes(run) for run in runs]
    assert kept[1] < 0.5 * kept[0]
    assert "forward" not in vars(recomputed.layers(runs[1].lanes.module)[0])
    off, on = (lanes_memory.lane_bytes(trial.recipe, 1000) for trial in both(answers, model, 1))
    assert off is not None
    assert on is not None
    assert on < off


def test_a_model_without_a_list_of_layers_is_refused() -> None:
    module = torch.nn.Linear(2, 2)
    module.config = type("Config", (), {"num_hidden_layers": 3, "model_type": "odd"})()  # type: ignore[assignment]
    with pytest.raises(HarnessError, match="activation_checkpointing does not support models of the type 'odd'"):
        recomputed.layers(module)


def test_a_compiled_step_computes_the_layers_again_too(
    decoder: Callable[[str], ModelSpec], answers: TaskSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the recording that is compiled: it has the products of the layers once more, and the same results.

    Though the step without checkpointing was compiled before in this process.
    """
    products = []

    def made(graph: fx.GraphModule) -> fx.GraphModule:
        products.append(sum("mm" in str(node.target) for node in graph.graph.nodes))
        return graph

    monkeypatch.setattr(compiled, "_compile", made)
    monkeypatch.setattr(compiled, "compiler", lambda device: "a stand-in")
    plain, saving = (train([trial], compiled=True)[0] for trial in both(answers, decoder("gpt2"), 1))
    assert (plain.measured.step_mode, saving.measured.step_mode) == ("compiled", "compiled")
    assert plain.measured.weights_sha256 == saving.measured.weights_sha256
    assert products[1] > products[0]
