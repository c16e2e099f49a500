"""A task as token ids: its splits, and what training needs of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from harness.common.metrics import Metric
from harness.data.examples import NO_LABEL


@dataclass(frozen=True, eq=False)
class Windows:
    """Which questions the windows of a scored split are of, and what their answers are made of and compared with.

    N windows, T tokens wide, of Q questions in their order.
    """

    question: np.ndarray  # [N] int64
    offsets: np.ndarray  # [N, T, 2] int32: where each token begins and ends in its context, in characters
    contexts: tuple[str, ...]  # Q
    expected: tuple[tuple[str, ...], ...]  # Q; nothing where a question has no answer
    constant: np.ndarray  # [Q] float32: what the best constant answer scores


@dataclass(frozen=True, eq=False)
class TokenizedSplit:
    """One split as token ids, padded on the right to the longest example of training and dev split, or of the test's.

    `input_ids` and `token_type_ids` are [N, T] int64, `lengths` [N] int64 counts the tokens that are no padding,
    `labels` are those of `Rows`; of a token task [N, T], on a word's first token, and `NO_LABEL` elsewhere. Then
    `sentences` [N] counts the words that have one. Where a text has any number of labels they are [N, C], 0 or 1, and
    `sentences` says C for each, and where a question has several examples how many it has. Of multiple choice each
    example has C sequences: ids and types are [N, C, T], lengths [N, C].
    """

    input_ids: np.ndarray
    lengths: np.ndarray
    token_type_ids: np.ndarray
    labels: np.ndarray
    sentences: np.ndarray | None = None
    # Of completions, whose labels [N, T] are the next tokens:
    answer_tokens: np.ndarray | None = field(default=None, kw_only=True)  # [N] float32, how many each answer has
    choices: int = field(
        default=0, kw_only=True
    )  # C, where N / C examples have so many answers each, one row after the other
    right: np.ndarray | None = field(default=None, kw_only=True)  # [N / C], which of them is right
    cut_prompts: int = field(default=0, kw_only=True)  # rows whose prompt lost its beginning
    # Of questions about contexts, whose labels are `spans.LABELS` of each window; not of training:
    windows: Windows | None = field(default=None, kw_only=True)

    @property
    def targets(self) -> np.ndarray:
        """What is scored: the labels [N]; of a token task those of all words in order, of labels each text's decisions.

        Of completions the tokens of each answer, or which of the choices is right. Of questions about contexts what the
        best constant answer scores.
        """
        if self.windows is not None:
            return self.windows.constant
        if self.answer_tokens is not None:
            return self.answer_tokens if self.right is None else self.right
        return self.labels if self.sentences is None else self.labels[self.labels != NO_LABEL]

    @property
    def examples(self) -> int:
        """How many examples there are, N; with choices N / C, of a scored split's windows the questions."""
        if self.windows is not None:
            return len(self.windows.constant)
        return len(self.labels) if self.right is None else len(self.right)


@dataclass(frozen=True, eq=False)
class Task:
    """What training needs of a task; `num_labels` is the number of logits, 1 for a regression."""

    name: str
    metric: Metric
    label_names: tuple[str, ...] | None
    num_labels: int
    pad_token_id: int
    train: TokenizedSplit
    validation: TokenizedSplit
    sha256: str
    pairs: bool  # whether an example is two texts
    test: TokenizedSplit | None = None
    tokenizer_sha256: str | None = None  # of the files of the tokenizer that was read; None: not known
    unknown_share: float | None = None  # of the tokens, in the split that has most; None where nothing can be unknown
    vocabulary: int = 0  # tokens that the tokenizer has; 0: not known
    kind: str = "texts"
    abstains: bool = False  # whether a question may have no answer, as some of training have none
    threshold: float | None = 0.5  # of labels, as `Raw` has it

    @property
    def splits(self) -> tuple[TokenizedSplit, ...]:
        """The splits there are: train, validation and, where there is one, test."""
        return (self.train, self.validation) + (() if self.test is None else (self.test,))
