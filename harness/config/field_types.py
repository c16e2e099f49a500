"""What each key of a sweep file takes, read from its type and bounds, and the errors of keys and values."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel

from harness.common.errors import HarnessError, describe_value
from harness.config.recipe import MAX_SEED
from harness.config.yaml_reader import parse_yaml

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
    "activation_checkpointing": ("gradient_checkpointing", "use_gradient_checkpointing"),
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


_MAX_LISTED = 16  # keys that one line still lists


def unknown_key(key: str, allowed: Sequence[str], where: str) -> HarnessError:
    """The error of a key that `where` does not have, with the key that may be meant first."""
    plain = key.lower().replace("-", "_")
    spellings = {name: name for name in allowed}
    spellings |= {other: name for name in allowed for other in _ALSO_CALLED.get(name, ()) if other not in spellings}
    exact = [plain] if plain in spellings else []
    close = difflib.get_close_matches(plain, spellings, n=3)
    meant = list(dict.fromkeys(spellings[name] for name in (*exact, *close)))
    problem = f"unknown key '{key}' in {where}" + (f" (did you mean '{meant[0]}'?)" if meant else "")
    if len(allowed) > _MAX_LISTED:
        return HarnessError(problem, fix="`harness keys` lists every key")
    return HarnessError(problem, allowed=", ".join(allowed))


def missing_key(key: str, example: str) -> HarnessError:
    """The error of a key that must be given."""
    return HarnessError(f"missing required key '{key}' (for example: {example})")


def wrong_value(model: type[BaseModel], name: str, value: object, key: str) -> HarnessError:
    """The error of a value that the field `name` of a model cannot take; `key` is what the message calls it."""
    field = field_type(model, name)
    takes, fix = field.takes, None
    if isinstance(value, float) and not math.isfinite(value):
        takes = takes.replace("a number", "a finite number", 1)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        takes = takes.removeprefix("a number ")  # which it is
    elif isinstance(value, str) and field.kind in ("number", "integer"):
        if isinstance(parse_yaml(value, key), int | float):
            fix = "Remove the quotes"
        elif "," in value:
            fix = f"Write a list of values as [{value}]"
            if re.fullmatch(r"\d+,\d+", value):
                fix = f"Write {value.replace(',', '.')} with a point, or [{value}] for two values"
    return HarnessError(f"{key} must be {takes}", got=describe_value(value), fix=fix)


class FieldType(NamedTuple):
    """What a field takes: its kind, and words that complete "… must be"."""

    kind: Literal["number", "integer", "switch", "choice", "column", "text", "spec"]
    takes: str


def field_type(model: type[BaseModel], name: str) -> FieldType:
    """What a field of a model takes, from its type and bounds."""
    field = model.model_fields[name]
    union = get_origin(field.annotation) in (Union, UnionType)
    members = get_args(field.annotation) if union else (field.annotation,)
    metadata = [*field.metadata, *(item for member in members for item in getattr(member, "__metadata__", ()))]
    metadata += [inner for item in metadata for inner in getattr(item, "metadata", ())]  # of a Field in an Annotated
    members = tuple(get_args(member)[0] if hasattr(member, "__metadata__") else member for member in members)
    or_null = " or null" if NoneType in members else ""
    words = [word for member in members for word in get_args(member) if isinstance(word, str)]
    if words and str in members:
        return FieldType("choice", f"one of {', '.join(words)}, or FILE.py:FUNCTION{or_null}")
    if words and not {bool, float} & set(members):
        return FieldType("choice", f"one of {', '.join(words)}" + (", or null" if or_null else ""))
    or_else = "".join(f" or {word}" for word in words) + or_null
    if bool in members:
        return FieldType("switch", f"on, off{or_else}" if or_else else "on or off")
    if float in members:
        return FieldType("number", f"a number{_bounds(metadata)}{',' if or_else else ''}{or_else}")
    if str in members and int in members:
        return FieldType("column", f"a column's name or its number from 0{',' if or_null else ''}{or_null}")
    if int in members:
        return FieldType("integer", f"a whole number{_bounds(metadata)}{',' if or_null else ''}{or_null}")
    if str in members:
        listed = ", a list of texts," if any(get_origin(member) is tuple for member in members) else ""
        return FieldType("text", f"non-empty text{listed}{or_null}")
    return FieldType("spec", _SPECS[name])


def _bounds(metadata: Sequence[Any]) -> str:
    """The limits of a number: `> 0`, `between 0 and 1`, `>= 0 and < 1`."""
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    limits = {name: getattr(item, name) for name in signs for item in metadata if hasattr(item, name)}
    if "ge" in limits and "le" in limits:
        return f" between {limits['ge']} and {'2^63 − 1' if limits['le'] == MAX_SEED else limits['le']}"
    texts = [f"{signs[name]} {value}" for name, value in limits.items()]
    return f" {' and '.join(texts)}" if texts else ""


_SPECS = {
    "task": "a GLUE task's name, embedded, or {name: …, files: …}",
    "model": "a name on the hub, embedded, a folder, or {name: …, folder: …}",
    "files": "a folder, or {train: FILE, validation: FILE}, with test: FILE if there is one",
    "synonyms": "a .tsv file, or {name: …, file: …}",
    "translator": "a folder, or {name: …, folder: …}",
    "back_translator": "a folder, or {name: …, folder: …}",
}
