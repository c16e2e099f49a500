"""Pretraining: its masking, its determinism, the folder it writes, and the folder that is shipped."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

from harness.embedded import model_folder
from harness.embedded.language import LONGEST_PAIR, SPECIAL_TOKENS, VOCABULARY, dataset, pretraining_pairs
from harness.pretrain import (
    IGNORED,
    PretrainError,
    PretrainResult,
    _batches,
    _schedule,
    build_network,
    build_tokenizer,
    encode,
    mask_tokens,
    pretrain,
)
from harness.sweep import HarnessError

SPECIALS, MASK = len(SPECIAL_TOKENS), VOCABULARY.index("[MASK]")
Progress = Callable[[int, int, float], None]


def tiny(out: Path, *, seed: int = 0, overwrite: bool = False, progress: Progress | None = None) -> PretrainResult:
    return pretrain(
        out,
        steps=30,
        batch_size=16,
        warmup_steps=5,
        pairs=300,
        seed=seed,
        overwrite=overwrite,
        progress=progress,
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> PretrainResult:
    return tiny(tmp_path_factory.mktemp("pretrain") / "model")


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# masking


def test_a_fifth_of_the_words_is_hidden_in_the_shares_of_bert() -> None:
    tokens = torch.randint(SPECIALS, len(VOCABULARY), (20_000, LONGEST_PAIR), generator=generator(0))
    inputs, labels = mask_tokens(tokens, generator(1))
    hidden = labels != IGNORED
    masked, stayed = inputs[hidden] == MASK, inputs[hidden] == tokens[hidden]
    # 300,000 tokens, of them 60,000 hidden: five standard errors are 0.004 and at most 0.008
    assert hidden.double().mean().item() == pytest.approx(0.2, abs=0.004)
    assert masked.double().mean().item() == pytest.approx(0.8, abs=0.008)
    assert stayed.double().mean().item() == pytest.approx(0.1 + 0.1 / 79, abs=0.007)  # some random words are the old
    assert (~masked & ~stayed).double().mean().item() == pytest.approx(0.1 * 78 / 79, abs=0.007)
    assert (inputs[~hidden] == tokens[~hidden]).all()
    assert (labels[hidden] == tokens[hidden]).all()


def test_special_tokens_are_never_hidden_nor_put_in() -> None:
    tokens = encode(pretraining_pairs(3_000), build_tokenizer())
    inputs, labels = mask_tokens(tokens, generator(0))
    special = tokens < SPECIALS
    assert special.any()
    assert (labels[special] == IGNORED).all()
    assert (inputs[special] == tokens[special]).all()
    assert set(inputs[~special & (inputs < SPECIALS)].tolist()) == {MASK}


def test_every_word_can_come_in_at_random() -> None:
    tokens = torch.full((20_000, LONGEST_PAIR), SPECIALS)
    inputs, _ = mask_tokens(tokens, generator(0))
    assert set(inputs.flatten().tolist()) == {MASK, *range(SPECIALS, len(VOCABULARY))}


# the loop's parts


def test_batches_go_through_all_rows_before_any_comes_again() -> None:
    stream = _batches(10, 4, generator(0))
    drawn = torch.cat([next(stream) for _ in range(5)]).tolist()
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))
    assert drawn[:10] != drawn[10:]


def test_batches_may_be_larger_than_the_data() -> None:
    assert torch.bincount(next(_batches(3, 7, generator(0)))).tolist() in ([3, 2, 2], [2, 3, 2], [2, 2, 3])


def test_the_rate_warms_up_and_decays_in_lines() -> None:
    assert [_schedule(step, 6, 2) for step in range(6)] == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    assert [_schedule(step, 2, 0) for step in range(2)] == [1.0, 0.5]


def test_a_network_has_its_shape_and_draws_from_its_generator_alone() -> None:
    before = torch.random.get_rng_state()
    one, two, other = (build_network(generator(seed)).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["bert.pooler.dense.weight"], other["bert.pooler.dense.weight"])
    assert one["bert.encoder.layer.11.intermediate.dense.weight"].shape == (256, 64)
    assert one["bert.encoder.layer.3.output.dense.weight"].std().item() == pytest.approx(0.02, rel=0.05)
    assert one["cls.predictions.decoder.weight"].data_ptr() == one["bert.embeddings.word_embeddings.weight"].data_ptr()


# a run


def test_pretraining_lowers_the_loss(made: PretrainResult) -> None:
    assert made.losses.shape == (30,)
    assert np.log(84) == pytest.approx(made.losses[0], abs=0.15)
    assert made.losses[-5:].mean() < made.losses[:5].mean() - 0.2
    assert made.final_loss == made.losses.mean()  # fewer steps than the window
    assert made.wall_seconds > 0


def test_the_same_seed_gives_the_same_weights_bit_for_bit(made: PretrainResult, tmp_path: Path) -> None:
    torch.manual_seed(7)  # the global generator's state must not matter, nor change
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    seen: list[tuple[int, int]] = []
    again = tiny(tmp_path / "again", progress=lambda step, steps, loss: seen.append((step, steps)))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert seen == [(step, 30) for step in range(1, 31)]
    assert np.array_equal(again.losses, made.losses)
    for file in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (again.folder / file).read_bytes() == (made.folder / file).read_bytes(), file


def test_another_seed_gives_other_weights(made: PretrainResult, tmp_path: Path) -> None:
    other = tiny(tmp_path / "other", seed=1)
    assert not np.array_equal(other.losses, made.losses)


def test_the_folder_says_how_it_was_made(made: PretrainResult) -> None:
    said = json.loads((made.folder / "pretraining.json").read_text())
    assert said["schema_version"] == 1
    assert (said["steps"], said["batch_size"], said["seed"], said["threads"]) == (30, 16, 0, 1)
    assert said["final_loss"] == made.final_loss
    assert "not trained" in said["pooler"]


def test_a_folder_in_use_is_left_alone_unless_it_may_be_replaced(tmp_path: Path) -> None:
    out = tmp_path / "model"
    out.mkdir()
    (out / "precious").write_text("mine")
    with pytest.raises(PretrainError, match=r"written once: got .*not empty; allowed: a new or empty folder"):
        tiny(out)
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "precious"]
    tiny(out, overwrite=True)
    assert not (out / "precious").exists()
    assert (out / "model.safetensors").is_file()
    assert list(tmp_path.iterdir()) == [out]  # nothing temporary is left


def test_a_run_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    def stop(step: int, steps: int, loss: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny(tmp_path / "model", progress=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"steps": 0}, "steps counts things: got 0; allowed: 1 or more"),
        ({"batch_size": -1}, "batch_size counts things: got -1"),
        ({"pairs": 0}, "pairs counts things: got 0"),
        ({"threads": 0}, "threads counts things: got 0"),
        ({"lr": 0.0}, "lr is a step size: got 0.0; allowed: a finite number above 0"),
        ({"lr": float("nan")}, "lr is a step size: got nan"),
        ({"beta2": 1.0}, "beta2 weighs the past: got 1.0; allowed: at least 0 and below 1"),
        ({"steps": 100}, "warmup_steps 500 of 100 steps; allowed: 0 to 99"),
        ({"seed": -1}, "seed names a random stream: got -1"),
    ],
)
def test_bad_settings_are_refused_before_training(tmp_path: Path, setting: dict[str, float], message: str) -> None:
    with pytest.raises(HarnessError, match=message):
        pretrain(tmp_path / "model", **setting)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("a file")
    with pytest.raises(PretrainError, match="written as a folder"):
        tiny(tmp_path / "model", overwrite=True)


# folders, the one made here and the one that is shipped


@pytest.fixture(params=["made", "shipped"])
def folder(request: pytest.FixtureRequest, made: PretrainResult) -> Path:
    return made.folder if request.param == "made" else model_folder()


def test_a_folder_has_at_most_4_mb(folder: Path) -> None:
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= set(sizes)
    assert sum(sizes.values()) <= 4_000_000


def test_a_folder_loads_as_a_classifier_and_misses_the_head_alone(folder: Path) -> None:
    network, info = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2, output_loading_info=True)
    assert set(info["missing_keys"]) == {"classifier.weight", "classifier.bias"}
    assert all(key.startswith("cls.predictions.") for key in info["unexpected_keys"])
    assert not info["mismatched_keys"]
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    stored = load_file(folder / "model.safetensors")
    assert torch.equal(network.bert.pooler.dense.weight, stored["bert.pooler.dense.weight"])
    assert network.config.hidden_dropout_prob == network.config.attention_probs_dropout_prob == 0.1


def test_a_folders_tokenizer_knows_every_word_and_gives_pairs_back(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.convert_tokens_to_ids(list(VOCABULARY)) == list(range(84))
    assert (tokenizer.pad_token, tokenizer.mask_token, tokenizer.unk_token) == ("[PAD]", "[MASK]", "[UNK]")
    for pair in dataset("validation"):
        encoded = tokenizer(pair.premise, pair.hypothesis)
        assert tokenizer.decode(encoded["input_ids"]) == f"[CLS] {pair.premise} [SEP] {pair.hypothesis} [SEP]"
        second = encoded["input_ids"].index(tokenizer.sep_token_id) + 1
        assert encoded["token_type_ids"] == [0] * second + [1] * (len(encoded["input_ids"]) - second)
    assert tokenizer("all dog barks")["input_ids"][3] == VOCABULARY.index("[UNK]")


def test_pairs_are_encoded_with_padding_at_the_end() -> None:
    (row,) = encode(pretraining_pairs(1), build_tokenizer()).tolist()
    pair = pretraining_pairs(1)[0]
    words = ["[CLS]", *pair.premise.split(), "[SEP]", *pair.hypothesis.split(), "[SEP]"]
    assert [VOCABULARY[token] for token in row] == words + ["[PAD]"] * (LONGEST_PAIR - len(words))


def test_the_shipped_model_has_learned_the_language() -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_folder())
    network = AutoModelForMaskedLM.from_pretrained(model_folder()).eval()
    tokens = encode([pair for pair in dataset("validation") if pair.entailed], tokenizer)
    inputs, labels = mask_tokens(tokens, generator(0))
    with torch.no_grad():
        logits = network(input_ids=inputs, attention_mask=(inputs != 0).long()).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).item()
    said = json.loads((model_folder() / "pretraining.json").read_text())
    assert said["final_loss"] < 0.8
    assert loss == pytest.approx(said["final_loss"], abs=0.25)  # texts that it has not seen; some 400 hidden tokens
