"""What a language model is to predict, and how well it does: masked words, the next sentence, the next token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from harness.pretraining.corpus import Sentences

# Devlin et al. 2019 (BERT), 3.1 and appendix A.1.
MASKED_SHARE = 0.15
BECOMES_MASK, BECOMES_RANDOM = 0.8, 0.1
IGNORED = -100  # cross_entropy's `ignore_index`
LIKELIEST = 5
_SAMPLED = 20  # tokens of a continuation


@dataclass(frozen=True, eq=False)
class TokenRows:
    """B rows of tokens, as long as the longest of them, before anything is hidden."""

    tokens: Tensor  # int64 [B, T]
    real: Tensor  # bool [B, T], not padding
    own: Tensor  # bool [B, T], of the text: neither padding nor special
    begins: Tensor | None = None  # bool [B, T], begins a word; None: each token is one
    segments: Tensor | None = None  # int64 [B, T], 0 and 1; None: one segment
    random_next: Tensor | None = None  # int64 [B], 1 where the second sentence was drawn at random


@dataclass(frozen=True)
class LanguageScore:
    """How well tokens are predicted that the model was not trained on; nats and shares."""

    loss: float  # the mean cross-entropy of a token
    accuracy: float
    next_accuracy: float | None = None  # the share of pairs that were told apart
    next_loss: float | None = None  # the mean cross-entropy of a pair

    @property
    def total(self) -> float:
        """What is trained on."""
        return self.loss + (self.next_loss or 0.0)

    @property
    def perplexity(self) -> float:
        """Of the predicted tokens: e to the loss."""
        return math.exp(self.loss) if self.loss < 700 else math.inf


@dataclass(frozen=True)
class MaskedExample:
    """A held-out text cut or masked at one place, what stood there, and what the model puts there.

    `found` are words with their probabilities, or sampled continuations, which have none.
    """

    shown: str
    stood: str
    found: tuple[tuple[str, float | None], ...]


class SentenceSource(Protocol):
    """Where rows come from."""

    @property
    def count(self) -> int:
        """How many there are."""

    def rows(self, which: Tensor, generator: torch.Generator) -> TokenRows:
        """Some of them by their numbers, int64 [B], with what is drawn anew each time they are seen."""


@dataclass(frozen=True, eq=False)
class TokenTable:
    """Rows that lie ready, padded to one length; the ids of special tokens are the lowest."""

    tokens: Tensor  # int64 [N, T]
    specials: int
    padding: int

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.tokens)

    def rows(self, which: Tensor, generator: torch.Generator) -> TokenRows:
        """Some of them; nothing is drawn."""
        tokens = self.tokens[which]
        return TokenRows(tokens, tokens != self.padding, tokens >= self.specials)


@dataclass(frozen=True)
class Frame:
    """The special tokens that a tokenizer sets around one text or two, and what fills rows up."""

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]
    padding: int


@dataclass(frozen=True, eq=False)
class Singles:
    """One sentence a row."""

    sentences: Sentences
    frame: Frame

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.sentences)

    def rows(self, which: Tensor, generator: torch.Generator) -> TokenRows:
        """Some of them; nothing is drawn."""
        return _joined(self.sentences, [((number, None),) for number in which.tolist()], self.frame)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Two sentences a row: one and half of the time the next, half of the time one of another document.

    Where they are too long together, the longer one loses its end. Source: Devlin et al. 2019, 3.1; there a segment
    may be several sentences.
    """

    sentences: Sentences
    followed: NDArray[np.int64]  # the sentences that have a next one in their document, [n]
    frame: Frame
    longest: int  # tokens of a row

    @property
    def count(self) -> int:
        """How many sentences have a next one."""
        return len(self.followed)

    def rows(self, which: Tensor, generator: torch.Generator) -> TokenRows:
        """Some of them with their second sentences drawn."""
        random_next = torch.rand(len(which), generator=generator) < 0.5
        room = self.longest - len(self.frame.before + self.frame.between + self.frame.after)
        pairs = []
        for number, drawn in zip(which.tolist(), random_next.tolist(), strict=True):
            first = int(self.followed[number])
            second = self._elsewhere(first, generator) if drawn else first + 1
            lengths = _cut(self.sentences.length(first), self.sentences.length(second), room)
            pairs.append(((first, lengths[0]), (second, lengths[1])))
        return replace(_joined(self.sentences, pairs, self.frame), random_next=random_next.long())

    def _elsewhere(self, first: int, generator: torch.Generator) -> int:
        """A sentence of another document, each equally likely."""
        document = self.sentences.document
        start, end = (int(np.searchsorted(document, document[first], side)) for side in ("left", "right"))
        drawn = int(torch.randint(0, len(document) - (end - start), (1,), generator=generator))
        return drawn if drawn < start else drawn + (end - start)


def _cut(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens of two texts are kept where the longer one is shortened until both fit."""
    if first + second <= room:
        return first, second
    half = room // 2
    return (
        (first, room - first) if first <= half else (room - second, second) if second <= half else (room - half, half)
    )


def _joined(sentences: Sentences, rows: Sequence[Sequence[tuple[int, int | None]]], frame: Frame) -> TokenRows:
    """Rows of one sentence or two, (its number, how many of its tokens), among their special tokens."""
    columns: list[tuple[Tensor, ...]] = []  # tokens, own, begins, segments
    for row in rows:
        parts = [_special(frame.before, 0)]
        for segment, (sentence, length) in enumerate(row):
            at = slice(
                int(sentences.starts[sentence]),
                int(sentences.starts[sentence + 1] if length is None else sentences.starts[sentence] + length),
            )
            ids = np.asarray(sentences.tokens[at], np.int64)
            yes = np.ones(len(ids), np.bool_)
            parts.append((ids, yes, np.asarray(sentences.begins[at]), np.full(len(ids), segment)))
            parts.append(_special(frame.after if segment == len(row) - 1 else frame.between, segment))
        columns.append(tuple(torch.from_numpy(np.concatenate(values)) for values in zip(*parts, strict=True)))
    tokens, own, begins, segments = (
        pad_sequence(list(values), batch_first=True, padding_value=value)
        for values, value in zip(zip(*columns, strict=True), (frame.padding, 0, 1, 0), strict=True)
    )
    real = torch.arange(tokens.shape[1]) < torch.tensor([len(values[0]) for values in columns])[:, None]
    return TokenRows(tokens, real, own, begins, segments if any(len(row) > 1 for row in rows) else None)


def _special(ids: tuple[int, ...], segment: int) -> tuple[NDArray[Any], ...]:
    count = len(ids)
    return np.array(ids, np.int64), np.zeros(count, np.bool_), np.ones(count, np.bool_), np.full(count, segment)


# --------------------------------------------------------------------------------------------------- what is predicted


def mask_tokens(
    rows: TokenRows, generator: torch.Generator, *, share: float, mask: int, words: Tensor, whole_words: bool = False
) -> tuple[Tensor, Tensor]:
    """Hide a share of a text's own tokens: of these 80 % become `mask`, 10 % one of `words`, 10 % stay.

    Where `whole_words`, all tokens of a word are hidden or none. Returns inputs and labels, int64 [B, T] each; a label
    is -100 where nothing is to be predicted. Source: Devlin et al. 2019, 3.1, and for whole words the authors' code
    (create_pretraining_data.py), which draws what becomes of each token by itself too.
    """
    tokens = rows.tokens
    draw, fate = torch.rand(2, *tokens.shape, generator=generator)  # [B, T] each
    if whole_words and rows.begins is not None:
        # Every token of a word has the draw of its first.
        places = torch.arange(tokens.shape[1]).expand_as(tokens)
        draw = draw.gather(1, places.where(rows.begins, 0).cummax(1).values)
    hidden = (draw < share) & rows.own
    random_words = words[torch.randint(0, len(words), tokens.shape, generator=generator)]
    to_mask = hidden & (fate < BECOMES_MASK)
    to_random = hidden & (fate >= BECOMES_MASK) & (fate < BECOMES_MASK + BECOMES_RANDOM)
    inputs = tokens.masked_fill(to_mask, mask).where(~to_random, random_words)
    return inputs, tokens.masked_fill(~hidden, IGNORED)


@dataclass(frozen=True, eq=False)
class Masked:
    """Masked language modelling: hidden tokens are predicted from those on both sides."""

    mask: int
    words: Tensor  # int64 [W], what may stand in a hidden token's place: no special ones
    share: float = MASKED_SHARE
    whole_words: bool = False

    def draw(self, rows: TokenRows, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Inputs and labels of rows, int64 [B, T] each; hidden anew each time."""
        return mask_tokens(
            rows, generator, share=self.share, mask=self.mask, words=self.words, whole_words=self.whole_words
        )


@dataclass(frozen=True)
class Causal:
    """Causal language modelling: each token is predicted from those before it."""

    def draw(self, rows: TokenRows, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Inputs and labels of rows, int64 [B, T] each; a place's label is the next real token."""
        following = rows.tokens.roll(-1, 1).masked_fill(~rows.real.roll(-1, 1), IGNORED)
        following[:, -1] = IGNORED
        return rows.tokens, following


Objective = Masked | Causal


# ------------------------------------------------------------------------------------------------------ how well it is


def loss(network: Any, rows: TokenRows, inputs: Tensor, labels: Tensor) -> Tensor:
    """The mean cross-entropy (nats) of the labels, 0 where there are none, plus that of the next sentence if asked."""
    at = labels != IGNORED
    logits, next_logits = _predict(network, rows, inputs, at)
    labels = labels.to(logits.device)
    total = F.cross_entropy(logits, labels[at.to(logits.device)], reduction="sum") / at.sum().clamp(min=1)
    if rows.random_next is not None:
        total = total + F.cross_entropy(next_logits, rows.random_next.to(logits.device))
    return total


def _predict(network: Any, rows: TokenRows, inputs: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of the places `at`, [places, words], and of the next sentence, [B, 2] or empty."""
    device = network.device
    given = {"input_ids": inputs.to(device), "attention_mask": rows.real.long().to(device)}
    # No token_type_ids for single texts, so all zero: fine-tuning passes none either, and both must agree.
    if rows.segments is not None:
        given["token_type_ids"] = rows.segments.to(device)
    at = at.to(device)
    if network.config.model_type == "bert":
        output = network.bert(**given)
        logits = network.cls.predictions(output.last_hidden_state[at])  # the other places' logits are needed by nobody
        predicts_next = rows.random_next is not None
        return logits, network.cls.seq_relationship(output.pooler_output) if predicts_next else logits.new_empty(0)
    logits = network(**given).logits[at]
    return logits, logits.new_empty(0)


@torch.no_grad()
def score(
    network: Any, source: SentenceSource, objective: Objective, *, most: int, batch_size: int
) -> LanguageScore | None:
    """Score a network on the first `most` rows of a source, without dropout, each time at the same places.

    None where there is no row, or none with anything to predict.
    """
    count = min(most, source.count)
    generator = torch.Generator().manual_seed(0)
    total, right, predicted, next_total, told_apart = 0.0, 0, 0, 0.0, 0
    training, predicts_next = network.training, False
    network.eval()
    for start in range(0, count, batch_size):
        rows = source.rows(torch.arange(start, min(start + batch_size, count)), generator)
        inputs, labels = objective.draw(rows, generator)
        logits, next_logits = _predict(network, rows, inputs, labels != IGNORED)
        wanted = labels[labels != IGNORED].to(logits.device)
        total += float(F.cross_entropy(logits, wanted, reduction="sum"))
        right += int((logits.argmax(-1) == wanted).sum())
        predicted += len(wanted)
        if rows.random_next is not None:
            predicts_next = True
            drawn = rows.random_next.to(logits.device)
            next_total += float(F.cross_entropy(next_logits, drawn, reduction="sum"))
            told_apart += int((next_logits.argmax(-1) == drawn).sum())
    network.train(training)
    if not predicted:
        return None
    told = (told_apart / count, next_total / count) if predicts_next else (None, None)
    return LanguageScore(total / predicted, right / predicted, *told)


@torch.no_grad()
def examples(
    network: Any, tokenizer: Any, texts: SentenceSource, objective: Objective, count: int = 5
) -> tuple[MaskedExample, ...]:
    """What the model puts into the first held-out texts: the likeliest words at a mask, or two continuations."""
    generator = torch.Generator().manual_seed(0)
    masked_examples: list[MaskedExample] = []
    training = network.training
    network.eval()
    for number in range(texts.count):
        rows = texts.rows(torch.tensor([number]), generator)
        (places,) = rows.own[0].nonzero(as_tuple=True)
        if len(places) >= 3 and len(masked_examples) < count:
            make = _filled if isinstance(objective, Masked) else _continued
            masked_examples.append(make(network, tokenizer, rows, places, objective, generator))
    network.train(training)
    return tuple(masked_examples)


def _filled(
    network: Any, tokenizer: Any, rows: TokenRows, places: Tensor, objective: Objective, generator: torch.Generator
) -> MaskedExample:
    assert isinstance(objective, Masked)
    position = int(places[torch.randint(0, len(places), (1,), generator=generator)])
    inputs = rows.tokens.clone()
    inputs[0, position] = objective.mask
    at = torch.zeros_like(inputs, dtype=torch.bool)
    at[0, position] = True
    likely = (
        _predict(network, rows, inputs, at)[0][0].float().softmax(-1).topk(min(LIKELIEST, network.config.vocab_size))
    )
    words = [_word(tokenizer, token) for token in likely.indices.tolist()]
    shown = tokenizer.decode(inputs[0, places].tolist())
    return MaskedExample(
        shown, _word(tokenizer, int(rows.tokens[0, position])), tuple(zip(words, likely.values.tolist(), strict=True))
    )


def _continued(
    network: Any, tokenizer: Any, rows: TokenRows, places: Tensor, objective: Objective, generator: torch.Generator
) -> MaskedExample:
    own = rows.tokens[0, places].tolist()
    half = len(own) // 2
    start = rows.tokens[0, : int(places[0]) + half].tolist()
    room = min(_SAMPLED, network.config.max_position_embeddings - len(start))
    sampled = []
    for _ in range(2):
        tokens = list(start)
        for _ in range(room):
            logits = network(input_ids=torch.tensor([tokens], device=network.device)).logits[0, -1]
            token = int(torch.multinomial(logits.float().cpu().softmax(-1), 1, generator=generator))
            if token == tokenizer.eos_token_id:
                break
            tokens.append(token)
        sampled.append((tokenizer.decode(tokens[len(start) :]), None))
    return MaskedExample(tokenizer.decode(own[:half]), tokenizer.decode(own[half:]), tuple(sampled))


def _word(tokenizer: Any, token: int) -> str:
    """A token as people read it; one that continues a word keeps its mark."""
    spelt: str = tokenizer.convert_ids_to_tokens(token)
    return spelt if spelt.startswith("##") else tokenizer.decode([token]).strip() or spelt
