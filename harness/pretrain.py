"""Masked-language-model pretraining of a small BERT on the embedded language; rebuilds the embedded model."""

import json
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tokenizers
import torch
import torch.nn.functional as F
import transformers
from numpy.typing import NDArray
from tokenizers import models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM, BertModel, PreTrainedTokenizerFast

from harness.embedded.language import LONGEST_PAIR, SPECIAL_TOKENS, VOCABULARY, Pair, pretraining_pairs
from harness.sweep import HarnessError

SCHEMA_VERSION = 1
# Devlin et al. 2019 (BERT), appendix A.1, but for the masked share: 20 % instead of 15 %, the texts being this short.
MASKED_SHARE = 0.2
BECOMES_MASK, BECOMES_RANDOM = 0.8, 0.1
IGNORED = -100  # cross_entropy's `ignore_index`
INITIALIZER_STD = 0.02
WEIGHT_DECAY = 0.01
CLIP_NORM = 1.0
LOSS_WINDOW = 100


class PretrainError(HarnessError):
    """Pretraining was asked for something that it cannot do."""


@dataclass(frozen=True, eq=False)
class PretrainResult:
    """What a pretraining run gave.

    `losses` is the mean cross-entropy (nats) over the masked tokens of each step's batch, shape (steps,); `final_loss`
    is the mean of its last 100; `wall_seconds` covers training alone.
    """

    folder: Path
    final_loss: float
    losses: NDArray[np.float64]
    wall_seconds: float


def pretrain(
    out: Path,
    *,
    steps: int = 5_000,
    batch_size: int = 128,
    lr: float = 1e-3,
    beta2: float = 0.98,
    warmup_steps: int = 500,
    pairs: int = 40_000,
    seed: int = 0,
    threads: int = 1,
    overwrite: bool = False,
    progress: Callable[[int, int, float], None] | None = None,
) -> PretrainResult:
    """Pretrain the embedded BERT and write it to `out` as a Hugging Face folder, all at once at the end.

    `progress` is called after every step with the step (from 1), the number of steps and the step's loss. The same
    arguments on the same machine and versions give the same weights, bit for bit; `threads` is part of that. The
    defaults are what the shipped model was made with. Raises PretrainError for an impossible setting, and where `out`
    holds anything and `overwrite` is false.
    """
    _check(steps, batch_size, lr, beta2, warmup_steps, pairs, seed, threads)
    _refuse_to_overwrite(out, overwrite)

    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        # Three streams, so that a change of one (another batch size, say) leaves what the others draw as it was.
        init_rng, order_rng, mask_rng = (torch.Generator().manual_seed(3 * seed + stream) for stream in range(3))
        tokenizer = build_tokenizer()
        tokens = encode(pretraining_pairs(pairs), tokenizer)  # (pairs, 15)
        network = build_network(init_rng)
        network.eval()  # no dropout: a model this small on data this plentiful underfits
        optimizer = torch.optim.AdamW(network.parameters(), lr=lr, betas=(0.9, beta2), weight_decay=WEIGHT_DECAY)

        losses = np.empty(steps)
        started = time.perf_counter()
        for step, rows in zip(range(steps), _batches(len(tokens), batch_size, order_rng), strict=False):
            inputs, labels = mask_tokens(tokens[rows], mask_rng)  # (batch, 15) each
            for group in optimizer.param_groups:
                group["lr"] = lr * _schedule(step, steps, warmup_steps)
            loss = _masked_loss(network, inputs, labels)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), CLIP_NORM)
            optimizer.step()
            optimizer.zero_grad()
            losses[step] = loss.item()
            if progress is not None:
                progress(step + 1, steps, float(losses[step]))
        wall_seconds = time.perf_counter() - started
    finally:
        torch.set_num_threads(threads_before)

    final_loss = float(losses[-LOSS_WINDOW:].mean())
    provenance = {
        "schema_version": SCHEMA_VERSION,
        "made_by": "harness pretrain",
        "pooler": "drawn from N(0, 0.02) by the seed and not trained: masked language modelling does not use it",
        "segments": "all texts were seen with token_type_ids of zero; the second segment's embedding is not trained",
        "steps": steps,
        "batch_size": batch_size,
        "lr": lr,
        "beta2": beta2,
        "warmup_steps": warmup_steps,
        "pairs": pairs,
        "seed": seed,
        "threads": threads,
        "final_loss": final_loss if math.isfinite(final_loss) else None,
        "wall_seconds": round(wall_seconds, 1),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    _write(out, network, tokenizer, provenance, overwrite)
    return PretrainResult(out, final_loss, losses, wall_seconds)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build the embedded language's tokenizer: one token a word, BERT's special tokens around the texts."""
    ids = {word: index for index, word in enumerate(VOCABULARY)}
    padding, unknown, start, separator, mask = SPECIAL_TOKENS
    words = tokenizers.Tokenizer(models.WordLevel(ids, unk_token=unknown))
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
        model_max_length=_config().max_position_embeddings,
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


def build_network(generator: torch.Generator) -> BertForMaskedLM:
    """Build the embedded model's BERT, every weight drawn from N(0, 0.02) by the generator, biases zero, norms one."""
    with torch.random.fork_rng(devices=[]):  # the constructors draw from the global generator, in vain
        network = BertForMaskedLM(_config())
        # BertForMaskedLM has no pooler, a classifier needs one: it goes into the folder as drawn here, so that
        # fine-tuning starts from the same weights whoever loads them.
        network.bert = BertModel(network.config, add_pooling_layer=True)
        network.tie_weights()
    with torch.no_grad():
        for module in network.modules():
            match module:
                case nn.Linear() | nn.Embedding():
                    module.weight.normal_(0.0, INITIALIZER_STD, generator=generator)
                    if isinstance(module, nn.Linear) and module.bias is not None:
                        module.bias.zero_()
                case nn.LayerNorm():
                    module.weight.fill_(1.0)
                    module.bias.zero_()
    return network


def mask_tokens(tokens: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Hide a fifth of the words: of these 80 % become [MASK], 10 % a random word, 10 % stay.

    `tokens` is int64 of shape (batch, length). Returns the inputs and the labels, both of that shape; a label is -100
    where nothing is to be predicted. Special tokens are neither hidden nor put in. Source: Devlin et al. 2019, 3.1.
    """
    specials = len(SPECIAL_TOKENS)
    draw, fate = torch.rand(2, *tokens.shape, generator=generator)  # (batch, length) each
    hidden = (draw < MASKED_SHARE) & (tokens >= specials)
    random_words = torch.randint(specials, len(VOCABULARY), tokens.shape, generator=generator)
    to_mask = hidden & (fate < BECOMES_MASK)
    to_random = hidden & (fate >= BECOMES_MASK) & (fate < BECOMES_MASK + BECOMES_RANDOM)
    inputs = tokens.masked_fill(to_mask, VOCABULARY.index("[MASK]")).where(~to_random, random_words)
    return inputs, tokens.masked_fill(~hidden, IGNORED)


def _config() -> BertConfig:
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


def _masked_loss(network: BertForMaskedLM, inputs: Tensor, labels: Tensor) -> Tensor:
    """Give the mean cross-entropy over the hidden tokens; zero where a batch happens to hide none."""
    attended = (inputs != VOCABULARY.index("[PAD]")).long()  # (batch, length)
    # No token_type_ids, so all zero: the paper's fine-tuning passes none either, and both must agree.
    states = network.bert(input_ids=inputs, attention_mask=attended).last_hidden_state  # (batch, length, 64)
    at = labels != IGNORED
    logits = network.cls(states[at])  # (hidden, words): the other positions' logits are needed by nobody
    return F.cross_entropy(logits, labels[at], reduction="sum") / at.sum().clamp(min=1)


def _batches(count: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Give rows of the data, int64 of shape (batch_size,), for ever: shuffled anew each pass, none left out."""
    waiting = torch.empty(0, dtype=torch.int64)
    while True:
        while len(waiting) < batch_size:
            waiting = torch.cat([waiting, torch.randperm(count, generator=generator)])
        yield waiting[:batch_size]
        waiting = waiting[batch_size:]


def _schedule(step: int, steps: int, warmup_steps: int) -> float:
    """Give the factor on the learning rate for a step from 0: up in a line to 1 after the warm-up, down to 0."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return (steps - step) / (steps - warmup_steps)


def _check(
    steps: int, batch_size: int, lr: float, beta2: float, warmup_steps: int, pairs: int, seed: int, threads: int
) -> None:
    """Refuse settings that cannot be trained with, before minutes are spent."""
    for name, value in (("steps", steps), ("batch_size", batch_size), ("pairs", pairs), ("threads", threads)):
        if value < 1:
            raise PretrainError(f"{name} counts things", got=value, allowed="1 or more", fix=f"give another {name}")
    if not (math.isfinite(lr) and lr > 0):
        raise PretrainError("lr is a step size", got=lr, allowed="a finite number above 0", fix="give e.g. lr 1e-3")
    if not 0 <= beta2 < 1:
        raise PretrainError(
            "beta2 weighs the past", got=beta2, allowed="at least 0 and below 1", fix="give e.g. beta2 0.98"
        )
    if not 0 <= warmup_steps < steps:
        raise PretrainError(
            "the warm-up ends before the training does",
            got=f"warmup_steps {warmup_steps} of {steps} steps",
            allowed=f"0 to {steps - 1}",
            fix="give fewer warmup_steps or more steps",
        )
    if not 0 <= seed < 2**60:  # three streams are made of it, and torch takes 64 bits
        raise PretrainError("seed names a random stream", got=seed, allowed="0 to 2**60 - 1", fix="give another seed")


def _refuse_to_overwrite(out: Path, overwrite: bool) -> None:
    """Refuse a file, and a folder that holds anything unless it may be replaced."""
    if out.exists() and not out.is_dir():
        raise PretrainError(
            "the model is written as a folder", got=f"the file {out}", allowed="a folder", fix="move it"
        )
    if not overwrite and out.is_dir() and any(out.iterdir()):
        raise PretrainError(
            "a model is written once",
            got=f"{out}, which is not empty",
            allowed="a new or empty folder",
            fix="name another folder, or allow it to be overwritten",
        )


def _write(
    out: Path,
    network: BertForMaskedLM,
    tokenizer: PreTrainedTokenizerFast,
    provenance: dict[str, object],
    overwrite: bool,
) -> None:
    """Write the folder beside its place and rename it there, so that nobody ever reads half of it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        made, replaced = Path(scratch) / "made", Path(scratch) / "replaced"
        network.save_pretrained(made)
        tokenizer.save_pretrained(made)
        (made / "pretraining.json").write_text(json.dumps(provenance, indent=2, allow_nan=False) + "\n")
        for file in made.iterdir():
            file.chmod(0o644)  # safetensors writes for the owner alone; a package's files are for everyone
        _refuse_to_overwrite(out, overwrite)  # minutes have gone by
        if out.exists():
            out.rename(replaced)
        try:
            made.rename(out)
        except OSError:
            if replaced.exists():
                shutil.move(replaced, out)
            raise
