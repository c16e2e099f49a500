"""What is reported on: cells and one table of runs, from records, from somebody else's runs, or two side by side."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict

from harness.common.errors import HarnessError
from harness.common.text import Scalar, name_cell, same_value, show
from harness.config.recipe import Recipe
from harness.config.trials import Sweep
from harness.config.yaml_reader import parse_yaml
from harness.records import reruns
from harness.records.frame import SetAside, joined_records
from harness.records.record import Baseline, Curves, Environment, Measured, Surface
from harness.records.reruns import Rerun
from harness.records.shared_files import collisions
from harness.records.store import Store

Axes = tuple[tuple[str, Scalar], ...]


SOURCE = "sweep"  # the first axis of two studies side by side


@dataclass(frozen=True)
class StudyCell:
    """One recipe of a study: where it stands on the axes, as (axis, value) pairs."""

    axes: Axes

    @property
    def label(self) -> str:
        """`lr 2e-5, bias correction on, epochs 3`; `the only recipe` in a study without axes."""
        return name_cell(self.axes)


@dataclass(frozen=True)
class Compared:
    """What a report compares with what, where somebody chose it; `analysis.comparisons` says what holds otherwise."""

    main: str | None = None  # the axis that leads
    references: Axes = ()  # of an axis the value that the others are compared with
    all_pairs: bool = False  # every pair of values instead of each with the reference


class Imported(BaseModel):
    """How a table of somebody else's runs was read; `imported.json` beside its `runs.csv`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    name: str
    files: tuple[tuple[str, str], ...]  # name, SHA-256
    command: str  # that reads them again
    metric: str
    higher_is_better: bool
    axes: tuple[str, ...]
    cells: tuple[Axes, ...]
    notes: tuple[str, ...]  # what was decided on the way, as sentences for the report
    references: tuple[str, ...] = ()  # AXIS=VALUE: what the other values of an axis are compared with
    # Hashes of runs.csv and curves.npz as they were written. Not in the first imports: None there, and of no curves.
    runs_sha256: str | None = None
    curves_sha256: str | None = None


@dataclass(frozen=True)
class Study:
    """Cells in their order and `runs`, exactly one row a planned run.

    `runs` has the columns of `frame.joined_records` (not known: None or NaN) and `command` (trains a run again; None
    where it can not). `outcome` is None where it can't be judged: for imported runs without a majority.
    """

    name: str
    title: str
    cells: tuple[StudyCell, ...]
    runs: pd.DataFrame
    profile: str | None = None
    stand_in: str | None = None
    higher_is_better: bool = True
    notes: tuple[str, ...] = ()
    sweeps: tuple[Sweep, ...] = ()
    imports: tuple[Imported, ...] = ()
    baselines: tuple[Baseline, ...] = ()
    surface: Surface | None = None
    reruns: tuple[Rerun, ...] = ()  # of planned trials that were trained again
    compared: Compared = Compared()
    set_aside: SetAside = field(default_factory=SetAside, compare=False)  # files that could not be used; it grows
    load: Callable[[int], Curves | None] = field(default=lambda row: None, compare=False)

    @property
    def unreadable(self) -> int:
        """How many planned runs have a record that can't be used; they are neither crashed nor missing."""
        return int((self.runs["status"] == "unreadable").sum())

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of the axes, in their order."""
        return tuple(name for name, _ in self.cells[0].axes)

    def values(self, axis: str) -> list[Scalar]:
        """The values of an axis, in the order of the cells."""
        return list(dict.fromkeys(dict(cell.axes)[axis] for cell in self.cells))

    def curves(self, row: int) -> Curves | None:
        """The arrays of the run in that row of `runs`, with its recording if there is one; None where none are kept."""
        return self.load(row)

    def read_once(self, most_bytes: int = 2**28) -> Study:
        """The same study, which keeps the arrays that it reads, up to so many bytes, for whoever asks next."""
        cache: dict[int, Curves | None] = {}
        size = 0

        def load(row: int) -> Curves | None:
            nonlocal size
            if row in cache:
                return cache[row]
            curves = self.load(row)
            if size < most_bytes:
                cache[row] = curves
                size += 0 if curves is None else sum(array.nbytes for array in curves.arrays.values())
            return curves

        return replace(self, load=load)


def numbers(table: pd.DataFrame, column: str) -> pd.Series:
    """A column as floats, NaN where not known."""
    return pd.to_numeric(table[column]).astype(float)


def rerun_words(sweep: Sweep) -> str:
    """`harness rerun <sweep> --profile <profile>`, the command that ` --trial <id>` completes."""
    return f"harness rerun {shlex.quote(sweep.name)} --profile {shlex.quote(sweep.profile)}"


def of_sweep(sweep: Sweep, store: Store, rerun: str | None = None) -> Study:
    """The study of a sweep from the records there are, complete or not.

    `rerun` stands before ` --trial <id>` in the commands, where `rerun_words` would not find the sweep (one given by a
    path, or with other settings).
    """
    joined_runs = joined_records(sweep, store)
    runs = joined_runs.runs
    words = rerun or rerun_words(sweep)
    runs["command"] = [f"{words} --trial {trial}" for trial in runs["trial"]]
    for axis in sweep.axes:  # as written: pandas would turn None beside 1.0 into NaN
        runs[axis] = pd.Series([dict(sweep.cells[index].axes)[axis] for index in runs["cell"]], dtype=object)
    trials, script = list(runs["trial"]), sweep.cells[0].script
    beside = tuple(store.damaged_files())
    return Study(
        name=sweep.folder_name,
        title=sweep.title,
        cells=tuple(StudyCell(cell.axes) for cell in sweep.cells),
        runs=runs,
        profile=sweep.profile,
        stand_in=sweep.stand_in,
        higher_is_better=sweep.cells[0].higher_is_better,
        notes=(
            *_unplanned(store, set(trials)),
            *(f"Warning: {name} can't be read, so this report does without it." for name in beside),
            *(() if script is None else collisions(store.records(sweep).values())),
        ),
        reruns=tuple(rerun for rerun in reruns.load(store.folder) if rerun.trial in set(trials)),
        sweeps=(sweep,),
        baselines=tuple(baseline for baseline in store.baselines() if baseline.name in sweep.baselines)
        if sweep.baselines
        else (),
        surface=store.surface(),
        compared=Compared(references=sweep.reference),
        set_aside=SetAside(parts=(joined_runs.set_aside,), beside=beside),
        load=lambda row: joined_runs.load(store, trials[row]),
    )


def _unplanned(store: Store, planned: Collection[str]) -> Iterator[str]:
    """That records lie there which the plan does not know, as where a cell was taken out of it."""
    if count := len(store.unplanned(planned)):
        records, they = ("a record of a trial", "it is") if count == 1 else (f"{count} records of trials", "they are")
        yield (
            f"Warning: trials/ holds {records} that this sweep does not plan; {they} not counted here, and "
            "`harness verify` names the files."
        )


def compared(study: Study, main: str | None, references: Sequence[str], all_pairs: bool = False) -> Study:
    """The study with what its report compares chosen; `references` are AXIS=VALUE texts, as people write values.

    What is not chosen stays. Raises HarnessError for an axis or a value that the study does not have.
    """
    chosen = dict(study.compared.references) | dict(read_references([cell.axes for cell in study.cells], references))
    if main is not None:
        _check_axis("--main", main, study.axes)
    return replace(
        study,
        compared=Compared(
            main=study.compared.main if main is None else main,
            references=tuple(chosen.items()),
            all_pairs=all_pairs or study.compared.all_pairs,
        ),
    )


def read_references(cells: Sequence[Axes], texts: Sequence[str]) -> Axes:
    """The references that AXIS=VALUE texts name, each a value of that axis.

    Raises HarnessError for an axis or a value that no cell has, and for an axis that is named twice.
    """
    chosen: dict[str, Scalar] = {}
    for text in texts:
        axis, equals, written = text.partition("=")
        if not equals:
            raise HarnessError(
                "--reference must be of the form AXIS=VALUE (for example: bias_correction=off)", got=f"'{text}'"
            )
        _check_axis("--reference", axis, [name for name, _ in cells[0]])
        if axis in chosen:
            raise HarnessError(f"--reference names '{axis}' twice", fix="Remove one")
        values = {show(value): value for cell in cells for name, value in cell if name == axis}
        typed = parse_yaml(written, f"the value of --reference {axis}") if written not in values else None
        meant = [shown for shown, value in values.items() if shown == written or same_value(value, typed)]
        if not meant or (written not in values and typed is None):
            raise HarnessError(f"--reference: '{axis}' has no value '{written}'", allowed=", ".join(values))
        chosen[axis] = values[meant[0]]
    return tuple(chosen.items())


def _check_axis(option: str, name: str, axes: Sequence[str]) -> None:
    if name not in axes:
        allowed = ", ".join(axes)
        fix = None if allowed else f"Leave {option} out: there is one recipe"
        raise HarnessError(f"{option} names no axis of these runs", got=f"'{name}'", allowed=allowed or None, fix=fix)


# ---------------------------------------------------------------------------------------------------- others' runs


def columns() -> tuple[str, ...]:
    """The columns of `Study.runs` but for the axes, in order."""
    identity = ("trial", "cell", "seed", "init_seed", "order_seed", "dropout_seed", "status", "attempts", "error")
    return (*identity, *Measured.model_fields, *Environment.model_fields, "command")


TEXTS = {"trial", "status", "error", "outcome", "reason", "metric", "command"}


# ------------------------------------------------------------------------------------------------ two, side by side


def _value(study: Study, index: int, axis: str) -> Scalar:
    """Where a cell stands on an axis: its own value, or, of a setting that the study does not vary, its recipe's.

    None of a setting that its recipe does not use: full fine-tuning has no rank.
    """
    own = dict(study.cells[index].axes)
    if axis in own:
        return own[axis]
    cell = study.sweeps[0].cells[index] if study.sweeps else None
    unused = (
        cell is not None and cell.script is None and axis in Recipe.model_fields and not cell.recipe.uses_field(axis)
    )
    value = None if cell is None or unused else cell.setting(axis)
    return value if isinstance(value, bool | int | float | str) else None


def _shared_axes(first: Study, second: Study) -> list[str]:
    """The axes of both; names of recipes that the other does not have give way to the settings that they stand for."""
    axes: list[str] = []
    for study, other in ((first, second), (second, first)):
        for axis in study.axes:
            if axis == "recipe" and "recipe" not in other.axes and study.sweeps and not study.sweeps[0].is_script:
                recipes = [cell.recipe for cell in study.sweeps[0].cells]
                axes += [name for name in Recipe.model_fields if len({getattr(recipe, name) for recipe in recipes}) > 1]
            else:
                axes.append(axis)
    return list(dict.fromkeys(axes))


def _refuse_other_scale(first: Study, second: Study) -> None:
    """Raise HarnessError where all scores of one study are in [0, 1] and all of the other above 1, up to 100."""
    if not first.higher_is_better:
        return
    ends = []
    for study in (first, second):
        scores = numbers(study.runs[study.runs["status"] == "finished"], "final_score").dropna()
        if scores.empty:
            return
        ends.append((float(scores.min()), float(scores.max())))
    (low, high), (lowest, highest) = sorted(ends)
    if low >= 0 and high <= 1 < lowest and highest <= 100:
        raise HarnessError(
            "cannot report two studies side by side whose scores have different scales",
            got=" and ".join(f"{show(round(a, 4))} to {show(round(b, 4))} ({study.name})"
                             for study, (a, b) in zip((first, second), ends, strict=True)),
            fix="Have both write fractions, or both percentages; or report them one by one",
        )  # fmt: skip


def joined(first: Study, second: Study, names: tuple[str, str] | None = None) -> Study:
    """Two studies as one, with the first axis `sweep` telling them apart, so that cells equal but for it are pairs.

    An axis that one of them lacks has there the value of its recipes. Raises HarnessError for different metrics, and
    for scores in fractions beside ones in percent.
    """
    pair = (first, second)
    metrics = [sorted(set(study.runs["metric"].dropna())) for study in pair]
    if (metrics[0] != metrics[1] and all(metrics)) or first.higher_is_better != second.higher_is_better:
        raise HarnessError(
            "cannot report two studies with different metrics side by side",
            got=" and ".join(
                f"{'/'.join(names) or 'none yet'} ({'higher' if study.higher_is_better else 'lower'} is better)"
                for study, names in zip(pair, metrics, strict=True)
            ),
            fix="Report them one by one",
        )
    _refuse_other_scale(first, second)
    labels = names or (first.name, second.name)
    if labels[0] == labels[1]:
        labels = (f"{labels[0]} (first)", f"{labels[1]} (second)")
    axes = _shared_axes(first, second)
    cells: list[StudyCell] = []
    tables = []
    for study, label in zip(pair, labels, strict=True):
        runs = study.runs.copy()
        runs["cell"] += len(cells)
        places = (tuple((axis, _value(study, index, axis)) for axis in axes) for index in range(len(study.cells)))
        cells += [StudyCell(((SOURCE, label), *axes_of_cell)) for axes_of_cell in places]
        tables.append(runs)
    runs = pd.concat([table.astype(object) for table in tables], ignore_index=True)
    for name in runs.columns:
        if name in TEXTS:
            runs[name] = runs[name].where(runs[name].notna(), None)  # None in the one may be NaN in the other
        elif name not in axes:
            runs[name] = runs[name].infer_objects()
    for axis in (SOURCE, *axes):
        runs[axis] = pd.Series([dict(cells[index].axes)[axis] for index in runs["cell"]], dtype=object)
    length = len(first.runs)
    same = len(set(first.runs["trial"]) & set(second.runs["trial"])) if first.sweeps and second.sweeps else 0
    twice = f"{same} {'trial is' if same == 1 else 'trials are'} in both, with the same recipe and seed: one run twice."
    return Study(
        name=f"{labels[0]}--{labels[1]}",
        title=f"{first.title} against {second.title}" if first.title != second.title else f"{first.title}, twice",
        cells=tuple(cells),
        runs=runs,
        stand_in=first.stand_in if first.stand_in == second.stand_in else first.stand_in or second.stand_in,
        higher_is_better=first.higher_is_better,
        notes=(*first.notes, *second.notes, *((twice,) if same else ())),
        set_aside=SetAside(parts=(first.set_aside, second.set_aside)),
        sweeps=first.sweeps + second.sweeps,
        imports=first.imports + second.imports,
        compared=Compared(references=tuple(pair for pair in first.compared.references if pair[0] in axes)),
        baselines=first.baselines + tuple(baseline for baseline in second.baselines if baseline not in first.baselines),
        load=lambda row: first.load(row) if row < length else second.load(row - length),
    )
