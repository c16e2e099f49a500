"""Questions and contexts become windows of token ids: a long context is read in parts that overlap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.common import squad
from harness.common.errors import HarnessError
from harness.common.text import count_noun
from harness.data import vocabulary
from harness.data.examples import Raw, Rows, Span, splits
from harness.data.tokenized import Task, TokenizedSplit, Windows

# What is known of each window, a column each, all but `length` places of tokens in it. `start` and `end` are the first
# and the last token of the answer, both `none` where the window has none; `length` counts its tokens; `none` is where
# no answer is told, the classification token; the context stands from `first` up to `behind`.
LABELS = ("start", "end", "length", "none", "first", "behind")

_TOGETHER = 1024  # questions


@dataclass(frozen=True)
class Window:
    """A question with a part of its context, before padding."""

    question: int  # of the split, from 0
    ids: tuple[int, ...]
    types: tuple[int, ...]
    offsets: np.ndarray  # [T, 2] int32: characters before each token of the context and up to its end; else 0
    none: int
    first: int
    behind: int

    def places(self, span: Span) -> tuple[int, int] | None:
        """The first and the last token of an answer; None where it does not stand whole in the window."""
        begins, ends = self.offsets[self.first : self.behind].T
        start = span.start + len(span.text) - len(span.text.lstrip())
        end = start + len(span.text.strip())
        if not len(begins) or begins[0] > start or ends[-1] < end:
            return None
        first = int(np.searchsorted(begins, start))  # the first of several tokens of one character
        if (first == len(begins) or begins[first] > start) and ends[first - 1] > start:  # it begins within a token
            first = int(np.searchsorted(begins, begins[first - 1]))
        last = int(np.searchsorted(ends, end))
        last -= begins[last] >= end  # it ends behind a token, with what is in none
        last = int(np.searchsorted(ends, ends[last], side="right")) - 1
        return self.first + first, self.first + last

    def labels(self, spans: Sequence[Span]) -> tuple[int, ...]:
        """The window's `LABELS`: of the first of the answers that stands whole in it."""
        there = next((places for span in spans if (places := self.places(span))), (self.none, self.none))
        return (*there, len(self.ids), self.none, self.first, self.behind)


def tokenise(raw: Raw, tokenizer: Any, max_length: int) -> Task:
    """The task as windows of token ids.

    Training learns the first answer that stands whole in a window, and where none does, that there is none, as
    transformers' examples do. Raises HarnessError for an answer that no window has whole, and as `windows`.
    """
    made = {name: windows(rows, tokenizer, max_length, raw.stride) for name, rows in splits(raw).items()}
    for name, rows in splits(raw).items():
        _refuse_cut(rows, made[name], max_length)
    widths = {name: max(len(window.ids) for window in own) for name, own in made.items()}
    widths |= dict.fromkeys(("train", "validation"), max(widths["train"], widths["validation"]))
    pad = tokenizer.pad_token_id
    tokenised = {
        name: _split(rows, made[name], widths[name], pad, None if name == "train" else raw.metric)
        for name, rows in splits(raw).items()
    }
    special = tokenizer.num_special_tokens_to_add(pair=True)
    shares = [
        vocabulary.unknown_share([window.ids for window in made[name]], special, tokenizer) for name in splits(raw)
    ]
    return Task(
        name=raw.name,
        metric=raw.metric,
        label_names=raw.label_names,
        num_labels=2,
        pad_token_id=pad,
        train=tokenised["train"],
        validation=tokenised["validation"],
        sha256=raw.sha256,
        pairs=True,
        test=tokenised.get("test"),
        unknown_share=max((share for share in shares if share is not None), default=None),
        vocabulary=len(tokenizer),
        kind="span",
        abstains=not raw.train.labels.all(),
    )


def check(raw: Raw, tokenizer: Any, max_length: int) -> None:
    """Raise HarnessError for what `tokenise` refuses."""
    for rows in splits(raw).values():
        _refuse_cut(rows, windows(rows, tokenizer, max_length, raw.stride), max_length)


def windows(rows: Rows, tokenizer: Any, max_length: int, stride: int | None) -> list[Window]:
    """The windows of all questions in order; each begins `stride` tokens before the end of the one before.

    Raises HarnessError for a tokenizer that is slow or has no padding token, a question that leaves a long context no
    room beside what two windows share, and a context that gives no token.
    """
    if tokenizer.pad_token_id is None:
        raise HarnessError(
            "the model's tokenizer has no padding token", fix="Set one, or use a model whose tokenizer has one"
        )
    if not getattr(tokenizer, "is_fast", False):
        raise HarnessError(
            "the model's tokenizer cannot say where its tokens stand in a text: it is a slow one",
            fix="Use a model with a fast tokenizer",
        )
    overlap = max_length // 3 if stride is None else stride
    made: list[Window] = []
    for whole in _uncut(rows, tokenizer):
        beside = len(whole.ids) - (whole.behind - whole.first)
        room = max_length - beside
        if len(whole.ids) > max_length and room <= overlap:
            _refuse(
                rows, whole.question,
                f"the question takes {beside} of max_length {max_length} tokens; windows share {overlap}",
                f"Raise max_length to {beside + overlap + 1} or more"
                + (f", or lower task.stride below {room}" if room > 1 else ""),
            )  # fmt: skip
        made += [whole] if len(whole.ids) <= max_length else _parts(whole, room, overlap)
    return made


def _uncut(rows: Rows, tokenizer: Any) -> Iterator[Window]:
    """Each question with its whole context; some are tokenised together, for all would fill the memory."""
    assert rows.pairs is not None
    for start in range(0, len(rows.texts), _TOGETHER):
        questions, contexts = (list(texts[start : start + _TOGETHER]) for texts in (rows.texts, rows.pairs))
        encoded = tokenizer(
            questions, contexts, truncation=False, padding=False, verbose=False, return_attention_mask=False,
            return_offsets_mapping=True,
        )  # fmt: skip
        for place, ids in enumerate(encoded["input_ids"]):
            of = encoded.sequence_ids(place)
            if 1 not in of:
                _refuse(rows, start + place, "the context gives no token", "Correct or remove that question")
            yield Window(
                question=start + place,
                ids=tuple(ids),
                types=tuple(encoded["token_type_ids"][place] if "token_type_ids" in encoded else ()),
                offsets=np.where(np.array(of)[:, None] == 1, encoded["offset_mapping"][place], 0).astype(np.int32),
                none=ids.index(tokenizer.cls_token_id) if tokenizer.cls_token_id in ids else 0,
                first=of.index(1),
                behind=len(of) - of[::-1].index(1),
            )


def _parts(whole: Window, room: int, overlap: int) -> list[Window]:
    """The windows of a context that is too long for one, with so many of its tokens each."""
    parts = []
    for begin in range(whole.first, whole.behind, room - overlap):
        behind = min(begin + room, whole.behind)
        parts.append(_part(whole, begin, behind))
        if behind == whole.behind:
            break
    return parts


def _part(whole: Window, begin: int, behind: int) -> Window:
    kept = [*range(whole.first), *range(begin, behind), *range(whole.behind, len(whole.ids))]
    gone = whole.behind - whole.first - (behind - begin)
    return Window(
        question=whole.question,
        ids=tuple(whole.ids[place] for place in kept),
        types=tuple(whole.types[place] for place in kept) if whole.types else (),
        offsets=whole.offsets[kept],
        none=whole.none if whole.none < whole.first else whole.none - gone,
        first=whole.first,
        behind=whole.first + behind - begin,
    )


def _refuse_cut(rows: Rows, made: Sequence[Window], max_length: int) -> None:
    """Raise HarnessError for questions that have answers, none of which stands whole in a window."""
    assert rows.spans is not None
    there = {window.question for window in made if any(window.places(span) for span in rows.spans[window.question])}
    lacking = [number for number, spans in enumerate(rows.spans) if spans and number not in there]
    if lacking:
        others = f" and {count_noun(len(lacking) - 1, 'other')}" if len(lacking) > 1 else ""
        raise HarnessError(
            f"{rows.source}, {rows.unit} {rows.numbers[lacking[0]]}{others}: the answer stands whole in no window of "
            f"max_length {max_length}",
            got=f"'{rows.spans[lacking[0]][0].text[:60]}'",
            fix="Raise max_length, or task.stride to the tokens of the longest answer: answers are never cut",
        )


def _refuse(rows: Rows, number: int, problem: str, fix: str) -> None:
    raise HarnessError(f"{rows.source}, {rows.unit} {rows.numbers[number]}: {problem}", fix=fix)


def _split(rows: Rows, made: Sequence[Window], width: int, pad: int, metric: str | None) -> TokenizedSplit:
    """The split of windows; with what its answers are compared with where they are scored by a `metric`."""
    assert rows.spans is not None
    count = len(made)
    ids, types = np.full((count, width), pad, dtype=np.int64), np.zeros((count, width), dtype=np.int64)
    for place, window in enumerate(made):
        ids[place, : len(window.ids)] = window.ids
        types[place, : len(window.types)] = window.types
    return TokenizedSplit(
        input_ids=ids,
        lengths=np.array([len(window.ids) for window in made], dtype=np.int64),
        token_type_ids=types,
        labels=np.array([window.labels(rows.spans[window.question]) for window in made], dtype=np.int64),
        windows=None if metric is None else _compared(rows, made, width, metric),
    )


def _compared(rows: Rows, made: Sequence[Window], width: int, metric: str) -> Windows:
    return Windows(
        question=np.array([window.question for window in made], dtype=np.int64),
        offsets=padded_offsets(made, width),
        contexts=rows.pairs or (),
        expected=rows.expected,
        constant=squad.constant(metric, rows.expected)[1],
    )


def padded_offsets(made: Sequence[Window], width: int) -> np.ndarray:
    """Where the tokens of windows stand in their contexts, [N, width, 2] int32."""
    offsets = np.zeros((len(made), width, 2), dtype=np.int32)
    for place, window in enumerate(made):
        offsets[place, : len(window.ids)] = window.offsets
    return offsets
