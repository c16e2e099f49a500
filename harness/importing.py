"""Somebody else's runs, from CSV, JSON lines, Parquet, a W&B export or an MLflow store, as a table to report on."""

from __future__ import annotations

import csv
import difflib
import math
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness import formats, study
from harness.formats import Table, listed, printable, quoted, storable, text_of
from harness.study import Axes, Imported
from harness.sweep import MAX_SEED, HarnessError, Scalar, name_cell, so_many

AGGREGATIONS = ("mean", "median", "min", "max", "first", "last")
NAN_CHOICES = ("missing", "diverged")
MOST_PLANNED = 1_000_000  # cells × seeds of --seeds; more is a slip of the pen
NEAR = 0.001  # a score this near to the majority, yet not at it, deserves a word
SAME = 1e-9  # relative: a score is at the majority though its last bit differs

_NAME = re.compile(r"(?!.*\.ya?ml$)[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_PADDED = re.compile(r"[+-]?0[0-9]")  # 007 is a name
_EMPTY = {"", "nan", "na", "n/a", "<na>", "null", "none"}  # how programs write that there is no score
_INFINITE = {"inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"}
_TRUTH = {"true": True, "false": False}


@dataclass(frozen=True)
class Asked:
    """What an import is asked for, as it was typed."""

    files: tuple[Path, ...]
    seed: str
    metric: str
    name: str
    cell: tuple[str, ...] = ()
    where: tuple[str, ...] = ()
    majority: str | None = None
    higher_is_better: bool = True
    nan: str | None = None
    aggregate: str | None = None
    seeds: str | None = None
    examples: str | None = None
    test: str | None = None
    best: str | None = None
    loss: str | None = None

    @property
    def command(self) -> str:
        """The shell command that imports this again; of an absolute path only its last part."""
        words = ["harness", "import", *(path.name if path.is_absolute() else str(path) for path in self.files)]
        for option in ("cell", "seed", "metric", "where", "majority"):
            value = getattr(self, option)
            values = (value,) if isinstance(value, str) else value or ()
            words += [word for one in values for word in _option(option, one)]
        words += [] if self.higher_is_better else ["--lower-is-better"]
        for option in ("nan", "aggregate", "seeds", "examples", "test", "best", "loss"):
            words += [] if getattr(self, option) is None else _option(option, getattr(self, option))
        words += ["--as", self.name]
        return storable(shlex.join(words))


@dataclass(frozen=True)
class Read:
    """What an import reads: `runs` has columns of `study.columns()`, one row a run; `rows` counts those of the files.

    `left_out` counts rows that --where left out, `merged` those beyond one a run: rows = left_out + merged + the runs
    that stand in a file. `unseen` counts planned runs without a row.
    """

    imported: Imported
    runs: pd.DataFrame
    rows: int
    left_out: int
    merged: int
    unseen: int

    @property
    def counts(self) -> dict[str, int]:
        """`cells`, `runs`, `finished`, `crashed`, `missing`, `diverged` (of the finished)."""
        status = Counter(self.runs["status"])
        counts = {"cells": len(self.imported.cells), "runs": len(self.runs)}
        counts |= {name: status[name] for name in ("finished", "crashed", "missing")}
        return counts | {"diverged": int((self.runs["reason"] == "diverged").sum())}


def run(asked: Asked, results: Path, *, overwrite: bool = False) -> tuple[Path, Read]:
    """Read the files and write `results/<name>`; raises HarnessError for bad input, before anything is written.

    A folder of that name is replaced only if it holds an import by the same command, or by `overwrite` any import.
    """
    folder = results / _name(asked.name)
    _refuse_replacing(folder, asked, overwrite)
    found = read(asked)
    study.save_imported(folder, found.imported, found.runs)
    return folder, found


def read(asked: Asked) -> Read:
    """The runs that the files hold, and how they were read; raises HarnessError for bad input."""
    _check(asked)
    tables = _tables(asked)
    cell = _cell_columns(asked.cell, tables)
    conditions = _conditions(asked.where, tables)
    majority = _given(asked.majority, tables, "--majority")
    examples = _given(asked.examples, tables, "--examples")
    named = [("--seed", asked.seed), ("--metric", asked.metric)]
    named += [(f"--{name}", value) for name in ("test", "best", "loss") if (value := getattr(asked, name)) is not None]
    for option, column in named:
        _hold(column, option, tables)
    for column in cell:
        if column in (asked.seed, asked.metric):
            raise HarnessError(
                "a column has one part to play", got=f"--cell {quoted(column)}, which is the seed or the score",
                allowed="a setting that tells cells apart", fix="leave it out of --cell",
            )  # fmt: skip
    rows = _Rows(tables)
    kept = rows.keep(conditions)
    if not len(kept.places):
        wanted = " ".join(shlex.join(_option("where", condition)) for condition in asked.where)
        there = {name: dict.fromkeys(map(text_of, rows.values(name))) for name in conditions}
        raise HarnessError(
            "--where leaves at least one row", got=f"{printable(wanted)}, which leaves none of {len(rows.places)}",
            allowed="; ".join(f"{quoted(name)}: {listed(texts)}" for name, texts in there.items()),
            fix="loosen the conditions",
        )  # fmt: skip
    return _study(asked, tables, len(rows.places), kept, cell, majority, examples)


# -------------------------------------------------------------------------------------------------- what is asked


def _option(option: str, value: str) -> list[str]:
    return [f"--{option}={value}"] if value.startswith("-") else [f"--{option}", value]


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise HarnessError(
            "--as names a results folder", got=quoted(name),
            allowed="up to 100 letters, digits, '.', '_' and '-', the first a letter or digit, not as a YAML file's",
            fix="choose such a name",
        )  # fmt: skip
    return name


def _refuse_replacing(folder: Path, asked: Asked, overwrite: bool) -> None:
    if not (folder.exists() or folder.is_symlink()):
        return
    if study.is_imported(folder):
        try:
            before = Imported.model_validate_json((folder / "imported.json").read_bytes()).command
        except (OSError, ValueError):
            before = None
        if overwrite or before == asked.command:
            return
        raise HarnessError(
            "an import is replaced by the same command alone", got=f"{printable(str(folder))}, imported otherwise",
            allowed="another name, or the same command", fix="add --overwrite to replace it, or choose another --as",
        )  # fmt: skip
    left_behind = folder.is_dir() and all(
        path.name == "runs.csv" or (path.name.startswith(".") and path.suffix == ".tmp") for path in folder.iterdir()
    )  # by an import that was killed
    if not left_behind:
        raise HarnessError(
            "--as names a new results folder", got=f"{printable(str(folder))}, which is there and holds no import",
            allowed="a name that is free, or that of an import", fix="choose another --as",
        )  # fmt: skip


def _check(asked: Asked) -> None:
    """What can be told without reading a file."""
    for option, value, choices in (("--nan", asked.nan, NAN_CHOICES), ("--aggregate", asked.aggregate, AGGREGATIONS)):
        if value is not None and value not in choices:
            raise HarnessError(
                f"{option} is one of a few words", got=quoted(value), allowed=", ".join(choices), fix="choose one"
            )
    if asked.examples is not None and not asked.higher_is_better:
        raise HarnessError(
            "--examples says that the score is a share of right answers", got="--examples with --lower-is-better",
            allowed="either of them", fix="leave one out",
        )  # fmt: skip
    if not asked.files:
        raise HarnessError("an import reads files", got="none", allowed="one or more", fix="name them")


# --------------------------------------------------------------------------------------------------------- the columns


def _tables(asked: Asked) -> list[Table]:
    wanted = {asked.seed, asked.metric, "State", *(asked.cell)}
    wanted |= {name for given in asked.cell for name in _split(given)}
    for condition in asked.where:
        wanted |= {condition[:place] for place, sign in enumerate(condition) if sign == "="}
    wanted |= {value for name in ("majority", "examples", "test", "best", "loss") if (value := getattr(asked, name))}
    labels: Counter[str] = Counter()
    tables: list[Table] = []
    seen: set[tuple[int, int]] = set()
    for path in asked.files:
        name = storable(printable(path.name or path.resolve().name or "runs"))
        labels[name] += 1
        label = name if labels[name] == 1 else f"{name}#{labels[name]}"
        try:
            status = path.stat()
        except (OSError, ValueError) as error:
            formats.unreadable(path, getattr(error, "strerror", None) or "no name of a file")
        if (status.st_dev, status.st_ino) in seen:
            raise HarnessError(
                "a file is read once", got=f"{printable(str(path))} twice", allowed="different files", fix="drop one"
            )
        seen.add((status.st_dev, status.st_ino))
        tables.append(formats.load(path, label, wanted, asked.higher_is_better))
    return tables


def _split(given: str) -> list[str]:
    """`a,b` and `"a,b",c` as names; a text that can't be read so is one name."""
    try:
        return next(csv.reader([given], strict=True), [given])
    except csv.Error:
        return [given]


def _hold(column: str, option: str, tables: Sequence[Table]) -> None:
    """Raise HarnessError unless every file has a column, under a name that can be kept."""
    for table in tables:
        if column and column in table.columns:
            if storable(column) == column:
                continue
            raise HarnessError(
                "a column's name is text", got=quoted(column), allowed="what UTF-8 can hold", fix="rename it"
            )
        close = [name for name in table.known if column and name.endswith(f".{column}")]
        close = close or difflib.get_close_matches(column, table.known, 3, 0.6)
        raise HarnessError(
            f"{option} names a column of every file", got=f"{quoted(column)}, not in {table.label}",
            allowed=listed(table.known), fix=f"did you mean {listed(close)}?" if close else "name one of these",
        )  # fmt: skip


def _cell_columns(given: Sequence[str], tables: Sequence[Table]) -> tuple[str, ...]:
    names: list[str] = []
    for text in given:
        whole = all(text in table.columns for table in tables)
        names += [text] if whole and text else _split(text) or [text]
    for name in names:
        _hold(name, "--cell", tables)
    for name, times in Counter(names).items():
        if times > 1:
            raise HarnessError(
                "--cell names a column once", got=quoted(name), allowed="different columns", fix="drop one"
            )
    return tuple(names)


def _axis_names(columns: Sequence[str]) -> tuple[dict[str, str], str | None]:
    """The names of the axes, other than those that the table of runs has of its own, and a word on those renamed."""
    taken = {*study.columns(), study.SOURCE, "verdict"}
    names: dict[str, str] = {}
    for column in columns:
        name = column
        while name in taken or (name != column and name in columns):
            name = f"setting {name}"
        names[column] = name
    renamed = [f"{column} ({name})" for column, name in names.items() if column != name]
    note = f"Columns with a name that the report needs for itself are axes of another: {', '.join(renamed)}."
    return names, note if renamed else None


def _given(text: str | None, tables: Sequence[Table], option: str) -> float | str | None:
    """A number, or the name of a column."""
    if text is None:
        return None
    number = _number(text)
    if number is not None:
        return number
    _hold(text, option, tables)
    return text


def _conditions(given: Sequence[str], tables: Sequence[Table]) -> dict[str, set[str]]:
    """Column -> the texts it may have."""
    found: dict[str, set[str]] = {}
    for text in given:
        places = [place for place, sign in enumerate(text) if sign == "="]
        if not places:
            raise HarnessError(
                "--where takes COLUMN=VALUE", got=quoted(text), allowed="as split=test or split=test,dev",
                fix="add the =",
            )  # fmt: skip
        fitting = [place for place in places if all(text[:place] in table.columns for table in tables)]
        place = (fitting or places)[0]
        _hold(text[:place], "--where", tables)
        values = text[place + 1 :]
        found.setdefault(text[:place], set()).update({values, *_split(values)})
    return found


def _number(text: str) -> float | None:
    """The finite number that a text is, else None."""
    text = text.strip()
    if len(text) > 400 or not _NUMBER.fullmatch(text):
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def _matches(value: object, texts: set[str], numbers: set[float]) -> bool:
    text = text_of(value)
    if text in texts or _number(text) in numbers:
        return True
    return text.strip().casefold() in _TRUTH and any(text.strip().casefold() == one.casefold() for one in texts)


@dataclass(frozen=True)
class _Rows:
    """The rows of all files, in their order, or those of them that --where keeps."""

    tables: Sequence[Table]
    chosen: np.ndarray | None = None
    places: list[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "places", self._picked([place for table in self.tables for place in table.places]))

    def _picked(self, values: list[Any]) -> list[Any]:
        return values if self.chosen is None else [values[index] for index in self.chosen]

    def values(self, column: str) -> list[Any]:
        """A column as the files have it."""
        return self._picked([value for table in self.tables for value in table.columns[column]])

    @property
    def states(self) -> list[str]:
        """What the tool says of each run; finished where the file has no word on it."""
        return self._picked(
            [state for table in self.tables for state in table.states or ["finished"] * len(table.places)]
        )

    @property
    def words(self) -> list[str]:
        """The states in the tool's own words."""
        return self._picked([word for table in self.tables for word in table.words or [""] * len(table.places)])

    def keep(self, conditions: dict[str, set[str]]) -> _Rows:
        """The rows whose columns have one of the texts, or a number equal to one."""
        kept = np.ones(len(self.places), dtype=bool)
        for column, texts in conditions.items():
            numbers = {number for text in texts if (number := _number(text)) is not None}
            known: dict[tuple[type, object], bool] = {}
            for index, value in enumerate(self.values(column)):
                key = (type(value), value)
                if key not in known:
                    known[key] = _matches(value, texts, numbers)
                kept[index] &= known[key]
        return _Rows(self.tables, np.flatnonzero(kept)) if conditions else self

    def numbers(self, column: str, option: str) -> np.ndarray:
        """A column as floats [rows], NaN where it is empty, NaN or infinite; raises HarnessError for text."""
        found = np.empty(len(self.places))
        for index, value in enumerate(self.values(column)):
            if type(value) is float:
                found[index] = value
                continue
            try:
                if isinstance(value, bool) or (isinstance(value, str) and "_" in value):
                    raise ValueError
                text = isinstance(value, str) and value.strip().casefold() in _EMPTY
                found[index] = math.nan if value is None or text else float(value)
            except OverflowError:
                found[index] = math.inf
            except ValueError:
                raise HarnessError(
                    f"{option} {quoted(column)} holds numbers", got=f"{quoted(value)} in {self.places[index]}",
                    allowed="a number as 0.53 or 1e-5, or nothing",
                    fix="correct it, or leave the row out with --where",
                ) from None  # fmt: skip
        found[~np.isfinite(found)] = math.nan
        return found

    def settings(self, column: str) -> list[Scalar]:
        """A column as settings: all of them numbers, all on/off, or all texts, and None where there is none.

        A text that reads as a number is one if the whole column does, so that no format of file makes a difference.
        """
        values = self.values(column)
        keys = [(type(value), value) for value in values]
        kinds = {key: _kind(key[1]) for key in dict.fromkeys(keys)}
        found = {kind for kind, _ in kinds.values() if kind != "none"}
        texts: dict[tuple[type, Any], Scalar] = {}
        if found <= {"integer", "number", "infinite"}:
            floats = "number" in found
            for key, (_, value) in kinds.items():
                texts[key] = _as_float(value) if floats and isinstance(value, int) else value
        elif found == {"truth"}:
            texts = {key: value for key, (_, value) in kinds.items()}
        else:
            texts = {key: None if kind == "none" else text_of(key[1]) for key, (kind, _) in kinds.items()}
        for key, value in texts.items():
            if isinstance(value, str) and storable(value) != value:
                raise HarnessError(
                    f"the values of {quoted(column)} are text",
                    got=f"{quoted(value)} in {self.places[keys.index(key)]}", allowed="what UTF-8 can hold",
                    fix="correct it",
                )  # fmt: skip
        return [texts[key] for key in keys]

    def seeds(self, column: str, planned: Sequence[str]) -> tuple[list[Any], list[Any]]:
        """The seeds of the rows and those planned: all integers, all numbers, or all texts."""
        values = [*self.values(column), *planned]
        found: list[Any] = []
        for index, value in enumerate(values):
            kind, seed = _kind(value, padded=True)
            bad = kind in ("none", "truth", "infinite") or (kind == "text" and not text_of(value).isprintable())
            if bad or (isinstance(seed, str) and storable(seed) != seed):
                raise HarnessError(
                    "a seed is a number or a text of one line",
                    got=f"{quoted(value)} in {self.places[index] if index < len(self.places) else '--seeds'}",
                    allowed="a seed in every row",
                    fix="name the column of the seeds with --seed, or leave the row out with --where",
                )  # fmt: skip
            found.append(int(seed) if isinstance(seed, float) and seed.is_integer() else seed)
        types = {type(seed) for seed in found}
        if str in types:
            found = [text_of(value) for value in values]
        return found[: len(self.places)], found[len(self.places) :]


def _as_float(value: int) -> float | int:
    """An integer beside other numbers; one that a float can't hold stays itself."""
    try:
        return float(value) if float(value) == value else value
    except OverflowError:
        return value


def _kind(value: Any, padded: bool = False) -> tuple[str, Scalar]:
    """What a setting or seed is: none, truth, integer, number, infinite or text; `padded` reads 007 as 7."""
    if isinstance(value, bool):
        return "truth", value
    if isinstance(value, int):
        return "integer", value
    if isinstance(value, float):
        if math.isfinite(value):
            return "number", value + 0.0  # no -0.0
        return ("none", None) if math.isnan(value) else ("infinite", "inf" if value > 0 else "-inf")
    if value is None:
        return "none", None
    text = value.strip()
    low = text.casefold()
    if low in ("", "nan"):
        return "none", None
    if low in _TRUTH:
        return "truth", _TRUTH[low]
    if low in _INFINITE:
        return "infinite", "-inf" if low.startswith("-") else "inf"
    number = _number(text)
    if number is None or (_PADDED.match(text) and not padded):
        return "text", value
    return ("integer", int(text)) if text.lstrip("+-").isdigit() else ("number", number + 0.0)


# ----------------------------------------------------------------------------------------------------- rows to runs


def _ranks(values: Sequence[Scalar]) -> dict[Scalar, int]:
    """The place of each value on its axis: numbers by size, off before on, texts as they first appear; none last."""
    distinct = [value for value in dict.fromkeys(values) if value is not None]

    def size(value: Any) -> float | int:
        return float(value) if value in ("inf", "-inf") else value

    if all(value in ("inf", "-inf") or not isinstance(value, str) for value in distinct):
        distinct.sort(key=size)
    return {value: rank for rank, value in enumerate([*distinct, *([None] if None in values else [])])}


def _cells(rows: _Rows, columns: Sequence[str], names: Sequence[str]) -> tuple[np.ndarray, tuple[Axes, ...]]:
    """The cell of each row [rows] and the axes of each cell; cells are the combinations that occur, in order."""
    codes = np.zeros(len(rows.places), dtype=np.int64)
    levels: list[list[Scalar]] = []
    parts: list[np.ndarray] = []
    for column in columns:
        values = rows.settings(column)
        ranks = _ranks(values)
        parts.append(np.fromiter((ranks[value] for value in values), np.int64, len(values)))
        levels.append(list(ranks))
        codes = np.unique(codes * len(ranks) + parts[-1], return_inverse=True)[1].astype(np.int64)
    first = np.unique(codes, return_index=True)[1]
    axes = tuple(
        tuple((name, level[part[row]]) for name, level, part in zip(names, levels, parts, strict=True)) for row in first
    )
    return codes, axes


def _planned(text: str | None) -> list[str]:
    """The seeds of `1..20` or `1,2,5..9`, as texts; none where there is no plan."""
    if text is None:
        return []
    found: list[str] = []
    for part in text.split(","):
        start, dots, end = (piece.strip() for piece in part.partition(".."))
        whole = all(re.fullmatch(r"-?[0-9]{1,18}", piece) for piece in (start, end))
        if (dots and (not whole or int(start) > int(end))) or not start:
            raise HarnessError(
                "--seeds is the plan", got=quoted(text), allowed="seeds and ranges, as 1..20 or 1,2,5..9", fix="so"
            )
        last = int(end) if dots else 0
        if len(found) + (last - int(start) if dots else 0) >= MOST_PLANNED:
            _too_many(text)
        found += [str(seed) for seed in range(int(start), last + 1)] if dots else [start]
    if len(set(found)) < len(found):
        raise HarnessError("--seeds names a seed once", got=quoted(text), allowed="different seeds", fix="drop one")
    return found


def _too_many(text: str) -> None:
    raise HarnessError(
        "a plan can be held", got=f"--seeds {quoted(text)}", allowed=f"at most {MOST_PLANNED} runs, cells × seeds",
        fix="narrow --seeds",
    )  # fmt: skip


def _one_a_cell(rows: _Rows, given: float | str, option: str, cell: np.ndarray, axes: Sequence[Axes]) -> np.ndarray:
    """A number that belongs to the cell [cells], from a column or typed once; NaN where the column has none."""
    if not isinstance(given, str):
        return np.full(len(axes), float(given))
    values = pd.Series(rows.numbers(given, option)).groupby(cell)
    low, high = values.min(), values.max()
    differing = np.flatnonzero((low != high) & low.notna())
    if len(differing):
        place = differing[0]
        raise HarnessError(
            f"{option} is one number in a cell",
            got=f"{low.iloc[place]:g} and {high.iloc[place]:g} in {quoted(name_cell(axes[place]), 100)}",
            allowed="a column that is the same in all rows of a cell",
            fix="add the column that it goes with to --cell",
        )  # fmt: skip
    return np.asarray(low)  # every cell has a row


def _counted(examples: np.ndarray, rows: _Rows, score: np.ndarray, size: np.ndarray) -> str:
    """A word on scores times examples; raises HarnessError where a score is no share or `examples` no whole number."""
    wrong = examples[~np.isnan(examples) & ((examples < 1) | (examples != np.floor(examples)) | (examples > 2**53))]
    if len(wrong):
        raise HarnessError(
            "--examples is a number of dev examples", got=f"{wrong[0]:g}", allowed="1, 2, 3, …", fix="correct it"
        )
    outside = np.flatnonzero((score < 0) | (score > 1))
    if len(outside):
        raise HarnessError(
            "with --examples the score is a share of right answers",
            got=f"{score[outside[0]]:g} in {rows.places[outside[0]]}", allowed="0 to 1",
            fix="leave --examples out, or give scores as fractions",
        )  # fmt: skip
    words = "Failing is judged in right answers: score × --examples, rounded"
    product = score * size
    # A score of d decimals, times N, is off a whole number by up to N/2 × 10^-d.
    decimals = np.array([_decimals(value) for value in score.tolist()])
    rounded = size * 0.5 * 10.0**-decimals * 1.001 + 1e-6
    uneven = np.flatnonzero(np.abs(product - np.round(product)) > rounded)
    if not len(uneven):
        return f"{words}."
    place = uneven[0]
    example = f"{score[place]:.6g} × {size[place]:.0f} = {product[place]:.2f}"
    return f"{words}; that is no whole number for {so_many(len(uneven), 'score')} ({example}): is --examples right?"


def _decimals(value: float) -> int:
    """How many decimals a number is written with; 17 or more mean that it was not rounded."""
    if not math.isfinite(value):
        return 17
    mantissa, _, exponent = repr(value).partition("e")
    return min(17, len(mantissa.partition(".")[2].rstrip("0")) - int(exponent or 0))


@dataclass(frozen=True)
class _Runs:
    """The rows merged to runs, sorted by cell and seed, R of them."""

    row: np.ndarray  # [R] the row that stands for the run
    cell: np.ndarray  # [R]
    seed: np.ndarray  # [R] its place among the seeds
    trials: list[str]
    numbers: dict[str, np.ndarray]  # [R] score, best, test, loss


def _merge(
    asked: Asked,
    rows: _Rows,
    cell: np.ndarray,
    seed: np.ndarray,  # [rows] place among the seeds
    number_of_seeds: int,
    axes: Sequence[Axes],
    status: np.ndarray,  # [rows]
    diverged: np.ndarray,  # [rows] bool
    numbers: dict[str, np.ndarray],
) -> _Runs:
    key = cell * number_of_seeds + seed
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(key[order]) != 0])
    ends = np.r_[starts[1:], len(order)]
    several = np.flatnonzero(ends - starts > 1)
    if len(several) and asked.aggregate is None:
        one, other = order[starts[several[0]]], order[starts[several[0]] + 1]
        label = quoted(name_cell(axes[cell[one]]), 100)
        raise HarnessError(
            "one row is one run of one seed",
            got=f"{rows.places[one]} and {rows.places[other]} of seed {quoted(rows.values(asked.seed)[one])} in "
            f"{label}, one of {so_many(len(several), 'such seed')}",
            allowed=f"different seeds in a cell, or --aggregate {'|'.join(AGGREGATIONS)}",
            fix="add the column that tells them apart to --cell, choose rows with --where, or name --aggregate",
        )
    chosen = order[starts]
    trials = [rows.places[row] for row in chosen]
    merged = {name: values[chosen] for name, values in numbers.items()}
    score = numbers["score"]
    for run in several:
        group = order[starts[run] : ends[run]]
        row = chosen[run] = _standing(str(asked.aggregate), group, status, diverged, score)
        named = [rows.places[member] for member in group[:3]]
        trials[run] = "+".join(named) + ("…" if len(group) > 3 else "")
        for name, values in numbers.items():
            merged[name][run] = values[row]
        if asked.aggregate in ("mean", "median") and status[row] == "finished" and not diverged[row]:
            done = group[status[group] == "finished"]
            for name, values in numbers.items():
                there = np.sort(values[done][~np.isnan(values[done])])  # sorted: the order of the rows decides nothing
                middle = np.mean if asked.aggregate == "mean" else np.median
                merged[name][run] = middle(there) if len(there) else math.nan
    return _Runs(chosen, cell[chosen], seed[chosen], trials, merged)


def _standing(how: str, group: np.ndarray, status: np.ndarray, diverged: np.ndarray, score: np.ndarray) -> int:
    """The row that stands for several: of those that finished, one that diverged before all others."""
    if how in ("first", "last"):
        return int(group[0 if how == "first" else -1])
    done = group[status[group] == "finished"]
    if not len(done):
        crashed = group[status[group] == "crashed"]
        return int(crashed[0] if len(crashed) else group[0])
    lost = done[diverged[done]]
    if len(lost):
        return int(lost[0])
    return int(done[np.argmax(score[done]) if how == "max" else np.argmin(score[done])])


def _study(
    asked: Asked,
    tables: Sequence[Table],
    read: int,
    rows: _Rows,
    columns: Sequence[str],
    majority: float | str | None,
    examples: float | str | None,
) -> Read:
    """Rows to runs."""
    names, renamed = _axis_names(columns)
    cell, axes = _cells(rows, columns, list(names.values()))
    plan = _planned(asked.seeds)
    if len(plan) * len(axes) > MOST_PLANNED:
        _too_many(str(asked.seeds))
    seeds, planned = rows.seeds(asked.seed, plan)
    levels = sorted({*seeds, *planned})
    place = {seed: index for index, seed in enumerate(levels)}
    seed = np.fromiter((place[value] for value in seeds), np.int64, len(seeds))
    if planned and (outside := sorted(set(seeds) - set(planned))):
        raise HarnessError(
            "every seed of the rows is in the plan",
            got=f"seed {quoted(outside[0])} in {rows.places[seeds.index(outside[0])]}, {len(outside)} such in all",
            allowed=f"--seeds {asked.seeds}", fix="widen --seeds, or leave the rows out with --where",
        )  # fmt: skip

    numbers = {"score": rows.numbers(asked.metric, "--metric")}
    for name, column in (("best", asked.best), ("test", asked.test), ("loss", asked.loss)):
        if column is not None:
            numbers[name] = rows.numbers(column, f"--{name}")
    status = np.array(rows.states, dtype=object)
    lacking = (status == "finished") & np.isnan(numbers["score"])
    if lacking.any() and asked.nan is None:
        first = int(np.flatnonzero(lacking)[0])
        raise HarnessError(
            "every score is a number, or --nan says what it means that it is none",
            got=f"{so_many(int(lacking.sum()), 'row')} of {len(rows.places)} with an empty, NaN or infinite score, "
            f"first {rows.places[first]} ({quoted(rows.values(asked.metric)[first])})",
            allowed="--nan missing (the run is not known) or --nan diverged (it was trained and failed)",
            fix="choose one of the two",
        )
    diverged = lacking & (asked.nan == "diverged")
    status[lacking & ~diverged] = "missing"

    floor = None if majority is None else _one_a_cell(rows, majority, "--majority", cell, axes)
    size = None if examples is None else _one_a_cell(rows, examples, "--examples", cell, axes)
    counting = None if size is None else _counted(size, rows, numbers["score"], size[cell])
    if size is not None and floor is not None and (((floor < 0) | (floor > 1)) & ~np.isnan(size)).any():
        raise HarnessError(
            "with --examples the majority is a share of right answers", got=f"{np.nanmax(np.abs(floor)):g}",
            allowed="0 to 1", fix="give it as a fraction, or leave --examples out",
        )  # fmt: skip

    runs = _merge(asked, rows, cell, seed, len(levels), axes, status, diverged, numbers)
    table = _frame(asked, rows, runs, status, diverged, floor, size)
    unseen = _unseen(table, len(axes), planned, levels)
    left_out, merged = read - len(rows.places), len(rows.places) - len(table)
    unused = int(((status == "crashed") & ~np.isnan(numbers["score"])).sum())
    notes = [
        f"Read from {' and '.join(table.label for table in tables)}: {so_many(read, 'row')}.",
        *(note for table in tables for note in table.notes),
        *_treated(asked, left_out, merged, int(lacking.sum()), unused),
        *_judged(asked, table, floor, counting),
        *_plan_said(asked, len(unseen)),
        *([renamed] if renamed else []),
    ]
    imported = Imported(
        name=asked.name,
        files=tuple((table.label, table.sha256) for table in tables),
        command=asked.command,
        metric=asked.metric,
        higher_is_better=asked.higher_is_better,
        axes=tuple(names.values()),
        cells=axes,
        notes=tuple(storable(note) for note in notes),
    )
    both = pd.concat([table, unseen], ignore_index=True) if len(unseen) else table
    both = both.sort_values(["cell", "_seed"], kind="stable", ignore_index=True)
    both["seed"] = pd.Series([levels[index] for index in both["_seed"]], dtype=object)
    if all(isinstance(level, int) and abs(level) <= MAX_SEED for level in levels):
        both["seed"] = both["seed"].astype("int64")
        for name in ("init_seed", "order_seed", "dropout_seed"):
            both[name] = both["seed"]
    ordered = [name for name in study.columns() if name in both]
    return Read(imported, both[ordered], read, left_out, merged, len(unseen))


def _frame(
    asked: Asked,
    rows: _Rows,
    runs: _Runs,
    status: np.ndarray,
    diverged: np.ndarray,
    floor: np.ndarray | None,
    size: np.ndarray | None,
) -> pd.DataFrame:
    """One row a run that has a row in the files; what is measured stands with the finished ones alone."""
    words = rows.words
    state = status[runs.row]
    done = state == "finished"
    lost = done & diverged[runs.row]
    score = np.where(done & ~lost, runs.numbers["score"], math.nan)
    nothing = np.full(len(score), math.nan)
    majority = nothing if floor is None else floor[runs.cell]
    count = nothing if size is None else size[runs.cell]
    right, at_majority = np.round(score * count), np.round(majority * count)
    slack = SAME * np.abs(majority)
    by_score = score <= majority + slack if asked.higher_is_better else score >= majority - slack
    failed = lost | np.where(np.isnan(at_majority), by_score, right <= at_majority)
    judged = done & ~np.isnan(majority)

    def where_done(values: np.ndarray) -> np.ndarray:
        return np.where(done, values, math.nan)

    columns: dict[str, Any] = {
        "trial": runs.trials,
        "cell": runs.cell,
        "_seed": runs.seed,
        "status": state,
        "attempts": np.where(state == "missing", 0, 1),
        "error": [words[row] if one == "crashed" else None for row, one in zip(runs.row, state, strict=True)],
        "outcome": [("failed" if bad else "ok") if known else None for known, bad in zip(judged, failed, strict=True)],
        "reason": ["diverged" if one else None for one in lost],
        "metric": [asked.metric if one else None for one in done],
        "final_score": score,
        "best_score": where_done(runs.numbers.get("best", nothing)),
        "majority_score": where_done(majority),
        "correct": right,
        "majority_correct": where_done(at_majority),
        "dev_examples": where_done(count),
        "final_train_loss": where_done(runs.numbers.get("loss", nothing)),
        "test_score": where_done(runs.numbers.get("test", nothing)),
    }
    table = pd.DataFrame(columns)
    for name in ("error", "outcome", "reason", "metric"):
        table[name] = table[name].astype(object)
    return table


def _unseen(table: pd.DataFrame, cells: int, planned: Sequence[Any], levels: Sequence[Any]) -> pd.DataFrame:
    """The planned runs without a row."""
    place = {seed: index for index, seed in enumerate(levels)}
    wanted = np.array([place[seed] for seed in planned], dtype=np.int64)
    keys = (np.arange(cells)[:, None] * len(levels) + wanted).ravel()
    keys = np.setdiff1d(keys, table["cell"].to_numpy() * len(levels) + table["_seed"].to_numpy())
    cell, seed = keys // len(levels), keys % len(levels)
    names = [
        f"no row (cell {one + 1}, seed {levels[other]})"
        for one, other in zip(cell.tolist(), seed.tolist(), strict=True)
    ]
    empty = pd.DataFrame({"trial": names, "cell": cell, "_seed": seed, "status": "missing", "attempts": 0})
    for name in table.columns.difference(empty.columns):
        empty[name] = pd.Series(
            [None if table[name].dtype == object else math.nan] * len(empty), dtype=table[name].dtype
        )
    return empty[list(table.columns)]


def _treated(asked: Asked, left_out: int, merged: int, lacking: int, unused: int) -> list[str]:
    """Sentences on the rows and their scores."""
    notes = []
    if asked.where:
        notes.append(f"{' and '.join(asked.where)}: {so_many(left_out, 'other row')} left out.")
    notes.append(f"The score is {asked.metric}, {'higher' if asked.higher_is_better else 'lower'} is better.")
    if merged:
        rows = so_many(merged, "row")
        notes.append(f"Several rows of one seed are one run, by {asked.aggregate}: {rows} merged into others.")
    if lacking:
        meaning = "diverged" if asked.nan == "diverged" else "missing"
        notes.append(f"Rows whose score is empty, NaN or infinite count as {meaning}: {lacking}.")
    if unused:
        notes.append(f"Scores of crashed runs are not used: {unused}.")
    return notes


def _plan_said(asked: Asked, unseen: int) -> list[str]:
    """A sentence on what was planned."""
    if asked.seeds is None:
        return ["The files do not say what was planned: a run that never got into them is not counted as missing."]
    return [f"Planned were the seeds {asked.seeds} in every cell: {so_many(unseen, 'run')} without a row."]


def _judged(asked: Asked, table: pd.DataFrame, floor: np.ndarray | None, counting: str | None) -> list[str]:
    """Sentences on how failing was judged."""
    if floor is None:
        return ["No majority is given, so no run can be called failed."]
    typed = _number(str(asked.majority)) is not None
    source = f"{asked.majority}, as given" if typed else f"the column {asked.majority}"
    notes = [f"The majority classifier's score is {source}."]
    lacking = int(np.isnan(floor).sum())
    if lacking:
        notes.append(f"It is not known for {so_many(lacking, 'cell')}, where no run can be called failed.")
    if counting:
        return [*notes, counting]
    distance = (table["final_score"] - table["majority_score"]).abs()
    near = int(((distance <= NEAR + SAME) & (table["outcome"] == "ok")).sum())
    if near:
        scores = "score lies" if near == 1 else "scores lie"
        notes.append(
            f"{near} {scores} within {NEAR} of the majority without being at it; --examples N compares counts."
        )
    return notes
