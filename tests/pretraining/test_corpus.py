"""Texts: what is read of files, how they are split, trained on by tokenizers, and cut into tokens."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import transformers

from harness.common.errors import HarnessError
from harness.pretraining.corpus import Corpus, documents, encode, sources, train_tokenizer
from harness.pretraining.networks import build_tokenizer

SENTENCES = [f"all {noun} {verb} slowly" for noun in ("dog", "bird", "rose", "miner") for verb in ("runs", "naps")]


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def encoded(tokenizer, texts, scratch, room=30, held_out=0.0, by_document=False, words=False) -> Corpus:
    return encode(
        lambda: iter(texts), tokenizer, room=room, held_out=held_out, by_document=by_document, words=words,
        scratch=scratch,
    )  # fmt: skip


# reading


def test_lines_are_sentences_and_blank_lines_end_documents(tmp_path):
    path = written(tmp_path, "a.txt", b"\xef\xbb\xbfone two\r\n three \n\n \nfour\n\n")
    assert list(documents(path)) == [("one two", "three"), ("four",)]


def test_rows_of_tables_are_documents_and_their_lines_sentences(tmp_path):
    objects = [{"text": "one\n\ntwo", "n": 1}, {"text": "  "}, {"text": "\ud800three"}]
    jsonl = written(tmp_path, "a.jsonl", "\n".join(map(json.dumps, objects)) + "\n\n")
    assert list(documents(jsonl)) == [("one", "two"), ("?three",)]
    tsv = written(tmp_path, "a.tsv", 'n\tsaid\n1\t"one\n2\ttwo\n')
    assert list(documents(tsv, "said")) == [('"one',), ("two",)]
    csv = written(tmp_path, "a.csv", 'n,text\n1,"one, ""two""\nthree"\n')
    assert list(documents(csv)) == [('one, "two"', "three")]


def test_a_file_is_hashed_by_its_bytes(tmp_path):
    path = written(tmp_path, "a.txt", "one\n")
    (found,) = sources([path])
    assert (found.path, found.sha256) == (str(path), hashlib.sha256(b"one\n").hexdigest())


@pytest.mark.parametrize(
    ("name", "content", "column", "message"),
    [
        ("a.txt", b"one\nt\xe9\n", None, r"a.txt, line 2: not UTF-8 text: byte 0xe9"),
        ("a.txt", "one\n", "said", r"--column said cannot be used with .*a\.txt"),
        ("a.tsv", "n\tsaid\n1\tone\n", None, r"the columns n, said, no text in column 'text'. Name the col"),
        ("a.tsv", "n\ttext\n1\n", None, r"row 2 has 1 field"),
        ("a.csv", 'text\n"one\n', None, r"unexpected end of data"),
        ("a.jsonl", '{"text": "one"}\n[1]\n', None, r"line 2 is not a JSON object"),
        ("a.jsonl", '{"said": "one"}\n', None, r"line 1 has 'said', no text in column 'text'"),
        ("a.jsonl", '{"text": 1}\n', None, r"line 1 has 'text'"),
    ],
)
def test_what_is_no_text_is_refused_with_its_line(tmp_path, name, content, column, message):
    with pytest.raises(HarnessError, match=message):
        list(documents(written(tmp_path, name, content), column))


def test_files_that_are_missing_or_empty_are_refused(tmp_path):
    with pytest.raises(HarnessError, match=r"cannot read the texts .*none\.txt: no such file"):
        sources([tmp_path / "none.txt"])
    with pytest.raises(HarnessError, match=r"a\.txt: it is empty"):
        sources([written(tmp_path, "a.txt", "")])


def test_a_line_without_an_end_is_refused_and_not_read_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.pretraining.corpus._LONGEST_LINE", 2**20)
    with pytest.raises(HarnessError, match="line 2: a line of 1 MiB or more"):
        list(documents(written(tmp_path, "a.txt", b"one\n" + b"x" * 2**21)))


# tokenizers


@pytest.mark.parametrize("kind", ["WordPiece", "BPE"])
@pytest.mark.parametrize("causal", [False, True])
def test_a_trained_tokenizer_knows_its_texts_and_gives_them_back(kind, causal):
    texts = [(f"{one} 犬が走る，Éa",) for one in SENTENCES]
    tokenizer = train_tokenizer(lambda: iter(texts), kind, 400, causal, 64)
    assert len(tokenizer) <= 400
    assert tokenizer.model_max_length == 64
    ids = tokenizer(texts[0][0], add_special_tokens=False)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    back = tokenizer.decode(ids).strip()
    assert back.replace(" ", "") == texts[0][0].replace(" ", "")  # WordPiece sets Chinese characters apart
    if causal:
        assert tokenizer.bos_token == tokenizer.eos_token == "<|endoftext|>"
    else:
        assert tokenizer.decode(tokenizer("all", "dog")["input_ids"]).split()[0] == "[CLS]"
        assert tokenizer("all", "dog")["token_type_ids"][-1] == 1


def test_training_a_tokenizer_again_gives_the_same_one():
    # the trainer of WordPiece draws on a hash map that is seeded at random: without care a second one differs
    texts = [(f"{a}{b}{c} {c}{a}",) for a in "abcdefgh" for b in "ijklmnop" for c in "qrstuvwx"]
    for kind in ("WordPiece", "BPE"):
        made = {train_tokenizer(lambda: iter(texts), kind, 320, False, 64).backend_tokenizer.to_str() for _ in range(4)}
        assert len(made) == 1, kind


def test_a_vocabulary_without_room_for_an_alphabet_is_refused():
    with pytest.raises(HarnessError, match=r"--vocab-size must be >= 261, .*\(got 200\)"):
        train_tokenizer(lambda: iter([("a",)]), "BPE", 200, False, 64)


# tokens


def test_sentences_lie_one_after_the_other_with_their_documents(tmp_path):
    tokenizer = build_tokenizer()
    found = encoded(tokenizer, [("all dog runs", "no dog naps slowly"), ("some dog runs",)], tmp_path).train
    assert found.starts.tolist() == [0, 3, 7, 10]
    assert found.document.tolist() == [0, 0, 1]
    assert encoded(tokenizer, [("all dog runs", "no dog naps")], tmp_path).train.followed().tolist() == []
    assert found.followed().tolist() == [0]
    assert tokenizer.convert_ids_to_tokens(found.tokens[3:7].tolist()) == ["no", "dog", "naps", "slowly"]
    assert list(tmp_path.iterdir()) == []  # the files have no names


def test_a_sentence_longer_than_the_room_becomes_several_and_loses_nothing(tmp_path):
    found = encoded(build_tokenizer(), [("all dog runs slowly all",)], tmp_path, room=2).train
    assert np.diff(found.starts).tolist() == [2, 2, 1]
    assert found.document.tolist() == [0, 0, 0]


def test_the_split_goes_by_the_text_alone(tmp_path):
    texts = [(f"all dog runs {n}",) for n in range(400)]
    tokenizer = train_tokenizer(lambda: iter(texts), "BPE", 300, False, 64)
    once = encoded(tokenizer, texts, tmp_path, held_out=0.25)
    assert len(once.train) + len(once.held_out) == 400
    assert abs(len(once.held_out) - 100) < 45  # five standard deviations of a binomial are 43
    again = encoded(tokenizer, [*texts[::-1], *texts], tmp_path, held_out=0.25)
    assert len(again.held_out) == 2 * len(once.held_out)  # equal texts on the same side, in any order
    held = set(map(bytes, np.split(once.held_out.tokens, once.held_out.starts[1:-1])))
    assert set(map(bytes, np.split(again.held_out.tokens, again.held_out.starts[1:-1]))) == held


def test_documents_are_held_out_whole_where_asked(tmp_path):
    texts = [(f"all dog runs {n}", f"no bird naps {n}") for n in range(200)]
    tokenizer = train_tokenizer(lambda: iter(texts), "BPE", 300, False, 64)
    found = encoded(tokenizer, texts, tmp_path, held_out=0.3, by_document=True)
    assert len(found.train.followed()) == len(found.train) / 2
    assert len(found.held_out.followed()) == len(found.held_out) / 2 > 30


def test_words_begin_where_the_tokenizer_says(tmp_path):
    tokenizer = train_tokenizer(lambda: iter([("xyzzy plugh, ab",)] * 3), "BPE", 261, False, 64)  # bytes alone
    found = encoded(tokenizer, [("xyzzy plugh, ab",)], tmp_path, words=True).train
    words = "".join("|" * bool(begins) + "x" for begins in found.begins)
    assert [len(word) for word in words.split("|")[1:]] == [6, 6, 1, 3]  # with the blank before each


def test_words_of_a_slow_tokenizer_begin_where_no_mark_says_otherwise(tmp_path):
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "run", "##ning", "dog", "##s", "a"]))
    slow = transformers.BertJapaneseTokenizer(str(vocabulary), word_tokenizer_type="basic")
    assert not slow.is_fast
    found = encoded(slow, [("a running dogs run",)], tmp_path, words=True).train
    assert slow.convert_ids_to_tokens(found.tokens.tolist()) == ["a", "run", "##ning", "dog", "##s", "run"]
    assert found.begins.tolist() == [True, True, False, True, False, True]
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]))
    unmarked = transformers.BertJapaneseTokenizer(str(vocabulary), word_tokenizer_type="basic")
    with pytest.raises(
        HarnessError, match=r"--whole-word requires a fast tokenizer, .*got a slow one without ## tokens"
    ):
        encoded(unmarked, [("a a",)], tmp_path, words=True)


def test_a_tokenizer_that_knows_less_than_half_is_refused(tmp_path):
    with pytest.raises(
        HarnessError, match=r"75% of the tokens are unknown to the tokenizer, more than 50%. Train one on"
    ):
        encoded(build_tokenizer(), [("all Katzen laufen langsam",)], tmp_path)
    assert encoded(build_tokenizer(), [("all dog laufen langsam",)], tmp_path).unknown == 0.5


def test_nothing_to_train_on_is_refused(tmp_path):
    with pytest.raises(HarnessError, match=r"no sentences to train on: 0 are held out"):
        encoded(build_tokenizer(), [], tmp_path)
