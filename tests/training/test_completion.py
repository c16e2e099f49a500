"""Training causal language models on completions: the loss, the lanes, the scores and what counts as failed."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from language_models import PLAIN, completion_task, plain_batch, rows, trial_of, write_decoder
from training_runs import begin

from harness.common.errors import HarnessError
from harness.config.recipe import ModelSpec, TaskSpec
from harness.models import logits_check, pretrained
from harness.training.loop import train, update
from harness.training.prepare import load_network, load_task

KINDS = {"gpt2": {}, "llama": {}, "qwen2": PLAIN, "qwen3": PLAIN, "mistral": {}, "gemma": {}, "smollm3": {}}
METHODS = {
    "full": {}, "lora": {"lora_rank": 2}, "ia3": {}, "prefix": {"virtual_tokens": 3}, "prompt": {"virtual_tokens": 3},
    "adapter": {"adapter_size": 4}, "bitfit": {}, "top_layers": {"top_layers": 1},
}  # fmt: skip


Decoders = Callable[[str], ModelSpec]


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ModelSpec]:
    made: dict[str, ModelSpec] = {}

    def of(kind: str) -> ModelSpec:
        if kind not in made:
            made[kind] = write_decoder(tmp_path_factory.mktemp(kind), kind, **KINDS[kind])
        return made[kind]

    return of


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> TaskSpec:
    return completion_task(tmp_path_factory.mktemp("data") / "answers", rows(24, 1), rows(10, 2))


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> TaskSpec:
    folder = tmp_path_factory.mktemp("data") / "colours"
    return completion_task(folder, rows(24, 1, choices=True), rows(10, 2, choices=True), metric="accuracy")


def causal(model: ModelSpec) -> torch.nn.Module:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model.folder, dtype=torch.float32, attn_implementation="eager").eval()


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_of_a_batch_is_transformers_own(decoder: Decoders, answers: TaskSpec, kind: str, side: str) -> None:
    """On answers of different lengths, so that a mean over tokens differs from one over examples."""
    trial = trial_of(answers, decoder(kind), dropout=0.0, padding_side=side)
    run = begin([trial], replay=False)
    update(run, 0)
    given = plain_batch(trial, run.batches.order[0, :4].tolist())
    with torch.no_grad():
        expected = causal(trial.recipe.model)(**given).loss
    assert float(run.log.losses[0][0]) == pytest.approx(float(expected), rel=1e-5)


def test_the_loss_by_hand_and_on_all_tokens(decoder: Decoders, answers: TaskSpec) -> None:
    """The mean of -log p(next token) over the answers' tokens; with `loss_on: all` over every token but the first."""
    for task, whole in ((answers, False), (answers.model_copy(update={"loss_on": "all"}), True)):
        trial = trial_of(task, decoder("gpt2"), dropout=0.0)
        run = begin([trial], replay=False)
        update(run, 0)
        given = plain_batch(trial, run.batches.order[0, :4].tolist(), whole)
        model = causal(trial.recipe.model)
        with torch.no_grad():
            chances = F.log_softmax(
                model(input_ids=given["input_ids"], attention_mask=given["attention_mask"]).logits, -1
            )
        terms = [
            -float(chances[row, place - 1, token])
            for row, tokens in enumerate(given["labels"].tolist())
            for place, token in enumerate(tokens)
            if token != -100 and place > 0
        ]
        assert float(run.log.losses[0][0]) == pytest.approx(sum(terms) / len(terms), rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "method", "fields"),
    [
        *(("gpt2", method, {}) for method in METHODS),
        *(("llama", method, {}) for method in METHODS if method != "bitfit"),
        *((kind, "lora", {}) for kind in ("qwen2", "qwen3", "mistral", "gemma", "smollm3")),
        ("gpt2", "full", {"padding": "batch", "gradient_accumulation": 2}),
        ("llama", "lora", {"padding_side": "left", "padding": "batch"}),
        ("gpt2", "full", {"r_drop": 1.0}),
        ("gpt2", "full", {"neftune_alpha": 5.0}),
        ("gpt2", "full", {"precision": "bf16"}),
    ],
)
def test_a_lane_is_bit_equal_alone_and_in_a_pack(
    decoder: Decoders, answers: TaskSpec, kind: str, method: str, fields
) -> None:
    given = METHODS[method] | {"method": method} | fields
    pack = [trial_of(answers, decoder(kind), seed, lr=lr, **given) for seed, lr in ((1, 1e-2), (2, 3e-2), (3, 1e-3))]
    together = train([*pack, pack[0]])
    for lane, trial in ((1, pack[1]), (0, pack[0])):
        (alone,) = train([trial])
        for result in (together[lane], *([together[3]] if lane == 0 else [])):
            assert result.measured.weights_sha256 == alone.measured.weights_sha256
            np.testing.assert_array_equal(result.curves.logits, alone.curves.logits)
            np.testing.assert_array_equal(result.curves.train_loss, alone.curves.train_loss)
    assert len({result.measured.weights_sha256 for result in together[:3]}) == 3


def test_scores_are_those_of_transformers_likelihoods(decoder: Decoders, answers: TaskSpec) -> None:
    """Loss, perplexity and exact match of the dev set from the trained weights in transformers' own module."""
    trial = trial_of(answers, decoder("gpt2"), lr=3e-2, epochs=6)
    (result,) = train([trial])
    measured, curves = result.measured, result.curves
    module = causal(trial.recipe.model)
    torch.nn.utils.vector_to_parameters(torch.from_numpy(result.weights.copy()), module.parameters())
    task = load_task(answers, trial.recipe.model, 32).validation
    likelihood, tokens, right = 0.0, 0, 0
    for row in range(10):
        ids = torch.from_numpy(task.input_ids[row, : task.lengths[row]])[None]
        count = int(task.answer_tokens[row])  # type: ignore[index]
        with torch.no_grad():
            chances = F.log_softmax(module(ids).logits[0, -count - 1 : -1], dim=-1)
        own = ids[0, -count:]
        likelihood += float(chances.gather(1, own[:, None]).sum())
        tokens += count
        right += bool((chances.argmax(-1) == own).all())
    assert measured.final_score == measured.final_dev_loss or measured.metric == "loss"
    assert measured.final_score == pytest.approx(-likelihood / tokens, rel=1e-4)
    assert (curves.logits[:, 1] == curves.labels).sum() == right
    assert measured.outcome == "ok"
    assert measured.final_score < measured.untouched_score == measured.majority_score  # type: ignore[operator]
    assert measured.untouched_loss == pytest.approx(measured.untouched_score)


@pytest.mark.parametrize(
    ("kind", "method", "lr"), [("gpt2", "full", 3e-2), ("llama", "lora", 0.1), ("gpt2", "prompt", 3e-2)]
)
def test_token_f1_is_of_greedy_answers_of_all_lanes(
    decoder: Decoders, answers: TaskSpec, kind: str, method: str, lr: float
) -> None:
    """A lane's answers are what they are alone; an exact match has an F1 of 1."""
    scored = answers.model_copy(update={"metric": "token_f1"})
    pack = [trial_of(scored, decoder(kind), seed, lr=lr, epochs=6, method=method, **METHODS[method]) for seed in (1, 2)]
    together = train(pack)
    for trial, result in zip(pack, together, strict=True):
        (alone,) = train([trial])
        np.testing.assert_array_equal(result.curves.logits, alone.curves.logits)
        f1, exact = result.curves.logits[:, 2], result.curves.logits[:, 1] == result.curves.labels
        assert result.measured.final_score == pytest.approx(f1.mean())
        assert (f1[exact] == 1).all()
        assert 0 < f1.mean() < 1
        assert result.measured.untouched_score is not None


def test_choices_are_compared_by_their_likelihoods(decoder: Decoders, colours: TaskSpec) -> None:
    trial = trial_of(colours, decoder("llama"), lr=3e-2, epochs=6, method="lora")
    (result,) = train([trial])
    assert result.curves.logits.shape == (10, 2)
    assert result.measured.dev_examples == 10
    assert result.measured.correct == (result.curves.logits.argmax(1) == result.curves.labels).sum()
    assert result.curves.labels.tolist() == [0, 1] * 5
    assert result.measured.label_entropy == pytest.approx(math.log(2) / 2)  # two answers of two tokens
    assert result.measured.outcome == "ok"
    assert result.measured.majority_correct is not None
    assert result.measured.majority_correct >= 5  # both are equally frequent
    network = load_network(trial.recipe, load_task(colours, trial.recipe.model, 32))
    assert set(network.pretrained) == {name for name in network.pretrained if "lora_" in name}


@pytest.mark.parametrize(("method", "lr"), [("full", 30.0), ("lora", 1e4)])
def test_a_run_that_gets_worse_than_the_untouched_model_failed(
    decoder: Decoders, answers: TaskSpec, method: str, lr: float
) -> None:
    """At a rate at which it breaks; what it has to beat is the same for every recipe of the model and data."""
    broken = trial_of(answers, decoder("gpt2"), lr=lr, warmup_ratio=0.0, method=method)
    fine = trial_of(answers, decoder("gpt2"), lr=1e-2, warmup_ratio=0.0, method=method)
    first, second = train([broken, fine])
    assert first.measured.outcome == "failed"
    assert second.measured.outcome == "ok"
    assert first.measured.untouched_score == second.measured.untouched_score
    assert first.measured.final_score is None or first.measured.final_score >= first.measured.untouched_score  # type: ignore[operator]


def test_training_again_gives_the_same_bits(decoder: Decoders, answers: TaskSpec) -> None:
    trial = trial_of(answers, decoder("llama"), method="lora")
    first, second = (train([trial])[0] for _ in range(2))
    assert first.measured.weights_sha256 == second.measured.weights_sha256
    np.testing.assert_array_equal(first.curves.logits, second.curves.logits)


def test_wrong_positions_with_padding_on_the_left_are_refused(decoder: Decoders) -> None:
    """As those of a model that counts from the first token of the padding would be."""

    class Counting(pretrained.Network):
        def inputs(self, *given: Any, **options: Any) -> dict[str, torch.Tensor]:
            return {name: value for name, value in super().inputs(*given, **options).items() if name != "position_ids"}

    network = pretrained.network(decoder("gpt2"), 0, kind="completion")
    assert network.reference is not None
    logits_check.check_left(network, network.reference)
    with pytest.raises(HarnessError, match="with padding on the left its logits differ"):
        logits_check.check_left(Counting(**vars(network)), network.reference)


def test_an_encoder_is_no_language_model(build: Callable[..., Path], answers: TaskSpec, tmp_path: Path) -> None:
    from transformers import AutoConfig, BertLMHeadModel

    folder = build("bert")
    BertLMHeadModel(AutoConfig.from_pretrained(folder)).save_pretrained(folder)
    with pytest.raises(HarnessError, match="depends on the tokens behind it, so it is no causal language model"):
        pretrained.network(ModelSpec(name="encoder", folder=str(folder)), 0, kind="completion")
    bare = build("llama", num_key_value_heads=2)  # without the outputs' weights
    with pytest.raises(HarnessError, match=r"incomplete: 1 tensor missing of \d+: lm_head.weight"):
        pretrained.network(ModelSpec(name="bare", folder=str(bare)), 0, kind="completion")
