"""Tables of runs as other tools write them: CSV, JSON lines, Parquet, an export of W&B's, a folder of MLflow's."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import math
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from harness.sweep import HarnessError, Scalar, so_many

# Weights & Biases: columns of a runs table beside Name and State, and what its states mean for us.
_WANDB = {"Created", "End Time", "Hostname", "ID", "Notes", "Runtime", "Start Time", "Sweep", "Tags", "Updated", "User"}
_WANDB_STATES = {"finished": "finished", "crashed": "crashed", "failed": "crashed", "killed": "crashed"}
_WANDB_OTHERS = {"running", "pending", "preempted", "preempting", "queued"}

# MLflow: RunStatus by number (as its file store keeps it) and by name, and folders that hold no runs.
_MLFLOW_STATES = {"1": "RUNNING", "2": "SCHEDULED", "3": "FINISHED", "4": "FAILED", "5": "KILLED"}
_MLFLOW_STATUS = {"FINISHED": "finished", "FAILED": "crashed", "KILLED": "crashed"}
_MLFLOW_SKIP = {"artifacts", "datasets", "inputs", "metrics", "models", "outputs", "params", "tags", "traces"}


def storable(text: str) -> str:
    """A text that UTF-8 can hold: names of files may have bytes that it can't."""
    return text.encode("utf-8", "replace").decode("utf-8")


def printable(text: str) -> str:
    """A text without control characters, nor such as turn the direction of writing: safe on any terminal."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def quoted(value: object, most: int = 60) -> str:
    """A value of a file in an error: in quotes, printable, and cut where it is long."""
    text = printable("nothing" if value is None else text_of(value))
    return f"'{text if len(text) <= most else text[: most - 1] + '…'}'"


def listed(values: Iterable[object], most: int = 20) -> str:
    """Values of a file in an error, the first of them where they are many."""
    shown = [quoted(value, 40) for value in values]
    return ", ".join(shown[:most]) + (f", … ({len(shown)})" if len(shown) > most else "") or "none"


def text_of(value: object) -> str:
    """A value as text, nothing as an empty one."""
    return "" if value is None else str(value)


# ----------------------------------------------------------------------------------------------------- one file


@dataclass(frozen=True)
class Table:
    """One file: the names of all its columns, and of the wanted ones the values, as the file has them."""

    label: str  # its name in errors and in the ids of runs
    known: tuple[str, ...]
    columns: dict[str, list[Any]]
    places: list[str]  # where each row stands: `runs.csv:12`
    sha256: str
    states: list[str] | None = None  # what the tool that wrote it says of each run: finished, crashed, missing
    words: list[str] | None = None  # the same in the tool's words
    notes: tuple[str, ...] = ()


def unreadable(path: Path, why: str, allowed: str | None = None) -> NoReturn:
    """Raise the HarnessError that says why a file of runs can't be read."""
    raise HarnessError(
        "a file of runs can be read", got=f"{printable(str(path)) or 'an empty name'} ({printable(why)})",
        allowed=allowed or "a table as .csv, .tsv, .jsonl, .ndjson or .parquet in UTF-8, or a folder of MLflow's",
        fix="correct it, or name another file",
    ) from None  # fmt: skip


def load(path: Path, label: str, wanted: set[str], higher_is_better: bool = True) -> Table:
    """The table that a file or a folder of MLflow's holds, with those of the `wanted` columns that it has.

    `higher_is_better` tells what is best in the columns `<metric>:best` of MLflow's. Raises HarnessError.
    """
    try:
        table = _mlflow(path, label, wanted, higher_is_better) if path.is_dir() else _file(path, label, wanted)
    except OSError as error:
        unreadable(path, error.strerror or "it can't be read")
    if not table.places:
        unreadable(path, "no rows", allowed="a header and rows")
    return table


def _file(path: Path, label: str, wanted: set[str]) -> Table:
    """One table; the same bytes are read and hashed."""
    suffix = path.suffix.lower()
    inner = Path(path.stem).suffix.lower() if suffix == ".gz" else suffix
    readers: dict[str, Callable[[bytes], _Found]] = {
        ".csv": lambda content: _csv(content, wanted, ","),
        ".tsv": lambda content: _csv(content, wanted, "\t"),
        ".jsonl": lambda content: _jsonl(content, wanted),
        ".ndjson": lambda content: _jsonl(content, wanted),
        ".parquet": lambda content: _parquet(content, wanted),
    }
    if inner not in readers or (inner == ".parquet" and suffix == ".gz"):
        unreadable(path, f"its ending is {quoted(suffix)}")
    if not path.is_file():
        unreadable(path, "no plain file")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error):
            unreadable(path, "not compressed by gzip, or cut short")
    if not content.strip():
        unreadable(path, "empty", allowed="a header and rows")
    try:
        known, columns, lines = readers[inner](content)
    except _UnfitError as unfit:
        unreadable(path, str(unfit))
    except UnicodeDecodeError:
        unreadable(path, "not in UTF-8")
    return _wandb(Table(label, known, columns, [f"{label}:{line}" for line in lines], digest))


_Found = tuple[tuple[str, ...], dict[str, list[Any]], list[int]]  # names of columns, wanted columns, line of each row


class _UnfitError(Exception):
    """Why a table can't be read, in a few words."""


def _csv(content: bytes, wanted: set[str], delimiter: str) -> _Found:
    stream = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline="")
    reader = csv.reader(stream, delimiter=delimiter, strict=True)
    lines: list[int] = []
    try:
        header = next((row for row in reader if row), [])
        chosen = [(place, name) for place, name in enumerate(header) if name in wanted]
        for name, times in Counter(name for _, name in chosen).items():
            if times > 1:
                raise _UnfitError(f"its header has {quoted(name)} {times} times")
        columns: list[list[Any]] = [[] for _ in chosen]
        targets = [(place, column.append) for (place, _), column in zip(chosen, columns, strict=True)]
        width, before = len(header), reader.line_num
        for row in reader:
            start, before = before + 1, reader.line_num
            if not row:
                continue
            if len(row) != width:
                raise _UnfitError(f"line {start} has {so_many(len(row), 'field')}, the header {width}")
            lines.append(start)
            for place, append in targets:
                append(row[place])
    except csv.Error as error:
        raise _UnfitError(f"line {reader.line_num}: {error}") from None
    return tuple(header), {name: column for (_, name), column in zip(chosen, columns, strict=True)}, lines


def _jsonl(content: bytes, wanted: set[str]) -> _Found:
    known: dict[str, None] = {}
    columns: dict[str, list[Any]] = {}
    lines: list[int] = []
    for number, line in enumerate(io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise _UnfitError(f"line {number} is no JSON") from None
        if not isinstance(row, dict):
            raise _UnfitError(f"line {number} is no JSON object")
        if not row.keys() <= known.keys():
            known |= dict.fromkeys(row)
            columns |= {name: [None] * len(lines) for name in row if name in wanted and name not in columns}
        for name, column in columns.items():
            column.append(_plain(row.get(name)))
        lines.append(number)
    return tuple(known), columns, lines


def _parquet(content: bytes, wanted: set[str]) -> _Found:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(content), pre_buffer=False)
        known = tuple(file.schema_arrow.names)
        chosen = [name for name in dict.fromkeys(known) if name in wanted]
        if len(set(known)) < len(known):
            raise _UnfitError("two of its columns have one name")
        table = file.read(columns=chosen, use_threads=False)  # threads may abort the process on damage
        columns = {name: [_plain(value) for value in table.column(name).to_pylist()] for name in chosen}
        return known, columns, list(range(1, file.metadata.num_rows + 1))
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError):
        raise _UnfitError("no Parquet, or damaged") from None


def _plain(value: object) -> Scalar:
    """A value as text, number, on/off or None: dates, lists and the like as text."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _wandb(table: Table) -> Table:
    """The states of the runs, where the table is an export of W&B's: columns Name, State and others of its own."""
    if not ({"Name", "State"} <= set(table.known) and _WANDB & set(table.known)):
        return table
    words = [text_of(value).strip().casefold() for value in table.columns["State"]]
    if not set(words) & (_WANDB_STATES.keys() | _WANDB_OTHERS):
        return table
    states = [_WANDB_STATES.get(word, "missing") for word in words]
    note = f"{table.label} is an export of Weights & Biases: runs crashed, failed or killed there count as crashed"
    note += _others(word for word in words if word not in _WANDB_STATES)
    said = [f"State: {printable(word)[:40]}" for word in words]
    return replace(table, states=states, words=said, notes=(f"{note}.",))


def _others(words: Iterable[str]) -> str:
    counts = Counter(words)
    kinds = ", ".join(printable(word or "none")[:40] for word in list(counts)[:5])
    return f", {so_many(sum(counts.values()), 'run')} in other states ({kinds}) as missing" if counts else ""


# ------------------------------------------------------------------------------------------- MLflow's folder of files


@dataclass(frozen=True)
class _Run:
    folder: Path
    meta: dict[str, str]
    files: dict[tuple[str, str], Path]  # (params, tags or metrics; name) -> file


def _mlflow(folder: Path, label: str, wanted: set[str], higher_is_better: bool) -> Table:
    """The runs of a store of files, oldest first; a metric is the value of its last step.

    Layout: MLflow's `FileStore`, `<experiment>/<run>/{meta.yaml,params/,tags/,metrics/}`. Columns are `run_id`,
    `run_name`, `experiment_id`, params, tags and metrics by name (`params.lr` where metrics have an `lr` too), and
    `<metric>:best`.
    """
    digest = hashlib.sha256()  # of all that is read

    def content(path: Path) -> str:
        raw = path.read_bytes()
        digest.update(f"{storable(path.relative_to(folder).as_posix())}\0{len(raw)}\0".encode() + raw)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            unreadable(path, "not in UTF-8")

    found = [_Run(path, meta, _files(path)) for path, meta in _found_runs(folder, content)]
    if not found:
        unreadable(folder, "a folder without runs of MLflow's")
    runs = [run for run in found if run.meta.get("lifecycle_stage") != "deleted"]
    runs.sort(key=lambda run: (run.meta.get("start_time", "").zfill(20), run.folder.name))

    def own(name: str, run: _Run) -> str:
        if name != "run_name":
            return (run.folder if name == "run_id" else run.folder.parent).name
        tag = run.files.get(("tags", "mlflow.runName"))
        return content(tag).rstrip("\r\n") if tag else run.meta.get("run_name", "")

    sources = dict.fromkeys(
        key for run in runs for key in run.files if key[0] != "tags" or not key[1].startswith("mlflow.")
    )
    times = Counter(name for _, name in sources)
    short = {name: (kind, name) for kind, name in sources if times[name] == 1}
    named = {f"{kind}.{name}": (kind, name) for kind, name in sources} | short
    known = [name if times[name] == 1 else f"{kind}.{name}" for kind, name in sources]
    known += [name for name in ("run_id", "run_name", "experiment_id") if name not in named]

    def column(name: str) -> list[Any] | None:
        if name in named:
            read = _last if named[name][0] == "metrics" else _param
        elif name in known:
            return [own(name, run) for run in runs]
        elif name.endswith(":best") and named.get(name.removesuffix(":best"), ("", ""))[0] == "metrics":
            read = _highest if higher_is_better else _lowest
        else:
            return None
        key = named.get(name) or named[name.removesuffix(":best")]
        paths = [run.files.get(key) for run in runs]
        return [None if path is None else read(content(path), path) for path in paths]

    columns = {name: values for name in sorted(wanted) if (values := column(name)) is not None}
    words = [_MLFLOW_STATES.get(status := run.meta.get("status", "1"), status) for run in runs]
    note = f"{label} is a store of MLflow's: runs FAILED or KILLED there count as crashed"
    notes = [note + _others(word for word in words if word not in _MLFLOW_STATUS)]
    if deleted := len(found) - len(runs):
        notes.append(f"Runs that were deleted in MLflow are left out: {deleted}")
    return Table(
        label=label,
        known=tuple(known),
        columns=columns,
        places=[f"{label}:{storable(printable(run.folder.name))}" for run in runs],
        sha256=digest.hexdigest(),
        states=[_MLFLOW_STATUS.get(word, "missing") for word in words],
        words=[f"status: {printable(word)[:40]}" for word in words],
        notes=tuple(f"{note}." for note in notes),
    )


def _found_runs(folder: Path, content: Callable[[Path], str], depth: int = 0) -> Iterator[tuple[Path, dict[str, str]]]:
    """The run folders at or under a folder, each with its meta.yaml."""
    meta = folder / "meta.yaml"
    if meta.is_file():
        # A flat file of `key: value` lines; what is needed of it is never quoted or wrapped.
        pairs = (line.partition(":") for line in content(meta).splitlines() if line[:1].isalpha())
        entries = {key.strip(): value.strip().strip("'\"") for key, _, value in pairs}
        if "run_id" in entries or "run_uuid" in entries:
            yield folder, entries
            return
    if depth == 2:
        return
    for path in sorted(folder.iterdir()):
        skipped = path.name.startswith(".") or path.name in _MLFLOW_SKIP or path.is_symlink()
        if path.is_dir() and not skipped:
            yield from _found_runs(path, content, depth + 1)


def _files(folder: Path) -> dict[tuple[str, str], Path]:
    """The files under params/, tags/ and metrics/ by name; a name with slashes is a folder in a folder."""
    found: dict[tuple[str, str], Path] = {}
    for kind in ("params", "tags", "metrics"):
        for root, folders, files in os.walk(folder / kind):
            folders.sort()
            paths = (Path(root, name) for name in sorted(files))
            found |= {(kind, path.relative_to(folder / kind).as_posix()): path for path in paths if path.is_file()}
    return found


def _param(text: str, path: Path) -> object:
    return text.rstrip("\r\n")


def _history(text: str, path: Path) -> list[tuple[int, int, float]]:
    """(step, time, value) of each line of a metric's file; lines of old versions have no step."""
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        parts = line.split()
        try:
            if parts:
                found.append((int(parts[2]) if len(parts) > 2 else 0, int(parts[0]), float(parts[1])))
        except (ValueError, IndexError):
            unreadable(path, f"line {number} is no 'time value step'", allowed="lines as MLflow writes a metric")
    return found


def _last(text: str, path: Path) -> object:
    found = _history(text, path)
    return max(enumerate(found), key=lambda entry: (entry[1][:2], entry[0]))[1][2] if found else None


def _highest(text: str, path: Path) -> object:
    return max((value for *_, value in _history(text, path) if math.isfinite(value)), default=None)


def _lowest(text: str, path: Path) -> object:
    return min((value for *_, value in _history(text, path) if math.isfinite(value)), default=None)
