"""A recipe: every field that decides how one trial is trained, and what values it may take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from harness.common.metrics import BuiltIn, higher_is_better
from harness.common.scorers import NEGATED, OWN, ScikitLearn
from harness.config.methods import MethodInfo

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

    train: str = Field(description="The training file, or a folder of training and validation files.")
    validation: str | None = Field(
        default=None,
        description="The validation (dev) file; left out where `task.validation` splits it off the training file.",
    )
    test: str | None = Field(
        default=None, description="A test file, scored once with each result's weights; nothing is chosen on it."
    )


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


CHOICE_TASKS = ("copa",)  # that go by a name: `kind: choice` goes without saying


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


class TaskSpec(Frozen):
    """Which data: a GLUE name, `embedded`, or files of one's own described by their columns.

    Its `kind` is what has a label: a text (or a pair of texts), or each word of it, for finding entities.
    `name` and everything that changes what is learned or scored is part of a trial's identity; `files` (where the
    data lie on this machine) is not: a record keeps the hash of the bytes instead. Nor are `metric_file`, of which the
    same holds, and `allow_unknown`.
    """

    name: str = Field(
        min_length=1,
        description="A GLUE or SuperGLUE task (rte, boolq, …), `embedded`, or a name of your own for `files`.",
    )
    files: Annotated[TaskFiles | None, BeforeValidator(task_files)] = Field(
        default=None,
        description="Your own data: a folder, or a file for each split (.tsv, .csv, .jsonl, .json, .parquet).",
    )
    text: str | int | None = Field(
        default=None, description="The column of the text; null: `text`, or the GLUE task's own."
    )
    text_pair: str | int | None = Field(
        default=None, description="The column of the second text of a pair; null: the GLUE task's own, or none."
    )
    label: str | int | None = Field(
        default=None, description="The column of the label; null: `label`, or the GLUE task's own."
    )
    header: bool | None = Field(
        default=None, description="Whether the first row names the columns; null: yes, except for CoLA's files."
    )
    quoting: Literal["none", "csv"] | None = Field(
        default=None,
        description="Whether quotes are read as in CSV or not at all; null: by the file's ending.",
    )
    encoding: str | None = Field(
        default=None,
        min_length=1,
        description="How the files' characters are written (shift_jis, cp1252, …); null: UTF-8.",
    )
    metric: BuiltIn | ScikitLearn | Annotated[str, Field(pattern=OWN)] | None = Field(
        default=None,
        description="The score: a name, or a function of your own; null: the task's own, or accuracy.",
    )
    metric_file: str | None = Field(
        default=None, min_length=1, description="Where the function of `metric: FILE.py:FUNCTION` is on this machine."
    )
    kind: Literal["texts", "tokens", "completion", "labels", "choice", "span"] = Field(
        default="texts",
        description="What is learned: labels of texts or words, completions, a choice, or spans of a context.",
    )
    choices: Annotated[str | tuple[str, ...] | None, BeforeValidator(_tuple)] = Field(
        default=None,
        description="Of `kind: choice`: the column of lists of choices, or a list of columns; null: by their names.",
    )
    threshold: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] | Literal["dev"] = Field(
        default=0.5,
        description="Of `kind: labels`: the probability above which a label is given; dev: the best on dev.",
    )
    loss_on: Literal["completion", "all"] = Field(
        default="completion",
        description="Of `kind: completion`: train on the completion's tokens alone, or on all of the text.",
    )
    max_new_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Longest answer that `metric: token_f1` generates; null: the longest dev answer.",
    )
    stride: int | None = Field(
        default=None,
        ge=0,
        description="Of `kind: span`: tokens that windows of a long context share; null: a third of max_length.",
    )
    max_answer_length: int = Field(
        default=30, ge=1, description="Of `kind: span`: the longest answer that is given, in tokens."
    )
    # The share of the training file that is the dev split, and which one: see `holdout.chosen`.
    validation: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        allow_inf_nan=False,
        description="Share of the training file that becomes the dev split.",
    )
    validation_seed: int = Field(
        default=0, ge=0, le=MAX_SEED, description="Which examples `validation` takes: another seed gives another split."
    )

    @model_validator(mode="before")
    @classmethod
    def _split_metric(cls, value: object) -> object:
        """`FILE.py:FUNCTION` is a name, which ids have, and a file, which they don't; of a loss more is better."""
        metric = value.get("metric") if isinstance(value, dict) else None
        if isinstance(value, dict) and value.get("name") in CHOICE_TASKS and not {"kind", "text"} & set(value):
            value = value | {"kind": "choice"}
        if not isinstance(value, dict) or not isinstance(metric, str):
            return value
        file, _, function = metric.rpartition(":")
        if file.endswith(".py"):
            return value | {"metric": f"{Path(file).stem}:{function}", "metric_file": file}
        return value | {"metric": NEGATED.get(metric, metric)}

    allow_unknown: bool = Field(default=False, description="Train even if most tokens are unknown to the tokenizer.")

    @property
    def higher_is_better(self) -> bool:
        """Whether a higher score is better: completions are scored by their loss where no metric is set."""
        return higher_is_better(self.metric or ("loss" if self.kind == "completion" else "accuracy"))


class ModelSpec(Frozen):
    """Which pretrained model: a hub name or a shipped one; `folder` says where its files lie on this machine."""

    name: str = Field(
        min_length=1, description="A name on the hub, or a shipped model: `embedded`, `embedded-decoder`."
    )
    folder: str | None = Field(
        default=None, description="Where the model's files are on this machine; not part of a trial's id."
    )


class WordList(Frozen):
    """Words and their synonyms; `file` says where they lie on this machine: a line a word, `word<tab>synonym<tab>…`."""

    name: str = Field(min_length=1, description="A name for the list, part of a trial's id.")
    file: str = Field(
        min_length=1, description="Where it is on this machine: a line per word, `word<tab>synonym<tab>…`."
    )


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


MethodName = Literal["full", "head", "top_layers", "lora", "prefix", "prompt", "ia3", "adapter", "bitfit"]


METHODS: dict[MethodName, MethodInfo] = {
    "full": MethodInfo(lambda recipe, model: model.weights),
    "head": MethodInfo(lambda recipe, model: 0, top_only=True),
    "top_layers": MethodInfo(
        lambda recipe, model: min(model.layers, recipe.top_layers or model.layers) * model.layer_weights,
        settings=("top_layers",),
        top_only=True,
    ),
    "lora": MethodInfo(  # a map of hidden × hidden values; one of the feed-forward's is up to 2.5 times that
        lambda recipe, model: model.layers * recipe.lora_maps * recipe.lora_rank * 2 * model.hidden,
        settings=("lora_rank", "lora_alpha", "lora_targets"),
        saved_as="peft",
    ),
    "prefix": MethodInfo(
        lambda recipe, model: model.layers * 2 * recipe.virtual_tokens * model.hidden,
        settings=("virtual_tokens",),
        saved_as="tensors",
        virtual_tokens="keys",
    ),
    "prompt": MethodInfo(
        lambda recipe, model: recipe.virtual_tokens * model.hidden,
        settings=("virtual_tokens",),
        saved_as="tensors",
        virtual_tokens="text",
    ),
    "ia3": MethodInfo(lambda recipe, model: model.layers * (2 * model.hidden + model.inner), saved_as="peft"),
    "adapter": MethodInfo(
        lambda recipe, model: model.layers * 2 * ((2 * recipe.adapter_size + 3) * model.hidden + recipe.adapter_size),
        settings=("adapter_size",),
        saved_as="tensors",
    ),
    "bitfit": MethodInfo(lambda recipe, model: model.layers * (8 * model.hidden + model.inner)),
}


# Fields that belong to a method, and the methods that read each.
METHODS_READING: dict[str, tuple[MethodName, ...]] = {
    setting: tuple(name for name, info in METHODS.items() if setting in info.settings)
    for setting in (setting for info in METHODS.values() for setting in info.settings)
}


class Method(NamedTuple):
    """Which parameters are trained and which are put in: all of it decides the shapes of the computation."""

    name: MethodName = "full"
    top_layers: int | None = None
    lora_rank: int = 8
    lora_targets: str | None = None
    virtual_tokens: int = 20
    adapter_size: int = 64

    @property
    def virtual_positions(self) -> int:
        """How many positions before the text it takes."""
        return self.virtual_tokens if METHODS[self.name].virtual_tokens == "text" else 0


class Recipe(Frozen):
    """The hyperparameters of a training run, without its seed; defaults are those of Mosbach et al. (2021) for BERT.

    A default must never change once released: ids hash the fields that differ from it.
    """

    task: Annotated[TaskSpec, BeforeValidator(_named)] = Field(description="Which data to train on.")
    model: Annotated[ModelSpec, BeforeValidator(_model)] = Field(description="Which pretrained model to fine-tune.")
    lr: float = Field(gt=0, allow_inf_nan=False, description="Peak learning rate.")
    bias_correction: bool = Field(
        default=True, description="Adam's bias correction; off reproduces BERT's original optimizer."
    )
    epochs: int = Field(ge=1, description="Passes over the training data.")
    batch_size: int = Field(default=16, ge=1, description="Training examples per update.")
    eval_batch_size: int = Field(
        default=100, ge=1, description="Examples per batch of an evaluation; changes no result beyond rounding."
    )
    max_length: int = Field(default=128, ge=2, description="Tokens per example; longer ones are truncated.")
    padding: Literal["dataset", "batch"] = Field(
        default="dataset",
        description="Pad to the longest example of the data set, or of each batch (faster; last bits differ).",
    )
    token_type_ids: bool = Field(
        default=False, description="Mark the second text of a pair by token type ids, as BERT's pretraining did."
    )
    warmup_ratio: float = Field(
        default=0.1,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Share of the updates over which the learning rate rises from 0 to `lr`.",
    )
    weight_decay: float = Field(
        default=0.01, ge=0, allow_inf_nan=False, description="Decoupled weight decay towards 0."
    )
    beta1: float = Field(default=0.9, ge=0, lt=1, allow_inf_nan=False, description="Decay of Adam's first moment.")
    beta2: float = Field(default=0.999, ge=0, lt=1, allow_inf_nan=False, description="Decay of Adam's second moment.")
    eps: float = Field(
        default=1e-6, gt=0, allow_inf_nan=False, description="Added to the denominator of Adam's update."
    )
    max_grad_norm: float | None = Field(
        default=1.0, gt=0, allow_inf_nan=False, description="Clip the gradient to this norm; null: no clipping."
    )
    # Of all places alike, as in the paper; `model`: each place at the rate that the model's configuration gives it.
    dropout: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] | Literal["model"] = Field(
        default=0.1, description="Dropout rate of every layer; `model`: each layer's rate in the model's configuration."
    )
    precision: Literal["float32", "tf32", "bf16"] = Field(
        default="float32",
        description="Number format of the forward and backward pass; weights and moments stay float32.",
    )
    eval_steps: int | None = Field(
        default=None, ge=1, description="Evaluate every N updates; null: once per epoch, or by `eval_every`."
    )
    # Remedies and schedules; each default means "as without it".
    schedule: Literal["linear", "constant", "cosine", "polynomial", "inverse_sqrt"] = Field(
        default="linear", description="How the learning rate falls after the warm-up."
    )
    schedule_power: float = Field(
        default=1.0, gt=0, allow_inf_nan=False, description="Exponent of `schedule: polynomial`."
    )
    schedule_end: float = Field(
        default=0.0, ge=0, allow_inf_nan=False, description="Final learning rate of `schedule: polynomial`."
    )
    layerwise_lr_decay: float = Field(
        default=1.0,
        gt=0,
        le=1,
        allow_inf_nan=False,
        description="Factor on the learning rate for each layer further from the output (1: the same everywhere).",
    )
    reinit_layers: int = Field(
        default=0, ge=0, description="Reinitialise this many of the top layers (Zhang et al. 2021)."
    )
    mixout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        allow_inf_nan=False,
        description="Probability that mixout puts a pretrained weight back (Lee et al. 2020).",
    )
    pretrained_decay: float = Field(
        default=0.0, ge=0, allow_inf_nan=False, description="Decoupled weight decay towards the pretrained weights."
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, allow_inf_nan=False, description="Share of each target spread evenly over all classes."
    )
    freeze_steps: int = Field(default=0, ge=0, description="Train only the head for this many updates first.")
    unfreeze_every: int | None = Field(
        default=None,
        ge=1,
        description="Gradual unfreezing: one more layer, from the top, every N updates; null: all from the start.",
    )
    max_grad_value: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Clip each component of the gradient to ± this value; null: no clipping.",
    )
    clip_per_tensor: bool = Field(
        default=False, description="Apply `max_grad_norm` to each parameter tensor by itself."
    )
    gradient_accumulation: int = Field(
        default=1, ge=1, description="Compute each batch in this many equal micro-batches, to save memory."
    )
    activation_checkpointing: bool = Field(
        default=False,
        description="Compute each layer again in the backward pass instead of keeping it, to save memory.",
    )
    max_steps: int | None = Field(
        default=None, ge=1, description="Train for at most this many updates; null: for `epochs`."
    )
    eval_every: float | None = Field(
        default=None,
        gt=0,
        le=1,
        allow_inf_nan=False,
        description="Evaluate after every such share of an epoch; null: once per epoch, or by `eval_steps`.",
    )
    early_stopping_patience: int | None = Field(
        default=None, ge=1, description="Stop after this many evaluations without improvement; null: never."
    )
    early_stopping_on: Literal["loss", "score"] = Field(
        default="loss", description="What early stopping and `keep_best` look at: dev loss or dev score."
    )
    keep_best: bool = Field(default=False, description="Use the weights of the best evaluation instead of the last.")
    averaging: Literal["none", "ema", "last"] = Field(
        default="none",
        description="Evaluate averaged weights: an exponential moving average, or the mean of the last epochs' ends.",
    )
    ema_decay: float = Field(
        default=0.999, ge=0, lt=1, allow_inf_nan=False, description="Decay of `averaging: ema` per update."
    )
    average_last: int = Field(default=3, ge=1, description="How many epochs' ends `averaging: last` averages.")
    optimizer: Literal["adamw", "sgd", "lamb", "adafactor"] = Field(
        default="adamw", description="The optimizer; adamw is AdamW with decoupled weight decay."
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, allow_inf_nan=False, description="Momentum of `optimizer: sgd`.")
    # `on` divides the weighted sum by the batch's size, `balanced` by the sum of its weights, as F.cross_entropy does.
    class_weights: bool | Literal["balanced"] = Field(
        default=False,
        description="Weight classes by inverse frequency; on: mean over examples, balanced: over their weights.",
    )
    oversample: bool = Field(
        default=False, description="Repeat examples of rarer classes until all classes are equally frequent."
    )
    method: MethodName = Field(
        default="full",
        description="What is trained: all weights (full), the head, the top layers, or a PEFT method's parameters.",
    )
    top_layers: int | None = Field(default=None, ge=1, description="How many layers `method: top_layers` trains.")
    lora_rank: int = Field(default=8, ge=1, description="Rank of `method: lora`.")
    lora_alpha: float = Field(
        default=16.0,
        gt=0,
        allow_inf_nan=False,
        description="Scale of `method: lora`; updates are multiplied by alpha / rank.",
    )
    lora_targets: str | None = Field(
        default=None,
        min_length=1,
        description="Comma-separated endings of the modules that `method: lora` adapts; null: query and value.",
    )
    virtual_tokens: int = Field(default=20, ge=1, description="Virtual tokens of `method: prefix` or `prompt`.")
    # One would be a product with a single column, which takes another kernel when a lane is alone.
    adapter_size: int = Field(default=64, ge=2, description="Bottleneck width of `method: adapter`.")
    # Changed copies of the training examples (Wei & Zou 2019), and mixtures of them (Zhang et al. 2018).
    augment: Literal["none", "swap", "delete", "insert", "synonyms", "backtranslate"] = Field(
        default="none",
        description="Add changed copies of the training examples (Wei & Zou 2019), or back-translations.",
    )
    augment_rate: float = Field(
        default=0.1, gt=0, le=1, allow_inf_nan=False, description="Share of the words that `augment` changes in a copy."
    )
    augment_copies: int = Field(default=1, ge=1, description="Changed copies per training example.")
    synonyms: Annotated[WordList | None, BeforeValidator(_word_list)] = Field(
        default=None, description="The synonyms that `augment: synonyms` or `insert` uses."
    )
    translator: Annotated[ModelSpec | None, BeforeValidator(_model)] = Field(
        default=None, description="The seq2seq model that `augment: backtranslate` translates with."
    )
    back_translator: Annotated[ModelSpec | None, BeforeValidator(_model)] = Field(
        default=None, description="The model that translates back; null: the translator itself."
    )
    mixup: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="Alpha of mixup's Beta distribution (Zhang et al. 2018); 0: no mixup.",
    )
    # Noise on the words' embeddings (Jain et al. 2023), and two passes that are to agree (Wu et al. 2021).
    neftune_alpha: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="Scale of the noise on word embeddings (NEFTune, Jain et al. 2023); 0: none.",
    )
    r_drop: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="Weight of R-Drop's consistency loss, half the paper's alpha (Wu et al. 2021); 0: none.",
    )
    padding_side: Literal["right", "left"] = Field(
        default="right", description="Where padding stands; left takes `task.kind: completion`."
    )
    pad_to_multiple_of: int = Field(
        default=1,
        ge=1,
        description="Round the padded length up to a multiple of this: 8 suits bf16 kernels, 16 AVX-512.",
    )

    def uses_field(self, name: str) -> bool:
        """Whether a field decides anything here; a setting of another method does not."""
        return self.method in METHODS_READING.get(name, (self.method,))

    def is_set(self, name: str) -> bool:
        """Whether a field says more than its default does: it differs, or belongs to the method that was chosen."""
        own = name in METHODS[self.method].settings
        return own or bool(getattr(self, name) != Recipe.model_fields[name].default)

    @property
    def peft_config(self) -> Method:
        """Its method, with what decides shapes."""
        own = (self.top_layers, self.lora_rank, self.lora_targets, self.virtual_tokens, self.adapter_size)
        return Method(self.method, *own)

    @property
    def lora_maps(self) -> int:
        """How many linear maps of a layer LoRA adapts, one for each ending that is named."""
        return 2 if self.lora_targets is None else self.lora_targets.count(",") + 1

    @property
    def shape(self) -> tuple[object, ...]:
        """What the trials of one pack have in common: all that decides tensor shapes, kernels and the steps."""
        width = (self.max_length, self.padding, self.padding_side, self.pad_to_multiple_of)
        lengths = (self.epochs, self.batch_size, self.eval_batch_size, *width, self.eval_steps)
        steps = (self.max_steps, self.eval_every, self.gradient_accumulation, self.oversample)
        noise = (self.mixup > 0, self.neftune_alpha > 0, self.r_drop > 0)
        kernels = (self.optimizer, self.soft_targets, self.copies, self.activation_checkpointing, *noise)
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

    seed: int = Field(ge=0, le=MAX_SEED, description="The seed that names the trial.")
    init_seed: int = Field(
        ge=0, le=MAX_SEED, description="Drives the initial weights of the head (and of what a method adds)."
    )
    order_seed: int = Field(ge=0, le=MAX_SEED, description="Drives the order of the training examples.")
    dropout_seed: int = Field(
        ge=0, le=MAX_SEED, description="Drives dropout and every other random choice while training."
    )
