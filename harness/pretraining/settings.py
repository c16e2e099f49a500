"""What may be asked of pretraining, and what excludes each other."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from harness.common.errors import HarnessError
from harness.pretraining.corpus import Kind


class Shape(NamedTuple):
    """A transformer's size: its layers, their width, and how many heads share it."""

    layers: int
    hidden: int
    heads: int


SMALL = Shape(4, 256, 4)  # BERT-mini (Turc et al. 2019)


class PretrainError(HarnessError):
    """Pretraining was asked for something that it cannot do."""


class Settings(BaseModel):
    """All that decides what comes out; with no field of the first group it is the rebuilding of the embedded model.

    Without `texts` the embedded language's `pairs` are what is read, a document of two sentences each.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    texts: tuple[Path, ...] = ()
    column: str | None = None
    held_out: float | None = None
    start: str | None = None  # the model to go on from
    layers: int | None = None
    hidden: int | None = None
    heads: int | None = None
    max_length: int | None = None
    train_tokenizer: Kind | None = None
    vocab_size: int | None = None
    objective: Literal["masked", "causal"] = "masked"
    whole_words: bool = False
    next_sentence: bool = False
    dropout: bool | None = None

    steps: int = 5_000
    batch_size: int = 128
    lr: float = 1e-3
    beta2: float = 0.98
    warmup_steps: int = 500
    pairs: int = 40_000
    seed: int = 0
    threads: int = 1

    @property
    def rebuilds(self) -> bool:
        """Whether an embedded model is rebuilt, as it was shipped: the encoder, or where causal the decoder."""
        own = (name for name in _OWN if name != "objective")
        return all(getattr(self, name) == Settings.model_fields[name].default for name in own)

    @property
    def share(self) -> float:
        """The share of the texts that is held out."""
        return 0.05 if self.held_out is None else self.held_out

    @property
    def shape(self) -> Shape:
        """The size of a network from scratch."""
        return Shape(self.layers or SMALL.layers, self.hidden or SMALL.hidden, self.heads or SMALL.heads)


_OWN = tuple(Settings.model_fields)[: tuple(Settings.model_fields).index("steps")]


def option(name: str) -> str:
    """The option of a field; its name where it has none."""
    if name in ("beta2", "pairs"):
        return name
    return f"--{ {'start': 'from', 'whole_words': 'whole-word'}.get(name, name).replace('_', '-') }"


def check(settings: Settings) -> None:
    """Refuse settings that cannot be trained with, before minutes are spent."""
    for name in ("steps", "batch_size", "pairs", "threads", "layers", "hidden", "heads", "max_length", "vocab_size"):
        if (value := getattr(settings, name)) is not None and value < 1:
            raise PretrainError(f"{name} must be a whole number >= 1", got=value)
    if not (math.isfinite(settings.lr) and settings.lr > 0):
        raise PretrainError("lr must be a finite number > 0", got=settings.lr)
    if not 0 <= settings.beta2 < 1:
        raise PretrainError("beta2 must be >= 0 and < 1", got=settings.beta2)
    if not 0 <= settings.warmup_steps < settings.steps:
        raise PretrainError(
            f"warmup_steps must be less than steps, {settings.steps}",
            got=settings.warmup_steps,
            fix="Give fewer warmup_steps or more steps",
        )
    if not 0 <= settings.seed < 2**60:  # three streams are made of it, and torch takes 64 bits
        raise PretrainError("seed must be between 0 and 2^60 − 1", got=settings.seed)
    if not 0 <= settings.share < 1:
        raise PretrainError("--held-out must be >= 0 and < 1", got=settings.held_out)
    _check_together(settings)


def _check_together(settings: Settings) -> None:
    """Refuse settings that exclude each other."""
    causal, start, trained = settings.objective == "causal", settings.start, settings.train_tokenizer
    shape = [name for name in ("layers", "hidden", "heads") if getattr(settings, name) is not None]
    for wrong, problem, fix in (
        (causal and settings.whole_words, "--whole-word cannot be used with --objective causal",
         "Leave one of them out"),
        (causal and settings.next_sentence, "--next-sentence cannot be used with --objective causal",
         "Leave one of them out"),
        (start is not None and shape, f"--{', --'.join(shape)} cannot be used with --from: the model has its shape",
         "Leave it out, or --from, to begin from scratch"),
        (start is not None and trained, "--train-tokenizer cannot be used with --from: the model has its tokenizer",
         "Leave one of them out"),
        (settings.vocab_size is not None and trained is None, "--vocab-size requires --train-tokenizer",
         "Add --train-tokenizer WordPiece or BPE"),
        (settings.column is not None and not settings.texts, "--column requires --texts", "Name the file with --texts"),
    ):  # fmt: skip
        if wrong:
            raise PretrainError(problem, fix=fix)
    size = settings.shape
    if size.hidden % size.heads:
        raise PretrainError(f"--heads must divide --hidden {size.hidden}", got=size.heads)
