"""What is compared: a sweep file becomes cells (recipes) and trials (a recipe and its seeds); pure, without torch."""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

Scalar = str | int | float | bool | None
Metric = Literal["accuracy", "f1", "matthews_correlation", "pearson", "spearman", "f1_macro", "f1_micro", "f1_entity"]
BaselineName = Literal["majority", "tfidf_logistic", "tfidf_lightgbm"]
SEED_FIELDS = ("seed", "init_seed", "order_seed", "dropout_seed")
MAX_SEED = 2**63 - 1
MOST = 100_000  # trials of a sweep; more is a slip of the pen, and would fill the memory before it is noticed


class HarnessError(ValueError):
    """Bad input, said in one line: the rule, the value received, what is allowed and what to do next."""

    def __init__(self, rule: str, *, got: object, allowed: str, fix: str) -> None:
        """Keep the four parts; `str()` of the error is the line a person sees."""
        self.rule, self.got, self.allowed, self.fix = rule, got, allowed, fix
        super().__init__(" ".join(f"{rule}: got {got}; allowed: {allowed}; {fix}".split()))


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class TaskFiles(_Frozen):
    """Local data files, .tsv, .csv, .jsonl, .json or .parquet; relative paths start at the working directory.

    `validation` is None where a share of the training file is the dev split (`task.validation`).
    `test` is scored once, with the weights that a result is of, and chooses nothing. A folder that is named for all
    has none: GLUE's are without labels.
    """

    train: str
    validation: str | None = None
    test: str | None = None


def _files(value: object) -> object:
    if isinstance(value, str):  # a folder: which of its files are meant is found when they are read
        return {"train": value, "validation": value}
    return value


def _named(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


def _model(value: object) -> object:
    if isinstance(value, str) and value.startswith((".", "/", "~")):
        return {"name": Path(value).name, "folder": value}
    return _named(value)


class TaskSpec(_Frozen):
    """Which data: a GLUE name, `embedded`, or files of one's own described by their columns.

    Its `kind` is what has a label: a text (or a pair of texts), or each word of it, for finding entities.
    `name` and everything that changes what is learned or scored is part of a trial's identity; `files` (where the
    data lie on this machine) is not: a record keeps the hash of the bytes instead. Nor is `allow_unknown`.
    """

    name: str = Field(min_length=1)
    files: Annotated[TaskFiles | None, BeforeValidator(_files)] = None
    text: str | int | None = None
    text_pair: str | int | None = None
    label: str | int | None = None
    header: bool | None = None
    quoting: Literal["none", "csv"] | None = None
    metric: Metric | None = None
    kind: Literal["texts", "tokens"] = "texts"
    # The share of the training file that is the dev split, and which one: see `holdout.chosen`.
    validation: float | None = Field(default=None, gt=0, lt=1, allow_inf_nan=False)
    validation_seed: int = Field(default=0, ge=0, le=MAX_SEED)
    allow_unknown: bool = False  # train although most tokens are unknown to the tokenizer


class ModelSpec(_Frozen):
    """Which pretrained encoder: a hub name or `embedded`; `folder` says where its files lie on this machine."""

    name: str = Field(min_length=1)
    folder: str | None = None


class WordList(_Frozen):
    """Words and their synonyms; `file` says where they lie on this machine: a line a word, `word<tab>synonym<tab>…`."""

    name: str = Field(min_length=1)
    file: str = Field(min_length=1)


def _word_list(value: object) -> object:
    return {"name": Path(value).stem or value, "file": value} if isinstance(value, str) else value


Spec = TaskSpec | ModelSpec | WordList
# Fields that are told by a name, or by a name and where the files lie; and how a name alone is read.
_BY_NAME: dict[str, Callable[[object], object]] = {
    "task": _named,
    "model": _model,
    "synonyms": _word_list,
    "translator": _model,
    "back_translator": _model,
}
_OF_METHODS = {
    "top_layers": ("top_layers",),
    "lora_rank": ("lora",),
    "lora_alpha": ("lora",),
    "lora_targets": ("lora",),
    "virtual_tokens": ("prefix", "prompt"),
    "adapter_size": ("adapter",),
}


class Method(NamedTuple):
    """Which parameters are trained and which are put in: all of it decides the shapes of the computation."""

    name: str = "full"
    top_layers: int | None = None
    lora_rank: int = 8
    lora_targets: str | None = None
    virtual_tokens: int = 20
    adapter_size: int = 64


class Recipe(_Frozen):
    """The hyperparameters of a training run, without its seed; defaults are those of Mosbach et al. (2021) for BERT.

    A default must never change once released: ids hash the fields that differ from it.
    """

    task: Annotated[TaskSpec, BeforeValidator(_named)]
    model: Annotated[ModelSpec, BeforeValidator(_model)]
    lr: float = Field(gt=0, allow_inf_nan=False)
    bias_correction: bool = True
    epochs: int = Field(ge=1)
    batch_size: int = Field(default=16, ge=1)
    eval_batch_size: int = Field(default=100, ge=1)
    max_length: int = Field(default=128, ge=2)
    padding: Literal["dataset", "batch"] = "dataset"
    token_type_ids: bool = False
    warmup_ratio: float = Field(default=0.1, ge=0, le=1, allow_inf_nan=False)
    weight_decay: float = Field(default=0.01, ge=0, allow_inf_nan=False)
    beta1: float = Field(default=0.9, ge=0, lt=1, allow_inf_nan=False)
    beta2: float = Field(default=0.999, ge=0, lt=1, allow_inf_nan=False)
    eps: float = Field(default=1e-6, gt=0, allow_inf_nan=False)
    max_grad_norm: float | None = Field(default=1.0, gt=0, allow_inf_nan=False)
    # Of all places alike, as in the paper; `model`: each place at the rate that the model's configuration gives it.
    dropout: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] | Literal["model"] = 0.1
    precision: Literal["float32", "tf32", "bf16"] = "float32"
    eval_steps: int | None = Field(default=None, ge=1)
    # Remedies and schedules; each default means "as without it".
    schedule: Literal["linear", "constant", "cosine", "polynomial", "inverse_sqrt"] = "linear"
    schedule_power: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    schedule_end: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    layerwise_lr_decay: float = Field(default=1.0, gt=0, le=1, allow_inf_nan=False)
    reinit_layers: int = Field(default=0, ge=0)
    mixout: float = Field(default=0.0, ge=0, lt=1, allow_inf_nan=False)
    pretrained_decay: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, allow_inf_nan=False)
    freeze_steps: int = Field(default=0, ge=0)
    unfreeze_every: int | None = Field(default=None, ge=1)
    max_grad_value: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    clip_per_tensor: bool = False
    gradient_accumulation: int = Field(default=1, ge=1)
    max_steps: int | None = Field(default=None, ge=1)
    eval_every: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False)
    early_stopping_patience: int | None = Field(default=None, ge=1)
    early_stopping_on: Literal["loss", "score"] = "loss"
    keep_best: bool = False
    averaging: Literal["none", "ema", "last"] = "none"
    ema_decay: float = Field(default=0.999, ge=0, lt=1, allow_inf_nan=False)
    average_last: int = Field(default=3, ge=1)
    optimizer: Literal["adamw", "sgd", "lamb", "adafactor"] = "adamw"
    momentum: float = Field(default=0.9, ge=0, lt=1, allow_inf_nan=False)
    # `on` divides the weighted sum by the batch's size, `balanced` by the sum of its weights, as F.cross_entropy does.
    class_weights: bool | Literal["balanced"] = False
    oversample: bool = False
    method: Literal["full", "head", "top_layers", "lora", "prefix", "prompt", "ia3", "adapter", "bitfit"] = "full"
    top_layers: int | None = Field(default=None, ge=1)
    lora_rank: int = Field(default=8, ge=1)
    lora_alpha: float = Field(default=16.0, gt=0, allow_inf_nan=False)
    lora_targets: str | None = Field(default=None, min_length=1)  # comma separated ends of names; None: query and value
    virtual_tokens: int = Field(default=20, ge=1)
    # One would be a product with a single column, which takes another kernel when a lane is alone.
    adapter_size: int = Field(default=64, ge=2)
    # Changed copies of the training examples (Wei & Zou 2019), and mixtures of them (Zhang et al. 2018).
    augment: Literal["none", "swap", "delete", "insert", "synonyms", "backtranslate"] = "none"
    augment_rate: float = Field(default=0.1, gt=0, le=1, allow_inf_nan=False)
    augment_copies: int = Field(default=1, ge=1)
    synonyms: Annotated[WordList | None, BeforeValidator(_word_list)] = None
    translator: Annotated[ModelSpec | None, BeforeValidator(_model)] = None
    back_translator: Annotated[ModelSpec | None, BeforeValidator(_model)] = None
    mixup: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    # Noise on the words' embeddings (Jain et al. 2023), and two passes that are to agree (Wu et al. 2021).
    neftune_alpha: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    r_drop: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    pad_to_multiple_of: int = Field(default=1, ge=1)  # as wide as some kernels are fast: 8 in bf16, 16 on AVX-512

    def heeds(self, name: str) -> bool:
        """Whether a field decides anything here; a setting of another method does not."""
        return self.method in _OF_METHODS.get(name, (self.method,))

    def sets(self, name: str) -> bool:
        """Whether a field says more than its default does: it differs, or belongs to the method that was chosen."""
        own = self.method in _OF_METHODS.get(name, ())
        return own or bool(getattr(self, name) != Recipe.model_fields[name].default)

    @property
    def trains(self) -> Method:
        """Its method, with what decides shapes."""
        own = (self.top_layers, self.lora_rank, self.lora_targets, self.virtual_tokens, self.adapter_size)
        return Method(self.method, *own)

    @property
    def shape(self) -> tuple[object, ...]:
        """What the trials of one pack have in common: all that decides tensor shapes, kernels and the steps."""
        width = (self.max_length, self.padding, self.pad_to_multiple_of)
        lengths = (self.epochs, self.batch_size, self.eval_batch_size, *width, self.eval_steps)
        steps = (self.max_steps, self.eval_every, self.gradient_accumulation, self.oversample)
        noise = (self.mixup > 0, self.neftune_alpha > 0, self.r_drop > 0)
        kernels = (self.optimizer, self.soft_targets, self.copies, *noise)
        return (self.task, self.model, self.token_type_ids, self.precision, *lengths, *steps, *kernels, self.trains)

    @property
    def copies(self) -> int:
        """Changed copies of each training example beside it."""
        return 0 if self.augment == "none" else self.augment_copies

    @property
    def passes(self) -> int:
        """What the time it takes is in proportion to: how often it goes through as many examples as the data have."""
        return self.epochs * (1 + self.copies) * self.forward_passes

    @property
    def forward_passes(self) -> int:
        """How often a step passes through its batch."""
        return 2 if self.r_drop > 0 else 1

    @property
    def specs(self) -> tuple[Spec, ...]:
        """All that it reads from a disk."""
        augmenting = (self.synonyms, self.translator, self.back_translator)
        return (self.task, self.model, *(spec for spec in augmenting if spec is not None))

    @property
    def soft_targets(self) -> bool:
        """Whether the loss is taken against a target for each class instead of the class itself."""
        return self.label_smoothing > 0 or bool(self.class_weights)

    @property
    def drops(self) -> bool:
        """Whether there is dropout, or may be: a model's own rates are known when it is loaded."""
        return self.dropout == "model" or self.dropout > 0

    @property
    def chooses(self) -> bool:
        """Whether evaluations decide when training stops or which of them is kept."""
        return self.early_stopping_patience is not None or self.keep_best


class Seeds(_Frozen):
    """The four seeds of a trial: `seed` names it, the other three drive head, data order and dropout."""

    seed: int = Field(ge=0, le=MAX_SEED)
    init_seed: int = Field(ge=0, le=MAX_SEED)
    order_seed: int = Field(ge=0, le=MAX_SEED)
    dropout_seed: int = Field(ge=0, le=MAX_SEED)


class Cell(_Frozen):
    """One recipe of a sweep and where it stands on the sweep's axes, as (axis, value) pairs in the file's order."""

    axes: tuple[tuple[str, Scalar], ...]
    recipe: Recipe

    @property
    def label(self) -> str:
        """`lr 2e-5, bias correction on, epochs 3`; `the only recipe` in a sweep without axes."""
        return name_cell(self.axes)


class Trial(_Frozen):
    """One training run: a recipe and its seeds, and the place of its cell in the sweep."""

    recipe: Recipe
    seeds: Seeds
    cell: int = Field(ge=0)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Trial:
        """A copy with other fields, without the id of the original."""
        copy = super().model_copy(update=update, deep=deep)
        vars(copy).pop("id", None)
        return copy

    @cached_property
    def id(self) -> str:
        """A readable slug and eight hex digits over every field that decides the result.

        The slug holds the same fields in every sweep, and fields at their default are left out of the hash, so that
        neither a new axis nor a new field of `Recipe` orphans trained trials.
        """
        recipe, seeds = self.recipe, self.seeds
        decisive = recipe.model_dump(exclude_defaults=True)
        for name in _BY_NAME:
            if isinstance(spec := decisive.get(name), dict):
                for no_part in ("files", "folder", "file", "allow_unknown"):  # what doesn't decide the result
                    spec.pop(no_part, None)
        decisive["seeds"] = [seeds.init_seed, seeds.order_seed, seeds.dropout_seed]
        digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:8]
        drivers = (seeds.init_seed, seeds.order_seed, seeds.dropout_seed)
        which = f"seed{seeds.seed}" if set(drivers) == {seeds.seed} else "init{}-order{}-dropout{}".format(*drivers)
        correction = "bc" if recipe.bias_correction else "nobc"
        return f"lr{show(recipe.lr)}-{correction}-ep{recipe.epochs}-{which}-{digest}"


class Range(_Frozen):
    """What a search may set one field of a recipe to: a number from `low` to `high`, or one of `choices`.

    `log`: evenly in the logarithm; `step`: only low, low + step, …. With `when` the field is searched only where the
    fields named there, which stand before it in the space, have one of the values; elsewhere it stays as it is.
    """

    field: str
    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    step: int | float | None = None
    choices: tuple[Scalar, ...] = ()
    when: tuple[tuple[str, tuple[Scalar, ...]], ...] = ()
    otherwise: Scalar = None  # its value where a condition does not hold

    @property
    def values(self) -> tuple[Scalar, ...] | None:
        """All values there are, in their order; None where they are continuous."""
        if self.choices or self.low is None or self.high is None:
            return self.choices
        step = self.step or (1 if isinstance(self.low, int) else None)
        if step is None or self.log:
            return None if isinstance(self.low, float) else tuple(range(int(self.low), int(self.high) + 1))
        count = int((self.high - self.low) / step + 1e-9)  # 0.3 / 0.1 lies below 3
        return tuple(neat(self.low + number * step, self) for number in range(count + 1))


class Pruner(_Frozen):
    """Which recipes a search stops in mid-training, by Optuna's pruner of that name; a step is 1 % of the training.

    Nothing is stopped before `n_warmup_steps` and before the warm-up of the learning rate is over, nor before
    `n_majority_steps` while a run has not yet risen above the majority classifier: a late riser is no failed run. Of
    the runs of `rte_lr`, embedded, that learned, 7 % rose after half of their training and 1 % after three quarters.
    """

    name: Literal["median", "percentile", "successive_halving", "hyperband", "patient"]
    n_startup_trials: int = Field(default=5, ge=0)  # recipes that must have finished before one is stopped
    n_warmup_steps: int = Field(default=50, ge=1, le=100)
    n_majority_steps: int = Field(default=75, ge=1, le=100)
    interval_steps: int = Field(default=5, ge=1, le=50)  # between two looks
    percentile: float = Field(default=25.0, gt=0, lt=100)  # the best so many per cent go on
    reduction_factor: int = Field(default=3, ge=2)  # one of so many goes on
    patience: int = Field(default=20, ge=1, le=100)  # steps without a better value, then as the median pruner


_OF_PRUNERS = {
    "percentile": ("percentile",),
    "reduction_factor": ("successive_halving", "hyperband"),
    "patience": ("patient",),
}


class Search(_Frozen):
    """How recipes are looked for in a space instead of listed; the sweep's seeds train every one of them."""

    space: tuple[Range, ...]
    recipes: int = Field(default=40, ge=1, le=MOST)
    sampler: Literal["tpe", "random", "grid", "qmc", "nsga2", "cmaes"] = "tpe"
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    objective: Literal["mean", "iqm", "lower_quantile", "mean_minus_sd"] = "mean"
    failing: Literal["constraint", "objective", "ignore"] = "constraint"
    pruner: Pruner | None = None
    best: int = Field(default=3, ge=0)  # so many are confirmed, on fresh seeds
    confirm: tuple[Seeds, ...] = ()


class Sweep(_Frozen):
    """A resolved sweep: one profile, its cells in the order of the axes, and the seeds every cell is trained with."""

    # They name a folder; a plan.json may be a stranger's.
    name: str = Field(pattern=r"^[^/\x00]+$")
    profile: str = Field(pattern=r"^[^/\x00]+$")
    title: str
    stand_in: str | None = None
    source: str | None = None  # the file's text, and what was set beside it, for the report
    baselines: tuple[BaselineName, ...] = ()  # what the cells are to be compared with; part of no trial
    cells: tuple[Cell, ...] = Field(min_length=1)
    seeds: tuple[Seeds, ...] = Field(min_length=1)
    record: bool = True  # what the diagnosis reads: changes no result
    search: Search | None = None  # where cells are looked for; before the first, one cell at the space's largest ends

    @property
    def folder_name(self) -> str:
        """`<sweep>@<profile>`, the name of its results folder."""
        return f"{self.name}@{self.profile}"

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of the axes, in the file's order."""
        return tuple(name for name, _ in self.cells[0].axes)


class Profile(_Frozen):
    """What a sweep file says of one of its profiles: what a machine needs to run it by default."""

    name: str
    min_gpu_gib: float
    model: ModelSpec
    task: TaskSpec


def show(value: object) -> str:
    """A value as people write it: 2e-5, on, off, none."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        plain = f"{value:.12g}"
        mantissa, _, exponent = f"{value:.11e}".partition("e")
        short = f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}" if exponent else plain
        return short if "e" in plain or (0 < abs(value) < 0.01 and len(short) <= len(plain)) else plain
    return str(value)


def so_many(number: int, unit: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{number} {unit}{'' if number == 1 else 's'}"


def name_cell(axes: Sequence[tuple[str, Scalar]]) -> str:
    """A place on the axes in words: `lr 2e-5, bias correction on`; `the only recipe` where there are no axes."""
    return ", ".join(f"{name.replace('_', ' ')} {show(value)}" for name, value in axes) or "the only recipe"


def _said(value: object) -> str:
    """A value in an error, in YAML's words rather than Python's, texts quoted and long ones cut."""
    if value is None:
        words = "nothing"
    elif isinstance(value, list):
        words = f"[{', '.join(map(_said, value[:20]))}{', …' if len(value) > 20 else ''}]" if value else "an empty list"
    elif isinstance(value, dict):
        words = "{" + ", ".join(f"{key}: {_said(inner)}" for key, inner in list(value.items())[:20]) + "}"
    else:
        words = f"'{value}'" if isinstance(value, str) else show(value)
    return words if len(words) <= 100 else words[:99] + "…"


def _same(one: object, other: object) -> bool:
    """Equal as YAML means it: 1 and 1.0 are, 1 and on are not."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


# ---------------------------------------------------------------------------------------------------- reading YAML


_PROSE = ("title", "stand_in")  # whose words may stand in any quotes
_TYPOGRAPHIC = "“”„‟‘’‚‛«»‹›"


def _refuse_typographic(node: yaml.Node | None) -> None:
    """Refuse quotes that a word processor bent: YAML takes them for letters."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_typographic(item)
    elif isinstance(node, yaml.ScalarNode) and node.style is None and node.value[:1] in (*_TYPOGRAPHIC,):
        plain = node.value.strip(_TYPOGRAPHIC)
        raise HarnessError(
            f"quotes are straight (line {node.start_mark.line + 1})",
            got=node.value[:60],
            allowed=f'{plain[:60]}, or "{plain[:60]}"',
            fix="type the quotes anew in a plain text editor",
        )


class _Loader(yaml.SafeLoader):
    """YAML with `1e-5` as a number, and a doubled key as an error instead of a silent overwrite."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Check the keys as they are written, before `<<` merges others in."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, value in node.value:
            place = f"(line {key.start_mark.line + 1})"
            if key.value not in _PROSE:
                _refuse_typographic(value)
            _refuse_typographic(key)
            if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
                raise HarnessError(
                    f"a key is a word {place}",
                    got=f"'{key.value}', which YAML reads as something else" if key.id == "scalar" else f"a {key.id}",
                    allowed="a field's name, or one of your own",
                    fix="put it in quotes" if key.id == "scalar" else "write a word before the colon",
                )
            if key.value in seen:
                raise HarnessError(
                    f"a key stands once in its mapping {place}",
                    got=f"'{key.value}' a second time",
                    allowed="one value, or a list for an axis",
                    fix="merge the two",
                )
            seen.add(key.value)
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)$"),
    list("-+0123456789."),
)

_SWEEP_KEYS = ("title", "stand_in", "min_gpu_gib", "recipes", "seeds", *SEED_FIELDS[1:], "baselines", "record")
_FILTERS = ("include", "exclude")
_KEYS = (*_SWEEP_KEYS, *_FILTERS, "search", *Recipe.model_fields)


def _yaml(text: str, source: str) -> Any:
    """Parse YAML; PyYAML has other errors than its own for dates like 2020-99-99 and lists nested a thousand deep."""
    try:
        return yaml.load(text, _Loader)
    except HarnessError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        said = getattr(error, "problem", None) or getattr(error, "reason", None) or "no such date or number"
        if isinstance(error, RecursionError):
            said = "nested too deep"
        tab = "found character '\\t'" in said
        raise HarnessError(
            f"{source} parses as YAML{where}",
            got="a tab" if tab else f'what the parser calls "{said}"',
            allowed="spaces to indent" if tab else "key: value lines, lists, numbers and words",
            fix="replace the tab by spaces" if tab else "correct it there",
        ) from None


# What transformers, other tools and papers call our keys.
_ALSO_CALLED = {
    "lr": ("learning_rate", "learning_rates", "peak_lr", "max_lr"),
    "epochs": ("num_train_epochs", "num_epochs", "n_epochs", "max_epochs"),
    "max_steps": ("steps", "num_steps", "num_train_steps", "total_steps"),
    "batch_size": ("batch", "bs", "train_batch_size", "per_device_train_batch_size", "per_gpu_train_batch_size"),
    "eval_batch_size": ("per_device_eval_batch_size", "dev_batch_size", "test_batch_size"),
    "max_length": ("max_seq_length", "max_seq_len", "max_len", "sequence_length"),
    "warmup_ratio": ("warmup", "warm_up", "warmup_proportion", "warmup_fraction", "warmup_steps", "num_warmup_steps"),
    "weight_decay": ("wd", "l2", "decay"),
    "beta1": ("adam_beta1",),
    "beta2": ("adam_beta2",),
    "eps": ("adam_epsilon", "adam_eps", "epsilon"),
    "bias_correction": ("correct_bias", "debias", "use_bias_correction"),
    "max_grad_norm": ("clip", "clip_norm", "grad_clip", "gradient_clip_val", "gradient_clipping", "clip_grad_norm"),
    "dropout": ("hidden_dropout_prob", "dropout_prob", "dropout_rate"),
    "precision": ("fp16", "bf16", "tf32", "amp", "mixed_precision", "dtype"),
    "schedule": ("lr_scheduler_type", "lr_scheduler", "scheduler", "lr_schedule"),
    "layerwise_lr_decay": ("llrd", "layer_wise_lr_decay", "lr_decay"),
    "reinit_layers": ("reinit", "reinit_n_layers", "reinitialize"),
    "label_smoothing": ("label_smoothing_factor", "smoothing"),
    "gradient_accumulation": ("gradient_accumulation_steps", "grad_accum", "accumulate_grad_batches"),
    "early_stopping_patience": ("patience", "early_stopping"),
    "keep_best": ("load_best_model_at_end",),
    "optimizer": ("optim", "optimiser"),
    "lora_rank": ("r", "rank", "lora_r"),
    "lora_alpha": ("alpha",),
    "lora_targets": ("target_modules", "lora_target_modules"),
    "method": ("peft", "peft_type", "tuning"),
    "task": ("dataset", "data", "task_name", "dataset_name", "data_dir"),
    "model": ("model_name_or_path", "model_name", "checkpoint", "pretrained_model", "encoder"),
    "seeds": ("seed", "n_seeds", "num_seeds"),
    "profiles": ("profile",),
    "files": ("path", "folder", "dir", "file"),
    "folder": ("path", "dir"),
    "validation": ("dev", "valid", "val", "eval"),
    "text_pair": ("pair", "text2", "sentence2", "hypothesis"),
    "recipes": ("trials", "n_trials"),
}
_MOST_KEYS = 16  # that a line still lists


def _unknown(key: str, allowed: Sequence[str], where: str) -> HarnessError:
    """The error of a key that `where` does not know, with what may be meant by it first."""
    plain = key.lower().replace("-", "_")
    spelt = {name: name for name in allowed}
    spelt |= {other: name for name in allowed for other in _ALSO_CALLED.get(name, ()) if other not in spelt}
    exact = [plain] if plain in spelt else []
    meant = list(dict.fromkeys(spelt[one] for one in (*exact, *difflib.get_close_matches(plain, spelt, n=3))))
    said = ", ".join(allowed)
    if len(allowed) > _MOST_KEYS:
        said = f"{', '.join(meant)}, … (`harness keys` lists all)" if meant else "what `harness keys` lists"
    fix = f"did you mean '{meant[0]}'?" if meant else "remove it or correct its name"
    return HarnessError(f"{where} knows its keys", got=f"'{key}'", allowed=said, fix=fix)


def _mapping(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise HarnessError(
            f"{where} is a mapping", got=_said(value), allowed="key: value lines, or {} for none", fix="write it so"
        )
    return value


def read(path: Path) -> dict[str, Any]:
    """The file's content with its keys checked; raises HarnessError when it is no sweep."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise HarnessError(
            "a sweep file can be read", got=f"{path} ({error.strerror})", allowed="a YAML file", fix="check the path"
        ) from None
    except UnicodeDecodeError:
        raise HarnessError(
            "a sweep file is UTF-8 text", got=f"{path} in another encoding", allowed="UTF-8", fix="save it as UTF-8"
        ) from None
    content = _mapping(_yaml(text, str(path)), f"the sweep file {path}")
    for key in content:
        if key not in (*_KEYS, "profiles"):
            raise _unknown(key, (*_KEYS, "profiles"), path.name)
    for name, profile in _profiles(content).items():
        for key in _mapping(profile, f"profile '{name}'"):
            if key not in _KEYS:
                raise _unknown(key, _KEYS, f"profile '{name}'")
    return content


def _profiles(content: Mapping[str, Any]) -> dict[str, Any]:
    profiles = _mapping(content.get("profiles", {"default": {}}), "'profiles'")
    if not profiles:
        raise HarnessError("profiles has entries", got="none", allowed="name: {…}", fix="add one or drop the key")
    for name in profiles:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            raise HarnessError(
                "a profile's name can name a folder", got=f"'{name}'", allowed="letters, digits, _ . -", fix="rename it"
            )
    return profiles


def profiles(path: Path) -> tuple[Profile, ...]:
    """The profiles of a sweep file, largest first as written; what `execute` needs to choose one for a machine."""
    content = read(path)
    found = []
    for name in _profiles(content):
        sweep = load(path, name)
        gib = _merged(content, name).get("min_gpu_gib", 0)
        if isinstance(gib, bool) or not isinstance(gib, int | float) or not 0 <= gib < float("inf"):
            raise HarnessError(
                "min_gpu_gib is a size in GiB", got=_said(gib), allowed="a number of 0 or more", fix="correct it"
            )
        recipe = sweep.cells[0].recipe
        found.append(Profile(name=name, min_gpu_gib=float(gib), model=recipe.model, task=recipe.task))
    return tuple(found)


def _merged(content: Mapping[str, Any], profile: str) -> dict[str, Any]:
    merged = {key: value for key, value in content.items() if key != "profiles"}
    merged.update(_profiles(content)[profile])
    return merged


def _set(content: dict[str, Any], assignment: str) -> None:
    """Apply one `key=value` of the command line; a dot reaches into `task` and `model`."""
    key, equals, text = assignment.partition("=")
    if not equals or not key:
        raise HarnessError("--set takes key=value", got=f"'{assignment}'", allowed="as lr=2e-5", fix="add the =")
    value = _yaml(text, f"the value of --set {key}")
    if key not in _PROSE:
        _refuse_typographic(yaml.compose(text, yaml.SafeLoader))
    head, _, rest = key.partition(".")
    if head not in _KEYS:
        raise _unknown(head, _KEYS, "--set")
    if "." not in key:
        content[head] = value
        return
    if head not in (*_BY_NAME, "search"):
        raise HarnessError(
            "a dot in --set reaches into a field with keys of its own",
            got=f"'{key}'",
            allowed=", ".join(f"{name}.KEY" for name in (*_BY_NAME, "search")),
            fix="name the whole field, or edit the file",
        )
    current = content.get(head)
    if isinstance(current, list):
        raise HarnessError(
            f"--set {head}.… changes one {head}",
            got="an axis of several",
            allowed=f"a single {head}",
            fix="edit the file",
        )
    as_mapping = current if head == "search" else _BY_NAME[head](current)
    inner: dict[str, Any] = dict(_mapping({} if as_mapping is None else as_mapping, f"{head} in the sweep"))
    *parents, last = rest.split(".")
    target = inner
    for parent in parents:
        nested = _files(target.get(parent)) if parent == "files" else target.get(parent)
        target[parent] = dict(nested) if isinstance(nested, dict) else {}
        target = target[parent]
    target[last] = value
    content[head] = inner


def load(path: Path, profile: str | None = None, overrides: Sequence[str] = ()) -> Sweep:
    """The sweep of a file under one profile; without a name, the first.

    `overrides` are the command line's `key=value` texts, applied after the profile.
    Raises HarnessError for anything that is not a sweep; reads no data and no model.
    """
    content = read(path)
    if path.stem.startswith(".") or not path.stem.isprintable():
        raise HarnessError(
            "a sweep's file name can name a folder",
            got=repr(path.name),
            allowed="printable letters, the first no dot",
            fix="rename it",
        )
    known = list(_profiles(content))
    if profile is not None and profile not in known:
        raise HarnessError(
            f"--profile names a profile of {path.name}",
            got=f"'{profile}'",
            allowed=", ".join(known),
            fix="name one of these",
        )
    chosen = profile or known[0]
    merged = _merged(content, chosen)
    for assignment in overrides:
        _set(merged, assignment)
    seeds, search = _seeds(merged), None
    if "search" in merged:
        search, cells = _search(merged, seeds)
    else:
        cells = _cells(merged)
    _refuse_many("trials", [len(cells), len(seeds)])
    sweep = Sweep(
        name=path.stem,
        profile=chosen,
        title=_text(merged, "title") or path.stem,
        stand_in=_text(merged, "stand_in"),
        source=path.read_text(encoding="utf-8-sig") + "".join(f"# --set {assignment}\n" for assignment in overrides),
        cells=cells,
        seeds=seeds,
        baselines=_baselines(merged.get("baselines", [])),
        record=_switch(merged, "record", default=True),
        search=search,
    )
    expand(sweep)
    return sweep


def task_of(name: str, files: TaskFiles | None, settings: Sequence[str]) -> TaskSpec:
    """A task that the command line names; `settings` are its `task.key=value` texts. Raises HarnessError as `load`."""
    content: dict[str, Any] = {"task": {"name": name}, "model": "embedded", "lr": 1.0, "epochs": 1}
    if files is not None:
        content["task"]["files"] = files.model_dump()
    for assignment in settings:
        if not assignment.startswith("task."):
            raise HarnessError(
                "--set says how the data are read", got=f"'{assignment}'", allowed="task.KEY=VALUE",
                fix="leave out what is no setting of the task",
            )  # fmt: skip
        _set(content, assignment)
    return _recipe(content, "the command line").task


def _text(content: Mapping[str, Any], key: str) -> str | None:
    value = content.get(key)
    if value is not None and not isinstance(value, str):
        raise HarnessError(f"{key} is text", got=_said(value), allowed="words", fix="put it in quotes")
    return value


def _switch(content: Mapping[str, Any], key: str, *, default: bool) -> bool:
    value = content.get(key, default)
    if not isinstance(value, bool):
        raise HarnessError(f"{key} is a switch", got=_said(value), allowed="on or off", fix="write one of the two")
    return value


def _baselines(value: object) -> tuple[BaselineName, ...]:
    """The names of what the sweep's cells are compared with, each once."""
    names = value if isinstance(value, list) else [value]
    for place, name in enumerate(names):
        if name not in get_args(BaselineName) or name in names[:place]:
            raise HarnessError(
                "baselines is a list of names, each once",
                got=_said(name) + (" a second time" if name in names[:place] else ""),
                allowed=", ".join(get_args(BaselineName)),
                fix="write it as baselines: [majority, tfidf_logistic]",
            )
    return tuple(names)


def _recipe(fields: Mapping[str, Any], where: str) -> Recipe:
    try:
        recipe = Recipe.model_validate(dict(fields))
    except ValidationError as error:
        raise _explained(error, where) from None
    _check_method(recipe)
    _check(recipe)
    return recipe


def _check_method(recipe: Recipe) -> None:
    """Refuse settings of a method that is not the recipe's; what they are by default is none."""
    for name, methods in _OF_METHODS.items():
        value = getattr(recipe, name)
        if not recipe.heeds(name) and value != Recipe.model_fields[name].default:
            raise HarnessError(
                f"{name} belongs to the method {' or '.join(methods)}",
                got=f"{name} {show(value)} with method {recipe.method}",
                allowed=f"method: {' or '.join(methods)}, or no {name}",
                fix=f"remove {name} or change the method; `recipes:` bundles settings that go together",
            )
    if recipe.method == "top_layers" and recipe.top_layers is None:
        raise HarnessError(
            "the method top_layers has a number of layers",
            got="nothing",
            allowed="top_layers: 1 or more",
            fix="add top_layers: …",
        )


def check_reinit(recipe: Recipe, layers: int) -> None:
    """Raise HarnessError for more layers to draw afresh than the model has."""
    if recipe.reinit_layers > layers:
        raise HarnessError(
            "reinit_layers is within the model's depth",
            got=f"{recipe.reinit_layers} of {layers} layers",
            allowed=f"0 to {layers}",
            fix="lower reinit_layers",
        )


# (field, the setting that it says more about, whether a recipe has that setting)
_BELONGS: tuple[tuple[str, str, Callable[[Recipe], bool]], ...] = (
    ("schedule_power", "schedule polynomial", lambda r: r.schedule == "polynomial"),
    ("schedule_end", "schedule polynomial", lambda r: r.schedule == "polynomial"),
    ("ema_decay", "averaging ema", lambda r: r.averaging == "ema"),
    ("average_last", "averaging last", lambda r: r.averaging == "last"),
    ("momentum", "optimizer sgd", lambda r: r.optimizer == "sgd"),
    ("clip_per_tensor", "a max_grad_norm", lambda r: r.max_grad_norm is not None),
    ("bias_correction", "optimizer adamw or lamb", lambda r: r.optimizer in ("adamw", "lamb")),
    ("beta1", "optimizer adamw or lamb", lambda r: r.optimizer != "adafactor"),
    ("beta2", "optimizer adamw or lamb", lambda r: r.optimizer != "adafactor"),
    ("eps", "optimizer adamw or lamb", lambda r: r.optimizer != "adafactor"),
    ("augment_rate", "augment swap, delete, insert or synonyms", lambda r: r.augment not in ("none", "backtranslate")),
    ("augment_copies", "an augment other than none", lambda r: r.augment != "none"),
    ("synonyms", "augment synonyms or insert", lambda r: r.augment in ("synonyms", "insert")),
    ("translator", "augment backtranslate", lambda r: r.augment == "backtranslate"),
    ("back_translator", "augment backtranslate", lambda r: r.augment == "backtranslate"),
    ("early_stopping_on", "early_stopping_patience or keep_best", lambda r: r.chooses),
    ("r_drop", "a dropout above 0", lambda r: r.drops),  # its two passes differ by it
    # They are about the pretrained weights, which other methods leave as they are.
    ("reinit_layers", "method full", lambda r: r.method == "full"),
    ("mixout", "method full", lambda r: r.method == "full"),
    ("pretrained_decay", "method full", lambda r: r.method == "full"),
)
_WORDS = "a .tsv file of your own: word, tab, its synonyms with tabs between"
_NEEDS = (
    ("synonyms", "synonyms", _WORDS),
    ("insert", "synonyms", _WORDS),
    ("backtranslate", "translator", "a folder with a seq2seq model; back_translator: another that leads back"),
)
_EITHER = (("eval_steps", "eval_every"), ("freeze_steps", "unfreeze_every"))


def _check(recipe: Recipe) -> None:
    """Raise HarnessError for fields that make no sense together."""

    def given(name: str) -> bool:
        return bool(getattr(recipe, name) != Recipe.model_fields[name].default)

    if (recipe.task.metric == "f1_entity") != (recipe.task.kind == "tokens") and recipe.task.metric is not None:
        raise HarnessError(
            "f1_entity is the metric of token tasks, and their only one",
            got=f"task.metric={recipe.task.metric} with task.kind={recipe.task.kind}",
            allowed="kind: tokens without a metric, or kind: texts with another",
            fix="correct one of the two",
        )
    _check_dev_split(recipe.task)
    for field in ("text_pair", "quoting") if recipe.task.kind == "tokens" else ():
        if getattr(recipe.task, field) is not None:
            raise HarnessError(
                f"task.{field} is for texts", got="kind: tokens with it", allowed="kind: texts, or none",
                fix=f"drop task.{field}",
            )  # fmt: skip
    for name, setting, fits in _BELONGS:
        if given(name) and not fits(recipe):
            value = getattr(recipe, name)
            said = f"{name} {value.name if isinstance(value, Spec) else show(value)}"
            raise HarnessError(
                f"{name} goes with {setting}", got=f"{said} without", allowed=setting, fix=f"drop {name}"
            )
    for one, other in _EITHER:
        if given(one) and given(other):
            raise HarnessError(
                f"{one} and {other} exclude each other", got="both", allowed="one of the two", fix=f"drop {other}"
            )
    for augment, field, example in _NEEDS:
        if recipe.augment == augment and not given(field):
            raise HarnessError(
                f"augment {augment} needs {field}",
                got="nothing",
                allowed=example,
                fix=f"add {field}: … or drop augment",
            )
    if recipe.schedule_end >= recipe.lr:
        raise HarnessError(
            "schedule_end is below lr",
            got=f"schedule_end {show(recipe.schedule_end)} with lr {show(recipe.lr)}",
            allowed=f"from 0 to below {show(recipe.lr)}",
            fix="lower schedule_end",
        )
    if recipe.batch_size % recipe.gradient_accumulation:
        parts = [number for number in range(1, recipe.batch_size + 1) if recipe.batch_size % number == 0]
        raise HarnessError(
            "gradient_accumulation cuts a batch into equal parts",
            got=f"{recipe.gradient_accumulation} parts of batch_size {recipe.batch_size}",
            allowed=", ".join(map(str, parts[:20])),
            fix="correct one of the two",
        )
    once_an_epoch = recipe.eval_steps is None and recipe.eval_every is None
    patience = recipe.early_stopping_patience
    if patience is not None and once_an_epoch and patience >= recipe.epochs:
        raise HarnessError(
            "early stopping has more evaluations than its patience",
            got=f"early_stopping_patience {patience} with {recipe.epochs}, one an epoch",
            allowed=f"up to {recipe.epochs - 1}" if recipe.epochs > 1 else "two evaluations or more",
            fix="evaluate more often with eval_every, or lower the patience",
        )
    if recipe.averaging == "last" and recipe.average_last > recipe.epochs:
        raise HarnessError(
            "average_last counts epochs' ends",
            got=f"{recipe.average_last} of {recipe.epochs} epochs",
            allowed=f"1 to {recipe.epochs}",
            fix="lower average_last",
        )


def _check_dev_split(task: TaskSpec) -> None:
    """Raise HarnessError for files without a dev split, and for a share of training files that there are none of."""
    if task.validation is not None and (task.files is None or task.name == "embedded"):
        raise HarnessError(
            "task.validation is the share of a training file that is the dev split",
            got=f"{show(task.validation)} for '{task.name}'{' without files' if task.files is None else ''}",
            allowed="a task with files of your own",
            fix="drop task.validation, or give task.files",
        )
    if task.files is not None and task.files.validation is None and task.validation is None:
        raise HarnessError(
            "a task's files have a dev split",
            got="task.files.train alone",
            allowed="a file of it, or a share of the training file",
            fix="add task.files.validation, or task.validation: 0.1 to split off a tenth",
        )


def _explained(error: ValidationError, where: str) -> HarnessError:
    """The first finding of pydantic as one line of ours."""
    first = error.errors(include_url=False)[0]
    inside: dict[str, type[BaseModel]] = {
        "task": TaskSpec, "model": ModelSpec, "files": TaskFiles,
        "synonyms": WordList, "translator": ModelSpec, "back_translator": ModelSpec,
    }  # fmt: skip
    model: type[BaseModel] | None = Recipe
    path: list[str] = []
    for part in map(str, first["loc"]):  # members of a union and validators put their own names into it
        if model is not None and part in model.model_fields:
            path.append(part)
            owner, model = model, inside.get(part)
    field = ".".join(path) or where
    if first["type"] == "extra_forbidden":
        return _unknown(str(first["loc"][-1]), tuple((model or Recipe).model_fields), field)
    given = first["input"]
    if first["type"] == "missing":
        axis = "a value, or a list for an axis" if len(path) == 1 else "a value"
        return HarnessError(f"{where} needs {field}", got="nothing", allowed=axis, fix=f"add {path[-1]}: …")
    kind, allowed = _rule(owner, path[-1])
    fix = f"correct {field} in {where}"
    if isinstance(given, str) and kind in ("a number", "a whole number"):
        if isinstance(_yaml(given, field), int | float):
            fix = f"drop the quotes around {field}"
        elif "," in given:
            fix = f"write an axis as [{given}]"
    return HarnessError(f"{field} is {kind}", got=_said(given), allowed=allowed, fix=fix)


def _rule(model: type[BaseModel], name: str) -> tuple[str, str]:
    """What kind of value a field takes and which are allowed, from its type and bounds."""
    field = model.model_fields[name]
    union = get_origin(field.annotation) in (Union, UnionType)
    members = get_args(field.annotation) if union else (field.annotation,)
    metadata = [*field.metadata, *(one for member in members for one in getattr(member, "__metadata__", ()))]
    metadata += [inner for one in metadata for inner in getattr(one, "metadata", ())]  # of a Field in an Annotated
    members = tuple(get_args(member)[0] if hasattr(member, "__metadata__") else member for member in members)
    or_none = ", or null for none" if NoneType in members else ""
    limits = ("gt", "ge", "lt", "le")
    bounds = {limit: getattr(one, limit) for one in metadata for limit in limits if hasattr(one, limit)}
    if "le" in bounds or "lt" in bounds:
        high = f"to {bounds['le']}" if "le" in bounds else f"to below {bounds['lt']}"
        bounded = (f"from {bounds['ge']} " if "ge" in bounds else f"above {bounds['gt']} ") + high
    else:
        bounded = f"above {bounds['gt']}" if "gt" in bounds else f"{bounds.get('ge', 0)} or more"
        bounded += " and finite" if float in members else ""
    words = [word for member in members for word in get_args(member) if isinstance(word, str)]
    if words and not {bool, float} & set(members):
        return "one of a few words", ", ".join(words) + or_none
    or_none = "".join(f", or {word}" for word in words) + or_none
    if bool in members:
        return "a switch", "on or off" + or_none
    if float in members:
        return "a number", bounded + or_none
    if str in members and int in members:
        return "a column", "its name, or its number from 0" + or_none
    if int in members:
        return "a whole number", bounded + or_none
    if str in members:
        return "text", "one letter or more" + or_none
    return "a name or a mapping", _MAPPINGS[name]


_MAPPINGS = {
    "task": "a GLUE task's name, embedded, or {name: …, files: …}",
    "model": "a name on the hub, embedded, a folder, or {name: …, folder: …}",
    "files": "a folder, or {train: FILE, validation: FILE}, with test: FILE if there is one",
    "synonyms": "a .tsv file, or {name: …, file: …}",
    "translator": "a folder, or {name: …, folder: …}",
    "back_translator": "a folder, or {name: …, folder: …}",
}


class Key(NamedTuple):
    """A key of a sweep file, as `harness keys` lists it; `default` is empty where a value must be given."""

    name: str
    takes: str
    default: str


_OF_A_SWEEP = {
    "title": ("words", "the file's name"),
    "stand_in": ("words that say what it stands in for", "null"),
    "min_gpu_gib": ("a number of 0 or more: the GPU that a profile needs", "none"),
    "recipes": ("{name: {key: value, …}, …}: an axis of bundles", "none"),
    "seeds": ("1..25, or [1, 2, 3]", ""),
    "init_seed": ("seeds of the head, or one to hold it", "the seed"),
    "order_seed": ("seeds of the data's order, or one to hold it", "the seed"),
    "dropout_seed": ("seeds of dropout, or one to hold it", "the seed"),
    "baselines": (f"a list of {', '.join(get_args(BaselineName))}", "none"),
    "record": ("on or off: what `harness diagnose` reads", "on"),
    "include": ("a list of {axis: value or list}: these cells alone", "all"),
    "exclude": ("a list of {axis: value or list}: cells to leave out", "none"),
    "search": ("what `harness search` looks through, as in sweeps/search_rte.yaml", "none"),
    "profiles": ("{name: {key: value, …}, …}: variants of the file for machines; not with --set", "none"),
}


def all_keys() -> tuple[Key, ...]:
    """All keys of a sweep file in its order; those of a task and a model by their path, as `--set` takes them."""
    found = []
    for name in Recipe.model_fields:
        found.append(_key(Recipe, name, name))
        inner: dict[str, type[BaseModel]] = {"task": TaskSpec, "model": ModelSpec}
        if name in inner:
            found += [_key(inner[name], part, f"{name}.{part}") for part in inner[name].model_fields]
    return (*found, *(Key(name, *_OF_A_SWEEP[name]) for name in (*_SWEEP_KEYS, *_FILTERS, "search", "profiles")))


def _key(model: type[BaseModel], field: str, name: str) -> Key:
    given = model.model_fields[field]
    default = "" if given.is_required() else "null" if given.default is None else show(given.default)
    return Key(name, _rule(model, field)[1], default)


def _cells(content: Mapping[str, Any]) -> tuple[Cell, ...]:
    """The product of the axes in the file's order (the last one varies fastest), filtered by include and exclude."""
    fixed: dict[str, Any] = {}
    axes: dict[str, list[tuple[Scalar, dict[str, Any]]]] = {}  # axis -> (shown value, fields it sets)
    for key, value in content.items():
        if key == "recipes":
            axes["recipe"] = _bundles(value, content)
        elif key in Recipe.model_fields:
            if isinstance(value, list):
                axes[key] = _axis(key, value)
            else:
                fixed[key] = value
    _refuse_many("cells", [len(values) for values in axes.values()])
    cells = []
    for combination in itertools.product(*axes.values()):
        fields = dict(fixed)
        for _, sets in combination:
            fields.update(sets)
        place = tuple(zip(axes, (shown for shown, _ in combination), strict=True))
        cells.append(Cell(axes=place, recipe=_recipe(fields, "the sweep")))
    shown = {name: [value for value, _ in values] for name, values in axes.items()}
    for key in _FILTERS:
        if key in content:
            entries = _filters(key, content[key], shown)
            keep = key == "include"
            cells = [cell for cell in cells if any(_matches(cell, entry) for entry in entries) == keep]
    if not cells:
        raise HarnessError(
            "a sweep has cells", got="none left after include and exclude", allowed="one or more", fix="loosen them"
        )
    return tuple(cells)


def _refuse_many(what: str, sizes: Sequence[int]) -> None:
    if math.prod(sizes) > MOST:
        raise HarnessError(
            f"a sweep has at most {MOST} {what}",
            got=" × ".join(map(str, sizes)),
            allowed=f"a product of up to {MOST}",
            fix="shorten an axis or the seeds",
        )


def _axis(key: str, values: list[Any]) -> list[tuple[Scalar, dict[str, Any]]]:
    if not values:
        raise HarnessError(f"the axis {key} has values", got="an empty list", allowed="one or more", fix="add some")
    shown: list[Scalar] = []
    for value in values:
        if isinstance(value, list):
            raise HarnessError(
                f"the axis {key} is a flat list", got=_said(value), allowed="single values", fix="flatten it"
            )
        named: Any = _BY_NAME[key](value) if key in _BY_NAME else value
        name: Any = named.get("name") if isinstance(named, dict) else named
        # Two spellings of a number are one value: 1e-5 and 0.00001, 1 and 1.0.
        if name is not None and any(_same(name, other) for other in shown):
            raise HarnessError(
                f"a value stands once on the axis {key}",
                got=f"{show(name)} twice",
                allowed="different values",
                # A folder is called by its last part, and checkpoints of several runs often share it.
                fix="remove one, or name them: {name: …, folder: …}" if key == "model" else "remove one",
            )
        shown.append(float(name) if isinstance(name, int) and key == "lr" and not isinstance(name, bool) else name)
    return [(name, {key: value}) for name, value in zip(shown, values, strict=True)]


def _bundles(value: object, content: Mapping[str, Any]) -> list[tuple[Scalar, dict[str, Any]]]:
    """Named recipes: `recipes: {usual: {bias_correction: off, epochs: 3}, …}` is one axis called `recipe`."""
    bundles = _mapping(value, "'recipes'")
    if not bundles:
        raise HarnessError("recipes has entries", got="none", allowed="name: {field: value}", fix="add some")
    for name, fields in bundles.items():
        for field, setting in _mapping(fields, f"recipe '{name}'").items():
            if field not in Recipe.model_fields:
                raise _unknown(field, tuple(Recipe.model_fields), f"recipe '{name}'")
            if isinstance(setting, list) or isinstance(content.get(field), list):
                raise HarnessError(
                    f"a named recipe sets single values ({name}.{field})",
                    got="an axis",
                    allowed="one value",
                    fix="move the axis out, or the field out of the recipe",
                )
    return [(name, dict(fields)) for name, fields in bundles.items()]


# ---------------------------------------------------------------------------------------------------------- searching

_RANGE_KEYS = ("low", "high", "log", "step", "choices", "when")


def neat(value: int | float, of: Range) -> int | float:
    """A number within a range as a person would write it: of a continuous one three digits."""
    if isinstance(of.low, int) or of.low is None or of.high is None:
        return int(value)
    digits = 12 if of.step is not None else 3
    return min(max(float(f"{value:.{digits}g}"), float(of.low)), float(of.high))


def _search(content: Mapping[str, Any], seeds: tuple[Seeds, ...]) -> tuple[Search, tuple[Cell, ...]]:
    """What is searched, and a cell at the largest values of the space, for what a machine must be able to train."""
    given = _mapping(content["search"], "'search'")
    allowed = tuple(name for name in Search.model_fields if name != "best")
    for key in given:
        if key not in allowed:
            raise _unknown(key, allowed, "search")
    for key, value in content.items():
        if key in ("recipes", *_FILTERS) or (key in Recipe.model_fields and isinstance(value, list)):
            raise HarnessError(
                "a search has no cells beside those that it finds",
                got=f"{key}: {_said(value)}",
                allowed="single values, and ranges and choices in search.space",
                fix=f"move {key} into search.space" if key in Recipe.model_fields else f"remove {key}",
            )
    if len(seeds) < 2:
        raise HarnessError(
            "a search trains every recipe over two seeds or more, or it finds a lucky seed",
            got=f"{len(seeds)} seed",
            allowed="2 or more",
            fix="write seeds: 1..4",
        )
    space = _space(given.get("space"), content)
    settings = {key: value for key, value in given.items() if key not in ("space", "confirm", "pruner")}
    settings["pruner"] = _pruner(given.get("pruner"))
    confirm = _confirmed(given.get("confirm"), seeds)
    try:
        search = Search.model_validate({"space": space, **settings, **confirm})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        kind, words = _rule(Search, name)
        raise HarnessError(
            f"search.{name} is {kind}", got=_said(first["input"]), allowed=words, fix="correct it"
        ) from None
    _refuse_sampler(search)
    if search.pruner is not None and search.failing == "objective":
        raise HarnessError(
            "a pruner compares recipes by one objective", got="pruner with failing: objective",
            allowed="failing: constraint or ignore", fix="drop one of the two",
        )  # fmt: skip
    fixed = {key: value for key, value in content.items() if key in Recipe.model_fields}
    ends = [{one.field: (one.values or (one.low, one.high))[place] for one in space} for place in (0, -1)]
    for end in ends:
        _recipe(fixed | end, "the space")
    for one in space:
        for value in one.choices:
            _recipe(fixed | ends[1] | {one.field: value}, "the space")
    largest = {one.field: max(one.values or (one.high,), key=_size) for one in space}
    recipe = _recipe(fixed | largest, "the space")
    place = tuple((one.field, getattr(recipe, one.field)) for one in space)
    return search, (Cell(axes=place, recipe=recipe),)


def _size(value: Scalar) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _space(given: object, content: Mapping[str, Any]) -> tuple[Range, ...]:
    fields = tuple(name for name in Recipe.model_fields if name not in _BY_NAME)
    space: list[Range] = []
    for field, value in _mapping(given, "search.space").items():
        if field not in fields:
            raise _unknown(field, fields, "search.space")
        one = _range(field, value, space)
        if field in content and not one.when:
            raise HarnessError(
                f"{field} stands in the space or beside it",
                got="both",
                allowed="one of the two (a value beside it is for a range with `when`)",
                fix="remove one",
            )
        if one.when:
            if field not in content and Recipe.model_fields[field].is_required():
                raise HarnessError(
                    f"{field} has a value where its condition does not hold", got="none beside search",
                    allowed=f"{field}: … beside search", fix="add it",
                )  # fmt: skip
            one = one.model_copy(update={"otherwise": content.get(field, Recipe.model_fields[field].default)})
        space.append(one)
    if not space:
        raise HarnessError(
            "a search has a space", got="none", allowed="search: {space: {lr: {low: 1e-5, high: 1e-3, log: on}}}",
            fix="add ranges or choices",
        )  # fmt: skip
    return tuple(space)


def _range(field: str, value: object, before: Sequence[Range]) -> Range:
    where = f"search.space.{field}"
    given: dict[str, Any] = {"choices": value} if isinstance(value, list) else _mapping(value, where)
    for key in given:
        if key not in _RANGE_KEYS:
            raise _unknown(key, _RANGE_KEYS, where)
    kind, _ = _rule(Recipe, field)
    when = tuple(_condition(where, *pair, before) for pair in _mapping(given.get("when", {}), f"{where}.when").items())
    if "choices" in given:
        if len(given) > 1 + ("when" in given):
            raise HarnessError(
                f"{where} is a range or choices", got="both", allowed="low and high, or choices", fix="drop one"
            )
        if not isinstance(given["choices"], list):
            raise HarnessError(
                f"{where}.choices is a list", got=_said(given["choices"]), allowed="[a, b]", fix="write it so"
            )
        choices = tuple(name for name, _ in _axis(field, given["choices"]))
        _refuse_single(where, choices)
        return Range(field=field, choices=choices, when=when)
    if kind not in ("a number", "a whole number"):
        raise HarnessError(
            f"{where} is chosen from a list", got=_said(value), allowed="[a, b]: it is no number", fix="list its values"
        )
    whole = kind == "a whole number"
    numbers: dict[str, Any] = {}
    for key in ("low", "high", "step"):
        number: Any = given.get(key)
        if number is None and key == "step":
            continue
        good = isinstance(number, int if whole else int | float) and not isinstance(number, bool)
        if not good or not math.isfinite(number) or (key == "step" and number <= 0):
            kinds = "a whole number" if whole else "a number"
            raise HarnessError(
                f"{where}.{key} is {kinds}{' above 0' if key == 'step' else ''}",
                got=_said(number),
                allowed="{low: …, high: …}, with log: on or step: … if wanted, or a list of choices",
                fix=f"correct {key}",
            )
        numbers[key] = number if whole else float(number)
    log = given.get("log", False)
    low, high = numbers["low"], numbers["high"]
    if not isinstance(log, bool):
        raise HarnessError(f"{where}.log is a switch", got=_said(log), allowed="on or off", fix="correct it")
    if low > high:
        raise HarnessError(
            f"{where} goes upwards", got=f"{show(low)} to {show(high)}", allowed="low below high", fix="swap its ends"
        )
    if log and low <= 0:
        raise HarnessError(
            f"{where} has a logarithm", got=f"low: {show(low)} with log: on", allowed="low above 0",
            fix="raise low, or log: off",
        )  # fmt: skip
    if log and "step" in numbers:
        raise HarnessError(
            f"{where} is in steps or in the logarithm",
            got="both",
            allowed="one of them",
            fix="drop step, or list choices",
        )
    if high > low and not whole and "step" in numbers and (high - low) / numbers["step"] > MOST:
        raise HarnessError(
            f"{where} has at most {MOST} steps", got=show(numbers["step"]), allowed="a larger step", fix="enlarge it"
        )
    found = Range(field=field, low=low, high=high, log=log, step=numbers.get("step"), when=when)
    _refuse_single(where, (low,) if low == high else found.values)
    return found


def _refuse_single(where: str, values: tuple[Scalar, ...] | None) -> None:
    if values is not None and len(values) < 2:
        raise HarnessError(
            f"{where} has something to search",
            got=f"a single point, {_said(values[0])}",
            allowed="two values or more",
            fix="widen it, or set the field beside search",
        )


def _condition(where: str, field: str, value: object, before: Sequence[Range]) -> tuple[str, tuple[Scalar, ...]]:
    wanted = tuple(value) if isinstance(value, list) else (value,)
    known = {one.field: one.choices for one in before if one.choices}
    if field not in known or not all(any(_same(one, choice) for choice in known[field]) for one in wanted):
        raise HarnessError(
            f"{where}.when names choices that stand before it in the space",
            got=f"{field}: {_said(value)}",
            allowed="; ".join(f"{name}: {', '.join(map(show, values))}" for name, values in known.items())
            or "none here",
            fix="correct it, or move it up",
        )
    return field, wanted


def _confirmed(given: object, seeds: Sequence[Seeds]) -> dict[str, Any]:
    if given is None:
        return {"best": 0}
    fields = _mapping(given, "search.confirm")
    for key in fields:
        if key not in ("best", "seeds"):
            raise _unknown(key, ("best", "seeds"), "search.confirm")
    fresh = _seeds({"seeds": fields.get("seeds")} if "seeds" in fields else {})
    used = {seed.seed for seed in seeds} & {seed.seed for seed in fresh}
    if used or len(fresh) < 2:
        raise HarnessError(
            "a recipe is confirmed on seeds that the search did not see, two or more",
            got=f"seeds {', '.join(map(str, sorted(used)))} in both" if used else f"{len(fresh)} seed",
            allowed="fresh seeds, as 101..108",
            fix="change search.confirm.seeds",
        )
    return {"best": fields.get("best", 3), "confirm": fresh}


def _pruner(given: object) -> Pruner | None:
    """A pruner by its name, or by its name and settings."""
    if given is None:
        return None
    fields = {"name": given} if isinstance(given, str) else _mapping(given, "search.pruner")
    for key in fields:
        own = _OF_PRUNERS.get(key)
        if key not in Pruner.model_fields or (own is not None and fields.get("name") not in own):
            name = fields.get("name")
            known = tuple(one for one in Pruner.model_fields if name in _OF_PRUNERS.get(one, (name,)))
            raise _unknown(key, known, "search.pruner")
    try:
        return Pruner.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = str(first["loc"][0])
        kind, words = _rule(Pruner, field)
        got = "nothing" if first["type"] == "missing" else _said(first["input"])
        raise HarnessError(f"search.pruner.{field} is {kind}", got=got, allowed=words, fix="correct it") from None


def _refuse_sampler(search: Search) -> None:
    """Refuse a space that the sampler has no answer for."""
    for one in search.space:
        where = f"search.space.{one.field}"
        if search.sampler == "grid" and one.values is None:
            raise HarnessError(
                "a grid has steps", got=f"{where}, which is continuous", allowed="a step, or a list",
                fix="list its values, or take another sampler",
            )  # fmt: skip
        if search.sampler in ("grid", "qmc", "cmaes") and one.when:
            raise HarnessError(
                f"the sampler {search.sampler} takes no conditions", got=f"{where}.when",
                allowed="tpe, random or nsga2 with it", fix="take one of these, or drop when",
            )  # fmt: skip
        if search.sampler == "cmaes" and one.choices:
            raise HarnessError(
                "the sampler cmaes takes numbers alone", got=f"{where}, a list", allowed="ranges of numbers",
                fix="take tpe, or fix the field",
            )  # fmt: skip
    if search.sampler == "cmaes" and search.failing == "objective":
        raise HarnessError(
            "the sampler cmaes has one objective", got="failing: objective", allowed="constraint or ignore",
            fix="take nsga2 or tpe",
        )  # fmt: skip


def _filters(key: str, value: object, axes: Mapping[str, list[Scalar]]) -> list[dict[str, list[Any]]]:
    if not isinstance(value, list) or not value:
        raise HarnessError(
            f"{key} is a list of mappings", got=_said(value), allowed="- {axis: value, …}", fix="write it so"
        )
    entries = []
    for entry in value:
        wanted: dict[str, list[Any]] = {}
        for axis, values in _mapping(entry, f"an entry of {key}").items():
            if axis not in axes:
                raise HarnessError(
                    f"{key} names axes of the sweep",
                    got=f"'{axis}'" + (", which has a single value" if axis in Recipe.model_fields else ""),
                    allowed=", ".join(axes) or "none, since the sweep has no axis",
                    fix="use one of these" if axes else f"drop {key}",
                )
            wanted[axis] = values if isinstance(values, list) else [values]
            for one in wanted[axis]:
                if not any(_same(one, value) for value in axes[axis]):
                    raise HarnessError(
                        f"{key} names values of the axis {axis}",
                        got=_said(one),
                        allowed=", ".join(map(show, axes[axis])),
                        fix="use one of these",
                    )
        entries.append(wanted)
    return entries


def _matches(cell: Cell, entry: Mapping[str, list[Any]]) -> bool:
    place = dict(cell.axes)
    return all(any(_same(place[axis], value) for value in values) for axis, values in entry.items())


def _seeds(content: Mapping[str, Any]) -> tuple[Seeds, ...]:
    """`seeds` drives all three parts; init_seed, order_seed and dropout_seed hold one (int) or cross it (list)."""
    if "seeds" not in content:
        raise HarnessError("a sweep has seeds", got="none", allowed="as 1..25 or [1, 2, 3]", fix="add seeds: 1..5")
    main = _integers("seeds", content["seeds"])
    parts = {name: _integers(name, content[name]) for name in SEED_FIELDS[1:] if content.get(name) is not None}
    _refuse_many("trials in a cell", [len(main), *map(len, parts.values())])
    found = []
    for seed, *others in itertools.product(main, *parts.values()):
        given = dict(zip(parts, others, strict=True))
        found.append(Seeds(seed=seed, **{name: given.get(name, seed) for name in SEED_FIELDS[1:]}))
    if len(parts) == 3 and len(main) > 1:
        raise HarnessError(
            "seeds drives what is not held or crossed",
            got="all three parts set and several seeds",
            allowed="one seed, or one part left out",
            fix="write seeds: 1 or drop a part",
        )
    return tuple(found)


def _integers(name: str, value: object) -> list[int]:
    found: list[int] = []
    for item in value if isinstance(value, list) else [value]:
        ends = re.fullmatch(r"(\d{1,19})\s*\.\.\s*(\d{1,19})", item) if isinstance(item, str) else None
        low, high = -1, -1
        if ends:
            low, high = int(ends[1]), int(ends[2])
        elif isinstance(item, int) and not isinstance(item, bool):
            low = high = item
        if not 0 <= low <= MAX_SEED or not 0 <= high <= MAX_SEED:
            raise HarnessError(
                f"{name} {'are' if name == 'seeds' else 'is made of'} whole numbers from 0 to 2^63 − 1",
                got=_said(item),
                allowed="as 7, 1..25 or [1, 2, 5..9]",
                fix=f"correct {name}",
            )
        if low > high:
            raise HarnessError(
                "a range of seeds goes upwards", got=f"{low}..{high}", allowed=f"{high}..{low}", fix="swap its ends"
            )
        if len(found) + high - low >= MOST:
            raise HarnessError(
                f"{name} has at most {MOST} values", got=_said(item), allowed="a shorter range", fix="shorten it"
            )
        found.extend(range(low, high + 1))
    if not found:
        raise HarnessError(f"{name} has values", got="an empty list", allowed="one or more", fix="add some")
    seen: set[int] = set()
    for seed in found:
        if seed in seen:
            raise HarnessError(
                f"a seed stands once in {name}", got=f"{seed} twice", allowed="different seeds", fix="remove one"
            )
        seen.add(seed)
    return found


@lru_cache(maxsize=8)
def expand(sweep: Sweep) -> tuple[Trial, ...]:
    """All trials of a sweep, cell by cell and in each by seed; the same sweep gives the same trials and ids.

    Raises HarnessError when two of them are the same training run (two named recipes with equal values, say).
    """
    trials = tuple(
        Trial(recipe=cell.recipe, seeds=seeds, cell=index)
        for index, cell in enumerate(sweep.cells)
        for seeds in sweep.seeds
    )
    first: dict[str, Trial] = {}
    for trial in trials:
        other = first.setdefault(trial.id, trial)
        if other is not trial:
            raise HarnessError(
                "every trial stands once in a sweep",
                got=f"{trial.id} in '{sweep.cells[other.cell].label}' and '{sweep.cells[trial.cell].label}'",
                allowed="cells that differ",
                fix="remove one of them",
            )
    return trials


def where(
    sweep: Sweep, conditions: Sequence[str], seed: int | None = None, option: str = "--where"
) -> tuple[Trial, ...]:
    """The trials that match `key=value` texts over axes, recipe fields and seeds, in the plan's order.

    Raises HarnessError, which names the `option` that they were given by, for texts that can't be read.
    """
    wanted: dict[str, Any] = {}
    for condition in conditions:
        key, equals, text = condition.partition("=")
        known = dict.fromkeys((*sweep.axes, *Recipe.model_fields, *SEED_FIELDS))
        if not equals:
            raise HarnessError(f"{option} takes key=value", got=f"'{condition}'", allowed="as lr=2e-5", fix="add the =")
        if key not in known:
            raise _unknown(key, tuple(known), option)
        if key in wanted or (key == "seed" and seed is not None):
            raise HarnessError(
                f"{option} names a key once", got=f"{key} twice", allowed="one value a key", fix="remove one"
            )
        wanted[key] = None if text == "none" else _yaml(text, f"the value of {option} {key}")
    if seed is not None:
        wanted["seed"] = seed

    def value(trial: Trial, key: str) -> object:
        axes = dict(sweep.cells[trial.cell].axes)
        if key in axes:
            return axes[key]
        if key in SEED_FIELDS:
            return getattr(trial.seeds, key)
        setting = getattr(trial.recipe, key)
        return setting.name if isinstance(setting, Spec) else setting

    def matches(trial: Trial) -> bool:
        return all(_same(value(trial, key), want) for key, want in wanted.items())

    return tuple(trial for trial in expand(sweep) if matches(trial))


def _decisive(recipe: Recipe) -> dict[str, object]:
    """The fields of a recipe that an id depends on, those of task and model each by itself."""
    values = {name: getattr(recipe, name) for name in Recipe.model_fields if name not in ("task", "model")}
    fields = {name: value.name if isinstance(value, Spec) else value for name, value in values.items()}
    told = (name for name in TaskSpec.model_fields if name not in ("files", "allow_unknown"))
    task = {f"task.{name}": getattr(recipe.task, name) for name in told}
    return {**task, "model.name": recipe.model.name, **fields}


def orphaning_change(old: Sweep, new: Sweep, trained: Sequence[Trial]) -> str | None:
    """Which axis of an edited sweep lost values that trained trials have; None when none would be orphaned."""
    kept = {trial.id for trial in expand(new)}
    lost = [trial for trial in trained if trial.id not in kept]
    if not lost:
        return None
    have, gone = ([_decisive(one.recipe) for one in many] for many in (new.cells, lost))
    for name in gone[0]:
        values = [fields[name] for fields in have]
        removed = [fields[name] for fields in gone if not any(_same(fields[name], value) for value in values)]
        if removed:
            return f"{name.removesuffix('.name')} {show(removed[0])}"
    for name in SEED_FIELDS:
        seeds = {getattr(seeds, name) for seeds in new.seeds}
        missing = sorted({getattr(trial.seeds, name) for trial in lost} - seeds)
        if missing:
            return f"{name} {', '.join(map(str, missing[:5]))}{', …' if len(missing) > 5 else ''}"
    return f"the cell '{old.cells[lost[0].cell].label}'"
