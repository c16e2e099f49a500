"""Text files -> tokens to pretrain on: read in a stream, split by their content, held on the disk and not in memory."""

from __future__ import annotations

import csv
import hashlib
import json
import tempfile
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from harness.common.errors import HarnessError, describe_os_error
from harness.common.text import count_noun

Kind = Literal["WordPiece", "BPE"]
Documents = Iterator[tuple[str, ...]]  # the sentences of one document after the other

_AT_ONCE = 1_000  # sentences in memory
_MOST_UNKNOWN = 0.5
_SPLIT_OF = 2**32
_LONGEST_LINE = 2**24  # bytes; a line is read whole
_MASKED_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_CAUSAL_SPECIALS = ("<pad>", "<unk>", "<|endoftext|>")


@dataclass(frozen=True)
class TextSource:
    """One file of texts and the hash of its bytes."""

    path: str
    sha256: str


@dataclass(frozen=True, eq=False)
class Sentences:
    """N sentences of T tokens together, on the disk; a sentence longer than the model reads is several."""

    tokens: NDArray[np.int32]  # [T], without special ones
    begins: NDArray[np.bool_]  # [T], whether a token begins a word; all true where that was not asked for
    starts: NDArray[np.int64]  # [N + 1], where each starts, and the end
    document: NDArray[np.int64]  # [N], which document it stands in

    def __len__(self) -> int:
        """How many sentences."""
        return len(self.document)

    def length(self, number: int) -> int:
        """How many tokens a sentence has."""
        return int(self.starts[number + 1] - self.starts[number])

    def followed(self) -> NDArray[np.int64]:
        """Which sentences have a next one in their document, [n]; none where there is no other document beside it."""
        if not len(self) or self.document[0] == self.document[-1]:
            return np.zeros(0, np.int64)
        return np.flatnonzero(self.document[:-1] == self.document[1:])


@dataclass(frozen=True, eq=False)
class Corpus:
    """Texts as tokens, most to train on and some held out; `unknown` is the share of tokens that are none."""

    train: Sentences
    held_out: Sentences
    unknown: float


# ------------------------------------------------------------------------------------------------------------ reading


def sources(paths: Sequence[Path]) -> tuple[TextSource, ...]:
    """The files with their hashes; raises HarnessError for one that is missing or empty."""
    facts = []
    for path in paths:
        digest, size = hashlib.sha256(), 0
        try:
            with path.open("rb") as stream:
                while block := stream.read(2**20):
                    digest.update(block)
                    size += len(block)
        except OSError as error:
            _unreadable(path, describe_os_error(error))
        if not size:
            _unreadable(path, "it is empty")
        facts.append(TextSource(str(path), digest.hexdigest()))
    return tuple(facts)


def documents(path: Path, column: str | None = None) -> Documents:
    """The documents of a file, in its order.

    In .jsonl, .tsv and .csv each row is one, its sentences the lines of that column (default: `text`). In any other
    file a line is a sentence and a blank line ends a document. Raises HarnessError, with the line, for what is no
    UTF-8 text or no such table.
    """
    suffix = path.suffix.lower()
    if suffix not in (".jsonl", ".tsv", ".csv"):
        if column is not None:
            raise HarnessError(
                f"--column {column} cannot be used with {path}, which is not a .jsonl, .tsv or .csv file",
                fix="Leave --column out, or rename the file",
            )
        yield from _between_blank_lines(_lines(path))
        return
    column = "text" if column is None else column
    texts = _of_objects(path, column) if suffix == ".jsonl" else _of_rows(path, column, suffix)
    for text in texts:
        lines = tuple(line.strip() for line in text.split("\n") if line.strip())
        if lines:
            yield lines


def _lines(path: Path) -> Iterator[str]:
    """The lines of a file with their ends; a BOM is dropped."""
    with path.open("rb") as stream:
        number = 0
        while line := stream.readline(_LONGEST_LINE):
            number += 1
            problem = None
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                problem = f"not UTF-8 text: byte 0x{line[error.start]:02x}"
            if len(line) == _LONGEST_LINE:
                problem = f"a line of {_LONGEST_LINE >> 20} MiB or more"
            if problem:
                raise HarnessError(f"{path}, line {number}: {problem}", fix="Convert the file to UTF-8 text in lines")
            yield text


def _between_blank_lines(lines: Iterable[str]) -> Documents:
    held: list[str] = []
    for line in lines:
        if sentence := line.strip():
            held.append(sentence)
        if held and (not sentence or len(held) == 10 * _AT_ONCE):  # one that never ends is bounded too
            yield tuple(held)
            held = []
    if held:
        yield tuple(held)


def _of_objects(path: Path, column: str) -> Iterator[str]:
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            _no_table(path, f"line {number} is not a JSON object", column)
        text = value.get(column)
        if not isinstance(text, str):
            _no_table(path, f"line {number} has {', '.join(map(repr, value)) or 'no key'}", column)
        yield text.encode(errors="replace").decode()  # half a surrogate pair, which JSON can spell, is no character


def _of_rows(path: Path, column: str, suffix: str) -> Iterator[str]:
    lines = _lines(path)
    if suffix == ".tsv":
        rows: Iterator[list[str]] = (line.rstrip("\r\n").split("\t") for line in lines)
    else:
        rows = csv.reader(lines, strict=True)
    try:
        header = [name.strip() for name in next(rows, [])]
        if column not in header:
            _no_table(path, f"the columns {', '.join(header)}", column)
        position = header.index(column)
        for number, row in enumerate(rows, 2):
            if any(row):
                if len(row) <= position:
                    _no_table(path, f"row {number} has {count_noun(len(row), 'field')}", column)
                yield row[position]
    except csv.Error as error:
        _no_table(path, str(error), column)


def _unreadable(path: Path, why: str) -> NoReturn:
    raise HarnessError(
        f"cannot read the texts {path}: {why}", fix="Check --texts; relative paths start at the working directory"
    )


def _no_table(path: Path, problem: str, column: str) -> NoReturn:
    raise HarnessError(
        f"{path}: {problem}, no text in column '{column}'", fix="Name the column with --column, or correct the file"
    )


# ---------------------------------------------------------------------------------------------------------- tokenizer


def train_tokenizer(texts: Callable[[], Documents], kind: Kind, size: int, causal: bool, longest: int) -> Any:
    """Train a tokenizer on texts by `tokenizers`; the same texts give the same one.

    Args:
        texts: Gives the documents, each time from the first.
        kind: WordPiece splits at blanks and punctuation, and Chinese characters each by themselves (as BERT's, but
            cased); BPE works on bytes and knows every text.
        size: The most tokens that it has.
        causal: Whether it is for a GPT-2, whose texts end in a token of their own, not for a BERT.
        longest: The longest text that its model reads, in tokens.

    Raises:
        HarnessError: The size has no room for the alphabet.
    """
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    specials = _CAUSAL_SPECIALS if causal else _MASKED_SPECIALS
    least = len(specials) + (256 if kind == "BPE" else 64)
    if size < least:
        raise HarnessError(f"--vocab-size must be >= {least}, to leave room for the alphabet of {kind}", got=size)

    def sentences() -> Iterator[str]:
        return (sentence for document in texts() for sentence in document)

    trained = (_byte_pairs if kind == "BPE" else _word_pieces)(sentences, size, specials)
    ids = {token: trained.token_to_id(token) for token in specials}
    if causal:
        names = {"pad_token": specials[0], "unk_token": specials[1], "bos_token": specials[2], "eos_token": specials[2]}
        inputs = ["input_ids", "attention_mask"]
    else:
        names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), specials, strict=True))
        inputs = ["input_ids", "token_type_ids", "attention_mask"]
        start, separator = names["cls_token"], names["sep_token"]
        trained.post_processor = processors.TemplateProcessing(
            single=f"{start} $A {separator}",
            pair=f"{start} $A {separator} $B:1 {separator}:1",
            special_tokens=[(start, ids[start]), (separator, ids[separator])],
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=trained, model_max_length=longest, model_input_names=inputs, **names
    )


def _byte_pairs(sentences: Callable[[], Iterator[str]], size: int, specials: Sequence[str]) -> Any:
    """A byte-level BPE tokenizer, as GPT-2's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    trained: Any = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer: Any = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(specials), initial_alphabet=alphabet, show_progress=False
    )
    trained.train_from_iterator(sentences(), trainer)
    trained.decoder = decoders.ByteLevel()
    return trained


def _word_pieces(sentences: Callable[[], Iterator[str]], size: int, specials: Sequence[str]) -> Any:
    """A WordPiece tokenizer, as BERT's but cased."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    shape = normalizers.BertNormalizer(lowercase=False, strip_accents=False), pre_tokenizers.BertPreTokenizer()
    counts: Counter[str] = Counter()
    for sentence in sentences():
        counts.update(shape[0].normalize_str(sentence))
    counts.pop(" ", None)
    alphabet = sorted(sorted(counts, key=lambda letter: (-counts[letter], letter))[: size // 4])
    # The trainer numbers the continuations in the order of a hash map that is seeded at random, and breaks ties by
    # these numbers. Named beforehand they have the same in every run.
    continuations = [f"##{character}" for character in alphabet]
    learner: Any = Tokenizer(models.WordPiece(unk_token=specials[1]))
    learner.normalizer, learner.pre_tokenizer = shape
    trainer: Any = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=[*specials, *continuations], initial_alphabet=alphabet,
        limit_alphabet=len(alphabet), show_progress=False,
    )  # fmt: skip
    learner.train_from_iterator(sentences(), trainer)
    trained: Any = Tokenizer(models.WordPiece(learner.get_vocab(with_added_tokens=False), unk_token=specials[1]))
    trained.normalizer, trained.pre_tokenizer = shape
    trained.decoder = decoders.WordPiece()
    return trained


# ----------------------------------------------------------------------------------------------------------- encoding


def encode(
    texts: Callable[[], Documents],
    tokenizer: Any,
    *,
    room: int,
    held_out: float,
    by_document: bool,
    words: bool,
    scratch: Path,
) -> Corpus:
    """Turn texts into tokens, those of a sentence beyond `room` into further sentences.

    Args:
        texts: Gives the documents, each time from the first.
        tokenizer: The tokenizer.
        room: The most tokens of a sentence.
        held_out: The share of the texts that is held out, by a hash of the text: equal ones fall on the same side,
            whatever else the files hold.
        by_document: Whether documents are held out whole, not sentence by sentence.
        words: Whether the word of each token is noted, for masking whole words.
        scratch: Where the tokens lie, in unnamed files.

    Raises:
        HarnessError: There is no sentence to train on, or more than half of the tokens are unknown.
    """
    with ExitStack() as opened:
        writer = _TokenWriter(tokenizer, room, words, (_CorpusPart(opened, scratch), _CorpusPart(opened, scratch)))
        for number, document in enumerate(texts()):
            whole = by_document and _is_held_out("\n".join(document), held_out)
            for sentence in document:
                writer.add(sentence, number, whole if by_document else _is_held_out(sentence, held_out))
        writer.flush()
        train, held_back = (part.done() for part in writer.parts)
    unknown, tokens = writer.unknown, writer.tokens
    if not len(train):
        raise HarnessError(
            f"no sentences to train on: {len(held_back)} are held out", fix="Give more --texts, or a smaller --held-out"
        )
    if unknown > _MOST_UNKNOWN * tokens:
        raise HarnessError(
            f"{unknown / tokens:.0%} of the tokens are unknown to the tokenizer, more than {_MOST_UNKNOWN:.0%}",
            fix="Train one on the texts (--train-tokenizer WordPiece or BPE, a larger --vocab-size), or use "
            "another model with --from",
        )
    return Corpus(train, held_back, unknown / tokens)


def _is_held_out(text: str, share: float) -> bool:
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:4], "big") < share * _SPLIT_OF


class _TokenWriter:
    """Encodes sentences, many at once, and sends each to its side of the split."""

    def __init__(self, tokenizer: Any, room: int, words: bool, parts: tuple[_CorpusPart, _CorpusPart]) -> None:
        self.parts, self.unknown, self.tokens = parts, 0, 0
        self._tokenizer, self._room, self._words = tokenizer, room, words
        # A slow tokenizer, as those of Japanese BERTs, does not tell its words; WordPiece marks what continues one.
        self._continuing = [number for token, number in tokenizer.get_vocab().items() if token.startswith("##")]
        if words and not (tokenizer.is_fast or self._continuing):
            raise HarnessError(
                "--whole-word requires a fast tokenizer, or a WordPiece one",
                got="a slow one without ## tokens",
                fix="Leave --whole-word out",
            )
        self._waiting: list[tuple[str, int, bool]] = []

    def add(self, sentence: str, document: int, held_out: bool) -> None:
        self._waiting.append((sentence, document, held_out))
        if len(self._waiting) == _AT_ONCE:
            self.flush()

    def flush(self) -> None:
        if not self._waiting:
            return
        encoded = self._tokenizer(
            [sentence for sentence, _, _ in self._waiting],
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        unknown = self._tokenizer.unk_token_id
        for row, (ids, (_, document, held_out)) in enumerate(zip(encoded["input_ids"], self._waiting, strict=True)):
            values, begins = np.array(ids, np.int32), np.ones(len(ids), np.bool_)
            if self._words and self._tokenizer.is_fast:
                word = np.array([-1 if word_number is None else word_number for word_number in encoded.word_ids(row)])
                begins[1:] = word[1:] != word[:-1]
            elif self._words:
                begins[1:] = ~np.isin(values[1:], self._continuing)
            self.tokens += len(values)
            self.unknown += 0 if unknown is None else int((values == unknown).sum())
            for start in range(0, len(values), self._room):
                piece = slice(start, start + self._room)
                self.parts[held_out].add(values[piece], begins[piece], document)
        self._waiting.clear()


class _CorpusPart:
    """One side of the split while it is written; a map of a file outlives its closing."""

    def __init__(self, opened: ExitStack, scratch: Path) -> None:
        self._files = [opened.enter_context(tempfile.TemporaryFile(dir=scratch)) for _ in range(2)]  # noqa: SIM115
        self._starts, self._document = array("q", [0]), array("q")

    def add(self, values: NDArray[np.int32], begins: NDArray[np.bool_], number: int) -> None:
        for file, content in zip(self._files, (values, begins), strict=True):
            file.write(content.tobytes())
        self._starts.append(self._starts[-1] + len(values))
        self._document.append(number)

    def done(self) -> Sentences:
        total, columns = self._starts[-1], []
        kinds: tuple[Any, Any] = (np.int32, np.bool_)
        for file, kind in zip(self._files, kinds, strict=True):
            file.flush()
            columns.append(np.memmap(file, kind, "r", shape=(total,)) if total else np.zeros(0, kind))
        starts, document = (np.frombuffer(values, np.int64) for values in (self._starts, self._document))
        return Sentences(columns[0], columns[1], starts, document)
