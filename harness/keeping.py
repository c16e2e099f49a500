"""A finished trial's weights, kept as a folder that other programs load: written whole or not at all.

A worker writes them beside the records, where it sees that folder; from another node they come back with the results.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import shlex
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import safetensors
from pydantic import BaseModel, ConfigDict, ValidationError

from harness import hub
from harness.records import Measured, Record, Store, flush, write_json
from harness.sweep import HarnessError, ModelSpec, Sweep, Trial, expand

if TYPE_CHECKING:
    from harness.tokenising import Task

Which = Literal["best", "all", "none"]
KeptAs = Literal["best", "all", "rerun"]  # by a sweep that keeps each cell's best, or all; or one trial trained again
Form = Literal["model", "peft", "tensors"]
Files = Mapping[str, np.ndarray]  # name in a folder -> bytes [size], uint8

CARD = "harness.json"
# What transformers and peft call a folder's weights; the last is the harness's own.
_WEIGHTS: dict[Form, str] = {
    "model": "model.safetensors",
    "peft": "adapter_model.safetensors",
    "tensors": "trained.safetensors",
}
_UNREAD = "unread.safetensors"  # the rows of a regression's head that nothing reads
_FORMS: dict[str, Form] = {
    "lora": "peft",
    "ia3": "peft",
    "prefix": "tensors",
    "prompt": "tensors",
    "adapter": "tensors",
}


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
    outcome: str
    model_sha256: str
    weights_sha256: str
    parts: tuple[Part, ...]


class UnkeptError(Exception):
    """Weights could not be written; the text says where and why."""


# --------------------------------------------------------------------------------------------- what a worker does


@dataclass(frozen=True)
class Keeping:
    """Where and of which trials a worker leaves the weights: each in `.<trial id>.staged`, for the driver to publish.

    The `marker` is a file of the folder, by which a worker knows that it sees the driver's.
    """

    folder: Path
    which: KeptAs
    marker: str

    def chosen(self, scores: Sequence[tuple[int, float | None]]) -> list[int]:
        """Which lanes of a pack are left, of their cells and final scores: all, or the first of a cell's best.

        The lanes of a rerun are one trial.
        """
        if self.which != "best":
            return list(range(len(scores) if self.which == "all" else 1))
        best: dict[int, int] = {}
        for lane, (cell, score) in enumerate(scores):
            if cell not in best or _rank(score) > _rank(scores[best[cell]][1]):
                best[cell] = lane
        return sorted(best.values())

    def stage(
        self,
        sweep: str,
        profile: str,
        trial: Trial,
        measured: Measured,
        task: Task,
        weights: np.ndarray,
    ) -> None:
        """Write a trial's weights [P], in the order of its network's trained parameters; raises UnkeptError."""
        folder = _staged(self.folder, trial.id)
        try:
            _empty(folder)
            parts = _write(folder, trial, task, weights)
            card = Card(
                sweep=sweep,
                profile=profile,
                trial=trial,
                kept_as=self.which,
                form=_form(trial),
                label_names=task.label_names,
                pairs=task.pairs,
                metric=measured.metric,
                final_score=measured.final_score,
                outcome=measured.outcome,
                model_sha256=measured.model_sha256,
                weights_sha256=measured.weights_sha256,
                parts=parts,
            )
            (folder / CARD).write_text(card.model_dump_json(indent=1) + "\n", encoding="utf-8")
            _flush(folder)
        except (OSError, safetensors.SafetensorError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise _unkept(folder, error) from error

    @contextmanager
    def here(self) -> Iterator[Keeping]:
        """The same where this node sees the driver's folder, else one among its temporary files, which goes again."""
        if (self.folder / self.marker).is_file():
            yield self
            return
        with tempfile.TemporaryDirectory() as scratch:
            yield replace(self, folder=Path(scratch))

    def sent(self, here: Keeping) -> dict[str, Files]:
        """What was staged in another folder than the driver's, by trial id; nothing where it was the driver's."""
        if here.folder == self.folder:
            return {}
        staged = {_trial_id(path): path for path in sorted(here.folder.glob(".*.staged"))}
        return {
            trial: {path.name: np.fromfile(path, np.uint8) for path in sorted(folder.iterdir())}
            for trial, folder in staged.items()
        }

    def receive(self, sent: Mapping[str, Files]) -> None:
        """Write what another node sent as if it had been staged here; raises UnkeptError."""
        for trial, files in sent.items():
            folder = _staged(self.folder, trial)
            try:
                _empty(folder)
                for name, values in files.items():
                    values.tofile(folder / name)
                _flush(folder)
            except OSError as error:
                shutil.rmtree(folder, ignore_errors=True)
                raise _unkept(folder, error) from error


def _rank(score: float | None) -> float:
    """A run without a score is worse than any other."""
    return -math.inf if score is None else score


def _staged(folder: Path, trial_id: str) -> Path:
    return folder / f".{trial_id}.staged"


def _trial_id(staged: Path) -> str:
    return staged.name.removeprefix(".").removesuffix(".staged")


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _flush(folder: Path) -> None:
    for path in folder.iterdir():
        path.chmod(folder.stat().st_mode & 0o666)  # safetensors lets nobody else read
        flush(path)
    flush(folder)


def _unkept(folder: Path, error: Exception) -> UnkeptError:
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
    return UnkeptError(f"{folder} ({reason})")


def _base(trial: Trial) -> str:
    """What an adapter stands on: a folder, from wherever it is asked for, or the hub's name."""
    place = hub.location(trial.recipe.model)
    return str(Path(place).resolve()) if Path(place).is_dir() else place


def _form(trial: Trial) -> Form:
    return _FORMS.get(trial.recipe.method, "model")


def _write(folder: Path, trial: Trial, task: Task, weights: np.ndarray) -> tuple[Part, ...]:
    """Write a folder without its card, and say where its trained tensors lie."""
    from safetensors.numpy import save_file

    from harness import models

    recipe, form = trial.recipe, _form(trial)
    tokens = recipe.task.kind == "tokens"
    network = models.network(recipe.model, max(2, task.num_labels), recipe.trains, tokens=tokens)
    module: Any = network.module
    own, unread, parts, start = {}, {}, [], 0
    for name, value in network.pretrained.items():
        size, shape = value.numel(), tuple(value.shape)
        tensor = weights[start : start + size].reshape(shape)
        start += size
        key = _peft_key(name) if form == "peft" else name
        if task.num_labels == 1 and name in network.head and len(shape) > 0 and shape[0] == 2:
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
        from harness import methods

        methods.save_config(folder, module, network.head, recipe.lora_alpha, _base(trial), tokens=tokens)
    _save_config(folder, module, task.label_names, tokens=tokens)
    tokenizer = models.tokenizer(recipe.model)
    tokenizer.model_max_length = recipe.max_length  # for those who ask their pipeline to cut
    tokenizer.padding_side = "right"
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


def _save_config(folder: Path, module: Any, label_names: tuple[str, ...] | None, *, tokens: bool) -> None:
    """Write the `config.json` by which a pipeline names the labels, and puts no sigmoid on a regression's number."""
    config = copy.deepcopy(module.config)
    config.architectures = [type(module).__name__]
    if label_names is None:
        config.num_labels, config.problem_type = 1, "regression"
    else:
        config.id2label = dict(enumerate(label_names))
        config.label2id = {name: number for number, name in enumerate(label_names)}
        config.problem_type = None if tokens else "single_label_classification"
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


# --------------------------------------------------------------------------------------------- what the driver does


class Shelf:
    """The folder `models/` of a sweep while its driver holds it: publishes what workers staged."""

    def __init__(self, store: Store, sweep: Sweep, records: Mapping[str, Record], which: KeptAs) -> None:
        """Take the folder, remove what a killed driver left in it, and find each cell's best of `records` so far."""
        self.store, self.folder, self.which = store, store.folder.resolve() / "models", which
        self.folder.mkdir(parents=True, exist_ok=True)
        clear(store)
        self.keeping = Keeping(self.folder, which, f".driver-{os.urandom(8).hex()}")
        (self.folder / self.keeping.marker).touch()
        self.place = {trial.id: number for number, trial in enumerate(expand(sweep))}
        self.best = _best(sweep, records)
        self.settle()

    def publish(self, records: Sequence[Record]) -> None:
        """Make the staged folders of a pack's records the kept ones, before these are saved; raises UnkeptError.

        Of `best` only what beats its cell's best so far is kept; what that overtakes goes with `settle`.
        """
        for record in records:
            staged = _staged(self.folder, record.id)
            if self.which == "best":
                best = self.best.get(record.trial.cell)
                if not staged.is_dir() or (best is not None and self._merit(best) > self._merit(record)):
                    shutil.rmtree(staged, ignore_errors=True)
                    continue
                self.best[record.trial.cell] = record
            try:
                self._finish(staged, record.trial)
                _replace(staged, self.folder / record.id)
            except OSError as error:
                raise _unkept(staged, error) from error

    def _merit(self, record: Record) -> tuple[float, int]:
        """What the best of a cell has most of: its final score, then an early place in the plan."""
        return _score(record), -self.place[record.id]

    def _finish(self, staged: Path, trial: Trial) -> None:
        """Say what the driver alone knows: where it has the files that another node had elsewhere."""
        card = read_card(staged).model_copy(update={"trial": trial})
        (staged / CARD).write_text(card.model_dump_json(indent=1) + "\n", encoding="utf-8")
        flush(staged / CARD)
        path = staged / "adapter_config.json"
        if path.is_file():
            config = json.loads(path.read_text(encoding="utf-8"))
            write_json(path, config | {"base_model_name_or_path": _base(trial)})
            link_base(staged, trial.recipe.model)

    def settle(self) -> None:
        """Remove what was kept as a cell's best and no longer is."""
        best = {record.id for record in self.best.values()}
        for card in _cards(self.folder) if self.which == "best" else ():
            if card.kept_as == "best" and card.trial.id in self.place and card.trial.id not in best:
                _remove(self.folder / card.trial.id)

    def close(self) -> None:
        """Give the folder back; one without a model goes."""
        with suppress(OSError):
            clear(self.store)
            self.folder.rmdir()


def clear(store: Store) -> None:
    """Remove what is no kept model: what a killed driver's workers left."""
    for path in (store.folder / "models").glob(".*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _score(record: Record) -> float:
    return _rank(record.measured.final_score if record.measured else None)


def _best(sweep: Sweep, records: Mapping[str, Record]) -> dict[int, Record]:
    """The best finished trial of each cell by final score, the first in the plan where some are equal."""
    found: dict[int, list[Record]] = defaultdict(list)
    for trial in expand(sweep):
        record = records.get(trial.id)
        if record is not None and record.measured is not None:
            found[trial.cell].append(record)
    return {cell: max(records, key=_score) for cell, records in found.items()}


def _replace(made: Path, target: Path) -> None:
    if target.is_dir():
        _remove(target)
    made.rename(target)
    flush(target.parent)


def _remove(folder: Path) -> None:
    """Remove a kept model so that a kill leaves it whole or no more than a hidden rest."""
    gone = folder.with_name(f".{folder.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    folder.rename(gone)
    shutil.rmtree(gone)


# -------------------------------------------------------------------------------------------------- what is kept


def read_card(folder: Path) -> Card:
    """What a kept model's folder says of itself; raises HarnessError where it is none."""
    try:
        return Card.model_validate_json((folder / CARD).read_bytes())
    except (OSError, ValidationError) as error:
        raise HarnessError(
            "a kept model is a folder that `harness sweep --keep` wrote",
            got=f"{folder} ({getattr(error, 'strerror', None) or f'its {CARD} is none'})",
            allowed="results/<sweep>@<profile>/models/<trial id>",
            fix="name one, or keep it with `harness rerun … --keep`",
        ) from None


def _cards(folder: Path) -> Iterator[Card]:
    for path in sorted(folder.glob(f"*/{CARD}")):
        with suppress(HarnessError):
            card = read_card(path.parent)
            if card.trial.id == path.parent.name:
                yield card


def kept(store: Store) -> dict[str, Card]:
    """The kept models of a results folder by trial id."""
    return {card.trial.id: card for card in _cards(store.folder / "models")}


def unkept(sweep: Sweep, store: Store, which: Which) -> tuple[str, ...]:
    """Ids of finished trials whose weights would lie there had they been trained with `--keep`."""
    if which == "none":
        return ()
    records, there = store.records(sweep), kept(store)
    if which == "best":
        wanted = [record.id for record in _best(sweep, records).values()]
    else:
        wanted = [trial.id for trial in expand(sweep) if (r := records.get(trial.id)) and r.status == "finished"]
    return tuple(one for one in wanted if one not in there)


def weights(store: Store, trial_id: str) -> dict[str, np.ndarray]:
    """A kept trial's trained tensors by name, in the order and shapes they were trained in, float32.

    Raises HarnessError where they are not kept, or are not those that the trial's record was hashed of.
    """
    folder = place(store, trial_id)
    found, record = tensors(folder), store.load(trial_id)
    if record and record.measured and record.measured.weights_sha256 != read_card(folder).weights_sha256:
        raise _changed(folder, "weights of another run than the record's")
    return found


def place(store: Store, trial_id: str) -> Path:
    """The folder of a trial's kept model; raises HarnessError where there is none."""
    folder = store.folder / "models" / trial_id
    if not folder.is_dir():
        again = shlex.join(["harness", "rerun", str(store.folder), "--trial", trial_id, "--keep"])
        raise HarnessError(
            "the weights of the trial are kept",
            got=f"{trial_id}, of which {store.folder} has none",
            allowed=", ".join(list(kept(store))[:10]) or "none are kept here",
            fix=f"`{again}` trains it again and keeps them",
        )
    return folder


def tensors(folder: Path) -> dict[str, np.ndarray]:
    """The trained tensors of a kept model's folder, as `weights` gives them."""
    from safetensors.numpy import load_file

    card, found, digest = read_card(folder), {}, hashlib.sha256()
    try:
        own = load_file(folder / _WEIGHTS[card.form])
        unread = load_file(folder / _UNREAD) if (folder / _UNREAD).is_file() else {}
        for part in card.parts:
            value = own[part.key]
            if part.key in unread:
                value = np.concatenate([value, unread[part.key]])
            found[part.name] = value.reshape(part.shape)
            digest.update(found[part.name].tobytes())
    except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise _changed(folder, " ".join(str(error).split())[:200]) from None
    if digest.hexdigest() != card.weights_sha256:
        raise _changed(folder, "other bits than were trained")
    return found


def _changed(folder: Path, got: str) -> HarnessError:
    return HarnessError(
        "kept weights are those of their trial's record",
        got=f"{folder}: {got}",
        allowed="the files that were written",
        fix="keep them anew with `harness rerun … --keep`",
    )
