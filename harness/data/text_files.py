"""Data files of texts and labels: where they lie, and their rows, whole or one by one."""

import csv
import importlib
import io
import itertools
import json
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import IO, NoReturn

from harness.common.errors import HarnessError, describe_os_error
from harness.common.text import count_noun, is_unicode
from harness.config.recipe import TaskFiles, TaskSpec
from harness.data import structured_files, superglue
from harness.data.glue import GLUE, OWN, Glue
from harness.data.text_columns import (
    MISSING,
    MOST_LABEL,
    Columns,
    TextTable,
    WantedColumns,
    layout,
    no_rows,
    refuse,
    refuse_length,
    refuse_value,
    table_of,
)

MOST_LINE_BYTES = 2**24  # of a line: the longest text of a data set known has a twentieth of that

SUFFIXES = (".tsv", ".csv", ".jsonl", ".json", ".parquet")


def reader(kind: str) -> ModuleType:
    """The module that reads the files of a task kind: `tokens` are read by `token_files.py`.

    It has `SUFFIXES`, the endings of its files in a folder; of another kind than `texts` also `load(spec)`, which gives
    the splits (`Raw`).
    """
    return importlib.import_module(f"harness.data.{kind.removesuffix('s')}_files")


def files_of(spec: TaskSpec) -> dict[str, Path] | None:
    """The files that `load` reads, by split; None for a task without files."""
    return None if spec.files is None else find(spec, spec.files)


def find(spec: TaskSpec, files: TaskFiles) -> dict[str, Path]:
    """The files meant, by split, each looked for in a folder where one is named.

    Where the task says which share of the training file is the dev split, there is no file of that.
    """
    stems, glue = ["validation", "dev"], GLUE.get(spec.name)
    suffixes: tuple[str, ...] = reader(spec.kind).SUFFIXES
    if glue is not None:
        stems += ["val"]  # as SuperGLUE's are called
    if glue is not None and glue.validation != "validation":
        stems += [glue.validation, glue.validation.replace("validation", "dev")]
    paths = {"train": _one_of(files.train, "train", ["train"], suffixes)}
    if spec.validation is not None:
        _refuse_both(spec.validation, files, paths["train"], [stem + suffix for stem in stems for suffix in suffixes])
    elif files.validation is None:
        raise HarnessError(
            "task.files has a training file but no dev split",
            fix="Set task.files.validation, or task.validation=0.1 to split off a tenth of the training file",
        )
    else:
        paths["validation"] = _one_of(files.validation, "validation", stems, suffixes)
    if files.test is not None:
        paths["test"] = _one_of(files.test, "test", ["test"], suffixes)
    names: dict[Path, str] = {}
    for split, path in paths.items():
        other = names.setdefault(path.resolve(), split)
        if other != split:
            raise HarnessError(
                f"{other.replace('train', 'training')} and {split} data cannot be the same file",
                got=path,
                fix=f"Set task.files.{other} and task.files.{split}"
                + (", or task.validation=0.1 to split off a tenth of the training file" * (split == "validation")),
            )
    return paths


def _refuse_both(share: float, files: TaskFiles, train: Path, names: Sequence[str]) -> None:
    """Refuse a file of the dev split beside a share of the training file."""
    other = None if files.validation is None else Path(files.validation).expanduser()
    there = [other] if other is not None else []
    if other is not None and other.is_dir():
        there = [other / name for name in names if (other / name).is_file()]
    if there and there[0].resolve() != train.resolve():
        raise HarnessError(
            f"task.validation={share:g} cannot be used beside a dev file",
            got=there[0],
            fix="Remove task.validation, or name the training file itself with task.files.train",
        )


def _one_of(given: str, split: str, stems: Sequence[str], suffixes: Sequence[str]) -> Path:
    path = Path(given).expanduser()
    if not path.exists():
        raise _unreadable(path, "no such file or folder")
    if not path.is_dir():
        return path
    names = [stem + suffix for stem in stems for suffix in suffixes]
    paths = [path / name for name in names if (path / name).is_file()]
    if len(paths) != 1:
        raise HarnessError(
            f"{path} has {' and '.join(file.name for file in paths)}: which is the {split} file?"
            if paths
            else f"{path} has no {' or '.join(stems)} file",
            allowed=None if paths else ", ".join(names),
            fix=f"Set task.files.{split} to the file"
            + (", or task.validation=0.1 to split off a tenth of the training file" * (split == "validation")),
        )
    return paths[0]


# --------------------------------------------------------------------------------------------------------- a file whole


def read(path: Path, spec: TaskSpec, glue: Glue | None, blank: bool) -> TextTable:
    """A file's texts and labels; `blank` texts are refused unless they are asked for."""
    glue, suffix = glue or OWN, _suffix(path)
    if (reshape := superglue.reshaping(spec)) is not None:
        reshaped = [(n, own) for n, row in keyed_rows(path, spec) for own in reshape(row, str(path), n)]
        table = _table_of_objects("line", reshaped, str(path), spec, glue, blank)
        return replace(table, groups=superglue.groups(spec, [own for _, own in reshaped]))
    if suffix == ".parquet":
        return _read_parquet(path, spec, glue, blank)
    text = decoded(path, in_lines=suffix != ".json", encoding=spec.encoding)
    if suffix == ".json" and (objects := structured_files.of_json(text, str(path))) is not None:
        return _table_of_objects("row", list(enumerate(objects, 1)), str(path), spec, glue, blank)
    if suffix in (".json", ".jsonl"):
        return _read_json(text, str(path), spec, glue, blank)
    quoting = spec.quoting or ("none" if suffix == ".tsv" else "csv")
    split = _split_plain if quoting == "none" else _split_quoted
    rows = split(text, delimiter_of(suffix, text.partition("\n")[0]), str(path))
    while rows and not any(rows[-1][1]) and len(rows[-1][1]) <= 1:  # blank lines at the end
        rows.pop()
    return _read_rows(rows, str(path), spec, glue, blank)


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise HarnessError(
            f"cannot read {path}: unknown file type '{path.suffix}'", allowed=", ".join(SUFFIXES), fix="Rename it"
        )
    return suffix


def _unreadable(path: Path, reason: str) -> HarnessError:
    return HarnessError(
        f"cannot read the data file {path}: {reason}",
        fix="Check task.files; relative paths start at the working directory",
    )


def decoded(path: Path, in_lines: bool = True, encoding: str | None = None) -> str:
    """The file's text, UTF-8 unless another encoding is named; a BOM is dropped, nothing else is changed.

    `in_lines`: it is made of them, and a line that is no row of texts is refused before the rest is read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise _unreadable(path, "it is no regular file")
        with path.open("rb") as file:
            content = b"".join(_lines(file, path)) if in_lines else file.read()
    except OSError as error:
        raise _unreadable(path, describe_os_error(error)) from None
    try:
        text = content.decode(encoding or "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        _refuse_bytes(encoding, content[error.start], path, line)
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        refuse("not plain text: a NUL byte", path, line, fix="Save the file as UTF-8")
    return text


def _refuse_bytes(encoding: str | None, byte: int, path: Path, line: int) -> NoReturn:
    fix = "Convert the file to UTF-8, or set task.encoding (for example: task.encoding=shift_jis)"
    named = "UTF-8 text" if encoding is None else f"text in {encoding}"
    refuse(f"not {named}: byte 0x{byte:02x}", path, line, fix=fix if encoding is None else "Check task.encoding")


def _lines(file: IO[bytes], path: Path) -> Iterator[bytes]:
    """The lines of a file, each with its end; raises HarnessError for one that is too long, before it is in memory."""
    number = 1
    while line := file.readline(MOST_LINE_BYTES + 1):
        if len(line) > MOST_LINE_BYTES:
            limit = f"at most {MOST_LINE_BYTES >> 20} MiB"
            refuse("the line is too long for a row", path, number, allowed=limit, fix="Check that it is the right file")
        yield line
        number += 1


_NumberedRows = list[tuple[int, list[str]]]


def _split_plain(text: str, delimiter: str, source: str) -> _NumberedRows:
    """Rows of a file whose quotes are plain characters; str.splitlines would also break at U+2028 and the like."""
    lines = text.split("\n")
    return [(number, line.removesuffix("\r").split(delimiter)) for number, line in enumerate(lines, 1)]


def _split_quoted(text: str, delimiter: str, source: str) -> _NumberedRows:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: _NumberedRows = []
    line = 1
    limit = csv.field_size_limit(sys.maxsize)  # of the whole process: put back below
    try:
        for row in reader:
            rows.append((line, row))
            line = reader.line_num + 1
    except csv.Error as error:
        _refuse_quotes(source, line, error)
    finally:
        csv.field_size_limit(limit)
    return rows


def _refuse_quotes(source: str, line: int, error: csv.Error) -> NoReturn:
    refuse(
        f"wrong quotes: {error}",
        source,
        line,
        fix='Quote a field as "one ""quoted"" word", or set task.quoting=none',
    )


def _read_rows(rows: _NumberedRows, source: str, spec: TaskSpec, glue: Glue, blank: bool) -> TextTable:
    if not rows:
        raise no_rows(source)
    columns, names, header = layout(rows[0][1], spec, glue, source)
    rows = rows[1:] if header else rows
    for line, row in rows:
        _check_width(row, len(names), header, source, line)
    return table_of(source, "line", rows, columns, names, blank)


def delimiter_of(suffix: str, first: str) -> str:
    """What separates fields: of a .csv file whose first line has no comma a semicolon or tab, if that is in it."""
    if suffix == ".tsv":
        return "\t"
    return next((char for char in (",", ";", "\t") if char in first), ",")


def _check_width(row: Sequence[str], width: int, header: bool, source: str, line: int) -> None:
    if len(row) != width:
        refuse(
            f"{count_noun(len(row), 'field')} instead of {width} as in the {'header' if header else 'first row'}"
            if any(row)
            else "a blank line between rows",
            source,
            line,
            fix="Correct that row, or set task.quoting (none or csv) if quotes are read wrongly",
        )


def _read_json(text: str, source: str, spec: TaskSpec, glue: Glue, blank: bool) -> TextTable:
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1)]
    while lines and not lines[-1][1].strip():
        lines.pop()
    objects = [(number, _object(line, source, number)) for number, line in lines]
    return _table_of_objects("line", objects, source, spec, glue, blank)


def _table_of_objects(
    unit: str, objects: Sequence[tuple[int, Mapping[str, object]]], source: str, spec: TaskSpec, glue: Glue, blank: bool
) -> TextTable:
    if not objects:
        raise no_rows(source)
    names = list(dict.fromkeys(key for _, fields in objects for key in fields))
    columns = Columns.choose(names, spec, glue, source, by_index=False)
    rows = ((number, [fields.get(name, MISSING) for name in names]) for number, fields in objects)
    return table_of(source, unit, rows, columns, names, blank)


def _read_parquet(path: Path, spec: TaskSpec, glue: Glue, blank: bool) -> TextTable:
    """Read the columns in use alone."""
    names = structured_files.parquet_names(path)
    columns = Columns.choose(names, spec, glue, str(path), by_index=False)
    used = [names[column] for column in columns.used]
    rows = enumerate(([row[name] for name in used] for row in structured_files.of_parquet(path, used)), 1)
    compact = Columns(0, None if columns.pair is None else 1, len(used) - 1)
    return table_of(str(path), "row", rows, compact, used, blank)


def _object(line: str, source: str, number: int) -> dict[str, object]:
    try:
        # Numbers stay the text they are: labels are compared as they are written.
        value = json.loads(line, parse_float=str, parse_int=str, parse_constant=_no_constant)
        problem = "" if isinstance(value, dict) else f"a {type(value).__name__}"
    except (ValueError, RecursionError) as error:
        problem = getattr(error, "msg", None) or str(error)
    if problem:
        refuse(f"not a JSON object: {problem}", source, number, allowed='{"text": …, "label": …}')
    return dict(value)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name}, which JSON does not have")


# -------------------------------------------------------------------------------------------- row by row, to predict on


@dataclass(frozen=True)
class Line:
    """A row to predict on, and where it stands; its label is None where the file has none."""

    number: int
    text: str
    pair: str | None
    label: str | None


def stream(path: Path, spec: TaskSpec, pairs: bool, label: bool = False, predicts: bool = True) -> Iterator[Line]:
    """The rows of a file whose columns go by the names that the task's files have, read one by one.

    A `label` column may lack unless it is asked for; a text may be blank. Raises HarnessError for a file that can't be
    read or is not clean, with its line; a lacking column is named by an option where it `predicts`, else by a key.
    """
    glue, suffix, source, columns_wanted = (
        GLUE.get(spec.name, OWN),
        _suffix(path),
        str(path),
        WantedColumns(pairs, label, predicts),
    )
    columns, names, header = None, [""], True
    reshape = superglue.reshaping(spec)
    streamed: Iterator[tuple[int, list[str] | Mapping[str, object]]] = (
        _streamed(path, suffix, spec)
        if reshape is None
        else ((number, own) for number, row in keyed_rows(path, spec) for own in reshape(row, source, number))
    )
    for number, row in streamed:
        if isinstance(row, Mapping):
            if columns is None:
                names = list(row)
                columns = Columns.choose(names, spec, glue, source, False, columns_wanted)
            values = [row.get(name, MISSING) for name in names]
            if spec.kind == "labels" and columns.label is not None and isinstance(values[columns.label], list):
                values[columns.label] = json.dumps(values[columns.label], ensure_ascii=False)
            yield _line(values, columns, names, source, number)
            continue
        if columns is None:
            columns, names, header = layout(row, spec, glue, source, columns_wanted)
            if header:
                continue
        _check_width(row, len(names), header, source, number)
        yield _line(row, columns, names, source, number)
    if columns is None:
        raise no_rows(source)


def keyed_rows(path: Path, spec: TaskSpec) -> Iterator[tuple[int, Mapping[str, object]]]:
    """The rows of a file with a header, each with its number, as objects of column and value.

    Raises HarnessError for a file that can't be read or is not clean, with its line.
    """
    names: list[str] | None = None
    for number, row in _streamed(path, _suffix(path), spec):
        if isinstance(row, Mapping):
            yield number, row
        elif names is None:
            names = [name.strip() for name in row]
            if len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise HarnessError(f"{path} has two columns {twice}", fix="Rename one")
        else:
            _check_width(row, len(names), True, str(path), number)
            yield number, dict(zip(names, row, strict=True))


def _streamed(path: Path, suffix: str, spec: TaskSpec) -> Iterator[tuple[int, list[str] | Mapping[str, object]]]:
    """The fields of each row with its line, without blank lines at the end."""
    if suffix == ".parquet":
        yield from enumerate(structured_files.of_parquet(path), 1)
        return
    if suffix == ".json":
        objects = structured_files.of_json(decoded(path, in_lines=False, encoding=spec.encoding), str(path))
        if objects is not None:
            yield from enumerate(objects, 1)
            return
        suffix = ".jsonl"
    lines, source = _decoded_lines(path, spec.encoding), str(path)
    head = list(itertools.islice(lines, 1))
    delimiter = delimiter_of(suffix, head[0][1].rstrip("\r\n") if head else "")
    lines = itertools.chain(head, lines)
    if suffix == ".jsonl" or (spec.quoting or ("none" if suffix == ".tsv" else "csv")) == "none":
        blank = 0
        for number, text in lines:
            content = text.removesuffix("\n").removesuffix("\r")
            if not content:
                blank = blank or number
                continue
            if blank:
                refuse("a blank line between rows", source, blank, fix="Remove it")
            yield number, _object(content, source, number) if suffix == ".jsonl" else content.split(delimiter)
        return
    reader = csv.reader((text for _, text in lines), delimiter=delimiter, strict=True)
    line = 1
    while (row := _next_of_any_length(reader, source, line)) is not None:
        if row:
            yield line, row
        line = reader.line_num + 1


def _next_of_any_length(reader: Iterator[list[str]], source: str, line: int) -> list[str] | None:
    """The next row of a reader, whatever its length, or None after the last.

    The longest field is the whole process's: between two rows, where another file may be read or this one left, it is
    as it was.
    """
    limit = csv.field_size_limit(sys.maxsize)
    try:
        return next(reader, None)
    except csv.Error as error:
        _refuse_quotes(source, line, error)
    finally:
        csv.field_size_limit(limit)


def _line(row: Sequence[object], columns: Columns, names: Sequence[str], source: str, number: int) -> Line:
    values: list[str | None] = []
    for column in (columns.text, columns.pair, columns.label):
        value = None if column is None else row[column]
        if isinstance(value, bool) and column == columns.label:
            value = str(value).lower()
        if column is None:
            values.append(None)
        elif isinstance(value, str) and column == columns.label and len(value) > MOST_LABEL:
            refuse_length("label", value, source, number)
        elif isinstance(value, str) and is_unicode(value):
            values.append(value)
        else:
            refuse_value(value, column == columns.label, names[column], source, number, "line")
    text, pair, label = values
    return Line(number, text or "", pair, None if label is None else label.strip())


def _decoded_lines(path: Path, encoding: str | None) -> Iterator[tuple[int, str]]:
    """The lines of a file with their numbers, each with its end; raises HarnessError for what is no text."""
    try:
        with path.open("rb") as file:
            for number, content in enumerate(_lines(file, path), 1):
                try:
                    text = content.decode(encoding or ("utf-8-sig" if number == 1 else "utf-8"))
                except UnicodeDecodeError as error:
                    _refuse_bytes(encoding, content[error.start], path, number)
                if "\0" in text:
                    refuse("not plain text: a NUL byte", path, number, fix="Save the file as UTF-8")
                yield number, text
    except OSError as error:
        raise _unreadable(path, describe_os_error(error)) from None
