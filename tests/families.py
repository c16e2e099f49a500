"""Small models with random weights, of every family that can be built so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from conftest import WORDS, write_tokenizer

# Trained as transformers would train them; each against a plain loop over a dozen updates.
TRAINED = (
    *("albert", "bert", "big_bird", "camembert", "data2vec-text", "deberta", "deberta-v2", "distilbert", "electra"),
    *("ernie", "esm", "eurobert", "megatron-bert", "modernbert", "mpnet", "nomic_bert", "rembert"),
    *("roberta", "roformer", "squeezebert", "xlm-roberta"),
    *("biogpt", "exaone4", "falcon", "gemma", "gemma2", "gemma3_text", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox"),
    *("gptj", "llama", "mistral", "modernbert-decoder", "mpt", "olmo2", "opt", "phi", "phi3", "qwen2"),
    *("qwen3", "smollm3", "stablelm", "starcoder2"),
)
# Refused before training, and why.
LANES, PADDING = "code fails under torch.vmap", "depend on the padding behind it"
REFUSED = {
    **dict.fromkeys(("bart", "mbart", "mvp", "plbart", "mt5", "umt5", "bigbird_pegasus"), LANES),
    **dict.fromkeys(("bloom", "flaubert", "ibert", "longformer", "mra", "phimoe", "xlm", "yoso"), LANES),
    **dict.fromkeys(("convbert", "fnet", "mobilebert", "nystromformer", "xlnet"), PADDING),
}

# What a configuration calls its sizes, whatever the family.
SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "emb_dim", "dim", "word_embed_proj_dim"), 16),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 2),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads", "num_key_value_heads"), 2),
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "dff"), 32),
    **dict.fromkeys(("d_ff", "d_inner", "hidden_dim", "ffn_hidden_size"), 32),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 64),
    **dict.fromkeys(("d_kv", "head_dim", "d_head", "rotary_dim"), 8),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 8),
    **{"num_experts": 2, "num_local_experts": 2, "num_experts_per_tok": 1, "embedding_size": 16},
    **{"vocab_size": len(WORDS), "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3},
}
# Windows are narrow, so that texts of some tokens go beyond them.
CHANGES: dict[str, dict[str, Any]] = {
    "big_bird": {"attention_type": "original_full"},
    "convbert": {"embedding_size": 8},
    "deberta": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "deberta-v2": {"relative_attention": True, "position_buckets": 8, "pos_att_type": ["c2p", "p2c"]},
    "electra": {"embedding_size": 8},
    "exaone4": {"sliding_window": 4},
    "funnel": {"block_sizes": [1, 1]},
    "gemma2": {"sliding_window": 4, "query_pre_attn_scalar": 8},
    "gemma3_text": {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 4},
    "gptj": {"rotary_dim": 4},
    "hunyuan_v1_moe": {"moe_topk": 1},
    "longformer": {"attention_window": 4},
    "ministral": {"sliding_window": 4},
    "mistral": {"sliding_window": 4},
    "mixtral": {"sliding_window": 4},
    "mobilebert": {"intra_bottleneck_size": 16, "true_hidden_size": 16},
    "modernbert": {"local_attention": 8, "num_hidden_layers": 4},
    "modernbert-decoder": {"local_attention": 8, "num_hidden_layers": 4},
    "olmo3": {"sliding_window": 4},
    "phi3": {"sliding_window": 4},
    "qwen2": {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    "qwen3": {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    "roc_bert": dict.fromkeys(("pronunciation_vocab_size", "shape_vocab_size"), 40),
    "roformer": {"embedding_size": 8},
    "starcoder2": {"sliding_window": 4},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
}


def config_of(kind: str, **changes: Any) -> Any:
    """A small configuration of a family, with `changes`."""
    from transformers import AutoConfig

    usual = AutoConfig.for_model(kind)
    renamed = usual.attribute_map or {}
    known = usual.to_dict()
    sizes = {
        name: value
        for name, value in SIZES.items()
        if (name in known and name not in renamed) or (name in renamed and renamed[name] not in SIZES)
    }
    return AutoConfig.for_model(kind, **(sizes | CHANGES.get(kind, {}) | changes))


def write(folder: Path, kind: str, **changes: Any) -> Path:
    """Write a small model of a family and a tokenizer into a folder; its weights are large, so that each counts."""
    from transformers import AutoModel

    write_tokenizer(folder, kind)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModel.from_config(config_of(kind, **changes))
        for value in model.parameters():
            if value.dim() > 1:
                torch.nn.init.normal_(value, 0.0, 0.2)
        model.save_pretrained(folder)
    return folder
