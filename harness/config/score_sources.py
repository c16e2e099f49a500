"""Where a script's score, further metrics, curves and answers are read from: `score:`, `also:`, `curves:`, …"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import Field

from harness.common.errors import HarnessError, describe_value
from harness.config.field_types import unknown_key
from harness.config.recipe import Frozen

Kind = Literal["json", "rows", "trainer", "tensorboard", "stdout"]
_ENDINGS = {".json": "json", ".jsonl": "rows", ".csv": "rows", ".tsv": "rows"}
_PLACE = "{file: all_results.json, key: eval_accuracy}"
EXAMPLE = f"score: {_PLACE}"
_TABLES = ("csv", "tsv", "jsonl", "json", "npz")  # what answers are read from


class ScoreSource(Frozen):
    """One number that a script leaves behind."""

    kind: Kind = Field(description="How it is read.")
    file: str | None = Field(default=None, description="The file in the run's folder ({out}); null: standard output.")
    key: str = Field(
        min_length=1,
        description="A key of a JSON file (nested by dots), a column, a scalar's tag, or a regular expression.",
    )
    row: Literal["last", "best"] = Field(default="last", description="Of several values, which one is the score.")

    @property
    def words(self) -> str:
        """`eval_accuracy in all_results.json`, as messages name it."""
        if self.file is None:
            return f"the pattern {self.key!r} in standard output"
        return f"{'the best' if self.row == 'best' else ''} {self.key} in {self.file}".strip()


class Predictions(Frozen):
    """A table of the dev set's examples: the right answer of each, and the script's."""

    file: str = Field(min_length=1, description="CSV, TSV, JSON lines, JSON or npz in the run's folder.")
    label: str = Field(default="label", min_length=1, description="The column of the right answers.")
    answer: str = Field(default="prediction", min_length=1, description="The column of the script's answers.")


def read_source(name: str, value: object, run_files: bool = True) -> ScoreSource:
    """A source as the sweep file gives it.

    Args:
        name: What the file calls it: `score`, `also.f1`.
        value: `{file: …, key: …}` or `{stdout: "accuracy: ([0-9.]+)"}`.
        run_files: Whether the script is given a folder for its files.

    Raises:
        HarnessError: It is none.
    """
    if not isinstance(value, Mapping):
        raise HarnessError(
            f"{name} must say where the number is",
            got=describe_value(value),
            allowed=f"{name.rpartition('.')[2]}: {_PLACE}",
        )
    for key in value:
        if key not in ("file", "key", "row", "stdout", "format"):
            raise unknown_key(key, ("file", "key", "row", "stdout", "format"), name)
    row = value.get("row", "last")
    if row not in ("last", "best"):
        raise HarnessError(f"{name}.row must be last or best", got=describe_value(row))
    if "stdout" in value:
        if "file" in value or "key" in value:
            raise HarnessError(f"{name} has both stdout and file", fix="Leave one out")
        return ScoreSource(kind="stdout", key=_pattern(f"{name}.stdout", value["stdout"]), row=row)
    for key in ("file", "key"):
        if not isinstance(value.get(key), str) or not value[key]:
            raise HarnessError(f"{name}.{key} must be text", got=describe_value(value.get(key)), allowed=_PLACE)
    if not run_files:
        raise HarnessError(f"{name} is in a file, but the command has no {{out}} to write it to", fix="Add {out}")
    file = _inner(f"{name}.file", value["file"])
    kind = _kind(name, file, value.get("format"))
    if kind == "json" and "row" in value:
        raise HarnessError(f"{name}.row is of a file with rows, and {file} has one value", fix="Remove it")
    return ScoreSource(kind=kind, file=file, key=value["key"], row=row)


def _kind(name: str, file: str, given: object) -> Kind:
    kinds: tuple[Kind, ...] = ("json", "rows", "trainer", "tensorboard")
    if given is not None:
        for kind in kinds:
            if given == kind:
                return kind
        raise HarnessError(f"{name}.format is unknown", got=describe_value(given), allowed=", ".join(kinds))
    path = PurePosixPath(file)
    if path.name == "trainer_state.json":
        return "trainer"
    ending = _ENDINGS.get(path.suffix.lower())
    if ending is not None:
        return "json" if ending == "json" else "rows"
    if path.name.startswith("events.out.tfevents") or not path.suffix:
        return "tensorboard"  # a folder of event files
    raise HarnessError(
        f"{name}.file is of a kind that is not known by its ending",
        got=f"'{file}'",
        allowed="json, jsonl, csv, tsv, trainer_state.json, or a folder of TensorBoard's events",
        fix="Add format: json, rows, trainer or tensorboard",
    )


def _inner(name: str, file: str) -> str:
    path = PurePosixPath(file)
    if path.is_absolute() or ".." in path.parts:
        raise HarnessError(
            f"{name} must lie in the run's own folder", got=f"'{file}'", fix="Name it as it lies in {out}"
        )
    return file


def _pattern(name: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise HarnessError(f"{name} must be a regular expression", got=describe_value(value))
    try:
        expression = re.compile(value)
    except re.error as error:
        raise HarnessError(f"{name} is no regular expression: {error}", got=describe_value(value)) from None
    if expression.groups < 1:
        raise HarnessError(
            f"{name} has no group for the number", got=describe_value(value), allowed='"accuracy: ([0-9.]+)"'
        )
    return value


def read_predictions(value: object) -> Predictions:
    """`predictions: {file: preds.csv, label: label, answer: prediction}`; raises HarnessError as `read_source`."""
    if not isinstance(value, Mapping) or not isinstance(value.get("file"), str):
        raise HarnessError(
            "predictions must name a file of the run",
            got=describe_value(value),
            allowed="predictions: {file: predictions.csv, label: label, answer: prediction}",
        )
    names: dict[str, Any] = dict(value)
    for key, text in names.items():
        if key not in Predictions.model_fields:
            raise unknown_key(key, tuple(Predictions.model_fields), "predictions")
        if not isinstance(text, str) or not text:
            raise HarnessError(f"predictions.{key} must be text", got=describe_value(text))
    if PurePosixPath(names["file"]).suffix.lower().removeprefix(".") not in _TABLES:
        raise HarnessError(
            "predictions.file is of a kind that is not known by its ending",
            got=f"'{names['file']}'",
            allowed=", ".join(_TABLES),
        )
    return Predictions(**names | {"file": _inner("predictions.file", names["file"])})
