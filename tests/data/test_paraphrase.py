"""Paraphrases by a tiny random seq2seq model: what is drawn is decided by the seed alone."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import WORDS
from cut_runs import same

from harness.common.errors import HarnessError
from harness.config.recipe import ModelSpec, TaskSpec
from harness.config.trials import Trial
from harness.data import augmentation, examples, paraphrase, tasks
from harness.training import loop

TEXTS = tuple(" ".join(WORDS[5 + n : 8 + n % 7 + n]) for n in range(8))


@pytest.fixture(scope="module", params=["t5", "marian"])
def through(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    """A model of a kind that translates, whose words are those of the small task."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    folder = tmp_path_factory.mktemp(request.param)
    inner = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(single="$A [SEP]", special_tokens=[("[SEP]", 3)])
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "eos_token": "[SEP]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **names).save_pretrained(folder)
    common = {
        "vocab_size": len(WORDS),
        "d_model": 16,
        "pad_token_id": 0,
        "eos_token_id": 3,
        "decoder_start_token_id": 0,
    }
    sizes = {"d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    if request.param == "marian":
        sizes = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
                 "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "max_position_embeddings": 32,
                 "forced_eos_token_id": 3}  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = transformers.AutoConfig.for_model(request.param, **(common | sizes))
        transformers.AutoModelForSeq2SeqLM.from_config(config).save_pretrained(folder)
    return ModelSpec(name=request.param, folder=str(folder))


def afresh(through: tuple[ModelSpec, ...], seed: int) -> tuple[str, ...]:
    paraphrase.paraphrased.cache_clear()
    return paraphrase.paraphrased(through, TEXTS, seed, "cpu")


def test_the_seed_decides_what_is_said(through: ModelSpec) -> None:
    state, precision = torch.get_rng_state(), torch.get_float32_matmul_precision()
    one = afresh((through,), 1)
    torch.rand(3)  # whatever else was drawn in the process
    assert afresh((through,), 1) == one
    assert afresh((through,), 2) != one
    there_and_back = afresh((through, through), 1)
    assert there_and_back != one
    assert len(one) == len(there_and_back) == len(TEXTS)
    assert all(text.strip() == text and text for text in (*one, *there_and_back))
    assert {word for text in one for word in text.split()} <= set(WORDS)
    assert one != TEXTS
    torch.set_rng_state(state)
    afresh((through,), 1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_float32_matmul_precision() == precision


def test_what_was_said_before_is_not_said_again(through: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    before = afresh((through,), 3)
    monkeypatch.setattr(paraphrase, "_generated", None)
    assert paraphrase.paraphrased((through,), TEXTS, 3, "cpu") == before


def test_a_text_that_comes_back_empty_stays(through: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer, digest = paraphrase._loaded(through)
    monkeypatch.setattr(type(tokenizer), "batch_decode", lambda *_, **__: ["", " said "])
    found = paraphrase._generated(model, tokenizer, ["a b", "c"], torch.device("cpu"))
    assert found == ["a b", "said"]
    assert len(digest) == 64


def test_training_on_paraphrases_keeps_the_laws(trial: Callable[..., Trial], through: ModelSpec) -> None:
    common = {"augment": "backtranslate", "translator": through, "epochs": 1}
    trials = [trial(seed, **common) for seed in (1, 2)] + [trial(1, **common, back_translator=through)]
    wanted = loop.train(trials)
    paraphrase.paraphrased.cache_clear()
    assert same(loop.train(trials[1:2]), wanted[1:2])
    assert same(loop.train(trials[::-1]), wanted[::-1])
    digests = [one.measured.augmentation_sha256 for one in wanted]
    assert digests[0] == digests[1] == paraphrase.sha256((through,)) != digests[2]


def test_both_texts_of_a_pair_are_said_anew(through: ModelSpec, trial: Callable[..., Trial]) -> None:
    raw = tasks.load(TaskSpec(name="embedded"))
    few = examples.Rows(raw.train.texts[:5], raw.train.texts[:5], raw.train.labels[:5], "", "row", range(5))
    raw = examples.Raw("few", "accuracy", raw.label_names, few, few, "")
    given = trial(1, augment="backtranslate", translator=through, augment_copies=2).recipe
    found, _ = augmentation.copies(raw, given, 1)
    assert found.pairs is not None
    assert len({found.texts[:5], found.texts[5:], found.pairs[:5], found.pairs[5:]}) == 4


def test_a_model_that_says_nothing_is_refused(trial: Callable[..., Trial], tmp_path: Path) -> None:
    bert = trial(1).recipe.model
    with pytest.raises(HarnessError, match=r"cannot load the weights of 'tiny-bert': .* Allowed: a seq2seq model"):
        paraphrase.paraphrased((bert,), ("a",), 1, "cpu")
    with pytest.raises(HarnessError, match=r"has no config.json. .*--set translator.folder=DIR"):
        paraphrase.paraphrased((ModelSpec(name="gone", folder=str(tmp_path / "gone")),), ("a",), 1, "cpu")
