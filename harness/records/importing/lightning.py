"""PyTorch Lightning's `version_N` folders: `hparams.yaml`, and `metrics.csv` or TensorBoard's event files."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from harness.common.text import Scalar, count_noun
from harness.records.importing import tensorboard
from harness.records.importing.table import (
    Digest,
    Key,
    LoggedRun,
    Series,
    SourceTable,
    flatten,
    last_step,
    table_of,
    uneven_ends,
    unreadable,
)
from harness.records.importing.text import printable


def is_run(names: set[str]) -> bool:
    """Whether a folder with such files is a run: its settings, or its metrics as Lightning writes them."""
    return "hparams.yaml" in names or "metrics.csv" in names


def load(folders: Sequence[Path], root: Path, label: str, higher_is_better: bool) -> SourceTable:
    """The runs of the folders; one that logged nothing is missing. A score is the last that was logged."""
    digest, runs, silent = Digest(root), [], 0
    for folder in folders:
        path = folder.relative_to(root).as_posix() if folder != root else folder.name
        settings = _settings(folder / "hparams.yaml", digest)
        metrics = folder / "metrics.csv"
        is_table = metrics.is_file()
        history = _history(metrics, digest) if is_table else tensorboard.read_events(folder, digest).history
        silent += not history
        about: dict[str, Scalar] = {
            "folder": path,
            "last_step": last_step(history),
            "logged": "finished" if history else "unfinished",
        }
        values: dict[Key, Scalar] = {("hparams", name): value for name, value in settings.items()}
        runs.append(LoggedRun(path, path, about, values, history))
    notes = [f"{label}: {count_noun(silent, 'run')} logged nothing."] if silent else []
    return table_of(
        label, "Lightning", runs, digest.sha256, higher_is_better=higher_is_better, state_column="logged",
        notes=[*notes, *uneven_ends(label, [run for run in runs if run.history])],
    )  # fmt: skip


class _HparamsLoader(yaml.SafeLoader):
    """YAML as Lightning writes it: tags of Python objects are read as what they hold."""


def _untagged(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return node.value


_HparamsLoader.add_multi_constructor("tag:yaml.org,2002:python/", _untagged)
_HparamsLoader.add_multi_constructor("!", _untagged)


def _settings(path: Path, digest: Digest) -> dict[str, Scalar]:
    if not path.is_file():
        return {}
    try:
        settings = yaml.load(digest.text(path), _HparamsLoader)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        unreadable(path, f"not YAML: {printable(str(error).splitlines()[0])[:100]}", allowed="as Lightning writes it")
    return flatten({str(name): value for name, value in settings.items()}) if isinstance(settings, dict) else {}


def _history(path: Path, digest: Digest) -> dict[str, Series]:
    """The curves of a sparse `metrics.csv`: an empty field is no score."""
    try:
        rows = list(csv.DictReader(io.StringIO(digest.text(path), newline=""), strict=True))
        curves: dict[str, tuple[list[float], list[float]]] = {}
        for number, row in enumerate(rows):
            step = float(row.get("step") or number)
            for name, value in row.items():
                if name != "step" and value and value.strip():
                    steps, values = curves.setdefault(name, ([], []))
                    steps.append(step)
                    values.append(float(value))
    except (csv.Error, ValueError, TypeError, AttributeError):
        unreadable(path, "not as Lightning's CSVLogger writes it", allowed="a table of numbers with a header")
    return {name: Series(steps, values) for name, (steps, values) in curves.items()}
