"""Files that the driver alone has, for workers on other machines: read here, written there under the hash of them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from harness.common import hub
from harness.common.errors import HarnessError
from harness.common.files import is_own_folder, open_lock
from harness.config.recipe import Recipe, Spec, TaskFiles, TaskSpec, WordList
from harness.config.trials import Trial
from harness.data import text_files

Files = Mapping[str, np.ndarray]  # name below the folder -> bytes [size], uint8
# Weights that transformers leaves alone: those of other frameworks, and PyTorch's own beside safetensors.
_OTHER_WEIGHTS = (".h5", ".msgpack", ".ot", ".onnx", ".tflite", ".gguf")
_PICKLED_WEIGHTS = (".bin", ".pt", ".pth", ".ckpt")


_METRIC = "metric"  # the folder of a metric's file, beside those of the splits


def files(spec: Spec) -> Files | None:
    """What training reads of the driver's disk for a task, model or list of words; None where nothing is needed of it.

    Data and models by name, the embedded ones included, are looked up by the worker itself.
    Raises HarnessError for files that aren't there.
    """
    if isinstance(spec, TaskSpec):
        paths = dict(text_files.files_of(spec) or {})
        if spec.metric_file is not None:
            paths[_METRIC] = Path(spec.metric_file).expanduser()
        return {f"{of}/{path.name}": np.fromfile(path, np.uint8) for of, path in paths.items()} or None
    if isinstance(spec, WordList):
        path = Path(spec.file).expanduser()
        return {path.name: np.fromfile(path, np.uint8)}
    if spec.folder is None:
        return None
    paths = {path.name: path for path in Path(hub.location(spec)).iterdir() if path.is_file()}
    safe = paths.keys() & {"model.safetensors", "model.safetensors.index.json"}
    useless = _OTHER_WEIGHTS + (_PICKLED_WEIGHTS if safe else ())
    return {name: np.fromfile(path, np.uint8) for name, path in sorted(paths.items()) if path.suffix not in useless}


def sha256(content: Files) -> str:
    """The hash of names and bytes."""
    digest = hashlib.sha256()
    for name, values in sorted(content.items()):
        digest.update(f"{name}\0{values.size}\0".encode())
        digest.update(values.data)
    return digest.hexdigest()


def unpacked(digest: str, fetch: Callable[[], Files]) -> Path:
    """The folder that holds the files of that hash, among this machine's temporary files; written where it is missing.

    Several processes of a machine write it once, and one that was changed or half removed is written anew.
    """
    home = Path(tempfile.gettempdir()) / f"harness-files-{os.getuid()}"
    home.mkdir(mode=0o700, exist_ok=True)
    if not is_own_folder(home):
        raise HarnessError(
            f"cannot write shipped files to {home}: others own it or may write to it",
            fix="Remove it on that node, or set TMPDIR there",
        )
    folder = home / digest
    with open_lock(home / f".{digest}.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.is_dir():
            if sha256(_read(folder)) == digest:
                return folder
            shutil.rmtree(folder)
        with tempfile.TemporaryDirectory(dir=home) as scratch:
            for name, values in fetch().items():
                path = Path(scratch) / "whole" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                values.tofile(path)
            (Path(scratch) / "whole").rename(folder)
    return folder


def _read(folder: Path) -> Files:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): np.fromfile(path, np.uint8) for path in paths}


def moved(trial: Trial, folders: Mapping[Spec, Path]) -> Trial:
    """The trial with the paths of files that were unpacked; its id is the same, paths are no part of it."""

    def there(spec: Spec) -> Spec:
        if isinstance(spec, TaskSpec):
            files = {split.name: str(next(split.iterdir())) for split in folders[spec].iterdir()}
            changes: dict[str, object] = {"metric_file": metric} if (metric := files.pop(_METRIC, None)) else {}
            return spec.model_copy(update=changes | ({"files": TaskFiles(**files)} if files else {}))
        if isinstance(spec, WordList):
            return spec.model_copy(update={"file": str(next(folders[spec].iterdir()))})
        return spec.model_copy(update={"folder": str(folders[spec])})

    if trial.script is not None:
        return trial
    fields = {name: getattr(trial.recipe, name) for name in Recipe.model_fields}
    changed = {name: there(value) for name, value in fields.items() if isinstance(value, Spec) and value in folders}
    return trial.model_copy(update={"settings": trial.recipe.model_copy(update=changed)})
