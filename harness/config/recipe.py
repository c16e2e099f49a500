"""A recipe: every field that decides how one trial is trained, and what values it may take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from harness.common.metrics import Metric

BaselineName = Literal["majority", "tfidf_logistic", "tfidf_lightgbm"]


SEED_FIELDS = ("seed", "init_seed", "order_seed", "dropout_seed")


MAX_SEED = 2**63 - 1


MOST = 100_000  # trials of a sweep; more is a slip of the pen, and would fill the memory before it is noticed


class Frozen(BaseModel):
    """A model that can't be changed and takes no other key than its fields, of their own types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class TaskFiles(Frozen):
    """Local data files, .tsv, .csv, .jsonl, .json or .parquet; relative paths start at the working directory.

    `validation` is None where a share of the training file is the dev split (`task.validation`).
    `test` is scored once, with the weights that a result is of, and chooses nothing. A folder that is named for all
    has none: GLUE's are without labels.
    """

    train: str
    validation: str | None = None
    test: str | None = None


def task_files(value: object) -> object:
    """A task's files from what a sweep file says: a mapping, or one folder for both splits."""
    if isinstance(value, str):  # a folder: which of its files are meant is found when they are read
        return {"train": value, "validation": value}
    return value


def _named(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


def _model(value: object) -> object:
    if isinstance(value, str) and value.startswith((".", "/", "~")):
        return {"name": Path(value).name, "folder": value}
    return _named(value)


class TaskSpec(Frozen):
    """Which data: a GLUE name, `embedded`, or files of one's own described by their columns.

    Its `kind` is what has a label: a text (or a pair of texts), or each word of it, for finding entities.
    `name` and everything that changes what is learned or scored is part of a trial's identity; `files` (where the
    data lie on this machine) is not: a record keeps the hash of the bytes instead. Nor is `allow_unknown`.
    """

    name: str = Field(min_length=1)
    files: Annotated[TaskFiles | None, BeforeValidator(task_files)] = None
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


class ModelSpec(Frozen):
    """Which pretrained encoder: a hub name or `embedded`; `folder` says where its files lie on this machine."""

    name: str = Field(min_length=1)
    folder: str | None = None


class WordList(Frozen):
    """Words and their synonyms; `file` says where they lie on this machine: a line a word, `word<tab>synonym<tab>…`."""

    name: str = Field(min_length=1)
    file: str = Field(min_length=1)


def _word_list(value: object) -> object:
    return {"name": Path(value).stem or value, "file": value} if isinstance(value, str) else value


Spec = TaskSpec | ModelSpec | WordList


# Fields that are told by a name, or by a name and where the files lie; and how a name alone is read.
BY_NAME: dict[str, Callable[[object], object]] = {
    "task": _named,
    "model": _model,
    "synonyms": _word_list,
    "translator": _model,
    "back_translator": _model,
}


OF_METHODS = {
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


class Recipe(Frozen):
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

    def uses_field(self, name: str) -> bool:
        """Whether a field decides anything here; a setting of another method does not."""
        return self.method in OF_METHODS.get(name, (self.method,))

    def is_set(self, name: str) -> bool:
        """Whether a field says more than its default does: it differs, or belongs to the method that was chosen."""
        own = self.method in OF_METHODS.get(name, ())
        return own or bool(getattr(self, name) != Recipe.model_fields[name].default)

    @property
    def peft_config(self) -> Method:
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
        return (
            self.task,
            self.model,
            self.token_type_ids,
            self.precision,
            *lengths,
            *steps,
            *kernels,
            self.peft_config,
        )

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
    def selects_checkpoint(self) -> bool:
        """Whether evaluations decide when training stops or which of them is kept."""
        return self.early_stopping_patience is not None or self.keep_best


class Seeds(Frozen):
    """The four seeds of a trial: `seed` names it, the other three drive head, data order and dropout."""

    seed: int = Field(ge=0, le=MAX_SEED)
    init_seed: int = Field(ge=0, le=MAX_SEED)
    order_seed: int = Field(ge=0, le=MAX_SEED)
    dropout_seed: int = Field(ge=0, le=MAX_SEED)
