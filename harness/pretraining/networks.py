"""What pretraining starts from: a network with random weights or one that was trained, and its tokenizer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers
import torch
from tokenizers import models as kinds
from tokenizers import pre_tokenizers, processors
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    logging,
)
from transformers.pytorch_utils import Conv1D

from harness.common import hub, loading
from harness.common.errors import HarnessError
from harness.config.recipe import ModelSpec
from harness.data.embedded import answers
from harness.data.embedded.language import LONGEST_PAIR, SPECIAL_TOKENS, VOCABULARY, Pair
from harness.models import pretrained
from harness.pretraining.objectives import Frame
from harness.pretraining.settings import Shape

INITIALIZER_STD = 0.02  # of BERT (Devlin et al. 2019) and GPT-2 (Radford et al. 2019)
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


# ---------------------------------------------------------------------------------------------------------- embedded


def embedded_config() -> BertConfig:
    """Give the shape: deep and narrow, as deep as BERT-base, so that fine-tuning it can fail as a deep BERT's does."""
    return BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=64,
        num_hidden_layers=12,
        num_attention_heads=4,
        intermediate_size=256,
        max_position_embeddings=32,
        initializer_range=INITIALIZER_STD,
        pad_token_id=VOCABULARY.index("[PAD]"),
    )


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build the embedded language's tokenizer: one token a word, BERT's special tokens around the texts."""
    ids = {word: index for index, word in enumerate(VOCABULARY)}
    padding, unknown, start, separator, mask = SPECIAL_TOKENS
    words = tokenizers.Tokenizer(kinds.WordLevel(ids, unk_token=unknown))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {separator}",
        pair=f"{start} $A {separator} $B:1 {separator}:1",
        special_tokens=[(start, ids[start]), (separator, ids[separator])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token=padding,
        unk_token=unknown,
        cls_token=start,
        sep_token=separator,
        mask_token=mask,
        model_max_length=embedded_config().max_position_embeddings,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def encode(pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerFast) -> Tensor:
    """Turn pairs into token ids, int64 of shape (pairs, 15): [CLS] premise [SEP] hypothesis [SEP], then padding."""
    encoded = tokenizer(
        [pair.premise for pair in pairs],
        [pair.hypothesis for pair in pairs],
        padding="max_length",
        max_length=LONGEST_PAIR,
        return_tensors="pt",
    )
    ids: Tensor = encoded["input_ids"]
    return ids


def decoder_config() -> GPT2Config:
    """Give the shape of the embedded decoder: half as deep as the encoder and as narrow."""
    padding, end = answers.SPECIAL_TOKENS.index("[PAD]"), answers.SPECIAL_TOKENS.index(answers.END)
    return GPT2Config(
        vocab_size=len(answers.DECODER_VOCABULARY),
        n_positions=32,
        n_embd=64,
        n_layer=6,
        n_head=4,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=padding,
    )


def build_decoder_tokenizer() -> PreTrainedTokenizerFast:
    """Build the embedded decoder's tokenizer: one token a word, the end of a text before each text too."""
    ids = {word: index for index, word in enumerate(answers.DECODER_VOCABULARY)}
    padding, unknown, end = answers.SPECIAL_TOKENS
    words = tokenizers.Tokenizer(kinds.WordLevel(ids, unk_token=unknown))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single=f"{end} $A", pair=f"{end} $A $B:1", special_tokens=[(end, ids[end])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token=padding,
        unk_token=unknown,
        bos_token=end,
        eos_token=end,
        model_max_length=decoder_config().n_positions,
        model_input_names=["input_ids", "attention_mask"],
    )


def encode_texts(texts: Sequence[str], tokenizer: PreTrainedTokenizerFast) -> Tensor:
    """Turn texts into token ids, int64 of shape (texts, 20): an end, the text, an end, then padding."""
    end = tokenizer.eos_token
    encoded = tokenizer(
        [f"{text} {end}" for text in texts], padding="max_length", max_length=answers.LONGEST, return_tensors="pt"
    )
    ids: Tensor = encoded["input_ids"]
    return ids


# -------------------------------------------------------------------------------------------------------- from scratch


def build_bert(config: BertConfig, generator: torch.Generator, next_sentence: bool = False) -> Any:
    """Build a BERT, every weight drawn from N(0, 0.02) by the generator, biases zero, norms one."""
    with torch.random.fork_rng(devices=[]):  # the constructors draw from the global generator, in vain
        network = (BertForPreTraining if next_sentence else BertForMaskedLM)(config)
        if not next_sentence:
            # BertForMaskedLM has no pooler, a classifier needs one: it goes into the folder as drawn here, so that
            # fine-tuning starts from the same weights whoever loads them.
            network.bert = BertModel(network.config, add_pooling_layer=True)
            network.tie_weights()
    _draw(network, generator)
    return network


def build_gpt2(config: GPT2Config, generator: torch.Generator) -> Any:
    """Build a GPT-2: as `build_bert`, what goes into the residual stream smaller by √(2 · layers).

    Source: Radford et al. 2019, 2.3, and their successors' code.
    """
    with torch.random.fork_rng(devices=[]):
        network = GPT2LMHeadModel(config)
    _draw(network, generator)
    with torch.no_grad():
        for name, value in network.named_parameters():
            if name.endswith("c_proj.weight"):
                value.div_(math.sqrt(2 * config.n_layer))
    return network


def _draw(network: nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        for module in network.modules():
            match module:
                case nn.Linear() | nn.Embedding() | Conv1D():
                    module.weight.normal_(0.0, INITIALIZER_STD, generator=generator)
                    if not isinstance(module, nn.Embedding) and module.bias is not None:
                        module.bias.zero_()
                case nn.LayerNorm():
                    module.weight.fill_(1.0)
                    module.bias.zero_()


def build(tokenizer: Any, shape: Shape, longest: int, generator: torch.Generator, *, causal: bool, pairs: bool) -> Any:
    """A BERT, or a GPT-2 where `causal`, for a tokenizer; `pairs` gives it a head for the next sentence."""
    frame = frame_of(tokenizer, causal)
    if causal:
        config = GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=longest,
            n_embd=shape.hidden,
            n_layer=shape.layers,
            n_head=shape.heads,
            bos_token_id=frame.before[0],
            eos_token_id=frame.after[0],
            pad_token_id=frame.padding,
        )
        return build_gpt2(config, generator)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=4 * shape.hidden,
        max_position_embeddings=longest,
        initializer_range=INITIALIZER_STD,
        pad_token_id=frame.padding,
    )
    return build_bert(config, generator, pairs)


# --------------------------------------------------------------------------------------------------------- going on


def spec_of(given: str) -> ModelSpec:
    """The model that `--from` means: a folder, `embedded`, or a name on the hub."""
    is_folder = given != "embedded" and (Path(given).expanduser().exists() or given.startswith((".", "/", "~")))
    return ModelSpec(name=Path(given).name, folder=given) if is_folder else ModelSpec(name=given)


def config_of(given: str) -> Any:
    """The configuration of a model to go on from; raises HarnessError for a folder without weights or configuration."""
    spec = spec_of(given)
    folder = Path(hub.location(spec))
    if spec.folder is not None:
        configured, weights = ((folder / "config.json").is_file(), any((folder / name).is_file() for name in _WEIGHTS))
        if not (configured and weights):
            raise HarnessError(
                f"{given} has no {'weights' if configured else 'config.json'}",
                allowed=f"a folder with config.json and {_WEIGHTS[0]} or {_WEIGHTS[2]}",
                fix="Name one written by save_pretrained, or leave --from out to begin from scratch",
            )
    hub.check_model(spec)
    hub.prepare()
    try:
        if PretrainedConfig.get_config_dict(hub.location(spec))[0].get("auto_map"):
            raise hub.custom_code(spec)
        return AutoConfig.from_pretrained(hub.location(spec))
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, HarnessError):
            raise
        raise _unloadable(given, error) from None


def load(given: str, *, causal: bool, pairs: bool, seed: int) -> tuple[Any, tuple[str, ...]]:
    """A trained network in float32 on the CPU with its language model's head, and what had to be drawn afresh.

    What is missing in the folder is drawn by the seed. Raises HarnessError for a model without such a head.
    """
    config, location = config_of(given), hub.location(spec_of(given))
    if pairs and config.model_type != "bert":
        raise HarnessError(
            "--next-sentence requires a model of the type 'bert'",
            got=f"{given} of the type '{config.model_type}'",
            fix="Leave --next-sentence out",
        )
    known: Any = AutoModelForCausalLM if causal else BertForPreTraining if pairs else AutoModelForMaskedLM
    was = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    how = {"dtype": torch.float32, "output_loading_info": True, "ignore_mismatched_sizes": True}
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network, info = known.from_pretrained(location, **how)
            loading.check(given, network, info)
            missing = tuple(sorted(info["missing_keys"]))
            if isinstance(network, BertForMaskedLM):  # it has no pooler; a trained one must not be lost
                encoder, info = BertModel.from_pretrained(location, **how)
                if not any("pooler" in name for name in info["missing_keys"]):
                    network.bert.pooler = encoder.pooler
    except HarnessError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise _unloadable(given, error) from None
    finally:
        logging.set_verbosity(was)
    if causal:
        network.config.use_cache = False
        if _looks_ahead(network):
            raise HarnessError(
                f"{given} cannot be trained with --objective causal: a model of the type '{config.model_type}' "
                "sees later tokens",
                fix="Leave --objective causal out, or name a decoder such as GPT-2 with --from",
            )
    return network, missing


@torch.no_grad()
def _looks_ahead(network: Any) -> bool:
    """Whether what a network says at a place depends on a token behind it: encoders too load as causal ones."""
    network.eval()
    logits, other_logits = network(input_ids=torch.tensor([[1, 2], [1, 3]])).logits[:, 0]
    return not torch.equal(logits, other_logits)


def tokenizer_of(given: str) -> Any:
    """The tokenizer of a model to go on from."""
    return pretrained.tokenizer(spec_of(given))


def _unloadable(given: str, error: Exception) -> HarnessError:
    reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return HarnessError(
        f"cannot load {given} as a language model: {reason[:200].rstrip('.')}",
        allowed="a folder written by save_pretrained, of a type that transformers knows for this --objective",
        fix="Name another --from, or another --objective",
    )


def frame_of(tokenizer: Any, causal: bool) -> Frame:
    """The special tokens around texts: the tokenizer's own, or where `causal` a beginning and an end.

    Raises HarnessError for a tokenizer without a mask, or without an end where `causal`.
    """
    padding = tokenizer.pad_token_id
    if causal:
        end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
        starts = (tokenizer.bos_token_id, tokenizer.cls_token_id, end)
        start = next((candidate for candidate in starts if candidate is not None), None)
        if end is None or start is None:
            raise HarnessError(
                "the tokenizer has no token for the end of a text (eos_token or sep_token), which --objective "
                "causal requires",
                fix="Use another model with --from, or --train-tokenizer",
            )
        return Frame((start,), (), (end,), end if padding is None else padding)
    if tokenizer.mask_token_id is None or padding is None:
        raise HarnessError(
            "the tokenizer has no mask token or no padding token, which masked language modelling requires",
            fix="Use --objective causal, or an encoder such as BERT",
        )
    probe = tokenizer("a", add_special_tokens=False)["input_ids"]
    single, double = tokenizer("a")["input_ids"], tokenizer("a", "a")["input_ids"]
    count = len(probe)
    at = next(position for position in range(len(single) + 1) if single[position : position + count] == probe)
    before, after = single[:at], single[at + count :]
    between = double[at + count : len(double) - len(after) - count]
    return Frame(tuple(before), tuple(between), tuple(after), padding)
