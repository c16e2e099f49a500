"""A formal language of short quantified sentences, whose entailments are known exactly.

A sentence is a quantifier, at most one adjective, a noun, a verb and at most one adverb: "no large lily rests". A pair
is a premise and a hypothesis made from it by one or two edits; whether the premise entails the hypothesis follows from
the monotonicity of the quantifiers (van Benthem, "Essays in Logical Semantics", 1986, ch. 6).

What the sentences mean, which makes every label exactly right:

- A noun and a verb denote a set of things. In its tree, a word's set is contained in its parent's; nothing else is
  known about two words, so siblings may overlap.
- An adjective or adverb denotes a set too and narrows its head by intersection.
- Every noun denotes something, and so does every noun with one adjective ("all large lily rests" entails "some large
  lily rests"). Verbs may denote nothing, and so may what two nouns of different branches, or two adjectives, share.
- "all": every such thing does it; "some": at least one; "no": none; "not all": at least one does not.
"""

import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

_T = TypeVar("_T")
Quantifier = Literal["all", "some", "no", "not all"]
Split = Literal["train", "validation"]

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

# Three levels: kinds, what falls under them, and three (nouns) or two (verbs) leaves under each of those.
_NOUN_TREE: dict[str, dict[str, tuple[str, ...]]] = {
    "animal": {
        "dog": ("poodle", "beagle", "terrier"),
        "bird": ("robin", "sparrow", "eagle"),
        "fish": ("salmon", "trout", "carp"),
    },
    "plant": {
        "tree": ("oak", "pine", "maple"),
        "flower": ("rose", "lily", "tulip"),
    },
    "person": {
        "worker": ("miner", "farmer", "baker"),
        "artist": ("painter", "singer", "dancer"),
        "child": ("toddler", "schoolboy", "schoolgirl"),
    },
}
_VERB_TREE: dict[str, dict[str, tuple[str, ...]]] = {
    "moves": {"runs": ("sprints", "jogs"), "walks": ("strolls", "marches"), "flies": ("soars", "glides")},
    "speaks": {"shouts": ("yells", "screams"), "whispers": ("murmurs", "mumbles")},
    "rests": {"sleeps": ("naps", "dozes"), "sits": ("squats", "perches")},
}
ADJECTIVES = ("large", "small", "old", "young", "red", "white", "happy", "quiet", "wild", "strange")
ADVERBS = ("slowly", "quickly", "often", "outside", "alone", "today")
QUANTIFIERS: tuple[Quantifier, ...] = ("all", "some", "no", "not all")


def _parents(tree: dict[str, dict[str, tuple[str, ...]]]) -> dict[str, str | None]:
    """Map each word of a tree to its parent, level by level; a word at the top has none."""
    top: dict[str, str | None] = dict.fromkeys(tree)
    middle = {word: parent for parent, under in tree.items() for word in under}
    leaves = {leaf: word for under in tree.values() for word, names in under.items() for leaf in names}
    return top | middle | leaves


PARENT: dict[str, str | None] = _parents(_NOUN_TREE) | _parents(_VERB_TREE)
"""The trees: the word above each noun and verb, `None` at the top; what the lower one denotes, the upper one does."""
NOUNS = tuple(_parents(_NOUN_TREE))
VERBS = tuple(_parents(_VERB_TREE))
_CHILDREN = {word: tuple(other for other, parent in PARENT.items() if parent == word) for word in PARENT}
_SIBLINGS = {
    word: tuple(
        other for other in (NOUNS if word in NOUNS else VERBS) if other != word and PARENT[other] == PARENT[word]
    )
    for word in PARENT
}

VOCABULARY: tuple[str, ...] = (
    *SPECIAL_TOKENS,
    *("all", "some", "no", "not"),
    *ADJECTIVES,
    *NOUNS,
    *VERBS,
    *ADVERBS,
)
"""The 84 words in the order of their token ids, the five special tokens first."""

LONGEST_PAIR = 15
"""Tokens of the longest pair: twice "not all", adjective, noun, verb, adverb, and [CLS], [SEP], [SEP]."""

# Fixed once: the fine-tuning data and the pretraining pairs are part of what is shipped.
_SIZES: dict[Split, int] = {"train": 1_000, "validation": 400}
_SEEDS: dict[Split, int] = {"train": 1, "validation": 2}
# One pair in eight, chosen by its text alone, is kept for validation, so that no seed and no count can leak one.
_VALIDATION_SHARE = 8


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence, by its parts; `str()` gives its words."""

    quantifier: Quantifier
    adjective: str | None
    noun: str
    verb: str
    adverb: str | None

    def __str__(self) -> str:
        """Give the sentence's words, separated by one space."""
        return " ".join(word for word in (self.quantifier, self.adjective, self.noun, self.verb, self.adverb) if word)

    @classmethod
    def parse(cls, text: str) -> "Sentence":
        """Read a sentence back from its words; ValueError where the text is no sentence of the language."""
        for quantifier in QUANTIFIERS:
            if text.startswith(f"{quantifier} "):
                words = text.removeprefix(f"{quantifier} ").split()
                adjective = words.pop(0) if words and words[0] in ADJECTIVES else None
                adverb = words.pop() if words and words[-1] in ADVERBS else None
                if len(words) == 2 and words[0] in NOUNS and words[1] in VERBS:
                    return cls(quantifier, adjective, words[0], words[1], adverb)
        raise ValueError(
            f"a sentence is a quantifier ({', '.join(QUANTIFIERS)}), at most one adjective, a noun, a verb, at most "
            f"one adverb; got {text!r}; see VOCABULARY for the words"
        )


@dataclass(frozen=True, slots=True)
class Pair:
    """A premise and a hypothesis as texts, and whether the premise entails the hypothesis."""

    premise: str
    hypothesis: str
    entailed: bool


def entails(premise: Sentence, hypothesis: Sentence) -> bool:
    """Say whether the hypothesis is true in every world in which the premise is; exact under this module's semantics.

    all: ↓ subject, ↑ predicate; some: ↑, ↑; no: ↓, ↓; not all: ↑, ↓. In addition `all` entails `some`, and `no` entails
    `not all`, of any subject that surely shares a thing with the premise's.
    """
    subject, other = (premise.adjective, premise.noun), (hypothesis.adjective, hypothesis.noun)
    predicate, other_predicate = (premise.adverb, premise.verb), (hypothesis.adverb, hypothesis.verb)
    subject_up, subject_down = _within(subject, other), _within(other, subject)
    predicate_up, predicate_down = _within(predicate, other_predicate), _within(other_predicate, predicate)
    match premise.quantifier, hypothesis.quantifier:
        case "all", "all":
            return subject_down and predicate_up
        case "some", "some":
            return subject_up and predicate_up
        case "no", "no":
            return subject_down and predicate_down
        case "not all", "not all":
            return subject_up and predicate_down
        case "all", "some":
            return _surely_overlap(subject, other) and predicate_up
        case "no", "not all":
            return _surely_overlap(subject, other) and predicate_down
        case _:
            return False


def pairs(count: int, seed: int, *, split: Split) -> list[Pair]:
    """Draw `count` distinct labelled pairs, entailed and not entailed in turn, so that the halves are equal.

    Pairs of the split "validation" and pairs of the split "train" never meet, whatever the counts and seeds: a pair's
    text alone decides which of the two it may belong to.
    """
    return _draw(count, random.Random(seed), split, labels=(True, False))


def conclusions(rng: random.Random, count: int, *, split: Split) -> list[Pair]:
    """Draw a premise with `count` different conclusions of a split, of which the first alone is entailed."""
    _check_split(split)
    while True:
        premise = _sentence(rng)
        drawn: dict[bool, dict[Pair, None]] = {True: {}, False: {}}
        for _ in range(8 * count):  # some premises entail next to nothing of their split
            hypothesis = _edited(premise, rng)
            pair = Pair(str(premise), str(hypothesis), entails(premise, hypothesis))
            if _split_of(pair) == split:
                drawn[pair.entailed][pair] = None
        if drawn[True] and len(drawn[False]) >= count - 1:
            return [next(iter(drawn[True])), *list(drawn[False])[: count - 1]]


def pretraining_pairs(count: int = 40_000, seed: int = 3) -> list[Pair]:
    """Draw `count` distinct entailed pairs for masked language modelling.

    They come from the part of the language that "train" comes from and may hold pairs of it; no validation pair is
    among them, so that no text on which the study measures has been seen.
    """
    return _draw(count, random.Random(seed), "train", labels=(True,))


def dataset(split: Split) -> list[Pair]:
    """Give the fixed fine-tuning data: 1,000 pairs for "train", 400 others for "validation", half of them entailed."""
    _check_split(split)
    return pairs(_SIZES[split], _SEEDS[split], split=split)


def _within(inner: tuple[str | None, str], outer: tuple[str | None, str]) -> bool:
    """Say whether every thing under one (modifier, head) is surely under another: a longer text up the tree."""
    return outer[0] in (None, inner[0]) and outer[1] in _upwards(inner[1])


def _surely_overlap(first: tuple[str | None, str], second: tuple[str | None, str]) -> bool:
    """Say whether two subjects surely share a thing.

    They do where one noun is above the other and there is at most one adjective: the lower noun with it denotes
    something. Two different adjectives may exclude each other, and so may nouns of different branches.
    """
    comparable = first[1] in _upwards(second[1]) or second[1] in _upwards(first[1])
    return comparable and (first[0] == second[0] or first[0] is None or second[0] is None)


def _upwards(word: str) -> Iterator[str]:
    """Give a word and all above it in its tree."""
    above: str | None = word
    while above is not None:
        yield above
        above = PARENT[above]


def _draw(count: int, rng: random.Random, split: Split, labels: tuple[bool, ...]) -> list[Pair]:
    """Draw distinct pairs of a split, their labels running through `labels` in turn."""
    if count < 0:
        raise ValueError(f"the count of pairs must not be negative; got {count}; ask for 0 or more")
    _check_split(split)
    drawn: dict[Pair, None] = {}  # a dict keeps the order and tells doubles
    while len(drawn) < count:
        premise = _sentence(rng)
        hypothesis = _edited(premise, rng)
        pair = Pair(str(premise), str(hypothesis), entails(premise, hypothesis))
        if pair.entailed == labels[len(drawn) % len(labels)] and _split_of(pair) == split:
            drawn[pair] = None
    return list(drawn)


def _check_split(split: str) -> None:
    """Refuse a split that does not exist, of which pairs would be drawn for ever."""
    if split not in _SIZES:
        raise ValueError(f"the language has the splits {' and '.join(_SIZES)}; got {split!r}; name one of them")


def _split_of(pair: Pair) -> Split:
    """Say to which split a pair belongs, by its text alone; crc32 is the same on every machine, `hash` is not."""
    return "train" if zlib.crc32(f"{pair.premise}|{pair.hypothesis}".encode()) % _VALIDATION_SHARE else "validation"


def _sentence(rng: random.Random) -> Sentence:
    """Draw a sentence; each modifier is there half of the time."""
    return Sentence(
        quantifier=_pick(rng, QUANTIFIERS),
        adjective=_pick(rng, ADJECTIVES) if rng.random() < 0.5 else None,
        noun=_pick(rng, NOUNS),
        verb=_pick(rng, VERBS),
        adverb=_pick(rng, ADVERBS) if rng.random() < 0.5 else None,
    )


_SWAPPED: dict[Quantifier, Quantifier] = {"all": "some", "some": "all", "no": "not all", "not all": "no"}
_PARTS = ("quantifier", "adjective", "noun", "verb", "adverb")


def _edited(sentence: Sentence, rng: random.Random) -> Sentence:
    """Change one or two different parts of a sentence."""
    first = _pick(rng, _PARTS)
    second = _pick(rng, tuple(part for part in _PARTS if part != first)) if rng.random() < 0.5 else None
    edited = {first, second}
    adjective, adverb = sentence.adjective, sentence.adverb
    return Sentence(
        quantifier=_SWAPPED[sentence.quantifier] if "quantifier" in edited else sentence.quantifier,
        adjective=_toggled(adjective, ADJECTIVES, rng) if "adjective" in edited else adjective,
        noun=_neighbour(sentence.noun, rng) if "noun" in edited else sentence.noun,
        verb=_neighbour(sentence.verb, rng) if "verb" in edited else sentence.verb,
        adverb=_toggled(adverb, ADVERBS, rng) if "adverb" in edited else adverb,
    )


def _toggled(modifier: str | None, modifiers: tuple[str, ...], rng: random.Random) -> str | None:
    """Drop a modifier where there is one, else add one."""
    return _pick(rng, modifiers) if modifier is None else None


def _neighbour(word: str, rng: random.Random) -> str:
    """Go one step up, down or sideways in a word's tree, each direction that exists being equally likely."""
    parent = PARENT[word]
    up = () if parent is None else (parent,)
    return _pick(rng, _pick(rng, tuple(words for words in (up, _CHILDREN[word], _SIBLINGS[word]) if words)))


def _pick(rng: random.Random, choices: tuple[_T, ...]) -> _T:
    """Draw one of the choices by `random()`, the one method that Python promises to keep the same between versions."""
    return choices[int(rng.random() * len(choices))]
