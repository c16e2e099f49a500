"""Shared by the tests of language models: small random decoders of several families, prompts and answers."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conftest import WORDS
from families import config_of

from harness.config.recipe import ModelSpec, Recipe, Seeds, TaskFiles, TaskSpec
from harness.config.trials import Trial
from harness.training.prepare import load_task

PLAIN: dict[str, Any] = {"use_sliding_window": False, "sliding_window": None}  # full attention in every layer


def write_decoder(folder: Path, kind: str, **changes: Any) -> ModelSpec:
    """A decoder of two layers by 16 with an end of a text, whose weights are large, so that each counts."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    words = {word: number for number, word in enumerate(WORDS)}
    letters = models.BPE(words, [], unk_token="[UNK]")  # transformers reads no other tokenizer of Qwen2's
    inner = Tokenizer(letters if kind == "qwen2" else models.WordLevel(words, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template = (
        "{% for m in messages %}[CLS] {{ m['content'] }} [SEP] {% endfor %}"
        "{% if add_generation_prompt %}[CLS] {% endif %}"
    )
    PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", eos_token="[SEP]", chat_template=template
    ).save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config_of(kind, **changes))
        for value in model.parameters():
            if value.dim() > 1:
                torch.nn.init.normal_(value, 0.0, 0.2)
        model.save_pretrained(folder)
    return ModelSpec(name=f"tiny-{kind}", folder=str(folder))


def rows(count: int, seed: int, choices: bool = False) -> list[dict[str, object]]:
    """Prompts of two to seven letters whose answer is their first letter and a colour, `red` after `good`."""
    draw = random.Random(seed)
    made: list[dict[str, object]] = []
    for number in range(count):
        letters = draw.choices(WORDS[5:13], k=draw.randint(1, 6))
        word, answer = (("good", "red"), ("bad", "blue"))[number % 2]
        row: dict[str, object] = {"prompt": " ".join([*letters, word]) + " ", "completion": f"{letters[0]} {answer}"}
        if choices:
            row |= {"completion": answer, "choices": ["red", "blue"]}
        made.append(row)
    return made


def write_rows(path: Path, content: Sequence[object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in content))
    return path


def completion_task(folder: Path, train: Sequence[object], dev: Sequence[object], **fields: Any) -> TaskSpec:
    files = {"train": train, "validation": dev}
    paths = {split: str(write_rows(folder / f"{split}.jsonl", content)) for split, content in files.items()}
    return TaskSpec(name=folder.name, kind="completion", files=TaskFiles(**paths), allow_unknown=True, **fields)


def trial_of(task: TaskSpec, model: ModelSpec, seed: int = 1, **fields: Any) -> Trial:
    given = {"lr": 1e-2, "epochs": 2, "batch_size": 4, "max_length": 32} | fields
    recipe = Recipe(task=task, model=model, **given)
    return Trial(recipe=recipe, seeds=Seeds(seed=seed, init_seed=seed, order_seed=seed, dropout_seed=seed), cell=0)


def plain_batch(trial: Trial, chosen: list[int], whole: bool = False) -> dict[str, torch.Tensor]:
    """A batch as people make it for transformers: prompts and answers joined, labels where the answer stands."""
    recipe = trial.recipe
    task = load_task(recipe.task, recipe.model, recipe.max_length).train
    ids, mask, labels = [], [], []
    for row in chosen:
        tokens = task.input_ids[row].copy()
        length, answer = int(task.lengths[row]), int(task.answer_tokens[row])  # type: ignore[index]
        real = np.arange(len(tokens)) < length
        ids.append(tokens)
        mask.append(real)
        labels.append(np.where(real & (whole | (np.arange(len(tokens)) >= length - answer)), tokens, -100))
    given = {"input_ids": np.array(ids), "attention_mask": np.array(mask, dtype=np.int64), "labels": np.array(labels)}
    return {name: torch.from_numpy(value) for name, value in given.items()}
