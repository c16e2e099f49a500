"""What a task's data are like, before anything is trained on them: sizes, labels, lengths, duplicates, leaks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np

from harness.common import metrics, squad
from harness.common.errors import HarnessError
from harness.config.recipe import TaskSpec
from harness.data import choices, completions, label_notes, tasks, vocabulary
from harness.data.examples import NO_LABEL, Raw, Rows
from harness.data.label_files import BETWEEN
from harness.data.tokenization import Tokenizer

MOST_SHOWN = 5  # examples of each finding
_BINS = 12  # of a histogram, about
_EXCERPT = 80  # characters
_LONG_WORD = 20  # characters a word on average, more than any language that parts its words has


_ANSWERED, _NO_ANSWER = "with an answer", "no answer"  # of questions about contexts


@dataclass(frozen=True)
class Lengths:
    """How long the examples of a split are, both texts of a pair together."""

    median: float
    p95: float
    longest: int


@dataclass(frozen=True)
class DatasetExample:
    """One example where it stands: its number in the source, its label, its length, and how it begins."""

    number: int
    label: str
    length: int
    begins: str


@dataclass(frozen=True)
class Repeated:
    """Examples with the same texts: the numbers of all of them in their sources, and their labels."""

    train: tuple[int, ...]
    dev: tuple[int, ...]
    labels: tuple[str, ...]
    begins: str
    test: tuple[int, ...] = ()


@dataclass(frozen=True)
class Leaks:
    """Examples of one split whose texts stand in another too, those of them whose label stands at none, the first."""

    examples: int
    disagreeing: int
    first: tuple[Repeated, ...]


@dataclass(frozen=True)
class SplitSummary:
    """One split; `tokens` count the special ones and are not cut, `cut` is how many examples max_length would cut."""

    source: str
    unit: str
    examples: int
    labels: dict[str, int] | None  # class and count, of a token task each word's; None for a regression
    label_range: tuple[float, float, float] | None  # of a regression: lowest, mean, highest
    words: Lengths
    characters: Lengths
    tokens: Lengths | None
    cut: int | None
    unknown: float | None  # share of the tokens, those around the texts left out; None where none can be
    repeats: int  # examples whose texts stood in the split before
    disagreeing: int  # texts that stand in it with different labels
    repeated: tuple[Repeated, ...]  # the first of them, those that disagree before the others
    longest: tuple[DatasetExample, ...]
    empty: tuple[int, ...]  # numbers of the examples with a blank text; training refuses them in files


@dataclass(frozen=True)
class Bin:
    """One bar of the histogram: lengths from `low` to `high`, None for all that are longer."""

    low: int
    high: int | None
    train: int
    dev: int
    test: int = 0


@dataclass(frozen=True)
class Described:
    """All of a task's data; `leaks` are dev examples whose texts are in the training split.

    What is said of a test split is None where there is none.
    """

    name: str
    metric: str
    kind: Literal["texts", "tokens", "completion", "labels", "choice", "span"]
    pairs: bool
    classes: int | None
    majority: float | None  # None of completions, which are held against the untouched model
    sha256: str
    max_length: int
    train: SplitSummary
    dev: SplitSummary
    leaks: int
    leaks_disagreeing: int  # of them, those whose label no such training example has
    leaked: tuple[Repeated, ...]
    unit: Literal["tokens", "words", "characters"]  # of the histogram and the longest
    histogram: tuple[Bin, ...]
    test: SplitSummary | None = None
    test_leaks_of_train: Leaks | None = None  # test examples whose texts are in the training split
    test_leaks_of_dev: Leaks | None = None  # … in the dev split, by which all is chosen
    notes: tuple[str, ...] = ()  # what its labels can't show, and why a sweep would refuse them


def describe(spec: TaskSpec, tokenizer: Tokenizer | None, max_length: int) -> Described:
    """Read a task and look at it; lengths in tokens where there is a tokenizer. Raises HarnessError as `tasks.load`."""
    raw = tasks.load(spec, blank=True)
    splits = (raw.train, raw.validation, *(() if raw.test is None else (raw.test,)))
    unit: Literal["tokens", "words", "characters"] = "tokens"
    if tokenizer is None:  # where no blanks part the words, as in Japanese, there is nothing but letters to count
        words, characters = _words(raw.train).sum(), _characters(raw.train).sum()
        unit = "words" if characters < _LONG_WORD * words else "characters"
    lengths, unknown = [], []
    for rows in splits:
        counted, share = _tokens(rows, tokenizer) if tokenizer else (None, None)
        unknown.append(share)
        lengths.append(counted if counted is not None else _words(rows) if unit == "words" else _characters(rows))
    longest = max_length if unit == "tokens" else None
    train, dev, *test = (
        _split(raw, rows, lengths_of_split, longest, share)
        for rows, lengths_of_split, share in zip(splits, lengths, unknown, strict=True)
    )
    leaks = _leaks(raw, raw.train, raw.validation)
    classes = None if raw.label_names is None else len(raw.label_names)
    return Described(
        name=raw.name,
        metric=raw.metric,
        kind=spec.kind,
        pairs=raw.train.pairs is not None,
        classes=classes,
        majority=_majority(raw, classes),
        sha256=raw.sha256,
        max_length=max_length,
        train=train,
        dev=dev,
        leaks=leaks.examples,
        leaks_disagreeing=leaks.disagreeing,
        leaked=leaks.first,
        unit=unit,
        histogram=_histogram(*lengths),
        test=test[0] if test else None,
        test_leaks_of_train=None if raw.test is None else _leaks(raw, raw.train, raw.test),
        test_leaks_of_dev=None if raw.test is None else _leaks(raw, raw.validation, raw.test),
        notes=(*_refusals(raw), *label_notes.of(raw)),
    )


def _majority(raw: Raw, classes: int | None) -> float | None:
    """What always answering the same scores on dev; None of completions."""
    if raw.kind == "completion":
        return None
    labels = raw.validation.labels
    if raw.kind == "span":
        labels = squad.constant(raw.metric, raw.validation.expected)[1]
    return metrics.majority(raw.metric, labels, classes, raw.validation.groups).value


def _refusals(raw: Raw) -> list[str]:
    """Why a sweep would refuse the labels."""
    notes = []
    for refuse in (label_notes.refuse_ids, label_notes.refuse_single):
        try:
            refuse(raw)
        except HarnessError as error:
            problem = str(error).rstrip(".")  # an error of several sentences ends in a full stop already
            notes.append(f"A sweep refuses these data: {problem}.")
    return notes


def _joined(rows: Rows) -> list[tuple[str, ...]]:
    """The texts that tell examples apart: of completions the prompts, whose answers are as labels."""
    if rows.answers:
        return [(text,) for text in rows.texts]
    return _whole(rows)


def _whole(rows: Rows) -> list[tuple[str, ...]]:
    if rows.choices is not None and not rows.answers:
        return [(text, *own) for text, own in zip(rows.texts, rows.choices, strict=True)]
    return [(text,) for text in rows.texts] if rows.pairs is None else list(zip(rows.texts, rows.pairs, strict=True))


def _words(rows: Rows) -> np.ndarray:
    return np.array([sum(len(text.split()) for text in texts) for texts in _whole(rows)])


def _characters(rows: Rows) -> np.ndarray:
    return np.array([sum(map(len, texts)) for texts in _whole(rows)])


def _tokens(rows: Rows, tokenizer: Tokenizer) -> tuple[np.ndarray, float | None]:
    """Lengths as training would have them, were nothing cut, with the special tokens; and the share of unknown ones."""
    if rows.answers:
        encoded = completions.encode(rows.texts, rows.pairs or (), rows.chat, tokenizer)
        return np.array([len(example.ids) for example in encoded]), None
    texts, pairs = list(rows.texts), None if rows.pairs is None else list(rows.pairs)
    if rows.choices is not None:
        texts, pairs = choices.sequences(rows.texts, rows.choices)
    options = {"truncation": False, "padding": False, "return_attention_mask": False, "verbose": False}
    ids = tokenizer(texts, pairs, **options)["input_ids"]
    special = tokenizer.num_special_tokens_to_add(pair=pairs is not None)
    longest = np.array([len(row) for row in ids]).reshape(len(rows.texts), -1).max(axis=1)  # of an example's choices
    return longest, vocabulary.unknown_share(ids, special, tokenizer, texts, pairs)


def _lengths(counts: np.ndarray) -> Lengths:
    return Lengths(float(np.median(counts)), float(np.quantile(counts, 0.95)), int(counts.max()))


def _labels(raw: Raw, rows: Rows) -> list[str]:
    """The label of each example as the data spell it; of a token task all the tags of a sentence."""
    if rows.answers:
        return [answer.strip() for answer in rows.pairs or ()]
    if rows.words is not None:
        return [" ".join(tags) for tags in _tags(raw, rows)]
    if rows.spans is not None:
        return [" | ".join(dict.fromkeys(own)) or _NO_ANSWER for own in rows.expected]
    if raw.kind == "labels":
        return [BETWEEN.join(names) for names in _many(raw, rows)]
    if raw.label_names is None:
        return [f"{label:g}" for label in rows.labels.tolist()]
    return [raw.label_names[label] for label in rows.labels.tolist()]


def _many(raw: Raw, rows: Rows) -> list[list[str]]:
    """The labels of each text of a task where it may have any number."""
    return [[(raw.label_names or ())[place] for place in np.flatnonzero(row)] for row in rows.labels]


def _tags(raw: Raw, rows: Rows) -> list[list[str]]:
    names = raw.label_names or ()
    return [[names[tag] for tag in row if tag != NO_LABEL] for row in rows.labels.tolist()]


def _begins(texts: tuple[str, ...]) -> str:
    text = " | ".join(" ".join(part.split()) for part in texts)
    return text if len(text) <= _EXCERPT else text[: _EXCERPT - 1] + "…"


def _split(raw: Raw, rows: Rows, lengths: np.ndarray, max_length: int | None, unknown: float | None) -> SplitSummary:
    """`lengths` [N] are tokens where a `max_length` says how many of them are kept."""
    texts, labels = _joined(rows), _labels(raw, rows)
    places: dict[tuple[str, ...], list[int]] = {}
    for position, example in enumerate(texts):
        places.setdefault(example, []).append(position)
    several = {example: positions for example, positions in places.items() if len(positions) > 1}
    spelt = {
        example: tuple(dict.fromkeys(labels[position] for position in positions))
        for example, positions in several.items()
    }
    first = sorted(several, key=lambda example: len(spelt[example]) == 1)[:MOST_SHOWN]
    parts = _many(raw, rows) if raw.kind == "labels" else [[label] for label in labels]
    if rows.spans is not None:
        parts = [[_ANSWERED if own else _NO_ANSWER] for own in rows.spans]
    counts = Counter(name for names in (parts if rows.words is None else _tags(raw, rows)) for name in names)
    # Of a sentence its entities are said for short.
    short = (
        labels if rows.words is None else [f"entities: {tags_of_sentence.count('B-')}" for tags_of_sentence in labels]
    )
    order = np.argsort(-lengths, kind="stable")[:MOST_SHOWN].tolist()
    regression = raw.label_names is None

    def repeated(example: tuple[str, ...]) -> Repeated:
        numbers = tuple(rows.numbers[position] for position in several[example])
        return _repeated(raw, {rows: numbers}, spelt[example], example)

    return SplitSummary(
        source=rows.source,
        unit=rows.unit,
        examples=len(texts),
        labels=None
        if raw.label_names is None
        else {name: counts[name] for name in (raw.label_names if rows.spans is None else (_ANSWERED, _NO_ANSWER))},
        label_range=(float(rows.labels.min()), float(rows.labels.mean()), float(rows.labels.max()))
        if regression
        else None,
        words=_lengths(_words(rows)),
        characters=_lengths(_characters(rows)),
        tokens=None if max_length is None else _lengths(lengths),
        cut=None if max_length is None else int((lengths > max_length).sum()),
        unknown=unknown,
        repeats=len(texts) - len(places),
        disagreeing=sum(len(positions) > 1 for positions in spelt.values()),
        repeated=tuple(map(repeated, first)),
        longest=tuple(DatasetExample(rows.numbers[i], short[i], int(lengths[i]), _begins(texts[i])) for i in order),
        empty=()
        if rows.answers
        else tuple(rows.numbers[i] for i, example in enumerate(texts) if not all(text.strip() for text in example)),
    )


def _repeated(
    raw: Raw, numbers: dict[Rows, tuple[int, ...]], labels: tuple[str, ...], texts: tuple[str, ...]
) -> Repeated:
    """`numbers` of each split that has the texts."""
    train, dev = numbers.get(raw.train, ()), numbers.get(raw.validation, ())
    return Repeated(train, dev, labels, _begins(texts), () if raw.test is None else numbers.get(raw.test, ()))


def _leaks(raw: Raw, source: Rows, into: Rows) -> Leaks:
    """Examples of the split `into` whose texts are in `source`; those of them with another label stand first."""
    known: dict[tuple[str, ...], list[int]] = {}
    for position, texts in enumerate(_joined(source)):
        known.setdefault(texts, []).append(position)
    labels, own = _labels(raw, source), _labels(raw, into)
    leaks, agree = [], []
    for number, texts in enumerate(_joined(into)):
        if texts not in known:
            continue
        there = [labels[other] for other in known[texts]]
        agree.append(own[number] in there)
        numbers = {source: tuple(source.numbers[other] for other in known[texts]), into: (into.numbers[number],)}
        leaks.append(_repeated(raw, numbers, tuple(dict.fromkeys([*there, own[number]])), texts))
    first = sorted(range(len(leaks)), key=lambda number: agree[number])[:MOST_SHOWN]
    return Leaks(len(leaks), len(agree) - sum(agree), tuple(leaks[number] for number in first))


def _histogram(*lengths: np.ndarray) -> tuple[Bin, ...]:
    """Bars of one width, 1, 2 or 5 times a power of ten, up to the 99th percentile; the last has all above it too."""
    together = np.concatenate(lengths)
    top = max(float(np.quantile(together, 0.99)), 1.0)
    scale = 10 ** int(np.log10(max(top / _BINS, 1.0)))
    width = next(step * scale for step in (1, 2, 5, 10) if step * scale * _BINS >= top)
    bins = []
    for low in range(int(together.min()) // width * width, int(top) + 1, width):
        last = low + width > int(top)
        inside = [int(((of_split >= low) & (last | (of_split < low + width))).sum()) for of_split in lengths]
        bins.append(Bin(low, None if last and together.max() >= low + width else low + width - 1, *inside))
    return tuple(bins)
