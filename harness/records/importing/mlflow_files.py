"""MLflow's store of files: `<experiment>/<run>/{meta.yaml,params/,tags/,metrics/}`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.common.text import Scalar
from harness.records.importing.mlflow_store import curve_of, is_wanted, table_of_mlflow
from harness.records.importing.table import Digest, Key, LoggedRun, Series, SourceTable, unreadable

# RunStatus by number, as the store keeps it, and folders that hold no runs.
_STATES = {"1": "RUNNING", "2": "SCHEDULED", "3": "FINISHED", "4": "FAILED", "5": "KILLED"}
_SKIP = {"artifacts", "datasets", "inputs", "metrics", "models", "outputs", "params", "tags", "traces"}


@dataclass(frozen=True)
class _MlflowRun:
    folder: Path
    meta: dict[str, str]
    files: dict[Key, Path]


def is_store(folder: Path) -> bool:
    """Whether a folder holds runs of MLflow's at or under it."""
    return next(_found_runs(folder, Digest(folder)), None) is not None


def load(folder: Path, label: str, wanted: set[str], higher_is_better: bool) -> SourceTable:
    """The runs of a store, oldest first; of params, tags and metrics only those that are wanted are read."""
    digest = Digest(folder)
    found_runs = [_MlflowRun(path, meta, _files(path)) for path, meta in _found_runs(folder, digest)]
    runs = [run for run in found_runs if run.meta.get("lifecycle_stage") != "deleted"]
    runs.sort(key=lambda run: (run.meta.get("start_time", "").zfill(20), run.folder.name))
    if not runs:
        unreadable(folder, "no rows", allowed="runs that are not deleted")
    known = dict.fromkeys(
        key for run in runs for key in run.files if key[0] != "tags" or not key[1].startswith("mlflow.")
    )
    logged = [_logged(run, [key for key in known if is_wanted(key, wanted)], digest) for run in runs]
    return table_of_mlflow(
        label,
        logged,
        digest.sha256,
        known=known,
        deleted=len(found_runs) - len(runs),
        higher_is_better=higher_is_better,
    )


def _logged(run: _MlflowRun, keys: list[Key], digest: Digest) -> LoggedRun:
    texts = {key: digest.text(path) for key in keys if (path := run.files.get(key)) is not None}
    tag = run.files.get(("tags", "mlflow.runName"))
    status = run.meta.get("status", "1")
    name = digest.text(tag).rstrip("\r\n") if tag else run.meta.get("run_name", "")
    about: dict[str, Scalar] = {
        "run_id": run.folder.name,
        "run_name": name,
        "experiment_id": run.folder.parent.name,
        "status": _STATES.get(status, status),
    }
    return LoggedRun(
        place=run.folder.name,
        path=name,
        about=about,
        values={key: text.rstrip("\r\n") for key, text in texts.items() if key[0] != "metrics"},
        history={
            name: _history(text, run.files[kind, name]) for (kind, name), text in texts.items() if kind == "metrics"
        },
    )


def _found_runs(folder: Path, digest: Digest, depth: int = 0) -> Iterator[tuple[Path, dict[str, str]]]:
    """The run folders at or under a folder, each with its meta.yaml."""
    meta = folder / "meta.yaml"
    if meta.is_file():
        # A flat file of `key: value` lines; what is needed of it is never quoted or wrapped.
        pairs = (line.partition(":") for line in digest.text(meta).splitlines() if line[:1].isalpha())
        entries = {key.strip(): value.strip().strip("'\"") for key, _, value in pairs}
        if "run_id" in entries or "run_uuid" in entries:
            yield folder, entries
            return
    if depth == 2:
        return
    for path in sorted(folder.iterdir()):
        skipped = path.name.startswith(".") or path.name in _SKIP or path.is_symlink()
        if path.is_dir() and not skipped:
            yield from _found_runs(path, digest, depth + 1)


def _files(folder: Path) -> dict[Key, Path]:
    """The files under params/, tags/ and metrics/ by name; a name with slashes is a folder in a folder."""
    paths_of: dict[Key, Path] = {}
    for kind in ("params", "tags", "metrics"):
        for root, folders, files in os.walk(folder / kind):
            folders.sort()
            paths = (Path(root, name) for name in sorted(files))
            paths_of |= {(kind, path.relative_to(folder / kind).as_posix()): path for path in paths if path.is_file()}
    return paths_of


def _history(text: str, path: Path) -> Series:
    """The lines `time value step` of a metric's file; lines of old versions have no step."""
    points = []
    for number, line in enumerate(text.splitlines(), start=1):
        parts = line.split()
        try:
            if parts:
                points.append((int(parts[2]) if len(parts) > 2 else 0, int(parts[0]), float(parts[1])))
        except (ValueError, IndexError):
            unreadable(path, f"line {number} is not 'time value step'", allowed="lines as MLflow writes a metric")
    return curve_of(points)
