"""Where the parts of a layer lie in each family of networks that the PEFT methods know."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from harness.common.errors import HarnessError
from harness.config.recipe import Method


@dataclass(frozen=True)
class Family:
    """Where the parts of a layer lie, as paths inside it.

    Attributes:
        layers: The path of the list of layers in the encoder.
        query: The projection to queries.
        key: The projection to keys.
        value: The projection to values.
        feedforward: The projection back to the hidden width.
        ends: The last modules of attention and of feed-forward, just before the residual sum.
        attention: The module that calls transformers' attention interface; None where none does, or where one module
            serves several layers.
    """

    layers: str
    query: str
    key: str
    value: str
    feedforward: str
    ends: tuple[str, str]
    attention: str | None


_BERT = Family(
    layers="encoder.layer",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    feedforward="output.dense",
    ends=("attention.output.dropout", "output.dropout"),
    attention="attention.self",
)
_DEBERTA2 = replace(
    _BERT,
    query="attention.self.query_proj",
    key="attention.self.key_proj",
    value="attention.self.value_proj",
    attention=None,
)
_ALBERT = Family(
    layers="encoder.albert_layer_groups.0.albert_layers",
    query="attention.query",
    key="attention.key",
    value="attention.value",
    feedforward="ffn_output",
    ends=("attention.output_dropout", "ffn_output"),
    attention=None,
)
_DISTILBERT = Family(
    layers="transformer.layer",
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    feedforward="ffn.lin2",
    ends=("attention.out_lin", "ffn"),
    attention="attention",
)
_GPT2 = Family(  # query, key and value in one projection, which LoRA and IA³ take whole, as in peft
    layers="h",
    query="attn.c_attn",
    key="attn.c_attn",
    value="attn.c_attn",
    feedforward="mlp.c_proj",
    ends=("attn.resid_dropout", "mlp.dropout"),
    attention="attn",
)
_LLAMA = Family(
    layers="layers",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    feedforward="mlp.down_proj",
    ends=("self_attn.o_proj", "mlp.down_proj"),
    attention="self_attn",
)
FAMILIES = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra"), _BERT),
    "deberta-v2": _DEBERTA2,
    "albert": _ALBERT,
    "distilbert": _DISTILBERT,
    "gpt2": _GPT2,
    **dict.fromkeys(("llama", "qwen2", "qwen3", "mistral", "gemma", "smollm3"), _LLAMA),
}


def family(module: Any) -> Family:
    """Where the parts lie in a classifier whose `layers` were found."""
    return FAMILIES[module.config.model_type]


def layers(module: Any, method: Method) -> tuple[str, nn.ModuleList]:
    """The list of layers of a classifier, and its path in the module.

    Raises HarnessError for a family whose layers are not known here.
    """
    own = FAMILIES.get(module.config.model_type)
    if own is None:
        raise HarnessError(
            f"method: {method.name} does not support models of the type '{module.config.model_type}'",
            allowed=", ".join(FAMILIES),
            fix="Set lora_targets" if method.name == "lora" else "Use another method (lora with lora_targets)",
        )
    path = f"{module.base_model_prefix}.{own.layers}"
    return path, module.get_submodule(path)
