"""The embedded language: its labels against worlds, its data against what is promised of them."""

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data.embedded.language import (
    ADJECTIVES,
    ADVERBS,
    LONGEST_PAIR,
    NOUNS,
    PARENT,
    QUANTIFIERS,
    SPECIAL_TOKENS,
    VERBS,
    VOCABULARY,
    Pair,
    Sentence,
    dataset,
    entails,
    pairs,
    pretraining_pairs,
)

# A slow second opinion on the labels, which knows nothing of monotonicity. A thing is the set of the words that are
# true of it; a world is a collection of things. Only the words of the two sentences matter: whatever else must denote
# something can be had by adding copies of the things there are, with other words true of them.

Thing = frozenset[str]
World = Sequence[Thing]


def words_of(*sentences: Sentence) -> list[str]:
    parts = {part for s in sentences for part in (s.adjective, s.noun, s.verb, s.adverb) if part is not None}
    return sorted(parts)


def above(word: str) -> Iterator[str]:
    while (parent := PARENT.get(word)) is not None:
        yield parent
        word = parent


def things(words: Sequence[str]) -> list[Thing]:
    """Every thing there can be: a dog is an animal, and nothing else is known."""
    subsets = itertools.chain.from_iterable(itertools.combinations(words, n) for n in range(len(words) + 1))
    return [
        frozenset(subset)
        for subset in subsets
        if all(upper in subset for word in subset for upper in above(word) if upper in words)
    ]


def is_a(thing: Thing, modifier: str | None, head: str) -> bool:
    return head in thing and (modifier is None or modifier in thing)


def is_true(sentence: Sentence, world: Iterable[Thing]) -> bool:
    does = [is_a(t, sentence.adverb, sentence.verb) for t in world if is_a(t, sentence.adjective, sentence.noun)]
    return {"all": all(does), "some": any(does), "no": not any(does), "not all": not all(does)}[sentence.quantifier]


def is_world(world: World, words: Sequence[str]) -> bool:
    """Every noun denotes something, and so does every noun with one adjective."""
    modifiers = [None, *(word for word in words if word in ADJECTIVES)]
    nouns = [word for word in words if word in NOUNS]
    return all(any(is_a(t, modifier, noun) for t in world) for modifier in modifiers for noun in nouns)


def is_countermodel(world: World, premise: Sentence, hypothesis: Sentence) -> bool:
    return is_world(world, words_of(premise, hypothesis)) and is_true(premise, world) and not is_true(hypothesis, world)


def small_countermodel(premise: Sentence, hypothesis: Sentence, largest: int) -> World | None:
    """Look through every world of at most `largest` things."""
    possible = things(words_of(premise, hypothesis))
    worlds = (w for size in range(1, largest + 1) for w in itertools.combinations(possible, size))
    return next((world for world in worlds if is_countermodel(world, premise, hypothesis)), None)


def countermodel(premise: Sentence, hypothesis: Sentence) -> World | None:
    """Give a countermodel if any world of any size is one.

    What must hold says of single things that they may not be ("all", "no") or that one must be ("some", "not all",
    nouns denote). So of the worlds without a forbidden thing the one with all other things does best.
    """

    def allowed(thing: Thing) -> bool:
        return (premise.quantifier not in ("all", "no") or is_true(premise, [thing])) and (
            hypothesis.quantifier not in ("some", "not all") or not is_true(hypothesis, [thing])
        )

    world = [thing for thing in things(words_of(premise, hypothesis)) if allowed(thing)]
    return world if is_countermodel(world, premise, hypothesis) else None


def parsed(pair: Pair) -> tuple[Sentence, Sentence]:
    return Sentence.parse(pair.premise), Sentence.parse(pair.hypothesis)


# Few words, so that most pairs are related; other branches are there too.
sentences = st.builds(
    Sentence,
    st.sampled_from(QUANTIFIERS),
    st.sampled_from([None, "large", "red"]),
    st.sampled_from(["animal", "dog", "poodle", "bird"]),
    st.sampled_from(["moves", "runs", "walks"]),
    st.sampled_from([None, "often", "alone"]),
)


@settings(deadline=None, max_examples=2_000)
@given(sentences, sentences)
def test_entailment_is_the_absence_of_a_countermodel(premise: Sentence, hypothesis: Sentence) -> None:
    assert entails(premise, hypothesis) == (countermodel(premise, hypothesis) is None)


@settings(deadline=None, max_examples=50)
@given(sentences, sentences, st.sampled_from(ADJECTIVES), st.sampled_from(NOUNS))
def test_entailment_is_reflexive_and_passes_on(one: Sentence, two: Sentence, adjective: str, noun: str) -> None:
    third = Sentence(two.quantifier, adjective, noun, two.verb, two.adverb)
    assert entails(one, one)
    assert entails(one, third) or not (entails(one, two) and entails(two, third))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_every_label_of_the_data_is_right(split: str) -> None:
    for pair in dataset(split):  # type: ignore[arg-type]
        premise, hypothesis = parsed(pair)
        assert pair.entailed == entails(premise, hypothesis)
        assert pair.entailed == (countermodel(premise, hypothesis) is None), pair


def test_labels_agree_with_all_worlds_of_up_to_three_things() -> None:
    tried = [(pair, *parsed(pair)) for pair in dataset("train")[:150]]
    small = [item for item in tried if len(things(words_of(*item[1:]))) <= 24]
    assert Counter(pair.entailed for pair, _, _ in small).most_common()[-1][1] >= 20  # enough of either label
    for pair, premise, hypothesis in small:
        assert pair.entailed == (small_countermodel(premise, hypothesis, largest=3) is None), pair


@pytest.mark.parametrize(
    ("premise", "hypothesis", "expected"),
    [
        ("all dog runs", "all large poodle moves", True),
        ("all dog runs", "all animal runs", False),
        ("some large dog runs quickly", "some animal moves", True),
        ("no animal moves", "no dog runs often", True),
        ("not all poodle moves", "not all dog runs", True),
        ("all dog runs", "some dog runs", True),
        ("all dog runs", "some animal runs", True),
        ("all animal runs", "some red dog moves", True),  # there is a red dog
        ("all large dog runs", "some red dog runs", False),  # no large red dog need exist
        ("all dog runs", "some bird runs", False),
        ("no dog moves", "not all animal runs", True),
        ("some dog runs", "all dog runs", False),
        ("all dog runs", "not all dog walks", False),  # to run and to walk do not exclude each other
    ],
)
def test_entailment_of_known_pairs(premise: str, hypothesis: str, expected: bool) -> None:
    one, two = Sentence.parse(premise), Sentence.parse(hypothesis)
    assert entails(one, two) is expected
    assert (countermodel(one, two) is None) is expected


@given(
    st.builds(
        Sentence,
        st.sampled_from(QUANTIFIERS),
        st.none() | st.sampled_from(ADJECTIVES),
        st.sampled_from(NOUNS),
        st.sampled_from(VERBS),
        st.none() | st.sampled_from(ADVERBS),
    )
)
def test_sentences_round_trip_through_their_words(sentence: Sentence) -> None:
    assert Sentence.parse(str(sentence)) == sentence
    assert set(str(sentence).split()) <= set(VOCABULARY)


@pytest.mark.parametrize(
    "text",
    ["", "all", "dog runs", "most dog runs", "all large small dog runs", "all runs dog", "all  dog runs often x"],
)
def test_what_is_no_sentence_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a sentence is a quantifier"):
        Sentence.parse(text)


def test_the_vocabulary_has_84_words_and_trees_of_three_levels() -> None:
    assert len(VOCABULARY) == len(set(VOCABULARY)) == 84
    assert VOCABULARY[:5] == SPECIAL_TOKENS == ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    assert Counter(len(list(above(noun))) for noun in NOUNS) == {0: 3, 1: 8, 2: 24}
    assert Counter(len(list(above(verb))) for verb in VERBS) == {0: 3, 1: 7, 2: 14}


def test_the_data_are_those_that_were_fixed() -> None:
    train, validation = dataset("train"), dataset("validation")
    assert (len(train), len(validation)) == (1_000, 400)
    assert train[:3] == [
        Pair("all miner shouts often", "all miner speaks often", True),
        Pair("not all large trout squats quickly", "no large fish squats quickly", False),
        Pair("no painter strolls", "not all painter strolls often", True),
    ]
    assert validation[:2] == [
        Pair("no salmon shouts quickly", "not all salmon shouts quickly", True),
        Pair("not all poodle speaks", "not all wild poodle speaks", False),
    ]
    assert pretraining_pairs(1) == [
        Pair("all eagle naps outside", "some eagle naps outside", True),
    ]


@pytest.mark.parametrize("split", ["train", "validation"])
def test_the_data_are_balanced_and_without_doubles(split: str) -> None:
    data = dataset(split)  # type: ignore[arg-type]
    assert [pair.entailed for pair in data] == [True, False] * (len(data) // 2)
    assert len({(pair.premise, pair.hypothesis) for pair in data}) == len(data)
    assert all(pair.premise != pair.hypothesis for pair in data)


def test_no_validation_pair_is_seen_in_training_or_pretraining() -> None:
    validation = set(dataset("validation"))
    pretraining = pretraining_pairs()
    assert len(set(pretraining)) == 40_000
    assert all(pair.entailed for pair in pretraining)
    assert not validation & set(dataset("train"))
    assert not validation & set(pretraining)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32), st.integers(0, 2**32), st.integers(0, 200), st.integers(0, 200))
def test_splits_never_meet_and_shorter_data_are_a_beginning(one: int, two: int, count: int, longer: int) -> None:
    drawn = pairs(count, one, split="train")
    assert len(drawn) == count
    assert not set(drawn) & set(pairs(count, two, split="validation"))
    assert pairs(longer, one, split="train")[: min(count, longer)] == drawn[: min(count, longer)]


def test_drawing_leaves_the_global_generator_alone() -> None:
    before = random.getstate()
    pairs(10, 0, split="train")
    assert random.getstate() == before


def test_the_longest_pair_has_15_tokens() -> None:
    lengths = [len(f"{pair.premise} {pair.hypothesis}".split()) + 3 for pair in pretraining_pairs(10_000)]
    assert max(lengths) == LONGEST_PAIR == 15


def test_every_word_is_seen_in_pretraining() -> None:
    seen = {word for pair in pretraining_pairs(10_000) for word in f"{pair.premise} {pair.hypothesis}".split()}
    assert seen == set(VOCABULARY) - set(SPECIAL_TOKENS)


def test_a_negative_count_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        pairs(-1, 0, split="train")


@pytest.mark.parametrize("draw", [dataset, lambda split: pairs(1, 0, split=split)])
def test_an_unknown_split_is_refused(draw: Callable[[str], list[Pair]]) -> None:
    with pytest.raises(ValueError, match="got 'test'"):
        draw("test")
