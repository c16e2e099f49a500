"""Whether a network gives, stacked in lanes, the logits that transformers' own call of it gives.

Masks, padding and positions are the harness's own, and a wrong one of them trains another network without a word.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.overrides import TorchFunctionMode

from harness.common.errors import HarnessError
from harness.models import methods
from harness.models.outputs import logits_of
from harness.records.record import LogitsCheck

# Of the largest logit. Rounding in float32 makes 1e-6 of it in a dozen layers and some 1e-5 in the deepest networks; a
# local layer that sees everything, or one that sees padding, makes 1e-3 and more.
TOLERANCE = 1e-4
# Tokens: two short texts that are padded by some, and one that goes beyond any window of attention by some.
_SHORT, _LONG, _PADDED, _BEYOND = (9, 5), 24, 3, 8
# A wider window is narrowed for the check alone, in both calls, so that it takes no more than a moment.
_WIDEST, _NARROW = 300, 16
_WINDOWS = ("sliding_window", "local_attention", "window_size", "attention_chunk_size")
_FIX = "Use another model; docs/how-to/own-model.md lists the families that are tested"


class ModelRefusedError(HarnessError):
    """A model that can't be trained as transformers would train it: then nothing is trained, and no trial crashes."""


class LogitsComparison(Protocol):
    """What is read of a `pretrained.Network`."""

    @property
    def module(self) -> nn.Module:
        """What computes."""

    @property
    def positions(self) -> int | None:
        """The longest text it can read, in tokens."""

    def initialised(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Its trained parameters, with a head of the generator's."""

    def inputs(
        self, input_ids: Tensor, lengths: Tensor, token_type_ids: Tensor | None, *, left: bool = False
    ) -> dict[str, Tensor]:
        """What its module is called with."""


@dataclass(frozen=True)
class Reference:
    """Texts, the longest last, and the logits that transformers' own call gives each of them by itself."""

    texts: tuple[Tensor, ...]  # [T] int64 each
    logits: tuple[Tensor, ...]  # [C] each, or of tokens [T, C]


def reference(network: LogitsComparison) -> Reference:
    """What the module answers as transformers made it, in evaluation mode, to each text by itself.

    Raises ModelRefusedError where it doesn't run.
    """
    texts = _texts(network.module, network.positions)
    try:
        return Reference(texts, tuple(_plain(network, [text], 0)[0] for text in texts))
    except Exception as error:
        raise _refused(
            network.module,
            f"transformers' own code fails on short texts ({_reason(error)})",
        ) from error


def refuse_looking_ahead(network: LogitsComparison) -> None:
    """Raise ModelRefusedError where what a network says at a place depends on a token behind it.

    Encoders are loaded as causal language models too.
    """
    text = _texts(network.module, network.positions)[0]
    other = text.clone()
    other[-1] = (other[-1] + 1) % _vocabulary(network.module)
    first, second = (_plain(network, [ids], 0)[0, :-1] for ids in (text, other))
    if float((first - second).abs().max()) > TOLERANCE * (float(first.abs().max()) or 1.0):
        raise _refused(
            network.module, "what it says at a place depends on the tokens behind it, so it is no causal language model"
        )


def refuse_encoders(module: Any) -> None:
    """Raise ModelRefusedError for a network that can be no causal language model, by its configuration alone.

    Types that transformers also has with a head for masked words are encoders, unless they are told to be decoders.
    """
    from transformers import MODEL_FOR_MASKED_LM_MAPPING as MASKED

    config = module.config
    if type(config) in MASKED and not (getattr(config, "is_decoder", False) or getattr(config, "causal", False)):
        raise _refused(module, "it is an encoder, whose words see those behind them, so it is no causal language model")


def check_left(network: LogitsComparison, reference: Reference) -> None:
    """Raise ModelRefusedError where a lane's logits for texts padded on the left differ from the reference's."""
    texts = reference.texts
    try:
        with _as_evaluated(network.module), torch.no_grad():
            difference = _difference(reference, _stacked(network, texts, _PADDED, left=True), texts, left=True)
    except Exception as error:
        raise _refused(network.module, f"its code fails with padding on the left ({_reason(error)})") from error
    if difference > TOLERANCE:
        raise _refused(
            network.module,
            f"with padding on the left its logits differ from those of transformers' own call by up to "
            f"{difference:.1e} of the largest, more than {TOLERANCE:g}",
        )


def check(network: LogitsComparison, reference: Reference) -> LogitsCheck:
    """Compare a lane's logits for padded texts with the reference's: the short ones' in training, dropping nothing, and
    the long one's in evaluation.

    Raises ModelRefusedError where they differ by more than rounding, and where the code can't be stacked or trained.
    """
    short, long = reference.texts[:-1], reference.texts[-1:]
    try:
        with _as_evaluated(network.module), torch.no_grad():
            of_long = _difference(reference, _stacked(network, long, _PADDED), long)
        difference = _worst([of_long, _difference(reference, _trained(network, short), short)])
    except Exception as error:
        raise _refused(
            network.module,
            f"its code fails under torch.vmap ({_reason(error)}), as code does that branches on the values it computes "
            "or draws random numbers",
        ) from error
    if difference > TOLERANCE:
        raise _differing(network, reference, difference)
    return LogitsCheck(
        largest_difference=None if math.isnan(difference) else difference,
        texts=tuple(len(text) for text in reference.texts),
    )


def _differing(network: LogitsComparison, reference: Reference, difference: float) -> ModelRefusedError:
    """The refusal of a network whose logits differ: padding's fault where transformers' own differ with it."""
    with suppress(Exception):  # it has run before
        padded = max(_difference(reference, _plain(network, [text], _PADDED), [text]) for text in reference.texts)
        if padded > TOLERANCE:
            return _refused(
                network.module,
                f"a text's logits depend on the padding behind it: transformers' own differ by {padded:.1e} of the "
                f"largest, more than {TOLERANCE:g}",
            )
    return _refused(
        network.module,
        f"in lanes its logits differ from those of transformers' own call by up to {difference:.1e} of the largest, "
        f"more than {TOLERANCE:g}",
    )


# ------------------------------------------------------------------------------------------------------- both calls


def _values(network: LogitsComparison) -> dict[str, Tensor]:
    """The trained parameters with a head that is always the same, where the module lies."""
    device = next(network.module.parameters()).device
    values = network.initialised(torch.Generator().manual_seed(0))
    return {name: value.to(device) for name, value in values.items()}


def _plain(network: LogitsComparison, texts: Sequence[Tensor], padding: int) -> Tensor:
    """The logits of texts, padded by some tokens, by transformers' own call in evaluation mode."""
    module: Any = network.module
    ids, lengths = _padded(texts, _width(network, texts, padding), _padding_token(module))
    real = (torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]).long()
    with _as_evaluated(module), torch.no_grad():
        given = {"input_ids": ids, "attention_mask": real}
        logits = logits_of(functional_call(module, _values(network), args=(), kwargs=given))
    return logits


def _stacked(
    network: LogitsComparison, texts: Sequence[Tensor], padding: int, leaf: str | None = None, *, left: bool = False
) -> Tensor:
    """The logits of texts, padded by some tokens, in a lane under vmap; with a gradient to the parameter `leaf`."""
    module: Any = network.module
    view = {name: value[None] for name, value in _values(network).items()}
    if leaf is not None:
        view[leaf].requires_grad_()
    if any(".lora_" in name for name in view):
        view[methods.LORA_SCALE] = torch.ones(1, device=next(iter(view.values())).device)
    ids, lengths = _padded(texts, _width(network, texts, padding), _padding_token(module), left=left)
    given = {name: value[None] for name, value in network.inputs(ids, lengths, None, left=left).items()}

    def call(view: dict[str, Tensor], given: dict[str, Tensor]) -> Tensor:
        return logits_of(functional_call(module, methods.given(view), args=(), kwargs=given))

    logits: Tensor = vmap(call)(view, given)[0]
    if leaf is not None:
        torch.autograd.grad(logits.sum(), view[leaf], allow_unused=True)
    return logits.detach()


def _trained(network: LogitsComparison, texts: Sequence[Tensor]) -> Tensor:
    """The logits in training mode, dropping nothing, and a gradient through all layers that is thrown away."""
    network.module.train()
    values = network.initialised(torch.Generator().manual_seed(0))
    # The lowest of the small ones: all layers lie above it, and it costs no second copy of the weights.
    leaf = next((name for name, value in values.items() if value.dim() == 1), next(iter(values)))
    with _precisely(network.module), _DropNothing():
        return _stacked(network, texts, _PADDED, leaf)


class _DropNothing(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func is F.dropout else func(*args, **(kwargs or {}))


@contextmanager
def _as_evaluated(module: Any) -> Iterator[None]:
    module.eval()
    try:
        with _precisely(module):
            yield
    finally:
        module.train()


@contextmanager
def _precisely(module: Any) -> Iterator[None]:
    """In full float32 and with narrow windows, drawing from no stream that anyone reads."""
    config, precision = module.config, torch.get_float32_matmul_precision()
    wide = {name: width for name, width in _windows(config).items() if width > _WIDEST}
    torch.set_float32_matmul_precision("highest")
    try:
        for name in wide:
            setattr(config, name, _NARROW)
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
        for name, width in wide.items():
            setattr(config, name, width)


# ------------------------------------------------------------------------------------------------------------ texts


def _windows(config: Any) -> dict[str, int]:
    """The widths of its layers' windows of attention by the setting's name, in tokens."""
    widths = {name: getattr(config, name, None) for name in _WINDOWS}
    return {name: width for name, width in widths.items() if isinstance(width, int)}


def _texts(module: Any, positions: int | None) -> tuple[Tensor, ...]:
    """Texts of some tokens each, the longest last, that begin and end as the model's texts do."""
    config = module.config
    windows = [width if width <= _WIDEST else _NARROW for width in _windows(config).values()]
    lengths = [*_SHORT, max(_LONG, max(windows, default=0) + _BEYOND)]
    device = next(module.parameters()).device
    words, pad = _vocabulary(module), _padding_token(module)
    texts = []
    for number, length in enumerate(lengths):
        ids = (torch.arange(length) * 37 + 11 * number + 1) % words
        for position, name in ((0, "bos_token_id"), (-1, "eos_token_id")):
            token = getattr(config, name, None)
            if isinstance(token, int) and 0 <= token < words:
                ids[position] = token
        ids[ids == pad] = (pad + 1) % words
        texts.append(ids[: positions or length].to(device))
    return tuple(texts)


def _vocabulary(module: Any) -> int:
    try:
        words = module.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        words = None
    weight = getattr(words, "weight", None)
    return 64 if weight is None else len(weight)


def _padding_token(module: Any) -> int:
    token = getattr(module.config, "pad_token_id", None)
    return token if isinstance(token, int) else 0


def _width(network: LogitsComparison, texts: Sequence[Tensor], padding: int) -> int:
    width = max(map(len, texts)) + padding
    return width if network.positions is None else min(width, network.positions)


def _padded(texts: Sequence[Tensor], width: int, pad: int, *, left: bool = False) -> tuple[Tensor, Tensor]:
    """Token ids [B, width], and how many of each text are real [B]."""
    missing = [width - len(text) for text in texts]
    sides = [(count, 0) if left else (0, count) for count in missing]
    ids = torch.stack([F.pad(text, side, value=pad) for text, side in zip(texts, sides, strict=True)])
    return ids, torch.tensor([len(text) for text in texts], device=ids.device)


# ------------------------------------------------------------------------------------------------------- what differs


def _difference(reference: Reference, logits: Tensor, texts: Sequence[Tensor], *, left: bool = False) -> float:
    """The largest difference between the texts' logits [B, C], of tokens [B, T, C], over the largest of them all.

    NaN where none is finite, as with weights that are NaN; infinite where one of the two alone is.
    """
    scale = _worst([float(expected_logits.abs().max()) for expected_logits in reference.logits])
    known = {id(text): expected for text, expected in zip(reference.texts, reference.logits, strict=True)}
    apart = []
    for text, own in zip(texts, logits, strict=True):
        expected = known[id(text)].to(own.device)
        own = own[-len(expected) :] if left else own[: len(expected)]
        same = torch.equal(own.isnan(), expected.isnan())
        difference = float((own - expected).abs().max()) / (scale or 1.0)
        apart.append(difference if same else math.inf)
    return _worst(apart)


def _worst(values: Sequence[float]) -> float:
    """The largest of those that are numbers; NaN where none is."""
    return max((value for value in values if not math.isnan(value)), default=math.nan)


def _reason(error: Exception) -> str:
    """What an error says first, which is all that a person can use of what torch says of vmap."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line.partition('. ')[0]}"[:160] if line else type(error).__name__


def _refused(module: Any, problem: str) -> ModelRefusedError:
    return ModelRefusedError(f"models of the type '{module.config.model_type}' cannot be trained: {problem}", fix=_FIX)
