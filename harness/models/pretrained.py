"""Model name or folder -> a pretrained encoder whose classifier head is drawn afresh for every lane."""

from __future__ import annotations

import copy
import hashlib
import inspect
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.common import hub, loading
from harness.config.recipe import Method, ModelSpec
from harness.data import vocabulary
from harness.models import logits_check, masks, methods, multiple_choice, normalisation
from harness.models.logits_check import Reference
from harness.models.model_files import config_sha256
from harness.records.record import LogitsCheck

# N(0, 0.02), as BERT's own initialisation (Devlin et al. 2019) and the study's head (Mosbach et al. 2021).
HEAD_STD = 0.02
# These count positions from behind the padding token's index.
_OFFSET_POSITIONS = (
    *("roberta", "xlm-roberta", "camembert", "mpnet", "longformer", "data2vec-text", "ibert", "roberta-prelayernorm"),
    *("xlm-roberta-xl", "xmod", "esm"),
)
# Heads that read the last real token go by this name, but for these kinds'.
_LAST_TOKEN_HEAD, _LAST_TOKEN = "score", ("ctrl", "modernbert-decoder")
_FULL = Method()
# transformers' classes by a task's kind, where it is not one label a text.
_CLASSIFIER = "AutoModelForSequenceClassification"
_AUTO_MODELS = {
    "tokens": "AutoModelForTokenClassification",
    "completion": "AutoModelForCausalLM",
    "choice": "AutoModelForMultipleChoice",
    "span": "AutoModelForQuestionAnswering",
}


@dataclass(frozen=True)
class Network:
    """A pretrained network as a function of the parameters that its method trains.

    `module` gives the shapes of the computation and the values of what is not trained, `pretrained` the float32 values
    of every trained parameter by name in the module's order, `head` the names that are drawn afresh for each trial,
    `drawn` how the parts that the method put in are, `sha256` a hash of all pretrained values, trained or not.
    """

    module: nn.Module
    pretrained: dict[str, Tensor]
    head: tuple[str, ...]
    sha256: str
    config_sha256: str | None  # as `model_files.config_sha256` gives it
    mask: masks.Kind
    takes_token_types: bool
    positions: int | None  # the longest text it can read, in tokens
    causal: bool = False  # whether the head reads the last real token
    virtual: int = 0  # positions that a prompt takes before the text
    drawn: dict[str, methods.Draw] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # what a person is told of the checkpoint
    # Matrices that are not trained but multiplied with, by name.
    frozen: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)
    # What transformers' own call gives, and how far this network's logits were from that.
    reference: Reference | None = field(default=None, repr=False, compare=False)
    logits_check: LogitsCheck | None = field(default=None, compare=False)
    # Of `replay`, by what is recorded; None where it can't be. And how often that was called before.
    recordings: dict[object, Any] = field(default_factory=dict, repr=False, compare=False)
    calls: Counter[object] = field(default_factory=Counter, repr=False, compare=False)
    # Of `compiled`, likewise; a text says why there is none.
    compiled: dict[object, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        return sum(value.numel() for value in self.pretrained.values())

    @property
    def all_parameters(self) -> int:
        """How many numbers there are, trained or not."""
        return sum({value.data_ptr(): value.numel() for value in self.module.parameters()}.values())

    def initialised(self, generator: torch.Generator) -> dict[str, Tensor]:
        """All trained parameters on the CPU, the head from N(0, 0.02): weights from `generator`, biases 0, scales 1.

        The head is drawn first and in the module's order, so one seed gives one head whatever the device, the pack or
        the method; then come the method's own parts, in that order too.
        """
        values = dict(self.pretrained)
        scales = normalisation.scales(self.module)
        for name in self.head:
            shape = values[name].shape
            if len(shape) > 1 and name not in scales:
                values[name] = torch.empty(shape).normal_(0.0, HEAD_STD, generator=generator)
            else:
                values[name] = torch.full(shape, scales.get(name, 0.0))
        for name, draw in self.drawn.items():
            values[name] = draw(torch.empty(values[name].shape), generator)
        return values

    def inputs(
        self, input_ids: Tensor, lengths: Tensor, token_type_ids: Tensor | None, *, left: bool = False
    ) -> dict[str, Tensor]:
        """Keyword arguments of the module for input_ids [..., T] and lengths [...] (real tokens of each row).

        With `left` the padding stands before the tokens, whose positions then count from the first of them.
        """
        if self.virtual:
            before = (self.virtual, 0)
            config: Any = self.module.config
            input_ids = F.pad(input_ids, before, value=int(config.pad_token_id == 0))  # any word but padding
            token_type_ids = None if token_type_ids is None else F.pad(token_type_ids, before)
            lengths = lengths + self.virtual
        mask = masks.mask(self.mask, lengths, input_ids.shape[-1], left=left)
        given = {"input_ids": input_ids, "attention_mask": mask}
        if left:
            first = input_ids.shape[-1] - lengths[..., None]
            given["position_ids"] = (torch.arange(input_ids.shape[-1], device=first.device) - first).clamp(min=0)
        if self.takes_token_types:
            given["token_type_ids"] = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        return given


def tokenizer(spec: ModelSpec) -> Any:
    """The model's own tokenizer; raises HarnessError when it can't be had."""
    hub.check_model(spec)
    hub.prepare()
    from transformers import AutoTokenizer

    folder = Path(hub.location(spec))
    bare = folder.is_dir() and not vocabulary.has_files(folder)
    try:
        loaded_tokenizer = loading.loaded("tokenizer", spec, AutoTokenizer.from_pretrained)
    except Exception as error:  # each family's class fails in its own way without a vocabulary
        if bare and not isinstance(error.__cause__, ImportError):
            raise vocabulary.missing(str(folder)) from None
        raise
    if vocabulary.is_empty(loaded_tokenizer):
        raise vocabulary.missing(hub.location(spec))
    vocabulary.check_kind(loaded_tokenizer, hub.folder_of(spec))
    if (
        loaded_tokenizer.pad_token_id is None and loaded_tokenizer.eos_token_id is not None
    ):  # decoders are shipped without one
        loaded_tokenizer.pad_token = loaded_tokenizer.eos_token
    return loaded_tokenizer


def network(spec: ModelSpec, num_labels: int, method: Method = _FULL, *, kind: str = "texts") -> Network:
    """The pretrained network with `num_labels` outputs a text, in float32 on the CPU; 1 output is a regression.

    The head is that of a task's `kind`: for `tokens` there are as many for each token. Raises HarnessError when the
    model can't be had, has no such head, or not what the method needs.
    """
    known = _networks(spec, num_labels, kind)
    if method not in known:
        known[method] = _adapted(known[_FULL], method)
    return known[method]


def kept(folder: Path, *, kind: str = "texts") -> Any:
    """The network of a whole model's folder with the head of a task's kind that lies there, in float32, to be asked."""
    spec = ModelSpec(name=folder.name, folder=str(folder))
    hub.check_model(spec)
    hub.prepare()
    auto = _auto_model(kind)
    with loading.quiet():
        module, info = loading.loaded(
            "weights",
            spec,
            lambda source, **trust: auto.from_pretrained(
                source, **trust, dtype=torch.float32, ignore_mismatched_sizes=True, output_loading_info=True
            ),
            _wanted(kind),
        )
    loading.check_whole(spec.name, module, info)
    if kind == "choice":
        multiple_choice.read_singly(module)
    return module.eval()


@lru_cache(maxsize=4)
def check_left(spec: ModelSpec, outputs: int, kind: str) -> None:
    """Raise HarnessError for a model that texts padded on the left change."""
    full = network(spec, outputs, kind=kind)
    if full.reference is not None:
        logits_check.check_left(full, full.reference)


def outputs(kind: str, num_labels: int) -> int:
    """How many outputs the network of a task has beside those that its kind has by itself.

    A product with a single column takes another kernel when a lane is alone, whose last bits differ; so the head of a
    regression has a second output that nothing reads. A language model has one for every token.
    """
    return 0 if kind == "completion" else max(2, outputs_read(kind, num_labels))


def outputs_read(kind: str, num_labels: int) -> int:
    """How many of these a task reads; of multiple choice one a sequence, whatever the number of choices."""
    return 1 if kind == "choice" else num_labels


def check(spec: ModelSpec, method: Method, kind: str = "texts", absent: tuple[str, int] | None = None) -> None:
    """Raise HarnessError for a kind of task that the model has no head for, and a method that it has not the parts for.

    The weights are read only where LoRA is put outside the layers alone, where a checkpoint may lack them.

    Args:
        spec: The model.
        method: How it is to be trained.
        kind: The kind of the task.
        absent: Of a model that is not on this machine its type, as transformers calls it, and its layers.
    """
    if method == _FULL and kind == "texts":
        return
    hub.prepare()
    from transformers import AutoConfig

    auto = _auto_model(kind)
    if absent is None:
        config = loading.loaded("configuration", spec, AutoConfig.from_pretrained)
    else:
        config = AutoConfig.for_model(absent[0], num_hidden_layers=absent[1])
    with torch.device("meta"), loading.quiet():
        if absent is None:
            module = loading.loaded(
                "configuration", spec, lambda source, **trust: auto.from_config(config, **trust), _wanted(kind)
            )
        else:
            module = auto.from_config(config)
        if kind == "choice":
            multiple_choice.prepare(spec.name, module)
        if kind == "completion":
            logits_check.refuse_encoders(module)
        _, drawn = methods.adapt(module, method, ())
    if absent is None and method.lora_targets is not None and not any(re.search(r"\.\d+\.", name) for name in drawn):
        network(spec, 2, method, kind=kind)


def _adapted(full: Network, method: Method) -> Network:
    """A network that trains by another method, with the frozen values of the full one."""
    known = {id(value): full.pretrained[name] for name, value in full.module.named_parameters()}
    shared: dict[int, Any] = {id(value): value for value in full.module.parameters()}
    module = copy.deepcopy(full.module, shared)
    _untie(module)
    with torch.random.fork_rng(devices=[]):  # peft draws values of its own, which are thrown away
        trained, drawn = methods.adapt(module, method, full.head)
    module.requires_grad_(False)
    module.train()
    parameters = dict(module.named_parameters())
    lookups = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    positions = None if full.positions is None else full.positions - method.virtual_positions
    adapted = replace(
        full,
        module=module,
        pretrained={
            name: known.get(id(value), value.detach()) for name, value in parameters.items() if name in trained
        },
        positions=positions,
        virtual=method.virtual_positions,
        drawn=drawn,
        frozen={
            name: value
            for name, value in parameters.items()
            if name not in trained and value.dim() > 1 and id(value) not in lookups
        },
        recordings={},
        calls=Counter(),
        compiled={},
    )
    if full.reference is not None and methods.keeps_logits(method):
        adapted = replace(adapted, logits_check=logits_check.check(adapted, full.reference))
    return adapted


def _untie(module: Any) -> None:
    """Give the outputs of a language model a parameter of their own, with the words' values in the same memory.

    So they are among the frozen matrices that each lane multiplies with by itself, which lookups are not.
    """
    words, outputs = module.get_input_embeddings(), module.get_output_embeddings()
    if outputs is not None and getattr(outputs, "weight", None) is getattr(words, "weight", words):
        outputs.weight = nn.Parameter(words.weight.detach(), requires_grad=False)


@lru_cache(maxsize=2)  # a worker trains pack after pack of the same model
def _networks(spec: ModelSpec, num_labels: int, kind: str) -> dict[Method, Network]:
    """The networks of a model by method; full fine-tuning's is always there, and the others share its frozen values."""
    return {_FULL: _pretrained(spec, num_labels, kind)}


def _auto_model(kind: str) -> Any:
    """transformers' class of networks with the head of a task's kind."""
    import transformers

    return getattr(transformers, _AUTO_MODELS.get(kind, _CLASSIFIER))


def _wanted(kind: str) -> str:
    """What a model has to be for a task's kind, for errors."""
    network = "a decoder" if kind == "completion" else "an encoder"
    return f"{network} that transformers' {_AUTO_MODELS.get(kind, _CLASSIFIER)} knows"


def _pretrained(spec: ModelSpec, num_labels: int, kind: str) -> Network:
    hub.check_model(spec)
    hub.prepare()
    auto, outputs = _auto_model(kind), {} if kind == "completion" else {"num_labels": num_labels}
    with loading.quiet(), torch.random.fork_rng(devices=[]):  # it draws a head of its own, which is thrown away
        module, info = loading.loaded(
            "weights",
            spec,
            lambda source, **trust: auto.from_pretrained(
                source,
                **trust,
                **outputs,
                dtype=torch.float32,
                attn_implementation="eager",
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            ),
            _wanted(kind),
        )
    _keep_all_layers(module)
    of_choices = multiple_choice.prepare(spec.name, module) if kind == "choice" else frozenset()
    module.requires_grad_(False)
    module.train()
    pretrained = {name: value.detach().clone() for name, value in module.named_parameters()}
    if kind == "completion":  # nothing is drawn afresh: every weight must be there
        loading.check_whole(spec.name, module, info)
        drawn: frozenset[str] = frozenset()
    else:
        loading.check(spec.name, module, info)
        drawn = (loading.span_head if kind == "span" else loading.head)(module, info) | of_choices
    head = tuple(name for name in pretrained if name in drawn)
    digest = hashlib.sha256()
    for name, value in pretrained.items():
        if name not in head:
            digest.update(f"{name}{tuple(value.shape)}".encode())
            digest.update(value.contiguous().numpy().tobytes())
    last_token = hasattr(module, _LAST_TOKEN_HEAD) or module.config.model_type in _LAST_TOKEN
    causal = kind == "completion" or last_token
    if causal or kind == "span":
        module.config.use_cache = False
    if causal:
        module.config.pad_token_id = tokenizer(spec).pad_token_id
    takes = "token_type_ids" in inspect.signature(module.forward).parameters
    types = getattr(module.config, "type_vocab_size", 0) or 0
    takes = takes and types > 0
    mask, positions = masks.kind_of(module.config), longest(module.config)
    loaded_network = Network(
        module, pretrained, head, digest.hexdigest(), config_sha256(spec), mask, takes, positions, causal,
        notes=loading.unused(spec.name, info),
    )  # fmt: skip
    if kind == "completion":
        logits_check.refuse_looking_ahead(loaded_network)
    reference = logits_check.reference(loaded_network)
    _read_padding(module)
    loaded_network = replace(loaded_network, reference=reference)
    return replace(loaded_network, logits_check=logits_check.check(loaded_network, reference))


def _keep_all_layers(module: nn.Module) -> None:
    """Have no layer dropped at random: transformers would drop it for a whole batch, not for a lane.

    Some versions draw for that in training also where the rate is 0, so what holds the layers stays in
    evaluation. That changes no dropout, which the lanes' masks decide alone.
    """

    def train(self: nn.Module, mode: bool = True) -> nn.Module:
        type(self).train(self, mode)
        self.training = False
        return self

    part: Any
    for part in module.modules():
        if hasattr(part, "layerdrop"):
            part.layerdrop = 0.0
            part.train = MethodType(train, part)


def _read_padding(module: nn.Module) -> None:
    """Have the padding token's vector trained like any other.

    Under vmap it would get no gradient in lane 0 and one in the others. With the mask the gradient of the positions
    that are padding is zero anyhow.
    """
    part: Any
    for part in module.modules():
        if "weight" in part._parameters and hasattr(part, "padding_idx"):  # nn.Embedding, and I-BERT's
            part.padding_idx = None


def longest(config: Any) -> int | None:
    """How many tokens a model of that configuration can read; None where there is no bound."""
    positions: int | None = getattr(config, "max_position_embeddings", None)
    if positions is None or positions < 1:  # XLNet's -1
        return None
    if config.model_type in _OFFSET_POSITIONS and getattr(config, "position_embedding_type", "") != "rotary":
        positions -= config.pad_token_id + 1
    if getattr(config, "attention_type", None) == "block_sparse":  # of longer texts BigBird draws what it reads
        positions = min(positions, (5 + 2 * config.num_random_blocks) * config.block_size)
    return positions
