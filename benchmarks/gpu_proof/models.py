"""The models with random weights that the speeds are measured with, each written once under `home`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from benchmarks.speed import work

# Qwen2-0.5B's shape (494 M parameters), and a tiny one.
_QWEN2: dict[str, dict[str, int]] = {
    "qwen2": {"vocab_size": 151_936, "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14,
              "num_key_value_heads": 2, "intermediate_size": 4_864, "max_position_embeddings": 512},
    "qwen2-tiny": {"vocab_size": 260, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
                   "num_key_value_heads": 1, "intermediate_size": 64, "max_position_embeddings": 64},
}  # fmt: skip
_DECODER = "lora"


def name_of(kind: str, tiny: bool) -> str:
    """Which folder stands for `base`, `large`, `mini` or `lora`."""
    if kind == _DECODER:
        return "qwen2-tiny" if tiny else "qwen2"
    return "tiny" if tiny else kind


def words_of(name: str) -> int:
    """How many words the model's tokenizer knows."""
    return _QWEN2[name]["vocab_size"] if name in _QWEN2 else work.SHAPES[name].words


def prepare(home: Path, kinds: tuple[str, ...], tiny: bool) -> None:
    """Make the folders that are not there, each under another name until it is whole."""
    for name in dict.fromkeys(name_of(kind, tiny) for kind in kinds):
        _once(home / name, lambda folder, name=name: _build(name, folder))  # type: ignore[misc]


def _once(folder: Path, build: Callable[[Path], object]) -> None:
    if folder.exists():
        return
    draft = folder.with_name(f"{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.parent.mkdir(parents=True, exist_ok=True)
    build(draft)
    draft.rename(folder)


def _build(name: str, folder: Path) -> None:
    if name not in _QWEN2:
        work.build_model(work.SHAPES[name], folder)
        return
    import torch
    import transformers

    sizes = _QWEN2[name]
    _byte_tokenizer(folder)
    torch.manual_seed(0)
    config = transformers.Qwen2Config(**sizes, pad_token_id=0, bos_token_id=2, eos_token_id=3, tie_word_embeddings=True)
    transformers.Qwen2Model(config).save_pretrained(folder)


def _byte_tokenizer(folder: Path) -> None:
    """Write a tokenizer of a token a byte, of the class that transformers loads beside a Qwen2 whatever lies there."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    names = ["<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    inner = Tokenizer(models.BPE({name: number for number, name in enumerate(names)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    end = {"eos_token": names[0], "pad_token": names[0], "unk_token": names[0]}
    transformers.Qwen2TokenizerFast(tokenizer_object=inner, **end).save_pretrained(folder)
