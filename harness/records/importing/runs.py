"""Reading somebody else's runs: sources to rows, rows to runs, and the sentences that say what was decided."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.common.errors import HarnessError, describe_os_error
from harness.common.text import count_noun
from harness.config.recipe import MAX_SEED
from harness.records import imported, study
from harness.records.curve_files import RunCurves, packed
from harness.records.importing import precision, sources, units
from harness.records.importing.columns import (
    SEED_OF_PATH,
    axis_names,
    cell_columns,
    check_roles,
    number_or_column,
    wanted,
    with_seeds_of_paths,
)
from harness.records.importing.conditions import conditions
from harness.records.importing.curves import curves_of
from harness.records.importing.judging import check_counts, judge, notes_on_judging, unseen
from harness.records.importing.merging import RowFacts, Runs, merge
from harness.records.importing.mlflow_store import is_uri
from harness.records.importing.options import ImportOptions, check, check_name, option_words
from harness.records.importing.planning import MOST_PLANNED, cells_of, one_per_cell, planned_seeds, refuse_plan
from harness.records.importing.rows import ImportedRows
from harness.records.importing.states import States, recognise
from harness.records.importing.summary_rows import is_summary
from harness.records.importing.table import SourceTable, unreadable
from harness.records.importing.text import listed, printable, quoted, storable, text_of
from harness.records.study import Axes, Imported, read_references


@dataclass(frozen=True)
class ImportedRuns:
    """What an import reads: `runs` has columns of `study.columns()`, one row a run; `rows` counts those of the files.

    Every row is accounted for: rows = blank + summaries + left_out (by --where) + merged (beyond one a run) + the
    runs that stand in a file. `unseen` counts planned runs without a row. `curves` are by the row of `runs`.
    """

    imported: Imported
    runs: pd.DataFrame
    rows: int
    blank: int
    summaries: int
    left_out: int
    merged: int
    unseen: int
    curves: Mapping[int, RunCurves] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """`cells`, `runs`, `finished`, `crashed`, `missing`, `diverged` (of the finished)."""
        status = Counter(self.runs["status"])
        counts = {"cells": len(self.imported.cells), "runs": len(self.runs)}
        counts |= {name: status[name] for name in ("finished", "crashed", "missing")}
        return counts | {"diverged": int((self.runs["reason"] == "diverged").sum())}


def import_runs(options: ImportOptions, results: Path, *, overwrite: bool = False) -> tuple[Path, ImportedRuns]:
    """Read the sources and write `results/<name>`; raises HarnessError for bad input, before anything is written.

    A folder of that name is replaced only if it holds an import by the same command, or by `overwrite` any import.
    """
    folder = results / check_name(options.name)
    _refuse_replacing(folder, options, overwrite)
    runs = read_runs(options)
    curves = packed(runs.curves, len(runs.runs)) if runs.curves else None
    imported.save_imported(folder, runs.imported, runs.runs, curves)
    return folder, runs


def _refuse_replacing(folder: Path, options: ImportOptions, overwrite: bool) -> None:
    if not (folder.exists() or folder.is_symlink()):
        return
    if imported.is_imported(folder):
        try:
            before = Imported.model_validate_json((folder / "imported.json").read_bytes()).command
        except (OSError, ValueError):
            before = None
        if overwrite or before == options.command:
            return
        raise HarnessError(
            f"{printable(str(folder))} is another import", fix="Add --overwrite to replace it, or choose another --as"
        )
    left_behind = folder.is_dir() and all(
        path.name in ("runs.csv", "curves.npz") or (path.name.startswith(".") and path.suffix == ".tmp")
        for path in folder.iterdir()
    )  # by an import that was killed
    if not left_behind:
        raise HarnessError(f"{printable(str(folder))} exists and is not an import", fix="Choose another --as")


def read_runs(options: ImportOptions) -> ImportedRuns:
    """The runs that the sources hold, and how they were read; raises HarnessError for bad input."""
    check(options)
    tables = _tables(options)
    if options.seed_from is not None:
        tables = with_seeds_of_paths(tables, options.seed_from)
    seed = options.seed if options.seed is not None else SEED_OF_PATH
    cell = cell_columns(options.cell, tables)
    which = conditions(options.where, tables)
    majority = number_or_column(options.majority, tables, "--majority")
    examples = number_or_column(options.examples, tables, "--examples")
    check_roles(options, cell, tables)
    every = ImportedRows(tables)
    summaries = _summaries(every, seed, options)
    rows = every.keep(~summaries)
    if not len(rows.places):
        raise HarnessError(
            "all rows are summaries, none is a run",
            got=listed(dict.fromkeys(every.values(seed))),
            fix="Name the column of the seeds with --seed",
        )
    held = np.ones(len(rows.places), dtype=bool)
    for condition in which:
        held &= condition.holds(rows.values(condition.column))
    kept_rows = rows.keep(held)
    if not len(kept_rows.places):
        given = " ".join(shlex.join(option_words("where", condition)) for condition in options.where)
        there = {choice.column: dict.fromkeys(map(text_of, rows.values(choice.column))) for choice in which}
        raise HarnessError(
            f"{printable(given)} leaves none of {count_noun(len(rows.places), 'row')}",
            allowed="; ".join(f"{quoted(name)}: {listed(texts)}" for name, texts in there.items()),
            fix="Loosen the conditions",
        )
    names = dict.fromkeys(
        [
            *(name for table in tables for name in table.candidates),
            *(table.state_column for table in tables if table.state_column is not None),
            *([options.state] if options.state is not None else []),
        ]
    )
    others = {seed, options.metric, options.test, options.best, options.loss, options.majority, options.examples}
    states = recognise(
        [replace(table, candidates=tuple(set_aside(table.candidates, others))) for table in tables],
        {name: kept_rows.values(name) for name in names}, kept_rows.table_of_row, options.state, cell,
    )  # fmt: skip
    reading = _Reading(options, tables, every, kept_rows, seed, cell, states, int(summaries.sum()), len(rows.places))
    return reading.study(majority, examples)


def set_aside(names: Sequence[str], others: set[str | None]) -> list[str]:
    """The names but for those of columns that play another part."""
    return [name for name in names if name not in others]


def _tables(options: ImportOptions) -> list[SourceTable]:
    names = wanted(options)
    labels: Counter[str] = Counter()
    tables: list[SourceTable] = []
    seen: set[object] = set()
    for source in options.sources:
        name = sources.label_of(source)
        labels[name] += 1
        label = name if labels[name] == 1 else f"{name}#{labels[name]}"
        key = _identity(source)
        if key in seen:
            raise HarnessError(f"{printable(source)} is named twice", fix="Remove one")
        seen.add(key)
        tables.append(sources.load(source, label, names, options.higher_is_better))
    return tables


def _identity(source: str) -> object:
    """What tells whether two sources are one."""
    if is_uri(source):
        return source
    try:
        status = Path(sources.as_path(source)).stat()
    except (OSError, ValueError) as error:
        unreadable(source, describe_os_error(error) if isinstance(error, OSError) else "not a file name")
    return status.st_dev, status.st_ino


def _summaries(rows: ImportedRows, seed: str, options: ImportOptions) -> np.ndarray:
    """Which rows are summaries over runs [rows]: by their seed, or, where that is empty, by their first column."""
    planned = set(planned_seeds(options.seeds))
    seeds = rows.values(seed)
    summaries = np.array([is_summary(value) and str(value).strip() not in planned for value in seeds], dtype=bool)
    for table in rows.tables:
        first = table.known[0] if table.known else ""
        if table.tool is None and first in table.columns and first != seed:
            labels = rows.values(first)
            empty = [value is None or not str(value).strip() for value in seeds]
            summaries |= np.array(
                [is_summary(label) and no for label, no in zip(labels, empty, strict=True)], dtype=bool
            )
    return summaries


@dataclass(frozen=True)
class _Reading:
    """What is known of the rows before they become runs."""

    options: ImportOptions
    tables: Sequence[SourceTable]
    every: ImportedRows
    rows: ImportedRows
    seed: str
    cell: tuple[str, ...]
    states: States
    summaries: int
    considered: int  # rows before --where

    def study(self, majority: float | str | None, examples: float | str | None) -> ImportedRuns:
        """Rows to runs."""
        options, rows = self.options, self.rows
        names, renamed = axis_names(self.cell)
        cell, axes = cells_of(rows, self.cell, list(names.values()))
        read_references(axes, options.reference)
        seeds, planned = self._seeds(len(axes))
        levels = sorted({*seeds, *planned})
        position = {seed: index for index, seed in enumerate(levels)}
        scaled = self._scaled(majority)
        score = scaled.numbers["score"]
        floor = None if scaled.majority is None else one_per_cell(scaled.majority, "--majority", cell, axes)
        size, counting = self._counting(examples, cell, axes, score, floor)
        facts = RowFacts(
            cell=cell,
            seed=np.fromiter((position[value] for value in seeds), np.int64, len(seeds)),
            status=np.array(self.states.status, dtype=object),
            empty=(empty := rows.empty(options.metric)),
            unusable=np.isnan(score) & ~empty,
            numbers=scaled.numbers,
        )
        runs = merge(rows, facts, self.seed, len(levels), axes, options.aggregate, options.nan, options.metric)
        half = precision.half_units(
            rows.values(options.metric), score, rows.table_of_row, scaled.decimals, scaled.percent
        )
        judged = judge(options, runs, self.states.words, floor, size, half)
        curves = curves_of(options, rows, runs, 0.01 if scaled.decimals else 1.0)
        rest = unseen(judged.table, len(axes), planned, levels)
        crashed = facts.status == "crashed"
        notes = [
            *self._notes_on_files(),
            *self.states.notes,
            *self._notes_on_rows(runs, int((crashed & ~np.isnan(score)).sum())),
            *scaled.notes,
            *notes_on_judging(options, judged, floor, counting),
            *_notes_on_plan(options, len(rest)),
            *([renamed] if renamed else []),
            *([f"Curves of {count_noun(len(curves), 'run')} came along."] if curves else []),
        ]
        table, order = _in_order(judged.table, rest, levels)
        blank = sum(source.blank for source in self.tables)
        return ImportedRuns(
            imported=self._imported(tuple(names.values()), axes, notes),
            runs=table,
            rows=len(self.every.places) + blank,
            blank=blank,
            summaries=self.summaries,
            left_out=self.considered - len(rows.places),
            merged=len(rows.places) - len(judged.table),
            unseen=len(rest),
            curves={row: curves[run] for row, run in enumerate(order) if run in curves},
        )

    def _seeds(self, cells: int) -> tuple[list[Any], list[Any]]:
        """The seed of each row, and the planned ones; raises HarnessError for a row whose seed was not planned."""
        options, rows = self.options, self.rows
        plan = planned_seeds(options.seeds)
        if len(plan) * cells > MOST_PLANNED:
            refuse_plan(str(options.seeds))
        seeds, planned = rows.seeds(self.seed, plan)
        if planned and (outside := sorted(set(seeds) - set(planned))):
            raise HarnessError(
                f"seed {quoted(outside[0])} in {rows.places[seeds.index(outside[0])]} is not in --seeds "
                f"{options.seeds} ({len(outside)} such in all)",
                fix="Widen --seeds, or leave the rows out with --where",
            )
        return seeds, planned

    def _imported(self, names: tuple[str, ...], axes: tuple[Axes, ...], notes: Sequence[str]) -> Imported:
        """What is kept beside the runs: where they come from and what was decided on the way."""
        options = self.options
        return Imported(
            name=options.name,
            files=tuple((table.label, table.sha256) for table in self.tables),
            command=options.command,
            metric=options.metric,
            higher_is_better=options.higher_is_better,
            axes=names,
            cells=axes,
            notes=tuple(storable(note) for note in notes),
            references=options.reference,
        )

    def _scaled(self, majority: float | str | None) -> units.Scaled:
        options, rows = self.options, self.rows
        columns = {"score": options.metric} | {
            name: value for name in ("best", "test", "loss") if (value := getattr(options, name)) is not None
        }
        options_of = {"score": "--metric"} | {name: f"--{name}" for name in ("best", "test", "loss")}
        numbers = {name: rows.numbers(column, options_of[name]) for name, column in columns.items()}
        level = rows.numbers(majority, "--majority") if isinstance(majority, str) else majority
        return units.to_one_unit(
            numbers, columns, level, options.unit, rows.places, higher_is_better=options.higher_is_better
        )

    def _counting(
        self, examples: float | str | None, cell: np.ndarray, axes: Sequence[Axes], score: np.ndarray,
        floor: np.ndarray | None,
    ) -> tuple[np.ndarray | None, str | None]:  # fmt: skip
        """The dev examples of each cell, and a sentence on counting."""
        if examples is None:
            return None, None
        given = self.rows.numbers(examples, "--examples") if isinstance(examples, str) else examples
        size = one_per_cell(given, "--examples", cell, axes)
        counting = check_counts(size, self.rows, score, size[cell])
        if floor is not None and (((floor < 0) | (floor > 1)) & ~np.isnan(size)).any():
            raise HarnessError(
                "with --examples the majority must be between 0 and 1: a share of right answers",
                got=f"{np.nanmax(np.abs(floor)):g}",
                fix="Give it as a fraction, or leave --examples out",
            )
        return size, counting

    def _notes_on_files(self) -> list[str]:
        rows = count_noun(len(self.every.places), "row")
        read = f"Read from {' and '.join(table.label for table in self.tables)}: {rows}."
        notes = [read, *(note for table in self.tables for note in table.notes)]
        if self.summaries:
            mask = _summaries(self.every, self.seed, self.options)
            seeds = self.every.values(self.seed)
            named = [
                f"{self.every.places[row]} ({printable(text_of(seeds[row]).strip() or 'no seed')[:40]})"
                for row in np.flatnonzero(mask)[:8]
            ]
            shown = ", ".join(named) + (", …" if self.summaries > len(named) else "")
            verb = "is no run and was" if self.summaries == 1 else "are no runs and were"
            notes.append(f"{count_noun(self.summaries, 'summary row')} {verb} left out: {shown}.")
        return notes

    def _notes_on_rows(self, runs: Runs, unused: int) -> list[str]:
        """Sentences on the rows and their scores."""
        options = self.options
        notes = []
        if options.where:
            left_out = count_noun(self.considered - len(self.rows.places), "other row")
            notes.append(f"{' and '.join(options.where)}: {left_out} left out.")
        notes.append(f"The score is {options.metric}, {'higher' if options.higher_is_better else 'lower'} is better.")
        if merged := len(self.rows.places) - len(runs.row):
            notes.append(
                f"Several rows of one seed are one run, by {options.aggregate}: "
                f"{count_noun(merged, 'row')} merged into "
                "others."
            )
        if runs.passed_over:
            notes.append(f"Rows without a score, of runs that have one, were passed over: {runs.passed_over}.")
        if runs.lacking:
            meaning = "diverged" if options.nan == "diverged" else "missing"
            what = "Rows" if not merged else "Runs"
            notes.append(f"{what} whose score is empty, NaN or infinite count as {meaning}: {runs.lacking}.")
        if unused:
            notes.append(f"Scores of crashed runs are not used: {unused}.")
        return notes


def _notes_on_plan(options: ImportOptions, unseen_runs: int) -> list[str]:
    """A sentence on what was planned."""
    if options.seeds is None:
        return ["The files do not say what was planned: a run that never got into them is not counted as missing."]
    verb = "has" if unseen_runs == 1 else "have"
    return [f"The planned seeds are {options.seeds} in every cell: {count_noun(unseen_runs, 'run')} {verb} no row."]


def _in_order(table: pd.DataFrame, rest: pd.DataFrame, levels: Sequence[object]) -> tuple[pd.DataFrame, list[int]]:
    """All runs by cell and seed, and where in `table` each of them stood (beyond it: without a row)."""
    both = pd.concat([table, rest], ignore_index=True) if len(rest) else table
    both = both.sort_values(["cell", "_seed"], kind="stable")
    order = [int(row) for row in both.index]
    both = both.reset_index(drop=True)
    both["seed"] = pd.Series([levels[index] for index in both["_seed"]], dtype=object)
    if all(isinstance(level, int) and abs(level) <= MAX_SEED for level in levels):
        both["seed"] = both["seed"].astype("int64")
        for name in ("init_seed", "order_seed", "dropout_seed"):
            both[name] = both["seed"]
    return both[[name for name in study.columns() if name in both]], order
