"""Which fields of a recipe belong together or exclude each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from harness.common.errors import HarnessError
from harness.common.metrics import LANGUAGE, MANY_LABELS, SPANS, Metric
from harness.common.text import show
from harness.config.field_types import missing_key, unknown_key, wrong_value
from harness.config.recipe import METHODS_READING, ModelSpec, Recipe, Spec, TaskFiles, TaskSpec, WordList


def build_recipe(fields: Mapping[str, Any], where: str) -> Recipe:
    """A checked recipe.

    Args:
        fields: The values by their keys, as a sweep file gives them.
        where: What holds them, for the message: "the sweep", "search.space".

    Raises:
        HarnessError: A key is unknown, missing or has a value that is not allowed, or two of them exclude each other.
    """
    recipe = read_recipe(fields, where)
    check_recipe(recipe)
    return recipe


def read_recipe(fields: Mapping[str, Any], where: str) -> Recipe:
    """A recipe whose values are each allowed; as `build_recipe`, but for what excludes each other."""
    try:
        return Recipe.model_validate(dict(fields))
    except ValidationError as error:
        raise _explained(error, where) from None


def check_recipe(recipe: Recipe) -> None:
    """Raise HarnessError where two of a recipe's fields exclude each other, or one lacks what it needs."""
    _check_method(recipe)
    _check_task(recipe.task)
    _check_kind(recipe)
    _check_requirements(recipe)
    _check_schedule(recipe)
    _check_evaluations(recipe)


def _check_method(recipe: Recipe) -> None:
    """Refuse settings of a method that is not the recipe's; what they are by default is none."""
    for name, methods in METHODS_READING.items():
        value = getattr(recipe, name)
        if not recipe.uses_field(name) and value != Recipe.model_fields[name].default:
            choices = " or ".join(methods)
            raise HarnessError(
                f"{name}: {show(value)} requires method: {choices}",
                got=f"method: {recipe.method}",
                fix=f"Remove {name} or change the method; `recipes:` bundles settings that belong together",
            )
    if recipe.method == "top_layers" and recipe.top_layers is None:
        raise HarnessError("method: top_layers requires the key top_layers (for example: top_layers: 2)")


def check_reinit(recipe: Recipe, layers: int) -> None:
    """Refuse to reinitialise more layers than the model has (raises HarnessError)."""
    if recipe.reinit_layers > layers:
        raise HarnessError(
            f"reinit_layers must be at most the model's {layers} layers",
            got=recipe.reinit_layers,
            fix="Lower reinit_layers",
        )


# (field, the setting that it says more about, whether a recipe has that setting)
_REQUIRES: tuple[tuple[str, str, Callable[[Recipe], bool]], ...] = (
    ("schedule_power", "schedule: polynomial", lambda r: r.schedule == "polynomial"),
    ("schedule_end", "schedule: polynomial", lambda r: r.schedule == "polynomial"),
    ("ema_decay", "averaging: ema", lambda r: r.averaging == "ema"),
    ("average_last", "averaging: last", lambda r: r.averaging == "last"),
    ("momentum", "optimizer: sgd", lambda r: r.optimizer == "sgd"),
    ("clip_per_tensor", "max_grad_norm", lambda r: r.max_grad_norm is not None),
    ("bias_correction", "optimizer: adamw or lamb", lambda r: r.optimizer in ("adamw", "lamb")),
    ("beta1", "optimizer: adamw or lamb", lambda r: r.optimizer != "adafactor"),
    ("beta2", "optimizer: adamw or lamb", lambda r: r.optimizer != "adafactor"),
    ("eps", "optimizer: adamw or lamb", lambda r: r.optimizer != "adafactor"),
    ("augment_rate", "augment: swap, delete, insert or synonyms", lambda r: r.augment not in ("none", "backtranslate")),
    ("augment_copies", "an augment other than none", lambda r: r.augment != "none"),
    ("synonyms", "augment: synonyms or insert", lambda r: r.augment in ("synonyms", "insert")),
    ("translator", "augment: backtranslate", lambda r: r.augment == "backtranslate"),
    ("back_translator", "augment: backtranslate", lambda r: r.augment == "backtranslate"),
    ("early_stopping_on", "early_stopping_patience or keep_best", lambda r: r.selects_checkpoint),
    ("activation_checkpointing", "task.kind: completion", lambda r: r.task.kind == "completion"),
    # Dropout's masks would have to be kept for the layers that are computed again.
    ("activation_checkpointing", "dropout: 0", lambda r: not r.drops),
    ("r_drop", "dropout > 0", lambda r: r.drops),  # its two passes differ by it
    # They are about the pretrained weights, which other methods leave as they are.
    ("reinit_layers", "method: full", lambda r: r.method == "full"),
    ("mixout", "method: full", lambda r: r.method == "full"),
    ("pretrained_decay", "method: full", lambda r: r.method == "full"),
)


# Fields that say more about a choice: of what makes another choice, they decide nothing. R-Drop is no such field: it is
# a remedy that somebody asked for, and without dropout it would be none; nor is saving memory.
_ASKED_FOR = ("r_drop", "activation_checkpointing")
OF_A_CHOICE: dict[str, Callable[[Recipe], bool]] = {
    name: is_met for name, _, is_met in _REQUIRES if name not in _ASKED_FOR
} | {name: lambda recipe, name=name: recipe.uses_field(name) for name in METHODS_READING}


def choice_of(name: str) -> str:
    """What a field of `OF_A_CHOICE` says more about: `method: lora`."""
    if name in METHODS_READING:
        return f"method: {' or '.join(METHODS_READING[name])}"
    return next(setting for field, setting, _ in _REQUIRES if field == name)


_SYNONYMS = "a .tsv file, one word per line: the word, a tab, its synonyms separated by tabs"


# (augmentation, the key that it needs, what that key takes)
_AUGMENT_NEEDS = (
    ("synonyms", "synonyms", _SYNONYMS),
    ("insert", "synonyms", _SYNONYMS),
    ("backtranslate", "translator", "the folder of a seq2seq model (back_translator: of the one that translates back)"),
)


_EXCLUSIVE = (("eval_steps", "eval_every"), ("freeze_steps", "unfreeze_every"))


def _differs(recipe: Recipe, name: str) -> bool:
    """Whether a field has another value than its default."""
    return bool(getattr(recipe, name) != Recipe.model_fields[name].default)


def _check_task(task: TaskSpec) -> None:
    """Refuse keys of a task that exclude each other, and files without a dev split."""
    _check_completion_metric(task)
    _check_choice(task)
    for kind, own in _METRICS_OF_KIND.items():
        if task.metric is not None and (task.metric in own) != (task.kind == kind):
            raise HarnessError(
                f"metric {task.metric} requires task.kind: {kind}"
                if task.metric in own
                else f"metric {task.metric} cannot be used with task.kind: {kind}",
                allowed=None if task.metric in own else " or ".join(own),
                fix="Change task.metric or task.kind",
            )
    for name in ("stride", "max_answer_length"):
        if task.kind != "span" and getattr(task, name) != TaskSpec.model_fields[name].default:
            raise HarnessError(f"task.{name} requires task.kind: span", fix=f"Remove task.{name}")
    if task.threshold != 0.5 and task.kind != "labels":
        raise HarnessError("task.threshold requires task.kind: labels", fix="Remove task.threshold")
    if (task.metric == "f1_entity") != (task.kind == "tokens") and task.metric is not None:
        problem = (
            "metric f1_entity requires task.kind: tokens"
            if task.kind != "tokens"
            else (f"task.kind: tokens has one metric, f1_entity (got {task.metric})")
        )
        raise HarnessError(problem, fix="Change task.metric or task.kind")
    if task.encoding is not None:
        _check_encoding(task.encoding)
    if task.metric is not None and ":" in task.metric and task.metric_file is None:
        raise HarnessError("task.metric must name the file of its function, as FILE.py:FUNCTION", got=task.metric)
    if task.metric_file is not None and ":" not in (task.metric or ""):
        raise HarnessError("task.metric_file requires task.metric: FILE.py:FUNCTION", fix="Remove task.metric_file")
    for field in _NOT_OF_KIND.get(task.kind, ()):
        if getattr(task, field) is not None:
            raise HarnessError(f"task.{field} cannot be used with task.kind: {task.kind}", fix=f"Remove task.{field}")
    if task.validation is not None and (task.files is None or task.name == "embedded"):
        raise HarnessError(
            "task.validation requires task.files: it is the share of your own training file that becomes the dev split",
            got=f"{show(task.validation)} for '{task.name}'",
            fix="Remove task.validation, or set task.files",
        )
    if task.files is not None and task.files.validation is None and task.validation is None:
        raise HarnessError(
            "task.files has a training file but no dev split",
            fix="Add task.files.validation, or task.validation: 0.1 to split off a tenth of the training file",
        )


# Columns and readings of a file that a kind of task has not.
_NOT_OF_KIND = {
    "tokens": ("text_pair", "quoting"),
    "completion": ("text_pair", "quoting", "header"),
    "choice": ("header",),
    "span": ("quoting", "header"),
}
# Kinds that are scored by metrics of their own alone, which no other kind has.
_METRICS_OF_KIND: dict[str, tuple[Metric, ...]] = {"labels": MANY_LABELS, "span": SPANS}
_COMPLETION_METRICS = (*LANGUAGE, "accuracy")


def _check_completion_metric(task: TaskSpec) -> None:
    """Refuse metrics of classes for answers in words, and those of answers for classes."""
    if task.kind != "completion":
        if task.metric in LANGUAGE:
            raise HarnessError(
                f"metric {task.metric} requires task.kind: completion", fix="Change task.metric or task.kind"
            )
        if task.max_new_tokens is not None:
            raise HarnessError("task.max_new_tokens requires metric: token_f1", fix="Remove task.max_new_tokens")
        if task.loss_on != "completion":
            raise HarnessError("task.loss_on requires task.kind: completion", fix="Remove task.loss_on")
    elif task.metric is not None and task.metric not in _COMPLETION_METRICS:
        raise HarnessError(
            f"metric {task.metric} cannot be used with task.kind: completion",
            allowed=f"{', '.join(LANGUAGE)}, or accuracy where rows have choices",
        )


def _check_choice(task: TaskSpec) -> None:
    """Refuse metrics of classes for places among choices, and choices where there are none."""
    if task.kind != "choice":
        if task.choices is not None:
            raise HarnessError("task.choices requires task.kind: choice", fix="Remove task.choices")
    elif task.metric is not None and ":" not in task.metric and task.metric not in _CHOICE_METRICS:
        raise HarnessError(
            f"metric {task.metric} cannot be used with task.kind: choice: a choice's position is no class",
            allowed=f"{', '.join(_CHOICE_METRICS)}, or a function of your own",
            fix="Change task.metric or task.kind",
        )


_CHOICE_METRICS = ("accuracy", "neg_log_loss", "neg_brier_score")
# (field, why it means nothing where a label is a choice's position)
_NOT_OF_CHOICES = (
    *((name, "is of classes, and a choice's position is none") for name in ("class_weights", "oversample")),
    ("mixup", "would mix the choices of two examples"),
    ("augment", "changes single texts and pairs"),
)


# (field, why it means nothing for a causal language model, all of whose weights are pretrained)
_NOT_OF_COMPLETIONS = (
    *((name, "requires classes") for name in ("label_smoothing", "class_weights", "oversample", "mixup")),
    ("freeze_steps", "trains the head first, and a language model has no new one"),
    ("augment", "changes texts, and answers would not fit them"),
    ("token_type_ids", "marks the second text of a pair"),
)


# (field, why it means nothing for answers that are parts of a context)
_NOT_OF_SPANS = (
    *((name, "requires classes") for name in ("label_smoothing", "class_weights", "oversample", "mixup", "r_drop")),
    ("augment", "changes texts, and answers would not stand in them"),
)


def _check_spans(recipe: Recipe) -> None:
    """Refuse what does not go with a task of questions about contexts."""
    for name, reason in _NOT_OF_SPANS:
        if _differs(recipe, name):
            raise HarnessError(f"{name} cannot be used with task.kind: span: it {reason}", fix=f"Remove {name}")
    if recipe.task.stride is not None and recipe.task.stride >= recipe.max_length:
        raise HarnessError(
            f"task.stride must be below max_length {recipe.max_length}: it is what two windows share",
            got=recipe.task.stride,
            fix="Lower task.stride",
        )


def _check_kind(recipe: Recipe) -> None:
    """Refuse what does not go with a task of completions or of questions, and what goes with no other."""
    if recipe.task.kind == "span":
        _check_spans(recipe)
    if recipe.task.kind != "completion":
        if recipe.padding_side == "left":
            raise HarnessError("padding_side: left requires task.kind: completion", fix="Remove padding_side")
        for name, reason in _NOT_OF_CHOICES if recipe.task.kind == "choice" else ():
            if _differs(recipe, name):
                raise HarnessError(f"{name} cannot be used with task.kind: choice: it {reason}", fix=f"Remove {name}")
        return
    if recipe.method == "head":
        raise HarnessError(
            "method: head cannot be used with task.kind: completion: a language model has no new head",
            fix="Use full, top_layers or a PEFT method",
        )
    for name, reason in _NOT_OF_COMPLETIONS:
        if _differs(recipe, name):
            raise HarnessError(f"{name} cannot be used with task.kind: completion: it {reason}", fix=f"Remove {name}")
    if recipe.padding_side == "left" and recipe.method == "prompt":
        raise HarnessError("padding_side: left cannot be used with method: prompt", fix="Use padding_side: right")


def _check_encoding(name: str) -> None:
    """Refuse what is no encoding of texts, and one whose lines do not end as those of UTF-8."""
    try:
        ends = "\n".encode(name) == b"\n"
    except (LookupError, ValueError):
        ends = False
    if not ends:
        raise HarnessError(
            "task.encoding must be an encoding whose lines end with the byte 0x0a",
            got=f"'{name}'",
            allowed="shift_jis, cp932, euc_jp, cp1252, latin-1, gb18030, big5, euc_kr, koi8_r, …",
            fix="Convert files of UTF-16 to UTF-8",
        )


def _check_requirements(recipe: Recipe) -> None:
    """Refuse fields whose companion is missing, and pairs of which only one may be set."""
    for name, setting, is_met in _REQUIRES:
        if _differs(recipe, name) and not is_met(recipe):
            value = getattr(recipe, name)
            text = f"{name}: {value.name if isinstance(value, Spec) else show(value)}"
            raise HarnessError(f"{text} requires {setting}", fix=f"Remove {name}, or set {setting}")
    for first, second in _EXCLUSIVE:
        if _differs(recipe, first) and _differs(recipe, second):
            raise HarnessError(f"{first} and {second} cannot both be set", fix="Remove one of them")
    for augment, field, takes in _AUGMENT_NEEDS:
        if recipe.augment == augment and not _differs(recipe, field):
            raise HarnessError(f"augment: {augment} requires {field}: {takes}", fix=f"Add {field}, or remove augment")


def _check_schedule(recipe: Recipe) -> None:
    """Refuse a final learning rate above the peak, and micro-batches of unequal size."""
    if recipe.schedule_end >= recipe.lr:
        raise HarnessError(
            f"schedule_end must be below lr {show(recipe.lr)}", got=show(recipe.schedule_end), fix="Lower schedule_end"
        )
    if recipe.batch_size % recipe.gradient_accumulation:
        divisors = [number for number in range(1, recipe.batch_size + 1) if recipe.batch_size % number == 0]
        raise HarnessError(
            f"gradient_accumulation must divide batch_size {recipe.batch_size}",
            got=recipe.gradient_accumulation,
            allowed=", ".join(map(str, divisors[:20])),
        )


def _check_evaluations(recipe: Recipe) -> None:
    """Refuse a patience that can never run out, and an average over more epochs than there are."""
    once_an_epoch = recipe.eval_steps is None and recipe.eval_every is None
    patience = recipe.early_stopping_patience
    if patience is not None and once_an_epoch and patience >= recipe.epochs:
        raise HarnessError(
            f"early_stopping_patience {patience} must be less than the number of evaluations, {recipe.epochs}"
            " (one per epoch)",
            fix="Evaluate more often with eval_every" + (", or lower the patience" if recipe.epochs > 1 else ""),
        )
    if recipe.averaging == "last" and recipe.average_last > recipe.epochs:
        raise HarnessError(
            f"average_last must be at most the number of epochs, {recipe.epochs}",
            got=recipe.average_last,
            fix="Lower average_last",
        )


# Of keys that must be given.
_EXAMPLES = {
    "task": "rte", "task.name": "reviews", "task.files.train": "train.tsv", "model": "bert-base-uncased",
    "model.name": "bert-base-uncased", "lr": "2e-5", "epochs": "3", "synonyms.name": "wordnet",
    "synonyms.file": "words.tsv", "translator.name": "en-de", "back_translator.name": "de-en",
}  # fmt: skip


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
        return unknown_key(str(first["loc"][-1]), tuple((model or Recipe).model_fields), field)
    if first["type"] == "missing":
        return missing_key(field, f"{path[-1]}: {_EXAMPLES.get(field, '…')}")
    return wrong_value(owner, path[-1], first["input"], field if where == "the sweep" else f"{field} in {where}")
