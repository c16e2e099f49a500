"""What pretraining starts from: networks drawn from their generator alone, and models with what they already know."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, GPT2Config

from harness.common.errors import HarnessError
from harness.data.embedded.language import LONGEST_PAIR, VOCABULARY, pretraining_pairs
from harness.pretraining.networks import (
    build,
    build_bert,
    build_gpt2,
    build_tokenizer,
    config_of,
    embedded_config,
    encode,
    frame_of,
    load,
    spec_of,
    tokenizer_of,
)
from harness.pretraining.settings import Shape


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BERT with a pooler, for masked words, and its tokenizer."""
    folder, tokenizer = tmp_path_factory.mktemp("bert"), build_tokenizer()
    build(tokenizer, Shape(2, 16, 2), 24, generator(3), causal=False, pairs=False).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


# networks from scratch


def test_a_bert_has_its_shape_and_draws_from_its_generator_alone() -> None:
    before = torch.random.get_rng_state()
    one, two, other = (build_bert(embedded_config(), generator(seed)).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["bert.pooler.dense.weight"], other["bert.pooler.dense.weight"])
    assert one["bert.encoder.layer.11.intermediate.dense.weight"].shape == (256, 64)
    assert one["bert.encoder.layer.3.output.dense.weight"].std().item() == pytest.approx(0.02, rel=0.05)
    assert one["cls.predictions.decoder.weight"].data_ptr() == one["bert.embeddings.word_embeddings.weight"].data_ptr()


def test_a_bert_for_pairs_has_a_head_for_the_next_sentence() -> None:
    config = BertConfig(vocab_size=84, hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    network = build_bert(config, generator(0), next_sentence=True)
    assert network.cls.seq_relationship.weight.shape == (2, 64)
    assert network.bert.pooler.dense.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_a_gpt2_is_drawn_with_smaller_residual_weights() -> None:
    before = torch.random.get_rng_state()
    config = GPT2Config(vocab_size=84, n_positions=32, n_embd=64, n_layer=8, n_head=4)
    one, two = (build_gpt2(config, generator(0)).state_dict() for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert one["transformer.h.5.attn.c_attn.weight"].std().item() == pytest.approx(0.02, rel=0.05)
    assert one["transformer.h.5.mlp.c_proj.weight"].std().item() == pytest.approx(0.02 / 16**0.5, rel=0.05)
    assert not one["transformer.h.5.attn.c_attn.bias"].any()
    assert (one["transformer.ln_f.weight"] == 1).all()


def test_a_gpt2_knows_where_texts_end() -> None:
    network = build(build_tokenizer(), Shape(1, 16, 2), 24, generator(0), causal=True, pairs=False)
    config = network.config
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id, config.n_positions) == (2, 3, 0, 24)


# the embedded language


def test_pairs_are_encoded_with_padding_at_the_end() -> None:
    (row,) = encode(pretraining_pairs(1), build_tokenizer()).tolist()
    pair = pretraining_pairs(1)[0]
    words = ["[CLS]", *pair.premise.split(), "[SEP]", *pair.hypothesis.split(), "[SEP]"]
    assert [VOCABULARY[token] for token in row] == words + ["[PAD]"] * (LONGEST_PAIR - len(words))


# going on


def test_a_model_goes_on_with_all_its_weights_and_its_pooler(bert: Path) -> None:
    network, drawn = load(str(bert), causal=False, pairs=False, seed=0)
    assert drawn == ()
    stored = load_file(bert / "model.safetensors")
    values = dict(network.named_parameters())
    assert all(torch.equal(values[name], stored[name]) for name in values)
    assert "bert.pooler.dense.weight" in values
    assert {value.dtype for value in values.values()} == {torch.float32}


def test_a_head_that_is_missing_is_drawn_by_the_seed(bert: Path, tmp_path: Path) -> None:
    BertModel.from_pretrained(bert, add_pooling_layer=False).save_pretrained(tmp_path)
    before = torch.random.get_rng_state()
    (one, drawn), (again, _), (other, _) = (load(str(tmp_path), causal=False, pairs=False, seed=n) for n in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert "cls.predictions.transform.dense.weight" in drawn
    weights = [network.cls.predictions.transform.dense.weight for network in (one, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert one.bert.pooler is None  # none is made up


def test_names_and_folders_are_told_apart(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (spec_of("embedded").name, spec_of("embedded").folder) == ("embedded", None)
    assert (spec_of("org/name").name, spec_of("org/name").folder) == ("org/name", None)
    assert spec_of("./absent").folder == "./absent"
    monkeypatch.chdir(bert.parent)
    assert spec_of(bert.name).folder == bert.name
    assert tokenizer_of("embedded").mask_token == "[MASK]"


def test_a_folder_without_weights_is_refused(bert: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((bert / "config.json").read_text())
    with pytest.raises(HarnessError, match=r"has no weights. Allowed: a fold"):
        config_of(str(tmp_path))
    with pytest.raises(HarnessError, match=r"absent has no config\.json"):
        config_of(str(tmp_path / "absent"))


def test_a_model_of_another_kind_is_refused_where_it_lacks_the_head(bert: Path, build: object) -> None:
    with pytest.raises(
        HarnessError, match=r"--next-sentence requires a model of the type 'bert' .* of the type 'distilbert'"
    ):
        load(str(build("distilbert")), causal=False, pairs=True, seed=0)  # type: ignore[operator]
    with pytest.raises(
        HarnessError,
        match=rf"{bert} cannot be trained with --objective causal: a model of the type 'bert' sees later tokens",
    ):
        load(str(bert), causal=True, pairs=False, seed=0)
    with pytest.raises(HarnessError, match=r"cannot load .*distilbert.* as a language model"):
        load(str(build("distilbert")), causal=True, pairs=False, seed=0)  # type: ignore[operator]


def test_weights_that_are_damaged_are_refused(bert: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((bert / "config.json").read_text())
    save_file({"bert.embeddings.word_embeddings.weight": torch.zeros(3, 3)}, tmp_path / "model.safetensors")
    with pytest.raises(HarnessError, match=r"word_embeddings\.weight has the shape \[3, 3\], not \[84, 16\]"):
        load(str(tmp_path), causal=False, pairs=False, seed=0)


def test_a_tokenizer_without_a_mask_or_an_end_is_refused(bert: Path) -> None:
    tokenizer = build_tokenizer()
    tokenizer.mask_token = None
    with pytest.raises(HarnessError, match="has no mask token"):
        frame_of(tokenizer, causal=False)
    tokenizer.sep_token = None
    with pytest.raises(HarnessError, match="no token for the end of a text"):
        frame_of(tokenizer, causal=True)
