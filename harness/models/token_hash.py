"""Which tokens a result is of: their hash and the tokenizer's in a record, and when a started sweep is refused for it.

Two tokenizers may have one name, and their difference shows in nothing else that a record keeps: not in the texts' hash
nor in that of the weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from harness.common import hub
from harness.common.errors import HarnessError
from harness.config.recipe import ModelSpec, Recipe, TaskSpec
from harness.data import tasks
from harness.data.tokenization import tokenise
from harness.data.tokenized import Task, TokenizedSplit
from harness.records.record import Record

# What transformers' tokenizers read of a model's folder, fast and slow ones, and the code that a model brings for one.
_FILES = (
    *("tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "vocab.*", "vocab-*", "merges.txt"),
    *("*.model", "*.spm", "*.tiktoken", "bpe.codes", "emoji.json", "tokenization_*.py"),
)

Key = tuple[str, str, int]  # what decides the tokens under one name: task with its stride, model, max_length


# ----------------------------------------------------------------------------------------------------------- hashing


@lru_cache(maxsize=2)  # a worker trains pack after pack of the same task, and a `Task` is equal to itself alone
def tokens_sha256(task: Task) -> str:
    """The hash of what a model reads of a task: the padding token, and of each split its lengths, ids and types.

    The padding itself is not in it (lengths and padding token decide it), nor are the labels (`Task.sha256` has them)
    but for those of token tasks, of which it has where they stand.
    """
    digest = hashlib.sha256(f"padding {task.pad_token_id}\n".encode())
    for name, split in zip(("train", "validation", "test"), task.splits, strict=False):
        digest.update(f"{name} {len(split.lengths)}\n".encode())
        for values in _read_by_a_model(split):
            digest.update(values)
    return digest.hexdigest()


def _read_by_a_model(split: TokenizedSplit) -> Iterator[bytes]:
    real = np.arange(split.input_ids.shape[-1]) < split.lengths[..., None]  # [N, T], or [N, C, T]
    yield split.lengths.astype("<i8").tobytes()
    yield split.input_ids[real].astype("<i8").tobytes()
    yield split.token_type_ids[real].astype("<i8").tobytes()
    if split.sentences is not None and split.labels.shape == real.shape:  # a label stands on a token
        yield split.labels[real].astype("<i8").tobytes()


def tokenizer_sha256(spec: ModelSpec) -> str | None:
    """The hash of names and bytes of a tokenizer's files; None where they are not on this disk (yet), or are none."""
    folder = hub.folder_of(spec)
    files = {} if folder is None else {path.name: path for path in folder.iterdir() if _is_read(path)}
    if not files:
        return None
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        content = path.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _is_read(path: Path) -> bool:
    return path.is_file() and any(fnmatch(path.name, pattern) for pattern in _FILES)


# ---------------------------------------------------------------------------------------------------- a started sweep


@dataclass(frozen=True)
class Known:
    """What a started sweep was trained on, by the first record that says it."""

    tokens: str
    tokenizer: str | None
    transformers: str | None
    trial: str


def key_of(recipe: Recipe) -> Key:
    """What decides a recipe's tokens beside the bytes of data and tokenizer."""
    stride = "" if recipe.task.stride is None else f", stride {recipe.task.stride}"
    return f"{recipe.task.name}{stride}", recipe.model.name, recipe.max_length


def known(records: Iterable[Record]) -> dict[Key, Known]:
    """What the finished trials were trained on; nothing of those whose records do not say it."""
    hashes: dict[Key, Known] = {}
    for record in records:
        _add(record, hashes)
    return hashes


def check_started(recipes: Iterable[Recipe], started: Mapping[Key, Known]) -> None:
    """Raise HarnessError where data and tokenizer here give other tokens than those that finished trials had.

    Where the tokenizer's files and the version of transformers are as they were nothing is tokenised. Changed texts
    (`augment`) are tokenised in training: with them other files are refused though the data's own tokens are the same.
    """
    compared: set[tuple[TaskSpec, ModelSpec, int]] = set()
    for recipe in recipes:
        before, subject = started.get(key_of(recipe)), (recipe.task, recipe.model, recipe.max_length)
        if before is None:
            continue
        files = tokenizer_sha256(recipe.model)
        if files is not None and files == before.tokenizer and before.transformers == _transformers():
            continue
        if recipe.augment != "none" and None not in (files, before.tokenizer) and files != before.tokenizer:
            raise _changed(recipe, before)
        if subject not in compared and _tokens_here(recipe) != before.tokens:
            raise _changed(recipe, before)
        compared.add(subject)


def check_record(record: Record, started: dict[Key, Known]) -> None:
    """Raise HarnessError for a trial whose worker had other tokens than earlier ones; the first of a kind is noted."""
    before = _add(record, started)
    measured = record.measured
    if before is not None and measured is not None and measured.tokens_sha256 not in (None, before.tokens):
        raise _changed(record.trial.recipe, before)


def _add(record: Record, started: dict[Key, Known]) -> Known | None:
    """What is known of a record's kind, which is what it says itself where it is the first."""
    if record.trial.script is not None:
        return None
    recipe, measured = record.trial.recipe, record.measured
    if measured is None or measured.tokens_sha256 is None:
        return started.get(key_of(recipe))
    version = None if record.environment is None else record.environment.transformers
    own = Known(measured.tokens_sha256, measured.tokenizer_sha256, version, record.id)
    return started.setdefault(key_of(recipe), own)


def _tokens_here(recipe: Recipe) -> str:
    from harness.models import pretrained  # torch and transformers, where something changed

    return tokens_sha256(tokenise(tasks.load(recipe.task), pretrained.tokenizer(recipe.model), recipe.max_length))


def _transformers() -> str | None:
    try:
        return version("transformers")
    except PackageNotFoundError:
        return None


def _changed(recipe: Recipe, before: Known) -> HarnessError:
    return HarnessError(
        f"the tokenizer of '{recipe.model.name}' gives other tokens for '{recipe.task.name}' than when "
        f"{before.trial} was trained",
        fix="Restore the tokenizer's files, or start a new results folder with --results",
    )
