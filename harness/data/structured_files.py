"""Data files that are no lines of text: JSON as a whole, and Parquet; row by row, as objects of column and value."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from harness.common.errors import HarnessError

Row = dict[str, object]
_BATCH = 4096  # rows of a Parquet file read together


def of_json(text: str, source: str) -> list[Row] | None:
    """The rows of a JSON text; None where it is lines of JSON, as many files called .json are.

    It is a list of objects, alone or as the only list in an object; or an object of columns, each a list or, as pandas
    writes it, an object. Numbers stay the text they are. Raises HarnessError for any other.
    """
    try:
        value = json.loads(text, parse_float=str, parse_int=str, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        if _is_object(next((line for line in text.split("\n") if line.strip()), "")):
            return None
        reason = getattr(error, "msg", None) or str(error)
        line = getattr(error, "lineno", None)
        raise _refused(source + (f", line {line}" if line else ""), reason) from None
    if isinstance(value, dict):
        lists = [inner for inner in value.values() if isinstance(inner, list)]
        of_objects = [inner for inner in lists if inner and all(isinstance(row, dict) for row in inner)]
        if len(of_objects) == 1 and len(lists) == 1:
            value = of_objects[0]
        elif value and all(not isinstance(inner, dict | list) for inner in value.values()):
            return None  # a single line
        else:
            value = _of_columns(value, source)
    if not isinstance(value, list):
        raise _refused(source, "neither a list nor an object")
    for number, row in enumerate(value, 1):
        if not isinstance(row, dict):
            raise _refused(f"{source}, row {number}", "no object")
    return value


def of_json_lines(text: str) -> list[tuple[int, object]]:
    """The value of each line that is not blank, with its number from 1; of what is no JSON, what is wrong with it."""
    values: list[tuple[int, object]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            value = f"invalid JSON ({getattr(error, 'msg', error)})"
        values.append((number, value))
    return values


def _of_columns(columns: dict[str, Any], source: str) -> list[Row]:
    keys = [list(values) if isinstance(values, dict) else list(range(len(values))) if isinstance(values, list) else None
            for values in columns.values()]  # fmt: skip
    if not keys or keys[0] is None or any(other != keys[0] for other in keys):
        raise _refused(source, "columns that are not equally long" if keys else "an empty object")
    return [{name: column[key] for name, column in columns.items()} for key in keys[0]]


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name}, which JSON does not have")


def _refused(where: str, got: str) -> HarnessError:
    return HarnessError(
        f"{where}: not a JSON list of objects",
        got=got,
        allowed='[{"text": …, "label": …}, …], an object of columns, or one object per line',
    )


def parquet_names(path: Path) -> list[str]:
    """The names of a Parquet file's columns; raises HarnessError where it can't be read."""
    names: list[str] = _opened(path).schema_arrow.names
    return names


def of_parquet(path: Path, columns: list[str] | None = None) -> Iterator[Row]:
    """The rows of a Parquet file, of some columns or all; numbers become the text that Python writes them as.

    Raises HarnessError where it can't be read.
    """
    from pyarrow import ArrowException

    file = _opened(path)
    try:
        for batch in file.iter_batches(batch_size=_BATCH, columns=columns):
            for row in batch.to_pylist():
                yield {name: _as_text(value) for name, value in row.items()}
    except (OSError, ArrowException) as error:
        raise _unreadable(path, error) from None


def _as_text(value: object) -> object:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _opened(path: Path) -> Any:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        return ParquetFile(path)
    except (OSError, ArrowException) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> HarnessError:
    reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    return HarnessError(f"cannot read the Parquet file {path}: {reason[:120]}", fix="Copy or write it again")
