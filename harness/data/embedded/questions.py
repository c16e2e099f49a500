"""The embedded language as questions about a context: who does it, and how?

A context is some sentences of the language ("all large dog runs some lily rests outside"), a question a verb of one of
them; the answer is who does it, the noun with its adjective ("large dog"). One question in six asks for a verb that
stands in no sentence, and has no answer.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator, Sequence
from typing import TypeVar

from harness.data.embedded.language import ADJECTIVES, ADVERBS, NOUNS, QUANTIFIERS, VERBS, Split

_T = TypeVar("_T")
LONGEST = 28  # tokens of a question with its context: a verb, four sentences of six words, three special tokens
_SIZES: dict[Split, int] = {"train": 1_200, "validation": 300}
_SEEDS: dict[Split, int] = {"train": 11, "validation": 12}
_SENTENCES = (2, 3, 4)
_UNANSWERED = 6  # one question in so many has no answer
_VALIDATION_SHARE = 8  # one context in so many, chosen by its text alone, is kept for validation


def examples(split: Split) -> Iterator[dict[str, object]]:
    """The fixed fine-tuning data as rows of a file of questions, 1,200 of training and 300 others of validation."""
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
    """A question with its context and answers; the verbs of a context are all different."""
    verbs = list(VERBS)
    used = [verbs.pop(int(draw.random() * len(verbs))) for _ in range(_pick(draw, _SENTENCES) + 1)]
    context, spans = "", []
    for verb in used[1:]:
        subject = " ".join([*([_pick(draw, ADJECTIVES)] if draw.random() < 0.5 else []), _pick(draw, NOUNS)])
        before = f"{context}{' ' * bool(context)}{_pick(draw, QUANTIFIERS)} "
        spans.append((verb, subject, len(before)))
        adverb = f" {_pick(draw, ADVERBS)}" if draw.random() < 0.5 else ""
        context = f"{before}{subject} {verb}{adverb}"
    question, subject, start = _pick(draw, spans)
    if not answered:
        return {"question": used[0], "context": context, "answers": {"text": [], "answer_start": []}}
    return {"question": question, "context": context, "answers": {"text": [subject], "answer_start": [start]}}


def _pick(draw: random.Random, choices: Sequence[_T]) -> _T:
    """One of the choices by `random()`, the one method that Python promises to keep the same between versions."""
    return choices[int(draw.random() * len(choices))]
