"""NEFTune: the size of its noise, the words that it moves in every family; for training alone."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from training_runs import begin, loss_of, remedy

from harness.config.recipe import ModelSpec
from harness.config.trials import Trial
from harness.training.batches import Batch
from harness.training.forward import word_embedding
from harness.training.remedies.neftune import Neftune

Make = Callable[..., Trial]
Fields = dict[str, object]


def test_noise_is_uniform_up_to_its_bound_and_spares_padding(trial: Make) -> None:
    """±α/√(l·D): variance a third of its square, and so a norm of about α/√3 for a text of any length."""
    run = begin([trial(seed, neftune_alpha=alpha) for seed, alpha in ((1, 5.0), (1, 10.0), (2, 5.0))])
    recipes, noise = run.pack.recipes, remedy(run, Neftune)
    noise.size = 64
    lengths = torch.tensor([[4, 25, 100]] * 3)
    drawn = noise.draw([0, 1, 2], lengths, 100)
    assert drawn.shape == (3, 3, 100, 64)
    for own, recipe in zip(drawn, recipes, strict=True):
        for of_text, length in zip(own, (4, 25, 100), strict=True):
            count, bound = length * 64, recipe.neftune_alpha / math.sqrt(length * 64)
            real = of_text[:length].double()
            assert 0.98 * bound < real.abs().max().item() <= bound * (1 + 1e-6)
            assert real.mean().item() == pytest.approx(0, abs=4 * bound / math.sqrt(3 * count))
            assert real.var().item() == pytest.approx(bound**2 / 3, rel=4 * math.sqrt(0.8 / count))
            assert real.norm().item() == pytest.approx(recipe.neftune_alpha / math.sqrt(3), rel=0.15)
            assert not of_text[length:].any()
    assert torch.equal(2 * drawn[0], drawn[1])  # the same stream, twice as loud
    assert not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(noise.draw([0], lengths[:1], 100)[0], drawn[0])  # the next step draws anew


@pytest.mark.parametrize(
    "kind", ["roberta", "albert", "electra", "distilbert", "deberta", "deberta-v2", "gpt2", "prompt"]
)
def test_noise_moves_the_words_that_every_family_reads(
    trial: Make, build: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A noise that is another word less the own one is the other word."""
    sizes: Fields = {"n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2} if kind == "gpt2" else {}
    sizes |= {"initializer_range": 0.3}  # a fresh model hardly looks at the words
    model = ModelSpec(name=f"n-{kind}", folder=str(build("bert" if kind == "prompt" else kind, **sizes)))
    method = {"method": "prompt", "virtual_tokens": 3} if kind == "prompt" else {}
    plain_run, run = (begin([trial(1, model=model, dropout=0.0, neftune_alpha=a, **method)]) for a in (0.0, 1.0))
    embedding = word_embedding(run.lanes.module)
    name = next(name for name, value in run.lanes.module.named_parameters() if value is embedding.weight)
    weights = run.lanes.views[name][0] if name in run.lanes.views else embedding.weight
    batch = Batch(torch.arange(8)[None], [0], 0)
    words = run.training.inputs(batch.rows, run.training.width)["input_ids"]
    other = words.clone()
    other[..., run.lanes.network.virtual + 1] = 11
    noise = (weights[other] - weights[words]).detach()
    monkeypatch.setattr(Neftune, "step_inputs", lambda self, reading: {"noise": noise})
    found = [loss_of(plain_run, batch), loss_of(run, batch)]
    plain_run.training.input_ids[:, 1] = 11
    found.append(loss_of(plain_run, batch))
    assert found[1] == pytest.approx(found[2], rel=1e-5)
    assert found[1] != pytest.approx(found[0], rel=1e-5)


def test_noise_and_second_passes_are_for_training_alone(trial: Make) -> None:
    plain_run, run = (begin([trial(1, **fields)]) for fields in ({}, {"neftune_alpha": 9.0, "r_drop": 1.0}))
    before = remedy(run, Neftune).streams[0].get_state()
    answers = [one.evaluator(one.lanes.weights, one.validation, 0)[0] for one in (plain_run, run, run)]
    np.testing.assert_array_equal(answers[1], answers[0])
    np.testing.assert_array_equal(answers[2], answers[0])
    assert torch.equal(remedy(run, Neftune).streams[0].get_state(), before)
