"""What is hidden and predicted: its frequencies, its bits where they are promised, and what a score is."""

import math

import numpy as np
import pytest
import torch
import transformers

from harness.pretraining.corpus import Sentences
from harness.pretraining.networks import build, build_tokenizer, frame_of
from harness.pretraining.objectives import (
    IGNORED,
    Causal,
    Frame,
    Masked,
    Pairs,
    Singles,
    TokenRows,
    _cut,
    examples,
    loss,
    mask_tokens,
    score,
)
from harness.pretraining.settings import Shape

SPECIALS, WORDS, MASK = 5, torch.arange(5, 84), 4
TINY = Shape(2, 16, 2)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows_of(tokens: torch.Tensor, begins: torch.Tensor | None = None) -> TokenRows:
    return TokenRows(tokens, torch.ones_like(tokens, dtype=torch.bool), tokens >= SPECIALS, begins)


def sentences(lengths: list[int], document: list[int]) -> Sentences:
    starts = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.arange(starts[-1], dtype=np.int32) % 79 + SPECIALS
    return Sentences(tokens, np.ones(len(tokens), np.bool_), starts, np.array(document))


# masking


@pytest.mark.parametrize(("share", "error"), [(0.15, 0.004), (0.2, 0.004)])
def test_words_are_hidden_in_the_shares_of_bert(share, error):
    tokens = torch.randint(SPECIALS, 84, (20_000, 15), generator=generator(0))
    inputs, labels = mask_tokens(rows_of(tokens), generator(1), share=share, mask=MASK, words=WORDS)
    hidden = labels != IGNORED
    masked, stayed = inputs[hidden] == MASK, inputs[hidden] == tokens[hidden]
    # 300,000 tokens, of them 45,000 or more hidden: five standard errors are 0.004 and at most 0.0095
    assert hidden.double().mean().item() == pytest.approx(share, abs=error)
    assert masked.double().mean().item() == pytest.approx(0.8, abs=0.0095)
    assert stayed.double().mean().item() == pytest.approx(0.1 + 0.1 / 79, abs=0.0075)  # some random words are the old
    assert (~masked & ~stayed).double().mean().item() == pytest.approx(0.1 * 78 / 79, abs=0.0075)
    assert (inputs[~hidden] == tokens[~hidden]).all()
    assert (labels[hidden] == tokens[hidden]).all()


def test_masks_are_drawn_anew_for_the_same_rows():
    tokens = torch.randint(SPECIALS, 84, (8, 15), generator=generator(0))
    draws, objective = generator(1), Masked(MASK, WORDS)
    one, two = (objective.draw(rows_of(tokens), draws)[1] for _ in range(2))
    assert not torch.equal(one, two)
    assert torch.equal(objective.draw(rows_of(tokens), generator(1))[1], one)


def test_special_tokens_are_never_hidden_nor_put_in():
    tokens = torch.randint(0, 84, (5_000, 15), generator=generator(0))
    inputs, labels = mask_tokens(rows_of(tokens), generator(1), share=0.2, mask=MASK, words=WORDS)
    special = tokens < SPECIALS
    assert (labels[special] == IGNORED).all()
    assert (inputs[special] == tokens[special]).all()
    assert set(inputs[~special & (inputs < SPECIALS)].tolist()) == {MASK}


def test_every_word_can_come_in_at_random():
    tokens = torch.full((20_000, 15), SPECIALS)
    inputs, _ = mask_tokens(rows_of(tokens), generator(0), share=0.2, mask=MASK, words=WORDS)
    assert set(inputs.flatten().tolist()) == {MASK, *range(SPECIALS, 84)}


def test_whole_words_are_hidden_together_and_as_often():
    begins = (torch.rand(20_000, 15, generator=generator(2)) < 0.6).index_fill_(1, torch.tensor([0]), True)
    tokens = torch.randint(SPECIALS, 84, (20_000, 15), generator=generator(0))
    inputs, labels = mask_tokens(
        rows_of(tokens, begins), generator(1), share=0.15, mask=MASK, words=WORDS, whole_words=True
    )
    hidden = labels != IGNORED
    inside = ~begins[:, 1:]
    assert (hidden[:, 1:][inside] == hidden[:, :-1][inside]).all()
    # about 190,000 words: five standard errors of their share are 0.004; each token's fate is its own
    assert hidden[begins].double().mean().item() == pytest.approx(0.15, abs=0.0042)
    assert hidden.double().mean().item() == pytest.approx(0.15, abs=0.006)
    assert (inputs[hidden] == MASK).double().mean().item() == pytest.approx(0.8, abs=0.0095)
    fates = inputs == MASK
    both = hidden[:, 1:] & inside
    assert (fates[:, 1:] != fates[:, :-1])[both].any()
    single = mask_tokens(rows_of(tokens, begins), generator(1), share=0.15, mask=MASK, words=WORDS)[1] != IGNORED
    assert not (single[:, 1:][inside] == single[:, :-1][inside]).all()


def test_a_causal_label_is_the_next_real_token():
    rows = Singles(sentences([3, 1], [0, 1]), Frame((1,), (), (2,), 0)).rows(torch.tensor([0, 1]), generator(0))
    assert rows.tokens.tolist() == [[1, 5, 6, 7, 2], [1, 8, 2, 0, 0]]
    inputs, labels = Causal().draw(rows, generator(0))
    assert inputs is rows.tokens
    assert labels.tolist() == [[5, 6, 7, 2, IGNORED], [8, 2, IGNORED, IGNORED, IGNORED]]


# rows


def test_a_tokenizer_is_framed_as_it_frames_by_itself():
    tokenizer = build_tokenizer()
    frame = frame_of(tokenizer, causal=False)
    assert (frame.before, frame.between, frame.after, frame.padding) == ((2,), (3,), (3,), 0)
    held = sentences([3, 4, 5], [0, 0, 1])
    pairs = Pairs(held, held.followed(), frame, 32)
    true = next(rows for seed in range(20) if not (rows := pairs.rows(torch.tensor([0]), generator(seed))).random_next)
    one, two = (tokenizer.decode(held.tokens[a:b].tolist()) for a, b in ((0, 3), (3, 7)))
    wanted = tokenizer(one, two)
    assert true.tokens[0].tolist() == wanted["input_ids"]
    assert true.segments is not None
    assert true.segments[0].tolist() == wanted["token_type_ids"]
    assert true.own[0].tolist() == [False, *[True] * 3, False, *[True] * 4, False]


def test_half_of_the_pairs_are_true_and_the_others_from_other_documents():
    held = sentences([2] * 300, [n // 3 for n in range(300)])
    pairs = Pairs(held, held.followed(), Frame((2,), (3,), (3,), 0), 32)
    assert pairs.count == 200
    which = torch.arange(200).repeat(50)
    rows = pairs.rows(which, generator(0))
    assert rows.random_next is not None
    # 10,000 pairs: five standard errors are 0.025
    assert rows.random_next.double().mean().item() == pytest.approx(0.5, abs=0.025)
    # a sentence is known by its first token but for a multiple of 79: 2n mod 79
    first, second = rows.tokens[:, 1] - SPECIALS, rows.tokens[:, 4] - SPECIALS
    follows = (second - first) % 79 == 2
    assert follows[rows.random_next == 0].all()
    assert follows[rows.random_next == 1].double().mean().item() < 0.03


def test_a_random_next_sentence_is_never_of_the_same_document_and_any_of_the_others():
    held = sentences([1] * 7, [0, 0, 0, 1, 1, 2, 2])
    pairs = Pairs(held, held.followed(), Frame((2,), (3,), (3,), 0), 32)
    draws = generator(0)
    assert {pairs._elsewhere(1, draws) for _ in range(200)} == {3, 4, 5, 6}
    assert {pairs._elsewhere(3, draws) for _ in range(200)} == {0, 1, 2, 5, 6}
    assert {pairs._elsewhere(6, draws) for _ in range(200)} == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("one", "two", "room", "kept"),
    [(3, 4, 7, (3, 4)), (3, 9, 8, (3, 5)), (9, 3, 8, (5, 3)), (9, 8, 6, (3, 3)), (9, 9, 7, (4, 3)), (4, 9, 7, (4, 3))],
)
def test_the_longer_of_two_texts_is_cut(one, two, room, kept):
    assert _cut(one, two, room) == kept
    a, b = one, two  # the rule as Devlin et al. wrote it (truncate_seq_pair)
    while a + b > room:
        a, b = (a - 1, b) if a > b else (a, b - 1)
    assert sum(kept) == a + b
    assert abs(kept[0] - a) <= 1


# losses and scores


def test_the_masked_loss_is_that_of_transformers():
    network = build(build_tokenizer(), TINY, 32, generator(0), causal=False, pairs=False)
    rows = Singles(sentences([5, 9, 3], [0, 1, 2]), Frame((2,), (), (3,), 0)).rows(torch.arange(3), generator(0))
    inputs, labels = Masked(MASK, WORDS, share=0.5).draw(rows, generator(0))
    wanted = network.eval()(input_ids=inputs, attention_mask=rows.real.long(), labels=labels).loss
    assert loss(network, rows, inputs, labels).item() == pytest.approx(wanted.item(), rel=1e-6)


def test_the_causal_loss_is_that_of_transformers():
    network = build(build_tokenizer(), TINY, 32, generator(0), causal=True, pairs=False)
    rows = Singles(sentences([5, 9, 3], [0, 1, 2]), Frame((2,), (), (3,), 0)).rows(torch.arange(3), generator(0))
    inputs, labels = Causal().draw(rows, generator(0))
    own = rows.tokens.masked_fill(~rows.real, IGNORED)
    wanted = network.eval()(input_ids=inputs, attention_mask=rows.real.long(), labels=own).loss
    assert loss(network, rows, inputs, labels).item() == pytest.approx(wanted.item(), rel=1e-6)


def test_the_loss_with_the_next_sentence_is_that_of_transformers():
    network = build(build_tokenizer(), TINY, 32, generator(0), causal=False, pairs=True)
    held = sentences([5, 9, 3, 4], [0, 0, 1, 1])
    rows = Pairs(held, held.followed(), Frame((2,), (3,), (3,), 0), 32).rows(torch.tensor([0, 1] * 4), generator(0))
    inputs, labels = Masked(MASK, WORDS, share=0.5).draw(rows, generator(0))
    wanted = network.eval()(
        input_ids=inputs, attention_mask=rows.real.long(), token_type_ids=rows.segments, labels=labels,
        next_sentence_label=rows.random_next,
    ).loss  # fmt: skip
    assert loss(network, rows, inputs, labels).item() == pytest.approx(wanted.item(), rel=1e-6)


def test_another_kind_of_encoder_is_asked_for_its_logits():
    config = transformers.DistilBertConfig(vocab_size=84, dim=16, n_layers=1, n_heads=2, hidden_dim=32, dropout=0.0)
    network = transformers.DistilBertForMaskedLM(config).eval()
    rows = Singles(sentences([5, 9], [0, 1]), Frame((2,), (), (3,), 0)).rows(torch.arange(2), generator(0))
    inputs, labels = Masked(MASK, WORDS, share=0.5).draw(rows, generator(0))
    wanted = network(input_ids=inputs, attention_mask=rows.real.long(), labels=labels).loss
    assert loss(network, rows, inputs, labels).item() == pytest.approx(wanted.item(), rel=1e-6)


def test_a_score_is_the_mean_over_tokens_whatever_the_batches_and_draws_nothing_from_the_run():
    network = build(build_tokenizer(), TINY, 32, generator(0), causal=True, pairs=False).train()
    source = Singles(sentences([5, 9, 3, 2, 8], [0, 1, 2, 3, 4]), Frame((2,), (), (3,), 0))
    before = torch.random.get_rng_state()
    one, all_at_once = (score(network, source, Causal(), most=9, batch_size=size) for size in (1, 5))
    assert network.training
    assert torch.equal(torch.random.get_rng_state(), before)
    assert one is not None
    assert all_at_once is not None
    assert one.loss == pytest.approx(all_at_once.loss, rel=1e-6)
    assert one.perplexity == pytest.approx(math.exp(one.loss))
    assert (one.next_accuracy, one.total) == (None, one.loss)
    rows = source.rows(torch.arange(5), generator(0))
    with torch.no_grad():
        logits = network.eval()(input_ids=rows.tokens, attention_mask=rows.real.long()).logits
    labels = Causal().draw(rows, generator(0))[1]
    right = (logits.argmax(-1) == labels)[labels != IGNORED].double().mean().item()
    assert one.accuracy == pytest.approx(right)


def test_without_held_out_texts_there_is_no_score():
    network = build(build_tokenizer(), TINY, 32, generator(0), causal=True, pairs=False)
    empty = Singles(sentences([], []), Frame((2,), (), (3,), 0))
    assert score(network, empty, Causal(), most=9, batch_size=2) is None
    assert examples(network, build_tokenizer(), empty, Causal()) == ()


# examples


def test_the_likeliest_fillings_are_the_highest_probabilities_at_the_mask():
    tokenizer = build_tokenizer()
    network = build(tokenizer, TINY, 32, generator(0), causal=False, pairs=False)
    source = Singles(sentences([5, 2, 9], [0, 1, 2]), frame_of(tokenizer, causal=False))
    first, second = examples(network, tokenizer, source, Masked(MASK, WORDS))  # a text of two words shows nothing
    assert (len(first.shown.split()), len(second.shown.split())) == (5, 9)
    ids = [tokenizer.convert_tokens_to_ids(word) for word in first.shown.split()]
    assert ids.count(MASK) == 1
    with torch.no_grad():
        given = torch.tensor([[2, *ids, 3]])
        shares = network.eval()(input_ids=given).logits[0, 1 + ids.index(MASK)].softmax(-1)
    assert [word for word, _ in first.found] == tokenizer.convert_ids_to_tokens(shares.topk(5).indices.tolist())
    assert [share for _, share in first.found] == pytest.approx(shares.topk(5).values.tolist(), rel=1e-5)
    assert (
        ids.index(MASK)
        == tokenizer(first.shown.replace("[MASK]", first.stood))["input_ids"].index(
            tokenizer.convert_tokens_to_ids(first.stood), 1
        )
        - 1
    )


def test_continuations_are_sampled_from_half_a_text_and_again_the_same():
    tokenizer = build_tokenizer()
    tokenizer.bos_token, tokenizer.eos_token = "[CLS]", "[SEP]"
    network = build(tokenizer, TINY, 12, generator(0), causal=True, pairs=False)
    source = Singles(sentences([8], [0]), frame_of(tokenizer, causal=True))
    (one,) = examples(network, tokenizer, source, Causal())
    assert (len(one.shown.split()), len(one.stood.split()), len(one.found)) == (4, 4, 2)
    assert one.found[0] != one.found[1]
    assert all(share is None and len(text.split()) <= 12 - 5 for text, share in one.found)
    assert examples(network, tokenizer, source, Causal()) == (one,)
