"""Files of words and tags, for a token task: lines of both with blank lines between sentences, or JSON lists."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.common.errors import HarnessError
from harness.common.metrics import ENTITIES
from harness.common.text import count_noun, is_unicode
from harness.config.recipe import TaskSpec
from harness.data import holdout, structured_files
from harness.data.examples import NO_LABEL, SPLITS, Raw, Rows, sha256_of
from harness.data.glue import EMBEDDED
from harness.data.text_columns import MOST_LABEL, no_rows, refuse, refuse_length, short
from harness.data.text_files import decoded, find

SUFFIXES = (".conll", ".tsv", ".txt", ".jsonl", ".json", ".parquet")


@dataclass(frozen=True)
class TaggedSentence:
    """A sentence to predict on: the line of its first word, and its tags where the file has them."""

    number: int
    words: tuple[str, ...]
    tags: tuple[str, ...] | None


_Sentences = list[tuple[list[int], list[str], list[str]]]  # the line of each word, the words, their tags


def load(spec: TaskSpec) -> Raw:
    """A token task's splits: lines of word and tag with blank lines between sentences, or JSON with both as lists."""
    if spec.files is None or spec.name == EMBEDDED:
        raise HarnessError(
            "task.kind: tokens cannot be used with the task 'embedded', which is shipped with the harness"
            if spec.files is not None
            else "task.kind: tokens requires task.files with words and tags",
            got=f"task.name: {spec.name}",
            fix="Set task.files and a name of your own, or task.kind: texts",
        )
    read_files = []
    for path in find(spec, spec.files).values():
        sentences = _read(path, spec)
        for lines, _, tags in sentences:
            _check(str(path), lines, tags)
        read_files.append((str(path), sentences))
    if spec.validation is not None:
        source, sentences = read_files[0]
        keys = [tuple(words) for _, words, _ in sentences]
        parts = holdout.parted(sentences, keys, None, spec.validation, spec.validation_seed)
        read_files[:1] = [(source, part) for part in parts]
    types = sorted({tag[2:] for _, _, tags in read_files[0][1] for tag in tags if tag != "O"})
    if not types:
        raise HarnessError(
            f"{read_files[0][0]} has no entities: every tag is O", fix="Check task.label, or give other data"
        )
    names = ("O", *(f"{tag}-{entity_type}" for entity_type in types for tag in "BI"))
    rows = [_rows(path, sentences, names, split) for (path, sentences), split in zip(read_files, SPLITS, strict=False)]
    return Raw(spec.name, ENTITIES, names, rows[0], rows[1], sha256_of(rows), *rows[2:])


def sentences(path: Path, spec: TaskSpec, tags: bool = False) -> list[TaggedSentence]:
    """The sentences of a file to predict on, as a task's files have them; `tags` have to be there where asked for."""
    return [
        TaggedSentence(lines[0], tuple(words), tuple(labels) or None)
        for lines, words, labels in _read(path, spec, bare=not tags)
    ]


def _read(path: Path, spec: TaskSpec, bare: bool = False) -> _Sentences:
    """The sentences of a file; with `bare` one whose first sentence has words alone has no tags."""
    suffix, source = path.suffix.lower(), str(path)
    if suffix not in SUFFIXES:
        raise HarnessError(
            f"cannot read {source}: unknown file type '{suffix}' for words and tags",
            allowed=", ".join(SUFFIXES),
            fix="Rename it",
        )
    sentences = _read_as(suffix, path, spec, bare)
    if not sentences:
        raise no_rows(source)
    return sentences


def _read_as(suffix: str, path: Path, spec: TaskSpec, bare: bool) -> _Sentences:
    source = str(path)
    if suffix == ".parquet":
        return _sentences_of(enumerate(structured_files.of_parquet(path), 1), source, spec, "row", bare)
    text = decoded(path, in_lines=suffix != ".json", encoding=spec.encoding)
    if suffix not in (".json", ".jsonl"):
        return _read_lines(text, source, spec, bare)
    rows = structured_files.of_json(text, source) if suffix == ".json" else None
    if rows is not None:
        return _sentences_of(enumerate(rows, 1), source, spec, "row", bare)
    return _sentences_of(structured_files.of_json_lines(text), source, spec, "line", bare)


def _rows(source: str, sentences: _Sentences, names: tuple[str, ...], split: str) -> Rows:
    index = {name: number for number, name in enumerate(names)}
    labels = np.full((len(sentences), max(len(tags) for _, _, tags in sentences)), NO_LABEL, dtype=np.int64)
    for row, (lines, _, tags) in zip(labels, sentences, strict=True):
        for position, (line, tag) in enumerate(zip(lines, tags, strict=True)):
            if tag not in index:
                refuse(
                    f"the {split} tag '{short(tag)}' does not occur in the training data", source, line,
                    allowed=", ".join(names[:11]) + (", …" if len(names) > 11 else ""),
                    fix="Correct that line, or add such examples to the training data",
                )  # fmt: skip
            row[position] = index[tag]
    return Rows(
        texts=tuple(" ".join(words) for _, words, _ in sentences),
        pairs=None,
        labels=labels,
        source=source,
        unit="line",
        numbers=[lines[0] for lines, _, _ in sentences],
        words=tuple(tuple(words) for _, words, _ in sentences),
    )


def _check(source: str, lines: Sequence[int], tags: Sequence[str]) -> None:
    """Refuse the first tag of a sentence that is not IOB2."""
    before, fix = "", "Correct that line" + (", or set task.header=true" if lines[0] == 1 else "")
    for line, tag in zip(lines, tags, strict=True):
        if len(tag) > MOST_LABEL:
            refuse_length("tag", tag, source, line)
        if tag != "O" and not re.fullmatch(r"[BI]-\S+", tag):
            refuse("an IOB2 tag must be O, B-X or I-X", source, line, got=f"'{short(tag)}'", fix=fix)
        if tag.startswith("I-") and before[2:] != tag[2:]:
            refuse(
                f"'{short(tag)}' cannot {f'follow {short(before)!r}' if before else 'begin a sentence'}: "
                f"an IOB2 entity must begin with 'B-{short(tag[2:])}'",
                source, line, fix="Correct that line, or convert the tags to IOB2",
            )  # fmt: skip
        before = tag


def _column(spec: TaskSpec, role: str, default: int, width: int, source: str) -> int:
    wanted = getattr(spec, role)
    if wanted is None:
        return default
    if not isinstance(wanted, int) or not 0 <= wanted < width:
        raise HarnessError(f"{source}: task.{role} must be the number of a column, from 0 to {width - 1}", got=wanted)
    return wanted


def _read_lines(text: str, source: str, spec: TaskSpec, bare: bool) -> _Sentences:
    """Lines of columns, the word in the first and its tag in the last; they are parted by tabs, or else by blanks."""
    separator = "\t" if "\t" in text else None
    sentences: _Sentences = []
    width, inside = None, False
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.startswith("-DOCSTART-") or (number == 1 and spec.header):
            inside = False
            continue
        fields = line.removesuffix("\r").split(separator)
        width = width or max(1 if bare else 2, len(fields))
        if len(fields) != width:
            refuse(
                f"{count_noun(len(fields), 'field')} instead of {width}", source, number,
                fix="A line is a word and its tag, or blank",
            )  # fmt: skip
        word = fields[_column(spec, "text", 0, width, source)].strip()
        if not word:
            refuse("a tag without a word", source, number, fix="A line is a word and its tag, or blank")
        if not inside:
            sentences.append(([], [], []))
            inside = True
        lines, words, tags = sentences[-1]
        lines.append(number)
        words.append(word)
        if width > 1 and not (bare and isinstance(spec.label, int) and spec.label >= width):
            tags.append(fields[_column(spec, "label", width - 1, width, source)].strip())
    return sentences


def _sentences_of(rows: Iterable[tuple[int, object]], source: str, spec: TaskSpec, unit: str, bare: bool) -> _Sentences:
    sentences: _Sentences = []
    names = keys = [str(spec.text or "words"), str(spec.label or "tags")]
    for number, value in rows:
        if bare and not sentences and isinstance(value, dict) and value.get(names[1]) is None:
            keys = names[:1]
        lists: list[list[str]] = []
        for key in keys:
            listed = value.get(key) if isinstance(value, dict) else None
            texts = listed if isinstance(listed, list) else []
            if not texts or not all(isinstance(word, str) and word.strip() and is_unicode(word) for word in texts):
                problem = f"no list of texts in {key}" if isinstance(value, dict) else f"not an object: {short(value)}"
                refuse(
                    problem, source, number, allowed=f'{{"{names[0]}": ["…"], "{names[1]}": ["O"]}}', unit=unit,
                )  # fmt: skip
            lists.append(texts)
        words, tags = lists if len(keys) > 1 else (*lists, [])
        if len(keys) > 1 and len(words) != len(tags):
            problem = f"{count_noun(len(words), 'word')} but {count_noun(len(tags), 'tag')}"
            refuse(problem, source, number, fix="Give every word a tag", unit=unit)
        sentences.append(([number] * len(words), words, tags))
    return sentences
