"""What a script left behind: its score, further metrics, curves and answers, from its files and output."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.common.npz import ArraysError, read_arrays
from harness.config.score_sources import Predictions, ScoreSource
from harness.config.script import Script
from harness.records.curve_files import Points
from harness.scripts.process import STDOUT

_MOST_BYTES = 200_000_000  # of a file with scores
_STEPS = ("step", "global_step", "steps", "iteration", "epoch")  # columns that say where a row stands
_MISTIMED = 2.0  # seconds: file systems keep times in whole ones


class NoScoreError(Exception):
    """A run left no score: what was looked for and what is there, in one line."""

    def __init__(self, text: str) -> None:
        """Keep one line of printable text: a file's own keys and values stand in it."""
        super().__init__(re.sub(r"\s+", " ", "".join(c if c.isprintable() or c.isspace() else "\ufffd" for c in text)))


@dataclass(frozen=True)
class Answers:
    """The right answers and the script's on the dev set [N], as numbers of classes."""

    labels: np.ndarray
    answers: np.ndarray
    classes: tuple[str, ...]


@dataclass(frozen=True)
class ScriptResult:
    """All that is read of one run; a score of None is NaN or infinite: the run diverged."""

    score: float | None
    further: dict[str, float | None]
    score_curve: Points | None
    loss_curve: Points | None
    answers: Answers | None
    notes: tuple[str, ...]


def read_results(script: Script, folder: Path, started: float) -> ScriptResult:
    """Read what a finished run left.

    Args:
        script: What is to be read.
        folder: The run's folder.
        started: When the run began, seconds since the epoch: an older file is another run's.

    Raises:
        NoScoreError: There is no score, or something is no number.
    """
    value = _value(script.score, folder, started, script.higher_is_better)
    notes: list[str] = []
    further: dict[str, float | None] = {}
    for name, source in script.also:
        try:
            number = _value(source, folder, started, True)
        except NoScoreError as error:
            notes.append(f"{name} was not read: {error}")
            continue
        further[name] = number if math.isfinite(number) else None
    curves: dict[str, Points] = {}
    for name, source in script.curves:
        try:
            curves[name] = _series(source, folder, started)
        except NoScoreError as error:
            notes.append(f"the curve of the {name} was not read: {error}")
    answers = None
    if script.predictions is not None:
        try:
            answers = _answers(script.predictions, folder, started)
        except NoScoreError as error:
            notes.append(f"the answers were not read: {error}")
    score = value if math.isfinite(value) else None
    return ScriptResult(score, further, curves.get("score"), curves.get("loss"), answers, tuple(notes))


def read_score(source: ScoreSource, folder: Path, *, higher: bool) -> float:
    """The number that a source names in a run's folder, whenever it was written.

    Args:
        source: Where it is.
        folder: The run's folder.
        higher: Of rows of which the best counts, whether the highest is.

    Raises:
        NoScoreError: There is none.
    """
    return _value(source, folder, 0.0, higher)


def read_curve(source: ScoreSource, folder: Path) -> Points:
    """The curve that a source names in a run's folder, whenever it was written; raises NoScoreError for none."""
    return _series(source, folder, 0.0)


def read_answers(spec: Predictions, folder: Path) -> Answers:
    """The answers in a run's folder, whenever they were written; raises NoScoreError where there are none."""
    return _answers(spec, folder, 0.0)


def latest_score(script: Script, folder: Path) -> float | None:
    """The score that a run in progress last said; None where it says none before its end, or in a costly form."""
    source = dict(script.curves).get("score", script.score)
    if source.kind == "tensorboard":
        return None
    try:
        value = _value(source.model_copy(update={"row": "last"}), folder, 0.0, True)
    except (NoScoreError, OSError):
        return None
    return value if math.isfinite(value) else None


# --------------------------------------------------------------------------------------------------------- one number


def _value(source: ScoreSource, folder: Path, started: float, higher: bool) -> float:
    """The number that a source names; NaN and infinities are numbers. Raises NoScoreError."""
    if source.kind == "json":
        return _number(_nested(_json(source, folder, started), source), source.words)
    values = list(_numbers(source, folder, started))
    if not values:
        raise NoScoreError(f"there is no {source.words}: it has no value")
    if source.row == "last":
        return values[-1]
    finite = [value for value in values if math.isfinite(value)]
    return (max if higher else min)(finite) if finite else values[-1]


def _number(value: object, words: str) -> float:
    """A number, or a text that is one; raises NoScoreError for a switch, a percent sign and all else."""
    if isinstance(value, bool) or value is None:
        raise NoScoreError(f"{words} is {json.dumps(value)}, no number")
    if isinstance(value, int | float):
        return float(value) if abs(value) < 1e300 or not isinstance(value, int) else math.inf
    if isinstance(value, str):
        text = value.strip()
        try:
            return float(text.replace("−", "-"))
        except ValueError:
            pass
        if text.endswith("%"):
            raise NoScoreError(f"{words} is '{text}': write a number without %")
        raise NoScoreError(f"{words} is '{text[:60]}', no number")
    raise NoScoreError(f"{words} is no number but a {'list' if isinstance(value, list) else 'mapping'}")


def _numbers(source: ScoreSource, folder: Path, started: float) -> Iterator[float]:
    if source.kind == "stdout":
        text = _text(folder / STDOUT, STDOUT, 0.0)
        for match in re.finditer(source.key, text, re.MULTILINE):
            yield _number(match[1], source.words)
        return
    for _, value in _points(source, folder, started):
        yield value


def _series(source: ScoreSource, folder: Path, started: float) -> Points:
    """A curve: steps [P] and values [P]. Raises NoScoreError."""
    if source.kind in ("json", "stdout"):
        values = list(_numbers(source, folder, started)) if source.kind == "stdout" else []
        points = [(float(index), value) for index, value in enumerate(values, 1)]
        if source.kind == "json":
            listed = _nested(_json(source, folder, started), source)
            if not isinstance(listed, list):
                raise NoScoreError(f"{source.words} is no list of numbers")
            points = [(float(index), _number(value, source.words)) for index, value in enumerate(listed, 1)]
    else:
        points = list(_points(source, folder, started))
    if not points:
        raise NoScoreError(f"there is no {source.words}")
    points.sort(key=lambda point: point[0])
    steps, values_of = (np.array(column, dtype=np.float64) for column in zip(*points, strict=True))
    return steps, values_of


def _points(source: ScoreSource, folder: Path, started: float) -> Iterator[tuple[float, float]]:
    """(step, value) of each row that has the value; a row without a step has its number."""
    if source.kind == "tensorboard":
        yield from _scalars(source, folder, started)
        return
    names: dict[str, None] = {}
    found = False
    for number, row in enumerate(_rows(source, folder, started), 1):
        names.update(dict.fromkeys(map(str, row)))
        value = _cell(row, source.key)
        if value is None or value == "":
            continue
        found = True
        yield _step(row, number), _number(value, source.words)
    if not found:
        there = ", ".join(list(names)[:20]) or "nothing"
        raise NoScoreError(f"there is no {source.words}; its columns are: {there}")


def _step(row: Mapping[str, Any], number: int) -> float:
    """Where a row stands: by the first column of steps that has a finite number in it, else by its own number."""
    for name in _STEPS:
        try:
            step = _number(row.get(name), name)
        except NoScoreError:
            continue
        if math.isfinite(step):
            return step
    return float(number)


def _cell(row: Mapping[str, Any], key: str) -> Any:
    """A row's value: of a column of that name, else, in JSON lines, nested by dots."""
    if key in row:
        return row[key]
    value: Any = row
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _scalars(source: ScoreSource, folder: Path, started: float) -> Iterator[tuple[float, float]]:
    from harness.common.errors import HarnessError
    from harness.records.importing.table import Digest
    from harness.records.importing.tensorboard import read_events

    assert source.file is not None
    place = folder / source.file
    place = place if place.is_dir() else place.parent
    folders = [place, *(path for path in sorted(place.rglob("*")) if path.is_dir())]
    tags: dict[str, None] = {}
    for one in folders:
        if not any(path.name.startswith("events.out.tfevents") for path in one.glob("events.out.tfevents*")):
            continue
        try:
            history = read_events(one, Digest(folder)).history
        except HarnessError as error:
            raise NoScoreError(error.headline) from None
        tags.update(dict.fromkeys(history))
        if source.key in history:
            series = history[source.key]
            yield from zip(map(float, series.steps), map(float, series.values), strict=True)
            return
    there = ", ".join(list(tags)[:20]) or "none"
    raise NoScoreError(f"there is no {source.words}; the scalars there are: {there}")


# -------------------------------------------------------------------------------------------------------------- files


def _text(path: Path, name: str, started: float) -> str:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise NoScoreError(f"{name} is no regular file")
        if status.st_mtime < started - _MISTIMED:
            raise NoScoreError(f"{name} is older than the run: the script did not write it")
        if status.st_size > _MOST_BYTES:
            raise NoScoreError(f"{name} is too large to be read ({status.st_size / 1e6:.0f} MB)")
        return path.read_bytes().decode("utf-8-sig", "replace")
    except FileNotFoundError:
        there = sorted(entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else []
        raise NoScoreError(f"there is no {name}; the run's folder has: {', '.join(there[:20]) or 'nothing'}") from None
    except OSError as error:
        raise NoScoreError(f"{name} can't be read: {error.strerror}") from None


def _json(source: ScoreSource, folder: Path, started: float) -> Any:
    assert source.file is not None
    text = _text(folder / source.file, source.file, started)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise NoScoreError(f"{source.file} is {'empty' if not text.strip() else 'not JSON'}") from None


def _nested(content: Any, source: ScoreSource) -> Any:
    """What stands under a key: as it is, else nested by dots, where numbers count in lists from 0."""
    if isinstance(content, Mapping) and source.key in content:
        return content[source.key]
    at = content
    for part in source.key.split("."):
        if isinstance(at, Mapping) and part in at:
            at = at[part]
        elif isinstance(at, list) and re.fullmatch(r"-?\d+", part) and -len(at) <= int(part) < len(at):
            at = at[int(part)]
        else:
            raise NoScoreError(f"there is no {source.words}; {_there(at)}")
    return at


def _there(content: Any) -> str:
    if isinstance(content, Mapping):
        return f"the keys there are: {', '.join(list(map(str, content))[:20]) or 'none'}"
    return f"there is {'a list of ' + str(len(content)) if isinstance(content, list) else 'a single value'}"


def _rows(source: ScoreSource, folder: Path, started: float) -> Iterable[Mapping[str, Any]]:
    """The rows of a table, or the log of a Trainer's state."""
    assert source.file is not None
    if source.kind == "trainer":
        return _log(source, folder, started)
    return table_rows(_text(folder / source.file, source.file, started), source.file)


def _log(source: ScoreSource, folder: Path, started: float) -> Sequence[Mapping[str, Any]]:
    """The log of `trainer_state.json`, in the folder or in its newest checkpoint."""
    assert source.file is not None
    path = folder / source.file
    if not path.exists():
        checkpoints = [
            (int(match[1]), other)
            for other in path.parent.glob("checkpoint-*/trainer_state.json")
            if (match := re.fullmatch(r"checkpoint-(\d+)", other.parent.name))
        ]
        path = max(checkpoints)[1] if checkpoints else path
    text = _text(path, source.file, started)
    try:
        log = json.loads(text)["log_history"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise NoScoreError(f"{source.file} is not a Trainer's state") from None
    return [row for row in log if isinstance(row, Mapping)] if isinstance(log, list) else []


def table_rows(text: str, name: str) -> list[Mapping[str, Any]]:
    """The rows of CSV, TSV or JSON lines. Raises NoScoreError."""
    if not text.strip():
        raise NoScoreError(f"{name} is empty")
    if name.lower().endswith((".jsonl", ".json")):
        try:
            parsed = [json.loads(line) for line in text.splitlines() if line.strip()]
        except (ValueError, RecursionError):
            raise NoScoreError(f"{name} has a line that is not JSON") from None
        if len(parsed) == 1 and isinstance(parsed[0], list):
            parsed = parsed[0]
        return [row for row in parsed if isinstance(row, Mapping)]
    delimiter = "\t" if name.lower().endswith(".tsv") else ","
    try:
        return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise NoScoreError(f"{name} is no table: {error}") from None


def _answers(spec: Predictions, folder: Path, started: float) -> Answers:
    table = _columns(spec, folder, started)
    columns: list[list[str]] = []
    for name in (spec.label, spec.answer):
        column = table.get(name)
        if not column or any(value is None or isinstance(value, list | dict) for value in column):
            there = ", ".join(table) or "none"
            raise NoScoreError(f"{spec.file} has no column {name} with a value in every row; its columns are: {there}")
        columns.append([_answer(value) for value in column])
    if len(columns[0]) != len(columns[1]):
        raise NoScoreError(f"{spec.file} has {len(columns[0])} of {spec.label} but {len(columns[1])} of {spec.answer}")
    classes = tuple(sorted({*columns[0], *columns[1]}))
    place = {name: index for index, name in enumerate(classes)}
    labels, answers = (np.array([place[one] for one in column], dtype=np.int64) for column in columns)
    return Answers(labels, answers, classes)


def _answer(value: object) -> str:
    """A class as text; 1, 1.0 and "1" are the same."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _columns(spec: Predictions, folder: Path, started: float) -> dict[str, list[Any]]:
    """The columns of a table of answers: of CSV, TSV, JSON lines, JSON (rows, or a list a column) or npz."""
    path = folder / spec.file
    if path.suffix.lower() == ".npz":
        return _arrays(path, spec.file, started)
    text = _text(path, spec.file, started)
    if path.suffix.lower() == ".json":
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            content = None  # lines of JSON, or nothing
        if isinstance(content, Mapping) and any(isinstance(value, list) for value in content.values()):
            return {str(name): value for name, value in content.items() if isinstance(value, list)}
        if isinstance(content, list):
            return _turned([row for row in content if isinstance(row, Mapping)])
    return _turned(table_rows(text, spec.file))


def _turned(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {str(name): [row.get(name) for row in rows] for name in (rows[0] if rows else ())}


def _arrays(path: Path, name: str, started: float) -> dict[str, list[Any]]:
    """The one-dimensional arrays of an npz file; nothing in it is unpickled."""
    _text(path, name, started)  # for its errors
    try:
        arrays = read_arrays(path.read_bytes(), most_bytes=_MOST_BYTES)
    except (ArraysError, OSError) as error:
        raise NoScoreError(f"{name} is no npz of arrays: {error}") from None
    return {key: array.tolist() for key, array in arrays.items() if array.ndim == 1}
