"""What LoRA's table trains: a decoder of GPT-2's shape with random weights, prompts with answers, and the recipe."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from harness.config.recipe import ModelSpec, Recipe, TaskFiles, TaskSpec

from .work import build_tokenizer

WIDTH = 32  # tokens of every example, its end among them
SIZES = {"small": (8, 512, 8_000), "tiny": (1, 32, 60)}  # layers, hidden width, words


def build(home: Path, shape: str) -> Path:
    """Write a decoder of GPT-2's shape with random weights, 24 prompts with answers, and the recipe of a LoRA."""
    import transformers

    home.mkdir(parents=True, exist_ok=True)
    transformers.logging.disable_progress_bar()
    layers, hidden, words = SIZES[shape]
    model = home / f"gpt2-{shape}"
    build_tokenizer(words, model)
    settings = json.loads((model / "tokenizer_config.json").read_text()) | {"eos_token": "[SEP]"}
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=words, n_embd=hidden, n_layer=layers, n_head=hidden // 32, n_positions=WIDTH, bos_token_id=2,
        eos_token_id=3, pad_token_id=0,
    )  # fmt: skip
    transformers.GPT2LMHeadModel(config).save_pretrained(model)
    draw = torch.Generator().manual_seed(0)
    # Two thirds are the prompt, a third the answer; [CLS] and [SEP] are the two that the tokenizer adds.
    ids = torch.randint(5, words, (28, WIDTH - 2), generator=draw).tolist()
    texts = [[f"w{number - 5}" for number in row] for row in ids]
    cut = 2 * WIDTH // 3
    for name, rows in (("train", texts[:24]), ("validation", texts[24:])):
        lines = [{"prompt": " ".join(row[:cut]) + " ", "completion": " ".join(row[cut:])} for row in rows]
        (home / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    files = TaskFiles(train=str(home / "train.jsonl"), validation=str(home / "validation.jsonl"))
    recipe = Recipe(
        task=TaskSpec(name="bench", kind="completion", files=files),
        model=ModelSpec(name=model.name, folder=str(model)),
        method="lora", lora_rank=8, lora_alpha=16.0, lr=1e-3, epochs=1, batch_size=2, eval_batch_size=2,
        max_length=WIDTH, dropout=0.0,
    )  # fmt: skip
    (home / "recipe.json").write_text(recipe.model_dump_json())
    rows = [[2, *row, 3] for row in ids]
    examples = [
        {"input_ids": row, "attention_mask": [1] * len(row), "labels": [-100] * (cut + 1) + row[cut + 1 :]}
        for row in rows
    ]
    plain = recipe.model_dump(exclude={"task", "model"}) | {"model": str(model), "train": examples[:24]}
    (home / "plain.json").write_text(json.dumps(plain))
    return home
