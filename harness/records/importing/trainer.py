"""Output folders of transformers' Trainer: results, the trainer's state with its log, and the training arguments."""

from __future__ import annotations

import io
import json
import pickle
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.common.text import Scalar, count_noun
from harness.records.importing.table import (
    Digest,
    Key,
    LoggedRun,
    Series,
    SourceTable,
    flatten,
    plain,
    table_of,
    unreadable,
)
from harness.records.importing.text import printable

_RESULTS = ("all_results.json", "eval_results.json", "train_results.json", "test_results.json", "predict_results.json")
_STATE, _ARGUMENTS = "trainer_state.json", "training_args.bin"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_CARD = re.compile(r"^- ([a-z_]+): (\S.*)$", re.MULTILINE)  # a line of the model card's hyperparameters
_NO_CURVES = {"step", "learning_rate"}  # the schedule has the name of the setting
_MOST_PICKLED = 10_000_000  # bytes of training arguments


def is_run(names: set[str]) -> bool:
    """Whether a folder with such files is a run's: not one of its checkpoints."""
    return bool({_STATE, "all_results.json"} & names) or any(_CHECKPOINT.fullmatch(name) for name in names)


def load(folders: Sequence[Path], root: Path, label: str, higher_is_better: bool) -> SourceTable:
    """The runs of the folders.

    Scores are those of the result files, else the last of the log; settings those of the training arguments (or of
    the model card). A run is finished where a result or the trainer's state stands in its folder, or where its last
    checkpoint is that of its last step; else it was cut and is missing.
    """
    digest, runs, cut, best = Digest(root), [], 0, 0
    for folder in folders:
        run = _logged(folder, root, digest)
        runs.append(run)
        cut += run.about["state"] == "unfinished"
        best += run.values.get(("args", "load_best_model_at_end")) is True
    notes = []
    if cut:
        notes.append(f"{label}: {count_noun(cut, 'run')} with checkpoints alone, none of the last step.")
    if best:
        notes.append(
            f"{label}: {count_noun(best, 'run')} with load_best_model_at_end: eval_… in the result files "
            "is the score of "
            "the best checkpoint, not of the end of training."
        )
    beside = _beside(folders, root)
    if beside:
        shown = ", ".join(printable(path)[:40] for path in beside[:5])
        notes.append(
            f"{label}: {count_noun(len(beside), 'folder')} beside the runs hold no output and are left out: {shown}."
        )
    return table_of(
        label, "transformers' Trainer", runs, digest.sha256, higher_is_better=higher_is_better, metrics="results",
        state_column="state", notes=notes,
    )  # fmt: skip


def _beside(folders: Sequence[Path], root: Path) -> list[str]:
    """Folders next to several runs' that are none: of a run that wrote nothing, for example."""
    run_folders = set(folders)
    parents = {folder.parent for folder in folders if folder != root}
    others = {
        path
        for parent in parents
        for path in parent.iterdir()
        if path.is_dir()
        and not path.name.startswith(".")
        and not any(other == path or path in other.parents for other in run_folders)
    }
    return sorted(path.relative_to(root).as_posix() for path in others)


def _logged(folder: Path, root: Path, digest: Digest) -> LoggedRun:
    results: dict[str, Scalar] = {}
    for name in reversed(_RESULTS):
        if (folder / name).is_file():
            results |= flatten(_object(folder / name, digest))
    checkpoints = sorted(
        (int(match[1]), path) for path in folder.iterdir() if (match := _CHECKPOINT.fullmatch(path.name))
    )
    state_file = folder / _STATE
    ended = state_file.is_file() or bool(results)
    if not state_file.is_file() and checkpoints:
        state_file = checkpoints[-1][1] / _STATE
    state = _object(state_file, digest) if state_file.is_file() else {}
    step, most = state.get("global_step"), state.get("max_steps")
    ended = ended or (isinstance(step, int) and isinstance(most, int) and step >= most > 0)
    history = _curves(state.get("log_history"), state_file)
    path = folder.relative_to(root).as_posix() if folder != root else folder.name
    about: dict[str, Scalar] = {
        "folder": path,
        "state": "finished" if ended else "unfinished",
        "last_step": plain(step),
        "best_metric": plain(state.get("best_metric")),
    }
    arguments = _arguments(folder, checkpoints, digest)
    values: dict[Key, Scalar] = {("args", name): value for name, value in arguments.items()}
    values |= {("results", name): value for name, value in results.items()}
    return LoggedRun(path, path, about, values, history)


def _object(path: Path, digest: Digest) -> dict[str, Any]:
    try:
        content = json.loads(digest.text(path))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        unreadable(path, "it is not a JSON object", allowed="as transformers writes it")
    return content


def _curves(log: object, path: Path) -> dict[str, Series]:
    """The curves of the trainer's log; what is logged again at a step (by another evaluation) replaces it."""
    if not isinstance(log, list):
        return {}
    curves: dict[str, dict[float, float]] = {}
    for number, entry in enumerate(log):
        if not isinstance(entry, dict):
            unreadable(path, "its log_history holds no objects", allowed="as transformers writes it")
        step = entry.get("step", number)
        for name, value in entry.items():
            if name not in _NO_CURVES and isinstance(value, int | float) and not isinstance(value, bool):
                curves.setdefault(name, {})[float(step)] = float(value)
    return {name: Series(sorted(held), [held[step] for step in sorted(held)]) for name, held in curves.items()}


# ------------------------------------------------------------------------------------------ the training arguments


class _Anything:
    """Stands for every class of a pickle: nothing of it is imported or run."""

    arguments: tuple[object, ...]
    attributes: dict[str, Any]

    def __new__(cls, *arguments: object) -> _Anything:
        made = super().__new__(cls)
        made.arguments, made.attributes = arguments, {}
        return made

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.attributes = {str(name): value for name, value in state.items()}

    def __call__(self, *arguments: object) -> _Anything:
        return _Anything(*arguments)

    def append(self, value: object) -> None:
        """Take an item of a list of another class."""

    def extend(self, values: object) -> None:
        """Take items of a list of another class."""

    def __setitem__(self, key: object, value: object) -> None:
        """Take an item of a mapping of another class."""


class _Unpickler(pickle.Unpickler):
    """Reads plain values alone: every class it meets is an `_Anything`."""

    def find_class(self, module: str, name: str) -> Any:
        return type("_Named", (_Anything,), {})

    def persistent_load(self, pid: object) -> Any:
        return _Anything()


def _arguments(folder: Path, checkpoints: Sequence[tuple[int, Path]], digest: Digest) -> dict[str, Scalar]:
    """The training arguments by name: of training_args.bin, of a checkpoint's, or of the model card; else none."""
    for candidate in (folder, *(path for _, path in reversed(checkpoints))):
        path = candidate / _ARGUMENTS
        if path.is_file() and (arguments := _unpickled(digest.read(path))):
            return arguments
    card = folder / "README.md"
    if card.is_file():
        text = digest.text(card).partition("hyperparameters were used during training")[2]
        return dict(_CARD.findall(text.partition("\n###")[0]))
    return {}


def _unpickled(content: bytes) -> dict[str, Scalar]:
    """The plain fields of pickled arguments; none where they can't be read."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            name = next((entry for entry in archive.namelist() if entry.endswith("data.pkl")), None)
            if name is None or archive.getinfo(name).file_size > _MOST_PICKLED:
                return {}
            arguments = _Unpickler(io.BytesIO(archive.read(name))).load()
    except Exception:  # a pickle may fail in any way: then the folder's name or --seed-from has to tell
        return {}
    fields = arguments.attributes if isinstance(arguments, _Anything) else {}
    return {name: _field(value) for name, value in fields.items() if not name.startswith("_") and _is_field(value)}


def _is_field(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float | str) or _enum(value) is not None


def _enum(value: object) -> str | None:
    """The value of an enum, which a pickle holds as the class called with it."""
    if isinstance(value, _Anything) and len(value.arguments) == 1 and isinstance(value.arguments[0], str):
        return value.arguments[0]
    return None


def _field(value: object) -> Scalar:
    named = _enum(value)
    return named if named is not None else plain(value)
