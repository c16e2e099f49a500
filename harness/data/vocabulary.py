"""Whether a tokenizer fits texts and model: its files, the share of unknown tokens, ids without an embedding."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from harness.common.errors import HarnessError

WARN_ABOVE = 0.05
REFUSE_ABOVE = 0.5
# What holds a vocabulary: tokenizer.json, vocab.txt, spiece.model, bpe.codes, … — and what only says how it is read.
_VOCABULARY = re.compile(r"vocab|token|spiece|sentencepiece|merges|\.(model|codes|bpe)$")
_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_ROLES = ("pad_token_id", "cls_token_id", "sep_token_id", "bos_token_id", "eos_token_id", "mask_token_id")


def has_files(folder: Path) -> bool:
    """Whether a folder holds a vocabulary; of a folder that can't be read that is told elsewhere."""
    with suppress(OSError):
        return any(_VOCABULARY.search(path.name) and path.name not in _SETTINGS for path in folder.iterdir())
    return True


def missing(where: str) -> HarnessError:
    """Make the error for a model without a tokenizer: transformers makes an empty one, to which all is unknown."""
    return HarnessError(
        f"{where} has no tokenizer: no tokenizer.json, vocab.txt, SentencePiece model or the like",
        fix="Copy there what the tokenizer's save_pretrained writes",
    )


def is_empty(tokenizer: Any) -> bool:
    """Whether a tokenizer knows nothing but its special tokens, and SentencePiece's sign for a blank."""
    special = {*tokenizer.all_special_tokens, "▁"}
    try:
        words: Mapping[str, int] = tokenizer.get_vocab()
    except NotImplementedError:  # one that reads letters or bytes
        return False
    added = getattr(tokenizer, "added_tokens_encoder", {})
    return all(word in special or word in added for word in words)


def check_kind(tokenizer: Any, folder: Path | None) -> None:
    """Raise HarnessError where transformers makes another kind of tokenizer than the folder's tokenizer.json says.

    It takes some classes by the model's config alone: Qwen2's makes a BPE tokenizer without merges of a file of whole
    words, which drops most letters without a word.
    """
    inner = getattr(tokenizer, "backend_tokenizer", None)  # only fast ones have it
    written = None if inner is None or folder is None else _kind_written(folder / "tokenizer.json")
    loaded = type(getattr(inner, "model", None)).__name__
    if written is not None and written != loaded:
        raise HarnessError(
            f"transformers would misread {folder}/tokenizer.json, a {written} tokenizer: "
            f"{type(tokenizer).__name__} loads it as {loaded}",
            fix="Use the tokenizer that the model was pretrained with, or a model that reads this one",
        )


def _kind_written(file: Path) -> str | None:
    """The kind of model in a tokenizer.json, as WordPiece; None where it isn't said, or is told elsewhere."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        kind = json.loads(file.read_text(encoding="utf-8"))["model"]["type"]
        return kind if isinstance(kind, str) else None
    return None


def unknown_share(
    ids: Sequence[Sequence[int]],
    special: int,
    tokenizer: Any,
    texts: Sequence[str] = (),
    pairs: Sequence[str] | None = None,
) -> float | None:
    """The share of a split's tokens that stand for what the tokenizer doesn't know, those around the texts left out.

    An example that has letters but no token of its own counts as one unknown token.

    Args:
        ids: The token ids of each example.
        special: How many tokens stand around each example.
        tokenizer: The tokenizer.
        texts: The examples' texts.
        pairs: Their second texts.

    Returns:
        The share, from 0 to 1. None where no example is without tokens and there is no token for what is unknown, as
        where bytes are read, or it has another role too, so that the two can't be told apart.
    """
    joined = texts if pairs is None else [text + pair for text, pair in zip(texts, pairs, strict=True)]
    dropped = sum(bool(text.strip()) and len(row) <= special for row, text in zip(ids, joined, strict=False))
    unknown = getattr(tokenizer, "unk_token_id", None)
    told = unknown is not None and unknown not in (getattr(tokenizer, role, None) for role in _ROLES)
    if not told and not dropped:
        return None
    tokens = dropped + sum(max(0, len(example) - special) for example in ids)
    count = dropped + (sum(int((np.asarray(example) == unknown).sum()) for example in ids) if told else 0)
    return count / tokens if tokens else None


def words(share: float, model: str) -> str:
    """A sentence about a share of unknown tokens."""
    return (
        f"{percent(share)} of the tokens are unknown to the tokenizer of {model} ([UNK]): the model can't tell their "
        "words apart."
    )


def percent(share: float) -> str:
    """A share of tokens; what is more than nothing never reads as 0."""
    return "none" if share == 0 else "under 0.01 %" if share < 1e-4 else f"{100 * share:.3g} %"


def check_share(share: float | None, model: str, *, allowed: bool) -> None:
    """Raise HarnessError where most tokens are unknown, unless the task says that this is `allowed`."""
    if share is not None and share > REFUSE_ABOVE and not allowed:
        raise HarnessError(
            f"{percent(share)} of the tokens are unknown ([UNK]) to the tokenizer of {model}, more than "
            f"{percent(REFUSE_ABOVE)}",
            fix="Use the tokenizer that the model was pretrained with, or --set task.allow_unknown=on",
        )


def check_ids(largest: int, embeddings: int, size: int, model: str) -> None:
    """Raise HarnessError for a token id without an embedding; `size` is the tokenizer's."""
    if largest >= embeddings:
        raise HarnessError(
            f"{model} has no embedding for token id {largest}: it has {embeddings} embeddings, its tokenizer "
            f"{size} tokens",
            fix="Use the tokenizer that the model was pretrained with",
        )
