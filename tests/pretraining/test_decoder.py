"""The embedded decoder: what it is pretrained on, the question of fine-tuning, and the folder that is shipped."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import torch

from harness.common import hub
from harness.config.recipe import ModelSpec, TaskSpec
from harness.config.sweep_file import load
from harness.config.trials import expand
from harness.data import tasks
from harness.data.embedded import answers
from harness.data.embedded.language import PARENT, dataset, pretraining_pairs
from harness.data.tokenization import tokenise
from harness.execution import lookup
from harness.models import pretrained
from harness.pretraining import networks
from harness.pretraining.pretrain import pretrain
from harness.pretraining.settings import Settings
from harness.training.loop import train

SMALL = Settings(objective="causal", steps=6, batch_size=8, pairs=60, warmup_steps=2)


def test_judgements_are_of_the_trees_and_balanced() -> None:
    judged = answers.judgements()
    assert Counter(text.rpartition(" ")[2] for text in judged) == {"true": len(judged) // 2, "false": len(judged) // 2}
    for text in judged[:: len(judged) // 40]:
        first, _, second, _, told = text.split()
        above = [first]
        while (parent := PARENT[above[-1]]) is not None:
            above.append(parent)
        assert (second in above) == (told == "true")


def test_pretraining_judges_no_conclusion_and_sees_no_dev_pair() -> None:
    texts = answers.pretraining_texts(500)
    assert texts[:500] == [answers.conclusion(pair) for pair in pretraining_pairs(500)]
    assert not any(" therefore " in text and text.rpartition(" ")[2] in answers.CHOICES for text in texts)
    assert not set(texts) & {answers.conclusion(pair) for pair in dataset("validation")}


def test_every_word_is_known_and_the_longest_text_fits() -> None:
    tokenizer = networks.build_decoder_tokenizer()
    ids = networks.encode_texts(answers.pretraining_texts(500), tokenizer)
    assert not bool((ids == tokenizer.unk_token_id).any())
    assert bool((ids[:, 0] == tokenizer.eos_token_id).all())
    assert bool(((ids == tokenizer.eos_token_id).sum(dim=1) == 2).all())  # none was cut
    longest = "not all old dog runs often therefore not all old dog runs often : false"
    assert len(tokenizer(longest)["input_ids"]) + 1 == 17 <= answers.LONGEST


def test_the_embedded_task_asks_for_true_or_false() -> None:
    raw = tasks.load(TaskSpec(name="embedded", kind="completion", metric="accuracy"))
    task = tokenise(raw, networks.build_decoder_tokenizer(), 20)
    assert raw.label_names == ("true", "false")
    assert (len(task.train.labels), task.validation.examples, task.validation.choices) == (1_000, 400, 2)
    assert Counter(task.validation.targets.tolist()) == {0: 200, 1: 200}
    assert task.unknown_share == 0
    assert set(task.train.answer_tokens.tolist()) == {2.0}  # type: ignore[union-attr]


def test_the_same_settings_rebuild_the_same_weights(tmp_path: Path) -> None:
    first, second = (pretrain(tmp_path / name, SMALL) for name in ("a", "b"))
    assert (first.folder / "model.safetensors").read_bytes() == (second.folder / "model.safetensors").read_bytes()
    told = json.loads((first.folder / "pretraining.json").read_text())
    assert (told["objective"], told["steps"], told["pairs"]) == ("causal", 6, 60)
    assert "texts of the embedded language" in (first.folder / "pretrain.md").read_text()


def test_the_shipped_decoder_is_small_and_knows_the_language() -> None:
    shipped = ModelSpec(name="embedded-decoder")
    folder = hub.folder_of(shipped)
    assert folder is not None
    assert sum(path.stat().st_size for path in folder.iterdir()) < 3_000_000
    network = pretrained.network(shipped, 0, kind="completion")
    tokenizer = pretrained.tokenizer(shipped)
    texts = [answers.conclusion(pair) for pair in dataset("validation") if pair.entailed][:64]
    ids = networks.encode_texts(texts, tokenizer)
    with torch.no_grad():
        logits = network.module.eval()(input_ids=ids, attention_mask=(ids != 0).long()).logits[:, :-1]
    loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], ignore_index=0)
    network.module.train()
    assert float(loss) < 1.9  # knowing the words alone gives about 3


def test_lanes_of_the_shipped_sweep_are_bit_equal_alone_and_in_a_pack() -> None:
    """Two updates at the width that `lora_lr` trains; what both have to beat is the untouched decoder's score."""
    sweep = load(lookup.sweep_file("lora_lr"))
    trials = [trial for trial in expand(sweep) if trial.recipe.lora_rank == 16][:8:6]
    short = {"max_steps": 2, "eval_steps": 2}
    pack = [trial.model_copy(update={"recipe": trial.recipe.model_copy(update=short)}) for trial in trials]
    together, (alone,) = train(pack, record=False), train(pack[1:], record=False)
    assert together[1].measured.weights_sha256 == alone.measured.weights_sha256
    assert together[1].curves.logits.tobytes() == alone.curves.logits.tobytes()
    assert together[0].measured.weights_sha256 != alone.measured.weights_sha256
    assert together[0].measured.untouched_score == together[1].measured.untouched_score
    assert 0.4 < (alone.measured.untouched_score or 0) < 0.6  # it was never asked that question
