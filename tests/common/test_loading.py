"""Only the head is new: what else a checkpoint lacks is refused, and what it has beyond the network is told."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.common.errors import HarnessError
from harness.config.recipe import ModelSpec
from harness.models import pretrained
from harness.training.numerics import stream

Weights = dict[str, Tensor]


@pytest.fixture
def changed(build: Callable[..., Path], tmp_path: Path) -> Callable[..., ModelSpec]:
    """A folder with a BERT of masked language modelling, or another class, whose weights were changed."""

    def make(change: Callable[[Weights], Weights], auto: str = "BertForMaskedLM") -> ModelSpec:
        folder = tmp_path / "changed"
        shutil.copytree(build("bert"), folder)
        config = transformers.AutoConfig.from_pretrained(folder)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            getattr(transformers, auto)(config).save_pretrained(folder)
        path = folder / "model.safetensors"
        weights = {name: value.contiguous() for name, value in change(load_file(path)).items()}
        save_file(weights, path, {"format": "pt"})
        return ModelSpec(name="changed", folder=str(folder))

    return make


def prefixed(prefix: str) -> Callable[[Weights], Weights]:
    return lambda weights: {f"{prefix}{name}": value for name, value in weights.items()}


@pytest.mark.parametrize("prefix", ["module.", "model.", "a.b."])
def test_a_prefix_before_every_key_is_named(prefix: str, changed: Callable[..., ModelSpec]) -> None:
    with pytest.raises(HarnessError) as caught:
        pretrained.network(changed(prefixed(prefix)), 2)
    assert "the checkpoint of 'changed' is incomplete: 37 tensors missing of 41" in str(caught.value)
    assert "bert.embeddings.LayerNorm.bias" in str(caught.value)
    assert f"Strip the prefix '{prefix}' from its keys" in str(caught.value)


def test_a_layer_that_the_checkpoint_lacks_is_refused(changed: Callable[..., ModelSpec]) -> None:
    spec = changed(lambda weights: {name: value for name, value in weights.items() if ".layer.1." not in name})
    with pytest.raises(HarnessError) as caught:
        pretrained.network(spec, 2)
    assert "16 tensors missing of 41: bert.encoder.layer.1.attention.output.LayerNorm.bias, " in str(caught.value)
    assert str(caught.value).endswith("Use a complete checkpoint.")


def test_weights_of_another_shape_than_the_configuration_says_are_refused(changed: Callable[..., ModelSpec]) -> None:
    """transformers would draw the embeddings anew, without a word."""
    spec = changed(lambda weights: weights | {name: weights[name][:-4] for name in weights if "word_emb" in name})
    with pytest.raises(HarnessError, match=r"word_embeddings.weight has the shape \[16, 16\], not \[20, 16\]"):
        pretrained.network(spec, 2)


def test_a_pooler_that_the_checkpoint_lacks_is_part_of_the_head(changed: Callable[..., ModelSpec]) -> None:
    network = pretrained.network(changed(dict), 2)
    assert network.head == (
        "bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias",
    )  # fmt: skip
    assert network.notes == ()  # a head of masked language modelling is usual


def test_layers_that_the_network_has_no_place_for_are_told(changed: Callable[..., ModelSpec]) -> None:
    def deeper(weights: Weights) -> Weights:
        top = {name: value for name, value in weights.items() if ".layer.1." in name}
        return weights | {name.replace(".1.", ".2."): value.clone() for name, value in top.items()}

    (note,) = pretrained.network(changed(deeper, "BertModel"), 2).notes
    assert note.startswith("The checkpoint of 'changed' has 16 tensors that its network has no place for: encoder.lay")


MODERN = {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}


def test_what_stands_before_the_outputs_is_kept_where_the_checkpoint_has_it(
    build: Callable[..., Path], tmp_path: Path
) -> None:
    """A ModernBERT of masked language modelling has `head.dense` and `head.norm`, which its classifier reads."""
    bare = build("modernbert", **MODERN)
    outputs = ("classifier.weight", "classifier.bias")
    before = ("head.dense.weight", "head.norm.weight")
    assert pretrained.network(ModelSpec(name="bare", folder=str(bare)), 2).head == (*before, *outputs)
    folder = tmp_path / "whole"
    shutil.copytree(bare, folder)
    config = transformers.AutoConfig.from_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        language = transformers.ModernBertForMaskedLM(config)
    language.save_pretrained(folder)
    network = pretrained.network(ModelSpec(name="whole", folder=str(folder)), 2)
    assert network.head == outputs
    drawn = network.initialised(stream("init", 1))
    assert torch.equal(drawn["head.dense.weight"], language.head.dense.weight)


@pytest.mark.parametrize("labels", [2, 5])
@pytest.mark.parametrize(("kind", "outputs"), [("roberta", "classifier.out_proj"), ("distilbert", "classifier")])
def test_of_a_tuned_classifier_the_outputs_alone_are_drawn(
    labels: int, kind: str, outputs: str, build: Callable[..., Path], tmp_path: Path
) -> None:
    """Whether or not it has as many as the task: they are the task's."""
    folder = build(kind)
    with torch.random.fork_rng(devices=[]):
        tuned = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=labels)
    tuned.save_pretrained(tmp_path)
    network = pretrained.network(ModelSpec(name="tuned", folder=str(tmp_path)), 2)
    assert network.head == (f"{outputs}.weight", f"{outputs}.bias")


def test_a_model_that_is_asked_is_whole(changed: Callable[..., ModelSpec]) -> None:
    """Its classifier would be random."""
    spec = changed(dict)
    with pytest.raises(HarnessError, match="'changed' is incomplete: 4 tensors missing of 41: bert"):
        pretrained.kept(Path(str(spec.folder)))


def test_pretraining_goes_on_from_a_whole_encoder(changed: Callable[..., ModelSpec]) -> None:
    from harness.pretraining import networks

    folder = str(changed(prefixed("module.")).folder)
    with pytest.raises(HarnessError, match=r"Strip the prefix 'module\.'"):
        networks.load(folder, causal=False, pairs=False, seed=1)
