"""Encoders of every family load, get a fresh head, and give under vmap what transformers gives."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.func import functional_call, vmap

from harness import models
from harness.sweep import HarnessError, ModelSpec
from harness.train import stream

KINDS = ("bert", "roberta", "albert", "electra", "distilbert", "deberta", "deberta-v2")


@pytest.mark.parametrize("kind", KINDS)
def test_every_family_gives_under_vmap_what_transformers_gives(kind: str, build: Callable[..., Path]) -> None:
    from transformers import AutoModelForSequenceClassification

    folder = build(kind)
    network = models.network(ModelSpec(name=f"tiny-{kind}", folder=str(folder)), 3)
    lanes = [network.initialised(stream("init", seed)) for seed in (1, 2)]
    stacked = {name: torch.stack([lane[name] for lane in lanes]) for name in lanes[0]}
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 20, (2, 4, 9), generator=draw)  # [L, B, T]
    lengths = torch.tensor([[9, 3, 5, 1], [2, 9, 9, 4]])
    ids[torch.arange(9) >= lengths[..., None]] = 0
    network.module.eval()
    inputs = network.inputs(ids, lengths, None)
    ours = vmap(lambda view, given: functional_call(network.module, view, args=(), kwargs=given).logits)(
        stacked, inputs
    )
    theirs = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3).eval()
    for lane in range(2):
        theirs.load_state_dict(theirs.state_dict() | lanes[lane])
        mask = (torch.arange(9) < lengths[lane][:, None]).long()
        with torch.no_grad():
            expected = theirs(input_ids=ids[lane], attention_mask=mask).logits
        torch.testing.assert_close(ours[lane], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_head_alone_is_fresh(kind: str, build: Callable[..., Path]) -> None:
    network = models.network(ModelSpec(name=f"tiny-{kind}", folder=str(build(kind))), 2)
    one, two = (network.initialised(stream("init", seed)) for seed in (1, 2))
    again = network.initialised(stream("init", 1))
    assert network.head
    for name, value in network.pretrained.items():
        assert torch.equal(one[name], again[name])
        if name not in network.head:
            assert torch.equal(one[name], value)
        elif name.endswith("weight") and value.dim() > 1:
            assert not torch.equal(one[name], two[name])
        elif name.endswith("bias"):
            assert not one[name].any()


def test_the_head_is_drawn_from_a_normal_of_two_hundredths(build: Callable[..., Path]) -> None:
    network = models.network(ModelSpec(name="wide", folder=str(build("bert", hidden_size=256))), 40)
    assert network.head == ("classifier.weight", "classifier.bias")  # the pooler keeps its pretrained weights
    drawn = network.initialised(stream("init", 3))["classifier.weight"]  # 10,240 numbers
    assert drawn.mean().item() == pytest.approx(0.0, abs=4 * 0.02 / 101)
    assert drawn.std().item() == pytest.approx(0.02, rel=4 / 143)


def test_loading_overrides_the_checkpoints_type_mode_and_head(build: Callable[..., Path], tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    tuned = AutoModelForSequenceClassification.from_pretrained(build("bert"), num_labels=5).to(torch.bfloat16)
    tuned.save_pretrained(tmp_path)
    network = models.network(ModelSpec(name="tuned", folder=str(tmp_path)), 2)
    assert {value.dtype for value in network.pretrained.values()} == {torch.float32}
    assert network.module.training
    assert network.head == ("classifier.weight", "classifier.bias")
    assert network.pretrained["classifier.weight"].shape == (2, 16)


def test_the_hash_follows_the_pretrained_weights_alone(build: Callable[..., Path], tmp_path: Path) -> None:
    from transformers import AutoModel

    folder = build("bert")
    first = models.network(ModelSpec(name="a", folder=str(folder)), 2).sha256
    assert models.network(ModelSpec(name="b", folder=str(folder)), 3).sha256 == first
    other = AutoModel.from_pretrained(folder)
    with torch.no_grad():
        other.embeddings.word_embeddings.weight[7, 3] += 1e-6
    other.save_pretrained(tmp_path)
    assert models.network(ModelSpec(name="c", folder=str(tmp_path)), 2).sha256 != first


def test_the_pad_token_in_a_real_place_gets_a_gradient_in_every_lane(build: Callable[..., Path]) -> None:
    """Under vmap `nn.Embedding(padding_idx=…)` is honoured for lane 0 alone, silently (DESIGN.md)."""
    network = models.network(ModelSpec(name="tiny-bert", folder=str(build("bert"))), 2)
    lane = network.initialised(stream("init", 1))
    stacked = {name: torch.stack([value] * 3).requires_grad_() for name, value in lane.items()}
    ids = torch.tensor([[[2, 0, 5, 0, 3]]] * 3)  # [L, 1, T], pad in real places
    inputs = network.inputs(ids, torch.full((3, 1), 5), None)
    network.module.eval()
    logits = vmap(lambda view, given: functional_call(network.module, view, args=(), kwargs=given).logits)(
        stacked, inputs
    )
    (gradient,) = torch.autograd.grad(logits[..., 0].sum(), [stacked["bert.embeddings.word_embeddings.weight"]])
    assert gradient[0, 0].abs().sum() > 0
    assert torch.equal(gradient[0], gradient[1])
    assert torch.equal(gradient[0], gradient[2])


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (ModelSpec(name="x", folder="/no/such/folder"), "without config.json"),
        (ModelSpec(name="no-such-org/no-such-model"), "model.folder=DIR"),
    ],
)
def test_a_model_that_is_not_there_is_one_line(spec: ModelSpec, words: str) -> None:
    for load in (models.tokenizer, lambda one: models.network(one, 2)):
        with pytest.raises(HarnessError) as caught:
            load(spec)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_folder_without_weights_is_one_line(build: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((build("bert") / "config.json").read_text())
    with pytest.raises(HarnessError, match="the weights of 'empty' can be loaded"):
        models.network(ModelSpec(name="empty", folder=str(tmp_path)), 2)
