"""A task's examples as texts and labels, before any tokeniser."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from harness.common.metrics import Metric

SPLITS = ("train", "validation", "test")
NO_LABEL = -100  # of tokens that have none, as cross-entropy leaves them out


class Span(NamedTuple):
    """A part of a context: its text, and how many characters stand before it."""

    text: str
    start: int


@dataclass(frozen=True, eq=False)
class Rows:
    """One split as text; `labels` [N] are class indexes (int64), or numbers (float32) for a regression.

    `numbers` [N] say where in the `source` each example stands: lines of a file, or rows of a data set (`unit`). Of a
    token task an example is a sentence, its text the `words` with blanks between them, and `labels` [N, W] those of
    the words, `NO_LABEL` behind the last.

    Where a text has any number of labels, `labels` [N, C] say of each whether it has it, 0 or 1 (int64).

    Of completions `texts` are prompts, in a `chat` the messages before the answer as JSON, and `pairs` the answers;
    where an answer is compared with `choices`, `labels` say which of them it is, and 0 where it isn't. Of multiple
    choice `choices` are what may follow each text, equally many everywhere, and `labels` [N] the right one's position.

    Of questions about contexts `texts` are the questions, `pairs` the contexts, `spans` the answers that are right, and
    `labels` whether there is any, 0 or 1.
    """

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    labels: np.ndarray
    source: str
    unit: str
    numbers: Sequence[int]
    words: tuple[tuple[str, ...], ...] | None = None
    choices: tuple[tuple[str, ...], ...] | None = None
    groups: np.ndarray | None = None  # [Q], how many examples each question has, one behind the other; None: one each
    chat: bool = False
    answers: bool = False  # whether `pairs` are answers to `texts`
    spans: tuple[tuple[Span, ...], ...] | None = None

    @property
    def expected(self) -> tuple[tuple[str, ...], ...]:
        """The texts that are right answers to each question about a context; nothing where there is none."""
        return tuple(tuple(span.text for span in own) for own in self.spans or ())


@dataclass(frozen=True, eq=False)
class Raw:
    """A task before its tokeniser; `label_names` stand in the order of the indexes, None for a regression.

    Those of a token task are O and then B-X, I-X for each type X of the training split, in the order of the alphabet.

    `sha256` is over texts and labels (as numbers) of the splits in order: the same data give the same hash from
    whatever path, format or spelling of the labels.
    """

    name: str
    metric: Metric
    label_names: tuple[str, ...] | None
    train: Rows
    validation: Rows
    sha256: str
    test: Rows | None = None
    kind: str = field(default="texts", kw_only=True)  # the task's, as in a sweep file
    # Of labels: the probability above which one is given; None: the best on the dev split.
    threshold: float | None = field(default=0.5, kw_only=True)
    loss_on: str = field(default="completion", kw_only=True)  # of completions: `all` where prompts are learned too
    stride: int | None = field(default=None, kw_only=True)  # of questions: tokens that two windows share


def splits(raw: Raw) -> dict[str, Rows]:
    """The splits there are, by name: train, validation and, where there is one, test."""
    return {"train": raw.train, "validation": raw.validation} | ({} if raw.test is None else {"test": raw.test})


def sha256_of(parts: Sequence[Rows]) -> str:
    """The hash of texts and labels of splits in order; sources and spellings are not in it."""
    digest = hashlib.sha256()
    for rows in parts:
        digest.update(f"{len(rows.texts)} {'one text' if rows.pairs is None else 'two texts'}\n".encode())
        for text in (*rows.texts, *(rows.pairs or ())):
            content = text.encode()
            digest.update(b"%d %s\n" % (len(content), content))  # with its length, so that no two lists collide
        for choices in rows.choices or ():
            digest.update(json.dumps(choices).encode() + b"\n")
        for spans in rows.spans or ():
            digest.update(json.dumps(spans).encode() + b"\n")
        digest.update(b"chat\n" * rows.chat)
        digest.update(rows.labels.astype(rows.labels.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()
