"""Somebody else's runs, saved as a study of their own and read back."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pandas as pd
from pydantic import ValidationError

from harness.common import files
from harness.common.errors import HarnessError, describe_os_error
from harness.records.array_shapes import LARGEST
from harness.records.curve_files import load_curves
from harness.records.reading import MOST_ARRAY_BYTES
from harness.records.record import Environment, Measured
from harness.records.study import TEXTS, Imported, Study, StudyCell, columns, compared

_HASHES = {name for name in Measured.model_fields if name.endswith("_sha256")}


def save_imported(folder: Path, imported: Imported, runs: pd.DataFrame, curves: bytes | None = None) -> None:
    """Write a table of somebody else's runs to a results folder; `runs` has some of `columns()`, `cell` among them.

    `curves` is the file of their curves, as `curve_files.packed` makes it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if curves is None:
        (folder / "curves.npz").unlink(missing_ok=True)  # of an import before
    else:
        files.write(folder / "curves.npz", curves)
    table = runs.to_csv(index=False, lineterminator="\n").encode()
    files.write(folder / "runs.csv", table)
    hashes = {"runs_sha256": _sha256(table), "curves_sha256": None if curves is None else _sha256(curves)}
    imported = imported.model_copy(update=hashes)
    files.write(folder / "imported.json", (imported.model_dump_json(indent=1) + "\n").encode())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def is_imported(folder: Path) -> bool:
    """Whether a results folder holds imported runs."""
    return (folder / "imported.json").is_file()


def _hold(runs: pd.DataFrame, imported: Imported) -> None:
    """Raise ValueError for a table that `save_imported` would not have written."""
    if any(tuple(name for name, _ in axes) != imported.axes for axes in imported.cells):
        raise ValueError("cells of other axes")
    cell = pd.to_numeric(runs["cell"]) if "cell" in runs else pd.Series(dtype=float)
    if not len(cell) or not cell.isin(range(len(imported.cells))).all():
        raise ValueError("runs of no cell")
    for name in set(runs) & set(columns()) - TEXTS - {*Environment.model_fields} - {*_HASHES, "seed"}:  # may be text
        numbers = pd.to_numeric(runs[name])
        if (numbers.abs() > LARGEST).any():
            raise ValueError(f"{name} of a run is no number that a run gives")
    if "trial" in runs and runs["trial"].duplicated().any():
        raise ValueError("a run twice")


def _check_unchanged(folder: Path, imported: Imported, runs: bytes) -> None:
    """Raise HarnessError where the table or the curves are not those that were written."""
    changed = "runs.csv" if imported.runs_sha256 not in (None, _sha256(runs)) else None
    if imported.curves_sha256 is not None:
        try:
            curves = files.read_regular(folder / "curves.npz", MOST_ARRAY_BYTES)
        except OSError:
            curves = b""
        changed = changed or ("curves.npz" if _sha256(curves) != imported.curves_sha256 else None)
    if changed is not None:
        raise HarnessError(
            f"cannot read the imported runs in {folder}: {changed} was changed since the import",
            fix="Import the files again",
        )


def of_import(folder: Path) -> Study:
    """The study of imported runs; raises HarnessError where the folder can't be read."""
    try:
        imported = Imported.model_validate_json(files.read_regular(folder / "imported.json", 2**28))
        content = files.read_regular(folder / "runs.csv", 2**28)
        _check_unchanged(folder, imported, content)
        imported = imported.model_copy(
            update={"runs_sha256": None, "curves_sha256": None}
        )  # of the files, not the runs
        table = pd.read_csv(
            io.BytesIO(content), dtype=dict.fromkeys(TEXTS, "str"), keep_default_na=False, na_values=[""]
        )
        _hold(table, imported)
        curves = load_curves(folder, len(table))
    except HarnessError:
        raise
    except (OSError, ValueError, ValidationError) as error:
        reason = describe_os_error(error) if isinstance(error, OSError) else "not as `harness import` wrote it"
        raise HarnessError(
            f"cannot read the imported runs in {folder}: {reason}", fix="Import the files again"
        ) from None
    runs = table.reindex(columns=list(columns()))
    for name in columns():
        runs[name] = runs[name].astype(object).where(runs[name].notna(), None) if name in TEXTS else runs[name]
    cells = tuple(StudyCell(axes) for axes in imported.cells)
    for number, axis in enumerate(imported.axes):
        runs[axis] = pd.Series([cells[index].axes[number][1] for index in runs["cell"]], dtype=object)
    study = Study(
        name=imported.name,
        title=imported.name,
        cells=cells,
        runs=runs,
        higher_is_better=imported.higher_is_better,
        notes=imported.notes,
        imports=(imported,),
        load=curves.get,
    )
    return compared(study, None, imported.references)
