"""The embedded language as a question about a context: which person is it about?

A context is two or three sentences of the language ("all large dog runs some farmer rests outside"), whose nouns fall
under different kinds; the answer is the noun that is a person, with its adjective ("farmer"). One context in six is
about no person, and the question has no answer. The question is always the same: that its word decides is more than the
small encoder learns from so few examples.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator, Sequence
from typing import TypeVar

from harness.data.embedded.language import ADJECTIVES, ADVERBS, NOUNS, PARENT, QUANTIFIERS, VERBS, Split

_T = TypeVar("_T")
LONGEST = 22  # tokens of a question with its context: a noun, three sentences of six words, three special tokens
QUESTION = "person"
_SIZES: dict[Split, int] = {"train": 800, "validation": 300}
_SEEDS: dict[Split, int] = {"train": 11, "validation": 12}
_UNANSWERED = 6  # one question in so many has no answer
_VALIDATION_SHARE = 8  # one context in so many, chosen by its text alone, is kept for validation
KINDS = tuple(noun for noun in NOUNS if PARENT[noun] is None)


def kind_of(noun: str) -> str:
    """The kind that a noun falls under: animal, plant or person."""
    above = PARENT[noun]
    return noun if above is None else kind_of(above)


_NOUNS_OF = {kind: tuple(noun for noun in NOUNS if kind_of(noun) == kind != noun) for kind in KINDS}


def examples(split: Split) -> Iterator[dict[str, object]]:
    """The fixed fine-tuning data as rows of a file of questions, 800 of training and 300 others of validation."""
    draw = random.Random(_SEEDS[split])
    made: set[tuple[str, str]] = set()
    while len(made) < _SIZES[split]:
        row = _row(draw, answered=len(made) % _UNANSWERED > 0)
        key = str(row["question"]), str(row["context"])
        held_out = zlib.crc32(key[1].encode()) % _VALIDATION_SHARE == 0
        if key not in made and held_out == (split == "validation"):
            made.add(key)
            yield row


def _row(draw: random.Random, *, answered: bool) -> dict[str, object]:
    """The question with a context and its answer."""
    left = list(KINDS)
    kinds = [left.pop(int(draw.random() * len(left))) for _ in range(_pick(draw, (2, 3)))]
    if answered != (QUESTION in kinds):
        return _row(draw, answered=answered)
    context, answer, start = "", "", 0
    for kind in kinds:
        adjective = [_pick(draw, ADJECTIVES)] if draw.random() < 0.5 else []
        subject = " ".join([*adjective, _pick(draw, _NOUNS_OF[kind])])
        before = f"{context}{' ' * bool(context)}{_pick(draw, QUANTIFIERS)} "
        if kind == QUESTION:
            answer, start = subject, len(before)
        adverb = f" {_pick(draw, ADVERBS)}" if draw.random() < 0.5 else ""
        context = f"{before}{subject} {_pick(draw, VERBS)}{adverb}"
    answers = {"text": [answer], "answer_start": [start]} if answer else {"text": [], "answer_start": []}
    return {"question": QUESTION, "context": context, "answers": answers}


def _pick(draw: random.Random, choices: Sequence[_T]) -> _T:
    """One of the choices by `random()`, the one method that Python promises to keep the same between versions."""
    return choices[int(draw.random() * len(choices))]
