"""Texts in other words, through one or two seq2seq models: a paraphraser, or a translator and one that leads back."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

import torch

from harness.common import hub, loading
from harness.config.recipe import ModelSpec

_BATCH = 32
# Of the ten likeliest words one is drawn, which Edunov et al. (2018, arXiv:1808.09381) found better than the likeliest.
_AMONG = 10
_LONGEST = 512  # tokens that a model reads, where its tokenizer says nothing


@lru_cache(maxsize=64)  # packs of a sweep share seeds; as many as lanes, twice
def paraphrased(through: tuple[ModelSpec, ...], texts: tuple[str, ...], seed: int, device: str) -> tuple[str, ...]:
    """The texts after the models, one after the other; one that comes back empty stays as it was.

    The same texts, seed and device give the same; nothing else is left changed. Raises HarnessError for a model that
    can't be loaded.
    """
    written = list(texts)
    before = torch.get_float32_matmul_precision()
    kind = torch.device(device)
    with torch.random.fork_rng(devices=[kind] if kind.type == "cuda" else []):
        loaded = [_loaded(spec) for spec in through]  # which draws, the first time
        torch.set_float32_matmul_precision("highest")
        try:
            torch.manual_seed(seed)
            for model, tokenizer, _ in loaded:
                model.to(kind)
                for start in range(0, len(written), _BATCH):
                    written[start : start + _BATCH] = _generated(
                        model, tokenizer, written[start : start + _BATCH], kind
                    )
                model.to("cpu")
        finally:
            torch.set_float32_matmul_precision(before)
    return tuple(written)


def sha256(through: tuple[ModelSpec, ...]) -> str:
    """The hash of the models' weights."""
    return hashlib.sha256("".join(_loaded(spec)[2] for spec in through).encode()).hexdigest()


@torch.no_grad()
def _generated(model: Any, tokenizer: Any, texts: list[str], device: torch.device) -> list[str]:
    longest = min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None) or _LONGEST)
    options = {"padding": True, "truncation": True, "max_length": longest, "return_tensors": "pt"}
    given = tokenizer(texts, **options)
    mask = given["attention_mask"]
    ids = model.generate(
        input_ids=given["input_ids"].to(device),
        attention_mask=mask.to(device),
        do_sample=True,
        num_beams=1,
        top_k=_AMONG,
        max_length=None,
        max_new_tokens=min(longest - 1, 10 + int(1.5 * mask.sum(1).max())),
    )
    decoded = tokenizer.batch_decode(ids, skip_special_tokens=True)
    return [paraphrase.strip() or text for paraphrase, text in zip(decoded, texts, strict=True)]


@lru_cache(maxsize=2)
def _loaded(spec: ModelSpec) -> tuple[Any, Any, str]:
    """The model, its tokenizer and a hash of its weights."""
    hub.check_model(spec, "translator.folder")
    hub.prepare()
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    kind = "a seq2seq model that transformers' AutoModelForSeq2SeqLM knows"
    tokenizer = loading.loaded("tokenizer", spec, AutoTokenizer.from_pretrained, kind)
    model, info = loading.loaded(
        "weights",
        spec,
        lambda source, **trust: AutoModelForSeq2SeqLM.from_pretrained(
            source, **trust, dtype=torch.float32, output_loading_info=True
        ),
        kind,
    )
    loading.check_whole(spec.name, model, info)
    model.eval()
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.contiguous().numpy().tobytes())
    return model, tokenizer, digest.hexdigest()
