"""Loading what transformers has, errors in a line; what a checkpoint lacks of a network: only the head may be new."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import safetensors
import torch
from torch import nn

from harness.common import hub
from harness.common.errors import HarnessError
from harness.common.extras import install_command
from harness.common.text import count_noun

_SHOWN = 3  # names that a line lists
# Heads of pretraining and of other tasks, and what is no weight: every encoder leaves them behind.
_USUAL = re.compile(
    r"^(cls|lm_head|lm_loss|lm_predictions|mask_predictions|predictions|pred_layer|final_logits_bias|qa_outputs"
    r"|generator_\w+|discriminator_predictions|vocab_\w+|decoder\.(weight|bias)|classifier|score|pre_classifier"
    r"|classification_head|head)(\.|$)|(^|\.)pooler\.|(^|\.)(position_ids|token_type_ids|inv_freq)$"
)
_POOLER = re.compile(r"(^|\.)pool\w*\.")

_ENCODER = "an encoder that transformers' AutoModelForSequenceClassification knows"


def loaded(what: str, spec: hub.Pretrained, load: Callable[..., Any], kind: str = _ENCODER) -> Any:
    """What `load(place, …)` gives; a model with code of its own is refused where that is not trusted.

    One of a kind that transformers knows is too: without its code it would be another network.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import PretrainedConfig

    source, trusted = hub.location(spec), hub.trusts_remote_code()
    try:
        if not trusted and PretrainedConfig.get_config_dict(source)[0].get("auto_map"):
            raise hub.custom_code(spec)
        return load(source, trust_remote_code=trusted)
    except HarnessError:
        raise
    except ImportError as error:  # a tokenizer's own needs: MeCab for Japanese
        raise HarnessError(
            f"cannot load the {what} of '{spec.name}': a package that it needs is missing",
            got=next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200],
            fix=f"Install it; for Japanese: {install_command('japanese')}",
        ) from None
    except (OSError, ValueError, KeyError, safetensors.SafetensorError, StrictDataclassError) as error:
        if "trust_remote_code" in str(error):
            raise hub.custom_code(spec) from None
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        reason = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
        raise HarnessError(
            f"cannot load the {what} of '{spec.name}': {reason[:200].rstrip('.')}",
            allowed=kind,
            fix="Check the name, or name a complete folder with --set",
        ) from None


@contextmanager
def quiet() -> Iterator[None]:
    """Have transformers neither warn nor draw bars while it loads."""
    import transformers

    was = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # "newly initialized: classifier" is what we want
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(was)


def head(module: nn.Module, info: Mapping[str, Any]) -> frozenset[str]:
    """The parameters that a trial draws: what transformers draws itself when it loads a network with other outputs.

    That is what the checkpoint lacks or has in another shape, and what gives the outputs, whose number is the task's.
    `info` is transformers' loading info.
    """
    names = [name for name, _ in module.named_parameters()]
    drawn = {*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])}
    encoder = f"{_prefix(module)}."
    beside = [name for name in names if not name.startswith(encoder) and name not in drawn]
    return frozenset(drawn & set(names)) | (_outputs(module) if beside else frozenset())


def span_head(module: nn.Module, info: Mapping[str, Any]) -> frozenset[str]:
    """As `head`, of answers in a context, which always have two outputs: all outside of the encoder is the head's.

    A checkpoint that answered questions before has a head of just that shape.
    """
    names, encoder = [name for name, _ in module.named_parameters()], f"{_prefix(module)}."
    drawn = set(info["missing_keys"]) & set(names)
    return frozenset(drawn | {name for name in names if not name.startswith(encoder)})


def _prefix(module: nn.Module) -> str:
    return str(getattr(module, "base_model_prefix", ""))


def _outputs(module: Any) -> frozenset[str]:
    """The parameters whose shape follows the number of outputs."""
    config = copy.deepcopy(module.config)
    config.num_labels += 1
    with torch.device("meta"):
        other = dict(type(module)(config).named_parameters())
    return frozenset(
        name for name, value in module.named_parameters() if name in other and other[name].shape != value.shape
    )


def check(name: str, module: nn.Module, info: Mapping[str, Any]) -> None:
    """Raise HarnessError for an encoder of the model `name` that the checkpoint has not whole.

    A pooler counts as the head's: masked language modelling leaves none behind.
    """
    encoder = f"{_prefix(module)}."
    bare = not any(key.startswith(encoder) for key, _ in module.named_parameters())  # the encoder itself

    def of_encoder(key: str) -> bool:
        return (bare or key.startswith(encoder)) and _POOLER.search(key.removeprefix(encoder)) is None

    allowed = "a checkpoint without the head and a pooler, which each trial initialises"
    _refuse(name, module, info, of_encoder, allowed)


def check_whole(name: str, module: nn.Module, info: Mapping[str, Any]) -> None:
    """Raise HarnessError for a checkpoint of the model `name` that lacks anything: it is to be used as it is."""
    _refuse(name, module, info, lambda key: True, None)


def _refuse(
    name: str, module: nn.Module, info: Mapping[str, Any], needed: Callable[[str], bool], allowed: str | None
) -> None:
    wrong = [(key, *shapes) for key, *shapes in sorted(info["mismatched_keys"]) if needed(key)]
    if wrong:
        key, actual, expected = wrong[0]
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise HarnessError(
            f"the weights of '{name}' do not fit its config.json: {key} has the shape {list(actual)}, not "
            f"{list(expected)}{more}",
            fix="Correct config.json, or use another checkpoint",
        )
    missing = [key for key in sorted(info["missing_keys"]) if needed(key)]
    if missing:
        prefix = _to_strip(missing, info["unexpected_keys"], _prefix(module))
        count = f"{count_noun(len(missing), 'tensor')} missing of {len(list(module.parameters()))}"
        raise HarnessError(
            f"the checkpoint of '{name}' is incomplete: {count}: {listed(missing)}",
            allowed=allowed,
            fix=f"Strip the prefix '{prefix}' from its keys" if prefix else "Use a complete checkpoint",
        )


def _to_strip(missing: Sequence[str], unexpected: Collection[str], base: str) -> str | None:
    """The prefix of the checkpoint's keys without which most of what is missing would be found."""
    wanted = {*missing, *(key.removeprefix(f"{base}.") for key in missing)}
    prefixes: Counter[str] = Counter()
    for key in unexpected:
        parts = key.split(".")
        rests = (number for number in range(1, len(parts)) if ".".join(parts[number:]) in wanted)
        if (number := next(rests, None)) is not None:
            prefixes[".".join(parts[:number]) + "."] += 1
    prefix, count = next(iter(prefixes.most_common(1)), ("", 0))
    return prefix if 2 * count > len(missing) else None


def unused(name: str, info: Mapping[str, Any]) -> tuple[str, ...]:
    """A sentence about weights that the checkpoint has and the network does not, beside the usual heads."""
    keys = [key for key in sorted(info["unexpected_keys"]) if not _USUAL.search(key)]
    if not keys:
        return ()
    tensors = count_noun(len(keys), "tensor")
    return (f"The checkpoint of '{name}' has {tensors} that its network has no place for: {listed(keys)}.",)


def listed(names: Sequence[str]) -> str:
    """The first few of some names."""
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
