import json

import numpy as np
import pytest
from made_files import DATA, folder, real_data, spec

from harness.common.errors import HarnessError
from harness.data import tasks, tokenization


def test_labels_stand_on_a_words_first_token(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "old", "##er", "good", "-", "film"]
    made = Tokenizer(models.WordPiece({word: number for number, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]")
    lists = [(["older", "good-film", "film"], ["B-X", "I-X", "O"]), (["old"], ["B-X"])]
    content = "".join(json.dumps({"words": words, "tags": tags}) + "\n" for words, tags in lists)
    raw = tasks.load(spec(files=folder(tmp_path, content, content, "jsonl"), kind="tokens"))
    task = tokenization.tokenise(raw, tokenizer, 128)
    assert task.train.input_ids.tolist() == [[1, 4, 5, 6, 7, 8, 8, 2], [1, 4, 2, 3, 3, 3, 3, 3]]
    assert task.train.labels.tolist() == [[-100, 1, -100, 2, -100, -100, 0, -100], [-100, 1, *[-100] * 6]]
    assert task.train.sentences.tolist() == [3, 1]
    assert task.train.targets.tolist() == [1, 2, 0, 1]
    assert (task.num_labels, task.metric) == (3, "f1_entity")
    # What is cut off of a training sentence is left out; a sentence that is scored is refused.
    with pytest.raises(HarnessError, match=r"dev.jsonl, line 1: only 2 of 3 words have a token within max_length 7"):
        tokenization.tokenise(raw, tokenizer, 7)
    short = folder(tmp_path / "short", content, content.splitlines()[1], "jsonl")
    cut = tokenization.tokenise(tasks.load(spec(files=short, kind="tokens")), tokenizer, 7)
    assert cut.train.sentences.tolist() == [2, 1]
    assert cut.train.labels[0].tolist() == [-100, 1, -100, 2, -100, -100, -100]

    class Slow:
        pad_token_id = 3
        num_special_tokens_to_add = tokenizer.num_special_tokens_to_add

        def __call__(self, *texts, **options):
            raise NotImplementedError

    with pytest.raises(HarnessError, match="cannot say where its tokens stand"):
        tokenization.tokenise(raw, Slow(), 128)


@pytest.fixture(scope="module")
def tokenizer():
    """A BERT tokeniser of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", *"abcdefghij"]
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        padding_side="left",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def raw_of(tmp_path, train, validation):
    rows = "text\ttext_pair\tlabel\n{}\nb\tb\t1\n"
    return tasks.load(spec(files=folder(tmp_path, rows.format(train), rows.format(validation))))


def test_tokens_of_pairs(tmp_path, tokenizer):
    task = tokenization.tokenise(raw_of(tmp_path, "a b c\td\t0", "a\ta zebra\t0"), tokenizer, 128)
    assert task.train.input_ids.tolist() == [[1, 4, 5, 6, 2, 7, 2], [1, 5, 2, 5, 2, 3, 3]]
    assert task.train.token_type_ids.tolist() == [[0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 0, 0]]
    assert task.train.lengths.tolist() == [7, 5]
    assert task.validation.input_ids.tolist() == [[1, 4, 2, 4, 0, 2, 3], [1, 5, 2, 5, 2, 3, 3]]  # as long as train's
    for split in (task.train, task.validation):
        assert split.sentences is None
        assert {array.dtype for array in vars(split).values() if isinstance(array, np.ndarray)} == {np.dtype(np.int64)}
        assert split.labels.tolist() == [0, 1]
    assert (task.num_labels, task.label_names, task.pad_token_id) == (2, ("0", "1"), 3)


def test_the_longer_text_is_cut_first(tmp_path, tokenizer):
    task = tokenization.tokenise(raw_of(tmp_path, "a b c d e f\tg h\t0", "a\tb\t0"), tokenizer, 7)
    assert task.train.input_ids[0].tolist() == [1, 4, 5, 2, 10, 11, 2]
    assert task.train.input_ids.shape == (2, 7)


def test_a_tokenizer_without_segments_gives_zeros(tmp_path, tokenizer):
    class Plain:
        pad_token_id = 3
        num_special_tokens_to_add = tokenizer.num_special_tokens_to_add

        def __call__(self, *texts, **options):
            return tokenizer(*texts, return_token_type_ids=False, **options)

    task = tokenization.tokenise(raw_of(tmp_path, "a b c\td\t0", "a\tb\t0"), Plain(), 128)
    assert task.train.token_type_ids.tolist() == np.zeros((2, 7)).tolist()


def test_a_regression_has_one_logit(tmp_path, tokenizer):
    content = "text\tlabel\na\t0.5\nb c\t5\n"
    raw = tasks.load(spec(files=folder(tmp_path, content, content), metric="pearson"))
    task = tokenization.tokenise(raw, tokenizer, 128)
    assert (task.num_labels, task.label_names) == (1, None)
    assert task.train.labels.dtype == np.float32
    assert task.train.input_ids.tolist() == [[1, 4, 2, 3], [1, 5, 6, 2]]


def test_what_a_tokenizer_can_not_do(tmp_path, tokenizer):
    class Silent:
        pad_token_id = 3

        def __init__(self, pad_token_id=3):
            self.pad_token_id = pad_token_id

        def num_special_tokens_to_add(self, pair=False):
            return 0

        def __call__(self, texts, pairs=None, **_):
            return {"input_ids": [[5] if text == "a" else [] for text in texts]}

    raw = raw_of(tmp_path, "a\tb\t0", "a\tb\t0")
    with pytest.raises(HarnessError, match="max_length must be >= 5"):
        tokenization.tokenise(raw, tokenizer, 4)
    with pytest.raises(HarnessError, match="has no padding token"):
        tokenization.tokenise(raw, Silent(None), 128)
    with pytest.raises(HarnessError, match="example 2 of the train split gives no token"):
        tokenization.tokenise(raw, Silent(), 128)


@real_data
def test_tokens_of_real_data(tokenizer):
    task = tokenization.tokenise(tasks.load(spec("rte", DATA / "rte")), tokenizer, 64)
    assert task.train.input_ids.shape == (2490, 64)
    assert task.validation.input_ids.shape == (277, 64)
    places = np.arange(64) < task.train.lengths[:, None]
    assert ((task.train.input_ids == task.pad_token_id) == ~places).all()
