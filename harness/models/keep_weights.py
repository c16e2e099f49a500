"""Which finished trials' weights are kept, and where."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import safetensors

from harness.common.files import flush, write_json
from harness.config.trials import Sweep, Trial, every_seed, expand
from harness.models.saved import (
    CARD,
    Card,
    Files,
    Form,
    KeptAs,
    Which,
    base_model,
    file_hashes,
    form_of,
    kept,
    link_base,
    read_card,
    read_cards,
    remove_folder,
    unkept_error,
    write_model,
)
from harness.records.record import Measured, Record
from harness.records.store import Store

if TYPE_CHECKING:
    from harness.data.tokenized import Task


Trained = TypeVar("Trained")

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
        with self._staging(trial.id) as folder:
            folder.mkdir(parents=True)
            parts = write_model(folder, trial, task, weights)
            card = self._card(sweep, profile, trial, measured, form_of(trial))
            of_task: dict[str, object] = {
                "label_names": task.label_names, "pairs": task.pairs, "parts": parts, "abstains": task.abstains
            }  # fmt: skip
            hashes = {name: getattr(measured, name) for name in ("model_sha256", "config_sha256", "weights_sha256")}
            _write_card(folder, card.model_copy(update=of_task | hashes | {"files": file_hashes(folder)}))

    def stage_files(self, sweep: str, profile: str, trial: Trial, measured: Measured, left: Path) -> None:
        """Take the file or folder that a script's run left as its model; raises UnkeptError."""
        with self._staging(trial.id) as folder:
            if left.is_dir():
                shutil.move(left, folder)
            else:
                folder.mkdir(parents=True)
                shutil.move(left, folder / left.name)
            _write_card(folder, self._card(sweep, profile, trial, measured, "files"))

    def _card(self, sweep: str, profile: str, trial: Trial, measured: Measured, form: Form) -> Card:
        """What is said of any kept model, whatever its folder holds."""
        return Card(
            sweep=sweep,
            profile=profile,
            trial=trial,
            kept_as=self.which,
            form=form,
            label_names=None,
            pairs=False,
            metric=measured.metric,
            final_score=measured.final_score,
            label_threshold=measured.label_threshold,
            outcome=measured.outcome,
            model_sha256=None,
            weights_sha256=None,
            parts=(),
        )

    @contextmanager
    def _staging(self, trial_id: str) -> Iterator[Path]:
        """The folder to stage a trial's model in, which is not there yet: written whole, or none and an UnkeptError."""
        folder = _staged(self.folder, trial_id)
        try:
            shutil.rmtree(folder, ignore_errors=True)
            yield folder
            _flush(folder)
        except (OSError, safetensors.SafetensorError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise unkept_error(folder, error) from error

    @contextmanager
    def here(self) -> Iterator[Keeping]:
        """The same where this node sees the driver's folder, else one among its temporary files, which goes again."""
        if (self.folder / self.marker).is_file():
            yield self
            return
        with tempfile.TemporaryDirectory() as scratch:
            yield replace(self, folder=Path(scratch))

    def sent(self, local: Keeping) -> dict[str, Files]:
        """What was staged in another folder than the driver's, by trial id; nothing where it was the driver's."""
        if local.folder == self.folder:
            return {}
        staged = {_trial_id(path): path for path in sorted(local.folder.glob(".*.staged"))}
        return {
            trial: {str(path.relative_to(folder)): np.fromfile(path, np.uint8) for path in _files(folder)}
            for trial, folder in staged.items()
        }

    def receive(self, sent: Mapping[str, Files]) -> None:
        """Write what another node sent as if it had been staged here; raises UnkeptError."""
        for trial, files in sent.items():
            with self._staging(trial) as folder:
                folder.mkdir(parents=True)
                for name, values in files.items():
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    values.tofile(folder / name)


def sending(keeping: Keeping | None, train: Callable[[Keeping | None], Trained]) -> tuple[Trained, dict[str, Files]]:
    """What a worker's training gives, and the models to keep that it can't write where the driver would find them.

    `train` is called with where to stage them here; None: nothing is kept.
    """
    if keeping is None:
        return train(None), {}
    with keeping.here() as local:
        return train(local), keeping.sent(local)


def merit(trial: Trial, score: float | None) -> float:
    """A trial's final score so that more is better; a run without one is worse than any other."""
    rank = _rank(score)
    return -rank if not trial.higher_is_better and math.isfinite(rank) else rank


def _rank(score: float | None) -> float:
    """A run without a score is worse than any other."""
    return -math.inf if score is None else score


def _staged(folder: Path, trial_id: str) -> Path:
    return folder / f".{trial_id}.staged"


def _trial_id(staged: Path) -> str:
    return staged.name.removeprefix(".").removesuffix(".staged")


def _write_card(folder: Path, card: Card) -> None:
    (folder / CARD).write_text(card.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _files(folder: Path) -> list[Path]:
    """The files of a folder, those of folders in it too, in the order of their names."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _flush(folder: Path) -> None:
    for path in _files(folder):
        path.chmod(folder.stat().st_mode & 0o666)  # safetensors lets nobody else read
        flush(path)
    flush(folder)


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
        self.place = {trial.id: number for number, trial in enumerate(expand(every_seed(sweep)))}
        self.best = _best(sweep, records)
        self.settle()

    def publish(self, records: Sequence[Record]) -> None:
        """Make the staged folders of a pack's records the kept ones, before these are saved; raises UnkeptError.

        Of `best` only what beats its cell's best so far is kept; what that overtakes goes with `settle`.
        """
        for record in records:
            staged = _staged(self.folder, record.id)
            if record.script is not None and not staged.is_dir():  # it left none, which its notes say
                continue
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
                raise unkept_error(staged, error) from error

    def _merit(self, record: Record) -> tuple[float, int]:
        """What the best of a cell has most of: a good final score, then an early place in the plan."""
        return _score(record), -self.place[record.id]

    def _finish(self, staged: Path, trial: Trial) -> None:
        """Say what the driver alone knows: where it has the files that another node had elsewhere."""
        card = read_card(staged).model_copy(update={"trial": trial})
        _write_card(staged, card)
        flush(staged / CARD)
        path = staged / "adapter_config.json"
        if path.is_file() and trial.script is None:
            config = json.loads(path.read_text(encoding="utf-8"))
            write_json(path, config | {"base_model_name_or_path": base_model(trial)})
            link_base(staged, trial.recipe.model)

    def settle(self) -> None:
        """Remove what was kept as a cell's best and no longer is."""
        best = {record.id for record in self.best.values()}
        for card in read_cards(self.folder) if self.which == "best" else ():
            if card.kept_as == "best" and card.trial.id in self.place and card.trial.id not in best:
                remove_folder(self.folder / card.trial.id)

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
    """More is better: where a score is better the lower it is, its negative."""
    return merit(record.trial, record.measured.final_score if record.measured else None)


def _best(sweep: Sweep, records: Mapping[str, Record]) -> dict[int, Record]:
    """The best finished trial of each cell by final score, the first in the plan where some are equal."""
    finished: dict[int, list[Record]] = defaultdict(list)
    for trial in expand(sweep):
        record = records.get(trial.id)
        if record is not None and record.measured is not None:
            finished[trial.cell].append(record)
    return {cell: max(records, key=_score) for cell, records in finished.items()}


def _replace(made: Path, target: Path) -> None:
    if target.is_dir():
        remove_folder(target)
    made.rename(target)
    flush(target.parent)


def unkept(sweep: Sweep, store: Store, which: Which) -> tuple[str, ...]:
    """Ids of finished trials whose weights would lie there had they been trained with `--keep`."""
    if which == "none":
        return ()
    records, there = store.records(sweep), kept(store)
    if which == "best":
        wanted = [record.id for record in _best(sweep, records).values()]
    else:
        wanted = [trial.id for trial in expand(sweep) if (r := records.get(trial.id)) and r.status == "finished"]
    return tuple(trial_id for trial_id in wanted if trial_id not in there)
