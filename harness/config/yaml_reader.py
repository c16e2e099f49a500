"""YAML as a sweep file uses it: no key twice, no typographic quotes, near misses named."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

from harness.common.errors import HarnessError, describe_value

# ---------------------------------------------------------------------------------------------------- reading YAML


PROSE = ("title", "stand_in")  # whose words may stand in any quotes


_TYPOGRAPHIC = "“”„‟‘’‚‛«»‹›"


def refuse_typographic(node: yaml.Node | None) -> None:
    """Refuse quotes that a word processor bent: YAML takes them for letters."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            refuse_typographic(item)
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
            if key.value not in PROSE:
                refuse_typographic(value)
            refuse_typographic(key)
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


def parse_yaml(text: str, source: str) -> Any:
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


def unknown_key(key: str, allowed: Sequence[str], where: str) -> HarnessError:
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


def require_mapping(value: object, where: str) -> dict[str, Any]:
    """Raise HarnessError for what is no mapping."""
    if not isinstance(value, dict):
        raise HarnessError(
            f"{where} is a mapping",
            got=describe_value(value),
            allowed="key: value lines, or {} for none",
            fix="write it so",
        )
    return value


def field_rule(model: type[BaseModel], name: str) -> tuple[str, str]:
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
