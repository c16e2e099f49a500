"""Tables in files: CSV, TSV, JSON, JSON lines and Parquet, compressed or not."""

from __future__ import annotations

import ast
import csv
import gzip
import hashlib
import io
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.common.text import count_noun
from harness.records.importing import states
from harness.records.importing.hints import hint_for
from harness.records.importing.table import SourceTable, UnfitError, flatten, plain, unreadable
from harness.records.importing.text import quoted, split_names

STEPS = ("step", "global_step", "_step", "steps", "training_iteration", "iteration", "epoch", "trainer/global_step")
_MOST_NESTED = 100_000  # characters of a text that is read as nested settings


def load_file(path: Path, label: str, wanted: set[str]) -> SourceTable:
    """The table of one file; the same bytes are read and hashed. Raises HarnessError."""
    suffix = path.suffix.lower()
    inner = Path(path.stem).suffix.lower() if suffix == ".gz" else suffix
    if inner not in _READERS or (inner == ".parquet" and suffix == ".gz"):
        unreadable(path, f"its ending is {quoted(suffix)}", fix=hint_for(path))
    if not path.is_file():
        unreadable(path, "it is not a regular file")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error):
            unreadable(path, "it is not gzip, or cut short")
    if not content.strip():
        unreadable(path, "it is empty", allowed="a header and rows")
    collected = Collector(wanted)
    try:
        _READERS[inner](content, collected)
    except UnfitError as unfit:
        unreadable(path, str(unfit))
    except UnicodeDecodeError:
        unreadable(path, "it is not UTF-8 text")
    return collected.table(label, digest, str(path))


class Collector:
    """Takes rows and keeps the wanted columns, the first one, that of the steps, and those that may hold states."""

    def __init__(self, wanted: set[str]) -> None:
        """Start with no row."""
        self.wanted = wanted
        self.known: dict[str, None] = {}
        self.columns: dict[str, list[Any]] = {}
        self.candidates: dict[str, list[Any]] = {}
        self.lines: list[int] = []
        self.blank = 0
        self.parents: set[str] = set()

    def add(self, row: Mapping[str, Any], line: int) -> None:
        """Take the row of a line; a blank one is counted."""
        if not any(_is_filled(value) for value in row.values()):
            self._meet(row)
            self.blank += 1
            return
        if self.parents or any(isinstance(value, dict) for value in row.values()):
            row = self._unfolded(row)
        if not row.keys() <= self.known.keys():
            self._meet(row)
            if self.parents:
                row = self._unfolded(row)
                self._meet(row)
        for name, column in self.columns.items():
            column.append(plain(row.get(name)))
        for name, column in list(self.candidates.items()):
            value = row.get(name)
            if states.may_be(value) or (states.is_named(name) and not isinstance(value, list | dict)):
                column.append(value)
            else:
                del self.candidates[name]
        self.lines.append(line)

    def _meet(self, row: Mapping[str, Any]) -> None:
        new = [name for name in row if name not in self.known]
        first = new[0] if new and not self.known else None
        self.known |= dict.fromkeys(new)
        for name in new:
            if name in self.wanted or name == first or name in STEPS:
                self.columns[name] = [None] * len(self.lines)
            self.candidates[name] = [None] * len(self.lines)
            starts = f"{name}."
            if any(column.startswith(starts) for column in self.wanted):
                self.parents.add(name)

    def _unfolded(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The row with nested settings by their path; of texts, those of which a part is wanted."""
        flat: dict[str, Any] = {}
        for name, value in row.items():
            inner = _nested(value) if isinstance(value, str) and name in self.parents else value
            if isinstance(inner, dict) and inner:
                flat |= flatten(inner, f"{name}.")
                if isinstance(value, str):
                    flat[name] = value
            else:
                flat[name] = None if isinstance(inner, dict) else value
        return flat

    def table(self, label: str, sha256: str, path: str) -> SourceTable:
        """All that was taken."""
        candidates = {name: column for name, column in self.candidates.items() if any(map(_is_filled, column))}
        skipped = count_noun(self.blank, "blank row")
        return SourceTable(
            label=label,
            known=tuple(self.known),
            columns={**candidates, **self.columns},
            places=[f"{label}:{line}" for line in self.lines],
            sha256=sha256,
            candidates=tuple(candidates),
            step_column=next((name for name in STEPS if name in self.columns), None),
            paths=[path] * len(self.lines),
            blank=self.blank,
            notes=(f"{label}: {skipped} skipped.",) if self.blank else (),
        )


def _is_filled(value: object) -> bool:
    return value is not None and not (isinstance(value, str) and not value.strip())


def _nested(text: str) -> object:
    """A text as a mapping: JSON, or as Python writes a dict; else itself."""
    if not text.lstrip().startswith("{") or len(text) > _MOST_NESTED:
        return text
    for read in (json.loads, ast.literal_eval):
        try:
            parsed = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
        if isinstance(parsed, dict):
            return {str(key): value for key, value in parsed.items()}
    return text


def _csv(content: bytes, collected: Collector, delimiter: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline="")
    reader = csv.reader(stream, delimiter=delimiter, strict=True)
    try:
        header = next((row for row in reader if row), [])
        for name, times in Counter(name for name in header if name in collected.wanted).items():
            if times > 1:
                raise UnfitError(f"its header has {quoted(name)} {times} times")
        width, before = len(header), reader.line_num
        collected.add(dict.fromkeys(header), 0)  # its names, though no row follow
        collected.blank = 0
        empty = 0  # lines; those at the end are no rows
        for row in reader:
            start, before = before + 1, reader.line_num
            if not row:
                empty += 1
                continue
            if len(row) != width:
                raise UnfitError(f"line {start} has {count_noun(len(row), 'field')}, the header {width}")
            collected.blank, empty = collected.blank + empty, 0
            collected.add(dict(zip(header, row, strict=True)), start)
    except csv.Error as error:
        raise UnfitError(f"line {reader.line_num}: {error}") from None


def _jsonl(content: bytes, collected: Collector) -> None:
    for number, line in enumerate(io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise UnfitError(f"line {number} is no JSON") from None
        if not isinstance(row, dict):
            raise UnfitError(f"line {number} is no JSON object")
        collected.add(row, number)


def _json(content: bytes, collected: Collector) -> None:
    try:
        parsed = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise
    except (ValueError, RecursionError):
        return _jsonl(content, collected)  # Ray Tune's result.json has an object a line
    for number, row in enumerate(_json_rows(parsed, collected.wanted), start=1):
        collected.add(row, number)
    return None


def _json_rows(parsed: object, wanted: set[str]) -> Iterator[Mapping[str, Any]]:
    """The rows of a JSON file: a list of objects, one object, or one of pandas' other ways to write a table."""
    if isinstance(parsed, list) and all(isinstance(row, dict) for row in parsed):
        yield from parsed
        return
    if not isinstance(parsed, dict):
        raise UnfitError("neither a list of objects nor an object")
    names, data = parsed.get("columns"), parsed.get("data")
    if isinstance(data, list) and all(isinstance(row, dict) for row in data):  # orient="table"
        yield from data
    elif isinstance(data, list) and isinstance(names, list):  # orient="split"
        for row in data:
            if not isinstance(row, list) or len(row) != len(names):
                raise UnfitError(f"a row of 'data' has not the {count_noun(len(names), 'column')}")
            yield dict(zip(map(str, names), row, strict=True))
    elif parsed and all(isinstance(value, dict) for value in parsed.values()) and not wanted & parsed.keys():
        yield from parsed.values()  # orient="index": a run by its name
    elif wanted & parsed.keys() and all(isinstance(value, dict) for value in parsed.values()):  # orient="columns"
        rows = dict.fromkeys(key for value in parsed.values() for key in value)
        yield from ({name: value.get(key) for name, value in parsed.items()} for key in rows)
    elif wanted & parsed.keys() and all(isinstance(value, list) for value in parsed.values()):
        if len({len(value) for value in parsed.values()}) > 1:
            raise UnfitError("its columns have different lengths")
        yield from (dict(zip(parsed, row, strict=True)) for row in zip(*parsed.values(), strict=True))
    else:
        lists = [value for value in parsed.values() if _is_rows(value)]
        if len(lists) == 1:
            yield from lists[0]  # {"runs": [{…}, …]}
        else:
            yield parsed


def _is_rows(value: object) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(isinstance(row, dict) for row in value)


def _parquet(content: bytes, collected: Collector) -> None:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(content), pre_buffer=False)
        names = file.schema_arrow.names
        if len(set(names)) < len(names):
            raise UnfitError("two of its columns have one name")
        nested = [field.name for field in file.schema_arrow if pyarrow.types.is_struct(field.type)]
        texts = [field.name for field in file.schema_arrow if _is_text(field.type)]
        parents = {name.partition(".")[0] for name in collected.wanted}
        chosen = [
            name
            for column, name in enumerate(names)
            if name in collected.wanted
            or name in parents
            or name in nested
            or name in texts
            or name in STEPS
            or not column
        ]
        table = file.read(columns=chosen, use_threads=False)  # threads may abort the process on damage
        columns = {name: table.column(name).to_pylist() for name in chosen}
        collected.known |= dict.fromkeys(name for name in names if name not in chosen)
        for number, row in enumerate(zip(*columns.values(), strict=True), start=1):
            collected.add(dict(zip(columns, row, strict=True)), number)
        collected.known = dict.fromkeys([*(name for name in names if name in collected.known), *collected.known])
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError):
        raise UnfitError("no Parquet, or damaged") from None


def _is_text(kind: Any) -> bool:
    import pyarrow

    types = pyarrow.types
    inner = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_string(inner) or types.is_large_string(inner))


_READERS: Mapping[str, Callable[[bytes, Collector], None]] = {
    ".csv": lambda content, collected: _csv(content, collected, ","),
    ".tsv": lambda content, collected: _csv(content, collected, "\t"),
    ".json": _json,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".parquet": _parquet,
}


def wanted_names(texts: Sequence[str]) -> set[str]:
    """All names of columns that texts may stand for: themselves, and their parts between commas."""
    return {*texts, *(name for text in texts for name in split_names(text))}
