"""What is learned: a task's name or files become rows of text and label, and those become token ids."""

import csv
import hashlib
import io
import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

import numpy as np

from harness import hub
from harness.metrics import ENTITIES, counts, is_regression
from harness.sweep import HarnessError, Metric, Recipe, TaskFiles, TaskSpec, so_many

GLUE_REPOSITORY = "nyu-mll/glue"
EMBEDDED = "embedded"


@dataclass(frozen=True, eq=False)
class Rows:
    """One split as text; `labels` [N] are class indexes (int64), or numbers (float32) for a regression.

    `numbers` [N] say where in the `source` each example stands: lines of a file, or rows of a data set (`unit`). Of a
    token task an example is a sentence, its text the `words` with blanks between them, and `labels` [N, W] those of
    the words, `NO_LABEL` behind the last.
    """

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    labels: np.ndarray
    source: str
    unit: str
    numbers: Sequence[int]
    words: tuple[tuple[str, ...], ...] | None = None


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


@dataclass(frozen=True, eq=False)
class Split:
    """One split as token ids, padded on the right to the longest example of training and dev split, or of the test's.

    `input_ids` and `token_type_ids` are [N, T] int64, `lengths` [N] int64 counts the tokens that are no padding,
    `labels` are those of `Rows`; of a token task [N, T], on a word's first token, and `NO_LABEL` elsewhere. Then
    `sentences` [N] counts the words that have one.
    """

    input_ids: np.ndarray
    lengths: np.ndarray
    token_type_ids: np.ndarray
    labels: np.ndarray
    sentences: np.ndarray | None = None

    @property
    def targets(self) -> np.ndarray:
        """What is scored: the labels [N]; of a token task those of all words in order."""
        return self.labels if self.sentences is None else self.labels[self.labels != NO_LABEL]


@dataclass(frozen=True, eq=False)
class Task:
    """What training needs of a task; `num_labels` is the number of logits, 1 for a regression."""

    name: str
    metric: Metric
    label_names: tuple[str, ...] | None
    num_labels: int
    pad_token_id: int
    train: Split
    validation: Split
    sha256: str
    pairs: bool  # whether an example is two texts
    test: Split | None = None

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits there are: train, validation and, where there is one, test."""
        return (self.train, self.validation) + (() if self.test is None else (self.test,))


class Tokenizer(Protocol):
    """What is used of a transformers tokeniser."""

    pad_token_id: int | None

    def __call__(self, text: list[str], text_pair: list[str] | None = None, **options: Any) -> Any:
        """Give `input_ids`, and `token_type_ids` where the model has them, as lists."""

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """Count the tokens that stand around and between the texts."""


@dataclass(frozen=True)
class _Glue:
    """A GLUE task: names its columns go by (on the hub first, then in the official files), and its official sizes.

    `names` are the hub's numbering of the labels; `headerless` the columns of official files that have no header.
    """

    text: tuple[str, ...]
    pair: tuple[str, ...]
    label: tuple[str, ...]
    names: tuple[str, ...]
    metric: Metric
    sizes: tuple[int, int]
    validation: str = "validation"
    headerless: tuple[int, int] | None = None  # text, label


# Columns, label names and sizes: Wang et al. 2019 (GLUE) as kept in nyu-mll/glue, and the headers of its TSV files.
_PAIR = (("sentence1",), ("sentence2",))
_GLUE: dict[str, _Glue] = {
    "cola": _Glue(
        ("sentence",),
        (),
        ("label",),
        ("unacceptable", "acceptable"),
        "matthews_correlation",
        (8_551, 1_043),
        headerless=(3, 1),
    ),
    "sst2": _Glue(("sentence",), (), ("label",), ("negative", "positive"), "accuracy", (67_349, 872)),
    "mrpc": _Glue(
        ("sentence1", "#1 String"),
        ("sentence2", "#2 String"),
        ("label", "Quality"),
        ("not_equivalent", "equivalent"),
        "f1",
        (3_668, 408),
    ),
    "stsb": _Glue(*_PAIR, ("label", "score"), (), "pearson", (5_749, 1_500)),
    "qqp": _Glue(
        ("question1",),
        ("question2",),
        ("label", "is_duplicate"),
        ("not_duplicate", "duplicate"),
        "f1",
        (363_846, 40_430),
    ),
    "mnli": _Glue(
        ("premise", "sentence1"),
        ("hypothesis", "sentence2"),
        ("label", "gold_label"),
        ("entailment", "neutral", "contradiction"),
        "accuracy",
        (392_702, 9_815),
        validation="validation_matched",
    ),
    "qnli": _Glue(
        ("question",), ("sentence",), ("label",), ("entailment", "not_entailment"), "accuracy", (104_743, 5_463)
    ),
    "rte": _Glue(*_PAIR, ("label",), ("entailment", "not_entailment"), "accuracy", (2_490, 277)),
    "wnli": _Glue(*_PAIR, ("label",), ("not_entailment", "entailment"), "accuracy", (635, 71)),
}
_OWN = _Glue(("text",), ("text_pair",), ("label",), (), "accuracy", (0, 0))  # files of one's own
NAMES = (*_GLUE, EMBEDDED)  # of tasks that need no files
SPLITS = ("train", "validation", "test")
NO_LABEL = -100  # of tokens that have none, as cross-entropy leaves them out
_SUFFIXES = (".tsv", ".csv", ".jsonl")
_TAGGED_SUFFIXES = (".conll", ".tsv", ".txt", ".jsonl")  # of words and tags


def load(spec: TaskSpec, blank: bool = False) -> Raw:
    """Read a task's splits: embedded, from files, or a GLUE task from the hub or its cache.

    `blank` texts in files are refused unless they are asked for, to be looked at. Raises HarnessError for data that
    are missing or not clean, with the file and its line, counted from 1.
    """
    if spec.kind == "tokens":
        return _load_tagged(spec)
    if spec.name == EMBEDDED:
        return _load_embedded(spec)
    glue = _GLUE.get(spec.name)
    tables: tuple[_Table, ...]
    if spec.files is not None:
        tables = tuple(_read(path, spec, glue, blank) for path in _find(spec, spec.files).values())
    elif glue is not None:
        tables = _fetch(spec, glue)
    else:
        raise HarnessError(
            "a task is a GLUE name, embedded, or files of your own",
            got=f"'{spec.name}' without files",
            allowed=", ".join((*_GLUE, EMBEDDED)),
            fix="name one of these, or give task.files",
        )
    return _raw(spec.name, spec.metric or (glue or _OWN).metric, (glue or _OWN).names, *tables)


def check(spec: TaskSpec) -> None:
    """Raise HarnessError within seconds when a task's data can't be had; reads and fetches none of them."""
    if spec.name == EMBEDDED and spec.files is None and spec.kind == "texts":
        return
    if spec.files is not None and spec.name != EMBEDDED:
        _find(spec, spec.files)
    elif spec.name not in _GLUE or spec.kind == "tokens":
        load(spec)  # which says what is wrong with the name, before it reads anything
    elif not hub.cached("dataset", GLUE_REPOSITORY) and not hub.reachable():
        raise hub.missing("dataset", f"{GLUE_REPOSITORY} {spec.name}")


def sizes(spec: TaskSpec) -> tuple[int, int] | None:
    """Count the training and validation examples without fetching anything; None where only the data could tell.

    Files are read whole, and raise what `load` raises.
    """
    if spec.name == EMBEDDED or spec.files is not None:
        raw = load(spec)
        return len(raw.train.texts), len(raw.validation.texts)
    return _GLUE[spec.name].sizes if spec.name in _GLUE else None


def check_batch(batch_size: int, examples: int) -> None:
    """Raise HarnessError for a batch larger than the training set."""
    if batch_size > examples:
        raise HarnessError(
            "a batch is no larger than the training set",
            got=f"batch_size {batch_size} for {examples} examples",
            allowed=f"1 to {examples}",
            fix="lower batch_size",
        )


def epoch_steps(labels: np.ndarray, recipe: Recipe) -> int:
    """Updates of an epoch over the training labels [N]; oversampled, every class is as large as the largest."""
    counts = np.unique(labels, return_counts=True)[1] if recipe.oversample else np.array([len(labels)])
    return math.ceil(int(counts.max()) * len(counts) * (1 + recipe.copies) / recipe.batch_size)


def due(recipe: Recipe, done: int, epoch: int, steps: int) -> bool:
    """Whether an evaluation follows after `done` of so many steps, of which an epoch has `epoch`."""
    place, every = done % epoch, recipe.eval_steps
    if place == 0 or done == steps or (every is not None and done % every == 0):
        return True
    part = recipe.eval_every  # of an epoch, as Lightning's val_check_interval
    return part is not None and place % max(1, int(part * epoch)) == 0


def check_recipe(recipe: Recipe, labels: np.ndarray, metric: Metric) -> None:
    """Raise HarnessError for a recipe that does not fit these training labels [N]."""
    check_batch(recipe.batch_size, len(labels))
    if metric == ENTITIES and recipe.augment != "none":
        raise HarnessError(
            "augment changes texts, whose words have no labels of their own",
            got=f"augment {recipe.augment} for {recipe.task.name}",
            allowed="augment: none for a token task",
            fix="drop augment",
        )
    for name in ("label_smoothing", "class_weights", "oversample", "mixup"):
        if not counts(metric) and getattr(recipe, name):
            raise HarnessError(
                f"{name} is for classes",
                got=f"{recipe.task.name}, {'a regression' if is_regression(metric) else 'whose words have labels'}",
                allowed="a task with classes",
                fix=f"drop {name}",
            )
    whole = epoch_steps(labels, recipe) * recipe.epochs
    if recipe.max_steps is not None and recipe.max_steps > whole:
        raise HarnessError(
            "max_steps ends training within its epochs",
            got=f"max_steps {recipe.max_steps}",
            allowed=f"1 to {whole}, which {so_many(recipe.epochs, 'epoch')} {'has' if recipe.epochs == 1 else 'have'}",
            fix="raise epochs or lower max_steps",
        )


def tokenise(raw: Raw, tokenizer: Tokenizer, max_length: int) -> Task:
    """Turn a task's texts into token ids of at most `max_length`, the longer text of a pair being cut first.

    Segment ids are the tokeniser's, zeros where it has none. Raises HarnessError for a tokeniser without a padding
    token, a `max_length` that leaves the texts no room, and a text that gives no token at all.
    """
    pad = tokenizer.pad_token_id
    if pad is None:
        raise HarnessError(
            "the model's tokeniser has a padding token", got="none", allowed="an encoder's tokeniser", fix="set one"
        )
    room_needed = 1 if raw.train.pairs is None else 2
    special = tokenizer.num_special_tokens_to_add(pair=raw.train.pairs is not None)
    if max_length < special + room_needed:
        raise HarnessError(
            "max_length leaves room for the texts beside the special tokens",
            got=max_length,
            allowed=f"{special + room_needed} or more",
            fix="raise max_length",
        )
    if raw.train.words is not None:
        return _tokenise_words(raw, tokenizer, max_length, pad)
    encoded = {name: encode(rows.texts, rows.pairs, tokenizer, max_length) for name, rows in splits(raw).items()}
    # A test split has a width of its own: training is the same with and without it.
    widths = {name: max(map(len, ids)) for name, (ids, _) in encoded.items()}
    widths |= dict.fromkeys(("train", "validation"), max(widths["train"], widths["validation"]))
    found = {name: _split(*encoded[name], rows.labels, widths[name], pad, name) for name, rows in splits(raw).items()}
    return Task(
        name=raw.name,
        metric=raw.metric,
        label_names=raw.label_names,
        num_labels=1 if raw.label_names is None else len(raw.label_names),
        pad_token_id=pad,
        train=found["train"],
        validation=found["validation"],
        sha256=raw.sha256,
        pairs=raw.train.pairs is not None,
        test=found.get("test"),
    )


def with_copies(task: Task, copies: Sequence[Rows], tokenizer: Tokenizer) -> Split:
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
    return Split(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _split(
    ids: list[list[int]], segments: list[list[int]], labels: np.ndarray, width: int, pad: int, name: str
) -> Split:
    return Split(
        input_ids=_padded(ids, width, pad),
        lengths=_lengths(ids, name),
        token_type_ids=_padded(segments, width, 0),
        labels=labels,
    )


def splits(raw: Raw) -> dict[str, Rows]:
    """The splits there are, by name: train, validation and, where there is one, test."""
    return {"train": raw.train, "validation": raw.validation} | ({} if raw.test is None else {"test": raw.test})


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
            "every text gives at least one token",
            got=f"none for example {int(np.argmin(lengths)) + 1} of the {split} split",
            allowed="texts in the tokeniser's alphabet",
            fix="remove it or use another model",
        )
    return lengths


def _padded(examples: list[list[int]], width: int, value: int) -> np.ndarray:
    padded = np.full((len(examples), width), value, dtype=np.int64)
    for row, example in zip(padded, examples, strict=True):
        row[: len(example)] = example
    return padded


# ------------------------------------------------------------------------------------------- from a table to a task


@dataclass(frozen=True)
class _Table:
    """A split as found: the columns in use, and each row's number in its source, for messages."""

    source: str
    unit: str  # what the numbers count: lines of a file, rows of a data set
    numbers: Sequence[int]
    texts: Sequence[str]
    pairs: Sequence[str] | None
    labels: Sequence[str]


def _raw(name: str, metric: Metric, known: tuple[str, ...], *tables: _Table) -> Raw:
    """Number the labels and hash; `known` label names keep their order where the data are spelt with them.

    The tables are those of training, validation and, where there is one, test.
    """
    train = tables[0]
    for table in tables[1:]:
        if (train.pairs is None) != (table.pairs is None):
            one, other = (train, table) if train.pairs is None else (table, train)
            raise HarnessError(
                "all splits have a second text, or none",
                got=f"one in {other.source}, none in {one.source}",
                allowed="the same columns in all",
                fix="set task.text_pair, or mend the file",
            )
    names = None
    if is_regression(metric):
        labels = [_numbers(table, metric) for table in tables]
    else:
        names = _label_names(train, known)
        labels = [_indexes(table, names, split) for table, split in zip(tables, SPLITS, strict=False)]
    rows = [
        Rows(
            texts=tuple(table.texts),
            pairs=None if table.pairs is None else tuple(table.pairs),
            labels=values,
            source=table.source,
            unit=table.unit,
            numbers=table.numbers,
        )
        for table, values in zip(tables, labels, strict=True)
    ]
    return Raw(name, metric, names, rows[0], rows[1], _sha256(rows), *rows[2:])


def _label_names(train: _Table, known: tuple[str, ...]) -> tuple[str, ...]:
    found = set(train.labels)
    if len(found) == 1:
        raise HarnessError(
            f"the training split has two classes or more ({train.source})",
            got=f"'{train.labels[0]}' alone",
            allowed="at least two labels",
            fix="check task.label, or give other data",
        )
    if found <= set(known):
        return known
    if all(re.fullmatch(r"-?[0-9]+", label) for label in found):
        return tuple(sorted(found, key=lambda label: (int(label), label)))
    return tuple(sorted(found))


def _indexes(table: _Table, names: tuple[str, ...], split: str) -> np.ndarray:
    index = {name: number for number, name in enumerate(names)}
    for number, label in zip(table.numbers, table.labels, strict=True):
        if label not in index:
            shown = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
            raise HarnessError(
                f"a {split} label occurs in the training split ({table.source}, {table.unit} {number})",
                got=f"'{_short(label)}'",
                allowed=shown,
                fix="mend that row, or set task.metric=pearson for labels that are numbers",
            )
    return np.array([index[label] for label in table.labels], dtype=np.int64)


def _numbers(table: _Table, metric: Metric) -> np.ndarray:
    values = []
    for number, label in zip(table.numbers, table.labels, strict=True):
        try:
            value = float(label)
        except ValueError:
            value = math.nan
        if not abs(value) <= float(np.finfo(np.float32).max) or "_" in label:  # Python reads 1_0 as 10
            raise HarnessError(
                f"labels are numbers where the metric is {metric} ({table.source}, {table.unit} {number})",
                got=f"'{_short(label)}'",
                allowed="finite numbers",
                fix="mend that row, or set task.metric=accuracy for classes",
            )
        values.append(value)
    return np.array(values, dtype=np.float32)


# --------------------------------------------------------------------------------------------------- words and tags

_Sentences = list[tuple[list[int], list[str], list[str]]]  # the line of each word, the words, their tags


def _load_tagged(spec: TaskSpec) -> Raw:
    """A token task's splits: lines of word and tag with blank lines between sentences, or JSON with both as lists."""
    if spec.files is None or spec.name == EMBEDDED:
        raise HarnessError(
            "a task of the kind tokens has files",
            got=f"'{spec.name}'" + (" without files" if spec.files is None else ", which is shipped"),
            allowed="task.files with words and tags, and a name of your own",
            fix="set task.files, or kind: texts",
        )
    found = []
    for path in _find(spec, spec.files).values():
        if path.suffix.lower() not in _TAGGED_SUFFIXES:
            raise HarnessError(
                "the format of words and tags is told by the file's ending",
                got=str(path), allowed=", ".join(_TAGGED_SUFFIXES), fix="rename it",
            )  # fmt: skip
        read = _read_tagged_json if path.suffix.lower() == ".jsonl" else _read_tagged
        sentences = read(_decoded(path), str(path), spec)
        if not sentences:
            raise _no_rows(str(path))
        for lines, _, tags in sentences:
            _check_tags(str(path), lines, tags)
        found.append((str(path), sentences))
    types = sorted({tag[2:] for _, _, tags in found[0][1] for tag in tags if tag != "O"})
    if not types:
        raise HarnessError(
            f"the training split has entities ({found[0][0]})", got="the tag O alone",
            allowed="tags B-X and I-X", fix="check task.label, or give other data",
        )  # fmt: skip
    names = ("O", *(f"{place}-{one}" for one in types for place in "BI"))
    rows = [
        _tagged_rows(path, sentences, names, split) for (path, sentences), split in zip(found, SPLITS, strict=False)
    ]
    return Raw(spec.name, ENTITIES, names, rows[0], rows[1], _sha256(rows), *rows[2:])


def _tagged_rows(source: str, sentences: _Sentences, names: tuple[str, ...], split: str) -> Rows:
    index = {name: number for number, name in enumerate(names)}
    labels = np.full((len(sentences), max(len(tags) for _, _, tags in sentences)), NO_LABEL, dtype=np.int64)
    for row, (lines, _, tags) in zip(labels, sentences, strict=True):
        for place, (line, tag) in enumerate(zip(lines, tags, strict=True)):
            if tag not in index:
                _refuse(
                    f"a {split} label occurs in the training split",
                    source, line, f"'{_short(tag)}'", ", ".join(names[:11]) + (", …" if len(names) > 11 else ""),
                    "mend that line, or give it to training too",
                )  # fmt: skip
            row[place] = index[tag]
    return Rows(
        texts=tuple(" ".join(words) for _, words, _ in sentences),
        pairs=None,
        labels=labels,
        source=source,
        unit="line",
        numbers=[lines[0] for lines, _, _ in sentences],
        words=tuple(tuple(words) for _, words, _ in sentences),
    )


def _check_tags(source: str, lines: Sequence[int], tags: Sequence[str]) -> None:
    """Refuse the first tag of a sentence that is not IOB2."""
    before, fix = "", "mend that line" + (", or set task.header=true" if lines[0] == 1 else "")
    for line, tag in zip(lines, tags, strict=True):
        if tag != "O" and not re.fullmatch(r"[BI]-\S+", tag):
            _refuse("tags are O, B-X or I-X", source, line, f"'{_short(tag)}'", "IOB2, as B-PER", fix)
        if tag.startswith("I-") and before[2:] != tag[2:]:
            _refuse(
                "an entity begins with B-X and goes on with I-X",
                source, line, f"'{_short(tag)}' {f'after {_short(before)!r}' if before else 'first'}",
                f"'B-{_short(tag[2:])}' there (IOB2)", "mend that line, or convert the tags to IOB2",
            )  # fmt: skip
        before = tag


def _tagged_column(spec: TaskSpec, role: str, default: int, width: int, source: str) -> int:
    wanted = getattr(spec, role)
    if wanted is None:
        return default
    if not isinstance(wanted, int) or not 0 <= wanted < width:
        raise HarnessError(
            f"words and tags go by their column's number ({source})", got=f"task.{role}={wanted}",
            allowed=f"0 to {width - 1}", fix=f"correct task.{role}",
        )  # fmt: skip
    return wanted


def _read_tagged(text: str, source: str, spec: TaskSpec) -> _Sentences:
    """Lines of columns, the word in the first and its tag in the last; they are parted by tabs, or else by blanks."""
    separator = "\t" if "\t" in text else None
    sentences: _Sentences = []
    width, inside = None, False
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.startswith("-DOCSTART-") or (number == 1 and spec.header):
            inside = False
            continue
        fields = line.removesuffix("\r").split(separator)
        width = width or max(2, len(fields))
        if len(fields) != width:
            _refuse(
                "every line has a word and its tag, or is blank",
                source, number, f"{len(fields)} field{'s' * (len(fields) != 1)}", str(width), "mend that line",
            )  # fmt: skip
        word = fields[_tagged_column(spec, "text", 0, width, source)].strip()
        if not word:
            _refuse("every line has a word and its tag, or is blank", source, number, "no word", "a word", "mend it")
        if not inside:
            sentences.append(([], [], []))
            inside = True
        lines, words, tags = sentences[-1]
        lines.append(number)
        words.append(word)
        tags.append(fields[_tagged_column(spec, "label", width - 1, width, source)].strip())
    return sentences


def _read_tagged_json(text: str, source: str, spec: TaskSpec) -> _Sentences:
    sentences: _Sentences = []
    keys = (spec.text or "words", spec.label or "tags")
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            value = getattr(error, "msg", str(error))
        lists: list[list[str]] = []
        for key in keys:
            found = value.get(key) if isinstance(value, dict) else None
            texts = found if isinstance(found, list) else []
            if not texts or not all(isinstance(one, str) and one.strip() and _is_unicode(one) for one in texts):
                said = f"no such list in {key}" if isinstance(value, dict) else _short(value)
                _refuse(
                    "every line is a JSON object with lists of words and of tags",
                    source, number, said, f'{{"{keys[0]}": ["…"], "{keys[1]}": ["O"]}}', "mend that line",
                )  # fmt: skip
            lists.append(texts)
        words, tags = lists
        if len(words) != len(tags):
            said = f"{so_many(len(words), 'word')} and {so_many(len(tags), 'tag')}"
            _refuse("every word has its tag", source, number, said, "as many of both", "mend that line")
        sentences.append(([number] * len(words), words, tags))
    return sentences


def _tokenise_words(raw: Raw, tokenizer: Tokenizer, max_length: int, pad: int) -> Task:
    """As `tokenise`, with each word's label on its first token.

    Words that are cut off or give no token are left out in training; in a split that is scored they are refused.
    """
    found = {}
    for name, rows in splits(raw).items():
        ids, segments, labels = _encode_words(rows, tokenizer, max_length)
        seen = np.array([sum(one != NO_LABEL for one in row) for row in labels])
        words = (rows.labels != NO_LABEL).sum(axis=1)
        if name != "train" and (lacking := np.flatnonzero(seen < words)).size:
            place = int(lacking[0])
            raise HarnessError(
                f"every word that is scored has a token ({rows.source}, {rows.unit} {rows.numbers[place]})",
                got=f"{seen[place]} of {words[place]} words within max_length {max_length}",
                allowed="all of them",
                fix="raise max_length, part the sentence, or mend words without letters",
            )
        found[name] = ids, segments, labels, seen
    widths = {name: max(map(len, ids)) for name, (ids, *_) in found.items()}
    widths |= dict.fromkeys(("train", "validation"), max(widths["train"], widths["validation"]))
    made = {
        name: Split(
            input_ids=_padded(ids, widths[name], pad),
            lengths=_lengths(ids, name),
            token_type_ids=_padded(segments, widths[name], 0),
            labels=_padded(labels, widths[name], NO_LABEL),
            sentences=seen.astype(np.int64),
        )
        for name, (ids, segments, labels, seen) in found.items()
    }
    names = raw.label_names
    assert names is not None
    splits_made = (made["train"], made["validation"])
    return Task(
        raw.name, raw.metric, names, len(names), pad, *splits_made, raw.sha256, pairs=False, test=made.get("test")
    )


def _encode_words(rows: Rows, tokenizer: Tokenizer, max_length: int) -> tuple[list[list[int]], ...]:
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
            "the model's tokeniser says where its tokens stand",
            got="a slow one, which does not",
            allowed="a fast tokeniser",
            fix="use another model",
        ) from None
    assert rows.words is not None
    ids = encoded["input_ids"]
    segments = encoded["token_type_ids"] if "token_type_ids" in encoded else [[]] * len(ids)
    labels = []
    for words, tags, offsets in zip(rows.words, rows.labels.tolist(), encoded["offset_mapping"], strict=True):
        # The word that each letter of the text belongs to; -1 for the blanks between them.
        of_letter = [place for number, word in enumerate(words) for place in (*[number] * len(word), -1)]
        row, last = [], -1
        for start, end in offsets:
            word = of_letter[end - 1] if end > start else -1  # special tokens are nowhere
            row.append(tags[word] if word > last else NO_LABEL)
            last = max(last, word)
        labels.append(row)
    return ids, segments, labels


def _sha256(splits: Sequence[Rows]) -> str:
    digest = hashlib.sha256()
    for rows in splits:
        digest.update(f"{len(rows.texts)} {'one text' if rows.pairs is None else 'two texts'}\n".encode())
        for text in (*rows.texts, *(rows.pairs or ())):
            content = text.encode()
            digest.update(b"%d %s\n" % (len(content), content))  # with its length, so that no two lists collide
        digest.update(rows.labels.astype(rows.labels.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:59] + "…"


# ------------------------------------------------------------------------------------------- shipped and from the hub


def _load_embedded(spec: TaskSpec) -> Raw:
    from harness.embedded import language

    if spec.files is not None:
        raise HarnessError(
            "the task 'embedded' is shipped with the harness",
            got="task.files with it",
            allowed="embedded without files",
            fix="drop task.files, or give your data another task.name",
        )
    names = ("not_entailment", "entailment")
    tables = []
    for source, pairs in (("train", language.dataset("train")), ("validation", language.dataset("validation"))):
        tables.append(
            _Table(
                source=f"embedded {source}",
                unit="row",
                numbers=range(1, len(pairs) + 1),
                texts=[pair.premise for pair in pairs],
                pairs=[pair.hypothesis for pair in pairs],
                labels=[names[pair.entailed] for pair in pairs],
            )
        )
    return _raw(EMBEDDED, spec.metric or "accuracy", names, *tables)


def _fetch(spec: TaskSpec, glue: _Glue) -> tuple[_Table, _Table]:
    """A GLUE task by way of `datasets`, whose own attempts without a network would take 23 s."""
    online = hub.prepare()
    if not online and not hub.cached("dataset", GLUE_REPOSITORY):
        raise hub.missing("dataset", f"{GLUE_REPOSITORY} {spec.name}", "task.files")
    import datasets

    try:
        loaded = datasets.load_dataset(GLUE_REPOSITORY, spec.name)
        splits = loaded["train"], loaded[glue.validation]
    except Exception as error:  # what fails behind it is of many libraries; all mean that the data can't be had
        first_line = next(iter(str(error).splitlines()), "")
        reason = f"loading it gave {type(error).__name__} ({_short(first_line)})"
        raise hub.missing("dataset", f"{GLUE_REPOSITORY} {spec.name}", "task.files", reason) from error
    first, second = (
        _from_dataset(split, f"{GLUE_REPOSITORY} {spec.name} {name}", spec, glue)
        for split, name in zip(splits, ("train", glue.validation), strict=True)
    )
    return first, second


def _from_dataset(split: Any, source: str, spec: TaskSpec, glue: _Glue) -> _Table:
    """A split of `datasets`: its label numbers spelt by their names, so that they are checked as those of files are."""
    columns = _Columns.choose(tuple(split.column_names), spec, glue, source, by_index=False)
    wanted = [split.column_names[column] for column in columns.used]
    classes = getattr(split.features[wanted[-1]], "names", None)
    *texts, labels = (split[name][:] for name in wanted)
    spelt = [classes[label] if classes else str(label) for label in labels]
    compact = _Columns(0, None if columns.pair is None else 1, len(texts))
    # Blank texts stay: GLUE has a few (QQP), and its data are not the reader's to mend.
    return _table(source, "row", enumerate(zip(*texts, spelt, strict=True), 1), compact, wanted, blank=True)


# ---------------------------------------------------------------------------------------------------- from files


def files_of(spec: TaskSpec) -> dict[str, Path] | None:
    """The files that `load` reads, by split; None for a task without files."""
    return None if spec.files is None else _find(spec, spec.files)


def _find(spec: TaskSpec, files: TaskFiles) -> dict[str, Path]:
    """The files meant, by split, each looked for in a folder where one is named."""
    stems, glue = ["validation", "dev"], _GLUE.get(spec.name)
    suffixes = _TAGGED_SUFFIXES if spec.kind == "tokens" else _SUFFIXES
    if glue is not None and glue.validation != "validation":
        stems += [glue.validation, glue.validation.replace("validation", "dev")]
    found = {
        "train": _one_of(files.train, "train", ["train"], suffixes),
        "validation": _one_of(files.validation, "validation", stems, suffixes),
    }
    if files.test is not None:
        found["test"] = _one_of(files.test, "test", ["test"], suffixes)
    names: dict[Path, str] = {}
    for split, path in found.items():
        other = names.setdefault(path.resolve(), split)
        if other != split:
            raise HarnessError(
                f"{other.replace('train', 'training')} and {split} data are two files",
                got=f"{path} for both",
                allowed="a file each, or a folder that holds both",
                fix=f"set task.files.{other} and task.files.{split}",
            )
    return found


def _one_of(given: str, split: str, stems: Sequence[str], suffixes: Sequence[str]) -> Path:
    path = Path(given).expanduser()
    if not path.exists():
        raise _unreadable(path, "no such file or folder")
    if not path.is_dir():
        return path
    names = [stem + suffix for stem in stems for suffix in suffixes]
    found = [path / name for name in names if (path / name).is_file()]
    if len(found) != 1:
        raise HarnessError(
            f"a task's folder holds one file of each split ({path})",
            got=" and ".join(file.name for file in found) or f"no {' or '.join(stems)} file",
            allowed="one of " + ", ".join(names),
            fix=f"set task.files.{split} to the file",
        )
    return found[0]


class _Missing:
    """What stands where a JSON object lacks a key."""


_MISSING = _Missing()


@dataclass(frozen=True)
class _Columns:
    """Which columns are in use, counted from 0."""

    text: int
    pair: int | None
    label: int | None  # None in data to predict on alone

    @property
    def used(self) -> tuple[int, ...]:
        return tuple(column for column in (self.text, self.pair, self.label) if column is not None)

    @classmethod
    def choose(
        cls,
        names: Sequence[str],
        spec: TaskSpec,
        glue: _Glue,
        source: str,
        by_index: bool,
        wants: "_Asked | None" = None,
    ) -> "_Columns":
        """Find the columns among the names of a header, of JSON keys or of a data set; to predict on, as it `wants`."""

        def find(role: str, wanted: str | int | None, defaults: Sequence[str], required: bool) -> int | None:
            if isinstance(wanted, int) and by_index and 0 <= wanted < len(names):
                return wanted
            asked = [wanted] if wanted is not None else [name for name in defaults if name in names]
            if wanted is None and not asked and not required:
                return None
            places = [place for place, name in enumerate(names) if asked and name == asked[0]]
            if len(places) == 1:
                return places[0]
            twice = len(places) > 1
            if wanted is None and not twice:
                got = f"no column {' or '.join(defaults)}"
            else:
                got = f"{'two columns' if twice else 'no column'} {asked[0]}"
            allowed = ", ".join(map(_short, names)) or "none"
            raise HarnessError(
                f"the {role} column stands in the data ({source})",
                got=got,
                allowed=f"{allowed}, or an index from 0 to {len(names) - 1}" if by_index else allowed,
                fix="rename one" if twice else wants.option(role) if wants else f"set task.{role}",
            )

        text = find("text", spec.text, glue.text, required=True)
        assert text is not None
        if wants is None:
            pair = find("text_pair", spec.text_pair, glue.pair, required=glue is not _OWN and bool(glue.pair))
            label = find("label", spec.label, glue.label, required=True)
        else:
            pair = find("text_pair", spec.text_pair, glue.pair, required=True) if wants.pairs else None
            there = spec.label is None or wants.label or spec.label in names
            label = find("label", spec.label, glue.label, required=wants.label) if there else None
        if len({text, pair, label} - {None}) < 1 + (pair is not None) + (label is not None):
            raise HarnessError(
                f"text, text_pair and label are different columns ({source})",
                got=f"columns {text}, {'none' if pair is None else pair} and {label}",
                allowed="each column once",
                fix="correct task.text, task.text_pair or task.label",
            )
        return cls(text, pair, label)


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise HarnessError(
            "a data file's format is told by its ending", got=str(path), allowed=", ".join(_SUFFIXES), fix="rename it"
        )
    return suffix


def _read(path: Path, spec: TaskSpec, glue: _Glue | None, blank: bool) -> _Table:
    glue, suffix = glue or _OWN, _suffix(path)
    text = _decoded(path)
    if suffix == ".jsonl":
        return _read_json(text, str(path), spec, glue, blank)
    quoting = spec.quoting or ("none" if suffix == ".tsv" else "csv")
    split = _split_plain if quoting == "none" else _split_quoted
    rows = split(text, _delimiter(suffix), str(path))
    while rows and not any(rows[-1][1]) and len(rows[-1][1]) <= 1:  # blank lines at the end
        rows.pop()
    return _read_rows(rows, str(path), spec, glue, blank)


def _unreadable(path: Path, reason: str) -> HarnessError:
    return HarnessError(
        "a data file can be read",
        got=f"{path} ({reason})",
        allowed="a .tsv, .csv or .jsonl file, or a folder with train and validation files",
        fix="check task.files; relative paths start at the working directory",
    )


def _decoded(path: Path) -> str:
    """The file's text; a BOM is dropped, nothing else is changed."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error.strerror or type(error).__name__) from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        _refuse("data files are UTF-8 text", path, line, f"byte 0x{content[error.start]:02x}", "UTF-8", "convert it")
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        _refuse("data files are text", path, line, "a NUL byte", "text without NUL", "save it as plain UTF-8")
    return text


def _refuse(rule: str, source: object, line: int, got: str, allowed: str, fix: str, unit: str = "line") -> NoReturn:
    raise HarnessError(f"{rule} ({source}, {unit} {line})", got=got, allowed=allowed, fix=fix)


_NumberedRows = list[tuple[int, list[str]]]


def _split_plain(text: str, delimiter: str, source: str) -> _NumberedRows:
    """Rows of a file whose quotes are plain characters; str.splitlines would also break at U+2028 and the like."""
    lines = text.split("\n")
    return [(number, line.removesuffix("\r").split(delimiter)) for number, line in enumerate(lines, 1)]


def _split_quoted(text: str, delimiter: str, source: str) -> _NumberedRows:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: _NumberedRows = []
    line = 1
    limit = csv.field_size_limit(sys.maxsize)  # of the whole process: put back below
    try:
        for row in reader:
            rows.append((line, row))
            line = reader.line_num + 1
    except csv.Error as error:
        _refuse_quotes(source, line, error)
    finally:
        csv.field_size_limit(limit)
    return rows


def _read_rows(rows: _NumberedRows, source: str, spec: TaskSpec, glue: _Glue, blank: bool) -> _Table:
    if not rows:
        raise _no_rows(source)
    columns, names, header = _layout(rows[0][1], spec, glue, source)
    rows = rows[1:] if header else rows
    for line, row in rows:
        _check_width(row, len(names), header, source, line)
    return _table(source, "line", rows, columns, names, blank)


def _refuse_quotes(source: str, line: int, error: csv.Error) -> NoReturn:
    _refuse(
        "quotes are closed and stand around whole fields",
        source,
        line,
        str(error),
        'fields as "one ""quoted"" word"',
        "mend the row that starts there, or set task.quoting=none",
    )


def _delimiter(suffix: str) -> str:
    return "\t" if suffix == ".tsv" else ","


def _layout(
    first: Sequence[str], spec: TaskSpec, glue: _Glue, source: str, wants: "_Asked | None" = None
) -> tuple[_Columns, list[str], bool]:
    """The columns in use, their names, and whether the first row is the header."""
    first = [name.strip() for name in first]
    width = len(first)
    header = spec.header is not False
    if spec.header is None and glue.headerless and width == 4 and not set(glue.text) & set(first):
        header = False
        text, label = glue.headerless
        spec = spec.model_copy(
            update={
                "text": text if spec.text is None else spec.text,
                "label": label if spec.label is None else spec.label,
            }
        )
    if header:
        return _Columns.choose(first, spec, glue, source, True, wants), list(first), True
    pair = glue is not _OWN and bool(glue.pair) if wants is None else wants.pairs
    needs = {"text": True, "text_pair": pair, "label": wants is None or wants.label}
    for role, wanted in (("text", spec.text), ("text_pair", spec.text_pair), ("label", spec.label)):
        if isinstance(wanted, str) or (wanted is None and needs[role]):
            raise HarnessError(
                f"without a header columns go by their index ({source})",
                got=f"task.{role}={'nothing' if wanted is None else wanted}",
                allowed=f"0 to {width - 1}",
                fix=f"set task.{role} to an index, or task.header=true",
            )
    names = [str(index) for index in range(width)]
    return _Columns.choose(names, spec, glue, source, True, wants), names, False


def _check_width(row: Sequence[str], width: int, header: bool, source: str, line: int) -> None:
    if len(row) != width:
        _refuse(
            f"every row has as many fields as the {'header' if header else 'first'}",
            source,
            line,
            f"{len(row)} field{'s' * (len(row) != 1)}" if any(row) else "a blank line",
            str(width),
            "mend that row, or set task.quoting (none or csv) if quotes are read wrongly",
        )


def _read_json(text: str, source: str, spec: TaskSpec, glue: _Glue, blank: bool) -> _Table:
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1)]
    while lines and not lines[-1][1].strip():
        lines.pop()
    if not lines:
        raise _no_rows(source)
    objects = [(number, _object(line, source, number)) for number, line in lines]
    names = list(dict.fromkeys(key for _, fields in objects for key in fields))
    columns = _Columns.choose(names, spec, glue, source, by_index=False)
    rows = ((number, [fields.get(name, _MISSING) for name in names]) for number, fields in objects)
    return _table(source, "line", rows, columns, names, blank)


def _object(line: str, source: str, number: int) -> dict[str, object]:
    try:
        # Numbers stay the text they are: labels are compared as they are written.
        value = json.loads(line, parse_float=str, parse_int=str, parse_constant=_no_constant)
        problem = "" if isinstance(value, dict) else f"a {type(value).__name__}"
    except (ValueError, RecursionError) as error:
        problem = getattr(error, "msg", None) or str(error)
    if problem:
        _refuse("every line is a JSON object", source, number, problem, '{"text": …, "label": …}', "mend that line")
    return dict(value)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name}, which is no JSON")


def _no_rows(source: str) -> HarnessError:
    return HarnessError(
        f"a data file has rows ({source})", got="none", allowed="one row or more", fix="check that it is the right file"
    )


def _table(
    source: str,
    unit: str,
    rows: Iterable[tuple[int, Sequence[object]]],
    columns: _Columns,
    names: Sequence[str],
    blank: bool = False,
) -> _Table:
    """Pick the columns in use and refuse, by its number, the first row that lacks something; `blank` texts may pass."""
    numbers: list[int] = []
    picked: list[list[str]] = [[] for _ in columns.used]
    for number, row in rows:
        for values, column in zip(picked, columns.used, strict=True):
            value = row[column]
            filled = isinstance(value, str) and (bool(value.strip()) or (blank and column != columns.label))
            if filled and isinstance(value, str) and "\0" not in value and _is_unicode(value):
                values.append(value.strip() if column == columns.label else value)
            elif isinstance(value, bool) and column == columns.label:
                values.append(str(value).lower())
            else:
                _refuse_value(value, column == columns.label, names[column], source, number, unit)
        numbers.append(number)
    if not numbers:
        raise _no_rows(source)
    texts, *pairs, labels = picked
    return _Table(source, unit, numbers, texts, pairs[0] if pairs else None, labels)


def _is_unicode(value: str) -> bool:
    """Half of a surrogate pair, which JSON can spell, is no character and can't be hashed or tokenised."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_value(value: object, label: bool, column: str, source: str, number: int, unit: str) -> NoReturn:
    what = "label" if label else "text"
    if value is _MISSING:
        got = "no such key"
    elif value is None or (isinstance(value, str) and not value.strip()):
        got = f"no {what}"
    elif isinstance(value, str):
        got = "a character that is none (NUL or half a surrogate pair)"
    else:
        got = f"a {type(value).__name__}"
    _refuse(
        f"every row has its {what} in column {_short(column)}",
        source,
        number,
        got,
        "a word or number" if label else "text that is not blank",
        "mend or remove that row",
        unit,
    )


# ------------------------------------------------------------------------------------------- row by row, to predict on


@dataclass(frozen=True)
class Line:
    """A row to predict on, and where it stands; its label is None where the file has none."""

    number: int
    text: str
    pair: str | None
    label: str | None


@dataclass(frozen=True)
class _Asked:
    """Which columns a file to predict on must have beside the text."""

    pairs: bool
    label: bool

    @staticmethod
    def option(role: str) -> str:
        return f"name it with --{role.replace('_', '-')}"


def stream(path: Path, spec: TaskSpec, pairs: bool, label: bool = False) -> Iterator[Line]:
    """The rows of a file whose columns go by the names that the task's files have, read one by one.

    A `label` column may lack unless it is asked for; a text may be blank. Raises HarnessError for a file that can't be
    read or is not clean, with its line.
    """
    glue, suffix, source, asked = _GLUE.get(spec.name, _OWN), _suffix(path), str(path), _Asked(pairs, label)
    columns, names, header = None, [""], True
    for number, row in _streamed(path, suffix, spec):
        if isinstance(row, dict):
            if columns is None:
                names = list(row)
                columns = _Columns.choose(names, spec, glue, source, False, asked)
            yield _line([row.get(name, _MISSING) for name in names], columns, names, source, number)
            continue
        if columns is None:
            columns, names, header = _layout(row, spec, glue, source, asked)
            if header:
                continue
        _check_width(row, len(names), header, source, number)
        yield _line(row, columns, names, source, number)
    if columns is None:
        raise _no_rows(source)


def _streamed(path: Path, suffix: str, spec: TaskSpec) -> Iterator[tuple[int, list[str] | dict[str, object]]]:
    """The fields of each row with its line, without blank lines at the end."""
    lines, source = _decoded_lines(path), str(path)
    if suffix == ".jsonl" or (spec.quoting or ("none" if suffix == ".tsv" else "csv")) == "none":
        blank = 0
        for number, text in lines:
            content = text.removesuffix("\n").removesuffix("\r")
            if not content:
                blank = blank or number
                continue
            if blank:
                _refuse("only the last lines are blank", source, blank, "a blank line", "a row", "remove it")
            yield number, _object(content, source, number) if suffix == ".jsonl" else content.split(_delimiter(suffix))
        return
    reader = csv.reader((text for _, text in lines), delimiter=_delimiter(suffix), strict=True)
    line, limit = 1, csv.field_size_limit(sys.maxsize)  # of the whole process: put back below
    try:
        for row in reader:
            if row:
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        _refuse_quotes(source, line, error)
    finally:
        csv.field_size_limit(limit)


def _line(row: Sequence[object], columns: _Columns, names: Sequence[str], source: str, number: int) -> Line:
    found: list[str | None] = []
    for column in (columns.text, columns.pair, columns.label):
        value = None if column is None else row[column]
        if isinstance(value, bool) and column == columns.label:
            value = str(value).lower()
        if column is None:
            found.append(None)
        elif isinstance(value, str) and _is_unicode(value):
            found.append(value)
        else:
            _refuse_value(value, column == columns.label, names[column], source, number, "line")
    text, pair, label = found
    return Line(number, text or "", pair, None if label is None else label.strip())


def _decoded_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file with their numbers, each with its end; raises HarnessError for what is no text."""
    try:
        with path.open("rb") as file:
            for number, content in enumerate(file, 1):
                try:
                    text = content.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    got = f"byte 0x{content[error.start]:02x}"
                    _refuse("data files are UTF-8 text", path, number, got, "UTF-8", "convert it")
                if "\0" in text:
                    _refuse("data files are text", path, number, "a NUL byte", "text without NUL", "save it as UTF-8")
                yield number, text
    except OSError as error:
        raise _unreadable(path, error.strerror or type(error).__name__) from None
