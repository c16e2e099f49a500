"""A finished trial's weights, kept as a folder that other programs load: written whole or not at all.

A worker writes them beside the records, where it sees that folder; from another node they come back with the results.
"""

from __future__ import annotations

import copy
import hashlib
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import safetensors
from pydantic import BaseModel, ConfigDict, ValidationError

from harness.common import hub
from harness.common.errors import HarnessError, describe_os_error
from harness.common.files import file_sha256, opened_regular, read_regular
from harness.config.recipe import METHODS, ModelSpec
from harness.config.trials import Trial
from harness.records.store import Store

if TYPE_CHECKING:
    from harness.data.tokenized import Task


Which = Literal["best", "all", "none"]


KeptAs = Literal["best", "all", "rerun"]  # by a sweep that keeps each cell's best, or all; or one trial trained again


Form = Literal["model", "peft", "tensors", "files"]  # the last: what a script left


Files = Mapping[str, np.ndarray]  # name in a folder -> bytes [size], uint8


CARD = "harness.json"


# What transformers and peft call a folder's weights; the last is the harness's own.
_WEIGHTS: dict[Form, str] = {
    "model": "model.safetensors",
    "peft": "adapter_model.safetensors",
    "tensors": "trained.safetensors",
}


_UNREAD = "unread.safetensors"  # the rows of a regression's head that nothing reads


class Part(BaseModel):
    """A trained tensor: its name in training, its shape there, and its key in the folder's file of weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    shape: tuple[int, ...]
    key: str


class Card(BaseModel):
    """What a kept model's folder says of itself: which trial it is of, and how the hashed weights lie in it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schema_version: Literal[1] = 1
    sweep: str
    profile: str
    trial: Trial
    kept_as: KeptAs
    form: Form
    label_names: tuple[str, ...] | None
    pairs: bool
    metric: str
    final_score: float | None
    label_threshold: float | None = None  # as in `Measured`
    outcome: str | None
    model_sha256: str | None
    config_sha256: str | None = None  # as in `Measured`
    weights_sha256: str | None
    parts: tuple[Part, ...]
    abstains: bool = False  # whether a question about a context may be answered by nothing
    files: tuple[tuple[str, str], ...] = ()  # as `file_hashes` gives them; none in early cards, nor of a script's


class UnkeptError(Exception):
    """Weights could not be written; the text says where and why."""


def unkept_error(folder: Path, error: Exception) -> UnkeptError:
    """The error of a folder that could not be written."""
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
    return UnkeptError(f"{folder} ({reason})")


def base_model(trial: Trial) -> str:
    """What an adapter stands on: a folder, from wherever it is asked for, or the hub's name."""
    location = hub.location(trial.recipe.model)
    return str(Path(location).resolve()) if Path(location).is_dir() else location


def form_of(trial: Trial) -> Form:
    """Whether a trial's weights are a whole model or an adapter."""
    return METHODS[trial.recipe.method].saved_as


def write_model(folder: Path, trial: Trial, task: Task, weights: np.ndarray) -> tuple[Part, ...]:
    """Write a folder without its card, and say where its trained tensors lie."""
    from safetensors.numpy import save_file

    from harness.models import pretrained

    recipe, form = trial.recipe, form_of(trial)
    kind = recipe.task.kind
    network = pretrained.network(recipe.model, pretrained.outputs(kind, task.num_labels), recipe.peft_config, kind=kind)
    outputs_read = pretrained.outputs_read(kind, task.num_labels)
    module: Any = network.module
    own, unread, parts, start = {}, {}, [], 0
    for name, value in network.pretrained.items():
        size, shape = value.numel(), tuple(value.shape)
        tensor = weights[start : start + size].reshape(shape)
        start += size
        key = _peft_key(name) if form == "peft" else name
        if outputs_read == 1 and name in network.head and len(shape) > 0 and shape[0] == 2:
            tensor, unread[key] = tensor[:1], tensor[1:]
        own[key] = tensor
        parts.append(Part(name=name, shape=shape, key=key))
    if form == "model":
        for name, value in module.named_parameters():
            if name not in own:
                own[name] = value.detach().cpu().numpy()
        saved = module.state_dict()
        for name, value in module.named_buffers():
            if name in saved:
                own[name] = value.cpu().numpy()
    elif form == "peft":
        from harness.models import methods

        methods.save_config(folder, module, network.head, recipe.lora_alpha, base_model(trial), kind=kind)
    _save_config(folder, module, task.label_names, kind)
    tokenizer = pretrained.tokenizer(recipe.model)
    tokenizer.model_max_length = recipe.max_length  # for those who ask their pipeline to cut
    tokenizer.padding_side = "left" if kind == "completion" else "right"  # left: to generate
    if kind == "completion":
        tokenizer.init_kwargs["padding_side"] = "left"  # what is written
    if not recipe.token_type_ids:  # else a pair's second text is of another type than in training
        names = tokenizer.model_input_names
        tokenizer.model_input_names = [name for name in names if name != "token_type_ids"]
    tokenizer.save_pretrained(folder)
    save_file(_contiguous(own), folder / _WEIGHTS[form], {"format": "pt"})
    if unread:
        save_file(_contiguous(unread), folder / _UNREAD)
    return tuple(parts)


def _contiguous(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(value) for name, value in tensors.items()}


def _peft_key(name: str) -> str:
    """The name that peft gives a tensor in its files, which hold one adapter without its name."""
    return f"base_model.model.{name.replace('.default', '')}"


_PROBLEMS = {
    "tokens": None,
    "choice": None,
    "labels": "multi_label_classification",
}  # as a `config.json` calls a kind of task


def _save_config(folder: Path, module: Any, label_names: tuple[str, ...] | None, kind: str) -> None:
    """Write the `config.json` by which a pipeline names the labels, and puts no sigmoid on a regression's number.

    A language model has no labels, and what it generates with beside it.
    """
    config = copy.deepcopy(module.config)
    config.architectures = [type(module).__name__]
    if kind == "completion":
        config.use_cache = True
        if module.can_generate():
            module.generation_config.save_pretrained(folder)
    elif kind == "span":  # start and end, which have no names
        pass
    elif label_names is None:
        config.num_labels, config.problem_type = 1, "regression"
    else:
        config.id2label = dict(enumerate(label_names))
        config.label2id = {name: number for number, name in enumerate(label_names)}
        config.problem_type = _PROBLEMS.get(kind, "single_label_classification")
    config.save_pretrained(folder)
    home = Path(module.config.name_or_path)
    if getattr(config, "auto_map", None) and home.is_dir():  # a model with code of its own needs it again
        for path in home.glob("*.py"):
            shutil.copy(path, folder)


def link_base(folder: Path, model: ModelSpec) -> None:
    """Link the base's weights into an adapter's folder, where this machine has them as files.

    By an adapter's `config.json` transformers takes the labels from the folder itself, and then looks for the base's
    weights there too, not where `base_model_name_or_path` says.
    """
    base = hub.folder_of(model)
    for pattern in ("model*.safetensors*", "pytorch_model*.bin*"):
        weights = [] if base is None else sorted(base.glob(pattern))
        for path in weights:
            (folder / path.name).unlink(missing_ok=True)
            (folder / path.name).symlink_to(path.resolve())
        if weights:
            return


def remove_folder(folder: Path) -> None:
    """Remove a kept model so that a kill leaves it whole or no more than a hidden rest."""
    gone = folder.with_name(f".{folder.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    folder.rename(gone)
    shutil.rmtree(gone)


# -------------------------------------------------------------------------------------------------- what is kept


def read_card(folder: Path) -> Card:
    """What a kept model's folder says of itself; raises HarnessError where it is none."""
    try:
        return Card.model_validate_json(read_regular(folder / CARD, 2**24))
    except (OSError, ValidationError) as error:
        reason = describe_os_error(error) if isinstance(error, OSError) else f"its {CARD} is not one of a saved model"
        results = folder.parent.parent
        if folder.parent.name == "models" and Store(results).path(folder.name).is_file():
            again = shlex.join(["harness", "rerun", str(results), "--trial", folder.name, "--keep"])
            raise HarnessError(
                f"the weights of trial {folder.name} are not saved in {results}",
                fix=f"`{again}` trains it again and saves them; `harness sweep … --keep all` saves every trial's",
            ) from None
        raise HarnessError(
            f"{folder} is not a saved model: {reason}",
            fix="Name a folder results/<sweep>@<profile>/models/<trial id>, or save one with `harness rerun … --keep`",
        ) from None


def read_cards(folder: Path) -> Iterator[Card]:
    """The cards of all saved models of a folder that can be read."""
    for path in sorted(folder.glob(f"*/{CARD}")):
        with suppress(HarnessError):
            card = read_card(path.parent)
            if card.trial.id == path.parent.name:
                yield card


def kept(store: Store) -> dict[str, Card]:
    """The kept models of a results folder by trial id."""
    return {card.trial.id: card for card in read_cards(store.folder / "models")}


def weights(store: Store, trial_id: str) -> dict[str, np.ndarray]:
    """A kept trial's trained tensors by name, in the order and shapes they were trained in, float32.

    Raises HarnessError where they are not kept, or are not those that the trial's record was hashed of.
    """
    folder = place(store, trial_id)
    values, record = tensors(folder), store.load(trial_id)
    if record and record.measured and record.measured.weights_sha256 != read_card(folder).weights_sha256:
        raise _changed(folder, "weights of another run than the record's")
    return values


def place(store: Store, trial_id: str) -> Path:
    """The folder of a trial's kept model; raises HarnessError where there is none."""
    folder = store.folder / "models" / trial_id
    if not folder.is_dir():
        again = shlex.join(["harness", "rerun", str(store.folder), "--trial", trial_id, "--keep"])
        raise HarnessError(
            f"the weights of trial {trial_id} are not saved in {store.folder}",
            allowed=", ".join(list(kept(store))[:10]) or None,
            fix=f"`{again}` trains it again and saves them",
        )
    return folder


def tensors(folder: Path) -> dict[str, np.ndarray]:
    """The trained tensors of a kept model's folder, as `weights` gives them."""
    from safetensors.numpy import load_file

    card, values, digest = read_card(folder), {}, hashlib.sha256()
    refuse_files(folder, card)
    try:
        opened_regular(folder / _WEIGHTS[card.form]).close()  # a FIFO would be waited for
        own = load_file(folder / _WEIGHTS[card.form])
        unread = load_file(folder / _UNREAD) if (folder / _UNREAD).is_file() else {}
        for part in card.parts:
            value = own[part.key]
            if part.key in unread:
                value = np.concatenate([value, unread[part.key]])
            values[part.name] = value.reshape(part.shape)
            digest.update(values[part.name].tobytes())
    except OSError as error:
        raise _changed(folder, f"{error.filename}: {describe_os_error(error)}") from None
    except (KeyError, ValueError, safetensors.SafetensorError) as error:
        raise _changed(folder, " ".join(str(error).split())[:200]) from None
    if digest.hexdigest() != card.weights_sha256:
        raise _changed(folder, "other bits than were trained")
    return values


def check_loaded(folder: Path, module: Any, values: Mapping[str, np.ndarray]) -> None:
    """Raise HarnessError unless the network that a whole model's folder gives has the folder's `tensors`.

    transformers leaves out what has no place by `config.json`, as the last layer where that says one less.
    """
    loaded = dict(module.named_parameters())
    for part in read_card(folder).parts:
        place = loaded.get(part.key)
        value = None if place is None else place.detach().cpu().numpy()
        if value is None or not np.array_equal(value, values[part.name][: len(value)] if value.ndim else value):
            raise _changed(folder, f"its config.json has no place for {part.key}")


def file_hashes(folder: Path) -> tuple[tuple[str, str], ...]:
    """Name and SHA-256 of the files that decide a saved model's answers, weights and all.

    Not of the card, and of no link nor `adapter_config.json`, which the driver writes: they lead to the base.
    """
    names = (path.name for path in sorted(folder.iterdir()) if path.is_file() and not path.is_symlink())
    return tuple((name, file_sha256(folder / name)) for name in names if name not in (CARD, "adapter_config.json"))


def check_files(folder: Path, card: Card) -> None:
    """Raise HarnessError where a file of a saved model is gone or another: with it, its answers may be others too."""
    for name, digest in card.files:
        try:
            problem = None if file_sha256(folder / name) == digest else "was changed"
        except OSError as error:
            problem = f"can't be read ({describe_os_error(error)})"
        if problem is not None:
            raise HarnessError(
                f"the saved model in {folder} is not as it was saved: {name} {problem}",
                fix="Restore the file, or save the model again with `harness rerun … --keep`",
            )


def refuse_files(folder: Path, card: Card) -> None:
    """Raise HarnessError for what a script left, whose form only its author knows."""
    if card.form == "files":
        raise HarnessError(f"{folder} is the model of a script, which the harness can't read", fix="Load it yourself")


def _changed(folder: Path, problem: str) -> HarnessError:
    return HarnessError(
        f"the saved weights in {folder} are not those of their trial's record: {problem}",
        fix="Save them again with `harness rerun … --keep`",
    )
