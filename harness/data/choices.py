"""Texts with choices become token ids: each choice with its text is a sequence of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.common.errors import HarnessError
from harness.common.text import count_noun
from harness.data import vocabulary
from harness.data.examples import Raw, Rows, splits
from harness.data.text_columns import refuse
from harness.data.tokenized import Task, TokenizedSplit

Encoded = tuple[list[list[int]], list[list[int]]]  # token ids and segment ids of each sequence, not padded


def tokenise(raw: Raw, tokenizer: Any, max_length: int) -> Task:
    """The task as token ids [N, C, T]; a text that is too long loses its end, a choice nothing.

    Raises HarnessError as `encode`, and for a tokenizer without a padding token.
    """
    pad = tokenizer.pad_token_id
    if pad is None:
        raise HarnessError(
            "the model's tokenizer has no padding token", fix="Set one, or use a model whose tokenizer has one"
        )
    encoded = {name: encode_rows(rows, tokenizer, max_length) for name, rows in splits(raw).items()}
    widths = {name: max(map(len, ids)) for name, (ids, _) in encoded.items()}
    widths |= dict.fromkeys(("train", "validation"), max(widths["train"], widths["validation"]))
    made = {name: _split(rows, *encoded[name], widths[name], pad) for name, rows in splits(raw).items()}
    special = tokenizer.num_special_tokens_to_add(pair=True)
    unknown = [
        vocabulary.unknown_share(encoded[name][0], special, tokenizer, *sequences(rows.texts, rows.choices or ()))
        for name, rows in splits(raw).items()
    ]
    names = raw.label_names
    assert names is not None
    return Task(
        name=raw.name,
        metric=raw.metric,
        label_names=names,
        num_labels=len(names),
        pad_token_id=pad,
        train=made["train"],
        validation=made["validation"],
        sha256=raw.sha256,
        pairs=True,
        test=made.get("test"),
        unknown_share=max((share for share in unknown if share is not None), default=None),
        vocabulary=len(tokenizer),
        kind="choice",
    )


def encode_rows(rows: Rows, tokenizer: Any, max_length: int) -> Encoded:
    """The sequences of all examples of a split; raises HarnessError as `encode`."""
    assert rows.choices is not None
    return encode(rows.texts, rows.choices, tokenizer, max_length, rows.source, rows.numbers)


def encode(
    texts: Sequence[str],
    choices: Sequence[Sequence[str]],
    tokenizer: Any,
    max_length: int,
    source: str,
    numbers: Sequence[int],
) -> Encoded:
    """Token ids and segment ids of each text with each of its choices, N · C sequences of at most `max_length`.

    Args:
        texts: N texts, whose ends are cut where a sequence is too long.
        choices: What may follow each.
        tokenizer: The tokenizer.
        max_length: The longest sequence, with the special tokens.
        source: The file, for errors.
        numbers: Each text's line in it.

    Raises:
        HarnessError: A choice leaves no room for a token of its text.
    """
    firsts, seconds = sequences(texts, choices)
    room = max_length - tokenizer.num_special_tokens_to_add(pair=True) - 1  # a token of the text
    plain = {"padding": False, "return_attention_mask": False, "verbose": False}
    lengths = [len(ids) for ids in tokenizer(seconds, add_special_tokens=False, **plain)["input_ids"]]
    longest = int(np.argmax(lengths))
    if lengths[longest] > room:
        refuse(
            f"a choice has {count_noun(lengths[longest], 'token')}, and max_length {max_length} leaves "
            f"{max(0, room)} for it",
            source,
            numbers[longest // len(choices[0])],
            fix=f"Raise max_length to {max_length + lengths[longest] - room}",
        )
    given = tokenizer(firsts, seconds, truncation="only_first", max_length=max_length, **plain)
    ids: list[list[int]] = given["input_ids"]
    return ids, given["token_type_ids"] if "token_type_ids" in given else [[]] * len(ids)


def sequences(texts: Sequence[str], choices: Sequence[Sequence[str]]) -> tuple[list[str], list[str]]:
    """Each text once for each of its choices, and these, [N · C] each."""
    firsts = [text for text, own in zip(texts, choices, strict=True) for _ in own]
    return firsts, [choice for own in choices for choice in own]


def _split(rows: Rows, ids: list[list[int]], segments: list[list[int]], width: int, pad: int) -> TokenizedSplit:
    shape = (len(rows.texts), -1)
    return TokenizedSplit(
        input_ids=_padded(ids, width, pad).reshape(*shape, width),
        lengths=np.array([len(sequence) for sequence in ids], dtype=np.int64).reshape(shape),
        token_type_ids=_padded(segments, width, 0).reshape(*shape, width),
        labels=rows.labels,
    )


def _padded(rows: list[list[int]], width: int, value: int) -> np.ndarray:
    padded = np.full((len(rows), width), value, dtype=np.int64)
    for line, row in zip(padded, rows, strict=True):
        line[: len(row)] = row
    return padded
