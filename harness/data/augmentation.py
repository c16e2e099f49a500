"""Changed copies of the training texts, before they are tokenised: "easy data augmentation" and paraphrases.

Swap, delete, insert and synonyms are those of Wei & Zou (2019, arXiv:1901.11196), without their cleaning of texts and
with a list of words of one's own for WordNet. The copies of a trial are drawn from a stream keyed by its order seed,
the part of a seed that decides what training sees and when: trials that share it see the same texts.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.common import hub
from harness.common.errors import HarnessError, describe_os_error
from harness.config.recipe import Recipe, WordList
from harness.data import words
from harness.data.examples import Raw, Rows

_CORE = re.compile(r"(\W*)(.*?)(\W*)", re.DOTALL)  # a word between its punctuation


@dataclass(frozen=True, eq=False)
class Synonyms:
    """The words of a list, each with its synonyms, and the hash of both."""

    of: Mapping[str, tuple[str, ...]]
    sha256: str

    def find(self, word: str) -> tuple[str, ...]:
        """What may stand for a word, whose case and punctuation need not be the list's; none where it isn't there."""
        before, core, after = _parts(word)
        return tuple(f"{before}{synonym}{after}" for synonym in self.of.get(core, self.of.get(core.lower(), ())))


def _parts(word: str) -> tuple[str, str, str]:
    match = _CORE.fullmatch(word)
    assert match is not None  # it takes anything
    return match[1], match[2], match[3]


def read(spec: WordList) -> Synonyms:
    """Read a list of words; raises HarnessError for a file that is none, with the line."""
    path = Path(spec.file).expanduser()
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = describe_os_error(error) if isinstance(error, OSError) else "it is not UTF-8 text"
        raise HarnessError(
            f"cannot read the synonyms {path}: {reason}",
            fix="Check synonyms; relative paths start at the working directory",
        ) from None
    synonyms: dict[str, tuple[str, ...]] = {}
    while lines and not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines, 1):
        word, *others = (field.strip() for field in line.rstrip("\r").split("\t"))
        if word in synonyms:
            problem = f"duplicate word '{word}'"
        elif word and not others:
            problem = f"no synonym of '{word}'"
        else:
            problem = "" if word and all(others) else "an empty field"
        if problem:
            raise HarnessError(
                f"{path}, line {number}: {problem}", fix="A line is a word, a tab, and its synonyms separated by tabs"
            )
        synonyms[word] = tuple(others)
    if not synonyms:
        raise HarnessError(
            f"{path} has no synonyms", fix="Add a line: a word, a tab, and its synonyms separated by tabs"
        )
    content = "\n".join("\t".join((word, *others)) for word, others in synonyms.items())
    return Synonyms(synonyms, hashlib.sha256(content.encode()).hexdigest())


def check(recipe: Recipe, raw: Raw) -> str | None:
    """Raise HarnessError, within seconds, for an augmentation that these data or this machine can't have.

    Returns the hash of its list of words, None without one. Of a translator, whether it is there.
    """
    if recipe.augment == "none":
        return None
    for spec, key in ((recipe.translator, "translator"), (recipe.back_translator, "back_translator")):
        if spec is not None:
            hub.check_model(spec, f"{key}.folder")
    if recipe.augment == "backtranslate":
        return None
    if words.japanese(raw.train.texts):
        words.check_mecab(raw.name, "augment: none")
    if recipe.synonyms is None:
        return None
    known, split = read(recipe.synonyms), _words(raw)[0]
    if not any(known.find(word) for text in (*raw.train.texts, *(raw.train.pairs or ())) for word in split(text)):
        raise HarnessError(
            f"none of the {len(known.of)} words of the synonyms {recipe.synonyms.name} occurs in the training "
            f"texts of {raw.name}",
            fix="Use another list, with words as the texts have them or in lower case",
        )
    return known.sha256


def settings(recipe: Recipe) -> tuple[object, ...]:
    """What decides the copies beside the texts and the seed."""
    kind = (recipe.augment, recipe.augment_rate, recipe.augment_copies)
    return (*kind, recipe.synonyms, recipe.translator, recipe.back_translator)


def copies(raw: Raw, recipe: Recipe, order_seed: int, device: str = "cpu") -> tuple[Rows, str | None]:
    """The changed copies of the training examples, all of them once and then the next time; both texts of a pair.

    Labels stay. Also the hash of the words or translators that changed them, None where there are none. Raises
    HarnessError as `read`, and for translators that can't be used.
    """
    rows, draw = raw.train, _stream(order_seed)
    sources = [rows.texts] if rows.pairs is None else [rows.texts, rows.pairs]
    texts_of: list[list[str]] = [[] for _ in sources]
    digest = None
    if recipe.augment == "backtranslate":
        from harness.data import paraphrase

        through = tuple(spec for spec in (recipe.translator, recipe.back_translator) if spec is not None)
        for _ in range(recipe.augment_copies):
            for texts, into in zip(sources, texts_of, strict=True):
                into += paraphrase.paraphrased(through, texts, int(draw.random() * 2**53), device)
        digest = paraphrase.sha256(through)
    else:
        known = None if recipe.synonyms is None else read(recipe.synonyms)
        digest = None if known is None else known.sha256
        split, blank = _words(raw)
        for _ in range(recipe.augment_copies):
            for texts, into in zip(sources, texts_of, strict=True):
                into += (blank.join(changed(split(text), recipe, known, draw)) for text in texts)
    times = recipe.augment_copies
    return Rows(
        texts=tuple(texts_of[0]),
        pairs=None if rows.pairs is None else tuple(texts_of[1]),
        labels=np.tile(rows.labels, times),
        source=rows.source,
        unit=rows.unit,
        numbers=list(rows.numbers) * times,
    ), digest


def changed(text: Sequence[str], recipe: Recipe, known: Synonyms | None, draw: random.Random) -> list[str]:
    """The words of a text with a share of `augment_rate` of them changed, one at least where that can be."""
    words, rate = list(text), recipe.augment_rate
    if not words:  # GLUE has a few blank texts
        return words
    if recipe.augment == "delete":  # each by itself, but not all
        left = [word for word in words if draw.random() >= rate]
        return left or [words[_below(len(words), draw)]]
    count = max(1, int(rate * len(words)))
    if recipe.augment == "swap":
        for _ in range(count if len(words) > 1 else 0):
            first, second = _below(len(words), draw), _below(len(words) - 1, draw)
            second += second >= first
            words[first], words[second] = words[second], words[first]
        return words
    assert known is not None
    places = [position for position, word in enumerate(words) if known.find(word)]
    if recipe.augment == "synonyms":
        for _ in range(min(count, len(places))):
            position = places.pop(_below(len(places), draw))
            synonyms = known.find(words[position])
            words[position] = synonyms[_below(len(synonyms), draw)]
        return words
    for _ in range(count if places else 0):  # a synonym of some word of the text, anywhere in it
        synonyms = known.find(_parts(text[places[_below(len(places), draw)]])[1])
        words.insert(_below(len(words) + 1, draw), synonyms[_below(len(synonyms), draw)])
    return words


def _below(number: int, draw: random.Random) -> int:
    """A whole number from 0 to below it: of Python's generator `random` alone is promised to stay the same."""
    return int(draw.random() * number)


def _stream(order_seed: int) -> random.Random:
    return random.Random(int.from_bytes(hashlib.sha256(f"augment:{order_seed}".encode()).digest()[:8], "big"))


def _words(raw: Raw) -> tuple[words.Split, str]:
    """How texts are parted into words, and what stands between them when they are put together again."""
    return (words.mecab(blanks=True), "") if words.japanese(raw.train.texts) else (str.split, " ")
