"""Model name or folder -> a pretrained encoder whose classifier head is drawn afresh for every lane."""

from __future__ import annotations

import hashlib
import inspect
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from harness import hub
from harness.sweep import HarnessError, ModelSpec

# N(0, 0.02), as BERT's own initialisation (Devlin et al. 2019) and the study's head (Mosbach et al. 2021).
HEAD_STD = 0.02
# These build their own mask from one value a token; the others take a ready additive mask [B, 1, 1, T], which keeps
# transformers' mask code (it branches on data) out of vmap.
_TOKEN_MASK = ("deberta", "deberta-v2")
# These count positions from behind the padding token's index.
_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer")


@dataclass(frozen=True)
class Network:
    """A pretrained network as a function of its parameters.

    `module` gives the shapes of the computation, `pretrained` the float32 values of every parameter by name in the
    module's order, `head` the names that are drawn afresh for each trial, `sha256` a hash of the pretrained values.
    """

    module: nn.Module
    pretrained: dict[str, Tensor]
    head: tuple[str, ...]
    sha256: str
    token_mask: bool
    takes_token_types: bool
    positions: int | None  # the longest text it can read, in tokens
    # Of `playback`, by what is recorded; None where it can't be. And how often that was called before.
    recordings: dict[object, Any] = field(default_factory=dict, repr=False, compare=False)
    calls: Counter[object] = field(default_factory=Counter, repr=False, compare=False)

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        return sum(value.numel() for value in self.pretrained.values())

    def initialised(self, generator: torch.Generator) -> dict[str, Tensor]:
        """All parameters on the CPU, the head drawn from N(0, 0.02): weights from `generator`, biases 0, scales 1.

        Parameters are visited in the module's order, so one seed gives one head whatever the device or the pack.
        """
        values = dict(self.pretrained)
        for name in self.head:
            shape = values[name].shape
            if len(shape) > 1:
                values[name] = torch.empty(shape).normal_(0.0, HEAD_STD, generator=generator)
            elif name.endswith("weight"):  # a normalisation's scale
                values[name] = torch.ones(shape)
            else:
                values[name] = torch.zeros(shape)
        return values

    def inputs(self, input_ids: Tensor, lengths: Tensor, token_type_ids: Tensor | None) -> dict[str, Tensor]:
        """Keyword arguments of the module for input_ids [..., T] and lengths [...] (real tokens of each row)."""
        width = input_ids.shape[-1]
        real = torch.arange(width, device=input_ids.device) < lengths[..., None]  # [..., T]
        if self.token_mask:
            mask = real.long()
        else:
            mask = torch.zeros(real.shape, device=input_ids.device).masked_fill_(~real, torch.finfo(torch.float32).min)
            mask = mask[..., None, None, :]  # [..., 1, 1, T]
        given = {"input_ids": input_ids, "attention_mask": mask}
        if self.takes_token_types:
            given["token_type_ids"] = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        return given


def _loaded(what: str, spec: ModelSpec, load: Callable[..., Any]) -> Any:
    """What `load(place, …)` gives; a model with code of its own is refused where that is not trusted.

    One of a kind that transformers knows is too: without its code it would be another network.
    """
    from transformers import PretrainedConfig

    place, trusted = hub.location(spec), hub.trusts_remote_code()
    try:
        if not trusted and PretrainedConfig.get_config_dict(place)[0].get("auto_map"):
            raise hub.custom_code(spec)
        return load(place, trust_remote_code=trusted)
    except HarnessError:
        raise
    except ImportError as error:  # a tokenizer's own needs: MeCab for Japanese
        raise HarnessError(
            f"the {what} of '{spec.name}' finds the packages that it needs",
            got=next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200],
            allowed="all of them installed",
            fix="install it; for Japanese: pip install 'stability-harness[japanese]'",
        ) from None
    except (OSError, ValueError, KeyError) as error:
        if "trust_remote_code" in str(error):
            raise hub.custom_code(spec) from None
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise HarnessError(
            f"the {what} of '{spec.name}' can be loaded",
            got=reason[:200],
            allowed="an encoder that transformers' AutoModelForSequenceClassification knows",
            fix="check the name, or point --set model.folder=DIR at a complete folder",
        ) from None


def tokenizer(spec: ModelSpec) -> Any:
    """The model's own tokenizer; raises HarnessError when it can't be had."""
    hub.check_model(spec)
    hub.prepare()
    from transformers import AutoTokenizer

    return _loaded("tokenizer", spec, AutoTokenizer.from_pretrained)


@lru_cache(maxsize=2)  # a worker trains pack after pack of the same model
def network(spec: ModelSpec, num_labels: int) -> Network:
    """The pretrained network with `num_labels` outputs, in float32 on the CPU; 1 output is a regression.

    Raises HarnessError when the model can't be had or is no encoder with a classification head.
    """
    hub.check_model(spec)
    hub.prepare()
    import transformers
    from transformers import AutoModelForSequenceClassification

    was = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # "newly initialized: classifier" is what we want
    transformers.logging.disable_progress_bar()
    try:
        with torch.random.fork_rng(devices=[]):  # it draws a head of its own, which is thrown away
            module, info = _loaded(
                "weights",
                spec,
                lambda place, **trust: AutoModelForSequenceClassification.from_pretrained(
                    place,
                    **trust,
                    num_labels=num_labels,
                    dtype=torch.float32,
                    attn_implementation="eager",
                    ignore_mismatched_sizes=True,
                    output_loading_info=True,
                ),
            )
    finally:
        transformers.logging.set_verbosity(was)
    for part in module.modules():
        # Under vmap the pad row would get no gradient in lane 0 and one in the others. With the mask the pad
        # positions' gradient is zero anyhow.
        if isinstance(part, nn.Embedding):
            part.padding_idx = None
    module.requires_grad_(False)
    module.train()
    pretrained = {name: value.detach().clone() for name, value in module.named_parameters()}
    encoder = f"{module.base_model_prefix}."
    absent = set(info["missing_keys"])
    head = tuple(name for name in pretrained if not name.startswith(encoder) or name in absent)
    digest = hashlib.sha256()
    for name, value in pretrained.items():
        if name not in head:
            digest.update(f"{name}{tuple(value.shape)}".encode())
            digest.update(value.contiguous().numpy().tobytes())
    kind = module.config.model_type
    takes = "token_type_ids" in inspect.signature(module.forward).parameters
    types = getattr(module.config, "type_vocab_size", 0) or 0
    positions = getattr(module.config, "max_position_embeddings", None)
    if positions is not None and kind in _OFFSET_POSITIONS:
        positions -= module.config.pad_token_id + 1
    return Network(module, pretrained, head, digest.hexdigest(), kind in _TOKEN_MASK, takes and types > 0, positions)
