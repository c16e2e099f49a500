"""Which fields of a recipe belong together or exclude each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from harness.common.errors import HarnessError, describe_value
from harness.common.text import show
from harness.config.recipe import OF_METHODS, ModelSpec, Recipe, Spec, TaskFiles, TaskSpec, WordList
from harness.config.yaml_reader import field_rule, parse_yaml, unknown_key


def build_recipe(fields: Mapping[str, Any], where: str) -> Recipe:
    """A checked recipe from its fields; raises HarnessError with the key that is wrong."""
    try:
        recipe = Recipe.model_validate(dict(fields))
    except ValidationError as error:
        raise _explained(error, where) from None
    _check_method(recipe)
    _check(recipe)
    return recipe


def _check_method(recipe: Recipe) -> None:
    """Refuse settings of a method that is not the recipe's; what they are by default is none."""
    for name, methods in OF_METHODS.items():
        value = getattr(recipe, name)
        if not recipe.uses_field(name) and value != Recipe.model_fields[name].default:
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
    ("early_stopping_on", "early_stopping_patience or keep_best", lambda r: r.selects_checkpoint),
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
        return unknown_key(str(first["loc"][-1]), tuple((model or Recipe).model_fields), field)
    given = first["input"]
    if first["type"] == "missing":
        axis = "a value, or a list for an axis" if len(path) == 1 else "a value"
        return HarnessError(f"{where} needs {field}", got="nothing", allowed=axis, fix=f"add {path[-1]}: …")
    kind, allowed = field_rule(owner, path[-1])
    fix = f"correct {field} in {where}"
    if isinstance(given, str) and kind in ("a number", "a whole number"):
        if isinstance(parse_yaml(given, field), int | float):
            fix = f"drop the quotes around {field}"
        elif "," in given:
            fix = f"write an axis as [{given}]"
    return HarnessError(f"{field} is {kind}", got=describe_value(given), allowed=allowed, fix=fix)
