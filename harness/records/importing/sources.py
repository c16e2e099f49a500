"""Which tool wrote a source of runs: a file, a folder or an address, told by what is in it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from harness.common.errors import HarnessError, describe_os_error
from harness.common.text import count_noun
from harness.records.importing import (
    lightning,
    mlflow_files,
    mlflow_store,
    optuna_storage,
    plain_files,
    ray_tune,
    tensorboard,
    trainer,
    wandb_folder,
)
from harness.records.importing.hints import hint_for
from harness.records.importing.table import SourceTable, unreadable
from harness.records.importing.text import listed, printable, storable

_SQLITE = b"SQLite format 3\0"
_DEEPEST = 8  # folders in folders that are looked through
_Load = Callable[[Sequence[Path], Path, str, bool], SourceTable]


def _has_wandb(names: set[str]) -> bool:
    return any(name.endswith(".wandb") for name in names)


def _has_events(names: set[str]) -> bool:
    return any(name.startswith("events.out.tfevents.") for name in names)


# The first that fits says what a folder is; what lies under it is the run's own, but for TensorBoard's.
_KINDS: tuple[tuple[str, Callable[[set[str]], bool], _Load], ...] = (
    ("transformers' Trainer", trainer.is_run, trainer.load),
    ("Ray Tune", ray_tune.is_run, ray_tune.load),
    ("Lightning", lightning.is_run, lightning.load),
    ("Weights & Biases", _has_wandb, wandb_folder.load),
    ("TensorBoard", _has_events, tensorboard.load),
)


def label_of(source: str) -> str:
    """The name of a source in errors and in the ids of runs: the last part of a path, an address without a password."""
    if mlflow_store.is_uri(source):
        return storable(printable(mlflow_store.without_credentials(source)))
    path = Path(source)
    return storable(printable(path.name or path.resolve().name or "runs"))


def as_path(source: str) -> str:
    """A source as a path, where it is the address of an SQLite file."""
    return source.removeprefix("sqlite:///") if source.startswith("sqlite:///") else source


def load(source: str, label: str, wanted: set[str], higher_is_better: bool = True) -> SourceTable:
    """The table that a file, a folder or a tracking server holds, with those of the `wanted` columns that it has.

    `higher_is_better` tells what is best in the columns `<metric>:best`. Raises HarnessError.
    """
    if mlflow_store.is_uri(source):
        return mlflow_store.load_server(source, label, wanted, higher_is_better)
    path = Path(as_path(source))
    try:
        if path.is_dir():
            table = _folder(path, label, wanted, higher_is_better)
        elif path.is_file() and _begins(path, _SQLITE):
            table = _sqlite(path, label, wanted, higher_is_better)
        elif path.is_file() and optuna_storage.is_journal(path):
            table = optuna_storage.load(path, label, higher_is_better, journal=True)
        else:
            table = plain_files.load_file(path, label, wanted)
    except OSError as error:
        unreadable(path, describe_os_error(error))
    if not table.places:
        unreadable(path, "no rows", allowed="a header and rows")
    return table


def _begins(path: Path, magic: bytes) -> bool:
    with path.open("rb") as stream:
        return stream.read(len(magic)) == magic


def _sqlite(path: Path, label: str, wanted: set[str], higher_is_better: bool) -> SourceTable:
    connection = sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True)
    try:
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if names >= mlflow_store.TABLES:
            return mlflow_store.load_sqlite(path, connection, label, wanted, higher_is_better)
    except sqlite3.Error as error:
        unreadable(path, f"SQLite: {printable(str(error))[:100]}")
    finally:
        connection.close()
    if names >= optuna_storage.TABLES:
        return optuna_storage.load(path, label, higher_is_better, journal=False)
    unreadable(
        path, f"an SQLite file with the tables {listed(sorted(names), 6)}", allowed="a store of MLflow or Optuna",
        fix=f"sqlite3 -header -csv {path.name} 'select … from …' > runs.csv",
    )  # fmt: skip


def _folder(folder: Path, label: str, wanted: set[str], higher_is_better: bool) -> SourceTable:
    if mlflow_files.is_store(folder):
        return mlflow_files.load(folder, label, wanted, higher_is_better)
    runs_of: dict[str, list[Path]] = {}
    for kind, path in _runs(folder, 0):
        runs_of.setdefault(kind, []).append(path)
    if len(runs_of) > 1:
        shown = ", ".join(f"{kind} ({count_noun(len(paths), 'run')})" for kind, paths in runs_of.items())
        first = [str(paths[0].relative_to(folder)) or "." for paths in runs_of.values()]
        raise HarnessError(
            f"{printable(str(folder))} holds runs of several tools: {shown}",
            fix=f"Name the folder of one: they lie in {listed(first)}",
        )
    for kind, _, read in _KINDS:
        if kind in runs_of:
            return read(runs_of[kind], folder, label, higher_is_better)
    unreadable(folder, "it holds no runs of a known tool", fix=hint_for(folder))


def _runs(folder: Path, depth: int) -> Iterator[tuple[str, Path]]:
    """The run folders at or under a folder, each with the tool that wrote it."""
    entries = sorted(folder.iterdir())
    names = {entry.name for entry in entries}
    kind = next((kind for kind, fits, _ in _KINDS if fits(names)), None)
    if kind is not None:
        yield kind, folder
    if (kind is not None and kind != "TensorBoard") or depth == _DEEPEST:
        return
    for entry in entries:
        if entry.is_dir() and not entry.is_symlink() and not entry.name.startswith("."):
            yield from _runs(entry, depth + 1)
