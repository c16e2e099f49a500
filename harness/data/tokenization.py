"""Texts become token ids: a task as training reads it."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from harness.common.errors import HarnessError
from harness.common.text import count_noun
from harness.data import choices, completions, spans, vocabulary
from harness.data.examples import NO_LABEL, Raw, Rows, splits
from harness.data.tokenized import Task, TokenizedSplit


class Tokenizer(Protocol):
    """What is used of a transformers tokeniser."""

    pad_token_id: int | None

    def __call__(self, text: list[str], text_pair: list[str] | None = None, **options: Any) -> Any:
        """Give `input_ids`, and `token_type_ids` where the model has them, as lists."""

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """Count the tokens that stand around and between the texts."""


def tokenise(raw: Raw, tokenizer: Tokenizer, max_length: int) -> Task:
    """Turn a task's texts into token ids of at most `max_length`, the longer text of a pair being cut first.

    Segment ids are the tokeniser's, zeros where it has none. Raises HarnessError for a tokeniser without a padding
    token, a `max_length` that leaves the texts no room, and a text that gives no token at all.
    """
    if raw.kind == "completion":
        return completions.tokenise(raw, tokenizer, max_length)
    if raw.kind == "choice":
        return choices.tokenise(raw, tokenizer, max_length)
    if raw.kind == "span":
        return spans.tokenise(raw, tokenizer, max_length)
    pad = tokenizer.pad_token_id
    if pad is None:
        raise HarnessError(
            "the model's tokenizer has no padding token", fix="Set one, or use a model whose tokenizer has one"
        )
    room_needed = 1 if raw.train.pairs is None else 2
    special = tokenizer.num_special_tokens_to_add(pair=raw.train.pairs is not None)
    if max_length < special + room_needed:
        raise HarnessError(
            f"max_length must be >= {special + room_needed}, to leave room for the texts beside the special tokens",
            got=max_length,
            fix="Raise max_length",
        )
    if raw.train.words is not None:
        return _tokenise_words(raw, tokenizer, max_length, pad, special)
    encoded = {name: encode(rows.texts, rows.pairs, tokenizer, max_length) for name, rows in splits(raw).items()}
    # A test split has a width of its own: training is the same with and without it.
    widths = {name: max(map(len, ids)) for name, (ids, _) in encoded.items()}
    widths |= dict.fromkeys(("train", "validation"), max(widths["train"], widths["validation"]))
    tokenised = {
        name: _split(*encoded[name], rows.labels, widths[name], pad, name, rows.groups)
        for name, rows in splits(raw).items()
    }
    unknown = _most_unknown({name: ids for name, (ids, _) in encoded.items()}, raw, special, tokenizer)
    return Task(
        name=raw.name,
        metric=raw.metric,
        label_names=raw.label_names,
        num_labels=1 if raw.label_names is None else len(raw.label_names),
        pad_token_id=pad,
        train=tokenised["train"],
        validation=tokenised["validation"],
        sha256=raw.sha256,
        pairs=raw.train.pairs is not None,
        test=tokenised.get("test"),
        unknown_share=unknown,
        vocabulary=_size(tokenizer),
        kind=raw.kind,
        threshold=raw.threshold,
    )


def _most_unknown(encoded: dict[str, list[list[int]]], raw: Raw, special: int, tokenizer: Tokenizer) -> float | None:
    """The share of unknown tokens in the split that has most."""
    shares = (
        vocabulary.unknown_share(encoded[name], special, tokenizer, rows.texts, rows.pairs)
        for name, rows in splits(raw).items()
    )
    return max((share for share in shares if share is not None), default=None)


def _size(tokenizer: Any) -> int:
    return len(tokenizer) if hasattr(tokenizer, "__len__") else 0


def with_copies(task: Task, copies: Sequence[Rows], tokenizer: Tokenizer) -> TokenizedSplit:
    """The training split [N] with changed copies of its examples behind it, each [C], as [N + C + C + …].

    A copy is cut where it is longer than the longest example of the task, so that no lane's width depends on draws.
    Raises HarnessError for a text that gives no token at all.
    """
    width = task.train.input_ids.shape[1]
    parts = [task.train]
    for rows in copies:
        ids, segments = encode(rows.texts, rows.pairs, tokenizer, width)
        parts.append(_split(ids, segments, rows.labels, width, task.pad_token_id, "augmented training"))
    names = ("input_ids", "lengths", "token_type_ids", "labels")
    return TokenizedSplit(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _split(
    ids: list[list[int]],
    segments: list[list[int]],
    labels: np.ndarray,
    width: int,
    pad: int,
    name: str,
    groups: np.ndarray | None = None,
) -> TokenizedSplit:
    return TokenizedSplit(
        input_ids=_padded(ids, width, pad),
        lengths=_lengths(ids, name),
        token_type_ids=_padded(segments, width, 0),
        labels=labels,
        sentences=np.full(len(labels), labels.shape[1]) if labels.ndim == 2 else groups,
    )


def encode(
    texts: Sequence[str], pairs: Sequence[str] | None, tokenizer: Tokenizer, max_length: int
) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids and segment ids of each example, cut as `tokenise` does and not padded."""
    encoded = tokenizer(
        list(texts),
        None if pairs is None else list(pairs),
        truncation="longest_first",
        max_length=max_length,
        padding=False,
        return_attention_mask=False,
    )
    ids: list[list[int]] = encoded["input_ids"]
    segments: list[list[int]] = encoded["token_type_ids"] if "token_type_ids" in encoded else [[]] * len(ids)
    return ids, segments


def _lengths(ids: list[list[int]], split: str) -> np.ndarray:
    lengths = np.array([len(example) for example in ids], dtype=np.int64)
    if not lengths.all():
        raise HarnessError(
            f"example {int(np.argmin(lengths)) + 1} of the {split} split gives no token: none of it is in the "
            "tokenizer's alphabet",
            fix="Remove it or use another model",
        )
    return lengths


def _padded(examples: list[list[int]], width: int, value: int) -> np.ndarray:
    padded = np.full((len(examples), width), value, dtype=np.int64)
    for row, example in zip(padded, examples, strict=True):
        row[: len(example)] = example
    return padded


# ------------------------------------------------------------------------------------------------------- words and tags


def _tokenise_words(raw: Raw, tokenizer: Tokenizer, max_length: int, pad: int, special: int) -> Task:
    """As `tokenise`, with each word's label on its first token.

    Words that are cut off or give no token are left out in training; in a split that is scored they are refused.
    """
    tokenised = {}
    for name, rows in splits(raw).items():
        ids, segments, labels = encode_words(rows, tokenizer, max_length)
        seen = np.array([sum(label != NO_LABEL for label in row) for row in labels])
        if name != "train":
            refuse_unseen(rows, seen, tokenizer, max_length)
        tokenised[name] = ids, segments, labels, seen
    widths = {name: max(map(len, ids)) for name, (ids, *_) in tokenised.items()}
    widths |= dict.fromkeys(("train", "validation"), max(widths["train"], widths["validation"]))
    made = {
        name: TokenizedSplit(
            input_ids=_padded(ids, widths[name], pad),
            lengths=_lengths(ids, name),
            token_type_ids=_padded(segments, widths[name], 0),
            labels=_padded(labels, widths[name], NO_LABEL),
            sentences=seen.astype(np.int64),
        )
        for name, (ids, segments, labels, seen) in tokenised.items()
    }
    names = raw.label_names
    assert names is not None
    splits_made = (made["train"], made["validation"])
    unknown = _most_unknown({name: ids for name, (ids, *_) in tokenised.items()}, raw, special, tokenizer)
    return Task(
        raw.name, raw.metric, names, len(names), pad, *splits_made, raw.sha256, pairs=False, test=made.get("test"),
        unknown_share=unknown, vocabulary=_size(tokenizer),
    )  # fmt: skip


def check_words(raw: Raw, tokenizer: Tokenizer, max_length: int) -> None:
    """Raise HarnessError for words of a scored split that are cut off or give no token, as `tokenise`."""
    for name, rows in splits(raw).items():
        if name != "train":
            labels = encode_words(rows, tokenizer, max_length)[2]
            refuse_unseen(
                rows, np.array([sum(label != NO_LABEL for label in row) for row in labels]), tokenizer, max_length
            )


def refuse_unseen(rows: Rows, seen: np.ndarray, tokenizer: Tokenizer, max_length: int) -> None:
    """Refuse sentences of which fewer words have a token than are scored; `seen` [N] counts them."""
    words = (rows.labels != NO_LABEL).sum(axis=1)
    lacking = np.flatnonzero(seen < words)
    if not lacking.size:
        return
    first = int(lacking[0])
    whole = tokenizer([rows.texts[row] for row in lacking], truncation=False, padding=False, verbose=False)["input_ids"]
    longest = max(map(len, whole))
    too_long = sum(len(ids) > max_length for ids in whole)
    others = (
        f"; {count_noun(too_long, 'sentence')} of that split too long, of up to {longest} tokens" if too_long else ""
    )
    raise HarnessError(
        f"{rows.source}, {rows.unit} {rows.numbers[first]}: only {seen[first]} of {words[first]} words have a token "
        f"within max_length {max_length}{others}",
        fix=(f"Raise max_length to {longest}, or split" if too_long else "Correct words without letters in")
        + (" the sentences" if lacking.size > 1 else " the sentence"),
    )


def encode_words(rows: Rows, tokenizer: Tokenizer, max_length: int) -> tuple[list[list[int]], ...]:
    """Token ids, segment ids and labels of each sentence, not padded."""
    try:
        encoded = tokenizer(
            list(rows.texts),
            truncation=True,
            max_length=max_length,
            padding=False,
            return_attention_mask=False,
            return_offsets_mapping=True,
        )
    except NotImplementedError:
        raise HarnessError(
            "the model's tokenizer cannot say where its tokens stand in a text: it is a slow one",
            fix="Use a model with a fast tokenizer",
        ) from None
    assert rows.words is not None
    ids = encoded["input_ids"]
    segments = encoded["token_type_ids"] if "token_type_ids" in encoded else [[]] * len(ids)
    labels = []
    for words, tags, offsets in zip(rows.words, rows.labels.tolist(), encoded["offset_mapping"], strict=True):
        # The word that each letter of the text belongs to; -1 for the blanks between them.
        of_letter = [word_number for number, word in enumerate(words) for word_number in (*[number] * len(word), -1)]
        row, last = [], -1
        for start, end in offsets:
            word = of_letter[end - 1] if end > start else -1  # special tokens are nowhere
            row.append(tags[word] if word > last else NO_LABEL)
            last = max(last, word)
        labels.append(row)
    return ids, segments, labels
