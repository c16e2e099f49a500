"""What is a normalisation's scale is told alike of every family, whatever its class is called."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from torch import nn
from training_runs import begin

from harness.config.recipe import Method, ModelSpec
from harness.config.trials import Trial
from harness.models import methods, normalisation, pretrained
from harness.training.parts import slots as slots_of

SIZES = {
    "vocab_size": 24, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
    "intermediate_size": 32, "max_position_embeddings": 32, "pad_token_id": 0, "head_dim": 8,
}  # fmt: skip
# Family -> what it is built with beside or instead of SIZES, and the value at which its scales change nothing.
FAMILIES: dict[str, tuple[dict[str, object], float]] = {
    "bert": ({}, 1.0),
    "roberta": ({}, 1.0),
    "albert": ({"embedding_size": 8}, 1.0),
    "electra": ({"embedding_size": 8}, 1.0),
    "distilbert": ({"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}, 1.0),
    "deberta": ({}, 1.0),
    "deberta-v2": ({}, 1.0),
    "mobilebert": ({"embedding_size": 16, "true_hidden_size": 16, "intra_bottleneck_size": 16}, 1.0),
    "ibert": ({}, 1.0),
    "modernbert": ({"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}, 1.0),
    "eurobert": ({}, 1.0),
    "xlnet": ({"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 32}, 1.0),
    "mpnet": ({}, 1.0),
    "squeezebert": ({"embedding_size": 16}, 1.0),
    "fnet": ({"tpu_short_seq_length": 32}, 1.0),
    "nystromformer": ({"num_landmarks": 4}, 1.0),
    "yoso": ({}, 1.0),
    "esm": ({"mask_token_id": 4}, 1.0),
    "xlm": ({"emb_dim": 16, "n_layers": 2, "n_heads": 2}, 1.0),
    "bart": ({"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
              "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}, 1.0),
    "t5": ({"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}, 1.0),
    "gpt2": ({"n_embd": 16, "n_layer": 2, "n_head": 2}, 1.0),
    "opt": ({"word_embed_proj_dim": 16, "ffn_dim": 32}, 1.0),
    "llama": ({}, 1.0),
    "qwen2": ({}, 1.0),
    "qwen3": ({}, 1.0),
    "mistral": ({}, 1.0),
    "phi": ({}, 1.0),
    "gemma": ({}, 0.0),
    "gemma2": ({}, 0.0),
}  # fmt: skip
# These have no such setting.
UNSET = {"xlnet": ("max_position_embeddings",)}


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_scales_are_what_the_family_itself_begins_with(kind: str) -> None:
    """Untrained, they alone have one axis, are no bias, and hold the value with which they change nothing."""
    changes, neutral = FAMILIES[kind]
    sizes = {name: value for name, value in SIZES.items() if name not in UNSET.get(kind, ())}
    with torch.random.fork_rng(devices=[]):
        model = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(kind, **(sizes | changes)))
    scales = normalisation.scales(model)
    expected = {
        name
        for name, value in model.named_parameters()
        if value.dim() == 1 and "bias" not in name and bool((value == neutral).all())
    }
    assert scales == dict.fromkeys(expected, neutral)
    assert len(scales) >= 3


def test_neither_a_slope_nor_a_matrix_is_a_scale() -> None:
    module = nn.Sequential(nn.PReLU(4), nn.Linear(4, 1), nn.Embedding(3, 1), nn.GroupNorm(2, 4), nn.BatchNorm1d(4))
    assert normalisation.scales(module) == {"3.weight": 1.0, "4.weight": 1.0}


@pytest.mark.parametrize(("kind", "changes"), [
    ("deberta", {}),
    ("mobilebert", {"embedding_size": 16, "true_hidden_size": 16, "intra_bottleneck_size": 16}),
])  # fmt: skip
def test_a_familys_own_classes_are_neither_decayed_nor_drawn_as_nothing(
    kind: str, changes: dict[str, object], build: Callable[..., Path], trial: Callable[..., Trial]
) -> None:
    """Both have normalisations of their own classes, whose scales were set to 0 and decayed."""
    spec = ModelSpec(name=kind, folder=str(build(kind, **changes)))
    run = begin([trial(1, model=spec, reinit_layers=1)], record=False)
    decayed = dict(zip(run.lanes.views, torch.split(run.lanes.decayed(), list(run.lanes.parts.sizes)), strict=True))
    scales = normalisation.scales(run.lanes.module)
    slots = slots_of(list(run.lanes.views), run.lanes.network.head)
    drawn = [name for name in scales if slots[name] == 2]
    assert drawn
    for name in drawn:
        assert bool((run.lanes.views[name] == 1).all())
    for name in scales:
        assert not decayed[name].any()
    assert decayed[next(name for name in run.lanes.views if name.endswith("query.weight") or "in_proj" in name)].all()


def test_a_scale_to_which_1_is_added_is_drawn_as_0() -> None:
    class GemmaRMSNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.full((4,), 0.3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * (1 + self.weight)

    assert normalisation.scales(GemmaRMSNorm()) == {"weight": 0.0}


def test_adapters_train_the_same_scales(build: Callable[..., Path]) -> None:
    network = pretrained.network(ModelSpec(name="v2", folder=str(build("deberta-v2"))), 2, Method("adapter"))
    own = {name for name in normalisation.scales(network.module) if name.startswith("deberta.")}
    assert own <= set(network.pretrained)
    assert methods.is_scale("layer.ia3_l.default")
