"""The embedded language as text for a causal language model: what it is pretrained on, and the question of fine-tuning.

Pretraining sees conclusions ("all dog runs therefore some animal moves") and judgements of single words ("poodle is dog
: true"). So it knows the words `true` and `false` and both trees, but was never asked to judge a conclusion, which is
what fine-tuning asks: "all dog runs therefore some animal moves :", answered by `true` or `false`.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.data.embedded.language import NOUNS, PARENT, VERBS, VOCABULARY, Pair, Split, dataset, pretraining_pairs

END = "[END]"  # before and behind each text
SPECIAL_TOKENS = ("[PAD]", "[UNK]", END)
CHOICES = ("true", "false")
# The language's words without the special tokens of an encoder, and those that texts need beside them.
DECODER_VOCABULARY = (*SPECIAL_TOKENS, *VOCABULARY[5:], "therefore", "is", ":", *CHOICES)
LONGEST = 20  # tokens of a row; the longest text has 17: two sentences of six words, three words, an end on each side


def conclusion(pair: Pair) -> str:
    """A pair as a text: `all dog runs therefore some animal moves`."""
    return f"{pair.premise} therefore {pair.hypothesis}"


def question(pair: Pair) -> str:
    """What fine-tuning asks of a pair, with the blank before the answer."""
    return f"{conclusion(pair)} : "


def answer(pair: Pair) -> str:
    """`true` where the premise entails the hypothesis, else `false`."""
    return CHOICES[not pair.entailed]


def examples(split: Split) -> Iterator[dict[str, object]]:
    """The fixed fine-tuning data as rows of a file of completions."""
    for pair in dataset(split):
        yield {"prompt": question(pair), "completion": answer(pair), "choices": list(CHOICES)}


def judgements() -> list[str]:
    """Whether one word lies under another, of all pairs of nouns and of verbs; both answers equally often."""
    judged: dict[bool, list[str]] = {True: [], False: []}
    for words in (NOUNS, VERBS):
        for first in words:
            for second in words:
                under = second in _upwards(first)
                judged[under].append(f"{first} is {second} : {CHOICES[not under]}")
    repeats = -(-len(judged[False]) // len(judged[True]))
    return judged[False] + (judged[True] * repeats)[: len(judged[False])]


def pretraining_texts(pairs: int) -> list[str]:
    """So many conclusions, and the judgements of words repeated until they are a quarter as many or more."""
    judged = judgements()
    return [conclusion(pair) for pair in pretraining_pairs(pairs)] + judged * max(1, -(-pairs // (4 * len(judged))))


def _upwards(word: str) -> Iterator[str]:
    above: str | None = word
    while above is not None:
        yield above
        above = PARENT[above]
