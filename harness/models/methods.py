"""Which parameters a method trains, the parts it puts into a network, and how their first values are drawn.

LoRA and IA³ are peft's modules; adapters, prefixes and prompts are here: peft has no Houlsby adapters, and its prefix
and prompt tuning build masks that can't stand under vmap.
"""

from __future__ import annotations

import math
import re
import sys
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.common.errors import HarnessError
from harness.config.recipe import Method
from harness.models import families, masks, normalisation

# Draws a new parameter's first value [*shape] in place and gives it.
Draw = Callable[[Tensor, torch.Generator], Tensor]
LORA_SCALE = "lora_scale"  # the lanes' alpha / rank, beside their parameters
# By a task's kind; peft has none of multiple choice.
_PEFT_TASKS = {"tokens": "TOKEN_CLS", "completion": "CAUSAL_LM", "choice": None, "span": "QUESTION_ANS"}
_A, _B, _IA3 = ".lora_A.default.weight", ".lora_B.default.weight", ".ia3_l.default"


def adapt(module: nn.Module, method: Method, head: Collection[str]) -> tuple[tuple[str, ...], dict[str, Draw]]:
    """Put the method's parts into a classifier, in place.

    Returns the names of the trained parameters in the module's order (`head` is always among them), and of the new
    ones how they are drawn. Raises HarnessError where the model doesn't have what the method needs.
    """
    before = {name for name, _ in module.named_parameters()}
    parts = _METHODS[method.name]
    extra = parts.put(module, method, head)
    names = [name for name, _ in module.named_parameters()]
    # A part that wraps a module renames what is in it, so new is what has a way to be drawn.
    drawn = {
        name: draw
        for name in names
        for ending, draw in parts.draws.items()
        if name not in before and name.endswith(ending)
    }
    return tuple(name for name in names if name in head or name in drawn or extra(name)), drawn


def given(lane: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a lane's module is called with: its parameters, with alpha / rank of LoRA in the second of its factors.

    So alpha differs from lane to lane. A product with a single column takes another kernel when a lane is alone, whose
    last bits differ, so factors of rank 1 have a second column of zeros.
    """
    parameters = dict(lane)
    scale = parameters.pop(LORA_SCALE, None)
    if scale is not None:
        for name, value in lane.items():
            if name.endswith(_A) and len(value) == 1:
                parameters[name] = F.pad(value, (0, 0, 0, 1))  # [2, in]
            elif name.endswith(_B):
                value = value * scale
                parameters[name] = F.pad(value, (0, 1)) if value.shape[1] == 1 else value  # [out, rank]
    return parameters


def is_scale(name: str) -> bool:
    """Whether a parameter multiplies activations one by one, as a normalisation's scale does: it isn't decayed."""
    return name.endswith(_IA3)


def keeps_logits(method: Method) -> bool:
    """Whether the network answers as the pretrained one until it is trained: what the method put in changes nothing."""
    return _METHODS[method.name].keeps_logits


def save_config(
    folder: Path, module: nn.Module, head: Collection[str], alpha: float, base: str, *, kind: str = "texts"
) -> None:
    """Write the `adapter_config.json` by which peft loads what LoRA or IA³ trained.

    Args:
        folder: The saved model's folder.
        module: The classifier with peft's layers in it.
        head: The names of the head's parameters, which are loaded whole, as peft's `modules_to_save`.
        alpha: LoRA's alpha.
        base: Where the pretrained model lies: a folder or the hub's name.
        kind: The kind of the task.
    """
    peft: Any = _peft()
    layers: dict[str, Any] = {
        name: part for name, part in module.named_modules() if isinstance(part, peft.tuners.tuners_utils.BaseTunerLayer)
    }
    first = next(iter(layers.values()))
    encoder = f"{module.base_model_prefix}."
    whole = [name.rpartition(".")[0] if name.startswith(encoder) else name.partition(".")[0] for name in head]
    common = {
        "task_type": _PEFT_TASKS.get(kind, "SEQ_CLS"),
        "base_model_name_or_path": base,
        "target_modules": list(layers),
        "fan_in_fan_out": bool(first.fan_in_fan_out),
        "modules_to_save": list(dict.fromkeys(whole)) or None,
        "inference_mode": True,
    }
    if hasattr(first, "lora_A"):
        config = peft.LoraConfig(r=first.r["default"], lora_alpha=alpha, **common)
    else:
        forward = [name for name, part in layers.items() if part.is_feedforward]
        config = peft.IA3Config(feedforward_modules=forward, **common)
    config.save_pretrained(folder)


# ------------------------------------------------------------------------------------------------- first values


def _kaiming(value: Tensor, stream: torch.Generator) -> Tensor:
    """As peft draws LoRA's first factor, which is how nn.Linear draws its weights."""
    return nn.init.kaiming_uniform_(value, a=math.sqrt(5), generator=stream)


def _zeros(value: Tensor, stream: torch.Generator) -> Tensor:
    return value.zero_()


def _ones(value: Tensor, stream: torch.Generator) -> Tensor:
    return value.fill_(1.0)


def _as_embeddings(value: Tensor, stream: torch.Generator) -> Tensor:
    """As BERT's own embeddings; peft draws N(0, 1)."""
    return value.normal_(0.0, 0.02, generator=stream)


def _near_identity(value: Tensor, stream: torch.Generator) -> Tensor:
    """As Houlsby et al. (2019, 3.6), so that an adapter begins near the identity."""
    return nn.init.trunc_normal_(value, 0.0, 0.01, -0.02, 0.02, generator=stream)


# ------------------------------------------------------------------------------------------------------ methods

Trains = Callable[[str], bool]


def _nothing(name: str) -> bool:
    return False


def _full(module: Any, method: Method, head: Collection[str]) -> Trains:
    return lambda name: True


def _head(module: Any, method: Method, head: Collection[str]) -> Trains:
    return _nothing


def _top_layers(module: Any, method: Method, head: Collection[str]) -> Trains:
    """The last layers and what stands above them: a pooler, a last normalisation."""
    path, layers = families.layers(module, method)
    depth, top = module.config.num_hidden_layers, method.top_layers or 0
    if len(layers) != depth:
        raise _cannot(method, module, f"{depth} layers that share one set of weights")
    if top > depth:
        raise HarnessError(f"top_layers must be at most the model's {depth} layers", got=top, fix="Lower top_layers")
    names = [name for name, _ in module.named_parameters()]
    last = max(number for number, name in enumerate(names) if name.startswith(f"{path}."))
    # Beside the layers may stand what all of them use, as DeBERTa's relative positions.
    base, beside = f"{module.base_model_prefix}.", path.rpartition(".")[0] + "."
    above = {name for name in names[last + 1 :] if beside == base or not name.startswith(beside)}
    trained = tuple(f"{path}.{number}." for number in range(depth - top, depth))
    return lambda name: name.startswith(trained) or name in above


def _bitfit(module: Any, method: Method, head: Collection[str]) -> Trains:
    """Every bias (Ben Zaken et al. 2022)."""
    if not any(name.endswith("bias") for name in _encoder_names(module)):
        raise _cannot(method, module, "no biases")
    return lambda name: name.endswith("bias")


def _lora(module: Any, method: Method, head: Collection[str]) -> Trains:
    peft = _peft()
    if method.lora_targets is None:
        path, layers = families.layers(module, method)
        family = families.family(module)
        targets = [f"{path}.{number}.{part}" for number in range(len(layers)) for part in (family.query, family.value)]
        targets = list(dict.fromkeys(targets))
    else:
        targets = _targets(module, method.lora_targets, head)
    config = peft.LoraConfig(
        r=method.lora_rank,
        lora_alpha=method.lora_rank,  # a scale of 1: the lane's own stands in its second factor
        target_modules=targets,
        fan_in_fan_out=_is_conv1d(module, targets),
    )
    peft.inject_adapter_in_model(config, module)
    return _nothing


def _ia3(module: Any, method: Method, head: Collection[str]) -> Trains:
    """Scales on keys, values and what enters the feed-forward's second projection (Liu et al. 2022)."""
    peft = _peft()
    path, layers = families.layers(module, method)
    family, numbers = families.family(module), range(len(layers))
    attention = [f"{path}.{number}.{part}" for number in numbers for part in (family.key, family.value)]
    forward = [f"{path}.{number}.{family.feedforward}" for number in numbers]
    targets = list(dict.fromkeys([*attention, *forward]))
    config = peft.IA3Config(
        target_modules=targets, feedforward_modules=forward, fan_in_fan_out=_is_conv1d(module, targets)
    )
    peft.inject_adapter_in_model(config, module)
    return _nothing


class _Adapter(nn.Module):
    """A module with a bottleneck behind it: h + up(gelu(down(h))) (Houlsby et al. 2019)."""

    def __init__(self, inner: nn.Module, width: int, size: int) -> None:
        super().__init__()
        self.inner = inner
        self.adapter_down, self.adapter_up = nn.Linear(width, size), nn.Linear(size, width)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.inner(x)
        change: Tensor = self.adapter_up(F.gelu(self.adapter_down(h)))
        return h + change


def _adapter(module: Any, method: Method, head: Collection[str]) -> Trains:
    """A bottleneck at the end of attention and feed-forward in each layer; normalisations are trained too, as there."""
    _, layers = families.layers(module, method)
    for layer in layers:
        for end in families.family(module).ends:
            parent, _, name = end.rpartition(".")
            wrapped = _Adapter(layer.get_submodule(end), module.config.hidden_size, method.adapter_size)
            setattr(layer.get_submodule(parent), name, wrapped)
    encoder = f"{module.base_model_prefix}."
    norms = tuple(f"{name}." for name, _ in normalisation.modules(module) if name.startswith(encoder))
    return lambda name: name.startswith(norms)


def _attend_with_prefix(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, **more: Any
) -> tuple[Tensor, Tensor | None]:
    """The model's own attention with the module's trained keys and values before the text's."""
    keys, values = (part.expand(len(key), *part.shape) for part in (module.prefix[0], module.prefix[1]))  # [B, H, V, D]
    attended: tuple[Tensor, Tensor | None] = sys.modules[type(module).__module__].eager_attention_forward(
        module,
        query,
        torch.cat([keys, key], dim=2),
        torch.cat([values, value], dim=2),
        F.pad(attention_mask, (keys.shape[2], 0)),
        **more,
    )
    return attended


def _prefix(module: Any, method: Method, head: Collection[str]) -> Trains:
    """Trained keys and values before the text's in every layer (Li & Liang 2021), without their reparametrisation.

    The text keeps its positions; peft counts them behind the virtual tokens, since its prefix is a cache.
    """
    _, layers = families.layers(module, method)
    attention = families.family(module).attention
    if attention is None:
        raise _cannot(method, module, "attention that takes no keys and values from outside")
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register("harness_prefix", _attend_with_prefix)
    AttentionMaskInterface.register("harness_prefix", masks.full_mask)
    config = module.config
    config._attn_implementation = "harness_prefix"
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    for layer in layers:
        layer.get_submodule(attention).prefix = nn.Parameter(torch.zeros(2, heads, method.virtual_tokens, size))
    return _nothing


class _Prompted(nn.Module):
    """An embedding of words whose first positions are trained vectors, whatever words stand there."""

    def __init__(self, embedding: nn.Embedding, tokens: int) -> None:
        super().__init__()
        self.embedding = embedding
        self.prompt = nn.Parameter(torch.zeros(tokens, embedding.embedding_dim))

    def forward(self, ids: Tensor) -> Tensor:
        words: Tensor = self.embedding(ids)  # [B, V + T, D]
        prompt = self.prompt.expand(len(words), *self.prompt.shape)
        return torch.cat([prompt, words[:, self.prompt.shape[0] :]], dim=1)


def _prompt(module: Any, method: Method, head: Collection[str]) -> Trains:
    """Trained vectors before the text's (Lester et al. 2021).

    They take the first positions, as in peft: a model that classifies by its first token reads the first of them.
    """
    words = module.get_input_embeddings()
    if not isinstance(words, nn.Embedding):
        raise _cannot(method, module, "no embedding of words")
    positions = getattr(module.config, "max_position_embeddings", None)
    if positions is not None and method.virtual_tokens > positions - 2:
        raise HarnessError(
            f"virtual_tokens must be at most {positions - 2}, to leave room for the text in {positions} positions",
            got=method.virtual_tokens,
            fix="Lower virtual_tokens",
        )
    module.set_input_embeddings(_Prompted(words, method.virtual_tokens))
    return _nothing


@dataclass(frozen=True)
class _Parts:
    """What a method does to a network.

    Attributes:
        put: Puts its parts into a classifier, in place, and says which of the pretrained weights are trained.
        draws: How the first value of each new parameter is drawn, by the ending of its name.
        keeps_logits: Whether the network's logits are still the pretrained ones' before training.
    """

    put: Callable[[Any, Method, Collection[str]], Trains]
    draws: Mapping[str, Draw] = field(default_factory=dict)
    keeps_logits: bool = True


_METHODS: dict[str, _Parts] = {
    "full": _Parts(_full),
    "head": _Parts(_head),
    "top_layers": _Parts(_top_layers),
    "lora": _Parts(_lora, {_A: _kaiming, _B: _zeros}),
    "prefix": _Parts(_prefix, {".prefix": _as_embeddings}, keeps_logits=False),
    "prompt": _Parts(_prompt, {".prompt": _as_embeddings}, keeps_logits=False),
    "ia3": _Parts(_ia3, {_IA3: _ones}),
    "adapter": _Parts(
        _adapter,
        {
            f".{part}.{kind}": draw
            for part in ("adapter_down", "adapter_up")
            for kind, draw in (("weight", _near_identity), ("bias", _zeros))
        },
        keeps_logits=False,
    ),
    "bitfit": _Parts(_bitfit),
}


# ---------------------------------------------------------------------------------------------- parts of a model


def _peft() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it imports
        import peft
    return peft


def _cannot(method: Method, module: Any, has: str) -> HarnessError:
    return HarnessError(
        f"method: {method.name} cannot be used with a model of the type '{module.config.model_type}', which has {has}",
        fix="Use method: full, head, lora or adapter",
    )


def _encoder_names(module: Any) -> list[str]:
    encoder = f"{module.base_model_prefix}."
    return [name for name, _ in module.named_parameters() if name.startswith(encoder)]


def _products(module: Any) -> dict[str, nn.Module]:
    """The encoder's linear maps by name."""
    from transformers.pytorch_utils import Conv1D

    encoder = f"{module.base_model_prefix}."
    return {
        name: part
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear | Conv1D) and name.startswith(encoder)
    }


def _is_conv1d(module: Any, targets: Collection[str]) -> bool:
    """Whether these maps keep their weights as [in, out], as GPT-2's do."""
    return not any(isinstance(module.get_submodule(name), nn.Linear) for name in targets)


def _targets(module: Any, endings: str, head: Collection[str]) -> list[str]:
    """The linear maps that a comma separated text names by the ends of their paths.

    Those of the head, as a pooler whose weights the checkpoint lacks, are left out: they are drawn and trained whole.
    """
    there = list(_products(module))
    targets: dict[str, None] = {}
    for word in (word.strip() for word in endings.split(",")):
        fitting = [name for name in there if word and f".{name}".endswith(f".{word}")]
        if not fitting:
            # Each once, without the layer's number.
            ends = dict.fromkeys(re.split(r"\.\d+\.", name)[-1].removeprefix("model.") for name in there)
            raise HarnessError(
                "lora_targets must be names of linear layers of the model, or endings of them, separated by commas",
                got=f"'{word}'",
                allowed=", ".join(ends),
            )
        targets.update(dict.fromkeys(fitting))
    whole = {name.rpartition(".")[0] for name in head}
    pretrained = [name for name in targets if name not in whole]
    if not pretrained:
        raise HarnessError(
            f"lora_targets '{endings}' has no pretrained layer: the checkpoint lacks its weights, so every method "
            "trains it whole",
            fix="Name other layers, or use method: head",
        )
    return pretrained
